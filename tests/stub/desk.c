/*
 * Where the stub decides: limits, fate, log, statistics.
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
#include "tests/stub/call.h"
#include "tests/stub/journal.h"
#include "tests/stub/stats.h"

#define STREAM_FAILURE 0
#define STREAM_JITTER 1

struct sl_stub_desk {
    const struct sl_stub_options *options;
    bool counts_attempts; /* for every body; else only for those with fail_times */
    pthread_mutex_t lock; /* guards all below */
    struct sl_stub_journal journal;
    struct sl_stub_attempts attempts;
    struct sl_stub_limiter limiter;
    uint64_t admitted; /* calls past all checks: what --fail-first counts */
    struct sl_stub_stats stats;
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

/* ---- decisions under the lock ---------------------------------------------------------------- */

static void check_limits(struct sl_stub_desk *desk, struct sl_stub_call *call)
{
    uint64_t tokens = SL_MAX((call->body.len + 3) / 4, call->question.max_tokens);
    int64_t concurrent_max = desk->options->concurrent_max;

    if (concurrent_max > 0 && desk->stats.in_flight >= (uint64_t)concurrent_max) {
        sl_stub_call_refuse(call, SL_STUB_REFUSED_CONCURRENCY, NULL);
        return;
    }
    sl_stub_limiter_take(&desk->limiter, sl_stub_fnv(call->authorization), tokens,
                         call->request->now.mono_ns, &call->verdict);
    if (!call->verdict.is_allowed) {
        sl_stub_call_refuse(call, SL_STUB_REFUSED_RATE, NULL);
    }
}

static struct sl_stub_fault pick_fault(const struct sl_stub_desk *desk,
                                       const struct sl_stub_call *call)
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

static int64_t pick_delay(const struct sl_stub_options *options, const struct sl_stub_call *call)
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
static void admit(struct sl_stub_desk *desk, struct sl_stub_call *call)
{
    if (desk->counts_attempts || call->wish.fail_times != SL_STUB_UNSET) {
        call->attempt = sl_stub_attempts_count(&desk->attempts, call->body_hash);
    }
    call->fault = pick_fault(desk, call);
    call->delay_ns = pick_delay(desk->options, call);
    call->is_counted = true;
    desk->admitted++;
    desk->stats.in_flight++;
    desk->stats.in_flight_max = SL_MAX(desk->stats.in_flight_max, desk->stats.in_flight);
}

static int status_of(const struct sl_stub_call *call)
{
    return call->refusal != SL_STUB_REFUSED_NOT ? call->error.status : call->fault.status;
}

static void write_log(struct sl_stub_desk *desk, const struct sl_stub_call *call)
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
    sl_stub_put_str(line, call->refusal != SL_STUB_REFUSED_NOT
                              ? sl_stub_refusal_word(call->refusal)
                              : sl_stub_kind_word(call->fault.kind));
    sl_stub_put_str(line, "\"}\n");
    sl_stub_journal_added(&desk->journal, call->request->now.mono_ns);
}

static void decide(struct sl_stub_desk *desk, struct sl_stub_call *call)
{
    lock_desk(desk);
    call->seq = ++desk->stats.requests;
    if (call->refusal == SL_STUB_REFUSED_NOT && call->route != SL_STUB_ROUTE_MODELS) {
        check_limits(desk, call);
    }
    if (call->refusal == SL_STUB_REFUSED_NOT) {
        admit(desk, call);
        desk->stats.by_kind[call->fault.kind]++;
    } else {
        desk->stats.by_refusal[call->refusal]++;
    }
    desk->stats.by_status[status_of(call)]++;
    write_log(desk, call);
    unlock_desk(desk);
}

/* ---- answers --------------------------------------------------------------------------------- */

static int64_t retry_after_of(const struct sl_stub_desk *desk, const struct sl_stub_call *call)
{
    int status = status_of(call);

    if (call->refusal == SL_STUB_REFUSED_RATE) {
        return (call->verdict.retry_after_ns + SL_NS_PER_MS - 1) / SL_NS_PER_MS;
    }
    if (call->refusal != SL_STUB_REFUSED_NOT || call->fault.kind == SL_STUB_QUOTA) {
        return SL_STUB_UNSET;
    }
    if (call->wish.retry_after_ms != SL_STUB_UNSET) {
        return status >= 400 ? call->wish.retry_after_ms : SL_STUB_UNSET;
    }
    return status == 429 || status == 503 ? desk->options->retry_after_ms : SL_STUB_UNSET;
}

