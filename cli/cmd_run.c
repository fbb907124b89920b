/* `millrace run`: a whole cluster on this machine. Starts a coordinator and local workers as processes of their own, starts those again
 * that end, shows progress, and at the end generates a text with the trained model.
 *
 * One thread. watch() looks every POLL_MS at signals, ended processes and the coordinator's address, and every third time asks for the
 * status. A struct daemon is one process and when it is started again (cli/restart.h). Nothing is kept on the disk: when this process is
 * killed, its daemons end with it, and the same command goes on from the coordinator's store. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/plain.h"
#include "base/process.h"
#include "base/version.h"
#include "cli/account.h"
#include "cli/commands.h"
#include "cli/follow.h"
#include "cli/load.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/restart.h"
#include "cli/signals.h"
#include "cli/spawn.h"
#include "cli/status_file.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "coordinator/output.h"
#include "dataset/tokenizer/tokenizer.h"
#include "estimate/memory.h"
#include "model/checkpoint/checkpoint.h"
#include "model/generate/generate.h"
#include "model/kernels/product.h"
#include "proto/link.h"
#include "workers/worker.h"

enum {
    POLL_MS = 100,
    STATUS_EVERY = 3,         /* polls */
    HOME_MS = 5000,           /* within which a coordinator ends that has sent its workers home */
    FAREWELL_MS = 5000,       /* for workers to end after their coordinator has finished */
    LONELY_MS = 1000,         /* for workers to end when their coordinator has: there is nothing left to do for them */
    UNKNOWN_MS = 3000,        /* workers are started when the coordinator has not answered for that long whether it needs any */
    CRASHES_MAX = 10,         /* of the coordinator by itself, one soon after the other */
    REFUSED_MAX = 3,          /* times that each worker ends for good before that is believed: others may come, or be set aside */
    LOG_TAIL_BYTES = 1200,    /* of a log on the screen: some lines */
    ARGUMENTS_MAX = 600,
};

struct daemon {
    pid_t pid;                /* 0: not running */
    int words;                /* a file in memory for why it ended; 0: not made yet, -1: cannot be had */
    int number;               /* of a worker, from 1; 0: the coordinator */
    int64_t started_ms, again_ms;
    struct restart restart;
    bool sent_away;           /* we killed it, to start it at another address */
    bool told_home;           /* it ended by itself, with success: its coordinator is about to end, or died over that */
    unsigned refused;         /* how often, one time after the other, it was refused for good or had not the memory */
};

struct run {
    const struct config *config;
    const char *file;
    const struct option_list *sets;
    bool json, verify, keep_dataset;
    bool stdin_kept;          /* an earlier text of standard input, and not the one that was given now */
    const char *stop_after;  /* "dataset", or NULL */
    int64_t workers;
    char *endpoint;           /* NULL: the coordinator is not up yet */
    struct timespec endpoint_time; /* of the file that it was read from, as last seen */
    int64_t endpoint_ms;      /* since when the address is known */
    bool needed;              /* the coordinator has work for workers, or has had */
    bool worked;              /* it said so */
    struct daemon coordinator, *worker;
    struct follower *follower;
    const char *log_level;    /* of the daemons; NULL: their own default */
    double grace;             /* seconds for saving, once asked to stop */
    bool stopping, killed, ending;
    int64_t stopping_ms;      /* since when */
    unsigned polls;
};

static volatile sig_atomic_t stop_requests, save_requests, watching;
static const char *volatile result_lines; /* while a sample is made, which comes before them */

static void on_stop(void) {
    stop_requests = stop_requests + 1;
    if (stop_requests > 1 && result_lines) _exit(write(STDOUT_FILENO, result_lines, strlen(result_lines)) < 0);
    if (stop_requests > 1 && !watching) _exit(130); /* nothing is there to be ended */
    coordinator_stop(); /* what this process does of a coordinator's work: to copy standard input */
}
static void on_save(void) { save_requests = 1; }

/* ---- daemons ---- */

static char *log_path(const struct run *run, int number) {
    return number ? mem_format("%s/logs/worker-%d.log", run->config->output_dir, number)
                  : mem_format("%s/logs/coordinator.log", run->config->output_dir);
}

/* A log that cannot be written before anything began is an error; later (a full disk, a folder that went away) the work is worth more. */
static int open_log(int *out, const struct run *run, const struct daemon *daemon) {
    char *path = log_path(run, daemon->number);
    int code = file_check_place(path, FILE_OPENED);
    *out = code == 0 ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (code == 0 && *out < 0) code = err_errno("cannot write %s", path);
    if (code < 0 && daemon->started_ms && (*out = open("/dev/null", O_WRONLY | O_CLOEXEC)) >= 0) code = 0;
    free(path);
    return code;
}

