/* Whatever follows from the rows that are left is made again: jobs are planned anew and find their runs and shards by key; an evaluation
 * is done again; a step after the newest checkpoint is trained again. Whether the results are of this pipeline is seen from the digest
 * that a checkpoint carries (ledger_behind.c). Keeps nothing in memory; between the two calls a named value in the store says that the
 * ledger has a gap. */
#include "coordinator/lost_rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/plain.h"
#include "coordinator/context.h"
#include "coordinator/dispatch.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "model/checkpoint/checkpoint.h"
#include "model/optim/optimizer.h"

static void describe(struct context *c, const struct store_damage *damage) {
    char text[400] = "";
    for (size_t i = 0; i < STORE_TABLES; i++) {
        size_t used = strlen(text);
        if (!damage->lost[i]) continue;
        snprintf(text + used, sizeof text - used, "%s%s (%" PRIu64 " row%s)", used ? ", " : "",
                 store_table_name((enum store_table)i), damage->bad_rows[i], plural(damage->bad_rows[i]));
    }
    note_lost(c, "records-damaged", "%s/millrace.db: %s; what is left was kept, the damaged file is millrace.db.damaged", c->state_folder,
               *text ? text : "only what is no record");
}

/* Beyond any that was: seconds since 1970 grow faster than coordinators start. */
static int choose_generation(struct context *c) {
    uint64_t generation = 0;
    TRY(store_get_number(c->store, "generation", &generation));
    if (generation) return 0;
    return store_set_number(c->store, "generation", (uint64_t)clock_wall_ms() / 1000 & INT32_MAX);
}

static int pipeline_is_known(struct context *c) {
    struct buf config = {0};
    int known = store_get(c->store, "config", &config);
    buf_free(&config);
    return known;
}

/* Nothing that is left tells which pipeline these records are of. So they go, as if the store had gone: a checkpoint carries the mark of
 * its run and is believed or refused by that, runs and shards are found by their keys. */
static int begin_records(struct context *c) {
    TRY(store_forget_all(c->store));
    TRY(choose_generation(c));
    note_lost(c, "records-begun", "the pipeline was not on record any more: what is in %s tells what is done", c->config->output_dir);
    return 0;
}

static int plan_again(struct context *c) {
    uint64_t made = 0;
    TRY(store_get_number(c->store, "dataset_made", &made));
    TRY(dispatch_drop_recorded(c));
    return made ? 0 : store_set(c->store, "sources", "", 0);
}

static int settle(struct context *c, const struct store_damage *damage) {
    if (damage->lost[STORE_NAMED]) TRY(choose_generation(c));
    if (damage->lost[STORE_JOBS]) TRY(plan_again(c));
    if (damage->lost[STORE_STEPS]) TRY(store_set_number(c->store, "ledger_torn", 1)); /* lost_rows_repair_ledger() goes on */
    return store_damage_settled(c->store);
}

int lost_rows_settle(struct context *c) {
    struct store_damage damage;
    TRY(store_damage(c->store, &damage));
    if (!damage.found) return 0;
    describe(c, &damage);
    int known = damage.lost[STORE_NAMED] ? pipeline_is_known(c) : 1;
    if (known < 0) return known;
    if (!known) return begin_records(c);
    TRY(store_begin(c->store));
    int code = settle(c, &damage);
    if (code == 0) return store_commit(c->store);
    store_cancel(c->store);
    return code;
}

/* ---- the ledger ---- */

struct unbroken {
    uint64_t from, last;
};

static int look_at_step(void *arg, const struct step_row *row) {
    struct unbroken *u = arg;
    if (row->step == u->last + 1 && row->step > u->from) u->last = row->step;
    return 0;
}

/* Steps up to the checkpoint are settled, whatever their rows say; after it the ledger is good up to the first row that is gone. */
static int repair_steps(struct context *c, uint64_t checkpoint, const struct checkpoint_facts *facts, uint64_t *ledger) {
    struct unbroken u = {checkpoint, checkpoint};
    TRY(store_steps(c->store, look_at_step, &u));
    if (*ledger > u.last) TRY(store_steps_drop(c->store, u.last));
    if (*ledger < checkpoint) {
        struct step_row row = {.step = checkpoint, .loss = facts->train_loss,
                               .learning_rate = learning_rate(c->config, checkpoint, c->max_steps)};
        TRY(store_step_add(c->store, &row));
    }
    TRY(store_set_number(c->store, "ledger_torn", 0));
    *ledger = u.last;
    return 0;
}

int lost_rows_repair_ledger(struct context *c, uint64_t checkpoint, const struct checkpoint_facts *facts, uint64_t *ledger) {
    uint64_t torn = 0;
    TRY(store_get_number(c->store, "ledger_torn", &torn));
    if (!torn) return 0;
    TRY(store_begin(c->store));
    int code = repair_steps(c, checkpoint, facts, ledger);
    if (code == 0) code = store_commit(c->store);
    else store_cancel(c->store);
    if (code == 0) note_event(c, "ledger-repaired", "goes on from step %" PRIu64, *ledger);
    return code;
}
