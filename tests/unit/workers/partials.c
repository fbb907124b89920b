/* Which partial sums a member holds: numbers stand for vectors, so that every sum can be told from every other one. */
#include "tests/unit/random.h"
#include "workers/partials.h"

enum { SLICES = 11 };

/* What a vector's number holds: the slices that were added up in it, and whether each addition was of neighbours, left to right. */
struct vectors {
    uint32_t first[NODES_MAX], end[NODES_MAX];
};

static struct slice_set set_of(uint32_t first, uint32_t count, uint32_t every) {
    struct slice_set set = {0};
    for (uint32_t i = 0; i < count; i++) slice_add(&set, first + i * every);
    return set;
}

/* Computes all that is to be computed; how many slices that were. */
static size_t compute(struct partials *p, struct vectors *v) {
    size_t computed = 0;
    for (uint32_t slice, vector, left, right; partials_next(p, &slice); computed++) {
        assert_true(computed < 10 * SLICES_MAX);
        assert_true(partials_room(p, &vector, slice));
        v->first[vector] = slice, v->end[vector] = slice + 1;
        partials_put(p, slice, vector);
        while (partials_add(p, &left, &right)) {
            assert_int_equal(v->end[left], v->first[right]); /* the left one holds the lower slices */
            v->end[left] = v->end[right];
        }
    }
    return computed;
}

static void neighbours_are_added_as_far_as_the_tree_goes(void **state) {
    (void)state;
    struct partials p = {.slices = SLICES};
    struct vectors v;
    struct slice_set all = set_of(0, SLICES, 1);
    uint32_t vector;
    partials_view(&p, &all, false);
    assert_int_equal(compute(&p, &v), SLICES);
    assert_int_equal(p.count, 1);
    assert_true(node_same(p.node[0], node_root(SLICES)));
    assert_true(partials_name(&p, &vector, node_root(SLICES)));
    assert_int_equal(v.first[vector], 0);
    assert_int_equal(v.end[vector], SLICES);
    assert_false(partials_name(&p, &vector, (struct node){0, 1}));
    partials_drop(&p);
    assert_int_equal(p.count, 0);
    assert_int_equal(compute(&p, &v), SLICES);
}

static void a_new_view_of_a_step_keeps_what_is_wholly_ours(void **state) {
    (void)state;
    struct partials p = {.slices = SLICES};
    struct vectors v;
    struct slice_set most = set_of(0, 6, 1), fewer = set_of(0, 5, 1), all = set_of(0, SLICES, 1);
    partials_view(&p, &most, false);
    assert_int_equal(compute(&p, &v), 6); /* 0 to 3, and 4 to 5 */
    partials_view(&p, &fewer, true);
    assert_int_equal(p.count, 1);
    assert_int_equal(compute(&p, &v), 1); /* 4 again: its sum had 5 in it */
    partials_view(&p, &all, true);
    assert_int_equal(compute(&p, &v), 6);
    partials_view(&p, &all, false); /* another step: nothing of it is of use */
    assert_int_equal(p.count, 0);
    assert_int_equal(compute(&p, &v), SLICES);
}

static void who_holds_too_many_gives_some_up_and_ends_all_the_same(void **state) {
    (void)state;
    enum { MANY = 4 * NODES_MAX };
    struct partials p = {.slices = MANY};
    struct vectors v;
    struct slice_set scattered = set_of(1, NODES_MAX, 2), all = set_of(0, MANY, 1);
    partials_view(&p, &scattered, false);
    assert_int_equal(compute(&p, &v), NODES_MAX);
    assert_int_equal(p.count, NODES_MAX);
    partials_view(&p, &all, true);
    assert_true(compute(&p, &v) > MANY - NODES_MAX); /* some of them twice */
    assert_int_equal(p.count, 1);
}

static void any_views_end_with_the_nodes_of_what_is_ours(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    for (int round = 0; round < 300; round++) {
        struct partials p = {.slices = (uint32_t)random_in(&random, 1, 40)};
        struct vectors v;
        for (int view = 0; view < 6; view++) {
            struct slice_set mine = {0};
            struct node cover[SLICES_MAX];
            for (uint32_t s = 0; s < p.slices; s++)
                if (random_in(&random, 0, 2)) slice_add(&mine, s);
            partials_view(&p, &mine, random_in(&random, 0, 3));
            compute(&p, &v);
            size_t nodes = nodes_cover(cover, &mine, p.slices);
            assert_int_equal(p.count, nodes);
            for (size_t i = 0; i < nodes; i++) {
                uint32_t vector;
                assert_true(partials_name(&p, &vector, cover[i]));
                assert_int_equal(v.first[vector], node_first_slice(cover[i]));
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_are_added_as_far_as_the_tree_goes),
        cmocka_unit_test(a_new_view_of_a_step_keeps_what_is_wholly_ours),
        cmocka_unit_test(who_holds_too_many_gives_some_up_and_ends_all_the_same),
        cmocka_unit_test(any_views_end_with_the_nodes_of_what_is_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
