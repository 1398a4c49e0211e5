#ifndef SL_BROKER_STORE_INTERNAL_H
#define SL_BROKER_STORE_INTERNAL_H

/*
 * What the files of the store share: the open environment, keys, and thin wrappers that turn LMDB's
 * return codes into our errors. Nobody outside broker/store*.c includes this.
 */

#include <lmdb.h>

#include "broker/store.h"

enum sl_db {
    SL_DB_META,
    SL_DB_NAMES,
    SL_DB_JOBS,
    SL_DB_IDS,
    SL_DB_TASKS,
    SL_DB_BLOBS,
    SL_DB_READY,
    SL_DB_DELAYED,
    SL_DB_WAITS,
    SL_DB_LEASES,
    SL_DB_RESULTS,
    SL_DB_DONE,
    SL_DB_SUPPLIES,
    SL_DB_COUNT
};

/* Jobs changed in this transaction: written back once, at its end. */
#define SL_JOB_CACHE_MAX 64
struct sl_cached_job {
    uint32_t job;
    bool is_dirty;
    struct sl_job_rec rec;
    char name[SL_NAME_BYTES_MAX + 1];
};

/* Leases whose calls have not all ended: how many are left. Open addressing, rebuilt at start. */
#define SL_LEASE_TABLE_MAX 262144
struct sl_lease_left {
    uint64_t lease; /* 0: free */
    uint32_t left;
    uint32_t reserved;
};

struct sl_store {
    uint32_t magic;
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi[SL_DB_COUNT];
    bool is_dirty;
    struct sl_counters_rec counters;
    struct sl_cached_job jobs[SL_JOB_CACHE_MAX];
    size_t job_count;
    struct sl_lease_left *leases;
    size_t lease_count;
    char *scratch; /* a long body, put together */
    size_t scratch_size;
    char value[SL_VALUE_BYTES_MAX];
    char message[256];
};

struct sl_key {
    size_t len;
    char bytes[SL_KEY_BYTES_STORE_MAX];
};

/* Keys. */
void sl_key_u32(struct sl_key *key, uint32_t number);
void sl_key_u64(struct sl_key *key, uint64_t number);
void sl_key_u64_u64(struct sl_key *key, uint64_t first, uint64_t second);
void sl_key_named(struct sl_key *key, uint32_t number, struct sl_span name);
void sl_key_ready(struct sl_key *key, uint32_t supply, uint32_t priority, uint64_t task);
void sl_key_done(struct sl_key *key, uint32_t job, uint64_t number);
void sl_key_blob(struct sl_key *key, uint64_t task, enum sl_blob_kind kind, uint32_t chunk);

/* Values. put/del mark the transaction dirty. SL_ERR_STORE, or: get and del SL_ERR_NOT_FOUND,
 * put_new SL_ERR_CONFLICT (with *existing). Spans from get live until the next write. */
MUST_CHECK enum sl_err sl_db_get(struct sl_store *store, enum sl_db db, const struct sl_key *key,
                                 struct sl_span *value);
MUST_CHECK enum sl_err sl_db_put(struct sl_store *store, enum sl_db db, const struct sl_key *key,
                                 struct sl_span value);
MUST_CHECK enum sl_err sl_db_put_new(struct sl_store *store, enum sl_db db,
                                     const struct sl_key *key, struct sl_span value,
                                     struct sl_span *existing);
/* Room for a new value, to be filled in whole at once; the key must not be there. */
MUST_CHECK enum sl_err sl_db_reserve(struct sl_store *store, enum sl_db db,
                                     const struct sl_key *key, size_t len, char **out);
MUST_CHECK enum sl_err sl_db_del(struct sl_store *store, enum sl_db db, const struct sl_key *key);
/* Turns an LMDB code into SL_ERR_STORE with a message naming the operation. */
enum sl_err sl_db_fail(struct sl_store *store, const char *what, int rc);

/* A cursor over one database: first key >= `from`, then the next ones. */
struct sl_db_cursor {
    MDB_cursor *cursor;
    struct sl_span key;
    struct sl_span value;
};
MUST_CHECK enum sl_err sl_db_seek(struct sl_store *store, enum sl_db db, const struct sl_key *from,
                                  struct sl_db_cursor *cursor);
MUST_CHECK enum sl_err sl_db_next(struct sl_store *store, struct sl_db_cursor *cursor);
/* The key before; the last one after a seek that found nothing. */
MUST_CHECK enum sl_err sl_db_prev(struct sl_store *store, struct sl_db_cursor *cursor);
MUST_CHECK enum sl_err sl_db_del_current(struct sl_store *store, struct sl_db_cursor *cursor);
void sl_db_cursor_end(struct sl_db_cursor *cursor);

/* Jobs of this transaction. The pointer lives until the transaction ends. SL_ERR_NOT_FOUND. */
MUST_CHECK enum sl_err sl_store_job(struct sl_store *store, uint32_t job,
                                    struct sl_cached_job **out);
MUST_CHECK enum sl_err sl_store_flush_jobs(struct sl_store *store);

/* Long bodies. `read` gives the bytes in the store's scratch (until the next read);
 * SL_ERR_STORE_CORRUPT when a chunk is missing or damaged. */
MUST_CHECK enum sl_err sl_blob_write(struct sl_store *store, uint64_t task, enum sl_blob_kind kind,
                                     struct sl_span body);
MUST_CHECK enum sl_err sl_blob_read(struct sl_store *store, uint64_t task, enum sl_blob_kind kind,
                                    size_t bytes, struct sl_span *out);

/* Gives a large scratch back to the system; called between transactions. */
void sl_blob_release_scratch(struct sl_store *store);

/* Records with strings behind them, checked: sizes and hash. SL_ERR_STORE_CORRUPT. */
struct sl_task_view_raw {
    struct sl_task_rec rec;
    struct sl_span custom_id;
    struct sl_span stage;
    struct sl_span service_id;
    struct sl_span inline_body;
    bool has_inline_body;
};
MUST_CHECK enum sl_err sl_task_get(struct sl_store *store, uint64_t task,
                                   struct sl_task_view_raw *out);
/* The task's body, wherever it stands. */
MUST_CHECK enum sl_err sl_task_body(struct sl_store *store, uint64_t task,
                                    const struct sl_task_view_raw *raw, struct sl_span *out);

/* Puts a task that has not ended into ready (to = READY) or delayed (to = DELAYED). */
MUST_CHECK enum sl_err sl_store_put_waiting(struct sl_store *store,
                                            const struct sl_settle_item *item);

/* Writes a result, its place in the order of completion, and the counts; in no other index may the
 * task be. */
MUST_CHECK enum sl_err sl_store_end_task(struct sl_store *store, const struct sl_settle_item *item);

/* The lease ledger: how many calls of a lease have not ended. */
void sl_lease_add(struct sl_store *store, uint64_t lease, uint32_t count);
MUST_CHECK enum sl_err sl_lease_end_one(struct sl_store *store, uint64_t lease);

#endif
