/*
 * libsluice: handing in tasks, packed and pipelined.
 *
 * Runs in whatever process embeds it; one thread per client. Tasks are packed into one frame
 * buffer; up to SL_FRAMES_UNACKED_MAX frames are on their way unanswered, and of what each held
 * only the caller's tags are kept, so memory does not grow with the input. Acknowledgements are
 * taken whenever they are there, also in the middle of sending, so the two sides never wait for one
 * another with full sockets.
 *
 * Never sends a task twice, never reconnects. What was sent but not acknowledged before a crash of
 * either side may or may not be accepted; the caller hands it in again, which costs no second call.
 *
 * Reports the broker's first refusal, with the caller's tag of the task, from then on; and
 * SL_ERR_PROTOCOL for an acknowledgement of anything that was not sent.
 */
#include "common/client_inner.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/os.h"

/* What a task's fields may take beside its body: six strings, eight integers, msgpack headers. */
#define TASK_FIELDS_BYTES_MAX (SL_ID_BYTES_MAX + 4 * SL_NAME_BYTES_MAX + 256)

/* ---- submitting: answers --------------------------------------------------------------------- */

static struct sl_client_unacked *find_unacked(struct sl_client *client, uint64_t batch)
{
    for (size_t i = 0; i < SL_FRAMES_UNACKED_MAX; i++) {
        struct sl_client_unacked *frame = &client->unacked[i];
        if (frame->is_used && frame != client->filling && frame->batch == batch) {
            return frame;
        }
    }
    return NULL;
}

static struct sl_client_unacked *find_oldest(struct sl_client *client)
{
    struct sl_client_unacked *oldest = NULL;

    for (size_t i = 0; i < SL_FRAMES_UNACKED_MAX; i++) {
        struct sl_client_unacked *frame = &client->unacked[i];
        if (frame->is_used && frame != client->filling &&
            (oldest == NULL || frame->batch < oldest->batch)) {
            oldest = frame;
        }
    }
    return oldest;
}

static void release_unacked(struct sl_client *client, struct sl_client_unacked *frame)
{
    SL_ASSERT(frame->is_used);
    SL_ASSERT(client->unacked_count > 0);
    frame->is_used = false;
    client->unacked_count--;
}

/* Keeps the first refusal; later ones follow from it. */
static void keep_refusal(struct sl_client *client, enum sl_err err, const char *text)
{
    if (client->refusal != SL_OK) {
        return;
    }
    client->refusal = err;
    snprintf(client->refusal_fault.text, sizeof(client->refusal_fault.text), "%s", text);
    client->counts.is_refused = true;
}

static void keep_task_refusal(struct sl_client *client, const struct sl_client_unacked *frame,
                              const struct sl_submitted_msg *msg)
{
    char text[SL_MESSAGE_BYTES_MAX];
    struct sl_span words =
        msg->message.len > 0 ? msg->message : sl_span_str(sl_err_meaning(msg->err));

    if (client->refusal == SL_OK) {
        client->counts.is_tag_known = true;
        client->counts.refused_tag = frame->tags[msg->refused_idx];
    }
    snprintf(text, sizeof(text), "%.*s", (int)SL_MIN(words.len, sizeof(text) - 1), words.ptr);
    keep_refusal(client, msg->err, text);
}

static bool is_plausible(const struct sl_client_unacked *frame, const struct sl_submitted_msg *msg)
{
    uint64_t taken = (uint64_t)msg->accepted + msg->known;

    if (msg->refused_idx < 0) {
        return msg->err == SL_OK && taken == frame->count;
    }
    return msg->err != SL_OK && msg->refused_idx < (int64_t)frame->count &&
           taken <= (uint64_t)msg->refused_idx;
}

static enum sl_err take_submitted(struct sl_client *client, struct sl_span payload)
{
    struct sl_submitted_msg msg;
    enum sl_err err = sl_wire_get_submitted(client->decoder, payload, &msg);

    if (err != SL_OK) {
        return sl_client_break(client, "a malformed acknowledgement");
    }
    struct sl_client_unacked *frame = find_unacked(client, msg.batch);
    if (frame == NULL || !is_plausible(frame, &msg)) {
        return sl_client_break(client, "an acknowledgement of what was not sent");
    }
    client->counts.accepted += msg.accepted;
    client->counts.known += msg.known;
    if (msg.refused_idx >= 0) {
        keep_task_refusal(client, frame, &msg);
    }
    release_unacked(client, frame);
    return SL_OK;
}

