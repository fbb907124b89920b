/* Writing a checkpoint. Owns a draft folder beside the checkpoint's place, which is locked (flock) as long as its writer lives: so
 * checkpoint_prune() can tell a draft that a crash left from one that is being written.
 *
 * The order of calls, by coordinator/saving.c: checkpoint_begin() makes the folder, the small files that the configuration and the
 * tokenizer give, and the large ones at their full size; checkpoint_put() fills these, range by range, in any order; checkpoint_seal()
 * checks that nothing is missing and writes trainer_state.json and the record; checkpoint_publish() renames the folder. A draft is used
 * by one thread at a time: the coordinator's loop fills it, its file thread seals and publishes. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/checkpoint_record.h"
#include "model/checkpoint/hf_config.h"
#include "model/checkpoint/safetensors.h"

/* Which elements of a part have been put: sorted, apart, not touching. */
struct range {
    size_t begin, end;
};
struct coverage {
    struct range *range;
    size_t count, capacity;
};

struct checkpoint_draft {
    char *path, *draft_path;
    int lock_fd, weights_fd, optimizer_fd, ema_fd; /* -1: no such file */
    bool sealed;
    size_t elements;
    struct state_parts parts;
    uint64_t data_offset[STATE_PARTS]; /* of a part's element 0 in its file */
    struct coverage covered[STATE_PARTS];
    struct checkpoint_record record;
};

static const char *const own_files[CHECKPOINT_OWN_FILES] = {[CHECKPOINT_CONFIG] = "config.json",
                                                            [CHECKPOINT_GENERATION_CONFIG] = "generation_config.json",
                                                            [CHECKPOINT_TRAINER_STATE] = "trainer_state.json"};

/* It only takes room, and checkpoint_prune() tries again. The caller's error outlives one of the removal. */
static void remove_draft(const char *path) {
    struct err before = err_take();
    if (folder_remove(path) < 0) log_warn("%s", err_text());
    err_give(&before);
}

/* 1: locked, and still the folder of that name; 0: checkpoint_prune() of another thread has it, or had it. */
static int lock_folder(const struct checkpoint_draft *draft) {
    struct stat named, locked;
    if (flock(draft->lock_fd, LOCK_EX | LOCK_NB) != 0 && errno != ENOLCK && errno != EOPNOTSUPP && errno != ENOSYS)
        return errno == EWOULDBLOCK ? 0 : err_errno("lock %s", draft->draft_path);
    return stat(draft->draft_path, &named) == 0 && fstat(draft->lock_fd, &locked) == 0 && named.st_ino == locked.st_ino;
}

/* A folder that is not locked yet looks to checkpoint_prune() as if a crash had left it. When it goes that way another one is made. */
static int open_folder(struct checkpoint_draft *draft) {
    enum { TRIES_MAX = 100 };
    static _Atomic unsigned counter;
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        free(draft->draft_path);
        draft->draft_path = mem_format("%s.draft-%d-%u", draft->path, (int)getpid(), counter++);
        TRY(folder_remove(draft->draft_path)); /* of an earlier process with this number */
        if (mkdir(draft->draft_path, 0777) != 0) /* and not output_dir, where that went */
            return err_errno("create folder %s", draft->draft_path);
        draft->lock_fd = open(draft->draft_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (draft->lock_fd < 0 && errno != ENOENT) return err_errno("open folder %s", draft->draft_path);
        int locked = draft->lock_fd < 0 ? 0 : lock_folder(draft);
        if (locked != 0) return locked < 0 ? locked : 0;
        if (draft->lock_fd >= 0) close(draft->lock_fd);
        draft->lock_fd = -1;
    }
    return err_set(ERR_IO, "%s is removed as soon as it is made", draft->draft_path);
}

