/*
 * Frames as they are meant: every message goes out and comes back the same, every member at its
 * limit is taken and one past it refused, by the encoder and by the decoder, and the submit builder
 * stops where a frame ends. Hostile frames are in test_wire_hostile.c, documents in
 * test_wire_document.c.
 */
#include "common/wire.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/wire_samples.h"

#define FRAME_BYTES (256 * SL_KIB)

static struct sl_wire_decoder *decoder;
static struct sl_wire_writer writer;
static char frame[FRAME_BYTES];

static void open_all(void)
{
    decoder = sl_wire_decoder_open();
    ck_assert_ptr_nonnull(decoder);
    sl_wire_writer_init(&writer, frame, sizeof(frame));
}

static void close_all(void)
{
    sl_wire_decoder_close(&decoder);
}

static bool is_text(struct sl_span span, const char *text)
{
    return sl_span_equal(span, sl_span_str(text));
}

/* Checks the header of the only frame written and returns its payload. */
static struct sl_span payload_of(enum sl_frame_type type)
{
    struct sl_frame_header header;

    ck_assert_uint_ge(writer.len, SL_FRAME_HEADER_BYTES);
    ck_assert_int_eq(sl_frame_header_get(frame, &header), SL_OK);
    ck_assert_int_eq(header.type, type);
    ck_assert_uint_eq(header.payload_bytes, writer.len - SL_FRAME_HEADER_BYTES);
    return sl_span_of(frame + SL_FRAME_HEADER_BYTES, header.payload_bytes);
}

/* ---- headers --------------------------------------------------------------------------------- */

static const struct {
    const char *what;
    char bytes[SL_FRAME_HEADER_BYTES];
    enum sl_err err;
} header_cases[] = {
    {"hello of one byte", {0, 0, 0, 1, 1, 1, 0, 0}, SL_OK},
    {"the largest payload", {4, 16, 0, 0, 1, 3, 0, 0}, SL_OK},
    {"one byte more", {4, 16, 0, 1, 1, 3, 0, 0}, SL_ERR_PROTOCOL},
    {"4 GiB", {-1, -1, -1, -1, 1, 3, 0, 0}, SL_ERR_PROTOCOL},
    {"no payload", {0, 0, 0, 0, 1, 1, 0, 0}, SL_ERR_PROTOCOL},
    {"version 0", {0, 0, 0, 1, 0, 1, 0, 0}, SL_ERR_VERSION},
    {"version 2, unknown type", {0, 0, 0, 1, 2, -1, 0, 0}, SL_ERR_VERSION},
    {"type 0", {0, 0, 0, 1, 1, 0, 0, 0}, SL_ERR_PROTOCOL},
    {"type 255", {0, 0, 0, 1, 1, -1, 0, 0}, SL_ERR_PROTOCOL},
    {"first zero is not", {0, 0, 0, 1, 1, 1, 1, 0}, SL_ERR_PROTOCOL},
    {"second zero is not", {0, 0, 0, 1, 1, 1, 0, 1}, SL_ERR_PROTOCOL},
};

START_TEST(test_header)
{
    struct sl_frame_header header;

    _Static_assert(SL_FRAME_BYTES_MAX == 0x04100000, "the second case is the limit");
    ck_assert_msg(sl_frame_header_get(header_cases[_i].bytes, &header) == header_cases[_i].err,
                  "%s", header_cases[_i].what);
}
END_TEST

START_TEST(test_frame_table)
{
    enum sl_frame_type type;

    for (size_t i = 0; sample_type_at(i, &type); i++) {
        ck_assert_str_ne(sl_frame_name(type), "unknown");
        sl_wire_writer_init(&writer, frame, sizeof(frame));
        ck_assert_int_eq(sample_frame(&writer, type), SL_OK);
        ck_assert_int_eq(sample_decode(decoder, type, payload_of(type)), SL_OK);
    }
    ck_assert_str_eq(sl_frame_name((enum sl_frame_type)200), "unknown");
    ck_assert_str_eq(sl_frame_name((enum sl_frame_type) - 1), "unknown");
    ck_assert_int_eq(sl_frame_sender(SL_FRAME_SUBMIT), SL_SENDER_CLIENT);
    ck_assert_int_eq(sl_frame_sender(SL_FRAME_RESULT), SL_SENDER_BROKER);
    ck_assert_int_eq(sl_frame_sender(SL_FRAME_LEAVING), SL_SENDER_WORKER);
}
END_TEST

