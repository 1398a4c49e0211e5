/*
 * Frames and descriptors over the socket to the broker.
 *
 * Runs in a worker. Never interprets a frame. Nothing of it survives a hang-up: both sides start
 * anew with a hello.
 *
 * Descriptors travel with the first byte of their frame, so when a frame is whole they are here,
 * in the order of their frames. A frame or a number of descriptors above our bounds is
 * SL_ERR_PROTOCOL, and the caller hangs up.
 */
#include "worker/control.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "common/check.h"
#include "common/os.h"

struct outgoing {
    TAILQ_ENTRY(outgoing) link;
    int fd; /* -1: none, or sent already */
    size_t len;
    size_t sent;
    char bytes[];
};

struct sl_control {
    int fd; /* -1: not connected */
    int epoll_fd;
    uint64_t epoll_tag;
    bool is_writing; /* EPOLLOUT is asked for */
    TAILQ_HEAD(, outgoing) queue;
    int fds[SL_CONTROL_FDS_MAX];
    size_t fd_count;
    size_t in_start; /* the frame given last began before this */
    size_t in_len;
    char in[SL_CONTROL_IN_BYTES];
};

struct sl_control *sl_control_open(int epoll_fd, uint64_t epoll_tag)
{
    struct sl_control *control = calloc(1, sizeof(*control));

    if (control != NULL) {
        control->fd = -1;
        control->epoll_fd = epoll_fd;
        control->epoll_tag = epoll_tag;
        TAILQ_INIT(&control->queue);
    }
    return control;
}

void sl_control_close(struct sl_control **control)
{
    if (*control != NULL) {
        sl_control_disconnect(*control);
        free(*control);
        *control = NULL;
    }
}

bool sl_control_is_connected(const struct sl_control *control)
{
    return control->fd >= 0;
}

static void set_events(struct sl_control *control, int operation)
{
    struct epoll_event event = {.events = EPOLLIN | (control->is_writing ? EPOLLOUT : 0U),
                                .data.u64 = control->epoll_tag};

    int rc = epoll_ctl(control->epoll_fd, operation, control->fd, &event);
    SL_ASSERT(rc == 0 || errno == ENOMEM || errno == ENOSPC);
}

enum sl_err sl_control_connect(struct sl_control *control, const char *path)
{
    int fd = -1;
    enum sl_err err = sl_os_connect_unix(path, &fd);

    SL_ASSERT(control->fd < 0);
    if (err == SL_OK) {
        err = sl_os_set_nonblocking(fd, true);
    }
    if (err != SL_OK) {
        sl_os_close(&fd);
        return err;
    }
    control->fd = fd;
    control->is_writing = false;
    set_events(control, EPOLL_CTL_ADD);
    return SL_OK;
}

static void drop_outgoing(struct sl_control *control, struct outgoing *item)
{
    TAILQ_REMOVE(&control->queue, item, link);
    sl_os_close(&item->fd);
    free(item);
}

void sl_control_disconnect(struct sl_control *control)
{
    while (!TAILQ_EMPTY(&control->queue)) {
        drop_outgoing(control, TAILQ_FIRST(&control->queue));
    }
    for (size_t i = 0; i < control->fd_count; i++) {
        sl_os_close(&control->fds[i]);
    }
    control->fd_count = 0;
    control->in_start = 0;
    control->in_len = 0;
    sl_os_close(&control->fd);
}

/* ---- out ------------------------------------------------------------------------------------- */

static enum sl_err send_first(struct sl_control *control, struct outgoing *item)
{
    ssize_t sent = sl_os_send_fds(control->fd, item->bytes + item->sent, item->len - item->sent,
                                  &item->fd, item->fd >= 0 ? 1 : 0);

    if (sent < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK ? SL_ERR_AGAIN : SL_ERR_UNREACHABLE;
    }
    if (sent > 0) {
        sl_os_close(&item->fd); /* it went with the first byte */
    }
    item->sent += (size_t)sent;
    if (item->sent == item->len) {
        drop_outgoing(control, item);
    }
    return SL_OK;
}

