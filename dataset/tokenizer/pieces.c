/* Pieces on any other processor; picks the functions for this machine. */
#include "dataset/tokenizer/pieces.h"

#define PIECE_KERNELS      piece_kernels_any
#define PIECE_KERNELS_NAME "any"
#include "dataset/tokenizer/pieces_body.h"

size_t piece_kernels_list(const struct piece_kernels *list[PIECE_KERNELS_MAX]) {
    size_t count = 0;
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                __builtin_cpu_supports("aes") && __builtin_cpu_supports("popcnt");
    if (avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi2"))
        list[count++] = &piece_kernels_avx512;
    if (avx2) list[count++] = &piece_kernels_avx2;
#endif
    list[count++] = &piece_kernels_any;
    return count;
}

const struct piece_kernels *piece_kernels(void) {
    const struct piece_kernels *list[PIECE_KERNELS_MAX];
    piece_kernels_list(list);
    return list[0];
}
