/*
 * Results streams: a cursor over a job's ended tasks, read in pieces as fast as the client takes
 * them.
 *
 * Loop thread. At most one piece of a stream is in memory, and the next is read only when it has
 * been sent: a slow client costs one buffer, however long the job is. A stream that has caught up
 * waits until tasks of its job end. The same path serves --wait, --follow and a rerun after
 * anything.
 */
#include <stdlib.h>

#include "broker/broker.h"
#include "common/check.h"

/* A piece is as large as what a stream falls behind by while a commit is awaited: it grows while
 * pieces come back full, and shrinks when they do not. */
#define READ_BYTES_MIN (64 * SL_KIB)
#define READ_BYTES_MAX (2 * SL_MIB)
#define READ_COUNT_MAX 4000 /* a piece takes the store thread about 10 ms at most */

struct read_op {
    struct sl_op op;
    struct sl_conn *conn;
    uint64_t serial;
    char name[SL_NAME_BYTES_MAX]; /* first read: the job by name */
    size_t name_bytes;
    uint32_t uid;
    struct sl_read_request request;
    struct sl_read_reply reply;
    struct sl_job_info job;
    enum sl_err err;
    struct sl_wire_writer writer;
};

static enum sl_err find_job(struct read_op *own, struct sl_store *store)
{
    struct sl_job_request request = {.uid = own->uid,
                                     .name = sl_span_of(own->name, own->name_bytes)};
    enum sl_err err = own->name_bytes > 0 ? sl_store_open_job(store, &request, &own->job)
                                          : sl_store_get_job(store, own->request.job, &own->job);

    if (err == SL_OK && own->job.is_purging) {
        err = SL_ERR_NOT_FOUND;
    }
    own->request.job = own->job.job;
    return err;
}

static enum sl_err run_read(struct sl_op *op, struct sl_store *store)
{
    struct read_op *own = SL_CONTAINER_OF(op, struct read_op, op);

    own->err = find_job(own, store);
    if (own->err == SL_OK) {
        own->err = sl_store_read_results(store, &own->request, &own->writer, &own->reply);
    }
    return own->err == SL_ERR_STORE ? own->err : SL_OK;
}

static void free_read(struct read_op *own)
{
    free(own->writer.buf);
    free(own);
}

static void fail_watch(struct sl_conn *conn, enum sl_err err)
{
    conn->watch.is_active = false;
    sl_conn_send_error(conn, err, sl_err_meaning(err));
}

static size_t next_read_bytes(const struct read_op *own)
{
    size_t bytes = own->reply.at_end ? own->writer.size_bytes / 2 : own->writer.size_bytes * 2;

    bytes = SL_MIN(SL_MAX(bytes, (size_t)READ_BYTES_MIN), (size_t)READ_BYTES_MAX);
    return SL_MAX(bytes, own->reply.need_bytes);
}

/* Moves the stream on; true: that was its end. */
static bool advance(struct sl_watch *watch, const struct read_op *own)
{
    watch->job = own->job.job;
    watch->cursor = own->reply.cursor;
    watch->read_bytes = next_read_bytes(own);
    watch->is_due = watch->is_due || !own->reply.at_end;
    return own->reply.at_end && (!watch->must_follow || sl_job_ended(&own->job) == own->job.total);
}

static void deliver(struct sl_conn *conn, struct read_op *own)
{
    uint64_t serial = own->serial;
    bool is_over = advance(&conn->watch, own);

    if (own->writer.len > 0) {
        char *bytes = own->writer.buf;
        own->writer.buf = NULL;
        sl_conn_send_take(conn, bytes, own->writer.len);
    }
    if (sl_conn_find(conn, serial) == NULL) {
        return;
    }
    if (is_over) {
        conn->watch.is_active = false;
        sl_conn_send_empty(conn, SL_FRAME_RESULTS_END);
    } else {
        sl_watch_continue(conn);
    }
}

static void done_read(struct sl_op *op)
{
    struct read_op *own = SL_CONTAINER_OF(op, struct read_op, op);
    struct sl_conn *conn = sl_conn_find(own->conn, own->serial);

    if (conn != NULL) {
        conn->watch.is_reading = false;
        if (own->err == SL_OK) {
            deliver(conn, own);
        } else {
            fail_watch(conn, own->err);
        }
    }
    free_read(own);
}

static enum sl_err start_read(struct sl_conn *conn, struct sl_span name)
{
    struct sl_watch *watch = &conn->watch;
    struct read_op *own = calloc(1, sizeof(*own));
    char *bytes = malloc(watch->read_bytes);

    if (own == NULL || bytes == NULL) {
        free(own);
        free(bytes);
        return SL_ERR_NO_MEMORY;
    }
    sl_wire_writer_init(&own->writer, bytes, watch->read_bytes);
    if (name.len > 0) {
        memcpy(own->name, name.ptr, name.len);
        own->name_bytes = name.len;
    }
    own->conn = conn;
    own->serial = conn->serial;
    own->uid = conn->peer.uid;
    own->request = (struct sl_read_request){.job = watch->job,
                                            .order = watch->order,
                                            .cursor = watch->cursor,
                                            .count_max = READ_COUNT_MAX,
                                            .may_skip = !watch->must_follow};
    own->op = (struct sl_op){.run = run_read, .done = done_read, .cost_bytes = 0};
    watch->is_reading = true;
    watch->is_due = false;
    sl_commit_add(conn->source.broker->commit, &own->op);
    return SL_OK;
}

void sl_watch_continue(struct sl_conn *conn)
{
    struct sl_watch *watch = &conn->watch;

    if (conn->serial == 0 || !watch->is_active || watch->is_reading || !watch->is_due ||
        sl_conn_has_output(conn)) {
        return;
    }
    if (start_read(conn, sl_span_of("", 0)) != SL_OK) {
        fail_watch(conn, SL_ERR_NO_MEMORY);
    }
}

void sl_watch_job_moved(struct sl_broker *broker, uint32_t job)
{
    for (size_t i = 0; i < SL_CLIENTS_MAX; i++) {
        struct sl_conn *conn = &broker->conns[i];
        if (conn->serial != 0 && conn->watch.is_active && conn->watch.job == job) {
            conn->watch.is_due = true;
            sl_watch_continue(conn);
        }
    }
}

enum sl_err sl_watch_results(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_results_msg msg;
    enum sl_err err = sl_wire_get_results(conn->source.broker->decoder, frame->payload, &msg);

    if (err != SL_OK) {
        return err;
    }
    if (conn->watch.is_active || msg.job.len == 0) {
        return SL_ERR_PROTOCOL; /* one stream a connection */
    }
    conn->watch = (struct sl_watch){.is_active = true,
                                    .must_follow = msg.must_follow,
                                    .order = msg.order,
                                    .cursor = msg.cursor,
                                    .read_bytes = READ_BYTES_MIN};
    return start_read(conn, msg.job);
}
