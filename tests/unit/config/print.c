/* The configuration printed, explained and compared, and random damage to what was printed. */
#include "tests/unit/config/parse.h"

#include "base/clock.h"
#include "base/philox.h"
#include "config/fields.h"

/* ---- printing, comparing, reference ---- */

static void assert_same(const struct config *a, const struct config *b) {
    struct buf altering = {0}, harmless = {0};
    assert_int_equal(config_compare(&altering, &harmless, a, b), 0);
    if (altering.size || harmless.size)
        fail_msg("differs: %s%s", altering.size ? (char *)altering.data : "", harmless.size ? (char *)harmless.data : "");
    buf_free(&altering);
    buf_free(&harmless);
}

/* Prints, parses in another folder, prints again. */
static void assert_round_trip(const struct config *config) {
    struct buf first = {0}, second = {0};
    struct config again;
    assert_int_equal(config_print(&first, config), 0);
    if (config_parse(&again, "printed", (char *)first.data, first.size, "/elsewhere", NULL, 0) != 0)
        fail_msg("%s\nin\n%s", err_text(), (char *)first.data);
    assert_same(config, &again);
    assert_int_equal(config_print(&second, &again), 0);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
    config_free(&again);
    buf_free(&first);
    buf_free(&second);
}

static void printing_shows_every_key_in_its_shortest_form(void **state) {
    (void)state;
    struct config c = accepted(example);
    struct buf out = {0};
    assert_int_equal(config_print(&out, &c), 0);
    const char *text = (const char *)out.data;
    static const char *const lines[] = {
        "run_name: \"example\"\n", ("\noutput_dir: \"" FOLDER "/runs/example\"\n"), "\ntraining:\n", "\n  learning_rate: 0.001\n",
        "\n  adam_epsilon: 1e-08\n", "\n  adam_beta2: 0.999\n", "\n  n_inner: 0\n", ("\n  sources: [\"" FOLDER "/corpus/**/*.txt\"]\n"),
        "\n  lease_seconds: 10\n", "\n  bf16: false\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (!strstr(text, lines[i])) fail_msg("no %s in\n%s", lines[i], text);
    for (size_t i = 0; i < field_count; i++) {
        char *key = mem_format("%s: ", fields[i].key);
        assert_non_null(strstr(text, key));
        free(key);
    }
    assert_null(strstr(text, "n_ctx"));
    assert_round_trip(&c);
    buf_free(&out);
    config_free(&c);
}

static void awkward_texts_survive_printing(void **state) {
    (void)state;
    struct config c =
        accepted("output_dir: \"a b: #c\\n\\t\\\"\\\\ \\x01\\x7f\\x85\\xa0\\u2028\\u2029\\ufeff\\uffff\\U0001F600 \xC3\xA4\"\n"
                 "run_name: 'null'\ndataset: {sources: ['- x', \"[y]\", '{z}', '&a', '!b', ' ', '%', '~']}\n"
                 "sample: {prompt: \"  two\\r\\n lines \\e \\u2028 \\u2029 \\x85 \"}\n");
    assert_string_equal(c.sample.prompt, "  two\r\n lines \x1b \xE2\x80\xA8 \xE2\x80\xA9 \xC2\x85 ");
    assert_round_trip(&c);
    config_free(&c);
    c = accepted(SOURCES "run_name: true\noutput_dir: 12\n"); /* plain words are texts where a text is expected */
    assert_string_equal(c.run_name, "true");
    assert_string_equal(c.output_dir, FOLDER "/12");
    config_free(&c);
}

struct random {
    uint64_t seed, count;
};

static uint64_t draw(struct random *random, uint64_t below) {
    struct philox_block block = philox(random->seed, 0, random->count++);
    return (((uint64_t)block.word[1] << 32) | block.word[0]) % below;
}

static uint64_t seed_of_this_run(void) {
    const char *given = getenv("MILLRACE_TEST_SEED");
    return given ? strtoull(given, NULL, 10) : (uint64_t)clock_wall_ms();
}

static double draw_real(struct random *random, const struct field *field) {
    for (;;) {
        double low = field->min > 0 ? field->min : 1e-12, unit = (double)draw(random, 1ULL << 53) / 9007199254740992.0;
        double value = draw(random, 2) ? field->min + unit * (field->max - field->min) : low * __builtin_pow(field->max / low, unit);
        if (value >= field->min && value <= field->max && !(field->min_open && value == field->min) &&
            !(field->max_open && value == field->max) && !(field->narrow && (float)value == field->max))
            return value;
    }
}

static void random_values_survive_printing(void **state) {
    (void)state;
    struct random random = {.seed = seed_of_this_run()};
    for (int round = 0; round < 300; round++) {
        struct config c = accepted(example);
        c.training.lr_scheduler_type = SCHEDULER_WARMUP_STABLE_DECAY; /* every key of a schedule may differ from its default */
        for (size_t i = 0; i < field_count; i++) {
            const struct field *field = &fields[i];
            char *slot = (char *)&c + field->offset;
            if (field->type == FIELD_REAL) *(double *)slot = draw_real(&random, field);
            if (field->type == FIELD_SEED) *(uint64_t *)slot = draw(&random, UINT64_MAX) >> draw(&random, 64);
            bool bound = strcmp(field->section, "model") == 0 || field->offset == offsetof(struct config, training.slices) ||
                         field->offset == offsetof(struct config, training.global_batch) ||
                         field->offset == offsetof(struct config, dataset.sequence_length) ||
                         field->offset == offsetof(struct config, dataset.max_characters);
            if (field->type == FIELD_INTEGER && !bound)
                *(int64_t *)slot = (int64_t)field->min + (int64_t)draw(&random, (uint64_t)(field->max - field->min) + 1);
        }
        struct buf first = {0};
        struct config again;
        assert_int_equal(config_print(&first, &c), 0);
        if (config_parse(&again, "printed", (char *)first.data, first.size, "/elsewhere", NULL, 0) != 0)
            fail_msg("MILLRACE_TEST_SEED=%llu: %s", (unsigned long long)random.seed, err_text());
        struct buf differs = {0};
        assert_int_equal(config_compare(&differs, &differs, &c, &again), 0);
        if (differs.size) fail_msg("MILLRACE_TEST_SEED=%llu: %s", (unsigned long long)random.seed, (char *)differs.data);
        config_free(&again);
        config_free(&c);
        buf_free(&first);
    }
}

static void compared(const char *old_set, const char *fresh_set, const char *altering_wanted, const char *harmless_wanted) {
    struct config old = accepted_with(example, old_set), fresh = accepted_with(example, fresh_set);
    struct buf altering = {0}, harmless = {0};
    buf_append(&altering, "", 0);
    buf_append(&harmless, "", 0);
    assert_int_equal(config_compare(&altering, &harmless, &old, &fresh), 0);
    assert_string_equal((char *)altering.data, altering_wanted);
    assert_string_equal((char *)harmless.data, harmless_wanted);
    buf_free(&altering);
    buf_free(&harmless);
    config_free(&old);
    config_free(&fresh);
}

static void comparing_tells_altering_keys_from_harmless_ones(void **state) {
    (void)state;
    compared("training.seed=1", "training.seed=1", "", "");
    compared("training.seed=1", "training.seed=2", "training.seed: 1 -> 2\n", "");
    compared("training.learning_rate=1e-3", "training.learning_rate=0.001", "", "");
    compared("training.max_steps=100", "training.max_steps=200", "training.max_steps: 100 -> 200\n", "");
    compared("training.save_steps=1", "training.save_steps=2", "", "training.save_steps: 1 -> 2\n");
    compared("cluster.workers=1", "cluster.workers=5", "", "cluster.workers: 1 -> 5\n");
    compared("run_name=a", "run_name=b", "", "run_name: \"a\" -> \"b\"\n");
    compared("dataset.sources=a", "dataset.sources=[a, b]",
             "dataset.sources: [\"" FOLDER "/a\"] -> [\"" FOLDER "/a\", \"" FOLDER "/b\"]\n", "");
    compared("training.lr_scheduler_type=linear", "training.seed=42", "training.lr_scheduler_type: linear -> cosine\n", "");
    compared("model.scale_attn_weights=false", "model.scale_attn_weights=true", "model.scale_attn_weights: false -> true\n", "");
    compared("sample.prompt=", "sample.prompt=x", "", "sample.prompt: \"\" -> \"x\"\n");
}

static void the_keys_that_alter_results_are_these(void **state) {
    (void)state;
    static const char *const harmless[] = {
        "training.logging_steps", "training.save_steps", "training.save_total_limit", "training.eval_steps", "training.eval_sequences",
        "training.max_bad_steps", "training.eval_ema", "training.gradient_checkpointing", "dataset.keep_runs",
        "dataset.max_left_out",
    };
    for (size_t i = 0; i < field_count; i++) {
        char name[FIELD_NAME_BYTES];
        field_name(name, &fields[i]);
        const char *section = fields[i].section;
        bool alters = strcmp(section, "dataset") == 0 || strcmp(section, "model") == 0 || strcmp(section, "training") == 0;
        for (size_t k = 0; k < sizeof harmless / sizeof harmless[0]; k++) alters = alters && strcmp(harmless[k], name) != 0;
        if (fields[i].alters != alters) fail_msg("%s: alters is %d", name, fields[i].alters);
    }
}

static void assert_marks(const struct config *config, const char *wanted) {
    struct buf out = {0};
    assert_int_equal(config_print_marks(&out, config), 0);
    assert_string_equal((char *)out.data, wanted);
    buf_free(&out);
}

/* Checkpoints have a digest of these marks: they are what they were, whatever keys there are by now. */
static void a_key_at_its_default_leaves_no_mark(void **state) {
    (void)state;
    static const char always[] = "dataset.sequence_length: 1024\nmodel.vocab_size: 50257\nmodel.bos_token_id: 50256\n"
                                 "model.eos_token_id: 50256\ntraining.slices: 8\n";
    struct config c = accepted(SOURCES);
    assert_marks(&c, always);
    config_free(&c);
    c = accepted_with(SOURCES, "training.seed=42"); /* whether it is written or not */
    assert_marks(&c, always);
    config_free(&c);
    c = accepted(example);
    assert_marks(&c, "dataset.sequence_length: 256\nmodel.vocab_size: 50257\nmodel.n_positions: 256\n"
                     "model.n_embd: 256\nmodel.n_layer: 4\nmodel.n_head: 4\nmodel.resid_pdrop: 0\nmodel.embd_pdrop: 0\n"
                     "model.attn_pdrop: 0\nmodel.bos_token_id: 50256\nmodel.eos_token_id: 50256\ntraining.slices: 4\n"
                     "training.learning_rate: 0.001\ntraining.warmup_steps: 10\n");
    config_free(&c);
}

/* What a checkpoint's missing marks stand for. A new key adds a line; none ever changes. */
static void the_default_of_a_key_that_alters_results_is_for_ever(void **state) {
    (void)state;
    static const char wanted[] =
        "dataset.prepared \n"
        "dataset.tokenizer gpt2\n"
        "dataset.validation_fraction 0.01\n"
        "dataset.shard_tokens 4194304\n"
        "dataset.packing concat\n"
        "dataset.pad_in_loss false\n"
        "dataset.document_mask false\n"
        "dataset.deduplicate none\n"
        "dataset.minhash_bands 14\n"
        "dataset.minhash_rows 8\n"
        "dataset.minhash_words 5\n"
        "dataset.filters []\n"
        "dataset.invalid_utf8 replace\n"
        "dataset.normalization none\n"
        "dataset.min_characters 0\n"
        "dataset.max_characters 0\n"
        "dataset.stopping_strategy first_exhausted\n"
        "dataset.shuffle_window 16\n"
        "model.n_positions 1024\n"
        "model.n_embd 768\n"
        "model.n_layer 12\n"
        "model.n_head 12\n"
        "model.n_inner 0\n"
        "model.activation_function gelu_new\n"
        "model.resid_pdrop 0.1\n"
        "model.embd_pdrop 0.1\n"
        "model.attn_pdrop 0.1\n"
        "model.layer_norm_epsilon 1e-5\n"
        "model.initializer_range 0.02\n"
        "model.scale_attn_weights true\n"
        "training.global_batch 8\n"
        "training.micro_batch 0\n"
        "training.max_steps 0\n"
        "training.num_train_epochs 1\n"
        "training.learning_rate 5e-4\n"
        "training.lr_scheduler_type cosine\n"
        "training.warmup_steps 100\n"
        "training.min_lr_rate 0\n"
        "training.num_decay_steps 0\n"
        "training.decay_type cosine\n"
        "training.power 1\n"
        "training.optim adamw\n"
        "training.optim_state fp32\n"
        "training.weight_decay 0.1\n"
        "training.adam_beta1 0.9\n"
        "training.adam_beta2 0.999\n"
        "training.adam_epsilon 1e-8\n"
        "training.sgd_momentum 0.9\n"
        "training.sgd_nesterov false\n"
        "training.max_grad_norm 1\n"
        "training.ema_decay 0\n"
        "training.label_smoothing_factor 0\n"
        "training.z_loss 0\n"
        "training.seed 42\n"
        "training.bf16 false\n";
    struct buf out = {0};
    for (size_t i = 0; i < field_count; i++)
        if (fields[i].alters && fields[i].fallback)
            assert_int_equal(buf_print(&out, "%s.%s %s\n", fields[i].section, fields[i].key, fields[i].fallback), 0);
    assert_string_equal((char *)out.data, wanted);
    buf_free(&out);
}

static void every_row_of_the_table_is_whole(void **state) {
    (void)state;
    for (size_t i = 0; i < field_count; i++) {
        char name[FIELD_NAME_BYTES];
        field_name(name, &fields[i]);
        assert_ptr_equal(field_find(name), &fields[i]); /* so no two rows have one name */
        assert_true(fields[i].help && fields[i].help[0]);
        assert_true(fields[i].offset < sizeof(struct config));
        assert_true(fields[i].min <= fields[i].max);
        if (fields[i].type == FIELD_CHOICE) assert_non_null(fields[i].names);
        for (size_t k = 0; k < i; k++) assert_int_not_equal(fields[i].offset, fields[k].offset);
        if (!fields[i].fallback && !fields[i].derived) assert_string_equal(name, "dataset.sources");
    }
    assert_null(field_find("nothing"));
    assert_null(field_find("training."));
    assert_null(field_find("training"));
    assert_null(field_find(".run_name"));
    assert_null(field_find(""));
}

static void the_reference_has_a_row_for_every_key(void **state) {
    (void)state;
    struct buf out = {0};
    assert_int_equal(config_reference(&out), 0);
    const char *text = (const char *)out.data;
    for (size_t i = 0; i < field_count; i++) {
        char *row = mem_format("\n| `%s`", fields[i].key);
        if (!strstr(text, row)) fail_msg("no row for %s", fields[i].key);
        free(row);
    }
    assert_non_null(
        strstr(text, "| `learning_rate` | a number above 0, at most 10 |  | `5e-4` | results | highest rate, reached after warm-up |\n"));
    assert_non_null(strstr(text, "| `n_positions` (or `n_ctx`) | a whole number from 1 to 1048576 | tokens | `1024` | results |"));
    assert_non_null(strstr(text, "\n## training\n"));
    for (const char *line = text, *end; *line; line = end + 1) { /* each row has its six cells */
        end = strchr(line, '\n');
        assert_non_null(end);
        size_t bars = 0;
        for (const char *c = line; c < end; c++) bars += *c == '|';
        assert_true(bars == 0 || bars == 7);
    }
    buf_free(&out);
}

/* ---- a file with something wrong in it never does worse than an error ---- */

static size_t mutate(struct random *random, char *text, size_t size, size_t room) {
    static const char *const pieces[] = {
        "&a ", "*a", "!!int ", "{", "}", "[", "]", ": ", "\n", "  ", "\"", "'", "#", "- ", "---\n", "\t", "? ", "|", ">", "null",
        "true", "1e9999", "-1", "\xC3", "\xEF\xBB\xBF", "%", "n_layer: 1\n", "model:\n", ",", "0x1", "\\u2028",
    };
    size_t at = draw(random, size + 1), piece_bytes;
    const char *piece;
    switch (draw(random, 5)) {
    case 0:
        if (at < size) text[at] = (char)draw(random, 256);
        return size;
    case 1: /* remove */
        piece_bytes = draw(random, 8);
        if (at + piece_bytes > size) return size;
        memmove(text + at, text + at + piece_bytes, size - at - piece_bytes);
        return size - piece_bytes;
    case 2: return draw(random, 8) ? size : at; /* cut short, sometimes */
    case 3:                                     /* repeat a part of it */
        piece_bytes = draw(random, 64);
        if (at + piece_bytes > size || size + piece_bytes > room) return size;
        memmove(text + at + piece_bytes, text + at, size - at);
        return size + piece_bytes;
    default:
        piece = pieces[draw(random, sizeof pieces / sizeof pieces[0])];
        piece_bytes = strlen(piece);
        if (size + piece_bytes > room) return size;
        memmove(text + at + piece_bytes, text + at, size - at);
        memcpy(text + at, piece, piece_bytes);
        return size + piece_bytes;
    }
}

static void random_damage_is_accepted_or_refused_with_a_reason(void **state) {
    (void)state;
    enum { ROUNDS = 8000, ROOM = 1 << 15 };
    struct random random = {.seed = seed_of_this_run()};
    struct config valid = accepted_with(
        example, "dataset.sources=[a, {name: n, paths: [b, c], format: csv, field: x}, {path: d, separator: '--', split: validation}]");
    struct buf printed = {0};
    assert_int_equal(config_print(&printed, &valid), 0);
    config_free(&valid);
    int parsed = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const char *start = round % 2 ? example : (const char *)printed.data;
        size_t size = strlen(start);
        char *room = mem_alloc(ROOM);
        memcpy(room, start, size);
        for (uint64_t i = draw(&random, 6) + 1; i > 0; i--) size = mutate(&random, room, size, ROOM);
        char *text = mem_alloc(size); /* of exact size: reading beyond it is seen by the sanitizer */
        memcpy(text, room, size);
        struct config c = {0};
        err_set(ERR_IO, "stale");
        int code = config_parse(&c, "p.yaml", text, size, FOLDER, NULL, 0);
        bool said = strncmp(err_text(), "p.yaml", 6) == 0 && strlen(err_text()) > 20;
        if (code != 0 && (code != ERR_CONFIG || !said))
            fail_msg("MILLRACE_TEST_SEED=%llu round %d: code %d, \"%s\"", (unsigned long long)random.seed, round, code, err_text());
        if (code == 0) assert_round_trip(&c);
        parsed += code == 0;
        config_free(&c);
        free(text);
        free(room);
    }
    buf_free(&printed);
    if (parsed < ROUNDS / 100 || parsed > ROUNDS * 9 / 10)
        fail_msg("MILLRACE_TEST_SEED=%llu: %d of %d accepted: the damage is not what it should be", (unsigned long long)random.seed, parsed,
                 ROUNDS);
}

