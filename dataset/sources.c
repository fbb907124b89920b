/* Walks folders along a pattern, one path component at a time. Reads no file. */
#include "dataset/sources.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "dataset/http.h"

enum { DEPTH_MAX = 64 }; /* folders below the first wildcard: deeper is a loop or a mistake */

struct found {
    struct source source;
    size_t place; /* of the path that matched it, over all entries */
};
struct search {
    struct found *found;
    size_t count, capacity;
    bool fresh;     /* one of them changed a moment ago */
    size_t place;   /* of the path that is walked */
    uint32_t group;
};

/* ---- One file ---------------------------------------------------------------------------------------------------------------- */

static int refuse_special(const char *path, mode_t mode) {
    const char *what = S_ISDIR(mode)    ? "a folder"
                       : S_ISFIFO(mode) ? "a pipe"
                       : S_ISSOCK(mode) ? "a socket"
                                        : "a device";
    return err_set(ERR_CONFIG, "dataset.sources: %s is %s, not a file; `-` reads standard input", path, what);
}

static int add(struct search *search, struct source source) {
    if (search->count == SOURCES_MAX)
        return err_set(ERR_LIMIT, "dataset.sources: more than %d files; join small files into larger ones", SOURCES_MAX);
    if (search->count == search->capacity) {
        search->capacity = search->capacity ? search->capacity * 2 : 64;
        search->found = mem_resize(search->found, search->capacity * sizeof *search->found);
    }
    source.path = mem_text(source.path), source.group = search->group;
    search->found[search->count++] = (struct found){source, search->place};
    return 0;
}

static int add_file(struct search *search, const char *path, const struct stat *st) {
    if (!S_ISREG(st->st_mode)) return refuse_special(path, st->st_mode);
    if (access(path, R_OK) != 0) return err_errno("dataset.sources: read %s", path);
    struct file_identity identity = identity_of(st);
    search->fresh = search->fresh || identity_is_fresh(&identity, clock_wall_ms());
    return add(search, (struct source){.path = (char *)path, .size = identity.size, .version = identity_version(&identity),
                                       .identity = identity});
}

static int add_url(struct search *search, const char *url) {
    struct http *http;
    int code = http_open(&http, url);
    if (code < 0) return err_add(code, "dataset.sources");
    code = add(search, (struct source){.path = (char *)url, .size = http_size(http), .version = http_version(http), .is_url = true});
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

/* "**": the rest may begin here or in any real folder below. */
static int walk_below(struct search *search, const char *folder, const char *rest, int depth) {
    DIR *dir;
    if (depth > DEPTH_MAX) return err_set(ERR_LIMIT, "dataset.sources: %s: folders nest deeper than %d", folder, DEPTH_MAX);
    TRY(walk(search, folder, rest, depth + 1));
    TRY(open_folder(&dir, folder));
    int code = 0;
    for (struct dirent *entry; dir && code == 0 && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        char *path = join(folder, entry->d_name);
        struct stat st;
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) code = walk_below(search, path, rest, depth + 1);
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
    if (stat(path, &st) != 0) {
        bool absent = errno == ENOENT || errno == ENOTDIR;
        if (!absent || (!named && !rest)) code = err_errno("dataset.sources: %s", path); /* found, so a link that leads nowhere */
    } else if (!S_ISDIR(st.st_mode)) {
        if (!rest) code = add_file(search, path, &st);
    } else if (rest) {
        code = walk(search, path, rest, depth + 1);
    } else if (named) {
        code = walk_below(search, path, "*", depth + 1);
    }
    free(path);
    return code;
}

static int walk(struct search *search, const char *folder, const char *pattern, int depth) {
    if (depth > 4 * DEPTH_MAX) return err_set(ERR_LIMIT, "dataset.sources: %s: folders nest too deep", folder);
    pattern += strspn(pattern, "/");
    size_t size = strcspn(pattern, "/"), gap = strspn(pattern + size, "/");
    const char *rest = pattern[size + gap] ? pattern + size + gap : NULL;
    char *part = mem_format("%.*s", (int)size, pattern);
    DIR *dir = NULL;
    int code = 0;
    if (strcmp(part, "**") == 0) {
        code = walk_below(search, folder, rest ? rest : "*", depth);
    } else if (!strpbrk(part, "*?[")) {
        code = walk_entry(search, folder, part, rest, true, depth);
    } else {
        code = open_folder(&dir, folder);
        for (struct dirent *entry; dir && code == 0 && (entry = readdir(dir));)
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && fnmatch(part, entry->d_name, FNM_PERIOD) == 0)
                code = walk_entry(search, folder, entry->d_name, rest, false, depth);
    }
    if (dir) closedir(dir);
    free(part);
    return code;
}

static int find_path(struct search *search, const char *path) {
    size_t before = search->count;
    if (http_is_url(path)) return add_url(search, path);
    CHECK(path[0] == '/');
    TRY(walk(search, "/", path, 0));
    if (search->count > before) return 0;
    if (strpbrk(path, "*?[")) return err_set(ERR_CONFIG, "dataset.sources: \"%s\" matches no file", path);
    if (access(path, F_OK) == 0) return err_set(ERR_CONFIG, "dataset.sources: no file is in %s or below", path);
    return err_set(ERR_CONFIG, "dataset.sources: %s: no such file or folder", path);
}

/* ---- Order ------------------------------------------------------------------------------------------------------------------- */

static int by_path(const void *a, const void *b) {
    const struct found *x = a, *y = b;
    int order = strcmp(x->source.path, y->source.path);
    return order ? order : (x->place > y->place) - (x->place < y->place);
}

static int by_place(const void *a, const void *b) {
    const struct found *x = a, *y = b;
    return x->place != y->place ? (x->place > y->place) - (x->place < y->place) : strcmp(x->source.path, y->source.path);
}

/* Each path once, at its first place; then in order. */
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
    qsort(search->found, kept, sizeof *search->found, by_place);
}

/* An entry all of whose files belong to earlier ones would have a name, a weight, and no text. */
static int check_groups(const struct search *search, const struct source_group *groups, size_t count) {
    size_t i = 0;
    for (size_t group = 0; group < count; group++) {
        size_t first = i;
        while (i < search->count && search->found[i].source.group == group) i++;
        if (i == first)
            return err_set(ERR_CONFIG, "dataset.sources: %s: all of its files belong to entries before it", groups[group].name);
    }
    return 0;
}

int sources_find(struct sources *out, const struct source_group *groups, size_t count) {
    struct search search = {0};
    int code = 0;
    for (size_t group = 0; group < count; group++)
        for (size_t i = 0; i < groups[group].paths.count && code == 0; i++, search.place++) {
            search.group = (uint32_t)group;
            code = find_path(&search, groups[group].paths.item[i]);
        }
    if (search.fresh) clock_sleep_ms(IDENTITY_COARSE_MS);
    settle(&search);
    if (code == 0) code = check_groups(&search, groups, count);
    struct sources list = {.count = search.count, .capacity = search.count};
    list.source = mem_alloc((search.count + 1) * sizeof *list.source);
    for (size_t i = 0; i < search.count; i++) list.source[i] = search.found[i].source;
    free(search.found);
    if (code < 0)
        sources_free(&list);
    else
        *out = list;
    return code;
}

void sources_free(struct sources *sources) {
    for (size_t i = 0; i < sources->count; i++) free(sources->source[i].path);
    free(sources->source);
    *sources = (struct sources){0};
}
