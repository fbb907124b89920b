/* GPT-2's forward and backward pass: embeddings, the layers (layer.c), the head (crossentropy.c), over parts of at most batch_max
 * sequences. Owns the activations of one part (struct gpt2), all in one allocation. gpt2_open() once, then gpt2_gradient(), gpt2_loss() or
 * gpt2_logits() as often as needed, by one thread; each spreads its work over the pool. Chooses no number of threads and no block size:
 * those belong to the pool, product.c, attention.c and crossentropy.c. */
#include "model/gpt2/gpt2.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/gpt2/gpt2_inside.h"
#include "model/kernels/product.h"
#include "model/kernels/profile.h"

enum {
    PART_TOKENS = 2048,
    ROWS_COUNTED_MAX = 1 << 28, /* rows of a part beyond that are terabytes, whatever is counted */
};

#define FLOATS_MAX ((size_t)1 << 58)

/* Memory is laid out twice with the same code: once to count (base NULL), once to place. */
struct arena {
    float *base;
    size_t used;
};

/* What no machine has counts as FLOATS_MAX, and nothing wraps. */
static float *take(struct arena *arena, size_t rows, size_t columns) {
    float *p = arena->base ? arena->base + arena->used : NULL;
    size_t size;
    if (__builtin_mul_overflow(rows, columns, &size) || size >= FLOATS_MAX - arena->used) arena->used = FLOATS_MAX;
    else arena->used += (size + 15) / 16 * 16;
    return p;
}

static float *take_packed(struct arena *arena, int count, size_t depth) {
    return take(arena, packed_words(PACKED_LEFT, count, (int)depth, true), 1);
}

/* keeps: what training with bfloat16 keeps packed for the backward pass. fch is then a buffer of the backward pass that is free until then.
 */
static void place_layer(struct layer_kept *layer, struct arena *arena, const struct gpt2_config *config, size_t M, bool keeps) {
    size_t C = (size_t)config->n_embd, F = (size_t)config->n_inner;
    layer->qkv = take(arena, M, 3 * C);
    layer->atty = take(arena, M, C);
    layer->mid = take(arena, M, C);
    if (keeps) {
        layer->slope = (uint16_t *)take(arena, M, (F + 1) / 2);
        layer->norm1 = take_packed(arena, config->n_embd, M), layer->norm2 = take_packed(arena, config->n_embd, M);
        layer->act = take_packed(arena, config->n_inner, M);
    } else layer->fch = take(arena, M, F);
    layer->mean1 = take(arena, M, 1), layer->rstd1 = take(arena, M, 1), layer->mean2 = take(arena, M, 1), layer->rstd2 = take(arena, M, 1);
    layer->max = take(arena, M, (size_t)config->n_head), layer->factor = take(arena, M, (size_t)config->n_head);
}

static struct gpt2_memory place(struct gpt2 *model, float *base) {
    struct arena arena = {.base = base};
    size_t M = (size_t)model->batch_max * (size_t)model->sequence_length, C = (size_t)model->config.n_embd,
           F = (size_t)model->config.n_inner;
    int layers = model->config.n_layer;
    float *spare[2] = {NULL, NULL};
    bool keeps = model->training && model->config.bf16;
    if (!model->training)
        for (int i = 0; i < 2; i++) spare[i] = take(&arena, M, C);
    for (int l = 0; l < layers; l++) {
        if ((model->training && !model->config.gradient_checkpointing) || l == 0)
            place_layer(&model->layer[l], &arena, &model->config, M, keeps);
        else model->layer[l] = model->layer[0];
        model->layer[l].x = model->training ? take(&arena, M, C) : spare[l % 2];
    }
    model->final = model->training ? take(&arena, M, C) : spare[layers % 2];
    model->meanf = take(&arena, M, 1), model->rstdf = take(&arena, M, 1);
    size_t kept = arena.used;
    model->norm = take(&arena, M, C);
    if (model->training) model->dx = take(&arena, M, C), model->dnorm = take(&arena, M, C), model->dres = take(&arena, M, C);
    size_t scratch = arena.used;
    struct arena for_head = arena;
    if (model->training) model->dqkv = take(&arena, M, 3 * C), model->dact = take(&arena, M, F);
    for (int l = 0; keeps && l < layers; l++) model->layer[l].fch = model->dact;
    for (int i = 0; i < 4; i++) model->words[i] = take(&arena, layer_packed_words(model, i), 1);
    const struct gpt2_config *config = &model->config;
    model->head_scratch = take(&for_head, head_scratch_floats(config->n_embd, config->vocab_size, (int)M, model->training, config->bf16),
                               1);
    if (for_head.used > arena.used) arena.used = for_head.used;
    return (struct gpt2_memory){
        .kept = kept * sizeof(float), .scratch = (scratch - kept) * sizeof(float), .panels = (arena.used - scratch) * sizeof(float)};
}

static size_t arena_bytes(const struct gpt2_memory *memory) { return memory->kept + memory->scratch + memory->panels; }

