/* The key/value cache and the pass over the layers that fills it. A prompt goes through in blocks of DECODER_BLOCK tokens, one new token as
 * a block of one row. Computes what gpt2.c computes without dropout. For a block of M rows behind `length` tokens, in each layer:
 *
 *     qkv  = LayerNorm(x) attn + bias                (M, 3C)   k and v of each head go to its cache, as columns and rows
 *     S    = q k^T / sqrt(HS)                        (M, length + M) of a head; row i sees the first length + i + 1
 *     atty = softmax(S) v                            (M, C)
 *     mid  = x + atty attn_proj + bias               (M, C)
 *     fch  = GELU(LayerNorm(mid) fc + bias)          (M, F)
 *     x    = mid + fch mlp_proj + bias               (M, C)
 *
 * and in the end logits = LayerNorm(x) wte^T (M, V). The matrices are stripes (model/kernels/stripes.h).
 *
 * The order of calls: decoder_open_weights() allocates everything; then decoder_take() and decoder_logits() in turn, decoder_clear() for
 * another text. One thread calls; the pool's threads work inside each call.
 *
 * One token is bound by reading the weights from memory, so all threads go through the layers together (base/team.h), each reading its own
 * run of stripes; what comes between two products is done by each for itself where that is cheaper than waiting for another. The cache has
 * the form of weights: keys (HS, P) and values (P, HS) in stripes, so that the same kernels compute scores and sums. */
#include "model/generate/decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/team.h"
#include "model/kernels/kernels.h"

enum {
    ATTENTION_ROWS = 8,      /* rows that share one reading of a head's keys and values */
    LINE_BYTES = 64,         /* of cache */
    AHEAD_BYTES = 128 << 10, /* what a core reads from memory in some 5 us, about as long as a member waits; fits any second-level cache */
    ITEM_BYTES = 48 << 10,   /* of weights, about: large beside the cost of taking an item, small beside a thread's share of a product */
};

/* What a thread has to itself. */
struct own {
    float *norm;                  /* (max(C, F)) */
    struct int8_block *quantized; /* of as many */
    float *scores;                /* (ATTENTION_ROWS, P up to a whole stripe) */
    float *stripe;                /* (DECODER_BLOCK, STRIPE): results of a last, incomplete stripe */
};

struct decoder {
    const struct decoder_weights *weights;
    struct decoder_weights *owned; /* NULL: borrowed */
    const struct stripe_kernels *kernels;
    struct team *team;
    int positions, length;
    enum weights_type cache_type;
    char *keys, *values; /* for each layer and head stripes of (HS, P) and of (P, HS) */
    size_t head_keys_bytes, head_values_bytes;
    char *memory;
    float *x, *mid, *norm; /* (DECODER_BLOCK, C): residual stream before and after attention, a LayerNorm's output */
    float *qkv;            /* (DECODER_BLOCK, 3C) */
    float *atty;           /* (DECODER_BLOCK, C) */
    float *fch;            /* (DECODER_BLOCK, F) */
    float *logits;         /* (V) */
    struct int8_block *quantized; /* (DECODER_BLOCK, blocks of max(C, F)) */
    struct own *own;              /* [threads] */
    int last;              /* row of x that holds the last token taken */
    /* the block at hand */
    const int32_t *tokens;
    int rows;
};

/* ---- memory ---- */

static void *take(char *base, size_t *used, size_t bytes) {
    void *p = base ? base + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return p;
}

static float *take_floats(char *base, size_t *used, size_t count) { return take(base, used, count * sizeof(float)); }

static size_t int8_blocks(size_t K) { return (K + INT8_BLOCK - 1) / INT8_BLOCK; }

static struct int8_block *take_int8(char *base, size_t *used, size_t rows, size_t K) {
    return take(base, used, rows * int8_blocks(K) * sizeof(struct int8_block));
}

