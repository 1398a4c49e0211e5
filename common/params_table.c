/*
 * The rows of common/tbl/params.def in memory, and how one value gets into its member: range check,
 * then store, then remember where it came from.
 *
 * Runs at start-up and SIGHUP of every program, main thread. Never reads a file or the environment
 * (params.c does) and never allocates. Nothing is cut or rounded into range: what does not fit its
 * member or its range is refused, naming the line or the variable it came from and what would be
 * right. Values of api_key_env and URLs are never repeated in a message: a key may have been put
 * there by mistake.
 */
#include "common/params_table.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/check.h"

#define SOURCE_BYTES_SHOWN 200 /* of the file's name in a fault: the message must have room */

/* ---- the rows -------------------------------------------------------------------------------- */

#define MEMBER(type, member) .offset = offsetof(type, member), .size = sizeof(((type *)0)->member)
#define IN_CONFIG(member) MEMBER(struct sl_config, member)
#define IN_PROVIDER(member) .is_of_provider = true, MEMBER(struct sl_provider_config, member)
#define LIST_IN_PROVIDER(member, count)                                                            \
    IN_PROVIDER(member), .count_offset = offsetof(struct sl_provider_config, count)
#define NUMBERS(from, to) .min = (from), .max = (to), .range = #from ".." #to
#define BYTES(from, to) .min = (from), .max = (to), .range = #from ".." #to " bytes"
#define ITEMS(from, to) .min = (from), .max = (to), .range = #from ".." #to " items"
#define ONE_OF(choices) .range = (choices)
#define TRUE_OR_FALSE .range = "true, false"
#define USE_OBEYED true
#define USE_NOT_YET false

static const struct sl_param rows[] = {
#define X(name, kind, store, measure, limits, standard, when, use, variable, text)                 \
    {.key = (name),                                                                                \
     .type = SL_PARAM_##kind,                                                                      \
     store,                                                                                        \
     .unit = (measure),                                                                            \
     limits,                                                                                       \
     .default_text = (standard),                                                                   \
     .effect = SL_PARAM_##when,                                                                    \
     .is_obeyed = USE_##use,                                                                       \
     .env = (variable),                                                                            \
     .help = (text)},
#include "common/tbl/params.def"
#undef X
};

_Static_assert(SL_ARRAY_LEN(rows) <= SL_PARAM_ROWS_MAX, "every row has room for its origin");
_Static_assert(SL_CONCURRENCY_MAX == 65536 && SL_LANES_MAX == 64 && SL_ATTEMPTS_MAX == 100,
               "ranges in params.def follow limits.h");
_Static_assert(SL_PROVIDER_MODELS_MAX == 64 && SL_PROVIDERS_MAX == 32 && SL_NAME_BYTES_MAX == 128,
               "ranges in params.def follow limits.h");
_Static_assert(SL_PATH_BYTES_MAX == 512 && SL_URL_BYTES_MAX == 512,
               "ranges in params.def follow limits.h");

const struct sl_param *sl_params_row(size_t idx)
{
    return idx < SL_ARRAY_LEN(rows) ? &rows[idx] : NULL;
}

size_t sl_params_row_idx(const struct sl_param *row)
{
    SL_ASSERT(row >= rows && row < rows + SL_ARRAY_LEN(rows));
    return (size_t)(row - rows);
}

const struct sl_param *sl_params_find_row(const char *key)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].key, key) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static const char *type_name(enum sl_param_type type)
{
    switch (type) {
    case SL_PARAM_BOOL:
        return "boolean";
    case SL_PARAM_COUNT:
    case SL_PARAM_AMOUNT:
        return "integer";
    case SL_PARAM_SECONDS:
        return "number";
    case SL_PARAM_CHOICE:
        return "choice";
    case SL_PARAM_NAMES:
        return "list of strings";
    case SL_PARAM_NAME:
    case SL_PARAM_VARIABLE:
        return "string";
    case SL_PARAM_URL:
        return "URL";
    case SL_PARAM_PATH:
        return "path";
    case SL_PARAM_ADDRESS:
        return "address:port";
    }
    SL_UNREACHABLE();
}

bool sl_param_at(size_t idx, struct sl_param_info *out)
{
    const struct sl_param *row = sl_params_row(idx);

    if (row == NULL) {
        return false;
    }
    *out = (struct sl_param_info){
        .name = row->key,
        .type = type_name(row->type),
        .unit = row->unit,
        .range = row->range,
        .default_text = row->default_text,
        .effect = row->effect == SL_PARAM_RELOAD ? "reload" : "restart",
        .env = row->env,
        .help = row->help,
        .is_obeyed = row->is_obeyed,
    };
    return true;
}

/* ---- faults ---------------------------------------------------------------------------------- */

/* Writes where the fault is; long file names lose their beginning. Returns the bytes written. */
static size_t write_place(const struct sl_params_load *load, int line, char *text, size_t size)
{
    const char *source = load->config->source;
    size_t len = strlen(source);
    bool is_cut = len > SOURCE_BYTES_SHOWN;
    int written;

    if (is_cut) {
        source += len - SOURCE_BYTES_SHOWN;
    }
    if (line > 0) {
        written = snprintf(text, size, "%s%s:%d: ", is_cut ? "..." : "", source, line);
    } else {
        written = snprintf(text, size, "%s%s: ", is_cut ? "..." : "", source);
    }
    return (size_t)written;
}