static size_t text_bytes_of(const struct sl_stub_options *options, const struct sl_stub_call *call)
{
    if (call->fault.kind == SL_STUB_HUGE) {
        return SL_RESPONSE_BYTES_MAX + SL_MIB;
    }
    return call->wish.bytes != SL_STUB_UNSET ? (size_t)call->wish.bytes : options->response_bytes;
}

/* Pieces of kinds slow and slowhead. */
static void shape_pieces(const struct sl_stub_desk *desk, const struct sl_stub_call *call,
                         size_t head_len, struct sl_stub_delivery *out)
{
    const struct sl_stub_wish *wish = &call->wish;
    int64_t slow_ms = wish->slow_ms != SL_STUB_UNSET ? wish->slow_ms : desk->options->slow_ms;

    out->piece_bytes = wish->slow_bytes > 0 ? (size_t)wish->slow_bytes : desk->options->slow_bytes;
    out->piece_ns = slow_ms * SL_NS_PER_MS;
    out->first_bytes = (call->fault.kind == SL_STUB_SLOW ? head_len : 0) + out->piece_bytes;
}

static void shape_delivery(const struct sl_stub_desk *desk, const struct sl_stub_call *call,
                           size_t head_len, size_t len, struct sl_stub_delivery *out)
{
    enum sl_stub_kind kind = call->fault.kind;
    bool is_cut = kind == SL_STUB_TRUNCATE || kind == SL_STUB_CUTRESET || kind == SL_STUB_STALL;

    sl_stub_delivery_shape(out, kind, head_len, len);
    if (is_cut && call->wish.cut_at != SL_STUB_UNSET) {
        out->send_bytes = SL_MIN((size_t)call->wish.cut_at, len);
    }
    if (kind == SL_STUB_SLOW || kind == SL_STUB_SLOWHEAD) {
        shape_pieces(desk, call, head_len, out);
    }
    out->delay_ns = call->delay_ns;
    out->is_counted = call->is_counted;
}

static void write_answer(struct sl_stub_desk *desk, const struct sl_stub_call *call,
                         struct sl_stub_text *out, struct sl_stub_delivery *delivery)
{
    const struct sl_stub_http *http = call->request->http;
    struct sl_stub_text *body = call->request->scratch;
    struct sl_stub_error room;
    struct sl_stub_reply reply = {
        .kind = call->fault.kind,
        .status = status_of(call),
        .route = call->route,
        .error = call->refusal != SL_STUB_REFUSED_NOT ? &call->error
                                                      : sl_stub_error_of(call->fault, &room),
        .question = &call->question,
        .verdict = call->refusal != SL_STUB_REFUSED_CONCURRENCY ? &call->verdict : NULL,
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
    lock_desk(desk);
    sl_stub_stats_write(&desk->stats, body);
    unlock_desk(desk);
    (void)sl_stub_answer_write(&reply, sl_span_of(body->buf, body->len), out);
    *delivery = (struct sl_stub_delivery){
        .send_bytes = out->len,
        .end = reply.is_closing ? SL_STUB_END_CLOSE : SL_STUB_END_KEEP,
    };
}

void sl_stub_desk_answer(struct sl_stub_desk *desk, const struct sl_stub_request *request,
                         struct sl_stub_text *out, struct sl_stub_delivery *delivery)
{
    struct sl_stub_call call;

    sl_stub_call_read(desk->options, request, &call);
    if (call.refusal == SL_STUB_REFUSED_NOT && call.route == SL_STUB_ROUTE_STATS) {
        write_stats(desk, request, out, delivery);
        return;
    }
    decide(desk, &call);
    write_answer(desk, &call, out, delivery);
}

void sl_stub_desk_finish(struct sl_stub_desk *desk, bool is_abandoned)
{
    lock_desk(desk);
    SL_ASSERT(desk->stats.in_flight > 0);
    desk->stats.in_flight--;
    desk->stats.abandoned += is_abandoned;
    unlock_desk(desk);
}

void sl_stub_desk_connected(struct sl_stub_desk *desk)
{
    lock_desk(desk);
    desk->stats.connections_open++;
    desk->stats.connections_total++;
    unlock_desk(desk);
}

void sl_stub_desk_disconnected(struct sl_stub_desk *desk)
{
    lock_desk(desk);
    desk->stats.connections_open--;
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
