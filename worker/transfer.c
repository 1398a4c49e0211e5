/*
 * The engine of HTTP calls: a libcurl multi handle, a pool of easy handles, and two rules of our
 * own: a limit on the first byte, and names resolved by one call while the others wait.
 *
 * Runs in a worker, one thread. Never blocks, never logs, never repeats a call. Nothing of it
 * survives the worker: the provider may have taken what was in flight, and the broker's lease
 * records say so.
 *
 * Names: libcurl starts a thread for every lookup. While a provider's name is not known (at the
 * start, after its connections failed) the first call resolves it and the others wait; when its
 * socket is opened all start. A name older than NAME_AGE_NS is renewed by one call while the others
 * go on.
 *
 * Errors: reported in call->answer.transport; SL_ERR_NO_MEMORY at start.
 */
#include "worker/transfer.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "worker/transfer_internal.h"

#define NAME_AGE_NS (300 * SL_NS_PER_S)
#define CONNECTIONS_SPARE 16

/* ---- headers ----------------------------------------------------------------------------------
 */

enum sl_err sl_http_headers_make(const struct sl_header_lines *lines, struct sl_http_headers **out)
{
    struct sl_http_headers *headers = calloc(1, sizeof(*headers));

    if (headers == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    SL_ASSERT(lines->count > 0);
    for (size_t i = 0; i < lines->count; i++) {
        headers->nodes[i].data = lines->lines[i];
        headers->nodes[i].next = i + 1 < lines->count ? &headers->nodes[i + 1] : NULL;
    }
    headers->count = lines->count;
    *out = headers;
    return SL_OK;
}

void sl_http_headers_free(struct sl_http_headers **headers)
{
    free(*headers);
    *headers = NULL;
}

/* ---- open and close ----------------------------------------------------------------------------
 */

static bool environment_has_proxy(void)
{
    static const char *const names[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                        "ALL_PROXY"};

    for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0') {
            return true;
        }
    }
    return false;
}

static bool open_handles(struct sl_transfers *transfers)
{
    if (curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK) {
        return false;
    }
    transfers->multi = curl_multi_init();
    transfers->share = curl_share_init();
    return transfers->multi != NULL && transfers->share != NULL &&
           curl_share_setopt(transfers->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) ==
               CURLSHE_OK;
}

enum sl_err sl_transfers_open(const struct sl_transfers_options *options, struct sl_transfers **out)
{
    struct sl_transfers *transfers = calloc(1, sizeof(*transfers));

