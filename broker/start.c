/*
 * The broker from its first to its last step: open everything in order, serve, close everything.
 *
 * Main thread. The order matters: signals are blocked before a thread exists, the lock comes before
 * the store, the store before the socket, so that nobody connects to a broker that cannot accept.
 * Every failure is logged once with its cause and advice, and gives the exit status.
 */
#include "broker/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "common/notify.h"

#define ENDING_SPARE 16384 /* calls whose end is on its way to disk */
#define SOCKET_MODE 0660
#define KEEP_BYTES (8 * SL_MIB) /* frames and dirty pages of a batch, again and again */

static void on_store(struct sl_source *source, uint32_t events)
{
    struct sl_broker *broker = source->broker;

    sl_os_event_clear(source->fd);
    sl_commit_finish(broker->commit, &broker->stored);
    sl_conn_resume_all(broker);
}

static void on_http(struct sl_source *source, uint32_t events)
{
    sl_http_run(source->broker->http);
}

static void refresh_for_http(void *ctx)
{
    sl_status_refresh(ctx);
}

static enum sl_err fail(enum sl_err err, const char *what, const char *detail)
{
    sl_log(SL_EVENT_FAILED, "code=%s what=\"%s: %s\" advice=\"%s\"", sl_err_code(err), what, detail,
           sl_err_advice(err));
    return err;
}

static enum sl_err take_memory(struct sl_broker *broker)
{
    broker->conns = calloc(SL_CLIENTS_MAX, sizeof(*broker->conns));
    broker->supplies = calloc(SL_SUPPLIES_MAX, sizeof(*broker->supplies));
    broker->route = calloc(1, sizeof(*broker->route));
    broker->decoder = sl_wire_decoder_open();
    if (broker->conns == NULL || broker->supplies == NULL || broker->route == NULL ||
        broker->decoder == NULL) {
        return fail(SL_ERR_NO_MEMORY, "start", "no memory");
    }
    sl_route_init(broker->route);
    /* Room for everything a former run may have left in flight, too. */
    return sl_calls_init(&broker->calls, SL_ARMED_MAX + SL_CONCURRENCY_MAX + ENDING_SPARE);
}

static enum sl_err lock_state_dir(struct sl_broker *broker, int *lock_fd)
{
    char path[SL_PATH_BYTES_MAX + 16];
    char detail[SL_PATH_BYTES_MAX + 64];
    pid_t holder = 0;
    const char *dir = broker->config->state_dir;
    enum sl_err err = sl_os_make_dirs(dir, 0700);

    if (err != SL_OK) {
        return fail(err, dir, strerror(errno));
    }
    snprintf(path, sizeof(path), "%s/broker.lock", dir);
    err = sl_os_lock_file(path, lock_fd, &holder);
    if (err == SL_ERR_STORE_LOCKED) {
        snprintf(detail, sizeof(detail), "another broker (pid %d) uses %s", (int)holder, dir);
        return fail(err, "state_dir", detail);
    }
    return err == SL_OK ? SL_OK : fail(err, path, strerror(errno));
}

static enum sl_err read_store(struct sl_broker *broker)
{
    enum sl_err err = sl_store_begin(broker->store);

    if (err == SL_OK) {
        err = sl_supply_load_all(broker, broker->store);
    }
    if (err == SL_OK) {
        err = sl_dispatch_load_orphans(broker, broker->store);
    }
    if (err == SL_OK) {
        err = sl_survivors_load(broker, broker->store);
    }
    if (err == SL_OK) {
        err = sl_store_count_delayed(broker->store, &broker->delayed);
    }
    if (err == SL_OK) {
        err = sl_store_commit(broker->store);
    } else {
        sl_store_abort(broker->store);
    }
    return err;
}

static enum sl_err open_store(struct sl_broker *broker)
{
    char message[256];
    enum sl_err err =
        sl_store_open(broker->config->state_dir, &broker->store, message, sizeof(message));

