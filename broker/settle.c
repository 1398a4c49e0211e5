/*
 * How calls end: what becomes of a task when its result is seen, or its worker is lost, and the
 * operations that carry it to disk.
 *
 * Loop thread. The place is given back as soon as the result is seen; the task's end is told to
 * anybody only after the commit. Results stay in the worker's lane until then, so that a broker
 * that dies in between finds them with the worker. What survives a crash: the lease covers every
 * call whose end is not yet on disk.
 */
#include <stdlib.h>

#include "broker/broker.h"
#include "broker/policy/retry.h"
#include "common/check.h"
#include "common/log.h"

#define ITEMS_MAX 256
#define UNKNOWN_PROVIDER_WAIT_MS 1000
#define DEFAULT_ATTEMPTS 6 /* of a task whose provider is not configured any more */

struct sl_settle_op {
    struct sl_op op;
    struct sl_settle_op *next_free;
    struct sl_broker *broker;
    struct sl_worker *worker; /* whose lane the payloads are in; NULL: none */
    bool has_position;
    uint64_t position; /* released once on disk */
    struct sl_span large;
    size_t count;
    struct sl_call *calls[ITEMS_MAX];
    struct sl_settle_item items[ITEMS_MAX];
};

/* ---- the operation
 * ----------------------------------------------------------------------------------- */

static enum sl_err run_settle(struct sl_op *op, struct sl_store *store)
{
    struct sl_settle_op *own = SL_CONTAINER_OF(op, struct sl_settle_op, op);
    enum sl_err err = SL_OK;

    for (size_t i = 0; err == SL_OK && i < own->count; i++) {
        err = sl_store_settle(store, &own->items[i]);
    }
    return err;
}

static void finish_item(struct sl_broker *broker, struct sl_call *call,
                        const struct sl_settle_item *item)
{
    struct sl_supply *supply = &broker->supplies[call->supply];

    SL_ASSERT(call->state == SL_CALL_ENDING);
    if (supply->route_idx != SL_ROUTE_NONE) {
        sl_route_note_ended(broker->route, supply->route_idx, 1);
    }
    if (item->to == SL_TASK_READY) {
        sl_supply_mark_ready(broker, call->supply);
    } else if (item->to == SL_TASK_DELAYED) {
        broker->delayed++;
        sl_dispatch_note_due(broker, item->due_ms);
    }
    sl_calls_remove(&broker->calls, call);
}

static void finish_source(struct sl_broker *broker, struct sl_settle_op *own)
{
    struct sl_worker *worker = own->worker;

    if (own->large.ptr != NULL) {
        sl_shm_large_unmap(&own->large);
        if (worker != NULL && worker->conn != NULL) {
            sl_conn_send_count(worker->conn, 1);
        }
    }
    if (worker == NULL) {
        return;
    }
    if (own->has_position) {
        sl_ring_release(&worker->lane->in, own->position);
        sl_bell_ring(&worker->lane->space_bell);
    }
    sl_workers_unref(worker);
}

static void done_settle(struct sl_op *op)
{
    struct sl_settle_op *own = SL_CONTAINER_OF(op, struct sl_settle_op, op);
    struct sl_broker *broker = own->broker;
    uint32_t last_job = 0; /* runs of one job are the rule */

    for (size_t i = 0; i < own->count; i++) {
        finish_item(broker, own->calls[i], &own->items[i]);
    }
    for (size_t i = 0; i < own->count; i++) {
        uint32_t job = sl_task_job(own->items[i].task);
        if (job != last_job && sl_task_state_is_terminal(own->items[i].to)) {
            last_job = job;
            sl_watch_job_moved(broker, job);
        }
    }
    finish_source(broker, own);
    own->next_free = broker->free_settles;
    broker->free_settles = own;
}

static struct sl_settle_op *open_settle(struct sl_broker *broker)
{
    struct sl_settle_op *own = broker->free_settles;

