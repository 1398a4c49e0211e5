#ifndef SL_WORKER_PARENT_H
#define SL_WORKER_PARENT_H

/*
 * The parent of the workers: forks them, watches them, starts them again.
 */

#include "common/params.h"

struct sl_parent_options {
    const char *config_path; /* --config; may be NULL */
    const struct sl_config *cfg;
    bool is_private; /* one of a private pair: end when the broker has drained the workers, or stays
                        away for idle_exit */
};

/* Runs until a drain has ended (0) or a worker finds its configuration unusable (3); 5 when the
 * system denies what it needs. In a worker process that it forked this does not return. Call from
 * the main thread, before any other thread, with no libcurl in use. */
int sl_parent_run(const struct sl_parent_options *options);

/* When to start a worker again after a death: 100 ms, doubled up to 30 s, from the start again when
 * the one that died had lived for a minute. `is_storm`: the fifth death within 10 s. Pure. */
#define SL_DEATHS_KEPT 5
struct sl_restart {
    int64_t gap_ns; /* 0: no death yet */
    int64_t deaths_ns[SL_DEATHS_KEPT];
    uint64_t death_count;
};
int64_t sl_restart_next(struct sl_restart *restart, int64_t started_ns, int64_t now_ns,
                        bool *is_storm);

#endif
