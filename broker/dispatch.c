/*
 * Dispatch: take ready tasks under a lease ahead of free places (arm), hand them to workers as
 * places come free (send), and promote delayed tasks.
 *
 * Loop thread. The broker is the only authority on calls in flight: a place is taken here before
 * the worker sees the task and given back when its result is seen. Arming ahead hides the commit
 * that must precede a call. What survives a crash: the lease, written before anything here hands a
 * task on.
 */
#include <stdlib.h>

#include "broker/broker.h"
#include "common/check.h"
#include "common/log.h"

/* Tasks armed beyond the free places: enough to outlast a commit, no more than that, because each
 * may count an attempt of unknown outcome when the power goes. */
#define AHEAD_MIN 16
#define AHEAD_START 64
#define AHEAD_MAX SL_ARMED_MAX
#define ARM_BYTES_MAX (4 * SL_MIB) /* one operation */

/* ---- arm ------------------------------------------------------------------------------------- */

struct arm_op {
    struct sl_op op;
    struct sl_broker *broker;
    uint32_t supply;
    uint64_t calls_before; /* of its provider */
    struct sl_arm_request request;
    struct sl_arm_reply reply;
    struct sl_armed armed[SL_ROUTE_TAKE_MAX];
};

static enum sl_err run_arm(struct sl_op *op, struct sl_store *store)
{
    struct arm_op *own = SL_CONTAINER_OF(op, struct arm_op, op);

    return sl_store_arm(store, &own->request, &own->reply);
}

static uint32_t queued_us(const struct sl_broker *broker, int64_t accepted_ms)
{
    int64_t waited_us = broker->now.wall_ns / 1000 - accepted_ms * 1000;

    return waited_us < 0 ? 0 : (uint32_t)SL_MIN(waited_us, (int64_t)UINT32_MAX);
}

static uint32_t ahead_of(const struct sl_provider_state *state)
{
    return state->ahead != 0 ? state->ahead : AHEAD_START;
}

/* A provider's stock follows what a commit costs at the speed of now: it grows fourfold when places
 * stood free while a commit was awaited, and shrinks slowly towards twice what was sent meanwhile.
 */
static void adapt_ahead(struct sl_provider_state *state, uint64_t calls_before)
{
    uint64_t sent = state->calls >= calls_before ? state->calls - calls_before : 0;
    uint32_t want = (uint32_t)SL_MIN(sent * 2, (uint64_t)AHEAD_MAX);
    uint32_t ahead = ahead_of(state);

    if (state->has_starved) {
        ahead = SL_MIN(ahead * 4, (uint32_t)AHEAD_MAX);
    } else if (ahead > want) {
        ahead -= (ahead - want) / 16;
    }
    state->ahead = SL_MAX(ahead, (uint32_t)AHEAD_MIN);
    state->has_starved = false;
}

static void add_armed(struct sl_broker *broker, const struct sl_armed *armed,
                      struct sl_body_batch *batch)
{
    const struct sl_supply *supply = &broker->supplies[armed->supply];
    struct sl_call *call = sl_calls_add(&broker->calls, armed->task, SL_CALL_ARMED);

    SL_ASSERT(call != NULL); /* places were counted before asking */
    call->lease = armed->lease;
    call->supply = armed->supply;
    call->timeout_ms = armed->timeout_ms;
    call->attempt = armed->attempt;
    call->deaths = armed->deaths;
    call->max_attempts = armed->max_attempts;
    call->priority = armed->priority;
    call->flags = armed->flags;
    call->endpoint = armed->endpoint;
    call->accepted_ms = armed->accepted_ms;
    call->deadline_ms = armed->deadline_ms;
    call->batch = batch;
    call->body_at = armed->body_at;
    call->body_bytes = armed->body_bytes;
    batch->refs++;
    if (supply->provider_idx != SL_SUPPLY_NO_PROVIDER) {
        broker->providers[supply->provider_idx].armed_bytes += call->body_bytes;
        sl_call_list_add(&broker->providers[supply->provider_idx].armed, call);
    }
}

static void take_armed(struct sl_broker *broker, struct arm_op *own)
{
    struct sl_body_batch *batch = own->reply.count > 0 ? calloc(1, sizeof(*batch)) : NULL;

    if (batch == NULL) {
        SL_ASSERT(own->reply.count ==
                  0); /* 24 bytes: nothing sensible could be done without them */
        free(own->reply.bytes);
        return;
    }
    batch->bytes = own->reply.bytes;
    batch->size = own->reply.bytes_size;
    for (size_t i = 0; i < own->reply.count; i++) {
        add_armed(broker, &own->armed[i], batch);
    }
}

