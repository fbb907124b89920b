/* The manifest: what is written is read, and anything else is refused. */
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/plan/plan.h"
#include "dataset/shard/manifest.h"

static char folder[64];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/millrace-manifest-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return folder_remove(folder);
}

enum { T = 256, SHARD = 65536 };

/* Three training shards, of which the last is short, and one validation shard. */
static struct manifest example(void) {
    struct manifest m = {
        .token_bytes = 2, .eos = 50256, .packing = mem_text("concat"), .sequence_length = T, .frame_tokens = SHARD, .shard_tokens = SHARD};
    static const uint64_t tokens[] = {SHARD, SHARD, 1000, 300};
    m.train_shards = 3;
    m.shards = 4;
    m.shard = mem_alloc(4 * sizeof *m.shard);
    for (uint32_t i = 0; i < 4; i++) {
        shard_name(m.shard[i].name, i == 3, i == 3 ? 0 : i);
        m.shard[i].tokens = tokens[i];
        m.shard[i].documents = i + 1;
        m.shard[i].file_bytes = 1000 + i;
        memset(m.shard[i].file_digest, (int)i + 1, SHA256_BYTES);
    }
    m.train_documents = 6;
    m.documents = 10;
    m.train_tokens = 2 * SHARD + 1000;
    m.tokens = m.train_tokens + 300;
    m.train_sequences = sequences_in(m.train_tokens, T, false);
    m.sequences = m.train_sequences + sequences_in(300, T, false);
    m.empty_documents = 2;
    m.replaced = 77;
    m.document_mask = true;
    m.truncated_documents = 3, m.truncated_tokens = 33, m.padding = 333;
    m.tokenizer = mem_text("gpt2");
    memset(m.tokenizer_digest, 0xCD, SHA256_BYTES);
    m.policy = mem_text("nfc");
    m.groups = m.drops = 2;
    m.group = mem_alloc(2 * sizeof *m.group);
    m.dropped = mem_alloc(2 * sizeof *m.dropped);
    for (int i = 0; i < 2; i++) {
        millrace__manifest_group__init(m.group[i] = mem_alloc(sizeof **m.group));
        m.group[i]->name = mem_format("group-%d", i);
        m.group[i]->weight = 0.25 + i;
        m.group[i]->train_tokens = 1234;
        millrace__dropped__init(m.dropped[i] = mem_alloc(sizeof **m.dropped));
        m.dropped[i]->reason = mem_format("reason-%d", i);
        m.dropped[i]->documents = 7;
    }
    memset(m.digest, 0xAB, SHA256_BYTES);
    m.sources = 12;
    m.source = mem_alloc(12 * sizeof *m.source);
    for (int i = 0; i < 12; i++) m.source[i] = mem_format("corpus/%d/f\xC3\xBC%d.txt", i, i);
    return m;
}

static void what_is_written_is_read(void **state) {
    (void)state;
    struct manifest m = example(), got;
    assert_int_equal(manifest_write(&m, folder), 0);
    assert_int_equal(manifest_read(&got, folder), 0);
    assert_int_equal(got.token_bytes, 2);
    assert_int_equal(got.sequence_length, T);
    assert_int_equal(got.frame_tokens, SHARD);
    assert_int_equal(got.shard_tokens, SHARD);
    assert_int_equal(got.documents, m.documents);
    assert_int_equal(got.tokens, m.tokens);
    assert_int_equal(got.sequences, m.sequences);
    assert_int_equal(got.train_documents, m.train_documents);
    assert_int_equal(got.train_tokens, m.train_tokens);
    assert_int_equal(got.train_sequences, m.train_sequences);
    assert_int_equal(got.empty_documents, 2);
    assert_int_equal(got.replaced, 77);
    assert_memory_equal(got.digest, m.digest, SHA256_BYTES);
    assert_int_equal(got.train_shards, 3);
    assert_int_equal(got.shards, 4);
    assert_memory_equal(got.shard, m.shard, 4 * sizeof *m.shard);
    assert_int_equal(got.eos, 50256);
    assert_string_equal(got.packing, "concat");
    assert_true(got.document_mask);
    assert_int_equal(got.truncated_documents, 3);
    assert_int_equal(got.truncated_tokens, 33);
    assert_int_equal(got.padding, 333);
    assert_string_equal(got.tokenizer, "gpt2");
    assert_memory_equal(got.tokenizer_digest, m.tokenizer_digest, SHA256_BYTES);
    assert_string_equal(got.policy, "nfc");
    assert_int_equal(got.groups, 2);
    assert_string_equal(got.group[1]->name, "group-1");
    assert_true(got.group[1]->weight == 1.25);
    assert_int_equal(got.drops, 2);
    assert_string_equal(got.dropped[1]->reason, "reason-1");
    assert_int_equal(got.dropped[1]->documents, 7);
    assert_int_equal(got.sources, 12);
    for (int i = 0; i < 12; i++) assert_string_equal(got.source[i], m.source[i]);
    manifest_free(&got);
    manifest_free(&got); /* fine twice */

    for (size_t i = 0; i < m.sources; i++) free(m.source[i]);
    m.sources = 0; /* paths may be left out */
    assert_int_equal(manifest_write(&m, folder), 0);
    assert_int_equal(manifest_read(&got, folder), 0);
    assert_int_equal(got.sources, 0);
    manifest_free(&got);
    manifest_free(&m);
}

