/*
 * Baseline: one call at a time with libcurl alone, made durable by one fdatasync before it: write a
 * record, sync, call, next. What a careful program without a queue would do.
 *
 * The file is written to its full size first and the records go round in it, so that a sync pays
 * for data alone and not for a growing file: the cheapest sync there is. Prints one line of JSON
 * with p50 and p99 of a whole turn, of its sync, and of its call, in milliseconds.
 *
 * Usage: bare_one --url URL --bodies FILE --calls N --file FILE
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/support.h"

#define RECORD_BYTES 4096
#define RECORDS 1024

struct options {
    const char *url;
    const char *bodies_path;
    const char *file;
    size_t calls;
};

struct samples {
    double *whole_ms;
    double *sync_ms;
    double *call_ms;
};

static size_t count_bytes(char *data, size_t size, size_t count, void *ctx)
{
    (void)data;
    (void)ctx;
    return size * count;
}

static int open_record_file(const char *path)
{
    char zeros[RECORD_BYTES] = {0};
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0) {
        bench_die(path, strerror(errno));
    }
    for (size_t i = 0; i < RECORDS; i++) {
        if (write(fd, zeros, sizeof(zeros)) != (ssize_t)sizeof(zeros)) {
            bench_die(path, strerror(errno));
        }
    }
    if (fsync(fd) != 0) {
        bench_die(path, strerror(errno));
    }
    return fd;
}

static void write_record(int fd, size_t idx, const char *body, size_t len)
{
    char record[RECORD_BYTES] = {0};

    memcpy(record, body, len < sizeof(record) ? len : sizeof(record));
    off_t at = (off_t)(idx % RECORDS) * RECORD_BYTES;
    if (pwrite(fd, record, sizeof(record), at) != (ssize_t)sizeof(record) || fdatasync(fd) != 0) {
        bench_die("the record file", strerror(errno));
    }
}

static CURL *make_call(const char *url, struct curl_slist *headers)
{
    CURL *easy = curl_easy_init();

    if (easy == NULL) {
        bench_die("curl_easy_init", "failed");
    }
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, count_bytes);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    return easy;
}

static void run_calls(const struct options *options, const struct bodies *bodies,
                      struct samples *samples)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Authorization: Bearer bench");
    headers = curl_slist_append(headers, "Expect:");
    CURL *easy = make_call(options->url, headers);
    int fd = open_record_file(options->file);

    for (size_t i = 0; i < options->calls; i++) {
        size_t idx = i % bodies->count;
        const char *body = bodies->text + bodies->starts[idx];
        int64_t begin_ns = bench_now_ns();
        write_record(fd, i, body, bodies->lens[idx]);
        int64_t synced_ns = bench_now_ns();
        long status = 0;
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)bodies->lens[idx]);
        CURLcode code = curl_easy_perform(easy);
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        if (code != CURLE_OK || status != 200) {
            bench_die("a call", code != CURLE_OK ? curl_easy_strerror(code) : "status is not 200");
        }
        int64_t end_ns = bench_now_ns();
        samples->whole_ms[i] = (double)(end_ns - begin_ns) / 1e6;
        samples->sync_ms[i] = (double)(synced_ns - begin_ns) / 1e6;
        samples->call_ms[i] = (double)(end_ns - synced_ns) / 1e6;
    }
    close(fd);
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
}

int main(int argc, char **argv)
{
    struct options options = {.calls = 1000};
    struct bodies bodies;

    const struct bench_option table[] = {
        {"--url", &options.url, NULL},
        {"--bodies", &options.bodies_path, NULL},
        {"--file", &options.file, NULL},
        {"--calls", NULL, &options.calls},
        {NULL, NULL, NULL},
    };
    bench_parse(argc, argv, table);
    bodies_load(&bodies, options.bodies_path);
    double *values = calloc(options.calls * 3, sizeof(*values));
    if (values == NULL) {
        bench_die("samples", "out of memory");
    }
    struct samples samples = {values, values + options.calls, values + options.calls * 2};
    curl_global_init(CURL_GLOBAL_DEFAULT);
    run_calls(&options, &bodies, &samples);
    curl_global_cleanup();
    printf("{");
    bench_print_percentiles("whole", samples.whole_ms, options.calls);
    bench_print_percentiles("sync", samples.sync_ms, options.calls);
    bench_print_percentiles("call", samples.call_ms, options.calls);
    printf("\"calls\":%zu}\n", options.calls);
    free(values);
    bodies_free(&bodies);
    return 0;
}
