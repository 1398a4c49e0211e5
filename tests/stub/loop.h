#ifndef SL_TESTS_STUB_LOOP_H
#define SL_TESTS_STUB_LOOP_H

/*
 * The stub's event loops: one per thread, each with its own listening socket on the same port.
 * Stub only.
 */

#include "tests/stub/desk.h"

struct sl_stub_server;

/* Opens the listening sockets and all else that can fail. NULL: *reason says why, errno is set. */
struct sl_stub_server *sl_stub_server_open(const struct sl_stub_options *options,
                                           struct sl_stub_desk *desk, int signal_fd,
                                           const char **reason);
/* The port listened on. */
uint16_t sl_stub_server_port(const struct sl_stub_server *server);
/* Serves until SIGTERM or SIGINT comes by the signal descriptor; SIGUSR1 writes the log out. */
void sl_stub_server_run(struct sl_stub_server *server);
void sl_stub_server_close(struct sl_stub_server **server);

#endif
