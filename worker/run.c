/*
 * One worker: its loop, its signals, its end.
 *
 * Runs in a process that the parent forked; one thread, but for libcurl's resolver. A turn takes
 * the time once, then: events, the broker, work in, transfers, results out. Sleeps only in epoll
 * (or, when nothing but the broker's release is awaited, on the lane's space semaphore). Never
 * writes to disk, never decides what runs.
 *
 * SIGTERM drains; so does the parent's death, which comes as SIGTERM. SIGHUP reads the providers
 * again. What a crash loses is the calls in flight: the broker's leases cover them.
 */
#include "worker/run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "common/os.h"
#include "worker/worker.h"

#define EVENTS_PER_TURN 512
#define SLEEP_MS_MAX 1000 /* the heartbeat of an idle worker */
#define BLOCKED_MS_MAX 20 /* results wait for room and the bell may have been lost */
#define RELEASE_WAIT_NS (20 * SL_NS_PER_MS)
#define DESCRIPTORS_SPARE 128 /* of the limit: what is no provider's connection */

static const char stopped_text[] = "the worker was stopped before the answer was complete";

/* ---- open and close -------------------------------------------------------------------------- */

static enum sl_err watch(struct sl_worker *worker, int fd, enum sl_worker_tag tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)tag << SL_TAG_SHIFT};

    return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? SL_OK : SL_ERR_IO;
}

static enum sl_err open_system(struct sl_worker *worker)
{
    static const int signals[] = {SIGTERM, SIGHUP, SIGINT, 0};
    uint64_t files = sl_os_raise_file_limit();
    enum sl_err err = sl_os_signal_fd(signals, &worker->signal_fd);

    worker->running_max =
        files > UINT64_C(2) * DESCRIPTORS_SPARE
            ? (size_t)SL_MIN(files - DESCRIPTORS_SPARE, (uint64_t)SL_CONCURRENCY_MAX)
            : DESCRIPTORS_SPARE;
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (err == SL_OK) {
        err = worker->epoll_fd < 0 ? SL_ERR_IO : watch(worker, worker->signal_fd, SL_TAG_SIGNAL);
    }
    return err;
}

