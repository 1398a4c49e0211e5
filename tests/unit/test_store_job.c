/*
 * Jobs: found by name, by owner, by number, listed from the newest on; numbers end as an answer.
 */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/store_case.h"

/* ---- jobs ------------------------------------------------------------------------------------ */

static enum sl_err open_job(uint32_t uid, const char *name, bool may_create,
                            struct sl_job_info *out)
{
    struct sl_job_request request = {
        .uid = uid, .name = sl_span_str(name), .may_create = may_create, .now_ms = STORE_NOW_MS};

    return sl_store_open_job(store, &request, out);
}

START_TEST(test_a_job_is_found_by_name)
{
    struct sl_job_info info;
    struct sl_job_info again;

    store_begin();
    ck_assert_int_eq(open_job(7, "a", false, &info), SL_ERR_NOT_FOUND);
    ck_assert_int_eq(open_job(7, "a", true, &info), SL_OK);
    ck_assert_uint_eq(info.uid, 7);
    ck_assert_str_eq(info.name, "a");
    ck_assert_int_eq(info.created_ms, STORE_NOW_MS);
    ck_assert_uint_eq(info.total + sl_job_ended(&info), 0);
    ck_assert_int_eq(open_job(7, "a", true, &again), SL_OK);
    ck_assert_uint_eq(again.job, info.job);
    store_next();
    ck_assert_int_eq(open_job(7, "a", false, &again), SL_OK);
    ck_assert_uint_eq(again.job, info.job);
    store_commit();
}
END_TEST

START_TEST(test_a_name_belongs_to_its_user)
{
    struct sl_job_info mine;
    struct sl_job_info other;

    store_begin();
    ck_assert_int_eq(open_job(7, "a", true, &mine), SL_OK);
    ck_assert_int_eq(open_job(8, "a", false, &other), SL_ERR_NOT_FOUND);
    ck_assert_int_eq(open_job(8, "a", true, &other), SL_OK);
    ck_assert_uint_ne(mine.job, other.job);
    /* Nor does a user's number flow into the name of another's job. */
    ck_assert_int_eq(open_job(0x61626364, "a", true, &other), SL_OK);
    ck_assert_int_eq(open_job(0x61626364, "b", false, &other), SL_ERR_NOT_FOUND);
    store_commit();
}
END_TEST

START_TEST(test_names_at_their_limit)
{
    char name[SL_NAME_BYTES_MAX + 2];
    struct sl_job_info info;
    struct sl_job_info again;

    memset(name, 'n', sizeof(name));
    name[SL_NAME_BYTES_MAX + 1] = '\0';
    store_begin();
    ck_assert_int_eq(open_job(7, name, true, &info), SL_ERR_INPUT);
    name[SL_NAME_BYTES_MAX] = '\0';
    ck_assert_int_eq(open_job(7, name, true, &info), SL_OK);
    store_commit();
    store_crash();
    store_begin();
    ck_assert_int_eq(open_job(7, name, false, &again), SL_OK);
    ck_assert_uint_eq(again.job, info.job);
    ck_assert_str_eq(again.name, name);
    store_commit();
}
END_TEST

START_TEST(test_generated_names_never_collide)
{
    struct sl_job_info info;
    char name[32];

    store_begin();
    for (uint32_t i = 2; i < 6; i++) { /* what the next jobs would be called */
        snprintf(name, sizeof(name), "job-%" PRIu32, i);
        ck_assert_int_eq(open_job(7, name, true, &info), SL_OK);
    }
    ck_assert_uint_eq(info.job, 4);
    ck_assert_int_eq(open_job(7, "", true, &info), SL_OK);
    ck_assert_str_eq(info.name, "job-6"); /* job-5 is there */
    ck_assert_uint_eq(info.job, 6);
    ck_assert_int_eq(open_job(8, "", true, &info), SL_OK);
    ck_assert_str_eq(info.name, "job-7");
    ck_assert_uint_eq(store_count(SL_DB_JOBS), 6);
    ck_assert_uint_eq(store_count(SL_DB_NAMES), 6);
    store_commit();
}
END_TEST

START_TEST(test_numbers_of_jobs_end_as_an_answer)
{
    struct sl_job_info info;

    store_begin();
    store->counters.next_job = UINT32_MAX;
    ck_assert_int_eq(open_job(7, "last", true, &info), SL_OK);
    ck_assert_uint_eq(info.job, UINT32_MAX);
    ck_assert_int_eq(open_job(7, "more", true, &info), SL_ERR_OVERLOADED);
    ck_assert_int_eq(open_job(7, "", true, &info), SL_ERR_OVERLOADED);
    ck_assert_int_eq(open_job(7, "last", true, &info), SL_OK);
    store_commit();
}
END_TEST

