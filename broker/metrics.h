#ifndef SL_BROKER_METRICS_H
#define SL_BROKER_METRICS_H

/*
 * The page for Prometheus (text format 0.0.4), written into a bounded buffer straight from
 * common/tbl/counters.def. Pure but for reading the counters; never allocates, never blocks.
 */

#include "common/base.h"
#include "common/counters.h"

struct sl_metrics_text {
    char *buf; /* borrowed; NUL-terminated after each call */
    size_t size;
    size_t len;
    bool is_full; /* something did not fit; nothing is added any more, and the page is void */
};

/* `size` is at least 1 (asserted). */
void sl_metrics_text_init(struct sl_metrics_text *text, char *buf, size_t size);

/* Adds formatted text, all of it or nothing. */
void sl_metrics_add(struct sl_metrics_text *text, const char *format, ...) PRINTF_LIKE(2, 3);

/* Adds the two lines that open a metric: # HELP and # TYPE. */
void sl_metrics_add_head(struct sl_metrics_text *text, const char *metric, const char *type,
                         const char *help);

/* Writes `value` into out as the inside of a label's quotes: backslash, quote and line feed are
 * escaped. Cut at a whole character of the escaping when it does not fit; always NUL-terminated.
 * For names from configuration or clients (already checked to be UTF-8). */
void sl_metrics_escape_label(char *out, size_t size, struct sl_span value);

/* Adds every row of the counters table. */
void sl_metrics_add_counters(struct sl_metrics_text *text, const struct sl_counters *counters);

#endif
