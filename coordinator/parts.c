/* Opens and closes what each part of the coordinator keeps for itself, in the order in which they know each other. */
#include "coordinator/internal.h"

void parts_open(struct context *c) {
    roster_open(c);
    answers_open(c);
    download_open(c);
    dispatch_open(c);
    evaluating_open(c);
    sourcing_open(c);
    runs_open(c);
    packing_open(c);
    mending_open(c);
    metrics_open(c);
    saving_open(c);
    serve_open(c);
    waiting_open(c);
    status_open(c);
}

void parts_close(struct context *c) {
    status_close(c);
    waiting_close(c);
    serve_close(c);
    saving_close(c);
    metrics_close(c);
    mending_close(c);
    packing_close(c);
    runs_close(c);
    sourcing_close(c);
    evaluating_close(c);
    dispatch_close(c);
    download_close(c);
    answers_close(c);
    roster_close(c);
}
