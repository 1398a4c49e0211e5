/*
 * The 64-bit hash: eight bytes a step, each mixed by a 64 x 64 -> 128 bit multiplication whose
 * halves are folded together; the length goes into the last step, so zero bytes at the end count.
 *
 * Pure: no state, no allocation. Part of the store's format (record checksums).
 */
#include "common/hash.h"

#define MULTIPLIER UINT64_C(0x9e3779b97f4a7c15) /* 2^64 / golden ratio */
#define INCREMENT UINT64_C(0xbf58476d1ce4e5b9)

static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t load(const char *at, size_t len)
{
    uint64_t word = 0;

    memcpy(&word, at, len);
    return word;
}

uint64_t sl_hash64(const void *bytes, size_t len, uint64_t seed)
{
    const char *at = bytes;
    size_t left = len;
    uint64_t hash = seed ^ INCREMENT;

    while (left >= 8) {
        hash = mix(hash ^ load(at, 8), MULTIPLIER);
        at += 8;
        left -= 8;
    }
    if (left > 0) {
        hash = mix(hash ^ load(at, left), MULTIPLIER);
    }
    return mix(hash ^ (uint64_t)len, INCREMENT);
}
