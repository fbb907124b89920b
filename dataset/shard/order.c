/* Where a sequence lies and in which order sequences are used. Both are arithmetic on the position and the seed, so every process computes
 * them without a table, and a run that is resumed needs only its position. Keeps nothing. */
#include "base/err.h"
#include "base/philox.h"
#include "dataset/shard/manifest.h"

#ifndef FRAME_TOKENS /* the simulation builds the same code with small ones */
enum { FRAME_TOKENS = 1 << 16 }; /* some 128 KiB: small enough to fetch for one sequence, large enough to compress well */
#endif

uint64_t frame_tokens_for(uint64_t sequence_length) {
    CHECK(sequence_length > 0);
    return sequence_length >= FRAME_TOKENS ? sequence_length : FRAME_TOKENS / sequence_length * sequence_length;
}

uint64_t shard_tokens_for(uint64_t shard_tokens, uint64_t sequence_length) {
    uint64_t frame_tokens = frame_tokens_for(sequence_length), frames = shard_tokens / frame_tokens;
    return (frames ? frames : 1) * frame_tokens;
}

uint64_t sequences_in(uint64_t tokens, uint64_t sequence_length, bool separate) {
    if (separate) return tokens / sequence_length;
    return tokens ? (tokens - 1) / sequence_length : 0;
}

uint64_t geometry_sequences(const Millrace__Geometry *geometry) {
    return sequences_in(geometry->tokens, geometry->sequence_length, geometry->separate);
}

struct sequence_place sequence_place(const Millrace__Geometry *geometry, uint64_t sequence) {
    uint64_t token = sequence * geometry->sequence_length, within = token % geometry->shard_tokens;
    return (struct sequence_place){
        .shard = (uint32_t)(token / geometry->shard_tokens),
        .frame = (uint32_t)(within / geometry->frame_tokens),
        .first = within % geometry->frame_tokens,
    };
}

/* ---- Permutations ---- */

/* ORDER_SITE keeps the counters apart from every other use of the same seed. */
enum { FEISTEL_ROUNDS = 8, ORDER_SITE = 0x4F524400, ORDER_BLOCKS = 0, ORDER_WINDOW = 1 };

/* A balanced Feistel network (Luby and Rackoff, "How to construct pseudorandom permutations", 1988) permutes [0, 2^(2 half_bits)); cycle
 * walking (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002) makes that [0, count): steps outside are taken
 * again. The cycle comes back to where it began, so this ends; the domain is at most four times as large, so it ends soon. */
struct permutation {
    uint64_t key, count;
    unsigned half_bits;
};

static struct permutation permutation_of(uint64_t seed, uint64_t epoch, uint32_t site, uint64_t number, uint64_t count) {
    CHECK(number <= UINT32_MAX);
    struct philox_block key = philox(seed, epoch, (uint64_t)(ORDER_SITE + site) << 32 | number);
    struct permutation p = {.key = (uint64_t)key.word[0] << 32 | key.word[1], .count = count, .half_bits = 1};
    while (p.half_bits < 32 && (count - 1) >> (2 * p.half_bits)) p.half_bits++;
    return p;
}

static uint32_t feistel_word(const struct permutation *p, uint32_t round, uint32_t half) { return philox(p->key, round, half).word[0]; }

static uint64_t permute(const struct permutation *p, uint64_t value) {
    uint32_t mask = (uint32_t)((UINT64_C(1) << p->half_bits) - 1);
    do {
        uint32_t left = (uint32_t)(value >> p->half_bits) & mask, right = (uint32_t)value & mask;
        for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
            uint32_t next = left ^ (feistel_word(p, round, right) & mask);
            left = right;
            right = next;
        }
        value = (uint64_t)left << p->half_bits | right;
    } while (value >= p->count);
    return value;
}

/* The value that permute() makes this one from. */
static uint64_t permute_back(const struct permutation *p, uint64_t value) {
    uint32_t mask = (uint32_t)((UINT64_C(1) << p->half_bits) - 1);
    do {
        uint32_t left = (uint32_t)(value >> p->half_bits) & mask, right = (uint32_t)value & mask;
        for (uint32_t round = FEISTEL_ROUNDS; round-- > 0;) {
            uint32_t before = right ^ (feistel_word(p, round, left) & mask);
            right = left;
            left = before;
        }
        value = (uint64_t)left << p->half_bits | right;
    } while (value >= p->count);
    return value;
}

/* ---- The order ---- */

/* Blocks in the order of an epoch: slot s holds block permute(s). All are whole but the split's last one. */
struct slots {
    uint64_t count, block;    /* block: sequences of a whole one */
    uint64_t short_slot, missing;  /* where the last block lies, and what it lacks */
};

/* Where a slot begins in the epoch. */
static uint64_t slot_begin(const struct slots *slots, uint64_t slot) {
    return slot * slots->block - (slot > slots->short_slot ? slots->missing : 0);
}

static uint64_t slot_at(const struct slots *slots, uint64_t position) {
    if (position < slot_begin(slots, slots->short_slot + 1)) return position / slots->block;
    return (position + slots->missing) / slots->block;
}

uint64_t order_sequence(uint64_t seed, uint64_t position, const Millrace__Geometry *geometry, uint64_t window) {
    uint64_t sequences = geometry_sequences(geometry), block = geometry->frame_tokens / geometry->sequence_length;
    CHECK(sequences > 0 && block > 0);
    uint64_t epoch = position / sequences, at = position % sequences;
    struct slots slots = {.count = (sequences - 1) / block + 1, .block = block};
    struct permutation blocks = permutation_of(seed, epoch, ORDER_BLOCKS, 0, slots.count);
    slots.missing = slots.count * block - sequences;
    slots.short_slot = permute_back(&blocks, slots.count - 1);

    if (window == 0 || window > slots.count) window = slots.count;
    uint64_t number = slot_at(&slots, at) / window, first = number * window;
    uint64_t last = slots.count - first < window ? slots.count : first + window;
    uint64_t begin = slot_begin(&slots, first), count = slot_begin(&slots, last) - begin;
    struct permutation within = permutation_of(seed, epoch, ORDER_WINDOW, number, count);
    at = begin + permute(&within, at - begin);

    uint64_t slot = slot_at(&slots, at);
    return permute(&blocks, slot) * block + (at - slot_begin(&slots, slot));
}
