/* The quality filters: Gopher's two and C4's, made for English web text. Each rule has its source and its constant beside it
 * (dataset/filter/quality.c); where a paper leaves a word open, the reading of Hugging
 * Face's datatrove, with which FineWeb was made, is taken, or it says why not. All arithmetic is on integers; words are
 * dataset/filter/words.h's, lengths are in characters.
 *
 *   gopher_quality, gopher_repetition   Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
 *                                       arXiv 2112.11446, A1.1 and Table A1
 *   c4                                  Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
 *                                       Transformer", JMLR 21 (140), section 2.2. Its list of bad words, its language detection and its
 *                                       removal of repeated spans of three sentences are not there */
#ifndef MILLRACE_DATASET_QUALITY_H
#define MILLRACE_DATASET_QUALITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "dataset/filter/verdict.h"

/* Each is given well-formed text. 1: the document passes; 0: it does not, and out->reason and out->detail say why; negative: no
 * memory. */
int quality_gopher(struct verdict *out, const uint8_t *text, size_t bytes);

/* Writes what is kept of the text to *kept, which is cleared before. */
int quality_c4(struct verdict *out, struct buf *kept, const uint8_t *text, size_t bytes);

/* Room for the lines or words of one document: 23 bytes for each of them, so 4 for each byte of English, 12 at most. Ticks each time that
 * it has gone through the text, and ends with ERR_INTERRUPTED when that says so. */
struct repetition;
struct repetition *repetition_open(void);
void repetition_close(struct repetition *repetition); /* NULL is fine */
int quality_repetition(struct repetition *repetition, struct verdict *out, const uint8_t *text, size_t bytes,
                       const struct policy_options *options);

/* Fills reason and detail; returns 0. */
int quality_left_out(struct verdict *out, const char *reason, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
