/* Slices, tree and segments against the plain definitions: recursion, and trying every set. */
#include "proto/steps.h"

#include <math.h>
#include <string.h>

#include "tests/unit/random.h"

static struct slice_set set_of(const uint32_t *slices, size_t count) {
    struct slice_set set = {0};
    for (size_t i = 0; i < count; i++) slice_add(&set, slices[i]);
    return set;
}
#define SET(...) set_of((uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static bool same_set(const struct slice_set *a, const struct slice_set *b) { return memcmp(a, b, sizeof *a) == 0; }

static struct slice_set random_set(struct random *random, uint32_t slices, unsigned percent) {
    struct slice_set set = {0};
    for (uint32_t slice = 0; slice < slices; slice++)
        if (random_in(random, 1, 100) <= percent) slice_add(&set, slice);
    return set;
}

static void sets_count_what_was_added(void **state) {
    (void)state;
    struct slice_set set = SET(0, 63, 64, SLICES_MAX - 1);
    assert_int_equal(slice_count(&set), 4);
    assert_true(slice_in(&set, 63) && slice_in(&set, SLICES_MAX - 1) && !slice_in(&set, 1));
    slice_remove(&set, 63);
    slice_remove(&set, 63);
    assert_int_equal(slice_count(&set), 3);
    assert_false(slice_in(&set, 63));
    assert_false(slice_in(&set, UINT32_MAX));
}

static void nodes_know_their_place(void **state) {
    (void)state;
    assert_int_equal(node_root(1).level, 0);
    assert_int_equal(node_root(2).level, 1);
    assert_int_equal(node_root(5).level, 3);
    assert_int_equal(node_root(SLICES_MAX).level, 12);
    assert_true(node_same(node_parent((struct node){0, 5}), (struct node){1, 2}));
    assert_true(node_same(node_sibling((struct node){2, 3}), (struct node){2, 2}));
    assert_true(node_exists((struct node){2, 1}, 5));
    assert_false(node_exists((struct node){1, 3}, 5));
    assert_false(node_exists((struct node){4, 0}, 5));   /* above the root */
    assert_false(node_exists((struct node){200, 1}, 5)); /* as a peer might send it */
    assert_false(node_exists((struct node){1, UINT32_MAX}, 5));
    struct slice_set set = SET(2, 4);
    assert_true(node_complete((struct node){2, 1}, &set, 5));  /* has slice 4 alone */
    assert_false(node_complete((struct node){1, 1}, &set, 5));
    assert_false(node_complete((struct node){1, 3}, &set, 5)); /* a node of nothing is never complete */
}

/* The slices of a node, straight from the definition. */
static struct slice_set slices_of(struct node node, uint32_t slices) {
    struct slice_set set = {0};
    for (uint64_t slice = (uint64_t)node.index << node.level; slice < (uint64_t)(node.index + 1) << node.level && slice < slices; slice++)
        slice_add(&set, (uint32_t)slice);
    return set;
}

/* The fewest aligned blocks that make up slices [begin, end) of `set`, by dynamic programming over all blocks that fit. */
static size_t fewest_nodes(const struct slice_set *set, uint32_t slices) {
    size_t best[65] = {0};
    for (uint32_t end = 1; end <= slices; end++) {
        best[end] = slice_in(set, end - 1) ? SIZE_MAX / 2 : best[end - 1];
        for (uint32_t level = 0; level <= node_root(slices).level; level++) {
            uint32_t index = (end - 1) >> level, begin = index << level;
            uint64_t full_end = (uint64_t)(index + 1) << level;
            if (full_end != end && !(full_end > slices && end == slices)) continue;
            if (node_complete((struct node){level, index}, set, slices) && best[begin] + 1 < best[end]) best[end] = best[begin] + 1;
        }
    }
    return best[slices];
}

