/* The dataset's jobs and evaluation: job_do() does a LEASE from beginning to end, on the work thread. */
#ifndef MILLRACE_WORKERS_JOBS_H
#define MILLRACE_WORKERS_JOBS_H

#include "workers/shared.h"

void job_do(struct worker *worker, const struct message *lease);
void jobs_close(struct worker *worker);  /* gives back what is kept from job to job; a later job begins anew */

#endif
