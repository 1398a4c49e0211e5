/*
 * Decoders: one function per message, the mirror of wire_put.c.
 *
 * sl_wire_unpack (wire_unpack.c) bounds the payload and makes msgpack-c's objects of it. A message
 * is read member by member through `fields`, which remembers the first thing that was not as
 * promised, so that a decoder is a plain list and asks once, at its end.
 *
 * Never recurses, never blocks, allocates nothing of its own; spans point into the payload.
 * Runs in every process, one decoder per thread; a crash leaves nothing behind. Errors:
 * SL_ERR_PROTOCOL for anything that is not exactly the message, SL_ERR_NO_MEMORY.
 */
#include "common/wire.h"

#include "common/wire_private.h"

/* ---- members one after the other ------------------------------------------------------------- */

struct fields {
    const msgpack_object *at;
    size_t left;
    bool is_sound;
};

static struct fields fields_of(const msgpack_object *object)
{
    if (object->type != MSGPACK_OBJECT_ARRAY) {
        return (struct fields){.is_sound = false};
    }
    return (struct fields){
        .at = object->via.array.ptr, .left = object->via.array.size, .is_sound = true};
}

static enum sl_err open_fields(struct sl_wire_decoder *d, struct sl_span payload,
                               struct fields *out)
{
    msgpack_object root;
    enum sl_err err = sl_wire_unpack(d, payload, &root);

    *out = err == SL_OK ? fields_of(&root) : (struct fields){.is_sound = false};
    return err;
}

/* The message is taken only when all its members were there, and nothing more. */
static enum sl_err close_fields(const struct fields *f)
{
    return f->is_sound && f->left == 0 ? SL_OK : SL_ERR_PROTOCOL;
}

/* NULL when there is no further member, or it is of another type. */
static const msgpack_object *take(struct fields *f, msgpack_object_type type)
{
    if (!f->is_sound || f->left == 0 || f->at->type != type) {
        f->is_sound = false;
        return NULL;
    }
    f->left--;
    return f->at++;
}

static uint64_t take_uint(struct fields *f, uint64_t max)
{
    const msgpack_object *object = take(f, MSGPACK_OBJECT_POSITIVE_INTEGER);

    if (object == NULL || object->via.u64 > max) {
        f->is_sound = false;
        return 0;
    }
    return object->via.u64;
}

static uint32_t take_u32(struct fields *f, uint32_t max)
{
    return (uint32_t)take_uint(f, max);
}

static bool take_bool(struct fields *f)
{
    const msgpack_object *object = take(f, MSGPACK_OBJECT_BOOLEAN);

    return object != NULL && object->via.boolean;
}

static struct sl_span take_text(struct fields *f, size_t min, size_t max)
{
    const msgpack_object *object = take(f, MSGPACK_OBJECT_STR);
    struct sl_span text = sl_span_of("", 0);

    if (object != NULL) {
        text = sl_span_of(object->via.str.ptr, object->via.str.size);
        f->is_sound = sl_wire_is_text(text, min, max);
    }
    return text;
}

static struct sl_span take_name(struct fields *f)
{
    return take_text(f, 0, SL_NAME_BYTES_MAX);
}

static struct sl_span take_block(struct fields *f, size_t max)
{
    const msgpack_object *object = take(f, MSGPACK_OBJECT_BIN);

    if (object == NULL || object->via.bin.size > max) {
        f->is_sound = false;
        return sl_span_of("", 0);
    }
    return sl_span_of(object->via.bin.ptr, object->via.bin.size);
}

static enum sl_err take_err(struct fields *f)
{
    uint32_t number = take_u32(f, UINT32_MAX);

    if (!sl_err_is_known(number)) {
        f->is_sound = false;
        return SL_ERR_INTERNAL;
    }
    return (enum sl_err)number;
}

/* -1 for none, or the index of a task in its frame. */
static int64_t take_refused_idx(struct fields *f)
{
    if (f->is_sound && f->left > 0 && f->at->type == MSGPACK_OBJECT_NEGATIVE_INTEGER) {
        f->is_sound = f->at->via.i64 == -1;
        f->left--;
        f->at++;
        return -1;
    }
    return (int64_t)take_uint(f, SL_FRAME_TASKS_MAX - 1);
}

/* ---- clients and broker ---------------------------------------------------------------------- */

enum sl_err sl_wire_get_hello(struct sl_wire_decoder *d, struct sl_span payload,
                              struct sl_hello_msg *out)
{
    return sl_wire_get_name(d, payload, &out->version);
}

