/* A checkpoint gets to the disk by the thread for files: what of it the loop's thread does is counted, and what may happen meanwhile
 * happens while the disk stands still, which here is a gate in fsync() and rename(). */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/files.h"
#include "coordinator/metrics.h"
#include "coordinator/parts.h"
#include "coordinator/roster.h"
#include "coordinator/saving.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "coordinator/training.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/checkpoint/checkpoint.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "model/optim/state.h"
#include "proto/frame.h"
#include "proto/reads.h"
#include "proto/steps.h"

enum { PEER = 5, STEP = 1 };

/* ---- the disk ---- */

static void note_sync(int fd);

static pthread_t loop;
static atomic_int loop_syncs, loop_renames, others_syncs; /* of files of a checkpoint, and folders of its drafts */
static atomic_size_t loop_read_bytes, others_read_bytes;
static atomic_bool gate_at_sync, gate_at_rename, waits_at_gate, rename_fails;

static bool is_checkpoint(int fd) {
    char link[64], path[300] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) > 0 && strstr(path, "/checkpoint-") != NULL;
}

static bool in_loop(void) { return pthread_equal(pthread_self(), loop); }

static void pass_gate(atomic_bool *gate) {
    while (!in_loop() && atomic_load(gate)) {
        atomic_store(&waits_at_gate, true);
        clock_sleep_ms(1);
    }
}

int fsync(int fd) {
    note_sync(fd);
    if (is_checkpoint(fd)) {
        atomic_fetch_add(in_loop() ? &loop_syncs : &others_syncs, 1);
        pass_gate(&gate_at_sync);
    }
    return (int)syscall(SYS_fsync, fd);
}

ssize_t read(int fd, void *out, size_t size) {
    ssize_t n = (ssize_t)syscall(SYS_read, fd, out, size);
    if (n > 0 && is_checkpoint(fd)) atomic_fetch_add(in_loop() ? &loop_read_bytes : &others_read_bytes, (size_t)n);
    return n;
}

int rename(const char *from, const char *to) {
    if (strstr(from, "/checkpoint-") && !strstr(to, ".draft-")) { /* the folder itself */
        atomic_fetch_add(&loop_renames, in_loop());
        pass_gate(&gate_at_rename);
        if (atomic_load(&rename_fails)) {
            errno = EIO;
            return -1;
        }
    }
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static char folder[64];
static bool exchanged, exchange_synced; /* the whole new checkpoint took the place of the old one; and is on the disk there */
static int removed_after, removed_too_early;

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    int code = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (code == 0 && flags) exchanged = true;
    return code;
}

static void note_sync(int fd) {
    char link[64], path[300] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) > 0 && strcmp(path, folder) == 0) exchange_synced = exchanged;
}

int remove(const char *path) {
    if (exchanged && strstr(path, "/checkpoint-")) removed_after++, removed_too_early += !exchange_synced;
    int code = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    return code < 0 && errno == EISDIR ? (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR) : code;
}

/* ---- a coordinator at the moment of a checkpoint ---- */

static struct config config;
static struct context *c;
static size_t elements, segments;
static float *values; /* of every part */
static uint64_t mute;  /* a peer that gives nothing of its state */

static void wake(void *arg) { (void)arg; }

static bool published(void) {
    char path[100];
    snprintf(path, sizeof path, "%s/checkpoint-%d", folder, STEP);
    return file_exists(path);
}

