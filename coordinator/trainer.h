/* The step protocol: who is a member, who computes which slices, when a step commits. Pure: what happened and the time come in as calls
 * (trainer_present() to trainer_tick()), what to do goes out as actions, which training.c takes with trainer_action() after each call
 * and carries out in order. docs/ARCHITECTURE.md, "A step", has the whole of a step, docs/PROTOCOL.md, "What a step waits for", every
 * wait.
 *
 * State s is weights and moments after step s. Between a commit and the next one the state of every member is frozen at the last
 * committed step; joiners and the checkpoint writer read it meanwhile, and the next commit waits for them.
 *
 * Members that differ: the majority is right. Who holds another sum of the gradients than most of the view, or another state, is out of
 * the step for a second and then told to join: it reads the majority's state where its own differs. Without a majority the run goes back
 * to the last checkpoint; when the members differ about the same step again, it stops.
 *
 * Phases:
 *
 *     GATHER    no member holds a state to go on from. Whoever comes says which one it holds; the run goes on from the newest of these,
 *               else from the last checkpoint
 *     RUN       members compute, exchange and apply
 *     FINISHED  the last step is applied, evaluated and saved
 *     FAILED    trainer.reason says why
 *
 * States of a member:
 *
 *     ABSENT    the slot is free
 *     PRESENT   here, and no part of a step: until member.since_ms it is not asked to join
 *     JOINING   was told to take the state of the last committed step
 *     READY     holds that state, or was told of the commit that leads to it; part of the views that begin from now on */
#ifndef MILLRACE_COORDINATOR_TRAINER_H
#define MILLRACE_COORDINATOR_TRAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "coordinator/tries.h"
#include "proto/steps.h"

enum {
    TRAINER_GATHER_MS = 3000,  /* time for workers to come back with a newer state before the run falls back to a checkpoint */
    TRAINER_UNHEARD_MAX = 16,  /* workers that one member may name at a time as not answering it */
    TRAINER_SETTLE_MS = 1000,  /* from the first such report to the first bar: others may report meanwhile, and show who is at fault */
    TRAINER_BAR_MS = 10000,    /* the first bar of a member; twice as long each time that it comes again */
    TRAINER_SAVE_TRIES_MAX = 12,       /* of one checkpoint, a minute: then training goes on, and the next checkpoint may fare better */
    TRAINER_LAST_SAVE_TRIES_MAX = 720, /* of the last one, an hour: the run has nothing else to do, but workers wait for it */
    TRAINER_DOUBTS_MAX = 64,   /* steps at which the members differed without a majority; at each once, or the run stops */
    TRAINER_SAID_MAX = 16,     /* members that are named, with the digests that they gave */
};

enum trainer_phase { TRAINER_GATHER, TRAINER_RUN, TRAINER_FINISHED, TRAINER_FAILED };
enum member_state { MEMBER_ABSENT, MEMBER_PRESENT, MEMBER_JOINING, MEMBER_READY };

struct member {
    uint32_t worker;              /* its number in the coordinator */
    enum member_state state;
    uint64_t order;               /* of coming: grows with each that comes. Slots are used again: theirs is no order of coming */
    uint64_t step;                /* of the state that it holds, as far as known */
    bool has_digest;              /* its digest of that state is known */
    bool told_commit;             /* COMMIT of the newest committed step was sent to it: it holds that state, or soon will */
    uint8_t digest[XXH128_BYTES];
    int64_t since_ms;             /* PRESENT: not asked to join before. JOINING: since when. READY: when the last COMMIT was sent to it */
    int64_t moved_ms;             /* JOINING: when its work moved last */
    unsigned joins_late;          /* in a row: it did not answer in time */
    bool leaving;                 /* it was asked to leave, and stays while what it holds is needed */
    bool in_view;
    struct slice_set assigned, held;
    bool reduced;
    uint8_t gradient[XXH128_BYTES];
    double square_sum;
    bool finite;
    uint32_t compute_ms;          /* of its last slice */
    uint32_t unheard[TRAINER_UNHEARD_MAX]; /* workers that do not answer it */
    size_t unheard_count;
    bool barred;                  /* PRESENT because of a bar: it joins again when that is over, or when nobody else is left */
    unsigned bars;                /* how many in a row */
    int64_t bar_ends_ms;          /* of the last one */
    bool left_out;                /* PRESENT because nothing moved, until the next try or the commit: does the step end without it? */
    bool decides;                 /* left_out, and without it all the others that are left out were so in vain */
};

