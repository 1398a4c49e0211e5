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
#include "common/utf8.h"

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
    size_t step = sl_utf8_step(text.ptr + *at, text.len - *at, &is_valid);
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
