/* Globs of members: what glibc's extended patterns say, in a time that no name can make long. */
#include "dataset/ingest/members.h"

#include <fnmatch.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "tests/unit/random.h"

/* The same by an extended pattern, "*(*" before a slash and ")": it tries every way to share out the folders. */
static bool matches_slowly(const char *glob, const char *name) {
    char pattern[200], *end = pattern;
    for (; *glob; glob++) {
        bool folders = strncmp(glob, "**/", 3) == 0;
        size_t size = folders ? 5 : 1;
        memcpy(end, folders ? "*(*/)" : glob, size);
        end += size;
        glob += folders ? 2 : 0;
    }
    *end = 0;
    return fnmatch(pattern, name, FNM_EXTMATCH) == 0;
}

static void random_text(struct random *random, char *out, size_t count, const char *const *words, size_t pieces) {
    for (*out = 0; pieces > 0; pieces--) strcat(out, words[random_in(random, 0, count - 1)]);
}

static void globs_match_what_extended_patterns_match(void **state) {
    (void)state;
    struct random random = random_open("globs_match_what_extended_patterns_match");
    static const char *const glob_words[] = {"**/", "**/", "*", "?", "/", "/", "a", "b", "[ab]", "[!a]", "**", "\\a", "."};
    static const char *const name_words[] = {"a", "b", "/", "/", ".", "*"};
    size_t matched = 0;
    for (int i = 0; i < 200000; i++) {
        char glob[80], name[40];
        random_text(&random, glob, sizeof glob_words / sizeof *glob_words, glob_words, random_in(&random, 0, 7));
        random_text(&random, name, sizeof name_words / sizeof *name_words, name_words, random_in(&random, 0, 9));
        bool matches = matches_slowly(glob, name);
        if (members_match(glob, name) != matches) fail_msg("%s: %s: %d", glob, name, !matches);
        matched += matches;
    }
    assert_true(matched > 20000);
}

static void stars_and_a_slash_are_any_number_of_folders(void **state) {
    (void)state;
    static const struct {
        const char *glob, *name;
        bool matches;
    } cases[] = {
        {"**/x", "x", true},      {"**/x", "a/b/x", true},      {"**/x", "a/bx", false},         {"a/**/x", "a/x", true},
        {"a/**/x", "ax", false},  {"a/**/b/**/x", "a/b/x", true}, {"a/**/b/**/x", "a/c/b/c/x", true}, {"a/**/b/**/x", "a/c/x", false},
        {"*.txt", "a/b.txt", true}, {"\\**/x", "*a/x", true},     {"\\**/x", "x", false},           {"**/", "a/", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (members_match(cases[i].glob, cases[i].name) != cases[i].matches) fail_msg("%s: %s", cases[i].glob, cases[i].name);
}

/* Of processor time: the machine may be busy. */
static void a_deep_name_takes_no_time(void **state) {
    (void)state;
    enum { NAMES = 20, FOLDERS = 500, SECONDS_MAX = 5 };
    char deep[2 * FOLDERS + 2];
    for (size_t i = 0; i < FOLDERS; i++) memcpy(deep + 2 * i, "a/", 2);
    strcpy(deep + (size_t)2 * FOLDERS, "y");
    clock_t before = clock();
    for (int i = 0; i < NAMES; i++) assert_false(members_match("**/x", deep));
    assert_false(members_match("**/a/**/b/**/a/**/x", deep));
    assert_true(members_match("**/a/**/a/**/y", deep));
    assert_true((clock() - before) / CLOCKS_PER_SEC < SECONDS_MAX);
}

static void a_member_is_wanted_by_its_whole_name_or_its_last_part(void **state) {
    (void)state;
    static char *globs[] = {(char *)"*.md", (char *)"doc/**/a.txt", (char *)"odd[1].txt"};
    struct source_group group = {.members = {globs, 3}}, all = {0};
    static const char *const wanted[] = {"a.md", "b/a.md", "x.tar!b/a.md", "doc/a.txt", "doc/b/c/a.txt", "x.tar!doc/b/a.txt", "odd[1].txt",
                                         "x.tar!odd[1].txt"};
    static const char *const other[] = {"a.txt", "b/doc/a.txt", "a.md/b", "odd1.txt/b", "x.md!a.txt"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!members_want(&group, wanted[i])) fail_msg("%s", wanted[i]);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (members_want(&group, other[i]) || !members_want(&all, other[i])) fail_msg("%s", other[i]);
}

static void a_mark_in_a_members_own_name_is_a_letter_like_others(void **state) {
    (void)state;
    static char *globs[] = {(char *)"Yahoo*", (char *)"news/*/!*"};
    struct source_group group = {.members = {globs, 2}};
    static const char *const wanted[] = {"Yahoo!.txt", "docs/Yahoo!.txt", "x.tar!Yahoo!.txt", "x.tar!docs/Yahoo!.txt",
                                         "x.tar!y.zip!a/Yahoo!!", "a!b.tgz!Yahoo", "Yahoo!s.zip!a.txt", "x.tar!news/a/!b"};
    static const char *const other[] = {"docs!Yahoo.txt", "a/docs!Yahoo.txt", "x.tar!a!Yahoo.txt", "x.tar!Yahoo.tar!a.txt",
                                        "x.tar!docs/Yahoo!.zip!a.txt", "news!/a/!b"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!members_want(&group, wanted[i])) fail_msg("%s", wanted[i]);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (members_want(&group, other[i])) fail_msg("%s", other[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(globs_match_what_extended_patterns_match),
        cmocka_unit_test(stars_and_a_slash_are_any_number_of_folders),
        cmocka_unit_test(a_deep_name_takes_no_time),
        cmocka_unit_test(a_member_is_wanted_by_its_whole_name_or_its_last_part),
        cmocka_unit_test(a_mark_in_a_members_own_name_is_a_letter_like_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
