/* millrace_state.json: what a checkpoint is, and the digests of its files. Its own last key is the digest of the keys before it, so that a
 * flipped bit here is found as well. The first release called it trainer_state.json, which is Hugging Face's name for another file. */
#ifndef MILLRACE_MODEL_CHECKPOINT_RECORD_H
#define MILLRACE_MODEL_CHECKPOINT_RECORD_H

#include "base/buf.h"
#include "model/checkpoint/checkpoint.h"

/* The small files that checkpoint_write.c makes itself. One more is one more here, which makes room for its digest in the record. */
enum checkpoint_own_file { CHECKPOINT_CONFIG, CHECKPOINT_GENERATION_CONFIG, CHECKPOINT_TRAINER_STATE, CHECKPOINT_OWN_FILES };

enum {
    CHECKPOINT_RECORD_BYTES_MAX = 1 << 20,
    CHECKPOINT_SMALL_FILES_MAX = CHECKPOINT_OWN_FILES + CHECKPOINT_TEXTS_MAX, /* a record that names more is refused */
};
#define CHECKPOINT_RECORD_NAME "millrace_state.json"
#define CHECKPOINT_RECORD_NAME_FIRST "trainer_state.json" /* in the first release */
#define CHECKPOINT_WHOLE "-whole" /* ends a draft's name when nothing is missing and the name that it is to get is another one's yet */

/* A file beside the large ones, with its digest. */
struct small_file {
    char name[40];
    uint8_t sha256[SHA256_BYTES];
};

/* The content of millrace_state.json. */
struct checkpoint_record {
    struct checkpoint_facts facts;
    size_t small_files;
    struct small_file small_file[CHECKPOINT_SMALL_FILES_MAX];
};

int checkpoint_record_print(struct buf *out, const struct checkpoint_record *record);

/* ERR_NOTFOUND when it is another program's file, ERR_UNSUPPORTED when it is of another version; ERR_CORRUPT names `path`. */
int checkpoint_record_parse(struct checkpoint_record *out, const char *path, const char *text, size_t text_bytes);

#endif
