/*
 * The retry policy: a table of classes and one formula; see the header for both.
 *
 * Runs in the broker's loop thread, in sluice-submit's direct mode and in the simulator. Never
 * reads a clock, never draws randomness of its own, never allocates, never logs: the same question
 * has the same answer, so a run can be repeated from its seed. Holds no state, so nothing survives
 * a crash or needs to: the attempt number is on disk with the task.
 *
 * Reports no errors. An error number that is not in the table counts as "internal" (sl_err_class)
 * and fails the task; a caller that asks about SL_OK or attempt 0 is broken and asserted on.
 *
 * Not decided here: poison tasks (SL_WORKER_DEATHS_MAX), deadlines, and whether a provider's key is
 * stopped for everybody. The dispatcher knows those.
 */
#include "broker/policy/retry.h"

#include "common/check.h"
#include "common/task.h"

bool sl_retry_outcome_is_unknown(enum sl_err err)
{
    if (sl_err_class(err) != SL_CLASS_UNKNOWN) {
        return false;
    }
    /* The provider answered, and its answer is a failure: that is an outcome. */
    return err != SL_ERR_PROVIDER_ERROR && err != SL_ERR_ANSWER_ERROR &&
           err != SL_ERR_RESPONSE_INVALID;
}

static bool may_repeat(const struct sl_retry_failure *failure)
{
    bool is_once = (failure->task_flags & SL_TASK_FLAG_FAIL_ON_UNKNOWN) != 0;

    switch (sl_err_class(failure->err)) {
    case SL_CLASS_RETRY:
        return true;
    case SL_CLASS_UNKNOWN:
        return !(is_once && sl_retry_outcome_is_unknown(failure->err));
    case SL_CLASS_NONE:
    case SL_CLASS_FATAL:
    case SL_CLASS_KEY:
        return false;
    }
    SL_UNREACHABLE();
}

static int64_t clamp_ms(int64_t value_ms, int64_t max_ms)
{
    return SL_MIN(SL_MAX(value_ms, 0), max_ms);
}

int64_t sl_retry_ceiling_ms(uint32_t attempt, int64_t base_ms, int64_t max_ms)
{
    int64_t ceiling_ms = clamp_ms(base_ms, SL_RETRY_BACKOFF_MAX_MS);
    int64_t cap_ms = clamp_ms(max_ms, SL_RETRY_BACKOFF_MAX_MS);

    /* Doubling stops at the cap, after at most 28 steps from 1 ms to a day, so it cannot wrap. */
    for (uint32_t i = 1; i < attempt && ceiling_ms > 0 && ceiling_ms < cap_ms; i++) {
        ceiling_ms *= 2;
    }
    return SL_MIN(ceiling_ms, cap_ms);
}

/* Maps 64 random bits to [0, ceiling] by the high half of a product; its unevenness is below
 * ceiling / 2^64. */
static int64_t spread_ms(uint64_t random, int64_t ceiling_ms)
{
    __extension__ unsigned __int128 product = random;

    product *= (uint64_t)ceiling_ms + 1;
    return (int64_t)(product >> 64);
}

struct sl_retry_verdict sl_retry_judge(const struct sl_retry_failure *failure)
{
    SL_ASSERT(failure->err != SL_OK);
    SL_ASSERT(failure->attempt > 0);

    if (failure->attempt >= failure->attempts_max || !may_repeat(failure)) {
        return (struct sl_retry_verdict){.decision = SL_RETRY_FAIL};
    }
    int64_t ceiling_ms = sl_retry_ceiling_ms(failure->attempt, failure->base_ms, failure->max_ms);
    int64_t server_ms = clamp_ms(failure->server_delay_ms, SL_RETRY_SERVER_DELAY_MAX_MS);

    return (struct sl_retry_verdict){
        .decision = SL_RETRY_AGAIN,
        .delay_ms = server_ms + spread_ms(failure->random, ceiling_ms),
    };
}

uint64_t sl_retry_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t mixed = *state;

    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}
