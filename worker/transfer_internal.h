#ifndef SL_WORKER_TRANSFER_INTERNAL_H
#define SL_WORKER_TRANSFER_INTERNAL_H

/*
 * What the files of worker/transfer share. Nobody else includes this, nor curl.h.
 *
 * transfer.c         the engine: its handles, starting, ending, the turn
 * transfer_wait.c    waiting for a provider's name, and for the first byte
 * transfer_easy.c    one transfer: options, what libcurl hands over, what its codes mean
 * transfer_socket.c  sockets and the timer of libcurl in our epoll
 */

#include <curl/curl.h>
#include <sys/queue.h>

#include "worker/transfer.h"

#define SL_TRANSFER_URL_BYTES (SL_URL_BYTES_MAX + 64)

struct sl_http_headers {
    struct curl_slist nodes[SL_HEADERS_MAX];
    size_t count;
};

/* A pooled easy handle and what belongs to it. Options that do not change are set once. */
struct sl_transfer {
    TAILQ_ENTRY(sl_transfer) link; /* busy or idle */
    struct sl_transfers *owner;
    struct sl_shard *shard; /* while busy */
    CURL *easy;
    struct sl_call *call; /* NULL: idle */

    struct curl_slist id_header; /* head of the header list; the provider's lines follow */
    char id_line[64];
    char url[SL_TRANSFER_URL_BYTES]; /* as set on the handle */
    long timeout_ms;                 /* as set on the handle */
    long connect_timeout_ms;
    bool is_refreshing; /* it resolves the provider's name anew, on a connection of its own */
    struct curl_slist drop_name;
    char drop_name_line[SL_URL_BYTES_MAX + 16];

    size_t header_bytes;
    bool has_asked; /* the request has been begun once: libcurl must not repeat it by itself */
    bool is_oversized;
    bool is_out_of_memory;
    char error_text[CURL_ERROR_SIZE];
};

TAILQ_HEAD(sl_transfer_list, sl_transfer);

/* What epoll knows about a descriptor of libcurl's. */
struct sl_socket_slot {
    struct sl_shard *shard; /* that last wanted it */
    uint32_t registered;    /* events in epoll, 0: not there */
    uint32_t wanted;        /* events libcurl wants, 0: none */
    bool is_ours;           /* opened and closed through our callbacks */
};

/* One multi handle. libcurl looks for a free connection by walking along all connections to the
 * host, so its cost per call grows with the calls in flight; several small ones do not. */
#define SL_SHARD_CALLS 256
#define SL_SHARDS_MAX (SL_CONCURRENCY_MAX / SL_SHARD_CALLS)
struct sl_shard {
    struct sl_transfers *owner;
    CURLM *multi;
    size_t running;
    int64_t due_ns; /* libcurl's timer */
};

struct sl_transfers {
    struct sl_shard *shards[SL_SHARDS_MAX]; /* made when needed, filled from the first on */
    size_t shard_count;
    CURLSH *share; /* TLS sessions: a new connection resumes an old one's; names */
    struct sl_transfers_options options;
    bool has_proxy; /* the environment names one */

    struct sl_transfer_list busy;
    struct sl_transfer_list idle;
    struct sl_call_list ready; /* waited for a name that is known now */
    struct sl_call_list done;
    size_t running;
    uint64_t started;

    int64_t now_ns;
    int64_t first_byte_due_ns; /* the first of our own; may be early, never late */

    struct sl_socket_slot *sockets; /* by descriptor */
    size_t socket_count;
};

/* ---- transfer_easy.c ------------------------------------------------------------------------- */

/* A new handle with all options that stay. NULL: out of memory. */
struct sl_transfer *sl_transfer_make(struct sl_transfers *owner);
void sl_transfer_free(struct sl_transfer *transfer);
/* Sets what this call needs; `is_refreshing`: resolve its name anew. SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_transfer_prepare(struct sl_transfer *transfer, struct sl_call *call,
                                           bool is_refreshing);
/* Fills in call->answer from the ended transfer. */
void sl_transfer_collect(struct sl_transfer *transfer, CURLcode code);

/* ---- transfer.c ------------------------------------------------------------------------------ */

/* Starts it now. What cannot be started comes back as done. */
void sl_transfers_launch(struct sl_transfers *transfers, struct sl_call *call, bool is_refreshing);
/* Gives a call back as done that was never started; it is on no list. */
void sl_transfers_fail_unstarted(struct sl_transfers *transfers, struct sl_call *call,
                                 enum sl_err why, const char *message);

/* ---- transfer_wait.c ------------------------------------------------------------------------- */

void sl_transfers_watch_first_byte(struct sl_transfers *transfers, struct sl_call *call);
void sl_transfers_unwatch_first_byte(struct sl_call *call);
/* Ends the calls whose first byte is overdue. */
void sl_transfers_end_unanswered(struct sl_transfers *transfers);
/* A call is about to end: what its end says about its provider's name. */
void sl_transfers_settle_name(struct sl_transfers *transfers, struct sl_call *call);
/* Starts the calls whose name has become known. */
void sl_transfers_start_ready(struct sl_transfers *transfers);

/* A byte of an answer has come: the first-byte limit is met. */
void sl_transfer_note_first_byte(struct sl_transfer *transfer);
/* The provider's name is resolved: a socket is being opened for it. */
void sl_transfer_note_name(struct sl_transfer *transfer);

/* ---- transfer_socket.c ----------------------------------------------------------------------- */

void sl_shard_set_socket_callbacks(struct sl_shard *shard);
void sl_transfer_set_socket_callbacks(struct sl_transfer *transfer);

#endif