/* A whole submit frame refused: it is the answer to the oldest one. */
static enum sl_err take_submit_error(struct sl_client *client, struct sl_span payload)
{
    struct sl_client_unacked *oldest = find_oldest(client);
    enum sl_err err = sl_client_take_error(client, payload);

    if (err == SL_ERR_PROTOCOL || oldest == NULL) {
        sl_os_close(&client->link.fd);
        return err;
    }
    keep_refusal(client, err, client->link.fault.text);
    release_unacked(client, oldest);
    return SL_OK;
}

static enum sl_err take_submit_answer(struct sl_client *client, const struct sl_link_frame *frame)
{
    if (frame->type == SL_FRAME_SUBMITTED) {
        return take_submitted(client, frame->payload);
    }
    if (frame->type == SL_FRAME_ERROR) {
        return take_submit_error(client, frame->payload);
    }
    return sl_client_break(client, sl_frame_name(frame->type));
}

/* A broker that refused and then hung up is one that refused: its reason goes first. */
static enum sl_err prefer_refusal(struct sl_client *client, enum sl_err err)
{
    if (err != SL_ERR_UNREACHABLE || client->refusal == SL_OK) {
        return err;
    }
    client->link.fault = client->refusal_fault;
    return client->refusal;
}

/* Takes the answers that are there. SL_ERR_AGAIN is turned into SL_OK: none is no failure. */
static enum sl_err take_submit_answers(struct sl_client *client)
{
    for (;;) {
        struct sl_link_frame frame;
        enum sl_err err = sl_link_take(&client->link, &frame);
        if (err == SL_OK) {
            err = take_submit_answer(client, &frame);
        }
        if (err != SL_OK) {
            return err == SL_ERR_AGAIN ? SL_OK : prefer_refusal(client, err);
        }
    }
}

/* Waits until at most `count_max` frames are unanswered. */
static enum sl_err await_submit_answers(struct sl_client *client, uint32_t count_max)
{
    while (client->unacked_count > count_max) {
        struct sl_link_frame frame;
        enum sl_err err =
            sl_link_receive(&client->link, sl_client_due_s(SL_CLIENT_ANSWER_TIMEOUT_S), &frame);
        if (err == SL_ERR_AGAIN) {
            return sl_link_break(&client->link, SL_ERR_UNREACHABLE,
                                 "the broker has not answered for %d s",
                                 SL_CLIENT_ANSWER_TIMEOUT_S);
        }
        if (err == SL_OK) {
            err = take_submit_answer(client, &frame);
        }
        if (err != SL_OK) {
            return prefer_refusal(client, err);
        }
    }
    return SL_OK;
}

/* ---- sending --------------------------------------------------------------------------------- */

/* The peer takes no more: its last words, if any, say why; the end of its bytes breaks the link. */
static enum sl_err hear_last_words(struct sl_client *client)
{
    enum sl_err err = take_submit_answers(client);

    if (err == SL_OK && client->refusal != SL_OK) {
        err = client->refusal;
        client->link.fault = client->refusal_fault;
    }
    sl_os_close(&client->link.fd);
    return err != SL_OK ? err : SL_ERR_UNREACHABLE;
}

enum sl_err sl_client_send(struct sl_client *client, struct sl_span bytes)
{
    while (bytes.len > 0) {
        size_t before = bytes.len;
        enum sl_err err = sl_link_send_some(&client->link, &bytes);
        if (err != SL_OK) {
            return hear_last_words(client);
        }
        if (bytes.len == before) {
            err = sl_link_wait(&client->link, true, sl_client_due_s(SL_CLIENT_ANSWER_TIMEOUT_S));
            err = err == SL_OK ? take_submit_answers(client) : err;
        }
        if (err == SL_ERR_AGAIN) {
            return sl_link_break(&client->link, SL_ERR_UNREACHABLE,
                                 "the broker has not read for %d s", SL_CLIENT_ANSWER_TIMEOUT_S);
        }
        if (err != SL_OK) {
            return err;
        }
    }
    return SL_OK;
}

