#ifndef SL_TESTS_SUPPORT_WORKER_CASE_H
#define SL_TESTS_SUPPORT_WORKER_CASE_H

/*
 * What the tests of the worker service share: the provider stub, a configuration with a provider
 * for each kind of trouble, a broker of the test, and sluice-worker itself.
 */

#include "tests/support/fake_broker.h"
#include "tests/support/process.h"
#include "tests/support/tmp_dir.h"
#include "tests/support/wait.h"

/* One fixture at a time, in the process of the test. */
struct worker_case {
    struct process stub;
    struct process service;
    struct fake_broker *broker;
    size_t worker; /* of the broker */
    unsigned stub_port;
    int own_fd; /* the test's own listener: of providers "garbled" and "observed" */
};
extern struct worker_case worker_case;

/* Fixtures: all but the service; and with a service that has joined as generation 7. */
void worker_case_parts(void);
void worker_case_begin(void);
void worker_case_end(void);

/* Starts sluice-worker, with one more option or NULL. */
void worker_case_start(const char *option);
/* Writes sluice.conf; `more` is text among its providers. */
void worker_case_config(unsigned port, const char *more);

/* A chat call with this prompt; timeout_ms 0: the provider's. */
void worker_case_send(uint64_t task, const char *provider, const char *prompt, uint32_t timeout_ms);
/* Waits for the next result; shows the service's log when none comes. */
void worker_case_result(struct fake_result *out);
bool worker_case_has_text(const char *path, const char *text);

#endif
