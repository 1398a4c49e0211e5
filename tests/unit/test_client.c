/*
 * libsluice against a scripted peer: greeting, pipelining, refusals and hang-ups in the middle of a
 * stream, results in pieces, and answers that make no sense. Random seeds are printed.
 */
#include "common/client.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/os.h"
#include "tests/support/client_peer.h"
#include "tests/support/tmp_dir.h"

#define SPAN(text) sl_span_str(text)

static struct sl_client *client;
static struct sl_client_job job;

static void connect_client(const struct peer *peer)
{
    struct sl_client_fault fault;

    ck_assert_int_eq(sl_client_open(peer_path(peer), &client, &fault), SL_OK);
}

static void end_client(struct peer *peer)
{
    sl_client_close(&client);
    ck_assert_ptr_null(client);
    peer_join(peer);
}

static enum sl_err open_with(peer_script *script, void *ctx, struct sl_client_fault *fault)
{
    struct peer *peer = peer_open_raw(script, ctx);
    enum sl_err err = sl_client_open(peer_path(peer), &client, fault);

    peer_join(peer);
    return err;
}

/* ---- opening --------------------------------------------------------------------------------- */

START_TEST(test_nobody_there)
{
    struct sl_client_fault fault;

    ck_assert_int_eq(sl_client_open(tmp_dir_file("none"), &client, &fault), SL_ERR_UNREACHABLE);
    ck_assert_ptr_nonnull(strstr(fault.text, tmp_dir_file("none")));
    ck_assert_ptr_null(client);
}
END_TEST

static void script_hang_up(struct peer *peer, void *ctx)
{
    (void)ctx;
    (void)peer_expect(peer, SL_FRAME_HELLO);
}

static void script_refuse(struct peer *peer, void *ctx)
{
    struct sl_error_msg msg = {.err = SL_ERR_OVERLOADED, .message = SPAN("full house")};

    (void)ctx;
    (void)peer_expect(peer, SL_FRAME_HELLO);
    ck_assert_int_eq(sl_wire_put_error(peer_writer(peer), &msg), SL_OK);
    peer_send(peer, 0);
}

static void script_bytes(struct peer *peer, void *ctx)
{
    struct sl_span *bytes = ctx;

    (void)peer_expect(peer, SL_FRAME_HELLO);
    peer_send_bytes(peer, bytes->ptr, bytes->len);
}

START_TEST(test_greetings_refused)
{
    static const char other_version[] = {0, 0, 0, 1, 99, SL_FRAME_WELCOME, 0, 0, 0};
    static const char wrong_type[] = {0, 0, 0,         1, SL_PROTOCOL_VERSION, SL_FRAME_HELLO,
                                      0, 0, (char)0x90};
    static const char too_long[] = {0x7f, 0, 0, 1, SL_PROTOCOL_VERSION, SL_FRAME_WELCOME, 0, 0};
    static const char no_welcome[] = {0, 0, 0,         1, SL_PROTOCOL_VERSION, SL_FRAME_WELCOME,
                                      0, 0, (char)0x90};
    static const char http[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    const struct {
        peer_script *script;
        struct sl_span bytes;
        enum sl_err err;
    } cases[] = {
        {script_hang_up, {0}, SL_ERR_UNREACHABLE},
        {script_refuse, {0}, SL_ERR_OVERLOADED},
        {script_bytes, sl_span_of(other_version, sizeof(other_version)), SL_ERR_VERSION},
        {script_bytes, sl_span_of(wrong_type, sizeof(wrong_type)), SL_ERR_PROTOCOL},
        {script_bytes, sl_span_of(too_long, sizeof(too_long)), SL_ERR_PROTOCOL},
        {script_bytes, sl_span_of(no_welcome, sizeof(no_welcome)), SL_ERR_PROTOCOL},
        {script_bytes, sl_span_of(http, strlen(http)), SL_ERR_VERSION},
        {script_bytes, sl_span_of(other_version, 5), SL_ERR_UNREACHABLE},
    };

    for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
        struct sl_client_fault fault = {.text = ""};
        struct sl_span bytes = cases[i].bytes;
        enum sl_err err = open_with(cases[i].script, &bytes, &fault);
        ck_assert_msg(err == cases[i].err, "case %zu: %s: %s", i, sl_err_code(err), fault.text);
        ck_assert_str_ne(fault.text, "");
        ck_assert_ptr_null(client);
    }
}
END_TEST

