/* A whole worker, both of its threads, on a link without sockets: what its network thread does by itself says nothing about its work.
 * Whom it names as unheard is who is asked for something now.
 *
 * The test plays coordinator and peer whenever the worker waits for messages, so thousands of heartbeats take no time. */
#include "workers/worker.h"

#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/trial/self_test.h"

#include "proto/session.h"
#include "workers/shared.h"
#include "workers/work.h"
#include "tests/unit/config/parse.h"
#include "tests/unit/no_memory.h"
#include "tests/unit/world.h"

#define PIPELINE "model: {n_layer: 1, n_head: 2, n_embd: 16}\ndataset: {sources: [/tmp/a.txt], sequence_length: 8}\n"

enum {
    BEATS = 200,
    HUNG_BEATS = 50,       /* of a work thread that hangs: enough for any lease */
    REAL_PATIENCE_S = 60, /* for the work thread, whose time is not ours */
};

enum scene { WELCOMING, IDLE, WORKING, HANGING, GOING_ON, LEAVING };

static struct {
    enum scene scene;
    struct link *coordinator, *peer;
    struct session session;        /* of the coordinator with the worker */
    uint64_t worker, at_peer; /* the worker's number at each */
    char *endpoint;           /* where peers reach it */
    size_t beats, answers, reads, hung;
    uint64_t progress; /* of the work thread when it had nothing to do any more */
    time_t since;
} play;

/* Its work thread hangs outside of any slice and job, until it is released. */
static atomic_bool hangs, released;

int __wrap_self_test(uint8_t out[SHA256_BYTES], const struct gpt2_config *config, const struct optimizer *optimizer, int sequence_length,
                     struct pool *pool);
int __wrap_self_test(uint8_t out[SHA256_BYTES], const struct gpt2_config *config, const struct optimizer *optimizer, int sequence_length,
                     struct pool *pool) {
    (void)config, (void)optimizer, (void)sequence_length, (void)pool;
    memset(out, 1, SHA256_BYTES);
    atomic_store(&hangs, true);
    while (!atomic_load(&released)) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return 0;
}

static void say(struct link *link, uint64_t to, const struct envelope *envelope, const ProtobufCMessage *body) {
    struct frame frame;
    struct envelope numbered = *envelope;
    if (link == play.coordinator) {
        numbered.sequence = session_number(&play.session, session_counts(envelope->kind));
        session_sent(&play.session, session_counts(envelope->kind));
    }
    assert_int_equal(frame_pack(&frame, &numbered, body, NULL, 0, FRAME_NONE), 0);
    assert_int_equal(link_send(link, to, &frame), 0);
}

static void say_nothing_more_than(uint32_t kind, uint64_t job) {
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    say(play.coordinator, play.worker, &(struct envelope){.kind = kind, .job = job}, &empty.base);
}

static void say_welcome(const char *tokenizer) {
    Millrace__Welcome body = MILLRACE__WELCOME__INIT;
    body.config = (char *)PIPELINE;
    body.generation = 1;
    body.tokenizer = (ProtobufCBinaryData){strlen(tokenizer), (uint8_t *)tokenizer};
    play.session = (struct session){0};
    say(play.coordinator, play.worker, &(struct envelope){.kind = MILLRACE__KIND__WELCOME, .run = 5}, &body.base);
}

static void welcome(const Millrace__Hello *hello) {
    if (play.endpoint) return; /* once: each is a message for the work thread */
    play.endpoint = mem_text(hello->endpoint);
    say_welcome("");
}

/* All that can be wanted of the network thread alone. */
static void pester(void) {
    Millrace__Read read = MILLRACE__READ__INIT;
    read.what = MILLRACE__READ__WHAT__OUTPUT; /* of no job: refused at once */
    read.a = play.beats;
    read.size = 10;
    struct envelope envelope = {.kind = MILLRACE__KIND__READ, .job = ++play.reads};
    assert_int_equal(link_connect(play.peer, &play.at_peer, play.endpoint), 0);
    say(play.peer, play.at_peer, &envelope, &read.base);
    read.what = MILLRACE__READ__WHAT__SUM; /* not there yet: parked */
    envelope.job = ++play.reads;
    say(play.peer, play.at_peer, &envelope, &read.base);
    say(play.coordinator, play.worker, &envelope, &read.base);
    Millrace__Data data = MILLRACE__DATA__INIT; /* nobody asked */
    envelope.kind = MILLRACE__KIND__DATA;
    say(play.peer, play.at_peer, &envelope, &data.base);
    say(play.coordinator, play.worker, &envelope, &data.base);
    say_nothing_more_than(MILLRACE__KIND__HEARTBEAT, 0);
}

