/* Makes a dataset of the sources in memory: of all of them, or of a sample. In that each entry of dataset.sources has its share of STEPS
 * equal steps through the bytes; a job gives as much text as it has steps, and stands for their bytes, however much of them it used: of
 * packed bytes less than of plain ones. A long document of which the sample has only some pieces is taken out of the sample's dataset and
 * estimated by its tokens. Entries are estimated apart, and then mixed by their weights. */
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
    WHOLE_TEXT_BYTES = 32 << 20,/* that may be in them: packed ones may hold thousands of times their bytes, and its ids are kept */
    PACKED_WEIGHT = 4,
    STEPS = 16,                 /* of the sample; more where there are more entries, for each has one */
    SAMPLE_BYTES = 8 << 20,     /* of text, shared out to them */
    PACKED_TEXT_BYTES = 4 << 20,/* at least of a packed job with up to STEPS of them: bzip2 takes a block of 900 kB before it gives any */
};

struct sample_run {
    struct buf bytes;           /* ids, table, seal */
    uint32_t *file;             /* of each part, by its number in the job */
    uint32_t group;             /* the entry that a job of the sample is of */
    double stands, used;        /* bytes of the sources: that it stands for, and that it took */
};

/* An entry of dataset.sources. */
struct entry {
    double bytes, done;         /* of its sources; of the jobs gone through so far */
    size_t steps, taken;
    double seen_documents, seen_tokens; /* that the sample has whole; with the token that ends each */
    double documents, tokens;   /* what these stand for */
    double torn_documents, torn_tokens; /* the same of the others */
    double stored, room;        /* tokens in the dataset, without padding and with it */
    double held;                /* share for validation */
};

struct sampling {
    const struct config *config;
    const struct sources *sources;
    const struct tokenizer *tokenizer;
    struct encoder *encoder;
    struct sample_run *run;
    size_t runs;
    bool whole;
    struct entry *entry;
    size_t steps;               /* of all entries */
    double used, read, seconds; /* bytes of the sources; of their text; how long it took */
    double text, tokens;        /* what that stands for */
};

/* ---- one job ---- */

static int collect(void *arg, const void *bytes, size_t size_bytes) { return buf_append(arg, bytes, size_bytes); }

static int add_run(struct sampling *s, struct ingest *ingest, Millrace__TokenizeResult *result, const Millrace__TokenizeJob *job,
                   double stands) {
    s->run = mem_resize(s->run, (s->runs + 1) * sizeof *s->run);
    struct sample_run *run = &s->run[s->runs++];
    *run = (struct sample_run){.group = job->parts[0]->group};
    run->file = mem_alloc((job->parts[job->n_parts - 1]->source + 1) * sizeof *run->file);
    for (size_t i = 0; i < job->n_parts; i++) run->file[job->parts[i]->source] = job->parts[i]->file;
    double began = clock_seconds();
    TRY(ingest_run(ingest, result, s->encoder, collect, &run->bytes));
    s->seconds += clock_seconds() - began;
    run->used = (double)result->source_bytes;
    run->stands = s->whole ? run->used : stands;
    s->used += run->used;
    Millrace__RunTable *t;
    TRY(token_run_table_parse(&t, run->bytes.data, run->bytes.size));
    s->read += (double)t->read_bytes;
    millrace__run_table__free_unpacked(t, NULL);
    return 0;
}

static bool is_too_much(const struct sampling *s) { return s->whole && s->read > WHOLE_TEXT_BYTES; }

static uint64_t text_due(const struct sampling *s, const Millrace__TokenizeJob *job, size_t steps) {
    uint64_t due = (uint64_t)SAMPLE_BYTES * steps / s->steps + 1, least = (uint64_t)PACKED_TEXT_BYTES * STEPS / s->steps;
    if (least > PACKED_TEXT_BYTES) least = PACKED_TEXT_BYTES;
    return due < least && unpack_needed(job->parts[0]->name) ? least : due;
}

/* Of a sample as much text as is due to its steps. */
static int do_job(struct sampling *s, const Millrace__TokenizeJob *job, size_t steps) {
    struct ingest_options options = {.tokenizer = s->tokenizer, .token_bytes = tokenizer_token_bytes(s->tokenizer)};
    options.groups = s->config->dataset.sources.item, options.group_count = s->config->dataset.sources.count;
    options.policy = policy_options_of(s->config);
    options.max_left_out = s->config->dataset.max_left_out;
    options.text_bytes = s->whole ? INGEST_TEXT_BYTES : text_due(s, job, steps);
    options.open = local_open_part, options.close = local_close_part;
    const struct entry *entry = &s->entry[job->parts[0]->group];
    struct ingest *ingest;
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    TRY(ingest_open(&ingest, &options, job));
    int code;
    do code = add_run(s, ingest, &result, job, entry->bytes * (double)steps / (double)entry->steps);
    while (code == 0 && s->whole && result.next && !is_too_much(s));
    ingest_close(ingest);
    return code;
}

