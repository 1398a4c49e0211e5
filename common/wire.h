#ifndef SL_COMMON_WIRE_H
#define SL_COMMON_WIRE_H

/*
 * The door to msgpack: frames on the Unix socket between clients, workers and the broker.
 *
 * A frame is an 8-byte header (u32 big-endian payload length, u8 protocol version, u8 frame type,
 * u16 zero) and a payload: one msgpack value, an array with the members of the message's struct in
 * their order. The payload is walked and bounded (size, depth, object count, every byte consumed)
 * before msgpack-c sees it. Spans in decoded messages point into the payload and live as long as it
 * does.
 *
 * Any process; nothing here blocks or does I/O. Decoders return SL_ERR_PROTOCOL for anything that
 * is not exactly the message: wrong type, wrong count, out of range, trailing bytes. On an error
 * the output is not to be used.
 */

#include "common/err.h"
#include "common/limits.h"
#include "common/task.h"

#define SL_PROTOCOL_VERSION 1

enum sl_frame_type {
#define X(name, number, text, sender, meaning) SL_FRAME_##name = (number),
#include "common/tbl/frames.def"
#undef X
};

enum sl_frame_sender { SL_SENDER_CLIENT, SL_SENDER_BROKER, SL_SENDER_WORKER };

struct sl_frame_header {
    uint32_t payload_bytes;
    enum sl_frame_type type;
};

/* Reads and checks a header: version (SL_ERR_VERSION), known type, size cap (SL_ERR_PROTOCOL). */
MUST_CHECK enum sl_err sl_frame_header_get(const char bytes[SL_FRAME_HEADER_BYTES],
                                           struct sl_frame_header *out);
const char *sl_frame_name(enum sl_frame_type type);
enum sl_frame_sender sl_frame_sender(enum sl_frame_type type);

/* ---- writing ------------------------------------------------------------------------------- */

/* Packs into a caller's buffer. When something does not fit, `is_full` is set, nothing more is
 * written, and the frame begun is to be dropped (sl_wire_rewind). */
struct sl_wire_writer {
    char *buf;
    size_t size_bytes;
    size_t len;
    bool is_full;
};

void sl_wire_writer_init(struct sl_wire_writer *writer, char *buf, size_t size_bytes);
/* Begins a frame: leaves room for the header and returns its position. */
size_t sl_wire_begin(struct sl_wire_writer *writer, enum sl_frame_type type);
/* Ends the frame begun at `start`: fills in the length. SL_ERR_FULL (and rewound to `start`) when
 * it did not fit. */
MUST_CHECK enum sl_err sl_wire_end(struct sl_wire_writer *writer, size_t start);

/* Drops everything written from position `start` on, and is_full with it. */
void sl_wire_rewind(struct sl_wire_writer *writer, size_t start);

void sl_wire_put_array(struct sl_wire_writer *writer, uint32_t count);
void sl_wire_put_map(struct sl_wire_writer *writer, uint32_t count);
void sl_wire_put_uint(struct sl_wire_writer *writer, uint64_t value);
void sl_wire_put_int(struct sl_wire_writer *writer, int64_t value);
void sl_wire_put_double(struct sl_wire_writer *writer, double value);
void sl_wire_put_bool(struct sl_wire_writer *writer, bool value);
void sl_wire_put_str(struct sl_wire_writer *writer, struct sl_span text);
void sl_wire_put_bin(struct sl_wire_writer *writer, struct sl_span bytes);
/* A map member: key, then value. */
void sl_wire_put_key(struct sl_wire_writer *writer, const char *key);
void sl_wire_put_kv_uint(struct sl_wire_writer *writer, const char *key, uint64_t value);
void sl_wire_put_kv_str(struct sl_wire_writer *writer, const char *key, const char *value);
void sl_wire_put_kv_double(struct sl_wire_writer *writer, const char *key, double value);

/* ---- messages ------------------------------------------------------------------------------ */

struct sl_hello_msg {
    struct sl_span version; /* of the program, for messages to people */
};

struct sl_welcome_msg {
    struct sl_span version;
    uint32_t pid;
    uint64_t generation; /* counts broker starts on this store */
    bool is_draining;
};

struct sl_error_msg {
    enum sl_err err;
    struct sl_span message; /* one line for a person */
};

struct sl_open_job_msg {
    struct sl_span name; /* empty: make a new one */
    bool may_create;
};

struct sl_job_msg {
    uint32_t job;
    struct sl_span name;
    uint64_t total;
    uint64_t completed;
    uint64_t failed;
    uint64_t cancelled;
    uint64_t expired;
};

