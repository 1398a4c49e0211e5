/*
 * Questions to a loaded configuration: which provider takes a model, what is not obeyed yet, what a
 * reload cannot change.
 *
 * Allocates nothing, makes no system call. Looking up a provider is pure: any thread, once per
 * accepted task, a plain walk over at most 32 providers x 64 globs. sl_config_unused() is for the
 * main thread at start-up: it keeps a static scratch configuration, which is too large for a stack.
 * Reports no errors: what it gets was checked at load.
 */
#include <stdio.h>

#include "common/check.h"
#include "common/params_table.h"

bool sl_glob_matches(const char *glob, struct sl_span text)
{
    size_t at = 0;
    const char *star = NULL; /* the last '*' seen, and where in the text it began */
    size_t star_at = 0;

    while (at < text.len) {
        if (*glob == '*') {
            star = glob++;
            star_at = at;
        } else if (*glob != '\0' && (*glob == '?' || *glob == text.ptr[at])) {
            glob++;
            at++;
        } else if (star != NULL) {
            glob = star + 1;
            at = ++star_at;
        } else {
            return false;
        }
    }
    return glob[strspn(glob, "*")] == '\0';
}

const struct sl_provider_config *sl_config_find_provider(const struct sl_config *config,
                                                         struct sl_span name)
{
    for (uint32_t i = 0; i < config->provider_count; i++) {
        if (sl_span_equal(name, sl_span_str(config->providers[i].name))) {
            return &config->providers[i];
        }
    }
    return NULL;
}

static bool provider_takes(const struct sl_provider_config *provider, struct sl_span model)
{
    for (uint32_t i = 0; i < provider->model_count; i++) {
        if (sl_glob_matches(provider->models[i], model)) {
            return true;
        }
    }
    return false;
}

const struct sl_provider_config *sl_config_find_model(const struct sl_config *config,
                                                      struct sl_span model)
{
    for (uint32_t i = 0; i < config->provider_count; i++) {
        if (provider_takes(&config->providers[i], model)) {
            return &config->providers[i];
        }
    }
    return NULL;
}

/* ---- settings by name ------------------------------------------------------------------------ */

static void append_name(char *text, size_t size, const char *name)
{
    size_t len = strlen(text);
    int written = snprintf(text + len, size - len, "%s%s", len > 0 ? ", " : "", name);

    if (written < 0 || (size_t)written >= size - len) {
        text[len] = '\0'; /* whole names only */
    }
}

static bool is_all_zero(const char *bytes, size_t len)
{
    return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* Does the member differ from the table's default? Lists and strings have none but empty. */
static bool is_away_from_default(const struct sl_param *row, const char *base,
                                 const struct sl_config *standard)
{
    const char *standard_base =
        row->is_of_provider ? (const char *)&standard->providers[0] : (const char *)standard;

    if (row->type == SL_PARAM_NAMES) {
        return !is_all_zero(base + row->count_offset, sizeof(uint32_t));
    }
    return memcmp(base + row->offset, standard_base + row->offset, row->size) != 0;
}

static bool is_set_anywhere(const struct sl_param *row, const struct sl_config *config,
                            const struct sl_config *standard)
{
    if (!row->is_of_provider) {
        return is_away_from_default(row, (const char *)config, standard);
    }
    for (uint32_t i = 0; i < config->provider_count; i++) {
        if (is_away_from_default(row, (const char *)&config->providers[i], standard)) {
            return true;
        }
    }
    return false;
}

void sl_config_unused(const struct sl_config *config, char *text, size_t size)
{
    static struct sl_config standard; /* written with the same values each time */
    static struct sl_params_load load;
    static struct sl_config_fault fault;
    const struct sl_param *row;

    load.config = &standard;
    load.fault = &fault;
    sl_params_set_defaults(&load, NULL);
    sl_params_set_defaults(&load, &standard.providers[0]);
    SL_ASSERT(size > 0);
    text[0] = '\0';
    for (size_t i = 0; (row = sl_params_row(i)) != NULL; i++) {
        if (!row->is_obeyed && is_set_anywhere(row, config, &standard)) {
            append_name(text, size, row->key);
        }
    }
}

/* ---- a reload -------------------------------------------------------------------------------- */

static bool differs(const struct sl_param *row, const void *one, const void *other)
{
    return memcmp((const char *)one + row->offset, (const char *)other + row->offset, row->size) !=
           0;
}

static bool differs_anywhere(const struct sl_param *row, const struct sl_config *running,
                             const struct sl_config *loaded)
{
    if (!row->is_of_provider) {
        return differs(row, running, loaded);
    }
    for (uint32_t i = 0; i < running->provider_count; i++) {
        const struct sl_provider_config *before = &running->providers[i];
        const struct sl_provider_config *now =
            sl_config_find_provider(loaded, sl_span_str(before->name));
        if (now != NULL && differs(row, before, now)) {
            return true;
        }
    }
    return false;
}

static void name_differences(const struct sl_config *running, const struct sl_config *loaded,
                             enum sl_param_effect effect, char *text, size_t size)
{
    const struct sl_param *row;

    SL_ASSERT(size > 0);
    text[0] = '\0';
    for (size_t i = 0; (row = sl_params_row(i)) != NULL; i++) {
        if (row->effect == effect && differs_anywhere(row, running, loaded)) {
            append_name(text, size, row->key);
        }
    }
}

void sl_config_restart_needed(const struct sl_config *running, const struct sl_config *loaded,
                              char *text, size_t size)
{
    name_differences(running, loaded, SL_PARAM_RESTART, text, size);
}

void sl_config_changed(const struct sl_config *running, const struct sl_config *loaded, char *text,
                       size_t size)
{
    name_differences(running, loaded, SL_PARAM_RELOAD, text, size);
}

void sl_config_keep_running(const struct sl_config *running, struct sl_config *loaded)
{
    const struct sl_param *row;

    for (size_t i = 0; (row = sl_params_row(i)) != NULL; i++) {
        if (row->effect == SL_PARAM_RESTART) {
            SL_ASSERT(!row->is_of_provider); /* a reload replaces providers as a whole */
            memcpy((char *)loaded + row->offset, (const char *)running + row->offset, row->size);
        }
    }
}
