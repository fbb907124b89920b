/* What dataset/ingest/ingest.c and dataset/ingest/ingest_account.c share: where an ingest stands, and the account of what it reads. */
#ifndef MILLRACE_DATASET_INGEST_INSIDE_H
#define MILLRACE_DATASET_INGEST_INSIDE_H

#include "dataset/ingest/encode.h"
#include "dataset/ingest/ingest.h"
#include "dataset/ingest/records.h"
#include "dataset/ingest/token_run_build.h"
#include "dataset/source/content.h"
#include "dataset/source/unpack.h"
#include "dataset/unicode/utf16.h"

enum { RECORDS_BAD_KINDS_MAX = 8, RECORDS_DETAIL_SHOWN_BYTES = 192 }; /* for an error's words: more tell nobody more */

struct ingest {
    struct ingest_options options;
    Millrace__TokenizeJob *job;      /* a copy */
    struct policy *policy;
    struct encode *encode;
    bool judges;                     /* the policy sees whole documents */
    bool failed, done;

    /* Where it stands: before `record`, when there is one */
    Millrace__Place next; /* where the next token run begins */
    size_t part_number;
    uint64_t members, member_documents;
    uint64_t skip_members, skip_documents, skip_text; /* what is left to pass over before the point it was opened at */
    bool catching_up;

    /* The part */
    bool part_open;
    const Millrace__SourcePart *part;
    const struct source_group *group;
    struct byte_reader reader;
    struct unpack *unpack;           /* NULL: a plain file */
    struct buf first;                /* of a whole plain file: its first portion, by which it was seen what it is */
    struct content content;          /* and what it is */
    uint64_t at;                     /* of a plain file: what is read next */
    size_t border_read;
    char *damage;                    /* it is damaged, or cannot be read, behind what was read, in words; not counted yet */
    const char *damage_reason;       /* "damaged", "unreadable" */
    bool broken;                     /* the same, and it has been counted */
    uint64_t used;                   /* of the part's bytes: already told as source_bytes */
    uint64_t fed;                    /* bytes of the part's members that were read, and of the one that is open */
    uint64_t member_fed;

    /* The member */
    bool is_text;                    /* one text, which is as long as it is: not of records */
    bool is_utf16;
    struct utf16 utf16;
    uint8_t *raw;                    /* what was read of it, in UTF-16; STREAM_READ_BYTES */
    struct records *records;         /* NULL: none is open */
    char *member;                    /* its name; "": the file itself */
    uint64_t records_seen, records_bad;
    struct bad_kind {                /* of those that are bad: what is alike up to its details, the first of each kind; count 0: no more */
        char first[RECORDS_DETAIL_SHOWN_BYTES];
        uint64_t count;
    } bad_kind[RECORDS_BAD_KINDS_MAX];
    bool has_record;
    struct record record;
    bool counting;                   /* accounted is known: from the first record on, or the member's end */
    uint64_t accounted;              /* the member's bytes up to there are in a token run's account */
    uint64_t mark;                   /* bytes of a byte order mark that was taken off, and is in no account yet */

    /* A document in several pieces */
    bool in_pieces;                  /* the member is one */
    bool seeks_cut;                  /* the part's text begins at the first cut at or after text_from, else there */
    uint64_t text_from;
    bool in_document, at_block_border;

    /* The token run */
    struct token_run_builder table;
    int (*write)(void *, const void *, size_t); /* the caller's */
    void *write_arg;
    uint64_t written;
    uint64_t used_up;                /* records' bytes */
    uint64_t documents, source_bytes;
};

/* What was read counts when it was the same file from beginning to end. ERR_CORRUPT: the part's file is another one by now. */
static inline int ingest_check_part(struct ingest *in) {
    return in->options.check ? in->options.check(in->options.arg, &in->reader) : 0;
}

/* A document, or what would be one, that is left out of the token run. */
void account_left_out(struct ingest *in, const char *reason, const char *detail, uint64_t offset, uint64_t line, uint64_t bytes,
                      const uint8_t *text, size_t text_bytes);
void account_around(struct ingest *in, uint64_t offset);
void account_mark(struct ingest *in);
void account_record(struct ingest *in, const struct record *record, uint64_t text_bytes);
void account_binary(struct ingest *in, const struct content *content, uint64_t size, const uint8_t *head, size_t bytes);

/* err_text() says what is wrong with the part's file from here on: kept as in->damage, until account_damaged() counts it. */
int account_damage_found(struct ingest *in, enum unpack_fault fault);
void account_damaged(struct ingest *in, uint64_t offset, uint64_t rest);
/* The same of one member, or of what lies around an archive, behind which unpack_pass() goes on: counted at once. */
int account_passed(struct ingest *in, enum unpack_fault fault);

#endif
