/* `millrace tokenizer`: trains one from text, or shows what is in one. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/plain.h"
#include "cli/commands.h"
#include "cli/dataset_commands.h"
#include "cli/follow.h"
#include "cli/options.h"
#include "cli/output.h"
#include "config/paths.h"
#include "dataset/shard/manifest.h"
#include "dataset/source/sources.h"
#include "dataset/source/text_file.h"
#include "dataset/tokenizer/train.h"

enum { READ_BYTES = 1 << 20, TOKENIZER_FILE_BYTES_MAX = 1 << 30, PROGRESS_MS = 1000, PROGRESS_LINES_MS = 10000 };

/* Before hours of training: not among the files of a run, a dataset or a model. */
static int check_folder(const char *folder) {
    static const struct {
        const char *name, *what;
    } others[] = {{"state/millrace.db", "the output_dir of a run"}, {MANIFEST_NAME, "a dataset"}, {"model.safetensors", "a model"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *path = mem_format("%s/%s", folder, others[i].name);
        bool there = file_exists(path);
        free(path);
        if (there) return err_set(ERR_USAGE, "tokenizer train: %s is %s; choose another folder for --output", folder, others[i].what);
    }
    return 0;
}

static int refuse_other(const char *folder) {
    return err_set(ERR_USAGE, "%s holds another tokenizer already, which stays as it is; choose another folder for --output, or move that "
                   "one away", folder);
}

/* More tokens than will be trained: it is another one, as is what cannot be read. */
static int check_vocabulary(const char *path, const char *folder, int64_t vocab_size) {
    struct tokenizer *there = NULL;
    bool other = tokenizer_open(&there, path) < 0 || tokenizer_vocabulary(there) > vocab_size;
    tokenizer_close(there);
    return other ? refuse_other(folder) : 0;
}

/* The folder, or the first above it that is there. The caller frees. */
static char *nearest_there(const char *folder) {
    char *place = mem_text(folder);
    while (!file_exists(place)) {
        char *slash = strrchr(place, '/');
        if (!slash) strcpy(place, ".");
        else slash[slash == place] = 0;
    }
    return place;
}

/* Before hours of training, too: whether files can be made there. The folder comes when there is something for it. */
static int check_place(const char *folder, int64_t vocab_size) {
    struct draft draft;
    char *place = nearest_there(folder), *path = mem_format("%s/tokenizer.json", folder), *tried = mem_format("%s/tokenizer.json", place);
    int code = folder_make(place); /* is it one? */
    if (code == 0) code = file_check_place(path, FILE_PUBLISHED);
    if (code == 0 && file_exists(path)) code = check_vocabulary(path, folder, vocab_size);
    if (code == 0) code = draft_open(&draft, tried);
    if (code == 0) draft_discard(&draft);
    free(place);
    free(path);
    free(tried);
    return code < 0 ? err_add(code, "--output %s", folder) : 0;
}

/* The same one again does no harm. */
static int check_other(const struct tokenizer_file *file, const char *folder) {
    struct buf there = {0};
    char *path = mem_format("%s/%s", folder, file->name);
    int code = file_exists(path) ? file_read(&there, path, TOKENIZER_FILE_BYTES_MAX) : 0;
    bool other = code == 0 && file_exists(path) &&
                 (there.size != file->text.size || (there.size && memcmp(there.data, file->text.data, there.size) != 0));
    if (other) code = refuse_other(folder);
    buf_free(&there);
    free(path);
    return code;
}

static int write_files(const struct tokenizer_file *file, size_t count, const char *folder) {
    for (size_t i = 0; i < count; i++) TRY(check_other(&file[i], folder));
    TRY(folder_make(folder));
    int code = 0;
    for (size_t i = 0; i < count && code == 0; i++) {
        char *path = mem_format("%s/%s", folder, file[i].name);
        code = file_publish(path, file[i].text.data, file[i].text.size);
        free(path);
    }
    return code;
}

/* Beside the folder that is not to be had: it took hours. Then that folder's fault is told, and the place. */
static int write_aside(const struct tokenizer *tokenizer, const struct tokenizer_file *file, size_t count, const char *folder, int fault) {
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX];
    tokenizer_digest(tokenizer, digest);
    hex_of(hex, digest, sizeof digest);
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/') length--;
    char *why = mem_text(err_text()), *aside = mem_format("%.*s.%.8s", (int)length, folder, hex);
    bool kept = write_files(file, count, aside) == 0;
    int code = kept ? err_set(fault, "%s; what was trained is in %s", why, aside) : err_set(fault, "%s", why);
    free(why);
    free(aside);
    return code;
}

