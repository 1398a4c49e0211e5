#ifndef SL_WORKER_RUN_H
#define SL_WORKER_RUN_H

/*
 * One worker, from its fork to its end.
 */

#include "common/params.h"

#define SL_WORKER_EXIT_CONFIG 3  /* do not start another: the configuration or version is wrong */
#define SL_PRIVATE_WAIT_MS 10000 /* least wait of a private worker for its broker */
#define SL_DRAIN_GRACE_MS 3000   /* after drain_timeout: to hand over what is there */

struct sl_worker_options {
    const char *config_path; /* --config, for a reload; may be NULL */
    const struct sl_config *cfg;
    uint32_t slot;   /* of the parent, for logs */
    bool is_private; /* drain when no broker was there for idle_exit */
};

/* Runs until it is drained (0), finds its configuration unusable (SL_WORKER_EXIT_CONFIG) or cannot
 * go on (another exit status). Signals of the parent must be reset before. */
int sl_worker_run(const struct sl_worker_options *options);

#endif
