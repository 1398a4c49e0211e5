#ifndef SL_BROKER_POLICY_RETRY_H
#define SL_BROKER_POLICY_RETRY_H

/*
 * What becomes of a task whose call failed: another attempt after a delay, or the end.
 *
 * Pure: no clock, no allocation, no I/O, never blocks; any thread of the broker and the simulator.
 *
 * Verdict, by the error's class (common/tbl/errors.def) and `attempt`, the number of the attempt
 * that failed, from 1:
 *   RETRY    again while attempt < attempts_max
 *   UNKNOWN  the same; but a task with SL_TASK_FLAG_FAIL_ON_UNKNOWN fails at once when the outcome
 *            is really unknown, see sl_retry_outcome_is_unknown
 *   FATAL, KEY, NONE   fails at once
 *
 * Delay ("full jitter": Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog):
 *   ceiling = min(max_ms, base_ms * 2^(attempt - 1))
 *   delay   = server + U[0, ceiling],   server = min(server_delay_ms, SL_RETRY_SERVER_DELAY_MAX_MS)
 * What the provider asked for is a lower bound, and the jitter stands on top of it: tasks refused
 * together with one Retry-After would otherwise come back together.
 */

#include "common/err.h"

/* A provider that asks for more is not believed: the task looks again after a day. */
#define SL_RETRY_SERVER_DELAY_MAX_MS (INT64_C(24) * 3600 * 1000)
/* Ceiling of base_ms and max_ms here, whatever a configuration says: keeps all sums in range. */
#define SL_RETRY_BACKOFF_MAX_MS (INT64_C(24) * 3600 * 1000)

struct sl_retry_failure {
    enum sl_err err;         /* why the call failed; never SL_OK (asserted) */
    uint32_t attempt;        /* the attempt that failed, from 1 (asserted) */
    uint32_t attempts_max;   /* the task's, or its provider's */
    uint32_t task_flags;     /* SL_TASK_FLAG_* */
    int64_t server_delay_ms; /* what the provider asked for; 0 or less: nothing */
    int64_t base_ms;         /* below 0 counts as 0 */
    int64_t max_ms;          /* below 0 counts as 0 */
    uint64_t random;         /* 64 even random bits, from sl_retry_random */
};

enum sl_retry_decision { SL_RETRY_AGAIN, SL_RETRY_FAIL };

struct sl_retry_verdict {
    enum sl_retry_decision decision;
    int64_t delay_ms; /* 0 when the task fails */
};

struct sl_retry_verdict sl_retry_judge(const struct sl_retry_failure *failure);

/* The largest jitter of this attempt, `ceiling` above, in milliseconds. */
int64_t sl_retry_ceiling_ms(uint32_t attempt, int64_t base_ms, int64_t max_ms);

/* Did the call possibly run with nobody knowing how it ended? True where no whole answer arrived
 * (timeouts, a lost connection, a dead worker or broker); false where the provider's own answer
 * says that it failed (5xx, an error inside a 2xx), and for everything that is not UNKNOWN. */
bool sl_retry_outcome_is_unknown(enum sl_err err);

/* The next of a sequence of 64-bit random numbers (splitmix64, Steele, Lea and Flood 2014). *state
 * is the seed at first, any value, and is advanced. Not for secrets. */
uint64_t sl_retry_random(uint64_t *state);

#endif
