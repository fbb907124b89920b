/* The coordinator's memory: what is read back is what was written, or it is gone and said to be. Bits flip anywhere in the file. */
#include "coordinator/store.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "tests/unit/random.h"

enum { JOBS = 60, STEPS = 50, EVALUATIONS = 10 };

static char folder[64];

static int fresh_folder(void **state) {
    (void)state;
    const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; /* what is not on a disk is synced at once */
    snprintf(folder, sizeof folder, "%s/millrace-store-XXXXXX", memory);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_it(void **state) {
    (void)state;
    return folder_remove(folder);
}

static const char *at(const char *name) {
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static struct store *open_store(void) {
    struct store *store;
    if (store_open(&store, folder) != 0) fail_msg("%s", err_text());
    return store;
}

static void job_bytes(char out[200], const char *what, uint64_t number) {
    snprintf(out, 200, "%s of job %llu: %0*llu", what, (unsigned long long)number, (int)(number % 90), (unsigned long long)number * 7919);
}

static struct step_row step_row(uint64_t step) {
    struct step_row row = {.step = step, .tokens = step * 100, .loss = 3 + 1 / (double)step, .learning_rate = 1e-3, .gradient_norm = 0.5};
    memset(row.gradient, (int)step, sizeof row.gradient);
    if (step % 10 == 7) row.skipped = true, row.loss = row.gradient_norm = NAN;
    if (step == 27) row.tokens = 0; /* nothing of it counted: not a bad step */
    return row;
}

static void fill(struct store *store) {
    char spec[200], result[200];
    assert_int_equal(store_begin(store), 0);
    assert_int_equal(store_set(store, "config", "the pipeline", 12), 0);
    assert_int_equal(store_set(store, "empty", "", 0), 0);
    assert_int_equal(store_set_number(store, "generation", 41), 0);
    for (uint64_t i = 0; i < JOBS; i++) {
        uint8_t key[SHA256_BYTES] = {(uint8_t)i, 9};
        job_bytes(spec, "spec", i);
        job_bytes(result, "result", i);
        assert_int_equal(store_job_add(store, i < JOBS / 2 ? "tokenize" : "pack", i % (JOBS / 2), spec, strlen(spec)), 0);
        const char *stage = i < JOBS / 2 ? "tokenize" : "pack";
        if (i % 3) assert_int_equal(store_job_done(store, stage, i % (JOBS / 2), "w", result, strlen(result)), 0);
        assert_int_equal(store_memo_put(store, key, result, strlen(result)), 0);
    }
    for (uint64_t s = 1; s <= STEPS; s++) {
        struct step_row row = step_row(s);
        assert_int_equal(store_step_add(store, &row), 0);
    }
    for (uint64_t s = 1; s <= EVALUATIONS; s++)
        assert_int_equal(store_evaluation_add(store, &(struct evaluation_row){s * 5, 77, s == 3 ? NAN : (double)s}), 0);
    assert_int_equal(store_commit(store), 0);
    assert_int_equal(store_event(store, "made", "for a test"), 0);
}

/* ---- everything that can be read: each is as written, or missing; returns how many are there ---- */

struct seen {
    const char *stage;
    uint64_t jobs, steps, evaluations;
};

static int see_job(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct seen *seen = arg;
    char text[200];
    uint64_t job = number + (strcmp(seen->stage, "pack") == 0 ? JOBS / 2 : 0);
    job_bytes(text, "spec", job);
    assert_int_equal(spec_bytes, strlen(text));
    assert_memory_equal(spec, text, spec_bytes);
    assert_int_equal(result != NULL, job % 3 != 0);
    job_bytes(text, "result", job);
    if (result) assert_int_equal(result_bytes, strlen(text));
    if (result) assert_memory_equal(result, text, result_bytes);
    seen->jobs++;
    return 0;
}

static bool same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static int see_step(void *arg, const struct step_row *row) {
    struct step_row wanted = step_row(row->step);
    assert_true(row->step >= 1 && row->step <= STEPS && row->tokens == wanted.tokens && row->skipped == wanted.skipped);
    assert_true(same(row->loss, wanted.loss) && same(row->gradient_norm, wanted.gradient_norm));
    assert_memory_equal(row->gradient, wanted.gradient, sizeof wanted.gradient);
    ((struct seen *)arg)->steps++;
    return 0;
}

static int see_evaluation(void *arg, const struct evaluation_row *row) {
    assert_true(row->tokens == 77 && row->step % 5 == 0);
    if (row->step == 15) assert_true(isnan(row->loss)); /* a loss that was no number must not come back as 0 */
    else assert_true(row->loss == (double)row->step / 5);
    ((struct seen *)arg)->evaluations++;
    return 0;
}

static uint64_t count_right(struct store *store) {
    struct seen seen = {.stage = "tokenize"};
    struct buf value = {0};
    uint64_t generation = 41, memos = 0;
    assert_int_equal(store_jobs(store, "tokenize", see_job, &seen), 0);
    seen.stage = "pack";
    assert_int_equal(store_jobs(store, "pack", see_job, &seen), 0);
    assert_int_equal(store_steps(store, see_step, &seen), 0);
    assert_int_equal(store_evaluations(store, see_evaluation, &seen), 0);
    int config = store_get(store, "config", &value), number = store_get_number(store, "generation", &generation);
    assert_true(config >= 0 && number >= 0 && generation == 41);
    if (config) assert_true(value.size == 12 && memcmp(value.data, "the pipeline", 12) == 0);
    for (uint64_t i = 0; i < JOBS; i++) {
        uint8_t key[SHA256_BYTES] = {(uint8_t)i, 9};
        char text[200];
        job_bytes(text, "result", i);
        value.size = 0;
        int code = store_memo_get(store, key, &value);
        assert_true(code >= 0);
        if (code) assert_true(value.size == strlen(text) && memcmp(value.data, text, value.size) == 0);
        memos += (uint64_t)code;
    }
    buf_free(&value);
    return seen.jobs + seen.steps + seen.evaluations + memos + (uint64_t)config + (uint64_t)number;
}
enum { ALL = JOBS * 2 + STEPS + EVALUATIONS + 2 };

static void what_was_written_is_read(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct store *store = open_store();
        struct store_damage damage;
        uint64_t bad = 0, newest = 0;
        if (round == 0) fill(store);
        assert_int_equal(count_right(store), ALL);
        assert_int_equal(store_damage(store, &damage), 0);
        assert_false(damage.found);
        assert_int_equal(store_steps_bad(store, &bad, &newest), 0);
        assert_int_equal(bad, 4); /* 7, 17, 37, 47 */
        assert_int_equal(newest, 47);
        store_close(store);
    }
}

static void a_bad_step_that_is_done_again_counts_once(void **state) {
    (void)state;
    struct store *store = open_store();
    uint64_t bad, newest;
    for (int round = 0; round < 2; round++) {
        for (uint64_t s = 5; s <= 7; s++) {
            struct step_row row = step_row(s);
            assert_int_equal(store_step_add(store, &row), 0);
        }
        if (round == 0) assert_int_equal(store_steps_supersede(store, 4), 0);
        assert_int_equal(store_steps_bad(store, &bad, &newest), 0);
        assert_true(bad == 1 && newest == 7);
    }
    uint8_t gradient[XXH128_BYTES];
    assert_int_equal(store_step_superseded(store, 6, gradient), 1);
    assert_int_equal(gradient[3], 6);
    assert_int_equal(store_step_superseded(store, 4, gradient), 0);
    assert_int_equal(store_steps_supersede(store, 4), 0);
    struct step_row other = step_row(6);
    other.gradient[3] = 99;
    assert_int_equal(store_step_disputed(store, &other), 0); /* and what followed from the first one is gone */
    assert_int_equal(store_step_superseded(store, 6, gradient), 1);
    assert_int_equal(gradient[3], 99);
    assert_int_equal(store_step_superseded(store, 5, gradient), 1);
    assert_int_equal(store_step_superseded(store, 7, gradient), 0);
    assert_int_equal(store_step_newest(store, &newest), 0);
    assert_int_equal(newest, 0);
    store_close(store);
}

static int see_failures(void *arg, uint64_t number, uint64_t failures) {
    uint64_t *sum = arg;
    *sum += number * 100 + failures;
    return 0;
}

static void failures_are_counted_until_the_job_is_done(void **state) {
    (void)state;
    struct store *store = open_store();
    uint64_t sum = 0;
    for (uint64_t i = 0; i < 3; i++) assert_int_equal(store_job_add(store, "pack", i, "x", 1), 0);
    for (int i = 0; i < 4; i++) assert_int_equal(store_job_failed(store, "pack", 1, "w", "why"), 0);
    assert_int_equal(store_job_failed(store, "pack", 2, "w", "why"), 0);
    assert_int_equal(store_job_done(store, "pack", 2, "w", "r", 1), 0);
    store_close(store);
    store = open_store();
    assert_int_equal(store_job_failures(store, "pack", see_failures, &sum), 0);
    assert_int_equal(sum, 104);
    store_close(store);
}

/* ---- damage ---- */

static void flip(const char *path, struct random *random, uint64_t size) {
    int fd = open(path, O_RDWR);
    uint64_t offset = random_in(random, 0, size - 1), page = offset / 4096 * 4096;
    for (int i = 0; i < 2; i++) { /* two bits of one page */
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
        byte ^= (uint8_t)(1u << random_in(random, 0, 7));
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
        offset = page + random_in(random, 0, 4095);
    }
    close(fd);
}

static void flipped_bits_are_found_and_the_rest_is_kept(void **state) {
    (void)state;
    struct random random = random_open("flips");
    struct buf whole = {0};
    struct store *store = open_store();
    fill(store);
    store_close(store);
    assert_int_equal(file_read(&whole, at("millrace.db"), 1 << 24), 0);
    uint64_t found = 0, kept = 0, refused = 0;
    enum { ROUNDS = 150 };
    for (int round = 0; round < ROUNDS; round++) {
        struct store_damage damage;
        assert_int_equal(file_publish(at("millrace.db"), whole.data, whole.size), 0);
        flip(at("millrace.db"), &random, whole.size);
        int code = store_open(&store, folder);
        if (code < 0) { /* nothing of it can be read: it says so */
            assert_non_null(strstr(err_text(), "millrace.db"));
            refused++;
            continue;
        }
        uint64_t right = count_right(store); /* fails when something wrong is read */
        assert_int_equal(store_damage(store, &damage), 0);
        unsigned long long seed = random.seed;
        if (!damage.found && right != ALL) fail_msg("MILLRACE_SEED=%llu: something is missing, and nothing says so", seed);
        assert_int_equal(file_exists(at("millrace.db.damaged")), damage.found);
        unlink(at("millrace.db.damaged"));
        found += damage.found;
        kept += right;
        assert_int_equal(store_damage_settled(store), 0);
        assert_int_equal(store_damage(store, &damage), 0);
        assert_false(damage.found);
        store_close(store);
    }
    buf_free(&whole);
    print_message("%d times two bits: damage found %d times, refused %d times\n", ROUNDS, (int)found, (int)refused);
    assert_true(found > ROUNDS / 3 && refused < ROUNDS / 20);
    assert_true(kept > (ROUNDS - refused) * ALL * 3 / 4); /* a page or two of a dozen */
}

/* Its first moments: the file as each of the commits to it leaves it. */
static void a_crash_while_it_is_made_is_no_damage(void **state) {
    (void)state;
    enum { HEADER = 32, FRAME = 24 };
    struct buf file = {0}, log = {0};
    struct store *store = open_store();
    if (file_exists(at("millrace.db"))) assert_int_equal(file_read(&file, at("millrace.db"), 1 << 24), 0);
    assert_int_equal(file_read(&log, at("millrace.db-wal"), 1 << 24), 0);
    store_close(store);
    const uint8_t *h = log.data + 8;
    size_t page = (size_t)h[0] << 24 | (size_t)h[1] << 16 | (size_t)h[2] << 8 | h[3], commits = 0;
    for (size_t end = HEADER; end <= log.size; end += FRAME + page) {
        const uint8_t *last = log.data + end - FRAME - page + 4; /* pages of the file after this commit; 0: it is none */
        if (end > HEADER && !(last[0] | last[1] | last[2] | last[3])) continue;
        struct store_damage damage;
        assert_int_equal(folder_remove(folder), 0);
        assert_int_equal(folder_make_private(folder), 0);
        assert_int_equal(file_publish(at("millrace.db"), file.data, file.size), 0);
        assert_int_equal(file_publish(at("millrace.db-wal"), log.data, end == HEADER ? 0 : end), 0);
        store = open_store();
        assert_int_equal(store_damage(store, &damage), 0);
        assert_false(damage.found);
        store_close(store);
        commits += end > HEADER;
    }
    assert_true(commits > 0);
    buf_free(&file);
    buf_free(&log);
}

static void what_is_no_database_is_put_aside(void **state) {
    (void)state;
    struct store_damage damage;
    assert_int_equal(file_publish(at("millrace.db"), "This is a letter to the millrace people, and no database at all.", 64), 0);
    struct store *store = open_store();
    assert_int_equal(store_damage(store, &damage), 0);
    assert_true(damage.found && damage.lost[STORE_NAMED] && damage.lost[STORE_STEPS]);
    store_close(store);
    assert_true(file_exists(at("millrace.db.damaged")));
}

static char last_plan[400]; /* how SQLite finds the rows of what was prepared last */

int __real_sqlite3_prepare_v2(sqlite3 *db, const char *sql, int size, sqlite3_stmt **out, const char **tail);
int __wrap_sqlite3_prepare_v2(sqlite3 *db, const char *sql, int size, sqlite3_stmt **out, const char **tail);
int __wrap_sqlite3_prepare_v2(sqlite3 *db, const char *sql, int size, sqlite3_stmt **out, const char **tail) {
    sqlite3_stmt *explained = NULL;
    char *question = mem_format("EXPLAIN QUERY PLAN %s", sql);
    *last_plan = 0;
    if (strncmp(sql, "SELECT", 6) == 0 && __real_sqlite3_prepare_v2(db, question, -1, &explained, NULL) == SQLITE_OK)
        while (sqlite3_step(explained) == SQLITE_ROW)
            snprintf(last_plan + strlen(last_plan), sizeof last_plan - strlen(last_plan), "%s; ", sqlite3_column_text(explained, 3));
    sqlite3_finalize(explained);
    free(question);
    return __real_sqlite3_prepare_v2(db, sql, size, out, tail);
}

static int64_t number_of(const char *query) {
    sqlite3 *db;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open(at("millrace.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return number;
}

/* A start looks at every row: what is only told must not grow for as long as workers come and go. */
static void the_newest_events_are_kept_and_no_more(void **state) {
    (void)state;
    enum { EVENTS = STORE_EVENTS_KEPT + 25000, KEPT_MAX = STORE_EVENTS_KEPT + 1000 };
    struct store_damage damage;
    struct store *store = open_store();
    fill(store);
    assert_int_equal(store_begin(store), 0);
    for (int i = 0; i < EVENTS; i++) assert_int_equal(store_event(store, "worker-lost", i + 1 < EVENTS ? "again" : "the last one"), 0);
    assert_int_equal(store_commit(store), 0);
    store_close(store);
    assert_in_range(number_of("SELECT COUNT(*) FROM events"), STORE_EVENTS_KEPT, KEPT_MAX);
    assert_int_equal(number_of("SELECT text = 'the last one' FROM events ORDER BY id DESC"), 1);
    assert_int_equal(number_of("SELECT MAX(id) - MIN(id) + 1 - COUNT(*) FROM events"), 0);
    store = open_store();
    assert_int_equal(store_damage(store, &damage), 0);
    assert_false(damage.found);
    assert_int_equal(count_right(store), ALL);
    store_close(store);
}

/* The damaged file is aside already, its log is there yet, and the repaired one has not its name. */
static void a_repair_that_was_killed_between_its_renames_is_gone_on_with(void **state) {
    (void)state;
    struct buf log = {0};
    struct store_damage damage;
    struct store *store = open_store(); /* stands for the damaged one */
    for (uint64_t step = 1; step <= STEPS; step++) assert_int_equal(store_step_add(store, &(struct step_row){.step = step}), 0);
    assert_int_equal(file_read(&log, at("millrace.db-wal"), 1 << 24), 0);
    store_close(store);
    assert_int_equal(unlink(at("millrace.db")), 0);
    store = open_store();
    fill(store);
    store_close(store);
    char *name = mem_text(at("millrace.db")), *fresh = mem_format("%s.repaired", name);
    assert_int_equal(file_rename(name, fresh), 0);
    assert_int_equal(file_publish(at("millrace.db-wal"), log.data, log.size), 0);
    store = open_store();
    assert_int_equal(store_damage(store, &damage), 0);
    assert_false(damage.found);
    assert_int_equal(count_right(store), ALL);
    store_close(store);
    buf_free(&log);
    free(name), free(fresh);
}

static void one_of_the_first_release_is_brought_up(void **state) {
    (void)state;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(at("millrace.db"), &db), SQLITE_OK);
    static const char old[] =
        "CREATE TABLE named(name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;"
        "CREATE TABLE jobs(stage TEXT, number INTEGER, state TEXT NOT NULL DEFAULT 'pending', worker TEXT, reason TEXT,"
        "  spec BLOB NOT NULL, result BLOB, PRIMARY KEY(stage, number)) WITHOUT ROWID;"
        "CREATE TABLE memos(key BLOB PRIMARY KEY, result BLOB NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE steps(id INTEGER PRIMARY KEY, step INTEGER NOT NULL, tokens INTEGER, gradient BLOB, loss REAL,"
        "  learning_rate REAL, gradient_norm REAL, seconds REAL, skipped INTEGER, superseded INTEGER NOT NULL DEFAULT 0);"
        "CREATE UNIQUE INDEX steps_step ON steps(step) WHERE superseded = 0;"
        "CREATE TABLE evaluations(step INTEGER PRIMARY KEY, tokens INTEGER, loss REAL);"
        "CREATE TABLE events(id INTEGER PRIMARY KEY, time TEXT, kind TEXT, text TEXT);"
        "INSERT INTO named VALUES('generation', 6); INSERT INTO jobs(stage, number, spec) VALUES('pack', 0, 'x');"
        "INSERT INTO steps(step, tokens, skipped, superseded) VALUES(1, 5, 1, 1), (1, 5, 1, 0), (2, 5, 0, 0);"
        "INSERT INTO evaluations VALUES(2, 9, NULL); INSERT INTO events(kind) VALUES('e');";
    assert_int_equal(sqlite3_exec(db, old, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    struct store_damage damage;
    uint64_t number = 0, newest = 0;
    for (int round = 0; round < 2; round++) {
        struct store *store = open_store();
        assert_int_equal(store_damage(store, &damage), 0);
        assert_false(damage.found);
        assert_int_equal(store_get_number(store, "generation", &number), 1);
        assert_int_equal(number, 6);
        assert_int_equal(store_step_newest(store, &newest), 0);
        assert_int_equal(newest, 2);
        assert_int_equal(store_job_count(store, "pack", &number), 0);
        assert_int_equal(number, 1);
        assert_int_equal(store_job_failed(store, "pack", 0, "w", "why"), 0);
        store_close(store);
    }
}

static void one_of_a_newer_version_is_left_alone(void **state) {
    (void)state;
    sqlite3 *db;
    struct store *store;
    assert_int_equal(sqlite3_open(at("millrace.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE named(name TEXT); PRAGMA user_version = 9;", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(store_open(&store, folder), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "newer"));
    assert_false(file_exists(at("millrace.db.damaged")));
}

static void without_its_lock_a_store_is_still_one_s_own(void **state) {
    (void)state;
    struct store *store = open_store(), *other = NULL;
    assert_int_equal(unlink(at("lock")), 0);
    assert_int_equal(store_open(&other, folder), ERR_IO);
    assert_non_null(strstr(err_text(), "in use by another process; stop that first"));
    assert_int_equal(store_set_number(store, "number", 1), 0);
    store_close(store);
}

/* As on a full disk: nothing of it is there, and the next one is as if it had never been tried. */
static void a_commit_that_failed_never_was(void **state) {
    (void)state;
    struct store *store = open_store();
    struct rlimit limit, tight;
    static const uint8_t large[1 << 20];
    uint64_t number = 0;
    assert_int_equal(store_set_number(store, "before", 1), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    tight = (struct rlimit){.rlim_cur = 256 << 10, .rlim_max = limit.rlim_max};
    for (int tries = 0; tries < 2; tries++) {
        assert_int_equal(store_begin(store), 0);
        assert_int_equal(store_set_number(store, "meanwhile", 2), 0);
        assert_int_equal(store_set(store, "large", large, sizeof large), 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
        assert_int_equal(store_commit(store), ERR_DENIED); /* it does not pass by itself */
        assert_non_null(strstr(err_text(), "millrace.db cannot be written: File too large; see ulimit -f"));
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    }
    assert_int_equal(store_get_number(store, "meanwhile", &number), 0);
    assert_int_equal(store_begin(store), 0);
    assert_int_equal(store_set_number(store, "after", 3), 0);
    assert_int_equal(store_commit(store), 0);
    store_close(store);
    store = open_store();
    assert_int_equal(store_get_number(store, "before", &number), 1);
    assert_int_equal(store_get_number(store, "meanwhile", &number), 0);
    assert_true(store_get_number(store, "after", &number) == 1 && number == 3);
    store_close(store);
}

static int count_evaluation(void *arg, const struct evaluation_row *row) {
    *(uint64_t *)arg += row->step;
    return 0;
}

/* A step may be gone back over more than once: what is done anew is compared with what was done last. */
static void what_was_done_last_is_what_a_replay_is_compared_with(void **state) {
    (void)state;
    struct store *store = open_store();
    uint8_t gradient[XXH128_BYTES];
    uint64_t newest = 9, evaluations = 0;
    assert_int_equal(store_step_superseded(store, 2, gradient), 0);
    for (uint8_t times = 0; times < 3; times++) { /* first from a checkpoint, which has no gradient of it */
        struct step_row row = {.step = 2, .tokens = 1, .loss = 1, .learning_rate = 1, .gradient_norm = 1};
        memset(row.gradient, times, sizeof row.gradient);
        assert_int_equal(store_step_add(store, &row), 0);
        assert_int_equal(store_evaluation_add(store, &(struct evaluation_row){1, 1, 1}), 0);
        assert_int_equal(store_evaluation_add(store, &(struct evaluation_row){2, 1, 1}), 0);
        assert_int_equal(store_steps_supersede(store, 1), 0);
        assert_int_equal(store_step_superseded(store, 2, gradient), times > 0);
        if (times) assert_memory_equal(gradient, row.gradient, sizeof gradient);
    }
    assert_int_equal(store_step_newest(store, &newest), 0);
    assert_int_equal(newest, 0);
    assert_int_equal(store_evaluations(store, count_evaluation, &evaluations), 0);
    assert_int_equal(evaluations, 1); /* that of step 1 alone: the others are of a state that nobody holds any more */
    store_close(store);
}

static void expect_steps_found_by(struct store *store, const char *index) {
    uint8_t gradient[XXH128_BYTES];
    uint64_t newest;
    assert_int_equal(store_step_superseded(store, STEPS, gradient), 1);
    assert_int_equal(gradient[3], STEPS);
    if (!strstr(last_plan, index) || strstr(last_plan, "SCAN") || strstr(last_plan, "SORT")) fail_msg("%s: %s", index, last_plan);
    assert_int_equal(store_step_newest(store, &newest), 0);
    if (!strstr(last_plan, "steps_step")) fail_msg("%s", last_plan);
}

/* Each commit asks what its step gave before, however long the run is. A store of an earlier version has no index for that, and one that
 * was repaired is made anew. */
static void what_a_step_gave_before_is_found_without_reading_all_steps(void **state) {
    (void)state;
    struct store_damage damage;
    struct store *store = open_store();
    fill(store);
    assert_int_equal(store_steps_supersede(store, 0), 0);
    expect_steps_found_by(store, "steps_superseded");
    for (int kind = 0; kind < 3; kind++) {
        static const char *const hurt[] = {"SELECT 1", "DROP INDEX steps_superseded", "PRAGMA user_version = 9"}; /* the last is damage */
        sqlite3 *db;
        store_close(store);
        assert_int_equal(sqlite3_open(at("millrace.db"), &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, hurt[kind], NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(db);
        store = open_store();
        assert_int_equal(store_damage(store, &damage), 0);
        assert_int_equal(damage.found, kind == 2);
        expect_steps_found_by(store, "steps_superseded");
    }
    store_close(store);
}

static int refusal; /* errno of each flock(); 0: it is done */

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
int __wrap_flock(int fd, int operation) {
    errno = refusal;
    return refusal ? -1 : __real_flock(fd, operation);
}

static void a_folder_that_cannot_be_locked_is_not_taken_for_one_in_use(void **state) {
    (void)state;
    const int unknown[] = {ENOSYS, ENOLCK, EOPNOTSUPP};
    struct store *store = open_store(), *other;
    assert_true(store_open(&other, folder) == ERR_IO && strstr(err_text(), "is in use by the coordinator with pid "));
    store_close(store);
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        refusal = unknown[i];
        int code = store_open(&other, folder);
        refusal = 0;
        assert_int_equal(code, ERR_IO);
        assert_null(strstr(err_text(), "in use"));
        assert_true(strstr(err_text(), at("lock")) && strstr(err_text(), "output_dir") && strstr(err_text(), strerror(unknown[i])));
    }
    store_close(open_store());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_written_is_read, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_bad_step_that_is_done_again_counts_once, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_commit_that_failed_never_was, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(what_was_done_last_is_what_a_replay_is_compared_with, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(what_a_step_gave_before_is_found_without_reading_all_steps, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(failures_are_counted_until_the_job_is_done, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(flipped_bits_are_found_and_the_rest_is_kept, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_crash_while_it_is_made_is_no_damage, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(what_is_no_database_is_put_aside, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(without_its_lock_a_store_is_still_one_s_own, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(the_newest_events_are_kept_and_no_more, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_repair_that_was_killed_between_its_renames_is_gone_on_with, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(one_of_the_first_release_is_brought_up, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_folder_that_cannot_be_locked_is_not_taken_for_one_in_use, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(one_of_a_newer_version_is_left_alone, fresh_folder, remove_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
