/*
 * The calls of the worker service: sluice-worker against a broker of the test (tests/support/
 * fake_broker) and the provider stub. Every outcome a provider can give a call.
 *
 * Starts real programs, in its own directory, on free ports. Waits for events, never for time.
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/err.h"
#include "tests/support/worker_case.h"

#define QUICK_MS 300

/* Lines of the stub's log with this client request id. */
static int count_asked(const char *id)
{
    FILE *file = fopen(tmp_dir_file("asked.jsonl"), "r");
    char line[4096];
    int count = 0;

    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        count += strstr(line, id) != NULL;
    }
    fclose(file);
    return count;
}

static void cancel_call(uint64_t task)
{
    const struct fake_call call = {
        .task = task, .attempt = 1, .kind = SL_WORK_CANCEL, .provider = ""};

    fake_broker_send(worker_case.broker, worker_case.worker, &call);
    fake_broker_ring(worker_case.broker, worker_case.worker);
}

/* ---- what a provider can do ------------------------------------------------------------------ */

static const struct outcome {
    const char *prompt;
    const char *provider;
    uint32_t timeout_ms; /* 0: the provider's */
    enum sl_err err;
    uint16_t http_status;
    const char *message; /* a part of it */
} outcomes[] = {
    {"plain words", "stub", 0, SL_OK, 200, ""},
    {"[[stub:cutoff]]", "stub", 0, SL_OK, 200, ""},
    {"[[stub:slow slow_ms=1 slow_bytes=64]]", "stub", 0, SL_OK, 200, ""},
    {"[[stub:429]]", "stub", 0, SL_ERR_RATE_LIMITED, 429, "rate_limit"},
    {"[[stub:slowdown]]", "stub", 0, SL_ERR_RATE_LIMITED, 429, "slow_down"},
    {"[[stub:quota]]", "stub", 0, SL_ERR_BILLING, 429, "insufficient_quota"},
    {"[[stub:408]]", "stub", 0, SL_ERR_PROVIDER_ERROR, 408, ""},
    {"[[stub:500]]", "stub", 0, SL_ERR_PROVIDER_ERROR, 500, ""},
    {"[[stub:overloaded]]", "stub", 0, SL_ERR_PROVIDER_ERROR, 503, "server_is_overloaded"},
    {"[[stub:400]]", "stub", 0, SL_ERR_REJECTED, 400, ""},
    {"[[stub:401]]", "stub", 0, SL_ERR_AUTH, 401, ""},
    {"[[stub:403]]", "stub", 0, SL_ERR_AUTH, 403, ""},
    {"[[stub:http200error]]", "stub", 0, SL_ERR_ANSWER_ERROR, 200, ""},
    {"[[stub:redirect]]", "stub", 0, SL_ERR_REDIRECT, 307, ""},
    {"[[stub:reset]]", "stub", 0, SL_ERR_RESET, 0, ""},
    {"[[stub:closeearly]]", "stub", 0, SL_ERR_RESET, 0, ""},
    {"[[stub:hang]]", "stub", QUICK_MS, SL_ERR_TIMEOUT, 0, ""},
    {"[[stub:hang]]", "hasty", 0, SL_ERR_FIRST_BYTE_TIMEOUT, 0, ""},
    {"[[stub:stall]]", "hasty", QUICK_MS * 2, SL_ERR_TIMEOUT, 200, ""},
    {"[[stub:truncate]]", "stub", 0, SL_ERR_TRUNCATED, 200, ""},
    {"[[stub:cutreset]]", "stub", 0, SL_ERR_RESET, 200, ""},
    {"[[stub:garbage]]", "stub", 0, SL_ERR_RESPONSE_INVALID, 200, "not JSON"},
    {"[[stub:badutf8]]", "stub", 0, SL_ERR_RESPONSE_INVALID, 200, "not JSON"},
    {"[[stub:deep]]", "stub", 0, SL_ERR_RESPONSE_INVALID, 200, "not JSON"},
    {"[[stub:empty]]", "stub", 0, SL_ERR_RESPONSE_INVALID, 200, "not JSON"},
    {"[[stub:nothttp]]", "stub", 0, SL_ERR_RESPONSE_INVALID, 0, ""},
    {"[[stub:badlength]]", "stub", 0, SL_ERR_TRUNCATED, 200, "not JSON"},
    {"[[stub:badchunk]]", "stub", 0, SL_ERR_RESET, 200, ""},
    {"[[stub:headerflood]]", "stub", 0, SL_ERR_RESPONSE_TOO_LARGE, 200, "headers"},
    {"[[stub:huge]]", "stub", 0, SL_ERR_RESPONSE_TOO_LARGE, 200, ""},
    {"words", "nobody", 0, SL_ERR_CONNECT, 0, ""},
    {"words", "plain", 0, SL_ERR_CONNECT_TIMEOUT, 0, ""},
    {"words", "nameless", 0, SL_ERR_RESOLVE, 0, ""},
    {"words", "keyless", 0, SL_ERR_KEY_MISSING, 0, "keyless"},
    {"words", "unheard-of", 0, SL_ERR_UNKNOWN_PROVIDER, 0, "unheard-of"},
    {"x\"}],\"stream\":true,\"y\":[{\"z\":\"", "stub", 0, SL_ERR_REJECTED, 0, "stream"},
};

