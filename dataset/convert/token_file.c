/* Reads token files. A number in a header is used only after it agrees with the size of the file. */
#include "dataset/convert/token_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/source/content.h"

static const uint8_t npy_magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* ---- .npy ---- */

/* What stands behind 'key': in the header's text. */
static const char *value_of(const char *text, const char *key) {
    char *quoted = mem_format("'%s':", key);
    const char *at = strstr(text, quoted);
    if (at) at += strlen(quoted) + strspn(at + strlen(quoted), " ");
    free(quoted);
    return at;
}

/* The product of the numbers in "(3, 4)". */
static int read_shape(uint64_t *out, const char *at) {
    uint64_t product = 1;
    if (!at || *at++ != '(') return err_set(ERR_CORRUPT, "a header without a shape");
    for (at += strspn(at, " "); *at != ')'; at += strspn(at, ", ")) {
        char *end;
        errno = 0;
        unsigned long long count = strtoull(at, &end, 10);
        if (end == at || errno || __builtin_mul_overflow(product, (uint64_t)count, &product))
            return err_set(ERR_CORRUPT, "a shape that cannot be read");
        at = end;
    }
    *out = product;
    return 0;
}

static int read_npy_text(struct token_file *file, const char *text) {
    static const struct {
        const char *type;
        uint32_t bytes;
    } types[] = {{"'<u2'", 2}, {"'<u4'", 4}, {"'<i4'", 4}}; /* who reads an int32's ids looks for negative ones */
    const char *type = value_of(text, "descr"), *order = value_of(text, "fortran_order");
    if (!type || !order) return err_set(ERR_CORRUPT, "a header that cannot be read");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strncmp(type, types[i].type, strlen(types[i].type)) == 0) file->token_bytes = types[i].bytes;
    if (!file->token_bytes || strncmp(order, "False", 5) != 0)
        return err_set(ERR_UNSUPPORTED, "numbers of type %.*s; write uint16 or uint32 in C order, as numpy's astype('<u2') does",
                       (int)strcspn(type, ",}"), type);
    return read_shape(&file->tokens, value_of(text, "shape"));
}

static int read_npy(struct token_file *file, const uint8_t *head) {
    if (head[6] != 1) return err_set(ERR_UNSUPPORTED, "version %u of the .npy format; 1 is expected", head[6]);
    size_t size = (size_t)head[8] | (size_t)head[9] << 8, got;
    char *text = mem_alloc(size + 1);
    int code = file_read_at(file->fd, text, &got, size, NPY_HEAD_BYTES);
    if (code == 0 && got != size) code = err_set(ERR_CORRUPT, "ends inside its header");
    if (code == 0) code = read_npy_text(file, text);
    file->offset = NPY_HEAD_BYTES + size;
    free(text);
    return code;
}

/* ---- All ---- */

static bool is_llmc(struct token_file *file, const uint8_t *head, size_t size) {
    if (size < LLMC_HEAD_BYTES) return false;
    uint32_t magic = token_get(head, 4), version = token_get(head + 4, 4);
    bool narrow = magic == LLMC_MAGIC_2 && version == LLMC_VERSION_2, wide = magic == LLMC_MAGIC_4 && version == LLMC_VERSION_4;
    if (!narrow && !wide) return false;
    file->token_bytes = narrow ? 2 : 4;
    file->offset = LLMC_HEAD_BYTES;
    file->tokens = token_get(head + 8, 4);
    return true;
}

/* Ids without a header are recognized by what they are not: text, another format, ids of another width. Some thirty of them are enough,
 * since no word of a text lies below four at every other place. */
static int check_plain(const uint8_t *head, size_t size, uint32_t token_bytes) {
    enum {
        JUDGED_IDS = 32,
        HIGH_MAX = 3,        /* the upper half of an id below 262144 */
        MAGIC_BYTES_MIN = 4, /* ids may look like shorter ones */
    };
    struct content content = content_of(head, size);
    if (content.kind == CONTENT_PACKED || (content.magic_bytes >= MAGIC_BYTES_MIN && head[0] != 0))
        return err_set(ERR_CORRUPT, "is %s, and no file of token ids", content.name);
    if (content.kind == CONTENT_TEXT && size >= 4 * JUDGED_IDS)
        return err_set(ERR_CORRUPT, "is text, and no file of token ids; dataset.sources takes text");
    size_t ids = size / 4, wide = 0, other = 0, large = 0;
    for (size_t i = 0; i < ids; i++) {
        wide += token_get(head + 4 * i + 2, 2) <= HIGH_MAX && token_get(head + 4 * i, 2) > HIGH_MAX;
        other += token_get(head + 4 * i + 2, 2) > HIGH_MAX;
        large += head[4 * i + 3] > 0;
    }
    if (token_bytes == 2 && ids >= JUDGED_IDS && other == 0 && wide > ids / 2)
        return err_set(ERR_CORRUPT, "every second number is 0 or nearly so: ids of 4 bytes? Then say --token-bytes 4");
    if (token_bytes == 4 && ids >= JUDGED_IDS && large > ids / 2)
        return err_set(ERR_CORRUPT, "most numbers are too large for ids of 4 bytes: ids of 2 bytes? Then say --token-bytes 2");
    return 0;
}

static int read_head(struct token_file *file, uint32_t plain_bytes) {
    struct stat st;
    uint8_t head[LLMC_HEAD_BYTES];
    size_t got;
    if (fstat(file->fd, &st) != 0) return err_errno("stat");
    if (!S_ISREG(st.st_mode)) return err_set(ERR_CORRUPT, "not a regular file");
    TRY(file_read_at(file->fd, head, &got, sizeof head, 0));
    if (got >= NPY_HEAD_BYTES && memcmp(head, npy_magic, sizeof npy_magic) == 0) {
        TRY(read_npy(file, head));
    } else if (!is_llmc(file, head, got)) {
        TRY(check_plain(head, got, plain_bytes));
        file->token_bytes = plain_bytes;
        file->tokens = (uint64_t)st.st_size / plain_bytes;
    }
    uint64_t size;
    bool fits = !__builtin_mul_overflow(file->tokens, (uint64_t)file->token_bytes, &size) &&
                !__builtin_add_overflow(size, file->offset, &size) && size == (uint64_t)st.st_size;
    if (!fits)
        return err_set(ERR_CORRUPT, "%jd bytes do not fit %" PRIu64 " ids of %" PRIu32 " bytes behind a header of %" PRIu64,
                       (intmax_t)st.st_size, file->tokens, file->token_bytes, file->offset);
    return 0;
}

int token_file_open(struct token_file *out, const char *path, uint32_t plain_bytes) {
    CHECK(plain_bytes == 2 || plain_bytes == 4);
    struct token_file file = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.fd < 0) return err_errno("open %s", path);
    int code = read_head(&file, plain_bytes);
    if (code < 0) {
        close(file.fd);
        return err_add(code, "%s", path);
    }
    *out = file;
    return 0;
}

int token_file_read(const struct token_file *file, void *out, uint64_t first, size_t count) {
    size_t got;
    TRY(file_read_at(file->fd, out, &got, count * file->token_bytes, file->offset + first * file->token_bytes));
    return got == count * file->token_bytes ? 0 : err_set(ERR_CORRUPT, "the file became shorter while it was read");
}

void token_file_close(struct token_file *file) {
    if (file->fd >= 0) close(file->fd);
    file->fd = -1;
}
