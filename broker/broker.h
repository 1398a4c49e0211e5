#ifndef SL_BROKER_BROKER_H
#define SL_BROKER_BROKER_H

/*
 * The broker's state, owned by the loop thread, and what its files offer one another.
 *
 *   start     open everything in order, close everything
 *   loop      epoll, one `now` a turn, signals, timers, drain
 *   conn      connections: frames in, frames out, descriptors
 *   intake    hello, open job, submit
 *   document  status, jobs, show
 *   command   cancel, purge, drain
 *   watch     results streams
 *   supply    provider x model x tenant: numbers, and which are ready
 *   calls     the table of tasks under a lease
 *   dispatch  arm (take under a lease), send (hand to a worker), promote
 *   settle    how calls end, and the operations that carry it to disk
 *   workers   lanes: join, results, leave, die
 *   survivors workers of the last run that may still be calling
 *   reload    SIGHUP: another configuration
 *   status    documents and counters
 *
 * Nothing here survives a crash; the store does.
 */

#include "broker/commit.h"
#include "broker/http.h"
#include "broker/policy/route.h"
#include "common/clock.h"
#include "common/counters.h"
#include "common/lane.h"
#include "common/os.h"
#include "common/params.h"

struct sl_broker;
struct sl_conn;
struct sl_worker;

/* ---- loop ------------------------------------------------------------------------------------ */

/* Whatever epoll watches. Embedded; `on_event` gets the source back. */
struct sl_source {
    void (*on_event)(struct sl_source *source, uint32_t events);
    struct sl_broker *broker;
    int fd;
    uint32_t events;
};

MUST_CHECK enum sl_err sl_loop_watch(struct sl_broker *broker, struct sl_source *source,
                                     uint32_t events);
void sl_loop_change(struct sl_source *source, uint32_t events);
/* Also drops what this turn has already collected for it. */
void sl_loop_unwatch(struct sl_source *source);
/* Takes no more work and ends once what runs has ended. */
void sl_loop_drain(struct sl_broker *broker);

enum sl_broker_state { SL_BROKER_RUNNING, SL_BROKER_DRAINING, SL_BROKER_STOPPING };

struct sl_broker_options {
    const char *config_path;
    bool is_private; /* leaves when idle; its workers leave with it */
};

/* ---- connections ----------------------------------------------------------------------------- */

enum sl_conn_role { SL_CONN_NEW, SL_CONN_CLIENT, SL_CONN_WORKER };

#define SL_CONN_HEAD_BYTES 4096 /* small frames are handled where they arrive */

/* A results stream of a client. */
struct sl_watch {
    bool is_active;
    bool is_reading; /* an operation is under way */
    bool is_due;     /* something may have ended since the last read */
    bool must_follow;
    uint32_t job;
    enum sl_results_order order;
    uint64_t cursor;
    size_t read_bytes; /* size of the next read's buffer */
};

struct sl_conn {
    struct sl_source source;
    uint64_t serial; /* tells a connection from its successor in the same place; 0: free */
    enum sl_conn_role role;
    struct sl_os_peer peer;
    bool is_admin;   /* root, or the service's own user */
    bool must_close; /* once what is to be sent has been */
    bool is_paused;  /* not read from: too much unanswered */

    char head[SL_CONN_HEAD_BYTES];
    size_t head_len;
    struct sl_frame_header frame_header;
    char *frame; /* a frame longer than head, being read; malloc'ed */
    size_t frame_have;
    int64_t frame_began_ns;
    int fds[SL_OS_FDS_MAX]; /* received, not yet taken */
    size_t fd_count;

    char *out; /* malloc'ed while there is something to send */
    size_t out_at;
    size_t out_len;
    size_t out_size;

    struct sl_submit_stream *stream; /* of the job opened last; NULL: none yet */
    uint32_t submits_pending;
    struct sl_watch watch;
    struct sl_worker *worker;
};

