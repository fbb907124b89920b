/* Checkpoints: whole or absent, every bit accounted for. */
#include "model/checkpoint/checkpoint.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "model/checkpoint/checkpoint_record.h"
#include "model/checkpoint/safetensors.h"
#include "tests/unit/broken_folder.h"
#include "tests/unit/model/small_model.h"

static char folder[64];

static int enter(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-checkpoint-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int leave(void **state) {
    (void)state;
    return folder_remove(folder);
}

static char *path_in(const char *name) { return mem_format("%s/%s", folder, name); }

static size_t entries_in(const char *path) {
    size_t count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir)) count++;
    closedir(dir);
    return count - 2;
}

/* Puts [from, to) of a part in pieces of random sizes, in random order. */
static void put_pieces(struct checkpoint_draft *draft, enum state_part part, const void *elements, size_t element_bytes, size_t from,
                       size_t to, struct random *random) {
    if (to - from > 1 && to - from > 2000 + random_next(random) % 4000) {
        size_t cut = random_in(random, from + 1, to - 1);
        bool swap = random_in(random, 0, 1);
        put_pieces(draft, part, elements, element_bytes, swap ? cut : from, swap ? to : cut, random);
        put_pieces(draft, part, elements, element_bytes, swap ? from : cut, swap ? cut : to, random);
        return;
    }
    assert_int_equal(checkpoint_put(draft, part, (const char *)elements + from * element_bytes, from, to - from), 0);
}

static struct checkpoint_facts facts_of(uint64_t step) {
    return (struct checkpoint_facts){.step = step,
                                     .max_steps = 100,
                                     .tokens_seen = step * 2048,
                                     .epoch = 0.25,
                                     .train_loss = 3.125,
                                     .eval_loss = NAN,
                                     .state_digest = {1, 2, 254}};
}

static const struct state_parts adamw = {3, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2}, MOMENTS_FP32};

/* As a tokenizer's files. */
static const struct checkpoint_text texts[] = {{"vocab.json", "{\"a\": 0}", 8}, {"merges.txt", "#version: 0.2\n", 14}};

/* Writes checkpoint-STEP; values[part][element] = what write_value says. */
static float write_value(uint64_t step, int part, size_t i) { return (float)step + (float)part * 1000.0f + (float)i * 0.001f; }

/* An element as it is kept: a float, or its upper half. */
static void element_of(void *out, const struct state_parts *parts, uint64_t step, enum state_part part, size_t i) {
    float value = write_value(step, (int)part, i);
    size_t bytes = state_element_bytes(parts, part);
    memcpy(out, (const char *)&value + sizeof value - bytes, bytes);
}

static void write_parts(uint64_t step, const struct state_parts *parts, struct random *random) {
    struct gpt2_config config = small_config();
    size_t count = gpt2_parameters(&config);
    char *elements = mem_alloc(count * sizeof(float));
    struct checkpoint_draft *draft;
    char *path = mem_format("%s/checkpoint-%llu", folder, (unsigned long long)step);
    struct checkpoint_facts facts = facts_of(step);
    assert_int_equal(checkpoint_begin(&draft, path, &config, parts, texts, sizeof texts / sizeof *texts), 0);
    for (size_t k = parts->count; k-- > 0;) {
        enum state_part part = parts->part[k];
        size_t bytes = state_element_bytes(parts, part);
        for (size_t i = 0; i < count; i++) element_of(elements + i * bytes, parts, step, part, i);
        put_pieces(draft, part, elements, bytes, 0, count, random);
        if (random_in(random, 0, 1)) put_pieces(draft, part, elements, bytes, count / 3, count / 2, random); /* once more: no harm */
    }
    if (checkpoint_seal(draft, &facts, NULL) != 0 || checkpoint_publish(draft) != 0) fail_msg("%s", err_text());
    free(elements);
    free(path);
}

static void write_checkpoint(uint64_t step, struct random *random) { write_parts(step, &adamw, random); }