/* One member, which holds the state of step 1; that is to be saved. */
static int set_up(void **state) {
    (void)state;
    static const char text[] = "dataset: { sources: [x.txt], sequence_length: 8 }\n"
                               "model: { n_layer: 1, n_head: 1, n_embd: 16, n_positions: 8 }\n"
                               "training: { global_batch: 4, slices: 4, max_steps: 10, save_steps: 1 }\n";
    uint8_t digest[XXH128_BYTES], *digests;
    struct action action;
    loop = pthread_self();
    snprintf(folder, sizeof folder, "/tmp/millrace-publication-XXXXXX");
    assert_non_null(mkdtemp(folder));
    char *whole = mem_format("output_dir: '%s'\n%s", folder, text), *state_folder = mem_format("%s/state", folder);
    if (config_parse(&config, "p.yaml", whole, strlen(whole), "/", NULL, 0) < 0) fail_msg("%s", err_text());
    free(whole);
    c = mem_alloc(sizeof *c);
    c->config = &config;
    parts_open(c);
    c->max_steps = 10;
    c->train_sequences = 100;
    c->model = gpt2_config_of(&config);
    struct optimizer optimizer = optimizer_of(&config);
    c->parts = optimizer_parts(&optimizer);
    assert_int_equal(tokenizer_open_for(&c->tokenizer, &config), 0);
    assert_int_equal(store_open(&c->store, state_folder), 0);
    free(state_folder);
    files_open(&c->files, wake, NULL);
    c->workers = 1;
    c->worker[0] = (struct worker_entry){.peer = PEER, .id = "w-0", .state = WORKER_READY, .proved = true};
    elements = gpt2_parameters(&c->model);
    segments = segment_count(elements);
    values = mem_alloc(elements * sizeof *values);
    for (size_t i = 0; i < elements; i++) values[i] = (float)(i % 1000);
    digests = mem_alloc(c->parts.count * segments * XXH128_BYTES);
    for (size_t i = 0; i < c->parts.count * segments; i++)
        xxh128_of(digests + i * XXH128_BYTES, values + i % segments * SEGMENT_ELEMENTS,
                  segment_size(elements, i % segments) * state_element_bytes(&c->parts, c->parts.part[i / segments]));
    xxh128_of(digest, digests, c->parts.count * segments * XXH128_BYTES);
    free(digests);
    c->trainer = mem_alloc(sizeof *c->trainer);
    trainer_open(c->trainer, &(struct trainer_options){.slices = 4, .max_steps = 10, .save_steps = 1, .patience_ms = 60000}, STEP, 0, 0);
    trainer_present(c->trainer, 0, STEP, digest, 0);
    trainer_tick(c->trainer, TRAINER_GATHER_MS);
    trainer_applied(c->trainer, 0, STEP, digest, TRAINER_GATHER_MS);
    while (trainer_action(c->trainer, &action) && action.kind != ACTION_SAVE) {}
    assert_int_equal(action.kind, ACTION_SAVE);
    loop_syncs = loop_renames = others_syncs = 0;
    loop_read_bytes = others_read_bytes = 0;
    mute = 0;
    gate_at_sync = gate_at_rename = waits_at_gate = rename_fails = false;
    return 0;
}

static int take_down(void **state) {
    (void)state;
    files_close(c->files, c);
    parts_close(c);
    store_close(c->store);
    tokenizer_close(c->tokenizer);
    free(c);
    free(values);
    config_free(&config);
    return folder_remove(folder);
}

static void answer_one(const struct read *read) {
    size_t segment = read->body.c;
    Millrace__Data data = MILLRACE__DATA__INIT;
    struct message message = {.envelope = {.kind = MILLRACE__KIND__DATA, .job = read->id}, .body = &data.base};
    message.chunk = (const uint8_t *)(values + segment * SEGMENT_ELEMENTS);
    message.chunk_bytes = segment_size(elements, segment) * state_element_bytes(&c->parts, (enum state_part)read->body.a);
    if (read->peer == mute) data.status = MILLRACE__DATA__STATUS__FAULT, message.chunk_bytes = 0;
    struct read asked;
    assert_true(reads_take(&c->reads, &asked, read->id));
    saving_data(c, &asked, &message);
}

/* Every open question is answered, until there is none. */
static void answer_all(void) {
    while (c->reads.count) answer_one(&c->reads.read[0]);
}

/* The member gives its state, whole; or another one. */
static void give(bool other) {
    saving_begin(c, STEP);
    values[1] += other;
    assert_true(c->reads.count > 0);
    answer_all();
    values[1] -= other;
}

static void save(void) { give(false); }

static void poll_until_published(void) {
    while (saving_publishes(c)) {
        files_poll(c->files, c);
        clock_sleep_ms(1);
    }
    training_saves(c);
}

static void wait_for_gate(void) {
    while (!atomic_load(&waits_at_gate)) clock_sleep_ms(1);
}

/* ---- the tests ---- */

