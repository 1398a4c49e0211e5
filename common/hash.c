/*
 * The 64-bit hash: bytes in steps of 32, each in four lanes that do not wait for one another, the
 * rest in steps of 8; each word is mixed by a 64 x 64 -> 128 bit multiplication whose halves are
 * folded together. The length goes into the last step, so zero bytes at the end count.
 *
 * Pure: no state, no allocation. Part of the store's format (record checksums).
 */
#include "common/hash.h"

#define LANES 4
#define STRIPE_BYTES (LANES * sizeof(uint64_t))
#define MULTIPLIER UINT64_C(0x9e3779b97f4a7c15) /* 2^64 / golden ratio */
#define INCREMENT UINT64_C(0xbf58476d1ce4e5b9)

static inline uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t load(const char *at, size_t len)
{
    uint64_t word = 0;

    memcpy(&word, at, len);
    return word;
}

/* Whole stripes; the lanes differ in their seeds, so that swapped words change the result. */
static uint64_t hash_stripes(const char *at, size_t stripes, uint64_t hash)
{
    uint64_t lane[LANES];

    for (size_t i = 0; i < LANES; i++) {
        lane[i] = hash + i * INCREMENT;
    }
    for (size_t stripe = 0; stripe < stripes; stripe++, at += STRIPE_BYTES) {
        for (size_t i = 0; i < LANES; i++) {
            lane[i] = mix(lane[i] ^ load(at + i * 8, 8), MULTIPLIER);
        }
    }
    for (size_t i = 0; i < LANES; i++) {
        hash = mix(hash ^ lane[i], MULTIPLIER);
    }
    return hash;
}

uint64_t sl_hash64(const void *bytes, size_t len, uint64_t seed)
{
    const char *at = bytes;
    size_t left = len % STRIPE_BYTES;
    uint64_t hash = seed ^ INCREMENT;

    if (len >= STRIPE_BYTES) {
        hash = hash_stripes(at, len / STRIPE_BYTES, hash);
        at += len - left;
    }
    for (; left >= 8; at += 8, left -= 8) {
        hash = mix(hash ^ load(at, 8), MULTIPLIER);
    }
    if (left > 0) {
        hash = mix(hash ^ load(at, left), MULTIPLIER);
    }
    return mix(hash ^ (uint64_t)len, INCREMENT);
}
