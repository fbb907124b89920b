/* What the coordinator must not forget: one SQLite file in output_dir/state/ (WAL, synchronous=FULL, one process, one connection, the
 * loop's thread). Only store.c and store_check.c know SQLite. Others hear of a thing only after store_commit().
 *
 * store_open() first, store_close() last. What is done between store_begin() and store_commit() is one transaction; a call outside of them
 * is one by itself. Strings and blobs that are handed out belong to the caller (free()). */
#ifndef MILLRACE_COORDINATOR_STORE_H
#define MILLRACE_COORDINATOR_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"

struct store;

/* What could not be read back as it was written: those rows are gone, and the damaged file is kept as millrace.db.damaged. It stays on
 * record until store_damage_settled(): whoever opens the store decides what it means. */
enum store_table { STORE_NAMED, STORE_JOBS, STORE_MEMOS, STORE_STEPS, STORE_EVALUATIONS, STORE_EVENTS, STORE_TABLES };
struct store_damage {
    bool found;
    bool lost[STORE_TABLES];           /* rows of this table */
    uint64_t bad_rows[STORE_TABLES];   /* how many, at least */
};
const char *store_table_name(enum store_table table);

/* Makes the folder. ERR_IO naming the other's pid when another coordinator has it open. */
int store_open(struct store **out, const char *folder);
/* A copy of it as it is at one moment, for who only looks: nothing is written, made or locked in the folder, and a coordinator may be at
 * work there. What is done to the copy is lost when it is closed. An empty one when there is no store. */
int store_open_copy(struct store **out, const char *folder);
int store_damage(struct store *store, struct store_damage *out);
int store_damage_settled(struct store *store);
void store_close(struct store *store);
/* ERR_NOTFOUND once the store's file is not under its name any more: moved, removed, replaced or covered. What is recorded then goes where
 * nobody will look for it. */
int store_in_place(struct store *store);
int store_begin(struct store *store);
int store_commit(struct store *store);      /* on failure nothing of it is kept, and it is over */
/* Moves what SQLite's log holds into the database, and empties the log: a damaged log then costs what came after, and no more. A failure
 * loses nothing. */
void store_settle(struct store *store);
int store_forget_all(struct store *store);  /* empties every table but the memos */
void store_cancel(struct store *store);  /* rolls back; fine when nothing was begun */

/* Named values: the generation, the pipeline, the sources, ... */
int store_set(struct store *store, const char *name, const void *value, size_t size_bytes);
int store_set_number(struct store *store, const char *name, uint64_t value);
int store_get(struct store *store, const char *name, struct buf *out);  /* 1: appended, 0: no such name */
int store_get_number(struct store *store, const char *name, uint64_t *out);
/* Is the value of that name this one? 1: it is, or there is none (an earlier version recorded none); 0: it is another. */
int store_agrees(struct store *store, const char *name, const void *value, size_t size_bytes);

/* Jobs of a stage, numbered from 0. They stay, with their results, until the dataset is planned anew: repair.c reads them. */
int store_job_add(struct store *store, const char *stage, uint64_t number, const void *spec, size_t spec_bytes);
int store_job_done(struct store *store, const char *stage, uint64_t number, const char *worker, const void *result, size_t result_bytes);
int store_job_failed(struct store *store, const char *stage, uint64_t number, const char *worker, const char *reason);
int store_jobs_drop(struct store *store, const char *stage);
int store_job_count(struct store *store, const char *stage, uint64_t *out);
/* Calls each() for every job that failed before and is not done, with how often. */
int store_job_failures(struct store *store, const char *stage, int (*each)(void *arg, uint64_t number, uint64_t failures), void *arg);
/* Calls each() for every job in order; result is NULL when the job is not done. */
int store_jobs(struct store *store, const char *stage,
               int (*each)(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes),
               void *arg);

/* Results that outlive their job, by the SHA-256 of everything they follow from: until a dataset is finished, when runs_sweep() drops all
 * but those that it is told of. */
int store_memo_put(struct store *store, const uint8_t key[SHA256_BYTES], const void *result, size_t result_bytes);
int store_memo_get(struct store *store, const uint8_t key[SHA256_BYTES], struct buf *out);  /* 1: appended, 0: none */
int store_memo_drop(struct store *store, const uint8_t key[SHA256_BYTES]);
/* Calls each() for every key; it may drop that key. */
int store_memos(struct store *store, int (*each)(void *arg, const uint8_t key[SHA256_BYTES]), void *arg);

/* The ledger: one row for each committed step. After the loss of rows (lost_rows.h) some before the newest checkpoint may be missing, or be
 * filled in from what is left: with tokens 0, or as many as a step has at most. */
struct step_row {
    uint64_t step, tokens; /* tokens: targets that count in the mean */
    uint8_t gradient[XXH128_BYTES];
    double loss, learning_rate, gradient_norm,
        seconds; /* mean loss in nats; norm of the mean gradient, before clipping; time since the step before */
    bool skipped;
};
int store_step_add(struct store *store, const struct step_row *row);
int store_steps(struct store *store, int (*each)(void *arg, const struct step_row *row), void *arg);  /* those not superseded, ascending */
int store_step_newest(struct store *store, uint64_t *out);                   /* 0: none */
/* How many steps had no finite gradient, also before a roll-back; the newest one. A step without a target that counts is none of them. */
int store_steps_bad(struct store *store, uint64_t *out_count, uint64_t *out_newest);
int store_steps_drop(struct store *store, uint64_t after_step);              /* for good: as if they had never been */
int store_steps_supersede(struct store *store, uint64_t after_step);         /* rows and evaluations after it */
/* The step came out otherwise than before: this row is what a replay is compared with now, and steps after it, which followed from the row
 * before, with nothing. */
int store_step_disputed(struct store *store, const struct step_row *row);
int store_step_superseded(struct store *store, uint64_t step, uint8_t out_gradient[XXH128_BYTES]);  /* 1: there was such a row, 0: no */

struct evaluation_row {
    uint64_t step, tokens;
    double loss;
};
int store_evaluation_add(struct store *store, const struct evaluation_row *row);
int store_evaluations(struct store *store, int (*each)(void *arg, const struct evaluation_row *row), void *arg);

/* What happened, for people: nothing that is decided follows from it. The newest ones stay, so that starts, which look at every row, do not
 * take longer and longer where workers come and go for weeks. */
enum { STORE_EVENTS_KEPT = 100000 };
int store_event(struct store *store, const char *kind, const char *text);

#endif
