#ifndef SL_COMMON_CLIENT_H
#define SL_COMMON_CLIENT_H

/* clang-format off: the example below keeps its lines. */
/*
 * libsluice: hand LLM calls to the queue on this host and get their answers, from any C program.
 *
 *     #include "common/client.h"
 *
 *     struct sl_client *client = NULL;
 *     struct sl_client_fault fault;
 *     struct sl_client_job job;
 *     const struct sl_result_msg *result;
 *     struct sl_task_msg task = sl_client_task(
 *         sl_span_str("question-1"), sl_span_str("my-model"),
 *         sl_span_str("{\"model\":\"my-model\","
 *                     "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}"));
 *
 *     enum sl_err err = sl_client_open("/run/sluice/sluice.sock", &client, &fault);
 *     if (err == SL_OK) err = sl_client_open_job(client, sl_span_str(""), true, &job);
 *     if (err == SL_OK) err = sl_client_submit(client, &task, 0);
 *     if (err == SL_OK) err = sl_client_flush(client);       // SL_OK: every task is on disk
 *     if (err == SL_OK) err = sl_client_results(client, sl_span_str(job.name),
 *                                               SL_RESULTS_AS_DONE, true, 0);
 *     while (err == SL_OK && (err = sl_client_next(client, -1, &result)) == SL_OK && result)
 *         printf("%.*s\n", (int)result->body.len, result->body.ptr);
 *     if (err != SL_OK)
 *         fprintf(stderr, "%s\n", client ? sl_client_message(client) : fault.text);
 *     sl_client_close(&client);
 *
 * A task is (job, custom_id): handing in the same one again is no second call, so after any failure
 * the way on is to open a new connection and do the same again. The same id with another body is
 * SL_ERR_CONFLICT.
 *
 * A client is one connection to the broker, used by one thread at a time; open as many as needed.
 * No globals, no signal is touched (broken connections are errors, not SIGPIPE), nothing is
 * printed. Every function may block for an answer unless its comment says otherwise; a broker that
 * says nothing for a minute is SL_ERR_UNREACHABLE. A function that fails leaves one line for a
 * person in sl_client_message(). After SL_ERR_UNREACHABLE, SL_ERR_PROTOCOL, SL_ERR_VERSION and
 * SL_ERR_INTERRUPTED the connection is of no more use: close it. After other errors it goes on.
 */
/* clang-format on */

#include "common/err.h"
#include "common/limits.h"
#include "common/task.h"
#include "common/wire.h"

struct sl_client;

struct sl_client_fault {
    char text[SL_MESSAGE_BYTES_MAX]; /* one line for a person */
};

/* Connects to the broker's socket and checks that both speak one protocol. On success *out is the
 * caller's, to be given to sl_client_close(). SL_ERR_UNREACHABLE: no broker there;
 * SL_ERR_PERMISSION: the socket is not for this user; SL_ERR_VERSION; SL_ERR_PROTOCOL: something
 * else answers; SL_ERR_NO_MEMORY; or what the broker refused with (SL_ERR_OVERLOADED). */
MUST_CHECK enum sl_err sl_client_open(const char *socket_path, struct sl_client **out,
                                      struct sl_client_fault *fault);
/* Closes the connection and frees the client; sets *client to NULL; accepts NULL there. Tasks not
 * flushed may or may not have been accepted. Does not block. */
void sl_client_close(struct sl_client **client);

/* One line about the last failure, empty when there was none. Valid until the next call. */
const char *sl_client_message(const struct sl_client *client);

struct sl_client_server {
    char version[32];
    uint32_t pid;
    uint64_t generation; /* counts broker starts on its store */
    bool is_draining;    /* it takes no new tasks */
};
/* Who answered, as of sl_client_open(). Does not block. */
struct sl_client_server sl_client_get_server(const struct sl_client *client);

/* The connection's descriptor, for poll(POLLIN) in a loop of your own. Results may wait inside the
 * client already: call sl_client_next(client, 0, ...) until SL_ERR_AGAIN before polling. */
int sl_client_fd(const struct sl_client *client);

/* Ends every wait with SL_ERR_INTERRUPTED as soon as `fd` is readable (a signalfd, a pipe); it is
 * only polled, never read, and stays the caller's. -1: none. Does not block. */
void sl_client_set_stop_fd(struct sl_client *client, int fd);

/* ---- handing in tasks ------------------------------------------------------------------------ */