static void on_heartbeat(const Millrace__Heartbeat *beat) {
    if (play.scene == IDLE) {
        if (play.beats++ == 0) play.progress = beat->progress;
        if (beat->progress != play.progress)
            fail_msg("progress went from %llu to %llu without work", (unsigned long long)play.progress, (unsigned long long)beat->progress);
        pester();
        if (play.beats < BEATS) return;
        play.scene = WORKING;
        play.since = time(NULL);
        say_nothing_more_than(MILLRACE__KIND__SETTLED, 77); /* a message for the work thread */
    } else if (play.scene == WORKING && beat->progress > play.progress && !beat->busy) {
        play.scene = HANGING;
        say_nothing_more_than(MILLRACE__KIND__SELF_TEST, 0);
    } else if (play.scene == HANGING && atomic_load(&hangs)) {
        if (play.hung++ < 2) play.progress = beat->progress; /* the first one may be of the moment before */
        else if (!beat->busy || beat->progress != play.progress) fail_msg("a worker that hangs does not say so");
        if (play.hung < HUNG_BEATS) return;
        play.scene = GOING_ON;
        atomic_store(&released, true);
    } else if (play.scene == GOING_ON && !beat->busy) {
        play.scene = LEAVING;
        say_nothing_more_than(MILLRACE__KIND__GOODBYE, 0);
    }
}

/* The worker's network thread is about to wait. */
static void on_idle(void *arg) {
    (void)arg;
    struct message message;
    uint64_t from;
    while (link_receive(play.coordinator, &play.worker, &message, 0) == 1) {
        if (message.envelope.kind == MILLRACE__KIND__HELLO) welcome((const Millrace__Hello *)message.body);
        if (message.envelope.kind == MILLRACE__KIND__READY) play.scene = IDLE; /* the last thing that the work thread does of itself */
        if (message.envelope.kind == MILLRACE__KIND__HEARTBEAT) on_heartbeat((const Millrace__Heartbeat *)message.body);
        message_free(&message);
    }
    while (link_receive(play.peer, &from, &message, 0) == 1) {
        play.answers += message.envelope.kind == MILLRACE__KIND__DATA;
        message_free(&message);
    }
    if (time(NULL) - play.since > REAL_PATIENCE_S) fail_msg("nothing happens any more in scene %d", (int)play.scene);
    if (play.scene == IDLE) return;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* its time is real */
}

/* And a worker that hangs, whatever it is at, is busy without progress: for that it is lost. */
static void only_work_counts_as_progress(void **state) {
    (void)state;
    world_begin(random_open("agent"));
    memset(&play, 0, sizeof play);
    play.since = time(NULL);
    assert_int_equal(link_open(&play.coordinator, &(struct link_options){.bind = "tcp://127.0.0.1:1"}), 0);
    assert_int_equal(link_open(&play.peer, &(struct link_options){0}), 0);
    world.idle = on_idle;
    struct worker_options options = {.connect = "tcp://127.0.0.1:1", .threads = 1};
    int code = worker_run(&options);
    if (code != 0) fail_msg("%s", err_text());
    assert_int_equal(play.scene, LEAVING);
    assert_int_equal(play.hung, HUNG_BEATS);
    assert_true(play.answers >= BEATS - 1); /* it did serve */
    link_close(play.coordinator);
    link_close(play.peer);
    free(play.endpoint);
}

/* ---- who does not answer ---- */

#define NOBODY "tcp://127.0.0.1:9" /* listens there */

static volatile sig_atomic_t asked_to_leave;
static int leaving; /* how often it will be */

