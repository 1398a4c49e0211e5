/*
 * Reading results back: in both orders from every cursor, tasks that have not ended passed over or
 * waited for, and answers larger than a buffer.
 */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "common/lane.h"
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

/* ---- orders and cursors ---------------------------------------------------------------------- */

#define TASKS 10

/* In the order of their ends; 4 and 9 have not ended. */
static const uint32_t end_order[] = {3, 0, 7, 1, 8, 2, 6, 5};
#define ENDED SL_ARRAY_LEN(end_order)

static void make_results(void)
{
    struct sl_armed armed[TASKS];

    store_accept_many(job, "t", TASKS);
    memcpy(armed, store_arm(TASKS).armed, sizeof(armed));
    for (size_t i = 0; i < ENDED; i++) {
        store_settle(&armed[end_order[i]], SL_TASK_COMPLETED);
    }
}

struct seen {
    uint32_t idx[64];
    uint64_t cursors[64];
    size_t count;
};

static void see(void *ctx, const struct sl_result_msg *msg)
{
    struct seen *seen = ctx;
    char id[16];

    ck_assert_uint_lt(seen->count, SL_ARRAY_LEN(seen->idx));
    ck_assert_uint_eq(sl_task_job(msg->task), job);
    snprintf(id, sizeof(id), "t-%u", sl_task_idx(msg->task));
    ck_assert(sl_span_equal(msg->custom_id, sl_span_str(id)));
    seen->idx[seen->count] = sl_task_idx(msg->task);
    seen->cursors[seen->count++] = msg->cursor;
}

/* What a reader that begins behind `from` results is given, as lists of indexes. */
static const struct {
    enum sl_results_order order;
    bool may_skip;
    size_t count;
    uint32_t idx[TASKS];
} orders[] = {
    {SL_RESULTS_AS_DONE, false, ENDED, {3, 0, 7, 1, 8, 2, 6, 5}},
    {SL_RESULTS_AS_DONE, true, ENDED, {3, 0, 7, 1, 8, 2, 6, 5}},
    {SL_RESULTS_AS_SUBMITTED, true, ENDED, {0, 1, 2, 3, 5, 6, 7, 8}},
    {SL_RESULTS_AS_SUBMITTED, false, 4, {0, 1, 2, 3}},
};

START_TEST(test_each_order_from_every_cursor)
{
    struct seen whole = {0};
    struct store_results results;
    struct sl_read_request request = {
        .job = job, .order = orders[_i].order, .may_skip = orders[_i].may_skip, .count_max = 100};

    make_results();
    store_read(&request, SL_MIB, see, &whole, &results);
    ck_assert_uint_eq(whole.count, orders[_i].count);
    ck_assert_mem_eq(whole.idx, orders[_i].idx, whole.count * sizeof(whole.idx[0]));
    ck_assert(results.reply.at_end);
    for (size_t from = 0; from < whole.count; from++) {
        struct seen rest = {0};
        request.cursor = whole.cursors[from];
        store_read(&request, SL_MIB, see, &rest, &results);
        ck_assert_uint_eq(rest.count, whole.count - from - 1);
        ck_assert_mem_eq(rest.idx, whole.idx + from + 1, rest.count * sizeof(rest.idx[0]));
        ck_assert(results.reply.at_end);
        ck_assert_uint_ge(results.reply.cursor, request.cursor);
    }
}
END_TEST

START_TEST(test_piece_by_piece)
{
    struct sl_read_request request = {
        .job = job, .order = orders[_i].order, .may_skip = orders[_i].may_skip, .count_max = 3};
    struct store_results results;
    struct seen seen = {0};
    size_t rounds = 0;

    make_results();
    do {
        store_read(&request, SL_MIB, see, &seen, &results);
        ck_assert_uint_le(results.reply.count, 3);
        ck_assert(results.reply.at_end || results.reply.count == 3);
        request.cursor = results.reply.cursor;
        rounds++;
    } while (!results.reply.at_end);
    ck_assert_uint_eq(rounds, orders[_i].count / 3 + 1);
    ck_assert_uint_eq(seen.count, orders[_i].count);
    ck_assert_mem_eq(seen.idx, orders[_i].idx, seen.count * sizeof(seen.idx[0]));
}
END_TEST

