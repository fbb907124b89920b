/* `millrace plan`: what a pipeline would do, before it runs; refuses one that this machine has not the memory for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/plain.h"
#include "cli/commands.h"
#include "cli/follow.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/plan_look.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/kernels/product.h"

struct view {
    const struct plan *plan;
    const struct plan_look *look;
    const struct machine_memory *machine;
    const struct calibration *measured; /* NULL: not measured */
    struct plan_times times;
    bool fits;
};

/* -1: not known. */
static double steps_left(const struct view *v) {
    return v->plan->steps > 0 ? fmax(0, v->plan->steps - (double)v->look->steps_done) : -1;
}

/* The lines of look.warnings. */
static void each_warning(const struct view *v, void (*say)(json_t *list, const char *line, size_t bytes), json_t *list) {
    const char *at = v->look->warnings.size ? (const char *)v->look->warnings.data : "";
    for (size_t bytes; *at; at += bytes + (at[bytes] != 0)) say(list, at, bytes = strcspn(at, "\n"));
}

/* ---- for programs ---- */

static json_t *whole(double value) { return value < 9e18 ? json_integer((json_int_t)value) : json_real(value); }

/* 0: not known. */
static json_t *known(double value) { return value > 0 ? output_json_measured(value) : json_null(); }

static json_t *memory_json(const struct worker_memory *m) {
    const struct gpt2_memory *a = &m->activations;
    return json_pack("{so so so so s{so so so so so} so so so so so}", "weights", whole(m->weights), "optimizer", whole(m->optimizer),
                     "gradient", whole(m->gradient), "partial_sums", whole(m->partial_sums), "activations", "kept",
                     whole((double)a->kept), "scratch", whole((double)a->scratch), "panels", whole((double)a->panels), "attention",
                     whole((double)a->attention), "head", whole((double)a->head), "exchange", whole(m->exchange), "data", whole(m->data),
                     "process", whole(m->process), "total", whole(m->total), "least", whole(m->least));
}

static json_t *data_json(const struct view *v) {
    static const char *const names[] = {"unknown", "estimate", "manifest"};
    const struct plan_data *d = &v->plan->data;
    bool there = d->source != PLAN_UNKNOWN;
    return json_pack("{ss so so so so so}", "source", names[d->source], "tokens", there ? whole(d->tokens) : json_null(), "train_sequences",
                     there ? whole(d->train_sequences) : json_null(), "validation_sequences",
                     there ? whole(d->validation_sequences) : json_null(), "disk_bytes", there ? whole(d->dataset_bytes) : json_null(),
                     "note", output_json_text(v->look->note, strlen(v->look->note)));
}

static json_t *times_json(const struct view *v) {
    const struct plan_times *t = &v->times;
    const struct calibration *c = v->measured;
    if (!c) return json_null();
    return json_pack("{s{so so so so so} so so so so so so so sI sI}", "step_seconds", "compute", output_json_measured(t->compute), "sum",
                     output_json_measured(t->sum), "exchange", output_json_measured(t->exchange), "apply", output_json_measured(t->apply),
                     "total", output_json_measured(t->step), "tokens_per_second", known(t->tokens_per_second), "flop_per_second",
                     known(c->flop_per_second), "tokenize_bytes_per_second", known(v->look->tokenize_rate), "tokenize_seconds",
                     known(t->tokenize), "train_seconds", known(t->train), "evaluate_seconds", known(t->evaluate), "total_seconds",
                     known(t->total), "layers_measured", (json_int_t)c->layers_measured, "tokens_measured", (json_int_t)c->tokens_measured);
}

static void add_warning(json_t *list, const char *line, size_t bytes) { json_array_append_new(list, output_json_text(line, bytes)); }

