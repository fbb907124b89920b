/* The record in the store of what steps are made with: the dataset, with all that the order of training follows from, and the tokenizer;
 * how it is read, compared and refused. In memory it is dataset.trained. */
#include "coordinator/trained.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/store.h"
#include "dataset/shard/manifest.h"
#include "proto/steps.h"

static const char recorded[] = "trained_on";

enum { RECORD_NUMBERS = 3 * SHA256_BYTES, RECORD_BYTES = RECORD_NUMBERS + 16 };

static void put_number(uint8_t out[8], uint64_t number) {
    for (int i = 0; i < 8; i++) out[i] = (uint8_t)(number >> 8 * i);
}

static uint64_t number_at(const uint8_t bytes[8]) {
    uint64_t number = 0;
    for (int i = 0; i < 8; i++) number |= (uint64_t)bytes[i] << 8 * i;
    return number;
}

void trained_layout(uint8_t out[SHA256_BYTES], const struct manifest *m) {
    const uint64_t numbers[] = {m->token_bytes, m->eos, m->sequence_length, m->frame_tokens, m->shard_tokens, m->train_tokens,
                                m->tokens, m->sequences, m->train_sequences, m->train_shards, m->shards};
    struct sha256 *sha = sha256_open();
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint8_t bytes[8];
        put_number(bytes, numbers[i]);
        sha256_add(sha, bytes, sizeof bytes);
    }
    sha256_add(sha, m->packing, strlen(m->packing) + 1);
    sha256_finish(sha, out);
    sha256_close(sha);
}

static struct trained now(const struct context *c) {
    const struct manifest *m = &c->dataset->manifest;
    struct trained trained = {.known = true, .whole = true, .train_sequences = m->train_sequences, .sequences = m->sequences};
    memcpy(trained.digest, m->digest, SHA256_BYTES);
    trained_layout(trained.layout, m);
    memcpy(trained.tokenizer, c->tokenizer_digest, SHA256_BYTES);
    return trained;
}

static bool same_dataset(const struct trained *a, const struct trained *b) {
    return memcmp(a->digest, b->digest, SHA256_BYTES) == 0 &&
           (!a->whole || !b->whole || memcmp(a->layout, b->layout, SHA256_BYTES) == 0);
}

static bool same_tokenizer(const struct trained *a, const uint8_t tokenizer[SHA256_BYTES]) {
    return !a->whole || memcmp(a->tokenizer, tokenizer, SHA256_BYTES) == 0;
}

/* ---- the record ---- */

static int store_record(struct context *c, const struct trained *trained) {
    uint8_t record[RECORD_BYTES];
    memcpy(record, trained->digest, SHA256_BYTES);
    memcpy(record + SHA256_BYTES, trained->layout, SHA256_BYTES);
    memcpy(record + 2 * SHA256_BYTES, trained->tokenizer, SHA256_BYTES);
    put_number(record + RECORD_NUMBERS, trained->train_sequences);
    put_number(record + RECORD_NUMBERS + 8, trained->sequences);
    return store_set(c->store, recorded, record, sizeof record);
}

/* Earlier versions recorded the digest alone, and only of datasets that they made. */
static int load_earlier(struct context *c) {
    struct buf digest = {0};
    int code = c->prepared ? 0 : store_get(c->store, "dataset_digest", &digest);
    if (code == 1 && digest.size == SHA256_BYTES) {
        c->dataset->trained.known = true;
        memcpy(c->dataset->trained.digest, digest.data, SHA256_BYTES);
    }
    buf_free(&digest);
    return code < 0 ? code : 0;
}

int trained_load(struct context *c) {
    struct buf record = {0};
    struct trained *trained = &c->dataset->trained;
    *trained = (struct trained){0};
    TRY(store_step_newest(c->store, &trained->steps));
    int code = store_get(c->store, recorded, &record);
    if (code == 1 && record.size == RECORD_BYTES) {
        trained->known = trained->whole = true;
        memcpy(trained->digest, record.data, SHA256_BYTES);
        memcpy(trained->layout, record.data + SHA256_BYTES, SHA256_BYTES);
        memcpy(trained->tokenizer, record.data + 2 * SHA256_BYTES, SHA256_BYTES);
        trained->train_sequences = number_at(record.data + RECORD_NUMBERS);
        trained->sequences = number_at(record.data + RECORD_NUMBERS + 8);
    } else if (code >= 0) code = load_earlier(c);
    buf_free(&record);
    return code < 0 ? code : 0;
}

