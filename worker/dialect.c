/*
 * What all dialects share: the table of kinds, header lines, the meaning of HTTP statuses, cutting
 * of texts, and the delays that servers ask for.
 *
 * Runs in a worker. Pure: no I/O, no clock, no logging. Everything it reads came from a provider
 * and is hostile until checked; what is not understood counts as not said.
 */
#include "worker/dialect.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/check.h"

#define RETRY_AFTER_MS_MAX (UINT32_C(7) * 24 * 3600 * 1000)

const struct sl_dialect *sl_dialect_find(enum sl_provider_kind kind)
{
    switch (kind) {
    case SL_PROVIDER_OPENAI:
        return &sl_dialect_openai;
    case SL_PROVIDER_ANTHROPIC:
    case SL_PROVIDER_GEMINI:
        return NULL;
    }
    SL_UNREACHABLE();
}

/* ---- header lines ---------------------------------------------------------------------------- */

enum sl_err sl_header_add(struct sl_header_lines *out, const char *head, const char *tail)
{
    size_t size = strlen(head) + strlen(tail) + 1;
    char *line = malloc(size);

    SL_ASSERT(out->count < SL_HEADERS_MAX);
    if (line == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    snprintf(line, size, "%s%s", head, tail);
    out->lines[out->count++] = line;
    return SL_OK;
}

void sl_header_lines_fini(struct sl_header_lines *lines)
{
    for (size_t i = 0; i < lines->count; i++) {
        explicit_bzero(lines->lines[i], strlen(lines->lines[i]));
        free(lines->lines[i]);
    }
    lines->count = 0;
}

/* ---- statuses -------------------------------------------------------------------------------- */

static enum sl_err client_error_class(uint32_t status, bool has_retry_after)
{
    switch (status) {
    case 401:
    case 403:
        return SL_ERR_AUTH;
    case 402: /* with a delay it is a limit that passes, without one somebody must pay */
        return has_retry_after ? SL_ERR_RATE_LIMITED : SL_ERR_BILLING;
    case 408:
    case 409:
        return SL_ERR_PROVIDER_ERROR;
    case 429:
    case 498: /* Groq's flex tier: no capacity now */
        return SL_ERR_RATE_LIMITED;
    default: /* a number from the network, not an enum */
        return SL_ERR_REJECTED;
    }
}

enum sl_err sl_status_class(uint32_t http_status, bool has_retry_after)
{
    if (http_status >= 500) {
        return SL_ERR_PROVIDER_ERROR;
    }
    if (http_status >= 400) {
        return client_error_class(http_status, has_retry_after);
    }
    if (http_status >= 300) {
        return SL_ERR_REDIRECT;
    }
    return http_status >= 200 ? SL_OK : SL_ERR_RESPONSE_INVALID;
}

/* ---- texts ----------------------------------------------------------------------------------- */

void sl_text_cut(char *out, size_t size, struct sl_span text)
{
    size_t len = SL_MIN(text.len, size - 1);

    /* A continuation byte right behind the cut means that its character began before it. */
    while (len > 0 && len < text.len && ((unsigned char)text.ptr[len] & 0xc0) == 0x80) {
        len--;
    }
    if (len > 0) {
        memcpy(out, text.ptr, len);
    }
    out[len] = '\0';
}

/* ---- delays ---------------------------------------------------------------------------------- */

/* A plain decimal number; strtod would also take "inf", "nan" and hexadecimal. */
static bool parse_number(const char *text, double *out)
{
    char *end = NULL;

    if (text[0] == '\0' || strspn(text, "0123456789.") != strlen(text)) {
        return false;
    }
    errno = 0;
    double value = strtod(text, &end);
    if (*end != '\0' || errno != 0 || !isfinite(value)) {
        return false;
    }
    *out = value;
    return true;
}

static uint32_t clamp_ms(double value_ms)
{
    if (value_ms <= 0) {
        return 0;
    }
    return value_ms >= RETRY_AFTER_MS_MAX ? RETRY_AFTER_MS_MAX : (uint32_t)ceil(value_ms);
}

/* The three forms of RFC 9110, section 5.6.7. */
static bool parse_date(const char *text, int64_t *wall_s)
{
    static const char *const forms[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
                                        "%a %b %d %H:%M:%S %Y"};

    for (size_t i = 0; i < SL_ARRAY_LEN(forms); i++) {
        struct tm tm = {0};
        const char *end = strptime(text, forms[i], &tm);
        if (end != NULL && *end == '\0') {
            *wall_s = (int64_t)timegm(&tm);
            return true;
        }
    }
    return false;
}

uint32_t sl_retry_after_parse(const char *retry_after_ms, const char *retry_after, int64_t wall_ns)
{
    double number;
    int64_t wall_s;

    if (parse_number(retry_after_ms, &number)) {
        return clamp_ms(number);
    }
    if (parse_number(retry_after, &number)) {
        return clamp_ms(number * 1000);
    }
    if (parse_date(retry_after, &wall_s)) {
        return clamp_ms((double)wall_s * 1000 - (double)wall_ns / (double)SL_NS_PER_MS);
    }
    return 0;
}