static void what_was_put_in_any_order_is_read_back(void **unused) {
    (void)unused;
    struct random random = random_open("what_was_put_in_any_order_is_read_back");
    struct gpt2_config config = small_config();
    size_t count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    struct checkpoint *checkpoint;
    struct checkpoint_facts facts;
    write_checkpoint(7, &random);
    char *path = path_in("checkpoint-7");
    assert_int_equal(entries_in(folder), 1);
    assert_int_equal(entries_in(path), 7);
    assert_int_equal(checkpoint_open(&checkpoint, path), 0);
    const struct gpt2_config *got = checkpoint_config(checkpoint);
    assert_int_equal(got->n_positions, config.n_positions);
    assert_int_equal(got->n_inner, config.n_inner);
    assert_true(got->layer_norm_epsilon == config.layer_norm_epsilon && got->attn_pdrop == config.attn_pdrop && got->scale_attn_weights);
    assert_int_equal(got->eos_token_id, config.eos_token_id);
    for (int round = 0; round < 100; round++) {
        enum state_part part = (enum state_part)random_in(&random, 0, 2);
        size_t first = round < 3 ? 0 : random_in(&random, 0, count), n = round < 3 ? count : random_in(&random, 0, count - first);
        if (round < 3) part = (enum state_part)round;
        assert_int_equal(checkpoint_read(checkpoint, values, part, first, n), 0);
        for (size_t i = 0; i < n; i++)
            if (values[i] != write_value(7, (int)part, first + i))
                fail_msg("seed %llu: part %d, element %zu", (unsigned long long)random.seed, (int)part, first + i);
    }
    assert_int_equal(checkpoint_facts(checkpoint, &facts), 0);
    struct checkpoint_facts told = facts_of(7);
    assert_true(facts.step == 7 && facts.max_steps == 100 && facts.tokens_seen == told.tokens_seen && facts.epoch == 0.25 &&
                facts.train_loss == 3.125);
    assert_true(isnan(facts.eval_loss));
    assert_memory_equal(facts.state_digest, told.state_digest, XXH128_BYTES);
    uint8_t sha256[SHA256_BYTES];
    char *weights = path_in("checkpoint-7/model.safetensors");
    assert_int_equal(sha256_of_file(sha256, weights), 0);
    assert_memory_equal(facts.weights_sha256, sha256, SHA256_BYTES);
    assert_int_equal(checkpoint_verify(checkpoint), 0);
    checkpoint_close(checkpoint);
    assert_int_equal(checkpoint_open(&checkpoint, weights), 0); /* the file names the folder as well */
    checkpoint_close(checkpoint);
    free(weights);
    free(path);
    free(values);
}

static void the_weights_file_is_a_header_and_the_flat_vector(void **unused) {
    (void)unused;
    struct random random = random_open("the_weights_file_is_a_header_and_the_flat_vector");
    struct gpt2_config config = small_config();
    struct gpt2_tensor tensors[64];
    size_t count = gpt2_parameters(&config), tensor_count = gpt2_tensors(tensors, &config);
    write_checkpoint(3, &random);
    struct buf file = {0};
    char *path = path_in("checkpoint-3/model.safetensors");
    assert_int_equal(file_read(&file, path, SIZE_MAX - 1), 0);
    uint64_t header_bytes;
    memcpy(&header_bytes, file.data, sizeof header_bytes);
    assert_int_equal(header_bytes % 8, 0);
    assert_int_equal(file.size, 8 + header_bytes + count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        float value;
        memcpy(&value, file.data + 8 + header_bytes + i * sizeof value, sizeof value);
        if (value != write_value(3, STATE_WEIGHTS, i)) fail_msg("element %zu", i);
    }
    json_t *header = json_loadb((char *)file.data + 8, header_bytes, 0, NULL);
    assert_int_equal(json_object_size(header), tensor_count + 1);
    assert_int_equal(json_object_size(json_object_get(header, "__metadata__")), 1);
    assert_string_equal(json_string_value(json_object_get(json_object_get(header, "__metadata__"), "format")), "pt");
    json_int_t at = 0;
    for (size_t i = 0; i < tensor_count; i++) {
        json_t *entry = json_object_get(header, tensors[i].name), *offsets = json_object_get(entry, "data_offsets");
        assert_string_equal(json_string_value(json_object_get(entry, "dtype")), "F32");
        assert_int_equal(json_integer_value(json_array_get(offsets, 0)), at);
        at += (json_int_t)(sizeof(float) * tensors[i].size);
        assert_int_equal(json_integer_value(json_array_get(offsets, 1)), at);
    }
    assert_non_null(json_object_get(header, "transformer.h.2.attn.c_attn.weight"));
    json_decref(header);
    buf_free(&file);
    free(path);
}

static void an_incomplete_checkpoint_is_not_published(void **unused) {
    (void)unused;
    struct gpt2_config config = small_config();
    size_t count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    char *path = path_in("checkpoint-1");
    for (size_t missing = 0; missing < 4; missing++) { /* the first, one in the middle, the last element; then none */
        struct checkpoint_draft *draft;
        struct checkpoint_facts facts = facts_of(1);
        size_t hole = missing == 0 ? 0 : missing == 1 ? count / 2 : count - 1;
        assert_int_equal(checkpoint_begin(&draft, path, &config, &adamw, NULL, 0), 0);
        for (int part = 0; part < (int)adamw.count; part++) {
            assert_int_equal(checkpoint_put(draft, (enum state_part)part, values + hole + 1, hole + 1, count - hole - 1), 0);
            assert_int_equal(checkpoint_put(draft, (enum state_part)part, values, 0, hole), 0);
            if (part != STATE_MOMENT1 || missing == 3)
                assert_int_equal(checkpoint_put(draft, (enum state_part)part, values + hole, hole, 1), 0);
        }
        int code = checkpoint_seal(draft, &facts, NULL);
        assert_int_equal(code, missing == 3 ? 0 : ERR_CORRUPT);
        if (missing == 3) assert_int_equal(checkpoint_publish(draft), 0);
        else {
            assert_non_null(strstr(err_text(), "first moments"));
            checkpoint_discard(draft);
            assert_int_equal(entries_in(folder), 0);
        }
    }
    assert_true(file_exists(path));
    free(path);
    free(values);
}

