/* Memory limits as the kernel tells them, from made-up trees of /proc and /sys. */
#include "base/machine.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

static char root[] = "/tmp/millrace-machine-XXXXXX";

static void put(const char *path, const char *text) {
    char *whole = mem_format("%s%s", root, path), *folder = mem_text(whole);
    *strrchr(folder, '/') = '\0';
    assert_int_equal(folder_make(folder), 0);
    assert_int_equal(file_publish(whole, text, strlen(text)), 0);
    free(whole);
    free(folder);
}

static int begin(void **state) {
    (void)state;
    strcpy(root + strlen(root) - 6, "XXXXXX");
    if (!mkdtemp(root)) return -1;
    put("/proc/meminfo", "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\nSwapTotal:  5 kB\n");
    return 0;
}

static int end(void **state) {
    (void)state;
    return folder_remove(root);
}

static struct machine_memory memory(void) {
    struct machine_memory memory = {0};
    assert_int_equal(machine_memory(&memory, root), 0);
    assert_int_equal(memory.physical_bytes, 1000 * 1024);
    return memory;
}

static void without_groups_physical_memory_is_the_limit(void **state) {
    (void)state;
    assert_int_equal(memory().limit_bytes, 1000 * 1024);
    assert_int_equal(memory().available_bytes, 600 * 1024);
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/memory.max", "max\n");
    assert_int_equal(memory().limit_bytes, 1000 * 1024);
}

static void the_least_limit_of_a_group_and_those_above_it_counts(void **state) {
    (void)state;
    put("/proc/self/cgroup", "1:name=systemd:/x\n0::/slice/unit\n");
    put("/sys/fs/cgroup/slice/unit/memory.max", "max\n");
    put("/sys/fs/cgroup/slice/memory.max", "409600\n");
    put("/sys/fs/cgroup/memory.max", "819200\n");
    assert_int_equal(memory().limit_bytes, 409600);
    assert_int_equal(memory().available_bytes, 409600);
    put("/sys/fs/cgroup/slice/unit/memory.max", "204800\n");
    assert_int_equal(memory().limit_bytes, 204800);
}

static void version_1_and_a_path_that_is_not_mounted(void **state) {
    (void)state;
    put("/proc/self/cgroup", "9:cpu,cpuacct:/docker/1\n5:memory:/docker/1\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "307200\n");
    put("/sys/fs/cgroup/memory.max", "1\n"); /* of no group of ours */
    assert_int_equal(memory().limit_bytes, 307200);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* version 1's way to say none */
    assert_int_equal(memory().limit_bytes, 1000 * 1024);
}

static void a_kernel_that_does_not_tell_is_an_error(void **state) {
    (void)state;
    struct machine_memory out = {.limit_bytes = 7};
    put("/proc/meminfo", "nothing\n");
    assert_int_equal(machine_memory(&out, root), ERR_UNSUPPORTED);
    assert_int_equal(out.limit_bytes, 7);
}

static void this_machine_has_memory(void **state) {
    (void)state;
    struct machine_memory out;
    assert_int_equal(machine_memory(&out, ""), 0);
    assert_true(out.limit_bytes > 0 && out.limit_bytes <= out.physical_bytes && out.available_bytes <= out.limit_bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_groups_physical_memory_is_the_limit, begin, end),
        cmocka_unit_test_setup_teardown(the_least_limit_of_a_group_and_those_above_it_counts, begin, end),
        cmocka_unit_test_setup_teardown(version_1_and_a_path_that_is_not_mounted, begin, end),
        cmocka_unit_test_setup_teardown(a_kernel_that_does_not_tell_is_an_error, begin, end),
        cmocka_unit_test(this_machine_has_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
