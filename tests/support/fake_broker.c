/*
 * A broker without a store, for tests of the worker service. See the header.
 */
#include "tests/support/fake_broker.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/os.h"
#include "tests/support/wait.h"

#define WORKERS_MAX 8
#define BUFFER_BYTES (64 * SL_KIB)

struct fake_worker {
    int fd;
    int worker_event;
    int broker_event;
    pid_t pid;
    struct sl_lane *lane;
    uint64_t taken; /* position behind the last result taken */
    bool has_taken;
    bool has_left;
    bool is_gone;
    char in[BUFFER_BYTES];
    size_t in_len;
    int fds[16];
    size_t fd_count;
    struct sl_result_msg_shm large[16]; /* came, not asked for yet */
    size_t large_count;
};

struct fake_broker {
    int listen_fd;
    struct fake_worker *workers[WORKERS_MAX];
    size_t worker_count;
    struct sl_wire_decoder *decoder;
    struct sl_held_call held[FAKE_HELD_MAX];
    size_t held_count;
};

void fake_result_fini(struct fake_result *result)
{
    free(result->body);
    result->body = NULL;
}

struct fake_broker *fake_broker_open(const char *socket_path)
{
    struct fake_broker *broker = calloc(1, sizeof(*broker));

    ck_assert_ptr_nonnull(broker);
    ck_assert_int_eq(sl_os_listen_unix(socket_path, 0600, &broker->listen_fd), SL_OK);
    broker->decoder = sl_wire_decoder_open();
    ck_assert_ptr_nonnull(broker->decoder);
    return broker;
}

static void worker_close(struct fake_worker *worker)
{
    sl_lane_close(&worker->lane);
    sl_os_close(&worker->fd);
    sl_os_close(&worker->worker_event);
    sl_os_close(&worker->broker_event);
    for (size_t i = 0; i < worker->fd_count; i++) {
        sl_os_close(&worker->fds[i]);
    }
    free(worker);
}

void fake_broker_close(struct fake_broker *broker)
{
    for (size_t i = 0; i < broker->worker_count; i++) {
        worker_close(broker->workers[i]);
    }
    sl_wire_decoder_close(&broker->decoder);
    sl_os_close(&broker->listen_fd);
    free(broker);
}

/* ---- frames ---------------------------------------------------------------------------------- */

static bool receive(struct fake_worker *worker)
{
    int fds[SL_OS_FDS_MAX];
    size_t count = 0;
    ssize_t got = sl_os_recv_fds(worker->fd, worker->in + worker->in_len,
                                 sizeof(worker->in) - worker->in_len, fds, &count);

    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_lt(worker->fd_count, SL_ARRAY_LEN(worker->fds));
        worker->fds[worker->fd_count++] = fds[i];
    }
    if (got > 0) {
        worker->in_len += (size_t)got;
    }
    worker->is_gone = got == 0 || (got < 0 && errno != EAGAIN);
    return got > 0;
}

static bool next_frame(struct fake_worker *worker, enum sl_frame_type *type, char *payload,
                       size_t *len)
{
    struct sl_frame_header header;

    if (worker->in_len < SL_FRAME_HEADER_BYTES) {
        return false;
    }
    ck_assert_int_eq(sl_frame_header_get(worker->in, &header), SL_OK);
    ck_assert_int_eq(sl_frame_sender(header.type), SL_SENDER_WORKER);
    size_t all = SL_FRAME_HEADER_BYTES + header.payload_bytes;
    if (worker->in_len < all) {
        return false;
    }
    memcpy(payload, worker->in + SL_FRAME_HEADER_BYTES, header.payload_bytes);
    memmove(worker->in, worker->in + all, worker->in_len - all);
    worker->in_len -= all;
    *type = header.type;
    *len = header.payload_bytes;
    return true;
}

static void handle_frames(struct fake_broker *broker, struct fake_worker *worker)
{
    static char payload[BUFFER_BYTES];
    enum sl_frame_type type;
    size_t len;

    while (next_frame(worker, &type, payload, &len)) {
        struct sl_span span = sl_span_of(payload, len);
        if (type == SL_FRAME_LEAVING) {
            worker->has_left = true;
        } else {
            ck_assert_int_eq(type, SL_FRAME_LARGE_RESULT);
            struct sl_result_msg_shm *slot = &worker->large[worker->large_count++];
            ck_assert_int_eq(sl_wire_get_slot(broker->decoder, span, slot, sizeof(*slot)), SL_OK);
        }
    }
}

