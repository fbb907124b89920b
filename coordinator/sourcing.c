/* Owns the list of source files, and its record in the store: a line for each file, as listing.h has it. A name with a tab or a line feed
 * is escaped there, and a field more at the end of the line says so: all other lines are as they always were, with a backslash, too.
 * coordinator_check_inputs() is here, too: it looks for the same files before there is a store. */
#include "coordinator/sourcing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "config/config.h"
#include "config/paths.h"
#include "coordinator/context.h"
#include "coordinator/coordinator.h"
#include "coordinator/listing.h"
#include "coordinator/store.h"
#include "dataset/shard/manifest.h"
#include "dataset/source/identity.h"
#include "dataset/source/sources.h"

struct sourcing {
    struct sources sources;
};

/* Without "-", which is read later. */
static int look_for_sources(const struct config *config) {
    const struct source_groups *configured = &config->dataset.sources;
    const struct sources_own own = {config->output_dir, config->file, NULL};
    struct source_group *groups = mem_alloc((configured->count + 1) * sizeof *groups);
    struct sources found = {0};
    size_t count = 0;
    for (size_t i = 0; i < configured->count; i++) {
        bool waits = false;
        for (size_t p = 0; p < configured->item[i].paths.count; p++) waits |= strcmp(configured->item[i].paths.item[p], "-") == 0;
        if (!waits) groups[count++] = configured->item[i];
    }
    int code = sources_find(&found, groups, count, &own);
    if (code == 0) code = manifest_check_sources(&found);
    sources_free(&found);
    free(groups);
    return code;
}

static int look_for_prepared(const char *folder) {
    struct manifest manifest;
    int code = manifest_read(&manifest, folder);
    if (code < 0) return code == ERR_CORRUPT ? err_add(code, "dataset.prepared was made elsewhere; make or fetch it again") : code;
    manifest_free(&manifest);
    return 0;
}

int coordinator_check_inputs(const struct config *config, bool restart) {
    if (!restart && sources_is_run(config->output_dir)) return 0;
    return *config->dataset.prepared ? look_for_prepared(config->dataset.prepared) : look_for_sources(config);
}

int sourcing_find(struct context *c) {
    const struct source_groups *configured = &c->config->dataset.sources;
    struct source_group *groups = mem_alloc((configured->count + 1) * sizeof *groups);
    struct buf spool = {0}; /* as a pattern that matches this file alone, whatever its folders are called */
    char **spooled = NULL;
    TRY(path_absolute(&spool, "stdin", c->state_folder, true));
    for (size_t i = 0; i < configured->count; i++) {
        groups[i] = configured->item[i];
        struct text_list *paths = &groups[i].paths;
        for (size_t p = 0; p < paths->count; p++) {
            if (strcmp(paths->item[p], "-") != 0) continue;
            spooled = mem_alloc(paths->count * sizeof *spooled);
            memcpy(spooled, paths->item, paths->count * sizeof *spooled);
            spooled[p] = (char *)spool.data;
            paths->item = spooled;
        }
    }
    const struct sources_own own = {c->config->output_dir, c->config->file, spooled ? (const char *)spool.data : NULL};
    int code = sources_find(&c->sourcing->sources, groups, configured->count, &own);
    if (code == 0) code = manifest_check_sources(c->sources);
    for (size_t i = 0; code == 0 && i < c->sources->passed_count; i++) {
        const struct source_passed *passed = &c->sources->passed[i];
        note_event(c, "no-source", "%s%s: %s", passed->path, passed->others ? " and others" : "", passed->why);
    }
    free(spooled);
    buf_free(&spool);
    free(groups);
    return code;
}

const char *sourcing_name(const struct context *c, const char *path) {
    const char *folder = c->config->folder;
    size_t above = strlen(folder);
    return strncmp(path, folder, above) == 0 && path[above] == '/' ? path + above + 1 : path;
}

static const char ESCAPED[] = "\tescaped\n";

static char *escape(const char *name) {
    char *text = mem_alloc(2 * strlen(name) + 1), *to = text;
    for (; *name; name++) {
        if (strchr("\\\t\n", *name)) *to++ = '\\';
        *to++ = *name == '\t' ? 't' : *name == '\n' ? 'n' : *name;
    }
    return text;
}

