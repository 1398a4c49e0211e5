/*
 * A side of the ring that dies after each single instruction of its work.
 *
 * The child works on a lane under ptrace, one instruction at a time. After every instruction the
 * parent looks at the shared memory as whoever outlives the child would: as the consumer of a dead
 * producer (every published item is there, in order and whole, and nothing else), or as the
 * producer of a dead consumer (every unreleased item is still there and whole). Looking changes
 * nothing, so one child passes through all the deaths. test_ring_kill does the same with real kills
 * at random moments of a long run.
 *
 * Exit 0: held after every instruction; 1: not; 77: skipped, ptrace is not allowed here.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/hash.h"
#include "common/lane.h"
#include "common/os.h"
#include "common/shm_layout.h"

#define EXIT_SKIPPED 77
#define BATCH_ITEMS 2
#define BATCHES 3
#define ITEMS (BATCHES * BATCH_ITEMS)
#define STEPS_MAX 1000000 /* a child that takes more does not come to its end */

static const size_t item_sizes[ITEMS] = {0, 1, 64, 65, 200, 3000};

struct item_msg {
    uint64_t idx;
    uint64_t checksum;
};

struct scene {
    struct sl_lane *broker;
    struct sl_lane *worker;
    int worker_event_fd;
    int broker_event_fd;
    uint64_t seen; /* tail (of a producer) or head (of a consumer) at the last look */
    uint64_t steps;
};