static void read_socket(struct fake_broker *broker, struct fake_worker *worker)
{
    while (!worker->is_gone && receive(worker)) {
        handle_frames(broker, worker);
    }
}

/* ---- a worker joins -------------------------------------------------------------------------- */

static void read_hello(struct fake_broker *broker, struct fake_worker *worker)
{
    static char payload[BUFFER_BYTES];
    enum sl_frame_type type;
    struct sl_span version;
    size_t len;

    while (!next_frame(worker, &type, payload, &len)) {
        ck_assert_msg(wait_readable(worker->fd, WAIT_MS), "no hello from the worker");
        ck_assert(receive(worker));
    }
    ck_assert_int_eq(type, SL_FRAME_WORKER_HELLO);
    ck_assert_int_eq(sl_wire_get_worker_hello(broker->decoder, sl_span_of(payload, len), &version,
                                              broker->held, FAKE_HELD_MAX, &broker->held_count),
                     SL_OK);
}

static void give_lane(struct fake_worker *worker, uint32_t idx, uint64_t generation)
{
    const struct sl_lane_msg msg = {.lane = idx, .generation = generation};
    char buffer[256];
    struct sl_wire_writer writer;

    ck_assert_int_eq(sl_os_event_fd(&worker->worker_event), SL_OK);
    ck_assert_int_eq(sl_os_event_fd(&worker->broker_event), SL_OK);
    ck_assert_int_eq(
        sl_lane_create(idx, generation, worker->worker_event, worker->broker_event, &worker->lane),
        SL_OK);
    sl_wire_writer_init(&writer, buffer, sizeof(buffer));
    ck_assert_int_eq(sl_wire_put_lane(&writer, &msg), SL_OK);
    const int fds[] = {worker->lane->memfd, worker->worker_event, worker->broker_event};
    ck_assert_int_eq(sl_os_send_fds(worker->fd, writer.buf, writer.len, fds, 3),
                     (ssize_t)writer.len);
}

static struct fake_worker *accept_hello(struct fake_broker *broker)
{
    struct fake_worker *worker = calloc(1, sizeof(*worker));
    struct sl_os_peer peer;

