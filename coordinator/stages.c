/* The way of the dataset: text, token runs, shards, manifest. Owns the check of a dataset that is there (struct checking, a task for files
 * for each stretch of shards) and goes from stage to stage; the stages' own work is in tokenizing.c, packing.c and training.c. Everything
 * here can be done again after a crash: jobs and results are in the store, outputs are files that are whole or absent.
 *
 * The loop's thread calls stages_begin() once, then stages_tick() in each turn until training begins. */
#include "coordinator/stages.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/changes.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/dispatch.h"
#include "coordinator/files.h"
#include "coordinator/packing.h"
#include "coordinator/queue.h"
#include "coordinator/repair.h"
#include "coordinator/sourcing.h"
#include "coordinator/store.h"
#include "coordinator/tokenizing.h"
#include "coordinator/trained.h"
#include "coordinator/training.h"
#include "dataset/ingest/left_out.h"
#include "dataset/shard/manifest.h"

/* ---- checking a dataset that is there ---- */

enum { CHECKED_AT_ONCE = 1000 }; /* shards of a task that only asks for their sizes: some milliseconds */

/* A dataset that is there, while it is checked before it is used. */
struct checking {
    bool active;
    size_t posted, done;           /* shards */
};

struct shard_check {
    const struct manifest *manifest; /* does not change meanwhile */
    const char *folder;
    bool whole;                      /* reads every byte */
    size_t first, count, bad;        /* bad: of these, the one that is not as it should be */
};

static int check_shard(const struct shard_check *check, size_t number) {
    const struct shard_entry *entry = &check->manifest->shard[number];
    if (check->whole) return manifest_verify_shard(check->manifest, check->folder, number, NULL);
    char *path = mem_format("%s/%s", check->folder, entry->name);
    int code = shard_entry_check_size(entry, path);
    free(path);
    return code;
}

static int check_task(void *arg, const atomic_bool *stop) {
    struct shard_check *check = arg;
    int code = 0;
    for (size_t i = 0; i < check->count && code == 0 && !atomic_load(stop); i++) code = check_shard(check, check->bad = check->first + i);
    return code;
}

/* The first shard that is broken makes those after it wait: they are checked again from there. */
static int checked(struct context *c, const struct shard_check *check, int code) {
    struct checking *checking = c->checking;
    if (check->first != checking->done) return 0; /* posted before a break was found */
    if (code == 0) {
        checking->done += check->count;
        c->progress.done = c->dataset->manifest.tokens * checking->done / c->dataset->manifest.shards;
        return 0;
    }
    if (code != ERR_CORRUPT && code != ERR_NOTFOUND) return code;
    checking->posted = checking->done = check->bad; /* from there on once more, when it is repaired */
    return repair_shard(c, check->bad);
}

static void check_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    if (code != ERR_INTERRUPTED && !c->ended) code = checked(c, arg, code);
    free(arg);
    if (code < 0 && code != ERR_INTERRUPTED) fail_pipeline(c, code);
}

/* Every shard is there and as long as it was; what is in it is checked when it is read, unless all of it is to be read now. No more than
 * that: there may be a hundred thousand, and going on with a run should take no time. */
static void post_checks(struct context *c) {
    struct checking *checking = c->checking;
    while (!repair_goes_on(c) && checking->posted < c->dataset->manifest.shards) {
        size_t count = c->options.verify ? 1 : CHECKED_AT_ONCE, left = c->dataset->manifest.shards - checking->posted;
        struct shard_check *check = mem_alloc(sizeof *check);
        *check = (struct shard_check){.manifest = &c->dataset->manifest, .folder = c->dataset_folder, .first = checking->posted};
        check->whole = c->options.verify;
        check->count = count < left ? count : left;
        if (!files_post(c->files, &(struct file_task){.run = check_task, .done = check_done, .arg = check})) {
            free(check);
            return;
        }
        checking->posted += check->count;
    }
}

static void begin_checking(struct context *c) {
    *c->checking = (struct checking){.active = true};
    c->stage = STAGE_PACK;
    c->progress = (struct progress){.total = c->dataset->manifest.tokens, .began_ms = clock_ms()};
    post_checks(c);
}

