/* The subcommands of `millrace bench` that have a file of their own. As in cli/commands.h. */
#ifndef MILLRACE_CLI_BENCH_COMMANDS_H
#define MILLRACE_CLI_BENCH_COMMANDS_H

int bench_machine(int argc, char **argv);
int bench_tokenize(int argc, char **argv);

#endif
