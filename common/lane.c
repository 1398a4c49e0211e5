/*
 * One lane: makes, seals, maps and checks the memory between the broker and one worker, and hands
 * out the two ends of its rings and bells; see common/lane.h, layout in common/shm_layout.h.
 *
 * Runs in the broker (create, and everything a dead worker left is read here) and in each worker
 * (attach). Never re-initialises a lane: a dead side ends it, and the next one gets a fresh one
 * under a higher generation. Never blocks but for memory in sl_lane_create.
 *
 * Survives nothing and has to survive nothing: what must outlive a process is in the store.
 *
 * A memfd that is not a sealed lane of this version, this kernel and this C library is refused with
 * SL_ERR_SHM; the worker's words (stats, last words) are only ever shown, never trusted.
 */
#include "common/lane.h"

#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/check.h"
#include "common/hash.h"
#include "common/os.h"
#include "common/shm.h"
#include "common/shm_layout.h"

#define SEGMENT_BYTES sizeof(struct sl_lane_segment)

/* Private to the process: the handle, and where each slot's block ends. */
struct end {
    struct sl_lane lane;
    uint64_t block_end[SL_RING_SLOTS];
};

/* ---- header ---------------------------------------------------------------------------------- */

/* Reads a small file of /proc; an empty string when that fails. */
static void read_proc(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? 0 : read(fd, text, size - 1);

    text[len > 0 ? len : 0] = '\0';
    sl_os_close(&fd);
}

static void read_boot_id(char boot_id[SL_BOOT_ID_BYTES])
{
    memset(boot_id, 0, SL_BOOT_ID_BYTES);
    read_proc("/proc/sys/kernel/random/boot_id", boot_id, SL_BOOT_ID_BYTES);
}

/* Field 22 of /proc/self/stat, ticks since boot: with it a reused process number is told apart. */
static uint64_t read_start_time(void)
{
    char text[1024];
    const char *cursor;

    read_proc("/proc/self/stat", text, sizeof(text));
    cursor = strrchr(text, ')'); /* the name before it may hold anything */
    for (int field = 2; cursor != NULL && field < 22; field++) {
        cursor = strchr(cursor + 1, ' ');
    }
    return cursor == NULL ? 0 : strtoull(cursor, NULL, 10);
}

/* What a lane of this build on this kernel says of itself; identity and checksum apart. */
static void expect_header(struct sl_lane_header *header)
{
    *header = (struct sl_lane_header){
        .layout_version = SL_LANE_LAYOUT_VERSION,
        .header_bytes = sizeof(struct sl_lane_header),
        .total_bytes = SEGMENT_BYTES,
        .page_bytes = (uint32_t)sysconf(_SC_PAGESIZE),
        .endian_word = SL_LANE_ENDIAN_WORD,
        .semaphore_bytes = sizeof(sem_t),
        .ring_slots = SL_RING_SLOTS,
        .slot_bytes = SL_SLOT_BYTES,
        .arena_bytes = SL_LANE_ARENA_BYTES,
        .worker_offset = offsetof(struct sl_lane_segment, worker),
        .bell_down_offset = offsetof(struct sl_lane_segment, bell_down),
        .bell_up_offset = offsetof(struct sl_lane_segment, bell_up),
        .bell_space_offset = offsetof(struct sl_lane_segment, bell_space),
        .ring_down_offset = offsetof(struct sl_lane_segment, ring_down),
        .ring_up_offset = offsetof(struct sl_lane_segment, ring_up),
        .arena_down_offset = offsetof(struct sl_lane_segment, arena_down),
        .arena_up_offset = offsetof(struct sl_lane_segment, arena_up),
    };
    (void)snprintf(header->libc_tag, sizeof(header->libc_tag), "glibc %s", gnu_get_libc_version());
    read_boot_id(header->boot_id);
}

static uint64_t header_checksum(const struct sl_lane_header *header)
{
    size_t start = offsetof(struct sl_lane_header, layout_version);
    size_t end = offsetof(struct sl_lane_header, checksum);

    return sl_hash64((const char *)header + start, end - start, 0);
}