    ck_assert_ptr_nonnull(worker);
    ck_assert_msg(wait_readable(broker->listen_fd, WAIT_MS), "no worker connects");
    worker->fd = accept4(broker->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    ck_assert_int_ge(worker->fd, 0);
    ck_assert_int_eq(sl_os_get_peer(worker->fd, &peer), SL_OK);
    worker->pid = peer.pid;
    worker->worker_event = -1;
    worker->broker_event = -1;
    read_hello(broker, worker);
    return worker;
}

size_t fake_broker_accept(struct fake_broker *broker, uint64_t generation)
{
    struct fake_worker *worker = accept_hello(broker);

    ck_assert_uint_lt(broker->worker_count, WORKERS_MAX);
    give_lane(worker, (uint32_t)broker->worker_count, generation);
    broker->workers[broker->worker_count] = worker;
    return broker->worker_count++;
}

void fake_broker_refuse(struct fake_broker *broker, enum sl_err err)
{
    const struct sl_error_msg msg = {.err = err, .message = sl_span_str("refused by the test")};
    struct fake_worker *worker = accept_hello(broker);
    char buffer[256];
    struct sl_wire_writer writer;

    sl_wire_writer_init(&writer, buffer, sizeof(buffer));
    ck_assert_int_eq(sl_wire_put_error(&writer, &msg), SL_OK);
    ck_assert_int_eq(write(worker->fd, writer.buf, writer.len), (ssize_t)writer.len);
    worker_close(worker);
}

const struct sl_held_call *fake_broker_held(const struct fake_broker *broker, size_t *count)
{
    *count = broker->held_count;
    return broker->held;
}

pid_t fake_broker_worker_pid(const struct fake_broker *broker, size_t worker)
{
    return broker->workers[worker]->pid;
}

struct sl_lane *fake_broker_lane(struct fake_broker *broker, size_t worker)
{
    return broker->workers[worker]->lane;
}

/* ---- work out -------------------------------------------------------------------------------- */

static void send_large(struct fake_worker *worker, const struct sl_work_msg *work,
                       const struct fake_call *call)
{
    const struct sl_span parts[] = {sl_span_str(call->provider), call->body};
    char buffer[512];
    struct sl_wire_writer writer;
    int fd = -1;

    ck_assert_int_eq(sl_shm_large_create(parts, 2, &fd), SL_OK);
    sl_wire_writer_init(&writer, buffer, sizeof(buffer));
    ck_assert_int_eq(sl_wire_put_slot(&writer, SL_FRAME_LARGE_WORK, work, sizeof(*work)), SL_OK);
    ck_assert_int_eq(sl_os_send_fds(worker->fd, writer.buf, writer.len, &fd, 1),
                     (ssize_t)writer.len);
    sl_os_close(&fd);
}

void fake_broker_send(struct fake_broker *broker, size_t worker_idx, const struct fake_call *call)
{
    struct fake_worker *worker = broker->workers[worker_idx];
    struct sl_ring_claim claim;
    struct sl_work_msg work = {
        .task = call->task,
        .attempt = call->attempt,
        .kind = call->kind,
        .endpoint = SL_ENDPOINT_CHAT,
        .timeout_ms = call->timeout_ms,
        .provider_bytes = (uint32_t)strlen(call->provider),
        .body_bytes = (uint32_t)call->body.len,
    };
    size_t payload = work.provider_bytes + call->body.len;

    if (payload > SL_LANE_PAYLOAD_BYTES_MAX) {
        send_large(worker, &work, call);
        return;
    }
    ck_assert_int_eq(sl_ring_reserve(&worker->lane->out, payload, &claim), SL_OK);
    memcpy(claim.msg, &work, sizeof(work));
    memcpy(claim.payload, call->provider, work.provider_bytes);
    if (call->body.len > 0) {
        memcpy(claim.payload + work.provider_bytes, call->body.ptr, call->body.len);
    }
    sl_ring_publish(&worker->lane->out);
}

void fake_broker_ring(struct fake_broker *broker, size_t worker)
{
    sl_bell_ring(&broker->workers[worker]->lane->out_bell);
}

void fake_broker_call(struct fake_broker *broker, size_t worker, uint64_t task, const char *body)
{
    const struct fake_call call = {.task = task,
                                   .attempt = 1,
                                   .kind = SL_WORK_CALL,
                                   .provider = "stub",
                                   .body = sl_span_str(body)};

    fake_broker_send(broker, worker, &call);
    fake_broker_ring(broker, worker);
}

void fake_broker_drain(struct fake_broker *broker, size_t worker)
{
    char buffer[64];
    struct sl_wire_writer writer;

    sl_wire_writer_init(&writer, buffer, sizeof(buffer));
    ck_assert_int_eq(sl_wire_put_empty(&writer, SL_FRAME_DRAIN_LANE), SL_OK);
    ck_assert_int_eq(write(broker->workers[worker]->fd, writer.buf, writer.len),
                     (ssize_t)writer.len);
}

/* ---- results in ------------------------------------------------------------------------------ */

static void split_payload(struct fake_result *out, struct sl_span payload)
{
    const struct sl_result_msg_shm *msg = &out->msg;
    size_t texts = (size_t)msg->request_id_bytes + msg->message_bytes;

    ck_assert_uint_eq(payload.len, texts + msg->body_bytes);
    ck_assert(sl_span_copy_str(out->request_id, sizeof(out->request_id),
                               sl_span_of(payload.ptr, msg->request_id_bytes)));
    ck_assert(
        sl_span_copy_str(out->message, sizeof(out->message),
                         sl_span_of(payload.ptr + msg->request_id_bytes, msg->message_bytes)));
    out->body = malloc((size_t)msg->body_bytes + 1);
    ck_assert_ptr_nonnull(out->body);
    memcpy(out->body, payload.ptr + texts, (size_t)msg->body_bytes);
    out->body[msg->body_bytes] = '\0';
}

static bool take_from_ring(struct fake_worker *worker, struct fake_result *out)
{
    struct sl_ring_item item;
    enum sl_err err = sl_ring_peek(&worker->lane->in, &item);

    if (err == SL_ERR_AGAIN) {
        return false;
    }
    ck_assert_int_eq(err, SL_OK);
    memcpy(&out->msg, item.msg, sizeof(out->msg));
    out->is_large = false;
    split_payload(out, item.payload);
    worker->taken = item.position;
    worker->has_taken = true;
    return true;
}

/* A large one counts as stored at once. */
static bool take_large(struct fake_worker *worker, struct fake_result *out)
{
    struct sl_span mapped;
    char buffer[64];
    struct sl_wire_writer writer;

    if (worker->large_count == 0) {
        return false;
    }
    out->msg = worker->large[0];
    out->is_large = true;
    ck_assert_uint_gt(worker->fd_count, 0);
    size_t bytes =
        (size_t)(out->msg.request_id_bytes + out->msg.message_bytes) + (size_t)out->msg.body_bytes;
    ck_assert_int_eq(sl_shm_large_map(worker->fds[0], bytes, &mapped), SL_OK);
    split_payload(out, mapped);
    sl_shm_large_unmap(&mapped);
    sl_os_close(&worker->fds[0]);
    memmove(worker->fds, worker->fds + 1, --worker->fd_count * sizeof(int));
    memmove(worker->large, worker->large + 1, --worker->large_count * sizeof(worker->large[0]));
    sl_wire_writer_init(&writer, buffer, sizeof(buffer));
    ck_assert_int_eq(sl_wire_put_count(&writer, SL_FRAME_DONE, 1), SL_OK);
    ck_assert_int_eq(write(worker->fd, writer.buf, writer.len), (ssize_t)writer.len);
    return true;
}

static void wait_any(struct fake_worker *worker, int timeout_ms)
{
    struct pollfd fds[2] = {{.fd = worker->broker_event, .events = POLLIN},
                            {.fd = worker->is_gone ? -1 : worker->fd, .events = POLLIN}};

    (void)poll(fds, 2, timeout_ms);
}

bool fake_broker_result(struct fake_broker *broker, size_t worker_idx, struct fake_result *out,
                        int timeout_ms)
{
    struct fake_worker *worker = broker->workers[worker_idx];
    int64_t due_ns = sl_clock_mono_ns() + timeout_ms * SL_NS_PER_MS;

    for (;;) {
        sl_bell_arm(&worker->lane->in_bell);
        read_socket(broker, worker);
        if (take_from_ring(worker, out) || take_large(worker, out)) {
            sl_bell_disarm(&worker->lane->in_bell);
            return true;
        }
        int left_ms = sl_time_left_ms(due_ns, sl_clock_mono_ns(), timeout_ms);
        if (left_ms == 0 || worker->is_gone) {
            return false;
        }
        wait_any(worker, left_ms);
        sl_bell_disarm(&worker->lane->in_bell);
    }
}

void fake_broker_release(struct fake_broker *broker, size_t worker_idx)
{
    struct fake_worker *worker = broker->workers[worker_idx];

    if (worker->has_taken) {
        sl_ring_release(&worker->lane->in, worker->taken);
        worker->has_taken = false;
    }
    sl_bell_ring(&worker->lane->space_bell);
}

bool fake_broker_gone(struct fake_broker *broker, size_t worker_idx, int timeout_ms)
{
    struct fake_worker *worker = broker->workers[worker_idx];
    int64_t due_ns = sl_clock_mono_ns() + timeout_ms * SL_NS_PER_MS;

    while (!worker->is_gone) {
        int left_ms = sl_time_left_ms(due_ns, sl_clock_mono_ns(), timeout_ms);
        if (left_ms == 0) {
            return false;
        }
        if (wait_readable(worker->fd, left_ms)) {
            read_socket(broker, worker);
        }
    }
    return true;
}

bool fake_broker_has_left(const struct fake_broker *broker, size_t worker)
{
    return broker->workers[worker]->has_left;
}
