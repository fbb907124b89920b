/* The exchange of the product among members in one process, over links that delay, lose, repeat and reorder: it always ends, and every
 * member then has every segment's sum along the slice tree. Hashes stand for vectors: mixing them in another order or grouping gives
 * another number. */
#include "workers/exchange.h"

#include <stdio.h>

#include "tests/unit/world.h"
#include "workers/offer.h"
#include "workers/parked.h"

enum {
    PEOPLE = 8,
    SLICES = 16,
    MANY_SLICES = 1200, /* of members that came and went */
    SEGMENTS = 20,
    BEGIN_MS = 30, /* slices take that long at most */
    PATIENCE_MS = 3600 * 1000,
    CLEAN_MS = 5000,
    ENDPOINT_BYTES = 32,
};

static const struct exchange_limits narrow[] = {
    {SLOTS_MAX, READS_AT_PEER_MAX, EXCHANGE_READS_MAX}, {1, 1, 1}, {2, 1, 3}, {3, 4, 5}, {4, 2, 7}};
enum { NARROW = sizeof narrow / sizeof *narrow };

static uint64_t mix(uint64_t left, uint64_t right) {
    uint64_t x = left * 0x9e3779b97f4a7c15 + (right ^ right >> 29) * 0xbf58476d1ce4e5b9 + 1;
    return x ^ x >> 31;
}

/* What a node's partial sum of a segment is. */
static uint64_t node_value(struct node node, size_t segment, uint32_t slices) {
    if (node.level == 0) return mix(node.index + 1, segment);
    struct node left = {node.level - 1, node.index * 2}, right = {node.level - 1, node.index * 2 + 1};
    uint64_t value = node_value(left, segment, slices);
    return node_exists(right, slices) ? mix(value, node_value(right, segment, slices)) : value;
}

/* ---- what happens ---- */

struct view {
    size_t members;
    size_t person[PEOPLE];                     /* by member */
    struct slice_set sets[PEOPLE];             /* by member */
    int64_t told_ms[PEOPLE], begin_ms[PEOPLE]; /* by person: when it hears of it, when its slices are done */
};

struct person {
    bool dead;
    struct link *link;
    struct exchange exchange;
    struct reads reads;
    struct offer offer;
    bool sum_shown[SEGMENTS];
    uint64_t sum[SEGMENTS], theirs[SLOTS_MAX][MANY_SLICES];
    size_t views; /* taken so far */
    bool begun;
    struct parking parking;
    size_t reads_sent, asked_again;
};

struct scenario {
    uint32_t slices;
    size_t segments, people, views;
    struct view view[4];
    struct exchange_limits limits;
    unsigned bad_permille; /* answers that are no good */
    char text[400];        /* what it is, for a failure */
};
static struct scenario now;
static struct person people[PEOPLE];

