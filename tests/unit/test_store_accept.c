/*
 * A task's way into the store: bodies of every size come back byte for byte, what is known is known
 * in every state, what is another call is refused, and nothing behind a refused one is taken.
 */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/policy/retry.h"
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

static char *random_bytes(size_t len, uint64_t seed)
{
    char *bytes = malloc(len + 1);

    ck_assert_ptr_nonnull(bytes);
    for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
        uint64_t word = sl_retry_random(&seed);
        memcpy(bytes + i, &word, SL_MIN(sizeof(word), len - i));
    }
    return bytes;
}

/* ---- accept ---------------------------------------------------------------------------------- */

#define INLINE_MAX                                                                                 \
    (SL_VALUE_BYTES_MAX - sizeof(struct sl_task_rec) - 1) /* with an id of a byte                  \
                                                           */

static const struct {
    size_t bytes;
    size_t chunks;
} body_sizes[] = {
    {1, 0},
    {2, 0},
    {INLINE_MAX - 1, 0},
    {INLINE_MAX, 0},
    {INLINE_MAX + 1, 1},
    {SL_CHUNK_BYTES - 1, 1},
    {SL_CHUNK_BYTES, 1},
    {SL_CHUNK_BYTES + 1, 2},
    {SL_VALUE_BYTES_MAX, 2},
    {2 * SL_CHUNK_BYTES - 1, 2},
    {2 * SL_CHUNK_BYTES, 2},
    {2 * SL_CHUNK_BYTES + 1, 3},
    {100 * SL_CHUNK_BYTES, 100},
    {SL_MIB, (SL_MIB + SL_CHUNK_BYTES - 1) / SL_CHUNK_BYTES},
    {SL_BODY_BYTES_MAX, (SL_BODY_BYTES_MAX + SL_CHUNK_BYTES - 1) / SL_CHUNK_BYTES},
};

START_TEST(test_bodies_come_back_as_they_were)
{
    size_t len = body_sizes[_i].bytes;
    char *body = random_bytes(len, len);
    struct sl_task_msg msg = store_msg("a", "");

    msg.body = sl_span_of(body, len);
    uint64_t task = store_accept(job, &msg);
    ck_assert_uint_eq(store_count(SL_DB_BLOBS), body_sizes[_i].chunks);
    store_next();
    store_commit();
    store_crash();
    store_begin();
    struct sl_accept_reply known = store_try_accept(job, &msg, 1);
    ck_assert_uint_eq(known.known, 1);
    ck_assert_uint_eq(store_view(task).body_bytes, len);
    struct sl_arm_reply reply = store_arm(10);
    ck_assert_uint_eq(reply.count, 1);
    ck_assert_uint_eq(reply.armed[0].body_bytes, len);
    ck_assert_int_eq(memcmp(reply.bytes + reply.armed[0].body_at, body, len), 0);
    body[len - 1] = (char)(body[len - 1] ^ 1);
    struct sl_accept_reply other = store_try_accept(job, &msg, 1);
    ck_assert_int_eq(other.refused_err, SL_ERR_CONFLICT);
    free(body);
}
END_TEST

START_TEST(test_ids_and_names_at_their_limits)
{
    char longest[SL_ID_BYTES_MAX];

    memset(longest, 'i', sizeof(longest));
    for (size_t body_bytes = 3500; body_bytes < 3700; body_bytes++) { /* around the inline limit */
        char id[SL_ID_BYTES_MAX + 1];
        snprintf(id, sizeof(id), "%0*zu", SL_ID_BYTES_MAX, body_bytes);
        char *body = random_bytes(body_bytes, body_bytes);
        struct sl_task_msg msg = store_msg(id, "");
        msg.body = sl_span_of(body, body_bytes);
        msg.stage = msg.service_id = sl_span_of(longest, SL_NAME_BYTES_MAX);
        uint64_t task = store_accept(job, &msg);
        struct sl_task_view_raw raw;
        struct sl_span stored;
        ck_assert_int_eq(sl_task_get(store, task, &raw), SL_OK);
        ck_assert(sl_span_equal(raw.custom_id, msg.custom_id));
        ck_assert(sl_span_equal(raw.stage, msg.stage));
        ck_assert(sl_span_equal(raw.service_id, msg.service_id));
        ck_assert_int_eq(sl_task_body(store, task, &raw, &stored), SL_OK);
        ck_assert(sl_span_equal(stored, msg.body));
        ck_assert_str_eq(store_view(task).custom_id, id);
        free(body);
    }
    ck_assert_uint_gt(store_count(SL_DB_BLOBS), 0);
    ck_assert_uint_lt(store_count(SL_DB_BLOBS), 200);
}
END_TEST

