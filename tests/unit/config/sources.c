/* dataset.sources with entries of their own, dataset.prepared, the tokenizer's keys, and projects that move. */
#include "tests/unit/config/parse.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/philox.h"
#include "config/fields.h"
#include "config/names.h"

#define ENTRIES "expected a list of paths, globs or URLs, [\"corpus/*.txt\"], or of mappings, [{path: web, weight: 2}]"

/* ---- what is accepted ---- */

static void an_entry_may_be_a_text_or_a_mapping(void **state) {
    (void)state;
    struct config c = accepted("dataset:\n"
                               "  sources:\n"
                               "  - plain/*.txt\n"
                               "  - name: web\n"
                               "    paths: [crawl, /abs/b.jsonl.zst, 'HTTPS://example.org/a//b?c=[1]', \"-\"]\n"
                               "    format: jsonl\n"
                               "    field: a.b\n"
                               "  - {path: x.tar.xz, members: ['*.txt', doc/**], split: train}\n"
                               "  - {path: held.txt, separator: \"\\n\\n\", split: validation}\n");
    const struct source_groups *groups = &c.dataset.sources;
    assert_int_equal(groups->count, 4);
    const struct source_group *group = groups->item;
    assert_string_equal(group->name, "source-0");
    assert_string_equal(group->paths.item[0], FOLDER "/plain/*.txt");
    assert_int_equal(group->members.count, 0);
    assert_true(group->weight == 0);
    assert_int_equal(group->format, FORMAT_AUTO);
    assert_string_equal(group->field, "text");
    assert_string_equal(group->separator, "");
    assert_int_equal(group->split, SPLIT_BY_DIGEST);
    group++;
    assert_string_equal(group->name, "web");
    assert_int_equal(group->paths.count, 4);
    assert_string_equal(group->paths.item[0], FOLDER "/crawl");
    assert_string_equal(group->paths.item[1], "/abs/b.jsonl.zst");
    assert_string_equal(group->paths.item[2], "HTTPS://example.org/a//b?c=[1]");
    assert_string_equal(group->paths.item[3], "-");
    assert_int_equal(group->format, FORMAT_JSONL);
    assert_string_equal(group->field, "a.b");
    group++;
    assert_string_equal(group->name, "source-2");
    assert_int_equal(group->members.count, 2);
    assert_string_equal(group->members.item[1], "doc/**"); /* of the archive: not below the folder */
    assert_int_equal(group->split, SPLIT_TRAIN);
    group++;
    assert_int_equal(group->format, FORMAT_TEXT); /* a separator says so */
    assert_string_equal(group->separator, "\n\n");
    assert_int_equal(group->split, SPLIT_VALIDATION);
    config_free(&c);
}

static void weights_are_for_all_that_is_trained_on(void **state) {
    (void)state;
    struct config c = accepted("dataset: {sources: [{path: a, weight: 3}, {path: b, weight: 0.5}, {path: v, split: validation}]}\n");
    assert_true(c.dataset.sources.item[0].weight == 3 && c.dataset.sources.item[1].weight == 0.5);
    config_free(&c);
    refused("dataset:\n  sources:\n  - {path: a, weight: 3}\n  - {name: web, path: b}\n",
            "p.yaml:4:5: dataset.sources: the entry web has no weight, and others do; expected a weight for all or for none");
    refused("dataset:\n  sources:\n  - a\n  - {path: b, weight: 1}\n",
            "p.yaml:3:5: dataset.sources: the entry source-0 has no weight, and others do; expected a weight for all or for none");
    /* A slip for weight, or a weight that is none, is told alone. */
    refused("dataset:\n  sources:\n  - {path: a, wieght: 3}\n  - {path: b, weight: 1}\n",
            "p.yaml:3:15: dataset.sources.wieght: unknown key; did you mean weight?");
    refused("dataset:\n  sources:\n  - a\n  - {path: b, weight: x}\n",
            "p.yaml:4:23: dataset.sources.weight: \"x\" is not a number; expected a number above 0, at most 1e+06");
    refused("dataset: {sources: [{path: a, weight: 0}]}\n",
            "p.yaml:1:39: dataset.sources.weight: \"0\" is out of range; expected a number above 0, at most 1e+06");
    refused("dataset: {sources: [a, {path: b, weight: 1, split: validation}]}\n",
            "p.yaml:1:42: dataset.sources.weight: is a share of the training tokens, and with split: validation the entry gives none; "
            "expected no weight here");
    refused("dataset: {sources: [{path: b, split: validation}]}\n",
            "p.yaml:1:38: dataset.sources.split: validation for every entry leaves nothing to train on; expected an entry without it");
}

