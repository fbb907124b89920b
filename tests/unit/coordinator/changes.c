/* The whole table of what may change over an output_dir: every key of config/fields.c, at every number of steps done. A new key without a
 * row here fails. tests/e2e/test_lifecycle.py does the same through the binary. */
#include "coordinator/changes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "config/fields.h"
#include "coordinator/context.h"
#include "coordinator/runs.h"
#include "dataset/source/sources.h"
#include "proto/frame.h"
#include "model/optim/optimizer.h"

enum kind { ALTERS, LENGTH, FREE };
static const struct row {
    const char *key, *value;
    enum kind kind;
    const char *with[3]; /* of both pipelines: without these the value would be refused, is the default, or has no part */
} rows[] = {
    {"run_name", "another", FREE, {"output_dir=out"}},
    {"output_dir", "elsewhere", FREE, {0}},
    {"cluster.workers", "7", FREE, {0}},
    {"cluster.threads_per_worker", "3", FREE, {0}},
    {"cluster.lease_seconds", "33", FREE, {0}},
    {"cluster.attempts_max", "9", FREE, {0}},
    {"cluster.cache_mib", "8", FREE, {0}},
    {"cluster.compression", "none", FREE, {0}},
    {"cluster.insecure", "true", FREE, {0}},
    {"dataset.sources", "[other.txt]", ALTERS, {0}},
    {"dataset.prepared", "made-before", ALTERS, {"dataset.sources=[]", "dataset.prepared=made"}},
    {"dataset.tokenizer", "./tokenizer", ALTERS, {0}},
    {"dataset.sequence_length", "16", ALTERS, {0}},
    {"dataset.validation_fraction", "0.5", ALTERS, {0}},
    {"dataset.shard_tokens", "4096", ALTERS, {0}},
    {"dataset.packing", "pad", ALTERS, {0}},
    {"dataset.pad_in_loss", "true", ALTERS, {"dataset.packing=pad"}},
    {"dataset.document_mask", "true", ALTERS, {0}},
    {"dataset.deduplicate", "exact", ALTERS, {0}},
    {"dataset.minhash_bands", "20", ALTERS, {"dataset.deduplicate=near"}},
    {"dataset.minhash_rows", "9", ALTERS, {"dataset.deduplicate=near"}},
    {"dataset.minhash_words", "3", ALTERS, {"dataset.deduplicate=near"}},
    {"dataset.filters", "[c4]", ALTERS, {0}},
    {"dataset.invalid_utf8", "drop", ALTERS, {0}},
    {"dataset.normalization", "NFC", ALTERS, {0}},
    {"dataset.min_characters", "10", ALTERS, {0}},
    {"dataset.max_characters", "10000", ALTERS, {0}},
    {"dataset.stopping_strategy", "all_exhausted", ALTERS, {0}},
    {"dataset.shuffle_window", "0", ALTERS, {0}},
    {"dataset.max_left_out", "0.5", FREE, {0}},
    {"dataset.keep_runs", "false", FREE, {0}},
    {"model.vocab_size", "60000", ALTERS, {0}},
    {"model.n_positions", "64", ALTERS, {"dataset.sequence_length=32"}},
    {"model.n_embd", "48", ALTERS, {0}},
    {"model.n_layer", "3", ALTERS, {0}},
    {"model.n_head", "4", ALTERS, {0}},
    {"model.n_inner", "100", ALTERS, {0}},
    {"model.activation_function", NULL, ALTERS, {0}}, /* has but one value */
    {"model.resid_pdrop", "0", ALTERS, {0}},
    {"model.embd_pdrop", "0", ALTERS, {0}},
    {"model.attn_pdrop", "0", ALTERS, {0}},
    {"model.layer_norm_epsilon", "1e-6", ALTERS, {0}},
    {"model.initializer_range", "0.01", ALTERS, {0}},
    {"model.scale_attn_weights", "false", ALTERS, {0}},
    {"model.bos_token_id", "5", ALTERS, {0}},
    {"model.eos_token_id", "5", ALTERS, {0}},
    {"training.global_batch", "16", ALTERS, {"training.slices=4"}},
    {"training.slices", "2", ALTERS, {0}},
    {"training.micro_batch", "1", ALTERS, {0}},
    {"training.max_steps", "12", LENGTH, {0}},
    {"training.num_train_epochs", "2", LENGTH, {"training.max_steps=0"}},
    {"training.learning_rate", "0.01", ALTERS, {0}},
    {"training.lr_scheduler_type", "linear", ALTERS, {0}},
    {"training.warmup_steps", "3", ALTERS, {0}},
    {"training.min_lr_rate", "0.1", ALTERS, {"training.lr_scheduler_type=cosine_with_min_lr"}},
    {"training.num_decay_steps", "2", ALTERS, {"training.lr_scheduler_type=warmup_stable_decay"}},
    {"training.decay_type", "linear", ALTERS, {0}},
    {"training.power", "2", ALTERS, {"training.lr_scheduler_type=polynomial"}},
    {"training.optim", "sgd", ALTERS, {0}},
    {"training.optim_state", "bf16", ALTERS, {0}},
    {"training.weight_decay", "0", ALTERS, {0}},
    {"training.adam_beta1", "0.8", ALTERS, {0}},
    {"training.adam_beta2", "0.99", ALTERS, {0}},
    {"training.adam_epsilon", "1e-7", ALTERS, {0}},
    {"training.sgd_momentum", "0.5", ALTERS, {"training.optim=sgd"}},
    {"training.sgd_nesterov", "true", ALTERS, {"training.optim=sgd"}},
    {"training.max_grad_norm", "0", ALTERS, {0}},
    {"training.ema_decay", "0.9", ALTERS, {0}},
    {"training.eval_ema", "true", FREE, {"training.ema_decay=0.9"}},
    {"training.label_smoothing_factor", "0.1", ALTERS, {0}},
    {"training.z_loss", "1e-4", ALTERS, {0}},
    {"training.eval_steps", "7", FREE, {0}},
    {"training.eval_sequences", "7", FREE, {0}},
    {"training.save_steps", "7", FREE, {0}},
    {"training.save_total_limit", "7", FREE, {0}},
    {"training.logging_steps", "7", FREE, {0}},
    {"training.max_bad_steps", "7", FREE, {0}},
    {"training.seed", "7", ALTERS, {0}},
    {"training.bf16", "true", ALTERS, {0}},
    {"training.gradient_checkpointing", "true", FREE, {0}},
    {"sample.prompt", "Once", FREE, {0}},
    {"sample.max_new_tokens", "7", FREE, {0}},
    {"sample.temperature", "0", FREE, {0}},
    {"sample.top_k", "7", FREE, {0}},
};
enum { ROWS = sizeof rows / sizeof *rows, STEPS = 6 };

