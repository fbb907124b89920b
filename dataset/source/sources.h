/* From dataset.sources to the list of source files. A path is a file, a folder (all files below it), a glob or a URL. "*", "?" and "[...]"
 * match within a name, "**" matches any number of folders, none included; a glob that matches a folder does not mean the files in it. A
 * name that is there as it stands is that file or folder, whatever is in it ("exp[1]"; but not "*" and "**" alone). Files come in the order
 * of entries and their paths, within a path sorted by path bytes; a file that several paths match counts once, where it comes first.
 * Symbolic links to folders are not followed by "**" and below a folder; names that begin with a dot must be asked for. */
#ifndef MILLRACE_DATASET_SOURCES_H
#define MILLRACE_DATASET_SOURCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "dataset/source/identity.h"

struct source {
    char *path;        /* absolute, or a URL */
    uint64_t size;     /* bytes */
    uint64_t version;  /* another one: the file changed. identity_version(), or http_version() */
    struct file_identity identity; /* as it was found; not of a URL */
    uint32_t group;    /* number of the entry of dataset.sources */
    bool is_url;
    bool named;        /* by a path of its own, not found in a folder or by a glob */
};
enum {
    SOURCES_MAX = 16 << 20,
    SOURCES_PASSED_MAX = 16,  /* that are listed: for people */
};
struct sources {
    struct source *source;
    size_t count, capacity;
    /* What lies among the sources and was passed over, once for each output_dir and other path that runs write to, once for each other
     * reason; in the order of paths. */
    struct source_passed {
        char *path;        /* the first one, sorted by path */
        const char *why;   /* "a link to a folder" */
        bool others;       /* there are more of them */
    } passed[SOURCES_PASSED_MAX];
    size_t passed_count;
};

/* What the run itself writes, and its pipeline.yaml. They are never sources, by whatever path, link or glob they are reached, or the run
 * would read itself and give another dataset each time. Nor is what another run writes, unless a path names it: a folder with a run's store
 * is such a run's output_dir, and in it dataset, state, logs, metrics.jsonl and checkpoints are what it writes. All else in an output_dir
 * is a source as elsewhere. */
struct sources_own {
    const char *output_dir;  /* absolute; need not be there */
    const char *file;        /* pipeline.yaml; NULL: none */
    const char *spool;       /* path of the copy of standard input, which lies in output_dir and is a source; NULL: none */
};

/* ERR_CONFIG when a path matches nothing, or what is no file, or what the run itself writes, or an entry only files of entries before it:
 * all of them are told; ERR_IO when a file cannot be read. Each names the path. Paths are absolute: "-" is replaced before. Asks servers of
 * URLs for size and version, one after the other. Waits until no file is so fresh that a change could go unnoticed. own may be NULL. */
int sources_find(struct sources *out, const struct source_group *groups, size_t count, const struct sources_own *own);
void sources_free(struct sources *sources);

bool sources_is_run(const char *folder); /* some run's output_dir: its store is there */
/* The output_dir of the run that writes `path`, an absolute one without links, itself or a folder above it; NULL: no run does. */
char *sources_writing_run(const char *path);

/* What people know a source by: its path, but "standard input" where it is the copy of that in a run's output_dir. */
const char *source_shown(const char *path);

#endif
