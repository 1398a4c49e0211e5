#ifndef SL_WORKER_DIALECT_H
#define SL_WORKER_DIALECT_H

/*
 * What differs between kinds of providers: how a request is addressed and headed, how an answer is
 * read. One table of functions per kind, one file per table. Worker only; pure but for the JSON
 * scanner passed in; never blocks.
 */

#include "common/err.h"
#include "common/json.h"
#include "common/params.h"
#include "worker/call.h"

#define SL_HEADERS_MAX 8

/* Header lines of every request to a provider ("Name: value"); owned by the list. */
struct sl_header_lines {
    char *lines[SL_HEADERS_MAX];
    size_t count;
};

struct sl_dialect {
    const char *name;

    /* Writes the URL of an endpoint; SL_ERR_CONFIG when it does not fit or is not offered. */
    enum sl_err (*put_url)(const struct sl_provider_config *provider, enum sl_endpoint endpoint,
                           char *url, size_t size);
    /* Adds the header lines; `key` is "" for none. SL_ERR_NO_MEMORY. */
    enum sl_err (*put_headers)(const char *key, struct sl_header_lines *out);
    /* Is the request one this version can make? SL_OK, or SL_ERR_REJECTED with call's message. */
    enum sl_err (*check_request)(struct sl_json_scanner *scanner, struct sl_call *call);
    /* Judges a whole HTTP answer (any status): tokens and body flag into call->result, a message
     * into call->answer; returns the verdict, SL_OK for a good answer. */
    enum sl_err (*read_answer)(struct sl_json_scanner *scanner, struct sl_call *call);
};

/* The table of a kind; NULL: this version does not speak it. */
const struct sl_dialect *sl_dialect_find(enum sl_provider_kind kind);
extern const struct sl_dialect sl_dialect_openai;

/* Adds one line built from two parts. SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_header_add(struct sl_header_lines *out, const char *head,
                                     const char *tail);
/* Wipes and frees all lines. */
void sl_header_lines_fini(struct sl_header_lines *lines);

/* What a status says by itself: SL_OK for 2xx, an error of the table for all others. */
enum sl_err sl_status_class(uint32_t http_status, bool has_retry_after);

/* Copies text cut to `size` - 1 bytes, never in the middle of a UTF-8 character. */
void sl_text_cut(char *out, size_t size, struct sl_span text);

/* What the provider asked for, in milliseconds (0: nothing): "retry-after-ms" (a number), then
 * "retry-after" as seconds (a number) or as an HTTP date. Values are as received; at most 7 days.
 */
uint32_t sl_retry_after_parse(const char *retry_after_ms, const char *retry_after, int64_t wall_ns);

#endif