bool sl_params_refuse(const struct sl_param_target *target, const char *format, ...)
{
    struct sl_params_load *load = target->load;
    char *text = load->fault->text;
    size_t size = sizeof(load->fault->text);
    size_t len = 0;
    va_list args;

    if (target->origin.line > 0) {
        len = write_place(load, target->origin.line, text, size);
    }
    const char *what = target->origin.variable != NULL ? target->origin.variable : target->row->key;
    len += (size_t)snprintf(text + len, size - len, "%s: ", what);
    SL_ASSERT(len < size);
    va_start(args, format);
    vsnprintf(text + len, size - len, format, args);
    va_end(args);
    return false;
}

bool sl_params_refuse_line(const struct sl_params_load *load, int line, const char *format, ...)
{
    char *text = load->fault->text;
    size_t size = sizeof(load->fault->text);
    size_t len = load->config->source[0] == '\0' ? 0 : write_place(load, line, text, size);
    va_list args;

    SL_ASSERT(len < size);
    va_start(args, format);
    vsnprintf(text + len, size - len, format, args);
    va_end(args);
    return false;
}

/* ---- values into members --------------------------------------------------------------------- */

static void *member_of(const struct sl_param_target *target)
{
    char *base =
        target->row->is_of_provider ? (char *)target->provider : (char *)target->load->config;

    SL_ASSERT(base != NULL);
    return base + target->row->offset;
}

static void store(const struct sl_param_target *target, const void *value, size_t size)
{
    struct sl_params_load *load = target->load;
    struct sl_param_origin *origins = load->origins;

    SL_ASSERT(size <= target->row->size);
    if (target->provider != NULL) {
        origins = load->provider_origins[target->provider - load->config->providers];
    }
    memset(member_of(target), 0, target->row->size);
    memcpy(member_of(target), value, size);
    origins[sl_params_row_idx(target->row)] = target->origin;
}

bool sl_params_set_bool(const struct sl_param_target *target, bool value)
{
    if (target->row->type != SL_PARAM_BOOL) {
        return sl_params_refuse(target, "is a boolean; write a %s (%s)",
                                type_name(target->row->type), target->row->range);
    }
    SL_ASSERT(target->row->size == sizeof(value));
    store(target, &value, sizeof(value));
    return true;
}

static bool is_whole(enum sl_param_type type)
{
    return type == SL_PARAM_COUNT || type == SL_PARAM_AMOUNT;
}

bool sl_params_set_integer(const struct sl_param_target *target, int64_t value)
{
    const struct sl_param *row = target->row;

    if (row->type == SL_PARAM_SECONDS) {
        return sl_params_set_seconds(target, (double)value);
    }
    if (!is_whole(row->type)) {
        return sl_params_refuse(target, "is an integer; write a %s (%s)", type_name(row->type),
                                row->range);
    }
    if (value < (int64_t)row->min || value > (int64_t)row->max) {
        return sl_params_refuse(target, "%lld is out of range; write %s %s", (long long)value,
                                row->range, row->unit);
    }
    if (row->type == SL_PARAM_COUNT) {
        uint32_t count = (uint32_t)value;
        SL_ASSERT(row->size == sizeof(count));
        store(target, &count, sizeof(count));
    } else {
        SL_ASSERT(row->size == sizeof(value));
        store(target, &value, sizeof(value));
    }
    return true;
}

bool sl_params_set_seconds(const struct sl_param_target *target, double value)
{
    const struct sl_param *row = target->row;

    if (row->type != SL_PARAM_SECONDS) {
        return sl_params_refuse(target, "is a number with a fraction; write a %s (%s)",
                                type_name(row->type), row->range);
    }
    if (!isfinite(value) || value < row->min || value > row->max) {
        return sl_params_refuse(target, "%g is out of range; write %s %s", value, row->range,
                                row->unit);
    }
    int64_t value_ms = (int64_t)llround(value * 1000);
    if (value_ms == 0 && value > 0) {
        value_ms = 1; /* zero may mean "off", which was not asked for */
    }
    SL_ASSERT(row->size == sizeof(value_ms));
    store(target, &value_ms, sizeof(value_ms));
    return true;
}

/* The place of `value` in "a, b, c"; -1: it is not there. */
static int find_choice(const char *choices, const char *value)
{
    size_t len = strlen(value);

    for (int idx = 0; *choices != '\0'; idx++) {
        size_t choice_len = strcspn(choices, ",");
        if (choice_len == len && memcmp(choices, value, len) == 0) {
            return idx;
        }
        choices += choice_len;
        choices += strspn(choices, ", ");
    }
    return -1;
}

