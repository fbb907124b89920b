/* What the coordinator's files share. The thread of the loop alone touches it, but for what a task for files was given (files.h). */
#ifndef MILLRACE_COORDINATOR_INTERNAL_H
#define MILLRACE_COORDINATOR_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "config/config.h"
#include "coordinator/answers.h"
#include "coordinator/coordinator.h"
#include "coordinator/download.h"
#include "coordinator/evaluating.h"
#include "coordinator/files.h"
#include "coordinator/dispatch.h"
#include "coordinator/metrics.h"
#include "coordinator/queue.h"
#include "coordinator/roster.h"
#include "coordinator/runs.h"
#include "coordinator/saving.h"
#include "coordinator/sourcing.h"
#include "coordinator/spool.h"
#include "coordinator/stall.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "dataset/plan/plan.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"
#include "dataset/source/sources.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/trainer_state.h"
#include "model/gpt2/gpt2.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "proto/reads.h"
#include "proto/session.h"

enum {
    JOINS_FAILED_MAX = 8,          /* in a row; from the second on another member alone is read from each time */
    STATUS_FRESH_MS = 50,          /* for which a printed status is given to whoever asks; people do not read faster */
    STATUS_ANSWERS_MAX = 16,       /* in one turn of the loop: each packs a text of some 100 KiB, with many workers */
};

enum stage { STAGE_TOKENIZE, STAGE_PACK, STAGE_TRAIN, STAGE_DONE, STAGE_FAILED };

struct progress {                  /* of a stage, for people */
    uint64_t done, total;
    int64_t began_ms;
    uint64_t done_at_start;
};

/* A dataset that is there, while it is looked through before it is used. */
struct looking {
    bool active;
    size_t posted, done;           /* shards */
};

/* What the steps on record were trained on (trained.c). */
struct trained {
    bool known, whole;             /* known: the digest; whole: all of it, which earlier versions did not record */
    uint64_t steps;                /* on record; 0: none, and the rest tells what was about to be trained on */
    uint8_t digest[SHA256_BYTES], layout[SHA256_BYTES];  /* of the dataset */
    uint8_t tokenizer[SHA256_BYTES];
    uint64_t train_sequences, sequences;
};

struct context {
    struct coordinator_options options;
    const struct config *config;
    struct gpt2_config model;
    struct state_parts parts;      /* of its training state */
    struct store *store;
    bool looks_only;               /* coordinator_look(): the store is a copy, and nobody is told what is noted */
    struct link *link;
    bool link_is_local;            /* all workers are on this machine */
    char *state_folder, *dataset_folder, *runs_folder;
    uint64_t run, generation;
    bool stopping;
    int outcome;                   /* of coordinator_run(), once `ended` */
    bool ended;
    char reason[ERR_TEXT_BYTES];

    struct roster *roster;         /* who is here (roster.h): */
    struct worker_entry *worker;
    size_t workers;
    struct answers *answers;       /* answers.c */

    enum stage stage, failed_in;   /* failed_in: the stage that failed */
    struct dispatch *dispatch;             /* of the stage; of the evaluation while training evaluates (dispatch.c) */
    struct sourcing *sourcing;     /* which files the sources are (sourcing.c): */
    const struct sources *sources;
    char sources_changed[2048];    /* what changed, came or went since the dataset was made, which is gone on with; empty: nothing */
    struct tokenizer *tokenizer;
    uint32_t token_bytes;          /* 2 or 4, as the tokenizer's ids need */
    uint8_t tokenizer_digest[SHA256_BYTES];
    bool prepared;                 /* the dataset was made before, elsewhere: dataset.prepared */
    bool whole_documents;          /* a document that is a file must not be divided: the text policy or the tokenizer sees all of it */
    struct runs *runs;             /* runs.c */
    char paused_why[640];
    struct packed *packing;        /* packing.c */
    struct manifest manifest;
    bool has_manifest;
    struct trained trained;
    bool dataset_changed;          /* the run is finished, and was trained on another one than the manifest tells of */
    struct progress progress;

    struct reads reads;
    struct download *download;     /* download.c */
    struct serving *serving;       /* serve.c */
    struct waiting *waiting;       /* waiting.c */
    struct telling *telling;       /* status.c */
    struct files *files;
    struct looking looking;
    struct mending *mending;       /* mending.c */

    struct trainer *trainer;
    char *doubt;                   /* who said what when the members differed last without a majority; NULL: never */
    struct saving *saving;         /* saving.c */
    struct metrics *metrics;       /* metrics.c */
    uint64_t max_steps;
    char *newest_path;             /* of the newest checkpoint; NULL: none */
    uint64_t train_sequences, validation_sequences;
    struct evaluating *evaluating; /* evaluating.c */
    double step_began;             /* clock_seconds() of the last commit */
    uint8_t weights_digest[SHA256_BYTES];
    uint8_t run_digest[SHA256_BYTES];  /* of all that results follow from, but for the run's length: checkpoints carry it */
};

