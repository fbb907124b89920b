/* The network thread, and the worker's life: hello, heartbeats, routing, farewell. Owns the link, the session with the coordinator, the
 * parked questions of others, and which other workers do not answer (struct contact). Computes nothing of
 * a step: what it does with bytes is to copy and compress the chunks that others ask for; whatever takes longer belongs to the work thread.
 *
 * worker_run() opens all, starts the work thread and is the network thread from then on: serve() receives a message, sends what the outbox
 * has, answers parked questions when there is news, and does what is due (tick()). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/mem.h"
#include "base/version.h"
#include "model/kernels/product.h"
#include "proto/endpoint.h"
#include "proto/link.h"
#include "proto/session.h"
#include "workers/asked.h"
#include "workers/parked.h"
#include "workers/serve.h"
#include "workers/work.h"

enum {
    HEARTBEAT_MS = 500,
    PEER_FRAME_MAX = 256 << 10, /* others only ask here */
    PARKED_MS = 60000,       /* the asker repeats itself before */
    HELLO_AGAIN_MS = 1000,   /* while no WELCOME came. A new coordinator answers every message of a worker that it does not know with WHO */
    IDLE_MS = 60000,         /* a connection to a worker over which nothing went for that long: it left, or is not needed now */
    IDLE_HURRY_MS = 5000,    /* the same when there are more connections than a link may have */
    IDLE_LOOK_MS = 1000,
    ALONE_MS = 3000,         /* silence of the coordinator, after which a worker that is to leave and holds no state does not wait for it */
    GONE_MS = 3000,          /* the same of one to whom nothing can be sent: it never will be again */
    GONE_MAX_MS = 600000,    /* what is refused only later than that after its last word may be too much, and not gone */
    SILENCE_MS = 10000,      /* of the coordinator, before the log mentions it */
    COMPUTING_MS = 1000,     /* for the work thread to end what it computes, when this worker was asked to leave and has said goodbye */
    ENDED_LOOK_MS = 5,
    UNHEARD_MS = 6000,       /* silence of another worker, before the coordinator is told: a segment takes as long at 0.7 MB/s */
    UNHEARD_TOLD_MAX = 16,   /* of them */
    CONTACTS_MAX = 256,
    PING = 1,                /* envelope.job of a HEARTBEAT between workers that asks for another one */
};

/* Who is reached at the last of its addresses alone is not told as unheard: each of the others has its time, up to a quarter more until the
 * link looks, and up to one PING more until the next is asked anything. */
_Static_assert((ENDPOINT_ADDRESSES_MAX - 1) * (LINK_TRY_MS + LINK_TRY_MS / 4 + HEARTBEAT_MS) < UNHEARD_MS, "addresses are tried too late");

/* Another worker, from when it is asked for something until it says anything. It need not have what was asked for, but its network thread
 * answers a HEARTBEAT at once: who does not is not reached. */
struct contact {
    char *endpoint;
    uint64_t peer;           /* 0: its address cannot even be used */
    int64_t asked_ms, ping_ms;
    bool told;               /* the log knows */
};

struct agent {
    struct worker *worker;
    struct contact contact[CONTACTS_MAX];
    size_t contacts;
    struct session session;  /* with the coordinator */
    bool welcomed;           /* by it; until then HELLO is sent again and again */
    int64_t hello_ms, heartbeat_ms, heard_ms, silence_ms, idle_ms;
    const volatile sig_atomic_t *stops;  /* how often it was asked to leave */
    int64_t leave_by_ms;     /* until then it may stay; 0: it was not asked */
    struct parking parking;
    struct asked asked;
};

static struct worker *current;              /* for the signal handler */
static volatile sig_atomic_t stop_requested; /* how often */

void worker_stop(void) {
    stop_requested = stop_requested + 1;
    if (current && current->link) link_wake(current->link);
}

/* What is not sent is said, or asked for, again. For want of memory it would be so for ever, and others would wait: the worker ends. */
static void not_sent(struct worker *worker, uint32_t kind, int code) {
    log_debug("%s not sent: %s", kind_name(kind), err_text());
    if (code == ERR_MEMORY) worker_end(worker, code, err_text());
}