static void unescape(char *name) {
    char *to = name;
    for (; *name; name++) {
        bool escaped = *name == '\\' && name[1];
        if (escaped) name++;
        *to++ = escaped && *name == 't' ? '\t' : escaped && *name == 'n' ? '\n' : *name;
    }
    *to = 0;
}

static int print_sources(const struct context *c, struct buf *out) {
    for (size_t i = 0; i < c->sourcing->sources.count; i++) {
        const struct source *source = &c->sourcing->sources.source[i];
        const char *name = sourcing_name(c, source->path);
        char *escaped = strpbrk(name, "\t\n") ? escape(name) : NULL;
        int code = buf_print(out, "%s\t%" PRIu64 "\t%" PRIu64 "%s", escaped ? escaped : name, source->size, source->version,
                             escaped ? ESCAPED : "\n");
        free(escaped);
        TRY(code);
    }
    return buf_append(out, "", 0);
}

int sourcing_compare(struct context *c, struct buf *out_listing, char **out_difference) {
    struct buf old = {0};
    int code = store_get(c->store, "sources", &old);
    bool known = code == 1 && old.size > 0;
    if (code >= 0) code = print_sources(c, out_listing);
    bool same = known && old.size == out_listing->size && memcmp(old.data, out_listing->data, old.size) == 0;
    if (code == 0 && known && !same) *out_difference = listing_difference(&old, out_listing);
    buf_free(&old);
    return code;
}

int sourcing_record(struct context *c, char **out_difference) {
    struct buf old = {0}, fresh = {0};
    int code = store_get(c->store, "sources", &old);
    bool known = code == 1 && old.size > 0;
    if (code >= 0) code = sourcing_compare(c, &fresh, out_difference);
    bool same = known && !*out_difference;
    if (code == 0 && !same) code = store_set(c->store, "sources", fresh.data, fresh.size);
    buf_free(&old);
    buf_free(&fresh);
    return code < 0 ? code : same;
}

static int recall_source(struct context *c, const char *line) {
    struct source source = {0};
    int path_bytes = (int)strcspn(line, "\t"), used = 0;
    if (sscanf(line + path_bytes, "\t%" SCNu64 "\t%" SCNu64 "%n", &source.size, &source.version, &used) != 2)
        return err_set(ERR_CORRUPT, "state database: the list of sources cannot be read");
    char *name = mem_format("%.*s", path_bytes, line);
    if (strncmp(line + path_bytes + used, ESCAPED, strlen(ESCAPED)) == 0) unescape(name);
    source.is_url = path_is_remote(name);
    source.path = *name == '/' || source.is_url ? mem_text(name) : mem_format("%s/%s", c->config->folder, name);
    free(name);
    struct stat st;
    struct file_identity now = {0};
    if (!source.is_url && stat(source.path, &st) == 0) now = identity_of(&st);
    if (now.size == source.size && identity_version(&now) == source.version) source.identity = now; /* else none: it is not that file */
    if (c->sourcing->sources.count == c->sourcing->sources.capacity) {
        c->sourcing->sources.capacity = 2 * c->sourcing->sources.capacity + 16;
        c->sourcing->sources.source = mem_resize(c->sourcing->sources.source, c->sourcing->sources.capacity * sizeof source);
    }
    c->sourcing->sources.source[c->sourcing->sources.count++] = source;
    return 0;
}

int sourcing_recall(struct context *c) {
    struct buf old = {0};
    int code = store_get(c->store, "sources", &old);
    sources_free(&c->sourcing->sources);
    c->sourcing->sources = (struct sources){0};
    for (const char *line = code == 1 && old.size ? (const char *)old.data : ""; code >= 0 && *line; line += strcspn(line, "\n") + 1)
        code = recall_source(c, line);
    buf_free(&old);
    return code < 0 ? code : 0;
}

void sourcing_open(struct context *c) {
    c->sourcing = mem_alloc(sizeof *c->sourcing);
    c->sources = &c->sourcing->sources;
}

void sourcing_close(struct context *c) {
    if (!c->sourcing) return;
    sources_free(&c->sourcing->sources);
    free(c->sourcing);
    c->sourcing = NULL;
}
