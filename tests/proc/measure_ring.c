/*
 * What a trip through the ring costs: reserve, fill, publish, ring, peek, copy out, release. Not a
 * test: prints one line per way of running, and nothing here can fail but the lane itself.
 *
 *   measure_ring [ITEMS [PAYLOAD_BYTES]]     1000000 items of 1024 bytes unless told
 *
 * Both sides spin where they would wait; "processes" forks the consumer, "one thread" does a trip
 * after the other and shows the cost without another processor's cache.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/lane.h"
#include "common/os.h"
#include "common/shm_layout.h"

static char payload[SL_LANE_PAYLOAD_BYTES_MAX];
static char received[SL_LANE_PAYLOAD_BYTES_MAX];

static bool put_one(struct sl_lane *lane, size_t bytes, bool is_last_of_batch)
{
    struct sl_ring_claim claim;
    enum sl_err err = sl_ring_reserve(&lane->out, bytes, &claim);

    SL_ASSERT(err == SL_OK || err == SL_ERR_FULL);
    if (err == SL_OK) {
        memcpy(claim.msg, &lane->out.tail, sizeof(lane->out.tail));
        memcpy(claim.payload, payload, bytes);
    }
    if (err != SL_OK || is_last_of_batch) {
        sl_ring_publish(&lane->out);
        sl_bell_ring(&lane->out_bell);
    }
    return err == SL_OK;
}

static bool take_one(struct sl_lane *lane)
{
    struct sl_ring_item item;
    enum sl_err err = sl_ring_peek(&lane->in, &item);

    SL_ASSERT(err == SL_OK || err == SL_ERR_AGAIN);
    if (err != SL_OK) {
        return false;
    }
    memcpy(received, item.payload.ptr, item.payload.len);
    sl_ring_release(&lane->in, item.position);
    return true;
}

static void produce(struct sl_lane *lane, uint64_t items, size_t bytes, uint64_t batch)
{
    for (uint64_t i = 0; i < items;) {
        if (put_one(lane, bytes, (i + 1) % batch == 0 || i + 1 == items)) {
            i++;
        } else {
            sched_yield();
        }
    }
}

static void consume(struct sl_lane *lane, uint64_t items)
{
    for (uint64_t i = 0; i < items;) {
        if (take_one(lane)) {
            i++;
        } else {
            sched_yield();
        }
    }
}

static void report(const char *what, uint64_t batch, uint64_t items, int64_t took_ns)
{
    printf("%-12s publish every %3llu: %7.1f ns per item, %6.2f million items/s\n", what,
           (unsigned long long)batch, (double)took_ns / (double)items,
           (double)items * 1000.0 / (double)took_ns);
}

static void measure_one_thread(struct sl_lane *broker, struct sl_lane *worker, uint64_t items,
                               size_t bytes)
{
    int64_t start_ns = sl_clock_mono_ns();

    for (uint64_t i = 0; i < items; i++) {
        bool is_done = put_one(broker, bytes, true) && take_one(worker);
        SL_ASSERT(is_done);
    }
    report("one thread", 1, items, sl_clock_mono_ns() - start_ns);
}

static void measure_processes(struct sl_lane *broker, struct sl_lane *worker, uint64_t items,
                              size_t bytes, uint64_t batch)
{
    int64_t start_ns = sl_clock_mono_ns();
    pid_t child = fork();

    SL_ASSERT(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        consume(worker, items);
        _exit(0);
    }
    produce(broker, items, bytes, batch);
    int status;
    pid_t ended = waitpid(child, &status, 0);
    SL_ASSERT(ended == child && status == 0);
    report("processes", batch, items, sl_clock_mono_ns() - start_ns);
}

/* A fresh lane for each way: the worker's end lives in the forked child alone. */
static void measure(uint64_t items, size_t bytes, uint64_t batch)
{
    struct sl_lane *broker;
    struct sl_lane *worker;
    int worker_event_fd;
    int broker_event_fd;
    enum sl_err err = sl_os_event_fd(&worker_event_fd);

    SL_ASSERT(err == SL_OK);
    err = sl_os_event_fd(&broker_event_fd);
    SL_ASSERT(err == SL_OK);
    err = sl_lane_create(0, 1, worker_event_fd, broker_event_fd, &broker);
    SL_ASSERT(err == SL_OK);
    err = sl_lane_attach(dup(broker->memfd), worker_event_fd, broker_event_fd, &worker);
    SL_ASSERT(err == SL_OK);
    if (batch == 0) {
        measure_one_thread(broker, worker, items, bytes);
    } else {
        measure_processes(broker, worker, items, bytes, batch);
    }
    sl_lane_close(&worker);
    sl_lane_close(&broker);
    sl_os_close(&worker_event_fd);
    sl_os_close(&broker_event_fd);
}

int main(int argc, char **argv)
{
    uint64_t items = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    size_t bytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 1024;

    if (items == 0 || bytes > SL_LANE_PAYLOAD_BYTES_MAX) {
        fprintf(stderr, "usage: measure_ring [ITEMS [PAYLOAD_BYTES]]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    memset(payload, 'x', sizeof(payload));
    const uint64_t batches[] = {0, 1, 16, 64};
    for (size_t i = 0; i < SL_ARRAY_LEN(batches); i++) {
        measure(items, bytes, batches[i]);
    }
    return 0;
}
