/*
 * UTF-8, as RFC 3629 has it.
 *
 * Pure: no state, no allocation; any process, any thread.
 */
#include "common/utf8.h"

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

size_t sl_utf8_step(const char *at, size_t left, bool *is_valid)
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

bool sl_utf8_is_valid(struct sl_span text)
{
    bool is_valid = true;

    for (size_t at = 0; is_valid && at < text.len;) {
        at += sl_utf8_step(text.ptr + at, text.len - at, &is_valid);
    }
    return is_valid;
}
