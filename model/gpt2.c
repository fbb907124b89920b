/* GPT-2's forward and backward pass, layer by layer: which kernel reads and writes what. Owns the activations of one part (at most
 * batch_max sequences), all in one allocation. Kept for the backward pass: each layer's inputs and the outputs of its wide products;
 * LayerNorm's and GELU's outputs are computed again, with the same bits. Chooses no number of threads and no block size: those belong to
 * the pool, matmul.c, attention.c and crossentropy.c. */
#include "model/gpt2.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/attention.h"
#include "model/crossentropy.h"
#include "model/kernels.h"
#include "model/layout.h"
#include "model/matmul.h"

enum { ROW_ITEM = 32, COLUMN_ITEM = 64, PART_TOKENS = 2048 };

/* What one layer leaves for its backward pass; M = batch_max * T rows. */
struct layer_kept {
    float *x;                             /* (M, C) its input */
    float *qkv;                           /* (M, 3C) */
    float *atty;                          /* (M, C) the heads' outputs */
    float *mid;                           /* (M, C) after the attention's residual */
    float *fch;                           /* (M, F) before GELU */
    float *mean1, *rstd1, *mean2, *rstd2; /* (M) */
    float *max, *factor;                  /* (B, NH, T) */
};

struct gpt2 {
    struct gpt2_config config;
    struct layout at;
    struct pool *pool;
    int batch_max, sequence_length;
    bool training;
    float *memory;
    struct layer_kept *layer; /* [n_layer]; all the same buffers but x when not training */
    float *final;             /* (M, C) the last layer's output */
    float *meanf, *rstdf;     /* (M) */
    float *norm;              /* (M, C) a LayerNorm's output */
    float *act;               /* (M, F) after GELU */
    float *dx, *dnorm, *dres; /* (M, C): gradient of the residual stream, of `norm`, and dx after dropout */
    float *dqkv, *dact;       /* (M, 3C), (M, F) */
    int *first;               /* (M) with document_mask: the first position of each one's document; else NULL */
    struct attention_scratch *scratch;
    struct head *head;
    void (*tick)(void *);
    void *tick_arg;
    /* the part at hand */
    const float *params;
    float *grads;
    const int32_t *tokens, *targets;
    int B, T, rows;
    int first_sequence; /* of this part, within the slice */
    bool add;           /* not the slice's first part */
    const struct gpt2_random *random;
};

/* Memory is laid out twice with the same code: once to count (base NULL), once to place. */
struct arena {
    float *base;
    size_t used;
};

static float *take(struct arena *arena, size_t rows, size_t columns) {
    float *p = arena->base ? arena->base + arena->used : NULL;
    arena->used += (rows * columns + 15) / 16 * 16;
    return p;
}

static void place_layer(struct layer_kept *layer, struct arena *arena, const struct gpt2_config *config, size_t M) {
    size_t C = (size_t)config->n_embd;
    layer->qkv = take(arena, M, 3 * C);
    layer->atty = take(arena, M, C);
    layer->mid = take(arena, M, C);
    layer->fch = take(arena, M, (size_t)config->n_inner);
    layer->mean1 = take(arena, M, 1), layer->rstd1 = take(arena, M, 1), layer->mean2 = take(arena, M, 1), layer->rstd2 = take(arena, M, 1);
    layer->max = take(arena, M, (size_t)config->n_head), layer->factor = take(arena, M, (size_t)config->n_head);
}

static size_t place(struct gpt2 *model, float *base) {
    struct arena arena = {.base = base};
    size_t M = (size_t)model->batch_max * (size_t)model->sequence_length, C = (size_t)model->config.n_embd,
           F = (size_t)model->config.n_inner;
    int layers = model->config.n_layer;
    float *spare[2] = {NULL, NULL};
    if (!model->training)
        for (int i = 0; i < 2; i++) spare[i] = take(&arena, M, C);
    for (int l = 0; l < layers; l++) {
        if (model->training || l == 0) place_layer(&model->layer[l], &arena, &model->config, M);
        else model->layer[l] = model->layer[0];
        model->layer[l].x = model->training ? take(&arena, M, C) : spare[l % 2];
    }
    model->final = model->training ? take(&arena, M, C) : spare[layers % 2];
    model->meanf = take(&arena, M, 1), model->rstdf = take(&arena, M, 1);
    model->norm = take(&arena, M, C), model->act = take(&arena, M, F);
    if (model->training) {
        model->dx = take(&arena, M, C), model->dnorm = take(&arena, M, C), model->dres = take(&arena, M, C);
        model->dqkv = take(&arena, M, 3 * C), model->dact = take(&arena, M, F);
    }
    return arena.used;
}

