/* Dropout for one instruction set; included by kernel_body.h after philox_body.h, never elsewhere. */
struct dropout {
    struct philox_keys keys;
    uint32_t below; /* words below it drop their element */
    float keep;     /* what the others are multiplied with */
};

FMATH_INLINE void dropout_group(float x[PHILOX_GROUP], const struct dropout *d, uint64_t block) {
    wideu word[PHILOX_VECTORS];
    philox_words(word, &d->keys, block);
    for (int i = 0; i < PHILOX_VECTORS; i++) {
        wide v = wide_load(x + WIDE * i);
        v = (wide)((widei)(v * d->keep) & (widei)(word[i] >= d->below));
        wide_store(x + WIDE * i, v);
    }
}

/* What is not a whole group is done in a copy. */
static void k_dropout_apply(float *x, uint64_t key, uint64_t first, size_t count, float p) {
    struct dropout d = {.below = (uint32_t)((double)p * 4294967296.0), .keep = 1.0f / (1.0f - p)};
    philox_begin(&d.keys, key);
    for (size_t i = 0, n; i < count; i += n) {
        n = philox_take(first + i, count - i);
        if (n == PHILOX_GROUP) {
            dropout_group(x + i, &d, (first + i) / 4);
            continue;
        }
        size_t offset = (first + i) % 4;
        float copy[PHILOX_GROUP] = {0};
        memcpy(copy + offset, x + i, n * sizeof *x);
        dropout_group(copy, &d, (first + i) / 4);
        memcpy(x + i, copy + offset, n * sizeof *x);
    }
}
