#ifndef SL_COMMON_WIRE_PRIVATE_H
#define SL_COMMON_WIRE_PRIVATE_H

/*
 * What the files of the msgpack door (wire*.c) share: the bounds of frames, and raw appending.
 * Nobody else includes this. Pure; never blocks; any process, any thread.
 */

#include <msgpack.h>

#include "common/wire.h"

enum sl_wire_shape {
    SL_WIRE_SOUND,     /* one msgpack value, within all bounds, to the last byte */
    SL_WIRE_MALFORMED, /* cut off, bytes left over, an ext type, the tag nobody uses */
    SL_WIRE_TOO_LARGE, /* too many bytes, objects or levels */
};

/* Walks the payload without building anything. Lengths and counts are believed only as far as
 * bytes are there. */
enum sl_wire_shape sl_wire_check_shape(struct sl_span payload);

/* A text of min..max bytes without NUL. */
bool sl_wire_is_text(struct sl_span text, size_t min, size_t max);

/* Is every member of the task within the bounds sl_task_msg names? */
bool sl_wire_is_task(const struct sl_task_msg *task);

/* Appends bytes as they are; the header of a bin whose bytes the caller appends. Sets is_full. */
void sl_wire_append(struct sl_wire_writer *writer, const char *bytes, size_t len);
void sl_wire_put_bin_header(struct sl_wire_writer *writer, size_t len);

/* Bounds a payload, then lets msgpack-c make objects of it; they live until the next call.
 * SL_ERR_PROTOCOL | SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_wire_unpack(struct sl_wire_decoder *d, struct sl_span payload,
                                      msgpack_object *out);

/* A call a worker holds, as it stands in worker_hello: u64 task, u32 attempt, u64 generation. */
#define SL_HELD_RECORD_BYTES 20

/* Members of a task, of a result, in their frames. */
#define SL_TASK_MEMBERS 13
#define SL_RESULT_MEMBERS 18
#define SL_HTTP_STATUS_MAX 999

#endif
