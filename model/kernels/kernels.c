/* Picks the kernels of this machine's instruction set and hands every call on to them. All sets give the same bits (a test compares them),
 * but for products, whose additions are fused where the processor can do it. */
#include "model/kernels/kernels.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/philox.h"
#include "model/kernels/kernel_set.h"

size_t kernel_sets(const struct kernel_set *out[KERNEL_SETS]) {
    size_t count = 0;
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
    if (avx512 && __builtin_cpu_supports("avx512bf16")) out[count++] = &kernel_set_avx512_bf16;
    if (avx512) out[count++] = &kernel_set_avx512;
    if (avx2) out[count++] = &kernel_set_avx2;
#endif
    out[count++] = &kernel_set_portable;
    return count;
}

static _Atomic(const struct kernel_set *) in_use;

void kernel_set_use(const struct kernel_set *set) { atomic_store(&in_use, set); }

int kernels_choose(const char *name) {
    const struct kernel_set *set[KERNEL_SETS];
    size_t count = kernel_sets(set);
    char names[64] = "";
    for (size_t i = 0; i < count; i++) {
        if (!name || !name[0] || strcmp(set[i]->name, name) == 0) {
            kernel_set_use(set[i]);
            return 0;
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", set[i]->name);
    }
    return err_set(ERR_UNSUPPORTED, "MILLRACE_KERNELS=%s: this machine has %s", name, names);
}

int kernels_choose_wanted(void) { return kernels_choose(getenv("MILLRACE_KERNELS")); }

const struct kernel_set *kernel_set(void) {
    const struct kernel_set *set = atomic_load_explicit(&in_use, memory_order_relaxed);
    if (set) return set;
    CHECK(kernels_choose_wanted() == 0); /* a name that is wrong was refused at the start */
    return atomic_load(&in_use);
}

const char *kernels_name(void) { return kernel_set()->name; }

void layernorm_forward(float *out, float *mean, float *rstd, const float *x, const float *weight, const float *bias, int rows, int C,
                       float epsilon) {
    kernel_set()->layernorm_forward(out, mean, rstd, x, weight, bias, rows, C, epsilon);
}

void layernorm_backward(float *dx, const float *dout, const float *x, const float *weight, const float *mean, const float *rstd, int rows,
                        int C) {
    kernel_set()->layernorm_backward(dx, dout, x, weight, mean, rstd, rows, C);
}

void layernorm_backward_weight(float *dweight, float *dbias, const float *dout, const float *x, const float *mean, const float *rstd,
                               int rows, int C, int column, int columns, int add) {
    kernel_set()->layernorm_backward_weight(dweight, dbias, dout, x, mean, rstd, rows, C, column, columns, add);
}

void gelu_forward(float *out, const float *x, size_t count) { kernel_set()->gelu_forward(out, x, count); }

void gelu_forward_slope(float *out, uint16_t *slope, const float *x, size_t count) {
    kernel_set()->gelu_forward_slope(out, slope, x, count);
}

void vector_scale_bf16(float *x, const uint16_t *factor, size_t count) { kernel_set()->vector_scale_bf16(x, factor, count); }

void gelu_backward(float *dx, const float *dout, const float *x, size_t count) { kernel_set()->gelu_backward(dx, dout, x, count); }

void softmax_exp(float *row, int count, float *max, float *sum) { kernel_set()->softmax_exp(row, count, max, sum); }

void vector_scale(float *x, float factor, size_t count) { kernel_set()->vector_scale(x, factor, count); }

void vector_accumulate(float *out, const float *x, size_t count) { kernel_set()->vector_accumulate(out, x, count); }

void vector_sum_of(float *out, const float *left, const float *right, size_t count) {
    kernel_set()->vector_sum_of(out, left, right, count);
}

float vector_dot(const float *x, const float *y, size_t count) { return kernel_set()->vector_dot(x, y, count); }

void column_sums(float *sum, const float *x, int rows, int N, int column, int columns, int add) {
    kernel_set()->column_sums(sum, x, rows, N, column, columns, add);
}

void dropout_apply(float *x, uint64_t key, uint64_t first, size_t count, float p) { kernel_set()->dropout_apply(x, key, first, count, p); }

static uint64_t first_two_words(struct philox_block block) { return block.word[0] | (uint64_t)block.word[1] << 32; }

uint64_t dropout_key(uint64_t seed, uint64_t step, uint32_t slice, uint32_t layer, enum dropout_site site) {
    uint64_t of_step = first_two_words(philox(seed, 0x64726f70, step));
    return first_two_words(philox(of_step, slice, (uint64_t)layer << 8 | site));
}

uint64_t moments_key(uint64_t seed, uint64_t step) { return first_two_words(philox(seed, 0x6d6f6d65, step)); }
