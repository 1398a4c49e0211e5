/*
 * Where the stub decides: route, checks, limits, fate, log, statistics.
 *
 * Runs in sluice-stub only, on every event loop; one lock guards limiter, attempts, log and
 * counters, and is never held while an answer is written. A call is logged and counted when it is
 * decided, before its first byte goes out, so that the log holds every call a client may have been
 * billed for. It never drops a request silently: what it refuses it answers, with OpenAI's error
 * body. Only the log file survives the process.
 */
#include "tests/stub/desk.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/limits.h"
#include "tests/stub/attempts.h"
#include "tests/stub/journal.h"

#define CLIENT_ID_BYTES_MAX 512 /* OpenAI refuses longer ones */
#define STATUS_COUNT 600
#define STREAM_FAILURE 0
#define STREAM_JITTER 1

/* What was done to a call, for log and statistics: a kind, or one of these. */
enum refusal {
    REFUSED_NOT,
    REFUSED_NOT_FOUND,
    REFUSED_METHOD,
    REFUSED_KEY,
    REFUSED_BAD_REQUEST,
    REFUSED_CONCURRENCY,
    REFUSED_RATE,
    REFUSAL_COUNT
};

static const char *const refusal_words[REFUSAL_COUNT] = {
    [REFUSED_NOT] = "",
    [REFUSED_NOT_FOUND] = "not_found",
    [REFUSED_METHOD] = "not_found",
    [REFUSED_KEY] = "unauthorized",
    [REFUSED_BAD_REQUEST] = "bad_request",
    [REFUSED_CONCURRENCY] = "concurrency",
    [REFUSED_RATE] = "rate_limited",
};

static const struct sl_stub_error refusal_errors[REFUSAL_COUNT] = {
    [REFUSED_NOT] = {200, NULL, NULL, NULL},
    [REFUSED_NOT_FOUND] = {404, "invalid_request_error", "unknown_url", "Unknown request URL."},
    [REFUSED_METHOD] = {405, "invalid_request_error", "method_not_supported",
                        "Not allowed with this method."},
    [REFUSED_KEY] = {401, "invalid_request_error", "invalid_api_key",
                     "Incorrect API key provided."},
    [REFUSED_BAD_REQUEST] = {400, "invalid_request_error", NULL, "Bad request."},
    [REFUSED_CONCURRENCY] = {429, "requests", "rate_limit_exceeded",
                             "Too many requests at the same time."},
    [REFUSED_RATE] = {429, "requests", "rate_limit_exceeded", "Rate limit reached."},
};

struct sl_stub_desk {
    const struct sl_stub_options *options;
    bool counts_attempts; /* for every body; else only for those with fail_times */
    pthread_mutex_t lock; /* guards all below */
    struct sl_stub_journal journal;
    struct sl_stub_attempts attempts;
    struct sl_stub_limiter limiter;
    uint64_t seq;
    uint64_t admitted; /* calls past all checks: what --fail-first counts */
    uint64_t in_flight;
    uint64_t in_flight_max;
    uint64_t abandoned;
    uint64_t connections_open;
    uint64_t connections_total;
    uint64_t by_status[STATUS_COUNT];
    uint64_t by_kind[SL_STUB_KIND_COUNT];
    uint64_t by_refusal[REFUSAL_COUNT];
};

/* One call while it is decided. */
struct call {
    const struct sl_stub_request *request;
    struct sl_span method;
    struct sl_span path;
    struct sl_span authorization;
    struct sl_span client_id;
    struct sl_span body;
    uint64_t body_hash;
    enum sl_stub_route route;
    struct sl_stub_question question;
    struct sl_stub_wish wish;
    enum refusal refusal;
    struct sl_stub_error error; /* of the refusal */
    struct sl_stub_verdict verdict;
    struct sl_stub_fault fault;
    uint64_t seq;
    uint32_t attempt;
    int64_t delay_ns;
    bool is_counted;
};

/* ---- life ------------------------------------------------------------------------------------ */

struct sl_stub_desk *sl_stub_desk_open(const struct sl_stub_options *options)
{
    struct sl_stub_desk *desk = calloc(1, sizeof(*desk));

