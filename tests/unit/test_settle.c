/*
 * How calls end: each way a call can come back, and what it makes of its task on disk. Places and
 * counts are given back at once; the ends reach the disk in order, through the store thread.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/broker.h"
#include "tests/support/store_case.h"
#include "tests/support/wait.h"

#define BASE_MS 100
#define MAX_MS 1000
#define SUPPLY 0
#define LOST_SUPPLY 1 /* its provider is not configured any more */

static struct sl_config config;
static struct sl_broker *broker;
static uint32_t job;

static void set_up(void)
{
    store_set_up();
    config = (struct sl_config){.concurrency = 1000, .provider_count = 1};
    config.providers[0] = (struct sl_provider_config){
        .retry_max_attempts = 4, .retry_base_ms = BASE_MS, .retry_max_ms = MAX_MS};
    broker = calloc(1, sizeof(*broker));
    ck_assert_ptr_nonnull(broker);
    broker->config = &config;
    broker->store = store;
    broker->now = (struct sl_now){.wall_ns = STORE_NOW_MS * SL_NS_PER_MS};
    broker->next_due_ms = INT64_MAX;
    broker->conns = calloc(SL_CLIENTS_MAX, sizeof(*broker->conns));
    broker->supplies = calloc(2, sizeof(*broker->supplies));
    ck_assert(broker->conns != NULL && broker->supplies != NULL);
    broker->supply_count = 2;
    broker->supplies[SUPPLY] = (struct sl_supply){.route_idx = SL_ROUTE_NONE};
    broker->supplies[LOST_SUPPLY] =
        (struct sl_supply){.provider_idx = SL_SUPPLY_NO_PROVIDER, .route_idx = SL_ROUTE_NONE};
    ck_assert_int_eq(sl_calls_init(&broker->calls, 2048), SL_OK);
    ck_assert_int_eq(sl_os_event_fd(&broker->store_events.fd), SL_OK);
    store_begin();
    job = store_job("j");
}

static void tear_down(void)
{
    sl_settle_free_all(broker);
    sl_calls_fini(&broker->calls);
    sl_os_close(&broker->store_events.fd);
    free(broker->supplies);
    free(broker->conns);
    free(broker);
    store_tear_down();
}

/* From here on the store is the store thread's. */
static void start(void)
{
    store_commit();
    ck_assert_int_eq(sl_commit_open(store, broker->store_events.fd, &broker->commit), SL_OK);
}

/* All ends are on disk and told; the store is the test's again, in a transaction. */
static void finish(void)
{
    sl_dispatch_flush_ends(broker);
    sl_commit_flush(broker->commit);
    while (sl_commit_pending(broker->commit) > 0) {
        ck_assert(wait_readable(broker->store_events.fd, WAIT_MS));
        sl_os_event_clear(broker->store_events.fd);
        sl_commit_finish(broker->commit, &broker->stored);
    }
    sl_commit_close(&broker->commit);
    store_begin();
}

static struct sl_call *call_of(const struct sl_armed *armed, enum sl_call_state state)
{
    struct sl_call *call = sl_calls_add(&broker->calls, armed->task, state);

    ck_assert_ptr_nonnull(call);
    call->lease = armed->lease;
    call->attempt = armed->attempt;
    call->deaths = armed->deaths;
    call->max_attempts = armed->max_attempts;
    call->flags = armed->flags;
    call->priority = armed->priority;
    if (state != SL_CALL_ARMED) {
        broker->in_flight++;
        broker->providers[0].in_flight++;
    }
    return call;
}

/* ---- each way back --------------------------------------------------------------------------- */

#define UNSTARTED true
#define BEGUN false
#define AT_ONCE 0, 0
#define BACKOFF 0, BASE_MS

