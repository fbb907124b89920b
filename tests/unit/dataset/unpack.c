/* What is inside a file: every kind of packing that make_archives.py knows, against its own lists; ranges of members; names; and damage,
 * which must end in an error or in the right bytes. */
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "dataset/source/unpack.h"
#include "dataset/source/unzstd.h"
#include "tests/unit/random.h"

enum { FILE_BYTES_MAX = 32 << 20, OUTPUT_BYTES_MAX = 16 << 20 /* read of a damaged file, whatever it claims to hold */ };

static char folder[] = "/tmp/millrace-unpack-XXXXXX";

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

/* A file in memory, and what was read of it. */
struct file {
    struct buf bytes;
    char *name;
    struct byte_reader reader;
    uint64_t read_bytes;
    int reads_left;  /* then it fails; negative: never */
    uint64_t ends_at;/* it has less than it said */
};

static int read_memory(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    struct file *file = arg;
    assert_true(size_bytes <= READER_BYTES_MAX && offset + size_bytes <= file->reader.size);
    if (file->reads_left == 0) return err_set(ERR_PEER, "the wire is cut");
    if (file->reads_left > 0) file->reads_left--;
    uint64_t end = offset + size_bytes < file->ends_at ? offset + size_bytes : file->ends_at;
    size_t got = end > offset ? (size_t)(end - offset) : 0;
    if (got) memcpy(out, file->bytes.data + offset, got);
    file->read_bytes += got, *out_got = got;
    return 0;
}

static void file_set(struct file *file) {
    file->reader = (struct byte_reader){read_memory, file, file->name, file->bytes.size};
    file->read_bytes = 0, file->reads_left = -1, file->ends_at = file->bytes.size;
}

static void held_open(struct file *file, const char *name) {
    *file = (struct file){.name = mem_text(name)};
    char *path = mem_format("%s/%s", folder, name);
    if (file_read(&file->bytes, path, FILE_BYTES_MAX) < 0) fail_msg("%s", err_text());
    free(path);
    file_set(file);
}

static void file_close(struct file *file) {
    buf_free(&file->bytes);
    free(file->name);
}

#define OTHER_MATTER "16 finished jobs wait"

/* Reads one member, in reads of random or of that size. The digest of its bytes goes to hex. */
static int read_member(char *hex, struct unpack *unpack, struct random *random, uint64_t *total) {
    static uint8_t block[1 << 17];
    struct sha256 *sha = sha256_open();
    uint8_t digest[SHA256_BYTES];
    size_t got = 1;
    int code = 0;
    while (code == 0 && got > 0 && *total < OUTPUT_BYTES_MAX) {
        size_t want = random ? (size_t)random_in(random, 1, random_in(random, 0, 3) ? sizeof block : 300) : sizeof block;
        err_set(ERR_LIMIT, OTHER_MATTER);
        code = unpack_read(unpack, block, &got, want);
        if (code == 0) assert_true(got <= want), sha256_add(sha, block, got), *total += got;
    }
    sha256_finish(sha, digest);
    sha256_close(sha);
    hex_of(hex, digest, sizeof digest);
    return code;
}

/* What failed fails again with the same words, whatever other errors there were in between. */
static void check_words(struct unpack *unpack, int code) {
    char *first = mem_text(err_text());
    uint8_t byte;
    const char *name;
    size_t got;
    if (strcmp(first, OTHER_MATTER) == 0) fail_msg("code %d with the words of another error", code);
    for (int i = 0; i < 2; i++) {
        err_set(ERR_LIMIT, OTHER_MATTER);
        assert_int_equal(i ? unpack_next(unpack, &name) : unpack_read(unpack, &byte, &got, 1), code);
        assert_string_equal(err_text(), first);
    }
    err_set(code, "%s", first);
    free(first);
}

/* Members [first, first + count) as lines "NAME\tSHA-256\n"; with random, in reads of random sizes; with skip, a member in three is not
 * read: "-" is its digest. */
static int list_opened(struct buf *out, struct file *file, struct unpack *unpack, struct random *random, bool skip) {
    uint64_t total = 0;
    const char *name;
    char hex[SHA256_HEX];
    int code;
    while (err_set(ERR_LIMIT, OTHER_MATTER), (code = unpack_next(unpack, &name)) == 1 && total < OUTPUT_BYTES_MAX) {
        assert_true(strlen(name) <= UNPACK_NAME_BYTES && unpack_used(unpack) <= file->reader.size);
        strcpy(hex, "-");
        char *kept = mem_text(name);
        if (!skip || random_in(random, 0, 2)) code = read_member(hex, unpack, random, &total);
        assert_string_equal(kept, name);
        free(kept);
        if (code < 0) break;
        assert_int_equal(buf_print(out, "%s\t%s\n", name, hex), 0);
    }
    if (code < 0) check_words(unpack, code);
    unpack_close(unpack);
    return code < 0 ? code : 0;
}

