/* The functions for processors without AVX2 and on other architectures, and the choice for this machine; they are in
 * dataset/tokenizer/pretokens_body.h. */
#include "dataset/tokenizer/pretokens.h"

#define PRETOKEN_KERNELS      pretoken_kernels_portable
#define PRETOKEN_KERNELS_NAME "any"
#include "dataset/tokenizer/pretokens_body.h"

size_t pretoken_kernels_list(const struct pretoken_kernels *list[PRETOKEN_KERNELS_MAX]) {
    size_t count = 0;
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                __builtin_cpu_supports("aes") && __builtin_cpu_supports("popcnt");
    if (avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi2"))
        list[count++] = &pretoken_kernels_avx512;
    if (avx2) list[count++] = &pretoken_kernels_avx2;
#endif
    list[count++] = &pretoken_kernels_portable;
    return count;
}

const struct pretoken_kernels *pretoken_kernels(void) {
    const struct pretoken_kernels *list[PRETOKEN_KERNELS_MAX];
    pretoken_kernels_list(list);
    return list[0];
}
