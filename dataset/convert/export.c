/* From shards to token files: a header, then the tokens of one frame after the other. */
#include "dataset/convert/export.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/convert/token_file.h"
#include "dataset/shard/shard.h"

struct writer {
    struct draft draft;
    uint64_t size;
    int (*tick)(void *arg);
    void *tick_arg;
};

static int write_bytes(struct writer *writer, const void *bytes, size_t size_bytes) {
    TRY(draft_write_at(&writer->draft, bytes, size_bytes, writer->size));
    writer->size += size_bytes;
    return 0;
}

/* Dimensions of a numpy array of the split. */
static int print_npy(struct buf *out, const struct manifest *manifest, uint64_t tokens) {
    struct buf text = {0};
    int code = buf_print(&text, "{'descr': '<u%" PRIu32 "', 'fortran_order': False, 'shape': (", manifest->token_bytes);
    if (code == 0 && strcmp(manifest->packing, "concat") == 0) code = buf_print(&text, "%" PRIu64 ",), }", tokens);
    else if (code == 0)
        code = buf_print(&text, "%" PRIu64 ", %" PRIu64 "), }", tokens / manifest->sequence_length, manifest->sequence_length);
    while (code == 0 && (NPY_HEAD_BYTES + text.size + 1) % 64) code = buf_append(&text, " ", 1); /* numpy maps the data */
    if (code == 0) code = buf_append(&text, "\n", 1);
    uint8_t head[NPY_HEAD_BYTES] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)text.size, (uint8_t)(text.size >> 8)};
    if (code == 0) code = buf_append(out, head, sizeof head);
    if (code == 0) code = buf_append(out, text.data, text.size);
    buf_free(&text);
    return code;
}

static int print_llmc(struct buf *out, const struct manifest *manifest, uint64_t tokens) {
    if (tokens > INT32_MAX)
        return err_set(ERR_LIMIT, "llm.c's format holds at most %d tokens; this split has %" PRIu64, INT32_MAX, tokens);
    bool wide = manifest->token_bytes == 4;
    uint8_t head[LLMC_HEAD_BYTES] = {0};
    token_put(head, wide ? LLMC_MAGIC_4 : LLMC_MAGIC_2, 4);
    token_put(head + 4, wide ? LLMC_VERSION_4 : LLMC_VERSION_2, 4);
    token_put(head + 8, (uint32_t)tokens, 4);
    return buf_append(out, head, sizeof head);
}

static int write_head(struct writer *writer, const struct manifest *manifest, uint64_t tokens, enum token_format format) {
    struct buf head = {0};
    int code = format == TOKENS_NPY ? print_npy(&head, manifest, tokens) : format == TOKENS_LLMC ? print_llmc(&head, manifest, tokens) : 0;
    if (code == 0) code = write_bytes(writer, head.data, head.size);
    buf_free(&head);
    return code;
}

static int write_frames(struct writer *writer, const struct manifest *manifest, const struct shard *shard) {
    struct buf packed = {0}, tokens = {0};
    int code = 0;
    for (size_t i = 0; code == 0 && i < shard_frames(shard); i++) {
        int64_t next;
        buf_clear(&packed);
        buf_clear(&tokens);
        code = shard_read_frame(shard, &packed, &next, i);
        if (code == 0) code = frame_expand(&tokens, packed.data, packed.size, manifest->frame_tokens * manifest->token_bytes);
        if (code == 0) code = write_bytes(writer, tokens.data, tokens.size);
        if (code == 0 && writer->tick && writer->tick(writer->tick_arg) != 0) code = err_set(ERR_INTERRUPTED, "stopped");
    }
    buf_free(&packed);
    buf_free(&tokens);
    return code;
}

static int write_shard(struct writer *writer, const struct manifest *manifest, const char *folder, size_t number) {
    const struct shard_entry *entry = &manifest->shard[number];
    char *path = mem_format("%s/%s", folder, entry->name);
    struct shard *shard;
    uint64_t before = writer->size;
    int code = manifest_open_shard(&shard, manifest, folder, number);
    if (code == 0) {
        code = write_frames(writer, manifest, shard);
        shard_close(shard);
        if (code == 0 && writer->size - before != entry->tokens * manifest->token_bytes)
            code = err_set(ERR_CORRUPT, "%s: the manifest says that it has %" PRIu64 " tokens", path, entry->tokens);
    }
    free(path);
    return code;
}

int dataset_export(const struct manifest *manifest, const char *folder, bool validation, enum token_format format, const char *path,
                   int (*tick)(void *), void *tick_arg) {
    uint64_t tokens = validation ? manifest->tokens - manifest->train_tokens : manifest->train_tokens;
    TRY(file_check_output(path));
    if (tokens == 0 && validation)
        return err_set(ERR_NOTFOUND, "%s has no validation split: it was made with a validation fraction of 0, and without a source of its "
                       "own for it; make it anew with dataset.validation_fraction above 0, or export the train split", folder);
    if (tokens == 0) return err_set(ERR_NOTFOUND, "the training split of %s has no tokens", folder);
    struct writer writer = {.tick = tick, .tick_arg = tick_arg};
    TRY(draft_open(&writer.draft, path));
    int code = write_head(&writer, manifest, tokens, format);
    size_t from = validation ? manifest->train_shards : 0, to = validation ? manifest->shards : manifest->train_shards;
    for (size_t i = from; code == 0 && i < to; i++) code = write_shard(&writer, manifest, folder, i);
    if (code == 0) code = draft_publish(&writer.draft);
    else draft_discard(&writer.draft);
    return code;
}
