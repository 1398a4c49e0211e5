#ifndef SL_WORKER_CALL_H
#define SL_WORKER_CALL_H

/*
 * One call a worker holds, from the work item to the moment the broker has released its result, and
 * the table of all of them. Private memory of one worker; never shared, never blocks.
 */

#include <sys/queue.h>

#include "common/err.h"
#include "common/lane.h"
#include "common/limits.h"
#include "common/task.h"

struct sl_provider;
struct sl_transfer;

enum sl_call_state {
    SL_CALL_BLANK,    /* just taken from the pool */
    SL_CALL_WAITING,  /* the provider's name is being resolved by another call */
    SL_CALL_READY,    /* the name is known: about to be started */
    SL_CALL_RUNNING,  /* a transfer carries it */
    SL_CALL_FINISHED, /* its result waits to be published, or to be released by the broker */
};

/* What came back over HTTP, before anybody judged it. Filled in by worker/transfer. */
struct sl_answer {
    enum sl_err transport; /* SL_OK: status line, headers and body came whole */
    uint32_t http_status;  /* 0: no status line */
    bool is_sent;          /* bytes of the request may have reached the provider */
    int64_t call_ns;
    int64_t first_byte_ns;
    char *body; /* owned by the call */
    size_t body_bytes;
    size_t body_size; /* allocated */
    char request_id[SL_REQUEST_ID_BYTES_MAX + 1];
    char retry_after[64];    /* header values, cut; empty: not there */
    char retry_after_ms[32]; /* OpenAI's own spelling */
    char should_retry[8];    /* x-should-retry */
    char message[SL_MESSAGE_BYTES_MAX + 1];
};

struct sl_call {
    TAILQ_ENTRY(sl_call) link; /* of the one list its state names */
    struct sl_call *hash_next;
    enum sl_call_state state;

    uint64_t task;
    uint64_t generation; /* of the lane that handed it out; reported back unchanged */
    uint32_t attempt;
    uint32_t timeout_ms;
    enum sl_endpoint endpoint;
    struct sl_provider *provider; /* counted; NULL once it has finished */
    struct sl_transfer *transfer; /* while it runs */
    int64_t started_ns;           /* monotonic; when the transfer was started */
    bool is_unanswered;           /* it is on its provider's list of that name */

    char *request; /* private copy of the body */
    size_t request_bytes;
    size_t request_size; /* allocated */

    struct sl_answer answer;
    struct sl_result_msg_shm result; /* complete once it has finished */
};

TAILQ_HEAD(sl_call_list, sl_call);

struct sl_calls; /* pool and table */

/* NULL: out of memory. */
struct sl_calls *sl_calls_open(void);
void sl_calls_close(struct sl_calls **calls);

/* A blank call with room for the request, entered in the table; its lists are the caller's
 * business. SL_ERR_NO_MEMORY; SL_ERR_PROTOCOL when this (task, attempt) is already there. */
MUST_CHECK enum sl_err sl_calls_add(struct sl_calls *calls, const struct sl_work_msg *work,
                                    struct sl_call **out);
/* NULL: not held. */
struct sl_call *sl_calls_find(const struct sl_calls *calls, uint64_t task, uint32_t attempt);
/* Back to the pool; the call must be on no list and hold no transfer or provider. */
void sl_calls_remove(struct sl_calls *calls, struct sl_call *call);
/* The request is no longer needed: gives back what is too large to keep. */
void sl_call_drop_request(struct sl_call *call);

size_t sl_calls_count(const struct sl_calls *calls);
/* Bytes of answers held by calls; for the bound on what waits for a broker. */
size_t sl_calls_answer_bytes(const struct sl_calls *calls);
/* To be told when a call's answer is complete: keeps the sum above. */
void sl_calls_note_answer(struct sl_calls *calls, const struct sl_call *call);

/* Fills `held` with every call in the table (sl_calls_count entries). */
struct sl_held_call;
void sl_calls_list_held(const struct sl_calls *calls, struct sl_held_call *held);

#endif
