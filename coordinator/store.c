/* The coordinator's memory, on SQLite. Owns the connection and the lock of the state folder. A function for each query; statements are
 * prepared at each use: the rates here are tens a second. */
#include "coordinator/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/store_check.h"

struct store {
    sqlite3 *db;
    int lock_fd;
    bool begun;
};

/* The statement says something to developers only, so a full disk is reported without it. */
static int fault(struct store *store, const char *doing) {
    const char *path = sqlite3_db_filename(store->db, "main");
    TRY(store_known_fault(store->db, path));
    return err_set(ERR_IO, "%s: %s (%s)", path, sqlite3_errmsg(store->db), doing);
}

static int execute(struct store *store, const char *sql) {
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) != SQLITE_OK) return fault(store, sql);
    return 0;
}

/* One coordinator for a state folder: the lock is the kernel's and ends with the process; the pid in it is for people. */
static int take_lock(struct store *store, const char *folder) {
    char *path = mem_format("%s/lock", folder);
    store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    int code = store->lock_fd < 0 ? err_errno("open %s", path) : 0;
    bool locked = code == 0 && flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0;
    if (code == 0 && !locked && errno != EWOULDBLOCK)
        code = err_errno("%s cannot be locked; choose an output_dir on a file system that does flock()", path);
    if (code == 0 && !locked) {
        char pid[32] = "";
        ssize_t n = pread(store->lock_fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? n : 0] = 0;
        pid[strcspn(pid, "\n")] = 0;
        code = err_set(ERR_IO, "%s is in use by the coordinator with pid %s; stop it first, or choose another output_dir", folder, pid);
    }
    if (code == 0 && (ftruncate(store->lock_fd, 0) != 0 || dprintf(store->lock_fd, "%d\n", (int)getpid()) < 0))
        code = err_errno("write %s", path);
    free(path);
    return code;
}

/* SQLite would name another file, or none. */
static int look_at_places(const char *folder) {
    static const struct {
        const char *name;
        enum file_place how;
    } files[] = {{"lock", FILE_OPENED}, {"millrace.db", FILE_OPENED}, {"millrace.db-wal", FILE_OPENED_HERE},
                 {"millrace.db-shm", FILE_OPENED_HERE}};
    int code = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files && code == 0; i++) {
        char *path = mem_format("%s/%s", folder, files[i].name);
        code = file_check_place(path, files[i].how);
        free(path);
    }
    return code;
}

int store_open(struct store **out, const char *folder) {
    TRY(folder_make_private(folder));
    TRY(look_at_places(folder));
    struct store *store = mem_alloc(sizeof *store);
    store->lock_fd = -1;
    int code = take_lock(store, folder);
    char *path = mem_format("%s/millrace.db", folder);
    if (code == 0) code = store_file_open(&store->db, path);
    free(path);
    if (code < 0) {
        store_close(store);
        return code;
    }
    *out = store;
    return 0;
}

void store_close(struct store *store) {
    if (!store) return;
    store_cancel(store);
    sqlite3_close(store->db);
    if (store->lock_fd >= 0) close(store->lock_fd);
    free(store);
}

int store_in_place(struct store *store) {
    int moved = 0;
    if (sqlite3_file_control(store->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) != SQLITE_OK || !moved) return 0;
    return err_set(ERR_NOTFOUND, "%s was moved, removed or replaced while this run used it", sqlite3_db_filename(store->db, "main"));
}

int store_forget_all(struct store *store) {
    return execute(store,
                   "BEGIN; DELETE FROM named; DELETE FROM jobs; DELETE FROM steps; DELETE FROM evaluations; DELETE FROM events; COMMIT;");
}

int store_begin(struct store *store) {
    CHECK(!store->begun);
    TRY(execute(store, "BEGIN"));
    store->begun = true;
    return 0;
}

int store_commit(struct store *store) {
    CHECK(store->begun);
    int code = execute(store, "COMMIT");
    if (code < 0) store_cancel(store); /* a full disk, say: the next transaction begins anew */
    store->begun = false;
    return code;
}

void store_cancel(struct store *store) {
    if (store->begun) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    store->begun = false;
}

void store_settle(struct store *store) {
    CHECK(!store->begun);
    if (sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) != SQLITE_OK)
        log_warn("state database: its log stays long: %s", sqlite3_errmsg(store->db));
}

