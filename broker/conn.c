/*
 * Connections: bytes in, frames out to their handlers; bytes out.
 *
 * Loop thread; never blocks. Small frames are handled in the connection's own 4 KiB; a longer one
 * gets a buffer of exactly its size, within one budget over all connections (SL_INTAKE_BYTES_MAX):
 * beyond it a connection is simply not read from until there is room. A peer that breaks the
 * protocol is told why and closed; it can hurt no other. A client's death changes nothing for its
 * tasks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "broker/broker.h"
#include "common/check.h"
#include "common/log.h"

#define OUT_BYTES_MAX (80 * SL_MIB) /* one largest result and change */
#define READS_PER_EVENT 8           /* then others get their turn */
#define LISTEN_PAUSE_NS (SL_NS_PER_S / 2)
#define FRAME_TIME_NS (10 * SL_NS_PER_S) /* for a long frame whose memory others wait for */

/* ---- open and close
 * ------------------------------------------------------------------------------ */

static void on_conn_event(struct sl_source *source, uint32_t events);

static struct sl_conn *take_place(struct sl_broker *broker)
{
    for (size_t i = 0; i < SL_CLIENTS_MAX; i++) {
        if (broker->conns[i].serial == 0) {
            return &broker->conns[i];
        }
    }
    return NULL;
}

static void refuse(struct sl_broker *broker, int fd, const char *why)
{
    char bytes[256];
    struct sl_wire_writer writer;
    struct sl_error_msg msg = {.err = SL_ERR_OVERLOADED, .message = sl_span_str(why)};

    sl_wire_writer_init(&writer, bytes, sizeof(bytes));
    if (sl_wire_put_error(&writer, &msg) == SL_OK) {
        ssize_t ignored = send(fd, bytes, writer.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)ignored;
    }
    broker->clients_refused++;
    sl_log(SL_EVENT_CLIENT_REFUSED, "reason=\"%s\"", why);
    sl_os_close(&fd);
}

static void open_conn(struct sl_broker *broker, int fd)
{
    struct sl_conn *conn = take_place(broker);
    struct sl_os_peer peer;

    if (conn == NULL || sl_os_get_peer(fd, &peer) != SL_OK) {
        refuse(broker, fd, conn == NULL ? "too many connections" : "no credentials");
        return;
    }
    memset(conn, 0, offsetof(struct sl_conn, head));
    memset(conn->head + SL_CONN_HEAD_BYTES, 0,
           sizeof(*conn) - offsetof(struct sl_conn, head) - SL_CONN_HEAD_BYTES);
    conn->source = (struct sl_source){.on_event = on_conn_event, .broker = broker, .fd = fd};
    conn->peer = peer;
    conn->is_admin = peer.uid == 0 || peer.uid == broker->uid;
    if (sl_loop_watch(broker, &conn->source, EPOLLIN) != SL_OK) {
        refuse(broker, fd, "no memory");
        return;
    }
    conn->serial = ++broker->next_serial;
    broker->conn_count++;
}

/* Nothing more waits; or no descriptor is free: the backlog keeps who waits, and as its event would
 * stand until somebody hangs up, it is not looked at for a while. */
static void end_accept(struct sl_source *source)
{
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        source->broker->listen_due_ns = source->broker->now.mono_ns + LISTEN_PAUSE_NS;
        sl_loop_change(source, 0);
    }
}

void sl_conn_on_listen(struct sl_source *source, uint32_t events)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            end_accept(source);
            return;
        }
        open_conn(source->broker, fd);
    }
}

void sl_conn_listen_again(struct sl_broker *broker)
{
    if (broker->listen.events == 0 && broker->now.mono_ns >= broker->listen_due_ns &&
        !broker->has_stopped_reading) {
        sl_loop_change(&broker->listen, EPOLLIN);
    }
}

static void drop_frame(struct sl_conn *conn)
{
    if (conn->frame != NULL) {
        conn->source.broker->intake_bytes -= conn->frame_header.payload_bytes;
        free(conn->frame);
        conn->frame = NULL;
    }
}

static void drop_fds(struct sl_conn *conn)
{
    for (size_t i = 0; i < conn->fd_count; i++) {
        sl_os_close(&conn->fds[i]);
    }
    conn->fd_count = 0;
}

void sl_conn_close(struct sl_conn *conn)
{
    struct sl_broker *broker = conn->source.broker;
    struct sl_worker *worker = conn->worker;

    SL_ASSERT(conn->serial != 0);
    sl_loop_unwatch(&conn->source);
    sl_os_close(&conn->source.fd);
    drop_frame(conn);
    drop_fds(conn);
    sl_intake_conn_closed(conn);
    free(conn->out);
    conn->out = NULL;
    conn->out_len = conn->out_at = conn->out_size = 0;
    conn->serial = 0;
    conn->worker = NULL;
    broker->conn_count--;
    if (worker != NULL) {
        sl_workers_conn_closed(worker);
    }
}

