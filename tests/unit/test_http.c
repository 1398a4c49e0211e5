/*
 * The HTTP door, by real requests over loopback: each test plays the client on raw sockets and
 * turns the broker's loop in between, so one thread sees everything in order.
 */
#include "broker/http.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/os.h"
#include "tests/support/wait.h"

#define ANSWER_BYTES_MAX (2 * SL_HTTP_PAGE_BYTES_MAX)

static struct sl_http *http;
static struct sl_counters counters;
static struct sl_http_fault fault;
static const char *not_ready_reason; /* NULL: ready */
static size_t refresh_count;
static size_t extra_lines;
static size_t turn_count;
static char answer[ANSWER_BYTES_MAX];

/* ---- the broker's side ------------------------------------------------------------------------
 */

static bool on_ready(void *ctx, char reason[SL_HTTP_REASON_BYTES])
{
    ck_assert_ptr_eq(ctx, &counters);
    if (not_ready_reason == NULL) {
        return true;
    }
    snprintf(reason, SL_HTTP_REASON_BYTES, "%s", not_ready_reason);
    return false;
}

static void on_refresh(void *ctx)
{
    ck_assert_ptr_eq(ctx, &counters);
    refresh_count++;
}

static void on_metrics(void *ctx, struct sl_metrics_text *text)
{
    ck_assert_ptr_eq(ctx, &counters);
    sl_metrics_add_head(text, "llm_queue_extra", "gauge", "A line of the broker's own.");
    for (size_t i = 0; i < extra_lines; i++) {
        char name[32];
        sl_metrics_escape_label(name, sizeof(name), sl_span_str("a\"b\\c\nd"));
        sl_metrics_add(text, "llm_queue_extra{name=\"%s\",idx=\"%zu\"} %zu\n", name, i, i);
    }
}

static const struct sl_http_source source = {
    .ctx = &counters,
    .counters = &counters,
    .refresh = on_refresh,
    .is_ready = on_ready,
    .add_metrics = on_metrics,
};

static void set_up(void)
{
    not_ready_reason = NULL;
    refresh_count = 0;
    extra_lines = 2;
    ck_assert_int_eq(sl_counters_create(1, &counters), SL_OK);
    ck_assert_msg(sl_http_open("127.0.0.1:0", &source, &http, &fault) == SL_OK, "%s", fault.text);
    ck_assert_uint_ne(sl_http_port(http), 0);
}

static void tear_down(void)
{
    sl_http_close(&http);
    ck_assert_ptr_null(http);
    sl_counters_close(&counters);
}

/* ---- the client's side ------------------------------------------------------------------------
 */

static int open_client(void)
{
    int fd = port_connect(sl_http_port(http));

    ck_assert_msg(fd >= 0, "connect: %s", strerror(errno));
    ck_assert_int_eq(sl_os_set_nonblocking(fd, true), SL_OK);
    return fd;
}

