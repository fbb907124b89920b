/* A source file that this process can read by itself: one at a path at which it finds the same file as the job means, or at a URL. */
#ifndef MILLRACE_DATASET_LOCAL_H
#define MILLRACE_DATASET_LOCAL_H

#include "dataset/source/reader.h"
#include "proto/millrace.pb-c.h"

struct local;

/* ERR_NOTFOUND: there is no file at that path here, or another one than the job means (by size and version). `tick` as http_open() has it:
 * called also by what is read later, and by local_check(). */
int local_open(struct local **out, const Millrace__SourcePart *part, int (*tick)(void *arg), void *tick_arg);
/* Is it still the file that was opened? Asks a server once more. ERR_CORRUPT: it is not, and nothing that was read of it counts. */
int local_check(struct local *local);
struct byte_reader local_reader(struct local *local);  /* valid until local_close() */
void local_close(struct local *local);                 /* NULL is fine */

/* The same as ingest_options has them: a reader whose arg is the struct local, for who asks nobody while it reads. */
int local_open_part(void *arg, struct byte_reader *out, const Millrace__SourcePart *part);
void local_close_part(void *arg, struct byte_reader *reader);

#endif
