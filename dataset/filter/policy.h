/* What becomes of a document's text before it is tokenized: kept as it is, changed, or left out, each for a reason that is counted.
 * Pure: the answer follows from the text and the options alone.
 *
 * The steps, in this order; the first that leaves the document out is its reason:
 *
 *   invalid_utf8     replaced by U+FFFD (dataset/unicode/utf8.h), or left out, or the end of the run
 *   normalization    NFC, NFD, NFKC, NFKD (dataset/unicode/unicode.h)
 *   c4               lines that it removes are gone for all that follows (dataset/filter/quality.h)
 *   min_characters, max_characters   code points of what is left
 *   gopher_quality, gopher_repetition  (dataset/filter/quality.h)
 *   bands            MinHash of the final text (dataset/filter/minhash.h)
 *
 * Reasons are "invalid_utf8", "min_characters", "max_characters", "FILTER: RULE" ("c4: sentences"), and "too_long" when replacing or
 * normalizing makes a text longer than POLICY_DOCUMENT_BYTES_MAX. Time is linear in the text. Memory: up to one text of that size for
 * each of the first three steps that changes it; 12 times the text while one of nothing but combining marks is normalized; 12 times the
 * text for gopher_repetition, 4 times where it is English. Nothing is given back before policy_close(). */
#ifndef MILLRACE_DATASET_POLICY_H
#define MILLRACE_DATASET_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/filter/verdict.h"

struct policy;
int policy_open(struct policy **out, const struct policy_options *options);
/* Must it see whole documents? If not, text may go straight to the tokenizer, in parts of any size. */
bool policy_sees_whole(const struct policy *policy);
/* ERR_CONFIG only with UTF8_REFUSE, naming the byte; ERR_INTERRUPTED by the tick. bytes <= POLICY_DOCUMENT_BYTES_MAX. */
int policy_judge(struct policy *policy, struct verdict *out, const void *text, size_t bytes);
void policy_close(struct policy *policy);

#endif
