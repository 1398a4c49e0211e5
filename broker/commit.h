#ifndef SL_BROKER_COMMIT_H
#define SL_BROKER_COMMIT_H

/*
 * Group commit. The loop thread hands operations to the store thread; the store thread takes
 * everything that waits, runs it in order in one transaction, syncs, and hands the operations back.
 * So an idle system commits one operation at once, a busy one commits thousands together, and
 * whatever an operation's `done` tells anybody is on the disk.
 *
 * Under load it waits up to 3 ms for more to share a commit: measured, small commits one after the
 * other cost more processor time in the disk's driver than the tasks in them.
 *
 * A failed commit is final: nothing of the batch is handed back as done, sl_commit_failed says so,
 * and the broker stops and restarts from disk.
 */

#include "broker/store.h"

struct sl_commit;

/* One operation, embedded as the first member of a larger struct. Owned by the store thread from
 * submit until it is handed back. */
struct sl_op {
    struct sl_op *next;
    /* Store thread, in a transaction. Returns SL_ERR_STORE only when the transaction is lost; any
     * other outcome goes into the operation's own fields. */
    enum sl_err (*run)(struct sl_op *op, struct sl_store *store);
    /* Loop thread, after the sync. May free the operation. */
    void (*done)(struct sl_op *op);
    size_t cost_bytes; /* rough size of what it writes: bounds a transaction */
    bool is_urgent;    /* places stand free until it is done: no gathering */
};

/* Starts the store thread, which owns the store until close. `event_fd` (borrowed) is signalled
 * when operations have been handed back. */
MUST_CHECK enum sl_err sl_commit_open(struct sl_store *store, int event_fd, struct sl_commit **out);

/* Loop thread: adds an operation to this turn's batch; kept private until the flush. Never blocks.
 */
void sl_commit_add(struct sl_commit *commit, struct sl_op *op);
/* Hands the turn's batch to the store thread. Never blocks but on a short mutex. */
void sl_commit_flush(struct sl_commit *commit);

/* Runs `done` of everything handed back and copies the counters that go with it. */
void sl_commit_finish(struct sl_commit *commit, struct sl_counters_rec *counters);

/* Operations added and not yet finished. */
size_t sl_commit_pending(const struct sl_commit *commit);

/* Did a commit fail? Then *message says why (valid until close). */
bool sl_commit_failed(struct sl_commit *commit, const char **message);

struct sl_commit_stats {
    uint64_t commits;
    uint64_t sync_ns; /* time in commit, sync included */
};
struct sl_commit_stats sl_commit_stats(struct sl_commit *commit);

/* Lets the store thread finish what it was given, and joins it. `done` is not called any more. */
void sl_commit_close(struct sl_commit **commit);

#endif
