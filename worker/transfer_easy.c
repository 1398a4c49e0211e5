/*
 * One transfer of libcurl: its options, what it hands over while it runs, and what its end means.
 *
 * Runs in a worker, inside and outside of libcurl's callbacks; a callback never calls libcurl but
 * for reading its own handle. Never judges an answer and never logs one.
 *
 * Bytes of the answer are the provider's: the body is counted after decompression and cut off at
 * SL_RESPONSE_BYTES_MAX, the headers at SL_RESPONSE_HEADER_BYTES_MAX, and kept header values are
 * reduced to printable ASCII.
 *
 * Errors: those of a call in errors.def. The line that matters most: before a byte of the request
 * was sent a failure is RETRY (surely not executed), afterwards UNKNOWN.
 */
#include "worker/transfer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/check.h"

#define BODY_BYTES_MIN (4 * SL_KIB)
#define BUFFER_BYTES                                                                               \
    (16 * SL_KIB) /* libcurl's, per transfer; its default, and its least upload                    \
                   */
#define KEEPALIVE_IDLE_S 60L
#define KEEPALIVE_INTERVAL_S 60L
#define CONNECTION_LIFE_S 600L /* so that load balancing by name takes effect */

/* ---- what libcurl hands over ----------------------------------------------------------------- */

static bool grow_body(struct sl_answer *answer, size_t needed)
{
    size_t size = SL_MAX(answer->body_size, BODY_BYTES_MIN);

    while (size < needed) {
        size *= 2; /* bounded: needed is at most SL_RESPONSE_BYTES_MAX */
    }
    char *body = realloc(answer->body, size);
    if (body == NULL) {
        return false;
    }
    answer->body = body;
    answer->body_size = size;
    return true;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *user)
{
    struct sl_transfer *transfer = user;
    struct sl_answer *answer = &transfer->call->answer;
    size_t len = size * count;

    if (len > SL_RESPONSE_BYTES_MAX - answer->body_bytes) {
        transfer->is_oversized = true;
        return CURL_WRITEFUNC_ERROR;
    }
    if (len > answer->body_size - answer->body_bytes &&
        !grow_body(answer, answer->body_bytes + len)) {
        transfer->is_out_of_memory = true;
        return CURL_WRITEFUNC_ERROR;
    }
    if (len > 0) {
        memcpy(answer->body + answer->body_bytes, bytes, len);
    }
    answer->body_bytes += len;
    return len;
}

static struct sl_span trim(struct sl_span value)
{
    static const char blanks[] = " \t\r\n";

    while (value.len > 0 && strchr(blanks, value.ptr[0]) != NULL) {
        value = sl_span_of(value.ptr + 1, value.len - 1);
    }
    while (value.len > 0 && strchr(blanks, value.ptr[value.len - 1]) != NULL) {
        value.len--;
    }
    return value;
}

static void copy_value(char *out, size_t size, struct sl_span value)
{
    value = trim(value);
    size_t len = SL_MIN(value.len, size - 1);

    for (size_t i = 0; i < len; i++) {
        char c = value.ptr[i];
        out[i] = (char)(c >= 0x20 && c < 0x7f ? c : '?');
    }
    out[len] = '\0';
}

static void capture_header(struct sl_answer *answer, struct sl_span line)
{
    const struct {
        const char *name;
        char *out;
        size_t size;
    } wanted[] = {
        {"x-request-id", answer->request_id, sizeof(answer->request_id)},
        {"request-id", answer->request_id, sizeof(answer->request_id)},
        {"retry-after", answer->retry_after, sizeof(answer->retry_after)},
        {"retry-after-ms", answer->retry_after_ms, sizeof(answer->retry_after_ms)},
        {"x-should-retry", answer->should_retry, sizeof(answer->should_retry)},
    };
    const char *colon = memchr(line.ptr, ':', line.len);
    size_t name_len = colon == NULL ? 0 : (size_t)(colon - line.ptr);

    for (size_t i = 0; i < SL_ARRAY_LEN(wanted) && name_len > 0; i++) {
        if (strlen(wanted[i].name) == name_len &&
            strncasecmp(wanted[i].name, line.ptr, name_len) == 0) {
            copy_value(wanted[i].out, wanted[i].size,
                       sl_span_of(colon + 1, line.len - name_len - 1));
        }
    }
}