static void check_cover(const struct slice_set *set, uint32_t slices) {
    struct node nodes[64];
    size_t count = nodes_cover(nodes, set, slices);
    assert_true(count <= slice_count(set));
    assert_int_equal(count, fewest_nodes(set, slices));
    struct slice_set covered = {0};
    uint32_t after = 0;
    for (size_t i = 0; i < count; i++) {
        assert_true(node_exists(nodes[i], slices));
        assert_true(nodes[i].index << nodes[i].level >= after || i == 0);  /* in slice order, nothing twice */
        struct slice_set one = slices_of(nodes[i], slices);
        for (uint32_t slice = 0; slice < slices; slice++) {
            if (!slice_in(&one, slice)) continue;
            assert_false(slice_in(&covered, slice));
            slice_add(&covered, slice);
            after = slice + 1;
        }
        /* Canonical: no node could be replaced by its parent. */
        assert_false(node_complete(node_parent(nodes[i]), set, slices));
    }
    assert_true(same_set(&covered, set));
}

static void covers_are_exact_minimal_and_canonical(void **state) {
    (void)state;
    for (uint32_t slices = 1; slices <= 11; slices++) {
        for (uint32_t bits = 0; bits < UINT32_C(1) << slices; bits++) {
            struct slice_set set = {.bits = {bits}};
            check_cover(&set, slices);
        }
    }
    struct random random = random_open("cover");
    for (int round = 0; round < 3000; round++) {
        uint32_t slices = (uint32_t)random_in(&random, 1, 40);
        struct slice_set set = random_set(&random, slices, (unsigned)random_in(&random, 0, 100));
        check_cover(&set, slices);
    }
}

static void whole_and_empty_sets_have_short_covers(void **state) {
    (void)state;
    struct node nodes[SLICES_MAX];
    struct slice_set set = {0};
    assert_int_equal(nodes_cover(nodes, &set, 5), 0);
    for (uint32_t slice = 0; slice < SLICES_MAX; slice++) slice_add(&set, slice);
    assert_int_equal(nodes_cover(nodes, &set, SLICES_MAX), 1);
    assert_true(node_same(nodes[0], node_root(SLICES_MAX)));
    for (uint32_t slice = 0; slice < SLICES_MAX; slice += 2) slice_remove(&set, slice);
    assert_int_equal(nodes_cover(nodes, &set, SLICES_MAX), SLICES_MAX / 2);
}

/* Each slice has exactly one owner, who keeps what it holds (of two holders, the first). Returns the most new work of anyone. */
static size_t check_assigned(const struct slice_set *assigned, const struct slice_set *held, size_t members, uint32_t slices) {
    size_t most = 0;
    for (uint32_t slice = 0; slice < SLICES_MAX; slice++) {
        size_t owners = 0, owner = 0, holder = SIZE_MAX;
        for (size_t m = members; m-- > 0;) {
            if (slice_in(&assigned[m], slice)) owners++, owner = m;
            if (slice_in(&held[m], slice)) holder = m;
        }
        assert_int_equal(owners, slice < slices ? 1 : 0);
        if (slice < slices && holder != SIZE_MAX) assert_int_equal(owner, holder);
    }
    for (size_t m = 0; m < members; m++) {
        size_t new_work = 0;
        for (uint32_t slice = 0; slice < slices; slice++) {
            bool known = false;
            for (size_t k = 0; k < members; k++) known |= slice_in(&held[k], slice);
            if (slice_in(&assigned[m], slice) && !known) new_work++;
        }
        if (new_work > most) most = new_work;
    }
    return most;
}

static void healthy_members_get_whole_aligned_blocks(void **state) {
    (void)state;
    struct slice_set assigned[8], held[8] = {0}, expected;
    slices_assign(assigned, held, 2, 4);
    expected = SET(0, 1);
    assert_true(same_set(&assigned[0], &expected));
    expected = SET(2, 3);
    assert_true(same_set(&assigned[1], &expected));

    slices_assign(assigned, held, 1, 7);
    struct node nodes[8];
    assert_int_equal(nodes_cover(nodes, &assigned[0], 7), 1);

    slices_assign(assigned, held, 3, 8);
    assert_int_equal(check_assigned(assigned, held, 3, 8), 3);
    for (int m = 0; m < 3; m++) assert_true(nodes_cover(nodes, &assigned[m], 8) <= 2);

    slices_assign(assigned, held, 8, 3);
    for (int m = 0; m < 8; m++) assert_int_equal(slice_count(&assigned[m]), m < 3);
}

