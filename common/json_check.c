/*
 * What yajl leaves open: strict bytes.
 *
 * yajl takes overlong UTF-8 and encoded surrogates for characters, and form feeds for white space.
 * So every byte is looked at once before yajl runs, eight at a time where they are plain. Plus the
 * small steps over a text that the other files share.
 *
 * Pure: allocates nothing, never recurses, never reads outside the text. Any process, any thread; a
 * crash leaves nothing behind. Reports faults, no errors.
 */
#include "common/json_private.h"

#include <stdarg.h>
#include <stdio.h>

void sl_json_set_fault(struct sl_json_fault *fault, size_t offset, const char *format, ...)
{
    va_list args;

    fault->offset = offset;
    va_start(args, format);
    vsnprintf(fault->reason, sizeof(fault->reason), format, args);
    va_end(args);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* How many bytes the character takes, and what its second byte may be (Unicode, table 3-7). */
struct lead {
    uint8_t bytes; /* 0: no character begins so */
    uint8_t low;
    uint8_t high;
};

/* Three bytes: no overlong forms (e0), no surrogates (ed). Four: none overlong (f0), none over
 * U+10FFFF (f4). */
static struct lead long_lead_of(uint8_t first)
{
    if (first < 0xf0) {
        return (struct lead){3, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf};
    }
    return (struct lead){4, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf};
}

static struct lead lead_of(uint8_t first)
{
    if (first < 0x80) {
        return (struct lead){1, 0, 0};
    }
    if (first < 0xc2 || first > 0xf4) {
        return (struct lead){0, 0, 0};
    }
    return first < 0xe0 ? (struct lead){2, 0x80, 0xbf} : long_lead_of(first);
}

size_t sl_json_utf8_step(const char *at, size_t left, bool *is_valid)
{
    struct lead lead = lead_of((uint8_t)at[0]);
    size_t got = 1;

    while (got < lead.bytes && got < left) {
        uint8_t byte = (uint8_t)at[got];
        uint8_t low = got == 1 ? lead.low : 0x80;
        uint8_t high = got == 1 ? lead.high : 0xbf;
        if (byte < low || byte > high) {
            break;
        }
        got++;
    }
    *is_valid = got == lead.bytes;
    return got;
}

/* True when none of the eight bytes is below 0x20 or above 0x7f. */
static bool is_plain_word(const char *at)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    return (((word - ones * 0x20) | word) & (ones * 0x80)) == 0;
}

static bool check_byte(struct sl_span text, size_t *at, struct sl_json_fault *fault)
{
    uint8_t byte = (uint8_t)text.ptr[*at];
    bool is_valid = true;

    if (byte == 0) {
        sl_json_set_fault(fault, *at, "NUL byte");
        return false;
    }
    if (byte < 0x20 && !sl_json_is_space((char)byte)) {
        sl_json_set_fault(fault, *at, "control character 0x%02x; escape it in a string", byte);
        return false;
    }
    size_t step = sl_json_utf8_step(text.ptr + *at, text.len - *at, &is_valid);
    if (!is_valid) {
        sl_json_set_fault(fault, *at, "invalid UTF-8 (byte 0x%02x)", byte);
        return false;
    }
    *at += step;
    return true;
}

bool sl_json_check_bytes(struct sl_span text, struct sl_json_fault *fault)
{
    size_t at = 0;

    while (at < text.len) {
        if (text.len - at >= sizeof(uint64_t) && is_plain_word(text.ptr + at)) {
            at += sizeof(uint64_t);
        } else if (!check_byte(text, &at, fault)) {
            return false;
        }
    }
    return true;
}

size_t sl_json_skip_space(struct sl_span text, size_t at)
{
    while (at < text.len && sl_json_is_space(text.ptr[at])) {
        at++;
    }
    return at;
}

/* A quote ends the string unless an odd number of backslashes stands before it. */
static bool is_escaped(struct sl_span text, size_t start, size_t at)
{
    size_t first = at;

    while (first > start && text.ptr[first - 1] == '\\') {
        first--;
    }
    return (at - first) % 2 == 1;
}

size_t sl_json_string_end(struct sl_span text, size_t at)
{
    size_t start = at + 1;

    for (size_t from = start; from < text.len;) {
        const char *quote = memchr(text.ptr + from, '"', text.len - from);
        if (quote == NULL) {
            break;
        }
        from = (size_t)(quote - text.ptr) + 1;
        if (!is_escaped(text, start, from - 1)) {
            return from;
        }
    }
    return text.len;
}
