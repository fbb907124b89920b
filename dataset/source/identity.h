/* Which file it is, and whether it changed: device, inode, size and times, to the nanosecond. What was read of a file counts only when
 * these are the same after as before. They hold on one machine and for a while; what is recorded of a file is its version. Thread-safe. */
#ifndef MILLRACE_DATASET_IDENTITY_H
#define MILLRACE_DATASET_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct file_identity {
    uint64_t device, inode, size;
    int64_t changed[2], modified[2]; /* ctime and mtime: seconds, nanoseconds */
};

struct file_identity identity_of(const struct stat *st);

/* A digest of size and modification time: the same on another machine that has a copy. */
uint64_t identity_version(const struct file_identity *identity);

/* Is the file at path, and open as fd (-1: it is not), still the one it was? ERR_CORRUPT says what happened to it, and what to do. */
int identity_check(const struct file_identity *before, const char *path, int fd);

/* Could the file change once more without any of these telling? A clock of the kernel is that coarse. now_ms: since 1970. */
enum { IDENTITY_COARSE_MS = 20 };   /* two ticks of the slowest one, of 100 Hz */
bool identity_is_fresh(const struct file_identity *identity, int64_t now_ms);

#endif
