/* Softmax of panels of attention scores for one instruction set; included by kernel_body.h, never elsewhere. A register holds one key's
 * scores of several queries. Sums run over the keys in order, one chain for each query. */
enum { PANEL_VECTORS = TILE_COLUMNS / WIDE };

/* All ones where the key is seen. */
FMATH_INLINE widei panel_seen(int key, widei low, widei high) {
    widei k = (widei){0} + key;
    return (k >= low) & (k <= high);
}

FMATH_INLINE widei widei_load(const int32_t *p) {
    widei v;
    memcpy(&v, p, sizeof v);
    return v;
}

FMATH_INLINE wide wide_where(widei mask, wide x, float otherwise) {
    wide o = wide_all(otherwise);
    return (wide)((mask & (widei)x) | (~mask & (widei)o));
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
    wide scales = wide_all(scale);
    panel_all_see(&all_begin, &all_end, keys, low, high);
    for (int j = 0; j < PANEL_VECTORS; j++) {
        widei lows = widei_load(low + WIDE * j), highs = widei_load(high + WIDE * j);
        wide top = wide_all(-INFINITY), sum = wide_all(0.0f);
        float *column = s + WIDE * j;
        for (int key = 0; key < keys; key++) {
            wide x = wide_load(column + key * TILE_COLUMNS) * scales;
            if (key < all_begin || key >= all_end) x = wide_where(panel_seen(key, lows, highs), x, -INFINITY);
            top = wide_max(top, x);
        }
        for (int key = 0; key < keys; key++) {
            wide e = wide_exp(wide_load(column + key * TILE_COLUMNS) * scales - top);
            if (key < all_begin || key >= all_end) e = wide_where(panel_seen(key, lows, highs), e, 0.0f);
            sum = sum + e;
            wide_store(column + key * TILE_COLUMNS, mask ? e * wide_load(mask + key * TILE_COLUMNS + WIDE * j) : e);
        }
        wide_store(max + WIDE * j, top);
        wide_store(factor + WIDE * j, wide_all(1.0f) / sum);
    }
}

static void k_panel_softmax_backward(float *s, float *dp, const float *max, const float *factor, const float *product, int keys,
                                     const int32_t *low, const int32_t *high, float scale, const float *mask) {
    int all_begin, all_end;
    wide scales = wide_all(scale);
    panel_all_see(&all_begin, &all_end, keys, low, high);
    for (int key = 0; key < keys; key++)
        for (int j = 0; j < PANEL_VECTORS; j++) {
            size_t at = (size_t)key * TILE_COLUMNS + WIDE * (size_t)j;
            wide p = wide_exp(wide_load(s + at) * scales - wide_load(max + WIDE * j)) * wide_load(factor + WIDE * j);
            wide d = wide_load(dp + at), kept = mask ? wide_load(mask + at) : wide_all(1.0f);
            wide ds = p * (d * kept - wide_load(product + WIDE * j)) * scales;
            if (key < all_begin || key >= all_end) {
                widei seen = panel_seen(key, widei_load(low + WIDE * j), widei_load(high + WIDE * j));
                p = wide_where(seen, p, 0.0f), ds = wide_where(seen, ds, 0.0f);
            }
            wide_store(s + at, p * kept);
            wide_store(dp + at, ds);
        }
}
