/*
 * Listening sockets and event loops of the stub.
 *
 * Runs in sluice-stub only. Loop 0 is the main thread's and has the signals; further loops are
 * threads with own sockets on the same port (SO_REUSEPORT: the kernel spreads the connections).
 * They share the desk alone. A loop reads the clock once per turn. When descriptors run out it
 * stops accepting until a connection closes, instead of spinning. It never blocks outside
 * epoll_wait. Errors at start are reported by the caller. Nothing survives the process.
 */
#include "tests/stub/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "common/os.h"
#include "tests/stub/conn.h"

#define BACKLOG 4096
#define EVENTS_PER_TURN 256
#define ACCEPTS_PER_TURN 64
#define WAIT_MS_MAX 60000

struct worker {
    struct sl_stub_loop loop;
    struct sl_stub_server *server;
    int listen_fd;
    bool is_listening;
    bool is_stopping;
    pthread_t thread;
};

struct sl_stub_server {
    struct sockaddr_in address;
    int signal_fd;
    int stop_fd; /* readable for ever once it is time to stop */
    size_t worker_count;
    struct worker workers[SL_STUB_THREADS_MAX];
};

/* ---- start ----------------------------------------------------------------------------------- */

static bool watch(int epoll_fd, int fd, void *data)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = data};

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Binds to the server's address; the first socket fixes the port for the others. */
static int open_listener(struct sl_stub_server *server)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    socklen_t len = sizeof(server->address);

    if (fd < 0) {
        return -1;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        (server->worker_count > 1 &&
         setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) ||
        bind(fd, (const struct sockaddr *)&server->address, sizeof(server->address)) != 0 ||
        listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&server->address, &len) != 0) {
        sl_os_close(&fd);
    }
    return fd;
}

static bool open_worker(struct sl_stub_server *server, size_t idx, struct sl_stub_desk *desk)
{
    struct worker *worker = &server->workers[idx];

    worker->server = server;
    worker->loop.desk = desk;
    worker->loop.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    worker->listen_fd = open_listener(server);
    worker->is_listening = true;
    return worker->loop.epoll_fd >= 0 && worker->listen_fd >= 0 &&
           watch(worker->loop.epoll_fd, worker->listen_fd, worker) &&
           watch(worker->loop.epoll_fd, server->stop_fd, &server->stop_fd) &&
           (idx > 0 || watch(worker->loop.epoll_fd, server->signal_fd, &server->signal_fd));
}

static bool fill_address(struct sl_stub_server *server, const struct sl_stub_options *options)
{
    server->address.sin_family = AF_INET;
    server->address.sin_port = htons(options->port);
    return inet_pton(AF_INET, options->host, &server->address.sin_addr) == 1;
}

struct sl_stub_server *sl_stub_server_open(const struct sl_stub_options *options,
                                           struct sl_stub_desk *desk, int signal_fd,
                                           const char **reason)
{
    struct sl_stub_server *server = calloc(1, sizeof(*server));

    *reason = "cannot start";
    if (server == NULL) {
        return NULL;
    }
    server->signal_fd = signal_fd;
    server->worker_count = (size_t)options->threads;
    server->stop_fd = -1;
    for (size_t i = 0; i < SL_STUB_THREADS_MAX; i++) {
        server->workers[i].listen_fd = -1;
        server->workers[i].loop.epoll_fd = -1;
    }
    errno = EINVAL;
    *reason = "cannot listen there; --listen wants an IPv4 address and a free port";
    bool is_open = fill_address(server, options) && sl_os_event_fd(&server->stop_fd) == SL_OK;
    for (size_t i = 0; is_open && i < server->worker_count; i++) {
        is_open = open_worker(server, i, desk);
    }
    if (!is_open) {
        sl_stub_server_close(&server);
    }
    return server;
}