    if (desk == NULL) {
        return NULL;
    }
    if (sl_stub_journal_open(&desk->journal, options->log_file) != SL_OK) {
        free(desk);
        return NULL;
    }
    desk->options = options;
    desk->counts_attempts =
        options->odds_count > 0 || options->jitter_ns > 0 || options->log_file != NULL;
    sl_stub_limiter_init(&desk->limiter, options->rpm, options->tpm);
    SL_ASSERT(pthread_mutex_init(&desk->lock, NULL) == 0);
    return desk;
}

void sl_stub_desk_close(struct sl_stub_desk **desk)
{
    sl_stub_journal_close(&(*desk)->journal);
    sl_stub_attempts_fini(&(*desk)->attempts);
    pthread_mutex_destroy(&(*desk)->lock);
    free(*desk);
    *desk = NULL;
}

static void lock_desk(struct sl_stub_desk *desk)
{
    SL_ASSERT(pthread_mutex_lock(&desk->lock) == 0);
}

static void unlock_desk(struct sl_stub_desk *desk)
{
    SL_ASSERT(pthread_mutex_unlock(&desk->lock) == 0);
}

/* ---- checks that need no lock ---------------------------------------------------------------- */

static void refuse(struct call *call, enum refusal refusal, const char *message)
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

static void find_route(struct call *call)
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
            refuse(call, REFUSED_METHOD, NULL);
            return;
        }
        call->route = routes[i].route;
        return;
    }
    refuse(call, REFUSED_NOT_FOUND, NULL);
}

static void check_key(const struct sl_stub_options *options, struct call *call)
{
    struct sl_span value = call->authorization;

    if (options->require_key == NULL || call->route == SL_STUB_ROUTE_STATS) {
        return;
    }
    if (value.len < 7 || memcmp(value.ptr, "Bearer ", 7) != 0 ||
        !sl_span_equal(sl_span_of(value.ptr + 7, value.len - 7),
                       sl_span_str(options->require_key))) {
        refuse(call, REFUSED_KEY, NULL);
    }
}

static void check_client_id(struct call *call)
{
    bool is_ascii = true;

    for (size_t i = 0; i < call->client_id.len; i++) {
        is_ascii = is_ascii && call->client_id.ptr[i] >= ' ' && call->client_id.ptr[i] <= '~';
    }
    if (!is_ascii || call->client_id.len > CLIENT_ID_BYTES_MAX) {
        refuse(call, REFUSED_BAD_REQUEST, "X-Client-Request-Id is not ASCII of at most 512 bytes");
    }
}

static void check_body(struct call *call)
{
    const char *complaint;

    if (call->route == SL_STUB_ROUTE_MODELS || call->route == SL_STUB_ROUTE_STATS) {
        return;
    }
    complaint = sl_stub_question_read(call->body, &call->question);
    if (complaint == NULL && call->question.model.len == 0) {
        complaint = "you must provide a model parameter";
    } else if (complaint == NULL && !call->question.has_input) {
        complaint = "Missing required parameter: messages or input";
    } else if (complaint == NULL && call->question.is_stream) {
        complaint = "stream: true is not supported by this stub";
    }
    if (complaint == NULL) {
        complaint = sl_stub_wish_read(call->question.text, &call->wish);
    }
    if (complaint != NULL) {
        refuse(call, REFUSED_BAD_REQUEST, complaint);
    }
}

static void read_call(const struct sl_stub_options *options, struct call *call,
                      const struct sl_stub_request *request)
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
    if (http->stage == SL_STUB_HTTP_BAD) {
        refuse(call, REFUSED_BAD_REQUEST, http->bad_reason);
        call->error.status = http->bad_status;
        return;
    }
    call->body_hash = sl_stub_fnv(call->body);
    find_route(call);
    if (call->refusal == REFUSED_NOT) {
        check_key(options, call);
    }
    if (call->refusal == REFUSED_NOT) {
        check_client_id(call);
    }
    if (call->refusal == REFUSED_NOT) {
        check_body(call);
    }
}

/* ---- decisions under the lock ---------------------------------------------------------------- */

static void check_limits(struct sl_stub_desk *desk, struct call *call)
{
    uint64_t tokens = SL_MAX((call->body.len + 3) / 4, call->question.max_tokens);
    int64_t concurrent_max = desk->options->concurrent_max;

    if (concurrent_max > 0 && desk->in_flight >= (uint64_t)concurrent_max) {
        refuse(call, REFUSED_CONCURRENCY, NULL);
        return;
    }
    sl_stub_limiter_take(&desk->limiter, sl_stub_fnv(call->authorization), tokens,
                         call->request->now.mono_ns, &call->verdict);
    if (!call->verdict.is_allowed) {
        refuse(call, REFUSED_RATE, NULL);
    }
}

