/* Before the first step everything may change: what it touches is made anew. After it a key that alters results is refused by name, but
 * for a run's length, which may change as long as no step that is done would have had another learning rate; and so are sources that
 * changed, unless the run goes on with the dataset that is there. Keeps nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/config.h"
#include "coordinator/changes.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/sourcing.h"
#include "coordinator/store.h"
#include "dataset/shard/manifest.h"
#include "model/optim/optimizer.h"
#include "proto/steps.h"

/* ---- keys ---- */

/* Nothing was trained yet: what was made is planned anew, and what did not change is found by its key. */
static int start_over(struct context *c, const struct buf *altering) {
    note_event(c, "pipeline-changed", "%.*s", (int)altering->size, (const char *)altering->data);
    TRY(store_begin(c->store));
    int code = store_set_number(c->store, "dataset_made", 0);
    if (code == 0) code = store_set(c->store, "sources", "", 0);
    if (code == 0) code = store_steps_drop(c->store, 0); /* rolled back, and of another pipeline: not to be compared with */
    if (code == 0) return store_commit(c->store);
    store_cancel(c->store);
    return code;
}

static uint64_t steps_of(const struct config *config, uint64_t sequences) {
    return steps_total(config->training.max_steps, config->training.num_train_epochs, sequences, config->training.global_batch);
}

/* As many digits as show that two numbers differ, and six at least. */
static int digits_apart(double a, double b) {
    enum { LEAST = 6, ALL = 17 }; /* two doubles that differ have other texts with that many */
    char one[32], other[32];
    int digits = LEAST;
    do {
        snprintf(one, sizeof one, "%.*g", digits, a);
        snprintf(other, sizeof other, "%.*g", digits, b);
    } while (strcmp(one, other) == 0 && digits++ < ALL);
    return digits;
}

int changes_length(uint64_t *out_before, uint64_t *out_now, const struct config *old, const struct config *fresh, uint64_t sequences,
                   uint64_t done, const struct buf *altering) {
    static const char remedy[] = "keep the old length, run with --restart to begin from nothing, or choose another output_dir";
    uint64_t before = steps_of(old, sequences), now = steps_of(fresh, sequences);
    if (now < done)
        return err_set(ERR_CONFIG, "%s: %" PRIu64 " step%s done already, and the run would now end earlier:\n%.*s%s", fresh->output_dir,
                       done, done == 1 ? " is" : "s are", (int)altering->size, (const char *)altering->data, remedy);
    for (uint64_t step = 1; step <= done; step++) {
        double had = learning_rate(old, step, before), would = learning_rate(fresh, step, now);
        if (had == would) continue;
        int digits = digits_apart(had, would);
        return err_set(ERR_CONFIG,
                       "%s: with another length the steps that are done would have had other learning rates: step %" PRIu64
                       " of %" PRIu64 " had %.*g, of %" PRIu64 " it would have %.*g:\n%.*s%s; "
                       "with lr_scheduler_type constant, constant_with_warmup or inverse_sqrt a run can be made longer at any time, with "
                       "warmup_stable_decay until its decay begins",
                       fresh->output_dir, step, before, digits, had, now, digits, would, (int)altering->size,
                       (const char *)altering->data, remedy);
    }
    *out_before = before;
    *out_now = now;
    return 0;
}

/* Would the other length be allowed by itself? One in epochs is not known to be. */
static bool length_is_free(const struct config *old, const struct config *fresh, uint64_t done) {
    uint64_t before, now;
    struct buf unsaid = {0};
    return old->training.max_steps > 0 && fresh->training.max_steps > 0 &&
           changes_length(&before, &now, old, fresh, 0, done, &unsaid) == 0;
}

int changes_decide(enum change *out, struct buf *altering, const struct config *old, const struct config *fresh, uint64_t done) {
    struct config as_long = *old; /* borrows from it */
    struct buf beside = {0}, harmless = {0};
    as_long.training.max_steps = fresh->training.max_steps;
    as_long.training.num_train_epochs = fresh->training.num_train_epochs;
    int code = config_compare(altering, &harmless, old, fresh);
    if (code == 0) code = config_compare(&beside, &harmless, &as_long, fresh);
    if (code == 0 && beside.size && done) {
        const struct buf *named = length_is_free(old, &as_long, done) ? &beside : altering;
        code = err_set(ERR_CONFIG,
                       "%s holds the results of another pipeline; these keys changed and alter results:\n%.*s"
                       "run with --restart to begin from nothing, or choose another output_dir",
                       fresh->output_dir, (int)named->size, (const char *)named->data);
    }
    if (code == 0) *out = altering->size == 0 ? CHANGE_NONE : done == 0 ? CHANGE_ANEW : CHANGE_LENGTH;
    buf_free(&beside);
    buf_free(&harmless);
    return code;
}

