/* The thread for files: a ring of tasks behind one lock. Those at taken..posted wait or are under way, those at polled..taken are through
 * and wait for files_poll(). thread_main() is the thread, all other functions are the loop's. */
#include "coordinator/files.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

struct files {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t news;
    atomic_bool stop;
    bool ended;              /* the thread is */
    void (*wake)(void *arg);
    void *wake_arg;
    size_t posted, taken, polled; /* grow; place i is at i % FILES_QUEUE_MAX */
    struct file_task task[FILES_QUEUE_MAX];
    struct err result[FILES_QUEUE_MAX];
};

static void *thread_main(void *arg) {
    struct files *files = arg;
    pthread_mutex_lock(&files->lock);
    for (;;) {
        while (files->taken == files->posted && !atomic_load(&files->stop)) pthread_cond_wait(&files->news, &files->lock);
        if (atomic_load(&files->stop)) break;
        size_t at = files->taken % FILES_QUEUE_MAX;
        struct file_task task = files->task[at];
        struct err result = {0};
        pthread_mutex_unlock(&files->lock);
        int code = task.run(task.arg, &files->stop);
        if (code < 0) result = err_take();
        result.code = code;
        pthread_mutex_lock(&files->lock);
        files->result[at] = result;
        files->taken++;
        pthread_cond_broadcast(&files->news);
        if (!atomic_load(&files->stop)) files->wake(files->wake_arg);
    }
    files->ended = true;
    pthread_cond_broadcast(&files->news);
    pthread_mutex_unlock(&files->lock);
    return NULL;
}

int files_open(struct files **out, void (*wake)(void *arg), void *wake_arg) {
    struct files *files = mem_alloc(sizeof *files);
    files->wake = wake;
    files->wake_arg = wake_arg;
    pthread_mutex_init(&files->lock, NULL);
    pthread_cond_init(&files->news, NULL);
    int fault = pthread_create(&files->thread, NULL, thread_main, files);
    if (fault != 0) {
        free(files);
        return err_set(ERR_LIMIT, "the thread for files could not be started: %s; see ulimit -u and ulimit -v", strerror(fault));
    }
    *out = files;
    return 0;
}

bool files_post(struct files *files, const struct file_task *task) {
    pthread_mutex_lock(&files->lock);
    bool room = files->posted - files->polled < FILES_QUEUE_MAX;
    if (room) files->task[files->posted++ % FILES_QUEUE_MAX] = *task;
    pthread_cond_broadcast(&files->news);
    pthread_mutex_unlock(&files->lock);
    return room;
}

void files_poll(struct files *files, void *owner) {
    for (;;) {
        pthread_mutex_lock(&files->lock);
        bool some = files->polled < files->taken;
        size_t at = files->polled % FILES_QUEUE_MAX;
        struct file_task task = files->task[at];
        struct err result = files->result[at];
        files->polled += some;
        pthread_mutex_unlock(&files->lock);
        if (!some) return;
        if (result.code < 0) err_give(&result);
        task.done(owner, task.arg, result.code);
    }
}

void files_drain(struct files *files, void *owner) {
    pthread_mutex_lock(&files->lock);
    while (files->taken < files->posted) pthread_cond_wait(&files->news, &files->lock);
    pthread_mutex_unlock(&files->lock);
    files_poll(files, owner);
}

void files_close(struct files *files, void *owner) {
    if (!files) return;
    pthread_mutex_lock(&files->lock);
    atomic_store(&files->stop, true);
    pthread_cond_broadcast(&files->news);
    bool left = files->taken < files->posted && files->task[files->taken % FILES_QUEUE_MAX].may_be_left;
    while (!files->ended && !left) pthread_cond_wait(&files->news, &files->lock);
    bool ended = files->ended;
    size_t posted = files->posted, under_way = files->taken;
    pthread_mutex_unlock(&files->lock);
    if (ended) pthread_join(files->thread, NULL);
    else pthread_detach(files->thread); /* it reads on until the process is gone, and what it uses stays */
    for (size_t i = files->polled; i < posted; i++) {
        const struct file_task *task = &files->task[i % FILES_QUEUE_MAX];
        if (ended || i != under_way) task->done(owner, task->arg, err_set(ERR_INTERRUPTED, "the coordinator ends"));
    }
    if (ended) free(files);
}