/* Prepares `sql` and binds one argument for each letter of `types`: t text, n uint64_t, d double, b pointer and size_t. */
static int prepare(struct store *store, sqlite3_stmt **out, const char *sql, const char *types, va_list args) {
    if (sqlite3_prepare_v2(store->db, sql, -1, out, NULL) != SQLITE_OK) return fault(store, sql);
    for (int i = 1; *types; types++, i++) {
        if (*types == 't') sqlite3_bind_text(*out, i, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
        if (*types == 'n') sqlite3_bind_int64(*out, i, (sqlite3_int64)va_arg(args, uint64_t));
        if (*types == 'd') sqlite3_bind_double(*out, i, va_arg(args, double));
        if (*types == 'b') {
            const void *bytes = va_arg(args, const void *);
            size_t size = va_arg(args, size_t);
            sqlite3_bind_blob64(*out, i, bytes ? bytes : "", size, SQLITE_TRANSIENT);
        }
    }
    return 0;
}

static int run(struct store *store, const char *sql, const char *types, ...) {
    sqlite3_stmt *statement = NULL;
    va_list args;
    va_start(args, types);
    int code = prepare(store, &statement, sql, types, args);
    va_end(args);
    if (code == 0 && sqlite3_step(statement) != SQLITE_DONE) code = fault(store, sql);
    sqlite3_finalize(statement);
    return code;
}

static int query(struct store *store, sqlite3_stmt **out, const char *sql, const char *types, ...) {
    va_list args;
    va_start(args, types);
    int code = prepare(store, out, sql, types, args);
    va_end(args);
    return code;
}

/* 1: a row, 0: no more, or an error. */
static int next_row(struct store *store, sqlite3_stmt *statement) {
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) return 1;
    return code == SQLITE_DONE ? 0 : fault(store, "read");
}

/* SQLite keeps NaN as NULL. */
static double number_or_nan(sqlite3_stmt *statement, int column) {
    return sqlite3_column_type(statement, column) == SQLITE_NULL ? __builtin_nan("") : sqlite3_column_double(statement, column);
}

static void copy_digest(uint8_t out[XXH128_BYTES], sqlite3_stmt *statement, int column) {
    memset(out, 0, XXH128_BYTES);
    if (sqlite3_column_bytes(statement, column) == XXH128_BYTES) memcpy(out, sqlite3_column_blob(statement, column), XXH128_BYTES);
}

/* ---- named values ---- */

int store_set(struct store *store, const char *name, const void *value, size_t size_bytes) {
    return run(store, "INSERT OR REPLACE INTO named VALUES(?, ?)", "tb", name, value, size_bytes);
}

int store_set_number(struct store *store, const char *name, uint64_t value) {
    return run(store, "INSERT OR REPLACE INTO named VALUES(?, ?)", "tn", name, value);
}

int store_get(struct store *store, const char *name, struct buf *out) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT value FROM named WHERE name = ?", "t", name));
    int code = next_row(store, statement);
    if (code == 1) {
        const void *bytes = sqlite3_column_blob(statement, 0);
        int failed = buf_append(out, bytes ? bytes : "", (size_t)sqlite3_column_bytes(statement, 0));
        if (failed < 0) code = failed;
    }
    sqlite3_finalize(statement);
    return code;
}

int store_get_number(struct store *store, const char *name, uint64_t *out) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT value FROM named WHERE name = ?", "t", name));
    int code = next_row(store, statement);
    if (code == 1) *out = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return code;
}

int store_agrees(struct store *store, const char *name, const void *value, size_t size_bytes) {
    struct buf recorded = {0};
    int code = store_get(store, name, &recorded);
    bool same = code == 0 || (recorded.size == size_bytes && (!size_bytes || memcmp(recorded.data, value, size_bytes) == 0));
    buf_free(&recorded);
    return code < 0 ? code : same;
}

/* ---- damage ---- */

int store_damage(struct store *store, struct store_damage *out) {
    *out = (struct store_damage){0};
    for (size_t i = 0; i < STORE_TABLES; i++) {
        char *name = mem_format(STORE_DAMAGED "%s", store_table_name((enum store_table)i));
        int code = store_get_number(store, name, &out->bad_rows[i]);
        free(name);
        TRY(code);
        out->lost[i] = code == 1;
    }
    uint64_t none;
    int code = store_get_number(store, STORE_DAMAGED "file", &none);
    out->found = code == 1;
    return code < 0 ? code : 0;
}

int store_damage_settled(struct store *store) {
    return run(store, "DELETE FROM named WHERE substr(name, 1, ?) = ?", "nt", (uint64_t)strlen(STORE_DAMAGED), STORE_DAMAGED);
}

/* ---- jobs ---- */

int store_job_add(struct store *store, const char *stage, uint64_t number, const void *spec, size_t spec_bytes) {
    return run(store, "INSERT INTO jobs(stage, number, spec) VALUES(?, ?, ?)", "tnb", stage, number, spec, spec_bytes);
}

