/* What a process is born with, and what it may use. Whoever starts a program decides about its signals, its descriptors 0 to 2 and its
 * limits, by accident too; millrace sets what it relies on, keeps what was meant, and refuses by name what it cannot live with, before a
 * library that ends the process for it does. */
#ifndef MILLRACE_BASE_PROCESS_H
#define MILLRACE_BASE_PROCESS_H

#include <stdint.h>

enum {
    PROCESS_STACK_LEAST = 2 << 20,   /* also of a thread: 1 MiB of thread-local tables (proto/steps.c), frames up to 256 KiB */
    PROCESS_FILES_LEAST = 80,        /* some twenty descriptors; of a coordinator also 32 shards, checkpoints and sources (serve.c) */
    PROCESS_FILES_A_PEER = 2,        /* a connection each way */
    PROCESS_THREADS_LEAST = 6,       /* with whole stacks: ZeroMQ's two, one for files or work, and some of a small pool */
    PROCESS_THREADS_TRIED = 256,     /* at most: a trial is to take no longer than some milliseconds */
};

/* The first thing in main(). No signal is blocked; SIGCHLD, SIGTERM and SIGUSR1 do what they do by default, whatever was inherited. SIGHUP
 * and SIGINT stay ignored where they were: nohup wants the one, a shell's job in the background the other. Descriptors 0 to 2 are taken,
 * so that no other file gets one of these numbers: one that was closed reads as empty, and cannot be written to. */
void process_begin(void);

/* ERR_CONFIG, naming the limit, when the stack is too small for anything at all. */
int process_check_stack(void);

/* For what connects to `peers` others and needs `threads`, with those of the processes that it starts: raises the soft limit of open files
 * as far as that is allowed. ERR_CONFIG, naming the limit, when there are too few of files or threads: to start again would not help,
 * unless there were enough before. */
#define PROCESS_LIMITED "too little is allowed here: " /* how its text begins */
int process_check_limits(int64_t peers, int64_t threads);

/* The same for so many threads alone, at any time: before a library starts them that ends the process when it gets none. */
int process_check_threads(int count);

/* Before standard input is read to its end: where a person is to type it, says so on standard error, so that silence is no riddle. */
void process_tell_reading(void);

/* Leaves the text for the process that started this one, in a file descriptor that it passed in the variable PROCESS_LAST_WORDS: a file
 * in memory, which no full disk and no folder that went away can refuse. Nothing without one. */
#define PROCESS_LAST_WORDS "MILLRACE_LAST_WORDS"
void process_last_words(const char *text);

#endif
