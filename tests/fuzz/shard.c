/* Shard files: two bytes that say how long the frames are, those, and the index, which is sealed here; the second time with the digests of
 * frames that fit, so that mutations get to zstd. */
#include "dataset/shard/shard.h"

#include "dataset/shard/shard_index.h"
#include "tests/fuzz/seal.h"

static void read_shard(const uint8_t *frames, size_t frames_bytes, const uint8_t *index, size_t index_bytes) {
    struct buf file = {0}, frame = {0}, ids = {0};
    uint8_t head[SKIPPABLE_BYTES];
    skippable_head(head, (uint32_t)(index_bytes + SEAL_BYTES));
    CHECK(buf_append(&file, frames, frames_bytes) == 0 && buf_append(&file, head, sizeof head) == 0);
    fuzz_seal(&file, index, index_bytes, shard_seal.magic);
    struct shard *shard;
    if (shard_open(&shard, fuzz_path(file.data, file.size)) == 0) {
        size_t entry;
        for (size_t f = 0; f < shard_frames(shard) && f < 100; f++) {
            int64_t next;
            buf_clear(&frame);
            buf_clear(&ids);
            if (shard_read_frame(shard, &frame, &next, f) == 0) frame_expand(&ids, frame.data, frame.size, 1 << 20);
        }
        for (size_t i = 0; i < shard_documents(shard) && i < 100; i++) {
            struct shard_document document = shard_document(shard, i);
            CHECK(document.first + document.tokens <= shard_tokens(shard));
            shard_find_document(shard, &entry, document.document);
            if (shard_find_token(shard, &entry, document.first) == 0) CHECK(entry < shard_documents(shard));
        }
        shard_find_token(shard, &entry, shard_tokens(shard));
        if (shard_tokens(shard) < 1 << 20) shard_verify(shard, NULL);
        shard_close(shard);
    }
    buf_free(&file);
    buf_free(&frame);
    buf_free(&ids);
}

/* With digests that fit. */
static void read_forged(const uint8_t *frames, size_t frames_bytes, const uint8_t *bytes, size_t size) {
    Millrace__ShardIndex *index = millrace__shard_index__unpack(NULL, size, bytes);
    if (!index) return;
    for (size_t f = 0; f < index->n_frames; f++) {
        Millrace__ShardFrame *frame = index->frames[f];
        if (frame->digest.len != XXH128_BYTES || frame->offset > frames_bytes || frame->size > frames_bytes - frame->offset) continue;
        xxh128_of(frame->digest.data, frames + frame->offset, frame->size);
    }
    size_t packed = millrace__shard_index__get_packed_size(index);
    uint8_t *forged = malloc(packed + 1);
    CHECK(forged != NULL);
    millrace__shard_index__pack(index, forged);
    read_shard(frames, frames_bytes, forged, packed);
    free(forged);
    millrace__shard_index__free_unpacked(index, NULL);
}

void fuzz(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, size};
    size_t frames = fuzz_number(&input, 2);
    if (frames > input.left) frames = input.left;
    read_shard(input.at, frames, input.at + frames, input.left - frames);
    read_forged(input.at, frames, input.at + frames, input.left - frames);
}

static int read_run(void *arg, uint32_t run, void *out, size_t size_bytes, uint64_t offset) {
    (void)arg, (void)run;
    for (size_t i = 0; i < size_bytes; i++) ((uint8_t *)out)[i] = (offset + i) % 2 ? 0 : (uint8_t)((offset + i) / 6);
    return 0;
}
static int collect(void *arg, const void *bytes, size_t size_bytes) { return buf_append(arg, bytes, size_bytes); }

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    for (uint32_t token_bytes = 2; token_bytes <= 4; token_bytes += 2) {
        uint32_t zeros[3] = {0}, ones[3] = {1, 1, 0};
        uint64_t counts[3] = {9, 9, 12}, firsts[3] = {0, 9, 18}, numbers[3] = {0, 1, 2}, offsets[3] = {0, 40, 90}, none[3] = {0};
        Millrace__PackJob job = MILLRACE__PACK_JOB__INIT;
        job.split = "train";
        job.tokens = 32;
        job.frame_tokens = 16;
        job.token_bytes = token_bytes;
        job.eos = 50256;
        job.n_run = job.n_first = job.n_count = job.n_ends = job.n_padding = job.n_document = job.n_document_token = job.n_skipped =
            job.n_source = job.n_offset = job.n_bytes = 3;
        job.run = job.source = job.padding = zeros;
        job.ends = ones;
        job.first = firsts, job.count = counts, job.document = numbers, job.document_token = job.skipped = none;
        job.offset = job.bytes = offsets;
        struct token_run_reader reader = {.read = read_run};
        Millrace__PackResult result;
        struct buf file = {0}, seed = {0};
        millrace__pack_result__init(&result);
        if (shard_build(&result, &job, &reader, collect, &file, NULL, NULL) < 0) fuzz_fail("seed: %s", err_text());
        struct shard *shard;
        if (shard_open(&shard, fuzz_path(file.data, file.size)) < 0) fuzz_fail("seed: %s", err_text());
        shard_close(shard);
        const uint8_t *footer = file.data + file.size - SEAL_BYTES;
        struct seal seal;
        CHECK(seal_read(&seal, footer, &shard_seal) == 0);
        size_t frames = file.size - SEAL_BYTES - seal.size_bytes - SKIPPABLE_BYTES;
        uint8_t length[2] = {(uint8_t)(frames >> 8), (uint8_t)frames};
        CHECK(buf_append(&seed, length, 2) == 0 && buf_append(&seed, file.data, frames) == 0);
        CHECK(buf_append(&seed, footer - seal.size_bytes, seal.size_bytes) == 0);
        add(seed.data, seed.size);
        buf_free(&file);
        buf_free(&seed);
    }
}