int store_job_done(struct store *store, const char *stage, uint64_t number, const char *worker, const void *result, size_t result_bytes) {
    return run(store, "UPDATE jobs SET state = 'done', worker = ?, result = ? WHERE stage = ? AND number = ?", "tbtn", worker, result,
               result_bytes, stage, number);
}

int store_job_failed(struct store *store, const char *stage, uint64_t number, const char *worker, const char *reason) {
    return run(store, "UPDATE jobs SET worker = ?, reason = ?, failures = failures + 1 WHERE stage = ? AND number = ?", "tttn", worker,
               reason, stage, number);
}

int store_jobs_drop(struct store *store, const char *stage) {
    return run(store, "DELETE FROM jobs WHERE stage = ?", "t", stage);
}

int store_job_count(struct store *store, const char *stage, uint64_t *out) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT COUNT(*) FROM jobs WHERE stage = ?", "t", stage));
    int code = next_row(store, statement);
    if (code == 1) *out = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return code < 0 ? code : 0;
}

int store_job_failures(struct store *store, const char *stage, int (*each)(void *arg, uint64_t number, uint64_t failures), void *arg) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT number, failures FROM jobs WHERE stage = ? AND failures > 0 AND state <> 'done' ORDER BY number",
              "t", stage));
    int code;
    while ((code = next_row(store, statement)) == 1)
        if ((code = each(arg, (uint64_t)sqlite3_column_int64(statement, 0), (uint64_t)sqlite3_column_int64(statement, 1))) < 0) break;
    sqlite3_finalize(statement);
    return code < 0 ? code : 0;
}

int store_jobs(struct store *store, const char *stage,
               int (*each)(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes),
               void *arg) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT number, spec, result, state = 'done' FROM jobs WHERE stage = ? ORDER BY number", "t", stage));
    int code;
    while ((code = next_row(store, statement)) == 1) {
        const void *spec = sqlite3_column_blob(statement, 1), *result = sqlite3_column_blob(statement, 2);
        bool done = sqlite3_column_int(statement, 3);
        code = each(arg, (uint64_t)sqlite3_column_int64(statement, 0), spec ? spec : "", (size_t)sqlite3_column_bytes(statement, 1),
                    done ? (result ? result : "") : NULL, (size_t)sqlite3_column_bytes(statement, 2));
        if (code < 0) break;
    }
    sqlite3_finalize(statement);
    return code < 0 ? code : 0;
}

/* ---- memos ---- */

int store_memo_put(struct store *store, const uint8_t key[SHA256_BYTES], const void *result, size_t result_bytes) {
    return run(store, "INSERT OR REPLACE INTO memos VALUES(?, ?)", "bb", key, (size_t)SHA256_BYTES, result, result_bytes);
}

int store_memo_get(struct store *store, const uint8_t key[SHA256_BYTES], struct buf *out) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT result FROM memos WHERE key = ?", "b", key, (size_t)SHA256_BYTES));
    int code = next_row(store, statement);
    if (code == 1) {
        int failed = buf_append(out, sqlite3_column_blob(statement, 0), (size_t)sqlite3_column_bytes(statement, 0));
        if (failed < 0) code = failed;
    }
    sqlite3_finalize(statement);
    return code;
}

int store_memo_drop(struct store *store, const uint8_t key[SHA256_BYTES]) {
    return run(store, "DELETE FROM memos WHERE key = ?", "b", key, (size_t)SHA256_BYTES);
}

int store_memos(struct store *store, int (*each)(void *arg, const uint8_t key[SHA256_BYTES]), void *arg) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT key FROM memos ORDER BY key", ""));
    int code;
    while ((code = next_row(store, statement)) == 1) {
        uint8_t key[SHA256_BYTES] = {0};
        if (sqlite3_column_bytes(statement, 0) == SHA256_BYTES) memcpy(key, sqlite3_column_blob(statement, 0), SHA256_BYTES);
        if ((code = each(arg, key)) < 0) break;
    }
    sqlite3_finalize(statement);
    return code < 0 ? code : 0;
}

/* ---- the ledger ---- */

int store_step_add(struct store *store, const struct step_row *row) {
    return run(
        store,
        "INSERT INTO steps(step, tokens, gradient, loss, learning_rate, gradient_norm, seconds, skipped) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        "nnbddddn", row->step, row->tokens, row->gradient, (size_t)XXH128_BYTES, row->loss, row->learning_rate, row->gradient_norm,
        row->seconds, (uint64_t)row->skipped);
}

