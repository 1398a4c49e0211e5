/*
 * The broker's end of the workers: join, results, leave, die.
 *
 * Loop thread. A worker that joins gets a lane of its own in fresh memory. Its socket is its sign
 * of life: when it hangs up, finished results in its lane are taken first, then its other calls end
 * as lost (those it had not yet taken off the ring do not count as attempts). Whatever a worker
 * writes is checked; one that writes nonsense is killed and treated as dead. The lane's memory goes
 * when the last operation that reads from it is on disk.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "broker/broker.h"
#include "common/check.h"
#include "common/log.h"

#define POLL_ITEMS_MAX 512 /* results of one worker in one turn: then others get theirs */

/* ---- join
 * ---------------------------------------------------------------------------------------- */

static void on_bell(struct sl_source *source, uint32_t events)
{
    /* Nothing to do: every turn looks at every ring. */
}

static struct sl_worker *free_worker(struct sl_broker *broker)
{
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        if (broker->workers[i].state == SL_WORKER_FREE) {
            broker->workers[i] =
                (struct sl_worker){.idx = i, .pidfd = -1, .worker_event_fd = -1, .bell.fd = -1};
            return &broker->workers[i];
        }
    }
    return NULL;
}

static void free_lane(struct sl_worker *worker)
{
    if (worker->lane != NULL) {
        sl_lane_close(&worker->lane);
    }
    sl_os_close(&worker->bell.fd);
    sl_os_close(&worker->worker_event_fd);
    sl_os_close(&worker->pidfd);
    worker->state = SL_WORKER_FREE;
}

static enum sl_err open_lane(struct sl_broker *broker, struct sl_worker *worker)
{
    worker->generation = broker->stored.generation << 32 | ++broker->next_generation;
    worker->bell.on_event = on_bell;
    worker->pidfd = sl_os_pidfd_open(worker->pid);
    enum sl_err err = sl_os_event_fd(&worker->worker_event_fd);
    if (err == SL_OK) {
        err = sl_os_event_fd(&worker->bell.fd);
    }
    if (err == SL_OK) {
        err = sl_lane_create(worker->idx, worker->generation, worker->worker_event_fd,
                             worker->bell.fd, &worker->lane);
    }
    if (err == SL_OK) {
        err = sl_loop_watch(broker, &worker->bell, EPOLLIN);
    }
    if (err != SL_OK) {
        free_lane(worker);
    }
    return err;
}

static bool send_lane(struct sl_worker *worker)
{
    char bytes[128];
    struct sl_wire_writer writer;
    struct sl_lane_msg msg = {.lane = worker->idx, .generation = worker->generation};
    const int fds[] = {worker->lane->memfd, worker->worker_event_fd, worker->bell.fd};

    sl_wire_writer_init(&writer, bytes, sizeof(bytes));
    return sl_wire_put_lane(&writer, &msg) == SL_OK &&
           sl_conn_send_fds(worker->conn, bytes, writer.len, fds, SL_ARRAY_LEN(fds));
}

/* Calls of the last run that this worker still has are its own again. */
static uint32_t claim_held(struct sl_broker *broker, struct sl_worker *worker,
                           const struct sl_held_call *held, size_t count)
{
    uint32_t claimed = 0;

    for (size_t i = 0; i < count; i++) {
        struct sl_call *call = sl_calls_find(&broker->calls, held[i].task);
        if (call == NULL || call->state != SL_CALL_ORPHAN || call->attempt != held[i].attempt) {
            continue;
        }
        sl_calls_set_state(&broker->calls, call, SL_CALL_SENT);
        call->worker = worker;
        call->generation = held[i].generation;
        call->ring_position = 0; /* begun, as far as anybody knows */
        worker->in_flight++;
        claimed++;
        if (call->is_cancelled) {
            sl_workers_cancel(call);
        }
    }
    return claimed;
}

static enum sl_err join(struct sl_conn *conn, const struct sl_held_call *held, size_t count)
{
    struct sl_broker *broker = conn->source.broker;
    struct sl_worker *worker = free_worker(broker);