/* Changes inside an entry of dataset.sources. */
#define TWO "dataset.sources=[{ name: a, path: x.txt }, { name: h, path: h.txt, split: validation }]"
#define CHANGED(a, h) "dataset.sources=[{ " a " }, { name: h, path: h.txt" h " }]"
static const struct {
    const char *key, *value;
} inside[] = {
    {"name", CHANGED("name: b, path: x.txt", ", split: validation")},
    {"paths", CHANGED("name: a, path: y.txt", ", split: validation")},
    {"members", CHANGED("name: a, path: x.txt, members: [y]", ", split: validation")},
    {"weight", CHANGED("name: a, path: x.txt, weight: 1", ", split: validation")},
    {"format", CHANGED("name: a, path: x.txt, format: lines", ", split: validation")},
    {"field", CHANGED("name: a, path: x.txt, field: body", ", split: validation")},
    {"separator", CHANGED("name: a, path: x.txt, separator: z", ", split: validation")},
    {"split", CHANGED("name: a, path: x.txt", "")},
};
enum { INSIDE = sizeof inside / sizeof *inside };

/* How far a run is, in steps done. Before the first one - fresh, tokenizing, packed, waiting for step 1 - there is nothing to lose. */
static const uint64_t stages[] = {0, 1, STEPS / 2, STEPS};
enum { STAGES = sizeof stages / sizeof *stages };

static const char base[] =
    "output_dir: out\n"
    "dataset: { sources: [{ name: a, path: x.txt }], sequence_length: 32 }\n"
    "model: { n_layer: 1, n_head: 2, n_embd: 32, n_positions: 32 }\n"
    "training: { global_batch: 8, slices: 4, max_steps: 6, warmup_steps: 0 }\n";