static void survivors_keep_their_slices_and_share_the_lost_ones(void **state) {
    (void)state;
    /* Of members {0,1} {2,3} {4,5} {6,7}, the second died; the others had finished. */
    struct slice_set held[3] = {SET(0, 1), SET(4, 5), SET(6, 7)}, assigned[3], expected[3] = {SET(0, 1, 2), SET(3, 4, 5), SET(6, 7)};
    slices_assign(assigned, held, 3, 8);
    for (int m = 0; m < 3; m++) assert_true(same_set(&assigned[m], &expected[m]));
    /* Somebody came back with slices that another has: nothing is counted twice. */
    struct slice_set twice[2] = {SET(0, 1, 2), SET(2, 3)}, expected_twice[2] = {SET(0, 1, 2), SET(3)};
    slices_assign(assigned, twice, 2, 4);
    for (int m = 0; m < 2; m++) assert_true(same_set(&assigned[m], &expected_twice[m]));
}

static void every_assignment_is_fair_and_complete(void **state) {
    (void)state;
    struct random random = random_open("assign");
    static struct slice_set held[50], assigned[50];
    struct node nodes[SLICES_MAX];
    for (int round = 0; round < 300; round++) {
        uint32_t slices = (uint32_t)random_in(&random, 1, round % 20 == 1 ? 700 : 60); /* of so few nobody holds too many */
        size_t members = random_in(&random, 1, 50), left = slices;
        memset(held, 0, sizeof held);
        bool healthy = round % 2;
        for (uint32_t slice = 0; slice < slices && !healthy; slice++)
            if (random_in(&random, 0, 2)) slice_add(&held[random_in(&random, 0, members - 1)], slice), left--;
        slices_assign(assigned, held, members, slices);
        size_t busy = members < slices ? members : slices, quota = (left + busy - 1) / busy;
        assert_true(check_assigned(assigned, held, members, slices) <= quota);
        for (size_t m = 0; m < members && healthy; m++)  /* a share of q is about popcount(q) blocks, and a few of the rest */
            assert_true(nodes_cover(nodes, &assigned[m], slices) <= 2 * (size_t)ceil(log2((double)quota + 1)));
    }
}

static double recursive_sum(const double *values, uint32_t slices, struct node node) {
    if (node.level == 0) return values[node.index];
    struct node left = {node.level - 1, node.index * 2};
    double sum = recursive_sum(values, slices, left);
    return node_exists(node_sibling(left), slices) ? sum + recursive_sum(values, slices, node_sibling(left)) : sum;
}

static void tree_sum_is_the_recursive_definition(void **state) {
    (void)state;
    struct random random = random_open("tree");
    static double values[SLICES_MAX];
    for (uint32_t i = 0; i < SLICES_MAX; i++) values[i] = ldexp((double)(int64_t)random_next(&random), -(int)random_in(&random, 20, 90));
    for (uint32_t slices = 1; slices <= SLICES_MAX; slices += slices < 300 ? 1 : 251) {
        double sum = tree_sum(values, slices), expected = recursive_sum(values, slices, node_root(slices));
        assert_memory_equal(&sum, &expected, sizeof sum);
    }
    double naive = 0;
    int differ = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        naive += values[i];
        differ += naive != tree_sum(values, i + 1);
    }
    assert_true(differ > 0);  /* the order does matter here, or this test shows nothing */
    assert_true(tree_sum(values, 0) == 0.0);
}

enum { WIDTH = 17 };
struct vector {
    float at[WIDTH];
};

