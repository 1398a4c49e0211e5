/*
 * The commands of the tools: status, jobs, show, cancel, purge, drain.
 *
 * Loop thread; what needs the store goes there as an operation and is answered when it comes back.
 * Work on whole jobs runs in slices, each an operation of its own, so that nobody waits behind a
 * large job. A user sees and changes his own jobs; root and the service's own user everybody's.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/broker.h"
#include "common/check.h"

#define JOBS_LISTED_MAX 1000 /* newest first; a page for a person, and bounded memory */
#define DOCUMENT_BYTES (512 * SL_KIB)

struct request {
    struct sl_op op;
    struct sl_broker *broker;
    struct sl_conn *conn;
    uint64_t serial;
    uint32_t uid;
    bool is_admin;
    int64_t now_ms;
    char name[SL_NAME_BYTES_MAX + 1];
    enum sl_err err;
    uint64_t task; /* show, cancel of a task */
    bool is_task;
    struct sl_job_info job;
    struct sl_task_view view;
    struct sl_cancel_reply *cancel;
    uint64_t cancel_to;
    uint64_t cancelled;
    bool must_repeat;
    bool is_purged;
    size_t job_count;
    struct sl_job_info *jobs; /* JOBS_LISTED_MAX, where needed */
};

static void free_request(struct request *own)
{
    free(own->cancel);
    free(own->jobs);
    free(own);
}

static struct request *new_request(struct sl_conn *conn, struct sl_span name)
{
    struct request *own = calloc(1, sizeof(*own));

    if (own == NULL) {
        return NULL;
    }
    own->broker = conn->source.broker;
    own->conn = conn;
    own->serial = conn->serial;
    own->uid = conn->peer.uid;
    own->is_admin = conn->is_admin;
    own->now_ms = own->broker->now.wall_ns / SL_NS_PER_MS;
    bool fits = sl_span_copy_str(own->name, sizeof(own->name), name);
    SL_ASSERT(fits); /* the decoder refuses longer names */
    own->is_task = sl_task_name_parse(own->name, &own->task);
    return own;
}

static void queue_request(struct request *own,
                          enum sl_err (*run)(struct sl_op *op, struct sl_store *store),
                          void (*done)(struct sl_op *op))
{
    own->op = (struct sl_op){.run = run, .done = done, .cost_bytes = SL_KIB};
    sl_commit_add(own->broker->commit, &own->op);
}

/* Only a lost transaction is the store thread's concern. */
static enum sl_err op_result(enum sl_err err)
{
    return err == SL_ERR_STORE ? err : SL_OK;
}

/* Sends the error, if there is one; false: nothing more is to be sent. */
static bool may_answer(const struct request *own)
{
    struct sl_conn *conn = sl_conn_find(own->conn, own->serial);

    if (conn != NULL && own->err != SL_OK) {
        sl_conn_send_error(conn, own->err, sl_err_meaning(own->err));
    }
    return conn != NULL && own->err == SL_OK;
}

static enum sl_err find_job_by_name(struct request *own, struct sl_store *store)
{
    struct sl_job_request request = {.uid = own->uid, .name = sl_span_str(own->name)};

    return sl_store_open_job(store, &request, &own->job);
}

/* ---- documents
 * ------------------------------------------------------------------------------------ */

static enum sl_err list_jobs(struct request *own, struct sl_store *store)
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
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    if (own->name[0] == '\0') {
        own->err = list_jobs(own, store);
    } else {
        own->err = find_job_by_name(own, store);
        own->jobs[0] = own->job;
        own->job_count = 1;
    }
    return op_result(own->err);
}

static void send_document(struct request *own,
                          enum sl_err (*put)(struct request *own, struct sl_wire_writer *writer))
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

static enum sl_err put_status(struct request *own, struct sl_wire_writer *writer)
{
    return sl_status_put(own->broker, writer, own->jobs, own->job_count);
}

static void done_status(struct sl_op *op)
{
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    if (may_answer(own)) {
        send_document(own, put_status);
    }
    free_request(own);
}

