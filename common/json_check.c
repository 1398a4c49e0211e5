/*
 * What yajl leaves open: strict bytes, and where exactly a refused text goes wrong.
 *
 * yajl takes overlong UTF-8, encoded surrogates and form feeds as white space, and its idea of the
 * offset of an error is the end of what it had read. So every byte is looked at once before yajl
 * runs, eight at a time where they are plain; and when yajl refuses a text, its tokens are walked
 * again from the start to find the byte to name. The walk runs on refused texts only.
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

static struct lead lead_of(uint8_t first)
{
    if (first < 0x80) {
        return (struct lead){1, 0, 0};
    }
    if (first < 0xe0) {
        return first < 0xc2 ? (struct lead){0, 0, 0} : (struct lead){2, 0x80, 0xbf};
    }
    if (first < 0xf0) {
        return (struct lead){3, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf};
    }
    if (first < 0xf5) {
        return (struct lead){4, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf};
    }
    return (struct lead){0, 0, 0};
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

/* ---- where it goes wrong --------------------------------------------------------------------- */

/* A token: its end, or the byte in it that makes it none. */
struct token {
    bool is_sound;
    size_t at; /* just behind it, or the bad byte; the text's length when it is cut off */
};

static char char_at(struct sl_span text, size_t at)
{
    return at < text.len ? text.ptr[at] : '\0'; /* NUL was refused before: it means "the end" */
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* What stands behind the backslash at `at`. */
static struct token read_escape(struct sl_span text, size_t at)
{
    char c = char_at(text, at + 1);

    if (c != 'u') {
        return (struct token){
            c != '\0' && strchr("\"\\/bfnrt", c) != NULL,
            SL_MIN(at + (c != '\0' && strchr("\"\\/bfnrt", c) ? 2 : 1), text.len)};
    }
    for (size_t i = 2; i < 6; i++) {
        if (!is_hex(char_at(text, at + i))) {
            return (struct token){false, SL_MIN(at + i, text.len)};
        }
    }
    return (struct token){true, at + 6};
}

static struct token read_string(struct sl_span text, size_t at)
{
    at++;
    while (at < text.len) {
        if (text.ptr[at] == '"') {
            return (struct token){true, at + 1};
        }
        if ((uint8_t)text.ptr[at] < 0x20) {
            return (struct token){false, at};
        }
        if (text.ptr[at] != '\\') {
            at++;
            continue;
        }
        struct token escape = read_escape(text, at);
        if (!escape.is_sound) {
            return escape;
        }
        at = escape.at;
    }
    return (struct token){false, text.len};
}

/* At least one digit, else the byte that should have been one. */
static struct token read_digits(struct sl_span text, size_t at)
{
    if (!is_digit(char_at(text, at))) {
        return (struct token){false, SL_MIN(at, text.len)};
    }
    while (is_digit(char_at(text, at))) {
        at++;
    }
    return (struct token){true, at};
}

static struct token read_number(struct sl_span text, size_t at)
{
    at += text.ptr[at] == '-';
    struct token token = {true, at + 1};
    if (char_at(text, at) != '0') { /* behind a leading zero no digit belongs to the number */
        token = read_digits(text, at);
    }
    if (token.is_sound && char_at(text, token.at) == '.') {
        token = read_digits(text, token.at + 1);
    }
    char exponent = char_at(text, token.at);
    if (token.is_sound && (exponent == 'e' || exponent == 'E')) {
        char sign = char_at(text, token.at + 1);
        token = read_digits(text, token.at + 1 + (sign == '+' || sign == '-'));
    }
    return token;
}

static struct token read_literal(struct sl_span text, size_t at)
{
    char first = text.ptr[at];
    const char *word = first == 't' ? "true" : first == 'f' ? "false" : "null";

    for (size_t i = 0; word[i] != '\0'; i++, at++) {
        if (char_at(text, at) != word[i]) {
            return (struct token){false, SL_MIN(at, text.len)};
        }
    }
    return (struct token){true, at};
}

static struct token read_token(struct sl_span text, size_t at)
{
    char c = text.ptr[at];

    if (c == '"') {
        return read_string(text, at);
    }
    if (c == '-' || is_digit(c)) {
        return read_number(text, at);
    }
    if (c == 't' || c == 'f' || c == 'n') {
        return read_literal(text, at);
    }
    bool is_mark = strchr("{}[]:,", c) != NULL;
    return (struct token){is_mark, is_mark ? at + 1 : at};
}

size_t sl_json_find_fault(struct sl_span text, size_t consumed)
{
    size_t at = sl_json_skip_space(text, 0);

    while (at < text.len) {
        struct token token = read_token(text, at);
        if (!token.is_sound) {
            return token.at;
        }
        if (token.at >= consumed) {
            return at;
        }
        at = sl_json_skip_space(text, token.at);
    }
    return text.len;
}