/* A new status line: what an interim answer (1xx) said does not count. */
static void restart_headers(struct sl_answer *answer)
{
    answer->request_id[0] = '\0';
    answer->retry_after[0] = '\0';
    answer->retry_after_ms[0] = '\0';
    answer->should_retry[0] = '\0';
}

static size_t on_header(char *bytes, size_t size, size_t count, void *user)
{
    struct sl_transfer *transfer = user;
    struct sl_answer *answer = &transfer->call->answer;
    size_t len = size * count;

    if (transfer->header_bytes == 0) {
        sl_transfer_note_first_byte(transfer);
    }
    transfer->header_bytes += len;
    if (transfer->header_bytes > SL_RESPONSE_HEADER_BYTES_MAX) {
        transfer->is_oversized = true;
        return 0;
    }
    if (len == 0) {
        return 0;
    }
    char first = (char)(bytes[0] | 0x20);
    if (first == 'x' || first == 'r') { /* no other header is wanted; most end here */
        capture_header(answer, sl_span_of(bytes, len));
    } else if (len > 5 && memcmp(bytes, "HTTP/", 5) == 0) {
        restart_headers(answer);
    }
    return len;
}

static bool has_sent(CURL *easy)
{
    long request_bytes = 0;

    return curl_easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &request_bytes) == CURLE_OK &&
           request_bytes > 0;
}

/* libcurl silently repeats a request when a kept connection breaks before the answer. The provider
 * may have taken the first one: a call under one lease must not go out twice. */
static int on_request(void *user, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
    struct sl_transfer *transfer = user;

    (void)remote_ip;
    (void)local_ip;
    (void)remote_port;
    (void)local_port;
    if (transfer->has_asked && has_sent(transfer->easy)) {
        return CURL_PREREQFUNC_ABORT;
    }
    transfer->has_asked = true;
    return CURL_PREREQFUNC_OK;
}

/* ---- options --------------------------------------------------------------------------------- */

static CURLcode set_callbacks(struct sl_transfer *transfer)
{
    CURL *easy = transfer->easy;

    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
    return curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error_text);
}

/* Options that a build of libcurl may lack or memory may deny: one of them failing is fatal. */
static CURLcode set_safety(CURL *easy)
{
    CURLcode code = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");

    if (code == CURLE_OK) {
        code = curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    }
    if (code == CURLE_OK) {
        code = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    }
    if (code == CURLE_OK) {
        code = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    }
    if (code == CURLE_OK) {
        code = curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    }
    return code;
}

static CURLcode set_habits(struct sl_transfer *transfer)
{
    CURL *easy = transfer->easy;

    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, CONNECTION_LIFE_S);
    curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, -1L); /* renewed by our own rule */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);         /* never join a resolver thread */
    /* Without a directory libcurl keeps the certificates it has read; else it reads the whole
     * bundle again, 25 ms of processor time, for every connection. */
    curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    curl_easy_setopt(easy, CURLOPT_SHARE, transfer->owner->share);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, &transfer->id_header);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION);
    if (!transfer->owner->has_proxy) {
        curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* or it asks the environment at every call */
    }
    return curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "gzip");
}

struct sl_transfer *sl_transfer_make(struct sl_transfers *owner)
{
    struct sl_transfer *transfer = calloc(1, sizeof(*transfer));

    if (transfer == NULL) {
        return NULL;
    }
    transfer->owner = owner;
    transfer->id_header.data = transfer->id_line;
    transfer->drop_name.data = transfer->drop_name_line;
    transfer->easy = curl_easy_init();
    if (transfer->easy == NULL || set_safety(transfer->easy) != CURLE_OK ||
        set_callbacks(transfer) != CURLE_OK || set_habits(transfer) != CURLE_OK) {
        sl_transfer_free(transfer);
        return NULL;
    }
    sl_transfer_set_socket_callbacks(transfer);
    return transfer;
}