static void write_header(struct sl_lane_header *shared, uint32_t idx, uint64_t generation)
{
    struct sl_lane_header header;
    size_t start = offsetof(struct sl_lane_header, layout_version);

    expect_header(&header);
    header.generation = generation;
    header.broker_pid = (uint32_t)getpid();
    header.broker_start = read_start_time();
    header.lane_idx = idx;
    header.checksum = header_checksum(&header);
    memcpy((char *)shared + start, (const char *)&header + start, sizeof(header) - start);
    /* Pairs with the acquire in check_header: with the magic the header is complete. */
    atomic_store_explicit(&shared->magic, SL_LANE_MAGIC, memory_order_release);
}

/* The fields that differ between two lanes of one build are checked one by one, then taken over
 * into the expectation, and the rest must be equal byte for byte. */
static bool header_is_ours(const struct sl_lane_header *header)
{
    struct sl_lane_header expected;
    size_t start = offsetof(struct sl_lane_header, layout_version);

    expect_header(&expected);
    if (header->lane_idx >= SL_LANES_MAX || header->broker_pid == 0 ||
        header->checksum != header_checksum(header)) {
        return false;
    }
    if (expected.boot_id[0] == '\0' || header->boot_id[0] == '\0') {
        memcpy(expected.boot_id, header->boot_id,
               sizeof(expected.boot_id)); /* a side without /proc */
    }
    expected.generation = header->generation;
    expected.broker_start = header->broker_start;
    expected.broker_pid = header->broker_pid;
    expected.lane_idx = header->lane_idx;
    expected.checksum = header->checksum;
    return memcmp((const char *)header + start, (const char *)&expected + start,
                  sizeof(expected) - start) == 0;
}

static enum sl_err check_header(const struct sl_lane_header *shared, struct sl_lane_header *out)
{
    /* Pairs with the release in write_header. */
    if (atomic_load_explicit(&shared->magic, memory_order_acquire) != SL_LANE_MAGIC) {
        return SL_ERR_SHM;
    }
    memcpy((void *)out, (const void *)shared, sizeof(*out));
    atomic_signal_fence(memory_order_seq_cst); /* checked and used is the copy alone */
    return header_is_ours(out) ? SL_OK : SL_ERR_SHM;
}

/* ---- the two ends ---------------------------------------------------------------------------- */

static enum sl_err make_memory(uint32_t idx, uint64_t generation, int *out)
{
    char name[64];
    int fd = -1;

    (void)snprintf(name, sizeof(name), "sluice-lane-%u-g%llu", idx, (unsigned long long)generation);
    enum sl_err err = sl_shm_create(name, &fd);
    if (err == SL_OK) {
        err = sl_shm_allocate(fd, SEGMENT_BYTES);
    }
    if (err == SL_OK) {
        err = sl_shm_seal(fd, SL_SHM_SEALS_SIZE);
    }
    if (err != SL_OK) {
        sl_os_close(&fd);
        return err;
    }
    *out = fd;
    return SL_OK;
}

/* Maps the memory into a new handle; the descriptor becomes the handle's on success. */
static enum sl_err open_end(int memfd, struct end **out)
{
    void *memory;
    struct end *end = calloc(1, sizeof(*end));

    if (end == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    enum sl_err err = sl_shm_map(memfd, SEGMENT_BYTES, &memory);
    if (err != SL_OK) {
        free(end);
        return err;
    }
    end->lane.segment = memory;
    end->lane.memfd = memfd;
    *out = end;
    return SL_OK;
}

/* The worker waits for space with the same eventfd as for work: it looks at both after a wake. */
static void set_bells(struct sl_lane *lane, bool is_broker, int worker_event_fd,
                      int broker_event_fd)
{
    struct sl_lane_segment *segment = lane->segment;
    struct sl_bell down = {.shared = &segment->bell_down, .event_fd = worker_event_fd};
    struct sl_bell up = {.shared = &segment->bell_up, .event_fd = broker_event_fd};

    lane->out_bell = is_broker ? down : up;
    lane->in_bell = is_broker ? up : down;
    lane->space_bell =
        (struct sl_bell){.shared = &segment->bell_space, .event_fd = worker_event_fd};
}

enum sl_err sl_lane_create(uint32_t idx, uint64_t generation, int worker_event_fd,
                           int broker_event_fd, struct sl_lane **out)
{
    int memfd = -1;
    struct end *end;

    SL_ASSERT(idx < SL_LANES_MAX);
    enum sl_err err = make_memory(idx, generation, &memfd);
    if (err != SL_OK) {
        return err;
    }
    err = open_end(memfd, &end);
    if (err != SL_OK) {
        sl_os_close(&memfd);
        return err;
    }
    struct sl_lane_segment *segment = end->lane.segment;
    end->lane.idx = idx;
    end->lane.generation = generation;
    sl_bell_init_shared(&segment->bell_down);
    sl_bell_init_shared(&segment->bell_up);
    sl_bell_init_shared(&segment->bell_space);
    sl_ring_producer_init(&end->lane.out, &segment->ring_down, segment->arena_down, end->block_end);
    sl_ring_consumer_init(&end->lane.in, &segment->ring_up, segment->arena_up);
    set_bells(&end->lane, true, worker_event_fd, broker_event_fd);
    write_header(&segment->header, idx, generation);
    *out = &end->lane;
    return SL_OK;
}

enum sl_err sl_lane_attach(int memfd, int worker_event_fd, int broker_event_fd,
                           struct sl_lane **out)
{
    struct sl_lane_header header;
    struct end *end;
    enum sl_err err = sl_shm_check(memfd, SL_SHM_SEALS_SIZE, SEGMENT_BYTES);

