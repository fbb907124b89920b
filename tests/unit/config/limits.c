/* Hostile texts, ceilings, the command line's --set, and files. */
#include "tests/unit/config/parse.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

/* ---- limits: every hostile text is answered after a bounded amount of work ---- */

static char *repeated(const char *head, const char *part, size_t total_bytes) {
    size_t n = strlen(head), m = strlen(part);
    char *text = mem_alloc(n + total_bytes + m + 1);
    memcpy(text, head, n);
    for (; n < total_bytes; n += m) memcpy(text + n, part, m);
    text[n - (n > total_bytes ? m : 0)] = 0;
    return text;
}

static void yaml_bombs_are_refused_at_the_first_anchor(void **state) {
    (void)state;
    refused("a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b]\n"
            "d: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: [*d, *d, *d, *d, *d, *d, *d, *d]\n",
            "p.yaml:1:4: anchor \"a\" is not used here; expected the value itself");
}

static void hostile_texts_of_full_size_are_answered_soon(void **state) {
    (void)state;
    enum { FULL = 1 << 20, SLOW_MS = 2000 }; /* a hundred times what the worst takes: quadratic work is far above */
    static const char *const texts[][2] = {
        {"a: ", "["}, {"a: ", "{"}, {"a: ", "[{"}, {"", "{a: "}, {"", "- "}, {"", "? "}, {"a: ", "- "}, {"a: ", "!"}, {"a: ", "&"},
        {"dataset: {sources: [", "a, "}, {"", "a\n"}, {"", "a: b\n"}, {"a: ", "x"}, {"a: ", "x\n "}, {"a: \"", "\\x41"},
        {"a: |\n", " x\n"}, {"", "#"}, {"", "# x\n"}, {"", "---\n"}, {"", "\n"}, {"", " "}, {"", "\t"}, {"a: '", "''"}, {"", "%"},
        {"", "*"}, {"a: >\n", "  \n"}, {"", ":"}, {"{", "?"}, {"[", ","}, {"a: [", "\n,\n"}, {"a:\n", " b:\n"}, {"\"", "\n"},
        {"{", "a:b,"}, {"[", "a:"}, {"[", "\"a\":"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char *text = repeated(texts[i][0], texts[i][1], FULL);
        struct config c;
        int64_t start = clock_ms();
        int code = parse(&c, text);
        int64_t took = clock_ms() - start;
        assert_int_equal(code, ERR_CONFIG);
        if (took > SLOW_MS) fail_msg("\"%s\" then \"%s\" took %lld ms", texts[i][0], texts[i][1], (long long)took);
        if (getenv("SHOW_TIMES")) printf("%5lld ms  %.100s\n", (long long)took, err_text());
        free(text);
    }
}

static void deep_nesting_is_refused(void **state) {
    (void)state;
    refused("a: [[[[[[[[[[x]]]]]]]]]]\n", "p.yaml:1:13: nested more than 8 levels deep; expected sections with values");
    refused("run_name: [[x]]\n" SOURCES, "p.yaml:1:11: run_name: is a mapping or nested list; expected text of 1 to 100 bytes");
}

static void sizes_have_ceilings(void **state) {
    (void)state;
    char *text = repeated("#", "x", (1 << 20) + 1);
    assert_int_equal(strlen(text), (1 << 20) + 1);
    refused(text, "p.yaml:1:1: longer than 1048576 bytes; expected a few KiB");
    free(text);
    text = repeated("dataset: {sources: [a", ",a", 21 + 2 * 4095);
    strcpy(text + strlen(text), "]}"); /* room: repeated() leaves a part's length */
    struct config c = accepted(text);
    assert_int_equal(c.dataset.sources.count, 4096);
    config_free(&c);
    free(text);
    text = repeated("dataset: {sources: [a", ",a", 21 + 2 * 4096);
    strcpy(text + strlen(text), "]}");
    refused(text, "p.yaml:1:8213: dataset.sources: the list is too long; expected at most 4096 values");
    free(text);
    refused("a23456789012345678901234567890123456789012345678901234567890123456: 1\n",
            "p.yaml:1:1: \"a23456789012345678901234567890123456789012345678901...\" is not a key; expected a name of 1 to 64 characters");
    struct buf keys = {0};
    for (int i = 0; i < 600; i++) buf_print(&keys, "k%d: 1\n", i);
    refused((const char *)keys.data, "p.yaml:513:1: too many keys; expected at most 512");
    buf_free(&keys);
    text = mem_format("run_name: %0101d\n" SOURCES, 0);
    refused_with(text, "is too long; expected text of 1 to 100 bytes");
    free(text);
}

static void what_cannot_be_printed_within_the_limit_is_refused(void **state) {
    (void)state;
    struct buf text = {0};
    buf_print(&text, "dataset:\n  sources:\n");
    for (int i = 0; i < 4096; i++) buf_print(&text, "  - %0200d\n", i);
    struct config c;
    char folder[101];
    memset(folder, 'f', sizeof folder);
    folder[0] = '/', folder[100] = 0;
    assert_int_equal(config_parse(&c, "p.yaml", (char *)text.data, text.size, folder, NULL, 0), ERR_CONFIG);
    assert_string_equal(err_text(),
                        "p.yaml:3:3: dataset.sources: written out in full the configuration is longer than 1048576 bytes; expected "
                        "globs instead of many paths");
    buf_free(&text);
}

/* ---- --set ---- */

static void settings_win_over_the_file_in_their_order(void **state) {
    (void)state;
    static const char *const sets[] = {
        "training.max_steps=20", "dataset.sources=[b.txt, \"c d.txt\"]", "training.max_steps=30", "run_name=night", "sample.prompt=",
        "model.n_ctx=128", "cluster.insecure=true",
    };
    struct config c;
    assert_int_equal(config_parse(&c, "p.yaml", example, strlen(example), FOLDER, sets, 5), 0);
    assert_int_equal(c.training.max_steps, 30);
    assert_int_equal(c.dataset.sources.count, 2);
    assert_string_equal(c.dataset.sources.item[1].paths.item[0], FOLDER "/c d.txt");
    assert_string_equal(c.run_name, "night");
    assert_string_equal(c.output_dir, FOLDER "/runs/example");
    assert_string_equal(c.sample.prompt, "");
    config_free(&c);
    c = accepted_with(SOURCES, "dataset.sources=x/*.txt");
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], FOLDER "/x/*.txt");
    config_free(&c);
    c = accepted_with("", "dataset.sources=x.txt");
    config_free(&c);
    c = accepted_with(SOURCES "model: {n_positions: 256}\n", "model.n_ctx=128");
    assert_int_equal(c.model.n_positions, 128);
    config_free(&c);
    c = accepted_with(SOURCES, "sample.prompt= \"It's: # me\\n\" ");
    assert_string_equal(c.sample.prompt, "It's: # me\n");
    config_free(&c);
}

