/*
 * Heads and whole answers of the stub.
 *
 * Runs in sluice-stub only. Keeps no state, decides nothing: what to write stands in the reply; the
 * body comes from body.c. Lengths are right unless the reply's kind asks for a wrong one. It never
 * looks into the body and never sends: the connection does. No errors; nothing survives the
 * process.
 */
#include "tests/stub/answer.h"

#include "common/limits.h"

#define CHUNK_BYTES (16 * SL_KIB)
#define CHUNKED_FROM_BYTES (64 * SL_KIB)
#define FLOOD_HEADERS 2000

/* ---- heads ----------------------------------------------------------------------------------- */

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {307, "Temporary Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {429, "Too Many Requests"},
        {500, "Internal Server Error"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
    };

    for (size_t i = 0; i < SL_ARRAY_LEN(reasons); i++) {
        if (reasons[i].status == status) {
            return reasons[i].reason;
        }
    }
    return "Unknown";
}

static void put_header_uint(struct sl_stub_text *out, const char *name, uint64_t value)
{
    sl_stub_put_str(out, name);
    sl_stub_put_uint(out, value);
    sl_stub_put_str(out, "\r\n");
}

static void put_header_duration(struct sl_stub_text *out, const char *name, int64_t value_ns)
{
    sl_stub_put_str(out, name);
    sl_stub_put_duration(out, value_ns);
    sl_stub_put_str(out, "\r\n");
}

static void put_rate_headers(struct sl_stub_text *out, const struct sl_stub_verdict *verdict)
{
    if (verdict->calls.limit > 0) {
        put_header_uint(out, "x-ratelimit-limit-requests: ", verdict->calls.limit);
        put_header_uint(out, "x-ratelimit-remaining-requests: ", verdict->calls.remaining);
        put_header_duration(out, "x-ratelimit-reset-requests: ", verdict->calls.reset_ns);
    }
    if (verdict->tokens.limit > 0) {
        put_header_uint(out, "x-ratelimit-limit-tokens: ", verdict->tokens.limit);
        put_header_uint(out, "x-ratelimit-remaining-tokens: ", verdict->tokens.remaining);
        put_header_duration(out, "x-ratelimit-reset-tokens: ", verdict->tokens.reset_ns);
    }
}

/* retry-after in whole seconds, at least 1, and in milliseconds. */
static void put_retry_after(struct sl_stub_text *out, int64_t wait_ms)
{
    put_header_uint(out, "retry-after: ", (uint64_t)SL_MAX((wait_ms + 999) / 1000, INT64_C(1)));
    put_header_uint(out, "retry-after-ms: ", (uint64_t)wait_ms);
}

static bool is_sent_chunked(const struct sl_stub_reply *reply, size_t body_len)
{
    return reply->kind == SL_STUB_BADCHUNK || (reply->is_chunked && body_len > CHUNKED_FROM_BYTES);
}

static void put_length(struct sl_stub_text *out, const struct sl_stub_reply *reply, size_t body_len)
{
    size_t length = body_len;

    if (is_sent_chunked(reply, body_len)) {
        sl_stub_put_str(out, "transfer-encoding: chunked\r\n");
        return;
    }
    if (reply->kind == SL_STUB_BADLENGTH) {
        length = body_len > 10 ? body_len - 10 : 0;
    }
    put_header_uint(out, "content-length: ", length);
    if (reply->kind == SL_STUB_TWOLENGTHS) {
        put_header_uint(out, "content-length: ", length / 2);
    }
}

static void put_optional_headers(struct sl_stub_text *out, const struct sl_stub_reply *reply)
{
    if (reply->verdict != NULL) {
        put_rate_headers(out, reply->verdict);
    }
    if (reply->retry_after_ms != SL_STUB_UNSET) {
        put_retry_after(out, reply->retry_after_ms);
    }
    if (reply->kind == SL_STUB_REDIRECT) {
        sl_stub_put_str(out, "location: ");
        sl_stub_put_str(out, reply->redirect_to);
        sl_stub_put_str(out, "\r\n");
    }
    for (uint64_t i = 0; reply->kind == SL_STUB_HEADERFLOOD && i < FLOOD_HEADERS; i++) {
        sl_stub_put_str(out, "x-flood-");
        sl_stub_put_hex(out, i);
        sl_stub_put_str(out, ": ");
        sl_stub_put_fill(out, 'x', 72);
        sl_stub_put_str(out, "\r\n");
    }
    if (reply->is_closing) {
        sl_stub_put_str(out, "connection: close\r\n");
    }
}

static void put_head(struct sl_stub_text *out, const struct sl_stub_reply *reply, size_t body_len)
{
    sl_stub_put_str(out, "HTTP/1.1 ");
    sl_stub_put_uint(out, (uint64_t)reply->status);
    sl_stub_put_str(out, " ");
    sl_stub_put_str(out, reason_of(reply->status));
    sl_stub_put_str(out, "\r\ncontent-type: application/json\r\n");
    put_length(out, reply, body_len);
    sl_stub_put_str(out, "x-request-id: req_");
    sl_stub_put_hex(out, reply->seq);
    put_header_uint(out, "\r\nopenai-processing-ms: ", (uint64_t)reply->processing_ms);
    sl_stub_put_str(out, "openai-version: 2020-10-01\r\nx-stub-body-fnv: ");
    sl_stub_put_hex(out, reply->body_hash);
    sl_stub_put_str(out, "\r\n");
    put_optional_headers(out, reply);
    sl_stub_put_str(out, "\r\n");
}

/* ---- whole answers --------------------------------------------------------------------------- */

static void put_chunk(struct sl_stub_text *out, struct sl_span bytes)
{
    char size[16];
    size_t at = sizeof(size);

    for (size_t left = bytes.len; left > 0 || at == sizeof(size); left >>= 4) {
        size[--at] = "0123456789abcdef"[left & 15];
    }
    sl_stub_put(out, sl_span_of(size + at, sizeof(size) - at));
    sl_stub_put_str(out, "\r\n");
    sl_stub_put(out, bytes);
    sl_stub_put_str(out, "\r\n");
}

static void put_chunks(struct sl_stub_text *out, struct sl_span body)
{
    for (size_t at = 0; at < body.len; at += CHUNK_BYTES) {
        put_chunk(out, sl_span_of(body.ptr + at, SL_MIN(CHUNK_BYTES, body.len - at)));
    }
    put_chunk(out, sl_span_of(body.ptr, 0));
}

static void put_body(struct sl_stub_text *out, const struct sl_stub_reply *reply,
                     struct sl_span body)
{
    if (reply->kind == SL_STUB_BADCHUNK) {
        put_chunk(out, sl_span_of(body.ptr, body.len / 2));
        sl_stub_put_str(out, "zz\r\nthis is no chunk size\r\n");
    } else if (is_sent_chunked(reply, body.len)) {
        put_chunks(out, body);
    } else {
        sl_stub_put(out, body);
    }
}

size_t sl_stub_answer_write(const struct sl_stub_reply *reply, struct sl_span body,
                            struct sl_stub_text *out)
{
    out->len = 0;
    if (reply->kind == SL_STUB_NOTHTTP) {
        sl_stub_put(out, sl_span_of("\x16\x03\x01\0\xa5 220 smtp.example ready\r\n", 29));
        return 0;
    }
    put_head(out, reply, body.len);
    size_t head_len = out->len;
    put_body(out, reply, body);
    return head_len;
}