/* One task as it is submitted; also what the store keeps of it. */
struct sl_task_msg {
    struct sl_span custom_id;  /* 1..SL_ID_BYTES_MAX bytes */
    struct sl_span model;      /* may be empty only where provider is given */
    struct sl_span provider;   /* empty: by model */
    struct sl_span stage;      /* may be empty */
    struct sl_span service_id; /* may be empty */
    enum sl_endpoint endpoint;
    uint32_t priority;     /* 0..9 */
    uint32_t timeout_ms;   /* 0: the provider's */
    uint32_t max_attempts; /* 0: the provider's */
    uint32_t flags;        /* SL_TASK_FLAG_* */
    int64_t not_before_ms; /* wall clock, 0: at once */
    int64_t deadline_ms;   /* wall clock, 0: none */
    struct sl_span body;   /* JSON, the exact bytes to send; 1..SL_BODY_BYTES_MAX */
};

struct sl_submitted_msg {
    uint64_t batch; /* of the submit frame */
    uint32_t accepted;
    uint32_t known;      /* were there already with the same body */
    int64_t refused_idx; /* first task not taken, -1: none; nothing after it was taken either */
    enum sl_err err;     /* why it was refused */
    struct sl_span message;
};

enum sl_results_order { SL_RESULTS_AS_DONE = 0, SL_RESULTS_AS_SUBMITTED = 1 };

struct sl_results_msg {
    struct sl_span job;
    enum sl_results_order order;
    bool must_follow; /* wait for tasks that have not ended; ends when all have */
    uint64_t cursor;  /* 0, or the cursor of the last result received */
};

struct sl_result_msg {
    uint64_t task;
    uint64_t cursor; /* to go on behind this result */
    enum sl_task_state state;
    enum sl_err err; /* SL_OK when completed */
    struct sl_span custom_id;
    struct sl_span message; /* of the error, may be empty */
    uint32_t http_status;   /* 0: no answer */
    struct sl_span request_id;
    struct sl_span provider;
    struct sl_span stage;
    struct sl_span service_id;
    uint32_t attempts;
    uint32_t queued_us; /* from acceptance to the last call's start, capped */
    uint32_t call_us;   /* of the last call, capped */
    uint64_t input_tokens;
    uint64_t output_tokens;
    bool body_is_json;
    struct sl_span body; /* the provider's answer, may be empty */
};

struct sl_held_call {
    uint64_t task;
    uint32_t attempt;
    uint64_t generation; /* of the lane under which it was handed out */
};

struct sl_lane_msg {
    uint32_t lane;
    uint64_t generation;
};

/* Encoders append a whole frame; SL_ERR_FULL when it does not fit, SL_ERR_INPUT when a member is
 * outside the bounds the reader checks, such as a name that is too long or holds a NUL byte (the
 * writer is then as before). Texts for people (message) and request_id are cut to their limit
 * instead. */
MUST_CHECK enum sl_err sl_wire_put_hello(struct sl_wire_writer *w, const struct sl_hello_msg *msg);
MUST_CHECK enum sl_err sl_wire_put_welcome(struct sl_wire_writer *w,
                                           const struct sl_welcome_msg *msg);
MUST_CHECK enum sl_err sl_wire_put_error(struct sl_wire_writer *w, const struct sl_error_msg *msg);
MUST_CHECK enum sl_err sl_wire_put_open_job(struct sl_wire_writer *w,
                                            const struct sl_open_job_msg *msg);
MUST_CHECK enum sl_err sl_wire_put_job(struct sl_wire_writer *w, const struct sl_job_msg *msg);
MUST_CHECK enum sl_err sl_wire_put_submitted(struct sl_wire_writer *w,
                                             const struct sl_submitted_msg *msg);
MUST_CHECK enum sl_err sl_wire_put_results(struct sl_wire_writer *w,
                                           const struct sl_results_msg *msg);
MUST_CHECK enum sl_err sl_wire_put_result(struct sl_wire_writer *w,
                                          const struct sl_result_msg *msg);
MUST_CHECK enum sl_err sl_wire_put_lane(struct sl_wire_writer *w, const struct sl_lane_msg *msg);
/* A frame whose only member is a name: status (job or empty), show, cancel, purge (job or task). */
MUST_CHECK enum sl_err sl_wire_put_name(struct sl_wire_writer *w, enum sl_frame_type type,
                                        struct sl_span name);
/* A frame whose only member is a count: done. */
MUST_CHECK enum sl_err sl_wire_put_count(struct sl_wire_writer *w, enum sl_frame_type type,
                                         uint64_t count);
/* A frame without members: jobs, drain, results_end, leaving, drain_lane. */
MUST_CHECK enum sl_err sl_wire_put_empty(struct sl_wire_writer *w, enum sl_frame_type type);
/* A frame whose only member is a block of bytes: large_work, large_result. */
MUST_CHECK enum sl_err sl_wire_put_slot(struct sl_wire_writer *w, enum sl_frame_type type,
                                        const void *slot, size_t slot_bytes);
MUST_CHECK enum sl_err sl_wire_put_worker_hello(struct sl_wire_writer *w, struct sl_span version,
                                                const struct sl_held_call *held, size_t count);