static void a_setting_of_null_takes_a_value_back(void **state) {
    (void)state;
    static const char *const sets[] = {"training.seed=null", "model.eos_token_id=null", "dataset.filters=null",
                                       "sample.prompt=null", "training.fp16=null",      "training.fp16=False"};
    static const char text[] = SOURCES "training: {seed: 7}\nmodel: {eos_token_id: 5}\nsample: {prompt: x}\n";
    struct config c;
    int code = config_parse(&c, "p.yaml", text, strlen(text), FOLDER, sets, sizeof sets / sizeof *sets);
    if (code < 0) fail_msg("%s", err_text());
    assert_int_equal(c.training.seed, 42);
    assert_int_equal(c.model.eos_token_id, 50256);
    assert_string_equal(c.sample.prompt, "The house prices dropped down");
    config_free(&c);
}

static void broken_settings_are_refused_by_name(void **state) {
    (void)state;
    set_refused(SOURCES, "training.max_steps=ten",
                "--set training.max_steps: \"ten\" is not a whole number; expected a whole number from 0 to 1000000000");
    set_refused(SOURCES, "training.max_steps", "--set training.max_steps: is not a setting; expected dotted.key=value");
    set_refused(SOURCES, "=5", "--set : is not a setting; expected dotted.key=value");
    set_refused(SOURCES, "training.max_stps=5", "--set training.max_stps: unknown key; did you mean training.max_steps?");
    set_refused(SOURCES, "max_steps=5", "--set max_steps: unknown key; write training.max_steps: it belongs into section training");
    set_refused(SOURCES, "training={seed: 1}", "--set training: is a section; expected one of its keys: training.KEY=VALUE");
    set_refused(SOURCES, ".seed=1", "--set .seed: unknown key; write training.seed: it belongs into section training");
    set_refused(SOURCES, "training.seed=",
                "--set training.seed: \"\" is not a whole number; expected a whole number from 0 to 18446744073709551615");
    set_refused(SOURCES, "sample.prompt=a #b", "--set sample.prompt: something follows the value; expected one value; put text in quotes");
    set_refused(SOURCES, "sample.prompt=\xC3\xA4 #b",
                "--set sample.prompt: something follows the value; expected one value; put text in quotes");
    set_refused(SOURCES, "sample.prompt=#b", "--set sample.prompt: has no value; expected one, in quotes if it begins with #");
    set_refused(SOURCES, "sample.prompt=a: b",
                "--set sample.prompt: is a mapping or nested; expected one value or [a, list]; put text in quotes");
    set_refused(SOURCES, "sample.prompt=a\n--- b",
                "--set sample.prompt: something follows the value; expected one value; put text in quotes");
    set_refused(SOURCES, "sample.prompt=&a b", "--set sample.prompt: anchor \"a\" is not used here; expected the value itself");
    set_refused(SOURCES, "sample.prompt=[a",
                "--set sample.prompt: did not find expected ',' or ']' while parsing a flow sequence; expected a YAML "
                "value; put text in quotes");
    set_refused(SOURCES, "training.seed=[1]", "--set training.seed: is a list; expected a whole number from 0 to 18446744073709551615");
    set_refused(SOURCES, "training.slices=3",
                "--set training.slices: training.slices 3 does not divide training.global_batch 8; expected a divisor, such as 2");
    set_refused(SOURCES "training: {slices: 8}\n", "training.global_batch=12",
                "--set training.global_batch: training.slices 8 does not divide training.global_batch 12; expected a divisor, such as 6");
}