static void random_settings_are_accepted_or_refused_with_a_reason(void **state) {
    (void)state;
    struct random random = {.seed = seed_of_this_run()};
    static const char *const starts[] = {
        "training.learning_rate=1e-3", "dataset.sources=[a, {path: \"b\", name: x}, c]", "sample.prompt='hello'", "dataset.filters=[c4]",
    };
    for (int round = 0; round < 8000; round++) {
        char set[256] = "";
        const char *start = starts[draw(&random, 4)];
        size_t size = strlen(start);
        memcpy(set, start, size);
        for (uint64_t i = draw(&random, 3) + 1; i > 0; i--) size = mutate(&random, set, size, sizeof set - 1);
        set[size] = 0;
        struct config c = {0};
        err_set(ERR_IO, "stale");
        int code = parse_with(&c, example, set);
        if (code != 0 && (code != ERR_CONFIG || strncmp(err_text(), "--set ", 6) != 0))
            fail_msg("MILLRACE_TEST_SEED=%llu round %d: code %d, \"%s\"", (unsigned long long)random.seed, round, code, err_text());
        if (code == 0) assert_round_trip(&c);
        config_free(&c);
    }
}

static void keys_without_a_part_are_named_when_they_are_no_defaults(void **state) {
    (void)state;
    static const struct {
        const char *text, *unused;
    } cases[] = {
        {"training: {optim: adamw, adam_beta1: 0.8}\n", ""},
        {"training: {optim: adam, sgd_momentum: 0.9, sgd_nesterov: false}\n", ""},
        {"training: {optim: sgd, sgd_momentum: 0.5, sgd_nesterov: true, adam_epsilon: 1e-8}\n", ""},
        {"training: {sgd_momentum: 0, sgd_nesterov: true}\n",
         "training.sgd_momentum 0 has no part with training.optim adamw\n"
         "training.sgd_nesterov true has no part with training.optim adamw\n"},
        {"training: {optim: sgd, adam_beta2: 0.95}\n", "training.adam_beta2 0.95 has no part with training.optim sgd\n"},
        {"dataset: {sources: a, deduplicate: near, minhash_bands: 3, packing: pad}\n", ""},
        {"dataset: {sources: a, deduplicate: exact, minhash_rows: 3}\n",
         "dataset.minhash_rows 3 has no part with dataset.deduplicate exact\n"},
        {"dataset: {prepared: /a, tokenizer: ./b, sequence_length: 8, document_mask: true, shuffle_window: 3}\n", ""},
        {"dataset: {prepared: /a, packing: pad, filters: [c4], minhash_words: 3}\n",
         "dataset.packing pad has no part with dataset.prepared \"/a\"\ndataset.minhash_words 3 has no part with dataset.prepared \"/a\"\n"
         "dataset.filters [c4] has no part with dataset.prepared \"/a\"\n"},
        {"dataset: {sources: [a], packing: best_fit, pad_in_loss: true, deduplicate: near, minhash_rows: 4}\n", ""},
        {"dataset: {sources: [a], pad_in_loss: true, minhash_rows: 4}\n",
         "dataset.pad_in_loss true has no part with dataset.packing concat\n"
         "dataset.minhash_rows 4 has no part with dataset.deduplicate none\n"},
        {"training: {lr_scheduler_type: polynomial, power: 2, num_train_epochs: 3}\n", ""},
        {"training: {lr_scheduler_type: warmup_stable_decay, decay_type: linear, max_steps: 20}\n", ""},
        {"training: {power: 2, decay_type: linear, num_train_epochs: 3, max_steps: 20}\n",
         "training.num_train_epochs 3 has no part with training.max_steps 20\n"
         "training.decay_type linear has no part with training.lr_scheduler_type cosine\n"
         "training.power 2 has no part with training.lr_scheduler_type cosine\n"},
        {"training: {lr_scheduler_type: constant, warmup_steps: 5}\n",
         "training.warmup_steps 5 has no part with training.lr_scheduler_type constant, as in transformers: constant_with_warmup has a "
         "warm-up\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf unused = {0};
        char *text = mem_format("%s%s", strncmp(cases[i].text, "dataset", 7) == 0 ? "" : SOURCES, cases[i].text);
        struct config c = accepted(text);
        assert_int_equal(config_print_warnings(&unused, &c, 0), 0);
        assert_string_equal(unused.size ? (const char *)unused.data : "", cases[i].unused);
        buf_free(&unused);
        config_free(&c);
        free(text);
    }
}

static void a_warm_up_that_the_run_does_not_get_through_is_named(void **state) {
    (void)state;
    static const struct {
        uint64_t max_steps;
        bool told;
    } cases[] = {{0, false}, {101, false}, {100, true}, {1, true}};
    struct config c = accepted(SOURCES);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf text = {0};
        assert_int_equal(config_print_warnings(&text, &c, cases[i].max_steps), 0);
        assert_int_equal(text.size != 0, cases[i].told);
        if (cases[i].told) assert_non_null(strstr((char *)text.data, "training.warmup_steps 100 are not over"));
        buf_free(&text);
    }
    config_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(printing_shows_every_key_in_its_shortest_form),
        cmocka_unit_test(awkward_texts_survive_printing),
        cmocka_unit_test(random_values_survive_printing),
        cmocka_unit_test(comparing_tells_altering_keys_from_harmless_ones),
        cmocka_unit_test(the_keys_that_alter_results_are_these),
        cmocka_unit_test(keys_without_a_part_are_named_when_they_are_no_defaults),
        cmocka_unit_test(a_warm_up_that_the_run_does_not_get_through_is_named),
        cmocka_unit_test(a_key_at_its_default_leaves_no_mark),
        cmocka_unit_test(the_default_of_a_key_that_alters_results_is_for_ever),
        cmocka_unit_test(every_row_of_the_table_is_whole),
        cmocka_unit_test(the_reference_has_a_row_for_every_key),
        cmocka_unit_test(random_damage_is_accepted_or_refused_with_a_reason),
        cmocka_unit_test(random_settings_are_accepted_or_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
