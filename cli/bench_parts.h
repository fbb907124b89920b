/* The parts of `millrace bench` that are files of their own. Like commands: cli/commands.h. */
#ifndef MILLRACE_CLI_BENCH_PARTS_H
#define MILLRACE_CLI_BENCH_PARTS_H

int bench_machine(int argc, char **argv);
int bench_tokenize(int argc, char **argv);

#endif
