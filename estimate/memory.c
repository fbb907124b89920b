/* Counts a worker's memory for training (worker_memory()), and when there is too little, tries which changes of the pipeline would make it
 * fit (worker_memory_check()): each remedy is a function that changes a copy of the shape. Pure, but for lists that are freed at once; the
 * caller refuses to run. */
#include "estimate/memory.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "proto/reads.h"
#include "proto/steps.h"

/* Measured: text segment, OpenBLAS, stacks, the built-in tokenizer, and what the allocator keeps of tokenizing. */
#define PROCESS_BYTES (48.0 * (1 << 20))

struct worker_shape worker_shape_of(const struct config *config, int64_t members, int threads) {
    return (struct worker_shape){.model = gpt2_config_of(config),
                                 .optimizer = optimizer_of(config),
                                 .global_batch = config->training.global_batch,
                                 .slices = config->training.slices,
                                 .sequence_length = config->dataset.sequence_length,
                                 .cache_bytes = config->cluster.cache_mib << 20,
                                 .members = members < 1 ? 1 : members < MEMBERS_MAX ? members : MEMBERS_MAX,
                                 .threads = threads};
}

static int64_t slice_sequences(const struct worker_shape *shape) { return shape->global_batch / shape->slices; }

int64_t worker_batch(const struct worker_shape *shape) {
    return gpt2_batch_for(&shape->model, (int)slice_sequences(shape), (int)shape->sequence_length);
}

/* How members divide the slices of a step that has just begun. */
struct division {
    size_t nodes;    /* of all members */
    size_t held_max; /* partial sums that one of them holds at once, at most */
};

static struct division divide(const struct worker_shape *shape) {
    struct division division = {0};
    size_t members = (size_t)shape->members;
    struct slice_set *assigned = mem_alloc(members * sizeof *assigned), *held = mem_alloc(members * sizeof *held);
    struct node *cover = mem_alloc(SLICES_MAX * sizeof *cover);
    slices_assign(assigned, held, members, (uint32_t)shape->slices);
    for (size_t i = 0; i < members; i++) {
        size_t most = nodes_held_max(&assigned[i], (uint32_t)shape->slices);
        division.nodes += nodes_cover(cover, &assigned[i], (uint32_t)shape->slices);
        if (most > division.held_max) division.held_max = most;
    }
    free(assigned);
    free(held);
    free(cover);
    return division;
}

static double least(double a, double b) { return a < b ? a : b; }

/* What is there while segments are summed: slots with the sums of others, and messages. Of those that may be under way, half wait on either
 * side at a time. */
static double exchange_bytes(const struct worker_shape *shape, size_t elements, size_t nodes) {
    size_t segments = segment_count(elements), members = (size_t)shape->members;
    size_t own_segments = (segments + members - 1) / members; /* rounded up */
    double segment = sizeof(float) * (double)segment_size(elements, 0), others = (double)(members - 1);
    double own = (double)own_segments, parts = (double)nodes * others / (double)members;
    double reads = least(EXCHANGE_READS_MAX, others * least(2 * READS_AT_PEER_MAX, (double)segments));
    return least(SLOTS_MAX, own) * parts * segment + reads * segment;
}

struct worker_memory worker_memory(const struct worker_shape *shape) {
    struct worker_shape alone = *shape;
    struct state_parts parts = optimizer_parts(&shape->optimizer);
    alone.members = 1;
    size_t elements = gpt2_parameters(&shape->model);
    double vector = sizeof(float) * (double)elements;
    struct division division = divide(shape);
    struct worker_memory memory = {
        .weights = vector,
        .optimizer = (double)elements * (double)state_bytes_per_element(&parts) - vector,
        .gradient = vector,
        .partial_sums = vector * (double)divide(&alone).held_max,
        .activations = gpt2_memory(&shape->model, (int)worker_batch(shape), (int)shape->sequence_length, true, shape->threads),
        .exchange = exchange_bytes(shape, elements, division.nodes),
        .process = PROCESS_BYTES,
    };
    double tokens = 2 * sizeof(int32_t) * (double)slice_sequences(shape) * (double)shape->sequence_length;
    memory.data = (double)shape->cache_bytes + tokens;
    double always = memory.weights + memory.optimizer + memory.gradient + (double)memory.activations.total + tokens + memory.process;
    memory.total = always + memory.partial_sums + memory.exchange + (double)shape->cache_bytes;
    memory.least = always + vector * (double)division.held_max;
    return memory;
}

/* ---- what would make it fit ---- */

/* A change of the shape, or of how many workers there are; false: it changes nothing. text: how to write it in pipeline.yaml. */
enum { REMEDY_BYTES = 96 };
struct attempt {
    struct worker_shape shape;
    int64_t workers;
    double limit, process_limit; /* of all together, and of each; 0: each may have what it likes */
    char text[REMEDY_BYTES];
};

static double needed(const struct attempt *a) { return (double)a->workers * worker_memory(&a->shape).least; }

/* What a process uses it has addresses for, and more: so one that needs more memory than addresses surely does not fit. */
static bool each_fits(const struct attempt *a) {
    return a->process_limit <= 0 || needed(a) <= (double)a->workers * a->process_limit;
}

static bool fits(const struct attempt *a) { return needed(a) <= a->limit && each_fits(a); }

static bool try_checkpointing(struct attempt *a) {
    snprintf(a->text, sizeof a->text, "training.gradient_checkpointing: true");
    if (a->shape.model.gradient_checkpointing) return false;
    return a->shape.model.gradient_checkpointing = true;
}