/* ---- round trips ----------------------------------------------------------------------------- */

START_TEST(test_round_trip_small)
{
    struct sl_hello_msg hello;
    struct sl_welcome_msg welcome;
    struct sl_error_msg error;
    struct sl_open_job_msg open_job;

    ck_assert_int_eq(sl_wire_put_hello(&writer, &(struct sl_hello_msg){sl_span_str("0.1")}), SL_OK);
    ck_assert_int_eq(sl_wire_get_hello(decoder, payload_of(SL_FRAME_HELLO), &hello), SL_OK);
    ck_assert(is_text(hello.version, "0.1"));
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(sl_wire_put_welcome(&writer, &(struct sl_welcome_msg){sl_span_str("0.1"), 7,
                                                                           UINT64_MAX, true}),
                     SL_OK);
    ck_assert_int_eq(sl_wire_get_welcome(decoder, payload_of(SL_FRAME_WELCOME), &welcome), SL_OK);
    ck_assert(is_text(welcome.version, "0.1") && welcome.pid == 7 && welcome.is_draining);
    ck_assert_uint_eq(welcome.generation, UINT64_MAX);
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(
        sl_wire_put_error(&writer, &(struct sl_error_msg){SL_ERR_NO_SPACE, sl_span_str("disk")}),
        SL_OK);
    ck_assert_int_eq(sl_wire_get_error(decoder, payload_of(SL_FRAME_ERROR), &error), SL_OK);
    ck_assert(error.err == SL_ERR_NO_SPACE && is_text(error.message, "disk"));
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(
        sl_wire_put_open_job(&writer, &(struct sl_open_job_msg){sl_span_str(""), true}), SL_OK);
    ck_assert_int_eq(sl_wire_get_open_job(decoder, payload_of(SL_FRAME_OPEN_JOB), &open_job),
                     SL_OK);
    ck_assert(open_job.name.len == 0 && open_job.may_create);
}
END_TEST

START_TEST(test_round_trip_job)
{
    const struct sl_job_msg sent = {UINT32_MAX, sl_span_str("night"), 15, 1, 2, 4, UINT64_MAX};
    struct sl_job_msg got;

    ck_assert_int_eq(sl_wire_put_job(&writer, &sent), SL_OK);
    ck_assert_int_eq(sl_wire_get_job(decoder, payload_of(SL_FRAME_JOB), &got), SL_OK);
    ck_assert(sl_span_equal(got.name, sent.name));
    ck_assert(got.job == sent.job && got.total == sent.total && got.completed == sent.completed);
    ck_assert(got.failed == sent.failed && got.cancelled == sent.cancelled);
    ck_assert_uint_eq(got.expired, sent.expired);
}
END_TEST

static const struct sl_submitted_msg submitted_cases[] = {
    {UINT64_MAX, 1024, 0, -1, SL_OK, {"", 0}},
    {1, 0, 1024, 1023, SL_ERR_CONFLICT, {"row-2", 5}},
    {0, 5, 2, 0, SL_ERR_UNKNOWN_MODEL, {"no such model", 13}},
};

START_TEST(test_round_trip_submitted)
{
    const struct sl_submitted_msg *sent = &submitted_cases[_i];
    struct sl_submitted_msg got;

    ck_assert_int_eq(sl_wire_put_submitted(&writer, sent), SL_OK);
    ck_assert_int_eq(sl_wire_get_submitted(decoder, payload_of(SL_FRAME_SUBMITTED), &got), SL_OK);
    ck_assert(got.batch == sent->batch && got.accepted == sent->accepted);
    ck_assert(got.known == sent->known && got.refused_idx == sent->refused_idx);
    ck_assert(got.err == sent->err && sl_span_equal(got.message, sent->message));
}
END_TEST

