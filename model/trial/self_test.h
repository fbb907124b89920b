/* Does this machine compute the same bits as another? A short computation at the pipeline's own shapes whose digest answers it. */
#ifndef MILLRACE_MODEL_SELF_TEST_H
#define MILLRACE_MODEL_SELF_TEST_H

#include "base/hash.h"
#include "base/pool.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"

/* The digest of a self-test: one gradient of one sequence and two steps of the optimizer at these shapes (its kind and what it keeps are
 * asked for; its betas, epsilon, weight decay and learning rate are constants). Equal digests mean equal bits of these. The sum over slices
 * is no part of it: that all add up along the same tree follows from the protocol's version alone. ERR_MEMORY. */
int self_test(uint8_t out[SHA256_BYTES], const struct gpt2_config *config, const struct optimizer *optimizer, int sequence_length,
              struct pool *pool);

#endif
