/* Who waits for a frame of a shard under repair is answered when the shard is whole, and keeps its lease meanwhile, however long it takes.
 * The repair here is a stand-in, which ends when the test says so. Sources are read for any number of workers with one file open; of
 * checkpoints the state of the newest one is given. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/parts.h"
#include "coordinator/repair.h"
#include "coordinator/roster.h"
#include "coordinator/serve.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "dataset/shard/manifest.h"
#include "dataset/source/sources.h"
#include "model/checkpoint/checkpoint.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/state.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "tests/unit/no_memory.h"
#include "tests/unit/stderr.h"
#include "tests/unit/world.h"

enum { LEASE_MS = 10000, ASKS = 0, STANDS, WORKERS };

static size_t repairs;
static bool under_repair;

int repair_shard(struct context *c, size_t number) {
    (void)c;
    assert_int_equal(number, 0);
    repairs += !under_repair;
    under_repair = true;
    return 0;
}
bool repair_goes_on(const struct context *c) { return (void)c, under_repair; }
void repair_not_needed(struct context *c, size_t number) { (void)c, (void)number; }
void repair_open(struct context *c) { (void)c; }
void repair_close(struct context *c) { (void)c; }

static char folder[64];
static struct context *c;
static struct link *worker[WORKERS];
static uint64_t coordinator_at[WORKERS];

static void say(uint32_t who, uint32_t kind, uint64_t job, const ProtobufCMessage *body) {
    struct frame frame;
    assert_int_equal(frame_pack(&frame, &(struct envelope){.kind = kind, .job = job}, body, NULL, 0, FRAME_NONE), 0);
    assert_int_equal(link_send(worker[who], coordinator_at[who], &frame), 0);
}

/* Takes the next message for the coordinator. */
static uint64_t take(struct message *message) {
    uint64_t peer = 0;
    assert_int_equal(link_receive(c->link, &peer, message, 1000), 1);
    return peer;
}

/* Two workers at work, and a dataset whose only shard is gone. */
static int begin(void **state) {
    (void)state;
    static struct config config = {.cluster.lease_seconds = LEASE_MS / 1000.0};
    snprintf(folder, sizeof folder, "/tmp/millrace-serve-XXXXXX");
    c = mem_alloc(sizeof *c);
    c->config = &config;
    parts_open(c);
    if (!mkdtemp(folder) || store_open(&c->store, folder) < 0) return -1;
    world_begin(random_open("serve"));
    if (link_open(&c->link, &(struct link_options){.bind = "tcp://127.0.0.1:*", .frame_max = 1 << 20}) < 0) return -1;
    c->dataset_folder = mem_text(folder);
    c->dataset->has_manifest = true;
    c->dataset->manifest.shards = c->dataset->manifest.train_shards = 1;
    c->dataset->manifest.shard = mem_alloc(sizeof *c->dataset->manifest.shard);
    shard_name(c->dataset->manifest.shard[0].name, false, 0);
    c->workers = WORKERS;
    int64_t now = clock_ms();
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct message message;
        if (link_open(&worker[i], &(struct link_options){.bind = "tcp://127.0.0.1:*", .frame_max = 1 << 20}) < 0) return -1;
        if (link_connect(worker[i], &coordinator_at[i], link_endpoint(c->link)) < 0) return -1;
        say(i, MILLRACE__KIND__READY, 0, NULL);
        c->worker[i] = (struct worker_entry){.peer = take(&message), .state = WORKER_BUSY, .told_busy = true};
        c->worker[i].heard_ms = c->worker[i].moved_ms = now;
        message_free(&message);
    }
    repairs = 0;
    under_repair = false;
    return 0;
}

static int end(void **state) {
    (void)state;
    parts_close(c);
    for (uint32_t i = 0; i < WORKERS; i++) link_close(worker[i]);
    link_close(c->link);
    store_close(c->store);
    free(c->dataset_folder);
    free(c);
    return folder_remove(folder);
}

static void ask(uint64_t job) {
    Millrace__Read read = MILLRACE__READ__INIT;
    struct message message;
    read.what = MILLRACE__READ__WHAT__FRAME;
    read.split = "train";
    say(ASKS, MILLRACE__KIND__READ, job, &read.base);
    uint64_t peer = take(&message);
    serve_message(c, peer, &message);
    message_free(&message);
}

/* How many answers came to who asked. */
static size_t answers(void) {
    struct message message;
    uint64_t peer;
    size_t count = 0;
    while (link_receive(worker[ASKS], &peer, &message, 10) == 1) {
        count += message.envelope.kind == MILLRACE__KIND__DATA;
        message_free(&message);
    }
    return count;
}

