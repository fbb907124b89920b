/* Which differences between the dataset that was asked for and the one that was made are told. */
#include "dataset/plan/advice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"

/* Is that told of a dataset of 1000 tokens, of which so many are held out? */
static bool is_told(const char *what, uint64_t held_out, double wanted, Millrace__ManifestGroup *group) {
    struct manifest m = {.tokens = 1000, .train_tokens = 1000 - held_out, .documents = 20, .group = &group, .groups = group != NULL};
    struct config config = {.dataset.validation_fraction = wanted};
    struct buf said = {0};
    assert_int_equal(dataset_advice(&said, &m, &config), 0);
    bool told = said.size > 0 && strstr((const char *)said.data, what);
    buf_free(&said);
    return told;
}

/* Documents are whole, so a share that is a little off is as good as it gets. */
static void a_part_that_is_held_out_is_told_where_it_is_far_from_what_was_wanted(void **state) {
    (void)state;
    static const char what[] = "of the tokens are held out";
    assert_false(is_told(what, 50, 0.05, NULL));
    assert_false(is_told(what, 20, 0.005, NULL)); /* four times as much, and little */
    assert_false(is_told(what, 600, 0.5, NULL));  /* much more, and not twice as much */
    assert_true(is_told(what, 200, 0.05, NULL));
}

static void an_entry_without_a_validation_document_is_told_unless_it_was_asked_for(void **state) {
    (void)state;
    static const char what[] = "the validation split has no document of web";
    Millrace__ManifestGroup web = MILLRACE__MANIFEST_GROUP__INIT;
    web.name = "web", web.split = "", web.train_documents = 9, web.train_tokens = 900;
    assert_true(is_told(what, 100, 0.1, &web));
    web.train_tokens = 100; /* a tenth is not large */
    assert_false(is_told(what, 100, 0.1, &web));
    web.train_tokens = 900, web.split = "train";
    assert_false(is_told(what, 100, 0.1, &web));
    web.split = "", web.validation_documents = 1;
    assert_false(is_told(what, 100, 0.1, &web));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_that_is_held_out_is_told_where_it_is_far_from_what_was_wanted),
        cmocka_unit_test(an_entry_without_a_validation_document_is_told_unless_it_was_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
