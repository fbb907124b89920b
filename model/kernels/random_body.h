/* Random words for one instruction set, and the kernels that need them: Philox (base/philox.h), several blocks at once; dropout; stochastic
 * rounding of an optimizer's moments. Included by kernel_body.h, never elsewhere. The includer may define WIDE_MULTIPLY, the products of
 * the lower halves of each lane of two vectors of longs; without it Philox goes block by block. */

/* ---- Philox ---- */

#ifdef WIDE_MULTIPLY

/* A lane of 64 bits holds one word of one block in its lower half, so that a product of 32 by 32 bits is one instruction; what is in the
 * upper halves reaches no result. */
typedef uint64_t vlong __attribute__((vector_size(4 * WIDE)));

enum { PHILOX_ROUNDS = 10, PHILOX_BLOCKS = WIDE / 2, PHILOX_AT_ONCE = 2, PHILOX_VECTORS = 2 * PHILOX_AT_ONCE };

/* Blocks lie in the lanes as 0, half, 1, half + 1, ..: interleaving neighbours within 128 bits then brings their words in order. */
#if WIDE == 16
#define PHILOX_ORDER      ((vlong){0, 4, 1, 5, 2, 6, 3, 7})
#define LOWER_PAIRS(a, b) __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define UPPER_PAIRS(a, b) __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#else
#define PHILOX_ORDER      ((vlong){0, 2, 1, 3})
#define LOWER_PAIRS(a, b) __builtin_shufflevector(a, b, 0, 4, 2, 6)
#define UPPER_PAIRS(a, b) __builtin_shufflevector(a, b, 1, 5, 3, 7)
#endif

#define PHILOX_PRODUCT(c, factor) WIDE_MULTIPLY(c, (vlong){0} + (factor))

struct philox_keys {
    vlong round[PHILOX_ROUNDS][2];
};

FMATH_INLINE void philox_begin(struct philox_keys *k, uint64_t key) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < PHILOX_ROUNDS; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        k->round[round][0] = (vlong){0} + k0, k->round[round][1] = (vlong){0} + k1;
}

/* The words of the blocks from `block` on, counters (0, block), in order. */
FMATH_INLINE void philox_words(wideu word[PHILOX_VECTORS], const struct philox_keys *k, uint64_t block) {
    vlong c0[PHILOX_AT_ONCE], c1[PHILOX_AT_ONCE], c2[PHILOX_AT_ONCE], c3[PHILOX_AT_ONCE];
    for (int i = 0; i < PHILOX_AT_ONCE; i++) {
        vlong number = PHILOX_ORDER + (block + (uint64_t)(i * PHILOX_BLOCKS)), p0 = PHILOX_PRODUCT(number, 0xD2511F53u);
        /* the first round, in which c2 and c3 are 0 */
        c0[i] = (number >> 32) ^ k->round[0][0], c1[i] = (vlong){0}, c2[i] = (p0 >> 32) ^ k->round[0][1], c3[i] = p0;
    }
    _Pragma("GCC unroll 10") for (int round = 1; round < PHILOX_ROUNDS; round++)
        _Pragma("GCC unroll 4") for (int i = 0; i < PHILOX_AT_ONCE; i++) {
            vlong p0 = PHILOX_PRODUCT(c0[i], 0xD2511F53u), p1 = PHILOX_PRODUCT(c2[i], 0xCD9E8D57u);
            c0[i] = (p1 >> 32) ^ c1[i] ^ k->round[round][0], c2[i] = (p0 >> 32) ^ c3[i] ^ k->round[round][1];
            c1[i] = p1, c3[i] = p0;
        }
    for (int i = 0; i < PHILOX_AT_ONCE; i++) {
        vlong first = (c0[i] & 0xffffffffu) | (c1[i] << 32), second = (c2[i] & 0xffffffffu) | (c3[i] << 32);
        word[2 * i] = (wideu)LOWER_PAIRS(first, second), word[2 * i + 1] = (wideu)UPPER_PAIRS(first, second);
    }
}

#else

enum { PHILOX_VECTORS = 2 };

struct philox_keys {
    uint64_t key;
};

FMATH_INLINE void philox_begin(struct philox_keys *k, uint64_t key) { k->key = key; }

FMATH_INLINE void philox_words(wideu word[PHILOX_VECTORS], const struct philox_keys *k, uint64_t block) {
    for (uint64_t i = 0; i < PHILOX_VECTORS * WIDE / 4; i++) {
        struct philox_block random = philox(k->key, 0, block + i);
        memcpy((char *)word + i * sizeof random, &random, sizeof random);
    }
}

#endif

/* Elements whose words come at once: element e has word e % 4 of block e / 4. */
enum { PHILOX_GROUP = PHILOX_VECTORS * WIDE };

/* How many of `count` elements, the first of which is element number `first`, are in the group that begins with its block. */
FMATH_INLINE size_t philox_take(uint64_t first, size_t count) {
    size_t room = PHILOX_GROUP - first % 4;
    return room < count ? room : count;
}

/* ---- dropout ---- */

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

/* ---- moments as bfloat16: to float32 and back ---- */

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
