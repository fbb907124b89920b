/* Cross-entropy over a large vocabulary. A chunk's logits lie in panels of columns; a panel's owner makes them, and turns them to exp(logit
 * - its own maximum) while they are in cache. The panels' maxima and sums then give each row's factor, the second pass scales to
 * probabilities and multiplies on. What each panel adds to dh goes to a buffer of its own; these are summed in panel order. */
#include "model/crossentropy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/fmath.h"
#include "model/kernels.h"
#include "model/matmul.h"

enum {
    HEAD_ROWS = 256,  /* with 50257 tokens 51 MB of logits; fewer rows mean packing wte more often */
    HEAD_PANELS = 48, /* about 1050 columns: a MB a panel, near a second-level cache */
    PANEL_MIN = 64,
    ROW_ITEM = 16,
};

struct head {
    int C, V, width, panels;
    float *logits;    /* (panels, HEAD_ROWS, width) */
    float *max, *sum; /* (panels, HEAD_ROWS): of each row within a panel; then max becomes the row's factor within the panel */
    float *dh;        /* (panels, HEAD_ROWS, C) */
    double *total;    /* (panels, HEAD_ROWS): of each row's logits within a panel, with label smoothing */
    float target_logit[HEAD_ROWS];
    double loss[HEAD_ROWS];
    struct head_task task; /* of the chunk at hand */
};

int head_open(struct head **out, int C, int V, bool training) {
    struct head *head = mem_alloc(sizeof *head);
    int width = (V + HEAD_PANELS - 1) / HEAD_PANELS;
    head->C = C, head->V = V, head->width = ((width < PANEL_MIN ? PANEL_MIN : width) + 15) / 16 * 16;
    head->panels = (V + head->width - 1) / head->width;
    size_t rows = (size_t)head->panels * HEAD_ROWS;
    int code = mem_try(&head->logits, rows * (size_t)head->width, sizeof(float));
    if (code == 0) code = mem_try(&head->max, rows, sizeof(float));
    if (code == 0) code = mem_try(&head->sum, rows, sizeof(float));
    if (code == 0 && training) code = mem_try(&head->dh, rows * (size_t)C, sizeof(float));
    if (code == 0) code = mem_try(&head->total, rows, sizeof(double));
    if (code < 0) {
        head_close(head);
        return code;
    }
    *out = head;
    return 0;
}

void head_close(struct head *head) {
    if (!head) return;
    free(head->logits);
    free(head->max);
    free(head->sum);
    free(head->dh);
    free(head->total);
    free(head);
}

static int panel_columns(const struct head *head, int column) { return head->V - column < head->width ? head->V - column : head->width; }

