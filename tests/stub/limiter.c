/*
 * The stub's rate limits: see limiter.h.
 *
 * Runs in sluice-stub only, under the desk's lock. The clock comes as an argument. A call that asks
 * for more tokens than a minute has is let through when the bucket is full and leaves it in debt,
 * so that it does not wait for ever. It never forgets a key: tests use few. No errors; nothing
 * survives the process.
 */
#include "tests/stub/limiter.h"

#define NS_PER_MINUTE 60e9
#define KEY_NONE_HASH 1 /* stands for the hash 0, which marks a free row */

void sl_stub_limiter_init(struct sl_stub_limiter *limiter, double rpm, double tpm)
{
    memset(limiter, 0, sizeof(*limiter));
    limiter->rpm = rpm;
    limiter->tpm = tpm;
}

static size_t find_key(struct sl_stub_limiter *limiter, uint64_t hash, int64_t now_ns)
{
    size_t idx = hash % SL_STUB_KEYS_MAX;

    hash = hash != 0 ? hash : KEY_NONE_HASH;
    for (size_t i = 0; i < SL_STUB_KEYS_MAX; i++, idx = (idx + 1) % SL_STUB_KEYS_MAX) {
        if (limiter->keys[idx].hash == hash) {
            return idx;
        }
        if (limiter->keys[idx].hash == 0) {
            break;
        }
    }
    if (limiter->keys[idx].hash != 0) {
        idx = SL_STUB_KEYS_MAX; /* the shared row */
    }
    if (limiter->keys[idx].hash == 0) {
        limiter->keys[idx].hash = hash;
        limiter->keys[idx].calls = (struct sl_stub_bucket){limiter->rpm, now_ns};
        limiter->keys[idx].tokens = (struct sl_stub_bucket){limiter->tpm, now_ns};
    }
    return idx;
}

static void refill(struct sl_stub_bucket *bucket, double limit, int64_t now_ns)
{
    double gained = (double)(now_ns - bucket->filled_ns) * limit / NS_PER_MINUTE;

    bucket->level = SL_MIN(limit, bucket->level + gained);
    bucket->filled_ns = now_ns;
}

/* Nanoseconds until `amount` fits. */
static int64_t wait_ns(const struct sl_stub_bucket *bucket, double limit, double amount)
{
    double needed = SL_MIN(amount, limit);

    if (limit <= 0 || bucket->level >= needed) {
        return 0;
    }
    return (int64_t)((needed - bucket->level) * NS_PER_MINUTE / limit) + 1;
}

static struct sl_stub_quota quota_of(const struct sl_stub_bucket *bucket, double limit)
{
    if (limit <= 0) {
        return (struct sl_stub_quota){0};
    }
    return (struct sl_stub_quota){
        .limit = (uint64_t)limit,
        .remaining = bucket->level > 0 ? (uint64_t)bucket->level : 0,
        .reset_ns = (int64_t)((limit - bucket->level) * NS_PER_MINUTE / limit),
    };
}

void sl_stub_limiter_take(struct sl_stub_limiter *limiter, uint64_t key_hash, uint64_t tokens,
                          int64_t now_ns, struct sl_stub_verdict *out)
{
    memset(out, 0, sizeof(*out));
    out->is_allowed = true;
    if (limiter->rpm <= 0 && limiter->tpm <= 0) {
        return;
    }
    size_t idx = find_key(limiter, key_hash, now_ns);
    struct sl_stub_bucket *calls = &limiter->keys[idx].calls;
    struct sl_stub_bucket *token_bucket = &limiter->keys[idx].tokens;
    refill(calls, limiter->rpm, now_ns);
    refill(token_bucket, limiter->tpm, now_ns);
    int64_t calls_wait_ns = wait_ns(calls, limiter->rpm, 1);
    int64_t tokens_wait_ns = wait_ns(token_bucket, limiter->tpm, (double)tokens);
    out->retry_after_ns = SL_MAX(calls_wait_ns, tokens_wait_ns);
    out->is_allowed = out->retry_after_ns == 0;
    if (out->is_allowed) {
        calls->level -= 1;
        token_bucket->level -= (double)tokens;
    }
    out->calls = quota_of(calls, limiter->rpm);
    out->tokens = quota_of(token_bucket, limiter->tpm);
}
