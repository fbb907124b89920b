/* millrace_state.json. Its last key is the digest of the keys before it, so an input is tried as it is and with a digest that fits. What is
 * accepted is printed, and accepted again as the same. */
#include "model/checkpoint/checkpoint_record.h"

#include <jansson.h>

#include "tests/fuzz/fuzz.h"

static void parse(const char *text, size_t size) {
    struct checkpoint_record record, again;
    if (checkpoint_record_parse(&record, "millrace_state.json", text, size) < 0) return;
    struct buf first = {0}, second = {0};
    CHECK(checkpoint_record_print(&first, &record) == 0);
    if (checkpoint_record_parse(&again, "printed", (const char *)first.data, first.size) < 0)
        fuzz_fail("printed is not accepted: %s\n%s", err_text(), (const char *)first.data);
    CHECK(checkpoint_record_print(&second, &again) == 0);
    CHECK(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
    buf_free(&first);
    buf_free(&second);
}

void fuzz(const uint8_t *data, size_t size) {
    parse((const char *)data, size);
    json_t *root = json_loadb((const char *)data, size, 0, NULL);
    if (json_is_object(root)) {
        json_object_del(root, "sha256");
        char *text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
        uint8_t digest[SHA256_BYTES];
        char hex[SHA256_HEX];
        sha256_of(digest, text ? text : "", text ? strlen(text) : 0);
        hex_of(hex, digest, sizeof digest);
        free(text);
        json_object_set_new(root, "sha256", json_string(hex));
        text = json_dumps(root, 0);
        if (text) parse(text, strlen(text));
        free(text);
    }
    json_decref(root);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    struct checkpoint_record record = {
        .facts = {.step = 100, .max_steps = 1000, .tokens_seen = 1 << 20, .epoch = 0.25, .train_loss = 3.5, .eval_loss = 0.0 / 0.0,
                  .has_optimizer = true,
                  .has_ema = true},
        .small_files = 2,
        .small_file = {{"config.json", {1, 2, 3}}, {"tokenizer.json", {4}}},
    };
    for (; record.small_files < 3; record.small_files += 2, record.facts.has_optimizer = false) {
        struct buf text = {0};
        CHECK(checkpoint_record_print(&text, &record) == 0);
        add(text.data, text.size);
        buf_free(&text);
    }
    static const char *const texts[] = {"{\"epoch\":1.0,\"global_step\":3,\"log_history\":[{\"loss\":2}]}", NULL};
    fuzz_add_texts(add, texts);
}