static int list(struct buf *out, struct file *file, uint64_t first, uint64_t count, struct random *random, bool skip) {
    struct unpack *unpack;
    TRY(unpack_open(&unpack, &file->reader, first, count));
    return list_opened(out, file, unpack, random, skip);
}

static int list_at(struct buf *out, struct file *file, uint64_t first, uint64_t count, uint64_t place) {
    struct unpack *unpack;
    enum unpack_fault fault;
    TRY(unpack_open_at(&unpack, &fault, &file->reader, first, count, place));
    return list_opened(out, file, unpack, NULL, false);
}

static const char *text_of(const struct buf *buf) { return buf->size ? (const char *)buf->data : ""; }

/* Calls check for each file that has a list of its members. */
static void for_each(void (*check)(struct file *file, const char *members, struct random *random), struct random *random) {
    char *command = mem_format("cd %s && ls *.members", folder), name[256];
    FILE *names = popen(command, "r");
    int count = 0;
    while (fgets(name, sizeof name, names)) {
        struct buf members = {0};
        struct file file;
        name[strcspn(name, "\n")] = 0;
        char *path = mem_format("%s/%s", folder, name);
        assert_int_equal(file_read(&members, path, FILE_BYTES_MAX), 0);
        *strrchr(name, '.') = 0;
        held_open(&file, name);
        check(&file, text_of(&members), random);
        file_close(&file);
        buf_free(&members);
        free(path);
        count++;
    }
    pclose(names);
    free(command);
    assert_true(count > 40);
}

static void check_whole(struct file *file, const char *members, struct random *random) {
    struct buf out = {0};
    if (list(&out, file, 0, 0, random, false) < 0) fail_msg("%s: %s", file->name, err_text());
    if (strcmp(text_of(&out), members) != 0) fail_msg("%s: got\n%swanted\n%s", file->name, text_of(&out), members);
    buf_free(&out);
}

static void every_kind_of_packing_gives_its_members_in_order(void **state) {
    (void)state;
    struct random random = random_open("order");
    for_each(check_whole, NULL);
    for_each(check_whole, &random);
}

static void names_do_not_depend_on_the_locale(void **state) {
    (void)state;
    static const char *const locales[] = {"C", "C.UTF-8", "POSIX"};
    for (int i = 0; i < 3; i++) {
        assert_non_null(setlocale(LC_ALL, locales[i]));
        for_each(check_whole, NULL);
    }
    setlocale(LC_ALL, "C");
}

static void check_skipping(struct file *file, const char *members, struct random *random) {
    struct buf out = {0};
    if (list(&out, file, 0, 0, random, true) < 0) fail_msg("%s: %s", file->name, err_text());
    const char *got = text_of(&out);
    for (const char *line = members; *line; line += strcspn(line, "\n") + 1, got += strcspn(got, "\n") + 1) {
        size_t name = strcspn(line, "\t");
        assert_memory_equal(line, got, name);
        if (got[name + 1] != '-') assert_memory_equal(line, got, strcspn(line, "\n"));
    }
    assert_int_equal(*got, 0);
    buf_free(&out);
}

static void a_member_that_is_not_read_leaves_the_others_as_they_are(void **state) {
    (void)state;
    struct random random = random_open("skipping");
    for_each(check_skipping, &random);
}

/* ---- Ranges of members ------------------------------------------------------------------------------------------------------- */

static void check_ranges(struct file *file, const char *members, struct random *random) {
    uint64_t *sizes = NULL, sum = 0;
    size_t count = 99;
    if (unpack_index(&sizes, &count, &file->reader) < 0) fail_msg("%s: %s", file->name, err_text());
    const char *suffix = strrchr(file->name, '.');
    if (strcmp(suffix, ".zip") != 0 && strcmp(suffix, ".tar") != 0) assert_int_equal(count, 0);
    for (size_t i = 0; i < count; i++) sum += sizes[i];
    if (count > 0) assert_int_equal(sum, file->reader.size);
    struct buf walked = {0}, placed = {0};
    uint64_t place = 0;
    for (uint64_t first = 0, n; first < count; first += n) {
        n = random_in(random, 1, count - first);
        int code = list(&walked, file, first, n, NULL, false);
        if (code == 0) code = list_at(&placed, file, first, n, place);
        if (code < 0) fail_msg("%s: %s", file->name, err_text());
        for (uint64_t i = first; i < first + n; i++) place += sizes[i];
    }
    if (count > 0) assert_string_equal(text_of(&walked), members);
    assert_string_equal(text_of(&walked), text_of(&placed));
    buf_free(&walked);
    buf_free(&placed);
    free(sizes);
}

