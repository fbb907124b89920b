/* Reading a state and publishing it: items (a segment of a part) are asked for from the members in turn, written to a draft as they come;
 * when all are there their digest is compared with the one that the members agreed on, and the thread for files publishes the draft
 * (struct publication, whose `turn` decides between that thread and a coordinator that ends). Owns the draft and which items came. All
 * but publication_task() is the loop's. */
#include "coordinator/saving.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/context.h"
#include "coordinator/files.h"
#include "coordinator/metrics.h"
#include "coordinator/output.h"
#include "coordinator/roster.h"
#include "coordinator/self_tests.h"
#include "coordinator/trainer.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/checkpoint/checkpoint.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/state.h"
#include "proto/frame.h"
#include "proto/reads.h"
#include "proto/steps.h"

enum {
    STATE_READS_AT_WORKER_MAX = 2,
    SAVE_AGAIN_MS = 5000, /* after a checkpoint could not be written */
};

struct saving {
    bool active;
    uint64_t step;
    struct checkpoint_draft *draft;
    size_t items, next, missing;   /* (part, segment) pairs */
    uint8_t *digests;              /* of each item, for the state's digest */
    uint8_t *requested, *arrived;  /* one flag for each item */
    int64_t again_ms;              /* not before: the last try failed */
    int64_t moved_ms;              /* when something came last */
    struct publication *publication; /* all came, and the thread for files makes a checkpoint of it; NULL: not so */
    unsigned wrong;                /* tries at this step in which another state came: from then on one member alone is asked */
    uint32_t alone;                /* who that is now, if wrong > 0 */
    struct saving_event event;     /* not taken yet */
};

void saving_end(struct context *c) {
    struct saving *s = c->saving;
    CHECK(!s->publication); /* the trainer waits for it */
    checkpoint_discard(s->draft);
    free(s->digests);
    free(s->requested);
    free(s->arrived);
    *s = (struct saving){.event = s->event};
    for (size_t i = c->reads.count; i-- > 0;) { /* answers to the rest are of no use */
        struct read read;
        if (c->reads.read[i].tag & SAVING_TAG) reads_take(&c->reads, &read, c->reads.read[i].id);
    }
}

/* Tried again later, but not for ever. That another state came than the one agreed on is no failed try: who sends it is found by asking
 * each alone, at once. */
static void save_failed_with(struct context *c, const char *why, bool other_state) {
    uint64_t step = c->saving->step;
    unsigned wrong = c->saving->wrong + other_state;
    saving_end(c);
    *c->saving = (struct saving){.step = step, .event = c->saving->event, .wrong = wrong};
    c->saving->again_ms = clock_ms() + (other_state ? 0 : SAVE_AGAIN_MS);
    if (!other_state) trainer_saved(c->trainer, step, false, clock_ms());
    bool skipped = c->trainer->save_skipped == step;
    if (skipped)
        note_event(c, "checkpoint-skipped", "step %llu: %s; training goes on, the newest checkpoint is that of step %llu",
                   (unsigned long long)step, why, (unsigned long long)c->trainer->checkpoint);
    else if (other_state || c->trainer->save_tries == 1)
        note_event(c, "checkpoint-failed", "step %llu: %s; it is tried again", (unsigned long long)step, why);
    snprintf(c->paused_why[PAUSED_CHECKPOINT], sizeof c->paused_why[PAUSED_CHECKPOINT], "%s", skipped ? "" : why);
}

static void save_failed(struct context *c, const char *why) { save_failed_with(c, why, false); }

/* err_text() says why. What does not pass by itself is not waited for: every step more would be one more to do again. */
static void save_refused(struct context *c, int code) {
    char why[ERR_TEXT_BYTES], from[80] = "begins at the first step";
    snprintf(why, sizeof why, "%s", err_text());
    if (err_passes(code)) {
        char *waits = c->paused_why[PAUSED_CHECKPOINT], words[sizeof c->paused_why[PAUSED_CHECKPOINT]];
        output_wait_words(words, sizeof words, c->config, code, SAVE_AGAIN_MS / 1000);
        save_failed(c, why);
        if (*waits) snprintf(waits, sizeof words, "%s", words); /* else it is given up */
        return;
    }
    unsigned long long step = c->saving->step, before = c->trainer->checkpoint;
    saving_end(c);
    if (before) snprintf(from, sizeof from, "goes on from checkpoint-%llu, with the same result", before);
    fail_pipeline(c, err_set(code, "step %llu cannot be saved: %s; put that right, then the same command %s", step, why, from));
}

