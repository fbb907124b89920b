/* Reads parameters tensor by tensor and lays them out for generation. Knows the order of the tensors, not what is computed with them. */
#include "model/generate/decoder_weights.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/checkpoint/checkpoint.h"
#include "model/gpt2/layout.h"

enum { WTE_STRIPES = 16 }; /* read at a time */
#define HUGE_PAGE ((size_t)2 << 20)

static int read_in_memory(void *arg, float *out, size_t first, size_t count) {
    memcpy(out, (const float *)arg + first, count * sizeof *out);
    return 0;
}

struct weights_source weights_in_memory(const float *params) {
    return (struct weights_source){read_in_memory, (void *)params};
}

static int read_checkpoint(void *arg, float *out, size_t first, size_t count) {
    return checkpoint_read(arg, out, STATE_WEIGHTS, first, count);
}

struct weights_source weights_in_checkpoint(const struct checkpoint *checkpoint) {
    return (struct weights_source){read_checkpoint, (void *)checkpoint};
}

/* ---- places ---- */

/* Laid out twice with the same code: once to count (data NULL), once to place. */
static void place(struct stripes *m, enum weights_type type, int K, int N, char *data, size_t *used) {
    *m = (struct stripes){type, K, N, data ? data + *used : NULL};
    *used += stripes_bytes(m);
}

static size_t place_all(struct decoder_weights *w, char *data) {
    int C = w->config.n_embd, F = w->config.n_inner;
    size_t used = 0;
    for (int l = 0; l < w->config.n_layer; l++) {
        struct decoder_layer *layer = &w->layer[l];
        place(&layer->attn, w->type, C, 3 * C, data, &used);
        place(&layer->attn_proj, w->type, C, C, data, &used);
        place(&layer->fc, w->type, C, F, data, &used);
        place(&layer->mlp_proj, w->type, F, C, data, &used);
    }
    place(&w->wte, w->type, C, w->config.vocab_size, data, &used);
    return used;
}

