/*
 * sluice-broker: options, configuration, then the loop.
 *
 * Never calls a provider, never holds an API key, never forks. Exit statuses are the contract's: 0
 * drained (or disabled), 2 usage, 3 configuration, 5 store unusable or in use.
 */
#include <stdio.h>
#include <stdlib.h>

#include "broker/loop.h"
#include "common/notify.h"
#include "common/opts.h"

static const struct sl_opt options[] = {
    SL_OPT_CONFIG,
    {"check-config", NULL, "read the configuration, say whether it is usable, and end"},
    {"private", NULL,
     "serve one person: leave idle_exit_s after the last task and client are gone,\n"
     "and send the workers home then"},
    {NULL, NULL, NULL},
};

static const struct sl_opts_spec spec = {
    .program = "sluice-broker",
    .usage = "[OPTIONS]",
    .description = "Keeps the queue: accepts tasks, hands them to sluice-worker under all limits,\n"
                   "and keeps each answer. SIGTERM drains, a second one stops at once.",
    .options = options,
    .footer = SL_OPTS_EXIT_STATUSES,
};

static int check_config(const struct sl_config *config)
{
    char unused[512];

    sl_config_unused(config, unused, sizeof(unused));
    printf("configuration ok: %s, %u provider%s\n",
           config->source[0] != '\0' ? config->source : "built-in defaults", config->provider_count,
           config->provider_count == 1 ? "" : "s");
    if (unused[0] != '\0') {
        printf("read, but not obeyed by this version: %s\n", unused);
    }
    return 0;
}

static int run(const struct sl_config *config, const struct sl_broker_options *how)
{
    char unused[512];

    sl_log_init("sluice-broker", config->log_level);
    if (!config->queue_enabled) {
        sl_log(SL_EVENT_DISABLED, "what=\"llm_queue_enabled is false: nothing to do\"");
        sl_notify("READY=1"); /* it has done all it has to: to end now is no failure */
        return 0;
    }
    sl_log(SL_EVENT_START, "version=%s config=%s", SLUICE_VERSION,
           config->source[0] != '\0' ? config->source : "defaults");
    sl_config_unused(config, unused, sizeof(unused));
    if (unused[0] != '\0') {
        sl_log(SL_EVENT_CONFIG_UNUSED, "what=\"%s\"", unused);
    }
    int exit_status = sl_broker_run(config, how);
    sl_log(SL_EVENT_STOP, "exit_status=%d", exit_status);
    return exit_status;
}

int main(int argc, char **argv)
{
    static struct sl_config config; /* large */
    struct sl_config_fault fault;
    struct sl_opts opts;
    int exit_status;

    if (sl_opts_parse(&spec, argc, argv, &opts, &exit_status) == SL_OPTS_EXIT) {
        return exit_status;
    }
    enum sl_err err = sl_config_load(sl_opts_get(&opts, "config"), &config, &fault);
    if (err != SL_OK) {
        fprintf(stderr, "sluice-broker: %s\n", fault.text);
        return sl_err_exit_status(err);
    }
    if (sl_opts_has(&opts, "check-config")) {
        return check_config(&config);
    }
    struct sl_broker_options how = {.config_path = sl_opts_get(&opts, "config"),
                                    .is_private = sl_opts_has(&opts, "private")};
    return run(&config, &how);
}