static int start(struct run *run, struct daemon *daemon) {
    char *arguments[ARGUMENTS_MAX] = {"millrace"};
    char grace[32];
    int n = 1;
    if (daemon->number) {
        arguments[n++] = "worker", arguments[n++] = "--connect", arguments[n++] = run->endpoint;
        if (run->config->cluster.insecure) arguments[n++] = "--insecure";
    } else {
        arguments[n++] = "coordinator", arguments[n++] = (char *)run->file;
        for (size_t i = 0; i < run->sets->count; i++) arguments[n++] = "--set", arguments[n++] = (char *)run->sets->item[i];
        if (run->verify) arguments[n++] = "--verify";
        if (run->keep_dataset) arguments[n++] = "--keep-dataset";
        if (run->stop_after) arguments[n++] = "--stop-after", arguments[n++] = (char *)run->stop_after;
    }
    snprintf(grace, sizeof grace, "%.3f", run->grace);
    arguments[n++] = "--grace", arguments[n++] = grace;
    if (run->log_level) arguments[n++] = "--log-level", arguments[n++] = (char *)run->log_level;
    int log;
    TRY(open_log(&log, run, daemon));
    if (!daemon->words) daemon->words = memfd_create("last words", MFD_CLOEXEC);
    if (!daemon->number && daemon->words > 0 && ftruncate(daemon->words, 0) != 0) daemon->words = -1; /* a worker's hold */
    int code = spawn(&daemon->pid, arguments, log, daemon->words);
    close(log);
    TRY(code);
    daemon->started_ms = clock_ms();
    return 0;
}

/* The end of a daemon's log, where no reason is known. */
static void read_tail(char *out, size_t size, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END), from = end > (off_t)size - 1 ? end - (off_t)size + 1 : 0;
    ssize_t n = fd < 0 ? 0 : pread(fd, out, size - 1, from);
    if (fd >= 0) close(fd);
    out[n > 0 ? n : 0] = 0;
    for (size_t last = strlen(out); last && out[last - 1] == '\n';) out[--last] = 0;
}

static int with_tail(const struct run *run, int number, const char *how) {
    char tail[LOG_TAIL_BYTES];
    char *path = log_path(run, number);
    read_tail(tail, sizeof tail, path);
    int code = number ? err_set(ERR_IO, "worker %d %s; the end of its log %s:\n%s", number, how, path, tail)
                      : err_set(ERR_IO, "the coordinator %s; the end of its log %s:\n%s", how, path, tail);
    free(path);
    return code;
}

/* Negative: it crashed at its very start again and again, and would for ever. */
static int plan_restart(const struct run *run, struct daemon *daemon, int status) {
    int64_t now = clock_ms(), lived = now - daemon->started_ms;
    daemon->again_ms = now + restart_delay(&daemon->restart, lived, restart_own_fault(status));
    if (!restart_is_hopeless(&daemon->restart, lived, status) || run->stopping || run->ending) return 0;
    char how[96];
    snprintf(how, sizeof how, "crashed %d times as soon as it was started (%s)", RESTART_BORN_DEAD_MAX, strsignal(WTERMSIG(status)));
    return with_tail(run, daemon->number, how);
}

static const struct daemon *daemon_of(const struct run *run, int number) {
    return number ? &run->worker[number - 1] : &run->coordinator;
}

/* Why it ended, as it said itself. */
static int last_words(const struct run *run, int number, int code) {
    char words[ERR_TEXT_BYTES];
    const struct daemon *daemon = daemon_of(run, number);
    ssize_t n = daemon->words > 0 ? pread(daemon->words, words, sizeof words - 1, 0) : 0;
    words[n > 0 ? n : 0] = 0;
    if (words[0]) return err_set(code, "%s", words);
    with_tail(run, number, "ended without a reason");
    return code;
}

