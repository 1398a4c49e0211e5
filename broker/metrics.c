/*
 * Writes the metrics page: one pass over the counters table, rows of one metric under one head.
 *
 * Runs in the broker's loop thread when somebody asks for /metrics; about 30 lines, some
 * microseconds. Never allocates, never blocks, holds nothing between pages, so nothing of it
 * survives a crash. Knows no task, no prompt and no key: it can only print what is counted.
 *
 * Reports no errors: a page that does not fit is marked full, and the door answers 500 instead of
 * sending half a page, which a scraper would take for the whole.
 */
#include "broker/metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

void sl_metrics_text_init(struct sl_metrics_text *text, char *buf, size_t size)
{
    SL_ASSERT(size > 0);
    *text = (struct sl_metrics_text){.buf = buf, .size = size};
    buf[0] = '\0';
}

void sl_metrics_add(struct sl_metrics_text *text, const char *format, ...)
{
    size_t room = text->size - text->len;
    va_list args;

    if (text->is_full) {
        return;
    }
    va_start(args, format);
    int len = vsnprintf(text->buf + text->len, room, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= room) {
        text->buf[text->len] = '\0';
        text->is_full = true;
        return;
    }
    text->len += (size_t)len;
}

void sl_metrics_add_head(struct sl_metrics_text *text, const char *metric, const char *type,
                         const char *help)
{
    sl_metrics_add(text, "# HELP %s %s\n# TYPE %s %s\n", metric, help, metric, type);
}

void sl_metrics_escape_label(char *out, size_t size, struct sl_span value)
{
    size_t len = 0;

    SL_ASSERT(size > 0);
    for (size_t i = 0; i < value.len; i++) {
        char byte = value.ptr[i];
        bool is_special = byte == '\\' || byte == '"' || byte == '\n';
        if (len + (is_special ? 2 : 1) >= size) {
            break;
        }
        if (is_special) {
            out[len++] = '\\';
        }
        out[len++] = (char)(byte == '\n' ? 'n' : byte);
    }
    out[len] = '\0';
}

static const char *type_name(enum sl_counter_type type)
{
    switch (type) {
    case SL_COUNTER_TYPE_GAUGE:
        return "gauge";
    case SL_COUNTER_TYPE_COUNTER:
    case SL_COUNTER_TYPE_COUNTER_NS:
        return "counter";
    }
    SL_UNREACHABLE();
}

static void add_sample(struct sl_metrics_text *text, const struct sl_counter_row *row,
                       uint64_t value)
{
    const char *open = row->labels[0] != '\0' ? "{" : "";
    const char *close = row->labels[0] != '\0' ? "}" : "";

    sl_metrics_add(text, "%s%s%s%s ", row->metric, open, row->labels, close);
    if (row->type == SL_COUNTER_TYPE_COUNTER_NS) {
        uint64_t second_ns = (uint64_t)SL_NS_PER_S;
        sl_metrics_add(text, "%" PRIu64 ".%09" PRIu64 "\n", value / second_ns, value % second_ns);
    } else {
        sl_metrics_add(text, "%" PRIu64 "\n", value);
    }
}

void sl_metrics_add_counters(struct sl_metrics_text *text, const struct sl_counters *counters)
{
    uint64_t values[SL_COUNTER_COUNT];
    const char *metric = "";
    /* We are the writer's own thread: numbers that do not add up now would be its bug, and each
     * number by itself is still right. */
    enum sl_err ignored = sl_counters_read(counters, values);

    (void)ignored;
    for (size_t i = 0; i < SL_COUNTER_COUNT; i++) {
        const struct sl_counter_row *row = sl_counter_row((enum sl_counter)i);
        if (strcmp(row->metric, metric) != 0) {
            metric = row->metric;
            sl_metrics_add_head(text, metric, type_name(row->type), row->help);
        }
        add_sample(text, row, values[i]);
    }
}
