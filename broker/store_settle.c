/*
 * Where a task goes when a call or a wait ends: back to an index, or to its one terminal state; the
 * lease ledger; what a restart finds in it.
 *
 * Runs on the broker's store thread, inside its transaction: state and result change together. A
 * task gets a result once; a second one is our own bug and stops the broker. What survives a crash:
 * either the whole change or nothing, in which case the lease still covers the call.
 */
#include "broker/store_internal.h"
#include "common/check.h"
#include "common/hash.h"

/* ---- waiting --------------------------------------------------------------------------------- */

static enum sl_err put_delayed(struct sl_store *store, const struct sl_settle_item *item)
{
    struct sl_key key;
    struct sl_wait_rec wait = {
        .due_ms = item->due_ms,
        .supply = item->supply,
        .attempts = item->attempts,
        .deaths = item->deaths,
        .err = (uint16_t)item->err,
        .priority = item->priority,
    };

    sl_key_u64(&key, item->task);
    enum sl_err err = sl_db_put(store, SL_DB_WAITS, &key, sl_span_of(&wait, sizeof(wait)));
    if (err != SL_OK) {
        return err;
    }
    sl_key_u64_u64(&key, (uint64_t)item->due_ms, item->task);
    return sl_db_put(store, SL_DB_DELAYED, &key, sl_span_of("", 0));
}

enum sl_err sl_store_put_waiting(struct sl_store *store, const struct sl_settle_item *item)
{
    struct sl_key key;
    struct sl_ready_rec ready = {.attempts = item->attempts, .deaths = item->deaths};

    if (item->to == SL_TASK_DELAYED) {
        return put_delayed(store, item);
    }
    SL_ASSERT(item->to == SL_TASK_READY);
    sl_key_ready(&key, item->supply, item->priority, item->task);
    return sl_db_put(store, SL_DB_READY, &key, sl_span_of(&ready, sizeof(ready)));
}

/* ---- the end --------------------------------------------------------------------------------- */

static void count_end(struct sl_store *store, struct sl_job_rec *job, enum sl_task_state to)
{
    switch (to) {
    case SL_TASK_COMPLETED:
        job->completed++;
        store->counters.completed++;
        return;
    case SL_TASK_FAILED:
        job->failed++;
        store->counters.failed++;
        return;
    case SL_TASK_CANCELLED:
        job->cancelled++;
        store->counters.cancelled++;
        return;
    case SL_TASK_EXPIRED:
        job->expired++;
        store->counters.expired++;
        return;
    case SL_TASK_READY:
    case SL_TASK_DELAYED:
    case SL_TASK_LEASED:
    case SL_TASK_BLOCKED:
        break;
    }
    SL_UNREACHABLE();
}

static struct sl_span cut(struct sl_span text, size_t max)
{
    return sl_span_of(text.ptr, SL_MIN(text.len, max));
}

static char *append(char *at, struct sl_span text)
{
    if (text.len > 0) {
        memcpy(at, text.ptr, text.len);
    }
    return at + text.len;
}

static enum sl_err write_result(struct sl_store *store, const struct sl_settle_item *item,
                                uint64_t done_no)
{
    struct sl_key key;
    char *place;
    struct sl_span request_id = cut(item->request_id, SL_REQUEST_ID_BYTES_MAX);
    struct sl_span message = cut(item->message, SL_MESSAGE_BYTES_MAX);
    struct sl_result_rec rec = {
        .version = SL_RECORD_VERSION,
        .state = (uint8_t)item->to,
        .err = (uint16_t)item->err,
        .http_status = (uint16_t)item->http_status,
        .attempts = item->attempts,
        .queued_us = item->queued_us,
        .call_us = item->call_us,
        .input_tokens = item->input_tokens,
        .output_tokens = item->output_tokens,
        .done_no = done_no,
        .ended_ms = item->now_ms,
        .request_id_bytes = (uint16_t)request_id.len,
        .message_bytes = (uint16_t)message.len,
        .body_bytes = (uint32_t)item->body.len,
        .flags = item->flags,
    };
    size_t strings = request_id.len + message.len;
    bool is_inline = sizeof(rec) + strings + item->body.len <= SL_VALUE_BYTES_MAX;
    size_t tail = strings + (is_inline ? item->body.len : 0);

    sl_key_u64(&key, item->task);
    enum sl_err err = sl_db_reserve(store, SL_DB_RESULTS, &key, sizeof(rec) + tail, &place);
    if (err != SL_OK) {
        return err;
    }
    char *at = append(append(place + sizeof(rec), request_id), message);
    if (is_inline) {
        append(at, item->body);
    }
    rec.hash = sl_hash64(place + sizeof(rec), tail, sl_hash64(&rec, sizeof(rec), 0));
    memcpy(place, &rec, sizeof(rec));
    return is_inline ? SL_OK : sl_blob_write(store, item->task, SL_BLOB_RESPONSE, item->body);
}

