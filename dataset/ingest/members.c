/* Globs with "**" and a slash, from part to part: fnmatch() knows them only as an extended pattern, in which glibc tries every way to share
 * out a name's folders among them. Keeps nothing. */
#include "dataset/ingest/members.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "dataset/source/unpack.h"

/* The next two stars and a slash in the glob, of which none is escaped; NULL: there are no more. */
static char *any_folders(char *glob) {
    for (; *glob; glob += *glob == '\\' && glob[1] ? 2 : 1)
        if (strncmp(glob, "**/", 3) == 0) return glob;
    return NULL;
}

/* Of the places at which the part may begin, makes those at which what stands behind it and any number of folders may begin. */
static void pass_part(const char *part, char *name, size_t size, bool *begins) {
    size_t length = strlen(part);
    bool ends_folder = length > 0 && part[length - 1] == '/', some = false;
    bool *ends = mem_alloc(size + 1);
    for (size_t end = 0; end <= size; end++) {
        bool behind = end > 0 && name[end - 1] == '/';
        ends[end] = some && behind;
        char kept = name[end];
        name[end] = 0;
        for (size_t at = 0; at <= end && !ends[end] && (behind || !ends_folder); at++)
            ends[end] = begins[at] && fnmatch(part, name + at, 0) == 0;
        name[end] = kept;
        some = some || ends[end];
    }
    memcpy(begins, ends, size + 1);
    free(ends);
}

bool members_match(const char *glob, const char *name) {
    char *parts = mem_text(glob), *part = parts, *copy = mem_text(name);
    size_t size = strlen(name);
    bool *begins = mem_alloc(size + 1), found = false;
    begins[0] = true;
    for (char *folders; (folders = any_folders(part)); part = folders + 3) {
        *folders = 0;
        pass_part(part, copy, size, begins);
    }
    for (size_t at = 0; at <= size && !found; at++) found = begins[at] && fnmatch(part, name + at, 0) == 0;
    free(begins);
    free(copy);
    free(parts);
    return found;
}

/* The name within the innermost archive: behind the last "!" before which the name of something packed ends. Others are the name's own. */
static const char *innermost(const char *member) {
    char *copy = mem_text(member);
    size_t nested = 0;
    for (char *mark = copy; (mark = strchr(mark, '!')); *mark++ = '!') {
        *mark = 0;
        if (unpack_needed(copy + nested)) nested = (size_t)(mark + 1 - copy);
    }
    free(copy);
    return member + nested;
}

bool members_want(const struct source_group *group, const char *member) {
    const char *nested = innermost(member), *name = strrchr(nested, '/');
    name = name && name > nested ? name + 1 : nested;
    for (size_t i = 0; i < group->members.count; i++) {
        const char *glob = group->members.item[i];
        if (strcmp(glob, member) == 0 || strcmp(glob, nested) == 0) return true; /* a name may have brackets itself */
        if (members_match(glob, member) || members_match(glob, nested)) return true;
        if (!strchr(glob, '/') && members_match(glob, name)) return true;
    }
    return group->members.count == 0;
}
