/*
 * Commands on their way to the store and back.
 *
 * Loop thread. A request outlives its client: what it does is done, only the answer is dropped.
 * Nothing of it survives a crash; commands may be given again.
 */
#include "broker/request.h"

#include <stdlib.h>

#include "common/check.h"

void sl_request_free(struct sl_request *own)
{
    free(own->cancel);
    free(own->jobs);
    free(own);
}

struct sl_request *sl_request_new(struct sl_conn *conn, struct sl_span name)
{
    struct sl_request *own = calloc(1, sizeof(*own));

    if (own == NULL) {
        return NULL;
    }
    own->broker = conn->source.broker;
    own->conn = conn;
    own->serial = conn->serial;
    own->uid = conn->peer.uid;
    own->is_admin = conn->is_admin;
    own->now_ms = own->broker->now.wall_ns / SL_NS_PER_MS;
    bool fits = sl_span_copy_str(own->name, sizeof(own->name), name);
    SL_ASSERT(fits); /* the decoder refuses longer names */
    own->is_task = sl_task_name_parse(own->name, &own->task);
    return own;
}

void sl_request_queue(struct sl_request *own,
                      enum sl_err (*run)(struct sl_op *op, struct sl_store *store),
                      void (*done)(struct sl_op *op))
{
    own->op = (struct sl_op){.run = run, .done = done, .cost_bytes = SL_KIB};
    sl_commit_add(own->broker->commit, &own->op);
}

/* Only a lost transaction is the store thread's concern. */
enum sl_err sl_request_outcome(enum sl_err err)
{
    return err == SL_ERR_STORE ? err : SL_OK;
}

/* Sends the error, if there is one; false: nothing more is to be sent. */
bool sl_request_may_answer(const struct sl_request *own)
{
    struct sl_conn *conn = sl_conn_find(own->conn, own->serial);

    if (conn != NULL && own->err != SL_OK) {
        sl_conn_send_error(conn, own->err, sl_err_meaning(own->err));
    }
    return conn != NULL && own->err == SL_OK;
}

enum sl_err sl_request_find_job(struct sl_request *own, struct sl_store *store)
{
    struct sl_job_request request = {.uid = own->uid, .name = sl_span_str(own->name)};

    return sl_store_open_job(store, &request, &own->job);
}
