/* `millrace status`: asks the coordinator of a run, or reads what it left. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/follow.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/status_file.h"
#include "config/config.h"

enum { ANSWER_MS = 1500, WATCH_MS = 1000 };

/* A pipeline's output_dir, or the folder itself. */
static int find_output(char **out, const char *argument) {
    struct stat st;
    if (stat(argument, &st) != 0)
        return err_set(ERR_CONFIG, "%s: %s; expected the path of a pipeline file or of a run's output_dir", argument, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        *out = mem_text(argument);
        return 0;
    }
    struct config config;
    TRY(config_load(&config, argument, NULL, 0));
    *out = mem_text(config.output_dir);
    config_free(&config);
    return 0;
}

static int show_once(const char *output_dir, bool json, bool *out_running) {
    json_t *status;
    TRY(status_get(&status, output_dir, ANSWER_MS));
    const char *state = json_string_value(json_object_get(status, "state"));
    *out_running = state && (strcmp(state, "running") == 0 || strcmp(state, "stopping") == 0);
    if (json) return output_json(status);
    status_show(status);
    json_decref(status);
    return 0;
}

int cmd_status(int argc, char **argv) {
    bool json = false, watch = false;
    const struct option_spec options[] = {
        OPTION_JSON(&json),
        {"watch", 'w', OPTION_FLAG, &watch, 0, 0, NULL, "show it again every second until the run ends"},
        {0},
    };
    static const struct usage usage = {
        "status",
        "[FILE] [OPTIONS]",
        "Shows stages, workers, speed and loss of the run of a pipeline (default: ./pipeline.yaml), also after it ended.\n"
        "FILE may be the run's output_dir as well.",
        "millrace status --watch",
        0,
        1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    char *output_dir;
    TRY(find_output(&output_dir, count ? arguments[0] : "pipeline.yaml"));
    bool running = true;
    do {
        if (watch && !json && isatty(STDOUT_FILENO)) printf("\033[H\033[2J");
        code = show_once(output_dir, json, &running);
        if (!watch || code < 0 || !(running || status_is_held(output_dir)) || !output_alive()) break;
        clock_sleep_ms(WATCH_MS);
    } while (true);
    free(output_dir);
    return code;
}