START_TEST(test_a_gap_that_fills_is_read_on)
{
    struct sl_read_request request = {
        .job = job, .order = SL_RESULTS_AS_SUBMITTED, .count_max = 100};
    struct store_results results;
    struct seen seen = {0};

    make_results();
    store_read(&request, SL_MIB, see, &seen, &results);
    ck_assert_uint_eq(seen.count, 4);
    struct sl_armed armed = {.task = sl_task_number(job, 4), .lease = 1, .attempt = 1};
    store_settle(&armed, SL_TASK_COMPLETED);
    request.cursor = results.reply.cursor;
    store_read(&request, SL_MIB, see, &seen, &results);
    ck_assert_uint_eq(seen.count, 9);
    ck_assert_uint_eq(seen.idx[4], 4);
    ck_assert_uint_eq(seen.idx[8], 8);
}
END_TEST

static const uint64_t wild_cursors[] = {TASKS,      TASKS + 1,         UINT32_MAX - 1,
                                        UINT32_MAX, UINT64_C(1) << 32, (UINT64_C(1) << 32) + 1,
                                        INT64_MAX,  UINT64_MAX};

START_TEST(test_cursors_behind_the_end)
{
    struct store_results results;

    make_results();
    uint32_t next_job = store_job("next"); /* whose results must not be given for this one's */
    store_accept_many(next_job, "n", 1);
    struct sl_armed armed = store_arm_one();
    store_settle(&armed, SL_TASK_COMPLETED);
    for (size_t i = 0; i < SL_ARRAY_LEN(orders); i++) {
        struct sl_read_request request = {.job = job,
                                          .order = orders[i].order,
                                          .may_skip = orders[i].may_skip,
                                          .cursor = wild_cursors[_i],
                                          .count_max = 10};
        store_read(&request, SL_MIB, NULL, NULL, &results);
        ck_assert_uint_eq(results.reply.count, 0);
        ck_assert(results.reply.at_end);
        ck_assert_uint_eq(results.reply.need_bytes, 0);
    }
}
END_TEST

START_TEST(test_a_job_without_results)
{
    struct store_results results;

    store_accept_many(job, "t", 2);
    for (uint32_t other = job; other < job + 2; other++) { /* the second is not there at all */
        for (size_t i = 0; i < SL_ARRAY_LEN(orders); i++) {
            struct sl_read_request request = {.job = other,
                                              .order = orders[i].order,
                                              .may_skip = orders[i].may_skip,
                                              .count_max = 10};
            store_read(&request, SL_MIB, NULL, NULL, &results);
            ck_assert_uint_eq(results.reply.count, 0);
            ck_assert(results.reply.at_end);
        }
    }
}
END_TEST

/* ---- contents -------------------------------------------------------------------------------- */

static void check_everything(void *ctx, const struct sl_result_msg *msg)
{
    const struct sl_settle_item *item = ctx;

    ck_assert_uint_eq(msg->task, item->task);
    ck_assert_int_eq(msg->state, item->to);
    ck_assert_int_eq(msg->err, item->err);
    ck_assert(sl_span_equal(msg->custom_id, sl_span_str("id")));
    ck_assert(sl_span_equal(msg->stage, sl_span_str("stage")));
    ck_assert(sl_span_equal(msg->service_id, sl_span_str("service")));
    ck_assert(sl_span_equal(msg->provider, sl_span_str("provider")));
    ck_assert(sl_span_equal(msg->message, item->message));
    ck_assert(sl_span_equal(msg->request_id, item->request_id));
    ck_assert_uint_eq(msg->http_status, item->http_status);
    ck_assert_uint_eq(msg->attempts, item->attempts);
    ck_assert_uint_eq(msg->queued_us, item->queued_us);
    ck_assert_uint_eq(msg->call_us, item->call_us);
    ck_assert_uint_eq(msg->input_tokens, item->input_tokens);
    ck_assert_uint_eq(msg->output_tokens, item->output_tokens);
    ck_assert_int_eq(msg->body_is_json, (item->flags & SL_RESULT_BODY_IS_JSON) != 0);
    ck_assert(sl_span_equal(msg->body, item->body));
}

