/* Self-tests: asks workers for the digest of theirs, and admits those to training whose arithmetic gives this run's bits.
 *
 * self_tests_load() when training begins, then self_tests_ask() for each worker that is there or comes, self_tests_take() with each
 * result, self_tests_tick() once a turn; self_tests_record() before the first step is committed. */
#ifndef MILLRACE_COORDINATOR_SELF_TESTS_H
#define MILLRACE_COORDINATOR_SELF_TESTS_H

#include <stdint.h>

#include "base/hash.h"
#include "proto/frame.h"

struct context;

enum { SELF_TESTS_BUILD_BYTES = 192 }; /* as a checkpoint's record has it */

void self_tests_open(struct context *c);
void self_tests_close(struct context *c);

void self_tests_ask(struct context *c, uint32_t worker);          /* ROSTER_PROVED comes from the roster once it fits */
void self_tests_take(struct context *c, uint32_t worker, const Millrace__SelfTestResult *answer);
void self_tests_tick(struct context *c, int64_t now_ms);
int self_tests_record(struct context *c);                         /* before the first step is committed */
int self_tests_load(struct context *c, uint64_t ledger);          /* ledger: steps on record */
void self_tests_tell(const struct context *c, uint8_t out_answer[SHA256_BYTES], char out_build[SELF_TESTS_BUILD_BYTES]);

#endif