static void settings_take_entries_too(void **state) {
    (void)state;
    struct config c = accepted_with(SOURCES, "dataset.sources=[a, {path: b, name: n}]");
    assert_int_equal(c.dataset.sources.count, 2);
    assert_string_equal(c.dataset.sources.item[1].name, "n");
    config_free(&c);
    c = accepted_with(SOURCES, "dataset.sources=http://localhost:80/x");
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], "http://localhost:80/x");
    config_free(&c);
    c = accepted_with("", "dataset.sources=-");
    assert_string_equal(c.dataset.sources.item[0].paths.item[0], "-");
    config_free(&c);
    set_refused(SOURCES, "dataset.sources=[{path: a, weight: x}]",
                "--set dataset.sources: dataset.sources.weight: \"x\" is not a number; expected a number above 0, at most 1e+06");
    set_refused(SOURCES, "dataset.sources=[{path: a, path: b}]",
                "--set dataset.sources: dataset.sources.path: given twice; expected it once");
    set_refused(SOURCES, "dataset.sources={path: a}",
                "--set dataset.sources: is a mapping or nested; expected one value or [a, list]; put text in quotes");
    const char *missing = "--set dataset.sources: is missing; expected a list of text files or globs: sources: [\"corpus/**/*.txt\"]";
    set_refused(SOURCES, "dataset.sources=[]", missing);
    set_refused(SOURCES, "dataset.sources=null", missing);
}

static void the_other_keys_of_the_dataset_are_read(void **state) {
    (void)state;
    struct config c = accepted(SOURCES);
    assert_string_equal(c.dataset.prepared, "");
    assert_int_equal(c.dataset.packing, PACKING_CONCAT);
    assert_false(c.dataset.pad_in_loss || c.dataset.document_mask);
    assert_int_equal(c.dataset.deduplicate, DEDUPLICATE_NONE);
    assert_int_equal(c.dataset.minhash_bands, 14);
    assert_int_equal(c.dataset.minhash_rows, 8);
    assert_int_equal(c.dataset.minhash_words, 5);
    for (int i = 0; i < FILTER_COUNT; i++) assert_false(c.dataset.filters[i]);
    assert_int_equal(c.dataset.invalid_utf8, UTF8_REPLACE);
    assert_int_equal(c.dataset.normalization, NORMALIZE_NONE);
    assert_int_equal(c.dataset.min_characters, 0);
    assert_int_equal(c.dataset.max_characters, 0);
    assert_int_equal(c.dataset.stopping_strategy, STOPPING_FIRST_EXHAUSTED);
    assert_int_equal(c.dataset.shuffle_window, 16);
    assert_true(c.dataset.keep_runs);
    config_free(&c);
    c = accepted("dataset: {sources: a, packing: best_fit, pad_in_loss: true, document_mask: true, deduplicate: near, minhash_bands: 20,\n"
                 "  minhash_rows: 5, minhash_words: 3, filters: [c4, gopher_quality], invalid_utf8: refuse, normalization: NFKD,\n"
                 "  min_characters: 10, max_characters: 20, stopping_strategy: all_exhausted, shuffle_window: 0, keep_runs: false}\n");
    assert_int_equal(c.dataset.packing, PACKING_BEST_FIT);
    assert_true(c.dataset.pad_in_loss && c.dataset.document_mask && !c.dataset.keep_runs);
    assert_int_equal(c.dataset.deduplicate, DEDUPLICATE_NEAR);
    assert_true(c.dataset.filters[FILTER_C4] && c.dataset.filters[FILTER_GOPHER_QUALITY] && !c.dataset.filters[FILTER_GOPHER_REPETITION]);
    assert_int_equal(c.dataset.invalid_utf8, UTF8_REFUSE);
    assert_int_equal(c.dataset.normalization, NORMALIZE_NFKD);
    assert_int_equal(c.dataset.stopping_strategy, STOPPING_ALL_EXHAUSTED);
    config_free(&c);
    refused("dataset: {sources: a, filters: [c5]}\n",
            "p.yaml:1:33: dataset.filters: \"c5\" is not known; expected a list, any of gopher_quality, gopher_repetition, c4");
    refused("dataset: {sources: a, filters: [c4, c4]}\n", "p.yaml:1:37: dataset.filters: \"c4\" is in the list twice; expected a list, any "
                                                          "of gopher_quality, gopher_repetition, c4");
    refused(
        "dataset: {sources: a, min_characters: 9, max_characters: 8}\n",
        "p.yaml:1:39: dataset.min_characters: dataset.min_characters 9 is more than dataset.max_characters 8; expected at most as many");
}

