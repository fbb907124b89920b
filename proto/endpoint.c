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

bool endpoint_is_local(const char *endpoint) {
    if (starts(endpoint, ipc)) return true;
    const char *host = endpoint + strlen(tcp), *colon = starts(endpoint, tcp) ? strrchr(host, ':') : NULL;
    if (!colon || colon - host >= ENDPOINT_MAX) return false;
    char name[ENDPOINT_MAX];
    memcpy(name, host, (size_t)(colon - host));
    name[colon - host] = 0;
    return is_loopback(name);
}

static int check_tcp(const char *endpoint, bool bind, bool insecure) {
    const char *host = endpoint + strlen(tcp), *colon = strrchr(host, ':');
    if (!colon || colon == host || strpbrk(host, "; /") || !is_port(colon + 1, bind))
        return err_set(ERR_CONFIG, "%s: should be tcp://HOST:PORT%s", endpoint, bind ? ", or tcp://HOST:* for any free port" : "");
    if (!bind && strncmp(host, "*:", 2) == 0) return err_set(ERR_CONFIG, "%s: name the host to connect to", endpoint);
    if (insecure || endpoint_is_local(endpoint)) return 0;
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

int endpoint_check(const char *endpoint, bool bind, bool insecure) {
    if (strlen(endpoint) >= ENDPOINT_MAX) return err_set(ERR_CONFIG, "an endpoint of %zu characters is too long", strlen(endpoint));
    if (!*endpoint) return err_set(ERR_CONFIG, "the address is empty; it should start with tcp:// or ipc://");
    if (starts(endpoint, tcp)) return check_tcp(endpoint, bind, insecure);
    if (starts(endpoint, ipc)) return check_ipc(endpoint);
    return err_set(ERR_CONFIG, "%s: should start with tcp:// or ipc://", endpoint);
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

bool endpoint_refuses(const char *endpoint, int timeout_ms) {
    char host[ENDPOINT_MAX];
    const char *from = endpoint + strlen(tcp), *colon = starts(endpoint, tcp) ? strrchr(from, ':') : NULL;
    if (!colon || colon - from >= ENDPOINT_MAX) return false;
    snprintf(host, sizeof host, "%.*s", (int)(colon - from), from);
    struct addrinfo *address, hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    if (getaddrinfo(host, colon + 1, &hints, &address) != 0) return false;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), fault = 0;
    if (fd >= 0 && connect(fd, address->ai_addr, address->ai_addrlen) != 0) fault = errno;
    if (fault == EINPROGRESS && poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, timeout_ms) == 1)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &fault, &(socklen_t){sizeof fault});
    if (fd >= 0) close(fd);
    freeaddrinfo(address);
    return fault == ECONNREFUSED;
}