    if (worker == NULL) {
        return SL_ERR_OVERLOADED;
    }
    worker->pid = conn->peer.pid;
    worker->conn = conn;
    enum sl_err err = open_lane(broker, worker);
    if (err != SL_OK) {
        return err;
    }
    worker->state = SL_WORKER_OPEN;
    conn->role = SL_CONN_WORKER;
    conn->worker = worker;
    if (!send_lane(worker)) {
        return SL_ERR_IO; /* the connection closes, and the worker with it */
    }
    sl_survivors_record(broker, worker->pid);
    uint32_t claimed = claim_held(broker, worker, held, count);
    sl_survivors_joined(broker, worker->pid);
    sl_log(SL_EVENT_LANE_OPEN, "lane=%u gen=%" PRIu64 " worker_pid=%d held=%zu claimed=%u",
           worker->idx, worker->generation, (int)worker->pid, count, claimed);
    return SL_OK;
}

enum sl_err sl_workers_hello(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_broker *broker = conn->source.broker;
    struct sl_span version;
    size_t count = 0;

    if (!conn->is_admin) {
        return SL_ERR_PERMISSION; /* workers run as the service's own user */
    }
    struct sl_held_call *held = calloc(SL_CONCURRENCY_MAX, sizeof(*held));
    if (held == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    enum sl_err err = sl_wire_get_worker_hello(broker->decoder, frame->payload, &version, held,
                                               SL_CONCURRENCY_MAX, &count);
    if (err == SL_OK) {
        err = join(conn, held, count);
    }
    free(held);
    return err;
}

/* ---- results
 * ------------------------------------------------------------------------------------- */

/* Does the message hold together? It was copied out of shared memory before. */
static bool is_sane(const struct sl_result_msg_shm *msg, size_t payload_bytes)
{
    return sl_err_is_known(msg->err) && msg->http_status <= 999 &&
           msg->request_id_bytes <= SL_REQUEST_ID_BYTES_MAX &&
           msg->message_bytes <= SL_MESSAGE_BYTES_MAX && msg->body_bytes <= SL_RESPONSE_BYTES_MAX &&
           msg->request_id_bytes + msg->message_bytes + msg->body_bytes == payload_bytes;
}

/* The call this result is of: leased now, to this worker, under the same lane generation. */
static struct sl_call *match(struct sl_worker *worker, const struct sl_result_msg_shm *msg)
{
    struct sl_broker *broker = worker->conn != NULL ? worker->conn->source.broker : NULL;
    struct sl_call *call = broker != NULL ? sl_calls_find(&broker->calls, msg->task) : NULL;
    bool is_leased = call != NULL && call->state == SL_CALL_SENT && call->worker == worker &&
                     call->attempt == msg->attempt && call->generation == msg->generation;

    return is_leased ? call : NULL;
}

static void take_result(struct sl_broker *broker, struct sl_worker *worker,
                        const struct sl_result_msg_shm *msg, struct sl_span payload)
{
    struct sl_call *call = match(worker, msg);

    if (call == NULL) {
        broker->stale_results++;
        sl_log(SL_EVENT_STALE_RESULT, "lane=%u gen=%" PRIu64 " task=%016" PRIx64 " attempt=%u",
               worker->idx, worker->generation, msg->task, msg->attempt);
        return;
    }
    struct sl_call_end end = {
        .err = (enum sl_err)msg->err,
        .is_unstarted = (msg->flags & SL_RESULT_NOT_STARTED) != 0,
        .result = msg,
        .payload = payload,
    };
    sl_dispatch_end(broker, call, &end);
}

static void put_out(struct sl_broker *broker, struct sl_worker *worker)
{
    sl_log(SL_EVENT_LANE_INVALID, "lane=%u gen=%" PRIu64 " worker_pid=%d", worker->idx,
           worker->generation, (int)worker->pid);
    if (worker->pidfd >= 0) {
        sl_os_pidfd_kill(worker->pidfd, SIGKILL);
    }
    if (worker->conn != NULL) {
        sl_conn_close(worker->conn);
    }
}

/* Takes results off one lane; false: it is damaged. */
static bool poll_lane(struct sl_broker *broker, struct sl_worker *worker, size_t items_max)
{
    size_t taken = 0;
    enum sl_err err = SL_OK;

    while (taken < items_max) {
        struct sl_ring_item item;
        struct sl_result_msg_shm msg;
        err = sl_ring_peek(&worker->lane->in, &item);
        if (err != SL_OK) {
            break;
        }
        memcpy(&msg, item.msg, sizeof(msg));
        if (!is_sane(&msg, item.payload.len)) {
            return false;
        }
        sl_dispatch_end_source(broker, worker);
        take_result(broker, worker, &msg, item.payload);
        sl_dispatch_note_position(broker, item.position);
        taken++;
    }
    worker->has_results = taken == items_max;
    return err != SL_ERR_SHM;
}

void sl_workers_poll(struct sl_broker *broker)
{
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        struct sl_worker *worker = &broker->workers[i];
        if (worker->state != SL_WORKER_OPEN && worker->state != SL_WORKER_LEAVING) {
            continue;
        }
        if (!poll_lane(broker, worker, POLL_ITEMS_MAX)) {
            put_out(broker, worker);
        }
    }
}

