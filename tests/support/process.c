/*
 * Starting, watching and ending programs for tests. A program that ended is reaped at process_end
 * alone: until then its number, and its group's, cannot have been given to anybody else.
 *
 * Never waits without a deadline, except for the reaping after SIGKILL. Uses fork: call it from a
 * test's only thread.
 */
#include "tests/support/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/os.h"
#include "tests/support/wait.h"

static void give_up(const char *what)
{
    fprintf(stderr, "process: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* In the child. */
static NO_RETURN void run_program(const char *const *argv, const char *out_path, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(127); /* the test ended before the line above */
    }
    setpgid(0, 0);
    if (out_path != NULL) {
        int fd = open(out_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0) {
            _exit(127);
        }
    }
    /* execvp does not change its arguments; its type is older than const. */
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

void process_start(struct process *process, const char *const *argv, const char *out_path)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid < 0) {
        give_up("fork");
    }
    if (pid == 0) {
        run_program(argv, out_path, parent);
    }
    setpgid(pid, pid); /* both sides do it: whoever comes first, the group is there */
    *process = (struct process){.pid = pid, .pidfd = sl_os_pidfd_open(pid)};
    if (process->pidfd < 0) {
        give_up("pidfd_open");
    }
}

/* WNOWAIT in `options`: leaves the process to be reaped later. */
static void take_status(struct process *process, int options)
{
    siginfo_t info = {0};

    while (waitid(P_PID, (id_t)process->pid, &info, WEXITED | options) != 0) {
        if (errno != EINTR) {
            give_up("waitid");
        }
    }
    process->status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    process->has_ended = true;
}

bool process_wait(struct process *process, int timeout_ms)
{
    if (!process->has_ended && wait_readable(process->pidfd, timeout_ms)) {
        take_status(process, WNOWAIT);
    }
    return process->has_ended;
}

void process_signal(const struct process *process, int signal)
{
    if (process->pid > 0) {
        kill(process->pid, signal);
    }
}

void process_end(struct process *process)
{
    if (process->pid <= 0) {
        return;
    }
    kill(-process->pid, SIGKILL);
    take_status(process, 0);
    sl_os_close(&process->pidfd);
    process->pid = 0;
}
