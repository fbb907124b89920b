/* Files that are whole or absent. A draft is a temporary file in the folder of its target: it appears under its name only
 * by draft_publish(): fsync, rename, fsync of the folder. A failed fsync ends the process: what is on the disk is then
 * unknown, and trying again would hide it. */
#ifndef MILLRACE_BASE_FILE_H
#define MILLRACE_BASE_FILE_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"

/* For reading. Only a file is opened: a pipe, socket or device of that name is ERR_CORRUPT, and is not waited for. The caller closes it. */
int file_open(int *out_fd, const char *path);
FILE *file_stream(const char *path);     /* the same for stdio; NULL: it cannot be had */
int file_read(struct buf *out, const char *path, size_t max_bytes);  /* appends; longer files are ERR_LIMIT */
int file_read_at(int fd, void *out, size_t *out_got, size_t size_bytes, uint64_t offset);  /* short only at the end */
int file_write_at(int fd, const void *bytes, size_t size_bytes, uint64_t offset);
int file_copy_bytes(int to_fd, int from_fd);  /* all of one file to the beginning of the other */
/* A temporary file without a name in TMPDIR (/tmp): gone when it is closed, or the process ends. */
int file_open_unnamed(int *out);
/* As file_write_at(), to such a file: an error names the folder, what is free there, and what to do. */
int file_write_unnamed(int fd, const void *bytes, size_t size_bytes, uint64_t offset);
int folder_make_temporary(char **out);   /* a private folder in TMPDIR (/tmp), which the caller removes; free() the name */
int file_publish(const char *path, const void *bytes, size_t size_bytes);  /* draft, write, publish */
int file_rename(const char *from, const char *to);  /* within one folder, which is fsynced; what is at `to` goes */
bool file_exists(const char *path);
/* Before a draft of a file that a person named: ERR_DENIED when a folder, device, pipe or socket has that name, also through a link. It
 * would be replaced, or not take a file. */
int file_check_output(const char *path);
/* Before a file of our own is written: ERR_DENIED, with what is in its place and what to do, when a file cannot take that. */
enum file_place {
    FILE_PUBLISHED,  /* from a draft, which replaces all but a folder */
    FILE_OPENED,     /* a file or a device, also through a link; a link that leads nowhere is somebody else's to judge */
    FILE_OPENED_HERE /* a file alone, under this name */
};
int file_check_place(const char *path, enum file_place how);
int file_size(uint64_t *out, const char *path);

int folder_make(const char *path);       /* with its parents, durable; fine if it is there */
int folder_make_private(const char *path);  /* the same, and only its owner may look into it, whatever the umask, and it was before */
int folder_sync(const char *path);
/* The next entry of a folder that opendir() opened; NULL: it has no more, or cannot be read further, or *code was an error before. Never
 * readdir() itself: a disk or network that fails in the middle must not look like the folder's end. */
struct dirent *folder_next(DIR *dir, const char *path, int *code);
int folder_remove(const char *path);     /* with everything in it; a link alone, not what it leads to; fine if it is absent */
int folder_sync_all(const char *path);  /* fsyncs every file in it, and its names; not what lies in a folder inside it */
int folder_publish(const char *draft_path, const char *path);  /* folder_sync_all(), renames, fsyncs the parent */

struct draft {
    int fd;
    char *path, *draft_path;
};
int draft_open(struct draft *out, const char *path);
int draft_open_private(struct draft *out, const char *path);  /* of a file that only its owner may read, whatever the umask */
int draft_write_at(const struct draft *draft, const void *bytes, size_t size_bytes, uint64_t offset); /* an error names the file */
int draft_publish(struct draft *draft);  /* closes it too, also on failure */
int draft_publish_first(struct draft *draft); /* the same, but never in the place of another file: 1 when one is there */
void draft_discard(struct draft *draft); /* fine after publish */
/* Removes what crashes have left in the folder: files and folders with a draft's name whose process does not live. *out: how many. */
int drafts_sweep(size_t *out, const char *folder);  /* the first failure is returned when all that can be removed is */

#endif
