/* Token files of other programs: a dataset made from them holds the same tokens, and gives them back. */
#include "tests/unit/dataset/shards.h"

#include <dirent.h>
#include <sys/stat.h>

#include "dataset/convert/export.h"
#include "dataset/convert/import.h"
#include "dataset/convert/token_file.h"
#include "dataset/shard/manifest.h"

enum { EOS = 50256 };

static char *in_folder(const char *name) { return mem_format("%s/%s", test_folder, name); }

/* Ids with <eos> anywhere: at the beginning, one after the other, at the end or not. */
static void make_tokens(struct buf *out, uint64_t seed, size_t tokens, uint32_t token_bytes) {
    struct dice dice = {seed, 0};
    uint64_t rare = 1 + dice_throw(&dice, 50);
    for (size_t i = 0; i < tokens; i++) {
        uint8_t bytes[4];
        uint32_t token = dice_throw(&dice, rare) == 0 ? EOS : (uint32_t)dice_throw(&dice, token_bytes == 2 ? 50000 : 100000);
        if (token_bytes == 4 && token == EOS + 1) token = 1u << 30;
        token_put(bytes, token, token_bytes);
        CHECK(buf_append(out, bytes, token_bytes) == 0);
    }
}

/* What an import keeps: all of it, and an <eos> behind a last document that has none. */
static void expected(struct buf *out, const struct buf *tokens, uint32_t token_bytes) {
    bool open = false, fresh = true;
    for (size_t i = 0; i < tokens->size; i += token_bytes) {
        bool ends = token_get(tokens->data + i, token_bytes) == EOS && !fresh;
        open = !ends;
        fresh = ends;
    }
    uint8_t bytes[4];
    token_put(bytes, EOS, token_bytes);
    CHECK(buf_append(out, tokens->data, tokens->size) == 0);
    if (open) CHECK(buf_append(out, bytes, token_bytes) == 0);
}

static struct import_options options_of(const char *const *train, size_t files, uint32_t plain_bytes) {
    return (struct import_options){.train = train, .train_files = files, .plain_bytes = plain_bytes, .eos = EOS, .sequence_length = 8,
                                   .shard_tokens = 65536};
}

static void check_export(uint64_t seed, const struct manifest *m, const char *folder, const struct buf *want) {
    static const enum token_format formats[] = {TOKENS_RAW, TOKENS_LLMC, TOKENS_NPY};
    char *path = in_folder("exported");
    for (size_t f = 0; f < 3; f++) {
        struct token_file file;
        struct buf got = {0};
        SUCCEEDS(dataset_export(m, folder, false, formats[f], path, NULL, NULL));
        SUCCEEDS(token_file_open(&file, path, m->token_bytes));
        HOLDS(seed, file.token_bytes == m->token_bytes && file.tokens * m->token_bytes == want->size);
        HOLDS(seed, (formats[f] == TOKENS_NPY ? file.offset % 64 : file.offset) == (formats[f] == TOKENS_LLMC ? LLMC_HEAD_BYTES : 0));
        SUCCEEDS(buf_reserve(&got, want->size));
        SUCCEEDS(token_file_read(&file, got.data, 0, (size_t)file.tokens));
        HOLDS(seed, memcmp(got.data, want->data, want->size) == 0);
        token_file_close(&file);
        buf_free(&got);
    }
    assert_int_equal(dataset_export(m, folder, true, TOKENS_RAW, path, NULL, NULL), ERR_NOTFOUND); /* no validation split */
    char *pipe = in_folder("pipe");
    struct stat st;
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(dataset_export(m, folder, false, TOKENS_RAW, pipe, NULL, NULL), ERR_DENIED);
    assert_true(lstat(pipe, &st) == 0 && S_ISFIFO(st.st_mode));
    unlink(pipe);
    free(pipe);
    free(path);
}