/* Submit frames are built task by task: begin, add until SL_ERR_FULL or enough, end. `batch` is the
 * client's number for the frame. A task that is refused (SL_ERR_FULL: for the next frame;
 * SL_ERR_INPUT: outside the bounds of sl_task_msg) leaves the frame as it was. A frame holds 1 to
 * SL_FRAME_TASKS_MAX tasks: sl_submit_end without any is SL_ERR_INPUT, and rewinds. */
struct sl_submit_builder {
    struct sl_wire_writer *writer;
    size_t start;
    size_t count_at; /* where the task count is patched in */
    uint32_t count;
};
MUST_CHECK enum sl_err sl_submit_begin(struct sl_submit_builder *builder,
                                       struct sl_wire_writer *writer, uint64_t batch);
MUST_CHECK enum sl_err sl_submit_add(struct sl_submit_builder *builder,
                                     const struct sl_task_msg *task);
MUST_CHECK enum sl_err sl_submit_end(struct sl_submit_builder *builder);

/* ---- reading ------------------------------------------------------------------------------- */

/* A decoder owns msgpack-c's memory zone and reuses it; one per thread. Each decode drops what the
 * decode before it gave. NULL when out of memory. */
struct sl_wire_decoder;
struct sl_wire_decoder *sl_wire_decoder_open(void);
void sl_wire_decoder_close(struct sl_wire_decoder **decoder);

MUST_CHECK enum sl_err sl_wire_get_hello(struct sl_wire_decoder *d, struct sl_span payload,
                                         struct sl_hello_msg *out);
MUST_CHECK enum sl_err sl_wire_get_welcome(struct sl_wire_decoder *d, struct sl_span payload,
                                           struct sl_welcome_msg *out);
MUST_CHECK enum sl_err sl_wire_get_error(struct sl_wire_decoder *d, struct sl_span payload,
                                         struct sl_error_msg *out);
MUST_CHECK enum sl_err sl_wire_get_open_job(struct sl_wire_decoder *d, struct sl_span payload,
                                            struct sl_open_job_msg *out);
MUST_CHECK enum sl_err sl_wire_get_job(struct sl_wire_decoder *d, struct sl_span payload,
                                       struct sl_job_msg *out);
/* Decodes up to `tasks_max` tasks; more is SL_ERR_PROTOCOL. Checks every bound of sl_task_msg. */
MUST_CHECK enum sl_err sl_wire_get_submit(struct sl_wire_decoder *d, struct sl_span payload,
                                          uint64_t *batch, struct sl_task_msg *tasks,
                                          size_t tasks_max, size_t *count);
MUST_CHECK enum sl_err sl_wire_get_submitted(struct sl_wire_decoder *d, struct sl_span payload,
                                             struct sl_submitted_msg *out);
MUST_CHECK enum sl_err sl_wire_get_results(struct sl_wire_decoder *d, struct sl_span payload,
                                           struct sl_results_msg *out);
MUST_CHECK enum sl_err sl_wire_get_result(struct sl_wire_decoder *d, struct sl_span payload,
                                          struct sl_result_msg *out);
MUST_CHECK enum sl_err sl_wire_get_lane(struct sl_wire_decoder *d, struct sl_span payload,
                                        struct sl_lane_msg *out);
MUST_CHECK enum sl_err sl_wire_get_name(struct sl_wire_decoder *d, struct sl_span payload,
                                        struct sl_span *out);
MUST_CHECK enum sl_err sl_wire_get_count(struct sl_wire_decoder *d, struct sl_span payload,
                                         uint64_t *out);
MUST_CHECK enum sl_err sl_wire_get_empty(struct sl_wire_decoder *d, struct sl_span payload);
MUST_CHECK enum sl_err sl_wire_get_slot(struct sl_wire_decoder *d, struct sl_span payload,
                                        void *slot, size_t slot_bytes);
MUST_CHECK enum sl_err sl_wire_get_worker_hello(struct sl_wire_decoder *d, struct sl_span payload,
                                                struct sl_span *version, struct sl_held_call *held,
                                                size_t held_max, size_t *count);

/* Walks a document (DOCUMENT frame, a map) in order and calls back for each value, and with
 * SL_DOC_END at the end of each map and array; `key` is empty inside arrays. The document is
 * checked to its end before the first call back. `visit` may be NULL: only checks. */
enum sl_doc_kind {
    SL_DOC_MAP,
    SL_DOC_ARRAY,
    SL_DOC_END,
    SL_DOC_UINT,
    SL_DOC_INT,
    SL_DOC_DOUBLE,
    SL_DOC_BOOL,
    SL_DOC_STR,
    SL_DOC_NIL
};
struct sl_doc_value {
    enum sl_doc_kind kind;
    struct sl_span key; /* member name, empty in an array */
    uint64_t uint_value;
    int64_t int_value;
    double double_value;
    bool bool_value;
    struct sl_span str_value;
};
MUST_CHECK enum sl_err sl_wire_walk_document(struct sl_wire_decoder *d, struct sl_span payload,
                                             void (*visit)(void *ctx,
                                                           const struct sl_doc_value *value),
                                             void *ctx);

#endif
