/* From token files to a dataset: the files are searched for documents, each document is given to the plan as a token run of one piece, and
 * the pack jobs of the plan are done as a worker does them. Each document gets a digest of its own, made of its number, so that the plan
 * finds no duplicates. */
#include "dataset/convert/import.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/convert/token_file.h"
#include "dataset/ingest/token_run.h"
#include "dataset/plan/plan.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"

enum { PIECE_TOKENS = 4 << 20 };  /* at most: what is read at a time */

/* A document, or a part of a long one; a run of the plan. */
struct part {
    uint64_t first;               /* token in its file */
    uint32_t file;
    uint32_t begins : 1, ends : 1, tokens : 30;
};

struct import {
    const struct import_options *options;
    struct token_file *file;
    const char **path;
    uint32_t *group;
    size_t files;
    uint32_t token_bytes;
    struct part *part;
    size_t parts, parts_max;
};

static int tick(const struct import_options *options) {
    return options->tick && options->tick(options->tick_arg) != 0 ? err_set(ERR_INTERRUPTED, "stopped") : 0;
}

/* ---- Files ---- */

static int open_file(struct import *import, const char *path, uint32_t group) {
    struct token_file *file = &import->file[import->files];
    TRY(token_file_open(file, path, import->options->plain_bytes));
    import->path[import->files] = path;
    import->group[import->files++] = group;
    if (import->files == 1) import->token_bytes = file->token_bytes;
    if (file->token_bytes == import->token_bytes) return 0;
    return err_set(ERR_UNSUPPORTED, "%s: ids of %" PRIu32 " bytes where %s has %" PRIu32 "; all files must be alike", path,
                   file->token_bytes, import->path[0], import->token_bytes);
}

static int open_files(struct import *import) {
    const struct import_options *options = import->options;
    size_t files = options->train_files + options->validation_files;
    if (files == 0) return err_set(ERR_USAGE, "no files to import");
    import->file = mem_alloc(files * sizeof *import->file);
    import->path = mem_alloc(files * sizeof *import->path);
    import->group = mem_alloc(files * sizeof *import->group);
    for (size_t i = 0; i < options->train_files; i++) TRY(open_file(import, options->train[i], 0));
    for (size_t i = 0; i < options->validation_files; i++) TRY(open_file(import, options->validation[i], 1));
    if (import->token_bytes == 2 && options->eos > UINT16_MAX)
        return err_set(ERR_USAGE, "end-of-text token %" PRIu32 " does not fit into ids of 2 bytes", options->eos);
    return 0;
}

static void close_files(struct import *import) {
    for (size_t i = 0; i < import->files; i++) token_file_close(&import->file[i]);
    free(import->file);
    free(import->path);
    free(import->group);
    free(import->part);
}

/* ---- Documents ---- */

/* The document that is being looked through. */
struct scan {
    struct import *import;
    uint32_t file;
    uint64_t first;               /* of the part */
    uint64_t tokens;              /* in it so far */
    bool begins;                  /* it begins a document, or will */
};

static int end_part(struct scan *scan, bool ends) {
    struct import *import = scan->import;
    if (import->parts == UINT32_MAX) return err_set(ERR_LIMIT, "more than %u documents", UINT32_MAX);
    if (import->parts == import->parts_max) {
        import->parts_max = import->parts_max ? 2 * import->parts_max : 1024;
        struct part *more = reallocarray(import->part, import->parts_max, sizeof *more);
        if (!more) return err_set(ERR_MEMORY, "out of memory: %zu documents", import->parts_max);
        import->part = more;
    }
    import->part[import->parts++] = (struct part){scan->first, scan->file, scan->begins, ends, (uint32_t)scan->tokens};
    scan->first += scan->tokens;
    scan->tokens = 0;
    scan->begins = ends;
    return 0;
}

/* The file's next ids. */
static int scan_tokens(struct scan *scan, const uint8_t *bytes, size_t count) {
    const struct import_options *options = scan->import->options;
    uint32_t token_bytes = scan->import->token_bytes;
    for (size_t i = 0; i < count; i++) {
        uint32_t token = token_get(bytes + i * token_bytes, token_bytes);
        if (token > INT32_MAX)
            return err_set(ERR_CORRUPT, "id %" PRIu32 " (%" PRId32 " as an int32) at token %" PRIu64 "; ids are 0 to %d", token,
                           (int32_t)token, scan->first + scan->tokens, INT32_MAX);
        if (options->vocabulary && token >= options->vocabulary)
            return err_set(ERR_CORRUPT, "id %" PRIu32 " at token %" PRIu64 ", in a vocabulary of %" PRIu32, token,
                           scan->first + scan->tokens, options->vocabulary);
        bool fresh = scan->begins && scan->tokens == 0;
        if (token == options->eos && !fresh) {
            TRY(end_part(scan, true));
            scan->first++;
        } else if (++scan->tokens == PIECE_TOKENS) {
            TRY(end_part(scan, false));
        }
    }
    return 0;
}

