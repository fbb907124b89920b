/* What is written to standard error meanwhile, as a text: lines of the log. */
#ifndef MILLRACE_TESTS_STDERR_H
#define MILLRACE_TESTS_STDERR_H

#include <stdio.h>
#include <unistd.h>

struct stderr_kept {
    FILE *file;
    int before;
};

static inline struct stderr_kept stderr_keep(void) {
    struct stderr_kept kept = {tmpfile(), dup(STDERR_FILENO)};
    if (!kept.file || kept.before < 0 || dup2(fileno(kept.file), STDERR_FILENO) < 0) _exit(2);
    return kept;
}

static inline void stderr_back(char *out, size_t size, struct stderr_kept *kept) {
    dup2(kept->before, STDERR_FILENO);
    close(kept->before);
    rewind(kept->file);
    out[fread(out, 1, size - 1, kept->file)] = 0;
    fclose(kept->file);
}

#endif