static void ranges_of_members_are_together_the_whole(void **state) {
    (void)state;
    struct random random = random_open("ranges");
    for_each(check_ranges, &random);
}

static void a_range_is_reached_without_reading_what_is_before(void **state) {
    (void)state;
    static const char *const names[] = {"eight.zip", "eight.tar"};
    for (int i = 0; i < 2; i++) {
        struct file file;
        struct buf out = {0};
        uint64_t *sizes;
        size_t count;
        held_open(&file, names[i]);
        assert_int_equal(unpack_index(&sizes, &count, &file.reader), 0);
        assert_int_equal(count, 8);
        for (size_t k = 0; k < count; k++) assert_true(sizes[k] >= 1 << 20 && sizes[k] < (1 << 20) + 20000);
        assert_true(file.read_bytes < 1 << 19);
        file_set(&file);
        assert_int_equal(list(&out, &file, 6, 1, NULL, false), 0);
        assert_memory_equal(out.data, "6.bin\t", 6);
        assert_true(file.read_bytes > 1 << 20 && file.read_bytes < 5 << 19);
        buf_clear(&out);
        file_set(&file);
        uint64_t place = 0;
        for (int k = 0; k < 6; k++) place += sizes[k];
        assert_int_equal(list_at(&out, &file, 6, 1, place), 0);
        assert_memory_equal(out.data, "6.bin\t", 6);
        assert_true(file.read_bytes > 1 << 20 && file.read_bytes < 5 << 19);
        buf_free(&out);
        free(sizes);
        file_close(&file);
    }
}

static void a_range_that_is_not_there_any_more_is_told(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint64_t first, count;
    } cases[] = {{"pax.tar", 3, 3},   {"deflated.zip", 5, 1}, {"docs.tar.gz", 0, 1},        {"solid.7z", 0, 1},
                 {"plain.txt", 0, 1}, {"empty.txt", 0, 1},    {"pax.tar", UINT64_MAX, 1}, {"pax.tar", 1, UINT64_MAX}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct file file;
        struct buf out = {0};
        held_open(&file, cases[i].name);
        assert_int_equal(list(&out, &file, cases[i].first, cases[i].count, NULL, false), ERR_CORRUPT);
        assert_non_null(strstr(err_text(), "changed"));
        buf_free(&out);
        file_close(&file);
    }
    static const uint64_t places[] = {5, 512, 100000, UINT64_MAX}; /* within a header, in data, behind the end */
    for (int i = 0; i < 4; i++) {
        struct file file;
        struct buf out = {0};
        held_open(&file, "pax.tar");
        assert_int_equal(list_at(&out, &file, 2, 1, places[i]), ERR_CORRUPT);
        assert_non_null(strstr(err_text(), "changed"));
        buf_free(&out);
        file_close(&file);
    }
    struct file file;
    struct buf out = {0};
    held_open(&file, "pax.tar");
    assert_int_equal(list(&out, &file, 1, 0, NULL, false), ERR_CORRUPT);
    file_close(&file);
}

/* ---- Names ------------------------------------------------------------------------------------------------------------------- */

static void a_suffix_tells_what_to_unpack(void **state) {
    (void)state;
    static const char *const packed[] = {"a.gz", "a.txt.GZ", "/x/a.tar", "a.tar.xz", "a.tgz", "b.zip", "b.7z", "c.deb", "d.jsonl.zst",
                                         "e.Z", "https://example.org/a.tar.gz?download=1#top", "http://example.org/a.zip"};
    static const char *const plain[] = {"", "gz", ".gz", "a.txt", "a.gz.txt", "/x.gz/a", "a.gzip2", "a.gz?x",
                                        "https://example.org/a?b=c.gz"};
    static const struct {
        const char *name, *stem;
    } stems[] = {{"a.jsonl.gz", "a.jsonl"}, {"a.txt", "a.txt"}, {"a.csv.xz.zst", "a.csv"}, {"a.tar.gz", "a.tar"}, {".gz", ".gz"},
                 {"https://example.org/a.jsonl.zst?x=1.gz", "https://example.org/a.jsonl"}};
    for (size_t i = 0; i < sizeof packed / sizeof *packed; i++) assert_true(unpack_needed(packed[i]));
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) assert_false(unpack_needed(plain[i]));
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) {
        assert_int_equal(unpack_stem(stems[i].name), strlen(stems[i].stem));
        assert_memory_equal(stems[i].name, stems[i].stem, strlen(stems[i].stem));
    }
}

