/* `millrace config`: checks a pipeline.yaml and shows what it means with every default filled in; prints the reference of all keys. */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "config/config.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/gpt2/gpt2.h"

static int print_reference(void) {
    struct buf text = {0};
    int code = config_reference(&text);
    if (code == 0) output_bytes(text.data, text.size);
    buf_free(&text);
    return code;
}

/* 124439808 -> "124,439,808" */
static void print_grouped(size_t number) {
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%zu", number);
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) putchar(',');
        putchar(digits[i]);
    }
}

static int show(const struct config *config) {
    struct gpt2_config model = gpt2_config_of(config);
    struct buf text = {0};
    int code = config_print(&text, config);
    if (code == 0) {
        printf("# the model has ");
        print_grouped(gpt2_parameters(&model));
        printf(" parameters\n");
        output_bytes(text.data, text.size);
    }
    buf_free(&text);
    return code;
}

int cmd_config(int argc, char **argv) {
    static struct option_list sets;
    bool check = false, reference = false;
    const struct option_spec options[] = {
        OPTION_SET(&sets),
        {"check", 0, OPTION_FLAG, &check, 0, 0, NULL, "only check it: silent when it is right"},
        {"reference", 0, OPTION_FLAG, &reference, 0, 0, NULL, "print all keys with type, unit, range, default and meaning"},
        {0},
    };
    static const struct usage usage = {
        "config",
        "[FILE] [OPTIONS]",
        "Prints the effective configuration of a pipeline (default: ./pipeline.yaml) as YAML, every key with its value.",
        "millrace config pipeline.yaml --set model.n_layer=6\nmillrace config --reference",
        0,
        1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (reference) return print_reference();
    struct config config;
    TRY(config_load(&config, count ? arguments[0] : "pipeline.yaml", sets.item, sets.count));
    if (config_tokenizer_is_path(&config)) { /* the model's sizes follow from it */
        struct tokenizer *tokenizer;
        code = tokenizer_open_for(&tokenizer, &config);
        if (code == 0) tokenizer_close(tokenizer);
    }
    if (code == 0 && !check) code = show(&config);
    config_free(&config);
    return code;
}
