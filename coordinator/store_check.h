/* The store's tables, and whether what they hold is what was written. Only store.c uses this.
 *
 * Every row carries a digest of all its columns, which SQLite computes when it writes the row (a generated column): SQLite's own
 * integrity check looks at the structure of its file and finds no bit that flips in a value. A store that is damaged, in its structure or
 * in its rows, is written anew from the rows that are whole; the damaged file stays beside it under another name. */
#ifndef MILLRACE_COORDINATOR_STORE_CHECK_H
#define MILLRACE_COORDINATOR_STORE_CHECK_H

#include <sqlite3.h>
#include <stdbool.h>

#include "coordinator/store.h"

/* Opens the store's file, with its tables: made, brought up from the first release's, or repaired. */
int store_file_open(sqlite3 **out, const char *path);
int store_file_full(const char *path); /* ERR_NOSPACE, with what to do */

#define STORE_DAMAGED "damaged " /* then a table's name, or "file" for any of them: how many bad rows were left out */

#endif
