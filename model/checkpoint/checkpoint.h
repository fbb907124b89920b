/* Checkpoint folders, as Hugging Face's Trainer names and transformers reads them (docs/FORMATS.md):
 *
 *     checkpoint-500/model.safetensors        weights, float32, names and layout of GPT2LMHeadModel, tied head left out,
 *                                             metadata {"format":"pt"}; data in the flat order of gpt2_tensors()
 *                    optimizer.safetensors    exp_avg.NAME, then exp_avg_sq.NAME, same order; SGD: momentum_buffer.NAME, or no such file;
 *                                             float32 or bfloat16
 *                    model.ema.safetensors    the average of the weights, where there is one; as model.safetensors
 *                    config.json  generation_config.json
 *                    tokenizer.json  tokenizer_config.json  special_tokens_map.json  vocab.json  merges.txt   (or what the tokenizer has)
 *                    trainer_state.json       as Hugging Face's Trainer reads it (model/checkpoint/trainer_state.h)
 *                    millrace_state.json      step, tokens seen, digests of the above; written last
 *
 * Published whole by one rename. The tensors are in flat order, so that who writes puts a segment of the state as one range of a file; who
 * reads goes by the tensors' names, whatever their order. */
#ifndef MILLRACE_MODEL_CHECKPOINT_H
#define MILLRACE_MODEL_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "model/checkpoint/hf_config.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"

/* What millrace_state.json records of the state in the checkpoint and of its run. It has no pointer: it is copied from thread to thread,
 * and compared as bytes. */
struct checkpoint_facts {
    uint64_t step, max_steps;
    uint64_t tokens_seen;                    /* steps_tokens() of proto/steps.h */
    double epoch;
    double train_loss, eval_loss;            /* last known; NaN: none */
    uint64_t eval_step;                      /* of the state that eval_loss is of; 0: none, or not recorded */
    char build[192];                         /* program, kernels and libraries that computed it; empty: not recorded */
    bool has_run;                            /* the next two are recorded, which the first release did not do */
    uint8_t run[SHA256_BYTES];               /* of all that the run's results follow from, but for its length */
    uint8_t self_test[SHA256_BYTES];         /* the digest that the workers gave that computed it */
    uint8_t state_digest[XXH128_BYTES];      /* state_digest() */
    uint8_t weights_sha256[SHA256_BYTES];    /* of model.safetensors: the run's weights_digest */
    bool has_optimizer;                      /* the optimizer has moments */
    uint8_t optimizer_sha256[SHA256_BYTES];  /* of optimizer.safetensors */
    bool has_ema;                            /* there is an average of the weights */
    uint8_t ema_sha256[SHA256_BYTES];        /* of model.ema.safetensors */
};

/* Writing: a draft folder beside the target; put every element of every part, in any order and division, then publish. */
struct checkpoint_draft;
/* The tokenizer's files come as texts, because the model knows no tokenizer. At most CHECKPOINT_TEXTS_MAX: the five that a tokenizer has
 * (TOKENIZER_FILES_MAX) and one to spare. A larger number needs no other change here, and older checkpoints stay readable; but programs
 * with the smaller number refuse a checkpoint with more files. */
enum { CHECKPOINT_TEXTS_MAX = 6 };
struct checkpoint_text {
    const char *name;
    const void *bytes;
    size_t size;
};
int checkpoint_begin(struct checkpoint_draft **out, const char *path, const struct gpt2_config *config, const struct state_parts *parts,
                     const struct checkpoint_text *texts, size_t count);
int checkpoint_put(struct checkpoint_draft *draft, enum state_part part, const void *elements, size_t first, size_t count);
/* The slow part, done while the folder is still a draft: writes trainer_json as trainer_state.json (NULL: none), digests the large files
 * into *facts and the small ones into the record, writes the record, and waits until everything is on the disk. Afterwards
 * checkpoint_publish() or checkpoint_discard(). */
int checkpoint_seal(struct checkpoint_draft *draft, struct checkpoint_facts *facts, const struct buf *trainer_json);
/* Renames the sealed draft to its path. Closes the draft, also on failure. An older checkpoint of that name is replaced; anything else
 * there is ERR_DENIED, as it is to checkpoint_begin(), and stays. */
