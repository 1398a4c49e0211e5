#ifndef SL_COMMON_HASH_H
#define SL_COMMON_HASH_H

/*
 * One fast 64-bit hash for hash tables and for checksums of records on disk: it finds damage and
 * is no defence against an adversary (full keys are compared wherever a match matters).
 * Pure; any process, any thread.
 */

#include "common/base.h"

/* Hash of `len` bytes, continued from `seed` (0 to start; chain to hash several pieces). Stored on
 * disk: the algorithm is part of the store's format. */
uint64_t sl_hash64(const void *bytes, size_t len, uint64_t seed);

/* Mixes one word: for tables keyed by a number. */
static inline uint64_t sl_hash_word(uint64_t word)
{
    word ^= word >> 32;
    word *= UINT64_C(0xd6e8feb86659fd93);
    word ^= word >> 32;
    word *= UINT64_C(0xd6e8feb86659fd93);
    return word ^ word >> 32;
}

#endif
