/* A run's state: what all workers agree on after every step. It is some vectors of N elements, those of optimizer_parts(), each at its
 * place in void *state[STATE_PARTS]; wherever they are sent, digested or stored they come in the order of enum state_part. Its numbers are
 * on the wire (Read.a of STATE): append only. */
#ifndef MILLRACE_MODEL_STATE_H
#define MILLRACE_MODEL_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/pool.h"
#include "config/config.h"

/* Who treats parts differently has a switch without a default: so the compiler names the places that a new part has to be told to. */
enum state_part { STATE_WEIGHTS, STATE_MOMENT1, STATE_MOMENT2, STATE_EMA, STATE_PARTS };

/* The vectors that a state has, in the order of enum state_part. Weights and their average are of float32. */
struct state_parts {
    size_t count;
    enum state_part part[STATE_PARTS];
    enum moments_type moments_type; /* of their elements */
};

bool state_is_moment(enum state_part part);
size_t state_element_bytes(const struct state_parts *parts, enum state_part part);
const char *state_dtype(const struct state_parts *parts, enum state_part part); /* as safetensors files call it: F32, BF16 */
size_t state_bytes_per_element(const struct state_parts *parts); /* one of every part */
size_t state_moments(const struct state_parts *parts);

/* What comes before the tensors' names in a file of that part, by the number of moments alone: "exp_avg." and "exp_avg_sq." of two, as
 * torch.optim's Adam has them, "momentum_buffer." of one, as its SGD; "" for weights and average. */
const char *state_prefix(enum state_part part, size_t moments);

/* The parts that there are, zeroed; the others stay NULL, as all were before. ERR_MEMORY. state_close() is due in any case. */
int state_open(void *state[STATE_PARTS], const struct state_parts *parts, size_t elements);
void state_close(void *state[STATE_PARTS]);

/* The place of one element. */
void *state_at(void *const state[STATE_PARTS], const struct state_parts *parts, enum state_part part, size_t element);

/* XXH3-128 over the XXH3-128 digests of the segments (SEGMENT_ELEMENTS each) of each vector, in order: of vectors of floats, such
 * as the gradient alone, or of the state. Allocates nothing: so many segments at a time have their results on the stack. */
enum { SEGMENTS_AT_ONCE = 128 };
void vectors_digest(uint8_t out[XXH128_BYTES], const float *const *vectors, size_t vector_count, size_t elements, struct pool *pool);
void state_digest(uint8_t out[XXH128_BYTES], void *const state[STATE_PARTS], const struct state_parts *parts, size_t elements,
                  struct pool *pool);

#endif