    if (own != NULL) {
        broker->free_settles = own->next_free;
    } else {
        own = malloc(sizeof(*own)); /* as many as are ever under way at once, then reused */
        SL_ASSERT(own != NULL);
    }
    memset(own, 0, offsetof(struct sl_settle_op, calls));
    own->broker = broker;
    own->op = (struct sl_op){.run = run_settle, .done = done_settle};
    broker->settle = own;
    return own;
}

static struct sl_settle_op *get_settle(struct sl_broker *broker)
{
    if (broker->settle != NULL && broker->settle->count == ITEMS_MAX) {
        struct sl_worker *worker = broker->settle->worker;
        sl_dispatch_flush_ends(broker);
        if (worker != NULL) {
            sl_dispatch_end_source(broker, worker);
        }
    }
    return broker->settle != NULL ? broker->settle : open_settle(broker);
}

void sl_dispatch_flush_ends(struct sl_broker *broker)
{
    struct sl_settle_op *own = broker->settle;

    if (own == NULL) {
        return;
    }
    broker->settle = NULL;
    sl_commit_add(broker->commit, &own->op);
}

void sl_dispatch_end_source(struct sl_broker *broker, struct sl_worker *worker)
{
    if (broker->settle != NULL && broker->settle->worker != NULL &&
        broker->settle->worker != worker) {
        sl_dispatch_flush_ends(broker);
    }
    struct sl_settle_op *own = get_settle(broker);
    if (own->worker == NULL) {
        own->worker = worker;
        worker->settles_pending++;
    }
}

void sl_dispatch_note_position(struct sl_broker *broker, uint64_t position)
{
    SL_ASSERT(broker->settle != NULL && broker->settle->worker != NULL);
    broker->settle->position = position;
    broker->settle->has_position = true;
}

void sl_dispatch_note_large(struct sl_broker *broker, struct sl_span mapped)
{
    SL_ASSERT(broker->settle != NULL && broker->settle->large.ptr == NULL);
    broker->settle->large = mapped;
    sl_dispatch_flush_ends(broker);
}

void sl_settle_free_all(struct sl_broker *broker)
{
    free(broker->settle);
    broker->settle = NULL;
    while (broker->free_settles != NULL) {
        struct sl_settle_op *own = broker->free_settles;
        broker->free_settles = own->next_free;
        free(own);
    }
}

/* ---- the decision
 * ------------------------------------------------------------------------------------ */

static const struct sl_provider_config *provider_of(const struct sl_broker *broker,
                                                    const struct sl_call *call)
{
    uint32_t idx = broker->supplies[call->supply].provider_idx;

    return idx == SL_SUPPLY_NO_PROVIDER ? NULL : &broker->config->providers[idx];
}

static struct sl_retry_verdict judge(struct sl_broker *broker, const struct sl_call *call,
                                     const struct sl_call_end *end)
{
    const struct sl_provider_config *provider = provider_of(broker, call);
    uint32_t attempts_max = provider == NULL ? DEFAULT_ATTEMPTS : provider->retry_max_attempts;
    struct sl_retry_failure failure = {
        .err = end->err,
        .attempt = call->attempt,
        .attempts_max = call->max_attempts != 0 ? call->max_attempts : attempts_max,
        .task_flags = call->flags,
        .server_delay_ms = end->result != NULL ? end->result->retry_after_ms : 0,
        .base_ms = provider == NULL ? 0 : provider->retry_base_ms,
        .max_ms = provider == NULL ? 0 : provider->retry_max_ms,
        .random = sl_retry_random(&broker->random),
    };

    return sl_retry_judge(&failure);
}

/* The failure was no fault of the provider's: there is nothing to wait for. */
static bool is_our_loss(enum sl_err err)
{
    return err == SL_ERR_WORKER_KILLED || err == SL_ERR_OUTCOME_UNKNOWN;
}

