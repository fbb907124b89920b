/* Command lines: one table of options per command gives parsing, ranges, `--help` and the hints of error messages. Built on
 * getopt_long(), so `--name value`, `--name=value`, unique abbreviations and `--` work as everywhere.
 *
 *     int64_t count = 16;
 *     bool json = false;
 *     struct option_list sets = {0};
 *     const struct option_spec options[] = {
 *         {"count", 'n', OPTION_INT, &count, 1, 1000, "N", "how many"},
 *         {"json", 0, OPTION_FLAG, &json, 0, 0, NULL, "print one JSON object"},
 *         OPTION_SET(&sets),
 *         {0},
 *     };
 *     static const struct usage usage = {"run", "FILE [OPTIONS]", "Trains a model.", "millrace run pipeline.yaml", 0, 1};
 *     char **arguments;
 *     int argument_count, code = options_parse(&arguments, &argument_count, &usage, options, argc, argv);
 *     if (code != 0) return code;
 */
#ifndef MILLRACE_CLI_OPTIONS_H
#define MILLRACE_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

enum {
    OPTIONS_HELP = 1,     /* options_parse() printed the help: nothing else is to be done, and the exit code is 0 */
    OPTIONS_MAX = 40,     /* rows of one table */
    OPTION_LIST_MAX = 256,/* times that one option may be given */
};

enum option_type {
    OPTION_FLAG,   /* bool: set true */
    OPTION_INT,    /* int64_t in [min, max] */
    OPTION_SEED,   /* uint64_t, all of its range */
    OPTION_REAL,   /* double in [min, max] */
    OPTION_TEXT,   /* const char *, borrowed from argv */
    OPTION_LIST,   /* struct option_list: each use appends */
};

struct option_list {
    const char *item[OPTION_LIST_MAX];  /* borrowed from argv */
    size_t count;
};

struct option_spec {
    const char *name;      /* without dashes; NULL ends the table */
    char letter;           /* 0: none */
    enum option_type type;
    void *value;           /* where the result goes; keeps its default when the option is absent */
    double min, max;       /* OPTION_INT and OPTION_REAL, both included */
    const char *argument;  /* its name in the help: "N" */
    const char *help;
};
#define OPTION_SET(list_) \
    {"set", 0, OPTION_LIST, (list_), 0, 0, "KEY=VALUE", "override a key of pipeline.yaml by its dotted path; may be repeated"}
#define OPTION_VERIFY(verify) \
    {"verify", 0, OPTION_FLAG, verify, 0, 0, NULL, "read every byte of the dataset first, if there is one, and repair broken shards"}
#define OPTION_KEEP_DATASET(keep) \
    {"keep-dataset", 0, OPTION_FLAG, keep, 0, 0, NULL, \
     "go on with the dataset that is there, although sources have changed; not with --restart"}
#define OPTION_STOP_AFTER(text_) {"stop-after", 0, OPTION_TEXT, (text_), 0, 0, "STAGE", "end when this stage is done: dataset"}
#define OPTION_JSON(flag_) {"json", 0, OPTION_FLAG, (flag_), 0, 0, NULL, "print JSON for programs"}
#define OPTION_GRACE(seconds_) \
    {"grace", 0, OPTION_REAL, (seconds_), 0, GRACE_SECONDS_MAX, "SECONDS", "for saving, once asked to stop (default: 25)"}
#define OPTION_LOG_LEVEL(text_) \
    {"log-level", 0, OPTION_TEXT, (text_), 0, 0, "LEVEL", "what is logged: debug (each error with its file and line), info, warn, error"}
#define OPTION_DTYPE(text_) \
    {"dtype", 0, OPTION_TEXT, (text_), 0, 0, "NAME", "weights as fp32, bf16 or int8: fewer bytes, faster (default: fp32)"}
#define OPTION_THREADS(count_) {"threads", 0, OPTION_INT, (count_), 1, 256, "N", "threads to compute with (default: all cores)"}

struct usage {
    const char *command;      /* "dataset info" */
    const char *arguments;    /* "DIR [OPTIONS]" */
    const char *description;  /* what it does: one or a few lines */
    const char *example;      /* whole command lines, one a line */
    int min_arguments, max_arguments;  /* operands, options not counted */
};

/* Reads argv[1 ..]. *out_arguments points at the operands, which are moved to the end of argv. Returns 0, OPTIONS_HELP, or ERR_USAGE
 * with a text that names the fault and the way to the help. */
int options_restart(bool restart, bool keep_dataset);  /* ERR_USAGE when both are given: they exclude each other */
int options_stop_after(const char *stage);  /* ERR_USAGE when it is not NULL and no stage to stop after */
int options_endpoint(const char *option, const char *endpoint, bool bind, bool insecure);  /* endpoint_check(); NULL: not given */
int options_log_level(enum log_level *out, const char *name);  /* NULL: info. ERR_USAGE when there is none of that name */
int options_parse(char ***out_arguments, int *out_count, const struct usage *usage, const struct option_spec *options, int argc,
                  char **argv);

/* The name in names[count] that `word` was probably meant to be, or NULL. */
const char *closest_name(const char *word, const char *const *names, size_t count);

/* Cores that this process may use, at least 1 and at most POOL_THREADS_MAX. */
int64_t cores_available(void);

#endif
