/*
 * Jobs: names, counts, and the per-transaction cache that writes each changed job once.
 *
 * Runs on the broker's store thread. A job belongs to a user (uid); its name is unique among that
 * user's jobs. Numbers are never given out twice.
 */
#include <inttypes.h>
#include <stdio.h>

#include "broker/store_internal.h"
#include "common/check.h"

static enum sl_err load_job(struct sl_store *store, uint32_t job, struct sl_cached_job *out)
{
    struct sl_key key;
    struct sl_span value;

    sl_key_u32(&key, job);
    enum sl_err err = sl_db_get(store, SL_DB_JOBS, &key, &value);
    if (err != SL_OK) {
        return err;
    }
    if (value.len < sizeof(out->rec) || value.len - sizeof(out->rec) > SL_NAME_BYTES_MAX) {
        return sl_db_fail(store, "job record", MDB_CORRUPTED);
    }
    memcpy(&out->rec, value.ptr, sizeof(out->rec));
    struct sl_span name = sl_span_of(value.ptr + sizeof(out->rec), value.len - sizeof(out->rec));
    bool fits = sl_span_copy_str(out->name, sizeof(out->name), name);
    SL_ASSERT(fits);
    out->job = job;
    out->is_dirty = false;
    return SL_OK;
}

static enum sl_err write_job(struct sl_store *store, const struct sl_cached_job *entry)
{
    struct sl_key key;
    size_t name_len = strlen(entry->name);

    memcpy(store->value, &entry->rec, sizeof(entry->rec));
    memcpy(store->value + sizeof(entry->rec), entry->name, name_len);
    sl_key_u32(&key, entry->job);
    return sl_db_put(store, SL_DB_JOBS, &key,
                     sl_span_of(store->value, sizeof(entry->rec) + name_len));
}

enum sl_err sl_store_flush_jobs(struct sl_store *store)
{
    for (size_t i = 0; i < store->job_count; i++) {
        if (store->jobs[i].is_dirty) {
            enum sl_err err = write_job(store, &store->jobs[i]);
            if (err != SL_OK) {
                return err;
            }
            store->jobs[i].is_dirty = false;
        }
    }
    return SL_OK;
}

enum sl_err sl_store_job(struct sl_store *store, uint32_t job, struct sl_cached_job **out)
{
    for (size_t i = 0; i < store->job_count; i++) {
        if (store->jobs[i].job == job) {
            *out = &store->jobs[i];
            return SL_OK;
        }
    }
    if (store->job_count == SL_JOB_CACHE_MAX) {
        enum sl_err err = sl_store_flush_jobs(store);
        if (err != SL_OK) {
            return err;
        }
        store->job_count = 0;
    }
    enum sl_err err = load_job(store, job, &store->jobs[store->job_count]);
    if (err != SL_OK) {
        return err;
    }
    *out = &store->jobs[store->job_count++];
    return SL_OK;
}

static void fill_info(const struct sl_cached_job *entry, struct sl_job_info *out)
{
    *out = (struct sl_job_info){
        .job = entry->job,
        .uid = entry->rec.uid,
        .total = entry->rec.next_idx,
        .completed = entry->rec.completed,
        .failed = entry->rec.failed,
        .cancelled = entry->rec.cancelled,
        .expired = entry->rec.expired,
        .created_ms = entry->rec.created_ms,
        .is_purging = (entry->rec.flags & SL_JOB_FLAG_PURGING) != 0,
    };
    memcpy(out->name, entry->name, sizeof(out->name));
}

enum sl_err sl_store_get_job(struct sl_store *store, uint32_t job, struct sl_job_info *out)
{
    struct sl_cached_job *entry;
    enum sl_err err = sl_store_job(store, job, &entry);

    if (err == SL_OK) {
        fill_info(entry, out);
    }
    return err;
}

/* Takes the next job number; for a job without a name one that gives a name nobody has. */
static enum sl_err take_number(struct sl_store *store, const struct sl_job_request *request,
                               struct sl_cached_job *entry)
{
    struct sl_key key;
    struct sl_span value;
    enum sl_err err = SL_OK;

