#ifndef SL_COMMON_RING_H
#define SL_COMMON_RING_H

/*
 * A single-producer single-consumer ring of fixed slots in shared memory, with an arena of bytes
 * beside it for what a slot carries (request bodies, answers).
 *
 * The producer reserves a slot and, in the same call, a contiguous block of the arena; fills both;
 * publishes. The consumer peeks items in order, each slot copied out once and its block bounds
 * checked, and releases them, later and in order: slots and blocks are free again only then. So a
 * consumer that must first make a result durable leaves it in the ring until it is, and the
 * producer still has it if the consumer dies.
 *
 * Shared words: `tail` (written by the producer alone, release-stored; acquire-loaded by the
 * consumer) and `head` (written by the consumer alone, release-stored; acquire-loaded by the
 * producer). The arena has no shared words: the producer keeps, privately, where each slot's block
 * ends, and frees blocks as it sees `head` advance. A side killed at any instruction leaves an item
 * either not there or complete.
 *
 * No system calls, no locks, never blocks; waking the other side is common/bell.h. Positions are
 * counted in items from 0 and never wrap in practice (64 bit).
 *
 * What the peer wrote is untrusted: a head or tail that goes backwards or runs ahead, or a block
 * out of bounds, is SL_ERR_SHM, and the lane is to be discarded.
 */

#include "common/err.h"
#include "common/limits.h"

/* What a slot holds for its user: everything behind the ring's own 16 bytes. */
#define SL_SLOT_MSG_BYTES (SL_SLOT_BYTES - 16)

struct sl_ring_shared; /* common/shm_layout.h */

struct sl_ring_producer {
    struct sl_ring_shared *ring;
    char *arena;
    uint64_t tail;        /* next position to reserve */
    uint64_t published;   /* what the shared tail says */
    uint64_t head_cached; /* the consumer's head when last looked at */
    uint64_t arena_head;  /* bytes ever reserved, padding included */
    uint64_t arena_tail;  /* bytes ever freed */
    uint64_t *block_end;  /* [SL_RING_SLOTS] arena_head after each slot's block; private */
};

struct sl_ring_consumer {
    struct sl_ring_shared *ring;
    const char *arena;
    uint64_t next;        /* next position to peek */
    uint64_t released;    /* what the shared head says */
    uint64_t tail_cached; /* the producer's tail when last looked at */
};

struct sl_ring_claim {
    char *msg;     /* SL_SLOT_MSG_BYTES, zeroed, in shared memory: write only */
    char *payload; /* the block, in shared memory: write only */
};

struct sl_ring_item {
    uint64_t position;
    char msg[SL_SLOT_MSG_BYTES]; /* private copy */
    struct sl_span payload;      /* in shared memory, bounds checked; the peer may still change the
                                    bytes: copy before parsing */
};

/* Both ends start at the positions found in shared memory (0 in a fresh lane). `block_end` is an
 * array of SL_RING_SLOTS of the caller, private memory, valid while the producer is used. */
void sl_ring_producer_init(struct sl_ring_producer *producer, struct sl_ring_shared *ring,
                           char *arena, uint64_t *block_end);
void sl_ring_consumer_init(struct sl_ring_consumer *consumer, struct sl_ring_shared *ring,
                           const char *arena);

/* SL_ERR_FULL: no slot or no block now; SL_ERR_SHM: the peer broke the ring. payload_bytes is at
 * most SL_LANE_PAYLOAD_BYTES_MAX (asserted). */
MUST_CHECK enum sl_err sl_ring_reserve(struct sl_ring_producer *producer, size_t payload_bytes,
                                       struct sl_ring_claim *claim);
/* Makes everything reserved so far visible to the consumer. */
void sl_ring_publish(struct sl_ring_producer *producer);
/* How many items were published and not yet released by the consumer; SL_ERR_SHM as above. */
MUST_CHECK enum sl_err sl_ring_pending(struct sl_ring_producer *producer, uint64_t *count);

/* SL_ERR_AGAIN: nothing new; SL_ERR_SHM: the peer broke the ring. */
MUST_CHECK enum sl_err sl_ring_peek(struct sl_ring_consumer *consumer, struct sl_ring_item *item);
/* Releases all items up to and including `position`, which must have been peeked. */
void sl_ring_release(struct sl_ring_consumer *consumer, uint64_t position);
/* Is there an item to peek? */
bool sl_ring_has_items(struct sl_ring_consumer *consumer);

#endif
