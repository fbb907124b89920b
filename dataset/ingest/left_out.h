/* The account of what a build read (docs/FORMATS.md, "Account"): every byte is kept, changed, around documents, or left out for a reason.
 * A reason is a fault of what was read, or it was asked for; only faults can stop a build. Pure. */
#ifndef MILLRACE_DATASET_LEFT_OUT_H
#define MILLRACE_DATASET_LEFT_OUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "proto/dataset.pb-c.h"

/* Is a document that is left out for this reason unreadable, damaged, malformed or too long? */
bool left_out_is_fault(const char *reason);

/* "data.jsonl:12", or "data.tar!a.bin, byte 0" where the line is not known: a source is named as it is, whatever its bytes. */
int left_out_place(struct buf *out, const Millrace__Example *example);

/* Appends " (first: PLACE, WORDS)" of the first document that was left out for the reason, if that is known; long ones are cut. */
int left_out_first(struct buf *out, const Millrace__Dropped *dropped);

/* ERR_CONFIG when faults are more than the share `most` of documents or of bytes: the text has each of them with its first place. */
int left_out_check(const Millrace__Account *account, Millrace__Dropped *const *dropped, size_t drops, double most);

/* The account for programs. NULL is an account that was not told, for which only what was left out is listed. */
json_t *left_out_json(const Millrace__Account *account, Millrace__Dropped *const *dropped, size_t drops);

#endif