static int write_folder(const struct tokenizer *tokenizer, const char *folder) {
    struct tokenizer_file file[TOKENIZER_FILES_MAX];
    size_t count;
    TRY(tokenizer_print_files(tokenizer, file, &count, 0));
    int code = write_files(file, count, folder);
    if (code < 0) code = write_aside(tokenizer, file, count, folder, code);
    tokenizer_files_free(file);
    return code;
}

static int tell(const struct tokenizer *tokenizer, const char *name, uint64_t bytes, bool json) {
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX];
    tokenizer_digest(tokenizer, digest);
    hex_of(hex, digest, sizeof digest);
    int64_t ids = tokenizer_vocabulary(tokenizer), bos = tokenizer_bos(tokenizer), eos = tokenizer_eos(tokenizer);
    if (json) {
        json_t *object = json_object();
        json_object_set_new(object, "tokenizer", output_json_text(name, strlen(name)));
        json_object_set_new(object, "vocab_size", json_integer(ids));
        json_object_set_new(object, "bos_token_id", bos < 0 ? json_null() : json_integer(bos));
        json_object_set_new(object, "eos_token_id", eos < 0 ? json_null() : json_integer(eos));
        json_object_set_new(object, "token_bytes", json_integer(tokenizer_token_bytes(tokenizer)));
        json_object_set_new(object, "cuts", json_boolean(tokenizer_cuts(tokenizer)));
        json_object_set_new(object, "digest", json_string(hex));
        if (bytes) json_object_set_new(object, "text_bytes", json_integer((json_int_t)bytes));
        return output_json(object);
    }
    printf("tokenizer   %s\nvocabulary  %s ids, %u bytes each in a dataset\n", name, text_count((uint64_t)ids),
           tokenizer_token_bytes(tokenizer));
    if (bos >= 0) printf("begin       %" PRId64 "\n", bos);
    if (eos >= 0) printf("end         %" PRId64 "\n", eos);
    bool cuts = tokenizer_cuts(tokenizer);
    printf("documents   may be %s\n", cuts ? "of any length"
                                         : "of up to 64 MiB: the pattern is not known, and so they are tokenized as a whole");
    printf("digest      %s\n", hex);
    return 0;
}