START_TEST(test_round_trip_results)
{
    const struct sl_results_msg sent = {sl_span_str("night"), SL_RESULTS_AS_SUBMITTED, true, 99};
    struct sl_results_msg got;

    ck_assert_int_eq(sl_wire_put_results(&writer, &sent), SL_OK);
    ck_assert_int_eq(sl_wire_get_results(decoder, payload_of(SL_FRAME_RESULTS), &got), SL_OK);
    ck_assert(is_text(got.job, "night") && got.order == SL_RESULTS_AS_SUBMITTED);
    ck_assert(got.must_follow && got.cursor == 99);
}
END_TEST

START_TEST(test_round_trip_result)
{
    const struct sl_result_msg sent = {.task = UINT64_MAX,
                                       .cursor = 5,
                                       .state = SL_TASK_FAILED,
                                       .err = SL_ERR_RATE_LIMITED,
                                       .custom_id = sl_span_str("row-1"),
                                       .message = sl_span_str("slow down"),
                                       .http_status = 429,
                                       .request_id = sl_span_str("req-9"),
                                       .provider = sl_span_str("house"),
                                       .stage = sl_span_str("features"),
                                       .service_id = sl_span_str("billing"),
                                       .attempts = 6,
                                       .queued_us = 1,
                                       .call_us = UINT32_MAX,
                                       .input_tokens = 3,
                                       .output_tokens = 4,
                                       .body_is_json = true,
                                       .body = sl_span_of("{\0}", 3)};
    struct sl_result_msg got;

    ck_assert_int_eq(sl_wire_put_result(&writer, &sent), SL_OK);
    ck_assert_int_eq(sl_wire_get_result(decoder, payload_of(SL_FRAME_RESULT), &got), SL_OK);
    ck_assert(got.task == sent.task && got.cursor == 5 && got.state == SL_TASK_FAILED);
    ck_assert(got.err == SL_ERR_RATE_LIMITED && got.http_status == 429 && got.attempts == 6);
    ck_assert(is_text(got.custom_id, "row-1") && is_text(got.message, "slow down"));
    ck_assert(is_text(got.request_id, "req-9") && is_text(got.provider, "house"));
    ck_assert(is_text(got.stage, "features") && is_text(got.service_id, "billing"));
    ck_assert(got.queued_us == 1 && got.call_us == UINT32_MAX && got.body_is_json);
    ck_assert(got.input_tokens == 3 && got.output_tokens == 4);
    ck_assert(sl_span_equal(got.body, sent.body));
}
END_TEST

START_TEST(test_round_trip_worker)
{
    struct sl_held_call held[] = {{1, 2, 3}, {UINT64_MAX, UINT32_MAX, UINT64_MAX}, {5, 6, 7}};
    struct sl_held_call got[3];
    struct sl_span version;
    struct sl_lane_msg lane;
    size_t count = 99;

    ck_assert_int_eq(sl_wire_put_worker_hello(&writer, sl_span_str("0.1"), held, 3), SL_OK);
    struct sl_span payload = payload_of(SL_FRAME_WORKER_HELLO);
    ck_assert_int_eq(sl_wire_get_worker_hello(decoder, payload, &version, got, 3, &count), SL_OK);
    ck_assert(count == 3 && is_text(version, "0.1"));
    for (size_t i = 0; i < 3; i++) {
        ck_assert(got[i].task == held[i].task && got[i].attempt == held[i].attempt);
        ck_assert_uint_eq(got[i].generation, held[i].generation);
    }
    ck_assert_int_eq(sl_wire_get_worker_hello(decoder, payload, &version, got, 2, &count),
                     SL_ERR_PROTOCOL);
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(sl_wire_put_worker_hello(&writer, sl_span_str("0.1"), held, 0), SL_OK);
    ck_assert_int_eq(sl_wire_get_worker_hello(decoder, payload_of(SL_FRAME_WORKER_HELLO), &version,
                                              got, 0, &count),
                     SL_OK);
    ck_assert_uint_eq(count, 0);
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(sl_wire_put_lane(&writer, &(struct sl_lane_msg){SL_LANES_MAX - 1, 8}), SL_OK);
    ck_assert_int_eq(sl_wire_get_lane(decoder, payload_of(SL_FRAME_LANE), &lane), SL_OK);
    ck_assert(lane.lane == SL_LANES_MAX - 1 && lane.generation == 8);
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(sl_wire_put_lane(&writer, &(struct sl_lane_msg){SL_LANES_MAX, 8}), SL_OK);
    ck_assert_int_eq(sl_wire_get_lane(decoder, payload_of(SL_FRAME_LANE), &lane), SL_ERR_PROTOCOL);
}
END_TEST

