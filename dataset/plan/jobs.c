/* The last step of a plan: from chunks in a split to pack jobs. The tokens of a shard are collected as extents, chunk by chunk and piece by
 * piece, and written as the columns of a PackJob. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/plan/inside.h"
#include "dataset/shard/shard_index.h"

/* ---- Which tokens ---- */

struct extent {
    const struct piece *piece;
    const struct chunk *chunk;
    uint64_t document_token, count;
    uint32_t padding;
    bool ends;
};
struct extents {
    struct extent *item;      /* NULL: they are only counted */
    size_t count;
};

static void add_extent(struct extents *extents, const struct extent *extent) {
    if (extents->item) extents->item[extents->count] = *extent;
    extents->count++;
}

/* The piece of a document that holds one of its tokens; of the token behind the last one, the last piece. */
static const struct piece *piece_of(const struct dataset_plan *plan, uint32_t document, uint64_t document_token) {
    size_t low = plan->document[document].piece, high = plan->document[document + 1].piece;
    uint64_t token = plan->piece[low].token + document_token;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (plan->piece[middle].token <= token) low = middle;
        else high = middle;
    }
    return &plan->piece[low];
}

/* `tokens` of the document from one of them on, the <eos> counted. */
static void add_tokens(struct extents *extents, const struct dataset_plan *plan, const struct chunk *chunk, uint64_t from, uint64_t tokens,
                       uint32_t padding) {
    uint64_t all = document_tokens(plan, chunk->document), before = plan->piece[plan->document[chunk->document].piece].token;
    for (uint64_t end = from + tokens; from < end;) {
        const struct piece *piece = piece_of(plan, chunk->document, from);
        uint64_t piece_end = piece[1].token - before, to = piece_end < end && piece_end < all ? piece_end : end;
        bool ends = to == all + 1;
        add_extent(extents, &(struct extent){.piece = piece, .chunk = chunk, .document_token = from, .count = to - from - ends,
                                             .ends = ends, .padding = to == end ? padding : 0});
        from = to;
    }
}

/* The chunk that holds a position of the split, below its tokens. */
static size_t chunk_at(const struct split *split, uint64_t position) {
    size_t low = 0, high = split->chunks; /* chunk[low].position <= position < chunk[high].position */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (split->chunk[middle].position <= position) low = middle;
        else high = middle;
    }
    return low;
}

static void find_extents(struct extents *extents, const struct dataset_plan *plan, const struct split *split, uint64_t begin,
                         uint64_t end) {
    for (const struct chunk *chunk = &split->chunk[chunk_at(split, begin)]; chunk->position < end; chunk++) {
        uint64_t from = begin > chunk->position ? begin - chunk->position : 0, stored = plan_chunk_tokens(plan, chunk);
        uint64_t chunk_end = chunk->position + stored, next = chunk[1].position < end ? chunk[1].position : end;
        uint64_t to = chunk_end < end ? stored : end - chunk->position;
        CHECK(from < to); /* a shard begins with a sequence, and that with a chunk or inside one */
        add_tokens(extents, plan, chunk, chunk->token + from, to - from, next > chunk_end ? (uint32_t)(next - chunk_end) : 0);
    }
}

/* The tokens [begin, end) of the split that a pack job needs: its shard's, and the one after it if there is one. */
static void shard_range(uint64_t *out_begin, uint64_t *out_tokens, uint64_t *out_end, const struct dataset_plan *plan,
                        const struct split *split, uint64_t shard) {
    uint64_t begin = shard * plan->shard_tokens, left = split->totals.tokens - begin;
    *out_begin = begin;
    *out_tokens = left < plan->shard_tokens ? left : plan->shard_tokens;
    *out_end = begin + *out_tokens + (left > *out_tokens);
}

static int too_many(const char *what, size_t count, size_t most) {
    return err_set(ERR_CONFIG, "%zu %s in one shard; at most %zu are possible: make dataset.shard_tokens smaller or join small documents",
                   count, what, most);
}

int plan_check_jobs(const struct dataset_plan *plan) {
    for (int i = 0; i < 2; i++) {
        const struct split *split = &plan->split[i];
        for (uint64_t shard = 0; shard < split->totals.shards; shard++) {
            uint64_t begin, tokens, end;
            shard_range(&begin, &tokens, &end, plan, split, shard);
            struct extents extents = {0};
            find_extents(&extents, plan, split, begin, end);
            if (extents.count > SHARD_EXTENTS_MAX) return too_many("documents", extents.count, SHARD_EXTENTS_MAX);
        }
    }
    return 0;
}

/* ---- Columns ---- */

