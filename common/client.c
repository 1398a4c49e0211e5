/*
 * libsluice: connecting, questions, commands, results. The contract is in common/client.h; handing
 * in tasks is in client_submit.c, moving frames in client_link.c.
 *
 * Runs in whatever process embeds it; one thread per client. A question is one frame out and one
 * answer in; only results are a stream. Never prints, never touches a signal, never reconnects.
 * Nothing here survives a crash of the program; what the broker acknowledged does.
 *
 * Reports what the broker refuses with its words, SL_ERR_UNREACHABLE for a lost or silent broker,
 * SL_ERR_PROTOCOL for anything that is no proper answer, SL_ERR_INTERRUPTED from the stop
 * descriptor, and SL_ERR_USAGE for calls in the wrong order.
 */
#include "common/client_inner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/os.h"

#define CLIENT_DEAD UINT32_C(0xDEAD1E47)
#define COMMAND_TIMEOUT_S 900 /* purge and cancel work through every task of a job */
/* Frames of a client other than submit: one or two names. */
#define REQUEST_BYTES_MAX 2048

void sl_client_check(const struct sl_client *client)
{
    SL_ASSERT(client != NULL);
    SL_ASSERT(client->magic == SL_CLIENT_MAGIC);
}

int64_t sl_client_due_s(int64_t seconds)
{
    return sl_time_add(sl_clock_mono_ns(), seconds * SL_NS_PER_S);
}

enum sl_err sl_client_break(struct sl_client *client, const char *what)
{
    return sl_link_break(&client->link, SL_ERR_PROTOCOL,
                         "the broker's answer is not understood: %s", what);
}

/* ---- receiving answers ----------------------------------------------------------------------- */

enum sl_err sl_client_take_error(struct sl_client *client, struct sl_span payload)
{
    struct sl_error_msg msg;
    enum sl_err err = sl_wire_get_error(client->decoder, payload, &msg);

    if (err != SL_OK || msg.err == SL_OK) {
        return sl_client_break(client, "an error without a reason");
    }
    if (msg.message.len == 0) {
        return sl_link_fail(&client->link, msg.err, "%s", sl_err_meaning(msg.err));
    }
    return sl_link_fail(&client->link, msg.err, "%.*s",
                        (int)SL_MIN(msg.message.len, (size_t)SL_MESSAGE_BYTES_MAX),
                        msg.message.ptr);
}

/* Waits for the answer to a request: a frame of the type wanted, or the broker's refusal. */
static enum sl_err await(struct sl_client *client, enum sl_frame_type wanted, int64_t timeout_s,
                         struct sl_span *payload)
{
    struct sl_link_frame frame;
    enum sl_err err = sl_link_receive(&client->link, sl_client_due_s(timeout_s), &frame);

    if (err == SL_ERR_AGAIN) {
        return sl_link_break(&client->link, SL_ERR_UNREACHABLE,
                             "the broker has not answered for %lld s", (long long)timeout_s);
    }
    if (err != SL_OK) {
        return err;
    }
    if (frame.type == SL_FRAME_ERROR) {
        return sl_client_take_error(client, frame.payload);
    }
    if (frame.type != wanted) {
        return sl_client_break(client, sl_frame_name(frame.type));
    }
    *payload = frame.payload;
    return SL_OK;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static enum sl_err say_hello(struct sl_client *client)
{
    char buf[REQUEST_BYTES_MAX];
    struct sl_wire_writer writer;
    struct sl_hello_msg hello = {.version = sl_span_str(SLUICE_VERSION)};
    struct sl_welcome_msg welcome;
    struct sl_span payload;

    sl_wire_writer_init(&writer, buf, sizeof(buf));
    enum sl_err err = sl_wire_put_hello(&writer, &hello);
    SL_ASSERT(err == SL_OK);
    err = sl_client_send(client, sl_span_of(buf, writer.len));
    if (err == SL_OK) {
        err = await(client, SL_FRAME_WELCOME, SL_CLIENT_ANSWER_TIMEOUT_S, &payload);
    }
    if (err != SL_OK) {
        return err;
    }
    if (sl_wire_get_welcome(client->decoder, payload, &welcome) != SL_OK) {
        return sl_client_break(client, "a malformed welcome");
    }
    client->server.pid = welcome.pid;
    client->server.generation = welcome.generation;
    client->server.is_draining = welcome.is_draining;
    snprintf(client->server.version, sizeof(client->server.version), "%.*s",
             (int)SL_MIN(welcome.version.len, sizeof(client->server.version) - 1),
             welcome.version.ptr);
    return SL_OK;
}

static enum sl_err fill_client(struct sl_client *client, int fd)
{
    client->magic = SL_CLIENT_MAGIC;
    enum sl_err err = sl_link_init(&client->link, fd);
    if (err != SL_OK) {
        return err;
    }
    client->decoder = sl_wire_decoder_open();
    char *buf = malloc(SL_FRAME_BYTES_COMMON);
    if (client->decoder == NULL || buf == NULL) {
        free(buf);
        return SL_ERR_NO_MEMORY;
    }
    sl_wire_writer_init(&client->writer, buf, SL_FRAME_BYTES_COMMON);
    return SL_OK;
}

static enum sl_err connect_to(const char *socket_path, int *fd, struct sl_client_fault *fault)
{
    enum sl_err err = sl_os_connect_unix(socket_path, fd);

