/* The coordinator's loop. Owns the opening and closing of everything and the counters that signal handlers set; decides nothing about jobs
 * or steps.
 *
 * coordinator_run() opens (open_all()), serves, and says goodbye to the workers. serve() is the loop: a turn takes the messages that are
 * there (deliver() hands each to one part), the results of the thread for files, then every part's tick, in the order that stands there.
 * Parts never call those after them: what they have to tell is an event, and route() takes the events to whom they concern, after each
 * message and each tick that may make some. */
#include "coordinator/coordinator.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/config.h"
#include "coordinator/changes.h"
#include "coordinator/context.h"
#include "coordinator/dispatch.h"
#include "coordinator/download.h"
#include "coordinator/files.h"
#include "coordinator/lost_rows.h"
#include "coordinator/metrics.h"
#include "coordinator/output.h"
#include "coordinator/parts.h"
#include "coordinator/queue.h"
#include "coordinator/restart.h"
#include "coordinator/roster.h"
#include "coordinator/runs.h"
#include "coordinator/saving.h"
#include "coordinator/self_tests.h"
#include "coordinator/serve.h"
#include "coordinator/spool.h"
#include "coordinator/stages.h"
#include "coordinator/status.h"
#include "coordinator/store.h"
#include "coordinator/trained.h"
#include "coordinator/trainer.h"
#include "coordinator/training.h"
#include "coordinator/waiting.h"
#include "dataset/source/http.h"
#include "dataset/filter/policy.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/gpt2/gpt2.h"
#include "proto/endpoint.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "proto/reads.h"
#include "proto/session.h"

enum {
    TICK_MS = 50,
    WORKER_FRAME_MAX = READ_BYTES_MAX + (256 << 10),  /* a piece of an output or a segment of a state, and some words */
    MESSAGES_AT_ONCE_MAX = 256,  /* before time is looked at again */
    GOODBYE_MS = 2000,           /* for workers to hear that they may go */
    GOODBYE_AGAIN_MS = 500,
    STATUS_MS = 1000,            /* between two writings of status.json */
    SILENCE_MS = 1000,           /* at most count as silence between two looks, or a quarter of the lease: */
    SILENCES_OF_LEASE = 4,       /* nobody is lost for one turn, which has two looks (but at leases below 0.4 s: two ticks always count) */
    PLACE_LOOKS = 2,             /* in a row at which the store is not in its place: then the run ends */
};

struct loop {
    struct context *context;
    int64_t since_ms;            /* when it waited for messages last */
    int64_t looked_ms;           /* up to when silence was counted */
    int64_t status_ms;           /* last writing of status.json */
    int64_t stopping_ms;         /* since when it was asked to stop */
    unsigned out_of_place;       /* looks in a row at which the store's file was not under its name */
    bool nowhere;                /* state/endpoint could not be written again, which was told */
};

static volatile sig_atomic_t stop_requests, save_requests, serves;
static struct link *link_to_wake;

void coordinator_stop(void) {
    stop_requests = stop_requests + 1;
    spool_stop(true);
    http_stop(true);
    if (link_to_wake) link_wake(link_to_wake);
}

bool coordinator_serves(void) { return serves; }

void coordinator_save(void) {
    save_requests = 1;
    if (link_to_wake) link_wake(link_to_wake);
}

/* ---- messages ---- */

static void on_ask(struct context *c, uint64_t peer, const struct message *message) {
    const Millrace__Ask *ask = (const Millrace__Ask *)message->body;
    Millrace__Told told = MILLRACE__TOLD__INIT;
    if (strcmp(ask->what, "status") == 0) {
        told.json = (char *)status_answer(c);
        if (!told.json) return;
    } else if (strcmp(ask->what, "stop") == 0) coordinator_stop();
    else told.error = "this coordinator does not know that question";
    struct frame frame;
    if (frame_pack(&frame, &(struct envelope){.kind = MILLRACE__KIND__TOLD, .job = message->envelope.job}, &told.base, NULL, 0,
                   FRAME_ZSTD) == 0)
        link_send(c->link, peer, &frame);
}

/* Asked before a message is unpacked: what is not wanted costs no more than its header. Small kinds are taken from strangers, too, so that
 * they can be asked who they are. */
