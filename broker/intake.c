/*
 * Intake: hello, open job, submit.
 *
 * Loop thread. A submit frame is decoded, each task is given its supply, and the frame travels to
 * the store thread as one operation; its buffer is written to disk from where it was received. The
 * answer is sent when the operation comes back, that is, after the sync. Tasks are taken in order
 * up to the first that is refused; after that the connection's further submits are refused until it
 * opens a job again, so that "accepted before the bad line" is a prefix, also for a client that is
 * many frames ahead: what binds them is kept where they run (struct sl_submit_stream).
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/broker.h"
#include "common/check.h"

/* ---- hello ----------------------------------------------------------------------------------- */

enum sl_err sl_intake_hello(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_broker *broker = conn->source.broker;
    struct sl_hello_msg hello;
    char bytes[256];
    struct sl_wire_writer writer;
    enum sl_err err = sl_wire_get_hello(broker->decoder, frame->payload, &hello);

    if (err != SL_OK) {
        return err;
    }
    struct sl_welcome_msg welcome = {
        .version = sl_span_str(SLUICE_VERSION),
        .pid = (uint32_t)getpid(),
        .generation = broker->stored.generation,
        .is_draining = broker->state != SL_BROKER_RUNNING,
    };
    conn->role = SL_CONN_CLIENT;
    sl_wire_writer_init(&writer, bytes, sizeof(bytes));
    err = sl_wire_put_welcome(&writer, &welcome);
    if (err == SL_OK) {
        sl_conn_send(conn, bytes, writer.len);
    }
    return err;
}

/* ---- open job -------------------------------------------------------------------------------- */

/* An opened job and the submits behind it. Their operations run in order on the store thread, which
 * alone uses job, err and is_stopped; refs is the loop thread's. */
struct sl_submit_stream {
    uint32_t refs; /* the connection, and each operation under way */
    uint32_t job;
    enum sl_err err; /* why there is no job */
    bool is_stopped; /* a task was refused: none behind it is taken */
};

static struct sl_submit_stream *stream_ref(struct sl_submit_stream *stream)
{
    stream->refs++;
    return stream;
}

static void stream_unref(struct sl_submit_stream *stream)
{
    SL_ASSERT(stream->refs > 0);
    stream->refs--;
    if (stream->refs == 0) {
        free(stream);
    }
}

void sl_intake_conn_closed(struct sl_conn *conn)
{
    if (conn->stream != NULL) {
        stream_unref(conn->stream);
        conn->stream = NULL;
    }
}

struct open_op {
    struct sl_op op;
    struct sl_broker *broker;
    struct sl_conn *conn;
    struct sl_submit_stream *stream;
    uint64_t serial;
    struct sl_job_request request;
    char name[SL_NAME_BYTES_MAX];
    enum sl_err err;
    struct sl_job_info job;
};

static enum sl_err run_open(struct sl_op *op, struct sl_store *store)
{
    struct open_op *own = SL_CONTAINER_OF(op, struct open_op, op);

    if (own->err == SL_OK) {
        own->err = sl_store_open_job(store, &own->request, &own->job);
    }
    own->stream->job = own->job.job;
    own->stream->err = own->err;
    return own->err == SL_ERR_STORE ? own->err : SL_OK;
}

static void send_job(struct sl_conn *conn, const struct sl_job_info *job)
{
    char bytes[512];
    struct sl_wire_writer writer;
    struct sl_job_msg msg = {
        .job = job->job,
        .name = sl_span_str(job->name),
        .total = job->total,
        .completed = job->completed,
        .failed = job->failed,
        .cancelled = job->cancelled,
        .expired = job->expired,
    };

    sl_wire_writer_init(&writer, bytes, sizeof(bytes));
    if (sl_wire_put_job(&writer, &msg) == SL_OK) {
        sl_conn_send(conn, bytes, writer.len);
    }
}

static void done_open(struct sl_op *op)
{
    struct open_op *own = SL_CONTAINER_OF(op, struct open_op, op);
    struct sl_conn *conn = sl_conn_find(own->conn, own->serial);

    if (conn != NULL && own->err == SL_OK) {
        send_job(conn, &own->job);
    } else if (conn != NULL) {
        sl_conn_send_error(conn, own->err, sl_err_meaning(own->err));
    }
    stream_unref(own->stream);
    free(own);
}

/* An operation with a stream of its own, which is the connection's from now on. */
static struct open_op *new_open(struct sl_conn *conn)
{
    struct open_op *own = calloc(1, sizeof(*own));
    struct sl_submit_stream *stream = calloc(1, sizeof(*stream));