struct gpt2_memory gpt2_memory(const struct gpt2_config *config, int batch_max, int sequence_length, bool training, int threads) {
    int batch_counted = ROWS_COUNTED_MAX / sequence_length < 1 ? 1 : ROWS_COUNTED_MAX / sequence_length;
    if (batch_max > batch_counted) batch_max = batch_counted;
    struct gpt2 model = {.config = *config, .batch_max = batch_max, .sequence_length = sequence_length, .training = training};
    model.layer = mem_alloc((size_t)config->n_layer * sizeof *model.layer);
    struct gpt2_memory memory = place(&model, NULL);
    free(model.layer);
    int rows = batch_max * sequence_length;
    if (config->document_mask) memory.scratch += (size_t)rows * sizeof(int);
    memory.attention = attention_scratch_bytes(threads, sequence_length, config->n_embd / config->n_head, config->bf16);
    memory.head = head_bytes(config->n_embd, config->vocab_size, rows, training, config->bf16);
    memory.total = arena_bytes(&memory) + memory.attention + memory.head;
    return memory;
}

int gpt2_open(struct gpt2 **out, const struct gpt2_config *config, int batch_max, int sequence_length, bool training, struct pool *pool) {
    CHECK(batch_max >= 1 && sequence_length >= 1 && sequence_length <= config->n_positions && config->n_embd % config->n_head == 0);
    TRY(product_setup());
    struct gpt2 *model = mem_alloc(sizeof *model);
    model->config = *config, model->at = layout_of(config), model->pool = pool;
    model->batch_max = batch_max, model->sequence_length = sequence_length, model->training = training;
    model->layer = mem_alloc((size_t)config->n_layer * sizeof *model->layer);
    struct gpt2_memory memory = place(model, NULL);
    int code = mem_try(&model->memory, arena_bytes(&memory), 1);
    if (code == 0 && config->document_mask) code = mem_try(&model->first, (size_t)batch_max * (size_t)sequence_length, sizeof(int));
    if (code == 0) place(model, model->memory);
    int rows = batch_max * sequence_length, head_size = config->n_embd / config->n_head;
    if (code == 0) code = attention_scratch_open(&model->scratch, pool_threads(pool), sequence_length, head_size, config->bf16);
    if (code == 0) code = head_open(&model->head, config->n_embd, config->vocab_size, rows, training, config->bf16, model->head_scratch);
    if (code < 0) {
        gpt2_close(model);
        return err_add(code, "activations of %d sequences of %d positions", batch_max, sequence_length);
    }
    *out = model;
    return 0;
}

void gpt2_close(struct gpt2 *model) {
    if (!model) return;
    attention_scratch_close(model->scratch);
    head_close(model->head);
    free(model->memory);
    free(model->first);
    free(model->layer);
    free(model);
}

void gpt2_on_tick(struct gpt2 *model, void (*tick)(void *), void *arg) { model->tick = tick, model->tick_arg = arg; }

static void tick(struct gpt2 *model) {
    if (model->tick) model->tick(model->tick_arg);
}

/* ---- documents and embeddings ---- */

static void find_documents(struct gpt2 *model) {
    if (!model->first) return;
    for (int i = 0; i < model->rows; i++) {
        int t = i % model->T;
        bool begins = t == 0 || model->tokens[i - 1] == model->config.eos_token_id;
        model->first[i] = begins ? t : model->first[i - 1];
    }
}

static int position_of(const struct gpt2 *model, int row) { return row % model->T - (model->first ? model->first[row] : 0); }

static void embed_rows(struct gpt2 *model, const void *arg, int row, int rows) {
    (void)arg;
    size_t C = (size_t)model->config.n_embd;
    float *x = model->layer[0].x;
    for (int i = row; i < row + rows; i++) {
        CHECK(model->tokens[i] >= 0 && model->tokens[i] < model->config.vocab_size);
        vector_sum_of(x + (size_t)i * C, model->params + model->at.wte + (size_t)model->tokens[i] * C,
                      model->params + model->at.wpe + (size_t)position_of(model, i) * C, C);
    }
    drop(model, x, 0, DROPOUT_EMBEDDING, row, rows, 0, model->config.n_embd, model->config.embd_pdrop);
}

static void embed_drop_rows(struct gpt2 *model, const void *arg, int row, int rows) {
    (void)arg;
    drop(model, model->dx, 0, DROPOUT_EMBEDDING, row, rows, 0, model->config.n_embd, model->config.embd_pdrop);
}

/* A stripe of channels has one owner, which goes over the tokens in order: many of them may be the same word. */
static void embed_back_columns(struct gpt2 *model, const void *arg, int column, int columns) {
    (void)arg;
    size_t C = (size_t)model->config.n_embd;
    float *dwte = model->grads + model->at.wte + column, *dwpe = model->grads + model->at.wpe + column;
    for (int i = 0; i < model->rows; i++) {
        const float *d = model->dx + (size_t)i * C + column;
        vector_accumulate(dwte + (size_t)model->tokens[i] * C, d, (size_t)columns);
        vector_accumulate(dwpe + (size_t)position_of(model, i) * C, d, (size_t)columns);
    }
}