static void writing_twice_gives_the_same_bytes(void **state) {
    (void)state;
    struct manifest m = example();
    char *path = mem_format("%s/dataset.pb", folder);
    struct buf first = {0}, second = {0};
    assert_int_equal(manifest_write(&m, folder), 0);
    assert_int_equal(file_read(&first, path, 1 << 20), 0);
    assert_int_equal(manifest_write(&m, folder), 0);
    assert_int_equal(file_read(&second, path, 1 << 20), 0);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
    buf_free(&first);
    buf_free(&second);
    free(path);
    manifest_free(&m);
}

static void a_folder_without_a_manifest_is_not_a_dataset(void **state) {
    (void)state;
    struct manifest got;
    assert_int_equal(manifest_read(&got, "/tmp/millrace-no-such-folder"), ERR_NOTFOUND);
    assert_non_null(strstr(err_text(), "never finished"));
}

/* Cut to its length at the end, not to nothing first: ext4 flushes a file that was, and that thousands of times takes long. */
static void write_bytes(const void *bytes, size_t size_bytes) {
    char *path = mem_format("%s/dataset.pb", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(file_write_at(fd, bytes, size_bytes, 0), 0);
    assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
    close(fd);
    free(path);
}

static void any_flipped_bit_or_lost_byte_is_found(void **state) {
    (void)state;
    struct manifest m = example(), got;
    char *path = mem_format("%s/dataset.pb", folder);
    struct buf whole = {0};
    assert_int_equal(manifest_write(&m, folder), 0);
    assert_int_equal(file_read(&whole, path, 1 << 20), 0);
    for (size_t size = 0; size < whole.size; size++) {
        write_bytes(whole.data, size);
        if (manifest_read(&got, folder) != ERR_CORRUPT) fail_msg("cut to %zu of %zu bytes", size, whole.size);
    }
    for (size_t bit = 0; bit < 8 * whole.size; bit++) {
        whole.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        write_bytes(whole.data, whole.size);
        if (manifest_read(&got, folder) != ERR_CORRUPT) fail_msg("bit %zu of byte %zu", bit % 8, bit / 8);
        whole.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(buf_append(&whole, "x", 1), 0);
    write_bytes(whole.data, whole.size);
    assert_int_equal(manifest_read(&got, folder), ERR_CORRUPT);
    buf_free(&whole);
    free(path);
    manifest_free(&m);
}

static void a_manifest_beyond_the_limit_is_refused(void **state) {
    (void)state;
    char *path = mem_format("%s/dataset.pb", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (192 << 20) + 1000), 0);
    close(fd);
    struct manifest got;
    assert_int_equal(manifest_read(&got, folder), ERR_CORRUPT);
    free(path);
}

static void numbers_that_do_not_add_up_are_refused(void **state) {
    (void)state;
    enum { LIES = 20 };
    for (int lie = 0; lie <= LIES; lie++) {
        struct manifest m = example();
        switch (lie) {
        case 0: m.tokens++; break;
        case 1: m.documents--; break;
        case 2: m.sequences++; break;
        case 3: m.train_tokens -= T; break;
        case 4: m.train_documents++; break;
        case 5: m.train_sequences--; break;
        case 6: m.token_bytes = 3; break;
        case 7: m.sequence_length = 0; break;
        case 8: m.sequence_length = 255; break;
        case 9: m.frame_tokens = SHARD / 2 + T; break;
        case 10: m.shard_tokens = SHARD + T; break;
        case 11: m.train_shards = 2; break;
        case 12: m.shard[0].tokens--, m.tokens--, m.train_tokens--; break; /* only the last one of a split may be short */
        case 13: m.shard[2].tokens = 0; break;
        case 14: strcpy(m.shard[1].name, "../../etc/passwd"); break;
        case 15: strcpy(m.shard[3].name, "validation-00001.tok.zst"); break;
        case 16: m.shard[0].file_bytes = 0; break;
        case 17: m.eos = 65536; break;
        case 18: m.packing[0] = 'x'; break;
        case 19: free(m.packing), m.packing = mem_text("pad"); break; /* then its shards hold other sequences */
        default: break;
        }
        int code = manifest_write(&m, folder), want = lie < LIES ? ERR_CORRUPT : 0;
        if (code != want) fail_msg("lie %d: %d", lie, code);
        manifest_free(&m);
    }
}

static void geometry_tells_where_each_split_lies(void **state) {
    (void)state;
    struct manifest m = example();
    Millrace__Geometry train = manifest_geometry(&m, false), validation = manifest_geometry(&m, true);
    assert_string_equal(train.split, "train");
    assert_string_equal(validation.split, "validation");
    assert_int_equal(train.tokens, 2 * SHARD + 1000);
    assert_int_equal(validation.tokens, 300);
    assert_int_equal(train.sequence_length, T);
    assert_int_equal(validation.shard_tokens, SHARD);
    assert_int_equal(millrace__geometry__get_packed_size(&train) > 0, 1);
    struct sequence_place place = sequence_place(&train, SHARD / T * 2 + 1);
    assert_int_equal(place.shard, 2);
    assert_int_equal(place.frame, 0);
    assert_int_equal(place.first, T);
    manifest_free(&m);
}

static void a_document_is_found_in_the_shard_where_it_begins(void **state) {
    (void)state;
    struct manifest m = example(), got;
    m.shard[0].documents = 0, m.shard[1].documents = 5, m.shard[2].documents = 0; /* 5 in training, then 4 */
    m.train_documents = 5, m.documents = 9;
    assert_int_equal(manifest_write(&m, folder), 0);
    assert_int_equal(manifest_read(&got, folder), 0);
    for (uint64_t document = 0; document < 9; document++) {
        size_t shard;
        assert_int_equal(manifest_find_document(&got, &shard, document), 0);
        assert_int_equal(shard, document < 5 ? 1 : 3);
        assert_true(got.shard[shard].first_document <= document);
    }
    size_t none;
    assert_int_equal(manifest_find_document(&got, &none, 9), ERR_NOTFOUND);
    manifest_free(&got);
    manifest_free(&m);
}

static void make_shards(struct manifest *m, uint32_t shards) {
    free(m->shard);
    m->train_shards = m->shards = shards;
    m->shard = mem_alloc(shards * sizeof *m->shard);
    m->documents = 0;
    for (uint32_t i = 0; i < shards; i++) {
        shard_name(m->shard[i].name, false, i);
        m->shard[i].tokens = SHARD;
        m->documents += m->shard[i].documents = 1 + i % 100;
        m->shard[i].file_bytes = 100000 + i;
        memset(m->shard[i].file_digest, (int)i, SHA256_BYTES);
        m->shard[i].has_index_digest = true;
    }
    m->train_tokens = m->tokens = (uint64_t)shards * SHARD;
    m->train_documents = m->documents;
    m->train_sequences = m->sequences = sequences_in(m->tokens, T, false);
}

/* A manifest of a hundred thousand shards: what resuming at any place costs. */
static void a_hundred_thousand_shards_are_opened_and_searched_at_once(void **state) {
    (void)state;
    enum { SHARDS = 100000, FINDS = 1000000 };
    struct manifest m = example(), got;
    make_shards(&m, SHARDS);
    assert_int_equal(m.documents, 5050000);
    assert_int_equal(manifest_write(&m, folder), 0);
    double began = clock_seconds();
    assert_int_equal(manifest_read(&got, folder), 0);
    double opened = clock_seconds();
    Millrace__Geometry geometry = manifest_geometry(&got, false);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < FINDS; i++) {
        uint64_t sequence = order_sequence(1, i * 9973 % got.sequences, &geometry, 16);
        struct sequence_place place = sequence_place(&geometry, sequence);
        assert_true(place.shard < SHARDS);
        sum += place.frame;
    }
    double found = clock_seconds();
    print_message("%d shards: opened in %.3f s; a sequence at a position in %.2f us\n", SHARDS, opened - began,
                  (found - opened) / FINDS * 1e6);
    assert_int_equal(sum, 0); /* one frame a shard */
    manifest_free(&got);
    manifest_free(&m);
}

