/* Grows the columns of a RunTable, counts what was left out by reason, and keeps the first examples of each. Token ids are written
 * elsewhere (dataset/ingest/encode.c). */
#include "dataset/ingest/token_run_build.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/unicode/utf8.h"

void token_run_builder_open(struct token_run_builder *builder, uint32_t token_bytes) {
    *builder = (struct token_run_builder){.table = MILLRACE__RUN_TABLE__INIT};
    builder->table.token_bytes = token_bytes;
}

static void free_example(Millrace__Example *example) {
    free(example->source), free(example->detail), free(example->text);
    free(example);
}

void token_run_builder_close(struct token_run_builder *builder) {
    Millrace__RunTable *t = &builder->table;
    free(t->source), free(t->member), free(t->offset), free(t->bytes), free(t->piece_tokens);
    free(t->flags), free(t->blocks), free(t->replaced), free(t->changed);
    for (size_t i = 0; i < t->n_member_name; i++) free(t->member_name[i]);
    free(t->member_name);
    for (size_t i = 0; i < t->n_dropped; i++) {
        for (size_t k = 0; k < t->dropped[i]->n_examples; k++) free_example(t->dropped[i]->examples[k]);
        free(t->dropped[i]->examples), free(t->dropped[i]->reason), free(t->dropped[i]);
    }
    free(t->dropped);
    if (t->other_members) free(t->first_other);
    buf_free(&builder->digests), buf_free(&builder->bands);
}

static void grow(struct token_run_builder *builder) {
    Millrace__RunTable *t = &builder->table;
    size_t n = builder->capacity = builder->capacity ? 2 * builder->capacity : 64;
    t->source = mem_resize(t->source, n * sizeof *t->source);
    t->member = mem_resize(t->member, n * sizeof *t->member);
    t->offset = mem_resize(t->offset, n * sizeof *t->offset);
    t->bytes = mem_resize(t->bytes, n * sizeof *t->bytes);
    t->piece_tokens = mem_resize(t->piece_tokens, n * sizeof *t->piece_tokens);
    t->flags = mem_resize(t->flags, n * sizeof *t->flags);
    t->blocks = mem_resize(t->blocks, n * sizeof *t->blocks);
    t->replaced = mem_resize(t->replaced, n * sizeof *t->replaced);
    t->changed = mem_resize(t->changed, n * sizeof *t->changed);
}

void token_run_builder_piece(struct token_run_builder *builder, uint32_t source, uint32_t member, uint64_t offset) {
    Millrace__RunTable *t = &builder->table;
    size_t i = t->n_source;
    if (i == builder->capacity) grow(builder);
    t->source[i] = source, t->member[i] = member, t->offset[i] = offset;
    t->bytes[i] = t->piece_tokens[i] = t->changed[i] = 0;
    t->flags[i] = t->blocks[i] = t->replaced[i] = 0;
    t->n_source = t->n_member = t->n_offset = t->n_bytes = t->n_piece_tokens = t->n_flags = t->n_blocks = t->n_replaced = i + 1;
}

void token_run_builder_changed(struct token_run_builder *builder, uint64_t bytes) {
    builder->table.changed[builder->table.n_source - 1] = bytes;
    builder->changed = true;
}

int token_run_builder_block(struct token_run_builder *builder, const uint8_t digest[SHA256_BYTES]) {
    builder->table.blocks[builder->table.n_blocks - 1]++;
    return buf_append(&builder->digests, digest, SHA256_BYTES);
}

int token_run_builder_bands(struct token_run_builder *builder, const uint64_t *band, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[8];
        for (int b = 0; b < 8; b++) bytes[b] = (uint8_t)(band[i] >> 8 * b);
        TRY(buf_append(&builder->bands, bytes, sizeof bytes));
    }
    return 0;
}

uint32_t token_run_builder_member(struct token_run_builder *builder, const char *name) {
    Millrace__RunTable *t = &builder->table;
    if (!*name) return 0;
    size_t n = t->n_member_name;
    if (n > 0 && strcmp(t->member_name[n - 1], name) == 0) return (uint32_t)n;
    if ((n & (n - 1)) == 0) t->member_name = mem_resize(t->member_name, (n ? 2 * n : 1) * sizeof *t->member_name);
    t->member_name[t->n_member_name++] = mem_text(name);
    return (uint32_t)n + 1;
}

/* How a text begins, as well-formed UTF-8 without NUL: TOKEN_RUN_EXAMPLE_BYTES at most. */
static char *beginning(const uint8_t *text, size_t bytes) {
    uint8_t *out = mem_alloc(TOKEN_RUN_EXAMPLE_BYTES + UTF8_REPLACE_ROOM + 1);
    struct utf8_replacer replacer = {0};
    size_t size = 0, most = bytes < TOKEN_RUN_EXAMPLE_BYTES ? bytes : TOKEN_RUN_EXAMPLE_BYTES;
    utf8_replace(&replacer, out, &size, TOKEN_RUN_EXAMPLE_BYTES + UTF8_REPLACE_ROOM, text, most);
    if (most == bytes && size + 3 <= TOKEN_RUN_EXAMPLE_BYTES) size += utf8_replace_end(&replacer, out + size);
    if (size > TOKEN_RUN_EXAMPLE_BYTES)
        for (size = TOKEN_RUN_EXAMPLE_BYTES; (out[size] & 0xC0) == 0x80;) size--;
    for (size_t i = 0; i < size; i++)
        if (out[i] == 0) out[i] = ' ';
    out[size] = 0;
    return (char *)out;
}

static Millrace__Dropped *find_reason(struct token_run_builder *builder, const char *reason) {
    Millrace__RunTable *t = &builder->table;
    for (size_t i = 0; i < t->n_dropped; i++)
        if (strcmp(t->dropped[i]->reason, reason) == 0) return t->dropped[i];
    t->dropped = mem_resize(t->dropped, (t->n_dropped + 1) * sizeof *t->dropped);
    Millrace__Dropped *dropped = mem_alloc(sizeof *dropped);
    millrace__dropped__init(dropped);
    dropped->reason = mem_text(reason);
    dropped->examples = mem_alloc(TOKEN_RUN_EXAMPLES_MAX * sizeof(void *));
    return t->dropped[t->n_dropped++] = dropped;
}

void token_run_builder_drop(struct token_run_builder *builder, const struct token_run_left_out *document) {
    Millrace__Dropped *dropped = find_reason(builder, document->reason);
    dropped->documents++;
    dropped->bytes += document->bytes;
    if (dropped->n_examples == TOKEN_RUN_EXAMPLES_MAX) return;
    Millrace__Example *example = mem_alloc(sizeof *example);
    millrace__example__init(example);
    example->source = mem_format("%s%s%s", document->source, *document->member ? "!" : "", document->member);
    example->offset = document->offset, example->line = document->line;
    example->detail = mem_text(document->detail);
    example->text = beginning(document->text, document->text_bytes);
    dropped->examples[dropped->n_examples++] = example;
}

int token_run_builder_seal(struct token_run_builder *builder, struct buf *out) {
    Millrace__RunTable *t = &builder->table;
    t->tokens = 0;
    for (size_t i = 0; i < t->n_piece_tokens; i++) t->tokens += t->piece_tokens[i];
    t->n_changed = builder->changed ? t->n_source : 0;
    t->digests = (ProtobufCBinaryData){builder->digests.size, builder->digests.data};
    t->bands = (ProtobufCBinaryData){builder->bands.size, builder->bands.data};
    int code = token_run_table_check(t);
    CHECK(code == 0);
    return seal_append(out, &t->base, &token_run_seal);
}
