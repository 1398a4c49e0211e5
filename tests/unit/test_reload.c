/*
 * A new configuration in a running broker: whatever comes, goes or moves, what is counted by
 * provider agrees with the calls in the table and the arm operations under way, ready supplies keep
 * their turns, and removed providers' armed calls are on their way back.
 *
 * The broker here is memory alone: no store, no socket, no thread.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/policy/retry.h"
#include "broker/reload.h"

#define SUPPLIES_PER_PROVIDER 3
#define NAMES "abcdefgh"
#define CALLS_MAX 200 /* of one settle operation, so that none is handed to a store */

static struct sl_broker *broker;
static struct sl_config *first_config;
static uint64_t next_task;

/* ---- a broker in memory ---------------------------------------------------------------------- */

/* Providers named by the letters, in that order. */
static struct sl_config *make_config(const char *names)
{
    struct sl_config *config = calloc(1, sizeof(*config));

    ck_assert_ptr_nonnull(config);
    config->concurrency = 100;
    for (size_t i = 0; names[i] != '\0'; i++) {
        config->providers[i].name[0] = names[i];
        config->provider_count++;
    }
    return config;
}

static struct sl_supply *supply_at(char name, uint32_t nth)
{
    return &broker->supplies[(uint32_t)(strchr(NAMES, name) - NAMES) * SUPPLIES_PER_PROVIDER + nth];
}

static void set_up(void)
{
    broker = calloc(1, sizeof(*broker));
    first_config = make_config("");
    broker->config = first_config;
    broker->supplies = calloc(SL_SUPPLIES_MAX, sizeof(*broker->supplies));
    broker->route = calloc(1, sizeof(*broker->route));
    sl_route_init(broker->route);
    ck_assert_int_eq(sl_calls_init(&broker->calls, 1000), SL_OK);
    for (size_t i = 0; i < strlen(NAMES) * SUPPLIES_PER_PROVIDER; i++) {
        broker->supplies[i] = (struct sl_supply){.provider = {NAMES[i / SUPPLIES_PER_PROVIDER]},
                                                 .provider_idx = SL_SUPPLY_NO_PROVIDER,
                                                 .route_idx = SL_ROUTE_NONE};
        broker->supply_count++;
    }
    next_task = 1;
}

static void tear_down(void)
{
    sl_settle_free_all(broker);
    sl_calls_fini(&broker->calls);
    free(broker->reloaded);
    free(broker->route);
    free(broker->supplies);
    free(broker);
    free(first_config);
}

static void reload(const char *names)
{
    sl_reload_apply(broker, make_config(names));
}

static void add_call(struct sl_supply *supply, enum sl_call_state state)
{
    struct sl_call *call = sl_calls_add(&broker->calls, next_task++, state);
    struct sl_provider_state *provider = &broker->providers[supply->provider_idx];
    bool has_place = state == SL_CALL_SENT || state == SL_CALL_ORPHAN;

    ck_assert_ptr_nonnull(call);
    call->supply = (uint32_t)(supply - broker->supplies);
    call->attempt = 1;
    sl_route_note_taken(broker->route, supply->route_idx, 1);
    provider->in_flight += has_place;
    broker->in_flight += has_place;
    if (state == SL_CALL_ARMED) {
        sl_call_list_add(&provider->armed, call);
    }
}

static void begin_arming(struct sl_supply *supply, uint32_t count)
{
    ck_assert_uint_eq(supply->arming, 0);
    sl_route_mark_empty(broker->route, supply->route_idx);
    sl_route_note_taken(broker->route, supply->route_idx, count);
    broker->providers[supply->provider_idx].arming += count;
    supply->arming = count;
    supply->was_filled = false;
}

/* The ends under way are on disk. */
static void finish_ends(void)
{
    for (size_t i = 0; i < broker->calls.touched; i++) {
        struct sl_call *call = &broker->calls.all[i];
        if (call->state != SL_CALL_ENDING) {
            continue;
        }
        struct sl_supply *supply = &broker->supplies[call->supply];
        if (supply->route_idx != SL_ROUTE_NONE) {
            sl_route_note_ended(broker->route, supply->route_idx, 1);
        }
        sl_supply_mark_ready(broker, call->supply);
        sl_calls_remove(&broker->calls, call);
    }
    sl_settle_free_all(broker);
}

/* ---- what must hold -------------------------------------------------------------------------- */

struct tally {
    uint32_t armed, placed, all, arming;
};

static void tally_provider(uint32_t idx, struct tally *out)
{
    *out = (struct tally){0};
    for (size_t i = 0; i < broker->calls.touched; i++) {
        const struct sl_call *call = &broker->calls.all[i];
        if (call->state == SL_CALL_FREE || broker->supplies[call->supply].provider_idx != idx) {
            continue;
        }
        out->all++;
        out->armed += call->state == SL_CALL_ARMED;
        out->placed += call->state == SL_CALL_SENT || call->state == SL_CALL_ORPHAN;
    }
    for (uint32_t i = 0; i < broker->supply_count; i++) {
        out->arming += broker->supplies[i].provider_idx == idx ? broker->supplies[i].arming : 0;
    }
}

