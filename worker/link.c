/*
 * The worker's side of its bond with a broker: connect, greet with the calls that are held, attach
 * the lane, obey the few frames a broker sends, and notice when it is gone.
 *
 * Runs in a worker. Never ends a call because a broker is gone: calls run on, results are kept, and
 * the next broker hears of both in the hello. What survives a hang-up is everything but the lane.
 *
 * Logs broker_found and broker_lost once each. Ends the worker only for SL_ERR_VERSION, which no
 * retry mends: exit status SL_WORKER_EXIT_CONFIG.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "common/check.h"
#include "common/log.h"
#include "common/os.h"
#include "worker/run.h"
#include "worker/worker.h"

#define GAP_MIN_NS (50 * SL_NS_PER_MS)
#define GAP_MAX_NS SL_NS_PER_S
#define SMALL_FRAME_BYTES 512

/* ---- connect and greet ----------------------------------------------------------------------- */

static void try_later(struct sl_worker *worker)
{
    worker->reconnect_ns = sl_time_add(worker->now.mono_ns, worker->reconnect_gap_ns);
    worker->reconnect_gap_ns = SL_MIN(worker->reconnect_gap_ns * 2, GAP_MAX_NS);
}

static enum sl_err greet(struct sl_worker *worker)
{
    size_t count = sl_calls_count(worker->calls);
    size_t size = SMALL_FRAME_BYTES + count * 32;
    struct sl_held_call *held = calloc(count + 1, sizeof(*held));
    char *buffer = malloc(size);
    enum sl_err err = SL_ERR_NO_MEMORY;

    if (held != NULL && buffer != NULL) {
        struct sl_wire_writer writer;
        sl_calls_list_held(worker->calls, held);
        sl_wire_writer_init(&writer, buffer, size);
        err = sl_wire_put_worker_hello(&writer, sl_span_str(SLUICE_VERSION), held, count);
        if (err == SL_OK) {
            err = sl_control_send(worker->control, writer.buf, writer.len, -1);
        }
    }
    free(held);
    free(buffer);
    return err;
}

void sl_link_tick(struct sl_worker *worker)
{
    if (sl_control_is_connected(worker->control) || worker->reconnect_ns > worker->now.mono_ns) {
        return;
    }
    try_later(worker);
    enum sl_err err = sl_control_connect(worker->control, worker->cfg->socket_path);
    if (err == SL_ERR_UNREACHABLE) {
        return; /* no broker yet: the usual case, and not worth a record every second */
    }
    if (err != SL_OK) {
        sl_log(SL_EVENT_FAILED, "connect socket=%s error=%s: %s", worker->cfg->socket_path,
               sl_err_code(err), strerror(errno));
        return;
    }
    worker->has_greeted = true;
    err = greet(worker);
    if (err != SL_OK) {
        sl_link_lose(worker, err);
    }
}

int64_t sl_link_due_ns(const struct sl_worker *worker)
{
    return sl_control_is_connected(worker->control) ? INT64_MAX : worker->reconnect_ns;
}

/* ---- loss ------------------------------------------------------------------------------------ */

static void drop_lane(struct sl_worker *worker)
{
    if (worker->lane != NULL) {
        sl_check_set_last_words(NULL, 0);
        sl_lane_close(&worker->lane);
    }
    if (worker->own_event_fd >= 0) {
        (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, worker->own_event_fd, NULL);
    }
    sl_os_close(&worker->own_event_fd);
    sl_os_close(&worker->broker_event_fd);
}

void sl_link_close(struct sl_worker *worker)
{
    drop_lane(worker);
    sl_control_disconnect(worker->control);
}

