/* pipeline.yaml: what is accepted, what is refused, and how the refusal reads. */
#include "tests/unit/config/parse.h"

#include "config/fields.h"
#include "config/names.h"

/* ---- what is accepted ---- */

static void sources_alone_give_gpt2_small(void **state) {
    (void)state;
    struct config c = accepted(SOURCES);
    assert_string_equal(c.run_name, "run");
    assert_string_equal(c.output_dir, FOLDER "/runs/run");
    assert_string_equal(c.folder, FOLDER);
    assert_int_equal(c.cluster.workers, 2);
    assert_int_equal(c.cluster.threads_per_worker, 1);
    assert_true(c.cluster.lease_seconds == 10);
    assert_int_equal(c.cluster.attempts_max, 3);
    assert_int_equal(c.cluster.cache_mib, 64);
    assert_int_equal(c.cluster.compression, COMPRESSION_ZSTD);
    assert_false(c.cluster.insecure);
    assert_int_equal(c.dataset.sources.count, 1);
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], FOLDER "/a.txt");
    assert_string_equal(c.dataset.tokenizer, "gpt2");
    assert_int_equal(c.dataset.sequence_length, 1024);
    assert_true(c.dataset.validation_fraction == 0.01);
    assert_int_equal(c.dataset.shard_tokens, 4194304);
    assert_int_equal(c.model.vocab_size, 50257);
    assert_int_equal(c.model.n_positions, 1024);
    assert_int_equal(c.model.n_embd, 768);
    assert_int_equal(c.model.n_layer, 12);
    assert_int_equal(c.model.n_head, 12);
    assert_int_equal(c.model.n_inner, 0);
    assert_int_equal(c.model.activation_function, ACTIVATION_GELU_NEW);
    assert_true(c.model.resid_pdrop == 0.1 && c.model.embd_pdrop == 0.1 && c.model.attn_pdrop == 0.1);
    assert_true(c.model.layer_norm_epsilon == 1e-5 && c.model.initializer_range == 0.02);
    assert_true(c.model.scale_attn_weights);
    assert_int_equal(c.model.bos_token_id, 50256);
    assert_int_equal(c.model.eos_token_id, 50256);
    assert_int_equal(c.training.global_batch, 8);
    assert_int_equal(c.training.slices, 8);
    assert_int_equal(c.training.max_steps, 0);
    assert_true(c.training.num_train_epochs == 1);
    assert_true(c.training.learning_rate == 5e-4);
    assert_int_equal(c.training.lr_scheduler_type, SCHEDULER_COSINE);
    assert_int_equal(c.training.warmup_steps, 100);
    assert_true(c.training.weight_decay == 0.1 && c.training.adam_beta1 == 0.9 && c.training.adam_beta2 == 0.999);
    assert_true(c.training.adam_epsilon == 1e-8 && c.training.max_grad_norm == 1);
    assert_int_equal(c.training.eval_steps, 500);
    assert_int_equal(c.training.eval_sequences, 0);
    assert_int_equal(c.training.save_steps, 500);
    assert_int_equal(c.training.save_total_limit, 0);
    assert_int_equal(c.training.logging_steps, 1);
    assert_int_equal(c.training.max_bad_steps, 10);
    assert_int_equal(c.training.seed, 42);
    assert_false(c.training.bf16);
    assert_string_equal(c.sample.prompt, "The house prices dropped down");
    assert_int_equal(c.sample.max_new_tokens, 40);
    assert_true(c.sample.temperature == 0.8);
    assert_int_equal(c.sample.top_k, 40);
    config_free(&c);
    config_free(&c); /* twice is fine */
}

static void the_documented_example_is_accepted(void **state) {
    (void)state;
    struct config c = accepted(example);
    assert_string_equal(c.output_dir, FOLDER "/runs/example");
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], FOLDER "/corpus/**/*.txt");
    assert_int_equal(c.model.n_embd, 256);
    assert_true(c.model.attn_pdrop == 0);
    assert_true(c.training.learning_rate == 1e-3);
    assert_int_equal(c.training.slices, 4);
    config_free(&c);
}

static void unset_slices_become_the_largest_divisor_up_to_eight(void **state) {
    (void)state;
    static const int pairs[][2] = {{1, 1}, {6, 6}, {7, 7}, {9, 3}, {11, 1}, {12, 6}, {16, 8}, {35, 7}, {64, 8}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char set[64];
        snprintf(set, sizeof set, "training.global_batch=%d", pairs[i][0]);
        struct config c = accepted_with(SOURCES, set);
        assert_int_equal(c.training.slices, pairs[i][1]);
        config_free(&c);
    }
}

static void unset_sequence_length_follows_n_positions(void **state) {
    (void)state;
    struct config c = accepted(SOURCES "model: {n_ctx: 512}\n");
    assert_int_equal(c.model.n_positions, 512);
    assert_int_equal(c.dataset.sequence_length, 512);
    config_free(&c);
}

static void unset_output_dir_follows_run_name(void **state) {
    (void)state;
    struct config c = accepted("run_name: night shift\n" SOURCES);
    assert_string_equal(c.output_dir, FOLDER "/runs/night shift");
    config_free(&c);
    c = accepted("run_name: .night/shift\noutput_dir: o\n" SOURCES); /* it names no folder then */
    assert_string_equal(c.run_name, ".night/shift");
    config_free(&c);
}

