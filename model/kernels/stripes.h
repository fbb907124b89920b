/* Matrices of weights laid out once for being read once a token: stripes of 32 columns, each one run of memory from its first to its last
 * byte, one behind the other (model/kernels/stripe_kernels.h draws them). fp32 keeps the weights as they are; bf16 rounds each to the
 * nearest, ties to even; int8 has for 64 weights of a column one scale, a bf16 number not below their largest magnitude / 127, and rounds
 * weight / scale to the nearest. */
#ifndef MILLRACE_MODEL_STRIPES_H
#define MILLRACE_MODEL_STRIPES_H

#include <stdbool.h>

#include "model/kernels/stripe_kernels.h"

enum weights_type { WEIGHTS_FP32, WEIGHTS_BF16, WEIGHTS_INT8 };

/* "fp32", "bf16", "int8", and their long names; anything else is ERR_USAGE. */
int weights_type_of(enum weights_type *out, const char *name);

struct stripes {
    enum weights_type type;
    int K, N;
    char *data; /* borrowed; 64-byte aligned */
};

size_t stripes_bytes_each(const struct stripes *m);
size_t stripes_count(const struct stripes *m);
size_t stripes_bytes(const struct stripes *m);
static inline const char *stripes_at(const struct stripes *m, size_t stripe) { return m->data + stripe * stripes_bytes_each(m); }

/* Fills one stripe from its first column: element (k, j) is at from[k * k_step + j * j_step]. False when one of them is no finite number,
 * which int8 cannot hold. */
bool stripes_fill(const struct stripes *m, size_t stripe, const float *from, size_t k_step, size_t j_step);

/* out (K) = column j, as the products see it. */
void stripes_column(float *out, const struct stripes *m, int j);

/* Column j from column[K], row k from row[N]: for matrices that grow, fp32 and bf16 only. */
void stripes_put_column(const struct stripes *m, int j, const float *column);
void stripes_put_row(const struct stripes *m, int k, const float *row);

/* The kernel for a type. */
stripe_product *stripes_product(const struct stripe_kernels *kernels, enum weights_type type);

uint16_t bf16_of(float x); /* to nearest, ties to even; NaN stays NaN */
float bf16_widen(uint16_t bits);

/* Where column j of a bf16 row of 32 is. */
static inline int bf16_place(int j) { return j % 16 * 2 + j / 16; }

#endif
