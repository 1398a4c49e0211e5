/*
 * Work of the operator on whole jobs, in slices: cancel and purge.
 *
 * Runs on the broker's store thread. A slice touches a bounded number of records, so that neither
 * the commit nor LMDB's list of free pages grows with the job. What survives a crash: a purge goes
 * on after a restart (its job is listed in meta); a cancel that was cut off is simply asked for
 * again.
 */
#include "broker/store_internal.h"
#include "common/check.h"

#define PURGE_PREFIX "purge"
#define PURGE_PREFIX_BYTES (sizeof(PURGE_PREFIX) - 1)

/* ---- cancel
 * -------------------------------------------------------------------------------------- */

static enum sl_err drop_waiting(struct sl_store *store, uint64_t task,
                                const struct sl_task_view *view)
{
    struct sl_key key;

    if (view->state == SL_TASK_READY) {
        sl_key_ready(&key, view->supply, view->priority, task);
        return sl_db_del(store, SL_DB_READY, &key);
    }
    SL_ASSERT(view->state == SL_TASK_DELAYED);
    sl_key_u64(&key, task);
    enum sl_err err = sl_db_del(store, SL_DB_WAITS, &key);
    if (err != SL_OK) {
        return err;
    }
    sl_key_u64_u64(&key, (uint64_t)view->due_ms, task);
    return sl_db_del(store, SL_DB_DELAYED, &key);
}

static enum sl_err cancel_waiting(struct sl_store *store, uint64_t task,
                                  const struct sl_task_view *view, int64_t now_ms)
{
    struct sl_settle_item item = {
        .task = task,
        .attempts = (uint16_t)view->attempts,
        .deaths = (uint16_t)view->deaths,
        .to = SL_TASK_CANCELLED,
        .err = SL_ERR_CANCELLED,
        .message = sl_span_str(sl_err_meaning(SL_ERR_CANCELLED)),
        .now_ms = now_ms,
    };
    enum sl_err err = drop_waiting(store, task, view);

    if (err == SL_ERR_NOT_FOUND) {
        return sl_db_fail(store, "index of a waiting task", MDB_CORRUPTED);
    }
    SL_ASSERT(sl_task_change_is_legal(view->state, item.to));
    return err == SL_OK ? sl_store_end_task(store, &item) : err;
}

static enum sl_err cancel_one(struct sl_store *store, const struct sl_cancel_request *request,
                              struct sl_cancel_reply *reply)
{
    struct sl_task_view view;
    uint64_t task = reply->next;
    enum sl_err err = sl_store_view_task(store, task, &view);

    if (err == SL_ERR_STORE_CORRUPT) {
        return SL_OK; /* set aside when its turn to be called comes */
    }
    if (err != SL_OK || sl_task_state_is_terminal(view.state)) {
        return err;
    }
    if (view.state == SL_TASK_LEASED) {
        reply->leased[reply->leased_count++] = task;
        return SL_OK;
    }
    reply->cancelled++;
    reply->was_delayed += view.state == SL_TASK_DELAYED;
    return cancel_waiting(store, task, &view, request->now_ms);
}

enum sl_err sl_store_cancel_slice(struct sl_store *store, const struct sl_cancel_request *request,
                                  struct sl_cancel_reply *reply)
{
    enum sl_err err = SL_OK;

    reply->next = request->from;
    reply->cancelled = 0;
    reply->was_delayed = 0;
    reply->leased_count = 0;
    for (size_t i = 0; i < SL_DELETE_SLICE && reply->next <= request->to; i++) {
        err = cancel_one(store, request, reply);
        if (err != SL_OK) {
            break;
        }
        reply->next++;
    }
    if (err == SL_ERR_NOT_FOUND) { /* behind the job's last task */
        reply->next = request->to + 1;
        return SL_OK;
    }
    return err;
}

/* ---- purge
 * ---------------------------------------------------------------------------------------- */

static void purge_key(struct sl_key *key, uint32_t job)
{
    memcpy(key->bytes, PURGE_PREFIX, PURGE_PREFIX_BYTES);
    sl_put_be32(key->bytes + PURGE_PREFIX_BYTES, job);
    key->len = PURGE_PREFIX_BYTES + 4;
}

