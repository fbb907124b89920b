/* Tokenize jobs: how archives are divided, what is forgotten with a source that changed, and what they weigh. */
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

/* The call of that number from now on fails, for a reason that passes; 0: none does. */
static int fails_at, calls;

static int passing_error(void) {
    return fails_at > 0 && ++calls == fails_at ? err_set(calls % 2 ? ERR_IO : ERR_MEMORY, "what passes") : 0;
}

int __real_file_open(int *out_fd, const char *path);
int __wrap_file_open(int *out_fd, const char *path);
int __wrap_file_open(int *out_fd, const char *path) {
    TRY(passing_error());
    return __real_file_open(out_fd, path);
}

int __real_file_read_at(int fd, void *out, size_t *out_got, size_t size_bytes, uint64_t offset);
int __wrap_file_read_at(int fd, void *out, size_t *out_got, size_t size_bytes, uint64_t offset);
int __wrap_file_read_at(int fd, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    TRY(passing_error());
    return __real_file_read_at(fd, out, out_got, size_bytes, offset);
}

static void write_source(const char *words) {
    char *path = mem_format("%s/a.txt", folder);
    assert_int_equal(file_publish(path, words, strlen(words)), 0);
    free(path);
}

/* A coordinator that has found its one source. */
static void find(const char *source) {
    char *pipeline = mem_format("output_dir: out\ndataset: { sources: [%s], sequence_length: 8 }\n"
                                "model: { n_layer: 1, n_head: 1, n_embd: 16, n_positions: 8 }\n", source);
    if (config_parse(&config, "p.yaml", pipeline, strlen(pipeline), folder, NULL, 0) < 0) fail_msg("%s", err_text());
    free(pipeline);
    c = mem_alloc(sizeof *c);
    context_name(c, &config);
    parts_open(c);
    if (store_open(&c->store, c->state_folder) < 0 || sourcing_find(c) < 0) fail_msg("%s", err_text());
    assert_int_equal(c->sources->count, 1);
}

static int begin_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-tokenizing-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return 0;
}

/* The same with the job for it. */
static int begin(void **state) {
    begin_folder(state);
    write_source(text);
    find("a.txt");
    if (tokenizing_begin(c) < 0) fail_msg("%s", err_text());
    assert_int_equal(dispatch_queue(c)->count, 1);
    return 0;
}

static void close_it(void) {
    parts_close(c);
    store_close(c->store);
    context_forget_names(c);
    free(c);
    config_free(&config);
}

static int end(void **state) {
    (void)state;
    close_it();
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

/* What is lost with damage depends on how an archive is divided, and that must not depend on a passing error. */
static void an_archive_is_divided_by_what_it_is_and_not_by_what_passes(void **state) {
    (void)state;
    const char *const damages[] = {"true", "dd if=/dev/urandom of=a.tar bs=512 seek=6001 conv=notrunc count=1"}; /* the second header */
    for (int damaged = 0; damaged < 2; damaged++) {
        char *command = mem_format("cd %s && rm -rf out && head -c 3072000 /dev/zero | tee a > b && tar -cf a.tar a b && %s 2>/dev/null",
                                   folder, damages[damaged]);
        assert_int_equal(system(command), 0);
        free(command);
        find("a.tar");
        int code = -1;
        for (int at = 1; code < 0; at++) {
            fails_at = at, calls = 0;
            code = tokenizing_begin(c);
            bool passed = calls >= at;
            fails_at = 0;
            if (passed != (code < 0)) fail_msg("the call %d failed, and the coordinator says %d", at, code);
            if (code < 0 && !strstr(err_text(), "what passes")) fail_msg("%s", err_text());
            assert_true(at < 100);
        }
        Millrace__Lease *lease = the_lease();
        assert_int_equal(lease->tokenize->parts[0]->members > 0, !damaged);
        millrace__lease__free_unpacked(lease, NULL);
        if (!damaged) close_it();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(of_a_source_that_changed_nothing_is_remembered, begin, end),
        cmocka_unit_test_setup_teardown(an_archive_is_divided_by_what_it_is_and_not_by_what_passes, begin_folder, end),
        cmocka_unit_test_setup_teardown(a_job_that_goes_on_where_another_ended_adds_no_weight, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
