/*
 * Tests of common/ring: limits and one past them, the arena at every offset, what a broken or
 * hostile peer can write, and a seeded random walk against a plain model of who owns which bytes.
 * Single-threaded; orders and kills are tests/model and tests/proc.
 */
#include "common/ring.h"

#include <check.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/os.h"
#include "common/shm_layout.h"

static struct sl_ring_shared *ring;
static char *arena;
static uint64_t block_end[SL_RING_SLOTS];
static struct sl_ring_producer producer;
static struct sl_ring_consumer consumer;

static void set_up(void)
{
    ring = aligned_alloc(SL_SHM_LINE, sizeof(*ring));
    arena = aligned_alloc(SL_SHM_PAGE, SL_LANE_ARENA_BYTES);
    ck_assert_ptr_nonnull(ring);
    ck_assert_ptr_nonnull(arena);
    memset((void *)ring, 0, sizeof(*ring));
    memset(arena, 0, SL_LANE_ARENA_BYTES);
    memset(block_end, 0xa5, sizeof(block_end));
    sl_ring_producer_init(&producer, ring, arena, block_end);
    sl_ring_consumer_init(&consumer, ring, arena);
}

static void tear_down(void)
{
    free(ring);
    free(arena);
}

static void put(size_t payload_bytes)
{
    struct sl_ring_claim claim;

    ck_assert_int_eq(sl_ring_reserve(&producer, payload_bytes, &claim), SL_OK);
    memcpy(claim.msg, &producer.tail, sizeof(producer.tail));
    memset(claim.payload, (int)(producer.tail & 0xff), payload_bytes);
}

static void put_and_publish(size_t payload_bytes)
{
    put(payload_bytes);
    sl_ring_publish(&producer);
}

/* Checks in loops abort by themselves: each ck_assert costs a message to the runner. */
static void check_filled(const struct sl_ring_item *item, unsigned char byte)
{
    const char *bytes = item->payload.ptr;
    size_t len = item->payload.len;

    if (len > 0 && ((unsigned char)bytes[0] != byte || memcmp(bytes, bytes + 1, len - 1) != 0)) {
        ck_abort_msg("payload of item %llu is wrong", (unsigned long long)item->position);
    }
}

static void take(size_t payload_bytes)
{
    struct sl_ring_item item;
    uint64_t position;

    ck_assert_int_eq(sl_ring_peek(&consumer, &item), SL_OK);
    memcpy(&position, item.msg, sizeof(position));
    ck_assert_uint_eq(position, item.position + 1);
    ck_assert_uint_eq(item.payload.len, payload_bytes);
    check_filled(&item, (unsigned char)position);
}

static uint64_t pending(void)
{
    uint64_t count;

    ck_assert_int_eq(sl_ring_pending(&producer, &count), SL_OK);
    return count;
}

/* ---- order and limits ------------------------------------------------------------------------ */

START_TEST(fresh_ring_is_empty)
{
    struct sl_ring_item item;

    ck_assert(!sl_ring_has_items(&consumer));
    ck_assert_int_eq(sl_ring_peek(&consumer, &item), SL_ERR_AGAIN);
    ck_assert_uint_eq(pending(), 0);
}
END_TEST

START_TEST(item_is_unseen_until_published)
{
    struct sl_ring_item item;

    put(10);
    put(20);
    ck_assert(!sl_ring_has_items(&consumer));
    ck_assert_int_eq(sl_ring_peek(&consumer, &item), SL_ERR_AGAIN);
    ck_assert_uint_eq(pending(), 0);
    sl_ring_publish(&producer);
    ck_assert(sl_ring_has_items(&consumer));
    ck_assert_uint_eq(pending(), 2);
    take(10);
    take(20);
    ck_assert(!sl_ring_has_items(&consumer));
    ck_assert_uint_eq(pending(), 2);
    sl_ring_release(&consumer, 1);
    ck_assert_uint_eq(pending(), 0);
}
END_TEST

