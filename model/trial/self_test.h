/* Does this machine compute the same bits as another? A short computation at the pipeline's own shapes whose digest answers it. */
#ifndef MILLRACE_MODEL_SELF_TEST_H
#define MILLRACE_MODEL_SELF_TEST_H

#include "base/hash.h"
#include "base/pool.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"

/* The digest of a self-test: one gradient of one sequence and two steps of the optimizer at these shapes. Of the optimizer these are the
 * pipeline's: its kind, the type of its moments, momentum, nesterov and the average's decay. Seed, betas, epsilon, weight decay and
 * learning rate are constants. Equal digests mean equal bits of these. The sum over slices is no part of it: that all add up along the same
 * tree follows from the protocol's version alone. ERR_MEMORY. */
int self_test(uint8_t out[SHA256_BYTES], const struct gpt2_config *config, const struct optimizer *optimizer, int sequence_length,
              struct pool *pool);

#endif