#define HOLDS(condition) \
    do { \
        if (!(condition)) fail_msg("%s: %s", now.text, #condition); \
    } while (0)

/* ---- a member ---- */

static const char *endpoint_of(char out[ENDPOINT_BYTES], size_t person) {
    snprintf(out, ENDPOINT_BYTES, "world:%zu", person);
    return out;
}

static const struct view *view_of(const struct person *p) { return &now.view[p->views - 1]; }

static void send(struct person *p, uint64_t peer, const struct envelope *envelope, const ProtobufCMessage *body, const void *chunk,
                 size_t bytes) {
    struct frame frame;
    HOLDS(frame_pack(&frame, envelope, body, chunk, bytes, FRAME_NONE) == 0);
    link_send(p->link, peer, &frame);
}

static void spoil(Millrace__Data *data, size_t *bytes) {
    switch (random_in(&world.random, 0, 4)) {
    case 0: *bytes = 7; break;
    case 1: *bytes = 0; break;
    case 2: data->status = MILLRACE__DATA__STATUS__FAULT, *bytes = 0; break;
    case 3: data->status = MILLRACE__DATA__STATUS__STALE, *bytes = 0; break;
    case 4: data->status = (Millrace__Data__Status)2; break; /* that there is not */
    }
}

static bool answer(struct person *p, const struct parked *question) {
    size_t which, bytes = sizeof(uint64_t);
    uint64_t value = 0;
    Millrace__Data data = MILLRACE__DATA__INIT;
    enum offered offered = offer_find(&p->offer, &which, &question->envelope, &question->read);
    if (offered == OFFER_LATER) return false;
    HOLDS(offered != OFFER_NEVER);
    if (offered == OFFER_NO_MORE) data.status = MILLRACE__DATA__STATUS__STALE, bytes = 0;
    else if (question->read.what == MILLRACE__READ__WHAT__SUM) value = p->sum[question->read.c];
    else value = node_value(p->offer.node[which], question->read.c, now.slices);
    if (world_dice(now.bad_permille)) spoil(&data, &bytes);
    struct envelope envelope = question->envelope;
    envelope.kind = MILLRACE__KIND__DATA;
    if (world_dice(now.bad_permille)) envelope.job += random_in(&world.random, 1, 50); /* nobody asked that, or somebody something else */
    if (envelope.job != question->envelope.job) bytes = 3;
    send(p, question->peer, &envelope, &data.base, &value, bytes);
    return true;
}

static void answer_parked(struct person *p) {
    for (size_t i = p->parking.count; i-- > 0;)
        if (answer(p, &p->parking.parked[i])) parking_drop(&p->parking, i);
}

static void show_sum(struct person *p, size_t segment, uint64_t value) {
    HOLDS(!p->sum_shown[segment]);
    p->sum[segment] = value;
    p->sum_shown[segment] = true;
    answer_parked(p);
}

static uint64_t operand(const struct person *p, const uint64_t *scratch, uint64_t sum, size_t slot, struct operand from) {
    const struct exchange_partial *partial = &p->exchange.partial[from.index];
    if (from.of == OPERAND_SUM) return sum;
    if (from.of == OPERAND_SCRATCH) return scratch[from.index];
    bool ours = partial->member == p->exchange.self;
    return ours ? node_value(partial->node, p->exchange.slot[slot].segment, now.slices) : p->theirs[slot][from.index];
}

/* No more questions of one kind are open at one member than the limit says. */
static void check_open(const struct exchange *e, const struct reads *reads) {
    for (size_t i = 0; i < reads->count; i++) {
        size_t there = 0;
        for (size_t k = 0; k < reads->count; k++)
            there += reads->read[k].peer == reads->read[i].peer && reads->read[k].body.what == reads->read[i].body.what;
        assert_true(there <= e->limits.reads_at_peer);
    }
}

static void pump(struct person *p) {
    struct exchange *e = &p->exchange;
    exchange_ask(e, &p->reads);
    check_open(e, &p->reads);
    for (size_t slot; exchange_full(e, &slot); exchange_ask(e, &p->reads)) {
        uint64_t scratch[SCRATCH_MAX], sum = 0;
        for (size_t i = 0; i < e->additions; i++) {
            struct addition a = e->addition[i];
            uint64_t value = mix(operand(p, scratch, sum, slot, a.left), operand(p, scratch, sum, slot, a.right));
            if (a.out.of == OPERAND_SUM) sum = value;
            else scratch[a.out.index] = value;
        }
        show_sum(p, e->slot[slot].segment, operand(p, scratch, sum, slot, e->sum));
        exchange_summed(e, slot);
    }
}

static void take_data(struct person *p, const struct message *message) {
    struct read read;
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    if (!reads_take(&p->reads, &read, message->envelope.job)) return;
    size_t slot, partial;
    bool good = data->status == MILLRACE__DATA__STATUS__OK && message->chunk_bytes == sizeof(uint64_t);
    switch (exchange_take(&p->exchange, &p->reads, &slot, &partial, &read, good, clock_ms())) {
    case TAKEN_PARTIAL: memcpy(&p->theirs[slot][partial], message->chunk, sizeof(uint64_t)); break;
    case TAKEN_SUM:
        HOLDS(!p->sum_shown[read.body.c]);
        memcpy(&p->sum[read.body.c], message->chunk, sizeof(uint64_t));
        p->sum_shown[read.body.c] = true;
        break;
    case TAKEN_AGAIN: p->asked_again++; break;
    case TAKEN_NOT: break;
    }
    pump(p);
}

static void take_read(struct person *p, uint64_t peer, const struct message *message) {
    struct parked question = {peer, message->envelope, *(const Millrace__Read *)message->body, clock_ms()};
    if (answer(p, &question) || world_dice(world.lose_permille)) return; /* who parks may also forget */
    parking_add(&p->parking, &question);
}

static void take_view(struct person *p, size_t self) {
    const struct view *view = view_of(p);
    uint64_t peers[PEOPLE];
    for (size_t i = 0; i < view->members; i++) { /* some of them may have died since */
        char endpoint[ENDPOINT_BYTES];
        HOLDS(link_connect(p->link, &peers[i], endpoint_of(endpoint, view->person[i])) == 0);
    }
    exchange_end(&p->exchange, &p->reads);
    HOLDS(p->reads.count == 0);
    HOLDS(exchange_view(&p->exchange, 5, p->views, view->members, self, view->sets, peers, now.slices, now.segments, &now.limits) == 0);
    offer_view(&p->offer, p->views);
    p->begun = false;
    answer_parked(p);
}

static void begin(struct person *p) {
    struct node node[MANY_SLICES];
    size_t nodes = 0;
    for (size_t i = 0; i < p->exchange.partials; i++)
        if (p->exchange.partial[i].member == p->exchange.self) node[nodes++] = p->exchange.partial[i].node;
    offer_partials(&p->offer, node, nodes);
    exchange_begin(&p->exchange);
    p->begun = true;
    answer_parked(p);
    pump(p);
}

static bool is_member(const struct view *view, const struct person *p, size_t *out_self) {
    for (*out_self = 0; *out_self < view->members; ++*out_self)
        if (&people[view->person[*out_self]] == p) return true;
    return false;
}

/* Everything that may happen at it now. */
static bool step(struct person *p) {
    size_t who = (size_t)(p - people), self;
    uint64_t peer;
    struct message message;
    bool some = false;
    if (p->dead) return false;
    while (p->views < now.views && now.view[p->views].told_ms[who] <= clock_ms()) {
        some = true;
        if (is_member(&now.view[p->views++], p, &self)) take_view(p, self);
        else {
            link_close(p->link); /* it died, and that is why there is a new view */
            p->link = NULL;
            p->dead = true;
            return true;
        }
    }
    if (p->views && !p->begun && view_of(p)->begin_ms[who] <= clock_ms()) {
        some = true;
        begin(p);
    }
    while (link_receive(p->link, &peer, &message, 0) == 1) {
        some = true;
        if (message.envelope.kind == MILLRACE__KIND__READ) take_read(p, peer, &message);
        else take_data(p, &message);
        message_free(&message);
    }
    for (struct read *read; (read = reads_due(&p->reads, clock_ms())); some = true, p->reads_sent++)
        send(p, read->peer, &read->envelope, &read->body.base, NULL, 0);
    return some;
}

static int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }

