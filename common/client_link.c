/*
 * A client's connection: bytes out without SIGPIPE, whole frames in, with a stop descriptor watched
 * in every wait.
 *
 * Runs in whatever process embeds libsluice. Keeps a receive buffer that starts at the common frame
 * size and grows to the largest frame seen, never beyond SL_FRAME_BYTES_MAX. Trusts nothing of the
 * peer: a bad header, a frame that only a client or worker may send, or an end in the middle of a
 * frame breaks the link for good, with the reason in its fault. Never prints, never logs.
 * Nothing survives a crash: the broker keeps what it acknowledged.
 */
#include "common/client_link.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/os.h"

enum sl_err sl_link_init(struct sl_link *link, int fd)
{
    memset(link, 0, sizeof(*link));
    link->fd = fd;
    link->stop_fd = -1;
    link->size_bytes = SL_FRAME_BYTES_COMMON;
    link->buf = malloc(link->size_bytes);
    if (link->buf == NULL) {
        sl_os_close(&link->fd);
        return SL_ERR_NO_MEMORY;
    }
    return SL_OK;
}

void sl_link_fini(struct sl_link *link)
{
    sl_os_close(&link->fd);
    free(link->buf);
    link->buf = NULL;
}

/* ---- faults ---------------------------------------------------------------------------------- */

PRINTF_LIKE(2, 0)
static void put_fault(struct sl_link *link, const char *format, va_list args)
{
    vsnprintf(link->fault.text, sizeof(link->fault.text), format, args);
}

enum sl_err sl_link_fail(struct sl_link *link, enum sl_err err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put_fault(link, format, args);
    va_end(args);
    return err;
}

enum sl_err sl_link_break(struct sl_link *link, enum sl_err err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put_fault(link, format, args);
    va_end(args);
    sl_os_close(&link->fd);
    return err;
}

static enum sl_err refuse_broken(struct sl_link *link)
{
    if (link->fault.text[0] == '\0') {
        return sl_link_fail(link, SL_ERR_UNREACHABLE, "the connection to the broker is closed");
    }
    return SL_ERR_UNREACHABLE;
}

static enum sl_err break_for_errno(struct sl_link *link)
{
    if (errno == EPIPE || errno == ECONNRESET) {
        return sl_link_break(link, SL_ERR_UNREACHABLE, "the broker has gone away");
    }
    return sl_link_break(link, SL_ERR_UNREACHABLE, "the connection to the broker failed: %s",
                         strerror(errno));
}

/* ---- sending and waiting --------------------------------------------------------------------- */

enum sl_err sl_link_send_some(struct sl_link *link, struct sl_span *bytes)
{
    if (link->fd < 0) {
        return refuse_broken(link);
    }
    ssize_t sent = send(link->fd, bytes->ptr, bytes->len, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent >= 0) {
        SL_ASSERT((size_t)sent <= bytes->len);
        bytes->ptr += sent;
        bytes->len -= (size_t)sent;
        return SL_OK;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return SL_OK;
    }
    return sl_link_fail(link, SL_ERR_UNREACHABLE, "the broker takes no more: %s", strerror(errno));
}

static int wait_ms(int64_t due_ns)
{
    if (due_ns == SL_LINK_FOREVER) {
        return -1;
    }
    return sl_time_left_ms(due_ns, sl_clock_mono_ns(), INT_MAX);
}

/* One poll: the number of descriptors ready, or -1; a signal is no event. */
static int poll_once(const struct sl_link *link, bool to_write, int timeout_ms, bool *is_stopped)
{
    struct pollfd polls[2] = {
        {.fd = link->fd, .events = (short)(to_write ? POLLIN | POLLOUT : POLLIN)},
        {.fd = link->stop_fd, .events = POLLIN},
    };
    int rc = poll(polls, 2, timeout_ms);

    *is_stopped = rc > 0 && polls[1].revents != 0;
    return rc;
}

enum sl_err sl_link_wait(struct sl_link *link, bool to_write, int64_t due_ns)
{
    bool is_stopped = false;
    int rc = -1;