static enum sl_err begin_purge(struct sl_store *store, struct sl_cached_job *entry)
{
    struct sl_key key;
    const struct sl_job_rec *rec = &entry->rec;

    if (rec->completed + rec->failed + rec->cancelled + rec->expired != rec->next_idx) {
        return SL_ERR_CONFLICT;
    }
    entry->rec.flags |= SL_JOB_FLAG_PURGING;
    entry->is_dirty = true;
    purge_key(&key, entry->job);
    enum sl_err err = sl_db_put(store, SL_DB_META, &key, sl_span_of("", 0));
    if (err != SL_OK) {
        return err;
    }
    sl_key_named(&key, entry->rec.uid, sl_span_str(entry->name));
    err = sl_db_del(store, SL_DB_NAMES, &key);
    return err == SL_ERR_NOT_FOUND ? sl_db_fail(store, "job name", MDB_CORRUPTED) : err;
}

/* Deletes records whose key starts with the job's number; *left goes down with each. */
static enum sl_err delete_of_job(struct sl_store *store, enum sl_db db, uint32_t job, size_t *left)
{
    struct sl_db_cursor cursor;
    struct sl_key from;

    sl_key_u32(&from, job);
    enum sl_err err = sl_db_seek(store, db, &from, &cursor);
    while (err == SL_OK && *left > 0) {
        if (cursor.key.len < 4 || sl_get_be32(cursor.key.ptr) != job) {
            err = SL_ERR_NOT_FOUND;
            break;
        }
        err = sl_db_del_current(store, &cursor);
        (*left)--;
        if (err == SL_OK) {
            err = sl_db_next(store, &cursor);
        }
    }
    sl_db_cursor_end(&cursor);
    return err == SL_ERR_NOT_FOUND ? SL_OK : err;
}

static enum sl_err end_purge(struct sl_store *store, struct sl_cached_job *entry)
{
    struct sl_key key;
    uint32_t job = entry->job;

    *entry = (struct sl_cached_job){0}; /* nothing of it is to be written back */
    sl_key_u32(&key, job);
    enum sl_err err = sl_db_del(store, SL_DB_JOBS, &key);
    if (err == SL_OK) {
        purge_key(&key, job);
        err = sl_db_del(store, SL_DB_META, &key);
    }
    return err == SL_ERR_NOT_FOUND ? sl_db_fail(store, "job record", MDB_CORRUPTED) : err;
}

enum sl_err sl_store_purge_slice(struct sl_store *store, uint32_t job, bool *done)
{
    static const enum sl_db dbs[] = {SL_DB_IDS, SL_DB_TASKS, SL_DB_BLOBS, SL_DB_RESULTS,
                                     SL_DB_DONE};
    struct sl_cached_job *entry;
    size_t left = SL_DELETE_SLICE;
    enum sl_err err = sl_store_job(store, job, &entry);

    *done = false;
    if (err == SL_OK && (entry->rec.flags & SL_JOB_FLAG_PURGING) == 0) {
        err = begin_purge(store, entry);
    }
    for (size_t i = 0; err == SL_OK && i < SL_ARRAY_LEN(dbs) && left > 0; i++) {
        err = delete_of_job(store, dbs[i], job, &left);
    }
    if (err != SL_OK || left == 0) {
        return err;
    }
    *done = true;
    return end_purge(store, entry);
}

enum sl_err sl_store_next_purge(struct sl_store *store, uint32_t *job)
{
    struct sl_db_cursor cursor;
    struct sl_key from;

    purge_key(&from, 0);
    enum sl_err err = sl_db_seek(store, SL_DB_META, &from, &cursor);
    if (err == SL_OK && (cursor.key.len != from.len ||
                         memcmp(cursor.key.ptr, PURGE_PREFIX, PURGE_PREFIX_BYTES) != 0)) {
        err = SL_ERR_NOT_FOUND;
    }
    if (err == SL_OK) {
        *job = sl_get_be32(cursor.key.ptr + PURGE_PREFIX_BYTES);
    }
    sl_db_cursor_end(&cursor);
    return err;
}
