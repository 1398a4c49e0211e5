/*
 * sluice-status: what the broker is doing, as a page, as JSON, or redrawn each second.
 *
 * Asks the broker for its status document and prints it; changes nothing. With --watch it goes on
 * asking, also while no broker answers, until q or Ctrl-C; the terminal's mode is put back at the
 * end. Errors are one line on stderr with the contract's exit status.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "common/opts.h"
#include "common/os.h"
#include "tools/doc.h"
#include "tools/status_page.h"
#include "tools/tool.h"

#define WATCH_EVERY_MS 1000

static const struct sl_opt options[] = {
    SL_OPT_CONFIG,
    {"json", NULL, "print the status as one JSON object"},
    {"watch", NULL, "redraw each second; q or Ctrl-C leaves"},
    {"job", "NAME", "only this job"},
    {NULL, NULL, NULL},
};

static const struct sl_opts_spec spec = {
    .program = "sluice-status",
    .usage = "[OPTIONS]",
    .description = "Shows the broker, the queue, providers, workers, and jobs with their progress.",
    .options = options,
    .footer = SL_OPTS_EXIT_STATUSES,
};

struct status {
    struct sl_tool tool;
    struct sl_doc doc;
    struct sl_json_text text;
    struct sl_span job;
    bool as_json;
};

/* Asks for the document and turns it into text. */
static enum sl_err make_text(struct status *status)
{
    struct sl_tool *tool = &status->tool;
    enum sl_err err = tool->client == NULL ? sl_tool_connect(tool) : SL_OK;

    if (err != SL_OK) {
        return err;
    }
    sl_doc_clear(&status->doc);
    status->text.len = 0;
    err = sl_client_status(tool->client, status->job, sl_doc_add, &status->doc);
    if (err == SL_ERR_NOT_FOUND) {
        return sl_tool_fail(tool, err, "no such job: %.*s", (int)status->job.len, status->job.ptr);
    }
    if (err != SL_OK) {
        return sl_tool_keep_fault(tool, err);
    }
    if (!sl_doc_is_whole(&status->doc)) {
        return sl_tool_fail(tool, SL_ERR_PROTOCOL, "the broker's status is not understood");
    }
    if (status->as_json) {
        sl_doc_put_json(&status->doc, &status->text);
        sl_json_put_raw(&status->text, sl_span_str("\n"));
    } else {
        sl_status_put_page(&status->doc, status->job.len > 0, &status->text);
    }
    return status->text.is_failed ? sl_tool_fail(tool, SL_ERR_NO_MEMORY, "out of memory") : SL_OK;
}

static enum sl_err write_text(struct status *status)
{
    if (sl_os_write_all(STDOUT_FILENO, status->text.buf, status->text.len, -1) != SL_OK) {
        return sl_tool_fail(&status->tool, SL_ERR_OUTPUT, "cannot write standard output: %s",
                            strerror(errno));
    }
    return SL_OK;
}

static int show_once(struct status *status)
{
    enum sl_err err = make_text(status);

    if (err == SL_OK) {
        err = write_text(status);
    }
    return err == SL_OK ? 0 : sl_tool_report(&status->tool, err);
}

/* ---- watching -------------------------------------------------------------------------------- */

/* Keys at once and unseen; false: standard input is no terminal. */
static bool set_key_mode(struct termios *old)
{
    struct termios mode;

    if (isatty(STDIN_FILENO) != 1 || tcgetattr(STDIN_FILENO, old) != 0) {
        return false;
    }
    mode = *old;
    mode.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
    return tcsetattr(STDIN_FILENO, TCSANOW, &mode) == 0;
}

/* Waits for the next redraw; true: leave. */
static bool wait_for_leave(const struct status *status, bool has_keys)
{
    struct pollfd polls[2] = {{.fd = status->tool.stop_fd, .events = POLLIN},
                              {.fd = has_keys ? STDIN_FILENO : -1, .events = POLLIN}};
    char key = 0;

    if (poll(polls, 2, WATCH_EVERY_MS) <= 0) {
        return false;
    }
    if (polls[0].revents != 0) {
        return true;
    }
    return read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q';
}

/* Each line is cleared to its end as it is drawn, and the rest of the screen after the last: no
 * flicker. */
static void draw(struct status *status)
{
    size_t from = 0;

    fputs("\x1b[H", stdout);
    for (size_t i = 0; i < status->text.len; i++) {
        if (status->text.buf[i] == '\n') {
            fwrite(status->text.buf + from, 1, i - from, stdout);
            fputs("\x1b[K\n", stdout);
            from = i + 1;
        }
    }
    fputs("\x1b[J", stdout);
}

static void draw_fault(const struct status *status)
{
    printf("\x1b[H\x1b[J%s\n", status->tool.fault.text);
}

static int watch(struct status *status)
{
    struct termios old;
    bool has_keys = set_key_mode(&old);
    bool is_leaving = false;

    while (!is_leaving) {
        enum sl_err err = make_text(status);
        if (err == SL_ERR_INTERRUPTED) {
            break;
        }
        if (err != SL_OK) {
            sl_tool_disconnect(&status->tool);
            draw_fault(status);
        } else if (status->as_json) {
            fwrite(status->text.buf, 1, status->text.len, stdout);
        } else {
            draw(status);
        }
        is_leaving = fflush(stdout) != 0 || wait_for_leave(status, has_keys);
    }
    if (has_keys) {
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &old);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct status status;
    struct sl_opts opts;
    int exit_status;

    if (sl_opts_parse(&spec, argc, argv, &opts, &exit_status) == SL_OPTS_EXIT) {
        return exit_status;
    }
    const char *job = sl_opts_get(&opts, "job");
    if (job != NULL && (job[0] == '\0' || strlen(job) > SL_NAME_BYTES_MAX)) {
        return sl_opts_refuse(&spec, "--job needs a name of 1 to %d bytes", SL_NAME_BYTES_MAX);
    }
    status.job = sl_span_str(job != NULL ? job : "");
    status.as_json = sl_opts_has(&opts, "json");
    enum sl_err err = sl_tool_init(&status.tool, spec.program, sl_opts_get(&opts, "config"));
    if (err != SL_OK) {
        exit_status = sl_err_exit_status(err);
    } else {
        exit_status = sl_opts_has(&opts, "watch") ? watch(&status) : show_once(&status);
    }
    sl_doc_fini(&status.doc);
    sl_json_text_fini(&status.text);
    sl_tool_fini(&status.tool);
    return exit_status;
}
