/* Softmax of panels of attention scores for one instruction set; included by kernel_body.h, never elsewhere. A register holds one key's
 * scores of eight queries. Sums run over the keys in order, one chain for each query. */
enum { PANEL_VECTORS = TILE_COLUMNS / 8 };

/* All ones where the key is seen. */
FMATH_INLINE v8i panel_seen(int key, v8i low, v8i high) {
    v8i k = {key, key, key, key, key, key, key, key};
    return (k >= low) & (k <= high);
}

FMATH_INLINE v8i v8i_load(const int32_t *p) {
    v8i v;
    memcpy(&v, p, sizeof v);
    return v;
}

FMATH_INLINE v8 v8_where(v8i mask, v8 x, float otherwise) {
    v8 o = v8_all(otherwise);
    return (v8)((mask & (v8i)x) | (~mask & (v8i)o));
}

/* Keys in [*begin, *end) are seen by every query of the panel: no mask is needed there. */
FMATH_INLINE void panel_all_see(int *begin, int *end, int keys, const int32_t *low, const int32_t *high) {
    *begin = 0, *end = keys;
    for (int i = 0; i < TILE_COLUMNS; i++) {
        *begin = low[i] > *begin ? low[i] : *begin;
        *end = high[i] + 1 < *end ? high[i] + 1 : *end;
    }
}

static void k_panel_softmax(float *s, float *max, float *factor, int keys, const int32_t *low, const int32_t *high, float scale,
                            const float *mask) {
    int all_begin, all_end;
    v8 scales = v8_all(scale);
    panel_all_see(&all_begin, &all_end, keys, low, high);
    for (int j = 0; j < PANEL_VECTORS; j++) {
        v8i lows = v8i_load(low + 8 * j), highs = v8i_load(high + 8 * j);
        v8 top = v8_all(-INFINITY), sum = v8_all(0.0f);
        float *column = s + 8 * j;
        for (int key = 0; key < keys; key++) {
            v8 x = v8_load(column + key * TILE_COLUMNS) * scales;
            if (key < all_begin || key >= all_end) x = v8_where(panel_seen(key, lows, highs), x, -INFINITY);
            top = v8_max(top, x);
        }
        for (int key = 0; key < keys; key++) {
            v8 e = v8_exp(v8_load(column + key * TILE_COLUMNS) * scales - top);
            if (key < all_begin || key >= all_end) e = v8_where(panel_seen(key, lows, highs), e, 0.0f);
            sum = sum + e;
            v8_store(column + key * TILE_COLUMNS, mask ? e * v8_load(mask + key * TILE_COLUMNS + 8 * j) : e);
        }
        v8_store(max + 8 * j, top);
        v8_store(factor + 8 * j, v8_all(1.0f) / sum);
    }
}

static void k_panel_softmax_backward(float *s, float *dp, const float *max, const float *factor, const float *product, int keys,
                                     const int32_t *low, const int32_t *high, float scale, const float *mask) {
    int all_begin, all_end;
    v8 scales = v8_all(scale);
    panel_all_see(&all_begin, &all_end, keys, low, high);
    for (int key = 0; key < keys; key++)
        for (int j = 0; j < PANEL_VECTORS; j++) {
            size_t at = (size_t)key * TILE_COLUMNS + 8 * (size_t)j;
            v8 p = v8_exp(v8_load(s + at) * scales - v8_load(max + 8 * j)) * v8_load(factor + 8 * j), d = v8_load(dp + at);
            v8 kept = mask ? v8_load(mask + at) : v8_all(1.0f);
            v8 ds = p * (d * kept - v8_load(product + 8 * j)) * scales;
            if (key < all_begin || key >= all_end) {
                v8i seen = panel_seen(key, v8i_load(low + 8 * j), v8i_load(high + 8 * j));
                p = v8_where(seen, p, 0.0f), ds = v8_where(seen, ds, 0.0f);
            }
            v8_store(s + at, p * kept);
            v8_store(dp + at, ds);
        }
}
