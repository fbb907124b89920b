/* Cross-entropy over a large vocabulary. For each row of h (rows, C), with the tied embedding wte (V, C):
 *
 *     z = h wte^T                                        (rows, V)  logits
 *     Z = sum over j of exp(z[j]), p[j] = exp(z[j]) / Z  (rows, V)
 *     loss = ln Z - z[target]                            (rows)     0 where the target is below 0
 *            + a (z[target] - mean of z)                            a: label_smoothing
 *            + b (ln Z)^2                                           b: z_loss
 *     dz[j] = p[j] (1 + 2 b ln Z) - a / V - (1 - a) [j = target]    (rows, V)
 *     dh = dz wte (rows, C), dwte = dz^T h (V, C)
 *
 * Z is found group by group of columns: exp(z - m_g) and its sum s_g with the group's own maximum m_g; then with the row's maximum m
 * ln Z = m + ln(sum of s_g exp(m_g - m)), and exp(m_g - m) / (sum) turns a group's numbers to p.
 *
 * So the thread that has computed a block of logits turns them to exp(z - m_g) while they are in cache, group by group (logits_block());
 * row_finish() computes each row's factors from the groups' maxima and sums; gradient_work() scales to dz and packs it for the two products
 * that follow. head_load() comes first, once for the weights of a step; head_run() then does one chunk of rows after the other. */
#include "model/gpt2/crossentropy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/kernels/fmath.h"
#include "model/kernels/kernels.h"
#include "model/kernels/product.h"
#include "model/kernels/profile.h"

enum {
    /* Logits of a chunk and their gradient, packed twice: 208 MiB, half as much again where bfloat16 has no pairs. Fewer rows mean going
     * over dwte more often. */
    CHUNK_WORDS = 52 << 20,
    CHUNK_ROWS_MIN = 64,    /* both are part of the arithmetic */
    CHUNK_ROWS_MAX = 1024,
    GROUP = 256,       /* columns with a maximum and a sum of their own */
    BLOCK = 2 * GROUP, /* columns of a block of logits */
    ROW_ITEM = 16,
    ITEM_COLUMNS = 16 * GROUP,
    STRIP_ROWS = 16, /* with GROUP: half of a first-level cache */
};

struct head {
    int C, V, rows, groups; /* rows: of a chunk */
    bool training, bf16;
    float *wte_words, *wte_back_words;       /* packed: V columns of depth C for logits; C columns of depth V for dh */
    float *h_words, *d_words, *d_back_words; /* h and the logits' gradient, packed for the products that make logits, dh and dwte */
    float *logits;                           /* (rows, V) */
    float *max, *sum;                        /* (groups, rows): of each row within a group; then max becomes the row's factor within it */
    double *total;                           /* (groups, rows): of each row's logits within a group, with label smoothing */
    double loss[CHUNK_ROWS_MAX];
    float target_logit[CHUNK_ROWS_MAX];
    struct head_task task; /* of the chunk at hand */
};

/* A function of the vocabulary and the type alone, so that bits do not depend on how many tokens come together. */
static int chunk_rows(int V, bool bf16) {
    int words = bf16 ? 2 : 3, rows = CHUNK_WORDS / words / V / CHUNK_ROWS_MIN * CHUNK_ROWS_MIN;
    return rows < CHUNK_ROWS_MIN ? CHUNK_ROWS_MIN : rows > CHUNK_ROWS_MAX ? CHUNK_ROWS_MAX : rows;
}

static struct packed_matrix wte_of(const struct head *h) { return packed_over(h->wte_words, PACKED_RIGHT, h->V, h->C, h->bf16); }
static struct packed_matrix wte_back_of(const struct head *h) { return packed_over(h->wte_back_words, PACKED_RIGHT, h->C, h->V, h->bf16); }
static struct packed_matrix d_of(const struct head *h, int rows) { return packed_over(h->d_words, PACKED_LEFT, rows, h->V, h->bf16); }
static struct packed_matrix d_back_of(const struct head *h, int rows) {
    return packed_over(h->d_back_words, PACKED_LEFT, h->V, rows, h->bf16);
}

