/* What a run is given, and what it makes of it when nothing disturbs it: texts, a tokenizer, and the dataset as it is read again. */
#ifndef MILLRACE_TESTS_SIM_INPUTS_H
#define MILLRACE_TESTS_SIM_INPUTS_H

#include "dataset/tokenizer/tokenizer.h"
#include "dataset/tokenizer/train.h"
#include "tests/sim/judge.h"

enum { TEXTS = 4 }; /* source files of a variant, at most */

/* ---- text ---- */

static void write_file(const struct sim *s, const char *name, const void *bytes, size_t size) {
    struct timespec times[2] = {{.tv_sec = 1600000000}, {.tv_sec = 1600000000}}; /* what is known of a file by its times is known again */
    char *path = mem_format("%s/%s", s->folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    CHECK(fd >= 0 && file_write_at(fd, bytes, size, 0) == 0 && futimens(fd, times) == 0 && close(fd) == 0);
    free(path);
}

static void make_folder(const struct sim *s, const char *name) {
    char *path = mem_format("%s/%s", s->folder, name);
    CHECK(mkdir(path, 0777) == 0);
    free(path);
}

/* Some of the documents are there twice. */
static void print_document(struct buf *out, unsigned variant, uint64_t number) {
    static const char *const words[] = {"the", "mill", "turns", "when", "water", "comes", "down", "from", "hills", "and", "nobody", "asks",
                                        "why", "stones", "grind", "what", "fields", "gave", "last", "year"};
    enum { WORDS = sizeof words / sizeof *words };
    if (mix(variant, number) % 5 == 0) number /= 2;
    uint64_t count = 1 + mix(variant + 7, number) % 14;
    CHECK(buf_print(out, "{\"text\": \"") == 0);
    for (uint64_t i = 0; i < count; i++) CHECK(buf_print(out, "%s%s", i ? " " : "", words[mix(mix(variant, number), i) % WORDS]) == 0);
    CHECK(buf_print(out, ".\"}\n") == 0);
}

static unsigned texts_of(unsigned variant) { return 1 + variant % TEXTS; }

/* All texts of a variant are of one name's beginning. */
static void make_texts(struct sim *s, struct bpe_trainer *trainer) {
    for (unsigned variant = 0; variant < VARIANTS; variant++)
        for (unsigned i = 0; i < texts_of(variant); i++) {
            struct buf text = {0};
            uint64_t documents = 4 + mix(variant, i) % 16;
            for (uint64_t k = 0; k < documents; k++) print_document(&text, variant, 100 * i + k);
            char *name = mem_format("text-%u-%u.jsonl", variant, i);
            write_file(s, name, text.data, text.size);
            free(name);
            CHECK(bpe_trainer_feed(trainer, text.data, text.size) == 0 && bpe_trainer_end(trainer) == 0);
            buf_free(&text);
        }
}

/* GPT-2's own takes longer to open than a seed takes. */
static void make_inputs(struct sim *s) {
    static const char *const special[] = {"<|endoftext|>"};
    struct train_options options = {.vocab_size = 300, .min_frequency = 2, .special = special, .special_count = 1, .threads = 1};
    struct tokenizer_file file[TOKENIZER_FILES_MAX];
    struct bpe_trainer *trainer;
    struct tokenizer *made;
    size_t count;
    CHECK(bpe_trainer_open(&trainer, &options) == 0);
    make_texts(s, trainer);
    CHECK(bpe_trainer_finish(trainer, &made) == 0 && tokenizer_print_files(made, file, &count, 0) == 0);
    make_folder(s, "tokenizer");
    for (size_t i = 0; i < count; i++) {
        char *name = mem_format("tokenizer/%s", file[i].name);
        write_file(s, name, file[i].text.data, file[i].text.size);
        free(name);
    }
    tokenizer_files_free(file);
    tokenizer_close(made);
    bpe_trainer_close(trainer);
}

/* ---- the dataset of the undisturbed run ---- */

static void read_split(const struct sim *s, struct split *out, const struct manifest *m, bool validation) {
    struct buf tokens = {0};
    out->geometry = manifest_geometry(m, validation);
    for (size_t i = validation ? m->train_shards : 0; i < (validation ? m->shards : m->train_shards); i++) {
        struct shard *shard;
        char *path = mem_format("%s/out/dataset/%s", s->folder, m->shard[i].name);
        CHECK(shard_open(&shard, path) == 0);
        for (size_t frame = 0; frame < shard_frames(shard); frame++) {
            struct buf packed = {0};
            int64_t next;
            CHECK(shard_read_frame(shard, &packed, &next, frame) == 0);
            CHECK(frame_expand(&tokens, packed.data, packed.size, (size_t)1 << 20) == 0);
            buf_free(&packed);
        }
        shard_close(shard);
        free(path);
    }
    out->tokens = tokens.size / sizeof *out->token;
    out->token = mem_alloc(tokens.size + sizeof *out->token);
    if (tokens.size) memcpy(out->token, tokens.data, tokens.size);
    out->sequences = geometry_sequences(&out->geometry);
    buf_free(&tokens);
}

#endif