/* ---- what is refused ---- */

static void faults_inside_an_entry_name_its_place(void **state) {
    (void)state;
    refused("dataset:\n  sources:\n  - name: x\n    weight: 1\n",
            "p.yaml:3:5: dataset.sources: an entry has no path; expected {path: \"corpus/*.txt\", ...}, or paths with a list");
    refused("dataset: {sources: [{}]}\n",
            "p.yaml:1:21: dataset.sources: an entry has no path; expected {path: \"corpus/*.txt\", ...}, or paths with a list");
    refused("dataset:\n  sources:\n  - path: a\n    paths: [b]\n",
            "p.yaml:4:5: dataset.sources.paths: given together with path; expected one of path and paths");
    refused("dataset: {sources: [{path: a, path: b}]}\n",
            "p.yaml:1:31: dataset.sources.path: given twice, first in line 1; expected it once");
    refused("dataset: {sources: [{path: [a, [b]]}]}\n", "p.yaml:1:28: dataset.sources.paths: is a mapping or nested list; expected a path, "
                                                        "glob, http(s) URL or \"-\", or a list of them");
    refused("dataset: {sources: [{path: [a, {b: c}]}]}\n", "p.yaml:1:28: dataset.sources.paths: is a mapping or nested list; expected a "
                                                           "path, glob, http(s) URL or \"-\", or a list of them");
    refused("dataset: {sources: [{path: {a: b}}]}\n", "p.yaml:1:28: dataset.sources.paths: is a mapping or nested list; expected a path, "
                                                      "glob, http(s) URL or \"-\", or a list of them");
    refused("dataset: {sources: [{path: []}]}\n", "p.yaml:1:28: dataset.sources.paths: the list is empty; expected a path, glob, http(s) "
                                                  "URL or \"-\", or a list of them");
    refused("dataset: {sources: [{path: s3://b/c}]}\n",
            "p.yaml:1:28: dataset.sources.paths: \"s3://b/c\" is a URL of another kind than http:// and https://; expected a path, glob, "
            "http(s) URL or \"-\", or a list of them");
    refused("dataset: {sources: {path: a}}\n", "p.yaml:1:20: dataset.sources: is a mapping or nested list; " ENTRIES);
    refused("dataset: {sources: [a, [b]]}\n", "p.yaml:1:20: dataset.sources: is a mapping or nested list; " ENTRIES);
    refused("dataset: {sources: [{path: a, format: xml}]}\n",
            "p.yaml:1:39: dataset.sources.format: \"xml\" is not known; expected one of auto, text, lines, jsonl, json, csv, tsv");
    refused("dataset: {sources: [{path: a, split: test}]}\n",
            "p.yaml:1:38: dataset.sources.split: \"test\" is not known; expected one of digest, train, validation");
    refused("dataset: {sources: [{path: a, name: \"a\\nb\"}]}\n",
            "p.yaml:1:37: dataset.sources.name: has a control character in it; expected one line of text");
    refused("run_name: [{a: b}]\n" SOURCES, "p.yaml:1:11: run_name: is a list; expected text of 1 to 100 bytes");
    refused("dataset: {sources: a, filters: [{c4: 1}]}\n",
            "p.yaml:1:33: dataset.filters: is a mapping; expected a list, any of gopher_quality, gopher_repetition, c4");
}

