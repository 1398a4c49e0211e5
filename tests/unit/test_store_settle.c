/*
 * From a call to its end: settle into each state, what is carried along, and retries with their due
 * times.
 */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/store_case.h"

static uint32_t job;

static void set_up(void)
{
    store_set_up();
    store_begin();
    job = store_job("j");
}

static void tear_down(void)
{
    store_commit();
    store_tear_down();
}

/* ---- settle ---------------------------------------------------------------------------------- */

static const struct {
    enum sl_task_state to;
    uint64_t completed, failed, cancelled, expired, retries;
    size_t ready, delayed, results;
} settles[] = {
    {SL_TASK_COMPLETED, 1, 0, 0, 0, 0, 0, 0, 1}, {SL_TASK_FAILED, 0, 1, 0, 0, 0, 0, 0, 1},
    {SL_TASK_CANCELLED, 0, 0, 1, 0, 0, 0, 0, 1}, {SL_TASK_EXPIRED, 0, 0, 0, 1, 0, 0, 0, 1},
    {SL_TASK_READY, 0, 0, 0, 0, 0, 1, 0, 0},     {SL_TASK_DELAYED, 0, 0, 0, 0, 1, 0, 1, 0},
};

START_TEST(test_settle_to_each_state)
{
    uint64_t task = store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    const struct sl_counters_rec *counters = sl_store_counters(store);
    bool is_end = sl_task_state_is_terminal(settles[_i].to);

    store_settle(&armed, settles[_i].to);
    store_commit();
    store_crash();
    store_begin();
    counters = sl_store_counters(store);
    ck_assert_int_eq(store_state(task), settles[_i].to);
    ck_assert_uint_eq(counters->submitted, 1);
    ck_assert_uint_eq(counters->completed, settles[_i].completed);
    ck_assert_uint_eq(counters->failed, settles[_i].failed);
    ck_assert_uint_eq(counters->cancelled, settles[_i].cancelled);
    ck_assert_uint_eq(counters->expired, settles[_i].expired);
    ck_assert_uint_eq(counters->retries, settles[_i].retries);
    ck_assert_uint_eq(counters->provider_calls, 1);
    ck_assert_uint_eq(counters->input_tokens, is_end ? 3 : 0);
    ck_assert_uint_eq(counters->output_tokens, is_end ? 5 : 0);
    struct sl_job_info info = store_job_info(job);
    ck_assert_uint_eq(info.completed, settles[_i].completed);
    ck_assert_uint_eq(info.failed, settles[_i].failed);
    ck_assert_uint_eq(info.cancelled, settles[_i].cancelled);
    ck_assert_uint_eq(info.expired, settles[_i].expired);
    ck_assert_uint_eq(store_count(SL_DB_READY), settles[_i].ready);
    ck_assert_uint_eq(store_count(SL_DB_DELAYED), settles[_i].delayed);
    ck_assert_uint_eq(store_count(SL_DB_WAITS), settles[_i].delayed);
    ck_assert_uint_eq(store_count(SL_DB_RESULTS), settles[_i].results);
    ck_assert_uint_eq(store_count(SL_DB_DONE), settles[_i].results);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 0);
}
END_TEST

START_TEST(test_a_call_that_was_not_made_does_not_count)
{
    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    struct sl_settle_item item = store_item(&armed, SL_TASK_READY);

    item.was_called = false;
    item.attempts = 0;
    ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    ck_assert_uint_eq(sl_store_counters(store)->provider_calls, 0);
    ck_assert_uint_eq(store_arm_one().attempt, 1);
}
END_TEST

/* What a task went through goes along with it through every index. */
START_TEST(test_attempts_and_deaths_are_carried)
{
    uint64_t task = store_accept_many(job, "t", 1);
    struct sl_promote_reply promoted;

    for (unsigned round = 1; round <= 40; round++) {
        struct sl_armed armed = store_arm_one();
        ck_assert_uint_eq(armed.attempt, round);
        ck_assert_uint_eq(armed.deaths, (round - 1) / 2);
        struct sl_settle_item item =
            store_item(&armed, round % 2 == 0 ? SL_TASK_READY : SL_TASK_DELAYED);
        item.deaths = (uint16_t)(round / 2);
        item.due_ms = round;
        ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
        struct sl_task_view view = store_view(task);
        ck_assert_uint_eq(view.attempts, round);
        ck_assert_uint_eq(view.deaths, round / 2);
        ck_assert_int_eq(sl_store_promote(store, STORE_NOW_MS, &promoted), SL_OK);
        ck_assert_uint_eq(promoted.count, round % 2);
        store_next();
    }
}
END_TEST

START_TEST(test_a_second_end_aborts)
{
    store_expect_abort();
    store_accept_many(job, "t", 2);
    struct sl_armed armed = store_arm(2).armed[0];
    store_settle(&armed, SL_TASK_COMPLETED);
    store_settle(&armed, SL_TASK_COMPLETED);
}
END_TEST

