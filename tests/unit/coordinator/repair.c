/* A shard that is made again is the one that was there or none, and not again and again without end. What builds it is a stand-in. */
#include "coordinator/repair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/files.h"
#include "coordinator/parts.h"
#include "coordinator/store.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"
#include "proto/body.h"

enum { SHARDS = 2 };

static char folder[64];
static struct context *c;
static const char *built;
static int fails_first;
static atomic_int builds;
static bool builds_until_it_is_stopped;

int shard_build(Millrace__PackResult *result, const Millrace__PackJob *job, const struct token_run_reader *reader,
                int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg, int (*tick)(void *), void *tick_arg) {
    (void)result, (void)job, (void)reader;
    builds++;
    for (int i = 0; i < 400 && builds_until_it_is_stopped; i++) {
        if (tick && tick(tick_arg) != 0) return err_set(ERR_INTERRUPTED, "stopped");
        clock_sleep_ms(50);
    }
    if (fails_first-- > 0) return err_set(ERR_CORRUPT, "a run is not to be trusted");
    return write(write_arg, built, strlen(built));
}

static void wake(void *arg) { (void)arg; }

/* A dataset of shards that are all "the shard", and gone. */
static int begin(void **state) {
    (void)state;
    static struct config config;
    Millrace__PackJob job = MILLRACE__PACK_JOB__INIT;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    snprintf(folder, sizeof folder, "/tmp/millrace-repair-XXXXXX");
    c = mem_alloc(sizeof *c);
    c->config = &config;
    parts_open(c);
    if (!mkdtemp(folder) || store_open(&c->store, folder) < 0 || files_open(&c->files, wake, NULL) < 0) return -1;
    c->dataset_folder = mem_text(folder);
    c->dataset->has_manifest = true;
    c->dataset->manifest.shards = c->dataset->manifest.train_shards = SHARDS;
    c->dataset->manifest.shard = mem_alloc(SHARDS * sizeof *c->dataset->manifest.shard);
    lease.work_case = MILLRACE__LEASE__WORK_PACK, lease.pack = &job;
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct buf spec = {0};
        shard_name(c->dataset->manifest.shard[i].name, false, i);
        sha256_of(c->dataset->manifest.shard[i].file_digest, "the shard", 9);
        if (body_pack(&spec, &lease.base) < 0 || store_job_add(c->store, stage_name(STAGE_PACK), i, spec.data, spec.size) < 0) return -1;
        buf_free(&spec);
    }
    built = "the shard";
    fails_first = builds = 0;
    return 0;
}

static int end(void **state) {
    (void)state;
    files_close(c->files, c);
    parts_close(c);
    store_close(c->store);
    free(c->dataset_folder);
    free(c);
    return folder_remove(folder);
}

/* Somebody found it broken, and comes again when it was made. */
static int repair(size_t number) {
    err_set(ERR_CORRUPT, "a digest differs");
    int code = repair_shard(c, number);
    if (code == 0) assert_true(repair_goes_on(c));
    files_drain(c->files, c);
    assert_false(repair_goes_on(c));
    return code;
}

static bool there(size_t number) {
    struct buf bytes = {0};
    char *path = mem_format("%s/%s", folder, c->dataset->manifest.shard[number].name);
    bool found = file_exists(path) && file_read(&bytes, path, 100) == 0 && bytes.size == 9 && memcmp(bytes.data, "the shard", 9) == 0;
    free(path);
    buf_free(&bytes);
    return found;
}

static void what_is_made_again_is_what_was_there(void **state) {
    (void)state;
    assert_int_equal(repair(1), 0);
    assert_true(there(1) && !there(0));
    assert_int_equal(c->dataset->repairs, 1);
    assert_false(c->ended);
}

/* --restart would fail on it as well. */
static void a_folder_in_its_place_is_to_be_moved_away_and_that_is_all(void **state) {
    (void)state;
    char *path = mem_format("%s/%s", folder, c->dataset->manifest.shard[0].name);
    assert_int_equal(folder_make(path), 0);
    assert_int_equal(repair(0), 0);
    assert_true(c->ended && c->outcome == ERR_DENIED);
    assert_non_null(strstr(c->reason, "is in the way: it is a folder, and a run writes a file of that name; move it away"));
    assert_null(strstr(c->reason, "--restart"));
    free(path);
}

static void another_one_gets_no_name_and_ends_the_run(void **state) {
    (void)state;
    size_t drafts;
    built = "another one";
    assert_int_equal(repair(0), 0);
    assert_true(c->ended && c->outcome == ERR_CORRUPT);
    assert_non_null(strstr(c->reason, "a digest differs; making it again failed: "));
    assert_non_null(strstr(c->reason, "made again it is another one"));
    assert_non_null(strstr(c->reason, "--restart"));
    char *path = mem_format("%s/%s", folder, c->dataset->manifest.shard[0].name);
    assert_false(file_exists(path));
    free(path);
    assert_int_equal(drafts_sweep(&drafts, folder), 0);
    assert_int_equal(drafts, 0);
    assert_int_equal(c->dataset->repairs, 0);
}

static void runs_that_are_not_to_be_trusted_are_made_again_once(void **state) {
    (void)state;
    fails_first = 1;
    assert_int_equal(repair(0), 0);
    assert_true(there(0) && !c->ended);
    assert_int_equal(builds, 2);
    fails_first = 2;
    assert_int_equal(repair(1), 0);
    assert_true(c->ended && c->outcome == ERR_CORRUPT);
    assert_int_equal(builds, 4);
}

/* A disk that changes what lies on it would have it made again for ever. */
static void a_shard_is_made_again_three_times_in_a_row_at_most(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) assert_int_equal(repair(0), 0);
    repair_not_needed(c, 1); /* that is about another one */
    assert_int_equal(repair(0), 0);
    assert_int_equal(repair(0), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "a digest differs; it was made again 3 times; look at the disk"));
    assert_int_equal(builds, 3);
    assert_int_equal(repair(1), 0); /* another one in between */
    for (int i = 0; i < 3; i++) assert_int_equal(repair(0), 0);
    repair_not_needed(c, 0); /* it was read, whole */
    for (int i = 0; i < 3; i++) assert_int_equal(repair(0), 0);
    assert_int_equal(repair(0), ERR_CORRUPT);
}

/* A shard may take a minute, and the file at a URL three of waiting for its server. */
static void who_stops_does_not_wait_until_a_shard_is_made(void **state) {
    (void)state;
    builds_until_it_is_stopped = true;
    err_set(ERR_CORRUPT, "a digest differs");
    assert_int_equal(repair_shard(c, 0), 0);
    while (!builds) clock_sleep_ms(5);
    files_close(c->files, c);
    builds_until_it_is_stopped = false;
    c->files = NULL;
    assert_false(there(0));
    assert_int_equal(c->dataset->repairs, 0);
    assert_false(c->ended);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_made_again_is_what_was_there, begin, end),
        cmocka_unit_test_setup_teardown(a_folder_in_its_place_is_to_be_moved_away_and_that_is_all, begin, end),
        cmocka_unit_test_setup_teardown(another_one_gets_no_name_and_ends_the_run, begin, end),
        cmocka_unit_test_setup_teardown(runs_that_are_not_to_be_trusted_are_made_again_once, begin, end),
        cmocka_unit_test_setup_teardown(a_shard_is_made_again_three_times_in_a_row_at_most, begin, end),
        cmocka_unit_test_setup_teardown(who_stops_does_not_wait_until_a_shard_is_made, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