enum sl_err sl_wire_get_welcome(struct sl_wire_decoder *d, struct sl_span payload,
                                struct sl_welcome_msg *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    out->version = take_name(&f);
    out->pid = take_u32(&f, INT32_MAX);
    out->generation = take_uint(&f, UINT64_MAX);
    out->is_draining = take_bool(&f);
    return close_fields(&f);
}

enum sl_err sl_wire_get_error(struct sl_wire_decoder *d, struct sl_span payload,
                              struct sl_error_msg *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    out->err = take_err(&f);
    out->message = take_text(&f, 0, SL_MESSAGE_BYTES_MAX);
    return close_fields(&f);
}

enum sl_err sl_wire_get_open_job(struct sl_wire_decoder *d, struct sl_span payload,
                                 struct sl_open_job_msg *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    out->name = take_name(&f);
    out->may_create = take_bool(&f);
    return close_fields(&f);
}

enum sl_err sl_wire_get_job(struct sl_wire_decoder *d, struct sl_span payload,
                            struct sl_job_msg *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    out->job = take_u32(&f, UINT32_MAX);
    out->name = take_name(&f);
    out->total = take_uint(&f, UINT64_MAX);
    out->completed = take_uint(&f, UINT64_MAX);
    out->failed = take_uint(&f, UINT64_MAX);
    out->cancelled = take_uint(&f, UINT64_MAX);
    out->expired = take_uint(&f, UINT64_MAX);
    return close_fields(&f);
}

enum sl_err sl_wire_get_submitted(struct sl_wire_decoder *d, struct sl_span payload,
                                  struct sl_submitted_msg *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    out->batch = take_uint(&f, UINT64_MAX);
    out->accepted = take_u32(&f, SL_FRAME_TASKS_MAX);
    out->known = take_u32(&f, SL_FRAME_TASKS_MAX);
    out->refused_idx = take_refused_idx(&f);
    out->err = take_err(&f);
    out->message = take_text(&f, 0, SL_MESSAGE_BYTES_MAX);
    return close_fields(&f);
}

enum sl_err sl_wire_get_results(struct sl_wire_decoder *d, struct sl_span payload,
                                struct sl_results_msg *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    out->job = take_name(&f);
    out->order = (enum sl_results_order)take_u32(&f, SL_RESULTS_AS_SUBMITTED);
    out->must_follow = take_bool(&f);
    out->cursor = take_uint(&f, UINT64_MAX);
    return close_fields(&f);
}

static enum sl_task_state take_state(struct fields *f)
{
    uint32_t number = take_u32(f, UINT32_MAX);

    if (!sl_task_state_is_known(number)) {
        f->is_sound = false;
        return SL_TASK_FAILED;
    }
    return (enum sl_task_state)number;
}

enum sl_err sl_wire_get_result(struct sl_wire_decoder *d, struct sl_span payload,
                               struct sl_result_msg *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    out->task = take_uint(&f, UINT64_MAX);
    out->cursor = take_uint(&f, UINT64_MAX);
    out->state = take_state(&f);
    out->err = take_err(&f);
    out->custom_id = take_text(&f, 1, SL_ID_BYTES_MAX);
    out->message = take_text(&f, 0, SL_MESSAGE_BYTES_MAX);
    out->http_status = take_u32(&f, SL_HTTP_STATUS_MAX);
    out->request_id = take_text(&f, 0, SL_REQUEST_ID_BYTES_MAX);
    out->provider = take_name(&f);
    out->stage = take_name(&f);
    out->service_id = take_name(&f);
    out->attempts = take_u32(&f, UINT32_MAX);
    out->queued_us = take_u32(&f, UINT32_MAX);
    out->call_us = take_u32(&f, UINT32_MAX);
    out->input_tokens = take_uint(&f, UINT64_MAX);
    out->output_tokens = take_uint(&f, UINT64_MAX);
    out->body_is_json = take_bool(&f);
    out->body = take_block(&f, SL_RESPONSE_BYTES_MAX);
    return close_fields(&f);
}

/* ---- frames with one member or none ---------------------------------------------------------- */

enum sl_err sl_wire_get_name(struct sl_wire_decoder *d, struct sl_span payload, struct sl_span *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    *out = take_name(&f);
    return close_fields(&f);
}