static void script_nothing(struct peer *peer, void *ctx)
{
    (void)ctx;
    peer_await_end(peer);
}

START_TEST(test_welcome)
{
    struct peer *peer = peer_open(script_nothing, NULL);

    connect_client(peer);
    struct sl_client_server server = sl_client_get_server(client);
    ck_assert_str_eq(server.version, "1.2.3");
    ck_assert_uint_eq(server.pid, 77);
    ck_assert_uint_eq(server.generation, 5);
    ck_assert(!server.is_draining);
    ck_assert_int_ge(sl_client_fd(client), 0);
    end_client(peer);
}
END_TEST

START_TEST(test_calls_in_the_wrong_order)
{
    struct peer *peer = peer_open(script_nothing, NULL);
    struct sl_task_msg task = sl_client_task(SPAN("a"), SPAN("m"), SPAN("{}"));
    const struct sl_result_msg *result;
    char long_name[SL_NAME_BYTES_MAX + 2] = "";

    connect_client(peer);
    ck_assert_int_eq(sl_client_submit(client, &task, 0), SL_ERR_USAGE);
    ck_assert_int_eq(sl_client_flush(client), SL_ERR_USAGE);
    ck_assert_int_eq(sl_client_next(client, 0, &result), SL_ERR_USAGE);
    memset(long_name, 'x', sizeof(long_name) - 1);
    ck_assert_int_eq(sl_client_open_job(client, SPAN(long_name), true, &job), SL_ERR_INPUT);
    ck_assert_str_ne(sl_client_message(client), "");
    end_client(peer);
}
END_TEST

/* ---- submitting ------------------------------------------------------------------------------ */

/* What a broker that takes tasks saw, and how it behaves. */
struct taker {
    uint32_t hold;           /* answer only when so many frames wait; then all but one */
    uint64_t refuse_at;      /* refuse the task with this number (from 0); UINT64_MAX: none */
    uint64_t hang_up_at;     /* hang up when this task came */
    enum sl_err error_frame; /* at hang_up_at: say this first */
    struct sl_submitted_msg nonsense; /* at hang_up_at: answer this */
    bool must_answer_nonsense;
    uint64_t tasks;
    uint64_t frames;
    uint32_t waiting_max;
    uint64_t bytes;
    bool is_in_order;
};

static void answer_job(struct peer *peer)
{
    struct sl_job_msg msg = {.job = 3, .name = SPAN("job-3"), .total = 10, .failed = 2};
    struct sl_open_job_msg asked;
    struct sl_span payload = peer_expect(peer, SL_FRAME_OPEN_JOB);

    ck_assert_int_eq(sl_wire_get_open_job(peer_decoder(peer), payload, &asked), SL_OK);
    ck_assert(asked.may_create);
    ck_assert_int_eq(sl_wire_put_job(peer_writer(peer), &msg), SL_OK);
    peer_send(peer, 0);
}

struct waiting_frame {
    uint64_t batch;
    uint32_t count;
    int64_t refused_idx;
};

static void answer_frame(struct peer *peer, const struct waiting_frame *frame)
{
    struct sl_submitted_msg msg = {
        .batch = frame->batch, .accepted = frame->count, .refused_idx = -1};

    if (frame->refused_idx >= 0) {
        msg.accepted = (uint32_t)frame->refused_idx;
        msg.refused_idx = frame->refused_idx;
        msg.err = SL_ERR_CONFLICT;
        msg.message = SPAN("id q is there with another body");
    }
    ck_assert_int_eq(sl_wire_put_submitted(peer_writer(peer), &msg), SL_OK);
    peer_send(peer, 0);
}

