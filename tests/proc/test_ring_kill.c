/*
 * Two real processes over one lane, one of them killed with SIGKILL at random moments; and two
 * threads over one ring for the thread sanitizer.
 *
 *   test_ring_kill [--kills N] [--seed S]     N runs (300), a fresh lane each, killing in turn
 *     the producer: the consumer then finds every published item, in order, without a gap, whole;
 *     the consumer: every item it did not release is still there, whole, in order, and the
 *     producer gets its ring and arena back when a successor releases them.
 *   test_ring_kill --threads N [--seed S]     N items through ring and bell between two threads.
 *     Runs clean under the thread sanitizer:
 *       cmake -S . -B build-tsan -G Ninja -DSLUICE_SANITIZE=thread
 *       ninja -C build-tsan test_ring_kill
 *       build-tsan/tests/test_ring_kill --threads 20000
 *
 * Who waits does so by the semaphore in one half of the runs and by the eventfd in the other. The
 * seed is printed; it fixes items, batches and kill times, not the interleaving. Exit 0: all held.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/lane.h"
#include "common/os.h"
#include "common/shm_layout.h"

#define KILL_WITHIN_NS (3 * SL_NS_PER_MS)
#define START_WITHIN_NS (20 * SL_NS_PER_S) /* for a child on a loaded machine to do something */
#define CHILD_WAIT_NS (50 * SL_NS_PER_MS)
#define BATCH_MAX 8
#define TIMED_OUT_WAITS_MAX 20 /* a second each: more than a loaded machine explains */

#define CHECK(condition, ...) ((condition) ? (void)0 : fail(__LINE__, #condition, __VA_ARGS__))

static uint64_t main_seed;

NO_RETURN static void fail(int line, const char *condition, const char *what, uint64_t where)
{
    fprintf(stderr, "test_ring_kill.c:%d: seed %llu: %s at %llu: %s\n", line,
            (unsigned long long)main_seed, what, (unsigned long long)where, condition);
    _exit(1);
}

static uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return sl_hash_word(*state);
}

/* ---- items ----------------------------------------------------------------------------------- */

struct item_msg {
    uint64_t idx;
    uint64_t bytes;
    uint64_t checksum;
};

/* Mostly small, some of many pages, a few of the largest size. */
static size_t item_bytes(uint64_t seed, uint64_t idx)
{
    uint64_t state = seed ^ (idx << 8);
    uint64_t kind = next_random(&state) % 64;
    uint64_t size = next_random(&state);

    if (kind == 0) {
        return size % (SL_LANE_PAYLOAD_BYTES_MAX + 1);
    }
    return kind < 8 ? size % (64 * SL_KIB) : size % 1500;
}

static char payload_source[SL_LANE_PAYLOAD_BYTES_MAX + 256];

/* Another stretch of random bytes for each item: a block of the wrong item does not pass. */
static const char *item_payload(uint64_t idx)
{
    return payload_source + idx % 251;
}

static void fill_payload_source(void)
{
    uint64_t state = main_seed;

    for (size_t i = 0; i + sizeof(uint64_t) <= sizeof(payload_source); i += sizeof(uint64_t)) {
        uint64_t word = next_random(&state);
        memcpy(payload_source + i, &word, sizeof(word));
    }
}

static enum sl_err put_item(struct sl_ring_producer *producer, uint64_t seed)
{
    uint64_t idx = producer->tail;
    size_t bytes = item_bytes(seed, idx);
    struct sl_ring_claim claim;
    enum sl_err err = sl_ring_reserve(producer, bytes, &claim);

    if (err != SL_OK) {
        return err;
    }
    struct item_msg msg = {idx, bytes, sl_hash64(item_payload(idx), bytes, idx)};
    memcpy(claim.payload, item_payload(idx), bytes);
    memcpy(claim.msg, &msg, sizeof(msg));
    return SL_OK;
}

