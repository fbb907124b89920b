/* Where each tensor is in the flat array of parameters. */
#ifndef MILLRACE_MODEL_LAYOUT_H
#define MILLRACE_MODEL_LAYOUT_H

#include "model/gpt2/gpt2.h"

/* Offsets in floats. Those of a block count from the block's first float, at block + l * block_size. */
struct layout {
    size_t wte, wpe, block, block_size, lnf_weight, lnf_bias, total; /* wte (V, C), wpe (P, C) */
    size_t ln1_weight, ln1_bias;                                     /* (C) */
    size_t attn_weight, attn_bias;                                   /* (C, 3C), (3C) */
    size_t attn_proj_weight, attn_proj_bias;                         /* (C, C), (C) */
    size_t ln2_weight, ln2_bias;                                     /* (C) */
    size_t fc_weight, fc_bias;                                       /* (C, F), (F) */
    size_t mlp_proj_weight, mlp_proj_bias;                           /* (F, C), (C) */
};

struct layout layout_of(const struct gpt2_config *config);

#endif
