/* Links over ZeroMQ. A link owns its sockets and the numbers of its peers. One ZeroMQ context serves the whole process; it is made
 * with the first link and ended with the last.
 *
 * Why nothing here blocks: a sender that waits for a slow peer stops serving the fast ones, and one that waits for a dead
 * peer stops for good. A full queue is an error for the caller to handle (the credit of the parts that decide keeps queues
 * far from full), and the only wait is the poll in link_receive(). */
#include "proto/link.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "proto/endpoint.h"
#include "proto/peers.h"

enum {
    LINK_SOURCES_MAX = 1025,         /* one ROUTER and 1024 DEALERs: a socket and a connection each, so 2 files */
    LINK_SOCKETS_MAX = 8192,         /* of the context: several links of that size in one process */
    LINK_RECEIVE_QUEUE_MAX = 1000,   /* messages of one whom we asked; after that TCP itself holds it back */
    LINK_ROUTER_QUEUE_MAX = 8,       /* the same of whoever comes to the ROUTER, where each may be of the largest size */
    LINK_BURST = 64,                 /* messages taken before all sockets are looked at again */
    LINK_DISCARD = 1024,             /* parts of an endless message thrown away before others get their turn */
    LINK_FRAME_MAX = FRAME_BODY_MAX + FRAME_CHUNK_MAX,
    LINK_COPY_MAX = 1024,            /* bytes; smaller frames are copied into ZeroMQ's own message */
    LINK_THREADS = 2,                /* of ZeroMQ itself: one for sockets, one that closes them */
    LINK_BACKLOG = 512,
    LINK_CONNECT_MS = 5000,          /* for a TCP connection to come up before it is tried anew */
    LINK_RECONNECT_MS = 100,         /* doubled after each try up to the next */
    LINK_RECONNECT_MAX_MS = 2000,
    LINK_KEEPALIVE_SECONDS = 2,      /* of silence, between TCP's own questions; the fifth without an answer ends the connection */
    LINK_KEEPALIVE_COUNT = 4,
    LINK_SILENCE_MS = 10000,         /* of bytes that nobody acknowledges: the connection is dead */
    LINK_COMPLAINT_MS = 1000,        /* one line of log, and at most one REFUSED to another version, in this time */
    HEADER = 0, BODY = 1,            /* the two parts of a message */
};

/* Bytes that were handed to ZeroMQ and are not on their way. ZeroMQ's own thread takes off what it has sent; the last one frees. */
struct unsent {
    atomic_size_t bytes;
    atomic_uint users;  /* the link, and messages under way */
};

/* One socket. */
struct source {
    void *socket;
    uint64_t peer;    /* 0: the ROUTER */
    char *endpoint;
    struct endpoint where; /* a DEALER's: its endpoint's parts */
    size_t address;   /* the one that it is connected to */
    int64_t used_ms;  /* a DEALER's: when a message last went either way, or it was opened */
    int64_t asked_ms; /* a DEALER's: when the first message went since one came; 0: none */
    bool answered;    /* at the address to which it is connected */
    void *monitor;    /* where ZeroMQ tells of its handshakes; NULL: nobody wants to know */
    bool refused;     /* it told of one that failed */
    bool discarding;  /* in the middle of a message of too many parts */
    struct unsent *unsent;  /* of a DEALER; of a ROUTER: of all its peers */
};

/* Of one who came to the ROUTER. */
struct row {
    uint64_t peer;
    struct unsent *unsent;
    bool has_key;
    uint8_t key[KEY_BYTES];
};

struct link {
    struct source *sources;      /* count of them; the ROUTER, if there is one, is first */
    zmq_pollitem_t *items;       /* count + 1: those of the sources, then wake_fd */
    size_t count, next;          /* next: whose turn it is */
    int burst;                   /* messages taken since the last poll */
    int wake_fd;
    bool insecure, has_router, has_key;
    struct key_pair key;
    struct admission *admission; /* of the ROUTER; NULL: it has no key */
    int64_t tried_ms;            /* when silent addresses were last looked for */
    struct peers *peers;         /* of the ROUTER */
    struct row *rows;            /* at peers_place() */
    size_t frame_max;
    link_wants *wants;
    void *wants_arg;
    uint64_t serial;             /* the last peer number given */
    struct link_counts counts;
    int64_t complained_ms, refused_ms;
    uint64_t quiet;              /* drops since the last line of log */
};

/* The context. */

static pthread_mutex_t context_lock = PTHREAD_MUTEX_INITIALIZER;
static void *context;
static unsigned context_users;