START_TEST(test_round_trip_single_members)
{
    char slot[112] = "work";
    char got_slot[112];
    struct sl_span name;
    uint64_t count;

    ck_assert_int_eq(sl_wire_put_name(&writer, SL_FRAME_STATUS, sl_span_str("")), SL_OK);
    ck_assert_int_eq(sl_wire_get_name(decoder, payload_of(SL_FRAME_STATUS), &name), SL_OK);
    ck_assert_uint_eq(name.len, 0);
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(sl_wire_put_count(&writer, SL_FRAME_DONE, UINT64_MAX), SL_OK);
    ck_assert_int_eq(sl_wire_get_count(decoder, payload_of(SL_FRAME_DONE), &count), SL_OK);
    ck_assert_uint_eq(count, UINT64_MAX);
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(sl_wire_put_empty(&writer, SL_FRAME_JOBS), SL_OK);
    ck_assert_int_eq(sl_wire_get_empty(decoder, payload_of(SL_FRAME_JOBS)), SL_OK);
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(sl_wire_put_slot(&writer, SL_FRAME_LARGE_WORK, slot, sizeof(slot)), SL_OK);
    struct sl_span payload = payload_of(SL_FRAME_LARGE_WORK);
    ck_assert_int_eq(sl_wire_get_slot(decoder, payload, got_slot, sizeof(got_slot)), SL_OK);
    ck_assert_mem_eq(got_slot, slot, sizeof(slot));
    ck_assert_int_eq(sl_wire_get_slot(decoder, payload, got_slot, sizeof(got_slot) - 1),
                     SL_ERR_PROTOCOL);
}
END_TEST

/* ---- members at their limits ----------------------------------------------------------------- */

/* One member of a sample task set to a value: length for texts and the body, else the number. */
enum member {
    CUSTOM_ID,
    MODEL,
    PROVIDER,
    STAGE,
    SERVICE_ID,
    ENDPOINT,
    PRIORITY,
    TIMEOUT_MS,
    MAX_ATTEMPTS,
    FLAGS,
    NOT_BEFORE_MS,
    DEADLINE_MS,
    BODY,
    NUL_IN_ID,
    BROKEN_UTF8_IN_ID,
    NO_MODEL_NO_PROVIDER,
};

