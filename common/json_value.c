/*
 * What a pick says: strings with their escapes undone, numbers within bounds.
 *
 * A pick's bytes have passed the scanner, so they are valid JSON; what is checked here is what the
 * caller asks for beyond that: the right kind, a whole number in range, no lone surrogate, room.
 *
 * Pure: allocates nothing, never blocks, reads only the pick. Any process, any thread. Programs of
 * Sluice never call setlocale, so strtod reads a point. Errors: SL_ERR_INPUT, SL_ERR_FULL.
 */
#include "common/json.h"

#include <math.h>
#include <stdlib.h>

#define NUMBER_BYTES_MAX 400 /* the longest double written out has 309 digits before the point */

struct output {
    char *buf;
    size_t len;
    size_t max; /* without the NUL */
};

static enum sl_err put(struct output *out, const char *bytes, size_t len)
{
    if (len > out->max - out->len) {
        return SL_ERR_FULL;
    }
    memcpy(out->buf + out->len, bytes, len);
    out->len += len;
    return SL_OK;
}

static enum sl_err put_character(struct output *out, uint32_t code)
{
    char bytes[4];

    if (code < 0x80) {
        bytes[0] = (char)code;
        return put(out, bytes, 1);
    }
    if (code < 0x800) {
        bytes[0] = (char)(0xc0 | code >> 6);
        bytes[1] = (char)(0x80 | (code & 0x3f));
        return put(out, bytes, 2);
    }
    if (code < 0x10000) {
        bytes[0] = (char)(0xe0 | code >> 12);
        bytes[1] = (char)(0x80 | (code >> 6 & 0x3f));
        bytes[2] = (char)(0x80 | (code & 0x3f));
        return put(out, bytes, 3);
    }
    bytes[0] = (char)(0xf0 | code >> 18);
    bytes[1] = (char)(0x80 | (code >> 12 & 0x3f));
    bytes[2] = (char)(0x80 | (code >> 6 & 0x3f));
    bytes[3] = (char)(0x80 | (code & 0x3f));
    return put(out, bytes, 4);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "\uXXXX" at `at`: its 16 bits, or -1. */
static int32_t read_unit(struct sl_span text, size_t at)
{
    int32_t unit = 0;

    if (text.len - at < 6 || text.ptr[at] != '\\' || text.ptr[at + 1] != 'u') {
        return -1;
    }
    for (size_t i = 2; i < 6; i++) {
        int digit = hex_value(text.ptr[at + i]);
        if (digit < 0) {
            return -1;
        }
        unit = unit << 4 | digit;
    }
    return unit;
}

/* A \u escape, two where a pair of surrogates makes one character. */
static enum sl_err put_unicode(struct output *out, struct sl_span text, size_t *at)
{
    int32_t unit = read_unit(text, *at);

    if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff)) {
        return SL_ERR_INPUT;
    }
    *at += 6;
    if (unit < 0xd800 || unit > 0xdbff) {
        return put_character(out, (uint32_t)unit);
    }
    int32_t low = read_unit(text, *at);
    if (low < 0xdc00 || low > 0xdfff) {
        return SL_ERR_INPUT;
    }
    *at += 6;
    return put_character(out,
                         0x10000 + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00));
}

static enum sl_err put_escape(struct output *out, struct sl_span text, size_t *at)
{
    static const char marks[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";

    if (text.len - *at < 2) {
        return SL_ERR_INPUT;
    }
    char mark = text.ptr[*at + 1];
    if (mark == 'u') {
        return put_unicode(out, text, at);
    }
    const char *found = memchr(marks, mark, sizeof(marks) - 1);
    if (found == NULL) {
        return SL_ERR_INPUT;
    }
    *at += 2;
    return put(out, &meanings[found - marks], 1);
}

static enum sl_err decode(struct output *out, struct sl_span text)
{
    enum sl_err err = SL_OK;
    size_t at = 0;

    while (err == SL_OK && at < text.len) {
        const char *escape = memchr(text.ptr + at, '\\', text.len - at);
        size_t plain = escape != NULL ? (size_t)(escape - text.ptr) - at : text.len - at;
        err = put(out, text.ptr + at, plain);
        at += plain;
        if (err == SL_OK && escape != NULL) {
            err = put_escape(out, text, &at);
        }
    }
    return err;
}

enum sl_err sl_json_get_string(const struct sl_json_pick *pick, char *buf, size_t size, size_t *len)
{
    if (pick->kind != SL_JSON_STRING || pick->raw.len < 2) {
        return SL_ERR_INPUT;
    }
    if (size == 0) {
        return SL_ERR_FULL;
    }
    struct output out = {.buf = buf, .max = size - 1};
    enum sl_err err = decode(&out, sl_span_of(pick->raw.ptr + 1, pick->raw.len - 2));
    if (err == SL_OK) {
        buf[out.len] = '\0';
        *len = out.len;
    }
    return err;
}

static bool copy_number(const struct sl_json_pick *pick, char text[NUMBER_BYTES_MAX + 1])
{
    return pick->kind == SL_JSON_NUMBER && sl_span_copy_str(text, NUMBER_BYTES_MAX + 1, pick->raw);
}

/* Appends a digit to a whole number, below zero downwards; false when it has none or wraps. */
static bool add_digit(int64_t *value, char c, bool is_negative)
{
    int digit = c - '0';

    return digit >= 0 && digit <= 9 && !__builtin_mul_overflow(*value, 10, value) &&
           !__builtin_add_overflow(*value, is_negative ? -digit : digit, value);
}

enum sl_err sl_json_get_int(const struct sl_json_pick *pick, int64_t min, int64_t max, int64_t *out)
{
    int64_t value = 0;

    if (pick->kind != SL_JSON_NUMBER) {
        return SL_ERR_INPUT;
    }
    bool is_negative = pick->raw.ptr[0] == '-';
    for (size_t i = is_negative; i < pick->raw.len; i++) {
        if (!add_digit(&value, pick->raw.ptr[i], is_negative)) {
            return SL_ERR_INPUT;
        }
    }
    if (value < min || value > max) {
        return SL_ERR_INPUT;
    }
    *out = value;
    return SL_OK;
}

enum sl_err sl_json_get_double(const struct sl_json_pick *pick, double *out)
{
    char text[NUMBER_BYTES_MAX + 1];
    char *end;

    if (!copy_number(pick, text)) {
        return SL_ERR_INPUT;
    }
    double value = strtod(text, &end);
    if (*end != '\0' || !isfinite(value)) {
        return SL_ERR_INPUT;
    }
    *out = value;
    return SL_OK;
}
