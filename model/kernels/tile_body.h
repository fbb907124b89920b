/* Packing of matrices and products of tiles for one instruction set; included by that set's file after kernel_body.h, never elsewhere. The
 * includer may define, before it does so:
 *   TILE_V, TILE_LANES, TILE_SET1, TILE_FMA   a vector of floats, its lanes, broadcasting, and acc + a * b rounded once
 *   TILE_ROWS_AT_ONCE, TILE_VECTORS_AT_ONCE   how much of a tile its registers hold
 *   TILE_DOT                                  acc + the two products of bfloat16 pairs
 *   TILE_ROUND                                two vectors rounded to bfloat16, in one register, the first one's before the second one's
 * Without them the tile is eight lanes of plain multiplications and additions. */
#ifndef TILE_V
#define TILE_V               v8
#define TILE_LANES           8
#define TILE_SET1(x)         v8_all(x)
#define TILE_FMA(a, b, acc)  ((acc) + (a) * (b))
#define TILE_ROWS_AT_ONCE    2
#define TILE_VECTORS_AT_ONCE 2
#endif

/* One block of a tile. Each element is a chain over the steps, in order: the same bits however wide the registers are. */
#define TILE_BLOCK(name, MULTIPLY, VECTOR) \
    FMATH_INLINE void name(float *c, size_t ldc, const float *a, const float *b, int steps, int add, const float *next_left, \
                           const float *next_right) { \
        VECTOR acc[TILE_ROWS_AT_ONCE][TILE_VECTORS_AT_ONCE]; \
        _Pragma("GCC unroll 8") for (int i = 0; i < TILE_ROWS_AT_ONCE; i++) \
            _Pragma("GCC unroll 4") for (int j = 0; j < TILE_VECTORS_AT_ONCE; j++) acc[i][j] = (VECTOR){0}; \
        for (int k = 0; k < steps;) { \
            __builtin_prefetch(next_right, 0, 2), next_right += LINE_WORDS; \
            if (k % NEXT_LEFT_STEPS == 0) __builtin_prefetch(next_left, 0, 2), next_left += LINE_WORDS; \
            for (int end = steps - k < NEXT_RIGHT_STEPS ? steps : k + NEXT_RIGHT_STEPS; k < end; k++, a += TILE_ROWS, b += TILE_COLUMNS) { \
                VECTOR right[TILE_VECTORS_AT_ONCE]; \
                _Pragma("GCC unroll 4") for (int j = 0; j < TILE_VECTORS_AT_ONCE; j++) \
                    memcpy(&right[j], b + TILE_LANES * j, sizeof right[j]); \
                _Pragma("GCC unroll 8") for (int i = 0; i < TILE_ROWS_AT_ONCE; i++) { \
                    VECTOR left = TILE_SET1(a[i]); \
                    _Pragma("GCC unroll 4") for (int j = 0; j < TILE_VECTORS_AT_ONCE; j++) \
                        acc[i][j] = MULTIPLY(left, right[j], acc[i][j]); \
                } \
            } \
        } \
        _Pragma("GCC unroll 8") for (int i = 0; i < TILE_ROWS_AT_ONCE; i++) \
            _Pragma("GCC unroll 4") for (int j = 0; j < TILE_VECTORS_AT_ONCE; j++) { \
            float *out = c + (size_t)i * ldc + TILE_LANES * j; \
            VECTOR before; \
            memcpy(&before, out, sizeof before); \
            if (add) acc[i][j] = before + acc[i][j]; \
            memcpy(out, &acc[i][j], sizeof before); \
        } \
    }

#define TILE_WHOLE(name, block) \
    static void name(float *c, size_t ldc, const float *a, const float *b, int steps, int add, const float *next_left, \
                     const float *next_right) { \
        for (int j = 0; j < TILE_COLUMNS; j += TILE_LANES * TILE_VECTORS_AT_ONCE) \
            for (int i = 0; i < TILE_ROWS; i += TILE_ROWS_AT_ONCE) \
                block(c + (size_t)i * ldc + j, ldc, a + i, b + j, steps, add, i + j ? a : next_left, i + j ? b : next_right); \
    }

TILE_BLOCK(tile_block, TILE_FMA, TILE_V)
TILE_WHOLE(k_tile, tile_block)
#ifdef TILE_DOT
TILE_BLOCK(tile_block_pairs, TILE_DOT, TILE_V)
TILE_WHOLE(k_tile_pairs, tile_block_pairs)
#define TILE_PAIRS k_tile_pairs
#else
#define TILE_PAIRS NULL
#endif

/* ---- packing ---- */

/* Words of one row, or of one step: as many as a register holds. Of pairs they take twice as many elements. */
#ifdef TILE_DOT
enum { PAIR = 2 }; /* TILE_ROUND() takes denormal numbers for 0, and so does the product */
FMATH_INLINE wide pair_by_rows(wide low, wide high) { return TILE_ROUND(low, high); }

FMATH_INLINE wide pair_by_columns(wide even, wide odd) {
    typedef int16_t halves __attribute__((vector_size(sizeof(wide))));
    halves h = (halves)TILE_ROUND(even, odd);
    return (wide)__builtin_shufflevector(h, h, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                         13, 29, 14, 30, 15, 31);
}
#else /* packed matrices of this set hold no pairs */
enum { PAIR = 1 };
FMATH_INLINE wide pair_by_rows(wide low, wide high) { return (void)high, low; }
FMATH_INLINE wide pair_by_columns(wide even, wide odd) { return (void)odd, even; }
#endif

FMATH_INLINE wide load_up_to(const float *p, int count) {
    return count >= WIDE ? wide_load(p) : wide_load_some(p, count > 0 ? (size_t)count : 0);
}