static int send_one(struct worker *worker, uint64_t peer, const struct envelope *envelope, const ProtobufCMessage *body,
                    const struct buf *chunk, enum frame_encoding encoding) {
    struct frame frame;
    int code = frame_pack(&frame, envelope, body, chunk->data, chunk->size, encoding);
    if (code == 0) code = link_send(worker->link, peer, &frame);
    if (code < 0) not_sent(worker, envelope->kind, code);
    return code;
}

/* ZeroMQ gives a connection up for good, without a word, when it has no memory for what comes over it: from then on all that is sent is
 * refused, though next to nothing waits. A coordinator that is away, or does not read, is waited for: what is sent to it is kept, up to
 * LINK_UNSENT_MAX bytes and LINK_QUEUE_MAX messages, which are more than an hour's. */
static void look_at_refusal(struct agent *agent, int code) {
    struct worker *worker = agent->worker;
    int64_t silent_ms = clock_ms() - agent->heard_ms;
    if (code != ERR_LIMIT || !atomic_load(&worker->run) || silent_ms < GONE_MS || silent_ms > GONE_MAX_MS) return;
    if (!link_has_room(worker->link, worker->coordinator, PEER_FRAME_MAX)) return;
    mem_wanted(READ_BYTES_MAX, " or less for a message");
    worker_end(worker, err_add(ERR_MEMORY, "nothing goes to the coordinator, and nothing comes from it"), err_text());
}

/* For kinds that are not numbered in the session; the numbered ones all come from the work thread, through the outbox. */
static void send_to_coordinator(struct agent *agent, uint32_t kind, const ProtobufCMessage *body) {
    struct worker *worker = agent->worker;
    struct envelope envelope = {.kind = kind, .run = atomic_load(&worker->run), .sequence = session_number(&agent->session, false)};
    look_at_refusal(agent, send_one(worker, worker->coordinator, &envelope, body, &(struct buf){0}, FRAME_ZSTD));
}

static void say_hello(struct agent *agent) {
    struct worker *worker = agent->worker;
    Millrace__Hello hello = MILLRACE__HELLO__INIT;
    char kernels[128] = "", build[256];
    if (kernels_setup(kernels) < 0) snprintf(kernels, sizeof kernels, "unusable");
    snprintf(build, sizeof build, "millrace %s; %s", MILLRACE_VERSION, kernels);
    hello.worker = worker->id;
    hello.pid = (uint32_t)getpid();
    hello.host = worker->host;
    hello.endpoint = worker->endpoint;
    hello.build = build;
    uint8_t digest[XXH128_BYTES];
    pthread_mutex_lock(&worker->lock);
    if (worker->shared.offer.state_changes) { /* the state has no digest now; a HELLO without one would be answered with an older state */
        pthread_mutex_unlock(&worker->lock);
        return;
    }
    if (worker->shared.offer.state) {
        memcpy(digest, worker->shared.state_digest, sizeof digest);
        hello.state_step = worker->shared.offer.state_step;
        hello.state_digest = (ProtobufCBinaryData){sizeof digest, digest};
    }
    pthread_mutex_unlock(&worker->lock);
    agent->session = (struct session){0};
    send_to_coordinator(agent, MILLRACE__KIND__HELLO, &hello.base);
    agent->hello_ms = clock_ms();
}

/* ---- who does not answer ---- */

static void contact_drop(struct agent *agent, size_t i) {
    free(agent->contact[i].endpoint);
    agent->contact[i] = agent->contact[--agent->contacts];
}

/* True: it was waited for by nobody before. */
static bool contact_asked(struct agent *agent, const char *endpoint, uint64_t peer) {
    for (size_t i = 0; i < agent->contacts; i++)
        if (strcmp(agent->contact[i].endpoint, endpoint) == 0) {
            agent->contact[i].peer = peer;
            return false;
        }
    if (agent->contacts == CONTACTS_MAX) return false;
    int64_t now = clock_ms();
    agent->contact[agent->contacts++] = (struct contact){.endpoint = mem_text(endpoint), .peer = peer, .asked_ms = now, .ping_ms = now};
    return true;
}

static void contact_heard(struct agent *agent, uint64_t peer) {
    for (size_t i = agent->contacts; i-- > 0;)
        if (agent->contact[i].peer == peer) contact_drop(agent, i);
}

/* A new view: only its members matter. */
static void contacts_of_step(struct agent *agent, const Millrace__Step *step) {
    for (size_t i = agent->contacts; i-- > 0;) {
        bool member = false;
        for (size_t k = 0; k < step->n_members; k++) member |= strcmp(step->members[k]->endpoint, agent->contact[i].endpoint) == 0;
        if (!member) contact_drop(agent, i);
    }
}