    if (link->fd < 0) {
        return refuse_broken(link);
    }
    do {
        rc = poll_once(link, to_write, wait_ms(due_ns), &is_stopped);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        return break_for_errno(link);
    }
    if (is_stopped) {
        return sl_link_break(link, SL_ERR_INTERRUPTED, "%s", sl_err_meaning(SL_ERR_INTERRUPTED));
    }
    return rc > 0 ? SL_OK : SL_ERR_AGAIN;
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* Makes room for a frame of `need` bytes that begins at `taken`, moving it to the front. */
static enum sl_err make_room(struct sl_link *link, size_t need)
{
    size_t kept = link->len - link->taken;

    if (link->taken > 0 && link->size_bytes - link->taken < need) {
        memmove(link->buf, link->buf + link->taken, kept);
        link->taken = 0;
        link->len = kept;
    }
    if (link->size_bytes - link->taken >= need) {
        return SL_OK;
    }
    char *grown = realloc(link->buf, need);
    if (grown == NULL) {
        return sl_link_break(link, SL_ERR_NO_MEMORY, "no memory for an answer of %zu bytes", need);
    }
    link->buf = grown;
    link->size_bytes = need;
    return SL_OK;
}

static enum sl_err check_header(struct sl_link *link, struct sl_frame_header *header)
{
    enum sl_err err = sl_frame_header_get(link->buf + link->taken, header);

    if (err == SL_ERR_VERSION) {
        return sl_link_break(link, err, "the broker speaks another protocol than this program; %s",
                             sl_err_advice(err));
    }
    if (err != SL_OK || sl_frame_sender(header->type) != SL_SENDER_BROKER ||
        header->payload_bytes > SL_FRAME_BYTES_MAX) {
        return sl_link_break(link, SL_ERR_PROTOCOL, "what answers on the socket is no broker");
    }
    return SL_OK;
}

/* Gives out the frame at `taken` if all of it is there; else SL_ERR_AGAIN with room for the rest.
 */
static enum sl_err take_buffered(struct sl_link *link, struct sl_link_frame *out)
{
    size_t kept = link->len - link->taken;
    struct sl_frame_header header;

    if (kept < SL_FRAME_HEADER_BYTES) {
        enum sl_err err = make_room(link, SL_FRAME_HEADER_BYTES);
        return err != SL_OK ? err : SL_ERR_AGAIN;
    }
    enum sl_err err = check_header(link, &header);
    if (err != SL_OK) {
        return err;
    }
    size_t need = SL_FRAME_HEADER_BYTES + header.payload_bytes;
    if (kept < need) {
        err = make_room(link, need);
        return err != SL_OK ? err : SL_ERR_AGAIN;
    }
    out->type = header.type;
    out->payload =
        sl_span_of(link->buf + link->taken + SL_FRAME_HEADER_BYTES, header.payload_bytes);
    link->taken += need;
    return SL_OK;
}

/* One recv without waiting. SL_OK: bytes came. */
static enum sl_err read_some(struct sl_link *link)
{
    if (link->fd < 0) {
        return refuse_broken(link);
    }
    SL_ASSERT(link->len < link->size_bytes);
    ssize_t got = recv(link->fd, link->buf + link->len, link->size_bytes - link->len, MSG_DONTWAIT);

    if (got > 0) {
        link->len += (size_t)got;
        return SL_OK;
    }
    if (got == 0) {
        return sl_link_break(link, SL_ERR_UNREACHABLE, "the broker has gone away");
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return SL_ERR_AGAIN;
    }
    return break_for_errno(link);
}

enum sl_err sl_link_take(struct sl_link *link, struct sl_link_frame *out)
{
    enum sl_err err = SL_OK;

    if (link->taken == link->len) {
        link->taken = 0;
        link->len = 0;
    }
    while (err == SL_OK) {
        err = take_buffered(link, out);
        if (err != SL_ERR_AGAIN) {
            return err;
        }
        err = read_some(link);
    }
    return err;
}

enum sl_err sl_link_receive(struct sl_link *link, int64_t due_ns, struct sl_link_frame *out)
{
    for (;;) {
        enum sl_err err = sl_link_take(link, out);
        if (err != SL_ERR_AGAIN) {
            return err;
        }
        err = sl_link_wait(link, false, due_ns);
        if (err != SL_OK) {
            return err;
        }
    }
}
