/*
 * Results out: an ended call is judged, queued, put into the lane, and kept until the broker has
 * released it there, which it does when the result is on disk.
 *
 * Runs in a worker. Never drops a result: the private copy lives until the release, so a broker
 * that dies before its commit gets it again from the next lane, under the generation of the call.
 * A worker that dies takes unreleased results in its private memory along; those in its lane's ring
 * are the broker's to take.
 *
 * A result too large for the lane goes over the socket in a memfd of its own, a few at a time, and
 * is kept until the broker says, in order, that it is stored.
 */
#include <stdio.h>

#include "common/check.h"
#include "common/log.h"
#include "worker/worker.h"

#define FRAME_BYTES 512

/* ---- judging --------------------------------------------------------------------------------- */

static size_t payload_bytes(const struct sl_call *call)
{
    return call->result.request_id_bytes + call->result.message_bytes +
           (size_t)call->result.body_bytes;
}

/* The request is not needed any more; the answer is, until the broker has it. */
static void enqueue(struct sl_worker *worker, struct sl_call *call, enum sl_err err)
{
    struct sl_result_msg_shm *result = &call->result;

    result->err = (uint16_t)err;
    result->http_status = (uint16_t)call->answer.http_status;
    result->call_ns = call->answer.call_ns;
    result->first_byte_ns = call->answer.first_byte_ns;
    result->request_id_bytes = (uint32_t)strlen(call->answer.request_id);
    result->message_bytes = (uint32_t)strlen(call->answer.message);
    result->body_bytes = call->answer.body_bytes;
    sl_call_drop_request(call);
    sl_provider_take_from(call);
    call->state = SL_CALL_FINISHED;
    sl_calls_note_answer(worker->calls, call);
    worker->finished_count++;
    bool is_large = payload_bytes(call) > SL_LANE_PAYLOAD_BYTES_MAX;
    TAILQ_INSERT_TAIL(is_large ? &worker->large : &worker->finished, call, link);
}

static enum sl_err judge(struct sl_worker *worker, struct sl_call *call)
{
    struct sl_answer *answer = &call->answer;

    if (answer->transport != SL_OK) {
        /* What came of a body is not the provider's answer. */
        answer->body_bytes = 0;
        return answer->transport;
    }
    return call->provider->dialect->read_answer(worker->scanner, call);
}

static void log_call(const struct sl_call *call, enum sl_err err)
{
    char name[SL_TASK_NAME_BYTES];

    sl_task_name_format(call->task, name);
    sl_log(SL_EVENT_CALL_DONE,
           "task=%s attempt=%u gen=%llu provider=%s error=%s status=%u us=%lld body_bytes=%zu",
           name, call->attempt, (unsigned long long)call->generation, call->provider->cfg->name,
           sl_err_code(err), call->answer.http_status, (long long)(call->answer.call_ns / 1000),
           call->answer.body_bytes);
}

void sl_publish_done(struct sl_worker *worker, struct sl_call *call)
{
    struct sl_answer *answer = &call->answer;
    enum sl_err err = judge(worker, call);

    if (err != SL_OK && (answer->retry_after_ms[0] != '\0' || answer->retry_after[0] != '\0')) {
        call->result.retry_after_ms =
            sl_retry_after_parse(answer->retry_after_ms, answer->retry_after, worker->now.wall_ns);
    }
    if (worker->cfg->log_level == SL_LOG_DEBUG) {
        log_call(call, err);
    }
    enqueue(worker, call, err);
}

void sl_publish_unmade(struct sl_worker *worker, struct sl_call *call, enum sl_err why,
                       uint32_t flags)
{
    call->result.flags |= flags;
    enqueue(worker, call, why);
}

/* ---- the lane -------------------------------------------------------------------------------- */

static void release_head(struct sl_worker *worker)
{
    struct sl_call *call = TAILQ_FIRST(&worker->published);

    TAILQ_REMOVE(&worker->published, call, link);
    worker->published_count--;
    sl_calls_remove(worker->calls, call);
}

enum sl_err sl_publish_free_released(struct sl_worker *worker)
{
    uint64_t pending = 0;
    enum sl_err err = sl_ring_pending(&worker->lane->out, &pending);

    if (err != SL_OK) {
        return err;
    }
    while (worker->published_count > pending) {
        release_head(worker);
    }
    return SL_OK;
}

static char *append(char *at, const void *bytes, size_t len)
{
    if (len > 0) {
        memcpy(at, bytes, len);
    }
    return at + len;
}