static void all_faults_of_all_entries_are_told_at_once(void **state) {
    (void)state;
    refused("dataset:\n  sources:\n  - {path: a, name: langs, split: test, weight: -1, fild: 3}\n"
            "  - {name: langs, format: xml, separator: x, path: b, paths: [c]}\n"
            "  - {format: csv, separator: x, name: \"\"}\nrun_name: \"\"\n",
            "p.yaml:3:35: dataset.sources.split: \"test\" is not known; expected one of digest, train, validation\n"
            "p.yaml:3:49: dataset.sources.weight: \"-1\" is out of range; expected a number above 0, at most 1e+06\n"
            "p.yaml:3:53: dataset.sources.fild: unknown key; did you mean field?\n"
            "p.yaml:4:12: dataset.sources.name: \"langs\" is the name of two entries; expected another (source-N, counted from 0, is that "
            "of one without a name)\n"
            "p.yaml:4:27: dataset.sources.format: \"xml\" is not known; expected one of auto, text, lines, jsonl, json, csv, tsv\n"
            "p.yaml:4:55: dataset.sources.paths: given together with path; expected one of path and paths\n"
            "p.yaml:5:5: dataset.sources: an entry has no path; expected {path: \"corpus/*.txt\", ...}, or paths with a list\n"
            "p.yaml:5:30: dataset.sources.separator: stands between documents of format text; expected it without format, or with "
            "format: text\n"
            "p.yaml:5:39: dataset.sources.name: \"\" is empty; expected text of 1 to 100 bytes\n"
            "p.yaml:6:11: run_name: \"\" is empty; expected text of 1 to 100 bytes");
}

static void keys_that_do_not_go_together_are_refused(void **state) {
    (void)state;
    refused("dataset: {sources: [{path: a, format: lines, separator: x}]}\n",
            "p.yaml:1:57: dataset.sources.separator: stands between documents of format text; expected it without format, or with "
            "format: text");
    refused("dataset: {sources: [{path: a, format: text, field: x}]}\n",
            "p.yaml:1:52: dataset.sources.field: names a part of structured documents; expected it with format jsonl, json, csv, tsv or "
            "auto");
    refused_with("dataset: {sources: [{path: a, separator: x, field: x}]}\n", "dataset.sources.field: names a part");
    struct config c = accepted("dataset: {sources: [{path: a, format: text, separator: x}, {path: b, format: csv, field: body}]}\n");
    config_free(&c);
}

static void names_are_unique_also_beside_unnamed_entries(void **state) {
    (void)state;
    refused(
        "dataset:\n  sources:\n  - {path: a, name: x}\n  - {path: b, name: x}\n",
        "p.yaml:4:21: dataset.sources.name: \"x\" is the name of two entries; expected another (source-N, counted from 0, is that of "
        "one without a name)");
    refused("dataset:\n  sources:\n  - {path: a, name: source-1}\n  - b\n",
            "p.yaml:3:21: dataset.sources.name: \"source-1\" is the name of two entries; expected another (source-N, counted from 0, is "
            "that of one without a name)");
    struct config c = accepted("dataset: {sources: [{path: a, name: source-0}, b]}\n");
    config_free(&c);
}

static void standard_input_is_read_once(void **state) {
    (void)state;
    refused("dataset: {sources: [\"-\", \"-\"]}\n",
            "p.yaml:1:26: dataset.sources: \"-\", standard input, is given twice; expected it once");
    refused("dataset: {sources: [a, {paths: [\"-\", b, \"-\"]}]}\n",
            "p.yaml:1:32: dataset.sources: \"-\", standard input, is given twice; expected it once");
}

static void unknown_keys_of_an_entry_are_answered(void **state) {
    (void)state;
    refused("dataset: {sources: [{path: a, wieght: 1}]}\n", "p.yaml:1:31: dataset.sources.wieght: unknown key; did you mean weight?");
    refused("dataset: {sources: [{pth: a}]}\n", "p.yaml:1:22: dataset.sources.pth: unknown key; did you mean path?");
    refused("dataset: {sources: [{path: a, url: b}]}\n", "p.yaml:1:31: dataset.sources.url: not used here; write path");
    refused("dataset: {sources: [{path: a, normalization: NFC}]}\n",
            "p.yaml:1:31: dataset.sources.normalization: unknown key; write dataset.normalization beside dataset.sources: it holds for all "
            "of them");
    refused(
        "dataset: {sources: [{path: a, zebra: 1}]}\n",
        "p.yaml:1:31: dataset.sources.zebra: unknown key; expected one of path, paths, name, members, weight, format, field, separator, "
        "split");
    refused("dataset: {sources: a, group_texts: true}\n",
            "p.yaml:1:23: dataset.group_texts: not used here; write dataset.packing: concat, and dataset.sequence_length");
    refused_with("dataset: {sources: a, text_column: body}\n", "write field in an entry of dataset.sources");
    refused_with("dataset: {dataset_name: wikitext}\n", "not used here; write dataset.sources: files, folders or URLs");
    refused_with("dataset: {sources: a, block_size: 8}\n", "write dataset.sequence_length");
    for (size_t i = 0; i < source_field_count; i++) {
        assert_null(name_foreign(source_fields[i].key));
        assert_non_null(source_fields[i].help);
    }
}

