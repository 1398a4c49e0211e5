#ifndef SL_TESTS_STUB_HTTP_H
#define SL_TESTS_STUB_HTTP_H

/*
 * An incremental parser of HTTP/1.1 requests: fed with what has come so far, as often as something
 * comes, byte by byte if need be; looks at each byte once. Places in the buffer are offsets,
 * because the buffer moves when it grows. Chunked bodies are joined in place.
 *
 * Stub only; pure; allocates nothing; never blocks.
 */

#include "common/base.h"
#include "common/limits.h"

#define SL_STUB_HEAD_BYTES_MAX (64 * SL_KIB) /* request line and headers */
#define SL_STUB_BODY_BYTES_MAX                                                                     \
    (SL_BODY_BYTES_MAX + SL_MIB) /* the product's limit is just below                              \
                                  */

struct sl_stub_place {
    size_t at;
    size_t len;
};

enum sl_stub_http_stage {
    SL_STUB_HTTP_HEAD,
    SL_STUB_HTTP_BODY,
    SL_STUB_HTTP_CHUNK_SIZE,
    SL_STUB_HTTP_CHUNK_DATA,
    SL_STUB_HTTP_CHUNK_END,
    SL_STUB_HTTP_TRAILER,
    SL_STUB_HTTP_DONE,
    SL_STUB_HTTP_BAD,
};

struct sl_stub_http {
    enum sl_stub_http_stage stage;
    size_t scanned; /* bytes understood; DONE: the first byte after the request */
    size_t chunk_left;
    struct sl_stub_place method;
    struct sl_stub_place path;
    struct sl_stub_place authorization; /* header values, without surrounding spaces */
    struct sl_stub_place client_id;
    struct sl_stub_place body;
    size_t content_length;
    bool has_length;
    bool is_chunked;
    bool is_keep_alive;
    bool wants_continue;
    int bad_status; /* BAD: the status to refuse with, and why */
    const char *bad_reason;
};

/* Starts the next request at buf[0]. */
void sl_stub_http_init(struct sl_stub_http *http);

/* Goes on with buf[0..*len). Returns the stage reached; DONE or BAD end the request. May shorten
 * *len and move bytes when chunks are joined. */
enum sl_stub_http_stage sl_stub_http_feed(struct sl_stub_http *http, char *buf, size_t *len);

/* How many bytes are surely still to come; 0: unknown or none. */
size_t sl_stub_http_missing(const struct sl_stub_http *http, size_t len);

static inline struct sl_span sl_stub_place_span(const char *buf, struct sl_stub_place place)
{
    return sl_span_of(buf + place.at, place.len);
}

#endif