uint16_t sl_stub_server_port(const struct sl_stub_server *server)
{
    return ntohs(server->address.sin_port);
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void stop_listening(struct worker *worker)
{
    (void)epoll_ctl(worker->loop.epoll_fd, EPOLL_CTL_DEL, worker->listen_fd, NULL);
    worker->is_listening = false;
}

static void accept_some(struct worker *worker)
{
    int on = 1;

    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(worker->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE) && worker->loop.conn_count > 0) {
            stop_listening(worker);
        }
        if (fd < 0) {
            return;
        }
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (!sl_stub_conn_open(&worker->loop, fd)) {
            return;
        }
    }
}

/* A connection has gone since: there is a descriptor again. */
static void listen_again(struct worker *worker, size_t conn_count_before)
{
    if (!worker->is_listening && worker->loop.conn_count < conn_count_before) {
        worker->is_listening = watch(worker->loop.epoll_fd, worker->listen_fd, worker);
    }
}

/* ---- turning --------------------------------------------------------------------------------- */

static void take_signals(struct worker *worker)
{
    for (int number = sl_os_next_signal(worker->server->signal_fd); number != 0;
         number = sl_os_next_signal(worker->server->signal_fd)) {
        if (number == SIGUSR1) {
            sl_stub_desk_flush(worker->loop.desk);
        } else {
            sl_os_event_signal(worker->server->stop_fd);
        }
    }
}

static void dispatch(struct worker *worker, const struct epoll_event *event)
{
    void *data = event->data.ptr;

    if (data == worker) {
        accept_some(worker);
    } else if (data == &worker->server->stop_fd) {
        worker->is_stopping = true;
    } else if (data == &worker->server->signal_fd) {
        take_signals(worker);
    } else {
        sl_stub_conn_event(&worker->loop, data, event->events);
    }
}

static int wait_ms_of(struct worker *worker)
{
    int64_t now_ns = worker->loop.now.mono_ns;
    int wait_ms = sl_stub_desk_tick(worker->loop.desk, now_ns, WAIT_MS_MAX);

    return sl_time_left_ms(sl_stub_timers_next_ns(&worker->loop.timers), now_ns, wait_ms);
}

static void turn(struct worker *worker)
{
    struct epoll_event events[EVENTS_PER_TURN];
    size_t conn_count = worker->loop.conn_count;
    struct sl_stub_timer *timer;
    int count = epoll_wait(worker->loop.epoll_fd, events, EVENTS_PER_TURN, wait_ms_of(worker));

    worker->loop.now = sl_clock_now();
    for (int i = 0; i < count; i++) {
        dispatch(worker, &events[i]);
    }
    /* Timers set in this turn wait for the next, or a pause of 0 ms would never end it. */
    size_t due_max = worker->loop.timers.count;
    while (due_max-- > 0 && (timer = sl_stub_timers_take_due(&worker->loop.timers,
                                                             worker->loop.now.mono_ns)) != NULL) {
        sl_stub_conn_due(&worker->loop, timer);
    }
    listen_again(worker, conn_count);
}

static void *run_worker(void *argument)
{
    struct worker *worker = argument;

    worker->loop.now = sl_clock_now();
    while (!worker->is_stopping) {
        turn(worker);
    }
    return NULL;
}

void sl_stub_server_run(struct sl_stub_server *server)
{
    for (size_t i = 1; i < server->worker_count; i++) {
        SL_ASSERT(
            pthread_create(&server->workers[i].thread, NULL, run_worker, &server->workers[i]) == 0);
    }
    (void)run_worker(&server->workers[0]);
    for (size_t i = 1; i < server->worker_count; i++) {
        SL_ASSERT(pthread_join(server->workers[i].thread, NULL) == 0);
    }
}

static void close_worker(struct worker *worker)
{
    while (worker->loop.conns != NULL) {
        sl_stub_conn_close(&worker->loop, worker->loop.conns);
    }
    sl_stub_timers_fini(&worker->loop.timers);
    sl_stub_text_fini(&worker->loop.scratch);
    sl_os_close(&worker->listen_fd);
    sl_os_close(&worker->loop.epoll_fd);
}

void sl_stub_server_close(struct sl_stub_server **server)
{
    for (size_t i = 0; i < (*server)->worker_count; i++) {
        close_worker(&(*server)->workers[i]);
    }
    sl_os_close(&(*server)->stop_fd);
    free(*server);
    *server = NULL;
}
