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
#include "coordinator/coordinator.h"
#include "coordinator/files.h"
#include "coordinator/queue.h"
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
    WORKERS_MAX = QUEUE_WORKERS_MAX,
    JOINS_FAILED_MAX = 8,          /* in a row; from the second on another member alone is read from each time */
    WORKER_BLAMED_MAX = 3,         /* jobs that failed at a worker and were done by others: no accident any more */
    LEASES_AT_WORKER_MAX = 2,      /* one at work, one to go on with */
    TRANSFERS_MAX = 256,           /* outputs that are being taken at once */
    STATE_READS_AT_WORKER_MAX = 2,
    EVALUATE_SEQUENCES = 16,       /* validation sequences of one evaluate job */
    RUN_PLACE_NUMBERS = 7,         /* that tell where in the sources a run begins */
    STATUS_MS = 1000,              /* between two writings of status.json */
    STATUS_FRESH_MS = 50,          /* for which a printed status is given to whoever asks; people do not read faster */
    STATUS_ANSWERS_MAX = 16,       /* in one turn of the loop: each packs a text of some 100 KiB, with many workers */
    SAVE_AGAIN_MS = 5000,          /* after a checkpoint could not be written */
};

enum stage { STAGE_TOKENIZE, STAGE_PACK, STAGE_TRAIN, STAGE_DONE, STAGE_FAILED };

enum worker_state { WORKER_JOINING, WORKER_READY, WORKER_BUSY, WORKER_LOST, WORKER_LEFT };

struct worker_entry {
    uint64_t peer;                 /* on our link; 0: none */
    struct session session;
    char id[48], host[64], endpoint[160], build[192];
    uint32_t pid, threads;
    enum worker_state state;
    int64_t heard_ms;              /* last message */
    int64_t joining_ms, welcomed_ms; /* its HELLO; last WELCOME */
    int64_t moved_ms;              /* last time its work loop moved, or had nothing to do */
    uint64_t progress, rss_bytes;
    bool told_busy;
    bool leaving;                  /* it was asked to leave, and waits for GOODBYE */
    bool asked, answered;          /* for its known answer */
    bool proved;                   /* which fits: it may take part in training */
    bool in_question;              /* which does not, and nobody is in the majority */
    uint8_t answer[SHA256_BYTES];
    int64_t asked_ms, answered_ms;
    uint64_t answer_order;         /* grows with each that comes */
    char unreached[480];           /* why it is out of the step, once another worker did not reach it */
    bool unreachable;              /* sending to it failed: its connection is gone */
    size_t leases;
    uint64_t jobs_done, slices_done;
    int64_t rests_until_ms;        /* a job failed here: no other one before */
    uint32_t blamed;               /* jobs that failed here and nowhere else */
    uint32_t joins_failed;         /* times in a row that it could not take the state over */
    uint64_t mute_step;            /* of the state that it did not give when it was asked; 0: none */
    uint32_t odd;                  /* times that it held another result of a step than most others */
    uint32_t false_states;         /* times that it gave another state than it told to hold */
    char aside[160];               /* why it gets no work as long as others are here; empty: it does */
    uint32_t compute_ms;
    bool has_state;
    uint64_t state_step;
    uint8_t state_digest[XXH128_BYTES];
};

/* An output that is being read from a worker. */
struct transfer {
    bool used;
    size_t job;
    uint32_t attempt, worker;
    uint64_t size, asked, got;
    int64_t moved_ms;              /* when something came, or was first asked for */
    uint8_t digest[SHA256_BYTES];
    struct sha256 *sha;
    struct draft draft;
    Millrace__Done *done;
};

/* A checkpoint that is being read from members. */
struct saving {
    bool active;
    uint64_t step;
    struct checkpoint_draft *draft;
    size_t items, next, missing;   /* (part, segment) pairs */
    uint8_t *digests;              /* of each item, for the state's digest */
    uint8_t *requested, *arrived;  /* one flag for each item */
    int64_t again_ms;              /* not before: the last try failed */
    int64_t moved_ms;              /* when something came last */
    struct publication *publication; /* all came, and the thread for files makes a checkpoint of it; NULL: not so */
    unsigned wrong;                /* tries at this step in which another state came: from then on one member alone is asked */
    uint32_t alone;                /* who that is now, if wrong > 0 */
};

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

