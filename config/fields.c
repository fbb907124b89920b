/* The table of pipeline.yaml's keys as constant data, and looking a key up in it. Knows nothing about YAML. Names follow Hugging Face's
 * GPT2Config and TrainingArguments where those have one; config/names.c answers the names of theirs that are not here. */
#include "config/fields.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "config/config.h"

#define AT(member) .offset = offsetof(struct config, member)

/* Bounds that hold for every machine: they keep products of sizes inside 64 bits. What fits into memory is found out where memory is
 * taken. */
#define COUNT_MAX 1e9
#define PATH_BYTES_MAX 3000 /* leaves room below PATH_MAX for what is written inside */
#define DOCUMENT_CHARACTERS_MAX 1e12

static const char *const tokenizers[] = {"gpt2", NULL};
static const char *const packings[] = {"concat", "pad", "best_fit", NULL};
static const char *const deduplications[] = {"none", "exact", "near", NULL};
static const char *const filters[] = {"gopher_quality", "gopher_repetition", "c4", NULL};
static const char *const utf8_policies[] = {"replace", "drop", "refuse", NULL};
static const char *const normalizations[] = {"none", "NFC", "NFD", "NFKC", "NFKD", NULL};
static const char *const stoppings[] = {"first_exhausted", "all_exhausted", NULL};
static const char *const formats[] = {"auto", "text", "lines", "jsonl", "json", "csv", "tsv", NULL};
static const char *const splits[] = {"digest", "train", "validation", NULL};
static const char *const activations[] = {"gelu_new", NULL};
static const char *const schedulers[] = {"cosine", "linear", "constant", "constant_with_warmup", "cosine_with_min_lr",
                                         "warmup_stable_decay", "inverse_sqrt", "polynomial", NULL};
static const char *const optims[] = {"adamw", "adam", "sgd", NULL};
static const char *const optim_states[] = {"fp32", "bf16", NULL};
static const char *const decays[] = {"cosine", "linear", "1-sqrt", NULL};
static const char *const compressions[] = {"zstd", "none", NULL};