/* Whatever may be begun can be finished: as many sources and shards as there may be, with paths as short, or as long, as that. */
static void the_most_that_a_dataset_may_have_is_written_and_read(void **state) {
    (void)state;
    static const size_t path_bytes[] = {MANIFEST_SOURCES_BYTES_MAX / MANIFEST_SOURCES_MAX - MANIFEST_SOURCE_BYTES, 4095};
    for (size_t k = 0; k < 2; k++) {
        struct manifest m = example(), got;
        char *path = mem_alloc(path_bytes[k] + 1);
        memset(path, 'x', path_bytes[k]);
        for (size_t i = 0; i < m.sources; i++) free(m.source[i]);
        free(m.source);
        struct sources sources = {.count = MANIFEST_SOURCES_BYTES_MAX / (path_bytes[k] + MANIFEST_SOURCE_BYTES)};
        sources.source = mem_alloc((sources.count + 1) * sizeof *sources.source);
        for (size_t i = 0; i <= sources.count; i++) sources.source[i].path = path;
        assert_int_equal(manifest_check_sources(&sources), 0);
        sources.count++;
        assert_int_equal(manifest_check_sources(&sources), ERR_CONFIG);
        assert_non_null(strstr(err_text(), "pack them into archives"));
        free(sources.source);
        sources.count--;
        m.sources = sources.count;
        m.source = mem_alloc(m.sources * sizeof *m.source);
        for (size_t i = 0; i < m.sources; i++) m.source[i] = path;
        make_shards(&m, k ? 4 : MANIFEST_SHARDS_MAX);
        assert_int_equal(manifest_write(&m, folder), 0);
        m.sources = 0;
        manifest_free(&m);
        if (manifest_read(&got, folder) < 0) fail_msg("%s", err_text());
        assert_int_equal(got.sources, sources.count);
        assert_string_equal(got.source[got.sources - 1], path);
        manifest_free(&got);
        free(path);
    }
}