static void the_loop_neither_waits_for_the_disk_nor_reads_what_it_wrote(void **state) {
    (void)state;
    save();
    poll_until_published();
    assert_true(published());
    assert_int_equal(c->trainer->checkpoint, STEP);
    assert_false(c->trainer->saving);
    assert_int_equal(loop_syncs, 0);
    assert_int_equal(loop_renames, 0);
    assert_int_equal(loop_read_bytes, 0);
    assert_true(others_syncs > 0);
    assert_true(others_read_bytes >= elements * sizeof(float) * c->parts.count);
}

static void members_may_be_lost_meanwhile(void **state) {
    (void)state;
    struct action action;
    atomic_store(&gate_at_sync, true);
    save();
    wait_for_gate();
    files_poll(c->files, c);
    assert_true(saving_publishes(c));
    roster_lost(c, 0, WORKER_LOST, "gone");
    training_worker(c, 0, false); /* as the loop does then */
    for (int i = 1; i < 10; i++) trainer_tick(c->trainer, i * 10 * TRAINER_GATHER_MS);
    saving_begin(c, STEP); /* as the loop's turns do */
    assert_false(trainer_action(c->trainer, &action));
    assert_true(c->trainer->saving);
    atomic_store(&gate_at_sync, false);
    poll_until_published();
    assert_true(published());
    assert_int_equal(c->trainer->checkpoint, STEP);
    assert_int_equal(c->trainer->committed, STEP);
}

static void an_evaluation_meanwhile_is_told_too(void **state) {
    (void)state;
    struct checkpoint *checkpoint;
    struct checkpoint_facts told;
    atomic_store(&gate_at_sync, true);
    save();
    wait_for_gate();
    metrics_evaluation(c, &(struct evaluation_row){.step = STEP, .loss = 1.5, .tokens = 1});
    atomic_store(&gate_at_sync, false);
    poll_until_published();
    assert_true(training_tells(c)); /* a stop waits for that */
    files_drain(c->files, c);
    assert_false(training_tells(c));
    assert_int_equal(loop_syncs + loop_renames, 0);
    assert_int_equal(loop_read_bytes, 0);
    assert_int_equal(checkpoint_open(&checkpoint, c->newest_path), 0);
    assert_int_equal(checkpoint_facts(checkpoint, &told), 0);
    checkpoint_close(checkpoint);
    assert_int_equal(told.eval_step, STEP);
    assert_true(told.eval_loss == 1.5);
}

/* Else a loss of power could leave neither. */
static void the_checkpoint_before_goes_when_its_successor_has_its_place_on_the_disk(void **state) {
    (void)state;
    struct buf log = {0};
    struct checkpoint *checkpoint;
    save();
    poll_until_published();
    exchanged = exchange_synced = false;
    removed_after = removed_too_early = 0;
    assert_int_equal(buf_print(&log, "{}"), 0);
    assert_int_equal(checkpoint_add_evaluation(c->newest_path, 1.5, STEP, &log), 0);
    buf_free(&log);
    if (exchanged) assert_true(removed_after > 0); /* else on a file system that cannot exchange */
    assert_int_equal(removed_too_early, 0);
    assert_int_equal(checkpoint_open(&checkpoint, c->newest_path), 0);
    assert_int_equal(checkpoint_verify(checkpoint), 0);
    checkpoint_close(checkpoint);
    exchanged = false;
}

static void a_stop_leaves_what_has_no_name_yet(void **state) {
    (void)state;
    atomic_store(&gate_at_sync, true);
    save();
    wait_for_gate();
    saving_leave(c); /* does not wait for the disk */
    assert_true(saving_publishes(c));
    atomic_store(&gate_at_sync, false);
    files_close(c->files, c);
    c->files = NULL;
    assert_false(saving_publishes(c));
    assert_false(published());
    assert_int_equal(c->trainer->checkpoint, 0);
    size_t swept;
    assert_int_equal(drafts_sweep(&swept, folder), 0);
    assert_int_equal(swept, 0); /* the draft is gone already */
}

static atomic_bool leaves;
static void *open_gate(void *arg) {
    while (!atomic_load(&leaves)) clock_sleep_ms(1);
    atomic_store(&gate_at_rename, false);
    return arg;
}

