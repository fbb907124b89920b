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
/* What SQLite failed at last, with what to do, when that is a full disk (ERR_NOSPACE), a limit of this process (ERR_DENIED) or somebody
 * else who has the file (ERR_IO); else 0. */
int store_known_fault(sqlite3 *db, const char *path);

#define STORE_DAMAGED "damaged " /* then a table's name, or "file" for any of them: how many bad rows were left out */

#endif