struct sl_conn *sl_conn_find(struct sl_conn *conn, uint64_t serial)
{
    return conn->serial == serial ? conn : NULL;
}

/* ---- out
 * ----------------------------------------------------------------------------------------- */

static void want_events(struct sl_conn *conn)
{
    bool may_read =
        !conn->is_paused && !conn->must_close && !conn->source.broker->has_stopped_reading;
    uint32_t events = may_read ? EPOLLIN : 0;

    events |= conn->out_at < conn->out_len ? EPOLLOUT : 0;
    if (events != conn->source.events) {
        sl_loop_change(&conn->source, events);
    }
}

bool sl_conn_has_output(const struct sl_conn *conn)
{
    return conn->out_at < conn->out_len;
}

/* Sends what it can; false: the connection is gone. */
static bool flush_out(struct sl_conn *conn)
{
    while (conn->out_at < conn->out_len) {
        ssize_t sent = send(conn->source.fd, conn->out + conn->out_at, conn->out_len - conn->out_at,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            want_events(conn);
            return true;
        }
        if (sent < 0) {
            sl_conn_close(conn);
            return false;
        }
        conn->out_at += (size_t)sent;
    }
    free(conn->out);
    conn->out = NULL;
    conn->out_at = conn->out_len = conn->out_size = 0;
    if (conn->must_close) {
        sl_conn_close(conn);
        return false;
    }
    want_events(conn);
    return true;
}

static bool reserve_out(struct sl_conn *conn, size_t len)
{
    size_t need = conn->out_len + len;

    if (need <= conn->out_size) {
        return true;
    }
    if (need > OUT_BYTES_MAX) {
        return false;
    }
    size_t size = SL_MAX(need, conn->out_size * 2);
    char *grown = realloc(conn->out, size);
    if (grown == NULL) {
        return false;
    }
    conn->out = grown;
    conn->out_size = size;
    return true;
}

void sl_conn_send(struct sl_conn *conn, const void *bytes, size_t len)
{
    bool was_idle = conn->out_len == 0;

    if (conn->serial == 0) {
        return;
    }
    if (!reserve_out(conn, len)) {
        sl_log(SL_EVENT_CLIENT_REFUSED, "uid=%u reason=\"does not read its answers\"",
               conn->peer.uid);
        sl_conn_close(conn);
        return;
    }
    memcpy(conn->out + conn->out_len, bytes, len);
    conn->out_len += len;
    if (was_idle) {
        flush_out(conn);
    }
}

void sl_conn_send_take(struct sl_conn *conn, char *bytes, size_t len)
{
    if (conn->serial != 0 && conn->out_len == 0) {
        conn->out = bytes;
        conn->out_len = conn->out_size = len;
        conn->out_at = 0;
        flush_out(conn);
        return;
    }
    sl_conn_send(conn, bytes, len);
    free(bytes);
}

bool sl_conn_send_fds(struct sl_conn *conn, const void *bytes, size_t len, const int *fds,
                      size_t fd_count)
{
    if (conn->out_len > 0) {
        return false;
    }
    ssize_t sent = sl_os_send_fds(conn->source.fd, bytes, len, fds, fd_count);
    if (sent < 0) {
        return false; /* full: later; broken: its hang-up is on its way */
    }
    if ((size_t)sent < len) { /* the descriptors went with the first byte */
        sl_conn_send(conn, (const char *)bytes + sent, len - (size_t)sent);
    }
    return true;
}

void sl_conn_send_error(struct sl_conn *conn, enum sl_err err, const char *message)
{
    char bytes[1024];
    struct sl_wire_writer writer;
    struct sl_error_msg msg = {.err = err, .message = sl_span_str(message)};

    sl_wire_writer_init(&writer, bytes, sizeof(bytes));
    if (sl_wire_put_error(&writer, &msg) == SL_OK) {
        sl_conn_send(conn, bytes, writer.len);
    }
}

void sl_conn_send_empty(struct sl_conn *conn, enum sl_frame_type type)
{
    char bytes[32];
    struct sl_wire_writer writer;

    sl_wire_writer_init(&writer, bytes, sizeof(bytes));
    if (sl_wire_put_empty(&writer, type) == SL_OK) {
        sl_conn_send(conn, bytes, writer.len);
    }
}

void sl_conn_send_count(struct sl_conn *conn, uint64_t count)
{
    char bytes[64];
    struct sl_wire_writer writer;

    sl_wire_writer_init(&writer, bytes, sizeof(bytes));
    if (sl_wire_put_count(&writer, SL_FRAME_DONE, count) == SL_OK) {
        sl_conn_send(conn, bytes, writer.len);
    }
}