static void expect_failure(const char *name, int code, const char *word, const char *other) {
    struct file file;
    struct buf out = {0};
    held_open(&file, name);
    assert_int_equal(list(&out, &file, 0, 0, NULL, false), code);
    if (!strstr(err_text(), name) || !strstr(err_text(), word) || !strstr(err_text(), other))
        fail_msg("\"%s\" lacks %s, %s or %s", err_text(), name, word, other);
    buf_free(&out);
    file_close(&file);
}

/* Get it again: only where that helps. */
static void the_reason_is_told_and_what_helps(void **state) {
    (void)state;
    static const char *const suffixes[] = {"gz", "bz2", "xz", "zst", "lz4"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char *cut = mem_format("cut.%s", suffixes[i]), *flipped = mem_format("flipped.%s", suffixes[i]);
        expect_failure(cut, ERR_CORRUPT, "cut off: get it again", "");
        expect_failure(flipped, ERR_CORRUPT, "damaged", "get it again");
        free(cut), free(flipped);
    }
    static const char *const unfit[] = {"unfit-8.gz", "unfit-4.gz", "unfit-4.zst", "unfit-4.lz4", "unfit.zip"};
    for (size_t i = 0; i < sizeof unfit / sizeof *unfit; i++) /* where the damage is nobody knows */
        expect_failure(unfit[i], ERR_CORRUPT, "check value does not fit: text anywhere before may be wrong", "get it again");
    expect_failure("flipped.xz", ERR_CORRUPT, "text before may be wrong, too", "get it again");
    expect_failure("flipped.bz2", ERR_CORRUPT, "text before may be wrong, too", "get it again");
    expect_failure("more.gz", ERR_CORRUPT, "after the end of the gzip data comes something else", "");
    expect_failure("more.zst", ERR_CORRUPT, "after the end of the zstd data comes something else", "");
    expect_failure("dictionary.zst", ERR_UNSUPPORTED, "packed with a dictionary", "");
    assert_null(strstr(err_text(), "get it again"));
    expect_failure("encrypted.7z", ERR_UNSUPPORTED, "encrypted", "passwords");
    assert_null(strstr(err_text(), "get it again"));
}

static void all_that_comes_before_an_error_is_given(void **state) {
    (void)state;
    enum { FIRST = 11, TEXT = 198890, NOISE = 300000, LAST = 4 }; /* bytes of make_archives.py's texts */
    static const struct {
        const char *name;
        uint64_t bytes;
        int code;
        enum unpack_fault fault;
    } cases[] = {
        {"more.tar.gz", FIRST + TEXT + NOISE + LAST, ERR_CORRUPT, UNPACK_DAMAGED},
        {"refused-few.zst", 5, ERR_UNSUPPORTED, UNPACK_REFUSED},        {"refused-text.zst", TEXT, ERR_UNSUPPORTED, UNPACK_REFUSED},
        {"refused-noise.zst", NOISE, ERR_UNSUPPORTED, UNPACK_REFUSED},  {"refused-cut.tar.zst", 3, ERR_UNSUPPORTED, UNPACK_REFUSED},
        {"refused-text.xz", TEXT, ERR_UNSUPPORTED, UNPACK_REFUSED},     {"refused-inside.tar", 5 + TEXT, ERR_UNSUPPORTED, UNPACK_REFUSED},
        {"refused-docs.tar.zst", FIRST + TEXT + NOISE + LAST, ERR_UNSUPPORTED, UNPACK_REFUSED},
    };
    struct random random = random_open("before an error");
    for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
        struct file file;
        struct unpack *unpack;
        const char *name, *file_name = cases[i / 2].name;
        char hex[SHA256_HEX];
        uint64_t total = 0;
        int code = 1;
        held_open(&file, file_name);
        if (unpack_open(&unpack, &file.reader, 0, 0) < 0) fail_msg("%s: %s", file_name, err_text());
        while (code >= 0 && (code = unpack_next(unpack, &name)) == 1) code = read_member(hex, unpack, i % 2 ? &random : NULL, &total);
        if (code != cases[i / 2].code || unpack_fault(unpack) != cases[i / 2].fault || total != cases[i / 2].bytes)
            fail_msg("%s: %d after %zu bytes: %s", file_name, code, (size_t)total, err_text());
        check_words(unpack, code);
        unpack_close(unpack);
        file_close(&file);
    }
}

