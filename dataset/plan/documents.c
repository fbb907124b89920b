/* The first half of a plan: from the tables of the token runs to documents, with where each comes from, which pieces of token runs hold its
 * tokens, and its digest (plan_documents()); then which documents stay, and in which split (plan_splits()). Also the account of what was
 * read.
 *
 * One table is in memory at a time. Each is checked against itself and against the one before: tables come from files. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "dataset/ingest/left_out.h"
#include "dataset/ingest/token_run.h"
#include "dataset/plan/inside.h"
#include "dataset/source/sources.h"
#include "dataset/unicode/doubtful.h"

int plan_grow(void *array_pointer, size_t count, size_t *max, size_t element_bytes) {
    if (count < *max) return 0;
    size_t more = *max ? *max * 2 : 64;
    void *array = reallocarray(*(void **)array_pointer, more, element_bytes);
    if (!array) return err_set(ERR_MEMORY, "out of memory: %zu entries of %zu bytes for the plan of the dataset", more, element_bytes);
    *(void **)array_pointer = array;
    *max = more;
    return 0;
}

/* ---- The account of what was read ----
 *
 * Holds documents that are left out, with counts and the first few examples of each reason, and those that stay.
 * Reasons are sorted by name, so that nothing depends on how token runs were cut. */

/* The entry of a reason, made where there is none. */
static int find(Millrace__Dropped **out, struct dataset_plan *plan, const char *reason) {
    size_t low = 0, high = plan->drops;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(plan->dropped[middle]->reason, reason);
        if (order == 0) {
            *out = plan->dropped[middle];
            return 0;
        }
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    TRY(plan_grow(&plan->dropped, plan->drops, &plan->drops_max, sizeof(Millrace__Dropped *)));
    memmove(&plan->dropped[low + 1], &plan->dropped[low], (plan->drops++ - low) * sizeof(Millrace__Dropped *));
    Millrace__Dropped *entry = plan->dropped[low] = mem_alloc(sizeof *entry);
    millrace__dropped__init(entry);
    entry->reason = mem_text(reason);
    entry->examples = mem_alloc(PLAN_EXAMPLES_MAX * sizeof *entry->examples);
    *out = entry;
    return 0;
}

/* Takes the texts, which may be NULL. */
static void add_example(Millrace__Dropped *entry, char *source, uint64_t offset, uint64_t line, char *detail, char *text) {
    Millrace__Example *example = entry->examples[entry->n_examples++] = mem_alloc(sizeof *example);
    millrace__example__init(example);
    example->source = source;
    example->offset = offset, example->line = line;
    if (detail) example->detail = detail;
    if (text) example->text = text;
}

/* Lines are counted from where the token run's part of a file begins; those of the parts before it are in `lines`. A run with such a part
 * has no other one. */
int plan_take_drops(struct dataset_plan *plan, const Millrace__RunTable *table) {
    if (table->range_begin == 0) plan->lines = 0;
    for (size_t i = 0; i < table->n_dropped; i++) {
        const Millrace__Dropped *from = table->dropped[i];
        Millrace__Dropped *entry;
        TRY(find(&entry, plan, from->reason));
        plan->account.read_documents += from->documents;
        entry->documents += from->documents;
        entry->bytes += from->bytes;
        for (size_t k = 0; k < from->n_examples && entry->n_examples < PLAN_EXAMPLES_MAX; k++) {
            const Millrace__Example *example = from->examples[k];
            uint64_t line = example->line ? example->line + plan->lines : 0;
            add_example(entry, mem_text(example->source), example->offset, line, mem_text(example->detail), mem_text(example->text));
        }
    }
    plan->lines += table->lines;
    plan->account.read_bytes += table->read_bytes;
    plan->account.around_bytes += table->around_bytes;
    plan->account.other_members += table->other_members;
    if (table->other_members && !plan->first_other) plan->first_other = mem_text(table->first_other);
    return 0;
}

char *plan_place(const struct dataset_plan *plan, uint32_t source, uint32_t member) {
    const char *path = source_shown(plan->options.source_path[source]);
    if (!member) return mem_text(path);
    return mem_format("%s!%s", path, (const char *)plan->names.data + plan->name[member - 1]);
}

static char *place_text(const struct dataset_plan *plan, size_t d) {
    return plan_place(plan, plan->document[d].source, plan->document[d].member);
}