static bool wants(void *arg, uint64_t peer, const struct envelope *envelope) {
    struct context *c = arg;
    switch (envelope->kind) {
    case MILLRACE__KIND__ASK:
    case MILLRACE__KIND__HELLO:
    case MILLRACE__KIND__READY:
    case MILLRACE__KIND__SELF_TEST_RESULT:
    case MILLRACE__KIND__HEARTBEAT:
    case MILLRACE__KIND__GOODBYE: return true;
    case MILLRACE__KIND__DATA: return reads_asked(&c->reads, envelope->job, peer);
    case MILLRACE__KIND__READ:
    case MILLRACE__KIND__DONE:
    case MILLRACE__KIND__FAILED:
    case MILLRACE__KIND__SLICE:
    case MILLRACE__KIND__REDUCED:
    case MILLRACE__KIND__APPLIED: return roster_find(c, peer) >= 0;
    default: return false; /* kinds that only a coordinator sends */
    }
}

/* An answer goes to the part that asked; one to a question that is not open, or from somebody else, to none. */
static void take_data(struct context *c, uint64_t peer, const struct message *message) {
    struct read read;
    if (!reads_asked(&c->reads, message->envelope.job, peer) || !reads_take(&c->reads, &read, message->envelope.job)) return;
    if (read.tag & SAVING_TAG) saving_data(c, &read, message);
    else download_data(c, &read, message);
}

static void ask_what_is_due(struct context *c, int64_t now_ms) {
    struct read *read;
    while ((read = reads_due(&c->reads, now_ms))) {
        read->envelope.run = c->run;
        send_unnumbered(c, read->peer, &read->envelope, &read->body.base, &(struct buf){0}, FRAME_NONE);
    }
}

static void deliver(struct context *c, uint64_t peer, const struct message *message) {
    uint32_t kind = message->envelope.kind;
    if (kind == MILLRACE__KIND__ASK) {
        on_ask(c, peer, message);
        return;
    }
    int64_t number = roster_find(c, peer);
    if (number >= 0) c->worker[number].heard_ms = clock_ms();
    if (number >= 0 && !roster_take(c, (uint32_t)number, message)) return;
    bool admitted = number >= 0 && roster_admitted(&c->worker[number]);
    switch (kind) {
    case MILLRACE__KIND__READ:
        if (admitted) serve_message(c, peer, message);
        break;
    case MILLRACE__KIND__DATA:
        if (admitted) take_data(c, peer, message);
        break;
    case MILLRACE__KIND__DONE:
    case MILLRACE__KIND__FAILED:
        if (admitted) dispatch_message(c, (uint32_t)number, message);
        break;
    case MILLRACE__KIND__SLICE:
    case MILLRACE__KIND__REDUCED:
    case MILLRACE__KIND__APPLIED:
        if (admitted) training_message(c, (uint32_t)number, message);
        break;
    default: roster_message(c, peer, message);
    }
    if (number < 0) return;
    if (kind == MILLRACE__KIND__SELF_TEST_RESULT) self_tests_take(c, (uint32_t)number, (const Millrace__SelfTestResult *)message->body);
    if (kind == MILLRACE__KIND__HEARTBEAT) {
        const Millrace__Heartbeat *beat = (const Millrace__Heartbeat *)message->body;
        training_unheard(c, (uint32_t)number, beat->unheard, beat->n_unheard);
    }
}

/* Takes all events that parts keep, and hands each to those whom it concerns. */
static void route(struct context *c) {
    dispatch_outputs(c);
    training_saves(c);
    training_evaluations(c);
    struct roster_event event;
    while (roster_event(c, &event)) switch (event.news) {
        case ROSTER_CAME:
            if (c->stage == STAGE_TRAIN) self_tests_ask(c, event.worker);
            break;
        case ROSTER_PROVED: training_worker(c, event.worker, true); break;
        case ROSTER_DOUBTED: training_worker(c, event.worker, false); break;
        case ROSTER_LEAVING: training_leaving(c, event.worker); break;
        case ROSTER_GONE:
            download_drop_worker(c, event.worker);
            saving_drop_worker(c);
            dispatch_release(c, event.worker, event.lost);
            training_worker(c, event.worker, false);
            break;
        case ROSTER_OTHER: dispatch_forget(c, event.worker); break;
        }
}

