/*
 * Work on whole jobs in slices: a cancel ends what waits and lists what is called; a purge leaves
 * nothing of the job in any database, also when a crash cut it off.
 */
#include <check.h>
#include <inttypes.h>
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

/* ---- cancel ---------------------------------------------------------------------------------- */

static struct sl_cancel_reply reply; /* 8 KiB */

static void cancel(uint64_t from, uint64_t to)
{
    struct sl_cancel_request request = {.from = from, .to = to, .now_ms = STORE_NOW_MS};

    ck_assert_int_eq(sl_store_cancel_slice(store, &request, &reply), SL_OK);
}

static void cancel_job(void)
{
    cancel(sl_task_number(job, 0), sl_task_number(job, UINT32_MAX - 1));
    ck_assert_uint_gt(reply.next, sl_task_number(job, UINT32_MAX - 1));
}

static uint64_t accept_delayed(const char *id)
{
    struct sl_task_msg msg = store_msg(id, "{}");

    msg.not_before_ms = STORE_NOW_MS + 1000;
    return store_accept(job, &msg);
}

/* Tasks 0, 1 ended; 2, 3 leased; 4, 5 delayed after a call; 6, 7 not before later; 8, 9 ready. */
static void make_mix(void)
{
    struct sl_armed armed[6];

    store_accept_many(job, "t", 6);
    memcpy(armed, store_arm(6).armed, sizeof(armed));
    store_settle(&armed[0], SL_TASK_COMPLETED);
    store_settle(&armed[1], SL_TASK_FAILED);
    store_settle(&armed[4], SL_TASK_DELAYED);
    store_settle(&armed[5], SL_TASK_DELAYED);
    accept_delayed("d-1");
    accept_delayed("d-2");
    store_accept_many(job, "r", 2);
}

START_TEST(test_cancel_of_a_mix)
{
    static const enum sl_task_state after[] = {
        SL_TASK_COMPLETED, SL_TASK_FAILED,    SL_TASK_LEASED,    SL_TASK_LEASED,
        SL_TASK_CANCELLED, SL_TASK_CANCELLED, SL_TASK_CANCELLED, SL_TASK_CANCELLED,
        SL_TASK_CANCELLED, SL_TASK_CANCELLED};

    make_mix();
    cancel_job();
    ck_assert_uint_eq(reply.cancelled, 6);
    ck_assert_uint_eq(reply.was_delayed, 4);
    ck_assert_uint_eq(reply.leased_count, 2);
    ck_assert_uint_eq(reply.leased[0], sl_task_number(job, 2));
    ck_assert_uint_eq(reply.leased[1], sl_task_number(job, 3));
    for (uint32_t i = 0; i < SL_ARRAY_LEN(after); i++) {
        ck_assert_int_eq(store_state(sl_task_number(job, i)), after[i]);
    }
    ck_assert_uint_eq(store_count(SL_DB_READY) + store_count(SL_DB_DELAYED), 0);
    ck_assert_uint_eq(store_count(SL_DB_WAITS), 0);
    ck_assert_uint_eq(store_job_info(job).cancelled, 6);
    ck_assert_uint_eq(sl_store_counters(store)->cancelled, 6);
    struct sl_task_view view = store_view(sl_task_number(job, 4));
    ck_assert_uint_eq(view.attempts, 1); /* the call that was made is not forgotten */
    ck_assert_int_eq(view.err, SL_ERR_CANCELLED);
    cancel_job(); /* again: nothing more, but those that are called */
    ck_assert_uint_eq(reply.cancelled, 0);
    ck_assert_uint_eq(reply.leased_count, 2);
}
END_TEST

START_TEST(test_cancel_of_one_task)
{
    make_mix();
    for (uint32_t i = 0; i < 10; i++) {
        uint64_t task = sl_task_number(job, i);
        bool is_waiting = i >= 4;
        cancel(task, task);
        ck_assert_uint_gt(reply.next, task);
        ck_assert_uint_eq(reply.cancelled, is_waiting);
        ck_assert_uint_eq(reply.leased_count, i == 2 || i == 3);
    }
    ck_assert_uint_eq(store_job_info(job).cancelled, 6);
}
END_TEST