const struct field fields[] = {
    {.section = "", .key = "run_name", .type = FIELD_TEXT, AT(run_name), .min = 1, .max = 100, .fallback = "run",
     .help = "name of the run, without control characters; without output_dir also the name of its folder: then without / "
             "and without a dot at its beginning"},
    {.section = "", .key = "output_dir", .type = FIELD_PATH, AT(output_dir), .min = 1, .max = OUTPUT_DIR_BYTES_MAX,
     .derived = "runs/RUN_NAME",
     .help = "folder of everything the run writes; relative to pipeline.yaml's folder, with which it may be as long, too, since SQLite "
             "opens no longer path"},

    {.section = "cluster", .key = "workers", .type = FIELD_INTEGER, AT(cluster.workers), .min = 1, .max = 256, .unit = "processes",
     .fallback = "2", .help = "workers that `millrace run` starts on this machine"},
    {.section = "cluster", .key = "threads_per_worker", .type = FIELD_INTEGER, AT(cluster.threads_per_worker), .min = 1, .max = 256,
     .unit = "threads", .fallback = "1", .help = "computing threads of each of them"},
    {.section = "cluster", .key = "lease_seconds", .type = FIELD_REAL, AT(cluster.lease_seconds), .min = 0.1, .max = 86400,
     .unit = "seconds", .fallback = "10", .help = "time without a message or progress after which a worker's work is given to others. "
             "Below 5, a worker on a busy machine (more computing threads "
             "than processors) may need longer than that: its work is handed on again and again, and never done"},
    {.section = "cluster", .key = "attempts_max", .type = FIELD_INTEGER, AT(cluster.attempts_max), .min = 1, .max = 1000,
     .unit = "failures", .fallback = "3", .help = "different workers that fail at a job before the run ends; attempts, when "
             "it failed at all that are here"},
    {.section = "cluster", .key = "cache_mib", .type = FIELD_INTEGER, AT(cluster.cache_mib), .min = 1, .max = 1 << 20, .unit = "MiB",
     .fallback = "64", .help = "a worker's cache of fetched data"},
    {.section = "cluster", .key = "compression", .type = FIELD_CHOICE, AT(cluster.compression), .names = compressions, .fallback = "zstd",
     .help = "of tensors on the wire; none can be faster on fast networks"},
    {.section = "cluster", .key = "insecure", .type = FIELD_BOOL, AT(cluster.insecure), .fallback = "false",
     .help = "allow addresses beyond this machine without keys: only on a network you trust"},

    {.section = "dataset", .key = "sources", .type = FIELD_SOURCES, AT(dataset.sources), .min = 1, .max = PATH_BYTES_MAX,
     .derived = "required without prepared", .alters = true,
     .help = "what to learn from, see below: files, folders, globs (`**` spans folders), URLs, "
             "`-` for standard input, which is read once, when the run begins"},
    {.section = "dataset", .key = "prepared", .type = FIELD_PATH, AT(dataset.prepared), .max = PATH_BYTES_MAX, .fallback = "",
     .alters = true, .help = "folder of a dataset made before, to train on instead of sources; empty: none"},
    {.section = "dataset", .key = "tokenizer", .type = FIELD_PATH, AT(dataset.tokenizer), .min = 1, .max = PATH_BYTES_MAX,
     .names = tokenizers, .fallback = "gpt2", .alters = true,
     .help = "how text becomes token ids: gpt2, or a Hugging Face tokenizer: its folder or tokenizer.json"},
    {.section = "dataset", .key = "sequence_length", .type = FIELD_INTEGER, AT(dataset.sequence_length), .min = 1, .max = 1 << 20,
     .unit = "tokens", .derived = "model.n_positions", .alters = true,
     .help = "inputs of one training sequence; at most model.n_positions"},
    {.section = "dataset", .key = "validation_fraction", .type = FIELD_REAL, AT(dataset.validation_fraction), .min = 0, .max = 1,
     .max_open = true, .unit = "of documents", .fallback = "0.01", .alters = true,
     .help = "share of documents kept out of training, chosen by their digest"},
    {.section = "dataset", .key = "shard_tokens", .type = FIELD_INTEGER, AT(dataset.shard_tokens), .min = 1, .max = 1 << 30,
     .unit = "tokens", .fallback = "4194304", .alters = true,
     .help = "tokens of a full shard, rounded down to whole frames, at least one; a frame: as many sequences as fit into 65,536 tokens, "
             "at least one"},
    {.section = "dataset", .key = "packing", .type = FIELD_CHOICE, AT(dataset.packing), .names = packings, .fallback = "concat",
     .alters = true,
     .help = "documents to sequences: concat: one after the other, cut at every sequence_length; pad: each begins a sequence, the rest is "
             "padding; best_fit: whole documents together, as few cut and padded as possible"},
    {.section = "dataset", .key = "pad_in_loss", .type = FIELD_BOOL, AT(dataset.pad_in_loss), .fallback = "false", .alters = true,
     .help = "with pad and best_fit: the model learns to predict padding too"},
    {.section = "dataset", .key = "document_mask", .type = FIELD_BOOL, AT(dataset.document_mask), .fallback = "false", .alters = true,
     .help = "attention sees only the token's own document, not its neighbours in the sequence"},
    {.section = "dataset", .key = "deduplicate", .type = FIELD_CHOICE, AT(dataset.deduplicate), .names = deduplications,
     .fallback = "none", .alters = true,
     .help = "leave out documents that came before: exact: the same text; near: also nearly the same, by MinHash"},
    {.section = "dataset", .key = "minhash_bands", .type = FIELD_INTEGER, AT(dataset.minhash_bands), .min = 1, .max = 64,
     .unit = "bands", .fallback = "14", .alters = true,
     .help = "with near: documents that agree in one band are duplicates; more bands find less similar ones"},
    {.section = "dataset", .key = "minhash_rows", .type = FIELD_INTEGER, AT(dataset.minhash_rows), .min = 1, .max = 64,
     .unit = "hashes", .fallback = "8", .alters = true, .help = "with near: hashes of a band; more ask for more similarity"},
    {.section = "dataset", .key = "minhash_words", .type = FIELD_INTEGER, AT(dataset.minhash_words), .min = 1, .max = 64,
     .unit = "words", .fallback = "5", .alters = true, .help = "with near: words of one shingle, the runs of words that are compared"},
    {.section = "dataset", .key = "filters", .type = FIELD_SET, AT(dataset.filters), .names = filters, .fallback = "[]", .alters = true,
     .help = "quality filters a document has to pass, as published for Gopher and C4; made for English"},
    {.section = "dataset", .key = "invalid_utf8", .type = FIELD_CHOICE, AT(dataset.invalid_utf8), .names = utf8_policies,
     .fallback = "replace", .alters = true,
     .help = "bytes that are not UTF-8: replace each by U+FFFD, drop the document, or refuse: end the run, naming the place"},
    {.section = "dataset", .key = "normalization", .type = FIELD_CHOICE, AT(dataset.normalization), .names = normalizations,
     .fallback = "none", .alters = true, .help = "Unicode form the text is brought into before it is tokenized"},
    {.section = "dataset", .key = "min_characters", .type = FIELD_INTEGER, AT(dataset.min_characters), .min = 0,
     .max = DOCUMENT_CHARACTERS_MAX, .unit = "characters", .fallback = "0", .alters = true,
     .help = "shorter documents are left out; 0: no limit"},
    {.section = "dataset", .key = "max_characters", .type = FIELD_INTEGER, AT(dataset.max_characters), .min = 0,
     .max = DOCUMENT_CHARACTERS_MAX, .unit = "characters", .fallback = "0", .alters = true,
     .help = "longer documents are left out; 0: no limit"},
    {.section = "dataset", .key = "stopping_strategy", .type = FIELD_CHOICE, AT(dataset.stopping_strategy), .names = stoppings,
     .fallback = "first_exhausted", .alters = true,
     .help = "where sources have weights: an epoch ends with the first source that is used up, or repeats sources until all are"},
    {.section = "dataset", .key = "shuffle_window", .type = FIELD_INTEGER, AT(dataset.shuffle_window), .min = 0, .max = 1 << 20,
     .unit = "blocks", .fallback = "16", .alters = true,
     .help = "blocks of a shard (about 64 Ki tokens each) whose sequences are mixed with each other, in an order of blocks that is "
             "shuffled too; 0: all of the epoch, which reads a block for each sequence"},
    {.section = "dataset", .key = "max_left_out", .type = FIELD_REAL, AT(dataset.max_left_out), .min = 0, .max = 1,
     .unit = "of documents, or of bytes", .fallback = "0.1",
     .help = "share of the sources that may be left out because it is unreadable, damaged, malformed or too long; more of it ends the "
             "build. What was asked for (filters, duplicates, limits of length, members) does not count"},
    {.section = "dataset", .key = "keep_runs", .type = FIELD_BOOL, AT(dataset.keep_runs), .fallback = "true",
     .help = "keep the token runs (state/runs): later changes of sources are cheap then, and broken shards can be repaired"},

    {.section = "model", .key = "vocab_size", .type = FIELD_INTEGER, AT(model.vocab_size), .min = 0, .max = 1 << 24, .unit = "tokens",
     .derived = "of the tokenizer", .alters = true,
     .help = "at least the tokenizer's, 50257 for gpt2: more is padding, which no text has; 0: the tokenizer's"},
    {.section = "model", .key = "n_positions", .alias = "n_ctx", .type = FIELD_INTEGER, AT(model.n_positions), .min = 1, .max = 1 << 20,
     .unit = "tokens", .fallback = "1024", .alters = true, .help = "longest sequence the model can see"},
    {.section = "model", .key = "n_embd", .type = FIELD_INTEGER, AT(model.n_embd), .min = 1, .max = 1 << 16, .unit = "channels",
     .fallback = "768", .alters = true, .help = "width; a multiple of n_head"},
    {.section = "model", .key = "n_layer", .type = FIELD_INTEGER, AT(model.n_layer), .min = 1, .max = LAYERS_MAX, .unit = "layers",
     .fallback = "12", .alters = true, .help = "depth"},
    {.section = "model", .key = "n_head", .type = FIELD_INTEGER, AT(model.n_head), .min = 1, .max = 1024, .unit = "heads",
     .fallback = "12", .alters = true, .help = "attention heads of each layer; divides n_embd"},
    {.section = "model", .key = "n_inner", .type = FIELD_INTEGER, AT(model.n_inner), .min = 0, .max = 1 << 20, .unit = "channels",
     .fallback = "0", .alters = true, .help = "inner width of the feed-forward part; 0 stands for 4 * n_embd"},
    {.section = "model", .key = "activation_function", .type = FIELD_CHOICE, AT(model.activation_function), .names = activations,
     .fallback = "gelu_new", .alters = true, .help = "of the feed-forward part: GELU in its tanh form"},
    {.section = "model", .key = "resid_pdrop", .type = FIELD_REAL, AT(model.resid_pdrop), .min = 0, .max = 1, .max_open = true,
     .narrow = true, .fallback = "0.1", .alters = true, .help = "dropout before each residual sum"},
    {.section = "model", .key = "embd_pdrop", .type = FIELD_REAL, AT(model.embd_pdrop), .min = 0, .max = 1, .max_open = true,
     .narrow = true, .fallback = "0.1", .alters = true, .help = "dropout after the embeddings"},
    {.section = "model", .key = "attn_pdrop", .type = FIELD_REAL, AT(model.attn_pdrop), .min = 0, .max = 1, .max_open = true,
     .narrow = true, .fallback = "0.1", .alters = true, .help = "dropout on attention weights"},
    {.section = "model", .key = "layer_norm_epsilon", .type = FIELD_REAL, AT(model.layer_norm_epsilon), .min = 1e-12, .max = 1,
     .fallback = "1e-5", .alters = true, .help = "added to the variance in LayerNorm"},
    {.section = "model", .key = "initializer_range", .type = FIELD_REAL, AT(model.initializer_range), .min = 0, .max = 10,
     .fallback = "0.02", .alters = true, .help = "standard deviation of the first weights"},
    {.section = "model", .key = "scale_attn_weights", .type = FIELD_BOOL, AT(model.scale_attn_weights), .fallback = "true",
     .alters = true, .help = "divide attention scores by the square root of a head's width"},
    {.section = "model", .key = "bos_token_id", .type = FIELD_INTEGER, AT(model.bos_token_id), .min = -1, .max = (1 << 24) - 1,
     .unit = "token id", .derived = "of the tokenizer", .alters = true, .help = "beginning of text; below vocab_size; -1: the tokenizer's"},
    {.section = "model", .key = "eos_token_id", .type = FIELD_INTEGER, AT(model.eos_token_id), .min = -1, .max = (1 << 24) - 1,
     .unit = "token id", .derived = "of the tokenizer", .alters = true, .help = "end of text; below vocab_size; -1: the tokenizer's"},

    {.section = "training", .key = "global_batch", .type = FIELD_INTEGER, AT(training.global_batch), .min = 1, .max = 1 << 20,
     .unit = "sequences", .fallback = "8", .alters = true, .help = "sequences of a step over all workers"},
    {.section = "training", .key = "slices", .type = FIELD_INTEGER, AT(training.slices), .min = 1, .max = 4096, .unit = "slices",
     .derived = "largest divisor of global_batch up to 8", .alters = true,
     .help = "equal parts of a step; divides global_batch; workers beyond this number compute none and only add up segments of the sum; "
             "where the number of workers does not divide it, there may be more of those: of 3 workers 2 get 4 slices"},
    {.section = "training", .key = "micro_batch", .type = FIELD_INTEGER, AT(training.micro_batch), .min = 0, .max = 1 << 20,
     .unit = "sequences", .fallback = "0", .alters = true,
     .help = "most sequences of a slice that a worker computes at a time: fewer need less memory, and gradients accumulate; 0: about 2048 "
             "tokens"},
    {.section = "training", .key = "max_steps", .type = FIELD_INTEGER, AT(training.max_steps), .min = 0, .max = COUNT_MAX, .unit = "steps",
     .fallback = "0", .alters = true, .help = "length of the run; 0: num_train_epochs decides"},
    {.section = "training", .key = "num_train_epochs", .type = FIELD_REAL, AT(training.num_train_epochs), .min = 0, .min_open = true,
     .max = 1e6, .unit = "epochs", .fallback = "1", .alters = true, .help = "length of the run when max_steps is 0"},
    {.section = "training", .key = "learning_rate", .type = FIELD_REAL, AT(training.learning_rate), .min = 0, .min_open = true, .max = 10,
     .fallback = "5e-4", .alters = true, .help = "highest rate, reached after warm-up"},
    {.section = "training", .key = "lr_scheduler_type", .type = FIELD_CHOICE, AT(training.lr_scheduler_type), .names = schedulers,
     .fallback = "cosine", .alters = true,
     .help = "after linear warm-up: cosine or linear to 0; constant_with_warmup; cosine_with_min_lr; warmup_stable_decay: constant, then "
             "down in the last num_decay_steps; inverse_sqrt; polynomial; without warm-up: constant"},
    {.section = "training", .key = "warmup_steps", .type = FIELD_INTEGER, AT(training.warmup_steps), .min = 0, .max = COUNT_MAX,
     .unit = "steps", .fallback = "100", .alters = true,
     .help = "steps over which the rate rises from 0; none with lr_scheduler_type constant"},
    {.section = "training", .key = "min_lr_rate", .type = FIELD_REAL, AT(training.min_lr_rate), .min = 0, .max = 1,
     .unit = "of learning_rate", .fallback = "0", .alters = true,
     .help = "rate at the end of cosine_with_min_lr, warmup_stable_decay (where warm-up begins at it too) and polynomial"},
    {.section = "training", .key = "num_decay_steps", .type = FIELD_INTEGER, AT(training.num_decay_steps), .min = 0, .max = COUNT_MAX,
     .unit = "steps", .fallback = "0", .alters = true,
     .help = "with warmup_stable_decay: last steps of the run, over which the rate falls; 0: a tenth of the run"},
    {.section = "training", .key = "decay_type", .type = FIELD_CHOICE, AT(training.decay_type), .names = decays, .fallback = "cosine",
     .alters = true, .help = "with warmup_stable_decay: the shape of that fall"},
    {.section = "training", .key = "power", .type = FIELD_REAL, AT(training.power), .min = 0, .min_open = true, .max = 100,
     .fallback = "1", .alters = true, .help = "of polynomial decay; 1: linear"},
    {.section = "training", .key = "optim", .type = FIELD_CHOICE, AT(training.optim), .names = optims, .fallback = "adamw",
     .alters = true, .help = "optimizer, as PyTorch computes AdamW, Adam and SGD"},
    {.section = "training", .key = "optim_state", .type = FIELD_CHOICE, AT(training.optim_state), .names = optim_states,
     .fallback = "fp32", .alters = true,
     .help = "what an optimizer keeps of the steps before: bf16 takes half the memory of fp32; stochastic rounding makes small "
             "changes add up"},
    {.section = "training", .key = "weight_decay", .type = FIELD_REAL, AT(training.weight_decay), .min = 0, .max = 10, .fallback = "0.1",
     .alters = true, .help = "on matrices and embeddings only: AdamW's, apart from the gradient; with adam and sgd L2, in the gradient"},
    {.section = "training", .key = "adam_beta1", .type = FIELD_REAL, AT(training.adam_beta1), .min = 0, .max = 1, .max_open = true,
     .fallback = "0.9", .alters = true, .help = "decay of the first moment"},
    {.section = "training", .key = "adam_beta2", .type = FIELD_REAL, AT(training.adam_beta2), .min = 0, .max = 1, .max_open = true,
     .fallback = "0.999", .alters = true, .help = "decay of the second moment"},
    {.section = "training", .key = "adam_epsilon", .type = FIELD_REAL, AT(training.adam_epsilon), .min = 1e-30, .max = 1,
     .fallback = "1e-8", .alters = true, .help = "added to the root of the second moment"},
    {.section = "training", .key = "sgd_momentum", .type = FIELD_REAL, AT(training.sgd_momentum), .min = 0, .max = 1, .max_open = true,
     .fallback = "0.9", .alters = true,
     .help = "with sgd: share of the last step's change that is added to a step; 0: none, and no memory for it"},
    {.section = "training", .key = "sgd_nesterov", .type = FIELD_BOOL, AT(training.sgd_nesterov), .fallback = "false", .alters = true,
     .help = "with sgd: Nesterov's form of momentum"},
    {.section = "training", .key = "max_grad_norm", .type = FIELD_REAL, AT(training.max_grad_norm), .min = 0, .max = 1e9, .fallback = "1",
     .alters = true, .help = "clip the gradient to this norm; 0: no clipping"},
    {.section = "training", .key = "ema_decay", .type = FIELD_REAL, AT(training.ema_decay), .min = 0, .max = 1, .max_open = true,
     .fallback = "0", .alters = true,
     .help = "keep an exponential moving average of the weights too, with this share of its last value, such as 0.999; 0: none"},
    {.section = "training", .key = "eval_ema", .type = FIELD_BOOL, AT(training.eval_ema), .fallback = "false",
     .help = "evaluate that average instead of the weights"},
    {.section = "training", .key = "label_smoothing_factor", .type = FIELD_REAL, AT(training.label_smoothing_factor), .min = 0, .max = 1,
     .max_open = true, .fallback = "0", .alters = true,
     .help = "share of the target's probability that training spreads evenly over the vocabulary; 0: none. Evaluation's loss stays plain"},
    {.section = "training", .key = "z_loss", .type = FIELD_REAL, AT(training.z_loss), .min = 0, .max = 1, .fallback = "0", .alters = true,
     .help = "times the squared logarithm of the softmax's denominator is added to the training loss, which keeps logits small: 1e-4 in "
             "PaLM; 0: nothing"},
    {.section = "training", .key = "eval_steps", .type = FIELD_INTEGER, AT(training.eval_steps), .min = 0, .max = COUNT_MAX,
     .unit = "steps", .fallback = "500", .help = "between evaluations; 0: none on the way"},
    {.section = "training", .key = "eval_sequences", .type = FIELD_INTEGER, AT(training.eval_sequences), .min = 0, .max = COUNT_MAX,
     .unit = "sequences", .fallback = "0", .help = "validation sequences of an evaluation; 0: all"},
    {.section = "training", .key = "save_steps", .type = FIELD_INTEGER, AT(training.save_steps), .min = 0, .max = COUNT_MAX,
     .unit = "steps", .fallback = "500", .help = "between checkpoints; 0: the last step only, which is always saved"},
    {.section = "training", .key = "save_total_limit", .type = FIELD_INTEGER, AT(training.save_total_limit), .min = 0, .max = COUNT_MAX,
     .unit = "checkpoints", .fallback = "0", .help = "newest checkpoints kept; 0: all"},
    {.section = "training", .key = "logging_steps", .type = FIELD_INTEGER, AT(training.logging_steps), .min = 0, .max = COUNT_MAX,
     .unit = "steps", .fallback = "1", .help = "between lines of progress; 0: none"},
    {.section = "training", .key = "max_bad_steps", .type = FIELD_INTEGER, AT(training.max_bad_steps), .min = 0, .max = COUNT_MAX,
     .unit = "steps", .fallback = "10", .help = "steps without a finite gradient that the run survives"},
    {.section = "training", .key = "seed", .type = FIELD_SEED, AT(training.seed), .fallback = "42", .alters = true,
     .help = "of first weights, order of data, dropout and what optim_state rounds"},
    {.section = "training", .key = "bf16", .type = FIELD_BOOL, AT(training.bf16), .fallback = "false", .alters = true,
     .help = "matrix products of bfloat16 with float32 sums, and GELU's slope; all else stays float32, but for optim_state"},
    {.section = "training", .key = "gradient_checkpointing", .type = FIELD_BOOL, AT(training.gradient_checkpointing), .fallback = "false",
     .help = "keep each layer's input alone and compute the rest again: less memory, a third more work, the same bits"},

    {.section = "sample", .key = "prompt", .type = FIELD_TEXT, AT(sample.prompt), .min = 0, .max = 1 << 16,
     .fallback = "The house prices dropped down", .help = "start of the text generated at the end of `millrace run`; empty: none"},
    {.section = "sample", .key = "max_new_tokens", .type = FIELD_INTEGER, AT(sample.max_new_tokens), .min = 0, .max = 1 << 20,
     .unit = "tokens", .fallback = "40", .help = "tokens generated after it"},
    {.section = "sample", .key = "temperature", .type = FIELD_REAL, AT(sample.temperature), .min = 0, .max = 100, .fallback = "0.8",
     .help = "0: always the likeliest token; higher: more varied"},
    {.section = "sample", .key = "top_k", .type = FIELD_INTEGER, AT(sample.top_k), .min = 0, .max = 1 << 24, .unit = "tokens",
     .fallback = "40", .help = "choose among this many likeliest tokens; 0: among all"},
};
const size_t field_count = sizeof fields / sizeof fields[0];

