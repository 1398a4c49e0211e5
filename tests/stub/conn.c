/*
 * The stub's connections: a small state machine over an edge-triggered, non-blocking socket.
 *
 * Runs in sluice-stub only, on the event loop that accepted it. A connection holds one request and
 * one answer at a time; requests that were sent ahead wait in its buffer. Buffers keep their room
 * up to 64 KiB, so that a busy connection allocates nothing, makes one recv and one send per call.
 * It never decides anything: what is sent, when, and how it ends stands in the delivery. Errors of
 * a socket end that connection only. Nothing survives the process.
 *
 *   READ -> WAIT (a delay) -> SEND <-> PAUSE (between pieces) -> READ | LINGER | HOLD | gone
 */
#include "tests/stub/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "common/limits.h"

#define READ_BYTES_MIN (4 * SL_KIB)
#define KEEP_BYTES (64 * SL_KIB)
#define LINGER_NS (2 * SL_NS_PER_S) /* for the client to close after our half-close */
#define DISCARD_ROUNDS_MAX 64       /* reads of unwanted bytes in one go, so that others get on */

enum conn_state {
    CONN_READ,
    CONN_WAIT,
    CONN_SEND,
    CONN_PAUSE,
    CONN_LINGER, /* sent all, half-closed; reads and forgets until the client closes */
    CONN_HOLD,   /* silent until the client closes */
    CONN_GONE,   /* to be freed */
};

struct sl_stub_conn {
    struct sl_stub_timer timer;
    int fd;
    enum conn_state state;
    bool is_readable;    /* recv may have something: set by epoll, cleared by a short read */
    bool is_peer_closed; /* epoll saw the end of the client's bytes */
    bool is_in_flight;   /* sl_stub_desk_finish is owed */
    struct sl_stub_http http;
    struct sl_stub_delivery delivery;
    size_t sent;
    size_t piece_end; /* send no further than this before the next pause */
    struct sl_stub_text in;
    struct sl_stub_text out;
    struct sl_stub_conn *next;
    struct sl_stub_conn *prev;
};

/* ---- life ------------------------------------------------------------------------------------ */

static void link_conn(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    conn->next = loop->conns;
    if (conn->next != NULL) {
        conn->next->prev = conn;
    }
    loop->conns = conn;
    loop->conn_count++;
}

static void unlink_conn(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    if (conn->prev != NULL) {
        conn->prev->next = conn->next;
    } else {
        loop->conns = conn->next;
    }
    if (conn->next != NULL) {
        conn->next->prev = conn->prev;
    }
    loop->conn_count--;
}

static void finish_call(struct sl_stub_loop *loop, struct sl_stub_conn *conn, bool is_abandoned)
{
    if (conn->is_in_flight) {
        conn->is_in_flight = false;
        sl_stub_desk_finish(loop->desk, is_abandoned);
    }
}