/* A second of the loop, in which the heartbeats of both workers come. */
static void a_second(void) {
    clock_sleep_ms(1000);
    for (uint32_t i = 0; i < WORKERS; i++) c->worker[i].heard_ms = clock_ms();
    serve_tick(c, clock_ms());
    roster_tick(c, clock_ms());
}

static void who_waits_for_a_repair_keeps_its_lease_and_is_answered(void **state) {
    (void)state;
    ask(1);
    ask(1); /* as workers ask again after some seconds */
    assert_int_equal(repairs, 1);
    for (int seconds = 0; seconds < 5 * LEASE_MS / 1000; seconds++) a_second();
    assert_int_equal(c->worker[ASKS].state, WORKER_BUSY);
    assert_int_equal(c->worker[STANDS].state, WORKER_LOST); /* waits for nothing, and does nothing */
    assert_int_equal(repairs, 1);
    assert_int_equal(answers(), 0);
    under_repair = false; /* the shard is gone again already: so the next repair begins, with nobody asking */
    a_second();
    assert_int_equal(repairs, 2);
    assert_int_equal(answers(), 0);
    under_repair = c->dataset->has_manifest = false; /* that is an answer, too */
    a_second();
    assert_int_equal(answers(), 1);
    a_second();
    assert_int_equal(answers(), 0);
    assert_int_equal(repairs, 2);
}

/* Whoever asks again would get nothing either. */
/* Not as a fault of theirs, which would end one worker after the other. */
static void a_shard_that_cannot_be_read_is_under_repair_for_who_asks(void **state) {
    (void)state;
    struct rlimit files, none;
    char *shard = mem_format("%s/%s", folder, c->dataset->manifest.shard[0].name);
    assert_int_equal(file_publish(shard, "x", 1), 0);
    c->dataset->manifest.shard[0].file_bytes = 1;
    free(shard);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    none = (struct rlimit){0, files.rlim_max}; /* as good as a bad sector: an error that is not the shard's */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    ask(1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    assert_int_equal(repairs, 1);
    assert_int_equal(answers(), 0);
}

static void a_coordinator_without_memory_for_an_answer_fails_and_says_so(void **state) {
    (void)state;
    c->dataset->has_manifest = false;
    ask(1);
    assert_int_equal(answers(), 1);
    assert_false(c->ended);
    too_large = MILLRACE__KIND__DATA;
    ask(2);
    too_large = 0;
    assert_int_equal(answers(), 0);
    assert_true(c->ended);
    assert_int_equal(c->outcome, ERR_MEMORY);
    assert_non_null(strstr(c->reason, MEM_EXHAUSTED "5 bytes"));
}

static void who_left_is_not_answered(void **state) {
    (void)state;
    ask(1);
    roster_lost(c, ASKS, WORKER_LEFT, "said goodbye");
    under_repair = c->dataset->has_manifest = false;
    a_second();
    assert_int_equal(answers(), 0);
}

static void questions_are_bounded(void **state) {
    (void)state;
    for (uint64_t job = 1; job <= 2000; job++) ask(job);
    under_repair = c->dataset->has_manifest = false;
    a_second();
    size_t count = answers();
    assert_in_range(count, 1, 256);
}

static void who_does_not_read_its_answers_gets_none_and_the_log_says_so(void **state) {
    (void)state;
    char text[4096];
    world.full = true;
    struct stderr_kept kept = stderr_keep();
    ask(1);
    stderr_back(text, sizeof text, &kept);
    assert_int_equal(answers(), 0);
    assert_non_null(strstr(text, "read: no room for an answer to "));
    assert_non_null(strstr(text, ": it has not taken the ones before"));
    world.full = c->dataset->has_manifest = false;
    ask(1);
    assert_int_equal(answers(), 1);
}

static size_t open_files(void) {
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir)) count++;
    closedir(dir);
    return count;
}

/* Asks, and takes the answer. */
static void ask_for(struct message *out, uint64_t job, uint64_t step, const Millrace__Read *read) {
    struct message message;
    uint64_t peer;
    say(ASKS, MILLRACE__KIND__READ, job, &read->base);
    peer = take(&message);
    message.envelope.step = step;
    serve_message(c, peer, &message);
    message_free(&message);
    assert_int_equal(link_receive(worker[ASKS], &peer, out, 1000), 1);
    assert_int_equal(out->envelope.job, job);
}

static void ask_source(uint64_t job, uint64_t source, const char *wanted) {
    Millrace__Read read = MILLRACE__READ__INIT;
    struct message message;
    read.what = MILLRACE__READ__WHAT__SOURCE;
    read.a = source;
    read.size = 100;
    ask_for(&message, job, 0, &read);
    assert_int_equal(message.chunk_bytes, strlen(wanted));
    assert_memory_equal(message.chunk, wanted, message.chunk_bytes);
    message_free(&message);
}

