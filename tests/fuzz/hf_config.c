/* config.json, and the same bytes as generation_config.json. What is accepted is printed, and accepted again as the same. */
#include "model/checkpoint/hf_config.h"

#include "tests/fuzz/fuzz.h"

void fuzz(const uint8_t *data, size_t size) {
    struct gpt2_config config, again;
    struct hf_generation asked = HF_GENERATION_NONE;
    if (hf_parse_generation(&asked, "generation_config.json", (const char *)data, size, 100, false) == 0)
        for (int i = 0; i < asked.ends; i++) CHECK(asked.end[i] >= 0 && asked.end[i] < 100);
    CHECK(asked.ends <= HF_ENDS_MAX && asked.top_k >= -1 && asked.top_k <= HF_COUNT_MAX && asked.top_p <= 1);
    if (hf_parse_config(&config, "config.json", (const char *)data, size) < 0) return;
    struct buf text = {0}, second = {0}, generation = {0};
    CHECK(hf_print_config(&text, &config) == 0 && hf_print_generation_config(&generation, &config) == 0);
    if (hf_parse_config(&again, "printed", (const char *)text.data, text.size) < 0)
        fuzz_fail("printed is not accepted: %s\n%s", err_text(), (const char *)text.data);
    CHECK(hf_print_config(&second, &again) == 0);
    CHECK(text.size == second.size && memcmp(text.data, second.data, text.size) == 0);
    buf_free(&text);
    buf_free(&second);
    buf_free(&generation);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const char *const texts[] = {
        "{\"model_type\":\"gpt2\",\"architectures\":[\"GPT2LMHeadModel\"],\"vocab_size\":50257,\"n_positions\":1024,\"n_embd\":768,"
        "\"n_layer\":12,\"n_head\":12,\"n_inner\":null,\"activation_function\":\"gelu_new\",\"resid_pdrop\":0.1,"
        "\"embd_pdrop\":0.1,\"attn_pdrop\":0.1,"
        "\"layer_norm_epsilon\":1e-05,\"initializer_range\":0.02,\"scale_attn_weights\":true,\"bos_token_id\":50256,\"eos_token_id\":50256,"
        "\"tie_word_embeddings\":true,\"torch_dtype\":\"float32\"}",
        "{\"model_type\":\"gpt2\"}",
        "{\"model_type\":\"gpt2\",\"n_ctx\":8,\"n_embd\":8,\"n_head\":2,\"n_layer\":1,\"vocab_size\":3,\"eos_token_id\":[1,2],"
        "\"summary_type\":\"x\"}",
        "{\"model_type\":\"llama\"}",
        "{\"_from_model_config\":true,\"eos_token_id\":[1,2],\"do_sample\":true,\"temperature\":0.7,\"top_k\":5,\"top_p\":0.9,"
        "\"max_new_tokens\":20,\"min_length\":3,\"repetition_penalty\":1.2,\"bad_words_ids\":[[1]],\"num_beams\":1}",
        NULL};
    fuzz_add_texts(add, texts);
}
