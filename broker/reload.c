/*
 * SIGHUP: a new configuration for a running broker.
 *
 * Loop thread. The file is read into fresh memory and checked whole before anything changes; a
 * fault leaves the old one in force. Then it changes between two turns' work, at once: nothing runs
 * half under the old and half under the new. Providers are known by their place in the
 * configuration everywhere in memory, so what is counted by that place is made anew here, from what
 * stays true: the calls in the table and the arm operations under way. Never logs a value: names of
 * settings and providers only. What survives a crash: nothing; a start reads the file.
 */
#include "broker/reload.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/log.h"

/* Names of settings or providers in one log record of 1 KiB. */
#define NAMES_BYTES_MAX 256

/* ---- what becomes of the providers ----------------------------------------------------------- */

/* Places of each provider's state move with its name; the states of removed ones go. */
static void move_states(struct sl_broker *broker, const struct sl_config *loaded)
{
    struct sl_provider_state states[SL_PROVIDERS_MAX] = {0};

    for (uint32_t i = 0; i < broker->config->provider_count; i++) {
        struct sl_span name = sl_span_str(broker->config->providers[i].name);
        const struct sl_provider_config *now = sl_config_find_provider(loaded, name);
        if (now == NULL) {
            sl_dispatch_disarm(broker, i);
        } else {
            states[now - loaded->providers] = broker->providers[i];
        }
    }
    memcpy(broker->providers, states, sizeof(states));
    for (uint32_t i = 0; i < SL_PROVIDERS_MAX; i++) { /* counted anew */
        broker->providers[i].arming = 0;
        broker->providers[i].in_flight = 0;
    }
}

/* Empties the route state of its ready supplies and returns them in the order of their turns. */
static uint32_t take_ready(struct sl_broker *broker, uint32_t order[SL_SUPPLIES_MAX])
{
    struct sl_route_limits limits;
    struct sl_route_pick pick;
    uint32_t count = 0;

    memset(&limits, 0xff, sizeof(limits)); /* no limits: the order alone counts */
    while (sl_route_pick(broker->route, &limits, &pick)) {
        order[count++] = broker->route_supply[pick.supply];
        sl_route_mark_empty(broker->route, pick.supply);
    }
    return count;
}

/* Gives the supply its provider's place; true: it had none before, and may have tasks that wait. */
static bool place_supply(struct sl_broker *broker, struct sl_supply *supply)
{
    bool was_waiting = supply->provider_idx == SL_SUPPLY_NO_PROVIDER;
    const struct sl_provider_config *provider =
        sl_config_find_provider(broker->config, sl_span_str(supply->provider));

    supply->provider_idx = SL_SUPPLY_NO_PROVIDER;
    supply->route_idx = SL_ROUTE_NONE;
    if (provider == NULL) {
        return false;
    }
    supply->provider_idx = (uint32_t)(provider - broker->config->providers);
    enum sl_err err = sl_route_add(broker->route, supply->provider_idx, &supply->route_idx);
    SL_ASSERT(err == SL_OK); /* as many places as there can be supplies */
    broker->route_supply[supply->route_idx] = (uint32_t)(supply - broker->supplies);
    sl_route_note_taken(broker->route, supply->route_idx, supply->arming);
    broker->providers[supply->provider_idx].arming += supply->arming;
    return was_waiting;
}

static void count_calls(struct sl_broker *broker)
{
    for (size_t i = 0; i < broker->calls.touched; i++) {
        const struct sl_call *call = &broker->calls.all[i];
        if (call->state == SL_CALL_FREE) {
            continue;
        }
        const struct sl_supply *supply = &broker->supplies[call->supply];
        if (supply->provider_idx == SL_SUPPLY_NO_PROVIDER) {
            continue;
        }
        sl_route_note_taken(broker->route, supply->route_idx, 1);
        bool has_place = call->state == SL_CALL_SENT || call->state == SL_CALL_ORPHAN;
        broker->providers[supply->provider_idx].in_flight += has_place;
    }
}