    while (err == SL_OK && store->counters.next_job <= UINT32_MAX) {
        entry->job = (uint32_t)store->counters.next_job++;
        if (request->name.len > 0) {
            return sl_span_copy_str(entry->name, sizeof(entry->name), request->name) ? SL_OK
                                                                                     : SL_ERR_INPUT;
        }
        snprintf(entry->name, sizeof(entry->name), "job-%" PRIu32, entry->job);
        sl_key_named(&key, request->uid, sl_span_str(entry->name));
        err = sl_db_get(store, SL_DB_NAMES, &key, &value);
    }
    if (err == SL_ERR_NOT_FOUND) {
        return SL_OK;
    }
    return err == SL_OK ? SL_ERR_OVERLOADED : err;
}

static enum sl_err create_job(struct sl_store *store, const struct sl_job_request *request,
                              struct sl_job_info *out)
{
    struct sl_cached_job entry = {
        .rec = {.version = SL_RECORD_VERSION, .uid = request->uid, .created_ms = request->now_ms}};
    struct sl_key key;
    char number[4];
    enum sl_err err = take_number(store, request, &entry);

    if (err == SL_OK) {
        err = write_job(store, &entry);
    }
    if (err != SL_OK) {
        return err;
    }
    sl_put_be32(number, entry.job);
    sl_key_named(&key, request->uid, sl_span_str(entry.name));
    err = sl_db_put(store, SL_DB_NAMES, &key, sl_span_of(number, sizeof(number)));
    if (err == SL_OK) {
        fill_info(&entry, out);
    }
    return err;
}

enum sl_err sl_store_open_job(struct sl_store *store, const struct sl_job_request *request,
                              struct sl_job_info *out)
{
    struct sl_key key;
    struct sl_span value;

    if (request->name.len > SL_NAME_BYTES_MAX) {
        return SL_ERR_INPUT;
    }
    if (request->name.len == 0) {
        return create_job(store, request, out);
    }
    sl_key_named(&key, request->uid, request->name);
    enum sl_err err = sl_db_get(store, SL_DB_NAMES, &key, &value);
    if (err == SL_ERR_NOT_FOUND && request->may_create) {
        return create_job(store, request, out);
    }
    if (err != SL_OK) {
        return err;
    }
    if (value.len != 4) {
        return sl_db_fail(store, "job name", MDB_CORRUPTED);
    }
    err = sl_store_get_job(store, sl_get_be32(value.ptr), out);
    return err == SL_ERR_NOT_FOUND ? sl_db_fail(store, "job of a name", MDB_CORRUPTED) : err;
}

/* What this transaction changed is written first, to be seen as it is now. */
static enum sl_err seek_below(struct sl_store *store, uint32_t below, struct sl_db_cursor *cursor)
{
    struct sl_key key;
    enum sl_err err = sl_store_flush_jobs(store);

    if (err != SL_OK) {
        return err;
    }
    sl_key_u32(&key, below);
    err = sl_db_seek(store, SL_DB_JOBS, &key, cursor);
    return err == SL_OK || err == SL_ERR_NOT_FOUND ? sl_db_prev(store, cursor) : err;
}

static bool is_shown(const struct sl_cached_job *entry, uint32_t uid, bool is_admin)
{
    return (is_admin || entry->rec.uid == uid) && (entry->rec.flags & SL_JOB_FLAG_PURGING) == 0;
}

enum sl_err sl_store_previous_job(struct sl_store *store, uint32_t uid, bool is_admin,
                                  uint32_t *below, struct sl_job_info *out)
{
    struct sl_db_cursor cursor = {0};
    struct sl_cached_job entry;
    enum sl_err err = seek_below(store, *below, &cursor);

    while (err == SL_OK) {
        uint32_t job = cursor.key.len == 4 ? sl_get_be32(cursor.key.ptr) : 0;
        err = load_job(store, job, &entry);
        if (err == SL_OK && is_shown(&entry, uid, is_admin)) {
            fill_info(&entry, out);
            *below = job;
            break;
        }
        err = err == SL_OK ? sl_db_prev(store, &cursor) : err;
    }
    sl_db_cursor_end(&cursor);
    return err;
}