static int scan_file(struct import *import, uint32_t number, uint8_t *bytes) {
    const struct token_file *file = &import->file[number];
    struct scan scan = {.import = import, .file = number, .begins = true};
    for (uint64_t done = 0; done < file->tokens;) {
        size_t count = file->tokens - done < PIECE_TOKENS ? (size_t)(file->tokens - done) : PIECE_TOKENS;
        TRY(token_file_read(file, bytes, done, count));
        TRY(scan_tokens(&scan, bytes, count));
        TRY(tick(import->options));
        done += count;
    }
    bool open = scan.tokens > 0 || !scan.begins;
    return open ? end_part(&scan, true) : 0;
}

static int find_documents(struct import *import) {
    uint8_t *bytes;
    TRY(mem_try(&bytes, PIECE_TOKENS, import->token_bytes));
    int code = 0;
    for (size_t i = 0; code == 0 && i < import->files; i++) {
        code = scan_file(import, (uint32_t)i, bytes);
        if (code < 0) err_add(code, "%s", import->path[i]);
    }
    free(bytes);
    return code;
}

/* ---- What the plan and the builder ask for ---- */

#define COLUMN(table, name, value) ((table)->n_##name = 1, (table)->name = mem_alloc(sizeof *(table)->name), *(table)->name = (value))

static int load(void *arg, size_t run, Millrace__RunTable **out) {
    const struct import *import = arg;
    const struct part *part = &import->part[run];
    Millrace__RunTable *table = mem_alloc(sizeof *table);
    millrace__run_table__init(table);
    table->token_bytes = import->token_bytes;
    table->tokens = part->tokens;
    COLUMN(table, source, part->file);
    COLUMN(table, member, 0);
    COLUMN(table, offset, import->file[part->file].offset + part->first * import->token_bytes);
    COLUMN(table, bytes, (uint64_t)part->tokens * import->token_bytes);
    COLUMN(table, piece_tokens, part->tokens);
    COLUMN(table, flags, (part->begins ? TOKEN_RUN_BEGINS : 0) | (part->ends ? TOKEN_RUN_ENDS : 0));
    COLUMN(table, blocks, 1);
    COLUMN(table, replaced, 0);
    uint8_t number[8];
    for (int i = 0; i < 8; i++) number[i] = (uint8_t)((uint64_t)run >> 8 * i);
    table->digests = (ProtobufCBinaryData){SHA256_BYTES, mem_alloc(SHA256_BYTES)};
    sha256_of(table->digests.data, number, sizeof number);
    *out = table;
    return 0;
}

static int read_run(void *arg, uint32_t run, void *out, size_t size_bytes, uint64_t offset) {
    const struct import *import = arg;
    const struct part *part = &import->part[run];
    CHECK(offset + size_bytes <= (uint64_t)part->tokens * import->token_bytes);
    return token_file_read(&import->file[part->file], out, part->first + offset / import->token_bytes, size_bytes / import->token_bytes);
}

static int make_plan(struct dataset_plan **out, struct import *import) {
    const struct import_options *options = import->options;
    struct source_group groups[2] = {
        {.name = (char *)"train", .split = options->validation_files ? SPLIT_TRAIN : SPLIT_BY_DIGEST},
        {.name = (char *)"validation", .split = SPLIT_VALIDATION},
    };
    return dataset_plan_from_runs(out, &(struct plan_options){
        .token_bytes = import->token_bytes,
        .eos = options->eos,
        .sequence_length = options->sequence_length,
        .shard_tokens = options->shard_tokens,
        .validation_fraction = options->validation_files ? 0 : options->validation_fraction,
        .packing = options->packing,
        .groups = groups,
        .group_count = options->validation_files ? 2 : 1,
        .source_path = import->path,
        .source_group = import->group,
        .sources = import->files,
        .runs = import->parts,
        .load = load,
        .arg = import,
    });
}

/* ---- Shards ---- */

struct output {
    struct draft draft;
    struct sha256 *sha;
    uint64_t size;
};

static int write_output(void *arg, const void *bytes, size_t size_bytes) {
    struct output *output = arg;
    TRY(draft_write_at(&output->draft, bytes, size_bytes, output->size));
    sha256_add(output->sha, bytes, size_bytes);
    output->size += size_bytes;
    return 0;
}

