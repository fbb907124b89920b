/* The rules that every shard index keeps, checked by the writer before it writes and by the reader after it reads. Touches no file. */
#include "dataset/shard/shard_index.h"

#include <inttypes.h>
#include <stdbool.h>
#include <zstd.h>

#include "base/err.h"

const struct seal_kind shard_seal = {"MLRSHARD", &millrace__shard_index__descriptor, SHARD_INDEX_BYTES_MAX, SHARD_INDEX_MEMORY_MAX};

uint32_t token_get(const uint8_t *at, uint32_t token_bytes) {
    uint32_t token = (uint32_t)at[0] | (uint32_t)at[1] << 8;
    return token_bytes == 2 ? token : token | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

void token_put(uint8_t *at, uint32_t token, uint32_t token_bytes) {
    CHECK(token_bytes == 4 || token <= UINT16_MAX);
    for (uint32_t i = 0; i < token_bytes; i++) at[i] = (uint8_t)(token >> (8 * i));
}

/* In lanes of a fixed number, which the compiler makes vectors of: this passes over every token of a dataset. */
enum { LANES = 32 };

static uint32_t most_of_16(const uint8_t *ids) {
    uint16_t lane[LANES], most = 0;
    for (size_t i = 0; i < LANES; i++) lane[i] = (uint16_t)(ids[2 * i] | ids[2 * i + 1] << 8);
    for (size_t i = 0; i < LANES; i++) most = lane[i] > most ? lane[i] : most;
    return most;
}

static uint32_t most_of_32(const uint8_t *ids) {
    uint32_t most = 0;
    for (size_t i = 0; i < LANES; i++) {
        uint32_t id = token_get(ids + 4 * i, 4);
        most = id > most ? id : most;
    }
    return most;
}

uint32_t tokens_most(const uint8_t *ids, size_t size_bytes, uint32_t token_bytes) {
    size_t block = (size_t)LANES * token_bytes, at = 0;
    uint32_t most = 0;
    for (; size_bytes - at >= block; at += block) {
        uint32_t here = token_bytes == 2 ? most_of_16(ids + at) : most_of_32(ids + at);
        most = here > most ? here : most;
    }
    for (; at < size_bytes; at += token_bytes) {
        uint32_t here = token_get(ids + at, token_bytes);
        most = here > most ? here : most;
    }
    return most;
}

void skippable_head(uint8_t out[SKIPPABLE_BYTES], uint32_t content_bytes) {
    token_put(out, SKIPPABLE_MAGIC, 4);
    token_put(out + 4, content_bytes, 4);
}

static int check_frame(const Millrace__ShardIndex *index, size_t i, uint64_t offset, uint64_t tokens_left) {
    const Millrace__ShardFrame *frame = index->frames[i];
    bool last = i + 1 == index->n_frames;
    uint64_t want = last ? tokens_left : index->frame_tokens;
    if (frame->tokens != want || want == 0 || want > index->frame_tokens || want > tokens_left)
        return err_set(ERR_CORRUPT, "index: frame %zu: %" PRIu64 " tokens where %" PRIu64 " are expected", i, frame->tokens, want);
    if (frame->offset != offset || frame->size == 0 || frame->size > ZSTD_compressBound((size_t)frame->tokens * index->token_bytes))
        return err_set(ERR_CORRUPT, "index: frame %zu: %" PRIu64 " bytes at %" PRIu64 " are not possible", i, frame->size, frame->offset);
    if (frame->digest.len != XXH128_BYTES) return err_set(ERR_CORRUPT, "index: frame %zu: digest of %zu bytes", i, frame->digest.len);
    int64_t token_max = index->token_bytes == 2 ? UINT16_MAX : UINT32_MAX;
    if (frame->next_token > token_max || frame->next_token < (last ? -1 : 0))
        return err_set(ERR_CORRUPT, "index: frame %zu: next token %" PRId64 " is not possible", i, frame->next_token);
    return 0;
}

static int check_frames(const Millrace__ShardIndex *index, uint64_t frames_bytes) {
    uint64_t offset = 0, tokens_left = index->tokens;
    for (size_t i = 0; i < index->n_frames; i++) {
        TRY(check_frame(index, i, offset, tokens_left));
        offset += index->frames[i]->size; /* no overflow: every size is below compressBound() of SHARD_FRAME_TOKENS_MAX tokens */
        tokens_left -= index->frames[i]->tokens;
    }
    if (tokens_left != 0 || offset != frames_bytes)
        return err_set(ERR_CORRUPT, "index: frames of %" PRIu64 " tokens in %" PRIu64 " bytes; %" PRIu64 " in %" PRIu64 " are expected",
                       index->tokens - tokens_left, offset, index->tokens, frames_bytes);
    return 0;
}

static uint64_t up_to(uint64_t token, uint64_t sequence) { return (token + sequence - 1) / sequence * sequence; }

static int check_columns(const Millrace__ShardIndex *index) {
    size_t n = index->n_document;
    const size_t whole[] = {index->n_document_first, index->n_document_tokens, index->n_ends, index->n_source, index->n_offset,
                            index->n_bytes};
    const size_t optional[] = {index->n_document_token, index->n_skipped, index->n_member};
    bool fits = true;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) fits = fits && whole[i] == n;
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) fits = fits && (optional[i] == n || optional[i] == 0);
    if (!fits) return err_set(ERR_CORRUPT, "index: columns of different lengths");
    for (size_t i = 0; i < index->n_member; i++)
        if (index->member[i] > index->n_member_name) return err_set(ERR_CORRUPT, "index: entry %zu: member %u", i, index->member[i]);
    return 0;
}

