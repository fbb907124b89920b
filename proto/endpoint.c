/* Endpoints are looked at before ZeroMQ sees them: it would accept more than we promise to be safe, and say less. */
#include "proto/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/hash.h"

static const char tcp[] = "tcp://", ipc[] = "ipc://";

static bool starts(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

/* 127.0.0.0/8, ::1, localhost */
static bool is_loopback(const char *host) {
    struct in_addr address;
    if (inet_pton(AF_INET, host, &address) == 1) return ntohl(address.s_addr) >> 24 == 127;
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
}

static bool is_port(const char *port, bool bind) {
    if (bind && strcmp(port, "*") == 0) return true;
    size_t digits = strspn(port, "0123456789");
    if (digits == 0 || digits > 5 || port[digits]) return false;
    long number = strtol(port, NULL, 10);
    return number <= 65535 && (number > 0 || bind);
}

int endpoint_shown(const char *endpoint) {
    enum { SHOWN_MAX = 160 };
    size_t length = starts(endpoint, ipc) ? strlen(endpoint) : strcspn(endpoint, ",#");
    return length < SHOWN_MAX ? (int)length : SHOWN_MAX;
}

bool endpoint_is_ipc(const char *address) { return starts(address, ipc); }

static bool is_local(const char *address) {
    if (starts(address, ipc)) return true;
    const char *host = address + strlen(tcp), *colon = starts(address, tcp) ? strrchr(host, ':') : NULL;
    if (!colon || colon - host >= ENDPOINT_MAX) return false;
    char name[ENDPOINT_MAX];
    memcpy(name, host, (size_t)(colon - host));
    name[colon - host] = 0;
    return is_loopback(name);
}

static int check_tcp(const char *endpoint, bool bind, bool safe) {
    const char *host = endpoint + strlen(tcp), *colon = strrchr(host, ':');
    if (!colon || colon == host || strpbrk(host, "; /") || !is_port(colon + 1, bind))
        return err_set(ERR_CONFIG, "%s: should be tcp://HOST:PORT%s", endpoint, bind ? ", or tcp://HOST:* for any free port" : "");
    if (!bind && strncmp(host, "*:", 2) == 0) return err_set(ERR_CONFIG, "%s: name the host to connect to", endpoint);
    if (safe || is_local(endpoint)) return 0;
    return err_set(ERR_CONFIG,
                   "%s: leaves this machine, and links are not encrypted or authenticated; use tcp://127.0.0.1:PORT or "
                   "ipc:///PATH, or, if the network is yours alone, set cluster.insecure: true (millrace worker: --insecure)",
                   endpoint);
}

static int check_ipc(const char *endpoint) {
    const char *path = endpoint + strlen(ipc);
    if (!*path || *path == '@' || *path == '*') return err_set(ERR_CONFIG, "%s: should be ipc:///PATH", endpoint);
    struct sockaddr_un address;
    if (strlen(path) < sizeof address.sun_path) return 0;
    return err_set(ERR_CONFIG, "%s: the path has %zu characters, a socket's may have %zu; use a shorter one, such as under /run or /tmp",
                   endpoint, strlen(path), sizeof address.sun_path - 1);
}

static int check_address(const char *address, bool bind, bool safe) {
    if (strlen(address) >= ENDPOINT_MAX) return err_set(ERR_CONFIG, "an endpoint of %zu characters is too long", strlen(address));
    if (!*address) return err_set(ERR_CONFIG, "the address is empty; it should start with tcp:// or ipc://");
    if (starts(address, tcp)) return check_tcp(address, bind, safe);
    if (starts(address, ipc)) return check_ipc(address);
    return err_set(ERR_CONFIG, "%s: should start with tcp:// or ipc://", address);
}

/* An ipc path may hold what elsewhere parts addresses and key, so it is one address, whatever is in it. */
static int split(struct endpoint *out, const char *text, bool bind) {
    bool whole = bind || starts(text, ipc);
    const char *hash = whole ? NULL : strchr(text, '#');
    if (hash && !(key_parse(out->key, hash + 1) && !hash[KEY_HEX]))
        return err_set(ERR_CONFIG, "%.*s: what follows the # should be a key, %d hexadecimal digits", (int)(hash - text), text,
                       KEY_HEX - 1);
    out->has_key = hash;
    const char *end = hash ? hash : text + strlen(text);
    for (const char *from = text, *to; from <= end; from = to + 1) {
        to = whole ? NULL : memchr(from, ',', (size_t)(end - from));
        if (!to) to = end;
        if (to - from >= ENDPOINT_MAX) return err_set(ERR_CONFIG, "an endpoint of %td characters is too long", to - from);
        if (out->addresses == ENDPOINT_ADDRESSES_MAX)
            return err_set(ERR_CONFIG, "%.*s: has more than %d addresses", (int)(end - text), text, ENDPOINT_ADDRESSES_MAX);
        snprintf(out->address[out->addresses++], ENDPOINT_MAX, "%.*s", (int)(to - from), from);
    }
    return 0;
}

int endpoint_parse(struct endpoint *out, const char *endpoint, bool bind, bool safe) {
    struct endpoint parsed = {0};
    TRY(split(&parsed, endpoint, bind));
    for (size_t i = 0; i < parsed.addresses; i++) TRY(check_address(parsed.address[i], bind, safe || parsed.has_key));
    *out = parsed;
    return 0;
}

int endpoint_check(const char *endpoint, bool bind, bool safe) {
    struct endpoint parsed;
    return endpoint_parse(&parsed, endpoint, bind, safe);
}

bool endpoint_is_local(const char *endpoint) {
    struct endpoint parsed = {0};
    if (split(&parsed, endpoint, false) < 0) return false;
    for (size_t i = 0; i < parsed.addresses; i++)
        if (!is_local(parsed.address[i])) return false;
    return true;
}

int endpoint_write(char out[ENDPOINT_TEXT_MAX], const char *addresses, const uint8_t *key) {
    char hex[KEY_HEX] = "";
    if (key) hex_of(hex, key, KEY_BYTES);
    if (strlen(addresses) + KEY_HEX + 1 > ENDPOINT_TEXT_MAX)
        return err_set(ERR_LIMIT, "addresses of %zu characters are too long", strlen(addresses));
    snprintf(out, ENDPOINT_TEXT_MAX, "%s%s%s", addresses, key ? "#" : "", hex);
    return 0;
}

void endpoint_to_bind(char out[ENDPOINT_MAX], const char *endpoint) {
    static const char localhost[] = "tcp://localhost:";
    bool named = starts(endpoint, localhost);
    snprintf(out, ENDPOINT_MAX, "%s%s", named ? "tcp://127.0.0.1:" : "", named ? endpoint + strlen(localhost) : endpoint);
}

bool endpoint_is_ipv6(const char *endpoint) { return starts(endpoint, "tcp://["); }

int endpoint_clear(const char *endpoint) {
    if (!starts(endpoint, ipc)) return 0;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = endpoint + strlen(ipc);
    CHECK(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    struct stat st;
    if (lstat(path, &st) != 0) return errno == ENOENT ? 0 : err_errno("%s", path);
    if (!S_ISSOCK(st.st_mode)) return err_set(ERR_IO, "%s is there and no socket; move it away or choose another path", path);

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return err_errno("socket");
    int failed = connect(fd, (struct sockaddr *)&address, sizeof address), why = errno;
    close(fd);
    if (failed && why == ENOENT) return 0;
    /* Anything but a refusal, a full queue of callers for one, means that somebody is there. */
    if (!failed || why != ECONNREFUSED)
        return err_set(ERR_IO, "%s is in use by another process; stop that one or choose another path", path);
    if (unlink(path) != 0 && errno != ENOENT) return err_errno("remove the stale socket %s", path);
    return 0;
}

/* Where "HOST:PORT" has its last colon; NULL: no port is there. An address of IPv6 has colons of its own, and brackets where a port
 * follows. */
static const char *port_colon(const char *address) {
    const char *colon = strrchr(address, ':');
    if (!colon || *address == '[') return colon && colon > address && colon[-1] == ']' ? colon : NULL;
    return strchr(address, ':') == colon ? colon : NULL;
}

int endpoint_announce(char out[ENDPOINT_TEXT_MAX], const char *advertise, const char *bound) {
    char text[ENDPOINT_TEXT_MAX] = "";
    size_t used = 0;
    for (const char *from = advertise, *to; from; from = *to ? to + 1 : NULL) {
        to = from + strcspn(from, ",");
        char address[ENDPOINT_MAX];
        if (to == from || to - from >= ENDPOINT_MAX)
            return err_set(ERR_CONFIG, "%s: should be ADDRESS[:PORT], or several with commas between them", advertise);
        snprintf(address, sizeof address, "%.*s", (int)(to - from), from);
        bool bare = *address != '[' && !port_colon(address) && strchr(address, ':'); /* of IPv6, without its brackets */
        int n = snprintf(text + used, sizeof text - used, "%stcp://%s%s%s%s", used ? "," : "", bare ? "[" : "", address, bare ? "]" : "",
                         port_colon(address) ? "" : strrchr(bound, ':'));
        if (n < 0 || (size_t)n >= sizeof text - used) return err_set(ERR_CONFIG, "%s: is too long", advertise);
        used += (size_t)n;
    }
    TRY(endpoint_check(text, false, true));
    snprintf(out, ENDPOINT_TEXT_MAX, "%s", text);
    return 0;
}

/* Host and port of a tcp address, in two texts. */
static bool divide(char host[ENDPOINT_MAX], char port[8], const char *address) {
    const char *from = address + strlen(tcp), *colon = starts(address, tcp) ? strrchr(from, ':') : NULL;
    if (!colon || colon - from >= ENDPOINT_MAX || strlen(colon + 1) >= 8) return false;
    bool brackets = *from == '[' && colon[-1] == ']';
    snprintf(host, ENDPOINT_MAX, "%.*s", (int)(colon - from) - 2 * brackets, from + brackets);
    snprintf(port, 8, "%s", colon + 1);
    return true;
}

bool endpoint_is_for_others(const char *address) {
    char host[ENDPOINT_MAX], port[8];
    if (is_local(address) || !divide(host, port, address) || strcmp(host, "*") == 0) return false;
    struct in_addr four;
    if (inet_pton(AF_INET, host, &four) == 1) return four.s_addr != htonl(INADDR_ANY);
    struct in6_addr six;
    host[strcspn(host, "%")] = 0;
    if (inet_pton(AF_INET6, host, &six) != 1) return true;
    if (IN6_IS_ADDR_V4MAPPED(&six)) return six.s6_addr[12] != 127 && six.s6_addr[12] != 0;
    return !IN6_IS_ADDR_LOOPBACK(&six) && !IN6_IS_ADDR_LINKLOCAL(&six) && !IN6_IS_ADDR_UNSPECIFIED(&six);
}

/* The kernel chooses the interface when a socket of datagrams is connected; nothing is sent. */
static bool own_address(char out[ENDPOINT_MAX], const struct addrinfo *to) {
    struct sockaddr_storage own;
    socklen_t size = sizeof own;
    char host[NI_MAXHOST];
    int fd = socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool found = fd >= 0 && connect(fd, to->ai_addr, to->ai_addrlen) == 0 && getsockname(fd, (struct sockaddr *)&own, &size) == 0 &&
                 getnameinfo((struct sockaddr *)&own, size, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0 &&
                 strlen(host) < ENDPOINT_MAX - 16;
    if (fd >= 0) close(fd);
    bool six = to->ai_family == AF_INET6;
    if (found) snprintf(out, ENDPOINT_MAX, "%s%s%.*s%s:*", tcp, six ? "[" : "", ENDPOINT_MAX - 16, host, six ? "]" : "");
    return found;
}

/* The first address stays, until one comes that others can use: true. */
static bool keep_better(char kept[ENDPOINT_MAX], const char *found) {
    bool better = endpoint_is_for_others(found);
    if (better || !*kept) snprintf(kept, ENDPOINT_MAX, "%s", found);
    return better;
}

int endpoint_toward(char out[ENDPOINT_MAX], const char *endpoint) {
    struct endpoint where;
    TRY(endpoint_parse(&where, endpoint, false, true));
    const char *why = "no interface of this machine leads there";
    char kept[ENDPOINT_MAX] = "", own[ENDPOINT_MAX];
    bool done = false;
    for (size_t i = 0; i < where.addresses && !done; i++) {
        char host[ENDPOINT_MAX], port[8];
        if (is_local(where.address[i])) {
            keep_better(kept, "tcp://127.0.0.1:*");
            continue;
        }
        if (!divide(host, port, where.address[i])) continue;
        struct addrinfo *found, hints = {.ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM};
        int failed = getaddrinfo(host, port, &hints, &found);
        if (failed) {
            why = gai_strerror(failed);
            continue;
        }
        for (const struct addrinfo *to = found; to && !done; to = to->ai_next) done = own_address(own, to) && keep_better(kept, own);
        freeaddrinfo(found);
    }
    if (!*kept) return err_set(ERR_NOTFOUND, "%s: %s", endpoint, why);
    snprintf(out, ENDPOINT_MAX, "%s", kept);
    return 0;
}

bool endpoint_refuses(const char *endpoint, int timeout_ms) {
    char host[ENDPOINT_MAX], port[8];
    if (!divide(host, port, endpoint)) return false;
    struct addrinfo *address, hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    if (getaddrinfo(host, port, &hints, &address) != 0) return false;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), fault = 0;
    if (fd >= 0 && connect(fd, address->ai_addr, address->ai_addrlen) != 0) fault = errno;
    if (fault == EINPROGRESS && poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, timeout_ms) == 1)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &fault, &(socklen_t){sizeof fault});
    if (fd >= 0) close(fd);
    freeaddrinfo(address);
    return fault == ECONNREFUSED;
}