/* What a member sends for one node: its slices summed along the tree. */
static struct vector node_sum(const struct vector *slice, uint32_t slices, struct node node) {
    if (node.level == 0) return slice[node.index];
    struct node left = {node.level - 1, node.index * 2};
    struct vector sum = node_sum(slice, slices, left);
    if (!node_exists(node_sibling(left), slices)) return sum;
    struct vector right = node_sum(slice, slices, node_sibling(left));
    for (int i = 0; i < WIDTH; i++) sum.at[i] += right.at[i];
    return sum;
}

/* What an owner makes of everybody's nodes: join along the tree, wherever the pieces lie. */
static struct vector join(const struct node *nodes, const struct vector *sums, size_t count, uint32_t slices, struct node node) {
    for (size_t i = 0; i < count; i++)
        if (node_same(nodes[i], node)) return sums[i];
    assert_true(node.level > 0);  /* else a slice is missing */
    struct node left = {node.level - 1, node.index * 2};
    struct vector sum = join(nodes, sums, count, slices, left);
    if (!node_exists(node_sibling(left), slices)) return sum;
    struct vector right = join(nodes, sums, count, slices, node_sibling(left));
    for (int i = 0; i < WIDTH; i++) sum.at[i] += right.at[i];
    return sum;
}

static void any_division_among_members_gives_the_same_bits(void **state) {
    (void)state;
    struct random random = random_open("division");
    static struct vector slice[64], sums[64];
    static struct slice_set held[12], assigned[12];
    for (int round = 0; round < 2000; round++) {
        uint32_t slices = (uint32_t)random_in(&random, 1, 64);
        for (uint32_t s = 0; s < slices; s++)
            for (int i = 0; i < WIDTH; i++)
                slice[s].at[i] = (float)ldexp((double)(int32_t)random_next(&random), -(int)random_in(&random, 10, 60));
        struct vector expected = node_sum(slice, slices, node_root(slices));
        size_t members = random_in(&random, 1, 12);
        memset(held, 0, sizeof held);
        slices_assign(assigned, held, members, slices);
        for (uint64_t deaths = random_in(&random, 0, 3); deaths > 0 && members > 1; deaths--) {
            assigned[random_in(&random, 0, members - 1)] = assigned[members - 1];
            members--;
            for (size_t m = 0; m < members; m++) {  /* some had not finished */
                struct slice_set done = random_set(&random, slices, 70);
                for (size_t i = 0; i < SLICES_MAX / 64; i++) held[m].bits[i] = assigned[m].bits[i] & done.bits[i];
            }
            if (random_in(&random, 0, 1)) held[members++] = (struct slice_set){0};  /* and one joins */
            slices_assign(assigned, held, members, slices);
        }
        struct node nodes[64];
        size_t count = 0;
        for (size_t m = 0; m < members; m++) {
            size_t own = nodes_cover(nodes + count, &assigned[m], slices);
            for (size_t i = count; i < count + own; i++) sums[i] = node_sum(slice, slices, nodes[i]);
            count += own;
        }
        struct vector got = join(nodes, sums, count, slices, node_root(slices));
        assert_memory_equal(&got, &expected, sizeof got);
    }
}

/* Holds sums as a member does: each one alone, joined with its sibling as long as there is one. */
static size_t most_held(const struct slice_set *set, uint32_t slices) {
    struct node held[SLICES_MAX];
    size_t count = 0, most = 0;
    for (uint32_t slice = 0; slice < slices; slice++) {
        if (!slice_in(set, slice)) continue;
        held[count++] = (struct node){0, slice};
        if (count > most) most = count;
        for (size_t i = 0; i < count;) {
            struct node sibling = node_sibling(held[i]);
            size_t other = count;
            for (size_t k = 0; k < count; k++)
                if (node_same(held[k], sibling)) other = k;
            bool alone = !node_exists(sibling, slices) && !node_same(held[i], node_root(slices));
            if (other == count && !alone) {
                i++;
                continue;
            }
            held[i] = node_parent(held[i]);
            if (!alone) held[other] = held[--count];
            i = 0;
        }
    }
    return most;
}

