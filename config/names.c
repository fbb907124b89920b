/* What to answer to names that are not keys: a key of another section, a name of another tool (GPT2Config, the attributes that every
 * configuration of transformers has, TrainingArguments through its versions, nanoGPT), or the nearest key. Constant tables; keeps
 * nothing. */
#include "config/names.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "config/fields.h"

struct foreign {
    const char *name;
    const char *instead;
};

/* Answers that many names share. */
#define BATCH "write training.global_batch, the sequences of a step over all workers"
#define PER_DEVICE BATCH ", and training.micro_batch, those that a worker computes at a time"
#define ACCUMULATE \
    "leave it out: training.global_batch is the whole step; a worker adds up gradients of training.micro_batch sequences at a time"
#define MICRO "write training.micro_batch, the sequences that a worker computes at a time: fewer need less memory"
#define EVAL_BATCH \
    "leave it out: the loss does not depend on it; training.micro_batch bounds what a worker computes at a time in evaluations, too"
#define EVALUATE "write training.eval_steps, the steps between evaluations (0: none on the way)"
#define SAVE "write training.save_steps, the steps between checkpoints"
#define LOGGED "leave it out: metrics go to metrics.jsonl and the terminal every training.logging_steps"
#define EPOCHS "write training.num_train_epochs or training.max_steps"
#define WARMUP "write training.warmup_steps, a number of steps"
#define SCHEDULE "write training.lr_scheduler_type; min_lr_rate, num_decay_steps, decay_type and power stand beside it"
#define LOWEST "write training.min_lr_rate, a share of learning_rate, and lr_scheduler_type: cosine_with_min_lr"
#define OPTIM "write training.optim: adamw, adam or sgd"
#define OPTIM_KEYS "write training.adam_beta1, adam_beta2, adam_epsilon, weight_decay, sgd_momentum or sgd_nesterov"
#define EMA "write training.ema_decay"
#define FLOAT32 "write training.bf16, true or false: products of bfloat16 or of float32"
#define CPU "leave it out: training runs on CPUs; cluster.workers and cluster.threads_per_worker say how many"
#define READER "leave it out: workers read the data themselves, packed into full sequences in an order that follows from training.seed"
#define ACCOUNTED "leave it out: resuming always goes on at the exact sequence"
#define EXCHANGE "leave it out: workers exchange gradients by themselves; see section cluster"
#define HUB "leave it out: nothing is uploaded; a checkpoint is a folder that transformers loads"
#define BEST "leave it out: training.save_total_limit keeps the newest checkpoints, 0 all"
#define HEADS "leave it out: the model has a language model head only"
#define GENERATE "leave it out: section sample and `millrace generate` say how text is generated"
#define PLAIN_GPT2 "leave it out: the model is GPT-2 as published"
#define LOSS_ONLY "leave it out: evaluation gives loss and perplexity"
#define COMMAND "leave it out: `millrace run` trains and evaluates, `millrace evaluate` evaluates alone"
#define COMPILED "leave it out: the kernels are compiled in"
#define TELEMETRY "leave it out: nothing is measured or sent beyond what is printed"
#define HELD_OUT "write an entry of dataset.sources: {path: FILE, split: validation}"
#define DOWNLOADED "write dataset.sources: files, folders or URLs of text, JSON lines, CSV or archives"
#define FIELD_OF "write field in an entry of dataset.sources: {path: FILES, field: NAME}"
#define WEIGHTS "write weight in each entry of dataset.sources: {path: FILES, weight: 2}"
#define PACK "write dataset.packing: concat, pad or best_fit"
#define DROPOUTS "write model.resid_pdrop, embd_pdrop and attn_pdrop"

