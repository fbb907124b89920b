/* Looks, reads a little, measures a little; changes nothing on the disk. */
#include "cli/plan_look.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/options.h"
#include "dataset/dataset.h"
#include "dataset/sources.h"
#include "dataset/unpack.h"

enum {
    SAMPLE_BYTES = 4 << 20,
    PIECE_BYTES = 64 << 10,
};
#define SAMPLE_SECONDS 1.0
#define CALIBRATION_SECONDS 10.0
#define BYTES_A_TOKEN 4.0 /* English with GPT-2's vocabulary has a little more */

static bool look_at_dataset(struct plan_look *out, const struct config *config) {
    bool prepared = *config->dataset.prepared;
    char *folder = prepared ? mem_text(config->dataset.prepared) : mem_format("%s/dataset", config->output_dir);
    struct manifest m;
    int code = manifest_read(&m, folder);
    bool fits = code == 0 && m.sequence_length == (uint64_t)config->dataset.sequence_length;
    if (fits) {
        out->data = (struct plan_data){.source = PLAN_MANIFEST,
                                       .tokens = (double)m.tokens,
                                       .train_sequences = (double)m.train_sequences,
                                       .validation_sequences = (double)(m.sequences - m.train_sequences)};
        for (size_t i = 0; i < m.shards; i++) out->data.dataset_bytes += (double)m.shard[i].file_bytes;
    } else if (prepared)
        snprintf(out->note, sizeof out->note, "%s", code < 0 ? err_text() : "the prepared dataset has sequences of another length");
    if (code == 0) manifest_free(&m);
    free(folder);
    return fits || prepared;
}

static bool has_standard_input(const struct config *config) {
    for (size_t i = 0; i < config->dataset.sources.count; i++)
        for (size_t k = 0; k < config->dataset.sources.item[i].paths.count; k++)
            if (strcmp(config->dataset.sources.item[i].paths.item[k], "-") == 0) return true;
    return false;
}

/* Text that is read as it lies, so that its size tells how many tokens it has. */
static const struct source *plain_source(const struct sources *sources) {
    for (size_t i = 0; i < sources->count; i++)
        if (!sources->source[i].is_url && sources->source[i].size > 0) return &sources->source[i];
    return NULL;
}

static int tokenize_sample(struct plan_look *out, double *bytes_a_token, const struct tokenizer *tokenizer, const char *path) {
    uint8_t *text = mem_alloc(SAMPLE_BYTES);
    struct encoder *encoder = NULL;
    struct ids ids = {0};
    size_t size = 0, done = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC), code = fd < 0 ? err_errno("open %s", path) : 0;
    if (code == 0) code = file_read_at(fd, text, &size, SAMPLE_BYTES, 0);
    if (code == 0) code = encoder_open(&encoder, tokenizer);
    double began = clock_seconds();
    while (code == 0 && done < size && clock_seconds() - began < SAMPLE_SECONDS) {
        size_t piece = size - done < PIECE_BYTES ? size - done : PIECE_BYTES;
        code = encoder_feed(encoder, &ids, text + done, piece);
        done += piece;
    }
    if (code == 0) code = encoder_finish(encoder, &ids);
    if (code == 0 && ids.count) {
        *bytes_a_token = (double)done / (double)ids.count;
        out->tokenize_rate = (double)done / (clock_seconds() - began);
    }
    encoder_close(encoder);
    ids_free(&ids);
    free(text);
    if (fd >= 0) close(fd);
    return code;
}

static void look_at_sources(struct plan_look *out, const struct config *config, const struct tokenizer *tokenizer, bool sample) {
    struct sources sources = {0};
    double bytes = 0, bytes_a_token = BYTES_A_TOKEN;
    bool packed = false;
    const struct sources_own own = {.output_dir = config->output_dir, .file = config->file};
    if (sources_find(&sources, config->dataset.sources.item, config->dataset.sources.count, &own) < 0) {
        snprintf(out->note, sizeof out->note, "%s", err_text());
        return;
    }
    for (size_t i = 0; i < sources.count; i++) {
        bytes += (double)sources.source[i].size;
        packed = packed || unpack_needed(sources.source[i].path);
    }
    const struct source *first = plain_source(&sources);
    int code = 0;
    if (packed) snprintf(out->note, sizeof out->note, "compressed sources tell their size only when they are read");
    else if (sample && first) code = tokenize_sample(out, &bytes_a_token, tokenizer, first->path);
    if (!packed) out->data = plan_estimate(config, bytes, bytes_a_token);
    if (code < 0) snprintf(out->note, sizeof out->note, "%s", err_text());
    else if (!packed) snprintf(out->note, sizeof out->note, "%zu sources at %.2f bytes a token", sources.count, bytes_a_token);
    sources_free(&sources);
}

void plan_look_at_data(struct plan_look *out, const struct config *config, const struct tokenizer *tokenizer, bool sample) {
    *out = (struct plan_look){0};
    if (look_at_dataset(out, config)) return;
    if (has_standard_input(config)) snprintf(out->note, sizeof out->note, "standard input is read when the pipeline runs");
    else look_at_sources(out, config, tokenizer, sample);
}

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
