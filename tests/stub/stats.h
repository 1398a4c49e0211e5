#ifndef SL_TESTS_STUB_STATS_H
#define SL_TESTS_STUB_STATS_H

/*
 * What the stub counts, and the names of its refusals. Stub only; guarded by the caller.
 */

#include "tests/stub/fate.h"
#include "tests/stub/text.h"

#define SL_STUB_STATUS_COUNT 600

/* Why a call was refused before its fate was asked. */
enum sl_stub_refusal {
    SL_STUB_REFUSED_NOT,
    SL_STUB_REFUSED_NOT_FOUND,
    SL_STUB_REFUSED_METHOD,
    SL_STUB_REFUSED_KEY,
    SL_STUB_REFUSED_BAD_REQUEST,
    SL_STUB_REFUSED_CONCURRENCY,
    SL_STUB_REFUSED_RATE,
    SL_STUB_REFUSAL_COUNT
};

struct sl_stub_stats {
    uint64_t requests;  /* all but those for the statistics */
    uint64_t in_flight; /* admitted, not yet answered or given up */
    uint64_t in_flight_max;
    uint64_t abandoned; /* the client went before the last byte */
    uint64_t connections_open;
    uint64_t connections_total;
    uint64_t by_status[SL_STUB_STATUS_COUNT]; /* 0: no status line was to be sent */
    uint64_t by_kind[SL_STUB_KIND_COUNT];
    uint64_t by_refusal[SL_STUB_REFUSAL_COUNT];
};

/* "not_found", "rate_limited"; the behaviour in log and statistics. */
const char *sl_stub_refusal_word(enum sl_stub_refusal refusal);
/* Appends them as one JSON object. */
void sl_stub_stats_write(const struct sl_stub_stats *stats, struct sl_stub_text *out);

#endif