void sl_link_lose(struct sl_worker *worker, enum sl_err why)
{
    if (why == SL_ERR_UNREACHABLE && worker->lane != NULL) {
        /* A broker that died had handed out, under durable leases, what is still in the lane.
         * Taking it saves each of these tasks an attempt of unknown outcome. */
        sl_take_work(worker);
    }
    if (worker->lane != NULL && sl_publish_free_released(worker) != SL_OK) {
        why = SL_ERR_SHM; /* nothing is lost by it: all results are published again */
    }
    if (!sl_control_is_connected(worker->control)) {
        return; /* none, or the lane was found broken just now */
    }
    if (worker->lane != NULL) {
        sl_log(SL_EVENT_BROKER_LOST, "lane=%u gen=%llu calls=%zu reason=%s", worker->lane->idx,
               (unsigned long long)worker->lane->generation, sl_calls_count(worker->calls),
               sl_err_code(why));
        worker->reconnect_gap_ns = GAP_MIN_NS;
        drop_lane(worker);
        sl_publish_again(worker);
    }
    sl_control_disconnect(worker->control);
    worker->has_greeted = false;
    try_later(worker);
}

/* ---- frames ---------------------------------------------------------------------------------- */

static enum sl_err watch_lane_bell(struct sl_worker *worker)
{
    struct epoll_event event = {.events = EPOLLIN,
                                .data.u64 = (uint64_t)SL_TAG_BELL << SL_TAG_SHIFT};

    return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->own_event_fd, &event) == 0
               ? SL_OK
               : SL_ERR_IO;
}

static enum sl_err attach_lane(struct sl_worker *worker, const struct sl_lane_msg *msg)
{
    int fds[3];

    if (!sl_control_take_fds(worker->control, fds, SL_ARRAY_LEN(fds))) {
        return SL_ERR_PROTOCOL;
    }
    worker->own_event_fd = fds[1];
    worker->broker_event_fd = fds[2];
    enum sl_err err =
        sl_lane_attach(fds[0], worker->own_event_fd, worker->broker_event_fd, &worker->lane);
    if (err != SL_OK) {
        sl_os_close(&fds[0]);
        drop_lane(worker);
        return err;
    }
    if (worker->lane->idx != msg->lane || worker->lane->generation != msg->generation) {
        drop_lane(worker);
        return SL_ERR_SHM;
    }
    return watch_lane_bell(worker);
}

static enum sl_err on_lane(struct sl_worker *worker, struct sl_span payload)
{
    struct sl_lane_msg msg;
    enum sl_err err = sl_wire_get_lane(worker->decoder, payload, &msg);

    if (err != SL_OK || worker->lane != NULL) {
        return SL_ERR_PROTOCOL;
    }
    err = attach_lane(worker, &msg);
    if (err != SL_OK) {
        sl_log(SL_EVENT_FAILED, "lane=%u gen=%llu error=%s", msg.lane,
               (unsigned long long)msg.generation, sl_err_code(err));
        return err;
    }
    sl_check_set_last_words(sl_lane_last_words_buffer(worker->lane), SL_LAST_WORDS_BYTES);
    worker->has_greeted = false;
    worker->reconnect_gap_ns = GAP_MIN_NS;
    sl_log(SL_EVENT_BROKER_FOUND, "lane=%u gen=%llu held=%zu", msg.lane,
           (unsigned long long)msg.generation, sl_calls_count(worker->calls));
    if (worker->is_draining) {
        sl_link_send_leaving(worker);
    }
    return SL_OK;
}

/* The payload of such an item is in a memfd of its own. */
static enum sl_err on_large_work(struct sl_worker *worker, struct sl_span payload)
{
    struct sl_work_msg work;
    struct sl_span mapped;
    int fd = -1;
    enum sl_err err = sl_wire_get_slot(worker->decoder, payload, &work, sizeof(work));

    if (err != SL_OK || worker->lane == NULL || !sl_control_take_fds(worker->control, &fd, 1)) {
        return SL_ERR_PROTOCOL;
    }
    err = sl_shm_large_map(fd, (size_t)work.provider_bytes + work.body_bytes, &mapped);
    if (err == SL_OK) {
        err = sl_take_item(worker, &work, mapped);
        sl_shm_large_unmap(&mapped);
    }
    sl_os_close(&fd);
    return err;
}

