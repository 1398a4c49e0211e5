/*
 * The route policy: least recently served first, over lists kept per provider; see the header.
 *
 * Runs in the broker's loop thread and in the simulator. Never allocates, reads no clock, knows no
 * tasks: it deals in supply indexes and counts. Nothing of it survives a crash; a new broker adds
 * the supplies it finds in the store.
 *
 * Why lists per provider and not one ring: a ring would have to step over every supply of a full
 * provider at each pick, or move them out and back each time one of its calls ends. Comparing the
 * heads of at most SL_PROVIDERS_MAX lists costs the same however many supplies wait.
 *
 * Each list is in rising order of `turn`, because a supply is only ever appended, and always with a
 * turn of its own: so a list's head is the provider's supply served longest ago.
 *
 * Reports SL_ERR_FULL alone. Wrong indexes and counts are bugs of the caller and asserted on.
 */
#include "broker/policy/route.h"

#include "common/check.h"

/* ---- lists ----------------------------------------------------------------------------------- */

static void append(struct sl_route_state *state, uint32_t idx)
{
    struct sl_route_supply *supply = &state->supplies[idx];
    struct sl_route_list *list = &state->ready[supply->provider_idx];

    supply->turn = ++state->turn;
    supply->next = SL_ROUTE_NONE;
    supply->previous = list->last;
    if (list->last == SL_ROUTE_NONE) {
        list->first = idx;
    } else {
        state->supplies[list->last].next = idx;
    }
    list->last = idx;
    list->count++;
}

static void unlink_supply(struct sl_route_state *state, uint32_t idx)
{
    struct sl_route_supply *supply = &state->supplies[idx];
    struct sl_route_list *list = &state->ready[supply->provider_idx];

    SL_ASSERT(list->count > 0);
    if (supply->previous == SL_ROUTE_NONE) {
        list->first = supply->next;
    } else {
        state->supplies[supply->previous].next = supply->next;
    }
    if (supply->next == SL_ROUTE_NONE) {
        list->last = supply->previous;
    } else {
        state->supplies[supply->next].previous = supply->previous;
    }
    list->count--;
}

static struct sl_route_supply *get_supply(struct sl_route_state *state, uint32_t idx)
{
    SL_ASSERT(idx < SL_SUPPLIES_MAX);
    SL_ASSERT(state->supplies[idx].is_used);
    return &state->supplies[idx];
}

/* ---- supplies -------------------------------------------------------------------------------- */

void sl_route_init(struct sl_route_state *state)
{
    memset(state, 0, sizeof(*state));
    state->free_first = SL_ROUTE_NONE;
    for (size_t i = 0; i < SL_PROVIDERS_MAX; i++) {
        state->ready[i].first = SL_ROUTE_NONE;
        state->ready[i].last = SL_ROUTE_NONE;
    }
}

enum sl_err sl_route_add(struct sl_route_state *state, uint32_t provider_idx, uint32_t *supply)
{
    uint32_t idx = state->free_first;

    SL_ASSERT(provider_idx < SL_PROVIDERS_MAX);
    if (idx != SL_ROUTE_NONE) {
        state->free_first = state->supplies[idx].next;
    } else if (state->touched_count < SL_SUPPLIES_MAX) {
        idx = state->touched_count++;
    } else {
        return SL_ERR_FULL;
    }
    SL_ASSERT(!state->supplies[idx].is_used);
    state->supplies[idx] = (struct sl_route_supply){
        .provider_idx = provider_idx,
        .next = SL_ROUTE_NONE,
        .previous = SL_ROUTE_NONE,
        .is_used = true,
    };
    state->supply_count++;
    *supply = idx;
    return SL_OK;
}

void sl_route_remove(struct sl_route_state *state, uint32_t supply)
{
    struct sl_route_supply *entry = get_supply(state, supply);

    SL_ASSERT(entry->in_flight == 0);
    sl_route_mark_empty(state, supply);
    entry->is_used = false;
    entry->next = state->free_first;
    state->free_first = supply;
    state->supply_count--;
}

void sl_route_mark_ready(struct sl_route_state *state, uint32_t supply)
{
    struct sl_route_supply *entry = get_supply(state, supply);

    if (entry->has_ready) {
        return;
    }
    entry->has_ready = true;
    state->ready_count++;
    append(state, supply);
}

void sl_route_mark_empty(struct sl_route_state *state, uint32_t supply)
{
    struct sl_route_supply *entry = get_supply(state, supply);

    if (!entry->has_ready) {
        return;
    }
    unlink_supply(state, supply);
    entry->has_ready = false;
    state->ready_count--;
}

void sl_route_note_taken(struct sl_route_state *state, uint32_t supply, uint32_t count)
{
    struct sl_route_supply *entry = get_supply(state, supply);

    SL_ASSERT(count <= UINT32_MAX - state->in_flight);
    entry->in_flight += count;
    state->provider_in_flight[entry->provider_idx] += count;
    state->in_flight += count;
}

void sl_route_note_ended(struct sl_route_state *state, uint32_t supply, uint32_t count)
{
    struct sl_route_supply *entry = get_supply(state, supply);

    SL_ASSERT(count <= entry->in_flight);
    SL_ASSERT(count <= state->provider_in_flight[entry->provider_idx]);
    entry->in_flight -= count;
    state->provider_in_flight[entry->provider_idx] -= count;
    state->in_flight -= count;
}

/* ---- the choice ------------------------------------------------------------------------------ */

/* The supply served longest ago among the providers with a place left. */
static uint32_t find_next(const struct sl_route_state *state, const struct sl_route_limits *limits)
{
    uint32_t best = SL_ROUTE_NONE;

    for (size_t i = 0; i < SL_PROVIDERS_MAX; i++) {
        uint32_t first = state->ready[i].first;
        if (first == SL_ROUTE_NONE || limits->provider_places[i] == 0) {
            continue;
        }
        if (best == SL_ROUTE_NONE || state->supplies[first].turn < state->supplies[best].turn) {
            best = first;
        }
    }
    return best;
}

/* An even share of the places among those who wait for them. */
static uint32_t share(const struct sl_route_state *state, const struct sl_route_limits *limits,
                      uint32_t provider_idx)
{
    uint32_t global_share = limits->places / state->ready_count;
    uint32_t provider_share =
        limits->provider_places[provider_idx] / state->ready[provider_idx].count;
    uint32_t count = SL_MIN(global_share, provider_share);

    return SL_MIN(SL_MAX(count, 1), SL_ROUTE_TAKE_MAX);
}

bool sl_route_pick(struct sl_route_state *state, const struct sl_route_limits *limits,
                   struct sl_route_pick *out)
{
    if (limits->places == 0 || state->ready_count == 0) {
        return false;
    }
    uint32_t idx = find_next(state, limits);
    if (idx == SL_ROUTE_NONE) {
        return false;
    }
    uint32_t provider_idx = state->supplies[idx].provider_idx;

    *out = (struct sl_route_pick){
        .supply = idx,
        .provider_idx = provider_idx,
        .count = share(state, limits, provider_idx),
    };
    unlink_supply(state, idx);
    append(state, idx);
    return true;
}
