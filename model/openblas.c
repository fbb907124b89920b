/* Three calls. The shape of a product is part of the arithmetic: OpenBLAS's bits depend on the width of what it is given, so whoever calls
 * keeps to fixed ones. */
#include "model/openblas.h"

#include <cblas.h>
#include <stdio.h>

#include "base/err.h"

int openblas_setup(void) {
    const char *config = openblas_get_config();
    if (openblas_get_parallel() != 1)
        return err_set(
            ERR_UNSUPPORTED,
            "OpenBLAS here is '%s', not the pthread build: it may race when several threads call it; install libopenblas0-pthread", config);
    openblas_set_num_threads(1);
    return 0;
}

void openblas_product(float *c, int ldc, const float *a, const float *b, int M, int N, int K, bool add) {
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, M, N, K, 1.0f, a, M, b, N, add ? 1.0f : 0.0f, c, ldc);
}

void openblas_name(char out[64]) {
    char version[32] = "?"; /* the configuration begins "OpenBLAS 0.3.21 ..." */
    sscanf(openblas_get_config(), "OpenBLAS %31s", version);
    snprintf(out, 64, "openblas %s %.16s", version, openblas_get_corename());
}