/* Every connection is a file; the usual soft limit of 1024 is for programs that use select(), and this one does not. */
static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* NULL: ZeroMQ's threads could not be started now, of which it would end the process. */
static void *context_take(void) {
    pthread_mutex_lock(&context_lock);
    if (context_users == 0 && process_check_threads(LINK_THREADS) < 0) {
        pthread_mutex_unlock(&context_lock);
        return NULL;
    }
    if (context_users++ == 0) {
        raise_file_limit();
        context = zmq_ctx_new();
        CHECK(context != NULL);
        CHECK(zmq_ctx_set(context, ZMQ_MAX_SOCKETS, LINK_SOCKETS_MAX) == 0);
    }
    void *taken = context;
    pthread_mutex_unlock(&context_lock);
    return taken;
}

static void context_give_back(void) {
    pthread_mutex_lock(&context_lock);
    if (--context_users == 0) {
        CHECK(zmq_ctx_shutdown(context) == 0);
        admission_served();
        while (zmq_ctx_term(context) != 0) CHECK(errno == EINTR);  /* waits for LINK_LINGER_MS at most */
        context = NULL;
    }
    pthread_mutex_unlock(&context_lock);
}

/* Sockets. */

static void set_int(void *socket, int option, int value) { CHECK(zmq_setsockopt(socket, option, &value, sizeof value) == 0); }

static void set_key(void *socket, int option, const uint8_t key[KEY_BYTES]) {
    CHECK(zmq_setsockopt(socket, option, key, KEY_BYTES) == 0);
}

static void *socket_open(void *in_context, int type, const char *endpoint, size_t frame_max) {
    void *socket = zmq_socket(in_context, type);
    if (!socket) {
        err_set(ERR_IO, "%s: cannot open a ZeroMQ socket: %s; raise the limit of open files (ulimit -n)", endpoint,
                zmq_strerror(errno));
        return NULL;
    }
    set_int(socket, ZMQ_SNDHWM, LINK_QUEUE_MAX);
    set_int(socket, ZMQ_RCVHWM, type == ZMQ_ROUTER ? LINK_ROUTER_QUEUE_MAX : LINK_RECEIVE_QUEUE_MAX);
    set_int(socket, ZMQ_LINGER, LINK_LINGER_MS);
    set_int(socket, ZMQ_HANDSHAKE_IVL, LINK_HANDSHAKE_MS);
    /* Not ZeroMQ's heartbeats: with a connection that ended while its queue was full, their timer runs into an assertion (4.3.4,
     * out_event() after an error), so whoever sends fast and hangs up would end this process. */
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, LINK_KEEPALIVE_SECONDS);
    set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, LINK_KEEPALIVE_SECONDS);
    set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, LINK_KEEPALIVE_COUNT);
    set_int(socket, ZMQ_TCP_MAXRT, LINK_SILENCE_MS);
    set_int(socket, ZMQ_IPV6, endpoint_is_ipv6(endpoint));
    int64_t most = (int64_t)frame_max;
    CHECK(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof most) == 0);
    if (type == ZMQ_ROUTER) {
        set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
        set_int(socket, ZMQ_BACKLOG, LINK_BACKLOG);
    } else {
        set_int(socket, ZMQ_RECONNECT_IVL, LINK_RECONNECT_MS);
        set_int(socket, ZMQ_RECONNECT_IVL_MAX, LINK_RECONNECT_MAX_MS);
        set_int(socket, ZMQ_CONNECT_TIMEOUT, LINK_CONNECT_MS);
    }
    return socket;
}

static struct unsent *unsent_open(void) {
    struct unsent *unsent = mem_alloc(sizeof *unsent);
    atomic_init(&unsent->users, 1);
    return unsent;
}

static void unsent_release(struct unsent *unsent) {
    if (unsent && atomic_fetch_sub(&unsent->users, 1) == 1) free(unsent);
}

static void source_add(struct link *link, void *socket, uint64_t peer, const char *endpoint) {
    size_t count = ++link->count;
    link->sources = mem_resize(link->sources, count * sizeof *link->sources);
    link->items = mem_resize(link->items, (count + 1) * sizeof *link->items);
    link->sources[count - 1] =
        (struct source){.socket = socket, .peer = peer, .endpoint = mem_text(endpoint), .unsent = unsent_open(), .used_ms = clock_ms()};
    link->items[count - 1] = (zmq_pollitem_t){.socket = socket, .events = ZMQ_POLLIN};
    link->items[count] = (zmq_pollitem_t){.fd = link->wake_fd, .events = ZMQ_POLLIN};
}