/* When something may happen next. */
static int64_t next_ms(void) {
    int64_t next = world_next_ms(NULL);
    for (size_t i = 0; i < now.people; i++) {
        const struct person *p = &people[i];
        if (p->dead) continue;
        if (p->views < now.views) next = earlier(next, now.view[p->views].told_ms[i]);
        if (p->views && !p->begun) next = earlier(next, view_of(p)->begin_ms[i]);
        for (size_t k = 0; k < p->reads.count; k++) next = earlier(next, reads_due_ms(&p->reads.read[k]));
    }
    return next;
}

static bool all_complete(void) {
    for (size_t i = 0; i < now.people; i++)
        if (!people[i].dead && (people[i].views < now.views || !exchange_complete(&people[i].exchange))) return false;
    return true;
}

/* In a clean world nothing may be asked twice, and it is over before anybody would. */
static void run_world(void) {
    bool clean = !world.lose_permille && !world.repeat_permille && !now.bad_permille && now.views == 1;
    for (size_t i = 0; i < now.people; i++) {
        struct person *p = &people[i];
        p->dead = p->begun = false;
        p->views = p->parking.count = p->reads_sent = p->asked_again = 0;
        p->reads.count = p->reads.newest = 0;
        p->exchange.running = false;
        p->offer = (struct offer){.segments = now.segments, .sum = p->sum_shown};
        char endpoint[ENDPOINT_BYTES];
        HOLDS(link_open(&p->link, &(struct link_options){.bind = endpoint_of(endpoint, i)}) == 0);
    }
    while (!all_complete()) {
        bool some = false;
        for (size_t i = 0; i < now.people; i++) some |= step(&people[i]);
        if (some) continue;
        HOLDS(next_ms() < WORLD_NEVER);
        world_wait(next_ms());
        HOLDS(next_ms() >= world.now_ms && world.now_ms < PATIENCE_MS); /* else it stands still */
        HOLDS(!clean || world.now_ms < CLEAN_MS);
    }
    for (size_t i = 0; i < now.people; i++) {
        struct person *p = &people[i];
        if (p->dead) continue;
        for (size_t g = 0; g < now.segments; g++) HOLDS(p->sum[g] == node_value(node_root(now.slices), g, now.slices));
        HOLDS(p->reads.count == 0);
        HOLDS(!clean || p->reads_sent == p->reads.newest);
        link_close(p->link);
    }
}

