/*
 * Workers of the last run. A broker that starts finds leases without results: those calls may still
 * be running in workers that outlived the last broker. They are given back to their tasks only when
 * it is certain who has them: each such worker has joined and reported, or is dead.
 *
 * Loop thread. A worker is written down when it joins, before any lease of its calls, with what
 * tells a process from a later one of the same number, and struck out when its last result is on
 * disk. All alive and reported: what nobody holds was never called. One of them dead (after a power
 * cut, all): the outcome of what nobody holds is unknown. A worker that lives but does not come
 * within SURVIVOR_WAIT_NS (stopped, hung) is killed first.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "broker/broker.h"
#include "common/check.h"
#include "common/log.h"

#define SURVIVOR_WAIT_NS (5 * SL_NS_PER_S) /* they reconnect within one second */

/* Nobody is awaited any more: what was leased and not reported is settled, and behind that, in the
 * same order on disk, the dead are struck out. */
static void conclude(struct sl_broker *broker)
{
    broker->survivors_due_ns = 0;
    sl_dispatch_end_orphans(broker);
    sl_dispatch_flush_ends(broker);
    for (uint32_t i = 0; i < broker->dead_count; i++) {
        sl_survivors_erase(broker, broker->dead[i]);
    }
    broker->dead_count = 0;
}

static void note_dead(struct sl_broker *broker, pid_t pid)
{
    broker->has_lost_worker = true;
    if (broker->dead_count < SL_ARRAY_LEN(broker->dead)) {
        broker->dead[broker->dead_count++] = pid; /* one too many is struck out at the next start */
    }
}

static void forget(struct sl_broker *broker, struct sl_survivor *survivor)
{
    sl_loop_unwatch(&survivor->pidfd);
    sl_os_close(&survivor->pidfd.fd);
    SL_ASSERT(broker->survivor_count > 0);
    broker->survivor_count--;
    if (broker->survivor_count == 0) {
        conclude(broker);
    }
}

static void on_death(struct sl_source *source, uint32_t events)
{
    struct sl_survivor *survivor = SL_CONTAINER_OF(source, struct sl_survivor, pidfd);

    note_dead(source->broker, survivor->pid);
    forget(source->broker, survivor);
}

static bool is_same_process(const struct sl_worker_rec *worker)
{
    char boot_id[SL_OS_BOOT_ID_BYTES];

    sl_os_boot_id(boot_id);
    return memcmp(boot_id, worker->boot_id, sizeof(boot_id)) == 0 && worker->start_time != 0 &&
           sl_os_start_time((pid_t)worker->pid) == worker->start_time;
}

static void load_one(void *ctx, const struct sl_worker_rec *worker)
{
    struct sl_broker *broker = ctx;
    pid_t pid = (pid_t)worker->pid;
    int fd = sl_os_pidfd_open(pid); /* first, so that the number cannot be reused */
    bool has_place = broker->survivor_count < SL_LANES_MAX;

    if (fd < 0 || !has_place || !is_same_process(worker)) {
        note_dead(broker, pid);
        sl_os_close(&fd);
        return;
    }
    struct sl_survivor *survivor = &broker->survivors[broker->survivor_count];
    *survivor = (struct sl_survivor){.pid = pid, .pidfd = {.fd = fd, .on_event = on_death}};
    if (sl_loop_watch(broker, &survivor->pidfd, EPOLLIN) == SL_OK) {
        broker->survivor_count++;
    } else {
        note_dead(broker, pid);
        sl_os_close(&survivor->pidfd.fd);
    }
}

enum sl_err sl_survivors_load(struct sl_broker *broker, struct sl_store *store)
{
    return sl_store_each_worker(store, load_one, broker);
}

void sl_survivors_begin(struct sl_broker *broker)
{
    if (broker->survivor_count == 0) {
        conclude(broker);
    } else {
        broker->survivors_due_ns = broker->now.mono_ns + SURVIVOR_WAIT_NS;
    }
}

static struct sl_survivor *find(struct sl_broker *broker, pid_t pid)
{
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        struct sl_survivor *survivor = &broker->survivors[i];
        if (survivor->pid == pid && survivor->pidfd.fd >= 0 && survivor->pidfd.on_event != NULL) {
            return survivor;
        }
    }
    return NULL;
}

void sl_survivors_joined(struct sl_broker *broker, pid_t pid)
{
    struct sl_survivor *survivor = find(broker, pid);

    if (survivor != NULL) {
        forget(broker, survivor);
    }
}

void sl_survivors_kill(struct sl_broker *broker)
{
    broker->survivors_due_ns = 0;
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        struct sl_survivor *survivor = &broker->survivors[i];
        if (survivor->pidfd.on_event != NULL && survivor->pidfd.fd >= 0) {
            sl_log(SL_EVENT_LANE_LOST, "worker_pid=%d what=\"of the last run, does not report\"",
                   (int)survivor->pid);
            sl_os_pidfd_kill(survivor->pidfd.fd, SIGKILL);
        }
    }
}

void sl_survivors_close(struct sl_broker *broker)
{
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        if (broker->survivors[i].pidfd.on_event != NULL) {
            sl_os_close(&broker->survivors[i].pidfd.fd);
        }
    }
}

/* ---- the record
 * ------------------------------------------------------------------------------------- */

struct record_op {
    struct sl_op op;
    bool is_gone;
    struct sl_worker_rec worker;
};

static enum sl_err run_record(struct sl_op *op, struct sl_store *store)
{
    struct record_op *own = SL_CONTAINER_OF(op, struct record_op, op);

    return own->is_gone ? sl_store_drop_worker(store, own->worker.pid)
                        : sl_store_put_worker(store, &own->worker);
}

static void done_record(struct sl_op *op)
{
    free(SL_CONTAINER_OF(op, struct record_op, op));
}

static void add_record(struct sl_broker *broker, const struct sl_worker_rec *worker, bool is_gone)
{
    struct record_op *own = calloc(1, sizeof(*own));

    SL_ASSERT(own != NULL); /* a hundred bytes: nothing sensible could be done without them */
    own->is_gone = is_gone;
    own->worker = *worker;
    own->op = (struct sl_op){.run = run_record, .done = done_record, .cost_bytes = 128};
    sl_commit_add(broker->commit, &own->op);
}

void sl_survivors_record(struct sl_broker *broker, pid_t pid)
{
    struct sl_worker_rec worker = {
        .version = SL_RECORD_VERSION, .pid = (uint32_t)pid, .start_time = sl_os_start_time(pid)};

    sl_os_boot_id(worker.boot_id);
    add_record(broker, &worker, false);
}

void sl_survivors_erase(struct sl_broker *broker, pid_t pid)
{
    const struct sl_worker_rec worker = {.pid = (uint32_t)pid};

    add_record(broker, &worker, true);
}