static void source_close(struct source *source) {
    if (source->monitor) {
        zmq_socket_monitor(source->socket, NULL, 0);
        CHECK(zmq_close(source->monitor) == 0);
    }
    CHECK(zmq_close(source->socket) == 0);
    free(source->endpoint);
    unsent_release(source->unsent);
}

static int bind_failed(const char *endpoint) {
    if (errno == EADDRINUSE)
        return err_set(ERR_IO, "%s is in use by another process; stop that one, or choose another port (tcp://127.0.0.1:* takes a "
                       "free one)", endpoint);
    if (errno == EADDRNOTAVAIL || errno == ENODEV)
        return err_set(ERR_IO, "%s is no address of this machine (a host name will not do); 'ip address' lists them", endpoint);
    return err_set(ERR_IO, "%s: cannot listen: %s", endpoint, zmq_strerror(errno));
}

/* Before it is bound: who answers ZeroMQ's questions has to be there first. */
static int admit(struct link *link, void *in_context, void *socket) {
    pthread_mutex_lock(&context_lock);
    int code = admission_serve(in_context);
    pthread_mutex_unlock(&context_lock);
    if (code < 0) return code;
    const char *domain = admission_domain(link->admission);
    set_int(socket, ZMQ_CURVE_SERVER, 1);
    set_key(socket, ZMQ_CURVE_SECRETKEY, link->key.secret);
    CHECK(zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) == 0);
    return 0;
}

static int router_open(struct link *link, void *in_context, const char *endpoint) {
    if (endpoint_is_ipc(endpoint)) link->admission = NULL;
    TRY(endpoint_check(endpoint, true, link->insecure || link->admission));
    TRY(endpoint_clear(endpoint));
    void *socket = socket_open(in_context, ZMQ_ROUTER, endpoint, link->frame_max);
    if (!socket) return ERR_IO;
    int admitted = link->admission ? admit(link, in_context, socket) : 0;
    if (admitted < 0) {
        zmq_close(socket);
        return admitted;
    }
    char bound[ENDPOINT_MAX + 64];
    size_t size = sizeof bound;
    endpoint_to_bind(bound, endpoint);
    if (zmq_bind(socket, bound) != 0) {
        int code = bind_failed(endpoint);
        zmq_close(socket);
        return code;
    }
    CHECK(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, bound, &size) == 0);
    source_add(link, socket, 0, bound);
    link->peers = peers_open();
    link->rows = mem_alloc(PEERS_MAX * sizeof *link->rows);
    link->has_router = true;
    return 0;
}

int link_open(struct link **out, const struct link_options *options) {
    struct link *link = mem_alloc(sizeof *link);
    link->insecure = options->insecure;
    link->has_key = options->key;
    if (options->key) link->key = *options->key;
    CHECK(!options->admission || options->key);
    link->admission = options->admission;
    link->frame_max = options->frame_max ? options->frame_max : LINK_FRAME_MAX;
    link->complained_ms = link->refused_ms = -LINK_COMPLAINT_MS;
    link->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (link->wake_fd < 0) {
        free(link);
        return err_errno("eventfd");
    }
    void *taken = context_take();
    if (!taken) {
        close(link->wake_fd);
        free(link);
        return ERR_CONFIG;
    }
    link->items = mem_alloc(sizeof *link->items);
    link->items[0] = (zmq_pollitem_t){.fd = link->wake_fd, .events = ZMQ_POLLIN};
    int code = options->bind ? router_open(link, taken, options->bind) : 0;
    if (code < 0) {
        link_close(link);
        return code;
    }
    *out = link;
    return 0;
}

void link_filter(struct link *link, link_wants *wants, void *arg) {
    link->wants = wants;
    link->wants_arg = arg;
}

const char *link_endpoint(const struct link *link) { return link->has_router ? link->sources[0].endpoint : NULL; }

/* ZeroMQ tells of what becomes of connections on a socket of its own inside the process. */
static int monitor_open(struct source *source) {
    char name[64];
    snprintf(name, sizeof name, "inproc://handshakes-%p", source->socket);
    const int told = ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
    if (zmq_socket_monitor(source->socket, name, told) != 0) return err_set(ERR_IO, "ZeroMQ's monitor: %s", zmq_strerror(errno));
    source->monitor = zmq_socket(context, ZMQ_PAIR);
    if (!source->monitor) return err_set(ERR_IO, "cannot open a ZeroMQ socket: %s", zmq_strerror(errno));
    CHECK(zmq_connect(source->monitor, name) == 0);
    return 0;
}