enum sl_err sl_store_end_task(struct sl_store *store, const struct sl_settle_item *item)
{
    struct sl_cached_job *job;
    struct sl_key key;
    char number[4];
    enum sl_err err = sl_store_job(store, sl_task_job(item->task), &job);

    if (err != SL_OK) {
        return err == SL_ERR_NOT_FOUND ? sl_db_fail(store, "job of a task", MDB_CORRUPTED) : err;
    }
    uint64_t done_no = job->rec.done_count++;
    job->is_dirty = true;
    count_end(store, &job->rec, item->to);
    store->counters.input_tokens += item->input_tokens;
    store->counters.output_tokens += item->output_tokens;
    sl_key_done(&key, job->job, done_no);
    sl_put_be32(number, sl_task_idx(item->task));
    err = sl_db_put(store, SL_DB_DONE, &key, sl_span_of(number, sizeof(number)));
    return err == SL_OK ? write_result(store, item, done_no) : err;
}

enum sl_err sl_store_settle(struct sl_store *store, const struct sl_settle_item *item)
{
    enum sl_err err;

    SL_ASSERT(item->lease != 0);
    SL_ASSERT(sl_task_change_is_legal(SL_TASK_LEASED, item->to));
    store->counters.provider_calls += item->was_called;
    if (sl_task_state_is_terminal(item->to)) {
        err = sl_store_end_task(store, item);
    } else {
        store->counters.retries += item->to == SL_TASK_DELAYED && item->was_called;
        err = sl_store_put_waiting(store, item);
    }
    return err == SL_OK ? sl_lease_end_one(store, item->lease) : err;
}

/* ---- delayed tasks --------------------------------------------------------------------------- */

static enum sl_err promote_one(struct sl_store *store, uint64_t task,
                               struct sl_promote_reply *reply)
{
    struct sl_key key;
    struct sl_span value;
    struct sl_wait_rec wait;

    sl_key_u64(&key, task);
    enum sl_err err = sl_db_get(store, SL_DB_WAITS, &key, &value);
    if (err == SL_ERR_NOT_FOUND || (err == SL_OK && value.len != sizeof(wait))) {
        return sl_db_fail(store, "waits index", MDB_CORRUPTED);
    }
    if (err != SL_OK) {
        return err;
    }
    memcpy(&wait, value.ptr, sizeof(wait));
    struct sl_settle_item item = {
        .task = task,
        .supply = wait.supply,
        .attempts = wait.attempts,
        .deaths = wait.deaths,
        .priority = wait.priority,
        .to = SL_TASK_READY,
    };
    reply->supplies[reply->count++] = wait.supply;
    err = sl_db_del(store, SL_DB_WAITS, &key);
    return err == SL_OK ? sl_store_put_waiting(store, &item) : err;
}

enum sl_err sl_store_promote(struct sl_store *store, int64_t now_ms, struct sl_promote_reply *reply)
{
    struct sl_db_cursor cursor;
    struct sl_key first = {0};
    enum sl_err err = sl_db_seek(store, SL_DB_DELAYED, &first, &cursor);

    reply->count = 0;
    reply->next_due_ms = INT64_MAX;
    while (err == SL_OK) {
        if (cursor.key.len != 16) {
            err = sl_db_fail(store, "delayed index", MDB_CORRUPTED);
            break;
        }
        int64_t due_ms = (int64_t)sl_get_be64(cursor.key.ptr);
        if (due_ms > now_ms || reply->count == SL_ARRAY_LEN(reply->supplies)) {
            reply->next_due_ms = due_ms;
            break;
        }
        uint64_t task = sl_get_be64(cursor.key.ptr + 8);
        err = sl_db_del_current(store, &cursor);
        if (err == SL_OK) {
            err = promote_one(store, task, reply);
        }
        if (err == SL_OK) {
            err = sl_db_next(store, &cursor);
        }
    }
    sl_db_cursor_end(&cursor);
    return err == SL_ERR_NOT_FOUND ? SL_OK : err;
}
