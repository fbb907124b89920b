/* Generation's kernels for any other processor, in plain C: the sums of int8 products here are what the other sets' must equal. */
enum { LANES = 4, FLOAT_ROWS = 1, INT8_ROWS = 1 };
#define KERNELS      stripe_kernels_portable
#define KERNELS_NAME "portable"
#include "model/kernels/stripe_body.h"
