/* Copies standard input to a draft and publishes it, unless it is asked to stop before. Keeps nothing but that wish. The copy is the only
 * one: its SHA-256 goes with it, as an extended attribute, through all renames, and is compared before text is read from it. On a file
 * system without such attributes it is believed as it is. */
#include "coordinator/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "coordinator/coordinator.h"
#include "dataset/shard/manifest.h"
#include "dataset/source/content.h"

enum {
    LOOK_MS = 100,  /* between two looks whether to stop */
    GIVES_MS = 200, /* for a program at the other end of a pipe to write something, or to end */
};

static const char digest_name[] = "user.millrace.sha256";

static volatile sig_atomic_t stopped;

void spool_stop(bool stop) { stopped = stop; }

static bool wants_standard_input(const struct config *config) {
    for (size_t i = 0; i < config->dataset.sources.count; i++)
        for (size_t p = 0; p < config->dataset.sources.item[i].paths.count; p++)
            if (strcmp(config->dataset.sources.item[i].paths.item[p], "-") == 0) return true;
    return false;
}

static int stopped_reading(void) {
    return err_set(ERR_INTERRUPTED,
                   "stopped while standard input was read; nothing of it is kept: give the same command the same text again");
}

/* At its end it gives 0 bytes. */
static int read_some(ssize_t *out_got, uint8_t *bytes, size_t size_bytes) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    for (;;) {
        if (stopped) return stopped_reading();
        int ready = poll(&input, 1, LOOK_MS);
        if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
        *out_got = read(STDIN_FILENO, bytes, size_bytes);
        if (*out_got >= 0) return 0;
        if (errno != EINTR) return err_errno("standard input");
    }
}

/* Ctrl-C ends the program that writes, too, and its end may be seen before the wish to stop: what came is not the whole text then. */
static int look_once_more(void) {
    struct stat st;
    if (fstat(STDIN_FILENO, &st) == 0 && !S_ISREG(st.st_mode) && !stopped) poll(NULL, 0, LOOK_MS);
    return stopped ? stopped_reading() : 0;
}

static int copy_standard_input(const struct draft *draft) {
    uint8_t *bytes = mem_alloc(1 << 20), digest[SHA256_BYTES];
    struct sha256 *sha = sha256_open();
    uint64_t size = 0;
    ssize_t got = 0;
    int code;
    process_tell_reading();
    while ((code = read_some(&got, bytes, 1 << 20)) == 0 && got > 0) {
        if ((code = draft_write_at(draft, bytes, (size_t)got, size)) < 0) break;
        sha256_add(sha, bytes, (size_t)got);
        size += (uint64_t)got;
    }
    if (code == ERR_NOSPACE) {
        struct err full = err_take();
        code = err_set(code,
                       "%s: standard input is longer than the %llu MiB that were free there; make room, or choose another output_dir, "
                       "then give the same command the same text again", full.text, (unsigned long long)size >> 20);
    }
    if (code == 0) code = look_once_more();
    sha256_finish(sha, digest);
    sha256_close(sha);
    if (code == 0 && fsetxattr(draft->fd, digest_name, digest, sizeof digest, 0) != 0)
        log_debug("standard input's copy has no digest: %s", strerror(errno));
    if (code == 0 && size == 0)
        code = err_set(ERR_CONFIG, "dataset.sources has \"-\", but standard input is empty or closed: pipe the text into millrace");
    free(bytes);
    return code;
}

static int spool_to(const struct config *config, const char *path) {
    char *folder = mem_format("%s/state", config->output_dir);
    struct draft draft;
    int code = folder_make_private(folder);
    free(folder);
    if (code < 0) return coordinator_refuse_output(config, code);
    TRY(draft_open(&draft, path));
    code = copy_standard_input(&draft);
    if (code == 0) return draft_publish(&draft);
    draft_discard(&draft);
    return code;
}

static char *refused_path(const struct config *config) { return mem_format("%s/state/stdin.refused", config->output_dir); }

static bool standard_input_gives(void) {
    struct stat st;
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    if (fstat(STDIN_FILENO, &st) != 0) return false;
    if (S_ISREG(st.st_mode)) return st.st_size > lseek(STDIN_FILENO, 0, SEEK_CUR);
    if (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode)) return false;
    return poll(&input, 1, GIVES_MS) > 0 && (input.revents & POLLIN);
}