/* In eight lanes, so that it is one sum on every machine and quick. */
static double sum_of(const float *x, int count) {
    double lane[8] = {0};
    int i = 0;
    for (; i + 8 <= count; i += 8)
        for (int j = 0; j < 8; j++) lane[j] += (double)x[i + j];
    for (int j = 0; i < count; i++, j++) lane[j] += (double)x[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static void logits_work(void *arg, size_t panel) {
    struct head *head = arg;
    const struct head_task *task = &head->task;
    int C = head->C, column = (int)panel * head->width, columns = panel_columns(head, column);
    float *logits = head->logits + panel * HEAD_ROWS * (size_t)head->width;
    matmul_panel(logits, columns, task->h, C, false, task->wte + (size_t)column * (size_t)C, C, true, task->rows, columns, C, 1.0f, 0.0f);
    for (int row = 0; row < task->rows; row++) {
        float *line = logits + (size_t)row * (size_t)columns;
        int target = task->targets[row] - column;
        if (target >= 0 && target < columns) head->target_logit[row] = line[target];
        if (task->label_smoothing > 0) head->total[panel * HEAD_ROWS + (size_t)row] = sum_of(line, columns);
        softmax_exp(line, columns, &head->max[panel * HEAD_ROWS + (size_t)row], &head->sum[panel * HEAD_ROWS + (size_t)row]);
    }
}

/* What label smoothing and the z-loss add to a row's loss; log_z: ln of the sum of exp(logits). */
static double extra_loss(const struct head *head, int row, double log_z) {
    double smoothing = head->task.label_smoothing, logits = 0.0;
    for (int p = 0; smoothing > 0 && p < head->panels; p++) logits += head->total[p * HEAD_ROWS + row];
    return smoothing * ((double)head->target_logit[row] - logits / head->V) + head->task.z_loss * log_z * log_z;
}

/* A row's loss, and what each of its panels must be scaled with: exp(panel's maximum - row's maximum) / sum, and with a z-loss its slope
 * along p on top. */
static void row_finish(struct head *head, int row) {
    float *max = head->max + row, *sum = head->sum + row, top = -INFINITY;
    double total = 0.0;
    for (int p = 0; p < head->panels; p++) top = max[p * HEAD_ROWS] > top ? max[p * HEAD_ROWS] : top;
    for (int p = 0; p < head->panels; p++) total += (double)sum[p * HEAD_ROWS] * fmath_exp((double)max[p * HEAD_ROWS] - (double)top);
    bool counted = head->task.targets[row] >= 0;
    double log_z = (double)top + fmath_log(total), slope = 1.0 + 2.0 * head->task.z_loss * log_z;
    head->loss[row] = counted ? log_z - (double)head->target_logit[row] + extra_loss(head, row, log_z) : 0.0;
    for (int p = 0; p < head->panels; p++)
        max[p * HEAD_ROWS] = counted ? (float)(fmath_exp((double)max[p * HEAD_ROWS] - (double)top) / total * slope) : 0.0f;
}

static void rows_work(void *arg, size_t item) {
    struct head *head = arg;
    for (int row = (int)item * ROW_ITEM; row < head->task.rows && row < ((int)item + 1) * ROW_ITEM; row++) row_finish(head, row);
}

static void gradient_work(void *arg, size_t panel) {
    struct head *head = arg;
    const struct head_task *task = &head->task;
    int C = head->C, column = (int)panel * head->width, columns = panel_columns(head, column);
    float *dlogits = head->logits + panel * HEAD_ROWS * (size_t)head->width;
    const float apart = (float)(1.0 - task->label_smoothing), even = (float)(task->label_smoothing / head->V);
    for (int row = 0; row < task->rows; row++) {
        float *line = dlogits + (size_t)row * (size_t)columns;
        int target = task->targets[row] - column;
        vector_scale(line, head->max[panel * HEAD_ROWS + (size_t)row], (size_t)columns);
        for (int i = 0; even > 0.0f && task->targets[row] >= 0 && i < columns; i++) line[i] -= even;
        if (target >= 0 && target < columns) line[target] -= apart;
    }
    const float *w = task->wte + (size_t)column * (size_t)C;
    matmul_panel(head->dh + panel * HEAD_ROWS * (size_t)C, C, dlogits, columns, false, w, C, false, task->rows, C, columns, 1.0f, 0.0f);
    matmul_panel(task->dwte + (size_t)column * (size_t)C, C, dlogits, columns, true, task->h, C, false, columns, C, task->rows, 1.0f,
                 task->add ? 1.0f : 0.0f);
}

static void gather_work(void *arg, size_t item) {
    struct head *head = arg;
    int row = (int)item * ROW_ITEM, rows = head->task.rows - row < ROW_ITEM ? head->task.rows - row : ROW_ITEM;
    size_t first = (size_t)row * (size_t)head->C, count = (size_t)rows * (size_t)head->C;
    memcpy(head->task.dh + first, head->dh + first, count * sizeof(float));
    for (int p = 1; p < head->panels; p++)
        vector_accumulate(head->task.dh + first, head->dh + (size_t)p * HEAD_ROWS * (size_t)head->C + first, count);
}

void head_run(struct head *head, struct pool *pool, const struct head_task *task, double *loss, uint64_t *counted) {
    CHECK(!task->dh || head->dh);
    for (int first = 0; first < task->rows; first += HEAD_ROWS) {
        size_t at = (size_t)first * (size_t)head->C;
        struct head_task *chunk = &head->task;
        *chunk = *task;
        chunk->h += at, chunk->targets += first, chunk->rows = task->rows - first < HEAD_ROWS ? task->rows - first : HEAD_ROWS;
        chunk->add = task->add || first > 0;
        size_t row_items = (size_t)(chunk->rows + ROW_ITEM - 1) / ROW_ITEM;
        pool_run(pool, (size_t)head->panels, logits_work, head);
        pool_run(pool, row_items, rows_work, head);
        for (int row = 0; row < chunk->rows; row++)
            if (chunk->targets[row] >= 0) *loss += head->loss[row], ++*counted;
        if (task->dh) {
            chunk->dh += at;
            pool_run(pool, (size_t)head->panels, gradient_work, head);
            pool_run(pool, row_items, gather_work, head);
        }
        if (task->tick) task->tick(task->tick_arg);
    }
}
