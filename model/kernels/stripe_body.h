/* The bodies of generation's kernels, compiled once for each instruction set by the file that includes this. It defines before:
 *   LANES                  floats of its vectors: 4, 8 or 16
 *   FLOAT_ROWS, INT8_ROWS  rows of x that share one reading of the stripe, as many as registers hold sums
 *   BYTES_AVX512 or BYTES_AVX2 where it has the instructions that the sums of int8 products use there
 * Sums have 32 lanes, one a column, in PARTS vectors: how wide these are changes no bit. Never included elsewhere. */
#include "model/kernels/fmath.h"
#include "model/kernels/stripe_kernels.h"

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef int8_t v8b __attribute__((vector_size(8)));
enum { PARTS = STRIPE / LANES, HALF_PARTS = PARTS / 2 };

/* Far enough ahead that memory answers in time: a core reads some 7 bytes a cycle, an answer takes some 400 cycles. */
enum { PREFETCH_BYTES = 4096 };

FMATH_INLINE vf vf_load(const void *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

FMATH_INLINE vu vu_load(const void *p) {
    vu v;
    memcpy(&v, p, sizeof v);
    return v;
}

FMATH_INLINE void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

FMATH_INLINE vf vf_all(float x) { return x - (vf){0}; }

FMATH_INLINE void prefetch(const void *p, size_t bytes) {
    UNROLL
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)p + PREFETCH_BYTES + i, 0, 3);
}

/* Widens a row of 32 bf16 values. */
FMATH_INLINE void bf16_row(vf out[PARTS], const void *row) {
    UNROLL
    for (int i = 0; i < HALF_PARTS; i++) {
        vu pair = vu_load((const char *)row + (size_t)i * sizeof pair);
        out[i] = (vf)(pair << 16), out[HALF_PARTS + i] = (vf)(pair & 0xffff0000u);
    }
}

FMATH_INLINE void float_rows(float *out, size_t out_pitch, const float *x, size_t x_pitch, const char *stripe, int K, const int rows,
                             const int row_bytes) {
    vf sum[FLOAT_ROWS][PARTS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < PARTS; i++) sum[r][i] = (vf){0};
    }
    for (int k = 0; k < K; k++, stripe += row_bytes) {
        vf w[PARTS];
        prefetch(stripe, (size_t)row_bytes);
        if (row_bytes == STRIPE * 2) bf16_row(w, stripe);
        else {
            UNROLL
            for (int i = 0; i < PARTS; i++) w[i] = vf_load(stripe + (size_t)i * sizeof *w);
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            vf all = vf_all(x[(size_t)r * x_pitch + (size_t)k]);
            UNROLL
            for (int i = 0; i < PARTS; i++) sum[r][i] = sum[r][i] + all * w[i];
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < PARTS; i++) vf_store(out + (size_t)r * out_pitch + i * LANES, sum[r][i]);
    }
}

/* As many rows at a time as registers hold, then one by one. */
#define PRODUCT(ROWS, ELEMENT, CALL_MANY, CALL_ONE) \
    const ELEMENT *at = x; \
    for (; rows >= (ROWS); rows -= (ROWS), at += (ROWS)*x_pitch, out += (ROWS)*out_pitch) CALL_MANY; \
    for (; rows > 0; rows--, at += x_pitch, out += out_pitch) CALL_ONE;

static void fp32_product(float *out, size_t out_pitch, const void *x, size_t x_pitch, const void *stripe, int rows, int K) {
    PRODUCT(FLOAT_ROWS, float, float_rows(out, out_pitch, at, x_pitch, stripe, K, FLOAT_ROWS, STRIPE * 4),
            float_rows(out, out_pitch, at, x_pitch, stripe, K, 1, STRIPE * 4))
}

static void bf16_product(float *out, size_t out_pitch, const void *x, size_t x_pitch, const void *stripe, int rows,
                         int K){PRODUCT(FLOAT_ROWS, float, float_rows(out, out_pitch, at, x_pitch, stripe, K, FLOAT_ROWS, STRIPE * 2),
                                        float_rows(out, out_pitch, at, x_pitch, stripe, K, 1, STRIPE * 2))}
/* The exact sums of one block: product[r][column] = sum over its 64 k of x q (w + 128), the offset added. w holds for each four k the
 * columns' four bytes side by side. */
