/* `millrace bench machine`: what this machine can do at most, beside which the other benchmarks' numbers are shares. */
#include <stdio.h>

#include "base/plain.h"
#include "base/pool.h"
#include "cli/bench_commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "model/trial/machine.h"

static int print_json(const struct machine_speed *m, int64_t threads) {
    json_t *object = json_object();
    json_object_set_new(object, "threads", json_integer(threads));
    json_object_set_new(object, "fp32_gflops", output_json_measured(m->fp32_gflops));
    if (m->bf16_gflops > 0) json_object_set_new(object, "bf16_gflops", output_json_measured(m->bf16_gflops));
    if (m->int8_gops > 0) json_object_set_new(object, "int8_gops", output_json_measured(m->int8_gops));
    json_object_set_new(object, "read_gbytes_per_second", output_json_measured(m->read_gbytes_per_second));
    json_object_set_new(object, "copy_gbytes_per_second", output_json_measured(m->copy_gbytes_per_second));
    json_object_set_new(object, "triad_gbytes_per_second", output_json_measured(m->triad_gbytes_per_second));
    return output_json(object);
}

static void print_text(const struct machine_speed *m, int64_t threads) {
    printf("%lld thread%s, best pass of each\n", (long long)threads, plural((unsigned long long)threads));
    printf("float32   %8.1f GFLOP/s\n", m->fp32_gflops);
    if (m->bf16_gflops > 0) printf("bfloat16  %8.1f GFLOP/s\n", m->bf16_gflops);
    if (m->int8_gops > 0) printf("int8      %8.1f GOP/s\n", m->int8_gops);
    printf("memory    %8.1f GB/s read, %.1f copy, %.1f triad\n", m->read_gbytes_per_second, m->copy_gbytes_per_second,
           m->triad_gbytes_per_second);
}

int bench_machine(int argc, char **argv) {
    int64_t threads = cores_available();
    double seconds = 4;
    bool json = false;
    const struct option_spec options[] = {
        {"seconds", 0, OPTION_REAL, &seconds, 0, 3600, "S", "how long to measure, besides filling 0.8 GB of memory (default: 4)"},
        OPTION_THREADS(&threads),
        OPTION_JSON(&json),
        {0},
    };
    static const struct usage usage = {
        "bench machine",
        "[OPTIONS]",
        "Measures the most that this machine does: arithmetic between registers, and memory beyond the caches.",
        "millrace bench machine --threads 2 --json",
        0,
        0};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    struct pool *pool = NULL;
    struct machine_speed speed;
    code = pool_open_from(&pool, (int)threads, "--threads");
    if (code == 0) code = machine_measure(&speed, seconds, pool);
    if (code == 0 && json) code = print_json(&speed, threads);
    else if (code == 0) print_text(&speed, threads);
    pool_close(pool);
    return code;
}
