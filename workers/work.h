/* The work thread, from beginning to end. What its files say to the network thread is in shared.h, what they ask the coordinator in
 * questions.h. */
#ifndef MILLRACE_WORKERS_WORK_H
#define MILLRACE_WORKERS_WORK_H

#include "workers/shared.h"

void *work_main(void *worker);  /* until worker->stopping; gives back all that is the work thread's */

#endif
