/* Entries of dataset.sources to files: what is found, in which order, and what is refused. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/source/local.h"
#include "dataset/source/sources.h"
#include "tests/unit/broken_folder.h"
#include "tests/unit/dataset/web.h"
#include "tests/unit/random.h"

enum { PATHS_MAX = 8 };

static char folder[] = "/tmp/millrace-sources-XXXXXX";
static struct web web;

static void put(const char *name, const char *text) {
    char *path = mem_format("%s/%s", folder, name), *slash = strrchr(path, '/');
    *slash = 0;
    assert_int_equal(folder_make(path), 0);
    *slash = '/';
    assert_int_equal(file_publish(path, text, strlen(text)), 0);
    free(path);
}

static void relate(int (*make)(const char *target, const char *path), const char *target, const char *name) {
    char *path = mem_format("%s/%s", folder, name);
    assert_int_equal(make(target, path), 0);
    free(path);
}

static int pipe_at(const char *unused, const char *path) {
    (void)unused;
    return mkfifo(path, 0600);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    static const char *const names[] = {"a.txt",      "b.txt",  "a/1.txt", "a/b/2.txt",        "a-b/3.txt",    "a/.hidden",
                                        ".git/x.txt", "a/B.md", "z/é.txt", "odd/has?mark.txt", "piped/ok.txt", "broken/ok.txt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) put(names[i], names[i]);
    put("empty/.only-hidden", "");
    put("nothing.txt", "");
    relate(symlink, "a", "linked");
    relate(symlink, "../a.txt", "z/link.txt");
    relate(symlink, "../a", "z/folder");
    relate(symlink, "nowhere", "broken/link.txt");
    relate(pipe_at, NULL, "piped/pipe");
    return web_start(&web, folder);
}

static int tear_down(void **state) {
    (void)state;
    web_stop(&web);
    return folder_remove(folder);
}

/* Entries from a text: paths separated by spaces, entries by " | "; a path that begins with "@" is one of the web server's. */
struct entries {
    struct source_group *group;
    size_t count;
};

static struct entries entries_of(const char *text) {
    struct entries entries = {mem_alloc(PATHS_MAX * sizeof(struct source_group)), 1};
    char *words = mem_text(text), *rest = words;
    for (char *word; (word = strsep(&rest, " "));) {
        struct source_group *group = &entries.group[entries.count - 1];
        if (strcmp(word, "|") == 0) {
            entries.count++;
            continue;
        }
        if (!group->paths.item) {
            group->paths.item = mem_alloc(PATHS_MAX * sizeof(char *));
            group->name = mem_format("entry-%zu", entries.count);
        }
        char *path = *word == '@' ? web_url(&web, "plain", word + 1) : mem_format("%s/%s", folder, word);
        group->paths.item[group->paths.count++] = path;
    }
    free(words);
    return entries;
}

static void entries_free(struct entries *entries) {
    for (size_t i = 0; i < entries->count; i++) {
        struct source_group *group = &entries->group[i];
        for (size_t k = 0; k < group->paths.count; k++) free(group->paths.item[k]);
        free(group->paths.item);
        free(group->name);
    }
    free(entries->group);
}

static int find(struct sources *out, const char *text) {
    struct entries entries = entries_of(text);
    int code = sources_find(out, entries.group, entries.count, NULL);
    entries_free(&entries);
    return code;
}

/* What was found, as "GROUP:NAME GROUP:NAME": names relative to the folder, "@" for the web server's. */
static char *shown(const struct sources *sources) {
    struct buf out = {0};
    char *server = web_url(&web, "plain", "");
    for (size_t i = 0; i < sources->count; i++) {
        const struct source *source = &sources->source[i];
        const char *name = source->is_url ? source->path + strlen(server) : source->path + strlen(folder) + 1;
        assert_int_equal(buf_print(&out, "%s%u:%s%s", i ? " " : "", source->group, source->is_url ? "@" : "", name), 0);
    }
    free(server);
    return (char *)out.data;
}