static int connect_address(const struct link *link, const struct source *source) {
    const char *address = source->where.address[source->address];
    set_int(source->socket, ZMQ_IPV6, endpoint_is_ipv6(address));
    if (source->where.has_key) {
        set_key(source->socket, ZMQ_CURVE_SERVERKEY, source->where.key);
        set_key(source->socket, ZMQ_CURVE_PUBLICKEY, link->key.public);
        set_key(source->socket, ZMQ_CURVE_SECRETKEY, link->key.secret);
    }
    return zmq_connect(source->socket, address) == 0 ? 0 : err_set(ERR_CONFIG, "%s: cannot connect: %s", address, zmq_strerror(errno));
}

/* ZeroMQ does not try again where it was refused, and that may have been: so it connects anew, unless it was let in. */
static int ask_later(const struct link *link, struct source *source) {
    TRY(monitor_open(source));
    if (source->answered) return 0;
    zmq_disconnect(source->socket, source->where.address[source->address]);
    return connect_address(link, source);
}

static int dealer_open(struct link *link, uint64_t *out_peer, const char *endpoint, bool asking) {
    struct endpoint where;
    TRY(endpoint_parse(&where, endpoint, false, link->insecure));
    for (size_t i = link->has_router; i < link->count; i++) {
        if (strcmp(link->sources[i].endpoint, endpoint) != 0) continue;
        if (asking && !link->sources[i].monitor) TRY(ask_later(link, &link->sources[i]));
        *out_peer = link->sources[i].peer;
        return 0;
    }
    if (where.has_key && !link->has_key) return err_set(ERR_CONFIG, "%s: has a key, and we have none of our own", where.address[0]);
    if (link->count >= LINK_SOURCES_MAX)
        return err_set(ERR_LIMIT, "%s: already %zu connections; more are not supported", where.address[0], link->count);
    struct source source = {.socket = socket_open(context, ZMQ_DEALER, where.address[0], LINK_FRAME_MAX), .where = where};
    if (!source.socket) return ERR_IO;
    int code = asking ? monitor_open(&source) : 0;
    if (code == 0) code = connect_address(link, &source);
    if (code < 0) {
        source_close(&source);
        return code;
    }
    source_add(link, source.socket, ++link->serial, endpoint);
    link->sources[link->count - 1].where = where;
    link->sources[link->count - 1].monitor = source.monitor;
    *out_peer = link->serial;
    return 0;
}

int link_connect(struct link *link, uint64_t *out_peer, const char *endpoint) { return dealer_open(link, out_peer, endpoint, false); }

int link_connect_asking(struct link *link, uint64_t *out_peer, const char *endpoint) {
    return dealer_open(link, out_peer, endpoint, true);
}

/* The DEALER of this number: they are in ascending order, and there can be a thousand. NULL: none. */
static struct source *dealer_find(struct link *link, uint64_t peer) {
    size_t low = link->has_router, high = link->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (link->sources[middle].peer < peer) low = middle + 1;
        else high = middle;
    }
    return low < link->count && link->sources[low].peer == peer ? &link->sources[low] : NULL;
}

void link_disconnect(struct link *link, uint64_t peer) {
    struct source *source = dealer_find(link, peer);
    if (!source) {
        if (link->peers) peers_forget(link->peers, peer);
        return;
    }
    set_int(source->socket, ZMQ_LINGER, 0);
    source_close(source);
    size_t at = (size_t)(source - link->sources), after = link->count - at - 1;
    memmove(source, source + 1, after * sizeof *source);
    memmove(&link->items[at], &link->items[at + 1], (after + 1) * sizeof *link->items);
    link->count--;
    if (link->next > at) link->next--;
}

size_t link_disconnect_idle(struct link *link, int64_t idle_ms, uint64_t keep) {
    int64_t now_ms = clock_ms();
    size_t closed = 0;
    for (size_t i = link->count; i-- > link->has_router;) {
        const struct source *source = &link->sources[i];
        if (source->peer == keep || now_ms - source->used_ms < idle_ms) continue;
        link_disconnect(link, source->peer);
        closed++;
    }
    return closed;
}

/* Sending. */

/* Of the bytes of one message part. */
struct note {
    struct unsent *of, *all;  /* all: NULL for a DEALER */
    size_t bytes;
};