static void an_older_folder_of_that_name_is_replaced(void **unused) {
    (void)unused;
    struct random random = random_open("an_older_folder_of_that_name_is_replaced");
    char *left_over = path_in("checkpoint-5/pytorch_model.bin");
    write_checkpoint(5, &random);
    assert_int_equal(file_publish(left_over, "x", 1), 0);
    write_checkpoint(5, &random);
    assert_false(file_exists(left_over));
    assert_int_equal(entries_in(folder), 1);
    char *path;
    uint64_t step;
    struct buf passed = {0};
    assert_int_equal(checkpoint_newest(&path, &step, &passed, folder), 0);
    assert_non_null(path);
    assert_int_equal(step, 5);
    assert_int_equal(passed.size, 0);
    free(path);
    free(left_over);
}

static void a_disk_without_room_leaves_nothing_behind(void **unused) {
    (void)unused;
    struct gpt2_config config = small_config();
    struct checkpoint_draft *draft;
    struct rlimit old, tight = {.rlim_cur = 4096};
    char *path = path_in("checkpoint-1");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    int code = checkpoint_begin(&draft, path, &config, &adamw, NULL, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(code, ERR_DENIED); /* a longer file than this process may write */
    assert_int_equal(entries_in(folder), 0);
    free(path);
}

static void flip_bit(const char *path, struct random *random) {
    uint64_t size;
    uint8_t byte;
    size_t got;
    assert_int_equal(file_size(&size, path), 0);
    int fd = open(path, O_RDWR);
    uint64_t at = random_in(random, 0, size - 1);
    assert_int_equal(file_read_at(fd, &byte, &got, 1, at), 0);
    byte ^= (uint8_t)(1 << random_in(random, 0, 7));
    assert_int_equal(file_write_at(fd, &byte, 1, at), 0);
    close(fd);
}

static void assert_newest(uint64_t expected, const struct random *random, const char *after) {
    char *path = NULL;
    uint64_t step = 0;
    struct buf passed = {0};
    assert_int_equal(checkpoint_newest(&path, &step, &passed, folder), 0);
    if ((path ? step : 0) != expected)
        fail_msg("seed %llu: %s: newest is %llu instead of %llu", (unsigned long long)random->seed, after, (unsigned long long)step,
                 (unsigned long long)expected);
    free(path);
    buf_free(&passed);
}

static void assert_parts(const char *path, uint64_t step, const struct state_parts *parts) {
    struct gpt2_config config = small_config();
    size_t count = gpt2_parameters(&config), at = 0;
    char *got = mem_alloc(count * sizeof(float)), wanted[sizeof(float)];
    struct checkpoint *checkpoint;
    assert_int_equal(checkpoint_open(&checkpoint, path), 0);
    assert_int_equal(checkpoint_verify(checkpoint), 0);
    for (int part = 0; part < STATE_PARTS; part++) {
        bool there = at < parts->count && (int)parts->part[at] == part;
        size_t bytes = state_element_bytes(parts, (enum state_part)part), first = count / 3 | 1;
        for (int whole = 0; whole < 2; whole++, first = 0) {
            int code = checkpoint_read_state(checkpoint, got, parts, (enum state_part)part, first, count - first);
            assert_int_equal(code, there ? 0 : ERR_NOTFOUND);
            for (size_t i = first; there && i < count; i++) {
                element_of(wanted, parts, step, (enum state_part)part, i);
                assert_memory_equal(got + (i - first) * bytes, wanted, bytes);
            }
        }
        at += there;
    }
    checkpoint_close(checkpoint);
    free(got);
}

static void a_checkpoint_has_the_parts_of_its_optimizer(void **unused) {
    (void)unused;
    enum { TEXTS = sizeof texts / sizeof *texts, SMALL_FILES = 2 + TEXTS + 1 }; /* the two configs, texts, millrace_state.json */
    static const struct {
        struct state_parts parts;
        size_t large_files;
    } cases[] = {
        {{1, {STATE_WEIGHTS}, MOMENTS_FP32}, 1},
        {{2, {STATE_WEIGHTS, STATE_MOMENT1}, MOMENTS_FP32}, 2},
        {{2, {STATE_WEIGHTS, STATE_EMA}, MOMENTS_FP32}, 2},
        {{4, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2, STATE_EMA}, MOMENTS_FP32}, 3},
        {{4, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2, STATE_EMA}, MOMENTS_BF16}, 3},
        {{2, {STATE_WEIGHTS, STATE_MOMENT1}, MOMENTS_BF16}, 2},
    };
    struct random random = random_open("a_checkpoint_has_the_parts_of_its_optimizer");
    char *path = path_in("checkpoint-4"), *optimizer = path_in("checkpoint-4/optimizer.safetensors"),
         *average = path_in("checkpoint-4/model.ema.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_parts(4, &cases[i].parts, &random);
        assert_int_equal(entries_in(path), SMALL_FILES + cases[i].large_files);
        assert_parts(path, 4, &cases[i].parts);
        assert_newest(4, &random, "whole");
        if (cases[i].parts.count == 1) continue;
        flip_bit(file_exists(average) ? average : optimizer, &random);
        assert_newest(0, &random, "damaged beside the weights");
    }
    free(average);
    free(optimizer);
    free(path);
}