static struct {
    size_t joins, named, unnamed; /* heartbeats since the last JOIN, or in a row, in which NOBODY was named, and was not */
} call;

/* Of a state that is read from that giver, or from the coordinator. */
static void say_join(char *giver) {
    Millrace__Join join = MILLRACE__JOIN__INIT;
    Millrace__Geometry geometry = MILLRACE__GEOMETRY__INIT;
    geometry.sequence_length = 8, geometry.token_bytes = 2;
    geometry.frame_tokens = 80, geometry.shard_tokens = 800, geometry.tokens = 8000;
    join.step = 4, join.geometry = &geometry;
    join.peers = &giver, join.n_peers = giver != NULL;
    say(play.coordinator, play.worker, &(struct envelope){.kind = MILLRACE__KIND__JOIN, .step = 4}, &join.base);
}

/* Told to join anew, from others, as the coordinator does it. Once is enough, unless its last question was on its way just then. */
static void on_call(const Millrace__Heartbeat *beat) {
    enum { NAMED = 3, UNNAMED = 30, JOINS_MAX = 5 };
    bool named = beat->n_unheard == 1 && strcmp(beat->unheard[0], NOBODY) == 0;
    assert_true(named || beat->n_unheard == 0);
    call.named += named;
    call.unnamed = named ? 0 : call.unnamed + 1;
    if (call.named == NAMED) {
        call.named = 0;
        call.joins++;
        assert_in_range(call.joins, 2, JOINS_MAX);
        say_join(NULL);
    } else if (call.joins > 1 && call.unnamed == UNNAMED) say_nothing_more_than(MILLRACE__KIND__GOODBYE, 0);
}

