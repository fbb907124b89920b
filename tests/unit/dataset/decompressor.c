/* What a decompressor gives of a stream, whole, cut off or changed, follows from its bytes alone and not from the portions in which they
 * are fed; of one that is cut off it is what comes before the cut, all of it. How much memory is free, which the test says, decides about
 * windows of zstd alone. */
#include "dataset/source/decompressor.h"

#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/machine.h"
#include "base/mem.h"
#include "tests/unit/random.h"

static uint64_t free_bytes = UINT64_C(1) << 30;

int machine_memory(struct machine_memory *out, const char *root) {
    assert_string_equal(root, "");
    if (free_bytes == 0) return err_set(ERR_UNSUPPORTED, "nobody knows");
    *out = (struct machine_memory){.available_bytes = free_bytes};
    return 0;
}

static const struct {
    const char *name;
    int filter;
} kinds[] = {
    {"gzip", ARCHIVE_FILTER_GZIP}, {"zstd", ARCHIVE_FILTER_ZSTD},   {"xz", ARCHIVE_FILTER_XZ},
    {"lzma", ARCHIVE_FILTER_LZMA}, {"bzip2", ARCHIVE_FILTER_BZIP2},
};
enum { KINDS = sizeof kinds / sizeof *kinds, TEXT_BYTES_MAX = 300000, PACKED_BYTES_MAX = 1 << 20 };

static struct buf text_made(struct random *random) {
    struct buf out = {0};
    size_t size = (size_t)random_in(random, 1, random_in(random, 0, 1) ? TEXT_BYTES_MAX : 2000);
    while (out.size < size) {
        uint64_t bits = random_next(random);
        char word[9];
        for (int i = 0; i < 8; i++) word[i] = "etaoinshrdlu ,.\n"[bits >> 4 * i & 15];
        assert_int_equal(buf_append(&out, word, random_in(random, 1, 8)), 0);
    }
    return out;
}

static struct buf packed(const struct buf *text, int filter) {
    struct buf out = {0};
    size_t used = 0;
    assert_int_equal(buf_reserve(&out, PACKED_BYTES_MAX), 0);
    struct archive *archive = archive_write_new();
    assert_int_equal(archive_write_set_format_raw(archive), ARCHIVE_OK);
    assert_int_equal(archive_write_add_filter(archive, filter), ARCHIVE_OK);
    assert_int_equal(archive_write_set_bytes_in_last_block(archive, 1), ARCHIVE_OK);
    assert_int_equal(archive_write_open_memory(archive, out.data, PACKED_BYTES_MAX, &used), ARCHIVE_OK);
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_filetype(entry, AE_IFREG);
    assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(archive, text->data, text->size), text->size);
    archive_entry_free(entry);
    assert_int_equal(archive_write_close(archive), ARCHIVE_OK);
    archive_write_free(archive);
    out.size = used;
    return out;
}

/* Unpacks in portions of random sizes. The code of the first error; *whole: the stream may end where it does. */
static int unpack(struct buf *out, bool *whole, const struct buf *in, struct random *random) {
    static uint8_t room[5000];
    struct decompressor *d = decompressor_open(in->data, in->size);
    assert_non_null(d);
    int code = 0;
    for (size_t at = 0, end = 0, got = 1, taken; code == 0;) {
        if (at == end) end += (size_t)random_in(random, 0, in->size - end < 3000 ? in->size - end : 3000);
        code = decompressor_step(d, room, &got, (size_t)random_in(random, 1, sizeof room), in->data + at, &taken, end - at);
        at += taken;
        assert_int_equal(buf_append(out, room, got), 0);
        if (code == 0 && at == in->size && got == 0) break;
    }
    *whole = code == 0 && decompressor_whole(d);
    decompressor_close(d);
    return code;
}

static void check(const struct buf *in, const struct buf *text, bool cut, size_t k, struct random *random) {
    struct buf once = {0}, again = {0};
    bool whole, whole_again;
    int code = unpack(&once, &whole, in, random), code_again = unpack(&again, &whole_again, in, random);
    if (code != code_again || whole != whole_again || once.size != again.size || memcmp(once.data, again.data, once.size) != 0)
        fail_msg("seed %llu: %s of %zu bytes: %d with %zu bytes, then %d with %zu", (unsigned long long)random->seed, kinds[k].name,
                 in->size, code, once.size, code_again, again.size);
    assert_true(code == 0 || code == ERR_CORRUPT || code == ERR_UNSUPPORTED);
    if (cut) {
        assert_int_equal(code, 0);
        assert_true(!whole && once.size <= text->size);
    }
    if (cut || whole) assert_memory_equal(once.data, text->data, once.size);
    buf_free(&once), buf_free(&again);
}

