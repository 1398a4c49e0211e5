/*
 * Sample frames and a suspicious reader, for the tests and fuzzers of common/wire.
 *
 * The reader knows the bounds of each message a second time, on purpose: it is what a caller of the
 * decoders relies on. A broken promise aborts, so that check, libFuzzer and the sanitizers all see
 * it. Keeps its decode buffers in static memory: one thread.
 */
#include "tests/support/wire_samples.h"

#include "common/check.h"

#define SLOT_BYTES 112
#define HELD_MAX 64

static const char slot_bytes[SLOT_BYTES] = "slot";

struct sl_task_msg sample_task(void)
{
    return (struct sl_task_msg){
        .custom_id = sl_span_str("row-1"),
        .model = sl_span_str("small-1"),
        .provider = sl_span_str("house"),
        .stage = sl_span_str("features"),
        .service_id = sl_span_str("billing"),
        .endpoint = SL_ENDPOINT_CHAT,
        .priority = 7,
        .timeout_ms = 120000,
        .max_attempts = 3,
        .flags = SL_TASK_FLAG_CACHE_OFF,
        .not_before_ms = INT64_C(1767225600000),
        .deadline_ms = INT64_C(1767312000000),
        .body = sl_span_str("{\"model\":\"small-1\",\"messages\":[]}"),
    };
}

/* ---- writing --------------------------------------------------------------------------------- */

static enum sl_err put_submit(struct sl_wire_writer *w)
{
    struct sl_submit_builder builder;
    struct sl_task_msg task = sample_task();
    enum sl_err err = sl_submit_begin(&builder, w, 77);

    for (int i = 0; err == SL_OK && i < 2; i++) {
        err = sl_submit_add(&builder, &task);
    }
    if (err != SL_OK) {
        sl_wire_rewind(w, builder.start);
        return err;
    }
    return sl_submit_end(&builder);
}

static enum sl_err put_document(struct sl_wire_writer *w)
{
    size_t start = sl_wire_begin(w, SL_FRAME_DOCUMENT);

    sl_wire_put_map(w, 4);
    sl_wire_put_kv_str(w, "state", "running");
    sl_wire_put_kv_double(w, "uptime_s", 1.5);
    sl_wire_put_kv_uint(w, "pid", 4711);
    sl_wire_put_key(w, "jobs");
    sl_wire_put_array(w, 2);
    sl_wire_put_int(w, -5);
    sl_wire_put_map(w, 1);
    sl_wire_put_key(w, "done");
    sl_wire_put_bool(w, true);
    return sl_wire_end(w, start);
}

static enum sl_err put_result(struct sl_wire_writer *w)
{
    const struct sl_result_msg msg = {.task = sl_task_number(3, 9),
                                      .cursor = 12,
                                      .state = SL_TASK_COMPLETED,
                                      .custom_id = sl_span_str("row-1"),
                                      .http_status = 200,
                                      .request_id = sl_span_str("req-1"),
                                      .provider = sl_span_str("house"),
                                      .attempts = 2,
                                      .queued_us = 3100,
                                      .call_us = 812400,
                                      .input_tokens = 9,
                                      .output_tokens = 100000,
                                      .body_is_json = true,
                                      .body = sl_span_str("{}")};

    return sl_wire_put_result(w, &msg);
}

static enum sl_err put_worker_hello(struct sl_wire_writer *w)
{
    const struct sl_held_call held[] = {{1, 2, 3}, {UINT64_MAX, UINT32_MAX, UINT64_MAX}};

    return sl_wire_put_worker_hello(w, sl_span_str("0.1.0"), held, SL_ARRAY_LEN(held));
}