/* Accepts what waits on the listening socket. */
void sl_conn_on_listen(struct sl_source *source, uint32_t events);
/* Listens again some time after no descriptor was free. Called once a turn. */
void sl_conn_listen_again(struct sl_broker *broker);
/* Queues bytes; closes a client that does not read (SL_CONN_OUT_BYTES_MAX). */
void sl_conn_send(struct sl_conn *conn, const void *bytes, size_t len);
/* Takes a malloc'ed buffer over and queues it. */
void sl_conn_send_take(struct sl_conn *conn, char *bytes, size_t len);
/* Small frame with descriptors, at once; false: not sent (the socket is full). Workers only. */
bool sl_conn_send_fds(struct sl_conn *conn, const void *bytes, size_t len, const int *fds,
                      size_t fd_count);
void sl_conn_send_error(struct sl_conn *conn, enum sl_err err, const char *message);
void sl_conn_send_empty(struct sl_conn *conn, enum sl_frame_type type);
void sl_conn_send_count(struct sl_conn *conn, uint64_t count);
bool sl_conn_has_output(const struct sl_conn *conn);
void sl_conn_close(struct sl_conn *conn);
/* Reads again from connections that were paused. */
void sl_conn_resume_all(struct sl_broker *broker);
/* When the memory for long frames has run out: ends those that were begun long ago, and tries those
 * that wait again. Called once a turn. */
void sl_conn_make_room(struct sl_broker *broker);
/* The end is near: nothing more is read or accepted, so that nobody who asks on and on holds it up;
 * what was asked is answered. Saying so again changes nothing. */
void sl_conn_stop_reading(struct sl_broker *broker);
/* The connection, if it is still the one of that serial. */
struct sl_conn *sl_conn_find(struct sl_conn *conn, uint64_t serial);

/* Handlers of complete frames; the payload lives until they return. SL_ERR_PROTOCOL (or any error)
 * closes the connection after telling why. `owned`, when not NULL, is the malloc'ed buffer that
 * holds the payload: a handler that keeps it sets *owned to NULL. */
