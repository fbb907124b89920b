/* Reads the first bytes of a source file. Decides nothing itself: dataset/source/content.h does. */
#include "dataset/ingest/source_look.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "dataset/ingest/run.h"
#include "dataset/source/content.h"
#include "dataset/source/http.h"

static int read_head(uint8_t *head, size_t *out_got, const struct source *source) {
    size_t want = source->size < CONTENT_HEAD_BYTES ? (size_t)source->size : CONTENT_HEAD_BYTES;
    if (source->is_url) {
        struct http *http;
        TRY(http_open(&http, source->path));
        int code = http_read(http, head, out_got, want, 0);
        http_close(http);
        return code;
    }
    int fd = -1, code = file_open(&fd, source->path);
    if (code < 0) return err_add(code, "dataset.sources");
    code = file_read_at(fd, head, out_got, want, 0);
    close(fd);
    return code;
}

int source_look(struct split_source *out, const struct source *source) {
    uint8_t head[CONTENT_HEAD_BYTES];
    size_t got;
    if (!source->named && source->size <= RUN_BLOCK_BYTES) return 0;
    TRY(read_head(head, &got, source));
    struct content content = content_of(head, got);
    out->content = content.kind;
    int code = source->named ? content_refuse(&content, source->path) : 0;
    return code < 0 ? err_add(code, "dataset.sources") : 0;
}
