/*
 * The stub's HTTP/1.1 request parser: one small function per stage, each consumes what it can.
 *
 * Runs in sluice-stub only. Keeps everything in struct sl_stub_http; allocates nothing, reads no
 * descriptor. It is strict where a client's mistake should show (line ends, lengths, methods) and
 * understands no more than a client of such an API sends: no upgrade, no multipart, no trailers'
 * values. A request that breaks a rule or a limit ends in BAD with the status to answer; the
 * connection is then to be closed. Nothing survives the process.
 */
#include "tests/stub/http.h"

#include <strings.h>

#define CHUNK_LINE_BYTES_MAX 256
#define TRAILER_BYTES_MAX (8 * SL_KIB)

struct header {
    struct sl_span name;
    struct sl_stub_place value;
    struct sl_span text; /* the value's bytes */
};

static enum sl_stub_http_stage refuse(struct sl_stub_http *http, int status, const char *reason)
{
    http->bad_status = status;
    http->bad_reason = reason;
    http->stage = SL_STUB_HTTP_BAD;
    return http->stage;
}

void sl_stub_http_init(struct sl_stub_http *http)
{
    memset(http, 0, sizeof(*http));
}

static bool equals_ignoring_case(struct sl_span text, const char *word)
{
    return text.len == strlen(word) && strncasecmp(text.ptr, word, text.len) == 0;
}

/* Is `word` one of the comma-separated words of a header's value? */
static bool has_word(struct sl_span text, const char *word)
{
    size_t at = 0;

    while (at < text.len) {
        size_t len = 0;
        while (at + len < text.len && text.ptr[at + len] != ',') {
            len++;
        }
        struct sl_span item = sl_span_of(text.ptr + at, len);
        while (item.len > 0 && item.ptr[0] == ' ') {
            item = sl_span_of(item.ptr + 1, item.len - 1);
        }
        if (equals_ignoring_case(item, word)) {
            return true;
        }
        at += len + 1;
    }
    return false;
}

/* ---- headers --------------------------------------------------------------------------------- */

static void take_length(struct sl_stub_http *http, const struct header *header)
{
    size_t value = 0;

    if (header->text.len == 0 || header->text.len > 18 || http->has_length) {
        refuse(http, 400, "Content-Length is empty, too long or stands twice");
        return;
    }
    for (size_t i = 0; i < header->text.len; i++) {
        char digit = header->text.ptr[i];
        if (digit < '0' || digit > '9') {
            refuse(http, 400, "Content-Length is not a number");
            return;
        }
        value = value * 10 + (size_t)(digit - '0');
    }
    if (value > SL_STUB_BODY_BYTES_MAX) {
        refuse(http, 413, "The request body is larger than 65 MiB");
        return;
    }
    http->content_length = value;
    http->has_length = true;
}

static void take_encoding(struct sl_stub_http *http, const struct header *header)
{
    if (!equals_ignoring_case(header->text, "chunked")) {
        refuse(http, 501, "Transfer-Encoding is understood only as chunked");
        return;
    }
    http->is_chunked = true;
}

static void take_connection(struct sl_stub_http *http, const struct header *header)
{
    if (has_word(header->text, "close")) {
        http->is_keep_alive = false;
    } else if (has_word(header->text, "keep-alive")) {
        http->is_keep_alive = true;
    }
}

static void take_expect(struct sl_stub_http *http, const struct header *header)
{
    if (!equals_ignoring_case(header->text, "100-continue")) {
        refuse(http, 417, "Expect is understood only as 100-continue");
        return;
    }
    http->wants_continue = true;
}

static void take_authorization(struct sl_stub_http *http, const struct header *header)
{
    http->authorization = header->value;
}

static void take_client_id(struct sl_stub_http *http, const struct header *header)
{
    http->client_id = header->value;
}

static const struct {
    const char *name;
    void (*take)(struct sl_stub_http *, const struct header *);
} known_headers[] = {
    {"content-length", take_length},       {"transfer-encoding", take_encoding},
    {"connection", take_connection},       {"expect", take_expect},
    {"authorization", take_authorization}, {"x-client-request-id", take_client_id},
};

static struct sl_stub_place trim(const char *buf, size_t at, size_t end)
{
    while (at < end && (buf[at] == ' ' || buf[at] == '\t')) {
        at++;
    }
    while (end > at && (buf[end - 1] == ' ' || buf[end - 1] == '\t')) {
        end--;
    }
    return (struct sl_stub_place){.at = at, .len = end - at};
}

