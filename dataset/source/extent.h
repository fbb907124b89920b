/* Where in its file an archive begins and ends that has a directory or a mark at its end: what lies before and behind is read by nobody who
 * goes by the directory, so that another archive or a text there would be lost unseen. */
#ifndef MILLRACE_DATASET_EXTENT_H
#define MILLRACE_DATASET_EXTENT_H

#include <stdint.h>

#include "dataset/source/reader.h"

struct extent {
    uint64_t begin, end;
};

/* Of the zip that libarchive has read: from the first of the members that its directory names to the comment of its end record. One whose
 * directory is cut off ends with what is there of it. `behind`: where its last member ends, if it was read from member to member. */
int extent_of_zip(struct extent *out, const struct byte_reader *reader, uint64_t behind);
/* Of the first 7z in the file: from its signature to the end of its header. */
int extent_of_7z(struct extent *out, const struct byte_reader *reader);
/* Of what ends at `behind` and is filled up with zeros: to the file's end, if nothing else follows. */
int extent_of_filled(struct extent *out, const struct byte_reader *reader, uint64_t behind);

#endif