START_TEST(message_is_zeroed_for_each_item)
{
    struct sl_ring_claim claim;
    struct sl_ring_item item;
    char zeros[SL_SLOT_MSG_BYTES] = {0};

    for (uint64_t i = 0; i < 2 * (uint64_t)SL_RING_SLOTS; i++) {
        if (sl_ring_reserve(&producer, 0, &claim) != SL_OK ||
            memcmp(claim.msg, zeros, sizeof(zeros)) != 0) {
            ck_abort_msg("message of item %llu is not zeroed", (unsigned long long)i);
        }
        memset(claim.msg, 0xff, SL_SLOT_MSG_BYTES);
        sl_ring_publish(&producer);
        if (sl_ring_peek(&consumer, &item) != SL_OK) {
            ck_abort_msg("item %llu is missing", (unsigned long long)i);
        }
        sl_ring_release(&consumer, item.position);
    }
}
END_TEST

START_TEST(ring_is_full_at_its_slots)
{
    struct sl_ring_claim claim;

    for (int i = 0; i < SL_RING_SLOTS; i++) {
        put(1);
    }
    ck_assert_int_eq(sl_ring_reserve(&producer, 0, &claim), SL_ERR_FULL);
    sl_ring_publish(&producer);
    ck_assert_int_eq(sl_ring_reserve(&producer, 0, &claim), SL_ERR_FULL);
    ck_assert_uint_eq(pending(), SL_RING_SLOTS);
    for (int i = 0; i < SL_RING_SLOTS; i++) {
        take(1);
    }
    /* Peeked is not released: nothing is free yet. */
    ck_assert_int_eq(sl_ring_reserve(&producer, 0, &claim), SL_ERR_FULL);
    sl_ring_release(&consumer, 0);
    put_and_publish(1);
    ck_assert_int_eq(sl_ring_reserve(&producer, 0, &claim), SL_ERR_FULL);
    sl_ring_release(&consumer, SL_RING_SLOTS - 1);
    ck_assert_uint_eq(pending(), 1);
    take(1);
}
END_TEST

START_TEST(arena_is_full_at_its_bytes)
{
    struct sl_ring_claim claim;
    size_t fitting = SL_LANE_ARENA_BYTES / SL_LANE_PAYLOAD_BYTES_MAX;

    for (size_t i = 0; i < fitting; i++) {
        put_and_publish(SL_LANE_PAYLOAD_BYTES_MAX);
    }
    ck_assert_int_eq(sl_ring_reserve(&producer, 1, &claim), SL_ERR_FULL);
    put_and_publish(0); /* no bytes, no block: a slot is enough */
    for (size_t i = 0; i < fitting; i++) {
        take(SL_LANE_PAYLOAD_BYTES_MAX);
    }
    take(0);
    ck_assert_int_eq(sl_ring_reserve(&producer, 1, &claim), SL_ERR_FULL);
    sl_ring_release(&consumer, 0);
    put_and_publish(SL_LANE_PAYLOAD_BYTES_MAX);
    ck_assert_int_eq(sl_ring_reserve(&producer, 1, &claim), SL_ERR_FULL);
    take(SL_LANE_PAYLOAD_BYTES_MAX);
    sl_ring_release(&consumer, fitting + 1);
    ck_assert_uint_eq(producer.arena_head - block_end[(fitting + 1) % SL_RING_SLOTS], 0);
    put_and_publish(1);
    take(1);
}
END_TEST

static const size_t payload_sizes[] = {
    0,
    1,
    2,
    63,
    64,
    65,
    127,
    128,
    1024,
    4095,
    4096,
    4097,
    SL_LANE_PAYLOAD_BYTES_MAX - 1,
    SL_LANE_PAYLOAD_BYTES_MAX,
};

START_TEST(payload_travels_whole)
{
    size_t bytes = payload_sizes[_i];

    /* Often enough to go round the arena with the largest, and odd sizes behind one another. */
    for (int turn = 0; turn < 12; turn++) {
        put_and_publish(bytes);
        take(bytes);
        sl_ring_release(&consumer, consumer.next - 1);
    }
    ck_assert_uint_eq(pending(), 0);
}
END_TEST

