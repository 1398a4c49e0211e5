/*
 * The single-producer single-consumer ring and its arena; see common/ring.h.
 *
 * Runs in the broker (producer of work, consumer of results) and in each worker (the reverse).
 * Makes no system call, takes no lock, never blocks, allocates nothing, never stores a pointer in
 * shared memory.
 *
 * Memory orders, all of them: the producer's release store of `tail` pairs with the consumer's
 * acquire load (a slot and its block are complete before they are seen); the consumer's release
 * store of `head` pairs with the producer's acquire load (all reads of a slot and its block are
 * over before they are overwritten). Everything else is private. tests/model/ring.pml checks this,
 * and that each of the four is needed.
 *
 * Survives a kill at any instruction: each side changes what the other sees by one 64-bit store, so
 * an item is either not there or complete, and a release either happened or did not.
 *
 * Reports SL_ERR_SHM for anything the other side could not have written if it kept the rules.
 */
#include "common/ring.h"

#include <stdatomic.h>

#include "common/check.h"
#include "common/shm_layout.h"

#define BLOCK_ALIGN ((size_t)64)
#define SLOT_MASK ((uint64_t)SL_RING_SLOTS - 1)

_Static_assert(SL_LANE_ARENA_BYTES % BLOCK_ALIGN == 0, "the last block may end with the arena");
_Static_assert(SL_LANE_ARENA_BYTES <= UINT32_MAX, "offsets fit a slot");
_Static_assert(SL_SLOT_MSG_BYTES == sizeof(((struct sl_ring_slot *)0)->msg), "message size");

/* ---- producer -------------------------------------------------------------------------------- */

/* Whoever produced before us laid the waiting items out in an order only it knew: until the last of
 * them is released the whole arena counts as theirs. A damaged pair of positions is kept as it is
 * and found by the first call that looks at `head`. */
static void adopt_waiting(struct sl_ring_producer *producer)
{
    uint64_t waiting = producer->tail - producer->head_cached;

    if (waiting == 0 || waiting > SL_RING_SLOTS) {
        return;
    }
    for (uint64_t i = 0; i < waiting; i++) {
        producer->block_end[(producer->head_cached + i) & SLOT_MASK] = 0;
    }
    producer->block_end[(producer->tail - 1) & SLOT_MASK] = SL_LANE_ARENA_BYTES;
    producer->arena_head = SL_LANE_ARENA_BYTES;
}

void sl_ring_producer_init(struct sl_ring_producer *producer, struct sl_ring_shared *ring,
                           char *arena, uint64_t *block_end)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);

    *producer = (struct sl_ring_producer){
        .ring = ring,
        .arena = arena,
        .tail = tail,
        .published = tail,
        .head_cached = atomic_load_explicit(&ring->head, memory_order_acquire),
        .block_end = block_end,
    };
    adopt_waiting(producer);
}

static enum sl_err refresh_head(struct sl_ring_producer *producer)
{
    /* Pairs with the release in sl_ring_release: the consumer's reads below it are over. */
    uint64_t head = atomic_load_explicit(&producer->ring->head, memory_order_acquire);

    if (head < producer->head_cached || head > producer->published ||
        producer->published - head > SL_RING_SLOTS) {
        return SL_ERR_SHM;
    }
    if (head != producer->head_cached) {
        producer->arena_tail = producer->block_end[(head - 1) & SLOT_MASK];
        producer->head_cached = head;
    }
    return SL_OK;
}

struct place {
    uint64_t start; /* where the block starts, in bytes ever reserved */
    uint64_t end;
};

/* A block is contiguous: what is left before the end of the arena is skipped when it is too short.
 */
static bool find_place(const struct sl_ring_producer *producer, size_t payload_bytes,
                       struct place *out)
{
    uint64_t bytes = sl_round_up(payload_bytes, BLOCK_ALIGN);
    uint64_t offset = producer->arena_head % SL_LANE_ARENA_BYTES;
    uint64_t skip = offset + bytes > SL_LANE_ARENA_BYTES ? SL_LANE_ARENA_BYTES - offset : 0;
    uint64_t room = SL_LANE_ARENA_BYTES - (producer->arena_head - producer->arena_tail);

    if (producer->tail - producer->head_cached >= SL_RING_SLOTS || skip + bytes > room) {
        return false;
    }
    out->start = producer->arena_head + skip;
    out->end = out->start + bytes;
    return true;
}

enum sl_err sl_ring_reserve(struct sl_ring_producer *producer, size_t payload_bytes,
                            struct sl_ring_claim *claim)
{
    struct place place;

    SL_ASSERT(payload_bytes <= SL_LANE_PAYLOAD_BYTES_MAX);
    if (!find_place(producer, payload_bytes, &place)) {
        enum sl_err err = refresh_head(producer);
        if (err != SL_OK) {
            return err;
        }
        if (!find_place(producer, payload_bytes, &place)) {
            return SL_ERR_FULL;
        }
    }
    uint64_t offset = place.start % SL_LANE_ARENA_BYTES;
    struct sl_ring_slot *slot = &producer->ring->slots[producer->tail & SLOT_MASK];