    if (err == SL_ERR_UNREACHABLE) {
        snprintf(fault->text, sizeof(fault->text), "no broker answers on %.*s",
                 SL_PATH_BYTES_MAX / 2, socket_path);
    } else if (err != SL_OK) {
        snprintf(fault->text, sizeof(fault->text), "cannot connect to %.*s: %s",
                 SL_PATH_BYTES_MAX / 2, socket_path, strerror(errno));
    }
    return err;
}

enum sl_err sl_client_open(const char *socket_path, struct sl_client **out,
                           struct sl_client_fault *fault)
{
    int fd = -1;

    SL_ASSERT(socket_path != NULL);
    enum sl_err err = connect_to(socket_path, &fd, fault);
    if (err != SL_OK) {
        return err;
    }
    struct sl_client *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        sl_os_close(&fd);
        err = SL_ERR_NO_MEMORY;
    } else {
        err = fill_client(client, fd);
    }
    if (err != SL_OK) {
        snprintf(fault->text, sizeof(fault->text), "%s", sl_err_meaning(err));
        sl_client_close(&client);
        return err;
    }
    err = say_hello(client);
    if (err != SL_OK) {
        *fault = client->link.fault;
        sl_client_close(&client);
        return err;
    }
    *out = client;
    return SL_OK;
}

void sl_client_close(struct sl_client **client)
{
    if (*client == NULL) {
        return;
    }
    sl_client_check(*client);
    (*client)->magic = CLIENT_DEAD;
    sl_link_fini(&(*client)->link);
    sl_wire_decoder_close(&(*client)->decoder);
    free((*client)->writer.buf);
    free(*client);
    *client = NULL;
}

const char *sl_client_message(const struct sl_client *client)
{
    sl_client_check(client);
    return client->link.fault.text;
}

struct sl_client_server sl_client_get_server(const struct sl_client *client)
{
    sl_client_check(client);
    return client->server;
}

int sl_client_fd(const struct sl_client *client)
{
    sl_client_check(client);
    return client->link.fd;
}

void sl_client_set_stop_fd(struct sl_client *client, int fd)
{
    sl_client_check(client);
    client->link.stop_fd = fd;
}

/* ---- questions ------------------------------------------------------------------------------- */

/* May a question be asked now? Tasks still buffered must be flushed first: their acknowledgements
 * would be taken for the answer. */
static enum sl_err check_idle(struct sl_client *client)
{
    sl_client_check(client);
    if (client->is_streaming) {
        return sl_link_fail(&client->link, SL_ERR_USAGE, "the stream of results has not ended yet");
    }
    if (client->unacked_count > 0) {
        return sl_link_fail(&client->link, SL_ERR_USAGE, "flush the tasks handed in first");
    }
    return SL_OK;
}

static enum sl_err check_name(struct sl_client *client, struct sl_span name)
{
    if (name.len > SL_NAME_BYTES_MAX || (name.len > 0 && memchr(name.ptr, 0, name.len) != NULL)) {
        return sl_link_fail(&client->link, SL_ERR_INPUT, "a name is longer than %d bytes",
                            SL_NAME_BYTES_MAX);
    }
    return check_idle(client);
}

