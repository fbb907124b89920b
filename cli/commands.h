/* The subcommands of `millrace`. Each reads its own command line, prints to standard output and returns 0, OPTIONS_HELP or
 * ERR_* with the text set; main prints the text and turns the code into the exit code. None calls exit(). argv[0] is the
 * command's name. */
#ifndef MILLRACE_CLI_COMMANDS_H
#define MILLRACE_CLI_COMMANDS_H

#include <stddef.h>

struct command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
};

/* Runs the one of `list` that argv[1] names. `within`: "" for the commands of millrace itself, else the command whose subcommands the list
 * has: `millrace WITHIN SUBCOMMAND ...`. */
int commands_run(const char *within, const char *description, const struct command *list, size_t count, int argc, char **argv);

int cmd_plan(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_coordinator(int argc, char **argv);
int cmd_worker(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_evaluate(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_tokenizer(int argc, char **argv);
int cmd_dataset(int argc, char **argv);
int cmd_dataset_build(int argc, char **argv);  /* in cmd_run.c */
int cmd_config(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
