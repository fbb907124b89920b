/* The manifest: the last file written into a dataset folder, and the one from which all others are found. Its numbers are checked against
 * each other before it is written and after it is read. Shards are opened only to verify them. */
#include "dataset/shard/manifest.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/plain.h"
#include "dataset/shard/seal.h"
#include "dataset/shard/shard.h"
#include "dataset/shard/shard_index.h"

enum {
    MANIFEST_BYTES_MAX = 192 << 20,
    MANIFEST_MEMORY_MAX = 1 << 30,    /* protobuf-c needs some 100 bytes for a path and 350 for a shard, whatever they are in the file */
    SHARD_BYTES_MAX = 104,            /* of a shard's entry in the file */
    OTHER_BYTES_MAX = 16 << 20,       /* entries of dataset.sources, what was left out and examples of it */
};
_Static_assert(MANIFEST_SOURCES_BYTES_MAX + MANIFEST_SHARDS_MAX * SHARD_BYTES_MAX + OTHER_BYTES_MAX <= MANIFEST_BYTES_MAX,
               "what a dataset may have can be written down");
static const struct seal_kind manifest_seal = {"MLRDATAS", &millrace__manifest__descriptor, MANIFEST_BYTES_MAX, MANIFEST_MEMORY_MAX};

void shard_name(char out[48], bool validation, uint32_t number) {
    snprintf(out, 48, "%s-%05u.tok.zst", validation ? "validation" : "train", number);
}

bool is_dataset_file(const char *name) {
    static const char *const names[] = {MANIFEST_NAME, "train-*.tok.zst", "validation-*.tok.zst"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *draft = mem_format("%s.draft-*", names[i]);
        bool matches = fnmatch(names[i], name, 0) == 0 || fnmatch(draft, name, 0) == 0;
        free(draft);
        if (matches) return true;
    }
    return false;
}

/* ---- Is there room? ---- */

int manifest_check_sources(const struct sources *sources) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < sources->count; i++) bytes += strlen(sources->source[i].path) + MANIFEST_SOURCE_BYTES;
    if (sources->count <= MANIFEST_SOURCES_MAX && bytes <= MANIFEST_SOURCES_BYTES_MAX) return 0;
    return err_set(ERR_CONFIG,
                   "dataset.sources: %s files, whose paths take %s bytes: a dataset names each, and has room for %s files and %s bytes; "
                   "pack them into archives (tar -cf texts.tar FOLDER: each is a document in there, too) and name those",
                   text_count(sources->count), text_count(bytes), text_count(MANIFEST_SOURCES_MAX), text_count(MANIFEST_SOURCES_BYTES_MAX));
}

/* ---- Are the numbers consistent? ---- */

static bool is_separate(const struct manifest *manifest) { return strcmp(manifest->packing, "concat") != 0; }

struct split_sums {
    uint64_t tokens, documents;
};

static int check_shard(struct split_sums *sums, const struct manifest *manifest, size_t i) {
    const struct shard_entry *shard = &manifest->shard[i];
    bool validation = i >= manifest->train_shards, last = i + 1 == manifest->train_shards || i + 1 == manifest->shards;
    char name[48];
    shard_name(name, validation, (uint32_t)(validation ? i - manifest->train_shards : i));
    if (strcmp(name, shard->name) != 0) return err_set(ERR_CORRUPT, "shard %zu is named \"%s\", not \"%s\"", i, shard->name, name);
    bool full = shard->tokens == manifest->shard_tokens, short_last = last && shard->tokens > 0 && shard->tokens < manifest->shard_tokens;
    bool whole = !is_separate(manifest) || shard->tokens % manifest->sequence_length == 0;
    if ((!full && !short_last) || !whole) return err_set(ERR_CORRUPT, "%s: %" PRIu64 " tokens are not possible", name, shard->tokens);
    if (shard->documents > shard->tokens || shard->file_bytes == 0)
        return err_set(ERR_CORRUPT, "%s: %" PRIu64 " documents in %" PRIu64 " bytes", name, shard->documents, shard->file_bytes);
    if (__builtin_add_overflow(sums->tokens, shard->tokens, &sums->tokens)) return err_set(ERR_CORRUPT, "%s: too many tokens", name);
    sums->documents += shard->documents; /* at most as many as tokens */
    return 0;
}