/* What one member has of a step about which they differ. */
struct said {
    uint32_t worker;
    uint8_t digest[XXH128_BYTES];
    double square_sum;
    bool finite;
};

enum action_kind {
    ACTION_JOIN,      /* tell `worker` to take the state of `step` */
    ACTION_VIEW,      /* send STEP to all members of the view: who they are, and which slices of `step` each computes */
    ACTION_COMMIT,    /* record the step, then tell those who had part in it: member.told_commit */
    ACTION_EVALUATE,  /* evaluate state `step`; answer with trainer_evaluated() */
    ACTION_SAVE,      /* read and publish state `step`; answer with trainer_saved() */
    ACTION_EVICT,     /* `worker` holds another state than the majority */
    ACTION_ODD,       /* `worker` holds another sum of the gradients than the majority */
    ACTION_DOUBT,     /* the members differ about `step` and none is in the majority: record it; trainer.said has what each has */
    ACTION_BAR,       /* `worker` and `other` do not reach each other: `worker` is out of the step, until its member.bar_ends_ms */
    ACTION_LATE,      /* `worker` was waited for in vain, to apply state `step` or to take it over; the others go on */
    ACTION_LEFT_OUT,  /* nothing moves in `step`: `worker` is left out, to see whether it ends without it */
    ACTION_WITHHELD,  /* nothing moved in `step` as long as `worker` had part in it; it ended when that was left out */
    ACTION_NO_END,    /* nothing moved in `step` as long as both `worker` and `other` had part in it; it ended with `other` alone */
    ACTION_ROLLBACK,  /* ledger rows after `step` are superseded */
    ACTION_FINISHED,
    ACTION_STOPPED,   /* after trainer_stop(): the committed state is saved */
    ACTION_FAILED,
};
struct action {
    enum action_kind kind;
    uint32_t worker, other;
    uint64_t step;
};

struct trainer_options {
    uint32_t slices;
    uint64_t max_steps, eval_steps, save_steps;  /* 0: only at the end */
    bool validation;              /* there is something to evaluate on */
    uint64_t max_bad_steps;
    int64_t patience_ms;          /* how long to wait for a joiner that does not move, for APPLIED, and (at first) for a view to move */
};

struct trainer {
    struct trainer_options options;
    enum trainer_phase phase;
    char reason[256];             /* of FAILED */
    uint64_t view;                /* grows by one with every change of members or step */
    uint64_t committed;           /* the last committed step */
    uint64_t ledger;              /* the newest step in the ledger */
    uint64_t checkpoint;          /* step of the newest checkpoint; 0: none, state 0 is made from the seed */
    uint64_t evaluated;           /* newest step with a stored evaluation */
    uint64_t bad_steps, newest_bad_step;
    int64_t gather_since_ms;      /* GATHER: when the first worker came; -1: nobody came yet */
    bool has_state_digest;        /* of state `committed`, agreed on */
    uint8_t state_digest[XXH128_BYTES];
    bool has_checkpoint_digest;   /* of the newest checkpoint's state, once members agreed on it */
    uint8_t checkpoint_digest[XXH128_BYTES];
    bool evaluating, saving, view_sent;
    bool publishing;              /* while saving: all of the state came, and is on its way to the disk */
    unsigned save_tries;          /* that failed, of the committed step's checkpoint */
    uint64_t save_skipped;        /* step whose checkpoint was given up */
    bool stopping, stopped;
    bool save_asked;              /* save the committed state, then go on */
    uint64_t doubted[TRAINER_DOUBTS_MAX]; /* steps about which the members differed without a majority, also under earlier coordinators */
    size_t doubts;
    bool disagreed;               /* FAILED for that reason */
    bool sum_in_doubt;            /* what `said` is about: a sum of gradients, else a state */
    struct said said[TRAINER_SAID_MAX];
    size_t saids;
    int64_t progress_ms;          /* when the last SLICE or REDUCED counted, or the view was sent */
    int64_t unheard_ms;           /* since when some members do not reach each other; -1: all do */
    unsigned renewals;            /* of this step's view, because nothing moved: how many */
    unsigned doubled;             /* how often the patience with a view that rests is doubled, by what the steps before needed */
    int64_t rest_ms;              /* the longest time in this step in which nothing moved and that ended by itself */
    struct tries tries;           /* in which members are left out */
    struct member member[MEMBERS_MAX];
    size_t members;               /* slots in use, absent ones among them */
    uint64_t newest_order;        /* of the member that came last */
    double loss[SLICES_MAX];
    uint64_t tokens[SLICES_MAX];
    struct slice_set counted;     /* slices with a loss */
    /* of the last commit, for the ledger */
    double step_loss_sum, step_square_sum;
    uint64_t step_tokens, step_view;
    uint8_t step_gradient[XXH128_BYTES];
    bool step_skipped;
    struct action action[MEMBERS_MAX * 2 + 16];
    size_t actions, actions_taken;
};