START_TEST(payload_over_the_limit_is_our_bug)
{
    struct sl_ring_claim claim;

    (void)!sl_ring_reserve(&producer, SL_LANE_PAYLOAD_BYTES_MAX + 1, &claim);
}
END_TEST

START_TEST(release_of_the_unpeeked_is_our_bug)
{
    put_and_publish(0);
    sl_ring_release(&consumer, 0);
}
END_TEST

START_TEST(release_again_changes_nothing)
{
    for (int i = 0; i < 3; i++) {
        put_and_publish(8);
        take(8);
    }
    sl_ring_release(&consumer, 1);
    sl_ring_release(&consumer, 1);
    sl_ring_release(&consumer, 0);
    ck_assert_uint_eq(pending(), 1);
    ck_assert_uint_eq(atomic_load(&ring->head), 2);
}
END_TEST

/* ---- the arena at every offset --------------------------------------------------------------- */

static void check_block_at(uint64_t offset, size_t payload_bytes)
{
    struct sl_ring_claim claim = {.payload = arena};
    size_t block = sl_round_up(payload_bytes, 64);
    bool wraps = offset + block > SL_LANE_ARENA_BYTES;

    sl_ring_producer_init(&producer, ring, arena, block_end);
    producer.arena_head = SL_LANE_ARENA_BYTES + offset;
    producer.arena_tail = SL_LANE_ARENA_BYTES + offset;
    enum sl_err err = sl_ring_reserve(&producer, payload_bytes, &claim);
    uint64_t skipped = wraps ? SL_LANE_ARENA_BYTES - offset : 0;
    if (err != SL_OK || claim.payload != arena + (wraps ? 0 : offset) ||
        producer.arena_head != SL_LANE_ARENA_BYTES + offset + skipped + block) {
        ck_abort_msg("offset %llu size %zu: %s, block at %td", (unsigned long long)offset,
                     payload_bytes, sl_err_code(err), claim.payload - arena);
    }
}

START_TEST(block_is_contiguous_at_every_offset)
{
    for (uint64_t offset = 0; offset < SL_LANE_ARENA_BYTES; offset += 64) {
        check_block_at(offset, payload_sizes[_i]);
    }
}
END_TEST

/* At each offset: full to the last block, with what is skipped at the end counted as taken. */
START_TEST(arena_fills_exactly_from_every_offset)
{
    struct sl_ring_claim claim;

    for (uint64_t offset = 0; offset < SL_LANE_ARENA_BYTES; offset += (uint64_t)64 * 1021) {
        sl_ring_producer_init(&producer, ring, arena, block_end);
        producer.arena_head = producer.arena_tail = offset;
        size_t count = 0;
        while (sl_ring_reserve(&producer, (size_t)96 * SL_KIB, &claim) == SL_OK) {
            count++;
            if (claim.payload < arena ||
                claim.payload + (size_t)96 * SL_KIB > arena + SL_LANE_ARENA_BYTES) {
                ck_abort_msg("offset %llu: a block leaves the arena", (unsigned long long)offset);
            }
        }
        ck_assert_uint_ge(count, 41); /* 42 fit without a wrap; at most one is lost to it */
        ck_assert_uint_le(count, 42);
        ck_assert_uint_le(producer.arena_head - producer.arena_tail, SL_LANE_ARENA_BYTES);
    }
}
END_TEST

/* ---- a side starts in the middle ------------------------------------------------------------- */

START_TEST(new_consumer_sees_the_unreleased_again)
{
    for (int i = 0; i < 5; i++) {
        put_and_publish(100);
        take(100);
    }
    sl_ring_release(&consumer, 1);
    sl_ring_consumer_init(&consumer, ring, arena);
    for (int i = 0; i < 3; i++) {
        take(100);
    }
    struct sl_ring_item item;
    ck_assert_int_eq(sl_ring_peek(&consumer, &item), SL_ERR_AGAIN);
}
END_TEST