/* Does it when the middles of steps lie in it. */
static int take_steps(struct sampling *s, const Millrace__TokenizeJob *job) {
    struct entry *entry = &s->entry[job->parts[0]->group];
    size_t before = entry->taken;
    for (size_t i = 0; i < job->n_parts; i++) entry->done += (double)(job->parts[i]->end - job->parts[i]->begin);
    while (entry->taken < entry->steps && entry->done >= ((double)entry->taken + 0.5) * entry->bytes / (double)entry->steps) entry->taken++;
    return entry->taken > before ? do_job(s, job, entry->taken - before) : 0;
}

/* Small files of several entries may be in one job: of the sample each entry has a job of its own. */
static int take_job(void *arg, const Millrace__TokenizeJob *job) {
    struct sampling *s = arg;
    if (s->whole) return is_too_much(s) ? 0 : do_job(s, job, 0);
    Millrace__TokenizeJob of_one = *job;
    for (size_t i = 0; i < job->n_parts; i += of_one.n_parts) {
        of_one.parts = job->parts + i, of_one.n_parts = 1;
        while (i + of_one.n_parts < job->n_parts && of_one.parts[of_one.n_parts]->group == of_one.parts[0]->group) of_one.n_parts++;
        TRY(take_steps(s, &of_one));
    }
    return 0;
}

/* ---- its table ---- */

static bool is_torn(const Millrace__RunTable *t, size_t i) { return t->flags[i] != (TOKEN_RUN_BEGINS | TOKEN_RUN_ENDS); }

/* A document of which a part is missing leaves the table. */
static void take_out(Millrace__RunTable *t, size_t i) {
    size_t after = t->n_source - i - 1, before = 0, bands = t->n_source ? t->bands.len / t->n_source : 0;
    for (size_t k = 0; k < i; k++) before += t->blocks[k];
    uint8_t *digest = t->digests.data + before * SHA256_BYTES;
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
    for (size_t i = t->n_source; i-- > 0;)
        if (is_torn(t, i)) take_out(t, i);
    return 0;
}

/* A torn document is counted as the part of its file that the piece stands for: all files of an entry are taken to be like it. */
static void add_piece(struct sampling *s, const struct sample_run *run, const Millrace__RunTable *t, size_t i) {
    struct entry *entry = &s->entry[run->group];
    double scale = run->stands / run->used, tokens = (double)t->piece_tokens[i];
    if (tokens == 0) return;
    if (is_torn(t, i)) {
        double share = fmin(1, (double)t->bytes[i] / (double)t->read_bytes);
        entry->torn_documents += run->stands * share / (double)s->sources->source[run->file[t->source[i]]].size;
        entry->torn_tokens += tokens * scale;
    } else {
        entry->seen_documents += 1, entry->seen_tokens += tokens + 1;
        entry->documents += scale, entry->tokens += (tokens + 1) * scale;
    }
}

static int sum_up(struct sampling *s) {
    for (size_t i = 0; i < s->runs; i++) {
        const struct sample_run *run = &s->run[i];
        if (run->used <= 0) continue;
        Millrace__RunTable *t;
        TRY(token_run_table_parse(&t, run->bytes.data, run->bytes.size));
        s->text += (double)t->read_bytes * run->stands / run->used;
        s->tokens += (double)t->tokens * run->stands / run->used;
        for (size_t k = 0; !s->whole && k < t->n_source; k++) add_piece(s, run, t, k);
        millrace__run_table__free_unpacked(t, NULL);
    }
    return 0;
}

/* ---- all of it ---- */

/* Of a sample: all for training and without weights, for it has other amounts of each entry; with concat a sequence may be longer than
 * what it has whole; and how many documents there are is not known where it tore any. */
static void ask_of_sample(struct plan_options *options, struct source_group *groups, bool torn) {
    memcpy(groups, options->groups, options->group_count * sizeof *groups);
    for (size_t g = 0; g < options->group_count; g++) groups[g].weight = 0, groups[g].split = SPLIT_TRAIN;
    options->groups = groups;
    options->validation_fraction = 0;
    if (options->packing == PACKING_CONCAT) options->sequence_length = 1;
    if (torn) options->max_left_out = 1;
}