static void sums_held_at_once_are_those_of_a_member_that_joins_siblings(void **state) {
    (void)state;
    struct random random = random_open("held");
    for (uint32_t slices = 1; slices <= 40; slices++) {
        struct slice_set all = random_set(&random, slices, 100), some = random_set(&random, slices, (unsigned)random_in(&random, 1, 99));
        assert_int_equal(nodes_held_max(&all, slices), most_held(&all, slices));
        assert_int_equal(nodes_held_max(&some, slices), most_held(&some, slices));
    }
    struct slice_set all = random_set(&random, 64, 100), none = {{0}}, odd = {{0}};
    assert_int_equal(nodes_held_max(&all, 64), 7); /* log2, and the one being computed */
    assert_int_equal(nodes_held_max(&none, 64), 0);
    for (uint32_t slice = 1; slice < 64; slice += 2) slice_add(&odd, slice);
    assert_int_equal(nodes_held_max(&odd, 64), 32); /* scattered: each one alone */
}

/* ---- members that come and go ---- */

/* A member of one step as workers/partials.c has it: it computes in order, joins siblings, and makes room where it has to. */
struct computing {
    struct slice_set mine, held;
    struct node node[NODES_MAX];
    size_t nodes, most, computed, again;
    uint32_t next;
};

static void hold(struct computing *c, struct node node, uint32_t slices, bool held) {
    uint32_t end = (node.index + 1) << node.level;
    for (uint32_t s = node_first_slice(node); s < end && s < slices; s++) (held ? slice_add : slice_remove)(&c->held, s);
}

static void drop(struct computing *c, size_t i) { c->node[i] = c->node[--c->nodes]; }

static void take_view(struct computing *c, const struct slice_set *mine, uint32_t slices) {
    c->mine = *mine;
    c->next = 0;
    for (size_t i = c->nodes; i-- > 0;)
        if (!node_complete(c->node[i], mine, slices)) drop(c, i);
    memset(&c->held, 0, sizeof c->held);
    for (size_t i = 0; i < c->nodes; i++) hold(c, c->node[i], slices, true);
}

static bool compute_next(struct computing *c, uint32_t slices) {
    uint32_t slice = c->next; /* what is before it is held, in this view */
    size_t which;
    while (slice < slices && (!slice_in(&c->mine, slice) || slice_in(&c->held, slice))) slice++;
    if (slice == slices) return false;
    if (c->nodes == NODES_MAX) {
        assert_true(node_to_give_up(&which, c->node, c->nodes, slice));
        assert_true(node_first_slice(c->node[which]) > slice);
        for (size_t i = 0; i < c->nodes; i++) /* of what may go it costs the least */
            assert_true(node_first_slice(c->node[i]) <= slice || c->node[i].level >= c->node[which].level);
        size_t before = slice_count(&c->held);
        hold(c, c->node[which], slices, false);
        drop(c, which);
        c->again += before - slice_count(&c->held);
    }
    c->node[c->nodes++] = (struct node){0, slice};
    c->next = slice + 1;
    c->computed++;
    slice_add(&c->held, slice);
    if (c->nodes > c->most) c->most = c->nodes;
    for (size_t i = c->nodes - 1; !node_same(c->node[i], node_root(slices));) {
        struct node sibling = node_sibling(c->node[i]);
        size_t other = 0;
        while (other < c->nodes && !node_same(c->node[other], sibling)) other++;
        if (node_exists(sibling, slices) && other == c->nodes) break;
        c->node[i] = node_parent(c->node[i]);
        if (!node_exists(sibling, slices)) continue;
        drop(c, other);
        if (i == c->nodes) i = other;
    }
    return true;
}

