/* The kernels for any other processor: whatever vectors the compiler's baseline has, SSE2 on x86-64. */
#define KERNEL_SET      kernel_set_portable
#define KERNEL_SET_NAME "portable"
#include "model/kernels/kernel_body.h"
