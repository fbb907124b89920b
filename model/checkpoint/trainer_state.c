/* The log and its JSON. Keys are those that TrainerState has had since transformers 4.41; it refuses any that it does not know. */
#include "model/checkpoint/trainer_state.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"

bool train_log_due(uint64_t every, uint64_t last, uint64_t step) {
    return every > 0 && (step % every == 0 || step == 1 || step == last);
}

void train_log_begin(struct train_log *log, uint64_t every, uint64_t last) {
    train_log_free(log);
    log->every = every;
    log->last = last;
    log->stride = 1;
}

static bool kept(const struct train_log *log, const struct train_log_row *row) {
    return row->evaluation || train_log_due(log->every * log->stride, log->last, row->step);
}

/* Twice the stride: half of the steps go. Of evaluations so many that they fill the log alone, every other one goes. */
static void thin(struct train_log *log) {
    size_t kept_rows = 0, steps = 0, evaluations = 0;
    bool crowded = log->count - log->steps > TRAIN_LOG_STEPS_MAX;
    if (!crowded) log->stride *= 2;
    for (size_t i = 0; i < log->count; i++) {
        const struct train_log_row *row = &log->row[i];
        if (row->evaluation ? crowded && evaluations++ % 2 : !kept(log, row)) continue;
        steps += !row->evaluation;
        log->row[kept_rows++] = *row;
    }
    log->count = kept_rows;
    log->steps = steps;
}

void train_log_add(struct train_log *log, const struct train_log_row *row) {
    if (!kept(log, row)) return;
    if (log->count == log->capacity) {
        log->capacity = log->capacity ? 2 * log->capacity : 64;
        log->row = mem_resize(log->row, log->capacity * sizeof *log->row);
    }
    log->row[log->count++] = *row;
    log->steps += !row->evaluation;
    if (log->steps > TRAIN_LOG_STEPS_MAX || log->count - log->steps > TRAIN_LOG_STEPS_MAX) thin(log);
}

void train_log_free(struct train_log *log) {
    free(log->row);
    *log = (struct train_log){0};
}

/* ---- JSON ---- */

static void put_whole(json_t *object, const char *key, uint64_t value) {
    CHECK(value <= INT64_MAX);
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void put_real(json_t *object, const char *key, double value) {
    if (isfinite(value)) json_object_set_new(object, key, json_real(value));
}

static json_t *row_json(const struct train_log_row *row, const struct trainer_facts *facts) {
    json_t *object = json_object();
    put_real(object, "epoch", (double)row->step * facts->epochs_per_step);
    put_whole(object, "step", row->step);
    if (row->evaluation) {
        put_real(object, "eval_loss", row->eval_loss);
        return object;
    }
    put_real(object, "loss", row->loss);
    put_real(object, "grad_norm", row->grad_norm);
    put_real(object, "learning_rate", row->learning_rate);
    return object;
}

/* Trainer looks for its own control among its callbacks when it saves again: nothing is asked of it. */
static json_t *callbacks(void) {
    static const char *const orders[] = {"should_epoch_stop", "should_evaluate", "should_log", "should_save", "should_training_stop"};
    json_t *args = json_object(), *control = json_object(), *object = json_object();
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) json_object_set_new(args, orders[i], json_false());
    json_object_set_new(control, "args", args);
    json_object_set_new(control, "attributes", json_object());
    json_object_set_new(object, "TrainerControl", control);
    return object;
}

int trainer_state_print(struct buf *out, const struct trainer_facts *facts, const struct train_log *log) {
    json_t *root = json_object(), *history = json_array();
    for (size_t i = 0; i < log->count && log->row[i].step <= facts->step; i++)
        json_array_append_new(history, row_json(&log->row[i], facts));
    put_real(root, "epoch", (double)facts->step * facts->epochs_per_step);
    put_whole(root, "global_step", facts->step);
    put_whole(root, "max_steps", facts->max_steps);
    put_whole(root, "num_train_epochs", facts->num_train_epochs);
    put_whole(root, "logging_steps", facts->logging_steps);
    put_whole(root, "eval_steps", facts->eval_steps);
    put_whole(root, "save_steps", facts->save_steps);
    put_whole(root, "train_batch_size", facts->global_batch);
    put_whole(root, "num_input_tokens_seen", facts->tokens_seen);
    put_real(root, "total_flos", facts->total_flos);
    json_object_set_new(root, "log_history", history);
    /* Of metric_for_best_model, which a pipeline does not have. */
    json_object_set_new(root, "best_metric", json_null());
    json_object_set_new(root, "best_model_checkpoint", json_null());
    json_object_set_new(root, "is_local_process_zero", json_true());
    json_object_set_new(root, "is_world_process_zero", json_true());
    json_object_set_new(root, "is_hyper_param_search", json_false());
    json_object_set_new(root, "trial_name", json_null());
    json_object_set_new(root, "trial_params", json_null());
    json_object_set_new(root, "stateful_callbacks", callbacks());
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    int code = text ? buf_print(out, "%s\n", text) : err_set(ERR_MEMORY, "trainer_state.json: out of memory");
    free(text);
    json_decref(root);
    return code;
}

static double real_or_nan(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

int trainer_state_rows(const char *text, size_t text_bytes, void (*each)(void *arg, const struct train_log_row *row), void *arg) {
    json_t *root = json_loadb(text, text_bytes, 0, NULL), *history = json_object_get(root, "log_history"), *object;
    int code = json_is_array(history) ? 0 : err_set(ERR_CORRUPT, "trainer_state.json has no log_history");
    size_t i;
    if (code == 0) json_array_foreach(history, i, object) {
        json_int_t step = json_integer_value(json_object_get(object, "step"));
        struct train_log_row row = {.evaluation = !json_object_get(object, "learning_rate"), .loss = real_or_nan(object, "loss"),
                                    .learning_rate = real_or_nan(object, "learning_rate"), .grad_norm = real_or_nan(object, "grad_norm"),
                                    .eval_loss = real_or_nan(object, "eval_loss")};
        row.step = step > 0 ? (uint64_t)step : 0;
        each(arg, &row);
    }
    json_decref(root);
    return code;
}