static struct stripes keys_of(const struct decoder *d, int l, int head) {
    const struct gpt2_config *config = &d->weights->config;
    size_t number = (size_t)l * (size_t)config->n_head + (size_t)head;
    return (struct stripes){d->cache_type, config->n_embd / config->n_head, d->positions,
                            d->keys ? d->keys + number * d->head_keys_bytes : NULL};
}

static struct stripes values_of(const struct decoder *d, int l, int head) {
    const struct gpt2_config *config = &d->weights->config;
    size_t number = (size_t)l * (size_t)config->n_head + (size_t)head;
    return (struct stripes){d->cache_type, d->positions, config->n_embd / config->n_head,
                            d->values ? d->values + number * d->head_values_bytes : NULL};
}

static size_t scores_pitch(const struct decoder *d) { return ((size_t)d->positions + STRIPE - 1) / STRIPE * STRIPE; }

/* Laid out twice with the same code: once to count (base NULL), once to place. */
static size_t place(struct decoder *d, char *base) {
    const struct gpt2_config *config = &d->weights->config;
    size_t used = 0, C = (size_t)config->n_embd, F = (size_t)config->n_inner, most = C > F ? C : F, B = DECODER_BLOCK;
    size_t heads = (size_t)config->n_layer * (size_t)config->n_head;
    struct stripes keys = keys_of(d, 0, 0), values = values_of(d, 0, 0);
    d->head_keys_bytes = stripes_bytes(&keys), d->head_values_bytes = stripes_bytes(&values);
    d->keys = take(base, &used, heads * d->head_keys_bytes), d->values = take(base, &used, heads * d->head_values_bytes);
    d->x = take_floats(base, &used, B * C), d->mid = take_floats(base, &used, B * C), d->norm = take_floats(base, &used, B * C);
    d->qkv = take_floats(base, &used, B * 3 * C), d->atty = take_floats(base, &used, B * C), d->fch = take_floats(base, &used, B * F);
    d->logits = take_floats(base, &used, (size_t)config->vocab_size);
    d->quantized = take_int8(base, &used, B, most);
    for (int i = 0; i < team_members(d->team); i++) {
        d->own[i].norm = take_floats(base, &used, most);
        d->own[i].quantized = take_int8(base, &used, 1, most);
        d->own[i].scores = take_floats(base, &used, ATTENTION_ROWS * scores_pitch(d));
        d->own[i].stripe = take_floats(base, &used, B * STRIPE);
    }
    return used;
}

static int decoder_allocate(struct decoder *d, struct pool *pool) {
    TRY(team_open(&d->team, pool));
    d->own = mem_alloc((size_t)pool_threads(pool) * sizeof *d->own);
    int code = mem_try(&d->memory, place(d, NULL), 1);
    if (code < 0) return err_add(code, "keys and values of %d positions", d->positions);
    place(d, d->memory);
    return 0;
}

int decoder_open_weights(struct decoder **out, const struct decoder_weights *weights, int positions, struct pool *pool) {
    CHECK(positions >= 1 && positions <= weights->config.n_positions);
    struct decoder *d = mem_alloc(sizeof *d);
    d->weights = weights, d->positions = positions, d->kernels = stripe_kernels();
    d->cache_type = weights->type == WEIGHTS_FP32 ? WEIGHTS_FP32 : WEIGHTS_BF16;
    int code = decoder_allocate(d, pool);
    if (code < 0) decoder_close(d);
    else *out = d;
    return code;
}

int decoder_open(struct decoder **out, const struct gpt2_config *config, const float *params, int positions, struct pool *pool) {
    struct decoder_weights *weights;
    struct weights_source source = weights_in_memory(params);
    TRY(decoder_weights_open(&weights, config, WEIGHTS_FP32, &source, pool));
    int code = decoder_open_weights(out, weights, positions, pool);
    if (code < 0) decoder_weights_close(weights);
    else (*out)->owned = weights;
    return code;
}

void decoder_close(struct decoder *d) {
    if (!d) return;
    decoder_weights_close(d->owned);
    team_close(d->team);
    free(d->own);
    free(d->memory);
    free(d);
}