static void assert_absent(const char *path, enum state_part part, const char *says, const char *key) {
    static const struct state_parts all = {4, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2, STATE_EMA}, MOMENTS_FP32};
    struct checkpoint *checkpoint;
    float value;
    assert_int_equal(checkpoint_open(&checkpoint, path), 0);
    assert_int_equal(checkpoint_verify(checkpoint), 0);
    assert_int_equal(checkpoint_read_state(checkpoint, &value, &all, STATE_WEIGHTS, 0, 1), 0);
    assert_int_equal(checkpoint_read_state(checkpoint, &value, &all, part, 0, 1), ERR_NOTFOUND);
    if (!strstr(err_text(), says) || !strstr(err_text(), key) || !strstr(err_text(), "another output_dir")) fail_msg("%s", err_text());
    checkpoint_close(checkpoint);
}

/* A file that the record does not name may hold anything. */
static void a_part_that_is_not_there_is_told_with_the_key_that_asks_for_it(void **unused) {
    (void)unused;
    static const char *const names[] = {"optimizer.safetensors", "model.ema.safetensors"};
    static const char *const keys[] = {"training.optim ", "training.ema_decay"};
    struct random random = random_open("a_part_that_is_not_there");
    char *path = path_in("checkpoint-4");
    for (int i = 0; i < 2; i++) {
        char *absent = mem_format("checkpoint-4 has no %s, ", names[i]), *stray = mem_format("checkpoint-4/%s is not one of", names[i]);
        char *there = path_in(names[i]), *here = mem_format("%s/%s", path, names[i]);
        enum state_part part = i ? STATE_EMA : STATE_MOMENT1;
        write_parts(4, &(struct state_parts){4, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2, STATE_EMA}, MOMENTS_FP32}, &random);
        assert_int_equal(rename(here, there), 0);
        write_parts(4, &(struct state_parts){1, {STATE_WEIGHTS}, MOMENTS_FP32}, &random);
        assert_absent(path, part, absent, keys[i]);
        assert_int_equal(rename(there, here), 0);
        assert_absent(path, part, stray, keys[i]);
        assert_newest(4, &random, "with a file beside its own");
        free(here);
        free(there);
        free(stray);
        free(absent);
    }
    free(path);
}

static void moments_in_bfloat16_take_two_bytes_and_say_so(void **unused) {
    (void)unused;
    struct random random = random_open("moments_in_bfloat16_take_two_bytes_and_say_so");
    struct state_parts narrow = adamw, other = adamw;
    narrow.moments_type = MOMENTS_BF16;
    char *path = path_in("checkpoint-4"), *moments = path_in("checkpoint-4/optimizer.safetensors");
    float value;
    for (int round = 0; round < 2; round++) {
        struct checkpoint *checkpoint;
        struct safetensors *file;
        uint64_t size;
        struct gpt2_config config = small_config();
        write_parts(4, round ? &narrow : &adamw, &random);
        assert_int_equal(safetensors_open(&file, moments), 0);
        for (size_t i = 0; i < file->count; i++) assert_string_equal(file->entry[i].dtype, round ? "BF16" : "F32");
        assert_int_equal(file_size(&size, moments), 0);
        assert_int_equal(size - file->data_offset, 2 * gpt2_parameters(&config) * (round ? 2 : 4));
        safetensors_close(file);
        assert_int_equal(checkpoint_open(&checkpoint, path), 0);
        other.moments_type = round ? MOMENTS_FP32 : MOMENTS_BF16;
        assert_int_equal(checkpoint_read_state(checkpoint, &value, &other, STATE_WEIGHTS, 0, 1), 0);
        for (int part = STATE_MOMENT1; part <= STATE_MOMENT2; part++) {
            assert_int_equal(checkpoint_read_state(checkpoint, &value, &other, (enum state_part)part, 0, 1), ERR_UNSUPPORTED);
            assert_non_null(strstr(err_text(), round ? "set it to bf16" : "set it to fp32"));
        }
        checkpoint_close(checkpoint);
    }
    free(moments);
    free(path);
}

static void the_average_can_stand_for_the_weights(void **unused) {
    (void)unused;
    struct random random = random_open("the_average_can_stand_for_the_weights");
    struct gpt2_config config = small_config();
    size_t count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    struct checkpoint *checkpoint;
    write_parts(4, &(struct state_parts){2, {STATE_WEIGHTS, STATE_EMA}, MOMENTS_FP32}, &random);
    char *path = path_in("checkpoint-4/model.ema.safetensors"), *other = path_in("checkpoint-4/config.json");
    assert_int_equal(checkpoint_open(&checkpoint, path), 0);
    assert_int_equal(checkpoint_read(checkpoint, values, STATE_WEIGHTS, 0, count), 0);
    for (size_t i = 0; i < count; i++) assert_true(values[i] == write_value(4, STATE_EMA, i));
    checkpoint_close(checkpoint);
    assert_int_equal(checkpoint_open(&checkpoint, other), ERR_UNSUPPORTED);
    free(other);
    free(path);
    free(values);
}

