/* For one head of one sequence, with queries q, keys k and values v of (T, HS), and a scale of 1 / sqrt(HS):
 *
 *     S = scale q k^T              (T, T)    row i, key j; only first[i] <= j <= i exists
 *     P = softmax(S)               (T, T)    of each row: exp(S - max) * factor, with factor = 1 / the row's sum
 *     D = mask P                   (T, T)    dropout: each element times 0 or 1 / (1 - p)
 *     out = D v                    (T, HS)
 *
 * and backward, given dout (T, HS):
 *
 *     dv = D^T dout                (T, HS)
 *     dP = mask (dout v^T)         (T, T)
 *     dS = P (dP - sum of dP P)    (T, T)    the sum over a row is out . dout, so the row is not needed for it
 *     dq = scale dS k, dk = scale dS^T q     (T, HS)
 *
 * Of all these only max and factor (T) are kept between the passes; S and P are made again.
 *
 * It is done by blocks of QUERIES rows, turned on its side: scores are (keys, 32 queries), so that a register holds one key's scores of
 * several queries, softmax needs no sum across a register, and the probabilities are the next product's packed right matrix as they are.
 * A block sees only the keys up to its last row, so about half of the square above the diagonal is never computed. Documents that do not
 * see each other are done one after the other, so scores between them are not computed either; short ones share a block. */
#include "model/gpt2/attention.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/kernels/kernels.h"
#include "model/kernels/product.h"
#include "model/kernels/profile.h"

enum { LANES = TILE_COLUMNS, PANELS = 2, QUERIES = PANELS * LANES };

/* Where one thread works; T keys of HS channels. Panels of scores are (PANELS, T, LANES). */
struct place {
    float *k_by_rows, *v_by_rows;          /* packed, left: T rows of depth HS */
    float *k_by_columns, *v_by_columns;    /* packed, left: HS rows of depth T */
    float *q_by_rows, *dout_by_rows;       /* packed, right: QUERIES columns of depth HS */
    float *q_by_columns, *dout_by_columns; /* packed, right: HS columns of depth QUERIES */
    float *p, *ds;                         /* panels of scores: probabilities, and their gradients */
    float *p_right, *ds_right;             /* the same packed, right; for float32 they are those panels */
    float *p_left, *ds_left;               /* packed, left: T rows of depth QUERIES */
    float *mask_rows, *mask;               /* dropout's factors: (LANES, T), and as panels of scores */
    float *turned;                         /* (HS, LANES): a result on its side */
};

struct attention_scratch {
    atomic_flag *taken; /* [threads] */
    struct place *place;
    float *memory;
    size_t each; /* floats of one thread's */
    int threads, T, HS;
    bool bf16;
};

static float *take(float **at, size_t words, size_t *total) {
    float *p = *at;
    words = (words + 15) / 16 * 16;
    if (p) *at += words;
    *total += words;
    return p;
}

/* Counts floats; with memory, places them too. */
static size_t place_of(struct place *p, float *memory, int T, int HS, bool bf16) {
    size_t total = 0, panels = (size_t)PANELS * (size_t)T * LANES;
    float *at = memory;
    p->k_by_rows = take(&at, packed_small_words(PACKED_LEFT, T, HS, bf16), &total);
    p->v_by_rows = take(&at, packed_small_words(PACKED_LEFT, T, HS, bf16), &total);
    p->k_by_columns = take(&at, packed_small_words(PACKED_LEFT, HS, T, bf16), &total);
    p->v_by_columns = take(&at, packed_small_words(PACKED_LEFT, HS, T, bf16), &total);
    p->q_by_rows = take(&at, packed_small_words(PACKED_RIGHT, QUERIES, HS, bf16), &total);
    p->dout_by_rows = take(&at, packed_small_words(PACKED_RIGHT, QUERIES, HS, bf16), &total);
    p->q_by_columns = take(&at, packed_small_words(PACKED_RIGHT, HS, QUERIES, bf16), &total);
    p->dout_by_columns = take(&at, packed_small_words(PACKED_RIGHT, HS, QUERIES, bf16), &total);
    p->p = take(&at, panels, &total), p->ds = take(&at, panels, &total);
    p->p_right = bf16 ? take(&at, packed_small_words(PACKED_RIGHT, QUERIES, T, bf16), &total) : p->p;
    p->ds_right = bf16 ? take(&at, packed_small_words(PACKED_RIGHT, QUERIES, T, bf16), &total) : p->ds;
    p->p_left = take(&at, packed_small_words(PACKED_LEFT, T, QUERIES, bf16), &total);
    p->ds_left = take(&at, packed_small_words(PACKED_LEFT, T, QUERIES, bf16), &total);
    p->mask_rows = take(&at, (size_t)LANES * (size_t)T, &total), p->mask = take(&at, panels, &total);
    p->turned = take(&at, (size_t)HS * LANES, &total);
    return total;
}

