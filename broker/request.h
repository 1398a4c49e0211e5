#ifndef SL_BROKER_REQUEST_H
#define SL_BROKER_REQUEST_H

/*
 * A command of a client on its way to the store and back; shared by command.c (what changes) and
 * document.c (what only tells). Loop thread, but for the `run` functions.
 */

#include "broker/broker.h"

struct sl_request {
    struct sl_op op;
    struct sl_broker *broker;
    struct sl_conn *conn;
    uint64_t serial;
    uint32_t uid;
    bool is_admin;
    int64_t now_ms;
    char name[SL_NAME_BYTES_MAX + 1];
    enum sl_err err;
    uint64_t task; /* show, cancel of a task */
    bool is_task;
    struct sl_job_info job;
    struct sl_task_view view;
    struct sl_cancel_reply *cancel;
    uint64_t cancel_to;
    uint64_t cancelled;
    bool must_repeat;
    bool is_purged;
    size_t job_count;
    struct sl_job_info *jobs; /* JOBS_LISTED_MAX, where needed */
};

/* A request of this connection about a name (a job, a task, or empty); NULL: no memory. */
struct sl_request *sl_request_new(struct sl_conn *conn, struct sl_span name);
void sl_request_free(struct sl_request *request);
/* Adds it to this turn's batch; `done` frees it or queues it again. */
void sl_request_queue(struct sl_request *request,
                      enum sl_err (*run)(struct sl_op *op, struct sl_store *store),
                      void (*done)(struct sl_op *op));
/* What `run` returns: only a lost transaction is the store thread's concern. */
enum sl_err sl_request_outcome(enum sl_err err);
/* Sends the request's error, if there is one; true: there is none, and the client is still there.
 */
bool sl_request_may_answer(const struct sl_request *request);
/* Store thread: finds the job of the request's name among the user's own. */
enum sl_err sl_request_find_job(struct sl_request *request, struct sl_store *store);

#endif