enum { MENDINGS_MAX = 3 };         /* of one shard, without another in between: then it is the disk */
struct mending {
    bool active;
    size_t number;                 /* the shard that is made again, or was last */
    unsigned times;                /* it was, one soon after the other */
};

/* The longest time for which the loop answered nobody. */
struct loop_pause {
    int64_t longest_ms;
    uint64_t turns;                /* of the loop */
};

/* What is told to those who ask for the status. */
struct status_answers {
    struct buf text;
    int64_t printed_ms;
    uint64_t turn;                 /* of the loop, and how many got it in that */
    unsigned given;
};

enum { SHARDS_OPEN_MAX = 32 };     /* an index in memory for each: some MiB where documents are short */
struct open_shard {
    struct shard *shard;           /* NULL: free */
    size_t number;                 /* in the manifest */
    uint64_t used;                 /* grows with each use */
};

/* What the steps on record were trained on (trained.c). */
struct trained {
    bool known, whole;             /* known: the digest; whole: all of it, which earlier versions did not record */
    uint64_t steps;                /* on record; 0: none, and the rest tells what was about to be trained on */
    uint8_t digest[SHA256_BYTES], layout[SHA256_BYTES];  /* of the dataset */
    uint8_t tokenizer[SHA256_BYTES];
    uint64_t train_sequences, sequences;
};

struct coordinator {
    struct coordinator_options options;
    const struct config *config;
    struct gpt2_config model;
    struct state_parts parts;      /* of its training state */
    struct store *store;
    bool looks_only;               /* coordinator_look(): the store is a copy, and nobody is told what is noted */
    struct link *link;
    bool link_is_local;            /* all workers are on this machine */
    char *state_folder, *dataset_folder, *runs_folder;
    struct buf config_text;        /* what workers get */
    struct buf tokenizer_text;     /* the same; empty: gpt2, which they have */
    uint64_t run, generation;
    bool stopping;
    int64_t stopping_ms;           /* since when */
    int outcome;                   /* of coordinator_run(), once `ended` */
    bool ended;
    char reason[ERR_TEXT_BYTES];
    int64_t status_ms, heartbeat_ms;
    bool answer_recorded;          /* steps were made with it */
    uint8_t answer[SHA256_BYTES];  /* the known answer of this run's workers */
    char build[192];               /* what the first of them runs: version, kernels, libraries */
    uint64_t answers;              /* that came */
    bool answers_new;              /* one came that was not judged */

    struct worker_entry worker[WORKERS_MAX];
    size_t workers;
    double hellos;                 /* newcomers that are taken in before some are told to come back (roster.c) */
    int64_t hellos_ms;             /* when that was reckoned */

    enum stage stage, failed_in;   /* failed_in: the stage that failed */
    struct queue queue;            /* of the stage; of the evaluation while training evaluates */
    bool queue_open;
    struct sources sources;
    char sources_changed[2048];    /* what changed, came or went since the dataset was made, which is gone on with; empty: nothing */
    struct stage_job {
        struct buf spec;           /* its packed lease */
        uint64_t weight;           /* in the stage's unit: bytes of source files, tokens, sequences */
    } *job;                        /* the queue's jobs */
    struct tokenizer *tokenizer;
    uint32_t token_bytes;          /* 2 or 4, as the tokenizer's ids need */
    uint8_t tokenizer_digest[SHA256_BYTES];
    uint8_t run_settings[SHA256_BYTES]; /* what runs follow from beside their files */
    bool prepared;                 /* the dataset was made before, elsewhere: dataset.prepared */
    bool whole_documents;          /* a document that is a file must not be divided: the text policy or the tokenizer sees all of it */
    struct run_entry {
        uint64_t place[RUN_PLACE_NUMBERS], size;
        uint8_t key[SHA256_BYTES], digest[SHA256_BYTES];
        size_t job, parts;
        uint32_t *file;            /* of each part */
    } *run_list;                   /* the runs in the order of the sources, once all are there */
    size_t runs;
    int64_t paused_until_ms;       /* nothing is leased before: the disk is full, say */
    char paused_why[640];
    struct stall stall;
    unsigned out_of_place;         /* looks in a row at which the store's file was not under its name */
    char stalled[640];             /* what is waited for, while nothing is finished; empty: all goes on */
    int64_t stall_noted_ms;
    struct dataset_plan *plan;
    struct manifest manifest;
    bool has_manifest;
    struct trained trained;
    bool dataset_changed;          /* the run is finished, and was trained on another one than the manifest tells of */
    struct progress progress;

