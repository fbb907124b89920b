/* A table without order in struct shared; what is read from it is read under the lock, from the disk's cache. */
#include "workers/outputs.h"

#include <unistd.h>

#include "base/file.h"

int outputs_read(struct worker *worker, void *out, size_t *out_got, uint64_t job, uint64_t offset, size_t size) {
    pthread_mutex_lock(&worker->lock);
    int code = 1;
    for (size_t i = 0; i < OUTPUTS_MAX; i++)
        if (worker->shared.output[i].job == job && job) code = file_read_at(worker->shared.output[i].fd, out, out_got, size, offset);
    pthread_mutex_unlock(&worker->lock);
    return code > 0 ? err_set(ERR_NOTFOUND, "no output of job %llu is kept here", (unsigned long long)job) : code;
}

/* attempt 0: of any */
static void forget(struct worker *worker, uint64_t job, uint64_t attempt) {
    pthread_mutex_lock(&worker->lock);
    for (size_t i = 0; i < OUTPUTS_MAX; i++) {
        struct output *output = &worker->shared.output[i];
        if (output->job != job || !job || (attempt && output->attempt != attempt)) continue;
        close(output->fd);
        *output = (struct output){0};
    }
    pthread_mutex_unlock(&worker->lock);
}

void outputs_settle(struct worker *worker, uint64_t job, uint64_t attempt) {
    if (attempt) forget(worker, job, attempt);
}

int outputs_keep(struct worker *worker, uint64_t job, uint64_t attempt, int fd, uint64_t size) {
    forget(worker, job, 0); /* an earlier attempt of ours */
    bool kept = false;
    pthread_mutex_lock(&worker->lock);
    for (size_t i = 0; i < OUTPUTS_MAX && !kept; i++)
        if (!worker->shared.output[i].job) {
            worker->shared.output[i] = (struct output){job, attempt, fd, size};
            kept = true;
        }
    pthread_mutex_unlock(&worker->lock);
    return kept ? 0 : err_set(ERR_LIMIT, "%d finished jobs wait for the coordinator already", OUTPUTS_MAX);
}

void outputs_settle_all(struct worker *worker) {
    for (size_t i = 0; i < OUTPUTS_MAX; i++) forget(worker, worker->shared.output[i].job, 0);
}