static enum sl_err put_jobs(struct request *own, struct sl_wire_writer *writer)
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
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    if (may_answer(own)) {
        send_document(own, put_jobs);
    }
    free_request(own);
}

static enum sl_err start_list(struct sl_conn *conn, struct sl_span name,
                              void (*done)(struct sl_op *op))
{
    struct request *own = new_request(conn, name);

    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    own->jobs = calloc(JOBS_LISTED_MAX, sizeof(*own->jobs));
    if (own->jobs == NULL) {
        free_request(own);
        return SL_ERR_NO_MEMORY;
    }
    queue_request(own, run_list, done);
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
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    own->err = own->is_task ? sl_store_view_task(store, own->task, &own->view) : SL_ERR_NOT_FOUND;
    if (own->err == SL_OK) {
        own->err = sl_store_get_job(store, sl_task_job(own->task), &own->job);
    }
    if (own->err == SL_OK && !own->is_admin && own->view.uid != own->uid) {
        own->err = SL_ERR_NOT_FOUND; /* nor does anybody learn that it is there */
    }
    return op_result(own->err);
}

static const char *reason_of(const struct request *own)
{
    const struct sl_broker *broker = own->broker;
    const struct sl_supply *supply =
        own->view.supply < broker->supply_count ? &broker->supplies[own->view.supply] : NULL;

    if (own->view.err != SL_OK) {
        return sl_err_code(own->view.err);
    }
    if (own->view.state == SL_TASK_DELAYED) {
        return "not_before";
    }
    if (own->view.state != SL_TASK_READY) {
        return "";
    }
    if (broker->state != SL_BROKER_RUNNING) {
        return "draining";
    }
    if (supply == NULL || supply->provider_idx == SL_SUPPLY_NO_PROVIDER) {
        return "provider not configured";
    }
    return sl_workers_pick((struct sl_broker *)(uintptr_t)broker) == NULL
               ? "no worker"
               : "waits for a free place";
}

static void put_time(struct sl_wire_writer *writer, const char *key, int64_t time_ms)
{
    char text[25];

    sl_time_format(time_ms * SL_NS_PER_MS, text);
    sl_wire_put_kv_str(writer, key, time_ms > 0 ? text : "");
}