START_TEST(test_cancel_spares_other_jobs)
{
    store_accept_many(job, "t", 3);
    uint32_t other = store_job("other");
    store_accept_many(other, "t", 3);
    cancel_job();
    ck_assert_uint_eq(reply.cancelled, 3);
    ck_assert_uint_eq(store_count(SL_DB_READY), 3);
    ck_assert_uint_eq(store_job_info(other).cancelled, 0);
}
END_TEST

START_TEST(test_cancel_in_slices)
{
    const uint32_t count = 2 * SL_DELETE_SLICE + 500;
    uint64_t next = sl_task_number(job, 0);
    uint64_t cancelled = 0;
    size_t slices = 0;

    store_accept_many(job, "t", count);
    (void)store_arm(SL_DELETE_SLICE); /* a slice of leased tasks, all of them listed */
    do {
        cancel(next, sl_task_number(job, UINT32_MAX - 1));
        next = reply.next;
        cancelled += reply.cancelled;
        ck_assert_uint_eq(reply.leased_count, slices == 0 ? SL_DELETE_SLICE : 0);
        ck_assert_uint_le(reply.cancelled, SL_DELETE_SLICE);
        slices++;
        store_next();
    } while (next <= sl_task_number(job, UINT32_MAX - 1));
    ck_assert_uint_eq(slices, 3);
    ck_assert_uint_eq(cancelled, count - SL_DELETE_SLICE);
}
END_TEST

/* A damaged record holds nobody up; it is set aside when its turn to be called comes. */
START_TEST(test_cancel_goes_past_damage)
{
    store_accept_many(job, "t", 3);
    store_damage_task(sl_task_number(job, 1), -1);
    cancel_job();
    ck_assert_uint_eq(reply.cancelled, 2);
    ck_assert_uint_eq(store_arm(10).damaged, 1);
    struct sl_job_info info = store_job_info(job);
    ck_assert_uint_eq(sl_job_ended(&info), 3);
}
END_TEST

START_TEST(test_cancel_of_a_job_without_tasks)
{
    cancel_job();
    ck_assert_uint_eq(reply.cancelled + reply.leased_count, 0);
}
END_TEST

/* ---- purge ----------------------------------------------------------------------------------- */

/* Keys of these begin with the job's number. */
static const enum sl_db of_job[] = {SL_DB_JOBS,  SL_DB_IDS,     SL_DB_TASKS,
                                    SL_DB_BLOBS, SL_DB_RESULTS, SL_DB_DONE};

static size_t records_of(enum sl_db db, uint32_t wanted)
{
    struct sl_db_cursor cursor;
    struct sl_key first = {0};
    size_t count = 0;
    enum sl_err err = sl_db_seek(store, db, &first, &cursor);

    while (err == SL_OK) {
        count += cursor.key.len >= 4 && sl_get_be32(cursor.key.ptr) == wanted;
        err = sl_db_next(store, &cursor);
    }
    ck_assert_int_eq(err, SL_ERR_NOT_FOUND);
    sl_db_cursor_end(&cursor);
    return count;
}

/* Names carry the job's number as value; meta lists unfinished purges. */
static void check_gone(uint32_t wanted)
{
    struct sl_db_cursor cursor;
    struct sl_key first = {0};
    uint32_t purge;

    for (size_t i = 0; i < SL_ARRAY_LEN(of_job); i++) {
        ck_assert_uint_eq(records_of(of_job[i], wanted), 0);
    }
    enum sl_err err = sl_db_seek(store, SL_DB_NAMES, &first, &cursor);
    while (err == SL_OK) {
        ck_assert_uint_ne(sl_get_be32(cursor.value.ptr), wanted);
        err = sl_db_next(store, &cursor);
    }
    sl_db_cursor_end(&cursor);
    ck_assert(sl_store_next_purge(store, &purge) == SL_ERR_NOT_FOUND || purge != wanted);
}

