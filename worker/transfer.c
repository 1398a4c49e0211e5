/*
 * The engine of HTTP calls: multi handles of libcurl, a pool of easy handles, starting and ending.
 *
 * Runs in a worker, one thread. Never blocks, never logs, never repeats a call. Nothing of it
 * survives the worker: the provider may have taken what was in flight, and the broker's lease
 * records say so.
 *
 * An error of a multi handle leaves its transfers in an unknown state; only memory or a bug of ours
 * brings one about, so it is asserted: a worker is disposable.
 *
 * Errors: reported in call->answer.transport; SL_ERR_NO_MEMORY at the start of the engine.
 */
#include "worker/transfer.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "worker/transfer_internal.h"

#define CONNECTIONS_SPARE 16

/* ---- headers --------------------------------------------------------------------------------- */

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

/* ---- open and close -------------------------------------------------------------------------- */

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

static bool open_share(struct sl_transfers *transfers)
{
    static const curl_lock_data shared[] = {CURL_LOCK_DATA_SSL_SESSION, CURL_LOCK_DATA_DNS};

    if (curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK) {
        return false;
    }
    transfers->share = curl_share_init();
    for (size_t i = 0; i < SL_ARRAY_LEN(shared) && transfers->share != NULL; i++) {
        if (curl_share_setopt(transfers->share, CURLSHOPT_SHARE, shared[i]) != CURLSHE_OK) {
            return false;
        }
    }
    return transfers->share != NULL;
}

static void set_connections(struct sl_transfers *transfers, struct sl_shard *shard)
{
    uint32_t calls = SL_MIN(transfers->options.concurrency, (uint32_t)SL_SHARD_CALLS);

    curl_multi_setopt(shard->multi, CURLMOPT_MAXCONNECTS, (long)calls + CONNECTIONS_SPARE);
}

static struct sl_shard *add_shard(struct sl_transfers *transfers)
{
    struct sl_shard *shard = NULL;

    if (transfers->shard_count < SL_SHARDS_MAX) {
        shard = calloc(1, sizeof(*shard));
    }
    if (shard == NULL) {
        return NULL;
    }
    shard->owner = transfers;
    shard->due_ns = INT64_MAX;
    shard->multi = curl_multi_init();
    if (shard->multi == NULL) {
        free(shard);
        return NULL;
    }
    curl_multi_setopt(shard->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    sl_shard_set_socket_callbacks(shard);
    set_connections(transfers, shard);
    transfers->shards[transfers->shard_count++] = shard;
    return shard;
}

/* The first with room: the connections of the first ones stay in use, those of the last ones may
 * grow old. */
static struct sl_shard *find_shard(struct sl_transfers *transfers)
{
    for (size_t i = 0; i < transfers->shard_count; i++) {
        if (transfers->shards[i]->running < SL_SHARD_CALLS) {
            return transfers->shards[i];
        }
    }
    return add_shard(transfers);
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
    transfers->first_byte_due_ns = INT64_MAX;
    transfers->has_proxy = environment_has_proxy();
    if (!open_share(transfers) || add_shard(transfers) == NULL) {
        sl_transfers_close(&transfers);
        return SL_ERR_NO_MEMORY;
    }
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
    for (size_t i = 0; i < transfers->shard_count; i++) {
        curl_multi_cleanup(transfers->shards[i]->multi);
        free(transfers->shards[i]);
    }
    curl_share_cleanup(transfers->share);
    free(transfers->sockets);
    free(transfers);
    curl_global_cleanup();
    *transfers_ref = NULL;
}

void sl_transfers_set_concurrency(struct sl_transfers *transfers, uint32_t concurrency)
{
    transfers->options.concurrency = concurrency;
    for (size_t i = 0; i < transfers->shard_count; i++) {
        set_connections(transfers, transfers->shards[i]);
    }
}

/* ---- the end of a call ----------------------------------------------------------------------- */

static void give_done(struct sl_transfers *transfers, struct sl_call *call)
{
    TAILQ_INSERT_TAIL(&transfers->done, call, link);
}

void sl_transfers_fail_unstarted(struct sl_transfers *transfers, struct sl_call *call,
                                 enum sl_err why, const char *message)
{
    call->answer.transport = why;
    call->answer.is_sent = false;
    sl_text_cut(call->answer.message, sizeof(call->answer.message), sl_span_str(message));
    give_done(transfers, call);
}

static void end_transfer(struct sl_transfers *transfers, struct sl_transfer *transfer)
{
    struct sl_call *call = transfer->call;

    sl_transfers_unwatch_first_byte(call);
    sl_transfers_settle_name(transfers, call);
    call->transfer = NULL;
    transfer->call = NULL;
    TAILQ_REMOVE(&transfers->busy, transfer, link);
    TAILQ_INSERT_HEAD(&transfers->idle, transfer, link);
    transfers->running--;
    transfer->shard->running--;
    transfer->shard = NULL;
    give_done(transfers, call);
}

static void collect_done(struct sl_transfers *transfers, struct sl_shard *shard)
{
    int left = 0;
    CURLMsg *message;

    while ((message = curl_multi_info_read(shard->multi, &left)) != NULL) {
        char *owner = NULL;
        CURLcode code = message->data.result; /* the message dies with remove_handle */
        CURL *easy = message->easy_handle;
        SL_ASSERT(message->msg == CURLMSG_DONE);
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, &owner);
        struct sl_transfer *transfer = (struct sl_transfer *)(void *)owner;
        SL_ASSERT(transfer != NULL && transfer->call != NULL);
        sl_transfer_collect(transfer, code);
        CURLMcode rc = curl_multi_remove_handle(shard->multi, easy);
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
        sl_transfers_fail_unstarted(transfers, call, why, "");
        return;
    }
    SL_ASSERT(call->state == SL_CALL_RUNNING && transfer != NULL);
    sl_transfer_collect(transfer, CURLE_OK);
    call->answer.transport = why;
    call->answer.message[0] = '\0';
    CURLMcode rc = curl_multi_remove_handle(transfer->shard->multi, transfer->easy);
    SL_ASSERT(rc == CURLM_OK);
    end_transfer(transfers, transfer);
}

