/*
 * When a worker that died is started again, and what counts as a storm.
 */
#include <check.h>

#include "worker/parent.h"

#define MS SL_NS_PER_MS
#define S SL_NS_PER_S

START_TEST(doubles_the_delay_up_to_its_bound)
{
    static const int64_t want_ms[] = {100,  200,   400,   800,   1600, 3200,
                                      6400, 12800, 25600, 30000, 30000};
    struct sl_restart restart = {0};
    int64_t now_ns = 5 * S;
    bool is_storm;

    for (size_t i = 0; i < SL_ARRAY_LEN(want_ms); i++) {
        int64_t gap_ns = sl_restart_next(&restart, now_ns, now_ns + 1, &is_storm);
        ck_assert_int_eq(gap_ns, want_ms[i] * MS);
        now_ns += gap_ns;
    }
}
END_TEST

START_TEST(begins_anew_after_a_good_life)
{
    struct sl_restart restart = {0};
    bool is_storm;

    for (int i = 0; i < 6; i++) {
        (void)sl_restart_next(&restart, i * S, i * S, &is_storm);
    }
    ck_assert_int_eq(sl_restart_next(&restart, 10 * S, 70 * S - 1, &is_storm), 6400 * MS);
    ck_assert_int_eq(sl_restart_next(&restart, 100 * S, 160 * S, &is_storm), 100 * MS);
    ck_assert(!is_storm);
}
END_TEST

START_TEST(calls_five_deaths_in_ten_seconds_a_storm)
{
    struct sl_restart restart = {0};
    bool is_storm;

    for (int i = 0; i < 4; i++) {
        (void)sl_restart_next(&restart, 0, i * S, &is_storm);
        ck_assert(!is_storm);
    }
    (void)sl_restart_next(&restart, 0, 10 * S, &is_storm);
    ck_assert(is_storm);
    (void)sl_restart_next(&restart, 0, 11 * S + 1, &is_storm); /* the oldest kept is at 1 s */
    ck_assert(!is_storm);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("restart");
    TCase *cases = tcase_create("restart");

    tcase_add_test(cases, doubles_the_delay_up_to_its_bound);
    tcase_add_test(cases, begins_anew_after_a_good_life);
    tcase_add_test(cases, calls_five_deaths_in_ten_seconds_a_storm);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