static void check_item(const struct sl_ring_item *item, uint64_t seed, uint64_t idx)
{
    struct item_msg msg;

    memcpy(&msg, item->msg, sizeof(msg));
    CHECK(item->position == idx, "position", idx);
    CHECK(msg.idx == idx, "order", idx);
    CHECK(msg.bytes == item_bytes(seed, idx), "size", idx);
    CHECK(item->payload.len == msg.bytes, "block size", idx);
    CHECK(sl_hash64(item->payload.ptr, item->payload.len, idx) == msg.checksum, "checksum", idx);
    CHECK(memcmp(item->payload.ptr, item_payload(idx), msg.bytes) == 0, "payload", idx);
}

/* ---- waiting --------------------------------------------------------------------------------- */

struct waiter {
    struct sl_bell *bell;
    bool by_eventfd;
    bool (*has_work)(void *ctx);
    void *ctx;
};

/* False: nobody rang until the deadline. */
static bool wait_for_ring(const struct waiter *waiter, int64_t deadline_ns)
{
    if (!waiter->by_eventfd) {
        return waiter->has_work(waiter->ctx) || sl_bell_wait(waiter->bell, deadline_ns);
    }
    bool is_rung = true;
    sl_bell_arm(waiter->bell);
    if (!waiter->has_work(waiter->ctx)) {
        struct pollfd poll_fd = {.fd = waiter->bell->event_fd, .events = POLLIN};
        is_rung = poll(&poll_fd, 1, sl_time_left_ms(deadline_ns, sl_clock_mono_ns(), 1000)) == 1;
    }
    sl_bell_disarm(waiter->bell);
    return is_rung;
}

static bool consumer_has_work(void *ctx)
{
    return sl_ring_has_items(ctx);
}

/* Room for the largest item, or at least something new to look at. */
static bool producer_has_work(void *ctx)
{
    struct sl_ring_producer *producer = ctx;
    uint64_t head = producer->head_cached;
    uint64_t count;

    return sl_ring_pending(producer, &count) != SL_OK || producer->head_cached != head;
}

/* ---- the two sides --------------------------------------------------------------------------- */

struct side {
    struct sl_ring_producer *producer;
    struct sl_ring_consumer *consumer;
    struct sl_bell *ring_bell; /* what we ring */
    struct waiter waiter;
    struct sl_lane *stats_lane; /* NULL: progress is not reported */
    uint64_t seed;
    uint64_t random;
    uint64_t timed_out_waits;
};

/* One batch out, or a wait for room. */
static void produce_some(struct side *side, int64_t deadline_ns)
{
    uint64_t batch = 1 + next_random(&side->random) % BATCH_MAX;
    enum sl_err err = SL_OK;

    for (uint64_t i = 0; i < batch && err == SL_OK; i++) {
        err = put_item(side->producer, side->seed);
    }
    CHECK(err == SL_OK || err == SL_ERR_FULL, "reserve", side->producer->tail);
    sl_ring_publish(side->producer);
    sl_bell_ring(side->ring_bell);
    if (err == SL_ERR_FULL && !wait_for_ring(&side->waiter, deadline_ns)) {
        side->timed_out_waits++;
    }
}

static void release_to(struct side *side, uint64_t position)
{
    if (side->stats_lane != NULL) {
        struct sl_worker_stats stats = {.calls = side->consumer->next};
        sl_lane_set_stats(side->stats_lane, &stats);
    }
    sl_ring_release(side->consumer, position);
    sl_bell_ring(side->ring_bell);
}

/* Some items in, a random part of what is open released; or a wait for items. */
static void consume_some(struct side *side, int64_t deadline_ns)
{
    struct sl_ring_item item;
    uint64_t batch = 1 + next_random(&side->random) % (2 * BATCH_MAX);
    enum sl_err err = SL_OK;

    for (uint64_t i = 0; i < batch && err == SL_OK; i++) {
        err = sl_ring_peek(side->consumer, &item);
        if (err == SL_OK) {
            check_item(&item, side->seed, side->consumer->next - 1);
        }
    }
    CHECK(err == SL_OK || err == SL_ERR_AGAIN, "peek", side->consumer->next);
    uint64_t open = side->consumer->next - side->consumer->released;
    if (open > 0) {
        uint64_t part = err == SL_ERR_AGAIN ? open - 1 : next_random(&side->random) % open;
        release_to(side, side->consumer->released + part);
    } else if (err == SL_ERR_AGAIN && !wait_for_ring(&side->waiter, deadline_ns)) {
        side->timed_out_waits++;
    }
}