/* Ends `count` tasks with long bodies and answers: `count` x (1 id + 1 task + 1 result + 1 done +
 * 3 + 4 chunks). */
static void make_finished(uint32_t into, uint32_t count)
{
    static char body[2 * SL_CHUNK_BYTES + 1];
    static char answer[3 * SL_CHUNK_BYTES + 1];

    memset(body, 'b', sizeof(body));
    for (uint32_t i = 0; i < count; i++) {
        char id[16];
        snprintf(id, sizeof(id), "p-%u", i);
        struct sl_task_msg msg = store_msg(id, "");
        msg.body = sl_span_of(body, sizeof(body));
        store_accept(into, &msg);
        struct sl_armed armed = store_arm_one();
        struct sl_settle_item item = store_item(&armed, SL_TASK_COMPLETED);
        item.body = sl_span_of(answer, sizeof(answer));
        ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    }
}

static size_t purge_all(uint32_t purged, size_t slices_max)
{
    bool done = false;
    size_t slices = 0;

    while (!done && slices < slices_max) {
        ck_assert_int_eq(sl_store_purge_slice(store, purged, &done), SL_OK);
        slices++;
        store_next();
    }
    return slices;
}

static const uint32_t purge_sizes[] = {0, 1, 90, 91, 92, 300};

START_TEST(test_nothing_is_left_of_a_purged_job)
{
    uint32_t count = purge_sizes[_i];
    uint32_t before = store_job("before");
    uint32_t purged = store_job("purged");
    uint32_t after = store_job("after");

    make_finished(before, 2);
    make_finished(purged, count);
    make_finished(after, 2);
    size_t records = (size_t)count * 11;
    ck_assert_uint_eq(purge_all(purged, 100), records / SL_DELETE_SLICE + 1);
    check_gone(purged);
    for (size_t i = 1; i < SL_ARRAY_LEN(of_job); i++) {
        size_t each = of_job[i] == SL_DB_BLOBS ? 14 : 2;
        ck_assert_uint_eq(records_of(of_job[i], before), each);
        ck_assert_uint_eq(records_of(of_job[i], after), each);
    }
    ck_assert_uint_eq(sl_store_counters(store)->submitted, count + 4); /* it was */
    ck_assert_uint_eq(sl_store_counters(store)->completed, count + 4);
}
END_TEST

START_TEST(test_a_purge_hides_the_job_at_once)
{
    struct sl_job_info info;
    struct sl_job_request request = {.uid = STORE_UID, .name = sl_span_str("purged")};
    uint32_t below = UINT32_MAX;
    uint32_t purged = store_job("purged");
    struct sl_task_msg msg = store_msg("new", "{}");

    make_finished(purged, 100);
    ck_assert_uint_eq(purge_all(purged, 1), 1);
    ck_assert_int_eq(sl_store_open_job(store, &request, &info), SL_ERR_NOT_FOUND);
    ck_assert_int_eq(store_try_accept(purged, &msg, 1).refused_err, SL_ERR_NOT_FOUND);
    ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_OK);
    ck_assert_str_eq(info.name, "j");
    ck_assert(store_job_info(purged).is_purging);
    uint32_t again = store_job("purged"); /* the name is free for a new one */
    ck_assert_uint_ne(again, purged);
    store_accept_many(again, "t", 1);
    purge_all(purged, 100);
    check_gone(purged);
    ck_assert_uint_eq(store_job("purged"), again);
    ck_assert_uint_eq(store_job_info(again).total, 1);
}
END_TEST

START_TEST(test_a_job_with_open_tasks_is_not_purged)
{
    static const enum sl_task_state states[] = {SL_TASK_READY, SL_TASK_DELAYED, SL_TASK_LEASED};
    bool done = true;

    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    if (states[_i] != SL_TASK_LEASED) {
        store_settle(&armed, states[_i]);
    }
    ck_assert_int_eq(sl_store_purge_slice(store, job, &done), SL_ERR_CONFLICT);
    ck_assert(!done);
    ck_assert(!store_job_info(job).is_purging);
    ck_assert_uint_eq(store_job("j"), job);
}
END_TEST

