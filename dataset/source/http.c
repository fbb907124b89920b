/* A struct http is one file on a server: one libcurl transfer at a time and a window of 4 MiB over the file.
 *
 * Order: http_open() asks for one byte and learns size, version and whether the server has ranges. http_read() serves from the window; when
 * the bytes are not there it goes on with the transfer, or begins another (head_for()), and drives it until they are (drive()). libcurl
 * calls take() for bytes that come; a full window pauses the transfer until more is asked for. From a server with ranges a transfer is one
 * range; ranges grow while the file is read in sequence, so that a long read costs few requests and a jump wastes little. A transfer that
 * breaks is begun again where it broke, after a pause (wait_or_fail()).
 *
 * Threads: all of it runs in the caller's thread, only while it waits for bytes. */
#include "dataset/source/http.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"

enum {
    WINDOW_BYTES = 4 << 20,       /* read ahead of what is asked for */
    RANGE_BYTES_MIN = 256 << 10,  /* of a request after a jump */
    RANGE_BYTES_MAX = 64 << 20,
    GAP_BYTES_MAX = 1 << 20,      /* read and dropped rather than asked for anew */
    PROGRESS_BYTES = 64 << 10,    /* after which failures count from 0 again */
    REDIRECTS_MAX = 10,
    TICK_MS = 50,
    RETRY_AFTER_SECONDS_MAX = 30, /* that a server may ask for */
};

#define OTHER_BYTES "the server sends other bytes than were asked for"

struct http {
    char *url;
    struct http_patience patience;
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
    char words[CURL_ERROR_SIZE]; /* libcurl's, of the transfer */
    int (*tick)(void *arg);
    void *tick_arg;

    /* what the first answer said */
    bool known, ranges;
    uint64_t size, version;

    /* the transfer under way */
    bool running, answered, paused;
    uint64_t at;      /* in the file: of the next byte that comes */
    struct err refused; /* why the callback stopped it; code 0: it did not */
    bool busy;        /* the server said: later */
    int64_t later_ms; /* and when */

    uint64_t range_bytes; /* of the next request */
    uint64_t wanted;      /* bytes before this place are dropped */
    uint64_t received, kept, kept_before; /* bytes in all; of these not dropped, and that at the last failure */
    int failures;

    uint8_t *window; /* bytes of the file from window_offset on */
    uint64_t window_offset;
    size_t window_size;
};

bool http_is_url(const char *name) { return strncasecmp(name, "http://", 7) == 0 || strncasecmp(name, "https://", 8) == 0; }

/* ---- Answers ----------------------------------------------------------------------------------------------------------------- */

static const char *header(struct http *http, const char *name) {
    struct curl_header *found;
    return curl_easy_header(http->easy, name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK ? found->value : "";
}

static uint64_t version_of(struct http *http, uint64_t size) {
    char *text = mem_format("%s\n%s\n%" PRIu64, header(http, "ETag"), header(http, "Last-Modified"), size);
    uint8_t digest[XXH128_BYTES];
    xxh128_of(digest, text, strlen(text));
    free(text);
    uint64_t version = 0;
    for (int i = 0; i < 8; i++) version = version << 8 | digest[i];
    return version;
}

/* A server may compress a file although it was asked not to. Only codings that are recognized later by the file's first bytes are
 * accepted. */
static int check_coding(struct http *http) {
    static const char *const known[] = {"", "identity", "gzip", "x-gzip", "zstd"};
    const char *coding = header(http, "Content-Encoding");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcasecmp(coding, known[i]) == 0) return 0;
    return err_set(ERR_UNSUPPORTED, "%s: the server sends it with Content-Encoding %.40s, which is not unpacked here; download it and give "
                   "its path", http->url, coding);
}