/* The base with the keys of `with` (up to a NULL, or none), then `last`. */
static struct config configure(const char *const with[3], const char *last) {
    const char *sets[4];
    size_t count = 0;
    struct config config;
    for (size_t i = 0; i < 3 && with && with[i]; i++) sets[count++] = with[i];
    if (last) sets[count++] = last;
    if (config_parse(&config, "base", base, sizeof base - 1, "/tmp", sets, count) < 0) fail_msg("%s: %s", last, err_text());
    return config;
}

static bool told(const char *text, const char *word) { return strstr(text, word) != NULL; }

/* What changes_decide() says: its outcome, or -1 when it refuses. `altering` is what it appended, as text. */
static int decided(char altering[4096], const struct config *old, const struct config *fresh, uint64_t done) {
    struct buf out = {0};
    enum change change = (enum change)99;
    int code = changes_decide(&change, &out, old, fresh, done);
    snprintf(altering, 4096, "%.*s", (int)out.size, out.data ? (const char *)out.data : "");
    buf_free(&out);
    if (code < 0) {
        assert_int_equal(code, ERR_CONFIG);
        assert_int_equal(change, 99); /* outputs stay untouched */
        return -1;
    }
    return (int)change;
}

static void check(const struct config *old, const struct config *fresh, const char *key, enum kind kind) {
    char altering[4096], line[100];
    snprintf(line, sizeof line, "%s: ", key);
    for (size_t i = 0; i < STAGES; i++) {
        int wanted = kind == FREE ? (int)CHANGE_NONE : stages[i] == 0 ? (int)CHANGE_ANEW : kind == LENGTH ? (int)CHANGE_LENGTH : -1;
        int got = decided(altering, old, fresh, stages[i]);
        if (got != wanted) fail_msg("%s after %llu steps: %d, not %d", key, (unsigned long long)stages[i], got, wanted);
        if (kind == FREE) assert_string_equal(altering, "");
        else assert_true(told(altering, line) && told(altering, " -> "));
        if (got >= 0) continue;
        assert_true(told(err_text(), line) && told(err_text(), "--restart") && told(err_text(), "another output_dir"));
        assert_true(told(err_text(), old->output_dir));
    }
}

static void every_key_has_one_row(void **state) {
    (void)state;
    for (size_t i = 0; i < field_count; i++) {
        char name[FIELD_NAME_BYTES];
        size_t found = 0;
        field_name(name, &fields[i]);
        for (size_t k = 0; k < ROWS; k++) found += strcmp(rows[k].key, name) == 0;
        if (found != 1)
            fail_msg("%s has %zu rows in %s; say there whether it alters results, and give another value", name, found, __FILE__);
    }
    assert_int_equal(ROWS, field_count);
    for (size_t i = 0; i < source_field_count; i++) {
        size_t found = 0;
        for (size_t k = 0; k < INSIDE; k++) found += strcmp(inside[k].key, source_fields[i].key) == 0;
        if (found != 1) fail_msg("dataset.sources: %s has %zu rows", source_fields[i].key, found);
    }
    assert_int_equal(INSIDE, source_field_count);
}

static void every_key_at_every_stage_may_change_or_is_refused_by_name(void **state) {
    (void)state;
    for (size_t k = 0; k < ROWS; k++) {
        if (!rows[k].value) continue;
        char set[200];
        snprintf(set, sizeof set, "%s=%s", rows[k].key, rows[k].value);
        struct config old = configure(rows[k].with, NULL), fresh = configure(rows[k].with, set);
        struct buf altering = {0}, harmless = {0};
        assert_int_equal(config_compare(&altering, &harmless, &old, &fresh), 0);
        if (altering.size + harmless.size == 0) fail_msg("%s changes nothing", set);
        buf_free(&altering);
        buf_free(&harmless);
        check(&old, &fresh, rows[k].key, rows[k].kind);
        check(&fresh, &old, rows[k].key, rows[k].kind); /* and back */
        config_free(&old);
        config_free(&fresh);
    }
}