static int check_sum(const char *what, uint64_t says, uint64_t sum) {
    if (says == sum) return 0;
    return err_set(ERR_CORRUPT, "%" PRIu64 " %s where its parts make %" PRIu64, says, what, sum);
}

static int check_sums(const struct manifest *manifest, struct split_sums train, struct split_sums validation) {
    uint64_t tokens;
    if (__builtin_add_overflow(train.tokens, validation.tokens, &tokens)) return err_set(ERR_CORRUPT, "too many tokens");
    TRY(check_sum("tokens", manifest->tokens, tokens));
    TRY(check_sum("training tokens", manifest->train_tokens, train.tokens));
    TRY(check_sum("documents", manifest->documents, train.documents + validation.documents));
    TRY(check_sum("training documents", manifest->train_documents, train.documents));
    bool separate = is_separate(manifest);
    uint64_t train_sequences = sequences_in(train.tokens, manifest->sequence_length, separate);
    TRY(check_sum("training sequences", manifest->train_sequences, train_sequences));
    uint64_t all = train_sequences + sequences_in(validation.tokens, manifest->sequence_length, separate);
    return check_sum("sequences", manifest->sequences, all);
}

/* Checks all of it; sets what follows from the rest. */
static int manifest_check(struct manifest *manifest) {
    if (manifest->token_bytes != 2 && manifest->token_bytes != 4) return err_set(ERR_CORRUPT, "tokens of %u bytes", manifest->token_bytes);
    if (manifest->token_bytes == 2 && manifest->eos > UINT16_MAX) return err_set(ERR_CORRUPT, "end-of-text token %u", manifest->eos);
    if (!manifest->packing ||
        (is_separate(manifest) && strcmp(manifest->packing, "pad") != 0 && strcmp(manifest->packing, "best_fit") != 0))
        return err_set(ERR_CORRUPT, "packing \"%s\" is not known", manifest->packing ? manifest->packing : "");
    if (manifest->sequence_length == 0 || manifest->sequence_length > manifest->frame_tokens ||
        manifest->frame_tokens > SHARD_FRAME_TOKENS_MAX || manifest->frame_tokens % manifest->sequence_length != 0 ||
        manifest->shard_tokens == 0 || manifest->shard_tokens % manifest->frame_tokens != 0)
        return err_set(ERR_CORRUPT, "sequences of %" PRIu64 " tokens, frames of %" PRIu64 " and shards of %" PRIu64 " do not fit together",
                       manifest->sequence_length, manifest->frame_tokens, manifest->shard_tokens);
    if (manifest->train_shards > manifest->shards || manifest->shards > UINT32_MAX)
        return err_set(ERR_CORRUPT, "%zu training shards of %zu", manifest->train_shards, manifest->shards);
    struct split_sums sums[2] = {{0}, {0}};
    for (size_t i = 0; i < manifest->shards; i++) TRY(check_shard(&sums[i >= manifest->train_shards], manifest, i));
    TRY(check_sums(manifest, sums[0], sums[1]));
    uint64_t begun = 0;
    for (size_t i = 0; i < manifest->shards; i++) {
        manifest->shard[i].first_document = begun;
        begun += manifest->shard[i].documents;
    }
    return 0;
}

/* ---- Writing ---- */

/* Entries for the message, which point into the manifest. */
static void fill_shards(Millrace__ManifestShard *entry, Millrace__ManifestShard **pointer, const struct manifest *manifest) {
    for (size_t i = 0; i < manifest->shards; i++) {
        struct shard_entry *shard = &manifest->shard[i];
        millrace__manifest_shard__init(&entry[i]);
        entry[i].name = shard->name;
        entry[i].tokens = shard->tokens;
        entry[i].documents = shard->documents;
        entry[i].file_bytes = shard->file_bytes;
        entry[i].file_digest = (ProtobufCBinaryData){SHA256_BYTES, shard->file_digest};
        if (shard->has_index_digest) entry[i].index_digest = (ProtobufCBinaryData){XXH128_BYTES, shard->index_digest};
        pointer[i] = &entry[i];
    }
}