/* FOLDER has 13 bytes. */
static void output_dir_is_no_longer_than_its_database_may_be(void **state) {
    (void)state;
    char text[3000], folder[2000];
    snprintf(text, sizeof text, "output_dir: %0*d\n" SOURCES, 486 - 14, 0);
    struct config c = accepted(text);
    assert_int_equal(strlen(c.output_dir), 486);
    config_free(&c);
    snprintf(text, sizeof text, "output_dir: %0*d\n" SOURCES, 486 - 13, 0);
    refused(text, "p.yaml:1:13: output_dir: with its folder before it is 487 bytes long; expected at most 486");
    snprintf(folder, sizeof folder, "/%0*d", 480, 0); /* it is not written, and its folder is what is too long */
    assert_int_equal(config_parse(&c, "p.yaml", SOURCES, strlen(SOURCES), folder, NULL, 0), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "p.yaml:1:1: output_dir: with its folder before it is 490 bytes long; expected at most 486"));
}

static void a_single_text_is_a_list_of_one_source(void **state) {
    (void)state;
    struct config c = accepted("dataset:\n  sources: corpus/*.txt\n");
    assert_int_equal(c.dataset.sources.count, 1);
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], FOLDER "/corpus/*.txt");
    config_free(&c);
}

static void paths_start_at_the_folder_and_lose_what_means_nothing(void **state) {
    (void)state;
    struct config c = accepted("output_dir: ./out//here/./\ndataset:\n  sources:\n  - ./a/./b.txt\n  - /abs//c.txt\n  - ../up.txt\n");
    assert_string_equal(c.output_dir, FOLDER "/out/here");
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], FOLDER "/a/b.txt");
    assert_string_equal(c.dataset.sources.item[1].paths.item[0], "/abs/c.txt");
    assert_string_equal(c.dataset.sources.item[2].paths.item[0], FOLDER "/../up.txt");
    config_free(&c);
}

static void wildcards_in_the_folders_own_name_stay_literal(void **state) {
    (void)state;
    struct config c;
    static const char text[] = "dataset: {sources: '*.txt'}\n";
    assert_int_equal(config_parse(&c, "p.yaml", text, strlen(text), "/d/[1] a*\\b?/x\\y", NULL, 0), 0);
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], "/d/[[]1] a[*]\\\\b[?]/x\\y/*.txt");
    assert_string_equal(c.output_dir, "/d/[1] a*\\b?/x\\y/runs/run");
    config_free(&c);
}

static void numbers_have_the_forms_people_write(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double value;
    } good[] = {{"1e-3", 1e-3}, {"1.0e-3", 1e-3}, {"1E-3", 1e-3}, {"1e+0", 1}, {".5", 0.5}, {"5.", 5}, {"0.001", 0.001}, {"10", 10}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char *text = mem_format(SOURCES "training: {learning_rate: %s}\n", good[i].text);
        struct config c = accepted(text);
        assert_true(c.training.learning_rate == good[i].value);
        config_free(&c);
        free(text);
    }
    struct config c = accepted(SOURCES "training: {seed: 18446744073709551615, weight_decay: -0.0}\n");
    assert_true(c.training.seed == UINT64_MAX);
    assert_false(__builtin_signbit(c.training.weight_decay));
    config_free(&c);
}

static void numbers_of_other_notations_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "nan", ".nan", "inf", ".inf", "-.inf", "0x10", "0x1p-3", "1_000", "1e", "1e-", "e5", ".", "--1", "+1", "1,5", "1 2", "01",
        "00.5", "1e5.0", "fast", "1d3", "0o17", "12:30", "NaN", "Infinity",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *text = mem_format(SOURCES "training:\n  learning_rate: %s\n", bad[i]);
        char *message =
            mem_format("p.yaml:3:18: training.learning_rate: \"%s\" is not a number; expected a number above 0, at most 10", bad[i]);
        refused(text, message);
        free(text);
        free(message);
    }
    static const char *const not_whole[] = {
        "1.0", "1e3", "0x10", "010", "1_0", "+4", "four", "1.5", "0b1",
    };
    for (size_t i = 0; i < sizeof not_whole / sizeof not_whole[0]; i++) {
        char *text = mem_format(SOURCES "model: {n_layer: %s}\n", not_whole[i]);
        char *message =
            mem_format("p.yaml:2:18: model.n_layer: \"%s\" is not a whole number; expected a whole number from 1 to 1024", not_whole[i]);
        refused(text, message);
        free(text);
        free(message);
    }
}