int gpt2_open(struct gpt2 **out, const struct gpt2_config *config, int batch_max, int sequence_length, bool training, struct pool *pool) {
    CHECK(batch_max >= 1 && sequence_length >= 1 && sequence_length <= config->n_positions && config->n_embd % config->n_head == 0);
    TRY(matmul_setup());
    struct gpt2 *model = mem_alloc(sizeof *model);
    model->config = *config, model->at = layout_of(config), model->pool = pool;
    model->batch_max = batch_max, model->sequence_length = sequence_length, model->training = training;
    model->layer = mem_alloc((size_t)config->n_layer * sizeof *model->layer);
    int code = mem_try(&model->memory, place(model, NULL), sizeof(float));
    if (code == 0 && config->document_mask) code = mem_try(&model->first, (size_t)batch_max * (size_t)sequence_length, sizeof(int));
    if (code == 0) code = attention_scratch_open(&model->scratch, pool_threads(pool), sequence_length);
    if (code == 0) code = head_open(&model->head, config->n_embd, config->vocab_size, training);
    if (code < 0) {
        gpt2_close(model);
        return err_add(code, "activations of %d sequences of %d positions", batch_max, sequence_length);
    }
    place(model, model->memory);
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

/* ---- rows and columns shared out ---- */

struct share {
    struct gpt2 *model;
    void (*work)(struct gpt2 *model, const void *arg, int first, int count);
    const void *arg;
    int size, item;
};

static void share_work(void *arg, size_t item) {
    const struct share *share = arg;
    int first = (int)item * share->item;
    share->work(share->model, share->arg, first, share->size - first < share->item ? share->size - first : share->item);
}

static void share_out(struct gpt2 *model, int size, int item, void (*work)(struct gpt2 *, const void *, int, int), const void *arg) {
    struct share share = {model, work, arg, size, item};
    pool_run(model->pool, (size_t)(size + item - 1) / (size_t)item, share_work, &share);
}

/* ---- LayerNorm ---- */

struct norm_task {
    const float *x;      /* (M, C) */
    float *mean, *rstd;  /* (M) */
    size_t weight, bias; /* offsets of the tensors */
};

static void norm_rows(struct gpt2 *model, const void *arg, int row, int rows) {
    const struct norm_task *t = arg;
    size_t at = (size_t)row * (size_t)model->config.n_embd;
    layernorm_forward(model->norm + at, t->mean + row, t->rstd + row, t->x + at, model->params + t->weight, model->params + t->bias, rows,
                      model->config.n_embd, model->config.layer_norm_epsilon);
}

static void norm_forward(struct gpt2 *model, struct norm_task task) { share_out(model, model->rows, ROW_ITEM, norm_rows, &task); }

static void norm_back_rows(struct gpt2 *model, const void *arg, int row, int rows) {
    const struct norm_task *t = arg;
    size_t at = (size_t)row * (size_t)model->config.n_embd;
    layernorm_backward(model->dx + at, model->dnorm + at, t->x + at, model->params + t->weight, t->mean + row, t->rstd + row, rows,
                       model->config.n_embd);
}

static void norm_back_columns(struct gpt2 *model, const void *arg, int column, int columns) {
    const struct norm_task *t = arg;
    layernorm_backward_weight(model->grads + t->weight, model->grads + t->bias, model->dnorm, t->x, t->mean, t->rstd, model->rows,
                              model->config.n_embd, column, columns, model->add);
}

/* dx += the gradient through the LayerNorm of dnorm. */
static void norm_backward(struct gpt2 *model, struct norm_task task) {
    share_out(model, model->config.n_embd, COLUMN_ITEM, norm_back_columns, &task);
    share_out(model, model->rows, ROW_ITEM, norm_back_rows, &task);
}

/* ---- dropout and the residual stream ---- */

/* Elements of (M, C) are numbered over the slice, so that its division in parts changes no mask. */
static void drop(const struct gpt2 *model, float *x, int layer, enum dropout_site site, int row, int rows, int column, int columns,
                 float p) {
    if (!model->random || !(p > 0.0f)) return;
    uint64_t C = (uint64_t)model->config.n_embd, first = (uint64_t)model->first_sequence * (uint64_t)model->T;
    uint64_t key = dropout_key(model->random->seed, model->random->step, model->random->slice, (uint32_t)layer, site);
    for (int i = row; i < row + rows; i++)
        dropout_apply(x + (uint64_t)i * C + (uint64_t)column, key, (first + (uint64_t)i) * C + (uint64_t)column, (size_t)columns, p);
}

struct residual_task {
    struct gpt2 *model;
    float *out; /* (M, C) becomes residual + dropout(out) */
    const float *residual;
    int layer;
    enum dropout_site site;
};

static void residual_panel(void *arg, int row, int rows, int column, int columns) {
    struct residual_task *t = arg;
    size_t C = (size_t)t->model->config.n_embd;
    drop(t->model, t->out, t->layer, t->site, row, rows, column, columns, t->model->config.resid_pdrop);
    for (int i = row; i < row + rows; i++)
        vector_accumulate(t->out + (size_t)i * C + column, t->residual + (size_t)i * C + column, (size_t)columns);
}

static void dres_rows(struct gpt2 *model, const void *arg, int row, int rows) {
    const struct residual_task *t = arg;
    size_t C = (size_t)model->config.n_embd, at = (size_t)row * C;
    memcpy(model->dres + at, model->dx + at, (size_t)rows * C * sizeof(float));
    drop(model, model->dres, t->layer, t->site, row, rows, 0, model->config.n_embd, model->config.resid_pdrop);
}

/* The gradient of what went into a residual's dropout: dx itself where there is none. */
static const float *residual_gradient(struct gpt2 *model, int layer, enum dropout_site site) {
    if (!model->random || !(model->config.resid_pdrop > 0.0f)) return model->dx;
    share_out(model, model->rows, ROW_ITEM, dres_rows, &(struct residual_task){.layer = layer, .site = site});
    return model->dres;
}

/* ---- linear layers ---- */

struct bias_task {
    float *dbias;
    const float *dout;
    int N;
};

static void bias_columns(struct gpt2 *model, const void *arg, int column, int columns) {
    const struct bias_task *t = arg;
    column_sums(t->dbias, t->dout, model->rows, t->N, column, columns, model->add);
}

/* Gradients of a Conv1D's weight (K, N) and bias (N), from its input x (M, K) and dout (M, N). */
static void linear_gradients(struct gpt2 *model, size_t weight, size_t bias, const float *x, const float *dout, int K, int N) {
    matmul_weight_gradient(model->pool, model->grads + weight, x, dout, model->rows, K, N, model->add);
    share_out(model, N, COLUMN_ITEM, bias_columns, &(struct bias_task){model->grads + bias, dout, N});
}

struct gelu_task {
    float *out; /* (M, F) */
    const float *fch;
    int F;
};

static void gelu_panel(void *arg, int row, int rows, int column, int columns) {
    const struct gelu_task *t = arg;
    for (int i = row; i < row + rows; i++)
        gelu_forward(t->out + (size_t)i * (size_t)t->F + column, t->fch + (size_t)i * (size_t)t->F + column, (size_t)columns);
}

static void gelu_back_panel(void *arg, int row, int rows, int column, int columns) {
    const struct gelu_task *t = arg;
    for (int i = row; i < row + rows; i++) {
        float *d = t->out + (size_t)i * (size_t)t->F + column;
        gelu_backward(d, d, t->fch + (size_t)i * (size_t)t->F + column, (size_t)columns);
    }
}

static void gelu_rows(struct gpt2 *model, const void *arg, int row, int rows) {
    (void)model;
    const struct gelu_task *t = arg;
    gelu_panel(&(struct gelu_task){t->out, t->fch, t->F}, row, rows, 0, t->F);
}

/* ---- one layer ---- */

static struct attention attention_of(struct gpt2 *model, int l) {
    const struct gpt2_config *config = &model->config;
    struct layer_kept *kept = &model->layer[l];
    struct attention a = {.B = model->B,
                          .T = model->T,
                          .C = config->n_embd,
                          .NH = config->n_head,
                          .scale = 1.0f,
                          .qkv = kept->qkv,
                          .out = kept->atty,
                          .max = kept->max,
                          .factor = kept->factor,
                          .first = model->first,
                          .first_sequence = model->first_sequence,
                          .scratch = model->scratch};
    if (config->scale_attn_weights) a.scale = 1.0f / sqrtf((float)(config->n_embd / config->n_head));
    if (model->random && config->attn_pdrop > 0.0f) {
        a.dropout = config->attn_pdrop;
        a.dropout_key = dropout_key(model->random->seed, model->random->step, model->random->slice, (uint32_t)l, DROPOUT_ATTENTION);
    }
    return a;
}

static struct norm_task first_norm(const struct gpt2 *model, int l) {
    size_t block = model->at.block + (size_t)l * model->at.block_size;
    const struct layer_kept *kept = &model->layer[l];
    return (struct norm_task){kept->x, kept->mean1, kept->rstd1, block + model->at.ln1_weight, block + model->at.ln1_bias};
}

static struct norm_task second_norm(const struct gpt2 *model, int l) {
    size_t block = model->at.block + (size_t)l * model->at.block_size;
    const struct layer_kept *kept = &model->layer[l];
    return (struct norm_task){kept->mid, kept->mean2, kept->rstd2, block + model->at.ln2_weight, block + model->at.ln2_bias};
}

static float *layer_output(struct gpt2 *model, int l) { return l + 1 < model->config.n_layer ? model->layer[l + 1].x : model->final; }

static void layer_forward(struct gpt2 *model, int l) {
    struct layer_kept *kept = &model->layer[l];
    const struct layout *at = &model->at;
    const float *block = model->params + at->block + (size_t)l * at->block_size;
    int M = model->rows, C = model->config.n_embd, F = model->config.n_inner;
    float *out = layer_output(model, l);
    struct attention attention = attention_of(model, l);

    norm_forward(model, first_norm(model, l));
    matmul(model->pool, kept->qkv, model->norm, block + at->attn_weight, block + at->attn_bias, M, C, 3 * C);
    attention_forward(model->pool, &attention);
    matmul_then(model->pool, kept->mid, kept->atty, block + at->attn_proj_weight, block + at->attn_proj_bias, M, C, C, residual_panel,
                &(struct residual_task){model, kept->mid, kept->x, l, DROPOUT_RESIDUAL_ATTENTION});
    norm_forward(model, second_norm(model, l));
    matmul_then(model->pool, kept->fch, model->norm, block + at->fc_weight, block + at->fc_bias, M, C, F, gelu_panel,
                &(struct gelu_task){model->act, kept->fch, F});
    matmul_then(model->pool, out, model->act, block + at->mlp_proj_weight, block + at->mlp_proj_bias, M, F, C, residual_panel,
                &(struct residual_task){model, out, kept->mid, l, DROPOUT_RESIDUAL_MLP});
}

/* From dx, the gradient of the layer's output, to that of its input. */
static void layer_backward(struct gpt2 *model, int l) {
    struct layer_kept *kept = &model->layer[l];
    const struct layout *at = &model->at;
    size_t block = at->block + (size_t)l * at->block_size;
    const float *params = model->params + block;
    int M = model->rows, C = model->config.n_embd, F = model->config.n_inner;
    struct attention attention = attention_of(model, l);

    const float *dout = residual_gradient(model, l, DROPOUT_RESIDUAL_MLP);
    share_out(model, M, ROW_ITEM, gelu_rows, &(struct gelu_task){model->act, kept->fch, F});
    linear_gradients(model, block + at->mlp_proj_weight, block + at->mlp_proj_bias, model->act, dout, F, C);
    matmul_transposed_then(model->pool, model->dact, dout, params + at->mlp_proj_weight, M, C, F, gelu_back_panel,
                           &(struct gelu_task){model->dact, kept->fch, F});
    norm_forward(model, second_norm(model, l));
    linear_gradients(model, block + at->fc_weight, block + at->fc_bias, model->norm, model->dact, C, F);
    matmul_transposed(model->pool, model->dnorm, model->dact, params + at->fc_weight, M, F, C);
    norm_backward(model, second_norm(model, l));

    dout = residual_gradient(model, l, DROPOUT_RESIDUAL_ATTENTION);
    linear_gradients(model, block + at->attn_proj_weight, block + at->attn_proj_bias, kept->atty, dout, C, C);
    matmul_transposed(model->pool, model->dnorm, dout, params + at->attn_proj_weight, M, C, C);
    attention.dout = model->dnorm, attention.dqkv = model->dqkv;
    attention_backward(model->pool, &attention);
    norm_forward(model, first_norm(model, l));
    linear_gradients(model, block + at->attn_weight, block + at->attn_bias, model->norm, model->dqkv, C, 3 * C);
    matmul_transposed(model->pool, model->dnorm, model->dqkv, params + at->attn_weight, M, 3 * C, C);
    norm_backward(model, first_norm(model, l));
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
}

/* ---- one part, and the whole ---- */

static void part_forward(struct gpt2 *model) {
    find_documents(model);
    share_out(model, model->rows, ROW_ITEM, embed_rows, NULL);
    for (int l = 0; l < model->config.n_layer; l++) {
        layer_forward(model, l);
        tick(model);
    }
    norm_forward(model, (struct norm_task){model->final, model->meanf, model->rstdf, model->at.lnf_weight, model->at.lnf_bias});
}

static void part_backward(struct gpt2 *model) {
    memset(model->dx, 0, (size_t)model->rows * (size_t)model->config.n_embd * sizeof(float));
    norm_backward(model, (struct norm_task){model->final, model->meanf, model->rstdf, model->at.lnf_weight, model->at.lnf_bias});
    for (int l = model->config.n_layer - 1; l >= 0; l--) {
        layer_backward(model, l);
        tick(model);
    }
    embed_backward(model);
}

static void part_run(struct gpt2 *model, double *loss, uint64_t *counted) {
    part_forward(model);
    struct head_task task = {.h = model->norm,
                             .wte = model->params + model->at.wte,
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
    matmul_transposed(model->pool, logits, model->norm, params + model->at.wte, model->rows, model->config.n_embd,
                      model->config.vocab_size);
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