/* One step during which members die, come, and are slow and fast: it always comes to an end, and nobody ever holds too much. */
static void live_through_a_step(struct random *random, uint64_t *computed, uint64_t *again, size_t *most) {
    enum { PEOPLE = 8 };
    static struct computing person[PEOPLE];
    static struct slice_set assigned[PEOPLE], held[PEOPLE], told[PEOPLE]; /* told: what the coordinator knows of, of each */
    static const uint32_t usual[] = {8, 64, 512, 4096};
    uint32_t slices = random_in(random, 0, 1) ? usual[random_in(random, 0, 3)] : (uint32_t)random_in(random, 1, SLICES_MAX);
    bool there[PEOPLE] = {true};
    memset(person, 0, sizeof person);
    memset(told, 0, sizeof told);
    for (uint64_t view = 0, views = random_in(random, 1, 60); view <= views; view++) {
        size_t who = random_in(random, 0, PEOPLE - 1), members = 0, place[PEOPLE];
        there[who] = view == 0 || !there[who];
        if (there[who]) memset(&person[who], 0, sizeof person[who]);
        memset(&told[who], 0, sizeof told[who]);
        for (size_t i = 0; i < PEOPLE; i++) members += there[i];
        if (members == 0) there[who] = true;
        members = 0;
        for (size_t i = 0; i < PEOPLE; i++)
            if (there[i]) held[members] = told[i], place[members++] = i;
        slices_assign(assigned, held, members, slices);
        size_t all = 0;
        for (size_t k = 0; k < members; k++) {
            struct computing *c = &person[place[k]];
            all += slice_count(&assigned[k]);
            assert_true(nodes_held_max(&assigned[k], slices) <= NODES_MAX);
            for (size_t i = 0; i < SLICES_MAX / 64; i++) told[place[k]].bits[i] &= assigned[k].bits[i];
            take_view(c, &assigned[k], slices);
            uint64_t share = slice_count(&assigned[k]), some = view == views ? UINT64_MAX : random_in(random, 0, share / 2);
            for (; some > 0 && compute_next(c, slices); some--) told[place[k]] = c->held;
            struct node cover[SLICES_MAX];
            if (view < views) continue;
            assert_memory_equal(&c->held, &assigned[k], sizeof c->held);
            assert_int_equal(c->nodes, nodes_cover(cover, &assigned[k], slices));
        }
        assert_int_equal(all, slices);
    }
    for (size_t i = 0; i < PEOPLE; i++) {
        *computed += person[i].computed;
        *again += person[i].again;
        if (person[i].most > *most) *most = person[i].most;
    }
}

static void deaths_and_joins_never_scatter_more_than_a_member_may_hold(void **state) {
    (void)state;
    struct random random = random_open("scattered");
    uint64_t computed = 0, again = 0;
    size_t most = 0;
    for (int round = 0; round < 25; round++) live_through_a_step(&random, &computed, &again, &most);
    print_message("at most %zu partial sums at once; of %llu slices %llu were given up again\n", most, (unsigned long long)computed,
                  (unsigned long long)again);
    assert_true(most <= NODES_MAX);
}

/* Held in the most scattered way: every other slice, every third, and any. */
static void what_is_held_too_scattered_is_given_out_again_in_larger_pieces(void **state) {
    (void)state;
    struct random random = random_open("pieces");
    static struct slice_set held[8], assigned[8];
    for (int round = 0; round < 60; round++) {
        uint32_t slices = (uint32_t)random_in(&random, 1, SLICES_MAX);
        size_t members = random_in(&random, 1, 8), all = 0;
        uint64_t pattern = random_in(&random, 0, 3);
        memset(held, 0, sizeof held);
        for (uint32_t s = 0; s < slices; s++) {
            size_t who = pattern == 3 ? random_in(&random, 0, members - 1) : s % (2 + pattern) % members;
            if (pattern == 3 ? random_in(&random, 0, 1) : s % (2 + pattern) < members) slice_add(&held[who], s);
        }
        slices_assign(assigned, held, members, slices);
        for (size_t i = 0; i < members; i++) {
            all += slice_count(&assigned[i]);
            assert_true(nodes_held_max(&assigned[i], slices) <= NODES_MAX);
        }
        assert_int_equal(all, slices);
    }
    /* what fits is kept: large pieces, though there are small ones beside them */
    memset(held, 0, sizeof held);
    for (uint32_t s = 0; s < 1024; s++) slice_add(&held[0], s);
    for (uint32_t s = 1024; s < 2048; s += 2) slice_add(&held[1], s);
    slices_assign(assigned, held, 2, 2048);
    for (uint32_t s = 0; s < 1024; s++) assert_true(slice_in(&assigned[0], s));
}