    if (own == NULL || stream == NULL) {
        free(own);
        free(stream);
        return NULL;
    }
    own->conn = conn;
    own->serial = conn->serial;
    own->stream = stream_ref(stream);
    sl_intake_conn_closed(conn);
    conn->stream = stream_ref(stream);
    return own;
}

enum sl_err sl_intake_open_job(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_broker *broker = conn->source.broker;
    struct sl_open_job_msg msg;
    enum sl_err err = sl_wire_get_open_job(broker->decoder, frame->payload, &msg);

    if (err != SL_OK) {
        return err;
    }
    struct open_op *own = new_open(conn);
    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    if (msg.name.len > 0) {
        memcpy(own->name, msg.name.ptr, msg.name.len); /* at most SL_NAME_BYTES_MAX: decoder */
    }
    if (msg.may_create && broker->state != SL_BROKER_RUNNING) {
        own->err = SL_ERR_DRAINING;
    }
    own->request = (struct sl_job_request){.uid = conn->peer.uid,
                                           .name = sl_span_of(own->name, msg.name.len),
                                           .may_create = msg.may_create,
                                           .now_ms = broker->now.wall_ns / SL_NS_PER_MS};
    own->op = (struct sl_op){.run = run_open, .done = done_open, .cost_bytes = 512};
    sl_commit_add(broker->commit, &own->op);
    return SL_OK;
}

/* ---- submit ---------------------------------------------------------------------------------- */

struct accept_op {
    struct sl_op op;
    struct sl_broker *broker;
    struct sl_conn *conn;
    struct sl_submit_stream *stream;
    uint64_t serial;
    uint64_t batch;
    char *payload; /* what the tasks' spans point into */
    size_t payload_bytes;
    struct sl_accept_request request;
    struct sl_accept_reply reply;
    enum sl_err local_err; /* why the task behind the last of `tasks` was refused here */
    uint32_t supplies[SL_FRAME_TASKS_MAX];
    struct sl_task_msg tasks[SL_FRAME_TASKS_MAX];
};

static enum sl_err run_accept(struct sl_op *op, struct sl_store *store)
{
    struct accept_op *own = SL_CONTAINER_OF(op, struct accept_op, op);
    struct sl_submit_stream *stream = own->stream;
    enum sl_err refused = stream->err == SL_OK && stream->is_stopped ? SL_ERR_INPUT : stream->err;

    if (refused != SL_OK) {
        own->reply = (struct sl_accept_reply){.refused_err = refused, .due_ms = INT64_MAX};
        return SL_OK;
    }
    own->request.job = stream->job;
    enum sl_err err = sl_store_accept(store, &own->request, &own->reply);
    stream->is_stopped = own->reply.refused_idx >= 0 || own->local_err != SL_OK;
    return err;
}

static void answer_submit(struct sl_conn *conn, const struct sl_submitted_msg *msg)
{
    char bytes[1024];
    struct sl_wire_writer writer;

    sl_wire_writer_init(&writer, bytes, sizeof(bytes));
    if (sl_wire_put_submitted(&writer, msg) == SL_OK) {
        sl_conn_send(conn, bytes, writer.len);
    }
    if (msg->refused_idx >= 0) {
        conn->source.broker->tasks_refused++;
    }
}

/* Why it was refused, with the name nobody knows; which task it is, the client knows. */
static struct sl_span describe_refusal(const struct accept_op *own,
                                       const struct sl_submitted_msg *msg, char *text, size_t size)
{
    struct sl_span name = sl_span_of("", 0);

    if (msg->err == SL_ERR_UNKNOWN_MODEL) {
        name = own->tasks[msg->refused_idx].model;
    } else if (msg->err == SL_ERR_UNKNOWN_PROVIDER) {
        name = own->tasks[msg->refused_idx].provider;
    }
    if (msg->err == SL_OK || name.len == 0) {
        return sl_span_str(msg->err == SL_OK ? "" : sl_err_meaning(msg->err));
    }
    int len =
        snprintf(text, size, "%s: \"%.*s\"", sl_err_meaning(msg->err), (int)name.len, name.ptr);
    return sl_span_of(text, SL_MIN((size_t)SL_MAX(len, 0), size - 1));
}

