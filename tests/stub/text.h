#ifndef SL_TESTS_STUB_TEXT_H
#define SL_TESTS_STUB_TEXT_H

/*
 * A growing buffer for requests and answers, and the appenders the stub writes its HTTP and JSON
 * with. Room is kept from use to use, so that a busy connection allocates nothing.
 *
 * Stub only; one thread at a time per text; never blocks. Out of memory ends the program (status
 * 5): a provider stub that limps would spoil the test it serves.
 */

#include "common/base.h"

struct sl_stub_text {
    char *buf; /* owned; NULL while empty */
    size_t len;
    size_t size_bytes;
};

/* Makes room for `extra` more bytes behind len. */
void sl_stub_text_reserve(struct sl_stub_text *text, size_t extra);
/* Empties it; gives memory back when it holds more than `keep_bytes`. */
void sl_stub_text_clear(struct sl_stub_text *text, size_t keep_bytes);
void sl_stub_text_fini(struct sl_stub_text *text);

void sl_stub_put(struct sl_stub_text *text, struct sl_span bytes);
void sl_stub_put_str(struct sl_stub_text *text, const char *str);
void sl_stub_put_fill(struct sl_stub_text *text, char fill, size_t count);
void sl_stub_put_uint(struct sl_stub_text *text, uint64_t value);
/* 16 lower-case hexadecimal digits. */
void sl_stub_put_hex(struct sl_stub_text *text, uint64_t value);
/* The inside of a JSON string: quotes and backslashes escaped, other than printable ASCII as '?'.
 */
void sl_stub_put_quoted(struct sl_stub_text *text, struct sl_span value);
/* "12ms", "3.5s", "6m0s", "1h2m3s": a Go duration, rounded up to a millisecond. */
void sl_stub_put_duration(struct sl_stub_text *text, int64_t duration_ns);

/* FNV-1a, 64 bits: simple enough for a test in any language to do it again. */
uint64_t sl_stub_fnv(struct sl_span bytes);

#endif