static const struct {
    enum member member;
    int64_t value;
    bool is_taken;
} limit_cases[] = {
    {CUSTOM_ID, 1, true},
    {CUSTOM_ID, 256, true},
    {CUSTOM_ID, 0, false},
    {CUSTOM_ID, 257, false},
    {MODEL, 0, true},
    {MODEL, 128, true},
    {MODEL, 129, false},
    {PROVIDER, 0, true},
    {PROVIDER, 128, true},
    {PROVIDER, 129, false},
    {STAGE, 0, true},
    {STAGE, 128, true},
    {STAGE, 129, false},
    {SERVICE_ID, 0, true},
    {SERVICE_ID, 128, true},
    {SERVICE_ID, 129, false},
    {ENDPOINT, 0, false},
    {ENDPOINT, 1, true},
    {ENDPOINT, 3, true},
    {ENDPOINT, 4, false},
    {PRIORITY, 0, true},
    {PRIORITY, 9, true},
    {PRIORITY, 10, false},
    {TIMEOUT_MS, 0, true},
    {TIMEOUT_MS, 86400000, true},
    {TIMEOUT_MS, 86400001, false},
    {MAX_ATTEMPTS, 0, true},
    {MAX_ATTEMPTS, 100, true},
    {MAX_ATTEMPTS, 101, false},
    {FLAGS, 0, true},
    {FLAGS, 7, true},
    {FLAGS, 8, false},
    {FLAGS, UINT32_MAX, false},
    {NOT_BEFORE_MS, 0, true},
    {NOT_BEFORE_MS, INT64_MAX, true},
    {NOT_BEFORE_MS, -1, false},
    {DEADLINE_MS, INT64_MAX, true},
    {DEADLINE_MS, INT64_MIN, false},
    {BODY, 1, true},
    {BODY, 0, false},
    {NUL_IN_ID, 0, false},
    {BROKEN_UTF8_IN_ID, 0, false},
    {NO_MODEL_NO_PROVIDER, 0, false},
};

static struct sl_task_msg task_with(enum member member, int64_t value)
{
    static char long_text[512];
    struct sl_task_msg task = sample_task();

    memset(long_text, 'x', sizeof(long_text));
    struct sl_span text = sl_span_of(long_text, (size_t)(value & 511));
    switch (member) {
    case CUSTOM_ID:
        task.custom_id = text;
        break;
    case MODEL:
        task.model = text;
        break;
    case PROVIDER:
        task.provider = text;
        break;
    case STAGE:
        task.stage = text;
        break;
    case SERVICE_ID:
        task.service_id = text;
        break;
    case ENDPOINT:
        task.endpoint = (enum sl_endpoint)value;
        break;
    case PRIORITY:
        task.priority = (uint32_t)value;
        break;
    case TIMEOUT_MS:
        task.timeout_ms = (uint32_t)value;
        break;
    case MAX_ATTEMPTS:
        task.max_attempts = (uint32_t)value;
        break;
    case FLAGS:
        task.flags = (uint32_t)value;
        break;
    case NOT_BEFORE_MS:
        task.not_before_ms = value;
        break;
    case DEADLINE_MS:
        task.deadline_ms = value;
        break;
    case BODY:
        task.body = text;
        break;
    case NUL_IN_ID:
        task.custom_id = sl_span_of("a\0b", 3);
        break;
    case BROKEN_UTF8_IN_ID:
        task.custom_id = sl_span_of("\xff\xfe", 2);
        break;
    case NO_MODEL_NO_PROVIDER:
        task.model = task.provider = sl_span_str("");
        break;
    }
    return task;
}

/* A submit frame without the encoder's checks. */
static void put_unchecked(const struct sl_task_msg *task)
{
    size_t start = sl_wire_begin(&writer, SL_FRAME_SUBMIT);

    sl_wire_put_array(&writer, 2);
    sl_wire_put_uint(&writer, 1);
    sl_wire_put_array(&writer, 1);
    sl_wire_put_array(&writer, 13);
    sl_wire_put_str(&writer, task->custom_id);
    sl_wire_put_str(&writer, task->model);
    sl_wire_put_str(&writer, task->provider);
    sl_wire_put_str(&writer, task->stage);
    sl_wire_put_str(&writer, task->service_id);
    sl_wire_put_uint(&writer, (uint64_t)task->endpoint);
    sl_wire_put_uint(&writer, task->priority);
    sl_wire_put_uint(&writer, task->timeout_ms);
    sl_wire_put_uint(&writer, task->max_attempts);
    sl_wire_put_uint(&writer, task->flags);
    sl_wire_put_int(&writer, task->not_before_ms);
    sl_wire_put_int(&writer, task->deadline_ms);
    sl_wire_put_bin(&writer, task->body);
    ck_assert_int_eq(sl_wire_end(&writer, start), SL_OK);
}

