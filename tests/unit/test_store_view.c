/*
 * Damaged results are answered as such and never served; and what is on disk about one task, in
 * every state.
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

/* ---- damage ---------------------------------------------------------------------------------- */

static void damage_result_byte(uint64_t task, long at)
{
    struct sl_key key;

    sl_key_u64(&key, task);
    store_damage(SL_DB_RESULTS, &key, at);
}

static void damage_state(uint64_t task)
{
    damage_result_byte(task, offsetof(struct sl_result_rec, state));
}

static void damage_strings(uint64_t task)
{
    damage_result_byte(task, offsetof(struct sl_result_rec, message_bytes) + 1);
}

static void damage_result_tail(uint64_t task)
{
    damage_result_byte(task, -1);
}

static void cut_result(uint64_t task)
{
    struct sl_key key;

    sl_key_u64(&key, task);
    ck_assert_int_eq(sl_db_put(store, SL_DB_RESULTS, &key, sl_span_of("x", 1)), SL_OK);
}

static void damage_answer_chunk(uint64_t task)
{
    struct sl_key key;

    sl_key_blob(&key, task, SL_BLOB_RESPONSE, 0);
    store_damage(SL_DB_BLOBS, &key, 9);
}

static void drop_answer_chunk(uint64_t task)
{
    struct sl_key key;

    sl_key_blob(&key, task, SL_BLOB_RESPONSE, 1);
    ck_assert_int_eq(sl_db_del(store, SL_DB_BLOBS, &key), SL_OK);
}

static void damage_task_record(uint64_t task)
{
    store_damage_task(task, -1);
}

static void drop_task_record(uint64_t task)
{
    struct sl_key key;

    sl_key_u64(&key, task);
    ck_assert_int_eq(sl_db_del(store, SL_DB_TASKS, &key), SL_OK);
}

static const struct {
    const char *name;
    void (*damage)(uint64_t task);
    size_t answer_bytes;
    const char *custom_id; /* "?": the answer is sound, whose it is is lost */
} damages[] = {
    {"state", damage_state, 10, "t-1"},
    {"a size that points outside", damage_strings, 10, "t-1"},
    {"last byte", damage_result_tail, 10, "t-1"},
    {"cut off", cut_result, 10, "t-1"},
    {"chunk", damage_answer_chunk, 10000, "t-1"},
    {"chunk gone", drop_answer_chunk, 10000, "t-1"},
    {"task", damage_task_record, 10, "?"},
    {"task gone", drop_task_record, 10, "?"},
};

static void check_damaged(void *ctx, const struct sl_result_msg *msg)
{
    const char *custom_id = ctx;

    if (sl_task_idx(msg->task) != 1) {
        ck_assert_int_eq(msg->state, SL_TASK_COMPLETED);
        ck_assert_int_eq(msg->err, SL_OK);
        return;
    }
    ck_assert_int_eq(msg->state, SL_TASK_FAILED);
    ck_assert_int_eq(msg->err, SL_ERR_STORE_CORRUPT);
    ck_assert_uint_gt(msg->message.len, 0);
    ck_assert_uint_eq(msg->body.len, custom_id[0] == '?' ? 10 : 0);
    ck_assert(sl_span_equal(msg->custom_id, sl_span_str(custom_id)));
}

START_TEST(test_damage_is_answered_and_not_served)
{
    char *bytes = calloc(1, damages[_i].answer_bytes);
    struct sl_armed armed[3];
    struct store_results results;

    ck_assert_ptr_nonnull(bytes);
    store_accept_many(job, "t", 3);
    memcpy(armed, store_arm(3).armed, sizeof(armed));
    for (size_t i = 0; i < 3; i++) {
        struct sl_settle_item item = store_item(&armed[i], SL_TASK_COMPLETED);
        item.body = sl_span_of(bytes, damages[_i].answer_bytes);
        ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    }
    damages[_i].damage(armed[1].task);
    for (int order = 0; order < 2; order++) {
        struct sl_read_request request = {
            .job = job, .order = (enum sl_results_order)order, .count_max = 10};
        store_read(&request, SL_MIB, check_damaged, (void *)(uintptr_t)damages[_i].custom_id,
                   &results);
        ck_assert_uint_eq(results.reply.count, 3);
    }
    ck_assert_uint_eq(store_job_info(job).completed, 3);
    free(bytes);
}
END_TEST

/* ---- one task -------------------------------------------------------------------------------- */

START_TEST(test_a_task_in_every_state)
{
    static const enum sl_task_state states[] = {
        SL_TASK_READY,  SL_TASK_DELAYED,   SL_TASK_LEASED, SL_TASK_COMPLETED,
        SL_TASK_FAILED, SL_TASK_CANCELLED, SL_TASK_EXPIRED};
    enum sl_task_state state = states[_i];
    struct sl_task_msg msg = store_msg("a", "{\"x\":1}");

    msg.priority = 2;
    uint64_t task = store_accept(job, &msg);
    struct sl_armed armed = store_arm_one();
    if (state != SL_TASK_LEASED) {
        struct sl_settle_item item = store_item(&armed, state);
        item.deaths = 1;
        item.now_ms = STORE_NOW_MS + 5;
        ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    }
    store_next();
    struct sl_task_view view = store_view(task);
    bool is_end = sl_task_state_is_terminal(state);
    bool is_known = state != SL_TASK_LEASED && state != SL_TASK_COMPLETED && state != SL_TASK_READY;
    ck_assert_int_eq(view.state, state);
    ck_assert_str_eq(view.custom_id, "a");
    ck_assert_uint_eq(view.priority, 2);
    ck_assert_uint_eq(view.uid, STORE_UID);
    ck_assert_uint_eq(view.supply, 0);
    ck_assert_uint_eq(view.body_bytes, 7);
    ck_assert_int_eq(view.accepted_ms, STORE_NOW_MS);
    ck_assert_uint_eq(view.attempts, state == SL_TASK_LEASED ? 0 : 1);
    ck_assert_uint_eq(view.deaths, state == SL_TASK_READY || state == SL_TASK_DELAYED ? 1 : 0);
    ck_assert_int_eq(view.err, is_known ? SL_ERR_PROVIDER_ERROR : SL_OK);
    ck_assert_int_eq(view.due_ms, state == SL_TASK_DELAYED ? STORE_NOW_MS + 1000 : 0);
    ck_assert_int_eq(view.ended_ms, is_end ? STORE_NOW_MS + 5 : 0);
}
END_TEST

START_TEST(test_a_task_that_is_not_there)
{
    struct sl_task_view view;
    uint64_t task = store_accept_many(job, "t", 1);

    ck_assert_int_eq(sl_store_view_task(store, task + 1, &view), SL_ERR_NOT_FOUND);
    ck_assert_int_eq(sl_store_view_task(store, sl_task_number(job + 1, 0), &view),
                     SL_ERR_NOT_FOUND);
    ck_assert_int_eq(sl_store_view_task(store, 0, &view), SL_ERR_NOT_FOUND);
    ck_assert_int_eq(sl_store_view_task(store, UINT64_MAX, &view), SL_ERR_NOT_FOUND);
    store_damage_task(task, -1);
    ck_assert_int_eq(sl_store_view_task(store, task, &view), SL_ERR_STORE_CORRUPT);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store_view");
    TCase *tests = tcase_create("view");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, test_damage_is_answered_and_not_served, 0, SL_ARRAY_LEN(damages));
    tcase_add_loop_test(tests, test_a_task_in_every_state, 0, 7);
    tcase_add_test(tests, test_a_task_that_is_not_there);
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
