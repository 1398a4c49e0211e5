#ifndef SL_TESTS_STUB_LIMITER_H
#define SL_TESTS_STUB_LIMITER_H

/*
 * Calls and tokens a minute for each key: two token buckets, full at first, refilled evenly, as
 * deep as a minute's limit. What does not fit takes nothing and is told when it would.
 *
 * Stub only; pure but for its table, which the caller guards; never blocks; allocates nothing.
 */

#include "common/base.h"

#define SL_STUB_KEYS_MAX 1024 /* different keys; those beyond share one bucket */

struct sl_stub_bucket {
    double level;
    int64_t filled_ns;
};

struct sl_stub_limiter {
    double rpm; /* 0: not limited */
    double tpm;
    struct {
        uint64_t hash; /* 0: free */
        struct sl_stub_bucket calls;
        struct sl_stub_bucket tokens;
    } keys[SL_STUB_KEYS_MAX + 1];
};

/* One limit as the headers tell it; limit 0: not limited. */
struct sl_stub_quota {
    uint64_t limit;
    uint64_t remaining;
    int64_t reset_ns; /* until the bucket is full */
};

struct sl_stub_verdict {
    bool is_allowed;
    int64_t retry_after_ns; /* refused: until it would be allowed */
    struct sl_stub_quota calls;
    struct sl_stub_quota tokens;
};

void sl_stub_limiter_init(struct sl_stub_limiter *limiter, double rpm, double tpm);
/* Takes one call and `tokens` tokens of the key's buckets, or nothing at all. */
void sl_stub_limiter_take(struct sl_stub_limiter *limiter, uint64_t key_hash, uint64_t tokens,
                          int64_t now_ns, struct sl_stub_verdict *out);

#endif