/* Whoever is no worker, or says again what is not taken, must not end this process by what takes too much memory. */
static bool is_needed(const struct context *c, uint64_t peer, uint32_t kind) {
    return roster_find(c, peer) >= 0 && (kind == MILLRACE__KIND__DATA || session_counts(kind));
}

/* While a commit waits for the disk, or this process is stopped, nobody is heard, and more messages come than a turn takes. That is
 * nobody's silence; of each turn only a little is, so that who says nothing turn after turn is lost in the end. */
static void leave_out_pause(struct loop *loop) {
    struct context *c = loop->context;
    int64_t now = clock_ms(), silence_ms = (int64_t)(c->config->cluster.lease_seconds * 1000) / SILENCES_OF_LEASE;
    if (silence_ms > SILENCE_MS) silence_ms = SILENCE_MS;
    if (silence_ms < 2 * TICK_MS) silence_ms = 2 * TICK_MS; /* a turn without messages takes one */
    int64_t pause_ms = now - loop->looked_ms - silence_ms;
    loop->looked_ms = now;
    if (pause_ms <= 0) return;
    roster_pause(c, pause_ms, now);
    download_pause(c, pause_ms, now);
    saving_pause(c, pause_ms, now);
    if (c->trainer) trainer_pause(c->trainer, pause_ms, now);
}

static int receive(struct loop *loop) {
    struct context *c = loop->context;
    for (int i = 0; i < MESSAGES_AT_ONCE_MAX && !c->ended; i++) {
        uint64_t peer;
        struct message message;
        int code = link_receive(c->link, &peer, &message, i == 0 ? TICK_MS : 0);
        if (i == 0) loop->since_ms = clock_ms(); /* what it waited for messages is no pause */
        if (i == 0) leave_out_pause(loop);
        if (code == ERR_MEMORY && !is_needed(c, peer, message.envelope.kind)) continue;
        if (code <= 0) return code;
        deliver(c, peer, &message);
        route(c);
        message_free(&message);
    }
    return 0;
}

/* ---- stopping ---- */

/* The last line of a run that was stopped: how far it is, and from where the same command goes on. */
static int stopped(struct context *c, const char *why) {
    const struct trainer *t = c->trainer;
    const struct queue *queue = dispatch_queue(c);
    if (!t && queue)
        return err_set(ERR_INTERRUPTED, "stopped in stage %s: %zu of %zu job%s done and kept; the same command goes on from there",
                       stage_name(c->stage), queue->done, queue->count, queue->count == 1 ? " is" : "s are");
    if (!t) return err_set(ERR_INTERRUPTED, "stopped; the same command goes on from here");
    unsigned long long committed = t->committed, checkpoint = t->checkpoint;
    if (committed > checkpoint && checkpoint == 0)
        return err_set(ERR_INTERRUPTED, "stopped at step %llu, which is not saved: %s; the same command begins at the first step",
                       committed, why);
    if (committed > checkpoint)
        return err_set(ERR_INTERRUPTED, "stopped at step %llu, which is not saved: %s; the same command goes on from checkpoint-%llu",
                       committed, why, checkpoint);
    if (checkpoint == 0) return err_set(ERR_INTERRUPTED, "stopped before the first step was done; the same command goes on from there");
    return err_set(ERR_INTERRUPTED, "saved step %llu to checkpoint-%llu; the same command goes on from there", checkpoint, checkpoint);
}

static bool somebody_is_here(const struct context *c) {
    for (size_t i = 0; i < c->workers; i++)
        if (c->worker[i].state != WORKER_LOST && c->worker[i].state != WORKER_LEFT) return true;
    return false;
}

/* Why the stop is over ("": all is saved); NULL: the state can still be saved, and there is time. */
static const char *done_stopping(const struct loop *loop, int64_t now) {
    const struct context *c = loop->context;
    if (stop_requests > 1) return "asked to stop at once";
    bool unsaved = c->trainer && trainer_unsaved(c->trainer);
    if (!unsaved && !download_is_publishing(c) && !training_tells(c)) return "";
    if (now - loop->stopping_ms >= c->options.grace_ms) return "the grace is over";
    if (!unsaved) return NULL; /* a job's output is on its way to its name, or an evaluation to its checkpoint */
    bool here = saving_publishes(c) || somebody_is_here(c);
    if (!here && now - loop->stopping_ms >= TRAINER_GATHER_MS) return "no worker is there that holds it";
    return NULL;
}

