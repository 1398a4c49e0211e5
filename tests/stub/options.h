#ifndef SL_TESTS_STUB_OPTIONS_H
#define SL_TESTS_STUB_OPTIONS_H

/*
 * The stub's command line, read once; const from then on. Strings are borrowed from argv.
 * Stub only; main thread at start; prints help and complaints as common/opts.h says.
 */

#include "common/opts.h"
#include "tests/stub/fate.h"

#define SL_STUB_ODDS_MAX 32
#define SL_STUB_THREADS_MAX 64

struct sl_stub_options {
    char host[64];
    uint16_t port; /* 0: a free one */
    const char *port_file;
    const char *log_file;
    int threads;
    uint64_t seed;
    int64_t latency_ns;
    int64_t jitter_ns;
    size_t response_bytes;
    double rpm; /* 0: no limit */
    double tpm;
    int64_t concurrent_max;  /* 0: no limit */
    const char *require_key; /* NULL: any */
    struct sl_stub_odds odds[SL_STUB_ODDS_MAX];
    size_t odds_count;
    int64_t fail_first;
    struct sl_stub_fault first_fault;
    int64_t retry_after_ms; /* on injected 429 and 503; SL_STUB_UNSET: none */
    int64_t slow_ms;
    size_t slow_bytes;
    const char *redirect_to;
    bool is_echo_full;
    bool is_chunked;
    bool dies_with_parent;
};

/* SL_OPTS_EXIT: help, version or a complaint was printed; end with *exit_status. */
MUST_CHECK enum sl_opts_result sl_stub_options_read(int argc, char **argv,
                                                    struct sl_stub_options *out, int *exit_status);

#endif
