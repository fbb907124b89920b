/* Memory that is there or the process ends and says so, for small things whose failure nobody can handle; large, input-sized
 * allocations use mem_try() and report ERR_MEMORY. Aligned to 64 bytes (a cache line, one AVX-512 register). */
#ifndef MILLRACE_BASE_MEM_H
#define MILLRACE_BASE_MEM_H

#include <stddef.h>

void *mem_alloc(size_t size_bytes);              /* zeroed; never NULL; release with free() */
void *mem_resize(void *old, size_t size_bytes);  /* as realloc(); never NULL */
char *mem_text(const char *text);                /* a copy */
char *mem_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define MEM_EXHAUSTED "out of memory: " /* in the text of mem_wanted() */

/* ERR_MEMORY, with the bytes that could not be had, what for (" for a message", or ""), and the limits of this process. */
int mem_wanted(size_t size_bytes, const char *what_for);

/* Zeroed, 64-byte aligned, for arrays of numbers. ERR_MEMORY names the bytes that were wanted. Release with free(). */
int mem_try(void *out_pointer, size_t count, size_t element_bytes);

#endif