static void what_is_imported_comes_out_again(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        uint32_t token_bytes = seed % 3 ? 2 : 4;
        struct buf tokens = {0}, want = {0};
        make_tokens(&tokens, seed, 20 + (size_t)seed * seed * 1500, token_bytes);
        expected(&want, &tokens, token_bytes);
        char *path = in_folder("tokens.bin"), *folder = in_folder("imported");
        write_file(path, tokens.data, tokens.size);
        const char *const train[] = {path};
        struct import_options options = options_of(train, 1, token_bytes);
        struct manifest m, again;
        SUCCEEDS(dataset_import(&m, &options, folder));
        assert_int_equal(dataset_import(&again, &options, folder), ERR_USAGE); /* there is one now */
        check_export(seed, &m, folder, &want);
        uint8_t digest[SHA256_BYTES];
        sha256_of(digest, want.data, want.size);
        assert_memory_equal(digest, m.digest, SHA256_BYTES);
        SUCCEEDS(manifest_read(&again, folder));
        assert_int_equal(again.documents, m.documents);
        assert_string_equal(again.source[0], path);
        manifest_free(&again);
        manifest_free(&m);
        SUCCEEDS(folder_remove(folder));
        free(path);
        free(folder);
        buf_free(&tokens);
        buf_free(&want);
    }
}

static void splits_and_their_places_stay(void **state) {
    (void)state;
    struct buf train = {0}, held = {0}, want = {0};
    make_tokens(&train, 7, 5000, 2);
    CHECK(buf_append(&held, train.data, 2000) == 0); /* the same documents are in both: nothing is left out */
    char *train_path = in_folder("train.bin"), *held_path = in_folder("val.bin"), *folder = in_folder("both"), *out = in_folder("out");
    write_file(train_path, train.data, train.size);
    write_file(held_path, held.data, held.size);
    const char *const trains[] = {train_path}, *const helds[] = {held_path};
    struct import_options options = options_of(trains, 1, 2);
    options.validation = helds;
    options.validation_files = 1;
    options.tokenizer = "gpt2";
    options.tokenizer_digest = (const uint8_t *)"a digest of thirty-two bytes ...";
    struct manifest m;
    SUCCEEDS(dataset_import(&m, &options, folder));
    assert_string_equal(m.tokenizer, "gpt2");
    assert_int_equal(m.groups, 2);
    expected(&want, &held, 2);
    SUCCEEDS(dataset_export(&m, folder, true, TOKENS_RAW, out, NULL, NULL));
    struct buf got = {0};
    SUCCEEDS(file_read(&got, out, 1 << 20));
    assert_int_equal(got.size, want.size);
    assert_memory_equal(got.data, want.data, want.size);

    struct manifest many = m; /* llm.c counts in an int */
    many.train_tokens = (uint64_t)INT32_MAX + 1;
    assert_int_equal(dataset_export(&many, folder, false, TOKENS_LLMC, out, NULL, NULL), ERR_LIMIT);

    char *shard_path = mem_format("%s/train-00000.tok.zst", folder); /* a token's place in its file */
    struct shard *shard;
    SUCCEEDS(shard_open(&shard, shard_path));
    for (uint64_t t = 0; t < 2500; t += 13) {
        size_t k;
        SUCCEEDS(shard_find_token(shard, &k, t));
        struct shard_document entry = shard_document(shard, k);
        assert_int_equal(entry.source, 0);
        assert_int_equal(entry.offset / 2 + (t - entry.first), t);
    }
    shard_close(shard);
    free(shard_path);

    SUCCEEDS(manifest_verify_shard(&m, folder, 0, NULL)); /* and a broken shard is told from one that is gone */
    shard_path = mem_format("%s/%s", folder, m.shard[1].name);
    struct buf bytes = {0};
    SUCCEEDS(file_read(&bytes, shard_path, 1 << 20));
    bytes.data[10] ^= 1;
    write_file(shard_path, bytes.data, bytes.size);
    assert_int_equal(manifest_verify_shard(&m, folder, 1, NULL), ERR_CORRUPT);
    assert_int_equal(dataset_export(&m, folder, true, TOKENS_RAW, out, NULL, NULL), ERR_CORRUPT);
    assert_int_equal(unlink(shard_path), 0);
    assert_int_equal(manifest_verify_shard(&m, folder, 1, NULL), ERR_NOTFOUND);
    free(shard_path);
    manifest_free(&m);
    buf_free(&bytes);
    buf_free(&got);
    buf_free(&want);
    buf_free(&train);
    buf_free(&held);
    free(train_path);
    free(held_path);
    free(folder);
    free(out);
}