static void done_accept(struct sl_op *op)
{
    struct accept_op *own = SL_CONTAINER_OF(op, struct accept_op, op);
    struct sl_broker *broker = own->broker;
    struct sl_conn *conn = sl_conn_find(own->conn, own->serial);
    char text[SL_MESSAGE_BYTES_MAX];
    struct sl_submitted_msg msg = {
        .batch = own->batch,
        .accepted = own->reply.accepted,
        .known = own->reply.known,
        .refused_idx = own->reply.refused_idx,
        .err = own->reply.refused_err,
    };

    if (msg.refused_idx < 0 && own->local_err != SL_OK) {
        msg.refused_idx = (int64_t)own->request.count;
        msg.err = own->local_err;
    }
    msg.message = describe_refusal(own, &msg, text, sizeof(text));
    broker->delayed += own->reply.delayed;
    sl_dispatch_note_due(broker, own->reply.due_ms);
    if (conn != NULL) {
        conn->submits_pending--;
        answer_submit(conn, &msg);
    }
    broker->intake_bytes -= own->payload_bytes;
    stream_unref(own->stream);
    free(own->payload);
    free(own);
}

/* Keeps the payload: takes the frame's buffer over, or copies a small frame. */
static bool keep_payload(struct sl_broker *broker, const struct sl_frame *frame,
                         struct accept_op *own)
{
    own->payload_bytes = frame->payload.len;
    if (frame->owned != NULL) {
        own->payload = *frame->owned;
        *frame->owned = NULL;
        return true;
    }
    own->payload = malloc(frame->payload.len + 1);
    if (own->payload == NULL) {
        return false;
    }
    memcpy(own->payload, frame->payload.ptr, frame->payload.len);
    broker->intake_bytes += own->payload_bytes;
    return true;
}

/* Gives tasks their supplies, in order; stops at the first that has none. They are marked ready at
 * once: an arm operation of this turn runs behind this accept in the same transaction, so that an
 * idle system accepts a task and leases its call in one commit. */
static void resolve_tasks(struct sl_conn *conn, struct accept_op *own, size_t count)
{
    struct sl_broker *broker = conn->source.broker;
    size_t i = 0;

    while (i < count && own->local_err == SL_OK) {
        own->local_err = sl_supply_for(broker, conn->peer.uid, &own->tasks[i], &own->supplies[i]);
        if (own->local_err == SL_OK) {
            sl_supply_mark_ready(broker, own->supplies[i]);
            i++;
        }
    }
    own->request = (struct sl_accept_request){.tasks = own->tasks,
                                              .supplies = own->supplies,
                                              .count = i,
                                              .now_ms = broker->now.wall_ns / SL_NS_PER_MS};
}

static enum sl_err refusal(const struct sl_conn *conn)
{
    const struct sl_broker *broker = conn->source.broker;

    if (broker->state != SL_BROKER_RUNNING) {
        return SL_ERR_DRAINING;
    }
    return broker->has_space ? SL_OK : SL_ERR_NO_SPACE;
}

static enum sl_err queue_accept(struct sl_conn *conn, const struct sl_frame *frame,
                                struct accept_op *own)
{
    struct sl_broker *broker = conn->source.broker;
    size_t count = 0;

    if (!keep_payload(broker, frame, own)) {
        return SL_ERR_NO_MEMORY;
    }
    enum sl_err err =
        sl_wire_get_submit(broker->decoder, sl_span_of(own->payload, own->payload_bytes),
                           &own->batch, own->tasks, SL_FRAME_TASKS_MAX, &count);
    if (err != SL_OK) {
        broker->intake_bytes -= own->payload_bytes;
        free(own->payload);
        return err;
    }
    own->local_err = refusal(conn);
    resolve_tasks(conn, own, count);
    own->broker = broker;
    own->conn = conn;
    own->stream = stream_ref(conn->stream);
    own->serial = conn->serial;
    own->op =
        (struct sl_op){.run = run_accept, .done = done_accept, .cost_bytes = own->payload_bytes};
    conn->submits_pending++;
    conn->is_paused = conn->submits_pending >= SL_FRAMES_UNACKED_MAX;
    sl_commit_add(broker->commit, &own->op);
    return SL_OK;
}

enum sl_err sl_intake_submit(struct sl_conn *conn, const struct sl_frame *frame)
{
    if (conn->stream == NULL) {
        return SL_ERR_PROTOCOL; /* open_job comes first */
    }
    struct accept_op *own = malloc(sizeof(*own)); /* 180 KiB: most of it is never touched */
    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    memset(own, 0, offsetof(struct accept_op, supplies));
    enum sl_err err = queue_accept(conn, frame, own);
    if (err != SL_OK) {
        free(own);
    }
    return err;
}
