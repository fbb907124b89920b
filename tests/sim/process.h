/* The simulation's processes. The shipped worker and the shipped coordinator run as they are: the two threads of each are coroutines, which
 * go on in turn, each until it waits for a message, for the other one, for the disk, or for something that takes long to compute. So all of
 * a run is one thread of this machine, and what happens when follows from the seed alone.
 *
 * Who is killed is dead at once for all others: what it says is not heard, what it writes is not written, and no time passes for it. It
 * goes on until it has ended, as after errors of its link and disk, so that what it held is given back and nothing leaks.
 *
 * The linker puts the functions named __wrap_ here before the C library's (the Makefile names them). */
#ifndef MILLRACE_TESTS_SIM_PROCESS_H
#define MILLRACE_TESTS_SIM_PROCESS_H

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/machine.h"
#include "tests/sim/world.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define FIBER_SWITCH(fiber) __tsan_switch_to_fiber(fiber, 0)
#define FIBER_HERE() __tsan_get_current_fiber()
#define FIBER_OPEN() __tsan_create_fiber(0)
#define FIBER_CLOSE(fiber) __tsan_destroy_fiber(fiber)
#else
#define FIBER_SWITCH(fiber) (void)(fiber)
#define FIBER_HERE() NULL
#define FIBER_OPEN() NULL
#define FIBER_CLOSE(fiber) (void)(fiber)
#endif

enum {
    STACK_BYTES = 1 << 20, /* the largest frames are those of a view and of a block of sums */
    MESSAGE_WAIT_MS = 200,  /* of the work thread for a message: WAIT_MS of workers/work.c and questions.c */
    DYING_ROUNDS = 10000,
    PID_FIRST = 100000,
    LEFT_MAX = 64,
};

static struct sim *world;               /* of the run that goes on */
static struct coroutine *running;       /* NULL: the simulation itself */
static ucontext_t simulation;
static void *simulation_fiber;

/* ---- going on and waiting ---- */

static void resume_at(struct coroutine *part, int64_t time_ms) {
    struct event *event = event_at(world, time_ms, EVENT_RESUME, part->process->place);
    event->coroutine = part;
    event->ticket = part->ticket;
    heap_push(world, event);
}

static void resume(struct coroutine *part) {
    part->ticket++;
    part->state = COROUTINE_RUNS;
    running = part;
    FIBER_SWITCH(part->fiber);
    swapcontext(&simulation, &part->context);
    running = NULL;
    if (part->state != COROUTINE_ENDED || !part->fiber) return;
    FIBER_CLOSE(part->fiber);
    part->fiber = NULL;
}

/* Each thread has an error and an errno of its own. */
static void suspend(void) {
    struct err kept = err_take();
    int number = errno;
    FIBER_SWITCH(simulation_fiber);
    swapcontext(&running->context, &simulation);
    err_give(&kept);
    errno = number;
}

/* True: it was woken; false: the time came. Whoever is dying waits for nothing. */
static bool wait_until(const void *on, int64_t time_ms) {
    struct coroutine *part = running;
    part->waits_on = on;
    part->woken = false;
    part->state = COROUTINE_WAITS;
    if (!part->process->dying) resume_at(part, time_ms);
    suspend();
    part->waits_on = NULL;
    return part->woken;
}

static void wake(const void *on) {
    for (int i = 0; i < PLACES; i++)
        for (int k = 0; k < 2; k++) {
            struct coroutine *part = &world->process[i].part[k];
            if (part->state != COROUTINE_WAITS || part->waits_on != on || part->woken) continue;
            part->woken = true;
            if (!part->process->dying) resume_at(part, world->now_ms);
        }
}

/* Something that takes as long is computed, in pieces between which work shows that it goes on. */
static void compute(int64_t ms, void (*tick)(void *arg), void *arg) {
    enum { PIECE_MS = 400 };
    for (int64_t piece; running && ms > 0; ms -= piece) {
        piece = ms < PIECE_MS ? ms : PIECE_MS;
        wait_until(NULL, world->now_ms + piece);
        if (tick) tick(arg);
    }
}