static void bounds_are_allowed_unless_they_are_open(void **state) {
    (void)state;
    struct config c = accepted(SOURCES "model: {n_layer: 1024, resid_pdrop: 0}\ntraining: {learning_rate: 10, adam_beta1: 0.999999}\n");
    config_free(&c);
    refused(SOURCES "model: {n_layer: 1025}\n",
            "p.yaml:2:18: model.n_layer: \"1025\" is out of range; expected a whole number from 1 to 1024");
    refused(SOURCES "model: {n_layer: 0}\n", "p.yaml:2:18: model.n_layer: \"0\" is out of range; expected a whole number from 1 to 1024");
    refused(SOURCES "model: {n_layer: -1}\n", "p.yaml:2:18: model.n_layer: \"-1\" is out of range; expected a whole number from 1 to 1024");
    refused(SOURCES "model: {n_layer: 99999999999999999999}\n",
            "p.yaml:2:18: model.n_layer: \"99999999999999999999\" is out of range; expected a whole number from 1 to 1024");
    refused(SOURCES "model: {resid_pdrop: 1}\n",
            "p.yaml:2:22: model.resid_pdrop: \"1\" is out of range; expected a number from 0, below 1");
    refused(SOURCES "model: {attn_pdrop: 0.99999999}\n", /* 1 as a float */
            "p.yaml:2:21: model.attn_pdrop: \"0.99999999\" is out of range; expected a number from 0, below 1");
    struct config narrow = accepted(SOURCES "model: {embd_pdrop: 0.9999999}\n");
    config_free(&narrow);
    refused(SOURCES "training: {learning_rate: 0}\n",
            "p.yaml:2:27: training.learning_rate: \"0\" is out of range; expected a number above 0, at most 10");
    refused(SOURCES "training: {learning_rate: 1e999}\n",
            "p.yaml:2:27: training.learning_rate: \"1e999\" is out of range; expected a number above 0, at most 10");
    refused(SOURCES "training: {learning_rate: 1e-310}\n",
            "p.yaml:2:27: training.learning_rate: \"1e-310\" is out of range; expected a number above 0, at most 10");
    refused(SOURCES "training: {seed: -1}\n",
            "p.yaml:2:18: training.seed: \"-1\" is out of range; expected a whole number from 0 to 18446744073709551615");
    refused(SOURCES "training: {seed: 18446744073709551616}\n",
            "p.yaml:2:18: training.seed: \"18446744073709551616\" is out of range; expected a whole number from 0 to 18446744073709551615");
}

/* ---- what is refused ---- */

static void wrong_types_name_line_column_and_expectation(void **state) {
    (void)state;
    refused(SOURCES "training: {seed: '5'}\n",
            "p.yaml:2:18: training.seed: \"5\" in quotes is text, not a number; expected a whole number from 0 to 18446744073709551615");
    refused(SOURCES "cluster:\n  insecure: yes\n",
            "p.yaml:3:13: cluster.insecure: \"yes\" is a truth value in old YAML and a word in new YAML; expected true or false");
    refused(SOURCES "cluster:\n  insecure: Off\n",
            "p.yaml:3:13: cluster.insecure: \"Off\" is a truth value in old YAML and a word in new YAML; expected true or false");
    refused(SOURCES "cluster:\n  insecure: 1\n", "p.yaml:3:13: cluster.insecure: \"1\" is not a truth value; expected true or false");
    refused(SOURCES "cluster:\n  insecure: 'true'\n",
            "p.yaml:3:13: cluster.insecure: \"true\" in quotes is text, not a truth value; expected true or false");
    refused(SOURCES "cluster:\n  compression: gzip\n",
            "p.yaml:3:16: cluster.compression: \"gzip\" is not known; expected one of zstd, none");
    refused(SOURCES "model: {activation_function: relu}\n",
            "p.yaml:2:30: model.activation_function: \"relu\" is not known; expected gelu_new");
    refused("dataset: {sources: a, tokenizer: bert}\n", "p.yaml:1:34: dataset.tokenizer: \"bert\" is not known; expected gpt2, or a path");
    refused(
        SOURCES "model:\n  n_layer:\n",
        "p.yaml:3:11: model.n_layer: has no value; leave it out, or write null, for the default; expected a whole number from 1 to 1024");
    refused(SOURCES "model: {n_layer: [1, 2]}\n", "p.yaml:2:18: model.n_layer: is a list; expected a whole number from 1 to 1024");
    refused(SOURCES "model: {n_layer: {a: 1}}\n",
            "p.yaml:2:18: model.n_layer: is a mapping or nested list; expected a whole number from 1 to 1024");
    refused("run_name: {a: 1}\n" SOURCES, "p.yaml:1:11: run_name: is a section; expected text of 1 to 100 bytes");
    refused("run_name: ''\n" SOURCES, "p.yaml:1:11: run_name: \"\" is empty; expected text of 1 to 100 bytes");
    refused("run_name: \"a\\0b\"\n" SOURCES,
            "p.yaml:1:11: run_name: \"a\\x00b\" has a NUL character in it; expected text of 1 to 100 bytes");
    refused("run_name: a/b\n" SOURCES,
            "p.yaml:1:11: run_name: \"a/b\" cannot name a folder; expected text without / "
            "that does not begin with a dot, or an output_dir");
    refused("run_name: ..\n" SOURCES,
            "p.yaml:1:11: run_name: \"..\" cannot name a folder; expected text without / that does not begin with a dot, or an output_dir");
    refused("run_name: \"a\\tb\"\noutput_dir: o\n" SOURCES,
            "p.yaml:1:11: run_name: \"a\\x09b\" has control characters; expected one line of text");
    refused(SOURCES "training: fast\n", "p.yaml:2:11: training: is a value; expected a section: keys indented below, or { key: value }");
    refused(SOURCES "training: [1]\n", "p.yaml:2:11: training: is a value; expected a section: keys indented below, or { key: value }");
}

static void long_values_are_cut_between_characters(void **state) {
    (void)state;
    char *text = mem_format(SOURCES "model: {n_layer: %0200d}\n", 1);
    refused_with(text, "model.n_layer: \"0000000000000000000000000000000000000000000000000");
    refused_with(text, "...\" is not a whole number; expected a whole number from 1 to 1024");
    free(text);
    char value[3 * 60 + 1] = "";
    for (int i = 0; i < 60; i++) strcat(value, "\xE2\x82\xAC");
    text = mem_format(SOURCES "model: {n_layer: %s}\n", value);
    refused_with(text, "\xE2\x82\xAC...\" is not a whole number");
    free(text);
}