static enum sl_err on_error(struct sl_worker *worker, struct sl_span payload)
{
    struct sl_error_msg msg;
    enum sl_err err = sl_wire_get_error(worker->decoder, payload, &msg);

    if (err != SL_OK) {
        return err;
    }
    sl_log(SL_EVENT_FAILED, "the broker refuses this worker error=%s: %.*s", sl_err_code(msg.err),
           (int)SL_MIN(msg.message.len, (size_t)SL_MESSAGE_BYTES_MAX), msg.message.ptr);
    if (msg.err == SL_ERR_VERSION) {
        worker->is_over = true;
        worker->exit_status = SL_WORKER_EXIT_CONFIG;
    }
    return msg.err == SL_OK ? SL_ERR_PROTOCOL : msg.err;
}

static enum sl_err on_large_stored(struct sl_worker *worker, struct sl_span payload)
{
    uint64_t count;
    enum sl_err err = sl_wire_get_count(worker->decoder, payload, &count);

    if (err != SL_OK || count != 1 || !sl_publish_large_stored(worker)) {
        return SL_ERR_PROTOCOL;
    }
    return SL_OK;
}

static enum sl_err on_drain_lane(struct sl_worker *worker, struct sl_span payload)
{
    enum sl_err err = sl_wire_get_empty(worker->decoder, payload);

    if (err == SL_OK) {
        sl_worker_begin_drain(worker, "the broker drains");
    }
    return err;
}

static enum sl_err handle_frame(struct sl_worker *worker, enum sl_frame_type type,
                                struct sl_span payload)
{
    if (type == SL_FRAME_LANE) {
        return on_lane(worker, payload);
    }
    if (type == SL_FRAME_LARGE_WORK) {
        return on_large_work(worker, payload);
    }
    if (type == SL_FRAME_DONE) {
        return on_large_stored(worker, payload);
    }
    if (type == SL_FRAME_DRAIN_LANE) {
        return on_drain_lane(worker, payload);
    }
    return type == SL_FRAME_ERROR ? on_error(worker, payload) : SL_ERR_PROTOCOL;
}

static enum sl_err read_frames(struct sl_worker *worker)
{
    enum sl_frame_type type;
    struct sl_span payload;
    enum sl_err err = sl_control_receive(worker->control);

    while (err == SL_OK) {
        err = sl_control_next(worker->control, &type, &payload);
        if (err == SL_OK) {
            err = handle_frame(worker, type, payload);
        }
    }
    return err == SL_ERR_AGAIN ? SL_OK : err;
}

void sl_link_event(struct sl_worker *worker, uint32_t events)
{
    enum sl_err err = SL_OK;

    if (!sl_control_is_connected(worker->control)) {
        return; /* hung up by an event before this one in the same batch */
    }
    if ((events & EPOLLOUT) != 0) {
        err = sl_control_flush(worker->control);
    }
    if (err == SL_OK && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        err = read_frames(worker);
    }
    if (err != SL_OK) {
        sl_link_lose(worker, err);
    }
}

void sl_link_send_leaving(struct sl_worker *worker)
{
    char buffer[SMALL_FRAME_BYTES];
    struct sl_wire_writer writer;

    if (worker->lane == NULL) {
        return; /* said once there is one */
    }
    sl_wire_writer_init(&writer, buffer, sizeof(buffer));
    enum sl_err err = sl_wire_put_empty(&writer, SL_FRAME_LEAVING);
    if (err == SL_OK) {
        err = sl_control_send(worker->control, writer.buf, writer.len, -1);
    }
    if (err != SL_OK) {
        sl_log(SL_EVENT_FAILED, "leaving error=%s", sl_err_code(err));
    }
}
