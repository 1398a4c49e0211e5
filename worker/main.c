/*
 * sluice-worker: makes the calls to the providers.
 *
 * Reads the command line and the configuration, then becomes the parent of the workers. Never opens
 * the store, never listens, never forks here (worker/parent does). Nothing of it survives a crash:
 * what is in flight is covered by the broker's leases.
 *
 * Exit statuses: 0 drained, disabled or only checked; 2 bad usage; 3 configuration not usable; 5
 * the system denies what it needs.
 */
#include <stdio.h>

#include "common/log.h"
#include "common/notify.h"
#include "common/opts.h"
#include "common/params.h"
#include "worker/parent.h"

static const struct sl_opt options[] = {
    SL_OPT_CONFIG,
    {"check-config", NULL, "check the configuration, say what is wrong, and end"},
    {"private", NULL, "one of a private pair: end with its broker"},
    {NULL, NULL, NULL},
};

static const struct sl_opts_spec spec = {
    .program = "sluice-worker",
    .usage = "[OPTIONS]",
    .description = "Makes the calls that sluice-broker hands out, many at once. Waits for a broker "
                   "when none\nis there; start the two in any order. Holds the API keys.",
    .options = options,
    .footer = "Signals: SIGTERM finishes what runs and ends; a second one ends at once; SIGHUP "
              "reads the\nproviders again.\n\n" SL_OPTS_EXIT_STATUSES,
};

static int check_config(const struct sl_config *cfg)
{
    char unused[512];

    sl_config_unused(cfg, unused, sizeof(unused));
    printf("%s: the configuration is usable%s%s\n",
           cfg->source[0] != '\0' ? cfg->source : "built-in defaults",
           unused[0] != '\0' ? "; read but not obeyed by this version: " : "", unused);
    return 0;
}

static int run(const struct sl_opts *opts, const struct sl_config *cfg)
{
    const struct sl_parent_options parent = {
        .config_path = sl_opts_get(opts, "config"),
        .cfg = cfg,
        .is_private = sl_opts_has(opts, "private"),
    };

    sl_log_init("sluice-worker", cfg->log_level);
    if (!cfg->queue_enabled) {
        sl_log(SL_EVENT_DISABLED, "llm_queue_enabled=false config=%s",
               cfg->source[0] != '\0' ? cfg->source : "defaults");
        sl_notify("READY=1"); /* it has done all it has to: to end now is no failure */
        return 0;
    }
    sl_log(SL_EVENT_START, "version=%s config=%s socket=%s processes=%u providers=%u",
           SLUICE_VERSION, cfg->source[0] != '\0' ? cfg->source : "defaults", cfg->socket_path,
           cfg->worker_processes, cfg->provider_count);
    int exit_status = sl_parent_run(&parent);
    sl_log(SL_EVENT_STOP, "status=%d", exit_status);
    return exit_status;
}

int main(int argc, char **argv)
{
    static struct sl_config cfg; /* large */
    struct sl_config_fault fault;
    struct sl_opts opts;
    int exit_status;

    if (sl_opts_parse(&spec, argc, argv, &opts, &exit_status) == SL_OPTS_EXIT) {
        return exit_status;
    }
    if (sl_config_load(sl_opts_get(&opts, "config"), &cfg, &fault) != SL_OK) {
        fprintf(stderr, "sluice-worker: %s\n", fault.text);
        return sl_err_exit_status(SL_ERR_CONFIG);
    }
    return sl_opts_has(&opts, "check-config") ? check_config(&cfg) : run(&opts, &cfg);
}
