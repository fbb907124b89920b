/* Goes through the jobs of a build twice: to count them, and to do some of them, at equal distances in the bytes of the sources. A long
 * document of which the sample has only some pieces is taken out of the sample's dataset and estimated by its tokens. */
#include "cli/plan_sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "dataset/ingest/ingest.h"
#include "dataset/ingest/token_run.h"
#include "dataset/ingest/tokenize_jobs.h"
#include "dataset/plan/advice.h"
#include "dataset/plan/plan.h"
#include "dataset/source/local.h"
#include "dataset/source/unpack.h"

enum {
    WHOLE_BYTES = 8 << 20,      /* of sources that are done whole; compressed ones count for more */
    PACKED_WEIGHT = 4,
    JOBS = 16,                  /* of the sample */
    SAMPLE_BYTES = 8 << 20,     /* of text, shared out to them */
};

struct sample_run {
    struct buf bytes;           /* ids, table, seal */
    uint32_t *file;             /* of each part */
};

struct sampling {
    const struct config *config;
    const struct sources *sources;
    const struct tokenizer *tokenizer;
    struct encoder *encoder;
    struct sample_run *run;
    size_t runs;
    bool whole;
    size_t jobs;                /* of the build */
    double weight, done;        /* bytes of the sources; of the jobs gone through so far */
    size_t taken;               /* jobs */
    double used, text, seconds; /* of the sources, in the sample; what text that gave; how long it took */
    double torn_tokens, torn_documents, left_tokens;
};

/* ---- one job ---- */

static int collect(void *arg, const void *bytes, size_t size_bytes) { return buf_append(arg, bytes, size_bytes); }

static int add_run(struct sampling *s, struct ingest *ingest, Millrace__TokenizeResult *result, const Millrace__TokenizeJob *job) {
    s->run = mem_resize(s->run, (s->runs + 1) * sizeof *s->run);
    struct sample_run *run = &s->run[s->runs++];
    *run = (struct sample_run){.file = mem_alloc((job->n_parts + 1) * sizeof *run->file)};
    for (size_t i = 0; i < job->n_parts; i++) run->file[i] = job->parts[i]->file;
    double began = clock_seconds();
    TRY(ingest_run(ingest, result, s->encoder, collect, &run->bytes));
    s->seconds += clock_seconds() - began;
    s->used += (double)result->source_bytes;
    return 0;
}

static int do_job(struct sampling *s, const Millrace__TokenizeJob *job) {
    struct ingest_options options = {.tokenizer = s->tokenizer, .token_bytes = tokenizer_token_bytes(s->tokenizer)};
    options.groups = s->config->dataset.sources.item, options.group_count = s->config->dataset.sources.count;
    options.policy = policy_options_of(s->config);
    options.max_left_out = s->config->dataset.max_left_out;
    options.text_bytes = s->whole ? INGEST_TEXT_BYTES : SAMPLE_BYTES / (s->jobs < JOBS ? s->jobs : JOBS);
    options.open = local_open_part, options.close = local_close_part;
    struct ingest *ingest;
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    TRY(ingest_open(&ingest, &options, job));
    int code;
    do code = add_run(s, ingest, &result, job);
    while (code == 0 && s->whole && result.next);
    ingest_close(ingest);
    return code;
}

static int count_job(void *arg, const Millrace__TokenizeJob *job) {
    (void)job;
    ((struct sampling *)arg)->jobs++;
    return 0;
}

/* Does one when the next of JOBS equal steps through the sources lies in it; all of them when the sources are done whole. */
static int take_job(void *arg, const Millrace__TokenizeJob *job) {
    struct sampling *s = arg;
    for (size_t i = 0; i < job->n_parts; i++) s->done += (double)(job->parts[i]->end - job->parts[i]->begin);
    if (s->whole) return do_job(s, job);
    if (s->done < ((double)s->taken + 0.5) * s->weight / JOBS) return 0;
    while (s->done >= ((double)s->taken + 0.5) * s->weight / JOBS) s->taken++;
    return do_job(s, job);
}

/* ---- its table ---- */