static bool can_give_state(const struct context *c, uint32_t worker) {
    return roster_admitted(&c->worker[worker]) && trainer_holds_state(c->trainer, worker);
}

/* When another state came than the members agreed on, each of them is read from alone, in turn: so the one at fault is found. */
static uint32_t who_is_next(const struct context *c, unsigned turn) {
    uint32_t holders = 0;
    for (uint32_t w = 0; w < c->workers; w++) holders += can_give_state(c, w);
    for (uint32_t w = 0, left = holders ? turn % holders : 0; w < c->workers; w++)
        if (can_give_state(c, w) && left-- == 0) return w;
    return 0;
}

/* Spreads questions over the members that hold the state. */
static void ask_state(struct context *c) {
    struct saving *s = c->saving;
    size_t segments = segment_count(gpt2_parameters(&c->model));
    bool others = false; /* than those who did not give it */
    for (uint32_t w = 0; w < c->workers; w++) others |= can_give_state(c, w) && c->worker[w].mute_step != s->step;
    for (uint32_t w = 0; w < c->workers && s->next < s->items; w++) {
        if (!can_give_state(c, w) || (others && c->worker[w].mute_step == s->step)) continue;
        if (s->wrong && w != s->alone && can_give_state(c, s->alone)) continue;
        while (reads_open_at(&c->reads, c->worker[w].peer) < STATE_READS_AT_WORKER_MAX) {
            while (s->next < s->items && s->requested[s->next]) s->next++;
            if (s->next == s->items) return;
            struct read *read = reads_add(&c->reads, c->worker[w].peer, SAVING_TAG | s->next);
            if (!read) return;
            read->envelope.step = s->step;
            read->body.what = MILLRACE__READ__WHAT__STATE;
            read->body.a = c->parts.part[s->next / segments];
            read->body.c = s->next % segments;
            s->requested[s->next] = 1;
        }
    }
}

_Static_assert(TOKENIZER_FILES_MAX <= (int)CHECKPOINT_TEXTS_MAX, "a checkpoint's record has no room for all files of a tokenizer");

/* A checkpoint holds the run's tokenizer too. */
static int draft_begin(struct context *c, uint64_t step) {
    struct tokenizer_file file[TOKENIZER_FILES_MAX];
    struct checkpoint_text text[TOKENIZER_FILES_MAX];
    size_t count = 0;
    int code = tokenizer_print_files(c->tokenizer, file, &count, c->model.n_positions);
    for (size_t i = 0; i < count; i++) text[i] = (struct checkpoint_text){file[i].name, file[i].text.data, file[i].text.size};
    char *path = mem_format("%s/checkpoint-%llu", c->config->output_dir, (unsigned long long)step);
    if (code == 0) code = checkpoint_begin(&c->saving->draft, path, &c->model, &c->parts, text, count);
    free(path);
    tokenizer_files_free(file);
    return code;
}

void saving_begin(struct context *c, uint64_t step) {
    struct saving *s = c->saving;
    int64_t now = clock_ms();
    if (s->active || now < s->again_ms) return;
    *s = (struct saving){.step = step, .event = s->event, .wrong = s->step == step ? s->wrong : 0, .moved_ms = now};
    if (s->wrong) s->alone = who_is_next(c, s->wrong - 1);
    int code = draft_begin(c, step);
    if (code < 0) {
        save_refused(c, code);
        return;
    }
    s->items = s->missing = c->parts.count * segment_count(gpt2_parameters(&c->model));
    s->digests = mem_alloc(s->items * XXH128_BYTES);
    s->requested = mem_alloc(s->items);
    s->arrived = mem_alloc(s->items);
    s->active = true;
    ask_state(c);
}

/* A checkpoint on its way to the disk, which for a large model takes seconds. Between the long part, which nobody sees, and the name stands
 * one question, `turn`: the first to answer it decides, the thread for publishing or the loop, which ends, for leaving it. So what the
 * coordinator says at its end is what is there. */