static const struct foreign foreign[] = {
    /* GPT2Config */
    {"summary_type", HEADS}, {"summary_use_proj", HEADS}, {"summary_activation", HEADS}, {"summary_proj_to_labels", HEADS},
    {"summary_first_dropout", HEADS}, {"use_cache", GENERATE}, {"scale_attn_by_inverse_layer_idx", PLAIN_GPT2},
    {"reorder_and_upcast_attn", PLAIN_GPT2}, {"add_cross_attention", PLAIN_GPT2}, {"hidden_size", "write model.n_embd"},
    {"max_position_embeddings", "write model.n_positions"}, {"num_attention_heads", "write model.n_head"},
    {"num_hidden_layers", "write model.n_layer"}, {"intermediate_size", "write model.n_inner"},
    {"layer_norm_eps", "write model.layer_norm_epsilon"}, {"hidden_act", "write model.activation_function"},
    {"pad_token_id", "leave it out: padding stays out of the loss, whatever stands there; see dataset.pad_in_loss"},
    {"sep_token_id", PLAIN_GPT2}, {"cls_token_id", PLAIN_GPT2},
    {"decoder_start_token_id", PLAIN_GPT2}, {"tie_word_embeddings", "leave it out: the head and the embeddings are one matrix"},
    {"tie_encoder_decoder", PLAIN_GPT2}, {"is_decoder", PLAIN_GPT2}, {"is_encoder_decoder", PLAIN_GPT2},
    {"cross_attention_hidden_size", PLAIN_GPT2},
    {"attn_implementation", PLAIN_GPT2}, {"_attn_implementation", PLAIN_GPT2}, {"chunk_size_feed_forward", PLAIN_GPT2},
    {"pruned_heads", PLAIN_GPT2}, {"architectures", PLAIN_GPT2}, {"model_type", PLAIN_GPT2}, {"transformers_version", PLAIN_GPT2},
    {"tokenizer_class", "write dataset.tokenizer"}, {"name_or_path", PLAIN_GPT2}, {"_name_or_path", PLAIN_GPT2}, {"torch_dtype", FLOAT32},
    {"dtype", FLOAT32}, {"torchscript", COMPILED}, {"use_bfloat16", FLOAT32}, {"num_labels", HEADS}, {"id2label", HEADS},
    {"label2id", HEADS}, {"problem_type", HEADS}, {"finetuning_task", HEADS}, {"task_specific_params", GENERATE},
    {"output_attentions", LOSS_ONLY}, {"output_hidden_states", LOSS_ONLY}, {"return_dict", LOSS_ONLY},
    {"gradient_checkpointing_kwargs", "write training.gradient_checkpointing"},
    /* generation */
    {"top_p", "write sample.top_k, or `millrace generate --top-p`"}, {"do_sample", "write sample.temperature, 0 for the likeliest token"},
    {"max_length", "write dataset.sequence_length for training, sample.max_new_tokens for generated text"}, {"min_length", GENERATE},
    {"num_beams", GENERATE}, {"repetition_penalty", GENERATE}, {"num_return_sequences", GENERATE}, {"no_repeat_ngram_size", GENERATE},
    {"predict_with_generate", GENERATE}, {"generation_max_length", GENERATE}, {"generation_num_beams", GENERATE},
    {"generation_config", GENERATE},
    /* TrainingArguments: batch, length, schedule */
    {"per_device_train_batch_size", PER_DEVICE}, {"per_gpu_train_batch_size", PER_DEVICE}, {"gradient_accumulation_steps", ACCUMULATE},
    {"train_batch_size", BATCH}, {"auto_find_batch_size", PER_DEVICE}, {"micro_batch_size", MICRO}, {"device_batch_size", MICRO},
    {"per_device_eval_batch_size", EVAL_BATCH}, {"per_gpu_eval_batch_size", EVAL_BATCH}, {"eval_batch_size", EVAL_BATCH},
    {"split_batches", "write training.slices, the equal parts of training.global_batch"}, {"warmup_ratio", WARMUP},
    {"lr_scheduler_kwargs", SCHEDULE}, {"optim_args", OPTIM_KEYS}, {"adafactor", OPTIM},
    {"optim_target_modules", "leave it out: all parameters are trained"},
    {"label_smoothing", "write training.label_smoothing_factor"}, {"label_smoothing_epsilon", "write training.label_smoothing_factor"},
    {"ema", EMA}, {"use_ema", EMA}, {"ema_rate", EMA}, {"z_loss_coefficient", "write training.z_loss"},
    {"z_loss_weight", "write training.z_loss"}, {"neftune_noise_alpha", DROPOUTS},
    {"average_tokens_across_devices", "leave it out: the loss is always the mean over all tokens of a step"},
    {"data_seed", "write training.seed"}, {"full_determinism", "leave it out: runs always give the same bytes"},
    /* evaluation, logging, saving */
    {"evaluation_strategy", EVALUATE}, {"eval_strategy", EVALUATE}, {"evaluate_during_training", EVALUATE}, {"eval_delay", EVALUATE},
    {"eval_on_start", EVALUATE}, {"eval_accumulation_steps", LOSS_ONLY}, {"eval_do_concat_batches", LOSS_ONLY},
    {"eval_use_gather_object", LOSS_ONLY}, {"prediction_loss_only", LOSS_ONLY}, {"include_inputs_for_metrics", LOSS_ONLY},
    {"include_for_metrics", LOSS_ONLY}, {"batch_eval_metrics", LOSS_ONLY}, {"past_index", LOSS_ONLY},
    {"use_legacy_prediction_loop", LOSS_ONLY}, {"label_names", LOSS_ONLY}, {"do_train", COMMAND}, {"do_eval", COMMAND},
    {"do_predict", COMMAND},
    {"save_strategy", SAVE}, {"save_safetensors", "leave it out: checkpoints are always safetensors"},
    {"save_only_model", "leave it out: every checkpoint can be resumed from"},
    {"save_on_each_node", "leave it out: the coordinator writes under output_dir"}, {"load_best_model_at_end", BEST},
    {"enable_jit_checkpoint", "leave it out: an interrupted run goes on from its last checkpoint"}, {"metric_for_best_model", BEST},
    {"greater_is_better", BEST}, {"logging_dir", "write output_dir at the top level: metrics.jsonl and logs/ lie in it"},
    {"logging_strategy", "write training.logging_steps, the steps between lines of progress"}, {"logging_first_step", LOGGED},
    {"logging_nan_inf_filter", "leave it out: a step without a finite gradient is skipped and counted; see training.max_bad_steps"},
    {"log_level", LOGGED}, {"log_level_replica", LOGGED}, {"log_on_each_node", LOGGED}, {"report_to", LOGGED}, {"disable_tqdm", LOGGED},
    {"project", LOGGED}, {"trackio_space_id", LOGGED}, {"include_tokens_per_second", LOGGED}, {"include_num_input_tokens_seen", LOGGED},
    {"skip_memory_metrics", TELEMETRY}, {"debug", TELEMETRY},
    {"overwrite_output_dir", "leave it out: `millrace run --restart` begins anew"},
    {"resume_from_checkpoint", "leave it out: `millrace run` resumes by itself"}, {"ignore_data_skip", ACCOUNTED},
    {"restore_callback_states_from_checkpoint", ACCOUNTED},
    /* precision, devices, kernels */
    {"fp16", FLOAT32}, {"fp16_opt_level", FLOAT32}, {"fp16_backend", FLOAT32}, {"half_precision_backend", FLOAT32},
    {"fp16_full_eval", FLOAT32},
    {"bf16_full_eval", FLOAT32}, {"tf32", FLOAT32}, {"no_cuda", CPU}, {"use_cpu", CPU}, {"use_mps_device", CPU}, {"use_ipex", CPU},
    {"jit_mode_eval", COMPILED}, {"tpu_num_cores", CPU}, {"tpu_metrics_debug", CPU}, {"xpu_backend", CPU}, {"n_gpu", CPU},
    {"device", CPU}, {"torch_compile", COMPILED}, {"torch_compile_backend", COMPILED}, {"torch_compile_mode", COMPILED},
    {"torchdynamo", COMPILED}, {"use_liger_kernel", COMPILED}, {"liger_kernel_config", COMPILED}, {"torch_empty_cache_steps", COMPILED},
    /* data */
    {"dataloader_drop_last", READER}, {"dataloader_num_workers", READER}, {"dataloader_pin_memory", READER},
    {"dataloader_persistent_workers", READER}, {"dataloader_prefetch_factor", READER}, {"group_by_length", READER},
    {"length_column_name", READER}, {"train_sampling_strategy", READER}, {"remove_unused_columns", READER}, {"dispatch_batches", READER},
    {"train_file", "write dataset.sources"}, {"validation_file", HELD_OUT}, {"test_file", HELD_OUT},
    {"train_files", "write dataset.sources"},
    {"validation_files", HELD_OUT}, {"data_files", "write dataset.sources"}, {"data_dir", "write dataset.sources"},
    {"dataset_path", "write dataset.sources"}, {"dataset_name", DOWNLOADED}, {"dataset_config_name", DOWNLOADED},
    {"dataset_config", DOWNLOADED}, {"dataset_split", DOWNLOADED}, {"streaming", "leave it out: sources are always read as streams"},
    {"preprocessing_num_workers", "write cluster.workers"}, {"num_proc", "write cluster.workers"},
    {"dataset_num_proc", "write cluster.workers"},
    {"overwrite_cache", "leave it out: what changed is made again, and `millrace run --restart` begins anew"}, {"text_column", FIELD_OF},
    {"text_column_name", FIELD_OF}, {"text_field", FIELD_OF}, {"dataset_text_field", FIELD_OF}, {"content_field", FIELD_OF},
    {"data_mix", WEIGHTS}, {"weights", WEIGHTS}, {"probabilities", WEIGHTS}, {"mixture", WEIGHTS}, {"interleave_probs", WEIGHTS},
    {"group_texts", "write dataset.packing: concat, and dataset.sequence_length"}, {"concat_documents", PACK}, {"packing_strategy", PACK},
    {"padding", PACK}, {"pack", PACK}, {"padding_side", "write dataset.packing: pad; padding is at the end"}, {"truncation", PACK},
    {"pad_to_multiple_of", PACK}, {"eval_packing", PACK}, {"eos_text", "leave it out: the tokenizer's end of text follows every document"},
    {"append_eos", "leave it out: the tokenizer's end of text follows every document"},
    {"add_eos_token", "leave it out: the tokenizer's end of text follows every document"},
    {"tokenizer_name", "write dataset.tokenizer"}, {"tokenizer_name_or_path", "write dataset.tokenizer"},
    {"tokenizer_path", "write dataset.tokenizer"}, {"tokenizer_file", "write dataset.tokenizer"},
    {"reset_attention_mask", "write dataset.document_mask"}, {"reset_position_ids", "write dataset.document_mask"},
    {"eod_mask_loss", "write dataset.pad_in_loss; the end of text is always learned"},
    {"intra_document_masking", "write dataset.document_mask"},
    {"dedup", "write dataset.deduplicate: exact or near"}, {"deduplication", "write dataset.deduplicate: exact or near"},
    {"minhash", "write dataset.deduplicate: near"}, {"num_buckets", "write dataset.minhash_bands"},
    {"hashes_per_bucket", "write dataset.minhash_rows"},
    {"n_grams", "write dataset.minhash_words"}, {"shuffle", "leave it out: order follows from training.seed; see dataset.shuffle_window"},
    {"shuffle_seed", "write training.seed"}, {"shuffle_buffer_size", "write dataset.shuffle_window, a number of blocks"},
    {"buffer_size", "write dataset.shuffle_window, a number of blocks"},
    {"shuffle_block_size", "write dataset.shuffle_window, a number of blocks"},
    {"unicode_normalization", "write dataset.normalization"}, {"lowercase", "leave it out: text keeps its case"},
    {"encoding", "leave it out: text is UTF-8; see dataset.invalid_utf8"},
    {"encoding_errors", "write dataset.invalid_utf8: replace, drop or refuse"},
    {"validation_split_percentage", "write dataset.validation_fraction, a share from 0, below 1"},
    /* distribution */
    {"local_rank", EXCHANGE}, {"ddp_backend", EXCHANGE}, {"ddp_find_unused_parameters", EXCHANGE}, {"ddp_bucket_cap_mb", EXCHANGE},
    {"ddp_broadcast_buffers", EXCHANGE}, {"ddp_static_graph", EXCHANGE}, {"ddp_timeout", "write cluster.lease_seconds"},
    {"sharded_ddp", EXCHANGE}, {"fsdp", EXCHANGE}, {"fsdp_config", EXCHANGE}, {"fsdp_min_num_params", EXCHANGE},
    {"fsdp_transformer_layer_cls_to_wrap", EXCHANGE}, {"deepspeed", EXCHANGE}, {"accelerator_config", EXCHANGE},
    {"parallelism_config", EXCHANGE}, {"mp_parameters", EXCHANGE}, {"ray_scope", EXCHANGE},
    /* Hugging Face's hub */
    {"push_to_hub", HUB}, {"hub_model_id", HUB}, {"hub_strategy", HUB}, {"hub_token", HUB}, {"hub_private_repo", HUB},
    {"hub_always_push", HUB}, {"hub_revision", HUB}, {"push_to_hub_model_id", HUB}, {"push_to_hub_organization", HUB},
    {"push_to_hub_token", HUB},
    /* nanoGPT and habit */
    {"block_size", "write dataset.sequence_length and model.n_positions"}, {"seq_length", "write dataset.sequence_length"},
    {"max_seq_length", "write dataset.sequence_length"}, {"batch_size", BATCH}, {"dropout", DROPOUTS}, {"max_iters", EPOCHS},
    {"epochs", EPOCHS}, {"num_epochs", EPOCHS}, {"eval_interval", EVALUATE}, {"eval_iters", "write training.eval_sequences"},
    {"log_interval", "write training.logging_steps"}, {"warmup_iters", WARMUP}, {"lr_decay_iters", EPOCHS}, {"decay_lr", SCHEDULE},
    {"min_lr", LOWEST}, {"min_lr_ratio", LOWEST}, {"lr_end", LOWEST}, {"num_stable_steps", "write training.num_decay_steps"},
    {"lr", "write training.learning_rate"}, {"lr_scheduler", SCHEDULE}, {"grad_clip", "write training.max_grad_norm"},
    {"beta1", "write training.adam_beta1"}, {"beta2", "write training.adam_beta2"}, {"out_dir", "write output_dir at the top level"},
    {"optimizer", OPTIM}, {"momentum", "write training.sgd_momentum"}, {"nesterov", "write training.sgd_nesterov"},
    {"num_workers", "write cluster.workers"},
};

