/* Reads the table of a token run and checks it, so that who plans with it can rely on it. Token ids are read only by
 * token_run_ids_check(). */
#include "dataset/ingest/token_run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "dataset/shard/shard_index.h"

const struct seal_kind token_run_seal = {
    .magic = "MLRTABLE",
    .message = &millrace__run_table__descriptor,
    .bytes_max = TOKEN_RUN_TABLE_BYTES_MAX,
    .memory_max = (size_t)4 * TOKEN_RUN_TABLE_BYTES_MAX,
};

static int refuse(const char *what) { return err_set(ERR_CORRUPT, "the token run's table: %s", what); }

static int check_columns(const Millrace__RunTable *t) {
    size_t n = t->n_source;
    if (t->n_member != n || t->n_offset != n || t->n_bytes != n || t->n_piece_tokens != n || t->n_flags != n || t->n_blocks != n ||
        t->n_replaced != n)
        return refuse("its columns differ in length");
    if (t->n_changed != 0 && t->n_changed != n) return refuse("its columns differ in length");
    if (t->bands.len > 0 && (n == 0 || t->bands.len % (n * 8) != 0)) return refuse("its bands do not fit its pieces");
    return t->token_bytes == 2 || t->token_bytes == 4 ? 0 : refuse("token_bytes is neither 2 nor 4");
}

/* Pieces of one part follow each other: a document that does not end there is the part's last, one that did not begin there its first. */
static int check_pieces(const Millrace__RunTable *t) {
    uint64_t tokens = 0, blocks = 0;
    for (size_t i = 0; i < t->n_source; i++) {
        bool first = i == 0 || t->source[i - 1] != t->source[i], last = i + 1 == t->n_source || t->source[i + 1] != t->source[i];
        if (i > 0 && t->source[i] < t->source[i - 1]) return refuse("its parts are not in order");
        if (t->flags[i] > (TOKEN_RUN_BEGINS | TOKEN_RUN_ENDS)) return refuse("unknown flags");
        if ((!(t->flags[i] & TOKEN_RUN_BEGINS) && !first) || (!(t->flags[i] & TOKEN_RUN_ENDS) && !last)) return refuse("a torn document");
        if (t->member[i] > t->n_member_name) return refuse("a member without a name");
        if (t->blocks[i] == 0) return refuse("a piece without a digest");
        if (__builtin_add_overflow(tokens, t->piece_tokens[i], &tokens)) return refuse("too many tokens");
        blocks += t->blocks[i];
    }
    if (tokens != t->tokens) return refuse("its pieces do not have the tokens of the run");
    return blocks <= SIZE_MAX / SHA256_BYTES && t->digests.len == blocks * SHA256_BYTES ? 0 : refuse("its digests do not fit its pieces");
}

uint64_t token_run_piece_bytes(const Millrace__RunTable *table, size_t i) {
    return i < table->n_changed && table->changed[i] ? table->changed[i] : table->bytes[i];
}

/* Nothing that was read is in no account. */
static int check_account(const Millrace__RunTable *t) {
    uint64_t sum = t->around_bytes;
    bool over = false;
    for (size_t i = 0; i < t->n_source; i++) over |= __builtin_add_overflow(sum, token_run_piece_bytes(t, i), &sum);
    for (size_t i = 0; i < t->n_dropped; i++) over |= __builtin_add_overflow(sum, t->dropped[i]->bytes, &sum);
    return !over && sum == t->read_bytes ? 0 : refuse("the bytes that it accounts for are not those that were read");
}

int token_run_table_check(const Millrace__RunTable *table) {
    TRY(check_columns(table));
    TRY(check_pieces(table));
    TRY(check_account(table));
    for (size_t i = 0; i < table->n_dropped; i++)
        if (table->dropped[i]->documents == 0 || table->dropped[i]->n_examples > TOKEN_RUN_EXAMPLES_MAX)
            return refuse("a reason without documents, or with too many examples");
    return 0;
}