static void send_text(int fd, const char *text)
{
    size_t len = strlen(text);

    ck_assert_int_eq(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* One turn of the broker's loop, up to the next event of the door or of `client_fd` (-1: none). */
static bool turn(int client_fd, int64_t due_ns)
{
    struct pollfd entries[] = {{.fd = sl_http_fd(http), .events = POLLIN},
                               {.fd = client_fd, .events = POLLIN}};
    int left_ms = sl_time_left_ms(due_ns, sl_clock_mono_ns(), WAIT_MS);
    int http_ms = sl_http_timeout_ms(http);
    int rc =
        poll(entries, SL_ARRAY_LEN(entries), http_ms >= 0 && http_ms < left_ms ? http_ms : left_ms);

    turn_count++;
    ck_assert_msg(rc >= 0, "poll: %s", strerror(errno));
    if (entries[0].revents != 0 || (http_ms >= 0 && rc == 0)) {
        sl_http_run(http);
    }
    return entries[1].revents != 0;
}

/* Turns the loop until `end` has come in (NULL: until the connection was closed). Returns the bytes
 * in `answer`; false when the time is over, or the connection was closed before `end`. */
static bool receive(int fd, const char *end, int timeout_ms)
{
    int64_t due_ns = sl_clock_mono_ns() + timeout_ms * SL_NS_PER_MS;
    size_t len = 0;

    answer[0] = '\0';
    while (sl_clock_mono_ns() < due_ns) {
        if (!turn(fd, due_ns)) {
            continue;
        }
        ssize_t got = recv(fd, answer + len, sizeof(answer) - 1 - len, 0);
        if (got <= 0) {
            return end == NULL && (got == 0 || errno == ECONNRESET);
        }
        len += (size_t)got;
        answer[len] = '\0';
        if (end != NULL && strstr(answer, end) != NULL) {
            return true;
        }
    }
    return false;
}

/* The whole answer to a request on a connection of its own. */
static const char *ask(const char *request)
{
    int fd = open_client();

    send_text(fd, request);
    ck_assert_msg(receive(fd, NULL, WAIT_MS), "no end of the answer to %s", request);
    close(fd);
    return answer;
}

static const char *get(const char *path)
{
    char request[256];

    snprintf(request, sizeof(request),
             "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    return ask(request);
}

static const char *body_of(const char *text)
{
    const char *blank = strstr(text, "\r\n\r\n");

    ck_assert_ptr_nonnull(blank);
    return blank + 4;
}

/* ---- requests ---------------------------------------------------------------------------------
 */

#define TAIL " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
#define PLAIN "Content-Type: text/plain; charset=utf-8\r\n"

static const struct {
    const char *request;
    const char *status;
    const char *header; /* NULL: any */
    const char *body;   /* NULL: any */
} request_cases[] = {
    {"GET /healthz" TAIL "\r\n", "HTTP/1.1 200 ", PLAIN, "ok\n"},
    {"HEAD /healthz" TAIL "\r\n", "HTTP/1.1 200 ", "Content-Length: 3\r\n", ""},
    {"GET /readyz" TAIL "\r\n", "HTTP/1.1 200 ", PLAIN, "ready\n"},
    {"HEAD /readyz" TAIL "\r\n", "HTTP/1.1 200 ", "Content-Length: 6\r\n", ""},
    {"GET /metrics" TAIL "\r\n", "HTTP/1.1 200 ",
     "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", NULL},
    {"GET /metrics?name=x" TAIL "\r\n", "HTTP/1.1 200 ", "Cache-Control: no-store\r\n", NULL},
    {"HEAD /metrics" TAIL "\r\n", "HTTP/1.1 200 ", "Content-Type: text/plain; version=0.0.4", ""},
    {"GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.", NULL, "ok\n"},
    {"GET /" TAIL "\r\n", "HTTP/1.1 404 ", PLAIN, "there is /metrics, /healthz and /readyz\n"},
    {"GET /metrics/" TAIL "\r\n", "HTTP/1.1 404 ", NULL, NULL},
    {"GET //metrics" TAIL "\r\n", "HTTP/1.1 404 ", NULL, NULL},
    {"GET /METRICS" TAIL "\r\n", "HTTP/1.1 404 ", NULL, NULL},
    {"HEAD /nothing" TAIL "\r\n", "HTTP/1.1 404 ", NULL, ""},
    {"DELETE /metrics" TAIL "\r\n", "HTTP/1.1 405 ", "Allow: GET, HEAD\r\n", "only GET and HEAD\n"},
    {"OPTIONS /" TAIL "\r\n", "HTTP/1.1 405 ", "Allow: GET, HEAD\r\n", NULL},
    {"get /healthz" TAIL "\r\n", "HTTP/1.1 405 ", NULL, NULL},
    {"BREW /healthz" TAIL "\r\n", "HTTP/1.1 405 ", NULL, NULL},
    {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 ",
     "Connection: close\r\n", NULL},
    {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nGET /x HT", "HTTP/1.1 405 ",
     "Connection: close\r\n", "only GET and HEAD\n"},
    {"PUT /readyz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
     "HTTP/1.1 405 ", NULL, "only GET and HEAD\n"},
    {"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc", "HTTP/1.1 200 ",
     NULL, "ok\n"},
    {"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 400 ", NULL, NULL},
    {"GET /healthz" TAIL "Content-Length: x\r\n\r\n", "HTTP/1.1 400 ", NULL, NULL},
};

START_TEST(test_request)
{
    const char *text = ask(request_cases[_i].request);

    ck_assert_msg(strncmp(text, request_cases[_i].status, strlen(request_cases[_i].status)) == 0,
                  "%s: %s", request_cases[_i].request, text);
    ck_assert_msg(request_cases[_i].header == NULL ||
                      strstr(text, request_cases[_i].header) != NULL,
                  "%s: %s", request_cases[_i].request, text);
    if (request_cases[_i].body != NULL) {
        ck_assert_str_eq(body_of(text), request_cases[_i].body);
    }
}
END_TEST

START_TEST(test_not_ready)
{
    static const char *const reasons[] = {"draining", "no workers", "no space", ""};
    char body[128];

    for (size_t i = 0; i < SL_ARRAY_LEN(reasons); i++) {
        not_ready_reason = reasons[i];
        const char *text = get("/readyz");
        ck_assert_msg(strncmp(text, "HTTP/1.1 503 ", 13) == 0, "%s", text);
        snprintf(body, sizeof(body), "%s\n", reasons[i][0] != '\0' ? reasons[i] : "not ready");
        ck_assert_str_eq(body_of(text), body);
    }
    ck_assert(strstr(get("/healthz"), "200 OK") != NULL); /* alive all the same */
}
END_TEST

START_TEST(test_connection_is_kept_and_pipelined)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    int fd = open_client();

    for (size_t i = 0; i < 3; i++) {
        send_text(fd, request);
        ck_assert(receive(fd, "\r\n\r\nok\n", WAIT_MS));
    }
    send_text(fd, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n"
                  "Connection: close\r\n\r\n");
    ck_assert(receive(fd, NULL, WAIT_MS));
    ck_assert_ptr_nonnull(strstr(answer, "\r\n\r\nok\nHTTP/1.1 200 "));
    ck_assert_ptr_nonnull(strstr(answer, "\r\n\r\nready\n"));
    close(fd);
}
END_TEST

START_TEST(test_slow_client_byte_by_byte)
{
    static const char request[] = "GET /healthz" TAIL "\r\n";
    int fd = open_client();

    for (size_t i = 0; request[i] != '\0'; i++) {
        ck_assert_int_eq(send(fd, &request[i], 1, MSG_NOSIGNAL), 1);
        turn(fd, sl_clock_mono_ns() + WAIT_MS * SL_NS_PER_MS);
    }
    ck_assert(receive(fd, NULL, WAIT_MS));
    ck_assert_str_eq(body_of(answer), "ok\n");
    close(fd);
}
END_TEST

START_TEST(test_client_leaves_in_the_middle)
{
    static const char *const beginnings[] = {
        "", "G", "GET /metrics HTTP/1.1\r\nHost:", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"};

    for (size_t i = 0; i < SL_ARRAY_LEN(beginnings); i++) {
        int fd = open_client();
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        send_text(fd, beginnings[i]);
        turn(-1, sl_clock_mono_ns() + WAIT_MS * SL_NS_PER_MS);
        ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
        close(fd);
    }
    ck_assert_str_eq(body_of(get("/healthz")), "ok\n");
}
END_TEST

START_TEST(test_header_too_large)
{
    static char request[4 * SL_HTTP_HEADER_BYTES_MAX];
    static char filler[2 * SL_HTTP_HEADER_BYTES_MAX];

    memset(filler, 'a', sizeof(filler) - 1);
    int len =
        _i == 0 ? snprintf(request, sizeof(request),
                           "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", filler)
                : snprintf(request, sizeof(request), "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", filler);
    ck_assert_int_lt(len, (int)sizeof(request));
    const char *text = ask(request);
    ck_assert_msg(strncmp(text, _i == 0 ? "HTTP/1.1 431 " : "HTTP/1.1 414 ", 13) == 0, "%.60s",
                  text);
    ck_assert_str_eq(body_of(get("/healthz")), "ok\n");
}
END_TEST

/* ---- bounds -----------------------------------------------------------------------------------
 */

START_TEST(test_connections_are_bounded)
{
    static const char request[] = "GET /healthz" TAIL "\r\n";
    int idle[SL_HTTP_CONNECTIONS_MAX];

    for (size_t i = 0; i < SL_ARRAY_LEN(idle); i++) {
        idle[i] = open_client();
        send_text(idle[i], "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        ck_assert(receive(idle[i], "\r\n\r\nok\n", WAIT_MS)); /* taken, and kept open */
    }
    int late = open_client(); /* stays in the backlog */
    send_text(late, request);
    ck_assert(!receive(late, "ok", 200));
    int64_t start_ns = sl_clock_mono_ns();
    close(idle[7]);
    ck_assert(receive(late, NULL, WAIT_MS));
    /* By the place that became free, and not by an idle connection timing out. */
    ck_assert_int_lt(sl_clock_mono_ns() - start_ns, SL_HTTP_IDLE_SECONDS_MAX / 2 * SL_NS_PER_S);
    ck_assert_str_eq(body_of(answer), "ok\n");
    close(late);
    for (size_t i = 0; i < SL_ARRAY_LEN(idle); i++) {
        if (i != 7) {
            close(idle[i]);
        }
    }
    ck_assert_str_eq(body_of(get("/healthz")), "ok\n");
}
END_TEST

/* Takes the 10 s that it tests. */
START_TEST(test_idle_connection_is_closed)
{
    int fd = open_client();
    int64_t start_ns = sl_clock_mono_ns();

    ck_assert_int_eq(sl_http_timeout_ms(http), -1); /* nobody there: the loop may sleep for ever */
    send_text(fd, "GET /hea");
    turn_count = 0;
    ck_assert(receive(fd, NULL, WAIT_MS));
    ck_assert_uint_lt(turn_count, 20); /* the loop slept meanwhile */
    int64_t took_ns = sl_clock_mono_ns() - start_ns;
    ck_assert_int_ge(took_ns, (SL_HTTP_IDLE_SECONDS_MAX - 1) * SL_NS_PER_S);
    ck_assert_int_le(took_ns, (SL_HTTP_IDLE_SECONDS_MAX + 5) * SL_NS_PER_S);
    close(fd);
    ck_assert_str_eq(body_of(get("/healthz")), "ok\n");
}
END_TEST

START_TEST(test_page_too_large)
{
    extra_lines = SL_HTTP_PAGE_BYTES_MAX / 16;
    ck_assert(strncmp(get("/metrics"), "HTTP/1.1 500 ", 13) == 0);
    extra_lines = 2;
    ck_assert(strncmp(get("/metrics"), "HTTP/1.1 200 ", 13) == 0);
}
END_TEST

/* ---- the address ------------------------------------------------------------------------------
 */

static const char *const bad_addresses[] = {
    "",        ":",         ":8420",          "8420",         "127.0.0.1",       "127.0.0.1:",
    "::1:80",  "[::1]",     "[]:80",          "127.0.0.1:x",  "127.0.0.1:-1",    "127.0.0.1:65536",
    "[::1:80", "1.2.3:80x", "localhost:8420", "256.0.0.1:80", "127.0.0.1:8420 ", "*:80",
};

START_TEST(test_bad_address)
{
    struct sl_http *other = NULL;

    fault.text[0] = '\0';
    ck_assert_msg(sl_http_open(bad_addresses[_i], &source, &other, &fault) == SL_ERR_CONFIG,
                  "\"%s\" was taken", bad_addresses[_i]);
    ck_assert_ptr_null(other);
    ck_assert_ptr_nonnull(strstr(fault.text, "127.0.0.1:8420"));
    ck_assert_ptr_nonnull(strstr(fault.text, bad_addresses[_i]));
}
END_TEST

START_TEST(test_address_taken)
{
    struct sl_http *other = NULL;
    char address[32];

    snprintf(address, sizeof(address), "127.0.0.1:%u", sl_http_port(http));
    ck_assert_int_eq(sl_http_open(address, &source, &other, &fault), SL_ERR_IO);
    ck_assert_ptr_nonnull(strstr(fault.text, address));
    ck_assert_ptr_nonnull(strstr(fault.text, "in use"));
    ck_assert_int_eq(sl_http_open("192.0.2.1:0", &source, &other, &fault), SL_ERR_IO);

    /* Free again at once after the end, though a connection was open. */
    int fd = open_client();
    turn(-1, sl_clock_mono_ns() + WAIT_MS * SL_NS_PER_MS);
    sl_http_close(&http);
    ck_assert_msg(sl_http_open(address, &source, &http, &fault) == SL_OK, "%s", fault.text);
    close(fd);
    ck_assert_str_eq(body_of(get("/healthz")), "ok\n");
}
END_TEST

START_TEST(test_ipv6)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    enum sl_err err;

    sl_http_close(&http);
    err = sl_http_open("[::1]:0", &source, &http, &fault);
    if (err != SL_OK) {
        printf("skipped: no IPv6 here: %s\n", fault.text);
        return;
    }
    address.sin6_port = htons(sl_http_port(http));
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)(void *)&address, sizeof(address)), 0);
    send_text(fd, "GET /healthz" TAIL "\r\n");
    ck_assert(receive(fd, NULL, WAIT_MS));
    ck_assert_str_eq(body_of(answer), "ok\n");
    close(fd);
}
END_TEST

