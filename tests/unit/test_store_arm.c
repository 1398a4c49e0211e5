/*
 * A task's way out to a call: the order of calls, the bounds of one arm, tasks that come too late,
 * and damage that is set aside instead of being called.
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

/* ---- arm ------------------------------------------------------------------------------------- */

START_TEST(test_priority_then_age)
{
    uint32_t other = store_job("other");
    char id[16];
    uint64_t seed = 7;
    uint8_t last_priority = SL_PRIORITY_MAX;
    uint64_t last_task = 0;

    for (uint32_t i = 0; i < 600; i++) {
        snprintf(id, sizeof(id), "t%u", i);
        struct sl_task_msg msg = store_msg(id, "{}");
        msg.priority = (uint32_t)(sl_retry_random(&seed) % (SL_PRIORITY_MAX + 1));
        store_accept(i % 3 == 0 ? other : job, &msg);
    }
    struct sl_arm_reply reply = store_arm(1000);
    ck_assert_uint_eq(reply.count, 600);
    for (size_t i = 0; i < reply.count; i++) {
        const struct sl_armed *armed = &reply.armed[i];
        ck_assert_uint_le(armed->priority, last_priority);
        ck_assert(armed->priority < last_priority || armed->task > last_task);
        last_priority = armed->priority;
        last_task = armed->task;
    }
}
END_TEST

START_TEST(test_a_supply_gives_only_its_own)
{
    static const uint32_t supplies[] = {0, 1, UINT32_MAX - 1, UINT32_MAX};
    struct sl_accept_reply reply;

    for (size_t i = 0; i < SL_ARRAY_LEN(supplies); i++) {
        char id[8] = {(char)('a' + i)};
        struct sl_task_msg msg = store_msg(id, "{}");
        struct sl_accept_request request = {.job = job,
                                            .tasks = &msg,
                                            .supplies = &supplies[i],
                                            .count = 1,
                                            .now_ms = STORE_NOW_MS};
        ck_assert_int_eq(sl_store_accept(store, &request, &reply), SL_OK);
    }
    for (size_t i = 0; i < SL_ARRAY_LEN(supplies); i++) {
        struct sl_arm_request request = {
            .supply = supplies[i], .count_max = 10, .bytes_max = SL_MIB, .now_ms = STORE_NOW_MS};
        struct sl_arm_reply armed = store_arm_with(&request);
        ck_assert_uint_eq(armed.count, 1);
        ck_assert_uint_eq(armed.armed[0].task, sl_task_number(job, (uint32_t)i));
        ck_assert_uint_eq(armed.armed[0].supply, supplies[i]);
        ck_assert(!armed.has_more);
    }
}
END_TEST

static const struct {
    uint32_t ready;
    uint32_t count_max;
    uint32_t taken;
    bool has_more;
} count_cases[] = {
    {0, 1, 0, false},    {1, 1, 1, false},    {2, 1, 1, true},         {10, 9, 9, true},
    {10, 10, 10, false}, {10, 11, 10, false}, {400, 1024, 400, false}, /* more than one lease record
                                                                          holds */
};

START_TEST(test_count_limit)
{
    store_accept_many(job, "t", count_cases[_i].ready);
    struct sl_arm_reply reply = store_arm(count_cases[_i].count_max);
    size_t leases = (reply.count + SL_LEASE_ENTRIES_MAX - 1) / SL_LEASE_ENTRIES_MAX;

    ck_assert_uint_eq(reply.count, count_cases[_i].taken);
    ck_assert_int_eq(reply.has_more, count_cases[_i].has_more);
    ck_assert_uint_eq(store_count(SL_DB_READY), count_cases[_i].ready - count_cases[_i].taken);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), leases);
    for (size_t i = 0; i < reply.count; i++) {
        ck_assert_uint_eq(reply.armed[i].lease, 1 + i / SL_LEASE_ENTRIES_MAX);
        ck_assert_int_eq(store_state(reply.armed[i].task), SL_TASK_LEASED);
    }
}
END_TEST

static const struct {
    size_t bytes_max;
    size_t taken;
    bool has_more;
} byte_cases[] = {
    /* bodies of 1,000 bytes each, ten of them */
    {0, 1, true},    {1, 1, true},    {999, 1, true},  {1000, 1, true},    {1999, 1, true},
    {2000, 2, true}, {2001, 2, true}, {9999, 9, true}, {10000, 10, false}, {SIZE_MAX, 10, false},
};

