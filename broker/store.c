/*
 * The store's life: open, transactions, counters, the start-up readers.
 *
 * Opened by the broker's main thread before any other thread exists, then used by the store thread
 * alone. LMDB's default durability is kept: a commit that returned is on the disk. Never used
 * across fork (the broker forks nobody). What survives a crash: everything here; a transaction is
 * whole or absent.
 */
#include "broker/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/store_internal.h"
#include "common/check.h"
#include "common/hash.h"

#define STORE_MAGIC UINT32_C(0x51c0de01)
#define MAP_BYTES_MIN (64 * SL_MIB)
#define COUNTERS_KEY "counters"

static const char *const db_names[SL_DB_COUNT] = {
    [SL_DB_META] = "meta",         [SL_DB_NAMES] = "names",     [SL_DB_JOBS] = "jobs",
    [SL_DB_IDS] = "ids",           [SL_DB_TASKS] = "tasks",     [SL_DB_BLOBS] = "blobs",
    [SL_DB_READY] = "ready",       [SL_DB_DELAYED] = "delayed", [SL_DB_WAITS] = "waits",
    [SL_DB_LEASES] = "leases",     [SL_DB_RESULTS] = "results", [SL_DB_DONE] = "done",
    [SL_DB_SUPPLIES] = "supplies",
};

/* ---- open and close -------------------------------------------------------------------------- */

/* The map is address space, not memory. Where a terabyte of it is not to be had (limits,
 * sanitizers), the largest half, quarter ... that is. */
static int open_env(struct sl_store *store, const char *dir)
{
    int rc = ENOMEM;

    for (size_t map = SL_MAP_BYTES; map >= MAP_BYTES_MIN; map /= 2) {
        rc = mdb_env_create(&store->env);
        if (rc != 0) {
            return rc;
        }
        mdb_env_set_maxdbs(store->env, SL_DB_COUNT);
        mdb_env_set_mapsize(store->env, map);
        rc = mdb_env_open(store->env, dir, MDB_NOTLS, 0600);
        if (rc == 0) {
            return 0;
        }
        mdb_env_close(store->env);
        store->env = NULL;
        if (rc != ENOMEM && rc != EINVAL) {
            return rc;
        }
    }
    return rc;
}

static enum sl_err open_dbs(struct sl_store *store)
{
    for (size_t i = 0; i < SL_DB_COUNT; i++) {
        int rc = mdb_dbi_open(store->txn, db_names[i], MDB_CREATE, &store->dbi[i]);
        if (rc != 0) {
            return sl_db_fail(store, "open database", rc);
        }
    }
    store->is_dirty = true;
    return SL_OK;
}

static void meta_key(struct sl_key *key, const char *name)
{
    key->len = strlen(name);
    memcpy(key->bytes, name, key->len);
}

static uint64_t counters_hash(const struct sl_counters_rec *rec)
{
    return sl_hash64(rec, offsetof(struct sl_counters_rec, hash), 0);
}

static enum sl_err load_counters(struct sl_store *store)
{
    struct sl_key key;
    struct sl_span value;

    meta_key(&key, COUNTERS_KEY);
    enum sl_err err = sl_db_get(store, SL_DB_META, &key, &value);
    if (err == SL_ERR_NOT_FOUND) {
        store->counters = (struct sl_counters_rec){.version = SL_RECORD_VERSION,
                                                   .format = SL_STORE_FORMAT,
                                                   .next_job = 1,
                                                   .next_lease = 1};
        return SL_OK;
    }
    if (err != SL_OK) {
        return err;
    }
    if (value.len >= 8) {
        memcpy(&store->counters, value.ptr, 8);
        if (store->counters.format > SL_STORE_FORMAT) {
            return SL_ERR_STORE_FORMAT;
        }
    }
    if (value.len != sizeof(store->counters)) {
        return sl_db_fail(store, "counters record", MDB_CORRUPTED);
    }
    memcpy(&store->counters, value.ptr, sizeof(store->counters));
    return store->counters.hash == counters_hash(&store->counters)
               ? SL_OK
               : sl_db_fail(store, "counters record", MDB_CORRUPTED);
}

static enum sl_err open_contents(struct sl_store *store)
{
    enum sl_err err = sl_store_begin(store);

    if (err != SL_OK) {
        return err;
    }
    err = open_dbs(store);
    if (err == SL_OK) {
        err = load_counters(store);
    }
    if (err != SL_OK) {
        sl_store_abort(store);
        return err;
    }
    store->counters.generation++;
    return sl_store_commit(store);
}