static void a_stop_waits_for_what_gets_its_name(void **state) {
    (void)state;
    pthread_t opener;
    atomic_store(&leaves, false);
    atomic_store(&gate_at_rename, true);
    assert_int_equal(pthread_create(&opener, NULL, open_gate, NULL), 0);
    save();
    wait_for_gate();
    atomic_store(&leaves, true);
    saving_leave(c);
    training_saves(c);
    assert_false(saving_publishes(c));
    assert_true(published());
    assert_int_equal(c->trainer->checkpoint, STEP); /* so the last line says that it is saved */
    pthread_join(opener, NULL);
}

static void what_cannot_be_published_is_tried_again(void **state) {
    (void)state;
    atomic_store(&rename_fails, true);
    save();
    poll_until_published();
    assert_false(published());
    assert_int_equal(c->trainer->checkpoint, 0);
    assert_int_equal(c->trainer->save_tries, 1);
    assert_false(c->trainer->publishing);
    atomic_store(&rename_fails, false);
    trainer_tick(c->trainer, TRAINER_GATHER_MS);
    assert_true(c->trainer->saving);
    saving_close(c); /* the pause is over */
    saving_open(c);
    save();
    poll_until_published();
    assert_int_equal(c->trainer->checkpoint, STEP);
}

static void a_disk_that_fails_after_another_state_came_is_not_tried_without_a_pause(void **state) {
    (void)state;
    give(true);
    assert_false(saving_publishes(c));
    assert_int_equal(c->trainer->save_tries, 0); /* at once again: who gives another state is found so */
    atomic_store(&rename_fails, true);
    save();
    poll_until_published();
    assert_int_equal(c->trainer->save_tries, 1);
    saving_tick(c, clock_ms());
    assert_int_equal(c->reads.count, 0);
    assert_true(*paused_why(c) != 0);
}

/* It comes in again to read the state from others, or from the checkpoint: what it told of its own is not believed any more. */
static void who_gave_another_state_than_it_told_comes_in_without_one(void **state) {
    (void)state;
    c->worker[0].has_state = true;
    c->worker[0].state_step = STEP;
    memcpy(c->worker[0].state_digest, c->trainer->state_digest, XXH128_BYTES);
    for (int i = 0; i < 2; i++) give(true); /* from the second time on it is clear who gave it */
    training_saves(c);
    const struct member *m = trainer_member(c->trainer, 0);
    assert_true(m && !m->has_digest);
    assert_int_equal(c->worker[0].false_states, 1);
}

static void why_a_save_failed_is_forgotten_when_nothing_is_to_be_saved(void **state) {
    (void)state;
    atomic_store(&rename_fails, true);
    save();
    poll_until_published();
    trainer_tick(c->trainer, TRAINER_GATHER_MS);
    saving_tick(c, clock_ms());
    assert_true(*paused_why(c) != 0);
    c->trainer->saving = false; /* all went back to an earlier step */
    saving_tick(c, clock_ms());
    assert_true(*paused_why(c) == 0);
}

enum { LATER_MS = 2 * TRAINER_GATHER_MS };

/* A second one, that holds the state, too. */
static void add_member(void) {
    struct action action;
    c->workers = 2;
    c->worker[1] = (struct worker_entry){.peer = PEER + 1, .id = "w-1", .state = WORKER_READY, .proved = true};
    trainer_present(c->trainer, 1, STEP, c->trainer->state_digest, LATER_MS);
    trainer_applied(c->trainer, 1, STEP, c->trainer->state_digest, LATER_MS);
    while (trainer_action(c->trainer, &action)) {}
}

static void what_a_lost_member_was_asked_for_is_asked_of_others_at_once(void **state) {
    (void)state;
    add_member();
    saving_begin(c, STEP);
    assert_true(reads_open_at(&c->reads, PEER + 1) > 0);
    roster_lost(c, 1, WORKER_LOST, "gone");
    trainer_absent(c->trainer, 1, LATER_MS); /* as the loop does then */
    saving_drop_worker(c);
    for (int turns = 0; turns < 3; turns++) { /* of the loop, in much less than a lease's time */
        answer_all();
        saving_tick(c, clock_ms());
    }
    assert_true(saving_publishes(c));
    poll_until_published();
    assert_int_equal(c->trainer->checkpoint, STEP);
}