static void expect_supply_in_place(uint32_t idx)
{
    const struct sl_supply *supply = &broker->supplies[idx];
    const struct sl_provider_config *provider =
        sl_config_find_provider(broker->config, sl_span_str(supply->provider));

    if (provider == NULL) {
        ck_assert_uint_eq(supply->provider_idx, SL_SUPPLY_NO_PROVIDER);
        ck_assert_uint_eq(supply->route_idx, SL_ROUTE_NONE);
        return;
    }
    ck_assert_uint_eq(supply->provider_idx, (uint32_t)(provider - broker->config->providers));
    ck_assert_uint_eq(broker->route_supply[supply->route_idx], idx);
    ck_assert_uint_eq(broker->route->supplies[supply->route_idx].provider_idx,
                      supply->provider_idx);
}

static void expect_consistent(void)
{
    uint32_t route_total = 0;

    for (uint32_t i = 0; i < broker->supply_count; i++) {
        expect_supply_in_place(i);
    }
    for (uint32_t i = 0; i < SL_PROVIDERS_MAX; i++) {
        const struct sl_provider_state *state = &broker->providers[i];
        struct tally tally;
        tally_provider(i, &tally);
        ck_assert_uint_eq(state->armed.count, tally.armed);
        ck_assert_uint_eq(state->in_flight, tally.placed);
        ck_assert_uint_eq(state->arming, tally.arming);
        ck_assert_uint_eq(broker->route->provider_in_flight[i], tally.all + tally.arming);
        route_total += tally.all + tally.arming;
    }
    ck_assert_uint_eq(broker->route->in_flight, route_total);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static const char *const orders[][4] = {
    {"ab", "ab"}, {"ab", "ba"},         {"abc", "cab", "bca", "abc"},
    {"ab", "a"},  {"ab", "b"},          {"ab", "", "ab"},
    {"a", "bac"}, {"ab", "cd", "dbca"}, {"abcdefgh", "hgfedcba", "dh", "abcdefgh"},
};

START_TEST(test_counts_follow_the_name)
{
    reload(orders[_i][0]);
    for (const char *name = orders[_i][0]; *name != '\0'; name++) {
        uint32_t weight = (uint32_t)(*name - 'a') + 1; /* so that no two have the same counts */
        for (uint32_t i = 0; i < weight; i++) {
            add_call(supply_at(*name, 0), SL_CALL_ARMED);
            add_call(supply_at(*name, 1), SL_CALL_SENT);
            add_call(supply_at(*name, 1), SL_CALL_ENDING);
        }
        add_call(supply_at(*name, 0), SL_CALL_ORPHAN);
        begin_arming(supply_at(*name, 2), weight * 10);
        broker->providers[supply_at(*name, 0)->provider_idx].calls = weight * 100;
    }
    expect_consistent();
    for (size_t i = 1; i < SL_ARRAY_LEN(orders[_i]) && orders[_i][i] != NULL; i++) {
        reload(orders[_i][i]);
        expect_consistent();
    }
    const char *last = orders[_i][1];
    for (size_t i = 0; orders[_i][2] == NULL && last[i] != '\0'; i++) {
        bool was_there = strchr(orders[_i][0], last[i]) != NULL;
        ck_assert_uint_eq(broker->providers[i].calls,
                          was_there ? (uint64_t)(last[i] - 'a' + 1) * 100 : 0);
    }
}
END_TEST

START_TEST(test_armed_calls_of_a_removed_provider_go_back)
{
    reload("ab");
    for (int i = 0; i < 5; i++) {
        add_call(supply_at('a', 0), SL_CALL_ARMED);
        add_call(supply_at('b', 0), SL_CALL_ARMED);
    }
    add_call(supply_at('a', 0), SL_CALL_SENT);
    reload("b");
    ck_assert_uint_eq(broker->calls.counts[SL_CALL_ARMED], 5);
    ck_assert_uint_eq(broker->calls.counts[SL_CALL_ENDING], 5);
    ck_assert_uint_eq(broker->calls.counts[SL_CALL_SENT], 1);
    ck_assert_uint_eq(broker->providers[0].armed.count, 5);
    ck_assert_uint_eq(broker->in_flight, 1); /* it holds its place among all */
    finish_ends();
    reload("ba");
    expect_consistent();
    ck_assert_uint_eq(broker->providers[1].in_flight, 1);
}
END_TEST

/* The order in which supplies get their turn now. */
static void expect_turns(const char *want)
{
    struct sl_route_limits limits;
    struct sl_route_pick pick;

    memset(&limits, 0xff, sizeof(limits));
    for (; *want != '\0'; want += 2) {
        ck_assert(sl_route_pick(broker->route, &limits, &pick));
        const struct sl_supply *supply = &broker->supplies[broker->route_supply[pick.supply]];
        ck_assert_int_eq(supply->provider[0], want[0]);
        ck_assert_ptr_eq(supply, supply_at(want[0], (uint32_t)(want[1] - '0')));
        sl_route_mark_empty(broker->route, pick.supply);
    }
    ck_assert(!sl_route_pick(broker->route, &limits, &pick));
}

static void empty_route(void)
{
    struct sl_route_limits limits;
    struct sl_route_pick pick;

    memset(&limits, 0xff, sizeof(limits));
    while (sl_route_pick(broker->route, &limits, &pick)) {
        sl_route_mark_empty(broker->route, pick.supply);
    }
}

static const struct {
    const char *before;
    const char *ready; /* supplies as provider and number, in the order they become ready */
    const char *after;
    const char *turns; /* a provider that was not there: all its supplies, last */
} turns[] = {
    {"ab", "b1a2b0", "ab", "b1a2b0"},
    {"ab", "b1a2b0", "ba", "b1a2b0"},
    {"ab", "b1a2b0", "b", "b1b0"},
    {"ab", "", "ba", ""},
    {"ab", "b1a2b0", "cab", "b1a2b0c0c1c2"},
    {"abc", "c0b0a0c1", "ca", "c0a0c1"},
    {"ab", "a1", "", ""},
};

START_TEST(test_ready_supplies_keep_their_turns)
{
    reload(turns[_i].before);
    empty_route();
    for (const char *at = turns[_i].ready; *at != '\0'; at += 2) {
        sl_supply_mark_ready(
            broker, (uint32_t)(supply_at(at[0], (uint32_t)(at[1] - '0')) - broker->supplies));
    }
    reload(turns[_i].after);
    expect_turns(turns[_i].turns);
}
END_TEST

START_TEST(test_an_arming_supply_is_not_ready_before_it_ends)
{
    reload("a");
    empty_route();
    begin_arming(supply_at('a', 0), 7);
    reload("");
    reload("ba");
    expect_consistent();
    ck_assert_uint_eq(broker->providers[1].arming, 7);
    ck_assert(supply_at('a', 0)->was_filled); /* ready when the operation comes back */
    expect_turns("a1a2b0b1b2");
}
END_TEST

/* ---- any order of events --------------------------------------------------------------------- */

static uint32_t draw(uint64_t *state, uint32_t below)
{
    return (uint32_t)(sl_retry_random(state) % below);
}

/* Some of the names in some order. */
static void draw_names(uint64_t *state, char names[sizeof(NAMES)])
{
    char all[] = NAMES;
    size_t count = draw(state, sizeof(NAMES));

    for (size_t i = 0; i < count; i++) {
        size_t from = i + draw(state, (uint32_t)(sizeof(NAMES) - 1 - i));
        char swapped = all[i];
        all[i] = all[from];
        all[from] = swapped;
    }
    memcpy(names, all, count);
    names[count] = '\0';
}

static void do_something(uint64_t *state)
{
    static const enum sl_call_state states[] = {SL_CALL_ARMED, SL_CALL_SENT, SL_CALL_ORPHAN};
    struct sl_supply *supply = &broker->supplies[draw(state, broker->supply_count)];

    if (supply->provider_idx == SL_SUPPLY_NO_PROVIDER) {
        return;
    }
    if (supply->arming == 0 && draw(state, 4) == 0) {
        begin_arming(supply, 1 + draw(state, 20));
    } else if (broker->calls.size - broker->calls.free_count < CALLS_MAX) {
        add_call(supply, states[draw(state, SL_ARRAY_LEN(states))]);
    }
}

START_TEST(test_any_order_of_events)
{
    uint64_t seed = 0x5eed0000 + (uint64_t)_i;
    char names[sizeof(NAMES)];

    printf("test_any_order_of_events: seed %" PRIx64 "\n", seed);
    for (int round = 0; round < 200; round++) {
        draw_names(&seed, names);
        reload(names);
        expect_consistent();
        for (int i = 0; i < 10; i++) {
            do_something(&seed);
        }
        expect_consistent();
        finish_ends();
        expect_consistent();
    }
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("reload");
    TCase *cases = tcase_create("reload");

    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_loop_test(cases, test_counts_follow_the_name, 0, SL_ARRAY_LEN(orders));
    tcase_add_test(cases, test_armed_calls_of_a_removed_provider_go_back);
    tcase_add_loop_test(cases, test_ready_supplies_keep_their_turns, 0, SL_ARRAY_LEN(turns));
    tcase_add_test(cases, test_an_arming_supply_is_not_ready_before_it_ends);
    tcase_add_loop_test(cases, test_any_order_of_events, 0, 10);
    suite_add_tcase(suite, cases);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(make_suite());

    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
