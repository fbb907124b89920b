/* Lays matrices out in stripes, and picks the kernels that read them. Little-endian machines only, as the files of weights are. */
#include "model/kernels/stripes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "model/kernels/kernels.h"

int weights_type_of(enum weights_type *out, const char *name) {
    static const struct {
        const char *name;
        enum weights_type type;
    } known[] = {
        {"fp32", WEIGHTS_FP32}, {"float32", WEIGHTS_FP32}, {"bf16", WEIGHTS_BF16}, {"bfloat16", WEIGHTS_BF16}, {"int8", WEIGHTS_INT8}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0) {
            *out = known[i].type;
            return 0;
        }
    return err_set(ERR_USAGE, "--dtype %s: expected fp32, bf16 or int8", name);
}

/* ---- kernels ---- */

static bool runs_here(const struct stripe_kernels *set) {
#if defined(__x86_64__)
    if (set == &stripe_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    if (set == &stripe_kernels_avx2) return __builtin_cpu_supports("avx2");
#endif
    return set == &stripe_kernels_portable;
}

const struct stripe_kernels *stripe_kernels_at(int i) {
    static const struct stripe_kernels *const sets[] = {
#if defined(__x86_64__)
        &stripe_kernels_avx512,
        &stripe_kernels_avx2,
#endif
        &stripe_kernels_portable
    };
    for (size_t at = 0; at < sizeof sets / sizeof *sets; at++)
        if (runs_here(sets[at]) && i-- == 0) return sets[at];
    return NULL;
}

const struct stripe_kernels *stripe_kernels(void) {
    const char *training = kernels_name();
    const struct stripe_kernels *set;
    for (int i = 0; (set = stripe_kernels_at(i)); i++)
        if (strncmp(set->name, training, strlen(set->name)) == 0) return set; /* avx512 is the set beside avx512_bf16, too */
    return strcmp(training, "portable") == 0 ? &stripe_kernels_portable : &stripe_kernels_avx2; /* AVX-512 without VNNI */
}

stripe_product *stripes_product(const struct stripe_kernels *kernels, enum weights_type type) {
    return type == WEIGHTS_FP32 ? kernels->fp32 : type == WEIGHTS_BF16 ? kernels->bf16 : kernels->int8;
}

/* ---- layout ---- */

static size_t blocks_of(int K) { return ((size_t)K + INT8_BLOCK - 1) / INT8_BLOCK; }

size_t stripes_bytes_each(const struct stripes *m) {
    if (m->type == WEIGHTS_INT8) return blocks_of(m->K) * INT8_STRIPE_BLOCK_BYTES;
    return (size_t)m->K * STRIPE * (m->type == WEIGHTS_FP32 ? sizeof(float) : sizeof(uint16_t));
}

size_t stripes_count(const struct stripes *m) { return ((size_t)m->N + STRIPE - 1) / STRIPE; }

size_t stripes_bytes(const struct stripes *m) { return stripes_count(m) * stripes_bytes_each(m); }

uint16_t bf16_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float bf16_widen(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The least bf16 number not below x > 0. */
static uint16_t bf16_above(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0xffff) >> 16);
}

/* Where weight k of column j is among a block's bytes. */
static int int8_place(int k, int j) { return k / 4 * 4 * STRIPE + j * 4 + k % 4; }

