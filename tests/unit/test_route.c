/*
 * The route policy: edges by hand, and a random run against a plain model. In the random run a
 * simple dispatcher obeys the picks, and the test checks after every step that limits hold, that
 * the state's sums are right, and that each supply with work gets its turn within one round of
 * turns given to supplies that could be served. Seeds are printed.
 */
#include "broker/policy/route.h"

#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/policy/retry.h" /* sl_retry_random */
#include "common/os.h"

static struct sl_route_state state;
static struct sl_route_limits limits;

static void set_up(void)
{
    sl_route_init(&state);
    limits = (struct sl_route_limits){.places = 10000};
    for (size_t i = 0; i < SL_PROVIDERS_MAX; i++) {
        limits.provider_places[i] = 10000;
    }
}

static uint32_t add_ready(uint32_t provider_idx)
{
    uint32_t supply = SL_ROUTE_NONE;

    ck_assert_int_eq(sl_route_add(&state, provider_idx, &supply), SL_OK);
    sl_route_mark_ready(&state, supply);
    return supply;
}

static void expect_pick(uint32_t supply, uint32_t count)
{
    struct sl_route_pick pick;

    ck_assert(sl_route_pick(&state, &limits, &pick));
    ck_assert_uint_eq(pick.supply, supply);
    ck_assert_uint_eq(pick.count, count);
}

static void expect_no_pick(void)
{
    struct sl_route_pick pick;

    ck_assert(!sl_route_pick(&state, &limits, &pick));
}

/* ---- by hand ----------------------------------------------------------------------------------
 */

START_TEST(test_nothing_to_pick)
{
    uint32_t supply;

    expect_no_pick();
    ck_assert_int_eq(sl_route_add(&state, 0, &supply), SL_OK);
    expect_no_pick(); /* it has no ready task */
    sl_route_mark_ready(&state, supply);
    limits.places = 0;
    expect_no_pick();
    limits.places = 1;
    limits.provider_places[0] = 0;
    expect_no_pick();
    limits.provider_places[0] = 1;
    expect_pick(supply, 1);
    sl_route_mark_empty(&state, supply);
    expect_no_pick();
}
END_TEST

START_TEST(test_turns_go_round)
{
    uint32_t a = add_ready(0);
    uint32_t b = add_ready(1);
    uint32_t c = add_ready(0);

    limits.places = 1;
    for (size_t round = 0; round < 5; round++) {
        expect_pick(a, 1);
        expect_pick(b, 1);
        expect_pick(c, 1);
    }
}
END_TEST

START_TEST(test_full_provider_holds_nobody_back)
{
    uint32_t a = add_ready(0);
    uint32_t b = add_ready(1);
    uint32_t c = add_ready(1);

    limits.places = 1;
    limits.provider_places[0] = 0;
    expect_pick(b, 1);
    expect_pick(c, 1);
    expect_pick(b, 1);
    limits.provider_places[0] = 1; /* a waited longest: it is next */
    expect_pick(a, 1);
    expect_pick(c, 1);
}
END_TEST

START_TEST(test_ready_again_gains_nothing)
{
    uint32_t a = add_ready(0);
    uint32_t b = add_ready(0);
    uint32_t c = add_ready(0);

    limits.places = 1;
    expect_pick(a, 1);
    sl_route_mark_empty(&state, a);
    sl_route_mark_ready(&state, a);
    sl_route_mark_ready(&state, a); /* said twice: changes nothing */
    expect_pick(b, 1);
    expect_pick(c, 1);
    expect_pick(a, 1);
}
END_TEST

/* places, the provider's places, supplies with work at it, at others: the share of the first. */
static const struct {
    uint32_t places;
    uint32_t provider_places;
    uint32_t here;
    uint32_t elsewhere;
    uint32_t count;
} share_cases[] = {
    {1, 1, 1, 0, 1},
    {64, 64, 1, 0, 64},
    {64, 10, 1, 0, 10},
    {10, 64, 1, 0, 10},
    {64, 64, 4, 0, 16},
    {64, 64, 1, 3, 16},
    {64, 8, 4, 4, 2},
    {3, 3, 4, 4, 1}, /* fewer places than supplies: one each, some next time */
    {65536, 65536, 1, 0, SL_ROUTE_TAKE_MAX},
    {UINT32_MAX, UINT32_MAX, 1, 0, SL_ROUTE_TAKE_MAX},
};

START_TEST(test_share)
{
    uint32_t first = add_ready(0);

    for (uint32_t i = 1; i < share_cases[_i].here; i++) {
        add_ready(0);
    }
    for (uint32_t i = 0; i < share_cases[_i].elsewhere; i++) {
        add_ready(1);
    }
    limits.places = share_cases[_i].places;
    limits.provider_places[0] = share_cases[_i].provider_places;
    expect_pick(first, share_cases[_i].count);
}
END_TEST

