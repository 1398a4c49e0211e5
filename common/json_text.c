/*
 * Writing JSON into a growing text.
 *
 * Whatever is put, what comes out is valid JSON in valid UTF-8: strings are escaped, broken bytes
 * in them become U+FFFD, numbers that are none become 0. The text grows by doubling; when memory
 * runs out it is marked failed and stays as it was, so that a sequence of puts needs one check, at
 * its end.
 *
 * Never blocks, never recurses. Any process; a text belongs to one thread. A crash leaves nothing
 * behind. Reports is_failed, no errors.
 */
#include "common/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json_private.h"
#include "common/utf8.h"

#define TEXT_BYTES_MIN 256
#define MS_MAX 9e15

void sl_json_text_fini(struct sl_json_text *text)
{
    free(text->buf);
    *text = (struct sl_json_text){.buf = NULL};
}

/* Room for `more` bytes; NULL, and the text failed, when there is none. */
static char *make_room(struct sl_json_text *text, size_t more)
{
    size_t need;
    size_t size = SL_MAX(text->size_bytes, (size_t)TEXT_BYTES_MIN);

    if (text->is_failed || !sl_add_size(text->len, more, &need)) {
        text->is_failed = true;
        return NULL;
    }
    if (need <= text->size_bytes && text->buf != NULL) {
        return text->buf + text->len;
    }
    while (size < need) {
        if (!sl_mul_size(size, 2, &size)) {
            text->is_failed = true;
            return NULL;
        }
    }
    char *buf = realloc(text->buf, size);
    if (buf == NULL) {
        text->is_failed = true;
        return NULL;
    }
    text->buf = buf;
    text->size_bytes = size;
    return buf + text->len;
}

void sl_json_put_raw(struct sl_json_text *text, struct sl_span bytes)
{
    char *to = make_room(text, bytes.len);

    if (to != NULL && bytes.len > 0) {
        memcpy(to, bytes.ptr, bytes.len);
        text->len += bytes.len;
    }
}

/* ---- strings --------------------------------------------------------------------------------- */

static bool is_plain(char c)
{
    return (uint8_t)c >= 0x20 && (uint8_t)c < 0x80 && c != '"' && c != '\\';
}

static void put_escaped(struct sl_json_text *text, char c)
{
    static const char specials[] = "\"\\\b\f\n\r\t";
    static const char marks[] = "\"\\bfnrt";
    static const char hex[] = "0123456789abcdef";
    const char *found = memchr(specials, c, sizeof(specials) - 1);

    if (found != NULL) {
        const char escape[] = {'\\', marks[found - specials]};
        sl_json_put_raw(text, sl_span_of(escape, sizeof(escape)));
    } else {
        const char escape[] = {'\\', 'u', '0', '0', hex[(uint8_t)c >> 4], hex[c & 0x0f]};
        sl_json_put_raw(text, sl_span_of(escape, sizeof(escape)));
    }
}

/* Puts the one character at `at` that is not plain; returns its length. */
static size_t put_special(struct sl_json_text *text, const char *at, size_t left)
{
    bool is_valid = true;

    if ((uint8_t)*at < 0x80) {
        put_escaped(text, *at);
        return 1;
    }
    size_t step = sl_utf8_step(at, left, &is_valid);
    sl_json_put_raw(text, is_valid ? sl_span_of(at, step) : sl_span_str("\xef\xbf\xbd"));
    return step;
}

void sl_json_put_string(struct sl_json_text *text, struct sl_span value)
{
    size_t at = 0;

    sl_json_put_raw(text, sl_span_str("\""));
    while (at < value.len && !text->is_failed) {
        size_t end = at;
        while (end < value.len && is_plain(value.ptr[end])) {
            end++;
        }
        sl_json_put_raw(text, sl_span_of(value.ptr + at, end - at));
        at = end;
        if (at < value.len) {
            at += put_special(text, value.ptr + at, value.len - at);
        }
    }
    sl_json_put_raw(text, sl_span_str("\""));
}

/* ---- numbers --------------------------------------------------------------------------------- */

void sl_json_put_uint(struct sl_json_text *text, uint64_t value)
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%" PRIu64, value);

    sl_json_put_raw(text, sl_span_of(digits, (size_t)len));
}

void sl_json_put_int(struct sl_json_text *text, int64_t value)
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%" PRId64, value);

    sl_json_put_raw(text, sl_span_of(digits, (size_t)len));
}

static void put_thousandths(struct sl_json_text *text, uint64_t thousandths)
{
    char digits[8];
    int len = snprintf(digits, sizeof(digits), ".%03u", (unsigned)(thousandths % 1000));

    sl_json_put_uint(text, thousandths / 1000);
    while (len > 0 && (digits[len - 1] == '0' || digits[len - 1] == '.')) {
        len--;
    }
    sl_json_put_raw(text, sl_span_of(digits, (size_t)len));
}

void sl_json_put_ms(struct sl_json_text *text, double value)
{
    double size = value < 0 ? -value : value;

    if (!isfinite(value)) {
        sl_json_put_uint(text, 0);
        return;
    }
    /* Beyond this a double has no decimals worth printing, and thousandths would not fit. */
    uint64_t thousandths = (uint64_t)(SL_MIN(size, MS_MAX) * 1000 + 0.5);
    if (value < 0 && thousandths > 0) {
        sl_json_put_raw(text, sl_span_str("-"));
    }
    put_thousandths(text, thousandths);
}

/* ---- one line -------------------------------------------------------------------------------- */

void sl_json_put_minified(struct sl_json_text *text, struct sl_span json)
{
    char *to = make_room(text, json.len);
    size_t at = 0;

    if (to == NULL) {
        return;
    }
    while (at < json.len) {
        char c = json.ptr[at];
        if (c == '"') {
            size_t end = sl_json_string_end(json, at);
            memcpy(to, json.ptr + at, end - at);
            to += end - at;
            at = end;
            continue;
        }
        if (!sl_json_is_space(c)) {
            *to++ = c;
        }
        at++;
    }
    text->len = (size_t)(to - text->buf);
}