static void on_idle_call(void *arg) {
    (void)arg;
    struct message message;
    while (link_receive(play.coordinator, &play.worker, &message, 0) == 1) {
        if (message.envelope.kind == MILLRACE__KIND__HELLO) welcome((const Millrace__Hello *)message.body);
        if (message.envelope.kind == MILLRACE__KIND__READY) {
            call.joins = 1;
            say_join((char *)NOBODY);
        }
        if (message.envelope.kind == MILLRACE__KIND__HEARTBEAT) on_call((const Millrace__Heartbeat *)message.body);
        message_free(&message);
    }
    if (time(NULL) - play.since > REAL_PATIENCE_S) fail_msg("nothing happens any more after %zu JOINs", call.joins);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* A whole worker, with a coordinator that does what `idle` does. */
static int run_worker(void (*idle)(void *arg)) {
    world_begin(random_open("agent"));
    memset(&play, 0, sizeof play);
    play.since = time(NULL);
    assert_int_equal(link_open(&play.coordinator, &(struct link_options){.bind = "tcp://127.0.0.1:1"}), 0);
    world.idle = idle;
    int code = worker_run(&(struct worker_options){.connect = "tcp://127.0.0.1:1", .threads = 1, .stops = &asked_to_leave});
    link_close(play.coordinator);
    free(play.endpoint);
    return code;
}

/* A giver that does not answer is named until another state is to be taken: who still named it would be told to join anew for ever. */
static void who_is_not_asked_any_more_is_not_named_any_more(void **state) {
    (void)state;
    memset(&call, 0, sizeof call);
    int code = run_worker(on_idle_call);
    if (code != 0) fail_msg("%s", err_text());
    assert_true(call.joins >= 2);
}

/* ---- what it says, and is told, at the beginning ---- */

static struct worker *_Atomic at_work;

void *__real_work_main(void *worker);
void *__wrap_work_main(void *worker);
void *__wrap_work_main(void *worker) {
    atomic_store(&at_work, (struct worker *)worker);
    return __real_work_main(worker);
}

static void set_state_changes(bool changes) {
    struct worker *worker = atomic_load(&at_work);
    pthread_mutex_lock(&worker->lock);
    worker->shared.offer.state_changes = changes;
    pthread_mutex_unlock(&worker->lock);
}

static struct {
    int64_t until_ms; /* for so long its state changes; 0: not yet */
    size_t readies;
} beginning;

/* How many HELLO came; each READY is counted, too. */
static size_t hear_hellos(bool answer) {
    struct message message;
    size_t hellos = 0;
    while (link_receive(play.coordinator, &play.worker, &message, 0) == 1) {
        hellos += message.envelope.kind == MILLRACE__KIND__HELLO;
        beginning.readies += message.envelope.kind == MILLRACE__KIND__READY;
        if (answer && message.envelope.kind == MILLRACE__KIND__HELLO) welcome((const Millrace__Hello *)message.body);
        message_free(&message);
    }
    if (time(NULL) - play.since > REAL_PATIENCE_S) fail_msg("nothing happens any more");
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return hellos;
}

static void on_idle_changing(void *arg) {
    (void)arg;
    enum { CHANGES_MS = 10000 }; /* ten times what a HELLO without an answer is said again after */
    bool changing = beginning.until_ms > clock_ms();
    size_t hellos = hear_hellos(beginning.until_ms && !changing);
    if (changing && hellos) fail_msg("a HELLO while the state has no digest");
    if (!beginning.until_ms && atomic_load(&at_work)) {
        set_state_changes(true);
        beginning.until_ms = clock_ms() + CHANGES_MS;
    } else if (beginning.until_ms && !changing) set_state_changes(false);
    if (beginning.readies) say_nothing_more_than(MILLRACE__KIND__GOODBYE, 0);
}

/* A HELLO without the state's digest would be answered with an older state, though the newest one is nearly there. */
static void no_hello_is_said_while_the_state_changes(void **state) {
    (void)state;
    memset(&beginning, 0, sizeof beginning);
    atomic_store(&at_work, NULL);
    assert_int_equal(run_worker(on_idle_changing), 0);
    assert_true(beginning.until_ms);
}

/* The same pipeline twice, then one with another tokenizer; who takes that for the same gets no further. */
static void on_idle_welcomes(void *arg) {
    (void)arg;
    size_t before = beginning.readies;
    hear_hellos(true);
    if (beginning.readies == before) return;
    if (beginning.readies == 1) say_welcome("");
    else if (beginning.readies == 2) say_welcome("another tokenizer");
    else say_nothing_more_than(MILLRACE__KIND__GOODBYE, 0);
}

static void another_tokenizer_is_another_pipeline(void **state) {
    (void)state;
    memset(&beginning, 0, sizeof beginning);
    assert_int_equal(run_worker(on_idle_welcomes), WORKER_AGAIN);
    assert_int_equal(beginning.readies, 2);
}

/* ---- who leaves while its work thread computes ---- */

static void on_idle_computing(void *arg) {
    (void)arg;
    hear_hellos(true);
    if (!beginning.readies) return;
    if (!beginning.until_ms) say_nothing_more_than(MILLRACE__KIND__SELF_TEST, 0);
    beginning.until_ms = 1;
    if (atomic_load(&hangs)) asked_to_leave = leaving;
}

/* Asked twice, or once without a grace; a slice may take minutes. Its process ends, and with it what the work thread uses. */
static void who_is_asked_to_leave_does_not_wait_for_what_is_computed(void **state) {
    (void)state;
    static const char *const says[] = {"stopped: the grace is over", "stopped at once"};
    for (leaving = 1; leaving <= 2; leaving++) {
        int status, left = fork();
        if (left == 0) {
            memset(&beginning, 0, sizeof beginning);
            atomic_store(&hangs, false);
            atomic_store(&released, false);
            alarm(REAL_PATIENCE_S); /* who waits all the same waits for ever */
            int code = run_worker(on_idle_computing);
            _exit(code == ERR_INTERRUPTED && strcmp(err_text(), says[leaving - 1]) == 0 ? 0 : 1);
        }
        assert_int_equal(waitpid(left, &status, 0), left);
        assert_int_equal(status, 0);
    }
}

/* ---- no memory for a message ---- */

static void on_idle_without_memory(void *arg) {
    (void)arg;
    struct message message;
    while (link_receive(play.coordinator, &play.worker, &message, 0) == 1) {
        if (message.envelope.kind == MILLRACE__KIND__HELLO) welcome((const Millrace__Hello *)message.body);
        if (message.envelope.kind == MILLRACE__KIND__READY) {
            Millrace__Read read = MILLRACE__READ__INIT;
            read.what = MILLRACE__READ__WHAT__OUTPUT;
            read.size = 10;
            say(play.coordinator, play.worker, &(struct envelope){.kind = MILLRACE__KIND__READ, .job = 1}, &read.base);
        }
        message_free(&message);
    }
    if (time(NULL) - play.since > REAL_PATIENCE_S) fail_msg("the worker goes on without memory for %s", kind_name(too_large));
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* To the coordinator nothing goes any more, as when ZeroMQ gave the connection up. */
static bool gone;
static uint32_t first_question; /* the kind of the first message that wants an answer of another worker; 0: none went */

int __real_link_send(struct link *link, uint64_t peer, struct frame *frame);
int __wrap_link_send(struct link *link, uint64_t peer, struct frame *frame);
int __wrap_link_send(struct link *link, uint64_t peer, struct frame *frame) {
    struct envelope envelope = {0};
    bool asks = frame_peek(&envelope, frame->header.data, frame->header.size) &&
                (envelope.kind == MILLRACE__KIND__READ || (envelope.kind == MILLRACE__KIND__HEARTBEAT && envelope.job));
    if (asks && !first_question) first_question = envelope.kind;
    if (!gone) return __real_link_send(link, peer, frame);
    frame_free(frame);
    return err_set(ERR_LIMIT, "peer %llu does not read", (unsigned long long)peer);
}

static void on_idle_gone(void *arg) {
    (void)arg;
    hear_hellos(true);
    gone |= beginning.readies > 0;
}

static void a_worker_whose_connection_was_given_up_ends_and_says_why(void **state) {
    (void)state;
    memset(&beginning, 0, sizeof beginning);
    int code = run_worker(on_idle_gone);
    gone = false;
    assert_int_equal(code, ERR_MEMORY);
    assert_non_null(strstr(err_text(), "nothing goes to the coordinator, and nothing comes from it: " MEM_EXHAUSTED));
}

static void on_idle_several(void *arg) {
    (void)arg;
    size_t before = beginning.readies;
    hear_hellos(true);
    if (beginning.readies > before) say_join((char *)"tcp://127.0.0.1:8," NOBODY);
    if (first_question) say_nothing_more_than(MILLRACE__KIND__GOODBYE, 0);
}

/* A whole segment over a slow link takes longer than an address has to answer. */
static void one_of_several_addresses_is_asked_for_a_small_answer_first(void **state) {
    (void)state;
    memset(&beginning, 0, sizeof beginning);
    first_question = 0;
    assert_int_equal(run_worker(on_idle_several), 0);
    assert_int_equal(first_question, MILLRACE__KIND__HEARTBEAT);
}

/* Of the work thread, the network thread by itself, and its answers. Who waits for the message would do so for ever. */
static void a_worker_without_memory_for_a_message_ends_and_says_so(void **state) {
    (void)state;
    static const uint32_t kinds[] = {MILLRACE__KIND__READY, MILLRACE__KIND__HEARTBEAT, MILLRACE__KIND__DATA};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        too_large = kinds[i];
        int code = run_worker(on_idle_without_memory);
        too_large = 0;
        assert_int_equal(code, ERR_MEMORY);
        assert_non_null(strstr(err_text(), MEM_EXHAUSTED "5 bytes"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_work_counts_as_progress),
        cmocka_unit_test(who_is_not_asked_any_more_is_not_named_any_more),
        cmocka_unit_test(no_hello_is_said_while_the_state_changes),
        cmocka_unit_test(another_tokenizer_is_another_pipeline),
        cmocka_unit_test(who_is_asked_to_leave_does_not_wait_for_what_is_computed),
        cmocka_unit_test(one_of_several_addresses_is_asked_for_a_small_answer_first),
        cmocka_unit_test(a_worker_without_memory_for_a_message_ends_and_says_so),
        cmocka_unit_test(a_worker_whose_connection_was_given_up_ends_and_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
