/* Fills a struct vocabulary, from GPT-2's list of merges or from Hugging Face's files. It owns the bytes of the tokens and a hash table of
 * the merges; merging is done elsewhere. */
#include "dataset/tokenizer/vocabulary.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/unicode/utf8.h"

/* ---- Bytes as letters ----
 *
 * The table of letters, made once. */

static struct byte_letters letters_table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_letters(void) {
    unsigned others = 0, printable = 0;
    memset(letters_table.byte, -1, sizeof letters_table.byte);
    for (unsigned b = 0; b < 256; b++) {
        letters_table.letter[b] = (uint16_t)(letter_is_itself(b) ? b : 256 + others++);
        letters_table.byte[letters_table.letter[b]] = (int16_t)b;
    }
    for (unsigned letter = 0; letter < LETTERS_END; letter++)
        if (letters_table.byte[letter] >= 0) letters_table.order[printable++] = (uint8_t)letters_table.byte[letter];
}

const struct byte_letters *byte_letters(void) {
    pthread_once(&once, make_letters);
    return &letters_table;
}

ptrdiff_t byte_letters_read(uint8_t *out, const char *text, size_t size) {
    const struct byte_letters *letters = byte_letters();
    const uint8_t *p = (const uint8_t *)text, *end = p + size;
    ptrdiff_t count = 0;
    while (p < end) {
        int length = utf8_measure(p, (size_t)(end - p));
        if (length <= 0) return -1;
        uint32_t letter = utf8_character(p);
        if (letter >= LETTERS_END || letters->byte[letter] < 0) return -1;
        out[count++] = (uint8_t)letters->byte[letter];
        p += length;
    }
    return count;
}

/* ---- Vocabularies ---- */

static const char HEADER[] = "#version: 0.2\n", END_OF_TEXT[] = "<|endoftext|>";
enum { STRING_SLOTS_LOG2 = 17 };

/* Reading: tokens by their bytes, only while the merges are read. */
struct string_table {
    const struct vocabulary *vocabulary;
    uint16_t slot[1 << STRING_SLOTS_LOG2]; /* id + 1, 0: free */
};

/* The slot of those bytes, or the free one where they belong. */
static uint16_t *string_slot(struct string_table *table, const uint8_t *bytes, size_t size) {
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a: the strings are short and nobody chooses them */
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001B3u;
    const struct vocabulary *v = table->vocabulary;
    for (size_t i = hash >> (64 - STRING_SLOTS_LOG2);; i = (i + 1) & ((1u << STRING_SLOTS_LOG2) - 1)) {
        uint16_t id = table->slot[i];
        if (id == 0) return &table->slot[i];
        id--;
        if (v->length[id] == size && memcmp(v->text.data + v->first[id], bytes, size) == 0) return &table->slot[i];
    }
}

static int add_token(struct vocabulary *v, uint32_t id, const void *bytes, size_t size) {
    v->length[id] = (uint8_t)size;
    v->first[id] = (uint32_t)v->text.size;
    return buf_append(&v->text, bytes, size);
}

/* Turns text up to `stop` into bytes. Returns where it went on behind stop, NULL when the text is not a token. */
static const uint8_t *read_token(uint8_t *bytes, size_t *size, const uint8_t *p, const uint8_t *end, char stop) {
    const uint8_t *stopped = memchr(p, stop, (size_t)(end - p));
    if (!stopped || stopped - p > 2 * VOCABULARY_TOKEN_BYTES_MAX) return NULL;
    ptrdiff_t count = byte_letters_read(bytes, (const char *)p, (size_t)(stopped - p));
    *size = (size_t)count;
    return count > 0 && count <= VOCABULARY_TOKEN_BYTES_MAX ? stopped + 1 : NULL;
}

static void add_merge(struct vocabulary *v, uint32_t left, uint32_t right, uint32_t merged) {
    uint32_t pair = left << 16 | right, i = pair * 0x9E3779B1u >> (32 - VOCABULARY_SLOTS_LOG2);
    while (v->slot[i].merged != NO_MERGE) i = (i + 1) & ((1u << VOCABULARY_SLOTS_LOG2) - 1);
    v->slot[i] = (struct merge_slot){pair, merged};
}

static int add_bytes(struct vocabulary *v) {
    const struct byte_letters *letters = byte_letters();
    for (unsigned id = 0; id < 256; id++) v->byte_id[letters->order[id]] = (uint8_t)id;
    for (unsigned b = 0; b < 256; b++) {
        uint8_t byte = (uint8_t)b;
        v->length[v->byte_id[b]] = 1;
        v->first[v->byte_id[b]] = b;
        TRY(buf_append(&v->text, &byte, 1));
    }
    return 0;
}