static int read_at(int fd, void *out, size_t size, uint64_t offset) {
    size_t got = 0;
    TRY(file_read_at(fd, out, &got, size, offset));
    return got == size ? 0 : err_set(ERR_CORRUPT, "it became shorter while it was read");
}

/* From a seal, the table before it, and the bytes of all: ids, table and seal. */
static int unpack_table(Millrace__RunTable **out, const struct seal *seal, const void *bytes, uint64_t size) {
    ProtobufCMessage *message;
    TRY(seal_unpack(&message, seal, bytes, &token_run_seal));
    Millrace__RunTable *table = (Millrace__RunTable *)message;
    int code = token_run_table_check(table);
    uint64_t ids = size - SEAL_BYTES - seal->size_bytes;
    if (code == 0 && (ids % table->token_bytes != 0 || ids / table->token_bytes != table->tokens))
        code = refuse("its tokens do not fill the file");
    if (code < 0) millrace__run_table__free_unpacked(table, NULL);
    else *out = table;
    return code;
}

static int read_seal(struct seal *out, const uint8_t footer[SEAL_BYTES], uint64_t size) {
    TRY(seal_read(out, footer, &token_run_seal));
    return out->size_bytes <= size - SEAL_BYTES ? 0 : err_set(ERR_CORRUPT, "its table is longer than the file");
}

int token_run_table_parse(Millrace__RunTable **out, const void *bytes, size_t size_bytes) {
    struct seal seal;
    if (size_bytes < SEAL_BYTES) return err_set(ERR_CORRUPT, "too short to be a token run");
    const uint8_t *footer = (const uint8_t *)bytes + size_bytes - SEAL_BYTES;
    TRY(read_seal(&seal, footer, size_bytes));
    return unpack_table(out, &seal, footer - seal.size_bytes, size_bytes);
}

static int read_table(Millrace__RunTable **out, int fd, uint64_t size) {
    uint8_t footer[SEAL_BYTES];
    struct seal seal;
    if (size < SEAL_BYTES) return err_set(ERR_CORRUPT, "too short to be a token run");
    TRY(read_at(fd, footer, sizeof footer, size - SEAL_BYTES));
    TRY(read_seal(&seal, footer, size));
    uint8_t *bytes = malloc(seal.size_bytes + 1);
    if (!bytes) return err_set(ERR_MEMORY, "out of memory: %zu bytes for a token run's table were wanted", seal.size_bytes);
    int code = read_at(fd, bytes, seal.size_bytes, size - SEAL_BYTES - seal.size_bytes);
    if (code == 0) code = unpack_table(out, &seal, bytes, size);
    free(bytes);
    return code;
}

int token_run_table_read(Millrace__RunTable **out, const char *path) {
    int fd;
    TRY(file_open(&fd, path));
    struct stat st;
    int code = fstat(fd, &st) == 0 ? read_table(out, fd, (uint64_t)st.st_size) : err_errno("run");
    close(fd);
    return code < 0 ? err_add(code, "%s", path) : 0;
}

int token_run_ids_check(const Millrace__RunTable *table, const char *path, uint64_t vocabulary) {
    enum { BLOCK = 1 << 20 };
    uint64_t left = table->tokens * table->token_bytes, at = 0;
    int fd = -1, code = file_open(&fd, path);
    uint8_t *block = malloc(BLOCK);
    if (code == 0 && !block) code = err_set(ERR_MEMORY, "out of memory");
    for (; code == 0 && left > 0;) {
        size_t size = left < BLOCK ? (size_t)left : BLOCK;
        code = read_at(fd, block, size, at);
        uint32_t most = code == 0 ? tokens_most(block, size, table->token_bytes) : 0;
        if (code == 0 && most >= vocabulary)
            code = err_set(ERR_CORRUPT, "token %u, but the vocabulary has %llu", most, (unsigned long long)vocabulary);
        at += size, left -= size;
    }
    free(block);
    if (fd >= 0) close(fd);
    return code;
}