START_TEST(gives_each_outcome_its_error)
{
    const struct outcome *want = &outcomes[_i];
    struct fake_result result;

    worker_case_send(42, want->provider, want->prompt, want->timeout_ms);
    worker_case_result(&result);
    ck_assert_msg(result.msg.err == want->err, "%s at %s: %s instead of %s (%s)", want->prompt,
                  want->provider, sl_err_code(result.msg.err), sl_err_code(want->err),
                  result.message);
    ck_assert_uint_eq(result.msg.http_status, want->http_status);
    ck_assert_msg(strstr(result.message, want->message) != NULL, "message: %s", result.message);
    ck_assert_uint_eq(result.msg.task, 42);
    ck_assert_uint_eq(result.msg.attempt, 1);
    ck_assert_uint_eq(result.msg.generation, 7);
    if (want->err == SL_OK) {
        ck_assert_uint_ne(result.msg.flags & SL_RESULT_BODY_IS_JSON, 0);
        ck_assert_ptr_nonnull(strstr(result.body, "echo:"));
        ck_assert_uint_gt(result.msg.input_tokens, 0);
        ck_assert_uint_gt(result.msg.output_tokens, 0);
        ck_assert_int_gt(result.msg.call_ns, 0);
        ck_assert_uint_gt(result.msg.request_id_bytes, 0);
    }
    fake_result_fini(&result);
}
END_TEST

START_TEST(reports_the_delay_the_provider_asks_for)
{
    struct fake_result result;

    worker_case_send(1, "stub", "[[stub:429 retry_after_ms=1500]]", 0);
    worker_case_result(&result);
    ck_assert_uint_eq(result.msg.retry_after_ms, 1500);
    fake_result_fini(&result);
}
END_TEST