/* One header line buf[at..end), without its line end. */
static void take_header(struct sl_stub_http *http, const char *buf, size_t at, size_t end)
{
    const char *colon = memchr(buf + at, ':', end - at);

    if (colon == NULL || colon == buf + at) {
        refuse(http, 400, "A header line has no name");
        return;
    }
    struct header header = {
        .name = sl_span_of(buf + at, (size_t)(colon - buf) - at),
        .value = trim(buf, (size_t)(colon - buf) + 1, end),
    };
    header.text = sl_stub_place_span(buf, header.value);
    for (size_t i = 0; i < SL_ARRAY_LEN(known_headers); i++) {
        if (equals_ignoring_case(header.name, known_headers[i].name)) {
            known_headers[i].take(http, &header);
            return;
        }
    }
}

/* "POST /v1/x HTTP/1.1" in buf[0..end). */
static void take_request_line(struct sl_stub_http *http, const char *buf, size_t end)
{
    const char *first = memchr(buf, ' ', end);
    size_t path_at = first == NULL ? end : (size_t)(first - buf) + 1;
    const char *second = memchr(buf + path_at, ' ', end - path_at);
    size_t version_at = second == NULL ? end : (size_t)(second - buf) + 1;
    struct sl_span version = sl_span_of(buf + version_at, end - version_at);

    http->is_keep_alive = sl_span_equal(version, sl_span_str("HTTP/1.1"));
    if (!http->is_keep_alive && !sl_span_equal(version, sl_span_str("HTTP/1.0"))) {
        refuse(http, 400, "The request line is not METHOD PATH HTTP/1.1");
        return;
    }
    http->method = (struct sl_stub_place){.at = 0, .len = path_at - 1};
    http->path = (struct sl_stub_place){.at = path_at, .len = version_at - 1 - path_at};
}

static void finish_head(struct sl_stub_http *http)
{
    if (http->is_chunked && http->has_length) {
        refuse(http, 400, "Content-Length and Transfer-Encoding exclude one another");
        return;
    }
    http->body.at = http->scanned;
    http->stage = http->is_chunked ? SL_STUB_HTTP_CHUNK_SIZE : SL_STUB_HTTP_BODY;
}

/* buf[0..end) is the head; its last bytes are the empty line. */
static void take_head(struct sl_stub_http *http, const char *buf, size_t end)
{
    const char *line_end = memmem(buf, end, "\r\n", 2);
    size_t at = (size_t)(line_end - buf);

    take_request_line(http, buf, at);
    for (at += 2; at < end - 2 && http->stage != SL_STUB_HTTP_BAD;) {
        line_end = memmem(buf + at, end - at, "\r\n", 2);
        size_t stop = (size_t)(line_end - buf);
        take_header(http, buf, at, stop);
        at = stop + 2;
    }
    http->scanned = end;
    if (http->stage != SL_STUB_HTTP_BAD) {
        finish_head(http);
    }
}

/* ---- stages: each returns false when it needs more bytes ------------------------------------- */

static bool feed_head(struct sl_stub_http *http, const char *buf, size_t len)
{
    size_t from = http->scanned > 3 ? http->scanned - 3 : 0;
    const char *found = memmem(buf + from, len - from, "\r\n\r\n", 4);
    size_t end = found != NULL ? (size_t)(found - buf) + 4 : len;

    http->scanned = end;
    if (end > SL_STUB_HEAD_BYTES_MAX) {
        refuse(http, 431, "The request headers are larger than 64 KiB");
        return true;
    }
    if (found == NULL) {
        return false;
    }
    take_head(http, buf, end);
    return true;
}

static bool feed_body(struct sl_stub_http *http, size_t len)
{
    http->body.len = SL_MIN(len - http->body.at, http->content_length);
    http->scanned = http->body.at + http->body.len;
    if (http->body.len < http->content_length) {
        return false;
    }
    http->stage = SL_STUB_HTTP_DONE;
    return true;
}

