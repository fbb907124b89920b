/* coordinator_preview(): what a run would find and decide in its output_dir, for who asks before it runs. The functions are those that a
 * coordinator begins with, in the same order; they get a copy of the store (store_copy.c), so that what they record is recorded nowhere. */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/changes.h"
#include "coordinator/context.h"
#include "coordinator/coordinator.h"
#include "coordinator/dataset.h"
#include "coordinator/lost_rows.h"
#include "coordinator/parts.h"
#include "coordinator/restart.h"
#include "coordinator/stages.h"
#include "coordinator/store.h"
#include "coordinator/trained.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/checkpoint/checkpoint.h"

static int decide(struct context *c, enum dataset_found *out) {
    TRY(lost_rows_settle(c));
    TRY(trained_load(c));
    TRY(changes_of_pipeline(c));
    return stages_decide(c, out);
}

static int look(struct coordinator_preview *out, struct context *c) {
    enum dataset_found found = DATASET_NONE;
    TRY(store_open_copy(&c->store, c->state_folder));
    TRY(restart_is_begun(&out->restarts, c->store));
    if (out->restarts) TRY(store_forget_all(c->store)); /* it is finished first, and leaves no results */
    out->refused = decide(c, &found);
    if (out->refused < 0) snprintf(out->refusal, sizeof out->refusal, "%s", err_text());
    out->has_dataset = out->refused == 0 && found == DATASET_THERE;
    out->steps = c->dataset->trained.steps;
    return out->restarts ? 0 : checkpoint_newest_named(&out->saved, c->config->output_dir);
}

int coordinator_preview(struct coordinator_preview *out, const struct config *config, const struct tokenizer *tokenizer) {
    struct context *c = mem_alloc(sizeof *c);
    *out = (struct coordinator_preview){0};
    context_name(c, config);
    parts_open(c);
    c->previews = true;
    tokenizer_digest(tokenizer, c->tokenizer_digest);
    int code = look(out, c);
    parts_close(c);
    store_close(c->store);
    context_forget_names(c);
    free(c);
    return code;
}