struct sl_client_job {
    char name[SL_NAME_BYTES_MAX + 1];
    uint32_t number;
    uint64_t total; /* tasks it held when it was opened */
    uint64_t completed;
    uint64_t failed;
    uint64_t cancelled;
    uint64_t expired;
};

/* Makes a job, or finds the one of this name; tasks go to it until another is opened. An empty name
 * makes a new one whose name is in *out. SL_ERR_NOT_FOUND: it is not there and may not be made;
 * SL_ERR_DRAINING, SL_ERR_PERMISSION. */
MUST_CHECK enum sl_err sl_client_open_job(struct sl_client *client, struct sl_span name,
                                          bool may_create, struct sl_client_job *out);

/* A chat task with defaults everywhere; spans are borrowed. */
struct sl_task_msg sl_client_task(struct sl_span custom_id, struct sl_span model,
                                  struct sl_span body);

/* Adds a task to the open job; its bytes are copied. Sends whole frames as they fill, several ahead
 * of the broker's acknowledgement, so it blocks only when the broker is slower than the caller.
 * `tag` is the caller's (a line number, an index): a refusal names it.
 * When the broker refused a task, this and sl_client_flush() return its reason from then on
 * (SL_ERR_CONFLICT, SL_ERR_UNKNOWN_MODEL, SL_ERR_NO_SPACE, SL_ERR_DRAINING, ...) until a job is
 * opened again; tasks before it are accepted, tasks after it may or may not be. */
MUST_CHECK enum sl_err sl_client_submit(struct sl_client *client, const struct sl_task_msg *task,
                                        uint64_t tag);
/* Sends what is buffered and waits for every acknowledgement. SL_OK: all tasks handed in since the
 * job was opened are on disk. */
MUST_CHECK enum sl_err sl_client_flush(struct sl_client *client);

struct sl_client_counts {
    uint64_t submitted;   /* handed to sl_client_submit() since the job was opened */
    uint64_t accepted;    /* of them, acknowledged as new */
    uint64_t known;       /* of them, acknowledged as there already, with the same body */
    bool is_refused;      /* a task was refused: */
    bool is_tag_known;    /* the refusal names a task (not the whole connection) */
    uint64_t refused_tag; /* the task's tag */
};
/* Acknowledgements so far. Does not block. */
struct sl_client_counts sl_client_get_counts(const struct sl_client *client);

/* ---- results --------------------------------------------------------------------------------- */

/* Starts the stream of a job's results. `must_follow`: wait for tasks that have not ended, until
 * all have. `cursor`: 0, or the cursor of the last result of an earlier stream in the same order.
 * Until the end of the stream only sl_client_next() may be called. SL_ERR_NOT_FOUND and the like
 * are reported by the first sl_client_next(). */
MUST_CHECK enum sl_err sl_client_results(struct sl_client *client, struct sl_span job,
                                         enum sl_results_order order, bool must_follow,
                                         uint64_t cursor);
/* The next result, valid until the next call; *out is NULL at the end of the stream. Waits at most
 * `timeout_ms` (0: not at all, -1: as long as it takes); SL_ERR_AGAIN: none came in that time. */
MUST_CHECK enum sl_err sl_client_next(struct sl_client *client, int timeout_ms,
                                      const struct sl_result_msg **out);

/* ---- looking and steering -------------------------------------------------------------------- */

/* The status document, of everything (empty span) or of one job; the list of jobs; one task. The
 * visitor gets its values in order; what spans in them name lives until the next call. */
MUST_CHECK enum sl_err sl_client_status(struct sl_client *client, struct sl_span job,
                                        void (*visit)(void *ctx, const struct sl_doc_value *value),
                                        void *ctx);
MUST_CHECK enum sl_err sl_client_jobs(struct sl_client *client,
                                      void (*visit)(void *ctx, const struct sl_doc_value *value),
                                      void *ctx);
MUST_CHECK enum sl_err sl_client_show(struct sl_client *client, struct sl_span task,
                                      void (*visit)(void *ctx, const struct sl_doc_value *value),
                                      void *ctx);

/* Cancels a job or a task ("task_..."); forgets a job all of whose tasks have ended; tells the
 * broker to finish what runs and stop. *count: tasks concerned. These may take minutes. */
MUST_CHECK enum sl_err sl_client_cancel(struct sl_client *client, struct sl_span name,
                                        uint64_t *count);
MUST_CHECK enum sl_err sl_client_purge(struct sl_client *client, struct sl_span job,
                                       uint64_t *count);
MUST_CHECK enum sl_err sl_client_drain(struct sl_client *client, uint64_t *count);

#endif
