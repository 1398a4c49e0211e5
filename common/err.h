#ifndef SL_COMMON_ERR_H
#define SL_COMMON_ERR_H

/*
 * Errors as values. The table is common/tbl/errors.def; nothing else lists them.
 * Pure; any process, any thread; never blocks.
 */

#include "common/base.h"

enum sl_err {
#define X(name, number, code, class, exit_status, meaning, advice) SL_ERR_##name = (number),
#include "common/tbl/errors.def"
#undef X
};

#define SL_OK SL_ERR_OK

/* What a failed call means for the task; see the head of errors.def. */
enum sl_err_class {
    SL_CLASS_NONE,
    SL_CLASS_RETRY,
    SL_CLASS_UNKNOWN,
    SL_CLASS_FATAL,
    SL_CLASS_KEY,
};

/* The stable code, e.g. "rate_limited"; "internal" for a number that is not in the table. */
const char *sl_err_code(enum sl_err err);

/* One sentence for a person. */
const char *sl_err_meaning(enum sl_err err);

/* How to mend it; may be empty. */
const char *sl_err_advice(enum sl_err err);

/* Exit status of a program that ends for this reason (contract: 0..5, 130). */
int sl_err_exit_status(enum sl_err err);

enum sl_err_class sl_err_class(enum sl_err err);

/* Is `number`, read from a disk or a peer, a row of the table? */
bool sl_err_is_known(uint32_t number);

/* Iterates the table in its order: the idx-th error, SL_ERR_OK with *found = false past the end. */
enum sl_err sl_err_at(size_t idx, bool *found);

#endif