static void sources_are_required_and_are_paths(void **state) {
    (void)state;
    const char *missing = "is missing; expected a list of text files or globs: sources: [\"corpus/**/*.txt\"]";
    char *at_start = mem_format("p.yaml:1:1: dataset.sources: %s", missing),
         *at_dataset = mem_format("p.yaml:3:1: dataset.sources: %s", missing);
    refused("", at_start);
    refused("# nothing but this\n", at_start);
    refused("---\n", at_start);
    refused("{}\n", at_start);
    refused("model: {n_layer: 2}\n", at_start);
    refused("run_name: x\n\ndataset:\n  tokenizer: gpt2\n", at_dataset);
    refused("run_name: x\n\ndataset:\n", at_dataset);
    refused("run_name: x\n\ndataset: {sources: []}\n", at_dataset);
    free(at_start);
    free(at_dataset);
    const char *expected = "expected a list of paths, globs or URLs, [\"corpus/*.txt\"], or of mappings, [{path: web, weight: 2}]";
    char *message = mem_format("p.yaml:3:4: dataset.sources: an entry of the list is empty; %s", expected);
    refused("dataset:\n  sources:\n  - \n  - a\n", message);
    free(message);
    message = mem_format("p.yaml:3:8: dataset.sources: \"ftp://example.org/a.txt\" is a URL of another kind than http:// and https://; %s",
                         expected);
    refused("dataset: {\n  sources: [a,\n       ftp://example.org/a.txt]}\n", message);
    free(message);
    message = mem_format("p.yaml:1:20: dataset.sources: is a mapping or nested list; %s", expected);
    refused("dataset: {sources: [a, [b]]}\n", message);
    free(message);
}

static void unknown_keys_are_answered_with_the_nearest(void **state) {
    (void)state;
    refused(SOURCES "training:\n  learning_rat: 1\n",
            "p.yaml:3:3: training.learning_rat: unknown key; did you mean training.learning_rate?");
    refused(SOURCES "training:\n  max-steps: 1\n", "p.yaml:3:3: training.max-steps: unknown key; did you mean training.max_steps?");
    refused(SOURCES "model: {n_haed: 1}\n", "p.yaml:2:9: model.n_haed: unknown key; did you mean model.n_head?");
    refused(SOURCES "trainning: {seed: 1}\n", "p.yaml:2:1: trainning: unknown key; did you mean training?");
    refused(SOURCES "Model: {n_head: 1}\n", "p.yaml:2:1: Model: unknown key; did you mean model?");
    refused(SOURCES "cluster: {worker: 1}\n", "p.yaml:2:11: cluster.worker: unknown key; did you mean cluster.workers?");
    refused(SOURCES "training: {warmup: 1}\n",
            "p.yaml:2:12: training.warmup: unknown key; did you mean training.warmup_steps?");
    refused(SOURCES "zebra: 1\n",
            "p.yaml:2:1: zebra: unknown key; expected one of run_name, output_dir, cluster, dataset, model, training, sample");
    refused(SOURCES "sample: {zebra: 1}\n",
            "p.yaml:2:10: sample.zebra: unknown key; expected one of prompt, max_new_tokens, temperature, top_k");
}

static void keys_in_the_wrong_section_are_answered_with_the_right_one(void **state) {
    (void)state;
    refused(SOURCES "training: {n_layer: 1}\n",
            "p.yaml:2:12: training.n_layer: unknown key; write model.n_layer: it belongs into section model");
    refused(SOURCES "learning_rate: 1\n",
            "p.yaml:2:1: learning_rate: unknown key; write training.learning_rate: it belongs into section training");
    refused(SOURCES "training: {output_dir: x}\n",
            "p.yaml:2:12: training.output_dir: unknown key; write output_dir at the top level, outside every section");
    refused(SOURCES "training: {run_name: x}\n",
            "p.yaml:2:12: training.run_name: unknown key; write run_name at the top level, outside every section");
    refused(SOURCES "n_ctx: 1\n", "p.yaml:2:1: n_ctx: unknown key; write model.n_positions: it belongs into section model");
    refused(SOURCES "training.seed: 1\n",
            "p.yaml:2:1: \"training.seed\" is not a key; expected the section's name with its keys indented below");
}

static void names_of_other_tools_are_answered_with_what_to_write(void **state) {
    (void)state;
    refused(
        SOURCES "training: {per_device_train_batch_size: 8}\n",
        "p.yaml:2:12: training.per_device_train_batch_size: not used here; write training.global_batch, the sequences of a step over all "
        "workers, and training.micro_batch, those that a worker computes at a time");
    refused_with(SOURCES "training: {gradient_accumulation_steps: 8}\n", "training.global_batch is the whole step");
    refused_with(SOURCES "training: {gradient_checkpointing_kwargs: {a: 1}}\n", "write training.gradient_checkpointing");
    refused_with(SOURCES "training: {warmup_ratio: 0.1}\n", "write training.warmup_steps");
    refused_with(SOURCES "training: {lr_scheduler_kwargs: {a: {b: 1}}}\n",
                 "p.yaml:2:12: training.lr_scheduler_kwargs: not used here; write");
    refused_with(SOURCES "model: {hidden_size: 8}\n", "write model.n_embd");
    static const char *const model[] = {
        "reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx", "summary_type", "summary_use_proj", "summary_activation",
        "summary_proj_to_labels", "summary_first_dropout", "use_cache", "add_cross_attention",
    };
    for (size_t i = 0; i < sizeof model / sizeof model[0]; i++) {
        char *text = mem_format(SOURCES "model: {%s: 1}\n", model[i]);
        refused_with(text, "not used here; leave it out");
        free(text);
    }
    static const char *const training[] = {
        "fp16", "logging_dir", "report_to", "evaluation_strategy", "eval_strategy", "save_strategy", "dataloader_num_workers",
        "no_cuda", "use_cpu", "overwrite_output_dir", "do_train", "do_eval", "push_to_hub", "deepspeed", "fsdp", "torch_compile",
        "gradient_checkpointing_kwargs", "group_by_length",
    };
    for (size_t i = 0; i < sizeof training / sizeof training[0]; i++) {
        char *text = mem_format(SOURCES "training: {%s: 1}\n", training[i]);
        refused_with(text, "not used here; ");
        free(text);
    }
}

