/* The disk of the coordinator's machine: real files in a folder of memory, and between them and the coordinator all that a disk may do to a
 * process: writes that fail or take long, a disk that is full, and a loss of power after which what was not synced is there or is not.
 *
 * A name is durable when its folder was synced, what a file holds when the file was: until then it is kept here what was there before.
 * After a loss of power each folder is as it was after one of the changes since it was synced, and a file that was not synced may end
 * anywhere. SQLite's files come through a layer of its own: of what it wrote since the last sync any part may have reached the disk. */
#ifndef MILLRACE_TESTS_SIM_DISK_H
#define MILLRACE_TESTS_SIM_DISK_H

#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio_ext.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/file.h"
#include "tests/sim/process.h"

enum { CHANGES_CAP = 4096, UNSYNCED_CAP = 256, DATABASE_CAP = 1 << 14 };

struct change {           /* of a name, in a folder that was not synced since */
    enum { NAME_MADE, NAME_MOVED, NAME_REMOVED, NAME_SWAPPED } kind;
    char *path, *from;    /* from: MOVED, SWAPPED */
    char *kept;           /* what was at `path` before, under a name of its own; NULL: nothing */
};

struct unsynced {         /* a file with bytes that were not synced */
    int fd;               /* ours: it may be renamed meanwhile */
    ino_t inode;
    off_t safe_bytes;
};

struct database_write {   /* of SQLite, since the last sync of that file */
    char *path;
    int64_t offset, bytes, old_bytes, old_size; /* bytes < 0: the file was cut at `offset` */
    uint8_t *fresh, *old;
};

struct disk {
    int64_t full_until_ms;
    int failures;         /* of writes that are to come, but for SQLite's */
    bool touched;         /* this life of the coordinator met a full or failing disk: it may end for that */
    uint64_t kept;        /* names that were given */
    struct change change[CHANGES_CAP];
    size_t changes;
    struct unsynced unsynced[UNSYNCED_CAP];
    size_t unsynced_count;
    struct database_write *write[DATABASE_CAP];
    size_t writes;
};

static bool on_disk(void) { return running && running->process->place == COORDINATOR; }

/* ---- what may go wrong ---- */

/* Before each change: 0, or the errno with which it fails. */
static int disk_refuses(bool needs_room, bool database) {
    if (!on_disk()) return 0;
    struct sim *s = world;
    struct disk *d = s->disk;
    if (!may_say(running->process)) return EIO;
    if (needs_room && s->now_ms < d->full_until_ms) {
        s->faults[FAULT_FULL]++;
        d->touched = true;
        return ENOSPC;
    }
    if (needs_room && !database && d->failures > 0 && chance(s, 30)) {
        d->failures--;
        s->faults[FAULT_WRITE]++;
        d->touched = true;
        return chance(s, 50) ? EIO : ENOSPC;
    }
    return 0;
}

static int refused(bool needs_room) {
    int number = disk_refuses(needs_room, false);
    if (number) errno = number;
    return number;
}

/* The time that a sync takes, for whoever waits for it. */
static void disk_takes_time(void) {
    struct sim *s = world;
    if (!on_disk() || running->process->dying) return;
    int64_t ms = chance(s, 80) ? 0 : draw_in(s, 1, 10);
    if (s->plan.disks && !s->calm && chance(s, 1)) ms = draw_in(s, 1000, 6000), s->faults[FAULT_SLOW]++;
    compute(ms, NULL, NULL);
}

/* ---- names ---- */

/* A name beside all others, for what would be gone. */
static char *kept_name(struct sim *s) {
    return mem_format("%s/kept/%llu", s->folder, (unsigned long long)s->disk->kept++);
}

static size_t folder_bytes(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

static bool is_in(const struct change *change, const char *folder, size_t bytes) {
    return folder_bytes(change->path) == bytes && strncmp(change->path, folder, bytes) == 0;
}

static void change_forget(struct change *change) {
    free(change->path);
    free(change->from);
    free(change->kept); /* the file itself goes with all others, when the seed is done */
}

int __real_link(const char *from, const char *to);

/* Does what is there have to be kept before `path` is replaced or removed? Not a folder: it is empty when it goes. */
static char *keep(struct sim *s, const char *path) {
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)) return NULL;
    char *name = kept_name(s);
    CHECK(__real_link(path, name) == 0);
    return name;
}