static int plan_of(struct dataset_plan **out, struct sampling *s, bool whole, bool torn) {
    const struct config *config = s->config;
    uint32_t *group = mem_alloc((s->sources->count + 1) * sizeof *group);
    const char **path = mem_alloc((s->sources->count + 1) * sizeof *path);
    for (size_t i = 0; i < s->sources->count; i++) group[i] = s->sources->source[i].group, path[i] = s->sources->source[i].path;
    struct plan_options options = {.token_bytes = tokenizer_token_bytes(s->tokenizer), .eos = (uint32_t)config->model.eos_token_id};
    options.sequence_length = (uint64_t)config->dataset.sequence_length;
    options.shard_tokens = (uint64_t)config->dataset.shard_tokens;
    options.validation_fraction = config->dataset.validation_fraction;
    options.max_left_out = config->dataset.max_left_out;
    options.packing = config->dataset.packing;
    options.deduplicate = config->dataset.deduplicate;
    options.minhash_bands = policy_options_of(config).minhash_bands;
    options.stopping = config->dataset.stopping_strategy;
    options.groups = config->dataset.sources.item, options.group_count = config->dataset.sources.count;
    options.source_path = path, options.source_group = group, options.sources = s->sources->count;
    options.runs = s->runs, options.load = load, options.arg = s;
    struct source_group *groups = mem_alloc((options.group_count + 1) * sizeof *groups);
    if (!whole) ask_of_sample(&options, groups, torn);
    int code = dataset_plan_from_runs(out, &options);
    free(groups);
    free(group);
    free(path);
    return code;
}