static struct sl_stub_fault pick_fault(const struct sl_stub_desk *desk, const struct call *call)
{
    const struct sl_stub_options *options = desk->options;
    const struct sl_stub_wish *wish = &call->wish;
    bool is_wished = wish->has_fault && (wish->fail_times == SL_STUB_UNSET ||
                                         (int64_t)call->attempt < wish->fail_times);

    if (is_wished) {
        return wish->fault;
    }
    if (!wish->has_fault && desk->admitted < (uint64_t)options->fail_first) {
        return options->first_fault;
    }
    if (wish->has_fault || options->odds_count == 0) {
        return (struct sl_stub_fault){SL_STUB_OK, 200};
    }
    return sl_stub_odds_pick(
        options->odds, options->odds_count,
        sl_stub_draw(options->seed, call->body_hash, call->attempt, STREAM_FAILURE));
}

static int64_t pick_delay(const struct sl_stub_options *options, const struct call *call)
{
    if (call->wish.latency_ms != SL_STUB_UNSET) {
        return call->wish.latency_ms * SL_NS_PER_MS;
    }
    if (options->jitter_ns == 0) {
        return options->latency_ns;
    }
    double share = sl_stub_draw(options->seed, call->body_hash, call->attempt, STREAM_JITTER);
    return options->latency_ns + (int64_t)(share * (double)options->jitter_ns);
}

/* A call that passed every check: its attempt, fate and delay. */
static void admit(struct sl_stub_desk *desk, struct call *call)
{
    if (desk->counts_attempts || call->wish.fail_times != SL_STUB_UNSET) {
        call->attempt = sl_stub_attempts_count(&desk->attempts, call->body_hash);
    }
    call->fault = pick_fault(desk, call);
    call->delay_ns = pick_delay(desk->options, call);
    call->is_counted = true;
    desk->admitted++;
    desk->in_flight++;
    desk->in_flight_max = SL_MAX(desk->in_flight_max, desk->in_flight);
}

static int status_of(const struct call *call)
{
    return call->refusal != REFUSED_NOT ? call->error.status : call->fault.status;
}

static void write_log(struct sl_stub_desk *desk, const struct call *call)
{
    struct sl_stub_text *line = sl_stub_journal_text(&desk->journal);

    if (desk->journal.fd < 0) {
        return;
    }
    sl_stub_put_str(line, "{\"t_ns\":");
    sl_stub_put_uint(line, (uint64_t)call->request->now.mono_ns);
    sl_stub_put_str(line, ",\"seq\":");
    sl_stub_put_uint(line, call->seq);
    sl_stub_put_str(line, ",\"method\":\"");
    sl_stub_put_quoted(line, call->method);
    sl_stub_put_str(line, "\",\"path\":\"");
    sl_stub_put_quoted(line, call->path);
    sl_stub_put_str(line, "\",\"model\":\"");
    sl_stub_put_quoted(line, call->question.model);
    sl_stub_put_str(line, "\",\"body_fnv\":\"");
    sl_stub_put_hex(line, call->body_hash);
    sl_stub_put_str(line, "\",\"body_bytes\":");
    sl_stub_put_uint(line, call->body.len);
    sl_stub_put_str(line, ",\"client_request_id\":\"");
    sl_stub_put_quoted(line, call->client_id);
    sl_stub_put_str(line, "\",\"attempt\":");
    sl_stub_put_uint(line, call->attempt);
    sl_stub_put_str(line, ",\"status\":");
    sl_stub_put_uint(line, (uint64_t)status_of(call));
    sl_stub_put_str(line, ",\"behaviour\":\"");
    sl_stub_put_str(line, call->refusal != REFUSED_NOT ? refusal_words[call->refusal]
                                                       : sl_stub_kind_word(call->fault.kind));
    sl_stub_put_str(line, "\"}\n");
    sl_stub_journal_added(&desk->journal, call->request->now.mono_ns);
}

static void decide(struct sl_stub_desk *desk, struct call *call)
{
    lock_desk(desk);
    call->seq = ++desk->seq;
    if (call->refusal == REFUSED_NOT && call->route != SL_STUB_ROUTE_MODELS) {
        check_limits(desk, call);
    }
    if (call->refusal == REFUSED_NOT) {
        admit(desk, call);
        desk->by_kind[call->fault.kind]++;
    } else {
        desk->by_refusal[call->refusal]++;
    }
    desk->by_status[status_of(call)]++;
    write_log(desk, call);
    unlock_desk(desk);
}

