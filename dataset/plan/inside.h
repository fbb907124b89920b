/* struct dataset_plan, which the files of this folder fill one after the other: documents and their pieces, the chunks of each split, and
 * what was left out. */
#ifndef MILLRACE_DATASET_PLAN_INTERNAL_H
#define MILLRACE_DATASET_PLAN_INTERNAL_H

#include "base/hash.h"
#include "dataset/plan/plan.h"

enum { PLAN_DIGEST_BYTES = 16 };  /* of a document's SHA-256: chance does not make two of a dataset's texts agree in 128 bits */

enum side { SIDE_TRAIN, SIDE_VALIDATION, SIDE_OUT };

/* Tokens of a document in a token run. A last piece of no token run closes the array: what a piece holds is the difference to the next. */
struct piece {
    uint32_t run, first;      /* first token in the token run */
    uint64_t token, text;     /* tokens and bytes of text in all pieces before it */
    uint64_t offset;          /* where it, or the record that holds it, begins in the source */
};

/* A document that has tokens, in source order. A last one closes the array. */
struct document {
    uint32_t piece;           /* its first */
    uint32_t source, member;  /* member: 0 or the number of its name + 1 */
    uint32_t side;
};

/* A document whose text was changed before it was tokenized. */
struct change {
    uint32_t document;
    uint64_t bytes;           /* of its text before */
};

/* Tokens of a document that follow each other in a split, at most with an <eos> behind them. A last one closes the array. */
struct chunk {
    uint64_t position;        /* of its first token in the split */
    uint64_t token;           /* which of the document's that is */
    uint32_t document;        /* index */
    uint32_t number;          /* in the dataset */
};
_Static_assert(sizeof(struct piece) == 32 && sizeof(struct document) == 16 && sizeof(struct chunk) == 24, "millions of them");

struct split {
    struct chunk *chunk;      /* chunks + 1 */
    size_t chunks;
    uint64_t padding;
    struct split_totals totals;
};

/* Ill-formed UTF-8 of the file or member that the walk through the documents is in. */
struct file_tally {
    bool begun;
    uint32_t source, member;
    uint64_t sequences, bytes;
};

struct dataset_plan {
    struct plan_options options;
    struct document *document;/* documents + 1 */
    size_t documents, documents_max;
    struct piece *piece;      /* pieces + 1 */
    size_t pieces, pieces_max;
    uint64_t token, text;     /* of all pieces */
    struct buf names;         /* of members, each with its NUL */
    uint64_t *name;           /* where they begin */
    size_t name_count, names_max;
    uint8_t (*digest)[PLAN_DIGEST_BYTES];  /* of each document, while the plan is made */
    size_t digests_max;
    struct split split[2];    /* training, validation */
    uint64_t frame_tokens, shard_tokens;
    uint64_t empty_documents, replaced, truncated_documents, truncated_tokens;
    Millrace__Account account;
    struct change *change;    /* by document */
    size_t changes, changes_max;
    struct file_tally tally;
    Millrace__IllFormed ill_formed;
    char *first_other;        /* the first member of an archive that was passed over; NULL: none */
    uint64_t lines;           /* of the parts so far of a file that was divided */
    Millrace__Dropped **dropped;  /* sorted by reason */
    size_t drops, drops_max;
    Millrace__ManifestGroup *group;
};

static inline uint64_t document_tokens(const struct dataset_plan *plan, size_t d) {
    return plan->piece[plan->document[d + 1].piece].token - plan->piece[plan->document[d].piece].token;
}
static inline uint64_t document_bytes(const struct dataset_plan *plan, size_t d) {
    return plan->piece[plan->document[d + 1].piece].text - plan->piece[plan->document[d].piece].text;
}
static inline uint64_t document_offset(const struct dataset_plan *plan, size_t d) { return plan->piece[plan->document[d].piece].offset; }
static inline uint32_t document_group(const struct dataset_plan *plan, size_t d) {
    return plan->options.source_group[plan->document[d].source];
}

/* Room for one more element in a growing array of the plan. */
int plan_grow(void *array_pointer, size_t count, size_t *max, size_t element_bytes);

/* documents.c: fills document, piece, digest, names, and what the token runs left out. */
int plan_documents(struct dataset_plan *plan);

/* documents.c: "data.tar!a.txt". The caller frees it. */
char *plan_place(const struct dataset_plan *plan, uint32_t source, uint32_t member);

/* documents.c: the account of what is left out. The document goes to SIDE_OUT; `like`, if it is one, is the document it repeats. */
enum { NO_DOCUMENT = UINT32_MAX };
int plan_drop(struct dataset_plan *plan, const char *reason, size_t document, size_t like);
int plan_take_drops(struct dataset_plan *plan, const Millrace__RunTable *table);
void plan_end_account(struct dataset_plan *plan);  /* of the documents that stayed */
/* documents.c: returns code; err_text() with `lead` and what was left out for which reasons behind it, if anything was. */
int plan_refuse(const struct dataset_plan *plan, const char *lead, int code);
void plan_free_drops(Millrace__Dropped **dropped, size_t drops);

/* documents.c: leaves duplicates out, chooses the splits. */
int plan_splits(struct dataset_plan *plan);

/* layout.c: the documents of a split in order, repeated where weights ask for it. The caller frees *out. */
int plan_mix(struct dataset_plan *plan, uint32_t **out, size_t *out_count, bool validation);

/* layout.c: their places in the split. */
int plan_layout(struct dataset_plan *plan, const uint32_t *order, size_t count, bool validation);
uint64_t plan_stored(const struct dataset_plan *plan, size_t document);  /* tokens of it in the dataset, with its <eos> */
uint64_t plan_chunk_tokens(const struct dataset_plan *plan, const struct chunk *chunk);

/* jobs.c */
int plan_check_jobs(const struct dataset_plan *plan);

#endif
