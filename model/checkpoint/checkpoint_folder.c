/* All the checkpoints of a run: the newest good one (checkpoint_newest(), at a start, after checkpoint_settle()), and the removal of old
 * ones (checkpoint_prune(), after each publication). Folders are named checkpoint-STEP; one that is being written or removed has ".draft"
 * behind that. Keeps nothing between calls: the folder is read each time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/checkpoint_record.h"

struct found {
    uint64_t *step; /* of all with our record, whole or damaged, newest first */
    size_t steps, steps_capacity;
    char **draft; /* names */
    size_t drafts, drafts_capacity;
};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Reads "checkpoint-STEP", with the step as path_of() writes it: checkpoint-0500 is somebody's copy. *out_rest: what follows the number. */
static bool parse_name(uint64_t *out_step, const char **out_rest, const char *name) {
    static const char begin[] = "checkpoint-";
    if (strncmp(name, begin, strlen(begin)) != 0) return false;
    const char *number = name + strlen(begin);
    if (!is_digit(*number) || (*number == '0' && is_digit(number[1]))) return false;
    char *rest;
    errno = 0;
    *out_step = strtoull(number, &rest, 10);
    *out_rest = rest;
    return errno == 0;
}

/* What stands behind the number in the names that checkpoint_write.c and remove_whole() give, and no other: it is removed. */
static bool is_draft(const char *rest) {
    int pid, used = 0;
    unsigned number;
    if (strcmp(rest, ".draft-removed") == 0) return true;
    if (sscanf(rest, ".draft-%d-%u%n", &pid, &number, &used) != 2) return false;
    return !rest[used] || strcmp(rest + used, "-whole") == 0;
}

static char *path_of(const char *folder, uint64_t step) { return mem_format("%s/checkpoint-%llu", folder, (unsigned long long)step); }

/* Hugging Face's Trainer, too, has a trainer_state.json, which may be longer than ours can be. */
static bool is_of_first_release(const char *path) {
    struct checkpoint_record record;
    struct buf text = {0};
    char *name = mem_format("%s/" CHECKPOINT_RECORD_NAME_FIRST, path);
    int code = file_read(&text, name, CHECKPOINT_RECORD_BYTES_MAX);
    if (code == 0) code = checkpoint_record_parse(&record, name, (const char *)text.data, text.size);
    buf_free(&text);
    free(name);
    return code == 0; /* a damaged one could be anybody's */
}

bool checkpoint_is_own(const char *path) {
    char *name = mem_format("%s/" CHECKPOINT_RECORD_NAME, path);
    bool own = file_exists(name) || is_of_first_release(path);
    free(name);
    return own;
}

int checkpoint_check_place(const char *path, bool *out_there) {
    struct stat st;
    *out_there = lstat(path, &st) == 0;
    if (!*out_there) return errno == ENOENT ? 0 : err_errno("look at %s", path);
    if (checkpoint_is_own(path)) return 0;
    if (S_ISDIR(st.st_mode) && access(path, R_OK | X_OK) != 0)
        return err_errno("%s is in the way and cannot be looked into; make it readable for this user, or move it away", path);
    return err_set(ERR_DENIED, "%s is in the way: it is no checkpoint that millrace made, and stays as it is; move it away", path);
}

static void remember(struct found *found, const char *folder, const char *name) {
    uint64_t step;
    const char *rest;
    if (!parse_name(&step, &rest, name)) return;
    if (is_draft(rest)) {
        if (found->drafts == found->drafts_capacity) {
            found->drafts_capacity = 2 * found->drafts_capacity + 8;
            found->draft = mem_resize(found->draft, found->drafts_capacity * sizeof *found->draft);
        }
        found->draft[found->drafts++] = mem_text(name);
        return;
    }
    char *path = path_of(folder, step);
    if (*rest == 0 && checkpoint_is_own(path)) {
        if (found->steps == found->steps_capacity) {
            found->steps_capacity = 2 * found->steps_capacity + 8;
            found->step = mem_resize(found->step, found->steps_capacity * sizeof *found->step);
        }
        found->step[found->steps++] = step;
    }
    free(path);
}

