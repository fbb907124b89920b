/* Reading shard files. A shard is opened from its end: footer, index, then the rule that frames, index and footer fill the file exactly. No
 * size read from the file is used before it has been compared with the file's size and a ceiling, and no token leaves before its frame's
 * digest, zstd checksum and length fit. Reading is by pread() on one descriptor and changes nothing in the struct: any thread may read. */
#include "dataset/shard/shard.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/shard/shard_index.h"

struct shard {
    int fd;
    char *path;
    Millrace__ShardIndex *index;
    uint8_t index_digest[XXH128_BYTES];
    uint32_t *begin;          /* entries of the documents that begin here, which are numbered one after the other */
    size_t begins;
};

static int read_exactly(int fd, void *out, size_t size_bytes, uint64_t offset) {
    size_t got;
    TRY(file_read_at(fd, out, &got, size_bytes, offset));
    if (got != size_bytes)
        return err_set(ERR_CORRUPT, "ends at %" PRIu64 " where %zu bytes from %" PRIu64 " are expected", offset + got, size_bytes, offset);
    return 0;
}

static int check_skippable_head(int fd, uint64_t at, uint32_t content_bytes) {
    uint8_t want[SKIPPABLE_BYTES], head[SKIPPABLE_BYTES];
    skippable_head(want, content_bytes);
    TRY(read_exactly(fd, head, sizeof head, at));
    if (memcmp(head, want, sizeof head) != 0)
        return err_set(ERR_CORRUPT, "no index frame of %u bytes at %" PRIu64, content_bytes, at);
    return 0;
}

static int unpack_index(Millrace__ShardIndex **out, int fd, const struct seal *seal, uint64_t at) {
    struct buf bytes = {0};
    ProtobufCMessage *message = NULL;
    int code = buf_reserve(&bytes, seal->size_bytes);
    if (code == 0) code = read_exactly(fd, bytes.data, seal->size_bytes, at);
    if (code == 0) code = seal_unpack(&message, seal, bytes.data, &shard_seal);
    buf_free(&bytes);
    TRY(code);
    *out = (Millrace__ShardIndex *)message;
    return 0;
}

static int read_index(Millrace__ShardIndex **out, uint8_t out_digest[XXH128_BYTES], int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0) return err_errno("stat");
    if (!S_ISREG(st.st_mode)) return err_set(ERR_CORRUPT, "not a regular file");
    uint64_t size = (uint64_t)st.st_size;
    if (size < SKIPPABLE_BYTES + SEAL_BYTES) return err_set(ERR_CORRUPT, "%" PRIu64 " bytes are too short for a shard", size);
    uint8_t footer[SEAL_BYTES];
    TRY(read_exactly(fd, footer, sizeof footer, size - SEAL_BYTES));
    struct seal seal;
    TRY(seal_read(&seal, footer, &shard_seal));
    uint64_t tail = SKIPPABLE_BYTES + (uint64_t)seal.size_bytes + SEAL_BYTES;
    if (tail > size) return err_set(ERR_CORRUPT, "index of %zu bytes in a file of %" PRIu64, seal.size_bytes, size);
    uint64_t frames_bytes = size - tail;
    TRY(check_skippable_head(fd, frames_bytes, (uint32_t)(seal.size_bytes + SEAL_BYTES)));
    Millrace__ShardIndex *index;
    TRY(unpack_index(&index, fd, &seal, frames_bytes + SKIPPABLE_BYTES));
    int code = shard_index_check(index, frames_bytes);
    if (code < 0) {
        millrace__shard_index__free_unpacked(index, NULL);
        return code;
    }
    *out = index;
    memcpy(out_digest, seal.digest, XXH128_BYTES);
    return 0;
}

static int find_begins(struct shard *shard) {
    const Millrace__ShardIndex *index = shard->index;
    TRY(mem_try(&shard->begin, index->n_document, sizeof *shard->begin));
    for (size_t i = 0; i < index->n_document; i++)
        if (index_document_token(index, i) == 0) shard->begin[shard->begins++] = (uint32_t)i;
    return 0;
}