static int accept_own(void)
{
    ck_assert(wait_readable(worker_case.own_fd, WAIT_MS));
    int fd = accept(worker_case.own_fd, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    return fd;
}

START_TEST(tells_a_server_without_tls)
{
    struct fake_result result;
    static const char text[] = "this is no handshake, and never will be one\n";

    worker_case_send(1, "garbled", "words", 0);
    int fd = accept_own();
    ck_assert_int_eq(write(fd, text, sizeof(text) - 1), (ssize_t)sizeof(text) - 1);
    worker_case_result(&result);
    ck_assert_int_eq(result.msg.err, SL_ERR_TLS);
    fake_result_fini(&result);
    close(fd);
}
END_TEST

/* What a provider sees of us, and that an interim answer counts for nothing. */
START_TEST(sends_a_plain_request_with_the_key)
{
    static const char answer[] = "HTTP/1.1 103 Early Hints\r\nx-request-id: early\r\n\r\n"
                                 "HTTP/1.1 200 OK\r\nX-Request-ID:  req-1 \r\n"
                                 "Content-Length: 11\r\n\r\n{\"a\":\"b\"} \n";
    char request[4096] = "";
    struct fake_result result;
    size_t len = 0;

    worker_case_send(0x10, "observed", "words", 0);
    int fd = accept_own();
    while (strstr(request, "\"words\"}]}") == NULL) {
        ssize_t got = read(fd, request + len, sizeof(request) - 1 - len);
        ck_assert_int_gt(got, 0);
        len += (size_t)got;
    }
    ck_assert_ptr_nonnull(strstr(request, "POST /v1/chat/completions HTTP/1.1\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nAuthorization: Bearer sk-secret-of-the-test\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nContent-Type: application/json\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nX-Client-Request-Id: task_0000000000000010-1\r\n"));
    ck_assert_ptr_null(strstr(request, "Expect:"));
    ck_assert_int_eq(write(fd, answer, sizeof(answer) - 1), (ssize_t)sizeof(answer) - 1);
    worker_case_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    ck_assert_str_eq(result.request_id, "req-1");
    fake_result_fini(&result);
    close(fd);
    ck_assert(!worker_case_has_text(tmp_dir_file("worker.log"), "sk-secret"));
}
END_TEST

/* libcurl would repeat the request by itself on a new connection; the provider may have taken it.
 */
START_TEST(never_repeats_a_call_by_itself)
{
    struct fake_result result;

    worker_case_send(1, "stub", "opens a connection", 0);
    worker_case_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
    worker_case_send(2, "stub", "[[stub:closeearly]] on the kept one", 0);
    worker_case_result(&result);
    ck_assert_int_eq(result.msg.err, SL_ERR_RESET);
    fake_result_fini(&result);
    worker_case_send(3, "stub", "how often was the second one asked?", 0);
    worker_case_result(&result);
    fake_result_fini(&result);
    process_signal(&worker_case.stub, SIGTERM);
    ck_assert(process_wait(&worker_case.stub, WAIT_MS));
    ck_assert_int_eq(count_asked("task_0000000000000002-1"), 1);
}
END_TEST

/* Payloads over the lane's bound go both ways over the socket, in memory of their own. */
START_TEST(carries_large_bodies_and_answers)
{
    size_t len = 3 * SL_MIB;
    char *body = malloc(len + 1);
    struct fake_result result;

    ck_assert_ptr_nonnull(body);
    static const char head[] = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"";
    static const char tail[] = "\"}]}";
    memset(body, 'w', len);
    memcpy(body, head, sizeof(head) - 1);
    memcpy(body + len - sizeof(tail) + 1, tail, sizeof(tail));
    fake_broker_call(worker_case.broker, worker_case.worker, 5, body);
    worker_case_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    ck_assert(result.is_large);
    ck_assert_uint_gt(result.msg.body_bytes, len - 200);
    fake_result_fini(&result);
    free(body);

    /* It was acknowledged: nothing keeps a drain from ending. */
    fake_broker_drain(worker_case.broker, worker_case.worker);
    ck_assert(fake_broker_gone(worker_case.broker, worker_case.worker, WAIT_MS));
    ck_assert(fake_broker_has_left(worker_case.broker, worker_case.worker));
}
END_TEST

START_TEST(runs_many_calls_and_keeps_them_apart)
{
    enum { CALLS = 2000 };
    static bool seen[CALLS];

    for (uint64_t i = 0; i < CALLS; i++) {
        char prompt[64];
        snprintf(prompt, sizeof(prompt), "number <%llu>", (unsigned long long)i);
        worker_case_send(i, "stub", prompt, 0);
    }
    for (size_t i = 0; i < CALLS; i++) {
        struct fake_result result;
        char want[64];
        worker_case_result(&result);
        ck_assert_int_eq(result.msg.err, SL_OK);
        ck_assert_uint_lt(result.msg.task, CALLS);
        ck_assert(!seen[result.msg.task]);
        seen[result.msg.task] = true;
        snprintf(want, sizeof(want), "number <%llu>", (unsigned long long)result.msg.task);
        ck_assert_msg(strstr(result.body, want) != NULL, "another task's answer");
        fake_result_fini(&result);
        if (i % 100 == 0) {
            fake_broker_release(worker_case.broker, worker_case.worker);
        }
    }
}
END_TEST

START_TEST(aborts_a_call_that_is_cancelled)
{
    struct fake_result result;

    worker_case_send(1, "stub", "[[stub:hang]]", 0);
    worker_case_send(2, "stub", "words", 0);
    worker_case_result(&result); /* the first is surely running by now */
    ck_assert_uint_eq(result.msg.task, 2);
    fake_result_fini(&result);
    cancel_call(1);
    cancel_call(2); /* finished: the answer was faster, nothing more comes of it */
    cancel_call(3); /* never heard of */
    worker_case_result(&result);
    ck_assert_uint_eq(result.msg.task, 1);
    ck_assert_int_eq(result.msg.err, SL_ERR_CANCELLED);
    fake_result_fini(&result);
    ck_assert(!fake_broker_result(worker_case.broker, worker_case.worker, &result, 50));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("worker");
    TCase *calls = tcase_create("calls");

    tcase_add_checked_fixture(calls, worker_case_begin, worker_case_end);
    tcase_set_timeout(calls, 60);
    tcase_add_loop_test(calls, gives_each_outcome_its_error, 0, (int)SL_ARRAY_LEN(outcomes));
    tcase_add_test(calls, reports_the_delay_the_provider_asks_for);
    tcase_add_test(calls, tells_a_server_without_tls);
    tcase_add_test(calls, sends_a_plain_request_with_the_key);
    tcase_add_test(calls, never_repeats_a_call_by_itself);
    tcase_add_test(calls, carries_large_bodies_and_answers);
    tcase_add_test(calls, runs_many_calls_and_keeps_them_apart);
    tcase_add_test(calls, aborts_a_call_that_is_cancelled);
    suite_add_tcase(suite, calls);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