/* The supply is not arming any more; what was asked for and not found is free again. */
static void end_arming(struct sl_broker *broker, const struct arm_op *own)
{
    struct sl_supply *supply = &broker->supplies[own->supply];
    uint32_t asked = own->request.count_max;

    SL_ASSERT(supply->arming == asked);
    supply->arming = 0;
    broker->arming -= asked;
    if (supply->provider_idx != SL_SUPPLY_NO_PROVIDER) {
        broker->providers[supply->provider_idx].arming -= asked;
        sl_route_note_ended(broker->route, supply->route_idx, asked - (uint32_t)own->reply.count);
    }
    if (own->reply.has_more || supply->was_filled) {
        sl_supply_mark_ready(broker, own->supply);
    }
}

/* A reload removed the provider meanwhile: the tasks go back, and wait. */
static void return_armed(struct sl_broker *broker, const struct arm_op *own)
{
    struct sl_call_end end = {.err = SL_OK, .is_unstarted = true};

    if (broker->supplies[own->supply].provider_idx != SL_SUPPLY_NO_PROVIDER) {
        return;
    }
    for (size_t i = 0; i < own->reply.count; i++) {
        sl_dispatch_end(broker, sl_calls_find(&broker->calls, own->armed[i].task), &end);
    }
}

static void done_arm(struct sl_op *op)
{
    struct arm_op *own = SL_CONTAINER_OF(op, struct arm_op, op);
    struct sl_broker *broker = own->broker;

    end_arming(broker, own);
    if (broker->supplies[own->supply].provider_idx != SL_SUPPLY_NO_PROVIDER) {
        adapt_ahead(&broker->providers[broker->supplies[own->supply].provider_idx],
                    own->calls_before);
    }
    take_armed(broker, own);
    return_armed(broker, own);
    if (own->reply.expired + own->reply.damaged > 0) {
        for (size_t i = 0; i < SL_CLIENTS_MAX; i++) { /* ended without a call, in any job */
            struct sl_conn *conn = &broker->conns[i];
            if (conn->serial != 0 && conn->watch.is_active) {
                conn->watch.is_due = true;
                sl_watch_continue(conn);
            }
        }
    }
    free(own);
    if (broker->state != SL_BROKER_RUNNING) {
        sl_dispatch_disarm_all(broker);
    }
}

static uint32_t provider_limit(const struct sl_broker *broker, uint32_t idx)
{
    uint32_t own = broker->config->providers[idx].concurrency;

    return own == 0 ? broker->config->concurrency : SL_MIN(own, broker->config->concurrency);
}

/* Places are free and its stock is empty: the provider waits for us. */
static bool has_nothing_to_send(const struct sl_broker *broker, uint32_t provider_idx)
{
    const struct sl_provider_state *state = &broker->providers[provider_idx];

    return state->armed.count == 0 && state->in_flight < provider_limit(broker, provider_idx) &&
           broker->in_flight < broker->config->concurrency;
}

static bool start_arm(struct sl_broker *broker, const struct sl_route_pick *pick)
{
    struct arm_op *own = malloc(sizeof(*own));
    uint32_t idx = broker->route_supply[pick->supply];
    struct sl_supply *supply = &broker->supplies[idx];

    if (own == NULL) {
        return false; /* it stays ready: tried again next turn */
    }
    sl_route_mark_empty(broker->route, pick->supply);
    supply->was_filled = false;
    memset(own, 0, offsetof(struct arm_op, armed));
    own->broker = broker;
    own->supply = idx;
    own->calls_before = broker->providers[pick->provider_idx].calls;
    own->request = (struct sl_arm_request){.supply = idx,
                                           .count_max = pick->count,
                                           .bytes_max = ARM_BYTES_MAX,
                                           .now_ms = broker->now.wall_ns / SL_NS_PER_MS};
    own->reply.armed = own->armed;
    own->op = (struct sl_op){.run = run_arm,
                             .done = done_arm,
                             .cost_bytes = SL_KIB,
                             .is_urgent = has_nothing_to_send(broker, pick->provider_idx)};
    supply->arming = pick->count;
    broker->arming += pick->count;
    broker->providers[pick->provider_idx].arming += pick->count;
    sl_route_note_taken(broker->route, pick->supply, pick->count);
    sl_commit_add(broker->commit, &own->op);
    return true;
}

