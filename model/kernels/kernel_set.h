/* The kernels of one instruction set, as a table of functions. The functions' bodies are in model/kernels/kernel_body.h, which is compiled
 * once for each set (kernels_avx2.c and the others); kernels.c picks one table when the process starts. Plain loops over memory that the
 * caller owns: no threads, no allocation. */
#ifndef MILLRACE_MODEL_KERNEL_SET_H
#define MILLRACE_MODEL_KERNEL_SET_H

#include <stddef.h>
#include <stdint.h>

/* What is the same for all elements in one step of AdamW or Adam, computed in float64 and rounded to float32 (adam_factors() in
 * model/optim/optimizer.c). The formulas are above adam_body() in kernel_body.h. */
struct adam_factors {
    float scale;                 /* of the gradient: 1 / tokens, times the clip factor */
    float shrink;                /* AdamW's decoupled weight decay: 1 - rate weight_decay; Adam: 1 */
    float l2;                    /* Adam's coupled weight decay: added to the gradient times the weight; AdamW does not read it */
    float beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon;
    float step_size;             /* rate / (1 - beta1^t) */
    float bias_correction2_sqrt; /* sqrt(1 - beta2^t) */
};

/* The same of SGD. */
struct sgd_factors {
    float scale, l2, momentum, step_size; /* step_size: the rate */
    int nesterov;
};

/* The panels of packed matrices (model/kernels/product.h) are steps of a fixed width. A step holds one element of depth for each row or
 * column, as float32 (PACK_FLOAT), as float32 rounded to bfloat16 (PACK_ROUNDED), or two elements as a pair of bfloat16 in one word
 * (PACK_PAIRS). */
enum pack_mode { PACK_FLOAT, PACK_ROUNDED, PACK_PAIRS };
enum { TILE_ROWS = 8, TILE_COLUMNS = 32, PACK_COLUMNS = 256 };

/* c (rows, columns) = or += a b over `steps` steps of a panel of each, at strides of ldc floats. Meanwhile it fetches to the second-level
 * cache what the next tiles read: a line of next_left in every NEXT_LEFT_STEPS steps, one of next_right in every NEXT_RIGHT_STEPS. */
enum { LINE_WORDS = 16, NEXT_LEFT_STEPS = 32, NEXT_RIGHT_STEPS = 4 };
typedef void tile_function(float *c, size_t ldc, const float *a, const float *b, int steps, int add, const float *next_left,
                           const float *next_right);

struct kernel_set {
    const char *name;
    void (*layernorm_forward)(float *out, float *mean, float *rstd, const float *x, const float *weight, const float *bias, int rows, int C,
                              float epsilon);
    void (*layernorm_backward)(float *dx, const float *dout, const float *x, const float *weight, const float *mean, const float *rstd,
                               int rows, int C);
    void (*layernorm_backward_weight)(float *dweight, float *dbias, const float *dout, const float *x, const float *mean, const float *rstd,
                                      int rows, int C, int column, int columns, int add);
    void (*gelu_forward)(float *out, const float *x, size_t count);
    void (*gelu_backward)(float *dx, const float *dout, const float *x, size_t count);
    /* As gelu_forward(), and its slope in bfloat16. */
    void (*gelu_forward_slope)(float *out, uint16_t *slope, const float *x, size_t count);
    void (*vector_scale_bf16)(float *x, const uint16_t *factor, size_t count); /* x[i] *= factor[i], the factor in bfloat16 */
    void (*softmax_exp)(float *row, int count, float *max, float *sum);
    void (*vector_scale)(float *x, float factor, size_t count);
    void (*vector_accumulate)(float *out, const float *x, size_t count);
    void (*vector_sum_of)(float *out, const float *left, const float *right, size_t count);
    float (*vector_dot)(const float *x, const float *y, size_t count);
    void (*column_sums)(float *sum, const float *x, int rows, int N, int column, int columns, int add);
    void (*dropout_apply)(float *x, uint64_t key, uint64_t first, size_t count, float p);
    double (*square_sum)(const float *x, size_t count);
    /* Weights p, moments m and v, gradient g, average: each (count). */
    void (*adamw_update)(float *p, float *m, float *v, const float *g, size_t count, const struct adam_factors *f);
    void (*adam_update)(float *p, float *m, float *v, const float *g, size_t count, const struct adam_factors *f);
    void (*sgd_update)(float *p, float *m, const float *g, size_t count, const struct sgd_factors *f); /* m NULL: no momentum */
    void (*ema_update)(float *average, const float *p, float one_minus_decay, size_t count);
    /* bfloat16 to the float32 of the same value. */
    void (*moments_widen)(float *out, const uint16_t *x, size_t count);
    /* To bfloat16, stochastically: the upper half of an element's bits + a random number of 16 bits, so that the mean is the element. For
     * element e that is the lower half of word e % 4 of philox(key, 0, e / 4) for m, and its upper half for v (NULL: there is none).
     * Elements are first .. first + count - 1. What is not finite stays so, and nothing finite becomes infinite. */
    void (*moments_round)(uint16_t *m, uint16_t *v, const float *from_m, const float *from_v, uint64_t key, uint64_t first, size_t count);
    void (*normal_fill)(float *out, uint64_t key, uint64_t first, size_t count, float scale);

    /* A tile of TILE_ROWS x TILE_COLUMNS from panels of those widths; of bfloat16 pairs NULL where the processor has no such product. */
    tile_function *tile, *tile_pairs;
    /* Eight rows of x, each with its depth side by side (count of them are there, the others become 0): to lanes out[0 .. 8) of every step.
     */
    void (*pack_rows)(float *out, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode);
    /* Rows of x are steps of depth, their columns lanes: columns j .. j + 8 go to place[j / 8], step after step, at most PACK_COLUMNS of
     * them, up to the next multiple of eight filled with 0. */
    void (*pack_columns)(float *const *place, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode);
    /* A panel of attention scores s (keys, TILE_COLUMNS queries): query i sees the keys low[i] .. high[i]. Becomes exp(scale s - max), 0
     * for what is not seen, times mask (same shape) where that is not NULL; max and factor (1 / sum before the mask) are those of each
     * query. */
    void (*panel_softmax)(float *s, float max[TILE_COLUMNS], float factor[TILE_COLUMNS], int keys, const int32_t low[TILE_COLUMNS],
                          const int32_t high[TILE_COLUMNS], float scale, const float *mask);
    /* From scores s and dp, the gradients of what left panel_softmax(), times `factor`: s becomes those probabilities, dp the gradient of
     * the unscaled scores, p (mask dp - product) scale with p the probabilities before the mask. */
    void (*panel_softmax_backward)(float *s, float *dp, const float max[TILE_COLUMNS], const float factor[TILE_COLUMNS],
                                   const float product[TILE_COLUMNS], int keys, const int32_t low[TILE_COLUMNS],
                                   const int32_t high[TILE_COLUMNS], float scale, const float *mask);
};

/* Best first. All give the same bits but for products: see model/kernels/product.h. */
extern const struct kernel_set kernel_set_avx512_bf16, kernel_set_avx512, kernel_set_avx2, kernel_set_portable;

/* The best set of this machine, or the one that MILLRACE_KERNELS names. */
const struct kernel_set *kernel_set(void);

/* The sets that this machine has, best first, at most KERNEL_SETS; for tests: kernel_set_use() makes one the set of the process. */
enum { KERNEL_SETS = 4 };
size_t kernel_sets(const struct kernel_set *out[KERNEL_SETS]);
void kernel_set_use(const struct kernel_set *set);

#endif
