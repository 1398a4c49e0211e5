/*
 * The ledger of calls that may be running: what a restart finds in it is exactly what was armed and
 * has not ended, a task once, under its latest lease.
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

/* ---- what a restart finds -------------------------------------------------------------------- */

#define ORPHANS_MAX 1024

struct found {
    struct sl_orphan orphans[ORPHANS_MAX];
    size_t count;
};
static struct found found;

static bool find_orphan(void *ctx, const struct sl_orphan *orphan)
{
    struct found *all = ctx;

    for (size_t i = 0; i < all->count; i++) {
        ck_assert_uint_ge(all->orphans[i].lease, orphan->lease); /* the latest first */
        if (all->orphans[i].task == orphan->task) {
            return false;
        }
    }
    ck_assert_uint_lt(all->count, ORPHANS_MAX);
    all->orphans[all->count++] = *orphan;
    return true;
}

/* Commits, dies, and looks; in a transaction afterwards. */
static void restart(void)
{
    store_commit();
    store_crash();
    store_begin();
    found.count = 0;
    ck_assert_int_eq(sl_store_each_orphan(store, find_orphan, &found), SL_OK);
}

static const struct sl_orphan *orphan_of(uint64_t task)
{
    for (size_t i = 0; i < found.count; i++) {
        if (found.orphans[i].task == task) {
            return &found.orphans[i];
        }
    }
    return NULL;
}

static struct sl_armed armed_of(const struct sl_orphan *orphan)
{
    return (struct sl_armed){.task = orphan->task,
                             .lease = orphan->lease,
                             .supply = orphan->supply,
                             .attempt = orphan->attempt,
                             .deaths = orphan->deaths,
                             .priority = orphan->priority};
}

START_TEST(test_nothing_in_flight)
{
    store_accept_many(job, "t", 3);
    restart();
    ck_assert_uint_eq(found.count, 0);
    ck_assert(!sl_store_is_dirty(store));
}
END_TEST

START_TEST(test_an_orphan_says_what_it_was)
{
    struct sl_task_msg msg = store_msg("a", "{}");

    msg.priority = 8;
    msg.max_attempts = 77;
    msg.flags = SL_TASK_FLAG_FAIL_ON_UNKNOWN;
    uint64_t task = store_accept(job, &msg);
    struct sl_armed armed = store_arm_one();
    struct sl_settle_item item = store_item(&armed, SL_TASK_READY);
    item.deaths = 2;
    ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    armed = store_arm_one();
    restart();
    ck_assert_uint_eq(found.count, 1);
    ck_assert_uint_eq(found.orphans[0].task, task);
    ck_assert_uint_eq(found.orphans[0].lease, armed.lease);
    ck_assert_uint_eq(found.orphans[0].attempt, 2);
    ck_assert_uint_eq(found.orphans[0].deaths, 2);
    ck_assert_uint_eq(found.orphans[0].max_attempts, 77);
    ck_assert_uint_eq(found.orphans[0].priority, 8);
    ck_assert_uint_eq(found.orphans[0].flags, SL_TASK_FLAG_FAIL_ON_UNKNOWN);
    ck_assert_int_eq(store_state(task), SL_TASK_LEASED);
}
END_TEST

/* One lease over all states its calls can be in by now. */
START_TEST(test_orphans_are_what_was_armed_and_has_not_ended)
{
    static const enum sl_task_state ends[] = {SL_TASK_COMPLETED, SL_TASK_FAILED,  SL_TASK_CANCELLED,
                                              SL_TASK_EXPIRED,   SL_TASK_DELAYED, SL_TASK_READY};
    const size_t ended = SL_ARRAY_LEN(ends);

    store_accept_many(job, "t", 10);
    struct sl_arm_reply reply = store_arm(10);
    for (size_t i = 0; i < ended; i++) {
        store_settle(&reply.armed[i], ends[i]);
    }
    restart();
    ck_assert_uint_eq(found.count, 10 - ended);
    for (size_t i = 0; i < 10; i++) {
        bool is_orphan = orphan_of(sl_task_number(job, (uint32_t)i)) != NULL;
        ck_assert_int_eq(is_orphan, i >= ended);
    }
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 1);
    for (size_t i = 0; i < found.count; i++) { /* their ends are taken under the old lease */
        struct sl_armed armed = armed_of(&found.orphans[i]);
        store_settle(&armed, SL_TASK_READY);
    }
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 0);
}
END_TEST