static int read_merge(struct vocabulary *v, struct string_table *table, uint32_t id, const uint8_t **p, const uint8_t *end) {
    uint8_t bytes[3 * VOCABULARY_TOKEN_BYTES_MAX]; /* the second may turn out to be twice too long */
    size_t left_size, right_size;
    const uint8_t *next = read_token(bytes, &left_size, *p, end, ' ');
    if (next) next = read_token(bytes + left_size, &right_size, next, end, '\n');
    if (!next || left_size + right_size > VOCABULARY_TOKEN_BYTES_MAX) return ERR_CORRUPT;
    uint32_t left = *string_slot(table, bytes, left_size), right = *string_slot(table, bytes + left_size, right_size);
    uint16_t *merged = string_slot(table, bytes, left_size + right_size);
    if (!left || !right || *merged) return ERR_CORRUPT; /* both tokens come before what they make; nothing is made twice */
    left--, right--;
    TRY(add_token(v, id, bytes, left_size + right_size));
    *merged = (uint16_t)(id + 1);
    add_merge(v, left, right, id);
    *p = next;
    return 0;
}

static int read_merges(struct vocabulary *v, struct string_table *table, const uint8_t *p, const uint8_t *end) {
    TRY(add_bytes(v));
    v->ids = 256 + VOCABULARY_MERGES;
    for (unsigned b = 0; b < 256; b++) {
        uint8_t byte = (uint8_t)b;
        *string_slot(table, &byte, 1) = (uint16_t)(v->byte_id[b] + 1);
    }
    size_t header = sizeof HEADER - 1;
    if ((size_t)(end - p) < header || memcmp(p, HEADER, header) != 0)
        return err_set(ERR_CORRUPT, "the vocabulary's first line is not '#version: 0.2'");
    p += header;
    for (uint32_t i = 0; i < VOCABULARY_MERGES; i++)
        if (read_merge(v, table, 256 + i, &p, end) < 0)
            return err_set(ERR_CORRUPT, "the vocabulary's line %u is not a merge of two known tokens into a new one", i + 2);
    if (p != end) return err_set(ERR_CORRUPT, "the vocabulary has more than %d merges", VOCABULARY_MERGES);
    return add_token(v, GPT2_END_OF_TEXT, END_OF_TEXT, sizeof END_OF_TEXT - 1);
}

static struct vocabulary *make(void) {
    struct vocabulary *v = mem_alloc(sizeof *v);
    for (size_t i = 0; i < sizeof v->slot / sizeof *v->slot; i++) v->slot[i] = (struct merge_slot){UINT32_MAX, NO_MERGE};
    return v;
}

int vocabulary_open(struct vocabulary **out, const char *merges, size_t merges_bytes) {
    struct vocabulary *v = make();
    struct string_table *table = mem_alloc(sizeof *table);
    table->vocabulary = v;
    int code = read_merges(v, table, (const uint8_t *)merges, (const uint8_t *)merges + merges_bytes);
    free(table);
    if (code < 0) vocabulary_close(v);
    else *out = v;
    return code;
}

/* inner: id outside -> id here, HF_NONE where there is none yet. */
static int take_merges(struct vocabulary *v, uint32_t *inner, const struct hf_tokenizer *hf) {
    for (unsigned b = 0; b < 256; b++) {
        v->outer[v->byte_id[b]] = hf->byte_id[b];
        inner[hf->byte_id[b]] = v->byte_id[b];
    }
    for (uint32_t i = 0; i < hf->merges; i++) {
        const struct hf_merge *merge = &hf->merge[i];
        const struct hf_token *token = &hf->token[merge->merged];
        uint32_t left = inner[merge->left], right = inner[merge->right];
        bool fits = left != HF_NONE && right != HF_NONE && inner[merge->merged] == HF_NONE && token->size <= VOCABULARY_TOKEN_BYTES_MAX;
        if (!fits) return err_set(ERR_UNSUPPORTED, "merge %u is not one of two earlier tokens into a new, short one", i);
        v->outer[256 + i] = merge->merged;
        inner[merge->merged] = 256 + i;
        TRY(add_token(v, 256 + i, hf->text.data + token->first, token->size));
        add_merge(v, left, right, 256 + i);
    }
    return 0;
}

int vocabulary_of(struct vocabulary **out, const struct hf_tokenizer *hf) {
    if (hf->merges > VOCABULARY_IDS_MAX - 256) return err_set(ERR_UNSUPPORTED, "%u merges", hf->merges);
    struct vocabulary *v = make();
    v->ids = 256 + hf->merges;
    v->outer = mem_alloc(v->ids * sizeof *v->outer);
    uint32_t *inner = mem_alloc((hf->ids + 1) * sizeof *inner);
    memset(inner, 0xFF, hf->ids * sizeof *inner);
    int code = add_bytes(v);
    if (code == 0) code = take_merges(v, inner, hf);
    free(inner);
    bool same = true;
    for (uint32_t id = 0; id < v->ids && code == 0; id++) same = same && v->outer[id] == id;
    if (same) free(v->outer), v->outer = NULL;
    if (code < 0) vocabulary_close(v);
    else *out = v;
    return code;
}

void vocabulary_close(struct vocabulary *vocabulary) {
    if (!vocabulary) return;
    free(vocabulary->outer);
    buf_free(&vocabulary->text);
    free(vocabulary);
}