struct sl_frame {
    enum sl_frame_type type;
    struct sl_span payload;
    char **owned;
};
MUST_CHECK enum sl_err sl_intake_hello(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_intake_open_job(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_intake_submit(struct sl_conn *conn, const struct sl_frame *frame);
/* The connection closes: lets go of its stream of submits. */
void sl_intake_conn_closed(struct sl_conn *conn);
MUST_CHECK enum sl_err sl_watch_results(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_command_status(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_command_jobs(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_command_show(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_command_cancel(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_command_purge(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_command_drain(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_workers_hello(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_workers_large_result(struct sl_conn *conn, const struct sl_frame *frame);
MUST_CHECK enum sl_err sl_workers_leaving(struct sl_conn *conn, const struct sl_frame *frame);

/* ---- watches --------------------------------------------------------------------------------- */

/* Tasks of this job have ended: streams that wait for it read on. */
void sl_watch_job_moved(struct sl_broker *broker, uint32_t job);
/* Starts the next read of a stream when its last one has been sent. */
void sl_watch_continue(struct sl_conn *conn);

/* Goes on with purges that a crash cut off. */
void sl_command_resume_purges(struct sl_broker *broker);

/* ---- supplies -------------------------------------------------------------------------------- */

#define SL_SUPPLY_NO_PROVIDER UINT32_MAX

struct sl_supply {
    uint32_t uid;
    uint32_t provider_idx; /* SL_SUPPLY_NO_PROVIDER: not configured any more; its tasks wait */
    uint32_t route_idx;
    uint32_t arming; /* asked of the arm operation under way; 0: there is none */
    bool was_filled; /* meanwhile tasks were added: do not believe it when it says empty */
    char provider[SL_NAME_BYTES_MAX + 1];
    char model[SL_NAME_BYTES_MAX + 1];
};

/* Finds or makes the supply of a task; SL_ERR_UNKNOWN_PROVIDER | SL_ERR_UNKNOWN_MODEL |
 * SL_ERR_OVERLOADED. A new one is written by an operation added to this turn's batch. */
MUST_CHECK enum sl_err sl_supply_for(struct sl_broker *broker, uint32_t uid,
                                     const struct sl_task_msg *task, uint32_t *supply);
MUST_CHECK enum sl_err sl_supply_load_all(struct sl_broker *broker, struct sl_store *store);
void sl_supply_mark_ready(struct sl_broker *broker, uint32_t supply);

/* ---- calls
 * --------------------------------------------------------------------------------------- */

enum sl_call_state {
    SL_CALL_FREE,
    SL_CALL_ARMED,  /* leased; its request is in broker memory, no worker has it */
    SL_CALL_SENT,   /* in a worker's hands: holds a place */
    SL_CALL_ORPHAN, /* leased before a restart; a worker may still have it: holds a place */
    SL_CALL_ENDING, /* its end is on its way to disk */
};

/* Request bytes of the tasks of one arm operation; freed with the last of them. */
struct sl_body_batch {
    uint32_t refs;
    size_t size;
    char *bytes;
};

struct sl_call {
    uint64_t task;
    uint64_t lease;
    enum sl_call_state state;
    uint32_t supply;
    uint32_t timeout_ms;
    uint16_t attempt;
    uint16_t deaths;
    uint16_t max_attempts; /* 0: the provider's */
    uint8_t priority;
    uint8_t flags;
    uint8_t endpoint;
    bool is_cancelled; /* asked for while it was in a worker's hands */
    struct sl_worker *worker;
    uint64_t generation;    /* of the lane it was sent under */
    uint64_t ring_position; /* in that lane; UINT64_MAX: sent beside it */
    int64_t accepted_ms;
    int64_t deadline_ms; /* wall, 0: none; looked at until it is sent */
    uint32_t queued_us;
    struct sl_body_batch *batch;
    size_t body_at;
    size_t body_bytes;
    struct sl_call *next;      /* armed list of its provider, or free list */
    struct sl_call *hash_next; /* calls of one hash bucket */
};

struct sl_call_list {
    struct sl_call *first;
    struct sl_call *last;
    uint32_t count;
};

struct sl_calls {
    struct sl_call *all;
    size_t size;
    struct sl_call *free;
    size_t free_count;
    size_t touched; /* all[0..touched) were ever used */
    struct sl_call **buckets;
    size_t bucket_count;                 /* power of two */
    uint32_t counts[SL_CALL_ENDING + 1]; /* by state */
};

MUST_CHECK enum sl_err sl_calls_init(struct sl_calls *calls, size_t size);
void sl_calls_fini(struct sl_calls *calls);
/* A new call in a state; NULL: the table is full. */
struct sl_call *sl_calls_add(struct sl_calls *calls, uint64_t task, enum sl_call_state state);
struct sl_call *sl_calls_find(struct sl_calls *calls, uint64_t task);
void sl_calls_set_state(struct sl_calls *calls, struct sl_call *call, enum sl_call_state state);
void sl_calls_drop_body(struct sl_call *call);
void sl_calls_remove(struct sl_calls *calls, struct sl_call *call);
void sl_call_list_add(struct sl_call_list *list, struct sl_call *call);
struct sl_call *sl_call_list_take(struct sl_call_list *list);
void sl_call_list_remove(struct sl_call_list *list, struct sl_call *call);

/* ---- workers
 * -------------------------------------------------------------------------------------- */

enum sl_worker_state {
    SL_WORKER_FREE,
    SL_WORKER_OPEN,
    SL_WORKER_LEAVING, /* gets nothing more, finishes what it has */
    SL_WORKER_GONE,    /* dead or closed; its last results are on their way to disk */
};

struct sl_worker {
    struct sl_source bell; /* rung when results were published */
    enum sl_worker_state state;
    struct sl_conn *conn;
    struct sl_lane *lane;
    uint32_t idx;
    uint64_t generation;
    pid_t pid;
    int pidfd;
    int worker_event_fd;
    bool is_armed;
    uint32_t in_flight;
    uint64_t calls;
    uint32_t settles_pending; /* operations that read from its lane */
    bool must_ring;
    bool has_results; /* the last poll stopped early */
};

void sl_workers_poll(struct sl_broker *broker);
/* Arms the bells; false when there is work to do instead of sleeping. */
bool sl_workers_prepare_sleep(struct sl_broker *broker);
void sl_workers_wake(struct sl_broker *broker);
void sl_workers_ring(struct sl_broker *broker);
void sl_workers_conn_closed(struct sl_worker *worker);
void sl_workers_unref(struct sl_worker *worker);
/* The worker with the fewest calls that takes work; NULL: none. */
struct sl_worker *sl_workers_pick(struct sl_broker *broker);
void sl_workers_send_drain(struct sl_broker *broker);
void sl_workers_close_all(struct sl_broker *broker);
/* Hands a cancel to the worker that has the call. */
void sl_workers_cancel(struct sl_call *call);

/* ---- dispatch
 * --------------------------------------------------------------------------------------- */

struct sl_provider_state {
    struct sl_call_list armed;
    size_t armed_bytes;
    uint32_t ahead;   /* how many to arm beyond the free places; 0: as at the start */
    bool has_starved; /* places stood free while an arm was awaited */
    uint32_t arming;  /* asked of the store, not yet answered */
    uint32_t in_flight;
    uint64_t calls;
    uint64_t errors;
};

/* Arms ahead and sends what fits; called once a turn. */
void sl_dispatch_run(struct sl_broker *broker);

/* What came back of a call, from a worker or from its loss. */
struct sl_call_end {
    enum sl_err err;
    bool is_unstarted;                      /* no byte was sent: does not count as an attempt */
    const struct sl_result_msg_shm *result; /* NULL: none */
    struct sl_span payload;
};
/* One settle operation being filled; closed (handed to the store) when full or at the end of a
 * turn. */
struct sl_settle_op;
void sl_dispatch_end(struct sl_broker *broker, struct sl_call *call, const struct sl_call_end *end);
/* From now on ended calls read from this worker's lane up to a position, which is released once
 * they are on disk. Closes the operation at hand when it belongs to another. */
void sl_dispatch_end_source(struct sl_broker *broker, struct sl_worker *worker);
void sl_dispatch_note_position(struct sl_broker *broker, uint64_t position);
/* Attaches a mapped large payload, unmapped and acknowledged once on disk. */
void sl_dispatch_note_large(struct sl_broker *broker, struct sl_span mapped);
void sl_dispatch_flush_ends(struct sl_broker *broker);
void sl_settle_free_all(struct sl_broker *broker);
/* Armed tasks go back to ready: of one provider, or of all (drain). */
void sl_dispatch_disarm(struct sl_broker *broker, uint32_t provider_idx);
void sl_dispatch_disarm_all(struct sl_broker *broker);
/* Calls in flight go back to ready, their attempt counted (stop). */
void sl_dispatch_abandon_all(struct sl_broker *broker);
/* Ends orphans that no worker has claimed: never called, when every worker of the last run has
 * reported, else of unknown outcome. */
void sl_dispatch_end_orphans(struct sl_broker *broker);
MUST_CHECK enum sl_err sl_dispatch_load_orphans(struct sl_broker *broker, struct sl_store *store);
void sl_dispatch_promote(struct sl_broker *broker);
void sl_dispatch_note_due(struct sl_broker *broker, int64_t due_ms);

/* ---- survivors ------------------------------------------------------------------------------- */

/* A worker of the last run that lives: it may still be calling, and will report what it holds. */
struct sl_survivor {
    struct sl_source pidfd; /* readable once it is dead; fd -1: not awaited any more */
    pid_t pid;
};
/* Finds out who of the last run lives. */
MUST_CHECK enum sl_err sl_survivors_load(struct sl_broker *broker, struct sl_store *store);
/* Awaits them; with nobody left, orphans are ended at once. */
void sl_survivors_begin(struct sl_broker *broker);
/* This one has joined and reported. */
void sl_survivors_joined(struct sl_broker *broker, pid_t pid);
/* Time is up: those who have not come are killed, so that no call runs twice. */
void sl_survivors_kill(struct sl_broker *broker);
void sl_survivors_close(struct sl_broker *broker);
/* Writes down that this worker has a lane, before any lease of its calls; strikes it out once its
 * last result is on disk. */
void sl_survivors_record(struct sl_broker *broker, pid_t pid);
void sl_survivors_erase(struct sl_broker *broker, pid_t pid);

/* ---- status
 * ------------------------------------------------------------------------------------------ */

/* Brings the counter block up to date. */
void sl_status_refresh(struct sl_broker *broker);
/* Writes the status document with these jobs; SL_ERR_FULL: does not fit. */
MUST_CHECK enum sl_err sl_status_put(struct sl_broker *broker, struct sl_wire_writer *writer,
                                     const struct sl_job_info *jobs, size_t count);
bool sl_status_is_ready(void *ctx, char reason[SL_HTTP_REASON_BYTES]);

/* ---- the state
 * ------------------------------------------------------------------------------------- */

struct sl_broker {
    const struct sl_config *config;
    struct sl_config *reloaded; /* owned: what `config` is since a SIGHUP; NULL: none came */
    struct sl_broker_options options;
    struct sl_now now;
    int64_t started_ns;
    enum sl_broker_state state;
    int exit_status;
    int64_t drain_due_ns;
    int64_t extend_due_ns; /* when to ask the supervisor for more time, while draining */
    uint32_t signals_seen;
    uid_t uid;

    int epoll_fd;
    struct sl_source listen;
    int64_t listen_due_ns; /* not before: no descriptor was free */
    bool has_stopped_reading;
    bool is_listen_adopted; /* the supervisor's socket: it stays when we leave */
    struct sl_source signals;
    struct sl_source store_events;
    struct sl_source http_events;
    struct sl_source *collected[256]; /* this turn's events */
    size_t collected_count;

    struct sl_store *store;
    struct sl_commit *commit;
    struct sl_counters_rec stored; /* counters as of the last commit */
    struct sl_counters counters;
    struct sl_http *http;

    struct sl_conn *conns;
    size_t conn_count;
    uint64_t next_serial;
    size_t intake_bytes; /* frames being read or on their way to disk */
    bool is_intake_full; /* a connection waits for room among them */
    struct sl_wire_decoder *decoder;

    struct sl_supply *supplies;
    uint32_t supply_count;
    struct sl_route_state *route;
    uint32_t route_supply[SL_SUPPLIES_MAX]; /* route index -> supply */
    struct sl_provider_state providers[SL_PROVIDERS_MAX];

    struct sl_calls calls;
    uint32_t arming;
    uint32_t in_flight;
    uint64_t delayed;
    int64_t next_due_ms; /* wall; INT64_MAX: none */
    bool is_promoting;
    struct sl_survivor survivors[SL_LANES_MAX];
    uint32_t survivor_count;
    pid_t dead[SL_LANES_MAX]; /* of the last run; struck out once its leases are settled */
    uint32_t dead_count;
    bool has_lost_worker;        /* one of the last run is dead and may have made calls */
    int64_t survivors_due_ns;    /* when those who have not come are killed; 0: nobody is awaited */
    struct sl_settle_op *settle; /* being filled */
    struct sl_settle_op *free_settles;
    uint64_t random;

    struct sl_worker workers[SL_LANES_MAX];
    uint64_t next_generation;

    bool has_space;
    int64_t space_checked_ns;
    int64_t idle_since_ns;
    uint64_t watchdog_ns;
    int64_t watchdog_due_ns;
    uint64_t clients_refused;
    uint64_t frames_refused;
    uint64_t tasks_refused;
    uint64_t stale_results;
    uint64_t lanes_lost;
    uint64_t loop_turns;
    uint64_t loop_busy_ns;
};

#endif
