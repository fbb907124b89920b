/* What a process leaves for the one that started it. */
#include "base/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static void only_the_last_words_are_left(void **state) {
    (void)state;
    static const char *const words[] = {"what went wrong at first", "and then", ""};
    char number[16], read[64];
    int fd = memfd_create("last words", MFD_CLOEXEC);
    assert_true(fd > STDERR_FILENO);
    snprintf(number, sizeof number, "%d", fd);
    setenv(PROCESS_LAST_WORDS, number, 1);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        process_last_words(words[i]);
        ssize_t got = pread(fd, read, sizeof read - 1, 0);
        assert_int_equal(got, strlen(words[i]));
        assert_memory_equal(read, words[i], (size_t)got);
    }
    unsetenv(PROCESS_LAST_WORDS);
    process_last_words("to nobody");
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_last_words_are_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