/* Of files, whose digests say more. */
static bool is_place(const struct row *row) {
    static const char *const places[] = {"dataset.sources", "dataset.prepared", "dataset.tokenizer"};
    bool is = false;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) is = is || strcmp(row->key, places[i]) == 0;
    return is;
}

/* By its marks a checkpoint is known as this run's where the ledger is lost. */
static void every_key_that_alters_results_changes_the_marks_and_no_other_does(void **state) {
    (void)state;
    for (size_t k = 0; k < ROWS; k++) {
        if (!rows[k].value || is_place(&rows[k])) continue;
        char set[200];
        snprintf(set, sizeof set, "%s=%s", rows[k].key, rows[k].value);
        struct config old = configure(rows[k].with, NULL), fresh = configure(rows[k].with, set);
        struct buf before = {0}, after = {0};
        assert_int_equal(config_print_marks(&before, &old), 0);
        assert_int_equal(config_print_marks(&after, &fresh), 0);
        bool differs = strcmp((char *)before.data, (char *)after.data) != 0;
        if (differs != (rows[k].kind == ALTERS)) fail_msg("%s: the marks %s", set, differs ? "differ" : "are the same");
        buf_free(&before);
        buf_free(&after);
        config_free(&old);
        config_free(&fresh);
    }
}

/* Unit tests of optimizers fill in struct optimizer by hand, and runs are compared with runs: neither would notice a key that is lost. */
static void every_key_of_the_optimizers_reaches_them(void **state) {
    (void)state;
    static const char *const others[] = {"training.optim", "training.optim_state", "training.weight_decay", "training.ema_decay",
                                         "training.seed"};
    const struct field *optim = field_find("training.optim");
    size_t reached = 0;
    for (size_t k = 0; k < ROWS; k++) {
        if (strncmp(rows[k].key, "training.", 9) != 0) continue;
        bool one = strncmp(rows[k].key, "training.adam_", 14) == 0;
        for (size_t i = 0; optim->names[i]; i++) { /* keys begin with the name of their optimizer */
            size_t bytes = strlen(optim->names[i]);
            one = one || (strncmp(rows[k].key + 9, optim->names[i], bytes) == 0 && rows[k].key[9 + bytes] == '_');
        }
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) one = one || strcmp(rows[k].key, others[i]) == 0;
        if (!one) continue;
        char set[200];
        snprintf(set, sizeof set, "%s=%s", rows[k].key, rows[k].value);
        struct config old = configure(rows[k].with, NULL), fresh = configure(rows[k].with, set);
        struct optimizer before = optimizer_of(&old), after = optimizer_of(&fresh);
        bool same = before.kind == after.kind && before.beta1 == after.beta1 && before.beta2 == after.beta2 &&
                    before.epsilon == after.epsilon && before.momentum == after.momentum && before.nesterov == after.nesterov &&
                    before.weight_decay == after.weight_decay && before.ema_decay == after.ema_decay &&
                    before.moments_type == after.moments_type && before.seed == after.seed;
        if (same) fail_msg("%s does not reach struct optimizer", set);
        reached++;
        config_free(&old);
        config_free(&fresh);
    }
    assert_true(reached >= 10);
}

static void every_key_of_a_source_alters_results(void **state) {
    (void)state;
    for (size_t k = 0; k < INSIDE; k++) {
        struct config old = configure(NULL, TWO), fresh = configure(NULL, inside[k].value);
        check(&old, &fresh, "dataset.sources", ALTERS);
        config_free(&old);
        config_free(&fresh);
    }
}

/* ---- token runs ---- */

/* Of the run of the whole of x.txt, in the first entry of dataset.sources. */
static void key_of_run(uint8_t out[SHA256_BYTES], const struct config *config) {
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT, *parts = &part;
    Millrace__TokenizeJob job = MILLRACE__TOKENIZE_JOB__INIT;
    struct sources none = {0};
    struct context *c = mem_alloc(sizeof *c);
    part.name = "/tmp/x.txt", part.size = 100;
    job.parts = &parts, job.n_parts = 1;
    c->config = config, c->sources = &none;
    runs_open(c);
    runs_note_settings(c);
    runs_key(out, c, &job);
    runs_close(c);
    free(c);
}

