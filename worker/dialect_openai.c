/*
 * The OpenAI-compatible dialect: chat completions, responses, embeddings, as OpenAI, vLLM, Azure's
 * v1, Groq, OpenRouter and many others speak it.
 *
 * Runs in a worker. Pure but for the scanner. Bodies are the provider's and hostile: one strict
 * pass reads them; only what is picked there is used, and it is copied within its bound.
 *
 * A 2xx counts as an answer only when its body is JSON to the last byte and holds no error: proxies
 * cut answers off, and several servers report failures under status 200. Verdicts:
 * SL_ERR_RESPONSE_INVALID, SL_ERR_TRUNCATED, SL_ERR_ANSWER_ERROR, and those of the status.
 */
#include "worker/dialect.h"

#include <stdio.h>
#include <strings.h>

#include "common/check.h"

#define MESSAGE_ROOM 4096 /* a provider's message before it is cut to SL_MESSAGE_BYTES_MAX */
#define CODE_ROOM 96

/* ---- the request ----------------------------------------------------------------------------- */

static enum sl_err put_url(const struct sl_provider_config *provider, enum sl_endpoint endpoint,
                           char *url, size_t size)
{
    int len = snprintf(url, size, "%s%s", provider->base_url, sl_endpoint_path(endpoint));

    return len > 0 && (size_t)len < size ? SL_OK : SL_ERR_CONFIG;
}

/* The empty `Expect:` stops libcurl from asking for "100 Continue" before large bodies, which costs
 * a second with servers that do not know it. */
static enum sl_err put_headers(const char *key, struct sl_header_lines *out)
{
    enum sl_err err = sl_header_add(out, "Content-Type: application/json", "");

    if (err == SL_OK) {
        err = sl_header_add(out, "Accept: application/json", "");
    }
    if (err == SL_OK) {
        err = sl_header_add(out, "Expect:", "");
    }
    if (err == SL_OK && key[0] != '\0') {
        err = sl_header_add(out, "Authorization: Bearer ", key);
    }
    return err;
}

/* Only a body that names "stream" at all is worth a scan. A name hidden behind escapes gets through
 * and fails later, as an answer that is no JSON. */
static enum sl_err check_request(struct sl_json_scanner *scanner, struct sl_call *call)
{
    struct sl_json_pick pick = {.path = "stream"};
    struct sl_json_fault fault;

    if (memmem(call->request, call->request_bytes, "\"stream\"", 8) == NULL) {
        return SL_OK;
    }
    struct sl_span body = sl_span_of(call->request, call->request_bytes);
    if (sl_json_scan(scanner, body, &pick, 1, NULL, &fault) != SL_OK) {
        snprintf(call->answer.message, sizeof(call->answer.message),
                 "the request body is not JSON: byte %zu: %s", fault.offset, fault.reason);
        return SL_ERR_REJECTED;
    }
    if (pick.kind == SL_JSON_BOOL && sl_span_equal(pick.raw, sl_span_str("true"))) {
        snprintf(call->answer.message, sizeof(call->answer.message),
                 "\"stream\": true is not supported; leave it out of the body");
        return SL_ERR_REJECTED;
    }
    return SL_OK;
}

/* ---- the answer ------------------------------------------------------------------------------ */

enum pick_idx {
    PICK_ERROR,
    PICK_ERROR_MESSAGE,
    PICK_ERROR_CODE,
    PICK_ERROR_TYPE,
    PICK_STATUS,
    PICK_PROMPT_TOKENS,
    PICK_COMPLETION_TOKENS,
    PICK_INPUT_TOKENS,
    PICK_OUTPUT_TOKENS,
    PICK_COUNT
};

static const char *const pick_paths[PICK_COUNT] = {
    "error",
    "error.message",
    "error.code",
    "error.type",
    "status",
    "usage.prompt_tokens",
    "usage.completion_tokens",
    "usage.input_tokens",
    "usage.output_tokens",
};

static uint64_t get_tokens(const struct sl_json_pick *first, const struct sl_json_pick *second)
{
    int64_t count;

    if (sl_json_get_int(first, 0, INT64_MAX, &count) == SL_OK ||
        sl_json_get_int(second, 0, INT64_MAX, &count) == SL_OK) {
        return (uint64_t)count;
    }
    return 0;
}

/* A string's text; another value, or a string too long to decode, as it stands. */
static struct sl_span get_text(const struct sl_json_pick *pick, char *buf, size_t size)
{
    size_t len;

    if (pick->kind == SL_JSON_ABSENT || pick->kind == SL_JSON_NULL) {
        return sl_span_of("", 0);
    }
    if (sl_json_get_string(pick, buf, size, &len) == SL_OK) {
        return sl_span_of(buf, len);
    }
    return pick->raw;
}

static void put_error_message(struct sl_call *call, const struct sl_json_pick *picks)
{
    char message[MESSAGE_ROOM];
    char code[CODE_ROOM];
    char text[MESSAGE_ROOM + CODE_ROOM + 8];
    const struct sl_json_pick *source = &picks[PICK_ERROR_MESSAGE];

    if (source->kind == SL_JSON_ABSENT) {
        source = &picks[PICK_ERROR]; /* some servers put a plain string there */
    }
    struct sl_span words = get_text(source, message, sizeof(message));
    struct sl_span name = get_text(&picks[PICK_ERROR_CODE], code, sizeof(code));
    if (name.len == 0) {
        name = get_text(&picks[PICK_ERROR_TYPE], code, sizeof(code));
    }
    words.len = SL_MIN(words.len, (size_t)MESSAGE_ROOM);
    name.len = SL_MIN(name.len, (size_t)CODE_ROOM);
    /* The code first: a long message that is cut must not take it along. */
    int len = name.len == 0 ? snprintf(text, sizeof(text), "%.*s", (int)words.len, words.ptr)
                            : snprintf(text, sizeof(text), "%.*s: %.*s", (int)name.len, name.ptr,
                                       (int)words.len, words.ptr);
    SL_ASSERT(len >= 0);
    sl_text_cut(call->answer.message, sizeof(call->answer.message),
                sl_span_of(text, SL_MIN((size_t)len, sizeof(text) - 1)));
}

