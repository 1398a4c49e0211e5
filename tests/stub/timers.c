/*
 * The heap of the stub's timers: see timers.h.
 *
 * Runs in sluice-stub only, one heap per event loop. It reads no clock: times come as arguments. It
 * never owns what a timer is embedded in; whoever frees that cancels first. Out of memory: one line
 * on stderr, status 5. Nothing survives the process.
 */
#include "tests/stub/timers.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"

#define TIMERS_MIN 256

static void place(struct sl_stub_timers *timers, struct sl_stub_timer *timer, size_t idx)
{
    timers->heap[idx] = timer;
    timer->idx = idx;
}

static void sift_up(struct sl_stub_timers *timers, struct sl_stub_timer *timer, size_t idx)
{
    while (idx > 0 && timers->heap[(idx - 1) / 2]->due_ns > timer->due_ns) {
        place(timers, timers->heap[(idx - 1) / 2], idx);
        idx = (idx - 1) / 2;
    }
    place(timers, timer, idx);
}

static void sift_down(struct sl_stub_timers *timers, struct sl_stub_timer *timer, size_t idx)
{
    for (size_t child = 2 * idx + 1; child < timers->count; child = 2 * idx + 1) {
        if (child + 1 < timers->count &&
            timers->heap[child + 1]->due_ns < timers->heap[child]->due_ns) {
            child++;
        }
        if (timers->heap[child]->due_ns >= timer->due_ns) {
            break;
        }
        place(timers, timers->heap[child], idx);
        idx = child;
    }
    place(timers, timer, idx);
}

static void make_room(struct sl_stub_timers *timers)
{
    if (timers->count < timers->size) {
        return;
    }
    size_t size = SL_MAX(timers->size * 2, (size_t)TIMERS_MIN);
    struct sl_stub_timer **heap = realloc(timers->heap, size * sizeof(struct sl_stub_timer *));
    if (heap == NULL) {
        fprintf(stderr, "sluice-stub: out of memory for %zu timers\n", size);
        exit(sl_err_exit_status(SL_ERR_INTERNAL));
    }
    timers->heap = heap;
    timers->size = size;
}

void sl_stub_timers_set(struct sl_stub_timers *timers, struct sl_stub_timer *timer, int64_t due_ns)
{
    sl_stub_timers_cancel(timers, timer);
    make_room(timers);
    timer->due_ns = due_ns;
    sift_up(timers, timer, timers->count++);
}

void sl_stub_timers_cancel(struct sl_stub_timers *timers, struct sl_stub_timer *timer)
{
    size_t idx = timer->idx;

    if (idx == SL_STUB_TIMER_IDLE) {
        return;
    }
    SL_ASSERT(idx < timers->count && timers->heap[idx] == timer);
    timer->idx = SL_STUB_TIMER_IDLE;
    struct sl_stub_timer *last = timers->heap[--timers->count];
    if (last == timer) {
        return;
    }
    if (idx > 0 && timers->heap[(idx - 1) / 2]->due_ns > last->due_ns) {
        sift_up(timers, last, idx);
    } else {
        sift_down(timers, last, idx);
    }
}

struct sl_stub_timer *sl_stub_timers_take_due(struct sl_stub_timers *timers, int64_t now_ns)
{
    if (timers->count == 0 || timers->heap[0]->due_ns > now_ns) {
        return NULL;
    }
    struct sl_stub_timer *timer = timers->heap[0];
    sl_stub_timers_cancel(timers, timer);
    return timer;
}

int64_t sl_stub_timers_next_ns(const struct sl_stub_timers *timers)
{
    return timers->count > 0 ? timers->heap[0]->due_ns : INT64_MAX;
}

void sl_stub_timers_fini(struct sl_stub_timers *timers)
{
    free(timers->heap);
    memset(timers, 0, sizeof(*timers));
}
