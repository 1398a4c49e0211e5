#ifndef SL_COMMON_SHM_LAYOUT_H
#define SL_COMMON_SHM_LAYOUT_H

/*
 * The only description of shared bytes: one lane, as broker and worker both map it.
 *
 * Offsets and fixed widths only, no pointers. Everything two sides write lies at least 128 bytes
 * apart (adjacent-line prefetch makes 64 too little). Each field names its writer, its readers, the
 * order, and what a writer killed at any instruction can leave behind. The worker can write every
 * byte of it: whatever the broker reads here is checked first and never steers a pointer, a loop or
 * a system call unchecked.
 *
 * A change of meaning, order or size raises SL_LANE_LAYOUT_VERSION: services of two versions then
 * refuse each other's lanes by name instead of misreading them.
 */

#include <semaphore.h>
#include <stdatomic.h>

#include "common/base.h"
#include "common/limits.h"

#define SL_LANE_MAGIC UINT64_C(0x314e414c45554c53) /* "SLUELAN1" in memory */
#define SL_LANE_LAYOUT_VERSION UINT32_C(1)
#define SL_LANE_ENDIAN_WORD UINT32_C(0x01020304)
#define SL_SHM_LINE 128
#define SL_SHM_PAGE 4096
#define SL_BOOT_ID_BYTES 40
#define SL_LIBC_TAG_BYTES 24

/* The constant part. Writer: the broker in sl_lane_create, before anybody else has the memory.
 * Readers: the worker in sl_lane_attach, once. Afterwards nobody reads or writes it. A broker that
 * dies while writing leaves no magic, and nobody who could map it. */
struct sl_lane_header {
    _Atomic uint64_t magic;   /* stored last (release): a header with it is complete */
    uint32_t layout_version;  /* from here to `checksum` the bytes are under the checksum */
    uint32_t header_bytes;    /* sizeof(struct sl_lane_header) */
    uint64_t total_bytes;     /* sizeof(struct sl_lane_segment), and of the memfd */
    uint32_t page_bytes;      /* page size of the creating kernel */
    uint32_t endian_word;     /* SL_LANE_ENDIAN_WORD, as the creator stores it */
    uint32_t semaphore_bytes; /* sizeof(sem_t): differs between C libraries */
    uint32_t ring_slots;      /* SL_RING_SLOTS */
    uint32_t slot_bytes;      /* SL_SLOT_BYTES */
    uint32_t arena_bytes;     /* SL_LANE_ARENA_BYTES */
    uint64_t generation;      /* of this lane; a result is good under its own generation alone */
    uint64_t broker_start;    /* start time of the creator in ticks since boot (0: unknown) */
    uint32_t broker_pid;      /* with boot id and start time it names the process for good */
    uint32_t lane_idx;        /* below SL_LANES_MAX */
    uint64_t worker_offset;   /* offsets from the start of the segment; see the struct below */
    uint64_t bell_down_offset;
    uint64_t bell_up_offset;
    uint64_t bell_space_offset;
    uint64_t ring_down_offset;
    uint64_t ring_up_offset;
    uint64_t arena_down_offset;
    uint64_t arena_up_offset;
    char libc_tag[SL_LIBC_TAG_BYTES]; /* "glibc 2.36", NUL-filled: semaphores are its private shape
                                       */
    char boot_id[SL_BOOT_ID_BYTES]; /* of the kernel, NUL-filled; empty: /proc could not be read */
    uint64_t checksum;              /* sl_hash64 of [layout_version, checksum) */
};

/* One item: the ring's own 16 bytes and the user's message. Writer: the producer, between reserve
 * and publish (relaxed and plain stores). Reader: the consumer, after it acquired a tail beyond it.
 * Ordered by the pair tail-release, tail-acquire; given back by the pair head-release,
 * head-acquire. A dead producer leaves garbage only at positions at or beyond `tail`, where nobody
 * looks. */
struct sl_ring_slot {
    _Atomic uint64_t position;     /* of the item in this slot: a stale slot is seen */
    _Atomic uint32_t block_offset; /* of the block in the arena, a multiple of 64 */
    _Atomic uint32_t block_bytes;  /* payload bytes, at most SL_LANE_PAYLOAD_BYTES_MAX */
    char msg[SL_SLOT_BYTES - 16];
};

struct sl_ring_shared {
    /* Items ever published. Writer: the producer alone (release). Readers: the consumer (acquire)
     * before it looks at a slot; the producer once, at start. A dead producer leaves the old or the
     * new value, both of them true. */
    _Alignas(SL_SHM_LINE) _Atomic uint64_t tail;
    /* Items ever released. Writer: the consumer alone (release). Readers: the producer (acquire)
     * before it overwrites a slot or a block; the consumer once, at start. A dead consumer leaves
     * the old or the new value: what it did not release is still the producer's. */
    _Alignas(SL_SHM_LINE) _Atomic uint64_t head;
    _Alignas(SL_SHM_LINE) struct sl_ring_slot slots[SL_RING_SLOTS];
};

/* A bell. Both words are hints; see common/bell.c for the argument. */
struct sl_bell_shared {
    /* At most one token. Writers: the ringer adds one when it sees none, the waiter takes it
     * (read-modify-write both). A killed waiter leaves a token too few or a waiter counted for
     * ever, a killed ringer a token nobody was woken for: each costs the waiter one deadline. */
    _Alignas(SL_SHM_LINE) union {
        sem_t posix;
        _Atomic uint64_t word; /* the same bytes: low half tokens, high half waiters */
    } semaphore;
    /* 1: the waiter is going to sleep in epoll. Writers: the waiter (arm 1, disarm 0) and the
     * ringer (1 to 0, then writes the eventfd), all by exchange. A ringer killed between its
     * exchange and the write costs the waiter one time-out; its death is noticed sooner, by the
     * socket. */
    _Atomic uint32_t sleeping;
    uint32_t reserved;
};