/* A state to take: only its givers matter. Else it would go on naming others, and be told to join anew for ever. */
static void contacts_of_join(struct agent *agent, const Millrace__Join *join) {
    for (size_t i = agent->contacts; i-- > 0;) {
        bool giver = false;
        for (size_t k = 0; k < join->n_peers; k++) giver |= strcmp(join->peers[k], agent->contact[i].endpoint) == 0;
        if (!giver) contact_drop(agent, i);
    }
}

static void send_heartbeat_to(struct worker *worker, uint64_t peer, uint64_t job) {
    struct envelope envelope = {.kind = MILLRACE__KIND__HEARTBEAT, .run = atomic_load(&worker->run), .job = job};
    send_one(worker, peer, &envelope, NULL, &(struct buf){0}, FRAME_NONE);
}

static void look_at_contacts(struct agent *agent, int64_t now) {
    for (size_t i = 0; i < agent->contacts; i++) {
        struct contact *contact = &agent->contact[i];
        if (contact->peer && now - contact->ping_ms >= HEARTBEAT_MS) {
            contact->ping_ms = now;
            send_heartbeat_to(agent->worker, contact->peer, PING);
        }
        if (contact->told || now - contact->asked_ms < UNHEARD_MS) continue;
        contact->told = true;
        log_warn("nothing heard from the worker at %s for %d s; is that the address at which this machine reaches it?", contact->endpoint,
                 UNHEARD_MS / 1000);
    }
}

static void say_heartbeat(struct agent *agent) {
    struct worker *worker = agent->worker;
    Millrace__Heartbeat beat = MILLRACE__HEARTBEAT__INIT;
    beat.progress = atomic_load(&worker->progress);
    beat.busy = atomic_load(&worker->busy);
    beat.leaving = *agent->stops != 0;
    beat.rss_bytes = machine_peak_rss_bytes();
    char *unheard[UNHEARD_TOLD_MAX];
    beat.unheard = unheard;
    for (size_t i = 0; i < agent->contacts && beat.n_unheard < UNHEARD_TOLD_MAX; i++)
        if (clock_ms() - agent->contact[i].asked_ms >= UNHEARD_MS) unheard[beat.n_unheard++] = agent->contact[i].endpoint;
    send_to_coordinator(agent, MILLRACE__KIND__HEARTBEAT, &beat.base);
    agent->heartbeat_ms = clock_ms();
}

/* ---- reads of others ---- */

static bool answer_read(struct agent *agent, const struct parked *p) {
    struct worker *worker = agent->worker;
    if (!link_has_room(worker->link, p->peer, asked_bytes(&p->read))) return true; /* it does not read what it asked for before */
    Millrace__Data data = MILLRACE__DATA__INIT;
    struct buf chunk = {.max_bytes = FRAME_CHUNK_MAX};
    enum frame_encoding encoding = worker->coordinator_is_local ? FRAME_NONE : FRAME_ZSTD;
    int code = serve_read(worker, &data, &chunk, &encoding, &p->envelope, &p->read);
    if (code < 0) {
        data.status = MILLRACE__DATA__STATUS__FAULT;
        data.reason = (char *)err_text();
        chunk.size = 0;
    }
    struct envelope envelope = p->envelope;
    envelope.kind = MILLRACE__KIND__DATA;
    if (code == ERR_MEMORY) not_sent(worker, envelope.kind, code);
    else if (code != 0) send_one(worker, p->peer, &envelope, &data.base, &chunk, encoding);
    buf_free(&chunk);
    return code != 0;
}

static void answer_parked(struct agent *agent) {
    struct parking *parking = &agent->parking;
    int64_t now = clock_ms();
    for (size_t i = 0; i < parking->count;) {
        if (now - parking->parked[i].since_ms > PARKED_MS || answer_read(agent, &parking->parked[i])) parking_drop(parking, i);
        else i++;
    }
}

static void on_read(struct agent *agent, uint64_t peer, const struct message *message) {
    struct parked p = {.peer = peer, .envelope = message->envelope, .read = *(const Millrace__Read *)message->body, .since_ms = clock_ms()};
    p.read.split = NULL; /* belongs to the message; nothing that a worker serves has a split */
    if (!answer_read(agent, &p)) parking_add(&agent->parking, &p);
}