static int training_sequences(uint64_t *out, struct context *c) {
    struct manifest manifest;
    if (c->dataset->trained.whole && c->dataset->trained.steps) {
        *out = c->dataset->trained.train_sequences; /* whatever is there now */
        return 0;
    }
    TRY(manifest_read(&manifest, c->dataset_folder));
    *out = manifest.train_sequences;
    manifest_free(&manifest);
    return 0;
}

static int change_length(struct context *c, const struct config *old, uint64_t done, const struct buf *altering) {
    uint64_t before, now, sequences = 0;
    if (old->training.max_steps == 0 || c->config->training.max_steps == 0) TRY(training_sequences(&sequences, c));
    TRY(changes_length(&before, &now, old, c->config, sequences, done, altering));
    note_event(c, "length-changed", "from %" PRIu64 " to %" PRIu64 " step%s, %" PRIu64 " of which %s done", before, now, plural(now), done,
               done == 1 ? "is" : "are");
    return 0;
}

static int compare_pipeline(struct context *c, const struct buf *recorded) {
    struct config old;
    uint64_t done = 0;
    struct buf altering = {0};
    enum change change = CHANGE_NONE;
    TRY(config_parse(&old, "the recorded pipeline", (const char *)recorded->data, recorded->size, c->config->folder, NULL, 0));
    int code = store_step_newest(c->store, &done);
    if (code == 0) code = changes_decide(&change, &altering, &old, c->config, done);
    if (code == 0 && change == CHANGE_ANEW) code = start_over(c, &altering);
    if (code == 0 && change == CHANGE_LENGTH) code = change_length(c, &old, done, &altering);
    config_free(&old);
    buf_free(&altering);
    return code;
}

int changes_of_pipeline(struct context *c) {
    struct buf recorded = {0};
    int code = store_get(c->store, "config", &recorded);
    if (code == 1) code = compare_pipeline(c, &recorded);
    buf_free(&recorded);
    return code < 0 ? code : 0;
}

/* ---- sources ---- */

static int is_finished(struct context *c, bool *out, uint64_t done) {
    uint64_t sequences;
    TRY(training_sequences(&sequences, c));
    *out = done >= steps_of(c->config, sequences);
    return 0;
}

/* Was going on with the dataset asked for before, when the sources were as they are now? */
static int is_kept(struct context *c, const struct buf *listing) {
    struct buf kept = {0};
    int code = store_get(c->store, "kept_sources", &kept);
    bool same = code == 1 && kept.size == listing->size && memcmp(kept.data, listing->data, kept.size) == 0;
    buf_free(&kept);
    return code < 0 ? code : same;
}

/* Decides about the dataset that is there when the sources are not those it was made from. 1: it is gone on with. */
static int decide(struct context *c, const struct buf *listing, uint64_t done, const char *difference) {
    bool finished = false;
    int kept = is_kept(c, listing);
    TRY(kept);
    if (kept) return 1;
    if (c->options.keep_dataset) {
        TRY(store_set(c->store, "kept_sources", listing->data, listing->size));
        note_event(c, "dataset-kept", "%s since it was made; it was asked for to go on with it", difference);
        return 1;
    }
    if (done == 0) return 0;
    TRY(is_finished(c, &finished, done));
    if (finished || (c->options.verify && c->options.stop_after_dataset)) return 1;
    return err_set(ERR_CONFIG,
                   "%s since the dataset in %s was made, and %" PRIu64 " step%s trained on it; run with --keep-dataset to go on "
                   "with the dataset as it is, with --restart to train anew (what did not change is not tokenized again), or choose "
                   "another output_dir",
                   difference, c->config->output_dir, done, done == 1 ? " was" : "s were");
}

int changes_of_sources(struct context *c) {
    uint64_t done = 0;
    char *difference = NULL;
    struct buf listing = {0};
    TRY(store_step_newest(c->store, &done));
    int found = sourcing_find(c), code = 0;
    if (found == ERR_INTERRUPTED || (found < 0 && done == 0 && !c->options.keep_dataset)) return found;
    if (found < 0) { /* they are gone altogether */
        difference = mem_format("the sources went away (%s)", err_text());
        code = buf_append(&listing, err_text(), strlen(err_text()));
    } else code = sourcing_compare(c, &listing, &difference);
    bool same = code == 0 && !difference;
    if (code == 0) code = same ? 1 : decide(c, &listing, done, difference);
    if (code == 1 && !same) {
        note_event(c, "sources-changed", "%s; the dataset is the one that is there", difference);
        plain_text(c->dataset->sources_changed, sizeof c->dataset->sources_changed, difference, false);
        code = sourcing_recall(c);
        if (code == 0) code = 1;
    }
    free(difference);
    buf_free(&listing);
    return code;
}