/* Where the answer's bytes begin and how long the whole file is, by its headers. */
static int extent_of(struct http *http, long status, uint64_t *out_begin, uint64_t *out_size) {
    curl_off_t length = -1;
    uint64_t begin = 0, size = 0;
    const char *range = header(http, "Content-Range");
    curl_easy_getinfo(http->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    bool told = status == 206   ? sscanf(range, "bytes %" SCNu64 "-%*u/%" SCNu64, &begin, &size) == 2
                : status == 416 ? sscanf(range, "bytes */%" SCNu64, &size) == 1
                                : length >= 0;
    if (!told)
        return err_set(ERR_UNSUPPORTED, "%s: the server does not tell the size of the file; download it and give its path", http->url);
    *out_begin = begin, *out_size = status == 200 ? (uint64_t)length : size;
    return 0;
}

/* Looks at the headers of an answer, once, before its first byte. */
static int answer(struct http *http) {
    long status = 0;
    curl_off_t later = 0;
    uint64_t begin = 0, size = 0;
    http->answered = true;
    curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(http->easy, CURLINFO_RETRY_AFTER, &later);
    if (status == 408 || status == 425 || status == 429 || status >= 500) {
        http->busy = true;
        http->later_ms = 1000 * (later < RETRY_AFTER_SECONDS_MAX ? later : RETRY_AFTER_SECONDS_MAX);
        return err_set(ERR_IO, "the server answers %ld", status);
    }
    if (status == 404 || status == 410) return err_set(ERR_NOTFOUND, "%s: the server has no such file (%ld)", http->url, status);
    if (status != 200 && status != 206 && status != 416)
        return err_set(ERR_IO, "%s: the server refuses it (%ld); check the URL; passwords belong into ~/.netrc", http->url, status);
    TRY(check_coding(http));
    TRY(extent_of(http, status, &begin, &size));
    uint64_t version = version_of(http, size);
    if (!http->known) {
        http->known = true, http->ranges = status == 206, http->size = size, http->version = version;
        if (status == 416 && size > 0) return err_set(ERR_IO, "%s: the server has no bytes at its beginning (416)", http->url);
    } else if (version != http->version || status == 416) {
        return err_set(ERR_CORRUPT, "%s: changed on the server while it was read; start again", http->url);
    }
    if (begin > http->wanted) return err_set(ERR_IO, "%s: " OTHER_BYTES, http->url);
    http->at = begin;
    return 0;
}

static int refuse_or_take(struct http *http) {
    int code = answer(http);
    http->refused = code < 0 ? err_take() : (struct err){0};
    return code;
}

static size_t take(char *bytes, size_t one, size_t size, void *arg) {
    (void)one;
    struct http *http = arg;
    if (!http->answered && refuse_or_take(http) < 0) return 0;
    size_t drop = http->at >= http->wanted ? 0 : http->wanted - http->at < size ? (size_t)(http->wanted - http->at) : size;
    if (size - drop > WINDOW_BYTES - http->window_size || (!http->window && !http->ranges)) {
        http->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (http->window) memcpy(http->window + http->window_size, bytes + drop, size - drop), http->window_size += size - drop;
    http->at += size, http->received += size, http->kept += size - drop;
    return size;
}

/* ---- One transfer ------------------------------------------------------------------------------------------------------------ */

static void stop(struct http *http) {
    if (http->running) curl_multi_remove_handle(http->multi, http->easy);
    http->running = false;
}

static void begin(struct http *http, uint64_t offset, uint64_t size_bytes) {
    stop(http);
    char range[64];
    snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, offset, offset + size_bytes - 1);
    curl_easy_setopt(http->easy, CURLOPT_RANGE, http->ranges || !http->known ? range : NULL);
    http->running = true, http->answered = http->paused = http->busy = false;
    http->refused.code = 0, http->later_ms = 0, http->words[0] = 0;
    http->at = http->ranges || !http->known ? offset : 0;
    CHECK(curl_multi_add_handle(http->multi, http->easy) == CURLM_OK);
}

static bool passing(CURLcode result) {
    switch (result) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR: return true;
    default: return false;
    }
}

static volatile sig_atomic_t stopped;

void http_stop(bool stop) { stopped = stop; }

static int ticked(struct http *http) {
    bool stop = http->tick ? http->tick(http->tick_arg) != 0 : stopped;
    return stop ? err_set(ERR_INTERRUPTED, "%s: stopped", http->url) : 0;
}

