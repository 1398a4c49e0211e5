/*
 * The worker service as a whole: sluice-worker against a broker of the test (tests/support/
 * fake_broker) and the provider stub. Every outcome a provider can give a call, and every way a
 * broker or a worker can go away.
 *
 * Starts real programs, in its own directory, on free ports. Waits for events, never for time.
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <sys/socket.h>

#include "common/err.h"
#include "common/os.h"
#include "tests/support/fake_broker.h"
#include "tests/support/process.h"
#include "tests/support/tmp_dir.h"
#include "tests/support/wait.h"

#define QUICK_MS 300

static struct process stub;
static struct process service;
static struct fake_broker *broker;
static size_t worker;
static int garbled_fd = -1; /* where provider "garbled" connects to */

/* ---- fixture --------------------------------------------------------------------------------- */

static unsigned start_stub(void)
{
    const char *port_file = tmp_dir_file("port");
    const char *argv[] = {SLUICE_STUB,
                          "--port-file",
                          port_file,
                          "--echo-full",
                          "--die-with-parent",
                          "--log",
                          tmp_dir_file("asked.jsonl"),
                          NULL};
    unsigned port = 0;

    process_start(&stub, argv, tmp_dir_file("stub.log"));
    ck_assert_msg(wait_file(port_file, WAIT_MS), "the stub does not start");
    FILE *file = fopen(port_file, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%u", &port), 1);
    fclose(file);
    return port;
}

/* A listener that the test itself answers for. */
static unsigned garbled_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);

    garbled_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(garbled_fd, 0);
    ck_assert_int_eq(bind(garbled_fd, (struct sockaddr *)&address, len), 0);
    ck_assert_int_eq(listen(garbled_fd, 16), 0);
    ck_assert_int_eq(getsockname(garbled_fd, (struct sockaddr *)&address, &len), 0);
    return ntohs(address.sin_port);
}

static void write_config(unsigned port)
{
    char text[4096];
    char long_label[65];

    memset(long_label, 'x', 64);
    long_label[64] = '\0';
    snprintf(text, sizeof(text),
             "llm_queue_enabled = true; socket = \"%s\"; state_dir = \"%s\";\n"
             "log_level = \"debug\"; drain_timeout_s = 2.0; worker = { processes = 1; };\n"
             "providers = (\n"
             "{ name = \"stub\"; base_url = \"http://127.0.0.1:%u/v1\"; timeout_s = 30.0; },\n"
             "{ name = \"hasty\"; base_url = \"http://127.0.0.1:%u/v1\";\n"
             "  first_byte_timeout_s = 0.2; },\n"
             "{ name = \"keyless\"; base_url = \"http://127.0.0.1:%u/v1\";\n"
             "  api_key_env = \"SLUICE_TEST_NO_SUCH_KEY\"; },\n"
             "{ name = \"plain\"; base_url = \"https://127.0.0.1:%u/v1\";\n"
             "  connect_timeout_s = 0.3; },\n"
             "{ name = \"garbled\"; base_url = \"https://127.0.0.1:%u/v1\"; },\n"
             "{ name = \"nobody\"; base_url = \"http://127.0.0.1:1/v1\"; },\n"
             "{ name = \"nameless\"; base_url = \"http://%s.invalid/v1\"; } );\n",
             tmp_dir_file("s.sock"), tmp_dir_file("state"), port, port, port, port, garbled_port(),
             long_label);
    tmp_dir_write("sluice.conf", text);
}

static void start_service(void)
{
    const char *argv[] = {SLUICE_WORKER, "--config", tmp_dir_file("sluice.conf"), NULL};

    process_start(&service, argv, tmp_dir_file("worker.log"));
}

static void set_up(void)
{
    tmp_dir_make();
    write_config(start_stub());
    broker = fake_broker_open(tmp_dir_file("s.sock"));
    start_service();
    worker = fake_broker_accept(broker, 7);
}

static void tear_down(void)
{
    process_end(&service);
    process_end(&stub);
    if (broker != NULL) {
        fake_broker_close(broker);
    }
    sl_os_close(&garbled_fd);
    tmp_dir_remove();
}

/* ---- helpers --------------------------------------------------------------------------------- */

static void send_prompt(uint64_t task, const char *provider, const char *prompt,
                        uint32_t timeout_ms)
{
    char body[1024];
    int len =
        snprintf(body, sizeof(body),
                 "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", prompt);
    const struct fake_call call = {.task = task,
                                   .attempt = 1,
                                   .kind = SL_WORK_CALL,
                                   .timeout_ms = timeout_ms,
                                   .provider = provider,
                                   .body = sl_span_of(body, (size_t)len)};

    fake_broker_send(broker, worker, &call);
    fake_broker_ring(broker, worker);
}

