#ifndef SL_WORKER_CONTROL_H
#define SL_WORKER_CONTROL_H

/*
 * The Unix socket from a worker to the broker: whole frames in, frames and descriptors out. Bytes
 * only; what frames mean is worker/link. Worker only, one thread, never blocks (but for the
 * connect, which a full backlog of a living broker may hold up).
 */

#include "common/err.h"
#include "common/wire.h"

#define SL_CONTROL_IN_BYTES 8192 /* the broker's frames to a worker are all under 1 KiB */
#define SL_CONTROL_FDS_MAX 64    /* descriptors that came and belong to frames not yet read */

struct sl_control;

/* NULL: out of memory. Not connected yet. `epoll_tag` is the data of its events. */
struct sl_control *sl_control_open(int epoll_fd, uint64_t epoll_tag);
void sl_control_close(struct sl_control **control);

bool sl_control_is_connected(const struct sl_control *control);
MUST_CHECK enum sl_err sl_control_connect(struct sl_control *control, const char *path);
/* Forgets everything in both directions. */
void sl_control_disconnect(struct sl_control *control);

/* Sends a copy of the bytes, with a descriptor (-1: none) that is taken and closed once sent. What
 * the socket does not take now waits. SL_ERR_UNREACHABLE: hung up; SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_control_send(struct sl_control *control, const void *bytes, size_t len,
                                       int fd);
/* The socket has room again. */
MUST_CHECK enum sl_err sl_control_flush(struct sl_control *control);
/* Reads what is there. SL_ERR_UNREACHABLE: hung up; SL_ERR_PROTOCOL: more than we take. */
MUST_CHECK enum sl_err sl_control_receive(struct sl_control *control);

/* The next whole frame; its payload lives until the next call of this or of sl_control_receive.
 * SL_ERR_AGAIN: none; SL_ERR_PROTOCOL | SL_ERR_VERSION: hang up. */
MUST_CHECK enum sl_err sl_control_next(struct sl_control *control, enum sl_frame_type *type,
                                       struct sl_span *payload);
/* Takes the oldest `count` descriptors; they are the caller's then. False: not there. */
MUST_CHECK bool sl_control_take_fds(struct sl_control *control, int *fds, size_t count);

#endif
