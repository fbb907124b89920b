/* What a member does next, decided: joining, views, slices, the exchange and commits, without a vector, a link or a thread. */
#include "workers/membership.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

enum { SLICES = 4, SEGMENTS = 3, PARTS = 2, FENCE = 7, GIVER = 11, OTHER = 12 };

static struct membership membership;
static struct reads reads;
static struct offer offer;
static bool shown[SEGMENTS];
static uint8_t offered[XXH128_BYTES];
static const uint8_t named[XXH128_BYTES] = {1, 2, 3};

static int begin(void **state) {
    (void)state;
    static const uint64_t parts[PARTS] = {0, 3};
    memset(&membership, 0, sizeof membership);
    memset(&reads, 0, sizeof reads);
    offer = (struct offer){.segments = SEGMENTS, .sum = shown};
    membership_open(&membership, SLICES, SEGMENTS, parts, PARTS);
    return 0;
}

static struct duty duty_now(void) {
    struct duty duty;
    if (!membership_next(&membership, &duty, &reads)) fail_msg("nothing is to be done");
    return duty;
}

static bool nothing_now(void) {
    struct duty duty;
    return !membership_next(&membership, &duty, &reads);
}

static void hold_state(uint64_t step) {
    offer.state = true;
    offer.state_step = step;
}

/* Answers the oldest question. */
static struct read answered(void) {
    struct read read, *oldest = &reads.read[0];
    assert_true(reads.count > 0);
    for (size_t i = 1; i < reads.count; i++)
        if (reads.read[i].id < oldest->id) oldest = &reads.read[i];
    assert_true(reads_take(&reads, &read, oldest->id));
    return read;
}

static int view_of_two(uint64_t step, uint64_t fence) {
    struct slice_set sets[2] = {0};
    const uint64_t peers[] = {1, 2};
    for (uint32_t s = 0; s < SLICES; s++) slice_add(&sets[s / 2], s);
    return membership_view(&membership, &reads, step, fence, 2, 0, sets, peers);
}

static int view_alone(uint64_t step, uint64_t fence) {
    struct slice_set all = {0};
    const uint64_t peer = 1;
    for (uint32_t s = 0; s < SLICES; s++) slice_add(&all, s);
    return membership_view(&membership, &reads, step, fence, 1, 0, &all, &peer);
}

static void compute(size_t slices) {
    for (uint32_t left, right; slices > 0; slices--) {
        struct duty duty = duty_now();
        uint32_t vector;
        assert_int_equal(duty.kind, DUTY_SLICE);
        assert_true(partials_room(&membership.partials, &vector, duty.slice));
        partials_put(&membership.partials, duty.slice, vector);
        while (partials_add(&membership.partials, &left, &right)) continue;
    }
    assert_int_equal(duty_now().kind, DUTY_SHOW);
}

/* ---- joining ---- */

static void the_first_state_is_made_and_not_read(void **state) {
    (void)state;
    assert_true(membership_join(&membership, &reads, &offer, offered, 0, NULL, NULL, 0));
    assert_int_equal(duty_now().kind, DUTY_FIRST_STATE);
    assert_int_equal(reads.count, 0);
    assert_true(join_believes(&membership.join, offered)); /* nobody knows its digest */
    membership_joined(&membership, &reads);
    assert_true(nothing_now());
}

static void a_state_is_whole_when_its_last_item_is_here(void **state) {
    (void)state;
    const uint64_t peers[] = {GIVER, OTHER};
    bool asked[PARTS * SEGMENTS] = {0};
    assert_true(membership_join(&membership, &reads, &offer, offered, 5, named, peers, 2));
    for (size_t item = 0; item < PARTS * SEGMENTS; item++) {
        assert_true(nothing_now());
        struct read read = answered();
        assert_true(read.peer == GIVER || read.peer == OTHER);
        assert_int_equal(read.envelope.step, 5);
        assert_true(read.body.a == 0 || read.body.a == 3);
        size_t which = (read.body.a ? SEGMENTS : 0) + read.body.c;
        assert_false(asked[which]);
        asked[which] = true;
        assert_int_equal(join_take(&membership.join, &reads, &read, true), JOIN_ITEM);
    }
    assert_int_equal(duty_now().kind, DUTY_BELIEVE);
    assert_true(join_believes(&membership.join, named));
    assert_false(join_believes(&membership.join, offered));
    membership_joined(&membership, &reads);
    assert_true(nothing_now());
}

static void a_bad_item_is_asked_of_another_giver_and_of_the_coordinator_once(void **state) {
    (void)state;
    const uint64_t peers[] = {GIVER, OTHER};
    assert_true(membership_join(&membership, &reads, &offer, offered, 5, named, peers, 2));
    assert_true(nothing_now());
    struct read bad = answered();
    assert_int_equal(join_take(&membership.join, &reads, &bad, false), JOIN_ANOTHER);
    bool again = false;
    for (size_t i = 0; i < reads.count; i++)
        again |= reads.read[i].tag == bad.tag && reads.read[i].peer == (bad.peer == GIVER ? OTHER : GIVER);
    assert_true(again);
    for (int i = 1; i < JOIN_BAD_MAX; i++) {
        bad = answered();
        assert_int_equal(join_take(&membership.join, &reads, &bad, false), JOIN_ANOTHER);
    }
    bad = answered();
    assert_int_equal(join_take(&membership.join, &reads, &bad, false), JOIN_FAILED);
    assert_true(nothing_now());
    assert_int_equal(reads.count, 0);
    assert_int_equal(join_take(&membership.join, &reads, &bad, true), JOIN_NOT);
    assert_true(membership_join(&membership, &reads, &offer, offered, 5, named, NULL, 0));
    assert_true(nothing_now());
    bad = answered();
    assert_int_equal(bad.peer, 0);
    assert_int_equal(join_take(&membership.join, &reads, &bad, false), JOIN_FAILED);
}

