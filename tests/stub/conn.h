#ifndef SL_TESTS_STUB_CONN_H
#define SL_TESTS_STUB_CONN_H

/*
 * One connection of the stub: reads a request, has it answered, sends the answer as its delivery
 * says, again and again until one side ends it.
 *
 * Stub only; a connection belongs to one event loop and its thread. Never blocks.
 */

#include "tests/stub/desk.h"
#include "tests/stub/timers.h"

/* What the connections of one event loop share; filled in by the loop. */
struct sl_stub_loop {
    struct sl_stub_desk *desk;
    int epoll_fd;
    struct sl_now now; /* of this turn */
    struct sl_stub_timers timers;
    struct sl_stub_text scratch;
    struct sl_stub_conn *conns; /* all that are open: a list */
    size_t conn_count;
};

struct sl_stub_conn;

/* Takes an accepted, non-blocking socket into the loop and reads what is there. False (errno; the
 * socket is closed): it cannot be watched. */
MUST_CHECK bool sl_stub_conn_open(struct sl_stub_loop *loop, int fd);
/* Epoll reported `events`. The connection may be gone afterwards. */
void sl_stub_conn_event(struct sl_stub_loop *loop, struct sl_stub_conn *conn, uint32_t events);
/* Its timer, just taken out of the heap, was due. The connection may be gone afterwards. */
void sl_stub_conn_due(struct sl_stub_loop *loop, struct sl_stub_timer *timer);
/* Closes and frees one. */
void sl_stub_conn_close(struct sl_stub_loop *loop, struct sl_stub_conn *conn);

#endif