static uint32_t room(uint32_t limit, uint32_t used)
{
    return used < limit ? limit - used : 0;
}

/* What may be armed for a provider now. Nothing while half of its stock is left: asking for a few
 * would cost a commit for a few. Each has a stock of its own, so that one that hangs keeps nobody
 * else waiting. */
static uint32_t provider_places(const struct sl_broker *broker, uint32_t idx)
{
    const struct sl_provider_state *state = &broker->providers[idx];
    uint32_t stock = state->armed.count + state->arming;
    uint32_t ahead = ahead_of(state);

    if (stock > ahead / 2 || state->armed_bytes >= SL_ARMED_BYTES_MAX) {
        return 0;
    }
    return room(provider_limit(broker, idx) + ahead, state->in_flight + stock);
}

static void fill_limits(const struct sl_broker *broker, struct sl_route_limits *limits)
{
    limits->places = room((uint32_t)broker->calls.free_count, broker->arming);
    for (uint32_t i = 0; i < broker->config->provider_count; i++) {
        limits->provider_places[i] = provider_places(broker, i);
    }
}

static void arm_ahead(struct sl_broker *broker)
{
    struct sl_route_limits limits = {0};
    struct sl_route_pick pick;

    fill_limits(broker, &limits);
    while (sl_route_pick(broker->route, &limits, &pick) && start_arm(broker, &pick)) {
        fill_limits(broker, &limits);
    }
}

/* ---- send
 * ---------------------------------------------------------------------------------------- */

static void note_sent(struct sl_broker *broker, struct sl_call *call, struct sl_worker *worker,
                      uint64_t ring_position)
{
    struct sl_provider_state *state =
        &broker->providers[broker->supplies[call->supply].provider_idx];
    struct sl_call *first = sl_call_list_take(&state->armed);

    SL_ASSERT(first == call);
    sl_calls_set_state(&broker->calls, call, SL_CALL_SENT);
    call->worker = worker;
    call->generation = worker->generation;
    call->ring_position = ring_position;
    call->queued_us = queued_us(broker, call->accepted_ms);
    state->armed_bytes -= call->body_bytes;
    sl_calls_drop_body(call);
    state->in_flight++;
    state->calls++;
    broker->in_flight++;
    worker->in_flight++;
    worker->calls++;
}

static struct sl_work_msg work_of(const struct sl_call *call, size_t provider_bytes)
{
    return (struct sl_work_msg){
        .task = call->task,
        .attempt = call->attempt,
        .kind = SL_WORK_CALL,
        .endpoint = call->endpoint,
        .timeout_ms = call->timeout_ms,
        .provider_bytes = (uint32_t)provider_bytes,
        .body_bytes = (uint32_t)call->body_bytes,
    };
}

static bool send_in_ring(struct sl_broker *broker, struct sl_call *call, struct sl_worker *worker)
{
    const char *provider = broker->supplies[call->supply].provider;
    size_t provider_bytes = strlen(provider);
    struct sl_ring_claim claim;
    uint64_t position = worker->lane->out.tail;
    enum sl_err err =
        sl_ring_reserve(&worker->lane->out, provider_bytes + call->body_bytes, &claim);

    if (err != SL_OK) {
        return false; /* full; or damaged, which the next poll finds */
    }
    struct sl_work_msg msg = work_of(call, provider_bytes);
    memcpy(claim.msg, &msg, sizeof(msg));
    memcpy(claim.payload, provider, provider_bytes);
    memcpy(claim.payload + provider_bytes, call->batch->bytes + call->body_at, call->body_bytes);
    sl_ring_publish(&worker->lane->out);
    worker->must_ring = true;
    note_sent(broker, call, worker, position);
    return true;
}

static bool send_beside_ring(struct sl_broker *broker, struct sl_call *call,
                             struct sl_worker *worker)
{
    const char *provider = broker->supplies[call->supply].provider;
    struct sl_span parts[] = {sl_span_str(provider),
                              sl_span_of(call->batch->bytes + call->body_at, call->body_bytes)};
    struct sl_work_msg msg = work_of(call, parts[0].len);
    char bytes[SL_SLOT_BYTES + 64];
    struct sl_wire_writer writer;
    int fd = -1;

