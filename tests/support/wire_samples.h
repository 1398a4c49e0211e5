#ifndef SL_TESTS_SUPPORT_WIRE_SAMPLES_H
#define SL_TESTS_SUPPORT_WIRE_SAMPLES_H

/*
 * One valid frame of every type, and a reader of any frame that checks what the decoder promises.
 * Tests and fuzzers only.
 */

#include "common/wire.h"

/* A task with every member set. */
struct sl_task_msg sample_task(void);

/* Appends one valid frame of the type. */
MUST_CHECK enum sl_err sample_frame(struct sl_wire_writer *writer, enum sl_frame_type type);

/* Decodes the payload as a frame of the type. Where the decoder takes it, every bound of the
 * message is checked again here, and every span must lie within the payload: anything else aborts.
 */
enum sl_err sample_decode(struct sl_wire_decoder *decoder, enum sl_frame_type type,
                          struct sl_span payload);

/* The idx-th row of frames.def; false past the end. */
bool sample_type_at(size_t idx, enum sl_frame_type *type);

#endif
