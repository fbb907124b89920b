/* The first few faults by place, as texts. Insertion keeps them in order; what falls off the end is only counted. */
#include "base/faults.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

static size_t kept(const struct faults *faults) { return faults->count < FAULTS_SHOWN_MAX ? faults->count : FAULTS_SHOWN_MAX; }

int faults_note(struct faults *faults, int code, int64_t place) {
    if (code != ERR_CONFIG) return code;
    size_t count = kept(faults), at = count;
    faults->count++;
    while (at > 0 && faults->first[at - 1].place > place) at--;
    if (at == FAULTS_SHOWN_MAX) return 0;
    if (count == FAULTS_SHOWN_MAX) free(faults->first[--count].text);
    memmove(&faults->first[at + 1], &faults->first[at], (count - at) * sizeof *faults->first);
    faults->first[at].place = place;
    faults->first[at].text = mem_text(err_text());
    return 0;
}

int faults_tell(const struct faults *faults) {
    struct buf text = {0};
    size_t shown = 0;
    int code = 0;
    for (; code == 0 && shown < kept(faults); shown++) {
        const char *one = faults->first[shown].text;
        if (shown > 0 && text.size + strlen(one) >= FAULTS_BYTES_MAX) break;
        code = buf_print(&text, "%s%s", shown ? "\n" : "", one);
    }
    size_t more = faults->count - shown;
    if (code == 0 && more > 0) code = buf_print(&text, "\nand %zu fault%s more", more, more == 1 ? "" : "s");
    if (code == 0 && faults->count > 0) code = err_set(ERR_CONFIG, "%s", (const char *)text.data);
    buf_free(&text);
    return code;
}

void faults_free(struct faults *faults) {
    for (size_t i = 0; i < kept(faults); i++) free(faults->first[i].text);
    *faults = (struct faults){0};
}