/* What a person would otherwise see as slowness alone. */
static void say_end(const struct run *run, struct daemon *daemon, pid_t pid, int status) {
    char who[32] = "the coordinator", how[96], line[ERR_TEXT_BYTES + 600], why[ERR_TEXT_BYTES + 2] = "";
    bool asked = run->stopping || run->ending || daemon->sent_away;
    daemon->sent_away = false;
    if (asked || daemon->told_home || daemon->restart.ends > CRASHES_MAX) return;
    if (daemon->number) snprintf(who, sizeof who, "worker %d", daemon->number);
    if (WIFSIGNALED(status)) snprintf(how, sizeof how, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else snprintf(how, sizeof how, "ended with exit code %d", WEXITSTATUS(status));
    ssize_t n = daemon->words > 0 && !WIFSIGNALED(status) ? pread(daemon->words, why + 2, ERR_TEXT_BYTES - 1, 0) : 0;
    if (n > 0) memcpy(why, ": ", 2);
    char *log = log_path(run, daemon->number);
    snprintf(line, sizeof line, "%s (pid %d) %s%s; it is started again; its log is %s%s", who, (int)pid, how, why, log,
             daemon->restart.ends == CRASHES_MAX ? "; of more of its ends nothing is said" : "");
    follower_say(run->follower, line);
    free(log);
}

/* The machine had too few processes, threads or files to spare for a daemon that it had them for before: it may have them again. */
static bool ended_for_shortage(const struct run *run, const struct daemon *daemon, int status) {
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 2 || daemon->restart.ends == 0) return false;
    last_words(run, daemon->number, ERR_CONFIG);
    return strncmp(err_text(), PROCESS_LIMITED, strlen(PROCESS_LIMITED)) == 0;
}

/* It would be again: refused, or without the memory that it needs, soon after it was started. */
static bool ended_for_good(const struct run *run, const struct daemon *worker) {
    last_words(run, worker->number, ERR_PEER);
    bool soon = clock_ms() - worker->started_ms < RESTART_HEALTHY_MS;
    return strncmp(err_text(), WORKER_REFUSED, strlen(WORKER_REFUSED)) == 0 || (soon && strstr(err_text(), MEM_EXHAUSTED));
}

static int code_of_exit(int exit_code) { return exit_code == 2 ? ERR_CONFIG : exit_code == 130 ? ERR_INTERRUPTED : ERR_IO; }

/* Takes note of daemons that ended. 1: the coordinator has finished its work (or failed, with its error). */
static int reap(struct run *run) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        bool crashed = WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 127);
        if (pid == run->coordinator.pid) {
            bool passes = ended_for_shortage(run, &run->coordinator, status);
            run->coordinator.pid = 0;
            if (!crashed && WEXITSTATUS(status) == 0) return 1;
            if (!crashed && !passes) return last_words(run, 0, code_of_exit(WEXITSTATUS(status)));
            TRY(plan_restart(run, &run->coordinator, status));
            say_end(run, &run->coordinator, pid, status);
            if (run->coordinator.restart.failures >= CRASHES_MAX)
                return passes ? last_words(run, 0, ERR_CONFIG)
                              : err_set(ERR_IO, "the coordinator crashed %d times; its log is in %s/logs", CRASHES_MAX,
                                        run->config->output_dir);
        }
        for (int64_t i = 0; i < run->workers; i++) {
            struct daemon *worker = &run->worker[i];
            if (worker->pid != pid) continue;
            bool passes = ended_for_shortage(run, worker, status);
            worker->pid = 0;
            worker->told_home = !crashed && WEXITSTATUS(status) == 0;
            worker->refused = !crashed && WEXITSTATUS(status) == 1 && ended_for_good(run, worker) ? worker->refused + 1 : 0;
            TRY(plan_restart(run, worker, status));
            if (worker->told_home) worker->again_ms = clock_ms() + HOME_MS;
            if (!crashed && WEXITSTATUS(status) == 2 && !passes) return last_words(run, worker->number, ERR_CONFIG);
            say_end(run, worker, pid, status);
        }
    }
    return 0;
}

/* True when the file with the coordinator's address was written since the last call. */
static bool endpoint_changed(struct run *run, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0 || memcmp(&st.st_mtim, &run->endpoint_time, sizeof st.st_mtim) == 0) return false;
    run->endpoint_time = st.st_mtim;
    return true;
}

/* Reads the coordinator's address once it is there; another address than before makes workers start anew. */
static void look_for_endpoint(struct run *run) {
    char *path = mem_format("%s/state/endpoint", run->config->output_dir);
    struct buf text = {0};
    if (endpoint_changed(run, path) && output_endpoint(&text, run->config->output_dir) == 0 && text.size &&
        (!run->endpoint || strcmp(run->endpoint, (char *)text.data) != 0)) {
        bool moved = run->endpoint != NULL;
        if (!moved) run->endpoint_ms = clock_ms();
        free(run->endpoint);
        run->endpoint = mem_text((char *)text.data);
        for (int64_t i = 0; moved && i < run->workers; i++) { /* whoever asks them for what they hold, asks at another place */
            if (run->worker[i].pid) kill(run->worker[i].pid, SIGKILL);
            run->worker[i].sent_away = run->worker[i].pid != 0;
        }
    }
    buf_free(&text);
    free(path);
}