static const struct {
    const char *name;
    enum sl_err err;
    bool is_unstarted;
    uint16_t attempt;
    uint16_t deaths;
    uint16_t max_attempts; /* the task's */
    uint8_t flags;
    bool is_cancelled;
    enum sl_task_state to;
    enum sl_err to_err;
    uint16_t attempts_after;
    uint16_t deaths_after;
    bool counts; /* as a call */
    int64_t wait_min_ms, wait_max_ms;
} ends[] = {
    {"answered", SL_OK, BEGUN, 1, 0, 0, 0, false, SL_TASK_COMPLETED, SL_OK, 1, 0, true, AT_ONCE},
    {"answered on the last attempt", SL_OK, BEGUN, 4, 2, 0, 0, false, SL_TASK_COMPLETED, SL_OK, 4,
     0, true, AT_ONCE},
    {"answered although cancelled", SL_OK, BEGUN, 1, 0, 0, 0, true, SL_TASK_COMPLETED, SL_OK, 1, 0,
     true, AT_ONCE},
    {"disarmed", SL_OK, UNSTARTED, 1, 0, 0, 0, false, SL_TASK_READY, SL_OK, 0, 0, false, AT_ONCE},
    {"disarmed at its third", SL_OK, UNSTARTED, 3, 1, 0, 0, false, SL_TASK_READY, SL_OK, 2, 1,
     false, AT_ONCE},
    {"disarmed and cancelled", SL_OK, UNSTARTED, 1, 0, 0, 0, true, SL_TASK_CANCELLED,
     SL_ERR_CANCELLED, 0, 0, false, AT_ONCE},
    {"cancelled before it began", SL_ERR_CANCELLED, UNSTARTED, 2, 0, 0, 0, true, SL_TASK_CANCELLED,
     SL_ERR_CANCELLED, 1, 0, false, AT_ONCE},
    {"cancelled in the call", SL_ERR_CANCELLED, BEGUN, 2, 0, 0, 0, true, SL_TASK_CANCELLED,
     SL_ERR_CANCELLED, 2, 0, true, AT_ONCE},
    {"failed and cancelled", SL_ERR_RATE_LIMITED, BEGUN, 1, 0, 0, 0, true, SL_TASK_CANCELLED,
     SL_ERR_CANCELLED, 1, 0, true, AT_ONCE},
    {"refused for now", SL_ERR_RATE_LIMITED, BEGUN, 1, 0, 0, 0, false, SL_TASK_DELAYED,
     SL_ERR_RATE_LIMITED, 1, 0, true, BACKOFF},
    {"refused for now, third", SL_ERR_RATE_LIMITED, BEGUN, 3, 1, 0, 0, false, SL_TASK_DELAYED,
     SL_ERR_RATE_LIMITED, 3, 1, true, 0, 4 * BASE_MS},
    {"refused for now, last", SL_ERR_RATE_LIMITED, BEGUN, 4, 0, 0, 0, false, SL_TASK_FAILED,
     SL_ERR_RATE_LIMITED, 4, 0, true, AT_ONCE},
    {"the task's own limit is lower", SL_ERR_CONNECT, BEGUN, 2, 0, 2, 0, false, SL_TASK_FAILED,
     SL_ERR_CONNECT, 2, 0, true, AT_ONCE},
    {"the task's own limit is higher", SL_ERR_CONNECT, BEGUN, 4, 0, 9, 0, false, SL_TASK_DELAYED,
     SL_ERR_CONNECT, 4, 0, true, 0, 8 * BASE_MS},
    {"rejected", SL_ERR_REJECTED, BEGUN, 1, 0, 0, 0, false, SL_TASK_FAILED, SL_ERR_REJECTED, 1, 0,
     true, AT_ONCE},
    {"the provider failed", SL_ERR_PROVIDER_ERROR, BEGUN, 1, 0, 0, SL_TASK_FLAG_FAIL_ON_UNKNOWN,
     false, SL_TASK_DELAYED, SL_ERR_PROVIDER_ERROR, 1, 0, true, BACKOFF},
    {"the connection broke", SL_ERR_RESET, BEGUN, 1, 0, 0, 0, false, SL_TASK_DELAYED, SL_ERR_RESET,
     1, 0, true, BACKOFF},
    {"the connection broke, once only", SL_ERR_RESET, BEGUN, 1, 0, 0, SL_TASK_FLAG_FAIL_ON_UNKNOWN,
     false, SL_TASK_FAILED, SL_ERR_RESET, 1, 0, true, AT_ONCE},
    {"the worker died", SL_ERR_WORKER_KILLED, BEGUN, 1, 0, 0, 0, false, SL_TASK_READY, SL_OK, 1, 1,
     true, AT_ONCE},
    {"the worker died, twice now", SL_ERR_WORKER_KILLED, BEGUN, 2, 1, 0, 0, false, SL_TASK_READY,
     SL_OK, 2, 2, true, AT_ONCE},
    {"poison", SL_ERR_WORKER_KILLED, BEGUN, 3, 2, 0, 0, false, SL_TASK_FAILED, SL_ERR_WORKER_KILLED,
     3, 0, true, AT_ONCE},
    {"the worker died, once only", SL_ERR_WORKER_KILLED, BEGUN, 1, 0, 0,
     SL_TASK_FLAG_FAIL_ON_UNKNOWN, false, SL_TASK_FAILED, SL_ERR_WORKER_KILLED, 1, 0, true,
     AT_ONCE},
    {"the worker died before it took the call", SL_ERR_WORKER_KILLED, UNSTARTED, 1, 0, 0, 0, false,
     SL_TASK_READY, SL_OK, 0, 0, false, AT_ONCE},
    {"it waited in the rings of the dead only", SL_ERR_WORKER_KILLED, UNSTARTED, 1, 2, 0,
     SL_TASK_FLAG_FAIL_ON_UNKNOWN, false, SL_TASK_READY, SL_OK, 0, 2, false, AT_ONCE},
    {"nobody knows", SL_ERR_OUTCOME_UNKNOWN, BEGUN, 1, 0, 0, 0, false, SL_TASK_READY, SL_OK, 1, 0,
     true, AT_ONCE},
    {"nobody knows, once only", SL_ERR_OUTCOME_UNKNOWN, BEGUN, 1, 0, 0,
     SL_TASK_FLAG_FAIL_ON_UNKNOWN, false, SL_TASK_FAILED, SL_ERR_OUTCOME_UNKNOWN, 1, 0, true,
     AT_ONCE},
    {"nobody knows, last", SL_ERR_OUTCOME_UNKNOWN, BEGUN, 4, 0, 0, 0, false, SL_TASK_FAILED,
     SL_ERR_OUTCOME_UNKNOWN, 4, 0, true, AT_ONCE},
    {"nobody knows, and it was cancelled", SL_ERR_OUTCOME_UNKNOWN, BEGUN, 1, 0, 0, 0, true,
     SL_TASK_CANCELLED, SL_ERR_CANCELLED, 1, 0, true, AT_ONCE},
    {"the worker does not know the provider", SL_ERR_UNKNOWN_PROVIDER, UNSTARTED, 1, 0, 0, 0, false,
     SL_TASK_DELAYED, SL_ERR_UNKNOWN_PROVIDER, 0, 0, false, 1, 60000},
};