    struct reads reads;
    struct transfer transfer[TRANSFERS_MAX];
    int source_fd;                 /* the source file that was read last */
    uint32_t source_open;
    struct open_shard open_shard[SHARDS_OPEN_MAX];
    uint64_t shard_uses;
    struct sha256 *dataset_sha;    /* of the shards 0 .. dataset_hashed - 1 */
    size_t dataset_hashed, dataset_hashing; /* hashing: those that the thread for files has, or is through with */
    struct files *files;
    struct looking looking;
    struct mending mending;
    bool planning;                 /* the thread for files plans the dataset */
    struct loop_pause pause;
    struct status_answers status_answers;

    struct trainer *trainer;
    char *doubt;                   /* who said what when the members differed last without a majority; NULL: never */
    struct saving saving;
    struct checkpoint *checkpoint; /* the newest one, open for reading state */
    uint64_t max_steps;
    char *newest_path;             /* of the newest checkpoint; NULL: none */
    uint64_t train_sequences, validation_sequences;
    uint64_t evaluate_step;
    int64_t evaluate_began_ms;
    struct evaluation { double loss_sum; uint64_t tokens; } *evaluation;  /* by evaluate job */
    FILE *metrics;
    struct train_log log;          /* what checkpoints tell of the way to them */
    double step_began;             /* clock_seconds() of the last commit */
    double last_loss, last_eval_loss, last_rate, last_tokens_rate;
    uint64_t last_eval_step;
    uint8_t weights_digest[SHA256_BYTES];
    uint8_t run_digest[SHA256_BYTES];  /* of all that results follow from, but for the run's length: checkpoints carry it */
};