static void describe(void) {
    int n = snprintf(now.text, sizeof now.text, "MILLRACE_SEED=%llu, %zu members, %u slices, %zu segments, %zu views, last ",
                     (unsigned long long)world.random.seed, now.view[now.views - 1].members, now.slices, now.segments, now.views);
    for (size_t i = 0; i < now.view[now.views - 1].members; i++)
        n += snprintf(now.text + n, sizeof now.text - (size_t)n, "%llx ", (unsigned long long)now.view[now.views - 1].sets[i].bits[0]);
    snprintf(now.text + n, sizeof now.text - (size_t)n, "limits %zu %zu %zu", now.limits.slots, now.limits.reads_at_peer, now.limits.reads);
}

static void times(struct view *view, int64_t from_ms, int64_t to_ms) {
    for (size_t i = 0; i < now.people; i++) {
        view->told_ms[i] = (int64_t)random_in(&world.random, (uint64_t)from_ms, (uint64_t)to_ms);
        view->begin_ms[i] = view->told_ms[i] + (int64_t)random_in(&world.random, 0, BEGIN_MS);
    }
}

/* ---- every assignment ---- */

static void every_assignment_of_slices_to_up_to_four_members_ends_with_the_sum(void **state) {
    (void)state;
    struct random random = random_open("assignments");
    uint64_t cases = 0;
    for (size_t members = 1; members <= 4; members++)
        for (uint32_t slices = 1; slices <= 6; slices++) {
            size_t assignments = 1;
            for (uint32_t s = 0; s < slices; s++) assignments *= members;
            for (size_t a = 0; a < assignments; a++)
                for (size_t segments = 1; segments <= 6; segments++) {
                    world_begin((struct random){random.seed + cases, 0});
                    world.delay_max_ms = cases % 3 * 10;
                    now = (struct scenario){.slices = slices, .segments = segments, .people = members, .views = 1};
                    now.limits = narrow[cases++ % NARROW];
                    struct view *view = &now.view[0];
                    view->members = members;
                    for (size_t i = 0; i < members; i++) view->person[i] = i;
                    size_t left = a;
                    for (uint32_t s = 0; s < slices; s++, left /= members) slice_add(&view->sets[left % members], s);
                    times(view, WORLD_START_MS, WORLD_START_MS);
                    describe();
                    run_world();
                }
        }
    print_message("%llu cases\n", (unsigned long long)cases);
}