static void expect(const char *text, const char *wanted) {
    struct sources sources;
    if (find(&sources, text) < 0) fail_msg("%s: %s", text, err_text());
    char *got = shown(&sources);
    if (strcmp(got, wanted) != 0) fail_msg("%s: got %s, wanted %s", text, got, wanted);
    free(got);
    sources_free(&sources);
}

static void expect_failure(const char *text, int code, const char *word, const char *other) {
    struct sources sources = {.count = 77};
    int got = find(&sources, text);
    if (got != code || !strstr(err_text(), word) || !strstr(err_text(), other))
        fail_msg("%s: %d, \"%s\" lacks %s or %s", text, got, err_text(), word, other);
    assert_int_equal(sources.count, 77);
}

static void files_folders_and_globs_are_found_in_order(void **state) {
    (void)state;
    expect("a.txt", "0:a.txt");
    expect("b.txt a.txt", "0:b.txt 0:a.txt");
    expect("*.txt", "0:a.txt 0:b.txt 0:nothing.txt");
    expect("[ab].t?t", "0:a.txt 0:b.txt");
    expect("a", "0:a/1.txt 0:a/B.md 0:a/b/2.txt");
    expect("a//", "0:a/1.txt 0:a/B.md 0:a/b/2.txt");
    expect("a*/*", "0:a-b/3.txt 0:a/1.txt 0:a/B.md");
    expect("a*/b", "0:a/b/2.txt");
    expect("a/**", "0:a/1.txt 0:a/B.md 0:a/b/2.txt");
    expect("a/**/*.txt", "0:a/1.txt 0:a/b/2.txt");
    expect("a/**/b/**/*.txt", "0:a/b/2.txt");
    expect("**/?.txt", "0:a-b/3.txt 0:a.txt 0:a/1.txt 0:a/b/2.txt 0:b.txt");
    expect("odd/has[?]mark.txt", "0:odd/has?mark.txt");
}

static void names_with_a_dot_and_links_to_folders_must_be_named(void **state) {
    (void)state;
    expect("a/.hidden", "0:a/.hidden");
    expect("a/.h*", "0:a/.hidden");
    expect(".git", "0:.git/x.txt");
    expect("linked", "0:linked/1.txt 0:linked/B.md 0:linked/b/2.txt");
    expect("z", "0:z/link.txt 0:z/é.txt");
    expect("z/*/1.txt", "0:z/folder/1.txt");
    expect("z/**/*.txt", "0:z/link.txt 0:z/é.txt");
}

static void a_file_counts_once_at_its_first_place(void **state) {
    (void)state;
    expect("b.txt *.txt", "0:b.txt 0:a.txt 0:nothing.txt");
    expect("a/b/2.txt a/1.txt a | a-b a/1.txt", "0:a/b/2.txt 0:a/1.txt 0:a/B.md 1:a-b/3.txt");
    expect("b.txt | *.txt | a-b", "0:b.txt 1:a.txt 1:nothing.txt 2:a-b/3.txt");
    expect_failure("*.txt | b.txt", ERR_CONFIG, "entry-2", "/b.txt): all of its files belong to entries before");
}

static void urls_are_asked_for_size_and_version(void **state) {
    (void)state;
    struct sources sources, again;
    expect("b.txt @a.txt @b.txt | @a.txt a.txt", "0:b.txt 0:@a.txt 0:@b.txt 1:a.txt");
    assert_int_equal(find(&sources, "@b.txt a.txt"), 0);
    assert_int_equal(find(&again, "@a.txt"), 0);
    assert_true(sources.source[0].size == 5 && sources.source[0].is_url && !sources.source[1].is_url);
    assert_true(sources.source[0].version == again.source[0].version); /* all that this server tells is the same */
    sources_free(&sources);
    sources_free(&again);
    char *url = web_url(&web, "missing", "x.txt");
    struct source_group group = {.name = "one", .paths = {&url, 1}};
    assert_int_equal(sources_find(&sources, &group, 1, NULL), ERR_NOTFOUND);
    assert_non_null(strstr(err_text(), "dataset.sources"));
    free(url);
}

