/* Turns a table of options into getopt_long()'s tables, into values, help and error texts. Prints no error and never exits: main does. */
#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/pool.h"
#include "proto/endpoint.h"

enum { FIRST_LONG = 256 }; /* getopt's value of table row i is FIRST_LONG + i: apart from every letter */

static size_t options_count(const struct option_spec *options) {
    size_t count = 0;
    while (options[count].name) count++;
    CHECK(count <= OPTIONS_MAX);
    return count;
}

/* Levenshtein distance, for hints; words longer than the row are never close. */
static size_t edit_distance(const char *a, const char *b) {
    enum { WORD_MAX = 63 };
    size_t row[WORD_MAX + 1], la = strlen(a), lb = strlen(b);
    if (la > WORD_MAX || lb > WORD_MAX) return WORD_MAX;
    for (size_t j = 0; j <= lb; j++) row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[lb];
}

const char *closest_name(const char *word, const char *const *names, size_t count) {
    size_t best = strlen(word) / 3 + 1; /* a third of the letters may be wrong */
    const char *found = NULL;
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(word, names[i]);
        if (distance > best || (distance == best && found)) continue;
        best = distance;
        found = names[i];
    }
    return found;
}

/* Goes on below itself where a line would be too wide. */
static void print_option(const char *left, const char *help) {
    enum { HELP_WIDE = 97 };
    printf("  %-30s ", left);
    while (strlen(help) > HELP_WIDE) {
        size_t n = HELP_WIDE;
        while (n > 0 && help[n] != ' ') n--;
        if (n == 0) break;
        printf("%.*s\n%-33s", (int)n, help, "");
        help += n + 1;
    }
    printf("%s\n", help);
}

static void print_help(const struct usage *usage, const struct option_spec *options) {
    printf("Usage: millrace %s%s%s\n\n%s\n\nOptions:\n", usage->command, usage->arguments[0] ? " " : "", usage->arguments,
           usage->description);
    for (const struct option_spec *o = options; o->name; o++) {
        char left[64];
        char letter[8] = "    ";
        if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->argument ? " " : "", o->argument ? o->argument : "");
        print_option(left, o->help);
    }
    printf("  %-30s %s\n", "-h, --help", "print this");
    if (!usage->example) return;
    printf("\nExample:\n");
    for (const char *line = usage->example; *line;) {
        int length = (int)strcspn(line, "\n");
        printf("  %.*s\n", length, line);
        line += length + (line[length] == '\n');
    }
}

static int usage_error(const struct usage *usage, const char *what, const char *detail) {
    return err_set(ERR_USAGE, "%s: %s%s; see 'millrace %s --help'", usage->command, what, detail, usage->command);
}

static int bad_value(const struct usage *usage, const struct option_spec *option, const char *text, const char *expected) {
    return err_set(ERR_USAGE, "%s: --%s %s: expected %s; see 'millrace %s --help'", usage->command, option->name, text, expected,
                   usage->command);
}

static int take_int(const struct usage *usage, const struct option_spec *option, const char *text) {
    char expected[80], *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || (double)value < option->min || (double)value > option->max) {
        snprintf(expected, sizeof expected, "a whole number from %.0f to %.0f", option->min, option->max);
        return bad_value(usage, option, text, expected);
    }
    *(int64_t *)option->value = value;
    return 0;
}

static int take_seed(const struct usage *usage, const struct option_spec *option, const char *text) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end || errno || strchr(text, '-')) return bad_value(usage, option, text, "a whole number from 0 to 2^64 - 1");
    *(uint64_t *)option->value = value;
    return 0;
}

static int take_real(const struct usage *usage, const struct option_spec *option, const char *text) {
    char expected[80], *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= option->min && value <= option->max)) {
        snprintf(expected, sizeof expected, "a number from %g to %g", option->min, option->max);
        return bad_value(usage, option, text, expected);
    }
    *(double *)option->value = value;
    return 0;
}

static int take_value(const struct usage *usage, const struct option_spec *option, const char *text) {
    switch (option->type) {
    case OPTION_FLAG: *(bool *)option->value = true; return 0;
    case OPTION_INT: return take_int(usage, option, text);
    case OPTION_SEED: return take_seed(usage, option, text);
    case OPTION_REAL: return take_real(usage, option, text);
    case OPTION_TEXT: *(const char **)option->value = text; return 0;
    case OPTION_LIST: {
        struct option_list *list = option->value;
        if (list->count == OPTION_LIST_MAX)
            return err_set(ERR_USAGE, "%s: --%s may be given at most %d times", usage->command, option->name, OPTION_LIST_MAX);
        list->item[list->count++] = text;
        return 0;
    }
    }
    CHECK(!"an option type without a case");
    return 0;
}

/* "; did you mean --workers?" for "work", "workers" of a letter too many or of one dash. */
static int unknown_option(const struct usage *usage, const struct option_spec *options, size_t count, const char *said, const char *name) {
    const char *names[OPTIONS_MAX], *matches = NULL;
    char detail[160];
    for (size_t i = 0; i < count; i++) {
        names[i] = options[i].name;
        if (strncmp(name, names[i], strlen(name)) == 0) matches = names[i];
    }
    const char *near = matches ? matches : closest_name(name, names, count);
    snprintf(detail, sizeof detail, "%s%s%s%s", said, near ? "; did you mean --" : "", near ? near : "", near ? "?" : "");
    return err_set(ERR_USAGE, "%s: unknown option %s%s see 'millrace %s --help'", usage->command, detail, near ? "" : ";", usage->command);
}

