/* Manifests, sealed here. What is accepted is written, and read again as the same. */
#include "dataset/shard/manifest.h"

#include "tests/fuzz/seal.h"

void fuzz(const uint8_t *data, size_t size) {
    struct buf file = {0}, first = {0}, second = {0};
    fuzz_seal(&file, data, size, "MLRDATAS");
    fuzz_file("dataset.pb", file.data, file.size);
    struct manifest manifest;
    if (manifest_read(&manifest, fuzz_folder()) == 0) {
        size_t shard;
        char *path = mem_format("%s/dataset.pb", fuzz_folder());
        for (size_t i = 0; i < manifest.shards; i++) manifest_find_document(&manifest, &shard, manifest.shard[i].first_document);
        for (int side = 0; side < 2; side++) {
            Millrace__Geometry geometry = manifest_geometry(&manifest, side);
            uint64_t sequences = geometry_sequences(&geometry);
            if (sequences) sequence_place(&geometry, sequences - 1);
            if (sequences) CHECK(order_sequence(1, sequences + 3, &geometry, 2) < sequences);
        }
        CHECK(manifest_write(&manifest, fuzz_folder()) == 0 && file_read(&first, path, 1 << 26) == 0);
        manifest_free(&manifest);
        if (manifest_read(&manifest, fuzz_folder()) < 0) fuzz_fail("written is not accepted: %s", err_text());
        CHECK(manifest_write(&manifest, fuzz_folder()) == 0 && file_read(&second, path, 1 << 26) == 0);
        CHECK(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
        manifest_free(&manifest);
        free(path);
    }
    buf_free(&file);
    buf_free(&first);
    buf_free(&second);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    struct shard_entry shards[2] = {{.tokens = 32, .documents = 2, .file_bytes = 900}, {.tokens = 16, .documents = 1, .file_bytes = 500}};
    shard_name(shards[0].name, false, 0);
    shard_name(shards[1].name, true, 0);
    char *sources[] = {"/texts/a.txt", "https://example.org/b.gz"};
    struct manifest manifest = {
        .token_bytes = 2, .eos = 50256, .packing = "concat", .sequence_length = 8, .frame_tokens = 16, .shard_tokens = 32,
        .documents = 3, .tokens = 48, .sequences = 4, .train_documents = 2, .train_tokens = 32, .train_sequences = 3,
        .tokenizer = "gpt2", .policy = "c4", .train_shards = 1, .shards = 2, .shard = shards, .sources = 2, .source = sources,
    };
    for (int i = 0; i < 2; i++, manifest.packing = "pad", manifest.train_sequences = 4, manifest.sequences = 6, manifest.padding = 3) {
        struct buf file = {0};
        char *path = mem_format("%s/dataset.pb", fuzz_folder());
        CHECK(manifest_write(&manifest, fuzz_folder()) == 0 && file_read(&file, path, 1 << 20) == 0);
        add(file.data, file.size - SEAL_BYTES);
        struct manifest again;
        if (manifest_read(&again, fuzz_folder()) < 0) fuzz_fail("seed: %s", err_text());
        manifest_free(&again);
        buf_free(&file);
        free(path);
    }
}
