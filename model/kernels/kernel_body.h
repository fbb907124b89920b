/* The bodies of the kernels, compiled once for each instruction set by the file that includes this (kernels_portable.c, kernels_avx2.c and
 * the others). Plain C over v8: lanes and order of every sum are written out, so all sets give the same bits. Never included elsewhere. */
#include "base/philox.h"
#include "model/kernels/fmath.h"
#include "model/kernels/kernel_set.h"

/* The last count < 8 elements, the missing lanes filled. */
FMATH_INLINE v8 load_some(const float *p, size_t count, float fill) {
    float x[8] = {fill, fill, fill, fill, fill, fill, fill, fill};
    for (size_t i = 0; i < count; i++) x[i] = p[i];
    return v8_load(x);
}

FMATH_INLINE void store_some(float *p, v8 v, size_t count) {
    float x[8];
    v8_store(x, v);
    for (size_t i = 0; i < count; i++) p[i] = x[i];
}

/* for (each eight elements) statement, which sees i, and n = 8 or what is left of the last. */
#define EIGHTS(count, ...) \
    do { \
        size_t i = 0; \
        for (; i + 8 <= (size_t)(count); i += 8) { \
            enum { n = 8 }; \
            __VA_ARGS__ \
        } \
        if (i < (size_t)(count)) { \
            const size_t n = (size_t)(count)-i; \
            __VA_ARGS__ \
        } \
    } while (0)
#define LOAD(p)          (n == 8 ? v8_load((p) + i) : load_some((p) + i, n, 0.0f))
#define LOAD_OR(p, fill) (n == 8 ? v8_load((p) + i) : load_some((p) + i, n, fill))
#define STORE(p, v)      (n == 8 ? v8_store((p) + i, v) : store_some((p) + i, v, n))

/* As wide as registers are: for what has no order between lanes. */
#if TILE_LANES == 16
typedef float wide __attribute__((vector_size(64)));
typedef int32_t widei __attribute__((vector_size(64)));
typedef uint32_t wideu __attribute__((vector_size(64)));
#define WIDE     16
#define wide_max _mm512_max_ps
#define wide_min _mm512_min_ps
FMATH_EXP(wide_exp, wide, widei, wide_max, wide_min)
#else
typedef v8 wide;
typedef v8i widei;
typedef v8u wideu;
#define WIDE     8
#define wide_max v8_max
#define wide_min v8_min
#define wide_exp v8_exp
#endif

FMATH_INLINE wide wide_all(float x) { return (wide){0} + x; }

FMATH_INLINE wide wide_load(const float *p) {
    wide v;
    memcpy(&v, p, sizeof v);
    return v;
}

FMATH_INLINE void wide_store(float *p, wide v) { memcpy(p, &v, sizeof v); }

FMATH_INLINE wide wide_load_some(const float *p, size_t count) {
    float x[WIDE] = {0};
    for (size_t i = 0; i < count; i++) x[i] = p[i];
    return wide_load(x);
}

FMATH_INLINE void wide_store_some(float *p, wide v, size_t count) {
    float x[WIDE];
    wide_store(x, v);
    for (size_t i = 0; i < count; i++) p[i] = x[i];
}

/* Upper halves of floats. */
typedef uint16_t wide16 __attribute__((vector_size(2 * WIDE)));

FMATH_INLINE wide16 wide16_load_some(const uint16_t *p, size_t count) {
    wide16 v = {0};
    memcpy(&v, p, count * sizeof *p);
    return v;
}

FMATH_INLINE wide wide_widen(wide16 upper) { return (wide)(__builtin_convertvector(upper, wideu) << 16); }

/* Rounds to bfloat16, to nearest and to even, and leaves it in the upper half of each lane; NaN stays one. */
FMATH_INLINE wide bf16_rounded(wide x) {
    wideu bits = (wideu)x, rounded = bits + 0x7fff + ((bits >> 16) & 1); /* without a sign: NaN may overflow */
    wideu nan = (wideu)(x != x);
    return (wide)(((nan & (bits | 0x400000)) | (~nan & rounded)) & 0xffff0000u);
}

/* As EIGHTS(), LOAD() and STORE(). */
#define WIDES(count, ...) \
    do { \
        size_t i = 0; \
        for (; i + WIDE <= (size_t)(count); i += WIDE) { \
            enum { n = WIDE }; \
            __VA_ARGS__ \
        } \
        if (i < (size_t)(count)) { \
            const size_t n = (size_t)(count)-i; \
            __VA_ARGS__ \
        } \
    } while (0)
