/* Several faults of one thing, told together and in the order of their places, so that a person can put all of them right at once. An
 * all-zero struct is empty; faults_free() ends it. */
#ifndef MILLRACE_BASE_FAULTS_H
#define MILLRACE_BASE_FAULTS_H

#include <stddef.h>
#include <stdint.h>

enum {
    FAULTS_SHOWN_MAX = 10,   /* of one thing, */
    FAULTS_BYTES_MAX = 3500, /* and of their text: a screen, and what err_set() keeps */
};

struct faults {
    struct {
        int64_t place;
        char *text;
    } first[FAULTS_SHOWN_MAX]; /* by place, then as they came */
    size_t count;              /* of all that were found */
};

/* An ERR_CONFIG is kept with its text, and 0 returned: whoever looks goes on. Other codes are returned. */
int faults_note(struct faults *faults, int code, int64_t place);

/* ERR_CONFIG with the text of all, a line for each; 0: there are none. */
int faults_tell(const struct faults *faults);

void faults_free(struct faults *faults);

#endif