static void *column(size_t *out_count, size_t count, size_t element_bytes) {
    *out_count = count;
    return mem_alloc(count * element_bytes);
}
#define COLUMN(job, name, count) ((job)->name = column(&(job)->n_##name, (count), sizeof *(job)->name))
/* A column of zeros alone is left out. */
#define TRIM(job, name)                                                          \
    do {                                                                         \
        size_t at_ = 0;                                                          \
        while (at_ < (job)->n_##name && (job)->name[at_] == 0) at_++;            \
        if (at_ == (job)->n_##name) {                                            \
            free((job)->name);                                                   \
            (job)->name = NULL;                                                  \
            (job)->n_##name = 0;                                                 \
        }                                                                        \
    } while (0)

static void make_columns(Millrace__PackJob *job, size_t count) {
    COLUMN(job, run, count);
    COLUMN(job, first, count);
    COLUMN(job, count, count);
    COLUMN(job, ends, count);
    COLUMN(job, padding, count);
    COLUMN(job, document, count);
    COLUMN(job, document_token, count);
    COLUMN(job, skipped, count);
    COLUMN(job, source, count);
    COLUMN(job, member, count);
    COLUMN(job, offset, count);
    COLUMN(job, bytes, count);
}

static void trim_columns(Millrace__PackJob *job) {
    TRIM(job, padding);
    TRIM(job, document_token);
    TRIM(job, skipped);
    TRIM(job, member);
}

static void fill_row(Millrace__PackJob *job, size_t i, const struct dataset_plan *plan, const struct extent *extent) {
    const struct document *document = &plan->document[extent->chunk->document];
    const struct piece *first = &plan->piece[document->piece], *piece = extent->piece;
    uint64_t skipped = extent->document_token - (piece->token - first->token);
    job->run[i] = piece->run;
    job->first[i] = piece->first + skipped;
    job->count[i] = extent->count;
    job->ends[i] = extent->ends;
    job->padding[i] = extent->padding;
    job->document[i] = extent->chunk->number;
    job->document_token[i] = extent->document_token;
    job->skipped[i] = skipped;
    job->source[i] = document->source;
    job->offset[i] = piece->offset;
    job->bytes[i] = piece[1].text - piece->text;
}

/* Names that the job uses, in the order of their first use. */
static int fill_members(Millrace__PackJob *job, const struct dataset_plan *plan, const struct extents *extents) {
    uint32_t *known; /* number in the job of each of the plan's names */
    if (plan->name_count == 0) return 0;
    TRY(mem_try(&known, plan->name_count + 1, sizeof *known));
    size_t max = 0;
    int code = 0;
    for (size_t i = 0; code == 0 && i < extents->count; i++) {
        uint32_t member = plan->document[extents->item[i].chunk->document].member;
        if (member && !known[member] && (code = plan_grow(&job->member_name, job->n_member_name, &max, sizeof(char *))) == 0) {
            job->member_name[job->n_member_name++] = mem_text((const char *)plan->names.data + plan->name[member - 1]);
            known[member] = (uint32_t)job->n_member_name;
        }
        job->member[i] = known[member];
    }
    free(known);
    return code;
}

static uint64_t begun_before(const struct dataset_plan *plan, const struct split *split, uint64_t position) {
    size_t low = 0, high = split->chunks; /* the first chunk at or after the position that begins a document */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (split->chunk[middle].position < position) low = middle + 1;
        else high = middle;
    }
    while (low < split->chunks && split->chunk[low].token) low++;
    uint64_t end = split == &plan->split[0] ? split->totals.documents : plan->split[0].totals.documents + split->totals.documents;
    return low < split->chunks ? split->chunk[low].number : end;
}

static int make_job(Millrace__PackJob *job, const struct dataset_plan *plan, bool validation, uint32_t shard) {
    const struct split *split = &plan->split[validation];
    uint64_t begin, tokens, end;
    shard_range(&begin, &tokens, &end, plan, split, shard);
    job->split = mem_text(validation ? "validation" : "train");
    job->shard = shard;
    job->first_token = begin;
    job->tokens = tokens;
    job->frame_tokens = plan->frame_tokens;
    job->token_bytes = plan->options.token_bytes;
    job->eos = plan->options.eos;
    job->separate = plan->options.packing == PACKING_CONCAT ? 0 : plan->options.sequence_length;
    job->first_document = begun_before(plan, split, begin);
    struct extents extents = {0};
    find_extents(&extents, plan, split, begin, end);
    TRY(mem_try(&extents.item, extents.count, sizeof *extents.item));
    extents.count = 0;
    find_extents(&extents, plan, split, begin, end);
    make_columns(job, extents.count);
    for (size_t i = 0; i < extents.count; i++) fill_row(job, i, plan, &extents.item[i]);
    int code = fill_members(job, plan, &extents);
    free(extents.item);
    trim_columns(job);
    return code;
}

size_t dataset_plan_jobs(const struct dataset_plan *plan) {
    return (size_t)(plan->split[0].totals.shards + plan->split[1].totals.shards);
}

int dataset_plan_job(Millrace__PackJob **out, const struct dataset_plan *plan, size_t i) {
    CHECK(i < dataset_plan_jobs(plan));
    bool validation = i >= plan->split[0].totals.shards;
    Millrace__PackJob *job = mem_alloc(sizeof *job);
    millrace__pack_job__init(job);
    int code = make_job(job, plan, validation, (uint32_t)(i - (validation ? plan->split[0].totals.shards : 0)));
    size_t bytes = code == 0 ? millrace__pack_job__get_packed_size(job) : 0;
    if (bytes > PLAN_JOB_BYTES_MAX) code = too_many("bytes about documents", bytes, PLAN_JOB_BYTES_MAX);
    if (code < 0) {
        millrace__pack_job__free_unpacked(job, NULL);
        return code;
    }
    *out = job;
    return 0;
}
