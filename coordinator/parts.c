/* Every part, in the order in which they include each other, and back. */
#include "coordinator/parts.h"

#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/dispatch.h"
#include "coordinator/doubts.h"
#include "coordinator/download.h"
#include "coordinator/evaluating.h"
#include "coordinator/metrics.h"
#include "coordinator/packing.h"
#include "coordinator/repair.h"
#include "coordinator/roster.h"
#include "coordinator/runs.h"
#include "coordinator/saving.h"
#include "coordinator/self_tests.h"
#include "coordinator/serve.h"
#include "coordinator/sourcing.h"
#include "coordinator/stages.h"
#include "coordinator/status.h"
#include "coordinator/training.h"
#include "coordinator/waiting.h"

void parts_open(struct context *c) {
    roster_open(c);
    self_tests_open(c);
    download_open(c);
    dispatch_open(c);
    evaluating_open(c);
    sourcing_open(c);
    runs_open(c);
    dataset_open(c);
    packing_open(c);
    repair_open(c);
    doubts_open(c);
    metrics_open(c);
    saving_open(c);
    training_open(c);
    serve_open(c);
    stages_open(c);
    waiting_open(c);
    status_open(c);
}

void parts_close(struct context *c) {
    status_close(c);
    waiting_close(c);
    stages_close(c);
    serve_close(c);
    training_close(c);
    saving_close(c);
    metrics_close(c);
    doubts_close(c);
    repair_close(c);
    packing_close(c);
    dataset_close(c);
    runs_close(c);
    sourcing_close(c);
    evaluating_close(c);
    dispatch_close(c);
    download_close(c);
    self_tests_close(c);
    roster_close(c);
}
