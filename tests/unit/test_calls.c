/*
 * The table of calls under a lease: full, given back, found among those of one bucket, counted by
 * state; and its lists. A random walk against a plain array; the seed is printed.
 */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/broker.h"
#include "broker/policy/retry.h"
#include "common/hash.h"

#define SIZE 500

static struct sl_calls calls;

static void set_up(void)
{
    ck_assert_int_eq(sl_calls_init(&calls, SIZE), SL_OK);
}

static void tear_down(void)
{
    sl_calls_fini(&calls);
}

/* ---- the table ------------------------------------------------------------------------------- */

START_TEST(test_a_table_that_is_full)
{
    struct sl_call *added[SIZE];

    ck_assert_ptr_null(sl_calls_find(&calls, 0));
    for (uint64_t i = 0; i < SIZE; i++) {
        ck_assert_uint_eq(calls.free_count, SIZE - i);
        added[i] = sl_calls_add(&calls, i, SL_CALL_ARMED);
        ck_assert_ptr_nonnull(added[i]);
        ck_assert_uint_eq(added[i]->task, i);
        ck_assert_int_eq(added[i]->state, SL_CALL_ARMED);
    }
    ck_assert_uint_eq(calls.free_count, 0);
    ck_assert_ptr_null(sl_calls_add(&calls, SIZE, SL_CALL_ARMED));
    ck_assert_ptr_null(sl_calls_find(&calls, SIZE));
    ck_assert_uint_eq(calls.counts[SL_CALL_ARMED], SIZE);
    sl_calls_remove(&calls, added[17]);
    ck_assert_uint_eq(calls.free_count, 1);
    ck_assert_ptr_null(sl_calls_find(&calls, 17));
    struct sl_call *again = sl_calls_add(&calls, SIZE, SL_CALL_ORPHAN);
    ck_assert_ptr_eq(again, added[17]);
    ck_assert_ptr_null(sl_calls_add(&calls, SIZE + 1, SL_CALL_ARMED));
    for (uint64_t i = 0; i <= SIZE; i++) {
        struct sl_call *found = sl_calls_find(&calls, i);
        ck_assert_ptr_eq(found, i == 17 ? NULL : i == SIZE ? again : added[i]);
    }
}
END_TEST

START_TEST(test_a_new_call_holds_nothing_of_the_old)
{
    struct sl_call *call = sl_calls_add(&calls, 7, SL_CALL_SENT);

    call->lease = call->generation = 99;
    call->is_cancelled = true;
    call->attempt = call->deaths = 9;
    call->body_bytes = 1000;
    sl_calls_remove(&calls, call);
    struct sl_call *again = sl_calls_add(&calls, 8, SL_CALL_ARMED);
    ck_assert_ptr_eq(again, call);
    ck_assert_uint_eq(again->lease + again->generation + again->body_bytes, 0);
    ck_assert_uint_eq(again->attempt + again->deaths, 0);
    ck_assert(!again->is_cancelled);
    ck_assert_ptr_null(again->worker);
    ck_assert_ptr_null(again->batch);
    ck_assert_ptr_null(again->next);
}
END_TEST

START_TEST(test_states_are_counted)
{
    struct sl_call *call = sl_calls_add(&calls, 1, SL_CALL_ARMED);
    static const enum sl_call_state path[] = {SL_CALL_SENT, SL_CALL_ENDING, SL_CALL_ORPHAN,
                                              SL_CALL_SENT, SL_CALL_SENT};

    ck_assert_ptr_nonnull(sl_calls_add(&calls, 2, SL_CALL_ARMED));
    for (size_t i = 0; i < SL_ARRAY_LEN(path); i++) {
        sl_calls_set_state(&calls, call, path[i]);
        ck_assert_int_eq(call->state, path[i]);
        for (int state = SL_CALL_ARMED; state <= SL_CALL_ENDING; state++) {
            uint32_t expected =
                (state == (int)path[i] ? 1U : 0U) + (state == SL_CALL_ARMED ? 1U : 0U);
            ck_assert_uint_eq(calls.counts[state], expected);
        }
    }
    sl_calls_remove(&calls, call);
    ck_assert_uint_eq(calls.counts[SL_CALL_SENT], 0);
    ck_assert_uint_eq(calls.counts[SL_CALL_ARMED], 1);
}
END_TEST

