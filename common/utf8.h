#ifndef SL_COMMON_UTF8_H
#define SL_COMMON_UTF8_H

/*
 * UTF-8 (RFC 3629): for JSON texts and for names on the wire. Pure; never blocks; any process.
 */

#include "common/base.h"

/* Length of the character at `at` (1..4, at most `left`, which is at least 1). Where the bytes are
 * no valid UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing over U+10FFFF) *is_valid is
 * false and the length is that of the broken beginning, as one U+FFFD replaces it. */
size_t sl_utf8_step(const char *at, size_t left, bool *is_valid);

/* Is all of it valid? An empty text is. */
bool sl_utf8_is_valid(struct sl_span text);

#endif
