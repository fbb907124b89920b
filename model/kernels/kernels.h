/* Leaf kernels over rows of floats: no threads, no allocation, no knowledge of the model. Vectorized with explicit lanes, so that every
 * instruction set gives the same bits; multiplications and additions are never fused. NaN in gives NaN out: a bad step must be seen. Out
 * may be in unless noted. */
#ifndef MILLRACE_MODEL_KERNELS_H
#define MILLRACE_MODEL_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* "avx512_bf16", "avx512", "avx2" or "portable": which set this process runs. The bits of everything in here are the same. */
const char *kernels_name(void);

/* Chooses the set by name, NULL or empty: the best; ERR_UNSUPPORTED names those that this machine has. */
int kernels_choose(const char *name_or_null);
int kernels_choose_wanted(void); /* by MILLRACE_KERNELS; once at the start of whatever computes, as a wrong name is refused here alone */

/* out (rows, C) = (x - mean) * rstd * weight + bias, with the biased variance over C and `epsilon`. mean and rstd (rows) may be NULL. */
void layernorm_forward(float *out, float *mean, float *rstd, const float *x, const float *weight, const float *bias, int rows, int C,
                       float epsilon);

/* dx (rows, C) += the gradient through LayerNorm of dout (rows, C). */
void layernorm_backward(float *dx, const float *dout, const float *x, const float *weight, const float *mean, const float *rstd, int rows,
                        int C);

/* dweight and dbias of the columns [column, column + columns), rows in order; overwritten unless `add`. */
void layernorm_backward_weight(float *dweight, float *dbias, const float *dout, const float *x, const float *mean, const float *rstd,
                               int rows, int C, int column, int columns, int add);

/* gelu_new: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). */
void gelu_forward(float *out, const float *x, size_t count);
void gelu_forward_slope(float *out, uint16_t *slope, const float *x, size_t count); /* and the slope in bfloat16 */
void vector_scale_bf16(float *x, const uint16_t *factor, size_t count);             /* x[i] *= factor[i], the factor in bfloat16 */
void gelu_backward(float *dx, const float *dout, const float *x, size_t count);

/* row[0 .. count) becomes exp(x - max); returns the sum through *sum and the maximum through *max. For attention and for sampling. */
void softmax_exp(float *row, int count, float *max, float *sum);

void vector_scale(float *x, float factor, size_t count);
void vector_accumulate(float *out, const float *x, size_t count);                    /* out += x */
void vector_sum_of(float *out, const float *left, const float *right, size_t count); /* out = left + right */
float vector_dot(const float *x, const float *y, size_t count);                      /* in fixed lanes */

/* sum[column .. column + columns) of x (rows, N) over the rows in order; overwritten unless `add`. A bias gradient. */
void column_sums(float *sum, const float *x, int rows, int N, int column, int columns, int add);

/* Inverted dropout. The mask is a function of (key, element): element e is dropped when word e % 4 of philox(key, 0, e / 4) is below p *
 * 2^32; the others are multiplied with 1 / (1 - p). Elements are first .. first + count - 1. */
void dropout_apply(float *x, uint64_t key, uint64_t first, size_t count, float p);

/* The key of one site's masks: the first two words (low, high) of philox(philox(seed, 0x64726f70, step) as key, slice, layer << 8 | site).
 */
enum dropout_site { DROPOUT_EMBEDDING, DROPOUT_ATTENTION, DROPOUT_RESIDUAL_ATTENTION, DROPOUT_RESIDUAL_MLP };
uint64_t dropout_key(uint64_t seed, uint64_t step, uint32_t slice, uint32_t layer, enum dropout_site site);

/* The key that rounds the moments of one step: the first two words of philox(seed, 0x6d6f6d65, step). */
uint64_t moments_key(uint64_t seed, uint64_t step);

#endif