#define WIDE_LOAD(p)     (n == WIDE ? wide_load((p) + i) : wide_load_some((p) + i, n))
#define WIDE_STORE(p, v) (n == WIDE ? wide_store((p) + i, v) : wide_store_some((p) + i, v, n))

/* Sums run in two accumulators of eight lanes, taken in turn. */
#define SUM_START  v8 sum0 = v8_all(0.0f), sum1 = v8_all(0.0f), sum_swap
#define SUM_ADD(v) (sum_swap = sum0 + (v), sum0 = sum1, sum1 = sum_swap)
#define SUM_END    v8_sum(sum0 + sum1)

/* For each row of C: mean = sum of x / C, rstd = 1 / sqrt(sum of (x - mean)^2 / C + epsilon), norm = (x - mean) rstd,
 * out = norm weight + bias. */
static void k_layernorm_forward(float *out, float *mean, float *rstd, const float *x, const float *weight, const float *bias, int rows,
                                int C, float epsilon) {
    for (int row = 0; row < rows; row++, x += C, out += C) {
        float m, r;
        {
            SUM_START;
            EIGHTS(C, { SUM_ADD(LOAD(x)); });
            m = SUM_END / (float)C;
        }
        {
            SUM_START;
            EIGHTS(C, {
                v8 d = LOAD_OR(x, m) - v8_all(m);
                SUM_ADD(d * d);
            });
            r = 1.0f / sqrtf(SUM_END / (float)C + epsilon);
        }
        EIGHTS(C, { STORE(out, (LOAD(x) - v8_all(m)) * v8_all(r) * LOAD(weight) + LOAD(bias)); });
        if (mean) mean[row] = m;
        if (rstd) rstd[row] = r;
    }
}

/* With dnorm = dout weight: dx += rstd (dnorm - mean of dnorm - norm * mean of (dnorm norm)), means over the row. */
static void k_layernorm_backward(float *dx, const float *dout, const float *x, const float *weight, const float *mean, const float *rstd,
                                 int rows, int C) {
    for (int row = 0; row < rows; row++, x += C, dout += C, dx += C) {
        v8 m = v8_all(mean[row]), r = v8_all(rstd[row]);
        float of_norm, of_product;
        {
            SUM_START;
            EIGHTS(C, { SUM_ADD(LOAD(dout) * LOAD(weight)); });
            of_norm = SUM_END / (float)C;
        }
        {
            SUM_START;
            EIGHTS(C, { SUM_ADD(LOAD(dout) * LOAD(weight) * ((LOAD(x) - m) * r)); });
            of_product = SUM_END / (float)C;
        }
        EIGHTS(C, {
            v8 norm = (LOAD(x) - m) * r, dnorm = LOAD(dout) * LOAD(weight);
            STORE(dx, LOAD(dx) + r * (dnorm - v8_all(of_norm) - norm * v8_all(of_product)));
        });
    }
}

/* dweight = sum over rows of dout norm, dbias = sum over rows of dout. */
static void k_layernorm_backward_weight(float *dweight, float *dbias, const float *dout, const float *x, const float *mean,
                                        const float *rstd, int rows, int C, int column, int columns, int add) {
    dweight += column, dbias += column, dout += column, x += column;
    EIGHTS(columns, {
        v8 w = add ? LOAD(dweight) : v8_all(0.0f), b = add ? LOAD(dbias) : v8_all(0.0f);
        for (int row = 0; row < rows; row++) {
            const float *d = dout + (size_t)row * (size_t)C, *y = x + (size_t)row * (size_t)C;
            v8 g = LOAD(d);
            w = w + g * ((LOAD(y) - v8_all(mean[row])) * v8_all(rstd[row]));
            b = b + g;
        }
        STORE(dweight, w);
        STORE(dbias, b);
    });
}

/* (1 + tanh u) / 2 = 1 / (1 + e^-2u), with u = sqrt(2 / pi) (x + 0.044715 x^3): no cancellation on the negative side. */
#define GELU_A 1.5957691216057308f  /* 2 sqrt(2 / pi) */
#define GELU_B 0.07135481627159786f /* 0.044715 times that */
FMATH_INLINE wide gelu_gate(wide x) {
    wide twice_u = x * (GELU_A + GELU_B * (x * x));
    return 1.0f / (1.0f + wide_exp(-twice_u));
}

static void k_gelu_forward(float *out, const float *x, size_t count) {
    WIDES(count, {
        wide y = WIDE_LOAD(x);
        WIDE_STORE(out, y * gelu_gate(y));
    });
}

