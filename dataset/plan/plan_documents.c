/* From the runs' tables to documents: where each comes from, which pieces of runs hold its tokens, and its digest. One table at a time is
 * in memory. What a table says is compared with itself and with the table before; nothing in it is believed. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/ingest/run.h"
#include "dataset/plan/plan_internal.h"

int plan_grow(void *array_pointer, size_t count, size_t *max, size_t element_bytes) {
    if (count < *max) return 0;
    size_t more = *max ? *max * 2 : 64;
    void *array = reallocarray(*(void **)array_pointer, more, element_bytes);
    if (!array) return err_set(ERR_MEMORY, "out of memory: %zu entries of %zu bytes for the plan of the dataset", more, element_bytes);
    *(void **)array_pointer = array;
    *max = more;
    return 0;
}

/* The document that the walk is in. */
struct open_document {
    bool open;
    struct document document;
    uint64_t token, text;     /* of the plan before it */
    bool changed;             /* its text was, before it was tokenized */
    uint64_t bytes;           /* of its text before that */
    struct sha256 *sha;
};

struct table_walk {
    struct dataset_plan *plan;
    const Millrace__RunTable *table;
    size_t run, piece;
    uint64_t first;           /* the piece's first token in its run */
    const uint8_t *digests;   /* the piece's */
};

static int check_columns(const Millrace__RunTable *table, uint32_t bands) {
    size_t n = table->n_source;
    if (table->n_member != n || table->n_offset != n || table->n_bytes != n || table->n_piece_tokens != n || table->n_flags != n ||
        table->n_blocks != n || table->n_replaced != n || (table->n_changed && table->n_changed != n))
        return err_set(ERR_CORRUPT, "columns of different lengths");
    if (table->bands.len != n * bands * sizeof(uint64_t))
        return err_set(ERR_CORRUPT, "%zu bytes of bands for %zu pieces of %u bands", table->bands.len, n, bands);
    uint64_t tokens = 0, blocks = 0;
    for (size_t i = 0; i < n; i++) {
        if (table->piece_tokens[i] > UINT32_MAX || table->bytes[i] > UINT64_MAX >> 16)
            return err_set(ERR_CORRUPT, "piece %zu: %" PRIu64 " tokens of %" PRIu64 " bytes are not possible", i, table->piece_tokens[i],
                           table->bytes[i]);
        if (table->member[i] > table->n_member_name) return err_set(ERR_CORRUPT, "piece %zu: member %u", i, table->member[i]);
        tokens += table->piece_tokens[i];
        blocks += table->blocks[i];
    }
    if (tokens != table->tokens || tokens > UINT32_MAX || blocks > SIZE_MAX / SHA256_BYTES || blocks * SHA256_BYTES != table->digests.len)
        return err_set(ERR_CORRUPT, "%" PRIu64 " tokens and %" PRIu64 " blocks do not fit the sums", tokens, blocks);
    return 0;
}

/* A member's name, which is often the one before. */
static int name_number(struct dataset_plan *plan, uint32_t *out, const char *name) {
    if (plan->name_count == 0 || strcmp((const char *)plan->names.data + plan->name[plan->name_count - 1], name) != 0) {
        if (plan->name_count == UINT32_MAX - 1) return err_set(ERR_LIMIT, "too many members of archives");
        TRY(plan_grow(&plan->name, plan->name_count, &plan->names_max, sizeof *plan->name));
        plan->name[plan->name_count++] = plan->names.size;
        TRY(buf_append(&plan->names, name, strlen(name) + 1));
    }
    *out = (uint32_t)plan->name_count;
    return 0;
}

static int begin_document(struct open_document *open, struct table_walk *walk) {
    struct dataset_plan *plan = walk->plan;
    const Millrace__RunTable *table = walk->table;
    uint32_t source = table->source[walk->piece], member = table->member[walk->piece];
    if (source >= plan->options.sources)
        return err_set(ERR_CORRUPT, "piece %zu: source file %u of %zu", walk->piece, source, plan->options.sources);
    CHECK(plan->options.source_group[source] < plan->options.group_count);
    *open = (struct open_document){.open = true, .token = plan->token, .text = plan->text};
    open->document = (struct document){.source = source, .piece = (uint32_t)plan->pieces};
    if (member) TRY(name_number(plan, &open->document.member, table->member_name[member - 1]));
    open->sha = sha256_open();
    return 0;
}

