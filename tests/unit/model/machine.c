/* The machine's peaks: each loop does the work that it counts, none is optimised away, and the ratios are those of the instructions. No
 * speed is asserted by itself: it is the machine's business. */
#include "model/trial/machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>


/* What lane 0 of a loop's sum is after that many rounds: chain i begins with i and takes a step a round. */
static double sum_of_chains(int kind, size_t rounds) {
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        double x = i;
        for (size_t round = 0; round < rounds; round++) x = kind == MACHINE_FP32 ? x * 0.5 + 0.5 : x + (kind == MACHINE_BF16 ? 2 : 4);
        sum += x;
    }
    return sum;
}

static void every_loop_does_every_round(void **state) {
    (void)state;
    const struct machine_peak *peak[MACHINE_PEAKS];
    size_t count = machine_peaks(peak);
    assert_in_range(count, 1, MACHINE_PEAKS);
    for (size_t i = 0; i < count; i++)
        for (size_t rounds = 0; rounds <= 9; rounds++) {
            char sink[MACHINE_SINK_BYTES];
            float x;
            int32_t n;
            peak[i]->run(rounds, sink);
            memcpy(&x, sink, sizeof x);
            memcpy(&n, sink, sizeof n);
            double got = peak[i]->kind == MACHINE_INT8 ? (double)n : (double)x;
            if (got != sum_of_chains((int)peak[i]->kind, rounds))
                fail_msg("loop %zu after %zu rounds: %g instead of %g", i, rounds, got, sum_of_chains((int)peak[i]->kind, rounds));
        }
}

static void a_measurement_has_every_field_that_the_processor_has(void **state) {
    (void)state;
    const struct machine_peak *peak[MACHINE_PEAKS];
    size_t count = machine_peaks(peak);
    bool has[MACHINE_KINDS] = {false};
    for (size_t i = 0; i < count; i++) has[peak[i]->kind] = true;
    struct pool *pool = NULL;
    struct machine_speed speed;
    assert_int_equal(pool_open(&pool, 2), 0);
    assert_int_equal(machine_measure(&speed, 0.0, pool), 0);
    assert_true(speed.fp32_gflops > 0 && (speed.bf16_gflops > 0) == has[MACHINE_BF16] && (speed.int8_gops > 0) == has[MACHINE_INT8]);
    assert_true(speed.read_gbytes_per_second > 0 && speed.copy_gbytes_per_second > 0 && speed.triad_gbytes_per_second > 0);
    pool_close(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_loop_does_every_round),
        cmocka_unit_test(a_measurement_has_every_field_that_the_processor_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
