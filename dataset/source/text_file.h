/* The text of one file, or of standard input, for a command that reads it once from front to end: what is compressed is unpacked (of an
 * archive its members that are text, one after the other), UTF-16 and byte order marks are decoded, what is no text is refused by name
 * (dataset/source/content.h). */
#ifndef MILLRACE_DATASET_TEXT_FILE_H
#define MILLRACE_DATASET_TEXT_FILE_H

#include <stdbool.h>
#include <stddef.h>

struct text_file;
struct text_file_options {
    bool raw;        /* the bytes as they are, whatever they are */
    bool nul_ends;   /* NUL ends documents, so they may be many */
};
enum { TEXT_FILE_READ_BYTES_MIN = 64 };

/* path "-": standard input, which can be unpacked only when it is a file. ERR_CONFIG names a file that is no text. */
int text_file_open(struct text_file **out, const char *path, const struct text_file_options *options);
/* Up to size_bytes, at least TEXT_FILE_READ_BYTES_MIN; *out_got 0: it is at its end. */
int text_file_read(struct text_file *file, void *out, size_t *out_got, size_t size_bytes);
/* Call at its end: a warning when much of it is ill-formed UTF-8 (dataset/unicode/doubtful.h); NULL: there is none. The caller frees it. */
char *text_file_warning(const struct text_file *file);
/* A warning when its first lines look like JSON lines, which are text here like any other; NULL: they do not. The caller frees it. */
char *text_file_json_warning(const struct text_file *file);
/* Call at its end: which members of an archive were no text and left out; NULL: none was. The caller frees it. */
char *text_file_left_out(const struct text_file *file);
void text_file_close(struct text_file *file);  /* NULL is fine */

#endif