void decoder_clear(struct decoder *d) { d->length = 0; }

int decoder_length(const struct decoder *d) { return d->length; }

/* ---- products ---- */

/* The rows that a product reads: those of x, or their LayerNorm. */
struct inputs {
    const float *x; /* (rows, K) */
    int K, rows;
    const float *norm_weight, *norm_bias; /* NULL: no LayerNorm */
};

/* One row, through `norm` and `quantized` as far as it has to. Returns what the kernel takes. */
static const void *input_row(const struct decoder *d, const struct inputs *in, int row, float *norm, struct int8_block *quantized) {
    const float *x = in->x + (size_t)row * (size_t)in->K;
    if (in->norm_weight) {
        layernorm_forward(norm, NULL, NULL, x, in->norm_weight, in->norm_bias, 1, in->K, d->weights->config.layer_norm_epsilon);
        x = norm;
    }
    if (d->weights->type != WEIGHTS_INT8) return x;
    d->kernels->quantize(quantized, x, in->K);
    return quantized;
}

struct input_task {
    struct decoder *d;
    const struct inputs *in;
};

static void input_item(void *arg, int member, size_t row) {
    const struct input_task *t = arg;
    (void)member;
    input_row(t->d, t->in, (int)row, t->d->norm + row * (size_t)t->in->K, t->d->quantized + row * int8_blocks((size_t)t->in->K));
}

/* One row: each member makes it for itself. Several: shared out. */
static const void *inputs_ready(struct decoder *d, int member, const struct inputs *in) {
    bool int8 = d->weights->type == WEIGHTS_INT8;
    if (in->rows == 1) return input_row(d, in, 0, d->own[member].norm, d->own[member].quantized);
    if (!int8 && !in->norm_weight) return in->x;
    team_share(d->team, member, (size_t)in->rows, input_item, &(struct input_task){d, in});
    return int8 ? (const void *)d->quantized : d->norm;
}

struct product {
    const struct decoder *d;
    const struct stripes *w;
    const float *bias;     /* (N); NULL: none */
    const float *residual; /* (rows, N), added; NULL: none */
    bool gelu;
    float *out; /* (rows, N) */
    const void *x;
    size_t x_pitch;
    int rows;
    size_t stripes_each; /* of an item */
};

static void product_stripe(const struct product *p, int member, size_t stripe) {
    stripe_product *kernel = stripes_product(p->d->kernels, p->w->type);
    size_t N = (size_t)p->w->N, column = stripe * STRIPE, columns = N - column < STRIPE ? N - column : STRIPE;
    float *out = p->out + column;
    if (columns == STRIPE) kernel(out, N, p->x, p->x_pitch, stripes_at(p->w, stripe), p->rows, p->w->K);
    else {
        float *whole = p->d->own[member].stripe;
        kernel(whole, STRIPE, p->x, p->x_pitch, stripes_at(p->w, stripe), p->rows, p->w->K);
        for (size_t r = 0; r < (size_t)p->rows; r++) memcpy(out + r * N, whole + r * STRIPE, columns * sizeof *out);
    }
    for (size_t r = 0; r < (size_t)p->rows; r++) {
        float *line = out + r * N;
        if (p->bias) vector_accumulate(line, p->bias + column, columns);
        if (p->gelu) gelu_forward(line, line, columns);
        if (p->residual) vector_accumulate(line, p->residual + r * N + column, columns);
    }
}

static void product_item(void *arg, int member, size_t item) {
    const struct product *p = arg;
    size_t first = item * p->stripes_each, end = first + p->stripes_each, all = stripes_count(p->w);
    for (size_t stripe = first; stripe < end && stripe < all; stripe++) product_stripe(p, member, stripe);
}

static size_t stripes_of_item(const struct stripes *w, int rows) {
    return rows == 1 && stripes_bytes_each(w) < ITEM_BYTES ? ITEM_BYTES / stripes_bytes_each(w) : 1;
}