static void assert_same_task(const struct sl_task_msg *a, const struct sl_task_msg *b)
{
    ck_assert(sl_span_equal(a->custom_id, b->custom_id) && sl_span_equal(a->model, b->model));
    ck_assert(sl_span_equal(a->provider, b->provider) && sl_span_equal(a->stage, b->stage));
    ck_assert(sl_span_equal(a->service_id, b->service_id) && sl_span_equal(a->body, b->body));
    ck_assert(a->endpoint == b->endpoint && a->priority == b->priority && a->flags == b->flags);
    ck_assert(a->timeout_ms == b->timeout_ms && a->max_attempts == b->max_attempts);
    ck_assert(a->not_before_ms == b->not_before_ms && a->deadline_ms == b->deadline_ms);
}

START_TEST(test_task_limits)
{
    struct sl_task_msg task = task_with(limit_cases[_i].member, limit_cases[_i].value);
    bool is_taken = limit_cases[_i].is_taken;
    struct sl_submit_builder builder;
    struct sl_task_msg got;
    uint64_t batch;
    size_t count;

    put_unchecked(&task);
    ck_assert_int_eq(
        sl_wire_get_submit(decoder, payload_of(SL_FRAME_SUBMIT), &batch, &got, 1, &count),
        is_taken ? SL_OK : SL_ERR_PROTOCOL);
    if (is_taken) {
        assert_same_task(&got, &task);
    }
    sl_wire_rewind(&writer, 0);
    ck_assert_int_eq(sl_submit_begin(&builder, &writer, 1), SL_OK);
    size_t before = writer.len;
    ck_assert_int_eq(sl_submit_add(&builder, &task), is_taken ? SL_OK : SL_ERR_INPUT);
    ck_assert(is_taken || writer.len == before);
}
END_TEST

/* ---- bodies of the largest size -------------------------------------------------------------- */

START_TEST(test_largest_body)
{
    size_t size = SL_FRAME_BYTES_MAX + SL_FRAME_HEADER_BYTES;
    char *large = malloc(size);
    char *body = calloc(1, SL_BODY_BYTES_MAX + 1);
    struct sl_task_msg task = sample_task();
    struct sl_submit_builder builder;
    struct sl_task_msg got;
    uint64_t batch;
    size_t count;

    ck_assert(large != NULL && body != NULL);
    sl_wire_writer_init(&writer, large, size);
    ck_assert_int_eq(sl_submit_begin(&builder, &writer, 1), SL_OK);
    task.body = sl_span_of(body, SL_BODY_BYTES_MAX + 1);
    ck_assert_int_eq(sl_submit_add(&builder, &task), SL_ERR_INPUT);
    task.body.len--;
    ck_assert_int_eq(sl_submit_add(&builder, &task), SL_OK);
    ck_assert_int_eq(sl_submit_add(&builder, &task), SL_ERR_FULL);
    ck_assert_int_eq(sl_submit_end(&builder), SL_OK);
    struct sl_span payload =
        sl_span_of(large + SL_FRAME_HEADER_BYTES, writer.len - SL_FRAME_HEADER_BYTES);
    ck_assert_int_eq(sl_wire_get_submit(decoder, payload, &batch, &got, 1, &count), SL_OK);
    ck_assert_uint_eq(got.body.len, SL_BODY_BYTES_MAX);
    free(large);
    free(body);
}
END_TEST

/* ---- the builder and the writer -------------------------------------------------------------- */