static void check_run(const char *const with[3], const char *base_set, const char *set, bool alters) {
    uint8_t before[SHA256_BYTES], after[SHA256_BYTES];
    struct config old = configure(with, base_set), fresh = configure(with, set);
    key_of_run(before, &old);
    key_of_run(after, &fresh);
    bool differs = memcmp(before, after, SHA256_BYTES) != 0;
    if (differs != alters) fail_msg("%s: the token runs have %s keys", set, differs ? "other" : "the same");
    config_free(&old);
    config_free(&fresh);
}

static bool is_in(const char *const list[], const char *key) {
    for (; *list && strcmp(*list, key) != 0; list++) {}
    return *list != NULL;
}

/* A run that is there under its key is not made again: what it follows from is in the key, and nothing else, or all would be made again. */
static void every_key_that_alters_token_runs_changes_theirs_and_no_other_does(void **state) {
    (void)state;
    static const char *const keys[] = {"dataset.invalid_utf8", "dataset.normalization", "dataset.min_characters", "dataset.max_characters",
                                       "dataset.filters", "dataset.minhash_bands", "dataset.minhash_rows", "dataset.minhash_words", NULL};
    static const char *const of_sources[] = {"members", "format", "field", "separator", NULL};
    for (size_t k = 0; k < ROWS; k++) {
        char set[200];
        snprintf(set, sizeof set, "%s=%s", rows[k].key, rows[k].value);
        if (rows[k].value && !is_place(&rows[k])) check_run(rows[k].with, NULL, set, is_in(keys, rows[k].key));
    }
    for (size_t k = 0; k < INSIDE; k++) check_run(NULL, TWO, inside[k].value, is_in(of_sources, inside[k].key));
    check_run(NULL, CHANGED("name: a, path: x.txt, members: [y]", ""), CHANGED("name: a, path: x.txt, members: [z]", ""), true);
}

static void nothing_changed_is_no_change_at_any_stage(void **state) {
    (void)state;
    char altering[4096];
    struct config config = configure(NULL, NULL);
    for (size_t i = 0; i < STAGES; i++) assert_int_equal(decided(altering, &config, &config, stages[i]), CHANGE_NONE);
    config_free(&config);
}

/* All at once, as when somebody gives the file of another run, whose length alone would be refused, too. */
static void a_length_beside_another_change_is_refused_and_both_are_named(void **state) {
    (void)state;
    char altering[4096];
    struct config old = configure(NULL, NULL), fresh = configure((const char *const[3]){"training.seed=7", "cluster.workers=5"},
                                                                  "training.max_steps=12");
    assert_int_equal(decided(altering, &old, &fresh, 0), CHANGE_ANEW);
    assert_int_equal(decided(altering, &old, &fresh, 2), -1);
    assert_true(told(err_text(), "training.seed: ") && told(err_text(), "training.max_steps: ") && !told(err_text(), "cluster"));
    config_free(&old);
    config_free(&fresh);
}

static void a_length_that_may_change_is_not_named_beside_what_may_not(void **state) {
    (void)state;
    char altering[4096];
    static const char constant[] = "training.lr_scheduler_type=constant", cosine[] = "training.lr_scheduler_type=cosine";
    struct config old = configure((const char *const[3]){constant}, "training.max_steps=6");
    struct config longer = configure((const char *const[3]){cosine}, "training.max_steps=12");
    struct config shorter = configure((const char *const[3]){cosine}, "training.max_steps=3");
    assert_int_equal(decided(altering, &old, &longer, 6), -1);
    assert_true(told(err_text(), "training.lr_scheduler_type: ") && !told(err_text(), "training.max_steps"));
    assert_int_equal(decided(altering, &old, &shorter, 6), -1);
    assert_true(told(err_text(), "training.lr_scheduler_type: ") && told(err_text(), "training.max_steps: 6 -> 3"));
    config_free(&old);
    config_free(&longer);
    config_free(&shorter);
}

