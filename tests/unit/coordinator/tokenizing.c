/* Tokenize jobs: what is forgotten with a source that changed, and what they weigh. */
#include "coordinator/tokenizing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/dispatch.h"
#include "coordinator/parts.h"
#include "coordinator/runs.h"
#include "coordinator/sourcing.h"
#include "coordinator/store.h"
#include "dataset/source/sources.h"
#include "proto/body.h"
#include "proto/frame.h"

static const char text[] = "a text of some words\n";

static char folder[64];
static struct config config;
static struct context *c;

static void write_source(const char *words) {
    char *path = mem_format("%s/a.txt", folder);
    assert_int_equal(file_publish(path, words, strlen(words)), 0);
    free(path);
}

/* A coordinator that has one source, and the job for it. */
static int begin(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-tokenizing-XXXXXX");
    assert_non_null(mkdtemp(folder));
    write_source(text);
    char *pipeline = mem_format("output_dir: out\ndataset: { sources: [a.txt], sequence_length: 8 }\n"
                                "model: { n_layer: 1, n_head: 1, n_embd: 16, n_positions: 8 }\n");
    if (config_parse(&config, "p.yaml", pipeline, strlen(pipeline), folder, NULL, 0) < 0) fail_msg("%s", err_text());
    free(pipeline);
    c = mem_alloc(sizeof *c);
    context_name(c, &config);
    parts_open(c);
    if (store_open(&c->store, c->state_folder) < 0 || sourcing_find(c) < 0 || tokenizing_begin(c) < 0) fail_msg("%s", err_text());
    assert_int_equal(c->sources->count, 1);
    assert_int_equal(dispatch_queue(c)->count, 1);
    return 0;
}

static int end(void **state) {
    (void)state;
    parts_close(c);
    store_close(c->store);
    context_forget_names(c);
    free(c);
    config_free(&config);
    return folder_remove(folder);
}

static Millrace__Lease *the_lease(void) {
    Millrace__Lease *lease;
    assert_int_equal(runs_unpack(&lease, dispatch_spec(c, 0)), 0);
    return lease;
}

/* Its size and time may be those of before when it is looked at next. */
static void of_a_source_that_changed_nothing_is_remembered(void **state) {
    (void)state;
    struct buf record = {0}, result = {0};
    uint8_t key[SHA256_BYTES];
    Millrace__Lease *lease = the_lease();
    runs_key(key, c, lease->tokenize);
    millrace__lease__free_unpacked(lease, NULL);
    assert_int_equal(store_memo_put(c->store, key, "a result", 8), 0);
    for (int changed = 0; changed < 2; changed++) {
        if (changed) write_source("another text\n");
        assert_int_equal(tokenizing_check_file(c, 0, -1), changed ? ERR_CORRUPT : 0);
        buf_clear(&record), buf_clear(&result);
        assert_true(store_get(c->store, "sources", &record) >= 0);
        assert_int_equal(record.size == 0, changed);
        assert_int_equal(store_memo_get(c->store, key, &result), !changed);
    }
    buf_free(&record), buf_free(&result);
}

static void a_job_that_goes_on_where_another_ended_adds_no_weight(void **state) {
    (void)state;
    struct buf spec = {0};
    Millrace__Place place = MILLRACE__PLACE__INIT;
    Millrace__Lease *lease = the_lease();
    assert_int_equal(c->progress.total, sizeof text - 1);
    place.documents = 1;
    lease->tokenize->from = &place;
    assert_int_equal(body_pack(&spec, &lease->base), 0);
    lease->tokenize->from = NULL;
    millrace__lease__free_unpacked(lease, NULL);
    assert_int_equal(store_job_add(c->store, stage_name(STAGE_TOKENIZE), 1, spec.data, spec.size), 0);
    buf_free(&spec);
    assert_int_equal(tokenizing_begin(c), 0);
    assert_int_equal(dispatch_queue(c)->count, 2);
    assert_int_equal(c->progress.total, sizeof text - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(of_a_source_that_changed_nothing_is_remembered, begin, end),
        cmocka_unit_test_setup_teardown(a_job_that_goes_on_where_another_ended_adds_no_weight, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
