/*
 * Reading results and tasks back.
 *
 * Runs on the broker's store thread, inside its transaction, so that what is read was or will be on
 * disk before anybody is told. Reads in small bounded pieces and never holds a transaction open for
 * a client. A damaged record is answered as such (state and counts stay true), never served.
 */
#include "broker/store_internal.h"
#include "common/check.h"
#include "common/hash.h"
#include "common/lane.h"

struct result_raw {
    struct sl_result_rec rec;
    struct sl_span request_id;
    struct sl_span message;
    struct sl_span inline_body;
    bool has_inline_body;
};

/* Is the record what was written? Compares lengths and hash; clears the record's own hash. */
static bool is_whole(struct sl_result_rec *rec, struct sl_span tail, size_t tail_bytes)
{
    uint64_t hash = rec->hash;

    rec->hash = 0;
    return tail.len == tail_bytes &&
           hash == sl_hash64(tail.ptr, tail.len, sl_hash64(rec, sizeof(*rec), 0)) &&
           sl_task_state_is_known(rec->state) && sl_err_is_known(rec->err);
}

static enum sl_err get_result(struct sl_store *store, uint64_t task, struct result_raw *out)
{
    struct sl_key key;
    struct sl_span value;
    struct sl_result_rec *rec = &out->rec;

    sl_key_u64(&key, task);
    enum sl_err err = sl_db_get(store, SL_DB_RESULTS, &key, &value);
    if (err != SL_OK) {
        return err;
    }
    if (value.len < sizeof(*rec)) {
        return SL_ERR_STORE_CORRUPT;
    }
    memcpy(rec, value.ptr, sizeof(*rec));
    struct sl_span tail = sl_span_of(value.ptr + sizeof(*rec), value.len - sizeof(*rec));
    size_t strings = (size_t)rec->request_id_bytes + rec->message_bytes;
    out->has_inline_body = sizeof(*rec) + strings + rec->body_bytes <= SL_VALUE_BYTES_MAX;
    size_t inline_bytes = out->has_inline_body ? rec->body_bytes : 0;
    if (!is_whole(rec, tail, strings + inline_bytes)) {
        return SL_ERR_STORE_CORRUPT;
    }
    out->request_id = sl_span_of(tail.ptr, rec->request_id_bytes);
    out->message = sl_span_of(tail.ptr + rec->request_id_bytes, rec->message_bytes);
    out->inline_body = sl_span_of(tail.ptr + strings, inline_bytes);
    return SL_OK;
}

/* The provider's name, out of the supply's record; empty when there is none. */
static struct sl_span provider_of(struct sl_store *store, uint32_t supply)
{
    struct sl_key key;
    struct sl_span value;
    struct sl_supply_rec rec;

    sl_key_u32(&key, supply);
    if (sl_db_get(store, SL_DB_SUPPLIES, &key, &value) != SL_OK || value.len < sizeof(rec)) {
        return sl_span_of("", 0);
    }
    memcpy(&rec, value.ptr, sizeof(rec));
    size_t len = SL_MIN((size_t)rec.provider_bytes, value.len - sizeof(rec));
    return sl_span_of(value.ptr + sizeof(rec), len);
}

static enum sl_err result_body(struct sl_store *store, uint64_t task, const struct result_raw *raw,
                               struct sl_span *out)
{
    if (raw->has_inline_body) {
        *out = raw->inline_body;
        return SL_OK;
    }
    return sl_blob_read(store, task, SL_BLOB_RESPONSE, raw->rec.body_bytes, out);
}

static void damaged_message(struct sl_result_msg *msg)
{
    msg->state = SL_TASK_FAILED;
    msg->err = SL_ERR_STORE_CORRUPT;
    msg->message = sl_span_str(sl_err_meaning(SL_ERR_STORE_CORRUPT));
}