/* Reads a submit frame; false when the script is to end. */
static bool take_frame(struct peer *peer, struct taker *taker, struct waiting_frame *frame)
{
    static struct sl_task_msg tasks[SL_FRAME_TASKS_MAX];
    struct peer_frame got;
    size_t count;
    char id[32];

    if (!peer_read(peer, &got)) {
        return false;
    }
    ck_assert_str_eq(sl_frame_name(got.type), "submit");
    ck_assert_int_eq(sl_wire_get_submit(peer_decoder(peer), got.payload, &frame->batch, tasks,
                                        SL_FRAME_TASKS_MAX, &count),
                     SL_OK);
    frame->count = (uint32_t)count;
    frame->refused_idx = -1;
    for (size_t i = 0; i < count; i++) {
        snprintf(id, sizeof(id), "q-%llu", (unsigned long long)(taker->tasks + i));
        taker->is_in_order = taker->is_in_order && sl_span_equal(tasks[i].custom_id, SPAN(id));
        taker->bytes += tasks[i].body.len;
        if (taker->tasks + i == taker->refuse_at) {
            frame->refused_idx = (int64_t)i;
        }
    }
    taker->tasks += count;
    taker->frames++;
    return taker->tasks <= taker->hang_up_at;
}

static void end_badly(struct peer *peer, struct taker *taker, const struct waiting_frame *frame)
{
    struct sl_error_msg error = {.err = taker->error_frame, .message = SPAN("because")};

    if (taker->error_frame != SL_OK) {
        ck_assert_int_eq(sl_wire_put_error(peer_writer(peer), &error), SL_OK);
    }
    if (taker->must_answer_nonsense) {
        taker->nonsense.batch += frame->batch;
        ck_assert_int_eq(sl_wire_put_submitted(peer_writer(peer), &taker->nonsense), SL_OK);
    }
    peer_send(peer, 0);
}

static void script_take(struct peer *peer, void *ctx)
{
    struct taker *taker = ctx;
    struct waiting_frame frames[SL_FRAMES_UNACKED_MAX + 1];
    uint32_t waiting = 0;

    answer_job(peer);
    taker->is_in_order = true;
    for (;;) {
        if (!take_frame(peer, taker, &frames[waiting])) {
            if (taker->tasks > taker->hang_up_at) {
                end_badly(peer, taker, &frames[waiting]);
            }
            return;
        }
        waiting++;
        taker->waiting_max = SL_MAX(taker->waiting_max, waiting);
        ck_assert_uint_le(waiting, SL_FRAMES_UNACKED_MAX);
        if (waiting >= taker->hold) {
            for (uint32_t i = 0; i < waiting; i++) {
                answer_frame(peer, &frames[i]);
            }
            waiting = 0;
        }
    }
}

static const struct taker taker_defaults = {
    .hold = 1, .refuse_at = UINT64_MAX, .hang_up_at = UINT64_MAX};

static struct peer *begin_submit(struct taker *taker)
{
    struct peer *peer = peer_open(script_take, taker);

    connect_client(peer);
    ck_assert_int_eq(sl_client_open_job(client, SPAN("job-3"), true, &job), SL_OK);
    ck_assert_str_eq(job.name, "job-3");
    ck_assert_uint_eq(job.number, 3);
    ck_assert_uint_eq(job.total, 10);
    ck_assert_uint_eq(job.failed, 2);
    return peer;
}

/* Hands in tasks q-from..q-(to - 1), tagged with their number + 1000; the first error. */
static enum sl_err submit_many(uint64_t from, uint64_t to, size_t body_bytes)
{
    char *body = malloc(body_bytes);
    char id[32];
    enum sl_err err = SL_OK;

    ck_assert_ptr_nonnull(body);
    memset(body, ' ', body_bytes);
    memcpy(body, "{", 1);
    memcpy(body + body_bytes - 1, "}", 1);
    for (uint64_t i = from; i < to && err == SL_OK; i++) {
        snprintf(id, sizeof(id), "q-%llu", (unsigned long long)i);
        struct sl_task_msg task =
            sl_client_task(SPAN(id), SPAN("model"), sl_span_of(body, body_bytes));
        err = sl_client_submit(client, &task, i + 1000);
    }
    free(body);
    return err;
}

