/* The JSON files that transformers reads beside the weights, as texts and as struct gpt2_config. No files are touched here. */
#ifndef MILLRACE_MODEL_HF_CONFIG_H
#define MILLRACE_MODEL_HF_CONFIG_H

#include "base/buf.h"
#include "model/gpt2/gpt2.h"

int hf_print_config(struct buf *out, const struct gpt2_config *config);             /* config.json */
int hf_print_generation_config(struct buf *out, const struct gpt2_config *config);  /* generation_config.json */

/* Reads a config.json of GPT-2 as anybody wrote it; absent keys take GPT2Config's defaults. A bos or eos that is absent from the vocabulary
 * becomes -1. ERR_CORRUPT names `path` and the key; ERR_UNSUPPORTED what this program cannot compute. */
int hf_parse_config(struct gpt2_config *out, const char *path, const char *text, size_t text_bytes);

/* What a generation_config.json asks for. Counts, temperature and top_p are -1 where the file has no such key. */
enum {
    HF_ENDS_MAX = 64,        /* ids that end a text: several times those of any model */
    HF_COUNT_MAX = 1 << 20,  /* tokens, as of the command line */
};
struct hf_generation {
    int do_sample; /* 1, 0; -1: no such key */
    double temperature, top_p;
    int top_k, max_new_tokens, min_new_tokens, max_length, min_length;
    int32_t end[HF_ENDS_MAX]; /* each ends a text */
    int ends;
    char unknown[200]; /* names of keys that ask for what this program cannot do */
};
#define HF_GENERATION_NONE ((struct hf_generation){-1, -1, -1, -1, -1, -1, -1, -1, {0}, 0, ""})

/* Overwrites the fields whose keys the text has, eos_token_id alone with ends_only, as of a config.json. ERR_CORRUPT and
 * ERR_LIMIT name `path` and the key. */
int hf_parse_generation(struct hf_generation *generation, const char *path, const char *text, size_t text_bytes, int vocab_size,
                        bool ends_only);

#endif