START_TEST(test_full_and_free_again)
{
    uint32_t supply = SL_ROUTE_NONE;

    for (uint32_t i = 0; i < SL_SUPPLIES_MAX; i++) {
        ck_assert_int_eq(sl_route_add(&state, i % SL_PROVIDERS_MAX, &supply), SL_OK);
        ck_assert_uint_eq(supply, i);
    }
    ck_assert_int_eq(sl_route_add(&state, 0, &supply), SL_ERR_FULL);
    sl_route_mark_ready(&state, 17);
    sl_route_remove(&state, 17); /* also takes it out of its list */
    expect_no_pick();
    ck_assert_int_eq(sl_route_add(&state, 3, &supply), SL_OK);
    ck_assert_uint_eq(supply, 17);
    ck_assert_uint_eq(state.supply_count, SL_SUPPLIES_MAX);
    sl_route_mark_ready(&state, 17);
    expect_pick(17, SL_ROUTE_TAKE_MAX);
}
END_TEST

START_TEST(test_remove_with_calls_in_flight_aborts)
{
    uint32_t supply = add_ready(0);

    sl_route_note_taken(&state, supply, 1);
    sl_route_remove(&state, supply);
}
END_TEST

START_TEST(test_more_ended_than_taken_aborts)
{
    uint32_t supply = add_ready(0);

    sl_route_note_taken(&state, supply, 2);
    sl_route_note_ended(&state, supply, 3);
}
END_TEST

START_TEST(test_unknown_supply_aborts)
{
    sl_route_mark_ready(&state, 0);
}
END_TEST

/* ---- against a model --------------------------------------------------------------------------
 */

/* Like ck_assert, but silent while it holds: libcheck writes to a pipe at each of its own. */
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            ck_abort_msg("step %zu: %s", step, #condition);                                        \
        }                                                                                          \
    } while (0)

enum { MODEL_SUPPLIES = 40, MODEL_PROVIDERS = 5, MODEL_STEPS = 200000 };

/* What the test knows by itself about one supply. */
struct model_supply {
    uint32_t idx; /* SL_ROUTE_NONE: not added */
    uint32_t provider_idx;
    uint32_t ready;
    uint32_t in_flight;
    uint64_t passed_over; /* picks given to others while it could have been served */
};

static struct model_supply model[MODEL_SUPPLIES];
static uint32_t places_max;
static uint32_t provider_places_max[MODEL_PROVIDERS];
static uint64_t random_state;
static size_t step;

static uint32_t draw(uint32_t below)
{
    return (uint32_t)(sl_retry_random(&random_state) % below);
}

static uint32_t model_in_flight(uint32_t provider_idx)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < MODEL_SUPPLIES; i++) {
        bool counts = provider_idx == SL_ROUTE_NONE || model[i].provider_idx == provider_idx;
        sum += counts ? model[i].in_flight : 0;
    }
    return sum;
}

static void set_limits_from_model(void)
{
    limits.places = places_max - model_in_flight(SL_ROUTE_NONE);
    for (uint32_t i = 0; i < MODEL_PROVIDERS; i++) {
        limits.provider_places[i] = provider_places_max[i] - model_in_flight(i);
    }
}

static bool can_be_served(const struct model_supply *supply)
{
    return supply->idx != SL_ROUTE_NONE && supply->ready > 0 && limits.places > 0 &&
           limits.provider_places[supply->provider_idx] > 0;
}

static struct model_supply *model_of(uint32_t idx)
{
    for (size_t i = 0; i < MODEL_SUPPLIES; i++) {
        if (model[i].idx == idx) {
            return &model[i];
        }
    }
    ck_abort_msg("the state picked supply %u, which was never added", idx);
    return NULL;
}

/* No supply that could be served sees more picks than there are others before its own. */
static void check_round(struct model_supply *picked)
{
    for (size_t i = 0; i < MODEL_SUPPLIES; i++) {
        if (&model[i] == picked) {
            model[i].passed_over = 0;
        } else if (can_be_served(&model[i])) {
            model[i].passed_over++;
            REQUIRE(model[i].passed_over < MODEL_SUPPLIES);
        }
    }
}

static void step_pick(void)
{
    struct sl_route_pick pick;
    size_t servable = 0;

    set_limits_from_model();
    for (size_t i = 0; i < MODEL_SUPPLIES; i++) {
        servable += can_be_served(&model[i]);
    }
    bool has_pick = sl_route_pick(&state, &limits, &pick);
    REQUIRE(has_pick == (servable > 0));
    if (!has_pick) {
        return;
    }
    struct model_supply *picked = model_of(pick.supply);
    REQUIRE(can_be_served(picked));
    REQUIRE(pick.provider_idx == picked->provider_idx);
    REQUIRE(pick.count >= 1);
    REQUIRE(pick.count <= limits.places);
    REQUIRE(pick.count <= limits.provider_places[pick.provider_idx]);
    check_round(picked);
    uint32_t taken = SL_MIN(pick.count, picked->ready);
    picked->ready -= taken;
    picked->in_flight += taken;
    sl_route_note_taken(&state, pick.supply, taken);
    if (picked->ready == 0) {
        sl_route_mark_empty(&state, pick.supply);
    }
}