/* The largest that fits, else 1. */
static bool try_micro_batch(struct attempt *a) {
    int64_t batch = worker_batch(&a->shape);
    if (batch <= 1) return false;
    do a->shape.model.micro_batch = (int)(batch /= 2);
    while (batch > 1 && !fits(a));
    snprintf(a->text, sizeof a->text, "training.micro_batch: %lld", (long long)batch);
    return true;
}

/* One slice for each worker: no sum but the one that is being computed. */
static bool try_slices(struct attempt *a) {
    int64_t slices = a->shape.members;
    while (a->shape.global_batch % slices != 0) slices--;
    if (slices >= a->shape.slices) return false;
    a->shape.slices = slices;
    snprintf(a->text, sizeof a->text, "training.slices: %lld", (long long)slices);
    return true;
}

static bool try_ema(struct attempt *a) {
    snprintf(a->text, sizeof a->text, "training.ema_decay: 0");
    if (a->shape.optimizer.ema_decay <= 0) return false;
    a->shape.optimizer.ema_decay = 0;
    return true;
}

static bool try_optimizer_state(struct attempt *a) {
    struct optimizer *o = &a->shape.optimizer;
    snprintf(a->text, sizeof a->text, "training.optim_state: bf16");
    struct state_parts before = optimizer_parts(o);
    o->moments_type = MOMENTS_BF16;
    struct state_parts after = optimizer_parts(o);
    return state_bytes_per_element(&after) < state_bytes_per_element(&before);
}

/* An optimizer with a moment less: in place of two moments SGD with momentum, in place of one SGD without. */
static bool try_optimizer(struct attempt *a) {
    struct optimizer *o = &a->shape.optimizer;
    size_t moments = optimizer_moments(o);
    if (moments == 0) return false;
    snprintf(a->text, sizeof a->text, "%s%s%s", o->kind == OPTIM_SGD ? "" : "training.optim: sgd",
             o->kind != OPTIM_SGD && moments == 1 ? " with " : "", moments == 1 ? "training.sgd_momentum: 0" : "");
    o->kind = OPTIM_SGD;
    o->momentum = moments == 1 ? 0 : 0.9; /* any above 0 */
    return true;
}

static bool try_workers(struct attempt *a) {
    if (a->workers <= 1) return false;
    int64_t elsewhere = a->shape.members - a->workers;
    do a->shape.members = elsewhere + --a->workers;
    while (a->workers > 1 && !fits(a));
    snprintf(a->text, sizeof a->text, "%lld worker%s on this machine", (long long)a->workers, plural((unsigned long long)a->workers));
    return true;
}

/* Those that leave the result as it is come first. */
static bool (*const remedies[])(struct attempt *) = {try_workers, try_checkpointing,   try_micro_batch, try_slices,
                                                     try_ema,     try_optimizer_state, try_optimizer};
enum { REMEDIES = sizeof remedies / sizeof *remedies, LIST_BYTES = REMEDIES * (REMEDY_BYTES + 32) };

static double gib(double bytes) { return bytes / (1 << 30); }

static void list_add(char list[LIST_BYTES], const char *between, const struct attempt *a, bool size) {
    size_t at = strlen(list);
    at += (size_t)snprintf(list + at, LIST_BYTES - at, "%s%s", at ? between : "", a->text);
    if (size) snprintf(list + at, LIST_BYTES - at, " (%.1f GiB)", gib(needed(a)));
}

/* Each alone; where none is enough, one after the other until it fits. */
static void find_remedies(char list[LIST_BYTES], const struct attempt *start) {
    struct attempt together = *start;
    *list = '\0';
    for (int i = 0; i < REMEDIES; i++) {
        struct attempt a = *start;
        if (remedies[i](&a) && fits(&a)) list_add(list, ", or ", &a, true);
    }
    if (*list) return;
    for (int i = 0; i < REMEDIES && !fits(&together); i++)
        if (remedies[i](&together)) list_add(list, " and ", &together, false);
    size_t at = strlen(list);
    if (fits(&together)) snprintf(list + at, LIST_BYTES - at, " (%.1f GiB)", gib(needed(&together)));
    else if (at) snprintf(list, LIST_BYTES, "a smaller model; with all that saves memory this one takes %.1f GiB", gib(needed(&together)));
    else snprintf(list, LIST_BYTES, "a smaller model");
}

int worker_memory_check(const struct worker_shape *shape, int64_t workers, const struct machine_memory *machine) {
    struct attempt start = {
        .shape = *shape, .workers = workers, .limit = (double)machine->limit_bytes, .process_limit = (double)machine->process_bytes};
    double bytes = needed(&start);
    if (fits(&start)) return 0;
    char list[LIST_BYTES];
    find_remedies(list, &start);
    char each[48] = "", has[160];
    if (workers > 1) snprintf(each, sizeof each, ", %.2f GiB in each,", gib(bytes / (double)workers));
    if (!each_fits(&start))
        snprintf(has, sizeof has, "no process may have more than %.2f GiB (%.0f bytes) of address space here (ulimit -v, RLIMIT_AS)",
                 gib(start.process_limit), start.process_limit);
    else snprintf(has, sizeof has, "this machine has %.1f GiB (%.0f bytes) for it", gib(start.limit), start.limit);
    return err_set(ERR_MEMORY,
                   "training needs %.1f GiB of memory (%.0f bytes) in %lld worker%s of %zu parameters%s and %s; what would fit: %s",
                   gib(bytes), bytes, (long long)workers, plural((unsigned long long)workers), gpt2_parameters(&shape->model),
                   each[0] ? each : ",", has, list);
}