int shard_open(struct shard **out, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO of that name must not hang us */
    if (fd < 0) return err_errno("open %s", path);
    Millrace__ShardIndex *index;
    uint8_t digest[XXH128_BYTES];
    int code = read_index(&index, digest, fd);
    if (code < 0) {
        close(fd);
        return err_add(code, "shard %s", path);
    }
    struct shard *shard = mem_alloc(sizeof *shard);
    *shard = (struct shard){.fd = fd, .path = mem_text(path), .index = index};
    memcpy(shard->index_digest, digest, sizeof digest);
    code = find_begins(shard);
    if (code < 0) shard_close(shard);
    else *out = shard;
    return code;
}

void shard_close(struct shard *shard) {
    if (!shard) return;
    close(shard->fd);
    millrace__shard_index__free_unpacked(shard->index, NULL);
    free(shard->begin);
    free(shard->path);
    free(shard);
}

size_t shard_frames(const struct shard *shard) { return shard->index->n_frames; }
uint64_t shard_tokens(const struct shard *shard) { return shard->index->tokens; }
const uint8_t *shard_index_digest(const struct shard *shard) { return shard->index_digest; }
uint32_t shard_token_bytes(const struct shard *shard) { return shard->index->token_bytes; }

static int read_frame_at(int fd, struct buf *out, const Millrace__ShardFrame *frame) {
    TRY(buf_reserve(out, (size_t)frame->size));
    uint8_t *at = out->data + out->size;
    TRY(read_exactly(fd, at, (size_t)frame->size, frame->offset));
    uint8_t digest[XXH128_BYTES];
    xxh128_of(digest, at, (size_t)frame->size);
    if (memcmp(digest, frame->digest.data, sizeof digest) != 0)
        return err_set(ERR_CORRUPT, "digest differs (%" PRIu64 " bytes at %" PRIu64 ")", frame->size, frame->offset);
    out->size += (size_t)frame->size;
    out->data[out->size] = 0;
    return 0;
}

int shard_read_frame(const struct shard *shard, struct buf *out, int64_t *out_next, size_t frame) {
    if (frame >= shard->index->n_frames)
        return err_set(ERR_NOTFOUND, "shard %s: frame %zu: it has %zu frames", shard->path, frame, shard->index->n_frames);
    int code = read_frame_at(shard->fd, out, shard->index->frames[frame]);
    if (code < 0) return err_add(code, "shard %s: frame %zu", shard->path, frame);
    *out_next = shard->index->frames[frame]->next_token;
    return 0;
}

int frame_expand(struct buf *out, const void *bytes, size_t size_bytes, size_t max_bytes) {
    unsigned long long content = ZSTD_getFrameContentSize(bytes, size_bytes);
    if (content == ZSTD_CONTENTSIZE_ERROR || content == ZSTD_CONTENTSIZE_UNKNOWN || content == 0)
        return err_set(ERR_CORRUPT, "not a zstd frame that tells its size");
    if (content > max_bytes) return err_set(ERR_CORRUPT, "a frame of %llu bytes; at most %zu are expected", content, max_bytes);
    if (ZSTD_findFrameCompressedSize(bytes, size_bytes) != size_bytes)
        return err_set(ERR_CORRUPT, "%zu bytes are not one whole zstd frame", size_bytes);
    TRY(buf_reserve(out, (size_t)content));
    size_t got = ZSTD_decompress(out->data + out->size, (size_t)content, bytes, size_bytes);
    if (ZSTD_isError(got)) {
        bool memory = ZSTD_getErrorCode(got) == ZSTD_error_memory_allocation;
        return err_set(memory ? ERR_MEMORY : ERR_CORRUPT, "zstd: %s", ZSTD_getErrorName(got));
    }
    if (got != content) return err_set(ERR_CORRUPT, "a frame of %zu bytes that promised %llu", got, content);
    out->size += got;
    out->data[out->size] = 0;
    return 0;
}