size_t attention_scratch_bytes(int threads, int T, int head_size, bool bf16) {
    struct place place;
    return (size_t)threads * place_of(&place, NULL, T, head_size, bf16) * sizeof(float);
}

int attention_scratch_open(struct attention_scratch **out, int threads, int T, int head_size, bool bf16) {
    struct attention_scratch *s = mem_alloc(sizeof *s);
    s->taken = mem_alloc((size_t)threads * sizeof *s->taken), s->place = mem_alloc((size_t)threads * sizeof *s->place);
    for (int i = 0; i < threads; i++) atomic_flag_clear(&s->taken[i]);
    s->threads = threads, s->T = T, s->HS = head_size, s->bf16 = bf16;
    s->each = place_of(s->place, NULL, T, head_size, bf16);
    int code = mem_try(&s->memory, s->each * (size_t)threads, sizeof(float));
    if (code < 0) {
        attention_scratch_close(s);
        return code;
    }
    for (int i = 0; i < threads; i++) place_of(&s->place[i], s->memory + s->each * (size_t)i, T, head_size, bf16);
    *out = s;
    return 0;
}

void attention_scratch_close(struct attention_scratch *s) {
    if (!s) return;
    free(s->memory);
    free(s->place);
    free(s->taken);
    free(s);
}

/* Any free piece: which one it is reaches no result. There are as many as threads, so one is free. */
static int scratch_take(struct attention_scratch *s) {
    for (;;)
        for (int i = 0; i < s->threads; i++)
            if (!atomic_flag_test_and_set(&s->taken[i])) return i;
}

static void scratch_give(struct attention_scratch *s, int slot) { atomic_flag_clear(&s->taken[slot]); }

/* ---- one head of one sequence ---- */

/* Matrices are (T, HS) with rows `ld` apart: 3C in qkv and dqkv, C in out and dout. */
struct head {
    const struct attention *a;
    const struct place *at;
    size_t item;
    const float *q, *k, *v, *dout;
    float *out, *dq, *dk, *dv, *max, *factor;
    const int *first; /* [T] or NULL */
    uint64_t first_element;
    int HS, T; /* T: as the scratch's panels are long */
    size_t ld, out_ld;
    int from, end; /* the span at hand: rows and keys in [from, end) alone see each other */
    struct packed_matrix k_by_rows, k_by_columns, v_by_rows, v_by_columns;
};

static struct head head_of(const struct attention *a, const struct place *at, size_t item) {
    size_t C = (size_t)a->C, T = (size_t)a->T, b = item / (size_t)a->NH, h = item % (size_t)a->NH, HS = C / (size_t)a->NH;
    size_t in_qkv = b * T * 3 * C + h * HS, in_out = b * T * C + h * HS;
    struct head head = {.a = a,
                        .at = at,
                        .item = item,
                        .q = a->qkv + in_qkv,
                        .k = a->qkv + in_qkv + C,
                        .v = a->qkv + in_qkv + 2 * C,
                        .out = a->out + in_out,
                        .max = a->max + item * T,
                        .factor = a->factor + item * T,
                        .first = a->first ? a->first + b * T : NULL,
                        .first_element = ((uint64_t)a->first_sequence * (uint64_t)a->NH + item) * T * T,
                        .HS = (int)HS,
                        .T = a->scratch->T,
                        .ld = 3 * C,
                        .out_ld = C};
    if (a->dqkv) head.dout = a->dout + in_out, head.dq = a->dqkv + in_qkv, head.dk = head.dq + C, head.dv = head.dq + 2 * C;
    return head;
}