START_TEST(test_builder_stops_at_the_task_count)
{
    static struct sl_task_msg tasks[SL_FRAME_TASKS_MAX];
    struct sl_task_msg task = sample_task();
    struct sl_submit_builder builder;
    uint64_t batch;
    size_t count;

    ck_assert_int_eq(sl_submit_begin(&builder, &writer, 42), SL_OK);
    for (size_t i = 0; i < SL_FRAME_TASKS_MAX; i++) {
        ck_assert_int_eq(sl_submit_add(&builder, &task), SL_OK);
    }
    ck_assert_int_eq(sl_submit_add(&builder, &task), SL_ERR_FULL);
    ck_assert_int_eq(sl_submit_end(&builder), SL_OK);
    struct sl_span payload = payload_of(SL_FRAME_SUBMIT);
    ck_assert_int_eq(
        sl_wire_get_submit(decoder, payload, &batch, tasks, SL_FRAME_TASKS_MAX, &count), SL_OK);
    ck_assert(batch == 42 && count == SL_FRAME_TASKS_MAX);
    assert_same_task(&tasks[SL_FRAME_TASKS_MAX - 1], &task);
    ck_assert_int_eq(
        sl_wire_get_submit(decoder, payload, &batch, tasks, SL_FRAME_TASKS_MAX - 1, &count),
        SL_ERR_PROTOCOL);
}
END_TEST

/* Room for one to three tasks, byte by byte: what was added before stays, what is added is whole.
 */
START_TEST(test_builder_stops_at_the_buffer)
{
    struct sl_task_msg task = sample_task();
    struct sl_task_msg got[4];
    struct sl_submit_builder builder;
    uint64_t batch;
    size_t count;

    for (size_t size = 0; size < 400; size++) {
        sl_wire_writer_init(&writer, frame, size);
        if (sl_submit_begin(&builder, &writer, 1) != SL_OK) {
            ck_assert_uint_eq(writer.len, 0);
            continue;
        }
        size_t added = 0;
        while (sl_submit_add(&builder, &task) == SL_OK) {
            added++;
        }
        ck_assert_int_eq(sl_submit_end(&builder), added > 0 ? SL_OK : SL_ERR_INPUT);
        if (added > 0) {
            ck_assert_int_eq(
                sl_wire_get_submit(decoder, payload_of(SL_FRAME_SUBMIT), &batch, got, 4, &count),
                SL_OK);
            ck_assert_uint_eq(count, added);
        } else {
            ck_assert_uint_eq(writer.len, 0);
        }
    }
}
END_TEST

/* Every frame into every buffer too small for it: refused, and the frame before it is still there.
 */
START_TEST(test_writer_rewinds)
{
    enum sl_frame_type type;

    ck_assert_int_eq(sl_wire_put_empty(&writer, SL_FRAME_JOBS), SL_OK);
    size_t before = writer.len;
    for (size_t i = 0; sample_type_at(i, &type); i++) {
        ck_assert_int_eq(sample_frame(&writer, type), SL_OK);
        size_t whole = writer.len;
        for (size_t size = before; size < whole; size++) {
            sl_wire_writer_init(&writer, frame, size);
            writer.len = before;
            ck_assert_int_eq(sample_frame(&writer, type), SL_ERR_FULL);
            ck_assert(writer.len == before && !writer.is_full);
        }
        sl_wire_writer_init(&writer, frame, sizeof(frame));
        writer.len = before;
    }
}
END_TEST

START_TEST(test_encoders_refuse_bad_names)
{
    static char long_name[SL_NAME_BYTES_MAX + 1];
    const struct sl_span names[] = {sl_span_of(long_name, sizeof(long_name)),
                                    sl_span_of("a\0b", 3)};

    memset(long_name, 'x', sizeof(long_name));
    for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
        struct sl_result_msg result = {.custom_id = sl_span_str("a"), .stage = names[i]};
        ck_assert_int_eq(sl_wire_put_hello(&writer, &(struct sl_hello_msg){names[i]}),
                         SL_ERR_INPUT);
        ck_assert_int_eq(sl_wire_put_welcome(&writer, &(struct sl_welcome_msg){names[i], 1, 1, 0}),
                         SL_ERR_INPUT);
        ck_assert_int_eq(sl_wire_put_open_job(&writer, &(struct sl_open_job_msg){.name = names[i]}),
                         SL_ERR_INPUT);
        ck_assert_int_eq(sl_wire_put_job(&writer, &(struct sl_job_msg){.name = names[i]}),
                         SL_ERR_INPUT);
        ck_assert_int_eq(sl_wire_put_results(&writer, &(struct sl_results_msg){.job = names[i]}),
                         SL_ERR_INPUT);
        ck_assert_int_eq(sl_wire_put_result(&writer, &result), SL_ERR_INPUT);
        ck_assert_int_eq(sl_wire_put_name(&writer, SL_FRAME_SHOW, names[i]), SL_ERR_INPUT);
        ck_assert_int_eq(sl_wire_put_worker_hello(&writer, names[i], NULL, 0), SL_ERR_INPUT);
        ck_assert_uint_eq(writer.len, 0);
    }
}
END_TEST