static void look_at_requests(struct loop *loop, int64_t now) {
    struct context *c = loop->context;
    if (save_requests) {
        save_requests = 0;
        note_event(c, "save-asked", "%s", c->trainer && trainer_unsaved(c->trainer) ? "a checkpoint is made now" : "all is saved");
        if (c->trainer) trainer_save(c->trainer, now);
    }
    if (!stop_requests) return;
    if (!c->stopping) {
        c->stopping = true;
        loop->stopping_ms = now;
        note_event(c, "stop-asked", "saving, for %s s at most", text_real((double)c->options.grace_ms / 1000));
        if (c->trainer) trainer_stop(c->trainer, now);
    }
    const char *why = done_stopping(loop, now);
    if (!why) return;
    saving_leave(c);
    training_saves(c);
    c->ended = true;
    const char *waits = c->paused_why[PAUSED_CHECKPOINT];
    if (*waits && stop_requests == 1) why = waits; /* a full disk, say, for as long as the grace */
    c->outcome = stopped(c, why);
    const char *paused = paused_why(c); /* status tells it later */
    if (c->trainer && trainer_unsaved(c->trainer)) snprintf(c->reason, sizeof c->reason, "%s", err_text());
    else if (*paused) snprintf(c->reason, sizeof c->reason, "while it waited: %s", paused);
}

/* The time of one turn without the wait for messages: for that long nobody was answered. */
static void note_pause(struct loop *loop) {
    int64_t now = clock_ms();
    status_turn(loop->context, now - loop->since_ms);
    loop->since_ms = now;
}

/* Above a second somebody may have waited in vain: a cause to look for. */
static void say_pause(const struct context *c) {
    enum { PAUSE_TOLD_MS = 1000 };
    log_line(status_longest_pause_ms(c) > PAUSE_TOLD_MS ? LOG_INFO : LOG_DEBUG,
             "the longest time for which the coordinator answered nobody was %lld ms", (long long)status_longest_pause_ms(c));
}

/* A run whose output_dir is gone would train for nothing. Twice in a row, because a network file system may fail once. */
static void look_at_place(struct loop *loop) {
    struct context *c = loop->context;
    int code = store_in_place(c->store);
    loop->out_of_place = code < 0 ? loop->out_of_place + 1 : 0;
    if (loop->out_of_place >= PLACE_LOOKS) fail_pipeline(c, code);
}

static int publish_endpoint(const struct context *c) {
    const char *endpoint = link_endpoint(c->link);
    char *path = mem_format("%s/endpoint", c->state_folder);
    int code = file_publish(path, endpoint, strlen(endpoint));
    free(path);
    if (code != ERR_NOSPACE) return code;
    struct err full = err_take();
    return err_set(code, "%s; make room there, then the same command goes on", full.text);
}

/* Whoever asks this run something finds the way by that file. */
static bool endpoint_stands(const struct context *c) {
    struct buf there = {0};
    bool stands = output_endpoint(&there, c->config->output_dir) == 0 && strcmp((const char *)there.data, link_endpoint(c->link)) == 0;
    buf_free(&there);
    return stands;
}

static void look_at_endpoint(struct loop *loop) {
    struct context *c = loop->context;
    if (loop->out_of_place || endpoint_stands(c)) return;
    int code = publish_endpoint(c);
    if (code == 0) note_event(c, "endpoint-again", "state/endpoint was gone or damaged; it is written again");
    else if (!loop->nowhere) log_warn("nobody finds this run's address: %s", err_text());
    loop->nowhere = code < 0;
}

