/* Files at http:// and https:// URLs, through libcurl: the only file of the project that knows it. Range requests, retries with growing
 * pauses, a limit on redirects and on silence. A server without ranges is read from the front, in one stream, and again from the front
 * when an earlier place is asked for. What a server sends with Content-Encoding gzip or zstd are those bytes, of which
 * dataset/source/content.h sees what they are; other encodings are refused. Proxies and certificates as curl finds them, passwords in
 * ~/.netrc. */
#ifndef MILLRACE_DATASET_HTTP_H
#define MILLRACE_DATASET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool http_is_url(const char *name);

struct http_patience {
    int tries;                                /* without progress in between */
    int64_t pause_ms, pause_max_ms;           /* after the first failure, then doubling */
    int64_t connect_ms, silence_ms;           /* silence: less than HTTP_SILENCE_BYTES in that time */
};
enum { HTTP_SILENCE_BYTES = 1024 };

struct http;
/* Asks for the size. ERR_IO with URL, status and what to do; ERR_NOTFOUND for 404 and 410. `tick` is called often while the server is
 * waited for, here and in http_read(): a silent one is waited for longer than a worker's lease lasts. Not 0 ends the wait with
 * ERR_INTERRUPTED. NULL: http_stop() does. */
int http_open(struct http **out, const char *url, int (*tick)(void *arg), void *tick_arg);
int http_open_patiently(struct http **out, const char *url, int (*tick)(void *arg), void *tick_arg, const struct http_patience *patience);
void http_stop(bool stop); /* who waits without a tick, waits no longer; false: from now on again. Also from a signal handler */
uint64_t http_size(const struct http *http);           /* of the file; http_open() is ERR_UNSUPPORTED when the server does not give it */
uint64_t http_version(const struct http *http);        /* a digest of ETag, Last-Modified and size: another one is another file */
/* As struct byte_reader's read. A file that changed since http_open() is ERR_CORRUPT. */
int http_read(struct http *http, void *out, size_t *out_got, size_t size_bytes, uint64_t offset);
void http_close(struct http *http);

#endif
