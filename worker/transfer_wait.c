/*
 * Two rules of our own about calls that wait: for a provider's name, and for the first byte.
 *
 * Runs in a worker, one thread, partly inside libcurl's callbacks, where it only moves calls
 * between lists. Never blocks, never logs.
 *
 * Names: libcurl starts a thread for every lookup. While a provider's name is not known (at the
 * start, after its connections failed) the first call resolves it and the others wait; when its
 * socket is opened all start. A name older than NAME_AGE_NS is renewed by one call while the others
 * go on. A call that was to resolve the name and failed at it fails those that waited, too.
 *
 * First byte: libcurl knows no such limit. Nothing of this survives a crash, nor needs to.
 */
#include "common/check.h"
#include "common/clock.h"
#include "worker/transfer_internal.h"

#define NAME_AGE_NS (300 * SL_NS_PER_S)

/* ---- the limit on the first byte ------------------------------------------------------------- */

static int64_t first_byte_due(const struct sl_call *call)
{
    return sl_time_add(call->started_ns, call->provider->cfg->first_byte_timeout_ms * SL_NS_PER_MS);
}

void sl_transfers_watch_first_byte(struct sl_transfers *transfers, struct sl_call *call)
{
    if (call->provider->cfg->first_byte_timeout_ms <= 0) {
        return;
    }
    call->is_unanswered = true;
    TAILQ_INSERT_TAIL(&call->provider->unanswered, call, link);
    transfers->first_byte_due_ns = SL_MIN(transfers->first_byte_due_ns, first_byte_due(call));
}

void sl_transfers_unwatch_first_byte(struct sl_call *call)
{
    if (call->is_unanswered) {
        call->is_unanswered = false;
        TAILQ_REMOVE(&call->provider->unanswered, call, link);
    }
}

void sl_transfer_note_first_byte(struct sl_transfer *transfer)
{
    sl_transfers_unwatch_first_byte(transfer->call);
}

/* All calls of a provider have the same limit, so its list is in the order of what is due. */
void sl_transfers_end_unanswered(struct sl_transfers *transfers)
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

/* ---- names ----------------------------------------------------------------------------------- */

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
void sl_transfers_settle_name(struct sl_transfers *transfers, struct sl_call *call)
{
    struct sl_provider *provider = call->provider;
    enum sl_err err = call->answer.transport;
    bool is_name_bad = err == SL_ERR_RESOLVE || err == SL_ERR_CONNECT_TIMEOUT;
    bool was_refresh = provider->name_state == SL_NAME_RESOLVING && call->transfer->is_refreshing;

    if (is_name_bad || err == SL_ERR_CONNECT || was_refresh) {
        provider->name_state = SL_NAME_COLD;
    } else {
        return;
    }
    while (is_name_bad && !TAILQ_EMPTY(&provider->waiting)) {
        struct sl_call *other = TAILQ_FIRST(&provider->waiting);
        TAILQ_REMOVE(&provider->waiting, other, link);
        sl_transfers_fail_unstarted(transfers, other, err, call->answer.message);
    }
    make_ready(transfers, provider);
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
        sl_transfers_launch(transfers, call, true);
        if (call->state == SL_CALL_RUNNING) {
            provider->name_state = SL_NAME_RESOLVING;
        }
        return;
    case SL_NAME_KNOWN:
        if (is_old) {
            provider->name_known_ns = transfers->now_ns; /* one renews it; the others go on */
        }
        sl_transfers_launch(transfers, call, is_old);
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

void sl_transfers_start_ready(struct sl_transfers *transfers)
{
    struct sl_call_list batch = TAILQ_HEAD_INITIALIZER(batch);

    TAILQ_CONCAT(&batch, &transfers->ready, link); /* a start may make others ready: next time */
    while (!TAILQ_EMPTY(&batch)) {
        struct sl_call *call = TAILQ_FIRST(&batch);
        TAILQ_REMOVE(&batch, call, link);
        sl_transfers_start(transfers, call);
    }
}

/* NOLINTNEXTLINE(readability-function-size): two of the levels are TAILQ_CONCAT's own. */
void sl_transfers_take_waiting(struct sl_transfers *transfers, struct sl_call_list *out)
{
    struct sl_providers *providers = transfers->options.providers;
    struct sl_provider *provider = sl_providers_next(providers, NULL);

    for (; provider != NULL; provider = sl_providers_next(providers, provider)) {
        TAILQ_CONCAT(out, &provider->waiting, link);
    }
    TAILQ_CONCAT(out, &transfers->ready, link);
}
