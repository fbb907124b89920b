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
    if (code == 0) code = commands_run("", "Turns text into a trained GPT-2 on ordinary CPU machines.", commands, COMMANDS, argc, argv);
    if (code > 0) code = 0;
    if (code < 0) complain();
    int written = output_finish();
    if (written < 0) complain();
    int exit_code = err_exit_code(code < 0 ? code : written);
    if (code == ERR_INTERRUPTED) _exit(exit_code); /* a thread may be left that computes: libraries would take its memory away */
    return exit_code;
}
