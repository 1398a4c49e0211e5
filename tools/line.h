#ifndef SL_TOOLS_LINE_H
#define SL_TOOLS_LINE_H

/*
 * One input line (docs: "Input") to one task: OpenAI's batch line, or the short line with a prompt.
 * Tools only; no I/O, never blocks. One reader per thread, reused from line to line: it allocates
 * only when a line asks for a longer body than any before.
 */

#include "common/err.h"
#include "common/limits.h"
#include "common/wire.h"

/* A line may be this long: the largest body and everything around it. */
#define SL_LINE_BYTES_MAX (SL_BODY_BYTES_MAX + 64 * SL_KIB)

/* What the command line says for lines that do not say it themselves. Borrowed. */
struct sl_line_defaults {
    struct sl_span model;
    struct sl_span provider;
    struct sl_span stage;
    struct sl_span service_id;
    uint32_t priority;
};

struct sl_line_fault {
    size_t column; /* byte of the line, from 1 */
    char reason[256];
};

struct sl_line_reader;

/* NULL: out of memory. `defaults` are borrowed for the reader's life. */
struct sl_line_reader *sl_line_reader_open(const struct sl_line_defaults *defaults);
void sl_line_reader_close(struct sl_line_reader **reader);

/* Reads the line (without its line feed; a carriage return at the end is white space). `number`,
 * from 1, is the id of a task that names none, and says where a byte order mark may stand.
 * SL_OK: *task is filled in, its spans point into the line or the reader and live until the next
 * read; *is_empty: nothing but white space, no task. SL_ERR_INPUT and SL_ERR_BODY_TOO_LARGE: *fault
 * says where and why; SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_line_read(struct sl_line_reader *reader, struct sl_span line,
                                    uint64_t number, struct sl_task_msg *task, bool *is_empty,
                                    struct sl_line_fault *fault);

/* RFC 3339 time ("2026-01-01T00:00:00Z", "…+02:00", fractions) to milliseconds since 1970,
 * positive. False: no such time. */
MUST_CHECK bool sl_line_parse_time(const char *text, int64_t *wall_ms);

#endif
