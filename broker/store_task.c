/*
 * A task's way into the store and out to a call: accept, and arm (take the next ready ones under a
 * lease).
 *
 * Runs on the broker's store thread, inside its transaction. An accepted task is whole or absent
 * after a crash. A task is armed only together with the lease that covers its call. Damaged records
 * are found by their hash and set aside as failed, never called.
 */
#include <errno.h>
#include <stdlib.h>

#include "broker/store_internal.h"
#include "common/check.h"
#include "common/hash.h"

/* ---- task records ---------------------------------------------------------------------------- */

static size_t task_strings_bytes(const struct sl_task_rec *rec)
{
    return (size_t)rec->custom_id_bytes + rec->stage_bytes + rec->service_id_bytes;
}

static bool body_is_inline(const struct sl_task_rec *rec)
{
    return sizeof(*rec) + task_strings_bytes(rec) + rec->body_bytes <= SL_VALUE_BYTES_MAX;
}

static uint64_t task_hash(const struct sl_task_rec *rec, const char *strings, size_t bytes)
{
    struct sl_task_rec unhashed = *rec;

    unhashed.hash = 0;
    return sl_hash64(strings, bytes, sl_hash64(&unhashed, sizeof(unhashed), 0));
}

static char *append(char *at, struct sl_span text)
{
    if (text.len > 0) {
        memcpy(at, text.ptr, text.len);
    }
    return at + text.len;
}

static enum sl_err write_task(struct sl_store *store, uint64_t task, struct sl_task_rec *rec,
                              const struct sl_task_msg *msg)
{
    struct sl_key key;
    char *place;
    bool is_inline = body_is_inline(rec);
    size_t tail = task_strings_bytes(rec) + (is_inline ? msg->body.len : 0);

    sl_key_u64(&key, task);
    enum sl_err err = sl_db_reserve(store, SL_DB_TASKS, &key, sizeof(*rec) + tail, &place);
    if (err != SL_OK) {
        return err;
    }
    char *at = place + sizeof(*rec);
    at = append(at, msg->custom_id);
    at = append(at, msg->stage);
    at = append(at, msg->service_id);
    if (is_inline) {
        append(at, msg->body);
    }
    rec->hash = task_hash(rec, place + sizeof(*rec), tail);
    memcpy(place, rec, sizeof(*rec));
    return is_inline ? SL_OK : sl_blob_write(store, task, SL_BLOB_REQUEST, msg->body);
}

enum sl_err sl_task_get(struct sl_store *store, uint64_t task, struct sl_task_view_raw *out)
{
    struct sl_key key;
    struct sl_span value;

    sl_key_u64(&key, task);
    enum sl_err err = sl_db_get(store, SL_DB_TASKS, &key, &value);
    if (err != SL_OK) {
        return err;
    }
    if (value.len < sizeof(out->rec)) {
        return SL_ERR_STORE_CORRUPT;
    }
    memcpy(&out->rec, value.ptr, sizeof(out->rec));
    const struct sl_task_rec *rec = &out->rec;
    out->has_inline_body = body_is_inline(rec);
    size_t tail = task_strings_bytes(rec) + (out->has_inline_body ? rec->body_bytes : 0);
    const char *at = value.ptr + sizeof(*rec);
    if (value.len != sizeof(*rec) + tail || rec->hash != task_hash(rec, at, tail)) {
        return SL_ERR_STORE_CORRUPT;
    }
    out->custom_id = sl_span_of(at, rec->custom_id_bytes);
    at += rec->custom_id_bytes;
    out->stage = sl_span_of(at, rec->stage_bytes);
    at += rec->stage_bytes;
    out->service_id = sl_span_of(at, rec->service_id_bytes);
    at += rec->service_id_bytes;
    out->inline_body = sl_span_of(at, out->has_inline_body ? rec->body_bytes : 0);
    return SL_OK;
}

enum sl_err sl_task_body(struct sl_store *store, uint64_t task, const struct sl_task_view_raw *raw,
                         struct sl_span *out)
{
    if (raw->has_inline_body) {
        *out = raw->inline_body;
        return SL_OK;
    }
    return sl_blob_read(store, task, SL_BLOB_REQUEST, raw->rec.body_bytes, out);
}

/* ---- accept ---------------------------------------------------------------------------------- */

