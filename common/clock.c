/*
 * Clock reading and time arithmetic. The one place that calls clock_gettime.
 *
 * Runs anywhere; never blocks, never allocates. Tests that need a manual clock pass their own
 * struct sl_now: pure code never comes here.
 */
#include "common/clock.h"

#include <stdio.h>
#include <time.h>

#include "common/check.h"

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;
    int rc = clock_gettime(id, &ts);

    SL_ASSERT(rc == 0);
    return (int64_t)ts.tv_sec * SL_NS_PER_S + ts.tv_nsec;
}

struct sl_now sl_clock_now(void)
{
    return (struct sl_now){
        .mono_ns = read_clock(CLOCK_MONOTONIC),
        .wall_ns = read_clock(CLOCK_REALTIME),
    };
}

int64_t sl_clock_mono_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t sl_clock_cpu_ns(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

int64_t sl_time_add(int64_t a_ns, int64_t b_ns)
{
    int64_t sum;

    if (__builtin_add_overflow(a_ns, b_ns, &sum)) {
        return b_ns > 0 ? INT64_MAX : INT64_MIN;
    }
    return sum;
}

int sl_time_left_ms(int64_t due_ns, int64_t now_ns, int max_ms)
{
    if (due_ns <= now_ns) {
        return 0;
    }
    int64_t left_ns = now_ns < 0 && due_ns > INT64_MAX + now_ns ? INT64_MAX : due_ns - now_ns;
    int64_t left_ms = left_ns / SL_NS_PER_MS + (left_ns % SL_NS_PER_MS != 0);

    return left_ms > max_ms ? max_ms : (int)left_ms;
}

void sl_time_format(int64_t wall_ns, char text[25])
{
    time_t seconds = (time_t)(wall_ns / SL_NS_PER_S);
    int millis = (int)(wall_ns % SL_NS_PER_S / SL_NS_PER_MS);
    struct tm tm;

    if (wall_ns < 0 || gmtime_r(&seconds, &tm) == NULL || tm.tm_year > 8099) {
        memcpy(text, "0000-00-00T00:00:00.000Z", 25);
        return;
    }
    char date[21];
    size_t len = strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    SL_ASSERT(len == 19);
    int written = snprintf(text, 25, "%s.%03dZ", date, millis);
    SL_ASSERT(written == 24);
}
