/* The value of any key of pipeline.yaml: what config/value.h has, and dataset.sources, a list of paths and of mappings, as struct
 * source_groups. The keys of a mapping are the table source_fields; the rules between its keys, and between entries, are here. */
#ifndef MILLRACE_CONFIG_GROUPS_H
#define MILLRACE_CONFIG_GROUPS_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/faults.h"
#include "config/config.h"
#include "config/fields.h"
#include "config/yaml.h"

/* As value_parse() and the others of config/value.h, of a field of any type. All faults of the value are noted in `faults`, and 0 is
 * returned. */
int setting_parse(struct config *config, const struct field *field, const struct entry *entry, struct faults *faults);
void setting_reset(struct config *config, const struct field *field);
int setting_print(struct buf *out, const struct field *field, const struct config *config, const char *folder);
bool setting_equal(const struct field *field, const struct config *a, const struct config *b);
void setting_free(struct config *config, const struct field *field);

#endif