static struct side make_side(struct sl_lane *lane, bool is_producer, bool is_broker, uint64_t seed)
{
    struct side side = {.producer = &lane->out, .consumer = &lane->in, .seed = seed};

    side.random = seed ^ (is_producer ? 0 : UINT64_MAX);
    side.waiter.by_eventfd = (seed & 1) != 0;
    side.waiter.has_work = is_producer ? producer_has_work : consumer_has_work;
    side.waiter.ctx = is_producer ? (void *)&lane->out : (void *)&lane->in;
    side.ring_bell = &lane->out_bell;
    side.waiter.bell = &lane->in_bell;
    if (!is_broker && is_producer) {
        side.waiter.bell = &lane->space_bell;
    }
    if (is_broker && !is_producer) {
        side.ring_bell = &lane->space_bell;
    }
    side.stats_lane = is_broker ? NULL : lane;
    return side;
}

/* ---- processes ------------------------------------------------------------------------------- */

struct run {
    struct sl_lane *lane;
    int worker_event_fd;
    int broker_event_fd;
    uint64_t seed;
    pid_t child;
};

NO_RETURN static void run_child(const struct run *run, bool is_producer)
{
    struct sl_lane *lane;

    /* The fork's own copy of the parent's map stays unused: the child attaches as a worker does. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    enum sl_err err =
        sl_lane_attach(run->lane->memfd, run->worker_event_fd, run->broker_event_fd, &lane);
    CHECK(err == SL_OK, "attach", (uint64_t)err);
    struct side side = make_side(lane, is_producer, false, run->seed);
    for (;;) {
        int64_t deadline_ns = sl_time_add(sl_clock_mono_ns(), CHILD_WAIT_NS);
        if (is_producer) {
            produce_some(&side, deadline_ns);
        } else {
            consume_some(&side, deadline_ns);
        }
    }
}

static void start_run(struct run *run, bool child_produces)
{
    enum sl_err err = sl_os_event_fd(&run->worker_event_fd);

    CHECK(err == SL_OK, "eventfd", 0);
    err = sl_os_event_fd(&run->broker_event_fd);
    CHECK(err == SL_OK, "eventfd", 0);
    err = sl_lane_create(0, run->seed, run->worker_event_fd, run->broker_event_fd, &run->lane);
    CHECK(err == SL_OK, "create", (uint64_t)err);
    run->child = fork();
    CHECK(run->child >= 0, "fork", 0);
    if (run->child == 0) {
        run_child(run, child_produces);
    }
}

static void kill_child(struct run *run)
{
    int status;

    kill(run->child, SIGKILL);
    CHECK(waitpid(run->child, &status, 0) == run->child, "waitpid", 0);
    /* A child that found an error has ended by itself. */
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "child's own end", 0);
}

static void end_run(struct run *run)
{
    sl_lane_close(&run->lane);
    sl_os_close(&run->worker_event_fd);
    sl_os_close(&run->broker_event_fd);
}

static bool child_has_produced(struct side *side)
{
    return side->consumer->next > 0;
}

static bool child_has_consumed(struct side *side)
{
    uint64_t count;

    return sl_ring_pending(side->producer, &count) == SL_OK && count < side->producer->published;
}

/* Does the parent's part until `kill_after_ns` after the child's first sign of work; in one run of
 * eight after its fork: it may die before it has attached. */