static void note_change(struct sim *s, int kind, const char *path, const char *from, char *kept) {
    struct disk *d = s->disk;
    CHECK(d->changes < CHANGES_CAP);
    d->change[d->changes++] = (struct change){.kind = kind, .path = mem_text(path), .from = from ? mem_text(from) : NULL, .kept = kept};
}

static void folder_is_synced(struct sim *s, const char *folder) {
    struct disk *d = s->disk;
    size_t left = 0, bytes = strlen(folder);
    for (size_t i = 0; i < d->changes; i++) {
        if (is_in(&d->change[i], folder, bytes)) change_forget(&d->change[i]);
        else d->change[left++] = d->change[i];
    }
    d->changes = left;
}

/* Nothing is removed here: what the disk forgets goes to where the rest of the run is kept. */
static void undo(struct sim *s, const struct change *change) {
    char *away = kept_name(s);
    switch (change->kind) {
    case NAME_MADE: rename(change->path, away); break;
    case NAME_MOVED:
        rename(change->path, change->from);
        if (change->kept) rename(change->kept, change->path);
        break;
    case NAME_REMOVED:
        if (change->kept) rename(change->kept, change->path);
        else mkdir(change->path, 0777);
        break;
    case NAME_SWAPPED: renameat2(AT_FDCWD, change->from, AT_FDCWD, change->path, RENAME_EXCHANGE); break;
    }
    free(away);
}

/* ---- bytes ---- */

static void note_bytes(struct sim *s, int fd, off_t safe_bytes) {
    struct disk *d = s->disk;
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    for (size_t i = 0; i < d->unsynced_count; i++)
        if (d->unsynced[i].inode == st.st_ino) return;
    if (d->unsynced_count == UNSYNCED_CAP) { /* what was left long ago */
        close(d->unsynced[0].fd);
        memmove(d->unsynced, d->unsynced + 1, --d->unsynced_count * sizeof *d->unsynced);
    }
    d->unsynced[d->unsynced_count++] = (struct unsynced){fcntl(fd, F_DUPFD_CLOEXEC, 0), st.st_ino, safe_bytes};
}

static void file_is_synced(struct sim *s, ino_t inode) {
    struct disk *d = s->disk;
    for (size_t i = 0; i < d->unsynced_count; i++)
        if (d->unsynced[i].inode == inode) {
            close(d->unsynced[i].fd);
            d->unsynced[i] = d->unsynced[--d->unsynced_count];
            return;
        }
}

static void lose_bytes(struct sim *s, const struct unsynced *file) {
    struct stat st;
    CHECK(fstat(file->fd, &st) == 0);
    if (st.st_size <= file->safe_bytes || chance(s, 30)) return;
    off_t end = (off_t)draw_in(s, file->safe_bytes, st.st_size);
    CHECK(ftruncate(file->fd, end) == 0);
    if (chance(s, 50)) CHECK(ftruncate(file->fd, st.st_size) == 0); /* its length was on the disk, and not its end */
}

/* ---- SQLite ---- */

struct database_file {
    sqlite3_file base;
    char *path;
    sqlite3_file *real;
};

static sqlite3_vfs *database_below;

static void write_forget(struct database_write *w) {
    free(w->path);
    free(w->fresh);
    free(w->old);
    free(w);
}

static void database_is_synced(struct sim *s, const char *path) {
    struct disk *d = s->disk;
    size_t left = 0;
    for (size_t i = 0; i < d->writes; i++) {
        if (strcmp(d->write[i]->path, path) == 0) write_forget(d->write[i]);
        else d->write[left++] = d->write[i];
    }
    d->writes = left;
}

/* What was in the file from there on, before it is changed. */
static void note_write(struct sim *s, struct database_file *file, const void *bytes, int64_t size, int64_t offset) {
    struct disk *d = s->disk;
    CHECK(d->writes < DATABASE_CAP);
    struct database_write *w = mem_alloc(sizeof *w);
    *w = (struct database_write){.path = mem_text(file->path), .offset = offset, .bytes = size};
    sqlite3_int64 now = 0;
    CHECK(file->real->pMethods->xFileSize(file->real, &now) == SQLITE_OK);
    w->old_size = now;
    w->old_bytes = offset >= now ? 0 : size >= 0 && offset + size < now ? size : now - offset;
    w->old = mem_alloc((size_t)w->old_bytes + 1);
    if (w->old_bytes) CHECK(file->real->pMethods->xRead(file->real, w->old, (int)w->old_bytes, offset) == SQLITE_OK);
    if (size >= 0) memcpy(w->fresh = mem_alloc((size_t)size + 1), bytes, (size_t)size);
    d->write[d->writes++] = w;
}

