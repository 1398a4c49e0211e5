/*
 * Encoders: one function per message, members in the order of the message's struct.
 *
 * A member outside the bounds that the reader checks is refused here already (SL_ERR_INPUT), so
 * that a caller hears about its own bad name instead of being hung up on. Texts for people are cut
 * to their limit at a whole character; nobody loses a result over a long message.
 *
 * Never allocates, never blocks; runs in every process; keeps no state. On any error the writer
 * stands where it stood before. Errors: SL_ERR_FULL, SL_ERR_INPUT.
 */
#include "common/check.h"
#include "common/wire.h"
#include "common/wire_private.h"

#define COUNT_BYTES 5            /* array32: tag and four bytes of count */
#define ARRAY32_TAG ((char)0xdd) /* patched by hand: msgpack-c would pick the shortest form */

/* The longest prefix of at most `max` bytes that holds no NUL and no half of a UTF-8 character. */
static struct sl_span cut_text(struct sl_span text, size_t max)
{
    size_t len = text.len > 0 ? strnlen(text.ptr, text.len) : 0;

    if (len > max) {
        len = max;
        while (len > 0 && ((uint8_t)text.ptr[len] & 0xc0) == 0x80) {
            len--;
        }
    }
    return sl_span_of(text.ptr, len);
}

static bool is_name(struct sl_span name)
{
    return sl_wire_is_text(name, 0, SL_NAME_BYTES_MAX);
}

/* ---- clients and broker ---------------------------------------------------------------------- */

enum sl_err sl_wire_put_hello(struct sl_wire_writer *w, const struct sl_hello_msg *msg)
{
    return sl_wire_put_name(w, SL_FRAME_HELLO, msg->version);
}

enum sl_err sl_wire_put_welcome(struct sl_wire_writer *w, const struct sl_welcome_msg *msg)
{
    if (!is_name(msg->version)) {
        return SL_ERR_INPUT;
    }
    size_t start = sl_wire_begin(w, SL_FRAME_WELCOME);
    sl_wire_put_array(w, 4);
    sl_wire_put_str(w, msg->version);
    sl_wire_put_uint(w, msg->pid);
    sl_wire_put_uint(w, msg->generation);
    sl_wire_put_bool(w, msg->is_draining);
    return sl_wire_end(w, start);
}

enum sl_err sl_wire_put_error(struct sl_wire_writer *w, const struct sl_error_msg *msg)
{
    size_t start = sl_wire_begin(w, SL_FRAME_ERROR);

    sl_wire_put_array(w, 2);
    sl_wire_put_uint(w, (uint64_t)msg->err);
    sl_wire_put_str(w, cut_text(msg->message, SL_MESSAGE_BYTES_MAX));
    return sl_wire_end(w, start);
}

enum sl_err sl_wire_put_open_job(struct sl_wire_writer *w, const struct sl_open_job_msg *msg)
{
    if (!is_name(msg->name)) {
        return SL_ERR_INPUT;
    }
    size_t start = sl_wire_begin(w, SL_FRAME_OPEN_JOB);
    sl_wire_put_array(w, 2);
    sl_wire_put_str(w, msg->name);
    sl_wire_put_bool(w, msg->may_create);
    return sl_wire_end(w, start);
}

enum sl_err sl_wire_put_job(struct sl_wire_writer *w, const struct sl_job_msg *msg)
{
    if (!is_name(msg->name)) {
        return SL_ERR_INPUT;
    }
    size_t start = sl_wire_begin(w, SL_FRAME_JOB);
    sl_wire_put_array(w, 7);
    sl_wire_put_uint(w, msg->job);
    sl_wire_put_str(w, msg->name);
    sl_wire_put_uint(w, msg->total);
    sl_wire_put_uint(w, msg->completed);
    sl_wire_put_uint(w, msg->failed);
    sl_wire_put_uint(w, msg->cancelled);
    sl_wire_put_uint(w, msg->expired);
    return sl_wire_end(w, start);
}

enum sl_err sl_wire_put_submitted(struct sl_wire_writer *w, const struct sl_submitted_msg *msg)
{
    size_t start = sl_wire_begin(w, SL_FRAME_SUBMITTED);