enum sl_err sl_workers_large_result(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_broker *broker = conn->source.broker;
    struct sl_worker *worker = conn->worker;
    struct sl_result_msg_shm msg;
    struct sl_span mapped = {0};
    enum sl_err err = sl_wire_get_slot(broker->decoder, frame->payload, &msg, sizeof(msg));

    if (err != SL_OK || conn->fd_count != 1) {
        return SL_ERR_PROTOCOL;
    }
    size_t bytes = (size_t)msg.request_id_bytes + msg.message_bytes + (size_t)msg.body_bytes;
    if (is_sane(&msg, bytes)) {
        err = sl_shm_large_map(conn->fds[0], bytes, &mapped);
    } else {
        err = SL_ERR_PROTOCOL;
    }
    sl_os_close(&conn->fds[0]);
    conn->fd_count = 0;
    if (err != SL_OK) {
        return err;
    }
    sl_dispatch_flush_ends(broker);
    sl_dispatch_end_source(broker, worker);
    take_result(broker, worker, &msg, mapped);
    sl_dispatch_note_large(broker, mapped);
    return SL_OK;
}

/* ---- leave and die
 * --------------------------------------------------------------------------------- */

enum sl_err sl_workers_leaving(struct sl_conn *conn, const struct sl_frame *frame)
{
    enum sl_err err = sl_wire_get_empty(conn->source.broker->decoder, frame->payload);

    if (err == SL_OK && conn->worker->state == SL_WORKER_OPEN) {
        conn->worker->state = SL_WORKER_LEAVING;
    }
    return err;
}

static void end_lost_calls(struct sl_broker *broker, struct sl_worker *worker, uint64_t taken)
{
    for (size_t i = 0; worker->in_flight > 0 && i < broker->calls.touched; i++) {
        struct sl_call *call = &broker->calls.all[i];
        if (call->state != SL_CALL_SENT || call->worker != worker) {
            continue;
        }
        bool was_taken = call->ring_position == UINT64_MAX || call->ring_position < taken;
        struct sl_call_end end = {.err = SL_ERR_WORKER_KILLED, .is_unstarted = !was_taken};
        sl_dispatch_end(broker, call, &end);
    }
}

/* How many work items the worker had taken off its ring; after damage: all, to be safe. */
static uint64_t work_taken(struct sl_worker *worker)
{
    uint64_t pending = 0;

    if (sl_ring_pending(&worker->lane->out, &pending) != SL_OK) {
        return UINT64_MAX;
    }
    return worker->lane->out.published - pending;
}

static void log_end(struct sl_worker *worker, uint32_t lost)
{
    char words[SL_LAST_WORDS_BYTES];

    if (worker->state == SL_WORKER_LEAVING && lost == 0) {
        sl_log(SL_EVENT_LANE_CLOSED, "lane=%u gen=%" PRIu64 " worker_pid=%d", worker->idx,
               worker->generation, (int)worker->pid);
        return;
    }
    sl_lane_last_words(worker->lane, words);
    sl_log(SL_EVENT_LANE_LOST, "lane=%u gen=%" PRIu64 " worker_pid=%d calls_lost=%u words=\"%s\"",
           worker->idx, worker->generation, (int)worker->pid, lost, words);
}

/* A worker that hung up but lives on would go on calling: it is killed first. */
static void make_sure_dead(struct sl_worker *worker)
{
    struct pollfd p = {.fd = worker->pidfd, .events = POLLIN};

    if (worker->pidfd >= 0 && poll(&p, 1, 0) == 0) {
        sl_os_pidfd_kill(worker->pidfd, SIGKILL);
    }
}

