/* The tokens of a document. Its first token is found by two binary searches, in the manifest and in a shard's index; the rest follow from
 * there, also in the next shards. With best_fit what is left after the last whole sequence may be anywhere in the split. */
#include <string.h>

#include "base/err.h"
#include "cli/dataset_commands.h"

struct walk {
    const struct opened *opened;
    uint64_t document, token; /* token: the next one of the document */
    bool validation, ended;
    int (*each)(void *arg, bool validation, uint64_t first, uint64_t count);
    void *arg;
};

/* The entries from i on that go on with the document. *out_more: the last one of the shard was among them. */
static int take_entries(struct walk *walk, bool *out_more, const struct shard *shard, size_t number, size_t i) {
    uint64_t base = number * walk->opened->manifest.shard_tokens;
    size_t count = shard_documents(shard), from = i;
    for (; i < count && !walk->ended; i++) {
        struct shard_document entry = shard_document(shard, i);
        if (entry.document != walk->document || entry.document_token != walk->token) break;
        TRY(walk->each(walk->arg, walk->validation, base + entry.first, entry.tokens));
        walk->token += entry.tokens, walk->ended = entry.ends;
    }
    *out_more = i > from && i == count && !walk->ended;
    return 0;
}

static size_t shards_of(const struct walk *walk) { return split_counts(&walk->opened->manifest, walk->validation).shards; }

static int take_shards_behind(struct walk *walk, size_t number, bool more) {
    while (more && ++number < shards_of(walk)) {
        struct shard *shard;
        TRY(opened_shard(&shard, walk->opened, walk->validation, number));
        int code = take_entries(walk, &more, shard, number, 0);
        shard_close(shard);
        TRY(code);
    }
    return 0;
}

static int take_rest(struct walk *walk) {
    bool more;
    for (size_t number = 0; number < shards_of(walk) && !walk->ended; number++) {
        struct shard *shard;
        TRY(opened_shard(&shard, walk->opened, walk->validation, number));
        int code = 0;
        for (size_t i = 0; i < shard_documents(shard) && !walk->ended && code == 0; i++)
            if (shard_document(shard, i).document == walk->document) code = take_entries(walk, &more, shard, number, i);
        shard_close(shard);
        TRY(code);
    }
    return 0;
}

/* The shard in which a document begins, open; its number in its split; and the entry. */
static int find_begin(struct shard **out, bool *out_validation, size_t *out_number, size_t *out_entry, const struct opened *opened,
                      uint64_t document) {
    const struct manifest *m = &opened->manifest;
    size_t number;
    TRY(manifest_find_document(m, &number, document));
    *out_validation = number >= m->train_shards;
    *out_number = number - (*out_validation ? m->train_shards : 0);
    TRY(opened_shard(out, opened, *out_validation, *out_number));
    int code = shard_find_document(*out, out_entry, document);
    if (code < 0) shard_close(*out);
    return code;
}

int opened_document(const struct opened *opened, uint64_t document, int (*each)(void *arg, bool validation, uint64_t first, uint64_t count),
                    void *arg) {
    struct walk walk = {.opened = opened, .document = document, .each = each, .arg = arg};
    struct shard *shard;
    size_t number, entry;
    bool more;
    TRY(find_begin(&shard, &walk.validation, &number, &entry, opened, document));
    int code = take_entries(&walk, &more, shard, number, entry);
    shard_close(shard);
    if (code == 0) code = take_shards_behind(&walk, number, more);
    if (code == 0 && !walk.ended && strcmp(opened->manifest.packing, "best_fit") == 0) code = take_rest(&walk);
    return code;
}

int opened_document_begin(const struct opened *opened, uint64_t *out_first, uint64_t document) {
    struct shard *shard;
    size_t number, entry;
    bool validation;
    TRY(find_begin(&shard, &validation, &number, &entry, opened, document));
    *out_first = number * opened->manifest.shard_tokens + shard_document(shard, entry).first;
    shard_close(shard);
    return 0;
}