static void sources_that_are_read_in_turn_are_open_one_at_a_time(void **state) {
    (void)state;
    static const char *const text[] = {"the first text", "another one"};
    struct source source[2] = {{0}};
    struct sources sources = {.source = source, .count = 2};
    for (size_t i = 0; i < 2; i++) {
        struct stat st;
        source[i].path = mem_format("%s/%zu.txt", folder, i);
        assert_int_equal(file_publish(source[i].path, text[i], strlen(text[i])), 0);
        assert_int_equal(stat(source[i].path, &st), 0);
        source[i].identity = identity_of(&st);
    }
    c->sources = &sources;
    size_t before = open_files();
    for (uint64_t job = 1; job <= 20; job++) ask_source(job, job / 2 % 2, text[job / 2 % 2]);
    assert_in_range(open_files(), before, before + 1);
    c->stage = STAGE_TRAIN; /* whoever asks now slept until the text was read, and was changed */
    for (size_t i = 0; i < 2; i++) assert_int_equal(unlink(source[i].path), 0);
    for (uint64_t job = 21; job <= 22; job++) ask_source(job, job % 2, "");
    assert_false(c->ended);
    c->sources = NULL;
    for (size_t i = 0; i < 2; i++) free(source[i].path);
}

/* Becomes the newest one; all its weights are that number. */
static void make_checkpoint(uint64_t step) {
    struct checkpoint_draft *draft;
    struct checkpoint_facts facts = {.step = step};
    size_t elements = gpt2_parameters(&c->model);
    float *weights = mem_alloc(elements * sizeof *weights);
    for (size_t i = 0; i < elements; i++) weights[i] = (float)step;
    free(c->newest_path);
    c->newest_path = mem_format("%s/checkpoint-%d", folder, (int)step);
    assert_int_equal(checkpoint_begin(&draft, c->newest_path, &c->model, &c->parts, NULL, 0), 0);
    assert_int_equal(checkpoint_put(draft, STATE_WEIGHTS, weights, 0, elements), 0);
    assert_int_equal(checkpoint_seal(draft, &facts, NULL), 0);
    assert_int_equal(checkpoint_publish(draft), 0);
    c->trainer->checkpoint = step;
    free(weights);
}

/* The weight that a joiner gets which was told to take the state of that step; 0: that it is gone. */
static float ask_state(uint64_t step) {
    static uint64_t job;
    Millrace__Read read = MILLRACE__READ__INIT;
    struct message message;
    float weight = 0;
    read.what = MILLRACE__READ__WHAT__STATE;
    read.a = STATE_WEIGHTS;
    ask_for(&message, ++job, step, &read);
    const Millrace__Data *data = (const Millrace__Data *)message.body;
    if (data->status == MILLRACE__DATA__STATUS__OK) memcpy(&weight, message.chunk, sizeof weight);
    else assert_int_equal(data->status, MILLRACE__DATA__STATUS__STALE);
    message_free(&message);
    return weight;
}

/* All members may be lost more than once in a coordinator's life. */
static void joiners_get_the_newest_checkpoint_and_no_other(void **state) {
    (void)state;
    c->model = (struct gpt2_config){.vocab_size = 16, .n_positions = 8, .n_embd = 8, .n_layer = 1, .n_head = 1, .n_inner = 32,
                                    .layer_norm_epsilon = 1e-5f, .initializer_range = 0.02f, .scale_attn_weights = true};
    c->parts = (struct state_parts){.count = 1, .part = {STATE_WEIGHTS}};
    c->trainer = mem_alloc(sizeof *c->trainer);
    assert_true(ask_state(0) == 0); /* there is none yet */
    for (uint64_t step = 3; step <= 9; step += 3) {
        make_checkpoint(step);
        serve_tick(c, clock_ms());
        assert_true(ask_state(step) == (float)step);
        assert_true(ask_state(step - 3) == 0);
        assert_true(ask_state(step) == (float)step);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_waits_for_a_repair_keeps_its_lease_and_is_answered, begin, end),
        cmocka_unit_test_setup_teardown(a_shard_that_cannot_be_read_is_under_repair_for_who_asks, begin, end),
        cmocka_unit_test_setup_teardown(who_left_is_not_answered, begin, end),
        cmocka_unit_test_setup_teardown(a_coordinator_without_memory_for_an_answer_fails_and_says_so, begin, end),
        cmocka_unit_test_setup_teardown(questions_are_bounded, begin, end),
        cmocka_unit_test_setup_teardown(who_does_not_read_its_answers_gets_none_and_the_log_says_so, begin, end),
        cmocka_unit_test_setup_teardown(sources_that_are_read_in_turn_are_open_one_at_a_time, begin, end),
        cmocka_unit_test_setup_teardown(joiners_get_the_newest_checkpoint_and_no_other, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
