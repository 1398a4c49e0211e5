#ifndef SL_COMMON_CLIENT_LINK_H
#define SL_COMMON_CLIENT_LINK_H

/*
 * Inside libsluice: one connection that moves whole frames. Not for other programs; see
 * common/client.h. One thread; functions that take a time limit block up to it.
 */

#include "common/client.h"

#define SL_LINK_FOREVER INT64_MAX

struct sl_link {
    int fd;      /* -1: closed or broken */
    int stop_fd; /* borrowed; -1: none */
    char *buf;   /* received bytes: taken..len are not yet given out */
    size_t size_bytes;
    size_t len;
    size_t taken;
    struct sl_client_fault fault; /* of the last failure */
};

struct sl_link_frame {
    enum sl_frame_type type;
    struct sl_span payload; /* in the link's buffer, until the next receive */
};

/* The link owns the descriptor from here on, also when it fails (SL_ERR_NO_MEMORY). */
MUST_CHECK enum sl_err sl_link_init(struct sl_link *link, int fd);
void sl_link_fini(struct sl_link *link);

/* Writes the fault's text and returns `err`. */
enum sl_err sl_link_fail(struct sl_link *link, enum sl_err err, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* The same, and the connection is of no more use. */
enum sl_err sl_link_break(struct sl_link *link, enum sl_err err, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* Sends as much of *bytes as goes now (not waiting) and moves the span on. SL_ERR_UNREACHABLE: the
 * peer takes no more, but its last words may still be there to be read. */
MUST_CHECK enum sl_err sl_link_send_some(struct sl_link *link, struct sl_span *bytes);

/* Waits until bytes can be read, or written where `to_write`, or `due_ns` (monotonic) has come.
 * SL_OK: look; SL_ERR_AGAIN: it is time; SL_ERR_INTERRUPTED: the stop descriptor. */
MUST_CHECK enum sl_err sl_link_wait(struct sl_link *link, bool to_write, int64_t due_ns);

/* The next frame if it is complete in the buffer or can be read without waiting: SL_OK;
 * SL_ERR_AGAIN: not yet; SL_ERR_UNREACHABLE, SL_ERR_PROTOCOL, SL_ERR_VERSION: broken. */
MUST_CHECK enum sl_err sl_link_take(struct sl_link *link, struct sl_link_frame *out);

/* The next frame, waiting until `due_ns`; then SL_ERR_AGAIN. */
MUST_CHECK enum sl_err sl_link_receive(struct sl_link *link, int64_t due_ns,
                                       struct sl_link_frame *out);

#endif
