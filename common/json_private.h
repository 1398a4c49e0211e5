#ifndef SL_COMMON_JSON_PRIVATE_H
#define SL_COMMON_JSON_PRIVATE_H

/*
 * What the files of the JSON door (json*.c) share. Nobody else includes this.
 * Pure; never blocks; any process, any thread.
 */

#include "common/json.h"

/* Looks at every byte once for what no JSON text may hold anywhere: invalid UTF-8, NUL, control
 * characters but tab and line ends. False, with *fault, at the first. */
bool sl_json_check_bytes(struct sl_span text, struct sl_json_fault *fault);

static inline bool sl_json_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

size_t sl_json_skip_space(struct sl_span text, size_t at);

/* Just behind the string that begins with the quote at `at`; the text's length if it has no end. */
size_t sl_json_string_end(struct sl_span text, size_t at);

/* The byte at which a text that yajl refused goes wrong: in a broken token, at the beginning of one
 * that may not stand there, or the text's length where it ends too early. */
size_t sl_json_find_fault(struct sl_span text);

PRINTF_LIKE(3, 4)
void sl_json_set_fault(struct sl_json_fault *fault, size_t offset, const char *format, ...);

#endif
