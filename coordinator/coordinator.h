/* The coordinator daemon, as the command line sees it: takes a pipeline from text to a trained model. It decides, records and hands out;
 * workers compute.
 *
 * coordinator_check_inputs(), coordinator_spool() and coordinator_restart() come before a run, coordinator_preview() says what a run would
 * do, coordinator_run() serves until the end. All on the thread that calls them; coordinator_stop() and coordinator_save() also from
 * signal handlers.
 *
 * The files of this folder lie in a strict order, each includes only those before it: docs/ARCHITECTURE.md, "Folders", names them,
 * context.h has what they share. */
#ifndef MILLRACE_COORDINATOR_COORDINATOR_H
#define MILLRACE_COORDINATOR_COORDINATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "config/config.h"
#include "dataset/tokenizer/tokenizer.h"

struct coordinator_options {
    struct config *config;   /* what it leaves to the tokenizer is filled in */
    const char *bind;        /* NULL: the endpoint of this run's last coordinator if it is free, else a free loopback port */
    int64_t grace_ms;        /* for saving, after coordinator_stop() */
    bool stop_after_dataset; /* done when the dataset is */
    bool keep_dataset;       /* sources that changed since: the run goes on with the dataset that is there, which is recorded */
    bool verify;             /* a dataset that is there: every byte is read at once, and broken shards are made again */
};

/* Before the coordinator runs: copies standard input to output_dir/state/stdin when dataset.sources has "-" and it is not there yet, whole
 * or not at all. Later starts of the same run find it there. 1: so did this one, and what standard input gives is not read.
 * coordinator_stop(): ERR_INTERRUPTED, and nothing is kept. */
int coordinator_spool(const struct config *config);

/* The first thing of all, over an output_dir in which nothing was begun or that `restart` empties: is there a file for each entry of
 * dataset.sources, or the prepared dataset that pipeline.yaml names? (The tokenizer is looked for by coordinator_restart() and
 * coordinator_run().) Makes and changes nothing, so that a typo leaves nothing behind. Over a run that was begun it decides nothing: what
 * that needs coordinator_run() knows. */
int coordinator_check_inputs(const struct config *config, bool restart);

/* A folder in output_dir could not be made: returns code; err_text() then names output_dir, and says what to do. */
int coordinator_refuse_output(const struct config *config, int code);

/* Before coordinator_spool(): makes output_dir one that holds no results. Removes dataset, checkpoints and records there, and nothing else;
 * tokenized runs stay, standard input is read anew. Refuses, and leaves all as it was, while a coordinator runs there or when
 * dataset.tokenizer cannot be opened. After a crash in the middle the next coordinator_restart() or coordinator_run() finishes it. */
int coordinator_restart(struct config *config);

/* What coordinator_run() would do first with what is in output_dir. No checkpoint is opened for it: one that is damaged, or another
 * run's, is found by coordinator_run() alone. */
struct coordinator_preview {
    bool restarts;                  /* it would first finish a restart that was begun and did not end: all else is as after that */
    bool has_dataset;               /* it would go on with the dataset that is there; else make one, if it is not to be refused */
    uint64_t steps;                 /* that are done */
    uint64_t saved;                 /* those that the newest checkpoint has; the others are with workers alone, or lost */
    int refused;                    /* 0: it would begin; else its error, with the same words: */
    char refusal[ERR_TEXT_BYTES];   /* which name the key, the source or the dataset, and say what to do */
};

/* Only looks: nothing is written, made or locked in output_dir, where a coordinator may be at work. `tokenizer` is the one of `config`.
 * An error: it cannot be known. */
int coordinator_preview(struct coordinator_preview *out, const struct config *config, const struct tokenizer *tokenizer);

/* Serves until the pipeline is done (0), has failed (its error), or coordinator_stop() was called (ERR_INTERRUPTED). Refuses (ERR_CONFIG)
 * when output_dir holds another pipeline's results: the text names the keys and the remedy. */
int coordinator_run(const struct coordinator_options *options);

/* From a signal handler. Once: gives the step under way up, saves what is committed, sends the workers home and leaves, within the grace.
 * Twice: leaves at once. Both once it serves; before, while it waits for a server or copies standard input, and not while it indexes a
 * large archive. */
void coordinator_stop(void);

/* From a signal handler: does coordinator_run() serve, or has it? */
bool coordinator_serves(void);

/* From a signal handler: saves what is committed, and goes on. */
void coordinator_save(void);

#endif
