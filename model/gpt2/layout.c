/* The shape of GPT-2: names, shapes and offsets of its tensors, and their first values. Knows nothing of how they are used. */
#include "model/gpt2/layout.h"

#include <math.h>
#include <stdio.h>

#include "base/err.h"
#include "model/kernels/kernel_set.h"

enum { TENSORS_PER_BLOCK = 12, TENSORS_OUTSIDE = 4 };

struct gpt2_config gpt2_config_of(const struct config *config) {
    return (struct gpt2_config){
        .vocab_size = (int)config->model.vocab_size,
        .n_positions = (int)config->model.n_positions,
        .n_embd = (int)config->model.n_embd,
        .n_layer = (int)config->model.n_layer,
        .n_head = (int)config->model.n_head,
        .n_inner = (int)(config->model.n_inner ? config->model.n_inner : 4 * config->model.n_embd),
        .attn_pdrop = (float)config->model.attn_pdrop,
        .embd_pdrop = (float)config->model.embd_pdrop,
        .resid_pdrop = (float)config->model.resid_pdrop,
        .layer_norm_epsilon = (float)config->model.layer_norm_epsilon,
        .initializer_range = (float)config->model.initializer_range,
        .scale_attn_weights = config->model.scale_attn_weights,
        .bos_token_id = (int)config->model.bos_token_id,
        .eos_token_id = (int)config->model.eos_token_id,
        .document_mask = config->dataset.document_mask,
        .micro_batch = (int)config->training.micro_batch,
        .bf16 = config->training.bf16,
        .gradient_checkpointing = config->training.gradient_checkpointing,
        .label_smoothing = config->training.label_smoothing_factor,
        .z_loss = config->training.z_loss,
    };
}

size_t gpt2_tensor_count(const struct gpt2_config *config) { return (size_t)config->n_layer * TENSORS_PER_BLOCK + TENSORS_OUTSIDE; }

/* Tensors of a block, in order; letters are the sides' lengths: C n_embd, A 3 n_embd, F n_inner, '-' for none. */
static const struct {
    const char *name;
    char rows, columns;
} block_tensors[TENSORS_PER_BLOCK] = {
    {"ln_1.weight", 'C', '-'},        {"ln_1.bias", 'C', '-'},        {"attn.c_attn.weight", 'C', 'A'}, {"attn.c_attn.bias", 'A', '-'},
    {"attn.c_proj.weight", 'C', 'C'}, {"attn.c_proj.bias", 'C', '-'}, {"ln_2.weight", 'C', '-'},        {"ln_2.bias", 'C', '-'},
    {"mlp.c_fc.weight", 'C', 'F'},    {"mlp.c_fc.bias", 'F', '-'},    {"mlp.c_proj.weight", 'F', 'C'},  {"mlp.c_proj.bias", 'C', '-'},
};

static size_t side(const struct gpt2_config *config, char letter) {
    size_t C = (size_t)config->n_embd;
    return letter == 'C' ? C : letter == 'A' ? 3 * C : letter == 'F' ? (size_t)config->n_inner : 1;
}

/* Appends one tensor behind the last. */
static void tensor_add(struct gpt2_tensor *out, size_t *count, size_t *offset, const char *name, size_t rows, size_t columns, int rank) {
    if (out) {
        struct gpt2_tensor *t = &out[*count];
        *t = (struct gpt2_tensor){
            .rank = rank, .shape = {rows, rank == 2 ? columns : 0}, .offset = *offset, .size = rows * columns, .decayed = rank == 2};
        int length = snprintf(t->name, sizeof t->name, "%s", name);
        CHECK(length > 0 && (size_t)length < sizeof t->name);
    }
    *offset += rows * columns;
    ++*count;
}

size_t gpt2_tensors(struct gpt2_tensor *out, const struct gpt2_config *config) {
    size_t count = 0, offset = 0, C = (size_t)config->n_embd;
    char name[48];
    tensor_add(out, &count, &offset, "transformer.wte.weight", (size_t)config->vocab_size, C, 2);
    tensor_add(out, &count, &offset, "transformer.wpe.weight", (size_t)config->n_positions, C, 2);
    for (int l = 0; l < config->n_layer; l++)
        for (int i = 0; i < TENSORS_PER_BLOCK; i++) {
            snprintf(name, sizeof name, "transformer.h.%d.%s", l, block_tensors[i].name);
            tensor_add(out, &count, &offset, name, side(config, block_tensors[i].rows), side(config, block_tensors[i].columns),
                       block_tensors[i].columns == '-' ? 1 : 2);
        }
    tensor_add(out, &count, &offset, "transformer.ln_f.weight", C, 1, 1);
    tensor_add(out, &count, &offset, "transformer.ln_f.bias", C, 1, 1);
    return count;
}