static void one_flipped_bit_makes_the_one_before_the_newest(void **unused) {
    (void)unused;
    static const char *const names[] = {"model.safetensors",     "optimizer.safetensors",   "config.json",
                                        "generation_config.json", "vocab.json",              "merges.txt"};
    struct random random = random_open("one_flipped_bit_makes_the_one_before_the_newest");
    assert_newest(0, &random, "an empty folder");
    write_checkpoint(9, &random);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        write_checkpoint(10, &random);
        assert_newest(10, &random, "undamaged");
        char *path = mem_format("%s/checkpoint-10/%s", folder, names[i]);
        flip_bit(path, &random);
        assert_newest(9, &random, names[i]);
        assert_int_equal(unlink(path), 0);
        assert_newest(9, &random, names[i]);
        free(path);
    }
}

/* A record may tell the truth of a file that is not what its name says. */
static void a_file_that_holds_something_else_makes_the_one_before_the_newest(void **unused) {
    (void)unused;
    static const char *const names[][2] = {{"optimizer.safetensors", "model.safetensors"},
                                            {"model.ema.safetensors", "optimizer.safetensors"}};
    static const struct state_parts parts = {4, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2, STATE_EMA}, MOMENTS_FP32};
    struct random random = random_open("a_file_that_holds_something_else_makes_the_one_before_the_newest");
    char *record_path = path_in("checkpoint-10/millrace_state.json");
    for (int i = 0; i < 2; i++) {
        struct buf text = {0}, file = {0};
        struct checkpoint_record record;
        write_parts(9, &parts, &random);
        write_parts(10, &parts, &random);
        assert_newest(10, &random, "undamaged");
        char *path = mem_format("%s/checkpoint-10/%s", folder, names[i][0]),
             *other = mem_format("%s/checkpoint-10/%s", folder, names[i][1]);
        assert_int_equal(file_read(&text, record_path, CHECKPOINT_RECORD_BYTES_MAX), 0);
        assert_int_equal(checkpoint_record_parse(&record, record_path, (const char *)text.data, text.size), 0);
        assert_int_equal(sha256_of_file(i == 0 ? record.facts.optimizer_sha256 : record.facts.ema_sha256, other), 0);
        assert_int_equal(file_read(&file, other, 1 << 24), 0);
        assert_int_equal(file_publish(path, file.data, file.size), 0);
        buf_clear(&text);
        assert_int_equal(checkpoint_record_print(&text, &record), 0);
        assert_int_equal(file_publish(record_path, text.data, text.size), 0);
        assert_newest(9, &random, names[i][0]);
        buf_free(&text), buf_free(&file);
        free(other), free(path);
    }
    free(record_path);
}

static void a_writer_killed_at_any_time_leaves_whole_checkpoints_only(void **unused) {
    (void)unused;
    enum { ROUNDS = 25, LONGEST_US = 90000 };
    struct random random = random_open("a_writer_killed_at_any_time_leaves_whole_checkpoints_only");
    write_checkpoint(9, &random);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t delay_us = random_in(&random, 0, LONGEST_US);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            for (;;) write_checkpoint(10, &random); /* the first is new, those after it replace it */
        usleep((useconds_t)delay_us);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
        char *ten = path_in("checkpoint-10");
        assert_newest(file_exists(ten) ? 10 : 9, &random, "a killed writer");
        assert_int_equal(checkpoint_prune(folder, 0), 0);
        assert_int_equal(entries_in(folder), file_exists(ten) ? 2 : 1);
        if (round % 3 == 0) assert_int_equal(folder_remove(ten), 0);
        free(ten);
    }
}

/* White space and the names of files apart, no bit of millrace_state.json may change a value unnoticed. */
static void a_flipped_bit_in_the_record_changes_no_value(void **unused) {
    (void)unused;
    struct random random = random_open("a_flipped_bit_in_the_record_changes_no_value");
    write_checkpoint(10, &random);
    char *path = path_in("checkpoint-10/millrace_state.json"), *checkpoint_path = path_in("checkpoint-10");
    struct buf text = {0};
    struct checkpoint *checkpoint;
    struct checkpoint_facts good, facts;
    assert_int_equal(file_read(&text, path, 1 << 20), 0);
    assert_int_equal(checkpoint_open(&checkpoint, checkpoint_path), 0);
    assert_int_equal(checkpoint_facts(checkpoint, &good), 0);
    good.eval_loss = 0;
    int fd = open(path, O_WRONLY);
    for (size_t i = 0; i < text.size; i++) {
        uint8_t bit = (uint8_t)(1 << (i % 8));
        text.data[i] ^= bit;
        assert_int_equal(file_write_at(fd, text.data, text.size, 0), 0);
        text.data[i] ^= bit;
        if (checkpoint_facts(checkpoint, &facts) < 0) continue;
        facts.eval_loss = 0;
        if (memcmp(&facts, &good, sizeof good) != 0) fail_msg("byte %zu: a changed value was accepted", i);
    }
    close(fd);
    checkpoint_close(checkpoint);
    buf_free(&text);
    free(checkpoint_path);
    free(path);
}