static void show_log(void)
{
    FILE *file = fopen(tmp_dir_file("worker.log"), "r");
    char line[1024];

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        fputs(line, stderr);
    }
    if (file != NULL) {
        fclose(file);
    }
}

static void get_result(struct fake_result *out)
{
    if (!fake_broker_result(broker, worker, out, WAIT_MS)) {
        show_log();
        ck_abort_msg("no result");
    }
}

static void expect_idle_end(int status)
{
    ck_assert_msg(process_wait(&service, WAIT_MS), "the service does not end");
    ck_assert_int_eq(service.status, status);
}

static void cancel_call(uint64_t task)
{
    const struct fake_call call = {
        .task = task, .attempt = 1, .kind = SL_WORK_CANCEL, .provider = ""};

    fake_broker_send(broker, worker, &call);
    fake_broker_ring(broker, worker);
}

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

    send_prompt(42, want->provider, want->prompt, want->timeout_ms);
    get_result(&result);
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

    send_prompt(1, "stub", "[[stub:429 retry_after_ms=1500]]", 0);
    get_result(&result);
    ck_assert_uint_eq(result.msg.retry_after_ms, 1500);
    fake_result_fini(&result);
}
END_TEST

START_TEST(tells_a_server_without_tls)
{
    struct fake_result result;
    static const char text[] = "this is no handshake, and never will be one\n";

    send_prompt(1, "garbled", "words", 0);
    ck_assert(wait_readable(garbled_fd, WAIT_MS));
    int fd = accept(garbled_fd, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, sizeof(text) - 1), (ssize_t)sizeof(text) - 1);
    get_result(&result);
    ck_assert_int_eq(result.msg.err, SL_ERR_TLS);
    fake_result_fini(&result);
    close(fd);
}
END_TEST

/* libcurl would repeat the request by itself on a new connection; the provider may have taken it.
 */
START_TEST(never_repeats_a_call_by_itself)
{
    struct fake_result result;

    send_prompt(1, "stub", "opens a connection", 0);
    get_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
    send_prompt(2, "stub", "[[stub:closeearly]] on the kept one", 0);
    get_result(&result);
    ck_assert_int_eq(result.msg.err, SL_ERR_RESET);
    fake_result_fini(&result);
    send_prompt(3, "stub", "how often was the second one asked?", 0);
    get_result(&result);
    fake_result_fini(&result);
    process_signal(&stub, SIGTERM);
    ck_assert(process_wait(&stub, WAIT_MS));
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
    fake_broker_call(broker, worker, 5, body);
    get_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    ck_assert(result.is_large);
    ck_assert_uint_gt(result.msg.body_bytes, len - 200);
    fake_result_fini(&result);
    free(body);

    /* It was acknowledged: nothing keeps a drain from ending. */
    fake_broker_drain(broker, worker);
    ck_assert(fake_broker_gone(broker, worker, WAIT_MS));
    ck_assert(fake_broker_has_left(broker, worker));
}
END_TEST

START_TEST(runs_many_calls_and_keeps_them_apart)
{
    enum { CALLS = 2000 };
    static bool seen[CALLS];

    for (uint64_t i = 0; i < CALLS; i++) {
        char prompt[64];
        snprintf(prompt, sizeof(prompt), "number <%llu>", (unsigned long long)i);
        send_prompt(i, "stub", prompt, 0);
    }
    for (size_t i = 0; i < CALLS; i++) {
        struct fake_result result;
        char want[64];
        get_result(&result);
        ck_assert_int_eq(result.msg.err, SL_OK);
        ck_assert_uint_lt(result.msg.task, CALLS);
        ck_assert(!seen[result.msg.task]);
        seen[result.msg.task] = true;
        snprintf(want, sizeof(want), "number <%llu>", (unsigned long long)result.msg.task);
        ck_assert_msg(strstr(result.body, want) != NULL, "another task's answer");
        fake_result_fini(&result);
        if (i % 100 == 0) {
            fake_broker_release(broker, worker);
        }
    }
}
END_TEST

START_TEST(aborts_a_call_that_is_cancelled)
{
    struct fake_result result;

    send_prompt(1, "stub", "[[stub:hang]]", 0);
    send_prompt(2, "stub", "words", 0);
    get_result(&result); /* the first is surely running by now */
    ck_assert_uint_eq(result.msg.task, 2);
    fake_result_fini(&result);
    cancel_call(1);
    cancel_call(2); /* finished: the answer was faster, nothing more comes of it */
    cancel_call(3); /* never heard of */
    get_result(&result);
    ck_assert_uint_eq(result.msg.task, 1);
    ck_assert_int_eq(result.msg.err, SL_ERR_CANCELLED);
    fake_result_fini(&result);
    ck_assert(!fake_broker_result(broker, worker, &result, 50));
}
END_TEST