/* A stop wish is seen between two frames even when nothing ever has to wait. */
static enum sl_err look_at_stop(struct sl_client *client)
{
    if (client->link.stop_fd < 0) {
        return SL_OK;
    }
    enum sl_err err = sl_link_wait(&client->link, false, 0);
    return err == SL_ERR_AGAIN ? SL_OK : err;
}

/* Forgets the frame being filled. */
static void drop_frame(struct sl_client *client)
{
    release_unacked(client, client->filling);
    client->filling = NULL;
}

/* Sends the frame that was filled, once fewer than SL_FRAMES_UNACKED_MAX are on their way. */
static enum sl_err send_filled(struct sl_client *client)
{
    if (!client->is_building) {
        return SL_OK;
    }
    client->is_building = false;
    if (client->builder.count == 0) {
        client->writer.len = 0;
        drop_frame(client);
        return SL_OK;
    }
    enum sl_err err = sl_submit_end(&client->builder);
    SL_ASSERT(err == SL_OK);
    client->filling = NULL;
    err = look_at_stop(client);
    if (err == SL_OK) {
        err = sl_client_send(client, sl_span_of(client->writer.buf, client->writer.len));
    }
    client->writer.len = 0;
    return err == SL_OK ? take_submit_answers(client) : err;
}

static struct sl_client_unacked *find_free(struct sl_client *client)
{
    for (size_t i = 0; i < SL_FRAMES_UNACKED_MAX; i++) {
        if (!client->unacked[i].is_used) {
            return &client->unacked[i];
        }
    }
    SL_UNREACHABLE();
}

/* Begins a submit frame in the writer given. */
static enum sl_err begin_frame(struct sl_client *client, struct sl_wire_writer *writer)
{
    enum sl_err err = await_submit_answers(client, SL_FRAMES_UNACKED_MAX - 1);

    if (err != SL_OK) {
        return err;
    }
    struct sl_client_unacked *frame = find_free(client);
    err = sl_submit_begin(&client->builder, writer, client->next_batch);
    SL_ASSERT(err == SL_OK);
    frame->is_used = true;
    frame->batch = client->next_batch++;
    frame->count = 0;
    client->filling = frame;
    client->unacked_count++;
    return SL_OK;
}

/* ---- submitting ------------------------------------------------------------------------------ */

static void note_added(struct sl_client *client, uint64_t tag)
{
    struct sl_client_unacked *frame = client->filling;

    SL_ASSERT(frame->count < SL_FRAME_TASKS_MAX);
    frame->tags[frame->count++] = tag;
    client->counts.submitted++;
}

static enum sl_err refuse_task(struct sl_client *client)
{
    return sl_link_fail(&client->link, SL_ERR_INPUT,
                        "a name or number of the task is longer or larger than allowed");
}

/* A task that fits no common frame travels alone in a buffer of its own size. */
static enum sl_err submit_large(struct sl_client *client, const struct sl_task_msg *task,
                                uint64_t tag)
{
    size_t size_bytes = task->body.len + TASK_FIELDS_BYTES_MAX + SL_FRAME_HEADER_BYTES;
    struct sl_wire_writer writer;
    char *buf = malloc(size_bytes);

    if (buf == NULL) {
        return sl_link_fail(&client->link, SL_ERR_NO_MEMORY, "no memory for a task of %zu bytes",
                            task->body.len);
    }
    sl_wire_writer_init(&writer, buf, size_bytes);
    enum sl_err err = begin_frame(client, &writer);
    if (err == SL_OK) {
        err = sl_submit_add(&client->builder, task);
        SL_ASSERT(err != SL_ERR_FULL);
    }
    if (err == SL_ERR_INPUT) {
        drop_frame(client);
        err = refuse_task(client);
    }
    if (err == SL_OK) {
        note_added(client, tag);
        err = sl_submit_end(&client->builder);
        SL_ASSERT(err == SL_OK);
        client->filling = NULL;
        err = sl_client_send(client, sl_span_of(writer.buf, writer.len));
    }
    free(buf);
    return err == SL_OK ? take_submit_answers(client) : err;
}