static void embed_backward(struct gpt2 *model) {
    if (model->random && model->config.embd_pdrop > 0.0f) share_out(model, model->rows, ROW_ITEM, embed_drop_rows, NULL);
    if (!model->add) memset(model->grads + model->at.wpe, 0, (model->at.block - model->at.wpe) * sizeof(float));
    share_out(model, model->config.n_embd, COLUMN_ITEM, embed_back_columns, NULL);
    profile_lap("embedding backward", 0, 12.0 * model->rows * model->config.n_embd);
}

/* ---- one part, and the whole ---- */

static void part_forward(struct gpt2 *model) {
    find_documents(model);
    share_out(model, model->rows, ROW_ITEM, embed_rows, NULL);
    profile_lap("embedding", 0, 12.0 * model->rows * model->config.n_embd);
    for (int l = 0; l < model->config.n_layer; l++) {
        layer_forward(model, l);
        tick(model);
    }
    norm_forward(model, (struct norm_task){model->final, model->meanf, model->rstdf, model->at.lnf_weight, model->at.lnf_bias, NULL, NULL});
}

static void part_backward(struct gpt2 *model) {
    memset(model->dx, 0, (size_t)model->rows * (size_t)model->config.n_embd * sizeof(float));
    norm_backward(model,
                  (struct norm_task){model->final, model->meanf, model->rstdf, model->at.lnf_weight, model->at.lnf_bias, NULL, NULL});
    for (int l = model->config.n_layer - 1; l >= 0; l--) {
        layer_backward(model, l);
        tick(model);
    }
    embed_backward(model);
}

static void part_run(struct gpt2 *model, double *loss, uint64_t *counted) {
    part_forward(model);
    struct head_task task = {.h = model->norm,
                             .targets = model->targets,
                             .rows = model->rows,
                             .add = model->add,
                             .tick = model->tick,
                             .tick_arg = model->tick_arg};
    if (model->grads) {
        task.dh = model->dnorm, task.dwte = model->grads + model->at.wte;
        task.label_smoothing = model->config.label_smoothing, task.z_loss = model->config.z_loss;
    }
    head_run(model->head, model->pool, &task, loss, counted);
    if (model->grads) part_backward(model);
}

static void run(struct gpt2 *model, float *grads, double *out_loss, uint64_t *out_tokens, const float *params, const int32_t *tokens,
                const int32_t *targets, int B, int T, const struct gpt2_random *random) {
    CHECK(B >= 1 && T >= 1 && T <= model->sequence_length);
    double loss = 0.0;
    uint64_t counted = 0;
    model->params = params, model->grads = grads, model->T = T, model->random = random;
    head_load(model->head, model->pool, params + model->at.wte, grads != NULL);
    for (int first = 0; first < B; first += model->batch_max) {
        model->B = B - first < model->batch_max ? B - first : model->batch_max;
        model->rows = model->B * T, model->first_sequence = first, model->add = first > 0;
        model->tokens = tokens + (size_t)first * (size_t)T, model->targets = targets + (size_t)first * (size_t)T;
        part_run(model, &loss, &counted);
    }
    *out_loss = loss, *out_tokens = counted;
}

void gpt2_gradient(struct gpt2 *model, float *grads, double *out_loss, uint64_t *out_tokens, const float *params, const int32_t *tokens,
                   const int32_t *targets, int B, int T, const struct gpt2_random *random) {
    CHECK(model->training);
    run(model, grads, out_loss, out_tokens, params, tokens, targets, B, T, random);
}

void gpt2_loss(struct gpt2 *model, double *out_loss, uint64_t *out_tokens, const float *params, const int32_t *tokens,
               const int32_t *targets, int B, int T) {
    run(model, NULL, out_loss, out_tokens, params, tokens, targets, B, T, NULL);
}

void gpt2_logits(struct gpt2 *model, float *logits, const float *params, const int32_t *tokens, int B, int T) {
    CHECK(B >= 1 && B <= model->batch_max && T >= 1 && T <= model->sequence_length);
    model->params = params, model->grads = NULL, model->random = NULL, model->tokens = tokens;
    model->B = B, model->T = T, model->rows = B * T, model->first_sequence = 0, model->add = false;
    part_forward(model);
    head_load(model->head, model->pool, params + model->at.wte, false);
    head_logits(model->head, model->pool, logits, model->norm, model->rows);
}

int gpt2_batch_for(const struct gpt2_config *config, int slice_sequences, int sequence_length) {
    int most = PART_TOKENS / sequence_length < 1 ? 1 : PART_TOKENS / sequence_length;
    if (config->micro_batch > 0) most = config->micro_batch;
    if (slice_sequences <= most) return slice_sequences;
    int parts = (slice_sequences + most - 1) / most;
    for (int even = parts; even <= 2 * parts && even <= slice_sequences; even++)
        if (slice_sequences % even == 0) return slice_sequences / even;
    return (slice_sequences + parts - 1) / parts;
}