static bool set_choice(const struct sl_param_target *target, const char *value)
{
    int choice = find_choice(target->row->range, value);

    if (choice < 0) {
        return sl_params_refuse(target, "\"%.60s\" is not known; write one of %s", value,
                                target->row->range);
    }
    SL_ASSERT(target->row->size == sizeof(enum sl_log_level));
    store(target, &choice, sizeof(choice));
    return true;
}

/* Bytes of a string that are kept: paths are appended to a URL, and open with a slash. */
static size_t kept_bytes(enum sl_param_type type, const char *value, size_t len)
{
    while (type == SL_PARAM_URL && len > 0 && value[len - 1] == '/') {
        len--;
    }
    return len;
}

static bool set_text_member(const struct sl_param_target *target, const char *value)
{
    const struct sl_param *row = target->row;
    size_t len = strlen(value);

    SL_ASSERT((size_t)row->max < row->size);
    if (len < (size_t)row->min || len > (size_t)row->max) {
        return sl_params_refuse(target, "has %zu bytes; write %s", len, row->range);
    }
    if (len > 0 && !sl_params_check_string(target, value)) {
        return false;
    }
    store(target, value, kept_bytes(row->type, value, len));
    return true;
}

bool sl_params_set_string(const struct sl_param_target *target, const char *value)
{
    const struct sl_param *row = target->row;

    if (row->type == SL_PARAM_CHOICE) {
        return set_choice(target, value);
    }
    if (row->type < SL_PARAM_NAME) { /* the types that are strings stand last */
        return sl_params_refuse(target, "is a string; write a %s (%s)", type_name(row->type),
                                row->range);
    }
    return set_text_member(target, value);
}

bool sl_params_add_name(const struct sl_param_target *target, const char *value)
{
    const struct sl_param *row = target->row;
    uint32_t *count = (uint32_t *)(void *)((char *)target->provider + row->count_offset);
    char(*names)[SL_NAME_BYTES_MAX + 1] = member_of(target);
    size_t len = strlen(value);

    if (*count >= (uint32_t)row->max) {
        return sl_params_refuse(target, "has too many members; write %s", row->range);
    }
    if (len == 0 || len > SL_NAME_BYTES_MAX) {
        return sl_params_refuse(target, "a member has %zu bytes; write 1..%d", len,
                                SL_NAME_BYTES_MAX);
    }
    if (!sl_params_check_string(target, value)) {
        return false;
    }
    memcpy(names[*count], value, len);
    (*count)++;
    target->load->provider_origins[target->provider - target->load->config->providers]
                                  [sl_params_row_idx(row)] = target->origin;
    return true;
}

/* ---- values from text ------------------------------------------------------------------------ */

static bool set_bool_text(const struct sl_param_target *target, const char *text)
{
    static const char *const yes[] = {"true", "1", "yes", "on"};
    static const char *const no[] = {"false", "0", "no", "off"};

    for (size_t i = 0; i < SL_ARRAY_LEN(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            return sl_params_set_bool(target, strcasecmp(text, yes[i]) == 0);
        }
    }
    return sl_params_refuse(target, "\"%.60s\" is not a boolean; write true or false", text);
}

static bool set_integer_text(const struct sl_param_target *target, const char *text)
{
    char *end = NULL;

    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0) {
        return sl_params_refuse(target, "\"%.60s\" is not a whole number; write %s", text,
                                target->row->range);
    }
    return sl_params_set_integer(target, value);
}

static bool set_seconds_text(const struct sl_param_target *target, const char *text)
{
    char *end = NULL;
    double value = strtod(text, &end);

    if (end == text || *end != '\0') {
        return sl_params_refuse(target, "\"%.60s\" is not a number; write %s", text,
                                target->row->range);
    }
    return sl_params_set_seconds(target, value);
}

bool sl_params_set_text(const struct sl_param_target *target, const char *text)
{
    switch (target->row->type) {
    case SL_PARAM_BOOL:
        return set_bool_text(target, text);
    case SL_PARAM_COUNT:
    case SL_PARAM_AMOUNT:
        return set_integer_text(target, text);
    case SL_PARAM_SECONDS:
        return set_seconds_text(target, text);
    case SL_PARAM_CHOICE:
    case SL_PARAM_NAME:
    case SL_PARAM_URL:
    case SL_PARAM_PATH:
    case SL_PARAM_ADDRESS:
    case SL_PARAM_VARIABLE:
        return sl_params_set_string(target, text);
    case SL_PARAM_NAMES:
        break;
    }
    SL_UNREACHABLE();
}

static bool has_default(const struct sl_param *row)
{
    return row->type != SL_PARAM_NAMES && row->default_text[0] != '\0' &&
           strcmp(row->default_text, SL_PARAM_DEFAULT_REQUIRED) != 0 &&
           strcmp(row->default_text, SL_PARAM_DEFAULT_PATH) != 0;
}

void sl_params_set_defaults(struct sl_params_load *load, struct sl_provider_config *provider)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
        if (rows[i].is_of_provider != (provider != NULL) || !has_default(&rows[i])) {
            continue;
        }
        struct sl_param_target target = {.load = load, .row = &rows[i], .provider = provider};
        bool is_set = sl_params_set_text(&target, rows[i].default_text);
        SL_ASSERT(is_set);
    }
}