/* ---- answers --------------------------------------------------------------------------------- */

static int64_t retry_after_of(const struct sl_stub_desk *desk, const struct call *call)
{
    int status = status_of(call);

    if (call->refusal == REFUSED_RATE) {
        return (call->verdict.retry_after_ns + SL_NS_PER_MS - 1) / SL_NS_PER_MS;
    }
    if (call->refusal != REFUSED_NOT || call->fault.kind == SL_STUB_QUOTA) {
        return SL_STUB_UNSET;
    }
    if (call->wish.retry_after_ms != SL_STUB_UNSET) {
        return status >= 400 ? call->wish.retry_after_ms : SL_STUB_UNSET;
    }
    return status == 429 || status == 503 ? desk->options->retry_after_ms : SL_STUB_UNSET;
}

static size_t text_bytes_of(const struct sl_stub_options *options, const struct call *call)
{
    if (call->fault.kind == SL_STUB_HUGE) {
        return SL_RESPONSE_BYTES_MAX + SL_MIB;
    }
    return call->wish.bytes != SL_STUB_UNSET ? (size_t)call->wish.bytes : options->response_bytes;
}

static void shape_delivery(const struct sl_stub_desk *desk, const struct call *call,
                           size_t head_len, size_t len, struct sl_stub_delivery *out)
{
    const struct sl_stub_wish *wish = &call->wish;
    enum sl_stub_kind kind = call->fault.kind;
    bool is_cut = kind == SL_STUB_TRUNCATE || kind == SL_STUB_CUTRESET || kind == SL_STUB_STALL;

    sl_stub_delivery_shape(out, kind, head_len, len);
    if (is_cut && wish->cut_at != SL_STUB_UNSET) {
        out->send_bytes = SL_MIN((size_t)wish->cut_at, len);
    }
    if (kind == SL_STUB_SLOW || kind == SL_STUB_SLOWHEAD) {
        out->piece_bytes =
            wish->slow_bytes > 0 ? (size_t)wish->slow_bytes : desk->options->slow_bytes;
        out->piece_ns = SL_NS_PER_MS *
                        (wish->slow_ms != SL_STUB_UNSET ? wish->slow_ms : desk->options->slow_ms);
        out->first_bytes = (kind == SL_STUB_SLOW ? head_len : 0) + out->piece_bytes;
    }
    out->delay_ns = call->delay_ns;
    out->is_counted = call->is_counted;
}

static void write_answer(struct sl_stub_desk *desk, const struct call *call,
                         struct sl_stub_text *out, struct sl_stub_delivery *delivery)
{
    const struct sl_stub_http *http = call->request->http;
    struct sl_stub_text *body = call->request->scratch;
    struct sl_stub_error room;
    struct sl_stub_reply reply = {
        .kind = call->fault.kind,
        .status = status_of(call),
        .route = call->route,
        .error = call->refusal != REFUSED_NOT ? &call->error : sl_stub_error_of(call->fault, &room),
        .question = &call->question,
        .verdict = call->refusal != REFUSED_CONCURRENCY ? &call->verdict : NULL,
        .request_bytes = call->body.len,
        .body_hash = call->body_hash,
        .seq = call->seq,
        .created_s = call->request->now.wall_ns / SL_NS_PER_S,
        .processing_ms = call->delay_ns / SL_NS_PER_MS,
        .retry_after_ms = retry_after_of(desk, call),
        .tokens = call->wish.tokens,
        .text_bytes = text_bytes_of(desk->options, call),
        .redirect_to = desk->options->redirect_to,
        .is_echo_full = desk->options->is_echo_full,
        .is_chunked = desk->options->is_chunked,
        .is_closing = !http->is_keep_alive || http->stage == SL_STUB_HTTP_BAD,
    };

    sl_stub_answer_body(&reply, body);
    size_t head_len = sl_stub_answer_write(&reply, sl_span_of(body->buf, body->len), out);
    *delivery =
        (struct sl_stub_delivery){.end = reply.is_closing ? SL_STUB_END_CLOSE : SL_STUB_END_KEEP};
    shape_delivery(desk, call, head_len, out->len, delivery);
}

/* ---- statistics ------------------------------------------------------------------------------ */