static int seal_manifest(struct buf *out, const struct manifest *manifest) {
    Millrace__ManifestShard *entry = mem_alloc(manifest->shards * sizeof *entry), **pointer = mem_alloc(manifest->shards * sizeof *pointer);
    fill_shards(entry, pointer, manifest);
    Millrace__Manifest message = MILLRACE__MANIFEST__INIT;
    message.token_bytes = manifest->token_bytes;
    message.sequence_length = manifest->sequence_length;
    message.frame_tokens = manifest->frame_tokens;
    message.shard_tokens = manifest->shard_tokens;
    message.documents = manifest->documents;
    message.tokens = manifest->tokens;
    message.sequences = manifest->sequences;
    message.train_documents = manifest->train_documents;
    message.train_tokens = manifest->train_tokens;
    message.train_sequences = manifest->train_sequences;
    message.empty_documents = manifest->empty_documents;
    message.replaced = manifest->replaced;
    message.digest = (ProtobufCBinaryData){SHA256_BYTES, (uint8_t *)manifest->digest};
    message.n_train = manifest->train_shards;
    message.train = pointer;
    message.n_validation = manifest->shards - manifest->train_shards;
    message.validation = pointer + manifest->train_shards;
    message.n_source = manifest->sources;
    message.source = manifest->source;
    message.eos = manifest->eos;
    message.packing = manifest->packing;
    message.document_mask = manifest->document_mask;
    if (manifest->tokenizer) {
        message.tokenizer = manifest->tokenizer;
        message.tokenizer_digest = (ProtobufCBinaryData){SHA256_BYTES, (uint8_t *)manifest->tokenizer_digest};
    }
    if (manifest->policy) message.policy = manifest->policy;
    message.n_groups = manifest->groups;
    message.groups = manifest->group;
    message.account = manifest->account;
    message.ill_formed = manifest->ill_formed;
    message.n_dropped = manifest->drops;
    message.dropped = manifest->dropped;
    message.truncated_documents = manifest->truncated_documents;
    message.truncated_tokens = manifest->truncated_tokens;
    message.padding = manifest->padding;
    int code = seal_append(out, &message.base, &manifest_seal);
    free(entry);
    free(pointer);
    return code;
}

int manifest_write(struct manifest *manifest, const char *folder) {
    char *path = mem_format("%s/%s", folder, MANIFEST_NAME);
    struct buf sealed = {0};
    int code = manifest_check(manifest);
    if (code == 0) code = seal_manifest(&sealed, manifest);
    if (code < 0) err_add(code, "%s", path);
    if (code == 0) code = file_publish(path, sealed.data, sealed.size);
    buf_free(&sealed);
    free(path);
    return code;
}

/* ---- Reading ---- */

static int take_shards(struct shard_entry *out, Millrace__ManifestShard *const *entry, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (strlen(entry[i]->name) >= sizeof out[i].name || entry[i]->file_digest.len != SHA256_BYTES)
            return err_set(ERR_CORRUPT, "shard entry %zu: name or digest of a wrong length", i);
        out[i] = (struct shard_entry){.tokens = entry[i]->tokens, .documents = entry[i]->documents, .file_bytes = entry[i]->file_bytes};
        memcpy(out[i].name, entry[i]->name, strlen(entry[i]->name) + 1);
        memcpy(out[i].file_digest, entry[i]->file_digest.data, SHA256_BYTES);
        out[i].has_index_digest = entry[i]->index_digest.len == XXH128_BYTES;
        if (out[i].has_index_digest) memcpy(out[i].index_digest, entry[i]->index_digest.data, XXH128_BYTES);
    }
    return 0;
}

static void *taken(void *pointer_of_array) {
    void *array = *(void **)pointer_of_array;
    *(void **)pointer_of_array = NULL;
    return array;
}

/* A text of its own, in the message or empty. */
static char *text_of(char **text) {
    if (!(*text)[0]) return NULL; /* protobuf-c's own empty text */
    return taken(text);
}

