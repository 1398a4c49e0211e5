/*
 * The stub's buffers and appenders: see text.h.
 *
 * Runs in sluice-stub only. Keeps no state of its own, writes nothing outside the given buffers,
 * and never formats with the C library on the way of a request: fifty thousand answers a second are
 * made of these few copies. Nothing survives the process. Out of memory: one line on stderr,
 * status 5.
 */
#include "tests/stub/text.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"

#define TEXT_BYTES_MIN 1024
#define FNV_OFFSET UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

static NO_RETURN void text_fail(size_t size)
{
    fprintf(stderr, "sluice-stub: out of memory for %zu bytes\n", size);
    exit(sl_err_exit_status(SL_ERR_INTERNAL));
}

void sl_stub_text_reserve(struct sl_stub_text *text, size_t extra)
{
    size_t needed;

    if (!sl_add_size(text->len, extra, &needed)) {
        text_fail(extra);
    }
    if (needed <= text->size_bytes) {
        return;
    }
    size_t size = SL_MAX(needed, SL_MAX(text->size_bytes * 2, (size_t)TEXT_BYTES_MIN));
    char *buf = realloc(text->buf, size);
    if (buf == NULL) {
        text_fail(size);
    }
    text->buf = buf;
    text->size_bytes = size;
}

void sl_stub_text_clear(struct sl_stub_text *text, size_t keep_bytes)
{
    text->len = 0;
    if (text->size_bytes > keep_bytes) {
        sl_stub_text_fini(text);
    }
}

void sl_stub_text_fini(struct sl_stub_text *text)
{
    free(text->buf);
    memset(text, 0, sizeof(*text));
}

void sl_stub_put(struct sl_stub_text *text, struct sl_span bytes)
{
    sl_stub_text_reserve(text, bytes.len);
    if (bytes.len > 0) {
        memcpy(text->buf + text->len, bytes.ptr, bytes.len);
    }
    text->len += bytes.len;
}

void sl_stub_put_str(struct sl_stub_text *text, const char *str)
{
    sl_stub_put(text, sl_span_str(str));
}

void sl_stub_put_fill(struct sl_stub_text *text, char fill, size_t count)
{
    sl_stub_text_reserve(text, count);
    if (count > 0) {
        memset(text->buf + text->len, fill, count);
    }
    text->len += count;
}

void sl_stub_put_uint(struct sl_stub_text *text, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    sl_stub_put(text, sl_span_of(digits + at, sizeof(digits) - at));
}

void sl_stub_put_hex(struct sl_stub_text *text, uint64_t value)
{
    char digits[16];

    for (size_t i = sizeof(digits); i > 0; i--, value >>= 4) {
        digits[i - 1] = "0123456789abcdef"[value & 15];
    }
    sl_stub_put(text, sl_span_of(digits, sizeof(digits)));
}

void sl_stub_put_quoted(struct sl_stub_text *text, struct sl_span value)
{
    sl_stub_text_reserve(text, value.len * 2);
    for (size_t i = 0; i < value.len; i++) {
        char byte = value.ptr[i];
        if (byte == '"' || byte == '\\') {
            text->buf[text->len++] = '\\';
        }
        text->buf[text->len++] = byte >= ' ' && byte <= '~' ? byte : '?';
    }
}

/* Seconds with at most three decimals, no trailing zeros: "3", "3.5". */
static void put_seconds(struct sl_stub_text *text, uint64_t millis)
{
    uint64_t rest = millis % 1000;

    sl_stub_put_uint(text, millis / 1000);
    if (rest > 0) {
        char digits[4] = {'.', (char)('0' + rest / 100), (char)('0' + rest / 10 % 10),
                          (char)('0' + rest % 10)};
        size_t len = rest % 10 != 0 ? 4 : rest % 100 != 0 ? 3 : 2;
        sl_stub_put(text, sl_span_of(digits, len));
    }
    sl_stub_put_str(text, "s");
}

void sl_stub_put_duration(struct sl_stub_text *text, int64_t duration_ns)
{
    uint64_t nanos = duration_ns > 0 ? (uint64_t)duration_ns : 0;
    uint64_t millis = (nanos + (uint64_t)SL_NS_PER_MS - 1) / (uint64_t)SL_NS_PER_MS;
    uint64_t hours = millis / 3600000;
    uint64_t minutes = millis / 60000 % 60;

    if (millis > 0 && millis < 1000) {
        sl_stub_put_uint(text, millis);
        sl_stub_put_str(text, "ms");
        return;
    }
    if (hours > 0) {
        sl_stub_put_uint(text, hours);
        sl_stub_put_str(text, "h");
    }
    if (hours > 0 || minutes > 0) {
        sl_stub_put_uint(text, minutes);
        sl_stub_put_str(text, "m");
    }
    put_seconds(text, millis % 60000);
}

uint64_t sl_stub_fnv(struct sl_span bytes)
{
    uint64_t hash = FNV_OFFSET;

    for (size_t i = 0; i < bytes.len; i++) {
        hash = (hash ^ (unsigned char)bytes.ptr[i]) * FNV_PRIME;
    }
    return hash;
}