/* ---- at random ---- */

/* Some people, and slices scattered among them in any way. */
static void random_view(struct view *view, const bool *alive) {
    struct random *random = &world.random;
    view->members = 0;
    for (size_t i = 0; i < now.people; i++)
        if (alive[i]) view->person[view->members++] = i;
    for (size_t i = view->members; i-- > 1;) { /* in any order */
        size_t k = random_in(random, 0, i), kept = view->person[i];
        view->person[i] = view->person[k];
        view->person[k] = kept;
    }
    bool runs = random_in(random, 0, 1);
    size_t owner = 0;
    for (uint32_t s = 0; s < now.slices; s++) {
        if (!runs || random_in(random, 0, 2) == 0) owner = random_in(random, 0, view->members - 1);
        slice_add(&view->sets[owner], s);
    }
}

static void random_scenario(uint64_t seed, bool dirty) {
    world_begin((struct random){seed, 0});
    struct random *random = &world.random;
    now = (struct scenario){.slices = (uint32_t)random_in(random, 1, SLICES), .segments = random_in(random, 1, SEGMENTS)};
    now.people = random_in(random, 1, PEOPLE);
    now.views = random_in(random, 1, dirty ? 4 : 1);
    now.limits = narrow[random_in(random, 0, NARROW - 1)];
    world.delay_max_ms = (unsigned)random_in(random, 0, 50);
    if (dirty) {
        world.lose_permille = (unsigned)random_in(random, 0, 300);
        world.repeat_permille = (unsigned)random_in(random, 0, 300);
        now.bad_permille = (unsigned)random_in(random, 0, 200);
        if (random_in(random, 0, 3) == 0) world.delay_max_ms = 2 * READ_AGAIN_MS; /* answers come after they were asked for again */
    }
    bool alive[PEOPLE];
    int64_t from_ms = WORLD_START_MS;
    for (size_t i = 0; i < PEOPLE; i++) alive[i] = true;
    for (size_t v = 0; v < now.views; v++) {
        if (v && now.people > 1) { /* somebody dies, and is in no view any more */
            size_t living = 0;
            for (size_t i = 0; i < now.people; i++) living += alive[i];
            if (living > 1 && random_in(random, 0, 1)) alive[now.view[v - 1].person[random_in(random, 0, living - 1)]] = false;
        }
        random_view(&now.view[v], alive);
        int64_t to_ms = from_ms + (int64_t)random_in(random, 0, 200);
        times(&now.view[v], from_ms, to_ms);
        from_ms = to_ms;
    }
    describe();
    run_world();
}

static void random_assignments_end_with_the_sum_and_ask_once(void **state) {
    (void)state;
    struct random random = random_open("clean");
    for (uint64_t i = 0; i < 600; i++) random_scenario(random.seed + i, false);
}

static void loss_repetition_bad_answers_deaths_and_new_views_end_with_the_sum(void **state) {
    (void)state;
    struct random random = random_open("dirty");
    size_t again = 0, lost = 0;
    for (uint64_t i = 0; i < 600; i++) {
        random_scenario(random.seed + i, true);
        lost += world.lost;
        for (size_t k = 0; k < now.people; k++) again += people[k].asked_again;
    }
    print_message("%zu messages lost, %zu answers no good\n", lost, again);
    assert_true(lost > 0 && again > 0);
}

