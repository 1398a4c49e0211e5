/*
 * The life of the worker service: brokers and workers that go away and come back, drains, signals,
 * and what the program does without any of them.
 *
 * Starts real programs, in its own directory, on free ports. Waits for events, never for time.
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "common/err.h"
#include "tests/support/worker_case.h"

static void expect_idle_end(int status)
{
    ck_assert_msg(process_wait(&worker_case.service, WAIT_MS), "the service does not end");
    ck_assert_int_eq(worker_case.service.status, status);
}

/* ---- who goes away --------------------------------------------------------------------------- */

static bool is_held(uint64_t task, uint64_t generation)
{
    size_t count;
    const struct sl_held_call *held = fake_broker_held(worker_case.broker, &count);

    for (size_t i = 0; i < count; i++) {
        if (held[i].task == task && held[i].generation == generation && held[i].attempt == 1) {
            return true;
        }
    }
    return false;
}

static void renew_broker(uint64_t generation)
{
    fake_broker_close(worker_case.broker);
    worker_case.broker = fake_broker_open(tmp_dir_file("s.sock"));
    worker_case.worker = fake_broker_accept(worker_case.broker, generation);
}

/* The worker sees the release and the work in one turn: it was stopped meanwhile. */
START_TEST(makes_a_call_that_it_handed_back_before)
{
    struct fake_result result;
    pid_t pid = fake_broker_worker_pid(worker_case.broker, worker_case.worker);

    worker_case_send(1, "unheard-of", "words", 0);
    worker_case_result(&result);
    ck_assert_uint_ne(result.msg.flags & SL_RESULT_NOT_STARTED, 0);
    fake_result_fini(&result);
    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    fake_broker_release(worker_case.broker, worker_case.worker);
    worker_case_send(1, "stub", "words", 0);
    ck_assert_int_eq(kill(pid, SIGCONT), 0);
    worker_case_result(&result);
    ck_assert_uint_eq(result.msg.task, 1);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
}
END_TEST

START_TEST(keeps_calls_and_results_for_the_next_broker)
{
    struct fake_result result;
    size_t count;
    bool seen[4] = {false};

    worker_case_send(1, "stub", "finished, never released", 0);
    worker_case_result(&result);
    fake_result_fini(&result);
    worker_case_send(2, "stub", "[[stub:latency_ms=400]] still running", 0);
    worker_case_send(3, "stub", "in the lane when the broker dies", 0);
    renew_broker(8);

    (void)fake_broker_held(worker_case.broker, &count);
    ck_assert_uint_eq(count, 3);
    ck_assert(is_held(1, 7) && is_held(2, 7) && is_held(3, 7));
    for (int i = 0; i < 3; i++) {
        worker_case_result(&result);
        ck_assert_int_eq(result.msg.err, SL_OK);
        ck_assert_uint_eq(result.msg.generation, 7);
        ck_assert_uint_lt(result.msg.task, 4);
        ck_assert(!seen[result.msg.task]);
        seen[result.msg.task] = true;
        fake_result_fini(&result);
    }
    fake_broker_release(worker_case.broker, worker_case.worker);

    worker_case_send(9, "stub", "work of the new broker", 0);
    worker_case_result(&result);
    ck_assert_uint_eq(result.msg.generation, 8);
    fake_result_fini(&result);
}
END_TEST

