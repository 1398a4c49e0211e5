/*
 * The commands that change something: cancel, purge, drain.
 *
 * Loop thread. Work on whole jobs runs in slices, each an operation of its own, so that nobody
 * waits behind a large job. A user changes his own jobs; drain is for root and the service's own
 * user.
 */
#include <stdlib.h>

#include "broker/request.h"
#include "common/check.h"

/* ---- cancel
 * ---------------------------------------------------------------------------------------- */

static enum sl_err find_target(struct sl_request *own, struct sl_store *store)
{
    if (!own->is_task) {
        enum sl_err err = sl_request_find_job(own, store);
        own->task = sl_task_number(own->job.job, 0);
        own->cancel_to = sl_task_number(own->job.job, UINT32_MAX - 1);
        return err;
    }
    enum sl_err err = sl_store_view_task(store, own->task, &own->view);
    own->cancel_to = own->task;
    return err == SL_OK && !own->is_admin && own->view.uid != own->uid ? SL_ERR_NOT_FOUND : err;
}

static enum sl_err run_cancel(struct sl_op *op, struct sl_store *store)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    if (own->cancel_to == 0) {
        own->err = find_target(own, store);
        own->cancel->next = own->task;
    }
    if (own->err == SL_OK) {
        struct sl_cancel_request request = {
            .from = own->cancel->next, .to = own->cancel_to, .now_ms = own->now_ms};
        own->err = sl_store_cancel_slice(store, &request, own->cancel);
    }
    return sl_request_outcome(own->err);
}

/* Ends one leased task; false: its end is on its way to disk just now, look again: nobody is told
 * that a task is cancelled before it is. A call in a worker's hands is only asked to end. */
static bool cancel_call(struct sl_request *own, uint64_t task)
{
    struct sl_broker *broker = own->broker;
    struct sl_call *call = sl_calls_find(&broker->calls, task);

    if (call == NULL || call->state == SL_CALL_ENDING) {
        return false;
    }
    if (call->is_cancelled) {
        return true; /* asked before */
    }
    own->cancelled++;
    if (call->state == SL_CALL_ARMED) {
        struct sl_call_end end = {.err = SL_ERR_CANCELLED, .is_unstarted = true};
        sl_dispatch_end(broker, call, &end);
        return false;
    }
    call->is_cancelled = true;
    if (call->state == SL_CALL_SENT) {
        sl_workers_cancel(call);
    }
    return true;
}

static void done_cancel(struct sl_op *op)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    if (own->err != SL_OK) {
        (void)sl_request_may_answer(own);
        sl_request_free(own);
        return;
    }
    own->cancelled += own->cancel->cancelled;
    own->broker->delayed -= own->cancel->was_delayed;
    for (uint32_t i = 0; i < own->cancel->leased_count; i++) {
        own->must_repeat |= !cancel_call(own, own->cancel->leased[i]);
    }
    if (own->cancel->cancelled > 0) {
        sl_watch_job_moved(own->broker, sl_task_job(own->cancel_to));
    }
    bool is_over = own->cancel->next > own->cancel_to;
    if (is_over && !own->must_repeat) {
        if (sl_request_may_answer(own)) {
            sl_conn_send_count(own->conn, own->cancelled);
        }
        sl_request_free(own);
        return;
    }
    if (is_over) { /* some were between two indexes: once more from the start */
        own->must_repeat = false;
        own->cancel->next = own->task;
    }
    sl_request_queue(own, run_cancel, done_cancel);
}

enum sl_err sl_command_cancel(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_span name;
    enum sl_err err = sl_wire_get_name(conn->source.broker->decoder, frame->payload, &name);

    if (err != SL_OK) {
        return err;
    }
    struct sl_request *own = sl_request_new(conn, name);
    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    own->cancel = calloc(1, sizeof(*own->cancel));
    if (own->cancel == NULL) {
        sl_request_free(own);
        return SL_ERR_NO_MEMORY;
    }
    sl_request_queue(own, run_cancel, done_cancel);
    return SL_OK;
}

/* ---- purge
 * ----------------------------------------------------------------------------------------- */

static enum sl_err run_purge(struct sl_op *op, struct sl_store *store)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    if (own->job.job == 0) {
        own->err = sl_request_find_job(own, store);
    }
    if (own->err == SL_OK) {
        own->err = sl_store_purge_slice(store, own->job.job, &own->is_purged);
    }
    return sl_request_outcome(own->err);
}

static void done_purge(struct sl_op *op)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    if (own->err == SL_OK && !own->is_purged) {
        sl_request_queue(own, run_purge, done_purge);
        return;
    }
    struct sl_conn *conn = own->conn == NULL ? NULL : sl_conn_find(own->conn, own->serial);
    if (conn != NULL && own->err == SL_ERR_CONFLICT) {
        sl_conn_send_error(conn, own->err,
                           "tasks of this job have not ended; sluice-ctl cancel JOB comes first");
    } else if (conn != NULL && sl_request_may_answer(own)) {
        sl_conn_send_count(conn, own->job.total);
    }
    sl_request_free(own);
}

enum sl_err sl_command_purge(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_span name;
    enum sl_err err = sl_wire_get_name(conn->source.broker->decoder, frame->payload, &name);

    if (err != SL_OK || name.len == 0) {
        return err != SL_OK ? err : SL_ERR_PROTOCOL;
    }
    struct sl_request *own = sl_request_new(conn, name);
    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    sl_request_queue(own, run_purge, done_purge);
    return SL_OK;
}

static enum sl_err run_resume(struct sl_op *op, struct sl_store *store)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    own->err = own->job.job == 0 ? sl_store_next_purge(store, &own->job.job) : SL_OK;
    if (own->err == SL_OK) {
        own->err = sl_store_purge_slice(store, own->job.job, &own->is_purged);
    }
    return sl_request_outcome(own->err);
}

static void done_resume(struct sl_op *op)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    if (own->err != SL_OK) { /* none left */
        sl_request_free(own);
        return;
    }
    if (own->is_purged) {
        own->job.job = 0;
    }
    sl_request_queue(own, run_resume, done_resume);
}

void sl_command_resume_purges(struct sl_broker *broker)
{
    struct sl_request *own = calloc(1, sizeof(*own));

    if (own != NULL) {
        own->broker = broker;
        sl_request_queue(own, run_resume, done_resume);
    }
}

/* ---- drain
 * ----------------------------------------------------------------------------------------- */

enum sl_err sl_command_drain(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_broker *broker = conn->source.broker;
    enum sl_err err = sl_wire_get_empty(broker->decoder, frame->payload);

    if (err != SL_OK) {
        return err;
    }
    if (!conn->is_admin) {
        sl_conn_send_error(conn, SL_ERR_PERMISSION, sl_err_meaning(SL_ERR_PERMISSION));
        return SL_OK;
    }
    sl_conn_send_count(conn, broker->in_flight);
    sl_loop_drain(broker);
    return SL_OK;
}