enum sl_err sl_store_open(const char *dir, struct sl_store **out, char *message,
                          size_t message_size)
{
    struct sl_store *store = calloc(1, sizeof(*store));
    enum sl_err err;

    if (store == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    store->magic = STORE_MAGIC;
    store->leases = calloc(SL_LEASE_TABLE_MAX, sizeof(*store->leases));
    int rc = store->leases == NULL ? ENOMEM : open_env(store, dir);
    if (rc != 0) {
        err = rc == EACCES ? SL_ERR_PERMISSION : sl_db_fail(store, "open", rc);
    } else {
        err = open_contents(store);
    }
    if (err == SL_OK) {
        *out = store;
        return SL_OK;
    }
    snprintf(message, message_size, "%s: %s", dir,
             store->message[0] != '\0' ? store->message : sl_err_meaning(err));
    sl_store_close(&store);
    return err;
}

void sl_store_close(struct sl_store **store)
{
    struct sl_store *old = *store;

    SL_ASSERT(old->magic == STORE_MAGIC);
    sl_store_abort(old);
    if (old->env != NULL) {
        mdb_env_close(old->env);
    }
    free(old->leases);
    free(old->scratch);
    old->magic = 0;
    free(old);
    *store = NULL;
}

const char *sl_store_message(const struct sl_store *store)
{
    return store->message;
}

/* ---- transactions ---------------------------------------------------------------------------- */

enum sl_err sl_store_begin(struct sl_store *store)
{
    SL_ASSERT(store->magic == STORE_MAGIC);
    SL_ASSERT(store->txn == NULL);
    int rc = mdb_txn_begin(store->env, NULL, 0, &store->txn);
    store->is_dirty = false;
    store->job_count = 0;
    if (rc != 0) {
        store->txn = NULL;
        return sl_db_fail(store, "begin", rc);
    }
    return SL_OK;
}

static enum sl_err flush_counters(struct sl_store *store)
{
    struct sl_key key;

    meta_key(&key, COUNTERS_KEY);
    store->counters.hash = counters_hash(&store->counters);
    return sl_db_put(store, SL_DB_META, &key,
                     sl_span_of(&store->counters, sizeof(store->counters)));
}

enum sl_err sl_store_commit(struct sl_store *store)
{
    SL_ASSERT(store->txn != NULL);
    if (!store->is_dirty) {
        sl_store_abort(store);
        return SL_OK;
    }
    enum sl_err err = sl_store_flush_jobs(store);
    if (err == SL_OK) {
        err = flush_counters(store);
    }
    if (err != SL_OK) {
        sl_store_abort(store);
        return err;
    }
    int rc = mdb_txn_commit(store->txn); /* frees the transaction, whatever it returns */
    store->txn = NULL;
    store->job_count = 0;
    sl_blob_release_scratch(store);
    return rc == 0 ? SL_OK : sl_db_fail(store, "commit", rc);
}

void sl_store_abort(struct sl_store *store)
{
    if (store->txn != NULL) {
        mdb_txn_abort(store->txn);
        store->txn = NULL;
    }
    store->job_count = 0;
    sl_blob_release_scratch(store);
}

bool sl_store_is_dirty(const struct sl_store *store)
{
    return store->is_dirty;
}

const struct sl_counters_rec *sl_store_counters(const struct sl_store *store)
{
    return &store->counters;
}

/* ---- start-up -------------------------------------------------------------------------------- */

enum sl_err sl_store_each_supply(struct sl_store *store,
                                 void (*visit)(void *ctx, const struct sl_supply_info *info),
                                 void *ctx)
{
    struct sl_db_cursor cursor;
    struct sl_key first = {0};
    enum sl_err err = sl_db_seek(store, SL_DB_SUPPLIES, &first, &cursor);

    while (err == SL_OK) {
        struct sl_supply_rec rec;
        if (cursor.key.len != 4 || cursor.value.len < sizeof(rec)) {
            err = sl_db_fail(store, "supply record", MDB_CORRUPTED);
            break;
        }
        memcpy(&rec, cursor.value.ptr, sizeof(rec));
        if (cursor.value.len != sizeof(rec) + rec.provider_bytes + rec.model_bytes) {
            err = sl_db_fail(store, "supply record", MDB_CORRUPTED);
            break;
        }
        const char *strings = cursor.value.ptr + sizeof(rec);
        struct sl_supply_info info = {
            .supply = sl_get_be32(cursor.key.ptr),
            .uid = rec.uid,
            .provider = sl_span_of(strings, rec.provider_bytes),
            .model = sl_span_of(strings + rec.provider_bytes, rec.model_bytes),
        };
        visit(ctx, &info);
        err = sl_db_next(store, &cursor);
    }
    sl_db_cursor_end(&cursor);
    return err == SL_ERR_NOT_FOUND ? SL_OK : err;
}

enum sl_err sl_store_count_delayed(struct sl_store *store, uint64_t *count)
{
    MDB_stat stat;
    int rc = mdb_stat(store->txn, store->dbi[SL_DB_WAITS], &stat);

    if (rc != 0) {
        return sl_db_fail(store, "count", rc);
    }
    *count = stat.ms_entries;
    return SL_OK;
}

enum sl_err sl_store_put_supply(struct sl_store *store, const struct sl_supply_info *info)
{
    struct sl_key key;
    struct sl_supply_rec rec = {
        .version = SL_RECORD_VERSION,
        .uid = info->uid,
        .provider_bytes = (uint16_t)info->provider.len,
        .model_bytes = (uint16_t)info->model.len,
    };

    SL_ASSERT(info->provider.len <= SL_NAME_BYTES_MAX && info->model.len <= SL_NAME_BYTES_MAX);
    memcpy(store->value, &rec, sizeof(rec));
    memcpy(store->value + sizeof(rec), info->provider.ptr, info->provider.len);
    if (info->model.len > 0) {
        memcpy(store->value + sizeof(rec) + info->provider.len, info->model.ptr, info->model.len);
    }
    sl_key_u32(&key, info->supply);
    size_t len = sizeof(rec) + info->provider.len + info->model.len;
    return sl_db_put(store, SL_DB_SUPPLIES, &key, sl_span_of(store->value, len));
}
