/* A source that this process reads itself: a descriptor or a struct http. What it is is checked when it is opened and again by
 * local_check(), when everything was read. */
#include "dataset/source/local.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/source/http.h"
#include "dataset/source/identity.h"

struct local {
    char *name;
    uint64_t size;
    uint64_t version;
    int fd;              /* -1: a URL */
    struct file_identity identity;
    struct http *http;
    int (*tick)(void *arg);
    void *tick_arg;
};

static int open_url(struct local *local, const Millrace__SourcePart *part) {
    TRY(http_open(&local->http, part->name, local->tick, local->tick_arg));
    if (http_size(local->http) == part->size && http_version(local->http) == part->version) return 0;
    return err_set(ERR_CORRUPT, "%s changed since the run began; start the run again", part->name);
}

/* What is looked at is what was opened, not what is at that path by then. */
static int open_file(struct local *local, const Millrace__SourcePart *part) {
    struct stat st;
    local->fd = open(part->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is not waited for */
    if (local->fd >= 0 && fstat(local->fd, &st) == 0 && S_ISREG(st.st_mode)) {
        local->identity = identity_of(&st);
        if (local->identity.size == part->size && identity_version(&local->identity) == part->version) return 0;
        return err_set(ERR_NOTFOUND, "%s is not the file that it was: its size or its time is another", part->name);
    }
    return err_set(ERR_NOTFOUND, "%s: this machine does not have that file", part->name);
}

int local_open(struct local **out, const Millrace__SourcePart *part, int (*tick)(void *arg), void *tick_arg) {
    struct local *local = mem_alloc(sizeof *local);
    *local = (struct local){.name = mem_text(part->name), .size = part->size, .version = part->version, .fd = -1};
    local->tick = tick, local->tick_arg = tick_arg;
    int code = http_is_url(part->name) ? open_url(local, part) : open_file(local, part);
    if (code < 0) {
        local_close(local);
        return code;
    }
    *out = local;
    return 0;
}

static int check_url(const struct local *local) {
    struct http *again;
    TRY(http_open(&again, local->name, local->tick, local->tick_arg));
    bool same = http_size(again) == local->size && http_version(again) == local->version;
    http_close(again);
    return same ? 0 : err_set(ERR_CORRUPT, "%s changed on the server while it was read; start the run again", local->name);
}

int local_check(struct local *local) {
    return local->http ? check_url(local) : identity_check(&local->identity, local->name, local->fd);
}

static int read_local(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    struct local *local = arg;
    if (local->http) return http_read(local->http, out, out_got, size_bytes, offset);
    int code = file_read_at(local->fd, out, out_got, size_bytes, offset);
    return code < 0 ? err_add(code, "%s", local->name) : 0;
}

struct byte_reader local_reader(struct local *local) { return (struct byte_reader){read_local, local, local->name, local->size}; }

void local_close(struct local *local) {
    if (!local) return;
    if (local->fd >= 0) close(local->fd);
    http_close(local->http);
    free(local->name);
    free(local);
}

int local_open_part(void *arg, struct byte_reader *out, const Millrace__SourcePart *part) {
    (void)arg;
    struct local *local;
    TRY(local_open(&local, part, NULL, NULL));
    *out = local_reader(local);
    return 0;
}

void local_close_part(void *arg, struct byte_reader *reader) {
    (void)arg;
    local_close(reader->arg);
}
