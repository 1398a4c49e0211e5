/*
 * The parent of the workers. The only place that forks.
 *
 * Runs as the main process of sluice-worker. Forks the workers and does nothing else but watch
 * them: no libcurl, no TLS, no keys, no threads, no connection to the broker, so that there is
 * nothing in it to go wrong or to be inherited. A worker that dies is started again after a growing
 * delay; one that says its configuration is unusable ends the service, because a restart would not
 * mend it.
 *
 * SIGTERM drains: the workers get it too, and have drain_timeout and a little more. A second one,
 * or two SIGINT, kill them at once; the broker's leases cover what was in flight. SIGHUP reads the
 * configuration again and goes on to the workers. When the parent dies its workers drain
 * (PR_SET_PDEATHSIG).
 *
 * Logs worker_start, worker_exit, worker_throttled. Errors: exit status 3 and 5.
 */
#include "worker/parent.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/os.h"
#include "worker/run.h"

#define GAP_MIN_NS (100 * SL_NS_PER_MS)
#define GAP_MAX_NS (30 * SL_NS_PER_S)
#define GOOD_LIFE_NS (60 * SL_NS_PER_S)
#define STORM_NS (10 * SL_NS_PER_S)
#define DRAIN_MARGIN_NS (5 * SL_NS_PER_S)
#define EXTEND_EVERY_NS (5 * SL_NS_PER_S)
#define EXTEND_BY "EXTEND_TIMEOUT_USEC=15000000" /* three times as long: a late turn is no end */
#define SLEEP_MS_MAX 60000
#define SLOTS_MAX 64 /* worker.processes is at most this */
#define SIGNAL_DATA UINT64_MAX

struct worker_slot {
    pid_t pid; /* 0: none runs */
    int pidfd;
    int64_t started_ns;
    int64_t start_ns; /* when to start the next one, while none runs; INT64_MAX: never */
    struct sl_restart restart;
};

struct parent {
    const struct sl_parent_options *options;
    struct sl_config *cfg; /* what workers start with; read again at SIGHUP */
    pid_t pid;
    int epoll_fd;
    int signal_fd;
    struct worker_slot slots[SLOTS_MAX];
    size_t slot_count;
    size_t alive;
    int64_t now_ns;
    int64_t watchdog_gap_ns; /* 0: nobody asked */
    int64_t watchdog_ns;
    bool is_draining;
    int64_t kill_ns;   /* workers that still live then are killed */
    int64_t extend_ns; /* when to ask the supervisor for more time, while draining */
    unsigned interrupts;
    int exit_status;
};

/* ---- the delay ------------------------------------------------------------------------------- */

int64_t sl_restart_next(struct sl_restart *restart, int64_t started_ns, int64_t now_ns,
                        bool *is_storm)
{
    bool was_good = now_ns - started_ns >= GOOD_LIFE_NS;

    if (was_good || restart->gap_ns == 0) {
        restart->gap_ns = GAP_MIN_NS;
    } else {
        restart->gap_ns = SL_MIN(restart->gap_ns * 2, GAP_MAX_NS);
    }
    int64_t *oldest = &restart->deaths_ns[restart->death_count % SL_DEATHS_KEPT];
    *oldest = now_ns;
    restart->death_count++;
    /* The next place to be overwritten is the oldest of those kept. */
    int64_t first = restart->deaths_ns[restart->death_count % SL_DEATHS_KEPT];
    *is_storm = restart->death_count >= SL_DEATHS_KEPT && now_ns - first <= STORM_NS;
    return restart->gap_ns;
}

/* ---- the child ------------------------------------------------------------------------------- */

/* SIGHUP waits until it is read: by itself it would end a worker that is just starting. */
static void reset_signals(void)
{
    sigset_t blocked;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGHUP);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
}

/* Keeps the three standard descriptors. Dies with its parent: the signal is set first, and a parent
 * that died before that is seen by its pid. */