/* Not flushed: checkpoint_seal() flushes the whole folder. */
static int small_file_add(struct checkpoint_draft *draft, const char *name, const void *bytes, size_t size_bytes) {
    char *path = mem_format("%s/%s", draft->draft_path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int code = fd < 0 ? err_errno("create %s", path) : 0;
    if (code == 0 && (code = file_write_at(fd, bytes, size_bytes, 0)) < 0) code = err_add(code, "%s", path);
    if (fd >= 0) close(fd);
    free(path);
    TRY(code);
    CHECK(draft->record.small_files < CHECKPOINT_SMALL_FILES_MAX && strlen(name) < sizeof draft->record.small_file->name);
    struct small_file *file = &draft->record.small_file[draft->record.small_files++];
    snprintf(file->name, sizeof file->name, "%s", name);
    sha256_of(file->sha256, bytes, size_bytes);
    return 0;
}

static int small_files_write(struct checkpoint_draft *draft, const struct gpt2_config *config, const struct checkpoint_text *texts,
                             size_t count) {
    struct buf text = {0};
    int code = hf_print_config(&text, config);
    if (code == 0) code = small_file_add(draft, own_files[CHECKPOINT_CONFIG], text.data, text.size);
    buf_clear(&text);
    if (code == 0) code = hf_print_generation_config(&text, config);
    if (code == 0) code = small_file_add(draft, own_files[CHECKPOINT_GENERATION_CONFIG], text.data, text.size);
    buf_free(&text);
    for (size_t i = 0; i < count && code == 0; i++) code = small_file_add(draft, texts[i].name, texts[i].bytes, texts[i].size);
    return code;
}

static uint64_t part_bytes(const struct checkpoint_draft *draft, enum state_part part) {
    return state_element_bytes(&draft->parts, part) * (uint64_t)draft->elements;
}

/* One entry for each tensor of a part, its name after `prefix`, from `at` on. */
static void entries_add(struct safetensors_entry *out, const struct checkpoint_draft *draft, enum state_part part, uint64_t at,
                        const char *prefix, const struct gpt2_tensor *tensors, size_t count) {
    uint64_t from = at;
    for (size_t i = 0; i < count; i++) {
        struct safetensors_entry entry = {
            .rank = tensors[i].rank, .offset = at, .size_bytes = state_element_bytes(&draft->parts, part) * tensors[i].size};
        snprintf(entry.dtype, sizeof entry.dtype, "%s", state_dtype(&draft->parts, part));
        snprintf(entry.name, sizeof entry.name, "%s%s", prefix, tensors[i].name);
        for (int d = 0; d < entry.rank; d++) entry.shape[d] = tensors[i].shape[d];
        at += entry.size_bytes;
        out[i] = entry;
    }
    CHECK(at == from + part_bytes(draft, part)); /* the tensors lie without gaps */
}

/* Creates a file with its header and room for its data, so that a full disk is found now. */
static int large_file_make(int *out_fd, uint64_t *out_data_offset, const struct checkpoint_draft *draft, const char *name,
                           const struct safetensors_entry *entries, size_t count, uint64_t data_bytes) {
    struct buf header = {0};
    char *path = mem_format("%s/%s", draft->draft_path, name);
    int code = safetensors_print_header(&header, entries, count);
    if (code == 0 && (*out_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0) code = err_errno("create %s", path);
    if (code == 0 && (errno = posix_fallocate(*out_fd, 0, (off_t)(header.size + data_bytes))) != 0)
        code = err_errno("make room for %s", path);
    if (code == 0 && (code = file_write_at(*out_fd, header.data, header.size, 0)) < 0) code = err_add(code, "%s", path);
    *out_data_offset = header.size;
    buf_free(&header);
    free(path);
    return code;
}

static bool has_part(const struct checkpoint_draft *draft, enum state_part part) {
    for (size_t i = 0; i < draft->parts.count; i++)
        if (draft->parts.part[i] == part) return true;
    return false;
}

/* The moments, one after the other. */
static int optimizer_file_make(struct checkpoint_draft *draft, const struct gpt2_tensor *tensors, size_t count) {
    size_t moments = state_moments(&draft->parts);
    if (moments == 0) return 0;
    struct safetensors_entry *entries = mem_alloc(moments * count * sizeof *entries);
    uint64_t bytes = part_bytes(draft, STATE_MOMENT1);
    entries_add(entries, draft, STATE_MOMENT1, 0, state_prefix(STATE_MOMENT1, moments), tensors, count);
    if (moments == 2) entries_add(entries + count, draft, STATE_MOMENT2, bytes, state_prefix(STATE_MOMENT2, moments), tensors, count);
    int code = large_file_make(&draft->optimizer_fd, &draft->data_offset[STATE_MOMENT1], draft, "optimizer.safetensors", entries,
                               moments * count, moments * bytes);
    draft->data_offset[STATE_MOMENT2] = draft->data_offset[STATE_MOMENT1] + bytes;
    free(entries);
    return code;
}

static int large_files_make(struct checkpoint_draft *draft, const struct gpt2_config *config) {
    size_t count = gpt2_tensor_count(config);
    struct gpt2_tensor *tensors = mem_alloc(count * sizeof *tensors);
    struct safetensors_entry *entries = mem_alloc(count * sizeof *entries);
    count = gpt2_tensors(tensors, config);
    entries_add(entries, draft, STATE_WEIGHTS, 0, "", tensors, count);
    int code = large_file_make(&draft->weights_fd, &draft->data_offset[STATE_WEIGHTS], draft, "model.safetensors", entries, count,
                               part_bytes(draft, STATE_WEIGHTS));
    if (code == 0 && has_part(draft, STATE_EMA)) /* of the same type */
        code = large_file_make(&draft->ema_fd, &draft->data_offset[STATE_EMA], draft, "model.ema.safetensors", entries, count,
                               part_bytes(draft, STATE_EMA));
    if (code == 0) code = optimizer_file_make(draft, tensors, count);
    free(entries);
    free(tensors);
    return code;
}

int checkpoint_begin(struct checkpoint_draft **out, const char *path, const struct gpt2_config *config, const struct state_parts *parts,
                     const struct checkpoint_text *texts, size_t count) {
    CHECK(count <= CHECKPOINT_TEXTS_MAX);
    struct checkpoint_draft *draft = mem_alloc(sizeof *draft);
    draft->lock_fd = draft->weights_fd = draft->optimizer_fd = draft->ema_fd = -1;
    draft->path = mem_text(path);
    draft->elements = gpt2_parameters(config);
    draft->parts = *parts;
    bool there;
    int code = checkpoint_check_place(draft->path, &there); /* before anybody sends the state */
    if (code == 0) code = open_folder(draft);
    if (code == 0) code = large_files_make(draft, config);
    if (code == 0) code = small_files_write(draft, config, texts, count);
    if (code < 0) {
        code = err_add(code, "checkpoint");
        checkpoint_discard(draft);
        return code;
    }
    *out = draft;
    return 0;
}

/* Adds [begin, end), swallowing every range that it overlaps or touches. */
static void coverage_add(struct coverage *c, size_t begin, size_t end) {
    size_t from = 0;
    while (from < c->count && c->range[from].end < begin) from++;
    size_t to = from;
    while (to < c->count && c->range[to].begin <= end) {
        if (c->range[to].begin < begin) begin = c->range[to].begin;
        if (c->range[to].end > end) end = c->range[to].end;
        to++;
    }
    if (c->count == c->capacity) {
        c->capacity = c->capacity ? 2 * c->capacity : 16;
        c->range = mem_resize(c->range, c->capacity * sizeof *c->range);
    }
    memmove(c->range + from + 1, c->range + to, (c->count - to) * sizeof *c->range);
    c->range[from] = (struct range){begin, end};
    c->count = c->count + 1 - (to - from);
}

static int fd_of(const struct checkpoint_draft *draft, enum state_part part) {
    switch (part) {
    case STATE_WEIGHTS: return draft->weights_fd;
    case STATE_MOMENT1:
    case STATE_MOMENT2: return draft->optimizer_fd;
    case STATE_EMA: return draft->ema_fd;
    case STATE_PARTS: break;
    }
    CHECK(!"no part of a state");
    return -1;
}

int checkpoint_put(struct checkpoint_draft *draft, enum state_part part, const void *elements, size_t first, size_t count) {
    CHECK(has_part(draft, part) && first <= draft->elements && count <= draft->elements - first);
    if (count == 0) return 0;
    size_t bytes = state_element_bytes(&draft->parts, part);
    int code = file_write_at(fd_of(draft, part), elements, bytes * count, draft->data_offset[part] + bytes * first);
    if (code < 0) return err_add(code, "%s", draft->draft_path);
    coverage_add(&draft->covered[part], first, first + count);
    return 0;
}

static const char *name_of(enum state_part part) {
    switch (part) {
    case STATE_WEIGHTS: return "the weights";
    case STATE_MOMENT1: return "the first moments";
    case STATE_MOMENT2: return "the second moments";
    case STATE_EMA: return "the average of the weights";
    case STATE_PARTS: break;
    }
    CHECK(!"no part of a state");
    return "";
}

static int check_complete(const struct checkpoint_draft *draft) {
    for (size_t i = 0; i < draft->parts.count; i++) {
        enum state_part part = draft->parts.part[i];
        const struct coverage *c = &draft->covered[part];
        if (c->count == 1 && c->range[0].begin == 0 && c->range[0].end == draft->elements) continue;
        size_t missing = c->count == 0 || c->range[0].begin > 0 ? 0 : c->range[0].end;
        return err_set(ERR_CORRUPT, "%s: %s are incomplete: element %zu of %zu is missing; not published", draft->path, name_of(part),
                       missing, draft->elements);
    }
    return 0;
}

static int digest_file(uint8_t out[SHA256_BYTES], const struct checkpoint_draft *draft, const char *name) {
    char *path = mem_format("%s/%s", draft->draft_path, name);
    int code = sha256_of_file(out, path);
    free(path);
    return code;
}

static int write_record(const struct checkpoint_draft *draft) {
    struct buf text = {0};
    char *path = mem_format("%s/" CHECKPOINT_RECORD_NAME, draft->draft_path);
    int code = checkpoint_record_print(&text, &draft->record);
    if (code == 0) code = file_publish(path, text.data, text.size);
    free(path);
    buf_free(&text);
    return code;
}

/* On a file system that cannot exchange. Between the two renames nobody has the name: after a crash there checkpoint_settle() gives it to
 * `whole`. */
static int take_turns(const char *whole, const char *path, const char *away) {
    if (rename(path, away) != 0) return err_errno("rename %s", path);
    if (rename(whole, path) == 0) return 0;
    int code = err_errno("rename %s", whole);
    if (rename(away, path) != 0) log_warn("%s: %s", path, strerror(errno)); /* `whole` is there yet */
    return code;
}

/* An older folder of that name changes places with the whole new one at once, and is then removed as a draft. */
static int replace(const struct checkpoint_draft *draft) {
    bool there;
    TRY(checkpoint_check_place(draft->path, &there));
    if (!there) return folder_publish(draft->draft_path, draft->path);
    char *whole = mem_format("%s" CHECKPOINT_WHOLE, draft->draft_path), *parent = mem_format("%s/..", draft->path);
    int code = folder_publish(draft->draft_path, whole);
    if (code == 0 && renameat2(AT_FDCWD, whole, AT_FDCWD, draft->path, RENAME_EXCHANGE) != 0)
        code = take_turns(whole, draft->path, draft->draft_path);
    if (code == 0) code = folder_sync(parent); /* before the old one goes */
    if (code == 0) remove_draft(whole); /* the old one by now; the new one stands, whatever becomes of it */
    free(parent);
    free(whole);
    return code;
}

int checkpoint_seal(struct checkpoint_draft *draft, struct checkpoint_facts *facts, const struct buf *trainer_json) {
    struct checkpoint_facts filled = *facts;
    int code = check_complete(draft);
    if (code == 0 && trainer_json)
        code = small_file_add(draft, own_files[CHECKPOINT_TRAINER_STATE], trainer_json->data, trainer_json->size);
    if (code == 0) code = digest_file(filled.weights_sha256, draft, "model.safetensors");
    filled.has_optimizer = draft->optimizer_fd >= 0;
    if (code == 0 && filled.has_optimizer) code = digest_file(filled.optimizer_sha256, draft, "optimizer.safetensors");
    filled.has_ema = draft->ema_fd >= 0;
    if (code == 0 && filled.has_ema) code = digest_file(filled.ema_sha256, draft, "model.ema.safetensors");
    draft->record.facts = filled;
    if (code == 0) code = write_record(draft);
    if (code == 0) code = folder_sync_all(draft->draft_path);
    if (code < 0) return err_add(code, "checkpoint");
    *facts = filled;
    draft->sealed = true;
    return 0;
}

int checkpoint_publish(struct checkpoint_draft *draft) {
    CHECK(draft->sealed);
    int code = replace(draft);
    if (code < 0) code = err_add(code, "checkpoint");
    checkpoint_discard(draft);
    return code;
}

/* ---- an evaluation that is known later ---- */

static int read_own_record(struct checkpoint_record *out, const char *folder) {
    struct buf text = {0};
    char *path = mem_format("%s/" CHECKPOINT_RECORD_NAME, folder);
    int code = file_read(&text, path, CHECKPOINT_RECORD_BYTES_MAX);
    if (code == 0) code = checkpoint_record_parse(out, path, (const char *)text.data, text.size);
    buf_free(&text);
    free(path);
    return code;
}

/* Not flushed: folder_publish() flushes the whole folder. */
static int copy_file(const char *to, const char *from) {
    int in;
    TRY(file_open(&in, from));
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666), code;
    if (out < 0) code = err_errno("create %s", to);
    else if ((code = file_copy_bytes(out, in)) < 0) code = err_add(code, "copy %s to %s", from, to);
    if (out >= 0) close(out);
    close(in);
    return code;
}

/* A file system without hard links (exFAT, some of FUSE), or a file that has no more of them. */
static bool cannot_link(int number) { return number == EPERM || number == EOPNOTSUPP || number == ENOSYS || number == EMLINK; }

/* A file of the checkpoint in the draft, too: a hard link, else a copy. */
static int take_over(const struct checkpoint_draft *draft, const char *name) {
    char *from = mem_format("%s/%s", draft->path, name), *to = mem_format("%s/%s", draft->draft_path, name);
    int code = 0;
    if (link(from, to) != 0) code = cannot_link(errno) ? copy_file(to, from) : err_errno("link %s", to);
    free(from);
    free(to);
    return code;
}

static int take_over_all(struct checkpoint_draft *draft, const struct checkpoint_record *record) {
    TRY(take_over(draft, "model.safetensors"));
    if (record->facts.has_optimizer) TRY(take_over(draft, "optimizer.safetensors"));
    if (record->facts.has_ema) TRY(take_over(draft, "model.ema.safetensors"));
    draft->record.facts = record->facts;
    for (size_t i = 0; i < record->small_files; i++) {
        const struct small_file *file = &record->small_file[i];
        if (strcmp(file->name, own_files[CHECKPOINT_TRAINER_STATE]) == 0) continue;
        TRY(take_over(draft, file->name));
        draft->record.small_file[draft->record.small_files++] = *file;
    }
    return 0;
}

int checkpoint_add_evaluation(const char *path, double eval_loss, uint64_t eval_step, const struct buf *trainer_json) {
    struct checkpoint_record record = {0};
    int code = read_own_record(&record, path);
    if (code == ERR_NOTFOUND) return 0; /* of the first release */
    if (code < 0) return code;
    struct checkpoint_draft *draft = mem_alloc(sizeof *draft);
    draft->lock_fd = draft->weights_fd = draft->optimizer_fd = draft->ema_fd = -1;
    draft->path = mem_text(path);
    code = open_folder(draft);
    if (code == 0) code = take_over_all(draft, &record);
    if (code == 0) code = small_file_add(draft, own_files[CHECKPOINT_TRAINER_STATE], trainer_json->data, trainer_json->size);
    draft->record.facts.eval_loss = eval_loss;
    draft->record.facts.eval_step = eval_step;
    if (code == 0) code = write_record(draft);
    if (code == 0) code = replace(draft);
    if (code < 0) code = err_add(code, "checkpoint");
    checkpoint_discard(draft);
    return code;
}

void checkpoint_discard(struct checkpoint_draft *draft) {
    if (!draft) return;
    if (draft->weights_fd >= 0) close(draft->weights_fd);
    if (draft->optimizer_fd >= 0) close(draft->optimizer_fd);
    if (draft->ema_fd >= 0) close(draft->ema_fd);
    if (draft->draft_path) remove_draft(draft->draft_path); /* after publication it is no longer there */
    if (draft->lock_fd >= 0) close(draft->lock_fd);
    for (int part = 0; part < STATE_PARTS; part++) free(draft->covered[part].range);
    free(draft->path);
    free(draft->draft_path);
    free(draft);
}
