/*
 * The commands that only tell: status, jobs, show.
 *
 * Loop thread; what stands on disk is read by an operation, what the loop knows is added when it
 * comes back. Lists are bounded (newest first). A user sees his own jobs; root and the service's
 * own user everybody's.
 */
#include <stdlib.h>

#include "broker/request.h"
#include "common/check.h"

#define JOBS_LISTED_MAX 1000 /* newest first; a page for a person, and bounded memory */
#define DOCUMENT_BYTES (512 * SL_KIB)

/* ---- documents
 * ------------------------------------------------------------------------------------ */

static enum sl_err list_jobs(struct sl_request *own, struct sl_store *store)
{
    uint32_t below = UINT32_MAX;
    enum sl_err err = SL_OK;

    while (err == SL_OK && own->job_count < JOBS_LISTED_MAX) {
        err = sl_store_previous_job(store, own->uid, own->is_admin, &below,
                                    &own->jobs[own->job_count]);
        own->job_count += err == SL_OK;
    }
    return err == SL_ERR_NOT_FOUND ? SL_OK : err;
}

static enum sl_err run_list(struct sl_op *op, struct sl_store *store)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    if (own->name[0] == '\0') {
        own->err = list_jobs(own, store);
    } else {
        own->err = sl_request_find_job(own, store);
        own->jobs[0] = own->job;
        own->job_count = 1;
    }
    return sl_request_outcome(own->err);
}

static void send_document(struct sl_request *own,
                          enum sl_err (*put)(struct sl_request *own, struct sl_wire_writer *writer))
{
    struct sl_wire_writer writer;
    char *bytes = malloc(DOCUMENT_BYTES);

    if (bytes == NULL) {
        sl_conn_send_error(own->conn, SL_ERR_NO_MEMORY, sl_err_meaning(SL_ERR_NO_MEMORY));
        return;
    }
    sl_wire_writer_init(&writer, bytes, DOCUMENT_BYTES);
    size_t start = sl_wire_begin(&writer, SL_FRAME_DOCUMENT);
    enum sl_err err = put(own, &writer);
    if (err == SL_OK) {
        err = sl_wire_end(&writer, start);
    }
    if (err == SL_OK) {
        sl_conn_send(own->conn, bytes, writer.len);
    } else {
        sl_conn_send_error(own->conn, err, sl_err_meaning(err));
    }
    free(bytes);
}

static enum sl_err put_status(struct sl_request *own, struct sl_wire_writer *writer)
{
    return sl_status_put(own->broker, writer, own->jobs, own->job_count);
}

static void done_status(struct sl_op *op)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    if (sl_request_may_answer(own)) {
        send_document(own, put_status);
    }
    sl_request_free(own);
}

static enum sl_err put_jobs(struct sl_request *own, struct sl_wire_writer *writer)
{
    sl_wire_put_map(writer, 1);
    sl_wire_put_key(writer, "jobs");
    sl_wire_put_array(writer, (uint32_t)own->job_count);
    for (size_t i = 0; i < own->job_count; i++) {
        const struct sl_job_info *job = &own->jobs[i];
        char created[25];
        sl_time_format(job->created_ms * SL_NS_PER_MS, created);
        sl_wire_put_map(writer, 7);
        sl_wire_put_kv_str(writer, "name", job->name);
        sl_wire_put_kv_uint(writer, "total", job->total);
        sl_wire_put_kv_uint(writer, "completed", job->completed);
        sl_wire_put_kv_uint(writer, "failed", job->failed);
        sl_wire_put_kv_uint(writer, "cancelled", job->cancelled);
        sl_wire_put_kv_uint(writer, "expired", job->expired);
        sl_wire_put_kv_str(writer, "created", created);
    }
    return SL_OK;
}

static void done_jobs(struct sl_op *op)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    if (sl_request_may_answer(own)) {
        send_document(own, put_jobs);
    }
    sl_request_free(own);
}

static enum sl_err start_list(struct sl_conn *conn, struct sl_span name,
                              void (*done)(struct sl_op *op))
{
    struct sl_request *own = sl_request_new(conn, name);

    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    own->jobs = calloc(JOBS_LISTED_MAX, sizeof(*own->jobs));
    if (own->jobs == NULL) {
        sl_request_free(own);
        return SL_ERR_NO_MEMORY;
    }
    sl_request_queue(own, run_list, done);
    return SL_OK;
}

enum sl_err sl_command_status(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_span name;
    enum sl_err err = sl_wire_get_name(conn->source.broker->decoder, frame->payload, &name);

    return err == SL_OK ? start_list(conn, name, done_status) : err;
}

