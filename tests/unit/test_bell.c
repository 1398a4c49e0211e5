/*
 * Tests of common/bell: when it makes a system call, that it stays bounded, that a sleeper is woken
 * and a wait ends, and that a hostile other side can neither hang nor abort the one who rings.
 * Lost wake-ups are searched for in tests/model/bell.pml and tests/proc/test_ring_kill.c.
 */
#include "common/bell.h"

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/os.h"
#include "common/shm_layout.h"

static struct sl_bell_shared shared;
static struct sl_bell bell;

static void set_up(void)
{
    memset((void *)&shared, 0, sizeof(shared));
    sl_bell_init_shared(&shared);
    bell = (struct sl_bell){.shared = &shared, .event_fd = -1};
    ck_assert_int_eq(sl_os_event_fd(&bell.event_fd), SL_OK);
}

static void tear_down(void)
{
    sl_os_close(&bell.event_fd);
}

static bool is_readable(void)
{
    struct pollfd poll_fd = {.fd = bell.event_fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

static int tokens(void)
{
    int value;

    ck_assert_int_eq(sem_getvalue(&shared.semaphore.posix, &value), 0);
    return value;
}

START_TEST(ringing_one_who_is_awake_writes_nothing)
{
    sl_bell_ring(&bell);
    ck_assert(!is_readable());
    sl_bell_arm(&bell);
    sl_bell_disarm(&bell);
    sl_bell_ring(&bell);
    ck_assert(!is_readable());
}
END_TEST

START_TEST(armed_waiter_is_rung_once_a_sleep)
{
    uint64_t count = 0;

    sl_bell_arm(&bell);
    ck_assert(!is_readable());
    for (int i = 0; i < 5; i++) {
        sl_bell_ring(&bell);
    }
    ck_assert(is_readable());
    ck_assert_int_eq(read(bell.event_fd, &count, sizeof(count)), sizeof(count));
    ck_assert_uint_eq(count, 1);
    sl_bell_disarm(&bell);
    sl_bell_arm(&bell);
    sl_bell_ring(&bell);
    ck_assert(is_readable());
}
END_TEST

START_TEST(disarm_takes_everything)
{
    sl_bell_arm(&bell);
    sl_bell_ring(&bell);
    sl_os_event_signal(bell.event_fd); /* a slow ringer of an earlier sleep */
    sl_bell_disarm(&bell);
    ck_assert(!is_readable());
    ck_assert_int_eq(tokens(), 0);
    ck_assert_uint_eq(atomic_load(&shared.sleeping), 0);
}
END_TEST

START_TEST(semaphore_holds_one_token)
{
    for (int i = 0; i < 100000; i++) {
        sl_bell_ring(&bell);
    }
    ck_assert_int_eq(tokens(), 1);
}
END_TEST

START_TEST(bell_without_eventfd_rings_the_semaphore)
{
    struct sl_bell plain = {.shared = &shared, .event_fd = -1};

    sl_bell_arm(&plain);
    sl_bell_ring(&plain);
    ck_assert_int_eq(tokens(), 1);
    sl_bell_disarm(&plain);
    ck_assert_int_eq(tokens(), 0);
}
END_TEST

START_TEST(wait_takes_a_token_that_is_there)
{
    sl_bell_ring(&bell);
    ck_assert(sl_bell_wait(&bell, 0)); /* even when the deadline has passed */
    ck_assert(!sl_bell_wait(&bell, 0));
}
END_TEST

/* Deadlines in the past, near, and far: all end, none before its time, none later than the cap. */
static const struct {
    int64_t after_ns;
    int64_t min_ns;
    int64_t max_ns;
} wait_cases[] = {
    {INT64_MIN, 0, SL_NS_PER_S / 2},
    {-SL_NS_PER_S, 0, SL_NS_PER_S / 2},
    {0, 0, SL_NS_PER_S / 2},
    {20 * SL_NS_PER_MS, 20 * SL_NS_PER_MS, 10 * SL_NS_PER_S},
    {INT64_MAX, SL_NS_PER_S, 20 * SL_NS_PER_S},
};

START_TEST(wait_ends_at_its_deadline)
{
    int64_t start_ns = sl_clock_mono_ns();

    ck_assert(!sl_bell_wait(&bell, sl_time_add(start_ns, wait_cases[_i].after_ns)));
    int64_t took_ns = sl_clock_mono_ns() - start_ns;
    ck_assert_int_ge(took_ns, wait_cases[_i].min_ns);
    ck_assert_int_le(took_ns, wait_cases[_i].max_ns);
}
END_TEST

static void *wait_in_thread(void *result)
{
    bool *is_rung = result;

    *is_rung = sl_bell_wait(&bell, INT64_MAX);
    return NULL;
}

static bool waiter_is_counted(void)
{
    return atomic_load(&shared.semaphore.word) >> 32 != 0;
}

/* Our own post must wake glibc's sem_clockwait: this fails if a C library lays sem_t out anew. */
START_TEST(ring_wakes_a_sleeper_on_the_semaphore)
{
    pthread_t thread;
    bool is_rung = false;
    int64_t start_ns = sl_clock_mono_ns();

    ck_assert_int_eq(pthread_create(&thread, NULL, wait_in_thread, &is_rung), 0);
    while (!waiter_is_counted() && sl_clock_mono_ns() < start_ns + SL_NS_PER_S / 2) {
        sched_yield();
    }
    sl_bell_ring(&bell);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert(is_rung);
    ck_assert_int_lt(sl_clock_mono_ns() - start_ns, SL_NS_PER_S);
    ck_assert_int_eq(tokens(), 0);
}
END_TEST

/* What a hostile peer can leave in the semaphore: value, waiters, and the flags behind them that
 * glibc would use in a system call (0x81: sem_post waits for ever; 0xff: it aborts). */
static const struct {
    uint64_t word;
    uint64_t flags;
    uint32_t sleeping;
} hostile_cases[] = {
    {UINT64_C(1) << 32, 0x81, 0},
    {UINT64_C(1) << 32, 0xff, 1},
    {UINT64_C(0xffffffff) << 32, UINT64_MAX, UINT32_MAX},
    {UINT64_MAX, UINT64_MAX, 1},
    {UINT32_MAX, 0, 2},
    {UINT64_C(0x7fffffff), 0x80, 1},
};

START_TEST(hostile_words_do_not_stop_the_ringer)
{
    uint64_t words[sizeof(sem_t) / sizeof(uint64_t)] = {0};
    int64_t start_ns = sl_clock_mono_ns();

    words[0] = hostile_cases[_i].word;
    words[1] = hostile_cases[_i].flags;
    for (int i = 0; i < 100; i++) {
        memcpy((void *)&shared.semaphore, words, sizeof(words));
        atomic_store(&shared.sleeping, hostile_cases[_i].sleeping);
        sl_bell_ring(&bell);
        sl_bell_disarm(&bell);
    }
    ck_assert_int_lt(sl_clock_mono_ns() - start_ns, SL_NS_PER_S);
}
END_TEST

#define ADD_CASES(tcase, test, cases) tcase_add_loop_test(tcase, test, 0, SL_ARRAY_LEN(cases))

int main(void)
{
    Suite *suite = suite_create("bell");
    TCase *tcase = tcase_create("bell");

    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, ringing_one_who_is_awake_writes_nothing);
    tcase_add_test(tcase, armed_waiter_is_rung_once_a_sleep);
    tcase_add_test(tcase, disarm_takes_everything);
    tcase_add_test(tcase, semaphore_holds_one_token);
    tcase_add_test(tcase, bell_without_eventfd_rings_the_semaphore);
    tcase_add_test(tcase, wait_takes_a_token_that_is_there);
    ADD_CASES(tcase, wait_ends_at_its_deadline, wait_cases);
    tcase_add_test(tcase, ring_wakes_a_sleeper_on_the_semaphore);
    ADD_CASES(tcase, hostile_words_do_not_stop_the_ringer, hostile_cases);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
