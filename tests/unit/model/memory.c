/* Bytes that are counted against those that are taken. */
#include <malloc.h>
#include <stdio.h>

#include "base/pool.h"
#include "tests/unit/model/small_model.h"

/* In bytes handed out by the allocator, mapped ones among them. */
static size_t allocated(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void check(const struct gpt2_config *config, int batch, int T, bool training, struct pool *pool) {
    struct gpt2 *model;
    size_t before = allocated();
    assert_int_equal(gpt2_open(&model, config, batch, T, training, pool), 0);
    double taken = (double)(allocated() - before);
    struct gpt2_memory memory = gpt2_memory(config, batch, T, training, pool_threads(pool));
    double slack = 12 * (2 << 20); /* large pieces end at a huge page */
    print_message("%d layers, %d wide, %d of %d: ", config->n_layer, config->n_embd, batch, T);
    print_message("%zu counted, %.0f taken\n", memory.total, taken);
    assert_int_equal(memory.total, memory.kept + memory.scratch + memory.panels + memory.attention + memory.head);
    assert_true((double)memory.total <= taken + 1024 && taken <= (double)memory.total * 1.01 + (taken > 16 << 20 ? slack : 65536));
    gpt2_close(model);
}

/* Sanitizers bring allocators of their own, which do not. */
static bool allocator_tells(void) {
    size_t before = allocated();
    void *probe = malloc(1 << 20);
    bool tells = probe && allocated() - before >= 1 << 20;
    free(probe);
    return tells;
}

static void what_is_counted_is_what_opening_takes(void **state) {
    (void)state;
    struct pool *pool;
    if (!allocator_tells()) {
        print_message("this allocator does not tell what it has handed out\n");
        skip();
    }
    assert_int_equal(pool_open(&pool, 3), 0);
    for (int i = 0; i < 16; i++) {
        struct gpt2_config small = small_config(), larger = small_config();
        larger.n_layer = 4, larger.n_embd = 256, larger.n_inner = 1024, larger.n_positions = 256, larger.vocab_size = 5003;
        small.bf16 = larger.bf16 = i & 1, small.gradient_checkpointing = larger.gradient_checkpointing = i & 2;
        small.document_mask = larger.document_mask = i & 4;
        check(&small, 3, 24, i & 8, pool);
        check(&larger, 8, 200, i & 8, pool);
    }
    pool_close(pool);
}

static void what_no_machine_has_is_counted_without_wrapping(void **state) {
    (void)state;
    struct gpt2_config config = {
        .vocab_size = 1 << 24, .n_positions = 1 << 20, .n_embd = 1 << 16, .n_layer = 1024, .n_head = 1, .n_inner = 1 << 20};
    struct gpt2_memory memory = gpt2_memory(&config, 1 << 20, 1 << 20, true, 256);
    assert_true(memory.total > (size_t)1 << 55 && memory.total >= memory.kept && memory.total >= memory.head);
    config.gradient_checkpointing = true;
    assert_true(gpt2_memory(&config, 1 << 20, 1 << 20, true, 256).kept < memory.kept);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_counted_is_what_opening_takes),
        cmocka_unit_test(what_no_machine_has_is_counted_without_wrapping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
