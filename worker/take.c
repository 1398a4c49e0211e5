/*
 * Work in: items of the lane become calls.
 *
 * Runs in a worker. Every item is copied out of shared memory once and checked before it is used;
 * an item that is no item of ours ends the bond with this broker, not the worker. Never decides how
 * much may run: the broker does. It only stops taking when results find no way out, so that a
 * broker that is slow or gone cannot fill the worker's memory.
 *
 * Errors of the caller's making (unknown provider, no key, a body this version cannot send) become
 * results at once; nothing is sent for them.
 */
#include <stdio.h>

#include "common/check.h"
#include "common/log.h"
#include "worker/worker.h"

static bool is_whole(const struct sl_work_msg *work, size_t payload_bytes)
{
    size_t sum = (size_t)work->provider_bytes + work->body_bytes;

    return sum == payload_bytes && work->provider_bytes <= SL_NAME_BYTES_MAX &&
           work->body_bytes > 0 && work->body_bytes <= SL_BODY_BYTES_MAX &&
           sl_endpoint_is_known(work->endpoint);
}

static void cancel(struct sl_worker *worker, const struct sl_work_msg *work)
{
    struct sl_call *call = sl_calls_find(worker->calls, work->task, work->attempt);

    /* Not held, or finished: the answer was faster and is on its way. */
    if (call != NULL && call->state != SL_CALL_FINISHED && call->state != SL_CALL_BLANK) {
        sl_transfers_abort(worker->transfers, call, SL_ERR_CANCELLED);
    }
}

/* SL_OK, or why this call cannot be made, with a message in its answer. */
static enum sl_err check_call(struct sl_worker *worker, struct sl_call *call,
                              const struct sl_provider *provider, struct sl_span name)
{
    char *message = call->answer.message;
    size_t size = sizeof(call->answer.message);

    if (provider == NULL) {
        snprintf(message, size, "provider \"%.*s\" is not in the worker's configuration",
                 (int)name.len, name.ptr);
        return SL_ERR_UNKNOWN_PROVIDER;
    }
    if (provider->dialect == NULL) {
        snprintf(message, size, "the kind of provider \"%s\" is not supported by this version",
                 provider->cfg->name);
        return SL_ERR_REJECTED;
    }
    if (provider->key_state == SL_KEY_MISSING) {
        snprintf(message, size, "the API key of provider \"%s\" is not available to the worker",
                 provider->cfg->name);
        return SL_ERR_KEY_MISSING;
    }
    return provider->dialect->check_request(worker->scanner, call);
}

static enum sl_err begin_call(struct sl_worker *worker, const struct sl_work_msg *work,
                              struct sl_span payload)
{
    struct sl_call *call = NULL;
    char name_bytes[SL_NAME_BYTES_MAX + 1];
    enum sl_err err = sl_calls_add(worker->calls, work, &call);

    if (err == SL_ERR_PROTOCOL && sl_publish_free_released(worker) == SL_OK) {
        /* An attempt that was handed back unmade comes again under its number, and may be here
         * before we have looked whether the old entry was released. */
        err = sl_calls_add(worker->calls, work, &call);
    }
    if (err == SL_ERR_PROTOCOL) {
        sl_log(SL_EVENT_FAILED, "task=%llx attempt=%u: handed out twice; the first one counts",
               (unsigned long long)work->task, work->attempt);
        return SL_OK;
    }
    if (err != SL_OK) {
        return err;
    }
    struct sl_span name = sl_span_of(name_bytes, work->provider_bytes);
    memcpy(name_bytes, payload.ptr, work->provider_bytes);
    memcpy(call->request, payload.ptr + work->provider_bytes, work->body_bytes);
    call->generation = worker->lane->generation;
    call->result.generation = call->generation;
    if (worker->is_draining) {
        sl_publish_unmade(worker, call, SL_ERR_DRAINING, SL_RESULT_NOT_STARTED);
        return SL_OK;
    }
    struct sl_provider *provider = sl_providers_find(worker->providers, name);
    err = check_call(worker, call, provider, name);
    if (err != SL_OK) { /* a provider that is not known may be after the next SIGHUP */
        bool may_be_made = err == SL_ERR_UNKNOWN_PROVIDER;
        sl_publish_unmade(worker, call, err, may_be_made ? SL_RESULT_NOT_STARTED : 0);
        return SL_OK;
    }
    sl_provider_give_to(provider, call);
    sl_transfers_start(worker->transfers, call);
    return SL_OK;
}

enum sl_err sl_take_item(struct sl_worker *worker, const struct sl_work_msg *work,
                         struct sl_span payload)
{
    if (work->kind == SL_WORK_CANCEL) {
        cancel(worker, work);
        return SL_OK;
    }
    if (work->kind != SL_WORK_CALL || !is_whole(work, payload.len)) {
        return SL_ERR_SHM;
    }
    return begin_call(worker, work, payload);
}

bool sl_take_has_room(const struct sl_worker *worker)
{
    size_t results = worker->finished_count;
    size_t running = sl_calls_count(worker->calls) - results - worker->published_count;

    return worker->is_draining ||
           (running < worker->running_max && results < SL_RESULTS_WAITING_MAX &&
            sl_calls_answer_bytes(worker->calls) < SL_ANSWERS_BYTES_MAX);
}

void sl_take_work(struct sl_worker *worker)
{
    struct sl_ring_consumer *ring = &worker->lane->in;
    uint64_t last = 0;
    size_t taken = 0;
    enum sl_err err = SL_OK;

    while (err == SL_OK && taken < SL_RING_SLOTS && sl_take_has_room(worker)) {
        struct sl_ring_item item;
        struct sl_work_msg work;
        err = sl_ring_peek(ring, &item);
        if (err != SL_OK) {
            break;
        }
        memcpy(&work, item.msg, sizeof(work));
        err = sl_take_item(worker, &work, item.payload);
        if (err == SL_OK) {
            last = item.position;
            taken++;
        }
    }
    if (taken > 0) {
        sl_ring_release(ring, last);
    }
    if (err == SL_ERR_SHM) {
        sl_log(SL_EVENT_FAILED, "lane=%u: it holds what is no work; the bond is ended",
               worker->lane->idx);
        sl_link_lose(worker, err);
    }
}