/* ---- files ---- */

static void a_file_is_found_with_its_folder(void **state) {
    (void)state;
    char folder[] = "/tmp/millrace-config-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = mem_format("%s/pipeline.yaml", folder), *real = realpath(folder, NULL), *wanted = mem_format("%s/a.txt", real);
    assert_int_equal(file_publish(path, SOURCES, strlen(SOURCES)), 0);
    struct config c;
    assert_int_equal(config_load(&c, path, NULL, 0), 0);
    assert_string_equal(c.folder, real);
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], wanted);
    config_free(&c);
    char *here = getcwd(NULL, 0);
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(config_load(&c, "pipeline.yaml", NULL, 0), 0);
    assert_int_equal(chdir(here), 0);
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], wanted);
    config_free(&c);
    assert_int_equal(file_publish(path, SOURCES "zebr: 1\n", strlen(SOURCES "zebr: 1\n")), 0);
    assert_int_equal(config_load(&c, path, NULL, 0), ERR_CONFIG);
    char *start = mem_format("%s:2:1: zebr: unknown key; ", path);
    assert_memory_equal(err_text(), start, strlen(start));
    assert_int_equal(file_publish(path, "", 0), 0);
    assert_int_equal(config_load(&c, path, NULL, 0), ERR_CONFIG);
    assert_int_equal(folder_remove(folder), 0);
    free(start), free(here), free(wanted), free(real), free(path);
}

static void what_is_not_a_readable_file_is_refused_at_once(void **state) {
    (void)state;
    struct config c;
    assert_int_equal(config_load(&c, "/nowhere/p.yaml", NULL, 0), ERR_CONFIG);
    assert_string_equal(err_text(), "/nowhere/p.yaml: No such file or directory; expected the path of a pipeline file");
    assert_int_equal(config_load(&c, "/tmp", NULL, 0), ERR_CONFIG);
    assert_string_equal(err_text(), "/tmp: is a folder; expected the pipeline file in it, such as /tmp/pipeline.yaml");
    assert_int_equal(config_load(&c, "/dev/zero", NULL, 0), ERR_CONFIG);
    assert_string_equal(err_text(), "/dev/zero: is not a regular file; expected a pipeline file");
    char folder[] = "/tmp/millrace-config-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *pipe_path = mem_format("%s/pipe", folder), *large_path = mem_format("%s/large", folder);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(config_load(&c, pipe_path, NULL, 0), ERR_CONFIG); /* would wait for a writer */
    assert_int_equal(file_publish(large_path, "", 0), 0);
    assert_int_equal(truncate(large_path, 1LL << 40), 0);
    assert_int_equal(config_load(&c, large_path, NULL, 0), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "longer than 1048576 bytes"));
    assert_int_equal(folder_remove(folder), 0);
    free(pipe_path), free(large_path);
}

static void a_relative_folder_must_exist_and_be_utf8(void **state) {
    (void)state;
    struct config c;
    assert_int_equal(config_parse(&c, "p.yaml", SOURCES, strlen(SOURCES), "no/such/folder", NULL, 0), ERR_CONFIG);
    assert_string_equal(err_text(), "p.yaml: its folder: No such file or directory; expected a folder that can be read");
    assert_int_equal(config_parse(&c, "p.yaml", SOURCES, strlen(SOURCES), "/data/b\xE4se", NULL, 0), ERR_CONFIG);
    assert_string_equal(err_text(), "p.yaml: its folder's name is not UTF-8; rename the folder or move the file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yaml_bombs_are_refused_at_the_first_anchor),
        cmocka_unit_test(hostile_texts_of_full_size_are_answered_soon),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(sizes_have_ceilings),
        cmocka_unit_test(what_cannot_be_printed_within_the_limit_is_refused),
        cmocka_unit_test(settings_win_over_the_file_in_their_order),
        cmocka_unit_test(a_setting_of_null_takes_a_value_back),
        cmocka_unit_test(broken_settings_are_refused_by_name),
        cmocka_unit_test(a_file_is_found_with_its_folder),
        cmocka_unit_test(what_is_not_a_readable_file_is_refused_at_once),
        cmocka_unit_test(a_relative_folder_must_exist_and_be_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
