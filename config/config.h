/* pipeline.yaml as typed values. One table (config/fields.c) holds every key: type, unit, range, default, whether it alters
 * results, and one line of help; parsing, `--set`, the reference, printing and comparing all read that table. */
#ifndef MILLRACE_CONFIG_CONFIG_H
#define MILLRACE_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum activation { ACTIVATION_GELU_NEW };   /* the tanh form; "gelu_new" */
enum scheduler {                           /* each but the plain constant one after linear warm-up */
    SCHEDULER_COSINE, SCHEDULER_LINEAR, SCHEDULER_CONSTANT, SCHEDULER_CONSTANT_WITH_WARMUP, SCHEDULER_COSINE_WITH_MIN_LR,
    SCHEDULER_WARMUP_STABLE_DECAY, SCHEDULER_INVERSE_SQRT, SCHEDULER_POLYNOMIAL,
};
enum optim { OPTIM_ADAMW, OPTIM_ADAM, OPTIM_SGD };
enum moments_type { MOMENTS_FP32, MOMENTS_BF16 };
enum decay { DECAY_COSINE, DECAY_LINEAR, DECAY_ONE_MINUS_SQRT };  /* of SCHEDULER_WARMUP_STABLE_DECAY */
enum compression { COMPRESSION_ZSTD, COMPRESSION_NONE };

enum source_format {                       /* how documents lie in a source file */
    FORMAT_AUTO,                           /* by the suffix of the (unpacked) name: .jsonl .ndjson .json .csv .tsv, else text */
    FORMAT_TEXT,                           /* a file is a document, or what lies between separators */
    FORMAT_LINES, FORMAT_JSONL, FORMAT_JSON, FORMAT_CSV, FORMAT_TSV,
};
enum source_split { SPLIT_BY_DIGEST, SPLIT_TRAIN, SPLIT_VALIDATION };
enum packing { PACKING_CONCAT, PACKING_PAD, PACKING_BEST_FIT };
enum stopping { STOPPING_FIRST_EXHAUSTED, STOPPING_ALL_EXHAUSTED };  /* as in Hugging Face's interleave_datasets() */
enum deduplicate { DEDUPLICATE_NONE, DEDUPLICATE_EXACT, DEDUPLICATE_NEAR };
enum utf8_policy { UTF8_REPLACE, UTF8_DROP, UTF8_REFUSE };  /* U+FFFD; leave the document out; end the run */
enum normalization { NORMALIZE_NONE, NORMALIZE_NFC, NORMALIZE_NFD, NORMALIZE_NFKC, NORMALIZE_NFKD };
enum filter { FILTER_GOPHER_QUALITY, FILTER_GOPHER_REPETITION, FILTER_C4, FILTER_COUNT };
enum { LAYERS_MAX = 1024 };  /* of model.n_layer; hf_config.c and tensor_map.c have bounds of foreign models */

struct text_list {
    char **item;
    size_t count;
};

/* One entry of dataset.sources. */
struct source_group {
    char *name;                /* unique; "source-N" where none is given */
    struct text_list paths;    /* absolute files, folders and globs; URLs; "-": standard input */
    struct text_list members;  /* globs: which members of archives; none: all */
    double weight;             /* share of training tokens; 0: as much as there is. Either every entry has one or none */
    enum source_format format;
    char *field;               /* JSON field (dotted for nested ones) or column of a table */
    char *separator;           /* FORMAT_TEXT: documents lie between these; empty: a file is one document */
    enum source_split split;   /* SPLIT_BY_DIGEST: dataset.validation_fraction decides */
};
struct source_groups {
    struct source_group *item;
    size_t count;
};

struct config {
    char *run_name;
    char *output_dir;          /* absolute; relative ones are taken from pipeline.yaml's folder */
    char *folder;              /* of pipeline.yaml, absolute; not a key */
    char *file;                /* pipeline.yaml itself; NULL: it came as text; not a key */

    struct {
        int64_t workers;             /* local workers of `run` */
        int64_t threads_per_worker;
        double lease_seconds;        /* silence or standstill after which a worker's work is given to others */
        int64_t attempts_max;        /* distinct failures after which a job is set aside */
        int64_t cache_mib;           /* a worker's cache of fetched data */
        enum compression compression;/* of tensors on the wire */
        bool insecure;               /* allow addresses beyond loopback without keys */
    } cluster;

    struct {
        struct source_groups sources;  /* none when `prepared` is given */
        char *prepared;              /* absolute folder of a dataset made before; empty: none */
        char *tokenizer;             /* "gpt2", or the absolute path of a Hugging Face tokenizer folder or tokenizer.json */
        int64_t sequence_length;     /* T: inputs of one sequence */
        double validation_fraction;  /* of documents, by digest */
        int64_t shard_tokens;        /* tokens of a full shard */
        enum packing packing;
        bool pad_in_loss;            /* PACKING_PAD, PACKING_BEST_FIT: padding counts in the loss */
        bool document_mask;          /* attention stays inside a document */
        enum deduplicate deduplicate;
        int64_t minhash_bands, minhash_rows, minhash_words;  /* DEDUPLICATE_NEAR */
        bool filters[FILTER_COUNT];
        enum utf8_policy invalid_utf8;
        enum normalization normalization;
        int64_t min_characters, max_characters;  /* of a document; 0: no limit */
        enum stopping stopping_strategy;         /* of mixing by weight */
        int64_t shuffle_window;      /* blocks among which sequences are shuffled; 0: the whole epoch */
        double max_left_out;         /* share of documents, or of bytes, that may be faulty */
        bool keep_runs;              /* tokenized runs stay in state/runs */
    } dataset;

