/*
 * Loads the configuration: defaults, then the file, then the environment, then the usual places,
 * then the checks between values.
 *
 * Runs at start-up and SIGHUP of every program, main thread. The caller's configuration is written
 * only when everything was right, so a bad file at SIGHUP changes nothing. Never reads a key's
 * value: it only sees whether OPENAI_API_KEY is set. Never logs: the fault is the caller's to
 * print. SL_ERR_CONFIG with its text, or SL_ERR_NO_MEMORY.
 */
#include "common/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/check.h"
#include "common/params_table.h"

/* ---- the environment ------------------------------------------------------------------------- */

static const char *find_variable(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool load_environment(struct sl_params_load *load)
{
    const struct sl_param *row;

    for (size_t i = 0; (row = sl_params_row(i)) != NULL; i++) {
        const char *value = row->env[0] != '\0' ? find_variable(row->env) : NULL;
        if (value == NULL) {
            continue;
        }
        struct sl_param_target target = {
            .load = load, .row = row, .origin = {.variable = row->env}};
        if (!sl_params_set_text(&target, value)) {
            return false;
        }
    }
    return true;
}

/* The provider of one person without a file: OpenAI, or what OPENAI_BASE_URL says, with the usual
 * variable for its key. */
static bool add_usual_provider(struct sl_params_load *load)
{
    static const char *const models[] = {"gpt-*", "o*", "chatgpt-*", "text-embedding-*"};
    const char *url = find_variable("OPENAI_BASE_URL");
    const struct {
        const char *key;
        const char *variable;
        const char *value;
    } settings[] = {
        {"providers.name", NULL, "openai"},
        {"providers.base_url", url != NULL ? "OPENAI_BASE_URL" : NULL,
         url != NULL ? url : "https://api.openai.com/v1"},
        {"providers.api_key_env", NULL, "OPENAI_API_KEY"},
    };
    struct sl_param_target target = {.load = load, .provider = &load->config->providers[0]};

    if (find_variable("OPENAI_API_KEY") == NULL) {
        return true;
    }
    load->config->provider_count = 1;
    sl_params_set_defaults(load, target.provider);
    for (size_t i = 0; i < SL_ARRAY_LEN(settings); i++) {
        target.row = sl_params_find_row(settings[i].key);
        target.origin.variable = settings[i].variable;
        if (!sl_params_set_string(&target, settings[i].value)) {
            return false;
        }
    }
    target.row = sl_params_find_row("providers.models");
    target.origin.variable = NULL;
    for (size_t i = 0; i < SL_ARRAY_LEN(models); i++) {
        bool is_added = sl_params_add_name(&target, models[i]);
        SL_ASSERT(is_added);
    }
    return true;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void count_processors(struct sl_config *config)
{
    if (config->worker_processes == 0) {
        long count = sysconf(_SC_NPROCESSORS_ONLN);
        config->worker_processes = (uint32_t)SL_MIN(SL_MAX(count, 1), SL_LANES_MAX);
    }
}

static bool load_all(struct sl_params_load *load, const char *path)
{
    if (!sl_params_find_file(load, path, SL_PARAMS_SYSTEM_FILE)) {
        return false;
    }
    sl_params_set_defaults(load, NULL);
    bool has_file = load->config->source[0] != '\0';
    if (!(has_file ? sl_params_load_file(load) : add_usual_provider(load)) ||
        !load_environment(load) || !sl_params_set_paths(load) || !sl_params_check_all(load)) {
        return false;
    }
    count_processors(load->config);
    return true;
}

enum sl_err sl_config_load(const char *path, struct sl_config *out, struct sl_config_fault *fault)
{
    struct sl_params_load *load = calloc(1, sizeof(*load));
    struct sl_config *config = calloc(1, sizeof(*config));
    enum sl_err err = SL_ERR_NO_MEMORY;

    fault->text[0] = '\0';
    if (load == NULL || config == NULL) {
        (void)snprintf(fault->text, sizeof(fault->text), "out of memory");
        goto out;
    }
    load->config = config;
    load->fault = fault;
    err = load_all(load, path) ? SL_OK : SL_ERR_CONFIG;
    if (err == SL_OK) {
        memcpy(out, config, sizeof(*out));
    }
out:
    free(config);
    free(load);
    return err;
}