static void no_key_is_also_a_foreign_name(void **state) {
    (void)state;
    for (size_t i = 0; i < field_count; i++) {
        assert_null(name_foreign(fields[i].key));
        if (fields[i].alias) assert_null(name_foreign(fields[i].alias));
    }
}

static void duplicates_are_refused(void **state) {
    (void)state;
    refused(SOURCES "model:\n  n_layer: 1\n  n_layer: 1\n", "p.yaml:4:3: model.n_layer: given twice, first in line 3; expected it once");
    refused(SOURCES "model: {n_layer: 1}\nmodel: {n_head: 1}\n", "p.yaml:3:1: model: given twice, first in line 2; expected it once");
    refused(SOURCES "run_name: a\nrun_name: b\n", "p.yaml:3:1: run_name: given twice, first in line 2; expected it once");
}

static void both_names_of_a_key_must_agree(void **state) {
    (void)state;
    struct config c = accepted(SOURCES "model: {n_ctx: 256, n_positions: 256}\n");
    assert_int_equal(c.model.n_positions, 256);
    config_free(&c);
    refused(
        SOURCES "model:\n  n_positions: 256\n  n_ctx: 128\n",
        "p.yaml:4:10: model.n_ctx: 128 differs from the 256 of line 3, and n_ctx is another name for n_positions; expected one of them");
    refused(SOURCES "model:\n  n_ctx: 128\n  n_positions: 256\n", "p.yaml:4:16: model.n_positions: 256 differs from the 128 of line 3, and "
                                                                  "n_ctx is another name for n_positions; expected one of them");
}

static void anchors_aliases_and_tags_are_refused(void **state) {
    (void)state;
    refused("run_name: &a x\n" SOURCES, "p.yaml:1:11: anchor \"a\" is not used here; expected the value itself");
    refused("run_name: *a\n" SOURCES, "p.yaml:1:11: alias \"a\" is not used here; expected the value itself");
    refused(SOURCES "model: &m {n_layer: 1}\n", "p.yaml:2:8: anchor \"m\" is not used here; expected the value itself");
    refused("dataset: {sources: &s [a]}\n", "p.yaml:1:20: anchor \"s\" is not used here; expected the value itself");
    refused("<<: *a\n", "p.yaml:1:5: alias \"a\" is not used here; expected the value itself");
    refused("run_name: !!str x\n", "p.yaml:1:11: tag \"tag:yaml.org,2002:str\" is not used here; expected a plain value");
    refused("run_name: ! x\n", "p.yaml:1:11: tag \"!\" is not used here; expected a plain value");
    refused("model: !python/object:os.system {a: 1}\n",
            "p.yaml:1:8: tag \"!python/object:os.system\" is not used here; expected a plain value");
    refused("dataset: {sources: !!seq [a]}\n", "p.yaml:1:20: tag \"tag:yaml.org,2002:seq\" is not used here; expected a plain value");
    refused("%TAG ! tag:x,2000:\n---\n" SOURCES, "p.yaml:1:1: %TAG is not used here; expected plain values");
}

static void one_mapping_is_expected(void **state) {
    (void)state;
    refused(SOURCES "---\n" SOURCES, "p.yaml:2:1: a second document begins; expected one");
    refused("- a\n", "p.yaml:1:1: this is not a mapping; expected \"key: value\" lines");
    refused("hello\n", "p.yaml:1:1: this is not a mapping; expected \"key: value\" lines");
    refused("? [a]\n: b\n", "p.yaml:1:3: a key is a list or a mapping; expected a name");
    struct config c = accepted("%YAML 1.1\n---\n" SOURCES "...\n");
    config_free(&c);
    c = accepted("\xEF\xBB\xBF" SOURCES); /* a byte order mark */
    config_free(&c);
    c = accepted("dataset:\r\n  sources: a.txt\r\n");
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], FOLDER "/a.txt");
    config_free(&c);
}

static void broken_yaml_is_refused_where_it_breaks(void **state) {
    (void)state;
    refused_with("model: {n_layer: 1\n", "p.yaml:2:1: did not find expected ',' or '}' while parsing a flow mapping; expected YAML");
    refused_with("run_name: \"x\n", "p.yaml:2:1: found unexpected end of stream while scanning a quoted scalar; expected YAML");
    refused_with("model:\n\tn_layer: 1\n", "p.yaml:2:1: found character that cannot start any token");
    refused_with(SOURCES "run_name: @x\n", "p.yaml:2:11: found character that cannot start any token");
    refused_with(SOURCES "run_name: a: b\n", "p.yaml:2:12: mapping values are not allowed in this context");
}

