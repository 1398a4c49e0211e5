/*
 * The page of sluice-status: broker, queue, providers, workers, jobs with progress.
 *
 * Runs in sluice-status. Pure: document in, text out. Members that the broker does not send are
 * shown as 0 or empty, so an older or newer broker still gives a page. Names come from users; they
 * are printed without control characters and cut to their column.
 */
#include "tools/status_page.h"

#include <stdarg.h>
#include <stdio.h>

#include "tools/progress.h"

#define LINE_BYTES 512
#define NAME_COLUMN 24
#define BAR_WIDTH 20

PRINTF_LIKE(2, 3)
static void put_format(struct sl_json_text *text, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    sl_json_put_raw(text, sl_span_str(line));
}

/* A text in a column of at least `width` characters, cut with a dot where it is longer. Width is
 * counted in characters, not in bytes. */
static void put_column(struct sl_json_text *text, struct sl_span value, size_t width)
{
    size_t shown = 0;
    size_t at = 0;

    while (at < value.len && shown < width) {
        at++;
        while (at < value.len && ((unsigned char)value.ptr[at] & 0xc0) == 0x80) {
            at++;
        }
        shown++;
    }
    sl_doc_put_plain(text, sl_span_of(value.ptr, at));
    put_format(text, "%*s", (int)(width - shown + 1), at < value.len ? "~" : "");
}

static void put_duration(struct sl_json_text *text, double seconds)
{
    unsigned long long whole = (unsigned long long)SL_MAX(seconds, 0.0);

    if (whole >= 86400) {
        put_format(text, "%llud ", whole / 86400);
    }
    put_format(text, "%llu:%02llu:%02llu", whole / 3600 % 24, whole / 60 % 60, whole % 60);
}

static unsigned long long number(const struct sl_doc *doc, size_t parent, const char *key)
{
    return (unsigned long long)sl_doc_uint(doc, parent, key);
}

static void put_broker(const struct sl_doc *doc, struct sl_json_text *text)
{
    size_t broker = sl_doc_find(doc, 0, "broker");

    put_format(text, "sluice ");
    sl_doc_put_plain(text, sl_doc_str(doc, broker, "version"));
    put_format(text, "  broker ");
    sl_doc_put_plain(text, sl_doc_str(doc, broker, "state"));
    put_format(text, "  pid %llu  generation %llu  up ", number(doc, broker, "pid"),
               number(doc, broker, "generation"));
    put_duration(text, sl_doc_double(doc, broker, "uptime_s"));
    put_format(text, "\n\n");
}

static void put_queue(const struct sl_doc *doc, struct sl_json_text *text)
{
    static const char *const waiting[] = {"ready", "delayed", "blocked"};
    static const char *const ended[] = {"completed", "failed", "cancelled", "expired"};
    size_t queue = sl_doc_find(doc, 0, "queue");
    char input[16];
    char output[16];

    put_format(text, "queue    %llu submitted:", number(doc, queue, "submitted"));
    for (size_t i = 0; i < SL_ARRAY_LEN(waiting); i++) {
        put_format(text, "  %llu %s", number(doc, queue, waiting[i]), waiting[i]);
    }
    put_format(text, "  %llu in flight (of %llu)\n        ", number(doc, queue, "inflight"),
               number(doc, queue, "concurrency"));
    for (size_t i = 0; i < SL_ARRAY_LEN(ended); i++) {
        put_format(text, " %llu %s ", number(doc, queue, ended[i]), ended[i]);
    }
    sl_progress_format_count(number(doc, queue, "input_tokens"), input);
    sl_progress_format_count(number(doc, queue, "output_tokens"), output);
    put_format(text, "\ncalls    %llu made  %llu retries  %llu stale  tokens %s in  %s out\n",
               number(doc, queue, "provider_calls"), number(doc, queue, "retries"),
               number(doc, queue, "stale_results"), input, output);
    put_format(text, "cache    %llu hits  %llu joined\n\n", number(doc, queue, "cache_hits"),
               number(doc, queue, "coalesced"));
}