/* ---- frames
 * -------------------------------------------------------------------------------------- */

static const struct {
    enum sl_frame_type type;
    enum sl_conn_role role; /* who may send it */
    enum sl_err (*handle)(struct sl_conn *conn, const struct sl_frame *frame);
} handlers[] = {
    {SL_FRAME_HELLO, SL_CONN_NEW, sl_intake_hello},
    {SL_FRAME_WORKER_HELLO, SL_CONN_NEW, sl_workers_hello},
    {SL_FRAME_OPEN_JOB, SL_CONN_CLIENT, sl_intake_open_job},
    {SL_FRAME_SUBMIT, SL_CONN_CLIENT, sl_intake_submit},
    {SL_FRAME_RESULTS, SL_CONN_CLIENT, sl_watch_results},
    {SL_FRAME_STATUS, SL_CONN_CLIENT, sl_command_status},
    {SL_FRAME_JOBS, SL_CONN_CLIENT, sl_command_jobs},
    {SL_FRAME_SHOW, SL_CONN_CLIENT, sl_command_show},
    {SL_FRAME_CANCEL, SL_CONN_CLIENT, sl_command_cancel},
    {SL_FRAME_PURGE, SL_CONN_CLIENT, sl_command_purge},
    {SL_FRAME_DRAIN, SL_CONN_CLIENT, sl_command_drain},
    {SL_FRAME_LARGE_RESULT, SL_CONN_WORKER, sl_workers_large_result},
    {SL_FRAME_LEAVING, SL_CONN_WORKER, sl_workers_leaving},
};

static enum sl_err handle_frame(struct sl_conn *conn, const struct sl_frame *frame)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(handlers); i++) {
        if (handlers[i].type == frame->type && handlers[i].role == conn->role) {
            return handlers[i].handle(conn, frame);
        }
    }
    return SL_ERR_PROTOCOL; /* not known here, or not from this peer at this time */
}

/* Tells the peer, then closes; false when the connection goes. */
static bool take_frame(struct sl_conn *conn, const struct sl_frame *frame)
{
    uint64_t serial = conn->serial;
    enum sl_err err = handle_frame(conn, frame);

    if (conn->serial != serial) {
        return false;
    }
    if (err == SL_OK) {
        return true;
    }
    conn->source.broker->frames_refused++;
    sl_log(SL_EVENT_CLIENT_REFUSED, "uid=%u peer_pid=%d frame=%s reason=%s", conn->peer.uid,
           (int)conn->peer.pid, sl_frame_name(frame->type), sl_err_code(err));
    conn->must_close = true;
    sl_conn_send_error(conn, err, sl_err_meaning(err));
    if (conn->serial == serial) {
        want_events(conn);
    }
    return false;
}

static bool refuse_header(struct sl_conn *conn, enum sl_err err)
{
    conn->source.broker->frames_refused++;
    sl_log(SL_EVENT_CLIENT_REFUSED, "uid=%u peer_pid=%d reason=%s", conn->peer.uid,
           (int)conn->peer.pid, sl_err_code(err));
    conn->must_close = true;
    uint64_t serial = conn->serial;
    sl_conn_send_error(conn, err, sl_err_meaning(err));
    if (conn->serial == serial) {
        want_events(conn);
    }
    return false;
}

/* A frame longer than `head` begins: its buffer, or a pause until there is room. */
static bool begin_long_frame(struct sl_conn *conn, const struct sl_frame_header *header)
{
    struct sl_broker *broker = conn->source.broker;
    size_t bytes = header->payload_bytes;

    if (broker->intake_bytes > 0 && broker->intake_bytes + bytes > SL_INTAKE_BYTES_MAX) {
        conn->is_paused = true;
        broker->is_intake_full = true;
        want_events(conn);
        return false;
    }
    conn->frame = malloc(bytes);
    if (conn->frame == NULL) {
        return refuse_header(conn, SL_ERR_NO_MEMORY);
    }
    broker->intake_bytes += bytes;
    conn->frame_header = *header;
    conn->frame_began_ns = broker->now.mono_ns;
    conn->frame_have = conn->head_len - SL_FRAME_HEADER_BYTES;
    memcpy(conn->frame, conn->head + SL_FRAME_HEADER_BYTES, conn->frame_have);
    conn->head_len = 0;
    return true;
}