START_TEST(test_a_task_in_two_leases_counts_in_the_later)
{
    store_accept_many(job, "t", 3);
    struct sl_armed first = store_arm(3).armed[1];
    store_settle(&first, SL_TASK_READY); /* lease 1 keeps its entry: two calls of it run */
    struct sl_armed second = store_arm_one();
    ck_assert_uint_eq(second.task, first.task);
    ck_assert_uint_gt(second.lease, first.lease);
    restart();
    ck_assert_uint_eq(found.count, 3);
    ck_assert_uint_eq(orphan_of(first.task)->lease, second.lease);
    ck_assert_uint_eq(orphan_of(first.task)->attempt, 2);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 2);
    struct sl_armed armed = armed_of(orphan_of(first.task));
    store_settle(&armed, SL_TASK_COMPLETED);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 1);
    for (size_t i = 0; i < found.count; i++) {
        if (found.orphans[i].task != first.task) {
            armed = armed_of(&found.orphans[i]);
            store_settle(&armed, SL_TASK_COMPLETED);
        }
    }
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 0);
}
END_TEST

START_TEST(test_leases_whose_calls_have_ended_are_dropped)
{
    struct sl_armed kept[3];

    /* Nine leases of two calls; of every third one runs, the others end but for one that moves on
     * to a later lease, so that its old lease is left without a call. */
    for (int i = 0; i < 9; i++) {
        char prefix[8] = {(char)('a' + i)};
        store_accept_many(job, prefix, 2);
        struct sl_arm_reply reply = store_arm(2);
        ck_assert_uint_eq(reply.count, 2);
        struct sl_armed one = reply.armed[0];
        struct sl_armed two = reply.armed[1];
        store_settle(&one, SL_TASK_COMPLETED);
        if (i % 3 == 0) {
            kept[i / 3] = two;
        } else {
            store_settle(&two, SL_TASK_COMPLETED);
        }
    }
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 3);
    restart();
    ck_assert_uint_eq(found.count, 3);
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(found.orphans[i].task, kept[2 - i].task);
    }
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 3);
}
END_TEST

/* A record that a crash left without any call under it: what ends it is the next start. */
START_TEST(test_hundreds_of_stale_leases_go)
{
    struct sl_lease_rec entry = {.supply = 0, .attempt = 1, .priority = SL_PRIORITY_DEFAULT};
    uint64_t first = store_accept_many(job, "t", 600);
    struct sl_key key;

    for (uint32_t i = 1; i < 600; i++) { /* tasks that are ready: their leases are stale */
        entry.task = first + i;
        sl_key_u64(&key, 1000 + i);
        ck_assert_int_eq(sl_db_put(store, SL_DB_LEASES, &key, sl_span_of(&entry, sizeof(entry))),
                         SL_OK);
    }
    struct sl_armed armed = store_arm_one();
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 600);
    restart();
    ck_assert_uint_eq(found.count, 1);
    ck_assert_uint_eq(found.orphans[0].task, armed.task);
    ck_assert_uint_eq(found.orphans[0].lease, armed.lease);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 1);
}
END_TEST

START_TEST(test_a_purged_task_is_no_orphan)
{
    bool done = false;
    uint32_t other = store_job("other");

    store_accept_many(job, "t", 1);
    store_accept_many(other, "t", 1);
    struct sl_arm_reply reply = store_arm(2);
    struct sl_armed purged = reply.armed[0];
    struct sl_armed running = reply.armed[1];
    store_settle(&purged, SL_TASK_COMPLETED);
    ck_assert_int_eq(sl_store_purge_slice(store, job, &done), SL_OK);
    ck_assert(done);
    restart();
    ck_assert_uint_eq(found.count, 1);
    ck_assert_uint_eq(found.orphans[0].task, running.task);
    job = other;
}
END_TEST