/* Sends a frame that names one thing, or an empty one (has_name false), and awaits the answer. */
struct question {
    enum sl_frame_type type;
    bool has_name;
    struct sl_span name;
    enum sl_frame_type wanted;
    int64_t timeout_s;
};

static enum sl_err ask(struct sl_client *client, const struct question *question,
                       struct sl_span *payload)
{
    char buf[REQUEST_BYTES_MAX];
    struct sl_wire_writer writer;
    enum sl_err err = check_name(client, question->name);

    if (err != SL_OK) {
        return err;
    }
    sl_wire_writer_init(&writer, buf, sizeof(buf));
    if (question->has_name) {
        err = sl_wire_put_name(&writer, question->type, question->name);
    } else {
        err = sl_wire_put_empty(&writer, question->type);
    }
    SL_ASSERT(err == SL_OK);
    err = sl_client_send(client, sl_span_of(buf, writer.len));
    return err != SL_OK ? err : await(client, question->wanted, question->timeout_s, payload);
}

static void fill_job(struct sl_client_job *job, const struct sl_job_msg *msg)
{
    bool fits = sl_span_copy_str(job->name, sizeof(job->name), msg->name);

    SL_ASSERT(fits);
    job->number = msg->job;
    job->total = msg->total;
    job->completed = msg->completed;
    job->failed = msg->failed;
    job->cancelled = msg->cancelled;
    job->expired = msg->expired;
}

/* A job opened: what was counted for the one before is forgotten. */
static void begin_job(struct sl_client *client)
{
    client->has_job = true;
    client->refusal = SL_OK;
    memset(&client->counts, 0, sizeof(client->counts));
}

enum sl_err sl_client_open_job(struct sl_client *client, struct sl_span name, bool may_create,
                               struct sl_client_job *out)
{
    char buf[REQUEST_BYTES_MAX];
    struct sl_wire_writer writer;
    struct sl_open_job_msg msg = {.name = name, .may_create = may_create};
    struct sl_job_msg answer;
    struct sl_span payload;
    enum sl_err err = check_name(client, name);

    if (err != SL_OK) {
        return err;
    }
    sl_wire_writer_init(&writer, buf, sizeof(buf));
    err = sl_wire_put_open_job(&writer, &msg);
    SL_ASSERT(err == SL_OK);
    err = sl_client_send(client, sl_span_of(buf, writer.len));
    if (err == SL_OK) {
        err = await(client, SL_FRAME_JOB, SL_CLIENT_ANSWER_TIMEOUT_S, &payload);
    }
    if (err != SL_OK) {
        return err;
    }
    if (sl_wire_get_job(client->decoder, payload, &answer) != SL_OK ||
        answer.name.len > SL_NAME_BYTES_MAX) {
        return sl_client_break(client, "a malformed job");
    }
    fill_job(out, &answer);
    begin_job(client);
    return SL_OK;
}

struct visitor {
    void (*visit)(void *ctx, const struct sl_doc_value *value);
    void *ctx;
};

static enum sl_err ask_document(struct sl_client *client, const struct question *question,
                                struct visitor visitor)
{
    struct sl_span payload;
    enum sl_err err = ask(client, question, &payload);

    if (err != SL_OK) {
        return err;
    }
    err = sl_wire_walk_document(client->decoder, payload, visitor.visit, visitor.ctx);
    return err == SL_OK ? SL_OK : sl_client_break(client, "a malformed document");
}

enum sl_err sl_client_status(struct sl_client *client, struct sl_span job,
                             void (*visit)(void *ctx, const struct sl_doc_value *value), void *ctx)
{
    struct question question = {.type = SL_FRAME_STATUS,
                                .has_name = true,
                                .name = job,
                                .wanted = SL_FRAME_DOCUMENT,
                                .timeout_s = SL_CLIENT_ANSWER_TIMEOUT_S};

    return ask_document(client, &question, (struct visitor){visit, ctx});
}

enum sl_err sl_client_jobs(struct sl_client *client,
                           void (*visit)(void *ctx, const struct sl_doc_value *value), void *ctx)
{
    struct question question = {.type = SL_FRAME_JOBS,
                                .wanted = SL_FRAME_DOCUMENT,
                                .timeout_s = SL_CLIENT_ANSWER_TIMEOUT_S};

    return ask_document(client, &question, (struct visitor){visit, ctx});
}