/* What was refused may do with other keys, and need not be given again. */
static int read_or_take_refused(const struct config *config, const char *path) {
    char *refused = refused_path(config);
    int code = spool_to(config, path);
    if (code == ERR_CONFIG && file_exists(refused)) code = file_rename(refused, path);
    else if (code == 0) code = folder_remove(refused);
    free(refused);
    return code;
}

/* Before a dataset is made of it; after that nothing is read from it, unless the dataset is made again. A damaged copy is put aside. */
static int check_copy(const struct config *config, const char *path) {
    uint8_t told[SHA256_BYTES], real[SHA256_BYTES];
    char *manifest = mem_format("%s/dataset/" MANIFEST_NAME, config->output_dir), *aside = mem_format("%s.damaged", path);
    int code = 0;
    if (!file_exists(manifest) && getxattr(path, digest_name, told, sizeof told) == sizeof told) {
        code = sha256_of_file(real, path);
        if (code == 0 && memcmp(real, told, sizeof told) != 0 && (code = file_rename(path, aside)) == 0)
            code = err_set(ERR_CORRUPT, "the copy of standard input was damaged on the disk, and is %s now; give the same command the same "
                           "text again", aside);
    }
    free(aside);
    free(manifest);
    return code;
}

int coordinator_spool(const struct config *config) {
    if (!wants_standard_input(config)) return 0;
    char *path = mem_format("%s/state/stdin", config->output_dir);
    bool there = file_exists(path);
    int code = there ? 0 : spool_take_next(config); /* a restart was killed before it began */
    if (code == 0 && !there && !file_exists(path)) code = read_or_take_refused(config, path);
    else if (code == 0) code = check_copy(config, path);
    free(path);
    return code < 0 ? code : there && standard_input_gives();
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

int spool_forget(const struct config *config) {
    static const char *const names[] = {"stdin", "stdin.next", "stdin.refused"};
    int code = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && code == 0 && !wants_standard_input(config); i++) {
        char *path = mem_format("%s/state/%s", config->output_dir, names[i]);
        code = folder_remove(path);
        free(path);
    }
    return code;
}

int spool_refuse(const struct config *config) {
    if (!wants_standard_input(config)) return 0;
    char *path = mem_format("%s/state/stdin", config->output_dir), *refused = refused_path(config);
    int code = file_exists(path) ? file_rename(path, refused) : 0;
    free(path);
    free(refused);
    return code;
}

static bool takes_as_it_is(const struct config *config) {
    for (size_t i = 0; i < config->dataset.sources.count; i++) {
        const struct source_group *group = &config->dataset.sources.item[i];
        for (size_t p = 0; p < group->paths.count; p++)
            if (group->format == FORMAT_AUTO && strcmp(group->paths.item[p], "-") == 0) return true;
    }
    return false;
}

void spool_warning(struct buf *out, const struct config *config) {
    uint8_t head[CONTENT_HEAD_BYTES];
    if (!takes_as_it_is(config)) return;
    char *path = mem_format("%s/state/stdin", config->output_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : pread(fd, head, sizeof head, 0);
    if (fd >= 0) close(fd);
    free(path);
    if (got > 0 && content_of(head, (size_t)got).kind == CONTENT_TEXT && content_is_json_lines(head, (size_t)got))
        buf_print(out, "standard input looks like JSON lines, and is read as text, braces and all: to take the text out of them write "
                       "the entry of dataset.sources as { path: \"-\", format: jsonl }\n");
}

void spool_name(char *text, size_t size_bytes, const struct config *config) {
    static const char name[] = "standard input";
    char *path = mem_format("%s/state/stdin", config->output_dir);
    size_t path_bytes = strlen(path), name_bytes = sizeof name - 1;
    for (char *at = text; wants_standard_input(config) && (at = strstr(at, path)); at += name_bytes) {
        size_t rest = strlen(at + path_bytes) + 1;
        if ((size_t)(at - text) + name_bytes + rest > size_bytes) break;
        memmove(at + name_bytes, at + path_bytes, rest);
        memcpy(at, name, name_bytes);
    }
    free(path);
}
