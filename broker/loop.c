/*
 * The broker's loop: one turn, timers, signals, drain.
 *
 * Loop thread (the main thread). One `now` per turn, passed down through the state. A turn: events,
 * results, timers, dispatch, one flush to the store thread, bells. Never blocks but in epoll_wait;
 * never calls a provider; never forks. What survives a crash: nothing here; the store.
 */
#include "broker/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "broker/reload.h"
#include "common/check.h"
#include "common/log.h"
#include "common/notify.h"

#define EVENTS_PER_TURN 256
#define IDLE_WAIT_MS 1000 /* longest sleep: bounds every forgotten deadline */
#define EXTEND_EVERY_NS (5 * SL_NS_PER_S)
#define EXTEND_BY "EXTEND_TIMEOUT_USEC=15000000" /* three times as long: a late turn is no end */
#define SPACE_CHECK_NS SL_NS_PER_S
#define SPACE_RESERVE_BYTES (64 * SL_MIB) /* what running work may still need */

/* ---- epoll
 * ---------------------------------------------------------------------------------------- */

enum sl_err sl_loop_watch(struct sl_broker *broker, struct sl_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    source->broker = broker;
    source->events = events;
    return epoll_ctl(broker->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) == 0 ? SL_OK
                                                                               : SL_ERR_NO_MEMORY;
}

void sl_loop_change(struct sl_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    int rc = epoll_ctl(source->broker->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);

    SL_ASSERT(rc == 0);
    source->events = events;
}

void sl_loop_unwatch(struct sl_source *source)
{
    struct sl_broker *broker = source->broker;

    epoll_ctl(broker->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    for (size_t i = 0; i < broker->collected_count; i++) {
        if (broker->collected[i] == source) {
            broker->collected[i] = NULL;
        }
    }
}

static void handle_events(struct sl_broker *broker, const struct epoll_event *events, int count)
{
    broker->collected_count = (size_t)count;
    for (int i = 0; i < count; i++) {
        broker->collected[i] = events[i].data.ptr;
    }
    for (int i = 0; i < count; i++) {
        struct sl_source *source = broker->collected[i];
        if (source != NULL) { /* not gone by an earlier event of this turn */
            source->on_event(source, events[i].events);
        }
    }
    broker->collected_count = 0;
}

/* ---- drain and end
 * ---------------------------------------------------------------------------------- */

void sl_loop_drain(struct sl_broker *broker)
{
    if (broker->state != SL_BROKER_RUNNING) {
        return;
    }
    broker->state = SL_BROKER_DRAINING;
    broker->drain_due_ns = broker->now.mono_ns + broker->config->drain_timeout_ms * SL_NS_PER_MS;
    sl_notify("STOPPING=1");
    sl_log(SL_EVENT_DRAIN, "step=begin in_flight=%u", broker->in_flight);
    sl_dispatch_disarm_all(broker);
    if (broker->options.is_private) {
        sl_workers_send_drain(broker);
    }
}

/* Calls still running are given up: their tasks go back to ready, the attempt counted. */
static void stop_now(struct sl_broker *broker, const char *why)
{
    sl_loop_drain(broker);
    if (broker->state == SL_BROKER_STOPPING) {
        return;
    }
    broker->state = SL_BROKER_STOPPING;
    sl_log(SL_EVENT_DRAIN, "step=stop why=\"%s\" returned=%u", why, broker->in_flight);
    sl_dispatch_abandon_all(broker);
}

void sl_loop_on_signal(struct sl_source *source, uint32_t events)
{
    struct sl_broker *broker = source->broker;

    for (int signal = sl_os_next_signal(source->fd); signal != 0;
         signal = sl_os_next_signal(source->fd)) {
        if (signal == SIGHUP) {
            sl_reload(broker);
            continue;
        }
        broker->signals_seen++;
        if (broker->signals_seen == 1) {
            sl_loop_drain(broker);
        } else {
            stop_now(broker, "second signal");
        }
    }
}

static bool is_over(struct sl_broker *broker)
{
    bool has_calls = broker->calls.counts[SL_CALL_SENT] > 0 ||
                     broker->calls.counts[SL_CALL_ENDING] > 0 || broker->arming > 0 ||
                     broker->calls.counts[SL_CALL_ARMED] > 0;

    if (broker->state == SL_BROKER_RUNNING || has_calls) {
        return false;
    }
    sl_conn_stop_reading(broker);
    return sl_commit_pending(broker->commit) == 0;
}

static bool is_idle(const struct sl_broker *broker)
{
    const struct sl_counters_rec *stored = &broker->stored;
    uint64_t ended = stored->completed + stored->failed + stored->cancelled + stored->expired;
    size_t workers = 0;

    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        workers += broker->workers[i].conn != NULL;
    }
    return broker->conn_count <= workers && ended == stored->submitted;
}

static void check_idle(struct sl_broker *broker)
{
    if (!broker->options.is_private || broker->state != SL_BROKER_RUNNING || !is_idle(broker)) {
        broker->idle_since_ns = broker->now.mono_ns;
        return;
    }
    if (broker->now.mono_ns - broker->idle_since_ns >=
        broker->config->idle_exit_ms * SL_NS_PER_MS) {
        sl_log(SL_EVENT_DRAIN, "step=idle after_ms=%" PRId64, broker->config->idle_exit_ms);
        sl_loop_drain(broker);
    }
}

/* ---- timers
 * ----------------------------------------------------------------------------------------- */