    sl_wire_writer_init(&writer, bytes, sizeof(bytes));
    if (sl_shm_large_create(parts, SL_ARRAY_LEN(parts), &fd) != SL_OK) {
        return false; /* no memory now: tried again next turn */
    }
    bool is_sent = sl_wire_put_slot(&writer, SL_FRAME_LARGE_WORK, &msg, sizeof(msg)) == SL_OK &&
                   sl_conn_send_fds(worker->conn, bytes, writer.len, &fd, 1);
    sl_os_close(&fd);
    if (is_sent) {
        note_sent(broker, call, worker, UINT64_MAX);
    }
    return is_sent;
}

static bool send_one(struct sl_broker *broker, struct sl_call *call)
{
    struct sl_worker *worker = sl_workers_pick(broker);

    if (worker == NULL) {
        return false;
    }
    size_t payload = strlen(broker->supplies[call->supply].provider) + call->body_bytes;
    return payload <= SL_LANE_PAYLOAD_BYTES_MAX ? send_in_ring(broker, call, worker)
                                                : send_beside_ring(broker, call, worker);
}

/* The next armed call of a provider whose time has not run out; the others end here, never called.
 */
static struct sl_call *next_armed(struct sl_broker *broker, struct sl_provider_state *state)
{
    int64_t now_ms = broker->now.wall_ns / SL_NS_PER_MS;
    struct sl_call_end late = {.err = SL_ERR_EXPIRED, .is_unstarted = true};

    while (state->armed.first != NULL && state->armed.first->deadline_ms != 0 &&
           state->armed.first->deadline_ms <= now_ms) {
        sl_dispatch_end(broker, state->armed.first, &late);
    }
    return state->armed.first;
}

/* Providers take turns, a call each, so that none waits behind another's stock. */
static void send_armed(struct sl_broker *broker)
{
    bool has_sent = true;

    while (has_sent) {
        has_sent = false;
        for (uint32_t i = 0; i < broker->config->provider_count; i++) {
            struct sl_provider_state *state = &broker->providers[i];
            if (broker->in_flight >= broker->config->concurrency ||
                state->in_flight >= provider_limit(broker, i)) {
                continue;
            }
            struct sl_call *call = next_armed(broker, state);
            if (call == NULL) {
                continue;
            }
            if (!send_one(broker, call)) {
                return;
            }
            has_sent = true;
        }
    }
}

void sl_dispatch_run(struct sl_broker *broker)
{
    if (broker->state != SL_BROKER_RUNNING) {
        return;
    }
    send_armed(broker);
    for (uint32_t i = 0; i < broker->config->provider_count; i++) {
        struct sl_provider_state *state = &broker->providers[i];
        state->has_starved |= state->arming > 0 && has_nothing_to_send(broker, i);
    }
    arm_ahead(broker);
}

/* ---- delayed tasks
 * ---------------------------------------------------------------------------------- */

struct promote_op {
    struct sl_op op;
    struct sl_broker *broker;
    int64_t now_ms;
    struct sl_promote_reply reply;
};

static enum sl_err run_promote(struct sl_op *op, struct sl_store *store)
{
    struct promote_op *own = SL_CONTAINER_OF(op, struct promote_op, op);

    return sl_store_promote(store, own->now_ms, &own->reply);
}

static void done_promote(struct sl_op *op)
{
    struct promote_op *own = SL_CONTAINER_OF(op, struct promote_op, op);
    struct sl_broker *broker = own->broker;

    broker->is_promoting = false;
    SL_ASSERT(broker->delayed >= own->reply.count);
    broker->delayed -= own->reply.count;
    for (uint32_t i = 0; i < own->reply.count; i++) {
        sl_supply_mark_ready(broker, own->reply.supplies[i]);
    }
    sl_dispatch_note_due(broker, own->reply.next_due_ms);
    free(own);
}

void sl_dispatch_note_due(struct sl_broker *broker, int64_t due_ms)
{
    broker->next_due_ms = SL_MIN(broker->next_due_ms, due_ms);
}

void sl_dispatch_promote(struct sl_broker *broker)
{
    int64_t now_ms = broker->now.wall_ns / SL_NS_PER_MS;

    if (broker->is_promoting || broker->next_due_ms > now_ms) {
        return;
    }
    struct promote_op *own = calloc(1, sizeof(*own));
    if (own == NULL) {
        return; /* the next turn tries again */
    }
    own->broker = broker;
    own->now_ms = now_ms;
    own->op = (struct sl_op){.run = run_promote, .done = done_promote, .cost_bytes = 64 * SL_KIB};
    broker->is_promoting = true;
    broker->next_due_ms = INT64_MAX;
    sl_commit_add(broker->commit, &own->op);
}