static void what_comes_out_follows_from_the_bytes_alone(void **state) {
    (void)state;
    struct random random = random_open("decompressor");
    for (int i = 0; i < 20; i++) {
        size_t k = (size_t)i % KINDS;
        struct buf text = text_made(&random), in = packed(&text, kinds[k].filter), out = {0};
        bool whole;
        assert_int_equal(unpack(&out, &whole, &in, &random), 0);
        assert_true(whole && out.size == text.size && memcmp(out.data, text.data, out.size) == 0);
        buf_free(&out);
        for (int n = 0; n < 4; n++) {
            struct buf part = in;
            part.size = (size_t)random_in(&random, 20, in.size - 1);
            check(&part, &text, true, k, &random);
            uint8_t *byte = &in.data[random_in(&random, 20, in.size - 1)], before = *byte;
            *byte ^= (uint8_t)(1 << random_in(&random, 0, 7));
            struct buf out_changed = {0};
            bool unused;
            int code = unpack(&out_changed, &unused, &in, &random);
            struct buf again = {0};
            assert_int_equal(unpack(&again, &unused, &in, &random), code);
            size_t both = again.size < out_changed.size ? again.size : out_changed.size; /* liblzma may go on for some bytes of garbage */
            if (both > 0) assert_memory_equal(again.data, out_changed.data, both);
            buf_free(&again), buf_free(&out_changed);
            *byte = before;
        }
        buf_free(&text), buf_free(&in);
    }
}

/* given[n]: bytes of text that come of the first n bytes of the stream, fed one at a time. */
static size_t *given_by_each(const struct buf *in) {
    static uint8_t room[2 << 20];
    size_t *given = mem_alloc((in->size + 1) * sizeof *given), taken;
    struct decompressor *d = decompressor_open(in->data, in->size);
    for (size_t n = 0; n < in->size; n++) {
        size_t got;
        assert_int_equal(decompressor_step(d, room, &got, sizeof room, in->data + n, &taken, 1), 0);
        assert_int_equal(taken, 1);
        given[n + 1] = given[n] + got;
    }
    decompressor_close(d);
    return given;
}

static void all_that_comes_before_damage_is_given(void **state) {
    (void)state;
    struct random random = random_open("before");
    for (size_t k = 0; k < KINDS; k++) {
        struct buf text = text_made(&random), in = packed(&text, kinds[k].filter);
        size_t *given = given_by_each(&in);
        assert_int_equal(given[in.size], text.size);
        for (int i = 0; i < 30; i++) {
            struct buf out = {0}, part = {.data = in.data, .size = (size_t)random_in(&random, 20, in.size - 1)};
            bool whole;
            assert_int_equal(unpack(&out, &whole, &part, &random), 0);
            assert_int_equal(out.size, given[part.size]);
            buf_clear(&out);
            size_t at = part.size;
            uint8_t before = in.data[at];
            in.data[at] ^= (uint8_t)(1 << random_in(&random, 0, 7));
            unpack(&out, &whole, &in, &random);
            in.data[at] = before;
            assert_true(out.size >= given[at]);
            if (given[at] > 0) assert_memory_equal(out.data, text.data, given[at]);
            buf_free(&out);
        }
        free(given);
        buf_free(&text), buf_free(&in);
    }
}

/* Of zeros a decoder makes hundreds of bytes out of its last one. */
static void what_a_decoder_holds_at_a_cut_is_given_whatever_the_room(void **state) {
    (void)state;
    enum { ZEROS = 20000, ROOM_MAX = 300 };
    static const uint8_t zeros[ZEROS];
    struct buf text = {0};
    assert_int_equal(buf_append(&text, zeros, ZEROS), 0);
    for (size_t k = 0; k < KINDS; k++) {
        struct buf in = packed(&text, kinds[k].filter);
        size_t *given = given_by_each(&in);
        for (size_t size = 20; size < in.size; size++) {
            for (size_t room_bytes = 1; room_bytes <= ROOM_MAX; room_bytes++) {
                uint8_t room[ROOM_MAX];
                struct decompressor *d = decompressor_open(in.data, size);
                size_t at = 0, total = 0, got = 1, taken = 1;
                for (; got > 0 || taken > 0; at += taken, total += got)
                    assert_int_equal(decompressor_step(d, room, &got, room_bytes, in.data + at, &taken, size - at), 0);
                if (at != size || total != given[size] || decompressor_whole(d))
                    fail_msg("%s of %zu bytes by %zu: %zu and not %zu", kinds[k].name, size, room_bytes, total, given[size]);
                decompressor_close(d);
            }
        }
        free(given);
        buf_free(&in);
    }
    buf_free(&text);
}

