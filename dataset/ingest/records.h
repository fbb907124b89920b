/* From the bytes of a file or member to its documents. A parser that is fed as the bytes come, in portions of any size, and asked for one
 * record after the other; it never looks back further than the record under way. What it finds follows from the bytes alone, not from
 * how they were portioned.
 *
 *   text       the whole is one document: handed on in pieces, or, if wanted, as one record
 *   text with a separator  what lies between separators. Separators that overlap count as one (a run of blank lines is one border for
 *              "\n\n"); one at the end of the file begins no document
 *   lines      each line, without its LF or CR LF
 *   jsonl      each line is a JSON object, or a string; blank lines are none
 *   json       one array of objects or strings, or objects (and strings) one after the other
 *   csv        RFC 4180: quoted fields may hold commas, line breaks and doubled quotes; a row ends with LF, CR LF or CR. The first row
 *              names the columns, blank lines are no rows. Tabs stand for commas where the first line has tabs and no comma. A row with
 *              other quotes, or more or fewer columns than the first, is a bad record; if it has several lines, only the first of them is,
 *              and what follows is read as rows again. So a quote that is missing or one too many costs the row it is in, not those
 *              behind it; lines that were within its quotes are bad records too, or rows where they have as many commas as one
 *   tsv        tabs and line breaks alone have a meaning, as text/tab-separated-values says; quotes are text. Columns as above
 *
 * JSON is what Python's json takes for it, with NaN and Infinity, surrogates that stand alone, control characters and ill-formed UTF-8 in
 * strings (dataset/ingest/json_text.h). A UTF-8 byte order mark at the beginning is skipped, but for a text that is the whole file.
 *
 * Memory: the record under way (RECORDS_BYTES_MAX at most, and up to as much again while its room grows), its text where that had escapes,
 * and one portion. */
#ifndef MILLRACE_DATASET_RECORDS_H
#define MILLRACE_DATASET_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "dataset/filter/policy.h"

enum {
    RECORDS_BYTES_MAX = POLICY_DOCUMENT_BYTES_MAX, /* of a record in the file: a longer one is left out */
    RECORDS_PREFIX_BYTES = 400,                    /* of a record left out, for showing it */
};

struct record {
    const uint8_t *text;    /* of the document; of a record left out: how it begins. Valid until the next call */
    size_t bytes;
    uint64_t offset;        /* of the record (of a piece: of the piece) in the file or member */
    bool begins, ends;      /* false: a piece of a document that goes on before or after it */
    const char *reason;     /* NULL: a document; else why it is left out: "bad_record", "too_long" */
    const char *detail;     /* in words, valid as text is */
    uint64_t record_bytes;  /* that it takes in the file */
    uint64_t line;          /* on which it begins, counted from 1 at the first record that belongs here; of a piece: 0 */
};

/* The format of a file or member, FORMAT_AUTO resolved by the suffix that its name has once unpacked. */
enum source_format records_format(const char *name, const struct source_group *group);

struct records_options {
    enum source_format format;   /* not FORMAT_AUTO */
    const char *field;           /* JSON: dotted for nested objects; a column's name */
    const char *separator;       /* FORMAT_TEXT: empty: none */
    bool whole;                  /* FORMAT_TEXT without separator: one record instead of pieces */
    /* Records that begin in [begin, end) alone; what they are does not depend on where a file is divided. For lines, jsonl and
     * separated text; a text that comes in pieces begins at begin and ends with the file. Others: 0 and UINT64_MAX. */
    uint64_t begin, end;
};

struct records;
int records_open(struct records **out, const struct records_options *options);
/* Where in the file the bytes to feed begin: at or a little before options->begin. */
uint64_t records_from(const struct records *records);
/* Room for bytes that come next, then how many of them came; ends the validity of the last record. */
int records_room(struct records *records, uint8_t **out, size_t size_bytes);
void records_fed(struct records *records, size_t size_bytes);
void records_finish(struct records *records);  /* the file is at its end */

/* RECORDS_ONE: *out is filled. RECORDS_MORE: bytes (or the end) are wanted first. RECORDS_END: there are no more. ERR_CONFIG: a table
 * without the column. skip: the caller passes over this record; only its being there counts. */
enum { RECORDS_MORE = 0, RECORDS_ONE = 1, RECORDS_END = 2 };
int records_next(struct records *records, struct record *out, bool skip);
/* Where in the file the first record that belongs here begins, and up to where records were found: what lies between is theirs, or around
 * them. The bytes of a file that is divided are thereby counted once. Known from the first record on, or at the end. */
uint64_t records_first(const struct records *records);
uint64_t records_at(const struct records *records);
uint64_t records_lines(const struct records *records);  /* line ends between the two; a CR alone is one where it ends a row */
void records_close(struct records *records);

#endif