static int print_json(const struct view *v) {
    const struct plan *p = v->plan;
    bool known_steps = p->steps > 0;
    json_t *object = json_object();
    json_object_set_new(object, "fits", json_boolean(v->fits));
    json_object_set_new(object, "refusal", v->look->refused ? output_json_text(v->look->refusal, strlen(v->look->refusal)) : json_null());
    json_t *warnings = json_array();
    each_warning(v, add_warning, warnings);
    json_object_set_new(object, "warnings", warnings);
    json_object_set_new(object, "parameters",
                        json_pack("{so so so so so so}", "total", whole(p->parameters.total), "token_embedding",
                                  whole(p->parameters.token_embedding), "position_embedding", whole(p->parameters.position_embedding),
                                  "attention", whole(p->parameters.attention), "feed_forward", whole(p->parameters.feed_forward), "norms",
                                  whole(p->parameters.norms)));
    json_object_set_new(object, "dataset", data_json(v));
    json_object_set_new(object, "training",
                        json_pack("{so so so so so so so sI sI sI so so}", "steps", known_steps ? whole(p->steps) : json_null(),
                                  "steps_done", whole((double)v->look->steps_done), "steps_left",
                                  known_steps ? whole(steps_left(v)) : json_null(), "steps_saved", whole((double)v->look->steps_saved),
                                  "tokens_per_step",
                                  whole(p->tokens_per_step), "tokens", known_steps ? whole(p->tokens) : json_null(), "epochs",
                                  known(p->epochs), "slices", (json_int_t)p->slices, "slice_sequences", (json_int_t)p->slice_sequences,
                                  "batch", (json_int_t)p->batch, "flop_per_step", output_json_real(p->flop_per_step), "flop",
                                  known(p->flop)));
    json_object_set_new(object, "workers",
                        json_pack("{sI sI sI so so}", "count", (json_int_t)p->workers, "busy", (json_int_t)p->busy_workers, "threads",
                                  (json_int_t)p->threads, "memory_bytes", memory_json(&p->memory), "memory_bytes_of_all",
                                  whole(p->memory.total * (double)p->workers)));
    json_object_set_new(object, "machine",
                        json_pack("{so so so so}", "physical_bytes", whole((double)v->machine->physical_bytes), "available_bytes",
                                  whole((double)v->machine->available_bytes), "limit_bytes", whole((double)v->machine->limit_bytes),
                                  "process_bytes",
                                  v->machine->process_bytes ? whole((double)v->machine->process_bytes) : json_null()));
    json_object_set_new(object, "wire_bytes_per_step",
                        json_pack("{so so so}", "sent_by_worker", whole(p->wire.sent), "received_by_worker", whole(p->wire.received),
                                  "sent_by_all", whole(p->wire.all)));
    json_object_set_new(object, "checkpoints",
                        json_pack("{so so so so}", "bytes", whole(p->checkpoints.bytes), "written",
                                  known_steps ? whole(p->checkpoints.written) : json_null(), "at_once",
                                  known_steps ? whole(p->checkpoints.kept_max) : json_null(), "disk_bytes",
                                  known_steps ? whole(p->checkpoints.bytes * p->checkpoints.kept_max) : json_null()));
    json_object_set_new(object, "time", times_json(v));
    return output_json(object);
}

/* ---- for people ---- */

enum { TEXTS = 8, TEXT_BYTES = 32 };

/* "1.25 GiB", "3.10 TFLOP": in a ring of a few texts. */
static const char *scaled(double value, double base, const char *const *units, size_t count) {
    static char ring[TEXTS][TEXT_BYTES];
    static size_t next;
    char *text = ring[next++ % TEXTS];
    size_t i = 0;
    for (; i + 1 < count && value >= base; i++) value /= base;
    snprintf(text, TEXT_BYTES, i || base != 1024 ? "%.2f %s" : "%.0f %s", value, units[i]);
    return text;
}

static const char *size_text(double bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB"}; /* as in messages about memory */
    return scaled(bytes, 1024, units, sizeof units / sizeof *units);
}

