#ifndef SL_BROKER_STORE_H
#define SL_BROKER_STORE_H

/*
 * The door to LMDB: the queue's only truth. Typed operations inside a transaction; broker/commit
 * runs them on the store thread and groups them. Schema: broker/store_schema.h.
 *
 * All functions but open, close and the start-up readers run on the store thread between begin and
 * commit. They may block on the disk. SL_ERR_STORE from any of them means the transaction is lost
 * and the broker must stop and restart from disk (a failed sync is never retried); the reason is in
 * sl_store_message().
 */

#include "broker/store_schema.h"
#include "common/err.h"
#include "common/task.h"
#include "common/wire.h"

struct sl_store;

/* ---- life ------------------------------------------------------------------------------------ */

/* Opens or creates the store in `dir` (which must exist and be locked by us), checks its format,
 * and raises its generation. SL_ERR_STORE | SL_ERR_STORE_FORMAT | SL_ERR_PERMISSION with `message`.
 */
MUST_CHECK enum sl_err sl_store_open(const char *dir, struct sl_store **out, char *message,
                                     size_t message_size);
void sl_store_close(struct sl_store **store);
const char *sl_store_message(const struct sl_store *store);

MUST_CHECK enum sl_err sl_store_begin(struct sl_store *store);
/* Writes what changed and syncs; nothing changed: ends the transaction without touching the disk.
 */
MUST_CHECK enum sl_err sl_store_commit(struct sl_store *store);
void sl_store_abort(struct sl_store *store);
/* Were there changes in this transaction? */
bool sl_store_is_dirty(const struct sl_store *store);

/* Counters as of the last operation. Also at start-up, before the store thread runs. */
const struct sl_counters_rec *sl_store_counters(const struct sl_store *store);

/* ---- start-up, single-threaded --------------------------------------------------------------- */

struct sl_supply_info {
    uint32_t supply;
    uint32_t uid;
    struct sl_span provider;
    struct sl_span model;
};
MUST_CHECK enum sl_err sl_store_each_supply(
    struct sl_store *store, void (*visit)(void *ctx, const struct sl_supply_info *info), void *ctx);

/* A call that a lease covers and that has no result: it may be running in a worker, or be lost. */
struct sl_orphan {
    uint64_t task;
    uint64_t lease;
    uint32_t supply;
    uint16_t attempt;
    uint16_t deaths;
    uint16_t max_attempts;
    uint8_t priority;
    uint8_t flags;
};
/* Walks the lease ledger, the latest lease first (so a task's latest attempt comes first; later
 * entries of the same task are not orphans and not visited). Work in proportion to what was in
 * flight. Drops leases whose calls have all ended. Stops when visit returns false. */
MUST_CHECK enum sl_err sl_store_each_orphan(
    struct sl_store *store, bool (*visit)(void *ctx, const struct sl_orphan *orphan), void *ctx);
/* Every worker that was given a lane and not seen to its end; of an earlier boot, too. */
MUST_CHECK enum sl_err sl_store_each_worker(struct sl_store *store,
                                            void (*visit)(void *ctx,
                                                          const struct sl_worker_rec *worker),
                                            void *ctx);
/* Tasks in DELAYED (exact, from the index's own count). */
MUST_CHECK enum sl_err sl_store_count_delayed(struct sl_store *store, uint64_t *count);

/* ---- jobs ------------------------------------------------------------------------------------ */

struct sl_job_info {
    uint32_t job;
    uint32_t uid;
    char name[SL_NAME_BYTES_MAX + 1];
    uint64_t total;
    uint64_t completed;
    uint64_t failed;
    uint64_t cancelled;
    uint64_t expired;
    int64_t created_ms;
    bool is_purging;
};

static inline uint64_t sl_job_ended(const struct sl_job_info *info)
{
    return info->completed + info->failed + info->cancelled + info->expired;
}