static void what_is_not_there_or_no_file_is_named(void **state) {
    (void)state;
    expect_failure("no.txt", ERR_CONFIG, "no.txt", "no such file");
    expect_failure("a.txt/x", ERR_CONFIG, "a.txt/x", "no such file");
    expect_failure("a.txt no*.md", ERR_CONFIG, "no*.md", "matches no file");
    expect_failure("no.txt a.txt | no*.md", ERR_CONFIG, "no.txt: no such file or folder\n", "no*.md\" matches no file"); /* all of them */
    expect_failure("a.txt b.txt | b.txt | a.txt", ERR_CONFIG, "entry-2", "entry-3");
    expect_failure("no/*/x", ERR_CONFIG, "no/*/x", "matches no file");
    expect_failure("empty", ERR_CONFIG, "empty", "no file is in");
    expect_failure("piped/pipe", ERR_CONFIG, "piped/pipe is a pipe", "standard input");
    expect("piped broken", "0:piped/ok.txt 0:broken/ok.txt"); /* what is found beside them is taken */
    expect_failure("broken/link.txt", ERR_CONFIG, "broken/link.txt", "no such file");
    struct source_group device = {.name = "one", .paths = {(char *[]){(char *)"/dev/null"}, 1}};
    struct sources sources;
    assert_int_equal(sources_find(&sources, &device, 1, NULL), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "a device"));
}

static void a_file_that_cannot_be_read_is_named(void **state) {
    (void)state;
    enum { NOBODY = 65534 };
    put("closed/a.txt", "x");
    char *path = mem_format("%s/closed/a.txt", folder);
    assert_true(chmod(path, 0) == 0 && chmod(folder, 0755) == 0);
    pid_t pid = fork();
    if (pid == 0) { /* root can read everything */
        if (geteuid() == 0 && setresuid(NOBODY, NOBODY, NOBODY) != 0) _exit(2);
        struct sources sources;
        int code = find(&sources, "closed");
        _exit(code != ERR_DENIED || !strstr(err_text(), path) || !strstr(err_text(), "Permission denied"));
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    free(path);
}

/* The version of a file of that text and modification time, found among the sources. */
static uint64_t version_of(const char *text, long nanoseconds) {
    const struct timespec times[2] = {{1000, 1}, {2000, nanoseconds}};
    char *path = mem_format("%s/changing.txt", folder);
    struct sources sources;
    put("changing.txt", text);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(find(&sources, "changing.txt"), 0);
    assert_int_equal(sources.source[0].size, strlen(text));
    uint64_t version = sources.source[0].version;
    sources_free(&sources);
    free(path);
    return version;
}

static void the_version_is_another_when_the_file_is_changed(void **state) {
    (void)state;
    uint64_t version = version_of("text", 5);
    assert_true(version_of("text", 6) != version && version_of("texts", 5) != version && version_of("texts", 5) != version_of("text", 6));
    assert_true(version_of("Text", 5) == version); /* of a copy elsewhere, too */
}

/* What happens to a file between two looks at it. */
static int append_text(const char *path, const char *text) {
    FILE *file = fopen(path, "a");
    return file && fputs(text, file) >= 0 && fclose(file) == 0 ? 0 : -1;
}
static void append(const char *path) { assert_int_equal(append_text(path, "more"), 0); }
static void shorten(const char *path) { assert_int_equal(truncate(path, 2), 0); }
static void overwrite(const char *path) {
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, "T", 1, 0) == 1);
    const struct timespec times[2] = {{1000, 1}, {2000, 5}}; /* its time of modification is put back */
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
}
static void replace(const char *path) {
    char *other = mem_format("%s.new", path);
    assert_int_equal(append_text(other, "Text"), 0);
    const struct timespec times[2] = {{1000, 1}, {2000, 5}};
    assert_int_equal(utimensat(AT_FDCWD, other, times, 0), 0);
    assert_int_equal(rename(other, path), 0);
    free(other);
}
static void take_away(const char *path) { assert_int_equal(unlink(path), 0); }