static void healthy_members_of_any_number_stay_far_below(void **state) {
    (void)state;
    struct random random = random_open("healthy");
    static struct slice_set none[1024], assigned[1024];
    slices_assign(assigned, none, 2, 3074); /* the worst of all, by trying each */
    assert_int_equal(nodes_held_max(&assigned[0], 3074), 20);
    for (int round = 0; round < 300; round++) {
        uint32_t slices = (uint32_t)random_in(&random, 1, SLICES_MAX);
        size_t members = random_in(&random, 1, round % 10 ? 16 : 1024);
        slices_assign(assigned, none, members, slices);
        for (size_t i = 0; i < members; i++) assert_true(nodes_held_max(&assigned[i], slices) <= 20);
    }
}

static void segments_divide_the_vector(void **state) {
    (void)state;
    const size_t whole = SEGMENT_ELEMENTS;
    assert_int_equal(segment_count(0), 0);
    assert_int_equal(segment_count(1), 1);
    assert_int_equal(segment_count(whole), 1);
    assert_int_equal(segment_count(whole + 1), 2);
    assert_int_equal(segment_size(whole + 1, 0), whole);
    assert_int_equal(segment_size(whole + 1, 1), 1);
    assert_int_equal(segment_size(2 * whole, 1), whole);
    size_t elements = 124439808, sum = 0;
    for (size_t i = 0; i < segment_count(elements); i++) sum += segment_size(elements, i);
    assert_int_equal(sum, elements);
}

static void a_number_of_members_that_divides_the_slices_keeps_all_busy(void **state) {
    (void)state;
    for (uint32_t slices = 1; slices <= 64; slices++)
        for (size_t members = 1; members <= 70; members++) {
            size_t busy = slices_busy(members, slices), most = members < slices ? members : slices;
            if (slices % members == 0 && busy != members) fail_msg("%u slices, %zu members: %zu busy", slices, members, busy);
            assert_true(busy >= 1 && busy <= most);
        }
    assert_int_equal(slices_busy(3, 4), 2);
    assert_int_equal(slices_busy(3, 8), 3);
    assert_int_equal(slices_busy(70, 64), 64);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_count_what_was_added),
        cmocka_unit_test(nodes_know_their_place),
        cmocka_unit_test(covers_are_exact_minimal_and_canonical),
        cmocka_unit_test(whole_and_empty_sets_have_short_covers),
        cmocka_unit_test(healthy_members_get_whole_aligned_blocks),
        cmocka_unit_test(survivors_keep_their_slices_and_share_the_lost_ones),
        cmocka_unit_test(every_assignment_is_fair_and_complete),
        cmocka_unit_test(a_number_of_members_that_divides_the_slices_keeps_all_busy),
        cmocka_unit_test(tree_sum_is_the_recursive_definition),
        cmocka_unit_test(any_division_among_members_gives_the_same_bits),
        cmocka_unit_test(sums_held_at_once_are_those_of_a_member_that_joins_siblings),
        cmocka_unit_test(deaths_and_joins_never_scatter_more_than_a_member_may_hold),
        cmocka_unit_test(what_is_held_too_scattered_is_given_out_again_in_larger_pieces),
        cmocka_unit_test(healthy_members_of_any_number_stay_far_below),
        cmocka_unit_test(segments_divide_the_vector),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
