/* The order of training: a permutation of every epoch, that never changes. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "dataset/shard/manifest.h"

/* `block` sequences of one token in a frame. */
static uint64_t at(uint64_t seed, uint64_t position, uint64_t sequences, uint64_t block, uint64_t window) {
    Millrace__Geometry geometry = MILLRACE__GEOMETRY__INIT;
    geometry.sequence_length = 1;
    geometry.frame_tokens = block;
    geometry.tokens = sequences;
    geometry.separate = true;
    return order_sequence(seed, position, &geometry, window);
}

static void check_epoch(uint64_t seed, uint64_t epoch, uint64_t sequences, uint64_t block, uint64_t window) {
    uint8_t *seen = mem_alloc(sequences);
    for (uint64_t p = 0; p < sequences; p++) {
        uint64_t sequence = at(seed, epoch * sequences + p, sequences, block, window);
        if (sequence >= sequences || seen[sequence]++)
            fail_msg("seed %" PRIu64 ", epoch %" PRIu64 ", %" PRIu64 " sequences in blocks of %" PRIu64 ", window %" PRIu64 ": %" PRIu64
                     " is outside or comes twice", seed, epoch, sequences, block, window, sequence);
    }
    free(seen);
}

static void each_epoch_uses_every_sequence_once(void **state) {
    (void)state;
    static const uint64_t more[] = {127, 128, 255, 256, 257, 1000, 1023, 1024, 1025, 4095, 4096, 4097, 16384, 16385, 65536, 100003};
    static const uint64_t windows[] = {0, 1, 2, 3, 16, 1000};
    for (uint64_t sequences = 1; sequences <= 70; sequences++)
        for (uint64_t block = 1; block <= 12; block++)
            for (size_t w = 0; w < 6; w++) check_epoch(42 + sequences, block, sequences, block, windows[w]);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        for (uint64_t epoch = 0; epoch < 2; epoch++) check_epoch(UINT64_MAX - i, epoch, more[i], 1 + 37 * i, windows[i % 6]);
}

static void an_enormous_dataset_has_an_order_too(void **state) {
    (void)state;
    static const uint64_t many[] = {UINT64_C(1) << 40, (UINT64_C(1) << 40) + 1, (UINT64_C(1) << 44) + 1};
    for (size_t i = 0; i < 6; i++) {
        uint64_t before = UINT64_MAX;
        for (uint64_t p = 0; p < 1000; p++) {
            uint64_t sequence = at(3, p, many[i / 2], 1 << 12, i % 2 ? 16 : 0);
            assert_true(sequence < many[i / 2]);
            assert_true(sequence != before);
            before = sequence;
        }
    }
}

/* How many of the first 1000 positions give the same sequence. */
static size_t agreements(uint64_t seed_a, uint64_t start_a, uint64_t seed_b, uint64_t start_b, uint64_t sequences) {
    size_t same = 0;
    for (uint64_t p = 0; p < 1000; p++) same += at(seed_a, start_a + p, sequences, 64, 16) == at(seed_b, start_b + p, sequences, 64, 16);
    return same;
}

static void epochs_and_seeds_have_their_own_order(void **state) {
    (void)state;
    enum { SEQUENCES = 100007 };
    assert_int_equal(agreements(1, 0, 1, 0, SEQUENCES), 1000);
    for (uint64_t i = 1; i < 40; i++) { /* one position in a hundred thousand agrees by chance, some more when a block does */
        assert_true(agreements(1, 0, 1, i * SEQUENCES, SEQUENCES) < 10);
        assert_true(agreements(1, 0, 1 + i, 0, SEQUENCES) < 10);
        assert_true(agreements(1, 0, 1 + (i << 32), 0, SEQUENCES) < 10);
        assert_true(agreements(i, i * SEQUENCES, i + 1, (i - 1) * SEQUENCES, SEQUENCES) < 10);
    }
}

