/* The arithmetic of a plan: counts what coordinator and workers would do with a configuration. plan_make() first, then, where the machine
 * was measured (calibrate.h), plan_times_of(). Pure. */
#include "estimate/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "proto/steps.h"

/* ---- parameters ---- */

static void count_parameters(struct plan *plan, const struct gpt2_config *model) {
    struct gpt2_tensor *tensor = mem_alloc(gpt2_tensor_count(model) * sizeof *tensor);
    size_t count = gpt2_tensors(tensor, model);
    for (size_t i = 0; i < count; i++) {
        const char *name = tensor[i].name;
        double *group = strstr(name, ".wte.")    ? &plan->parameters.token_embedding
                        : strstr(name, ".wpe.")  ? &plan->parameters.position_embedding
                        : strstr(name, ".attn.") ? &plan->parameters.attention
                        : strstr(name, ".mlp.")  ? &plan->parameters.feed_forward
                                                 : &plan->parameters.norms;
        *group += (double)tensor[i].size;
        plan->parameters.total += (double)tensor[i].size;
    }
    free(tensor);
}

/* ---- the wire ---- */

/* Elements of the segments that a member owns: every members-th one. */
static double owned_elements(size_t elements, size_t members, size_t self) {
    double owned = 0;
    for (size_t segment = self; segment < segment_count(elements); segment += members) owned += (double)segment_size(elements, segment);
    return owned;
}

/* Reduce-scatter: each member sends its nodes' sums to each segment's owner. All-gather: the owner sends the sum to all others. */
static void count_wire(struct plan *plan) {
    size_t members = (size_t)plan->shape.members, nodes = 0;
    double elements = plan->parameters.total;
    struct slice_set *assigned = mem_alloc(members * sizeof *assigned), *held = mem_alloc(members * sizeof *held);
    size_t *parts = mem_alloc(members * sizeof *parts);
    struct node *cover = mem_alloc(SLICES_MAX * sizeof *cover);
    slices_assign(assigned, held, members, (uint32_t)plan->slices);
    for (size_t i = 0; i < members; i++) nodes += parts[i] = nodes_cover(cover, &assigned[i], (uint32_t)plan->slices);
    for (size_t i = 0; i < members; i++) {
        double own = owned_elements((size_t)elements, members, i), others = (double)(members - 1);
        double sent = sizeof(float) * ((double)parts[i] * (elements - own) + others * own);
        double received = sizeof(float) * ((double)(nodes - parts[i]) * own + (elements - own));
        plan->wire.sent = fmax(plan->wire.sent, sent);
        plan->wire.received = fmax(plan->wire.received, received);
        plan->wire.all += sent;
    }
    free(assigned);
    free(held);
    free(parts);
    free(cover);
}

/* ---- the whole ---- */

/* How often something that is done every `every` steps, and at the end, is done. */
static double times_done(double steps, int64_t every) {
    if (steps <= 0) return 0;
    return every > 0 ? ceil(steps / (double)every) : 1;
}

static void count_steps(struct plan *plan, const struct config *config) {
    double sequences = plan->data.train_sequences, batch = (double)config->training.global_batch;
    if (config->training.max_steps > 0 || plan->data.source != PLAN_UNKNOWN)
        plan->steps = (double)steps_total(config->training.max_steps, config->training.num_train_epochs, (uint64_t)sequences,
                                          config->training.global_batch);
    plan->tokens_per_step = batch * (double)config->dataset.sequence_length;
    plan->tokens = plan->steps * plan->tokens_per_step;
    plan->epochs = sequences > 0 ? plan->steps * batch / sequences : 0;
    bool validation = plan->data.source == PLAN_UNKNOWN ? config->dataset.validation_fraction > 0 : plan->data.validation_sequences > 0;
    plan->evaluations = validation ? times_done(plan->steps, config->training.eval_steps) : 0;
    double most = (double)config->training.eval_sequences, there = plan->data.validation_sequences;
    plan->evaluated_sequences = most > 0 && there > most ? most : there;
}

static void count_checkpoints(struct plan *plan, const struct config *config) {
    double limit = (double)config->training.save_total_limit, written = times_done(plan->steps, config->training.save_steps);
    struct state_parts parts = optimizer_parts(&plan->shape.optimizer);
    plan->checkpoints.bytes = plan->parameters.total * (double)state_bytes_per_element(&parts);
    plan->checkpoints.written = written;
    plan->checkpoints.kept_max = limit > 0 && written > limit ? limit + 1 : written; /* the oldest goes when the newest is there */
}

void plan_make(struct plan *out, const struct config *config, int64_t workers, const struct plan_data *data) {
    int threads = (int)config->cluster.threads_per_worker;
    *out = (struct plan){.data = *data,
                         .slices = config->training.slices,
                         .slice_sequences = config->training.global_batch / config->training.slices,
                         .workers = workers,
                         .busy_workers = workers > 0 ? (int64_t)slices_busy((size_t)workers, (uint32_t)config->training.slices) : 0,
                         .threads = threads,
                         .shape = worker_shape_of(config, workers, threads)};
    double held = data->tokens * data->token_bytes; /* the cache never has more than there is */
    if (data->source != PLAN_UNKNOWN && held < (double)out->shape.cache_bytes) out->shape.cache_bytes = (int64_t)held;
    out->batch = worker_batch(&out->shape);
    out->memory = worker_memory(&out->shape);
    count_parameters(out, &out->shape.model);
    count_steps(out, config);
    count_wire(out);
    count_checkpoints(out, config);
    double T = (double)config->dataset.sequence_length;
    out->flop_per_step = gpt2_flop(&out->shape.model, out->tokens_per_step, T);
    out->flop = out->flop_per_step * out->steps;
}

struct plan_times plan_times_of(const struct plan *plan, const struct calibration *measured, double tokenize_rate, int cores) {
    struct plan_times times = {0};
    double busy = (double)plan->busy_workers, workers = (double)plan->workers, crowd = fmax(1, workers / cores);
    double sequence = measured->part_seconds / (double)plan->batch, rounds = ceil((double)plan->slices / busy);
    times.compute = rounds * busy * (double)plan->slice_sequences * sequence;
    times.sum = (rounds - 1 > 0 ? rounds - 1 : 0) * measured->add_seconds * crowd;
    times.exchange = (plan->wire.sent * measured->pack_seconds + plan->wire.received * measured->unpack_seconds) * crowd;
    times.apply = workers * measured->apply_seconds;
    times.step = times.compute + times.sum + times.exchange + times.apply;
    if (times.step > 0) times.tokens_per_second = plan->tokens_per_step / times.step;
    if (tokenize_rate > 0) times.tokenize = plan->data.text_bytes / tokenize_rate / fmin(workers, cores);
    times.train = times.step * plan->steps;
    times.evaluate = plan->evaluations * plan->evaluated_sequences * sequence / 3; /* forward alone */
    times.total = times.tokenize + times.train + times.evaluate;
    return times;
}
