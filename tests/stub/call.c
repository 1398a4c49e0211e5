/*
 * Reads a request into a call and makes the checks that depend on nothing but the request and the
 * options: path, method, key, client's request id, body, markers.
 *
 * Runs in sluice-stub only, on every event loop, without a lock. Keeps no state, never answers: a
 * call that fails a check carries its refusal and OpenAI's error to the desk. Of what a client may
 * send wrong it names the first thing. Nothing survives the process.
 */
#include "tests/stub/call.h"

#define CLIENT_ID_BYTES_MAX 512 /* OpenAI refuses longer ones */

static const struct sl_stub_error refusal_errors[SL_STUB_REFUSAL_COUNT] = {
    [SL_STUB_REFUSED_NOT] = {200, NULL, NULL, NULL},
    [SL_STUB_REFUSED_NOT_FOUND] = {404, "invalid_request_error", "unknown_url",
                                   "Unknown request URL."},
    [SL_STUB_REFUSED_METHOD] = {405, "invalid_request_error", "method_not_supported",
                                "Not allowed with this method."},
    [SL_STUB_REFUSED_KEY] = {401, "invalid_request_error", "invalid_api_key",
                             "Incorrect API key provided."},
    [SL_STUB_REFUSED_BAD_REQUEST] = {400, "invalid_request_error", NULL, "Bad request."},
    [SL_STUB_REFUSED_CONCURRENCY] = {429, "requests", "rate_limit_exceeded",
                                     "Too many requests at the same time."},
    [SL_STUB_REFUSED_RATE] = {429, "requests", "rate_limit_exceeded", "Rate limit reached."},
};

void sl_stub_call_refuse(struct sl_stub_call *call, enum sl_stub_refusal refusal,
                         const char *message)
{
    call->refusal = refusal;
    call->error = refusal_errors[refusal];
    if (message != NULL) {
        call->error.message = message;
    }
}

static const struct {
    const char *path;
    const char *method;
    enum sl_stub_route route;
} routes[] = {
    {"/chat/completions", "POST", SL_STUB_ROUTE_CHAT},
    {"/responses", "POST", SL_STUB_ROUTE_RESPONSES},
    {"/embeddings", "POST", SL_STUB_ROUTE_EMBEDDINGS},
    {"/models", "GET", SL_STUB_ROUTE_MODELS},
    {"/stub/stats", "GET", SL_STUB_ROUTE_STATS},
};

static void find_route(struct sl_stub_call *call)
{
    struct sl_span path = call->path;
    const char *query = memchr(path.ptr, '?', path.len);

    if (query != NULL) {
        path.len = (size_t)(query - path.ptr);
    }
    if (path.len > 3 && memcmp(path.ptr, "/v1/", 4) == 0) {
        path = sl_span_of(path.ptr + 3, path.len - 3);
    }
    for (size_t i = 0; i < SL_ARRAY_LEN(routes); i++) {
        if (!sl_span_equal(path, sl_span_str(routes[i].path))) {
            continue;
        }
        if (!sl_span_equal(call->method, sl_span_str(routes[i].method))) {
            sl_stub_call_refuse(call, SL_STUB_REFUSED_METHOD, NULL);
            return;
        }
        call->route = routes[i].route;
        return;
    }
    sl_stub_call_refuse(call, SL_STUB_REFUSED_NOT_FOUND, NULL);
}

static void check_key(const struct sl_stub_options *options, struct sl_stub_call *call)
{
    struct sl_span value = call->authorization;

    if (options->require_key == NULL || call->route == SL_STUB_ROUTE_STATS) {
        return;
    }
    if (value.len < 7 || memcmp(value.ptr, "Bearer ", 7) != 0 ||
        !sl_span_equal(sl_span_of(value.ptr + 7, value.len - 7),
                       sl_span_str(options->require_key))) {
        sl_stub_call_refuse(call, SL_STUB_REFUSED_KEY, NULL);
    }
}

static void check_client_id(struct sl_stub_call *call)
{
    bool is_ascii = true;

    for (size_t i = 0; i < call->client_id.len; i++) {
        is_ascii = is_ascii && call->client_id.ptr[i] >= ' ' && call->client_id.ptr[i] <= '~';
    }
    if (!is_ascii || call->client_id.len > CLIENT_ID_BYTES_MAX) {
        sl_stub_call_refuse(call, SL_STUB_REFUSED_BAD_REQUEST,
                            "X-Client-Request-Id is not ASCII of at most 512 bytes");
    }
}

static const char *question_complaint(const struct sl_stub_question *question)
{
    if (question->model.len == 0) {
        return "you must provide a model parameter";
    }
    if (!question->has_input) {
        return "Missing required parameter: messages or input";
    }
    return question->is_stream ? "stream: true is not supported by this stub" : NULL;
}

static void check_body(struct sl_stub_call *call)
{
    const char *complaint;

    if (call->route == SL_STUB_ROUTE_MODELS || call->route == SL_STUB_ROUTE_STATS) {
        return;
    }
    complaint = sl_stub_question_read(call->body, &call->question);
    if (complaint == NULL) {
        complaint = question_complaint(&call->question);
    }
    if (complaint == NULL) {
        complaint = sl_stub_wish_read(call->question.text, &call->wish);
    }
    if (complaint != NULL) {
        sl_stub_call_refuse(call, SL_STUB_REFUSED_BAD_REQUEST, complaint);
    }
}

static void fill_call(struct sl_stub_call *call, const struct sl_stub_request *request)
{
    const struct sl_stub_http *http = request->http;

    memset(call, 0, sizeof(*call));
    call->request = request;
    call->method = sl_stub_place_span(request->buf, http->method);
    call->path = sl_stub_place_span(request->buf, http->path);
    call->authorization = sl_stub_place_span(request->buf, http->authorization);
    call->client_id = sl_stub_place_span(request->buf, http->client_id);
    call->body = sl_stub_place_span(request->buf, http->body);
    call->fault = (struct sl_stub_fault){SL_STUB_OK, 200};
    (void)sl_stub_wish_read(sl_span_of("", 0), &call->wish);
}

void sl_stub_call_read(const struct sl_stub_options *options, const struct sl_stub_request *request,
                       struct sl_stub_call *call)
{
    fill_call(call, request);
    if (request->http->stage == SL_STUB_HTTP_BAD) {
        sl_stub_call_refuse(call, SL_STUB_REFUSED_BAD_REQUEST, request->http->bad_reason);
        call->error.status = request->http->bad_status;
        return;
    }
    call->body_hash = sl_stub_fnv(call->body);
    find_route(call);
    if (call->refusal == SL_STUB_REFUSED_NOT) {
        check_key(options, call);
    }
    if (call->refusal == SL_STUB_REFUSED_NOT) {
        check_client_id(call);
    }
    if (call->refusal == SL_STUB_REFUSED_NOT) {
        check_body(call);
    }
}