static void a_large_window_is_read_where_there_is_memory(void **state) {
    (void)state;
    static const struct {
        uint64_t mebibytes;
        int log;
    } known[] = {{0, 27}, {300, 27}, {341, 27}, {342, 28}, {682, 28}, {683, 29}, {2730, 30}, {2731, 31}, {1 << 20, 31}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) assert_int_equal(unzstd_window_log(known[i].mebibytes << 20), known[i].log);
    struct file file;
    struct buf out = {0};
    held_open(&file, "largest-window.zst"); /* takes as much of it as there is text; where so much is not free, it says so */
    int code = list(&out, &file, 0, 0, NULL, false);
    if (code < 0 && !strstr(err_text(), "a window of more than")) fail_msg("%s", err_text());
    for (int log = UNZSTD_WINDOW_LOG; log <= UNZSTD_WINDOW_LOG_MAX; log += 4) {
        static uint8_t text[1 << 20];
        struct unzstd *unzstd = unzstd_open(log);
        size_t got, taken;
        code = unzstd_step(unzstd, text, &got, sizeof text, file.bytes.data, &taken, file.bytes.size);
        if (log == UNZSTD_WINDOW_LOG) {
            assert_int_equal(code, ERR_MEMORY);
            assert_non_null(strstr(err_text(), "a window of more than 128 MiB"));
            assert_null(strstr(err_text(), "get it again"));
        } else if (code != ERR_MEMORY) {
            assert_int_equal(code, 0);
            assert_true(taken == file.bytes.size && unzstd_whole(unzstd) && memcmp(text, "0: the quick", 12) == 0);
        }
        unzstd_close(unzstd);
    }
    buf_free(&out);
    file_close(&file);
}

static void archives_within_archives_have_a_limit(void **state) {
    (void)state;
    struct file file;
    struct buf out = {0};
    held_open(&file, "deep-8.tar");
    assert_int_equal(list(&out, &file, 0, 0, NULL, false), 0);
    assert_memory_equal(out.data, "a.tar!a.tar!a.tar!a.tar!a.tar!a.tar!a.tar!a.txt\t", 48);
    buf_free(&out);
    file_close(&file);
    expect_failure("deep-9.tar", ERR_LIMIT, "too many archives", "a.tar!a.tar");
    struct unpack *unpack;
    const char *name;
    held_open(&file, "deep-between.tar");
    assert_int_equal(unpack_open(&unpack, &file.reader, 0, 0), 0);
    assert_int_equal(unpack_next(unpack, &name), 1);
    assert_int_equal(unpack_next(unpack, &name), ERR_LIMIT); /* it is left out, wherever it is read */
    assert_int_equal(unpack_fault(unpack), UNPACK_PASSABLE);
    assert_string_equal(unpack_name(unpack), "a.tar!a.tar!a.tar!a.tar!a.tar!a.tar!a.tar!a.tar");
    assert_true(unpack_pass(unpack) > 0);
    assert_int_equal(unpack_next(unpack, &name), 1);
    assert_string_equal(name, "last.txt");
    assert_int_equal(unpack_next(unpack, &name), 0);
    unpack_close(unpack);
    file_close(&file);
    expect_failure("inner.tar", ERR_UNSUPPORTED, "docs.dat.gz", "name");
}

static int open_descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < 256; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Reads sought.tar with temporary files of at most that many bytes together. */
static int list_with_room(struct buf *out, uint64_t spool_bytes, int (*tick)(void *), void *tick_arg) {
    struct file file;
    struct unpack *unpack;
    held_open(&file, "sought.tar");
    assert_int_equal(unpack_open(&unpack, &file.reader, 0, 0), 0);
    if (spool_bytes) unpack_limit_spool(unpack, spool_bytes);
    unpack_tick(unpack, tick, tick_arg);
    int code = list_opened(out, &file, unpack, NULL, false);
    file_close(&file);
    return code;
}

static int count_down(void *arg) { return --*(int *)arg == 0; }