START_TEST(test_an_end_without_its_lease_aborts)
{
    store_expect_abort();
    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    armed.lease++;
    store_settle(&armed, SL_TASK_COMPLETED);
}
END_TEST

static const enum sl_task_state illegal_ends[] = {SL_TASK_LEASED, SL_TASK_BLOCKED};

START_TEST(test_an_illegal_change_aborts)
{
    store_expect_abort();
    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    store_settle(&armed, illegal_ends[_i]);
}
END_TEST

/* ---- promote --------------------------------------------------------------------------------- */

static void accept_due(uint32_t first, uint32_t count, int64_t due_ms)
{
    for (uint32_t i = first; i < first + count; i++) {
        char id[16];
        snprintf(id, sizeof(id), "d%u", i);
        struct sl_task_msg msg = store_msg(id, "{}");
        msg.not_before_ms = due_ms;
        store_accept(job, &msg);
    }
}

START_TEST(test_promote_by_due_time)
{
    struct sl_promote_reply reply;

    ck_assert_int_eq(sl_store_promote(store, STORE_NOW_MS, &reply), SL_OK);
    ck_assert_uint_eq(reply.count, 0);
    ck_assert_int_eq(reply.next_due_ms, INT64_MAX);
    accept_due(0, 1, STORE_NOW_MS + 30);
    accept_due(1, 1, STORE_NOW_MS + 10);
    accept_due(2, 1, STORE_NOW_MS + 20);
    static const struct {
        int64_t now_ms;
        uint32_t count;
        int64_t next_due_ms;
    } steps[] = {
        {9, 0, 10}, {10, 1, 20}, {19, 0, 20}, {1000, 2, INT64_MAX}, {2000, 0, INT64_MAX},
    };
    for (size_t i = 0; i < SL_ARRAY_LEN(steps); i++) {
        int64_t next = steps[i].next_due_ms;
        ck_assert_int_eq(sl_store_promote(store, STORE_NOW_MS + steps[i].now_ms, &reply), SL_OK);
        ck_assert_uint_eq(reply.count, steps[i].count);
        ck_assert_int_eq(reply.next_due_ms, next == INT64_MAX ? next : STORE_NOW_MS + next);
    }
    ck_assert_uint_eq(store_count(SL_DB_READY), 3);
    ck_assert_uint_eq(store_count(SL_DB_WAITS), 0);
}
END_TEST

START_TEST(test_promote_is_bounded)
{
    struct sl_promote_reply reply;
    const uint32_t bound = SL_ARRAY_LEN(reply.supplies);

    accept_due(0, 2 * bound, STORE_NOW_MS + 5);
    accept_due(2 * bound, 1, STORE_NOW_MS + 6);
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(sl_store_promote(store, STORE_NOW_MS + 5, &reply), SL_OK);
        ck_assert_uint_eq(reply.count, bound);
        ck_assert_int_eq(reply.next_due_ms, STORE_NOW_MS + 5 + round); /* due now: at once again */
        store_next();
    }
    ck_assert_uint_eq(store_count(SL_DB_DELAYED), 1);
    uint64_t waiting = 0;
    ck_assert_int_eq(sl_store_count_delayed(store, &waiting), SL_OK);
    ck_assert_uint_eq(waiting, 1);
}
END_TEST

START_TEST(test_promote_names_the_supplies)
{
    static const uint32_t supplies[] = {7, 3, 7, 9};
    struct sl_promote_reply promoted;

    for (uint32_t i = 0; i < 4; i++) {
        char id[8] = {(char)('a' + (int)i)};
        struct sl_task_msg msg = store_msg(id, "{}");
        struct sl_accept_reply reply;
        struct sl_accept_request request = {.job = job,
                                            .tasks = &msg,
                                            .supplies = &supplies[i],
                                            .count = 1,
                                            .now_ms = STORE_NOW_MS};
        msg.not_before_ms = STORE_NOW_MS + 1 + i;
        ck_assert_int_eq(sl_store_accept(store, &request, &reply), SL_OK);
    }
    ck_assert_int_eq(sl_store_promote(store, STORE_NOW_MS + 10, &promoted), SL_OK);
    ck_assert_uint_eq(promoted.count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_uint_eq(promoted.supplies[i], supplies[i]);
    }
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store_settle");
    TCase *tests = tcase_create("settle");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, test_settle_to_each_state, 0, SL_ARRAY_LEN(settles));
    tcase_add_test(tests, test_a_call_that_was_not_made_does_not_count);
    tcase_add_test(tests, test_attempts_and_deaths_are_carried);
    tcase_add_test_raise_signal(tests, test_a_second_end_aborts, SIGABRT);
    tcase_add_test_raise_signal(tests, test_an_end_without_its_lease_aborts, SIGABRT);
    tcase_add_loop_test_raise_signal(tests, test_an_illegal_change_aborts, SIGABRT, 0,
                                     SL_ARRAY_LEN(illegal_ends));
    tcase_add_test(tests, test_promote_by_due_time);
    tcase_add_test(tests, test_promote_is_bounded);
    tcase_add_test(tests, test_promote_names_the_supplies);
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
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
