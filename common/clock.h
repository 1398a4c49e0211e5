#ifndef SL_COMMON_CLOCK_H
#define SL_COMMON_CLOCK_H

/*
 * The only reader of clocks. Durations and timers use the monotonic clock, deadlines the wall clock
 * (named *_wall). A loop reads both once per turn and passes them to everything it calls.
 * Any process; never blocks.
 */

#include "common/base.h"

struct sl_now {
    int64_t mono_ns; /* CLOCK_MONOTONIC: since boot, never jumps */
    int64_t wall_ns; /* CLOCK_REALTIME: since 1970, may jump */
};

struct sl_now sl_clock_now(void);
int64_t sl_clock_mono_ns(void);

/* Processor time used by the calling process, user and system, in nanoseconds. */
int64_t sl_clock_cpu_ns(void);

/* a + b and a - b, saturating at the ends of int64. */
int64_t sl_time_add(int64_t a_ns, int64_t b_ns);

/* Milliseconds until `due_ns` for epoll_wait, rounded up, 0 when due, at most `max_ms`. */
int sl_time_left_ms(int64_t due_ns, int64_t now_ns, int max_ms);

/* Writes wall time as RFC 3339 UTC with milliseconds ("2026-01-02T03:04:05.678Z", 24 bytes + NUL).
 */
void sl_time_format(int64_t wall_ns, char text[25]);

#endif
