/* An optimizer's moments as bfloat16, for one instruction set: to float32 and back. Included by kernel_body.h after philox_body.h, never
 * elsewhere. */
static void k_moments_widen(float *out, const uint16_t *x, size_t count) {
    WIDES(count, { WIDE_STORE(out, wide_widen(wide16_load_some(x + i, n))); });
}

/* The upper halves of x's bits + random < 65536: up or down, with the chance that makes the mean x. What is not finite stays, and what is
 * does not become infinite. */
FMATH_INLINE wide16 round_randomly(wide x, wideu random) {
    wideu bits = (wideu)x, magnitude = bits & 0x7fffffffu;
    wideu stays = (wideu)(magnitude + random >= 0x7f800000u), is_nan = (wideu)(magnitude > 0x7f800000u);
    return __builtin_convertvector(((bits + (random & ~stays)) | (is_nan & 0x00400000u)) >> 16, wide16);
}

/* A group takes 16 bits of each word, from `shift` on. */
FMATH_INLINE void round_group(uint16_t out[PHILOX_GROUP], const float x[PHILOX_GROUP], const wideu word[PHILOX_VECTORS], int shift) {
    for (int i = 0; i < PHILOX_VECTORS; i++) {
        wide16 rounded = round_randomly(wide_load(x + WIDE * i), (word[i] >> shift) & 0xffffu);
        memcpy(out + WIDE * i, &rounded, sizeof rounded);
    }
}

/* What is not a whole group is done in a copy. */
FMATH_INLINE void round_some(uint16_t *out, const float *x, const wideu word[PHILOX_VECTORS], int shift, size_t offset, size_t count) {
    if (count == PHILOX_GROUP) {
        round_group(out, x, word, shift);
        return;
    }
    float copy[PHILOX_GROUP] = {0};
    uint16_t rounded[PHILOX_GROUP];
    memcpy(copy + offset, x, count * sizeof *x);
    round_group(rounded, copy, word, shift);
    memcpy(out, rounded + offset, count * sizeof *out);
}

static void k_moments_round(uint16_t *m, uint16_t *v, const float *from_m, const float *from_v, uint64_t key, uint64_t first,
                            size_t count) {
    struct philox_keys keys;
    philox_begin(&keys, key);
    for (size_t i = 0, n; i < count; i += n) {
        wideu word[PHILOX_VECTORS];
        size_t offset = (first + i) % 4;
        n = philox_take(first + i, count - i);
        philox_words(word, &keys, (first + i) / 4);
        round_some(m + i, from_m + i, word, 0, offset, n);
        if (v) round_some(v + i, from_v + i, word, 16, offset, n);
    }
}