START_TEST(test_a_tasks_index_ends_as_an_answer)
{
    struct sl_cached_job *entry;

    store_begin();
    uint32_t job = store_job("full");
    ck_assert_int_eq(sl_store_job(store, job, &entry), SL_OK);
    entry->rec.next_idx = UINT32_MAX;
    entry->is_dirty = true;
    struct sl_task_msg msg = store_msg("one too many", "{}");
    struct sl_accept_reply reply = store_try_accept(job, &msg, 1);
    ck_assert_int_eq(reply.refused_err, SL_ERR_OVERLOADED);
    ck_assert_int_eq(reply.refused_idx, 0);
    store_commit();
}
END_TEST

START_TEST(test_listing_goes_from_the_newest_on)
{
    struct sl_job_info info;
    uint32_t below = UINT32_MAX;

    store_begin();
    ck_assert_int_eq(sl_store_previous_job(store, 7, true, &below, &info), SL_ERR_NOT_FOUND);
    for (uint32_t i = 0; i < 9; i++) {
        char name[8] = {(char)('a' + i)};
        ck_assert_int_eq(open_job(7 + i % 3, name, true, &info), SL_OK);
    }
    for (uint32_t i = 9; i-- > 0;) {
        ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_OK);
        ck_assert_int_eq(info.name[0], 'a' + (int)i);
    }
    ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_ERR_NOT_FOUND);
    below = UINT32_MAX;
    for (int i = 2; i >= 0; i--) {
        ck_assert_int_eq(sl_store_previous_job(store, 8, false, &below, &info), SL_OK);
        ck_assert_int_eq(info.name[0], 'b' + 3 * i);
        ck_assert_uint_eq(info.uid, 8);
    }
    ck_assert_int_eq(sl_store_previous_job(store, 8, false, &below, &info), SL_ERR_NOT_FOUND);
    store_commit();
}
END_TEST

/* What the same transaction changed is listed as it is now. */
START_TEST(test_listing_sees_its_own_transaction)
{
    struct sl_job_info info;
    uint32_t below = UINT32_MAX;
    bool done;

    store_begin();
    uint32_t job = store_job("j");
    store_accept_many(job, "t", 1);
    ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_OK);
    ck_assert_uint_eq(info.total, 1);
    struct sl_armed armed = store_arm_one();
    store_settle(&armed, SL_TASK_COMPLETED);
    below = UINT32_MAX;
    ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_OK);
    ck_assert_uint_eq(info.completed, 1);
    ck_assert_int_eq(sl_store_purge_slice(store, job, &done), SL_OK);
    below = UINT32_MAX;
    ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_ERR_NOT_FOUND);
    store_commit();
}
END_TEST

/* More jobs in one transaction than are kept at hand. */
START_TEST(test_a_transaction_over_many_jobs)
{
    uint32_t jobs[3 * SL_JOB_CACHE_MAX];

    store_begin();
    for (size_t i = 0; i < SL_ARRAY_LEN(jobs); i++) {
        char name[16];
        snprintf(name, sizeof(name), "j%zu", i);
        jobs[i] = store_job(name);
    }
    for (uint32_t round = 0; round < 4; round++) {
        for (size_t i = 0; i < SL_ARRAY_LEN(jobs); i++) {
            char prefix[16];
            snprintf(prefix, sizeof(prefix), "r%u", round);
            store_accept_many(jobs[i], prefix, 1);
        }
    }
    while (store_arm(100).count > 0) {
    }
    store_commit();
    store_crash();
    store_begin();
    for (size_t i = 0; i < SL_ARRAY_LEN(jobs); i++) {
        ck_assert_uint_eq(store_job_info(jobs[i]).total, 4);
    }
    ck_assert_uint_eq(sl_store_counters(store)->submitted, 4 * SL_ARRAY_LEN(jobs));
    store_commit();
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store_job");
    TCase *tests = tcase_create("jobs");

    tcase_add_checked_fixture(tests, store_set_up, store_tear_down);
    tcase_add_test(tests, test_a_job_is_found_by_name);
    tcase_add_test(tests, test_a_name_belongs_to_its_user);
    tcase_add_test(tests, test_names_at_their_limit);
    tcase_add_test(tests, test_generated_names_never_collide);
    tcase_add_test(tests, test_numbers_of_jobs_end_as_an_answer);
    tcase_add_test(tests, test_a_tasks_index_ends_as_an_answer);
    tcase_add_test(tests, test_listing_goes_from_the_newest_on);
    tcase_add_test(tests, test_listing_sees_its_own_transaction);
    tcase_add_test(tests, test_a_transaction_over_many_jobs);
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
