/* What output_dir must be before anything is begun in it: a folder that may be written, with nothing in the place of what a run writes.
 * Hours later is too late to say so. And the words for a disk that is full then. */
#include "coordinator/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "dataset/shard/manifest.h"
#include "model/checkpoint/checkpoint.h"

/* Those that a coordinator publishes again and again, or a restart removes. */
static int look_at_files(const char *folder) {
    static const char *const names[] = {"metrics.jsonl", "state/endpoint", "state/status.json", "state/status.json.reserve", "state/stdin",
                                        "state/stdin.next", "state/stdin.refused", "state/stdin.damaged"};
    int code = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && code == 0; i++) {
        char *path = mem_format("%s/%s", folder, names[i]);
        code = file_check_place(path, FILE_PUBLISHED);
        free(path);
    }
    return code;
}

int output_endpoint(struct buf *out, const char *output_dir) {
    enum { ENDPOINT_MAX = 512 }; /* bytes; longer than any */
    char *path = mem_format("%s/state/endpoint", output_dir);
    int code = file_read(out, path, ENDPOINT_MAX);
    free(path);
    return code;
}

int output_check_dataset(const char *folder) {
    DIR *dir = opendir(folder);
    int code = 0;
    for (struct dirent *entry; dir && (entry = folder_next(dir, folder, &code));) {
        if (!is_dataset_file(entry->d_name)) continue;
        char *path = mem_format("%s/%s", folder, entry->d_name);
        code = file_check_place(path, FILE_PUBLISHED);
        free(path);
    }
    if (dir) closedir(dir);
    return code;
}

static int look_at_folder(const char *path) {
    struct stat st;
    if (lstat(path, &st) != 0 || (stat(path, &st) == 0 && S_ISDIR(st.st_mode))) return 0;
    return err_set(ERR_DENIED, "%s is no folder, and a run makes one of that name; move it away, or choose another output_dir", path);
}

/* What root may do access() does not know, nor a disk that is read-only: so it is tried. */
static int try_to_write(const char *folder, const char *path) {
    struct draft draft;
    int code = draft_open(&draft, path);
    if (code == 0) draft_discard(&draft);
    if (code == 0 || err_passes(code)) return 0; /* what passes may have passed by then */
    return err_add(code, "output_dir %s cannot be written; make it writable for this user, or choose another output_dir", folder);
}

int coordinator_refuse_output(const struct config *config, int code) {
    return err_set(code, "output_dir %s: %s; make it a folder that this user may write, or choose another output_dir", config->output_dir,
                   err_text());
}

/* What is older than the newest checkpoint is in nobody's way, unless all begins anew. */
static int look_at_checkpoints(const struct config *config, bool anew) {
    uint64_t newest = 0, every = (uint64_t)config->training.save_steps, last = (uint64_t)config->training.max_steps;
    int code = anew ? 0 : checkpoint_newest_named(&newest, config->output_dir);
    if (code == 0) code = checkpoint_check_places(config->output_dir, newest, every, last);
    return err_passes(code) ? 0 : code;
}

int output_check(const struct config *config, bool anew) {
    const char *folder = config->output_dir;
    int code = folder_make(folder);
    if (code < 0) return coordinator_refuse_output(config, code);
    char *metrics = mem_format("%s/metrics.jsonl", folder), *dataset = mem_format("%s/dataset", folder);
    code = look_at_files(folder);
    if (code == 0 && !*config->dataset.prepared) code = look_at_folder(dataset);
    if (code == 0 && !anew && !*config->dataset.prepared) code = output_check_dataset(dataset);
    if (code == 0) code = look_at_checkpoints(config, anew);
    if (code == 0) code = try_to_write(folder, metrics);
    free(dataset);
    free(metrics);
    return code;
}

void output_wait_words(char *out, size_t size, const struct config *config, int code, int again_s) {
    enum { ADVICE_BYTES = 128 }; /* what to do must not be cut */
    char room[64];
    struct statvfs disk;
    int cause = (int)(size > ADVICE_BYTES ? size - ADVICE_BYTES : 0);
    if (code != ERR_NOSPACE || statvfs(config->output_dir, &disk) != 0)
        snprintf(out, size, "%.*s; it is tried again every %d s", cause, err_text(), again_s);
    else {
        if (disk.f_files && disk.f_favail == 0) snprintf(room, sizeof room, "not one file more (inode) is free there");
        else snprintf(room, sizeof room, "%llu MiB are free there", (unsigned long long)disk.f_bavail * disk.f_frsize >> 20);
        snprintf(out, size, "%.*s; %s: make room, it is tried again every %d s", cause, err_text(), room, again_s);
    }
}