/* committed: the newest step of the ledger; checkpoint: the newest one on disk (0: none). */
void trainer_open(struct trainer *trainer, const struct trainer_options *options, uint64_t committed, uint64_t checkpoint,
                  uint64_t evaluated);

void trainer_doubted(struct trainer *trainer, uint64_t step);                   /* after opening: a doubt that is on record */

void trainer_present(struct trainer *trainer, uint32_t worker, uint64_t step, const uint8_t *digest_or_null,
                     int64_t now_ms);                                           /* admitted, holding a state */
void trainer_absent(struct trainer *trainer, uint32_t worker, int64_t now_ms);  /* lost or left */
/* Who was told JOIN has no state: neither the one that it was to take over nor its own. It is told again, at that time at the earliest. */
void trainer_could_not_join(struct trainer *trainer, uint32_t worker, int64_t until_ms, int64_t now_ms);
void trainer_slice(struct trainer *trainer, uint32_t worker, uint64_t step, uint32_t slice, double loss_sum, uint64_t tokens,
                   uint32_t compute_ms, int64_t now_ms);
void trainer_reduced(struct trainer *trainer, uint32_t worker, uint64_t step, uint64_t view, const uint8_t *gradient, double square_sum,
                     bool finite, int64_t now_ms);
void trainer_applied(struct trainer *trainer, uint32_t worker, uint64_t step, const uint8_t *digest, int64_t now_ms);
void trainer_moved(struct trainer *trainer, uint32_t worker, int64_t when_ms);  /* its work did, by its last heartbeat */
/* What it told of this step cannot be: it joins anew, a second later, and its slices are computed again. false: it was in no view. */
bool trainer_again(struct trainer *trainer, uint32_t worker, int64_t now_ms);
/* The whole list of workers that `worker` has asked for something and heard nothing of since; empty: it hears from all again. */
void trainer_unheard(struct trainer *trainer, uint32_t worker, const uint32_t *others, size_t count, int64_t now_ms);
void trainer_evaluated(struct trainer *trainer, uint64_t step, int64_t now_ms);
bool trainer_saves(const struct trainer *trainer, uint64_t step); /* is the state of this step to be saved, as far as is known now? */
/* All of the state was read and is being written, if trainer_saves(); trainer_saved() follows. Until then the run does not go back behind
 * this step, even if all members are lost: else the checkpoint would be newer than the ledger. */
void trainer_publishing(struct trainer *trainer, uint64_t step);
void trainer_saved(struct trainer *trainer, uint64_t step, bool done, int64_t now_ms);  /* not done: it is tried again */
void trainer_stop(struct trainer *trainer, int64_t now_ms);  /* begin no step and commit none; save what is committed */
void trainer_save(struct trainer *trainer, int64_t now_ms);  /* save what is committed, and go on */
/* The worker was asked to leave. It has no part in steps that begin now, and takes no state. When nobody else is there to go on, the
 * committed state is saved. */
void trainer_leaving(struct trainer *trainer, uint32_t worker, int64_t now_ms);
void trainer_pause(struct trainer *trainer, int64_t pause_ms, int64_t now_ms);  /* so long up to now nobody was heard: no silence */
void trainer_tick(struct trainer *trainer, int64_t now_ms);

bool trainer_action(struct trainer *trainer, struct action *out);  /* the next thing to do, in order */
const struct member *trainer_member(const struct trainer *trainer, uint32_t worker);  /* NULL: unknown */
bool trainer_reaches(const struct trainer *trainer, uint32_t worker, uint32_t other);  /* no report says otherwise */
/* A member with the committed state applied, while phase is RUN: can be read from, can evaluate. */
bool trainer_holds_state(const struct trainer *trainer, uint32_t worker);
bool trainer_may_leave(const struct trainer *trainer, uint32_t worker);  /* nothing that is needed is with this worker alone */
bool trainer_unsaved(const struct trainer *trainer);                     /* steps are committed that no checkpoint has */

#endif