START_TEST(new_producer_leaves_waiting_blocks_alone)
{
    struct sl_ring_claim claim;

    put_and_publish(1000);
    put_and_publish(1000);
    sl_ring_producer_init(&producer, ring, arena, block_end);
    ck_assert_uint_eq(pending(), 2);
    ck_assert_int_eq(sl_ring_reserve(&producer, 1, &claim), SL_ERR_FULL);
    take(1000);
    sl_ring_release(&consumer, 0);
    ck_assert_int_eq(sl_ring_reserve(&producer, 1, &claim), SL_ERR_FULL);
    take(1000);
    sl_ring_release(&consumer, 1);
    put_and_publish(SL_LANE_PAYLOAD_BYTES_MAX);
    take(SL_LANE_PAYLOAD_BYTES_MAX);
}
END_TEST

/* ---- a peer that breaks the rules ------------------------------------------------------------ */

/* Before: 8 items published, 4 peeked, 2 released, and both sides know it. */
static void set_up_traffic(void)
{
    for (int i = 0; i < 8; i++) {
        put_and_publish(100);
    }
    for (int i = 0; i < 4; i++) {
        take(100);
    }
    sl_ring_release(&consumer, 1);
    ck_assert_uint_eq(pending(), 6);
}

struct word_case {
    const char *name;
    uint64_t value;
    enum sl_err expected;
};

/* The consumer has caught up with tail = 8, head = 2. */
static const struct word_case tail_cases[] = {
    {"as it was", 8, SL_ERR_AGAIN},
    {"one back", 7, SL_ERR_SHM},
    {"behind head", 1, SL_ERR_SHM},
    {"zero", 0, SL_ERR_SHM},
    {"one past the slots", 2 + SL_RING_SLOTS + 1, SL_ERR_SHM},
    {"far ahead", UINT64_C(1) << 40, SL_ERR_SHM},
    {"all ones", UINT64_MAX, SL_ERR_SHM},
    /* As far as it may be, but the slot holds no item of that position. */
    {"ahead without items", 2 + SL_RING_SLOTS, SL_ERR_SHM},
};

START_TEST(damaged_tail_is_refused)
{
    struct sl_ring_item item;

    set_up_traffic();
    for (int i = 0; i < 4; i++) {
        take(100);
    }
    if (tail_cases[_i].value < 8) {
        put(100); /* the next slot looks like an item: the tail alone must give it away */
    }
    atomic_store(&ring->tail, tail_cases[_i].value);
    ck_assert_msg(sl_ring_peek(&consumer, &item) == tail_cases[_i].expected, "tail %s",
                  tail_cases[_i].name);
    /* has_items sends the caller to peek, which reports it. */
    ck_assert(sl_ring_has_items(&consumer) == (tail_cases[_i].expected == SL_ERR_SHM));
}
END_TEST

static const struct word_case head_cases[] = {
    {"as it was", 2, SL_OK},
    {"all released", 8, SL_OK},
    {"one back", 1, SL_ERR_SHM},
    {"zero", 0, SL_ERR_SHM},
    {"one beyond tail", 9, SL_ERR_SHM},
    {"a ring beyond tail", 8 + SL_RING_SLOTS, SL_ERR_SHM},
    {"all ones", UINT64_MAX, SL_ERR_SHM},
};

START_TEST(damaged_head_is_refused)
{
    uint64_t count;
    struct sl_ring_claim claim;

    set_up_traffic();
    atomic_store(&ring->head, head_cases[_i].value);
    ck_assert_msg(sl_ring_pending(&producer, &count) == head_cases[_i].expected, "head %s",
                  head_cases[_i].name);
    /* Reserving looks at head only when it must: then it finds it, too. */
    enum sl_err err = SL_OK;
    for (int i = 0; i <= SL_RING_SLOTS && err == SL_OK; i++) {
        err = sl_ring_reserve(&producer, 0, &claim);
    }
    ck_assert_int_eq(err, head_cases[_i].expected == SL_OK ? SL_ERR_FULL : SL_ERR_SHM);
}
END_TEST

/* Reserved but not published is not the consumer's to release. */
START_TEST(head_over_unpublished_items_is_refused)
{
    uint64_t count;

    set_up_traffic();
    put(100);
    atomic_store(&ring->head, 9);
    ck_assert_int_eq(sl_ring_pending(&producer, &count), SL_ERR_SHM);
}
END_TEST

