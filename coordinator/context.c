/* Names of folders, note_event() (a line in the log and in the store), and fail_pipeline(), the one way in which an error ends a run. */
#include "coordinator/context.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/config.h"
#include "coordinator/spool.h"
#include "coordinator/store.h"

static const char *const names[] = {"tokenize", "pack", "train", "done", "failed"};

const char *stage_name(enum stage stage) { return names[stage]; }

void context_name(struct context *c, const struct config *config) {
    c->config = config;
    c->state_folder = mem_format("%s/state", config->output_dir);
    c->prepared = *config->dataset.prepared;
    c->dataset_folder = c->prepared ? mem_text(config->dataset.prepared) : mem_format("%s/dataset", config->output_dir);
    c->runs_folder = mem_format("%s/runs", c->state_folder);
}

void context_forget_names(struct context *c) {
    free(c->state_folder);
    free(c->dataset_folder);
    free(c->runs_folder);
    buf_free(&c->lost);
}

/* Standard input that was refused is not kept in the way of a better one. Once a dataset was made of it, it stays. */
static void put_text_aside(struct context *c) {
    uint64_t made = 0, steps = 0;
    if (c->stage > STAGE_PACK || c->previews) return;
    int code = store_get_number(c->store, "dataset_made", &made);
    if (code >= 0) code = store_step_newest(c->store, &steps);
    if (code >= 0 && !made && !steps) code = spool_refuse(c->config);
    if (code < 0) log_warn("%s", err_text());
}

void fail_pipeline(struct context *c, int code) {
    if (c->ended) return;
    snprintf(c->reason, sizeof c->reason, "%s", err_text());
    spool_name(c->reason, sizeof c->reason, c->config);
    if (code == ERR_CONFIG) put_text_aside(c);
    err_set(code, "%s", c->reason);
    c->outcome = code;
    c->ended = true;
    c->failed_in = c->stage;
    c->stage = STAGE_FAILED;
    note_event(c, "failed", "%s", c->reason);
}

const char *paused_why(const struct context *c) {
    size_t i = 0;
    while (i + 1 < PAUSES && !c->paused_why[i][0]) i++;
    return c->paused_why[i];
}

enum { SAID_BYTES = ERR_TEXT_BYTES + 64 };

/* said: what the event says, for whoever keeps it. */
static void note(struct context *c, char said[SAID_BYTES], const char *kind, const char *format, va_list args) {
    char text[SAID_BYTES];
    vsnprintf(said, SAID_BYTES, format, args);
    struct err before = err_take(); /* the store may fail too; the caller's error stays */
    plain_text(text, sizeof text, said, false); /* part of it may come from a peer */
    if (!c->previews) log_info("%s: %s", kind, text);
    if (store_event(c->store, kind, text) < 0) log_warn("%s", err_text());
    err_give(&before);
}

void note_event(struct context *c, const char *kind, const char *format, ...) {
    char said[SAID_BYTES];
    va_list args;
    va_start(args, format);
    note(c, said, kind, format, args);
    va_end(args);
}

void note_lost(struct context *c, const char *kind, const char *format, ...) {
    char said[SAID_BYTES];
    va_list args;
    va_start(args, format);
    note(c, said, kind, format, args);
    va_end(args);
    buf_print(&c->lost, "%s\n", said);
}

uint64_t fence_of(const struct context *c, uint64_t low) { return c->generation << 32 | (low & UINT32_MAX); }
