/* The lines about an account. Names of files and members may hold any bytes: control characters become blanks, so that they cannot move a
 * terminal's cursor. */
#include "cli/account.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/plain.h"
#include "cli/follow.h"

static uint64_t whole(const json_t *object, const char *key) { return (uint64_t)json_integer_value(json_object_get(object, key)); }

static const char *text(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

/* Takes the line. */
static void say_line(char *line, void (*say)(void *arg, const char *line), void *arg) {
    for (char *at = line; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7F) *at = ' ';
    say(arg, line);
    free(line);
}

void account_show(const json_t *account, void (*say)(void *arg, const char *line), void *arg) {
    uint64_t documents = whole(account, "read_documents"), changed = whole(account, "changed_documents");
    uint64_t empty = whole(account, "empty_documents");
    uint64_t members = whole(account, "other_members");
    size_t i;
    const json_t *entry;
    json_array_foreach(json_object_get(account, "left_out"), i, entry) {
        const json_t *first = json_object_get(entry, "first");
        const char *detail = text(first, "detail");
        uint64_t count = whole(entry, "documents");
        char *place = first && !json_is_null(first) ? mem_format(" (first: %s%s%s)", text(first, "place"), *detail ? ", " : "", detail)
                                                    : mem_text("");
        say_line(mem_format("left out  %s of %s document%s (%s), %s: %s%s", text_count(count), text_count(documents),
                            plural(documents), percent_text((double)count, (double)documents),
                            text_bytes((double)whole(entry, "bytes")), text(entry, "reason"), place),
                 say, arg);
        free(place);
    }
    if (empty)
        say_line(mem_format("empty     %s of %s document%s (%s), %s, without a token", text_count(empty), text_count(documents),
                            plural(documents), percent_text((double)empty, (double)documents),
                            text_bytes((double)whole(account, "empty_bytes"))),
                 say, arg);
    if (changed)
        say_line(mem_format("changed   %s of %s document%s (%s), %s, before they were tokenized", text_count(changed),
                            text_count(documents), plural(documents), percent_text((double)changed, (double)documents),
                            text_bytes((double)whole(account, "changed_bytes"))),
                 say, arg);
    if (members)
        say_line(mem_format("passed    %s member%s of archives: not named in `members`", text_count(members), plural(members)), say,
                 arg);
}