    if (err != SL_OK) {
        return fail(err, "store", message);
    }
    err = read_store(broker);
    if (err != SL_OK) {
        return fail(err, "store", sl_store_message(broker->store));
    }
    broker->stored = *sl_store_counters(broker->store);
    broker->next_due_ms = broker->delayed > 0 ? 0 : INT64_MAX;
    sl_log(SL_EVENT_STORE_OPEN,
           "state_dir=%s generation=%" PRIu64 " submitted=%" PRIu64 " delayed=%" PRIu64
           " leased=%u",
           broker->config->state_dir, broker->stored.generation, broker->stored.submitted,
           broker->delayed, broker->in_flight);
    err = sl_counters_create(broker->stored.generation, &broker->counters);
    return err == SL_OK ? SL_OK : fail(err, "counters", strerror(errno));
}

static enum sl_err start_store_thread(struct sl_broker *broker)
{
    enum sl_err err = sl_os_event_fd(&broker->store_events.fd);

    if (err == SL_OK) {
        err = sl_commit_open(broker->store, broker->store_events.fd, &broker->commit);
    }
    if (err == SL_OK) {
        broker->store_events.on_event = on_store;
        err = sl_loop_watch(broker, &broker->store_events, EPOLLIN);
    }
    return err == SL_OK ? SL_OK : fail(err, "store thread", strerror(errno));
}

static enum sl_err open_http(struct sl_broker *broker)
{
    struct sl_http_fault fault;
    struct sl_http_source source = {.ctx = broker,
                                    .counters = &broker->counters,
                                    .refresh = refresh_for_http,
                                    .is_ready = sl_status_is_ready};

    if (broker->config->http_listen[0] == '\0') {
        return SL_OK;
    }
    enum sl_err err = sl_http_open(broker->config->http_listen, &source, &broker->http, &fault);
    if (err != SL_OK) {
        sl_log(SL_EVENT_HTTP_FAILED, "http.listen=%s reason=\"%s\"", broker->config->http_listen,
               fault.text);
        return err;
    }
    broker->http_events.fd = sl_http_fd(broker->http);
    broker->http_events.on_event = on_http;
    return sl_loop_watch(broker, &broker->http_events, EPOLLIN);
}

/* Socket activation: systemd listens for us, so that clients wait instead of failing while the
 * broker restarts. */
static enum sl_err adopt_listener(struct sl_broker *broker, int count)
{
    const char *path = broker->config->socket_path;
    enum sl_err err = count == 1 ? sl_os_adopt_listener(SL_NOTIFY_LISTEN_FD, path) : SL_ERR_CONFIG;

    if (err != SL_OK) {
        return fail(err, path,
                    err == SL_ERR_IO
                        ? strerror(errno)
                        : "the supervisor must pass one stream socket that listens at this path");
    }
    broker->listen.fd = SL_NOTIFY_LISTEN_FD;
    broker->is_listen_adopted = true;
    return SL_OK;
}

static enum sl_err listen_at_path(struct sl_broker *broker)
{
    int passed = sl_notify_listen_count();

    if (passed > 0) {
        return adopt_listener(broker, passed);
    }
    enum sl_err err =
        sl_os_listen_unix(broker->config->socket_path, SOCKET_MODE, &broker->listen.fd);
    return err == SL_OK
               ? SL_OK
               : fail(err, broker->config->socket_path,
                      err == SL_ERR_STORE_LOCKED ? "another broker answers here" : strerror(errno));
}

static enum sl_err open_doors(struct sl_broker *broker)
{
    enum sl_err err = listen_at_path(broker);

    if (err != SL_OK) {
        return err;
    }
    broker->listen.on_event = sl_conn_on_listen;
    err = sl_loop_watch(broker, &broker->listen, EPOLLIN);
    return err == SL_OK ? open_http(broker) : err;
}

static enum sl_err open_loop(struct sl_broker *broker)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, 0};

    broker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    enum sl_err err =
        broker->epoll_fd < 0 ? SL_ERR_IO : sl_os_signal_fd(signals, &broker->signals.fd);
    if (err == SL_OK) {
        broker->signals.on_event = sl_loop_on_signal;
        err = sl_loop_watch(broker, &broker->signals, EPOLLIN);
    }
    return err == SL_OK ? SL_OK : fail(err, "event loop", strerror(errno));
}

