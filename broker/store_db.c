/*
 * Keys, and thin wrappers around LMDB's get, put, delete and cursors.
 *
 * Runs on the broker's store thread (and in start-up before it exists). Never begins or ends a
 * transaction; never decides anything about tasks. Every LMDB return code that is not an answer
 * ends as SL_ERR_STORE with a message that names the operation.
 */
#include "broker/store_internal.h"

#include <stdio.h>

#include "common/check.h"

/* ---- keys ------------------------------------------------------------------------------------ */

void sl_key_u32(struct sl_key *key, uint32_t number)
{
    sl_put_be32(key->bytes, number);
    key->len = 4;
}

void sl_key_u64(struct sl_key *key, uint64_t number)
{
    sl_put_be64(key->bytes, number);
    key->len = 8;
}

void sl_key_u64_u64(struct sl_key *key, uint64_t first, uint64_t second)
{
    sl_put_be64(key->bytes, first);
    sl_put_be64(key->bytes + 8, second);
    key->len = 16;
}

void sl_key_named(struct sl_key *key, uint32_t number, struct sl_span name)
{
    SL_ASSERT(name.len <= sizeof(key->bytes) - 4);
    sl_put_be32(key->bytes, number);
    memcpy(key->bytes + 4, name.ptr, name.len);
    key->len = 4 + name.len;
}

void sl_key_ready(struct sl_key *key, uint32_t supply, uint32_t priority, uint64_t task)
{
    SL_ASSERT(priority <= SL_PRIORITY_MAX);
    sl_put_be32(key->bytes, supply);
    key->bytes[4] = (char)(SL_PRIORITY_MAX - priority); /* higher priority sorts first */
    sl_put_be64(key->bytes + 5, task);
    key->len = 13;
}

void sl_key_done(struct sl_key *key, uint32_t job, uint64_t number)
{
    sl_put_be32(key->bytes, job);
    sl_put_be64(key->bytes + 4, number);
    key->len = 12;
}

void sl_key_blob(struct sl_key *key, uint64_t task, enum sl_blob_kind kind, uint32_t chunk)
{
    sl_put_be64(key->bytes, task);
    key->bytes[8] = (char)kind;
    sl_put_be32(key->bytes + 9, chunk);
    key->len = 13;
}

/* ---- values ---------------------------------------------------------------------------------- */

enum sl_err sl_db_fail(struct sl_store *store, const char *what, int rc)
{
    snprintf(store->message, sizeof(store->message), "%s: %s", what, mdb_strerror(rc));
    return SL_ERR_STORE;
}

static MDB_val val_of(const void *ptr, size_t len)
{
    return (MDB_val){.mv_size = len, .mv_data = (void *)(uintptr_t)ptr};
}

enum sl_err sl_db_get(struct sl_store *store, enum sl_db db, const struct sl_key *key,
                      struct sl_span *value)
{
    MDB_val k = val_of(key->bytes, key->len);
    MDB_val v;
    int rc = mdb_get(store->txn, store->dbi[db], &k, &v);

    if (rc == MDB_NOTFOUND) {
        return SL_ERR_NOT_FOUND;
    }
    if (rc != 0) {
        return sl_db_fail(store, "get", rc);
    }
    *value = sl_span_of(v.mv_data, v.mv_size);
    return SL_OK;
}

enum sl_err sl_db_put(struct sl_store *store, enum sl_db db, const struct sl_key *key,
                      struct sl_span value)
{
    MDB_val k = val_of(key->bytes, key->len);
    MDB_val v = val_of(value.ptr, value.len);

    SL_ASSERT(value.len <= SL_VALUE_BYTES_MAX);
    store->is_dirty = true;
    int rc = mdb_put(store->txn, store->dbi[db], &k, &v, 0);
    return rc == 0 ? SL_OK : sl_db_fail(store, "put", rc);
}

enum sl_err sl_db_put_new(struct sl_store *store, enum sl_db db, const struct sl_key *key,
                          struct sl_span value, struct sl_span *existing)
{
    MDB_val k = val_of(key->bytes, key->len);
    MDB_val v = val_of(value.ptr, value.len);