static void put_back(const struct database_write *w) {
    int fd = open(w->path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    CHECK(file_write_at(fd, w->old, (size_t)w->old_bytes, (uint64_t)w->offset) == 0 && ftruncate(fd, w->old_size) == 0);
    close(fd);
}

static void put_again(struct sim *s, const struct database_write *w) {
    int fd = open(w->path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    size_t bytes = w->bytes < 0 ? 0 : chance(s, 90) ? (size_t)w->bytes : (size_t)draw_in(s, 0, w->bytes);
    if (w->bytes < 0) CHECK(ftruncate(fd, w->offset) == 0);
    else CHECK(file_write_at(fd, w->fresh, bytes, (uint64_t)w->offset) == 0);
    close(fd);
}

/* As it was at the last sync, and of what came after it some: any of it, or all up to a moment. */
static void lose_writes(struct sim *s) {
    struct disk *d = s->disk;
    bool in_order = chance(s, 50);
    size_t reached = d->writes ? (size_t)draw_in(s, 0, (int64_t)d->writes) : 0;
    for (size_t i = d->writes; i-- > 0;) put_back(d->write[i]);
    for (size_t i = 0; i < d->writes; i++) {
        if (in_order ? i < reached : chance(s, 50)) put_again(s, d->write[i]);
        write_forget(d->write[i]);
    }
    d->writes = 0;
}

static int database_refuses(bool needs_room) {
    int number = disk_refuses(needs_room, true);
    return number == 0 ? SQLITE_OK : number == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}

static sqlite3_file *real_of(sqlite3_file *file) { return ((struct database_file *)file)->real; }

static int database_close(sqlite3_file *file) {
    struct database_file *f = (struct database_file *)file;
    int code = f->real->pMethods->xClose(f->real);
    free(f->path);
    return code;
}
static int database_read(sqlite3_file *file, void *out, int bytes, sqlite3_int64 offset) {
    return real_of(file)->pMethods->xRead(real_of(file), out, bytes, offset);
}
static int database_put(sqlite3_file *file, const void *bytes, int size, sqlite3_int64 offset) {
    int code = database_refuses(true);
    if (code != SQLITE_OK) return code;
    if (on_disk()) note_write(world, (struct database_file *)file, bytes, size, offset);
    return real_of(file)->pMethods->xWrite(real_of(file), bytes, size, offset);
}
static int database_cut(sqlite3_file *file, sqlite3_int64 size) {
    int code = database_refuses(false);
    if (code != SQLITE_OK) return code;
    if (on_disk()) note_write(world, (struct database_file *)file, NULL, -1, size);
    return real_of(file)->pMethods->xTruncate(real_of(file), size);
}
static int database_sync(sqlite3_file *file, int flags) {
    (void)flags;
    int code = database_refuses(false);
    if (code != SQLITE_OK) return code;
    disk_takes_time();
    if (!on_disk()) return SQLITE_OK;
    if (running->process->dying) return SQLITE_IOERR_FSYNC;
    database_is_synced(world, ((struct database_file *)file)->path);
    return SQLITE_OK;
}
static int database_size(sqlite3_file *file, sqlite3_int64 *out) { return real_of(file)->pMethods->xFileSize(real_of(file), out); }
static int database_lock(sqlite3_file *file, int level) { return real_of(file)->pMethods->xLock(real_of(file), level); }
static int database_unlock(sqlite3_file *file, int level) { return real_of(file)->pMethods->xUnlock(real_of(file), level); }
static int database_reserved(sqlite3_file *file, int *out) { return real_of(file)->pMethods->xCheckReservedLock(real_of(file), out); }
static int database_control(sqlite3_file *file, int what, void *arg) {
    return real_of(file)->pMethods->xFileControl(real_of(file), what, arg);
}
static int database_sector(sqlite3_file *file) { return real_of(file)->pMethods->xSectorSize(real_of(file)); }
static int database_device(sqlite3_file *file) {
    (void)file;
    return 0; /* nothing is promised: no write is whole, none is in order */
}

static const sqlite3_io_methods database_methods = {
    .iVersion = 1, /* without shared memory: the store is one process's alone */
    .xClose = database_close,
    .xRead = database_read,
    .xWrite = database_put,
    .xTruncate = database_cut,
    .xSync = database_sync,
    .xFileSize = database_size,
    .xLock = database_lock,
    .xUnlock = database_unlock,
    .xCheckReservedLock = database_reserved,
    .xFileControl = database_control,
    .xSectorSize = database_sector,
    .xDeviceCharacteristics = database_device,
};

static int database_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags) {
    (void)vfs;
    struct database_file *f = (struct database_file *)file;
    *f = (struct database_file){.path = mem_text(name ? name : ""), .real = (sqlite3_file *)(f + 1)};
    bool dead = on_disk() && running->process->dying;
    int code = dead ? SQLITE_CANTOPEN : database_below->xOpen(database_below, name, f->real, flags, out_flags);
    if (code == SQLITE_OK) f->base.pMethods = &database_methods;
    else free(f->path);
    return code;
}
static int database_delete(sqlite3_vfs *vfs, const char *name, int sync) {
    (void)vfs;
    if (database_refuses(false) != SQLITE_OK) return SQLITE_IOERR_DELETE;
    if (world && on_disk()) database_is_synced(world, name);
    return database_below->xDelete(database_below, name, sync);
}

static void database_begin(void) {
    static sqlite3_vfs vfs;
    if (database_below) return;
    CHECK(sqlite3_initialize() == SQLITE_OK);
    database_below = sqlite3_vfs_find(NULL);
    vfs = *database_below;
    vfs.zName = "simulated";
    vfs.pNext = NULL;
    vfs.szOsFile = (int)sizeof(struct database_file) + database_below->szOsFile;
    vfs.xOpen = database_open;
    vfs.xDelete = database_delete;
    CHECK(sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
}

/* ---- what becomes of the disk ---- */

static void disk_clear(struct sim *s) {
    struct disk *d = s->disk;
    for (size_t i = 0; i < d->changes; i++) change_forget(&d->change[i]);
    for (size_t i = 0; i < d->unsynced_count; i++) close(d->unsynced[i].fd);
    for (size_t i = 0; i < d->writes; i++) write_forget(d->write[i]);
    d->changes = d->unsynced_count = d->writes = 0;
    d->full_until_ms = d->failures = 0;
    d->touched = false;
}

/* Its process is gone already. Each folder loses the changes after one that is drawn. */
static void lose_power(struct sim *s) {
    struct disk *d = s->disk;
    s->faults[FAULT_POWER]++;
    trace(s, "power is lost: %zu names, %zu files and %zu writes of the store are not synced", d->changes, d->unsynced_count, d->writes);
    lose_writes(s);
    for (size_t i = 0; i < d->unsynced_count; i++) lose_bytes(s, &d->unsynced[i]);
    for (size_t i = d->changes; i-- > 0;) {
        size_t bytes = folder_bytes(d->change[i].path);
        uint64_t folder = 0;
        for (size_t k = 0; k < bytes; k++) folder = mix(folder, (uint8_t)d->change[i].path[k]);
        size_t place = 0, all = 0; /* among the changes of its folder */
        for (size_t k = 0; k < d->changes; k++)
            if (is_in(&d->change[k], d->change[i].path, bytes)) place += k < i, all++;
        if (place >= mix(s->drawn, folder) % (all + 1)) undo(s, &d->change[i]);
    }
    draw(s);
    disk_clear(s);
}

/* ---- the C library's functions, as the coordinator calls them ---- */

static bool hides(const char *path) {
    const struct process *p = running ? running->process : NULL;
    if (!p || p->place == COORDINATOR || !(world->plan.afar >> p->place & 1)) return false;
    size_t above = strlen(world->folder);
    if (strncmp(path, world->folder, above) != 0 || strncmp(path + above, "/text", 5) != 0) return false;
    world->faults[FAULT_AFAR]++;
    return true;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    struct stat st;
    bool makes = on_disk() && flags & O_CREAT && lstat(path, &st) != 0;
    if (hides(path)) {
        errno = ENOENT;
        return -1;
    }
    if ((flags & (O_CREAT | O_TRUNC)) && refused(makes)) return -1;
    int fd = __real_open(path, flags, mode);
    if (fd >= 0 && makes) note_change(world, NAME_MADE, path, NULL, NULL);
    return fd;
}

ssize_t __real_pwrite(int fd, const void *bytes, size_t size, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t size, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    if (refused(true)) return -1;
    if (on_disk()) note_bytes(world, fd, 0);
    return __real_pwrite(fd, bytes, size, offset);
}

int __real_posix_fallocate(int fd, off_t offset, off_t size);
int __wrap_posix_fallocate(int fd, off_t offset, off_t size);
int __wrap_posix_fallocate(int fd, off_t offset, off_t size) {
    int number = refused(true);
    return number ? number : __real_posix_fallocate(fd, offset, size);
}

int __wrap_fsync(int fd);
int __wrap_fsync(int fd) { /* a failure would end the process: that is a crash like any other */
    struct stat st;
    char link[32], path[512];
    if (!on_disk() || !may_say(running->process)) return 0;
    disk_takes_time();
    if (running->process->dying) return 0;
    CHECK(fstat(fd, &st) == 0);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = S_ISDIR(st.st_mode) ? readlink(link, path, sizeof path - 1) : 0;
    path[n > 0 ? n : 0] = 0;
    if (n > 0) folder_is_synced(world, path);
    else file_is_synced(world, st.st_ino);
    return 0;
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to) {
    if (refused(false)) return -1;
    char *kept = on_disk() ? keep(world, to) : NULL;
    int code = __real_rename(from, to);
    if (code == 0 && on_disk()) note_change(world, NAME_MOVED, to, from, kept);
    else free(kept);
    return code;
}

int __real_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags);
int __wrap_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags);
int __wrap_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    if (refused(false)) return -1;
    if (on_disk() && world->seed % 4 == 0) { /* a file system that cannot exchange names */
        errno = EINVAL;
        return -1;
    }
    int code = __real_renameat2(from_folder, from, to_folder, to, flags);
    if (code == 0 && on_disk()) note_change(world, NAME_SWAPPED, to, from, NULL);
    return code;
}

