/* tokenizer_config.json as it is written: GPT2Tokenizer where vocab.json and merges.txt say all; a length where the model has one. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "dataset/tokenizer/tokenizer.h"

/* One of those that tests/oracle/make_tokenizers.py wrote. */
static struct tokenizer *of_oracle(const char *name) {
    struct tokenizer *tokenizer = NULL;
    json_t *golden = json_load_file("tests/oracle/tokenizers.json", JSON_ALLOW_NUL, NULL), *one;
    size_t i;
    json_array_foreach(json_object_get(golden, "cases"), i, one) {
        if (strcmp(json_string_value(json_object_get(one, "name")), name) != 0) continue;
        char *text = json_dumps(json_object_get(one, "tokenizer"), JSON_COMPACT);
        if (tokenizer_parse(&tokenizer, text, strlen(text)) < 0) fail_msg("%s", err_text());
        free(text);
    }
    assert_non_null(tokenizer);
    json_decref(golden);
    return tokenizer;
}

static void settings_say_the_kind_of_tokenizer_and_the_length_of_the_model(void **state) {
    (void)state;
    static const struct {
        const char *name, *kind, *unk;
        int64_t max_length;
    } cases[] = {
        {"gpt2", "GPT2Tokenizer", "<|endoftext|>", 1024},
        {"gpt2", "GPT2Tokenizer", "<|endoftext|>", 0},
        {"digits apart", "PreTrainedTokenizerFast", NULL, 77},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *tokenizer;
        struct tokenizer_file file[TOKENIZER_FILES_MAX];
        size_t count;
        if (strcmp(cases[i].name, "gpt2") == 0) assert_int_equal(tokenizer_open(&tokenizer, "gpt2"), 0);
        else tokenizer = of_oracle(cases[i].name);
        assert_int_equal(tokenizer_print_files(tokenizer, file, &count, cases[i].max_length), 0);
        assert_int_equal(count, cases[i].unk ? 5 : 3);
        assert_string_equal(file[1].name, "tokenizer_config.json");
        json_t *settings = json_loadb((const char *)file[1].text.data, file[1].text.size, 0, NULL);
        const json_t *length = json_object_get(settings, "model_max_length");
        assert_string_equal(json_string_value(json_object_get(settings, "tokenizer_class")), cases[i].kind);
        if (cases[i].max_length) assert_int_equal(json_integer_value(length), cases[i].max_length);
        else assert_null(length);
        if (cases[i].unk) assert_string_equal(json_string_value(json_object_get(settings, "unk_token")), cases[i].unk);
        else assert_true(json_is_null(json_object_get(settings, "unk_token")));
        assert_string_equal(json_string_value(json_object_get(settings, "eos_token")), "<|endoftext|>");
        assert_true(json_is_false(json_object_get(settings, "clean_up_tokenization_spaces")));
        json_decref(settings);
        tokenizer_files_free(file);
        tokenizer_close(tokenizer);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(settings_say_the_kind_of_tokenizer_and_the_length_of_the_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