/* ---- the page ---------------------------------------------------------------------------------
 */

/* What a scraper's parser would keep of the page. */
struct page {
    char metric[64]; /* of the last head */
    char type[16];
    size_t sample_count;
    size_t head_count;
};

static size_t name_len(const char *text)
{
    return strspn(text, "abcdefghijklmnopqrstuvwxyz_:ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
}

/* Walks over {name="value",...}; escapes are \\ \" \n. Returns what follows. */
static const char *skip_labels(const char *at)
{
    ck_assert_int_eq(*at, '{');
    do {
        at++;
        size_t len = name_len(at);
        ck_assert_msg(len > 0 && strncmp(at + len, "=\"", 2) == 0, "label at %.40s", at);
        at += len + 2;
        while (*at != '"') {
            ck_assert_msg(*at != '\0', "a label does not end");
            ck_assert_msg(*at != '\\' || strchr("\\\"n", at[1]) != NULL, "escape at %.40s", at);
            at += *at == '\\' ? 2 : 1;
        }
        at++;
    } while (*at == ',');
    ck_assert_int_eq(*at, '}');
    return at + 1;
}

static void parse_head(struct page *page, const char *line)
{
    char metric[64];
    char help[256];

    if (sscanf(line, "# HELP %63s %255[^\n]", metric, help) == 2) {
        ck_assert_msg(strcmp(metric, page->metric) != 0, "two heads of %s", metric);
        snprintf(page->metric, sizeof(page->metric), "%s", metric);
        page->type[0] = '\0';
        page->head_count++;
        return;
    }
    ck_assert_msg(sscanf(line, "# TYPE %63s %15s", metric, page->type) == 2, "%s", line);
    ck_assert_str_eq(metric, page->metric);
    ck_assert_msg(strcmp(page->type, "gauge") == 0 || strcmp(page->type, "counter") == 0, "%s",
                  line);
}

static void parse_sample(struct page *page, const char *line)
{
    size_t len = name_len(line);
    char *end = NULL;

    ck_assert_msg(len == strlen(page->metric) && strncmp(line, page->metric, len) == 0,
                  "sample without its head: %s", line);
    ck_assert_msg(page->type[0] != '\0', "sample without a type: %s", line);
    const char *at = line[len] == '{' ? skip_labels(line + len) : line + len;
    ck_assert_int_eq(*at, ' ');
    strtod(at + 1, &end);
    ck_assert_msg(end != at + 1 && *end == '\0', "value of %s", line);
    page->sample_count++;
}

static void parse_page(struct page *page, char *text)
{
    size_t len = strlen(text);
    char *rest = NULL;

    *page = (struct page){0};
    ck_assert_msg(len > 0 && text[len - 1] == '\n', "the last line has no end");
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        if (line[0] == '#') {
            parse_head(page, line);
        } else {
            parse_sample(page, line);
        }
    }
}

