/* OpenBLAS, and the only code that knows it: what the `portable` kernels multiply with (model/kernels/product.c). Debian's pthread build,
 * held to one thread a call: threads of its own change bits, and its serial build races when several threads call it. */
#ifndef MILLRACE_MODEL_OPENBLAS_H
#define MILLRACE_MODEL_OPENBLAS_H

#include <stdbool.h>

/* Loads it, held to one thread a call: before anything else here. ERR_UNSUPPORTED when it is not there or is a build without threads.
 * Cheap to call again; from any thread. */
int openblas_setup(void);

/* c (M, N) = or += a^T b, with a (K, M) and b (K, N), all row-major, c's rows ldc apart. One call on the caller's thread. */
void openblas_product(float *c, int ldc, const float *a, const float *b, int M, int N, int K, bool add);

/* "openblas 0.3.21 SkylakeX". */
void openblas_name(char out[64]);

#endif
