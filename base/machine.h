/* What this machine has for this process: memory. */
#ifndef MILLRACE_BASE_MACHINE_H
#define MILLRACE_BASE_MACHINE_H

#include <stdint.h>

struct machine_memory {
    uint64_t physical_bytes;
    uint64_t available_bytes;  /* without pushing anything out, as the kernel estimates it; at most limit_bytes */
    uint64_t process_bytes;    /* address space that one process may have (RLIMIT_AS, ulimit -v); 0: as much as it likes */
    uint64_t limit_bytes;      /* the least of physical memory and the limits of this process's control groups, versions 1 and 2 */
};

/* root: "", or a folder that stands for "/" in tests. ERR_UNSUPPORTED where the kernel does not report it. */
int machine_memory(struct machine_memory *out, const char *root);

/* The most that this process had resident since it began its program; 0 where the kernel does not report it. (What getrusage() reports
 * begins with whatever process started it.) */
uint64_t machine_peak_rss_bytes(void);

#endif