/* getopt said no to `word`: an unknown option, an ambiguous abbreviation or a value that a flag does not take. letter: the one that is no
 * option, of a word with one dash; 0: the word has two. */
static int refuse(const struct usage *usage, const struct option_spec *options, size_t count, const char *word, int letter) {
    char name[64], said[68];
    word += letter ? 1 : 2;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word, "="), word);
    bool known = !letter && strcmp(name, "help") == 0;
    for (size_t i = 0; i < count; i++) known |= !letter && strcmp(name, options[i].name) == 0;
    if (known) return usage_error(usage, "this option takes no value: ", word - 2);
    if (letter) snprintf(said, sizeof said, "-%c", (char)letter);
    else snprintf(said, sizeof said, "--%s", name);
    return unknown_option(usage, options, count, said, name);
}

/* The word that getopt read last. It goes to the next one only behind the last letter: of "-workers" it may still be at "w". */
static const char *word_read(char *const *argv, int argc, int letter) {
    const char *before = argv[optind - 1];
    size_t length = strlen(before);
    bool ended = !letter || optind >= argc || (length > 1 && before[0] == '-' && before[1] != '-' && before[length - 1] == (char)letter);
    return ended ? before : argv[optind];
}

static void make_tables(struct option *out_long, char *out_short, const struct option_spec *options, size_t count) {
    *out_short++ = ':'; /* tell a missing value from an unknown option */
    *out_short++ = 'h';
    for (size_t i = 0; i < count; i++) {
        int has_value = options[i].type == OPTION_FLAG ? no_argument : required_argument;
        out_long[i] = (struct option){options[i].name, has_value, NULL, FIRST_LONG + (int)i};
        if (!options[i].letter) continue;
        *out_short++ = options[i].letter;
        if (has_value) *out_short++ = ':';
    }
    out_long[count] = (struct option){"help", no_argument, NULL, 'h'};
    out_long[count + 1] = (struct option){0};
    *out_short = 0;
}

/* "CHECKPOINT --text FILE [OPTIONS]": operands are the words in capitals before any option. */
static int missing(const struct usage *usage, int given) {
    const char *name = usage->arguments;
    for (; given > 0 && strchr(name, ' '); given--) name = strchr(name, ' ') + 1;
    return err_set(ERR_USAGE, "%s: %.*s is missing; usage: millrace %s %s", usage->command, (int)strcspn(name, " "), name, usage->command,
                   usage->arguments);
}

static int check_operands(const struct usage *usage, char *const *arguments, int count) {
    if (count < usage->min_arguments) return missing(usage, count);
    if (count > usage->max_arguments) return usage_error(usage, "one word too many: ", arguments[usage->max_arguments]);
    return 0;
}

int options_restart(bool restart, bool keep_dataset) {
    if (!restart || !keep_dataset) return 0;
    return err_set(ERR_USAGE, "--restart removes the dataset that --keep-dataset would go on with; leave one of the two out");
}

int options_stop_after(const char *stage) {
    if (!stage || strcmp(stage, "dataset") == 0) return 0;
    return err_set(ERR_USAGE, "--stop-after %s: expected dataset", stage);
}

int options_endpoint(const char *option, const char *endpoint, bool bind, bool insecure) {
    int code = endpoint ? endpoint_check(endpoint, bind, insecure) : 0;
    return code < 0 ? err_add(code, "%s", option) : 0;
}

int options_log_level(enum log_level *out, const char *name) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    *out = LOG_INFO;
    for (int level = LOG_DEBUG; name && level <= LOG_ERROR; level++)
        if (strcmp(name, names[level]) == 0) {
            *out = (enum log_level)level;
            return 0;
        }
    return name ? err_set(ERR_USAGE, "--log-level %s: expected debug, info, warn or error", name) : 0;
}

int options_parse(char ***out_arguments, int *out_count, const struct usage *usage, const struct option_spec *options, int argc,
                  char **argv) {
    size_t count = options_count(options);
    struct option longs[OPTIONS_MAX + 2];
    char shorts[2 * OPTIONS_MAX + 3];
    make_tables(longs, shorts, options, count);
    optind = 0; /* start over: GNU getopt keeps its place in globals */
    opterr = 0;
    for (int got; (got = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (got == 'h') {
            print_help(usage, options);
            return OPTIONS_HELP;
        }
        if (got == ':') return usage_error(usage, "a value is missing after ", argv[optind - 1]);
        size_t row = got >= FIRST_LONG ? (size_t)(got - FIRST_LONG) : 0;
        if (got < FIRST_LONG)
            while (row < count && options[row].letter != got) row++;
        int letter = optopt < FIRST_LONG && optopt != 'h' ? optopt : 0; /* "--help=yes" is no letter */
        if (got == '?' || row == count) return refuse(usage, options, count, word_read(argv, argc, letter), letter);
        TRY(take_value(usage, &options[row], optarg));
    }
    TRY(check_operands(usage, argv + optind, argc - optind));
    *out_arguments = argv + optind;
    *out_count = argc - optind;
    return 0;
}

int64_t cores_available(void) {
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return cores < 1 ? 1 : cores > POOL_THREADS_MAX ? POOL_THREADS_MAX : cores;
}