START_TEST(test_byte_limit)
{
    char body[1001];

    memset(body, 'b', sizeof(body) - 1);
    body[1000] = '\0';
    for (int i = 0; i < 10; i++) {
        char id[8] = {(char)('a' + i)};
        struct sl_task_msg msg = store_msg(id, body);
        store_accept(job, &msg);
    }
    struct sl_arm_request request = {
        .count_max = 100, .bytes_max = byte_cases[_i].bytes_max, .now_ms = STORE_NOW_MS};
    struct sl_arm_reply reply = store_arm_with(&request);
    ck_assert_uint_eq(reply.count, byte_cases[_i].taken);
    ck_assert_int_eq(reply.has_more, byte_cases[_i].has_more);
    ck_assert_uint_eq(reply.bytes_len, 1000 * reply.count);
    for (size_t i = 0; i < reply.count; i++) {
        ck_assert_int_eq(memcmp(reply.bytes + reply.armed[i].body_at, body, 1000), 0);
    }
}
END_TEST

START_TEST(test_a_deadline_that_passed)
{
    struct sl_task_msg msgs[] = {store_msg("past", "{}"), store_msg("now", "{}"),
                                 store_msg("later", "{}"), store_msg("none", "{}")};

    msgs[0].deadline_ms = 1;
    msgs[1].deadline_ms = STORE_NOW_MS;
    msgs[2].deadline_ms = STORE_NOW_MS + 1;
    ck_assert_uint_eq(store_try_accept(job, msgs, 4).accepted, 4);
    struct sl_arm_reply reply = store_arm(10);
    ck_assert_uint_eq(reply.count, 2);
    ck_assert_uint_eq(reply.expired, 2);
    ck_assert_uint_eq(reply.damaged, 0);
    ck_assert_int_eq(store_state(sl_task_number(job, 0)), SL_TASK_EXPIRED);
    ck_assert_int_eq(store_state(sl_task_number(job, 1)), SL_TASK_EXPIRED);
    ck_assert_int_eq(store_state(sl_task_number(job, 2)), SL_TASK_LEASED);
    ck_assert_uint_eq(store_job_info(job).expired, 2);
    ck_assert_uint_eq(sl_store_counters(store)->expired, 2);
    ck_assert_uint_eq(sl_store_counters(store)->provider_calls, 0);
    struct sl_task_view view = store_view(sl_task_number(job, 0));
    ck_assert_int_eq(view.err, SL_ERR_EXPIRED);
    ck_assert_uint_eq(view.attempts, 0);
    ck_assert_int_eq(view.ended_ms, STORE_NOW_MS);
}
END_TEST

/* A queue full of tasks that come too late is ended in bounded pieces, not in one transaction. */
START_TEST(test_what_one_arm_ends_is_bounded)
{
    struct sl_task_msg msgs[SL_FRAME_TASKS_MAX];
    static char ids[SL_FRAME_TASKS_MAX][16];
    uint64_t ended = 0;
    size_t rounds = 0;

    for (uint32_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < SL_FRAME_TASKS_MAX; i++) {
            snprintf(ids[i], sizeof(ids[i]), "%u-%zu", round, i);
            msgs[i] = store_msg(ids[i], "{}");
            msgs[i].deadline_ms = 1;
        }
        ck_assert_uint_eq(store_try_accept(job, msgs, SL_FRAME_TASKS_MAX).accepted,
                          SL_FRAME_TASKS_MAX);
    }
    struct sl_arm_reply reply;
    do {
        reply = store_arm(10);
        ck_assert_uint_eq(reply.count, 0);
        ck_assert_uint_le(reply.expired, SL_DELETE_SLICE);
        ended += reply.expired;
        rounds++;
        store_next();
    } while (reply.has_more);
    ck_assert_uint_eq(ended, 3 * SL_FRAME_TASKS_MAX);
    ck_assert_uint_gt(rounds, 1);
    ck_assert_uint_eq(store_count(SL_DB_READY), 0);
}
END_TEST

/* ---- damage ---------------------------------------------------------------------------------- */

static void damage_header(uint64_t task)
{
    store_damage_task(task, offsetof(struct sl_task_rec, timeout_ms));
}

static void damage_size(uint64_t task)
{
    store_damage_task(task, offsetof(struct sl_task_rec, custom_id_bytes) + 1);
}

static void damage_body_size(uint64_t task)
{
    store_damage_task(task, offsetof(struct sl_task_rec, body_bytes) + 3);
}

static void damage_tail(uint64_t task)
{
    store_damage_task(task, -1);
}

static void cut_record(uint64_t task)
{
    struct sl_key key;

    sl_key_u64(&key, task);
    ck_assert_int_eq(sl_db_put(store, SL_DB_TASKS, &key, sl_span_of("short", 5)), SL_OK);
}

