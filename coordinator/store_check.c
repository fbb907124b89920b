/* Opens the store's file: its tables, a digest in each row, and a new file from the whole rows where it is damaged. store_file_open() is
 * the one way in; it runs before anything else uses the store. */
#include "coordinator/store_check.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

enum { STORE_VERSION = 1 }; /* user_version; 0 is millrace 0.1, whose rows had no digests, or an empty file */

static const struct {
    const char *name, *columns, *definition, *constraint;
    bool by_row; /* SQLite numbers its rows; the others are in the order of their keys */
} tables[STORE_TABLES] = {
    [STORE_NAMED] = {"named", "name, value", "name TEXT PRIMARY KEY, value BLOB", "", false},
    [STORE_JOBS] = {"jobs", "stage, number, state, worker, reason, spec, result, failures",
                    "stage TEXT, number INTEGER, state TEXT NOT NULL DEFAULT 'pending', worker TEXT, reason TEXT, spec BLOB NOT NULL,"
                    "  result BLOB, failures INTEGER NOT NULL DEFAULT 0",
                    ", PRIMARY KEY(stage, number)", false},
    [STORE_MEMOS] = {"memos", "key, result", "key BLOB PRIMARY KEY, result BLOB NOT NULL", "", false},
    [STORE_STEPS] = {"steps", "id, step, tokens, gradient, loss, learning_rate, gradient_norm, seconds, skipped, superseded",
                     "id INTEGER PRIMARY KEY, step INTEGER NOT NULL, tokens INTEGER, gradient BLOB, loss REAL, learning_rate REAL,"
                     "  gradient_norm REAL, seconds REAL, skipped INTEGER, superseded INTEGER NOT NULL DEFAULT 0",
                     "", true},
    [STORE_EVALUATIONS] = {"evaluations", "step, tokens, loss", "step INTEGER PRIMARY KEY, tokens INTEGER, loss REAL", "", true},
    [STORE_EVENTS] = {"events", "id, time, kind, text", "id INTEGER PRIMARY KEY, time TEXT, kind TEXT, text TEXT", "", true},
};

const char *store_table_name(enum store_table table) { return tables[table].name; }

/* SQLite does not keep why a write failed. One of its files is as long as a file of this process may be, or nearly. */
static bool is_at_limit(const char *path) {
    enum { LEFT = 1 << 20 }; /* bytes; more than is written at once */
    static const char *const names[] = {"", "-wal", "-shm"};
    struct rlimit limit;
    bool at = false;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat st;
        char *name = mem_format("%s%s", path, names[i]);
        at |= limit.rlim_cur < LEFT || (stat(name, &st) == 0 && (rlim_t)st.st_size > limit.rlim_cur - LEFT);
        free(name);
    }
    return at;
}

int store_known_fault(sqlite3 *db, const char *path) {
    if (sqlite3_errcode(db) == SQLITE_FULL)
        return err_set(ERR_NOSPACE, "%s cannot be written: the disk is full; make room there, then the same command goes on", path);
    if (sqlite3_errcode(db) == SQLITE_BUSY) /* in spite of state/lock, which somebody removed */
        return err_set(ERR_IO, "%s is in use by another process; stop that first, or choose another output_dir", path);
    if (sqlite3_errcode(db) != SQLITE_IOERR || !is_at_limit(path)) return 0;
    errno = EFBIG;
    return err_errno("%s cannot be written", path);
}

static int fault(sqlite3 *db, const char *path) {
    TRY(store_known_fault(db, path));
    return err_set(ERR_IO, "state database: %s: %s", path, sqlite3_errmsg(db));
}

/* ---- digests of rows ---- */