static void a_source_that_changes_in_any_way_is_named(void **state) {
    (void)state;
    static const struct {
        void (*change)(const char *path);
        const char *says;
    } cases[] = {{append, "grew"}, {shorten, "shorter"}, {overwrite, "changed"}, {replace, "replaced"}, {take_away, "removed"}};
    char *path = mem_format("%s/changing.txt", folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sources sources;
        struct local *local;
        char text[8];
        size_t got;
        (void)unlink(path);
        version_of("text", 5);
        assert_int_equal(find(&sources, "changing.txt"), 0);
        Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT;
        part.name = path, part.size = 4, part.version = sources.source[0].version;
        assert_int_equal(local_open(&local, &part, NULL, NULL), 0);
        struct byte_reader reader = local_reader(local);
        assert_int_equal(reader.read(reader.arg, text, &got, 2, 0), 0);
        assert_int_equal(identity_check(&sources.source[0].identity, path, -1) | local_check(local), 0);
        cases[i].change(path);
        assert_int_equal(local_check(local), ERR_CORRUPT);
        assert_true(strstr(err_text(), path) && strstr(err_text(), cases[i].says));
        assert_int_equal(identity_check(&sources.source[0].identity, path, -1), ERR_CORRUPT);
        assert_true(strstr(err_text(), path) && strstr(err_text(), cases[i].says));
        local_close(local);
        sources_free(&sources);
    }
    free(path);
}

/* As many other bytes, written at once after a file was found, are seen: the kernel's clock of files has moved on by then. */
static void a_source_that_was_found_is_older_than_a_tick(void **state) {
    (void)state;
    struct sources sources;
    put("changing.txt", "text");
    assert_int_equal(find(&sources, "changing.txt"), 0);
    assert_false(identity_is_fresh(&sources.source[0].identity, clock_wall_ms()));
    sources_free(&sources);
}

/* The path has the file again that was found, but what was read is another one. */
static void a_file_that_was_another_one_for_a_moment_is_named(void **state) {
    (void)state;
    char *path = mem_format("%s/changing.txt", folder), *aside = mem_format("%s/changing.aside", folder);
    struct stat st;
    (void)unlink(path);
    version_of("text", 5);
    assert_int_equal(stat(path, &st), 0);
    struct file_identity found = identity_of(&st);
    assert_int_equal(link(path, aside), 0);
    replace(path);
    int fd = open(path, O_RDONLY);
    assert_int_equal(rename(aside, path), 0);
    assert_int_equal(stat(path, &st), 0);
    found.changed[0] = st.st_ctim.tv_sec, found.changed[1] = st.st_ctim.tv_nsec; /* links are counted there */
    assert_int_equal(identity_check(&found, path, -1), 0);
    assert_int_equal(identity_check(&found, path, fd), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "replaced"));
    close(fd);
    free(path);
    free(aside);
}

static void a_url_that_changes_on_its_server_is_named(void **state) {
    (void)state;
    struct sources sources;
    struct local *local;
    version_of("text", 5);
    assert_int_equal(find(&sources, "@changing.txt"), 0);
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT;
    part.name = sources.source[0].path, part.size = sources.source[0].size, part.version = sources.source[0].version;
    assert_int_equal(local_open(&local, &part, NULL, NULL), 0);
    assert_int_equal(local_check(local), 0);
    version_of("texts", 5);
    assert_int_equal(local_check(local), ERR_CORRUPT);
    assert_true(strstr(err_text(), part.name) && strstr(err_text(), "changed on the server"));
    local_close(local);
    assert_int_equal(local_open(&local, &part, NULL, NULL), ERR_CORRUPT);
    sources_free(&sources);
}

static int stop(void *arg) { return ++*(int *)arg > 2; }

/* A silent server is waited for longer than a lease lasts: the wait shows, and ends when it is to. */
static void a_silent_server_is_ticked_for_when_its_file_is_opened_and_when_it_is_checked(void **state) {
    (void)state;
    struct sources sources;
    struct local *local, *other;
    int ticks = -1000; /* as it answers there are some */
    version_of("text", 5);
    assert_int_equal(find(&sources, "@changing.txt"), 0);
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT;
    part.name = sources.source[0].path, part.size = sources.source[0].size, part.version = sources.source[0].version;
    assert_int_equal(local_open(&local, &part, stop, &ticks), 0);
    put("mute", "");
    ticks = 0;
    assert_int_equal(local_check(local), ERR_INTERRUPTED);
    assert_int_equal(ticks, 3);
    ticks = 0;
    assert_int_equal(local_open(&other, &part, stop, &ticks), ERR_INTERRUPTED);
    assert_int_equal(ticks, 3);
    char *mute = mem_format("%s/mute", folder);
    assert_int_equal(unlink(mute), 0);
    free(mute);
    local_close(local);
    sources_free(&sources);
}