static const char *flop_text(double flop) {
    static const char *const units[] = {"MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"};
    return scaled(flop / 1e6, 1000, units, sizeof units / sizeof *units);
}

static const char *duration(double seconds) {
    static char ring[TEXTS][TEXT_BYTES];
    static size_t next;
    if (seconds >= 60) return text_seconds(seconds);
    char *text = ring[next++ % TEXTS];
    snprintf(text, TEXT_BYTES, seconds < 1 ? "%.3f s" : "%.1f s", seconds);
    return text;
}

static const char *count(double value) { return value < 1e18 ? text_count((uint64_t)value) : "more than 10^18"; }

/* Behind what count() shows. */
static const char *ending(double value) { return plural(value < 1e18 ? (unsigned long long)value : 2); }

static void line(const char *name, const char *value, const char *more) {
    printf("%-22s %14s%s%s\n", name, value, *more ? "  " : "", more);
}

static void show_training(const struct view *v) {
    const struct plan *p = v->plan;
    char more[256];
    snprintf(more, sizeof more, "embeddings %s, attention %s, feed-forward %s, norms %s",
             count(p->parameters.token_embedding + p->parameters.position_embedding), count(p->parameters.attention),
             count(p->parameters.feed_forward), count(p->parameters.norms));
    line("parameters", count(p->parameters.total), more);
    bool there = p->data.source != PLAN_UNKNOWN;
    line(p->data.source == PLAN_ESTIMATED && !v->look->whole ? "dataset, about" : "dataset", there ? count(p->data.tokens) : "unknown",
         !there ? v->look->note : *ending(p->data.tokens) ? "tokens" : "token");
    if (there && *v->look->note) printf("%39s%s\n", "", v->look->note);
    if (p->epochs > 0) snprintf(more, sizeof more, "of %s token%s; %s token%s in all, %.2f epochs", count(p->tokens_per_step),
                                ending(p->tokens_per_step), count(p->tokens), ending(p->tokens), p->epochs);
    else snprintf(more, sizeof more, "of %s token%s", count(p->tokens_per_step), ending(p->tokens_per_step));
    line("steps", p->steps > 0 ? count(p->steps) : "unknown", more);
    double done = (double)v->look->steps_done, left = steps_left(v);
    snprintf(more, sizeof more, "done by the run in output_dir, %s left; what follows is of all", left >= 0 ? count(left) : "unknown");
    if (done > 0) line("", count(done), more);
    uint64_t saved = v->look->steps_saved, known_done = v->look->steps_done;
    snprintf(more, sizeof more, "of these, %s to %s, are in no checkpoint: they are made again unless a worker still holds them",
             count((double)saved + 1), count(done));
    if (saved < known_done) line("", count(done - (double)saved), more);
    snprintf(more, sizeof more, "of %s sequence%s, %s at a time", count((double)p->slice_sequences), ending((double)p->slice_sequences),
             count((double)p->batch));
    line("slices a step", count((double)p->slices), more);
    snprintf(more, sizeof more, "%s of them with work; threads: %d each", count((double)p->busy_workers), p->threads);
    line("workers", count((double)p->workers), more);
    char *idle = output_idle_workers(p->workers, p->slices);
    if (idle) printf("%39s%s\n", "", idle);
    free(idle);
    if (p->flop > 0) snprintf(more, sizeof more, "%s in all", flop_text(p->flop));
    line("arithmetic a step", flop_text(p->flop_per_step), p->flop > 0 ? more : "");
    snprintf(more, sizeof more, "received %s; before compression", size_text(p->wire.received));
    line("wire a step, a worker", size_text(p->wire.sent), p->wire.all > 0 ? more : "");
}