START_TEST(test_every_member_reaches_the_call)
{
    struct sl_task_msg msg = store_msg("a", "{}");

    msg.endpoint = SL_ENDPOINT_EMBEDDINGS;
    msg.priority = 9;
    msg.timeout_ms = SL_TASK_TIMEOUT_MS_MAX;
    msg.max_attempts = SL_ATTEMPTS_MAX;
    msg.flags = SL_TASK_FLAGS_ALL;
    msg.deadline_ms = STORE_NOW_MS + 1;
    uint64_t task = store_accept(job, &msg);
    struct sl_armed armed = store_arm_one();
    ck_assert_uint_eq(armed.task, task);
    ck_assert_uint_eq(armed.endpoint, SL_ENDPOINT_EMBEDDINGS);
    ck_assert_uint_eq(armed.priority, 9);
    ck_assert_uint_eq(armed.timeout_ms, SL_TASK_TIMEOUT_MS_MAX);
    ck_assert_uint_eq(armed.max_attempts, SL_ATTEMPTS_MAX);
    ck_assert_uint_eq(armed.flags, SL_TASK_FLAGS_ALL);
    ck_assert_int_eq(armed.deadline_ms, STORE_NOW_MS + 1);
    ck_assert_int_eq(armed.accepted_ms, STORE_NOW_MS);
    ck_assert_uint_eq(armed.attempt, 1);
    ck_assert_uint_eq(armed.deaths, 0);
    ck_assert_uint_ne(armed.lease, 0);
}
END_TEST

START_TEST(test_known_in_every_state)
{
    struct sl_task_msg msg = store_msg("a", "{\"x\":1}");
    static const enum sl_task_state ends[] = {SL_TASK_COMPLETED, SL_TASK_FAILED, SL_TASK_CANCELLED,
                                              SL_TASK_EXPIRED};

    for (size_t i = 0; i < SL_ARRAY_LEN(ends); i++) {
        char id[2] = {(char)('a' + i)};
        msg.custom_id = sl_span_str(id);
        store_accept(job, &msg);
        ck_assert_uint_eq(store_try_accept(job, &msg, 1).known, 1);
        struct sl_armed armed = store_arm_one();
        ck_assert_uint_eq(store_try_accept(job, &msg, 1).known, 1);
        store_settle(&armed, ends[i]);
        ck_assert_uint_eq(store_try_accept(job, &msg, 1).known, 1);
        ck_assert_int_eq(store_state(armed.task), ends[i]);
    }
    ck_assert_uint_eq(store_job_info(job).total, 4);
    ck_assert_uint_eq(sl_store_counters(store)->submitted, 4);
    ck_assert_uint_eq(store_count(SL_DB_READY), 0);
}
END_TEST

START_TEST(test_what_makes_another_call)
{
    struct sl_task_msg msg = store_msg("a", "{\"x\":1}");
    uint64_t task = store_accept(job, &msg);

    msg.body = sl_span_str("{\"x\":2}"); /* same length */
    ck_assert_int_eq(store_try_accept(job, &msg, 1).refused_err, SL_ERR_CONFLICT);
    msg.body = sl_span_str("{\"x\":1} "); /* the bytes count, not what they mean */
    ck_assert_int_eq(store_try_accept(job, &msg, 1).refused_err, SL_ERR_CONFLICT);
    msg = store_msg("a", "{\"x\":1}");
    msg.endpoint = SL_ENDPOINT_RESPONSES;
    ck_assert_int_eq(store_try_accept(job, &msg, 1).refused_err, SL_ERR_CONFLICT);
    msg = store_msg("a", "{\"x\":1}");
    msg.priority = 0; /* how it is called is not what is called */
    msg.timeout_ms = 5;
    ck_assert_uint_eq(store_try_accept(job, &msg, 1).known, 1);
    ck_assert_uint_eq(store_view(task).priority, SL_PRIORITY_DEFAULT);
    ck_assert_uint_eq(store_try_accept(store_job("other"), &msg, 1).accepted, 1);
    msg.custom_id = sl_span_of("a\0", 2);
    ck_assert_uint_eq(store_try_accept(job, &msg, 1).accepted, 1);
}
END_TEST