static void check_end(uint64_t task, int row)
{
    struct sl_task_view view = store_view(task);
    int64_t wait_ms = view.due_ms - STORE_NOW_MS;

    ck_assert_msg(view.state == ends[row].to, "%s: %s", ends[row].name,
                  sl_task_state_name(view.state));
    ck_assert_msg(view.err == ends[row].to_err, "%s: %s", ends[row].name, sl_err_code(view.err));
    ck_assert_msg(view.attempts == ends[row].attempts_after, "%s: %u attempts", ends[row].name,
                  view.attempts);
    ck_assert_msg(view.deaths == ends[row].deaths_after, "%s: %u deaths", ends[row].name,
                  view.deaths);
    if (view.state == SL_TASK_DELAYED) {
        ck_assert_msg(wait_ms >= ends[row].wait_min_ms && wait_ms <= ends[row].wait_max_ms,
                      "%s: waits %" PRId64 " ms", ends[row].name, wait_ms);
        ck_assert_int_eq(broker->next_due_ms, view.due_ms);
    }
    ck_assert_uint_eq(broker->delayed, view.state == SL_TASK_DELAYED);
}

START_TEST(test_each_way_back)
{
    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    start();
    struct sl_call *call = call_of(&armed, SL_CALL_SENT);
    call->attempt = ends[_i].attempt;
    call->deaths = ends[_i].deaths;
    call->max_attempts = ends[_i].max_attempts;
    call->flags = ends[_i].flags;
    call->is_cancelled = ends[_i].is_cancelled;
    struct sl_call_end end = {.err = ends[_i].err, .is_unstarted = ends[_i].is_unstarted};
    sl_dispatch_end(broker, call, &end);
    ck_assert_uint_eq(broker->in_flight, 0); /* the place is free before the end is on disk */
    ck_assert_uint_eq(broker->providers[0].in_flight, 0);
    ck_assert_uint_eq(broker->calls.counts[SL_CALL_ENDING], 1);
    finish();
    ck_assert_uint_eq(broker->calls.free_count, broker->calls.size);
    ck_assert_uint_eq(broker->stored.provider_calls, ends[_i].counts);
    check_end(armed.task, _i);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 0);
    store_commit();
}
END_TEST

