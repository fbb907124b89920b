/* exp, log, sine and cosine of our own: polynomials in multiplications, additions and exponent arithmetic, so that every machine and every
 * vector width gives the same bits. The C library's differ between versions and processors.
 *
 * v8 is eight floats side by side. The compiler turns it into whatever registers the target has; the sums in here have the same lanes
 * everywhere, and no multiplication is fused with an addition (-ffp-contract=off). Everything is static inline and takes the caller's
 * instruction set. */
#ifndef MILLRACE_MODEL_FMATH_H
#define MILLRACE_MODEL_FMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint32_t v8u __attribute__((vector_size(32)));

#define FMATH_INLINE static inline __attribute__((always_inline, unused))
/* Vectors never cross a real call: everything that takes one is inlined, so the ABI that gcc warns about does not matter. */
#pragma GCC diagnostic ignored "-Wpsabi"

FMATH_INLINE v8 v8_all(float x) { return (v8){x, x, x, x, x, x, x, x}; }

FMATH_INLINE v8 v8_load(const float *p) {
    v8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

FMATH_INLINE void v8_store(float *p, v8 v) { memcpy(p, &v, sizeof v); }

/* The second argument where either is NaN or both are 0. FMATH_MAX and FMATH_MIN may be instructions that do the same. */
FMATH_INLINE v8 v8_max(v8 a, v8 b) {
#ifdef FMATH_MAX
    return FMATH_MAX(a, b);
#else
    v8i take = a > b;
    return (v8)((take & (v8i)a) | (~take & (v8i)b));
#endif
}

FMATH_INLINE v8 v8_min(v8 a, v8 b) {
#ifdef FMATH_MIN
    return FMATH_MIN(a, b);
#else
    v8i take = a < b;
    return (v8)((take & (v8i)a) | (~take & (v8i)b));
#endif
}

FMATH_INLINE float v8_sum(v8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

/* IEEE-exact, as sqrtf(). FMATH_SQRT may be an instruction for eight. */
FMATH_INLINE v8 v8_sqrt(v8 v) {
#ifdef FMATH_SQRT
    return FMATH_SQRT(v);
#else
    float x[8];
    v8_store(x, v);
#if defined(__SSE2__)
    _mm_storeu_ps(x, _mm_sqrt_ps(_mm_loadu_ps(x)));
    _mm_storeu_ps(x + 4, _mm_sqrt_ps(_mm_loadu_ps(x + 4)));
#else
    for (int i = 0; i < 8; i++) x[i] = sqrtf(x[i]);
#endif
    return v8_load(x);
#endif
}

/* e^x within 2 ulp on [-87.3, 88]; below it is 0, above it is e^88. NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its minimax polynomial of degree 6 (Cephes expf). For vectors of any width: FLOATS and INTS
 * are their types, and 1.5 * 2^23 is added to round to an integer. */
#define FMATH_EXP(name, FLOATS, INTS, max, min) \
    FMATH_INLINE FLOATS name(FLOATS x) { \
        const FLOATS none = {0}, lowest = none - 87.3f; \
        INTS keep = ~(INTS)(x < lowest); \
        FLOATS t = min(none + 88.0f, max(lowest, x)); \
        FLOATS shifted = t * 1.44269504088896341f + 12582912.0f, n = shifted - 12582912.0f; \
        FLOATS r = (t - n * 0.693359375f) - n * -2.12194440e-4f; \
        FLOATS p = r * 1.9875691500e-4f + 1.3981999507e-3f; \
        p = p * r + 8.3334519073e-3f; \
        p = p * r + 4.1665795894e-2f; \
        p = p * r + 1.6666665459e-1f; \
        p = p * r + 5.0000001201e-1f; \
        p = p * (r * r) + r + 1.0f; \
        INTS power = ((INTS)shifted - (INTS)(none + 12582912.0f) + 127) << 23; \
        return (FLOATS)((INTS)(p * (FLOATS)power) & keep); \
    }
FMATH_EXP(v8_exp, v8, v8i, v8_max, v8_min)

/* ln x for normal x > 0 (Cephes logf). */
FMATH_INLINE v8 v8_log(v8 x) {
    v8i bits = (v8i)x;
    v8i e = ((bits >> 23) & 255) - 126;
    v8 m = (v8)((bits & 0x007fffff) | 0x3f000000); /* [0.5, 1) */
    v8i small = m < v8_all(0.707106781186547524f);
    e += small; /* true is -1 */
    m = m + (v8)(small & (v8i)m) - v8_all(1.0f);
    v8 z = m * m, p = v8_all(7.0376836292e-2f) * m + v8_all(-1.1514610310e-1f);
    p = p * m + v8_all(1.1676998740e-1f);
    p = p * m + v8_all(-1.2420140846e-1f);
    p = p * m + v8_all(1.4249322787e-1f);
    p = p * m + v8_all(-1.6668057665e-1f);
    p = p * m + v8_all(2.0000714765e-1f);
    p = p * m + v8_all(-2.4999993993e-1f);
    p = p * m + v8_all(3.3333331174e-1f);
    p = p * m * z;
    v8 n = __builtin_convertvector(e, v8);
    p = p + n * v8_all(-2.12194440e-4f) - v8_all(0.5f) * z;
    return m + p + n * v8_all(0.693359375f);
}

/* sine and cosine of x in [-pi/4, pi/4] (Cephes sinf, cosf). */
FMATH_INLINE void v8_sincos_eighth(v8 *sine, v8 *cosine, v8 x) {
    v8 z = x * x;
    *sine = ((v8_all(-1.9515295891e-4f) * z + v8_all(8.3321608736e-3f)) * z + v8_all(-1.6666654611e-1f)) * z * x + x;
    *cosine = ((v8_all(2.443315711809948e-5f) * z + v8_all(-1.388731625493765e-3f)) * z + v8_all(4.166664568298827e-2f)) * z * z -
              v8_all(0.5f) * z + v8_all(1.0f);
}

/* e^x in float64 for |x| <= 700, within 2e-16 relative: x = n ln 2 + r, Taylor to r^13. */
FMATH_INLINE double fmath_exp(double x) {
    if (!(x > -700.0)) return x != x ? x : 0.0;
    if (x > 700.0) x = 700.0;
    double n = (x * 1.4426950408889634074 + 6755399441055744.0) - 6755399441055744.0;
    double r = (x - n * 6.93145751953125E-1) - n * 1.42860682030941723212E-6, p = 1.0;
    for (int k = 13; k >= 1; k--) p = 1.0 + p * r / k;
    uint64_t bits = (uint64_t)(1023 + (int64_t)n) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* ln x in float64 for normal x > 0: x = m 2^e, ln m = 2 artanh((m - 1) / (m + 1)). Infinity and NaN stay; 0 gives -infinity. */
FMATH_INLINE double fmath_log(double x) {
    if (!(x > 0.0)) return x == 0.0 ? -INFINITY : NAN;
    if (x > 1.7976931348623157e308) return x;
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t e = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffULL) | 0x3ff0000000000000ULL;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) m *= 0.5, e++;
    double f = (m - 1.0) / (m + 1.0), z = f * f, p = 0.0;
    for (int k = 21; k >= 1; k -= 2) p = p * z + 2.0 / k; /* |f| < 0.172: the next term is below 2e-18 */
    return (double)e * 1.90821492927058770002E-10 + (p * f + (double)e * 6.93147180369123816490E-1);
}

/* cos x in float64 for x in [0, pi], within 1e-15 absolute. */
FMATH_INLINE double fmath_cos(double x) {
    double sign = 1.0;
    if (x > 1.5707963267948966) x = 3.14159265358979323846 - x, sign = -1.0;
    double z = x * x, p = 1.0;
    for (int k = 22; k >= 2; k -= 2) p = 1.0 - p * z / (k * (k - 1)); /* the next term is below 1e-19 */
    return sign * p;
}

#endif