/* One that ran before, and has no room on the machine now, is tried again, later and later: the others are at work. */
static int start_if_due(struct run *run, struct daemon *daemon) {
    int64_t now = clock_ms();
    if (daemon->pid || now < daemon->again_ms) return 0;
    int code = start(run, daemon);
    if (code == 0 || !daemon->started_ms) return code;
    daemon->again_ms = now + restart_delay(&daemon->restart, 0, true);
    if (!daemon->number && daemon->restart.failures >= CRASHES_MAX) return code;
    char line[ERR_TEXT_BYTES + 100];
    if (daemon->number) snprintf(line, sizeof line, "worker %d could not be started again: %s", daemon->number, err_text());
    else snprintf(line, sizeof line, "the coordinator could not be started again: %s", err_text());
    if (daemon->restart.ends <= CRASHES_MAX) follower_say(run->follower, line);
    return 0;
}

static int start_missing(struct run *run) {
    TRY(start_if_due(run, &run->coordinator));
    if (!run->endpoint || !run->coordinator.pid || !run->needed) return 0;
    for (int64_t i = 0; i < run->workers; i++) TRY(start_if_due(run, &run->worker[i]));
    return 0;
}

/* A run that is done, or refused, ends without a worker. */
static void look_for_need(struct run *run, const json_t *status) {
    run->worked |= status && json_is_true(json_object_get(status, "needs_workers"));
    run->needed |= run->worked;
    run->needed |= run->endpoint && clock_ms() - run->endpoint_ms >= UNKNOWN_MS;
}

static void signal_workers(const struct run *run, int number) {
    for (int64_t i = 0; i < run->workers; i++)
        if (run->worker[i].pid) kill(run->worker[i].pid, number);
}

static bool any_alive(const struct run *run) {
    bool alive = run->coordinator.pid != 0;
    for (int64_t i = 0; i < run->workers; i++) alive |= run->worker[i].pid != 0;
    return alive;
}

/* The coordinator ends first, and sends the workers home. Those that had not come to it yet know nothing of it. One that is still there
 * has not finished, and saves: that may take the grace. */
static void end_daemons(struct run *run) {
    int64_t now = clock_ms(), over = (run->stopping ? run->stopping_ms : now) + (int64_t)(run->grace * 1000) + GRACE_RUN_MS;
    int64_t until = run->coordinator.pid || over < now + FAREWELL_MS ? over : now + FAREWELL_MS;
    struct err kept = err_take();
    run->ending = true;
    if (run->coordinator.pid && !run->stopping) kill(run->coordinator.pid, SIGTERM);
    for (bool lonely = false; any_alive(run) && clock_ms() < until && !run->killed;) {
        if (!run->coordinator.pid && !lonely) {
            lonely = true;
            signal_workers(run, SIGTERM);
            if (clock_ms() + LONELY_MS < until) until = clock_ms() + LONELY_MS;
        }
        clock_sleep_ms(20);
        reap(run);
        if (stop_requests > 1) run->killed = true;
    }
    if (run->coordinator.pid) kill(run->coordinator.pid, SIGKILL);
    signal_workers(run, SIGKILL);
    while (any_alive(run)) {
        clock_sleep_ms(5);
        reap(run);
    }
    err_give(&kept);
}

/* ---- watching ---- */

static void look_at_signals(struct run *run) {
    if (save_requests && !run->stopping && run->coordinator.pid) kill(run->coordinator.pid, SIGUSR1);
    save_requests = 0;
    if (stop_requests >= 1 && !run->stopping) {
        run->stopping = true;
        run->stopping_ms = clock_ms();
        follower_stopping(run->follower);
        fprintf(stderr, "%sstopping: what is done is saved first; once more to stop at once\n", isatty(STDERR_FILENO) ? "\n" : "");
        if (run->coordinator.pid) kill(run->coordinator.pid, SIGTERM);
    }
    if (stop_requests >= 2) run->killed = true;
}

/* The coordinator keeps the grace itself, unless it cannot. */
static bool out_of_time(const struct run *run) {
    return run->stopping && clock_ms() - run->stopping_ms > (int64_t)(run->grace * 1000) + GRACE_RUN_MS;
}

/* Every worker of ours ended for good, again and again, and nobody else is there: nothing will ever happen. */
static bool is_hopeless(const struct run *run, const json_t *status) {
    size_t i;
    const json_t *worker;
    json_array_foreach(json_object_get(status, "workers"), i, worker) {
        const char *state = json_string_value(json_object_get(worker, "state"));
        if (state && strcmp(state, "lost") != 0 && strcmp(state, "left") != 0) return false;
    }
    for (int64_t w = 0; w < run->workers; w++)
        if (run->worker[w].refused < REFUSED_MAX) return false;
    return status && run->workers > 0;
}