START_TEST(test_page_is_in_the_text_format)
{
    static char text[ANSWER_BYTES_MAX];
    struct page page;
    size_t metric_count = 0;

    for (size_t i = 0; i < SL_COUNTER_COUNT; i++) {
        const char *metric = sl_counter_row((enum sl_counter)i)->metric;
        bool is_new =
            i == 0 || strcmp(metric, sl_counter_row((enum sl_counter)(i - 1))->metric) != 0;
        metric_count += is_new;
        sl_counters_set(&counters, (enum sl_counter)i, UINT64_MAX - i);
    }
    snprintf(text, sizeof(text), "%s", body_of(get("/metrics")));
    parse_page(&page, text);
    ck_assert_uint_eq(page.head_count, metric_count + 1);
    ck_assert_uint_eq(page.sample_count, SL_COUNTER_COUNT + 2);
    ck_assert_uint_eq(refresh_count, 1);
}
END_TEST

static const struct {
    enum sl_counter counter;
    uint64_t value;
    const char *line;
} line_cases[] = {
    {SL_COUNTER_INFLIGHT, 64, "\nllm_queue_inflight 64\n"},
    {SL_COUNTER_READY, 0, "\nllm_queue_ready 0\n"},
    {SL_COUNTER_DELAYED, 1, "\nllm_queue_delayed 1\n"},
    {SL_COUNTER_SUBMITTED, UINT64_MAX, "\nllm_queue_submitted_total 18446744073709551615\n"},
    {SL_COUNTER_COMPLETED, 2, "\nllm_queue_completed_total{outcome=\"completed\"} 2\n"},
    {SL_COUNTER_FAILED, 3, "\nllm_queue_completed_total{outcome=\"failed\"} 3\n"},
    {SL_COUNTER_CANCELLED, 4, "\nllm_queue_completed_total{outcome=\"cancelled\"} 4\n"},
    {SL_COUNTER_EXPIRED, 5, "\nllm_queue_completed_total{outcome=\"expired\"} 5\n"},
    {SL_COUNTER_RETRIES, 6, "\nllm_queue_retries_total 6\n"},
    {SL_COUNTER_PROVIDER_CALLS, 7, "\nllm_queue_provider_calls_total 7\n"},
    {SL_COUNTER_STALE_RESULTS, 8, "\nllm_queue_stale_results_total 8\n"},
    {SL_COUNTER_INPUT_TOKENS, 9, "\nllm_queue_input_tokens_total 9\n"},
    {SL_COUNTER_OUTPUT_TOKENS, 10, "\nllm_queue_output_tokens_total 10\n"},
    {SL_COUNTER_SYNC_NS, 0, "\nllm_queue_sync_seconds_total 0.000000000\n"},
    {SL_COUNTER_SYNC_NS, 1, "\nllm_queue_sync_seconds_total 0.000000001\n"},
    {SL_COUNTER_SYNC_NS, 12000000034, "\nllm_queue_sync_seconds_total 12.000000034\n"},
};