static void streams_that_follow_one_another_are_one(void **state) {
    (void)state;
    struct random random = random_open("several");
    for (size_t k = 0; k < KINDS; k++) {
        struct buf text = text_made(&random), in = packed(&text, kinds[k].filter), both = {0}, out = {0};
        bool whole, zeros = strcmp(kinds[k].name, "zstd") != 0, single = strcmp(kinds[k].name, "lzma") == 0;
        assert_int_equal(buf_append(&both, in.data, in.size), 0);
        if (single) { /* another one behind it is damage, as to xz: the format has no way to go on */
            assert_int_equal(buf_append(&both, in.data, in.size), 0);
            assert_int_equal(unpack(&out, &whole, &both, &random), ERR_CORRUPT);
            assert_non_null(strstr(err_text(), "after the end of the lzma data comes something else"));
            assert_int_equal(out.size, text.size);
            buf_clear(&out);
            both.size = in.size;
        } else {
            assert_int_equal(buf_append(&both, in.data, in.size), 0);
        }
        if (zeros) assert_int_equal(buf_append(&both, "\0\0\0\0\0\0\0\0", 8), 0);
        assert_int_equal(unpack(&out, &whole, &both, &random), 0);
        assert_true(whole);
        assert_int_equal(out.size, single ? text.size : 2 * text.size);
        buf_clear(&out);
        assert_int_equal(buf_append(&both, "something else", 14), 0);
        assert_int_equal(unpack(&out, &whole, &both, &random), ERR_CORRUPT);
        assert_true(out.size >= text.size);
        buf_free(&text), buf_free(&in), buf_free(&both), buf_free(&out);
    }
}

static void texts_are_no_streams(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "BZh",
                                        "BZhello world",
                                        "]\0\0\0",
                                        "\3757zX", /* 0xFD, 7zX */
                                        "] a text that begins with a bracket"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) assert_null(decompressor_open((const uint8_t *)texts[i], strlen(texts[i])));
    static const uint8_t large[13] = {0x5D, 0, 0, 0, 8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}; /* a dictionary of 128 MiB */
    static const uint8_t odd[13] = {0x5D, 1, 0, 0x80, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    assert_null(decompressor_open(large, sizeof large));
    assert_null(decompressor_open(odd, sizeof odd));
}

/* An empty frame that asks for a window of 2^log bytes. */
static int take_window(int log) {
    const uint8_t frame[] = {0x28, 0xB5, 0x2F, 0xFD, 0, (uint8_t)((log - 10) << 3), 1, 0, 0};
    uint8_t out[16];
    size_t got = 0, taken = 0;
    struct decompressor *d = decompressor_open(frame, sizeof frame);
    assert_non_null(d);
    int code = decompressor_step(d, out, &got, sizeof out, frame, &taken, sizeof frame);
    assert_int_equal(got, 0);
    decompressor_close(d);
    return code;
}

/* 128 MiB always; more where it takes no more than three quarters of what is free. */
static void a_window_that_does_not_fit_the_memory_is_refused(void **state) {
    (void)state;
    const uint64_t mib = 1 << 20;
    const struct { uint64_t free; int most; } machines[] = {{0, 27}, {64 * mib, 27}, {340 * mib, 27}, {400 * mib, 28}, {700 * mib, 29}};
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        free_bytes = machines[i].free;
        for (int log = 20; log <= 31; log++) assert_int_equal(take_window(log), log <= machines[i].most ? 0 : ERR_MEMORY);
    }
    free_bytes = UINT64_C(1) << 30;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_out_follows_from_the_bytes_alone),
        cmocka_unit_test(all_that_comes_before_damage_is_given),
        cmocka_unit_test(what_a_decoder_holds_at_a_cut_is_given_whatever_the_room),
        cmocka_unit_test(streams_that_follow_one_another_are_one),
        cmocka_unit_test(texts_are_no_streams),
        cmocka_unit_test(a_window_that_does_not_fit_the_memory_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