/* 0: allowed, from and to that many steps; else refused. */
static int length(const char *scheduler, const char *was, const char *is, uint64_t sequences, uint64_t done, uint64_t before,
                  uint64_t now) {
    uint64_t got_before = 99, got_now = 99;
    char schedule[100];
    snprintf(schedule, sizeof schedule, "training.lr_scheduler_type=%s", scheduler);
    struct config old = configure((const char *const[3]){schedule, "training.max_steps=0"}, was);
    struct config fresh = configure((const char *const[3]){schedule, "training.max_steps=0"}, is);
    struct buf altering = {0};
    enum change change;
    assert_int_equal(changes_decide(&change, &altering, &old, &fresh, done), 0);
    assert_int_equal(change, CHANGE_LENGTH);
    int code = changes_length(&got_before, &got_now, &old, &fresh, sequences, done, &altering);
    assert_int_equal(got_before, code ? 99 : before);
    assert_int_equal(got_now, code ? 99 : now);
    if (code) assert_true(told(err_text(), "--restart") && told(err_text(), "another output_dir"));
    buf_free(&altering);
    config_free(&old);
    config_free(&fresh);
    return code;
}

static void a_length_may_change_where_no_step_that_is_done_would_have_been_another(void **state) {
    (void)state;
    static const char *const keeping[] = {"constant", "inverse_sqrt"}, *const changing[] = {"cosine", "linear", "polynomial"};
    for (uint64_t done = 1; done <= STEPS; done++) {
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(length(keeping[i], "training.max_steps=6", "training.max_steps=12", 0, done, 6, 12), 0);
            assert_int_equal(length(keeping[i], "training.max_steps=12", "training.max_steps=6", 0, done, 12, 6), 0);
            assert_int_equal(length(keeping[i], "training.num_train_epochs=1", "training.num_train_epochs=2", 48, done, 6, 12), 0);
            assert_int_equal(length(keeping[i], "training.max_steps=6", "training.num_train_epochs=2", 48, done, 6, 12), 0);
            assert_int_equal(length(keeping[i], "training.max_steps=7", "training.max_steps=5", 0, done, 7, 5), done > 5 ? ERR_CONFIG : 0);
        }
        for (size_t i = 0; i < 3; i++)
            if (done > 1) { /* without warm-up the first step has the highest rate in all of them */
                assert_int_equal(length(changing[i], "training.max_steps=6", "training.max_steps=12", 0, done, 6, 12), ERR_CONFIG);
                assert_true(told(err_text(), "training.max_steps: 6 -> 12") && told(err_text(), "learning rates"));
            }
        /* the last tenth, here the last two of 20 and the last four of 40 */
        int code = length("warmup_stable_decay", "training.max_steps=20", "training.max_steps=40", 0, done + 14, 20, 40);
        assert_int_equal(code, done + 14 > 19 ? ERR_CONFIG : 0);
    }
}

static void rates_that_differ_are_told_with_as_many_digits_as_differ(void **state) {
    (void)state;
    assert_int_equal(length("cosine", "training.max_steps=2000", "training.max_steps=2500", 0, 2, 2000, 2500), ERR_CONFIG);
    char had[32] = "", would[32] = "";
    const char *at = strstr(err_text(), "step 2 of 2000 had ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "step 2 of 2000 had %31[0-9.e-], of 2500 it would have %31[0-9.e-]:", had, would), 2);
    assert_string_not_equal(had, would);
    assert_true(strlen(had) > strlen("0.000500"));
    assert_true(told(err_text(), "inverse_sqrt a run can be made longer"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_has_one_row),
        cmocka_unit_test(every_key_at_every_stage_may_change_or_is_refused_by_name),
        cmocka_unit_test(every_key_that_alters_results_changes_the_marks_and_no_other_does),
        cmocka_unit_test(every_key_of_the_optimizers_reaches_them),
        cmocka_unit_test(every_key_of_a_source_alters_results),
        cmocka_unit_test(every_key_that_alters_token_runs_changes_theirs_and_no_other_does),
        cmocka_unit_test(nothing_changed_is_no_change_at_any_stage),
        cmocka_unit_test(a_length_that_may_change_is_not_named_beside_what_may_not),
        cmocka_unit_test(a_length_beside_another_change_is_refused_and_both_are_named),
        cmocka_unit_test(a_length_may_change_where_no_step_that_is_done_would_have_been_another),
        cmocka_unit_test(rates_that_differ_are_told_with_as_many_digits_as_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