static void work_until_kill(struct side *side, void (*work)(struct side *side, int64_t deadline_ns),
                            bool (*child_has_worked)(struct side *side), int64_t kill_after_ns)
{
    bool is_timed = next_random(&side->random) % 8 == 0;
    int64_t now_ns = sl_clock_mono_ns();
    int64_t kill_at_ns = sl_time_add(now_ns, is_timed ? kill_after_ns : START_WITHIN_NS);

    for (; now_ns < kill_at_ns; now_ns = sl_clock_mono_ns()) {
        work(side, SL_MIN(kill_at_ns, sl_time_add(now_ns, CHILD_WAIT_NS)));
        if (!is_timed && child_has_worked(side)) {
            is_timed = true;
            kill_at_ns = sl_time_add(sl_clock_mono_ns(), kill_after_ns);
        }
    }
    CHECK(is_timed, "child never did anything", 0);
}

/* Returns how many items came through. */
static uint64_t run_producer_killed(struct run *run, int64_t kill_after_ns)
{
    struct sl_ring_item item;

    start_run(run, true);
    struct side side = make_side(run->lane, false, true, run->seed);
    work_until_kill(&side, consume_some, child_has_produced, kill_after_ns);
    kill_child(run);
    enum sl_err err = sl_ring_peek(side.consumer, &item);
    for (; err == SL_OK; err = sl_ring_peek(side.consumer, &item)) {
        check_item(&item, run->seed, side.consumer->next - 1);
    }
    CHECK(err == SL_ERR_AGAIN, "drain", side.consumer->next);
    uint64_t tail = atomic_load(&run->lane->segment->ring_up.tail);
    CHECK(side.consumer->next == tail, "items found of those published", tail);
    end_run(run);
    return tail;
}

/* The successor of a dead consumer finds all that was not released, and can give it back. */
static void check_unreleased(struct run *run, uint64_t waiting)
{
    struct sl_lane_segment *segment = run->lane->segment;
    struct sl_ring_consumer successor;
    struct sl_ring_item item;
    struct sl_worker_stats stats;

    sl_ring_consumer_init(&successor, &segment->ring_down, segment->arena_down);
    sl_lane_get_stats(run->lane, &stats);
    CHECK(successor.released <= stats.calls, "released only what was seen", successor.released);
    CHECK(successor.released + waiting == run->lane->out.published, "count", waiting);
    for (uint64_t i = 0; i < waiting; i++) {
        enum sl_err err = sl_ring_peek(&successor, &item);
        CHECK(err == SL_OK, "unreleased item", successor.next);
        check_item(&item, run->seed, successor.next - 1);
    }
    CHECK(sl_ring_peek(&successor, &item) == SL_ERR_AGAIN, "no more items", successor.next);
    if (waiting > 0) {
        sl_ring_release(&successor, successor.next - 1);
    }
}

static uint64_t run_consumer_killed(struct run *run, int64_t kill_after_ns)
{
    struct sl_ring_claim claim;
    uint64_t waiting = 0;

    start_run(run, false);
    struct side side = make_side(run->lane, true, true, run->seed);
    work_until_kill(&side, produce_some, child_has_consumed, kill_after_ns);
    kill_child(run);
    enum sl_err err = sl_ring_pending(side.producer, &waiting);
    CHECK(err == SL_OK, "pending", (uint64_t)err);
    check_unreleased(run, waiting);
    for (int i = 0; i < 3; i++) { /* room for three of the largest, wherever the arena stands */
        err = sl_ring_reserve(side.producer, SL_LANE_PAYLOAD_BYTES_MAX, &claim);
        CHECK(err == SL_OK, "room after all was released", (uint64_t)err);
    }
    uint64_t released = side.producer->published - waiting;
    end_run(run);
    return released;
}

