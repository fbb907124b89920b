/* Compares two results of stat(). Opens and keeps nothing. */
#include "dataset/source/identity.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"

struct file_identity identity_of(const struct stat *st) {
    return (struct file_identity){.device = (uint64_t)st->st_dev, .inode = (uint64_t)st->st_ino, .size = (uint64_t)st->st_size,
                                  .changed = {st->st_ctim.tv_sec, st->st_ctim.tv_nsec},
                                  .modified = {st->st_mtim.tv_sec, st->st_mtim.tv_nsec}};
}

uint64_t identity_version(const struct file_identity *identity) {
    uint64_t facts[3] = {identity->size, (uint64_t)identity->modified[0], (uint64_t)identity->modified[1]}, version;
    uint8_t digest[XXH128_BYTES];
    xxh128_of(digest, facts, sizeof facts);
    memcpy(&version, digest, sizeof version);
    return version;
}

static int differs(const char *path, const char *how) {
    return err_set(ERR_CORRUPT,
                   "%s %s while it was read; run the same command again when nobody writes to it: what did not change is not "
                   "tokenized again",
                   path, how);
}

static int compare(const struct file_identity *before, const struct stat *st, const char *path) {
    struct file_identity now = identity_of(st);
    if (now.device != before->device || now.inode != before->inode) return differs(path, "was replaced by another file");
    if (now.size > before->size) return differs(path, "grew");
    if (now.size < before->size) return differs(path, "became shorter");
    if (memcmp(&now, before, sizeof now) != 0) return differs(path, "changed");
    return 0;
}

/* First by its path: a file that lost its name changed, too. */
int identity_check(const struct file_identity *before, const char *path, int fd) {
    struct stat st;
    if (stat(path, &st) != 0) return errno == ENOENT || errno == ENOTDIR ? differs(path, "was removed") : err_errno("%s", path);
    TRY(compare(before, &st, path));
    if (fd < 0) return 0;
    return fstat(fd, &st) == 0 ? compare(before, &st, path) : err_errno("%s", path);
}

bool identity_is_fresh(const struct file_identity *identity, int64_t now_ms) {
    int64_t age_ms = now_ms - (identity->changed[0] * 1000 + identity->changed[1] / 1000000);
    return age_ms >= 0 && age_ms < IDENTITY_COARSE_MS;
}