static void what_has_to_be_sought_takes_bounded_room(void **state) {
    (void)state;
    struct buf out = {0};
    const int before = open_descriptors();
    assert_int_equal(list_with_room(&out, 0, NULL, NULL), 0);
    uint64_t low = 1, high = 16 << 20; /* the least room that will do: what the largest of them has, not all together */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        buf_clear(&out);
        int code = list_with_room(&out, middle, NULL, NULL);
        if (code == 0) high = middle;
        else low = middle + 1;
        if (code == 0) continue;
        assert_int_equal(code, ERR_LIMIT);
        assert_non_null(strstr(err_text(), "sought.tar: "));
        assert_non_null(strstr(err_text(), "unpack it first"));
    }
    print_message("%llu bytes\n", (unsigned long long)low);
    struct file file;
    struct unpack *unpack;
    const char *name;
    int passed = 0, code;
    held_open(&file, "sought.tar");
    assert_int_equal(unpack_open(&unpack, &file.reader, 0, 0), 0);
    unpack_limit_spool(unpack, 1000);
    while ((code = unpack_next(unpack, &name)) != 0) {
        if (code < 0) assert_int_equal(unpack_fault(unpack), UNPACK_PASSABLE), unpack_pass(unpack), passed++;
        else assert_null(strchr(name, '!'));
    }
    assert_int_equal(passed, 4); /* docs.7z, piped.zip, docs.7z.xz, b.zip.gz.bz2 */
    unpack_close(unpack);
    file_close(&file);
    assert_true(low > 300000 && low < 600000);
    assert_int_equal(open_descriptors(), before);
    buf_free(&out);
}

static void room_that_is_not_there_is_told(void **state) {
    (void)state;
    struct buf out = {0};
    const struct rlimit little = {4096, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    sigaction(SIGXFSZ, &ignore, &old);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    int code = list_with_room(&out, 0, NULL, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    sigaction(SIGXFSZ, &old, NULL);
    assert_true(code < 0 && code != ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "sought.tar: docs.7z: "));
    assert_non_null(strstr(err_text(), "TMPDIR"));
    setenv("TMPDIR", "/no/such/folder", 1);
    code = list_with_room(&out, 0, NULL, NULL);
    unsetenv("TMPDIR");
    assert_true(code < 0 && code != ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "/no/such/folder"));
    buf_free(&out);
}

static void reading_ticks_and_stops_when_told(void **state) {
    (void)state;
    struct buf out = {0};
    int left = INT_MAX;
    assert_int_equal(list_with_room(&out, 0, count_down, &left), 0);
    const int ticks = INT_MAX - left;
    assert_true(ticks > 20);
    for (int stop = 1; stop <= ticks; stop++) {
        left = stop;
        buf_clear(&out);
        assert_int_equal(list_with_room(&out, 0, count_down, &left), ERR_INTERRUPTED);
    }
    buf_free(&out);
}

static void what_is_encrypted_is_named_and_can_be_passed_over(void **state) {
    (void)state;
    expect_failure("encrypted.zip", ERR_UNSUPPORTED, "secret.txt", "encrypted");
    expect_failure("encrypted.7z", ERR_UNSUPPORTED, ": c.bin: ", "encrypted");
    expect_failure("names-encrypted.7z", ERR_UNSUPPORTED, "encrypted", "");
    struct file file;
    struct unpack *unpack;
    const char *name;
    char bytes[8];
    size_t got;
    held_open(&file, "encrypted.zip");
    assert_int_equal(unpack_open(&unpack, &file.reader, 0, 0), 0);
    assert_int_equal(unpack_next(unpack, &name), 1);
    assert_int_equal(unpack_next(unpack, &name), 1);
    assert_string_equal(name, "open.txt");
    assert_int_equal(unpack_read(unpack, bytes, &got, sizeof bytes), 0);
    assert_int_equal(got, 4);
    assert_int_equal(unpack_next(unpack, &name), 0);
    unpack_close(unpack);
    file_close(&file);
}

/* Zeros without an end out of a few bytes: the archive's other members are read. */
static void a_member_of_endless_holes_can_be_passed_over(void **state) {
    (void)state;
    static const char *const names[] = {"endless.tar", "endless-later.tar", "endless-packed.tar"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct file file;
        struct unpack *unpack;
        const char *name;
        char bytes[8];
        size_t got;
        held_open(&file, names[i]);
        assert_int_equal(unpack_open(&unpack, &file.reader, 0, 0), 0);
        assert_int_equal(unpack_next(unpack, &name), 1);
        int code = unpack_next(unpack, &name);
        if (code == 1) code = unpack_read(unpack, bytes, &got, sizeof bytes);
        assert_int_equal(code, ERR_UNSUPPORTED);
        assert_non_null(strstr(err_text(), ": a.t"));
        assert_non_null(strstr(err_text(), "sparse"));
        assert_int_equal(unpack_fault(unpack), UNPACK_PASSABLE);
        assert_true(unpack_pass(unpack) > UINT64_C(1) << 60);
        assert_int_equal(unpack_next(unpack, &name), 1);
        assert_string_equal(name, "after.txt");
        unpack_close(unpack);
        file_close(&file);
    }
}

