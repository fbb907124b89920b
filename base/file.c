/* Reading, drafts and folders, in that order. A draft goes through open, write, draft_publish() (fsync, rename, fsync of the folder) or
 * draft_discard(). Keeps nothing between calls; whether a file is kept is decided by the callers. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/process.h"

static void sync_or_die(int fd, const char *path) {
    while (fsync(fd) != 0) {
        if (errno == EINTR) continue;
        if (errno == EINVAL || errno == EROFS) return; /* a special file: nothing to make durable */
        err_set(ERR_IO, "fsync %s: %s; stopping, start again to recover", path, strerror(errno));
        fprintf(stderr, "millrace: %s\n", err_text());
        process_last_words(err_text());
        _exit(1);
    }
}

int file_read_at(int fd, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    size_t got = 0;
    while (got < size_bytes) {
        ssize_t n = pread(fd, (char *)out + got, size_bytes - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno("read");
        if (n == 0) break;
        got += (size_t)n;
    }
    *out_got = got;
    return 0;
}

int file_write_at(int fd, const void *bytes, size_t size_bytes, uint64_t offset) {
    size_t done = 0;
    while (done < size_bytes) {
        ssize_t n = pwrite(fd, (const char *)bytes + done, size_bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno("write");
        done += (size_t)n;
    }
    return 0;
}

int file_copy_bytes(int to, int from) {
    enum { COPY_BYTES = 1 << 20 };
    uint8_t *bytes = mem_alloc(COPY_BYTES);
    size_t got = COPY_BYTES;
    int code = 0;
    for (uint64_t at = 0; code == 0 && got == COPY_BYTES; at += got) {
        code = file_read_at(from, bytes, &got, COPY_BYTES, at);
        if (code == 0) code = file_write_at(to, bytes, got, at);
    }
    free(bytes);
    return code;
}

static const char *kind_of(mode_t mode) {
    return S_ISDIR(mode) ? "folder" : S_ISFIFO(mode) ? "pipe" : S_ISSOCK(mode) ? "socket" : "device";
}

int file_open(int *out_fd, const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return err_errno("open %s", path);
    int code = fstat(fd, &st) != 0 ? err_errno("open %s", path) : 0;
    if (code == 0 && !S_ISREG(st.st_mode))
        code = err_set(ERR_CORRUPT, "%s is a %s, not a file; name a file, or move it away if it is in the way of one", path,
                       kind_of(st.st_mode));
    if (code == 0) *out_fd = fd;
    else close(fd);
    return code;
}

FILE *file_stream(const char *path) {
    int fd;
    if (file_open(&fd, path) < 0) return NULL;
    FILE *file = fdopen(fd, "r");
    if (!file) close(fd);
    return file;
}

int file_read(struct buf *out, const char *path, size_t max_bytes) {
    int fd;
    TRY(file_open(&fd, path));
    enum { CHUNK_BYTES = 1 << 16 };
    size_t before = out->size;
    int code = 0;
    for (;;) {
        if ((code = buf_reserve(out, CHUNK_BYTES)) < 0) break;
        ssize_t n = read(fd, out->data + out->size, CHUNK_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) code = err_errno("read %s", path);
        if (n <= 0) break;
        out->size += (size_t)n;
        if (out->size - before > max_bytes) {
            code = err_set(ERR_LIMIT, "%s is longer than %zu bytes", path, max_bytes);
            break;
        }
    }
    close(fd);
    if (code < 0) {
        out->size = before;
        return code;
    }
    out->data[out->size] = 0;
    return 0;
}

bool file_exists(const char *path) { return access(path, F_OK) == 0; }

int file_size(uint64_t *out, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return err_errno("%s", path);
    *out = (uint64_t)st.st_size;
    return 0;
}

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_text(".");
    if (slash == path) return mem_text("/");
    return mem_format("%.*s", (int)(slash - path), path);
}

/* A name is durable when the folder that holds it is. */
static int sync_name(const char *path) {
    char *parent = folder_of(path);
    int code = folder_sync(parent);
    free(parent);
    return code;
}

static int make_folders(const char *path, mode_t mode) {
    if (!*path) return err_set(ERR_IO, "a folder without a name cannot be made");
    char *copy = mem_text(path);
    int code = 0;
    for (char *p = copy + 1; code == 0; p++) {
        if (*p != '/' && *p != 0) continue;
        char kept = *p;
        *p = 0;
        if (mkdir(copy, kept ? 0777 : mode) == 0) code = sync_name(copy);
        else if (errno != EEXIST) code = err_errno("create folder %s", copy);
        if (kept == 0) break;
        *p = kept;
    }
    struct stat st;
    if (code == 0 && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        code = err_set(ERR_DENIED, "%s is there and is not a folder; move it away", path);
    free(copy);
    return code;
}

int folder_make(const char *path) { return make_folders(path, 0777); }

int folder_make_private(const char *path) {
    struct stat st;
    TRY(make_folders(path, 0700));
    if (stat(path, &st) != 0) return err_errno("look at %s", path);
    if ((st.st_mode & 0777) == 0700) return 0;
    return chmod(path, 0700) == 0 ? 0 : err_errno("make %s private", path);
}

int folder_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_errno("open folder %s", path);
    sync_or_die(fd, path);
    close(fd);
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk) {
    (void)st, (void)type, (void)walk;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1; /* another thread may remove the same */
}

int folder_remove(const char *path) {
    struct stat st;
    enum { OPEN_FOLDERS_MAX = 16 };
    while (lstat(path, &st) == 0) {
        if (nftw(path, remove_entry, OPEN_FOLDERS_MAX, FTW_DEPTH | FTW_PHYS) == 0) return 0;
        if (errno != ENOENT) return err_errno("remove %s", path);
    }
    return errno == ENOENT || errno == ENOTDIR ? 0 : err_errno("remove %s", path);
}

int file_rename(const char *from, const char *to) {
    if (rename(from, to) != 0) return err_errno("rename %s to %s", from, to);
    return sync_name(to);
}

int file_check_output(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0 || S_ISREG(st.st_mode)) return 0;
    return err_set(ERR_DENIED, "%s is a %s, not a file; name a file", path, kind_of(st.st_mode));
}