static enum sl_err open_parts(struct sl_worker *worker)
{
    worker->control = sl_control_open(worker->epoll_fd, (uint64_t)SL_TAG_CONTROL << SL_TAG_SHIFT);
    worker->decoder = sl_wire_decoder_open();
    worker->calls = sl_calls_open();
    worker->providers = sl_providers_open();
    worker->scanner = sl_json_scanner_open();
    if (worker->control == NULL || worker->decoder == NULL || worker->calls == NULL ||
        worker->providers == NULL || worker->scanner == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    enum sl_err err = sl_providers_load(worker->providers, worker->cfg);
    if (err != SL_OK) {
        return err;
    }
    const struct sl_transfers_options options = {
        .epoll_fd = worker->epoll_fd,
        .epoll_tag = (uint64_t)SL_TAG_TRANSFER << SL_TAG_SHIFT,
        .providers = worker->providers,
        .concurrency = worker->cfg->concurrency,
    };
    return sl_transfers_open(&options, &worker->transfers);
}

static enum sl_err worker_open(struct sl_worker *worker, const struct sl_worker_options *options)
{
    *worker = (struct sl_worker){.options = options,
                                 .epoll_fd = -1,
                                 .signal_fd = -1,
                                 .own_event_fd = -1,
                                 .broker_event_fd = -1,
                                 .reconnect_gap_ns = 50 * SL_NS_PER_MS};
    TAILQ_INIT(&worker->finished);
    TAILQ_INIT(&worker->published);
    TAILQ_INIT(&worker->large);
    TAILQ_INIT(&worker->large_sent);
    worker->now = sl_clock_now();
    worker->cfg = malloc(sizeof(*worker->cfg));
    if (worker->cfg == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    memcpy(worker->cfg, options->cfg, sizeof(*worker->cfg));
    enum sl_err err = open_system(worker);
    return err == SL_OK ? open_parts(worker) : err;
}

static void worker_close(struct sl_worker *worker)
{
    if (worker->transfers != NULL) {
        struct sl_call *call;
        sl_transfers_abort_all(worker->transfers, SL_ERR_RESET);
        while ((call = sl_transfers_next_done(worker->transfers)) != NULL) {
            sl_provider_take_from(call);
        }
    }
    if (worker->control != NULL) {
        sl_link_close(worker);
    }
    sl_transfers_close(&worker->transfers);
    sl_providers_close(&worker->providers);
    sl_calls_close(&worker->calls);
    sl_json_scanner_close(&worker->scanner);
    sl_wire_decoder_close(&worker->decoder);
    sl_control_close(&worker->control);
    sl_os_close(&worker->signal_fd);
    sl_os_close(&worker->epoll_fd);
    free(worker->cfg);
}

/* ---- signals and the end --------------------------------------------------------------------- */

static void hand_back_waiting(struct sl_worker *worker)
{
    struct sl_call_list waiting = TAILQ_HEAD_INITIALIZER(waiting);

    sl_transfers_take_waiting(worker->transfers, &waiting);
    while (!TAILQ_EMPTY(&waiting)) {
        struct sl_call *call = TAILQ_FIRST(&waiting);
        TAILQ_REMOVE(&waiting, call, link);
        sl_publish_unmade(worker, call, SL_ERR_DRAINING, SL_RESULT_NOT_STARTED);
    }
}

void sl_worker_begin_drain(struct sl_worker *worker, const char *why)
{
    if (worker->is_draining) {
        return;
    }
    worker->is_draining = true;
    worker->drain_due_ns =
        sl_time_add(worker->now.mono_ns, worker->cfg->drain_timeout_ms * SL_NS_PER_MS);
    sl_log(SL_EVENT_DRAIN, "begins calls=%zu running=%zu: %s", sl_calls_count(worker->calls),
           sl_transfers_running(worker->transfers), why);
    hand_back_waiting(worker);
    sl_link_send_leaving(worker);
}

static void reload(struct sl_worker *worker)
{
    struct sl_config *cfg = malloc(sizeof(*cfg));
    struct sl_config_fault fault;

    if (cfg == NULL) {
        return;
    }
    enum sl_err err = sl_config_load(worker->options->config_path, cfg, &fault);
    if (err == SL_OK) {
        err = sl_providers_load(worker->providers, cfg);
        snprintf(fault.text, sizeof(fault.text), "%s", sl_err_meaning(err));
    }
    if (err != SL_OK) {
        sl_log(SL_EVENT_CONFIG_ERROR, "the settings before stay in use: %s", fault.text);
        free(cfg);
        return;
    }
    sl_transfers_set_concurrency(worker->transfers, cfg->concurrency);
    sl_config_keep_running(worker->cfg, cfg);
    sl_log_set_level(SL_MAX(worker->cfg->log_level, cfg->log_level));
    sl_log(SL_EVENT_CONFIG_RELOADED, "providers=%u", cfg->provider_count);
    sl_log_set_level(cfg->log_level);
    free(worker->cfg);
    worker->cfg = cfg;
}

static void handle_signals(struct sl_worker *worker)
{
    int signal;

    while ((signal = sl_os_next_signal(worker->signal_fd)) != 0) {
        if (signal == SIGTERM) {
            sl_worker_begin_drain(worker, "SIGTERM");
        } else if (signal == SIGHUP) {
            reload(worker);
        } /* SIGINT comes to a whole terminal: the parent decides what it means */
    }
}

/* The message tells these from connections that broke by themselves. */
static void break_off(struct sl_worker *worker)
{
    struct sl_call *call;

    sl_transfers_abort_all(worker->transfers, SL_ERR_RESET);
    while ((call = sl_transfers_next_done(worker->transfers)) != NULL) {
        memcpy(call->answer.message, stopped_text, sizeof(stopped_text));
        sl_publish_done(worker, call);
    }
}

static void drain_tick(struct sl_worker *worker)
{
    int64_t end_ns = sl_time_add(worker->drain_due_ns, SL_DRAIN_GRACE_MS * SL_NS_PER_MS);

    if (!worker->is_draining) {
        return;
    }
    if (worker->now.mono_ns >= worker->drain_due_ns) {
        break_off(worker);
        sl_publish_results(worker);
    }
    size_t left = sl_calls_count(worker->calls);
    if (left == 0 || worker->now.mono_ns >= end_ns) {
        sl_log(SL_EVENT_DRAIN, "ends not_handed_over=%zu", left);
        worker->is_over = true;
    }
}

/* A private pair belongs to nobody who would stop it: without its broker it ends by itself. */
static void private_tick(struct sl_worker *worker)
{
    int64_t wait_ms = SL_MAX(worker->cfg->idle_exit_ms, (int64_t)SL_PRIVATE_WAIT_MS);

    if (worker->lane != NULL || worker->alone_since_ns == 0) {
        worker->alone_since_ns = worker->now.mono_ns;
    } else if (worker->options->is_private &&
               worker->now.mono_ns - worker->alone_since_ns > wait_ms * SL_NS_PER_MS) {
        sl_worker_begin_drain(worker, "a private worker without its broker");
    }
}

static int64_t drain_due_ns(const struct sl_worker *worker)
{
    int64_t end_ns = sl_time_add(worker->drain_due_ns, SL_DRAIN_GRACE_MS * SL_NS_PER_MS);

    if (!worker->is_draining) {
        return INT64_MAX;
    }
    return worker->drain_due_ns > worker->now.mono_ns ? worker->drain_due_ns : end_ns;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void dispatch(struct sl_worker *worker, const struct epoll_event *event)
{
    switch ((enum sl_worker_tag)(event->data.u64 >> SL_TAG_SHIFT)) {
    case SL_TAG_CONTROL:
        sl_link_event(worker, event->events);
        return;
    case SL_TAG_BELL:
        /* The ring is looked at in every turn; but a bell rung late, after we got up, must not stay
         * readable: it would end every look for events at once. */
        sl_os_event_clear(worker->own_event_fd);
        return;
    case SL_TAG_SIGNAL:
        handle_signals(worker);
        return;
    case SL_TAG_TRANSFER:
        sl_transfers_event(worker->transfers, (int)(uint32_t)event->data.u64, event->events);
        return;
    }
    SL_UNREACHABLE();
}

static bool has_work_now(struct sl_worker *worker)
{
    if (sl_transfers_due_ns(worker->transfers) <= worker->now.mono_ns) {
        return true;
    }
    return worker->lane != NULL && sl_ring_has_items(&worker->lane->in) && sl_take_has_room(worker);
}

static int sleep_ms(const struct sl_worker *worker)
{
    int64_t due_ns = SL_MIN(sl_transfers_due_ns(worker->transfers), sl_link_due_ns(worker));
    bool is_blocked =
        worker->lane != NULL && (sl_publish_is_blocked(worker) || !sl_take_has_room(worker));

    due_ns = SL_MIN(due_ns, drain_due_ns(worker));
    return sl_time_left_ms(due_ns, worker->now.mono_ns, is_blocked ? BLOCKED_MS_MAX : SLEEP_MS_MAX);
}

static int wait_events(struct sl_worker *worker, struct epoll_event *events, int timeout_ms)
{
    int count = epoll_wait(worker->epoll_fd, events, EVENTS_PER_TURN, timeout_ms);

    SL_ASSERT(count >= 0 || errno == EINTR);
    return SL_MAX(count, 0);
}

/* Arms the bells, looks once more, sleeps. */
static int sleep_in_epoll(struct sl_worker *worker, struct epoll_event *events)
{
    struct sl_lane *lane = worker->lane;
    int timeout_ms = sleep_ms(worker);

    if (lane == NULL) {
        return wait_events(worker, events, timeout_ms);
    }
    /* Only where a release lets us go on: else it would wake us for every commit. */
    bool must_watch_space =
        worker->is_draining || sl_publish_is_blocked(worker) || !sl_take_has_room(worker);
    sl_bell_arm(&lane->in_bell);
    if (must_watch_space) {
        sl_bell_arm(&lane->space_bell);
    }
    int count = wait_events(worker, events, has_work_now(worker) ? 0 : timeout_ms);
    sl_bell_disarm(&lane->in_bell);
    if (must_watch_space) {
        sl_bell_disarm(&lane->space_bell);
    }
    return count;
}

/* Draining, and nothing but the broker's releases is awaited. */
static bool awaits_releases_only(const struct sl_worker *worker)
{
    return worker->is_draining && worker->lane != NULL && worker->published_count > 0 &&
           worker->published_count == sl_calls_count(worker->calls);
}

static void wait_turn(struct sl_worker *worker)
{
    static struct epoll_event events[EVENTS_PER_TURN];
    int count;

    if (awaits_releases_only(worker)) {
        (void)sl_bell_wait(&worker->lane->space_bell,
                           sl_time_add(worker->now.mono_ns, RELEASE_WAIT_NS));
        count = wait_events(worker, events, 0);
    } else {
        /* A busy worker finds events without lying down: no bell, no wake-up. */
        count = wait_events(worker, events, 0);
        if (count == 0 && !has_work_now(worker)) {
            count = sleep_in_epoll(worker, events);
        }
    }
    worker->now = sl_clock_now();
    sl_transfers_begin_turn(worker->transfers, worker->now.mono_ns);
    for (int i = 0; i < count; i++) {
        dispatch(worker, &events[i]);
    }
}

/* ---- the turn -------------------------------------------------------------------------------- */

static void report(struct sl_worker *worker)
{
    const struct sl_worker_stats stats = {
        .calls = sl_transfers_started(worker->transfers),
        .in_flight = sl_transfers_running(worker->transfers),
        .heartbeat_ns = worker->now.mono_ns,
    };

    if (worker->lane != NULL) {
        sl_lane_set_stats(worker->lane, &stats);
    }
}

static void turn(struct sl_worker *worker)
{
    struct sl_call *call;

    sl_link_tick(worker);
    if (worker->lane != NULL) {
        sl_take_work(worker);
    }
    sl_transfers_tick(worker->transfers);
    while ((call = sl_transfers_next_done(worker->transfers)) != NULL) {
        sl_publish_done(worker, call);
    }
    sl_publish_results(worker);
    report(worker);
    private_tick(worker);
    drain_tick(worker);
}

int sl_worker_run(const struct sl_worker_options *options)
{
    static struct sl_worker worker;
    enum sl_err err = worker_open(&worker, options);

    if (err == SL_OK) {
        sl_transfers_begin_turn(worker.transfers, worker.now.mono_ns);
        turn(&worker);
    } else {
        sl_log(SL_EVENT_FAILED, "start error=%s: %s", sl_err_code(err), strerror(errno));
        worker.is_over = true;
        worker.exit_status = sl_err_exit_status(err);
    }
    while (!worker.is_over) {
        wait_turn(&worker);
        turn(&worker);
    }
    int exit_status = worker.exit_status;
    worker_close(&worker);
    return exit_status;
}