START_TEST(test_what_the_provider_asks_for_is_waited)
{
    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    struct sl_result_msg_shm result = {.retry_after_ms = 30000, .http_status = 429};
    struct sl_call_end end = {.err = SL_ERR_RATE_LIMITED, .result = &result};

    start();
    sl_dispatch_end(broker, call_of(&armed, SL_CALL_SENT), &end);
    finish();
    struct sl_task_view view = store_view(armed.task);
    ck_assert_int_eq(view.state, SL_TASK_DELAYED);
    ck_assert_int_ge(view.due_ms, STORE_NOW_MS + 30000);
    ck_assert_int_le(view.due_ms, STORE_NOW_MS + 30000 + BASE_MS);
    ck_assert_uint_eq(broker->providers[0].errors, 1);
    store_commit();
}
END_TEST

START_TEST(test_a_provider_that_is_configured_no_more)
{
    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    struct sl_call_end end = {.err = SL_ERR_RATE_LIMITED};

    start();
    struct sl_call *call = call_of(&armed, SL_CALL_ORPHAN);
    call->supply = LOST_SUPPLY;
    broker->providers[0].in_flight--;
    sl_dispatch_end(broker, call, &end);
    finish();
    ck_assert_uint_eq(broker->in_flight, 0);
    ck_assert_int_eq(store_state(armed.task), SL_TASK_DELAYED);
    store_commit();
}
END_TEST

/* ---- what comes with a result ---------------------------------------------------------------- */

static void see_result(void *ctx, const struct sl_result_msg *msg)
{
    ck_assert_int_eq(msg->state, SL_TASK_COMPLETED);
    ck_assert(sl_span_equal(msg->request_id, sl_span_str("req")));
    ck_assert(sl_span_equal(msg->message, sl_span_str("hm")));
    ck_assert(sl_span_equal(msg->body, sl_span_str("{\"a\":1}")));
    ck_assert_uint_eq(msg->http_status, 201);
    ck_assert_uint_eq(msg->input_tokens, 11);
    ck_assert_uint_eq(msg->output_tokens, 22);
    ck_assert_uint_eq(msg->queued_us, 777);
    ck_assert(msg->body_is_json);
    ck_assert_uint_eq(msg->call_us, *(const uint32_t *)ctx);
}

static const struct {
    int64_t call_ns;
    uint32_t call_us;
} durations[] = {
    {1234567, 1234},
    {0, 0},
    {-5, 0},
    {INT64_MIN, 0},
    {INT64_MAX, UINT32_MAX},
    {INT64_C(4294967295) * 1000, UINT32_MAX},
    {INT64_C(4294967294) * 1000, UINT32_MAX - 1},
};