/* The entry before. */
struct walk {
    uint64_t at;              /* where it ends */
    uint64_t document;
    uint64_t next_token;      /* which of its document's tokens would be next; 0: it ended */
    uint64_t begins;          /* number of the next document that begins */
};

static bool first_is_possible(const Millrace__ShardIndex *index, uint64_t first, uint64_t document, uint64_t token) {
    if (index->separate) return first == 0 && (token || document == index->first_document);
    if (first == 0 && token) return document + 1 == index->first_document;
    return first <= 1 && !token && document == index->first_document; /* 1: the <|endoftext|> of a document before */
}

static bool next_is_possible(const Millrace__ShardIndex *index, const struct walk *before, uint64_t first, uint64_t document,
                             uint64_t token) {
    if (before->next_token && document == before->document && token == before->next_token && first == before->at) return true;
    if (!token && document != before->begins) return false;
    if (!index->separate) return !token && !before->next_token && first == before->at;
    if (token % index->separate) return false;
    if (before->next_token && before->at % index->separate) return false; /* cut off inside a sequence */
    return first == before->at || first == up_to(before->at, index->separate);
}

static int take_entry(const Millrace__ShardIndex *index, struct walk *walk, size_t i) {
    uint64_t tokens = index->document_tokens[i], first = index->document_first[i], document = index->document[i];
    uint64_t token = index_document_token(index, i), T = index->separate;
    bool possible = i ? next_is_possible(index, walk, first, document, token) : first_is_possible(index, first, document, token);
    possible = possible && index->ends[i] <= 1 && tokens > 0 && tokens <= index->tokens && first <= index->tokens &&
               first + tokens + index->ends[i] <= index->tokens && token <= UINT64_MAX / 4 && document < UINT64_MAX;
    uint64_t end = first + tokens + index->ends[i];
    if (possible && T) possible = first / T == (end - 1) / T || first % T == token % T; /* in one sequence, or fills several */
    if (!possible)
        return err_set(ERR_CORRUPT, "index: document entry %zu: %" PRIu64 " tokens at %" PRIu64 " are not possible", i, tokens, first);
    *walk = (struct walk){end, document, index->ends[i] ? 0 : token + tokens, walk->begins + !token};
    return 0;
}

/* Documents lie one after the other. One array: each is followed by its <|endoftext|>; the first may have begun, and the last may end, in
 * another shard. Separate sequences: a document, or what a sequence holds of it, lies inside one, or fills several; the rest is padding. */
static int check_documents(const Millrace__ShardIndex *index) {
    TRY(check_columns(index));
    if (index->n_document == 0) { /* nothing but the <|endoftext|> of a document in the shard before */
        bool possible = index->tokens == 1 && !index->separate;
        return possible ? 0 : err_set(ERR_CORRUPT, "index: tokens without a document");
    }
    struct walk walk = {.begins = index->first_document};
    for (size_t i = 0; i < index->n_document; i++) TRY(take_entry(index, &walk, i));
    if (index->separate && walk.next_token && walk.at % index->separate) return err_set(ERR_CORRUPT, "index: the last document is cut off");
    uint64_t end = index->separate ? up_to(walk.at, index->separate) : walk.at;
    if (end != index->tokens)
        return err_set(ERR_CORRUPT, "index: its documents fill %" PRIu64 " of %" PRIu64 " tokens", end, index->tokens);
    return 0;
}

int shard_index_check(const Millrace__ShardIndex *index, uint64_t frames_bytes) {
    if (index->token_bytes != 2 && index->token_bytes != 4) return err_set(ERR_CORRUPT, "index: tokens of %u bytes", index->token_bytes);
    if (index->frame_tokens == 0 || index->frame_tokens > SHARD_FRAME_TOKENS_MAX)
        return err_set(ERR_CORRUPT, "index: frames of %" PRIu64 " tokens", index->frame_tokens);
    if (index->tokens == 0 || index->n_frames == 0) return err_set(ERR_CORRUPT, "index: no tokens");
    if (index->tokens > UINT64_MAX / 8 || index->first_token > UINT64_MAX - index->tokens)
        return err_set(ERR_CORRUPT, "index: the first token's position is not possible");
    if (index->separate && (index->frame_tokens % index->separate || index->tokens % index->separate))
        return err_set(ERR_CORRUPT, "index: sequences of %" PRIu64 " tokens do not fill its frames", index->separate);
    TRY(check_frames(index, frames_bytes));
    return check_documents(index);
}