/* A limit, "-" where there is none. */
static void put_limit(struct sl_json_text *text, unsigned long long limit)
{
    if (limit == 0) {
        put_format(text, " %10s", "-");
    } else {
        put_format(text, " %10llu", limit);
    }
}

static void put_providers(const struct sl_doc *doc, struct sl_json_text *text)
{
    size_t list = sl_doc_find(doc, 0, "providers");

    put_format(text, "%-*s  %-10s %9s %10s %10s %10s %10s %8s\n", NAME_COLUMN, "PROVIDER",
               "breaker", "in flight", "at most", "rpm", "tpm", "calls", "errors");
    for (size_t at = sl_doc_first(doc, list); at != SL_DOC_NONE; at = sl_doc_next(doc, list, at)) {
        put_column(text, sl_doc_str(doc, at, "name"), NAME_COLUMN);
        put_format(text, " ");
        put_column(text, sl_doc_str(doc, at, "breaker"), 10);
        put_format(text, "%9llu", number(doc, at, "inflight"));
        put_limit(text, number(doc, at, "concurrency"));
        put_limit(text, number(doc, at, "rpm_limit"));
        put_limit(text, number(doc, at, "tpm_limit"));
        put_format(text, " %10llu %8llu\n", number(doc, at, "calls"), number(doc, at, "errors"));
    }
    put_format(text, "\n");
}

static void put_workers(const struct sl_doc *doc, struct sl_json_text *text)
{
    size_t list = sl_doc_find(doc, 0, "workers");
    size_t at = sl_doc_first(doc, list);

    if (at == SL_DOC_NONE) {
        put_format(text, "no worker is connected: start sluice-worker\n\n");
        return;
    }
    put_format(text, "%-10s %10s %9s %10s\n", "WORKER", "generation", "in flight", "calls");
    for (; at != SL_DOC_NONE; at = sl_doc_next(doc, list, at)) {
        put_format(text, "%-10llu %10llu %9llu %10llu\n", number(doc, at, "pid"),
                   number(doc, at, "generation"), number(doc, at, "inflight"),
                   number(doc, at, "calls"));
    }
    put_format(text, "\n");
}

static void put_job(const struct sl_doc *doc, size_t job, struct sl_json_text *text)
{
    static const char *const bad[] = {"failed", "cancelled", "expired"};
    unsigned long long total = number(doc, job, "total");
    unsigned long long completed = number(doc, job, "completed");
    unsigned long long ended = completed;
    char bar[BAR_WIDTH + 1];

    for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
        ended += number(doc, job, bad[i]);
    }
    sl_progress_format_bar(total == 0 ? 1.0 : (double)ended / (double)total, BAR_WIDTH, bar);
    put_column(text, sl_doc_str(doc, job, "name"), NAME_COLUMN);
    put_format(text, " [%s] %3llu%%  %llu of %llu ended", bar,
               total == 0 ? 100 : SL_MIN(ended, total) * 100 / total, ended, total);
    for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
        if (number(doc, job, bad[i]) > 0) {
            put_format(text, ", %llu %s", number(doc, job, bad[i]), bad[i]);
        }
    }
    put_format(text, "\n");
}

static void put_jobs(const struct sl_doc *doc, struct sl_json_text *text)
{
    size_t list = sl_doc_find(doc, 0, "jobs");
    size_t at = sl_doc_first(doc, list);

    if (at == SL_DOC_NONE) {
        put_format(text, "no jobs\n");
        return;
    }
    put_format(text, "%-*s  %s\n", NAME_COLUMN, "JOB", "progress");
    for (; at != SL_DOC_NONE; at = sl_doc_next(doc, list, at)) {
        put_job(doc, at, text);
    }
}

void sl_status_put_page(const struct sl_doc *doc, bool only_jobs, struct sl_json_text *text)
{
    if (!only_jobs) {
        put_broker(doc, text);
        put_queue(doc, text);
        put_providers(doc, text);
        put_workers(doc, text);
    }
    put_jobs(doc, text);
}
