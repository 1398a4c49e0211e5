#ifndef SL_COMMON_LOG_H
#define SL_COMMON_LOG_H

/*
 * Logs: one record a line on stderr, `key=value`, the event from common/tbl/events.def. Never
 * prompts, answers, keys or header values: log lengths and names. Any process, any thread; a line
 * is one write, so lines of different processes do not mix; may block only where stderr does.
 */

#include "common/base.h"

enum sl_log_level { SL_LOG_ERROR, SL_LOG_WARN, SL_LOG_INFO, SL_LOG_DEBUG };

enum sl_event {
#define X(name, text, level, meaning) SL_EVENT_##name,
#include "common/tbl/events.def"
#undef X
    SL_EVENT_COUNT
};

/* Sets the program name that opens each record (borrowed for ever) and the level. Until called:
 * "sluice", info. Main thread, before others start; the level may be set again later. */
void sl_log_init(const char *program, enum sl_log_level level);
void sl_log_set_level(enum sl_log_level level);

/* "error" | "warn" | "info" | "debug"; false when it is none of them. */
MUST_CHECK bool sl_log_level_parse(const char *text, enum sl_log_level *out);
const char *sl_log_level_name(enum sl_log_level level);

/* Writes one record: program, pid, level and event first, then the formatted `key=value` text.
 * Control characters in it are written as '?'. Cut at 1 KiB. */
void sl_log(enum sl_event event, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