static void subtract(struct unsent *unsent, size_t bytes) {
    if (!unsent) return;
    atomic_fetch_sub(&unsent->bytes, bytes);
    unsent_release(unsent);
}

static void add(struct unsent *unsent, size_t bytes) {
    if (!unsent) return;
    atomic_fetch_add(&unsent->users, 1);
    atomic_fetch_add(&unsent->bytes, bytes);
}

/* On whatever thread of ZeroMQ's. */
static void give_back(void *data, void *hint) {
    struct note *note = hint;
    free(data);
    subtract(note->of, note->bytes);
    subtract(note->all, note->bytes);
    free(note);
}

/* Hands a buffer's memory to ZeroMQ, which frees it when the bytes are on their way. */
static void message_take(zmq_msg_t *message, struct buf *bytes, struct unsent *of, struct unsent *all) {
    if (bytes->size > LINK_COPY_MAX) {
        struct note *note = mem_alloc(sizeof *note);
        *note = (struct note){of, all, bytes->size};
        add(of, bytes->size);
        add(all, bytes->size);
        CHECK(zmq_msg_init_data(message, bytes->data, bytes->size, give_back, note) == 0);
        *bytes = (struct buf){0};
        return;
    }
    CHECK(zmq_msg_init_size(message, bytes->size) == 0);
    if (bytes->size) memcpy(zmq_msg_data(message), bytes->data, bytes->size);
}