static void a_state_that_is_here_is_not_taken_again(void **state) {
    (void)state;
    hold_state(5);
    memcpy(offered, named, sizeof offered);
    assert_false(membership_join(&membership, &reads, &offer, offered, 5, named, NULL, 0));
    assert_false(membership_join(&membership, &reads, &offer, offered, 5, NULL, NULL, 0));
    assert_true(nothing_now());
    assert_true(membership_join(&membership, &reads, &offer, offered, 4, named, NULL, 0));
    memset(offered, 0, sizeof offered);
    assert_true(membership_join(&membership, &reads, &offer, offered, 5, named, NULL, 0));
}

/* ---- a step ---- */

static void only_the_next_step_in_a_later_view_is_followed(void **state) {
    (void)state;
    assert_false(membership_follows(&membership, &offer, 1, FENCE)); /* no state */
    hold_state(3);
    assert_true(membership_follows(&membership, &offer, 4, FENCE));
    assert_false(membership_follows(&membership, &offer, 3, FENCE) || membership_follows(&membership, &offer, 5, FENCE));
    assert_int_equal(view_alone(4, FENCE), 0);
    assert_false(membership_follows(&membership, &offer, 4, FENCE) || membership_follows(&membership, &offer, 4, FENCE - 1));
    assert_true(membership_follows(&membership, &offer, 4, FENCE + 1));
    assert_true(membership_join(&membership, &reads, &offer, offered, 9, named, NULL, 0));
    assert_false(membership_follows(&membership, &offer, 4, FENCE + 1)); /* while it joins */
}

static void alone_a_member_sums_all_segments_and_says_so_once(void **state) {
    (void)state;
    assert_int_equal(view_alone(4, FENCE), 0);
    compute(SLICES);
    exchange_begin(&membership.exchange);
    for (size_t i = 0; i < SEGMENTS; i++) {
        struct duty duty = duty_now();
        assert_int_equal(duty.kind, DUTY_SUM);
        assert_false(membership_commits(&membership, 4, FENCE));
        exchange_summed(&membership.exchange, duty.slot);
    }
    assert_int_equal(duty_now().kind, DUTY_REDUCED);
    membership_reduced(&membership);
    assert_true(nothing_now());
    assert_true(membership_commits(&membership, 4, FENCE));
    assert_false(membership_commits(&membership, 4, FENCE - 1) || membership_commits(&membership, 5, FENCE));
    membership_committed(&membership, &reads);
    assert_false(membership_commits(&membership, 4, FENCE));
    assert_true(nothing_now());
    assert_int_equal(membership.partials.count, 0);
}

static void a_new_view_forgets_what_was_asked_and_keeps_what_was_computed(void **state) {
    (void)state;
    assert_int_equal(view_of_two(4, FENCE), 0);
    compute(SLICES / 2);
    exchange_begin(&membership.exchange);
    assert_true(nothing_now());
    assert_true(reads.count > 0);
    struct read late = answered();
    assert_int_equal(view_alone(4, FENCE + 1), 0);
    assert_int_equal(reads.count, 0);
    size_t slot, partial;
    assert_int_equal(exchange_take(&membership.exchange, &reads, &slot, &partial, &late, true, 1), TAKEN_NOT);
    compute(SLICES - SLICES / 2);
    assert_int_equal(view_alone(5, FENCE + 2), 0); /* another step */
    compute(SLICES);
}

static void a_view_in_which_a_slice_is_nobodys_is_refused(void **state) {
    (void)state;
    struct slice_set some = {0};
    const uint64_t peer = 1;
    slice_add(&some, 0);
    assert_int_equal(membership_view(&membership, &reads, 4, FENCE, 1, 0, &some, &peer), ERR_CORRUPT);
    assert_true(nothing_now());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_first_state_is_made_and_not_read, begin),
        cmocka_unit_test_setup(a_state_is_whole_when_its_last_item_is_here, begin),
        cmocka_unit_test_setup(a_bad_item_is_asked_of_another_giver_and_of_the_coordinator_once, begin),
        cmocka_unit_test_setup(a_state_that_is_here_is_not_taken_again, begin),
        cmocka_unit_test_setup(only_the_next_step_in_a_later_view_is_followed, begin),
        cmocka_unit_test_setup(alone_a_member_sums_all_segments_and_says_so_once, begin),
        cmocka_unit_test_setup(a_new_view_forgets_what_was_asked_and_keeps_what_was_computed, begin),
        cmocka_unit_test_setup(a_view_in_which_a_slice_is_nobodys_is_refused, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
