/* What this machine can do at most, beside which the speed of training and generation is a share. Measures only. */
#ifndef MILLRACE_MODEL_MACHINE_H
#define MILLRACE_MODEL_MACHINE_H

#include "base/pool.h"

/* All threads together, best pass of several: a peak is what was reached once. */
struct machine_speed {
    double fp32_gflops; /* fused multiply-adds between registers, two operations each; without FMA multiplications and additions */
    double bf16_gflops; /* products of bfloat16 pairs added to float32 (VDPBF16PS); 0: the processor has none */
    double int8_gops;   /* products of four bytes added to int32 (VPDPBUSD of AVX-512); 0: none */
    /* Over arrays that no cache holds, in bytes that the loop names, as STREAM counts them: */
    double read_gbytes_per_second;  /* a sum over one array */
    double copy_gbytes_per_second;  /* a = b */
    double triad_gbytes_per_second; /* a = b + s c */
};

/* Takes about that many seconds, and some more to fill the arrays: 0.8 GB, and 48 MiB for each thread. ERR_MEMORY names the bytes. */
int machine_measure(struct machine_speed *out, double seconds, struct pool *pool);

/* A loop between registers, of one instruction. */
struct machine_peak {
    enum { MACHINE_FP32, MACHINE_BF16, MACHINE_INT8, MACHINE_KINDS } kind;
    double operations;                      /* of a round */
    void (*run)(size_t rounds, void *sink); /* writes MACHINE_SINK_BYTES that depend on all that was done */
};
enum { MACHINE_SINK_BYTES = 64, MACHINE_PEAKS = 5 };

/* Those that this processor has; returns how many. */
size_t machine_peaks(const struct machine_peak *out[MACHINE_PEAKS]);

#endif