/* row_digest(table, column, ...): of types, lengths and bytes. What it is must never change. */
static void row_digest(sqlite3_context *context, int count, sqlite3_value **value) {
    XXH3_state_t *state = XXH3_createState();
    CHECK(state != NULL && XXH3_128bits_reset(state) == XXH_OK);
    for (int i = 0; i < count; i++) {
        int type = sqlite3_value_type(value[i]);
        uint64_t head[2] = {(uint64_t)type, 0};
        sqlite3_int64 integer = sqlite3_value_int64(value[i]);
        double real = sqlite3_value_double(value[i]);
        const void *bytes = type == SQLITE_INTEGER ? (const void *)&integer : type == SQLITE_FLOAT ? (const void *)&real : NULL;
        size_t size = bytes ? 8 : 0;
        if (type == SQLITE_TEXT || type == SQLITE_BLOB) {
            bytes = type == SQLITE_TEXT ? (const void *)sqlite3_value_text(value[i]) : sqlite3_value_blob(value[i]);
            size = (size_t)sqlite3_value_bytes(value[i]);
        }
        head[1] = size;
        XXH3_128bits_update(state, head, sizeof head);
        if (size) XXH3_128bits_update(state, bytes, size);
    }
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    sqlite3_result_blob(context, digest.digest, sizeof digest.digest, SQLITE_TRANSIENT);
}

/* row_check() is the same function under a name that no stored column was made with, so that nothing answers from what is stored. */
static int open_file(sqlite3 **out, const char *path) {
    enum { FLAGS = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS };
    int code = sqlite3_open(path, out) == SQLITE_OK ? 0 : fault(*out, path);
    if (code == 0 && (sqlite3_create_function(*out, "row_digest", -1, FLAGS, NULL, row_digest, NULL, NULL) != SQLITE_OK ||
                      sqlite3_create_function(*out, "row_check", -1, FLAGS, NULL, row_digest, NULL, NULL) != SQLITE_OK))
        code = fault(*out, path);
    return code;
}

static int execute(sqlite3 *db, const char *path, const char *sql) {
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fault(db, path);
}

/* The first column of the first row; -1 when it cannot be had. */
static int64_t ask(sqlite3 *db, const char *sql) {
    sqlite3_stmt *statement = NULL;
    int64_t answer = -1;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
        answer = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return answer;
}

/* ---- tables ---- */

static int make_tables(sqlite3 *db, const char *path) {
    int code = 0;
    for (size_t i = 0; i < STORE_TABLES && code == 0; i++) {
        char *sql = mem_format("CREATE TABLE IF NOT EXISTS %s(%s, digest BLOB AS (row_digest('%s', %s)) STORED%s)%s", tables[i].name,
                               tables[i].definition, tables[i].name, tables[i].columns, tables[i].constraint,
                               tables[i].by_row ? "" : " WITHOUT ROWID");
        code = execute(db, path, sql);
        free(sql);
    }
    if (code == 0) code = execute(db, path, "CREATE UNIQUE INDEX IF NOT EXISTS steps_step ON steps(step) WHERE superseded = 0");
    if (code == 0) code = execute(db, path, "PRAGMA user_version = 1");
    return code;
}

/* All tables or none: a crash in the middle would look like damage. */
static int begin_file(sqlite3 *db, const char *path) {
    TRY(execute(db, path, "BEGIN"));
    TRY(make_tables(db, path));
    return execute(db, path, "COMMIT");
}

/* The columns of the first release: jobs did not count their failures. */
static const char *old_columns(size_t table) {
    return table == STORE_JOBS ? "stage, number, state, worker, reason, spec, result" : tables[table].columns;
}

/* Rows of the first release are taken as they are. */
static int bring_up(sqlite3 *db, const char *path) {
    TRY(execute(db, path, "BEGIN; DROP INDEX IF EXISTS steps_step; DROP INDEX IF EXISTS steps_superseded"));
    int code = 0;
    for (size_t pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < STORE_TABLES && code == 0; i++) {
            const char *name = tables[i].name, *columns = old_columns(i);
            char *sql = pass == 0 ? mem_format("ALTER TABLE %s RENAME TO old_%s", name, name)
                                  : mem_format("INSERT INTO %s(%s) SELECT %s FROM old_%s; DROP TABLE old_%s", name, columns, columns, name,
                                               name);
            code = execute(db, path, sql);
            free(sql);
        }
        if (code == 0 && pass == 0) code = make_tables(db, path);
    }
    if (code == 0) code = execute(db, path, "COMMIT");
    return code;
}

