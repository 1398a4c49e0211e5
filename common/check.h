#ifndef SL_COMMON_CHECK_H
#define SL_COMMON_CHECK_H

/*
 * Assertions that are always compiled in. They guard against our own bugs only: what a client,
 * file, provider or other process can influence is refused with an error instead.
 *
 * A failed assertion writes its last words to stderr and, if the process registered a slot for them
 * in shared memory, there too; then it aborts. The next start recovers from the store.
 */

#include "common/base.h"

#define SL_ASSERT(condition)                                                                       \
    ((condition) ? (void)0 : sl_check_fail(#condition, __FILE__, __LINE__, __func__))

#ifdef SL_DEBUG
#define SL_DEBUG_ASSERT(condition) SL_ASSERT(condition)
#else
#define SL_DEBUG_ASSERT(condition) ((void)0)
#endif

#define SL_UNREACHABLE() sl_check_fail("unreachable", __FILE__, __LINE__, __func__)

NO_RETURN void sl_check_fail(const char *condition, const char *file, int line, const char *func);

/* Registers `size` bytes that get a copy of the last words (NUL-terminated, cut to fit). The memory
 * must stay mapped for the life of the process; NULL unregisters. Call once, from the main thread.
 */
void sl_check_set_last_words(char *buffer, size_t size);

#endif
