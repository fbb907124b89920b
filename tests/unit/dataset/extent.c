/* What lies before and behind archives that have a directory, or a mark at their end: every file of make_archives.py with an `.around`,
 * whose name says how many bytes; whole, in ranges of members, and as members themselves. That the other archives there have nothing around
 * them tests/unit/dataset/unpack.c sees. */
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "dataset/source/unpack.h"

enum { LIST_BYTES_MAX = 1 << 20 };

static char folder[] = "/tmp/millrace-extent-XXXXXX";

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    char *command = mem_format("/usr/bin/python3 -B tests/unit/dataset/make_archives.py %s", folder);
    int code = system(command);
    free(command);
    return code;
}

static int tear_down(void **state) {
    (void)state;
    return folder_remove(folder);
}

static int read_file(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    return file_read_at(*(int *)arg, out, out_got, size_bytes, offset);
}

static struct byte_reader reader_open(int *fd, const char *name) {
    struct byte_reader reader = {read_file, fd, name, 0};
    char *path = mem_format("%s/%s", folder, name);
    assert_int_equal(file_open(fd, path), 0);
    assert_int_equal(file_size(&reader.size, path), 0);
    free(path);
    return reader;
}

static void add_member(struct buf *out, struct unpack *unpack, const char *name) {
    static uint8_t block[1 << 16];
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX];
    struct sha256 *sha = sha256_open();
    for (size_t got = 1; got > 0;) {
        assert_int_equal(unpack_read(unpack, block, &got, sizeof block), 0);
        sha256_add(sha, block, got);
    }
    sha256_finish(sha, digest);
    sha256_close(sha);
    hex_of(hex, digest, sizeof digest);
    buf_print(out, "%s\t%s\n", name, hex);
}

/* The members as lines "NAME\tSHA-256\n", and what lies around an archive as "NAME: BYTES\n". */
static void list(struct buf *out, struct unpack *unpack, bool read) {
    const char *name;
    int code;
    while ((code = unpack_next(unpack, &name)) != 0) {
        if (code > 0 && read) add_member(out, unpack, name);
        if (code > 0) continue;
        assert_int_equal(unpack_fault(unpack), UNPACK_AROUND);
        assert_non_null(strstr(err_text(), "belong to none of its members"));
        buf_print(out, "%s: %" PRIu64 "\n", unpack_name(unpack), unpack_pass(unpack));
    }
    unpack_close(unpack);
}

static void list_ranges(struct buf *out, const struct byte_reader *reader, bool read) {
    uint64_t *sizes = NULL;
    size_t count;
    struct unpack *unpack;
    assert_int_equal(unpack_index(&sizes, &count, reader), 0);
    if (count == 0) {
        assert_int_equal(unpack_open(&unpack, reader, 0, 0), 0);
        list(out, unpack, read);
    }
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(unpack_open(&unpack, reader, i, 1), 0);
        if (i + 1 == count) unpack_to_end(unpack);
        list(out, unpack, read);
    }
    free(sizes);
}

static void check(const char *name, const char *members) {
    int fd;
    struct byte_reader reader = reader_open(&fd, name);
    struct unpack *unpack;
    struct buf whole = {0}, ranges = {0}, unread = {0}, wanted = {0};
    uint64_t before, behind;
    assert_int_equal(sscanf(name, "%" SCNu64 "-%" SCNu64 "-", &before, &behind), 2);
    buf_print(&wanted, "%s: %" PRIu64 "\n", members, before + behind);
    assert_int_equal(unpack_open(&unpack, &reader, 0, 0), 0);
    list(&whole, unpack, true);
    list_ranges(&ranges, &reader, true);
    list_ranges(&unread, &reader, false);
    print_message("%s\n", name);
    assert_string_equal((char *)whole.data, (char *)wanted.data);
    assert_string_equal((char *)ranges.data, (char *)wanted.data);
    assert_string_equal((char *)unread.data, strstr((char *)wanted.data, "\n: ") + 1);
    buf_free(&whole), buf_free(&ranges), buf_free(&unread), buf_free(&wanted);
    close(fd);
}

static void what_lies_around_an_archive_is_told(void **state) {
    (void)state;
    char *command = mem_format("cd %s && ls *.around", folder), name[256];
    FILE *names = popen(command, "r");
    int files = 0;
    for (; fgets(name, sizeof name, names); files++) {
        struct buf members = {0};
        name[strcspn(name, "\n")] = 0;
        char *path = mem_format("%s/%s", folder, name);
        assert_int_equal(file_read(&members, path, LIST_BYTES_MAX), 0);
        *strrchr(name, '.') = 0;
        check(name, (char *)members.data);
        buf_free(&members);
        free(path);
    }
    pclose(names);
    free(command);
    assert_int_equal(files, 10);
}

static void an_archive_goes_on_behind_a_member_with_something_around_it(void **state) {
    (void)state;
    int fd;
    struct byte_reader reader = reader_open(&fd, "around.tar");
    struct unpack *unpack;
    struct buf out = {0};
    assert_int_equal(unpack_open(&unpack, &reader, 0, 0), 0);
    list(&out, unpack, true);
    assert_non_null(strstr((char *)out.data, "\ntwo.zip!d.txt\t"));
    assert_non_null(strstr((char *)out.data, "\ntwo.zip: 211\ndocs.7z.xz!")); /* one.txt's, and "behind" */
    assert_non_null(strstr((char *)out.data, "\ndocs.7z.xz: 6\nlast.txt\t"));
    buf_free(&out);
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_lies_around_an_archive_is_told),
        cmocka_unit_test(an_archive_goes_on_behind_a_member_with_something_around_it),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