START_TEST(test_a_free_call_has_no_other_state)
{
    struct sl_call *call = sl_calls_add(&calls, 1, SL_CALL_ARMED);

    sl_calls_remove(&calls, call);
    sl_calls_set_state(&calls, call, SL_CALL_SENT);
}
END_TEST

START_TEST(test_nothing_is_added_as_free)
{
    ck_assert_ptr_nonnull(sl_calls_add(&calls, 1, SL_CALL_FREE));
}
END_TEST

/* Tasks whose hash is that of task 0 in as many bits as the table looks at. */
static size_t colliding(uint64_t *tasks, size_t count)
{
    uint64_t mask = calls.bucket_count - 1;
    uint64_t bucket = sl_hash_word(0) & mask;
    size_t found = 0;

    for (uint64_t task = 0; found < count; task++) {
        if ((sl_hash_word(task) & mask) == bucket) {
            tasks[found++] = task;
        }
    }
    return found;
}

/* Removed from the front, the middle and the end of one bucket: in each order of four. */
START_TEST(test_calls_of_one_bucket)
{
    uint64_t tasks[4];
    size_t count = colliding(tasks, 4);
    int order = _i;
    bool is_there[4] = {true, true, true, true};

    for (size_t i = 0; i < count; i++) {
        ck_assert_ptr_nonnull(sl_calls_add(&calls, tasks[i], SL_CALL_ARMED));
    }
    for (size_t left = count; left > 0; left--) {
        size_t nth = (size_t)order % left; /* of those that are there */
        order /= (int)left;
        size_t at = 0;
        while (!is_there[at] || nth > 0) {
            nth -= is_there[at];
            at++;
        }
        sl_calls_remove(&calls, sl_calls_find(&calls, tasks[at]));
        is_there[at] = false;
        for (size_t i = 0; i < count; i++) {
            struct sl_call *found = sl_calls_find(&calls, tasks[i]);
            ck_assert_int_eq(found != NULL, is_there[i]);
            ck_assert(found == NULL || found->task == tasks[i]);
        }
    }
    ck_assert_uint_eq(calls.free_count, SIZE);
}
END_TEST

START_TEST(test_a_call_of_another_table_aborts)
{
    struct sl_call stranger = {.task = 5, .state = SL_CALL_ARMED};

    sl_calls_remove(&calls, &stranger);
}
END_TEST

#define WALK_TASKS 900 /* more than the table holds */
#define WALK_STEPS 100000

START_TEST(test_random_walk)
{
    struct sl_call *model[WALK_TASKS] = {NULL};
    uint64_t seed;
    size_t count = 0;

    sl_os_random(&seed, sizeof(seed));
    printf("calls: test_random_walk: seed=%" PRIu64 "\n", seed);
    for (int step = 0; step < WALK_STEPS; step++) {
        uint32_t task = (uint32_t)(sl_retry_random(&seed) % WALK_TASKS);
        ck_assert_ptr_eq(sl_calls_find(&calls, task), model[task]);
        if (model[task] != NULL) {
            sl_calls_remove(&calls, model[task]);
            model[task] = NULL;
            count--;
        } else {
            model[task] = sl_calls_add(&calls, task, SL_CALL_SENT);
            ck_assert_int_eq(model[task] != NULL, count < SIZE);
            count += model[task] != NULL;
        }
        ck_assert_uint_eq(calls.free_count, SIZE - count);
        ck_assert_uint_eq(calls.counts[SL_CALL_SENT], count);
    }
    for (uint32_t task = 0; task < WALK_TASKS; task++) {
        ck_assert_ptr_eq(sl_calls_find(&calls, task), model[task]);
    }
}
END_TEST

/* ---- bodies ---------------------------------------------------------------------------------- */