/* What it was before it was changed; NULL: it was not. */
static const struct change *change_of(const struct dataset_plan *plan, size_t document) {
    size_t low = 0, high = plan->changes;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (plan->change[middle].document < document) low = middle + 1;
        else high = middle;
    }
    return low < plan->changes && plan->change[low].document == document ? &plan->change[low] : NULL;
}

static uint64_t bytes_before(const struct dataset_plan *plan, size_t document) {
    const struct change *change = change_of(plan, document);
    return change ? change->bytes : document_bytes(plan, document);
}

void plan_end_account(struct dataset_plan *plan) {
    Millrace__Account *account = &plan->account;
    for (size_t d = 0, next = 0; d < plan->documents; d++) {
        bool changed = next < plan->changes && plan->change[next].document == d;
        uint64_t bytes = changed ? plan->change[next++].bytes : document_bytes(plan, d);
        if (plan->document[d].side == SIDE_OUT) continue;
        if (changed) account->changed_documents++, account->changed_bytes += bytes;
        else account->kept_documents++, account->kept_bytes += bytes;
    }
}

int plan_drop(struct dataset_plan *plan, const char *reason, size_t document, size_t like) {
    Millrace__Dropped *entry;
    TRY(find(&entry, plan, reason));
    entry->documents++;
    entry->bytes += bytes_before(plan, document);
    plan->document[document].side = SIDE_OUT;
    if (entry->n_examples == PLAN_EXAMPLES_MAX) return 0;
    char *detail = NULL;
    if (like != NO_DOCUMENT) {
        char *place = place_text(plan, like);
        detail = mem_format("as %s at %" PRIu64, place, document_offset(plan, like));
        free(place);
    }
    add_example(entry, place_text(plan, document), document_offset(plan, document), 0, detail, NULL);
    return 0;
}

static const Millrace__Dropped *next_largest(const struct dataset_plan *plan, const Millrace__Dropped *before) {
    const Millrace__Dropped *found = NULL;
    for (size_t i = 0; i < plan->drops; i++) {
        const Millrace__Dropped *at = plan->dropped[i];
        if (before && (at->documents > before->documents ||
                       (at->documents == before->documents && strcmp(at->reason, before->reason) <= 0))) continue;
        if (!found || at->documents > found->documents) found = at;
    }
    return found;
}

/* Behind an error, after `lead`: "345 of 349 documents were left out: 340 for "duplicate", 5 for "bad_record" (first: ...)". The caller
 * frees it; empty: nothing was left out. */
static char *left_out_words(const struct dataset_plan *plan, const char *lead) {
    enum { REASONS_SHOWN = 5 };
    struct buf text = {0};
    uint64_t documents = 0;
    for (size_t i = 0; i < plan->drops; i++) documents += plan->dropped[i]->documents;
    if (documents == 0) return mem_text("");
    int code = buf_print(&text, "%s%s of %s document%s %s left out: ", lead, text_count(documents),
                         text_count(plan->account.read_documents), plural(plan->account.read_documents), documents == 1 ? "was" : "were");
    const Millrace__Dropped *at = next_largest(plan, NULL);
    bool told = false; /* where the first fault is: of one, so that there is room for what comes behind */
    for (int i = 0; code == 0 && at && i < REASONS_SHOWN; i++, at = next_largest(plan, at)) {
        code = buf_print(&text, "%s%s for \"%s\"", i ? ", " : "", text_count(at->documents), at->reason);
        if (code < 0 || told || !left_out_is_fault(at->reason)) continue;
        code = left_out_first(&text, at);
        told = true;
    }
    CHECK(code == 0);
    return (char *)text.data;
}

int plan_refuse(const struct dataset_plan *plan, const char *lead, int code) {
    char *words = left_out_words(plan, lead);
    bool encoded = false;
    for (size_t i = 0; i < plan->drops; i++) encoded |= strcmp(plan->dropped[i]->reason, "invalid_utf8") == 0;
    code = err_set(code, "%s%s%s", err_text(), words, encoded ? "; what is not UTF-8 may be " UTF8_ELSE ": " UTF8_CONVERT : "");
    free(words);
    return code;
}

void plan_free_drops(Millrace__Dropped **dropped, size_t drops) {
    for (size_t i = 0; i < drops; i++) millrace__dropped__free_unpacked(dropped[i], NULL);
    free(dropped);
}

/* ---- From token runs to documents ---- */

/* The document that the walk is in. */
struct open_document {
    bool open;
    struct document document;
    uint64_t token, text;     /* of the plan before it */
    bool changed;             /* its text was, before it was tokenized */
    uint64_t replaced;        /* ill-formed UTF-8 in it */
    uint64_t bytes;           /* of its text before that */
    struct sha256 *sha;
};

