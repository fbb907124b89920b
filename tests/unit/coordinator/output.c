/* What stands in a run's way is told before it begins, and stays; all else is none of its business. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "config/config.h"
#include "coordinator/output.h"

static char folder[64], output[100];
static struct config config;
static char prepared[100];

static const char *in_output(const char *name) {
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", output, name);
    return path;
}

static int begin(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-output-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(output, sizeof output, "%s/output", folder);
    prepared[0] = 0;
    config = (struct config){0};
    config.output_dir = output;
    config.dataset.prepared = prepared;
    return folder_make(output);
}

static int end(void **state) {
    (void)state;
    return folder_remove(folder);
}

static size_t entries(void) {
    size_t n = 0;
    DIR *dir = opendir(output);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static void a_folder_is_made_and_nothing_in_it(void **state) {
    (void)state;
    assert_int_equal(folder_remove(output), 0);
    assert_int_equal(output_check(&config, false), 0);
    assert_int_equal(entries(), 0);
}

static void what_a_run_left_is_not_in_the_way(void **state) {
    (void)state;
    assert_int_equal(file_publish(in_output("metrics.jsonl"), "{}\n", 3), 0);
    assert_int_equal(folder_make(in_output("dataset")), 0);
    assert_int_equal(output_check(&config, false), 0);
    assert_int_equal(entries(), 2);
}

static void a_link_to_a_folder_is_one(void **state) {
    (void)state;
    assert_int_equal(symlink(folder, in_output("dataset")), 0);
    assert_int_equal(output_check(&config, false), 0);
}

static void a_link_that_leads_nowhere_is_in_the_way(void **state) {
    (void)state;
    assert_int_equal(symlink("/nowhere/at/all", in_output("dataset")), 0);
    assert_int_equal(output_check(&config, false), ERR_DENIED);
    assert_int_equal(entries(), 1);
}

static void a_folder_in_the_place_of_metrics_is_in_the_way(void **state) {
    (void)state;
    assert_int_equal(folder_make(in_output("metrics.jsonl")), 0);
    assert_int_equal(output_check(&config, false), ERR_DENIED);
    assert_non_null(strstr(err_text(), "move it away"));
}

static void a_file_in_the_place_of_a_dataset_is_in_the_way_of_who_makes_one(void **state) {
    (void)state;
    assert_int_equal(file_publish(in_output("dataset"), "mine", 4), 0);
    assert_int_equal(output_check(&config, false), ERR_DENIED);
    snprintf(prepared, sizeof prepared, "%s/elsewhere", folder);
    assert_int_equal(output_check(&config, false), 0);
}

/* Too many open files, say: by the time at which something is written there it may have passed. */
static void what_passes_by_itself_is_not_in_the_way(void **state) {
    (void)state;
    struct rlimit before, none = {0};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int code = output_check(&config, false);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(code, 0);
}

static void a_folder_in_the_place_of_a_shard_is_in_the_way_of_who_makes_one(void **state) {
    (void)state;
    assert_int_equal(folder_make(in_output("dataset/my own")), 0);
    assert_int_equal(file_publish(in_output("dataset/train-00001.tok.zst"), "made before", 11), 0);
    assert_int_equal(output_check(&config, false), 0);
    assert_int_equal(folder_make(in_output("dataset/train-00002.tok.zst")), 0);
    assert_int_equal(output_check(&config, false), ERR_DENIED);
    assert_non_null(strstr(err_text(), "train-00002.tok.zst is in the way: it is a folder"));
    snprintf(prepared, sizeof prepared, "%s/elsewhere", folder);
    assert_int_equal(output_check(&config, false), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_folder_is_made_and_nothing_in_it, begin, end),
        cmocka_unit_test_setup_teardown(what_passes_by_itself_is_not_in_the_way, begin, end),
        cmocka_unit_test_setup_teardown(what_a_run_left_is_not_in_the_way, begin, end),
        cmocka_unit_test_setup_teardown(a_link_to_a_folder_is_one, begin, end),
        cmocka_unit_test_setup_teardown(a_link_that_leads_nowhere_is_in_the_way, begin, end),
        cmocka_unit_test_setup_teardown(a_folder_in_the_place_of_metrics_is_in_the_way, begin, end),
        cmocka_unit_test_setup_teardown(a_file_in_the_place_of_a_dataset_is_in_the_way_of_who_makes_one, begin, end),
        cmocka_unit_test_setup_teardown(a_folder_in_the_place_of_a_shard_is_in_the_way_of_who_makes_one, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
