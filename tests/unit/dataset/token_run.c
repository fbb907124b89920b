/* The table behind a run's token ids: read as it was written, refused when anything about it is wrong. */
#include "dataset/ingest/token_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/ingest/token_run_build.h"

static char *folder, *path;
static int make_folder(void **state) {
    (void)state;
    folder = mem_text("/tmp/millrace-run-XXXXXX");
    assert_non_null(mkdtemp(folder));
    path = mem_format("%s/run", folder);
    return 0;
}
static int remove_folder(void **state) {
    (void)state;
    int code = folder_remove(folder);
    free(folder), free(path);
    return code;
}

/* Two documents and the beginning of a third, seven tokens. */
static void build(struct token_run_builder *builder) {
    static const uint32_t tokens[] = {4, 0, 3};
    uint8_t digest[SHA256_BYTES] = {1};
    token_run_builder_open(builder, 2);
    for (uint32_t i = 0; i < 3; i++) {
        token_run_builder_piece(builder, i / 2, token_run_builder_member(builder, i ? "a/b.txt" : ""), i * 100);
        builder->table.flags[i] = i < 2 ? TOKEN_RUN_BEGINS | TOKEN_RUN_ENDS : TOKEN_RUN_BEGINS;
        builder->table.piece_tokens[i] = tokens[i], builder->table.bytes[i] = 2 * tokens[i];
        assert_int_equal(token_run_builder_block(builder, digest), 0);
        assert_int_equal(token_run_builder_bands(builder, (const uint64_t[]){i, 7}, 2), 0);
    }
    struct token_run_left_out document = {"short", "2 characters", "/x.tar", "a", 9, 3, 2, (const uint8_t *)"a\0", 2};
    for (int i = 0; i < 5; i++) token_run_builder_drop(builder, &document);
    builder->table.around_bytes = 4, builder->table.read_bytes = 4 + 14 + 5 * 2;
}

static void write_run(const struct buf *sealed, size_t ids_bytes) {
    struct buf file = {0};
    static const uint8_t ids[64];
    assert_int_equal(buf_append(&file, ids, ids_bytes), 0);
    assert_int_equal(buf_append(&file, sealed->data, sealed->size), 0);
    assert_int_equal(file_publish(path, file.data, file.size), 0);
    buf_free(&file);
}

static void a_run_s_table_is_read_as_it_was_written(void **state) {
    (void)state;
    struct token_run_builder builder;
    struct buf sealed = {0};
    Millrace__RunTable *table;
    build(&builder);
    assert_int_equal(token_run_builder_seal(&builder, &sealed), 0);
    write_run(&sealed, 14);
    assert_int_equal(token_run_table_read(&table, path), 0);
    assert_int_equal(table->tokens, 7);
    assert_int_equal(table->n_source, 3);
    assert_int_equal(table->source[2], 1);
    assert_int_equal(table->offset[2], 200);
    assert_int_equal(table->member[0], 0);
    assert_int_equal(table->member[2], 1);
    assert_int_equal(table->n_member_name, 1);
    assert_string_equal(table->member_name[0], "a/b.txt");
    assert_int_equal(table->bands.len, 48);
    assert_int_equal(table->bands.data[32], 2);
    assert_int_equal(table->digests.len, 96);
    assert_int_equal(table->n_dropped, 1);
    assert_int_equal(table->dropped[0]->documents, 5);
    assert_int_equal(table->dropped[0]->bytes, 10);
    assert_int_equal(table->dropped[0]->n_examples, TOKEN_RUN_EXAMPLES_MAX);
    assert_string_equal(table->dropped[0]->examples[2]->source, "/x.tar!a");
    assert_string_equal(table->dropped[0]->examples[2]->text, "a ");
    millrace__run_table__free_unpacked(table, NULL);
    token_run_builder_close(&builder), buf_free(&sealed);
}

static void an_empty_run_has_a_table(void **state) {
    (void)state;
    struct token_run_builder builder;
    struct buf sealed = {0};
    Millrace__RunTable *table;
    token_run_builder_open(&builder, 4);
    assert_int_equal(token_run_builder_seal(&builder, &sealed), 0);
    write_run(&sealed, 0);
    assert_int_equal(token_run_table_read(&table, path), 0);
    assert_int_equal(table->tokens + table->n_source, 0);
    millrace__run_table__free_unpacked(table, NULL);
    token_run_builder_close(&builder), buf_free(&sealed);
}

static void damage_is_found_and_the_file_named(void **state) {
    (void)state;
    struct token_run_builder builder;
    struct buf sealed = {0};
    Millrace__RunTable *table;
    build(&builder);
    assert_int_equal(token_run_builder_seal(&builder, &sealed), 0);
    for (size_t i = 0; i < sealed.size; i++) {
        sealed.data[i] ^= 4;
        write_run(&sealed, 14);
        assert_int_equal(token_run_table_read(&table, path), ERR_CORRUPT);
        assert_non_null(strstr(err_text(), path));
        sealed.data[i] ^= 4;
    }
    static const size_t ids[] = {0, 12, 13, 15, 16};
    for (size_t i = 0; i < 5; i++) {
        write_run(&sealed, ids[i]);
        assert_int_equal(token_run_table_read(&table, path), ERR_CORRUPT);
    }
    assert_int_equal(file_publish(path, sealed.data + 1, 31), 0);
    assert_int_equal(token_run_table_read(&table, path), ERR_CORRUPT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(token_run_table_read(&table, path), ERR_NOTFOUND);
    token_run_builder_close(&builder), buf_free(&sealed);
}

static void a_table_that_breaks_a_rule_is_refused(void **state) {
    (void)state;
    for (int rule = 0; rule < 19; rule++) {
        struct token_run_builder builder;
        build(&builder);
        Millrace__RunTable *t = &builder.table;
        t->tokens = 7;
        t->digests = (ProtobufCBinaryData){builder.digests.size, builder.digests.data};
        t->bands = (ProtobufCBinaryData){builder.bands.size, builder.bands.data};
        switch (rule) {
        case 1: t->n_offset--; break;
        case 2: t->n_replaced--; break;
        case 3: t->token_bytes = 3; break;
        case 4: t->tokens = 8; break;
        case 5: t->bands.len--; break;
        case 6: t->digests.len -= 32; break;
        case 7: t->flags[0] = TOKEN_RUN_BEGINS; break; /* does not end, and another of its part follows */
        case 8: t->flags[1] = TOKEN_RUN_ENDS; break;   /* did not begin, and is not its part's first */
        case 9: t->flags[2] = 4; break;
        case 10: t->member[1] = 2; break;
        case 11: t->source[0] = 1, t->source[2] = 0; break;
        case 12: t->blocks[0] = 0, t->blocks[1] = 2; break;
        case 13: t->piece_tokens[0] = UINT64_MAX, t->piece_tokens[1] = 5; break;
        case 14: t->dropped[0]->documents = 0; break;
        case 15: t->n_source = 0; break;
        case 16: t->read_bytes++; break; /* a byte that is in no account */
        case 17: t->around_bytes = UINT64_MAX; break;
        case 18: t->n_changed = 1; break;
        default: break;
        }
        assert_int_equal(token_run_table_check(t), rule ? ERR_CORRUPT : 0);
        token_run_builder_close(&builder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_s_table_is_read_as_it_was_written),
        cmocka_unit_test(an_empty_run_has_a_table),
        cmocka_unit_test(damage_is_found_and_the_file_named),
        cmocka_unit_test(a_table_that_breaks_a_rule_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