static const struct {
    uint64_t tail;
    uint64_t head;
} start_cases[] = {{0, 1}, {5, 6}, {5000, 1}, {UINT64_MAX, 0}, {0, UINT64_MAX}, {4097, 0}};

START_TEST(damaged_start_is_refused)
{
    struct sl_ring_claim claim;
    uint64_t count;

    atomic_store(&ring->tail, start_cases[_i].tail);
    atomic_store(&ring->head, start_cases[_i].head);
    sl_ring_producer_init(&producer, ring, arena, block_end);
    ck_assert_int_eq(sl_ring_pending(&producer, &count), SL_ERR_SHM);
    enum sl_err err = SL_OK;
    for (int i = 0; i <= SL_RING_SLOTS && err == SL_OK; i++) {
        err = sl_ring_reserve(&producer, 0, &claim);
    }
    ck_assert_int_eq(err, SL_ERR_SHM);
    struct sl_ring_item item;
    sl_ring_consumer_init(&consumer, ring, arena);
    ck_assert_int_eq(sl_ring_peek(&consumer, &item), SL_ERR_SHM);
}
END_TEST

static const struct {
    const char *name;
    uint64_t position;
    uint32_t offset;
    uint32_t bytes;
    enum sl_err expected;
} slot_cases[] = {
    {"honest", 0, 0, 100, SL_OK},
    {"last block of the arena", 0, SL_LANE_ARENA_BYTES - 64, 64, SL_OK},
    {"empty block at the end", 0, SL_LANE_ARENA_BYTES, 0, SL_OK},
    {"largest block at the end", 0, SL_LANE_ARENA_BYTES - SL_LANE_PAYLOAD_BYTES_MAX,
     SL_LANE_PAYLOAD_BYTES_MAX, SL_OK},
    {"position of another item", 1, 0, 100, SL_ERR_SHM},
    {"position of a turn ago", UINT64_MAX - SL_RING_SLOTS + 1, 0, 100, SL_ERR_SHM},
    {"one byte past the arena", 0, SL_LANE_ARENA_BYTES - 64, 65, SL_ERR_SHM},
    {"starts past the arena", 0, SL_LANE_ARENA_BYTES + 64, 0, SL_ERR_SHM},
    {"largest offset", 0, UINT32_MAX - 63, 64, SL_ERR_SHM},
    {"offset and size that wrap", 0, UINT32_MAX - 63, UINT32_MAX, SL_ERR_SHM},
    {"one byte over the payload limit", 0, 0, SL_LANE_PAYLOAD_BYTES_MAX + 1, SL_ERR_SHM},
    {"largest size", 0, 0, UINT32_MAX, SL_ERR_SHM},
    {"offset between blocks", 0, 1, 10, SL_ERR_SHM},
};

START_TEST(damaged_slot_is_refused)
{
    struct sl_ring_item item = {.position = 77};

    put_and_publish(100);
    atomic_store(&ring->slots[0].position, slot_cases[_i].position);
    atomic_store(&ring->slots[0].block_offset, slot_cases[_i].offset);
    atomic_store(&ring->slots[0].block_bytes, slot_cases[_i].bytes);
    ck_assert_msg(sl_ring_peek(&consumer, &item) == slot_cases[_i].expected, "slot: %s",
                  slot_cases[_i].name);
    if (slot_cases[_i].expected == SL_OK) {
        ck_assert_ptr_eq(item.payload.ptr, arena + slot_cases[_i].offset);
        ck_assert_uint_eq(item.payload.len, slot_cases[_i].bytes);
    } else {
        ck_assert_uint_eq(item.position, 77); /* written only on success */
    }
}
END_TEST

/* ---- random walk ----------------------------------------------------------------------------- */

struct owned {
    size_t start;
    size_t end;
    uint64_t seed;
};

static struct owned owned[SL_RING_SLOTS];
static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void check_disjoint(const struct owned *fresh, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        const struct owned *other = &owned[i % SL_RING_SLOTS];
        if (fresh->start < other->end && other->start < fresh->end) {
            ck_abort_msg("block [%zu, %zu) overlaps that of item %llu", fresh->start, fresh->end,
                         (unsigned long long)i);
        }
    }
}