/* The result of a transfer: 0, an error that stays (ERR_*), or 1: it may be tried again, and err_text() has the reason. */
static int ended(struct http *http, CURLcode result) {
    stop(http);
    if (http->refused.code == 0 && result == CURLE_OK && !http->answered) refuse_or_take(http);
    if (http->refused.code < 0) return err_give(&http->refused), http->busy ? 1 : http->refused.code;
    if (result == CURLE_OK) return 0;
    const char *words = http->words[0] ? http->words : curl_easy_strerror(result);
    if (passing(result)) return err_set(ERR_IO, "%s", words), 1;
    return err_set(ERR_IO, "%s: %s; check the URL", http->url, words);
}

/* Drives the transfer until the window reaches `end`, it pauses, or it is over. As ended(). */
static int drive(struct http *http, uint64_t end) {
    int64_t mark_ms = clock_ms();
    uint64_t mark = http->received;
    if (http->paused) {
        http->paused = false;
        curl_easy_pause(http->easy, CURLPAUSE_CONT);
    }
    for (int running;;) {
        CHECK(curl_multi_perform(http->multi, &running) == CURLM_OK);
        int left;
        for (CURLMsg *message; (message = curl_multi_info_read(http->multi, &left));)
            if (message->msg == CURLMSG_DONE) return ended(http, message->data.result);
        if (http->paused || (http->at >= end && http->answered)) return 0;
        TRY(ticked(http));
        curl_multi_poll(http->multi, NULL, 0, TICK_MS, NULL);
        if (clock_ms() - mark_ms < http->patience.silence_ms) continue;
        if (http->received - mark < HTTP_SILENCE_BYTES) {
            stop(http);
            return err_set(ERR_IO, "the server says nothing for %.0f s", (double)http->patience.silence_ms / 1e3), 1;
        }
        mark_ms = clock_ms(), mark = http->received;
    }
}

/* ---- Patience ---------------------------------------------------------------------------------------------------------------- */

/* After a failure that may pass: waits, or gives up. */
static int wait_or_fail(struct http *http) {
    if (http->kept >= http->kept_before + PROGRESS_BYTES) http->failures = 0;
    http->kept_before = http->kept;
    if (++http->failures >= http->patience.tries) {
        return err_set(ERR_IO, "%s: %s, %d times in a row; check the URL and the network, then start again", http->url, err_text(),
                       http->failures);
    }
    if (http->failures == 1) /* what follows takes seconds, and looks as if nothing went on */
        log_warn("cannot reach %s: %s; trying again, %d of %d", http->url, err_text(), http->failures + 1, http->patience.tries);
    int64_t pause_ms = http->patience.pause_ms;
    for (int i = 1; i < http->failures && pause_ms < http->patience.pause_max_ms; i++) pause_ms *= 2;
    if (pause_ms > http->patience.pause_max_ms) pause_ms = http->patience.pause_max_ms;
    if (pause_ms < http->later_ms) pause_ms = http->later_ms;
    for (int64_t until = clock_ms() + pause_ms, left; (left = until - clock_ms()) > 0;) {
        TRY(ticked(http));
        clock_sleep_ms(left < TICK_MS ? left : TICK_MS);
    }
    return 0;
}

/* Goes on with the transfer when it leads to offset soon; else asks for what is there, and returns true. */
static bool head_for(struct http *http, uint64_t offset) {
    http->wanted = offset, http->window_offset = offset, http->window_size = 0;
    bool ahead = offset >= http->at && (!http->ranges || offset - http->at <= GAP_BYTES_MAX);
    if (http->running && ahead) return false;
    if (offset != http->at) http->range_bytes = RANGE_BYTES_MIN;
    begin(http, offset, http->size - offset < http->range_bytes ? http->size - offset : http->range_bytes);
    if (http->range_bytes < RANGE_BYTES_MAX) http->range_bytes *= 2;
    return true;
}

/* Brings at least the byte at offset into the window, and those before end that fit. An answer without that byte is a failure, unless it
 * was begun for others: its range may end before. */