static void a_fraction_of_the_documents_is_held_out_and_packing_is_free(void **state) {
    (void)state;
    struct buf tokens = {0};
    make_tokens(&tokens, 3, 40000, 2);
    char *path = in_folder("some.bin"), *folder = in_folder("packed");
    write_file(path, tokens.data, tokens.size);
    const char *const train[] = {path, path};
    struct import_options options = options_of(train, 2, 2);
    options.validation_fraction = 0.1;
    options.packing = PACKING_BEST_FIT;
    struct manifest m;
    SUCCEEDS(dataset_import(&m, &options, folder));
    assert_string_equal(m.packing, "best_fit");
    assert_true(m.train_documents > m.documents / 2 && m.train_documents < m.documents);
    for (size_t i = 0; i < m.shards; i++) SUCCEEDS(manifest_verify_shard(&m, folder, i, NULL));
    char *out = in_folder("rows.npy");
    struct buf bytes = {0}, shape = {0};
    SUCCEEDS(dataset_export(&m, folder, false, TOKENS_NPY, out, NULL, NULL));
    SUCCEEDS(file_read(&bytes, out, 1 << 20));
    SUCCEEDS(buf_print(&shape, "{'descr': '<u2', 'fortran_order': False, 'shape': (%" PRIu64 ", 8), }", m.train_sequences));
    assert_memory_equal(bytes.data + NPY_HEAD_BYTES, shape.data, shape.size);
    manifest_free(&m);
    buf_free(&bytes);
    buf_free(&shape);
    buf_free(&tokens);
    free(out);
    free(path);
    free(folder);
}

/* A long document is read in parts of 4 Mi tokens: one that is exactly such a part ends all the same, with its <eos> or with the file. */
static void a_document_may_end_with_a_part_of_it(void **state) {
    (void)state;
    const size_t part = 4 << 20;
    struct buf tokens = {0};
    SUCCEEDS(buf_reserve(&tokens, (2 * part + 1) * 2));
    for (size_t i = 0; i <= 2 * part; i++) token_put(tokens.data + 2 * i, i == part ? EOS : (uint32_t)(i % 50000), 2);
    tokens.size = (2 * part + 1) * 2;
    char *path = in_folder("long.bin"), *folder = in_folder("long");
    write_file(path, tokens.data, tokens.size);
    const char *const train[] = {path};
    struct import_options options = options_of(train, 1, 2);
    options.sequence_length = 1024, options.shard_tokens = part;
    struct manifest m;
    SUCCEEDS(dataset_import(&m, &options, folder));
    assert_int_equal(m.documents, 2);
    assert_int_equal(m.tokens, 2 * (part + 1));
    manifest_free(&m);
    free(path);
    free(folder);
    buf_free(&tokens);
}

/* ---- What is refused ---- */

static int open_bytes(const void *bytes, size_t size, uint32_t plain_bytes) {
    char *path = in_folder("file");
    write_file(path, bytes, size);
    struct token_file file;
    int code = token_file_open(&file, path, plain_bytes);
    if (code == 0) token_file_close(&file);
    else assert_non_null(strstr(err_text(), path));
    free(path);
    return code;
}

static int open_npy(const char *text, size_t data_bytes) {
    uint8_t bytes[1000] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)strlen(text), (uint8_t)(strlen(text) >> 8)};
    memcpy(bytes + NPY_HEAD_BYTES, text, strlen(text));
    return open_bytes(bytes, NPY_HEAD_BYTES + strlen(text) + data_bytes, 2);
}