void sl_transfer_free(struct sl_transfer *transfer)
{
    if (transfer->easy != NULL) {
        curl_easy_cleanup(transfer->easy);
    }
    free(transfer);
}

static enum sl_err set_url(struct sl_transfer *transfer, const struct sl_call *call)
{
    char url[SL_TRANSFER_URL_BYTES];
    const struct sl_provider *provider = call->provider;
    enum sl_err err = provider->dialect->put_url(provider->cfg, call->endpoint, url, sizeof(url));

    if (err != SL_OK || strcmp(url, transfer->url) == 0) {
        return err;
    }
    if (curl_easy_setopt(transfer->easy, CURLOPT_URL, url) != CURLE_OK) {
        transfer->url[0] = '\0';
        return SL_ERR_NO_MEMORY;
    }
    memcpy(transfer->url, url, sizeof(url));
    return SL_OK;
}

static void set_timeouts(struct sl_transfer *transfer, const struct sl_call *call)
{
    const struct sl_provider_config *cfg = call->provider->cfg;
    long timeout_ms = call->timeout_ms != 0 ? (long)call->timeout_ms : (long)cfg->timeout_ms;
    long connect_timeout_ms = (long)cfg->connect_timeout_ms;

    if (timeout_ms != transfer->timeout_ms) {
        transfer->timeout_ms = timeout_ms;
        curl_easy_setopt(transfer->easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    }
    if (connect_timeout_ms != transfer->connect_timeout_ms) {
        transfer->connect_timeout_ms = connect_timeout_ms;
        curl_easy_setopt(transfer->easy, CURLOPT_CONNECTTIMEOUT_MS, connect_timeout_ms);
    }
}

/* "-HOST:PORT" takes the name out of libcurl's cache; "" when the URL has no name to take out. */
static void put_drop_name(struct sl_transfer *transfer)
{
    char *host = NULL;
    char *port = NULL;
    CURLU *parts = curl_url();

    transfer->drop_name_line[0] = '\0';
    if (parts != NULL && curl_url_set(parts, CURLUPART_URL, transfer->url, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK) {
        snprintf(transfer->drop_name_line, sizeof(transfer->drop_name_line), "-%s:%s", host, port);
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
}

static void set_refreshing(struct sl_transfer *transfer, bool is_refreshing)
{
    if (!is_refreshing && !transfer->is_refreshing) {
        return;
    }
    transfer->is_refreshing = is_refreshing;
    if (is_refreshing) {
        put_drop_name(transfer);
    }
    bool has_name = is_refreshing && transfer->drop_name_line[0] != '\0';
    curl_easy_setopt(transfer->easy, CURLOPT_RESOLVE, has_name ? &transfer->drop_name : NULL);
    curl_easy_setopt(transfer->easy, CURLOPT_FRESH_CONNECT, is_refreshing ? 1L : 0L);
}

enum sl_err sl_transfer_prepare(struct sl_transfer *transfer, struct sl_call *call,
                                bool is_refreshing)
{
    char name[SL_TASK_NAME_BYTES];
    enum sl_err err = set_url(transfer, call);

    if (err != SL_OK) {
        return err;
    }
    set_timeouts(transfer, call);
    set_refreshing(transfer, is_refreshing);
    sl_task_name_format(call->task, name);
    snprintf(transfer->id_line, sizeof(transfer->id_line), "X-Client-Request-Id: %s-%u", name,
             call->attempt);
    transfer->id_header.next = call->provider->http_headers->nodes;
    curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, call->request);
    curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->request_bytes);
    transfer->header_bytes = 0;
    transfer->has_asked = false;
    transfer->is_oversized = false;
    transfer->is_out_of_memory = false;
    transfer->error_text[0] = '\0';
    return SL_OK;
}

/* ---- the end --------------------------------------------------------------------------------- */

static const struct {
    CURLcode code;
    enum sl_err before; /* nothing of the request was sent */
    enum sl_err after;
} meanings[] = {
    {CURLE_OK, SL_OK, SL_OK},
    {CURLE_COULDNT_RESOLVE_HOST, SL_ERR_RESOLVE, SL_ERR_RESOLVE},
    {CURLE_COULDNT_RESOLVE_PROXY, SL_ERR_RESOLVE, SL_ERR_RESOLVE},
    {CURLE_COULDNT_CONNECT, SL_ERR_CONNECT, SL_ERR_CONNECT},
    {CURLE_SSL_CONNECT_ERROR, SL_ERR_TLS, SL_ERR_TLS},
    {CURLE_PEER_FAILED_VERIFICATION, SL_ERR_TLS, SL_ERR_TLS},
    {CURLE_SSL_CACERT_BADFILE, SL_ERR_TLS, SL_ERR_TLS},
    {CURLE_SSL_CIPHER, SL_ERR_TLS, SL_ERR_TLS},
    {CURLE_SSL_ISSUER_ERROR, SL_ERR_TLS, SL_ERR_TLS},
    {CURLE_SSL_INVALIDCERTSTATUS, SL_ERR_TLS, SL_ERR_TLS},
    {CURLE_SSL_PINNEDPUBKEYNOTMATCH, SL_ERR_TLS, SL_ERR_TLS},
    {CURLE_OPERATION_TIMEDOUT, SL_ERR_CONNECT_TIMEOUT, SL_ERR_TIMEOUT},
    {CURLE_PARTIAL_FILE, SL_ERR_TRUNCATED, SL_ERR_TRUNCATED},
    {CURLE_BAD_CONTENT_ENCODING, SL_ERR_RESPONSE_INVALID, SL_ERR_RESPONSE_INVALID},
    {CURLE_WEIRD_SERVER_REPLY, SL_ERR_RESPONSE_INVALID, SL_ERR_RESPONSE_INVALID},
    {CURLE_UNSUPPORTED_PROTOCOL, SL_ERR_CONNECT, SL_ERR_RESPONSE_INVALID}, /* HTTP/0.9 */
    {CURLE_URL_MALFORMAT, SL_ERR_CONNECT, SL_ERR_CONNECT},
};

static enum sl_err meaning_of(CURLcode code, bool is_sent)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(meanings); i++) {
        if (meanings[i].code == code) {
            return is_sent ? meanings[i].after : meanings[i].before;
        }
    }
    return is_sent ? SL_ERR_RESET : SL_ERR_CONNECT;
}