int checkpoint_publish(struct checkpoint_draft *draft);
void checkpoint_discard(struct checkpoint_draft *draft);  /* NULL is fine */

/* Records an evaluation in a checkpoint that is published already: a second folder with the same files (hard links, or copies where the
 * file system has none), but another trainer_state.json and record takes its place as one of checkpoint_publish() does. A checkpoint of
 * the first release stays as it is. */
int checkpoint_add_evaluation(const char *path, double eval_loss, uint64_t eval_step, const struct buf *trainer_json);

/* Reading. checkpoint_open() accepts the folder, its model.safetensors or model.safetensors.index.json, or its model.ema.safetensors, whose
 * average is then read as the weights; also of a foreign GPT-2, with other tensor order, in several files (model/checkpoint/tensor_map.h),
 * in F32, BF16 or F16, moments in F32 or BF16. No digest is compared: that is checkpoint_verify(). ERR_NOTFOUND, ERR_CORRUPT,
 * ERR_UNSUPPORTED name the file and the tensor. A part that is not there is ERR_NOTFOUND when it is read, and says which key asks for it;
 * so is one in a file that the record does not name, of which nothing is verified. */
struct checkpoint;
int checkpoint_open(struct checkpoint **out, const char *path);
const struct gpt2_config *checkpoint_config(const struct checkpoint *checkpoint);
/* What its generation_config.json, and the eos_token_id of its config.json, ask for. */
int checkpoint_generation(const struct checkpoint *checkpoint, struct hf_generation *out);
int checkpoint_facts(const struct checkpoint *checkpoint, struct checkpoint_facts *out);  /* ERR_NOTFOUND in foreign ones */
/* In flat order, as floats; or as elements of the type that the part has in `parts`. ERR_UNSUPPORTED when the file has another type. */
int checkpoint_read(const struct checkpoint *checkpoint, float *out, enum state_part part, size_t first, size_t count);
int checkpoint_read_state(const struct checkpoint *checkpoint, void *out, const struct state_parts *parts, enum state_part part,
                          size_t first, size_t count);
/* Files against the digests of millrace_state.json: ERR_CORRUPT names the file. */
int checkpoint_verify(const struct checkpoint *checkpoint);
/* The same without the optimizer's file, for who only computes with the weights. 0 for a foreign checkpoint, which has no digests. */
int checkpoint_verify_model(const struct checkpoint *checkpoint);
void checkpoint_close(struct checkpoint *checkpoint);

/* The newest checkpoint-N in `folder` that verifies; out_passed gets a line for each newer one that does not, with what is wrong. *out_path
 * (malloc) is NULL when there is none. */
int checkpoint_newest(char **out_path, uint64_t *out_step, struct buf *out_passed, const char *folder);
/* The step of the newest one by its name, whether it verifies or not; 0: there is none. */
int checkpoint_newest_named(uint64_t *out_step, const char *folder);

/* A crash, or a disk that failed, may have left a checkpoint that was being replaced without its name, where two names cannot be exchanged:
 * the whole one that was about to get it gets it now. For who alone writes there, at a start. */
int checkpoint_settle(const char *folder);

/* Is it a checkpoint of this program, whole or damaged? A folder without our record is taken for a user's own. */
bool checkpoint_is_own(const char *path);
/* May a checkpoint get this name? ERR_DENIED: something else than an older one (*out_there) is in the way; it is named, with what to do. */
int checkpoint_check_place(const char *path, bool *out_there);
/* The same of each name in `folder` that will be asked for: every `every` steps (0: never) after step `after`, and at step `last` (0: it is
 * not known yet). */
int checkpoint_check_places(const char *folder, uint64_t after, uint64_t every, uint64_t last);

/* Removes the oldest ones of this program, whole or damaged, so that at most `keep` (0: all) remain, but none that is not older than the
 * newest whole one; drafts left by a crash go too, after checkpoint_settle(). One that cannot be removed keeps no other: the first such
 * failure is returned when all that can be removed is. */
int checkpoint_prune(const char *folder, uint64_t keep);

/* Removes all of a run's checkpoints, complete or not, links in the place of one, and drafts. Folders of other names, like checkpoint-best,
 * are not its own, nor is a folder named checkpoint-N that is none (checkpoint_is_own()). */
int checkpoint_remove_all(const char *folder);

#endif
