/* The work thread. */
#ifndef MILLRACE_WORKERS_WORK_H
#define MILLRACE_WORKERS_WORK_H

#include "workers/shared.h"

void *work_main(void *worker);  /* until worker->stopping; gives back all that is the work thread's */

#endif
