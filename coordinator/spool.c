/* Copies standard input to a draft and publishes it. Keeps nothing. */
#include "coordinator/spool.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "coordinator/coordinator.h"

static bool wants_standard_input(const struct config *config) {
    for (size_t i = 0; i < config->dataset.sources.count; i++)
        for (size_t p = 0; p < config->dataset.sources.item[i].paths.count; p++)
            if (strcmp(config->dataset.sources.item[i].paths.item[p], "-") == 0) return true;
    return false;
}

static int copy_standard_input(const struct draft *draft) {
    uint8_t *bytes = mem_alloc(1 << 20);
    uint64_t size = 0;
    ssize_t got;
    int code = 0;
    while (code == 0 && (got = read(STDIN_FILENO, bytes, 1 << 20)) > 0) {
        code = file_write_at(draft->fd, bytes, (size_t)got, size);
        size += (uint64_t)got;
    }
    if (code == 0 && got < 0) code = err_errno("standard input");
    if (code == 0 && size == 0)
        code = err_set(ERR_CONFIG, "dataset.sources has \"-\", but standard input is empty: pipe the text into millrace");
    free(bytes);
    return code;
}

static int spool_to(const struct config *config, const char *path) {
    char *folder = mem_format("%s/state", config->output_dir);
    struct draft draft;
    int code = folder_make_private(folder);
    free(folder);
    if (code == 0) code = draft_open(&draft, path);
    TRY(code);
    code = copy_standard_input(&draft);
    if (code == 0) return draft_publish(&draft);
    draft_discard(&draft);
    return code;
}

int coordinator_spool(const struct config *config) {
    if (!wants_standard_input(config)) return 0;
    char *path = mem_format("%s/state/stdin", config->output_dir);
    int code = file_exists(path) ? 0 : spool_take_next(config); /* a restart was killed before it began */
    if (code == 0 && !file_exists(path)) code = spool_to(config, path);
    free(path);
    return code;
}

int spool_next(const struct config *config) {
    if (!wants_standard_input(config)) return 0;
    char *path = mem_format("%s/state/stdin.next", config->output_dir);
    int code = spool_to(config, path);
    free(path);
    return code;
}

int spool_take_next(const struct config *config) {
    char *next = mem_format("%s/state/stdin.next", config->output_dir), *path = mem_format("%s/state/stdin", config->output_dir);
    int code = file_exists(next) ? file_rename(next, path) : 0;
    free(next);
    free(path);
    return code;
}
