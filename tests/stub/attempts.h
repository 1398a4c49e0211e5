#ifndef SL_TESTS_STUB_ATTEMPTS_H
#define SL_TESTS_STUB_ATTEMPTS_H

/*
 * How often each body was asked: a hash table from FNV-1a-64 to a count. Two bodies of one hash
 * would share a count; the stub lives with that. 12 bytes per body, twice that while it grows.
 *
 * Stub only; guarded by the caller; allocates when it grows.
 */

#include "common/base.h"

struct sl_stub_attempts {
    uint64_t *hashes; /* 0: free */
    uint32_t *counts;
    size_t size; /* a power of two, or 0 */
    size_t used;
};

/* Counts one asking; returns how many there were before. */
uint32_t sl_stub_attempts_count(struct sl_stub_attempts *attempts, uint64_t body_hash);
void sl_stub_attempts_fini(struct sl_stub_attempts *attempts);

#endif
