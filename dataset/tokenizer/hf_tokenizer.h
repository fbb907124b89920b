/* A byte-level BPE tokenizer as Hugging Face writes it, in memory: from a folder's files or a tokenizer.json, and back to both. Knows what
 * the files say and which of it can be done exactly; encodes nothing.
 *
 * Understood: model BPE whose tokens are bytes (a token for each of the 256), ignore_merges; pre_tokenizer ByteLevel, or a Sequence of
 * Split (behavior Isolated, or Removed), Digits and one ByteLevel as the last; normalizer null or NFC; added tokens with lstrip and
 * rstrip. Anything else that would change ids is ERR_UNSUPPORTED with the file and what it is. post_processor (tokens added around a
 * text), truncation and padding are left out on purpose: a dataset has its own. Format: huggingface/tokenizers,
 * tokenizers/src/tokenizer/serialization.rs. */
#ifndef MILLRACE_DATASET_HF_TOKENIZER_H
#define MILLRACE_DATASET_HF_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum {
    HF_IDS_MAX = 1 << 24,
    HF_TOKEN_BYTES_MAX = 1 << 16,
    HF_ADDED_MAX = 1 << 16,
    HF_STAGES_MAX = 16,
    HF_FILE_BYTES_MAX = 256 << 20,  /* the largest in use have 35 MB */
};
#define HF_NONE UINT32_MAX

struct hf_token {
    uint32_t first, size;  /* its bytes in hf->text; size 0: no token has this id */
    bool raw;              /* written as it is in the files, not with letters for bytes */
    bool model;            /* of the model: merges may lead to it; else only added */
};
struct hf_merge {
    uint32_t left, right, merged;
};
struct hf_added {
    uint32_t id;
    uint32_t first, size;  /* what it looks like in a text, in hf->text */
    bool special, lstrip, rstrip, normalized;
};
struct hf_stage {          /* splits each pre-token that the stage before it leaves */
    char *regex;           /* as Oniguruma reads it in Ruby's syntax; NULL: GPT-2's pattern */
    bool literal;          /* `regex` is plain text */
    bool drop_gaps, drop_matches;
};

struct hf_tokenizer {
    struct buf text;
    struct hf_token *token;  /* [ids] */
    uint32_t ids, ids_room, tokens;  /* ids: the highest + 1 */
    uint32_t byte_id[256];
    struct hf_merge *merge;  /* by rank; a pair occurs once */
    uint32_t merges, merges_room;
    struct hf_added *added;  /* by id */
    size_t added_count;
    struct hf_stage stage[HF_STAGES_MAX];
    size_t stages;
    bool nfc, add_prefix_space, ignore_merges;
    int64_t bos, eos;        /* -1: none */
    uint32_t *slot;          /* bytes -> id: open addressing, HF_NONE: free */
    size_t slots;
};

/* `path`: a folder with tokenizer.json or with vocab.json and merges.txt, or a tokenizer.json; what tokenizer_config.json,
 * special_tokens_map.json and added_tokens.json say beside it counts, as in transformers. */
int hf_read(struct hf_tokenizer **out, const char *path);
/* One tokenizer.json; `name` stands in for its path in messages. */
int hf_parse(struct hf_tokenizer **out, const char *name, const void *json, size_t size);
void hf_close(struct hf_tokenizer *hf);  /* NULL is fine */

/* The id of those bytes, or HF_NONE. */
uint32_t hf_find(const struct hf_tokenizer *hf, const void *bytes, size_t size, bool raw);

/* All of it as one JSON text, the same bytes for the same tokenizer: tokenizer.json with two keys more, bos_token and eos_token, which
 * Hugging Face's library would not read there. */
int hf_print(const struct hf_tokenizer *hf, struct buf *out);
int hf_print_tokenizer(const struct hf_tokenizer *hf, struct buf *out);                     /* tokenizer.json */
int hf_print_vocab(const struct hf_tokenizer *hf, struct buf *out);                         /* vocab.json */
int hf_print_merges(const struct hf_tokenizer *hf, struct buf *out);                        /* merges.txt */
int hf_print_settings(const struct hf_tokenizer *hf, struct buf *out, int64_t max_length);    /* tokenizer_config.json */
int hf_print_special_map(const struct hf_tokenizer *hf, struct buf *out);                       /* special_tokens_map.json */
/* Is it what vocab.json and merges.txt alone stand for? Programs that know only GPT-2's files can then read it. */
bool hf_is_plain(const struct hf_tokenizer *hf);

/* ---- Building one, for those who read or train ---- */
struct hf_tokenizer *hf_make(void);
/* `text` is what stands in the files. ERR_CORRUPT: the id or the token is there already. */
int hf_add_token(struct hf_tokenizer *hf, uint32_t id, const char *text, size_t size);
int hf_add_bytes(struct hf_tokenizer *hf, uint32_t id, const uint8_t *bytes, size_t size);  /* the same, by its bytes */
int hf_add_merge(struct hf_tokenizer *hf, const char *left, size_t left_size, const char *right, size_t right_size);
int hf_add_merge_of(struct hf_tokenizer *hf, struct hf_merge merge);  /* of ids that are there */
/* A token outside the model, or one of the model that is looked for in texts. */
int hf_add_added(struct hf_tokenizer *hf, const struct hf_added *flags, const char *text, size_t size);
int hf_finish(struct hf_tokenizer *hf);  /* checks the whole; from then on it is immutable */

#endif
