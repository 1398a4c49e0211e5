#ifndef SL_WORKER_TRANSFER_H
#define SL_WORKER_TRANSFER_H

/*
 * The door to libcurl: HTTP calls, thousands at once, driven by the worker's own epoll loop.
 * HTTP/1.1, TLS verified, no redirects, no signals, everything bounded. One engine per worker
 * process, made after the fork; one thread; nothing here blocks.
 *
 * A call that is started belongs to the engine until sl_transfers_next_done gives it back with
 * call->answer filled in. The engine never judges an answer: that is the dialect's.
 */

#include "common/err.h"
#include "worker/call.h"
#include "worker/dialect.h"
#include "worker/provider.h"

struct sl_http_headers;
/* Borrows the lines, which must live as long. SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_http_headers_make(const struct sl_header_lines *lines,
                                            struct sl_http_headers **out);
void sl_http_headers_free(struct sl_http_headers **headers);

struct sl_transfers;

struct sl_transfers_options {
    int epoll_fd;                   /* borrowed; sockets are put there */
    uint64_t epoll_tag;             /* events carry (epoll_tag | descriptor) */
    struct sl_providers *providers; /* borrowed */
    uint32_t concurrency;           /* idle connections worth keeping */
};

/* SL_ERR_NO_MEMORY. May read certificates: the first one takes milliseconds. */
MUST_CHECK enum sl_err sl_transfers_open(const struct sl_transfers_options *options,
                                         struct sl_transfers **out);
/* Aborts what runs; its calls are given to sl_transfers_next_done before this, or are lost. */
void sl_transfers_close(struct sl_transfers **transfers);
void sl_transfers_set_concurrency(struct sl_transfers *transfers, uint32_t concurrency);

/* Starts the call (state RUNNING), or lets it wait for its provider's name (WAITING). The request,
 * provider and endpoint must be set. What cannot be started comes back as done. */
void sl_transfers_start(struct sl_transfers *transfers, struct sl_call *call);

/* Ends a running or waiting call; it comes back as done with this transport error. Not from inside
 * a callback (there is none outside of this module). */
void sl_transfers_abort(struct sl_transfers *transfers, struct sl_call *call, enum sl_err why);
void sl_transfers_abort_all(struct sl_transfers *transfers, enum sl_err why);
/* Takes back every call that has not been started; they are in no list of the engine then. */
void sl_transfers_take_waiting(struct sl_transfers *transfers, struct sl_call_list *out);

/* One event of epoll whose data carried the tag. */
void sl_transfers_event(struct sl_transfers *transfers, int fd, uint32_t events);
/* The turn's time; before anything else of the turn. */
void sl_transfers_begin_turn(struct sl_transfers *transfers, int64_t now_ns);
/* Everything that is due; once per turn, after its events and starts. */
void sl_transfers_tick(struct sl_transfers *transfers);
/* When the next tick is needed (monotonic); INT64_MAX: only when an event comes. */
int64_t sl_transfers_due_ns(const struct sl_transfers *transfers);

/* The next call that has ended; NULL: none. */
struct sl_call *sl_transfers_next_done(struct sl_transfers *transfers);

/* Started and not ended. */
size_t sl_transfers_running(const struct sl_transfers *transfers);
/* Started since the beginning. */
uint64_t sl_transfers_started(const struct sl_transfers *transfers);

#endif