/* ---- who goes away --------------------------------------------------------------------------- */

static bool is_held(uint64_t task, uint64_t generation)
{
    size_t count;
    const struct sl_held_call *held = fake_broker_held(broker, &count);

    for (size_t i = 0; i < count; i++) {
        if (held[i].task == task && held[i].generation == generation && held[i].attempt == 1) {
            return true;
        }
    }
    return false;
}

static void renew_broker(uint64_t generation)
{
    fake_broker_close(broker);
    broker = fake_broker_open(tmp_dir_file("s.sock"));
    worker = fake_broker_accept(broker, generation);
}

START_TEST(keeps_calls_and_results_for_the_next_broker)
{
    struct fake_result result;
    size_t count;
    bool seen[4] = {false};

    send_prompt(1, "stub", "finished, never released", 0);
    get_result(&result);
    fake_result_fini(&result);
    send_prompt(2, "stub", "[[stub:latency_ms=400]] still running", 0);
    send_prompt(3, "stub", "in the lane when the broker dies", 0);
    renew_broker(8);

    (void)fake_broker_held(broker, &count);
    ck_assert_uint_eq(count, 3);
    ck_assert(is_held(1, 7) && is_held(2, 7) && is_held(3, 7));
    for (int i = 0; i < 3; i++) {
        get_result(&result);
        ck_assert_int_eq(result.msg.err, SL_OK);
        ck_assert_uint_eq(result.msg.generation, 7);
        ck_assert_uint_lt(result.msg.task, 4);
        ck_assert(!seen[result.msg.task]);
        seen[result.msg.task] = true;
        fake_result_fini(&result);
    }
    fake_broker_release(broker, worker);

    send_prompt(9, "stub", "work of the new broker", 0);
    get_result(&result);
    ck_assert_uint_eq(result.msg.generation, 8);
    fake_result_fini(&result);
}
END_TEST

