/* Compares the dataset that was made with what was asked for, and words a warning for each difference that a person would want to know. */
#include "dataset/plan/advice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/plain.h"
#include "dataset/unicode/doubtful.h"

/* ---- weights ---- */

static bool is_mixed(const Millrace__ManifestGroup *group) { return group->weight > 0 && strcmp(group->split, "validation") != 0; }

/* Documents are whole, so a share that is a little off is as good as it gets; half of it is another mixture. */
static bool is_far(double share, double wanted) { return fabs(share - wanted) > wanted / 2; }

static int advise_weights(struct buf *out, const struct manifest *m, bool first_exhausted) {
    double weights = 0, tokens = 0;
    bool far = false;
    for (size_t g = 0; g < m->groups; g++)
        if (is_mixed(m->group[g])) weights += m->group[g]->weight, tokens += (double)m->group[g]->train_tokens;
    for (size_t g = 0; g < m->groups; g++) {
        const Millrace__ManifestGroup *group = m->group[g];
        if (!is_mixed(group) || !is_far((double)group->train_tokens / tokens, group->weight / weights)) continue;
        TRY(buf_print(out, "%s%s has %s of the training tokens, and by its weight should have %s", far ? "; " : "", group->name,
                      percent_text((double)group->train_tokens, tokens), percent_text(group->weight, weights)));
        far = true;
    }
    if (!far) return 0;
    if (!first_exhausted)
        return buf_print(out, ": documents are whole, and few; smaller documents come closer to the weights\n");
    return buf_print(out, ": documents are whole, and mixing ends with the first entry that is used up; dataset.stopping_strategy: "
                          "all_exhausted goes on until each was used up, and smaller documents come closer to the weights\n");
}

/* ---- entries ---- */

static int advise_nothing(struct buf *out, const struct manifest *m) {
    for (size_t g = 0; g < m->groups; g++) {
        const Millrace__ManifestGroup *group = m->group[g];
        if (group->train_documents || group->validation_documents || is_mixed(group)) continue;
        TRY(buf_print(out,
                      "%s gave no document: its text is empty, was left out, or lies in members of archives that `members` does not "
                      "name\n",
                      group->name));
    }
    return 0;
}

/* ---- validation ---- */

static bool is_chosen(const struct manifest *m) {
    for (size_t g = 0; g < m->groups; g++)
        if (strcmp(m->group[g]->split, "validation") == 0) return true; /* as it was asked for */
    return false;
}

/* The part of the tokens that is held out may be far from dataset.validation_fraction where documents are few: each goes to one split. */
static int advise_held_out(struct buf *out, const struct manifest *m, double wanted) {
    enum { TIMES = 2 };
    const double slack = 0.02;
    double share = m->tokens ? 1 - (double)m->train_tokens / (double)m->tokens : 0;
    if (share <= TIMES * wanted || share <= wanted + slack) return 0;
    return buf_print(out,
                     "%s of the tokens are held out for validation, though dataset.validation_fraction is %s: documents are few, and "
                     "each belongs to one part whole\n",
                     percent_text(share, 1), percent_text(wanted, 1));
}

static int advise_none(struct buf *out, const struct manifest *m, double wanted) {
    unsigned long long documents = m->documents;
    if (!(wanted > 0) || m->tokens == 0) return 0;
    return buf_print(out,
                     "no document is held out for validation, though dataset.validation_fraction is %s: the training text has %llu "
                     "document%s, and each belongs to one part whole; so there is no validation loss; more and smaller documents, or an "
                     "entry with split: validation mends that\n",
                     percent_text(wanted, 1), documents, plural(documents));
}

/* What is not measured there: a large entry that is told by nothing. */
static int advise_missing(struct buf *out, const struct manifest *m, double wanted) {
    const double large = 0.1;
    bool missing = false;
    if (m->tokens == m->train_tokens) return advise_none(out, m, wanted);
    for (size_t g = 0; g < m->groups; g++) {
        const Millrace__ManifestGroup *group = m->group[g];
        if (group->split[0] || group->validation_documents > 0 || (double)group->train_tokens <= large * (double)m->tokens) continue;
        TRY(buf_print(out, "%s%s (%s of the tokens)", missing ? ", " : "the validation split has no document of ", group->name,
                      percent_text((double)group->train_tokens, (double)m->tokens)));
        missing = true;
    }
    if (!missing) return 0;
    return buf_print(out, ": its loss says nothing about that text; a larger dataset.validation_fraction, more and smaller documents, or "
                          "an entry with split: validation mends that\n");
}

/* ---- all of it ---- */

static int advise_encoding(struct buf *out, const Millrace__IllFormed *found) {
    if (!found) return 0;
    char *words = utf8_doubtful_words(found->first, found->sequences, found->bytes, found->files - 1);
    int code = buf_print(out, "%s\n", words);
    free(words);
    return code;
}

int dataset_advice(struct buf *out, const struct manifest *m, const struct config *config) {
    TRY(advise_weights(out, m, config->dataset.stopping_strategy == STOPPING_FIRST_EXHAUSTED));
    TRY(advise_nothing(out, m));
    if (!is_chosen(m)) {
        TRY(advise_held_out(out, m, config->dataset.validation_fraction));
        TRY(advise_missing(out, m, config->dataset.validation_fraction));
    }
    return advise_encoding(out, m->ill_formed);
}