/* In an entry of dataset.sources. */
static const struct foreign foreign_in_source[] = {
    {"file", "write path"}, {"files", "write paths"}, {"url", "write path"}, {"urls", "write paths"}, {"glob", "write path"},
    {"folder", "write path"}, {"dir", "write path"}, {"directory", "write path"}, {"data_files", "write paths"}, {"data_dir", "write path"},
    {"source", "write path"}, {"column", "write field"}, {"text_column", "write field"}, {"text_field", "write field"},
    {"key", "write field"}, {"text_key", "write field"}, {"jq", "write field, such as a.b"}, {"type", "write format"},
    {"ratio", "write weight"}, {"proportion", "write weight"}, {"probability", "write weight"}, {"share", "write weight"},
    {"repeat", "write weight, and dataset.stopping_strategy: all_exhausted"}, {"sep", "write separator, or format: csv or tsv"},
    {"delimiter", "write separator between documents of a text; columns are apart by format: csv or tsv"},
    {"include", "write members for archives, a glob in path for folders"}, {"exclude", "write globs of what is taken, in path or members"},
    {"compression", "leave it out: compressed files are known by their content"}, {"encoding", "leave it out: text is UTF-8; see "
     "dataset.invalid_utf8"}, {"validation", "write split: validation"}, {"train", "write split: train"},
};