/* Finds the line that starts at scanned; false when its end has not come. */
static bool find_line(struct sl_stub_http *http, const char *buf, size_t len, size_t *line_len)
{
    const char *found = memmem(buf + http->scanned, len - http->scanned, "\r\n", 2);

    if (found == NULL) {
        if (len - http->scanned > CHUNK_LINE_BYTES_MAX) {
            refuse(http, 400, "A line of the chunked body is too long");
        }
        return false;
    }
    *line_len = (size_t)(found - buf) - http->scanned;
    return true;
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    char lower = (char)(digit | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The number that opens a chunk's line; false: there is none, or more than eight digits. */
static bool read_chunk_size(const char *line, size_t line_len, size_t *out)
{
    size_t size = 0;
    size_t digits = 0;

    while (digits < line_len && digits < 8 && hex_value(line[digits]) >= 0) {
        size = size * 16 + (size_t)hex_value(line[digits++]);
    }
    *out = size;
    return digits > 0 && (digits == line_len || line[digits] == ';' || line[digits] == ' ');
}

static bool feed_chunk_size(struct sl_stub_http *http, const char *buf, size_t len)
{
    size_t line_len;
    size_t size;

    if (!find_line(http, buf, len, &line_len)) {
        return false;
    }
    if (!read_chunk_size(buf + http->scanned, line_len, &size)) {
        refuse(http, 400, "A chunk size is not a hexadecimal number");
        return true;
    }
    if (size > SL_STUB_BODY_BYTES_MAX - http->body.len) {
        refuse(http, 413, "The request body is larger than 65 MiB");
        return true;
    }
    http->scanned += line_len + 2;
    http->chunk_left = size;
    http->stage = size > 0 ? SL_STUB_HTTP_CHUNK_DATA : SL_STUB_HTTP_TRAILER;
    return true;
}

static bool feed_chunk_data(struct sl_stub_http *http, char *buf, size_t len)
{
    size_t count = SL_MIN(http->chunk_left, len - http->scanned);

    memmove(buf + http->body.at + http->body.len, buf + http->scanned, count);
    http->body.len += count;
    http->scanned += count;
    http->chunk_left -= count;
    if (http->chunk_left > 0) {
        return false;
    }
    http->stage = SL_STUB_HTTP_CHUNK_END;
    return true;
}

static bool feed_chunk_end(struct sl_stub_http *http, const char *buf, size_t len)
{
    if (len - http->scanned < 2) {
        return false;
    }
    if (memcmp(buf + http->scanned, "\r\n", 2) != 0) {
        refuse(http, 400, "A chunk is longer than its size says");
        return true;
    }
    http->scanned += 2;
    http->stage = SL_STUB_HTTP_CHUNK_SIZE;
    return true;
}

/* Trailer lines are skipped; the empty one ends the request. */
static bool feed_trailer(struct sl_stub_http *http, const char *buf, size_t len)
{
    size_t line_len;

    if (!find_line(http, buf, len, &line_len)) {
        return false;
    }
    http->scanned += line_len + 2;
    http->chunk_left += line_len;
    if (http->chunk_left > TRAILER_BYTES_MAX) {
        refuse(http, 431, "The trailers are larger than 8 KiB");
    } else if (line_len == 0) {
        http->stage = SL_STUB_HTTP_DONE;
    }
    return true;
}

static bool feed_stage(struct sl_stub_http *http, char *buf, size_t len)
{
    switch (http->stage) {
    case SL_STUB_HTTP_HEAD:
        return feed_head(http, buf, len);
    case SL_STUB_HTTP_BODY:
        return feed_body(http, len);
    case SL_STUB_HTTP_CHUNK_SIZE:
        return feed_chunk_size(http, buf, len);
    case SL_STUB_HTTP_CHUNK_DATA:
        return feed_chunk_data(http, buf, len);
    case SL_STUB_HTTP_CHUNK_END:
        return feed_chunk_end(http, buf, len);
    case SL_STUB_HTTP_TRAILER:
        return feed_trailer(http, buf, len);
    case SL_STUB_HTTP_DONE:
    case SL_STUB_HTTP_BAD:
        return false;
    }
    return false;
}

/* Closes the gap that chunk lines left between the body so far and what is not understood yet. */
static void close_gap(struct sl_stub_http *http, char *buf, size_t *len)
{
    size_t body_end = http->body.at + http->body.len;
    size_t gap = http->scanned - body_end;

    memmove(buf + body_end, buf + http->scanned, *len - http->scanned);
    *len -= gap;
    http->scanned -= gap;
}

enum sl_stub_http_stage sl_stub_http_feed(struct sl_stub_http *http, char *buf, size_t *len)
{
    while (feed_stage(http, buf, *len)) {
    }
    if (http->is_chunked && http->body.at > 0 && http->stage != SL_STUB_HTTP_BAD) {
        close_gap(http, buf, len);
    }
    return http->stage;
}

size_t sl_stub_http_missing(const struct sl_stub_http *http, size_t len)
{
    size_t end = http->body.at + http->content_length;

    return http->stage == SL_STUB_HTTP_BODY && end > len ? end - len : 0;
}