static void text_that_is_not_utf8_is_refused_at_its_place(void **state) {
    (void)state;
    refused("# \xC3\xA4\nrun_name: a\xE4 fin\n", "p.yaml:2:13: invalid trailing UTF-8 octet; expected printable text in UTF-8");
    refused("# \xC3\xA4\nrun_name: \xC3\xA4\xFF\n", "p.yaml:2:12: invalid leading UTF-8 octet; expected printable text in UTF-8");
    refused("run_name: a\x01\n", "p.yaml:1:12: control characters are not allowed; expected printable text in UTF-8");
    refused_with("\xFF\xFEr\0u\0n\0", "p.yaml:1:1: invalid leading UTF-8 octet");
    static const char with_nul[] = "run_name: a\0b\n";
    struct config c;
    assert_int_equal(config_parse(&c, "p.yaml", with_nul, sizeof with_nul - 1, FOLDER, NULL, 0), ERR_CONFIG);
    assert_string_equal(err_text(), "p.yaml:1:12: control characters are not allowed; expected printable text in UTF-8");
}

static void null_stands_for_the_default(void **state) {
    (void)state;
    struct config plain = accepted(SOURCES),
                  c = accepted(
                      "run_name: null\n" SOURCES
                      "model: {n_inner: ~, n_ctx: 128, n_positions: null, eos_token_id: null, vocab_size: NULL}\n"
                      "training: {lr_scheduler_type: Null, bf16: null, learning_rate: null, seed: null}\nsample: {prompt: null}\n");
    assert_int_equal(c.model.n_positions, 128);
    c.model.n_positions = plain.model.n_positions;
    c.dataset.sequence_length = plain.dataset.sequence_length;
    struct buf altering = {0}, others = {0};
    assert_int_equal(config_compare(&altering, &others, &plain, &c), 0);
    assert_int_equal(altering.size + others.size, 0);
    assert_string_equal(c.sample.prompt, plain.sample.prompt);
    buf_free(&altering), buf_free(&others);
    config_free(&c), config_free(&plain);
    refused("dataset: {sources: null}\n", "p.yaml:1:1: dataset.sources: is missing; expected a list of text files or globs: sources: "
                                          "[\"corpus/**/*.txt\"]");
    refused(SOURCES "training: {learning_rat: null}\n",
            "p.yaml:2:12: training.learning_rat: unknown key; did you mean training.learning_rate?");
}

