#ifndef SL_WORKER_WORKER_H
#define SL_WORKER_WORKER_H

/*
 * One worker process, as its own files see it: run.c (the loop and its end), link.c (the broker),
 * take.c (work in), publish.c (results out). Private to them.
 */

#include "common/clock.h"
#include "common/err.h"
#include "common/json.h"
#include "common/lane.h"
#include "common/params.h"
#include "common/wire.h"
#include "worker/call.h"
#include "worker/control.h"
#include "worker/provider.h"
#include "worker/transfer.h"

#define SL_RESULTS_WAITING_MAX                                                                     \
    SL_RING_SLOTS                           /* results without room in a ring: then no new work    \
                                             */
#define SL_ANSWERS_BYTES_MAX (256 * SL_MIB) /* answers held for a broker that is slow or gone */
#define SL_LARGE_UNANSWERED_MAX 4           /* large results sent and not acknowledged */

enum sl_worker_tag { SL_TAG_CONTROL = 1, SL_TAG_BELL, SL_TAG_SIGNAL, SL_TAG_TRANSFER };
#define SL_TAG_SHIFT 32 /* events carry the tag in the upper half, a descriptor in the lower */

struct sl_worker {
    const struct sl_worker_options *options;
    struct sl_config *cfg; /* owned */
    struct sl_now now;     /* of this turn */
    int epoll_fd;
    int signal_fd;
    bool is_over;
    int exit_status;

    /* the broker */
    struct sl_control *control;
    struct sl_wire_decoder *decoder;
    struct sl_lane *lane; /* NULL: none */
    int own_event_fd;     /* of the lane */
    int broker_event_fd;
    bool has_greeted;     /* our hello is out, the lane is not there yet */
    int64_t reconnect_ns; /* when to try next, while not connected */
    int64_t reconnect_gap_ns;
    int64_t alone_since_ns; /* without a lane; counts while there is none */

    /* the calls */
    struct sl_calls *calls;
    struct sl_providers *providers;
    struct sl_transfers *transfers;
    struct sl_json_scanner *scanner;
    size_t running_max; /* by descriptors */

    /* the results, all SL_CALL_FINISHED; each call is on one of these four */
    struct sl_call_list finished; /* for the ring, in order of their end */
    size_t finished_count;        /* of all that is not in the ring: this list and the large ones */
    struct sl_call_list published; /* in the ring, in its order, not released yet */
    size_t published_count;
    struct sl_call_list large;      /* for the socket */
    struct sl_call_list large_sent; /* sent, in order, not acknowledged yet */
    size_t large_sent_count;

    /* the end */
    bool is_draining;
    int64_t drain_due_ns; /* calls that still run then are broken off */
};

/* ---- run.c ----------------------------------------------------------------------------------- */

/* Starts nothing more, hands back what has not begun, and ends once all the rest is handed over. */
void sl_worker_begin_drain(struct sl_worker *worker, const char *why);

/* ---- link.c: the broker ---------------------------------------------------------------------- */

/* Connects when it is time to. */
void sl_link_tick(struct sl_worker *worker);
void sl_link_event(struct sl_worker *worker, uint32_t events);
/* The broker is gone (SL_ERR_UNREACHABLE), or not to be used any more: keeps all calls and results
 * for the next one. Does nothing when there is none. */
void sl_link_lose(struct sl_worker *worker, enum sl_err why);
void sl_link_send_leaving(struct sl_worker *worker);
/* Hangs up at the end of the worker. */
void sl_link_close(struct sl_worker *worker);
int64_t sl_link_due_ns(const struct sl_worker *worker);

/* ---- take.c: work in ------------------------------------------------------------------------- */

/* Takes what waits in the lane, as far as there is room for it. */
void sl_take_work(struct sl_worker *worker);
/* Is there room for one more call? */
bool sl_take_has_room(const struct sl_worker *worker);
/* One item; payload is borrowed. SL_ERR_SHM: not an item of ours; SL_ERR_NO_MEMORY: not taken. */
MUST_CHECK enum sl_err sl_take_item(struct sl_worker *worker, const struct sl_work_msg *work,
                                    struct sl_span payload);

/* ---- publish.c: results out ------------------------------------------------------------------ */

/* Judges an ended call and queues its result. */
void sl_publish_done(struct sl_worker *worker, struct sl_call *call);
/* Queues the result of a call that was not made: `why`, and the message in its answer. */
void sl_publish_unmade(struct sl_worker *worker, struct sl_call *call, enum sl_err why,
                       uint32_t flags);
/* Forgets what the broker released in the lane. SL_ERR_SHM: the lane is broken. */
MUST_CHECK enum sl_err sl_publish_free_released(struct sl_worker *worker);
/* Frees what the broker released; puts what waits into the lane and onto the socket. */
void sl_publish_results(struct sl_worker *worker);
/* The broker has stored the oldest large result. False: none was sent. */
MUST_CHECK bool sl_publish_large_stored(struct sl_worker *worker);
/* The lane is gone: everything not released is to be published again. */
void sl_publish_again(struct sl_worker *worker);
/* Does a result wait for room in the lane? */
bool sl_publish_is_blocked(const struct sl_worker *worker);

#endif
