#ifndef SL_TOOLS_TOOL_H
#define SL_TOOLS_TOOL_H

/*
 * What every tool needs: configuration, signals as a descriptor, a connection, and one way to
 * report an error. Tools only, main thread; connecting may block.
 */

#include "common/client.h"
#include "common/params.h"

struct sl_tool {
    const char *program;     /* "sluice-submit" */
    const char *config_path; /* of --config; NULL: search */
    struct sl_config *cfg;
    struct sl_client *client; /* NULL: not connected */
    int stop_fd;              /* SIGINT and SIGTERM */
    struct sl_client_fault fault;
};

/* Loads the configuration and turns SIGINT and SIGTERM into a descriptor. On failure the reason is
 * printed already. */
MUST_CHECK enum sl_err sl_tool_init(struct sl_tool *tool, const char *program,
                                    const char *config_path);
void sl_tool_fini(struct sl_tool *tool);

/* Connects to the configured socket, closing the connection there was. On failure tool->fault says
 * why. */
MUST_CHECK enum sl_err sl_tool_connect(struct sl_tool *tool);
void sl_tool_disconnect(struct sl_tool *tool);

/* Copies the client's message into tool->fault and returns `err`: for errors of client calls. */
enum sl_err sl_tool_keep_fault(struct sl_tool *tool, enum sl_err err);
enum sl_err sl_tool_fail(struct sl_tool *tool, enum sl_err err, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* Prints "PROGRAM: tool->fault; advice" and returns the exit status of `err`. */
int sl_tool_report(const struct sl_tool *tool, enum sl_err err);
/* Prints "PROGRAM: text" on stderr, control characters as '?'. */
void sl_tool_say(const struct sl_tool *tool, const char *format, ...) PRINTF_LIKE(2, 3);

/* Has SIGINT or SIGTERM come? Waits up to `timeout_ms` for it. */
bool sl_tool_is_stopped(const struct sl_tool *tool, int timeout_ms);

#endif
