/* Packing of operands and products of tiles for one instruction set; included by that set's file after kernel_body.h, never elsewhere. The
 * includer may define, before it does so:
 *   TILE_V, TILE_LANES, TILE_SET1, TILE_FMA   a vector of floats, its lanes, broadcasting, and acc + a * b rounded once
 *   TILE_ROWS_AT_ONCE, TILE_VECTORS_AT_ONCE   how much of a tile its registers hold
 *   TILE_DOT                                  acc + the two products of bfloat16 pairs
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
    FMATH_INLINE void name(float *c, size_t ldc, const float *a, const float *b, int steps, int add) { \
        VECTOR acc[TILE_ROWS_AT_ONCE][TILE_VECTORS_AT_ONCE]; \
        _Pragma("GCC unroll 8") for (int i = 0; i < TILE_ROWS_AT_ONCE; i++) \
            _Pragma("GCC unroll 4") for (int j = 0; j < TILE_VECTORS_AT_ONCE; j++) acc[i][j] = (VECTOR){0}; \
        for (int k = 0; k < steps; k++, a += TILE_ROWS, b += TILE_COLUMNS) { \
            VECTOR right[TILE_VECTORS_AT_ONCE]; \
            _Pragma("GCC unroll 4") for (int j = 0; j < TILE_VECTORS_AT_ONCE; j++) memcpy(&right[j], b + TILE_LANES * j, sizeof right[j]); \
            _Pragma("GCC unroll 8") for (int i = 0; i < TILE_ROWS_AT_ONCE; i++) { \
                VECTOR left = TILE_SET1(a[i]); \
                _Pragma("GCC unroll 4") for (int j = 0; j < TILE_VECTORS_AT_ONCE; j++) acc[i][j] = MULTIPLY(left, right[j], acc[i][j]); \
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
    static void name(float *c, size_t ldc, const float *a, const float *b, int steps, int add) { \
        for (int j = 0; j < TILE_COLUMNS; j += TILE_LANES * TILE_VECTORS_AT_ONCE) \
            for (int i = 0; i < TILE_ROWS; i += TILE_ROWS_AT_ONCE) block(c + (size_t)i * ldc + j, ldc, a + i, b + j, steps, add); \
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

/* Rounds to bfloat16, to nearest and to even, and leaves it in the upper half of each lane; NaN stays one. */
FMATH_INLINE v8i bf16_upper(v8 x) {
    v8u bits = (v8u)x, rounded = bits + 0x7fff + ((bits >> 16) & 1); /* without a sign: NaN may overflow */
    v8i nan = x != x;
    return ((nan & (v8i)(bits | 0x400000)) | (~nan & (v8i)rounded)) & (int32_t)0xffff0000;
}

FMATH_INLINE v8i upper_to_lower(v8i x) { return (x >> 16) & 0xffff; }

#define V8_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

/* rows[i][j] becomes rows[j][i]. */
FMATH_INLINE void transpose8(v8 r[8]) {
    v8 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = V8_SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = V8_SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = V8_SHUFFLE(t[i + j], t[i + 2 + j], 0, 1, 8, 9, 4, 5, 12, 13);
            u[i + 2 * j + 1] = V8_SHUFFLE(t[i + j], t[i + 2 + j], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = V8_SHUFFLE(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = V8_SHUFFLE(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

FMATH_INLINE v8 load_up_to(const float *p, int count) {
    return count >= 8 ? v8_load(p) : load_some(p, count > 0 ? (size_t)count : 0, 0.0f);
}

/* Eight elements of depth, or eight pairs of them, of one row. */
FMATH_INLINE v8 pack_row(const float *x, int depth, enum pack_mode mode) {
    v8 low = load_up_to(x, depth);
    if (mode == PACK_FLOAT) return low;
    if (mode == PACK_ROUNDED) return (v8)bf16_upper(low);
    v8i l = bf16_upper(low), h = bf16_upper(load_up_to(x + 8, depth - 8));
    return (v8)(upper_to_lower(V8_SHUFFLE(l, h, 0, 2, 4, 6, 8, 10, 12, 14)) | V8_SHUFFLE(l, h, 1, 3, 5, 7, 9, 11, 13, 15));
}

/* Eight steps: 8 or 16 elements of depth. */
FMATH_INLINE void pack_steps(float *out, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode) {
    int per_step = mode == PACK_PAIRS ? 2 : 1, steps = (depth + per_step - 1) / per_step;
    v8 r[8];
    for (int i = 0; i < 8; i++) r[i] = i < count ? pack_row(x + (size_t)i * ld, depth, mode) : v8_all(0.0f);
    transpose8(r);
    for (int i = 0; i < 8 && i < steps; i++) v8_store(out + (size_t)i * (size_t)width, r[i]);
}

/* Sixteen elements of depth at a time, a line of the cache: with some strides eight rows' lines evict each other. The next rows' lines are
 * fetched, since nobody else sees that they are next. */
FMATH_INLINE void pack_along_as(float *out, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode) {
    for (int k = 0; k < depth; k += 16, x += 16) {
        for (size_t i = 8; i < 16; i++) __builtin_prefetch(x + i * ld);
        pack_steps(out, width, x, ld, count, depth - k, mode);
        out += 8 * width;
        if (mode == PACK_PAIRS) continue;
        if (depth - k > 8) pack_steps(out, width, x + 8, ld, count, depth - k - 8, mode);
        out += 8 * width;
    }
}

static void k_pack_along(float *out, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode) {
    if (mode == PACK_FLOAT) pack_along_as(out, width, x, ld, count, depth, PACK_FLOAT);
    else if (mode == PACK_ROUNDED) pack_along_as(out, width, x, ld, count, depth, PACK_ROUNDED);
    else pack_along_as(out, width, x, ld, count, depth, PACK_PAIRS);
}

/* The part of the row that the next panel packs; the row after this one is far away, and no prefetcher guesses it. */
FMATH_INLINE void prefetch_beside(const float *x, int width) {
    for (int j = 0; j < width; j += 16) __builtin_prefetch(x + width + j);
}

static void k_pack_across(float *out, int width, const float *x, size_t ld, int count, int depth, enum pack_mode mode) {
    if (mode != PACK_PAIRS) {
        for (int k = 0; k < depth; k++, out += width, x += ld) {
            prefetch_beside(x, width);
            for (int j = 0; j < count; j += 8) {
                v8 v = load_up_to(x + j, count - j);
                v8_store(out + j, mode == PACK_ROUNDED ? (v8)bf16_upper(v) : v);
            }
        }
        return;
    }
    for (int k = 0; k < depth; k += 2, out += width, x += 2 * ld) {
        prefetch_beside(x, width), prefetch_beside(x + ld, width);
        for (int j = 0; j < count; j += 8) {
            v8i even = upper_to_lower(bf16_upper(load_up_to(x + j, count - j)));
            v8i odd = k + 1 < depth ? bf16_upper(load_up_to(x + ld + j, count - j)) : (v8i){0};
            v8_store(out + j, (v8)(even | odd));
        }
    }
}