START_TEST(test_submit_and_flush)
{
    struct taker taker = taker_defaults;
    struct peer *peer = begin_submit(&taker);

    ck_assert_int_eq(sl_client_flush(client), SL_OK); /* nothing there: no frame */
    ck_assert_int_eq(submit_many(0, 5000, 100), SL_OK);
    ck_assert_int_eq(sl_client_flush(client), SL_OK);
    ck_assert_int_eq(submit_many(5000, 5001, 100), SL_OK);
    ck_assert_int_eq(sl_client_flush(client), SL_OK);
    struct sl_client_counts counts = sl_client_get_counts(client);
    ck_assert_uint_eq(counts.submitted, 5001);
    ck_assert_uint_eq(counts.accepted, 5001);
    ck_assert_uint_eq(counts.known, 0);
    ck_assert(!counts.is_refused);
    end_client(peer);
    ck_assert_uint_eq(taker.tasks, 5001);
    ck_assert_uint_eq(taker.frames, 6);
    ck_assert(taker.is_in_order);
}
END_TEST

START_TEST(test_pipeline_is_full_but_not_more)
{
    struct taker taker = taker_defaults;

    taker.hold = SL_FRAMES_UNACKED_MAX;
    struct peer *peer = begin_submit(&taker);
    ck_assert_int_eq(submit_many(0, SL_FRAMES_UNACKED_MAX * 4 * SL_FRAME_TASKS_MAX, 10), SL_OK);
    ck_assert_int_eq(sl_client_flush(client), SL_OK);
    end_client(peer);
    ck_assert_uint_eq(taker.waiting_max, SL_FRAMES_UNACKED_MAX);
    ck_assert_uint_eq(taker.frames, SL_FRAMES_UNACKED_MAX * 4);
    ck_assert(taker.is_in_order);
}
END_TEST

START_TEST(test_bodies_of_every_size)
{
    static const size_t sizes[] = {2,
                                   SL_FRAME_BYTES_COMMON / 2,
                                   SL_FRAME_BYTES_COMMON - 1200,
                                   SL_FRAME_BYTES_COMMON - 800,
                                   SL_FRAME_BYTES_COMMON,
                                   SL_FRAME_BYTES_COMMON + 1,
                                   5 * SL_MIB,
                                   3,
                                   SL_BODY_BYTES_MAX,
                                   2};
    struct taker taker = taker_defaults;
    struct peer *peer = begin_submit(&taker);
    uint64_t bytes = 0;

    for (size_t i = 0; i < SL_ARRAY_LEN(sizes); i++) {
        ck_assert_int_eq(submit_many(i, i + 1, sizes[i]), SL_OK);
        bytes += sizes[i];
    }
    ck_assert_int_eq(sl_client_flush(client), SL_OK);
    ck_assert_int_eq(submit_many(99, 100, SL_BODY_BYTES_MAX + 1), SL_ERR_BODY_TOO_LARGE);
    ck_assert_uint_eq(sl_client_get_counts(client).accepted, SL_ARRAY_LEN(sizes));
    end_client(peer);
    ck_assert_uint_eq(taker.bytes, bytes);
    ck_assert(taker.is_in_order);
}
END_TEST

START_TEST(test_tasks_refused_before_sending)
{
    struct taker taker = taker_defaults;
    struct peer *peer = begin_submit(&taker);
    char long_id[SL_ID_BYTES_MAX + 2] = "";
    struct sl_task_msg good = sl_client_task(SPAN("q-0"), SPAN("m"), SPAN("{}"));
    struct sl_task_msg bad[7];
    char *large = calloc(1, SL_MIB);

    ck_assert_ptr_nonnull(large);
    memset(long_id, 'x', sizeof(long_id) - 1);
    for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
        bad[i] = good;
    }
    bad[0].custom_id = SPAN("");
    bad[1].custom_id = SPAN(long_id);
    bad[2].body = SPAN("");
    bad[3].model = SPAN("");
    bad[4].priority = SL_PRIORITY_MAX + 1;
    bad[5].custom_id = sl_span_of("a\0b", 3);
    bad[6].custom_id = SPAN(long_id);
    bad[6].body = sl_span_of(large, SL_MIB);
    for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
        ck_assert_msg(sl_client_submit(client, &bad[i], 0) == SL_ERR_INPUT, "case %zu", i);
        ck_assert_str_ne(sl_client_message(client), "");
    }
    ck_assert_int_eq(sl_client_submit(client, &good, 0), SL_OK);
    ck_assert_int_eq(sl_client_flush(client), SL_OK);
    ck_assert_uint_eq(sl_client_get_counts(client).accepted, 1);
    end_client(peer);
    ck_assert_uint_eq(taker.frames, 1);
    free(large);
}
END_TEST

