/* What commands print. A full disk behind standard output is an error; a reader that has gone (a closed pipe) is not: there
 * is nobody left to tell, so output simply ends. */
#ifndef MILLRACE_CLI_OUTPUT_H
#define MILLRACE_CLI_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"

/* Bytes to standard output as they are; none is fine. A failure shows in output_alive() and output_finish(). */
void output_bytes(const void *bytes, size_t size_bytes);

/* Text of others, such as a model's, made harmless; line feeds and tabs stay. */
void output_plain(FILE *out, const void *text, size_t size_bytes);

/* Prints the object on one line of standard output and releases it. */
int output_json(json_t *object);
/* {"state": "refused", "failed" or "stopped", "reason": err_text()}, of a command that ends with this error. */
void output_json_ending(int code);
json_t *output_ending(int code); /* that object */

/* The text as one word of a shell's command line, in quotes where it needs them. The caller frees it. */
char *output_word(const char *text);

/* JSON of any bytes: ill-formed UTF-8 is replaced by U+FFFD. Never NULL. */
json_t *output_json_text(const void *bytes, size_t size_bytes);

/* JSON of a number; null when it is not finite. Never NULL. */
json_t *output_json_real(double value);

/* The same of what was measured: to nine digits, which is more than a clock is worth. */
json_t *output_json_measured(double value);

/* A warning for people, on standard error; NULL is none. Frees it. */
void output_warn(char *words);

/* How many of so many workers get no slice of a step to compute, and why; NULL: all get one. The caller frees it. */
char *output_idle_workers(int64_t workers, int64_t slices);

/* Writes what is buffered. True while somebody reads: long output should stop when it is false. */
bool output_alive(void);

/* Call once, at the end: flushes; ERR_IO or ERR_NOSPACE when bytes of standard output were lost. */
int output_finish(void);

/* When coordinator_spool() gave 1. */
#define STDIN_KEPT "standard input was not read: this run has the text that was given when it began; --restart takes another one"

#endif