static enum sl_err put_broker_frame(struct sl_wire_writer *w, enum sl_frame_type type)
{
    if (type == SL_FRAME_WELCOME) {
        return sl_wire_put_welcome(w, &(struct sl_welcome_msg){sl_span_str("0.1.0"), 9, 4, true});
    }
    if (type == SL_FRAME_ERROR) {
        return sl_wire_put_error(w, &(struct sl_error_msg){SL_ERR_DRAINING, sl_span_str("later")});
    }
    if (type == SL_FRAME_JOB) {
        return sl_wire_put_job(w, &(struct sl_job_msg){3, sl_span_str("night"), 9, 5, 2, 1, 1});
    }
    if (type == SL_FRAME_SUBMITTED) {
        return sl_wire_put_submitted(
            w, &(struct sl_submitted_msg){77, 1, 0, 1, SL_ERR_CONFLICT, sl_span_str("row-2")});
    }
    SL_ASSERT(type == SL_FRAME_LANE);
    return sl_wire_put_lane(w, &(struct sl_lane_msg){SL_LANES_MAX - 1, 5});
}

enum sl_err sample_frame(struct sl_wire_writer *w, enum sl_frame_type type)
{
    switch (type) {
    case SL_FRAME_HELLO:
        return sl_wire_put_hello(w, &(struct sl_hello_msg){sl_span_str("0.1.0")});
    case SL_FRAME_OPEN_JOB:
        return sl_wire_put_open_job(w, &(struct sl_open_job_msg){sl_span_str("night"), true});
    case SL_FRAME_SUBMIT:
        return put_submit(w);
    case SL_FRAME_RESULTS:
        return sl_wire_put_results(
            w, &(struct sl_results_msg){sl_span_str("night"), SL_RESULTS_AS_SUBMITTED, true, 7});
    case SL_FRAME_STATUS:
    case SL_FRAME_SHOW:
    case SL_FRAME_CANCEL:
    case SL_FRAME_PURGE:
        return sl_wire_put_name(w, type, sl_span_str("night"));
    case SL_FRAME_JOBS:
    case SL_FRAME_DRAIN:
    case SL_FRAME_RESULTS_END:
    case SL_FRAME_LEAVING:
    case SL_FRAME_DRAIN_LANE:
        return sl_wire_put_empty(w, type);
    case SL_FRAME_WELCOME:
    case SL_FRAME_ERROR:
    case SL_FRAME_JOB:
    case SL_FRAME_SUBMITTED:
    case SL_FRAME_LANE:
        return put_broker_frame(w, type);
    case SL_FRAME_RESULT:
        return put_result(w);
    case SL_FRAME_DOCUMENT:
        return put_document(w);
    case SL_FRAME_DONE:
        return sl_wire_put_count(w, type, 70000);
    case SL_FRAME_WORKER_HELLO:
        return put_worker_hello(w);
    case SL_FRAME_LARGE_RESULT:
    case SL_FRAME_LARGE_WORK:
        return sl_wire_put_slot(w, type, slot_bytes, sizeof(slot_bytes));
    }
    SL_UNREACHABLE();
}

