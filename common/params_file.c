/*
 * Reads the configuration file: text checks, libconfig, then every setting of the tree into the row
 * of the table that has its name. The only file that includes libconfig.h.
 *
 * Runs at start-up and SIGHUP of every program, main thread; blocks on the file.
 *
 * libconfig 1.5 is lenient where we are not, so it only parses: integers are read as 64 bits and
 * checked here (its 32-bit getter answers 0 for what does not fit), hexadecimal is refused (it cuts
 * it to 32 bits), every name in the tree is looked up in the table (it ignores unknown ones), the
 * text is read and checked by us first (it ends the process on a read error, stops at a NUL byte
 * and takes @include from the working directory). The tree is as deep as the table's keys and
 * walked without recursion. Each fault names file and line.
 */
#include "common/params_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <libconfig.h>

#define FILE_BYTES_MAX SL_MIB /* 32 providers with every key take 200 KiB */
#define KEY_BYTES_MAX 64
#define PROVIDER_PREFIX "providers."

/* ---- one setting ----------------------------------------------------------------------------- */

static const char *describe_type(const config_setting_t *setting)
{
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_GROUP:
        return "a group { }";
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        return "an integer";
    case CONFIG_TYPE_FLOAT:
        return "a number with a fraction";
    case CONFIG_TYPE_STRING:
        return "a string";
    case CONFIG_TYPE_BOOL:
        return "a boolean";
    case CONFIG_TYPE_ARRAY:
        return "an array [ ]";
    case CONFIG_TYPE_LIST:
        return "a list ( )";
    default: /* libconfig's own numbers, not an enum */
        return "nothing usable";
    }
}

static bool set_names(const struct sl_param_target *target, const config_setting_t *setting)
{
    int count = config_setting_length(setting);

    if (target->row->type != SL_PARAM_NAMES) {
        return sl_params_refuse(target, "is %s; write one value (%s)", describe_type(setting),
                                target->row->range);
    }
    for (int i = 0; i < count; i++) {
        const config_setting_t *member = config_setting_get_elem(setting, (unsigned)i);
        struct sl_param_target at = *target;
        at.origin.line = (int)config_setting_source_line(member);
        if (config_setting_type(member) != CONFIG_TYPE_STRING) {
            return sl_params_refuse(&at, "holds %s; write strings: [ \"a\", \"b\" ]",
                                    describe_type(member));
        }
        if (!sl_params_add_name(&at, config_setting_get_string(member))) {
            return false;
        }
    }
    return true;
}

static bool set_integer(const struct sl_param_target *target, const config_setting_t *setting)
{
    if (config_setting_get_format(setting) == CONFIG_FORMAT_HEX) {
        return sl_params_refuse(target, "is hexadecimal; write it in decimal");
    }
    return sl_params_set_integer(target, config_setting_get_int64(setting));
}

static bool set_string(const struct sl_param_target *target, const config_setting_t *setting)
{
    if (target->row->type == SL_PARAM_NAMES) {
        return sl_params_refuse(target, "is a string; write a list of strings: [ \"a\", \"b\" ]");
    }
    return sl_params_set_string(target, config_setting_get_string(setting));
}

static bool set_value(const struct sl_param_target *target, const config_setting_t *setting)
{
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_BOOL:
        return sl_params_set_bool(target, config_setting_get_bool(setting) != 0);
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        return set_integer(target, setting);
    case CONFIG_TYPE_FLOAT:
        return sl_params_set_seconds(target, config_setting_get_float(setting));
    case CONFIG_TYPE_STRING:
        return set_string(target, setting);
    case CONFIG_TYPE_ARRAY:
    case CONFIG_TYPE_LIST:
        return set_names(target, setting);
    default:
        return sl_params_refuse(target, "is %s; write one value (%s)", describe_type(setting),
                                target->row->range);
    }
}

/* ---- the tree -------------------------------------------------------------------------------- */

/* Where a walk stands: at the top or in one provider, and in which group there. */
struct place {
    struct sl_params_load *load;
    struct sl_provider_config *provider;
    const char *prefix; /* of full keys: "", "worker.", "providers.", "providers.retry." */
};

/* Does a row's key open with `prefix`? Then it names a group of ours. */
static bool is_group_prefix(const char *prefix)
{
    const struct sl_param *row;

    for (size_t i = 0; (row = sl_params_row(i)) != NULL; i++) {
        if (strncmp(row->key, prefix, strlen(prefix)) == 0) {
            return true;
        }
    }
    return false;
}

static bool refuse_unknown(const struct place *place, const config_setting_t *setting)
{
    const char *name = config_setting_name(setting);
    int line = (int)config_setting_source_line(setting);

    if (strcmp(name, "api_key") == 0) {
        return sl_params_refuse_line(place->load, line,
                                     "%s%s: a key must not stand in this file; name its place with "
                                     "api_key_env or api_key_file",
                                     place->prefix, name);
    }
    return sl_params_refuse_line(place->load, line,
                                 "%s%.60s: unknown key; correct or remove it "
                                 "(docs/configuration.md lists all)",
                                 place->prefix, name);
}

/* Sets the row that `setting` names below the prefix; *is_known false when there is no such row. */
static bool load_member(const struct place *place, const config_setting_t *setting, bool *is_known)
{
    char key[KEY_BYTES_MAX];
    int len = snprintf(key, sizeof(key), "%s%.60s", place->prefix, config_setting_name(setting));
    const struct sl_param *row = (size_t)len < sizeof(key) ? sl_params_find_row(key) : NULL;

    *is_known = row != NULL;
    if (row == NULL) {
        return true;
    }
    struct sl_param_target target = {
        .load = place->load,
        .row = row,
        .provider = place->provider,
        .origin = {.line = (int)config_setting_source_line(setting)},
    };
    return set_value(&target, setting);
}

