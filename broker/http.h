#ifndef SL_BROKER_HTTP_H
#define SL_BROKER_HTTP_H

/*
 * The door to libmicrohttpd: metrics and health on http.listen.
 *
 *   GET /metrics   200, Prometheus text 0.0.4
 *   GET /healthz   200 "ok": the loop turns
 *   GET /readyz    200 "ready" | 503 and the reason ("draining", "no workers", "no space")
 *   other paths    404;   other methods than GET and HEAD: 405
 *
 * No thread of its own: libmicrohttpd keeps its sockets in an epoll descriptor that the broker's
 * loop watches. All functions belong to the loop thread; none blocks. Bounds: SL_HTTP_* below;
 * reaching the number of connections leaves further ones in the kernel's backlog, a header too
 * large is answered 431, an idle connection is closed.
 *
 * Everybody who can reach the address may read: it shows counts and names of providers, nothing of
 * tasks. Keep it on loopback.
 */

#include "broker/metrics.h"
#include "common/err.h"

#define SL_HTTP_CONNECTIONS_MAX 64          /* a few scrapers and probes */
#define SL_HTTP_HEADER_BYTES_MAX (8 * 1024) /* request and response headers of a connection */
#define SL_HTTP_IDLE_SECONDS_MAX 10
#define SL_HTTP_PAGE_BYTES_MAX (256 * 1024) /* 30 rows and 32 providers need 1/10 of it */
#define SL_HTTP_REASON_BYTES 64

/* Where answers come from. All borrowed, valid until sl_http_close. */
struct sl_http_source {
    void *ctx;
    const struct sl_counters *counters;
    /* Brings gauges up to date before a page is written; may be NULL. */
    void (*refresh)(void *ctx);
    /* May tasks be submitted and will they run? If not, a short reason. */
    bool (*is_ready)(void *ctx, char reason[SL_HTTP_REASON_BYTES]);
    /* Adds further metrics behind the table's (providers, limits); may be NULL. */
    void (*add_metrics)(void *ctx, struct sl_metrics_text *text);
};

struct sl_http_fault {
    char text[256]; /* what is wrong with the address, and how to mend it */
};

struct sl_http;

/* Listens on "address:port" or "[IPv6 address]:port" (numbers only; port 0: any free one) and
 * starts to serve. *fault is filled in on an error: SL_ERR_CONFIG: not an address; SL_ERR_IO: taken
 * or not ours; SL_ERR_PERMISSION; SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_http_open(const char *listen_text, const struct sl_http_source *source,
                                    struct sl_http **out, struct sl_http_fault *fault);

/* The port listened on. */
uint16_t sl_http_port(const struct sl_http *http);

/* The descriptor to watch for reading (borrowed, level-triggered). */
int sl_http_fd(const struct sl_http *http);

/* Does what there is to do. Call it when the descriptor is readable, and when sl_http_timeout_ms
 * has passed. */
void sl_http_run(struct sl_http *http);

/* Milliseconds until sl_http_run must be called without an event; -1: no need. Ask each turn. */
int sl_http_timeout_ms(struct sl_http *http);

/* Closes the address and all connections. Ignores NULL. */
void sl_http_close(struct sl_http **http);

#endif