/* ---- refusals ---- */

int trained_refuse_tokenizer(const struct context *c, const uint8_t before[SHA256_BYTES]) {
    char old[SHA256_HEX], fresh[SHA256_HEX];
    hex_of(old, before, SHA256_BYTES);
    hex_of(fresh, c->tokenizer_digest, SHA256_BYTES);
    return err_set(ERR_CONFIG,
                   "dataset.tokenizer %s changed: %" PRIu64
                   " step%s trained with the one of digest %s, and now it has %s; put that one back, run with --restart to begin from "
                   "nothing with this one, or choose another output_dir",
                   c->config->dataset.tokenizer, c->dataset->trained.steps, c->dataset->trained.steps == 1 ? " was" : "s were", old, fresh);
}

static void describe(const struct context *c, char *out, size_t size) {
    char old[SHA256_HEX], fresh[SHA256_HEX];
    hex_of(old, c->dataset->trained.digest, SHA256_BYTES);
    hex_of(fresh, c->dataset->manifest.digest, SHA256_BYTES);
    bool digests_differ = strcmp(old, fresh) != 0;
    snprintf(out, size, "%s is another dataset than %" PRIu64 " step%s trained on: its digest is %s, theirs is %s%s", c->dataset_folder,
             c->dataset->trained.steps, c->dataset->trained.steps == 1 ? " was" : "s were", fresh, old,
             digests_differ ? "" : ", and the same tokens are laid out in another way");
}

static int refuse_dataset(const struct context *c) {
    char what[600];
    describe(c, what, sizeof what);
    return err_set(ERR_CONFIG, "%s; put that one back%s, run with --restart to begin from nothing, or choose another output_dir", what,
                   c->prepared ? "" : ", or remove this folder and it is made again from the sources");
}

/* ---- comparing ---- */

int trained_check_tokenizer(const struct context *c) {
    const struct trained *t = &c->dataset->trained;
    return t->steps && !same_tokenizer(t, c->tokenizer_digest) ? trained_refuse_tokenizer(c, t->tokenizer) : 0;
}

bool trained_is_other(const struct context *c) {
    struct trained fresh = now(c);
    return c->dataset->trained.steps && c->dataset->trained.known && !same_dataset(&c->dataset->trained, &fresh);
}

int trained_check_dataset(struct context *c) {
    const struct trained *t = &c->dataset->trained;
    if (!trained_is_other(c)) return 0;
    uint64_t sequences = t->whole ? t->train_sequences : c->dataset->manifest.train_sequences;
    uint64_t all = steps_total(c->config->training.max_steps, c->config->training.num_train_epochs, sequences,
                               c->config->training.global_batch);
    if (t->steps < all || c->options.stop_after_dataset) return refuse_dataset(c);
    c->dataset->trained_on_other = true;
    return 0;
}

int trained_begin(struct context *c, uint64_t ledger, bool finished) {
    struct trained *trained = &c->dataset->trained, fresh = now(c);
    fresh.steps = trained->steps = ledger;
    if (ledger > 0) {
        TRY(trained_check_tokenizer(c));
        if (trained_is_other(c)) {
            if (!finished) return refuse_dataset(c);
            char what[600];
            describe(c, what, sizeof what);
            note_event(c, "dataset-changed", "%s", what);
            return 0;
        }
        if (trained->whole) return 0;
    } else if (trained->whole && same_dataset(trained, &fresh) && same_tokenizer(trained, fresh.tokenizer)) return 0;
    TRY(store_begin(c->store));
    int code = ledger == 0 ? store_steps_drop(c->store, 0) : 0; /* rolled back, and of another dataset: not to be compared with */
    if (code == 0) code = store_record(c, &fresh);
    if (code < 0) {
        store_cancel(c->store);
        return code;
    }
    *trained = fresh;
    return store_commit(c->store);
}