void sl_stub_conn_close(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    finish_call(loop, conn, true);
    sl_stub_timers_cancel(&loop->timers, &conn->timer);
    close(conn->fd);
    unlink_conn(loop, conn);
    sl_stub_text_fini(&conn->in);
    sl_stub_text_fini(&conn->out);
    free(conn);
    sl_stub_desk_disconnected(loop->desk);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Reads once. False: nothing came; the connection may be gone. */
static bool read_more(struct sl_stub_conn *conn)
{
    struct sl_stub_text *in = &conn->in;

    if (!conn->is_readable) {
        return false;
    }
    size_t missing = sl_stub_http_missing(&conn->http, in->len);
    sl_stub_text_reserve(in, SL_MAX(missing, READ_BYTES_MIN));
    size_t room = in->size_bytes - in->len;
    ssize_t count = recv(conn->fd, in->buf + in->len, room, 0);
    if (count > 0) {
        in->len += (size_t)count;
        /* A short read emptied the socket: the next bytes are a new edge. The end is none. */
        conn->is_readable = (size_t)count == room || conn->is_peer_closed;
        return true;
    }
    conn->is_readable = false;
    if (count == 0 || errno != EAGAIN) {
        conn->state = CONN_GONE;
    }
    return false;
}

static void send_continue(struct sl_stub_conn *conn)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";

    conn->http.wants_continue = false;
    if (send(conn->fd, text, sizeof(text) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(text) - 1) {
        conn->state = CONN_GONE; /* an empty send buffer takes 25 bytes unless the client is gone */
    }
}

/* Sets what is needed to send the answer that stands in conn->out. */
static void begin_delivery(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    const struct sl_stub_delivery *delivery = &conn->delivery;

    conn->is_in_flight = delivery->is_counted;
    conn->sent = 0;
    conn->piece_end = delivery->send_bytes;
    if (delivery->piece_bytes > 0) {
        conn->piece_end = SL_MIN(delivery->first_bytes, delivery->send_bytes);
    }
    conn->state = CONN_SEND;
    if (delivery->delay_ns > 0) {
        conn->state = CONN_WAIT;
        sl_stub_timers_set(&loop->timers, &conn->timer, loop->now.mono_ns + delivery->delay_ns);
    }
}

/* A whole request (or one that cannot be understood) stands at the start of conn->in. */
static void answer_request(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    struct sl_stub_request request = {
        .http = &conn->http,
        .buf = conn->in.buf,
        .now = loop->now,
        .scratch = &loop->scratch,
    };

    sl_stub_desk_answer(loop->desk, &request, &conn->out, &conn->delivery);
    if (loop->scratch.size_bytes > SL_MIB) {
        sl_stub_text_clear(&loop->scratch, SL_MIB);
    }
    size_t used = SL_MIN(conn->http.scanned, conn->in.len);
    conn->in.len -= used;
    memmove(conn->in.buf, conn->in.buf + used, conn->in.len);
    if (conn->in.len == 0) {
        sl_stub_text_clear(&conn->in, KEEP_BYTES);
    }
    sl_stub_http_init(&conn->http);
    begin_delivery(loop, conn);
}

/* False: needs an event to go on. */
static bool step_read(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    enum sl_stub_http_stage stage = conn->http.stage;

    if (conn->in.len > 0) {
        stage = sl_stub_http_feed(&conn->http, conn->in.buf, &conn->in.len);
    }
    if (stage == SL_STUB_HTTP_DONE || stage == SL_STUB_HTTP_BAD) {
        answer_request(loop, conn);
        return true;
    }
    if (conn->http.wants_continue && stage != SL_STUB_HTTP_HEAD) {
        send_continue(conn);
    }
    return conn->state == CONN_READ && read_more(conn);
}

/* ---- sending --------------------------------------------------------------------------------- */

static void reset_conn(struct sl_stub_conn *conn)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    /* Closing without lingering makes the kernel send RST in place of FIN. */
    (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    conn->state = CONN_GONE;
}

/* The last byte is out: what the delivery says comes next. */
static void end_delivery(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    sl_stub_text_clear(&conn->out, KEEP_BYTES);
    if (conn->delivery.end != SL_STUB_END_HOLD) {
        finish_call(loop, conn, false);
    }
    switch (conn->delivery.end) {
    case SL_STUB_END_KEEP:
        conn->state = CONN_READ;
        break;
    case SL_STUB_END_CLOSE:
        (void)shutdown(conn->fd, SHUT_WR);
        sl_stub_timers_set(&loop->timers, &conn->timer, loop->now.mono_ns + LINGER_NS);
        conn->state = CONN_LINGER;
        break;
    case SL_STUB_END_RESET:
        reset_conn(conn);
        break;
    case SL_STUB_END_HOLD:
        conn->state = CONN_HOLD;
        break;
    }
}

static bool step_send(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    while (conn->sent < conn->piece_end) {
        ssize_t count =
            send(conn->fd, conn->out.buf + conn->sent, conn->piece_end - conn->sent, MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) {
            return false;
        }
        if (count < 0 && errno != EINTR) {
            conn->state = CONN_GONE;
            return true;
        }
        conn->sent += count > 0 ? (size_t)count : 0;
    }
    if (conn->sent == conn->delivery.send_bytes) {
        end_delivery(loop, conn);
        return true;
    }
    conn->piece_end =
        SL_MIN(conn->piece_end + conn->delivery.piece_bytes, conn->delivery.send_bytes);
    conn->state = CONN_PAUSE;
    sl_stub_timers_set(&loop->timers, &conn->timer, loop->now.mono_ns + conn->delivery.piece_ns);
    return true;
}

/* ---- states ---------------------------------------------------------------------------------- */

/* While nothing is to be said: has the client gone? */
static bool step_idle(struct sl_stub_conn *conn)
{
    if (conn->is_peer_closed) {
        conn->state = CONN_GONE;
        return true;
    }
    return false;
}

/* After our half-close, what the client still sends is read and forgotten: closing a socket with
 * unread bytes would send RST, and the client might lose the answer. */
static bool step_linger(struct sl_stub_conn *conn)
{
    char waste[16384];

    for (int i = 0; i < DISCARD_ROUNDS_MAX; i++) {
        ssize_t count = recv(conn->fd, waste, sizeof(waste), 0);
        if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
            conn->state = CONN_GONE;
            return true;
        }
        if (count < 0 && errno == EAGAIN) {
            return false;
        }
    }
    conn->state = CONN_GONE;
    return true;
}

/* One step of the state machine. False: needs an event or its timer to go on. */
static bool step(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    switch (conn->state) {
    case CONN_READ:
        return step_read(loop, conn);
    case CONN_SEND:
        return step_send(loop, conn);
    case CONN_WAIT:
    case CONN_PAUSE:
    case CONN_HOLD:
        return step_idle(conn);
    case CONN_LINGER:
        return step_linger(conn);
    case CONN_GONE:
        return false;
    }
    SL_UNREACHABLE();
}

static void advance(struct sl_stub_loop *loop, struct sl_stub_conn *conn)
{
    while (step(loop, conn)) {
    }
    if (conn->state == CONN_GONE) {
        sl_stub_conn_close(loop, conn);
    }
}

bool sl_stub_conn_open(struct sl_stub_loop *loop, int fd)
{
    struct sl_stub_conn *conn = calloc(1, sizeof(*conn));

    if (conn == NULL) {
        close(fd);
        return false;
    }
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        .data.ptr = conn,
    };
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        free(conn);
        close(fd);
        return false;
    }
    conn->fd = fd;
    sl_stub_timer_init(&conn->timer);
    sl_stub_http_init(&conn->http);
    link_conn(loop, conn);
    sl_stub_desk_connected(loop->desk);
    return true;
}

void sl_stub_conn_event(struct sl_stub_loop *loop, struct sl_stub_conn *conn, uint32_t events)
{
    if ((events & (EPOLLIN | EPOLLRDHUP)) != 0) {
        conn->is_readable = true;
    }
    if ((events & EPOLLRDHUP) != 0) {
        conn->is_peer_closed = true;
    }
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        conn->state = CONN_GONE;
    }
    advance(loop, conn);
}

void sl_stub_conn_due(struct sl_stub_loop *loop, struct sl_stub_timer *timer)
{
    struct sl_stub_conn *conn = SL_CONTAINER_OF(timer, struct sl_stub_conn, timer);

    conn->state = conn->state == CONN_LINGER ? CONN_GONE : CONN_SEND;
    advance(loop, conn);
}
