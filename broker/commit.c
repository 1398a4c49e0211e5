/*
 * The store thread and the two queues between it and the loop.
 *
 * The loop thread collects operations privately and hands them over once a turn; the store thread
 * takes all of them, up to the bounds of one transaction. One mutex, held for a few pointer moves,
 * and one condition variable. Nothing here survives a crash: an operation that was not handed back
 * may or may not be on disk, and nobody has been told.
 */
#include "broker/commit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/os.h"

#define BATCH_BYTES_MAX (64 * SL_MIB) /* dirty pages are buffered in memory until the commit */

/* Under load a commit costs some 300 us of processor time whatever it holds (two flushes, a page of
 * each index touched): after a commit that wrote this much, the next one waits for as much again as
 * makes it cheap, or this long. An idle system, or one with a task now and then, never waits. */
#define GATHER_AFTER_BYTES (32 * SL_KIB)
#define GATHER_BYTES SL_MIB
#define GATHER_NS (3 * SL_NS_PER_MS)

struct op_list {
    struct sl_op *first;
    struct sl_op **last;
};

struct sl_commit {
    struct sl_store *store;
    int event_fd;
    pthread_t thread;
    size_t pending;          /* loop thread only */
    struct op_list batch;    /* loop thread only */
    size_t batch_bytes;      /* loop thread only */
    bool is_batch_urgent;    /* loop thread only */
    int64_t gather_until_ns; /* store thread only; 0: do not wait */

    pthread_mutex_t mutex; /* covers the rest */
    pthread_cond_t is_filled;
    struct op_list waiting;
    size_t waiting_bytes;
    bool is_waiting_urgent;
    bool is_gathering; /* the store thread wants to be woken only for GATHER_BYTES */
    struct op_list finished;
    struct sl_counters_rec counters; /* as of the last operation in `finished` */
    struct sl_commit_stats stats;
    bool must_stop;
    bool has_failed;
};