START_TEST(test_refusal_in_the_middle)
{
    struct taker taker = taker_defaults;
    const uint64_t refused = 3 * SL_FRAME_TASKS_MAX + 7;

    taker.refuse_at = refused;
    struct peer *peer = begin_submit(&taker);
    enum sl_err err = submit_many(0, 100000, 100);
    ck_assert_int_eq(err, SL_ERR_CONFLICT);
    ck_assert_int_eq(sl_client_flush(client), SL_ERR_CONFLICT);
    ck_assert_str_eq(sl_client_message(client), "id q is there with another body");
    struct sl_client_counts counts = sl_client_get_counts(client);
    ck_assert(counts.is_refused && counts.is_tag_known);
    ck_assert_uint_eq(counts.refused_tag, refused + 1000);
    ck_assert_uint_ge(counts.accepted, refused);
    end_client(peer);
    ck_assert_uint_lt(taker.tasks, 100000);
}
END_TEST

START_TEST(test_error_frame_answers_a_frame)
{
    struct taker taker = taker_defaults;

    taker.hang_up_at = 2 * SL_FRAME_TASKS_MAX;
    taker.error_frame = SL_ERR_NO_SPACE;
    struct peer *peer = begin_submit(&taker);
    enum sl_err err = submit_many(0, 1000000, 100);
    err = err == SL_OK ? sl_client_flush(client) : err;
    ck_assert_msg(err == SL_ERR_NO_SPACE, "%s", sl_err_code(err));
    ck_assert_str_eq(sl_client_message(client), "because");
    ck_assert(!sl_client_get_counts(client).is_tag_known);
    end_client(peer);
}
END_TEST

START_TEST(test_hang_up_in_the_middle)
{
    struct taker taker = taker_defaults;

    taker.hang_up_at = 5 * SL_FRAME_TASKS_MAX;
    struct peer *peer = begin_submit(&taker);
    ck_assert_int_eq(submit_many(0, 1000000, 100), SL_ERR_UNREACHABLE);
    ck_assert_int_eq(sl_client_flush(client), SL_ERR_UNREACHABLE);
    ck_assert_str_ne(sl_client_message(client), "");
    ck_assert_uint_le(sl_client_get_counts(client).accepted, 5 * SL_FRAME_TASKS_MAX);
    end_client(peer);
}
END_TEST

START_TEST(test_nonsense_acknowledged)
{
    static const struct sl_submitted_msg cases[] = {
        {.batch = 1000, .accepted = 10, .refused_idx = -1}, /* never sent */
        {.accepted = 11, .refused_idx = -1},
        {.accepted = 9, .refused_idx = -1},
        {.accepted = 5, .known = 6, .refused_idx = -1},
        {.accepted = 10, .refused_idx = 10, .err = SL_ERR_CONFLICT},
        {.accepted = 5, .refused_idx = 4, .err = SL_ERR_CONFLICT},
        {.accepted = 4, .refused_idx = 4, .err = SL_OK},
        {.accepted = 10, .refused_idx = -1, .err = SL_ERR_CONFLICT},
    };

    for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
        struct taker taker = taker_defaults;
        taker.hang_up_at = 9;
        taker.must_answer_nonsense = true;
        taker.nonsense = cases[i];
        struct peer *peer = begin_submit(&taker);
        ck_assert_int_eq(submit_many(0, 10, 100), SL_OK);
        ck_assert_msg(sl_client_flush(client) == SL_ERR_PROTOCOL, "case %zu", i);
        ck_assert_uint_eq(sl_client_get_counts(client).accepted, 0);
        end_client(peer);
    }
}
END_TEST

