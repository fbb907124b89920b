/* A fuzzer without libFuzzer: every seed as it is, then some thousand mutations of them. Which ones follows from the seed alone,
 * which is printed and can be given by MILLRACE_TEST_SEED; MILLRACE_FUZZ_INPUT=NUMBER does that mutation alone. MILLRACE_FUZZ_INPUTS
 * is how many: time would say how busy the machine is. Files named on the command line are inputs instead: what libFuzzer found. */
#include <signal.h>

#include "base/clock.h"
#include "base/philox.h"
#include "tests/fuzz/fuzz.h"

enum { SEEDS_MAX = 256, CHANGES_MAX = 8, INPUTS = 5000 };

static struct buf seeds[SEEDS_MAX];
static size_t seed_count;
static uint64_t random_seed, input_number; /* 0: a seed as it is */

static void add_seed(const void *bytes, size_t size) {
    CHECK(seed_count < SEEDS_MAX);
    CHECK(buf_append(&seeds[seed_count++], bytes, size) == 0);
}

/* ---- Mutations ---- */

struct dice {
    uint64_t input, thrown;
};
static uint64_t throw(struct dice *dice, uint64_t below) {
    struct philox_block block = philox(random_seed, dice->input, dice->thrown++);
    return ((uint64_t)block.word[0] << 32 | block.word[1]) % below;
}

/* Puts `size` bytes in the place of `old` bytes at `at`. */
static void replace(struct buf *input, size_t at, size_t old, const void *bytes, size_t size) {
    uint8_t *copy = fuzz_copy(bytes, size);
    CHECK(buf_reserve(input, size) == 0);
    memmove(input->data + at + size, input->data + at + old, input->size - at - old);
    memcpy(input->data + at, copy, size);
    input->size += size - old;
    free(copy);
}

static void change(struct buf *input, struct dice *dice) {
    static const uint8_t bytes[] = {0, 1, 0x7F, 0x80, 0xC0, 0xED, 0xF4, 0xFF, '"', '\n', '{', '[', ',', '\\', ' ', '0'};
    const struct buf *other = &seeds[throw(dice, seed_count)];
    size_t at = throw(dice, input->size + 1), left = input->size - at;
    size_t run = 1 + (throw(dice, 4) ? throw(dice, 16) : throw(dice, 1024));
    uint8_t byte = throw(dice, 2) ? bytes[throw(dice, sizeof bytes)] : (uint8_t)throw(dice, 256);
    uint64_t number = throw(dice, 3) ? throw(dice, 1 << 16) : UINT64_MAX - throw(dice, 300);
    switch (throw(dice, 8)) {
    case 0: /* a bit */
        if (left) input->data[at] ^= (uint8_t)(1 << throw(dice, 8));
        break;
    case 1: /* a byte */
        if (left) input->data[at] = byte;
        break;
    case 2: /* a number */
        if (left >= sizeof number) memcpy(input->data + at, &number, (size_t)1 << throw(dice, 4));
        break;
    case 3: /* less */
        replace(input, at, run < left ? run : left, "", 0);
        break;
    case 4: /* the end is cut off */
        input->size = at;
        break;
    case 5: /* a byte, many times */
        for (size_t i = 0; i < run; i++) replace(input, at, 0, &byte, 1);
        break;
    case 6: /* again */
        replace(input, throw(dice, input->size + 1), 0, input->data + at, run < left ? run : left);
        break;
    default: /* a part of another seed */
        if (other->size) {
            size_t from = throw(dice, other->size), size = other->size - from < run ? other->size - from : run;
            replace(input, at, throw(dice, 2) && size < left ? size : 0, other->data + from, size);
        }
    }
}

static void mutate(struct buf *input, uint64_t number) {
    struct dice dice = {number, 0};
    const struct buf *seed = &seeds[throw(&dice, seed_count)];
    buf_clear(input);
    CHECK(buf_reserve(input, 1) == 0);
    CHECK(buf_append(input, seed->data, seed->size) == 0);
    for (uint64_t changes = 1 + throw(&dice, CHANGES_MAX); changes > 0; changes--) change(input, &dice);
    if (input->size > FUZZ_INPUT_MAX && input->size > seed->size) input->size = FUZZ_INPUT_MAX;
}

/* ---- Running ---- */

static void try_input(const void *bytes, size_t size) {
    uint8_t *copy = fuzz_copy(bytes, size);
    fuzz(copy, size);
    free(copy);
}

/* Says which input it was; only what may be called here. */
static void tell(int signal_number) {
    char text[160];
    int size = snprintf(text, sizeof text, "\nsignal %d in input %llu: MILLRACE_TEST_SEED=%llu MILLRACE_FUZZ_INPUT=%llu\n", signal_number,
                        (unsigned long long)input_number, (unsigned long long)random_seed, (unsigned long long)input_number);
    if (write(STDERR_FILENO, text, (size_t)size) < 0) _exit(2);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static int run_files(char **path) {
    for (; *path; path++) {
        struct buf input = {0};
        if (file_read(&input, *path, (size_t)1 << 30) < 0) {
            fprintf(stderr, "%s\n", err_text());
            return 1;
        }
        try_input(input.data, input.size);
        printf("%s: fine\n", *path);
        buf_free(&input);
    }
    return 0;
}

int main(int argc, char **argv) {
    static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    const char *given = getenv("MILLRACE_TEST_SEED"), *only = getenv("MILLRACE_FUZZ_INPUT"), *inputs = getenv("MILLRACE_FUZZ_INPUTS");
    if (argc > 1) return run_files(argv + 1);
    random_seed = given ? strtoull(given, NULL, 10) : (uint64_t)clock_wall_ms();
    printf("MILLRACE_TEST_SEED=%llu\n", (unsigned long long)random_seed);
    fflush(stdout);
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) signal(fatal[i], tell);
    fuzz_seeds(add_seed);
    CHECK(seed_count > 0);
    struct buf input = {0};
    if (only) {
        input_number = strtoull(only, NULL, 10);
        mutate(&input, input_number);
        try_input(input.data, input.size);
        printf("fine\n");
    } else {
        uint64_t count = inputs ? strtoull(inputs, NULL, 10) : INPUTS;
        for (size_t i = 0; i < seed_count; i++) try_input(seeds[i].data, seeds[i].size);
        while (input_number < count) {
            mutate(&input, ++input_number);
            try_input(input.data, input.size);
        }
        printf("%zu seeds, %llu mutations\n", seed_count, (unsigned long long)input_number);
    }
    buf_free(&input);
    for (size_t i = 0; i < seed_count; i++) buf_free(&seeds[i]);
    return 0;
}
