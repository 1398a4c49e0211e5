#ifndef SL_BROKER_STORE_SCHEMA_H
#define SL_BROKER_STORE_SCHEMA_H

/*
 * What stands on disk: one LMDB environment, the databases below, keys in big-endian so that the
 * order of the bytes is the order of the numbers, values as the fixed little-endian structs below
 * followed by their strings.
 *
 *   meta     "counters"                    -> counters, format, numbers to give out next
 *            "purge" | job                 -> nothing          a purge under way
 *            "worker" | pid                -> worker_rec       it had a lane, its end was not seen
 *   names    uid | job name                -> job number
 *   jobs     job                           -> job_rec, name
 *   ids      job | custom_id               -> index in job
 *   tasks    task                          -> task_rec, custom_id, stage, service_id, body if it
 * fits blobs    task | kind | chunk           -> bytes of a longer body, then their hash ready
 * supply | 9-priority | task    -> ready_rec        READY, in the order they will be called delayed
 * due ms (wall) | task          -> nothing          DELAYED, by when they are due waits    task ->
 * wait_rec         DELAYED, by task leases   lease                         -> lease_rec[] calls
 * that may be running results  task                          -> result_rec, strings, body if it
 * fits     terminal states done     job | number                  -> task index       order of
 * completion within a job supplies supply                        -> supply_rec, provider, model
 *
 * A task that has not ended is in exactly one of ready, waits (with delayed) or a lease; a task
 * that has ended is in results and done and in none of those. A lease's entry counts only if its
 * task is in none of the others: an entry is not rewritten when its call ends, the whole record
 * goes when its last call has ended. A higher lease number is a later lease.
 *
 * To change a record: append a new version of its struct, raise the version it is written with,
 * keep reading the old one. To change a key or a meaning: raise SL_STORE_FORMAT and write the
 * upgrade in broker/store.c. A store of a higher format is refused.
 */

#include "common/base.h"
#include "common/limits.h"

#define SL_STORE_FORMAT 1
#define SL_RECORD_VERSION 1

#define SL_KEY_BYTES_STORE_MAX 300 /* job | custom_id is the longest: 4 + 256 */

enum sl_blob_kind { SL_BLOB_REQUEST = 1, SL_BLOB_RESPONSE = 2 };

/* A chunk of a long body: this many bytes and an 8-byte hash, together one LMDB page. */
#define SL_CHUNK_BYTES (SL_VALUE_BYTES_MAX - 8)

struct sl_counters_rec {
    uint32_t version;
    uint32_t format;
    uint64_t generation; /* broker starts on this store */
    uint64_t next_job;
    uint64_t next_lease;
    uint64_t submitted;
    uint64_t completed;
    uint64_t failed;
    uint64_t cancelled;
    uint64_t expired;
    uint64_t retries;
    uint64_t provider_calls;
    uint64_t stale_results;
    uint64_t input_tokens;
    uint64_t output_tokens;
    uint64_t reserved[8];
    uint64_t hash; /* of everything before it */
};

struct sl_job_rec {
    uint32_t version;
    uint32_t uid;
    uint32_t next_idx; /* tasks ever accepted */
    uint32_t flags;    /* SL_JOB_FLAG_* */
    uint64_t done_count;
    uint64_t completed;
    uint64_t failed;
    uint64_t cancelled;
    uint64_t expired;
    int64_t created_ms;
    uint64_t reserved[2];
};

#define SL_JOB_FLAG_PURGING UINT32_C(1)

struct sl_task_rec {
    uint8_t version;
    uint8_t endpoint;
    uint8_t priority;
    uint8_t flags;
    uint32_t supply;
    uint32_t timeout_ms;
    uint32_t body_bytes;
    uint16_t max_attempts;
    uint16_t custom_id_bytes;
    uint16_t stage_bytes;
    uint16_t service_id_bytes;
    int64_t accepted_ms; /* wall */
    int64_t deadline_ms; /* wall, 0: none */
    uint64_t hash;       /* of the record with hash 0, its strings and its inline body */
};

struct sl_ready_rec {
    uint16_t attempts; /* calls already made, or that may have been made */
    uint16_t deaths;   /* of those, ended by a worker's death */
};

struct sl_wait_rec {
    int64_t due_ms;
    uint32_t supply;
    uint16_t attempts;
    uint16_t deaths;
    uint16_t err; /* why it waits */
    uint8_t priority;
    uint8_t reserved;
    uint32_t reserved_tail;
};

struct sl_lease_rec {
    uint64_t task;
    uint32_t supply;
    uint16_t attempt; /* of the call it covers, from 1 */
    uint16_t deaths;
    uint8_t priority;
    uint8_t flags; /* of the task */
    uint16_t max_attempts;
    uint32_t reserved;
};

#define SL_LEASE_ENTRIES_MAX (SL_VALUE_BYTES_MAX / sizeof(struct sl_lease_rec))

struct sl_result_rec {
    uint8_t version;
    uint8_t state;
    uint16_t err;
    uint16_t http_status;
    uint16_t attempts;
    uint32_t queued_us;
    uint32_t call_us;
    uint64_t input_tokens;
    uint64_t output_tokens;
    uint64_t done_no;
    int64_t ended_ms;
    uint16_t request_id_bytes;
    uint16_t message_bytes;
    uint32_t body_bytes;
    uint32_t flags; /* SL_RESULT_BODY_IS_JSON */
    uint32_t reserved;
    uint64_t hash;
};

struct sl_supply_rec {
    uint32_t version;
    uint32_t uid;
    uint16_t provider_bytes;
    uint16_t model_bytes;
    uint32_t reserved;
};

/* Enough to tell after a restart whether that worker lives on and may still be calling. */
struct sl_worker_rec {
    uint32_t version;
    uint32_t pid;
    uint64_t start_time; /* ticks since boot */
    char boot_id[40];
};

_Static_assert(sizeof(struct sl_worker_rec) == 56, "on disk");
_Static_assert(sizeof(struct sl_counters_rec) == 184, "on disk");
_Static_assert(sizeof(struct sl_job_rec) == 80, "on disk");
_Static_assert(sizeof(struct sl_task_rec) == 48, "on disk");
_Static_assert(sizeof(struct sl_ready_rec) == 4, "on disk");
_Static_assert(sizeof(struct sl_wait_rec) == 24, "on disk");
_Static_assert(sizeof(struct sl_lease_rec) == 24, "on disk");
_Static_assert(sizeof(struct sl_result_rec) == 72, "on disk");
_Static_assert(sizeof(struct sl_supply_rec) == 16, "on disk");
_Static_assert(4 + SL_ID_BYTES_MAX <= SL_KEY_BYTES_STORE_MAX, "job | custom_id fits");
_Static_assert(4 + SL_NAME_BYTES_MAX <= SL_KEY_BYTES_STORE_MAX, "uid | job name fits");
_Static_assert(SL_KEY_BYTES_STORE_MAX <= 511, "LMDB's longest key");
_Static_assert(sizeof(struct sl_task_rec) + SL_ID_BYTES_MAX + 2 * SL_NAME_BYTES_MAX <=
                   SL_VALUE_BYTES_MAX,
               "a task without its body fits one value");
_Static_assert(sizeof(struct sl_result_rec) + SL_REQUEST_ID_BYTES_MAX + SL_MESSAGE_BYTES_MAX <=
                   SL_VALUE_BYTES_MAX,
               "a result without its body fits one value");

#endif