static void a_prepared_dataset_takes_the_place_of_sources(void **state) {
    (void)state;
    struct config c = accepted("dataset: {prepared: made/dataset}\n");
    assert_string_equal(c.dataset.prepared, FOLDER "/made/dataset");
    assert_int_equal(c.dataset.sources.count, 0);
    config_free(&c);
    refused("dataset: {prepared: x, sources: a}\n",
            "p.yaml:1:21: dataset.prepared: dataset.prepared is a dataset made before, and dataset.sources says what to make one of; "
            "expected one of them");
    c = accepted_with(SOURCES, "dataset.prepared=");
    config_free(&c);
}

/* ---- the tokenizer ---- */

static void a_tokenizer_is_gpt2_or_a_path(void **state) {
    (void)state;
    static const struct {
        const char *text, *wanted;
    } good[] = {{"gpt2", "gpt2"},
                {"./gpt2", FOLDER "/gpt2"},
                {"tok/llama", FOLDER "/tok/llama"},
                {"/abs/t", "/abs/t"},
                {"tokenizer.json", FOLDER "/tokenizer.json"}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char *text = mem_format("dataset: {sources: a, tokenizer: %s}\n", good[i].text);
        struct config c = accepted(text);
        assert_string_equal(c.dataset.tokenizer, good[i].wanted);
        assert_int_equal(config_tokenizer_is_path(&c), i > 0);
        assert_int_equal(c.model.vocab_size, i ? 0 : 50257);
        assert_int_equal(c.model.eos_token_id, i ? -1 : 50256);
        config_free(&c);
        free(text);
    }
    refused("dataset: {sources: a, tokenizer: gpt-2}\n",
            "p.yaml:1:34: dataset.tokenizer: \"gpt-2\" is not known; expected gpt2, or a path");
    char folder[] = "/tmp/millrace-config-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *made = mem_format("%s/llama", folder);
    assert_int_equal(folder_make(made), 0);
    static const char text[] = "dataset: {sources: a, tokenizer: llama}\n";
    struct config c;
    assert_int_equal(config_parse(&c, "p.yaml", text, strlen(text), folder, NULL, 0), 0);
    assert_string_equal(c.dataset.tokenizer, made);
    config_free(&c);
    assert_int_equal(folder_remove(folder), 0);
    free(made);
}

static void null_in_an_entry_says_nothing(void **state) {
    (void)state;
    struct config c = accepted("dataset: {sources: [{path: a, weight: null, field: ~, members: null, name: Null, split: null}, "
                               "{paths: b, path: null}]}\n");
    assert_int_equal(c.dataset.sources.count, 2);
    assert_true(c.dataset.sources.item[0].weight == 0);
    assert_string_equal(c.dataset.sources.item[0].field, "text");
    assert_string_equal(c.dataset.sources.item[0].name, "source-0");
    config_free(&c);
    refused_with("dataset: {sources: [{path: null}]}\n", "an entry has no path");
    refused_with("dataset: {sources: [{path: a, weight: }]}\n", "has no value");
}

static void the_model_takes_from_the_tokenizer_what_it_is_not_told(void **state) {
    (void)state;
    struct config c = accepted("dataset: {sources: a, tokenizer: ./t}\n");
    assert_int_equal(config_fit_tokenizer(&c, 32000, 1, 2), 0);
    assert_int_equal(c.model.vocab_size, 32000);
    assert_int_equal(c.model.bos_token_id, 1);
    assert_int_equal(c.model.eos_token_id, 2);
    assert_int_equal(config_fit_tokenizer(&c, 32000, 1, 2), 0); /* twice is fine */
    assert_int_equal(config_fit_tokenizer(&c, 32001, 1, 2), ERR_CONFIG);
    assert_string_equal(err_text(),
                        "model.vocab_size 32000 does not fit dataset.tokenizer " FOLDER "/t; expected at least 32001, or no such line");
    assert_int_equal(config_fit_tokenizer(&c, 31900, 1, 2), 0); /* the rest is padding */
    assert_int_equal(c.model.vocab_size, 32000);
    config_free(&c);
    c = accepted("dataset: {sources: a, tokenizer: ./t}\nmodel: {eos_token_id: 7}\n");
    assert_int_equal(config_fit_tokenizer(&c, 7, -1, -1), ERR_CONFIG);
    assert_string_equal(err_text(),
                        "model.eos_token_id 7 is not in the vocabulary of dataset.tokenizer " FOLDER "/t; expected an id below 7");
    assert_int_equal(c.model.vocab_size, 0);
    assert_int_equal(config_fit_tokenizer(&c, 8, -1, -1), 0);
    assert_int_equal(c.model.bos_token_id, 7);
    config_free(&c);
    c = accepted("dataset: {sources: a, tokenizer: ./t}\n");
    assert_int_equal(config_fit_tokenizer(&c, 8, 3, -1), ERR_CONFIG);
    assert_string_equal(err_text(), "dataset.tokenizer: " FOLDER "/t has no token that ends a text; write its id as model.eos_token_id");
    config_free(&c);
}

