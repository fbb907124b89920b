/* One thread for work on files that takes long: reading all of a dataset, hashing shards, publishing and verifying checkpoints, removing
 * old ones.
 * The loop posts tasks, goes on answering and deciding, and takes their results; tasks are done one after the other, in the order in which
 * they were posted.
 *
 * A task touches what it was given and nothing that the loop changes meanwhile. Its `done` is called exactly once, by the thread of the
 * loop: with its code (err_text() is the task's), or with ERR_INTERRUPTED when the queue was closed before it was through. */
#ifndef MILLRACE_COORDINATOR_FILES_H
#define MILLRACE_COORDINATOR_FILES_H

#include <stdatomic.h>
#include <stdbool.h>

enum { FILES_QUEUE_MAX = 64 }; /* the loop posts no more than keeps the thread busy until it looks again */

struct files;

struct file_task {
    int (*run)(void *arg, const atomic_bool *stop);     /* looks at *stop where it can */
    void (*done)(void *owner, void *arg, int code);
    void *arg;                                          /* done() gives it back */
    bool may_be_left; /* it only reads, and only what it owns: a process that ends does not wait for it, and done() is not called */
};

/* wake: whenever a result is there. ERR_LIMIT when there can be no thread. */
int files_open(struct files **out, void (*wake)(void *arg), void *wake_arg);
bool files_post(struct files *files, const struct file_task *task);            /* false: the queue is full */
void files_poll(struct files *files, void *owner);                             /* calls done() of what is through */
void files_drain(struct files *files, void *owner);                            /* waits until all are through, and polls */
void files_close(struct files *files, void *owner);                            /* NULL is fine */

#endif
