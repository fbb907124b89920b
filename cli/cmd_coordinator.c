/* `millrace coordinator`: the daemon, in the foreground, its log on standard error. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/process.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "config/config.h"
#include "coordinator/coordinator.h"

static volatile sig_atomic_t stop_requests;

/* While it begins nothing is there to be saved, and what is in output_dir may be left at any moment, as kill -9 leaves it. */
static void on_stop(void) {
    stop_requests = stop_requests + 1;
    if (stop_requests > 1 && !coordinator_serves()) _exit(130);
    coordinator_stop();
}

int cmd_coordinator(int argc, char **argv) {
    const char *bind = NULL;
    const char *stop_after = NULL, *log_level = NULL;
    enum log_level level;
    bool restart = false, verify = false, keep_dataset = false;
    double grace = GRACE_DEFAULT_SECONDS;
    struct option_list sets = {0};
    const struct option_spec options[] = {
        {"bind", 'b', OPTION_TEXT, &bind, 0, 0, "ADDR",
         "where workers reach it, such as tcp://127.0.0.1:5555 (default: a free loopback port)"},
        {"restart", 0, OPTION_FLAG, &restart, 0, 0, NULL, "start over: remove dataset, checkpoints and records in output_dir"},
        OPTION_STOP_AFTER(&stop_after),
        OPTION_VERIFY(&verify),
        OPTION_KEEP_DATASET(&keep_dataset),
        OPTION_GRACE(&grace),
        OPTION_LOG_LEVEL(&log_level),
        OPTION_SET(&sets),
        {0},
    };
    static const struct usage usage = {
        "coordinator",
        "FILE [OPTIONS]",
        "Serves the pipeline of FILE to the workers that come, until it is done. Its address is in output_dir/state/endpoint.\n"
        "Addresses beyond this machine need cluster.insecure: true. SIGTERM saves a checkpoint and stops; the same command goes on.\n"
        "SIGUSR1 saves a checkpoint and goes on.",
        "millrace coordinator pipeline.yaml --bind tcp://127.0.0.1:5555",
        1,
        1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    struct config config;
    TRY(options_restart(restart, keep_dataset));
    TRY(options_stop_after(stop_after));
    TRY(options_log_level(&level, log_level));
    TRY(process_check_limits(0, 0));
    TRY(config_load(&config, arguments[0], sets.item, sets.count));
    log_setup("coordinator", level);
    code = options_endpoint("--bind", bind, true, config.cluster.insecure);
    bool by_hand = !getenv(PROCESS_LAST_WORDS); /* else `run` started it, and has looked */
    signals_take(on_stop, coordinator_save);
    if (code == 0 && by_hand) code = coordinator_check_inputs(&config, restart);
    if (code == 0 && restart) code = coordinator_restart(&config);
    if (code == 0) code = coordinator_spool(&config);
    if (code == 1) log_warn("%s", STDIN_KEPT);
    struct coordinator_options run = {.config = &config, .bind = bind, .verify = verify};
    run.stop_after_dataset = stop_after;
    run.keep_dataset = keep_dataset;
    run.grace_ms = (int64_t)(grace * 1000);
    bool begins = code >= 0;
    if (begins) code = coordinator_run(&run);
    config_free(&config);
    if (code == ERR_INTERRUPTED && restart) code = signals_anew(code);
    if (code == ERR_INTERRUPTED && by_hand && begins) code = signals_home(code);
    return code;
}
