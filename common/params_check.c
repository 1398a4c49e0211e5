/*
 * What a value must look like beyond its range, and what must hold between several values.
 *
 * Runs at start-up and SIGHUP of every program, main thread; pure but for the fault it writes.
 * Strict on purpose: a provider's name becomes a metric label and a file name, a URL is called with
 * a key, a model name goes into JSON. Nothing is mended silently. A URL or the name of a variable
 * is never repeated in a message, because a secret may stand in it by mistake.
 */
#include "common/params_table.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>

#include "common/check.h"

#define PORT_DIGITS_MAX 5
#define PORT_MAX 65535

/* ---- single strings -------------------------------------------------------------------------- */

static bool has_control_byte(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return true;
        }
    }
    return false;
}

static bool is_made_of(struct sl_span text, const char *others)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char byte = (unsigned char)text.ptr[i];
        bool is_plain = byte < 0x80 && isalnum(byte) != 0;
        if (!is_plain && (byte == '\0' || strchr(others, byte) == NULL)) {
            return false;
        }
    }
    return true;
}

static bool is_port(struct sl_span text, long min)
{
    char digits[PORT_DIGITS_MAX + 1];

    if (text.len == 0 || !sl_span_copy_str(digits, sizeof(digits), text) ||
        strspn(digits, "0123456789") != text.len) {
        return false;
    }
    long port = strtol(digits, NULL, 10);
    return port >= min && port <= PORT_MAX;
}

/* Splits "host:port" or "[host]:port"; the port's span is empty with ptr NULL when it is absent. */
static bool split_host(struct sl_span text, struct sl_span *host, struct sl_span *port)
{
    const char *end = text.ptr + text.len;
    const char *after;

    if (text.len > 0 && text.ptr[0] == '[') {
        const char *close = memchr(text.ptr, ']', text.len);
        if (close == NULL) {
            return false;
        }
        *host = sl_span_of(text.ptr + 1, (size_t)(close - text.ptr - 1));
        after = close + 1;
    } else {
        const char *colon = memchr(text.ptr, ':', text.len);
        after = colon != NULL ? colon : end;
        *host = sl_span_of(text.ptr, (size_t)(after - text.ptr));
    }
    *port = sl_span_of(NULL, 0);
    if (after < end) {
        *port = sl_span_of(after + 1, (size_t)(end - after - 1));
    }
    return host->len > 0 && (after == end || *after == ':');
}

static bool is_ip(int family, struct sl_span text)
{
    char address[INET6_ADDRSTRLEN];
    unsigned char bytes[sizeof(struct in6_addr)];

    return sl_span_copy_str(address, sizeof(address), text) &&
           inet_pton(family, address, bytes) == 1;
}

static bool check_name(const struct sl_param_target *target, const char *value)
{
    if (!is_made_of(sl_span_str(value), "._-") || value[0] == '.') {
        return sl_params_refuse(target,
                                "\"%.60s\" is not a name; use letters, digits, \".\", \"-\" "
                                "and \"_\", not opening with \".\"",
                                value);
    }
    return true;
}

static bool check_variable(const struct sl_param_target *target, const char *value)
{
    if (!is_made_of(sl_span_str(value), "_") || isdigit((unsigned char)value[0])) {
        return sl_params_refuse(target, "is not the name of an environment variable; put the key "
                                        "into a variable and write that variable's name");
    }
    return true;
}

/* What stands after "http://" or "https://"; NULL: neither. */
static const char *skip_scheme(const char *url)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < SL_ARRAY_LEN(schemes); i++) {
        if (strncmp(url, schemes[i], strlen(schemes[i])) == 0) {
            return url + strlen(schemes[i]);
        }
    }
    return NULL;
}

static bool has_good_host(const char *rest)
{
    struct sl_span host;
    struct sl_span port;

    if (!split_host(sl_span_of(rest, strcspn(rest, "/")), &host, &port)) {
        return false;
    }
    bool is_host = rest[0] == '[' ? is_ip(AF_INET6, host) : is_made_of(host, ".-_");
    return is_host && (port.ptr == NULL || is_port(port, 1));
}

static bool check_url(const struct sl_param_target *target, const char *value)
{
    const char *rest = skip_scheme(value);

    if (rest == NULL) {
        return sl_params_refuse(target, "does not open with http:// or https://; write such as "
                                        "https://api.openai.com/v1");
    }
    if (strpbrk(rest, "@?# \\\"") != NULL) {
        return sl_params_refuse(target, "holds a user, a query, a fragment or a space; write only "
                                        "scheme, host, port and path");
    }
    if (!has_good_host(rest)) {
        return sl_params_refuse(target, "has no usable host or port; write such as "
                                        "https://api.openai.com/v1 or http://127.0.0.1:8000/v1");
    }
    return true;
}

static bool check_path(const struct sl_param_target *target, const char *value)
{
    if (value[0] != '/') {
        return sl_params_refuse(target, "\"%.60s\" is not an absolute path; let it open with \"/\"",
                                value);
    }
    return true;
}

static bool check_address(const struct sl_param_target *target, const char *value)
{
    struct sl_span host;
    struct sl_span port;
    int family = value[0] == '[' ? AF_INET6 : AF_INET;

    if (!split_host(sl_span_str(value), &host, &port) || port.ptr == NULL || !is_port(port, 0) ||
        !is_ip(family, host)) {
        return sl_params_refuse(target,
                                "\"%.60s\" is not address:port; write such as "
                                "127.0.0.1:8420 or [::1]:8420, or \"\" for off",
                                value);
    }
    return true;
}

