/* What the commands of `millrace dataset` share: the folder they look into, tokens and documents in it, and counts as they are shown. */
#ifndef MILLRACE_CLI_DATASET_COMMANDS_H
#define MILLRACE_CLI_DATASET_COMMANDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"
#include "dataset/tokenizer/tokenizer.h"

/* A dataset folder and its manifest. */
struct opened {
    char *folder;
    struct manifest manifest;
};
int opened_open(struct opened *out, const char *path); /* a dataset folder, or the output_dir around one; ERR_NOTFOUND says what to do */
void opened_close(struct opened *opened);

/* Shard `number` of a split. Token t of it is token number * shard_tokens + t of the split. */
int opened_shard(struct shard **out, const struct opened *opened, bool validation, size_t number);

/* The tokenizer `name`, or if it is NULL the dataset's own; ERR_CONFIG when it is not the one that made the dataset. */
int opened_tokenizer(struct tokenizer **out, const struct opened *opened, const char *name);

/* ERR_NOTFOUND: there is no such sequence; the text says how many there are. */
int opened_check_sequence(const struct opened *opened, bool validation, uint64_t sequence);

/* Tokens [first, first + count) of a split, which must be there, in parts to use(). Ends early when nobody reads standard output. */
int opened_tokens(const struct opened *opened, bool validation, uint64_t first, uint64_t count,
                  int (*use)(void *arg, const uint32_t *id, size_t count), void *arg);

/* Calls each() for the tokens of a document, in order, without its end-of-text token: [first, first + count) of the split. ERR_NOTFOUND:
 * there is no such document. */
int opened_document(const struct opened *opened, uint64_t document, int (*each)(void *arg, bool validation, uint64_t first, uint64_t count),
                    void *arg);

/* Where in its split a document begins. */
int opened_document_begin(const struct opened *opened, uint64_t *out_first, uint64_t document);

struct split_counts {
    uint64_t documents, tokens, sequences;
    size_t shards;
};
struct split_counts split_counts(const struct manifest *manifest, bool validation);

void json_set_count(json_t *object, const char *key, uint64_t value);
void json_set_digest(json_t *object, const char *key, const uint8_t digest[SHA256_BYTES]);
void json_set_text(json_t *object, const char *key, const char *text_or_null);

/* The entries of dataset.sources: what each gave. */
json_t *opened_groups_json(const struct opened *opened);
void opened_print_groups(const struct opened *opened);

/* Prints what `dataset info` tells. */
int opened_show(const struct opened *opened, bool json);

/* The value of --split: NULL or "train" is false, "validation" true; ERR_USAGE names the command otherwise. */
int split_option(bool *out_validation, const char *value, const char *command);
#define OPTION_SPLIT(text_) \
    { "split", 0, OPTION_TEXT, (text_), 0, 0, "NAME", "train (the default) or validation" }
#define OPTION_TOKENIZER(text_) \
    { "tokenizer", 't', OPTION_TEXT, (text_), 0, 0, "NAME", "where the dataset's tokenizer lies now, if it has moved" }

int cmd_dataset_info(int argc, char **argv);
int cmd_dataset_inspect(int argc, char **argv);
int cmd_dataset_cat(int argc, char **argv);
int cmd_dataset_trace(int argc, char **argv);
int cmd_dataset_export(int argc, char **argv);
int cmd_dataset_import(int argc, char **argv);
int cmd_dataset_verify(int argc, char **argv);

#endif