static void what_a_member_does_not_give_is_asked_of_others_at_once(void **state) {
    (void)state;
    add_member();
    mute = PEER;
    saving_begin(c, STEP);
    assert_true(reads_open_at(&c->reads, PEER) > 0);
    for (int turns = 0; turns < 3; turns++) {
        answer_all();
        saving_tick(c, clock_ms());
    }
    assert_true(saving_publishes(c));
    poll_until_published();
    assert_int_equal(c->trainer->checkpoint, STEP);
}

/* Of who was lost the same is asked anew as is open at others, and comes twice. */
static void what_comes_twice_counts_once(void **state) {
    (void)state;
    saving_begin(c, STEP);
    saving_drop_worker(c);
    answer_all();
    saving_tick(c, clock_ms());
    assert_int_equal(c->reads.count, 1); /* the one item that is missing: it did not begin anew */
    answer_all();
    assert_true(saving_publishes(c));
    poll_until_published();
    assert_int_equal(c->trainer->checkpoint, STEP);
}

static void who_gives_its_state_slowly_is_not_called_mute(void **state) {
    (void)state;
    saving_begin(c, STEP);
    int64_t began_ms = clock_ms(), lease_ms = (int64_t)(config.cluster.lease_seconds * 1000);
    clock_sleep_ms(5);
    answer_one(&c->reads.read[0]);
    saving_tick(c, began_ms + lease_ms + 1); /* less than a lease since something came */
    assert_int_equal(c->worker[0].mute_step, 0);
    answer_all();
    poll_until_published();
    assert_int_equal(c->trainer->checkpoint, STEP);
}

static void who_was_not_heard_while_the_loop_stood_still_is_not_called_mute(void **state) {
    (void)state;
    saving_begin(c, STEP);
    int64_t lease_ms = (int64_t)(config.cluster.lease_seconds * 1000), now_ms = clock_ms() + 5 * lease_ms;
    saving_pause(c, 5 * lease_ms, now_ms);
    saving_tick(c, now_ms + lease_ms / 2);
    assert_int_equal(c->worker[0].mute_step, 0);
    saving_tick(c, now_ms + lease_ms + 1);
    assert_int_equal(c->worker[0].mute_step, STEP);
}

static void questions_for_a_checkpoint_that_is_not_wanted_any_more_are_dropped(void **state) {
    (void)state;
    saving_begin(c, STEP);
    assert_true(c->reads.count > 0);
    c->trainer->saving = false; /* all went back to an earlier step */
    saving_tick(c, clock_ms());
    assert_int_equal(c->reads.count, 0);
}

/* The second member, which joins, took the state over or could not. */
static void tell_applied(bool took) {
    Millrace__Applied applied = MILLRACE__APPLIED__INIT;
    assert_non_null(trainer_member(c->trainer, 1));
    if (trainer_member(c->trainer, 1)->state == MEMBER_PRESENT) training_tick(c, trainer_member(c->trainer, 1)->since_ms);
    assert_int_equal(trainer_member(c->trainer, 1)->state, MEMBER_JOINING);
    if (took) applied.digest = (ProtobufCBinaryData){XXH128_BYTES, c->trainer->state_digest};
    training_message(c, 1, &(struct message){.envelope = {.kind = MILLRACE__KIND__APPLIED, .step = STEP}, .body = &applied.base});
}

/* It alone holds the state, and is set aside as soon as another one may train, which has not even read it: nobody holds it then. But it
 * still answers what it was asked for, and its last answer comes before the loop's next turn. */
static void the_last_answer_of_who_was_set_aside_publishes_nothing(void **state) {
    (void)state;
    Millrace__Slice slice = MILLRACE__SLICE__INIT;
    c->dataset->manifest.packing = mem_text("concat");
    saving_begin(c, STEP);
    for (size_t left = c->parts.count * segments; left > c->reads.count; left--) answer_one(&c->reads.read[0]); /* all is asked for */
    assert_true(c->reads.count > 0);
    c->worker[0].peer = 0; /* nothing is sent */
    c->workers = 2;
    c->worker[1] = (struct worker_entry){.id = "w-1", .state = WORKER_READY, .proved = true};
    training_worker(c, 1, true);
    slice.tokens = UINT32_MAX;
    training_message(c, 0, &(struct message){.envelope = {.kind = MILLRACE__KIND__SLICE, .step = STEP + 1}, .body = &slice.base});
    assert_string_not_equal(c->worker[0].aside, "");
    assert_int_equal(c->trainer->phase, TRAINER_GATHER);
    answer_all();
    assert_false(saving_publishes(c));
    saving_tick(c, clock_ms());
    assert_false(published());
    assert_int_equal(c->reads.count, 0);
}