static const char *foreign_find(const struct foreign *table, size_t count, const char *key) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i].name, key) == 0) return table[i].instead;
    return NULL;
}

const char *name_foreign(const char *key) { return foreign_find(foreign, sizeof foreign / sizeof foreign[0], key); }

/* ---- values that ask for nothing else ---- */

/* Foreign names with the values that stand for what is done here anyway, mostly the defaults of their own tool: what people paste from
 * there need not be taken apart. Values are apart by spaces; [] is the empty list. null always says nothing. */
static const struct {
    const char *name, *values;
} idle[] = {
    /* GPT2Config */
    {"use_cache", "true"}, {"tie_word_embeddings", "true"}, {"scale_attn_by_inverse_layer_idx", "false"},
    {"reorder_and_upcast_attn", "false"}, {"add_cross_attention", "false"}, {"summary_type", "cls_index"}, {"summary_use_proj", "true"},
    {"summary_proj_to_labels", "true"}, {"summary_first_dropout", "0.1"}, {"model_type", "gpt2"}, {"architectures", "GPT2LMHeadModel"},
    {"torch_dtype", "float32"}, {"dtype", "float32"}, {"is_decoder", "false"}, {"is_encoder_decoder", "false"},
    {"tie_encoder_decoder", "false"}, {"chunk_size_feed_forward", "0"}, {"output_attentions", "false"}, {"output_hidden_states", "false"},
    {"return_dict", "true"}, {"torchscript", "false"}, {"use_bfloat16", "false"}, {"attn_implementation", "eager sdpa"},
    {"_attn_implementation", "eager sdpa"},
    /* generation */
    {"num_beams", "1"}, {"repetition_penalty", "1"}, {"num_return_sequences", "1"}, {"no_repeat_ngram_size", "0"}, {"top_p", "1"},
    {"predict_with_generate", "false"},
    /* TrainingArguments */
    {"gradient_accumulation_steps", "1"}, {"auto_find_batch_size", "false"}, {"split_batches", "false"}, {"warmup_ratio", "0"},
    {"adafactor", "false"}, {"average_tokens_across_devices", "true"}, {"full_determinism", "true false"}, {"do_train", "true"},
    {"do_eval", "true"}, {"do_predict", "false"}, {"evaluation_strategy", "steps"}, {"eval_strategy", "steps"}, {"save_strategy", "steps"},
    {"logging_strategy", "steps"}, {"eval_delay", "0"}, {"eval_on_start", "false"}, {"eval_do_concat_batches", "true"},
    {"eval_use_gather_object", "false"}, {"prediction_loss_only", "true false"}, {"include_inputs_for_metrics", "false"},
    {"include_for_metrics", "[]"}, {"batch_eval_metrics", "false"}, {"past_index", "-1"}, {"use_legacy_prediction_loop", "false"},
    {"save_safetensors", "true"}, {"save_only_model", "false"}, {"save_on_each_node", "false"}, {"load_best_model_at_end", "false"},
    {"enable_jit_checkpoint", "false"}, {"logging_first_step", "true false"}, {"logging_nan_inf_filter", "true"},
    {"log_level", "passive"}, {"log_level_replica", "warning"}, {"log_on_each_node", "true"}, {"report_to", "none []"},
    {"disable_tqdm", "true false"}, {"include_tokens_per_second", "true false"}, {"include_num_input_tokens_seen", "true false no"},
    {"skip_memory_metrics", "true"}, {"debug", "[]"}, {"overwrite_output_dir", "false"}, {"ignore_data_skip", "false"},
    {"restore_callback_states_from_checkpoint", "false"}, {"resume_from_checkpoint", "true"},
    {"fp16", "false"}, {"fp16_opt_level", "O1"}, {"fp16_backend", "auto"}, {"half_precision_backend", "auto"}, {"fp16_full_eval", "false"},
    {"bf16_full_eval", "false"}, {"tf32", "false"}, {"no_cuda", "true false"}, {"use_cpu", "true false"}, {"use_mps_device", "false"},
    {"use_ipex", "false"}, {"jit_mode_eval", "false"}, {"torch_compile", "false"}, {"use_liger_kernel", "false"}, {"device", "cpu"},
    {"dataloader_drop_last", "false"}, {"dataloader_num_workers", "0"}, {"dataloader_pin_memory", "true false"},
    {"dataloader_persistent_workers", "false"}, {"group_by_length", "false"}, {"length_column_name", "length"},
    {"remove_unused_columns", "true"}, {"train_sampling_strategy", "random"},
    {"local_rank", "-1 0"}, {"ddp_timeout", "1800"}, {"fsdp", "[]"}, {"sharded_ddp", "[]"}, {"fsdp_min_num_params", "0"},
    {"push_to_hub", "false"}, {"hub_strategy", "every_save"}, {"hub_private_repo", "false"}, {"hub_always_push", "false"},
    {"label_smoothing", "0"}, {"label_smoothing_epsilon", "0"}, {"ema", "false"}, {"use_ema", "false"},
    /* data */
    {"streaming", "true false"}, {"shuffle", "true"}, {"lowercase", "false"}, {"encoding", "utf-8 utf8"}, {"add_eos_token", "true"},
    {"append_eos", "true"}, {"overwrite_cache", "false"},
};