static void coroutine_begin(void) {
    struct coroutine *part = running;
    err_give(&(struct err){0});
    part->main(part->arg);
    part->state = COROUTINE_ENDED;
    wake(part);
    suspend();
}

static void coroutine_open(struct coroutine *part, struct process *process, void *(*function)(void *arg), void *arg) {
    if (!part->stack) {
        part->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(part->stack != MAP_FAILED);
    }
    part->process = process;
    part->main = function, part->arg = arg;
    part->waits_on = NULL, part->woken = false;
    part->ticket++;
    part->state = COROUTINE_WAITS;
    part->fiber = FIBER_OPEN();
    getcontext(&part->context);
    part->context.uc_stack = (stack_t){.ss_sp = part->stack, .ss_size = STACK_BYTES};
    part->context.uc_link = NULL;
    makecontext(&part->context, coroutine_begin, 0);
    if (!process->dying) resume_at(part, world->now_ms);
}

/* ---- dying ---- */

/* From here on it is dead; who goes on with the events sees to its end. */
static void process_die(struct process *p) {
    p->dying = true;
    p->stops = 2;
}

/* Before each write and each send of the coordinator: is this where it dies? Between two of those nobody can tell. */
static bool may_say(struct process *p) {
    struct sim *s = world;
    if (p->dying) return false;
    if (p->place != COORDINATOR || s->crash_in == 0 || s->calm || --s->crash_in > 0) return true;
    s->faults[FAULT_COORDINATOR]++;
    if (s->c && !s->c->trainer) s->faults[FAULT_COORDINATOR_DATASET]++;
    process_die(p);
    return false;
}

/* ---- processes ---- */

static void process_begin(struct process *p, void *(*function)(void *arg)) {
    p->life++;
    p->alive = true, p->dying = false;
    p->stops = 0;
    p->still_until_ms = 0;
    p->clock_ms = draw_in(world, 0, 1) * draw_in(world, 0, INT64_C(1) << 40); /* clocks of two machines have nothing in common */
    p->wall_ms = 0;
    p->spoil = p->bad = false;
    p->shown_step = UINT64_MAX;
    p->part[1].state = COROUTINE_FREE;
    for (int i = 0; i < PLACES; i++)
        if (i != p->place) line_break(world, p->place, i, 0);
    coroutine_open(&p->part[0], p, function, p);
}

/* Lets what is left of it end: all of it, or the thread that the process did not wait for. */
static void process_end(struct process *p) {
    process_die(p);
    int rounds = 0;
    for (bool more = true; more && rounds < DYING_ROUNDS; rounds++) {
        more = false;
        for (int k = 0; k < 2; k++) {
            if (p->part[k].state != COROUTINE_WAITS) continue;
            resume(&p->part[k]);
            more = true;
        }
    }
    if (rounds == DYING_ROUNDS) {
        fprintf(stderr, "seed %llu: %s does not end\n", (unsigned long long)world->seed, place_name(p->place));
        abort();
    }
    p->alive = false;
}

static void process_kill(struct process *p) {
    if (p->alive) process_end(p);
}

/* ---- threads ---- */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *arg), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *arg), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *arg), void *arg) {
    if (!running) return __real_pthread_create(thread, attributes, function, arg);
    struct coroutine *part = &running->process->part[1];
    CHECK(part->state == COROUTINE_FREE);
    part->detached = false;
    coroutine_open(part, running->process, function, arg);
    *thread = (pthread_t)(uintptr_t)part;
    return 0;
}

int __real_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result) {
    if (!running) return __real_pthread_join(thread, result);
    struct coroutine *part = (struct coroutine *)(uintptr_t)thread;
    while (part->state != COROUTINE_ENDED) wait_until(part, world->now_ms + MESSAGE_WAIT_MS);
    part->state = COROUTINE_FREE;
    return 0;
}

void *left_over[LEFT_MAX];
static size_t lefts;