static void truth_is_written_as_yaml_and_python_write_it(void **state) {
    (void)state;
    static const char *const forms[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
    for (size_t i = 0; i < 6; i++) {
        char text[128];
        snprintf(text, sizeof text, SOURCES "training: {bf16: %s}\n", forms[i]);
        struct config c = accepted(text);
        assert_int_equal(c.training.bf16, i < 3);
        config_free(&c);
    }
    static const char *const words[] = {"tRue", "TRue", "truE", "fALSE", "t", "1"};
    for (size_t i = 0; i < 6; i++) {
        char text[128];
        snprintf(text, sizeof text, SOURCES "training: {bf16: %s}\n", words[i]);
        refused_with(text, "is not a truth value");
    }
}

/* What people paste from elsewhere is accepted where it asks for nothing else than what is done. */
static void foreign_keys_that_say_nothing_are_accepted(void **state) {
    (void)state;
    static const char *const nothing[] = {"fp16: False",
                                          "gradient_accumulation_steps: 1",
                                          "report_to: none",
                                          "report_to: []",
                                          "report_to: [none]",
                                          "push_to_hub: false",
                                          "warmup_ratio: 0.0",
                                          "local_rank: -1",
                                          "hub_token: null",
                                          "deepspeed:",
                                          "tie_word_embeddings: true",
                                          "eval_strategy: steps",
                                          "neftune_noise_alpha: ~",
                                          "architectures: [GPT2LMHeadModel]",
                                          "use_cache: TRUE",
                                          "label_smoothing: 0",
                                          "past_index: -1.0"};
    static const char *const something[] = {
        "fp16: true",        "gradient_accumulation_steps: 4", "report_to: wandb", "report_to: [none, wandb]", "push_to_hub: true",
        "warmup_ratio: 0.1", "eval_strategy: epoch",           "hub_token: x",     "fp16: [[false]]",          "fp16: {a: false}",
        "warmup_ratio: ''"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        char text[128];
        snprintf(text, sizeof text, SOURCES "training:\n  %s\n", nothing[i]);
        struct config c = accepted(text);
        config_free(&c);
    }
    for (size_t i = 0; i < sizeof something / sizeof *something; i++) {
        char text[128];
        snprintf(text, sizeof text, SOURCES "training:\n  %s\n", something[i]);
        refused_with(text, "not used here");
    }
    refused_with(SOURCES "training: {per_device_eval_batch_size: 4}\n", "leave it out: the loss does not depend on it");
}

static void all_faults_are_told_at_once(void **state) {
    (void)state;
    refused("run_name: a/b\ndataset: {sources: a, tokenizer: bert}\nmodel: {n_layer: 0, n_head: 5}\n"
            "training: {fp16: true, slices: 3, lr_scheduler_type: constant}\ntrainning: {seed: 1, a: {b: 1}}\n",
            "p.yaml:1:11: run_name: \"a/b\" cannot name a folder; expected text without / "
            "that does not begin with a dot, or an output_dir\n"
            "p.yaml:2:34: dataset.tokenizer: \"bert\" is not known; expected gpt2, or a path\n"
            "p.yaml:3:18: model.n_layer: \"0\" is out of range; expected a whole number from 1 to 1024\n"
            "p.yaml:3:29: model.n_head: model.n_head 5 does not divide model.n_embd 768; expected heads of equal width\n"
            "p.yaml:4:12: training.fp16: not used here; write training.bf16, true or false: products of bfloat16 or of float32\n"
            "p.yaml:4:32: training.slices: training.slices 3 does not divide training.global_batch 8; expected a divisor, such as 2\n"
            "p.yaml:5:1: trainning: unknown key; did you mean training?");
    refused("run_name: a\nrun_name: a/b\ndataset: {sources: [{path: a, path: b}]}\nmodel: {n_layer: 0, n_layer: 1}\nmodel: {n_embd: x}\n"
            "training: {seed: 1, slices: 3, seed: 2}\nrun_name: c\n",
            "p.yaml:2:1: run_name: given twice, first in line 1; expected it once\n"
            "p.yaml:3:31: dataset.sources.path: given twice, first in line 3; expected it once\n"
            "p.yaml:4:18: model.n_layer: \"0\" is out of range; expected a whole number from 1 to 1024\n"
            "p.yaml:4:21: model.n_layer: given twice, first in line 4; expected it once\n"
            "p.yaml:5:1: model: given twice, first in line 4; expected it once\n"
            "p.yaml:5:17: model.n_embd: \"x\" is not a whole number; expected a whole number from 1 to 65536\n"
            "p.yaml:6:29: training.slices: training.slices 3 does not divide training.global_batch 8; expected a divisor, such as 2\n"
            "p.yaml:6:32: training.seed: given twice, first in line 6; expected it once\n"
            "p.yaml:7:1: run_name: given twice, first in line 1; expected it once");
    /* A key that was not understood breaks no rule besides. */
    refused(SOURCES "training: {global_batch: x, slices: 3}\n",
            "p.yaml:2:26: training.global_batch: \"x\" is not a whole number; expected a whole number from 1 to 1048576");
    /* Not more than a screen of them; of long ones fewer. */
    static const char *const integers[] = {"global_batch", "slices",           "micro_batch",   "max_steps",
                                           "warmup_steps", "num_decay_steps",  "eval_steps",    "eval_sequences",
                                           "save_steps",   "save_total_limit", "logging_steps", "max_bad_steps"};
    static const char *const rest[] = {"\nand 2 faults more", "faults more"};
    for (int kind = 0; kind < 2; kind++) {
        struct buf many = {0};
        assert_int_equal(buf_print(&many, SOURCES "training:\n"), 0);
        for (int i = 0; i < 12; i++)
            assert_int_equal(kind ? buf_print(&many, "  nothing_like_it_%c: 1\n", 'a' + i) : buf_print(&many, "  %s: x\n", integers[i]), 0);
        refused_with((const char *)many.data, rest[kind]);
        buf_free(&many);
    }
}

static void constant_has_no_warm_up_as_in_transformers(void **state) {
    (void)state;
    struct config c = accepted(SOURCES "training: {lr_scheduler_type: constant}\n");
    assert_int_equal(c.training.warmup_steps, 0);
    config_free(&c);
    c = accepted(SOURCES "training: {lr_scheduler_type: constant, warmup_steps: 0}\n");
    config_free(&c);
    c = accepted(SOURCES "training: {lr_scheduler_type: constant_with_warmup}\n");
    assert_int_equal(c.training.warmup_steps, 100);
    config_free(&c);
    c = accepted(SOURCES "training: {lr_scheduler_type: constant, warmup_steps: 100}\n"); /* a warning of the coordinator tells that */
    assert_int_equal(c.training.warmup_steps, 100);
    config_free(&c);
}

static void rules_between_keys_name_both(void **state) {
    (void)state;
    refused(SOURCES "model: {vocab_size: 50256}\n",
            "p.yaml:2:21: model.vocab_size: model.vocab_size 50256 does not fit dataset.tokenizer gpt2; expected at least 50257");
    refused(SOURCES "model: {vocab_size: 50304, eos_token_id: 50257}\n",
            "p.yaml:2:42: model.eos_token_id: model.eos_token_id 50257 is not in the vocabulary; expected an id below 50257");
    refused(SOURCES "model: {n_embd: 100, n_head: 8}\n",
            "p.yaml:2:17: model.n_embd: model.n_head 8 does not divide model.n_embd 100; expected heads of equal width");
    refused(SOURCES "model: {n_head: 7}\n",
            "p.yaml:2:17: model.n_head: model.n_head 7 does not divide model.n_embd 768; expected heads of equal width");
    refused(SOURCES "model: {eos_token_id: 50257}\n",
            "p.yaml:2:23: model.eos_token_id: model.eos_token_id 50257 is not in the vocabulary; expected an id below 50257");
    refused(SOURCES "model: {bos_token_id: 60000}\n",
            "p.yaml:2:23: model.bos_token_id: model.bos_token_id 60000 is not in the vocabulary; expected an id below 50257");
    refused(
        "dataset: {sources: a, sequence_length: 1025}\n",
        "p.yaml:1:40: dataset.sequence_length: dataset.sequence_length 1025 is more than model.n_positions 1024; expected at most as many");
    refused(SOURCES "training: {global_batch: 12, slices: 8}\n",
            "p.yaml:2:38: training.slices: training.slices 8 does not divide training.global_batch 12; expected a divisor, such as 6");
    refused(SOURCES "training: {slices: 16}\n",
            "p.yaml:2:20: training.slices: training.slices 16 does not divide training.global_batch 8; expected a divisor, such as 8");
    refused_with(SOURCES "training: {optim: sgd, sgd_nesterov: true, sgd_momentum: 0}\n", "expected a training.sgd_momentum above 0");
    refused_with(SOURCES "training: {eval_ema: true}\n", "training.eval_ema: training.eval_ema has no average to evaluate; expected a");
    refused_with(SOURCES "training: {optimizer: adam}\n", "write training.optim");
    refused_with(SOURCES "training: {min_lr_rate: 0.1}\n", "p.yaml:2:25: training.min_lr_rate: training.min_lr_rate is not used");
    refused_with(SOURCES "training: {num_decay_steps: 9, lr_scheduler_type: polynomial}\n", "expected warmup_stable_decay");
    refused_with(SOURCES "training: {lr_scheduler_type: constant, min_lr: 1}\n", "write training.min_lr_rate");
    struct config c = accepted(SOURCES "training: {global_batch: 12, slices: 3, bf16: false, lr_scheduler_type: warmup_stable_decay,\n"
                                       "  num_decay_steps: 9, min_lr_rate: 0.1, decay_type: 1-sqrt}\n");
    assert_int_equal(c.training.slices, 3);
    assert_int_equal(c.training.decay_type, DECAY_ONE_MINUS_SQRT);
    config_free(&c);
}

/* Of two keys that do not go together the one is named that was given last, and --set comes after the file. */
static void a_fault_of_two_keys_is_told_where_the_nearer_one_was_given(void **state) {
    (void)state;
    static const char *const sets[] = {"model.n_head=8", "model.n_embd=100"};
    static const char *const texts[] = {SOURCES "model: {n_embd: 100}\n", SOURCES "model: {n_head: 8}\n"};
    for (size_t i = 0; i < 2; i++) {
        struct config config;
        char *wanted = mem_format("--set %.*s: model.n_head 8 does not divide model.n_embd 100", (int)strcspn(sets[i], "="), sets[i]);
        assert_int_equal(config_parse(&config, "p.yaml", texts[i], strlen(texts[i]), "/", &sets[i], 1), ERR_CONFIG);
        if (!strstr(err_text(), wanted)) fail_msg("%s", err_text());
        free(wanted);
    }
}

static void tokens_that_end_texts_are_in_the_vocabulary(void **state) {
    (void)state;
    static const char *const keys[] = {"bos_token_id", "eos_token_id"};
    for (size_t i = 0; i < 2; i++) {
        char *last = mem_format(SOURCES "model: {%s: 50256}\n", keys[i]), *past = mem_format(SOURCES "model: {%s: 50257}\n", keys[i]);
        char *wanted = mem_format("p.yaml:2:23: model.%s: model.%s 50257 is not in the vocabulary; expected an id below 50257", keys[i],
                                  keys[i]);
        struct config config = accepted(last);
        config_free(&config);
        refused(past, wanted);
        free(wanted), free(past), free(last);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fault_of_two_keys_is_told_where_the_nearer_one_was_given),
        cmocka_unit_test(tokens_that_end_texts_are_in_the_vocabulary),
        cmocka_unit_test(sources_alone_give_gpt2_small),
        cmocka_unit_test(the_documented_example_is_accepted),
        cmocka_unit_test(unset_slices_become_the_largest_divisor_up_to_eight),
        cmocka_unit_test(unset_sequence_length_follows_n_positions),
        cmocka_unit_test(unset_output_dir_follows_run_name),
        cmocka_unit_test(output_dir_is_no_longer_than_its_database_may_be),
        cmocka_unit_test(a_single_text_is_a_list_of_one_source),
        cmocka_unit_test(paths_start_at_the_folder_and_lose_what_means_nothing),
        cmocka_unit_test(wildcards_in_the_folders_own_name_stay_literal),
        cmocka_unit_test(numbers_have_the_forms_people_write),
        cmocka_unit_test(numbers_of_other_notations_are_refused),
        cmocka_unit_test(bounds_are_allowed_unless_they_are_open),
        cmocka_unit_test(wrong_types_name_line_column_and_expectation),
        cmocka_unit_test(long_values_are_cut_between_characters),
        cmocka_unit_test(sources_are_required_and_are_paths),
        cmocka_unit_test(unknown_keys_are_answered_with_the_nearest),
        cmocka_unit_test(keys_in_the_wrong_section_are_answered_with_the_right_one),
        cmocka_unit_test(names_of_other_tools_are_answered_with_what_to_write),
        cmocka_unit_test(no_key_is_also_a_foreign_name),
        cmocka_unit_test(duplicates_are_refused),
        cmocka_unit_test(both_names_of_a_key_must_agree),
        cmocka_unit_test(anchors_aliases_and_tags_are_refused),
        cmocka_unit_test(one_mapping_is_expected),
        cmocka_unit_test(broken_yaml_is_refused_where_it_breaks),
        cmocka_unit_test(text_that_is_not_utf8_is_refused_at_its_place),
        cmocka_unit_test(null_stands_for_the_default),
        cmocka_unit_test(truth_is_written_as_yaml_and_python_write_it),
        cmocka_unit_test(foreign_keys_that_say_nothing_are_accepted),
        cmocka_unit_test(all_faults_are_told_at_once),
        cmocka_unit_test(constant_has_no_warm_up_as_in_transformers),
        cmocka_unit_test(rules_between_keys_name_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