/* The id is there already: the same call is known, another one is a conflict. */
static enum sl_err compare_known(struct sl_store *store, uint64_t task,
                                 const struct sl_task_msg *msg)
{
    struct sl_task_view_raw raw;
    struct sl_span body;
    enum sl_err err = sl_task_get(store, task, &raw);

    if (err != SL_OK) {
        return err == SL_ERR_NOT_FOUND ? sl_db_fail(store, "task of an id", MDB_CORRUPTED) : err;
    }
    if (raw.rec.body_bytes != msg->body.len || raw.rec.endpoint != (uint8_t)msg->endpoint) {
        return SL_ERR_CONFLICT;
    }
    err = sl_task_body(store, task, &raw, &body);
    if (err != SL_OK) {
        return err;
    }
    return sl_span_equal(body, msg->body) ? SL_OK : SL_ERR_CONFLICT;
}

static enum sl_err put_waiting(struct sl_store *store, uint64_t task,
                               const struct sl_accept_request *request, size_t idx,
                               struct sl_accept_reply *reply)
{
    const struct sl_task_msg *msg = &request->tasks[idx];
    struct sl_settle_item wait = {
        .task = task,
        .supply = request->supplies[idx],
        .priority = (uint8_t)msg->priority,
        .to = msg->not_before_ms > request->now_ms ? SL_TASK_DELAYED : SL_TASK_READY,
        .due_ms = msg->not_before_ms,
    };

    if (wait.to == SL_TASK_DELAYED) {
        reply->delayed++;
        reply->due_ms = SL_MIN(reply->due_ms, wait.due_ms);
    }
    return sl_store_put_waiting(store, &wait);
}

static enum sl_err accept_new(struct sl_store *store, uint64_t task,
                              const struct sl_accept_request *request, size_t idx,
                              struct sl_accept_reply *reply)
{
    const struct sl_task_msg *msg = &request->tasks[idx];
    struct sl_task_rec rec = {
        .version = SL_RECORD_VERSION,
        .endpoint = (uint8_t)msg->endpoint,
        .priority = (uint8_t)msg->priority,
        .flags = (uint8_t)msg->flags,
        .supply = request->supplies[idx],
        .timeout_ms = msg->timeout_ms,
        .body_bytes = (uint32_t)msg->body.len,
        .max_attempts = (uint16_t)msg->max_attempts,
        .custom_id_bytes = (uint16_t)msg->custom_id.len,
        .stage_bytes = (uint16_t)msg->stage.len,
        .service_id_bytes = (uint16_t)msg->service_id.len,
        .accepted_ms = request->now_ms,
        .deadline_ms = msg->deadline_ms,
    };
    enum sl_err err = write_task(store, task, &rec, msg);

    if (err == SL_OK) {
        err = put_waiting(store, task, request, idx, reply);
    }
    if (err == SL_OK) {
        store->counters.submitted++;
        reply->accepted++;
    }
    return err;
}

static enum sl_err accept_one(struct sl_store *store, struct sl_cached_job *job,
                              const struct sl_accept_request *request, size_t idx,
                              struct sl_accept_reply *reply)
{
    struct sl_key key;
    struct sl_span existing;
    char number[4];

    if (job->rec.next_idx == UINT32_MAX) {
        return SL_ERR_OVERLOADED;
    }
    sl_put_be32(number, job->rec.next_idx);
    sl_key_named(&key, request->job, request->tasks[idx].custom_id);
    enum sl_err err =
        sl_db_put_new(store, SL_DB_IDS, &key, sl_span_of(number, sizeof(number)), &existing);
    if (err == SL_ERR_CONFLICT) {
        uint64_t known = sl_task_number(request->job, sl_get_be32(existing.ptr));
        err = compare_known(store, known, &request->tasks[idx]);
        reply->known += err == SL_OK;
        return err;
    }
    if (err != SL_OK) {
        return err;
    }
    uint64_t task = sl_task_number(request->job, job->rec.next_idx);
    job->rec.next_idx++;
    job->is_dirty = true;
    return accept_new(store, task, request, idx, reply);
}

static enum sl_err accept_all(struct sl_store *store, struct sl_cached_job *job,
                              const struct sl_accept_request *request,
                              struct sl_accept_reply *reply)
{
    for (size_t i = 0; i < request->count; i++) {
        enum sl_err err = accept_one(store, job, request, i, reply);
        if (err != SL_OK) {
            reply->refused_idx = (int64_t)i;
            return err;
        }
    }
    return SL_OK;
}