static enum sl_err put_show(struct request *own, struct sl_wire_writer *writer)
{
    const struct sl_task_view *view = &own->view;
    const struct sl_broker *broker = own->broker;
    const struct sl_supply *supply =
        view->supply < broker->supply_count ? &broker->supplies[view->supply] : NULL;

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
static void add_call(struct request *own)
{
    const struct sl_call *call = sl_calls_find(&own->broker->calls, own->task);

    if (own->view.state == SL_TASK_LEASED && call != NULL) {
        own->view.attempts = call->attempt;
        own->view.deaths = call->deaths;
    }
}

static void done_show(struct sl_op *op)
{
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    if (may_answer(own)) {
        add_call(own);
        send_document(own, put_show);
    }
    free_request(own);
}

enum sl_err sl_command_show(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_span name;
    enum sl_err err = sl_wire_get_name(conn->source.broker->decoder, frame->payload, &name);
    struct request *own = err == SL_OK ? new_request(conn, name) : NULL;

    if (err != SL_OK) {
        return err;
    }
    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    queue_request(own, run_show, done_show);
    return SL_OK;
}

/* ---- cancel
 * ---------------------------------------------------------------------------------------- */

static enum sl_err find_target(struct request *own, struct sl_store *store)
{
    if (!own->is_task) {
        enum sl_err err = find_job_by_name(own, store);
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
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    if (own->cancel_to == 0) {
        own->err = find_target(own, store);
        own->cancel->next = own->task;
    }
    if (own->err == SL_OK) {
        struct sl_cancel_request request = {
            .from = own->cancel->next, .to = own->cancel_to, .now_ms = own->now_ms};
        own->err = sl_store_cancel_slice(store, &request, own->cancel);
    }
    return op_result(own->err);
}

/* Ends one leased task; false: its end is under way just now, look again. */
static bool cancel_call(struct request *own, uint64_t task)
{
    struct sl_broker *broker = own->broker;
    struct sl_call *call = sl_calls_find(&broker->calls, task);

    if (call == NULL || call->state == SL_CALL_ENDING) {
        return false;
    }
    own->cancelled++;
    if (call->state == SL_CALL_ARMED) {
        struct sl_call_end end = {.err = SL_ERR_CANCELLED, .is_unstarted = true};
        sl_dispatch_end(broker, call, &end);
        return true;
    }
    own->cancelled -= call->is_cancelled; /* counted before */
    call->is_cancelled = true;
    if (call->state == SL_CALL_SENT) {
        sl_workers_cancel(call);
    }
    return true;
}

static void done_cancel(struct sl_op *op)
{
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    if (own->err != SL_OK) {
        (void)may_answer(own);
        free_request(own);
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
        if (may_answer(own)) {
            sl_conn_send_count(own->conn, own->cancelled);
        }
        free_request(own);
        return;
    }
    if (is_over) { /* some were between two indexes: once more from the start */
        own->must_repeat = false;
        own->cancel->next = own->task;
    }
    queue_request(own, run_cancel, done_cancel);
}

enum sl_err sl_command_cancel(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_span name;
    enum sl_err err = sl_wire_get_name(conn->source.broker->decoder, frame->payload, &name);

    if (err != SL_OK) {
        return err;
    }
    struct request *own = new_request(conn, name);
    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    own->cancel = calloc(1, sizeof(*own->cancel));
    if (own->cancel == NULL) {
        free_request(own);
        return SL_ERR_NO_MEMORY;
    }
    queue_request(own, run_cancel, done_cancel);
    return SL_OK;
}

/* ---- purge
 * ----------------------------------------------------------------------------------------- */

static enum sl_err run_purge(struct sl_op *op, struct sl_store *store)
{
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    if (own->job.job == 0) {
        own->err = find_job_by_name(own, store);
    }
    if (own->err == SL_OK) {
        own->err = sl_store_purge_slice(store, own->job.job, &own->is_purged);
    }
    return op_result(own->err);
}

static void done_purge(struct sl_op *op)
{
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    if (own->err == SL_OK && !own->is_purged) {
        queue_request(own, run_purge, done_purge);
        return;
    }
    struct sl_conn *conn = own->conn == NULL ? NULL : sl_conn_find(own->conn, own->serial);
    if (conn != NULL && own->err == SL_ERR_CONFLICT) {
        sl_conn_send_error(conn, own->err,
                           "tasks of this job have not ended; sluice-ctl cancel JOB comes first");
    } else if (conn != NULL && may_answer(own)) {
        sl_conn_send_count(conn, own->job.total);
    }
    free_request(own);
}

enum sl_err sl_command_purge(struct sl_conn *conn, const struct sl_frame *frame)
{
    struct sl_span name;
    enum sl_err err = sl_wire_get_name(conn->source.broker->decoder, frame->payload, &name);

    if (err != SL_OK || name.len == 0) {
        return err != SL_OK ? err : SL_ERR_PROTOCOL;
    }
    struct request *own = new_request(conn, name);
    if (own == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    queue_request(own, run_purge, done_purge);
    return SL_OK;
}

static enum sl_err run_resume(struct sl_op *op, struct sl_store *store)
{
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    own->err = own->job.job == 0 ? sl_store_next_purge(store, &own->job.job) : SL_OK;
    if (own->err == SL_OK) {
        own->err = sl_store_purge_slice(store, own->job.job, &own->is_purged);
    }
    return op_result(own->err);
}

static void done_resume(struct sl_op *op)
{
    struct request *own = SL_CONTAINER_OF(op, struct request, op);

    if (own->err != SL_OK) { /* none left */
        free_request(own);
        return;
    }
    if (own->is_purged) {
        own->job.job = 0;
    }
    queue_request(own, run_resume, done_resume);
}

void sl_command_resume_purges(struct sl_broker *broker)
{
    struct request *own = calloc(1, sizeof(*own));

    if (own != NULL) {
        own->broker = broker;
        queue_request(own, run_resume, done_resume);
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