static bool take_none(void *ctx, const struct sl_orphan *orphan)
{
    return false;
}

START_TEST(test_an_orphan_nobody_wants_costs_its_lease)
{
    store_accept_many(job, "t", 2);
    (void)store_arm(2);
    store_commit();
    store_crash();
    store_begin();
    ck_assert_int_eq(sl_store_each_orphan(store, take_none, NULL), SL_OK);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 0);
}
END_TEST

static const struct {
    const char *name;
    size_t bytes;
} bad_leases[] = {
    {"empty", 0},
    {"half an entry", sizeof(struct sl_lease_rec) / 2},
    {"one and a half", sizeof(struct sl_lease_rec) * 3 / 2},
};

START_TEST(test_a_damaged_lease_stops_the_start)
{
    char bytes[64] = {0};
    struct sl_key key;

    sl_key_u64(&key, 5);
    ck_assert_int_eq(sl_db_put(store, SL_DB_LEASES, &key, sl_span_of(bytes, bad_leases[_i].bytes)),
                     SL_OK);
    found.count = 0;
    enum sl_err err = sl_store_each_orphan(store, find_orphan, &found);
    ck_assert_msg(err == SL_ERR_STORE, "%s: %s", bad_leases[_i].name, sl_err_code(err));
    ck_assert_ptr_nonnull(strstr(sl_store_message(store), "lease"));
}
END_TEST

START_TEST(test_a_full_lease_is_read_back)
{
    store_accept_many(job, "t", 2 * SL_LEASE_ENTRIES_MAX + 1);
    ck_assert_uint_eq(store_arm(2 * SL_LEASE_ENTRIES_MAX + 1).count, 2 * SL_LEASE_ENTRIES_MAX + 1);
    restart();
    ck_assert_uint_eq(found.count, 2 * SL_LEASE_ENTRIES_MAX + 1);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 3);
}
END_TEST

/* Numbers far apart that share a slot of the table, ended in another order than begun. */
START_TEST(test_leases_that_collide_in_the_table)
{
    uint64_t leases[12];

    for (size_t i = 0; i < SL_ARRAY_LEN(leases); i++) {
        leases[i] = SL_LEASE_TABLE_MAX * (i / 3 + 1) - 2 + i % 3; /* around the table's end */
        sl_lease_add(store, leases[i], 2);
    }
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < SL_ARRAY_LEN(leases); i++) {
            uint64_t lease = leases[(i * 5) % SL_ARRAY_LEN(leases)];
            struct sl_key key;
            sl_key_u64(&key, lease);
            ck_assert_int_eq(sl_db_put(store, SL_DB_LEASES, &key, sl_span_of("x", 1)), SL_OK);
            ck_assert_int_eq(sl_lease_end_one(store, lease), SL_OK);
        }
    }
    ck_assert_uint_eq(store->lease_count, 0);
    for (size_t i = 0; i < SL_LEASE_TABLE_MAX; i++) {
        ck_assert_uint_eq(store->leases[i].lease, 0);
    }
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 0);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store_lease");
    TCase *tests = tcase_create("restart");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, test_nothing_in_flight);
    tcase_add_test(tests, test_an_orphan_says_what_it_was);
    tcase_add_test(tests, test_orphans_are_what_was_armed_and_has_not_ended);
    tcase_add_test(tests, test_a_task_in_two_leases_counts_in_the_later);
    tcase_add_test(tests, test_leases_whose_calls_have_ended_are_dropped);
    tcase_add_test(tests, test_hundreds_of_stale_leases_go);
    tcase_add_test(tests, test_a_purged_task_is_no_orphan);
    tcase_add_test(tests, test_an_orphan_nobody_wants_costs_its_lease);
    tcase_add_loop_test(tests, test_a_damaged_lease_stops_the_start, 0, SL_ARRAY_LEN(bad_leases));
    tcase_add_test(tests, test_a_full_lease_is_read_back);
    tcase_add_test(tests, test_leases_that_collide_in_the_table);
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