int store_steps(struct store *store, int (*each)(void *arg, const struct step_row *row), void *arg) {
    sqlite3_stmt *s = NULL;
    TRY(query(
        store, &s,
        "SELECT step, tokens, gradient, loss, learning_rate, gradient_norm, seconds, skipped FROM steps WHERE superseded = 0 ORDER BY step",
        ""));
    int code;
    while ((code = next_row(store, s)) == 1) {
        struct step_row row = {.step = (uint64_t)sqlite3_column_int64(s, 0), .tokens = (uint64_t)sqlite3_column_int64(s, 1),
                               .loss = number_or_nan(s, 3), .learning_rate = sqlite3_column_double(s, 4),
                               .gradient_norm = number_or_nan(s, 5), .seconds = sqlite3_column_double(s, 6),
                               .skipped = sqlite3_column_int(s, 7)};
        copy_digest(row.gradient, s, 2);
        if ((code = each(arg, &row)) < 0) break;
    }
    sqlite3_finalize(s);
    return code < 0 ? code : 0;
}

int store_step_newest(struct store *store, uint64_t *out) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT COALESCE(MAX(step), 0) FROM steps WHERE superseded = 0", ""));
    int code = next_row(store, statement);
    if (code == 1) *out = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return code < 0 ? code : 0;
}

int store_steps_bad(struct store *store, uint64_t *out_count, uint64_t *out_newest) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT COUNT(DISTINCT step), COALESCE(MAX(step), 0) FROM steps WHERE skipped = 1 AND tokens > 0", ""));
    int code = next_row(store, statement);
    if (code == 1) {
        *out_count = (uint64_t)sqlite3_column_int64(statement, 0);
        *out_newest = (uint64_t)sqlite3_column_int64(statement, 1);
    }
    sqlite3_finalize(statement);
    return code < 0 ? code : 0;
}

int store_steps_drop(struct store *store, uint64_t after_step) {
    TRY(run(store, "DELETE FROM steps WHERE step > ?", "n", after_step));
    return run(store, "DELETE FROM evaluations WHERE step > ?", "n", after_step);
}

int store_steps_supersede(struct store *store, uint64_t after_step) {
    TRY(run(store, "UPDATE steps SET superseded = 1 WHERE step > ?", "n", after_step));
    return run(store, "DELETE FROM evaluations WHERE step > ?", "n", after_step);
}

int store_step_disputed(struct store *store, const struct step_row *row) {
    TRY(store_begin(store));
    int code = run(store, "DELETE FROM steps WHERE step > ?", "n", row->step);
    if (code == 0) code = store_step_add(store, row);
    if (code == 0) code = store_steps_supersede(store, row->step - 1);
    if (code == 0) return store_commit(store);
    store_cancel(store);
    return code;
}

/* A row that was made again from a checkpoint has zeros for a gradient. */
int store_step_superseded(struct store *store, uint64_t step, uint8_t out_gradient[XXH128_BYTES]) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT gradient FROM steps WHERE step = ? AND superseded = 1 ORDER BY id DESC LIMIT 1", "n", step));
    int code = next_row(store, statement);
    if (code == 1) copy_digest(out_gradient, statement, 0);
    sqlite3_finalize(statement);
    static const uint8_t unknown[XXH128_BYTES];
    return code == 1 && memcmp(out_gradient, unknown, sizeof unknown) == 0 ? 0 : code;
}

int store_evaluation_add(struct store *store, const struct evaluation_row *row) {
    return run(store, "INSERT OR REPLACE INTO evaluations VALUES(?, ?, ?)", "nnd", row->step, row->tokens, row->loss);
}

int store_evaluations(struct store *store, int (*each)(void *arg, const struct evaluation_row *row), void *arg) {
    sqlite3_stmt *statement = NULL;
    TRY(query(store, &statement, "SELECT step, tokens, loss FROM evaluations ORDER BY step", ""));
    int code;
    while ((code = next_row(store, statement)) == 1) {
        struct evaluation_row row = {.step = (uint64_t)sqlite3_column_int64(statement, 0),
                                     .tokens = (uint64_t)sqlite3_column_int64(statement, 1), .loss = number_or_nan(statement, 2)};
        if ((code = each(arg, &row)) < 0) break;
    }
    sqlite3_finalize(statement);
    return code < 0 ? code : 0;
}

int store_event(struct store *store, const char *kind, const char *text) {
    char stamp[32];
    enum { DROPPED_AT_ONCE = 1000 }; /* one more transaction for as many events */
    clock_stamp(stamp);
    TRY(run(store, "INSERT INTO events(time, kind, text) VALUES(?, ?, ?)", "ttt", stamp, kind, text));
    int64_t newest = sqlite3_last_insert_rowid(store->db);
    if (newest % DROPPED_AT_ONCE || newest <= STORE_EVENTS_KEPT) return 0;
    return run(store, "DELETE FROM events WHERE id <= ?", "n", (uint64_t)newest - STORE_EVENTS_KEPT);
}
