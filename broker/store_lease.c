/*
 * The ledger of calls that may be running, and what a restart makes of it.
 *
 * Runs on the broker's store thread (and at start-up before it exists). A lease is one record for a
 * batch of calls; it is written before any of them is handed out and goes when the last one has
 * ended. How many are left is kept in memory and counted anew at start. Work at start is in
 * proportion to what was in flight.
 */
#include "broker/store_internal.h"
#include "common/check.h"

/* ---- how many calls of a lease are left
 * ---------------------------------------------------------- */

static size_t lease_slot(const struct sl_store *store, uint64_t lease)
{
    size_t slot =
        (size_t)lease & (SL_LEASE_TABLE_MAX - 1); /* numbers in sequence spread by themselves */

    while (store->leases[slot].lease != 0 && store->leases[slot].lease != lease) {
        slot = (slot + 1) & (SL_LEASE_TABLE_MAX - 1);
    }
    return slot;
}

void sl_lease_add(struct sl_store *store, uint64_t lease, uint32_t count)
{
    size_t slot = lease_slot(store, lease);

    SL_ASSERT(count > 0);
    SL_ASSERT(store->leases[slot].lease == 0);
    SL_ASSERT(store->lease_count < SL_LEASE_TABLE_MAX / 2);
    store->leases[slot] = (struct sl_lease_left){.lease = lease, .left = count};
    store->lease_count++;
}

/* Linear probing without tombstones: what stands behind the hole and belongs before it moves up. */
static void remove_slot(struct sl_store *store, size_t hole)
{
    const size_t mask = SL_LEASE_TABLE_MAX - 1;
    size_t at = (hole + 1) & mask;

    while (store->leases[at].lease != 0) {
        size_t home = (size_t)store->leases[at].lease & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            store->leases[hole] = store->leases[at];
            hole = at;
        }
        at = (at + 1) & mask;
    }
    store->leases[hole] = (struct sl_lease_left){0};
    store->lease_count--;
}

enum sl_err sl_lease_end_one(struct sl_store *store, uint64_t lease)
{
    struct sl_key key;
    size_t slot = lease_slot(store, lease);

    SL_ASSERT(store->leases[slot].lease == lease);
    SL_ASSERT(store->leases[slot].left > 0);
    store->leases[slot].left--;
    if (store->leases[slot].left > 0) {
        return SL_OK;
    }
    remove_slot(store, slot);
    sl_key_u64(&key, lease);
    enum sl_err err = sl_db_del(store, SL_DB_LEASES, &key);
    return err == SL_ERR_NOT_FOUND ? sl_db_fail(store, "lease record", MDB_CORRUPTED) : err;
}

/* ---- what a restart finds
 * ------------------------------------------------------------------------ */

static enum sl_err stands_in(struct sl_store *store, enum sl_db db, const struct sl_key *key,
                             bool *found)
{
    struct sl_span value;
    enum sl_err err = sl_db_get(store, db, key, &value);

    *found = *found || err == SL_OK;
    return err == SL_ERR_NOT_FOUND ? SL_OK : err;
}

/* Does the task of this entry stand in another index? Then its call has ended. */
static enum sl_err has_ended(struct sl_store *store, const struct sl_lease_rec *entry, bool *ended)
{
    struct sl_key key;
    enum sl_err err;

    *ended = false;
    sl_key_u64(&key, entry->task);
    err = stands_in(store, SL_DB_RESULTS, &key, ended);
    if (err == SL_OK) {
        err = stands_in(store, SL_DB_WAITS, &key, ended);
    }
    if (err == SL_OK) {
        sl_key_ready(&key, entry->supply, entry->priority, entry->task);
        err = stands_in(store, SL_DB_READY, &key, ended);
    }
    if (err == SL_OK && !*ended) { /* forgotten since: purged */
        bool is_there = false;
        sl_key_u64(&key, entry->task);
        err = stands_in(store, SL_DB_TASKS, &key, &is_there);
        *ended = !is_there;
    }
    return err;
}

struct orphan_walk {
    bool (*visit)(void *ctx, const struct sl_orphan *orphan);
    void *ctx;
    uint32_t left; /* orphans of the lease at hand */
};