static void step_arrive(void)
{
    struct model_supply *supply = &model[draw(MODEL_SUPPLIES)];

    if (supply->idx == SL_ROUTE_NONE) {
        supply->provider_idx = draw(MODEL_PROVIDERS);
        supply->passed_over = 0;
        REQUIRE(sl_route_add(&state, supply->provider_idx, &supply->idx) == SL_OK);
    }
    supply->passed_over = supply->ready == 0 ? 0 : supply->passed_over;
    supply->ready += 1 + draw(8);
    sl_route_mark_ready(&state, supply->idx);
}

static void step_end(void)
{
    struct model_supply *supply = &model[draw(MODEL_SUPPLIES)];

    if (supply->idx == SL_ROUTE_NONE) {
        return;
    }
    uint32_t ended = supply->in_flight == 0 ? 0 : 1 + draw(supply->in_flight);
    supply->in_flight -= ended;
    sl_route_note_ended(&state, supply->idx, ended);
    bool is_done = supply->ready == 0 && supply->in_flight == 0;
    if (is_done && draw(2) == 0) {
        sl_route_remove(&state, supply->idx);
        supply->idx = SL_ROUTE_NONE;
    }
}

static void check_sums(void)
{
    uint32_t ready = 0;
    uint32_t used = 0;

    for (size_t i = 0; i < MODEL_SUPPLIES; i++) {
        ready += model[i].idx != SL_ROUTE_NONE && model[i].ready > 0;
        used += model[i].idx != SL_ROUTE_NONE;
    }
    REQUIRE(state.ready_count == ready);
    REQUIRE(state.supply_count == used);
    REQUIRE(state.in_flight == model_in_flight(SL_ROUTE_NONE));
    REQUIRE(state.in_flight <= places_max);
    for (uint32_t i = 0; i < MODEL_PROVIDERS; i++) {
        REQUIRE(state.provider_in_flight[i] == model_in_flight(i));
        REQUIRE(state.provider_in_flight[i] <= provider_places_max[i]);
    }
}

static void start_model(uint64_t seed)
{
    random_state = seed;
    places_max = 1 + draw(64);
    for (size_t i = 0; i < MODEL_PROVIDERS; i++) {
        provider_places_max[i] = draw(32);
    }
    for (size_t i = 0; i < MODEL_SUPPLIES; i++) {
        model[i] = (struct model_supply){.idx = SL_ROUTE_NONE};
    }
}

START_TEST(test_random_run_against_model)
{
    static void (*const steps[])(void) = {step_pick, step_pick, step_arrive, step_end};
    uint64_t seed = (uint64_t)_i;

    if (_i == 0) {
        sl_os_random(&seed, sizeof(seed));
    }
    printf("test_random_run_against_model: seed=%" PRIu64 "\n", seed);
    start_model(seed);
    for (step = 0; step < MODEL_STEPS; step++) {
        steps[draw(SL_ARRAY_LEN(steps))]();
        check_sums();
    }
}
END_TEST

/* One supply with a million tasks, many with few: all few are done within their own count of
 * rounds, whatever the big one still has. */
START_TEST(test_big_supply_does_not_starve_small_ones)
{
    uint32_t big = add_ready(0);
    uint32_t small[99];
    size_t big_taken = 0;

    for (size_t i = 0; i < SL_ARRAY_LEN(small); i++) {
        small[i] = add_ready(0);
    }
    limits.places = 1;
    for (size_t i = 0; i < 10 * (SL_ARRAY_LEN(small) + 1); i++) {
        struct sl_route_pick pick;
        ck_assert(sl_route_pick(&state, &limits, &pick));
        big_taken += pick.supply == big ? pick.count : 0;
    }
    ck_assert_uint_eq(big_taken, 10);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("route");
    TCase *cases = tcase_create("route");

    tcase_add_checked_fixture(cases, set_up, NULL);
    tcase_add_test(cases, test_nothing_to_pick);
    tcase_add_test(cases, test_turns_go_round);
    tcase_add_test(cases, test_full_provider_holds_nobody_back);
    tcase_add_test(cases, test_ready_again_gains_nothing);
    tcase_add_loop_test(cases, test_share, 0, SL_ARRAY_LEN(share_cases));
    tcase_add_test(cases, test_full_and_free_again);
    tcase_add_test(cases, test_big_supply_does_not_starve_small_ones);
    tcase_add_loop_test(cases, test_random_run_against_model, 0, 4);
    tcase_add_test_raise_signal(cases, test_remove_with_calls_in_flight_aborts, SIGABRT);
    tcase_add_test_raise_signal(cases, test_more_ended_than_taken_aborts, SIGABRT);
    tcase_add_test_raise_signal(cases, test_unknown_supply_aborts, SIGABRT);
    tcase_set_timeout(cases, 60);
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