int file_check_place(const char *path, enum file_place how) {
    struct stat st;
    if ((how == FILE_OPENED ? stat(path, &st) : lstat(path, &st)) != 0 || S_ISREG(st.st_mode)) return 0;
    if (how == FILE_PUBLISHED && !S_ISDIR(st.st_mode)) return 0;
    if (how == FILE_OPENED && S_ISCHR(st.st_mode)) return 0;
    return err_set(ERR_DENIED, "%s is in the way: it is a %s, and a run writes a file of that name; move it away", path,
                   S_ISLNK(st.st_mode) ? "link" : kind_of(st.st_mode));
}

struct dirent *folder_next(DIR *dir, const char *path, int *code) {
    if (*code < 0) return NULL;
    errno = 0;
    struct dirent *entry = readdir(dir);
    if (!entry && errno) *code = err_errno("read folder %s", path);
    return entry;
}

int folder_sync_all(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return err_errno("open folder %s", path);
    int code = 0;
    for (struct dirent *entry; (entry = folder_next(dir, path, &code));) {
        if (entry->d_name[0] == '.') continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0) code = err_errno("open %s/%s", path, entry->d_name);
        else {
            sync_or_die(fd, entry->d_name);
            close(fd);
        }
    }
    closedir(dir);
    TRY(code);
    return folder_sync(path);
}

int folder_publish(const char *draft_path, const char *path) {
    TRY(folder_sync_all(draft_path));
    return file_rename(draft_path, path);
}

enum { PRIVATE = 0600 };

static int open_draft(struct draft *out, const char *path, mode_t mode) {
    static _Atomic unsigned counter; /* several drafts of one target may be under way in one process */
    struct draft draft = {.path = mem_text(path), .draft_path = mem_format("%s.draft-%d-%u", path, (int)getpid(), counter++)};
    draft.fd = open(draft.draft_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | (mode == PRIVATE ? O_EXCL : 0), mode);
    if (draft.fd < 0) {
        int code = err_errno("create %s", draft.draft_path);
        free(draft.path);
        free(draft.draft_path);
        return code;
    }
    *out = draft;
    return 0;
}

int draft_open(struct draft *out, const char *path) { return open_draft(out, path, 0666); }

/* Nobody else may open it before it holds anything. A draft that a crash has left may be somebody's who opened it then. */
int draft_open_private(struct draft *out, const char *path) { return open_draft(out, path, PRIVATE); }