static size_t items_of(const struct stripes *w, int rows) {
    size_t each = stripes_of_item(w, rows);
    return (stripes_count(w) + each - 1) / each;
}

/* Asks for the first bytes of a member's run of w, so that memory works on while the member waits for others. */
static void ask_ahead(const struct decoder *d, int member, const struct stripes *w, int rows) {
    size_t stripe = team_first(d->team, member, items_of(w, rows)) * stripes_of_item(w, rows);
    size_t at = stripe * stripes_bytes_each(w), end = stripes_bytes(w);
    if (end > at + AHEAD_BYTES) end = at + AHEAD_BYTES;
    for (; at < end; at += LINE_BYTES) __builtin_prefetch(w->data + at, 0, 2);
}

/* `next` is what the product after this one will read; NULL: nothing. */
static void product(struct decoder *d, int member, struct product p, const struct inputs *in, const struct stripes *next) {
    p.d = d, p.rows = in->rows;
    p.x = inputs_ready(d, member, in);
    p.x_pitch = p.w->type == WEIGHTS_INT8 ? int8_blocks((size_t)in->K) : (size_t)in->K;
    p.stripes_each = stripes_of_item(p.w, p.rows);
    team_work(d->team, member, items_of(p.w, p.rows), product_item, &p);
    if (next && p.rows == 1) ask_ahead(d, member, next, p.rows);
    team_wait(d->team, member);
}

/* ---- attention ---- */

/* Turns a row of scores into probabilities; keys after the row's own get 0. */
static void probabilities(float *line, float scale, int visible, int keys) {
    float max, sum;
    vector_scale(line, scale, (size_t)visible);
    softmax_exp(line, visible, &max, &sum);
    vector_scale(line, 1.0f / sum, (size_t)visible);
    memset(line + visible, 0, (size_t)(keys - visible) * sizeof(float));
}

/* Rows [row, row + rows) of one head: softmax(scale q k^T) v. */
static void attend_rows(struct decoder *d, int member, const struct stripes *keys, const struct stripes *values, int head, int row,
                        int rows) {
    const struct gpt2_config *config = &d->weights->config;
    stripe_product *kernel = stripes_product(d->kernels, d->cache_type);
    size_t C = (size_t)config->n_embd, HS = C / (size_t)config->n_head, pitch = scores_pitch(d);
    int seen = d->length + row + rows; /* by the last of them */
    float *scores = d->own[member].scores, *sums = d->own[member].stripe;
    const float *q = d->qkv + (size_t)row * 3 * C + (size_t)head * HS;
    float *out = d->atty + (size_t)row * C + (size_t)head * HS, scale = config->scale_attn_weights ? 1.0f / sqrtf((float)HS) : 1.0f;
    for (size_t s = 0; s * STRIPE < (size_t)seen; s++) kernel(scores + s * STRIPE, pitch, q, 3 * C, stripes_at(keys, s), rows, (int)HS);
    for (int i = 0; i < rows; i++) probabilities(scores + (size_t)i * pitch, scale, seen - rows + i + 1, seen);
    for (size_t s = 0; s * STRIPE < HS; s++) {
        size_t columns = HS - s * STRIPE < STRIPE ? HS - s * STRIPE : STRIPE;
        kernel(sums, STRIPE, scores, pitch, stripes_at(values, s), rows, seen);
        for (size_t i = 0; i < (size_t)rows; i++) memcpy(out + i * C + s * STRIPE, sums + i * STRIPE, columns * sizeof *out);
    }
}

struct attention_task {
    struct decoder *d;
    int layer;
};

