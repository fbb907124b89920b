/* `millrace dataset verify`: compares every byte of a dataset with its digests. Goes on after a broken shard, so that all of them are
 * listed. */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/plain.h"
#include "cli/dataset_commands.h"
#include "cli/follow.h"
#include "cli/output.h"

/* What was found: a line or a JSON entry for each broken shard. */
struct findings {
    json_t *list; /* NULL: lines on standard output */
    size_t broken, closed; /* closed: nothing is known of them, for they may not be read */
    const char *first, *first_closed;
};

static void note(struct findings *findings, const char *shard, int code, const char *fault) {
    bool closed = code == ERR_DENIED;
    if (closed && findings->closed++ == 0) findings->first_closed = shard;
    if (!closed && findings->broken++ == 0) findings->first = shard;
    if (!findings->list) {
        printf("%s: %s: %s\n", shard, closed ? "may not be read" : "broken", fault);
        return;
    }
    json_t *entry = json_object();
    json_object_set_new(entry, "shard", json_string(shard));
    json_object_set_new(entry, "error", output_json_text(fault, strlen(fault)));
    json_array_append_new(findings->list, entry);
}

/* The fault of a dataset as a whole, shard by shard. */
static int verify_all(struct findings *findings, const struct opened *opened) {
    const struct manifest *m = &opened->manifest;
    struct sha256 *sha = sha256_open();
    uint8_t digest[SHA256_BYTES];
    for (size_t i = 0; i < m->shards && output_alive(); i++) {
        int code = manifest_verify_shard(m, opened->folder, i, sha);
        if (code < 0) note(findings, m->shard[i].name, code, err_text());
    }
    sha256_finish(sha, digest);
    sha256_close(sha);
    if (findings->broken)
        return err_set(ERR_CORRUPT,
                       "%s: %zu of %zu shard%s broken, %s the first; 'millrace dataset build FILE --verify', FILE being the pipeline.yaml "
                       "that made it, makes them again",
                       opened->folder, findings->broken, m->shards, plural(m->shards), findings->first);
    if (findings->closed)
        return err_set(ERR_DENIED, "%s: %zu of %zu shard%s may not be read, %s the first; give this user the permission to read them",
                       opened->folder, findings->closed, m->shards, plural(m->shards), findings->first_closed);
    if (memcmp(digest, m->digest, SHA256_BYTES) != 0)
        return err_set(ERR_CORRUPT, "%s: broken: the tokens' digest differs from the manifest's, though each shard is whole",
                       opened->folder);
    return 0;
}

static json_t *report_json(const struct opened *opened, json_t *list, int code) {
    json_t *object = json_object();
    json_object_set_new(object, "ok", json_boolean(code == 0));
    if (code < 0) json_object_set_new(object, "error", output_json_text(err_text(), strlen(err_text())));
    json_set_count(object, "shards", opened->manifest.shards);
    json_object_set_new(object, "broken", list);
    json_set_digest(object, "digest", opened->manifest.digest);
    return object;
}

int cmd_dataset_verify(int argc, char **argv) {
    bool json = false;
    const struct option_spec options[] = {OPTION_JSON(&json), {0}};
    static const struct usage usage = {
        "dataset verify",
        "DIR [OPTIONS]",
        "Reads every byte of a dataset: digests of files, of frames, and of all tokens. Names every broken shard.\n"
        "'millrace dataset build FILE --verify' makes them again.",
        "millrace dataset verify runs/example",
        1,
        1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    struct opened opened;
    TRY(opened_open(&opened, arguments[0]));
    struct findings findings = {.list = json ? json_array() : NULL};
    code = verify_all(&findings, &opened);
    char digest[SHA256_HEX];
    hex_of(digest, opened.manifest.digest, SHA256_BYTES);
    if (json) output_json(report_json(&opened, findings.list, code));
    else if (code == 0)
        printf("ok: %s shard%s, %s token%s, digest %s\n", text_count(opened.manifest.shards), plural(opened.manifest.shards),
               text_count(opened.manifest.tokens), plural(opened.manifest.tokens), digest);
    opened_close(&opened);
    return code;
}
