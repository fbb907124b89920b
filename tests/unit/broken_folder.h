/* Folders that cannot be read to their ends: for programs that are linked with --wrap=readdir (Makefile). */
#ifndef MILLRACE_TESTS_UNIT_BROKEN_FOLDER_H
#define MILLRACE_TESTS_UNIT_BROKEN_FOLDER_H

#include <dirent.h>
#include <errno.h>
#include <limits.h>

static int broken_folder_after = INT_MAX; /* so many entries of all folders come yet */

struct dirent *__real_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir) {
    if (broken_folder_after-- > 0) return __real_readdir(dir);
    errno = EIO;
    return NULL;
}

#endif
