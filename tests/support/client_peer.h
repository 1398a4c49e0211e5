#ifndef SL_TESTS_SUPPORT_CLIENT_PEER_H
#define SL_TESTS_SUPPORT_CLIENT_PEER_H

/*
 * The other end of a client's connection, for tests of libsluice: a thread that listens, takes one
 * connection, answers the hello, and then does what the test's script does. What should not happen
 * fails the test through libcheck.
 */

#include "common/wire.h"

struct peer;

/* Runs in the peer's thread after the hello was answered (`peer_open_raw`: right after the
 * connection was taken). The connection is closed when it returns. */
typedef void peer_script(struct peer *peer, void *ctx);

/* Listens in the test's own directory; its socket is peer_path(). */
struct peer *peer_open(peer_script *script, void *ctx);
struct peer *peer_open_raw(peer_script *script, void *ctx);
const char *peer_path(const struct peer *peer);
/* Waits for the script's end. */
void peer_join(struct peer *peer);

/* For scripts: the next frame, which must come in time; false at the end of the connection. */
struct peer_frame {
    enum sl_frame_type type;
    struct sl_span payload; /* until the next call */
};
bool peer_read(struct peer *peer, struct peer_frame *frame);
/* As peer_read, and it must be a frame of this type. */
struct sl_span peer_expect(struct peer *peer, enum sl_frame_type type);
/* The decoder for what was read. */
struct sl_wire_decoder *peer_decoder(struct peer *peer);
/* A writer to put frames into; peer_send sends and empties it, `piece_bytes` at a time (0: all). */
struct sl_wire_writer *peer_writer(struct peer *peer);
void peer_send(struct peer *peer, size_t piece_bytes);
void peer_send_bytes(struct peer *peer, const void *bytes, size_t len);
/* Waits until the client hangs up, reading what it still sends. */
void peer_await_end(struct peer *peer);

#endif
