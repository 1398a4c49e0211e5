/*
 * Metrics and health over HTTP, through libmicrohttpd with its epoll descriptor inside ours.
 *
 * Runs in the broker's loop thread, a few microseconds for each request. Never starts a thread,
 * never blocks, never reads a request body (a method that has one is answered 405 and the
 * connection closed), never serves a file, never shows a task, a prompt or a key.
 *
 * What comes in is untrusted: libmicrohttpd parses it within 8 KiB for each connection, and of all
 * it parsed only the method and the path are looked at, each compared with constants.
 *
 * Nothing survives a crash; scrapers connect again. Reports SL_ERR_CONFIG, SL_ERR_IO,
 * SL_ERR_PERMISSION and SL_ERR_NO_MEMORY when the address cannot be opened; later errors concern
 * one connection, which is closed.
 */
#include "broker/http.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "common/check.h"
#include "common/os.h"

#define TYPE_TEXT "text/plain; charset=utf-8"
#define TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"
#define ADDRESS_BYTES 64 /* an IPv6 address with a zone */

struct sl_http {
    struct MHD_Daemon *daemon;
    struct sl_http_source source;
    int epoll_fd; /* the daemon's */
    uint16_t port;
    char page[SL_HTTP_PAGE_BYTES_MAX]; /* written and copied within one request */
};

/* ---- answers --------------------------------------------------------------------------------- */

struct answer {
    unsigned status;
    const char *type;
    const char *body; /* borrowed until it is queued, which copies it */
    size_t len;
};

static struct answer answer_text(unsigned status, const char *body)
{
    return (struct answer){.status = status, .type = TYPE_TEXT, .body = body, .len = strlen(body)};
}

static struct answer answer_metrics(struct sl_http *http)
{
    const struct sl_http_source *source = &http->source;
    struct sl_metrics_text text;

    if (source->refresh != NULL) {
        source->refresh(source->ctx);
    }
    sl_metrics_text_init(&text, http->page, sizeof(http->page));
    sl_metrics_add_counters(&text, source->counters);
    if (source->add_metrics != NULL) {
        source->add_metrics(source->ctx, &text);
    }
    if (text.is_full) {
        return answer_text(MHD_HTTP_INTERNAL_SERVER_ERROR, "the page of metrics is too large\n");
    }
    return (struct answer){
        .status = MHD_HTTP_OK, .type = TYPE_METRICS, .body = text.buf, .len = text.len};
}

static struct answer answer_ready(struct sl_http *http)
{
    char reason[SL_HTTP_REASON_BYTES] = "";

    if (http->source.is_ready(http->source.ctx, reason)) {
        return answer_text(MHD_HTTP_OK, "ready\n");
    }
    reason[sizeof(reason) - 1] = '\0';
    snprintf(http->page, sizeof(http->page), "%s\n", reason[0] != '\0' ? reason : "not ready");
    return answer_text(MHD_HTTP_SERVICE_UNAVAILABLE, http->page);
}

static struct answer answer_for(struct sl_http *http, const char *method, const char *path)
{
    bool is_read =
        strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;

    if (!is_read) {
        return answer_text(MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    if (strcmp(path, "/metrics") == 0) {
        return answer_metrics(http);
    }
    if (strcmp(path, "/healthz") == 0) {
        return answer_text(MHD_HTTP_OK, "ok\n");
    }
    if (strcmp(path, "/readyz") == 0) {
        return answer_ready(http);
    }
    return answer_text(MHD_HTTP_NOT_FOUND, "there is /metrics, /healthz and /readyz\n");
}

static bool add_headers(struct MHD_Response *response, const struct answer *answer)
{
    bool is_refused = answer->status == MHD_HTTP_METHOD_NOT_ALLOWED;

    if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->type) != MHD_YES ||
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") != MHD_YES) {
        return false;
    }
    if (!is_refused) {
        return true;
    }
    /* The body of such a request is not read: what follows on the connection is not a request. */
    return MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") == MHD_YES &&
           MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_YES;
}