struct layout layout_of(const struct gpt2_config *config) {
    struct layout at = {0};
    size_t C = (size_t)config->n_embd, in_block[TENSORS_PER_BLOCK + 1] = {0};
    for (int i = 0; i < TENSORS_PER_BLOCK; i++)
        in_block[i + 1] = in_block[i] + side(config, block_tensors[i].rows) * side(config, block_tensors[i].columns);
    size_t *const field[TENSORS_PER_BLOCK] = {&at.ln1_weight,       &at.ln1_bias,       &at.attn_weight,     &at.attn_bias,
                                              &at.attn_proj_weight, &at.attn_proj_bias, &at.ln2_weight,      &at.ln2_bias,
                                              &at.fc_weight,        &at.fc_bias,        &at.mlp_proj_weight, &at.mlp_proj_bias};
    for (int i = 0; i < TENSORS_PER_BLOCK; i++) *field[i] = in_block[i];
    at.wpe = (size_t)config->vocab_size * C;
    at.block = at.wpe + (size_t)config->n_positions * C;
    at.block_size = in_block[TENSORS_PER_BLOCK];
    at.lnf_weight = at.block + (size_t)config->n_layer * at.block_size;
    at.lnf_bias = at.lnf_weight + C;
    at.total = at.lnf_bias + C;
    return at;
}

size_t gpt2_parameters(const struct gpt2_config *config) { return layout_of(config).total; }

bool gpt2_decayed(size_t *out_end, const struct gpt2_config *config, size_t element) {
    struct layout at = layout_of(config);
    CHECK(element < at.total);
    *out_end = element < at.wpe ? at.wpe : at.block;
    if (element < at.block) return true;
    *out_end = element < at.lnf_bias ? at.lnf_bias : at.total;
    if (element >= at.lnf_weight) return false;
    int i = 0;
    *out_end = element - (element - at.block) % at.block_size; /* the block's first element */
    while ((*out_end += side(config, block_tensors[i].rows) * side(config, block_tensors[i].columns)) <= element) i++;
    return block_tensors[i].columns != '-';
}

double gpt2_flop(const struct gpt2_config *config, double tokens, double T) {
    double C = config->n_embd, layers = config->n_layer;
    double matrices = config->vocab_size * C + layers * (4.0 * C * C + 2.0 * C * config->n_inner);
    return 6.0 * matrices * tokens + 12.0 * layers * C * T * tokens;
}

static void fill(float *out, size_t count, float value) {
    for (size_t i = 0; i < count; i++) out[i] = value;
}

size_t gpt2_init_parts(const struct gpt2_config *config) { return (size_t)config->n_layer + 1; }

/* Each layer is one, and the last all that belongs to none. */
void gpt2_init_part(float *params, const struct gpt2_config *config, uint64_t seed, size_t part) {
    struct layout at = layout_of(config);
    const struct kernel_set *k = kernel_set();
    size_t C = (size_t)config->n_embd, F = (size_t)config->n_inner;
    float range = config->initializer_range, residual = range / sqrtf(2.0f * (float)config->n_layer);
    if (part == (size_t)config->n_layer) {
        k->normal_fill(params, seed, 0, at.block, range);
        fill(params + at.lnf_weight, C, 1.0f);
        fill(params + at.lnf_bias, C, 0.0f);
        return;
    }
    size_t first = at.block + part * at.block_size;
    float *block = params + first;
    fill(block, at.block_size, 0.0f);
    fill(block + at.ln1_weight, C, 1.0f);
    fill(block + at.ln2_weight, C, 1.0f);
    k->normal_fill(block + at.attn_weight, seed, first + at.attn_weight, C * 3 * C, range);
    k->normal_fill(block + at.attn_proj_weight, seed, first + at.attn_proj_weight, C * C, residual);
    k->normal_fill(block + at.fc_weight, seed, first + at.fc_weight, C * F, range);
    k->normal_fill(block + at.mlp_proj_weight, seed, first + at.mlp_proj_weight, F * C, residual);
}

void gpt2_init(float *params, const struct gpt2_config *config, uint64_t seed) {
    for (size_t part = 0; part < gpt2_init_parts(config); part++) gpt2_init_part(params, config, seed, part);
}