static const struct {
    const char *text; /* repeated until it is too long */
    size_t cut;       /* bytes that must be left of it */
} cut_cases[] = {
    {"x", SL_MESSAGE_BYTES_MAX},
    {"\xc3\xa9", SL_MESSAGE_BYTES_MAX},
    {"\xe2\x82\xac", SL_MESSAGE_BYTES_MAX - SL_MESSAGE_BYTES_MAX % 3},
    {"\xf0\x9f\x98\x80", SL_MESSAGE_BYTES_MAX},
};

START_TEST(test_messages_are_cut)
{
    char message[SL_MESSAGE_BYTES_MAX * 2];
    size_t step = strlen(cut_cases[_i].text);
    struct sl_error_msg got;
    size_t len = 0;

    while (len + step <= sizeof(message)) {
        memcpy(message + len, cut_cases[_i].text, step);
        len += step;
    }
    const struct sl_error_msg sent = {SL_ERR_INPUT, sl_span_of(message, len)};
    ck_assert_int_eq(sl_wire_put_error(&writer, &sent), SL_OK);
    ck_assert_int_eq(sl_wire_get_error(decoder, payload_of(SL_FRAME_ERROR), &got), SL_OK);
    ck_assert_uint_eq(got.message.len, cut_cases[_i].cut);
}
END_TEST

START_TEST(test_message_is_cut_at_nul)
{
    const struct sl_error_msg sent = {SL_ERR_INPUT, sl_span_of("ab\0cd", 5)};
    struct sl_error_msg got;

    ck_assert_int_eq(sl_wire_put_error(&writer, &sent), SL_OK);
    ck_assert_int_eq(sl_wire_get_error(decoder, payload_of(SL_FRAME_ERROR), &got), SL_OK);
    ck_assert(is_text(got.message, "ab"));
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("wire");
    TCase *cases = tcase_create("wire");

    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, open_all, close_all);
    tcase_add_loop_test(cases, test_header, 0, SL_ARRAY_LEN(header_cases));
    tcase_add_test(cases, test_frame_table);
    tcase_add_test(cases, test_round_trip_small);
    tcase_add_test(cases, test_round_trip_job);
    tcase_add_loop_test(cases, test_round_trip_submitted, 0, SL_ARRAY_LEN(submitted_cases));
    tcase_add_test(cases, test_round_trip_results);
    tcase_add_test(cases, test_round_trip_result);
    tcase_add_test(cases, test_round_trip_worker);
    tcase_add_test(cases, test_round_trip_single_members);
    tcase_add_loop_test(cases, test_task_limits, 0, SL_ARRAY_LEN(limit_cases));
    tcase_add_test(cases, test_largest_body);
    tcase_add_test(cases, test_builder_stops_at_the_task_count);
    tcase_add_test(cases, test_builder_stops_at_the_buffer);
    tcase_add_test(cases, test_writer_rewinds);
    tcase_add_test(cases, test_encoders_refuse_bad_names);
    tcase_add_loop_test(cases, test_messages_are_cut, 0, SL_ARRAY_LEN(cut_cases));
    tcase_add_test(cases, test_message_is_cut_at_nul);
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