enum publication_turn { PUBLICATION_OPEN, PUBLICATION_NAMED, PUBLICATION_LEFT };
struct publication {
    struct checkpoint_draft *draft;
    struct checkpoint_facts facts;
    struct buf log;                /* of training, as of its beginning */
    char *path;
    atomic_int turn;
};

static bool publication_take(struct publication *p, enum publication_turn turn) {
    int open = PUBLICATION_OPEN;
    return atomic_compare_exchange_strong(&p->turn, &open, (int)turn);
}

static void publication_free(struct publication *p) {
    checkpoint_discard(p->draft);
    buf_free(&p->log);
    free(p->path);
    free(p);
}

static int publication_task(void *arg, const atomic_bool *stop) {
    struct publication *p = arg;
    if (!atomic_load(stop)) TRY(checkpoint_seal(p->draft, &p->facts, &p->log));
    if (atomic_load(stop) || !publication_take(p, PUBLICATION_NAMED)) return err_set(ERR_INTERRUPTED, "the coordinator ends");
    struct checkpoint_draft *draft = p->draft;
    p->draft = NULL;
    return checkpoint_publish(draft);
}

static void publication_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    struct publication *p = arg;
    c->saving->publication = NULL;
    if (code == 0) {
        saving_end(c);
        memcpy(c->weights_digest, p->facts.weights_sha256, SHA256_BYTES);
        free(c->newest_path);
        c->newest_path = mem_text(p->path);
        c->saving->event = (struct saving_event){.news = SAVING_DONE, .facts = p->facts};
    } else if (code != ERR_INTERRUPTED) save_refused(c, code);
    publication_free(p);
}

void saving_leave(struct context *c) {
    struct publication *p = c->saving->publication;
    if (!p || publication_take(p, PUBLICATION_LEFT)) return;
    while (c->saving->publication) { /* it gets its name now */
        files_poll(c->files, c);
        clock_sleep_ms(1);
    }
}

static void publish(struct context *c) {
    struct saving *s = c->saving;
    struct checkpoint_facts facts = {.step = s->step, .max_steps = c->max_steps, .train_loss = metrics_newest(c)->loss,
                                     .eval_loss = metrics_newest(c)->eval_loss, .eval_step = metrics_newest(c)->eval_step};
    facts.tokens_seen = steps_tokens(s->step, c->config->training.global_batch, c->config->dataset.sequence_length);
    facts.epoch = (double)(s->step * (uint64_t)c->config->training.global_batch) / (double)c->train_sequences;
    facts.has_run = true;
    memcpy(facts.run, c->run_digest, SHA256_BYTES);
    self_tests_tell(c, facts.self_test, facts.build);
    xxh128_of(facts.state_digest, s->digests, s->items * XXH128_BYTES);
    if (memcmp(facts.state_digest, c->trainer->state_digest, XXH128_BYTES) != 0) {
        bool found = s->wrong && can_give_state(c, s->alone);
        uint32_t worker = s->alone;
        save_failed_with(c, "what came is not the state that the members agreed on", true);
        if (found) c->saving->event = (struct saving_event){.news = SAVING_FALSE_STATE, .worker = worker, .facts = facts};
        return;
    }
    struct publication *p = mem_alloc(sizeof *p);
    p->facts = facts;
    p->path = mem_format("%s/checkpoint-%llu", c->config->output_dir, (unsigned long long)s->step);
    int code = metrics_log_print(c, &p->log, s->step);
    p->draft = s->draft;
    s->draft = NULL;
    if (code == 0 && !files_post(c->files, &(struct file_task){.run = publication_task, .done = publication_done, .arg = p}))
        code = err_set(ERR_LIMIT, "too much is to be written at once");
    if (code < 0) {
        publication_free(p);
        save_failed(c, err_text());
        return;
    }
    s->publication = p;
    trainer_publishing(c->trainer, s->step);
}

static void note_mute(struct context *c, uint32_t worker) {
    struct worker_entry *w = &c->worker[worker];
    if (w->mute_step == c->saving->step) return;
    w->mute_step = c->saving->step;
    note_event(c, "state-not-given", "%s (pid %u on %s) does not give the state of step %llu", w->id, w->pid, w->host,
               (unsigned long long)w->mute_step);
}