static void decide_failure(struct sl_broker *broker, const struct sl_call *call,
                           const struct sl_call_end *end, struct sl_settle_item *item)
{
    struct sl_retry_verdict verdict = judge(broker, call, end);
    bool is_poison = item->deaths >= SL_WORKER_DEATHS_MAX;

    if (verdict.decision == SL_RETRY_FAIL || is_poison) {
        item->to = SL_TASK_FAILED;
        return;
    }
    if (is_our_loss(end->err)) {
        item->to = SL_TASK_READY;
        return;
    }
    item->to = SL_TASK_DELAYED;
    item->due_ms = broker->now.wall_ns / SL_NS_PER_MS + verdict.delay_ms;
}

/* Never called after all. A worker that does not know the provider reads its configuration again
 * soon: after a SIGHUP the services do so one after the other. */
static void put_back(const struct sl_call_end *end, struct sl_settle_item *item)
{
    item->to = end->err == SL_ERR_EXPIRED ? SL_TASK_EXPIRED : SL_TASK_READY;
    if (end->err == SL_ERR_UNKNOWN_PROVIDER) {
        item->to = SL_TASK_DELAYED;
        item->due_ms = item->now_ms + UNKNOWN_PROVIDER_WAIT_MS;
    }
}

static void decide(struct sl_broker *broker, const struct sl_call *call,
                   const struct sl_call_end *end, struct sl_settle_item *item)
{
    bool is_cancelled = call->is_cancelled || end->err == SL_ERR_CANCELLED;

    if (end->is_unstarted) {
        item->attempts = (uint16_t)(call->attempt - 1);
        item->deaths = call->deaths; /* nor was it in the hands of a worker that died */
        item->was_called = false;
    }
    if (end->err == SL_OK && !end->is_unstarted) {
        item->to = SL_TASK_COMPLETED;
    } else if (is_cancelled) {
        item->to = SL_TASK_CANCELLED;
        item->err = SL_ERR_CANCELLED;
    } else if (end->is_unstarted) {
        put_back(end, item);
    } else {
        decide_failure(broker, call, end, item);
    }
}

static void fill_result(struct sl_settle_item *item, const struct sl_call_end *end)
{
    const struct sl_result_msg_shm *result = end->result;
    const char *at = end->payload.ptr;

    if (result == NULL) {
        return;
    }
    item->http_status = result->http_status;
    item->call_us = (uint32_t)SL_MIN(SL_MAX(result->call_ns / 1000, 0), (int64_t)UINT32_MAX);
    item->flags = result->flags & SL_RESULT_BODY_IS_JSON;
    item->input_tokens = result->input_tokens;
    item->output_tokens = result->output_tokens;
    item->request_id = sl_span_of(at, result->request_id_bytes);
    at += result->request_id_bytes;
    item->message = sl_span_of(at, result->message_bytes);
    at += result->message_bytes;
    item->body = sl_span_of(at, result->body_bytes);
}

static void give_place_back(struct sl_broker *broker, struct sl_call *call)
{
    uint32_t idx = broker->supplies[call->supply].provider_idx;

    if (call->state == SL_CALL_ARMED) {
        if (idx != SL_SUPPLY_NO_PROVIDER) { /* else it was removed while this was being armed */
            sl_call_list_remove(&broker->providers[idx].armed, call);
            broker->providers[idx].armed_bytes -= call->body_bytes;
        }
        sl_calls_drop_body(call);
        return;
    }
    SL_ASSERT(call->state == SL_CALL_SENT || call->state == SL_CALL_ORPHAN);
    SL_ASSERT(broker->in_flight > 0);
    broker->in_flight--;
    if (idx != SL_SUPPLY_NO_PROVIDER) {
        broker->providers[idx].in_flight--;
    }
    if (call->worker != NULL) {
        SL_ASSERT(call->worker->in_flight > 0);
        call->worker->in_flight--;
        call->worker = NULL;
    }
}