static struct head head_shape(int C, int V, int rows_max, bool bf16) {
    int rows = chunk_rows(V, bf16);
    return (struct head){.C = C, .V = V, .rows = rows < rows_max ? rows : rows_max, .groups = (V + GROUP - 1) / GROUP, .bf16 = bf16};
}

/* What has to last: allocated, or with `counted` only counted. */
static int place(struct head *head, bool training, size_t *counted) {
    size_t cells = (size_t)head->groups * (size_t)head->rows;
    const struct {
        void *pointer;
        size_t count, bytes;
    } piece[] = {
        {&head->wte_words, packed_words(PACKED_RIGHT, head->V, head->C, head->bf16), sizeof(float)},
        {&head->max, cells, sizeof(float)},
        {&head->sum, cells, sizeof(float)},
        {&head->total, cells, sizeof(double)},
        {&head->wte_back_words, training ? packed_words(PACKED_RIGHT, head->C, head->V, head->bf16) : 0, sizeof(float)},
    };
    for (size_t i = 0; i < sizeof piece / sizeof *piece; i++) {
        if (counted) *counted += piece[i].count * piece[i].bytes;
        else TRY(mem_try(piece[i].pointer, piece[i].count, piece[i].bytes));
    }
    return 0;
}

/* What only has to last while the head runs: laid out in `memory`, or counted. Returns floats. */
static size_t place_scratch(struct head *head, float *memory, bool training) {
    int C = head->C, V = head->V, rows = head->rows;
    size_t h = packed_words(PACKED_LEFT, rows, C, head->bf16), back = packed_words(PACKED_RIGHT, C, rows, head->bf16);
    const struct {
        float **pointer;
        size_t count;
    } piece[] = {
        {&head->h_words, h > back ? h : back},
        {&head->logits, (size_t)rows * (size_t)V},
        {&head->d_words, training ? packed_words(PACKED_LEFT, rows, V, head->bf16) : 0},
        {&head->d_back_words, training ? packed_words(PACKED_LEFT, V, rows, head->bf16) : 0},
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof piece / sizeof *piece; i++) {
        if (memory) *piece[i].pointer = memory + used;
        used += (piece[i].count + 15) / 16 * 16;
    }
    return used;
}

size_t head_bytes(int C, int V, int rows_max, bool training, bool bf16) {
    struct head head = head_shape(C, V, rows_max, bf16);
    size_t bytes = sizeof head;
    place(&head, training, &bytes);
    return bytes;
}

size_t head_scratch_floats(int C, int V, int rows_max, bool training, bool bf16) {
    struct head head = head_shape(C, V, rows_max, bf16);
    return place_scratch(&head, NULL, training);
}

int head_open(struct head **out, int C, int V, int rows_max, bool training, bool bf16, float *scratch) {
    struct head *head = mem_alloc(sizeof *head);
    *head = head_shape(C, V, rows_max, bf16);
    head->training = training;
    int code = place(head, training, NULL);
    if (code < 0) {
        head_close(head);
        return code;
    }
    place_scratch(head, scratch, training);
    *out = head;
    return 0;
}

void head_close(struct head *head) {
    if (!head) return;
    free(head->wte_words), free(head->wte_back_words), free(head->max), free(head->sum), free(head->total);
    free(head);
}

void head_load(struct head *head, struct pool *pool, const float *wte, bool backward) {
    struct packed_matrix logits = wte_of(head), back = wte_back_of(head);
    pack_all_rows(pool, &logits, wte, (size_t)head->C);
    if (backward) pack_all_columns(pool, &back, wte, (size_t)head->C);
}