/* MHD_NO closes the connection: all that can be done without memory for an answer. */
static enum MHD_Result queue_answer(struct MHD_Connection *connection, const struct answer *answer)
{
    /* libmicrohttpd takes a plain pointer and copies from it. */
    struct MHD_Response *response = MHD_create_response_from_buffer(
        answer->len, (void *)(uintptr_t)answer->body, MHD_RESPMEM_MUST_COPY);

    if (response == NULL) {
        return MHD_NO;
    }
    enum MHD_Result result = MHD_NO;
    if (add_headers(response, answer)) {
        result = MHD_queue_response(connection, answer->status, response);
    }
    MHD_destroy_response(response);
    return result;
}

static bool has_body(struct MHD_Connection *connection)
{
    static const char *const names[] = {MHD_HTTP_HEADER_CONTENT_LENGTH,
                                        MHD_HTTP_HEADER_TRANSFER_ENCODING};

    for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
        if (MHD_lookup_connection_value(connection, MHD_HEADER_KIND, names[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* libmicrohttpd calls when the headers are there, for each part of a body, and at the end; the
 * signature is its own. Answering at the first call means that a body is not read, and the
 * connection closed; a request without one waits for the end, and its connection is kept. */
/* NOLINTNEXTLINE(readability-function-size): the library decides on its parameters. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **request)
{
    struct sl_http *http = ctx;
    bool is_first = *request == NULL;

    *request = http; /* any mark that is not NULL */
    if (is_first && !has_body(connection)) {
        return MHD_YES;
    }
    struct answer answer = answer_for(http, method, url);
    return queue_answer(connection, &answer);
}

/* ---- the address ----------------------------------------------------------------------------- */

/* Splits "address:port" or "[address]:port". */
static bool split_address(const char *text, char address[ADDRESS_BYTES], const char **port)
{
    const char *colon = strrchr(text, ':');

    if (colon == NULL || colon == text || colon[1] == '\0') {
        return false;
    }
    struct sl_span host = sl_span_of(text, (size_t)(colon - text));
    bool is_bracketed = host.ptr[0] == '[' && host.len > 2 && host.ptr[host.len - 1] == ']';
    if (is_bracketed) {
        host = sl_span_of(host.ptr + 1, host.len - 2);
    } else if (memchr(host.ptr, ':', host.len) != NULL) {
        return false; /* IPv6 without brackets: which colon is the port's? */
    }
    *port = colon + 1;
    return sl_span_copy_str(address, ADDRESS_BYTES, host);
}

static bool port_is_valid(const char *port)
{
    char *end = NULL;

    if (port[0] < '0' || port[0] > '9') {
        return false;
    }
    unsigned long number = strtoul(port, &end, 10);
    return *end == '\0' && number <= UINT16_MAX;
}

static struct addrinfo *resolve(const char *text)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
    };
    struct addrinfo *found = NULL;
    char address[ADDRESS_BYTES];
    const char *port = NULL;

    /* getaddrinfo takes a star for every address: nobody should open that by a short cut. */
    if (!split_address(text, address, &port) || !port_is_valid(port) || address[0] == '*') {
        return NULL;
    }
    return getaddrinfo(address, port, &hints, &found) == 0 ? found : NULL;
}

static int listen_on(const struct addrinfo *info)
{
    int one = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -1;
    }
    /* A restart must not wait for old connections in TIME_WAIT. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(fd, info->ai_addr, info->ai_addrlen) != 0 ||
        listen(fd, SL_HTTP_CONNECTIONS_MAX) != 0) {
        sl_os_close(&fd);
    }
    return fd;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    uint16_t port = 0;

    if (getsockname(fd, (struct sockaddr *)(void *)&address, &len) != 0) {
        return 0;
    }
    /* Both families keep the port at the same place. */
    _Static_assert(offsetof(struct sockaddr_in, sin_port) ==
                       offsetof(struct sockaddr_in6, sin6_port),
                   "one offset for IPv4 and IPv6");
    memcpy(&port, (char *)&address + offsetof(struct sockaddr_in, sin_port), sizeof(port));
    return ntohs(port);
}