/* The span's keys and values, packed. */
static void head_span(struct head *h, int from, int end, bool backward) {
    int keys = end - from, HS = h->HS;
    bool bf16 = h->a->bf16;
    const float *k = h->k + (size_t)from * h->ld, *v = h->v + (size_t)from * h->ld;
    h->from = from, h->end = end;
    h->k_by_rows = packed_small(h->at->k_by_rows, PACKED_LEFT, keys, HS, bf16);
    h->v_by_columns = packed_small(h->at->v_by_columns, PACKED_LEFT, HS, keys, bf16);
    h->v_by_rows = packed_small(h->at->v_by_rows, PACKED_LEFT, keys, HS, bf16);
    h->k_by_columns = packed_small(h->at->k_by_columns, PACKED_LEFT, HS, keys, bf16);
    pack_rows(&h->k_by_rows, k, h->ld, 0, keys, 0, HS);
    if (backward) pack_rows(&h->v_by_rows, v, h->ld, 0, keys, 0, HS), pack_columns(&h->k_by_columns, k, h->ld, 0, HS, 0, keys);
    else pack_columns(&h->v_by_columns, v, h->ld, 0, HS, 0, keys);
}

static int smaller(int a, int b) { return a < b ? a : b; }

static int document_end(const int *first, int begin, int T) {
    int end = begin + 1;
    while (end < T && first[end] != end) end++;
    return end;
}

/* The end of the span that begins with a document: that document, and those after it while all of them fit one block. */
static int span_end(const int *first, int begin, int T) {
    if (!first) return T;
    int end = document_end(first, begin, T);
    while (end < T) {
        int next = document_end(first, end, T);
        if (next - begin > QUERIES) break;
        end = next;
    }
    return end;
}

/* ---- a panel: LANES queries from `row` on, and the span's keys up to the last of them ---- */

struct panel {
    int number, row, rows, keys;     /* number: within its block; keys count from the span's first */
    int32_t low[LANES], high[LANES]; /* the keys that each query sees; low > high where there is no query */
};

static struct panel panel_at(const struct head *h, int block_row, int number) {
    int row = block_row + number * LANES;
    struct panel p = {.number = number, .row = row, .rows = smaller(LANES, h->end - row)};
    if (p.rows < 0) p.rows = 0;
    p.keys = p.rows ? row + p.rows - h->from : 0;
    for (int i = 0; i < LANES; i++) {
        p.low[i] = i >= p.rows ? 1 : h->first ? h->first[row + i] - h->from : 0;
        p.high[i] = i >= p.rows ? 0 : row + i - h->from;
    }
    return p;
}

static float *panel_scores(const struct head *h, float *panels, const struct panel *p) {
    return panels + (size_t)p->number * (size_t)h->T * LANES;
}

/* out (keys, LANES) = left (keys, HS) right (HS, LANES): scores, or the gradients of probabilities. */
static void panel_product(const struct head *h, float *out, const struct packed_matrix *left, const struct packed_matrix *right,
                          const struct panel *p) {
    product_strip(out, LANES, left, p->keys, right, p->number * LANES, h->HS, false);
}

/* Dropout's factors in the shape of the panel of scores. Their numbers run along the keys of a row, so they are made in rows and turned. */
static const float *panel_mask(const struct head *h, const struct panel *p) {
    const struct attention *a = h->a;
    if (!(a->dropout > 0.0f)) return NULL;
    float *mask = panel_scores(h, h->at->mask, p);
    size_t T = (size_t)h->T;
    for (int i = 0; i < p->rows; i++) {
        float *row = h->at->mask_rows + (size_t)i * T;
        for (int key = 0; key < p->keys; key++) row[key] = 1.0f;
        uint64_t element = h->first_element + (uint64_t)(p->row + i) * (uint64_t)a->T + (uint64_t)h->from;
        dropout_apply(row, a->dropout_key, element, (size_t)p->keys, a->dropout);
    }
    for (int i = 0; i < LANES; i += 8)
        kernel_set()->pack_rows(mask + i, LANES, h->at->mask_rows + (size_t)i * T, T, p->rows - i > 8 ? 8 : p->rows - i, p->keys,
                                PACK_FLOAT);
    return mask;
}

/* A panel as the packed right matrix of a product over keys; float32 panels are one as they are. */
static struct packed_matrix panel_right(const struct head *h, float *words, const float *scores, const struct panel *p) {
    struct packed_matrix m = packed_small(words, PACKED_RIGHT, QUERIES, h->T, h->a->bf16);
    if (h->a->bf16) pack_columns(&m, scores, LANES, p->number * LANES, LANES, 0, p->keys);
    return m;
}