/* Adds the task to the frame being filled, beginning one where there is none. SL_ERR_FULL: it does
 * not fit behind the tasks that are there, or at all. */
static enum sl_err add_to_frame(struct sl_client *client, const struct sl_task_msg *task,
                                uint64_t tag)
{
    if (!client->is_building) {
        enum sl_err err = begin_frame(client, &client->writer);
        if (err != SL_OK) {
            return err;
        }
        client->is_building = true;
    }
    enum sl_err err = sl_submit_add(&client->builder, task);
    if (err == SL_OK) {
        note_added(client, tag);
    }
    return err == SL_ERR_INPUT ? refuse_task(client) : err;
}

static bool is_large(const struct sl_task_msg *task)
{
    return task->body.len > SL_FRAME_BYTES_COMMON - TASK_FIELDS_BYTES_MAX - 64;
}

/* The commonest faults, by name; the encoder checks every bound. */
static enum sl_err check_task(struct sl_client *client, const struct sl_task_msg *task)
{
    if (task->body.len > SL_BODY_BYTES_MAX) {
        return sl_link_fail(&client->link, SL_ERR_BODY_TOO_LARGE, "%s",
                            sl_err_meaning(SL_ERR_BODY_TOO_LARGE));
    }
    if (task->custom_id.len == 0 || task->body.len == 0) {
        return sl_link_fail(&client->link, SL_ERR_INPUT, "a task needs a custom_id and a body");
    }
    if (task->model.len == 0 && task->provider.len == 0) {
        return sl_link_fail(&client->link, SL_ERR_INPUT, "a task needs a model or a provider");
    }
    return SL_OK;
}

/* May tasks be handed in now? */
static enum sl_err check_submitting(struct sl_client *client)
{
    sl_client_check(client);
    if (!client->has_job || client->is_streaming) {
        return sl_link_fail(&client->link, SL_ERR_USAGE, "open a job before handing in tasks");
    }
    if (client->refusal != SL_OK) {
        client->link.fault = client->refusal_fault;
    }
    return client->refusal;
}

/* Adds the task to a common frame, sending the one before where it is full. */
static enum sl_err submit_common(struct sl_client *client, const struct sl_task_msg *task,
                                 uint64_t tag)
{
    enum sl_err err = add_to_frame(client, task, tag);

    if (err == SL_ERR_FULL) {
        err = send_filled(client);
        err = err != SL_OK ? err : add_to_frame(client, task, tag);
        SL_ASSERT(err != SL_ERR_FULL);
    }
    if (err == SL_OK && client->builder.count == SL_FRAME_TASKS_MAX) {
        err = send_filled(client);
    }
    return err;
}

enum sl_err sl_client_submit(struct sl_client *client, const struct sl_task_msg *task, uint64_t tag)
{
    enum sl_err err = check_submitting(client);

    err = err != SL_OK ? err : check_task(client, task);
    if (err != SL_OK) {
        return err;
    }
    if (!is_large(task)) {
        return submit_common(client, task, tag);
    }
    err = send_filled(client);
    return err != SL_OK ? err : submit_large(client, task, tag);
}

enum sl_err sl_client_flush(struct sl_client *client)
{
    enum sl_err err = check_submitting(client);

    if (err == SL_ERR_USAGE) {
        return err;
    }
    /* After a refusal the frame being filled is dropped, but what was sent is still awaited, so
     * that the counts are final. */
    if (err == SL_OK) {
        err = send_filled(client);
    }
    if (client->is_building) {
        client->is_building = false;
        client->writer.len = 0;
        drop_frame(client);
    }
    enum sl_err awaited = await_submit_answers(client, 0);
    if (err == SL_OK) {
        err = awaited;
    }
    return err != SL_OK ? err : check_submitting(client);
}

struct sl_client_counts sl_client_get_counts(const struct sl_client *client)
{
    sl_client_check(client);
    return client->counts;
}

struct sl_task_msg sl_client_task(struct sl_span custom_id, struct sl_span model,
                                  struct sl_span body)
{
    return (struct sl_task_msg){.custom_id = custom_id,
                                .model = model,
                                .body = body,
                                .endpoint = SL_ENDPOINT_CHAT,
                                .priority = SL_PRIORITY_DEFAULT};
}