static int tokenizer_info(int argc, char **argv) {
    bool json = false;
    const struct option_spec options[] = {OPTION_JSON(&json), {0}};
    static const struct usage usage = {"tokenizer info",
                                       "NAME [OPTIONS]",
                                       "Opens a tokenizer and says what it has: gpt2, or a Hugging Face folder or tokenizer.json.",
                                       "millrace tokenizer info gpt2\nmillrace tokenizer info models/Qwen2.5",
                                       1,
                                       1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    struct tokenizer *tokenizer;
    TRY(tokenizer_open(&tokenizer, arguments[0]));
    code = tell(tokenizer, arguments[0], 0, json);
    tokenizer_close(tokenizer);
    return code;
}

/* ---- train ---- */

struct shown {
    bool terminal;
    int64_t next_ms;
    uint64_t bytes;
};

static int show(void *arg, const struct train_progress *p) {
    struct shown *shown = arg;
    int64_t now = clock_ms();
    shown->bytes = p->bytes;
    if (now < shown->next_ms) return 0;
    shown->next_ms = now + (shown->terminal ? PROGRESS_MS : PROGRESS_LINES_MS);
    const char *end = shown->terminal ? "\033[K\r" : "\n";
    if (p->tokens == 0) fprintf(stderr, "counting  %s of text%s", text_bytes((double)p->bytes), end);
    else
        fprintf(stderr, "merging   %s different pre-token%s; %s of %s tokens%s", text_count(p->pretokens), plural(p->pretokens),
                text_count((uint64_t)p->tokens), text_count((uint64_t)p->wanted), end);
    return 0;
}

/* text_only: files that are no text are left out, and listed. */
static int feed_file(struct bpe_trainer *trainer, const char *path, bool text_only) {
    struct text_file *file;
    int opened = text_file_open(&file, path, &(struct text_file_options){0});
    if (opened == ERR_CONFIG && text_only) {
        fprintf(stderr, "left out  %s\n", err_text());
        return 0;
    }
    TRY(opened);
    uint8_t *bytes = mem_alloc(READ_BYTES);
    int code = 0;
    for (size_t got = 1; code == 0 && got > 0;) {
        code = text_file_read(file, bytes, &got, READ_BYTES);
        if (code == 0 && got > 0) code = bpe_trainer_feed(trainer, bytes, got);
    }
    if (code == 0) output_warn(text_file_left_out(file));
    if (code == 0) output_warn(text_file_warning(file));
    if (code == 0) output_warn(text_file_json_warning(file));
    free(bytes);
    text_file_close(file);
    return code == 0 ? bpe_trainer_end(trainer) : code;
}

/* A dataset's tokens on their way back to text. Where documents begin, the shards' indexes tell: with pad and best_fit not every document
 * has an end-of-text token behind it. */
struct decoding {
    struct bpe_trainer *trainer;
    const struct tokenizer *tokenizer;
    uint32_t eos;
    const struct shard *shard;
    uint64_t at;                 /* token of the shard */
    size_t entry;                /* of its documents: the next one */
    struct shard_document last;  /* the one before it, of whichever shard */
    struct buf text;
};

/* Tokens of one document, or of padding. */
static int feed_part(struct decoding *d, const uint32_t *id, size_t count) {
    for (size_t i = 0; i < count;) {
        size_t n = i;
        while (n < count && id[n] != d->eos) n++;
        buf_clear(&d->text);
        TRY(tokenizer_decode(d->tokenizer, &d->text, id + i, n - i));
        TRY(bpe_trainer_feed(d->trainer, d->text.data, d->text.size));
        if (n < count) TRY(bpe_trainer_end(d->trainer));
        i = n + 1;
    }
    return 0;
}

/* At the place where the next entry begins: it goes on with the document of the last one, or the text ends. */
static int next_entry(struct decoding *d) {
    struct shard_document entry = shard_document(d->shard, d->entry++), last = d->last;
    d->last = entry;
    bool goes_on = entry.document == last.document && entry.document_token == last.document_token + last.tokens;
    return goes_on ? 0 : bpe_trainer_end(d->trainer);
}

static int feed_tokens(void *arg, const uint32_t *id, size_t count) {
    struct decoding *d = arg;
    while (count > 0) {
        uint64_t next = d->entry < shard_documents(d->shard) ? shard_document(d->shard, d->entry).first : UINT64_MAX;
        if (next <= d->at) {
            TRY(next_entry(d));
            continue;
        }
        size_t n = next - d->at < count ? (size_t)(next - d->at) : count;
        TRY(feed_part(d, id, n));
        id += n, count -= n, d->at += n;
    }
    return 0;
}

static int feed_shard(struct decoding *d, const struct opened *opened, size_t number) {
    struct shard *shard;
    TRY(opened_shard(&shard, opened, false, number));
    d->shard = shard, d->at = 0, d->entry = 0;
    int code = opened_tokens(opened, false, number * opened->manifest.shard_tokens, shard_tokens(shard), feed_tokens, d);
    shard_close(shard);
    return code;
}

static int feed_dataset(struct bpe_trainer *trainer, const char *path) {
    struct opened opened;
    struct tokenizer *tokenizer;
    TRY(opened_open(&opened, path));
    int code = opened_tokenizer(&tokenizer, &opened, NULL);
    if (code == 0) {
        struct decoding decoding = {.trainer = trainer, .tokenizer = tokenizer, .eos = opened.manifest.eos};
        for (size_t i = 0; i < opened.manifest.train_shards && code == 0; i++) code = feed_shard(&decoding, &opened, i);
        if (code == 0) code = bpe_trainer_end(trainer);
        buf_free(&decoding.text);
        tokenizer_close(tokenizer);
    }
    opened_close(&opened);
    return code < 0 ? err_add(code, "%s", path) : 0;
}

/* There is no pipeline.yaml whose key could be meant. */
static int without_key(int code) {
    static const char key[] = "dataset.sources: ";
    size_t skipped = strncmp(err_text(), key, sizeof key - 1) == 0 ? sizeof key - 1 : 0;
    return err_set(code, "tokenizer train: %s", err_text() + skipped);
}

static void tell_passed(const struct sources *sources) {
    for (size_t i = 0; i < sources->passed_count; i++) {
        const struct source_passed *passed = &sources->passed[i];
        fprintf(stderr, "sources   skipped: ");
        output_plain(stderr, passed->path, strlen(passed->path));
        fprintf(stderr, "%s, %s\n", passed->others ? " and others" : "", passed->why);
    }
}

/* The files in it and below, as dataset.sources takes a folder. */
static int feed_texts(struct bpe_trainer *trainer, const char *folder) {
    char *real = realpath(folder, NULL);
    if (!real) return err_errno("open %s", folder);
    struct buf pattern = {0};
    struct sources sources;
    int code = path_absolute(&pattern, ".", real, true);
    char *path[] = {(char *)pattern.data};
    const struct source_group group = {.name = (char *)folder, .paths = {.item = path, .count = 1}};
    if (code == 0) code = sources_find(&sources, &group, 1, NULL);
    if (code < 0) code = without_key(code);
    if (code == 0) tell_passed(&sources);
    for (size_t i = 0; code == 0 && i < sources.count; i++) code = feed_file(trainer, sources.source[i].path, true);
    if (code == 0) sources_free(&sources);
    buf_free(&pattern);
    free(real);
    return code;
}

static bool is_dataset(const char *path) {
    char *manifest = mem_format("%s/" MANIFEST_NAME, path), *inner = mem_format("%s/dataset/" MANIFEST_NAME, path);
    bool is = file_exists(manifest) || file_exists(inner);
    free(manifest);
    free(inner);
    return is;
}

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int feed_path(struct bpe_trainer *trainer, const char *path) {
    if (!is_folder(path)) return feed_file(trainer, path, false);
    return is_dataset(path) ? feed_dataset(trainer, path) : feed_texts(trainer, path);
}

static int train(const struct train_options *options, char **paths, int count, const char *output, bool json, struct shown *shown) {
    struct bpe_trainer *trainer;
    struct tokenizer *tokenizer = NULL;
    TRY(bpe_trainer_open(&trainer, options));
    int code = 0;
    for (int i = 0; i < count && code == 0; i++) code = feed_path(trainer, paths[i]);
    if (code == 0) code = bpe_trainer_finish(trainer, &tokenizer);
    bpe_trainer_close(trainer);
    if (shown->terminal) fprintf(stderr, "\033[K");
    if (code == 0 && shown->bytes == 0)
        code = err_set(ERR_CONFIG, "tokenizer train: there is no text in what it was given; name files that have some");
    if (code == 0) code = write_folder(tokenizer, output);
    if (code == 0) code = tell(tokenizer, output, shown->bytes, json);
    if (code == 0 && tokenizer_vocabulary(tokenizer) < options->vocab_size)
        fprintf(json ? stderr : stdout, "fewer       than the %s tokens asked for: the text has no more pairs to merge\n",
                text_count((uint64_t)options->vocab_size));
    tokenizer_close(tokenizer);
    return code;
}

static int tokenizer_train(int argc, char **argv) {
    static const char *const default_special[] = {"<|endoftext|>"};
    int64_t vocab_size = 0, min_frequency = 2, threads = 0;
    const char *output = NULL;
    struct option_list special = {0};
    bool json = false;
    const struct option_spec options[] = {
        {"vocab-size", 0, OPTION_INT, &vocab_size, 1, 1 << 24, "N", "tokens, special ones and the 256 bytes included"},
        {"output", 'o', OPTION_TEXT, &output, 0, 0, "DIR", "where the tokenizer's files go, as Hugging Face names them"},
        {"min-frequency", 0, OPTION_INT, &min_frequency, 0, 1e15, "N", "a pair that occurs less often is not merged (default: 2)"},
        {"special-token", 0, OPTION_LIST, &special, 0, 0, "TEXT", "may be repeated (default: <|endoftext|>); gets the lowest ids"},
        OPTION_THREADS(&threads),
        OPTION_JSON(&json),
        {0},
    };
    static const struct usage usage = {
        "tokenizer train",
        "FILES... --vocab-size N --output DIR [OPTIONS]",
        "Trains a byte-level BPE tokenizer with GPT-2's pattern. Each text file (-: standard input) is one text, compressed or not; a\n"
        "folder means the text files in it and below, a dataset's folder the documents of its training split. The merges are those that\n"
        "Hugging Face's trainer finds, for any number of threads.",
        "millrace tokenizer train corpus --vocab-size 16000 --output tokenizer",
        1,
        1 << 20};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (vocab_size == 0 || !output || !*output) return err_set(ERR_USAGE, "tokenizer train: --vocab-size and --output are needed");
    TRY(check_folder(output));
    TRY(check_place(output, vocab_size));
    struct shown shown = {.terminal = isatty(STDERR_FILENO), .next_ms = clock_ms() + PROGRESS_MS};
    struct train_options wanted = {.vocab_size = vocab_size,
                                   .min_frequency = (uint64_t)min_frequency,
                                   .special = special.count ? special.item : default_special,
                                   .special_count = special.count ? special.count : 1,
                                   .threads = (int)(threads > 0 ? threads : cores_available()),
                                   .progress = show,
                                   .progress_arg = &shown};
    return train(&wanted, arguments, count, output, json, &shown);
}

int cmd_tokenizer(int argc, char **argv) {
    static const struct command commands[] = {
        {"train", "make one from text", tokenizer_train},
        {"info", "what is in one", tokenizer_info},
    };
    return commands_run("tokenizer", "Trains tokenizers, and looks into them.", commands, sizeof commands / sizeof *commands, argc, argv);
}