bool sl_params_check_string(const struct sl_param_target *target, const char *value)
{
    if (has_control_byte(value)) {
        return sl_params_refuse(target, "holds a control character; remove it");
    }
    switch (target->row->type) {
    case SL_PARAM_NAME:
        return check_name(target, value);
    case SL_PARAM_VARIABLE:
        return check_variable(target, value);
    case SL_PARAM_URL:
        return check_url(target, value);
    case SL_PARAM_PATH:
        return check_path(target, value);
    case SL_PARAM_ADDRESS:
        return check_address(target, value);
    case SL_PARAM_NAMES:
        return true;
    case SL_PARAM_BOOL:
    case SL_PARAM_COUNT:
    case SL_PARAM_AMOUNT:
    case SL_PARAM_SECONDS:
    case SL_PARAM_CHOICE:
        break;
    }
    SL_UNREACHABLE();
}

/* ---- between values -------------------------------------------------------------------------- */

/* A fault about `key` of a provider, at its own line or, where it was not set, the provider's. */
static struct sl_param_target target_of(struct sl_params_load *load, uint32_t provider_idx,
                                        const char *key)
{
    const struct sl_param *row = sl_params_find_row(key);

    SL_ASSERT(row != NULL);
    struct sl_param_target target = {
        .load = load,
        .row = row,
        .provider = &load->config->providers[provider_idx],
        .origin = load->provider_origins[provider_idx][sl_params_row_idx(row)],
    };
    if (target.origin.line == 0 && target.origin.variable == NULL) {
        target.origin.line = load->provider_lines[provider_idx];
    }
    return target;
}

static bool check_required(struct sl_params_load *load, uint32_t provider_idx)
{
    const struct sl_provider_config *provider = &load->config->providers[provider_idx];
    const struct sl_param *row;

    for (size_t i = 0; (row = sl_params_row(i)) != NULL; i++) {
        if (strcmp(row->default_text, SL_PARAM_DEFAULT_REQUIRED) != 0 ||
            ((const char *)provider)[row->offset] != '\0') {
            continue;
        }
        struct sl_param_target target = target_of(load, provider_idx, row->key);
        return sl_params_refuse(&target, "is missing; every provider needs it");
    }
    return true;
}

static bool check_unique(struct sl_params_load *load, uint32_t provider_idx)
{
    const struct sl_provider_config *providers = load->config->providers;

    for (uint32_t i = 0; i < provider_idx; i++) {
        if (strcmp(providers[i].name, providers[provider_idx].name) == 0) {
            struct sl_param_target target = target_of(load, provider_idx, "providers.name");
            return sl_params_refuse(&target,
                                    "\"%.60s\" is the name of the provider at line %d "
                                    "too; give each its own",
                                    providers[i].name, load->provider_lines[i]);
        }
    }
    return true;
}

static bool check_kind(struct sl_params_load *load, uint32_t provider_idx)
{
    const char *name = "openai";

    switch (load->config->providers[provider_idx].kind) {
    case SL_PROVIDER_OPENAI:
        return true;
    case SL_PROVIDER_ANTHROPIC:
        name = "anthropic";
        break;
    case SL_PROVIDER_GEMINI:
        name = "gemini";
        break;
    }
    struct sl_param_target target = target_of(load, provider_idx, "providers.kind");
    return sl_params_refuse(&target,
                            "kind \"%s\" is not supported by this version yet; use "
                            "\"openai\" with an OpenAI-compatible base_url, or remove it",
                            name);
}

static bool check_key_source(struct sl_params_load *load, uint32_t provider_idx)
{
    const struct sl_provider_config *provider = &load->config->providers[provider_idx];

    if (provider->api_key_env[0] != '\0' && provider->api_key_file[0] != '\0') {
        struct sl_param_target target = target_of(load, provider_idx, "providers.api_key_file");
        return sl_params_refuse(&target, "api_key_env is set too; keep one of them");
    }
    return true;
}

static bool check_retry(struct sl_params_load *load, uint32_t provider_idx)
{
    const struct sl_provider_config *provider = &load->config->providers[provider_idx];

    if (provider->retry_max_ms >= provider->retry_base_ms) {
        return true;
    }
    struct sl_param_target target = target_of(load, provider_idx, "providers.retry.max_ms");
    return sl_params_refuse(&target,
                            "%lld is less than retry.base_ms (%lld); raise it or lower "
                            "retry.base_ms",
                            (long long)provider->retry_max_ms, (long long)provider->retry_base_ms);
}

static bool check_fallback(struct sl_params_load *load, uint32_t provider_idx)
{
    const struct sl_provider_config *provider = &load->config->providers[provider_idx];

    for (uint32_t i = 0; i < provider->fallback_count; i++) {
        const char *name = provider->fallback[i];
        const struct sl_provider_config *other =
            sl_config_find_provider(load->config, sl_span_str(name));
        if (other != NULL && other != provider) {
            continue;
        }
        struct sl_param_target target = target_of(load, provider_idx, "providers.fallback");
        return sl_params_refuse(&target, "\"%.60s\" is %s; name other providers of this file", name,
                                other == NULL ? "no provider" : "this provider itself");
    }
    return true;
}

bool sl_params_check_all(struct sl_params_load *load)
{
    static bool (*const checks[])(struct sl_params_load *, uint32_t) = {
        check_required, check_unique, check_kind, check_key_source, check_retry, check_fallback,
    };

    for (size_t i = 0; i < SL_ARRAY_LEN(checks); i++) {
        for (uint32_t idx = 0; idx < load->config->provider_count; idx++) {
            if (!checks[i](load, idx)) {
                return false;
            }
        }
    }
    return true;
}