/* A document of which a part is missing leaves the table. */
static void take_out(struct sampling *s, Millrace__RunTable *t, size_t i) {
    size_t after = t->n_source - i - 1, before = 0, bands = t->n_source ? t->bands.len / t->n_source : 0;
    for (size_t k = 0; k < i; k++) before += t->blocks[k];
    uint8_t *digest = t->digests.data + before * SHA256_BYTES;
    s->torn_tokens += (double)t->piece_tokens[i];
    t->tokens -= t->piece_tokens[i];
    size_t digests = t->blocks[i] * (size_t)SHA256_BYTES;
    memmove(digest, digest + digests, t->digests.len - before * SHA256_BYTES - digests);
    t->digests.len -= digests;
    if (bands) memmove(t->bands.data + i * bands, t->bands.data + (i + 1) * bands, after * bands), t->bands.len -= bands;
#define LEAVES(column) memmove(&t->column[i], &t->column[i + 1], after * sizeof *t->column), t->n_##column--
    LEAVES(source), LEAVES(member), LEAVES(offset), LEAVES(bytes), LEAVES(piece_tokens), LEAVES(flags), LEAVES(blocks), LEAVES(replaced);
    if (t->n_changed) LEAVES(changed);
#undef LEAVES
}

static int load(void *arg, size_t number, Millrace__RunTable **out) {
    struct sampling *s = arg;
    const struct sample_run *run = &s->run[number];
    TRY(token_run_table_parse(out, run->bytes.data, run->bytes.size));
    Millrace__RunTable *t = *out;
    for (size_t i = 0; i < t->n_source; i++) t->source[i] = run->file[t->source[i]];
    if (s->whole) return 0;
    s->torn_tokens = 0;
    for (size_t i = t->n_source; i-- > 0;)
        if (t->flags[i] != (TOKEN_RUN_BEGINS | TOKEN_RUN_ENDS)) take_out(s, t, i);
    return 0;
}

/* Text and tokens in all tables; of documents that were torn, tokens and how many files they are of. */
static int sum_up(struct sampling *s, double *out_torn, double *out_torn_files) {
    uint32_t before = UINT32_MAX;
    for (size_t i = 0; i < s->runs; i++) {
        Millrace__RunTable *t;
        TRY(token_run_table_parse(&t, s->run[i].bytes.data, s->run[i].bytes.size));
        s->text += (double)t->read_bytes;
        s->left_tokens += (double)t->tokens;
        bool torn = false;
        for (size_t k = 0; k < t->n_source; k++) torn |= t->flags[k] != (TOKEN_RUN_BEGINS | TOKEN_RUN_ENDS);
        millrace__run_table__free_unpacked(t, NULL);
        TRY(load(s, i, &t));
        *out_torn += s->torn_tokens;
        millrace__run_table__free_unpacked(t, NULL);
        if (torn && s->run[i].file[0] != before) *out_torn_files += 1, before = s->run[i].file[0];
    }
    return 0;
}

/* ---- all of it ---- */

static int plan_of(struct dataset_plan **out, struct sampling *s, double validation_fraction) {
    const struct config *config = s->config;
    uint32_t *group = mem_alloc((s->sources->count + 1) * sizeof *group);
    const char **path = mem_alloc((s->sources->count + 1) * sizeof *path);
    for (size_t i = 0; i < s->sources->count; i++) group[i] = s->sources->source[i].group, path[i] = s->sources->source[i].path;
    struct plan_options options = {.token_bytes = tokenizer_token_bytes(s->tokenizer), .eos = (uint32_t)config->model.eos_token_id};
    options.sequence_length = (uint64_t)config->dataset.sequence_length;
    options.shard_tokens = (uint64_t)config->dataset.shard_tokens;
    options.validation_fraction = validation_fraction;
    options.max_left_out = config->dataset.max_left_out;
    options.packing = config->dataset.packing;
    options.deduplicate = config->dataset.deduplicate;
    options.minhash_bands = policy_options_of(config).minhash_bands;
    options.stopping = config->dataset.stopping_strategy;
    options.groups = config->dataset.sources.item, options.group_count = config->dataset.sources.count;
    options.source_path = path, options.source_group = group, options.sources = s->sources->count;
    options.runs = s->runs, options.load = load, options.arg = s;
    int code = dataset_plan_from_runs(out, &options);
    free(group);
    free(path);
    return code;
}

static int reckon_whole(struct plan_data *out, struct buf *out_warnings, struct sampling *s) {
    struct dataset_plan *plan;
    TRY(plan_of(&plan, s, s->config->dataset.validation_fraction));
    struct split_totals train = dataset_plan_totals(plan, false), validation = dataset_plan_totals(plan, true);
    struct manifest manifest = {0};
    dataset_plan_describe(plan, &manifest);
    int code = dataset_advice(out_warnings, &manifest, s->config);
    manifest_free(&manifest);
    dataset_plan_free(plan);
    TRY(code);
    out->tokens = (double)(train.tokens + validation.tokens);
    out->train_sequences = (double)train.sequences, out->validation_sequences = (double)validation.sequences;
    return 0;
}