#if defined(BYTES_AVX512)
FMATH_INLINE void int8_block_sums(vi product[][PARTS], const struct int8_block *x, size_t x_pitch, const uint8_t *w, const int rows) {
    __m512i sum[INT8_ROWS][2];
    UNROLL
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = _mm512_set1_epi32(x[(size_t)r * x_pitch].offset);
    UNROLL
    for (int k = 0; k < INT8_BLOCK; k += 4, w += 4 * STRIPE) {
        __m512i left = _mm512_loadu_si512(w), right = _mm512_loadu_si512(w + 64);
        prefetch(w, 4 * STRIPE);
        UNROLL
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x[(size_t)r * x_pitch].q + k, sizeof four);
            __m512i all = _mm512_set1_epi32(four);
            sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], left, all), sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], right, all);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) product[r][0] = (vi)sum[r][0], product[r][1] = (vi)sum[r][1];
}
#elif defined(BYTES_AVX2)
/* As 16-bit values, whose products in pairs cannot overflow 32 bits (the instruction that multiplies bytes saturates at 16). */
FMATH_INLINE void int8_block_sums(vi product[][PARTS], const struct int8_block *x, size_t x_pitch, const uint8_t *w, const int rows) {
    (void)x_pitch, (void)rows; /* one */
    int16_t wide[INT8_BLOCK];
    for (int k = 0; k < INT8_BLOCK; k += 16)
        _mm256_storeu_si256((__m256i *)(wide + k), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(x->q + k))));
    __m256i sum[8], offset = _mm256_set1_epi32(x->offset); /* sum[i]: columns 4 i .. 4 i + 3, each in two halves */
    UNROLL
    for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_si256();
    for (int k = 0; k < INT8_BLOCK; k += 4, w += 4 * STRIPE) {
        int64_t four;
        memcpy(&four, wide + k, sizeof four);
        __m256i all = _mm256_set1_epi64x(four);
        prefetch(w, 4 * STRIPE);
        UNROLL
        for (int i = 0; i < 8; i++)
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(w + 16 * i))), all));
    }
    UNROLL
    for (int i = 0; i < PARTS; i++) {
        __m256i pairs = _mm256_hadd_epi32(sum[2 * i], sum[2 * i + 1]); /* columns 0 1 4 5 2 3 6 7 */
        product[0][i] = (vi)_mm256_add_epi32(_mm256_permute4x64_epi64(pairs, 0xd8), offset);
    }
}
#else
FMATH_INLINE void int8_block_sums(vi product[][PARTS], const struct int8_block *x, size_t x_pitch, const uint8_t *w, const int rows) {
    (void)x_pitch, (void)rows; /* one */
    int32_t sum[STRIPE];
    for (int j = 0; j < STRIPE; j++) sum[j] = x->offset;
    for (int k = 0; k < INT8_BLOCK; k += 4, w += 4 * STRIPE) {
        int32_t a = x->q[k], b = x->q[k + 1], c = x->q[k + 2], d = x->q[k + 3];
        for (int j = 0; j < STRIPE; j++) sum[j] += (w[4 * j] * a + w[4 * j + 1] * b) + (w[4 * j + 2] * c + w[4 * j + 3] * d);
    }
    memcpy(product, sum, sizeof sum);
}
#endif

FMATH_INLINE void int8_rows(float *out, size_t out_pitch, const struct int8_block *x, size_t x_pitch, const char *stripe, int K,
                            const int rows) {
    int blocks = (K + INT8_BLOCK - 1) / INT8_BLOCK;
    vf sum[INT8_ROWS][PARTS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < PARTS; i++) sum[r][i] = (vf){0};
    }
    for (int b = 0; b < blocks; b++, stripe += INT8_STRIPE_BLOCK_BYTES) {
        vi product[INT8_ROWS][PARTS];
        vf scale[PARTS];
        int8_block_sums(product, x + b, x_pitch, (const uint8_t *)stripe + STRIPE * 2, rows);
        bf16_row(scale, stripe);
        UNROLL
        for (int r = 0; r < rows; r++) {
            vf of_row = vf_all(x[(size_t)r * x_pitch + (size_t)b].scale);
            UNROLL
            for (int i = 0; i < PARTS; i++) sum[r][i] = sum[r][i] + __builtin_convertvector(product[r][i], vf) * (scale[i] * of_row);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < PARTS; i++) vf_store(out + (size_t)r * out_pitch + i * LANES, sum[r][i]);
    }
}

static void int8_product(float *out, size_t out_pitch, const void *x, size_t x_pitch, const void *stripe, int rows, int K) {
    PRODUCT(INT8_ROWS, struct int8_block, int8_rows(out, out_pitch, at, x_pitch, stripe, K, INT8_ROWS),
            int8_rows(out, out_pitch, at, x_pitch, stripe, K, 1))
}

/* Rounds to the nearest integer, ties to even: 1.5 * 2^23 leaves no bits for a fraction. */
static void quantize_block(struct int8_block *out, const float *x, int count) {
    float padded[INT8_BLOCK] = {0};
    memcpy(padded, x, (size_t)count * sizeof *x);
    v8 most = v8_all(0.0f), nans = v8_all(0.0f), round = v8_all(12582912.0f);
    for (int i = 0; i < INT8_BLOCK; i += 8) {
        v8 v = v8_load(padded + i);
        most = v8_max(most, (v8)((v8i)v & 0x7fffffff));
        nans = nans + v * v8_all(0.0f); /* NaN stays NaN, so does what an infinity gives */
    }
    float largest = 0.0f;
    for (int lane = 0; lane < 8; lane++) largest = largest > most[lane] ? largest : most[lane];
    float factor = largest > 1e-30f ? (float)INT8_LARGEST / largest : 0.0f;
    v8i total = {0};
    for (int i = 0; i < INT8_BLOCK; i += 8) {
        v8i q = ((v8i)(v8_load(padded + i) * v8_all(factor) + round) - (v8i)round) & 0xff;
        q = (q ^ 0x80) - 0x80;
        total += q;
        v8b bytes = __builtin_convertvector(q, v8b);
        memcpy(out->q + i, &bytes, sizeof bytes);
    }
    int32_t sum = 0;
    for (int lane = 0; lane < 8; lane++) sum += total[lane];
    out->offset = -128 * sum;
    out->scale = (factor > 0.0f ? largest / (float)INT8_LARGEST : 0.0f) + v8_sum(nans);
}

static void quantize(struct int8_block *out, const float *x, int K) {
    for (; K > 0; K -= INT8_BLOCK, x += INT8_BLOCK) quantize_block(out++, x, K < INT8_BLOCK ? K : INT8_BLOCK);
}

const struct stripe_kernels KERNELS = {KERNELS_NAME, fp32_product, bf16_product, int8_product, quantize};