    if (transfers == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    transfers->options = *options;
    TAILQ_INIT(&transfers->busy);
    TAILQ_INIT(&transfers->idle);
    TAILQ_INIT(&transfers->ready);
    TAILQ_INIT(&transfers->done);
    transfers->curl_due_ns = INT64_MAX;
    transfers->first_byte_due_ns = INT64_MAX;
    transfers->has_proxy = environment_has_proxy();
    if (!open_handles(transfers)) {
        sl_transfers_close(&transfers);
        return SL_ERR_NO_MEMORY;
    }
    curl_multi_setopt(transfers->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    sl_transfers_set_socket_callbacks(transfers);
    sl_transfers_set_concurrency(transfers, options->concurrency);
    *out = transfers;
    return SL_OK;
}

void sl_transfers_close(struct sl_transfers **transfers_ref)
{
    struct sl_transfers *transfers = *transfers_ref;

    if (transfers == NULL) {
        return;
    }
    sl_transfers_abort_all(transfers, SL_ERR_CANCELLED);
    while (!TAILQ_EMPTY(&transfers->idle)) {
        struct sl_transfer *transfer = TAILQ_FIRST(&transfers->idle);
        TAILQ_REMOVE(&transfers->idle, transfer, link);
        sl_transfer_free(transfer);
    }
    curl_multi_cleanup(transfers->multi);
    curl_share_cleanup(transfers->share);
    free(transfers->sockets);
    free(transfers);
    curl_global_cleanup();
    *transfers_ref = NULL;
}

void sl_transfers_set_concurrency(struct sl_transfers *transfers, uint32_t concurrency)
{
    curl_multi_setopt(transfers->multi, CURLMOPT_MAXCONNECTS,
                      (long)concurrency + CONNECTIONS_SPARE);
}

/* ---- the limit on the first byte ----------------------------------------------------------------
 */

static int64_t first_byte_due(const struct sl_call *call)
{
    return sl_time_add(call->started_ns, call->provider->cfg->first_byte_timeout_ms * SL_NS_PER_MS);
}

static void watch_first_byte(struct sl_transfers *transfers, struct sl_call *call)
{
    if (call->provider->cfg->first_byte_timeout_ms <= 0) {
        return;
    }
    call->is_unanswered = true;
    TAILQ_INSERT_TAIL(&call->provider->unanswered, call, link);
    transfers->first_byte_due_ns = SL_MIN(transfers->first_byte_due_ns, first_byte_due(call));
}

static void unwatch_first_byte(struct sl_call *call)
{
    if (call->is_unanswered) {
        call->is_unanswered = false;
        TAILQ_REMOVE(&call->provider->unanswered, call, link);
    }
}

void sl_transfer_note_first_byte(struct sl_transfer *transfer)
{
    unwatch_first_byte(transfer->call);
}

/* All calls of a provider have the same limit, so its list is in the order of what is due. */
static void end_unanswered(struct sl_transfers *transfers)
{
    struct sl_providers *providers = transfers->options.providers;

    transfers->first_byte_due_ns = INT64_MAX;
    struct sl_provider *provider = sl_providers_next(providers, NULL);
    while (provider != NULL) {
        struct sl_call *call = TAILQ_FIRST(&provider->unanswered);
        if (call != NULL && first_byte_due(call) <= transfers->now_ns) {
            sl_transfers_abort(transfers, call, SL_ERR_FIRST_BYTE_TIMEOUT);
            continue;
        }
        if (call != NULL) {
            transfers->first_byte_due_ns =
                SL_MIN(transfers->first_byte_due_ns, first_byte_due(call));
        }
        provider = sl_providers_next(providers, provider);
    }
}

/* ---- the end of a call
 * --------------------------------------------------------------------------- */

static void give_done(struct sl_transfers *transfers, struct sl_call *call)
{
    TAILQ_INSERT_TAIL(&transfers->done, call, link);
}

static void fail_unstarted(struct sl_transfers *transfers, struct sl_call *call, enum sl_err why,
                           const char *message)
{
    call->answer.transport = why;
    call->answer.is_sent = false;
    sl_text_cut(call->answer.message, sizeof(call->answer.message), sl_span_str(message));
    give_done(transfers, call);
}

static void make_ready(struct sl_transfers *transfers, struct sl_provider *provider)
{
    while (!TAILQ_EMPTY(&provider->waiting)) {
        struct sl_call *call = TAILQ_FIRST(&provider->waiting);
        TAILQ_REMOVE(&provider->waiting, call, link);
        call->state = SL_CALL_READY;
        TAILQ_INSERT_TAIL(&transfers->ready, call, link);
    }
}

/* The call that was to resolve the name ended before it did: the others share a failure of the
 * name, and else the next of them tries. */
static void settle_name(struct sl_transfers *transfers, struct sl_call *call)
{
    struct sl_provider *provider = call->provider;
    enum sl_err err = call->answer.transport;
    bool is_name_bad = err == SL_ERR_RESOLVE || err == SL_ERR_CONNECT_TIMEOUT;

    if (is_name_bad || err == SL_ERR_CONNECT) {
        provider->name_state = SL_NAME_COLD;
    } else if (provider->name_state == SL_NAME_RESOLVING && call->transfer->is_refreshing) {
        provider->name_state = SL_NAME_COLD;
    } else {
        return;
    }
    while (is_name_bad && !TAILQ_EMPTY(&provider->waiting)) {
        struct sl_call *other = TAILQ_FIRST(&provider->waiting);
        TAILQ_REMOVE(&provider->waiting, other, link);
        fail_unstarted(transfers, other, err, call->answer.message);
    }
    make_ready(transfers, provider);
}

static void end_transfer(struct sl_transfers *transfers, struct sl_transfer *transfer)
{
    struct sl_call *call = transfer->call;

    unwatch_first_byte(call);
    settle_name(transfers, call);
    call->transfer = NULL;
    transfer->call = NULL;
    TAILQ_REMOVE(&transfers->busy, transfer, link);
    TAILQ_INSERT_HEAD(&transfers->idle, transfer, link);
    transfers->running--;
    give_done(transfers, call);
}

static void collect_done(struct sl_transfers *transfers)
{
    int left = 0;
    CURLMsg *message;

    while ((message = curl_multi_info_read(transfers->multi, &left)) != NULL) {
        char *owner = NULL;
        CURLcode code = message->data.result; /* the message dies with remove_handle */
        CURL *easy = message->easy_handle;
        SL_ASSERT(message->msg == CURLMSG_DONE);
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, &owner);
        struct sl_transfer *transfer = (struct sl_transfer *)(void *)owner;
        SL_ASSERT(transfer != NULL && transfer->call != NULL);
        sl_transfer_collect(transfer, code);
        CURLMcode rc = curl_multi_remove_handle(transfers->multi, easy);
        SL_ASSERT(rc == CURLM_OK);
        end_transfer(transfers, transfer);
    }
}

void sl_transfers_abort(struct sl_transfers *transfers, struct sl_call *call, enum sl_err why)
{
    struct sl_transfer *transfer = call->transfer;

    if (call->state == SL_CALL_WAITING || call->state == SL_CALL_READY) {
        bool is_ready = call->state == SL_CALL_READY;
        TAILQ_REMOVE(is_ready ? &transfers->ready : &call->provider->waiting, call, link);
        fail_unstarted(transfers, call, why, "");
        return;
    }
    SL_ASSERT(call->state == SL_CALL_RUNNING && transfer != NULL);
    sl_transfer_collect(transfer, CURLE_OK);
    call->answer.transport = why;
    call->answer.message[0] = '\0';
    CURLMcode rc = curl_multi_remove_handle(transfers->multi, transfer->easy);
    SL_ASSERT(rc == CURLM_OK);
    end_transfer(transfers, transfer);
}

void sl_transfers_take_waiting(struct sl_transfers *transfers, struct sl_call_list *out)
{
    struct sl_providers *providers = transfers->options.providers;
    struct sl_provider *provider = sl_providers_next(providers, NULL);

    for (; provider != NULL; provider = sl_providers_next(providers, provider)) {
        TAILQ_CONCAT(out, &provider->waiting, link);
    }
    TAILQ_CONCAT(out, &transfers->ready, link);
}

void sl_transfers_abort_all(struct sl_transfers *transfers, enum sl_err why)
{
    struct sl_call_list unstarted = TAILQ_HEAD_INITIALIZER(unstarted);

    sl_transfers_take_waiting(transfers, &unstarted);
    while (!TAILQ_EMPTY(&unstarted)) {
        struct sl_call *call = TAILQ_FIRST(&unstarted);
        TAILQ_REMOVE(&unstarted, call, link);
        fail_unstarted(transfers, call, why, "");
    }
    while (!TAILQ_EMPTY(&transfers->busy)) {
        sl_transfers_abort(transfers, TAILQ_FIRST(&transfers->busy)->call, why);
    }
}

struct sl_call *sl_transfers_next_done(struct sl_transfers *transfers)
{
    struct sl_call *call = TAILQ_FIRST(&transfers->done);