static void what_a_folder_holds_is_named_and_can_be_passed_over(void **state) {
    (void)state;
    expect_failure("folder.zip", ERR_UNSUPPORTED, "docs/not/", "no file, though it holds bytes");
    struct file file;
    struct unpack *unpack;
    const char *name;
    char byte;
    size_t got;
    held_open(&file, "folder.zip");
    assert_int_equal(unpack_open(&unpack, &file.reader, 0, 0), 0);
    assert_int_equal(unpack_next(unpack, &name), 1);
    assert_int_equal(unpack_read(unpack, &byte, &got, 1), ERR_UNSUPPORTED);
    assert_int_equal(unpack_fault(unpack), UNPACK_PASSABLE);
    assert_int_equal(unpack_pass(unpack), 25);
    assert_int_equal(unpack_next(unpack, &name), 1);
    assert_string_equal(name, "last.txt");
    unpack_close(unpack);
    file_close(&file);
}

/* ---- Damage ------------------------------------------------------------------------------------------------------------------ */

/* Is every change of a byte found, or without effect? tar, ar and cpio have no digests of what is in them, and a .7z none of its first
 * bytes' version; lzma and the stream of a raw text have none at all. */
static bool has_digests(const char *name) {
    static const char *const suffixes[] = {".gz", ".bz2", ".xz", ".zst", ".lz4"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (strcmp(strrchr(name, '.'), suffixes[i]) == 0) return strcmp(name, "plain.gz") != 0;
    return false;
}

/* Several packed files one behind the other are one, and so are the first of them: the program that packed them knows where each ends. */
static bool ends_whole(const struct file *file, uint64_t size) {
    const char *suffix = strrchr(file->name, '.');
    const char *program = strcmp(suffix, ".xz") == 0 ? "xz" : strcmp(suffix, ".gz") == 0 ? "gzip" : "zstd";
    char *command = mem_format("head -c %zu '%s/%s' | %s -tq 2>/dev/null", (size_t)size, folder, file->name, program);
    int code = strncmp(file->name, "several.", 8) == 0 ? system(command) : 1;
    free(command);
    return code == 0;
}

static void check_cut(struct file *file, const char *members, struct random *random) {
    for (int i = 0; i < 6 && file->bytes.size > 1; i++) {
        struct buf out = {0};
        file_set(file);
        file->reader.size = i == 0 ? file->bytes.size - 1 : random_in(random, 1, file->bytes.size - 1);
        int code = list(&out, file, 0, 0, random, false);
        if (code != 0 && code != ERR_CORRUPT && code != ERR_UNSUPPORTED) fail_msg("%s: %d %s", file->name, code, err_text());
        bool magic = file->reader.size > 20; /* a shorter one is a text */
        bool told = code != 0 || strcmp(text_of(&out), members) == 0;
        if (has_digests(file->name) && magic && !told && !ends_whole(file, file->reader.size))
            fail_msg("%s cut to %zu is not noticed", file->name, (size_t)file->reader.size);
        buf_free(&out);
    }
}

static void a_file_that_is_cut_off_is_not_taken_for_a_whole_one(void **state) {
    (void)state;
    struct random random = random_open("cut");
    for_each(check_cut, &random);
}

static void check_changed(struct file *file, const char *members, struct random *random) {
    if (file->bytes.size == 0) return;
    for (int i = 0; i < 25; i++) {
        struct buf out = {0};
        size_t at[8], changes = (size_t)random_in(random, 1, i % 2 ? 1 : 8);
        uint8_t before[8];
        for (size_t k = 0; k < changes; k++) {
            uint64_t span = random_in(random, 0, 1) && file->bytes.size > 600 ? 600 : file->bytes.size; /* headers, and the rest */
            at[k] = (size_t)random_in(random, 0, span - 1);
            if (random_in(random, 0, 3) == 0) at[k] = file->bytes.size - 1 - at[k];
            before[k] = file->bytes.data[at[k]];
            file->bytes.data[at[k]] = (uint8_t)(random_in(random, 0, 1) ? random_next(random) : before[k] ^ 1u << random_in(random, 0, 7));
        }
        int code = list(&out, file, 0, 0, NULL, false);
        if (code != 0 && code != ERR_CORRUPT && code != ERR_UNSUPPORTED && code != ERR_LIMIT)
            fail_msg("%s: %d %s", file->name, code, err_text());
        bool magic = at[0] > 14 && changes == 1; /* what says that it is packed may say so no longer */
        if (code == 0 && has_digests(file->name) && magic && strcmp(text_of(&out), members) != 0)
            fail_msg("%s: byte %zu from %02x to %02x is not noticed", file->name, at[0], before[0], file->bytes.data[at[0]]);
        buf_free(&out);
        for (size_t k = changes; k-- > 0;) file->bytes.data[at[k]] = before[k];
    }
}

static void a_changed_byte_ends_in_an_error_or_in_the_right_text(void **state) {
    (void)state;
    struct random random = random_open("changes");
    for_each(check_changed, &random);
}

static void a_reader_that_fails_ends_with_its_own_error(void **state) {
    (void)state;
    static const char *const names[] = {"plain.txt", "noise.gz",     "docs.tar.xz",    "deflated.zip",
                                        "solid.7z",  "mixed.tar.gz", "openwebtext.tar"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct file file;
        held_open(&file, names[i]);
        for (int reads = 0, code = -1; code != 0; reads++) {
            struct buf out = {0};
            file_set(&file);
            file.reads_left = reads;
            code = list(&out, &file, 0, 0, NULL, false);
            assert_true(code == ERR_PEER || (code == 0 && reads > 0));
            if (code != 0) assert_string_equal(err_text(), "the wire is cut");
            buf_free(&out);
        }
        file_set(&file);
        file.ends_at = file.bytes.size - 1;
        struct buf out = {0};
        assert_int_equal(list(&out, &file, 0, 0, NULL, false), ERR_CORRUPT);
        assert_non_null(strstr(err_text(), "it changed"));
        buf_free(&out);
        file_close(&file);
    }
}

static void an_error_stays(void **state) {
    (void)state;
    struct file file;
    struct unpack *unpack;
    const char *name;
    char byte;
    size_t got;
    held_open(&file, "pax.tar");
    assert_int_equal(unpack_open(&unpack, &file.reader, 0, 0), 0);
    assert_int_equal(unpack_next(unpack, &name), 1);
    file.reads_left = 0;
    int code;
    while ((code = unpack_next(unpack, &name)) == 1) {}
    assert_int_equal(code, ERR_PEER);
    file.reads_left = -1;
    assert_int_equal(unpack_next(unpack, &name), ERR_PEER);
    assert_int_equal(unpack_read(unpack, &byte, &got, 1), ERR_PEER);
    unpack_close(unpack);
    unpack_close(NULL);
    file_close(&file);
}

static void a_hundred_megabytes_out_of_fifteen_kilobytes_need_little_memory(void **state) {
    (void)state;
    struct file file;
    struct unpack *unpack;
    struct rusage before, after;
    const char *name;
    uint64_t total = 0;
    size_t got = 1;
    uint8_t *block = mem_alloc(1 << 20);
    held_open(&file, "bomb.xz");
    getrusage(RUSAGE_SELF, &before);
    assert_int_equal(unpack_open(&unpack, &file.reader, 0, 0), 0);
    assert_int_equal(unpack_next(unpack, &name), 1);
    for (; got > 0; total += got) assert_int_equal(unpack_read(unpack, block, &got, 1 << 20), 0);
    assert_int_equal(total, 100000000);
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 30 << 10);
    unpack_close(unpack);
    free(block);
    file_close(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_packing_gives_its_members_in_order),
        cmocka_unit_test(names_do_not_depend_on_the_locale),
        cmocka_unit_test(a_member_that_is_not_read_leaves_the_others_as_they_are),
        cmocka_unit_test(ranges_of_members_are_together_the_whole),
        cmocka_unit_test(a_range_is_reached_without_reading_what_is_before),
        cmocka_unit_test(a_range_that_is_not_there_any_more_is_told),
        cmocka_unit_test(a_suffix_tells_what_to_unpack),
        cmocka_unit_test(the_reason_is_told_and_what_helps),
        cmocka_unit_test(all_that_comes_before_an_error_is_given),
        cmocka_unit_test(a_large_window_is_read_where_there_is_memory),
        cmocka_unit_test(archives_within_archives_have_a_limit),
        cmocka_unit_test(what_has_to_be_sought_takes_bounded_room),
        cmocka_unit_test(room_that_is_not_there_is_told),
        cmocka_unit_test(reading_ticks_and_stops_when_told),
        cmocka_unit_test(what_is_encrypted_is_named_and_can_be_passed_over),
        cmocka_unit_test(a_member_of_endless_holes_can_be_passed_over),
        cmocka_unit_test(what_a_folder_holds_is_named_and_can_be_passed_over),
        cmocka_unit_test(a_file_that_is_cut_off_is_not_taken_for_a_whole_one),
        cmocka_unit_test(a_changed_byte_ends_in_an_error_or_in_the_right_text),
        cmocka_unit_test(a_reader_that_fails_ends_with_its_own_error),
        cmocka_unit_test(an_error_stays),
        cmocka_unit_test(a_hundred_megabytes_out_of_fifteen_kilobytes_need_little_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