static int serve(struct loop *loop) {
    struct context *c = loop->context;
    loop->since_ms = loop->looked_ms = clock_ms();
    while (!c->ended) {
        note_pause(loop);
        int code = receive(loop);
        if (code < 0) return code;
        files_poll(c->files, c);
        route(c);
        leave_out_pause(loop);
        int64_t now = clock_ms();
        look_at_requests(loop, now);
        if (c->ended) break;
        roster_tick(c, now);
        route(c);
        training_let_go(c);
        route(c);
        stages_tick(c);
        self_tests_tick(c, now);
        route(c);
        training_tick(c, now);
        if (c->ended) break;
        dispatch_lease(c);
        download_tick(c, now);
        saving_tick(c, now);
        route(c);
        ask_what_is_due(c, now);
        serve_tick(c, now);
        waiting_tick(c, now);
        if (now - loop->status_ms >= STATUS_MS) {
            loop->status_ms = now;
            look_at_place(loop);
            look_at_endpoint(loop);
            if (!loop->out_of_place) metrics_look(c, now);
            status_write(c);
        }
    }
    return c->outcome;
}

static size_t say_goodbye(struct context *c) {
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    size_t there = 0;
    for (uint32_t i = 0; i < c->workers; i++)
        there += c->worker[i].peer && send_to(c, i, &(struct envelope){.kind = MILLRACE__KIND__GOODBYE}, &empty.base) == 0;
    return there;
}

/* A worker that did not hear it would wait for a coordinator that never comes back; so it is said until each has answered, or is gone; also
 * to who speaks now, having been lost for a message. */
static void send_home(struct context *c) {
    const Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    int64_t until = clock_ms() + GOODBYE_MS;
    while ((say_goodbye(c) > 0 || roster_expects_hello(c, clock_ms())) && clock_ms() < until) {
        int64_t again = clock_ms() + GOODBYE_AGAIN_MS;
        size_t waiting = 1;
        while (waiting && clock_ms() < again) {
            uint64_t peer;
            struct message message;
            int code = link_receive(c->link, &peer, &message, (int)(again - clock_ms() + 1));
            if (code == 0 || code == ERR_MEMORY) continue; /* an answer that came too late, and too large */
            if (code < 0) return;
            if (message.envelope.kind != MILLRACE__KIND__GOODBYE && roster_find(c, peer) < 0)
                send_unnumbered(c, peer, &(struct envelope){.kind = MILLRACE__KIND__GOODBYE}, &empty.base, &(struct buf){0}, FRAME_NONE);
            waiting = 0;
            for (size_t i = 0; i < c->workers; i++) {
                if (c->worker[i].peer == peer && message.envelope.kind == MILLRACE__KIND__GOODBYE) c->worker[i].peer = 0;
                waiting += c->worker[i].peer != 0;
            }
            message_free(&message);
        }
    }
}

/* ---- opening ---- */

static int load_records(struct context *c) {
    struct buf record = {0};
    TRY(changes_of_pipeline(c));
    TRY(store_get_number(c->store, "run", &c->run));
    TRY(store_get_number(c->store, "generation", &c->generation));
    if (!c->run && getrandom(&c->run, sizeof c->run, 0) != (ssize_t)sizeof c->run) c->run = (uint64_t)clock_wall_ms();
    c->run &= INT64_MAX;
    c->generation++;
    TRY(store_begin(c->store));
    int code = config_print_movable(&record, c->config);
    if (code == 0) code = store_set(c->store, "config", record.data, record.size);
    buf_free(&record);
    if (code == 0) code = store_set_number(c->store, "run", c->run);
    if (code == 0) code = store_set_number(c->store, "generation", c->generation);
    if (code < 0) {
        store_cancel(c->store);
        return code;
    }
    return store_commit(c->store);
}

/* The same address as before, so that workers find the new coordinator; else any free port. */
static int open_link(struct context *c) {
    struct link_options options = {.bind = c->options.bind, .insecure = c->config->cluster.insecure, .frame_max = WORKER_FRAME_MAX};
    struct buf last = {0};
    int code = store_get(c->store, "endpoint", &last);
    if (code < 0) return code;
    if (!options.bind && code == 1) {
        options.bind = (const char *)last.data;
        if (link_open(&c->link, &options) < 0) c->link = NULL;
        options.bind = NULL;
    }
    buf_free(&last);
    if (!options.bind) options.bind = "tcp://127.0.0.1:*";
    if (!c->link) TRY(link_open(&c->link, &options));
    link_filter(c->link, wants, c);
    const char *endpoint = link_endpoint(c->link);
    TRY(store_set(c->store, "endpoint", endpoint, strlen(endpoint)));
    return publish_endpoint(c);
}