/* ---- messages ---- */

static void to_work(struct worker *worker, struct message *message) {
    struct queued_message *queued = mem_alloc(sizeof *queued);
    queued->message = *message;
    *message = (struct message){0};
    mailbox_put(&worker->inbox, queued);
}

/* A coordinator that was started again with other keys, or another run's at the same address: nothing that is here fits any more. */
static bool is_another_pipeline(struct worker *worker, const struct message *message) {
    const Millrace__Welcome *welcome = (const Millrace__Welcome *)message->body;
    uint8_t digest[SHA256_BYTES];
    struct sha256 *sha = sha256_open();
    sha256_add(sha, &message->envelope.run, sizeof message->envelope.run);
    sha256_add(sha, welcome->config, strlen(welcome->config) + 1);
    sha256_add(sha, welcome->tokenizer.data, welcome->tokenizer.len);
    sha256_finish(sha, digest);
    sha256_close(sha);
    bool another = worker->knows_pipeline && memcmp(digest, worker->pipeline, sizeof digest) != 0;
    memcpy(worker->pipeline, digest, sizeof digest);
    worker->knows_pipeline = true;
    return another;
}

/* Whether the message is the next one of the session with the coordinator. After a gap, and before WELCOME, nothing numbered is. */
static bool take(struct agent *agent, const struct envelope *envelope) {
    bool counts = session_counts(envelope->kind);
    if (!counts && envelope->kind != MILLRACE__KIND__HEARTBEAT) return true;
    if (envelope->kind == MILLRACE__KIND__WELCOME) {
        agent->session.taken = 0;
        agent->welcomed = true;
    }
    if (!agent->welcomed) return false;
    enum session_news news = session_take(&agent->session, counts, envelope->sequence);
    if (news == SESSION_GAP) {
        log_warn("a message of the coordinator was lost on the way; saying hello again");
        agent->welcomed = false;
    }
    return news == SESSION_NEXT;
}

static void on_coordinator(struct agent *agent, struct message *message) {
    struct worker *worker = agent->worker;
    if (!take(agent, &message->envelope)) return;
    switch (message->envelope.kind) {
    case MILLRACE__KIND__WHO: agent->welcomed = false; break;
    case MILLRACE__KIND__HEARTBEAT: break;
    case MILLRACE__KIND__REFUSED: {
        const Millrace__Refused *refused = (const Millrace__Refused *)message->body;
        log_error("refused: %s", refused->reason);
        if (refused->final) {
            char text[ERR_TEXT_BYTES];
            snprintf(text, sizeof text, WORKER_REFUSED "%s", refused->reason);
            worker_end(worker, ERR_PEER, text);
        }
        break;
    }
    case MILLRACE__KIND__GOODBYE:
        log_info("sent home by the coordinator");
        send_to_coordinator(agent, MILLRACE__KIND__GOODBYE, NULL);
        if (*agent->stops) worker_end(worker, ERR_INTERRUPTED, "asked to leave, and left: nothing was needed here any more");
        else worker_end(worker, 0, "");
        break;
    case MILLRACE__KIND__WELCOME:
        if (is_another_pipeline(worker, message)) {
            log_info("the coordinator has another pipeline now: this worker begins anew with that one");
            worker_end(worker, WORKER_AGAIN, "");
            break;
        }
        atomic_store(&worker->run, message->envelope.run);
        to_work(worker, message);
        break;
    case MILLRACE__KIND__STEP:
        contacts_of_step(agent, (const Millrace__Step *)message->body);
        to_work(worker, message);
        break;
    case MILLRACE__KIND__JOIN:
        contacts_of_join(agent, (const Millrace__Join *)message->body);
        to_work(worker, message);
        break;
    default: to_work(worker, message);
    }
}

/* What is not wanted costs no more than its header: others may ask, and give what they were asked for. */
static bool wants(void *arg, uint64_t peer, const struct envelope *envelope) {
    const struct agent *agent = arg;
    if (envelope->kind == MILLRACE__KIND__DATA) return asked_open(&agent->asked, peer, envelope->job);
    if (envelope->kind == MILLRACE__KIND__READ || envelope->kind == MILLRACE__KIND__HEARTBEAT) return true;
    return peer == agent->worker->coordinator;
}

