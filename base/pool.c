/* A pool is one task at a time, an item counter that all threads take from, and two condition variables: `started` wakes the threads for a
 * task, `finished` wakes the caller when the last one has left it.
 *
 * Threads: those of the pool run thread_main(), the caller runs pool_run() and takes items too. All wait actively for SPINS_MAX first:
 * training starts a task every few dozen microseconds, and to wake a sleeping thread takes about as long. Everything but the atomics is
 * written under `lock`, and only while no thread is inside a task. */
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/err.h"
#include "base/mem.h"

enum { SPINS_MAX = 4000 }; /* some 20 us: two cores may hold two workers, so waiting must not eat the other's time */

struct pool {
    int threads;
    pthread_t *thread;
    pthread_mutex_t lock;
    pthread_cond_t started, finished;
    atomic_ulong task;      /* number of the current task; grows by one */
    atomic_size_t next, left;
    size_t items;
    void (*work)(void *, size_t);
    void *arg;
    void (*tick)(void *);   /* of the caller; NULL: none */
    void *tick_arg;
    int active;             /* threads other than the caller's inside the current task; guarded by lock */
    atomic_bool stop;
};

static void relax(void) {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

static void set_floating_point(void) {
#if defined(__x86_64__)
    _mm_setcsr(0x1F80); /* round to nearest, all masked, denormals kept */
#endif
}

static void item_done(const struct pool *pool) {
    if (pool->tick) pool->tick(pool->tick_arg);
}

static void take_items(struct pool *pool, bool caller) {
    for (;;) {
        size_t item = atomic_fetch_add(&pool->next, 1);
        if (item >= pool->items) return;
        pool->work(pool->arg, item);
        atomic_fetch_sub(&pool->left, 1);
        if (caller) item_done(pool);
    }
}

static void *thread_main(void *arg) {
    struct pool *pool = arg;
    unsigned long seen = 0;
    set_floating_point();
    for (;;) {
        for (int i = 0; i < SPINS_MAX && atomic_load(&pool->task) == seen && !atomic_load(&pool->stop); i++) relax();
        pthread_mutex_lock(&pool->lock);
        while (atomic_load(&pool->task) == seen && !atomic_load(&pool->stop)) pthread_cond_wait(&pool->started, &pool->lock);
        seen = atomic_load(&pool->task);
        bool stop = atomic_load(&pool->stop);
        pool->active++;
        pthread_mutex_unlock(&pool->lock);
        if (!stop) take_items(pool, false);
        pthread_mutex_lock(&pool->lock);
        if (--pool->active == 0) pthread_cond_signal(&pool->finished);
        pthread_mutex_unlock(&pool->lock);
        if (stop) return NULL;
    }
}

int pool_open(struct pool **out, int threads) { return pool_open_from(out, threads, NULL); }

int pool_open_from(struct pool **out, int threads, const char *option) {
    CHECK(threads >= 1 && threads <= POOL_THREADS_MAX);
    set_floating_point();
    struct pool *pool = mem_alloc(sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->started, NULL);
    pthread_cond_init(&pool->finished, NULL);
    pool->thread = mem_alloc((size_t)threads * sizeof *pool->thread);
    pool->threads = 1;
    for (int i = 1; i < threads; i++) {
        if (pthread_create(&pool->thread[i], NULL, thread_main, pool) != 0) {
            pool_close(pool);
            return err_set(ERR_LIMIT, "thread %d of %d could not be started%s%s", i + 1, threads, option ? "; lower " : "",
                           option ? option : "");
        }
        pool->threads++;
    }
    *out = pool;
    return 0;
}

void pool_run(struct pool *pool, size_t items, void (*work)(void *arg, size_t item), void *arg) {
    if (pool->threads == 1 || items <= 1) {
        for (size_t item = 0; item < items; item++) {
            work(arg, item);
            item_done(pool);
        }
        return;
    }
    pthread_mutex_lock(&pool->lock);
    while (pool->active) pthread_cond_wait(&pool->finished, &pool->lock); /* a late riser still reads the old task */
    pool->items = items, pool->work = work, pool->arg = arg;
    atomic_store(&pool->left, items);
    atomic_store(&pool->next, 0);
    atomic_fetch_add(&pool->task, 1);
    pthread_cond_broadcast(&pool->started);
    pthread_mutex_unlock(&pool->lock);
    take_items(pool, true);
    for (int i = 0; i < SPINS_MAX && atomic_load(&pool->left); i++) relax();
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->left)) pthread_cond_wait(&pool->finished, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void pool_on_tick(struct pool *pool, void (*tick)(void *arg), void *arg) { pool->tick = tick, pool->tick_arg = arg; }

int pool_threads(const struct pool *pool) { return pool->threads; }

void pool_close(struct pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->started);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 1; i < pool->threads; i++) pthread_join(pool->thread[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->started);
    pthread_cond_destroy(&pool->finished);
    free(pool->thread);
    free(pool);
}
