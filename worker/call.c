/*
 * The calls a worker holds: a pool of them, and a hash table by (task, attempt) for cancellations
 * and for the report to the next broker.
 *
 * Runs in a worker. Never talks to anybody. Nothing of it survives the worker: the broker's lease
 * records do. The pool keeps small buffers from call to call, so that a busy worker allocates
 * nothing; large ones go back to the heap at once.
 *
 * Errors: SL_ERR_NO_MEMORY, and SL_ERR_PROTOCOL for an attempt that is handed out twice.
 */
#include "worker/call.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/wire.h"

#define BUCKETS 16384                /* power of two; calls in flight are at most a few thousand */
#define POOLED_MAX 4096              /* blank calls kept; more go back to the heap */
#define KEPT_BYTES_MAX (16 * SL_KIB) /* buffer a blank call may keep */
#define REQUEST_BYTES_MIN (2 * SL_KIB) /* first allocation of a request */

struct sl_calls {
    struct sl_call_list blank;
    size_t blank_count;
    size_t count;
    size_t answer_bytes;
    struct sl_call *buckets[BUCKETS];
};

static size_t bucket_of(uint64_t task, uint32_t attempt)
{
    uint64_t mixed = (task ^ (uint64_t)attempt << 56) * UINT64_C(0x9e3779b97f4a7c15);

    return (size_t)(mixed >> 40) & (BUCKETS - 1);
}

struct sl_calls *sl_calls_open(void)
{
    struct sl_calls *calls = calloc(1, sizeof(*calls));

    if (calls != NULL) {
        TAILQ_INIT(&calls->blank);
    }
    return calls;
}

static void free_call(struct sl_call *call)
{
    free(call->request);
    free(call->answer.body);
    free(call);
}

void sl_calls_close(struct sl_calls **calls)
{
    if (*calls == NULL) {
        return;
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        while ((*calls)->buckets[i] != NULL) {
            struct sl_call *call = (*calls)->buckets[i];
            (*calls)->buckets[i] = call->hash_next;
            free_call(call);
        }
    }
    while (!TAILQ_EMPTY(&(*calls)->blank)) {
        struct sl_call *call = TAILQ_FIRST(&(*calls)->blank);
        TAILQ_REMOVE(&(*calls)->blank, call, link);
        free_call(call);
    }
    free(*calls);
    *calls = NULL;
}

static struct sl_call *take_blank(struct sl_calls *calls)
{
    struct sl_call *call = TAILQ_FIRST(&calls->blank);

    if (call == NULL) {
        return calloc(1, sizeof(*call));
    }
    TAILQ_REMOVE(&calls->blank, call, link);
    calls->blank_count--;
    return call;
}

static void give_blank(struct sl_calls *calls, struct sl_call *call)
{
    if (calls->blank_count >= POOLED_MAX) {
        free_call(call);
        return;
    }
    call->state = SL_CALL_BLANK;
    TAILQ_INSERT_HEAD(&calls->blank, call, link);
    calls->blank_count++;
}

static bool make_request_room(struct sl_call *call, size_t bytes)
{
    if (bytes <= call->request_size) {
        return true;
    }
    size_t size = SL_MAX(bytes, REQUEST_BYTES_MIN);
    char *buffer = malloc(size);
    if (buffer == NULL) {
        return false;
    }
    free(call->request);
    call->request = buffer;
    call->request_size = size;
    return true;
}

/* Everything but the two kept buffers starts anew; the texts only need their first byte. */
static void clear_answer(struct sl_answer *answer)
{
    answer->transport = SL_OK;
    answer->http_status = 0;
    answer->is_sent = false;
    answer->call_ns = 0;
    answer->first_byte_ns = 0;
    answer->body_bytes = 0;
    answer->request_id[0] = '\0';
    answer->retry_after[0] = '\0';
    answer->retry_after_ms[0] = '\0';
    answer->should_retry[0] = '\0';
    answer->message[0] = '\0';
}

enum sl_err sl_calls_add(struct sl_calls *calls, const struct sl_work_msg *work,
                         struct sl_call **out)
{
    if (sl_calls_find(calls, work->task, work->attempt) != NULL) {
        return SL_ERR_PROTOCOL;
    }
    struct sl_call *call = take_blank(calls);
    if (call == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    if (!make_request_room(call, work->body_bytes)) {
        give_blank(calls, call);
        return SL_ERR_NO_MEMORY;
    }
    call->task = work->task;
    call->attempt = work->attempt;
    call->timeout_ms = work->timeout_ms;
    call->endpoint = (enum sl_endpoint)work->endpoint;
    call->request_bytes = work->body_bytes;
    clear_answer(&call->answer);
    call->result = (struct sl_result_msg_shm){.task = work->task, .attempt = work->attempt};

    struct sl_call **bucket = &calls->buckets[bucket_of(work->task, work->attempt)];
    call->hash_next = *bucket;
    *bucket = call;
    calls->count++;
    *out = call;
    return SL_OK;
}

struct sl_call *sl_calls_find(const struct sl_calls *calls, uint64_t task, uint32_t attempt)
{
    struct sl_call *call = calls->buckets[bucket_of(task, attempt)];

    while (call != NULL && (call->task != task || call->attempt != attempt)) {
        call = call->hash_next;
    }
    return call;
}

void sl_call_drop_request(struct sl_call *call)
{
    call->request_bytes = 0;
    if (call->request_size > KEPT_BYTES_MAX) {
        free(call->request);
        call->request = NULL;
        call->request_size = 0;
    }
}

void sl_calls_remove(struct sl_calls *calls, struct sl_call *call)
{
    struct sl_call **at = &calls->buckets[bucket_of(call->task, call->attempt)];

    SL_ASSERT(call->transfer == NULL);
    SL_ASSERT(call->provider == NULL);
    while (*at != call) {
        SL_ASSERT(*at != NULL);
        at = &(*at)->hash_next;
    }
    *at = call->hash_next;
    SL_ASSERT(calls->count > 0);
    calls->count--;
    if (call->state == SL_CALL_FINISHED) {
        calls->answer_bytes -= call->answer.body_bytes;
    }
    sl_call_drop_request(call);
    if (call->answer.body_size > KEPT_BYTES_MAX) {
        free(call->answer.body);
        call->answer.body = NULL;
        call->answer.body_size = 0;
    }
    give_blank(calls, call);
}

size_t sl_calls_count(const struct sl_calls *calls)
{
    return calls->count;
}

size_t sl_calls_answer_bytes(const struct sl_calls *calls)
{
    return calls->answer_bytes;
}

void sl_calls_note_answer(struct sl_calls *calls, const struct sl_call *call)
{
    SL_ASSERT(call->state == SL_CALL_FINISHED);
    calls->answer_bytes += call->answer.body_bytes;
}

void sl_calls_list_held(const struct sl_calls *calls, struct sl_held_call *held)
{
    size_t count = 0;

    for (size_t i = 0; i < BUCKETS; i++) {
        for (const struct sl_call *call = calls->buckets[i]; call != NULL; call = call->hash_next) {
            held[count++] = (struct sl_held_call){
                .task = call->task, .attempt = call->attempt, .generation = call->generation};
        }
    }
    SL_ASSERT(count == calls->count);
}