    if (err == SL_OK) {
        err = open_end(memfd, &end);
    }
    if (err != SL_OK) {
        return err;
    }
    struct sl_lane_segment *segment = end->lane.segment;
    err = check_header(&segment->header, &header);
    if (err != SL_OK) {
        sl_shm_unmap(segment, SEGMENT_BYTES);
        free(end);
        return err;
    }
    end->lane.idx = header.lane_idx;
    end->lane.generation = header.generation;
    sl_ring_producer_init(&end->lane.out, &segment->ring_up, segment->arena_up, end->block_end);
    sl_ring_consumer_init(&end->lane.in, &segment->ring_down, segment->arena_down);
    set_bells(&end->lane, false, worker_event_fd, broker_event_fd);
    *out = &end->lane;
    return SL_OK;
}

void sl_lane_close(struct sl_lane **lane)
{
    if (*lane == NULL) {
        return;
    }
    struct end *end = SL_CONTAINER_OF(*lane, struct end, lane);

    sl_shm_unmap(end->lane.segment, SEGMENT_BYTES);
    sl_os_close(&end->lane.memfd);
    free(end);
    *lane = NULL;
}

/* ---- the worker's words ---------------------------------------------------------------------- */

void sl_lane_set_stats(struct sl_lane *lane, const struct sl_worker_stats *stats)
{
    struct sl_worker_block *worker = &lane->segment->worker;

    /* Relaxed: each number stands for itself, none of them orders anything. */
    atomic_store_explicit(&worker->calls, stats->calls, memory_order_relaxed);
    atomic_store_explicit(&worker->in_flight, stats->in_flight, memory_order_relaxed);
    atomic_store_explicit(&worker->heartbeat_ns, stats->heartbeat_ns, memory_order_relaxed);
}

void sl_lane_get_stats(const struct sl_lane *lane, struct sl_worker_stats *out)
{
    const struct sl_worker_block *worker = &lane->segment->worker;

    *out = (struct sl_worker_stats){
        .calls = atomic_load_explicit(&worker->calls, memory_order_relaxed),
        .in_flight = atomic_load_explicit(&worker->in_flight, memory_order_relaxed),
        .heartbeat_ns = atomic_load_explicit(&worker->heartbeat_ns, memory_order_relaxed),
    };
}

char *sl_lane_last_words_buffer(struct sl_lane *lane)
{
    return lane->segment->worker.last_words;
}

void sl_lane_last_words(const struct sl_lane *lane, char text[SL_LAST_WORDS_BYTES])
{
    size_t len = SL_LAST_WORDS_BYTES - 1;

    memcpy(text, lane->segment->worker.last_words, len);
    atomic_signal_fence(memory_order_seq_cst); /* the copy is what is made printable */
    text[len] = '\0';
    for (len = strlen(text); len > 0 && text[len - 1] == '\n'; len--) {
        text[len - 1] = '\0';
    }
    for (size_t i = 0; text[i] != '\0'; i++) {
        if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] > 0x7e) {
            text[i] = '?';
        }
    }
}