static void a_joiner_that_fails_now_and_then_is_not_set_aside(void **state) {
    (void)state;
    enum { OFTEN = 7 };
    add_member();
    c->worker[0].peer = c->worker[1].peer = 0; /* nothing is sent */
    c->dataset->manifest.packing = mem_text("concat");
    for (int joins = 0; joins < 3; joins++) {
        training_worker(c, 1, false);
        training_worker(c, 1, true);
        for (int i = 0; i < OFTEN; i++) tell_applied(false);
        assert_string_equal(c->worker[1].aside, "");
        tell_applied(joins < 2); /* the last time it is once too often in a row */
    }
    assert_string_not_equal(c->worker[1].aside, "");
}

/* What it reads from may be back in a second: eight failures at once would say nothing. */
static void a_joiner_that_failed_is_asked_again_later_and_later(void **state) {
    (void)state;
    add_member();
    c->worker[0].peer = c->worker[1].peer = 0;
    c->dataset->manifest.packing = mem_text("concat");
    training_worker(c, 1, false);
    training_worker(c, 1, true);
    for (int64_t pause_ms = 250; pause_ms <= 4000; pause_ms *= 2) {
        tell_applied(false);
        const struct member *m = trainer_member(c->trainer, 1);
        assert_int_equal(m->state, MEMBER_PRESENT);
        assert_true(m->since_ms - clock_ms() > pause_ms - 200 && m->since_ms - clock_ms() <= pause_ms);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_loop_neither_waits_for_the_disk_nor_reads_what_it_wrote, set_up, take_down),
        cmocka_unit_test_setup_teardown(members_may_be_lost_meanwhile, set_up, take_down),
        cmocka_unit_test_setup_teardown(what_a_lost_member_was_asked_for_is_asked_of_others_at_once, set_up, take_down),
        cmocka_unit_test_setup_teardown(what_a_member_does_not_give_is_asked_of_others_at_once, set_up, take_down),
        cmocka_unit_test_setup_teardown(what_comes_twice_counts_once, set_up, take_down),
        cmocka_unit_test_setup_teardown(who_gives_its_state_slowly_is_not_called_mute, set_up, take_down),
        cmocka_unit_test_setup_teardown(who_was_not_heard_while_the_loop_stood_still_is_not_called_mute, set_up, take_down),
        cmocka_unit_test_setup_teardown(questions_for_a_checkpoint_that_is_not_wanted_any_more_are_dropped, set_up, take_down),
        cmocka_unit_test_setup_teardown(the_last_answer_of_who_was_set_aside_publishes_nothing, set_up, take_down),
        cmocka_unit_test_setup_teardown(a_joiner_that_fails_now_and_then_is_not_set_aside, set_up, take_down),
        cmocka_unit_test_setup_teardown(a_joiner_that_failed_is_asked_again_later_and_later, set_up, take_down),
        cmocka_unit_test_setup_teardown(an_evaluation_meanwhile_is_told_too, set_up, take_down),
        cmocka_unit_test_setup_teardown(the_checkpoint_before_goes_when_its_successor_has_its_place_on_the_disk, set_up, take_down),
        cmocka_unit_test_setup_teardown(a_stop_leaves_what_has_no_name_yet, set_up, take_down),
        cmocka_unit_test_setup_teardown(a_stop_waits_for_what_gets_its_name, set_up, take_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_published_is_tried_again, set_up, take_down),
        cmocka_unit_test_setup_teardown(a_disk_that_fails_after_another_state_came_is_not_tried_without_a_pause, set_up, take_down),
        cmocka_unit_test_setup_teardown(who_gave_another_state_than_it_told_comes_in_without_one, set_up, take_down),
        cmocka_unit_test_setup_teardown(why_a_save_failed_is_forgotten_when_nothing_is_to_be_saved, set_up, take_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