/* turned (HS, LANES) = left (HS, keys) panel (keys, LANES), then to rows of out, each times factor[row] where there are factors. */
static void panel_output(const struct head *h, float *out, size_t ld, const struct packed_matrix *left, const struct packed_matrix *right,
                         const struct panel *p, const float *factor) {
    float *turned = h->at->turned;
    product_strip(turned, LANES, left, h->HS, right, p->number * LANES, p->keys, false);
    int whole = h->HS / 8 * 8;
    for (int i = 0; i < whole; i += 8)
        kernel_set()->pack_rows(out + i, (int)ld, turned + (size_t)i * LANES, LANES, 8, p->rows, PACK_FLOAT);
    for (int row = 0; row < p->rows; row++) {
        for (int i = whole; i < h->HS; i++) out[(size_t)row * ld + (size_t)i] = turned[(size_t)i * LANES + (size_t)row];
        if (factor) vector_scale(out + (size_t)row * ld, factor[row], (size_t)h->HS);
    }
}

/* ---- forward ---- */

static void forward_block(const struct head *h, int row) {
    const struct attention *a = h->a;
    struct packed_matrix q = packed_small(h->at->q_by_rows, PACKED_RIGHT, QUERIES, h->HS, a->bf16);
    pack_rows(&q, h->q + (size_t)row * h->ld, h->ld, 0, smaller(QUERIES, h->end - row), 0, h->HS);
    for (int number = 0; number < PANELS; number++) {
        struct panel p = panel_at(h, row, number);
        if (!p.rows) break;
        float *scores = panel_scores(h, h->at->p, &p), max[LANES], factor[LANES];
        panel_product(h, scores, &h->k_by_rows, &q, &p);
        kernel_set()->panel_softmax(scores, max, factor, p.keys, p.low, p.high, a->scale, panel_mask(h, &p));
        memcpy(h->max + p.row, max, (size_t)p.rows * sizeof(float));
        memcpy(h->factor + p.row, factor, (size_t)p.rows * sizeof(float));
        struct packed_matrix right = panel_right(h, h->at->p_right, scores, &p);
        panel_output(h, h->out + (size_t)p.row * h->out_ld, h->out_ld, &h->v_by_columns, &right, &p, factor);
    }
}

static void forward_work(void *arg, size_t item) {
    struct attention *a = arg;
    int slot = scratch_take(a->scratch);
    struct head h = head_of(a, &a->scratch->place[slot], item);
    for (int from = 0, end; from < a->T; from = end) {
        end = span_end(h.first, from, a->T);
        head_span(&h, from, end, false);
        for (int row = from; row < end; row += QUERIES) forward_block(&h, row);
    }
    scratch_give(a->scratch, slot);
}

/* ---- backward ---- */

/* What a block's queries and their gradients are packed to. */
struct queries {
    struct packed_matrix q_by_rows, q_by_columns, dout_by_rows, dout_by_columns;
    int rows;
};

static struct queries queries_of(const struct head *h, int row) {
    bool bf16 = h->a->bf16;
    int rows = smaller(QUERIES, h->end - row), HS = h->HS;
    struct queries s = {packed_small(h->at->q_by_rows, PACKED_RIGHT, QUERIES, HS, bf16),
                        packed_small(h->at->q_by_columns, PACKED_RIGHT, HS, QUERIES, bf16),
                        packed_small(h->at->dout_by_rows, PACKED_RIGHT, QUERIES, HS, bf16),
                        packed_small(h->at->dout_by_columns, PACKED_RIGHT, HS, QUERIES, bf16), rows};
    const float *q = h->q + (size_t)row * h->ld, *dout = h->dout + (size_t)row * h->out_ld;
    pack_rows(&s.q_by_rows, q, h->ld, 0, rows, 0, HS);
    pack_columns(&s.q_by_columns, q, h->ld, 0, HS, 0, rows);
    pack_rows(&s.dout_by_rows, dout, h->out_ld, 0, rows, 0, HS);
    pack_columns(&s.dout_by_columns, dout, h->out_ld, 0, HS, 0, rows);
    return s;
}

