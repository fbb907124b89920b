/* Looks at the disk and at this machine, with a short reading and measuring. Changes nothing on the disk. */
#include "cli/plan_look.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "cli/options.h"
#include "cli/plan_sample.h"
#include "coordinator/coordinator.h"
#include "dataset/plan/advice.h"
#include "dataset/shard/manifest.h"
#include "dataset/source/sources.h"

#define CALIBRATION_SECONDS 10.0

enum { EXIT_REFUSED = 2 };

/* The dataset that is there if it has sequences as they are to be. */
static bool count_dataset(struct plan_look *out, const struct config *config) {
    bool prepared = *config->dataset.prepared;
    char *folder = prepared ? mem_text(config->dataset.prepared) : mem_format("%s/dataset", config->output_dir);
    struct manifest m;
    int code = manifest_read(&m, folder);
    bool fits = code == 0 && m.sequence_length == (uint64_t)config->dataset.sequence_length;
    if (fits) {
        out->data = (struct plan_data){.source = PLAN_MANIFEST,
                                       .tokens = (double)m.tokens,
                                       .token_bytes = m.token_bytes,
                                       .train_sequences = (double)m.train_sequences,
                                       .validation_sequences = (double)(m.sequences - m.train_sequences)};
        if (!prepared && dataset_advice(&out->warnings, &m, config) < 0) buf_clear(&out->warnings);
        for (size_t i = 0; i < m.shards; i++) out->data.dataset_bytes += (double)m.shard[i].file_bytes;
    } else if (prepared)
        snprintf(out->note, sizeof out->note, "%s", code < 0 ? err_text() : "the prepared dataset has sequences of another length");
    if (code == 0) manifest_free(&m);
    free(folder);
    return fits || prepared;
}

/* What a run would do with it. What would be refused is counted as it is there, and said. */
static bool look_at_dataset(struct plan_look *out, const struct config *config, const struct tokenizer *tokenizer) {
    struct coordinator_preview found;
    int code = coordinator_preview(&found, config, tokenizer);
    if (code == 0) out->steps_done = found.steps, out->steps_saved = found.saved;
    if (code == 0 && found.restarts)
        code = buf_print(&out->warnings,
                         "a restart was begun in %s and did not end: run goes on with it, removes what is left of the earlier run and "
                         "begins from nothing\n",
                         config->output_dir);
    if (code < 0) snprintf(out->note, sizeof out->note, "what a run would do with %s is not known: %s", config->output_dir, err_text());
    else if (found.refused < 0) {
        out->refused = found.refused;
        snprintf(out->refusal, sizeof out->refusal, "%s", found.refusal);
    } else if (!found.has_dataset) return false;
    return count_dataset(out, config);
}

static bool has_standard_input(const struct config *config) {
    for (size_t i = 0; i < config->dataset.sources.count; i++)
        for (size_t k = 0; k < config->dataset.sources.item[i].paths.count; k++)
            if (strcmp(config->dataset.sources.item[i].paths.item[k], "-") == 0) return true;
    return false;
}

static int look_at_sources(struct plan_look *out, const struct config *config, const struct tokenizer *tokenizer) {
    struct sources sources = {0};
    struct plan_sampled how = {0};
    const struct sources_own own = {.output_dir = config->output_dir, .file = config->file};
    int found = sources_find(&sources, config->dataset.sources.item, config->dataset.sources.count, &own);
    if (found == 0) found = manifest_check_sources(&sources);
    int code = found < 0 ? found : plan_sample(&out->data, &how, &out->warnings, config, &sources, tokenizer);
    if (found < 0 && err_exit_code(found) == EXIT_REFUSED) {
        out->refused = code;
        snprintf(out->refusal, sizeof out->refusal, "%s", err_text());
        snprintf(out->note, sizeof out->note, "its sources cannot be used");
    } else if (code < 0) {
        snprintf(out->note, sizeof out->note, "%s", err_text());
    } else {
        out->tokenize_rate = how.rate;
        out->whole = how.whole;
        snprintf(out->note, sizeof out->note, "%s source file%s, %s, at %.2f bytes a token", text_count(sources.count),
                 plural(sources.count), how.whole ? "read whole" : "by a sample of some MiB", how.bytes_a_token);
    }
    sources_free(&sources);
    return found == 0 && code == ERR_CONFIG ? code : 0; /* a server may answer another time */
}

int plan_look_at_data(struct plan_look *out, const struct config *config, const struct tokenizer *tokenizer) {
    *out = (struct plan_look){0};
    if (look_at_dataset(out, config, tokenizer)) return 0;
    if (!has_standard_input(config)) return look_at_sources(out, config, tokenizer);
    snprintf(out->note, sizeof out->note, "standard input is read when the pipeline runs");
    return 0;
}

void plan_look_free(struct plan_look *look) { buf_free(&look->warnings); }

int plan_calibrate(struct calibration *out, const struct plan *plan, const struct config *config) {
    int64_t cores = cores_available(), threads = plan->busy_workers * plan->threads;
    return calibrate(out, &(struct calibration_options){
                              .model = plan->shape.model,
                              .optimizer = plan->shape.optimizer,
                              .batch = (int)plan->batch,
                              .sequence_length = (int)config->dataset.sequence_length,
                              .threads = (int)(threads < cores ? threads : cores),
                              .encoding = config->cluster.compression == COMPRESSION_NONE ? FRAME_NONE : FRAME_PLANES_ZSTD,
                              .seconds = CALIBRATION_SECONDS,
                          });
}
