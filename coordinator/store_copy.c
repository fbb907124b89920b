/* The store as it is, for who only looks: of a folder that may be read alone, and while a coordinator writes there. SQLite would want to
 * write beside a database that it reads, and a coordinator has it for itself; so its files are copied to a temporary folder and opened
 * there. What is done to the copy, its repair included, is gone with it. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "coordinator/store.h"
#include "dataset/source/identity.h"

enum {
    COPIES_MAX = 100, /* a coordinator moves its log into the database after a checkpoint, some times a minute at most */
    LOG_HEAD_BYTES = 32, /* of SQLite's log, with the salt of all that is in it */
};

/* The same before and after copying: then the copies are of one moment, because the database did not change, and the log only grew. SQLite
 * leaves out what its checksums say was being written. */
struct moment {
    struct file_identity database;
    uint8_t log_head[LOG_HEAD_BYTES];
};

static int read_log_head(uint8_t out[LOG_HEAD_BYTES], const char *path) {
    int fd;
    size_t got;
    memset(out, 0, LOG_HEAD_BYTES);
    int code = file_open(&fd, path);
    if (code < 0) return code == ERR_NOTFOUND ? 0 : code;
    code = file_read_at(fd, out, &got, LOG_HEAD_BYTES, 0);
    close(fd);
    return code;
}

/* ERR_NOTFOUND: there is no database. */
static int look_at_moment(struct moment *out, const char *database, const char *log) {
    struct stat st;
    if (stat(database, &st) != 0) return err_errno("%s", database);
    *out = (struct moment){.database = identity_of(&st)};
    return read_log_head(out->log_head, log);
}

static int copy_file(const char *to, const char *from) {
    unlink(to); /* of the try before */
    int in, code = file_open(&in, from);
    if (code < 0) return code == ERR_NOTFOUND ? 0 : code;
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    code = out < 0 ? err_errno("create %s", to) : file_copy_bytes(out, in);
    if (out >= 0) close(out);
    close(in);
    return code < 0 ? err_add(code, "copying %s to look at it; TMPDIR names a folder for that", from) : 0;
}

/* 1: both were copied as they were at one moment, 0: not. */
static int copy_once(const char *to, const char *to_log, const char *from, const char *log) {
    struct moment before, after;
    TRY(look_at_moment(&before, from, log));
    if (identity_is_fresh(&before.database, clock_wall_ms())) return 0;
    TRY(copy_file(to, from));
    TRY(copy_file(to_log, log));
    TRY(look_at_moment(&after, from, log));
    return memcmp(&before, &after, sizeof before) == 0;
}

static int copy_records(const char *to_folder, const char *folder) {
    char *to = mem_format("%s/millrace.db", to_folder), *from = mem_format("%s/millrace.db", folder);
    char *to_log = mem_format("%s-wal", to), *log = mem_format("%s-wal", from);
    int code = 0;
    for (int i = 0; code == 0 && i < COPIES_MAX; i++) {
        if (i) clock_sleep_ms(IDENTITY_COARSE_MS);
        code = copy_once(to, to_log, from, log);
    }
    if (code == 0) code = err_set(ERR_IO, "%s changes faster than it can be read; try again", from);
    free(to);
    free(from);
    free(to_log);
    free(log);
    return code < 0 ? code : 0;
}

int store_open_copy(struct store **out, const char *folder) {
    char *temporary;
    struct store *store = NULL;
    TRY(folder_make_temporary(&temporary));
    int code = copy_records(temporary, folder);
    if (code == 0 || code == ERR_NOTFOUND) code = store_open(&store, temporary);
    int removed = folder_remove(temporary); /* SQLite has its files open, and needs their names no more */
    free(temporary);
    if (code == 0 && removed == 0) *out = store;
    else store_close(store);
    return code < 0 ? code : removed;
}