static bool same_number(const char *a, const char *b) {
    char *end_a, *end_b;
    double x = strtod(a, &end_a), y = strtod(b, &end_b);
    return end_a != a && end_b != b && *end_a == 0 && *end_b == 0 && x == y;
}

static bool is_among(const char *values, const char *text) {
    for (const char *at = values; *at;) {
        char value[32];
        int length = (int)strcspn(at, " ");
        snprintf(value, sizeof value, "%.*s", length, at);
        if (strcasecmp(value, text) == 0 || same_number(value, text)) return true;
        at += length + (at[length] == ' ');
    }
    return false;
}

bool name_says_nothing(const struct entry *entry) {
    const char *dot = strrchr(entry->key, '.'), *key = dot ? dot + 1 : entry->key;
    bool one = (entry->kind == ENTRY_SCALAR || entry->kind == ENTRY_LIST) && entry->count == 1 && !entry->item->mapping;
    const char *text = one ? entry->item->text : entry->kind == ENTRY_LIST && entry->count == 0 ? "[]" : NULL;
    if (!text || !name_foreign(key)) return false;
    if (one && entry->kind == ENTRY_SCALAR && scalar_is_null(entry->item)) return true;
    for (size_t i = 0; i < sizeof idle / sizeof idle[0]; i++)
        if (strcmp(idle[i].name, key) == 0) return is_among(idle[i].values, text);
    return false;
}

