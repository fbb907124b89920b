/* Checkpoints: whole or absent, every bit accounted for, foreign ones read or refused by name. */
#include "model/checkpoint.h"

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
#include "model/safetensors.h"
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

static struct trainer_state state_of(uint64_t step) {
    return (struct trainer_state){.step = step,
                                  .max_steps = 100,
                                  .tokens_seen = step * 2048,
                                  .epoch = 0.25,
                                  .train_loss = 3.125,
                                  .eval_loss = NAN,
                                  .state_digest = {1, 2, 254}};
}

static const struct state_parts adamw = {3, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2}, OPTIM_STATE_FP32};

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
    struct trainer_state state = state_of(step);
    assert_int_equal(checkpoint_begin(&draft, path, &config, parts, texts, sizeof texts / sizeof *texts), 0);
    for (size_t k = parts->count; k-- > 0;) {
        enum state_part part = parts->part[k];
        size_t bytes = state_element_bytes(parts, part);
        for (size_t i = 0; i < count; i++) element_of(elements + i * bytes, parts, step, part, i);
        put_pieces(draft, part, elements, bytes, 0, count, random);
        if (random_in(random, 0, 1)) put_pieces(draft, part, elements, bytes, count / 3, count / 2, random); /* once more: no harm */
    }
    if (checkpoint_publish(draft, &state) != 0) fail_msg("%s", err_text());
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
    struct trainer_state state;
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
    assert_int_equal(checkpoint_trainer_state(checkpoint, &state), 0);
    struct trainer_state told = state_of(7);
    assert_true(state.step == 7 && state.max_steps == 100 && state.tokens_seen == told.tokens_seen && state.epoch == 0.25 &&
                state.train_loss == 3.125);
    assert_true(isnan(state.eval_loss));
    assert_memory_equal(state.state_digest, told.state_digest, XXH128_BYTES);
    uint8_t sha256[SHA256_BYTES];
    char *weights = path_in("checkpoint-7/model.safetensors");
    assert_int_equal(sha256_of_file(sha256, weights), 0);
    assert_memory_equal(state.weights_sha256, sha256, SHA256_BYTES);
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
        struct trainer_state state = state_of(1);
        size_t hole = missing == 0 ? 0 : missing == 1 ? count / 2 : count - 1;
        assert_int_equal(checkpoint_begin(&draft, path, &config, &adamw, NULL, 0), 0);
        for (int part = 0; part < (int)adamw.count; part++) {
            assert_int_equal(checkpoint_put(draft, (enum state_part)part, values + hole + 1, hole + 1, count - hole - 1), 0);
            assert_int_equal(checkpoint_put(draft, (enum state_part)part, values, 0, hole), 0);
            if (part != STATE_MOMENT1 || missing == 3)
                assert_int_equal(checkpoint_put(draft, (enum state_part)part, values + hole, hole, 1), 0);
        }
        int code = checkpoint_publish(draft, &state);
        assert_int_equal(code, missing == 3 ? 0 : ERR_CORRUPT);
        if (missing < 3) {
            assert_non_null(strstr(err_text(), "first moments"));
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
    assert_int_equal(checkpoint_newest(&path, &step, folder), 0);
    assert_non_null(path);
    assert_int_equal(step, 5);
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
    assert_true(code == ERR_IO || code == ERR_NOSPACE);
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
    assert_int_equal(checkpoint_newest(&path, &step, folder), 0);
    if ((path ? step : 0) != expected)
        fail_msg("seed %llu: %s: newest is %llu instead of %llu", (unsigned long long)random->seed, after, (unsigned long long)step,
                 (unsigned long long)expected);
    free(path);
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
    static const struct {
        struct state_parts parts;
        size_t files;
    } cases[] = {
        {{1, {STATE_WEIGHTS}, OPTIM_STATE_FP32}, 6},
        {{2, {STATE_WEIGHTS, STATE_MOMENT1}, OPTIM_STATE_FP32}, 7},
        {{2, {STATE_WEIGHTS, STATE_EMA}, OPTIM_STATE_FP32}, 7},
        {{4, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2, STATE_EMA}, OPTIM_STATE_FP32}, 8},
        {{4, {STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2, STATE_EMA}, OPTIM_STATE_BF16}, 8},
        {{2, {STATE_WEIGHTS, STATE_MOMENT1}, OPTIM_STATE_BF16}, 7},
    };
    struct random random = random_open("a_checkpoint_has_the_parts_of_its_optimizer");
    char *path = path_in("checkpoint-4"), *optimizer = path_in("checkpoint-4/optimizer.safetensors"),
         *average = path_in("checkpoint-4/model.ema.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_parts(4, &cases[i].parts, &random);
        assert_int_equal(entries_in(path), cases[i].files);
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

static void moments_in_bfloat16_take_two_bytes_and_say_so(void **unused) {
    (void)unused;
    struct random random = random_open("moments_in_bfloat16_take_two_bytes_and_say_so");
    struct state_parts narrow = adamw, other = adamw;
    narrow.moments = OPTIM_STATE_BF16;
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
        other.moments = round ? OPTIM_STATE_FP32 : OPTIM_STATE_BF16;
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
    write_parts(4, &(struct state_parts){2, {STATE_WEIGHTS, STATE_EMA}, OPTIM_STATE_FP32}, &random);
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

/* White space and the names of files apart, no bit of trainer_state.json may change a value unnoticed. */
static void a_flipped_bit_in_trainer_state_changes_no_value(void **unused) {
    (void)unused;
    struct random random = random_open("a_flipped_bit_in_trainer_state_changes_no_value");
    write_checkpoint(10, &random);
    char *path = path_in("checkpoint-10/trainer_state.json"), *checkpoint_path = path_in("checkpoint-10");
    struct buf text = {0};
    struct checkpoint *checkpoint;
    struct trainer_state good, state;
    assert_int_equal(file_read(&text, path, 1 << 20), 0);
    assert_int_equal(checkpoint_open(&checkpoint, checkpoint_path), 0);
    assert_int_equal(checkpoint_trainer_state(checkpoint, &good), 0);
    good.eval_loss = 0;
    int fd = open(path, O_WRONLY);
    for (size_t i = 0; i < text.size; i++) {
        uint8_t bit = (uint8_t)(1 << (i % 8));
        text.data[i] ^= bit;
        assert_int_equal(file_write_at(fd, text.data, text.size, 0), 0);
        text.data[i] ^= bit;
        if (checkpoint_trainer_state(checkpoint, &state) < 0) continue;
        state.eval_loss = 0;
        if (memcmp(&state, &good, sizeof good) != 0) fail_msg("byte %zu: a changed value was accepted", i);
    }
    close(fd);
    checkpoint_close(checkpoint);
    buf_free(&text);
    free(checkpoint_path);
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

/* ---- foreign folders ---- */

/* A folder with a config.json and a model.safetensors whose tensors stand in reverse order, named as old GPT-2 files do. */
struct foreign {
    const char *config;   /* NULL: that of small_config() */
    const char *dtype;    /* of the third tensor */
    const char *extra;    /* name of one more tensor; NULL: none */
    const char *left_out; /* name of a tensor that is missing */
    uint64_t cut, shift;  /* bytes missing at the end; bytes that the first offsets are moved by */
    bool wrong_shape;
};

static const char FOREIGN_CONFIG[] =
    "{\"model_type\": \"gpt2\", \"vocab_size\": 61, \"n_ctx\": 24, \"n_positions\": 24, \"n_embd\": 32, \"n_layer\": 3, "
    "\"n_head\": 4, \"n_inner\": 80, \"eos_token_id\": 50256}";

static int open_foreign(struct checkpoint **out, struct foreign f) {
    struct gpt2_config config = small_config();
    struct gpt2_tensor tensors[64];
    struct safetensors_entry entries[64] = {0};
    size_t count = gpt2_tensors(tensors, &config), used = 0, at = f.shift;
    float *data = mem_alloc(gpt2_parameters(&config) * sizeof *data + 64);
    for (size_t i = count; i-- > 0;) {
        const char *name = tensors[i].name + strlen("transformer.");
        if (f.left_out && strcmp(f.left_out, name) == 0) continue;
        struct safetensors_entry *e = &entries[used++];
        snprintf(e->name, sizeof e->name, "%s", name);
        snprintf(e->dtype, sizeof e->dtype, "%s", used == 3 && f.dtype ? f.dtype : "F32");
        e->rank = tensors[i].rank, e->offset = at, e->size_bytes = sizeof(float) * tensors[i].size;
        for (int d = 0; d < e->rank; d++) e->shape[d] = tensors[i].shape[d];
        if (f.wrong_shape && e->rank == 2) e->shape[0] = tensors[i].shape[1], e->shape[1] = tensors[i].shape[0];
        for (size_t j = 0; j < tensors[i].size; j++) data[(at - f.shift) / sizeof(float) + j] = (float)(tensors[i].offset + j);
        at += e->size_bytes;
    }
    if (f.extra) {
        struct safetensors_entry *e = &entries[used++];
        *e = (struct safetensors_entry){.dtype = "U8", .rank = 1, .shape = {16}, .offset = at, .size_bytes = 16};
        snprintf(e->name, sizeof e->name, "%s", f.extra);
        at += 16;
    }
    struct buf file = {0};
    assert_int_equal(safetensors_print_header(&file, entries, used), 0);
    assert_int_equal(buf_append(&file, data, at - f.shift), 0);
    char *weights = path_in("model.safetensors"), *config_path = path_in("config.json");
    const char *text = f.config ? f.config : FOREIGN_CONFIG;
    assert_int_equal(file_publish(weights, file.data, file.size - f.cut), 0);
    assert_int_equal(file_publish(config_path, text, strlen(text)), 0);
    int code = checkpoint_open(out, folder);
    buf_free(&file);
    free(weights), free(config_path), free(data);
    return code;
}

static void foreign_weights_are_read_by_name(void **unused) {
    (void)unused;
    struct gpt2_config config = small_config();
    size_t count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    static const char *const extras[] = {NULL, "h.0.attn.bias", "h.1.attn.masked_bias", "lm_head.weight"};
    for (size_t e = 0; e < 4; e++) {
        struct checkpoint *checkpoint;
        struct trainer_state state;
        if (open_foreign(&checkpoint, (struct foreign){.extra = extras[e]}) < 0) fail_msg("%s", err_text());
        assert_int_equal(checkpoint_read(checkpoint, values, STATE_WEIGHTS, 0, count), 0);
        for (size_t i = 0; i < count; i++)
            if (values[i] != (float)i) fail_msg("element %zu is %g", i, (double)values[i]);
        assert_int_equal(checkpoint_config(checkpoint)->eos_token_id, -1); /* not in its vocabulary */
        assert_int_equal(checkpoint_trainer_state(checkpoint, &state), ERR_NOTFOUND);
        assert_int_equal(checkpoint_read(checkpoint, values, STATE_MOMENT1, 0, 1), ERR_NOTFOUND);
        char *trainer = path_in("trainer_state.json");
        static const char theirs[] = "{\"global_step\": 500, \"log_history\": []}";
        assert_int_equal(file_publish(trainer, theirs, sizeof theirs - 1), 0);
        assert_int_equal(checkpoint_trainer_state(checkpoint, &state), ERR_NOTFOUND);
        assert_int_equal(unlink(trainer), 0);
        free(trainer);
        checkpoint_close(checkpoint);
    }
    free(values);
}

static void foreign_weights_that_do_not_fit_are_refused_by_name(void **unused) {
    (void)unused;
    static const struct {
        struct foreign f;
        int code;
        const char *word;
    } cases[] = {
        {{.dtype = "F16"}, ERR_CORRUPT, "shape"}, /* F16 with the bytes of F32 */
        {{.dtype = "I32"}, ERR_UNSUPPORTED, "I32"},
        {{.extra = "h.0.crossattention.c_attn.bias"}, ERR_UNSUPPORTED, "crossattention"},
        {{.extra = "h.3.ln_1.bias"}, ERR_UNSUPPORTED, "h.3.ln_1.bias"},
        {{.left_out = "h.1.mlp.c_fc.bias"}, ERR_CORRUPT, "h.1.mlp.c_fc.bias"},
        {{.wrong_shape = true}, ERR_CORRUPT, "shape"},
        {{.cut = 1}, ERR_CORRUPT, "outside the file"},
        {{.shift = 4}, ERR_CORRUPT, "outside the file"},
        {{.config = "{\"vocab_size\": 61"}, ERR_CORRUPT, "config.json"},
        {{.config = "{\"n_embd\": 0}"}, ERR_CORRUPT, "n_embd"},
        {{.config = "{\"n_embd\": 30, \"n_head\": 4}"}, ERR_CORRUPT, "n_head"},
        {{.config = "{\"activation_function\": \"relu\"}"}, ERR_UNSUPPORTED, "relu"},
        {{.config = "{\"scale_attn_by_inverse_layer_idx\": true}"}, ERR_UNSUPPORTED, "scale_attn_by_inverse_layer_idx"},
        {{.config = "{\"tie_word_embeddings\": false}"}, ERR_UNSUPPORTED, "tie_word_embeddings"},
        {{.config = "{\"model_type\": \"llama\"}"}, ERR_UNSUPPORTED, "llama"},
        {{.config = "{\"n_layer\": 2}"}, ERR_CORRUPT, ""}, /* the defaults are GPT-2 small's */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct checkpoint *checkpoint;
        int code = open_foreign(&checkpoint, cases[i].f);
        if (code != cases[i].code || !strstr(err_text(), cases[i].word)) fail_msg("case %zu: %d, %s", i, code, err_text());
    }
    struct checkpoint *checkpoint;
    assert_int_equal(checkpoint_open(&checkpoint, "/nowhere/checkpoint-1"), ERR_NOTFOUND);
    char *path = path_in("config.json");
    assert_int_equal(checkpoint_open(&checkpoint, path), ERR_UNSUPPORTED);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(checkpoint_open(&checkpoint, folder), ERR_NOTFOUND);
    free(path);
}

static int open_header(const char *header, uint64_t told_bytes, size_t data_bytes) {
    struct buf file = {0};
    struct safetensors *st;
    char *path = path_in("x.safetensors"), zeros[64] = {0};
    assert_int_equal(buf_append(&file, &told_bytes, 8) + buf_append(&file, header, strlen(header)) + buf_append(&file, zeros, data_bytes),
                     0);
    assert_int_equal(file_publish(path, file.data, file.size), 0);
    int code = safetensors_open(&st, path);
    if (code == 0) safetensors_close(st);
    buf_free(&file);
    free(path);
    return code;
}

static void a_header_that_lies_is_refused(void **unused) {
    (void)unused;
    static const struct {
        const char *header;
        size_t data_bytes;
        int code;
    } cases[] = {
        {"{}", 0, 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[8,12]}}",
         12, 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
         12, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, ERR_CORRUPT}, /* a hole */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, ERR_CORRUPT},   /* a tail */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[8,0]}}", 8, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,6]}}", 6, ERR_CORRUPT},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ERR_CORRUPT},
        {"{\"a\":7}", 0, ERR_CORRUPT},
        {"[]", 0, ERR_CORRUPT},
        {"{\"a\":", 0, ERR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = open_header(cases[i].header, strlen(cases[i].header), cases[i].data_bytes);
        if (code != cases[i].code) fail_msg("case %zu: %d, %s", i, code, code ? err_text() : "accepted");
    }
    assert_int_equal(open_header("{}", 3, 0), ERR_CORRUPT);
    assert_int_equal(open_header("{}", UINT64_MAX, 0), ERR_CORRUPT);
    assert_int_equal(open_header("{}", 1, 0), ERR_CORRUPT);
    char *path = path_in("x.safetensors");
    uint64_t told = SAFETENSORS_HEADER_MAX + 1;
    struct safetensors *st;
    assert_int_equal(file_publish(path, &told, sizeof told), 0);
    assert_int_equal(truncate(path, 200 * 1000 * 1000), 0); /* sparse */
    assert_int_equal(safetensors_open(&st, path), ERR_LIMIT);
    free(path);
}

