/* Random words for one instruction set: Philox (base/philox.h), several blocks at once. Included by kernel_body.h, never elsewhere. The
 * includer may define WIDE_MULTIPLY, the products of the lower halves of each lane of two vectors of longs; without it Philox goes block by
 * block. */
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