static void files_that_are_not_what_they_say_are_refused(void **state) {
    (void)state;
    uint8_t llmc[LLMC_HEAD_BYTES + 6] = {0};
    assert_int_equal(open_bytes("12345", 5, 2), ERR_CORRUPT);
    assert_int_equal(open_bytes("123456", 6, 4), ERR_CORRUPT);
    assert_int_equal(open_bytes("123456", 6, 2), 0);
    uint8_t narrow[256];
    for (size_t i = 0; i < sizeof narrow; i += 2) token_put(narrow + i, i % 4 ? 1 : 100, 2);
    assert_int_equal(open_bytes(narrow, sizeof narrow, 2), ERR_CORRUPT); /* as ids of 4 bytes are */
    token_put(narrow + 42, 500, 2);
    assert_int_equal(open_bytes(narrow, sizeof narrow, 2), 0); /* no id of 4 bytes is as large as that would be */
    token_put(llmc, LLMC_MAGIC_2, 4);
    token_put(llmc + 4, LLMC_VERSION_2, 4);
    token_put(llmc + 8, 3, 4);
    assert_int_equal(open_bytes(llmc, sizeof llmc, 2), 0);
    assert_int_equal(open_bytes(llmc, sizeof llmc - 2, 2), ERR_CORRUPT);
    token_put(llmc + 8, UINT32_MAX, 4);
    assert_int_equal(open_bytes(llmc, sizeof llmc, 2), ERR_CORRUPT);

    assert_int_equal(open_npy("{'descr': '<u2', 'fortran_order': False, 'shape': (3,), }", 6), 0);
    assert_int_equal(open_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (3, 2), }", 24), 0);
    assert_int_equal(open_npy("{'descr': '<u2', 'fortran_order': False, 'shape': (), }", 2), 0);
    assert_int_equal(open_npy("{'descr': '<u2', 'fortran_order': False, 'shape': (3,), }", 8), ERR_CORRUPT);
    assert_int_equal(open_npy("{'descr': '<u2', 'fortran_order': False, 'shape': (3, x), }", 6), ERR_CORRUPT);
    assert_int_equal(open_npy("{'descr': '<u2', 'fortran_order': False, 'shape': (3,", 6), ERR_CORRUPT);
    assert_int_equal(open_npy("{'descr': '<u2', 'fortran_order': False, 'shape': (18446744073709551615, 2), }", 6), ERR_CORRUPT);
    assert_int_equal(open_npy("{'descr': '<u2', 'fortran_order': False, 'shape': (9223372036854775808,), }", 6), ERR_CORRUPT);
    assert_int_equal(open_npy("{'fortran_order': False, 'shape': (3,), }", 6), ERR_CORRUPT);
    assert_int_equal(open_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", 24), ERR_UNSUPPORTED);
    assert_int_equal(open_npy("{'descr': '<u2', 'fortran_order': True, 'shape': (3, 2), }", 12), ERR_UNSUPPORTED);
    struct token_file file;
    assert_int_equal(token_file_open(&file, "/tmp/millrace-no-such-file", 2), ERR_NOTFOUND);
    assert_int_equal(token_file_open(&file, test_folder, 2), ERR_CORRUPT);
}

static void imports_that_cannot_be_are_refused(void **state) {
    (void)state;
    struct buf tokens = {0};
    make_tokens(&tokens, 3, 1000, 2);
    char *path = in_folder("a.bin"), *wide = in_folder("b.npy"), *folder = in_folder("refused");
    write_file(path, tokens.data, tokens.size);
    const char npy[] = "\x93NUMPY\x01\x00\x3A\x00{'descr': '<u4', 'fortran_order': False, 'shape': (1,), } \n\x01\x00\x00";
    write_file(wide, npy, 10 + 58 + 4);
    const char *const files[] = {path, wide};
    struct manifest m;
    struct import_options options = options_of(files, 2, 2);
    assert_int_equal(dataset_import(&m, &options, folder), ERR_UNSUPPORTED); /* ids of two sizes */
    options = options_of(files, 1, 2);
    options.vocabulary = 40000;
    assert_int_equal(dataset_import(&m, &options, folder), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "vocabulary of 40000"));
    options.vocabulary = 50257;
    options.sequence_length = 5000;
    assert_int_equal(dataset_import(&m, &options, folder), ERR_CONFIG);
    options.sequence_length = 8;
    options.eos = 70000;
    assert_int_equal(dataset_import(&m, &options, folder), ERR_USAGE);
    options = options_of(files, 0, 2);
    assert_int_equal(dataset_import(&m, &options, folder), ERR_USAGE);
    assert_false(file_exists(folder)); /* nothing was made, and nothing is left */
    SUCCEEDS(folder_make(folder));
    assert_int_equal(dataset_import(&m, &options, folder), ERR_USAGE);
    assert_true(file_exists(folder)); /* it was there before */
    char *manifest = mem_format("%s/dataset.pb", folder);
    assert_false(file_exists(manifest));
    free(manifest);
    free(path);
    free(wide);
    free(folder);
    buf_free(&tokens);
}