FMATH_INLINE wide gelu_inside(wide x) { return wide_min(wide_all(30.0f), wide_max(wide_all(-30.0f), x)); } /* beyond, the slope is 0 or 1 */

FMATH_INLINE wide gelu_slope(wide y, wide gate) {
    wide slope = GELU_A + 3.0f * GELU_B * (y * y); /* of 2 u */
    return gate + y * gate * (1.0f - gate) * slope;
}

static void k_gelu_backward(float *dx, const float *dout, const float *x, size_t count) {
    WIDES(count, {
        wide y = gelu_inside(WIDE_LOAD(x));
        WIDE_STORE(dx, WIDE_LOAD(dout) * gelu_slope(y, gelu_gate(y)));
    });
}

static void k_gelu_forward_slope(float *out, uint16_t *slope, const float *x, size_t count) {
    WIDES(count, {
        wide all = WIDE_LOAD(x), y = gelu_inside(all), gate = gelu_gate(y);
        WIDE_STORE(out, all * gate);
        wide16 upper = __builtin_convertvector((wideu)bf16_rounded(gelu_slope(y, gate)) >> 16, wide16);
        memcpy(slope + i, &upper, n * sizeof *slope);
    });
}

static void k_vector_scale_bf16(float *x, const uint16_t *factor, size_t count) {
    WIDES(count, { WIDE_STORE(x, WIDE_LOAD(x) * wide_widen(wide16_load_some(factor + i, n))); });
}

/* Sixteen at a time, then eight: lanes and order are those of two accumulators of eight lanes, taken in turn. */
static void k_softmax_exp(float *row, int count, float *max, float *sum) {
    enum { TURNS = 16 / WIDE };
    int whole = count / 16 * 16;
    wide tops[TURNS], sums[TURNS];
    v8 m[2], s[2];
    for (int j = 0; j < TURNS; j++) tops[j] = wide_all(-INFINITY), sums[j] = wide_all(0.0f);
    for (int i = 0; i < whole; i += 16)
        for (int j = 0; j < TURNS; j++) tops[j] = wide_max(tops[j], wide_load(row + i + WIDE * j));
    memcpy(m, tops, sizeof m);
    EIGHTS(count - whole, {
        v8 swap = v8_max(m[0], LOAD_OR(row + whole, -INFINITY));
        m[0] = m[1], m[1] = swap;
    });
    m[0] = v8_max(m[0], m[1]);
    float top = m[0][0];
    for (int lane = 1; lane < 8; lane++) top = top > m[0][lane] ? top : m[0][lane];
    for (int i = 0; i < whole; i += 16)
        for (int j = 0; j < TURNS; j++) {
            wide e = wide_exp(wide_load(row + i + WIDE * j) - top);
            wide_store(row + i + WIDE * j, e);
            sums[j] = sums[j] + e;
        }
    memcpy(s, sums, sizeof s);
    EIGHTS(count - whole, {
        v8 e = v8_exp(LOAD_OR(row + whole, -INFINITY) - top);
        STORE(row + whole, e);
        v8 swap = s[0] + e;
        s[0] = s[1], s[1] = swap;
    });
    *max = top;
    *sum = v8_sum(s[0] + s[1]);
}

static float k_vector_dot(const float *x, const float *y, size_t count) {
    SUM_START;
    EIGHTS(count, { SUM_ADD(LOAD(x) * LOAD(y)); });
    return SUM_END;
}

static void k_vector_scale(float *x, float factor, size_t count) {
    EIGHTS(count, { STORE(x, LOAD(x) * v8_all(factor)); });
}

static void k_vector_sum_of(float *out, const float *left, const float *right, size_t count) {
    EIGHTS(count, { STORE(out, LOAD(left) + LOAD(right)); });
}

static void k_vector_accumulate(float *out, const float *x, size_t count) { k_vector_sum_of(out, out, x, count); }

/* Going down a stripe of columns, each row is on another page: no prefetcher guesses the next one. */
enum { ROWS_AHEAD = 12 };
FMATH_INLINE void prefetch_row(const float *row) { __builtin_prefetch(row), __builtin_prefetch(row + 16); }