/* ---- near names ---- */

static char folded(char c) { return c == '-' || c == ' ' ? '_' : (char)tolower((unsigned char)c); }

/* Insertions, deletions, changes and swaps of neighbours that lead from a to b (optimal string alignment). */
static size_t distance(const char *a, const char *b) {
    enum { ROW = YAML_KEY_BYTES_MAX + 1 };
    size_t rows[3][ROW], n = strlen(a), m = strlen(b);
    if (n >= ROW || m >= ROW) return ROW;
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++) last[j] = before[j] = j;
    for (size_t i = 1; i <= n; i++) {
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            char x = folded(a[i - 1]), y = folded(b[j - 1]);
            size_t best = last[j - 1] + (x != y);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && x == folded(b[j - 2]) && folded(a[i - 2]) == y && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            row[j] = best;
        }
        size_t *oldest = before;
        before = last, last = row, row = oldest;
    }
    return last[m];
}

struct nearest {
    char name[FIELD_NAME_BYTES];
    size_t distance;
};

static void consider(struct nearest *nearest, const char *key, const char *candidate, const char *full_name) {
    size_t d = distance(key, candidate);
    if (d >= nearest->distance) return;
    nearest->distance = d;
    snprintf(nearest->name, sizeof nearest->name, "%s", full_name);
}