/* coordinator.c */
void coordinator_name(struct coordinator *c, const struct config *config);  /* the folders and files of an empty one */
void coordinator_forget_names(struct coordinator *c);
void fail_pipeline(struct coordinator *c, int code);   /* with err_text() as the reason */
/* ERR_LIMIT: the message is over a cap and can never be sent. Anything else is made good by later messages. */
int send_to(struct coordinator *c, uint32_t worker, const struct envelope *envelope, const ProtobufCMessage *body);
void note_event(struct coordinator *c, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
uint64_t fence_of(const struct coordinator *c, uint64_t low);  /* generation << 32 | low */

/* roster.c */
/* Whether the message is the next one of its session; else it was dealt with. */
bool roster_take(struct coordinator *c, uint32_t worker, const struct message *message);
void roster_message(struct coordinator *c, uint64_t peer, const struct message *message);
int64_t roster_find(struct coordinator *c, uint64_t peer);     /* number of the admitted or joining worker at this peer; -1: none */
void roster_lost(struct coordinator *c, uint32_t worker, enum worker_state state, const char *why);
void roster_set_aside(struct coordinator *c, uint32_t worker, const char *why);  /* it gets no work any more while others are here */
void roster_tick(struct coordinator *c, int64_t now_ms);
bool roster_admitted(const struct worker_entry *worker);
void roster_refuse(struct coordinator *c, uint64_t peer, bool final, const char *reason);

/* answers.c */
void answers_ask(struct coordinator *c, uint32_t worker);               /* training_worker() is called when its known answer fits */
void answers_take(struct coordinator *c, uint32_t worker, const Millrace__Answer *answer);
void answers_tick(struct coordinator *c, int64_t now_ms);
int answers_record(struct coordinator *c);                              /* before the first step is committed */
int answers_load(struct coordinator *c, uint64_t ledger);               /* ledger: steps on record */

/* jobs.c */
const char *stage_name(enum stage stage);
void jobs_clear(struct coordinator *c);
void jobs_begin(struct coordinator *c, size_t count);  /* an empty queue of that many jobs: fill in job[] */
void jobs_add(struct coordinator *c, struct buf *spec, uint32_t preferred);  /* one more, which takes the spec over */
int jobs_load(struct coordinator *c, enum stage stage);                /* the stage's jobs as the store has them */
int jobs_pack(struct buf *out, const Millrace__Lease *lease);
void jobs_lease(struct coordinator *c);
void jobs_message(struct coordinator *c, uint32_t worker, const struct message *message);  /* DONE, FAILED */
int jobs_output(struct coordinator *c, struct transfer *transfer);     /* a whole, checked output: publish and record */
void jobs_release(struct coordinator *c, uint32_t worker, bool lost);  /* lost: it did not say that it would go */
void jobs_pause(struct coordinator *c, int code);  /* leases nothing for a while, or, where that helps nothing, ends; err_text() says why */

/* restart.c */
int output_check(const struct config *config);  /* makes output_dir; ERR_DENIED: what stands in the way of a run there */
#define RESTART_BEGUN "restart_begun"  /* in the store: not 0 while one is under way */
int restart_begin(struct store *store, const struct config *config);
int restart_go_on(struct store *store, const struct config *config);    /* finishes one that was begun; nothing otherwise */

void jobs_settle(struct coordinator *c, uint32_t worker, size_t job, uint32_t attempt);  /* it may forget the output */
void jobs_failed(struct coordinator *c, uint32_t worker, size_t job, const char *reason, bool final);  /* its lease ends */

/* arrivals.c */
int arrival_check_size(const struct coordinator *c, size_t job, uint64_t size);  /* as a DONE tells it */
int arrival_check(const struct coordinator *c, size_t job, const Millrace__Done *done, const char *path);  /* the whole output */

/* changes.c */
int changes_of_pipeline(struct coordinator *c);                         /* ERR_CONFIG when it does not go with what is there */
/* Finds the sources of a dataset that was made. 1: it is gone on with as it is. 0: they changed, and no step was trained on it: it is made
 * again, from what is left. */
int changes_of_sources(struct coordinator *c);

/* trained.c */
int trained_load(struct coordinator *c);                                /* what is on record */
void trained_layout(uint8_t out[SHA256_BYTES], const struct manifest *manifest);  /* of all but its tokens that their order follows from */
int trained_check_tokenizer(const struct coordinator *c);               /* ERR_CONFIG: steps were made with another one */
int trained_refuse_tokenizer(const struct coordinator *c, const uint8_t before[SHA256_BYTES]);
bool trained_is_other(const struct coordinator *c);                     /* the manifest is not of the dataset that steps were made with */
int trained_check_dataset(struct coordinator *c);                       /* ERR_CONFIG: so, and the run goes on; else sets dataset_changed */
/* At the beginning of training, with the steps that are on record: checks all of it; puts it on record where there is none. */
int trained_begin(struct coordinator *c, uint64_t ledger, bool finished);

/* tokenizing.c */
int spool_next(const struct config *config);                            /* standard input to state/stdin.next, if it is a source */
int spool_take_next(const struct config *config);                       /* which becomes state/stdin, if it is there */
void tokenizing_note_settings(struct coordinator *c);                   /* fills run_settings */
int tokenizing_find_sources(struct coordinator *c);
/* Lists the sources as they are now; *out_difference (malloc) says what changed, came or went since the record, NULL: nothing. */
int tokenizing_compare(struct coordinator *c, struct buf *out_listing, char **out_difference);
int tokenizing_recall_sources(struct coordinator *c);                   /* the sources as they are on record, whatever is there now */
int tokenizing_begin(struct coordinator *c);
/* Is the source file, and what is open as fd (-1: nothing), the one that was found? ERR_CORRUPT names it; what was made of it is
 * forgotten. */
int tokenizing_check_file(struct coordinator *c, uint32_t file, int fd);
int tokenizing_check_job(struct coordinator *c, size_t job);            /* are its files? */
int tokenizing_check_sources(struct coordinator *c);                    /* are all of them? */
char *tokenizing_path(const struct coordinator *c, size_t job);        /* of the job's run */
/* Records a result, and makes the job that goes on where it ended. `done`: the packed DONE. */
int tokenizing_done(struct coordinator *c, size_t job, const Millrace__TokenizeResult *result, const struct buf *done, uint32_t worker);
int tokenizing_list_runs(struct coordinator *c);                       /* fills run_list from the finished jobs */
void tokenizing_forget_runs(struct coordinator *c);
char *tokenizing_run_path(const struct coordinator *c, size_t run);
int tokenizing_table(struct coordinator *c, Millrace__RunTable **out, size_t run);  /* with sources as numbers of source files */
/* Removes the runs and memos that the finished dataset has no use for; those of the other keys stay. */
int tokenizing_sweep(struct coordinator *c, const uint8_t (*key)[SHA256_BYTES], size_t keys);

/* packing.c */
int packing_begin(struct coordinator *c);
int packing_advance(struct coordinator *c);
int packing_finish(struct coordinator *c);
char *packing_path(const struct coordinator *c, size_t job);           /* of the job's shard */
int packing_done(struct coordinator *c, size_t job, const struct buf *done, uint32_t worker);  /* records a result */

/* mending.c */
/* Begins to make a broken shard again; err_text() says how it broke. While c->mending.active it is, or another one: come again later. */
int mending_shard(struct coordinator *c, size_t number);

/* stages.c */
enum dataset_found {
    DATASET_NONE,                  /* to be made */
    DATASET_OF_OTHER_SOURCES,      /* the same; the sources are found */
    DATASET_DAMAGED, DATASET_OUTDATED, /* the same, and err_text() says why */
    DATASET_THERE,                 /* the manifest is read */
};
int stages_decide(struct coordinator *c, enum dataset_found *out);      /* what of a dataset is there; makes nothing */
int stages_open(struct coordinator *c);
int stages_open_shard(struct coordinator *c, struct shard **out, size_t number);  /* number: in the manifest */
int stages_dataset_ready(struct coordinator *c);                       /* begins training, if that is wanted */
void stages_close(struct coordinator *c);
void stages_tick(struct coordinator *c);

/* transfer.c */
int transfer_begin(struct coordinator *c, uint32_t worker, size_t job, uint32_t attempt, const Millrace__Done *done);
void transfer_data(struct coordinator *c, uint64_t peer, const struct message *message);  /* nothing, unless it was asked */
void transfer_drop_worker(struct coordinator *c, uint32_t worker);
void transfer_tick(struct coordinator *c, int64_t now_ms);
void saving_begin(struct coordinator *c, uint64_t step);
void saving_end(struct coordinator *c);
void saving_leave(struct coordinator *c);  /* the coordinator ends: what is not yet published is not going to be */

/* training.c */
int training_open(struct coordinator *c);
void training_message(struct coordinator *c, uint32_t worker, const struct message *message);
void training_unheard(struct coordinator *c, uint32_t worker, char **endpoints, size_t count);  /* that do not answer it */
bool training_barred(const struct coordinator *c, uint32_t worker);  /* out of the step for .unreached */
void training_worker(struct coordinator *c, uint32_t worker, bool here);
void training_leaving(struct coordinator *c, uint32_t worker);
void training_evaluated_job(struct coordinator *c, size_t job, const Millrace__EvaluateResult *result);
/* What a person should look at before a run goes on for hours; empty: nothing. Lines. */
void training_warnings(const struct coordinator *c, struct buf *out);
int training_log_print(struct coordinator *c, struct buf *out, uint64_t step);  /* trainer_state.json of that step */
void training_saved(struct coordinator *c, const char *path, const struct trainer_state *state);
void training_tick(struct coordinator *c, int64_t now_ms);
void training_close(struct coordinator *c);

/* damage.c */
int damage_settle(struct coordinator *c);                              /* rows of the store that are gone: plans what to make again */
/* The same for the ledger, once the newest checkpoint is known (0: none). *ledger: the newest step on record, before and after. */
int damage_mend_ledger(struct coordinator *c, uint64_t checkpoint, const struct trainer_state *state, uint64_t *ledger);

/* lost.c */
int lost_print_run(struct coordinator *c);                              /* fills run_digest; the manifest is known */
/* The checkpoint is newer than the ledger: it is believed when it is this run's, and the steps between get the rows that can be known. */
int lost_steps(struct coordinator *c, uint64_t checkpoint, const struct trainer_state *state, uint64_t *ledger);

/* doubts.c */
int doubts_load(struct coordinator *c);                                 /* tells the trainer what is on record */
void doubts_note(struct coordinator *c, uint64_t step);                 /* records who said what */

/* serve.c */
void serve_message(struct coordinator *c, uint64_t peer, const struct message *message);
void serve_close(struct coordinator *c);

/* waiting.c */
void waiting_tick(struct coordinator *c, int64_t now_ms);

/* status.c */
int status_print(struct coordinator *c, struct buf *out);
const char *status_answer(struct coordinator *c);  /* to one who asks; its text is that of a moment ago. NULL: not now, ask again */
void status_write(struct coordinator *c);

#endif