int draft_write_at(const struct draft *draft, const void *bytes, size_t size_bytes, uint64_t offset) {
    int code = file_write_at(draft->fd, bytes, size_bytes, offset);
    return code < 0 ? err_add(code, "%s", draft->path) : 0;
}

int draft_publish(struct draft *draft) {
    sync_or_die(draft->fd, draft->draft_path);
    int code = file_rename(draft->draft_path, draft->path), place = code < 0 ? file_check_place(draft->path, FILE_PUBLISHED) : 0;
    if (place < 0) code = place; /* says more than rename() does */
    draft_discard(draft);
    return code;
}

int draft_publish_first(struct draft *draft) {
    sync_or_die(draft->fd, draft->draft_path);
    int code = 0;
    if (link(draft->draft_path, draft->path) == 0) code = sync_name(draft->path);
    else code = errno == EEXIST ? 1 : err_errno("link %s to %s", draft->draft_path, draft->path);
    draft_discard(draft);
    return code;
}

void draft_discard(struct draft *draft) {
    if (!draft->draft_path) return;
    close(draft->fd);
    unlink(draft->draft_path); /* gone already when it was published */
    free(draft->path);
    free(draft->draft_path);
    *draft = (struct draft){.fd = -1};
}

/* The process whose draft this is; 0: no draft's name. */
static pid_t writer_of(const char *name) {
    const char *mark = NULL;
    int pid, used = 0;
    unsigned number;
    for (const char *p = name; (p = strstr(p, ".draft-")); p++) mark = p;
    if (!mark || mark == name || sscanf(mark, ".draft-%d-%u%n", &pid, &number, &used) != 2 || mark[used] || pid <= 0) return 0;
    return pid;
}

int drafts_sweep(size_t *out, const char *folder) {
    *out = 0;
    DIR *dir = opendir(folder);
    if (!dir) return errno == ENOENT ? 0 : err_errno("open folder %s", folder);
    int code = 0;
    struct err first = {0}; /* what cannot be removed keeps no other */
    for (struct dirent *entry; (entry = folder_next(dir, folder, &code));) {
        pid_t writer = writer_of(entry->d_name);
        if (!writer || (writer != getpid() && (kill(writer, 0) == 0 || errno != ESRCH))) continue;
        char *path = mem_format("%s/%s", folder, entry->d_name);
        int removed = folder_remove(path);
        free(path);
        if (removed == 0) ++*out;
        else if (first.code == 0) first = err_take();
    }
    closedir(dir);
    return code == 0 && first.code < 0 ? err_give(&first) : code;
}

static const char *temporary_place(void) {
    const char *folder = getenv("TMPDIR");
    return folder && *folder ? folder : "/tmp";
}

/* errno has the reason; the advice to take another folder is only for faults of the folder. */
static int no_temporary(const char *what) {
    bool files = errno == EMFILE || errno == ENFILE;
    return err_errno("temporary %s in %s%s", what, temporary_place(), files ? "" : "; set TMPDIR to a folder with room");
}

int folder_make_temporary(char **out) {
    char *path = mem_format("%s/millrace-XXXXXX", temporary_place());
    if (mkdtemp(path)) {
        *out = path;
        return 0;
    }
    int code = no_temporary("folder");
    free(path);
    return code;
}

int file_open_unnamed(int *out) {
    const char *folder = temporary_place();
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) { /* a file system without O_TMPFILE */
        char *path = mem_format("%s/millrace-XXXXXX", folder);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0) unlink(path);
        free(path);
    }
    if (fd < 0) return no_temporary("file");
    *out = fd;
    return 0;
}

int file_write_unnamed(int fd, const void *bytes, size_t size_bytes, uint64_t offset) {
    struct statvfs disk;
    int code = file_write_at(fd, bytes, size_bytes, offset);
    if (code == 0) return 0;
    unsigned long long free_bytes = fstatvfs(fd, &disk) == 0 ? (unsigned long long)disk.f_bavail * disk.f_frsize : 0;
    return err_add(code, "temporary file in %s, where %llu MiB are free; set TMPDIR to a folder with room", temporary_place(),
                   free_bytes >> 20);
}

int file_publish(const char *path, const void *bytes, size_t size_bytes) {
    struct draft draft;
    TRY(draft_open(&draft, path));
    int code = draft_write_at(&draft, bytes, size_bytes, 0);
    if (code < 0) {
        draft_discard(&draft);
        return code;
    }
    return draft_publish(&draft);
}