static void fill_result(struct sl_result_msg *msg, const struct result_raw *raw)
{
    msg->state = (enum sl_task_state)raw->rec.state;
    msg->err = (enum sl_err)raw->rec.err;
    msg->message = raw->message;
    msg->http_status = raw->rec.http_status;
    msg->request_id = raw->request_id;
    msg->attempts = raw->rec.attempts;
    msg->queued_us = raw->rec.queued_us;
    msg->call_us = raw->rec.call_us;
    msg->input_tokens = raw->rec.input_tokens;
    msg->output_tokens = raw->rec.output_tokens;
    msg->body_is_json = (raw->rec.flags & SL_RESULT_BODY_IS_JSON) != 0;
}

/* Everything of one result; SL_ERR_NOT_FOUND when the task has none. */
static enum sl_err gather(struct sl_store *store, uint64_t task, struct sl_result_msg *msg)
{
    struct result_raw raw;
    struct sl_task_view_raw task_raw;
    enum sl_err err = get_result(store, task, &raw);

    memset(msg, 0, sizeof(*msg));
    msg->task = task;
    if (err == SL_OK) {
        fill_result(msg, &raw);
        err = result_body(store, task, &raw, &msg->body);
    }
    if (err == SL_ERR_STORE_CORRUPT) {
        damaged_message(msg);
        err = SL_OK;
    }
    if (err != SL_OK) {
        return err;
    }
    err = sl_task_get(store, task, &task_raw);
    if (err == SL_OK) {
        msg->custom_id = task_raw.custom_id;
        msg->stage = task_raw.stage;
        msg->service_id = task_raw.service_id;
        msg->provider = provider_of(store, task_raw.rec.supply);
        return SL_OK;
    }
    if (err == SL_ERR_STORE) {
        return err;
    }
    damaged_message(msg);
    msg->custom_id = sl_span_str("?");
    return SL_OK;
}

/* The first ended task of the job from an index on. */
static enum sl_err seek_ended(struct sl_store *store, uint32_t job, uint64_t *idx)
{
    struct sl_db_cursor cursor;
    struct sl_key key;

    sl_key_u64(&key, sl_task_number(job, (uint32_t)*idx));
    enum sl_err err = sl_db_seek(store, SL_DB_RESULTS, &key, &cursor);
    uint64_t task = err == SL_OK && cursor.key.len == 8 ? sl_get_be64(cursor.key.ptr) : 0;
    if (err == SL_OK && sl_task_job(task) != job) {
        err = SL_ERR_NOT_FOUND;
    }
    if (err == SL_OK) {
        *idx = sl_task_idx(task);
    }
    sl_db_cursor_end(&cursor);
    return err;
}

/* The ended task at *cursor, which may move over tasks that have not ended. SL_ERR_NOT_FOUND: none
 * there yet. */
static enum sl_err task_at(struct sl_store *store, const struct sl_read_request *request,
                           uint64_t *cursor, uint64_t *task)
{
    struct sl_key key;
    struct sl_span value;
    enum sl_err err = SL_OK;

    if (request->order == SL_RESULTS_AS_SUBMITTED) {
        if (*cursor > UINT32_MAX) {
            return SL_ERR_NOT_FOUND;
        }
        err = request->may_skip ? seek_ended(store, request->job, cursor) : SL_OK;
        *task = sl_task_number(request->job, (uint32_t)*cursor);
        return err;
    }
    sl_key_done(&key, request->job, *cursor);
    err = sl_db_get(store, SL_DB_DONE, &key, &value);
    if (err == SL_OK && value.len != 4) {
        return sl_db_fail(store, "done index", MDB_CORRUPTED);
    }
    if (err == SL_OK) {
        *task = sl_task_number(request->job, sl_get_be32(value.ptr));
    }
    return err;
}

static enum sl_err read_one(struct sl_store *store, const struct sl_read_request *request,
                            struct sl_wire_writer *writer, struct sl_read_reply *reply)
{
    uint64_t task = 0;
    uint64_t cursor = reply->cursor;
    struct sl_result_msg msg;
    enum sl_err err = task_at(store, request, &cursor, &task);