/* 429 means "later" but for these: nothing but a payment or a raised limit helps. */
static bool is_billing(const struct sl_json_pick *picks)
{
    static const char *const codes[] = {
        "insufficient_quota",           "billing_hard_limit_reached",
        "credit_balance_exhausted",     "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded", "organization_usage_limit_exceeded",
    };
    char buf[CODE_ROOM];

    for (size_t i = 0; i < SL_ARRAY_LEN(codes); i++) {
        struct sl_span code = get_text(&picks[PICK_ERROR_CODE], buf, sizeof(buf));
        if (sl_span_equal(code, sl_span_str(codes[i]))) {
            return true;
        }
    }
    struct sl_span type = get_text(&picks[PICK_ERROR_TYPE], buf, sizeof(buf));
    return sl_span_equal(type, sl_span_str("insufficient_quota"));
}

/* "x-should-retry" overrides what the status says, as in the provider's own libraries; it cannot
 * make a refused key good. */
static enum sl_err apply_should_retry(const char *should_retry, enum sl_err err)
{
    bool is_retried = sl_err_class(err) == SL_CLASS_RETRY || sl_err_class(err) == SL_CLASS_UNKNOWN;

    if (strcasecmp(should_retry, "true") == 0 && err == SL_ERR_REJECTED) {
        return SL_ERR_PROVIDER_ERROR;
    }
    if (strcasecmp(should_retry, "false") == 0 && is_retried) {
        return SL_ERR_REJECTED;
    }
    return err;
}

static enum sl_err read_refusal(struct sl_call *call, const struct sl_json_pick *picks,
                                bool is_json)
{
    const struct sl_answer *answer = &call->answer;
    bool has_delay = answer->retry_after[0] != '\0' || answer->retry_after_ms[0] != '\0';
    enum sl_err err = sl_status_class(answer->http_status, has_delay);

    if (is_json && picks[PICK_ERROR].kind != SL_JSON_ABSENT) {
        put_error_message(call, picks);
    }
    if (call->answer.message[0] == '\0') {
        snprintf(call->answer.message, sizeof(call->answer.message), "HTTP status %u",
                 answer->http_status);
    }
    if (is_json && err == SL_ERR_RATE_LIMITED && is_billing(picks)) {
        return SL_ERR_BILLING;
    }
    return apply_should_retry(answer->should_retry, err);
}

static bool has_failed_status(const struct sl_call *call, const struct sl_json_pick *status)
{
    return call->endpoint == SL_ENDPOINT_RESPONSES && status->kind == SL_JSON_STRING &&
           (sl_span_equal(status->raw, sl_span_str("\"failed\"")) ||
            sl_span_equal(status->raw, sl_span_str("\"cancelled\"")));
}

static enum sl_err read_success(struct sl_call *call, const struct sl_json_pick *picks)
{
    enum sl_json_kind error_kind = picks[PICK_ERROR].kind;

    call->result.input_tokens = get_tokens(&picks[PICK_PROMPT_TOKENS], &picks[PICK_INPUT_TOKENS]);
    call->result.output_tokens =
        get_tokens(&picks[PICK_COMPLETION_TOKENS], &picks[PICK_OUTPUT_TOKENS]);
    if (error_kind != SL_JSON_ABSENT && error_kind != SL_JSON_NULL) {
        put_error_message(call, picks);
        return SL_ERR_ANSWER_ERROR;
    }
    if (has_failed_status(call, &picks[PICK_STATUS])) {
        snprintf(call->answer.message, sizeof(call->answer.message), "the answer's status is %.*s",
                 (int)picks[PICK_STATUS].raw.len, picks[PICK_STATUS].raw.ptr);
        return SL_ERR_ANSWER_ERROR;
    }
    return SL_OK;
}

static enum sl_err refuse_body(struct sl_call *call, const struct sl_json_fault *fault)
{
    bool is_cut_off = fault->offset >= call->answer.body_bytes && call->answer.body_bytes > 0;

    snprintf(call->answer.message, sizeof(call->answer.message),
             "the body is not JSON: byte %zu of %zu: %s", fault->offset, call->answer.body_bytes,
             fault->reason);
    return is_cut_off ? SL_ERR_TRUNCATED : SL_ERR_RESPONSE_INVALID;
}

static enum sl_err read_answer(struct sl_json_scanner *scanner, struct sl_call *call)
{
    struct sl_json_pick picks[PICK_COUNT] = {0};
    struct sl_json_fault fault;

    for (size_t i = 0; i < PICK_COUNT; i++) {
        picks[i].path = pick_paths[i];
    }
    struct sl_span body = sl_span_of(call->answer.body, call->answer.body_bytes);
    bool is_json = sl_json_scan(scanner, body, picks, PICK_COUNT, NULL, &fault) == SL_OK;
    if (is_json) {
        call->result.flags |= SL_RESULT_BODY_IS_JSON;
    }
    if (sl_status_class(call->answer.http_status, false) != SL_OK) {
        return read_refusal(call, picks, is_json);
    }
    return is_json ? read_success(call, picks) : refuse_body(call, &fault);
}

const struct sl_dialect sl_dialect_openai = {
    .name = "openai",
    .put_url = put_url,
    .put_headers = put_headers,
    .check_request = check_request,
    .read_answer = read_answer,
};