enum sl_err sl_command_jobs(struct sl_conn *conn, const struct sl_frame *frame)
{
    enum sl_err err = sl_wire_get_empty(conn->source.broker->decoder, frame->payload);

    return err == SL_OK ? start_list(conn, sl_span_of("", 0), done_jobs) : err;
}

/* ---- show
 * ----------------------------------------------------------------------------------------- */

static enum sl_err run_show(struct sl_op *op, struct sl_store *store)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    own->err = own->is_task ? sl_store_view_task(store, own->task, &own->view) : SL_ERR_NOT_FOUND;
    if (own->err == SL_OK) {
        own->err = sl_store_get_job(store, sl_task_job(own->task), &own->job);
    }
    if (own->err == SL_OK && !own->is_admin && own->view.uid != own->uid) {
        own->err = SL_ERR_NOT_FOUND; /* nor does anybody learn that it is there */
    }
    return sl_request_outcome(own->err);
}

static const struct sl_supply *supply_of(const struct sl_request *own)
{
    const struct sl_broker *broker = own->broker;

    return own->view.supply < broker->supply_count ? &broker->supplies[own->view.supply] : NULL;
}

static const char *reason_to_be_ready(const struct sl_request *own)
{
    const struct sl_supply *supply = supply_of(own);

    if (own->broker->state != SL_BROKER_RUNNING) {
        return "draining";
    }
    if (supply == NULL || supply->provider_idx == SL_SUPPLY_NO_PROVIDER) {
        return "provider not configured";
    }
    return sl_workers_pick(own->broker) == NULL ? "no worker" : "waits for a free place";
}

/* Why it failed, or why it waits. */
static const char *reason_of(const struct sl_request *own)
{
    if (own->view.err != SL_OK) {
        return sl_err_code(own->view.err);
    }
    if (own->view.state == SL_TASK_DELAYED) {
        return "not_before";
    }
    return own->view.state == SL_TASK_READY ? reason_to_be_ready(own) : "";
}

static void put_time(struct sl_wire_writer *writer, const char *key, int64_t time_ms)
{
    char text[25];

    sl_time_format(time_ms * SL_NS_PER_MS, text);
    sl_wire_put_kv_str(writer, key, time_ms > 0 ? text : "");
}

static enum sl_err put_show(struct sl_request *own, struct sl_wire_writer *writer)
{
    const struct sl_task_view *view = &own->view;
    const struct sl_supply *supply = supply_of(own);

    sl_wire_put_map(writer, 13);
    sl_wire_put_kv_str(writer, "id", own->name);
    sl_wire_put_kv_str(writer, "custom_id", view->custom_id);
    sl_wire_put_kv_str(writer, "job", own->job.name);
    sl_wire_put_kv_str(writer, "state", sl_task_state_name(view->state));
    sl_wire_put_kv_str(writer, "reason", reason_of(own));
    put_time(writer, "until", view->state == SL_TASK_DELAYED ? view->due_ms : 0);
    sl_wire_put_kv_uint(writer, "attempts", view->attempts);
    sl_wire_put_kv_str(writer, "provider", supply != NULL ? supply->provider : "");
    sl_wire_put_kv_str(writer, "model", supply != NULL ? supply->model : "");
    sl_wire_put_kv_uint(writer, "priority", view->priority);
    sl_wire_put_kv_uint(writer, "body_bytes", view->body_bytes);
    put_time(writer, "accepted", view->accepted_ms);
    put_time(writer, "ended", view->ended_ms);
    return SL_OK;
}

/* What the loop knows better than the disk: the attempt of a call under way. */
static void add_call(struct sl_request *own)
{
    const struct sl_call *call = sl_calls_find(&own->broker->calls, own->task);

    if (own->view.state == SL_TASK_LEASED && call != NULL) {
        own->view.attempts = call->attempt;
        own->view.deaths = call->deaths;
    }
}

static void done_show(struct sl_op *op)
{
    struct sl_request *own = SL_CONTAINER_OF(op, struct sl_request, op);

    if (sl_request_may_answer(own)) {
        add_call(own);
        send_document(own, put_show);
    }
    sl_request_free(own);
}

enum sl_err sl_command_show(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_span name;
    enum sl_err err = sl_wire_get_name(conn->source.broker->decoder, frame->payload, &name);
    struct sl_request *own = err == SL_OK ? sl_request_new(conn, name) : NULL;

    if (err != SL_OK) {
        return err;
    }
    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    sl_request_queue(own, run_show, done_show);
    return SL_OK;
}