    if (call != NULL) {
        TAILQ_REMOVE(&transfers->done, call, link);
    }
    return call;
}

/* ---- the start of a call
 * -------------------------------------------------------------------------- */

static struct sl_transfer *take_idle(struct sl_transfers *transfers)
{
    struct sl_transfer *transfer = TAILQ_FIRST(&transfers->idle);

    if (transfer == NULL) {
        return sl_transfer_make(transfers);
    }
    TAILQ_REMOVE(&transfers->idle, transfer, link);
    return transfer;
}

static void launch(struct sl_transfers *transfers, struct sl_call *call, bool is_refreshing)
{
    struct sl_transfer *transfer = take_idle(transfers);
    enum sl_err err =
        transfer == NULL ? SL_ERR_NO_MEMORY : sl_transfer_prepare(transfer, call, is_refreshing);

    if (err == SL_OK && curl_multi_add_handle(transfers->multi, transfer->easy) != CURLM_OK) {
        err = SL_ERR_NO_MEMORY;
    }
    if (err != SL_OK) {
        if (transfer != NULL) {
            TAILQ_INSERT_HEAD(&transfers->idle, transfer, link);
        }
        fail_unstarted(transfers, call, SL_ERR_CONNECT,
                       err == SL_ERR_CONFIG ? "the URL is too long" : "the worker has no memory");
        return;
    }
    TAILQ_INSERT_TAIL(&transfers->busy, transfer, link);
    transfer->call = call;
    call->transfer = transfer;
    call->state = SL_CALL_RUNNING;
    call->started_ns = transfers->now_ns;
    transfers->running++;
    transfers->started++;
    watch_first_byte(transfers, call);
}

void sl_transfers_start(struct sl_transfers *transfers, struct sl_call *call)
{
    struct sl_provider *provider = call->provider;
    bool is_old = transfers->now_ns - provider->name_known_ns > NAME_AGE_NS;

    switch (provider->name_state) {
    case SL_NAME_RESOLVING:
        call->state = SL_CALL_WAITING;
        TAILQ_INSERT_TAIL(&provider->waiting, call, link);
        return;
    case SL_NAME_COLD:
        launch(transfers, call, true);
        if (call->state == SL_CALL_RUNNING) {
            provider->name_state = SL_NAME_RESOLVING;
        }
        return;
    case SL_NAME_KNOWN:
        if (is_old) {
            provider->name_known_ns = transfers->now_ns; /* one renews it; the others go on */
        }
        launch(transfers, call, is_old);
        return;
    }
    SL_UNREACHABLE();
}

void sl_transfer_note_name(struct sl_transfer *transfer)
{
    struct sl_provider *provider = transfer->call == NULL ? NULL : transfer->call->provider;

    if (provider == NULL || !transfer->is_refreshing || provider->name_state != SL_NAME_RESOLVING) {
        return;
    }
    provider->name_state = SL_NAME_KNOWN;
    provider->name_known_ns = transfer->owner->now_ns;
    make_ready(transfer->owner, provider);
}

static void start_ready(struct sl_transfers *transfers)
{
    struct sl_call_list batch = TAILQ_HEAD_INITIALIZER(batch);

    TAILQ_CONCAT(&batch, &transfers->ready, link); /* a start may make others ready: next time */
    while (!TAILQ_EMPTY(&batch)) {
        struct sl_call *call = TAILQ_FIRST(&batch);
        TAILQ_REMOVE(&batch, call, link);
        sl_transfers_start(transfers, call);
    }
}

/* ---- the loop
 * ------------------------------------------------------------------------------------- */

void sl_transfers_begin_turn(struct sl_transfers *transfers, int64_t now_ns)
{
    transfers->now_ns = now_ns;
}

void sl_transfers_tick(struct sl_transfers *transfers)
{
    int64_t now_ns = transfers->now_ns;
    int running = 0;

    if (transfers->first_byte_due_ns <= now_ns) {
        end_unanswered(transfers);
    }
    start_ready(transfers);
    if (transfers->curl_due_ns <= now_ns) {
        transfers->curl_due_ns = INT64_MAX;
        CURLMcode rc = curl_multi_socket_action(transfers->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        SL_ASSERT(rc == CURLM_OK);
    }
    collect_done(transfers);
    start_ready(transfers);
}

int64_t sl_transfers_due_ns(const struct sl_transfers *transfers)
{
    return SL_MIN(transfers->curl_due_ns, transfers->first_byte_due_ns);
}

size_t sl_transfers_running(const struct sl_transfers *transfers)
{
    return transfers->running;
}

uint64_t sl_transfers_started(const struct sl_transfers *transfers)
{
    return transfers->started;
}
