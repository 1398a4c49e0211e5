/*
 * sluice-stub: an LLM provider for tests, benches and the demo. Speaks HTTP/1.1 like OpenAI, fails
 * on demand, logs what it was asked.
 *
 * A program of its own, started by tests; no part of the product. It never makes a connection,
 * keeps nothing but its log, and prints nothing on stdout but the line that names its address.
 * Errors at start: one line on stderr and status 2 (usage), 4 (cannot listen) or 5 (cannot open a
 * file); SIGTERM and SIGINT end it with status 0 once the log is written.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/os.h"
#include "tests/stub/loop.h"

/* Writes the port beside the file, then renames: who sees the file sees the whole number. */
static bool write_port_file(const char *file, uint16_t port)
{
    char aside[4096];
    int len = snprintf(aside, sizeof(aside), "%s.%ld", file, (long)getpid());

    if (len < 0 || (size_t)len >= sizeof(aside)) {
        errno = ENAMETOOLONG;
        return false;
    }
    FILE *stream = fopen(aside, "we");
    if (stream == NULL) {
        return false;
    }
    bool is_written = fprintf(stream, "%u\n", (unsigned)port) > 0;
    is_written = fclose(stream) == 0 && is_written;
    return is_written && rename(aside, file) == 0;
}

static int fail(enum sl_err err, const char *what, const char *name)
{
    fprintf(stderr, "sluice-stub: %s%s%s: %s\n", what, name != NULL ? " " : "",
            name != NULL ? name : "", strerror(errno));
    return sl_err_exit_status(err);
}

static bool announce(const struct sl_stub_options *options, uint16_t port)
{
    if (options->port_file != NULL && !write_port_file(options->port_file, port)) {
        return false;
    }
    return printf("listening on %s:%u\n", options->host, (unsigned)port) > 0 && fflush(stdout) == 0;
}

static int serve(const struct sl_stub_options *options, struct sl_stub_desk *desk, int signal_fd)
{
    const char *reason;
    struct sl_stub_server *server = sl_stub_server_open(options, desk, signal_fd, &reason);
    int status = 0;

    if (server == NULL) {
        return fail(SL_ERR_UNREACHABLE, reason, NULL);
    }
    if (announce(options, sl_stub_server_port(server))) {
        sl_stub_server_run(server);
    } else {
        status = fail(SL_ERR_OUTPUT, "cannot write the port", options->port_file);
    }
    sl_stub_server_close(&server);
    return status;
}

/* Asks to be ended with the parent, and sees to it that the parent was not gone before that. */
static void follow_parent(void)
{
    pid_t parent = getppid();

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) {
        (void)raise(SIGTERM);
    }
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, 0};
    struct sl_stub_options options;
    int exit_status;
    int signal_fd;

    if (sl_stub_options_read(argc, argv, &options, &exit_status) == SL_OPTS_EXIT) {
        return exit_status;
    }
    if (sl_os_signal_fd(signals, &signal_fd) != SL_OK) {
        return fail(SL_ERR_INTERNAL, "cannot watch signals", NULL);
    }
    if (options.dies_with_parent) {
        follow_parent();
    }
    (void)sl_os_raise_file_limit();
    struct sl_stub_desk *desk = sl_stub_desk_open(&options);
    if (desk == NULL) {
        return fail(SL_ERR_OUTPUT, "cannot open the log", options.log_file);
    }
    int status = serve(&options, desk, signal_fd);
    sl_stub_desk_close(&desk);
    sl_os_close(&signal_fd);
    return status;
}
