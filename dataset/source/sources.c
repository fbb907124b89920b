/* The search for source files: each path of dataset.sources is walked one component at a time; wildcards and folders branch. Of files only
 * stat() is asked, but one byte is read of those whose size is 0.
 *
 * sources_find() collects everything in a struct search: files with the number of the path that matched them, and what was passed over and
 * why. Afterwards settle() drops repeated files and sorts: by entry and path of dataset.sources, then by path bytes. */
#include "dataset/source/sources.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/faults.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/source/http.h"

enum { DEPTH_MAX = 64 }; /* folders below the first wildcard: deeper is a loop or a mistake */

struct found {
    struct source source;
    size_t pattern; /* number of the path that matched it, over all entries */
};
struct search {
    struct found *found;
    size_t count, capacity;
    bool fresh;     /* one of them changed a moment ago */
    size_t pattern;   /* number of the path that is walked */
    bool found_out; /* by a glob or in a folder, not by its own name */
    uint32_t group;
    const struct sources_own *own;  /* NULL: nothing is written */
    char *output_dir;               /* its real path; NULL: it is not there */
    struct stat output_dir_st, file_st;
    bool has_file;
    struct sources passed;          /* only what was passed over */
    bool passed_some;               /* on the path that is walked */
};

/* ---- What runs write --------------------------------------------------------------------------------------------------------- */

static bool same_inode(const struct stat *a, const struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }

static void know_own(struct search *search, const struct sources_own *own) {
    search->own = own;
    if (!own) return;
    search->output_dir = realpath(own->output_dir, NULL);
    if (search->output_dir && stat(search->output_dir, &search->output_dir_st) != 0) free(search->output_dir), search->output_dir = NULL;
    search->has_file = own->file && stat(own->file, &search->file_st) == 0;
}

static bool is_own(const struct search *search, const char *folder) {
    struct stat st;
    return search->output_dir && stat(folder, &st) == 0 && same_inode(&st, &search->output_dir_st);
}

bool sources_is_run(const char *folder) {
    char *store = mem_format("%s/state/millrace.db", folder);
    bool there = access(store, F_OK) == 0;
    free(store);
    return there;
}