/* ---- results --------------------------------------------------------------------------------- */

struct result_script {
    uint32_t count;
    size_t piece_bytes;
    size_t body_bytes;
    enum sl_err err; /* instead of the end */
    bool must_break; /* hang up instead of the end */
};

static void put_result(struct peer *peer, uint32_t idx, const char *body, size_t body_bytes)
{
    struct sl_result_msg msg = {.task = sl_task_number(3, idx),
                                .cursor = idx + 1,
                                .state = SL_TASK_COMPLETED,
                                .custom_id = SPAN("q"),
                                .http_status = 200,
                                .provider = SPAN("stub"),
                                .attempts = 1,
                                .body_is_json = true,
                                .body = sl_span_of(body, body_bytes)};

    ck_assert_int_eq(sl_wire_put_result(peer_writer(peer), &msg), SL_OK);
}

static void script_results(struct peer *peer, void *ctx)
{
    struct result_script *script = ctx;
    struct sl_results_msg asked;
    struct sl_error_msg error = {.err = script->err, .message = SPAN("")};
    char *body = calloc(1, script->body_bytes + 1);
    struct sl_span payload = peer_expect(peer, SL_FRAME_RESULTS);

    ck_assert_ptr_nonnull(body);
    ck_assert_int_eq(sl_wire_get_results(peer_decoder(peer), payload, &asked), SL_OK);
    ck_assert(asked.must_follow);
    ck_assert_int_eq(asked.order, SL_RESULTS_AS_SUBMITTED);
    for (uint32_t i = (uint32_t)asked.cursor; i < script->count; i++) {
        put_result(peer, i, body, script->body_bytes);
    }
    if (script->err != SL_OK) {
        ck_assert_int_eq(sl_wire_put_error(peer_writer(peer), &error), SL_OK);
    } else if (!script->must_break) {
        ck_assert_int_eq(sl_wire_put_empty(peer_writer(peer), SL_FRAME_RESULTS_END), SL_OK);
    }
    peer_send(peer, script->piece_bytes);
    if (!script->must_break) {
        peer_await_end(peer);
    }
    free(body);
}

/* Reads results from `cursor` on until the end or an error; returns it, counts them. */
static enum sl_err read_results(struct result_script *script, uint64_t cursor, uint32_t *count)
{
    struct peer *peer = peer_open(script_results, script);
    const struct sl_result_msg *result = NULL;
    enum sl_err err;

    connect_client(peer);
    ck_assert_int_eq(
        sl_client_results(client, SPAN("job-3"), SL_RESULTS_AS_SUBMITTED, true, cursor), SL_OK);
    ck_assert_int_eq(sl_client_open_job(client, SPAN(""), true, &job), SL_ERR_USAGE);
    *count = 0;
    while ((err = sl_client_next(client, -1, &result)) == SL_OK && result != NULL) {
        ck_assert_uint_eq(result->cursor, cursor + *count + 1);
        ck_assert_uint_eq(result->body.len, script->body_bytes);
        (*count)++;
    }
    if (err == SL_OK) {
        ck_assert_int_eq(sl_client_next(client, 0, &result), SL_ERR_USAGE);
    }
    end_client(peer);
    return err;
}

START_TEST(test_results)
{
    static const struct {
        struct result_script script;
        uint64_t cursor;
        enum sl_err err;
        uint32_t count;
    } cases[] = {
        {{.count = 0}, 0, SL_OK, 0},
        {{.count = 1000, .body_bytes = 1000}, 0, SL_OK, 1000},
        {{.count = 1000, .body_bytes = 1000}, 990, SL_OK, 10},
        {{.count = 20, .body_bytes = 10, .piece_bytes = 1}, 0, SL_OK, 20},
        {{.count = 500, .body_bytes = 3001, .piece_bytes = 4099}, 0, SL_OK, 500},
        {{.count = 3, .body_bytes = 5 * SL_MIB}, 0, SL_OK, 3},
        {{.count = 1, .body_bytes = SL_RESPONSE_BYTES_MAX}, 0, SL_OK, 1},
        {{.count = 0, .err = SL_ERR_NOT_FOUND}, 0, SL_ERR_NOT_FOUND, 0},
        {{.count = 5, .err = SL_ERR_DRAINING}, 0, SL_ERR_DRAINING, 5},
        {{.count = 5, .must_break = true}, 0, SL_ERR_UNREACHABLE, 5},
    };

    for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
        struct result_script script = cases[i].script;
        uint32_t count;
        enum sl_err err = read_results(&script, cases[i].cursor, &count);
        ck_assert_msg(err == cases[i].err, "case %zu: %s", i, sl_err_code(err));
        ck_assert_msg(count == cases[i].count, "case %zu: %u results", i, count);
    }
}
END_TEST