static void on_message(struct agent *agent, uint64_t peer, struct message *message) {
    struct worker *worker = agent->worker;
    uint32_t kind = message->envelope.kind;
    if (peer == worker->coordinator) agent->heard_ms = agent->silence_ms = clock_ms();
    else contact_heard(agent, peer);
    if (kind == MILLRACE__KIND__READ) on_read(agent, peer, message);
    else if (kind == MILLRACE__KIND__DATA) {
        if (asked_take(&agent->asked, peer, message->envelope.job, message->chunk_bytes)) to_work(worker, message);
    } else if (peer == worker->coordinator) on_coordinator(agent, message);
    else if (kind == MILLRACE__KIND__HEARTBEAT && message->envelope.job == PING) send_heartbeat_to(worker, peer, 0);
    message_free(message);
}

static int connect_peer(struct worker *worker, uint64_t *out_peer, const char *endpoint) {
    int code = link_connect(worker->link, out_peer, endpoint);
    if (code != ERR_LIMIT || !link_disconnect_idle(worker->link, IDLE_HURRY_MS, worker->coordinator)) return code;
    return link_connect(worker->link, out_peer, endpoint);
}

static void send_outbox(struct agent *agent) {
    struct worker *worker = agent->worker;
    for (struct queued_message *queued; (queued = mailbox_take(&worker->outbox, 0)); queued_message_free(queued)) {
        uint64_t peer = worker->coordinator;
        bool counts = !queued->endpoint && session_counts(queued->message.envelope.kind);
        int code = queued->endpoint ? connect_peer(worker, &peer, queued->endpoint) : 0;
        if (code == 0 && queued->question) asked_note(&agent->asked, peer, queued->question, queued->question_bytes);
        if (queued->endpoint && contact_asked(agent, queued->endpoint, code == 0 ? peer : 0) && code == 0 && strchr(queued->endpoint, ','))
            send_heartbeat_to(worker, peer, PING); /* answered first: what was asked for may take longer than an address has to answer */
        if (counts) code = frame_number(&queued->frame, session_number(&agent->session, true));
        session_sent(&agent->session, counts);
        if (code == 0) code = link_send(worker->link, peer, &queued->frame);
        if (code < 0) not_sent(worker, queued->message.envelope.kind, code);
    }
}

static bool holds_state(struct worker *worker) {
    pthread_mutex_lock(&worker->lock);
    bool holds = worker->shared.offer.state;
    pthread_mutex_unlock(&worker->lock);
    return holds;
}

/* It was asked to leave: the coordinator learns it from the heartbeat, and sends GOODBYE when it may. True: it has left. */
static bool look_at_stop(struct agent *agent, int64_t now) {
    struct worker *worker = agent->worker;
    bool welcomed = atomic_load(&worker->run) != 0; /* once */
    if (!agent->leave_by_ms) {
        agent->leave_by_ms = now + worker->options.grace_ms + worker->options.later_ms;
        if (welcomed)
            log_info("asked to leave: within %lld s, as soon as the coordinator can do without; once more to leave at once",
                     (long long)worker->options.grace_ms / 1000);
        else log_info("asked to leave: no coordinator was met, so nobody is waited for");
        if (agent->welcomed) say_heartbeat(agent);
    }
    bool alone = !welcomed || (now - agent->heard_ms > ALONE_MS && !holds_state(worker));
    if (*agent->stops < 2 && !alone && now < agent->leave_by_ms) return false;
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    send_to_coordinator(agent, MILLRACE__KIND__GOODBYE, &empty.base);
    worker_end(worker, ERR_INTERRUPTED, *agent->stops > 1 ? "stopped at once" : alone ? "stopped" : "stopped: the grace is over");
    return true;
}

static void tick(struct agent *agent) {
    struct worker *worker = agent->worker;
    int64_t now = clock_ms();
    if (*agent->stops && look_at_stop(agent, now)) return;
    look_at_contacts(agent, now);
    if (now - agent->idle_ms >= IDLE_LOOK_MS) {
        agent->idle_ms = now;
        link_disconnect_idle(worker->link, IDLE_MS, worker->coordinator);
    }
    if (!agent->welcomed && now - agent->hello_ms >= HELLO_AGAIN_MS) say_hello(agent);
    if (agent->welcomed && now - agent->heartbeat_ms >= HEARTBEAT_MS) say_heartbeat(agent);
    if (now - agent->silence_ms >= SILENCE_MS) {
        agent->silence_ms = now;
        log_warn("nothing heard from the coordinator at %s for %lld s; still trying", worker->options.connect,
                 (long long)(now - agent->heard_ms) / 1000);
    }
}