/* The record of a checkpoint by the first release had another name, and the folder no file of Hugging Face's. */
static void checkpoints_of_the_first_release_are_read(void **unused) {
    (void)unused;
    struct random random = random_open("checkpoints_of_the_first_release_are_read");
    write_checkpoint(10, &random);
    char *path = path_in("checkpoint-10/millrace_state.json"), *old = path_in("checkpoint-10/trainer_state.json"),
         *folder_path = path_in("checkpoint-10");
    struct buf text = {.size = 0};
    assert_int_equal(rename(path, old), 0);
    assert_newest(10, &random, "an old name");
    assert_int_equal(buf_print(&text, "{}"), 0);
    assert_int_equal(checkpoint_add_evaluation(folder_path, 2.5, 10, &text), 0); /* nothing to write it into */
    assert_parts(folder_path, 10, &adamw);
    flip_bit(old, &random);
    char *weights = path_in("checkpoint-10/model.safetensors");
    flip_bit(weights, &random);
    assert_newest(0, &random, "damaged");
    buf_free(&text);
    free(weights), free(folder_path), free(old), free(path);
}

static void a_folder_that_was_given_another_number_is_passed_over(void **unused) {
    (void)unused;
    struct random random = random_open("a_folder_that_was_given_another_number_is_passed_over");
    char *from = path_in("checkpoint-10"), *to = path_in("checkpoint-20");
    write_checkpoint(9, &random);
    write_checkpoint(10, &random);
    assert_int_equal(rename(from, to), 0);
    assert_newest(9, &random, "another number");
    free(from), free(to);
}

static void in_a_folder_that_fails_in_the_middle_no_checkpoint_is_the_newest(void **unused) {
    (void)unused;
    struct random random = random_open("in_a_folder_that_fails_in_the_middle_no_checkpoint_is_the_newest");
    char *path = NULL;
    uint64_t step;
    write_checkpoint(9, &random);
    write_checkpoint(10, &random);
    for (int after = 0; after < 5; after++) { /* two checkpoints, the folder itself, the one above, and the end of them */
        broken_folder_after = after;
        assert_int_equal(checkpoint_newest(&path, &step, NULL, folder), ERR_IO);
        broken_folder_after = after;
        assert_int_equal(checkpoint_check_places(folder, 10, 1, 0), ERR_IO);
    }
    assert_null(path);
    broken_folder_after = INT_MAX;
    assert_newest(10, &random, "the folder can be read again");
}

/* All that a writer can add fits, and a record with one file more is refused. */
static void a_record_has_room_for_all_files_and_no_more(void **unused) {
    (void)unused;
    struct gpt2_config config = small_config();
    struct checkpoint_text most[CHECKPOINT_TEXTS_MAX];
    char names[CHECKPOINT_TEXTS_MAX][16], *path = path_in("checkpoint-1"), *record_path = path_in("checkpoint-1/millrace_state.json");
    for (int i = 0; i < CHECKPOINT_TEXTS_MAX; i++) {
        snprintf(names[i], sizeof names[i], "text-%d", i);
        most[i] = (struct checkpoint_text){names[i], "x", 1};
    }
    size_t count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    struct checkpoint_draft *draft;
    struct checkpoint_facts facts = facts_of(1);
    struct state_parts weights = {1, {STATE_WEIGHTS}, MOMENTS_FP32};
    struct buf log = {0}, text = {0};
    struct checkpoint_record record;
    assert_int_equal(buf_print(&log, "{}\n"), 0);
    assert_int_equal(checkpoint_begin(&draft, path, &config, &weights, most, CHECKPOINT_TEXTS_MAX), 0);
    assert_int_equal(checkpoint_put(draft, STATE_WEIGHTS, values, 0, count), 0);
    assert_int_equal(checkpoint_seal(draft, &facts, &log), 0);
    assert_int_equal(checkpoint_publish(draft), 0);
    assert_int_equal(file_read(&text, record_path, CHECKPOINT_RECORD_BYTES_MAX), 0);
    assert_int_equal(checkpoint_record_parse(&record, record_path, (const char *)text.data, text.size), 0);
    assert_int_equal(record.small_files, CHECKPOINT_SMALL_FILES_MAX);
    json_t *root = json_loadb((const char *)text.data, text.size, 0, NULL), *files = json_object_get(root, "files_sha256");
    char hex[SHA256_HEX];
    uint8_t sha256[SHA256_BYTES] = {0};
    hex_of(hex, sha256, sizeof sha256);
    json_object_set_new(files, "one-more", json_string(hex));
    json_object_del(root, "sha256");
    char *compact = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    sha256_of(sha256, compact, strlen(compact));
    hex_of(hex, sha256, sizeof sha256);
    json_object_set_new(root, "sha256", json_string(hex));
    char *more = json_dumps(root, JSON_REAL_PRECISION(17));
    assert_int_equal(checkpoint_record_parse(&record, record_path, more, strlen(more)), ERR_CORRUPT);
    json_decref(root);
    buf_free(&text), buf_free(&log);
    free(more), free(compact), free(values), free(path), free(record_path);
}