/* What is said when nobody is left who could tell it: which steps no checkpoint has. */
static int stopped_hard(struct run *run) {
    const char *how = stop_requests > 1 ? " at once" : run->killed ? ", because nothing was saved within --grace" : "";
    uint64_t saved = 0, step = follower_step(run->follower);
    TRY(checkpoint_newest_named(&saved, run->config->output_dir));
    char *from = saved ? mem_format("goes on from checkpoint-%" PRIu64, saved)
                       : mem_text(step ? "begins at the first step" : "goes on from what is done");
    int code = step <= saved ? err_set(ERR_INTERRUPTED, "stopped%s; the same command %s", how, from)
                             : err_set(ERR_INTERRUPTED, "stopped%s; the same command %s: steps %" PRIu64 " to %" PRIu64 " are not saved",
                                       how, from, saved + 1, step);
    free(from);
    return code;
}

static int watch(struct run *run) {
    for (;;) {
        look_at_signals(run);
        int code = reap(run);
        if (code != 0) return code < 0 ? code : 0;
        run->killed |= out_of_time(run);
        if (run->killed || (run->stopping && !run->coordinator.pid))
            return stopped_hard(run);
        look_for_endpoint(run);
        if (!run->stopping) TRY(start_missing(run));
        json_t *status = NULL;
        bool there = run->endpoint && run->coordinator.pid;
        if (there && (run->polls++ % STATUS_EVERY == 0 || !run->needed)) status_get(&status, run->config->output_dir, 300);
        look_for_need(run, status);
        follower_poll(run->follower, status);
        bool hopeless = is_hopeless(run, status);
        json_decref(status);
        if (hopeless) return last_words(run, 1, ERR_PEER);
        clock_sleep_ms(POLL_MS);
    }
}

/* ---- the end ---- */

static int show_token(void *arg, int32_t id) {
    struct buf text = {0};
    if (text_decoder_feed(arg, &text, &(uint32_t){(uint32_t)id}, 1) == 0) output_plain(stderr, text.data, text.size);
    buf_free(&text);
    return stop_requests != 0;
}

/* A character that the last token left half done. */
static void show_rest(struct text_decoder *decoder) {
    struct buf text = {0};
    if (text_decoder_finish(decoder, &text) == 0) output_plain(stderr, text.data, text.size);
    buf_free(&text);
    text_decoder_free(decoder);
}

static int generate_sample(const struct run *run, const char *checkpoint_path) {
    const struct config *config = run->config;
    struct loaded model = {0};
    struct ids ids = {0};
    int32_t *out = NULL;
    int code = loaded_open_weights(&model, checkpoint_path, 0, WEIGHTS_FP32), count;
    if (code == 0) code = tokenizer_encode(model.tokenizer, &ids, config->sample.prompt, strlen(config->sample.prompt), false);
    if (code == 0) code = mem_try(&out, ids.count + 1 + (size_t)config->sample.max_new_tokens, sizeof *out);
    if (code == 0 && !stop_requests) {
        struct generate_options options = {.greedy = config->sample.temperature < GENERATE_TEMPERATURE_LEAST,
                                           .temperature = config->sample.temperature,
                                           .top_k = (int)config->sample.top_k, .top_p = 1, .seed = config->training.seed,
                                           .max_new_tokens = (int)config->sample.max_new_tokens, .tokenless = model.tokenless,
                                           .tokenless_count = model.tokenless_count};
        struct text_decoder decoder = {.tokenizer = model.tokenizer};
        fprintf(stderr, "\n");
        output_plain(stderr, config->sample.prompt, strlen(config->sample.prompt));
        code = gpt2_generate_from(out, &count, model.weights, (const int32_t *)ids.id, (int)ids.count, &options, 0, model.pool, show_token,
                                  &decoder);
        show_rest(&decoder);
        fprintf(stderr, "\n\n");
    }
    free(out);
    ids_free(&ids);
    loaded_close(&model);
    return code;
}

