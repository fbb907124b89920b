/* What is inside a source file: its members, unpacked, one after the other, each as a stream of bytes. Compression (gzip, zstd, xz, bzip2,
 * lz4, lzma, lzip, compress) and archives (tar, zip, 7z, ar and so .deb, cpio, rpm) are undone however they are nested, through libarchive;
 * a file that is none of these is its own only member. The only file of the project that knows libarchive.
 *
 * What the file is, its bytes say; a member is looked into when its name's suffix says so too, and is a text when its bytes say otherwise.
 * gzip, zstd, xz, lzma and bzip2 have decoders of their own here (dataset/source/decompressor.h); zstd with a window of more than 128 MiB
 * takes memory for it.
 *
 * A 7z or zip within another archive, or under compression, is first unpacked to a temporary file. A tar goes on to the end of the file,
 * through several archives one behind the other. Folders, links and devices are not members; where one of a zip or cpio holds bytes all the
 * same, it is a member that cannot be read. Members are numbered from 0 in the order in which they come, over all nesting: the number of a
 * member follows from the bytes of the file alone. */
#ifndef MILLRACE_DATASET_UNPACK_H
#define MILLRACE_DATASET_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/source/reader.h"

enum {
    UNPACK_DEPTH_MAX = 8,          /* archives within archives */
    UNPACK_NAME_BYTES = 1024,      /* of a member's name; longer ones are cut at a character border */
    UNPACKED_RATIO_MAX = 1032,     /* of deflate: what no bytes stand for may be so many times the file's */
};
#define UNPACK_SPOOL_BYTES_MAX (UINT64_C(16) << 30) /* of temporary files of one source file at a time, in TMPDIR */

/* Does the name's suffix say that there is something to unpack (".gz", ".tar.xz", ".zip", ".deb", ...)? */
bool unpack_needed(const char *name);
/* Bytes of the name that are left without suffixes of compression (and without a URL's query): "a.jsonl" of "a.jsonl.gz". */
size_t unpack_stem(const char *name);

/* Whose fault an error is. */
enum unpack_fault {
    UNPACK_SOUND,    /* not the file's, as far as is known: a reader's, the machine's */
    UNPACK_DAMAGED,  /* the file is damaged or cut off; all that came before the damage was given */
    UNPACK_REFUSED,  /* it is encrypted, packed by a method that is not known here, or past a limit, from here on; what came before was
                        given */
    UNPACK_PASSABLE, /* the same of the member alone: unpack_pass() goes on behind it */
    UNPACK_AROUND,   /* an archive is at its end, and beside it lie bytes that are nobody's: unpack_pass() goes on, too */
};

struct unpack;

/* Members [first, first + count) of the outermost archive, which must be one that unpack_index() knows; count 0: everything. */
int unpack_open(struct unpack **out, const struct byte_reader *reader, uint64_t first, uint64_t count);
/* The same from an offset: begin is the sum of what unpack_index() has for the members before `first`. A tar is then read from there on;
 * without, from header to header up to it. An offset at which no member begins is ERR_CORRUPT.
 * *out_fault: what an error is, as unpack_fault() has it. */
int unpack_open_at(struct unpack **out, enum unpack_fault *out_fault, const struct byte_reader *reader, uint64_t first, uint64_t count,
                   uint64_t begin);
void unpack_close(struct unpack *unpack);
void unpack_to_end(struct unpack *unpack);  /* the members asked for are the last ones: what lies around the archive is told behind them */
void unpack_tick(struct unpack *unpack, int (*tick)(void *arg), void *arg);  /* called while it reads; not 0: ERR_INTERRUPTED */
void unpack_limit_spool(struct unpack *unpack, uint64_t bytes_max);          /* tests take less */

/* Goes to the next member, skipping what is left of the one before. 1: there is one, 0: the file is at its end. *out_name is valid until
 * the next call: the member's path ("docs/a.txt"; nested: "part-1.tar.xz!docs/a.txt"; compressed alone: "docs/a.txt.gz"; "member 3" for the
 * third of an archive, when it has no name), "" for a file that is no archive. Well-formed UTF-8 without control characters, without "./"
 * at the beginning; not to be used as a path.
 * ERR_CORRUPT names file, member and what libarchive says. An error stays, but for unpack_pass(): after it, only close. */
int unpack_next(struct unpack *unpack, const char **out_name);

/* Up to size_bytes of the member; *out_got 0: it is at its end. Bounded memory, whatever the member. ERR_UNSUPPORTED for one that is
 * encrypted, packed by an unknown method, or a sparse file with holes of more than UNPACKED_RATIO_MAX times the source file's bytes. It can
 * be passed over unread. */
int unpack_read(struct unpack *unpack, void *out, size_t *out_got, size_t size_bytes);

enum unpack_fault unpack_fault(const struct unpack *unpack);  /* of the error that was returned; UNPACK_SOUND: none was */
/* After UNPACK_PASSABLE, in place of the error: the next one is the member behind it. Returns how many bytes the member says that it holds,
 * 0 where it does not say. The name of a member that unpack_next() could not come to is unpack_name(). After UNPACK_AROUND, which
 * unpack_next() alone gives: how many bytes lie around the archive of that name. */
uint64_t unpack_pass(struct unpack *unpack);
const char *unpack_name(const struct unpack *unpack);

/* How far in the source file it is, for progress. */
uint64_t unpack_used(const struct unpack *unpack);

/* The bytes that each top-level member of an archive takes in the file, when members can be reached without reading those before (zip, tar
 * that is not compressed): *out is allocated (free()), *out_count members, in file order. *out_count 0: not such an archive,
 * or one that is damaged or cannot be read, which who reads it all is told. An error is not the file's, UNPACK_SOUND. Reads little of the
 * file. */
int unpack_index(uint64_t **out, size_t *out_count, const struct byte_reader *reader);

#endif