/* Finds the user's job of that name; makes it when it is not there and `may_create`. An empty name
 * makes a new one ("job-" and its number). SL_ERR_NOT_FOUND. */
struct sl_job_request {
    uint32_t uid;
    struct sl_span name;
    bool may_create;
    int64_t now_ms;
};
MUST_CHECK enum sl_err sl_store_open_job(struct sl_store *store,
                                         const struct sl_job_request *request,
                                         struct sl_job_info *out);
MUST_CHECK enum sl_err sl_store_get_job(struct sl_store *store, uint32_t job,
                                        struct sl_job_info *out);
/* The newest job with a number below *below, of that user or (is_admin) of anybody; *below becomes
 * its number. SL_ERR_NOT_FOUND when there is none. */
MUST_CHECK enum sl_err sl_store_previous_job(struct sl_store *store, uint32_t uid, bool is_admin,
                                             uint32_t *below, struct sl_job_info *out);

/* ---- the life of a task ---------------------------------------------------------------------- */

MUST_CHECK enum sl_err sl_store_put_supply(struct sl_store *store,
                                           const struct sl_supply_info *info);

/* Before any lease of a worker's calls is written (operations run in order). */
MUST_CHECK enum sl_err sl_store_put_worker(struct sl_store *store,
                                           const struct sl_worker_rec *worker);
/* Its last result is on disk: nothing of it is outstanding. */
MUST_CHECK enum sl_err sl_store_drop_worker(struct sl_store *store, uint32_t pid);

struct sl_accept_request {
    uint32_t job;
    const struct sl_task_msg *tasks;
    const uint32_t *supplies; /* one for each task */
    size_t count;
    int64_t now_ms;
};
struct sl_accept_reply {
    uint32_t accepted;
    uint32_t delayed; /* of those, not before a later time */
    uint32_t known;
    int64_t refused_idx; /* -1: none */
    enum sl_err refused_err;
    int64_t due_ms; /* earliest of the delayed, INT64_MAX: none */
};
/* Accepts tasks in order until one is refused (SL_ERR_CONFLICT: same id, other body). */
MUST_CHECK enum sl_err sl_store_accept(struct sl_store *store,
                                       const struct sl_accept_request *request,
                                       struct sl_accept_reply *reply);

/* A task that was taken for a call: what its caller needs to know. */
struct sl_armed {
    uint64_t task;
    uint64_t lease;
    uint32_t supply;
    uint32_t timeout_ms;
    uint16_t attempt;
    uint16_t deaths;
    uint16_t max_attempts;
    uint8_t priority;
    uint8_t flags;
    uint8_t endpoint;
    int64_t accepted_ms;
    int64_t deadline_ms;
    size_t body_at; /* in the reply's bytes */
    size_t body_bytes;
};
struct sl_arm_request {
    uint32_t supply;
    uint32_t count_max;
    size_t bytes_max; /* stops before the task that would exceed it, but always takes one */
    int64_t now_ms;
};
struct sl_arm_reply {
    struct sl_armed *armed; /* caller's, count_max long */
    size_t count;
    uint32_t expired; /* tasks whose deadline had passed: ended now */
    uint32_t damaged; /* tasks whose record is damaged: set aside as failed now */
    bool has_more;    /* the supply has further ready tasks; also when SL_DELETE_SLICE were ended */
    char *bytes;      /* malloc'ed: the bodies; the caller frees */
    size_t bytes_len;
    size_t bytes_size;
};
/* Takes the next ready tasks of a supply in order (priority, then age) under a lease. */
MUST_CHECK enum sl_err sl_store_arm(struct sl_store *store, const struct sl_arm_request *request,
                                    struct sl_arm_reply *reply);