static void walk_reserve(void)
{
    struct sl_ring_claim claim;
    size_t bytes = next_random() % 8 == 0 ? next_random() % (SL_LANE_PAYLOAD_BYTES_MAX + 1)
                                          : next_random() % 5000;
    uint64_t position = producer.tail;

    if (sl_ring_reserve(&producer, bytes, &claim) != SL_OK) {
        return;
    }
    struct owned *mine = &owned[position % SL_RING_SLOTS];
    *mine = (struct owned){.start = (size_t)(claim.payload - arena), .seed = next_random() | 1};
    mine->end = mine->start + bytes;
    if (mine->end > SL_LANE_ARENA_BYTES) {
        ck_abort_msg("item %llu leaves the arena", (unsigned long long)position);
    }
    check_disjoint(mine, consumer.released, position);
    memset(claim.payload, (int)(mine->seed & 0xff), bytes);
    memcpy(claim.msg, &mine->seed, sizeof(mine->seed));
}

static void walk_peek(void)
{
    struct sl_ring_item item;

    if (sl_ring_peek(&consumer, &item) != SL_OK) {
        return;
    }
    const struct owned *mine = &owned[item.position % SL_RING_SLOTS];
    if (memcmp(item.msg, &mine->seed, sizeof(mine->seed)) != 0 ||
        item.payload.ptr != arena + mine->start || item.payload.len != mine->end - mine->start) {
        ck_abort_msg("item %llu is not what was put", (unsigned long long)item.position);
    }
    check_filled(&item, (unsigned char)mine->seed);
}

START_TEST(random_walk_keeps_every_block)
{
    sl_os_random(&random_state, sizeof(random_state));
    random_state |= 1;
    printf("test_ring: seed %llu\n", (unsigned long long)random_state);
    for (int step = 0; step < 60000; step++) {
        uint64_t choice = next_random() % 16;
        if (choice < 7) {
            walk_reserve();
        } else if (choice < 9) {
            sl_ring_publish(&producer);
        } else if (choice < 15) {
            walk_peek();
        } else if (consumer.next > consumer.released) {
            uint64_t open = consumer.next - consumer.released;
            sl_ring_release(&consumer, consumer.released + next_random() % open);
        }
    }
    ck_assert_uint_gt(consumer.released, 1000);
}
END_TEST

#define ADD_CASES(tcase, test, cases) tcase_add_loop_test(tcase, test, 0, SL_ARRAY_LEN(cases))

int main(void)
{
    Suite *suite = suite_create("ring");
    TCase *tcase = tcase_create("ring");

    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, fresh_ring_is_empty);
    tcase_add_test(tcase, item_is_unseen_until_published);
    tcase_add_test(tcase, message_is_zeroed_for_each_item);
    tcase_add_test(tcase, ring_is_full_at_its_slots);
    tcase_add_test(tcase, arena_is_full_at_its_bytes);
    ADD_CASES(tcase, payload_travels_whole, payload_sizes);
    tcase_add_test_raise_signal(tcase, payload_over_the_limit_is_our_bug, SIGABRT);
    tcase_add_test_raise_signal(tcase, release_of_the_unpeeked_is_our_bug, SIGABRT);
    tcase_add_test(tcase, release_again_changes_nothing);
    ADD_CASES(tcase, block_is_contiguous_at_every_offset, payload_sizes);
    tcase_add_test(tcase, arena_fills_exactly_from_every_offset);
    tcase_add_test(tcase, new_consumer_sees_the_unreleased_again);
    tcase_add_test(tcase, new_producer_leaves_waiting_blocks_alone);
    ADD_CASES(tcase, damaged_tail_is_refused, tail_cases);
    ADD_CASES(tcase, damaged_head_is_refused, head_cases);
    tcase_add_test(tcase, head_over_unpublished_items_is_refused);
    ADD_CASES(tcase, damaged_start_is_refused, start_cases);
    ADD_CASES(tcase, damaged_slot_is_refused, slot_cases);
    tcase_add_test(tcase, random_walk_keeps_every_block);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
