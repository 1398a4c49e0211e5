/*
 * The base that everything stands on: spans and checked arithmetic, the tables of errors, states,
 * transitions and endpoints, time arithmetic.
 */
#include <check.h>
#include <stdlib.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/task.h"

/* ---- base.h ---------------------------------------------------------------------------------- */

START_TEST(test_spans)
{
    char text[4];

    ck_assert(sl_span_equal(sl_span_str("ab"), sl_span_of("abc", 2)));
    ck_assert(!sl_span_equal(sl_span_str("ab"), sl_span_str("ac")));
    ck_assert(!sl_span_equal(sl_span_str("ab"), sl_span_str("abc")));
    ck_assert(sl_span_equal(sl_span_of(NULL, 0), sl_span_str("")));
    ck_assert(sl_span_copy_str(text, sizeof(text), sl_span_str("abc")));
    ck_assert_str_eq(text, "abc");
    ck_assert(!sl_span_copy_str(text, sizeof(text), sl_span_str("abcd")));
    ck_assert_str_eq(text, "");
    ck_assert(sl_span_copy_str(text, sizeof(text), sl_span_of(NULL, 0)));
    ck_assert_str_eq(text, "");
}
END_TEST

START_TEST(test_checked_sizes)
{
    size_t out = 7;

    ck_assert(sl_add_size(SIZE_MAX - 1, 1, &out));
    ck_assert_uint_eq(out, SIZE_MAX);
    ck_assert(!sl_add_size(SIZE_MAX, 1, &out));
    ck_assert(sl_mul_size(SIZE_MAX / 2, 2, &out));
    ck_assert(!sl_mul_size(SIZE_MAX / 2 + 1, 2, &out));
    ck_assert_uint_eq(sl_round_up(0, 64), 0);
    ck_assert_uint_eq(sl_round_up(1, 64), 64);
    ck_assert_uint_eq(sl_round_up(64, 64), 64);
    ck_assert_uint_eq(sl_round_up(65, 64), 128);
}
END_TEST

START_TEST(test_big_endian_sorts)
{
    unsigned char low[8];
    unsigned char high[8];

    sl_put_be32(low, 0x01020304);
    ck_assert_mem_eq(low, "\x01\x02\x03\x04", 4);
    ck_assert_uint_eq(sl_get_be32(low), 0x01020304);
    sl_put_be64(low, 255);
    sl_put_be64(high, 256);
    ck_assert_int_lt(memcmp(low, high, 8), 0);
    ck_assert_uint_eq(sl_get_be64(high), 256);
    sl_put_be64(high, UINT64_MAX);
    ck_assert_uint_eq(sl_get_be64(high), UINT64_MAX);
}
END_TEST

/* ---- errors.def ------------------------------------------------------------------------------ */

static bool is_exit_status_of_contract(int status)
{
    return (status >= 0 && status <= 5) || status == 130;
}

static bool is_code(const char *code)
{
    return code[0] != '\0' && strspn(code, "abcdefghijklmnopqrstuvwxyz_") == strlen(code);
}

START_TEST(test_errors)
{
    bool found;

    for (size_t i = 0;; i++) {
        enum sl_err err = sl_err_at(i, &found);
        if (!found) {
            ck_assert_uint_gt(i, 40); /* the loop saw the table */
            break;
        }
        ck_assert(sl_err_is_known((uint32_t)err));
        ck_assert_msg(is_code(sl_err_code(err)), "code of %d", (int)err);
        ck_assert_msg(strlen(sl_err_meaning(err)) > 5, "meaning of %d", (int)err);
        ck_assert_ptr_nonnull(sl_err_advice(err));
        ck_assert_msg(is_exit_status_of_contract(sl_err_exit_status(err)), "status of %d",
                      (int)err);
        for (size_t k = 0; k < i; k++) {
            enum sl_err other = sl_err_at(k, &found);
            ck_assert_int_ne(err, other);
            ck_assert_str_ne(sl_err_code(err), sl_err_code(other));
        }
    }
}
END_TEST

START_TEST(test_unknown_error_is_internal)
{
    enum sl_err unknown = (enum sl_err)60000;

    ck_assert(!sl_err_is_known(60000));
    ck_assert(!sl_err_is_known(UINT32_MAX));
    ck_assert_str_eq(sl_err_code(unknown), "internal");
    ck_assert_int_eq(sl_err_exit_status(unknown), 5);
    ck_assert_int_eq(sl_err_class(SL_ERR_RATE_LIMITED), SL_CLASS_RETRY);
    ck_assert_int_eq(sl_err_class(SL_ERR_AUTH), SL_CLASS_KEY);
    ck_assert_int_eq(sl_err_class(SL_OK), SL_CLASS_NONE);
}
END_TEST