/* Nearer than this it can be a slip. */
static size_t too_far(const char *key) {
    size_t allowed = strlen(key) / 3;
    return (allowed < 1 ? 1 : allowed > 3 ? 3 : allowed) + 1;
}

/* The key or section that differs least, if it is near enough to be a slip. Its own section wins a tie. */
static bool find_nearest(struct nearest *out, const char *section, const char *key) {
    *out = (struct nearest){.distance = too_far(key)};
    size_t start = out->distance;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < field_count; i++) {
            if ((strcmp(fields[i].section, section) == 0) != (pass == 0)) continue;
            char name[FIELD_NAME_BYTES];
            field_name(name, &fields[i]);
            consider(out, key, fields[i].key, name);
            if (fields[i].alias) consider(out, key, fields[i].alias, name);
        }
        for (size_t i = 0; section[0] == 0 && pass == 0 && i < field_section_count; i++)
            consider(out, key, field_sections[i], field_sections[i]);
    }
    return out->distance < start;
}

/* The same key in another section; NULL if there is none. */
static const struct field *find_elsewhere(const char *key) {
    for (size_t i = 0; i < field_count; i++)
        if (strcmp(fields[i].key, key) == 0 || (fields[i].alias && strcmp(fields[i].alias, key) == 0)) return &fields[i];
    return NULL;
}