FMATH_INLINE wide pack_row(const float *x, int depth, enum pack_mode mode) {
    wide low = load_up_to(x, depth);
    if (mode == PACK_FLOAT) return low;
    return mode == PACK_ROUNDED ? bf16_rounded(low) : pair_by_rows(low, load_up_to(x + WIDE, depth - WIDE));
}

#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define UNROLL             _Pragma("GCC unroll 8")

/* Eight rows become steps of eight lanes, in order: with sixteen lanes two of them in each register. */
#if WIDE == 16
FMATH_INLINE void turn(wide r[8]) {
    wide t[8], u[8];
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = SHUFFLE(r[i], r[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
        t[i + 1] = SHUFFLE(r[i], r[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    }
    UNROLL for (int i = 0; i < 8; i += 4) UNROLL for (int j = 0; j < 2; j++) {
        u[i + 2 * j] = SHUFFLE(t[i + j], t[i + 2 + j], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        u[i + 2 * j + 1] = SHUFFLE(t[i + j], t[i + 2 + j], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
    UNROLL for (int j = 0; j < 4; j++) { /* u[j]: rows 0 to 3 of columns j, 4 + j, 8 + j, 12 + j; u[4 + j]: rows 4 to 7 */
        t[2 * j] = SHUFFLE(u[j], u[4 + j], 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
        t[2 * j + 1] = SHUFFLE(u[j], u[4 + j], 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    }
    UNROLL for (int q = 0; q < 4; q++) UNROLL for (int j = 0; j < 2; j++) {
        wide first = t[4 * j + q / 2], second = t[4 * j + 2 + q / 2];
        r[2 * q + j] = q % 2 ? SHUFFLE(first, second, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
                             : SHUFFLE(first, second, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
    }
}
#else
FMATH_INLINE void turn(wide r[8]) {
    wide t[8], u[8];
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (int i = 0; i < 8; i += 4) UNROLL for (int j = 0; j < 2; j++) {
        u[i + 2 * j] = SHUFFLE(t[i + j], t[i + 2 + j], 0, 1, 8, 9, 4, 5, 12, 13);
        u[i + 2 * j + 1] = SHUFFLE(t[i + j], t[i + 2 + j], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        r[i] = SHUFFLE(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = SHUFFLE(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}
#endif

/* As many steps as a register holds words. */
FMATH_INLINE void pack_steps(float *out, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode) {
    int per_step = mode == PACK_PAIRS ? PAIR : 1, steps = (depth + per_step - 1) / per_step;
    wide r[8];
    UNROLL for (int i = 0; i < 8; i++) r[i] = i < count ? pack_row(x + (size_t)i * ld, depth, mode) : wide_all(0.0f);
    turn(r);
    if (width == 8 && steps >= WIDE) {
        UNROLL for (int i = 0; i < 8; i++) wide_store(out + WIDE * i, r[i]);
        return;
    }
    for (int i = 0; i < WIDE && i < steps; i++) memcpy(out + (size_t)i * (size_t)width, (const float *)r + 8 * i, 8 * sizeof *out);
}

/* The next rows' lines are fetched here, since no prefetcher guesses them. */
FMATH_INLINE void pack_rows_as(float *out, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode) {
    const int taken = mode == PACK_PAIRS ? PAIR * WIDE : WIDE;
    for (int k = 0; k < depth; k += taken, x += taken, out += WIDE * width) {
        for (size_t i = 8; i < 16; i++)
            for (int j = 0; j < taken; j += 16) __builtin_prefetch(x + i * ld + j);
        pack_steps(out, width, x, ld, count, depth - k, mode);
    }
}

static void k_pack_rows(float *out, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode) {
    if (mode == PACK_FLOAT) pack_rows_as(out, width, x, ld, count, depth, PACK_FLOAT);
    else if (mode == PACK_ROUNDED) pack_rows_as(out, width, x, ld, count, depth, PACK_ROUNDED);
    else pack_rows_as(out, width, x, ld, count, depth, PACK_PAIRS);
}

/* One step of up to PACK_COLUMNS lanes, eight to a place. Rows far apart are guessed by no prefetcher. */
FMATH_INLINE void pack_step(float *const *place, size_t at, const float *x, const float *next, size_t ld, int count, enum pack_mode mode) {
    enum { STEPS_AHEAD = 4 };
    for (int j = 0; j < count; j += WIDE) {
        __builtin_prefetch(x + j + STEPS_AHEAD * ld);
        if (next) __builtin_prefetch(next + j + STEPS_AHEAD * ld);
        wide v = load_up_to(x + j, count - j);
        if (mode == PACK_ROUNDED) v = bf16_rounded(v);
        if (mode == PACK_PAIRS) v = pair_by_columns(v, next ? load_up_to(next + j, count - j) : wide_all(0.0f));
        for (int half = 0; half < WIDE / 8 && j + 8 * half < count; half++)
            memcpy(place[j / 8 + half] + at, (const float *)&v + 8 * half, 8 * sizeof(float));
    }
}

FMATH_INLINE void pack_columns_as(float *const *place, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode) {
    const int taken = mode == PACK_PAIRS ? PAIR : 1;
    size_t at = 0;
    for (int k = 0; k < depth; k += taken, x += (size_t)taken * ld, at += (size_t)width)
        pack_step(place, at, x, k + 1 < depth ? x + ld : NULL, ld, count, mode);
}

static void k_pack_columns(float *const *place, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode) {
    if (mode == PACK_FLOAT) pack_columns_as(place, width, x, ld, count, depth, PACK_FLOAT);
    else if (mode == PACK_ROUNDED) pack_columns_as(place, width, x, ld, count, depth, PACK_ROUNDED);
    else pack_columns_as(place, width, x, ld, count, depth, PACK_PAIRS);
}