START_TEST(test_a_result_is_kept_whole)
{
    struct sl_result_msg_shm result = {.http_status = 201,
                                       .flags = SL_RESULT_BODY_IS_JSON | 0xf0,
                                       .call_ns = durations[_i].call_ns,
                                       .input_tokens = 11,
                                       .output_tokens = 22,
                                       .request_id_bytes = 3,
                                       .message_bytes = 2,
                                       .body_bytes = 7};
    struct sl_call_end end = {.result = &result, .payload = sl_span_str("reqhm{\"a\":1}")};
    struct sl_read_request request = {.job = job, .count_max = 10};
    struct store_results results;
    uint32_t call_us = durations[_i].call_us;

    store_accept_many(job, "t", 1);
    struct sl_armed armed = store_arm_one();
    start();
    struct sl_call *call = call_of(&armed, SL_CALL_SENT);
    call->queued_us = 777;
    sl_dispatch_end(broker, call, &end);
    finish();
    store_read(&request, SL_MIB, see_result, &call_us, &results);
    ck_assert_uint_eq(results.frames, 1);
    store_commit();
}
END_TEST

/* ---- many ------------------------------------------------------------------------------------ */

#define MANY 1000

START_TEST(test_more_ends_than_one_operation_holds)
{
    struct sl_call_end end = {.err = SL_OK};
    static struct sl_armed armed[MANY];

    store_accept_many(job, "t", MANY);
    memcpy(armed, store_arm(MANY).armed, sizeof(armed));
    start();
    for (size_t i = 0; i < MANY; i++) {
        sl_dispatch_end(broker, call_of(&armed[i], SL_CALL_SENT), &end);
    }
    ck_assert_uint_eq(broker->in_flight, 0);
    finish();
    ck_assert_uint_eq(broker->stored.completed, MANY);
    ck_assert_uint_eq(store_job_info(job).completed, MANY);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 0);
    ck_assert_uint_eq(broker->calls.free_count, broker->calls.size);
    store_commit();
}
END_TEST

START_TEST(test_disarm_abandon_and_orphans)
{
    static struct sl_armed armed[9];
    static const enum sl_call_state states[] = {SL_CALL_ARMED, SL_CALL_SENT, SL_CALL_ORPHAN};

    store_accept_many(job, "t", 9);
    memcpy(armed, store_arm(9).armed, sizeof(armed));
    start();
    for (size_t i = 0; i < 9; i++) {
        struct sl_call *call = call_of(&armed[i], states[i / 3]);
        call->body_bytes = 100;
        if (states[i / 3] == SL_CALL_ARMED) {
            broker->providers[0].armed_bytes += 100;
            sl_call_list_add(&broker->providers[0].armed, call);
        }
    }
    sl_dispatch_disarm_all(broker);
    ck_assert_uint_eq(broker->providers[0].armed_bytes, 0);
    ck_assert_uint_eq(broker->providers[0].armed.count, 0);
    ck_assert_uint_eq(broker->in_flight, 6);
    sl_dispatch_abandon_all(broker);
    ck_assert_uint_eq(broker->in_flight, 3);
    broker->has_lost_worker = true;
    sl_dispatch_end_orphans(broker);
    ck_assert_uint_eq(broker->in_flight, 0);
    finish();
    ck_assert_uint_eq(broker->stored.provider_calls, 6);
    ck_assert_uint_eq(store_count(SL_DB_READY), 9);
    for (uint32_t i = 0; i < 9; i++) {
        ck_assert_uint_eq(store_view(sl_task_number(job, i)).attempts, i / 3 == 0 ? 0 : 1);
    }
    store_commit();
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("settle");
    TCase *tests = tcase_create("settle");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, test_each_way_back, 0, SL_ARRAY_LEN(ends));
    tcase_add_test(tests, test_what_the_provider_asks_for_is_waited);
    tcase_add_test(tests, test_a_provider_that_is_configured_no_more);
    tcase_add_loop_test(tests, test_a_result_is_kept_whole, 0, SL_ARRAY_LEN(durations));
    tcase_add_test(tests, test_more_ends_than_one_operation_holds);
    tcase_add_test(tests, test_disarm_abandon_and_orphans);
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