static void k_column_sums(float *sum, const float *x, int rows, int N, int column, int columns, int add) {
    sum += column, x += column;
    int at = 0;
    for (; at + 32 <= columns; at += 32) {
        v8 s[4];
        for (int j = 0; j < 4; j++) s[j] = add ? v8_load(sum + at + 8 * j) : v8_all(0.0f);
        for (int row = 0; row < rows; row++) {
            const float *line = x + (size_t)row * (size_t)N + at;
            prefetch_row(line + ROWS_AHEAD * (size_t)N);
            for (int j = 0; j < 4; j++) s[j] = s[j] + v8_load(line + 8 * j);
        }
        for (int j = 0; j < 4; j++) v8_store(sum + at + 8 * j, s[j]);
    }
    sum += at, x += at;
    EIGHTS(columns - at, {
        v8 s = add ? LOAD(sum) : v8_all(0.0f);
        for (int row = 0; row < rows; row++) s = s + LOAD(x + (size_t)row * (size_t)N);
        STORE(sum, s);
    });
}

/* Squares of floats are exact in float64; eight lanes. */
static double k_square_sum(const float *x, size_t count) {
    double lane[8] = {0};
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int j = 0; j < 8; j++) lane[j] += (double)x[i + (size_t)j] * (double)x[i + (size_t)j];
    for (int j = 0; i < count; i++, j++) lane[j] += (double)x[i] * (double)x[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* One element, at step t, of a gradient g that is scaled first (1 / tokens and clipping):
 *
 *     m = beta1 m + (1 - beta1) g                        first moment
 *     v = beta2 v + (1 - beta2) g^2                      second moment
 *     p = p shrink - step_size m / (sqrt(v) / bias_correction2_sqrt + epsilon)
 *
 * with step_size = rate / (1 - beta1^t) and bias_correction2_sqrt = sqrt(1 - beta2^t): the moments begin at 0, and this takes the bias of
 * that out (Kingma & Ba 2015, arXiv 1412.6980), in the order in which torch.optim divides. AdamW: shrink = 1 - rate weight_decay
 * (decoupled). Adam: shrink = 1 and g += weight_decay p (coupled). p, m, v, g (count). */
FMATH_INLINE void adam_body(float *p, float *m, float *v, const float *g, size_t count, const struct adam_factors *f, int coupled) {
    const v8 scale = v8_all(f->scale), shrink = v8_all(f->shrink), l2 = v8_all(f->l2), epsilon = v8_all(f->epsilon),
             beta1 = v8_all(f->beta1), one_minus_beta1 = v8_all(f->one_minus_beta1), beta2 = v8_all(f->beta2),
             one_minus_beta2 = v8_all(f->one_minus_beta2), step_size = v8_all(f->step_size),
             bias_correction2_sqrt = v8_all(f->bias_correction2_sqrt);
    EIGHTS(count, {
        v8 gradient = LOAD(g) * scale;
        if (coupled) gradient = gradient + l2 * LOAD(p);
        v8 m1 = LOAD(m) * beta1 + gradient * one_minus_beta1, v1 = LOAD(v) * beta2 + gradient * gradient * one_minus_beta2;
        STORE(m, m1);
        STORE(v, v1);
        STORE(p, LOAD(p) * shrink - step_size * (m1 / (v8_sqrt(v1) / bias_correction2_sqrt + epsilon)));
    });
}

static void k_adamw_update(float *p, float *m, float *v, const float *g, size_t count, const struct adam_factors *f) {
    adam_body(p, m, v, g, count, f, 0);
}

static void k_adam_update(float *p, float *m, float *v, const float *g, size_t count, const struct adam_factors *f) {
    adam_body(p, m, v, g, count, f, 1);
}

/* As torch.optim.SGD, of a gradient g that is scaled first:
 *
 *     g += weight_decay p
 *     m = momentum m + g             velocity (Sutskever et al. 2013)
 *     p -= rate m                    with Nesterov's momentum p -= rate (g + momentum m), without any p -= rate g
 *
 * p, m, g (count). */
static void k_sgd_update(float *p, float *m, const float *g, size_t count, const struct sgd_factors *f) {
    const v8 scale = v8_all(f->scale), l2 = v8_all(f->l2), momentum = v8_all(f->momentum), step_size = v8_all(f->step_size);
    EIGHTS(count, {
        v8 gradient = LOAD(g) * scale + l2 * LOAD(p), move = gradient;
        if (m) {
            v8 m1 = LOAD(m) * momentum + gradient;
            STORE(m, m1);
            move = f->nesterov ? gradient + momentum * m1 : m1;
        }
        STORE(p, LOAD(p) - step_size * move);
    });
}

/* average = decay average + (1 - decay) p (Polyak & Juditsky 1992), as average + (1 - decay) (p - average): so an average that equals p
 * stays exactly p. average, p (count). */
static void k_ema_update(float *average, const float *p, float one_minus_decay, size_t count) {
    EIGHTS(count, { STORE(average, LOAD(average) + (LOAD(p) - LOAD(average)) * v8_all(one_minus_decay)); });
}

/* Box and Muller's method on eight pairs: r = sqrt(-2 ln u1), angle 2 pi u2; the angle's top three bits choose the octant. */
FMATH_INLINE void normal_pairs(float first[8], float second[8], const uint32_t radius_bits[8], const uint32_t angle_bits[8]) {
    v8i r_bits, a_bits;
    memcpy(&r_bits, radius_bits, sizeof r_bits);
    memcpy(&a_bits, angle_bits, sizeof a_bits);
    v8 u = (__builtin_convertvector((r_bits >> 8) & 0xffffff, v8) + v8_all(0.5f)) * v8_all(0x1p-24f);
    v8 r = v8_sqrt(v8_all(-2.0f) * v8_log(u));
    v8i quarter = (a_bits >> 30) & 3;
    v8 turn = __builtin_convertvector((a_bits >> 6) & 0xffffff, v8) - v8_all(8388607.5f); /* within the quarter, from its middle */
    v8 sine, cosine;
    v8_sincos_eighth(&sine, &cosine, turn * v8_all(9.3622901e-8f)); /* pi / 4 / 2^23 */
    v8i swap = -(quarter & 1), flip_c = ((quarter + 1) & 2) << 30, flip_s = (quarter & 2) << 30;
    v8i c = (swap & (v8i)sine) | (~swap & (v8i)cosine), s = (swap & (v8i)cosine) | (~swap & (v8i)sine);
    v8_store(first, r * (v8)(c ^ flip_c));
    v8_store(second, r * (v8)(s ^ flip_s));
}

/* Element e is number e % 4 of Philox block e / 4: words 0 and 1 give numbers 0 and 1, words 2 and 3 the others. */
static void k_normal_fill(float *out, uint64_t key, uint64_t first, size_t count, float scale) {
    enum { BLOCKS = 4 };
    uint64_t end = first + count;
    for (uint64_t block = first / 4; block * 4 < end; block += BLOCKS) {
        uint32_t radius[8], angle[8];
        float even[8], odd[8];
        for (unsigned b = 0; b < BLOCKS; b++) {
            struct philox_block random = philox(key, 0x696e6974, block + b); /* "init" keeps it apart from every other use of the seed */
            radius[2 * b] = random.word[0], angle[2 * b] = random.word[1], radius[2 * b + 1] = random.word[2],
                       angle[2 * b + 1] = random.word[3];
        }
        normal_pairs(even, odd, radius, angle);
        for (unsigned j = 0; j < 4 * BLOCKS; j++) {
            uint64_t element = block * 4 + j;
            if (element >= first && element < end) out[element - first] = scale * (j % 2 ? odd : even)[j / 2];
        }
    }
}

#include "model/kernels/panel_body.h"
#include "model/kernels/random_body.h"
#include "model/kernels/tile_body.h"

const struct kernel_set KERNEL_SET = {
    .name = KERNEL_SET_NAME,
    .layernorm_forward = k_layernorm_forward,
    .layernorm_backward = k_layernorm_backward,
    .layernorm_backward_weight = k_layernorm_backward_weight,
    .gelu_forward = k_gelu_forward,
    .gelu_backward = k_gelu_backward,
    .gelu_forward_slope = k_gelu_forward_slope,
    .vector_scale_bf16 = k_vector_scale_bf16,
    .softmax_exp = k_softmax_exp,
    .vector_scale = k_vector_scale,
    .vector_accumulate = k_vector_accumulate,
    .vector_sum_of = k_vector_sum_of,
    .vector_dot = k_vector_dot,
    .column_sums = k_column_sums,
    .dropout_apply = k_dropout_apply,
    .square_sum = k_square_sum,
    .adamw_update = k_adamw_update,
    .adam_update = k_adam_update,
    .sgd_update = k_sgd_update,
    .ema_update = k_ema_update,
    .moments_widen = k_moments_widen,
    .moments_round = k_moments_round,
    .normal_fill = k_normal_fill,
    .tile = k_tile,
    .tile_pairs = TILE_PAIRS,
    .pack_rows = k_pack_rows,
    .pack_columns = k_pack_columns,
    .panel_softmax = k_panel_softmax,
    .panel_softmax_backward = k_panel_softmax_backward,
};
