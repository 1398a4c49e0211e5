#ifndef SL_COMMON_COUNTERS_H
#define SL_COMMON_COUNTERS_H

/*
 * The numbers of common/tbl/counters.def, in a block of shared memory that the broker alone writes
 * and that a status tool may map read-only, also when nobody answers on the socket.
 *
 * One writer for each counter: a thread of the broker that alone adds to it. Writing is a plain
 * load and store, without a lock or a locked instruction. Numbers that must add up (a task moves
 * from ready to inflight) are changed between sl_counters_begin and sl_counters_end, by the loop
 * thread; sl_counters_read gives a reader all numbers as they were outside of such a change.
 *
 * The block belongs to one run of the broker and dies with it (a memfd has no name). What survives
 * a restart is in the store, and the broker sets it anew. A writer that dies leaves each number
 * whole, and at worst a change half done, which sl_counters_read reports.
 */

#include <stdatomic.h>

#include "common/check.h"
#include "common/err.h"

enum sl_counter {
#define X(name, field, metric, type, labels, help, survives) SL_COUNTER_##name,
#include "common/tbl/counters.def"
#undef X
    SL_COUNTER_COUNT
};

/* ---- the table ------------------------------------------------------------------------------- */

enum sl_counter_type { SL_COUNTER_TYPE_COUNTER, SL_COUNTER_TYPE_GAUGE, SL_COUNTER_TYPE_COUNTER_NS };

struct sl_counter_row {
    const char *name;   /* the row's name in the table */
    const char *field;  /* in the status document's queue object; empty: not there */
    const char *metric; /* Prometheus name */
    const char *labels; /* without braces; may be empty */
    const char *help;
    enum sl_counter_type type;
    bool survives; /* is set again from the store at start */
};

/* The row of a counter; `counter` is below SL_COUNTER_COUNT (asserted). */
const struct sl_counter_row *sl_counter_row(enum sl_counter counter);

/* ---- the block ------------------------------------------------------------------------------- */

#define SL_COUNTERS_MAGIC UINT64_C(0x31544e434c534c53) /* "SLSLCNT1" */
#define SL_COUNTERS_VERSION 1
#define SL_COUNTERS_BOOT_ID_BYTES 40 /* a UUID as text, and NULs */

/* Shared memory, written once by sl_counters_create, before the descriptor is given to anyone. */
struct sl_counters_header {
    uint64_t magic;
    uint32_t version;
    uint32_t count;      /* SL_COUNTER_COUNT of the writer */
    uint64_t table_hash; /* over names and types: same hash, same meaning of each index */
    uint64_t generation; /* of the broker */
    char boot_id[SL_COUNTERS_BOOT_ID_BYTES];
    int64_t started_ns; /* monotonic, of the boot above */
    uint32_t pid;       /* of the broker */
    uint32_t reserved;
    char padding[40];
};

struct sl_counters_block {
    struct sl_counters_header header;
    /* Odd while a change is going on. Writer: the broker's loop thread. A dead writer can leave it
     * odd. */
    _Atomic uint64_t change;
    /* Each written by one thread of the broker, see above. */
    _Atomic uint64_t values[SL_COUNTER_COUNT];
};

_Static_assert(sizeof(struct sl_counters_header) == 128, "two cache lines, no hidden padding");
_Static_assert(offsetof(struct sl_counters_block, change) == 128, "numbers follow the header");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a lock would be private to each process");

/* A process's handle: the broker's own, or a reader's (writable is NULL). */
struct sl_counters {
    const struct sl_counters_block *block;
    struct sl_counters_block *writable;
    int memfd; /* -1 for a reader */
};

/* Broker: makes, allocates and seals the memory; all numbers are 0. Readers cannot map it for
 * writing where the kernel knows F_SEAL_FUTURE_WRITE (5.1). SL_ERR_NO_MEMORY | SL_ERR_IO. */
MUST_CHECK enum sl_err sl_counters_create(uint64_t generation, struct sl_counters *out);

/* Reader: maps a descriptor that was handed over (borrowed: it may be closed afterwards) and checks
 * header, seals and size. SL_ERR_SHM: not a block of counters, or damaged; SL_ERR_VERSION: of
 * another table; SL_ERR_NO_MEMORY | SL_ERR_IO: no map. */
MUST_CHECK enum sl_err sl_counters_attach_readonly(int memfd, struct sl_counters *out);

/* Unmaps, and closes the writer's descriptor. Harmless on a handle already closed. */
void sl_counters_close(struct sl_counters *counters);

/* The descriptor to hand to readers (borrowed). */
int sl_counters_fd(const struct sl_counters *counters);

/* All numbers at once. SL_ERR_AGAIN: the writer is in the middle of a change, or died in it: each
 * number is right, but they may not add up. Never blocks. */
MUST_CHECK enum sl_err sl_counters_read(const struct sl_counters *counters,
                                        uint64_t values[SL_COUNTER_COUNT]);

static inline uint64_t sl_counters_get(const struct sl_counters *counters, enum sl_counter counter)
{
    /* Acquire pairs with the release in sl_counters_set: see sl_counters_read. */
    return atomic_load_explicit(&counters->block->values[counter], memory_order_acquire);
}

static inline void sl_counters_set(struct sl_counters *counters, enum sl_counter counter,
                                   uint64_t value)
{
    /* Release: whoever sees this number also sees that its change had begun. */
    atomic_store_explicit(&counters->writable->values[counter], value, memory_order_release);
}

/* Relaxed load: this thread wrote the value itself. */
static inline void sl_counters_add(struct sl_counters *counters, enum sl_counter counter,
                                   uint64_t delta)
{
    uint64_t value =
        atomic_load_explicit(&counters->writable->values[counter], memory_order_relaxed);

    sl_counters_set(counters, counter, value + delta);
}

/* For gauges; below zero is a bug. */
static inline void sl_counters_sub(struct sl_counters *counters, enum sl_counter counter,
                                   uint64_t delta)
{
    uint64_t value =
        atomic_load_explicit(&counters->writable->values[counter], memory_order_relaxed);

    SL_ASSERT(delta <= value);
    sl_counters_set(counters, counter, value - delta);
}

/* Brackets numbers that must add up. Loop thread of the broker; not nested. */
static inline void sl_counters_begin(struct sl_counters *counters)
{
    uint64_t change = atomic_load_explicit(&counters->writable->change, memory_order_relaxed);

    SL_ASSERT(change % 2 == 0);
    /* Ordered before the numbers by their own release stores. */
    atomic_store_explicit(&counters->writable->change, change + 1, memory_order_relaxed);
}

static inline void sl_counters_end(struct sl_counters *counters)
{
    uint64_t change = atomic_load_explicit(&counters->writable->change, memory_order_relaxed);

    SL_ASSERT(change % 2 == 1);
    /* Release pairs with the first load in sl_counters_read. */
    atomic_store_explicit(&counters->writable->change, change + 1, memory_order_release);
}

#endif