int __wrap_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to) {
    if (refused(true)) return -1;
    int code = __real_link(from, to);
    if (code == 0 && on_disk()) note_change(world, NAME_MADE, to, NULL, NULL);
    return code;
}

int __real_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode) {
    struct stat st;
    if (on_disk() && lstat(path, &st) == 0) {
        errno = EEXIST;
        return -1;
    }
    if (refused(true)) return -1;
    int code = __real_mkdir(path, mode);
    if (code == 0 && on_disk()) note_change(world, NAME_MADE, path, NULL, NULL);
    return code;
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path) {
    if (refused(false)) return -1;
    char *kept = on_disk() ? keep(world, path) : NULL;
    int code = __real_unlink(path);
    if (code == 0 && on_disk()) note_change(world, NAME_REMOVED, path, NULL, kept);
    else free(kept);
    return code;
}

int __real_remove(const char *path);
int __wrap_remove(const char *path);
int __wrap_remove(const char *path) {
    if (refused(false)) return -1;
    char *kept = on_disk() ? keep(world, path) : NULL;
    int code = __real_remove(path);
    if (code == 0 && on_disk()) note_change(world, NAME_REMOVED, path, NULL, kept);
    else free(kept);
    return code;
}

int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size) { return refused(false) ? -1 : __real_ftruncate(fd, size); }

