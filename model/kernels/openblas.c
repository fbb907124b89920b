/* Three calls. The shape of a product is part of the arithmetic: OpenBLAS's bits depend on the width of what it is given, so whoever calls
 * keeps to fixed ones.
 *
 * The library is loaded when it is first needed and not linked: it starts a thread for each processor as it loads, which a process that
 * never multiplies with it should not pay for, and which hangs where memory is limited (`ulimit -v`). Loaded with one thread, it starts
 * none. */
#include "model/kernels/openblas.h"

#include <cblas.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"

#ifndef OPENBLAS_FOLDER /* of the pthread build, from the Makefile */
#define OPENBLAS_FOLDER ""
#endif

static struct {
    __typeof__(cblas_sgemm) *sgemm;
    __typeof__(openblas_get_config) *get_config;
    __typeof__(openblas_get_corename) *get_corename;
    __typeof__(openblas_get_parallel) *get_parallel;
    __typeof__(openblas_set_num_threads) *set_num_threads;
} blas;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

static int find(void *out, void *library, const char *name) {
    void *function = dlsym(library, name);
    if (!function) return err_set(ERR_UNSUPPORTED, "OpenBLAS here has no %s; install libopenblas0-pthread", name);
    *(void **)out = function;
    return 0;
}

static int load(void) {
    /* That build first, whatever Debian's alternatives point at. */
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    void *library = OPENBLAS_FOLDER[0] ? dlopen(OPENBLAS_FOLDER "/libopenblas.so.0", RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(ERR_UNSUPPORTED, "the portable kernels need OpenBLAS, which cannot be loaded (%s); install libopenblas0-pthread",
                       dlerror());
    TRY(find(&blas.get_config, library, "openblas_get_config"));
    TRY(find(&blas.get_corename, library, "openblas_get_corename"));
    TRY(find(&blas.get_parallel, library, "openblas_get_parallel"));
    TRY(find(&blas.set_num_threads, library, "openblas_set_num_threads"));
    if (blas.get_parallel() != 1)
        return err_set(
            ERR_UNSUPPORTED,
            "OpenBLAS here is '%s', not the pthread build: it may race when several threads call it; install libopenblas0-pthread",
            blas.get_config());
    blas.set_num_threads(1);
    return find(&blas.sgemm, library, "cblas_sgemm");
}

int openblas_setup(void) {
    pthread_mutex_lock(&loading);
    int code = blas.sgemm ? 0 : load();
    pthread_mutex_unlock(&loading);
    return code;
}

void openblas_product(float *c, int ldc, const float *a, const float *b, int M, int N, int K, bool add) {
    blas.sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, M, N, K, 1.0f, a, M, b, N, add ? 1.0f : 0.0f, c, ldc);
}

void openblas_name(char out[64]) {
    char version[32] = "?"; /* the configuration begins "OpenBLAS 0.3.21 ..." */
    sscanf(blas.get_config(), "OpenBLAS %31s", version);
    snprintf(out, 64, "openblas %s %.16s", version, blas.get_corename());
}
