/*
 * The retry policy: every row of errors.def has its verdict, attempts end where they should, and
 * delays are spread evenly between the bounds the header promises. Random seeds are printed.
 */
#include "broker/policy/retry.h"

#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "common/task.h"

static struct sl_retry_failure failure_of(enum sl_err err)
{
    return (struct sl_retry_failure){
        .err = err,
        .attempt = 1,
        .attempts_max = 6,
        .base_ms = 500,
        .max_ms = 60000,
        .random = UINT64_MAX / 2,
    };
}

/* What a user of errors.def expects of each class, written down a second time on purpose. */
static const struct {
    enum sl_err_class class;
    enum sl_retry_decision decision;
} class_cases[] = {
    {SL_CLASS_NONE, SL_RETRY_FAIL},     {SL_CLASS_RETRY, SL_RETRY_AGAIN},
    {SL_CLASS_UNKNOWN, SL_RETRY_AGAIN}, {SL_CLASS_FATAL, SL_RETRY_FAIL},
    {SL_CLASS_KEY, SL_RETRY_FAIL},
};

static enum sl_retry_decision expected_decision(enum sl_err err)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(class_cases); i++) {
        if (class_cases[i].class == sl_err_class(err)) {
            return class_cases[i].decision;
        }
    }
    ck_abort_msg("class of %s has no case", sl_err_code(err));
    return SL_RETRY_FAIL;
}

START_TEST(test_every_error_has_a_verdict)
{
    bool found = true;
    size_t judged = 0;

    for (size_t i = 0;; i++) {
        enum sl_err err = sl_err_at(i, &found);
        if (!found) {
            break;
        }
        if (err == SL_OK) {
            continue;
        }
        struct sl_retry_failure failure = failure_of(err);
        struct sl_retry_verdict verdict = sl_retry_judge(&failure);
        ck_assert_msg(verdict.decision == expected_decision(err), "%s", sl_err_code(err));
        ck_assert_msg(verdict.decision == SL_RETRY_AGAIN || verdict.delay_ms == 0, "%s",
                      sl_err_code(err));
        judged++;
    }
    ck_assert_uint_ge(judged, 40);
}
END_TEST

/* With on_unknown = fail: which errors still get another attempt. */
static const struct {
    enum sl_err err;
    enum sl_retry_decision decision;
} once_cases[] = {
    {SL_ERR_TIMEOUT, SL_RETRY_FAIL},
    {SL_ERR_FIRST_BYTE_TIMEOUT, SL_RETRY_FAIL},
    {SL_ERR_RESET, SL_RETRY_FAIL},
    {SL_ERR_TRUNCATED, SL_RETRY_FAIL},
    {SL_ERR_WORKER_KILLED, SL_RETRY_FAIL},
    {SL_ERR_OUTCOME_UNKNOWN, SL_RETRY_FAIL},
    /* the provider said that it failed */
    {SL_ERR_PROVIDER_ERROR, SL_RETRY_AGAIN},
    {SL_ERR_ANSWER_ERROR, SL_RETRY_AGAIN},
    {SL_ERR_RESPONSE_INVALID, SL_RETRY_AGAIN},
    /* surely not executed */
    {SL_ERR_CONNECT, SL_RETRY_AGAIN},
    {SL_ERR_RATE_LIMITED, SL_RETRY_AGAIN},
    {SL_ERR_REJECTED, SL_RETRY_FAIL},
};

START_TEST(test_fail_on_unknown)
{
    struct sl_retry_failure failure = failure_of(once_cases[_i].err);

    failure.task_flags = SL_TASK_FLAG_FAIL_ON_UNKNOWN;
    ck_assert_int_eq(sl_retry_judge(&failure).decision, once_cases[_i].decision);
    failure.task_flags = SL_TASK_FLAGS_ALL & ~SL_TASK_FLAG_FAIL_ON_UNKNOWN;
    ck_assert_int_eq(sl_retry_judge(&failure).decision, expected_decision(failure.err));
}
END_TEST

static const struct {
    uint32_t attempt;
    uint32_t attempts_max;
    enum sl_retry_decision decision;
} attempt_cases[] = {
    {1, 0, SL_RETRY_FAIL},
    {1, 1, SL_RETRY_FAIL},
    {1, 2, SL_RETRY_AGAIN},
    {5, 6, SL_RETRY_AGAIN},
    {6, 6, SL_RETRY_FAIL},
    {7, 6, SL_RETRY_FAIL},
    {SL_ATTEMPTS_MAX - 1, SL_ATTEMPTS_MAX, SL_RETRY_AGAIN},
    {SL_ATTEMPTS_MAX, SL_ATTEMPTS_MAX, SL_RETRY_FAIL},
    {UINT32_MAX, UINT32_MAX, SL_RETRY_FAIL},
    {UINT32_MAX - 1, UINT32_MAX, SL_RETRY_AGAIN},
};

START_TEST(test_attempts)
{
    struct sl_retry_failure failure = failure_of(SL_ERR_RATE_LIMITED);

    failure.attempt = attempt_cases[_i].attempt;
    failure.attempts_max = attempt_cases[_i].attempts_max;
    ck_assert_int_eq(sl_retry_judge(&failure).decision, attempt_cases[_i].decision);
}
END_TEST