static enum sl_err visit_entry(struct sl_store *store, uint64_t lease,
                               const struct sl_lease_rec *entry, struct orphan_walk *walk)
{
    bool ended;
    enum sl_err err = has_ended(store, entry, &ended);

    if (err != SL_OK || ended) {
        return err;
    }
    struct sl_orphan orphan = {
        .task = entry->task,
        .lease = lease,
        .supply = entry->supply,
        .attempt = entry->attempt,
        .deaths = entry->deaths,
        .max_attempts = entry->max_attempts,
        .priority = entry->priority,
        .flags = entry->flags,
    };
    if (walk->visit(walk->ctx, &orphan)) {
        walk->left++; /* false: seen already under a later lease */
    }
    return SL_OK;
}

static enum sl_err visit_lease(struct sl_store *store, uint64_t lease, struct sl_span value,
                               struct orphan_walk *walk)
{
    struct sl_lease_rec entries[SL_LEASE_ENTRIES_MAX];
    size_t count = value.len / sizeof(entries[0]);
    enum sl_err err = SL_OK;

    if (count == 0 || count > SL_LEASE_ENTRIES_MAX || value.len % sizeof(entries[0]) != 0) {
        return sl_db_fail(store, "lease record", MDB_CORRUPTED);
    }
    memcpy(entries, value.ptr, value.len);
    walk->left = 0;
    for (size_t i = 0; err == SL_OK && i < count; i++) {
        err = visit_entry(store, lease, &entries[i], walk);
    }
    if (err == SL_OK && walk->left > 0) {
        sl_lease_add(store, lease, walk->left);
    }
    return err;
}

enum sl_err sl_store_each_orphan(struct sl_store *store,
                                 bool (*visit)(void *ctx, const struct sl_orphan *orphan),
                                 void *ctx)
{
    struct orphan_walk walk = {.visit = visit, .ctx = ctx};
    struct sl_db_cursor cursor;
    struct sl_key last;

    sl_key_u64(&last, UINT64_MAX);
    enum sl_err err = sl_db_seek(store, SL_DB_LEASES, &last, &cursor);
    if (err == SL_ERR_NOT_FOUND) {
        err = sl_db_prev(store, &cursor);
    }
    while (err == SL_OK) {
        if (cursor.key.len != 8) {
            err = sl_db_fail(store, "lease key", MDB_CORRUPTED);
            break;
        }
        err = visit_lease(store, sl_get_be64(cursor.key.ptr), cursor.value, &walk);
        if (err == SL_OK && walk.left == 0) {
            err = sl_db_del_current(store, &cursor);
        }
        if (err == SL_OK) {
            err = sl_db_prev(store, &cursor);
        }
    }
    sl_db_cursor_end(&cursor);
    return err == SL_ERR_NOT_FOUND ? SL_OK : err;
}

/* ---- workers of the last run
 * ----------------------------------------------------------------------- */

#define WORKER_PREFIX "worker"
#define WORKER_PREFIX_BYTES (sizeof(WORKER_PREFIX) - 1)

static void worker_key(struct sl_key *key, uint32_t pid)
{
    memcpy(key->bytes, WORKER_PREFIX, WORKER_PREFIX_BYTES);
    sl_put_be32(key->bytes + WORKER_PREFIX_BYTES, pid);
    key->len = WORKER_PREFIX_BYTES + 4;
}

enum sl_err sl_store_put_worker(struct sl_store *store, const struct sl_worker_rec *worker)
{
    struct sl_key key;

    worker_key(&key, worker->pid);
    return sl_db_put(store, SL_DB_META, &key, sl_span_of(worker, sizeof(*worker)));
}

enum sl_err sl_store_drop_worker(struct sl_store *store, uint32_t pid)
{
    struct sl_key key;

    worker_key(&key, pid);
    enum sl_err err = sl_db_del(store, SL_DB_META, &key);
    return err == SL_ERR_NOT_FOUND ? SL_OK : err;
}

enum sl_err sl_store_each_worker(struct sl_store *store,
                                 void (*visit)(void *ctx, const struct sl_worker_rec *worker),
                                 void *ctx)
{
    struct sl_db_cursor cursor;
    struct sl_key first;
    struct sl_worker_rec worker;

    worker_key(&first, 0);
    enum sl_err err = sl_db_seek(store, SL_DB_META, &first, &cursor);
    while (err == SL_OK && cursor.key.len == first.len &&
           memcmp(cursor.key.ptr, WORKER_PREFIX, WORKER_PREFIX_BYTES) == 0) {
        if (cursor.value.len == sizeof(worker)) {
            memcpy(&worker, cursor.value.ptr, sizeof(worker));
            visit(ctx, &worker);
        }
        err = sl_db_next(store, &cursor);
    }
    sl_db_cursor_end(&cursor);
    return err == SL_ERR_NOT_FOUND ? SL_OK : err;
}