static void random_damage_to_a_header_never_crashes(void **unused) {
    (void)unused;
    struct random random = random_open("random_damage_to_a_header_never_crashes");
    struct checkpoint *checkpoint;
    struct buf file = {0};
    char *path = path_in("model.safetensors");
    assert_int_equal(open_foreign(&checkpoint, (struct foreign){0}), 0);
    checkpoint_close(checkpoint);
    assert_int_equal(file_read(&file, path, SIZE_MAX - 1), 0);
    uint64_t header_bytes;
    memcpy(&header_bytes, file.data, sizeof header_bytes);
    for (int round = 0; round < 500; round++) {
        size_t at = random_in(&random, 0, 7 + header_bytes);
        uint8_t old = file.data[at];
        file.data[at] = (uint8_t)random_next(&random);
        int fd = open(path, O_WRONLY);
        assert_int_equal(file_write_at(fd, file.data, 8 + header_bytes, 0), 0);
        close(fd);
        if (checkpoint_open(&checkpoint, folder) == 0) checkpoint_close(checkpoint);
        file.data[at] = old;
    }
    buf_free(&file);
    free(path);
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
        cmocka_unit_test_setup_teardown(moments_in_bfloat16_take_two_bytes_and_say_so, enter, leave),
        cmocka_unit_test_setup_teardown(the_average_can_stand_for_the_weights, enter, leave),
        cmocka_unit_test_setup_teardown(one_flipped_bit_makes_the_one_before_the_newest, enter, leave),
        cmocka_unit_test_setup_teardown(a_writer_killed_at_any_time_leaves_whole_checkpoints_only, enter, leave),
        cmocka_unit_test_setup_teardown(a_flipped_bit_in_trainer_state_changes_no_value, enter, leave),
        cmocka_unit_test_setup_teardown(pruning_keeps_the_newest_and_what_a_writer_holds, enter, leave),
        cmocka_unit_test_setup_teardown(foreign_weights_are_read_by_name, enter, leave),
        cmocka_unit_test_setup_teardown(foreign_weights_that_do_not_fit_are_refused_by_name, enter, leave),
        cmocka_unit_test_setup_teardown(a_header_that_lies_is_refused, enter, leave),
        cmocka_unit_test_setup_teardown(random_damage_to_a_header_never_crashes, enter, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