static void show_memory(const struct view *v) {
    const struct plan *p = v->plan;
    const struct worker_memory *m = &p->memory;
    const struct gpt2_memory *a = &m->activations;
    char more[256];
    printf("\nmemory of a worker, at most\n");
    line("  weights", size_text(m->weights), "");
    line("  optimizer", size_text(m->optimizer), "");
    snprintf(more, sizeof more, "the sum; %s more for sums of slices", size_text(m->partial_sums));
    line("  gradients", size_text(m->gradient + m->partial_sums), more);
    snprintf(more, sizeof more, "kept %s, scratch %s, panels %s, attention %s", size_text((double)a->kept),
             size_text((double)a->scratch), size_text((double)a->panels), size_text((double)a->attention));
    line("  activations", size_text((double)(a->total - a->head)), more);
    line("  head", size_text((double)a->head), "");
    line("  exchange, data, code", size_text(m->exchange + m->data + m->process), "");
    snprintf(more, sizeof more, "%s in any case", size_text(m->least));
    line("  together", size_text(m->total), more);
    snprintf(more, sizeof more, "this machine has %s, %s of it free", size_text((double)v->machine->limit_bytes),
             size_text((double)v->machine->available_bytes));
    line("  of all workers", size_text(m->total * (double)p->workers), more);
}

static void show_disk(const struct view *v) {
    const struct plan *p = v->plan;
    char more[256];
    printf("\ndisk\n");
    if (p->data.source != PLAN_UNKNOWN)
        line("  dataset", size_text(p->data.dataset_bytes), p->data.source == PLAN_ESTIMATED ? "at most: it is compressed" : "");
    snprintf(more, sizeof more, "%s each; %s written", size_text(p->checkpoints.bytes), count(p->checkpoints.written));
    line("  checkpoints", p->steps > 0 ? size_text(p->checkpoints.bytes * p->checkpoints.kept_max) : "unknown", more);
}

static void show_times(const struct view *v) {
    const struct plan_times *t = &v->times;
    const struct calibration *c = v->measured;
    char more[256];
    printf("\ntime on this machine, about\n");
    snprintf(more, sizeof more, "compute %s, sums %s, exchange %s, optimizer %s", duration(t->compute), duration(t->sum),
             duration(t->exchange), duration(t->apply));
    line("  a step", duration(t->step), more);
    snprintf(more, sizeof more, "tokens/s; gradients at %.1f GFLOP/s", c->flop_per_second / 1e9);
    line("  speed", count(t->tokens_per_second), more);
    if (t->tokenize > 0) {
        snprintf(more, sizeof more, "%.1f MB/s a thread", v->look->tokenize_rate / 1e6);
        line("  tokenize", duration(t->tokenize), more);
    }
    if (t->train > 0) line("  train", duration(t->train), "");
    if (t->evaluate > 0) line("  evaluate", duration(t->evaluate), "");
    if (t->train > 0) line("  in all", duration(t->total), "");
    snprintf(more, sizeof more, "%d of %d layer%s, %d token%s at a time", c->layers_measured, v->plan->shape.model.n_layer,
             plural((unsigned long long)v->plan->shape.model.n_layer), c->tokens_measured, plural((unsigned long long)c->tokens_measured));
    line("  measured on", "", more);
}

static void print_warning(json_t *list, const char *line, size_t bytes) {
    (void)list;
    printf("\nwarning   %.*s\n", (int)bytes, line);
}

static void show(const struct view *v) {
    show_training(v);
    show_memory(v);
    show_disk(v);
    if (v->measured) show_times(v);
    else if (v->look->refused) printf("\ntime is not measured for what run would refuse\n");
    each_warning(v, print_warning, NULL);
    double wanted = v->plan->memory.total * (double)v->plan->workers, free_bytes = (double)v->machine->available_bytes;
    if (v->fits && wanted > free_bytes)
        printf("\nwarning   the workers may take %s of memory, and %s are free now\n", size_text(wanted), size_text(free_bytes));
}

/* ---- the command ---- */

struct asked {
    bool json, no_calibration, told; /* told: the plan is on standard output */
    int64_t workers;
};

