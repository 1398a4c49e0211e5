/*
 * Baseline: the same calls with libcurl alone. P processes, each one epoll loop over
 * curl_multi_socket_action with N calls in flight, keep-alive, HTTP/1.1; handles and connections
 * are reused, answers are counted and thrown away. No queue, no store, no parsing.
 *
 * Well tuned on purpose: it is what the queue's cost is measured against. A failed call is counted
 * and not repeated. Prints one line of JSON: calls, errors, seconds, calls_per_s, processor time
 * and the largest anonymous memory of all processes together.
 *
 * Usage: bare_curl --url URL --bodies FILE --calls N --in-flight N [--processes P]
 * Both --calls and --in-flight are totals over all processes.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/support.h"

#define EVENTS_MAX 512
#define PROCESSES_MAX 64

struct options {
    const char *url;
    const char *bodies_path;
    size_t calls;
    size_t in_flight;
    size_t processes;
};

/* One per process, in memory shared with the parent; written by its process before it ends. */
struct tally {
    size_t calls;
    size_t errors;
    size_t memory_kib;
};

struct runner {
    const struct options *options;
    const struct bodies *bodies;
    struct tally *tally;
    CURLM *multi;
    struct curl_slist *headers;
    int epoll_fd;
    int64_t timer_due_ns; /* -1: none */
    size_t started;
    size_t first_body;
    size_t calls; /* of this process */
};

static size_t count_bytes(char *data, size_t size, size_t count, void *ctx)
{
    (void)data;
    (void)ctx;
    return size * count;
}

static int on_timer(CURLM *multi, long timeout_ms, void *ctx)
{
    struct runner *runner = ctx;

    (void)multi;
    runner->timer_due_ns = timeout_ms < 0 ? -1 : bench_now_ns() + timeout_ms * 1000000;
    return 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *known)
{
    struct runner *runner = ctx;
    struct epoll_event event = {.data.fd = fd};

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(runner->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0U) |
                   (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0U);
    if (epoll_ctl(runner->epoll_fd, known != NULL ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) ==
        0) {
        curl_multi_assign(runner->multi, fd, runner);
    }
    return 0;
}

static void start_call(struct runner *runner, CURL *easy)
{
    size_t idx = (runner->first_body + runner->started) % runner->bodies->count;

    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, runner->bodies->text + runner->bodies->starts[idx]);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)runner->bodies->lens[idx]);
    runner->started++;
    if (curl_multi_add_handle(runner->multi, easy) != CURLM_OK) {
        bench_die("curl_multi_add_handle", "failed");
    }
}

static CURL *make_call(const struct runner *runner)
{
    CURL *easy = curl_easy_init();

    if (easy == NULL) {
        bench_die("curl_easy_init", "failed");
    }
    curl_easy_setopt(easy, CURLOPT_URL, runner->options->url);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, runner->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, count_bytes);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 600000L);
    return easy;
}

static void finish_call(struct runner *runner, const CURLMsg *msg)
{
    CURL *easy = msg->easy_handle;
    long status = 0;

    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    runner->tally->errors += msg->data.result != CURLE_OK || status != 200;
    runner->tally->calls++;
    curl_multi_remove_handle(runner->multi, easy);
    if (runner->started < runner->calls) {
        start_call(runner, easy);
    } else {
        curl_easy_cleanup(easy);
    }
}

static void reap_calls(struct runner *runner)
{
    int left = 0;
    CURLMsg *msg;

    while ((msg = curl_multi_info_read(runner->multi, &left)) != NULL) {
        if (msg->msg == CURLMSG_DONE) {
            finish_call(runner, msg);
        }
    }
}

static int wait_ms(const struct runner *runner)
{
    if (runner->timer_due_ns < 0) {
        return 1000;
    }
    int64_t left_ns = runner->timer_due_ns - bench_now_ns();
    return left_ns <= 0 ? 0 : (int)((left_ns + 999999) / 1000000);
}