/* Handles the frames that stand in `head`; false: stop reading now. */
static bool take_head(struct sl_conn *conn)
{
    while (conn->head_len >= SL_FRAME_HEADER_BYTES) {
        struct sl_frame_header header;
        enum sl_err err = sl_frame_header_get(conn->head, &header);
        if (err != SL_OK) {
            return refuse_header(conn, err);
        }
        size_t whole = SL_FRAME_HEADER_BYTES + (size_t)header.payload_bytes;
        if (whole > SL_CONN_HEAD_BYTES) {
            return begin_long_frame(conn, &header);
        }
        if (whole > conn->head_len) {
            return true;
        }
        struct sl_frame frame = {
            .type = header.type,
            .payload = sl_span_of(conn->head + SL_FRAME_HEADER_BYTES, header.payload_bytes)};
        if (!take_frame(conn, &frame)) {
            return false;
        }
        conn->head_len -= whole;
        memmove(conn->head, conn->head + whole, conn->head_len);
        if (conn->is_paused) {
            return false;
        }
    }
    return true;
}

static bool take_long_frame(struct sl_conn *conn)
{
    struct sl_broker *broker = conn->source.broker;
    size_t bytes = conn->frame_header.payload_bytes;
    char *owned = conn->frame;
    struct sl_frame frame = {
        .type = conn->frame_header.type, .payload = sl_span_of(owned, bytes), .owned = &owned};

    conn->frame = NULL;
    bool goes_on = take_frame(conn, &frame);
    if (owned != NULL) { /* not kept by the handler, who would then give the budget back */
        free(owned);
        broker->intake_bytes -= bytes;
    }
    return goes_on && !conn->is_paused;
}

/* Bytes arrived where the connection reads now; false: stop reading. */
static bool took_bytes(struct sl_conn *conn, size_t got)
{
    if (conn->fd_count > 0 && conn->role != SL_CONN_WORKER) {
        drop_fds(conn); /* nobody asked for them */
    }
    if (conn->frame == NULL) {
        conn->head_len += got;
        return take_head(conn);
    }
    conn->frame_have += got;
    return conn->frame_have < conn->frame_header.payload_bytes || take_long_frame(conn);
}

/* One read; false: nothing more now. */
static bool read_some(struct sl_conn *conn)
{
    bool is_long = conn->frame != NULL;
    char *place = is_long ? conn->frame + conn->frame_have : conn->head + conn->head_len;
    size_t room = is_long ? conn->frame_header.payload_bytes - conn->frame_have
                          : SL_CONN_HEAD_BYTES - conn->head_len;
    SL_ASSERT(room > 0);
    ssize_t got = sl_os_recv_fds(conn->source.fd, place, room, conn->fds, &conn->fd_count);

    if (got > 0) {
        return took_bytes(conn, (size_t)got);
    }
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        sl_conn_close(conn);
    }
    return false;
}

static void read_conn(struct sl_conn *conn)
{
    for (int i = 0; i < READS_PER_EVENT && read_some(conn); i++) {
    }
    if (conn->serial != 0) {
        want_events(conn); /* a handler may have paused it */
    }
}

static void on_conn_event(struct sl_source *source, uint32_t events)
{
    struct sl_conn *conn = SL_CONTAINER_OF(source, struct sl_conn, source);

    if ((events & EPOLLOUT) != 0) {
        if (!flush_out(conn)) {
            return;
        }
        sl_watch_continue(conn);
    }
    if (conn->serial == 0) {
        return;
    }
    if ((events & EPOLLIN) != 0) {
        read_conn(conn);
    } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
        sl_conn_close(conn);
    }
}

void sl_conn_stop_reading(struct sl_broker *broker)
{
    if (broker->has_stopped_reading) {
        return;
    }
    broker->has_stopped_reading = true;
    sl_loop_change(&broker->listen, 0);
    for (size_t i = 0; i < SL_CLIENTS_MAX; i++) {
        if (broker->conns[i].serial != 0) {
            want_events(&broker->conns[i]);
        }
    }
}

void sl_conn_resume_all(struct sl_broker *broker)
{
    if (broker->has_stopped_reading) {
        return;
    }
    for (size_t i = 0; i < SL_CLIENTS_MAX; i++) {
        struct sl_conn *conn = &broker->conns[i];
        if (conn->serial == 0 || !conn->is_paused ||
            conn->submits_pending >= SL_FRAMES_UNACKED_MAX) {
            continue;
        }
        conn->is_paused = false;
        if (take_head(conn) && conn->serial != 0) { /* what stands there already raises no event */
            want_events(conn);
        }
    }
}

/* A client sends a frame that it has whole: one that takes so long has stopped. */
void sl_conn_make_room(struct sl_broker *broker)
{
    if (!broker->is_intake_full) {
        return;
    }
    broker->is_intake_full = false; /* until somebody finds that it still is */
    for (size_t i = 0; i < SL_CLIENTS_MAX; i++) {
        struct sl_conn *conn = &broker->conns[i];
        if (conn->serial != 0 && conn->frame != NULL &&
            broker->now.mono_ns - conn->frame_began_ns >= FRAME_TIME_NS) {
            drop_frame(conn);
            refuse_header(conn, SL_ERR_OVERLOADED);
        }
    }
    sl_conn_resume_all(broker);
}
