/* Answers for names that are not keys: keys of another section, names of other tools, and misspellings. */
#ifndef MILLRACE_CONFIG_NAMES_H
#define MILLRACE_CONFIG_NAMES_H

#include "config/yaml.h"

/* Sets ERR_CONFIG for the unknown dotted key, with what to write instead. */
int name_refuse(struct location at, const char *dotted_key);

/* The same for "dataset.sources.key", a key of an entry of dataset.sources. */
int name_refuse_source(struct location at, const char *dotted_key);

/* A foreign name with a value that asks for nothing but what is done here anyway: null, or its own tool's default. */
bool name_says_nothing(const struct entry *entry);

/* What to do about a name of GPT2Config, TrainingArguments or nanoGPT that is not a key here; NULL for a name nobody uses. */
const char *name_foreign(const char *key);

#endif