static int reckon_whole(struct plan_data *out, struct buf *out_warnings, struct sampling *s) {
    struct dataset_plan *plan;
    TRY(plan_of(&plan, s, true, false));
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

/* Of the documents that the sample has whole, those that stay; *out_padded: how much more room they take than they have tokens. */
static int take_kept(struct sampling *s, double *out_padded) {
    double seen = 0, torn = 0;
    for (size_t g = 0; g < s->config->dataset.sources.count; g++) seen += s->entry[g].seen_tokens, torn += s->entry[g].torn_tokens;
    if (seen == 0 && torn > 0) return 0;
    struct dataset_plan *plan;
    if (plan_of(&plan, s, false, torn > 0) < 0) return err_add(ERR_NOTFOUND, "of a sample"); /* all of the text may be better */
    struct manifest manifest = {0};
    dataset_plan_describe(plan, &manifest);
    for (size_t g = 0; g < manifest.groups; g++) {
        struct entry *entry = &s->entry[g];
        if (entry->seen_tokens == 0) continue;
        entry->documents *= (double)manifest.group[g]->train_documents / entry->seen_documents;
        entry->tokens *= (double)manifest.group[g]->train_tokens / entry->seen_tokens;
    }
    *out_padded = (double)manifest.tokens / (double)(manifest.tokens - manifest.padding);
    manifest_free(&manifest);
    dataset_plan_free(plan);
    return 0;
}

/* With pad a sequence for each document, else as many as hold them. */
static void find_room(struct entry *entry, const struct source_group *group, const struct config *config, double padded) {
    double T = (double)config->dataset.sequence_length;
    bool pad = config->dataset.packing == PACKING_PAD;
    entry->stored = entry->tokens + (pad ? entry->torn_documents * T : entry->torn_tokens);
    entry->room = pad ? (entry->documents + entry->torn_documents) * T : entry->tokens * padded + entry->torn_tokens;
    entry->held = group->split == SPLIT_TRAIN ? 0 : group->split == SPLIT_VALIDATION ? 1 : config->dataset.validation_fraction;
}

static double share_of(const struct source_group *group) { return group->split == SPLIT_VALIDATION ? 0 : group->weight; }

/* How often an entry is used in training, and part of a time, where weights end the mix (dataset/plan/plan.h). */
static int mix(double *out_times, const struct sampling *s, const struct entry *entry, const struct source_group *group) {
    const struct source_groups *groups = &s->config->dataset.sources;
    bool first = s->config->dataset.stopping_strategy == STOPPING_FIRST_EXHAUSTED, weighted = false;
    double own = entry->stored * (1 - entry->held), end = 0;
    for (size_t g = 0; g < groups->count; g++) {
        double share = share_of(&groups->item[g]), is = s->entry[g].stored * (1 - s->entry[g].held) / share;
        if (share > 0 && (end == 0 || (first ? is < end : is > end))) end = is;
        weighted |= groups->item[g].weight > 0;
    }
    *out_times = !weighted ? 1 : own > 0 ? end * share_of(group) / own : 0;
    if (weighted && share_of(group) > 0 && own <= 0)
        return err_set(ERR_NOTFOUND, "dataset.sources: %s has a weight, but a sample of it has no text for training", group->name);
    if (*out_times <= PLAN_ROUNDS_MAX) return 0;
    return err_set(ERR_NOTFOUND, "dataset.sources: by a sample, %s would be repeated more than %d times until the others are used up",
                   group->name, PLAN_ROUNDS_MAX);
}

static int reckon_part(struct plan_data *out, struct sampling *s) {
    const struct source_groups *groups = &s->config->dataset.sources;
    double T = (double)s->config->dataset.sequence_length, padded = 1, train = 0, validation = 0;
    TRY(take_kept(s, &padded));
    for (size_t g = 0; g < groups->count; g++) find_room(&s->entry[g], &groups->item[g], s->config, padded);
    for (size_t g = 0; g < groups->count; g++) {
        const struct entry *entry = &s->entry[g];
        double times;
        TRY(mix(&times, s, entry, &groups->item[g]));
        train += entry->room * (1 - entry->held) * times;
        validation += entry->room * entry->held;
    }
    out->tokens = train + validation;
    out->validation_sequences = floor(validation / T);
    out->train_sequences = fmax(1, floor(train / T));
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

/* Each entry has its share of the steps, and one at least. */
static void share_steps(struct sampling *s) {
    double all = 0;
    for (size_t i = 0; i < s->sources->count; i++) all += (double)s->sources->source[i].size;
    for (size_t i = 0; i < s->sources->count; i++) s->entry[s->sources->source[i].group].bytes += (double)s->sources->source[i].size;
    for (size_t g = 0; g < s->config->dataset.sources.count; g++) {
        struct entry *entry = &s->entry[g];
        if (entry->bytes > 0) entry->steps = (size_t)fmax(1, round(STEPS * entry->bytes / all));
        s->steps += entry->steps;
    }
}

static void forget(struct sampling *s) {
    for (size_t i = 0; i < s->runs; i++) buf_free(&s->run[i].bytes), free(s->run[i].file);
    free(s->run);
    s->run = NULL, s->runs = 0;
    s->used = s->read = s->seconds = 0;
}

/* What shows only now to be too much to be done whole is begun anew, as a sample. */
static int go_as_far_as_wanted(struct sampling *s) {
    TRY(go_through(s, take_job));
    if (!is_too_much(s)) return 0;
    forget(s);
    s->whole = false;
    return go_through(s, take_job);
}

int plan_sample(struct plan_data *out, struct plan_sampled *out_how, struct buf *out_warnings, const struct config *config,
                const struct sources *sources, const struct tokenizer *tokenizer) {
    struct sampling s = {.config = config, .sources = sources, .tokenizer = tokenizer};
    double to_do = 0;
    for (size_t i = 0; i < sources->count; i++)
        to_do += (double)sources->source[i].size * (unpack_needed(sources->source[i].path) ? PACKED_WEIGHT : 1);
    s.whole = to_do <= WHOLE_BYTES;
    s.entry = mem_alloc((config->dataset.sources.count + 1) * sizeof *s.entry);
    share_steps(&s);
    struct plan_data data = {.source = PLAN_ESTIMATED, .token_bytes = tokenizer_token_bytes(tokenizer)};
    int code = encoder_open(&s.encoder, tokenizer);
    if (code == 0) code = go_as_far_as_wanted(&s);
    if (code == 0) code = sum_up(&s);
    if (code == 0) code = s.whole || s.used <= 0 ? reckon_whole(&data, out_warnings, &s) : reckon_part(&data, &s);
    if (code == 0) {
        data.text_bytes = s.text;
        data.dataset_bytes = data.tokens * data.token_bytes;
        *out = data;
        *out_how = (struct plan_sampled){.whole = s.whole};
        if (s.tokens > 0) out_how->bytes_a_token = s.text / s.tokens;
        if (s.seconds > 0) out_how->rate = s.read / s.seconds;
    }
    encoder_close(s.encoder);
    forget(&s);
    free(s.entry);
    return code;
}