#define CHECK(condition, what, where)                                                              \
    ((condition) ? (void)0 : fail(__LINE__, #condition, what, (uint64_t)(where)))

NO_RETURN static void fail(int line, const char *condition, const char *what, uint64_t where)
{
    fprintf(stderr, "test_ring_step.c:%d: %s at instruction %llu: %s\n", line, what,
            (unsigned long long)where, condition);
    _exit(1);
}

/* ---- the two jobs ---------------------------------------------------------------------------- */

static void put_item(struct sl_ring_producer *producer)
{
    uint64_t idx = producer->tail;
    size_t bytes = item_sizes[idx % ITEMS];
    struct sl_ring_claim claim;
    enum sl_err err = sl_ring_reserve(producer, bytes, &claim);

    CHECK(err == SL_OK, "reserve", 0);
    for (size_t i = 0; i < bytes; i++) {
        claim.payload[i] = (char)(idx * 7 + i);
    }
    struct item_msg msg = {idx, sl_hash64(claim.payload, bytes, idx)};
    memcpy(claim.msg, &msg, sizeof(msg));
}

static void produce(struct sl_lane *lane)
{
    for (int batch = 0; batch < BATCHES; batch++) {
        for (int i = 0; i < BATCH_ITEMS; i++) {
            put_item(&lane->out);
        }
        sl_ring_publish(&lane->out);
        sl_bell_ring(&lane->out_bell);
    }
}

static void consume(struct sl_lane *lane)
{
    struct sl_ring_item item;

    for (int batch = 0; batch < BATCHES; batch++) {
        for (int i = 0; i < BATCH_ITEMS; i++) {
            enum sl_err err = sl_ring_peek(&lane->in, &item);
            CHECK(err == SL_OK, "peek", 0);
        }
        sl_ring_release(&lane->in, item.position - 1);
        sl_ring_release(&lane->in, item.position);
        sl_bell_ring(&lane->out_bell);
    }
}

/* ---- the look of the survivor ---------------------------------------------------------------- */

/* All items from `head` to `tail` of the ring; how many there are. */
static uint64_t check_items(struct scene *scene, struct sl_ring_shared *ring, const char *arena)
{
    struct sl_ring_consumer consumer;
    struct sl_ring_item item;
    enum sl_err err;

    sl_ring_consumer_init(&consumer, ring, arena);
    uint64_t head = consumer.released;
    while ((err = sl_ring_peek(&consumer, &item)) == SL_OK) {
        struct item_msg msg;
        memcpy(&msg, item.msg, sizeof(msg));
        CHECK(msg.idx == item.position, "order", scene->steps);
        CHECK(item.payload.len == item_sizes[msg.idx % ITEMS], "size", scene->steps);
        uint64_t sum = sl_hash64(item.payload.ptr, item.payload.len, msg.idx);
        CHECK(sum == msg.checksum, "checksum", scene->steps);
    }
    CHECK(err == SL_ERR_AGAIN, "ring", scene->steps);
    return consumer.next - head;
}

static int tokens(struct sl_bell_shared *bell)
{
    int value;

    CHECK(sem_getvalue(&bell->semaphore.posix, &value) == 0, "semaphore", 0);
    return value;
}

static void look_at_producer(struct scene *scene)
{
    struct sl_lane_segment *segment = scene->broker->segment;
    uint64_t count = check_items(scene, &segment->ring_up, segment->arena_up);

    CHECK(count >= scene->seen && count % BATCH_ITEMS == 0, "published", scene->steps);
    CHECK(tokens(&segment->bell_up) <= 1, "tokens", scene->steps);
    scene->seen = count;
}

static void look_at_consumer(struct scene *scene)
{
    struct sl_lane_segment *segment = scene->broker->segment;
    uint64_t waiting;
    enum sl_err err = sl_ring_pending(&scene->broker->out, &waiting);

    CHECK(err == SL_OK, "pending", scene->steps);
    uint64_t count = check_items(scene, &segment->ring_down, segment->arena_down);
    CHECK(count == waiting && ITEMS - count >= scene->seen, "unreleased", scene->steps);
    CHECK(tokens(&segment->bell_up) <= 1, "tokens", scene->steps);
    scene->seen = ITEMS - count;
}

/* ---- stepping -------------------------------------------------------------------------------- */

static void open_scene(struct scene *scene)
{
    enum sl_err err = sl_os_event_fd(&scene->worker_event_fd);

    CHECK(err == SL_OK, "eventfd", 0);
    err = sl_os_event_fd(&scene->broker_event_fd);
    CHECK(err == SL_OK, "eventfd", 0);
    err = sl_lane_create(0, 1, scene->worker_event_fd, scene->broker_event_fd, &scene->broker);
    CHECK(err == SL_OK, "create", 0);
    err = sl_lane_attach(dup(scene->broker->memfd), scene->worker_event_fd, scene->broker_event_fd,
                         &scene->worker);
    CHECK(err == SL_OK, "attach", 0);
    sl_bell_arm(&scene->broker->in_bell); /* so that the way through the eventfd is stepped, too */
}

static void close_scene(struct scene *scene)
{
    sl_lane_close(&scene->worker);
    sl_lane_close(&scene->broker);
    sl_os_close(&scene->worker_event_fd);
    sl_os_close(&scene->broker_event_fd);
}

static pid_t start_child(struct scene *scene, void (*work)(struct sl_lane *lane))
{
    pid_t child = fork();

    CHECK(child >= 0, "fork", 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(EXIT_SKIPPED);
        }
        raise(SIGSTOP);
        work(scene->worker);
        _exit(0);
    }
    return child;
}

static void step_child(struct scene *scene, void (*work)(struct sl_lane *lane),
                       void (*look)(struct scene *scene))
{
    int status;
    pid_t child = start_child(scene, work);

    CHECK(waitpid(child, &status, 0) == child, "waitpid", 0);
    while (WIFSTOPPED(status) && scene->steps < STEPS_MAX) {
        look(scene);
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0) {
            kill(child, SIGKILL);
        }
        CHECK(waitpid(child, &status, 0) == child, "waitpid", scene->steps);
        scene->steps++;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
        printf("skipped: ptrace is not allowed here\n");
        exit(EXIT_SKIPPED);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "end of the child", scene->steps);
    look(scene);
    CHECK(scene->seen == ITEMS, "all done", scene->seen);
    CHECK(tokens(&scene->broker->segment->bell_up) == 1, "rung", scene->steps);
}

int main(void)
{
    struct scene producer = {0};
    struct scene consumer = {0};

    open_scene(&producer);
    step_child(&producer, produce, look_at_producer);
    close_scene(&producer);
    open_scene(&consumer);
    produce(consumer.broker);
    step_child(&consumer, consume, look_at_consumer);
    close_scene(&consumer);
    printf(
        "dead after each of %llu instructions of a producer, %llu of a consumer: all items whole\n",
        (unsigned long long)producer.steps, (unsigned long long)consumer.steps);
    return 0;
}