    SL_ASSERT(value.len <= SL_VALUE_BYTES_MAX);
    int rc = mdb_put(store->txn, store->dbi[db], &k, &v, MDB_NOOVERWRITE);
    if (rc == MDB_KEYEXIST) {
        *existing = sl_span_of(v.mv_data, v.mv_size);
        return SL_ERR_CONFLICT;
    }
    store->is_dirty = true;
    return rc == 0 ? SL_OK : sl_db_fail(store, "put", rc);
}

enum sl_err sl_db_reserve(struct sl_store *store, enum sl_db db, const struct sl_key *key,
                          size_t len, char **out)
{
    MDB_val k = val_of(key->bytes, key->len);
    MDB_val v = {.mv_size = len, .mv_data = NULL};

    SL_ASSERT(len <= SL_VALUE_BYTES_MAX);
    store->is_dirty = true;
    int rc = mdb_put(store->txn, store->dbi[db], &k, &v, MDB_RESERVE | MDB_NOOVERWRITE);
    SL_ASSERT(rc != MDB_KEYEXIST); /* numbers are given out once */
    if (rc != 0) {
        return sl_db_fail(store, "put", rc);
    }
    *out = v.mv_data;
    return SL_OK;
}

enum sl_err sl_db_del(struct sl_store *store, enum sl_db db, const struct sl_key *key)
{
    MDB_val k = val_of(key->bytes, key->len);
    int rc = mdb_del(store->txn, store->dbi[db], &k, NULL);

    if (rc == MDB_NOTFOUND) {
        return SL_ERR_NOT_FOUND;
    }
    store->is_dirty = true;
    return rc == 0 ? SL_OK : sl_db_fail(store, "delete", rc);
}

/* ---- cursors --------------------------------------------------------------------------------- */

static enum sl_err move_cursor(struct sl_store *store, struct sl_db_cursor *cursor, MDB_val *k,
                               MDB_cursor_op op)
{
    MDB_val v;
    int rc = mdb_cursor_get(cursor->cursor, k, &v, op);

    if (rc == MDB_NOTFOUND) {
        return SL_ERR_NOT_FOUND;
    }
    if (rc != 0) {
        return sl_db_fail(store, "read", rc);
    }
    cursor->key = sl_span_of(k->mv_data, k->mv_size);
    cursor->value = sl_span_of(v.mv_data, v.mv_size);
    return SL_OK;
}

enum sl_err sl_db_seek(struct sl_store *store, enum sl_db db, const struct sl_key *from,
                       struct sl_db_cursor *cursor)
{
    MDB_val k = val_of(from->bytes, from->len);

    memset(cursor, 0, sizeof(*cursor));
    int rc = mdb_cursor_open(store->txn, store->dbi[db], &cursor->cursor);
    if (rc != 0) {
        return sl_db_fail(store, "open cursor", rc);
    }
    return move_cursor(store, cursor, &k, from->len == 0 ? MDB_FIRST : MDB_SET_RANGE);
}

enum sl_err sl_db_next(struct sl_store *store, struct sl_db_cursor *cursor)
{
    MDB_val k = {0};

    return move_cursor(store, cursor, &k, MDB_NEXT);
}

enum sl_err sl_db_prev(struct sl_store *store, struct sl_db_cursor *cursor)
{
    MDB_val k = {0};
    bool is_placed = cursor->key.len > 0;

    return move_cursor(store, cursor, &k, is_placed ? MDB_PREV : MDB_LAST);
}

enum sl_err sl_db_del_current(struct sl_store *store, struct sl_db_cursor *cursor)
{
    int rc = mdb_cursor_del(cursor->cursor, 0);

    store->is_dirty = true;
    return rc == 0 ? SL_OK : sl_db_fail(store, "delete", rc);
}

void sl_db_cursor_end(struct sl_db_cursor *cursor)
{
    if (cursor->cursor != NULL) {
        mdb_cursor_close(cursor->cursor);
        cursor->cursor = NULL;
    }
}