/* The address sanitizer says when one is freed too early, twice or never. */
START_TEST(test_a_batch_goes_with_its_last_call)
{
    struct sl_body_batch *batch = calloc(1, sizeof(*batch));
    struct sl_call *holders[5];

    ck_assert_ptr_nonnull(batch);
    batch->bytes = malloc(10);
    for (uint64_t i = 0; i < 5; i++) {
        holders[i] = sl_calls_add(&calls, i, SL_CALL_ARMED);
        holders[i]->batch = batch;
        batch->refs++;
    }
    sl_calls_drop_body(holders[2]);
    sl_calls_drop_body(holders[2]); /* has none any more */
    sl_calls_remove(&calls, holders[2]);
    sl_calls_remove(&calls, holders[0]);
    ck_assert_uint_eq(batch->refs, 3);
    memset(batch->bytes, 1, 10);
    sl_calls_drop_body(holders[1]);
    sl_calls_remove(&calls, holders[4]);
    ck_assert_uint_eq(batch->refs, 1);
} /* the last one by the end of the table */
END_TEST

/* ---- lists ----------------------------------------------------------------------------------- */

static struct sl_call links[7];

static void check_list(const struct sl_call_list *list, const char *expected)
{
    const struct sl_call *at = list->first;
    const struct sl_call *last = NULL;

    for (size_t i = 0; expected[i] != '\0'; i++) {
        ck_assert_ptr_eq(at, &links[expected[i] - '0']);
        last = at;
        at = at->next;
    }
    ck_assert_ptr_null(at);
    ck_assert_ptr_eq(list->last, last);
    ck_assert_uint_eq(list->count, strlen(expected));
}

static const struct {
    const char *add;
    const char *remove;
    const char *left;
} lists[] = {
    {"", "", ""},       {"0", "", "0"},     {"0", "0", ""},         {"01", "0", "1"},
    {"01", "1", "0"},   {"01", "10", ""},   {"012", "1", "02"},     {"012", "2", "01"},
    {"012", "0", "12"}, {"012", "021", ""}, {"01234", "42", "013"}, {"012345", "501", "234"},
};

START_TEST(test_lists)
{
    struct sl_call_list list = {0};

    for (const char *at = lists[_i].add; *at != '\0'; at++) {
        sl_call_list_add(&list, &links[*at - '0']);
    }
    check_list(&list, lists[_i].add);
    for (const char *at = lists[_i].remove; *at != '\0'; at++) {
        sl_call_list_remove(&list, &links[*at - '0']);
        ck_assert_ptr_null(links[*at - '0'].next);
    }
    check_list(&list, lists[_i].left);
    sl_call_list_add(&list, &links[6]); /* what was removed did not break the end */
    for (const char *at = lists[_i].left; *at != '\0'; at++) {
        ck_assert_ptr_eq(sl_call_list_take(&list), &links[*at - '0']);
    }
    ck_assert_ptr_eq(sl_call_list_take(&list), &links[6]);
    ck_assert_ptr_null(sl_call_list_take(&list));
    check_list(&list, "");
}
END_TEST

START_TEST(test_what_is_not_in_the_list_aborts)
{
    struct sl_call_list list = {0};

    sl_call_list_add(&list, &links[0]);
    sl_call_list_remove(&list, &links[1]);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("calls");
    TCase *table = tcase_create("table");
    TCase *list = tcase_create("lists");

    tcase_add_checked_fixture(table, set_up, tear_down);
    tcase_add_test(table, test_a_table_that_is_full);
    tcase_add_test(table, test_a_new_call_holds_nothing_of_the_old);
    tcase_add_test(table, test_states_are_counted);
    tcase_add_test_raise_signal(table, test_a_free_call_has_no_other_state, SIGABRT);
    tcase_add_test_raise_signal(table, test_nothing_is_added_as_free, SIGABRT);
    tcase_add_loop_test(table, test_calls_of_one_bucket, 0, 24);
    tcase_add_test_raise_signal(table, test_a_call_of_another_table_aborts, SIGABRT);
    tcase_add_test(table, test_random_walk);
    tcase_add_test(table, test_a_batch_goes_with_its_last_call);
    suite_add_tcase(suite, table);
    tcase_add_loop_test(list, test_lists, 0, SL_ARRAY_LEN(lists));
    tcase_add_test_raise_signal(list, test_what_is_not_in_the_list_aborts, SIGABRT);
    suite_add_tcase(suite, list);
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
