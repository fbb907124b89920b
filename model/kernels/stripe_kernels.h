/* The kernels of generation: x (rows, K) times one stripe of a matrix, 32 of its columns. model/kernels/stripe_body.h is compiled once for
 * each instruction set. A column's sum runs over k in order, multiplications and additions are never fused, and sums of int8 products are
 * exact: every set gives the same bits, for each row alone as for many.
 *
 * A stripe is in memory in the order in which it is read (model/kernels/stripes.h makes them):
 *   fp32   K rows of 32 floats
 *   bf16   K rows of 16 words; word i holds column i in its low half and column i + 16 in its high half
 *   int8   ceil(K / 64) blocks of 2112 bytes: the columns' scales as a bf16 row, then for each four k the 32 columns' four weights,
 *          each as weight + 128; what is beyond K is weight 0 */
#ifndef MILLRACE_MODEL_STRIPE_KERNELS_H
#define MILLRACE_MODEL_STRIPE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    STRIPE = 32,     /* columns */
    INT8_BLOCK = 64, /* values along k that share a scale */
    INT8_LARGEST = 127,
    INT8_STRIPE_BLOCK_BYTES = STRIPE * 2 + STRIPE * INT8_BLOCK,
};

/* 64 values of x: x[i] = scale * q[i]. The weights' 128 adds 128 * (sum of q) to a product; offset is what takes it away. */
struct int8_block {
    float scale;
    int32_t offset;
    int8_t q[INT8_BLOCK];
};

/* out[r * out_pitch + j] = sum over k of x[r][k] * stripe[k][j], for all 32 j. x_pitch counts what x consists of: floats for fp32 and bf16
 * stripes, int8_blocks for int8. */
typedef void stripe_product(float *out, size_t out_pitch, const void *x, size_t x_pitch, const void *stripe, int rows, int K);

struct stripe_kernels {
    const char *name;
    stripe_product *fp32, *bf16, *int8;
    /* out[ceil(K / 64)] = x (K), each block by its largest value. NaN in a block makes its scale NaN. */
    void (*quantize)(struct int8_block *out, const float *x, int K);
};

extern const struct stripe_kernels stripe_kernels_portable, stripe_kernels_avx2, stripe_kernels_avx512;

/* The set beside the one that training uses (model/kernels/kernels.h), so that MILLRACE_KERNELS chooses both. */
const struct stripe_kernels *stripe_kernels(void);

/* Set number i of those that this machine has, best first; NULL past the last. */
const struct stripe_kernels *stripe_kernels_at(int i);

#endif
