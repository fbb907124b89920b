/* Greedy choice, and sampling by temperature, top-k (Fan et al. 2018) and top-p (Holtzman et al. 2020). */
#include "model/generate/sample.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "model/kernels/fmath.h"
#include "model/kernels/kernels.h"

/* Four lanes: what every processor's registers hold. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef int64_t v2i __attribute__((vector_size(16)));

static v4 v4_load(const float *p) {
    v4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static bool any(v4i lanes) { return (((v2i)lanes)[0] | ((v2i)lanes)[1]) != 0; }

/* The highest of all, NaN where one of them is. */
static float highest(const float *logits, int count) {
    enum { CHAINS = 4 };
    v4 best[CHAINS];
    v4i nans = {0};
    float most = -INFINITY;
    int i = 0;
    for (int c = 0; c < CHAINS; c++) best[c] = (v4){-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    for (; i + 4 * CHAINS <= count; i += 4 * CHAINS)
        for (int c = 0; c < CHAINS; c++) {
            v4 v = v4_load(logits + i + 4 * c);
            v4i above = v > best[c];
            best[c] = (v4)(((v4i)v & above) | ((v4i)best[c] & ~above)), nans |= v != v;
        }
    for (int c = 0; c < CHAINS; c++)
        for (int lane = 0; lane < 4; lane++) most = best[c][lane] > most ? best[c][lane] : most;
    if (any(nans)) return NAN;
    for (; i < count && !isnan(most); i++) most = logits[i] > most || isnan(logits[i]) ? logits[i] : most;
    return most;
}

int32_t sample_greedy(const float *logits, int count) {
    float most = highest(logits, count);
    int32_t id = 0;
    if (!isfinite(most)) return -1;
    while (logits[id] != most) id++;
    return id;
}

/* a comes after b in the order of choice: highest logit first, then lowest id. */
static bool after(const float *logits, int32_t a, int32_t b) { return logits[a] < logits[b] || (logits[a] == logits[b] && a > b); }

/* Heap with the last in order on top. */
static void sift_down(int32_t *heap, int count, int at, const float *logits) {
    for (;;) {
        int child = 2 * at + 1;
        if (child >= count) return;
        if (child + 1 < count && after(logits, heap[child + 1], heap[child])) child++;
        if (!after(logits, heap[child], heap[at])) return;
        int32_t swap = heap[at];
        heap[at] = heap[child], heap[child] = swap;
        at = child;
    }
}

/* Leaves the first `keep` ids of the order in order[], sorted: a heap of those kept, then heap sort. */
static void take_first(int32_t *order, int keep, const float *logits, int count) {
    for (int i = 0; i < keep; i++) order[i] = i;
    for (int at = keep / 2 - 1; at >= 0; at--) sift_down(order, keep, at, logits);
    for (int32_t id = keep; id < count; id++) {
        float least = logits[order[0]];
        while (id + 4 <= count && !any(v4_load(logits + id) > least)) id += 4; /* nearly all */
        if (id >= count || !after(logits, order[0], id)) continue;
        order[0] = id;
        sift_down(order, keep, 0, logits);
    }
    for (int left = keep - 1; left > 0; left--) {
        int32_t swap = order[0];
        order[0] = order[left], order[left] = swap;
        sift_down(order, left, 0, logits);
    }
}

/* Chooses by the weights of the first `count` ids of the order; NULL stands for 0, 1, 2 ... */
static int32_t draw(const float *weight, const int32_t *order, int count, double uniform) {
    double total = 0, sum = 0;
    int32_t last = order ? order[0] : 0;
    for (int i = 0; i < count; i++) total += (double)weight[order ? order[i] : i];
    for (int i = 0; i < count; i++) {
        int32_t id = order ? order[i] : i;
        if (!(weight[id] > 0)) continue;
        sum += (double)weight[id];
        last = id;
        if (sum > uniform * total) break;
    }
    return last;
}

/* How many of the first `count` in order make up at least top_p of their sum. */
static int nucleus(const float *weight, const int32_t *order, int count, double top_p) {
    double total = 0, sum = 0;
    for (int i = 0; i < count; i++) total += (double)weight[order[i]];
    for (int i = 0; i < count; i++) {
        sum += (double)weight[order[i]];
        if (sum >= top_p * total) return i + 1;
    }
    return count;
}

/* logits[id] becomes its weight e^(logit / temperature - the highest), for the ids of the order alone. */
static void weigh(float *logits, const int32_t *order, int count, double temperature) {
    float highest = (float)((double)logits[order[0]] / temperature);
    for (int first = 0; first < count; first += 8) {
        float x[8] = {0};
        int some = count - first < 8 ? count - first : 8;
        for (int i = 0; i < some; i++) x[i] = (float)((double)logits[order[first + i]] / temperature);
        v8_store(x, v8_exp(v8_load(x) - v8_all(highest)));
        for (int i = 0; i < some; i++) logits[order[first + i]] = x[i];
    }
}

static void weigh_all(float *logits, int count, double temperature) {
    float max, sum;
    for (int i = 0; i < count; i++) logits[i] = (float)((double)logits[i] / temperature);
    softmax_exp(logits, count, &max, &sum);
}

int32_t sample_draw(float *logits, int32_t *order, int count, const struct generate_options *options, double uniform) {
    if (sample_greedy(logits, count) < 0) return -1;
    int kept = options->top_k > 0 && options->top_k < count ? options->top_k : count;
    bool sorted = kept < count || options->top_p < 1;
    if (sorted) take_first(order, kept, logits, count);
    if (sorted) weigh(logits, order, kept, options->temperature);
    else weigh_all(logits, count, options->temperature);
    if (options->top_p < 1) kept = nucleus(logits, order, kept, options->top_p);
    return draw(logits, sorted ? order : NULL, kept, uniform);
}