static void turn(struct runner *runner)
{
    struct epoll_event events[EVENTS_MAX];
    int running = 0;
    int count = epoll_wait(runner->epoll_fd, events, EVENTS_MAX, wait_ms(runner));

    for (int i = 0; i < count; i++) {
        int what = (events[i].events & (uint32_t)EPOLLIN ? CURL_CSELECT_IN : 0) |
                   (events[i].events & (uint32_t)EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                   (events[i].events & (uint32_t)(EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
        curl_multi_socket_action(runner->multi, events[i].data.fd, what, &running);
    }
    if (runner->timer_due_ns >= 0 && runner->timer_due_ns <= bench_now_ns()) {
        runner->timer_due_ns = -1;
        curl_multi_socket_action(runner->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    reap_calls(runner);
}

/* Resident anonymous memory of this process. */
static size_t anonymous_kib(void)
{
    char line[256];
    size_t kib = 0;
    FILE *file = fopen("/proc/self/status", "re");

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "RssAnon: %zu", &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kib;
}

static void open_multi(struct runner *runner, size_t in_flight)
{
    runner->multi = curl_multi_init();
    runner->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    runner->timer_due_ns = -1;
    runner->headers = curl_slist_append(NULL, "Content-Type: application/json");
    runner->headers = curl_slist_append(runner->headers, "Authorization: Bearer bench");
    runner->headers = curl_slist_append(runner->headers, "Expect:");
    if (runner->multi == NULL || runner->epoll_fd < 0 || runner->headers == NULL) {
        bench_die("set-up", "failed");
    }
    curl_multi_setopt(runner->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(runner->multi, CURLMOPT_SOCKETDATA, runner);
    curl_multi_setopt(runner->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(runner->multi, CURLMOPT_TIMERDATA, runner);
    curl_multi_setopt(runner->multi, CURLMOPT_MAXCONNECTS, (long)in_flight + 16);
}

static void run_calls(struct runner *runner, size_t in_flight)
{
    open_multi(runner, in_flight);
    for (size_t i = 0; i < in_flight && runner->started < runner->calls; i++) {
        start_call(runner, make_call(runner));
    }
    while (runner->tally->calls < runner->calls) {
        turn(runner);
        if (runner->tally->memory_kib == 0 && runner->tally->calls >= runner->calls / 2) {
            runner->tally->memory_kib = anonymous_kib();
        }
    }
    curl_slist_free_all(runner->headers);
    curl_multi_cleanup(runner->multi);
}

static size_t share(size_t total, size_t parts, size_t idx)
{
    return total / parts + (idx < total % parts);
}

static void run_process(const struct options *options, const struct bodies *bodies,
                        struct tally *tally, size_t idx)
{
    struct runner runner = {.options = options, .bodies = bodies, .tally = tally};

    runner.calls = share(options->calls, options->processes, idx);
    runner.first_body = idx * (options->calls / options->processes);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    run_calls(&runner, share(options->in_flight, options->processes, idx));
    curl_global_cleanup();
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void report(const struct options *options, const struct tally *tallies, double seconds)
{
    struct tally sum = {.calls = 0};
    struct rusage usage;

    for (size_t i = 0; i < options->processes; i++) {
        sum.calls += tallies[i].calls;
        sum.errors += tallies[i].errors;
        sum.memory_kib += tallies[i].memory_kib;
    }
    getrusage(RUSAGE_CHILDREN, &usage);
    printf("{\"calls\":%zu,\"errors\":%zu,\"seconds\":%.6f,\"calls_per_s\":%.1f,"
           "\"user_s\":%.6f,\"system_s\":%.6f,\"memory_kib\":%zu}\n",
           sum.calls, sum.errors, seconds, (double)sum.calls / seconds, seconds_of(usage.ru_utime),
           seconds_of(usage.ru_stime), sum.memory_kib);
}

static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void run_all(const struct options *options, const struct bodies *bodies,
                    struct tally *tallies)
{
    pid_t pids[PROCESSES_MAX] = {0};
    int status = 0;

    for (size_t i = 0; i < options->processes; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            run_process(options, bodies, &tallies[i], i);
            _exit(0);
        }
        if (pids[i] < 0) {
            bench_die("fork", strerror(errno));
        }
    }
    for (size_t i = 0; i < options->processes; i++) {
        if (waitpid(pids[i], &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            bench_die("a process", "failed");
        }
    }
}

int main(int argc, char **argv)
{
    struct options options = {.calls = 10000, .in_flight = 64, .processes = 1};
    struct bodies bodies;

    const struct bench_option table[] = {
        {"--url", &options.url, NULL},
        {"--bodies", &options.bodies_path, NULL},
        {"--calls", NULL, &options.calls},
        {"--in-flight", NULL, &options.in_flight},
        {"--processes", NULL, &options.processes},
        {NULL, NULL, NULL},
    };
    bench_parse(argc, argv, table);
    if (options.processes > PROCESSES_MAX || options.processes > options.in_flight) {
        bench_die("--processes", "at most 64, and at most one for each call in flight");
    }
    bodies_load(&bodies, options.bodies_path);
    raise_file_limit();
    struct tally *tallies = mmap(NULL, sizeof(struct tally) * PROCESSES_MAX, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tallies == MAP_FAILED) {
        bench_die("mmap", strerror(errno));
    }
    int64_t started_ns = bench_now_ns();
    run_all(&options, &bodies, tallies);
    report(&options, tallies, (double)(bench_now_ns() - started_ns) / 1e9);
    bodies_free(&bodies);
    return 0;
}