START_TEST(forgets_what_was_released)
{
    struct fake_result result;
    size_t count;

    worker_case_send(1, "stub", "words", 0);
    worker_case_result(&result);
    fake_result_fini(&result);
    fake_broker_release(worker_case.broker, worker_case.worker);
    renew_broker(8);
    (void)fake_broker_held(worker_case.broker, &count);
    ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(survives_a_broker_that_writes_nonsense)
{
    struct fake_call call = {
        .task = 1, .attempt = 1, .kind = 77, .provider = "stub", .body = sl_span_str("{}")};

    fake_broker_send(worker_case.broker, worker_case.worker, &call);
    fake_broker_ring(worker_case.broker, worker_case.worker);
    ck_assert(fake_broker_gone(worker_case.broker, worker_case.worker, WAIT_MS));
    worker_case.worker = fake_broker_accept(worker_case.broker, 8); /* and comes back */
    ck_assert_int_eq(worker_case.service.has_ended, false);
}
END_TEST

START_TEST(drains_when_the_broker_does)
{
    struct fake_result result;

    worker_case_send(1, "stub", "[[stub:latency_ms=200]]", 0);
    worker_case_send(2, "stub", "words", 0);
    worker_case_result(&result);
    fake_result_fini(&result);
    fake_broker_drain(worker_case.broker, worker_case.worker);
    worker_case_result(&result);
    ck_assert_uint_eq(result.msg.task, 1);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
    ck_assert(fake_broker_has_left(worker_case.broker, worker_case.worker));

    /* What comes now is handed back untouched. */
    worker_case_send(3, "stub", "too late", 0);
    worker_case_result(&result);
    ck_assert_uint_eq(result.msg.task, 3);
    ck_assert_uint_ne(result.msg.flags & SL_RESULT_NOT_STARTED, 0);
    fake_result_fini(&result);

    ck_assert(!fake_broker_gone(worker_case.broker, worker_case.worker,
                                50)); /* it waits for the release */
    fake_broker_release(worker_case.broker, worker_case.worker);
    ck_assert(fake_broker_gone(worker_case.broker, worker_case.worker, WAIT_MS));
    worker_case.worker =
        fake_broker_accept(worker_case.broker, 8); /* the next worker waits for the next broker */
}
END_TEST

START_TEST(drains_at_sigterm_and_ends)
{
    struct fake_result result;

    worker_case_send(1, "stub", "[[stub:latency_ms=200]]", 0);
    worker_case_send(2, "stub", "words", 0);
    worker_case_result(&result);
    fake_result_fini(&result);
    process_signal(&worker_case.service, SIGTERM);
    worker_case_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    ck_assert_uint_eq(result.msg.task, 1);
    fake_result_fini(&result);
    fake_broker_release(worker_case.broker, worker_case.worker);
    expect_idle_end(0);
    ck_assert(fake_broker_gone(worker_case.broker, worker_case.worker, WAIT_MS));
    ck_assert(fake_broker_has_left(worker_case.broker, worker_case.worker));
}
END_TEST

START_TEST(breaks_off_what_outlasts_the_drain)
{
    struct fake_result result;

    worker_case_send(1, "stub", "[[stub:hang]]", 0);
    worker_case_send(2, "stub", "words", 0);
    worker_case_result(&result);
    fake_result_fini(&result);
    process_signal(&worker_case.service, SIGTERM);
    worker_case_result(&result);
    ck_assert_uint_eq(result.msg.task, 1);
    ck_assert_int_eq(result.msg.err, SL_ERR_RESET);
    ck_assert_ptr_nonnull(strstr(result.message, "stopped"));
    fake_result_fini(&result);
    fake_broker_release(worker_case.broker, worker_case.worker);
    expect_idle_end(0);
}
END_TEST

START_TEST(stops_at_once_at_the_second_signal)
{
    worker_case_send(1, "stub", "[[stub:hang]]", 0);
    process_signal(&worker_case.service, SIGTERM);
    ck_assert(wait_text(tmp_dir_file("worker.log"), "event=drain", WAIT_MS));
    process_signal(&worker_case.service, SIGTERM);
    expect_idle_end(0);
    ck_assert(fake_broker_gone(worker_case.broker, worker_case.worker, WAIT_MS));
}
END_TEST

START_TEST(starts_a_killed_worker_again)
{
    pid_t before = fake_broker_worker_pid(worker_case.broker, worker_case.worker);

    worker_case_send(1, "stub", "[[stub:hang]]", 0);
    ck_assert_int_eq(kill(before, SIGKILL), 0);
    ck_assert(fake_broker_gone(worker_case.broker, worker_case.worker, WAIT_MS));
    worker_case.worker = fake_broker_accept(worker_case.broker, 8);
    ck_assert_int_ne(fake_broker_worker_pid(worker_case.broker, worker_case.worker), before);
    ck_assert(wait_text(tmp_dir_file("worker.log"), "event=worker_exit", WAIT_MS));
    ck_assert(wait_text(tmp_dir_file("worker.log"), "signal=9", WAIT_MS));

    struct fake_result result;
    worker_case_send(2, "stub", "words", 0);
    worker_case_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
}
END_TEST

START_TEST(drains_when_its_parent_is_killed)
{
    struct fake_result result;

    worker_case_send(1, "stub", "[[stub:latency_ms=200]]", 0);
    worker_case_send(2, "stub", "words", 0);
    worker_case_result(&result);
    fake_result_fini(&result);
    ck_assert_int_eq(kill(worker_case.service.pid, SIGKILL), 0);
    worker_case_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
    fake_broker_release(worker_case.broker, worker_case.worker);
    ck_assert(fake_broker_gone(worker_case.broker, worker_case.worker, WAIT_MS));
}
END_TEST

START_TEST(keeps_its_settings_at_a_bad_sighup)
{
    struct fake_result result;

    tmp_dir_write("sluice.conf", "nonsense = 1;");
    process_signal(&worker_case.service, SIGHUP);
    ck_assert(wait_text(tmp_dir_file("worker.log"), "event=config_error", WAIT_MS));
    worker_case_send(1, "stub", "the old settings stay", 0);
    worker_case_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
}
END_TEST

START_TEST(takes_new_providers_at_sighup)
{
    struct fake_result result = {0};
    char more[256];

    worker_case_send(1, "stub", "[[stub:latency_ms=300]] under the old settings", 0);
    snprintf(more, sizeof(more), "{ name = \"later\"; base_url = \"http://127.0.0.1:%u/v1\"; },\n",
             worker_case.stub_port);
    worker_case_config(worker_case.stub_port, more);
    process_signal(&worker_case.service, SIGHUP);
    uint64_t task = 100;
    do { /* the signal takes its time to come through; each asking is an event of its own */
        fake_result_fini(&result);
        worker_case_send(task++, "later", "words", 0);
        worker_case_result(&result);
    } while (result.msg.task == 1 || result.msg.err == SL_ERR_UNKNOWN_PROVIDER);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
}
END_TEST

START_TEST(ends_for_a_broker_of_another_version)
{
    worker_case_start(NULL);
    fake_broker_refuse(worker_case.broker, SL_ERR_VERSION);
    expect_idle_end(3);
}
END_TEST

START_TEST(comes_again_to_a_broker_that_is_full)
{
    worker_case_start(NULL);
    fake_broker_refuse(worker_case.broker, SL_ERR_OVERLOADED);
    worker_case.worker = fake_broker_accept(worker_case.broker, 1);
    process_signal(&worker_case.service, SIGTERM);
    expect_idle_end(0);
}
END_TEST

START_TEST(ends_with_its_broker_when_private)
{
    worker_case_start("--private");
    worker_case.worker = fake_broker_accept(worker_case.broker, 1);
    fake_broker_drain(worker_case.broker, worker_case.worker);
    expect_idle_end(0);
}
END_TEST

/* ---- the program ----------------------------------------------------------------------------- */

static int run_program(const char *text, const char *option)
{
    const char *argv[] = {SLUICE_WORKER, "--config", tmp_dir_write("other.conf", text), option,
                          NULL};
    struct process process;

    process_start(&process, argv, tmp_dir_file("other.log"));
    ck_assert(process_wait(&process, WAIT_MS));
    process_end(&process);
    return process.status;
}

START_TEST(says_what_it_cannot_do)
{
    tmp_dir_make();
    ck_assert_int_eq(run_program("llm_queue_enabled = false;", NULL), 0);
    ck_assert(wait_text(tmp_dir_file("other.log"), "event=disabled", WAIT_MS));
    ck_assert_int_eq(run_program("no_such_key = 1;", NULL), 3);
    ck_assert(wait_text(tmp_dir_file("other.log"), "no_such_key", WAIT_MS));
    ck_assert_int_eq(run_program("llm_queue_enabled = true;", "--check-config"), 0);
    ck_assert_int_eq(run_program("llm_queue_enabled = true;", "--no-such-option"), 2);
    ck_assert_int_eq(run_program("llm_queue_enabled = true;", "--help"), 0);
    tmp_dir_remove();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("worker_life");
    TCase *calls = tcase_create("calls");
    TCase *bonds = tcase_create("bonds");
    TCase *program = tcase_create("program");

    tcase_add_checked_fixture(calls, worker_case_begin, worker_case_end);
    tcase_set_timeout(calls, 60);
    tcase_add_test(calls, makes_a_call_that_it_handed_back_before);
    tcase_add_test(calls, keeps_calls_and_results_for_the_next_broker);
    tcase_add_test(calls, forgets_what_was_released);
    tcase_add_test(calls, survives_a_broker_that_writes_nonsense);
    tcase_add_test(calls, drains_when_the_broker_does);
    tcase_add_test(calls, drains_at_sigterm_and_ends);
    tcase_add_test(calls, breaks_off_what_outlasts_the_drain);
    tcase_add_test(calls, stops_at_once_at_the_second_signal);
    tcase_add_test(calls, starts_a_killed_worker_again);
    tcase_add_test(calls, drains_when_its_parent_is_killed);
    tcase_add_test(calls, keeps_its_settings_at_a_bad_sighup);
    tcase_add_test(calls, takes_new_providers_at_sighup);
    suite_add_tcase(suite, calls);
    tcase_add_checked_fixture(bonds, worker_case_parts, worker_case_end);
    tcase_set_timeout(bonds, 60);
    tcase_add_test(bonds, ends_for_a_broker_of_another_version);
    tcase_add_test(bonds, comes_again_to_a_broker_that_is_full);
    tcase_add_test(bonds, ends_with_its_broker_when_private);
    suite_add_tcase(suite, bonds);
    tcase_set_timeout(program, 60);
    tcase_add_test(program, says_what_it_cannot_do);
    suite_add_tcase(suite, program);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