/* context.c */
const char *stage_name(enum stage stage);
void context_name(struct context *c, const struct config *config);  /* the folders and files of an empty one */
void context_forget_names(struct context *c);
void fail_pipeline(struct context *c, int code);   /* with err_text() as the reason */
void note_event(struct context *c, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
uint64_t fence_of(const struct context *c, uint64_t low);  /* generation << 32 | low */

/* restart.c */
int output_check(const struct config *config);  /* makes output_dir; ERR_DENIED: what stands in the way of a run there */
#define RESTART_BEGUN "restart_begun"  /* in the store: not 0 while one is under way */
int restart_begin(struct store *store, const struct config *config);
int restart_go_on(struct store *store, const struct config *config);    /* finishes one that was begun; nothing otherwise */

/* changes.c */
int changes_of_pipeline(struct context *c);                         /* ERR_CONFIG when it does not go with what is there */
/* Finds the sources of a dataset that was made. 1: it is gone on with as it is. 0: they changed, and no step was trained on it: it is made
 * again, from what is left. */
int changes_of_sources(struct context *c);

/* trained.c */
int trained_load(struct context *c);                                /* what is on record */
void trained_layout(uint8_t out[SHA256_BYTES], const struct manifest *manifest);  /* of all but its tokens that their order follows from */
int trained_check_tokenizer(const struct context *c);               /* ERR_CONFIG: steps were made with another one */
int trained_refuse_tokenizer(const struct context *c, const uint8_t before[SHA256_BYTES]);
bool trained_is_other(const struct context *c);                     /* the manifest is not of the dataset that steps were made with */
int trained_check_dataset(struct context *c);                       /* ERR_CONFIG: so, and the run goes on; else sets dataset_changed */
/* At the beginning of training, with the steps that are on record: checks all of it; puts it on record where there is none. */
int trained_begin(struct context *c, uint64_t ledger, bool finished);

/* tokenizing.c */
int tokenizing_begin(struct context *c);
/* Is the source file, and what is open as fd (-1: nothing), the one that was found? ERR_CORRUPT names it; what was made of it is
 * forgotten. */
int tokenizing_check_file(struct context *c, uint32_t file, int fd);
int tokenizing_check_sources(struct context *c);                    /* are all of them? */

/* packing.c */
int packing_begin(struct context *c);
int packing_advance(struct context *c);
int packing_finish(struct context *c);
bool packing_plans(const struct context *c);       /* there are no jobs yet */
bool packing_has_digest(const struct context *c);  /* of all shards */
void packing_open(struct context *c);
void packing_close(struct context *c);

/* mending.c */
/* Begins to make a broken shard again; err_text() says how it broke. While mending_goes_on() it is, or another one: come again later. */
int mending_shard(struct context *c, size_t number);
bool mending_goes_on(const struct context *c);
void mending_not_needed(struct context *c, size_t number); /* the shard is whole */
void mending_open(struct context *c);
void mending_close(struct context *c);

/* stages.c */
enum dataset_found {
    DATASET_NONE,                  /* to be made */
    DATASET_OF_OTHER_SOURCES,      /* the same; the sources are found */
    DATASET_DAMAGED, DATASET_OUTDATED, /* the same, and err_text() says why */
    DATASET_THERE,                 /* the manifest is read */
};
int stages_decide(struct context *c, enum dataset_found *out);      /* what of a dataset is there; makes nothing */
int stages_open(struct context *c);
int stages_open_shard(struct context *c, struct shard **out, size_t number);  /* number: in the manifest */
int stages_dataset_ready(struct context *c);                       /* begins training, if that is wanted */
void stages_close(struct context *c);
void stages_tick(struct context *c);

/* training.c */
void training_let_go(struct context *c);   /* who was asked to leave, and has nothing that is needed, goes home */
int training_open(struct context *c);
void training_message(struct context *c, uint32_t worker, const struct message *message);
void training_unheard(struct context *c, uint32_t worker, char **endpoints, size_t count);  /* that do not answer it */
bool training_barred(const struct context *c, uint32_t worker);  /* out of the step for .unreached */
void training_worker(struct context *c, uint32_t worker, bool here);
void training_leaving(struct context *c, uint32_t worker);
/* What a person should look at before a run goes on for hours; empty: nothing. Lines. */
void training_warnings(const struct context *c, struct buf *out);
void training_saves(struct context *c);        /* takes what became of a checkpoint */
void training_evaluations(struct context *c);  /* takes the result of one that is finished */
void training_tick(struct context *c, int64_t now_ms);
void training_close(struct context *c);

/* damage.c */
int damage_settle(struct context *c);                              /* rows of the store that are gone: plans what to make again */
/* The same for the ledger, once the newest checkpoint is known (0: none). *ledger: the newest step on record, before and after. */
int damage_mend_ledger(struct context *c, uint64_t checkpoint, const struct trainer_state *state, uint64_t *ledger);

/* lost.c */
int lost_print_run(struct context *c);                              /* fills run_digest; the manifest is known */
/* The checkpoint is newer than the ledger: it is believed when it is this run's, and the steps between get the rows that can be known. */
int lost_steps(struct context *c, uint64_t checkpoint, const struct trainer_state *state, uint64_t *ledger);

/* doubts.c */
int doubts_load(struct context *c);                                 /* tells the trainer what is on record */
void doubts_note(struct context *c, uint64_t step);                 /* records who said what */

/* serve.c */
void serve_message(struct context *c, uint64_t peer, const struct message *message);
void serve_tick(struct context *c); /* a checkpoint that has a successor is not held open: its room is wanted */
void serve_open(struct context *c);
void serve_close(struct context *c);

/* parts.c */
void parts_open(struct context *c);
void parts_close(struct context *c);

/* waiting.c */
void waiting_tick(struct context *c, int64_t now_ms);
const char *waiting_for(const struct context *c);       /* while nothing is finished; empty: all goes on */
int64_t waiting_since_ms(const struct context *c);      /* when something was finished last */
void waiting_open(struct context *c);
void waiting_close(struct context *c);

/* status.c */
int status_print(struct context *c, struct buf *out);
const char *status_answer(struct context *c);  /* to one who asks; its text is that of a moment ago. NULL: not now, ask again */
void status_write(struct context *c);
void status_turn(struct context *c, int64_t pause_ms);  /* of the loop: it answered nobody for so long */
int64_t status_longest_pause_ms(const struct context *c);
void status_open(struct context *c);
void status_close(struct context *c);

#endif