static int build_shard(struct shard_entry *entry, struct import *import, const Millrace__PackJob *job, const char *path) {
    struct output output = {0};
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    struct token_run_reader reader = {.read = read_run, .arg = import};
    TRY(draft_open(&output.draft, path));
    output.sha = sha256_open();
    int code = shard_build(&result, job, &reader, write_output, &output, import->options->tick, import->options->tick_arg);
    sha256_finish(output.sha, entry->file_digest);
    sha256_close(output.sha);
    if (code == 0) code = draft_publish(&output.draft);
    else draft_discard(&output.draft);
    entry->tokens = result.tokens;
    entry->documents = result.documents;
    entry->file_bytes = output.size;
    return code;
}

/* Builds shard number i, and reads it again for the dataset's digest. */
static int make_shard(struct manifest *manifest, struct import *import, const struct dataset_plan *plan, const char *folder, size_t i,
                      struct sha256 *sha) {
    struct shard_entry *entry = &manifest->shard[i];
    bool validation = i >= manifest->train_shards;
    shard_name(entry->name, validation, (uint32_t)(i - (validation ? manifest->train_shards : 0)));
    Millrace__PackJob *job;
    TRY(dataset_plan_job(&job, plan, i));
    char *path = mem_format("%s/%s", folder, entry->name);
    int code = build_shard(entry, import, job, path);
    struct shard *shard;
    if (code == 0) code = manifest_open_shard(&shard, manifest, folder, i);
    if (code == 0) {
        memcpy(entry->index_digest, shard_index_digest(shard), XXH128_BYTES);
        entry->has_index_digest = true;
        shard_close(shard);
        code = manifest_verify_shard(manifest, folder, i, sha);
    }
    free(path);
    millrace__pack_job__free_unpacked(job, NULL);
    return code;
}

/* Nobody owns them: what makes a dataset in this folder next has perhaps fewer. */
static void remove_shards(const struct manifest *manifest, const char *folder, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char *path = mem_format("%s/%s", folder, manifest->shard[i].name);
        unlink(path);
        free(path);
    }
}

static int make_dataset(struct manifest *manifest, struct import *import, const struct dataset_plan *plan, const char *folder) {
    const struct import_options *options = import->options;
    dataset_plan_describe(plan, manifest);
    manifest->document_mask = options->document_mask;
    manifest->policy = mem_text("imported token files"); /* so places in sources are places of ids */
    if (options->tokenizer) {
        manifest->tokenizer = mem_text(options->tokenizer);
        memcpy(manifest->tokenizer_digest, options->tokenizer_digest, SHA256_BYTES);
    }
    manifest->source = mem_alloc(import->files * sizeof *manifest->source);
    for (; manifest->sources < import->files; manifest->sources++)
        manifest->source[manifest->sources] = mem_text(import->path[manifest->sources]);
    TRY(mem_try(&manifest->shard, manifest->shards, sizeof *manifest->shard));
    struct sha256 *sha = sha256_open();
    size_t made = 0;
    int code = 0;
    while (code == 0 && made < manifest->shards) code = make_shard(manifest, import, plan, folder, made++, sha);
    sha256_finish(sha, manifest->digest);
    sha256_close(sha);
    if (code == 0) code = manifest_write(manifest, folder);
    if (code < 0) remove_shards(manifest, folder, made);
    return code;
}

/* Shards without a manifest are of an import that was killed, or of a dataset that lost it. Who reads all shards of the folder would read
 * them, too (zstd -dc train-*.tok.zst); and they are somebody's, so they are not removed. */
static int refuse_leftovers(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) return errno == ENOENT ? 0 : err_errno("open folder %s", folder);
    int code = 0;
    for (struct dirent *entry; (entry = folder_next(dir, folder, &code));)
        if (is_dataset_file(entry->d_name))
            code = err_set(ERR_USAGE, "%s holds %s, and no " MANIFEST_NAME ": a dataset that was not finished; choose another folder, or "
                           "remove the train-* and validation-* of that one", folder, entry->d_name);
    closedir(dir);
    return code;
}

static int check_folder(const char *folder) {
    char *path = mem_format("%s/" MANIFEST_NAME, folder);
    int code = file_exists(path) ? err_set(ERR_USAGE, "%s holds a dataset already; choose another folder", folder) : 0;
    free(path);
    if (code == 0) code = refuse_leftovers(folder);
    return code < 0 ? code : folder_make(folder);
}

int dataset_import(struct manifest *out, const struct import_options *options, const char *folder) {
    bool was_there = file_exists(folder);
    TRY(check_folder(folder));
    struct import import = {.options = options};
    struct dataset_plan *plan = NULL;
    struct manifest manifest = {0};
    int code = open_files(&import);
    if (code == 0) code = find_documents(&import);
    if (code == 0) code = make_plan(&plan, &import);
    if (code == 0) code = make_dataset(&manifest, &import, plan, folder);
    dataset_plan_free(plan);
    close_files(&import);
    if (code < 0 && !was_there) rmdir(folder); /* one in which nothing was made */
    if (code < 0) manifest_free(&manifest);
    else *out = manifest;
    return code;
}
