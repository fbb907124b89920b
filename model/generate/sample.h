/* Choosing the next token from logits. Deterministic: no library function whose last bit differs between machines decides. */
#ifndef MILLRACE_MODEL_SAMPLE_H
#define MILLRACE_MODEL_SAMPLE_H

#include <stdint.h>

#include "model/generate/generate.h"

/* The highest logit; ties go to the lowest id. -1 when a logit is NaN or none is finite. */
int32_t sample_greedy(const float *logits, int count);

/* Draws by temperature, then top-k, then top-p, in the order of transformers' warpers. Logits are overwritten; order has room for count
 * ids. uniform is in [0, 1). -1 as above. Among equal logits top-k and top-p take the lower ids first. */
int32_t sample_draw(float *logits, int32_t *order, int count, const struct generate_options *options, double uniform);

#endif