/* numpy's int32 has negative numbers, for padding, say: as ids they would be above 2^31. */
static void an_id_that_is_negative_is_refused_with_its_place(void **state) {
    (void)state;
    enum { PLACE = 300, TOKENS = 1000 };
    static const char *const types[] = {"<i4", "<u4", NULL}; /* NULL: ids alone */
    char *path = in_folder("signed.npy"), *folder = in_folder("signed");
    for (size_t i = 0; i < 2 * (sizeof types / sizeof *types); i++) {
        uint32_t id = i % 2 ? INT32_MAX : (uint32_t)-100;
        struct buf bytes = {0};
        uint8_t head[NPY_HEAD_BYTES] = "\x93NUMPY\x01";
        if (types[i / 2]) {
            SUCCEEDS(buf_append(&bytes, head, sizeof head));
            SUCCEEDS(buf_print(&bytes, "{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }\n", types[i / 2], TOKENS));
            bytes.data[8] = (uint8_t)(bytes.size - NPY_HEAD_BYTES);
        }
        for (uint32_t k = 0; k < TOKENS; k++) {
            uint8_t token[4];
            token_put(token, k == PLACE ? id : k % 10 ? k : 0, 4);
            SUCCEEDS(buf_append(&bytes, token, 4));
        }
        write_file(path, bytes.data, bytes.size);
        const char *const train[] = {path};
        struct import_options options = options_of(train, 1, 4);
        options.eos = 0;
        struct manifest m;
        int code = dataset_import(&m, &options, folder);
        assert_int_equal(code, i % 2 ? 0 : ERR_CORRUPT);
        if (code < 0) assert_true(strstr(err_text(), "token 300") && strstr(err_text(), "-100") && strstr(err_text(), path));
        if (code == 0) manifest_free(&m);
        if (code == 0) SUCCEEDS(folder_remove(folder));
        buf_free(&bytes);
    }
    free(path);
    free(folder);
}

static int stop_at_zero(void *arg) {
    return (*(int *)arg)-- == 0;
}

static size_t files_in(const char *folder) {
    size_t count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) count += entry->d_name[0] != '.';
    if (dir) closedir(dir);
    return count;
}

static void an_import_that_was_stopped_leaves_no_shards_for_another_dataset(void **state) {
    (void)state;
    struct buf tokens = {0};
    make_tokens(&tokens, 3, 200000, 2);
    char *path = in_folder("long.bin"), *folder = in_folder("stopped"), *left = in_folder("stopped/train-00007.tok.zst");
    write_file(path, tokens.data, tokens.size);
    const char *const train[] = {path};
    struct import_options options = options_of(train, 1, 2);
    struct manifest m;
    options.tick = stop_at_zero;
    bool whole = false;
    for (int ticks = 0; !whole; ticks++) {
        int left_ticks = ticks;
        options.tick_arg = &left_ticks;
        int code = dataset_import(&m, &options, folder);
        whole = code == 0;
        if (!whole) assert_int_equal(code, ERR_INTERRUPTED);
        if (!whole) assert_false(file_exists(folder));
        if (whole) assert_true(ticks > 4 && m.shards == 4 && files_in(folder) == 5);
    }
    manifest_free(&m);

    SUCCEEDS(folder_remove(folder)); /* what was killed could remove nothing */
    SUCCEEDS(folder_make(folder));
    write_file(left, "of another dataset", 18);
    options.tick = NULL;
    assert_int_equal(dataset_import(&m, &options, folder), ERR_USAGE);
    assert_non_null(strstr(err_text(), "train-00007.tok.zst"));
    assert_int_equal(files_in(folder), 1);
    free(path);
    free(folder);
    free(left);
    buf_free(&tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_imported_comes_out_again),
        cmocka_unit_test(splits_and_their_places_stay),
        cmocka_unit_test(a_fraction_of_the_documents_is_held_out_and_packing_is_free),
        cmocka_unit_test(a_document_may_end_with_a_part_of_it),
        cmocka_unit_test(files_that_are_not_what_they_say_are_refused),
        cmocka_unit_test(imports_that_cannot_be_are_refused),
        cmocka_unit_test(an_id_that_is_negative_is_refused_with_its_place),
        cmocka_unit_test(an_import_that_was_stopped_leaves_no_shards_for_another_dataset),
    };
    return cmocka_run_group_tests_name("dataset/token_files", tests, make_test_folder, remove_test_folder);
}
