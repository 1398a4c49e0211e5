#ifndef SL_COMMON_LANE_H
#define SL_COMMON_LANE_H

/*
 * One lane: the shared memory between the broker and one worker. Each lane is a memfd of its own,
 * made by the broker, fully allocated, sealed against resizing, and passed to exactly one worker: a
 * worker sees no other worker's prompts and can damage no lane but its own. A worker's death ends
 * the lane; the next worker gets a fresh one under a higher generation, so nothing is ever
 * re-initialised.
 *
 * Layout: common/shm_layout.h. Down carries work (broker to worker), up carries results.
 */

#include "common/bell.h"
#include "common/err.h"
#include "common/ring.h"

/* ---- what travels ---------------------------------------------------------------------------- */

enum sl_work_kind {
    SL_WORK_CALL = 1,   /* make the call */
    SL_WORK_CANCEL = 2, /* abort the call of (task, attempt) if it still runs; always answered by
                           its result: SL_ERR_CANCELLED, or the answer that was faster */
};

/* Down. Payload: provider name (provider_bytes), then the request body. */
struct sl_work_msg {
    uint64_t task;
    uint32_t attempt; /* from 1 */
    uint16_t kind;    /* enum sl_work_kind */
    uint16_t endpoint;
    uint32_t timeout_ms; /* 0: the provider's */
    uint32_t provider_bytes;
    uint32_t body_bytes;
    uint32_t reserved;
};

#define SL_RESULT_BODY_IS_JSON UINT32_C(0x1) /* the worker parsed the body to its end */
#define SL_RESULT_NOT_STARTED UINT32_C(0x2)  /* handed back: no byte was sent */

/* Up. Payload: request id, message, body, in this order. */
struct sl_result_msg_shm {
    uint64_t task;
    uint64_t generation; /* of the lane under which the call was handed out */
    uint32_t attempt;
    uint16_t err; /* enum sl_err, SL_OK: a whole 2xx answer */
    uint16_t http_status;
    uint32_t flags;
    uint32_t retry_after_ms; /* what the provider asked for, 0: nothing */
    int64_t call_ns;         /* from start to end of the transfer */
    int64_t first_byte_ns;
    uint64_t input_tokens;
    uint64_t output_tokens;
    uint32_t request_id_bytes;
    uint32_t message_bytes;
    uint64_t body_bytes;
};

_Static_assert(sizeof(struct sl_work_msg) <= SL_SLOT_MSG_BYTES, "a work message fits a slot");
_Static_assert(sizeof(struct sl_result_msg_shm) <= SL_SLOT_MSG_BYTES, "a result fits a slot");

/* ---- the two ends -----------------------------------------------------------------------------
 */

/* Counters a worker keeps for status and metrics; see common/counters.h. */
struct sl_worker_stats {
    uint64_t calls;       /* transfers started */
    uint64_t in_flight;   /* transfers running */
    int64_t heartbeat_ns; /* monotonic, last turn of the worker's loop */
};

struct sl_lane_segment; /* common/shm_layout.h */

/* Process-private handle of one end. */
struct sl_lane {
    struct sl_lane_segment *segment;
    int memfd;
    uint32_t idx;
    uint64_t generation;
    struct sl_ring_producer out; /* broker: work; worker: results */
    struct sl_ring_consumer in;  /* broker: results; worker: work */
    struct sl_bell out_bell;     /* rings the other side: items */
    struct sl_bell in_bell;      /* our own: we arm and disarm it */
    struct sl_bell space_bell;   /* worker waits, broker rings: results were released */
};

/* Broker: makes, allocates and seals the memory, maps it, and starts both rings. `worker_event_fd`
 * and `broker_event_fd` are eventfds (borrowed). SL_ERR_NO_MEMORY | SL_ERR_IO. May block on memory.
 */
MUST_CHECK enum sl_err sl_lane_create(uint32_t idx, uint64_t generation, int worker_event_fd,
                                      int broker_event_fd, struct sl_lane **out);

/* Worker: maps what it was handed and checks seals, magic, version, sizes and checksum of the
 * header. SL_ERR_SHM when it is not a lane of this version. Takes the memfd on success. */
MUST_CHECK enum sl_err sl_lane_attach(int memfd, int worker_event_fd, int broker_event_fd,
                                      struct sl_lane **out);

/* Unmaps and closes the memfd; the eventfds stay the caller's. */
void sl_lane_close(struct sl_lane **lane);

/* Worker's own words in the lane (one writer: the worker). */
void sl_lane_set_stats(struct sl_lane *lane, const struct sl_worker_stats *stats);
void sl_lane_get_stats(const struct sl_lane *lane, struct sl_worker_stats *out);
/* Where sl_check writes the worker's last words; and how the broker reads them (printable, NUL). */
char *sl_lane_last_words_buffer(struct sl_lane *lane);
void sl_lane_last_words(const struct sl_lane *lane, char text[SL_LAST_WORDS_BYTES]);

/* A memfd of exactly these bytes, sealed, for a body or an answer too large for the arena. Returns
 * the descriptor (caller closes), or SL_ERR_NO_MEMORY | SL_ERR_IO. */
MUST_CHECK enum sl_err sl_shm_large_create(const struct sl_span *parts, size_t part_count, int *fd);
/* Maps such a memfd read-only after checking its seals and that it holds exactly `bytes`; unmap
 * with sl_shm_large_unmap. SL_ERR_SHM when it is not what was promised. */
MUST_CHECK enum sl_err sl_shm_large_map(int fd, size_t bytes, struct sl_span *out);
void sl_shm_large_unmap(struct sl_span *mapped);

#endif
