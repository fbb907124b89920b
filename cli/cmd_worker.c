/* `millrace worker`: the daemon, in the foreground, its log on standard error. */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/process.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/signals.h"
#include "proto/endpoint.h"
#include "workers/worker.h"

/* Others have to reach it: where the coordinator is on another machine, they may be, too. `room` has what is advertised. */
static int choose_bind(const char **bind, char room[ENDPOINT_MAX], const char *connect, const char *advertise) {
    bool alone = endpoint_is_local(connect), asked = *bind;
    if (!asked && alone && !advertise) return 0;
    const char *any = strstr(room, "tcp://[") ? "tcp://[::]:*" : "tcp://*:*"; /* the former is addresses of both kinds */
    if (!asked && advertise) snprintf(room, ENDPOINT_MAX, "%s", any);
    else if (!asked) TRY(endpoint_toward(room, connect));
    if (!asked) *bind = room;
    if (alone || advertise || endpoint_is_for_others(*bind)) return 0;
    const char *what = endpoint_is_local(*bind) ? "is of this machine alone" : "is no address that others can be told";
    if (asked)
        return err_set(ERR_USAGE, "--bind %s: %s, and the coordinator at %s is not of this machine alone, so other workers could not reach "
                       "this one; leave --bind out, or say with --advertise where they do", *bind, what, connect);
    return err_set(ERR_USAGE, "--connect %s: the address from which this machine goes there, %.*s, %s, so other workers could not reach "
                   "this one; say with --advertise where they do", connect, (int)(strrchr(room, ':') - room), room, what);
}

int cmd_worker(int argc, char **argv) {
    const char *connect = NULL, *bind = NULL, *advertise = NULL, *log_level = NULL;
    char own[ENDPOINT_TEXT_MAX] = "";
    enum log_level level;
    int64_t threads = 0;
    double grace = GRACE_DEFAULT_SECONDS;
    bool insecure = false;
    const struct option_spec options[] = {
        {"connect", 'c', OPTION_TEXT, &connect, 0, 0, "ADDR", "the coordinator's address (required)"},
        {"bind", 'b', OPTION_TEXT, &bind, 0, 0, "ADDR",
         "where other workers come in (default: a free port of the interface that leads to the coordinator)"},
        {"advertise", 'a', OPTION_TEXT, &advertise, 0, 0, "ADDR",
         "what the others are told instead, where they reach this machine at another address: HOST or HOST:PORT, or up to four of them\n"
         "with commas between, which are tried in turn"},
        {"threads", 0, OPTION_INT, &threads, 1, 256, "N", "threads to compute with (default: cluster.threads_per_worker)"},
        OPTION_GRACE(&grace),
        OPTION_LOG_LEVEL(&log_level),
        {"insecure", 0, OPTION_FLAG, &insecure, 0, 0, NULL,
         "allow addresses beyond this machine: nothing on them is encrypted or authenticated"},
        {0},
    };
    static const struct usage usage = {
        "worker",
        "--connect ADDR [OPTIONS]",
        "Works for the coordinator at ADDR until the run ends. Needs nothing but the address: text, tokens, gradients and\n"
        "checkpoints travel as messages, to and from the coordinator and the other workers. Workers may come and go at any time:\n"
        "on SIGTERM it leaves when the others have what they need of it, or it is saved. Without its coordinator it waits for it,\n"
        "for ever: it ends when the coordinator sends it home, and on SIGTERM or Ctrl-C.",
        "millrace worker --connect tcp://127.0.0.1:5555",
        0,
        0};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (!connect)
        return err_set(ERR_USAGE, "worker: --connect ADDR is missing; the coordinator's log and output_dir/state/endpoint tell it");
    TRY(options_endpoint("--connect", connect, false, insecure));
    TRY(options_endpoint("--bind", bind, true, insecure));
    if (advertise && (code = endpoint_announce(own, advertise, ":1")) < 0) return err_add(code, "--advertise");
    TRY(choose_bind(&bind, own, connect, advertise));
    TRY(options_log_level(&level, log_level));
    TRY(process_check_limits(0, 0));
    log_setup("worker", level);
    signals_take(worker_stop, NULL);
    struct worker_options options_of_run = {.connect = connect, .bind = bind, .advertise = advertise, .insecure = insecure};
    options_of_run.threads = (int)threads;
    options_of_run.grace_ms = (int64_t)(grace * 1000);
    options_of_run.later_ms = GRACE_WORKER_MS;
    while ((code = worker_run(&options_of_run)) == WORKER_AGAIN) continue;
    return code;
}