static void put_error(struct sl_transfer *transfer, CURLcode code)
{
    struct sl_answer *answer = &transfer->call->answer;
    const char *text = transfer->error_text;

    answer->transport = meaning_of(code, answer->is_sent);
    if (transfer->is_oversized) {
        answer->transport = SL_ERR_RESPONSE_TOO_LARGE;
        text = transfer->header_bytes > SL_RESPONSE_HEADER_BYTES_MAX ? "headers over 64 KiB" : "";
    } else if (transfer->is_out_of_memory) {
        answer->transport = SL_ERR_RESET;
        text = "the worker has no memory for the answer";
    } else if (code == CURLE_ABORTED_BY_CALLBACK) {
        text = "the kept connection broke before the answer";
    } else if (text[0] == '\0') {
        text = curl_easy_strerror(code);
    }
    sl_text_cut(answer->message, sizeof(answer->message), sl_span_str(text));
}

void sl_transfer_collect(struct sl_transfer *transfer, CURLcode code)
{
    struct sl_answer *answer = &transfer->call->answer;
    curl_off_t total_us = 0;
    curl_off_t first_byte_us = 0;
    long status = 0;

    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(transfer->easy, CURLINFO_TOTAL_TIME_T, &total_us);
    curl_easy_getinfo(transfer->easy, CURLINFO_STARTTRANSFER_TIME_T, &first_byte_us);
    answer->http_status = status > 0 && status < 1000 ? (uint32_t)status : 0;
    answer->call_ns = (int64_t)total_us * 1000;
    answer->first_byte_ns = (int64_t)first_byte_us * 1000;
    answer->is_sent = has_sent(transfer->easy);
    answer->transport = SL_OK;
    if (code != CURLE_OK) {
        put_error(transfer, code);
    } else if (answer->http_status == 0) {
        answer->transport = SL_ERR_RESPONSE_INVALID;
    }
}