void sl_transfers_abort_all(struct sl_transfers *transfers, enum sl_err why)
{
    struct sl_call_list unstarted = TAILQ_HEAD_INITIALIZER(unstarted);

    sl_transfers_take_waiting(transfers, &unstarted);
    while (!TAILQ_EMPTY(&unstarted)) {
        struct sl_call *call = TAILQ_FIRST(&unstarted);
        TAILQ_REMOVE(&unstarted, call, link);
        sl_transfers_fail_unstarted(transfers, call, why, "");
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

/* ---- the start of a call --------------------------------------------------------------------- */

static struct sl_transfer *take_idle(struct sl_transfers *transfers)
{
    struct sl_transfer *transfer = TAILQ_FIRST(&transfers->idle);

    if (transfer == NULL) {
        return sl_transfer_make(transfers);
    }
    TAILQ_REMOVE(&transfers->idle, transfer, link);
    return transfer;
}

static enum sl_err add_to_shard(struct sl_transfers *transfers, struct sl_transfer *transfer)
{
    struct sl_shard *shard = find_shard(transfers);

    if (shard == NULL || curl_multi_add_handle(shard->multi, transfer->easy) != CURLM_OK) {
        return SL_ERR_NO_MEMORY;
    }
    shard->running++;
    transfer->shard = shard;
    return SL_OK;
}

void sl_transfers_launch(struct sl_transfers *transfers, struct sl_call *call, bool is_refreshing)
{
    struct sl_transfer *transfer = take_idle(transfers);
    enum sl_err err =
        transfer == NULL ? SL_ERR_NO_MEMORY : sl_transfer_prepare(transfer, call, is_refreshing);

    if (err == SL_OK) {
        err = add_to_shard(transfers, transfer);
    }
    if (err != SL_OK) {
        if (transfer != NULL) {
            TAILQ_INSERT_HEAD(&transfers->idle, transfer, link);
        }
        sl_transfers_fail_unstarted(transfers, call, SL_ERR_CONNECT,
                                    err == SL_ERR_CONFIG ? "the URL is too long"
                                                         : "the worker has no memory");
        return;
    }
    TAILQ_INSERT_TAIL(&transfers->busy, transfer, link);
    transfer->call = call;
    call->transfer = transfer;
    call->state = SL_CALL_RUNNING;
    call->started_ns = transfers->now_ns;
    transfers->running++;
    transfers->started++;
    sl_transfers_watch_first_byte(transfers, call);
}

/* ---- the loop -------------------------------------------------------------------------------- */

void sl_transfers_begin_turn(struct sl_transfers *transfers, int64_t now_ns)
{
    transfers->now_ns = now_ns;
}

static void run_timer(struct sl_transfers *transfers, struct sl_shard *shard)
{
    int running = 0;

    if (shard->due_ns <= transfers->now_ns) {
        shard->due_ns = INT64_MAX;
        CURLMcode rc = curl_multi_socket_action(shard->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        SL_ASSERT(rc == CURLM_OK);
    }
}

void sl_transfers_tick(struct sl_transfers *transfers)
{
    if (transfers->first_byte_due_ns <= transfers->now_ns) {
        sl_transfers_end_unanswered(transfers);
    }
    sl_transfers_start_ready(transfers);
    for (size_t i = 0; i < transfers->shard_count; i++) {
        run_timer(transfers, transfers->shards[i]);
        collect_done(transfers, transfers->shards[i]);
    }
    sl_transfers_start_ready(transfers);
}

int64_t sl_transfers_due_ns(const struct sl_transfers *transfers)
{
    int64_t due_ns = transfers->first_byte_due_ns;

    for (size_t i = 0; i < transfers->shard_count; i++) {
        due_ns = SL_MIN(due_ns, transfers->shards[i]->due_ns);
    }
    return due_ns;
}

size_t sl_transfers_running(const struct sl_transfers *transfers)
{
    return transfers->running;
}

uint64_t sl_transfers_started(const struct sl_transfers *transfers)
{
    return transfers->started;
}
