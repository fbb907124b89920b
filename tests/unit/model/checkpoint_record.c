/* millrace_state.json as a text: what is printed is read back, each field of it, and what is not known stays so. */
#include "model/checkpoint/checkpoint_record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"

static struct checkpoint_facts read_back(const struct checkpoint_facts *facts) {
    struct checkpoint_record record = {.facts = *facts}, got;
    struct buf text = {0};
    assert_int_equal(checkpoint_record_print(&text, &record), 0);
    assert_int_equal(checkpoint_record_parse(&got, "here", (const char *)text.data, text.size), 0);
    buf_free(&text);
    return got.facts;
}

/* A new field belongs into `all`: one that is printed or parsed no more is found here, and nowhere else. */
static void what_is_printed_is_read_back(void **state) {
    (void)state;
    struct checkpoint_facts all, got;
    memset(&all, 0, sizeof all); /* the bytes between fields are compared, too */
    all.step = 10, all.max_steps = 100, all.tokens_seen = UINT64_C(1) << 40, all.epoch = 0.1;
    all.train_loss = 1.0 / 3, all.eval_loss = 2.5, all.eval_step = 8;
    all.has_run = true;
    memset(all.run, 1, sizeof all.run);
    memset(all.self_test, 2, sizeof all.self_test);
    memset(all.state_digest, 3, sizeof all.state_digest);
    snprintf(all.build, sizeof all.build, "millrace of a test");
    memset(all.weights_sha256, 4, sizeof all.weights_sha256);
    got = read_back(&all);
    assert_memory_equal(&got, &all, sizeof all);
    all.has_optimizer = all.has_ema = true;
    memset(all.optimizer_sha256, 5, sizeof all.optimizer_sha256), memset(all.ema_sha256, 6, sizeof all.ema_sha256);
    got = read_back(&all);
    assert_memory_equal(&got, &all, sizeof all);
}

/* As in records of older programs, which are printed anew when an evaluation is added. */
static void what_is_not_known_stays_so(void **state) {
    (void)state;
    struct checkpoint_facts facts = {.step = 1, .max_steps = 2};
    facts = read_back(&facts);
    facts = read_back(&facts);
    assert_false(facts.has_run || facts.has_optimizer || facts.has_ema);
    assert_string_equal(facts.build, "");
}

/* Files of a checkpoint lie in it, whatever its record says. */
static void a_record_names_no_file_elsewhere(void **state) {
    (void)state;
    struct checkpoint_record record = {.facts = {.step = 10}, .small_files = 1}, got;
    static const char *const names[] = {"config.json", "../config.json", "/etc/hostname", "a/b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct buf text = {0};
        snprintf(record.small_file[0].name, sizeof record.small_file[0].name, "%s", names[i]);
        assert_int_equal(checkpoint_record_print(&text, &record), 0);
        int code = checkpoint_record_parse(&got, "here", (const char *)text.data, text.size);
        assert_int_equal(code, i == 0 ? 0 : ERR_CORRUPT);
        buf_free(&text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_printed_is_read_back),
        cmocka_unit_test(what_is_not_known_stays_so),
        cmocka_unit_test(a_record_names_no_file_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