/* The end of one call, or of a wait, as the loop decided it. */
struct sl_settle_item {
    uint64_t task;
    uint64_t lease; /* 0: it was not leased */
    uint32_t supply;
    uint16_t attempts; /* calls made so far, this one included if it counts */
    uint16_t deaths;
    uint8_t priority;
    bool was_called; /* counts as a provider call */
    enum sl_task_state to;
    int64_t due_ms; /* DELAYED */
    enum sl_err err;
    uint32_t http_status;
    uint32_t queued_us;
    uint32_t call_us;
    uint32_t flags; /* SL_RESULT_BODY_IS_JSON */
    uint64_t input_tokens;
    uint64_t output_tokens;
    struct sl_span request_id;
    struct sl_span message;
    struct sl_span body; /* may point into shared memory: copied once */
    int64_t now_ms;
};
MUST_CHECK enum sl_err sl_store_settle(struct sl_store *store, const struct sl_settle_item *item);

struct sl_promote_reply {
    uint32_t count;
    uint32_t supplies[256]; /* whose tasks became ready; may repeat */
    int64_t next_due_ms;    /* INT64_MAX: none waits */
};
/* Moves delayed tasks that are due at now_ms to ready, at most SL_ARRAY_LEN(supplies) of them. */
MUST_CHECK enum sl_err sl_store_promote(struct sl_store *store, int64_t now_ms,
                                        struct sl_promote_reply *reply);

/* Cancels the waiting tasks of [from, to], which are of one job; lists those that are leased (the
 * loop ends them). */
struct sl_cancel_request {
    uint64_t from;
    uint64_t to;
    int64_t now_ms;
};
struct sl_cancel_reply {
    uint64_t next; /* go on here; > to: done */
    uint32_t cancelled;
    uint32_t was_delayed; /* of those */
    uint64_t leased[SL_DELETE_SLICE];
    uint32_t leased_count;
};
MUST_CHECK enum sl_err sl_store_cancel_slice(struct sl_store *store,
                                             const struct sl_cancel_request *request,
                                             struct sl_cancel_reply *reply);

/* Forgets a job, a slice of records at a time; *done once nothing is left. The first slice hides
 * the name. SL_ERR_CONFLICT while tasks of it have not ended. */
MUST_CHECK enum sl_err sl_store_purge_slice(struct sl_store *store, uint32_t job, bool *done);

/* A job whose purge a crash cut off; SL_ERR_NOT_FOUND: none. */
MUST_CHECK enum sl_err sl_store_next_purge(struct sl_store *store, uint32_t *job);

/* ---- reading --------------------------------------------------------------------------------- */

struct sl_read_request {
    uint32_t job;
    enum sl_results_order order;
    uint64_t cursor;
    size_t count_max;
    bool may_skip; /* AS_SUBMITTED: pass over tasks that have not ended instead of stopping there */
};
/* Appends RESULT frames to the writer from the cursor on, until it is full or there are no more
 * ended tasks in that order. *need_bytes: 0, or how large a writer must be for the next one
 * (nothing was appended). *cursor moves; *at_end: no further ended task now. */
struct sl_read_reply {
    uint64_t cursor;
    size_t count;
    size_t need_bytes;
    bool at_end;
};
MUST_CHECK enum sl_err sl_store_read_results(struct sl_store *store,
                                             const struct sl_read_request *request,
                                             struct sl_wire_writer *writer,
                                             struct sl_read_reply *reply);

/* What is on disk about one task. SL_ERR_NOT_FOUND. */
struct sl_task_view {
    enum sl_task_state state; /* LEASED: in none of the indexes */
    char custom_id[SL_ID_BYTES_MAX + 1];
    uint32_t supply;
    uint32_t priority;
    uint32_t attempts;
    uint32_t deaths;
    enum sl_err err;
    int64_t accepted_ms;
    int64_t due_ms;   /* DELAYED */
    int64_t ended_ms; /* terminal */
    uint32_t body_bytes;
    uint32_t uid; /* of its job */
};
MUST_CHECK enum sl_err sl_store_view_task(struct sl_store *store, uint64_t task,
                                          struct sl_task_view *out);

#endif
