/* One layer of GPT-2, forward and backward. M rows are the positions of all sequences of a part.
 *
 *     norm1 = LayerNorm(x)                       (M, C)
 *     qkv   = norm1 attn + bias                  (M, 3C)
 *     atty  = attention(qkv)                     (M, C)   attention.c
 *     mid   = x + dropout(atty attn_proj + bias) (M, C)
 *     norm2 = LayerNorm(mid)                     (M, C)
 *     fch   = norm2 fc + bias                    (M, F)
 *     act   = GELU(fch)                          (M, F)
 *     out   = mid + dropout(act mlp_proj + bias) (M, C)   the next layer's x
 *
 * The weights are (in, out). Backward, from dout, the gradient of out, in the opposite order: of y = x w + bias these are dx = dy w^T, dw =
 * x^T dy and dbias = the sum of dy over its rows; the gradient of a residual goes both ways.
 *
 * Its products read packed matrices: what only a product reads (LayerNorm's output, GELU's, gradients) is packed by the function that
 * computes it, while it is in cache. What the forward pass leaves for the backward pass: struct layer_kept. */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "model/gpt2/gpt2_inside.h"
#include "model/kernels/product.h"
#include "model/kernels/profile.h"

enum { LEFT, LEFT_TOO, RIGHT, RIGHT_TOO };    /* of words[] */
enum { STRIP_ROWS = 32, STRIP_COLUMNS = 64 }; /* GELU's output lives in a strip until it is packed */

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

void share_out(struct gpt2 *model, int size, int item, void (*work)(struct gpt2 *, const void *, int, int), const void *arg) {
    struct share share = {model, work, arg, size, item};
    pool_run(model->pool, (size_t)(size + item - 1) / (size_t)item, share_work, &share);
}

/* ---- packed matrices ---- */

static struct packed_matrix left_of(const struct gpt2 *model, int words, int count, int depth) {
    return packed_over(model->words[words], PACKED_LEFT, count, depth, model->config.bf16);
}