enum sl_err sl_store_accept(struct sl_store *store, const struct sl_accept_request *request,
                            struct sl_accept_reply *reply)
{
    struct sl_cached_job *job;
    enum sl_err err = sl_store_job(store, request->job, &job);

    *reply = (struct sl_accept_reply){.refused_idx = -1, .due_ms = INT64_MAX};
    if (err == SL_OK && (job->rec.flags & SL_JOB_FLAG_PURGING) != 0) {
        err = SL_ERR_NOT_FOUND;
    }
    if (err == SL_OK) {
        err = accept_all(store, job, request, reply);
    } else {
        reply->refused_idx = 0;
    }
    reply->refused_err = err;
    return err == SL_ERR_STORE ? err : SL_OK;
}

/* ---- arm ------------------------------------------------------------------------------------- */

/* The state of one arm operation: the lease entries not yet written. */
struct arming {
    const struct sl_arm_request *request;
    struct sl_arm_reply *reply;
    struct sl_lease_rec entries[SL_LEASE_ENTRIES_MAX];
    uint32_t entry_count;
};

static enum sl_err write_lease(struct sl_store *store, struct arming *arming)
{
    struct sl_key key;
    uint64_t lease = store->counters.next_lease;

    if (arming->entry_count == 0) {
        return SL_OK;
    }
    store->counters.next_lease++;
    sl_key_u64(&key, lease);
    enum sl_err err =
        sl_db_put(store, SL_DB_LEASES, &key,
                  sl_span_of(arming->entries, arming->entry_count * sizeof(arming->entries[0])));
    sl_lease_add(store, lease, arming->entry_count);
    arming->entry_count = 0;
    return err;
}

static bool reserve_bytes(struct sl_arm_reply *reply, size_t bytes)
{
    size_t need = reply->bytes_len + bytes;

    if (need <= reply->bytes_size) {
        return true;
    }
    size_t size = SL_MAX(need, SL_MIN(reply->bytes_size * 2, reply->bytes_size + 4 * SL_MIB));
    char *grown = realloc(reply->bytes, size);
    if (grown == NULL) {
        return false;
    }
    reply->bytes = grown;
    reply->bytes_size = size;
    return true;
}

static void note_armed(struct sl_store *store, struct arming *arming, uint64_t task,
                       const struct sl_task_rec *rec, struct sl_ready_rec ready)
{
    struct sl_arm_reply *reply = arming->reply;
    uint16_t attempt = (uint16_t)(ready.attempts + 1);

    arming->entries[arming->entry_count++] = (struct sl_lease_rec){
        .task = task,
        .supply = rec->supply,
        .attempt = attempt,
        .deaths = ready.deaths,
        .priority = rec->priority,
        .flags = rec->flags,
        .max_attempts = rec->max_attempts,
    };
    reply->armed[reply->count++] = (struct sl_armed){
        .task = task,
        .lease = store->counters.next_lease,
        .supply = rec->supply,
        .timeout_ms = rec->timeout_ms,
        .attempt = attempt,
        .deaths = ready.deaths,
        .max_attempts = rec->max_attempts,
        .priority = rec->priority,
        .flags = rec->flags,
        .endpoint = rec->endpoint,
        .accepted_ms = rec->accepted_ms,
        .deadline_ms = rec->deadline_ms,
        .body_at = reply->bytes_len,
        .body_bytes = rec->body_bytes,
    };
}

/* Ends a ready task that cannot be called any more. */
static enum sl_err end_unarmed(struct sl_store *store, uint64_t task, struct sl_ready_rec ready,
                               enum sl_err why, int64_t now_ms)
{
    struct sl_settle_item item = {
        .task = task,
        .attempts = ready.attempts,
        .deaths = ready.deaths,
        .to = why == SL_ERR_EXPIRED ? SL_TASK_EXPIRED : SL_TASK_FAILED,
        .err = why,
        .message = sl_span_str(sl_err_meaning(why)),
        .now_ms = now_ms,
    };

    return sl_store_end_task(store, &item);
}

static bool exceeds(const struct arming *arming, const struct sl_task_rec *rec)
{
    const struct sl_arm_reply *reply = arming->reply;

    return reply->count > 0 && reply->bytes_len + rec->body_bytes > arming->request->bytes_max;
}