/* ---- looking for damage ---- */

static int64_t bad_rows(sqlite3 *db, size_t table) {
    char *sql = mem_format("SELECT COUNT(*) FROM %s WHERE digest IS NOT row_check('%s', %s)", tables[table].name, tables[table].name,
                           tables[table].columns);
    int64_t bad = ask(db, sql);
    free(sql);
    return bad;
}

/* Did the machine fail (disk, memory, permissions)? Then nothing is known about the file, and it is not touched. */
static bool machine_fails(sqlite3 *db) {
    switch (sqlite3_errcode(db) & 0xff) {
    case SQLITE_IOERR:
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return true;
    default: return false;
    }
}

static bool rows_are_whole(sqlite3 *db) {
    for (size_t i = 0; i < STORE_TABLES; i++)
        if (bad_rows(db, i) != 0) return false;
    return true;
}

static bool structure_is_whole(sqlite3 *db) {
    sqlite3_stmt *statement = NULL;
    bool whole = sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &statement, NULL) == SQLITE_OK &&
                 sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_text(statement, 0) &&
                 strcmp((const char *)sqlite3_column_text(statement, 0), "ok") == 0;
    sqlite3_finalize(statement);
    return whole;
}

/* ---- repair ---- */

/* Copies the rows of a table that are whole, as far as they can be read in that order. */
static int copy_rows(sqlite3 *to, const char *path, sqlite3 *from, size_t table, bool backwards, uint64_t *out_bad, bool *out_broken) {
    const char *name = tables[table].name, *columns = tables[table].columns;
    int count = 1;
    for (const char *p = columns; (p = strchr(p, ',')); p++) count++;
    const char *order = tables[table].by_row ? "rowid" : table == STORE_JOBS ? backwards ? "stage DESC, number" : "stage, number" : "1";
    char *read = mem_format("SELECT %s, digest IS row_check('%s', %s) FROM %s ORDER BY %s%s", columns, name, columns, name, order,
                            backwards ? " DESC" : "");
    char places[64] = "?";
    for (size_t i = 1, at = 1; i < (size_t)count; i++, at += 2) snprintf(places + at, sizeof places - at, ",?");
    char *write = mem_format("INSERT OR IGNORE INTO %s(%s) VALUES(%s)", name, columns, places);
    sqlite3_stmt *in = NULL, *out = NULL;
    int code = sqlite3_prepare_v2(to, write, -1, &out, NULL) == SQLITE_OK ? 0 : fault(to, path), got = SQLITE_CORRUPT;
    *out_bad = 0;
    if (code == 0 && sqlite3_prepare_v2(from, read, -1, &in, NULL) == SQLITE_OK)
        while (code == 0 && (got = sqlite3_step(in)) == SQLITE_ROW) {
            if (!sqlite3_column_int(in, count)) {
                ++*out_bad;
                continue;
            }
            for (int i = 0; i < count; i++) sqlite3_bind_value(out, i + 1, sqlite3_column_value(in, i));
            if (sqlite3_step(out) != SQLITE_DONE) code = fault(to, path);
            sqlite3_reset(out);
        }
    *out_broken = got != SQLITE_DONE;
    sqlite3_finalize(in);
    sqlite3_finalize(out);
    free(read);
    free(write);
    return code;
}

/* What is lost stays on record until somebody has settled what that means. */
static int note_lost(sqlite3 *to, const char *path, const char *what, uint64_t rows) {
    char *sql = mem_format("INSERT OR REPLACE INTO named(name, value) VALUES('" STORE_DAMAGED "%s', %llu)", what,
                           (unsigned long long)rows);
    int code = execute(to, path, sql);
    free(sql);
    return code;
}