enum sl_err sl_wire_get_count(struct sl_wire_decoder *d, struct sl_span payload, uint64_t *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    *out = take_uint(&f, UINT64_MAX);
    return close_fields(&f);
}

enum sl_err sl_wire_get_empty(struct sl_wire_decoder *d, struct sl_span payload)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    return err != SL_OK ? err : close_fields(&f);
}

enum sl_err sl_wire_get_slot(struct sl_wire_decoder *d, struct sl_span payload, void *slot,
                             size_t slot_bytes)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    struct sl_span block = take_block(&f, slot_bytes);
    if (close_fields(&f) != SL_OK || block.len != slot_bytes) {
        return SL_ERR_PROTOCOL;
    }
    memcpy(slot, block.ptr, slot_bytes);
    return SL_OK;
}

/* ---- workers --------------------------------------------------------------------------------- */

enum sl_err sl_wire_get_lane(struct sl_wire_decoder *d, struct sl_span payload,
                             struct sl_lane_msg *out)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    out->lane = take_u32(&f, SL_LANES_MAX - 1);
    out->generation = take_uint(&f, UINT64_MAX);
    return close_fields(&f);
}

enum sl_err sl_wire_get_worker_hello(struct sl_wire_decoder *d, struct sl_span payload,
                                     struct sl_span *version, struct sl_held_call *held,
                                     size_t held_max, size_t *count)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    *version = take_name(&f);
    struct sl_span calls = take_block(&f, SL_FRAME_BYTES_MAX);
    size_t calls_count = calls.len / SL_HELD_RECORD_BYTES;
    if (close_fields(&f) != SL_OK || calls.len % SL_HELD_RECORD_BYTES != 0 ||
        calls_count > held_max) {
        return SL_ERR_PROTOCOL;
    }
    for (size_t i = 0; i < calls_count; i++) {
        const char *record = calls.ptr + i * SL_HELD_RECORD_BYTES;
        held[i] = (struct sl_held_call){.task = sl_get_be64(record),
                                        .attempt = sl_get_be32(record + 8),
                                        .generation = sl_get_be64(record + 12)};
    }
    *count = calls_count;
    return SL_OK;
}

/* ---- submit ---------------------------------------------------------------------------------- */

static bool read_task(const msgpack_object *object, struct sl_task_msg *out)
{
    struct fields f = fields_of(object);

    out->custom_id = take_text(&f, 1, SL_ID_BYTES_MAX);
    out->model = take_name(&f);
    out->provider = take_name(&f);
    out->stage = take_name(&f);
    out->service_id = take_name(&f);
    out->endpoint = (enum sl_endpoint)take_u32(&f, UINT16_MAX);
    out->priority = take_u32(&f, SL_PRIORITY_MAX);
    out->timeout_ms = take_u32(&f, SL_TASK_TIMEOUT_MS_MAX);
    out->max_attempts = take_u32(&f, SL_ATTEMPTS_MAX);
    out->flags = take_u32(&f, UINT32_MAX);
    out->not_before_ms = (int64_t)take_uint(&f, INT64_MAX);
    out->deadline_ms = (int64_t)take_uint(&f, INT64_MAX);
    out->body = take_block(&f, SL_BODY_BYTES_MAX);
    return close_fields(&f) == SL_OK && sl_wire_is_task(out);
}

static bool read_tasks(const msgpack_object_array *list, struct sl_task_msg *tasks,
                       size_t tasks_max)
{
    bool is_sound = list->size >= 1 && list->size <= SL_MIN(tasks_max, (size_t)SL_FRAME_TASKS_MAX);

    for (uint32_t i = 0; is_sound && i < list->size; i++) {
        is_sound = read_task(&list->ptr[i], &tasks[i]);
    }
    return is_sound;
}

enum sl_err sl_wire_get_submit(struct sl_wire_decoder *d, struct sl_span payload, uint64_t *batch,
                               struct sl_task_msg *tasks, size_t tasks_max, size_t *count)
{
    struct fields f;
    enum sl_err err = open_fields(d, payload, &f);

    if (err != SL_OK) {
        return err;
    }
    *batch = take_uint(&f, UINT64_MAX);
    const msgpack_object *list = take(&f, MSGPACK_OBJECT_ARRAY);
    if (list == NULL || close_fields(&f) != SL_OK ||
        !read_tasks(&list->via.array, tasks, tasks_max)) {
        return SL_ERR_PROTOCOL;
    }
    *count = list->via.array.size;
    return SL_OK;
}