struct table_walk {
    struct dataset_plan *plan;
    const Millrace__RunTable *table;
    size_t run, piece;
    uint64_t first;           /* the piece's first token in its token run */
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
    open->replaced += walk->table->replaced[walk->piece];
    open->bytes += token_run_piece_bytes(walk->table, walk->piece);
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

static void end_file(struct dataset_plan *plan) {
    const struct file_tally *tally = &plan->tally;
    Millrace__IllFormed *found = &plan->ill_formed;
    if (!tally->begun || !utf8_is_doubtful(tally->sequences, tally->bytes) || found->files++ > 0) return;
    found->first = plan_place(plan, tally->source, tally->member);
    found->sequences = tally->sequences, found->bytes = tally->bytes;
}

static void count_ill_formed(struct dataset_plan *plan, const struct open_document *open) {
    struct file_tally *tally = &plan->tally;
    if (!tally->begun || tally->source != open->document.source || tally->member != open->document.member) {
        end_file(plan);
        *tally = (struct file_tally){.begun = true, .source = open->document.source, .member = open->document.member};
    }
    tally->sequences += open->replaced;
    tally->bytes += open->bytes;
}

static int end_document(struct open_document *open, struct dataset_plan *plan) {
    uint8_t digest[SHA256_BYTES];
    sha256_finish(open->sha, digest);
    sha256_close(open->sha);
    open->sha = NULL;
    open->open = false;
    plan->account.read_documents++;
    count_ill_formed(plan, open);
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
    if (open->open == ((flags & TOKEN_RUN_BEGINS) != 0) || (open->open && open->document.source != walk->table->source[walk->piece]))
        return err_set(ERR_CORRUPT, "piece %zu %s", walk->piece,
                       open->open ? "does not go on with the document before" : "begins no document");
    if (flags & TOKEN_RUN_BEGINS) TRY(begin_document(open, walk));
    sha256_add(open->sha, walk->digests, (size_t)blocks * SHA256_BYTES);
    walk->digests += (size_t)blocks * SHA256_BYTES;
    TRY(add_piece(open, walk));
    walk->first += walk->table->piece_tokens[walk->piece];
    return flags & TOKEN_RUN_ENDS ? end_document(open, walk->plan) : 0;
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
    end_file(plan);
    TRY(plan_grow(&plan->piece, plan->pieces, &plan->pieces_max, sizeof *plan->piece));
    TRY(plan_grow(&plan->document, plan->documents, &plan->documents_max, sizeof *plan->document));
    plan->piece[plan->pieces] = (struct piece){.run = UINT32_MAX, .token = plan->token, .text = plan->text};
    plan->document[plan->documents] = (struct document){.piece = (uint32_t)plan->pieces, .side = SIDE_OUT};
    return 0;
}

/* ---- Which documents stay, and on which side ----
 *
 * Equal and nearly equal ones are found by sorting, a few MinHash bands at a time, so that memory
 * is bounded; who hangs together is a forest whose roots are the first in source order, so that no order of joining matters. */

enum { BANDS_MEMORY = 256 << 20 };  /* bands that are held at once; of millions of documents several, of a billion one */

/* ---- Equal ---- */

static int by_digest(const void *left, const void *right, void *digests) {
    uint8_t (*digest)[PLAN_DIGEST_BYTES] = digests;
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    int order = memcmp(digest[a], digest[b], PLAN_DIGEST_BYTES);
    return order ? order : (a > b) - (a < b);
}

/* twin[d]: the first document with the digest of d. */
static int find_twins(const struct dataset_plan *plan, uint32_t **out) {
    uint32_t *sorted, *twin;
    TRY(mem_try(&sorted, plan->documents, sizeof *sorted));
    int code = mem_try(&twin, plan->documents, sizeof *twin);
    if (code < 0) {
        free(sorted);
        return code;
    }
    for (size_t i = 0; i < plan->documents; i++) sorted[i] = (uint32_t)i;
    qsort_r(sorted, plan->documents, sizeof *sorted, by_digest, plan->digest);
    for (size_t i = 0, first = 0; i < plan->documents; i++) {
        if (memcmp(plan->digest[sorted[i]], plan->digest[sorted[first]], PLAN_DIGEST_BYTES) != 0) first = i;
        twin[sorted[i]] = sorted[first];
    }
    *out = twin;
    free(sorted);
    return 0;
}

/* ---- Nearly equal ---- */

static uint32_t root_of(uint32_t *parent, uint32_t d) {
    while (parent[d] != d) {
        parent[d] = parent[parent[d]];
        d = parent[d];
    }
    return d;
}

static void join(uint32_t *parent, uint32_t a, uint32_t b) {
    a = root_of(parent, a), b = root_of(parent, b);
    if (a < b) parent[b] = a;
    else parent[a] = b;
}

struct band_value {
    uint64_t value;
    uint32_t document;
};

static int by_value(const void *left, const void *right) {
    const struct band_value *a = left, *b = right;
    if (a->value != b->value) return a->value < b->value ? -1 : 1;
    return (a->document > b->document) - (a->document < b->document);
}

/* Some bands of all documents: value[band * documents + document]. */
struct bands {
    uint64_t *value;
    uint32_t first, count;
    size_t document;          /* the walk's */
    uint64_t tokens;          /* of it so far */
};

/* A document that came through plan_documents(): the piece that begins it holds its bands. */
static void take_bands(struct bands *bands, const struct dataset_plan *plan, const Millrace__RunTable *table) {
    const uint32_t all = plan->options.minhash_bands;
    for (size_t i = 0; i < table->n_source; i++) {
        if (table->flags[i] & TOKEN_RUN_BEGINS) bands->tokens = 0;
        bands->tokens += table->piece_tokens[i];
        if ((table->flags[i] & TOKEN_RUN_BEGINS) && bands->document < plan->documents)
            for (uint32_t b = 0; b < bands->count; b++) {
                const uint8_t *at = table->bands.data + (i * all + bands->first + b) * sizeof(uint64_t);
                uint64_t value = 0;
                for (int k = 7; k >= 0; k--) value = value << 8 | at[k];
                bands->value[b * plan->documents + bands->document] = value;
            }
        if ((table->flags[i] & TOKEN_RUN_ENDS) && bands->tokens) bands->document++; /* else the next one's values take its place */
    }
}

static int load_bands(struct bands *bands, const struct dataset_plan *plan) {
    const struct plan_options *options = &plan->options;
    bands->document = 0;
    for (size_t run = 0; run < options->runs; run++) {
        Millrace__RunTable *table;
        TRY(options->load(options->arg, run, &table));
        bool same = table->bands.len == table->n_source * options->minhash_bands * sizeof(uint64_t);
        if (same) take_bands(bands, plan, table);
        millrace__run_table__free_unpacked(table, NULL);
        if (!same) return err_set(ERR_CORRUPT, "run %zu: another table than before", run);
    }
    return bands->document == plan->documents ? 0 : err_set(ERR_CORRUPT, "the runs have other documents than before");
}

static void join_band(uint32_t *parent, struct band_value *sorted, const uint64_t *value, size_t documents) {
    size_t count = 0;
    for (size_t d = 0; d < documents; d++)
        if (value[d]) sorted[count++] = (struct band_value){value[d], (uint32_t)d};
    qsort(sorted, count, sizeof *sorted, by_value);
    for (size_t i = 1; i < count; i++)
        if (sorted[i].value == sorted[i - 1].value) join(parent, sorted[i].document, sorted[i - 1].document);
}

static int join_near(const struct dataset_plan *plan, uint32_t *parent) {
    const uint32_t all = plan->options.minhash_bands;
    if (plan->documents == 0) return 0; /* nothing may stay: check_training() says so */
    size_t at_once = BANDS_MEMORY / sizeof(uint64_t) / plan->documents;
    at_once = at_once < 1 ? 1 : at_once > all ? all : at_once;
    struct bands bands = {0};
    struct band_value *sorted = NULL;
    int code = mem_try(&bands.value, at_once * plan->documents, sizeof *bands.value);
    if (code == 0) code = mem_try(&sorted, plan->documents, sizeof *sorted);
    for (bands.first = 0; code == 0 && bands.first < all; bands.first += bands.count) {
        bands.count = all - bands.first < at_once ? all - bands.first : (uint32_t)at_once;
        code = load_bands(&bands, plan);
        for (uint32_t b = 0; code == 0 && b < bands.count; b++)
            join_band(parent, sorted, bands.value + b * plan->documents, plan->documents);
    }
    free(sorted);
    free(bands.value);
    return code;
}

static int leave_duplicates_out(struct dataset_plan *plan, const uint32_t *twin) {
    uint32_t *parent;
    TRY(mem_try(&parent, plan->documents, sizeof *parent));
    memcpy(parent, twin, plan->documents * sizeof *parent);
    int code = plan->options.deduplicate == DEDUPLICATE_NEAR ? join_near(plan, parent) : 0;
    for (size_t d = 0; code == 0 && d < plan->documents; d++) {
        uint32_t first = root_of(parent, (uint32_t)d);
        if (twin[d] != d) code = plan_drop(plan, "duplicate", d, twin[d]);
        else if (first != d) code = plan_drop(plan, "near_duplicate", d, first);
    }
    free(parent);
    return code;
}

/* ---- Sides ---- */

static uint64_t digest_head(const uint8_t *digest) {
    uint64_t head = 0;
    for (int i = 0; i < 8; i++) head = head << 8 | digest[i];
    return head;
}

/* head / 2^64 < fraction, exactly: a fraction times 2^64 is a double without rounding, and only its ceiling matters. */
static bool below(uint64_t head, double fraction) {
    double limit = ceil(ldexp(fraction, 64));
    return limit >= 0x1p64 || (limit > 0 && head < (uint64_t)limit);
}

static enum source_split group_split(const struct dataset_plan *plan, size_t d) {
    return plan->options.groups[document_group(plan, d)].split;
}

static size_t count_side(const struct dataset_plan *plan, enum side side) {
    size_t count = 0;
    for (size_t d = 0; d < plan->documents; d++) count += plan->document[d].side == side;
    return count;
}

static void choose_sides(struct dataset_plan *plan) {
    for (size_t d = 0; d < plan->documents; d++) {
        if (plan->document[d].side == SIDE_OUT) continue;
        enum source_split split = group_split(plan, d);
        bool held = split == SPLIT_VALIDATION ||
                    (split == SPLIT_BY_DIGEST && below(digest_head(plan->digest[d]), plan->options.validation_fraction));
        plan->document[d].side = held ? SIDE_VALIDATION : SIDE_TRAIN;
    }
}

/* Is document d of those that the digest decides about? */
static bool by_digest_on(const struct dataset_plan *plan, size_t d, enum side side) {
    return plan->document[d].side == side && group_split(plan, d) == SPLIT_BY_DIGEST;
}

/* Gives `side`, which is empty, the documents of an extreme digest, if that does not empty the other. */
static void fill_side(struct dataset_plan *plan, enum side side) {
    enum side other = side == SIDE_TRAIN ? SIDE_VALIDATION : SIDE_TRAIN;
    size_t found = plan->documents, moved = 0, there = count_side(plan, other);
    for (size_t d = 0; d < plan->documents; d++) {
        if (!by_digest_on(plan, d, other)) continue;
        int order = found == plan->documents ? 0 : memcmp(plan->digest[d], plan->digest[found], PLAN_DIGEST_BYTES);
        if (found == plan->documents || (side == SIDE_TRAIN ? order > 0 : order < 0)) found = d, moved = 1;
        else moved += order == 0;
    }
    if (moved == there) return;
    for (size_t d = 0; d < plan->documents; d++)
        if (by_digest_on(plan, d, other) && memcmp(plan->digest[d], plan->digest[found], PLAN_DIGEST_BYTES) == 0)
            plan->document[d].side = side;
}

/* A text of validation is not trained on, whatever entry another copy of it is in. */
static int leave_known_out(struct dataset_plan *plan, const uint32_t *twin) {
    uint32_t *held;           /* by twin: a validation document + 1 */
    TRY(mem_try(&held, plan->documents, sizeof *held));
    for (size_t d = plan->documents; d-- > 0;)
        if (plan->document[d].side == SIDE_VALIDATION) held[twin[d]] = (uint32_t)d + 1;
    int code = 0;
    for (size_t d = 0; code == 0 && d < plan->documents; d++)
        if (plan->document[d].side == SIDE_TRAIN && held[twin[d]]) code = plan_drop(plan, "in_validation", d, held[twin[d]] - 1);
    free(held);
    return code;
}

int plan_splits(struct dataset_plan *plan) {
    uint32_t *twin = NULL;
    TRY(find_twins(plan, &twin));
    int code = plan->options.deduplicate == DEDUPLICATE_NONE ? 0 : leave_duplicates_out(plan, twin);
    choose_sides(plan);
    if (plan->options.validation_fraction > 0) {
        if (count_side(plan, SIDE_VALIDATION) == 0) fill_side(plan, SIDE_VALIDATION);
        if (count_side(plan, SIDE_TRAIN) == 0) fill_side(plan, SIDE_TRAIN);
    }
    if (code == 0) code = leave_known_out(plan, twin);
    free(twin);
    return code;
}