static void put_stat(struct sl_stub_text *out, const char *name, uint64_t value)
{
    sl_stub_put_str(out, out->buf[out->len - 1] == '{' ? "\"" : ",\"");
    sl_stub_put_str(out, name);
    sl_stub_put_str(out, "\":");
    sl_stub_put_uint(out, value);
}

static void put_by_status(struct sl_stub_text *out, const struct sl_stub_desk *desk)
{
    sl_stub_put_str(out, ",\"by_status\":{");
    for (size_t i = 0; i < STATUS_COUNT; i++) {
        if (desk->by_status[i] > 0) {
            char name[4] = {(char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10),
                            '\0'};
            put_stat(out, i == 0 ? "0" : name, desk->by_status[i]);
        }
    }
    sl_stub_put_str(out, "},\"by_behaviour\":{");
    for (size_t i = 0; i < SL_STUB_KIND_COUNT; i++) {
        if (desk->by_kind[i] > 0) {
            put_stat(out, sl_stub_kind_word((enum sl_stub_kind)i), desk->by_kind[i]);
        }
    }
    put_stat(out, "not_found",
             desk->by_refusal[REFUSED_NOT_FOUND] + desk->by_refusal[REFUSED_METHOD]);
    for (size_t i = REFUSED_KEY; i < REFUSAL_COUNT; i++) {
        put_stat(out, refusal_words[i], desk->by_refusal[i]);
    }
    sl_stub_put_str(out, "}");
}

static void write_stats(struct sl_stub_desk *desk, const struct sl_stub_request *request,
                        struct sl_stub_text *out, struct sl_stub_delivery *delivery)
{
    struct sl_stub_text *body = request->scratch;
    struct sl_stub_reply reply = {
        .status = 200,
        .created_s = request->now.wall_ns / SL_NS_PER_S,
        .retry_after_ms = SL_STUB_UNSET,
        .is_closing = !request->http->is_keep_alive,
    };

    body->len = 0;
    sl_stub_put_str(body, "{");
    lock_desk(desk);
    put_stat(body, "requests", desk->seq);
    put_stat(body, "in_flight", desk->in_flight);
    put_stat(body, "max_in_flight", desk->in_flight_max);
    put_stat(body, "abandoned", desk->abandoned);
    put_stat(body, "connections", desk->connections_total);
    put_stat(body, "connections_open", desk->connections_open);
    put_by_status(body, desk);
    unlock_desk(desk);
    sl_stub_put_str(body, "}");
    (void)sl_stub_answer_write(&reply, sl_span_of(body->buf, body->len), out);
    *delivery = (struct sl_stub_delivery){
        .send_bytes = out->len,
        .end = reply.is_closing ? SL_STUB_END_CLOSE : SL_STUB_END_KEEP,
    };
}

void sl_stub_desk_answer(struct sl_stub_desk *desk, const struct sl_stub_request *request,
                         struct sl_stub_text *out, struct sl_stub_delivery *delivery)
{
    struct call call;

    read_call(desk->options, &call, request);
    if (call.refusal == REFUSED_NOT && call.route == SL_STUB_ROUTE_STATS) {
        write_stats(desk, request, out, delivery);
        return;
    }
    decide(desk, &call);
    write_answer(desk, &call, out, delivery);
}

void sl_stub_desk_finish(struct sl_stub_desk *desk, bool is_abandoned)
{
    lock_desk(desk);
    SL_ASSERT(desk->in_flight > 0);
    desk->in_flight--;
    desk->abandoned += is_abandoned;
    unlock_desk(desk);
}

void sl_stub_desk_connected(struct sl_stub_desk *desk)
{
    lock_desk(desk);
    desk->connections_open++;
    desk->connections_total++;
    unlock_desk(desk);
}

void sl_stub_desk_disconnected(struct sl_stub_desk *desk)
{
    lock_desk(desk);
    desk->connections_open--;
    unlock_desk(desk);
}

int sl_stub_desk_tick(struct sl_stub_desk *desk, int64_t now_ns, int max_ms)
{
    lock_desk(desk);
    int wait_ms = sl_stub_journal_tick(&desk->journal, now_ns, max_ms);
    unlock_desk(desk);
    return wait_ms;
}

void sl_stub_desk_flush(struct sl_stub_desk *desk)
{
    lock_desk(desk);
    sl_stub_journal_flush(&desk->journal);
    unlock_desk(desk);
}
