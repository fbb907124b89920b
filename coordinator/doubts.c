/* The record of doubts, in the store: a line for each, "STEP TAB TEXT", TEXT being what each member had. The second doubt about the same
 * step stops the run, however often the coordinator was restarted between. Owns the text of the last one. */
#include "coordinator/doubts.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/plain.h"
#include "coordinator/context.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"

struct doubts {
    char *text;   /* who said what when the members differed last without a majority; NULL: never */
};

static const char *const key = "doubts";

int doubts_load(struct context *c) {
    struct buf lines = {0};
    int code = store_get(c->store, key, &lines);
    for (const char *at = code == 1 && lines.size ? (const char *)lines.data : ""; *at; at += strcspn(at, "\n"), at += *at == '\n')
        trainer_doubted(c->trainer, strtoull(at, NULL, 10));
    buf_free(&lines);
    return code < 0 ? code : 0;
}

/* "w-1 (pid 5 on host) says 0123456789abcdef, w-2 ..." */
static int print_said(struct buf *out, const struct context *c) {
    const struct trainer *t = c->trainer;
    for (size_t i = 0; i < t->saids; i++) {
        const struct said *said = &t->said[i];
        const struct worker_entry *w = &c->worker[said->worker];
        char hex[2 * XXH128_BYTES + 1];
        hex_of(hex, said->digest, XXH128_BYTES);
        TRY(buf_print(out, "%s%s (pid %u on %s) says %.16s", i ? ", " : "", w->id, w->pid, w->host, hex));
        if (t->sum_in_doubt) TRY(buf_print(out, " with square sum %s%s", text_real(said->square_sum), said->finite ? "" : ", not finite"));
    }
    return 0;
}

/* What was said of this step before. */
static int print_before(struct buf *out, const struct buf *lines, uint64_t step) {
    for (const char *at = lines->size ? (const char *)lines->data : ""; *at;) {
        size_t length = strcspn(at, "\n");
        const char *tab = memchr(at, '\t', length);
        if (tab && strtoull(at, NULL, 10) == step) TRY(buf_print(out, "; before: %.*s", (int)(at + length - tab - 1), tab + 1));
        at += length;
        at += *at == '\n';
    }
    return 0;
}

/* With the roll-back to the checkpoint that follows from it, as one: after a crash between the two the next coordinator would take what the
 * members say of this very step for a second doubt, about a step that was not done anew. */
static int record(struct context *c, const struct buf *lines) {
    TRY(store_begin(c->store));
    int code = store_set(c->store, key, lines->data, lines->size);
    if (code == 0 && !c->trainer->disagreed) code = store_steps_supersede(c->store, c->trainer->checkpoint);
    if (code == 0) return store_commit(c->store);
    store_cancel(c->store);
    return code;
}

static int note(struct context *c, uint64_t step) {
    struct buf lines = {0}, said = {0}, text = {0};
    int code = store_get(c->store, key, &lines);
    if (code >= 0) code = print_said(&said, c);
    if (code >= 0)
        code = buf_print(&text, "%s step %llu: %s", c->trainer->sum_in_doubt ? "the gradients of" : "the state after",
                         (unsigned long long)step, (const char *)said.data);
    if (code >= 0) code = print_before(&text, &lines, step);
    if (code >= 0) {
        note_event(c, "doubt", "%s", (const char *)text.data);
        free(c->doubts->text);
        c->doubts->text = mem_format("%s; ", (const char *)text.data);
        code = buf_print(&lines, "%llu\t%s\n", (unsigned long long)step, (const char *)said.data);
    }
    if (code >= 0) code = record(c, &lines);
    buf_free(&lines);
    buf_free(&said);
    buf_free(&text);
    return code;
}

void doubts_note(struct context *c, uint64_t step) {
    if (note(c, step) < 0) fail_pipeline(c, ERR_IO);
}

const char *doubts_text(const struct context *c) { return c->doubts->text; }

void doubts_open(struct context *c) { c->doubts = mem_alloc(sizeof *c->doubts); }

void doubts_close(struct context *c) {
    if (!c->doubts) return;
    free(c->doubts->text);
    free(c->doubts);
    c->doubts = NULL;
}