static void list_init(struct op_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_add(struct op_list *list, struct sl_op *op)
{
    op->next = NULL;
    *list->last = op;
    list->last = &op->next;
}

/* Moves all of `from` behind `to`. */
static void list_join(struct op_list *to, struct op_list *from)
{
    if (from->first != NULL) {
        *to->last = from->first;
        to->last = from->last;
        list_init(from);
    }
}

/* ---- store thread ---------------------------------------------------------------------------- */

static bool has_enough(const struct sl_commit *commit)
{
    return commit->waiting_bytes >= GATHER_BYTES || commit->is_waiting_urgent || commit->must_stop;
}

/* With the mutex held: waits for work and, under load, for enough of it. */
static void await_work(struct sl_commit *commit)
{
    const struct timespec until = {.tv_sec = (time_t)(commit->gather_until_ns / SL_NS_PER_S),
                                   .tv_nsec = (long)(commit->gather_until_ns % SL_NS_PER_S)};
    int rc = commit->gather_until_ns == 0 ? ETIMEDOUT : 0;

    commit->is_gathering = true;
    while (rc == 0 && !has_enough(commit)) {
        rc = pthread_cond_timedwait(&commit->is_filled, &commit->mutex, &until);
    }
    commit->is_gathering = false;
    while (commit->waiting.first == NULL && !commit->must_stop) {
        pthread_cond_wait(&commit->is_filled, &commit->mutex);
    }
}

/* Takes what waits, up to the bounds of one transaction; false: stop. */
static bool take_batch(struct sl_commit *commit, struct op_list *batch)
{
    size_t count = 0;
    size_t bytes = 0;

    list_init(batch);
    pthread_mutex_lock(&commit->mutex);
    await_work(commit);
    while (commit->waiting.first != NULL && count < SL_COMMIT_OPS_MAX && bytes < BATCH_BYTES_MAX) {
        struct sl_op *op = commit->waiting.first;
        commit->waiting.first = op->next;
        bytes += op->cost_bytes;
        count++;
        list_add(batch, op);
    }
    if (commit->waiting.first == NULL) {
        list_init(&commit->waiting);
    }
    commit->waiting_bytes -= bytes;
    commit->is_waiting_urgent = commit->is_waiting_urgent && commit->waiting.first != NULL;
    commit->gather_until_ns =
        bytes >= GATHER_AFTER_BYTES ? INT64_MAX : 0; /* set after the commit */
    pthread_mutex_unlock(&commit->mutex);
    return count > 0;
}

static enum sl_err run_batch(struct sl_store *store, const struct op_list *batch)
{
    enum sl_err err = sl_store_begin(store);

    for (struct sl_op *op = batch->first; err == SL_OK && op != NULL; op = op->next) {
        err = op->run(op, store);
    }
    if (err != SL_OK) {
        sl_store_abort(store);
        return err;
    }
    return sl_store_commit(store);
}

static void hand_back(struct sl_commit *commit, struct op_list *batch, enum sl_err err,
                      int64_t spent_ns)
{
    pthread_mutex_lock(&commit->mutex);
    if (err == SL_OK) {
        bool was_empty = commit->finished.first == NULL;
        list_join(&commit->finished, batch);
        commit->counters = *sl_store_counters(commit->store);
        commit->stats.commits += spent_ns > 0;
        commit->stats.sync_ns += (uint64_t)spent_ns;
        if (was_empty) {
            sl_os_event_signal(commit->event_fd);
        }
    } else {
        commit->has_failed = true;
        sl_os_event_signal(commit->event_fd);
    }
    pthread_mutex_unlock(&commit->mutex);
}

static void *store_thread(void *arg)
{
    struct sl_commit *commit = arg;
    struct op_list batch;
    enum sl_err err = SL_OK;

    while (err == SL_OK && take_batch(commit, &batch)) {
        int64_t begin_ns = sl_clock_mono_ns();
        err = run_batch(commit->store, &batch);
        bool wrote = sl_store_is_dirty(commit->store);
        int64_t end_ns = sl_clock_mono_ns();
        if (commit->gather_until_ns != 0) {
            commit->gather_until_ns = end_ns + GATHER_NS;
        }
        hand_back(commit, &batch, err, wrote ? end_ns - begin_ns : 0);
    }
    return NULL;
}

/* ---- loop thread ----------------------------------------------------------------------------- */

/* Signals belong to the loop thread's signalfd: the store thread blocks them all. */
static int start_thread(struct sl_commit *commit)
{
    sigset_t all;
    sigset_t old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&commit->thread, NULL, store_thread, commit);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static void init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

enum sl_err sl_commit_open(struct sl_store *store, int event_fd, struct sl_commit **out)
{
    struct sl_commit *commit = calloc(1, sizeof(*commit));

    if (commit == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    commit->store = store;
    commit->event_fd = event_fd;
    commit->counters = *sl_store_counters(store);
    list_init(&commit->batch);
    list_init(&commit->waiting);
    list_init(&commit->finished);
    pthread_mutex_init(&commit->mutex, NULL);
    init_condition(&commit->is_filled);
    if (start_thread(commit) != 0) {
        free(commit);
        return SL_ERR_NO_MEMORY;
    }
    *out = commit;
    return SL_OK;
}

void sl_commit_add(struct sl_commit *commit, struct sl_op *op)
{
    SL_ASSERT(op->run != NULL);
    SL_ASSERT(op->done != NULL);
    list_add(&commit->batch, op);
    commit->batch_bytes += op->cost_bytes;
    commit->is_batch_urgent |= op->is_urgent;
    commit->pending++;
}

void sl_commit_flush(struct sl_commit *commit)
{
    if (commit->batch.first == NULL) {
        return;
    }
    pthread_mutex_lock(&commit->mutex);
    list_join(&commit->waiting, &commit->batch);
    commit->waiting_bytes += commit->batch_bytes;
    commit->batch_bytes = 0;
    commit->is_waiting_urgent |= commit->is_batch_urgent;
    commit->is_batch_urgent = false;
    bool must_wake = !commit->is_gathering || has_enough(commit);
    pthread_mutex_unlock(&commit->mutex);
    if (must_wake) {
        pthread_cond_signal(&commit->is_filled);
    }
}

void sl_commit_finish(struct sl_commit *commit, struct sl_counters_rec *counters)
{
    struct op_list finished;

    list_init(&finished);
    pthread_mutex_lock(&commit->mutex);
    list_join(&finished, &commit->finished);
    *counters = commit->counters;
    pthread_mutex_unlock(&commit->mutex);
    for (struct sl_op *op = finished.first; op != NULL;) {
        struct sl_op *next = op->next;
        SL_ASSERT(commit->pending > 0);
        commit->pending--;
        op->done(op);
        op = next;
    }
}

size_t sl_commit_pending(const struct sl_commit *commit)
{
    return commit->pending;
}

bool sl_commit_failed(struct sl_commit *commit, const char **message)
{
    pthread_mutex_lock(&commit->mutex);
    bool has_failed = commit->has_failed;
    pthread_mutex_unlock(&commit->mutex);
    *message = has_failed ? sl_store_message(commit->store) : "";
    return has_failed;
}

struct sl_commit_stats sl_commit_stats(struct sl_commit *commit)
{
    pthread_mutex_lock(&commit->mutex);
    struct sl_commit_stats stats = commit->stats;
    pthread_mutex_unlock(&commit->mutex);
    return stats;
}

void sl_commit_close(struct sl_commit **commit)
{
    struct sl_commit *old = *commit;

    sl_commit_flush(old);
    pthread_mutex_lock(&old->mutex);
    old->must_stop = true;
    pthread_cond_signal(&old->is_filled);
    pthread_mutex_unlock(&old->mutex);
    pthread_join(old->thread, NULL);
    pthread_cond_destroy(&old->is_filled);
    pthread_mutex_destroy(&old->mutex);
    free(old);
    *commit = NULL;
}