    if (err == SL_OK) {
        err = gather(store, task, &msg);
    }
    if (err != SL_OK) {
        return err;
    }
    msg.cursor = cursor + 1;
    err = sl_wire_put_result(writer, &msg);
    if (err == SL_ERR_FULL && reply->count == 0) {
        reply->need_bytes =
            msg.body.len + 16 * SL_KIB; /* the body and every string at its longest */
    }
    if (err == SL_OK) {
        reply->cursor = msg.cursor;
        reply->count++;
    }
    return err;
}

enum sl_err sl_store_read_results(struct sl_store *store, const struct sl_read_request *request,
                                  struct sl_wire_writer *writer, struct sl_read_reply *reply)
{
    enum sl_err err = SL_OK;

    *reply = (struct sl_read_reply){.cursor = request->cursor};
    while (err == SL_OK && reply->count < request->count_max) {
        err = read_one(store, request, writer, reply);
    }
    reply->at_end = err == SL_ERR_NOT_FOUND;
    return err == SL_ERR_FULL || err == SL_ERR_NOT_FOUND ? SL_OK : err;
}

/* ---- one task
 * ------------------------------------------------------------------------------------ */

static enum sl_err view_end(struct sl_store *store, uint64_t task, struct sl_task_view *out)
{
    struct result_raw raw;
    enum sl_err err = get_result(store, task, &raw);

    if (err == SL_OK) {
        out->state = (enum sl_task_state)raw.rec.state;
        out->err = (enum sl_err)raw.rec.err;
        out->attempts = raw.rec.attempts;
        out->ended_ms = raw.rec.ended_ms;
    }
    return err;
}

static enum sl_err view_wait(struct sl_store *store, uint64_t task, struct sl_task_view *out)
{
    struct sl_key key;
    struct sl_span value;
    struct sl_wait_rec wait;

    sl_key_u64(&key, task);
    enum sl_err err = sl_db_get(store, SL_DB_WAITS, &key, &value);
    if (err == SL_OK && value.len == sizeof(wait)) {
        memcpy(&wait, value.ptr, sizeof(wait));
        out->state = SL_TASK_DELAYED;
        out->attempts = wait.attempts;
        out->deaths = wait.deaths;
        out->due_ms = wait.due_ms;
        out->err = sl_err_is_known(wait.err) ? (enum sl_err)wait.err : SL_ERR_INTERNAL;
    }
    return err;
}

static enum sl_err view_ready(struct sl_store *store, uint64_t task, struct sl_task_view *out)
{
    struct sl_key key;
    struct sl_span value;
    struct sl_ready_rec ready;

    sl_key_ready(&key, out->supply, SL_MIN(out->priority, SL_PRIORITY_MAX), task);
    enum sl_err err = sl_db_get(store, SL_DB_READY, &key, &value);
    if (err == SL_OK && value.len == sizeof(ready)) {
        memcpy(&ready, value.ptr, sizeof(ready));
        out->state = SL_TASK_READY;
        out->attempts = ready.attempts;
        out->deaths = ready.deaths;
    }
    return err;
}

enum sl_err sl_store_view_task(struct sl_store *store, uint64_t task, struct sl_task_view *out)
{
    struct sl_task_view_raw raw;
    struct sl_job_info job;
    enum sl_err err = sl_store_get_job(store, sl_task_job(task), &job);

    if (err == SL_OK) {
        err = sl_task_get(store, task, &raw);
    }
    if (err != SL_OK) {
        return err;
    }
    *out = (struct sl_task_view){
        .state = SL_TASK_LEASED,
        .supply = raw.rec.supply,
        .priority = raw.rec.priority,
        .accepted_ms = raw.rec.accepted_ms,
        .body_bytes = raw.rec.body_bytes,
        .uid = job.uid,
    };
    bool fits = sl_span_copy_str(out->custom_id, sizeof(out->custom_id), raw.custom_id);
    SL_ASSERT(fits || raw.custom_id.len > SL_ID_BYTES_MAX);
    err = view_end(store, task, out);
    if (err == SL_ERR_NOT_FOUND) {
        err = view_wait(store, task, out);
    }
    if (err == SL_ERR_NOT_FOUND) {
        err = view_ready(store, task, out);
    }
    return err == SL_ERR_NOT_FOUND ? SL_OK : err;
}