/* ---- printed and read again ---- */

static void assert_same(const struct config *a, const struct config *b, const char *text) {
    struct buf differs = {0};
    assert_int_equal(config_compare(&differs, &differs, a, b), 0);
    if (differs.size) fail_msg("differs: %s\nin\n%s", (char *)differs.data, text);
    buf_free(&differs);
}

static void entries_are_printed_as_people_write_them(void **state) {
    (void)state;
    struct config c = accepted("dataset:\n  filters: [c4, gopher_quality]\n  sources:\n"
                               "  - a\n  - {name: source-1, path: b}\n  - {path: c, members: x, name: n, split: train}\n");
    struct buf out = {0};
    assert_int_equal(config_print(&out, &c), 0);
    const char *text = (const char *)out.data;
    assert_non_null(strstr(text, "\n  filters: [gopher_quality, c4]\n"));
    assert_non_null(strstr(text, "\n  sources: [\"" FOLDER "/a\", \"" FOLDER "/b\", {name: \"n\", path: \"" FOLDER
                                 "/c\", members: \"x\", split: train}]\n"));
    buf_free(&out);
    config_free(&c);
}

static void a_project_that_moved_is_the_same_project(void **state) {
    (void)state;
    static const char text[] =
        "dataset:\n  tokenizer: ./t\n  sources: ['*.txt', ., ../up, ./-, \"-\", http://h/x, {paths: [/abs/x, 'd[1]/y'], members: a/b}]\n";
    static const char *const folders[] = {FOLDER, "/d/[1] a*\\b?/x\\y", "/"};
    for (size_t i = 0; i < 2; i++) { /* everything is below the root: from there nothing moves */
        for (size_t k = 0; k < 3; k++) {
            struct config before, after, moved;
            struct buf printed = {0};
            assert_int_equal(config_parse(&before, "p.yaml", text, strlen(text), folders[i], NULL, 0), 0);
            assert_int_equal(config_parse(&after, "p.yaml", text, strlen(text), folders[k], NULL, 0), 0);
            assert_int_equal(config_print_movable(&printed, &before), 0);
            if (config_parse(&moved, "printed", (char *)printed.data, printed.size, folders[k], NULL, 0) != 0)
                fail_msg("%s\nin\n%s", err_text(), (char *)printed.data);
            assert_same(&after, &moved, (char *)printed.data);
            config_free(&before), config_free(&after), config_free(&moved);
            buf_free(&printed);
        }
    }
    struct config c = accepted("dataset: {prepared: " FOLDER "x/y, tokenizer: " FOLDER "/t}\n"); /* a neighbour is not below */
    struct buf printed = {0};
    assert_int_equal(config_print_movable(&printed, &c), 0);
    assert_non_null(strstr((char *)printed.data, "\n  prepared: \"" FOLDER "x/y\"\n"));
    assert_non_null(strstr((char *)printed.data, "\n  tokenizer: \"./t\"\n"));
    assert_non_null(strstr((char *)printed.data, "\noutput_dir: \"./runs/run\"\n"));
    buf_free(&printed);
    config_free(&c);
}

struct random {
    uint64_t seed, count;
};

static uint64_t draw(struct random *random, uint64_t below) {
    struct philox_block block = philox(random->seed, 0, random->count++);
    return (((uint64_t)block.word[1] << 32) | block.word[0]) % below;
}