/* metrics.jsonl and status.json, which nothing rests on. */
FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode) {
    struct stat st;
    bool writes = on_disk() && *mode != 'r', makes = writes && lstat(path, &st) != 0;
    if (writes && refused(makes)) return NULL;
    FILE *file = __real_fopen(path, mode);
    if (!file || !writes) return file;
    if (makes) note_change(world, NAME_MADE, path, NULL, NULL);
    note_bytes(world, fileno(file), *mode == 'a' && !makes ? st.st_size : 0);
    return file;
}

int __real_fflush(FILE *file);
int __wrap_fflush(FILE *file);
int __wrap_fflush(FILE *file) {
    if (!on_disk()) return __real_fflush(file);
    if (!refused(true)) return __real_fflush(file);
    __fpurge(file);
    return EOF;
}

int __real_fclose(FILE *file);
int __wrap_fclose(FILE *file);
int __wrap_fclose(FILE *file) {
    if (on_disk() && running->process->dying && fileno(file) >= 0) __fpurge(file);
    return __real_fclose(file);
}

int __wrap_statvfs(const char *path, struct statvfs *out);
int __wrap_statvfs(const char *path, struct statvfs *out) {
    (void)path;
    *out = (struct statvfs){.f_bavail = 1024, .f_frsize = 1024};
    return 0;
}

#endif