static void check_space(struct sl_broker *broker)
{
    uint64_t free_bytes = 0;

    if (broker->now.mono_ns - broker->space_checked_ns < SPACE_CHECK_NS) {
        return;
    }
    broker->space_checked_ns = broker->now.mono_ns;
    bool has_space = sl_os_free_bytes(broker->config->state_dir, &free_bytes) != SL_OK ||
                     free_bytes >= SPACE_RESERVE_BYTES;
    if (broker->has_space && !has_space) {
        sl_log(SL_EVENT_STORE_NO_SPACE, "state_dir=%s free_bytes=%" PRIu64,
               broker->config->state_dir, free_bytes);
    }
    broker->has_space = has_space;
}

/* A drain may outlast TimeoutStopSec; drain_timeout_s bounds it, and with it this. */
static void ask_for_time(struct sl_broker *broker)
{
    if (broker->state == SL_BROKER_DRAINING && broker->now.mono_ns >= broker->extend_due_ns) {
        sl_notify(EXTEND_BY);
        broker->extend_due_ns = broker->now.mono_ns + EXTEND_EVERY_NS;
    }
}

static void run_timers(struct sl_broker *broker)
{
    int64_t now_ns = broker->now.mono_ns;

    check_space(broker);
    check_idle(broker);
    sl_conn_make_room(broker);
    sl_conn_listen_again(broker);
    sl_dispatch_promote(broker);
    if (broker->survivors_due_ns != 0 && now_ns >= broker->survivors_due_ns) {
        sl_survivors_kill(broker);
    }
    if (broker->state == SL_BROKER_DRAINING && now_ns >= broker->drain_due_ns) {
        stop_now(broker, "drain_timeout_s");
    }
    ask_for_time(broker);
    if (broker->watchdog_ns > 0 && now_ns >= broker->watchdog_due_ns) {
        sl_notify("WATCHDOG=1");
        broker->watchdog_due_ns = now_ns + (int64_t)broker->watchdog_ns;
    }
}

static int wait_ms(struct sl_broker *broker)
{
    int64_t now_ns = broker->now.mono_ns;
    int64_t due_ns = now_ns + IDLE_WAIT_MS * SL_NS_PER_MS;

    if (!broker->is_promoting && broker->next_due_ms != INT64_MAX) {
        int64_t left_ns = broker->next_due_ms * SL_NS_PER_MS - broker->now.wall_ns;
        due_ns = SL_MIN(due_ns, sl_time_add(now_ns, SL_MAX(left_ns, 0)));
    }
    if (broker->survivors_due_ns != 0) {
        due_ns = SL_MIN(due_ns, broker->survivors_due_ns);
    }
    if (broker->state == SL_BROKER_DRAINING) {
        due_ns = SL_MIN(due_ns, broker->drain_due_ns);
    }
    int left_ms = sl_time_left_ms(due_ns, now_ns, IDLE_WAIT_MS);
    int http_ms = broker->http == NULL ? -1 : sl_http_timeout_ms(broker->http);
    return http_ms >= 0 && http_ms < left_ms ? http_ms : left_ms;
}

/* ---- a turn
 * ----------------------------------------------------------------------------------------- */

static bool must_poll_again(const struct sl_broker *broker)
{
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        if (broker->workers[i].has_results && broker->workers[i].state != SL_WORKER_FREE) {
            return true;
        }
    }
    return false;
}

static int wait_events(struct sl_broker *broker, struct epoll_event *events)
{
    bool may_sleep = sl_workers_prepare_sleep(broker) && !must_poll_again(broker);
    int timeout_ms = may_sleep ? wait_ms(broker) : 0;
    int count = epoll_wait(broker->epoll_fd, events, EVENTS_PER_TURN, timeout_ms);

    SL_ASSERT(count >= 0 || errno == EINTR); /* a debugger or a stop and continue interrupts it */
    sl_workers_wake(broker);
    return SL_MAX(count, 0);
}

static bool store_is_well(struct sl_broker *broker)
{
    const char *message;

    if (!sl_commit_failed(broker->commit, &message)) {
        return true;
    }
    sl_log(SL_EVENT_STORE_FAILED, "state_dir=%s reason=\"%s\"", broker->config->state_dir, message);
    broker->exit_status = sl_err_exit_status(SL_ERR_STORE);
    return false;
}

static void run_turn(struct sl_broker *broker, const struct epoll_event *events, int count)
{
    broker->now = sl_clock_now();
    handle_events(broker, events, count);
    sl_workers_poll(broker);
    run_timers(broker);
    sl_dispatch_run(broker);
    sl_dispatch_flush_ends(broker);
    sl_commit_flush(broker->commit);
    sl_workers_ring(broker);
    if (broker->http != NULL && sl_http_timeout_ms(broker->http) == 0) {
        sl_http_run(broker->http);
    }
    broker->loop_turns++;
    broker->loop_busy_ns += (uint64_t)(sl_clock_mono_ns() - broker->now.mono_ns);
}

void sl_loop_serve(struct sl_broker *broker)
{
    struct epoll_event events[EVENTS_PER_TURN];

    while (store_is_well(broker) && !is_over(broker)) {
        int count = wait_events(broker, events);
        run_turn(broker, events, count);
    }
    if (broker->exit_status == 0) {
        sl_log(SL_EVENT_DRAIN, "step=end completed=%" PRIu64 " failed=%" PRIu64 " waiting=%" PRIu64,
               broker->stored.completed, broker->stored.failed,
               broker->stored.submitted - broker->stored.completed - broker->stored.failed -
                   broker->stored.cancelled - broker->stored.expired);
    }
}
