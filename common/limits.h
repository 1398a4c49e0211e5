#ifndef SL_COMMON_LIMITS_H
#define SL_COMMON_LIMITS_H

/*
 * Every compile-time cap, with its unit and its reason. Reaching one is a counted, documented
 * answer to the caller, never an abort. What an operator may change is a configuration key instead.
 */

#include <stddef.h>

#define SL_KIB ((size_t)1024)
#define SL_MIB ((size_t)1024 * 1024)

/* ---- tasks, as accepted -------------------------------------------------------------------- */
#define SL_BODY_BYTES_MAX (64 * SL_MIB)     /* a request body: documents with embedded images */
#define SL_RESPONSE_BYTES_MAX (64 * SL_MIB) /* an answer, after decompression */
#define SL_ID_BYTES_MAX 256   /* custom_id: with its job it must fit an LMDB key (511) */
#define SL_NAME_BYTES_MAX 128 /* job, model, stage, service_id, provider in a task */
#define SL_TASK_NAME_BYTES 24 /* "task_" + 16 hexadecimal digits + NUL, rounded up */
#define SL_PRIORITY_MAX 9     /* contract: 0..9, higher first */
#define SL_PRIORITY_DEFAULT 5
#define SL_ATTEMPTS_MAX 100             /* max_attempts of a task: more is a loop, not a retry */
#define SL_TASK_TIMEOUT_MS_MAX 86400000 /* timeout_ms of a task: one day */
#define SL_WORKER_DEATHS_MAX 3          /* a task in flight at this many worker deaths is poison */
#define SL_REQUEST_ID_BYTES_MAX 128
#define SL_MESSAGE_BYTES_MAX 512 /* an error message kept with a result */

/* ---- frames on the Unix socket ------------------------------------------------------------- */
#define SL_FRAME_HEADER_BYTES 8
#define SL_FRAME_BYTES_MAX (SL_BODY_BYTES_MAX + SL_MIB) /* one task of the largest size */
#define SL_FRAME_BYTES_COMMON                                                                      \
    (256 * SL_KIB)                 /* what a client packs small tasks into; buffers start here */
#define SL_FRAME_TASKS_MAX 1024    /* tasks in one submit frame: bounds a commit */
#define SL_FRAME_DEPTH_MAX 8       /* msgpack nesting: our deepest message is 5 */
#define SL_FRAME_OBJECTS_MAX 32768 /* msgpack objects: 1024 tasks x 16 fields, doubled */
#define SL_FRAMES_UNACKED_MAX 16   /* submit frames a client may have unanswered */

/* ---- broker -------------------------------------------------------------------------------- */
#define SL_CLIENTS_MAX 1024 /* connections; one descriptor and one small buffer each */
#define SL_INTAKE_BYTES_MAX (160 * SL_MIB) /* all frame buffers together: two of the largest */
#define SL_SUPPLIES_MAX 4096 /* provider x model x tenant with work not yet finished */
/* Per provider, leased ahead of a free place: hides the commit before a call. */
#define SL_ARMED_MAX 2048
#define SL_ARMED_BYTES_MAX (8 * SL_MIB) /* their request bytes in broker memory */
#define SL_COMMIT_OPS_MAX 4096          /* operations in one group commit */
#define SL_DELETE_SLICE 1000            /* records deleted in one commit (purge) */
#define SL_CONCURRENCY_MAX 65536

/* ---- store ---------------------------------------------------------------------------------- */
#define SL_VALUE_BYTES_MAX 4080 /* one LMDB overflow page; longer bodies go in chunks of this */
#define SL_MAP_BYTES ((size_t)1 << 40) /* address space only; disk is what is used */

/* ---- lanes ---------------------------------------------------------------------------------- */
#define SL_LANES_MAX 64                   /* workers on one broker */
#define SL_RING_SLOTS 4096                /* items that may wait in one direction of a lane */
#define SL_SLOT_BYTES 128                 /* one item; two cache lines */
#define SL_LANE_ARENA_BYTES (4 * SL_MIB)  /* request or response bytes waiting in one direction */
#define SL_LANE_PAYLOAD_BYTES_MAX SL_MIB  /* more goes by its own memfd over the socket */
#define SL_LARGE_BYTES_MAX (256 * SL_MIB) /* all such memfds of the broker together */
#define SL_LAST_WORDS_BYTES 256

/* ---- worker --------------------------------------------------------------------------------- */
#define SL_RESPONSE_HEADER_BYTES_MAX (64 * SL_KIB) /* all response headers of one answer */
#define SL_PROVIDERS_MAX 32
#define SL_PROVIDER_MODELS_MAX 64
#define SL_URL_BYTES_MAX 512
#define SL_PATH_BYTES_MAX 512
#define SL_KEY_BYTES_MAX 4096 /* an API key; some are long signed tokens */

_Static_assert(SL_LANE_PAYLOAD_BYTES_MAX * 4 <= SL_LANE_ARENA_BYTES, "an item must fit an arena");
_Static_assert((SL_RING_SLOTS & (SL_RING_SLOTS - 1)) == 0, "ring size is a power of two");

#endif
