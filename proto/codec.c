/* zstd, one context a thread, and byte planes.
 *
 * A float32 gradient hardly compresses as it is. Regrouped, one quarter of it (sign and seven bits of exponent) shrinks to a
 * third, and three quarters are noise, which zstd notices and copies. For that quarter the search for matches is a
 * waste; only the entropy coder earns anything. So planes use a fast negative level with Huffman coding of the literals
 * forced on: twice as fast as level 1, and no larger. */
#define ZSTD_STATIC_LINKING_ONLY  /* for the name of ZSTD_c_literalCompressionMode alone; its number is in the stable enum */
#include "proto/codec.h"

#include <pthread.h>
#include <stdlib.h>
#include <zstd.h>

#include "base/err.h"
#include "base/mem.h"

enum {
    CODEC_LEVEL = 1,
    CODEC_PLANES_LEVEL = -20,
    SCRATCH_KEEP_MAX = 20 << 20,  /* bytes a thread keeps between calls: a full chunk and some body */
};

struct codec {
    ZSTD_CCtx *compress;
    ZSTD_DCtx *decompress;
    uint8_t *scratch;
    size_t scratch_bytes;
};

static pthread_key_t codec_key;
static pthread_once_t codec_once = PTHREAD_ONCE_INIT;

static void codec_end(void *arg) {
    struct codec *codec = arg;
    ZSTD_freeCCtx(codec->compress);
    ZSTD_freeDCtx(codec->decompress);
    free(codec->scratch);
    free(codec);
}

static void codec_begin(void) { CHECK(pthread_key_create(&codec_key, codec_end) == 0); }

static struct codec *codec_here(void) {
    CHECK(pthread_once(&codec_once, codec_begin) == 0);
    struct codec *codec = pthread_getspecific(codec_key);
    if (codec) return codec;
    codec = mem_alloc(sizeof *codec);
    codec->compress = ZSTD_createCCtx();
    codec->decompress = ZSTD_createDCtx();
    CHECK(codec->compress && codec->decompress);
    CHECK(pthread_setspecific(codec_key, codec) == 0);
    return codec;
}

uint8_t *codec_scratch(size_t size_bytes) {
    struct codec *codec = codec_here();
    if (codec->scratch && codec->scratch_bytes >= size_bytes && (codec->scratch_bytes <= SCRATCH_KEEP_MAX || size_bytes > SCRATCH_KEEP_MAX))
        return codec->scratch;
    free(codec->scratch);
    uint8_t *scratch = malloc(size_bytes + 1);
    codec->scratch = scratch;
    codec->scratch_bytes = scratch ? size_bytes : 0;
    if (!scratch) mem_wanted(size_bytes, " for packing or unpacking a message");
    return scratch;
}

/* Plain loops: gcc and clang turn them into byte shuffles at -O2 (12 GB/s with SSE2). */
void planes_split(uint8_t *restrict out, const uint8_t *restrict values, size_t count) {
    uint8_t *a = out, *b = out + count, *c = out + 2 * count, *d = out + 3 * count;
    for (size_t i = 0; i < count; i++) {
        uint32_t value;
        __builtin_memcpy(&value, values + 4 * i, sizeof value);
        a[i] = (uint8_t)(value >> 24);
        b[i] = (uint8_t)(value >> 16);
        c[i] = (uint8_t)(value >> 8);
        d[i] = (uint8_t)value;
    }
}

void planes_join(uint8_t *restrict out_values, const uint8_t *restrict planes, size_t count) {
    const uint8_t *a = planes, *b = planes + count, *c = planes + 2 * count, *d = planes + 3 * count;
    for (size_t i = 0; i < count; i++) {
        uint32_t value = (uint32_t)a[i] << 24 | (uint32_t)b[i] << 16 | (uint32_t)c[i] << 8 | d[i];
        __builtin_memcpy(out_values + 4 * i, &value, sizeof value);
    }
}

static void codec_set(ZSTD_CCtx *context, bool planes) {
    ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters);
    int level = planes ? CODEC_PLANES_LEVEL : CODEC_LEVEL;
    CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)));
    /* A zstd without this parameter compresses less, and right. */
    if (planes) (void)ZSTD_CCtx_setParameter(context, ZSTD_c_literalCompressionMode, ZSTD_lcm_huffman);
}

int codec_compress(struct buf *out, const uint8_t *raw, size_t raw_bytes, bool planes) {
    ZSTD_CCtx *context = codec_here()->compress;
    size_t room = ZSTD_compressBound(raw_bytes);
    uint8_t *bytes = malloc(room + 1);
    if (!bytes) return mem_wanted(room, " for packing a message");
    codec_set(context, planes);
    size_t size = ZSTD_compress2(context, bytes, room, raw, raw_bytes);
    if (ZSTD_isError(size) || size >= raw_bytes) {  /* the only error here is memory, and then uncompressed will do */
        free(bytes);
        return 0;
    }
    uint8_t *fitted = realloc(bytes, size + 1);
    buf_free(out);
    *out = (struct buf){.data = fitted ? fitted : bytes, .size = size, .capacity = size + 1};
    out->data[size] = 0;
    return 1;
}

int codec_decompress(uint8_t *out, size_t raw_bytes, const uint8_t *in, size_t in_bytes) {
    if (ZSTD_getFrameContentSize(in, in_bytes) != raw_bytes || ZSTD_isSkippableFrame(in, in_bytes))
        return err_set(ERR_CORRUPT, "the compressed bytes are no zstd frame of %zu bytes", raw_bytes);
    if (ZSTD_findFrameCompressedSize(in, in_bytes) != in_bytes)
        return err_set(ERR_CORRUPT, "the compressed bytes are not exactly one zstd frame");
    size_t size = ZSTD_decompressDCtx(codec_here()->decompress, out, raw_bytes, in, in_bytes);
    if (ZSTD_isError(size)) return err_set(ERR_CORRUPT, "zstd: %s", ZSTD_getErrorName(size));
    if (size != raw_bytes) return err_set(ERR_CORRUPT, "%zu bytes came out of zstd instead of %zu", size, raw_bytes);
    return 0;
}