static void attention_item(void *arg, int member, size_t head) {
    const struct attention_task *t = arg;
    struct decoder *d = t->d;
    struct stripes keys = keys_of(d, t->layer, (int)head), values = values_of(d, t->layer, (int)head);
    int C = d->weights->config.n_embd, HS = keys.K;
    for (int i = 0; i < d->rows; i++) {
        const float *k = d->qkv + (size_t)i * 3 * (size_t)C + (size_t)C + head * (size_t)HS, *v = k + C;
        stripes_put_column(&keys, d->length + i, k);
        stripes_put_row(&values, d->length + i, v);
    }
    for (int row = 0; row < d->rows; row += ATTENTION_ROWS)
        attend_rows(d, member, &keys, &values, (int)head, row, d->rows - row < ATTENTION_ROWS ? d->rows - row : ATTENTION_ROWS);
}

/* ---- the pass ---- */

static void embed_item(void *arg, int member, size_t row) {
    struct decoder *d = arg;
    (void)member;
    size_t C = (size_t)d->weights->config.n_embd;
    stripes_column(d->x + row * C, &d->weights->wte, d->tokens[row]);
    vector_accumulate(d->x + row * C, d->weights->wpe + ((size_t)d->length + row) * C, C);
}

static void layer(struct decoder *d, int member, int l) {
    const struct decoder_layer *w = &d->weights->layer[l];
    const struct stripes *next = l + 1 < d->weights->config.n_layer ? &w[1].attn : &d->weights->wte;
    int C = d->weights->config.n_embd, F = d->weights->config.n_inner, M = d->rows;
    product(d, member, (struct product){.w = &w->attn, .bias = w->attn_bias, .out = d->qkv},
            &(struct inputs){d->x, C, M, w->ln1_weight, w->ln1_bias}, &w->attn_proj);
    team_share(d->team, member, (size_t)d->weights->config.n_head, attention_item, &(struct attention_task){d, l});
    product(d, member, (struct product){.w = &w->attn_proj, .bias = w->attn_proj_bias, .residual = d->x, .out = d->mid},
            &(struct inputs){d->atty, C, M, NULL, NULL}, &w->fc);
    product(d, member, (struct product){.w = &w->fc, .bias = w->fc_bias, .gelu = true, .out = d->fch},
            &(struct inputs){d->mid, C, M, w->ln2_weight, w->ln2_bias}, &w->mlp_proj);
    product(d, member, (struct product){.w = &w->mlp_proj, .bias = w->mlp_proj_bias, .residual = d->mid, .out = d->x},
            &(struct inputs){d->fch, F, M, NULL, NULL}, next);
}

static void pass(struct team *team, int member, void *arg) {
    struct decoder *d = arg;
    team_share(team, member, (size_t)d->rows, embed_item, d);
    for (int l = 0; l < d->weights->config.n_layer; l++) layer(d, member, l);
}

void decoder_take(struct decoder *d, const int32_t *tokens, int count) {
    CHECK(count >= 1 && count <= d->positions - d->length);
    for (int i = 0; i < count; i++) CHECK(tokens[i] >= 0 && tokens[i] < d->weights->config.vocab_size);
    while (count > 0) {
        d->tokens = tokens, d->rows = count < DECODER_BLOCK ? count : DECODER_BLOCK;
        team_run(d->team, pass, d);
        tokens += d->rows, count -= d->rows;
        d->length += d->rows, d->last = d->rows - 1;
    }
}

struct head_task {
    struct decoder *d;
    float *out;
    int first, rows; /* of x */
};

static void head(struct team *team, int member, void *arg) {
    (void)team;
    const struct head_task *t = arg;
    const struct decoder_weights *w = t->d->weights;
    size_t C = (size_t)w->config.n_embd;
    product(t->d, member, (struct product){.w = &w->wte, .out = t->out},
            &(struct inputs){t->d->x + (size_t)t->first * C, (int)C, t->rows, w->lnf_weight, w->lnf_bias}, NULL);
}

void decoder_logits_of_last(struct decoder *d, float *out, int count) {
    CHECK(d->length > 0 && count >= 1 && count <= d->last + 1);
    team_run(d->team, head, &(struct head_task){d, out, d->last + 1 - count, count});
}

float *decoder_logits(struct decoder *d) {
    decoder_logits_of_last(d, d->logits, 1);
    return d->logits;
}