/* ---- what runs write ---- */

static void makes_run(const char *name) {
    static const char *const files[] = {"state/millrace.db", "dataset/train-00000.tok.zst", "logs/a.log", "metrics.jsonl",
                                        "checkpoint-3/b.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *file = mem_format("%s/%s", name, files[i]);
        put(file, "made by a run");
        free(file);
    }
}

/* The sources that a path below the folder gives, with spaces between them; "!" and the reason when it is refused. */
static char *found_by(const char *path, const char *output_dir, const char *file) {
    char *whole = mem_format("%s/%s", folder, path), *out = mem_format("%s/%s", folder, output_dir);
    char *own = mem_format("%s/%s", folder, file);
    struct source_group group = {.name = (char *)"own", .paths = {&whole, 1}};
    struct sources_own runs = {out, own, NULL};
    struct sources sources;
    struct buf text = {0};
    if (sources_find(&sources, &group, 1, &runs) < 0) {
        assert_int_equal(buf_print(&text, "!%s", err_text()), 0);
    } else {
        for (size_t i = 0; i < sources.count; i++)
            assert_int_equal(buf_print(&text, "%s%s", i ? " " : "", sources.source[i].path + strlen(folder) + 1), 0);
        sources_free(&sources);
    }
    free(whole), free(out), free(own);
    return (char *)text.data;
}