/* block: (64, 32), zeros where the matrix ends. */
static void fill_int8(uint8_t *out, const float block[][STRIPE]) {
    uint16_t *scales = (uint16_t *)out;
    float factor[STRIPE];
    for (int j = 0; j < STRIPE; j++) {
        float most = 0.0f;
        for (int k = 0; k < INT8_BLOCK; k++) most = fabsf(block[k][j]) > most ? fabsf(block[k][j]) : most;
        uint16_t scale = most > 1e-30f ? bf16_above(most / (float)INT8_LARGEST) : 0;
        scales[bf16_place(j)] = scale;
        factor[j] = scale ? 1.0f / bf16_widen(scale) : 0.0f;
    }
    out += STRIPE * 2;
    for (int k = 0; k < INT8_BLOCK; k++)
        for (int j = 0; j < STRIPE; j++) {
            int q = (int)((block[k][j] * factor[j] + 12582912.0f) - 12582912.0f); /* to nearest, ties to even */
            int bounded = q > INT8_LARGEST ? INT8_LARGEST : q < -INT8_LARGEST ? -INT8_LARGEST : q;
            out[int8_place(k, j)] = (uint8_t)(bounded + 128);
        }
}

bool stripes_fill(const struct stripes *m, size_t stripe, const float *from, size_t k_step, size_t j_step) {
    char *out = m->data + stripe * stripes_bytes_each(m);
    int columns = m->N - (int)stripe * STRIPE < STRIPE ? m->N - (int)stripe * STRIPE : STRIPE;
    bool finite = true;
    for (int first = 0; first < m->K; first += INT8_BLOCK) {
        float block[INT8_BLOCK][STRIPE] = {{0}};
        int rows = m->K - first < INT8_BLOCK ? m->K - first : INT8_BLOCK;
        for (int k = 0; k < rows; k++)
            for (int j = 0; j < columns; j++) {
                block[k][j] = from[(size_t)(first + k) * k_step + (size_t)j * j_step];
                finite &= isfinite(block[k][j]) != 0;
            }
        if (m->type == WEIGHTS_FP32) memcpy(out + (size_t)first * sizeof *block, block, (size_t)rows * sizeof *block);
        if (m->type == WEIGHTS_BF16)
            for (int k = 0; k < rows; k++)
                for (int j = 0; j < STRIPE; j++) ((uint16_t *)out)[(first + k) * STRIPE + bf16_place(j)] = bf16_of(block[k][j]);
        if (m->type == WEIGHTS_INT8 && finite) fill_int8((uint8_t *)out + (size_t)(first / INT8_BLOCK) * INT8_STRIPE_BLOCK_BYTES, block);
    }
    return finite;
}

void stripes_column(float *out, const struct stripes *m, int j) {
    const char *stripe = stripes_at(m, (size_t)j / STRIPE);
    j %= STRIPE;
    for (int k = 0; k < m->K; k++) {
        if (m->type == WEIGHTS_FP32) out[k] = ((const float *)stripe)[k * STRIPE + j];
        else if (m->type == WEIGHTS_BF16) out[k] = bf16_widen(((const uint16_t *)stripe)[k * STRIPE + bf16_place(j)]);
        else {
            const char *block = stripe + (size_t)(k / INT8_BLOCK) * INT8_STRIPE_BLOCK_BYTES;
            const uint8_t *w = (const uint8_t *)block + STRIPE * 2;
            int within = k % INT8_BLOCK;
            out[k] = (float)(w[int8_place(within, j)] - 128) * bf16_widen(((const uint16_t *)block)[bf16_place(j)]);
        }
    }
}

static void put(const struct stripes *m, char *stripe, int k, int j, float value) {
    if (m->type == WEIGHTS_FP32) ((float *)stripe)[k * STRIPE + j] = value;
    else ((uint16_t *)stripe)[k * STRIPE + bf16_place(j)] = bf16_of(value);
}

void stripes_put_column(const struct stripes *m, int j, const float *column) {
    char *stripe = m->data + (size_t)(j / STRIPE) * stripes_bytes_each(m);
    for (int k = 0; k < m->K; k++) put(m, stripe, k, j % STRIPE, column[k]);
}

void stripes_put_row(const struct stripes *m, int k, const float *row) {
    size_t each = stripes_bytes_each(m);
    for (int j = 0; j < m->N; j++) put(m, m->data + (size_t)(j / STRIPE) * each, k, j % STRIPE, row[j]);
}