    struct {                         /* names as in Hugging Face's GPT2Config */
        int64_t vocab_size;          /* 0: the tokenizer's, until config_fit_tokenizer() */
        int64_t n_positions, n_embd, n_layer, n_head;
        int64_t n_inner;             /* 0: 4 * n_embd */
        enum activation activation_function;
        double resid_pdrop, embd_pdrop, attn_pdrop, layer_norm_epsilon, initializer_range;
        bool scale_attn_weights;
        int64_t bos_token_id, eos_token_id;  /* -1: the tokenizer's, until config_fit_tokenizer() */
    } model;

    struct {                         /* names as in TrainingArguments where it has them */
        int64_t global_batch;        /* sequences of a step */
        int64_t slices;              /* equal parts of the global batch; the result depends on them, never on workers */
        int64_t micro_batch;         /* sequences that are computed at a time; 0: about 2048 tokens */
        int64_t max_steps;           /* 0: num_train_epochs decides */
        double num_train_epochs;
        double learning_rate;
        enum scheduler lr_scheduler_type;
        int64_t warmup_steps;
        double min_lr_rate;          /* share of learning_rate at which the schedules that have one end */
        int64_t num_decay_steps;     /* SCHEDULER_WARMUP_STABLE_DECAY; 0: a tenth of the run */
        enum decay decay_type;
        double power;                /* SCHEDULER_POLYNOMIAL */
        enum optim optim;
        enum moments_type optim_state;
        double weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm;  /* max_grad_norm 0: no clipping */
        double sgd_momentum;         /* OPTIM_SGD; 0: none */
        bool sgd_nesterov;
        double ema_decay;            /* of the moving average of the weights; 0: none */
        bool eval_ema;               /* evaluations look at it */
        double label_smoothing_factor, z_loss;  /* 0: the loss is plain cross-entropy */
        int64_t eval_steps, eval_sequences, save_steps, save_total_limit, logging_steps;  /* 0: never / all / no limit */
        int64_t max_bad_steps;       /* steps without a finite gradient that a run survives */
        uint64_t seed;
        bool bf16, gradient_checkpointing;
    } training;

    struct {                         /* the text generated at the end of `millrace run` */
        char *prompt;                /* empty: none */
        int64_t max_new_tokens;
        double temperature;
        int64_t top_k;
    } sample;
};

/* Reads `path`, then applies each "dotted.key=value" of `sets` in order, then checks the whole. ERR_CONFIG with
 * "path:line:column: what is wrong; what was expected" (or "--set dotted.key: ...") on any fault. */
int config_load(struct config *out, const char *path, const char *const *sets, size_t set_count);

/* As config_load, from text in memory (`name` stands in for the path in messages; `folder` is what relative paths start
 * from). Text made by config_print() is accepted unchanged. */
int config_parse(struct config *out, const char *name, const char *text, size_t text_bytes, const char *folder,
                 const char *const *sets, size_t set_count);

/* Is dataset.tokenizer a path, which is not open yet? */
bool config_tokenizer_is_path(const struct config *config);

/* Of an opened tokenizer (bos_token_id, eos_token_id -1: it has none): fills in what the model takes from it, and checks what
 * pipeline.yaml says itself. A text without a beginning token begins with the ending one. ERR_CONFIG leaves the config as it was. */
int config_fit_tokenizer(struct config *config, int64_t vocab_size, int64_t bos_token_id, int64_t eos_token_id);

/* Appends the whole configuration as YAML, every key with its effective value, in table order, paths absolute. */
int config_print(struct buf *out, const struct config *config);

/* The same for records: paths below config->folder are relative to it. Parsed with another folder it is the configuration of a project
 * that was moved there. */
int config_print_movable(struct buf *out, const struct config *config);

/* Appends what alters results and is the same wherever the project lies and however long the run is: a line for each key that is not at
 * its default. So a program that knows more keys prints the same of an older run, and a default is for ever. Files that keys name are left
 * out; their digests say more. */
int config_print_marks(struct buf *out, const struct config *config);

/* Appends a line for each key that has no part because of another one's value (another optimizer's or scheduler's, one of making a dataset
 * that is prepared, one of MinHash without it) and has another value than its default, and for a warm-up that a run of max_steps (0: not
 * known) does not get to the end of. */
int config_print_warnings(struct buf *out, const struct config *config, uint64_t max_steps);

/* Appends the reference of all keys: section, key, type, unit, range, default, help. */
int config_reference(struct buf *out);

/* Compares by effective values. Appends one line "key: OLD -> NEW" to `altering` for each key that differs and alters results
 * (dataset or weights), to `harmless` for each that does not. */
int config_compare(struct buf *altering, struct buf *harmless, const struct config *old, const struct config *fresh);

void config_free(struct config *config);

#endif