/* In eight lanes, so that it is one sum on every machine and quick. */
static double sum_of(const float *x, int count) {
    double lane[8] = {0};
    int i = 0;
    for (; i + 8 <= count; i += 8)
        for (int j = 0; j < 8; j++) lane[j] += (double)x[i + j];
    for (int j = 0; i < count; i++, j++) lane[j] += (double)x[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static void logits_group(struct head *head, int row, int rows, int column, int columns) {
    const struct head_task *task = &head->task;
    for (int i = row; i < row + rows; i++) {
        float *line = head->logits + (size_t)i * (size_t)head->V + column;
        size_t cell = (size_t)(column / GROUP) * (size_t)head->rows + (size_t)i;
        int target = task->targets[i] - column;
        if (target >= 0 && target < columns) head->target_logit[i] = line[target];
        if (task->label_smoothing > 0) head->total[cell] = sum_of(line, columns);
        softmax_exp(line, columns, &head->max[cell], &head->sum[cell]);
    }
}

/* A block of logits: whole groups, since the product's blocks are BLOCK columns wide. */
static void logits_block(void *arg, int row, int rows, int column, int columns) {
    for (int at = column; at < column + columns; at += GROUP)
        logits_group(arg, row, rows, at, column + columns - at < GROUP ? column + columns - at : GROUP);
}

/* What label smoothing and the z-loss add to a row's loss; log_z: ln of the sum of exp(logits). */
static double extra_loss(const struct head *head, int row, double log_z) {
    double smoothing = head->task.label_smoothing, logits = 0.0;
    for (int g = 0; smoothing > 0 && g < head->groups; g++) logits += head->total[g * head->rows + row];
    return smoothing * ((double)head->target_logit[row] - logits / head->V) + head->task.z_loss * log_z * log_z;
}

/* A row's loss, and what each of its groups must be scaled with: exp(group's maximum - row's maximum) / sum, and with a z-loss its slope
 * along p on top. */
static void row_finish(struct head *head, int row) {
    float *max = head->max + row, *sum = head->sum + row, top = -INFINITY;
    int stride = head->rows;
    double total = 0.0;
    for (int g = 0; g < head->groups; g++) top = max[g * stride] > top ? max[g * stride] : top;
    for (int g = 0; g < head->groups; g++) {
        double factor = fmath_exp((double)max[g * stride] - (double)top);
        total += (double)sum[g * stride] * factor;
        max[g * stride] = (float)factor;
    }
    bool counted = head->task.targets[row] >= 0;
    double log_z = (double)top + fmath_log(total), slope = 1.0 + 2.0 * head->task.z_loss * log_z;
    float scale = counted ? (float)(slope / total) : 0.0f;
    head->loss[row] = counted ? log_z - (double)head->target_logit[row] + extra_loss(head, row, log_z) : 0.0;
    for (int g = 0; g < head->groups; g++) max[g * stride] *= scale;
}

static void rows_work(void *arg, size_t item) {
    struct head *head = arg;
    for (int row = (int)item * ROW_ITEM; row < head->task.rows && row < ((int)item + 1) * ROW_ITEM; row++) row_finish(head, row);
}

/* The gradient of the logits of one row within a group, from exp(logit - maximum). */
static void gradient_line(const struct head *head, float *out, const float *line, int row, int group, int columns) {
    const struct head_task *task = &head->task;
    const float apart = (float)(1.0 - task->label_smoothing), even = (float)(task->label_smoothing / head->V);
    int target = task->targets[row] - group * GROUP;
    for (int j = GROUP; j < 2 * GROUP; j += 16) __builtin_prefetch(line + j); /* the next group: other rows come in between */
    memcpy(out, line, (size_t)columns * sizeof *out);
    vector_scale(out, head->max[(size_t)group * (size_t)head->rows + (size_t)row], (size_t)columns);
    for (int i = 0; even > 0.0f && task->targets[row] >= 0 && i < columns; i++) out[i] -= even;
    if (target >= 0 && target < columns) out[target] -= apart;
}

/* A strip of rows over some groups: made, and packed both ways. */
static void gradient_work(void *arg, size_t item) {
    const struct head *head = arg;
    int strips = (head->task.rows + STRIP_ROWS - 1) / STRIP_ROWS, row = (int)item % strips * STRIP_ROWS, V = head->V;
    int left = head->task.rows - row, rows = left < STRIP_ROWS ? left : STRIP_ROWS, first = (int)item / strips * ITEM_COLUMNS;
    struct packed_matrix by_rows = d_of(head, head->task.rows), by_columns = d_back_of(head, head->task.rows);
    float strip[STRIP_ROWS * GROUP];
    for (int column = first; column < V && column < first + ITEM_COLUMNS; column += GROUP) {
        int columns = V - column < GROUP ? V - column : GROUP;
        for (int i = 0; i < rows; i++)
            gradient_line(head, strip + i * GROUP, head->logits + (size_t)(row + i) * (size_t)V + column, row + i, column / GROUP, columns);
        pack_rows(&by_rows, strip, GROUP, row, rows, column, columns);
        pack_columns(&by_columns, strip, GROUP, column, columns, row, rows);
    }
}

static void chunk_forward(struct head *head, struct pool *pool) {
    const struct head_task *task = &head->task;
    struct packed_matrix h = packed_over(head->h_words, PACKED_LEFT, task->rows, head->C, head->bf16), wte = wte_of(head);
    pack_all_rows(pool, &h, task->h, (size_t)head->C);
    product_run(pool, &(struct product){.name = "logits",
                                        .out = head->logits,
                                        .ld = (size_t)head->V,
                                        .a = &h,
                                        .b = &wte,
                                        .block_columns = BLOCK,
                                        .after = logits_block,
                                        .arg = head});
    pool_run(pool, (size_t)(task->rows + ROW_ITEM - 1) / ROW_ITEM, rows_work, head);
    profile_lap("row sums", 0, 0);
}

static void chunk_backward(struct head *head, struct pool *pool) {
    const struct head_task *task = &head->task;
    size_t C = (size_t)head->C;
    struct packed_matrix d = d_of(head, task->rows), wte = wte_back_of(head), d_back = d_back_of(head, task->rows),
                   h = packed_over(head->h_words, PACKED_RIGHT, head->C, task->rows, head->bf16);
    size_t strips = (size_t)(task->rows + STRIP_ROWS - 1) / STRIP_ROWS;
    pool_run(pool, strips * (size_t)((head->V + ITEM_COLUMNS - 1) / ITEM_COLUMNS), gradient_work, head);
    profile_lap("logits' gradient", 0, 8.0 * task->rows * (double)head->V);
    product_run(pool, &(struct product){.name = "head d input", .out = task->dh, .ld = C, .a = &d, .b = &wte});
    pack_all_columns(pool, &h, task->h, C);
    product_run(pool, &(struct product){.name = "head d weight", .out = task->dwte, .ld = C, .a = &d_back, .b = &h, .add = task->add});
}

void head_run(struct head *head, struct pool *pool, const struct head_task *task, double *loss, uint64_t *counted) {
    CHECK(!task->dh || head->training);
    for (int first = 0; first < task->rows; first += head->rows) {
        size_t at = (size_t)first * (size_t)head->C;
        struct head_task *chunk = &head->task;
        *chunk = *task;
        chunk->h += at, chunk->targets += first, chunk->rows = task->rows - first < head->rows ? task->rows - first : head->rows;
        chunk->add = task->add || first > 0;
        chunk_forward(head, pool);
        for (int row = 0; row < chunk->rows; row++)
            if (chunk->targets[row] >= 0) *loss += head->loss[row], ++*counted;
        if (task->dh) {
            chunk->dh += at;
            chunk_backward(head, pool);
        }
        if (task->tick) task->tick(task->tick_arg);
    }
}

void head_logits(struct head *head, struct pool *pool, float *logits, const float *h, int rows) {
    for (int first = 0; first < rows; first += head->rows) {
        int count = rows - first < head->rows ? rows - first : head->rows;
        struct packed_matrix left = packed_over(head->h_words, PACKED_LEFT, count, head->C, head->bf16), wte = wte_of(head);
        pack_all_rows(pool, &left, h + (size_t)first * (size_t)head->C, (size_t)head->C);
        product_run(pool,
                    &(struct product){
                        .name = "logits", .out = logits + (size_t)first * (size_t)head->V, .ld = (size_t)head->V, .a = &left, .b = &wte});
    }
}