static int add_piece(struct open_document *open, struct table_walk *walk) {
    struct dataset_plan *plan = walk->plan;
    uint64_t tokens = walk->table->piece_tokens[walk->piece];
    plan->replaced += walk->table->replaced[walk->piece];
    open->bytes += run_piece_bytes(walk->table, walk->piece);
    open->changed |= walk->table->replaced[walk->piece] > 0 || (walk->table->n_changed && walk->table->changed[walk->piece] > 0);
    if (tokens) {
        if (plan->pieces == UINT32_MAX - 1) return err_set(ERR_LIMIT, "more than %u pieces of documents", UINT32_MAX - 1);
        TRY(plan_grow(&plan->piece, plan->pieces + 1, &plan->pieces_max, sizeof *plan->piece));
        plan->piece[plan->pieces++] = (struct piece){.run = (uint32_t)walk->run, .first = (uint32_t)walk->first, .token = plan->token,
                                                     .text = plan->text, .offset = walk->table->offset[walk->piece]};
    }
    if (__builtin_add_overflow(plan->text, walk->table->bytes[walk->piece], &plan->text) ||
        __builtin_add_overflow(plan->token, tokens, &plan->token) || plan->token > UINT64_MAX / 16) /* a place in bytes still fits */
        return err_set(ERR_CORRUPT, "more tokens or text than is possible");
    return 0;
}

static int end_document(struct open_document *open, struct dataset_plan *plan) {
    uint8_t digest[SHA256_BYTES];
    sha256_finish(open->sha, digest);
    sha256_close(open->sha);
    open->sha = NULL;
    open->open = false;
    plan->account.read_documents++;
    if (plan->token == open->token) {
        plan->empty_documents++;
        plan->account.empty_bytes += open->bytes;
        plan->text = open->text;
        return 0;
    }
    TRY(plan_grow(&plan->document, plan->documents + 1, &plan->documents_max, sizeof *plan->document));
    TRY(plan_grow(&plan->digest, plan->documents, &plan->digests_max, sizeof *plan->digest));
    memcpy(plan->digest[plan->documents], digest, PLAN_DIGEST_BYTES);
    if (open->changed) {
        TRY(plan_grow(&plan->change, plan->changes, &plan->changes_max, sizeof *plan->change));
        plan->change[plan->changes++] = (struct change){(uint32_t)plan->documents, open->bytes};
    }
    plan->document[plan->documents++] = open->document;
    return 0;
}

static int take_piece(struct open_document *open, struct table_walk *walk) {
    uint32_t flags = walk->table->flags[walk->piece], blocks = walk->table->blocks[walk->piece];
    if (open->open == ((flags & RUN_BEGINS) != 0) || (open->open && open->document.source != walk->table->source[walk->piece]))
        return err_set(ERR_CORRUPT, "piece %zu %s", walk->piece,
                       open->open ? "does not go on with the document before" : "begins no document");
    if (flags & RUN_BEGINS) TRY(begin_document(open, walk));
    sha256_add(open->sha, walk->digests, (size_t)blocks * SHA256_BYTES);
    walk->digests += (size_t)blocks * SHA256_BYTES;
    TRY(add_piece(open, walk));
    walk->first += walk->table->piece_tokens[walk->piece];
    return flags & RUN_ENDS ? end_document(open, walk->plan) : 0;
}

static int take_table(struct open_document *open, struct dataset_plan *plan, size_t run) {
    Millrace__RunTable *table;
    TRY(plan->options.load(plan->options.arg, run, &table));
    int code = check_columns(table, plan->options.deduplicate == DEDUPLICATE_NEAR ? plan->options.minhash_bands : 0);
    if (code == 0 && table->token_bytes != plan->options.token_bytes)
        code = err_set(ERR_CORRUPT, "tokens of %u bytes where %u are expected", table->token_bytes, plan->options.token_bytes);
    struct table_walk walk = {.plan = plan, .table = table, .run = run, .digests = table->digests.data};
    for (; code == 0 && walk.piece < table->n_source; walk.piece++) code = take_piece(open, &walk);
    if (code == 0) code = plan_take_drops(plan, table);
    millrace__run_table__free_unpacked(table, NULL);
    return code < 0 ? err_add(code, "run %zu", run) : 0;
}

int plan_documents(struct dataset_plan *plan) {
    struct open_document open = {0};
    int code = 0;
    for (size_t run = 0; code == 0 && run < plan->options.runs; run++) code = take_table(&open, plan, run);
    if (code == 0 && open.open) code = err_set(ERR_CORRUPT, "the last document of the last run does not end");
    sha256_close(open.sha);
    TRY(code);
    TRY(plan_grow(&plan->piece, plan->pieces, &plan->pieces_max, sizeof *plan->piece));
    TRY(plan_grow(&plan->document, plan->documents, &plan->documents_max, sizeof *plan->document));
    plan->piece[plan->pieces] = (struct piece){.run = UINT32_MAX, .token = plan->token, .text = plan->text};
    plan->document[plan->documents] = (struct document){.piece = (uint32_t)plan->pieces, .side = SIDE_OUT};
    return 0;
}
