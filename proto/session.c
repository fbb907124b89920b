/* Counting. A connection keeps the order, so a number that is too large shows that something is lost. */
#include "proto/session.h"

#include "proto/millrace.pb-c.h"

bool session_counts(uint32_t kind) {
    switch (kind) {
    case MILLRACE__KIND__WELCOME:
    case MILLRACE__KIND__READY:
    case MILLRACE__KIND__SELF_TEST:
    case MILLRACE__KIND__SELF_TEST_RESULT:
    case MILLRACE__KIND__LEASE:
    case MILLRACE__KIND__DONE:
    case MILLRACE__KIND__FAILED:
    case MILLRACE__KIND__SETTLED:
    case MILLRACE__KIND__JOIN:
    case MILLRACE__KIND__STEP:
    case MILLRACE__KIND__SLICE:
    case MILLRACE__KIND__REDUCED:
    case MILLRACE__KIND__COMMIT:
    case MILLRACE__KIND__APPLIED: return true;
    default: return false;
    }
}

uint64_t session_number(const struct session *s, bool counts) { return s->sent + counts; }

void session_sent(struct session *s, bool counts) { s->sent += counts; }

enum session_news session_take(struct session *s, bool counts, uint64_t number) {
    uint64_t expected = s->taken + counts;
    if (number == 0) return SESSION_NEXT;
    if (number > expected) return SESSION_GAP;
    if (!counts) return SESSION_NEXT; /* a smaller number is an older heartbeat's */
    if (number < expected) return SESSION_AGAIN;
    s->taken = number;
    return SESSION_NEXT;
}