#undef AT
#define AT(member) .section = "dataset.sources", .alters = true, .offset = offsetof(struct source_group, member)

const struct field source_fields[] = {
    {.key = "name", .type = FIELD_TEXT, AT(name), .min = 1, .max = 100, .derived = "source-0, source-1, ...",
     .help = "what reports and samples call it; no two alike"},
    {.key = "paths", .alias = "path", .type = FIELD_PATHS, AT(paths), .min = 1, .max = PATH_BYTES_MAX,
     .help = "one or several; relative to pipeline.yaml's folder; compressed files and archives are unpacked"},
    {.key = "members", .type = FIELD_TEXTS, AT(members), .min = 1, .max = PATH_BYTES_MAX, .derived = "all",
     .help = "globs: which members of archives are taken"},
    {.key = "weight", .type = FIELD_REAL, AT(weight), .min = 0, .min_open = true, .max = 1e6, .derived = "all there is",
     .help = "its share of training tokens, beside the other weights; every entry has one or none (validation entries never)"},
    {.key = "format", .type = FIELD_CHOICE, AT(format), .names = formats, .fallback = "auto",
     .help = "how a file is divided into documents: text: all of it is one, or see separator; lines: each line; csv: with quotes, "
             "with tabs where its first line has tabs and no comma; tsv: without quotes; auto: by the name's ending (.jsonl "
             ".ndjson .json .csv .tsv), else text"},
    {.key = "field", .type = FIELD_TEXT, AT(field), .min = 1, .max = 256, .fallback = "text",
     .help = "the JSON field (a.b for one inside another) or the column with the text"},
    {.key = "separator", .type = FIELD_TEXT, AT(separator), .min = 1, .max = 256, .derived = "none",
     .help = "text between documents, such as \"\\n\\n\\n\"; the format is then text"},
    {.key = "split", .type = FIELD_CHOICE, AT(split), .names = splits, .fallback = "digest",
     .help = "digest: validation_fraction decides for each document; train or validation: all of them belong there"},
};
const size_t source_field_count = sizeof source_fields / sizeof source_fields[0];

const char *const field_sections[] = {"cluster", "dataset", "model", "training", "sample"};
const size_t field_section_count = sizeof field_sections / sizeof field_sections[0];

const struct field *field_find(const char *dotted_key) {
    const char *dot = strchr(dotted_key, '.');
    if (dot == dotted_key) return NULL;
    size_t section_bytes = dot ? (size_t)(dot - dotted_key) : 0;
    const char *key = dot ? dot + 1 : dotted_key;
    for (size_t i = 0; i < field_count; i++) {
        const struct field *field = &fields[i];
        if (strlen(field->section) != section_bytes || memcmp(field->section, dotted_key, section_bytes) != 0) continue;
        if (strcmp(field->key, key) == 0 || (field->alias && strcmp(field->alias, key) == 0)) return field;
    }
    return NULL;
}

void field_name(char out[FIELD_NAME_BYTES], const struct field *field) {
    int n = snprintf(out, FIELD_NAME_BYTES, "%s%s%s", field->section, field->section[0] ? "." : "", field->key);
    CHECK(n > 0 && n < FIELD_NAME_BYTES);
}
