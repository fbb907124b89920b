/* Begins a run from nothing over an output_dir that holds results: removes what this program made there, by its exact names, and nothing
 * else; tokenized text stays, its keys say what it follows from. The store remembers that a restart was begun until all is done: after a
 * crash in the middle, whoever opens the store goes on with it (restart_go_on()). */
#include "coordinator/restart.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "coordinator/output.h"
#include "coordinator/spool.h"
#include "coordinator/store.h"
#include "dataset/shard/manifest.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/checkpoint/checkpoint.h"

/* Is `path`, which must not go, the folder or in it? What is not there is nowhere. */
static bool holds(const char *folder, const char *path) {
    char *outer = realpath(folder, NULL), *inner = realpath(path, NULL);
    size_t n = outer ? strlen(outer) : 0;
    bool inside = outer && inner && strncmp(inner, outer, n) == 0 && (inner[n] == 0 || inner[n] == '/');
    free(outer);
    free(inner);
    return inside;
}

/* Text and folders of a person's own that lie there stay, and so does the folder then. */
static int remove_from(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) return err_errno("open folder %s", folder);
    int code = 0;
    for (struct dirent *entry; (entry = folder_next(dir, folder, &code));) {
        if (!is_dataset_file(entry->d_name)) continue;
        char *path = mem_format("%s/%s", folder, entry->d_name);
        if (unlink(path) != 0 && errno != ENOENT) code = err_errno("remove %s", path);
        free(path);
    }
    closedir(dir);
    if (code == 0 && rmdir(folder) != 0 && errno != ENOTEMPTY && errno != EEXIST) code = err_errno("remove %s", folder);
    return code;
}

/* Calls in_folder() for the dataset in output_dir, or itself() where that is a link; nothing where it is not a result of the run. */
static int with_dataset(const struct config *config, int (*in_folder)(const char *folder), int (*itself)(const char *path)) {
    struct stat st;
    char *folder = mem_format("%s/dataset", config->output_dir);
    bool foreign = *config->dataset.prepared && holds(folder, config->dataset.prepared);
    int code = 0;
    if (!foreign && lstat(folder, &st) == 0) code = S_ISDIR(st.st_mode) ? in_folder(folder) : itself ? itself(folder) : 0;
    free(folder);
    return code;
}

static int remove_file(const struct config *config, const char *name) {
    char *path = mem_format("%s/%s", config->output_dir, name);
    int code = folder_remove(path);
    free(path);
    return code;
}

/* What status has of the earlier run is not true any more: until all is done it tells what goes on. Best effort, as the coordinator's. */
static int tell_in_status(const struct config *config) {
    static const char why[] = "a restart was begun and did not end; 'millrace run' without --restart goes on with it";
    json_t *status = json_pack("{ss ss ss ss}", "run_name", config->run_name, "output_dir", config->output_dir, "state", "stopped",
                               "reason", why);
    char *text = status ? json_dumps(status, 0) : NULL, *path = mem_format("%s/state/status.json", config->output_dir);
    int code = text && file_publish(path, text, strlen(text)) == 0 ? 0 : folder_remove(path);
    free(path);
    free(text);
    json_decref(status);
    return code;
}

int restart_is_begun(bool *out, struct store *store) {
    uint64_t begun = 0;
    TRY(store_get_number(store, RESTART_BEGUN, &begun));
    *out = begun != 0;
    return 0;
}

int restart_go_on(struct store *store, const struct config *config) {
    bool begun;
    TRY(restart_is_begun(&begun, store));
    if (!begun) return 0;
    TRY(tell_in_status(config));
    TRY(with_dataset(config, remove_from, folder_remove));
    TRY(checkpoint_remove_all(config->output_dir));
    TRY(remove_file(config, "metrics.jsonl"));
    TRY(remove_file(config, "state/status.json.reserve"));
    TRY(remove_file(config, "state/stdin.refused"));
    TRY(remove_file(config, "state/stdin.damaged"));
    TRY(spool_forget(config));
    TRY(spool_take_next(config));
    TRY(remove_file(config, "state/status.json"));
    TRY(folder_sync(config->output_dir));
    return store_forget_all(store);
}

int restart_begin(struct store *store, const struct config *config) {
    TRY(spool_next(config));
    TRY(store_set_number(store, RESTART_BEGUN, 1));
    return restart_go_on(store, config);
}

/* What would make the new run fail at once is found before anything is removed. */
static int look_first(struct config *config) {
    struct tokenizer *tokenizer;
    TRY(tokenizer_open_for(&tokenizer, config));
    tokenizer_close(tokenizer);
    return with_dataset(config, output_check_dataset, NULL);
}

int coordinator_restart(struct config *config) {
    TRY(look_first(config));
    TRY(output_check(config, true));
    char *folder = mem_format("%s/state", config->output_dir);
    struct store *store;
    int code = store_open(&store, folder);
    free(folder);
    TRY(code);
    code = restart_begin(store, config);
    store_close(store);
    return code;
}
