/* What the coordinator's files share: one struct that coordinator.c opens and hands to everybody. The files lie in a strict order
 * (tests/repo/test_layers.py), each includes only those before it; what a part has to tell to files after it, it keeps as an event until
 * the loop asks. The loop's thread alone touches all of this, but for what a task for files was given (files.h). */
#ifndef MILLRACE_COORDINATOR_CONTEXT_H
#define MILLRACE_COORDINATOR_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "coordinator/files.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/state.h"
#include "proto/link.h"
#include "proto/reads.h"

enum stage { STAGE_TOKENIZE, STAGE_PACK, STAGE_TRAIN, STAGE_DONE, STAGE_FAILED };

enum pause { PAUSED_CHECKPOINT, PAUSED_JOBS, PAUSES }; /* saving.c's, and dispatch.c's: nobody clears another one's reason */

struct progress {                  /* of a stage, for people */
    uint64_t done, total;
    int64_t began_ms;
    uint64_t done_at_start;
};

/* The run: what every part needs, and no part owns. */
struct context {
    struct coordinator_options options;
    const struct config *config;
    struct store *store;
    struct link *link;
    struct files *files;
    struct reads reads;            /* questions to workers: outputs, states */
    bool previews;                 /* in coordinator_preview(): the store is a copy, and events are not logged */
    char *state_folder, *dataset_folder, *runs_folder;
    uint64_t run, generation;
    bool prepared;                 /* the dataset was made before, elsewhere: dataset.prepared */
    bool whole_documents;          /* a document that is a file must not be divided: the text policy or the tokenizer sees all of it */

    struct tokenizer *tokenizer;
    uint32_t token_bytes;          /* 2 or 4, as the tokenizer's ids need */
    uint8_t tokenizer_digest[SHA256_BYTES];
    struct gpt2_config model;
    struct state_parts parts;      /* of its training state */

    enum stage stage, failed_in;   /* failed_in: the stage that failed */
    struct progress progress;
    struct remade {                /* a dataset that is made with what is there of an earlier one */
        char why[2048];            /* what became of the sources; empty: nothing */
        uint64_t jobs_kept, shards_kept, jobs;
    } remade;
    bool restarted;                /* by finishing a restart that was begun before, and did not end */
    bool stopping, ended;
    int outcome;                   /* of coordinator_run(), once `ended` */
    char reason[ERR_TEXT_BYTES];
    struct buf lost;               /* lines: records that were lost, checkpoints that are damaged; warnings of status and result */
    char paused_why[PAUSES][640];  /* why jobs or a checkpoint wait; empty: they do not. For people: paused_why() */

    struct trainer *trainer;       /* NULL: training has not begun */
    uint64_t max_steps, train_sequences, validation_sequences;
    char *newest_path;             /* of the newest checkpoint; NULL: none */
    uint8_t weights_digest[SHA256_BYTES]; /* of it */
    uint8_t run_digest[SHA256_BYTES];  /* of all that results follow from, but for the run's length: checkpoints carry it */

    struct worker_entry *worker;   /* who is there (roster.h) */
    size_t workers;
    const struct sources *sources; /* files (sourcing.h) */
    struct dataset *dataset;       /* dataset.h */

    /* What the parts keep for themselves: each is known to its own file alone. */
    struct roster *roster;
    struct self_tests *self_tests;
    struct download *download;
    struct dispatch *dispatch;
    struct evaluating *evaluating;
    struct sourcing *sourcing;
    struct runs *runs;
    struct packing_stage *packing;
    struct repair *repair;
    struct doubts *doubts;
    struct metrics *metrics;
    struct saving *saving;
    struct training *training;
    struct serving *serving;
    struct checking *checking;
    struct waiting *waiting;
    struct status_text *status_text;
};

const char *stage_name(enum stage stage);
void context_name(struct context *c, const struct config *config);  /* the folders and files of an empty one */
void context_forget_names(struct context *c);
void fail_pipeline(struct context *c, int code);   /* with err_text() as the reason */
const char *paused_why(const struct context *c);  /* the first reason that there is; empty: nothing waits */
void note_event(struct context *c, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same of what is lost or damaged: it is kept for status and result. */
void note_lost(struct context *c, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
uint64_t fence_of(const struct context *c, uint64_t low);  /* generation << 32 | low */

#endif