/* Numbers are stored on disk and sent on the wire: these must never move. */
START_TEST(test_numbers_on_disk)
{
    ck_assert_int_eq(SL_ERR_OK, 0);
    ck_assert_int_eq(SL_ERR_INTERNAL, 40);
    ck_assert_int_eq(SL_ERR_RESOLVE, 60);
    ck_assert_int_eq(SL_ERR_STORE_CORRUPT, 81);
    ck_assert_int_eq(SL_TASK_READY, 1);
    ck_assert_int_eq(SL_TASK_BLOCKED, 8);
    ck_assert_int_eq(SL_ENDPOINT_CHAT, 1);
    ck_assert_int_eq(SL_ENDPOINT_EMBEDDINGS, 3);
}
END_TEST

/* ---- states, transitions, endpoints ---------------------------------------------------------- */

#define STATES_TRIED 64

static bool can_leave(uint32_t from)
{
    for (uint32_t to = 0; to < STATES_TRIED; to++) {
        if (sl_task_change_is_legal((enum sl_task_state)from, (enum sl_task_state)to)) {
            ck_assert_msg(sl_task_state_is_known(to), "%u -> %u", from, to);
            return true;
        }
    }
    return false;
}

START_TEST(test_states)
{
    uint32_t known_count = 0;

    ck_assert(!sl_task_state_is_known(0)); /* zeroed bytes are no state */
    for (uint32_t number = 0; number < STATES_TRIED; number++) {
        enum sl_task_state state = (enum sl_task_state)number;
        if (!sl_task_state_is_known(number)) {
            ck_assert_msg(!can_leave(number), "unknown state %u can be left", number);
            continue;
        }
        known_count++;
        ck_assert_str_ne(sl_task_state_name(state), "");
        ck_assert_msg(!sl_task_change_is_legal(state, state), "%u to itself", number);
        /* Nothing starts blocked in this version, so no change names it yet. */
        ck_assert_int_eq(can_leave(number),
                         !sl_task_state_is_terminal(state) && state != SL_TASK_BLOCKED);
    }
    ck_assert_uint_eq(known_count, 8);
}
END_TEST

START_TEST(test_every_waiting_state_can_end)
{
    static const enum sl_task_state waiting[] = {SL_TASK_READY, SL_TASK_DELAYED, SL_TASK_LEASED};

    for (size_t i = 0; i < SL_ARRAY_LEN(waiting); i++) {
        ck_assert(sl_task_change_is_legal(waiting[i], SL_TASK_CANCELLED));
        ck_assert(sl_task_change_is_legal(waiting[i], SL_TASK_EXPIRED));
        /* Only a leased task has been called: only it may have a result. */
        ck_assert_int_eq(sl_task_change_is_legal(waiting[i], SL_TASK_COMPLETED),
                         waiting[i] == SL_TASK_LEASED);
    }
}
END_TEST

START_TEST(test_task_names)
{
    static const char *const bad_names[] = {
        "",
        "task_",
        "task_0123456789abcde",
        "task_0123456789abcdef0",
        "task_0123456789ABCDEF",
        "Task_0123456789abcdef",
        "task_0123456789abcde ",
        "task_-123456789abcdef",
    };
    static const uint64_t numbers[] = {0, 1, UINT64_C(1) << 32, UINT64_MAX};
    char name[SL_TASK_NAME_BYTES];
    uint64_t task;

    for (size_t i = 0; i < SL_ARRAY_LEN(numbers); i++) {
        sl_task_name_format(numbers[i], name);
        ck_assert_uint_eq(strlen(name), 21);
        ck_assert(sl_task_name_parse(name, &task));
        ck_assert_uint_eq(task, numbers[i]);
    }
    for (size_t i = 0; i < SL_ARRAY_LEN(bad_names); i++) {
        ck_assert_msg(!sl_task_name_parse(bad_names[i], &task), "\"%s\"", bad_names[i]);
    }
    task = sl_task_number(7, UINT32_MAX);
    ck_assert_uint_eq(sl_task_job(task), 7);
    ck_assert_uint_eq(sl_task_idx(task), UINT32_MAX);
}
END_TEST

START_TEST(test_endpoints)
{
    uint32_t known_count = 0;
    enum sl_endpoint endpoint;

    for (uint32_t number = 0; number < 64; number++) {
        if (!sl_endpoint_is_known(number)) {
            continue;
        }
        known_count++;
        const char *url = sl_endpoint_url((enum sl_endpoint)number);
        ck_assert(sl_endpoint_parse(sl_span_str(url), &endpoint));
        ck_assert_uint_eq(endpoint, number);
        ck_assert_int_eq(sl_endpoint_path(endpoint)[0], '/');
    }
    ck_assert_uint_eq(known_count, 3);
    ck_assert(!sl_endpoint_is_known(0));
    ck_assert(!sl_endpoint_parse(sl_span_str("/v1/chat/completions/"), &endpoint));
    ck_assert(!sl_endpoint_parse(sl_span_str("/v1/chat"), &endpoint));
    ck_assert(!sl_endpoint_parse(sl_span_str(""), &endpoint));
}
END_TEST