static int dataset_ready(struct context *c) {
    if (!c->options.stop_after_dataset) return training_begin(c);
    c->stage = STAGE_DONE;
    c->ended = true;
    return 0;
}

static int go_on_checking(struct context *c) {
    post_checks(c);
    if (c->checking->done < c->dataset->manifest.shards) return 0;
    c->checking->active = false;
    return dataset_ready(c);
}

/* Goes on to the next stage when this one is done. */
static int advance(struct context *c) {
    if (c->checking->active) return go_on_checking(c);
    const struct queue *queue = dispatch_queue(c);
    if (!queue || packing_plans(c)) return 0;
    if (c->stage == STAGE_TOKENIZE && queue_finished(queue)) {
        c->remade.jobs = queue->count;
        TRY(tokenizing_check_sources(c)); /* or runs of one file might be of two */
        return packing_begin(c);
    }
    if (c->stage == STAGE_PACK) {
        TRY(packing_advance(c));
        if (queue_finished(queue) && packing_has_digest(c)) {
            int later = packing_finish(c);
            TRY(later);
            return later ? 0 : dataset_ready(c);
        }
    }
    return 0;
}

/* Before the first step: is the dataset that is there the one that was made here, with the tokenizer as it is now? ERR_NOTFOUND: no. */
static int check_made(struct context *c) {
    const struct manifest *m = &c->dataset->manifest;
    char old[SHA256_HEX], fresh[SHA256_HEX];
    uint8_t layout[SHA256_BYTES];
    trained_layout(layout, m);
    int same = store_agrees(c->store, "dataset_digest", m->digest, SHA256_BYTES);
    if (same == 1) same = store_agrees(c->store, "dataset_layout", layout, SHA256_BYTES);
    TRY(same);
    if (!same) return err_set(ERR_NOTFOUND, "%s is not the dataset that was made there", c->dataset_folder);
    if (!m->tokenizer || memcmp(m->tokenizer_digest, c->tokenizer_digest, SHA256_BYTES) == 0) return 0;
    hex_of(old, m->tokenizer_digest, SHA256_BYTES);
    hex_of(fresh, c->tokenizer_digest, SHA256_BYTES);
    return err_set(ERR_NOTFOUND, "dataset.tokenizer %s changed since the dataset in %s was made: its digest was %s and is %s",
                   c->config->dataset.tokenizer, c->dataset_folder, old, fresh);
}

/* The manifest is read: is it what this run is to be trained on? 1: yes, 0: it is made again, and err_text() says why. */
static int is_as_it_should_be(struct context *c) {
    const struct manifest *m = &c->dataset->manifest;
    if (c->dataset->trained.steps) {
        if (!c->prepared && m->tokenizer && !trained_is_other(c) && memcmp(m->tokenizer_digest, c->tokenizer_digest, SHA256_BYTES) != 0)
            return trained_refuse_tokenizer(c, m->tokenizer_digest);
        TRY(trained_check_dataset(c));
        return 1;
    }
    if (c->prepared) return 1;
    int code = check_made(c);
    if (code == 0) return 1;
    if (code != ERR_NOTFOUND) return code;
    if (c->options.keep_dataset || c->dataset->sources_changed[0]) /* it would be another one than is to be kept */
        return err_add(ERR_CONFIG, "with --keep-dataset it is not made again: put back what changed, or run with --restart");
    return 0;
}

static int decide_about_dataset(struct context *c, enum dataset_found *out) {
    int code = manifest_read(&c->dataset->manifest, c->dataset_folder);
    if ((code == ERR_CORRUPT || code == ERR_NOTFOUND) && !c->prepared) {
        *out = DATASET_DAMAGED;
        return 0;
    }
    TRY(code);
    code = is_as_it_should_be(c);
    TRY(code);
    *out = code == 1 ? DATASET_THERE : DATASET_OUTDATED;
    if (code == 0) return 0;
    c->dataset->has_manifest = true;
    const struct manifest *m = &c->dataset->manifest;
    if (c->dataset->trained_on_other || !m->account || c->prepared) return 0;
    return left_out_check(m->account, m->dropped, m->drops, c->config->dataset.max_left_out);
}