static void what_runs_write_is_no_source(void **state) {
    (void)state;
    put("project/a.txt", "a"), put("project/data/b.txt", "b"), put("project/pipeline.yaml", "c"), put("project/runs/mine/note.txt", "d");
    makes_run("project/runs/mine"), makes_run("project/runs/other"), makes_run("project/flat");
    put("project/flat/data/e.txt", "e");
    relate(symlink, "../runs/mine/metrics.jsonl", "project/data/link.txt");
    relate(symlink, "runs/mine", "project/mine");
    relate(symlink, "runs/mine/logs", "project/logs-of-mine");
    put("apart/mine/x.txt", "f"), put("apart/mine-logs/g.txt", "g"), put("apart/links/h.txt", "h");
    relate(symlink, "../mine-logs/g.txt", "apart/links/f.txt"); /* that name only begins with output_dir's */
#define ALL "project/a.txt project/data/b.txt project/flat/data/e.txt project/runs/mine/note.txt"
    static const struct {
        const char *path, *output_dir, *finds;
    } cases[] = {
        {"project", "project/runs/mine", ALL},
        {"project/**", "project/mine", ALL},
        {"project/**/*.txt", "project/runs/mine", ALL},
        {"project/[d]*/*", "project/data", "project/data/b.txt project/data/link.txt"},
        {"project/*/*", "project/runs/mine", "project/data/b.txt project/mine/note.txt"},
        {"project/*/*.txt", "project/mine", "project/data/b.txt project/mine/note.txt"},
        {"project/*/data", "project/flat", "project/flat/data/e.txt"},
        {"project/**/pipeline.yaml", "project/flat", "!has no file but what runs write"},
        {"project/*.yaml", "project/runs/mine", "!has no file but what runs write"},
        {"project/pipeline.yaml", "project/runs/mine", "!is written by this run itself"},
        {"project/./pipeline.yaml", "project/runs/mine", "!is written by this run itself"},
        {"project/runs/mine/metrics.jsonl", "project/runs/mine", "!is written by this run itself"},
        {"project/runs/../runs/mine/dataset", "project/mine", "!is written by this run itself"},
        {"project/data/link.txt", "project/runs/mine", "!is written by this run itself"},
        {"project/logs-of-mine/*", "project/runs/mine", "!is written by this run itself"},
        {"project/runs/mine", "project/runs/mine", "project/runs/mine/note.txt"}, /* named, and what is not a run's stays */
        {"project/runs/other/metrics.jsonl", "project/runs/mine", "project/runs/other/metrics.jsonl"}, /* another's, named */
        {"project/runs/*/metrics.jsonl", "project/runs/mine", "!has no file but what runs write"},
        {"project/flat", "project/flat", "project/flat/data/e.txt"},
        {"project/flat/data", "project/flat", "project/flat/data/e.txt"},
        {"project/data", "project/not-there", "project/data/b.txt project/data/link.txt"},
        {"apart/links", "apart/mine", "apart/links/f.txt apart/links/h.txt"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *found = found_by(cases[i].path, cases[i].output_dir, "project/pipeline.yaml");
        bool fits = cases[i].finds[0] == '!' ? found[0] == '!' && strstr(found, cases[i].finds + 1) : strcmp(found, cases[i].finds) == 0;
        if (!fits) fail_msg("%s with output_dir %s: %s", cases[i].path, cases[i].output_dir, found);
        free(found);
    }
}

/* What a folder has and is not taken is told, once for each reason. */
static void what_is_passed_over_is_told(void **state) {
    (void)state;
    char *path = mem_format("%s/passed", folder), *pipe = mem_format("%s/c/pipe", path), text[800] = "";
    put("passed/a.txt", "a"), put("passed/.hidden/b.txt", "b"), put("passed/c/.d.txt", "d");
    relate(symlink, "../a", "passed/link");
    relate(symlink, "../../a.txt", "passed/c/file.txt");
    relate(symlink, "nowhere", "passed/c/gone.txt"), relate(symlink, "itself.txt", "passed/itself.txt");
    relate(symlink, "a.txt/x", "passed/c/through.txt"), relate(symlink, "/dev/null", "passed/null");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    struct source_group group = {.name = (char *)"own", .paths = {&path, 1}};
    struct sources sources;
    assert_int_equal(sources_find(&sources, &group, 1, NULL), 0);
    assert_int_equal(sources.count, 2); /* a link to a file is one */
    for (size_t i = 0; i < sources.passed_count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s: %s\n", sources.passed[i].path + strlen(path),
                 sources.passed[i].others ? " and others" : "", sources.passed[i].why);
    static const char *const told[] = {"/.hidden and others: its name begins with a dot\n", "/link: a link to a folder\n",
                                       "/c/gone.txt and others: a link that leads nowhere\n", "/c/pipe: a pipe\n", "/null: a device\n"};
    size_t count = sizeof told / sizeof *told;
    for (size_t i = 0; i < count; i++)
        if (!strstr(text, told[i])) fail_msg("%s: %s", told[i], text);
    assert_int_equal(sources.passed_count, count);
    for (size_t i = 1; i < count; i++) assert_true(strcmp(sources.passed[i - 1].path, sources.passed[i].path) < 0);
    sources_free(&sources);
    free(path), free(pipe);
}

static int by_place(const void *a, const void *b) {
    return strcmp(((const struct source_passed *)a)->path, ((const struct source_passed *)b)->path);
}

/* Of an output_dir the folder is told, whatever is in it, and of a link what keeps it out. */
static void what_runs_write_is_told_once(void **state) {
    (void)state;
    makes_run("told/mine"), makes_run("told/other"), put("told/mine/a.txt", "a"), put("told/pipeline.yaml", "b");
    relate(symlink, "mine", "told/to-mine"), relate(symlink, "other", "told/to-other"), relate(symlink, "mine/logs", "told/to-logs");
#define FOLDERS "/mine: what a run writes there\n/other: what a run writes there\n"
#define YAML "/pipeline.yaml: a run writes or reads it itself\n"
#define LINKS "/to-logs: a run writes or reads it itself\n/to-mine and others: a link to a folder\n"
    static const char *const paths[] = {"told", "told/**/*.txt", "told/mine"};
    static const char *const told[] = {FOLDERS YAML LINKS, FOLDERS LINKS, "/mine: what a run writes there\n"};
    char *above = mem_format("%s/told", folder), *out = mem_format("%s/mine", above), *file = mem_format("%s/pipeline.yaml", above);
    for (int i = 0; i < 3; i++) {
        char *path = mem_format("%s/%s", folder, paths[i]);
        struct source_group group = {.name = (char *)"own", .paths = {&path, 1}};
        struct sources_own own = {out, file, NULL};
        struct sources sources;
        struct buf text = {0};
        assert_int_equal(sources_find(&sources, &group, 1, &own), 0);
        assert_int_equal(sources.count, 1); /* a.txt */
        qsort(sources.passed, sources.passed_count, sizeof *sources.passed, by_place);
        for (size_t k = 0; k < sources.passed_count; k++)
            assert_int_equal(buf_print(&text, "%s%s: %s\n", sources.passed[k].path + strlen(above),
                                       sources.passed[k].others ? " and others" : "", sources.passed[k].why), 0);
        assert_string_equal((char *)text.data, told[i]);
        buf_free(&text);
        sources_free(&sources);
        free(path);
    }
    free(above), free(out), free(file);
}

/* find(1) and sort(1) say what is below a folder of random files. */
static void a_folder_has_the_files_that_find_and_sort_say(void **state) {
    (void)state;
    struct random random = random_open("find");
    static const char *const parts[] = {"a", "b", "a-", "a.b", "A", ".c", "é", "a b"};
    for (int i = 0; i < 300; i++) {
        char name[256] = "tree";
        for (uint64_t depth = random_in(&random, 1, 5); depth > 0; depth--) {
            strcat(name, "/");
            strcat(name, parts[random_in(&random, 0, 7)]);
        }
        strcat(name, ".txt"); /* so that no file is where a folder has to be */
        put(name, name);
    }
    char *command = mem_format("cd %s && find tree -name '.?*' -prune -o -type f -printf '0:%%p\\n' | LC_ALL=C sort | tr '\\n' ' '",
                               folder);
    FILE *listing = popen(command, "r");
    char wanted[1 << 16] = "";
    wanted[fread(wanted, 1, sizeof wanted - 1, listing)] = 0;
    pclose(listing);
    free(command);
    assert_true(strlen(wanted) > 1000);
    wanted[strlen(wanted) - 1] = 0;
    expect("tree", wanted);
    expect("tree/**", wanted);
}

/* With or without what was found so far: at each entry of each folder on the way. */
static void a_folder_that_fails_in_the_middle_gives_no_sources(void **state) {
    (void)state;
    static const char *const patterns[] = {"a", "a/**", "a/**/*.txt", "a/*", "a*/*"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct sources sources;
        int code = ERR_IO, after = 0;
        for (; code < 0; after++) {
            broken_folder_after = after;
            code = find(&sources, patterns[i]);
            broken_folder_after = INT_MAX;
            if (code < 0 && (code != ERR_IO || !strstr(err_text(), "read folder"))) fail_msg("%s: %d, %s", patterns[i], code, err_text());
        }
        assert_true(after > 6); /* the folder itself has six */
        sources_free(&sources);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_folders_and_globs_are_found_in_order),
        cmocka_unit_test(names_with_a_dot_and_links_to_folders_must_be_named),
        cmocka_unit_test(a_file_counts_once_at_its_first_place),
        cmocka_unit_test(urls_are_asked_for_size_and_version),
        cmocka_unit_test(what_is_not_there_or_no_file_is_named),
        cmocka_unit_test(a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(the_version_is_another_when_the_file_is_changed),
        cmocka_unit_test(a_source_that_changes_in_any_way_is_named),
        cmocka_unit_test(a_source_that_was_found_is_older_than_a_tick),
        cmocka_unit_test(a_file_that_was_another_one_for_a_moment_is_named),
        cmocka_unit_test(a_url_that_changes_on_its_server_is_named),
        cmocka_unit_test(a_silent_server_is_ticked_for_when_its_file_is_opened_and_when_it_is_checked),
        cmocka_unit_test(what_runs_write_is_no_source),
        cmocka_unit_test(what_is_passed_over_is_told),
        cmocka_unit_test(what_runs_write_is_told_once),
        cmocka_unit_test(a_folder_has_the_files_that_find_and_sort_say),
        cmocka_unit_test(a_folder_that_fails_in_the_middle_gives_no_sources),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
