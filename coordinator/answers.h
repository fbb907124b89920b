/* Known answers: asks for them, and takes those into training whose arithmetic gives this run's bits. */
#ifndef MILLRACE_COORDINATOR_ANSWERS_H
#define MILLRACE_COORDINATOR_ANSWERS_H

#include <stdint.h>

#include "base/hash.h"
#include "proto/frame.h"

struct context;

enum { ANSWERS_BUILD_BYTES = 192 }; /* as a checkpoint's record has it */

void answers_open(struct context *c);
void answers_close(struct context *c);

void answers_ask(struct context *c, uint32_t worker);          /* once it fits, the roster tells of ROSTER_PROVED */
void answers_take(struct context *c, uint32_t worker, const Millrace__Answer *answer);
void answers_tick(struct context *c, int64_t now_ms);
int answers_record(struct context *c);                         /* before the first step is committed */
int answers_load(struct context *c, uint64_t ledger);          /* ledger: steps on record */
void answers_tell(const struct context *c, uint8_t out_answer[SHA256_BYTES], char out_build[ANSWERS_BUILD_BYTES]);

#endif