START_TEST(test_every_member_comes_back)
{
    struct sl_supply_info supply = {.uid = STORE_UID, .provider = sl_span_str("provider")};
    struct sl_read_request request = {.job = job, .count_max = 10};
    struct sl_task_msg msg = store_msg("id", "{}");
    struct store_results results;

    ck_assert_int_eq(sl_store_put_supply(store, &supply), SL_OK);
    msg.stage = sl_span_str("stage");
    msg.service_id = sl_span_str("service");
    store_accept(job, &msg);
    struct sl_armed armed = store_arm_one();
    struct sl_settle_item item = store_item(&armed, SL_TASK_FAILED);
    item.err = SL_ERR_RATE_LIMITED;
    item.message = sl_span_str("the provider's own words: \xc3\xa4");
    item.http_status = 429;
    item.attempts = 17;
    item.queued_us = UINT32_MAX;
    item.call_us = 123456;
    item.input_tokens = UINT64_MAX / 2;
    item.flags = 0;
    item.body = sl_span_of("\0\xff not json", 11);
    ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    store_read(&request, SL_MIB, check_everything, &item, &results);
    ck_assert_uint_eq(results.reply.count, 1);
}
END_TEST

/* Texts longer than a result keeps are cut; texts that no frame may carry cost nobody the rest. */
static const struct {
    const char *name;
    size_t request_id_bytes;
    size_t message_bytes;
    char fill;
} texts[] = {
    {"at the limit", SL_REQUEST_ID_BYTES_MAX, SL_MESSAGE_BYTES_MAX, 'x'},
    {"one past", SL_REQUEST_ID_BYTES_MAX + 1, SL_MESSAGE_BYTES_MAX + 1, 'x'},
    {"far past", 100000, 100000, 'x'},
    {"NUL", 5, 5, '\0'},
};

static void check_cut(void *ctx, const struct sl_result_msg *msg)
{
    size_t row = *(const size_t *)ctx;
    bool is_empty = texts[row].fill == '\0';
    size_t id_bytes = SL_MIN(texts[row].request_id_bytes, (size_t)SL_REQUEST_ID_BYTES_MAX);
    size_t message_bytes = SL_MIN(texts[row].message_bytes, (size_t)SL_MESSAGE_BYTES_MAX);

    ck_assert_uint_eq(msg->request_id.len, is_empty ? 0 : id_bytes);
    ck_assert_uint_eq(msg->message.len, is_empty ? 0 : message_bytes);
    ck_assert_uint_eq(msg->body.len, 7);
}

START_TEST(test_texts_that_are_too_long)
{
    static char text[100000];
    struct sl_read_request request = {.job = job, .count_max = 10};
    struct store_results results;
    size_t row = (size_t)_i;

    memset(text, texts[row].fill, sizeof(text));
    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    struct sl_settle_item item = store_item(&armed, SL_TASK_FAILED);
    item.request_id = sl_span_of(text, texts[row].request_id_bytes);
    item.message = sl_span_of(text, texts[row].message_bytes);
    ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    store_read(&request, SL_MIB, check_cut, &row, &results);
    ck_assert_uint_eq(results.reply.count, 1);
}
END_TEST

#define INLINE_MAX                                                                                 \
    (SL_VALUE_BYTES_MAX - sizeof(struct sl_result_rec) - 5) /* request_id "req-1"                  \
                                                             */

static const size_t answer_sizes[] = {
    0,
    1,
    INLINE_MAX,
    INLINE_MAX + 1,
    SL_CHUNK_BYTES,
    SL_CHUNK_BYTES + 1,
    3 * SL_CHUNK_BYTES,
    SL_MIB,
    SL_RESPONSE_BYTES_MAX,
};

struct answer {
    const char *bytes;
    size_t len;
};

static void check_answer(void *ctx, const struct sl_result_msg *msg)
{
    const struct answer *answer = ctx;

    ck_assert_uint_eq(msg->body.len, answer->len);
    ck_assert(answer->len == 0 || memcmp(msg->body.ptr, answer->bytes, answer->len) == 0);
}