enum sl_err sl_client_show(struct sl_client *client, struct sl_span task,
                           void (*visit)(void *ctx, const struct sl_doc_value *value), void *ctx)
{
    struct question question = {.type = SL_FRAME_SHOW,
                                .has_name = true,
                                .name = task,
                                .wanted = SL_FRAME_DOCUMENT,
                                .timeout_s = SL_CLIENT_ANSWER_TIMEOUT_S};

    return ask_document(client, &question, (struct visitor){visit, ctx});
}

/* ---- commands -------------------------------------------------------------------------------- */

static enum sl_err command(struct sl_client *client, const struct question *question,
                           uint64_t *count)
{
    struct sl_span payload;
    enum sl_err err = ask(client, question, &payload);

    if (err != SL_OK) {
        return err;
    }
    err = sl_wire_get_count(client->decoder, payload, count);
    return err == SL_OK ? SL_OK : sl_client_break(client, "a malformed count");
}

enum sl_err sl_client_cancel(struct sl_client *client, struct sl_span name, uint64_t *count)
{
    struct question question = {.type = SL_FRAME_CANCEL,
                                .has_name = true,
                                .name = name,
                                .wanted = SL_FRAME_DONE,
                                .timeout_s = COMMAND_TIMEOUT_S};

    return command(client, &question, count);
}

enum sl_err sl_client_purge(struct sl_client *client, struct sl_span job, uint64_t *count)
{
    struct question question = {.type = SL_FRAME_PURGE,
                                .has_name = true,
                                .name = job,
                                .wanted = SL_FRAME_DONE,
                                .timeout_s = COMMAND_TIMEOUT_S};

    return command(client, &question, count);
}

enum sl_err sl_client_drain(struct sl_client *client, uint64_t *count)
{
    struct question question = {
        .type = SL_FRAME_DRAIN, .wanted = SL_FRAME_DONE, .timeout_s = COMMAND_TIMEOUT_S};

    return command(client, &question, count);
}

/* ---- results --------------------------------------------------------------------------------- */

enum sl_err sl_client_results(struct sl_client *client, struct sl_span job,
                              enum sl_results_order order, bool must_follow, uint64_t cursor)
{
    char buf[REQUEST_BYTES_MAX];
    struct sl_wire_writer writer;
    struct sl_results_msg msg = {
        .job = job, .order = order, .must_follow = must_follow, .cursor = cursor};
    enum sl_err err = check_name(client, job);

    if (err != SL_OK) {
        return err;
    }
    sl_wire_writer_init(&writer, buf, sizeof(buf));
    err = sl_wire_put_results(&writer, &msg);
    SL_ASSERT(err == SL_OK);
    err = sl_client_send(client, sl_span_of(buf, writer.len));
    client->is_streaming = err == SL_OK;
    return err;
}

static enum sl_err take_result_frame(struct sl_client *client, const struct sl_link_frame *frame,
                                     const struct sl_result_msg **out)
{
    if (frame->type == SL_FRAME_ERROR) {
        client->is_streaming = false;
        return sl_client_take_error(client, frame->payload);
    }
    if (frame->type == SL_FRAME_RESULTS_END) {
        client->is_streaming = false;
        *out = NULL;
        return SL_OK;
    }
    if (frame->type != SL_FRAME_RESULT) {
        return sl_client_break(client, sl_frame_name(frame->type));
    }
    if (sl_wire_get_result(client->decoder, frame->payload, &client->result) != SL_OK) {
        return sl_client_break(client, "a malformed result");
    }
    *out = &client->result;
    return SL_OK;
}

enum sl_err sl_client_next(struct sl_client *client, int timeout_ms,
                           const struct sl_result_msg **out)
{
    struct sl_link_frame frame;

    sl_client_check(client);
    if (!client->is_streaming) {
        return sl_link_fail(&client->link, SL_ERR_USAGE, "no stream of results was asked for");
    }
    enum sl_err err = sl_link_take(&client->link, &frame);
    if (err == SL_ERR_AGAIN && timeout_ms != 0) {
        int64_t due_ns = timeout_ms < 0
                             ? SL_LINK_FOREVER
                             : sl_time_add(sl_clock_mono_ns(), timeout_ms * SL_NS_PER_MS);
        err = sl_link_receive(&client->link, due_ns, &frame);
    }
    return err != SL_OK ? err : take_result_frame(client, &frame, out);
}
