/* Reads state/status.json, which a coordinator wrote while it lived, and changes what is no longer true: state, rates, workers, and paths
 * when output_dir was moved. Whether the coordinator, or a `run` that starts it again, lives is asked of the kernel's list of locks;
 * which checkpoint is the newest one, of the folder. */
#include "cli/status_file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "coordinator/status.h"
#include "model/checkpoint/checkpoint.h"

static const char *text(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static void drop(json_t *object, const char *const *keys) {
    for (; *keys; keys++) json_object_del(object, *keys);
}

static const char KILLED[] = "the coordinator was killed, or its machine went down; " STATUS_DONE_AGAIN;

/* Who ends in order writes that it has ended. */
static bool is_unfinished(const json_t *status) {
    const char *state = text(status, "state");
    return strcmp(state, "running") == 0 || strcmp(state, "stopping") == 0;
}

/* What was true of a moment, and is of none any more. */
static void settle(json_t *status) {
    static const char *const of_run[] = {"endpoint", "pid", "waiting_for", NULL};
    static const char *const of_stage[] = {"rate", "eta_seconds", "jobs_leased", "doing", NULL};
    static const char *const of_training[] = {"tokens_per_second", "saving", "evaluation", "renewals", "step_rests_ms", "patience_ms",
                                              NULL};
    static const char *const of_worker[] = {"slices", "slices_missing", "in_view", "reduced", "left_out", "join_rests_ms", "heard_ms_ago",
                                            "endpoint", NULL};
    const char *was = text(status, "state"); /* as long as the object has it */
    const char *state = strcmp(was, "done") == 0 ? "done" : strcmp(was, "failed") == 0 ? "failed" : "stopped";
    if (is_unfinished(status)) json_object_set_new(status, "reason", json_string(KILLED));
    json_object_set_new(status, "state", json_string(state));
    if (json_object_get(status, "needs_workers")) json_object_set_new(status, "needs_workers", json_false());
    drop(status, of_run);
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(status, "stages"), i, item) {
        drop(item, of_stage);
        if (strcmp(text(item, "state"), "running") == 0) json_object_set_new(item, "state", json_string("stopped"));
    }
    json_t *training = json_object_get(status, "training");
    drop(training, of_training);
    if (training && strcmp(state, "done") != 0) json_object_set_new(training, "doing", json_string(state));
    json_array_foreach(json_object_get(status, "workers"), i, item) {
        drop(item, of_worker);
        if (strcmp(text(item, "state"), "lost") != 0) json_object_set_new(item, "state", json_string("left"));
    }
}

/* ---- who lives ---- */

#define COORDINATORS_LOCK "state/lock"
#define RUNS_LOCK "logs" /* the folder itself: a lock needs no file, and goes with who has it */

/* The device that the kernel's list of locks names for a file: that of its mount. On btrfs, say, stat() tells another one. */
static dev_t device_of(const char *path, dev_t told) {
    struct statx facts;
    unsigned mount, major_number, minor_number;
    char *line = NULL;
    size_t size = 0;
    bool known = statx(AT_FDCWD, path, 0, STATX_MNT_ID, &facts) == 0 && (facts.stx_mask & STATX_MNT_ID);
    FILE *mounts = known ? fopen("/proc/self/mountinfo", "re") : NULL;
    while (mounts && getline(&line, &size, mounts) > 0) {
        if (sscanf(line, "%u %*u %u:%u", &mount, &major_number, &minor_number) != 3 || mount != facts.stx_mnt_id) continue;
        told = makedev(major_number, minor_number);
        break;
    }
    if (mounts) fclose(mounts);
    free(line);
    return told;
}

/* Does a process hold the lock on that? Read from the kernel's list: trying to take the lock could make a coordinator fail that starts at
 * this moment. */
static bool is_locked(const char *output_dir, const char *name) {
    char *path = mem_format("%s/%s", output_dir, name), line[256], wanted[64];
    struct stat st;
    bool locked = false;
    FILE *locks = stat(path, &st) == 0 ? fopen("/proc/locks", "re") : NULL;
    dev_t device = locks ? device_of(path, st.st_dev) : 0;
    free(path);
    if (!locks) return false;
    snprintf(wanted, sizeof wanted, " %02x:%02x:%llu ", major(device), minor(device), (unsigned long long)st.st_ino);
    while (!locked && fgets(line, sizeof line, locks)) locked = strstr(line, "FLOCK") && strstr(line, wanted);
    fclose(locks);
    return locked;
}

int status_hold(const char *output_dir) {
    char *path = mem_format("%s/" RUNS_LOCK, output_dir);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(path);
    if (fd >= 0) flock(fd, LOCK_SH | LOCK_NB);
    return fd;
}

bool status_is_held(const char *output_dir) { return is_locked(output_dir, RUNS_LOCK); }

/* ---- a folder that was moved ---- */