static int newest_first(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

static void found_free(struct found *found) {
    for (size_t i = 0; i < found->drafts; i++) free(found->draft[i]);
    free(found->draft);
    free(found->step);
}

static int scan(struct found *found, const char *folder) {
    *found = (struct found){0};
    DIR *dir = opendir(folder);
    if (!dir && errno == ENOENT) return 0;
    if (!dir) return err_errno("open folder %s", folder);
    int code = 0;
    for (struct dirent *entry; (entry = folder_next(dir, folder, &code));) remember(found, folder, entry->d_name);
    closedir(dir);
    if (code < 0) found_free(found); /* half a list has no newest one */
    if (code == 0 && found->steps) qsort(found->step, found->steps, sizeof *found->step, newest_first);
    return code;
}

/* A whole checkpoint under a draft's name, while nothing has that of its step: checkpoint_write.c was between two renames. */
static bool waits_for_name(uint64_t *out_step, const char *folder, const char *draft) {
    static const char ending[] = CHECKPOINT_WHOLE;
    const char *rest;
    struct stat st;
    size_t size = strlen(draft), end = strlen(ending);
    if (!parse_name(out_step, &rest, draft) || size < end || strcmp(draft + size - end, ending) != 0) return false;
    char *path = path_of(folder, *out_step), *whole = mem_format("%s/%s", folder, draft);
    bool waits = lstat(path, &st) != 0 && errno == ENOENT && checkpoint_is_own(whole); /* without a record it is half removed */
    free(path);
    free(whole);
    return waits;
}

static int verify(const char *path, uint64_t step) {
    struct checkpoint *checkpoint;
    struct checkpoint_facts facts;
    TRY(checkpoint_open(&checkpoint, path));
    int code = checkpoint_verify(checkpoint);
    if (code == 0) code = checkpoint_facts(checkpoint, &facts);
    if (code == 0 && facts.step != step) code = err_set(ERR_CORRUPT, "%s holds step %llu", path, (unsigned long long)facts.step);
    checkpoint_close(checkpoint);
    return code;
}

/* The place in found->step of the newest one that verifies; found->steps when none does. The lines of those that do not go to out_passed,
 * or to the log. */
static size_t newest_good(const struct found *found, const char *folder, struct buf *out_passed) {
    size_t i = 0;
    for (; i < found->steps; i++) {
        char *path = path_of(folder, found->step[i]);
        int code = verify(path, found->step[i]);
        if (code < 0 && out_passed) buf_print(out_passed, "%s; this checkpoint is passed over\n", err_text());
        else if (code < 0) log_warn("%s; this checkpoint is passed over", err_text());
        free(path);
        if (code == 0) break;
    }
    return i;
}

int checkpoint_newest(char **out_path, uint64_t *out_step, struct buf *out_passed, const char *folder) {
    struct found found;
    TRY(scan(&found, folder));
    size_t i = newest_good(&found, folder, out_passed);
    *out_path = i < found.steps ? path_of(folder, found.step[i]) : NULL;
    if (i < found.steps) *out_step = found.step[i];
    found_free(&found);
    return 0;
}

int checkpoint_newest_named(uint64_t *out_step, const char *folder) {
    struct found found;
    TRY(scan(&found, folder));
    *out_step = found.steps ? found.step[0] : 0;
    for (size_t i = 0; i < found.drafts; i++) {
        uint64_t step;
        if (waits_for_name(&step, folder, found.draft[i]) && step > *out_step) *out_step = step;
    }
    found_free(&found);
    return 0;
}

int checkpoint_check_places(const char *folder, uint64_t after, uint64_t every, uint64_t last) {
    DIR *dir = opendir(folder);
    if (!dir) return errno == ENOENT ? 0 : err_errno("open folder %s", folder);
    int code = 0;
    for (struct dirent *entry; (entry = folder_next(dir, folder, &code));) {
        uint64_t step;
        const char *rest;
        if (!parse_name(&step, &rest, entry->d_name) || *rest || step <= after || (last && step > last)) continue;
        if (step != last && (!every || step % every)) continue;
        char *path = path_of(folder, step);
        bool there;
        code = checkpoint_check_place(path, &there);
        free(path);
    }
    closedir(dir);
    return code;
}

/* A draft whose writer lives is locked, and stays as it is. Else it is given `name`, or removed when that is NULL. */
static int settle_draft(const char *folder, const char *draft, const char *name) {
    char *path = mem_format("%s/%s", folder, draft);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), code = 0;
    bool unknown = fd < 0 && errno != ENOENT && errno != ENOTDIR; /* too many open files, say */
    if (unknown) code = err_errno("open folder %s", path);
    bool alive = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!alive && !unknown) code = name ? file_rename(path, name) : folder_remove(path);
    if (fd >= 0) close(fd);
    free(path);
    return code;
}

