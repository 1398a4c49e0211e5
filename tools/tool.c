/*
 * Common ground of the tools: configuration, stop signals, connection, error reports.
 *
 * Runs in sluice-submit, sluice-status and sluice-ctl. An error is printed once, at the end of the
 * path it took, on one line: what, where, how to mend it. Texts from the broker and from files are
 * printed without their control characters, so they cannot steer a terminal.
 *
 * Never retries by itself; never touches the store. Reports what the client library and the
 * configuration report.
 */
#include "tools/tool.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/os.h"

#define SAY_BYTES 2048

static void say_text(const struct sl_tool *tool, char *text)
{
    for (char *at = text; *at != '\0'; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f) {
            *at = '?';
        }
    }
    fprintf(stderr, "%s%s%s\n", tool->program, tool->program[0] != '\0' ? ": " : "", text);
}

void sl_tool_say(const struct sl_tool *tool, const char *format, ...)
{
    char text[SAY_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    say_text(tool, text);
}

enum sl_err sl_tool_fail(struct sl_tool *tool, enum sl_err err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(tool->fault.text, sizeof(tool->fault.text), format, args);
    va_end(args);
    return err;
}

enum sl_err sl_tool_keep_fault(struct sl_tool *tool, enum sl_err err)
{
    if (tool->client != NULL) {
        snprintf(tool->fault.text, sizeof(tool->fault.text), "%s", sl_client_message(tool->client));
    }
    return err;
}

int sl_tool_report(const struct sl_tool *tool, enum sl_err err)
{
    const char *text = tool->fault.text[0] != '\0' ? tool->fault.text : sl_err_meaning(err);
    const char *advice = sl_err_advice(err);

    sl_tool_say(tool, "%s%s%s", text, advice[0] != '\0' ? "; " : "", advice);
    return sl_err_exit_status(err);
}

enum sl_err sl_tool_init(struct sl_tool *tool, const char *program, const char *config_path)
{
    static const int signals[] = {SIGINT, SIGTERM, 0};
    struct sl_config_fault fault;

    memset(tool, 0, sizeof(*tool));
    tool->program = program;
    tool->config_path = config_path;
    tool->stop_fd = -1;
    tool->cfg = calloc(1, sizeof(*tool->cfg));
    if (tool->cfg == NULL) {
        sl_tool_report(tool, SL_ERR_NO_MEMORY);
        return SL_ERR_NO_MEMORY;
    }
    enum sl_err err = sl_config_load(config_path, tool->cfg, &fault);
    if (err != SL_OK) {
        sl_tool_say(tool, "%s", fault.text);
        return err;
    }
    err = sl_os_signal_fd(signals, &tool->stop_fd);
    if (err != SL_OK) {
        sl_tool_fail(tool, err, "cannot watch signals: %s", strerror(errno));
        sl_tool_report(tool, err);
    }
    return err;
}

void sl_tool_fini(struct sl_tool *tool)
{
    sl_tool_disconnect(tool);
    sl_os_close(&tool->stop_fd);
    free(tool->cfg);
    tool->cfg = NULL;
}

enum sl_err sl_tool_connect(struct sl_tool *tool)
{
    sl_tool_disconnect(tool);
    enum sl_err err = sl_client_open(tool->cfg->socket_path, &tool->client, &tool->fault);

    if (err == SL_OK) {
        sl_client_set_stop_fd(tool->client, tool->stop_fd);
    }
    return err;
}

void sl_tool_disconnect(struct sl_tool *tool)
{
    sl_client_close(&tool->client);
}

bool sl_tool_is_stopped(const struct sl_tool *tool, int timeout_ms)
{
    struct pollfd stop = {.fd = tool->stop_fd, .events = POLLIN};

    return poll(&stop, 1, timeout_ms) > 0;
}