/* The message gives its texts, groups and drops away. On failure `out` holds what has been allocated. */
static int take_message(struct manifest *out, Millrace__Manifest *message) {
    *out = (struct manifest){
        .token_bytes = message->token_bytes,
        .sequence_length = message->sequence_length,
        .frame_tokens = message->frame_tokens,
        .shard_tokens = message->shard_tokens,
        .documents = message->documents,
        .tokens = message->tokens,
        .sequences = message->sequences,
        .train_documents = message->train_documents,
        .train_tokens = message->train_tokens,
        .train_sequences = message->train_sequences,
        .empty_documents = message->empty_documents,
        .replaced = message->replaced,
        .eos = message->eos,
        .packing = text_of(&message->packing),
        .document_mask = message->document_mask,
        .tokenizer = text_of(&message->tokenizer),
        .policy = text_of(&message->policy),
        .truncated_documents = message->truncated_documents,
        .truncated_tokens = message->truncated_tokens,
        .padding = message->padding,
        .groups = message->n_groups,
        .group = taken(&message->groups),
        .account = taken(&message->account),
        .ill_formed = taken(&message->ill_formed),
        .drops = message->n_dropped,
        .dropped = taken(&message->dropped),
        .train_shards = message->n_train,
        .shards = message->n_train + message->n_validation,
        .sources = message->n_source,
        .source = taken(&message->source),
    };
    message->n_source = message->n_groups = message->n_dropped = 0;
    if (message->tokenizer_digest.len == SHA256_BYTES) memcpy(out->tokenizer_digest, message->tokenizer_digest.data, SHA256_BYTES);
    else if (out->tokenizer) return err_set(ERR_CORRUPT, "digest of the tokenizer of %zu bytes", message->tokenizer_digest.len);
    if (message->digest.len != SHA256_BYTES) return err_set(ERR_CORRUPT, "digest of %zu bytes", message->digest.len);
    memcpy(out->digest, message->digest.data, SHA256_BYTES);
    TRY(mem_try(&out->shard, out->shards, sizeof *out->shard));
    TRY(take_shards(out->shard, message->train, message->n_train));
    TRY(take_shards(out->shard + message->n_train, message->validation, message->n_validation));
    return manifest_check(out);
}

static int parse_manifest(struct manifest *out, const struct buf *bytes) {
    if (bytes->size < SEAL_BYTES) return err_set(ERR_CORRUPT, "%zu bytes are too short for a manifest", bytes->size);
    struct seal seal;
    TRY(seal_read(&seal, bytes->data + bytes->size - SEAL_BYTES, &manifest_seal));
    if (seal.size_bytes != bytes->size - SEAL_BYTES)
        return err_set(ERR_CORRUPT, "a manifest of %zu bytes in a file of %zu", seal.size_bytes, bytes->size);
    ProtobufCMessage *message;
    TRY(seal_unpack(&message, &seal, bytes->data, &manifest_seal));
    struct manifest manifest;
    int code = take_message(&manifest, (Millrace__Manifest *)message);
    protobuf_c_message_free_unpacked(message, NULL);
    if (code < 0) manifest_free(&manifest);
    else *out = manifest;
    return code;
}

int manifest_remove(const char *folder) {
    char *path = mem_format("%s/%s", folder, MANIFEST_NAME);
    int code = unlink(path) == 0 || errno == ENOENT ? 0 : err_errno("%s", path);
    free(path);
    return code;
}

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

int manifest_read(struct manifest *out, const char *folder) {
    char *path = mem_format("%s/%s", folder, MANIFEST_NAME);
    struct buf bytes = {0};
    int code = file_read(&bytes, path, MANIFEST_BYTES_MAX + SEAL_BYTES);
    if (code == ERR_NOTFOUND) err_set(code, "%s is not there: not a dataset folder, or a dataset that was never finished", path);
    else if (code == ERR_DENIED && is_file(folder))
        err_set(code, "%s is a file, and no folder of a dataset; of a file of token ids 'millrace dataset import' makes one", folder);
    else if (code == ERR_LIMIT) code = err_add(ERR_CORRUPT, "not a manifest"); /* the text has path and limit */
    else if (code == 0 && (code = parse_manifest(out, &bytes)) < 0) err_add(code, "%s", path);
    buf_free(&bytes);
    free(path);
    return code;
}

void manifest_free(struct manifest *manifest) {
    for (size_t i = 0; i < manifest->sources; i++) free(manifest->source[i]);
    free(manifest->source);
    for (size_t i = 0; i < manifest->groups; i++) millrace__manifest_group__free_unpacked(manifest->group[i], NULL);
    free(manifest->group);
    if (manifest->account) millrace__account__free_unpacked(manifest->account, NULL);
    if (manifest->ill_formed) millrace__ill_formed__free_unpacked(manifest->ill_formed, NULL);
    for (size_t i = 0; i < manifest->drops; i++) millrace__dropped__free_unpacked(manifest->dropped[i], NULL);
    free(manifest->dropped);
    free(manifest->packing);
    free(manifest->tokenizer);
    free(manifest->policy);
    free(manifest->shard);
    *manifest = (struct manifest){0};
}