static void place_supplies(struct sl_broker *broker)
{
    static uint32_t ready[SL_SUPPLIES_MAX]; /* the loop thread's; too large for a stack */
    uint32_t count = take_ready(broker, ready);

    sl_route_init(broker->route);
    for (uint32_t i = 0; i < broker->supply_count; i++) {
        if (place_supply(broker, &broker->supplies[i])) {
            ready[count++] = i;
        }
    }
    count_calls(broker);
    for (uint32_t i = 0; i < count; i++) {
        sl_supply_mark_ready(broker, ready[i]);
    }
}

void sl_reload_apply(struct sl_broker *broker, struct sl_config *loaded)
{
    move_states(broker, loaded);
    free(broker->reloaded);
    broker->reloaded = loaded;
    broker->config = loaded;
    place_supplies(broker);
}

/* ---- what is told ---------------------------------------------------------------------------- */

struct changes {
    char settings[NAMES_BYTES_MAX];
    char restart[NAMES_BYTES_MAX];
    char added[NAMES_BYTES_MAX / 2];
    char removed[NAMES_BYTES_MAX / 2];
    bool has_new_order; /* of the providers that stay */
};

/* Providers of `from` that are not in `other`: "a, b"; cut to whole names. */
static void name_missing(const struct sl_config *from, const struct sl_config *other, char *text,
                         size_t size)
{
    size_t len = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < from->provider_count; i++) {
        const char *name = from->providers[i].name;
        if (sl_config_find_provider(other, sl_span_str(name)) != NULL) {
            continue;
        }
        int more = snprintf(text + len, size - len, "%s%s", len > 0 ? ", " : "", name);
        if (more < 0 || (size_t)more >= size - len) {
            text[len] = '\0';
            return;
        }
        len += (size_t)more;
    }
}

static bool has_new_order(const struct sl_config *before, const struct sl_config *after)
{
    const struct sl_provider_config *last = NULL;

    for (uint32_t i = 0; i < before->provider_count; i++) {
        const struct sl_provider_config *now =
            sl_config_find_provider(after, sl_span_str(before->providers[i].name));
        if (now != NULL && last != NULL && now < last) {
            return true;
        }
        last = now != NULL ? now : last;
    }
    return false;
}

static void find_changes(const struct sl_config *before, const struct sl_config *after,
                         struct changes *out)
{
    sl_config_changed(before, after, out->settings, sizeof(out->settings));
    sl_config_restart_needed(before, after, out->restart, sizeof(out->restart));
    name_missing(after, before, out->added, sizeof(out->added));
    name_missing(before, after, out->removed, sizeof(out->removed));
    out->has_new_order = has_new_order(before, after);
}

static void tell(const struct sl_config *config, const struct changes *changes)
{
    char unused[NAMES_BYTES_MAX];

    sl_log(SL_EVENT_CONFIG_RELOADED,
           "changed=\"%s\" providers=%u added=\"%s\" removed=\"%s\" order=%s config=%.256s",
           changes->settings, config->provider_count, changes->added, changes->removed,
           changes->has_new_order ? "changed" : "same",
           config->source[0] != '\0' ? config->source : "defaults");
    if (changes->restart[0] != '\0') {
        sl_log(SL_EVENT_CONFIG_RESTART, "what=\"%s\" advice=\"the running values stay; restart\"",
               changes->restart);
    }
    sl_config_unused(config, unused, sizeof(unused));
    if (unused[0] != '\0') {
        sl_log(SL_EVENT_CONFIG_UNUSED, "what=\"%s\"", unused);
    }
}

void sl_reload(struct sl_broker *broker)
{
    struct sl_config_fault fault = {.text = "out of memory"};
    struct sl_config *loaded = calloc(1, sizeof(*loaded));
    struct changes changes;

    if (loaded == NULL || sl_config_load(broker->options.config_path, loaded, &fault) != SL_OK) {
        sl_log(SL_EVENT_CONFIG_ERROR, "the settings before stay in use: %s", fault.text);
        free(loaded);
        return;
    }
    find_changes(broker->config, loaded, &changes);
    sl_config_keep_running(broker->config, loaded);
    /* Told under the more talkative of both levels, so that a change of it is on record. */
    sl_log_set_level(SL_MAX(broker->config->log_level, loaded->log_level));
    sl_reload_apply(broker, loaded);
    tell(loaded, &changes);
    sl_log_set_level(loaded->log_level);
}