/* 0, or errno; the message is consumed either way. */
static int send_part(void *socket, zmq_msg_t *message, int flags) {
    int sent;
    do sent = zmq_msg_send(message, socket, flags | ZMQ_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    int why = sent < 0 ? errno : 0;
    if (why) zmq_msg_close(message);
    return why;
}

/* Sends both frames after the routing id, if there is one, and frees them. 0, or errno. ZeroMQ refuses a message at its first
 * part or not at all. */
static int send_parts(struct link *link, void *socket, const void *id, size_t id_bytes, struct unsent *of, struct unsent *all,
                      struct frame *frame) {
    uint64_t bytes = frame->header.size + frame->body.size;
    zmq_msg_t parts[2];
    message_take(&parts[HEADER], &frame->header, of, all);
    message_take(&parts[BODY], &frame->body, of, all);
    frame_free(frame);
    int why = 0;
    if (id) {
        zmq_msg_t to;
        CHECK(zmq_msg_init_size(&to, id_bytes) == 0);
        memcpy(zmq_msg_data(&to), id, id_bytes);
        why = send_part(socket, &to, ZMQ_SNDMORE);
    }
    if (why) zmq_msg_close(&parts[HEADER]);
    else why = send_part(socket, &parts[HEADER], ZMQ_SNDMORE);
    if (why) zmq_msg_close(&parts[BODY]);
    else why = send_part(socket, &parts[BODY], 0);
    if (why) {
        link->counts.dropped++;
        return why;
    }
    link->counts.sent++;
    link->counts.sent_bytes += bytes;
    return 0;
}

static int send_failed(struct link *link, uint64_t peer, int why) {
    if (why == EAGAIN)
        return err_set(ERR_LIMIT, "peer %llu does not read: %d messages wait for it", (unsigned long long)peer, LINK_QUEUE_MAX);
    if (why != EHOSTUNREACH) return err_set(ERR_IO, "cannot send to peer %llu: %s", (unsigned long long)peer, zmq_strerror(why));
    if (link->peers) peers_forget(link->peers, peer);
    return err_set(ERR_NOTFOUND, "peer %llu has left", (unsigned long long)peer);
}

/* Of one who came to the ROUTER; its place may be another's whom nobody heard of for long. */
static struct row *row_of(struct link *link, uint64_t peer) {
    struct row *row = &link->rows[peers_place(link->peers, peer)];
    if (row->peer != peer) {
        unsent_release(row->unsent);
        *row = (struct row){.peer = peer, .unsent = unsent_open()};
    }
    return row;
}

bool link_peer_key(const struct link *link, uint8_t out[KEY_BYTES], uint64_t peer) {
    size_t place = link->peers ? peers_place(link->peers, peer) : PEERS_MAX;
    if (place == PEERS_MAX || link->rows[place].peer != peer || !link->rows[place].has_key) return false;
    memcpy(out, link->rows[place].key, KEY_BYTES);
    return true;
}

static bool has_room(struct unsent *of, struct unsent *all, size_t bytes) {
    size_t waiting = atomic_load(&of->bytes);
    if (waiting == 0) return true; /* one message, whatever its size */
    size_t all_max = LINK_UNSENT_ALL_MAX + (bytes <= LINK_SMALL_MAX ? LINK_UNSENT_SMALL_MAX : 0); /* bulk must not stop a lease */
    return waiting + bytes <= LINK_UNSENT_MAX && (!all || atomic_load(&all->bytes) + bytes <= all_max);
}

bool link_has_room(struct link *link, uint64_t peer, size_t bytes) {
    struct source *dealer = dealer_find(link, peer);
    if (dealer) return has_room(dealer->unsent, NULL, bytes);
    if (!link->peers || peers_place(link->peers, peer) == PEERS_MAX) return false;
    return has_room(row_of(link, peer)->unsent, link->sources[0].unsent, bytes);
}

int link_send(struct link *link, uint64_t peer, struct frame *frame) {
    struct source *dealer = dealer_find(link, peer), *source = dealer ? dealer : &link->sources[0];
    size_t id_bytes = 0;
    const void *id = dealer || !link->peers ? NULL : peers_id(link->peers, &id_bytes, peer);
    if (!dealer && !id) {
        frame_free(frame);
        link->counts.dropped++;
        return err_set(ERR_NOTFOUND, "peer %llu is not connected", (unsigned long long)peer);
    }
    if (dealer) {
        dealer->used_ms = clock_ms();
        if (!dealer->asked_ms) dealer->asked_ms = dealer->used_ms;
    }
    struct unsent *of = dealer ? dealer->unsent : row_of(link, peer)->unsent, *all = dealer ? NULL : source->unsent;
    if (!has_room(of, all, frame->body.size)) {
        frame_free(frame);
        link->counts.dropped++;
        return err_set(ERR_LIMIT, "peer %llu does not read: %zu bytes wait for it", (unsigned long long)peer, atomic_load(&of->bytes));
    }
    int why = send_parts(link, source->socket, id, id_bytes, of, all, frame);
    return why ? send_failed(link, peer, why) : 0;
}

/* Receiving. */

enum received { RECEIVED_NOTHING, RECEIVED_MESSAGE, RECEIVED_RUBBISH, RECEIVED_NO_MEMORY };

/* Counts the message, and logs one of them a second at most: a peer that sends rubbish must not fill the disk with our log. */
static enum received drop(struct link *link, const struct source *source, const char *why) {
    link->counts.dropped++;
    int64_t now_ms = clock_ms();
    if (now_ms - link->complained_ms < LINK_COMPLAINT_MS) {
        link->quiet++;
        return RECEIVED_RUBBISH;
    }
    unsigned long long others = link->quiet;
    if (others) log_warn("%s: dropped a message: %s (and %llu more since the last such line)", source->endpoint, why, others);
    else log_warn("%s: dropped a message: %s", source->endpoint, why);
    link->complained_ms = now_ms;
    link->quiet = 0;
    return RECEIVED_RUBBISH;
}

/* Takes one part into *part, which must be closed after. 1, or 0 when there is none. */
static int receive_part(void *socket, zmq_msg_t *part, bool *out_more) {
    CHECK(zmq_msg_init(part) == 0);
    int got;
    do got = zmq_msg_recv(part, socket, ZMQ_DONTWAIT);
    while (got < 0 && errno == EINTR);
    CHECK(got >= 0 || errno == EAGAIN);
    *out_more = got >= 0 && zmq_msg_more(part);
    return got >= 0;
}

/* What ZeroMQ told of handshakes since the last call: messages of two parts, the first of which begins with the event's number. */
static void read_monitor(struct source *source) {
    for (bool there = true; there;) {
        zmq_msg_t event, address;
        bool more;
        uint16_t number = 0;
        there = receive_part(source->monitor, &event, &more);
        if (there) {
            memcpy(&number, zmq_msg_data(&event), sizeof number);
            source->refused = number == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL || number == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
            receive_part(source->monitor, &address, &more);
            zmq_msg_close(&address);
        }
        zmq_msg_close(&event);
    }
}

bool link_refused(struct link *link, uint64_t peer) {
    struct source *source = dealer_find(link, peer);
    if (source && source->monitor) read_monitor(source);
    return source && source->refused;
}

/* Throws the rest of a message away, some parts at a time. */
static void discard(struct source *source) {
    for (int i = 0; i < LINK_DISCARD && source->discarding; i++) {
        zmq_msg_t part;
        if (!receive_part(source->socket, &part, &source->discarding)) source->discarding = true;
        zmq_msg_close(&part);
    }
}

/* Somebody speaks another version of the protocol. It cannot know that from silence: REFUSED is the one message that every
 * version understands. Only a ROUTER answers, and never often, so two links cannot refuse each other forever. */
static void refuse_version(struct link *link, const struct source *source, zmq_msg_t *id, zmq_msg_t parts[2]) {
    uint32_t version = frame_version(zmq_msg_data(&parts[HEADER]), zmq_msg_size(&parts[HEADER]), zmq_msg_data(&parts[BODY]),
                                     zmq_msg_size(&parts[BODY]));
    int64_t now_ms = clock_ms();
    if (source->peer || version == 0 || version == PROTOCOL_VERSION || now_ms - link->refused_ms < LINK_COMPLAINT_MS) return;
    link->refused_ms = now_ms;
    char *reason = mem_format("you speak protocol version %u, this is version %d; run the same build everywhere", version,
                              PROTOCOL_VERSION);
    Millrace__Refused refused = MILLRACE__REFUSED__INIT;
    refused.reason = reason;
    refused.final = true;
    struct frame frame = {0};
    struct envelope envelope = {.kind = MILLRACE__KIND__REFUSED};
    CHECK(frame_pack(&frame, &envelope, &refused.base, NULL, 0, FRAME_NONE) == 0);
    send_parts(link, source->socket, zmq_msg_data(id), zmq_msg_size(id), NULL, NULL, &frame);
    free(reason);
}

/* Who came to the ROUTER with this message; 0: its key was let in, and is so no more. ZeroMQ has the key of each message's connection. */
static uint64_t heard(struct link *link, zmq_msg_t *id, zmq_msg_t *header) {
    uint8_t key[KEY_BYTES];
    if (link->admission) {
        const char *user = zmq_msg_gets(header, "User-Id");
        if (!user || !key_parse(key, user) || !admission_mark(link->admission, key)) return 0;
    }
    uint64_t peer = peers_heard(link->peers, &link->serial, zmq_msg_data(id), zmq_msg_size(id));
    if (link->admission) {
        struct row *row = row_of(link, peer);
        row->has_key = true;
        memcpy(row->key, key, KEY_BYTES);
    }
    return peer;
}

/* Unpacks a message of the right number of parts. */
static enum received take(struct link *link, struct source *source, zmq_msg_t *id, zmq_msg_t parts[2], uint64_t *out_peer,
                          struct message *out) {
    size_t header_bytes = zmq_msg_size(&parts[HEADER]), body_bytes = zmq_msg_size(&parts[BODY]);
    struct envelope envelope = {0};
    uint64_t peer = source->peer;
    source->asked_ms = 0;
    source->answered = true; /* also by what nobody waits for any more */
    if (link->admission && !peer) {
        peer = heard(link, id, &parts[HEADER]);
        if (!peer) return drop(link, source, "its sender's key is let in no more");
    }
    if (link->wants && frame_peek(&envelope, zmq_msg_data(&parts[HEADER]), header_bytes)) {
        if (!peer) peer = heard(link, id, &parts[HEADER]);
        if (!link->wants(link->wants_arg, peer, &envelope)) { /* an answer that comes late, after a restart: as it should be */
            log_debug("%s: dropped a message of kind %d that nobody waits for", source->endpoint, (int)envelope.kind);
            link->counts.dropped++;
            return RECEIVED_RUBBISH;
        }
    }
    int code = frame_unpack(out, zmq_msg_data(&parts[HEADER]), header_bytes, zmq_msg_data(&parts[BODY]), body_bytes);
    if (code < 0) {
        drop(link, source, err_text());
        if (code == ERR_PEER) refuse_version(link, source, id, parts);
        if (code != ERR_MEMORY) return RECEIVED_RUBBISH;
    }
    *out_peer = peer ? peer : heard(link, id, &parts[HEADER]);
    if (code < 0) {
        *out = (struct message){.envelope = envelope};
        return RECEIVED_NO_MEMORY;
    }
    link->counts.received++;
    link->counts.received_bytes += header_bytes + body_bytes;
    source->used_ms = clock_ms();
    return RECEIVED_MESSAGE;
}

/* Takes one message off a socket, without waiting. */
static enum received receive_from(struct link *link, struct source *source, uint64_t *out_peer, struct message *out) {
    if (source->discarding) {
        discard(source);
        return RECEIVED_RUBBISH;
    }
    bool more = true;
    zmq_msg_t id, parts[2];
    CHECK(zmq_msg_init(&id) == 0);
    if (!source->peer && !receive_part(source->socket, &id, &more)) return RECEIVED_NOTHING;
    size_t count = 0;
    while (count < 2 && more && receive_part(source->socket, &parts[count], &more)) count++;
    source->discarding = more && count == 2;

    enum received result = RECEIVED_NOTHING;
    if (source->discarding)
        result = drop(link, source, "it has more than two frames");
    else if (count == 2)
        result = take(link, source, &id, parts, out_peer, out);
    else if (count == 1 || !source->peer)
        result = drop(link, source, "it has fewer than two frames");
    while (count > 0) zmq_msg_close(&parts[--count]);
    zmq_msg_close(&id);
    return result;
}

/* One message from those sockets that the last poll found readable, each in its turn. 1, 0 when there is none, or ERR_MEMORY. */
static int receive_ready(struct link *link, uint64_t *out_peer, struct message *out) {
    for (size_t idle = 0; idle < link->count && link->burst < LINK_BURST;) {
        if (link->next >= link->count) link->next = 0;
        size_t at = link->next++;
        enum received result = RECEIVED_NOTHING;
        if (link->items[at].revents & ZMQ_POLLIN) result = receive_from(link, &link->sources[at], out_peer, out);
        if (result == RECEIVED_MESSAGE || result == RECEIVED_NO_MEMORY) {
            link->burst++;
            return result == RECEIVED_MESSAGE ? 1 : ERR_MEMORY;
        }
        if (result == RECEIVED_RUBBISH) {
            link->burst++;
            idle = 0;
        } else {
            link->items[at].revents = 0;
            idle++;
        }
    }
    return 0;
}

/* Silence after a question: another address may be the one at which it can be reached. What waits to be sent is dropped with the old
 * one. */
static void try_addresses(struct link *link) {
    int64_t now_ms = clock_ms();
    if (now_ms - link->tried_ms < LINK_TRY_MS / 4) return;
    link->tried_ms = now_ms;
    for (size_t i = link->has_router; i < link->count; i++) {
        struct source *source = &link->sources[i];
        int64_t patience_ms = source->answered ? LINK_TRY_AGAIN_MS : LINK_TRY_MS;
        if (source->where.addresses < 2 || !source->asked_ms || now_ms - source->asked_ms < patience_ms) continue;
        zmq_disconnect(source->socket, source->where.address[source->address]);
        source->address = (source->address + 1) % source->where.addresses;
        source->asked_ms = 0;
        source->answered = false;
        if (connect_address(link, source) < 0) log_debug("%s", err_text());
    }
}

/* 1 when link_wake() was called since, and forgets it. */
static bool woken(struct link *link) {
    uint64_t times;
    return link->items[link->count].revents && read(link->wake_fd, &times, sizeof times) == sizeof times;
}

int link_receive(struct link *link, uint64_t *out_peer, struct message *out, int timeout_ms) {
    int64_t deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_ms() + timeout_ms;
    for (bool waited = false;; waited = true) {
        int code = receive_ready(link, out_peer, out);
        if (code != 0) return code;
        int64_t left_ms = timeout_ms < 0 ? -1 : deadline_ms - clock_ms();
        if (timeout_ms >= 0 && left_ms <= 0) {
            if (waited) return 0;
            left_ms = 0;
        }
        link->burst = 0;
        try_addresses(link);
        if (zmq_poll(link->items, (int)link->count + 1, (long)left_ms) < 0) {
            for (size_t i = 0; i <= link->count; i++) link->items[i].revents = 0;
            if (errno == EINTR) return 0;
            return err_set(ERR_IO, "cannot wait for messages: %s", zmq_strerror(errno));
        }
        if (woken(link)) return 0;
    }
}

void link_wake(struct link *link) {
    int before = errno;
    uint64_t one = 1;
    ssize_t written = write(link->wake_fd, &one, sizeof one);
    (void)written;  /* EAGAIN: the counter is full, so the reader is awake */
    errno = before;
}

struct link_counts link_counts(const struct link *link) { return link->counts; }

void link_close(struct link *link) {
    if (!link) return;
    for (size_t i = 0; i < link->count; i++) source_close(&link->sources[i]);
    context_give_back();
    explicit_bzero(&link->key, sizeof link->key);
    peers_close(link->peers);
    for (size_t i = 0; link->rows && i < PEERS_MAX; i++) unsent_release(link->rows[i].unsent);
    free(link->rows);
    close(link->wake_fd);
    free(link->sources);
    free(link->items);
    free(link);
}
