/*
 * The fixture of the worker service's tests. See the header.
 */
#include "tests/support/worker_case.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/os.h"

struct worker_case worker_case = {.own_fd = -1};

static unsigned own_port;

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

    process_start(&worker_case.stub, argv, tmp_dir_file("stub.log"));
    ck_assert_msg(wait_file(port_file, WAIT_MS), "the stub does not start");
    FILE *file = fopen(port_file, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%u", &port), 1);
    fclose(file);
    return port;
}

/* A listener that the test itself answers for. */
static void open_own_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);

    worker_case.own_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(worker_case.own_fd, 0);
    ck_assert_int_eq(bind(worker_case.own_fd, (struct sockaddr *)&address, len), 0);
    ck_assert_int_eq(listen(worker_case.own_fd, 16), 0);
    ck_assert_int_eq(getsockname(worker_case.own_fd, (struct sockaddr *)&address, &len), 0);
    own_port = ntohs(address.sin_port);
}

void worker_case_config(unsigned port, const char *more)
{
    char text[4096];
    char long_label[65];

    memset(long_label, 'x', 64);
    long_label[64] = '\0';
    if (worker_case.own_fd < 0) {
        open_own_port();
        ck_assert_int_eq(chmod(tmp_dir_write("key", "sk-secret-of-the-test\n"), 0600), 0);
    }
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
             "{ name = \"observed\"; base_url = \"http://127.0.0.1:%u/v1\";\n"
             "  api_key_file = \"%s\"; },\n%s"
             "{ name = \"nameless\"; base_url = \"http://%s.invalid/v1\"; } );\n",
             tmp_dir_file("s.sock"), tmp_dir_file("state"), port, port, port, port, own_port,
             own_port, tmp_dir_file("key"), more, long_label);
    tmp_dir_write("sluice.conf", text);
}

void worker_case_start(const char *option)
{
    const char *argv[] = {SLUICE_WORKER, "--config", tmp_dir_file("sluice.conf"), option, NULL};

    process_start(&worker_case.service, argv, tmp_dir_file("worker.log"));
}

void worker_case_parts(void)
{
    tmp_dir_make();
    worker_case.stub_port = start_stub();
    worker_case_config(worker_case.stub_port, "");
    worker_case.broker = fake_broker_open(tmp_dir_file("s.sock"));
}

void worker_case_begin(void)
{
    worker_case_parts();
    worker_case_start(NULL);
    worker_case.worker = fake_broker_accept(worker_case.broker, 7);
}

void worker_case_end(void)
{
    process_end(&worker_case.service);
    process_end(&worker_case.stub);
    if (worker_case.broker != NULL) {
        fake_broker_close(worker_case.broker);
    }
    sl_os_close(&worker_case.own_fd);
    tmp_dir_remove();
}

/* ---- helpers --------------------------------------------------------------------------------- */

void worker_case_send(uint64_t task, const char *provider, const char *prompt, uint32_t timeout_ms)
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

    fake_broker_send(worker_case.broker, worker_case.worker, &call);
    fake_broker_ring(worker_case.broker, worker_case.worker);
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

void worker_case_result(struct fake_result *out)
{
    if (!fake_broker_result(worker_case.broker, worker_case.worker, out, WAIT_MS)) {
        show_log();
        ck_abort_msg("no result");
    }
}

bool worker_case_has_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "r");
    char line[4096];
    bool is_there = false;

    ck_assert_ptr_nonnull(file);
    while (!is_there && fgets(line, sizeof(line), file) != NULL) {
        is_there = strstr(line, text) != NULL;
    }
    fclose(file);
    return is_there;
}