    /* Relaxed: nobody looks at the slot before the release in sl_ring_publish. */
    atomic_store_explicit(&slot->position, producer->tail, memory_order_relaxed);
    atomic_store_explicit(&slot->block_offset, (uint32_t)offset, memory_order_relaxed);
    atomic_store_explicit(&slot->block_bytes, (uint32_t)payload_bytes, memory_order_relaxed);
    memset(slot->msg, 0, sizeof(slot->msg));
    producer->block_end[producer->tail & SLOT_MASK] = place.end;
    producer->arena_head = place.end;
    producer->tail++;
    claim->msg = slot->msg;
    claim->payload = producer->arena + offset;
    return SL_OK;
}

void sl_ring_publish(struct sl_ring_producer *producer)
{
    SL_ASSERT(producer->published <= producer->tail);
    if (producer->published == producer->tail) {
        return;
    }
    /* Pairs with the acquire in load_tail. */
    atomic_store_explicit(&producer->ring->tail, producer->tail, memory_order_release);
    producer->published = producer->tail;
}

enum sl_err sl_ring_pending(struct sl_ring_producer *producer, uint64_t *count)
{
    enum sl_err err = refresh_head(producer);

    if (err == SL_OK) {
        *count = producer->published - producer->head_cached;
    }
    return err;
}

/* ---- consumer -------------------------------------------------------------------------------- */

void sl_ring_consumer_init(struct sl_ring_consumer *consumer, struct sl_ring_shared *ring,
                           const char *arena)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

    *consumer = (struct sl_ring_consumer){
        .ring = ring,
        .arena = arena,
        .next = head,
        .released = head,
        .tail_cached = head,
    };
}

static uint64_t load_tail(const struct sl_ring_consumer *consumer)
{
    /* Pairs with the release in sl_ring_publish: slots and blocks below it are complete. */
    return atomic_load_explicit(&consumer->ring->tail, memory_order_acquire);
}

static enum sl_err refresh_tail(struct sl_ring_consumer *consumer)
{
    uint64_t tail = load_tail(consumer);

    if (tail < consumer->tail_cached || tail - consumer->released > SL_RING_SLOTS) {
        return SL_ERR_SHM;
    }
    consumer->tail_cached = tail;
    return SL_OK;
}

static enum sl_err copy_item(const struct sl_ring_consumer *consumer, struct sl_ring_item *item)
{
    struct sl_ring_slot *slot = &consumer->ring->slots[consumer->next & SLOT_MASK];
    uint64_t position = atomic_load_explicit(&slot->position, memory_order_relaxed);
    uint32_t offset = atomic_load_explicit(&slot->block_offset, memory_order_relaxed);
    uint32_t bytes = atomic_load_explicit(&slot->block_bytes, memory_order_relaxed);

    if (position != consumer->next || bytes > SL_LANE_PAYLOAD_BYTES_MAX ||
        offset % BLOCK_ALIGN != 0 || offset > SL_LANE_ARENA_BYTES - bytes) {
        return SL_ERR_SHM;
    }
    memcpy(item->msg, slot->msg, sizeof(item->msg));
    /* The caller checks and uses the copy: the compiler must not read the slot again for it. */
    atomic_signal_fence(memory_order_seq_cst);
    item->position = position;
    item->payload = sl_span_of(consumer->arena + offset, bytes);
    return SL_OK;
}

enum sl_err sl_ring_peek(struct sl_ring_consumer *consumer, struct sl_ring_item *item)
{
    SL_ASSERT(consumer->released <= consumer->next && consumer->next <= consumer->tail_cached);
    if (consumer->next == consumer->tail_cached) {
        enum sl_err err = refresh_tail(consumer);
        if (err != SL_OK) {
            return err;
        }
        if (consumer->next == consumer->tail_cached) {
            return SL_ERR_AGAIN;
        }
    }
    enum sl_err err = copy_item(consumer, item);
    if (err == SL_OK) {
        consumer->next++;
    }
    return err;
}

void sl_ring_release(struct sl_ring_consumer *consumer, uint64_t position)
{
    SL_ASSERT(position < consumer->next);
    if (position < consumer->released) {
        return;
    }
    consumer->released = position + 1;
    /* Pairs with the acquire in refresh_head. */
    atomic_store_explicit(&consumer->ring->head, consumer->released, memory_order_release);
}

bool sl_ring_has_items(struct sl_ring_consumer *consumer)
{
    /* A tail that makes no sense counts as an item: the peek that follows reports it. */
    return consumer->next != consumer->tail_cached || load_tail(consumer) != consumer->next;
}