static enum sl_err start(struct sl_broker *broker, int *lock_fd)
{
    enum sl_err err = take_memory(broker);

    if (err == SL_OK) {
        err = open_loop(broker); /* before any thread: signals are blocked in all of them */
    }
    if (err == SL_OK) {
        err = lock_state_dir(broker, lock_fd);
    }
    if (err == SL_OK) {
        err = open_store(broker);
    }
    if (err == SL_OK) {
        err = start_store_thread(broker);
    }
    return err == SL_OK ? open_doors(broker) : err;
}

static void finish(struct sl_broker *broker, int *lock_fd)
{
    for (size_t i = 0; broker->conns != NULL && i < SL_CLIENTS_MAX; i++) {
        if (broker->conns[i].serial != 0) {
            broker->conns[i].worker = NULL; /* its calls are leased and find their way */
            sl_conn_close(&broker->conns[i]);
        }
    }
    if (broker->listen.fd >= 0 && !broker->is_listen_adopted) {
        unlink(broker->config->socket_path);
    }
    if (broker->commit != NULL) {
        sl_commit_close(&broker->commit);
    }
    sl_http_close(&broker->http);
    sl_workers_close_all(broker);
    sl_survivors_close(broker);
    if (broker->store != NULL) {
        sl_store_close(&broker->store);
    }
    sl_counters_close(&broker->counters);
    sl_settle_free_all(broker);
    sl_calls_fini(&broker->calls);
    sl_wire_decoder_close(&broker->decoder);
    free(broker->route);
    free(broker->supplies);
    free(broker->conns);
    free(broker->reloaded);
    sl_os_close(&broker->listen.fd);
    sl_os_close(&broker->signals.fd);
    sl_os_close(&broker->store_events.fd);
    sl_os_close(&broker->epoll_fd);
    sl_os_close(lock_fd);
}

static struct sl_broker *new_broker(const struct sl_config *config,
                                    const struct sl_broker_options *options)
{
    struct sl_broker *broker = calloc(1, sizeof(*broker));

    if (broker == NULL) {
        return NULL;
    }
    broker->config = config;
    broker->options = *options;
    broker->now = sl_clock_now();
    broker->started_ns = broker->now.mono_ns;
    broker->idle_since_ns = broker->now.mono_ns;
    broker->space_checked_ns = INT64_MIN / 2; /* never */
    broker->has_space = true;
    broker->uid = geteuid();
    broker->epoll_fd = broker->listen.fd = broker->signals.fd = -1;
    broker->store_events.fd = broker->http_events.fd = broker->counters.memfd = -1;
    broker->next_due_ms = INT64_MAX;
    broker->watchdog_ns = (uint64_t)sl_notify_watchdog_ns();
    sl_os_random(&broker->random, sizeof(broker->random));
    return broker;
}

int sl_broker_run(const struct sl_config *config, const struct sl_broker_options *options)
{
    struct sl_broker *broker = new_broker(config, options);
    int lock_fd = -1;

    if (broker == NULL) {
        return sl_err_exit_status(SL_ERR_NO_MEMORY);
    }
    sl_os_raise_file_limit();
    sl_os_keep_memory(KEEP_BYTES);
    enum sl_err err = start(broker, &lock_fd);
    if (err == SL_OK) {
        sl_survivors_begin(broker);
        sl_dispatch_flush_ends(broker);
        sl_command_resume_purges(broker);
        sl_commit_flush(broker->commit);
        sl_notify("READY=1");
        sl_log(SL_EVENT_READY, "socket=%s concurrency=%u providers=%u", config->socket_path,
               config->concurrency, config->provider_count);
        sl_loop_serve(broker);
    } else {
        broker->exit_status = sl_err_exit_status(err);
    }
    int exit_status = broker->exit_status;
    finish(broker, &lock_fd);
    free(broker);
    return exit_status;
}
