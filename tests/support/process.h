#ifndef SL_TESTS_SUPPORT_PROCESS_H
#define SL_TESTS_SUPPORT_PROCESS_H

/*
 * Programs started by a test, each in a process group of its own, that do not outlive the test:
 * the program dies with the thread that started it (PR_SET_PDEATHSIG), and process_end kills its
 * whole group. For test processes only. A program that cannot be started ends with status 127.
 */

#include <sys/types.h>

#include "common/base.h"

struct process {
    pid_t pid;  /* and the number of its group; 0: none */
    int pidfd;  /* readable once it has ended */
    int status; /* valid once has_ended: exit status, or 128 + signal */
    bool has_ended;
};

/* Starts argv[0] (searched in PATH; argv ends with NULL). `out_path` is given its stdout and
 * stderr, appended; NULL: they are the test's. */
void process_start(struct process *process, const char *const *argv, const char *out_path);

/* Waits for its end; false: it still runs. */
MUST_CHECK bool process_wait(struct process *process, int timeout_ms);

/* Sends a signal to the process alone; harmless when it has ended. */
void process_signal(const struct process *process, int signal);

/* Kills what is left of the group and reaps the process; status stays readable. For a fixture's
 * end: harmless when it has ended, a second time, and on a struct of zeros. */
void process_end(struct process *process);

#endif