/* A dataset from elsewhere has to fit the pipeline's model and tokenizer; how it was made does not matter. */
static int check_prepared(const struct context *c, const struct manifest *m) {
    const struct config *config = c->config;
    const char *folder = c->dataset_folder;
    if (m->sequence_length != (uint64_t)config->dataset.sequence_length)
        return err_set(ERR_CONFIG, "%s: sequences of %" PRIu64 " tokens, but dataset.sequence_length is %" PRId64, folder,
                       m->sequence_length, config->dataset.sequence_length);
    if (m->tokenizer && memcmp(m->tokenizer_digest, c->tokenizer_digest, SHA256_BYTES) != 0) {
        char made[SHA256_HEX], fresh[SHA256_HEX];
        hex_of(made, m->tokenizer_digest, SHA256_BYTES);
        hex_of(fresh, c->tokenizer_digest, SHA256_BYTES);
        return err_set(ERR_CONFIG,
                       "%s: made with the tokenizer %s of digest %s, but dataset.tokenizer is %s, of digest %s; give it the one that the "
                       "dataset was made with",
                       folder, m->tokenizer, made, config->dataset.tokenizer, fresh);
    }
    if (m->eos != (uint32_t)config->model.eos_token_id)
        return err_set(ERR_CONFIG, "%s: its documents end with token %u, but model.eos_token_id is %" PRId64, folder, m->eos,
                       config->model.eos_token_id);
    if (m->train_sequences == 0) return err_set(ERR_CONFIG, "%s: it has no training sequences", folder);
    return 0;
}

static int decide_about_prepared(struct context *c, enum dataset_found *out) {
    struct manifest manifest;
    int code = manifest_read(&manifest, c->dataset_folder);
    if (code == ERR_CORRUPT) return err_add(code, "dataset.prepared was made elsewhere; make or fetch it again");
    TRY(code);
    code = check_prepared(c, &manifest);
    manifest_free(&manifest);
    return code < 0 ? code : decide_about_dataset(c, out);
}

int stages_decide(struct context *c, enum dataset_found *out) {
    uint64_t made = 0;
    *out = DATASET_NONE;
    TRY(trained_check_tokenizer(c));
    if (c->prepared) return decide_about_prepared(c, out);
    TRY(store_get_number(c->store, "dataset_made", &made));
    if (!made) return 0;
    int kept = changes_of_sources(c);
    TRY(kept);
    if (kept) return decide_about_dataset(c, out);
    *out = DATASET_OF_OTHER_SOURCES;
    return 0;
}

/* The dataset follows from runs and shards, so it is planned once more: what is there of both is found by its key, and what is not is made
 * again. err_text() says why. */
static int make_again(struct context *c, const char *event) {
    note_event(c, event, "%s; it is made again, from the runs and shards that are there", err_text());
    manifest_free(&c->dataset->manifest);
    c->dataset->manifest = (struct manifest){0};
    TRY(store_set(c->store, "sources", "", 0));
    TRY(tokenizing_begin(c));
    return advance(c);
}

int stages_begin(struct context *c) {
    enum dataset_found found;
    TRY(stages_decide(c, &found));
    if (found == DATASET_DAMAGED) return make_again(c, "manifest-damaged");
    if (found == DATASET_OUTDATED) return make_again(c, "dataset-outdated");
    if (found == DATASET_THERE && c->dataset->trained_on_other) return dataset_ready(c); /* nothing of it is read */
    if (found == DATASET_THERE) {
        begin_checking(c);
        return 0;
    }
    if (found == DATASET_NONE) TRY(sourcing_find(c));
    TRY(tokenizing_begin(c));
    return advance(c);
}

void stages_tick(struct context *c) {
    if (c->ended || c->stage > STAGE_PACK) return;
    int code = advance(c);
    if (code < 0) fail_pipeline(c, code);
}

void stages_open(struct context *c) { c->checking = mem_alloc(sizeof *c->checking); }

void stages_close(struct context *c) {
    free(c->checking);
    c->checking = NULL;
}