static void drop_record(uint64_t task)
{
    struct sl_key key;

    sl_key_u64(&key, task);
    ck_assert_int_eq(sl_db_del(store, SL_DB_TASKS, &key), SL_OK);
}

static void damage_chunk(uint64_t task)
{
    struct sl_key key;

    sl_key_blob(&key, task, SL_BLOB_REQUEST, 1);
    store_damage(SL_DB_BLOBS, &key, 100);
}

static void damage_chunk_hash(uint64_t task)
{
    struct sl_key key;

    sl_key_blob(&key, task, SL_BLOB_REQUEST, 2);
    store_damage(SL_DB_BLOBS, &key, -3);
}

static void drop_chunk(uint64_t task)
{
    struct sl_key key;

    sl_key_blob(&key, task, SL_BLOB_REQUEST, 0);
    ck_assert_int_eq(sl_db_del(store, SL_DB_BLOBS, &key), SL_OK);
}

/* Chunk 0 in the place of chunk 1: each has its own seed. */
static void swap_chunk(uint64_t task)
{
    struct sl_key key;
    struct sl_span value;
    char copy[SL_VALUE_BYTES_MAX];

    sl_key_blob(&key, task, SL_BLOB_REQUEST, 0);
    ck_assert_int_eq(sl_db_get(store, SL_DB_BLOBS, &key, &value), SL_OK);
    memcpy(copy, value.ptr, value.len);
    sl_key_blob(&key, task, SL_BLOB_REQUEST, 1);
    ck_assert_int_eq(sl_db_put(store, SL_DB_BLOBS, &key, sl_span_of(copy, value.len)), SL_OK);
}

static const struct {
    const char *name;
    void (*damage)(uint64_t task);
    size_t body_bytes;
} damages[] = {
    {"header", damage_header, 100},
    {"header of a long one", damage_header, 10000},
    {"a size that points outside", damage_size, 100},
    {"a body of a gigabyte", damage_body_size, 100},
    {"last byte", damage_tail, 100},
    {"cut off", cut_record, 100},
    {"gone", drop_record, 100},
    {"gone, long", drop_record, 10000},
    {"chunk", damage_chunk, 10000},
    {"hash of a chunk", damage_chunk_hash, 10000},
    {"chunk gone", drop_chunk, 10000},
    {"chunk in another's place", swap_chunk, 10000},
};

START_TEST(test_damage_is_set_aside)
{
    char *body = random_bytes(damages[_i].body_bytes, 3);
    struct sl_task_msg msgs[3] = {store_msg("a", "{}"), store_msg("bad", ""), store_msg("c", "{}")};
    uint64_t bad = sl_task_number(job, 1);

    msgs[1].body = sl_span_of(body, damages[_i].body_bytes);
    ck_assert_uint_eq(store_try_accept(job, msgs, 3).accepted, 3);
    damages[_i].damage(bad);
    struct sl_arm_reply reply = store_arm(10);
    ck_assert_uint_eq(reply.count, 2); /* the others are called */
    ck_assert_uint_eq(reply.damaged, 1);
    ck_assert_uint_eq(reply.armed[1].task, sl_task_number(job, 2));
    ck_assert_int_eq(memcmp(reply.bytes + reply.armed[1].body_at, "{}", 2), 0);
    ck_assert_uint_eq(store_count(SL_DB_READY), 0);
    ck_assert_uint_eq(store_job_info(job).failed, 1);
    ck_assert_uint_eq(sl_store_counters(store)->failed, 1);
    struct sl_key key;
    struct sl_span value;
    sl_key_u64(&key, bad);
    ck_assert_int_eq(sl_db_get(store, SL_DB_RESULTS, &key, &value), SL_OK);
    ck_assert_uint_eq(store_arm(10).count, 0);
    store_next();
    free(body);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store_arm");
    TCase *tests = tcase_create("arm");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, test_priority_then_age);
    tcase_add_test(tests, test_a_supply_gives_only_its_own);
    tcase_add_loop_test(tests, test_count_limit, 0, SL_ARRAY_LEN(count_cases));
    tcase_add_loop_test(tests, test_byte_limit, 0, SL_ARRAY_LEN(byte_cases));
    tcase_add_test(tests, test_a_deadline_that_passed);
    tcase_add_test(tests, test_what_one_arm_ends_is_bounded);
    tcase_add_loop_test(tests, test_damage_is_set_aside, 0, SL_ARRAY_LEN(damages));
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
