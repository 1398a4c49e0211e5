#ifndef SL_COMMON_BASE_H
#define SL_COMMON_BASE_H

/*
 * The words every module speaks: attributes, byte spans, checked size arithmetic.
 * Pure; no allocation, no I/O; any process, any thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_idx, first_idx) __attribute__((format(printf, format_idx, first_idx)))
#define NO_RETURN __attribute__((noreturn))

#define SL_ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))
#define SL_MIN(a, b) ((a) < (b) ? (a) : (b))
#define SL_MAX(a, b) ((a) > (b) ? (a) : (b))
#define SL_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define SL_NS_PER_MS INT64_C(1000000)
#define SL_NS_PER_S INT64_C(1000000000)

/* Borrowed bytes: never owns, never NUL-terminated by promise. */
struct sl_span {
    const char *ptr;
    size_t len;
};

static inline struct sl_span sl_span_of(const void *ptr, size_t len)
{
    return (struct sl_span){.ptr = (const char *)ptr, .len = len};
}

static inline struct sl_span sl_span_str(const char *text)
{
    return (struct sl_span){.ptr = text, .len = strlen(text)};
}

static inline bool sl_span_equal(struct sl_span a, struct sl_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Copies a span into a NUL-terminated buffer of `size` bytes; false (and an empty string) when it
 * does not fit. */
MUST_CHECK static inline bool sl_span_copy_str(char *dst, size_t size, struct sl_span src)
{
    if (src.len >= size) {
        dst[0] = '\0';
        return false;
    }
    if (src.len > 0) {
        memcpy(dst, src.ptr, src.len);
    }
    dst[src.len] = '\0';
    return true;
}

/* Size arithmetic that says when it would wrap: true and *out on success, false otherwise. */
MUST_CHECK static inline bool sl_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

MUST_CHECK static inline bool sl_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline size_t sl_round_up(size_t value, size_t power_of_two)
{
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

/* Big-endian integers: LMDB keys and frame headers. */
static inline void sl_put_be32(void *dst, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(dst, &value, sizeof(value));
}

static inline uint32_t sl_get_be32(const void *src)
{
    uint32_t value;
    memcpy(&value, src, sizeof(value));
    return __builtin_bswap32(value);
}

static inline void sl_put_be64(void *dst, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(dst, &value, sizeof(value));
}

static inline uint64_t sl_get_be64(const void *src)
{
    uint64_t value;
    memcpy(&value, src, sizeof(value));
    return __builtin_bswap64(value);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "byte swaps above assume little endian");

#endif
