#ifndef SL_COMMON_CLIENT_INNER_H
#define SL_COMMON_CLIENT_INNER_H

/*
 * Inside libsluice: the client's state, shared by client.c (connection, questions, results) and
 * client_submit.c (handing in tasks). Not for other programs; see common/client.h.
 */

#include "common/client_link.h"

#define SL_CLIENT_MAGIC UINT32_C(0x51C11E47)
#define SL_CLIENT_ANSWER_TIMEOUT_S                                                                 \
    60 /* a slow disk may hold an acknowledgement for many seconds                                 \
        */
/* A submit frame on its way: enough to understand its answer. */
struct sl_client_unacked {
    bool is_used;
    uint64_t batch;
    uint32_t count;
    uint64_t tags[SL_FRAME_TASKS_MAX];
};

struct sl_client {
    uint32_t magic;
    bool has_job;
    bool is_streaming;
    bool is_building; /* a submit frame is begun in `writer` */
    struct sl_link link;
    struct sl_wire_decoder *decoder;
    struct sl_client_server server;
    struct sl_result_msg result;
    struct sl_wire_writer writer; /* of the frame being filled */
    struct sl_submit_builder builder;
    uint64_t next_batch;
    struct sl_client_unacked unacked[SL_FRAMES_UNACKED_MAX];
    uint32_t unacked_count;
    struct sl_client_unacked *filling; /* the slot of the frame being filled */
    struct sl_client_counts counts;
    enum sl_err refusal; /* the first one since the job was opened */
    struct sl_client_fault refusal_fault;
};

/* Is it a client, open? A broken promise of the embedding program: asserted. */
void sl_client_check(const struct sl_client *client);
/* Monotonic time `seconds` from now. */
int64_t sl_client_due_s(int64_t seconds);
/* Breaks the link: the broker's bytes make no sense. Returns SL_ERR_PROTOCOL. */
enum sl_err sl_client_break(struct sl_client *client, const char *what);
/* Turns an ERROR frame into its error, with the broker's words as the fault. */
enum sl_err sl_client_take_error(struct sl_client *client, struct sl_span payload);
/* Sends all bytes, waiting where needed; takes acknowledgements that arrive meanwhile. */
MUST_CHECK enum sl_err sl_client_send(struct sl_client *client, struct sl_span bytes);

#endif
