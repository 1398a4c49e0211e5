#ifndef SL_COMMON_PARAMS_H
#define SL_COMMON_PARAMS_H

/*
 * The door to libconfig: one const configuration from the table common/tbl/params.def, the file,
 * and the environment (in rising order of precedence: default, file, environment).
 *
 * Everything is checked at load: unknown keys, wrong types, numbers out of range, two providers of
 * one name, keys of providers in the file. The first fault is reported with file and line. Any
 * process, start-up and SIGHUP only; reads files, so it may block; not thread-safe (libconfig,
 * getenv).
 */

#include "common/err.h"
#include "common/limits.h"
#include "common/log.h"

enum sl_provider_kind { SL_PROVIDER_OPENAI, SL_PROVIDER_ANTHROPIC, SL_PROVIDER_GEMINI };

struct sl_provider_config {
    char name[SL_NAME_BYTES_MAX + 1];
    enum sl_provider_kind kind;
    char base_url[SL_URL_BYTES_MAX]; /* without a trailing slash */
    char api_key_env[SL_NAME_BYTES_MAX + 1];
    char api_key_file[SL_PATH_BYTES_MAX];
    char models[SL_PROVIDER_MODELS_MAX][SL_NAME_BYTES_MAX + 1]; /* globs: * and ? */
    uint32_t model_count;
    uint32_t concurrency; /* 0: as many as the queue's */
    uint32_t rpm;
    uint32_t tpm;
    int64_t connect_timeout_ms;
    int64_t first_byte_timeout_ms; /* 0: only timeout_ms counts */
    int64_t timeout_ms;
    uint32_t retry_max_attempts;
    int64_t retry_base_ms;
    int64_t retry_max_ms;
    uint32_t breaker_failures;
    int64_t breaker_open_ms;
    char fallback[SL_PROVIDERS_MAX][SL_NAME_BYTES_MAX + 1];
    uint32_t fallback_count;
};

struct sl_config {
    bool queue_enabled;
    uint32_t concurrency;
    char state_dir[SL_PATH_BYTES_MAX];
    char socket_path[SL_PATH_BYTES_MAX];
    enum sl_log_level log_level;
    int64_t drain_timeout_ms;
    int64_t idle_exit_ms;
    uint32_t worker_processes; /* resolved: 0 in the file becomes the number of processors */
    bool cache_enabled;
    int64_t cache_ttl_ms;
    int64_t cache_bytes_max;
    char http_listen[64]; /* "address:port", empty: off */
    struct sl_provider_config providers[SL_PROVIDERS_MAX];
    uint32_t provider_count;
    char source[SL_PATH_BYTES_MAX]; /* the file read; empty: built-in defaults */
};

struct sl_config_fault {
    char text[512]; /* "FILE:LINE: what is wrong, and how to mend it" */
};

/* Finds and loads: `path` (from --config) or $SLUICE_CONFIG, ~/.config/sluice/sluice.conf,
 * /etc/sluice/sluice.conf; none there: defaults for one person (user-level paths, one provider for
 * each known API key in the environment, http off). A file named by `path` or $SLUICE_CONFIG must
 * exist. SL_ERR_CONFIG with *fault filled in. The configuration is large: keep it static or on the
 * heap. */
MUST_CHECK enum sl_err sl_config_load(const char *path, struct sl_config *out,
                                      struct sl_config_fault *fault);

/* Settings away from their default that this version reads but does not obey yet, named in `text`
 * ("a, b"); empty: none. */
void sl_config_unused(const struct sl_config *config, char *text, size_t size);

/* After a SIGHUP: settings that differ but take effect at a restart only, named in `text` ("a, b");
 * empty: none. */
void sl_config_restart_needed(const struct sl_config *running, const struct sl_config *loaded,
                              char *text, size_t size);
/* Those that differ and take effect at once, likewise; providers of one name are compared. */
void sl_config_changed(const struct sl_config *running, const struct sl_config *loaded, char *text,
                       size_t size);
/* Puts the running values of the settings that need a restart into `loaded`. */
void sl_config_keep_running(const struct sl_config *running, struct sl_config *loaded);

/* The first provider whose models match; or the one of that name. NULL: none. */
const struct sl_provider_config *sl_config_find_provider(const struct sl_config *config,
                                                         struct sl_span name);
const struct sl_provider_config *sl_config_find_model(const struct sl_config *config,
                                                      struct sl_span model);

/* Does the text match the glob (* any run, ? one byte; no escapes; time bounded by the product
 * of the lengths)? */
bool sl_glob_matches(const char *glob, struct sl_span text);

/* The table, for help, docs and tests: one line "name  type  unit  range  default  effect  help"
 * each, in the table's order; false past the end. */
struct sl_param_info {
    const char *name; /* dotted: "providers.retry.max_attempts" */
    const char *type;
    const char *unit;
    const char *range;
    const char *default_text;
    const char *effect; /* "restart" | "reload" */
    const char *env;    /* "" : none */
    const char *help;
    bool is_obeyed; /* false: read and checked, but without effect in this version */
};
bool sl_param_at(size_t idx, struct sl_param_info *out);

#endif
