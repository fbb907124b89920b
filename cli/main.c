/* `millrace`: one binary, every subcommand. Finds the command, prints its error, and turns it into the exit code: 0 done,
 * 1 failed, 2 usage or configuration, 130 interrupted. */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/plain.h"
#include "base/process.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"

static const struct command commands[] = {
    {"plan", "what a pipeline would do: memory, steps, time, bytes on wire and disk", cmd_plan},
    {"run", "train what pipeline.yaml describes, on this machine, with live progress", cmd_run},
    {"coordinator", "the daemon that hands out the work, for more than one machine", cmd_coordinator},
    {"worker", "the daemon that does the work, any number of them", cmd_worker},
    {"status", "stages, workers, speed and loss of a run", cmd_status},
    {"generate", "continue a text with a trained model", cmd_generate},
    {"evaluate", "loss and perplexity of a model on a text", cmd_evaluate},
    {"tokenize", "text to token ids, and back", cmd_tokenize},
    {"tokenizer", "train a tokenizer, or look into one: train, info", cmd_tokenizer},
    {"dataset", "make a dataset, look into it, check it, export and import tokens", cmd_dataset},
    {"config", "check and show a pipeline.yaml; print the reference of its keys", cmd_config},
    {"bench", "measure: train, generate, tokenize, machine", cmd_bench},
    {"version", "version, build and libraries", cmd_version},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

/* `within`: "" for the commands of millrace itself, else the command whose parts the list has. */
static void print_help(FILE *out, const char *within, const char *description, const struct command *list, size_t count) {
    const char *space = within[0] ? " " : "";
    fprintf(out, "Usage: millrace%s%s COMMAND [OPTIONS]\n\n%s\n\nCommands:\n", space, within, description);
    for (size_t i = 0; i < count; i++) fprintf(out, "  %-14s%s\n", list[i].name, list[i].summary);
    fprintf(out, "\n'millrace%s%s COMMAND --help' explains a command.", space, within);
    fprintf(out, " Exit codes: 0 done, 1 failed, 2 usage or configuration, 130 interrupted.\n");
}

static int unknown(const char *word, const char *within, const struct command *list, size_t count) {
    enum { NAMES_MAX = 32 };
    const char *names[NAMES_MAX], *near = NULL, *space = within[0] ? " " : "";
    CHECK(count <= NAMES_MAX);
    for (size_t i = 0; i < count; i++) names[i] = list[i].name;
    if (word[0] != '-') near = closest_name(word, names, count);
    return err_set(ERR_USAGE, "unknown %s '%s'%s%s%s 'millrace%s%s --help' lists the commands", word[0] == '-' ? "option" : "command",
                   word, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : ";", space, within);
}

static int dispatch(const char *within, const char *description, const struct command *list, size_t count, int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr, within, description, list, count);
        return err_set(ERR_USAGE, "a command is missing");
    }
    const char *word = argv[1];
    bool help = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
    if (help && argc == 2) {
        print_help(stdout, within, description, list, count);
        return 0;
    }
    if (help) word = argv[2];
    else if (strcmp(word, "--version") == 0 && !within[0]) word = "version";
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, word) != 0) continue;
        return help ? list[i].run(2, (char *[]){argv[2], "--help", NULL}) : list[i].run(argc - 1, argv + 1);
    }
    return unknown(word, within, list, count);
}

int commands_run(const char *name, const char *description, const struct command *list, size_t count, int argc, char **argv) {
    return dispatch(name, description, list, count, argc, argv);
}

/* Commands that have something to bring to an end set a handler of their own. */
static void interrupted(int signal_number) {
    (void)signal_number;
    _exit(130); /* err_exit_code(ERR_INTERRUPTED), which a signal handler may not call */
}

/* Part of an error may be a peer's word, or a file's. */
static void complain(void) {
    char text[8192]; /* of what err_set() keeps, escaped */
    plain_text(text, sizeof text, err_text(), true);
    fprintf(stderr, "millrace: %s\n", text);
    process_last_words(text);
}

int main(int argc, char **argv) {
    process_begin();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is seen where it is written to */
    signal(SIGXFSZ, SIG_IGN); /* so is a limit on the size of files */
    if (signal(SIGINT, interrupted) == SIG_IGN) signal(SIGINT, SIG_IGN); /* a job in the background */
    int code = process_check_stack();
    if (code == 0) code = dispatch("", "Turns text into a trained GPT-2 on ordinary CPU machines.", commands, COMMANDS, argc, argv);
    if (code > 0) code = 0;
    if (code < 0) complain();
    int written = output_finish();
    if (written < 0) complain();
    return err_exit_code(code < 0 ? code : written);
}
