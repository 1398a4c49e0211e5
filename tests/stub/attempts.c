/*
 * The stub's memory of bodies: see attempts.h.
 *
 * Runs in sluice-stub only, under the desk's lock. Open addressing, grown to twice the size when
 * three quarters full; nothing is ever removed, because a retry may come at any time. It never
 * keeps a body. Out of memory: one line on stderr, status 5. Nothing survives the process.
 */
#include "tests/stub/attempts.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"

#define SIZE_MIN 4096

/* The row of a hash, or the free row where it belongs. */
static size_t find_row(const struct sl_stub_attempts *attempts, uint64_t hash)
{
    size_t mask = attempts->size - 1;
    size_t row = (size_t)(hash ^ hash >> 32) & mask;

    while (attempts->hashes[row] != 0 && attempts->hashes[row] != hash) {
        row = (row + 1) & mask;
    }
    return row;
}

static void grow(struct sl_stub_attempts *attempts)
{
    struct sl_stub_attempts bigger = {.size = SL_MAX(attempts->size * 2, (size_t)SIZE_MIN)};

    bigger.hashes = calloc(bigger.size, sizeof(*bigger.hashes));
    bigger.counts = calloc(bigger.size, sizeof(*bigger.counts));
    if (bigger.hashes == NULL || bigger.counts == NULL) {
        fprintf(stderr, "sluice-stub: out of memory for %zu bodies\n", bigger.size);
        exit(sl_err_exit_status(SL_ERR_INTERNAL));
    }
    for (size_t i = 0; i < attempts->size; i++) {
        if (attempts->hashes[i] != 0) {
            size_t row = find_row(&bigger, attempts->hashes[i]);
            bigger.hashes[row] = attempts->hashes[i];
            bigger.counts[row] = attempts->counts[i];
        }
    }
    bigger.used = attempts->used;
    sl_stub_attempts_fini(attempts);
    *attempts = bigger;
}

uint32_t sl_stub_attempts_count(struct sl_stub_attempts *attempts, uint64_t body_hash)
{
    uint64_t hash = body_hash != 0 ? body_hash : 1;

    if (attempts->used >= attempts->size / 4 * 3) {
        grow(attempts);
    }
    size_t row = find_row(attempts, hash);
    attempts->used += attempts->hashes[row] == 0;
    attempts->hashes[row] = hash;
    return attempts->counts[row]++;
}

void sl_stub_attempts_fini(struct sl_stub_attempts *attempts)
{
    free(attempts->hashes);
    free(attempts->counts);
    memset(attempts, 0, sizeof(*attempts));
}