void sl_dispatch_end(struct sl_broker *broker, struct sl_call *call, const struct sl_call_end *end)
{
    struct sl_settle_op *own = get_settle(broker);
    struct sl_settle_item *item = &own->items[own->count];
    uint32_t idx = broker->supplies[call->supply].provider_idx;

    *item = (struct sl_settle_item){
        .task = call->task,
        .lease = call->lease,
        .supply = call->supply,
        .attempts = call->attempt,
        .deaths = (uint16_t)(call->deaths + (end->err == SL_ERR_WORKER_KILLED)),
        .priority = call->priority,
        .was_called = true,
        .err = end->err,
        .queued_us = call->queued_us,
        .message = sl_span_str(end->err == SL_OK ? "" : sl_err_meaning(end->err)),
        .now_ms = broker->now.wall_ns / SL_NS_PER_MS,
    };
    fill_result(item, end);
    decide(broker, call, end, item);
    if (end->err != SL_OK && !end->is_unstarted && idx != SL_SUPPLY_NO_PROVIDER) {
        broker->providers[idx].errors++;
    }
    give_place_back(broker, call);
    sl_calls_set_state(&broker->calls, call, SL_CALL_ENDING);
    own->calls[own->count++] = call;
    own->op.cost_bytes += 256 + item->body.len;
}

/* ---- many at once
 * -------------------------------------------------------------------------------------- */

void sl_dispatch_disarm(struct sl_broker *broker, uint32_t provider_idx)
{
    struct sl_call_end end = {.err = SL_OK, .is_unstarted = true};
    struct sl_call_list *armed = &broker->providers[provider_idx].armed;

    while (armed->first != NULL) {
        sl_dispatch_end(broker, armed->first, &end);
    }
}

void sl_dispatch_disarm_all(struct sl_broker *broker)
{
    for (uint32_t i = 0; i < broker->config->provider_count; i++) {
        sl_dispatch_disarm(broker, i);
    }
}

void sl_dispatch_abandon_all(struct sl_broker *broker)
{
    struct sl_call_end end = {.err = SL_ERR_OUTCOME_UNKNOWN};

    for (size_t i = 0; i < broker->calls.touched; i++) {
        struct sl_call *call = &broker->calls.all[i];
        if (call->state == SL_CALL_SENT) {
            sl_dispatch_end(broker, call, &end);
        }
    }
}

void sl_dispatch_end_orphans(struct sl_broker *broker)
{
    bool is_unstarted = !broker->has_lost_worker;
    struct sl_call_end end = {.err = is_unstarted ? SL_OK : SL_ERR_OUTCOME_UNKNOWN,
                              .is_unstarted = is_unstarted};
    uint32_t count = broker->calls.counts[SL_CALL_ORPHAN];

    if (count == 0) {
        return;
    }
    sl_log(SL_EVENT_RECOVERED, "calls=%u outcome=%s", count,
           is_unstarted ? "not_called" : "unknown");
    for (size_t i = 0; i < broker->calls.touched; i++) {
        struct sl_call *call = &broker->calls.all[i];
        if (call->state == SL_CALL_ORPHAN) {
            sl_dispatch_end(broker, call, &end);
        }
    }
}

static bool load_orphan(void *ctx, const struct sl_orphan *orphan)
{
    struct sl_broker *broker = ctx;

    SL_ASSERT(orphan->supply < broker->supply_count);
    if (sl_calls_find(&broker->calls, orphan->task) != NULL) {
        return false; /* a later lease of the same task stands */
    }
    struct sl_supply *supply = &broker->supplies[orphan->supply];
    struct sl_call *call = sl_calls_add(&broker->calls, orphan->task, SL_CALL_ORPHAN);
    SL_ASSERT(call != NULL); /* the table is larger than all places and all arming together */
    call->lease = orphan->lease;
    call->supply = orphan->supply;
    call->attempt = orphan->attempt;
    call->deaths = orphan->deaths;
    call->max_attempts = orphan->max_attempts;
    call->priority = orphan->priority;
    call->flags = orphan->flags;
    broker->in_flight++;
    if (supply->provider_idx != SL_SUPPLY_NO_PROVIDER) {
        broker->providers[supply->provider_idx].in_flight++;
        sl_route_note_taken(broker->route, supply->route_idx, 1);
    }
    return true;
}

enum sl_err sl_dispatch_load_orphans(struct sl_broker *broker, struct sl_store *store)
{
    return sl_store_each_orphan(store, load_orphan, broker);
}