static const char *text_of(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static void print_line(void *arg, const char *line) {
    (void)arg;
    printf("%s\n", line);
}

/* Shards that broke, and are as they were. */
static void show_repaired(const json_t *dataset) {
    unsigned long long repairs = (unsigned long long)json_integer_value(json_object_get(dataset, "repairs"));
    uint64_t shards = (uint64_t)json_integer_value(json_object_get(dataset, "shards"));
    if (repairs == 0) return;
    fprintf(stderr, "repaired  %s of %s shard%s: %s\n", text_count(repairs), text_count(shards), plural(shards),
            text_of(dataset, "repaired"));
}

static void note(const struct run *run, json_t *result, const char *words) {
    if (run->json && result) json_array_append_new(json_object_get(result, "warnings"), json_string(words));
    if (!run->json) fprintf(stderr, "note      %s\n", words);
}

#define FOUND_FINISHED "this run was finished before: there was nothing left to do, and what it made is shown again"
#define FOUND_MADE "this dataset was made before: there was nothing left to do"

/* What is not as who gave the command may think: it is told, and is no reason to refuse. */
static void show_notes(const struct run *run, const json_t *status, json_t *result) {
    const json_t *dataset = json_object_get(status, "dataset");
    const char *changed = text_of(dataset, "sources_changed");
    bool repaired = json_integer_value(json_object_get(dataset, "repairs")) > 0;
    if (!run->worked && !repaired) note(run, NULL, run->stop_after ? FOUND_MADE : FOUND_FINISHED);
    if (run->stdin_kept && run->json) note(run, result, STDIN_KEPT); /* else it was told at once */
    char *words = mem_format("%s since the dataset was made; the dataset is kept as it is", changed);
    if (*changed) note(run, result, words);
    free(words);
    words = mem_format("the dataset is another one now, of digest %s; this run was trained on the one of digest %s",
                       text_of(dataset, "digest"), text_of(result, "dataset_digest"));
    if (*text_of(dataset, "trained_on")) note(run, result, words);
    free(words);
}

/* As our coordinator left it for us: the file in output_dir may be another command's by now, or an old one on a full disk. */
static int last_status(json_t **out, const struct run *run) {
    struct stat st;
    int fd = run->coordinator.words;
    if (fd <= 0 || fstat(fd, &st) != 0 || st.st_size == 0) return status_read(out, run->config->output_dir);
    char *text = mem_alloc((size_t)st.st_size);
    *out = pread(fd, text, (size_t)st.st_size, 0) == st.st_size ? json_loadb(text, (size_t)st.st_size, 0, NULL) : NULL;
    free(text);
    return *out ? 0 : err_set(ERR_CORRUPT, "the coordinator left a result that cannot be read; '%s status' shows it",
                              program_invocation_short_name);
}

static void show_dataset(const json_t *status, const json_t *result, const char *program) {
    const json_t *dataset = json_object_get(status, "dataset");
    static const char *const counts[] = {"document", "token", "sequence", "shard"};
    printf("done: ");
    for (int i = 0; i < 4; i++) {
        char key[16];
        snprintf(key, sizeof key, "%ss", counts[i]);
        uint64_t n = (uint64_t)json_integer_value(json_object_get(dataset, key));
        printf("%s%s %s%s", i == 0 ? "" : i == 3 ? " in " : ", ", text_count(n), counts[i], plural(n));
    }
    printf("\ndataset  %s\nIt is in %s\n", text_of(dataset, "digest"), text_of(result, "dataset"));
    char *folder = output_word(text_of(result, "dataset"));
    printf("Look at it:  %s dataset info %s\n", program, folder);
    free(folder);
}

/* The caller frees them. */
static char *training_lines(const struct run *run, const json_t *result, const char *program) {
    const char *checkpoint = text_of(result, "checkpoint");
    const json_t *eval_loss = json_object_get(result, "eval_loss");
    double loss = json_number_value(json_object_get(result, "train_loss")), eval = json_number_value(eval_loss);
    uint64_t steps = (uint64_t)json_integer_value(json_object_get(result, "steps"));
    char *evaluated = json_is_number(eval_loss) ? mem_format(", validation loss %.4f, perplexity %s", eval, text_perplexity(eval, 2))
                                                : mem_text("");
    char *again = output_word(run->sets->count ? run->config->output_dir : run->file), *model = output_word(checkpoint);
    char *lines = mem_format("done: %s step%s, training loss %.4f%s\ndataset  %s\nweights  %s\nThe model is in %s\n"
                             "Look at the run again:  %s status %s\nTry the model:          %s generate %s --prompt \"...\"\n",
                             text_count(steps), plural(steps), loss, evaluated, text_of(result, "dataset_digest"),
                             text_of(result, "weights_digest"), checkpoint, program, again, program, model);
    free(evaluated);
    free(again);
    free(model);
    return lines;
}

/* Once more asked to stop it ends at once, with the lines: the run is done. */
static void show_sample(const struct run *run, const char *checkpoint, const char *lines) {
    if (!*checkpoint || !*run->config->sample.prompt || run->config->sample.max_new_tokens == 0 || stop_requests) return;
    result_lines = lines;
    if (generate_sample(run, checkpoint) < 0) output_warn(mem_format("no sample: %s", err_text()));
    result_lines = NULL;
}

static int show_result(const struct run *run, const json_t *status) {
    json_t *result = json_object_get(status, "result");
    show_notes(run, status, result);
    if (!run->json) show_repaired(json_object_get(status, "dataset"));
    if (!result) return err_set(ERR_CORRUPT, "the coordinator left no result");
    if (run->json) return output_json(json_incref(result));
    char *program = output_word(program_invocation_name);
    if (run->stop_after) {
        account_show(json_object_get(result, "account"), print_line, NULL);
        show_dataset(status, result, program);
    } else {
        char *lines = training_lines(run, result, program);
        show_sample(run, text_of(result, "checkpoint"), lines);
        fputs(lines, stdout);
        free(lines);
    }
    free(program);
    return 0;
}

static void show_plan(const struct run *run) {
    const struct config *config = run->config;
    struct gpt2_config model = gpt2_config_of(config);
    if (run->json) return;
    bool named = strcmp(config->run_name, "run") != 0; /* as it is by default, which would read as the command's name */
    fprintf(stderr, "millrace %s%s%s\n", MILLRACE_VERSION, named ? "  " : "", named ? config->run_name : "");
    long long layers = config->model.n_layer, heads = config->model.n_head;
    fprintf(stderr, "model     %s parameters: %lld layer%s, %lld head%s, %lld wide, context %lld\n", text_count(gpt2_parameters(&model)),
            layers, plural((unsigned long long)layers), heads, plural((unsigned long long)heads), (long long)config->model.n_embd,
            (long long)config->model.n_positions);
    long long threads = config->cluster.threads_per_worker, slices = config->training.slices, workers = run->workers;
    long long sequences = config->training.global_batch / slices;
    fprintf(stderr, "cluster   %lld worker%s of %lld thread%s; %lld slice%s of %lld sequence%s a step\n", workers,
            plural((unsigned long long)workers), threads, plural((unsigned long long)threads), slices, plural((unsigned long long)slices),
            sequences, plural((unsigned long long)sequences));
    char *idle = output_idle_workers(workers, slices);
    if (idle) fprintf(stderr, "          %s\n", idle);
    free(idle);
    fprintf(stderr, "output    %s\nlogs      %s/logs\n", config->output_dir, config->output_dir);
}

static int run_cluster(struct run *run) {
    const char *folder = run->config->output_dir;
    char *logs = mem_format("%s/logs", folder), *endpoint = mem_format("%s/state/endpoint", folder);
    int code = folder_make(logs);
    endpoint_changed(run, endpoint); /* an earlier coordinator's: ours writes its own when it is up */
    free(logs);
    free(endpoint);
    if (code < 0) return coordinator_refuse_output(run->config, code);
    watching = true;
    run->worker = mem_alloc((size_t)run->workers * sizeof *run->worker + 1);
    for (int64_t i = 0; i < run->workers; i++) run->worker[i].number = (int)i + 1;
    run->follower = follower_open(folder, run->json);
    show_plan(run);
    int held = status_hold(folder);
    struct link *keeps = NULL; /* ZeroMQ's threads from look to look: it would end this process when one could not be started again */
    if (link_open(&keeps, &(struct link_options){.insecure = true}) < 0) keeps = NULL;
    code = watch(run);
    end_daemons(run);
    struct err kept = err_take();
    if (run->killed)
        status_stopped(folder, stop_requests > 1 ? "asked to stop at once; " STATUS_DONE_AGAIN : "the grace was over; " STATUS_DONE_AGAIN);
    if (held >= 0) close(held);
    json_t *last = NULL;
    if (code == 0 && (code = last_status(&last, run)) < 0) kept = err_take();
    link_close(keeps);
    if (last) follower_poll(run->follower, last); /* what came since the last look */
    follower_close(run->follower);
    err_give(&kept); /* the follower may find that its files are gone */
    free(run->worker);
    free(run->endpoint);
    if (code == ERR_INTERRUPTED && run->workers == 0) code = signals_home(code);
    if (code == 0) code = show_result(run, last);
    json_decref(last);
    return code;
}

/* A wish to stop that came before the cluster was there; what was under way then may have failed for it. */
static int stopped_early(int code) {
    if (!stop_requests || code == ERR_INTERRUPTED) return code;
    return err_set(ERR_INTERRUPTED, "stopped before the coordinator was started; the same command goes on");
}

/* Better now than when the dataset is done: refuses what is certain not to fit. */
static int check_memory(const struct run *run) {
    struct machine_memory machine;
    struct worker_shape shape = worker_shape_of(run->config, run->workers, (int)run->config->cluster.threads_per_worker);
    if (run->stop_after || run->workers == 0 || machine_memory(&machine, "") < 0) return 0;
    return worker_memory_check(&shape, run->workers, &machine);
}

/* Of all processes: for each ZeroMQ's two; its own and one for files, or one for work and the pool. */
static int64_t threads_needed(const struct run *run) {
    enum { OWN = 2, COORDINATOR = 4, WORKER = 4 };
    return OWN + COORDINATOR + run->workers * (WORKER + run->config->cluster.threads_per_worker - 1);
}

static int command(bool *json, int argc, char **argv, const struct usage *usage, const char *stop_after) {
    struct run run = {.stop_after = stop_after, .grace = GRACE_DEFAULT_SECONDS};
    struct option_list sets = {0};
    int64_t workers = -1;
    bool restart = false;
    const struct option_spec stop = OPTION_STOP_AFTER(&run.stop_after), none = {0};
    const struct option_spec options[] = {
        {"workers", 'n', OPTION_INT, &workers, 0, 256, "N",
         "local workers (default: cluster.workers; 0: only those that come from elsewhere)"},
        OPTION_SET(&sets),
        {"restart", 0, OPTION_FLAG, &restart, 0, 0, NULL,
         "start over: remove dataset, checkpoints and records in output_dir; text that did not change is not tokenized again"},
        OPTION_JSON(json),
        OPTION_VERIFY(&run.verify),
        OPTION_KEEP_DATASET(&run.keep_dataset),
        OPTION_GRACE(&run.grace),
        OPTION_LOG_LEVEL(&run.log_level),
        stop_after ? none : stop,
        {0},
    };
    char **arguments;
    int count, code = options_parse(&arguments, &count, usage, options, argc, argv);
    if (code != 0) return code;
    struct config config;
    run.file = count ? arguments[0] : "pipeline.yaml";
    run.sets = &sets;
    run.json = *json;
    TRY(options_restart(restart, run.keep_dataset));
    TRY(options_stop_after(run.stop_after));
    TRY(options_log_level(&(enum log_level){LOG_INFO}, run.log_level));
    TRY(config_load(&config, run.file, sets.item, sets.count));
    run.config = &config;
    run.workers = workers >= 0 ? workers : config.cluster.workers;
    char kernels[128];
    code = process_check_limits(run.workers, threads_needed(&run));
    if (code == 0) code = kernels_setup(kernels); /* what every worker here would refuse, and be started again for */
    if (code == 0 && config_tokenizer_is_path(&config)) {
        struct tokenizer *tokenizer;
        code = tokenizer_open_for(&tokenizer, &config);
        if (code == 0) tokenizer_close(tokenizer);
    }
    if (code == 0) code = check_memory(&run);
    if (code == 0) code = coordinator_check_inputs(&config, restart);
    if (code == 0 && restart) code = coordinator_restart(&config);
    if (code == 0) code = stopped_early(code);
    if (code == 0) code = coordinator_spool(&config);
    run.stdin_kept = code == 1;
    if (run.stdin_kept && !run.json) note(&run, NULL, STDIN_KEPT);
    code = stopped_early(code < 0 ? code : 0);
    if (code == 0) code = run_cluster(&run);
    if (code == ERR_INTERRUPTED && restart) code = signals_anew(code);
    config_free(&config);
    return code;
}

/* With --json there is an object in every ending, also when the words of the command are refused. */
static int command_told(int argc, char **argv, const struct usage *usage, const char *stop_after) {
    bool json = false;
    signals_take(on_stop, on_save); /* before anything is made */
    for (int i = 1; i < argc; i++) json |= strcmp(argv[i], "--json") == 0;
    int code = command(&json, argc, argv, usage, stop_after);
    if (code >= 0 || !json) return code;
    output_json_ending(code);
    return code;
}

int cmd_run(int argc, char **argv) {
    static const struct usage usage = {
        "run",
        "[FILE] [OPTIONS]",
        "Trains what FILE (default: pipeline.yaml) describes, with a coordinator and workers on this machine. After any interruption the\n"
        "same command goes on. SIGINT, SIGTERM and SIGHUP save the last step and stop, SIGUSR1 saves and goes on. With --json the last\n"
        "line of standard output is one object: the result, or {\"state\": \"refused\", \"stopped\" or \"failed\", \"reason\": ...}.",
        "millrace run pipeline.yaml --workers 2 --set training.max_steps=20",
        0,
        1};
    return command_told(argc, argv, &usage, NULL);
}

int cmd_dataset_build(int argc, char **argv) {
    static const struct usage usage = {
        "dataset build",
        "[FILE] [OPTIONS]",
        "Makes the dataset that FILE (default: pipeline.yaml) describes, and trains nothing: 'millrace run FILE --stop-after dataset'.\n"
        "A later 'millrace run FILE' trains on it. --verify looks through one that is there, and repairs it.",
        "millrace dataset build pipeline.yaml --workers 2",
        0,
        1};
    return command_told(argc, argv, &usage, "dataset");
}
