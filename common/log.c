/*
 * The log door: formats one record into a stack buffer and writes it with one system call.
 *
 * Never allocates, never takes a lock, never formats a secret (no caller has one to give: keys live
 * in worker/keys alone). An error of write() is ignored: a log must not take the service down.
 */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"

#define RECORD_BYTES_MAX 1024 /* under PIPE_BUF: one write stays one line */

static const char *program_name = "sluice";
static _Atomic int level_max = SL_LOG_INFO;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static const struct {
    const char *name;
    enum sl_log_level level;
} events[] = {
#define X(name, text, level, meaning) {text, SL_LOG_##level},
#include "common/tbl/events.def"
#undef X
};

void sl_log_init(const char *program, enum sl_log_level level)
{
    program_name = program;
    sl_log_set_level(level);
}

void sl_log_set_level(enum sl_log_level level)
{
    atomic_store_explicit(&level_max, (int)level, memory_order_relaxed);
}

bool sl_log_level_parse(const char *text, enum sl_log_level *out)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *out = (enum sl_log_level)i;
            return true;
        }
    }
    return false;
}

const char *sl_log_level_name(enum sl_log_level level)
{
    return level_names[level];
}

static void make_printable(char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            text[i] = '?';
        }
    }
}

void sl_log(enum sl_event event, const char *format, ...)
{
    if ((int)events[event].level > atomic_load_explicit(&level_max, memory_order_relaxed)) {
        return;
    }
    int saved_errno = errno;
    char record[RECORD_BYTES_MAX];
    char when[25];

    sl_time_format(sl_clock_now().wall_ns, when);
    int head =
        snprintf(record, sizeof(record), "ts=%s prog=%s pid=%d level=%s event=%s ", when,
                 program_name, (int)getpid(), level_names[events[event].level], events[event].name);
    size_t len = head < 0 ? 0 : SL_MIN((size_t)head, sizeof(record) - 1);
    va_list args;
    va_start(args, format);
    int body = vsnprintf(record + len, sizeof(record) - len, format, args);
    va_end(args);
    len = body < 0 ? len : SL_MIN(len + (size_t)body, sizeof(record) - 1);
    make_printable(record, len);
    record[len] = '\n';
    ssize_t ignored = write(STDERR_FILENO, record, len + 1);
    (void)ignored;
    errno = saved_errno;
}