/* The worker's own words. Writer: the worker alone. Reader: the broker. */
struct sl_worker_block {
    /* struct sl_worker_stats, field by field (relaxed: each stands for itself; two of them may be
     * of different turns). A dead worker leaves its last values. */
    _Alignas(SL_SHM_LINE) _Atomic uint64_t calls;
    _Atomic uint64_t in_flight;
    _Atomic int64_t heartbeat_ns;
    /* Written by sl_check_fail while the worker dies (plain stores), read after its death was seen.
     * May be cut short, or without its NUL, or any bytes: the reader makes it printable. */
    _Alignas(SL_SHM_LINE) char last_words[SL_LAST_WORDS_BYTES];
};

struct sl_lane_segment {
    _Alignas(SL_SHM_PAGE) struct sl_lane_header header;
    struct sl_worker_block worker;
    struct sl_bell_shared bell_down;  /* broker rings, worker waits: work */
    struct sl_bell_shared bell_up;    /* worker rings, broker waits: results */
    struct sl_bell_shared bell_space; /* broker rings, worker waits: results were released */
    _Alignas(SL_SHM_PAGE) struct sl_ring_shared ring_down;
    _Alignas(SL_SHM_PAGE) struct sl_ring_shared ring_up;
    /* Blocks of items. Writer: the producer of the ring, in blocks it reserved. Reader: its
     * consumer, in blocks of items it peeked. Order and remains: as the slot that names them. */
    _Alignas(SL_SHM_PAGE) char arena_down[SL_LANE_ARENA_BYTES];
    _Alignas(SL_SHM_PAGE) char arena_up[SL_LANE_ARENA_BYTES];
};

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "no locks in atomics");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "plain widths");

_Static_assert(offsetof(struct sl_lane_header, magic) == 0, "header");
_Static_assert(offsetof(struct sl_lane_header, layout_version) == 8, "header");
_Static_assert(offsetof(struct sl_lane_header, total_bytes) == 16, "header");
_Static_assert(offsetof(struct sl_lane_header, semaphore_bytes) == 32, "header");
_Static_assert(offsetof(struct sl_lane_header, generation) == 48, "header");
_Static_assert(offsetof(struct sl_lane_header, broker_pid) == 64, "header");
_Static_assert(offsetof(struct sl_lane_header, worker_offset) == 72, "header");
_Static_assert(offsetof(struct sl_lane_header, arena_up_offset) == 128, "header");
_Static_assert(offsetof(struct sl_lane_header, libc_tag) == 136, "header");
_Static_assert(offsetof(struct sl_lane_header, boot_id) == 160, "header");
_Static_assert(offsetof(struct sl_lane_header, checksum) == 200, "header");
_Static_assert(sizeof(struct sl_lane_header) == 208, "header has no hidden padding");

_Static_assert(offsetof(struct sl_ring_slot, block_offset) == 8, "slot");
_Static_assert(offsetof(struct sl_ring_slot, block_bytes) == 12, "slot");
_Static_assert(offsetof(struct sl_ring_slot, msg) == 16, "slot");
_Static_assert(sizeof(struct sl_ring_slot) == SL_SLOT_BYTES, "slot");
_Static_assert(offsetof(struct sl_ring_shared, tail) == 0, "ring");
_Static_assert(offsetof(struct sl_ring_shared, head) == SL_SHM_LINE, "ring");
_Static_assert(offsetof(struct sl_ring_shared, slots) == (size_t)2 * SL_SHM_LINE, "ring");
_Static_assert(sizeof(struct sl_ring_shared) ==
                   (size_t)2 * SL_SHM_LINE + (size_t)SL_RING_SLOTS * SL_SLOT_BYTES,
               "ring");

_Static_assert(sizeof(sem_t) == 32, "a 64-bit glibc semaphore");
_Static_assert(offsetof(struct sl_bell_shared, semaphore) == 0, "bell");
_Static_assert(offsetof(struct sl_bell_shared, sleeping) == 32, "bell");
_Static_assert(sizeof(struct sl_bell_shared) == SL_SHM_LINE, "bell");

_Static_assert(offsetof(struct sl_worker_block, calls) == 0, "worker block");
_Static_assert(offsetof(struct sl_worker_block, heartbeat_ns) == 16, "worker block");
_Static_assert(offsetof(struct sl_worker_block, last_words) == SL_SHM_LINE, "worker block");

_Static_assert(offsetof(struct sl_lane_segment, worker) == 256, "segment");
_Static_assert(offsetof(struct sl_lane_segment, bell_down) == 640, "segment");
_Static_assert(offsetof(struct sl_lane_segment, bell_up) == 768, "segment");
_Static_assert(offsetof(struct sl_lane_segment, bell_space) == 896, "segment");
_Static_assert(offsetof(struct sl_lane_segment, ring_down) == SL_SHM_PAGE, "segment");
_Static_assert(offsetof(struct sl_lane_segment, ring_up) == 532480, "segment");
_Static_assert(offsetof(struct sl_lane_segment, arena_down) == 1060864, "segment");
_Static_assert(offsetof(struct sl_lane_segment, arena_up) == 1060864 + SL_LANE_ARENA_BYTES, "seg.");
_Static_assert(sizeof(struct sl_lane_segment) == 1060864 + 2 * SL_LANE_ARENA_BYTES, "segment");

#endif