/* What these positions gave when the order was made. A change here changes every run that is under way. */
static void the_order_of_a_seed_never_changes(void **state) {
    (void)state;
    static const uint64_t first[12] = {213, 59, 678, 953, 399, 948, 885, 882, 155, 471, 144, 397};
    for (uint64_t p = 0; p < 12; p++) assert_int_equal(at(42, p, 1000, 16, 8), first[p]);
    static const struct {
        uint64_t seed, position, sequences, block, window, sequence;
    } known[] = {
        {0, 0, 2, 1, 0, 0},
        {0, 0, 5, 2, 1, 0},
        {1, 12345, 4097, 64, 16, 1546},
        {UINT64_C(0x123456789ABCDEF0), UINT64_C(987654321987), 1000003, 256, 16, 370986},
        {7, UINT64_C(1) << 50, (UINT64_C(1) << 40) + 7, 512, 0, 40132000601},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_int_equal(at(known[i].seed, known[i].position, known[i].sequences, known[i].block, known[i].window), known[i].sequence);
}

/* Chi-squared of `cells` counts that should be equal. */
static double chi_squared(const size_t *count, size_t cells, size_t throws) {
    double want = (double)throws / (double)cells, sum = 0;
    for (size_t i = 0; i < cells; i++) sum += ((double)count[i] - want) * ((double)count[i] - want) / want;
    return sum;
}

static void every_sequence_comes_at_every_position_alike(void **state) {
    (void)state;
    enum { SEQUENCES = 100, EPOCHS = 20000 };
    static const uint64_t positions[] = {0, 1, 50, 99};
    for (size_t i = 0; i < 8; i++) {
        size_t count[SEQUENCES] = {0};
        for (uint64_t epoch = 0; epoch < EPOCHS; epoch++)
            count[at(5, epoch * SEQUENCES + positions[i / 2], SEQUENCES, 10, i % 2 ? 3 : 0)]++;
        double chi = chi_squared(count, SEQUENCES, EPOCHS); /* 99 degrees of freedom: above 160 once in ten thousand, below 50 likewise */
        if (chi > 160 || chi < 50) fail_msg("position %" PRIu64 ": chi-squared %g", positions[i / 2], chi);
    }
}

static void neighbours_are_not_kept_together(void **state) {
    (void)state;
    enum { SEQUENCES = 10000, CELLS = 50 };
    size_t count[CELLS] = {0};
    for (uint64_t p = 0; p < SEQUENCES; p++) {
        uint64_t here = at(9, p, SEQUENCES, 50, 0), next = at(9, (p + 1) % SEQUENCES, SEQUENCES, 50, 0);
        count[(next + SEQUENCES - here) % SEQUENCES * CELLS / SEQUENCES]++;
    }
    double chi = chi_squared(count, CELLS, SEQUENCES); /* 49 degrees of freedom: above 96 once in ten thousand */
    if (chi > 96) fail_msg("chi-squared %g", chi);
}

static void small_sets_take_all_their_orders(void **state) {
    (void)state;
    enum { EPOCHS = 24000 };
    size_t count[24] = {0}; /* the orders of 4 sequences */
    for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) {
        uint64_t s[4];
        for (uint64_t p = 0; p < 4; p++) s[p] = at(11, epoch * 4 + p, 4, 2, 0);
        size_t rank = 0; /* Lehmer code */
        for (int i = 0; i < 3; i++) {
            size_t smaller = 0;
            for (int j = i + 1; j < 4; j++) smaller += s[j] < s[i];
            rank = rank * (size_t)(4 - i) + smaller;
        }
        count[rank]++;
    }
    for (size_t i = 0; i < 24; i++) assert_true(count[i] > 0);
}

static void a_run_of_positions_touches_few_frames(void **state) {
    (void)state;
    enum { SEQUENCES = 100000, BLOCK = 64, WINDOW = 16, BLOCKS = SEQUENCES / BLOCK + 1 };
    size_t changes = 0;
    for (uint64_t begin = 0; begin + BLOCK * WINDOW <= SEQUENCES; begin += BLOCK * WINDOW / 2 + 7) {
        bool touched[BLOCKS] = {false};
        size_t frames = 0;
        for (uint64_t p = begin; p < begin + BLOCK * WINDOW; p++) {
            uint64_t frame = at(3, p, SEQUENCES, BLOCK, WINDOW) / BLOCK;
            frames += !touched[frame];
            touched[frame] = true;
        }
        assert_true(frames <= 2 * WINDOW + 1); /* a window's worth of positions lies in two windows, one of them with the short block */
        changes++;
    }
    assert_true(changes > 100);
    size_t together = 0; /* inside a window they are well mixed */
    for (uint64_t p = 0; p + 1 < BLOCK * WINDOW; p++)
        together += at(3, p, SEQUENCES, BLOCK, WINDOW) / BLOCK == at(3, p + 1, SEQUENCES, BLOCK, WINDOW) / BLOCK;
    assert_true(together < 2 * BLOCK);
}

static void a_sequence_is_found_in_its_shard_and_frame(void **state) {
    (void)state;
    Millrace__Geometry geometry = MILLRACE__GEOMETRY__INIT;
    geometry.tokens = 100;
    geometry.shard_tokens = 24;
    geometry.frame_tokens = 12;
    geometry.sequence_length = 4;
    for (uint64_t i = 0; i < 24; i++) {
        struct sequence_place place = sequence_place(&geometry, i);
        assert_int_equal((uint64_t)place.shard * 24 + place.frame * 12 + place.first, i * 4);
        assert_true(place.first + 4 <= 12 && place.frame < 2);
    }
    geometry.tokens = UINT64_C(1) << 44;
    geometry.shard_tokens = geometry.frame_tokens = 1 << 12;
    struct sequence_place place = sequence_place(&geometry, (UINT64_C(1) << 42) - 1);
    assert_int_equal(place.shard, UINT32_MAX);
    assert_int_equal(place.first, (1 << 12) - 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_epoch_uses_every_sequence_once),
        cmocka_unit_test(an_enormous_dataset_has_an_order_too),
        cmocka_unit_test(epochs_and_seeds_have_their_own_order),
        cmocka_unit_test(the_order_of_a_seed_never_changes),
        cmocka_unit_test(every_sequence_comes_at_every_position_alike),
        cmocka_unit_test(neighbours_are_not_kept_together),
        cmocka_unit_test(small_sets_take_all_their_orders),
        cmocka_unit_test(a_run_of_positions_touches_few_frames),
        cmocka_unit_test(a_sequence_is_found_in_its_shard_and_frame),
    };
    return cmocka_run_group_tests_name("dataset/order", tests, NULL, NULL);
}