/* What the coordinator makes of many slices while members die and come, each having done any part of what it had: nobody shows more
 * partial sums than it may, which offer_partials() sees to. */
static void scattered_scenario(uint64_t seed, size_t *most_nodes) {
    world_begin((struct random){seed, 0});
    struct random *random = &world.random;
    static struct slice_set held[PEOPLE], assigned[PEOPLE];
    bool alive[PEOPLE] = {true};
    struct slice_set done[PEOPLE] = {0};
    now = (struct scenario){.slices = (uint32_t)random_in(random, MANY_SLICES / 2, MANY_SLICES), .segments = random_in(random, 1, 3)};
    now.people = PEOPLE;
    now.views = 1;
    now.limits = narrow[random_in(random, 0, NARROW - 1)];
    world.delay_max_ms = (unsigned)random_in(random, 0, 20);
    struct view *view = &now.view[0];
    for (uint64_t left = random_in(random, 2, 20); left > 0; left--) {
        size_t who = random_in(random, 0, PEOPLE - 1), place[PEOPLE], members = 0;
        alive[who] = !alive[who];
        done[who] = (struct slice_set){0};
        for (size_t i = 0; i < PEOPLE; i++)
            if (alive[i]) held[members] = done[i], place[members++] = i;
        if (members == 0) continue;
        slices_assign(assigned, held, members, now.slices);
        view->members = members;
        for (size_t k = 0; k < members; k++) {
            struct node cover[MANY_SLICES];
            size_t nodes = nodes_cover(cover, &assigned[k], now.slices);
            if (nodes > *most_nodes) *most_nodes = nodes;
            view->person[k] = place[k];
            view->sets[k] = assigned[k];
            for (uint32_t s = 0; s < now.slices; s++)
                if (slice_in(&assigned[k], s) && random_in(random, 0, 1)) slice_add(&done[place[k]], s);
        }
    }
    times(view, WORLD_START_MS, WORLD_START_MS + 50);
    describe();
    run_world();
}

static void what_many_deaths_and_joins_leave_ends_with_the_sum(void **state) {
    (void)state;
    struct random random = random_open("scattered");
    size_t most_nodes = 0;
    for (uint64_t i = 0; i < 40; i++) scattered_scenario(random.seed + i, &most_nodes);
    print_message("covers of up to %zu nodes\n", most_nodes);
    assert_true(most_nodes <= NODES_MAX);
}

/* ---- one answer at a time ---- */

static struct exchange one;
static struct reads one_reads;

/* Member 1 of 2, which owns the second of 2 segments and reads the first. */
static void open_one(void) {
    struct slice_set sets[2] = {{{1}}, {{2}}};
    uint64_t peers[2] = {7, 8};
    memset(&one_reads, 0, sizeof one_reads);
    assert_int_equal(exchange_view(&one, 3, 9, 2, 1, sets, peers, 2, 2, &exchange_limits), 0);
    exchange_begin(&one);
    exchange_ask(&one, &one_reads);
    assert_int_equal(one_reads.count, 2);
    for (int i = 0; i < 2; i++) assert_non_null(reads_due(&one_reads, WORLD_START_MS));
}

static void an_answer_that_is_no_good_is_asked_for_again_until_it_is(void **state) {
    (void)state;
    open_one();
    for (int round = 0; round < 2; round++) {
        struct read read = one_reads.read[0];
        size_t slot, partial;
        for (int64_t tries = 1, ms = WORLD_START_MS; tries < 5; tries++, ms += READ_AGAIN_MS) {
            assert_true(reads_take(&one_reads, &read, read.id));
            assert_int_equal(exchange_take(&one, &one_reads, &slot, &partial, &read, false, ms), TAKEN_AGAIN);
            exchange_ask(&one, &one_reads);
            struct read *due = reads_due(&one_reads, ms + READ_AGAIN_MS);
            while (due && due->id != read.id) due = reads_due(&one_reads, ms + READ_AGAIN_MS);
            assert_non_null(due);
        }
        assert_true(reads_take(&one_reads, &read, read.id));
        bool sum = read.body.what == MILLRACE__READ__WHAT__SUM;
        assert_int_equal(exchange_take(&one, &one_reads, &slot, &partial, &read, true, 0), sum ? TAKEN_SUM : TAKEN_PARTIAL);
        if (sum) continue;
        assert_true(exchange_full(&one, &slot));
        exchange_summed(&one, slot);
    }
    assert_true(exchange_complete(&one));
    assert_int_equal(one_reads.count, 0);
}

