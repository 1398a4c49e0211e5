#ifndef SL_TESTS_STUB_DESK_H
#define SL_TESTS_STUB_DESK_H

/*
 * The stub's decisions: takes a complete request, checks it, asks limits and fate, writes the log
 * and the answer. What several event loops share is in here, under one lock.
 *
 * Stub only; any of its threads; blocks no longer than the log's write.
 */

#include "common/clock.h"
#include "tests/stub/answer.h"
#include "tests/stub/http.h"
#include "tests/stub/options.h"

struct sl_stub_desk;

/* A request as it came; borrowed for the call. */
struct sl_stub_request {
    const struct sl_stub_http *http;
    const char *buf;
    struct sl_now now;
    struct sl_stub_text *scratch; /* of the calling thread, for bodies */
};

/* NULL with errno: the log cannot be opened. `options` is borrowed for ever. */
struct sl_stub_desk *sl_stub_desk_open(const struct sl_stub_options *options);
void sl_stub_desk_close(struct sl_stub_desk **desk);

/* Answers a request that is DONE, or BAD (with its status, and a close). *out gets the bytes. */
void sl_stub_desk_answer(struct sl_stub_desk *desk, const struct sl_stub_request *request,
                         struct sl_stub_text *out, struct sl_stub_delivery *delivery);
/* Ends a counted call; `is_abandoned`: its client went before the last byte. */
void sl_stub_desk_finish(struct sl_stub_desk *desk, bool is_abandoned);

void sl_stub_desk_connected(struct sl_stub_desk *desk);
void sl_stub_desk_disconnected(struct sl_stub_desk *desk);

/* Writes log lines that are due; milliseconds until the next are, at most `max_ms`. */
int sl_stub_desk_tick(struct sl_stub_desk *desk, int64_t now_ns, int max_ms);
void sl_stub_desk_flush(struct sl_stub_desk *desk);

#endif