/* Does a run write that, in its output_dir? */
static bool is_written(const char *name) {
    static const char *const names[] = {"dataset", "state", "logs", "metrics.jsonl", "checkpoint-*", "*.draft-*"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (fnmatch(names[i], name, 0) == 0) return true;
    return false;
}

char *sources_writing_run(const char *path) {
    for (const char *at = strchr(path, '/'); at; at = strchr(at + 1, '/')) {
        char *folder = mem_format("%.*s", at == path ? 1 : (int)(at - path), path);
        char *name = mem_format("%.*s", (int)strcspn(at + 1, "/"), at + 1);
        bool written = is_written(name) && sources_is_run(folder);
        free(name);
        if (written) return folder;
        free(folder);
    }
    return NULL;
}

/* Does a link lead to what this run writes? */
static bool leads_there(const struct search *search, const char *path) {
    struct stat st;
    if (!search->output_dir || lstat(path, &st) != 0 || !S_ISLNK(st.st_mode)) return false;
    char *real = realpath(path, NULL);
    size_t above = strlen(search->output_dir);
    bool inside = real && strncmp(real, search->output_dir, above) == 0 && real[above] == '/';
    char *name = inside ? mem_format("%.*s", (int)strcspn(real + above + 1, "/"), real + above + 1) : NULL;
    bool written = name && is_written(name);
    free(name);
    free(real);
    return written;
}

static const char by_run[] = "a run writes or reads it itself", in_it[] = "what a run writes there";
static const char hidden[] = "its name begins with a dot", linked[] = "a link to a folder", dangling[] = "a link that leads nowhere";

/* all: one entry for all that are passed over for this reason, with the first path by bytes, whatever the order of a folder's entries. */
static void note_passed(struct search *search, const char *path, const char *why, bool all) {
    struct sources *passed = &search->passed;
    for (size_t i = 0; i < passed->passed_count; i++) {
        struct source_passed *one = &passed->passed[i];
        int order = strcmp(path, one->path);
        if (one->why != why || (!all && order != 0)) continue;
        one->others = one->others || (all && order != 0);
        if (all && order < 0) free(one->path), one->path = mem_text(path);
        return;
    }
    if (passed->passed_count == SOURCES_PASSED_MAX) return;
    passed->passed[passed->passed_count++] = (struct source_passed){mem_text(path), why, false};
}

/* Passes over what a run writes; an error when it was named. */
static int pass_over(struct search *search, const char *path, bool named) {
    search->passed_some = true;
    if (named)
        return err_set(ERR_CONFIG, "dataset.sources: %s is written by this run itself, or is its pipeline.yaml, and so no source; name "
                       "other files, or choose another output_dir", path);
    note_passed(search, path, by_run, false);
    return 0;
}

/* The same, of all that is in an output_dir: one entry for it. */
static void pass_over_written(struct search *search, const char *output_dir) {
    search->passed_some = true;
    note_passed(search, output_dir, in_it, false);
}

/* ---- One file ---------------------------------------------------------------------------------------------------------------- */

static const char *special_kind(mode_t mode) {
    if (S_ISFIFO(mode)) return "a pipe";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

static int add(struct search *search, struct source source) {
    if (search->count == SOURCES_MAX)
        return err_set(ERR_LIMIT, "dataset.sources: more than %d files; join small files into larger ones", SOURCES_MAX);
    if (search->count == search->capacity) {
        search->capacity = search->capacity ? search->capacity * 2 : 64;
        search->found = mem_resize(search->found, search->capacity * sizeof *search->found);
    }
    source.path = mem_text(source.path), source.group = search->group;
    search->found[search->count++] = (struct found){source, search->pattern};
    return 0;
}

/* Can bytes be read from a file whose size is 0 before and after? (One that grows at this moment has a size afterwards.) */
static bool gives_more(const char *path) {
    struct stat st;
    char byte;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool more = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && read(fd, &byte, 1) == 1 && fstat(fd, &st) == 0 && st.st_size == 0;
    if (fd >= 0) close(fd);
    return more;
}

static int add_file(struct search *search, const char *path, const struct stat *st, bool named) {
    if (search->has_file && same_inode(st, &search->file_st)) return pass_over(search, path, named);
    if (!S_ISREG(st->st_mode) && search->found_out) return note_passed(search, path, special_kind(st->st_mode), true), 0;
    if (!S_ISREG(st->st_mode))
        return err_set(ERR_CONFIG, "dataset.sources: %s is %s, not a file; `-` reads standard input", path, special_kind(st->st_mode));
    if (access(path, R_OK) != 0) return err_errno("dataset.sources: read %s", path);
    if (st->st_size == 0 && gives_more(path))
        return err_set(ERR_CONFIG, "dataset.sources: %s has no size and gives bytes all the same, as files do that the kernel makes while "
                       "they are read; copy it, and name the copy", path);
    struct file_identity identity = identity_of(st);
    search->fresh = search->fresh || identity_is_fresh(&identity, clock_wall_ms());
    return add(search, (struct source){.path = (char *)path, .size = identity.size, .version = identity_version(&identity),
                                       .identity = identity, .named = !search->found_out});
}

static int add_url(struct search *search, const char *url) {
    struct http *http;
    int code = http_open(&http, url, NULL, NULL);
    if (code < 0) return err_add(code, "dataset.sources");
    struct source source = {.path = (char *)url, .size = http_size(http), .version = http_version(http), .is_url = true, .named = true};
    code = add(search, source);
    http_close(http);
    return code;
}

/* ---- Walking ----------------------------------------------------------------------------------------------------------------- */

static int walk(struct search *search, const char *folder, const char *pattern, int depth);

static char *join(const char *folder, const char *name) { return mem_format("%s/%s", strcmp(folder, "/") == 0 ? "" : folder, name); }

/* A folder that is not there, or is no folder, has no entries. */
static int open_folder(DIR **out, const char *folder) {
    *out = opendir(folder);
    return *out || errno == ENOENT || errno == ENOTDIR ? 0 : err_errno("dataset.sources: open folder %s", folder);
}

/* Must what a run writes stay out? What another run writes may be named. */
static bool stays_out(const struct search *search, const char *folder, const char *name, bool named) {
    if (!search->own || !is_written(name)) return false;
    return is_own(search, folder) || (!named && sources_is_run(folder));
}

/* After stat() refused it: is it a link to what is not there, or to itself? */
static bool leads_nowhere(const char *path, int number) {
    struct stat st;
    return (number == ENOENT || number == ENOTDIR || number == ELOOP) && lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

static bool is_link_to_folder(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* "**": the rest may begin here or in any real folder below. */
static int walk_below(struct search *search, const char *folder, const char *rest, int depth) {
    DIR *dir;
    if (depth > DEPTH_MAX) return err_set(ERR_LIMIT, "dataset.sources: %s: folders nest deeper than %d", folder, DEPTH_MAX);
    search->found_out = true;
    TRY(walk(search, folder, rest, depth + 1));
    TRY(open_folder(&dir, folder));
    int code = 0;
    for (struct dirent *entry; dir && (entry = folder_next(dir, folder, &code));) {
        char *path = join(folder, entry->d_name);
        struct stat st;
        if (entry->d_name[0] == '.') {
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) note_passed(search, path, hidden, true);
        } else if (is_link_to_folder(path)) {
            if (leads_there(search, path)) code = pass_over(search, path, false);
            else note_passed(search, path, linked, true);
        } else if (lstat(path, &st) != 0) {
            if (errno != ENOENT) code = err_errno("dataset.sources: %s", path); /* by now */
        } else if (S_ISDIR(st.st_mode)) {
            if (stays_out(search, folder, entry->d_name, false)) pass_over_written(search, folder);
            else code = walk_below(search, path, rest, depth + 1);
        }
        free(path);
    }
    if (dir) closedir(dir);
    return code;
}

/* Matches the rest of the pattern below one entry of a folder. `named`: it was not found by a wildcard. */
static int walk_entry(struct search *search, const char *folder, const char *name, const char *rest, bool named, int depth) {
    char *path = join(folder, name);
    struct stat st;
    int code = 0;
    bool alone = named && !search->found_out; /* no wildcard before it either */
    bool written = stays_out(search, folder, name, alone);
    if (written && !alone) {
        pass_over_written(search, folder);
    } else if (written || leads_there(search, path)) {
        code = pass_over(search, path, alone);
    } else if (stat(path, &st) != 0) {
        int number = errno;
        bool absent = number == ENOENT || number == ENOTDIR; /* by now, where it was found */
        if (search->found_out && leads_nowhere(path, number)) note_passed(search, path, dangling, true);
        else if (!absent) errno = number, code = err_errno("dataset.sources: %s", path);
    } else if (!S_ISDIR(st.st_mode)) {
        if (!rest) code = add_file(search, path, &st, alone);
    } else if (rest) {
        code = walk(search, path, rest, depth + 1);
    } else if (named) {
        code = walk_below(search, path, "*", depth + 1);
    }
    free(path);
    return code;
}

/* Is the name a glob? Not when a file of exactly that name exists. */
static bool is_glob(const char *folder, const char *name) {
    if (!strpbrk(name, "*?[")) return false;
    if (strcmp(name, "*") == 0) return true;
    char *path = join(folder, name);
    struct stat st;
    bool there = lstat(path, &st) == 0;
    free(path);
    return !there;
}

static int walk(struct search *search, const char *folder, const char *pattern, int depth) {
    if (depth > 4 * DEPTH_MAX) return err_set(ERR_LIMIT, "dataset.sources: %s: folders nest too deep", folder);
    pattern += strspn(pattern, "/");
    size_t size = strcspn(pattern, "/"), gap = strspn(pattern + size, "/");
    const char *rest = pattern[size + gap] ? pattern + size + gap : NULL;
    char *component = mem_format("%.*s", (int)size, pattern);
    DIR *dir = NULL;
    int code = 0;
    if (strcmp(component, "**") == 0) {
        code = walk_below(search, folder, rest ? rest : "*", depth);
    } else if (!is_glob(folder, component)) {
        code = walk_entry(search, folder, component, rest, true, depth);
    } else {
        search->found_out = true;
        code = open_folder(&dir, folder);
        for (struct dirent *entry; dir && (entry = folder_next(dir, folder, &code));)
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && fnmatch(component, entry->d_name, FNM_PERIOD) == 0)
                code = walk_entry(search, folder, entry->d_name, rest, false, depth);
    }
    if (dir) closedir(dir);
    free(component);
    return code;
}

/* The path without the brackets in which path_absolute() puts a folder's wildcards. */
static char *without_brackets(const char *pattern, bool *out_glob) {
    char *plain = mem_alloc(strlen(pattern) + 1), *end = plain;
    *out_glob = false;
    for (const char *at = pattern; *at; at++) {
        bool quoted = at[0] == '[' && at[1] && strchr("*?[", at[1]) && at[2] == ']';
        if (!quoted && strchr("*?[", *at)) *out_glob = true;
        *end++ = quoted ? at[1] : *at;
        at += quoted ? 2 : 0;
    }
    *end = 0;
    return plain;
}

static int find_path(struct search *search, const char *path) {
    size_t before = search->count;
    search->passed_some = false;
    if (http_is_url(path)) return add_url(search, path);
    CHECK(path[0] == '/');
    search->found_out = false;
    bool spool = search->own && search->own->spool && strcmp(path, search->own->spool) == 0;
    const struct sources_own *own = search->own;
    char *output_dir = search->output_dir;
    if (spool) search->own = NULL, search->output_dir = NULL; /* the one thing in it that is a source */
    int code = walk(search, "/", path, 0);
    search->own = own, search->output_dir = output_dir;
    TRY(code);
    if (search->count > before) return 0;
    if (search->passed_some)
        return err_set(ERR_CONFIG, "dataset.sources: \"%s\" has no file but what runs write themselves, which is no source", path);
    bool glob;
    char *plain = without_brackets(path, &glob);
    if (glob) code = err_set(ERR_CONFIG, "dataset.sources: \"%s\" matches no file", plain);
    else if (access(plain, F_OK) == 0) code = err_set(ERR_CONFIG, "dataset.sources: no file is in %s or below", plain);
    else code = err_set(ERR_CONFIG, "dataset.sources: %s: no such file or folder", plain);
    free(plain);
    return code;
}

/* ---- Order ------------------------------------------------------------------------------------------------------------------- */

static int by_path(const void *a, const void *b) {
    const struct found *x = a, *y = b;
    int order = strcmp(x->source.path, y->source.path);
    return order ? order : (x->pattern > y->pattern) - (x->pattern < y->pattern);
}

static int by_pattern(const void *a, const void *b) {
    const struct found *x = a, *y = b;
    return x->pattern != y->pattern ? (x->pattern > y->pattern) - (x->pattern < y->pattern) : strcmp(x->source.path, y->source.path);
}

/* Each path once, where it comes first; then in order. */
static void settle(struct search *search) {
    size_t kept = 0;
    if (search->count == 0) return;
    qsort(search->found, search->count, sizeof *search->found, by_path);
    for (size_t i = 0; i < search->count; i++) {
        if (kept && strcmp(search->found[kept - 1].source.path, search->found[i].source.path) == 0)
            free(search->found[i].source.path);
        else
            search->found[kept++] = search->found[i];
    }
    search->count = kept;
    qsort(search->found, kept, sizeof *search->found, by_pattern);
}

/* An entry all of whose files belong to earlier ones would have a name, a weight, and no text. */
static int check_groups(const struct search *search, const struct source_group *groups, size_t count, struct faults *faults) {
    size_t i = 0;
    for (size_t group = 0; group < count; group++) {
        size_t first = i;
        while (i < search->count && search->found[i].source.group == group) i++;
        if (i == first)
            TRY(faults_note(faults, err_set(ERR_CONFIG, "dataset.sources: %s (%s%s): all of its files belong to entries before it",
                                            groups[group].name, groups[group].paths.item[0], groups[group].paths.count > 1 ? ", ..." : ""),
                            (int64_t)group));
    }
    return 0;
}

static int compare_passed(const void *a, const void *b) {
    return strcmp(((const struct source_passed *)a)->path, ((const struct source_passed *)b)->path);
}

int sources_find(struct sources *out, const struct source_group *groups, size_t count, const struct sources_own *own) {
    struct search search = {0};
    struct faults faults = {0};
    int code = 0;
    know_own(&search, own);
    for (size_t group = 0; group < count; group++)
        for (size_t i = 0; i < groups[group].paths.count && code == 0; i++, search.pattern++) {
            search.group = (uint32_t)group;
            code = faults_note(&faults, find_path(&search, groups[group].paths.item[i]), (int64_t)search.pattern);
        }
    if (search.fresh) clock_sleep_ms(IDENTITY_COARSE_MS);
    settle(&search);
    if (code == 0 && faults.count == 0) code = check_groups(&search, groups, count, &faults);
    if (code == 0) code = faults_tell(&faults);
    faults_free(&faults);
    struct sources list = search.passed;
    if (list.passed_count) qsort(list.passed, list.passed_count, sizeof *list.passed, compare_passed);
    list.count = list.capacity = search.count;
    list.source = mem_alloc((search.count + 1) * sizeof *list.source);
    for (size_t i = 0; i < search.count; i++) list.source[i] = search.found[i].source;
    free(search.found);
    free(search.output_dir);
    if (code < 0)
        sources_free(&list);
    else
        *out = list;
    return code;
}

const char *source_shown(const char *path) {
    static const char copy[] = "/state/stdin"; /* a source is in a folder that a run writes for this reason alone */
    size_t size = strlen(path), copy_bytes = sizeof copy - 1;
    return size >= copy_bytes && strcmp(path + size - copy_bytes, copy) == 0 ? "standard input" : path;
}

void sources_free(struct sources *sources) {
    for (size_t i = 0; i < sources->count; i++) free(sources->source[i].path);
    free(sources->source);
    for (size_t i = 0; i < sources->passed_count; i++) free(sources->passed[i].path);
    *sources = (struct sources){0};
}
