/* Runs: two bytes that say how many bytes of token ids there are, those, and the table, which is sealed here. */
#include "dataset/ingest/token_run.h"

#include "dataset/ingest/token_run_build.h"
#include "tests/fuzz/seal.h"

void fuzz(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, size};
    size_t ids = fuzz_number(&input, 2);
    if (ids > input.left) ids = input.left;
    struct buf file = {0};
    CHECK(buf_append(&file, input.at, ids) == 0);
    fuzz_seal(&file, input.at + ids, input.left - ids, token_run_seal.magic);
    Millrace__RunTable *table;
    if (token_run_table_read(&table, fuzz_path(file.data, file.size)) == 0) {
        CHECK(table->tokens * table->token_bytes == ids);
        CHECK(token_run_table_check(table) == 0);
        millrace__run_table__free_unpacked(table, NULL);
    }
    buf_free(&file);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    struct token_run_builder builder;
    token_run_builder_open(&builder, 2);
    uint8_t digest[SHA256_BYTES] = {1, 2, 3};
    uint64_t band[14] = {1, 2, 3};
    for (uint32_t i = 0; i < 3; i++) {
        token_run_builder_piece(&builder, i, token_run_builder_member(&builder, i ? "a/b.txt" : ""), 100 * i);
        builder.table.flags[i] = TOKEN_RUN_BEGINS | TOKEN_RUN_ENDS;
        builder.table.bytes[i] = 20;
        builder.table.piece_tokens[i] = 4;
        builder.table.tokens += 4;
        CHECK(token_run_builder_block(&builder, digest) == 0 && token_run_builder_bands(&builder, band, 14) == 0);
    }
    struct token_run_left_out left = {"c4: sentences", "2 sentences", "file.txt", "member", 17, 3, 20, (const uint8_t *)"text", 4};
    token_run_builder_drop(&builder, &left);
    builder.table.read_bytes = 3 * 20 + 20;
    for (int length = 0; length < 2; length++) {
        struct buf seed = {0};
        CHECK(buf_append(&seed, length ? "\0\1" : "\0\30", 2) == 0 && buf_append(&seed, "0123456789abcdef01234567", 24) == 0);
        CHECK(token_run_builder_seal(&builder, &seed) == 0);
        add(seed.data, seed.size - SEAL_BYTES);
        Millrace__RunTable *table;
        if (!length && token_run_table_read(&table, fuzz_path(seed.data + 2, seed.size - 2)) < 0) fuzz_fail("seed: %s", err_text());
        if (!length) millrace__run_table__free_unpacked(table, NULL);
        buf_free(&seed);
    }
    token_run_builder_close(&builder);
}
