#ifndef SL_TOOLS_IDSET_H
#define SL_TOOLS_IDSET_H

/*
 * Which ids this run has seen, in bounded memory: 8 bytes per id in a table of 16 MiB that takes
 * the first 1,572,864 ids; later ones are not remembered (the broker still finds them, see
 * tools/submit.c). An answer "seen" is wrong for about one full table in 10^7: the caller looks the
 * id up in the file where it can. Tools only; never blocks.
 */

#include "common/base.h"

struct sl_idset {
    uint64_t *slots;
    uint64_t seed; /* random: no file can be built to collide */
    size_t count;
};

/* False: out of memory. The pages are touched only as ids come. */
MUST_CHECK bool sl_idset_init(struct sl_idset *set);
void sl_idset_fini(struct sl_idset *set);

/* Adds the id; true when it was there. False as well when the table is full. */
bool sl_idset_add(struct sl_idset *set, struct sl_span id);
bool sl_idset_is_full(const struct sl_idset *set);

#endif