static NO_RETURN void child_main(const struct parent *parent, uint32_t slot)
{
    const struct sl_worker_options options = {
        .config_path = parent->options->config_path,
        .cfg = parent->cfg,
        .slot = slot,
        .is_private = parent->options->is_private,
    };

    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent->pid ||
        syscall(SYS_close_range, 3U, ~0U, 0U) != 0) {
        _exit(0);
    }
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#ifndef __SANITIZE_ADDRESS__ /* its leak check reads this process as a debugger would */
    sl_os_set_undumpable();
#endif
    int exit_status = sl_worker_run(&options);
    exit(exit_status);
}

/* ---- start ----------------------------------------------------------------------------------- */

static void start_later(struct parent *parent, struct worker_slot *slot)
{
    bool is_storm = false;
    int64_t gap_ns = sl_restart_next(&slot->restart, slot->started_ns, parent->now_ns, &is_storm);

    slot->start_ns = sl_time_add(parent->now_ns, gap_ns);
    if (is_storm) {
        sl_log(SL_EVENT_WORKER_THROTTLED, "slot=%zu deaths=%llu next_start_ms=%lld",
               (size_t)(slot - parent->slots), (unsigned long long)slot->restart.death_count,
               (long long)(gap_ns / SL_NS_PER_MS));
    }
}

static bool watch_child(struct parent *parent, struct worker_slot *slot)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)(slot - parent->slots)};

    slot->pidfd = sl_os_pidfd_open(slot->pid);
    return slot->pidfd >= 0 && epoll_ctl(parent->epoll_fd, EPOLL_CTL_ADD, slot->pidfd, &event) == 0;
}

static void start_worker(struct parent *parent, struct worker_slot *slot)
{
    uint32_t idx = (uint32_t)(slot - parent->slots);

    slot->started_ns = parent->now_ns;
    slot->pid = fork();
    if (slot->pid == 0) {
        reset_signals();
        child_main(parent, idx);
    }
    if (slot->pid < 0) {
        sl_log(SL_EVENT_FAILED, "fork slot=%u: %s", idx, strerror(errno));
        slot->pid = 0;
        start_later(parent, slot);
        return;
    }
    slot->start_ns = INT64_MAX;
    parent->alive++;
    if (!watch_child(parent, slot)) { /* unwatched it could die unseen: it must not run */
        sl_log(SL_EVENT_FAILED, "pidfd slot=%u: %s", idx, strerror(errno));
        kill(slot->pid, SIGKILL);
        (void)waitpid(slot->pid, NULL, 0);
        sl_os_close(&slot->pidfd);
        slot->pid = 0;
        parent->alive--;
        start_later(parent, slot);
        return;
    }
    sl_log(SL_EVENT_WORKER_START, "slot=%u worker=%d", idx, (int)slot->pid);
}

static void start_due(struct parent *parent)
{
    for (size_t i = 0; i < parent->slot_count; i++) {
        struct worker_slot *slot = &parent->slots[i];
        if (slot->pid == 0 && !parent->is_draining && slot->start_ns <= parent->now_ns) {
            start_worker(parent, slot);
        }
    }
}

/* ---- the end of workers ---------------------------------------------------------------------- */

static void signal_workers(struct parent *parent, int signal)
{
    for (size_t i = 0; i < parent->slot_count; i++) {
        if (parent->slots[i].pid != 0) {
            (void)sl_os_pidfd_kill(parent->slots[i].pidfd, signal);
        }
    }
}

static void begin_drain(struct parent *parent, int exit_status, const char *why)
{
    if (parent->is_draining) {
        return;
    }
    parent->is_draining = true;
    parent->exit_status = exit_status;
    parent->kill_ns =
        sl_time_add(parent->now_ns, parent->cfg->drain_timeout_ms * SL_NS_PER_MS + DRAIN_MARGIN_NS);
    sl_log(SL_EVENT_DRAIN, "begins workers=%zu: %s", parent->alive, why);
    sl_notify("STOPPING=1");
    signal_workers(parent, SIGTERM);
}