static int list_keys(struct buf *out, const char *section) {
    const char *comma = "";
    for (size_t i = 0; i < field_count; i++) {
        if (strcmp(fields[i].section, section) != 0) continue;
        TRY(buf_print(out, "%s%s", comma, fields[i].key));
        comma = ", ";
    }
    for (size_t i = 0; section[0] == 0 && i < field_section_count; i++) TRY(buf_print(out, ", %s", field_sections[i]));
    return 0;
}

/* Keys of the section that begin with that word: "warmup" is the beginning of two. 0: there is none. */
static int list_longer(struct buf *out, const char *section, const char *key) {
    size_t n = strlen(key);
    for (size_t i = 0; i < field_count; i++) {
        if (strcmp(fields[i].section, section) != 0 || strncmp(fields[i].key, key, n) != 0 || fields[i].key[n] != '_') continue;
        TRY(buf_print(out, "%s%s%s%s", out->size ? " or " : "", section, section[0] ? "." : "", fields[i].key));
    }
    return out->size > 0;
}

static int refuse_unlike_any(struct location at, const char *shown, const char *section) {
    bool section_known = section[0] == 0;
    for (size_t i = 0; i < field_section_count; i++) section_known = section_known || strcmp(section, field_sections[i]) == 0;
    struct buf keys = {0};
    int code = list_keys(&keys, section_known ? section : "");
    if (code == 0) code = fault(at, shown, "unknown key; expected one of %s", (const char *)keys.data);
    buf_free(&keys);
    return code;
}

/* Keys come from outside: for messages they lose what is not printed. */
static void show_key(char *out, size_t room, const char *dotted_key) {
    snprintf(out, room, "%s", dotted_key);
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
}

int name_refuse_source(struct location at, const char *dotted_key) {
    char shown[YAML_KEY_BYTES_MAX * 2 + 2];
    const char *key = strrchr(dotted_key, '.') + 1;
    show_key(shown, sizeof shown, dotted_key);
    const char *instead = foreign_find(foreign_in_source, sizeof foreign_in_source / sizeof foreign_in_source[0], key);
    if (instead) return fault(at, shown, "not used here; %s", instead);
    for (size_t i = 0; i < field_count; i++)
        if (strcmp(fields[i].section, "dataset") == 0 && strcmp(fields[i].key, key) == 0)
            return fault(at, shown, "unknown key; write dataset.%s beside dataset.sources: it holds for all of them", key);
    struct nearest nearest = {.distance = too_far(key)};
    size_t start = nearest.distance;
    for (size_t i = 0; i < source_field_count; i++) {
        consider(&nearest, key, source_fields[i].key, source_fields[i].key);
        if (source_fields[i].alias) consider(&nearest, key, source_fields[i].alias, source_fields[i].alias);
    }
    if (nearest.distance < start) return fault(at, shown, "unknown key; did you mean %s?", nearest.name);
    return fault(at, shown, "unknown key; expected one of path, paths, name, members, weight, format, field, separator, split");
}

int name_refuse(struct location at, const char *dotted_key) {
    char section[YAML_KEY_BYTES_MAX + 1] = "", shown[YAML_KEY_BYTES_MAX * 2 + 2], name[FIELD_NAME_BYTES];
    const char *dot = strchr(dotted_key, '.'), *key = dot ? dot + 1 : dotted_key;
    if (dot) snprintf(section, sizeof section, "%.*s", (int)(dot - dotted_key), dotted_key);
    show_key(shown, sizeof shown, dotted_key);
    const struct field *elsewhere = find_elsewhere(key);
    if (elsewhere) {
        field_name(name, elsewhere);
        if (elsewhere->section[0]) return fault(at, shown, "unknown key; write %s: it belongs into section %s", name, elsewhere->section);
        return fault(at, shown, "unknown key; write %s at the top level, outside every section", name);
    }
    const char *instead = name_foreign(key);
    if (instead) return fault(at, shown, "not used here; %s", instead);
    struct nearest nearest;
    if (find_nearest(&nearest, section, key)) return fault(at, shown, "unknown key; did you mean %s?", nearest.name);
    struct buf longer = {0};
    int code = list_longer(&longer, section, key);
    if (code == 1) code = fault(at, shown, "unknown key; did you mean %s?", (const char *)longer.data);
    else if (code == 0) code = refuse_unlike_any(at, shown, section);
    buf_free(&longer);
    return code;
}