bool sample_type_at(size_t idx, enum sl_frame_type *type)
{
    static const enum sl_frame_type types[] = {
#define X(name, number, text, sender, meaning) SL_FRAME_##name,
#include "common/tbl/frames.def"
#undef X
    };

    if (idx >= SL_ARRAY_LEN(types)) {
        return false;
    }
    *type = types[idx];
    return true;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Bytes that were promised: within the payload, of a permitted length, readable. */
static void check_span(struct sl_span payload, struct sl_span span, size_t min, size_t max)
{
    volatile char sink = 0;

    SL_ASSERT(span.len >= min && span.len <= max);
    SL_ASSERT(span.len == 0 || span.ptr >= payload.ptr);
    SL_ASSERT(span.len == 0 || span.ptr + span.len <= payload.ptr + payload.len);
    for (size_t i = 0; i < span.len; i++) {
        sink = (char)(sink ^ span.ptr[i]);
    }
    (void)sink;
}

static void check_text(struct sl_span payload, struct sl_span text, size_t min, size_t max)
{
    check_span(payload, text, min, max);
    SL_ASSERT(text.len == 0 || memchr(text.ptr, '\0', text.len) == NULL);
}

static void check_name(struct sl_span payload, struct sl_span name)
{
    check_text(payload, name, 0, 128);
}

static void check_task(struct sl_span payload, const struct sl_task_msg *task)
{
    check_text(payload, task->custom_id, 1, 256);
    check_name(payload, task->model);
    check_name(payload, task->provider);
    check_name(payload, task->stage);
    check_name(payload, task->service_id);
    check_span(payload, task->body, 1, (size_t)64 << 20);
    SL_ASSERT(task->model.len + task->provider.len > 0);
    SL_ASSERT(task->endpoint >= 1 && task->endpoint <= 3);
    SL_ASSERT(task->priority <= 9);
    SL_ASSERT(task->timeout_ms <= 24 * 60 * 60 * 1000);
    SL_ASSERT(task->max_attempts <= 100);
    SL_ASSERT(task->flags <= 7);
    SL_ASSERT(task->not_before_ms >= 0 && task->deadline_ms >= 0);
}

static enum sl_err decode_submit(struct sl_wire_decoder *d, struct sl_span payload)
{
    static struct sl_task_msg tasks[SL_FRAME_TASKS_MAX];
    uint64_t batch;
    size_t count;
    enum sl_err err = sl_wire_get_submit(d, payload, &batch, tasks, SL_ARRAY_LEN(tasks), &count);

    if (err == SL_OK) {
        SL_ASSERT(count >= 1 && count <= SL_ARRAY_LEN(tasks));
        for (size_t i = 0; i < count; i++) {
            check_task(payload, &tasks[i]);
        }
    }
    return err;
}

static enum sl_err decode_result(struct sl_wire_decoder *d, struct sl_span payload)
{
    struct sl_result_msg msg;
    enum sl_err err = sl_wire_get_result(d, payload, &msg);

    if (err == SL_OK) {
        check_text(payload, msg.custom_id, 1, 256);
        check_text(payload, msg.message, 0, 512);
        check_text(payload, msg.request_id, 0, 128);
        check_name(payload, msg.provider);
        check_name(payload, msg.stage);
        check_name(payload, msg.service_id);
        check_span(payload, msg.body, 0, (size_t)64 << 20);
        SL_ASSERT(sl_err_is_known((uint32_t)msg.err));
        SL_ASSERT(sl_task_state_is_known((uint32_t)msg.state));
        SL_ASSERT(msg.http_status <= 999);
    }
    return err;
}

static enum sl_err decode_submitted(struct sl_wire_decoder *d, struct sl_span payload)
{
    struct sl_submitted_msg msg;
    enum sl_err err = sl_wire_get_submitted(d, payload, &msg);

    if (err == SL_OK) {
        SL_ASSERT(msg.accepted <= 1024 && msg.known <= 1024);
        SL_ASSERT(msg.refused_idx >= -1 && msg.refused_idx < 1024);
        SL_ASSERT(sl_err_is_known((uint32_t)msg.err));
        check_text(payload, msg.message, 0, 512);
    }
    return err;
}

static enum sl_err decode_results(struct sl_wire_decoder *d, struct sl_span payload)
{
    struct sl_results_msg msg;
    enum sl_err err = sl_wire_get_results(d, payload, &msg);

    if (err == SL_OK) {
        SL_ASSERT(msg.order == SL_RESULTS_AS_DONE || msg.order == SL_RESULTS_AS_SUBMITTED);
        check_name(payload, msg.job);
    }
    return err;
}

struct document_check {
    struct sl_span payload;
    uint32_t depth;
    uint32_t values;
};

static void check_value(void *ctx, const struct sl_doc_value *value)
{
    struct document_check *check = ctx;

    check->values++;
    check_name(check->payload, sl_span_of(value->key.ptr, SL_MIN(value->key.len, (size_t)128)));
    check_text(check->payload, value->str_value, 0, check->payload.len);
    if (value->kind == SL_DOC_END) {
        SL_ASSERT(check->depth > 0);
        check->depth--;
    } else if (value->kind == SL_DOC_MAP || value->kind == SL_DOC_ARRAY) {
        check->depth++;
        SL_ASSERT(check->depth <= 8);
    }
}

static enum sl_err decode_document(struct sl_wire_decoder *d, struct sl_span payload)
{
    struct document_check check = {.payload = payload};
    enum sl_err err = sl_wire_walk_document(d, payload, check_value, &check);

    SL_ASSERT(err == SL_OK || check.values == 0);
    SL_ASSERT(check.depth == 0 && check.values <= 2 * SL_FRAME_OBJECTS_MAX);
    return err;
}

static enum sl_err decode_worker_hello(struct sl_wire_decoder *d, struct sl_span payload)
{
    struct sl_held_call held[HELD_MAX];
    struct sl_span version;
    size_t count;
    enum sl_err err =
        sl_wire_get_worker_hello(d, payload, &version, held, SL_ARRAY_LEN(held), &count);

    if (err == SL_OK) {
        SL_ASSERT(count <= SL_ARRAY_LEN(held));
        check_name(payload, version);
    }
    return err;
}

static enum sl_err decode_broker_frame(struct sl_wire_decoder *d, enum sl_frame_type type,
                                       struct sl_span payload)
{
    struct sl_welcome_msg welcome;
    struct sl_error_msg error;
    struct sl_job_msg job;
    struct sl_lane_msg lane;

    if (type == SL_FRAME_WELCOME) {
        enum sl_err err = sl_wire_get_welcome(d, payload, &welcome);
        SL_ASSERT(err != SL_OK || welcome.pid <= INT32_MAX);
        return err;
    }
    if (type == SL_FRAME_ERROR) {
        enum sl_err err = sl_wire_get_error(d, payload, &error);
        SL_ASSERT(err != SL_OK || (error.message.len <= 512 && sl_err_is_known(error.err)));
        return err;
    }
    if (type == SL_FRAME_JOB) {
        enum sl_err err = sl_wire_get_job(d, payload, &job);
        SL_ASSERT(err != SL_OK || job.name.len <= 128);
        return err;
    }
    SL_ASSERT(type == SL_FRAME_LANE);
    enum sl_err err = sl_wire_get_lane(d, payload, &lane);
    SL_ASSERT(err != SL_OK || lane.lane < 64);
    return err;
}

static enum sl_err decode_name(struct sl_wire_decoder *d, struct sl_span payload)
{
    struct sl_span name;
    enum sl_err err = sl_wire_get_name(d, payload, &name);

    if (err == SL_OK) {
        check_name(payload, name);
    }
    return err;
}

enum sl_err sample_decode(struct sl_wire_decoder *d, enum sl_frame_type type,
                          struct sl_span payload)
{
    struct sl_open_job_msg open_job;
    char slot[SLOT_BYTES];
    uint64_t number;

    switch (type) {
    case SL_FRAME_HELLO:
    case SL_FRAME_STATUS:
    case SL_FRAME_SHOW:
    case SL_FRAME_CANCEL:
    case SL_FRAME_PURGE:
        return decode_name(d, payload);
    case SL_FRAME_OPEN_JOB:
        return sl_wire_get_open_job(d, payload, &open_job);
    case SL_FRAME_SUBMIT:
        return decode_submit(d, payload);
    case SL_FRAME_RESULTS:
        return decode_results(d, payload);
    case SL_FRAME_JOBS:
    case SL_FRAME_DRAIN:
    case SL_FRAME_RESULTS_END:
    case SL_FRAME_LEAVING:
    case SL_FRAME_DRAIN_LANE:
        return sl_wire_get_empty(d, payload);
    case SL_FRAME_WELCOME:
    case SL_FRAME_ERROR:
    case SL_FRAME_JOB:
    case SL_FRAME_LANE:
        return decode_broker_frame(d, type, payload);
    case SL_FRAME_SUBMITTED:
        return decode_submitted(d, payload);
    case SL_FRAME_RESULT:
        return decode_result(d, payload);
    case SL_FRAME_DOCUMENT:
        return decode_document(d, payload);
    case SL_FRAME_DONE:
        return sl_wire_get_count(d, payload, &number);
    case SL_FRAME_WORKER_HELLO:
        return decode_worker_hello(d, payload);
    case SL_FRAME_LARGE_RESULT:
    case SL_FRAME_LARGE_WORK:
        return sl_wire_get_slot(d, payload, slot, sizeof(slot));
    }
    SL_UNREACHABLE();
}
