#ifndef SL_TESTS_SUPPORT_WAIT_H
#define SL_TESTS_SUPPORT_WAIT_H

/*
 * Waiting for events, with a deadline, instead of sleeping; and TCP ports of loopback. Each wait
 * says whether the event came: what it means when it did not is the test's to say. A machine that
 * cannot give a socket or a watch is not fit for tests: the program ends with a message.
 */

#include "common/base.h"

/* Long enough for a loaded machine under a sanitizer; a test that reaches it has failed. */
#define WAIT_MS 20000

/* Until the descriptor is readable (or at its end). */
MUST_CHECK bool wait_readable(int fd, int timeout_ms);
/* Until there is a file at `path`; its directory must be there already. */
MUST_CHECK bool wait_file(const char *path, int timeout_ms);
/* Until the file at `path` holds `text` somewhere: for logs. Its directory must be there already.
 */
MUST_CHECK bool wait_text(const char *path, const char *text, int timeout_ms);

/* A port that is free now. A program that can take port 0 should be given that instead: between
 * this call and the use of the port somebody else may take it. */
uint16_t port_free(void);
/* Connects to 127.0.0.1; the descriptor (blocking), or -1 with errno. */
int port_connect(uint16_t port);

#endif