/* Whole documents as they were packed, and torn ones by their tokens: with pad a sequence each, else as many as hold them. */
static int reckon_part(struct plan_data *out, struct sampling *s, double torn, double torn_files) {
    double T = (double)s->config->dataset.sequence_length, scale = s->weight / s->used, tokens = 0;
    bool pad = s->config->dataset.packing == PACKING_PAD;
    if (s->left_tokens > torn) {
        struct dataset_plan *plan;
        int code = plan_of(&plan, s, 0);
        if (code < 0 && torn == 0) return err_add(ERR_NOTFOUND, "of a sample"); /* all of the text may be better */
        if (code == 0) {
            struct split_totals train = dataset_plan_totals(plan, false), validation = dataset_plan_totals(plan, true);
            tokens = (double)(train.tokens + validation.tokens) * scale;
            out->validation_sequences = floor((double)validation.sequences * scale); /* entries with split: validation */
            dataset_plan_free(plan);
        }
    }
    tokens += pad ? torn_files * T : torn * scale;
    double sequences = floor(tokens / T) - out->validation_sequences, held = floor(sequences * s->config->dataset.validation_fraction);
    out->tokens = tokens;
    out->validation_sequences += held;
    out->train_sequences = fmax(1, sequences - held);
    return 0;
}

static int go_through(struct sampling *s, int (*each)(void *arg, const Millrace__TokenizeJob *job)) {
    const struct source_groups *groups = &s->config->dataset.sources;
    struct policy *policy;
    struct policy_options options = policy_options_of(s->config);
    TRY(policy_open(&policy, &options));
    bool whole_documents = policy_sees_whole(policy) || !tokenizer_cuts(s->tokenizer);
    policy_close(policy);
    struct job_source *list = mem_alloc((s->sources->count + 1) * sizeof *list);
    int code = 0;
    for (size_t i = 0; i < s->sources->count && code == 0; i++) {
        const struct source *source = &s->sources->source[i];
        list[i] = (struct job_source){
            .name = source->path, .size = source->size, .version = source->version, .file = (uint32_t)i, .group = source->group};
        code = source_look(&list[i], source);
    }
    if (code == 0) code = tokenize_jobs_plan(list, s->sources->count, groups->item, whole_documents, each, s);
    free(list);
    return code;
}

int plan_sample(struct plan_data *out, struct plan_sampled *out_how, struct buf *out_warnings, const struct config *config,
                const struct sources *sources, const struct tokenizer *tokenizer) {
    struct sampling s = {.config = config, .sources = sources, .tokenizer = tokenizer};
    double to_do = 0, torn = 0, torn_files = 0;
    for (size_t i = 0; i < sources->count; i++) {
        s.weight += (double)sources->source[i].size;
        to_do += (double)sources->source[i].size * (unpack_needed(sources->source[i].path) ? PACKED_WEIGHT : 1);
    }
    s.whole = to_do <= WHOLE_BYTES;
    struct plan_data data = {.source = PLAN_ESTIMATED, .token_bytes = tokenizer_token_bytes(tokenizer)};
    int code = encoder_open(&s.encoder, tokenizer);
    if (code == 0) code = go_through(&s, count_job);
    if (code == 0) code = go_through(&s, take_job);
    if (code == 0) code = sum_up(&s, &torn, &torn_files);
    if (code == 0) code = s.whole || s.used <= 0 ? reckon_whole(&data, out_warnings, &s) : reckon_part(&data, &s, torn, torn_files);
    if (code == 0) {
        data.text_bytes = s.whole || s.used <= 0 ? s.text : s.text * s.weight / s.used;
        data.dataset_bytes = data.tokens * data.token_bytes;
        *out = data;
        *out_how = (struct plan_sampled){.whole = s.whole};
        if (s.left_tokens > 0) out_how->bytes_a_token = s.text / s.left_tokens;
        if (s.seconds > 0) out_how->rate = s.text / s.seconds;
    }
    encoder_close(s.encoder);
    for (size_t i = 0; i < s.runs; i++) buf_free(&s.run[i].bytes), free(s.run[i].file);
    free(s.run);
    return code;
}