/* ---- time ------------------------------------------------------------------------------------ */

static const struct {
    int64_t a;
    int64_t b;
    int64_t sum;
} sums[] = {
    {1, 2, 3},
    {INT64_MAX, 1, INT64_MAX},
    {INT64_MAX - 1, 1, INT64_MAX},
    {1, INT64_MAX, INT64_MAX},
    {INT64_MIN, -1, INT64_MIN},
    {-1, INT64_MIN, INT64_MIN},
    {INT64_MIN, INT64_MAX, -1},
    {INT64_MAX, INT64_MAX, INT64_MAX},
    {INT64_MIN, INT64_MIN, INT64_MIN},
};

START_TEST(test_time_add)
{
    ck_assert_int_eq(sl_time_add(sums[_i].a, sums[_i].b), sums[_i].sum);
}
END_TEST

static const struct {
    int64_t due_ns;
    int64_t now_ns;
    int max_ms;
    int left_ms;
} lefts[] = {
    {0, 0, 100, 0},
    {-1, 0, 100, 0},
    {1, 0, 100, 1}, /* rounded up: a timer must not fire before its time */
    {SL_NS_PER_MS, 0, 100, 1},
    {SL_NS_PER_MS + 1, 0, 100, 2},
    {INT64_C(100) * SL_NS_PER_MS, 0, 100, 100},
    {INT64_C(100) * SL_NS_PER_MS + 1, 0, 100, 100},
    {INT64_MAX, 0, 100, 100},
    {INT64_MAX, INT64_MIN, 100, 100},
    {INT64_MAX, -1, INT32_MAX, INT32_MAX},
    {INT64_MIN, INT64_MAX, 100, 0},
    {5, 4, 0, 0},
};

START_TEST(test_time_left)
{
    ck_assert_int_eq(sl_time_left_ms(lefts[_i].due_ns, lefts[_i].now_ns, lefts[_i].max_ms),
                     lefts[_i].left_ms);
}
END_TEST

static const struct {
    int64_t wall_ns;
    const char *text;
} dates[] = {
    {0, "1970-01-01T00:00:00.000Z"},
    {999999, "1970-01-01T00:00:00.000Z"},
    {INT64_C(951782400) * SL_NS_PER_S + 678 * SL_NS_PER_MS, "2000-02-29T00:00:00.678Z"},
    {INT64_C(1767323045) * SL_NS_PER_S + 999999999, "2026-01-02T03:04:05.999Z"},
    {INT64_MAX, "2262-04-11T23:47:16.854Z"},
    {-1, "0000-00-00T00:00:00.000Z"},
    {INT64_MIN, "0000-00-00T00:00:00.000Z"},
};

START_TEST(test_time_format)
{
    char text[25];

    sl_time_format(dates[_i].wall_ns, text);
    ck_assert_str_eq(text, dates[_i].text);
}
END_TEST

START_TEST(test_clocks_go_forward)
{
    struct sl_now first = sl_clock_now();
    int64_t cpu_ns = sl_clock_cpu_ns();

    ck_assert_int_gt(first.wall_ns, INT64_C(1600000000) * SL_NS_PER_S);
    ck_assert_int_ge(sl_clock_mono_ns(), first.mono_ns);
    ck_assert_int_gt(cpu_ns, 0);
    ck_assert_int_ge(sl_clock_cpu_ns(), cpu_ns);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("base");
    TCase *cases = tcase_create("base");

    tcase_add_test(cases, test_spans);
    tcase_add_test(cases, test_checked_sizes);
    tcase_add_test(cases, test_big_endian_sorts);
    tcase_add_test(cases, test_errors);
    tcase_add_test(cases, test_unknown_error_is_internal);
    tcase_add_test(cases, test_numbers_on_disk);
    tcase_add_test(cases, test_states);
    tcase_add_test(cases, test_every_waiting_state_can_end);
    tcase_add_test(cases, test_task_names);
    tcase_add_test(cases, test_endpoints);
    tcase_add_loop_test(cases, test_time_add, 0, SL_ARRAY_LEN(sums));
    tcase_add_loop_test(cases, test_time_left, 0, SL_ARRAY_LEN(lefts));
    tcase_add_loop_test(cases, test_time_format, 0, SL_ARRAY_LEN(dates));
    tcase_add_test(cases, test_clocks_go_forward);
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