static int name_waiting(const struct found *found, const char *folder) {
    int code = 0;
    for (size_t i = 0; i < found->drafts && code == 0; i++) {
        uint64_t step;
        if (!waits_for_name(&step, folder, found->draft[i])) continue;
        char *path = path_of(folder, step);
        code = settle_draft(folder, found->draft[i], path);
        free(path);
    }
    return code;
}

int checkpoint_settle(const char *folder) {
    struct found found;
    TRY(scan(&found, folder));
    int code = name_waiting(&found, folder);
    found_free(&found);
    return code;
}

/* 0: it cannot be read. */
static size_t count_entries(const char *path) {
    DIR *dir = opendir(path);
    size_t count = 0;
    int code = 0;
    if (!dir) return 0;
    while (folder_next(dir, path, &code)) count++;
    closedir(dir);
    return code < 0 ? 0 : count;
}

/* Under a draft's name first: a crash in the middle must not leave half a checkpoint. One of which nothing can be removed gets its name
 * back. */
static int remove_whole(const char *path) {
    char *away = mem_format("%s.draft-removed", path);
    int code = folder_remove(away);
    if (code == 0 && rename(path, away) != 0) code = err_errno("rename %s", path);
    if (code == 0) {
        size_t entries = count_entries(away);
        code = folder_remove(away);
        struct err why = err_take();
        if (code < 0 && count_entries(away) == entries && rename(away, path) != 0) log_warn("%s: %s", away, strerror(errno));
        if (code < 0) err_give(&why);
    }
    if (code < 0) code = err_add(code, "%s is not removed", path);
    free(away);
    return code;
}

static int remove_step(const char *folder, uint64_t step) {
    char *path = path_of(folder, step);
    int code = remove_whole(path);
    free(path);
    return code;
}

/* By its name in a folder of results: a draft, a link, or what has our record. */
static bool is_of_the_run(const char *path, bool draft) {
    struct stat st;
    return draft || (lstat(path, &st) == 0 && S_ISLNK(st.st_mode)) || checkpoint_is_own(path);
}

static void note_first(struct err *first, int code) {
    if (code < 0 && first->code == 0) *first = err_take();
}

int checkpoint_prune(const char *folder, uint64_t keep) {
    struct found found;
    struct err first = {0};
    TRY(checkpoint_settle(folder));
    TRY(scan(&found, folder));
    for (size_t i = 0; i < found.drafts; i++) note_first(&first, settle_draft(folder, found.draft[i], NULL));
    if (keep > 0 && found.steps > keep) {
        size_t good = newest_good(&found, folder, NULL); /* only what is older than a good one may go */
        for (size_t i = good + 1 > keep ? good + 1 : keep; i < found.steps; i++) note_first(&first, remove_step(folder, found.step[i]));
    }
    found_free(&found);
    return first.code < 0 ? err_give(&first) : 0;
}

int checkpoint_remove_all(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) return errno == ENOENT ? 0 : err_errno("open folder %s", folder);
    int code = 0;
    for (struct dirent *entry; (entry = folder_next(dir, folder, &code));) {
        uint64_t step;
        const char *rest;
        if (!parse_name(&step, &rest, entry->d_name) || (*rest && !is_draft(rest))) continue;
        char *path = mem_format("%s/%s", folder, entry->d_name);
        if (is_of_the_run(path, *rest)) code = *rest ? folder_remove(path) : remove_whole(path);
        free(path);
    }
    closedir(dir);
    return code;
}