/* A group that holds values only ("worker", "providers.retry"). */
static bool load_leaf_group(const struct place *place, const config_setting_t *group)
{
    int count = config_setting_length(group);

    for (int i = 0; i < count; i++) {
        const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
        bool is_known;
        if (!load_member(place, setting, &is_known)) {
            return false;
        }
        if (!is_known) {
            return refuse_unknown(place, setting);
        }
    }
    return true;
}

/* A member that is not a value: a group of ours, or a fault. */
static bool load_group(const struct place *place, const config_setting_t *setting)
{
    char prefix[KEY_BYTES_MAX];
    int len =
        snprintf(prefix, sizeof(prefix), "%s%.60s.", place->prefix, config_setting_name(setting));
    struct place inner = {.load = place->load, .provider = place->provider, .prefix = prefix};

    if ((size_t)len >= sizeof(prefix) || !is_group_prefix(prefix)) {
        return refuse_unknown(place, setting);
    }
    if (!config_setting_is_group(setting)) {
        return sl_params_refuse_line(place->load, (int)config_setting_source_line(setting),
                                     "%s%s: is %s; write a group: %s = { ... };", place->prefix,
                                     config_setting_name(setting), describe_type(setting),
                                     config_setting_name(setting));
    }
    return load_leaf_group(&inner, setting);
}

static bool load_provider(struct sl_params_load *load, const config_setting_t *group)
{
    struct sl_config *config = load->config;
    uint32_t idx = config->provider_count;
    struct place place = {
        .load = load, .provider = &config->providers[idx], .prefix = PROVIDER_PREFIX};
    int count = config_setting_length(group);

    config->provider_count++;
    load->provider_lines[idx] = (int)config_setting_source_line(group);
    sl_params_set_defaults(load, place.provider);
    for (int i = 0; i < count; i++) {
        const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
        bool is_known;
        if (!load_member(&place, setting, &is_known) ||
            (!is_known && !load_group(&place, setting))) {
            return false;
        }
    }
    return true;
}

static bool load_providers(struct sl_params_load *load, const config_setting_t *list)
{
    int line = (int)config_setting_source_line(list);
    int count = config_setting_length(list);

    if (!config_setting_is_list(list)) {
        return sl_params_refuse_line(load, line,
                                     "providers: is %s; write a list of groups: providers = ( "
                                     "{ ... }, { ... } );",
                                     describe_type(list));
    }
    if (count > SL_PROVIDERS_MAX) {
        return sl_params_refuse_line(load, line, "providers: has %d members; write at most %d",
                                     count, SL_PROVIDERS_MAX);
    }
    for (int i = 0; i < count; i++) {
        const config_setting_t *group = config_setting_get_elem(list, (unsigned)i);
        if (!config_setting_is_group(group)) {
            return sl_params_refuse_line(load, (int)config_setting_source_line(group),
                                         "providers: holds %s; write groups: ( { ... } )",
                                         describe_type(group));
        }
        if (!load_provider(load, group)) {
            return false;
        }
    }
    return true;
}

static bool load_top(struct sl_params_load *load, const config_setting_t *root)
{
    struct place place = {.load = load, .prefix = ""};
    int count = config_setting_length(root);

    for (int i = 0; i < count; i++) {
        const config_setting_t *setting = config_setting_get_elem(root, (unsigned)i);
        bool is_known;
        if (strcmp(config_setting_name(setting), "providers") == 0) {
            if (!load_providers(load, setting)) {
                return false;
            }
            continue;
        }
        if (!load_member(&place, setting, &is_known) ||
            (!is_known && !load_group(&place, setting))) {
            return false;
        }
    }
    return true;
}

/* ---- the text -------------------------------------------------------------------------------- */

/* Reads the whole file into load->text, FILE_BYTES_MAX + 2 bytes large. */
static bool read_file(struct sl_params_load *load, size_t *len)
{
    struct stat info;
    FILE *file = fopen(load->config->source, "re");

    if (file == NULL || fstat(fileno(file), &info) != 0 || S_ISDIR(info.st_mode)) {
        int reason = file == NULL ? errno : EISDIR;
        if (file != NULL) {
            fclose(file);
        }
        return sl_params_refuse_line(load, 0, "cannot read the configuration: %s",
                                     strerror(reason));
    }
    *len = fread(load->text, 1, FILE_BYTES_MAX + 1, file);
    bool is_broken = ferror(file) != 0;
    int reason = errno;
    fclose(file);
    if (is_broken) {
        return sl_params_refuse_line(load, 0, "cannot read the configuration: %s",
                                     strerror(reason));
    }
    if (*len > FILE_BYTES_MAX) {
        return sl_params_refuse_line(load, 0, "the file is over 1 MiB; is it a configuration?");
    }
    load->text[*len] = '\0';
    return true;
}

static bool parse_text(struct sl_params_load *load)
{
    config_t tree;
    bool is_loaded;

    config_init(&tree);
    if (config_read_string(&tree, load->text) == CONFIG_TRUE) {
        is_loaded = load_top(load, config_root_setting(&tree));
    } else {
        is_loaded = sl_params_refuse_line(load, config_error_line(&tree),
                                          "%s; see conf/sluice.conf for an example",
                                          config_error_text(&tree));
    }
    config_destroy(&tree);
    return is_loaded;
}

bool sl_params_load_file(struct sl_params_load *load)
{
    size_t len = 0;

    load->text = malloc(FILE_BYTES_MAX + 2);
    if (load->text == NULL) {
        return sl_params_refuse_line(load, 0, "out of memory");
    }
    bool is_loaded = read_file(load, &len) && sl_params_check_text(load, len) && parse_text(load);
    free(load->text);
    load->text = NULL;
    return is_loaded;
}