/* One entry of the list; weighted: it has to have a weight. */
static void print_random_entry(struct buf *out, struct random *random, size_t number, bool weighted) {
    static const char *const paths[] = {"a/*.txt",  "'[x]/**'", "http://h/a b", "\"\\u00e4 \\\"q\\\"\"",
                                        "/abs/./x", "'a: b'",   "x#y",          "'- '"};
    static const char *const formats[] = {"auto", "jsonl", "json", "csv", "tsv"};
    bool validation = number > 0 && draw(random, 4) == 0;
    if (!weighted && !validation && draw(random, 3) == 0) {
        buf_print(out, "%s", paths[draw(random, 8)]);
        return;
    }
    buf_print(out, "{");
    if (draw(random, 2)) buf_print(out, "path: %s", paths[draw(random, 8)]);
    else buf_print(out, "paths: [%s, %s]", paths[draw(random, 8)], paths[draw(random, 8)]);
    if (draw(random, 2)) buf_print(out, ", name: \"n %zu\\u2028\"", number);
    if (draw(random, 3) == 0) buf_print(out, ", members: ['*.txt', \"x\\ty\"]");
    if (draw(random, 3) == 0) buf_print(out, ", separator: \"\\n---\\r%d\"", (int)draw(random, 10));
    else if (draw(random, 2)) buf_print(out, ", format: %s, field: \"a.%d\"", formats[draw(random, 5)], (int)draw(random, 10));
    if (validation) buf_print(out, ", split: validation");
    else if (weighted) buf_print(out, ", weight: %.17g", (double)(draw(random, 1 << 30) + 1) / (double)(draw(random, 1 << 20) + 1100));
    buf_print(out, "}");
}

static void random_entries_survive_printing(void **state) {
    (void)state;
    const char *given = getenv("MILLRACE_TEST_SEED");
    struct random random = {.seed = given ? strtoull(given, NULL, 10) : (uint64_t)clock_wall_ms()};
    for (int round = 0; round < 2000; round++) {
        struct buf text = {0}, printed = {0}, again = {0};
        buf_print(&text, "dataset: {sources: [");
        bool weighted = draw(&random, 2);
        size_t count = draw(&random, 6) + 1;
        for (size_t i = 0; i < count; i++) {
            if (i) buf_print(&text, ", ");
            print_random_entry(&text, &random, i, weighted);
        }
        buf_print(&text, "]}\n");
        struct config c, back;
        if (parse(&c, (char *)text.data) != 0)
            fail_msg("MILLRACE_TEST_SEED=%llu: %s\nin\n%s", (unsigned long long)random.seed, err_text(), (char *)text.data);
        assert_int_equal((round % 2 ? config_print : config_print_movable)(&printed, &c), 0);
        if (config_parse(&back, "printed", (char *)printed.data, printed.size, round % 2 ? "/elsewhere" : FOLDER, NULL, 0) != 0)
            fail_msg("MILLRACE_TEST_SEED=%llu: %s\nin\n%s", (unsigned long long)random.seed, err_text(), (char *)printed.data);
        assert_same(&c, &back, (char *)printed.data);
        assert_int_equal((round % 2 ? config_print : config_print_movable)(&again, &back), 0);
        assert_string_equal((char *)again.data, (char *)printed.data);
        config_free(&c), config_free(&back);
        buf_free(&text), buf_free(&printed), buf_free(&again);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_may_be_a_text_or_a_mapping),
        cmocka_unit_test(weights_are_for_all_that_is_trained_on),
        cmocka_unit_test(settings_take_entries_too),
        cmocka_unit_test(the_other_keys_of_the_dataset_are_read),
        cmocka_unit_test(faults_inside_an_entry_name_its_place),
        cmocka_unit_test(all_faults_of_all_entries_are_told_at_once),
        cmocka_unit_test(keys_that_do_not_go_together_are_refused),
        cmocka_unit_test(names_are_unique_also_beside_unnamed_entries),
        cmocka_unit_test(standard_input_is_read_once),
        cmocka_unit_test(unknown_keys_of_an_entry_are_answered),
        cmocka_unit_test(a_prepared_dataset_takes_the_place_of_sources),
        cmocka_unit_test(a_tokenizer_is_gpt2_or_a_path),
        cmocka_unit_test(null_in_an_entry_says_nothing),
        cmocka_unit_test(the_model_takes_from_the_tokenizer_what_it_is_not_told),
        cmocka_unit_test(entries_are_printed_as_people_write_them),
        cmocka_unit_test(a_project_that_moved_is_the_same_project),
        cmocka_unit_test(random_entries_survive_printing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
