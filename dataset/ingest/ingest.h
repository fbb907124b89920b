/* A tokenize job, done: from the bytes of source files to a token run. Unpacks, finds the documents, applies the text policy, tokenizes,
 * and keeps account of where every document came from. Opens no file and knows no network: bytes come through readers, the token run goes
 * out through a writer. Bounded memory, whatever the files.
 *
 * A job ends when its parts are done, or at the first document border (inside a document that is a whole file: block border) at or after
 * INGEST_TEXT_BYTES of records as they lie in the unpacked files, or INGEST_PIECES_MAX pieces; its result then says where the next one goes
 * on, always right before a document or the rest of one. An ingest that is kept open goes on without doing anything twice; a fresh one
 * opened at that point reads up to it again, without tokenizing or judging, and gives the same token run. (source_bytes, which is for
 * progress, may differ.)
 *
 * Left out, counted and shown in the token run's table, beside what the policy leaves out: "bad_record" and "too_long"
 * (dataset/ingest/records.h), and "binary": files and members that are no text by their first bytes (dataset/source/content.h),
 * "damaged": all of a packed file from where its bytes make no sense on, "unreadable": a member that is encrypted, packed by an
 * unknown method or past a limit of unpack.h, or all of a file from there on where its archive does not go on behind one. Text in UTF-16
 * is read as UTF-8, and a byte order mark is no text; offsets in such a file are those in what is read. ERR_CONFIG, and so the end of the
 * run: a table without the column; unless max_left_out is half or more, a member (or a plain file's part) of which more than half of the
 * first 1000 records are bad, or of all, if there are 16 or more; a text that makes a token run of more than TOKEN_RUN_BYTES_MAX, because
 * it can be cut nowhere; one that the encoder cannot take. The table accounts for each byte of the unpacked text (docs/FORMATS.md,
 * "Account").
 *
 * Memory: two portions of 1 MiB, the record under way (records.h: 33 MiB when it is a long one), the token run's table, and what the
 * policy takes for one document; the encoder has its own (tokenizer.h). */
#ifndef MILLRACE_DATASET_INGEST_H
#define MILLRACE_DATASET_INGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "dataset/filter/policy.h"
#include "dataset/source/reader.h"
#include "dataset/tokenizer/tokenizer.h"
#include "proto/millrace.pb-c.h"

#ifndef INGEST_TEXT_BYTES /* the simulation builds the same code with small ones */
enum { INGEST_TEXT_BYTES = 16 << 20 };
#endif
enum { INGEST_PIECES_MAX = 1 << 16 };

struct ingest_options {
    const struct tokenizer *tokenizer;
    uint32_t token_bytes;                       /* 2 or 4 */
    const struct source_group *groups;          /* config->dataset.sources.item */
    size_t group_count;
    struct policy_options policy;
    double max_left_out;                        /* dataset.max_left_out: from a half on, members of bad records are left out */
    uint64_t text_bytes;                        /* INGEST_TEXT_BYTES; tests take less */
    uint64_t block_bytes;                       /* 0: RUN_BLOCK_BYTES; tests take less */
    uint64_t run_bytes;                         /* 0: TOKEN_RUN_BYTES_MAX; tests take less */
    /* Opens and closes the reader of a part's file. */
    int (*open)(void *arg, struct byte_reader *out, const Millrace__SourcePart *part);
    void (*close)(void *arg, struct byte_reader *reader);
    /* Is it still the file that was opened? Called when a part or a token run was read. ERR_CORRUPT: it is not, and the token run does not
     * count. NULL: it is. */
    int (*check)(void *arg, struct byte_reader *reader);
    int (*tick)(void *arg);                     /* called often; not 0: ERR_INTERRUPTED */
    void *arg;
};

struct ingest;
int ingest_open(struct ingest **out, const struct ingest_options *options, const Millrace__TokenizeJob *job);
/* Does this ingest stand exactly where the job begins? */
bool ingest_continues(const struct ingest *ingest, const Millrace__TokenizeJob *job);
/* One token run. Fills *out (its `next` is owned by the ingest and valid until the next call). The encoder is one of options.tokenizer that
 * stands between two texts, as it does again afterwards: the same one can serve many ingests in turn, and what it has learned makes it
 * faster and no different. After a failure ingest and encoder can only be closed. */
int ingest_run(struct ingest *ingest, Millrace__TokenizeResult *out, struct encoder *encoder,
               int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg);
void ingest_close(struct ingest *ingest);

#endif