enum sl_err sl_control_flush(struct sl_control *control)
{
    enum sl_err err = SL_OK;

    while (err == SL_OK && !TAILQ_EMPTY(&control->queue)) {
        err = send_first(control, TAILQ_FIRST(&control->queue));
    }
    if (err == SL_ERR_UNREACHABLE) {
        return err;
    }
    bool is_writing = !TAILQ_EMPTY(&control->queue);
    if (is_writing != control->is_writing) {
        control->is_writing = is_writing;
        set_events(control, EPOLL_CTL_MOD);
    }
    return SL_OK;
}

enum sl_err sl_control_send(struct sl_control *control, const void *bytes, size_t len, int fd)
{
    struct outgoing *item = malloc(sizeof(*item) + len);

    SL_ASSERT(control->fd >= 0 && len > 0);
    if (item == NULL) {
        sl_os_close(&fd);
        return SL_ERR_NO_MEMORY;
    }
    item->fd = fd;
    item->len = len;
    item->sent = 0;
    memcpy(item->bytes, bytes, len);
    TAILQ_INSERT_TAIL(&control->queue, item, link);
    return control->is_writing ? SL_OK : sl_control_flush(control);
}

/* ---- in -------------------------------------------------------------------------------------- */

static void compact(struct sl_control *control)
{
    memmove(control->in, control->in + control->in_start, control->in_len - control->in_start);
    control->in_len -= control->in_start;
    control->in_start = 0;
}

static bool keep_fds(struct sl_control *control, int *fds, size_t count)
{
    bool has_room = control->fd_count + count <= SL_CONTROL_FDS_MAX;

    for (size_t i = 0; i < count; i++) {
        if (has_room) {
            control->fds[control->fd_count++] = fds[i];
        } else {
            sl_os_close(&fds[i]);
        }
    }
    return has_room;
}

enum sl_err sl_control_receive(struct sl_control *control)
{
    int fds[SL_OS_FDS_MAX];
    size_t fd_count = 0;

    compact(control);
    size_t room = sizeof(control->in) - control->in_len;
    if (room == 0) {
        return SL_ERR_PROTOCOL; /* one frame larger than any a broker sends us */
    }
    ssize_t got = sl_os_recv_fds(control->fd, control->in + control->in_len, room, fds, &fd_count);
    if (!keep_fds(control, fds, fd_count)) {
        return SL_ERR_PROTOCOL;
    }
    if (got < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK ? SL_ERR_AGAIN : SL_ERR_UNREACHABLE;
    }
    if (got == 0) {
        return SL_ERR_UNREACHABLE;
    }
    control->in_len += (size_t)got;
    return SL_OK;
}

enum sl_err sl_control_next(struct sl_control *control, enum sl_frame_type *type,
                            struct sl_span *payload)
{
    struct sl_frame_header header;
    size_t there = control->in_len - control->in_start;
    const char *at = control->in + control->in_start;

    if (there < SL_FRAME_HEADER_BYTES) {
        return SL_ERR_AGAIN;
    }
    enum sl_err err = sl_frame_header_get(at, &header);
    if (err != SL_OK) {
        return err;
    }
    if (header.payload_bytes > sizeof(control->in) - SL_FRAME_HEADER_BYTES) {
        return SL_ERR_PROTOCOL;
    }
    if (there - SL_FRAME_HEADER_BYTES < header.payload_bytes) {
        return SL_ERR_AGAIN;
    }
    *type = header.type;
    *payload = sl_span_of(at + SL_FRAME_HEADER_BYTES, header.payload_bytes);
    control->in_start += SL_FRAME_HEADER_BYTES + header.payload_bytes;
    return SL_OK;
}

bool sl_control_take_fds(struct sl_control *control, int *fds, size_t count)
{
    if (control->fd_count < count) {
        return false;
    }
    memcpy(fds, control->fds, count * sizeof(*fds));
    control->fd_count -= count;
    memmove(control->fds, control->fds + count, control->fd_count * sizeof(*fds));
    return true;
}