    sl_wire_put_array(w, 6);
    sl_wire_put_uint(w, msg->batch);
    sl_wire_put_uint(w, msg->accepted);
    sl_wire_put_uint(w, msg->known);
    sl_wire_put_int(w, msg->refused_idx);
    sl_wire_put_uint(w, (uint64_t)msg->err);
    sl_wire_put_str(w, cut_text(msg->message, SL_MESSAGE_BYTES_MAX));
    return sl_wire_end(w, start);
}

enum sl_err sl_wire_put_results(struct sl_wire_writer *w, const struct sl_results_msg *msg)
{
    if (!is_name(msg->job)) {
        return SL_ERR_INPUT;
    }
    size_t start = sl_wire_begin(w, SL_FRAME_RESULTS);
    sl_wire_put_array(w, 4);
    sl_wire_put_str(w, msg->job);
    sl_wire_put_uint(w, (uint64_t)msg->order);
    sl_wire_put_bool(w, msg->must_follow);
    sl_wire_put_uint(w, msg->cursor);
    return sl_wire_end(w, start);
}

static bool are_result_names_sound(const struct sl_result_msg *msg)
{
    return sl_wire_is_text(msg->custom_id, 1, SL_ID_BYTES_MAX) && is_name(msg->provider) &&
           is_name(msg->stage) && is_name(msg->service_id) &&
           msg->body.len <= SL_RESPONSE_BYTES_MAX;
}

enum sl_err sl_wire_put_result(struct sl_wire_writer *w, const struct sl_result_msg *msg)
{
    if (!are_result_names_sound(msg)) {
        return SL_ERR_INPUT;
    }
    size_t start = sl_wire_begin(w, SL_FRAME_RESULT);
    sl_wire_put_array(w, SL_RESULT_MEMBERS);
    sl_wire_put_uint(w, msg->task);
    sl_wire_put_uint(w, msg->cursor);
    sl_wire_put_uint(w, (uint64_t)msg->state);
    sl_wire_put_uint(w, (uint64_t)msg->err);
    sl_wire_put_str(w, msg->custom_id);
    sl_wire_put_str(w, cut_text(msg->message, SL_MESSAGE_BYTES_MAX));
    sl_wire_put_uint(w, msg->http_status);
    sl_wire_put_str(w, cut_text(msg->request_id, SL_REQUEST_ID_BYTES_MAX));
    sl_wire_put_str(w, msg->provider);
    sl_wire_put_str(w, msg->stage);
    sl_wire_put_str(w, msg->service_id);
    sl_wire_put_uint(w, msg->attempts);
    sl_wire_put_uint(w, msg->queued_us);
    sl_wire_put_uint(w, msg->call_us);
    sl_wire_put_uint(w, msg->input_tokens);
    sl_wire_put_uint(w, msg->output_tokens);
    sl_wire_put_bool(w, msg->body_is_json);
    sl_wire_put_bin(w, msg->body);
    return sl_wire_end(w, start);
}

/* ---- frames with one member or none ---------------------------------------------------------- */

enum sl_err sl_wire_put_name(struct sl_wire_writer *w, enum sl_frame_type type, struct sl_span name)
{
    if (!is_name(name)) {
        return SL_ERR_INPUT;
    }
    size_t start = sl_wire_begin(w, type);
    sl_wire_put_array(w, 1);
    sl_wire_put_str(w, name);
    return sl_wire_end(w, start);
}

enum sl_err sl_wire_put_count(struct sl_wire_writer *w, enum sl_frame_type type, uint64_t count)
{
    size_t start = sl_wire_begin(w, type);

    sl_wire_put_array(w, 1);
    sl_wire_put_uint(w, count);
    return sl_wire_end(w, start);
}

enum sl_err sl_wire_put_empty(struct sl_wire_writer *w, enum sl_frame_type type)
{
    size_t start = sl_wire_begin(w, type);

    sl_wire_put_array(w, 0);
    return sl_wire_end(w, start);
}

enum sl_err sl_wire_put_slot(struct sl_wire_writer *w, enum sl_frame_type type, const void *slot,
                             size_t slot_bytes)
{
    size_t start = sl_wire_begin(w, type);

    sl_wire_put_array(w, 1);
    sl_wire_put_bin(w, sl_span_of(slot, slot_bytes));
    return sl_wire_end(w, start);
}