/* ---- Using ---- */

int manifest_find_document(const struct manifest *manifest, size_t *out_shard, uint64_t document) {
    if (document >= manifest->documents)
        return err_set(ERR_NOTFOUND, "there is no document %" PRIu64 ": the dataset has %" PRIu64 ", counted from 0", document,
                       manifest->documents);
    size_t low = 0, high = manifest->shards; /* shard[low].first_document <= document < shard[high].first_document */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (manifest->shard[middle].first_document <= document) low = middle;
        else high = middle;
    }
    *out_shard = low;
    return 0;
}

/* Another whole shard under this name is found, too. */
static int compare_shard(const struct shard_entry *entry, const struct shard *shard, const char *path) {
    uint64_t tokens = shard_tokens(shard);
    if (tokens != entry->tokens)
        return err_set(ERR_CORRUPT, "%s holds %" PRIu64 " tokens where %" PRIu64 " are on record", path, tokens, entry->tokens);
    if (entry->has_index_digest && memcmp(shard_index_digest(shard), entry->index_digest, XXH128_BYTES) != 0)
        return err_set(ERR_CORRUPT, "%s is whole, and is not the shard that the manifest names", path);
    return 0;
}

int shard_entry_check_size(const struct shard_entry *entry, const char *path) {
    uint64_t size;
    TRY(file_size(&size, path));
    if (size == entry->file_bytes) return 0;
    return err_set(ERR_CORRUPT, "shard %s: %" PRIu64 " bytes, but the manifest says %" PRIu64, path, size, entry->file_bytes);
}

static int open_shard(struct shard **out, const struct shard_entry *entry, const char *path) {
    struct shard *shard;
    TRY(shard_open(&shard, path)); /* says best what is wrong with the file */
    int code = compare_shard(entry, shard, path);
    if (code < 0) shard_close(shard);
    else *out = shard;
    return code;
}

int manifest_open_shard(struct shard **out, const struct manifest *manifest, const char *folder, size_t number) {
    CHECK(number < manifest->shards);
    char *path = mem_format("%s/%s", folder, manifest->shard[number].name);
    int code = shard_entry_check_size(&manifest->shard[number], path); /* or it is of another dataset, put there since */
    if (code == 0) code = open_shard(out, &manifest->shard[number], path);
    free(path);
    return code;
}

int shard_entry_verify(const struct shard_entry *entry, uint8_t out_index[XXH128_BYTES], const char *path, struct sha256 *sha) {
    uint8_t digest[SHA256_BYTES];
    struct shard *shard;
    TRY(sha256_of_file(digest, path));
    TRY(open_shard(&shard, entry, path));
    memcpy(out_index, shard_index_digest(shard), XXH128_BYTES);
    int code = shard_verify(shard, sha);
    if (code == 0 && memcmp(digest, entry->file_digest, SHA256_BYTES) != 0)
        code = err_set(ERR_CORRUPT, "%s: the file's digest differs from the one on record", path);
    shard_close(shard);
    return code;
}

int manifest_verify_shard(const struct manifest *manifest, const char *folder, size_t number, struct sha256 *sha) {
    CHECK(number < manifest->shards);
    char *path = mem_format("%s/%s", folder, manifest->shard[number].name);
    uint8_t index[XXH128_BYTES];
    int code = shard_entry_verify(&manifest->shard[number], index, path, sha);
    free(path);
    return code;
}

Millrace__Geometry manifest_geometry(const struct manifest *manifest, bool validation) {
    Millrace__Geometry geometry = MILLRACE__GEOMETRY__INIT;
    geometry.split = validation ? (char *)"validation" : (char *)"train";
    geometry.tokens = validation ? manifest->tokens - manifest->train_tokens : manifest->train_tokens;
    geometry.shard_tokens = manifest->shard_tokens;
    geometry.frame_tokens = manifest->frame_tokens;
    geometry.token_bytes = manifest->token_bytes;
    geometry.sequence_length = (uint32_t)manifest->sequence_length;
    geometry.separate = is_separate(manifest);
    geometry.eos = manifest->eos;
    return geometry;
}