static int fetch(struct http *http, uint64_t offset, uint64_t end) {
    if (!http->window) http->window = mem_alloc(WINDOW_BYTES);
    for (;;) {
        bool asked = head_for(http, offset);
        uint64_t received_before = http->received, kept_before = http->kept;
        int code = drive(http, end);
        if (code < 0) return code;
        if (code == 0 && asked && http->kept == kept_before) {
            err_set(ERR_IO, http->received == received_before ? "the server sends nothing" : OTHER_BYTES);
            code = 1;
        }
        if (code == 0 && !http->running && http->ranges) http->failures = 0;
        if (code == 1) TRY(wait_or_fail(http));
        if (http->window_size > 0) return 0;
    }
}

/* ---- What others call -------------------------------------------------------------------------------------------------------- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void prepare(void) { CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK); }

/* HTTP/1.1: its pauses reach the server through TCP, and need no memory here. CURLOPT_QUICK_EXIT: a name server that says nothing is not
 * waited for once the time for the connection is over: the thread that asks it ends by itself. */
static void set_options(struct http *http) {
    CURL *easy = http->easy;
    bool fine = curl_easy_setopt(easy, CURLOPT_URL, http->url) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https") == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)http->patience.connect_ms) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_USERAGENT, "millrace/" MILLRACE_VERSION) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, http->headers) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_OPTIONAL) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, http->words) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take) == CURLE_OK;
    fine &= curl_easy_setopt(easy, CURLOPT_WRITEDATA, http) == CURLE_OK;
    CHECK(fine);
}

/* The first request: for one byte. A server without ranges begins to send the file, which is paused and goes on with the first read. */
static int ask(struct http *http) {
    for (;;) {
        begin(http, 0, 1);
        int code = drive(http, 1);
        if (code == 0) http->failures = 0;
        if (code <= 0) return code;
        TRY(wait_or_fail(http));
    }
}

int http_open_patiently(struct http **out, const char *url, int (*tick)(void *arg), void *tick_arg, const struct http_patience *patience) {
    CHECK(http_is_url(url) && patience->tries > 0);
    CHECK(pthread_once(&once, prepare) == 0);
    struct http *http = mem_alloc(sizeof *http);
    *http = (struct http){.url = mem_text(url), .patience = *patience, .tick = tick, .tick_arg = tick_arg,
                          .easy = curl_easy_init(), .multi = curl_multi_init(),
                          .headers = curl_slist_append(NULL, "Accept-Encoding: identity"), .range_bytes = RANGE_BYTES_MIN};
    CHECK(http->easy && http->multi && http->headers);
    set_options(http);
    int code = ask(http);
    if (code < 0)
        http_close(http);
    else
        *out = http;
    return code;
}

int http_open(struct http **out, const char *url, int (*tick)(void *arg), void *tick_arg) {
    static const struct http_patience usual = {
        .tries = 6, .pause_ms = 200, .pause_max_ms = 5000, .connect_ms = 15000, .silence_ms = 30000};
    return http_open_patiently(out, url, tick, tick_arg, &usual);
}

uint64_t http_size(const struct http *http) { return http->size; }

uint64_t http_version(const struct http *http) { return http->version; }

int http_read(struct http *http, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    if (offset > http->size) offset = http->size;
    uint64_t end = http->size - offset < size_bytes ? http->size : offset + size_bytes;
    size_t done = 0;
    while (offset < end) {
        uint64_t into = offset - http->window_offset;
        if (offset < http->window_offset || into >= http->window_size) {
            TRY(fetch(http, offset, end));
            continue;
        }
        size_t n = http->window_size - (size_t)into < end - offset ? http->window_size - (size_t)into : (size_t)(end - offset);
        memcpy((uint8_t *)out + done, http->window + into, n);
        done += n, offset += n;
    }
    *out_got = done;
    return 0;
}

void http_close(struct http *http) {
    if (!http) return;
    stop(http);
    curl_easy_cleanup(http->easy);
    curl_multi_cleanup(http->multi);
    curl_slist_free_all(http->headers);
    free(http->url);
    free(http->window);
    free(http);
}