static int plan(const struct config *config, const struct tokenizer *tokenizer, struct asked *asked) {
    struct plan_look look;
    struct plan reckoned;
    struct machine_memory machine;
    struct calibration measured;
    char kernels[128];
    int64_t workers = asked->workers > 0 ? asked->workers : config->cluster.workers;
    TRY(kernels_setup(kernels));
    TRY(machine_memory(&machine, ""));
    TRY(plan_look_at_data(&look, config, tokenizer));
    plan_make(&reckoned, config, workers, &look.data);
    TRY(config_print_warnings(&look.warnings, config, (uint64_t)reckoned.steps));
    struct view view = {.plan = &reckoned, .look = &look, .machine = &machine};
    char refusal[ERR_TEXT_BYTES];
    int refused = worker_memory_check(&reckoned.shape, workers, &machine);
    snprintf(refusal, sizeof refusal, "%s", refused < 0 ? err_text() : "");
    view.fits = refused == 0;
    if (view.fits && !look.refused && !asked->no_calibration) {
        TRY(plan_calibrate(&measured, &reckoned, config));
        view.measured = &measured;
        view.times = plan_times_of(&reckoned, &measured, look.tokenize_rate, (int)cores_available());
    }
    if (asked->json) TRY(print_json(&view));
    else show(&view);
    asked->told = true;
    plan_look_free(&look);
    if (!view.fits) return err_set(refused, "%s", refusal); /* a run looks at memory first, too */
    return look.refused ? err_set(ERR_CONFIG, "run would refuse: %s", look.refusal) : 0; /* whatever run's own exit code would be */
}

/* That there is none, with the keys of one that tell whether it can be run. */
static void print_no_plan(int code) {
    json_t *object = output_ending(code);
    bool refused = strcmp(json_string_value(json_object_get(object, "state")), "refused") == 0;
    json_object_set_new(object, "fits", json_null());
    json_object_set(object, "refusal", refused ? json_object_get(object, "reason") : json_null());
    output_json(object);
}

static int command(struct asked *asked, int argc, char **argv) {
    static struct option_list sets;
    const struct option_spec options[] = {
        {"workers", 'n', OPTION_INT, &asked->workers, 1, 256, "N", "workers, 1 to 256 (default: cluster.workers)"},
        OPTION_SET(&sets),
        {"no-calibration", 0, OPTION_FLAG, &asked->no_calibration, 0, 0, NULL, "measure nothing: no times"},
        OPTION_JSON(&asked->json),
        {0},
    };
    static const struct usage usage = {
        "plan",
        "[FILE] [OPTIONS]",
        "Shows what FILE (default: pipeline.yaml) would do, before it runs: steps, memory, arithmetic, bytes on the wire and on the\n"
        "disk, and after some ten seconds of measuring, how long it takes here. Exit code 1 when this machine lacks the memory for it,\n"
        "2 when `run` would refuse it because of its sources or its output_dir, with the same message.",
        "millrace plan pipeline.yaml --set training.gradient_checkpointing=true",
        0,
        1};
    char **arguments;
    int count_of, code = options_parse(&arguments, &count_of, &usage, options, argc, argv);
    if (code != 0) return code;
    struct config config;
    struct tokenizer *tokenizer = NULL;
    code = config_load(&config, count_of ? arguments[0] : "pipeline.yaml", sets.item, sets.count);
    if (code == 0) {
        code = tokenizer_open_for(&tokenizer, &config);
        if (code == 0) code = plan(&config, tokenizer, asked);
        tokenizer_close(tokenizer);
        config_free(&config);
    }
    return code;
}

int cmd_plan(int argc, char **argv) {
    struct asked asked = {0};
    for (int i = 1; i < argc; i++) asked.json |= strcmp(argv[i], "--json") == 0; /* also where the options are refused */
    int code = command(&asked, argc, argv);
    if (code < 0 && asked.json && !asked.told) print_no_plan(code);
    return code;
}