static enum sl_err put_in_ring(struct sl_worker *worker, const struct sl_call *call)
{
    struct sl_ring_claim claim;
    enum sl_err err = sl_ring_reserve(&worker->lane->out, payload_bytes(call), &claim);

    if (err != SL_OK) {
        return err;
    }
    memcpy(claim.msg, &call->result, sizeof(call->result));
    char *at = append(claim.payload, call->answer.request_id, call->result.request_id_bytes);
    at = append(at, call->answer.message, call->result.message_bytes);
    append(at, call->answer.body, call->answer.body_bytes);
    return SL_OK;
}

static enum sl_err fill_ring(struct sl_worker *worker)
{
    size_t put = 0;
    enum sl_err err = SL_OK;

    while (err == SL_OK && !TAILQ_EMPTY(&worker->finished)) {
        struct sl_call *call = TAILQ_FIRST(&worker->finished);
        err = put_in_ring(worker, call);
        if (err == SL_OK) {
            TAILQ_REMOVE(&worker->finished, call, link);
            worker->finished_count--;
            TAILQ_INSERT_TAIL(&worker->published, call, link);
            worker->published_count++;
            put++;
        }
    }
    if (put > 0) {
        sl_ring_publish(&worker->lane->out);
        sl_bell_ring(&worker->lane->out_bell); /* once for all of them */
    }
    return err == SL_ERR_FULL ? SL_OK : err;
}

/* ---- the socket ------------------------------------------------------------------------------ */

static enum sl_err send_large(struct sl_worker *worker, const struct sl_call *call)
{
    char buffer[FRAME_BYTES];
    struct sl_wire_writer writer;
    int fd = -1;
    const struct sl_span parts[] = {
        sl_span_str(call->answer.request_id),
        sl_span_str(call->answer.message),
        sl_span_of(call->answer.body, call->answer.body_bytes),
    };
    enum sl_err err = sl_shm_large_create(parts, SL_ARRAY_LEN(parts), &fd);

    if (err != SL_OK) {
        return SL_ERR_AGAIN; /* memory or descriptors are short now */
    }
    sl_wire_writer_init(&writer, buffer, sizeof(buffer));
    err = sl_wire_put_slot(&writer, SL_FRAME_LARGE_RESULT, &call->result, sizeof(call->result));
    SL_ASSERT(err == SL_OK);
    return sl_control_send(worker->control, writer.buf, writer.len, fd);
}

static enum sl_err send_all_large(struct sl_worker *worker)
{
    while (worker->large_sent_count < SL_LARGE_UNANSWERED_MAX && !TAILQ_EMPTY(&worker->large)) {
        struct sl_call *call = TAILQ_FIRST(&worker->large);
        enum sl_err err = send_large(worker, call);
        if (err != SL_OK) {
            return err == SL_ERR_AGAIN ? SL_OK : err;
        }
        TAILQ_REMOVE(&worker->large, call, link);
        TAILQ_INSERT_TAIL(&worker->large_sent, call, link);
        worker->large_sent_count++;
    }
    return SL_OK;
}

bool sl_publish_large_stored(struct sl_worker *worker)
{
    struct sl_call *call = TAILQ_FIRST(&worker->large_sent);

    if (call == NULL) {
        return false;
    }
    TAILQ_REMOVE(&worker->large_sent, call, link);
    worker->large_sent_count--;
    worker->finished_count--;
    sl_calls_remove(worker->calls, call);
    return true;
}

/* ---- both ------------------------------------------------------------------------------------ */

void sl_publish_results(struct sl_worker *worker)
{
    if (worker->lane == NULL) {
        return;
    }
    enum sl_err err = sl_publish_free_released(worker);
    if (err == SL_OK) {
        err = fill_ring(worker);
    }
    if (err == SL_OK) {
        err = send_all_large(worker);
    }
    if (err != SL_OK) {
        sl_link_lose(worker, err);
    }
}

void sl_publish_again(struct sl_worker *worker)
{
    /* In front of what has not been published yet: the broker sees them in the order they ended. */
    TAILQ_CONCAT(&worker->published, &worker->finished, link);
    TAILQ_CONCAT(&worker->finished, &worker->published, link);
    worker->finished_count += worker->published_count;
    worker->published_count = 0;
    TAILQ_CONCAT(&worker->large_sent, &worker->large, link);
    TAILQ_CONCAT(&worker->large, &worker->large_sent, link);
    worker->large_sent_count = 0;
}

bool sl_publish_is_blocked(const struct sl_worker *worker)
{
    return !TAILQ_EMPTY(&worker->finished) || !TAILQ_EMPTY(&worker->large);
}
