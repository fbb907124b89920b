/* The whole loop, on a link without sockets: a run whose records are not in their place any more ends, and one look may be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "coordinator/store.h"
#include "proto/frame.h"
#include "tests/unit/world.h"

/* What the looks find, one letter each, and good from then on: (g)ood, (b)ad. */
static const char *looks;
static size_t looked;

int __wrap_store_in_place(struct store *store);
int __wrap_store_in_place(struct store *store) {
    (void)store;
    bool bad = looked < strlen(looks) && looks[looked] == 'b';
    looked++;
    return bad ? err_set(ERR_NOTFOUND, "the store was moved") : 0;
}

/* Nobody comes to work; the run is asked to stop when all looks were made. */
static void stop_after_looks(void *arg) {
    (void)arg;
    if (looked > strlen(looks)) coordinator_stop();
}

static int run(const char *what) {
    static const char pipeline[] = "output_dir: out\ndataset: { sources: [a.txt], sequence_length: 8 }\n"
                                   "model: { n_layer: 1, n_head: 1, n_embd: 16, n_positions: 8 }\n";
    char folder[] = "/tmp/millrace-place-XXXXXX";
    struct config config;
    assert_non_null(mkdtemp(folder));
    char *source = mem_format("%s/a.txt", folder);
    assert_int_equal(file_publish(source, "a text", 6), 0);
    if (config_parse(&config, "p.yaml", pipeline, sizeof pipeline - 1, folder, NULL, 0) < 0) fail_msg("%s", err_text());
    world_begin(random_open("place"));
    world.idle = stop_after_looks;
    looks = what;
    looked = 0;
    int code = coordinator_run(&(struct coordinator_options){.config = &config, .grace_ms = 1000});
    config_free(&config);
    free(source);
    assert_int_equal(folder_remove(folder), 0);
    return code;
}

/* A network file system may fail once. */
static void a_run_ends_when_two_looks_in_a_row_do_not_find_its_records(void **state) {
    (void)state;
    assert_int_equal(run("ggg"), ERR_INTERRUPTED);
    assert_int_equal(run("bgbgb"), ERR_INTERRUPTED);
    assert_int_equal(run("gbb"), ERR_NOTFOUND);
    assert_non_null(strstr(err_text(), "the store was moved"));
    assert_int_equal(looked, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_ends_when_two_looks_in_a_row_do_not_find_its_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