void saving_data(struct context *c, const struct read *read, const struct message *message) {
    struct saving *s = c->saving;
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    size_t item = (size_t)(read->tag & ~SAVING_TAG), elements = gpt2_parameters(&c->model), segments = segment_count(elements);
    if (!s->active || read->envelope.step != s->step || item >= s->items || s->arrived[item]) return;
    if (!trainer_saves(c->trainer, s->step)) { /* since the loop's last turn nobody is left whose state it is */
        saving_end(c);
        return;
    }
    enum state_part part = c->parts.part[item / segments];
    size_t count = segment_size(elements, item % segments), size = count * state_element_bytes(&c->parts, part);
    if (data->status != MILLRACE__DATA__STATUS__OK || message->chunk_bytes != size) {
        int64_t worker = roster_find(c, read->peer);
        if (worker >= 0) note_mute(c, (uint32_t)worker);
        s->requested[item] = 0;
        s->next = 0;
        return; /* asked again at the next tick, of others if there are any */
    }
    int code = checkpoint_put(s->draft, part, message->chunk, item % segments * SEGMENT_ELEMENTS, count);
    if (code < 0) {
        save_refused(c, code);
        return;
    }
    xxh128_of(s->digests + item * XXH128_BYTES, message->chunk, size);
    s->arrived[item] = 1;
    s->moved_ms = clock_ms();
    if (--s->missing == 0) publish(c);
    else ask_state(c);
}

/* Nothing came for the length of a lease: who was asked does not give its state, and others are asked. */
static void ask_others(struct context *c, int64_t now_ms) {
    struct saving *s = c->saving;
    bool others = false;
    for (uint32_t w = 0; w < c->workers; w++) {
        if (!can_give_state(c, w) || c->worker[w].mute_step == s->step) continue;
        if (reads_open_at(&c->reads, c->worker[w].peer)) note_mute(c, w);
        others = true;
    }
    if (!others) {
        save_failed(c, "none of the members gives its state");
        return;
    }
    for (size_t i = c->reads.count; i-- > 0;) {
        struct read read;
        if (c->reads.read[i].tag & SAVING_TAG) reads_take(&c->reads, &read, c->reads.read[i].id);
    }
    for (size_t i = 0; i < s->items; i++) s->requested[i] = s->arrived[i];
    s->next = 0;
    s->moved_ms = now_ms;
}

void saving_drop_worker(struct context *c) {
    struct saving *s = c->saving;
    if (!s->active) return;
    for (size_t i = 0; i < s->items; i++) s->requested[i] = s->arrived[i]; /* what is open at others comes twice: harmless */
    s->next = 0;
}

void saving_pause(struct context *c, int64_t pause_ms, int64_t now_ms) {
    c->saving->moved_ms = clock_since(c->saving->moved_ms, pause_ms, now_ms);
}

void saving_tick(struct context *c, int64_t now_ms) {
    int64_t lease_ms = (int64_t)(c->config->cluster.lease_seconds * 1000);
    bool wanted = c->trainer && c->trainer->saving;
    if (c->saving->active && !wanted) saving_end(c);
    if (!wanted) c->paused_why[PAUSED_CHECKPOINT][0] = 0; /* all went back, say: what the failure was is of no interest any more */
    bool reading = c->saving->active && !c->saving->publication;
    if (reading && now_ms - c->saving->moved_ms > lease_ms) ask_others(c, now_ms);
    if (reading) ask_state(c);
    else if (!c->saving->active && wanted) saving_begin(c, c->trainer->committed);
}

bool saving_event(struct context *c, struct saving_event *out) {
    *out = c->saving->event;
    c->saving->event = (struct saving_event){0};
    return out->news != SAVING_NOTHING;
}

bool saving_publishes(const struct context *c) { return c->saving->publication != NULL; }

void saving_open(struct context *c) { c->saving = mem_alloc(sizeof *c->saving); }

void saving_close(struct context *c) {
    if (!c->saving) return;
    saving_end(c);
    free(c->newest_path);
    c->newest_path = NULL;
    free(c->saving);
    c->saving = NULL;
}
