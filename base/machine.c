/* Reads what the kernel reports about memory: /proc/meminfo, and the limits of the control groups from the process's own up to the root, of
 * which the lowest counts; and the limit of address space. Read anew at each call; keeps nothing. */
#include "base/machine.h"

#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/err.h"

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static FILE *open_below(const char *root, const char *path, const char *name) {
    char whole[PATH_MAX];
    int length = snprintf(whole, sizeof whole, "%s%s%s", root, path, name);
    return length > 0 && (size_t)length < sizeof whole ? fopen(whole, "re") : NULL;
}

/* The limit in one file; UINT64_MAX when there is none ("max", or no such file). */
static uint64_t limit_in(const char *root, const char *folder, const char *name) {
    uint64_t limit = UINT64_MAX;
    FILE *file = open_below(root, folder, name);
    if (!file) return limit;
    if (fscanf(file, "%" SCNu64, &limit) != 1) limit = UINT64_MAX;
    fclose(file);
    return limit;
}

/* A container may see its own group as the root, or a path that is not mounted: then the limits of the folders above it are all that can be
 * read. */
static uint64_t limit_upwards(const char *root, const char *mount, const char *group, const char *name) {
    char folder[PATH_MAX];
    int length = snprintf(folder, sizeof folder, "%s%s", mount, group);
    uint64_t limit = UINT64_MAX;
    if (length < 0 || (size_t)length >= sizeof folder) return limit;
    for (;;) {
        limit = least(limit, limit_in(root, folder, name));
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= strlen(mount) || !slash) return limit;
        *slash = '\0';
    }
}

static uint64_t groups_limit(const char *root) {
    uint64_t limit = UINT64_MAX;
    char line[PATH_MAX], controllers[256], group[PATH_MAX];
    FILE *file = open_below(root, "/proc/self/cgroup", "");
    while (file && fgets(line, sizeof line, file)) { /* "0::/a/b" of version 2, "5:memory:/a/b" of version 1 */
        line[strcspn(line, "\n")] = '\0';
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        if (!second || second - first > (ptrdiff_t)sizeof controllers) continue;
        snprintf(controllers, sizeof controllers, "%.*s", (int)(second - first - 1), first + 1);
        snprintf(group, sizeof group, "%s", second + 1);
        if (!*controllers) limit = least(limit, limit_upwards(root, "/sys/fs/cgroup", group, "/memory.max"));
        else if (strcmp(controllers, "memory") == 0)
            limit = least(limit, limit_upwards(root, "/sys/fs/cgroup/memory", group, "/memory.limit_in_bytes"));
    }
    if (file) fclose(file);
    return limit;
}

int machine_memory(struct machine_memory *out, const char *root) {
    uint64_t total = 0, available = 0;
    struct rlimit space;
    char line[256];
    FILE *file = open_below(root, "/proc/meminfo", "");
    while (file && fgets(line, sizeof line, file)) {
        sscanf(line, "MemTotal: %" SCNu64 " kB", &total);
        sscanf(line, "MemAvailable: %" SCNu64 " kB", &available);
    }
    if (file) fclose(file);
    if (total == 0) return err_set(ERR_UNSUPPORTED, "%s/proc/meminfo does not tell how much memory there is", root);
    out->physical_bytes = total * 1024;
    out->limit_bytes = least(out->physical_bytes, groups_limit(root));
    out->available_bytes = least(available * 1024, out->limit_bytes);
    out->process_bytes = getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur == RLIM_INFINITY ? 0 : space.rlim_cur;
    return 0;
}

uint64_t machine_peak_rss_bytes(void) {
    FILE *file = fopen("/proc/self/status", "re");
    if (!file) return 0;
    char line[256];
    uint64_t kib = 0;
    while (fgets(line, sizeof line, file) && sscanf(line, "VmHWM: %" SCNu64, &kib) != 1) continue;
    fclose(file);
    return kib * 1024;
}
