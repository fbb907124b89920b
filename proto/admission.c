/* A table of keys for each ROUTER, all in one list, and the thread that answers ZeroMQ's questions from it. */
#include "proto/admission.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

/* The parts of ZeroMQ's question, in their order. */
enum { VERSION, REQUEST, DOMAIN, ADDRESS, ROUTING_ID, MECHANISM, CREDENTIALS, QUESTION_PARTS };
enum { PART_MAX = 256 }; /* bytes of one that are looked at */

struct admitted {
    uint8_t key[KEY_BYTES];
    uint32_t mark;
};

struct admission {
    struct admission *next;
    char domain[24];
    bool later;
    struct admitted *admitted; /* ascending keys */
    size_t count;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the list and of all that is in it */
static struct admission *first;
static unsigned newest;

static pthread_t answerer;
static void *answering; /* its socket; NULL: it was not started */

struct admission *admission_open(bool later) {
    struct admission *a = mem_alloc(sizeof *a);
    a->later = later;
    pthread_mutex_lock(&lock);
    snprintf(a->domain, sizeof a->domain, "router-%u", ++newest);
    a->next = first;
    first = a;
    pthread_mutex_unlock(&lock);
    return a;
}

void admission_close(struct admission *a) {
    if (!a) return;
    pthread_mutex_lock(&lock);
    struct admission **at = &first;
    while (*at != a) at = &(*at)->next;
    *at = a->next;
    pthread_mutex_unlock(&lock);
    free(a->admitted);
    free(a);
}

static int by_key(const void *a, const void *b) {
    return memcmp(((const struct admitted *)a)->key, ((const struct admitted *)b)->key, KEY_BYTES);
}

void admission_set(struct admission *a, const uint8_t (*keys)[KEY_BYTES], const uint32_t *marks, size_t count) {
    struct admitted *admitted = mem_alloc((count ? count : 1) * sizeof *admitted);
    for (size_t i = 0; i < count; i++) {
        memcpy(admitted[i].key, keys[i], KEY_BYTES);
        admitted[i].mark = marks[i];
    }
    qsort(admitted, count, sizeof *admitted, by_key);
    pthread_mutex_lock(&lock);
    struct admitted *before = a->admitted;
    a->admitted = admitted;
    a->count = count;
    pthread_mutex_unlock(&lock);
    free(before);
}

/* With the lock. */
static uint32_t mark_of(const struct admission *a, const uint8_t key[KEY_BYTES]) {
    struct admitted wanted;
    memcpy(wanted.key, key, KEY_BYTES);
    const struct admitted *found = a->count ? bsearch(&wanted, a->admitted, a->count, sizeof wanted, by_key) : NULL;
    return found ? found->mark : 0;
}

uint32_t admission_mark(struct admission *a, const uint8_t key[KEY_BYTES]) {
    pthread_mutex_lock(&lock);
    uint32_t mark = mark_of(a, key);
    pthread_mutex_unlock(&lock);
    return mark;
}

const char *admission_domain(const struct admission *a) { return a->domain; }

/* ---- the thread that answers ---- */

struct part {
    size_t bytes;
    uint8_t data[PART_MAX];
};

static bool is(const struct part *part, const char *text) {
    return part->bytes == strlen(text) && memcmp(part->data, text, part->bytes) == 0;
}

/* "200": let in; "300": not now; "400": no. */
static const char *judge(const struct part question[QUESTION_PARTS]) {
    const char *status = "400";
    if (!is(&question[MECHANISM], "CURVE") || question[CREDENTIALS].bytes != KEY_BYTES) return status;
    pthread_mutex_lock(&lock);
    for (const struct admission *a = first; a; a = a->next)
        if (is(&question[DOMAIN], a->domain)) status = mark_of(a, question[CREDENTIALS].data) ? "200" : a->later ? "300" : "400";
    pthread_mutex_unlock(&lock);
    return status;
}

/* False: the context ends. */
static bool take_question(struct part question[QUESTION_PARTS], size_t *out_count) {
    size_t count = 0;
    for (bool more = true; more; count++) {
        zmq_msg_t part;
        CHECK(zmq_msg_init(&part) == 0);
        int got;
        do got = zmq_msg_recv(&part, answering, 0);
        while (got < 0 && errno == EINTR);
        if (got < 0) {
            CHECK(errno == ETERM);
            zmq_msg_close(&part);
            return false;
        }
        more = zmq_msg_more(&part);
        if (count < QUESTION_PARTS) {
            question[count].bytes = zmq_msg_size(&part);
            memcpy(question[count].data, zmq_msg_data(&part), question[count].bytes < PART_MAX ? question[count].bytes : PART_MAX);
        }
        zmq_msg_close(&part);
    }
    *out_count = count;
    return true;
}

static void send_part(const void *bytes, size_t size, bool more) {
    while (zmq_send(answering, bytes, size, more ? ZMQ_SNDMORE : 0) < 0 && errno == EINTR) continue;
}

/* ZeroMQ asks well; whatever else comes in its place is nobody's business, and is refused. The peer's key becomes its "User-Id". */
static void answer(const struct part question[QUESTION_PARTS], size_t count) {
    const struct part *request = &question[REQUEST];
    bool whole = count == QUESTION_PARTS && is(&question[VERSION], "1.0") && request->bytes <= PART_MAX;
    const char *status = whole ? judge(question) : "500";
    char user[KEY_HEX] = "";
    if (*status == '2') hex_of(user, question[CREDENTIALS].data, KEY_BYTES);
    send_part("1.0", 3, true);
    send_part(request->data, whole ? request->bytes : 0, true);
    send_part(status, 3, true);
    send_part("", 0, true);
    send_part(user, strlen(user), true);
    send_part("", 0, false);
}

/* Without this thread any key would be let in from now on. */
static void ended_too_soon(void *unused) {
    (void)unused;
    log_error("the thread that checks the keys of peers ended; nobody could be told from anybody, so this process ends, too");
    _exit(1);
}

static void *answer_all(void *unused) {
    pthread_cleanup_push(ended_too_soon, NULL);
    struct part question[QUESTION_PARTS];
    for (size_t count; take_question(question, &count);) answer(question, count);
    pthread_cleanup_pop(0);
    CHECK(zmq_close(answering) == 0);
    return unused;
}

int admission_serve(void *context) {
    if (answering) return 0;
    void *socket = zmq_socket(context, ZMQ_REP);
    if (!socket) return err_set(ERR_IO, "cannot open a ZeroMQ socket: %s; raise the limit of open files (ulimit -n)", zmq_strerror(errno));
    CHECK(zmq_bind(socket, "inproc://zeromq.zap.01") == 0);
    sigset_t all, before;
    sigfillset(&all);
    answering = socket;
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int why = pthread_create(&answerer, NULL, answer_all, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (why == 0) return 0;
    answering = NULL;
    zmq_close(socket);
    return err_set(ERR_LIMIT, "the thread that checks the keys of peers could not be started: %s", strerror(why));
}

void admission_served(void) {
    if (!answering) return;
    pthread_join(answerer, NULL);
    answering = NULL;
}