static void log_end(const struct parent *parent, size_t idx, int status)
{
    const struct worker_slot *slot = &parent->slots[idx];
    long long lived_ms = (long long)((parent->now_ns - slot->started_ns) / SL_NS_PER_MS);

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) { /* as it was told to */
        sl_log(SL_EVENT_STOP, "slot=%zu worker=%d status=0 lived_ms=%lld", idx, (int)slot->pid,
               lived_ms);
    } else if (WIFSIGNALED(status)) {
        sl_log(SL_EVENT_WORKER_EXIT, "slot=%zu worker=%d signal=%d lived_ms=%lld", idx,
               (int)slot->pid, WTERMSIG(status), lived_ms);
    } else {
        sl_log(SL_EVENT_WORKER_EXIT, "slot=%zu worker=%d status=%d lived_ms=%lld", idx,
               (int)slot->pid, WEXITSTATUS(status), lived_ms);
    }
}

/* What the end of a worker means for the service. */
static void judge_end(struct parent *parent, struct worker_slot *slot, int status)
{
    bool has_left = WIFEXITED(status) && WEXITSTATUS(status) == 0;

    if (WIFEXITED(status) && WEXITSTATUS(status) == SL_WORKER_EXIT_CONFIG) {
        begin_drain(parent, SL_WORKER_EXIT_CONFIG, "a worker cannot use this configuration");
    } else if (has_left && parent->options->is_private) {
        begin_drain(parent, 0, "a private pair ends with its broker");
    } else if (has_left) { /* the broker drained it: the next one waits for the next broker */
        slot->start_ns = sl_time_add(parent->now_ns, GAP_MIN_NS);
    } else {
        start_later(parent, slot);
    }
}

static void reap(struct parent *parent, size_t idx)
{
    struct worker_slot *slot = &parent->slots[idx];
    int status = 0;

    if (slot->pid == 0 || waitpid(slot->pid, &status, WNOHANG) != slot->pid) {
        return;
    }
    log_end(parent, idx, status);
    sl_os_close(&slot->pidfd); /* closing takes it out of epoll */
    slot->pid = 0;
    parent->alive--;
    judge_end(parent, slot, status);
}

/* ---- signals --------------------------------------------------------------------------------- */

static void kill_all(struct parent *parent, const char *why)
{
    sl_log(SL_EVENT_DRAIN, "ends by force workers=%zu: %s", parent->alive, why);
    parent->kill_ns = INT64_MAX;
    parent->extend_ns = INT64_MAX; /* no more time is needed */
    signal_workers(parent, SIGKILL);
}

/* Workers that run read the file themselves, and their keys; those to come start with it. A faulty
 * file is told once, here, and goes no further. */
static void reload(struct parent *parent)
{
    static struct sl_config loaded; /* large */
    struct sl_config_fault fault;
    char restart[256];

    if (sl_config_load(parent->options->config_path, &loaded, &fault) != SL_OK) {
        sl_log(SL_EVENT_CONFIG_ERROR, "the settings before stay in use: %s", fault.text);
        return;
    }
    sl_config_restart_needed(parent->cfg, &loaded, restart, sizeof(restart));
    if (restart[0] != '\0') {
        sl_log(SL_EVENT_CONFIG_RESTART, "what=\"%s\" advice=\"the running values stay; restart\"",
               restart);
    }
    sl_config_keep_running(parent->cfg, &loaded);
    *parent->cfg = loaded;
    sl_log_set_level(loaded.log_level);
    signal_workers(parent, SIGHUP);
}

static void handle_signal(struct parent *parent, int signal)
{
    if (signal == SIGHUP) {
        reload(parent);
        return;
    }
    parent->interrupts += signal == SIGINT ? 1 : 0;
    bool must_kill = parent->is_draining && (signal == SIGTERM || parent->interrupts >= 2);
    begin_drain(parent, 0, signal == SIGTERM ? "SIGTERM" : "SIGINT");
    if (must_kill) {
        kill_all(parent, "a second signal");
    }
}

