/*
 * One task at a time through the queue, as a program with libsluice does it: hand in a task, wait
 * until it is on disk, wait for its answer, next. The counterpart of bare_one.
 *
 * A job of its own; the answer is received and thrown away. Prints one line of JSON with p50 and
 * p99 of a whole turn, of its acceptance (until it is on disk), and of the wait for its answer, in
 * milliseconds.
 *
 * Usage: one_task --socket PATH --bodies FILE --calls N --model NAME
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/client.h"
#include "tests/bench/support.h"

struct options {
    const char *socket;
    const char *bodies_path;
    const char *model;
    size_t calls;
};

struct samples {
    double *whole_ms;
    double *accept_ms;
    double *answer_ms;
};

static void must(enum sl_err err, const struct sl_client *client, const char *what)
{
    if (err != SL_OK) {
        bench_die(what, client != NULL ? sl_client_message(client) : sl_err_meaning(err));
    }
}

static void hand_in(struct sl_client *client, const struct options *options, size_t number,
                    struct sl_span body)
{
    char id[32];

    snprintf(id, sizeof(id), "one-%zu", number);
    struct sl_task_msg task = sl_client_task(sl_span_str(id), sl_span_str(options->model), body);
    must(sl_client_submit(client, &task, number), client, "submit");
    must(sl_client_flush(client), client, "flush");
}

/* Reads to the end of the stream: exactly one result is behind `cursor`. */
static uint64_t await_answer(struct sl_client *client, struct sl_span job, uint64_t cursor)
{
    const struct sl_result_msg *result = NULL;
    uint64_t last = cursor;

    must(sl_client_results(client, job, SL_RESULTS_AS_DONE, true, cursor), client, "results");
    for (;;) {
        must(sl_client_next(client, -1, &result), client, "next");
        if (result == NULL) {
            break;
        }
        if (result->state != SL_TASK_COMPLETED) {
            bench_die("a task", sl_err_code(result->err));
        }
        last = result->cursor;
    }
    if (last == cursor) {
        bench_die("a task", "no result came");
    }
    return last;
}

static void run_tasks(struct sl_client *client, const struct options *options,
                      const struct bodies *bodies, struct samples *samples)
{
    struct sl_client_job job;
    uint64_t cursor = 0;

    must(sl_client_open_job(client, sl_span_str(""), true, &job), client, "open job");
    for (size_t i = 0; i < options->calls; i++) {
        size_t idx = i % bodies->count;
        struct sl_span body = sl_span_of(bodies->text + bodies->starts[idx], bodies->lens[idx]);
        int64_t begin_ns = bench_now_ns();
        hand_in(client, options, i, body);
        int64_t accepted_ns = bench_now_ns();
        cursor = await_answer(client, sl_span_str(job.name), cursor);
        int64_t end_ns = bench_now_ns();
        samples->whole_ms[i] = (double)(end_ns - begin_ns) / 1e6;
        samples->accept_ms[i] = (double)(accepted_ns - begin_ns) / 1e6;
        samples->answer_ms[i] = (double)(end_ns - accepted_ns) / 1e6;
    }
}

int main(int argc, char **argv)
{
    struct options options = {.calls = 1000};
    struct bodies bodies;
    struct sl_client *client = NULL;
    struct sl_client_fault fault;
    const struct bench_option table[] = {
        {"--socket", &options.socket, NULL},
        {"--bodies", &options.bodies_path, NULL},
        {"--model", &options.model, NULL},
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
    if (sl_client_open(options.socket, &client, &fault) != SL_OK) {
        bench_die("open", fault.text);
    }
    run_tasks(client, &options, &bodies, &samples);
    sl_client_close(&client);
    printf("{");
    bench_print_percentiles("whole", samples.whole_ms, options.calls);
    bench_print_percentiles("accept", samples.accept_ms, options.calls);
    bench_print_percentiles("answer", samples.answer_ms, options.calls);
    printf("\"calls\":%zu}\n", options.calls);
    free(values);
    bodies_free(&bodies);
    return 0;
}