START_TEST(test_line)
{
    sl_counters_set(&counters, line_cases[_i].counter, line_cases[_i].value);
    ck_assert_ptr_nonnull(strstr(get("/metrics"), line_cases[_i].line));
}
END_TEST

static const struct {
    const char *value;
    size_t size;
    const char *escaped;
} escape_cases[] = {
    {"", 8, ""},
    {"plain", 8, "plain"},
    {"a\"b", 8, "a\\\"b"},
    {"a\\b", 8, "a\\\\b"},
    {"a\nb", 8, "a\\nb"},
    {"abcdefg", 8, "abcdefg"},
    {"abcdefgh", 8, "abcdefg"},
    {"abcdef\"", 8, "abcdef"}, /* no half escape */
    {"abc", 1, ""},
};

START_TEST(test_label_is_escaped)
{
    char out[8];

    sl_metrics_escape_label(out, escape_cases[_i].size, sl_span_str(escape_cases[_i].value));
    ck_assert_str_eq(out, escape_cases[_i].escaped);
}
END_TEST

START_TEST(test_text_is_all_or_nothing)
{
    char buf[8];
    struct sl_metrics_text text;

    sl_metrics_text_init(&text, buf, sizeof(buf));
    sl_metrics_add(&text, "%s", "1234567");
    ck_assert(!text.is_full);
    sl_metrics_text_init(&text, buf, sizeof(buf));
    sl_metrics_add(&text, "%s", "1234");
    sl_metrics_add(&text, "%s", "5678");
    ck_assert(text.is_full);
    sl_metrics_add(&text, "%s", "5"); /* would fit, but the page has a hole */
    ck_assert_str_eq(buf, "1234");
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("http");
    TCase *cases = tcase_create("http");

    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_loop_test(cases, test_request, 0, SL_ARRAY_LEN(request_cases));
    tcase_add_test(cases, test_not_ready);
    tcase_add_test(cases, test_connection_is_kept_and_pipelined);
    tcase_add_test(cases, test_slow_client_byte_by_byte);
    tcase_add_test(cases, test_client_leaves_in_the_middle);
    tcase_add_loop_test(cases, test_header_too_large, 0, 2);
    tcase_add_test(cases, test_connections_are_bounded);
    tcase_add_test(cases, test_idle_connection_is_closed);
    tcase_add_test(cases, test_page_too_large);
    tcase_add_loop_test(cases, test_bad_address, 0, SL_ARRAY_LEN(bad_addresses));
    tcase_add_test(cases, test_address_taken);
    tcase_add_test(cases, test_ipv6);
    tcase_add_test(cases, test_page_is_in_the_text_format);
    tcase_add_loop_test(cases, test_line, 0, SL_ARRAY_LEN(line_cases));
    tcase_add_loop_test(cases, test_label_is_escaped, 0, SL_ARRAY_LEN(escape_cases));
    tcase_add_test(cases, test_text_is_all_or_nothing);
    tcase_set_timeout(cases, 60);
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