START_TEST(test_waiting_for_results_ends)
{
    struct peer *peer = peer_open(script_nothing, NULL);
    const struct sl_result_msg *result;
    int stop_fd = -1;

    connect_client(peer);
    ck_assert_int_eq(sl_client_results(client, SPAN("j"), SL_RESULTS_AS_DONE, true, 0), SL_OK);
    ck_assert_int_eq(sl_client_next(client, 0, &result), SL_ERR_AGAIN);
    int64_t begun_ns = sl_clock_mono_ns();
    ck_assert_int_eq(sl_client_next(client, 20, &result), SL_ERR_AGAIN);
    ck_assert_int_ge(sl_clock_mono_ns() - begun_ns, 19 * SL_NS_PER_MS);
    ck_assert_int_eq(sl_os_event_fd(&stop_fd), SL_OK);
    sl_os_event_signal(stop_fd);
    sl_client_set_stop_fd(client, stop_fd);
    ck_assert_int_eq(sl_client_next(client, -1, &result), SL_ERR_INTERRUPTED);
    ck_assert_int_eq(sl_client_next(client, -1, &result), SL_ERR_UNREACHABLE);
    sl_os_close(&stop_fd);
    end_client(peer);
}
END_TEST

START_TEST(test_stop_while_submitting)
{
    struct taker taker = taker_defaults;
    struct peer *peer = begin_submit(&taker);
    int stop_fd = -1;

    ck_assert_int_eq(sl_os_event_fd(&stop_fd), SL_OK);
    sl_client_set_stop_fd(client, stop_fd);
    ck_assert_int_eq(submit_many(0, 3000, 100), SL_OK);
    sl_os_event_signal(stop_fd);
    ck_assert_int_eq(submit_many(3000, 10000, 100), SL_ERR_INTERRUPTED);
    ck_assert_uint_le(sl_client_get_counts(client).accepted, 3 * SL_FRAME_TASKS_MAX);
    sl_os_close(&stop_fd);
    end_client(peer);
}
END_TEST

/* ---- documents and commands ------------------------------------------------------------------ */

static void script_questions(struct peer *peer, void *ctx)
{
    struct sl_wire_writer *writer = peer_writer(peer);
    struct sl_span name;

    (void)ctx;
    struct sl_span payload = peer_expect(peer, SL_FRAME_STATUS);
    ck_assert_int_eq(sl_wire_get_name(peer_decoder(peer), payload, &name), SL_OK);
    ck_assert(sl_span_equal(name, SPAN("job-3")));
    size_t start = sl_wire_begin(writer, SL_FRAME_DOCUMENT);
    sl_wire_put_map(writer, 2);
    sl_wire_put_kv_uint(writer, "ready", 7);
    sl_wire_put_kv_str(writer, "state", "running");
    ck_assert_int_eq(sl_wire_end(writer, start), SL_OK);
    peer_send(peer, 3);
    (void)peer_expect(peer, SL_FRAME_CANCEL);
    ck_assert_int_eq(sl_wire_put_count(writer, SL_FRAME_DONE, 12), SL_OK);
    peer_send(peer, 0);
    (void)peer_expect(peer, SL_FRAME_DRAIN);
    ck_assert_int_eq(sl_wire_put_count(writer, SL_FRAME_DONE, 0), SL_OK);
    peer_send(peer, 0);
    (void)peer_expect(peer, SL_FRAME_JOBS); /* answered with what answers another question */
    ck_assert_int_eq(sl_wire_put_count(writer, SL_FRAME_DONE, 0), SL_OK);
    peer_send(peer, 0);
    peer_await_end(peer);
}