static void handle_signals(struct parent *parent)
{
    int signal;

    while ((signal = sl_os_next_signal(parent->signal_fd)) != 0) {
        handle_signal(parent, signal);
    }
}

/* ---- the loop -------------------------------------------------------------------------------- */

static int sleep_ms(const struct parent *parent)
{
    int64_t due_ns = parent->is_draining ? SL_MIN(parent->kill_ns, parent->extend_ns) : INT64_MAX;

    for (size_t i = 0; i < parent->slot_count && !parent->is_draining; i++) {
        if (parent->slots[i].pid == 0) {
            due_ns = SL_MIN(due_ns, parent->slots[i].start_ns);
        }
    }
    if (parent->watchdog_gap_ns > 0) {
        due_ns = SL_MIN(due_ns, parent->watchdog_ns);
    }
    return sl_time_left_ms(due_ns, parent->now_ns, SLEEP_MS_MAX);
}

static void notify_supervisor(struct parent *parent)
{
    if (parent->is_draining && parent->extend_ns <= parent->now_ns) {
        parent->extend_ns = sl_time_add(parent->now_ns, EXTEND_EVERY_NS);
        sl_notify(EXTEND_BY);
    }
    if (parent->watchdog_gap_ns > 0 && parent->watchdog_ns <= parent->now_ns) {
        parent->watchdog_ns = sl_time_add(parent->now_ns, parent->watchdog_gap_ns);
        sl_notify("WATCHDOG=1");
    }
}

static void wait_turn(struct parent *parent)
{
    struct epoll_event events[SLOTS_MAX + 1];
    int count = epoll_wait(parent->epoll_fd, events, SL_ARRAY_LEN(events), sleep_ms(parent));

    SL_ASSERT(count >= 0 || errno == EINTR);
    parent->now_ns = sl_clock_mono_ns();
    for (int i = 0; i < count; i++) {
        if (events[i].data.u64 == SIGNAL_DATA) {
            handle_signals(parent);
        } else {
            reap(parent, (size_t)events[i].data.u64);
        }
    }
    if (parent->is_draining && parent->kill_ns <= parent->now_ns) {
        kill_all(parent, "drain_timeout_s has passed");
    }
    notify_supervisor(parent);
}

static bool parent_open(struct parent *parent)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, 0};
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = SIGNAL_DATA};

    parent->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return parent->epoll_fd >= 0 && sl_os_signal_fd(signals, &parent->signal_fd) == SL_OK &&
           epoll_ctl(parent->epoll_fd, EPOLL_CTL_ADD, parent->signal_fd, &event) == 0;
}

int sl_parent_run(const struct sl_parent_options *options)
{
    static struct parent parent;
    static struct sl_config cfg; /* large */

    cfg = *options->cfg;
    parent = (struct parent){.options = options,
                             .cfg = &cfg,
                             .pid = getpid(),
                             .epoll_fd = -1,
                             .signal_fd = -1,
                             .slot_count = SL_MIN(options->cfg->worker_processes, SLOTS_MAX),
                             .now_ns = sl_clock_mono_ns(),
                             .watchdog_gap_ns = sl_notify_watchdog_ns()};
    for (size_t i = 0; i < SLOTS_MAX; i++) {
        parent.slots[i].pidfd = -1;
    }
    SL_ASSERT(parent.slot_count > 0);
    if (!parent_open(&parent)) {
        sl_log(SL_EVENT_FAILED, "start: %s", strerror(errno));
        return sl_err_exit_status(SL_ERR_IO);
    }
    sl_os_raise_file_limit(); /* inherited */
    start_due(&parent);
    sl_notify("READY=1");
    while (parent.alive > 0 || !parent.is_draining) {
        wait_turn(&parent);
        start_due(&parent);
    }
    sl_os_close(&parent.signal_fd);
    sl_os_close(&parent.epoll_fd);
    return parent.exit_status;
}