/* D and scale dS of one panel, to h->at->p and ds, each (keys, LANES); and dq from ds. */
static void backward_panel(const struct head *h, const struct queries *s, const struct panel *p) {
    float *probability = panel_scores(h, h->at->p, p), *ds = panel_scores(h, h->at->ds, p), max[LANES] = {0}, factor[LANES] = {0},
          product[LANES] = {0};
    memcpy(max, h->max + p->row, (size_t)p->rows * sizeof(float));
    memcpy(factor, h->factor + p->row, (size_t)p->rows * sizeof(float));
    for (int i = 0; i < p->rows; i++) {
        size_t at = (size_t)(p->row + i) * h->out_ld;
        product[i] = vector_dot(h->out + at, h->dout + at, (size_t)h->HS);
    }
    panel_product(h, probability, &h->k_by_rows, &s->q_by_rows, p);
    panel_product(h, ds, &h->v_by_rows, &s->dout_by_rows, p);
    kernel_set()->panel_softmax_backward(probability, ds, max, factor, product, p->keys, p->low, p->high, h->a->scale, panel_mask(h, p));
    struct packed_matrix right = panel_right(h, h->at->ds_right, ds, p);
    panel_output(h, h->dq + (size_t)p->row * h->ld, h->ld, &h->k_by_columns, &right, p, NULL);
}

/* out (keys, HS) = or += what the block's panels, as a packed left matrix of depth `rows`, give with right (rows, HS). */
static void gather(const struct head *h, float *out, float *words, float *panels, const struct packed_matrix *right, int keys, int rows,
                   bool add) {
    struct packed_matrix left = packed_small(words, PACKED_LEFT, keys, QUERIES, h->a->bf16);
    for (int number = 0; number * LANES < rows; number++)
        pack_rows(&left, panels + (size_t)number * (size_t)h->T * LANES, LANES, 0, keys, number * LANES,
                  smaller(LANES, rows - number * LANES));
    for (int i = 0; i < h->HS; i += TILE_COLUMNS)
        product_strip(out + (size_t)h->from * h->ld + (size_t)i, h->ld, &left, keys, right, i, rows, add);
}

/* The span's last block sees every key of it, so it comes first and overwrites dk and dv; the others add. */
static void backward_block(const struct head *h, int row, bool add) {
    struct queries s = queries_of(h, row);
    int keys = row + s.rows - h->from;
    for (int number = 0; number < PANELS; number++) {
        struct panel p = panel_at(h, row, number);
        if (!p.rows) break;
        backward_panel(h, &s, &p);
        size_t seen = (size_t)p.keys * LANES, unseen = (size_t)(keys - p.keys) * LANES * sizeof(float);
        memset(panel_scores(h, h->at->p, &p) + seen, 0, unseen);
        memset(panel_scores(h, h->at->ds, &p) + seen, 0, unseen);
    }
    gather(h, h->dv, h->at->p_left, h->at->p, &s.dout_by_columns, keys, s.rows, add);
    gather(h, h->dk, h->at->ds_left, h->at->ds, &s.q_by_columns, keys, s.rows, add);
}

static void backward_work(void *arg, size_t item) {
    struct attention *a = arg;
    int slot = scratch_take(a->scratch);
    struct head h = head_of(a, &a->scratch->place[slot], item);
    for (int from = 0, end; from < a->T; from = end) {
        end = span_end(h.first, from, a->T);
        head_span(&h, from, end, true);
        int last = from + (end - from - 1) / QUERIES * QUERIES;
        for (int row = last; row >= from; row -= QUERIES) backward_block(&h, row, row < last);
    }
    scratch_give(a->scratch, slot);
}

static void run(struct pool *pool, struct attention *a, void (*work)(void *, size_t)) {
    const struct attention_scratch *s = a->scratch;
    CHECK(pool_threads(pool) <= s->threads && a->T <= s->T && a->C / a->NH == s->HS && a->bf16 == s->bf16);
    pool_run(pool, (size_t)a->B * (size_t)a->NH, work, a);
}

void attention_forward(struct pool *pool, struct attention *attention) {
    run(pool, attention, forward_work);
    profile_lap("attention", 2.0 * attention->B * attention->T * (double)attention->T * attention->C, 0);
}

void attention_backward(struct pool *pool, struct attention *attention) {
    run(pool, attention, backward_work);
    profile_lap("attention backward", 5.0 * attention->B * attention->T * (double)attention->T * attention->C, 0);
}