static int copy_whole_rows(sqlite3 *to, const char *path, sqlite3 *from) {
    TRY(note_lost(to, path, "file", 0));
    for (size_t i = 0; i < STORE_TABLES; i++) {
        uint64_t bad, again;
        bool broken, still;
        TRY(copy_rows(to, path, from, i, false, &bad, &broken));
        if (broken) TRY(copy_rows(to, path, from, i, true, &again, &still)); /* from the other end, up to where it breaks */
        if (bad || broken) TRY(note_lost(to, path, tables[i].name, bad));
    }
    return 0;
}

static void remove_beside(const char *path, const char *ending) {
    char *name = mem_format("%s%s", path, ending);
    unlink(name);
    free(name);
}

/* The logs that lie there belong to the damaged file, which is aside: SQLite would take them for this one's. */
static int take_place(const char *fresh, const char *path) {
    remove_beside(path, "-wal");
    remove_beside(path, "-shm");
    remove_beside(path, "-journal");
    return file_rename(fresh, path);
}

/* The damaged file goes aside, what is whole in it takes its place. */
static int repair(const char *path) {
    char *fresh = mem_format("%s.repaired", path), *aside = mem_format("%s.damaged", path);
    sqlite3 *from = NULL, *to = NULL;
    remove_beside(fresh, "");
    remove_beside(fresh, "-journal");
    int code = open_file(&to, fresh);
    if (code == 0) code = make_tables(to, fresh);
    if (code == 0) code = execute(to, fresh, "BEGIN");
    if (code == 0) code = open_file(&from, path);
    if (code == 0) code = copy_whole_rows(to, fresh, from);
    if (code == 0) code = execute(to, fresh, "COMMIT");
    sqlite3_close(from);
    sqlite3_close(to);
    if (code == 0 && rename(path, aside) != 0) code = err_errno("rename %s", path);
    if (code == 0) code = take_place(fresh, path);
    free(fresh);
    free(aside);
    return code;
}

/* A repair that a crash interrupted between its two renames. */
static int go_on_repair(const char *path) {
    char *fresh = mem_format("%s.repaired", path);
    int code = !file_exists(path) && file_exists(fresh) ? take_place(fresh, path) : 0;
    free(fresh);
    return code;
}

/* Opens it. *out_whole: is it as it was written? An error when that cannot be known. */
static int open_whole(sqlite3 **out, bool *out_whole, const char *path) {
    *out_whole = false;
    int code = open_file(out, path);
    if (code == 0) code = execute(*out, path, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;");
    int64_t version = code == 0 ? ask(*out, "PRAGMA user_version") : -1;
    if (version == 0 && ask(*out, "SELECT COUNT(*) FROM sqlite_master") == 0) code = begin_file(*out, path);
    else if (version == 0) code = bring_up(*out, path);
    if (code == 0) *out_whole = structure_is_whole(*out) && rows_are_whole(*out);
    if (!*out_whole && machine_fails(*out)) return fault(*out, path);
    if (version <= STORE_VERSION) return 0;
    if (!*out_whole) return err_set(ERR_CONFIG, "%s was written by a newer millrace; use that one, or choose another output_dir", path);
    *out_whole = false; /* our own tables: its version alone is damaged */
    return 0;
}

/* Earlier versions made stores without it, and do not mind it: a commit that looks for what a step gave before would read all steps. */
static int make_index(sqlite3 *db, const char *path) {
    return execute(db, path, "CREATE INDEX IF NOT EXISTS steps_superseded ON steps(step) WHERE superseded = 1");
}

int store_file_open(sqlite3 **out, const char *path) {
    bool whole = false;
    TRY(go_on_repair(path));
    TRY(open_whole(out, &whole, path));
    if (whole) return make_index(*out, path);
    sqlite3_close(*out);
    *out = NULL;
    TRY(repair(path));
    TRY(open_whole(out, &whole, path));
    if (!whole) return err_set(ERR_CORRUPT, "state database: %s is damaged and could not be repaired; run with --restart", path);
    return make_index(*out, path);
}
