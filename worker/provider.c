/*
 * Providers as the calls of a worker use them.
 *
 * Runs in a worker. Reads keys through worker/keys, at start and on SIGHUP; wipes them when the set
 * they belong to is no longer used. Never logs a key. Nothing of it survives the worker.
 *
 * Errors: SL_ERR_NO_MEMORY. A missing key is no error here: it is the verdict of each call.
 */
#include "worker/provider.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/log.h"
#include "worker/transfer.h"

struct sl_provider_set {
    TAILQ_ENTRY(sl_provider_set) link;
    struct sl_providers *owner;
    size_t holds; /* one for being current, and one for each call */
    size_t count;
    struct sl_provider_config cfgs[SL_PROVIDERS_MAX];
    struct sl_provider providers[SL_PROVIDERS_MAX];
};

struct sl_providers {
    TAILQ_HEAD(, sl_provider_set) sets; /* the current one first */
};

static enum sl_err build_headers(struct sl_provider *provider)
{
    static struct sl_key key; /* large; wiped below */

    sl_key_load(provider->cfg, &key);
    provider->key_state = key.state;
    if (key.state == SL_KEY_MISSING) {
        sl_log(SL_EVENT_PROVIDER_KEY_MISSING, "provider=%s: %s", provider->cfg->name, key.reason);
    }
    enum sl_err err = provider->dialect->put_headers(key.text, &provider->headers);
    sl_key_wipe(&key);
    if (err == SL_OK) {
        err = sl_http_headers_make(&provider->headers, &provider->http_headers);
    }
    return err;
}

static enum sl_err provider_init(struct sl_provider *provider, struct sl_provider_set *set,
                                 const struct sl_provider_config *cfg)
{
    provider->set = set;
    provider->cfg = cfg;
    provider->dialect = sl_dialect_find(cfg->kind);
    TAILQ_INIT(&provider->waiting);
    TAILQ_INIT(&provider->unanswered);
    if (provider->dialect == NULL) {
        sl_log(SL_EVENT_CONFIG_UNUSED, "provider=%s: its kind is not supported by this version",
               cfg->name);
        return SL_OK;
    }
    return build_headers(provider);
}

static void set_free(struct sl_provider_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        struct sl_provider *provider = &set->providers[i];
        SL_ASSERT(TAILQ_EMPTY(&provider->waiting));
        SL_ASSERT(TAILQ_EMPTY(&provider->unanswered));
        sl_http_headers_free(&provider->http_headers);
        sl_header_lines_fini(&provider->headers);
    }
    free(set);
}

static enum sl_err set_open(const struct sl_config *cfg, struct sl_provider_set **out)
{
    struct sl_provider_set *set = calloc(1, sizeof(*set));

    if (set == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    set->holds = 1;
    for (size_t i = 0; i < cfg->provider_count; i++) {
        set->cfgs[i] = cfg->providers[i];
        set->count = i + 1;
        enum sl_err err = provider_init(&set->providers[i], set, &set->cfgs[i]);
        if (err != SL_OK) {
            set_free(set);
            return err;
        }
    }
    *out = set;
    return SL_OK;
}

static void drop_hold(struct sl_provider_set *set)
{
    SL_ASSERT(set->holds > 0);
    set->holds--;
    if (set->holds == 0) {
        TAILQ_REMOVE(&set->owner->sets, set, link);
        set_free(set);
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

struct sl_providers *sl_providers_open(void)
{
    struct sl_providers *providers = calloc(1, sizeof(*providers));

    if (providers != NULL) {
        TAILQ_INIT(&providers->sets);
    }
    return providers;
}

void sl_providers_close(struct sl_providers **providers)
{
    if (*providers == NULL) {
        return;
    }
    struct sl_provider_set *current = TAILQ_FIRST(&(*providers)->sets);
    if (current != NULL) {
        drop_hold(current);
    }
    SL_ASSERT(TAILQ_EMPTY(&(*providers)->sets));
    free(*providers);
    *providers = NULL;
}

enum sl_err sl_providers_load(struct sl_providers *providers, const struct sl_config *cfg)
{
    struct sl_provider_set *set = NULL;
    struct sl_provider_set *before = TAILQ_FIRST(&providers->sets);
    enum sl_err err = set_open(cfg, &set);

    if (err != SL_OK) {
        return err;
    }
    set->owner = providers;
    TAILQ_INSERT_HEAD(&providers->sets, set, link);
    if (before != NULL) {
        drop_hold(before);
    }
    return SL_OK;
}

struct sl_provider *sl_providers_find(struct sl_providers *providers, struct sl_span name)
{
    struct sl_provider_set *set = TAILQ_FIRST(&providers->sets);

    for (size_t i = 0; set != NULL && i < set->count; i++) {
        if (sl_span_equal(sl_span_str(set->cfgs[i].name), name)) {
            return &set->providers[i];
        }
    }
    return NULL;
}

struct sl_provider *sl_providers_next(struct sl_providers *providers, struct sl_provider *after)
{
    struct sl_provider_set *set = after == NULL ? TAILQ_FIRST(&providers->sets) : after->set;
    size_t idx = after == NULL ? 0 : (size_t)(after - set->providers) + 1;

    while (set != NULL && idx >= set->count) {
        set = TAILQ_NEXT(set, link);
        idx = 0;
    }
    return set == NULL ? NULL : &set->providers[idx];
}

void sl_provider_give_to(struct sl_provider *provider, struct sl_call *call)
{
    SL_ASSERT(call->provider == NULL);
    provider->set->holds++;
    call->provider = provider;
}

void sl_provider_take_from(struct sl_call *call)
{
    if (call->provider != NULL) {
        struct sl_provider_set *set = call->provider->set;
        call->provider = NULL;
        drop_hold(set);
    }
}