START_TEST(test_accept_stops_at_the_first_refused)
{
    struct sl_task_msg msgs[5];
    const char *const ids[] = {"a", "b", "c", "d", "e"};

    struct sl_task_msg there = store_msg("c", "{\"other\":1}");
    store_accept(job, &there);
    for (size_t i = 0; i < 5; i++) {
        msgs[i] = store_msg(ids[i], "{}");
    }
    struct sl_accept_reply reply = store_try_accept(job, msgs, 5);
    ck_assert_uint_eq(reply.accepted, 2);
    ck_assert_uint_eq(reply.known, 0);
    ck_assert_int_eq(reply.refused_idx, 2);
    ck_assert_int_eq(reply.refused_err, SL_ERR_CONFLICT);
    ck_assert_uint_eq(store_job_info(job).total, 3);
    ck_assert_uint_eq(store_count(SL_DB_IDS), 3);
    msgs[2] = there; /* mended: the same again goes on */
    reply = store_try_accept(job, msgs, 5);
    ck_assert_uint_eq(reply.accepted, 2);
    ck_assert_uint_eq(reply.known, 3);
    ck_assert_int_eq(reply.refused_idx, -1);
    ck_assert_int_eq(reply.refused_err, SL_OK);
}
END_TEST

START_TEST(test_twice_in_one_frame)
{
    struct sl_task_msg msgs[] = {store_msg("a", "{}"), store_msg("a", "{}"), store_msg("a", "[]")};
    struct sl_accept_reply reply = store_try_accept(job, msgs, 3);

    ck_assert_uint_eq(reply.accepted, 1);
    ck_assert_uint_eq(reply.known, 1);
    ck_assert_int_eq(reply.refused_idx, 2);
    ck_assert_int_eq(reply.refused_err, SL_ERR_CONFLICT);
}
END_TEST

START_TEST(test_no_such_job)
{
    struct sl_task_msg msg = store_msg("a", "{}");
    struct sl_accept_reply reply = store_try_accept(job + 1, &msg, 1);

    ck_assert_int_eq(reply.refused_err, SL_ERR_NOT_FOUND);
    ck_assert_int_eq(reply.refused_idx, 0);
    ck_assert_uint_eq(store_count(SL_DB_IDS), 0);
}
END_TEST

START_TEST(test_a_known_task_that_is_damaged_is_no_known_task)
{
    struct sl_task_msg msg = store_msg("a", "{\"x\":1}");
    uint64_t task = store_accept(job, &msg);

    store_damage_task(task, -1);
    ck_assert_int_eq(store_try_accept(job, &msg, 1).refused_err, SL_ERR_STORE_CORRUPT);
}
END_TEST

START_TEST(test_not_before)
{
    struct sl_task_msg msgs[] = {store_msg("past", "{}"), store_msg("now", "{}"),
                                 store_msg("later", "{}"), store_msg("soon", "{}")};

    msgs[0].not_before_ms = STORE_NOW_MS - 1;
    msgs[1].not_before_ms = STORE_NOW_MS;
    msgs[2].not_before_ms = STORE_NOW_MS + 100;
    msgs[3].not_before_ms = STORE_NOW_MS + 1;
    struct sl_accept_reply reply = store_try_accept(job, msgs, 4);
    ck_assert_uint_eq(reply.accepted, 4);
    ck_assert_uint_eq(reply.delayed, 2);
    ck_assert_int_eq(reply.due_ms, STORE_NOW_MS + 1);
    ck_assert_uint_eq(store_count(SL_DB_READY), 2);
    ck_assert_uint_eq(store_count(SL_DB_DELAYED), 2);
    ck_assert_int_eq(store_try_accept(job, msgs, 1).due_ms, INT64_MAX);
    ck_assert_int_eq(store_state(sl_task_number(job, 3)), SL_TASK_DELAYED);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store_accept");
    TCase *tests = tcase_create("accept");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, test_bodies_come_back_as_they_were, 0, SL_ARRAY_LEN(body_sizes));
    tcase_add_test(tests, test_ids_and_names_at_their_limits);
    tcase_add_test(tests, test_every_member_reaches_the_call);
    tcase_add_test(tests, test_known_in_every_state);
    tcase_add_test(tests, test_what_makes_another_call);
    tcase_add_test(tests, test_accept_stops_at_the_first_refused);
    tcase_add_test(tests, test_twice_in_one_frame);
    tcase_add_test(tests, test_no_such_job);
    tcase_add_test(tests, test_a_known_task_that_is_damaged_is_no_known_task);
    tcase_add_test(tests, test_not_before);
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