START_TEST(test_answers_of_every_size)
{
    size_t len = answer_sizes[_i];
    char *bytes = malloc(len + 8);
    struct sl_read_request request = {.job = job, .count_max = 10};
    struct store_results results;

    ck_assert_ptr_nonnull(bytes);
    for (size_t i = 0; i < len; i += 8) {
        sl_put_be64(bytes + i, sl_hash_word(i));
    }
    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    struct sl_settle_item item = store_item(&armed, SL_TASK_COMPLETED);
    item.body = sl_span_of(bytes, len);
    ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    store_next();
    struct answer answer = {bytes, len};
    store_read(&request, 16, NULL, NULL, &results); /* too small a buffer for any */
    ck_assert_uint_eq(results.reply.count, 0);
    ck_assert(!results.reply.at_end);
    ck_assert_uint_ge(results.reply.need_bytes, len);
    ck_assert_uint_le(results.reply.need_bytes, len + 16 * SL_KIB);
    store_read(&request, results.reply.need_bytes, check_answer, &answer, &results);
    ck_assert_uint_eq(results.reply.count, 1);
    free(bytes);
}
END_TEST

/* However long a result's strings are, what need_bytes says is enough. */
START_TEST(test_need_bytes_is_enough)
{
    static char text[SL_MESSAGE_BYTES_MAX];
    char id[SL_ID_BYTES_MAX + 1];
    struct sl_read_request request = {.job = job, .count_max = 1};
    struct sl_supply_info supply = {.uid = STORE_UID};
    struct store_results results;

    memset(text, 'y', sizeof(text));
    memset(id, 'i', SL_ID_BYTES_MAX);
    id[SL_ID_BYTES_MAX] = '\0';
    supply.provider = sl_span_of(text, SL_NAME_BYTES_MAX);
    ck_assert_int_eq(sl_store_put_supply(store, &supply), SL_OK);
    struct sl_task_msg msg = store_msg(id, "{}");
    msg.stage = msg.service_id = sl_span_of(text, SL_NAME_BYTES_MAX);
    store_accept(job, &msg);
    struct sl_armed armed = store_arm_one();
    struct sl_settle_item item = store_item(&armed, SL_TASK_FAILED);
    item.request_id = sl_span_of(text, SL_REQUEST_ID_BYTES_MAX);
    item.message = sl_span_of(text, SL_MESSAGE_BYTES_MAX);
    ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    store_read(&request, 0, NULL, NULL, &results);
    ck_assert_uint_gt(results.reply.need_bytes, 0);
    store_read(&request, results.reply.need_bytes, NULL, NULL, &results);
    ck_assert_uint_eq(results.reply.count, 1);
}
END_TEST

/* A buffer that is full after some gives those, and goes on behind them. */
START_TEST(test_a_full_buffer_is_no_end)
{
    struct sl_read_request request = {.job = job, .count_max = 100};
    struct store_results results;
    struct seen seen = {0};
    size_t rounds = 0;

    make_results();
    do {
        store_read(&request, 200, see, &seen, &results);
        ck_assert_uint_eq(results.reply.need_bytes, 0);
        request.cursor = results.reply.cursor;
        rounds++;
    } while (!results.reply.at_end);
    ck_assert_uint_gt(rounds, 2);
    ck_assert_uint_eq(seen.count, ENDED);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store_read");
    TCase *tests = tcase_create("results");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, test_each_order_from_every_cursor, 0, (int)SL_ARRAY_LEN(orders));
    tcase_add_loop_test(tests, test_piece_by_piece, 0, (int)SL_ARRAY_LEN(orders));
    tcase_add_test(tests, test_a_gap_that_fills_is_read_on);
    tcase_add_loop_test(tests, test_cursors_behind_the_end, 0, SL_ARRAY_LEN(wild_cursors));
    tcase_add_test(tests, test_a_job_without_results);
    tcase_add_test(tests, test_every_member_comes_back);
    tcase_add_loop_test(tests, test_texts_that_are_too_long, 0, SL_ARRAY_LEN(texts));
    tcase_add_loop_test(tests, test_answers_of_every_size, 0, SL_ARRAY_LEN(answer_sizes));
    tcase_add_test(tests, test_need_bytes_is_enough);
    tcase_add_test(tests, test_a_full_buffer_is_no_end);
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
