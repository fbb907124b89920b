/* MinHash with bands (Broder 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4): a few numbers of a text, of
 * which two similar texts share one. What is compared is the set of the runs of `words` words (shingles): of two texts whose sets have the
 * Jaccard similarity s, one band of r rows is equal with probability s^r, and any of b bands with 1 - (1 - s^r)^b.
 *
 *   words     what white space (Unicode's White_Space) separates, in lower case, without anything but letters, marks and numbers; in
 *             scripts without spaces each character is one. A text of fewer words than a shingle is one shingle
 *   shingle   XXH3 (64 bits) over its words' XXH3
 *   row j     the least of h(x) = ((x ^ a[j]) * m[j]) mod 2^32 over the shingles x, as a signed number; a and odd m are Philox's
 *   band k    XXH3 with seed k over its rows, little-endian. Of a text without a word: over the text
 *
 * Same values on every processor. Linear time, constant memory. */
#ifndef MILLRACE_DATASET_MINHASH_H
#define MILLRACE_DATASET_MINHASH_H

#include <stddef.h>
#include <stdint.h>

struct minhash;
/* bands, rows, words: 1 to 64. */
struct minhash *minhash_open(uint32_t bands, uint32_t rows, uint32_t words);
void minhash_close(struct minhash *minhash); /* NULL is fine */

/* Writes `bands` values of well-formed text. */
void minhash_of(struct minhash *minhash, uint64_t *out_band, const uint8_t *text, size_t bytes);

#endif