static int serve(struct agent *agent) {
    struct worker *worker = agent->worker;
    agent->heard_ms = agent->silence_ms = clock_ms();
    agent->hello_ms = -HELLO_AGAIN_MS;
    while (!atomic_load(&worker->stopping)) {
        uint64_t peer;
        struct message message;
        int code = link_receive(worker->link, &peer, &message, 100);
        if (code < 0) return code;
        if (code == 1) on_message(agent, peer, &message);
        send_outbox(agent);
        if (atomic_exchange(&worker->news, false) || code == 0) answer_parked(agent);
        tick(agent);
    }
    return 0;
}

/* True: the work thread has ended. It does not look up from a slice, or a pass of the optimizer, which may take minutes: a worker that was
 * asked to leave goes without it. Nobody is told of what it makes, and its files have no names. */
static bool work_ends(const struct agent *agent) {
    int64_t until = 0;
    for (; !atomic_load(&agent->worker->ended); clock_sleep_ms(ENDED_LOOK_MS)) {
        if (*agent->stops && !until) until = clock_ms() + COMPUTING_MS;
        if (until && clock_ms() >= until) return false;
    }
    return true;
}

static void choose_id(struct worker *worker) {
    uint8_t random[8];
    char hex[17];
    if (gethostname(worker->host, sizeof worker->host - 1) != 0) snprintf(worker->host, sizeof worker->host, "unknown");
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        memcpy(random, &(uint64_t){(uint64_t)clock_wall_ms()}, sizeof random);
    hex_of(hex, random, sizeof random);
    snprintf(worker->id, sizeof worker->id, "w-%d-%.6s", (int)getpid(), hex);
}

/* Where others reach it, now that its port is known. */
static int choose_endpoint(struct worker *worker) {
    const char *bound = link_endpoint(worker->link), *advertise = worker->options.advertise;
    return advertise ? endpoint_announce(worker->endpoint, advertise, bound) : endpoint_write(worker->endpoint, bound, NULL);
}

int worker_run(const struct worker_options *options) {
    struct worker *worker = mem_alloc(sizeof *worker);
    worker->options = *options;
    pthread_mutex_init(&worker->lock, NULL);
    mailbox_open(&worker->inbox);
    mailbox_open(&worker->outbox);
    worker->deferred_last = &worker->deferred;
    choose_id(worker);
    struct agent *agent = mem_alloc(sizeof *agent);
    agent->worker = worker;
    agent->stops = options->stops ? options->stops : &stop_requested;
    char kernels[128];
    worker->coordinator_is_local = endpoint_is_local(options->connect);
    int code = kernels_setup(kernels);
    struct link_options link = {.bind = "tcp://127.0.0.1:*", .insecure = options->insecure, .frame_max = PEER_FRAME_MAX};
    if (options->bind) link.bind = options->bind;
    if (code == 0) code = link_open(&worker->link, &link);
    if (code == 0) link_filter(worker->link, wants, agent);
    if (code == 0) code = choose_endpoint(worker);
    if (code == 0) code = link_connect(worker->link, &worker->coordinator, options->connect);
    pthread_t work;
    if (code == 0) {
        current = worker;
        log_info("worker %s at %s, coordinator at %s", worker->id, worker->endpoint, options->connect);
        if (pthread_create(&work, NULL, work_main, worker) != 0) code = err_set(ERR_LIMIT, "the work thread could not be started");
        else {
            code = serve(agent);
            worker_end(worker, code, code < 0 ? err_text() : "");
            if (!work_ends(agent)) {
                pthread_detach(work); /* it computes on until the process is gone, and what it uses stays */
                return err_set(ERR_INTERRUPTED, "%s", *worker->outcome_text ? worker->outcome_text : "stopped");
            }
            pthread_join(work, NULL);
            send_outbox(agent); /* first: what of it is not sent is no reason */
            code = atomic_load(&worker->outcome);
            if (code < 0) err_set(code, "%s", worker->outcome_text);
        }
        current = NULL;
    }
    link_close(worker->link);
    mailbox_close(&worker->inbox);
    mailbox_close(&worker->outbox);
    pthread_mutex_destroy(&worker->lock);
    while (agent->contacts) contact_drop(agent, 0);
    free(agent);
    free(worker);
    return code;
}