START_TEST(forgets_what_was_released)
{
    struct fake_result result;
    size_t count;

    send_prompt(1, "stub", "words", 0);
    get_result(&result);
    fake_result_fini(&result);
    fake_broker_release(broker, worker);
    renew_broker(8);
    (void)fake_broker_held(broker, &count);
    ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(survives_a_broker_that_writes_nonsense)
{
    struct fake_call call = {
        .task = 1, .attempt = 1, .kind = 77, .provider = "stub", .body = sl_span_str("{}")};

    fake_broker_send(broker, worker, &call);
    fake_broker_ring(broker, worker);
    ck_assert(fake_broker_gone(broker, worker, WAIT_MS));
    worker = fake_broker_accept(broker, 8); /* and comes back */
    ck_assert_int_eq(service.has_ended, false);
}
END_TEST

START_TEST(drains_when_the_broker_does)
{
    struct fake_result result;

    send_prompt(1, "stub", "[[stub:latency_ms=200]]", 0);
    send_prompt(2, "stub", "words", 0);
    get_result(&result);
    fake_result_fini(&result);
    fake_broker_drain(broker, worker);
    get_result(&result);
    ck_assert_uint_eq(result.msg.task, 1);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
    ck_assert(fake_broker_has_left(broker, worker));

    /* What comes now is handed back untouched. */
    send_prompt(3, "stub", "too late", 0);
    get_result(&result);
    ck_assert_uint_eq(result.msg.task, 3);
    ck_assert_uint_ne(result.msg.flags & SL_RESULT_NOT_STARTED, 0);
    fake_result_fini(&result);

    ck_assert(!fake_broker_gone(broker, worker, 50)); /* it waits for the release */
    fake_broker_release(broker, worker);
    ck_assert(fake_broker_gone(broker, worker, WAIT_MS));
    worker = fake_broker_accept(broker, 8); /* the next worker waits for the next broker */
}
END_TEST

START_TEST(drains_at_sigterm_and_ends)
{
    struct fake_result result;

    send_prompt(1, "stub", "[[stub:latency_ms=200]]", 0);
    send_prompt(2, "stub", "words", 0);
    get_result(&result);
    fake_result_fini(&result);
    process_signal(&service, SIGTERM);
    get_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    ck_assert_uint_eq(result.msg.task, 1);
    fake_result_fini(&result);
    fake_broker_release(broker, worker);
    expect_idle_end(0);
    ck_assert(fake_broker_gone(broker, worker, WAIT_MS));
    ck_assert(fake_broker_has_left(broker, worker));
}
END_TEST

START_TEST(breaks_off_what_outlasts_the_drain)
{
    struct fake_result result;

    send_prompt(1, "stub", "[[stub:hang]]", 0);
    send_prompt(2, "stub", "words", 0);
    get_result(&result);
    fake_result_fini(&result);
    process_signal(&service, SIGTERM);
    get_result(&result);
    ck_assert_uint_eq(result.msg.task, 1);
    ck_assert_int_eq(result.msg.err, SL_ERR_RESET);
    ck_assert_ptr_nonnull(strstr(result.message, "stopped"));
    fake_result_fini(&result);
    fake_broker_release(broker, worker);
    expect_idle_end(0);
}
END_TEST

START_TEST(stops_at_once_at_the_second_signal)
{
    send_prompt(1, "stub", "[[stub:hang]]", 0);
    process_signal(&service, SIGTERM);
    ck_assert(wait_text(tmp_dir_file("worker.log"), "event=drain", WAIT_MS));
    process_signal(&service, SIGTERM);
    expect_idle_end(0);
    ck_assert(fake_broker_gone(broker, worker, WAIT_MS));
}
END_TEST

START_TEST(starts_a_killed_worker_again)
{
    pid_t before = fake_broker_worker_pid(broker, worker);

    send_prompt(1, "stub", "[[stub:hang]]", 0);
    ck_assert_int_eq(kill(before, SIGKILL), 0);
    ck_assert(fake_broker_gone(broker, worker, WAIT_MS));
    worker = fake_broker_accept(broker, 8);
    ck_assert_int_ne(fake_broker_worker_pid(broker, worker), before);
    ck_assert(wait_text(tmp_dir_file("worker.log"), "event=worker_exit", WAIT_MS));
    ck_assert(wait_text(tmp_dir_file("worker.log"), "signal=9", WAIT_MS));

    struct fake_result result;
    send_prompt(2, "stub", "words", 0);
    get_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
}
END_TEST

START_TEST(drains_when_its_parent_is_killed)
{
    struct fake_result result;

    send_prompt(1, "stub", "[[stub:latency_ms=200]]", 0);
    send_prompt(2, "stub", "words", 0);
    get_result(&result);
    fake_result_fini(&result);
    ck_assert_int_eq(kill(service.pid, SIGKILL), 0);
    get_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
    fake_broker_release(broker, worker);
    ck_assert(fake_broker_gone(broker, worker, WAIT_MS));
}
END_TEST

START_TEST(reads_providers_again_at_sighup)
{
    struct fake_result result;

    tmp_dir_write("sluice.conf", "nonsense = 1;");
    process_signal(&service, SIGHUP);
    ck_assert(wait_text(tmp_dir_file("worker.log"), "event=config_error", WAIT_MS));
    send_prompt(1, "stub", "the old settings stay", 0);
    get_result(&result);
    ck_assert_int_eq(result.msg.err, SL_OK);
    fake_result_fini(&result);
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
    Suite *suite = suite_create("worker");
    TCase *calls = tcase_create("calls");
    TCase *program = tcase_create("program");

    tcase_add_checked_fixture(calls, set_up, tear_down);
    tcase_set_timeout(calls, 60);
    tcase_add_loop_test(calls, gives_each_outcome_its_error, 0, (int)SL_ARRAY_LEN(outcomes));
    tcase_add_test(calls, reports_the_delay_the_provider_asks_for);
    tcase_add_test(calls, tells_a_server_without_tls);
    tcase_add_test(calls, never_repeats_a_call_by_itself);
    tcase_add_test(calls, carries_large_bodies_and_answers);
    tcase_add_test(calls, runs_many_calls_and_keeps_them_apart);
    tcase_add_test(calls, aborts_a_call_that_is_cancelled);
    tcase_add_test(calls, keeps_calls_and_results_for_the_next_broker);
    tcase_add_test(calls, forgets_what_was_released);
    tcase_add_test(calls, survives_a_broker_that_writes_nonsense);
    tcase_add_test(calls, drains_when_the_broker_does);
    tcase_add_test(calls, drains_at_sigterm_and_ends);
    tcase_add_test(calls, breaks_off_what_outlasts_the_drain);
    tcase_add_test(calls, stops_at_once_at_the_second_signal);
    tcase_add_test(calls, starts_a_killed_worker_again);
    tcase_add_test(calls, drains_when_its_parent_is_killed);
    tcase_add_test(calls, reads_providers_again_at_sighup);
    suite_add_tcase(suite, calls);
    tcase_set_timeout(program, 60);
    tcase_add_test(program, says_what_it_cannot_do);
    suite_add_tcase(suite, program);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