static void an_evaluation_that_comes_later_is_added(void **unused) {
    (void)unused;
    static const struct state_parts all = {4, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2, STATE_EMA}, MOMENTS_FP32};
    struct random random = random_open("an_evaluation_that_comes_later_is_added");
    struct buf text = {0}, got = {0};
    struct checkpoint *checkpoint;
    struct checkpoint_facts facts;
    char *path = path_in("checkpoint-10"), *theirs = path_in("checkpoint-10/trainer_state.json");
    write_parts(10, &all, &random);
    for (int round = 0; round < 2; round++) { /* the second one replaces the first */
        double loss = 2.5 + round;
        buf_clear(&text);
        assert_int_equal(buf_print(&text, "{\"global_step\": %d}\n", round), 0);
        if (checkpoint_add_evaluation(path, loss, 10, &text) < 0) fail_msg("%s", err_text());
        assert_newest(10, &random, "with its evaluation");
        assert_parts(path, 10, &all);
        assert_int_equal(entries_in(folder), 1);
        assert_int_equal(entries_in(path), 9);
        assert_int_equal(checkpoint_open(&checkpoint, path), 0);
        assert_int_equal(checkpoint_facts(checkpoint, &facts), 0);
        checkpoint_close(checkpoint);
        assert_true(facts.eval_loss == loss && facts.eval_step == 10 && facts.train_loss == 3.125);
        buf_clear(&got);
        assert_int_equal(file_read(&got, theirs, 1000), 0);
        assert_int_equal(got.size, text.size);
        assert_memory_equal(got.data, text.data, text.size);
    }
    flip_bit(theirs, &random);
    assert_newest(0, &random, "a bit of trainer_state.json");
    buf_free(&text), buf_free(&got);
    free(theirs), free(path);
}

/* Again and again while another process reads it: whatever the reader is at, the checkpoint is whole. */
static void a_checkpoint_that_is_told_its_evaluation_while_it_is_read_is_whole(void **unused) {
    (void)unused;
    enum { TIMES = 60, PAUSE_US = 5000 };
    struct random random = random_open("a_checkpoint_that_is_told_its_evaluation_while_it_is_read_is_whole");
    struct buf text = {0};
    char *path = path_in("checkpoint-10");
    write_checkpoint(10, &random);
    assert_int_equal(buf_print(&text, "{}"), 0);
    pid_t child = fork();
    if (child == 0) {
        bool done = true;
        for (int i = 0; i < TIMES && done; i++, usleep(PAUSE_US)) done = checkpoint_add_evaluation(path, 1.5 + i, 10, &text) == 0;
        _exit(done ? 0 : 1);
    }
    int status;
    while (waitpid(child, &status, WNOHANG) == 0) assert_newest(10, &random, "told its evaluation meanwhile");
    assert_int_equal(status, 0);
    assert_newest(10, &random, "told its evaluation");
    buf_free(&text);
    free(path);
}

static void pruning_keeps_the_newest_and_what_a_writer_holds(void **unused) {
    (void)unused;
    struct random random = random_open("pruning_keeps_the_newest_and_what_a_writer_holds");
    struct gpt2_config config = small_config();
    struct checkpoint_draft *draft;
    char *leftover = path_in("checkpoint-4.draft-1-0"), *notes = path_in("checkpoint-notes"), *next = path_in("checkpoint-50");
    static const uint64_t steps[] = {5, 10, 40, 100};
    for (size_t i = 0; i < 4; i++) write_checkpoint(steps[i], &random);
    assert_int_equal(folder_make(leftover), 0);
    assert_int_equal(folder_make(notes), 0);
    assert_int_equal(checkpoint_begin(&draft, next, &config, &adamw, NULL, 0), 0);
    assert_int_equal(checkpoint_prune(folder, 0), 0); /* no limit: only the leftover goes */
    assert_int_equal(entries_in(folder), 6);
    assert_int_equal(checkpoint_prune(folder, 2), 0);
    assert_int_equal(entries_in(folder), 4); /* 40, 100, notes, and the draft */
    assert_false(file_exists(leftover));
    checkpoint_discard(draft);
    assert_newest(100, &random, "after pruning");

    char *damaged = path_in("checkpoint-100/model.safetensors");
    flip_bit(damaged, &random);
    assert_int_equal(checkpoint_prune(folder, 1), 0);
    assert_newest(40, &random, "the newest is damaged, so the one before must stay");
    free(damaged);
    free(next);
    free(notes);
    free(leftover);
}

static void only_names_that_millrace_gives_are_drafts(void **unused) {
    (void)unused;
    static const char *const drafts[] = {"checkpoint-500.draft-1-0", "checkpoint-500.draft-31-7-whole", "checkpoint-500.draft-removed"};
    static const char *const others[] = {"checkpoint-500.draft",       "checkpoint-500.draft-notes", "checkpoint-500.draft-1",
                                         "checkpoint-500.draft-1-0x",  "checkpoint-500.draft-1-0-old", "checkpoint-500.draft-removed-not",
                                         "checkpoint-x.draft-1-0"};
    for (int restart = 0; restart < 2; restart++) {
        for (size_t i = 0; i < sizeof drafts / sizeof *drafts + sizeof others / sizeof *others; i++) {
            bool draft = i < sizeof drafts / sizeof *drafts;
            char *path = path_in(draft ? drafts[i] : others[i - sizeof drafts / sizeof *drafts]);
            assert_int_equal(folder_make(path), 0);
            assert_int_equal(restart ? checkpoint_remove_all(folder) : checkpoint_prune(folder, 1), 0);
            if (file_exists(path) == draft) fail_msg("%s %s", path, draft ? "is there yet" : "is gone");
            free(path);
        }
    }
}