/* What such a thread uses stays until the process is gone; here somebody must go on knowing it, or it would be called a leak. */
int __real_pthread_detach(pthread_t thread);
int __wrap_pthread_detach(pthread_t thread);
int __wrap_pthread_detach(pthread_t thread) {
    if (!running) return __real_pthread_detach(thread);
    struct coroutine *part = (struct coroutine *)(uintptr_t)thread;
    left_over[lefts++ % LEFT_MAX] = part->arg;
    part->detached = true;
    return 0;
}

int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock) {
    if (!running) return __real_pthread_cond_wait(condition, lock);
    pthread_mutex_unlock(lock);
    wait_until(condition, world->now_ms + CALM_MS);
    pthread_mutex_lock(lock);
    return 0;
}

int __real_pthread_cond_broadcast(pthread_cond_t *condition);
int __wrap_pthread_cond_broadcast(pthread_cond_t *condition);
int __wrap_pthread_cond_broadcast(pthread_cond_t *condition) {
    if (!running) return __real_pthread_cond_broadcast(condition);
    wake(condition);
    return 0;
}

int __real_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *until) {
    if (!running) return __real_pthread_cond_timedwait(condition, lock, until);
    pthread_mutex_unlock(lock);
    bool woken = wait_until(condition, world->now_ms + MESSAGE_WAIT_MS);
    pthread_mutex_lock(lock);
    return woken ? 0 : ETIMEDOUT;
}

int __real_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_signal(pthread_cond_t *condition) {
    if (!running) return __real_pthread_cond_signal(condition);
    wake(condition);
    return 0;
}

/* ---- the clock, chance, the machine, the log ---- */

int64_t clock_ms(void) { return !world ? 0 : world->now_ms + (running ? running->process->clock_ms : 0); }
double clock_seconds(void) { return (double)clock_ms() / 1000; }
int64_t clock_wall_ms(void) { /* the first seed comes from it, too */
    struct timespec t;
    if (running) return INT64_C(1700000000000) + world->now_ms + running->process->wall_ms;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
void clock_sleep_ms(int64_t ms) { compute(ms, NULL, NULL); }
void clock_stamp(char out[32]) { memcpy(out, "2000-01-01T00:00:00.000Z", 25); }

/* Processes that come and go have numbers of their own, or what one leaves would be another one's. */
pid_t __real_getpid(void);
pid_t __wrap_getpid(void);
pid_t __wrap_getpid(void) {
    return running ? PID_FIRST + (pid_t)running->process->life * PLACES + running->process->place : __real_getpid();
}

int __real_kill(pid_t pid, int signal_number);
int __wrap_kill(pid_t pid, int signal_number);
int __wrap_kill(pid_t pid, int signal_number) {
    if (!running) return __real_kill(pid, signal_number);
    const struct process *p = &world->process[(pid - PID_FIRST) % PLACES];
    CHECK(signal_number == 0 && pid >= PID_FIRST);
    if (p->alive && p->life == (uint32_t)(pid - PID_FIRST) / PLACES) return 0;
    errno = ESRCH;
    return -1;
}

ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags) {
    (void)flags;
    for (size_t i = 0; i < size; i++) ((uint8_t *)out)[i] = (uint8_t)draw(world);
    return (ssize_t)size;
}

uint64_t __wrap_machine_peak_rss_bytes(void);
uint64_t __wrap_machine_peak_rss_bytes(void) { return 1 << 20; }

int __wrap_machine_memory(struct machine_memory *out, const char *root);
int __wrap_machine_memory(struct machine_memory *out, const char *root) {
    (void)out, (void)root;
    return err_set(ERR_NOTFOUND, "no machine");
}

void log_setup(const char *who, enum log_level lowest) { (void)who, (void)lowest; }
void log_line(enum log_level level, const char *format, ...) {
    if (!world || !world->trace || level == LOG_DEBUG || !running || running->process->dying) return;
    va_list args;
    va_start(args, format);
    printf("%8lld %s says: ", (long long)world->now_ms, place_name(running->process->place));
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

#endif
