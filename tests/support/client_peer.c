/*
 * The scripted other end of a client's connection; see the header.
 *
 * One thread per peer, blocking reads with a deadline of 20 s. Test programs only.
 */
#include "tests/support/client_peer.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/os.h"
#include "tests/support/tmp_dir.h"
#include "tests/support/wait.h"

#define WRITER_BYTES ((size_t)66 * 1024 * 1024)

struct peer {
    const char *path;
    peer_script *script;
    void *ctx;
    bool is_raw;
    int listen_fd;
    int fd;
    pthread_t thread;
    struct sl_wire_decoder *decoder;
    struct sl_wire_writer writer;
    char *payload;
};

const char *peer_path(const struct peer *peer)
{
    return peer->path;
}

struct sl_wire_decoder *peer_decoder(struct peer *peer)
{
    return peer->decoder;
}

struct sl_wire_writer *peer_writer(struct peer *peer)
{
    return &peer->writer;
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* All bytes, or false at the end of the connection. */
static bool read_bytes(struct peer *peer, char *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ck_assert_msg(wait_readable(peer->fd, WAIT_MS), "nothing comes from the client");
        ssize_t got = recv(peer->fd, bytes + done, len - done, 0);
        if (got <= 0) {
            return false;
        }
        done += (size_t)got;
    }
    return true;
}

bool peer_read(struct peer *peer, struct peer_frame *frame)
{
    char bytes[SL_FRAME_HEADER_BYTES];
    struct sl_frame_header header;

    if (!read_bytes(peer, bytes, sizeof(bytes))) {
        return false;
    }
    ck_assert_int_eq(sl_frame_header_get(bytes, &header), SL_OK);
    ck_assert_int_eq(sl_frame_sender(header.type), SL_SENDER_CLIENT);
    free(peer->payload);
    peer->payload = malloc(header.payload_bytes + 1);
    ck_assert_ptr_nonnull(peer->payload);
    frame->type = header.type;
    frame->payload = sl_span_of(peer->payload, header.payload_bytes);
    return read_bytes(peer, peer->payload, header.payload_bytes);
}

struct sl_span peer_expect(struct peer *peer, enum sl_frame_type type)
{
    struct peer_frame frame;

    ck_assert_msg(peer_read(peer, &frame), "the client hung up");
    ck_assert_str_eq(sl_frame_name(frame.type), sl_frame_name(type));
    return frame.payload;
}

/* A client that hung up is no failure here: its own call says what it made of it. */
void peer_send_bytes(struct peer *peer, const void *bytes, size_t len)
{
    const char *at = bytes;

    while (len > 0) {
        ssize_t sent = send(peer->fd, at, len, MSG_NOSIGNAL);
        if (sent < 0) {
            return;
        }
        at += sent;
        len -= (size_t)sent;
    }
}

void peer_send(struct peer *peer, size_t piece_bytes)
{
    size_t piece = piece_bytes == 0 ? peer->writer.len : piece_bytes;

    for (size_t at = 0; at < peer->writer.len; at += piece) {
        peer_send_bytes(peer, peer->writer.buf + at, SL_MIN(piece, peer->writer.len - at));
    }
    peer->writer.len = 0;
}

void peer_await_end(struct peer *peer)
{
    char bytes[4096];

    while (read_bytes(peer, bytes, 1)) {
        (void)recv(peer->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void greet(struct peer *peer)
{
    struct sl_welcome_msg welcome = {
        .version = sl_span_str("1.2.3"), .pid = 77, .generation = 5, .is_draining = false};
    struct sl_hello_msg hello;

    struct sl_span payload = peer_expect(peer, SL_FRAME_HELLO);
    ck_assert_int_eq(sl_wire_get_hello(peer->decoder, payload, &hello), SL_OK);
    ck_assert_int_eq(sl_wire_put_welcome(&peer->writer, &welcome), SL_OK);
    peer_send(peer, 0);
}

static void *serve(void *ctx)
{
    struct peer *peer = ctx;

    ck_assert_msg(wait_readable(peer->listen_fd, WAIT_MS), "the client does not connect");
    peer->fd = accept(peer->listen_fd, NULL, NULL);
    ck_assert_int_ge(peer->fd, 0);
    ck_assert_int_eq(sl_os_set_nonblocking(peer->fd, false), SL_OK);
    if (!peer->is_raw) {
        greet(peer);
    }
    peer->script(peer, peer->ctx);
    sl_os_close(&peer->fd);
    return NULL;
}

static struct peer *start(peer_script *script, void *ctx, bool is_raw)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    char *buf = malloc(WRITER_BYTES);

    ck_assert(peer != NULL && buf != NULL);
    *peer = (struct peer){.path = tmp_dir_file("peer.sock"),
                          .script = script,
                          .ctx = ctx,
                          .is_raw = is_raw,
                          .fd = -1,
                          .decoder = sl_wire_decoder_open()};
    sl_wire_writer_init(&peer->writer, buf, WRITER_BYTES);
    ck_assert_ptr_nonnull(peer->decoder);
    ck_assert_int_eq(sl_os_listen_unix(peer->path, 0600, &peer->listen_fd), SL_OK);
    ck_assert_int_eq(pthread_create(&peer->thread, NULL, serve, peer), 0);
    return peer;
}

struct peer *peer_open(peer_script *script, void *ctx)
{
    return start(script, ctx, false);
}

struct peer *peer_open_raw(peer_script *script, void *ctx)
{
    return start(script, ctx, true);
}

void peer_join(struct peer *peer)
{
    ck_assert_int_eq(pthread_join(peer->thread, NULL), 0);
    sl_os_close(&peer->listen_fd);
    sl_wire_decoder_close(&peer->decoder);
    free(peer->writer.buf);
    free(peer->payload);
    free(peer);
}
