#ifndef SL_TESTS_STUB_TIMERS_H
#define SL_TESTS_STUB_TIMERS_H

/*
 * Timers of one event loop: a binary heap that knows where each timer stands, so that setting and
 * cancelling cost log n whatever the order. A timer is embedded in what it wakes.
 *
 * Stub only; one thread; allocates only when there are more timers at once than ever before.
 */

#include "common/base.h"

#define SL_STUB_TIMER_IDLE SIZE_MAX

struct sl_stub_timer {
    int64_t due_ns;
    size_t idx; /* place in the heap; SL_STUB_TIMER_IDLE: not set */
};

struct sl_stub_timers {
    struct sl_stub_timer **heap;
    size_t count;
    size_t size;
};

static inline void sl_stub_timer_init(struct sl_stub_timer *timer)
{
    timer->idx = SL_STUB_TIMER_IDLE;
}

/* Sets it (anew). Out of memory ends the program, status 5. */
void sl_stub_timers_set(struct sl_stub_timers *timers, struct sl_stub_timer *timer, int64_t due_ns);
void sl_stub_timers_cancel(struct sl_stub_timers *timers, struct sl_stub_timer *timer);
/* Takes one that is due at `now_ns` out; NULL: none. */
struct sl_stub_timer *sl_stub_timers_take_due(struct sl_stub_timers *timers, int64_t now_ns);
/* When the first is due; INT64_MAX: none is set. */
int64_t sl_stub_timers_next_ns(const struct sl_stub_timers *timers);
void sl_stub_timers_fini(struct sl_stub_timers *timers);

#endif