/* ---- workers --------------------------------------------------------------------------------- */

enum sl_err sl_wire_put_lane(struct sl_wire_writer *w, const struct sl_lane_msg *msg)
{
    size_t start = sl_wire_begin(w, SL_FRAME_LANE);

    sl_wire_put_array(w, 2);
    sl_wire_put_uint(w, msg->lane);
    sl_wire_put_uint(w, msg->generation);
    return sl_wire_end(w, start);
}

/* The calls go as one block of fixed records: a worker may hold more of them than a frame may have
 * objects. */
enum sl_err sl_wire_put_worker_hello(struct sl_wire_writer *w, struct sl_span version,
                                     const struct sl_held_call *held, size_t count)
{
    if (!is_name(version) || count > SL_CONCURRENCY_MAX) {
        return SL_ERR_INPUT;
    }
    size_t start = sl_wire_begin(w, SL_FRAME_WORKER_HELLO);
    sl_wire_put_array(w, 2);
    sl_wire_put_str(w, version);
    sl_wire_put_bin_header(w, count * SL_HELD_RECORD_BYTES);
    for (size_t i = 0; i < count; i++) {
        char record[SL_HELD_RECORD_BYTES];
        sl_put_be64(record, held[i].task);
        sl_put_be32(record + 8, held[i].attempt);
        sl_put_be64(record + 12, held[i].generation);
        sl_wire_append(w, record, sizeof(record));
    }
    return sl_wire_end(w, start);
}

/* ---- submit ---------------------------------------------------------------------------------- */

enum sl_err sl_submit_begin(struct sl_submit_builder *builder, struct sl_wire_writer *writer,
                            uint64_t batch)
{
    const char count_space[COUNT_BYTES] = {ARRAY32_TAG};

    *builder = (struct sl_submit_builder){.writer = writer};
    builder->start = sl_wire_begin(writer, SL_FRAME_SUBMIT);
    sl_wire_put_array(writer, 2);
    sl_wire_put_uint(writer, batch);
    builder->count_at = writer->len + 1;
    sl_wire_append(writer, count_space, sizeof(count_space));
    if (writer->is_full) {
        sl_wire_rewind(writer, builder->start);
        return SL_ERR_FULL;
    }
    return SL_OK;
}

static void put_task(struct sl_wire_writer *w, const struct sl_task_msg *task)
{
    sl_wire_put_array(w, SL_TASK_MEMBERS);
    sl_wire_put_str(w, task->custom_id);
    sl_wire_put_str(w, task->model);
    sl_wire_put_str(w, task->provider);
    sl_wire_put_str(w, task->stage);
    sl_wire_put_str(w, task->service_id);
    sl_wire_put_uint(w, (uint64_t)task->endpoint);
    sl_wire_put_uint(w, task->priority);
    sl_wire_put_uint(w, task->timeout_ms);
    sl_wire_put_uint(w, task->max_attempts);
    sl_wire_put_uint(w, task->flags);
    sl_wire_put_uint(w, (uint64_t)task->not_before_ms);
    sl_wire_put_uint(w, (uint64_t)task->deadline_ms);
    sl_wire_put_bin(w, task->body);
}

enum sl_err sl_submit_add(struct sl_submit_builder *builder, const struct sl_task_msg *task)
{
    struct sl_wire_writer *w = builder->writer;
    size_t before = w->len;

    if (!sl_wire_is_task(task)) {
        return SL_ERR_INPUT;
    }
    if (builder->count == SL_FRAME_TASKS_MAX) {
        return SL_ERR_FULL;
    }
    put_task(w, task);
    if (w->is_full || w->len - builder->start > SL_FRAME_HEADER_BYTES + SL_FRAME_BYTES_MAX) {
        sl_wire_rewind(w, before);
        return SL_ERR_FULL;
    }
    builder->count++;
    return SL_OK;
}

enum sl_err sl_submit_end(struct sl_submit_builder *builder)
{
    struct sl_wire_writer *w = builder->writer;

    if (builder->count == 0) {
        sl_wire_rewind(w, builder->start);
        return SL_ERR_INPUT;
    }
    SL_ASSERT(builder->count_at + 4 <= w->len);
    sl_put_be32(w->buf + builder->count_at, builder->count);
    return sl_wire_end(w, builder->start);
}