static enum sl_err open_socket(const char *text, int *out, struct sl_http_fault *fault)
{
    struct addrinfo *info = resolve(text);

    if (info == NULL) {
        snprintf(fault->text, sizeof(fault->text),
                 "http.listen = \"%.80s\" is not an address; write \"127.0.0.1:8420\" or "
                 "\"[::1]:8420\", or \"\" to switch it off",
                 text);
        return SL_ERR_CONFIG;
    }
    int fd = listen_on(info);
    freeaddrinfo(info);
    if (fd < 0) {
        int reason = errno;
        snprintf(fault->text, sizeof(fault->text),
                 "http.listen = \"%.80s\": %s; choose another address or port, or \"\" to switch "
                 "it off",
                 text, strerror(reason));
        return reason == EACCES ? SL_ERR_PERMISSION : SL_ERR_IO;
    }
    *out = fd;
    return SL_OK;
}

/* ---- the daemon ------------------------------------------------------------------------------ */

/* Takes the socket, also when it fails. */
static enum sl_err start_daemon(struct sl_http *http, int listen_fd)
{
    http->daemon =
        MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, http, MHD_OPTION_LISTEN_SOCKET,
                         listen_fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)SL_HTTP_CONNECTIONS_MAX,
                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)SL_HTTP_HEADER_BYTES_MAX,
                         MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)SL_HTTP_IDLE_SECONDS_MAX,
                         MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (http->daemon == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL || info->epoll_fd < 0) {
        return SL_ERR_IO; /* libmicrohttpd built without epoll */
    }
    http->epoll_fd = info->epoll_fd;
    return SL_OK;
}

enum sl_err sl_http_open(const char *listen_text, const struct sl_http_source *source,
                         struct sl_http **out, struct sl_http_fault *fault)
{
    int fd = -1;
    struct sl_http *http = NULL;

    SL_ASSERT(source->counters != NULL);
    SL_ASSERT(source->is_ready != NULL);
    enum sl_err err = open_socket(listen_text, &fd, fault);
    if (err != SL_OK) {
        return err;
    }
    http = calloc(1, sizeof(*http));
    if (http == NULL) {
        snprintf(fault->text, sizeof(fault->text), "no memory for the metrics port");
        sl_os_close(&fd);
        return SL_ERR_NO_MEMORY;
    }
    http->source = *source;
    http->port = port_of(fd);
    err = start_daemon(http, fd);
    if (err != SL_OK) {
        snprintf(fault->text, sizeof(fault->text), "libmicrohttpd did not start on \"%.80s\"",
                 listen_text);
        sl_http_close(&http);
        return err;
    }
    *out = http;
    return SL_OK;
}

uint16_t sl_http_port(const struct sl_http *http)
{
    return http->port;
}

int sl_http_fd(const struct sl_http *http)
{
    return http->epoll_fd;
}

static bool is_full(struct sl_http *http)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

    return info != NULL && info->num_connections >= SL_HTTP_CONNECTIONS_MAX;
}

void sl_http_run(struct sl_http *http)
{
    bool was_full = is_full(http);
    enum MHD_Result result = MHD_run(http->daemon);

    /* When full, libmicrohttpd stops to watch its listening socket, and looks whether it may watch
     * it again only when a run begins. Nobody would wake it for who waits in the backlog. */
    if (was_full && !is_full(http)) {
        result = MHD_run(http->daemon);
    }
    SL_ASSERT(result == MHD_YES); /* it refuses only a daemon started with a thread of its own */
}

int sl_http_timeout_ms(struct sl_http *http)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms = 0;

    if (MHD_get_timeout(http->daemon, &timeout_ms) != MHD_YES) {
        return -1;
    }
    return timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
}

void sl_http_close(struct sl_http **http)
{
    if (*http == NULL) {
        return;
    }
    if ((*http)->daemon != NULL) {
        MHD_stop_daemon((*http)->daemon);
    }
    free(*http);
    *http = NULL;
}