static struct packed_matrix right_of(const struct gpt2 *model, int words, int count, int depth) {
    return packed_over(model->words[words], PACKED_RIGHT, count, depth, model->config.bf16);
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

size_t layer_packed_words(const struct gpt2 *model, int words) {
    int M = model->batch_max * model->sequence_length, C = model->config.n_embd, F = model->config.n_inner;
    bool bf16 = model->config.bf16, training = model->training;
    size_t most = 0;
#define MOST(side, count, depth) (most = larger(most, packed_words(side, count, depth, bf16)))
    if (words == LEFT) MOST(PACKED_LEFT, M, training ? 3 * C : C), MOST(PACKED_LEFT, C, training ? M : 1);
    if (words == LEFT_TOO) MOST(PACKED_LEFT, M, F), MOST(PACKED_LEFT, F > C ? F : C, training ? M : 1);
    if (words == RIGHT) {
        MOST(PACKED_RIGHT, 3 * C, C), MOST(PACKED_RIGHT, F, C), MOST(PACKED_RIGHT, C, F);
        if (training) MOST(PACKED_RIGHT, C, 3 * C), MOST(PACKED_RIGHT, C, M);
    }
    if (words == RIGHT_TOO && training) MOST(PACKED_RIGHT, F > 3 * C ? F : 3 * C, M);
#undef MOST
    return most;
}

/* ---- LayerNorm ---- */

static void norm_rows(struct gpt2 *model, const void *arg, int row, int rows) {
    const struct norm_task *t = arg;
    int C = model->config.n_embd;
    float *norm = model->norm + (size_t)row * (size_t)C;
    layernorm_forward(norm, t->mean + row, t->rstd + row, t->x + (size_t)row * (size_t)C, model->params + t->weight,
                      model->params + t->bias, rows, C, model->config.layer_norm_epsilon);
    if (t->by_rows) pack_rows(t->by_rows, norm, (size_t)C, row, rows, 0, C);
    if (t->by_columns) pack_columns(t->by_columns, norm, (size_t)C, 0, C, row, rows);
}

void norm_forward(struct gpt2 *model, struct norm_task task) {
    share_out(model, model->rows, ROW_ITEM, norm_rows, &task);
    profile_lap("LayerNorm", 0, 12.0 * model->rows * model->config.n_embd);
}

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

void norm_backward(struct gpt2 *model, struct norm_task task) {
    share_out(model, model->config.n_embd, COLUMN_ITEM, norm_back_columns, &task);
    share_out(model, model->rows, ROW_ITEM, norm_back_rows, &task);
    profile_lap("LayerNorm backward", 0, 24.0 * model->rows * model->config.n_embd);
}

static struct norm_task first_norm(const struct gpt2 *model, int l) {
    size_t block = model->at.block + (size_t)l * model->at.block_size;
    const struct layer_kept *kept = &model->layer[l];
    return (struct norm_task){kept->x, kept->mean1, kept->rstd1, block + model->at.ln1_weight, block + model->at.ln1_bias, NULL, NULL};
}

static struct norm_task second_norm(const struct gpt2 *model, int l) {
    size_t block = model->at.block + (size_t)l * model->at.block_size;
    const struct layer_kept *kept = &model->layer[l];
    return (struct norm_task){kept->mid, kept->mean2, kept->rstd2, block + model->at.ln2_weight, block + model->at.ln2_bias, NULL, NULL};
}

/* ---- dropout and the residual stream ---- */

void drop(const struct gpt2 *model, float *x, int layer, enum dropout_site site, int row, int rows, int column, int columns, float p) {
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

static void residual_block(void *arg, int row, int rows, int column, int columns) {
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

/* ---- linear layers: Conv1D, weight (in, out), bias (out) ---- */

struct linear {
    size_t weight, bias; /* offsets of the tensors */
    int in, out;
    const char *name[3]; /* in a profile: forward, gradient of the weight, gradient of the input */
};

static void linear_forward(struct gpt2 *model, float *y, const struct packed_matrix *x, const struct linear *linear,
                           void (*after)(void *, int, int, int, int), void *arg) {
    struct packed_matrix w = right_of(model, RIGHT, linear->out, linear->in);
    pack_all_columns(model->pool, &w, model->params + linear->weight, (size_t)linear->out);
    product_run(model->pool, &(struct product){.name = linear->name[0],
                                               .out = y,
                                               .ld = (size_t)linear->out,
                                               .a = x,
                                               .b = &w,
                                               .bias = model->params + linear->bias,
                                               .after = after,
                                               .arg = arg});
}

struct bias_task {
    float *dbias;
    const float *dy;
    int N;
};

static void bias_columns(struct gpt2 *model, const void *arg, int column, int columns) {
    const struct bias_task *t = arg;
    column_sums(t->dbias, t->dy, model->rows, t->N, column, columns, model->add);
}

/* dw = x^T dy, both packed by columns; and the bias's gradient, of dy as it is. */
static void linear_gradients(struct gpt2 *model, const struct linear *linear, const struct packed_matrix *x,
                             const struct packed_matrix *dy_by_columns, const float *dy) {
    product_run(model->pool, &(struct product){.name = linear->name[1],
                                               .out = model->grads + linear->weight,
                                               .ld = (size_t)linear->out,
                                               .a = x,
                                               .b = dy_by_columns,
                                               .add = model->add});
    share_out(model, linear->out, COLUMN_ITEM, bias_columns, &(struct bias_task){model->grads + linear->bias, dy, linear->out});
    profile_lap("bias gradients", 0, 4.0 * model->rows * linear->out);
}

/* dx = dy w^T, with dy packed by rows. */
static void linear_backward(struct gpt2 *model, float *dx, const struct packed_matrix *dy, const struct linear *linear,
                            void (*after)(void *, int, int, int, int), void *arg) {
    struct packed_matrix w = right_of(model, RIGHT, linear->in, linear->out);
    pack_all_rows(model->pool, &w, model->params + linear->weight, (size_t)linear->out);
    product_run(
        model->pool,
        &(struct product){.name = linear->name[2], .out = dx, .ld = (size_t)linear->in, .a = dy, .b = &w, .after = after, .arg = arg});
}

/* ---- GELU ---- */

struct gelu_task {
    const float *fch; /* (M, F) */
    uint16_t *slope;  /* (M, F) or NULL: kept instead of fch */
    float *dact;      /* (M, F) the gradient of GELU's output, which becomes that of fch */
    const struct packed_matrix *by_rows, *by_columns;
    size_t F;
};

/* GELU of a strip of fch. Fetches the strip beside it: other rows come in between. */
static void gelu_strip(float strip[STRIP_ROWS * STRIP_COLUMNS], const struct gelu_task *t, int row, int rows, int column, int columns) {
    for (int i = 0; i < rows; i++) {
        const float *line = t->fch + (size_t)(row + i) * t->F + column;
        for (int j = STRIP_COLUMNS; j < 2 * STRIP_COLUMNS; j += 16) __builtin_prefetch(line + j);
        if (t->slope) gelu_forward_slope(strip + i * STRIP_COLUMNS, t->slope + (size_t)(row + i) * t->F + column, line, (size_t)columns);
        else gelu_forward(strip + i * STRIP_COLUMNS, line, (size_t)columns);
    }
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* Packs GELU's output of a block. */
static void gelu_block(void *arg, int row, int rows, int column, int columns) {
    const struct gelu_task *t = arg;
    float strip[STRIP_ROWS * STRIP_COLUMNS];
    for (int j = column; j < column + columns; j += STRIP_COLUMNS)
        for (int i = row; i < row + rows; i += STRIP_ROWS) {
            int height = smaller(STRIP_ROWS, row + rows - i), width = smaller(STRIP_COLUMNS, column + columns - j);
            gelu_strip(strip, t, i, height, j, width);
            if (t->by_rows) pack_rows(t->by_rows, strip, STRIP_COLUMNS, i, height, j, width);
            if (t->by_columns) pack_columns(t->by_columns, strip, STRIP_COLUMNS, j, width, i, height);
        }
}

static void gelu_rows(struct gpt2 *model, const void *arg, int row, int rows) {
    gelu_block((void *)arg, row, rows, 0, model->config.n_inner);
}

/* From the gradient of GELU's output to that of its input, packed both ways for the products that follow. */
static void gelu_back_block(void *arg, int row, int rows, int column, int columns) {
    const struct gelu_task *t = arg;
    float *block = t->dact + (size_t)row * t->F + column;
    for (int i = 0; i < rows; i++) {
        float *d = block + (size_t)i * t->F;
        size_t at = (size_t)(row + i) * t->F + (size_t)column;
        if (t->slope) vector_scale_bf16(d, t->slope + at, (size_t)columns);
        else gelu_backward(d, d, t->fch + at, (size_t)columns);
    }
    pack_rows(t->by_rows, block, t->F, row, rows, column, columns);
    pack_columns(t->by_columns, block, t->F, column, columns, row, rows);
}

/* ---- one layer ---- */

/* Linear layers by their tensors' offsets within the block. */
struct linears {
    struct linear attn, attn_proj, fc, mlp_proj;
};

static struct linears linears_of(const struct gpt2 *model, int l) {
    const struct layout *at = &model->at;
    size_t block = at->block + (size_t)l * at->block_size;
    int C = model->config.n_embd, F = model->config.n_inner;
    return (struct linears){
        .attn = {block + at->attn_weight, block + at->attn_bias, C, 3 * C, {"attn", "attn d weight", "attn d input"}},
        .attn_proj =
            {block + at->attn_proj_weight, block + at->attn_proj_bias, C, C, {"attn_proj", "attn_proj d weight", "attn_proj d input"}},
        .fc = {block + at->fc_weight, block + at->fc_bias, C, F, {"fc", "fc d weight", "fc d input"}},
        .mlp_proj = {block + at->mlp_proj_weight, block + at->mlp_proj_bias, F, C, {"mlp_proj", "mlp_proj d weight", "mlp_proj d input"}}};
}

static struct attention attention_of(struct gpt2 *model, int l) {
    const struct gpt2_config *config = &model->config;
    struct layer_kept *kept = &model->layer[l];
    struct attention a = {.B = model->B,
                          .T = model->T,
                          .C = config->n_embd,
                          .NH = config->n_head,
                          .bf16 = config->bf16,
                          .scale = 1.0f,
                          .qkv = kept->qkv,
                          .out = kept->atty,
                          .max = kept->max,
                          .factor = kept->factor,
                          .first = model->first,
                          .first_sequence = model->first_sequence,
                          .scratch = model->scratch};
    int head_size = config->n_embd / config->n_head;
    if (config->scale_attn_weights) a.scale = 1.0f / sqrtf((float)head_size);
    if (model->random && config->attn_pdrop > 0.0f) {
        a.dropout = config->attn_pdrop;
        a.dropout_key = dropout_key(model->random->seed, model->random->step, model->random->slice, (uint32_t)l, DROPOUT_ATTENTION);
    }
    return a;
}

float *layer_output(struct gpt2 *model, int l) { return l + 1 < model->config.n_layer ? model->layer[l + 1].x : model->final; }

/* The left matrix of a weight's gradient, packed by columns, M deep: kept, or in words[] where it has to be made again. */
static struct packed_matrix kept_or(const struct gpt2 *model, float *kept, int words, int count) {
    return packed_over(kept ? kept : model->words[words], PACKED_LEFT, count, model->rows, model->config.bf16);
}

static struct packed_matrix norm_by_columns(struct gpt2 *model, struct norm_task norm, float *kept, int words) {
    struct packed_matrix x = kept_or(model, kept, words, model->config.n_embd);
    norm.by_columns = &x;
    if (!kept) norm_forward(model, norm);
    return x;
}

static struct packed_matrix act_by_columns(struct gpt2 *model, const struct layer_kept *kept) {
    size_t F = (size_t)model->config.n_inner;
    struct packed_matrix act = kept_or(model, kept->act, LEFT_TOO, model->config.n_inner);
    if (kept->act) return act;
    share_out(model, model->rows, ROW_ITEM, gelu_rows, &(struct gelu_task){.fch = kept->fch, .by_columns = &act, .F = F});
    profile_lap("GELU again", 0, 8.0 * model->rows * (double)F);
    return act;
}

/* Up to what the backward pass needs, and GELU's output packed for the product that follows (act; NULL: none follows). keep: this
 * layer's backward pass reads what is kept here; nothing else does. */
static void layer_forward_kept(struct gpt2 *model, int l, const struct packed_matrix *act, bool keep) {
    struct layer_kept *kept = &model->layer[l];
    struct linears linear = linears_of(model, l);
    int M = model->rows, C = model->config.n_embd;
    keep = keep && kept->act;
    struct packed_matrix x = left_of(model, LEFT, M, C);
    struct attention attention = attention_of(model, l);
    struct packed_matrix norm1 = kept_or(model, kept->norm1, LEFT, C), norm2 = kept_or(model, kept->norm2, LEFT, C),
                   act_kept = kept_or(model, kept->act, LEFT, model->config.n_inner);
    struct norm_task norm = first_norm(model, l);
    norm.by_rows = &x, norm.by_columns = keep ? &norm1 : NULL;
    norm_forward(model, norm);
    linear_forward(model, kept->qkv, &x, &linear.attn, NULL, NULL);
    attention_forward(model->pool, &attention);
    pack_all_rows(model->pool, &x, kept->atty, (size_t)C);
    linear_forward(model, kept->mid, &x, &linear.attn_proj, residual_block,
                   &(struct residual_task){model, kept->mid, kept->x, l, DROPOUT_RESIDUAL_ATTENTION});
    norm = second_norm(model, l), norm.by_rows = &x, norm.by_columns = keep ? &norm2 : NULL;
    norm_forward(model, norm);
    struct gelu_task gelu = {.fch = kept->fch,
                             .slope = keep ? kept->slope : NULL,
                             .by_rows = act,
                             .by_columns = keep ? &act_kept : NULL,
                             .F = (size_t)model->config.n_inner};
    linear_forward(model, kept->fch, &x, &linear.fc, gelu.by_rows || gelu.by_columns ? gelu_block : NULL, &gelu);
}

void layer_forward(struct gpt2 *model, int l) {
    struct linears linear = linears_of(model, l);
    struct packed_matrix act = left_of(model, LEFT_TOO, model->rows, model->config.n_inner);
    float *out = layer_output(model, l);
    layer_forward_kept(model, l, &act, model->grads && !model->config.gradient_checkpointing);
    linear_forward(model, out, &act, &linear.mlp_proj, residual_block,
                   &(struct residual_task){model, out, model->layer[l].mid, l, DROPOUT_RESIDUAL_MLP});
}

/* From the gradient of the layer's output, dx, on to that of mid. */
static void mlp_backward(struct gpt2 *model, int l) {
    struct layer_kept *kept = &model->layer[l];
    struct linears linear = linears_of(model, l);
    int M = model->rows, C = model->config.n_embd, F = model->config.n_inner;
    const float *dout = residual_gradient(model, l, DROPOUT_RESIDUAL_MLP);

    struct packed_matrix act = act_by_columns(model, kept), dy = right_of(model, RIGHT, C, M), dout_by_rows = left_of(model, LEFT, M, C);
    pack_all_columns(model->pool, &dy, dout, (size_t)C);
    linear_gradients(model, &linear.mlp_proj, &act, &dy, dout);
    pack_all_rows(model->pool, &dout_by_rows, dout, (size_t)C);
    struct packed_matrix dfch_by_rows = left_of(model, LEFT_TOO, M, F), dfch_by_columns = right_of(model, RIGHT_TOO, F, M);
    struct gelu_task gelu = {.fch = kept->fch,
                             .slope = kept->slope,
                             .dact = model->dact,
                             .by_rows = &dfch_by_rows,
                             .by_columns = &dfch_by_columns,
                             .F = (size_t)F};
    linear_backward(model, model->dact, &dout_by_rows, &linear.mlp_proj, gelu_back_block, &gelu);

    struct packed_matrix x = norm_by_columns(model, second_norm(model, l), kept->norm2, LEFT);
    linear_gradients(model, &linear.fc, &x, &dfch_by_columns, model->dact);
    linear_backward(model, model->dnorm, &dfch_by_rows, &linear.fc, NULL, NULL);
    norm_backward(model, second_norm(model, l));
}

/* From the gradient of mid, dx, on to that of the layer's input. */
static void attention_part_backward(struct gpt2 *model, int l) {
    struct layer_kept *kept = &model->layer[l];
    struct linears linear = linears_of(model, l);
    int M = model->rows, C = model->config.n_embd;
    const float *dout = residual_gradient(model, l, DROPOUT_RESIDUAL_ATTENTION);

    struct packed_matrix x = left_of(model, LEFT_TOO, C, M), dy = right_of(model, RIGHT, C, M), dout_by_rows = left_of(model, LEFT, M, C);
    pack_all_columns(model->pool, &x, kept->atty, (size_t)C);
    pack_all_columns(model->pool, &dy, dout, (size_t)C);
    linear_gradients(model, &linear.attn_proj, &x, &dy, dout);
    pack_all_rows(model->pool, &dout_by_rows, dout, (size_t)C);
    linear_backward(model, model->dnorm, &dout_by_rows, &linear.attn_proj, NULL, NULL);
    struct attention attention = attention_of(model, l);
    attention.dout = model->dnorm, attention.dqkv = model->dqkv;
    attention_backward(model->pool, &attention);

    struct packed_matrix dqkv_by_rows = left_of(model, LEFT, M, 3 * C), dqkv_by_columns = right_of(model, RIGHT_TOO, 3 * C, M);
    x = norm_by_columns(model, first_norm(model, l), kept->norm1, LEFT_TOO);
    pack_all_columns(model->pool, &dqkv_by_columns, model->dqkv, 3 * (size_t)C);
    linear_gradients(model, &linear.attn, &x, &dqkv_by_columns, model->dqkv);
    pack_all_rows(model->pool, &dqkv_by_rows, model->dqkv, 3 * (size_t)C);
    linear_backward(model, model->dnorm, &dqkv_by_rows, &linear.attn, NULL, NULL);
    norm_backward(model, first_norm(model, l));
}

void layer_backward(struct gpt2 *model, int l) {
    if (model->config.gradient_checkpointing) layer_forward_kept(model, l, NULL, true);
    mlp_backward(model, l);
    attention_part_backward(model, l);
}