/* Documents that are files can be divided when nothing has to see the whole of them. */
static int look_at_policy(struct context *c) {
    struct policy *policy;
    const struct policy_options options = policy_options_of(c->config);
    TRY(policy_open(&policy, &options));
    c->whole_documents = policy_sees_whole(policy) || !tokenizer_cuts(c->tokenizer);
    policy_close(policy);
    return 0;
}

/* Drafts that crashes have left. Nobody else's: the store's lock is held. One that cannot be removed only costs room. */
static void sweep_drafts(struct context *c) {
    const char *const folders[] = {c->config->output_dir, c->state_folder, c->runs_folder, c->prepared ? NULL : c->dataset_folder};
    size_t all = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        size_t swept = 0;
        if (folders[i] && drafts_sweep(&swept, folders[i]) < 0) log_warn("%s", err_text());
        all += swept;
    }
    if (all) note_event(c, "swept", "%zu draft%s of earlier crashes", all, plural(all));
}

static int finish_restart(struct context *c) {
    TRY(restart_is_begun(&c->restarted, c->store));
    int code = restart_go_on(c->store, c->config);
    if (code < 0) return err_add(code, "a restart that was begun before cannot go on");
    if (c->restarted) note_event(c, "restart-finished", "%s", RESTART_FINISHED);
    return 0;
}

static void wake(void *link) { link_wake(link); }

static int open_all(struct context *c) {
    TRY(tokenizer_open_for(&c->tokenizer, c->options.config));
    c->model = gpt2_config_of(c->config);
    struct optimizer optimizer = optimizer_of(c->config);
    c->parts = optimizer_parts(&optimizer);
    c->token_bytes = tokenizer_token_bytes(c->tokenizer);
    tokenizer_digest(c->tokenizer, c->tokenizer_digest);
    TRY(roster_prepare(c));
    TRY(look_at_policy(c));
    runs_note_settings(c);
    TRY(output_check(c->config, false));
    TRY(store_open(&c->store, c->state_folder));
    sweep_drafts(c);
    TRY(finish_restart(c));
    TRY(lost_rows_settle(c));
    TRY(trained_load(c));
    TRY(load_records(c));
    TRY(open_link(c));
    link_to_wake = c->link;
    TRY(files_open(&c->files, wake, c->link));
    note_event(c, "started", "generation %llu at %s, pid %d", (unsigned long long)c->generation, link_endpoint(c->link), (int)getpid());
    TRY(stages_begin(c));
    return spool_forget(c->config); /* else a later pipeline would take it for its own */
}

static void close_all(struct context *c) {
    link_to_wake = NULL;
    spool_stop(false);
    http_stop(false);
    stop_requests = save_requests = 0; /* they were for this run: the process may have another one */
    files_close(c->files, c);
    parts_close(c);
    tokenizer_close(c->tokenizer);
    link_close(c->link);
    store_close(c->store);
    context_forget_names(c);
    free(c);
}

int coordinator_run(const struct coordinator_options *options) {
    struct context *c = mem_alloc(sizeof *c);
    struct loop loop = {.context = c};
    serves = false;
    c->options = *options;
    context_name(c, options->config);
    parts_open(c);
    int code = open_all(c);
    bool began = code == 0; /* else what status.json has of an earlier run is still true */
    serves = began;
    if (began) code = serve(&loop);
    say_pause(c);
    if (code < 0 && c->store && loop.out_of_place < PLACE_LOOKS) { /* then whatever failed, failed because of that */
        struct err why = err_take();
        int place = store_in_place(c->store);
        if (place < 0) code = err_set(place, "%s: %s", err_text(), why.text);
        else err_give(&why);
    }
    if (code == 0) files_drain(c->files, c); /* the last checkpoint's predecessors go */
    else if (c->link) fail_pipeline(c, code);
    struct err kept = err_take();
    if (c->link) {
        if (began && !loop.out_of_place) metrics_look(c, INT64_MAX); /* however lately that was in vain */
        if (began) status_write_last(c);
        send_home(c);
    }
    close_all(c);
    err_give(&kept);
    return code;
}