static void answers_of_another_view_are_not_taken(void **state) {
    (void)state;
    open_one();
    struct read read = one_reads.read[0];
    size_t slot, partial;
    read.envelope.attempt--;
    assert_int_equal(exchange_take(&one, &one_reads, &slot, &partial, &read, true, 0), TAKEN_NOT);
    exchange_end(&one, &one_reads);
    assert_int_equal(one_reads.count, 0);
    read.envelope.attempt++;
    assert_int_equal(exchange_take(&one, &one_reads, &slot, &partial, &read, true, 0), TAKEN_NOT);
}

static void a_view_in_which_a_slice_is_nobodys_is_refused(void **state) {
    (void)state;
    struct slice_set sets[2] = {{{1}}, {{4}}};
    uint64_t peers[2] = {7, 8};
    assert_int_equal(exchange_view(&one, 3, 9, 2, 1, sets, peers, 3, 2, &exchange_limits), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "slice 1 "));
    assert_false(one.running);
}

/* No coordinator should, but if one does it must not change the sum. */
static void a_slice_of_two_members_counts_once(void **state) {
    (void)state;
    struct slice_set sets[3] = {{{1}}, {{3}}, {{14}}}; /* 0; 0, 1; 1, 2, 3: the largest nodes come last */
    uint64_t peers[3] = {7, 8, 9};
    memset(&one_reads, 0, sizeof one_reads);
    assert_int_equal(exchange_view(&one, 3, 9, 3, 0, sets, peers, 4, 2, &exchange_limits), 0);
    assert_int_equal(one.partials, 4);
    assert_int_equal(one.additions, 1);
    const struct addition *whole = &one.addition[0];
    assert_true(whole->out.of == OPERAND_SUM && whole->left.of == OPERAND_PARTIAL && whole->right.of == OPERAND_PARTIAL);
    assert_true(one.partial[whole->left.index].member == 1 && one.partial[whole->right.index].member == 2);
}

static void room_for_other_questions_is_left(void **state) {
    (void)state;
    static struct slice_set sets[40];
    static uint64_t peers[40];
    for (uint32_t i = 0; i < 40; i++) slice_add(&sets[i], i), peers[i] = i + 1;
    memset(&one_reads, 0, sizeof one_reads);
    assert_int_equal(exchange_view(&one, 3, 9, 40, 1, sets, peers, 40, 400, &exchange_limits), 0);
    exchange_begin(&one);
    exchange_ask(&one, &one_reads);
    assert_int_equal(one_reads.count, EXCHANGE_READS_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_that_is_no_good_is_asked_for_again_until_it_is),
        cmocka_unit_test(answers_of_another_view_are_not_taken),
        cmocka_unit_test(a_view_in_which_a_slice_is_nobodys_is_refused),
        cmocka_unit_test(a_slice_of_two_members_counts_once),
        cmocka_unit_test(room_for_other_questions_is_left),
        cmocka_unit_test(random_assignments_end_with_the_sum_and_ask_once),
        cmocka_unit_test(loss_repetition_bad_answers_deaths_and_new_views_end_with_the_sum),
        cmocka_unit_test(what_many_deaths_and_joins_leave_ends_with_the_sum),
        cmocka_unit_test(every_assignment_of_slices_to_up_to_four_members_ends_with_the_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