static void shards_are_named_by_split_and_number(void **state) {
    (void)state;
    char name[48];
    shard_name(name, false, 0);
    assert_string_equal(name, "train-00000.tok.zst");
    shard_name(name, true, 123456);
    assert_string_equal(name, "validation-123456.tok.zst");
    shard_name(name, true, UINT32_MAX);
    assert_string_equal(name, "validation-4294967295.tok.zst");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(writing_twice_gives_the_same_bytes),
        cmocka_unit_test(a_folder_without_a_manifest_is_not_a_dataset),
        cmocka_unit_test(any_flipped_bit_or_lost_byte_is_found),
        cmocka_unit_test(a_manifest_beyond_the_limit_is_refused),
        cmocka_unit_test(numbers_that_do_not_add_up_are_refused),
        cmocka_unit_test(geometry_tells_where_each_split_lies),
        cmocka_unit_test(a_document_is_found_in_the_shard_where_it_begins),
        cmocka_unit_test(a_hundred_thousand_shards_are_opened_and_searched_at_once),
        cmocka_unit_test(the_most_that_a_dataset_may_have_is_written_and_read),
        cmocka_unit_test(shards_are_named_by_split_and_number),
    };
    return cmocka_run_group_tests_name("dataset/manifest", tests, make_folder, remove_folder);
}