/* Both buffers are scratch. *expected_next is what the frame before said about this frame's first token; -1: nothing yet. */
static int verify_frame(const struct shard *shard, struct buf *packed, struct buf *tokens, int64_t *expected_next, size_t i) {
    const Millrace__ShardIndex *index = shard->index;
    size_t want = (size_t)index->frames[i]->tokens * index->token_bytes;
    buf_clear(packed);
    buf_clear(tokens);
    TRY(read_frame_at(shard->fd, packed, index->frames[i]));
    TRY(frame_expand(tokens, packed->data, packed->size, want));
    if (tokens->size != want) return err_set(ERR_CORRUPT, "%zu bytes of tokens where %zu are expected", tokens->size, want);
    int64_t first = token_get(tokens->data, index->token_bytes);
    if (*expected_next >= 0 && *expected_next != first)
        return err_set(ERR_CORRUPT, "begins with token %" PRId64 " where the frame before announced %" PRId64, first, *expected_next);
    *expected_next = index->frames[i]->next_token;
    return 0;
}

static int check_ids(const struct buf *tokens, uint32_t token_bytes, uint64_t vocabulary) {
    uint32_t most = tokens_most(tokens->data, tokens->size, token_bytes);
    return most < vocabulary ? 0 : err_set(ERR_CORRUPT, "token %" PRIu32 ", but the vocabulary has %" PRIu64, most, vocabulary);
}

static int verify(const struct shard *shard, struct sha256 *sha, uint64_t vocabulary) {
    struct buf packed = {0}, tokens = {0};
    int64_t expected_next = -1;
    int code = 0;
    for (size_t i = 0; code == 0 && i < shard->index->n_frames; i++) {
        code = verify_frame(shard, &packed, &tokens, &expected_next, i);
        if (code == 0 && vocabulary != UINT64_MAX && tokens.size) code = check_ids(&tokens, shard->index->token_bytes, vocabulary);
        if (code < 0) err_add(code, "shard %s: frame %zu", shard->path, i);
        else if (sha) sha256_add(sha, tokens.data, tokens.size);
    }
    buf_free(&packed);
    buf_free(&tokens);
    return code;
}

int shard_verify(const struct shard *shard, struct sha256 *sha) { return verify(shard, sha, UINT64_MAX); }

int shard_fits(const struct shard *shard, const Millrace__PackJob *job, uint64_t documents, uint64_t vocabulary) {
    const Millrace__ShardIndex *index = shard->index;
    bool same = index->tokens == job->tokens && index->first_token == job->first_token && index->token_bytes == job->token_bytes &&
                index->frame_tokens == job->frame_tokens && index->separate == job->separate && index->eos == job->eos &&
                index->first_document == job->first_document;
    if (!same) return err_set(ERR_CORRUPT, "it is not the shard that its job asks for");
    if (shard->begins != documents)
        return err_set(ERR_CORRUPT, "%zu documents begin in it, but %" PRIu64 " were told", (size_t)shard->begins, documents);
    return verify(shard, NULL, vocabulary);
}

size_t shard_documents(const struct shard *shard) { return shard->index->n_document; }

struct shard_document shard_document(const struct shard *shard, size_t i) {
    const Millrace__ShardIndex *index = shard->index;
    CHECK(i < index->n_document);
    uint32_t member = index_member(index, i);
    return (struct shard_document){
        .document = index->document[i],
        .first = index->document_first[i],
        .tokens = index->document_tokens[i],
        .ends = index->ends[i],
        .document_token = index_document_token(index, i),
        .source = index->source[i],
        .member = member ? index->member_name[member - 1] : NULL,
        .offset = index->offset[i],
        .bytes = index->bytes[i],
        .skipped = index_skipped(index, i),
    };
}

int shard_find_document(const struct shard *shard, size_t *out, uint64_t document) {
    uint64_t first = shard->index->first_document;
    if (document < first || document - first >= shard->begins)
        return err_set(ERR_NOTFOUND, "shard %s: document %" PRIu64 " does not begin in it", shard->path, document);
    *out = shard->begin[document - first];
    return 0;
}

int shard_find_token(const struct shard *shard, size_t *out, uint64_t token) {
    const Millrace__ShardIndex *index = shard->index;
    size_t low = 0, high = index->n_document; /* document_first[low] <= token < document_first[high] */
    if (high == 0 || token < index->document_first[0] || token >= index->tokens)
        return err_set(ERR_NOTFOUND, "shard %s: token %" PRIu64 " is of no document that it knows", shard->path, token);
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (index->document_first[middle] <= token) low = middle;
        else high = middle;
    }
    *out = low;
    return 0;
}