static void note_ready(void *ctx, const struct sl_doc_value *value)
{
    if (sl_span_equal(value->key, SPAN("ready"))) {
        *(uint64_t *)ctx = value->uint_value;
    }
}

START_TEST(test_questions_and_commands)
{
    struct peer *peer = peer_open(script_questions, NULL);
    uint64_t count = 0;

    connect_client(peer);
    ck_assert_int_eq(sl_client_status(client, SPAN("job-3"), note_ready, &count), SL_OK);
    ck_assert_uint_eq(count, 7);
    ck_assert_int_eq(sl_client_cancel(client, SPAN("job-3"), &count), SL_OK);
    ck_assert_uint_eq(count, 12);
    ck_assert_int_eq(sl_client_drain(client, &count), SL_OK);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(sl_client_jobs(client, note_ready, &count), SL_ERR_PROTOCOL);
    ck_assert_int_eq(sl_client_drain(client, &count), SL_ERR_UNREACHABLE);
    end_client(peer);
}
END_TEST

/* ---- garbage --------------------------------------------------------------------------------- */

struct garbage {
    uint64_t state;
    size_t len;
};

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* A result with some bytes changed, as often with a sound header as not; then the end. */
static void script_garbage(struct peer *peer, void *ctx)
{
    struct garbage *garbage = ctx;
    struct sl_wire_writer *writer = peer_writer(peer);

    (void)peer_expect(peer, SL_FRAME_RESULTS);
    put_result(peer, 0, "{\"a\":1}", 7);
    size_t from = next_random(&garbage->state) % 2 * SL_FRAME_HEADER_BYTES;
    for (size_t i = 0; i < garbage->len; i++) {
        size_t at = from + next_random(&garbage->state) % (writer->len - from);
        writer->buf[at] = (char)next_random(&garbage->state);
    }
    peer_send(peer, 0);
}

START_TEST(test_garbage_is_an_error)
{
    int64_t seed = sl_clock_mono_ns();
    struct garbage garbage = {.state = (uint64_t)seed};

    printf("seed %lld\n", (long long)seed);
    for (size_t round = 0; round < 300; round++) {
        const struct sl_result_msg *result = NULL;
        garbage.len = 1 + round % 8;
        struct peer *peer = peer_open(script_garbage, &garbage);
        connect_client(peer);
        ck_assert_int_eq(sl_client_results(client, SPAN("j"), SL_RESULTS_AS_DONE, true, 0), SL_OK);
        enum sl_err err = sl_client_next(client, -1, &result);
        for (int i = 0; i < 3 && err == SL_OK && result != NULL; i++) {
            err = sl_client_next(client, -1, &result);
        }
        ck_assert_msg(err != SL_OK || result == NULL, "round %zu goes on for ever", round);
        end_client(peer);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client");
    TCase *tcase = tcase_create("client");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(tcase, 100);
    tcase_add_checked_fixture(tcase, tmp_dir_make, tmp_dir_remove);
    tcase_add_test(tcase, test_nobody_there);
    tcase_add_test(tcase, test_greetings_refused);
    tcase_add_test(tcase, test_welcome);
    tcase_add_test(tcase, test_calls_in_the_wrong_order);
    tcase_add_test(tcase, test_submit_and_flush);
    tcase_add_test(tcase, test_pipeline_is_full_but_not_more);
    tcase_add_test(tcase, test_bodies_of_every_size);
    tcase_add_test(tcase, test_tasks_refused_before_sending);
    tcase_add_test(tcase, test_refusal_in_the_middle);
    tcase_add_test(tcase, test_error_frame_answers_a_frame);
    tcase_add_test(tcase, test_hang_up_in_the_middle);
    tcase_add_test(tcase, test_nonsense_acknowledged);
    tcase_add_test(tcase, test_results);
    tcase_add_test(tcase, test_waiting_for_results_ends);
    tcase_add_test(tcase, test_stop_while_submitting);
    tcase_add_test(tcase, test_questions_and_commands);
    tcase_add_test(tcase, test_garbage_is_an_error);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
