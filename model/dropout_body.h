/* Dropout for one instruction set; included by kernel_body.h after tile_body.h, never elsewhere. The includer may define WIDE_MULTIPLY, the
 * products of the lower halves of each lane of two vectors of longs; without it Philox (base/philox.h) goes block by block. */
#ifdef WIDE_MULTIPLY

/* Philox of several blocks at once: a lane of 64 bits holds one word of one block in its lower half, so that a product of 32 by 32 bits is
 * one instruction; what is in the upper halves reaches no result. */
typedef uint64_t vlong __attribute__((vector_size(4 * TILE_LANES)));
typedef uint32_t vword __attribute__((vector_size(4 * TILE_LANES)));

enum { PHILOX_ROUNDS = 10, PHILOX_BLOCKS = TILE_LANES / 2, PHILOX_AT_ONCE = 2, DROPOUT_GROUP = 4 * PHILOX_BLOCKS * PHILOX_AT_ONCE };

/* Blocks lie in the lanes as 0, half, 1, half + 1, ..: interleaving neighbours within 128 bits then brings their words in order. */
#if TILE_LANES == 16
#define PHILOX_ORDER      ((vlong){0, 4, 1, 5, 2, 6, 3, 7})
#define LOWER_PAIRS(a, b) __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define UPPER_PAIRS(a, b) __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#else
#define PHILOX_ORDER      ((vlong){0, 2, 1, 3})
#define LOWER_PAIRS(a, b) __builtin_shufflevector(a, b, 0, 4, 2, 6)
#define UPPER_PAIRS(a, b) __builtin_shufflevector(a, b, 1, 5, 3, 7)
#endif

#define PHILOX_PRODUCT(c, factor) WIDE_MULTIPLY(c, (vlong){0} + (factor))

struct dropout {
    vlong key[PHILOX_ROUNDS][2];
    uint32_t below; /* words below it drop their element */
    float keep;     /* what the others are multiplied with */
};

FMATH_INLINE void dropout_begin(struct dropout *d, uint64_t key, float p) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < PHILOX_ROUNDS; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        d->key[round][0] = (vlong){0} + k0, d->key[round][1] = (vlong){0} + k1;
    d->below = (uint32_t)((double)p * 4294967296.0), d->keep = 1.0f / (1.0f - p);
}

/* The words of PHILOX_AT_ONCE * PHILOX_BLOCKS blocks from `block` on, in order. */
FMATH_INLINE void philox_words(vword word[PHILOX_AT_ONCE][2], const vlong key[PHILOX_ROUNDS][2], uint64_t block) {
    vlong c0[PHILOX_AT_ONCE], c1[PHILOX_AT_ONCE], c2[PHILOX_AT_ONCE], c3[PHILOX_AT_ONCE];
    for (int i = 0; i < PHILOX_AT_ONCE; i++) {
        vlong number = PHILOX_ORDER + (block + (uint64_t)(i * PHILOX_BLOCKS)), p0 = PHILOX_PRODUCT(number, 0xD2511F53u);
        /* the first round, in which c2 and c3 are 0 */
        c0[i] = (number >> 32) ^ key[0][0], c1[i] = (vlong){0}, c2[i] = (p0 >> 32) ^ key[0][1], c3[i] = p0;
    }
    _Pragma("GCC unroll 10") for (int round = 1; round < PHILOX_ROUNDS; round++)
        _Pragma("GCC unroll 4") for (int i = 0; i < PHILOX_AT_ONCE; i++) {
            vlong p0 = PHILOX_PRODUCT(c0[i], 0xD2511F53u), p1 = PHILOX_PRODUCT(c2[i], 0xCD9E8D57u);
            c0[i] = (p1 >> 32) ^ c1[i] ^ key[round][0], c2[i] = (p0 >> 32) ^ c3[i] ^ key[round][1];
            c1[i] = p1, c3[i] = p0;
        }
    for (int i = 0; i < PHILOX_AT_ONCE; i++) {
        vlong first = (c0[i] & 0xffffffffu) | (c1[i] << 32), second = (c2[i] & 0xffffffffu) | (c3[i] << 32);
        word[i][0] = (vword)LOWER_PAIRS(first, second), word[i][1] = (vword)UPPER_PAIRS(first, second);
    }
}

FMATH_INLINE void dropout_group(float x[DROPOUT_GROUP], const struct dropout *d, uint64_t block) {
    vword word[PHILOX_AT_ONCE][2];
    philox_words(word, d->key, block);
    for (int i = 0; i < 2 * PHILOX_AT_ONCE; i++) {
        wide v = wide_load(x + TILE_LANES * i);
        v = (wide)((widei)(v * d->keep) & (widei)(word[i / 2][i % 2] >= d->below));
        wide_store(x + TILE_LANES * i, v);
    }
}

/* What is not a whole group is done in a copy. */
static void k_dropout_apply(float *x, uint64_t key, uint64_t first, size_t count, float p) {
    struct dropout d;
    dropout_begin(&d, key, p);
    for (size_t i = 0, n; i < count; i += n) {
        size_t offset = (first + i) % 4;
        n = DROPOUT_GROUP - offset < count - i ? DROPOUT_GROUP - offset : count - i;
        if (n == DROPOUT_GROUP) {
            dropout_group(x + i, &d, (first + i) / 4);
            continue;
        }
        float copy[DROPOUT_GROUP] = {0};
        memcpy(copy + offset, x + i, n * sizeof *x);
        dropout_group(copy, &d, (first + i) / 4);
        memcpy(x + i, copy + offset, n * sizeof *x);
    }
}

#else

static void k_dropout_apply(float *x, uint64_t key, uint64_t first, size_t count, float p) {
    const uint32_t below = (uint32_t)((double)p * 4294967296.0);
    const float keep = 1.0f / (1.0f - p);
    size_t i = 0;
    while (i < count) {
        uint64_t element = first + i;
        struct philox_block block = philox(key, 0, element / 4);
        for (unsigned word = element % 4; word < 4 && i < count; word++, i++) x[i] = block.word[word] < below ? 0.0f : x[i] * keep;
    }
}

#endif
