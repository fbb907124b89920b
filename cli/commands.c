/* Finds the command that a command line names in a list of commands, and runs it. */
#include "cli/commands.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "cli/options.h"

/* `within`: "" for the commands of millrace itself, else the command whose subcommands the list has. */
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

int commands_run(const char *within, const char *description, const struct command *list, size_t count, int argc, char **argv) {
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