static const struct {
    uint32_t attempt;
    int64_t base_ms;
    int64_t max_ms;
    int64_t ceiling_ms;
} ceiling_cases[] = {
    {1, 500, 60000, 500},
    {2, 500, 60000, 1000},
    {7, 500, 60000, 32000},
    {8, 500, 60000, 60000},
    {UINT32_MAX, 500, 60000, 60000},
    {1, 500, 100, 100}, /* the cap counts for the first attempt too */
    {3, 0, 60000, 0},
    {UINT32_MAX, 0, INT64_MAX, 0},
    {3, 500, 0, 0},
    {3, -5, -7, 0},
    {1, INT64_MAX, INT64_MAX, SL_RETRY_BACKOFF_MAX_MS},
    {UINT32_MAX, INT64_MAX, INT64_MAX, SL_RETRY_BACKOFF_MAX_MS},
    {64, 1, INT64_MAX, SL_RETRY_BACKOFF_MAX_MS},
    {65, 1, 1, 1},
    {3, INT64_MIN, INT64_MIN, 0},
};

START_TEST(test_ceiling)
{
    ck_assert_int_eq(sl_retry_ceiling_ms(ceiling_cases[_i].attempt, ceiling_cases[_i].base_ms,
                                         ceiling_cases[_i].max_ms),
                     ceiling_cases[_i].ceiling_ms);
}
END_TEST

/* The ends of the random range map to the ends of the delay. */
static const struct {
    uint64_t random;
    int64_t server_delay_ms;
    int64_t delay_ms;
} delay_cases[] = {
    {0, 0, 0},
    {UINT64_MAX, 0, 500},
    {UINT64_MAX, -1, 500},
    {UINT64_MAX, INT64_MIN, 500},
    {0, 1, 1},
    {0, 20000, 20000},
    {UINT64_MAX, 20000, 20500},
    {0, SL_RETRY_SERVER_DELAY_MAX_MS, SL_RETRY_SERVER_DELAY_MAX_MS},
    {0, SL_RETRY_SERVER_DELAY_MAX_MS + 1, SL_RETRY_SERVER_DELAY_MAX_MS},
    {UINT64_MAX, INT64_MAX, SL_RETRY_SERVER_DELAY_MAX_MS + 500},
};

START_TEST(test_delay_ends)
{
    struct sl_retry_failure failure = failure_of(SL_ERR_RATE_LIMITED);

    failure.random = delay_cases[_i].random;
    failure.server_delay_ms = delay_cases[_i].server_delay_ms;
    ck_assert_int_eq(sl_retry_judge(&failure).delay_ms, delay_cases[_i].delay_ms);
}
END_TEST

/* Ten bins over [0, ceiling], many seeds: each bin holds a tenth, give or take five standard
 * deviations (a false alarm once in 170,000 runs). */
START_TEST(test_jitter_is_even)
{
    enum { BINS = 10, DRAWS = 100000, DEVIATION = 475 };
    size_t bins[BINS] = {0};
    uint64_t seed;
    struct sl_retry_failure failure = failure_of(SL_ERR_CONNECT);

    sl_os_random(&seed, sizeof(seed));
    printf("test_jitter_is_even: seed=%" PRIu64 "\n", seed);
    failure.attempt = 4;
    int64_t ceiling_ms = sl_retry_ceiling_ms(failure.attempt, failure.base_ms, failure.max_ms);
    ck_assert_int_eq(ceiling_ms, 4000);
    for (size_t i = 0; i < DRAWS; i++) {
        failure.random = sl_retry_random(&seed);
        int64_t delay_ms = sl_retry_judge(&failure).delay_ms;
        if (delay_ms < 0 || delay_ms > ceiling_ms) {
            ck_abort_msg("draw %zu: delay %" PRId64 " ms", i, delay_ms);
        }
        bins[(size_t)(delay_ms * BINS / (ceiling_ms + 1))]++;
    }
    for (size_t i = 0; i < BINS; i++) {
        ck_assert_msg(llabs((long long)bins[i] - DRAWS / BINS) < DEVIATION, "bin %zu holds %zu", i,
                      bins[i]);
    }
}
END_TEST

/* Reference values of splitmix64 for seed 1234567, as published with the algorithm. */
START_TEST(test_random_is_splitmix64)
{
    static const uint64_t expected[] = {
        UINT64_C(6457827717110365317),  UINT64_C(3203168211198807973),
        UINT64_C(9817491932198370423),  UINT64_C(4593380528125082431),
        UINT64_C(16408922859458223821),
    };
    uint64_t state = 1234567;

    for (size_t i = 0; i < SL_ARRAY_LEN(expected); i++) {
        ck_assert_uint_eq(sl_retry_random(&state), expected[i]);
    }
}
END_TEST

START_TEST(test_success_is_not_judged)
{
    struct sl_retry_failure failure = failure_of(SL_OK);

    (void)sl_retry_judge(&failure);
}
END_TEST

START_TEST(test_attempt_zero_is_not_judged)
{
    struct sl_retry_failure failure = failure_of(SL_ERR_CONNECT);

    failure.attempt = 0;
    (void)sl_retry_judge(&failure);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("retry");
    TCase *cases = tcase_create("retry");

    tcase_add_test(cases, test_every_error_has_a_verdict);
    tcase_add_loop_test(cases, test_fail_on_unknown, 0, SL_ARRAY_LEN(once_cases));
    tcase_add_loop_test(cases, test_attempts, 0, SL_ARRAY_LEN(attempt_cases));
    tcase_add_loop_test(cases, test_ceiling, 0, SL_ARRAY_LEN(ceiling_cases));
    tcase_add_loop_test(cases, test_delay_ends, 0, SL_ARRAY_LEN(delay_cases));
    tcase_add_test(cases, test_jitter_is_even);
    tcase_add_test(cases, test_random_is_splitmix64);
    tcase_add_test_raise_signal(cases, test_success_is_not_judged, SIGABRT);
    tcase_add_test_raise_signal(cases, test_attempt_zero_is_not_judged, SIGABRT);
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