/* Huge pages: with small ones every 4096 bytes cost a walk through the page table. */
static int allocate(struct decoder_weights *w) {
    size_t bytes = (place_all(w, NULL) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    w->memory = aligned_alloc(HUGE_PAGE, bytes);
    if (!w->memory) return err_set(ERR_MEMORY, "%zu bytes are not there", bytes);
    madvise(w->memory, bytes, MADV_HUGEPAGE); /* refused: slower, not wrong */
    place_all(w, w->memory);
    return 0;
}

/* ---- filling ---- */

struct filling {
    const struct stripes *m;
    const float *from;
    size_t first, k_step, j_step;
    char *finite; /* [stripes at hand] */
};

static void fill_stripe(void *arg, size_t item) {
    const struct filling *f = arg;
    f->finite[item] = stripes_fill(f->m, f->first + item, f->from + item * STRIPE * f->j_step, f->k_step, f->j_step);
}

static int fill(const struct filling *f, size_t count, struct pool *pool) {
    pool_run(pool, count, fill_stripe, (void *)f);
    for (size_t i = 0; i < count && f->m->type == WEIGHTS_INT8; i++)
        if (!f->finite[i])
            return err_set(ERR_CORRUPT,
                           "int8 cannot hold a weight that is no finite number; the weights are damaged or their training diverged");
    return 0;
}

struct reading {
    struct decoder_weights *w;
    const struct weights_source *source;
    struct pool *pool;
    float *tensor; /* scratch: the largest that is read at a time */
    char *finite;
    size_t vectors_used;
};

static int read_conv1d(struct reading *r, const struct stripes *m, size_t offset) {
    TRY(r->source->read(r->source->arg, r->tensor, offset, (size_t)m->K * (size_t)m->N));
    return fill(&(struct filling){m, r->tensor, 0, (size_t)m->N, 1, r->finite}, stripes_count(m), r->pool);
}

static int read_wte(struct reading *r, size_t offset) {
    const struct stripes *m = &r->w->wte;
    size_t C = (size_t)m->K, V = (size_t)m->N, all = stripes_count(m);
    for (size_t first = 0; first < all; first += WTE_STRIPES) {
        size_t count = all - first < WTE_STRIPES ? all - first : WTE_STRIPES, row = first * STRIPE;
        size_t rows = V - row < count * STRIPE ? V - row : count * STRIPE;
        TRY(r->source->read(r->source->arg, r->tensor, offset + row * C, rows * C));
        TRY(fill(&(struct filling){m, r->tensor, first, 1, C, r->finite}, count, r->pool));
    }
    return 0;
}

static int read_vector(struct reading *r, const float **out, size_t offset, size_t count) {
    float *place = r->w->vectors + r->vectors_used;
    r->vectors_used += count;
    TRY(r->source->read(r->source->arg, place, offset, count));
    *out = place;
    return 0;
}

static int read_layer(struct reading *r, const struct layout *at, int l) {
    struct decoder_layer *layer = &r->w->layer[l];
    size_t block = at->block + (size_t)l * at->block_size, C = (size_t)r->w->config.n_embd, F = (size_t)r->w->config.n_inner;
    TRY(read_vector(r, &layer->ln1_weight, block + at->ln1_weight, C));
    TRY(read_vector(r, &layer->ln1_bias, block + at->ln1_bias, C));
    TRY(read_conv1d(r, &layer->attn, block + at->attn_weight));
    TRY(read_vector(r, &layer->attn_bias, block + at->attn_bias, 3 * C));
    TRY(read_conv1d(r, &layer->attn_proj, block + at->attn_proj_weight));
    TRY(read_vector(r, &layer->attn_proj_bias, block + at->attn_proj_bias, C));
    TRY(read_vector(r, &layer->ln2_weight, block + at->ln2_weight, C));
    TRY(read_vector(r, &layer->ln2_bias, block + at->ln2_bias, C));
    TRY(read_conv1d(r, &layer->fc, block + at->fc_weight));
    TRY(read_vector(r, &layer->fc_bias, block + at->fc_bias, F));
    TRY(read_conv1d(r, &layer->mlp_proj, block + at->mlp_proj_weight));
    return read_vector(r, &layer->mlp_proj_bias, block + at->mlp_proj_bias, C);
}

static int read_all(struct reading *r) {
    const struct gpt2_config *config = &r->w->config;
    struct layout at = layout_of(config);
    size_t C = (size_t)config->n_embd, P = (size_t)config->n_positions;
    TRY(read_vector(r, &r->w->wpe, at.wpe, P * C));
    for (int l = 0; l < config->n_layer; l++) TRY(read_layer(r, &at, l));
    TRY(read_vector(r, &r->w->lnf_weight, at.lnf_weight, C));
    TRY(read_vector(r, &r->w->lnf_bias, at.lnf_bias, C));
    TRY(read_wte(r, at.wte));
    r->w->bytes_per_token = place_all(r->w, r->w->memory) + (r->vectors_used - P * C + C) * sizeof(float); /* one row of wpe */
    return 0;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static int read_weights(struct decoder_weights *w, const struct weights_source *source, struct pool *pool) {
    struct reading r = {.w = w, .source = source, .pool = pool};
    size_t C = (size_t)w->config.n_embd, F = (size_t)w->config.n_inner, L = (size_t)w->config.n_layer, P = (size_t)w->config.n_positions;
    TRY(mem_try(&w->vectors, P * C + L * (9 * C + F) + 2 * C, sizeof(float)));
    TRY(allocate(w));
    int code = mem_try(&r.tensor, larger(C * larger(3 * C, F), WTE_STRIPES * STRIPE * C), sizeof(float));
    if (code == 0) code = mem_try(&r.finite, larger(larger(3 * C, F) / STRIPE + 1, WTE_STRIPES), 1);
    if (code == 0) code = read_all(&r);
    free(r.tensor);
    free(r.finite);
    return code;
}

int decoder_weights_open(struct decoder_weights **out, const struct gpt2_config *config, enum weights_type type,
                         const struct weights_source *source, struct pool *pool) {
    struct decoder_weights *w = mem_alloc(sizeof *w);
    w->config = *config, w->type = type;
    w->layer = mem_alloc((size_t)config->n_layer * sizeof *w->layer);
    int code = read_weights(w, source, pool);
    if (code < 0) decoder_weights_close(w);
    else *out = w;
    return code == ERR_MEMORY ? err_add(code, "weights of the model") : code;
}

void decoder_weights_close(struct decoder_weights *w) {
    if (!w) return;
    free(w->memory);
    free(w->vectors);
    free(w->layer);
    free(w);
}
