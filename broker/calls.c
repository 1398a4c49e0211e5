/*
 * The table of tasks under a lease: found by task number, counted by state.
 *
 * Loop thread. All memory is taken at start; the table's size bounds what is armed, in flight and
 * on its way to disk together. Never decides what becomes of a call. Nothing survives a crash:
 * leases do.
 */
#include <stdlib.h>

#include "broker/broker.h"
#include "common/check.h"
#include "common/hash.h"

enum sl_err sl_calls_init(struct sl_calls *calls, size_t size)
{
    size_t buckets = 1024;

    while (buckets < size) {
        buckets *= 2;
    }
    memset(calls, 0, sizeof(*calls));
    calls->all = calloc(size, sizeof(*calls->all));
    calls->buckets = calloc(buckets, sizeof(struct sl_call *));
    if (calls->all == NULL || calls->buckets == NULL) {
        sl_calls_fini(calls);
        return SL_ERR_NO_MEMORY;
    }
    calls->size = size;
    calls->bucket_count = buckets;
    calls->free_count = size;
    return SL_OK;
}

void sl_calls_fini(struct sl_calls *calls)
{
    for (size_t i = 0; i < calls->touched; i++) {
        sl_calls_drop_body(&calls->all[i]);
    }
    free(calls->all);
    free(calls->buckets);
    memset(calls, 0, sizeof(*calls));
}

static struct sl_call **bucket_of(struct sl_calls *calls, uint64_t task)
{
    return &calls->buckets[sl_hash_word(task) & (calls->bucket_count - 1)];
}

/* Memory never used before is taken only when nothing was given back: a small load touches little.
 */
static struct sl_call *take_free(struct sl_calls *calls)
{
    struct sl_call *call = calls->free;

    if (call != NULL) {
        calls->free = call->next;
    } else if (calls->touched < calls->size) {
        call = &calls->all[calls->touched++];
    }
    calls->free_count -= call != NULL;
    return call;
}

struct sl_call *sl_calls_add(struct sl_calls *calls, uint64_t task, enum sl_call_state state)
{
    struct sl_call **bucket = bucket_of(calls, task);

    SL_ASSERT(state != SL_CALL_FREE);
    SL_DEBUG_ASSERT(sl_calls_find(calls, task) == NULL);
    struct sl_call *call = take_free(calls);
    if (call == NULL) {
        return NULL;
    }
    *call = (struct sl_call){.task = task, .state = state, .hash_next = *bucket};
    *bucket = call;
    calls->counts[state]++;
    return call;
}

struct sl_call *sl_calls_find(struct sl_calls *calls, uint64_t task)
{
    for (struct sl_call *call = *bucket_of(calls, task); call != NULL; call = call->hash_next) {
        if (call->task == task) {
            return call;
        }
    }
    return NULL;
}

void sl_calls_set_state(struct sl_calls *calls, struct sl_call *call, enum sl_call_state state)
{
    SL_ASSERT(call->state != SL_CALL_FREE && state != SL_CALL_FREE);
    calls->counts[call->state]--;
    calls->counts[state]++;
    call->state = state;
}

void sl_calls_drop_body(struct sl_call *call)
{
    struct sl_body_batch *batch = call->batch;

    call->batch = NULL;
    if (batch == NULL) {
        return;
    }
    SL_ASSERT(batch->refs > 0);
    if (--batch->refs == 0) {
        free(batch->bytes);
        free(batch);
    }
}

void sl_calls_remove(struct sl_calls *calls, struct sl_call *call)
{
    struct sl_call **at = bucket_of(calls, call->task);

    while (*at != call) {
        SL_ASSERT(*at != NULL);
        at = &(*at)->hash_next;
    }
    *at = call->hash_next;
    calls->counts[call->state]--;
    sl_calls_drop_body(call);
    call->state = SL_CALL_FREE;
    call->next = calls->free;
    calls->free = call;
    calls->free_count++;
}

/* ---- lists ----------------------------------------------------------------------------------- */

void sl_call_list_add(struct sl_call_list *list, struct sl_call *call)
{
    call->next = NULL;
    if (list->last != NULL) {
        list->last->next = call;
    } else {
        list->first = call;
    }
    list->last = call;
    list->count++;
}

struct sl_call *sl_call_list_take(struct sl_call_list *list)
{
    struct sl_call *call = list->first;

    if (call != NULL) {
        list->first = call->next;
        if (list->first == NULL) {
            list->last = NULL;
        }
        list->count--;
        call->next = NULL;
    }
    return call;
}

void sl_call_list_remove(struct sl_call_list *list, struct sl_call *call)
{
    struct sl_call *before = NULL;

    for (struct sl_call *at = list->first; at != call; at = at->next) {
        SL_ASSERT(at != NULL);
        before = at;
    }
    if (before != NULL) {
        before->next = call->next;
    } else {
        list->first = call->next;
    }
    if (list->last == call) {
        list->last = before;
    }
    list->count--;
    call->next = NULL;
}