static void a_copy_with_zeros_before_its_number_counts_for_nothing_and_stays(void **unused) {
    (void)unused;
    struct random random = random_open("a_copy_with_zeros_before_its_number_counts_for_nothing_and_stays");
    char *path = path_in("checkpoint-10"), *copy = path_in("checkpoint-010");
    for (uint64_t step = 5; step <= 10; step += 5) write_checkpoint(step, &random);
    assert_int_equal(rename(path, copy), 0);
    write_checkpoint(10, &random);
    assert_int_equal(checkpoint_prune(folder, 2), 0);
    assert_int_equal(entries_in(folder), 3);
    assert_int_equal(checkpoint_remove_all(folder), 0);
    assert_true(file_exists(copy) && entries_in(folder) == 1);
    free(copy), free(path);
}

/* A folder that was just made and is not locked yet must not be lost to who removes what crashes left, at the same time. */
static void checkpoints_begin_and_are_told_evaluations_while_others_are_pruned(void **unused) {
    (void)unused;
    enum { TIMES = 400 };
    struct random random = random_open("checkpoints_begin_and_are_told_evaluations_while_others_are_pruned");
    struct gpt2_config config = small_config();
    struct buf text = {0};
    char *path = path_in("checkpoint-10"), *next = path_in("checkpoint-20");
    write_checkpoint(10, &random);
    assert_int_equal(buf_print(&text, "{}"), 0);
    pid_t child = fork();
    if (child == 0) {
        while (checkpoint_prune(folder, 0) == 0) {}
        log_error("pruning: %s", err_text());
        _exit(1);
    }
    int code = 0, status;
    for (int i = 0; i < TIMES && code == 0; i++) {
        struct checkpoint_draft *draft = NULL;
        code = checkpoint_begin(&draft, next, &config, &adamw, NULL, 0);
        checkpoint_discard(draft);
        if (code == 0 && i % 8 == 0) code = checkpoint_add_evaluation(path, 1.5 + i, 10, &text);
    }
    bool prunes = waitpid(child, &status, WNOHANG) == 0;
    if (prunes) kill(child, SIGKILL), waitpid(child, &status, 0);
    if (code < 0) fail_msg("%s", err_text());
    assert_true(prunes);
    assert_newest(10, &random, "pruned all the time");
    buf_free(&text);
    free(next), free(path);
}

int main(void) {
    log_setup("test", LOG_ERROR); /* the warnings about damage are wanted here */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_put_in_any_order_is_read_back, enter, leave),
        cmocka_unit_test_setup_teardown(the_weights_file_is_a_header_and_the_flat_vector, enter, leave),
        cmocka_unit_test_setup_teardown(an_incomplete_checkpoint_is_not_published, enter, leave),
        cmocka_unit_test_setup_teardown(an_older_folder_of_that_name_is_replaced, enter, leave),
        cmocka_unit_test_setup_teardown(a_disk_without_room_leaves_nothing_behind, enter, leave),
        cmocka_unit_test_setup_teardown(a_checkpoint_has_the_parts_of_its_optimizer, enter, leave),
        cmocka_unit_test_setup_teardown(a_part_that_is_not_there_is_told_with_the_key_that_asks_for_it, enter, leave),
        cmocka_unit_test_setup_teardown(moments_in_bfloat16_take_two_bytes_and_say_so, enter, leave),
        cmocka_unit_test_setup_teardown(the_average_can_stand_for_the_weights, enter, leave),
        cmocka_unit_test_setup_teardown(one_flipped_bit_makes_the_one_before_the_newest, enter, leave),
        cmocka_unit_test_setup_teardown(a_file_that_holds_something_else_makes_the_one_before_the_newest, enter, leave),
        cmocka_unit_test_setup_teardown(a_writer_killed_at_any_time_leaves_whole_checkpoints_only, enter, leave),
        cmocka_unit_test_setup_teardown(a_flipped_bit_in_the_record_changes_no_value, enter, leave),
        cmocka_unit_test_setup_teardown(checkpoints_of_the_first_release_are_read, enter, leave),
        cmocka_unit_test_setup_teardown(a_folder_that_was_given_another_number_is_passed_over, enter, leave),
        cmocka_unit_test_setup_teardown(in_a_folder_that_fails_in_the_middle_no_checkpoint_is_the_newest, enter, leave),
        cmocka_unit_test_setup_teardown(a_record_has_room_for_all_files_and_no_more, enter, leave),
        cmocka_unit_test_setup_teardown(an_evaluation_that_comes_later_is_added, enter, leave),
        cmocka_unit_test_setup_teardown(a_checkpoint_that_is_told_its_evaluation_while_it_is_read_is_whole, enter, leave),
        cmocka_unit_test_setup_teardown(checkpoints_begin_and_are_told_evaluations_while_others_are_pruned, enter, leave),
        cmocka_unit_test_setup_teardown(pruning_keeps_the_newest_and_what_a_writer_holds, enter, leave),
        cmocka_unit_test_setup_teardown(a_copy_with_zeros_before_its_number_counts_for_nothing_and_stays, enter, leave),
        cmocka_unit_test_setup_teardown(only_names_that_millrace_gives_are_drafts, enter, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
