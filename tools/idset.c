/*
 * The ids of one run as 64-bit hashes in an open table with linear probing, never more than three
 * quarters full.
 *
 * Runs in sluice-submit. The table is one zeroed block of fixed size, whose pages come into being
 * as they are touched, so a small file costs little and a huge one no more than 16 MiB. The
 * hash starts from a random seed. Nothing is removed; nothing survives the process.
 *
 * Reports only that memory is out, at init.
 */
#include "tools/idset.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/hash.h"
#include "common/os.h"

#define SLOT_COUNT ((size_t)1 << 21)
#define IDS_MAX (SLOT_COUNT / 4 * 3)

bool sl_idset_init(struct sl_idset *set)
{
    set->slots = calloc(SLOT_COUNT, sizeof(uint64_t));
    set->count = 0;
    if (set->slots == NULL) {
        return false;
    }
    sl_os_random(&set->seed, sizeof(set->seed));
    return true;
}

void sl_idset_fini(struct sl_idset *set)
{
    free(set->slots);
    set->slots = NULL;
}

bool sl_idset_is_full(const struct sl_idset *set)
{
    return set->count >= IDS_MAX;
}

bool sl_idset_add(struct sl_idset *set, struct sl_span id)
{
    uint64_t hash = sl_hash64(id.ptr, id.len, set->seed) | 1; /* 0 is a free slot */
    size_t at = (size_t)(hash >> 32) & (SLOT_COUNT - 1);

    SL_ASSERT(set->slots != NULL);
    while (set->slots[at] != 0) {
        if (set->slots[at] == hash) {
            return true;
        }
        at = (at + 1) & (SLOT_COUNT - 1);
    }
    if (!sl_idset_is_full(set)) {
        set->slots[at] = hash;
        set->count++;
    }
    return false;
}