static void run_kills(uint64_t kills)
{
    uint64_t state = main_seed;
    uint64_t items[2] = {0};
    uint64_t empty_runs = 0;

    for (uint64_t i = 0; i < kills; i++) {
        struct run run = {.seed = next_random(&state)};
        int64_t kill_after_ns = (int64_t)(next_random(&state) % KILL_WITHIN_NS);
        uint64_t count = i % 2 == 0 ? run_producer_killed(&run, kill_after_ns)
                                    : run_consumer_killed(&run, kill_after_ns);
        items[i % 2] += count;
        empty_runs += count == 0;
    }
    printf("%llu kills: %llu items of killed producers, %llu released by killed consumers, %llu "
           "runs killed before the first item\n",
           (unsigned long long)kills, (unsigned long long)items[0], (unsigned long long)items[1],
           (unsigned long long)empty_runs);
    CHECK(kills < 100 || (items[0] > kills && items[1] > kills), "enough traffic", kills);
}

/* ---- threads --------------------------------------------------------------------------------- */

struct thread_job {
    struct side side;
    uint64_t items;
};

static void *produce_in_thread(void *ctx)
{
    struct thread_job *job = ctx;

    while (job->side.producer->published < job->items) {
        produce_some(&job->side, INT64_MAX);
    }
    return NULL;
}

static void *consume_in_thread(void *ctx)
{
    struct thread_job *job = ctx;

    while (job->side.consumer->released < job->items) {
        consume_some(&job->side, INT64_MAX);
    }
    return NULL;
}

/* Both ends on one map of one ring: the sanitizer knows memory by its address. */
static void run_threads(uint64_t items, bool by_eventfd)
{
    struct run run = {.seed = (main_seed & ~UINT64_C(1)) | by_eventfd};
    struct sl_ring_consumer consumer;
    pthread_t threads[2];
    enum sl_err err = sl_os_event_fd(&run.worker_event_fd);

    CHECK(err == SL_OK, "eventfd", 0);
    err = sl_os_event_fd(&run.broker_event_fd);
    CHECK(err == SL_OK, "eventfd", 0);
    err = sl_lane_create(0, 1, run.worker_event_fd, run.broker_event_fd, &run.lane);
    CHECK(err == SL_OK, "create", (uint64_t)err);
    struct sl_lane_segment *segment = run.lane->segment;
    sl_ring_consumer_init(&consumer, &segment->ring_down, segment->arena_down);
    struct thread_job produce = {make_side(run.lane, true, true, run.seed), items};
    struct thread_job consume = {make_side(run.lane, false, true, run.seed), items};
    consume.side.consumer = &consumer;
    consume.side.waiter.ctx = &consumer;
    consume.side.waiter.bell = &run.lane->out_bell; /* the bell that the producer rings */
    consume.side.ring_bell = &run.lane->in_bell;
    pthread_create(&threads[0], NULL, produce_in_thread, &produce);
    pthread_create(&threads[1], NULL, consume_in_thread, &consume);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    uint64_t timed_out = produce.side.timed_out_waits + consume.side.timed_out_waits;
    printf("%llu items between two threads, waiting by %s: %llu waits timed out\n",
           (unsigned long long)items, by_eventfd ? "eventfd" : "semaphore",
           (unsigned long long)timed_out);
    CHECK(timed_out <= TIMED_OUT_WAITS_MAX, "lost wake-ups", timed_out);
    end_run(&run);
}

/* ---- main ------------------------------------------------------------------------------------ */

struct options {
    uint64_t kills;
    uint64_t threads;
};

static bool parse_options(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 >= argc) {
            return false;
        }
        uint64_t value = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--kills") == 0) {
            options->kills = value;
        } else if (strcmp(argv[i], "--threads") == 0) {
            options->threads = value;
        } else if (strcmp(argv[i], "--seed") == 0) {
            main_seed = value;
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options options = {.kills = 300};

    sl_os_random(&main_seed, sizeof(main_seed));
    if (!parse_options(argc, argv, &options)) {
        fprintf(stderr, "usage: test_ring_kill [--kills N] [--threads N] [--seed S]\n");
        return 2;
    }
    printf("seed %llu\n", (unsigned long long)main_seed);
    fflush(stdout); /* before the forks: each child would print it again */
    fill_payload_source();
    if (options.threads > 0) {
        run_threads(options.threads, false);
        run_threads(options.threads, true);
    } else {
        run_kills(options.kills);
    }
    return 0;
}
