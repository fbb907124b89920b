/* Paths as text, without a look at the disk. ".." stays in a path, because behind a symbolic link it means another folder than the text
 * suggests. */
#include "config/paths.h"

#include <string.h>
#include <strings.h>

#include "base/err.h"

static bool begins(const char *text, const char *start) { return strncasecmp(text, start, strlen(start)) == 0; }

bool path_is_remote(const char *path) { return strcmp(path, "-") == 0 || begins(path, "http://") || begins(path, "https://"); }

static int append_part(struct buf *out, const char *part, size_t part_bytes, bool literal) {
    bool escape = false;
    for (size_t i = 0; i < part_bytes; i++) escape = escape || (literal && strchr("*?[", part[i]));
    TRY(buf_append(out, "/", 1));
    for (size_t i = 0; i < part_bytes; i++) {
        if (escape && strchr("*?[", part[i])) TRY(buf_print(out, "[%c]", part[i]));
        else if (escape && part[i] == '\\') TRY(buf_append(out, "\\\\", 2));
        else TRY(buf_append(out, part + i, 1));
    }
    return 0;
}

/* Appends the parts of a path, without empty ones and ".". */
static int append_path(struct buf *out, const char *path, bool literal) {
    for (size_t n; *path; path += n + (path[n] == '/')) {
        n = strcspn(path, "/");
        if (n == 0 || (n == 1 && path[0] == '.')) continue;
        TRY(append_part(out, path, n, literal));
    }
    return 0;
}

int path_absolute(struct buf *out, const char *path, const char *folder, bool glob) {
    size_t start = out->size;
    if (path[0] != '/') TRY(append_path(out, folder, glob));
    TRY(append_path(out, path, false));
    return out->size == start ? buf_append(out, "/", 1) : 0;
}

int path_relative(struct buf *out, const char *path, const char *folder, bool glob) {
    struct buf prefix = {0};
    int code = append_path(&prefix, folder, glob);
    if (code == 0) {
        bool below = prefix.size && memcmp(path, prefix.data, strnlen(path, prefix.size)) == 0 && strlen(path) >= prefix.size;
        const char *rest = below ? path + prefix.size : "";
        if (below && *rest == 0) code = buf_append(out, ".", 1);
        else if (*rest == '/') code = buf_print(out, ".%s", rest);
        else code = buf_append(out, path, strlen(path));
    }
    buf_free(&prefix);
    return code;
}
