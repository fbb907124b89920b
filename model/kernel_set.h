/* The kernels of one instruction set. model/kernel_body.h is compiled once for each set; kernels.c picks one at run time. */
#ifndef MILLRACE_MODEL_KERNEL_SET_H
#define MILLRACE_MODEL_KERNEL_SET_H

#include <stddef.h>
#include <stdint.h>

/* Factors of one step of AdamW or Adam, already rounded to float32. l2 is Adam's alone: what of a weight is added to its gradient. */
struct adam_factors {
    float scale, shrink, beta1, beta1_rest, beta2, beta2_rest, root2, step_size, epsilon, l2;
};

struct sgd_factors {
    float scale, l2, momentum, step_size;
    int nesterov;
};

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
    void (*softmax_exp)(float *row, int count, float *max, float *sum);
    void (*softmax_again)(float *row, int count, float max, float factor);
    void (*softmax_backward)(float *ds, const float *p, const float *dp, int count);
    void (*vector_scale)(float *x, float factor, size_t count);
    void (*vector_accumulate)(float *out, const float *x, size_t count);
    void (*vector_sum_of)(float *out, const float *left, const float *right, size_t count);
    void (*vector_axpy)(float *out, float factor, const float *x, size_t count);
    float (*vector_dot)(const float *x, const float *y, size_t count);
    void (*column_sums)(float *sum, const float *x, int rows, int N, int column, int columns, int add);
    void (*row_product)(float *out, const float *x, const float *w, int K, int N, int column, int columns);
    void (*dropout_apply)(float *x, uint64_t key, uint64_t first, size_t count, float p);
    double (*square_sum)(const float *x, size_t count);
    void (*adamw_update)(float *p, float *m, float *v, const float *g, size_t count, const struct adam_factors *f);
    void (*adam_update)(float *p, float *m, float *v, const float *g, size_t count, const struct adam_factors *f);
    void (*sgd_update)(float *p, float *m, const float *g, size_t count, const struct sgd_factors *f); /* m NULL: no momentum */
    void (*ema_update)(float *average, const float *p, float rest, size_t count);
    void (*normal_fill)(float *out, uint64_t key, uint64_t first, size_t count, float scale);
};

extern const struct kernel_set kernel_set_sse2, kernel_set_avx2;

/* The set of this machine. */
const struct kernel_set *kernel_set(void);

#endif
