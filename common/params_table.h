#ifndef SL_COMMON_PARAMS_TABLE_H
#define SL_COMMON_PARAMS_TABLE_H

/*
 * What the files of params share and nobody else sees (but their test): the rows of
 * common/tbl/params.def in memory, where each value came from, and the steps of a load.
 *
 * A step that fails has written the fault and returns false; the load ends there.
 */

#include "common/params.h"

enum sl_param_type {
    SL_PARAM_BOOL,
    SL_PARAM_COUNT,
    SL_PARAM_AMOUNT,
    SL_PARAM_SECONDS,
    SL_PARAM_CHOICE,
    SL_PARAM_NAMES,
    SL_PARAM_NAME,
    SL_PARAM_URL,
    SL_PARAM_PATH,
    SL_PARAM_ADDRESS,
    SL_PARAM_VARIABLE,
};

enum sl_param_effect { SL_PARAM_RESTART, SL_PARAM_RELOAD };

struct sl_param {
    const char *key; /* full dotted name */
    enum sl_param_type type;
    bool is_of_provider; /* offsets are in struct sl_provider_config */
    size_t offset;
    size_t size;         /* of the member, bytes */
    size_t count_offset; /* SL_PARAM_NAMES: where the number of strings is kept */
    const char *unit;
    double min; /* of the number, the string's bytes, the list's items */
    double max;
    const char *range; /* as text; the choices of SL_PARAM_CHOICE */
    const char *default_text;
    enum sl_param_effect effect;
    bool is_obeyed;
    const char *env;
    const char *help;
};

#define SL_PARAM_DEFAULT_REQUIRED "required"
#define SL_PARAM_DEFAULT_PATH "per user"
#define SL_PARAM_ROWS_MAX 64

/* The rows; sl_params_row(idx) is NULL past the end. */
const struct sl_param *sl_params_row(size_t idx);
size_t sl_params_row_idx(const struct sl_param *row);
/* The row of a full key; NULL: none. */
const struct sl_param *sl_params_find_row(const char *key);

/* ---- a load ---------------------------------------------------------------------------------- */

#define SL_PARAMS_SYSTEM_FILE "/etc/sluice/sluice.conf"

/* Where a value came from, for the fault: a line of the file, else a variable, else neither. */
struct sl_param_origin {
    int line;
    const char *variable;
};

struct sl_params_load {
    struct sl_config *config; /* being filled */
    struct sl_config_fault *fault;
    char *text; /* of the file, while it is read; NUL-terminated */
    struct sl_param_origin origins[SL_PARAM_ROWS_MAX];
    struct sl_param_origin provider_origins[SL_PROVIDERS_MAX][SL_PARAM_ROWS_MAX];
    int provider_lines[SL_PROVIDERS_MAX];
};

/* A value on its way into a member. */
struct sl_param_target {
    struct sl_params_load *load;
    const struct sl_param *row;
    struct sl_provider_config *provider; /* NULL for a row of the configuration itself */
    struct sl_param_origin origin;
};

/* Writes "FILE:LINE: key: text", "VARIABLE: text" or "key: text"; false, always. */
bool sl_params_refuse(const struct sl_param_target *target, const char *format, ...)
    PRINTF_LIKE(2, 3);
/* The same with a line and without a key (line 0: the file as a whole). */
bool sl_params_refuse_line(const struct sl_params_load *load, int line, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* Each checks the value against the row and stores it, with its origin. */
MUST_CHECK bool sl_params_set_bool(const struct sl_param_target *target, bool value);
MUST_CHECK bool sl_params_set_integer(const struct sl_param_target *target, int64_t value);
MUST_CHECK bool sl_params_set_seconds(const struct sl_param_target *target, double value);
MUST_CHECK bool sl_params_set_string(const struct sl_param_target *target, const char *value);
MUST_CHECK bool sl_params_add_name(const struct sl_param_target *target, const char *value);
/* Any of them from text, as defaults and the environment have it; not for lists. */
MUST_CHECK bool sl_params_set_text(const struct sl_param_target *target, const char *text);

/* Gives every row of the configuration (provider NULL) or of one provider its default. */
void sl_params_set_defaults(struct sl_params_load *load, struct sl_provider_config *provider);

/* Reads config->source and sets what it holds. */
MUST_CHECK bool sl_params_load_file(struct sl_params_load *load);
/* Finds what libconfig would take wrongly in load->text, of `len` bytes. */
MUST_CHECK bool sl_params_check_text(const struct sl_params_load *load, size_t len);

/* Is `value` right for the string type of the row? */
MUST_CHECK bool sl_params_check_string(const struct sl_param_target *target, const char *value);
/* What concerns several values: required ones, two providers of one name, and so on. */
MUST_CHECK bool sl_params_check_all(struct sl_params_load *load);

/* ---- where things are ------------------------------------------------------------------------ */

/* Finds the file as sl_config_load() says; source stays empty when there is none. */
MUST_CHECK bool sl_params_find_file(struct sl_params_load *load, const char *path,
                                    const char *system_file);
/* Fills in state_dir and socket where neither file nor environment has set them. */
MUST_CHECK bool sl_params_set_paths(struct sl_params_load *load);

#endif