/* 1: both are there and the same; 0: both are there; -1: not both are. */
static int same_folder(const char *a, const char *b) {
    struct stat x, y;
    if (stat(a, &x) != 0 || stat(b, &y) != 0) return -1;
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool status_is_of(const json_t *status, const char *output_dir) {
    return same_folder(text(status, "output_dir"), output_dir) != 0; /* on another machine it may have another name */
}

/* Where it is a path, or the beginning of one: not a part of another name. */
static json_t *moved(const char *value, const char *from, const char *to) {
    struct buf out = {0};
    static const char around[] = " :;,\n()'\"="; /* a path in a text */
    const char *begin = value;
    size_t n = strlen(from);
    int code = 0;
    for (const char *at; code == 0 && (at = strstr(value, from)); value = at + n) {
        bool begins = at == begin || strchr(around, at[-1]), whole = begins && (at[n] == 0 || at[n] == '/' || strchr(around, at[n]));
        code = buf_append(&out, value, (size_t)(at - value));
        if (code == 0) code = whole ? buf_append(&out, to, strlen(to)) : buf_append(&out, from, n);
    }
    if (code == 0) code = buf_append(&out, value, strlen(value));
    json_t *text_moved = code == 0 ? json_string((const char *)out.data) : NULL;
    buf_free(&out);
    return text_moved;
}

/* In all texts: also reasons name files. */
static void move_texts(json_t *value, const char *from, const char *to) {
    size_t i;
    const char *key;
    json_t *item, *fresh;
    void *next;
    if (json_is_array(value)) json_array_foreach(value, i, item) {
            if (!json_is_string(item)) move_texts(item, from, to);
            else if ((fresh = moved(json_string_value(item), from, to))) json_array_set_new(value, i, fresh);
        }
    else if (json_is_object(value)) json_object_foreach_safe(value, next, key, item) {
            if (!json_is_string(item)) move_texts(item, from, to);
            else if ((fresh = moved(json_string_value(item), from, to))) json_object_set_new(value, key, fresh);
        }
}

static void take_new_place(json_t *status, const char *output_dir) {
    char *was = mem_text(text(status, "output_dir")), *is = realpath(output_dir, NULL);
    if (is && *was && same_folder(was, is) != 1) move_texts(status, was, is);
    free(was);
    free(is);
}

/* Which checkpoint is the newest one now: one may have been removed, or have come since that was written. */
static void see_checkpoint(json_t *status, const char *output_dir) {
    json_t *training = json_object_get(status, "training");
    uint64_t saved;
    if (!training || checkpoint_newest_named(&saved, output_dir) < 0) return;
    char *path = mem_format("%s/checkpoint-%" PRIu64, text(status, "output_dir"), saved);
    json_object_set_new(training, "saved_step", json_integer((json_int_t)saved));
    json_object_set_new(training, "checkpoint", saved ? json_string(path) : json_null());
    free(path);
}

static int load(json_t **out, const char *output_dir) {
    struct buf file = {0};
    json_error_t fault;
    char *path = mem_format("%s/state/status.json", output_dir);
    int code = file_read(&file, path, STATUS_MAX_BYTES);
    if (code == ERR_NOTFOUND) code = err_set(ERR_NOTFOUND, "there is no run in %s; 'millrace run' starts one", output_dir);
    if (code == 0 && !(*out = json_loadb((const char *)file.data, file.size, 0, &fault)))
        code = err_set(ERR_CORRUPT, "%s: %s", path, fault.text);
    buf_free(&file);
    free(path);
    return code;
}

int status_read(json_t **out, const char *output_dir) {
    TRY(load(out, output_dir));
    bool locked = is_locked(output_dir, COORDINATORS_LOCK);
    if (is_unfinished(*out) && (locked || status_is_held(output_dir))) {
        const char *why = locked ? "an answer of the coordinator, which may be busy: this is what it wrote last"
                                 : "the coordinator, which ended and is started again: this is what it wrote last";
        json_object_set_new(*out, "waiting_for", json_string(why));
        json_object_set_new(*out, "unanswered", json_true());
        return 0;
    }
    settle(*out);
    take_new_place(*out, output_dir);
    see_checkpoint(*out, output_dir);
    return 0;
}

void status_stopped(const char *output_dir, const char *why) {
    json_t *status;
    if (load(&status, output_dir) < 0) return;
    char *path = mem_format("%s/state/status.json", output_dir);
    bool ended = !is_unfinished(status); /* in order, at the last moment */
    json_object_set_new(status, "state", json_string("stopped"));
    json_object_set_new(status, "reason", json_string(why));
    size_t size = ended ? 0 : json_dumpb(status, NULL, 0, JSON_REAL_PRECISION(9));
    char *text = mem_alloc(size);
    if (size && json_dumpb(status, text, size, JSON_REAL_PRECISION(9)) == size) status_put_last(path, text, size);
    json_decref(status);
    free(text);
    free(path);
}