/* Copies the body behind the others and notes the lease. */
static enum sl_err take_body(struct sl_store *store, struct arming *arming, uint64_t task,
                             const struct sl_task_view_raw *raw, struct sl_ready_rec ready)
{
    struct sl_arm_reply *reply = arming->reply;
    struct sl_span body = {0};
    enum sl_err err = sl_task_body(store, task, raw, &body);

    if (err != SL_OK) {
        return err;
    }
    if (!reserve_bytes(reply, body.len)) {
        return reply->count > 0 ? SL_ERR_FULL : sl_db_fail(store, "memory for bodies", ENOMEM);
    }
    note_armed(store, arming, task, &raw->rec, ready);
    memcpy(reply->bytes + reply->bytes_len, body.ptr, body.len);
    reply->bytes_len += body.len;
    return arming->entry_count == SL_LEASE_ENTRIES_MAX ? write_lease(store, arming) : SL_OK;
}

/* SL_ERR_FULL: the task would exceed the byte limit; it stays ready. */
static enum sl_err arm_one(struct sl_store *store, struct arming *arming, uint64_t task,
                           struct sl_ready_rec ready)
{
    struct sl_arm_reply *reply = arming->reply;
    int64_t now_ms = arming->request->now_ms;
    struct sl_task_view_raw raw;
    enum sl_err err = sl_task_get(store, task, &raw);

    if (err == SL_OK && raw.rec.deadline_ms != 0 && raw.rec.deadline_ms <= now_ms) {
        reply->expired++;
        return end_unarmed(store, task, ready, SL_ERR_EXPIRED, now_ms);
    }
    if (err == SL_OK) {
        err = exceeds(arming, &raw.rec) ? SL_ERR_FULL : take_body(store, arming, task, &raw, ready);
    }
    if (err == SL_ERR_STORE_CORRUPT || err == SL_ERR_NOT_FOUND) {
        reply->damaged++;
        return end_unarmed(store, task, ready, SL_ERR_STORE_CORRUPT, now_ms);
    }
    return err;
}

/* One entry of the ready index: a task of the supply, or SL_ERR_NOT_FOUND behind its last one. */
static enum sl_err parse_ready(struct sl_store *store, const struct sl_db_cursor *cursor,
                               uint32_t supply, uint64_t *task, struct sl_ready_rec *ready)
{
    if (cursor->key.len != 13 || cursor->value.len != sizeof(*ready)) {
        return sl_db_fail(store, "ready index", MDB_CORRUPTED);
    }
    if (sl_get_be32(cursor->key.ptr) != supply) {
        return SL_ERR_NOT_FOUND;
    }
    *task = sl_get_be64(cursor->key.ptr + 5);
    memcpy(ready, cursor->value.ptr, sizeof(*ready));
    return SL_OK;
}

/* As many as asked for, or as many ended as one transaction should end. */
static bool has_enough(const struct arming *arming)
{
    const struct sl_arm_reply *reply = arming->reply;

    return reply->count == arming->request->count_max ||
           reply->expired + reply->damaged >= SL_DELETE_SLICE;
}

static enum sl_err arm_from(struct sl_store *store, struct arming *arming,
                            struct sl_db_cursor *cursor)
{
    enum sl_err err = SL_OK;

    while (err == SL_OK) {
        uint64_t task = 0;
        struct sl_ready_rec ready = {0};
        err = parse_ready(store, cursor, arming->request->supply, &task, &ready);
        if (err == SL_OK && has_enough(arming)) {
            return SL_ERR_FULL;
        }
        if (err == SL_OK) {
            err = arm_one(store, arming, task, ready);
        }
        if (err == SL_OK) {
            err = sl_db_del_current(store, cursor);
        }
        if (err == SL_OK) {
            err = sl_db_next(store, cursor);
        }
    }
    return err;
}

enum sl_err sl_store_arm(struct sl_store *store, const struct sl_arm_request *request,
                         struct sl_arm_reply *reply)
{
    struct arming arming = {.request = request, .reply = reply, .entry_count = 0};
    struct sl_db_cursor cursor;
    struct sl_key from;

    SL_ASSERT(request->count_max > 0);
    sl_key_ready(&from, request->supply, SL_PRIORITY_MAX, 0);
    enum sl_err err = sl_db_seek(store, SL_DB_READY, &from, &cursor);
    if (err == SL_OK) {
        err = arm_from(store, &arming, &cursor);
    }
    sl_db_cursor_end(&cursor);
    reply->has_more = err == SL_ERR_FULL;
    if (err != SL_ERR_FULL && err != SL_ERR_NOT_FOUND) {
        return err;
    }
    return write_lease(store, &arming);
}