START_TEST(test_a_job_that_is_not_there)
{
    bool done;
    uint32_t purged;

    ck_assert_int_eq(sl_store_purge_slice(store, job + 1, &done), SL_ERR_NOT_FOUND);
    ck_assert_int_eq(sl_store_next_purge(store, &purged), SL_ERR_NOT_FOUND);
    ck_assert_uint_eq(purge_all(job, 1), 1);
    ck_assert_int_eq(sl_store_purge_slice(store, job, &done), SL_ERR_NOT_FOUND);
    job = store_job("j");
}
END_TEST

/* Cut off by a crash behind every slice, committed or not. */
START_TEST(test_a_purge_that_a_crash_cut_off)
{
    uint32_t purged = store_job("purged");
    uint32_t found = 0;
    bool done = false;
    size_t crashes = 0;

    make_finished(purged, 300);
    store_next();
    while (!done) {
        ck_assert_int_eq(sl_store_purge_slice(store, purged, &done), SL_OK);
        bool is_kept = crashes++ % 2 == 1;
        if (is_kept) {
            store_commit();
        }
        done = done && is_kept;
        store_crash();
        store_begin();
        bool was_begun = crashes > 1;
        ck_assert_int_eq(sl_store_next_purge(store, &found),
                         was_begun && !done ? SL_OK : SL_ERR_NOT_FOUND);
        ck_assert(!was_begun || done || found == purged);
    }
    ck_assert_uint_eq(crashes, 8);
    check_gone(purged);
}
END_TEST

START_TEST(test_several_purges_at_once)
{
    uint32_t purged[3];
    uint32_t found = 0;
    bool done = false;

    for (int i = 0; i < 3; i++) {
        char name[8] = {(char)('a' + i)};
        purged[i] = store_job(name);
        make_finished(purged[i], 95);
        ck_assert_int_eq(sl_store_purge_slice(store, purged[i], &done), SL_OK);
        ck_assert(!done);
    }
    store_commit();
    store_crash();
    store_begin();
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(sl_store_next_purge(store, &found), SL_OK);
        ck_assert_uint_eq(found, purged[i]);
        purge_all(found, 100);
    }
    ck_assert_int_eq(sl_store_next_purge(store, &found), SL_ERR_NOT_FOUND);
    for (int i = 0; i < 3; i++) {
        check_gone(purged[i]);
    }
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store_admin");
    TCase *cancels = tcase_create("cancel");
    TCase *purges = tcase_create("purge");

    tcase_add_checked_fixture(cancels, set_up, tear_down);
    tcase_add_test(cancels, test_cancel_of_a_mix);
    tcase_add_test(cancels, test_cancel_of_one_task);
    tcase_add_test(cancels, test_cancel_spares_other_jobs);
    tcase_add_test(cancels, test_cancel_in_slices);
    tcase_add_test(cancels, test_cancel_goes_past_damage);
    tcase_add_test(cancels, test_cancel_of_a_job_without_tasks);
    tcase_set_timeout(cancels, 60);
    suite_add_tcase(suite, cancels);
    tcase_add_checked_fixture(purges, set_up, tear_down);
    tcase_add_loop_test(purges, test_nothing_is_left_of_a_purged_job, 0, SL_ARRAY_LEN(purge_sizes));
    tcase_add_test(purges, test_a_purge_hides_the_job_at_once);
    tcase_add_loop_test(purges, test_a_job_with_open_tasks_is_not_purged, 0, 3);
    tcase_add_test(purges, test_a_job_that_is_not_there);
    tcase_add_test(purges, test_a_purge_that_a_crash_cut_off);
    tcase_add_test(purges, test_several_purges_at_once);
    tcase_set_timeout(purges, 60);
    suite_add_tcase(suite, purges);
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