void sl_workers_conn_closed(struct sl_worker *worker)
{
    struct sl_broker *broker = worker->bell.broker;
    bool was_leaving = worker->state == SL_WORKER_LEAVING;

    worker->settles_pending++; /* ours, so that the lane stays until the end of this function */
    if (!poll_lane(broker, worker, SIZE_MAX)) {
        sl_log(SL_EVENT_LANE_INVALID, "lane=%u gen=%" PRIu64, worker->idx, worker->generation);
    }
    uint32_t lost = worker->in_flight;
    if (lost > 0 || !was_leaving) {
        make_sure_dead(worker);
        broker->lanes_lost++;
    }
    end_lost_calls(broker, worker, work_taken(worker));
    SL_ASSERT(worker->in_flight == 0);
    log_end(worker, lost);
    sl_loop_unwatch(&worker->bell);
    worker->conn = NULL;
    worker->state = SL_WORKER_GONE;
    sl_workers_unref(worker);
}

void sl_workers_unref(struct sl_worker *worker)
{
    SL_ASSERT(worker->settles_pending > 0);
    worker->settles_pending--;
    if (worker->settles_pending == 0 && worker->state == SL_WORKER_GONE) {
        sl_survivors_erase(worker->bell.broker, worker->pid);
        free_lane(worker);
    }
}

/* ---- sleep and wake
 * ---------------------------------------------------------------------------------- */

bool sl_workers_prepare_sleep(struct sl_broker *broker)
{
    bool may_sleep = true;

    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        struct sl_worker *worker = &broker->workers[i];
        if (worker->state != SL_WORKER_OPEN && worker->state != SL_WORKER_LEAVING) {
            continue;
        }
        sl_bell_arm(&worker->lane->in_bell);
        worker->is_armed = true;
        may_sleep = may_sleep && !sl_ring_has_items(&worker->lane->in);
    }
    return may_sleep;
}

void sl_workers_wake(struct sl_broker *broker)
{
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        struct sl_worker *worker = &broker->workers[i];
        if (worker->is_armed && worker->lane != NULL) {
            sl_bell_disarm(&worker->lane->in_bell);
        }
        worker->is_armed = false;
    }
}

void sl_workers_ring(struct sl_broker *broker)
{
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        struct sl_worker *worker = &broker->workers[i];
        if (worker->must_ring && worker->state != SL_WORKER_GONE && worker->lane != NULL) {
            sl_bell_ring(&worker->lane->out_bell);
        }
        worker->must_ring = false;
    }
}

/* ---- for dispatch
 * ------------------------------------------------------------------------------------- */

struct sl_worker *sl_workers_pick(struct sl_broker *broker)
{
    struct sl_worker *best = NULL;

    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        struct sl_worker *worker = &broker->workers[i];
        if (worker->state == SL_WORKER_OPEN &&
            (best == NULL || worker->in_flight < best->in_flight)) {
            best = worker;
        }
    }
    return best;
}

void sl_workers_cancel(struct sl_call *call)
{
    struct sl_worker *worker = call->worker;
    struct sl_ring_claim claim;
    struct sl_work_msg msg = {.task = call->task, .attempt = call->attempt, .kind = SL_WORK_CANCEL};

    SL_ASSERT(worker != NULL && worker->lane != NULL);
    if (sl_ring_reserve(&worker->lane->out, 0, &claim) != SL_OK) {
        return; /* full: the call ends by itself and is then recorded as cancelled */
    }
    memcpy(claim.msg, &msg, sizeof(msg));
    sl_ring_publish(&worker->lane->out);
    worker->must_ring = true;
}

void sl_workers_send_drain(struct sl_broker *broker)
{
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        if (broker->workers[i].state == SL_WORKER_OPEN) {
            sl_conn_send_empty(broker->workers[i].conn, SL_FRAME_DRAIN_LANE);
        }
    }
}

void sl_workers_close_all(struct sl_broker *broker)
{
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        struct sl_worker *worker = &broker->workers[i];
        if (worker->state != SL_WORKER_FREE) {
            free_lane(worker);
        }
    }
}
