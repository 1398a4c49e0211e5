/*
 * The command-line parser: one pass over argv against the program's table, help from that table.
 *
 * Runs at the start of every program, before threads and descriptors exist. Keeps no state, never
 * allocates: values are borrowed from argv. Never guesses: no abbreviations, no bundled letters, no
 * value for a flag. What is not understood is answered with one line on stderr and exit status 2
 * (SL_ERR_USAGE); help and version that cannot be written are an error too, so that a script
 * notices a full disk.
 */
#include "common/opts.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"

#define HELP_COLUMN_MAX 30 /* options that reach further put their help on the next line */
#define NOT_FOUND SIZE_MAX

static const struct sl_opt builtin_options[] = {
    {"help", NULL, "print this help and exit"},
    {"version", NULL, "print the version and exit"},
};

/* One pass over argv. */
struct cursor {
    int argc;
    char **argv;
    int idx;
    bool is_only_positional; /* "--" was seen */
};

int sl_opts_refuse(const struct sl_opts_spec *spec, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s: ", spec->program);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; see --help\n");
    return sl_err_exit_status(SL_ERR_USAGE);
}

/* ---- help and version ------------------------------------------------------------------------ */

static int option_width(const struct sl_opt *opt)
{
    size_t width = strlen("  --") + strlen(opt->name);

    if (opt->arg != NULL) {
        width += 1 + strlen(opt->arg);
    }
    return (int)width;
}

static int find_help_column(const struct sl_opts_spec *spec)
{
    int column = option_width(&builtin_options[1]);

    for (const struct sl_opt *opt = spec->options; opt->name != NULL; opt++) {
        int width = option_width(opt);
        if (width > column && width + 2 <= HELP_COLUMN_MAX) {
            column = width;
        }
    }
    return column + 2;
}

static void print_option(const struct sl_opt *opt, int column)
{
    int width = option_width(opt);
    const char *line = opt->help;

    printf("  --%s%s%s", opt->name, opt->arg != NULL ? " " : "", opt->arg != NULL ? opt->arg : "");
    if (width + 2 > column) {
        printf("\n");
        width = 0;
    }
    for (;;) {
        int len = (int)strcspn(line, "\n");
        printf("%*s%.*s\n", column - width, "", len, line);
        if (line[len] == '\0') {
            return;
        }
        line += len + 1;
        width = 0;
    }
}

static void print_help(const struct sl_opts_spec *spec)
{
    int column = find_help_column(spec);

    printf("Usage: %s %s\n\n%s\n\nOptions:\n", spec->program, spec->usage, spec->description);
    for (const struct sl_opt *opt = spec->options; opt->name != NULL; opt++) {
        print_option(opt, column);
    }
    for (size_t i = 0; i < SL_ARRAY_LEN(builtin_options); i++) {
        print_option(&builtin_options[i], column);
    }
    if (spec->footer != NULL) {
        printf("\n%s\n", spec->footer);
    }
}

static int finish_stdout(const struct sl_opts_spec *spec)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return sl_err_exit_status(SL_OK);
    }
    fprintf(stderr, "%s: cannot write to stdout: %s\n", spec->program, strerror(errno));
    return sl_err_exit_status(SL_ERR_OUTPUT);
}

/* Answers --help and --version; false when the option is neither. */
static bool answer_builtin(const struct sl_opts_spec *spec, struct sl_span name, int *exit_status)
{
    if (sl_span_equal(name, sl_span_str("help"))) {
        print_help(spec);
        *exit_status = finish_stdout(spec);
        return true;
    }
    if (sl_span_equal(name, sl_span_str("version"))) {
        printf("%s %s\n", spec->program, SLUICE_VERSION);
        *exit_status = finish_stdout(spec);
        return true;
    }
    return false;
}

/* ---- the pass over argv ---------------------------------------------------------------------- */

static size_t find_row(const struct sl_opts_spec *spec, struct sl_span name)
{
    for (size_t i = 0; spec->options[i].name != NULL; i++) {
        SL_ASSERT(i < SL_OPTS_MAX);
        if (sl_span_equal(name, sl_span_str(spec->options[i].name))) {
            return i;
        }
    }
    return NOT_FOUND;
}

/* The value of a row that wants one; NULL when there is none. */
static const char *take_value(struct cursor *cursor, const char *inline_value)
{
    if (inline_value != NULL) {
        return inline_value;
    }
    if (cursor->idx + 1 >= cursor->argc || strncmp(cursor->argv[cursor->idx + 1], "--", 2) == 0) {
        return NULL;
    }
    return cursor->argv[++cursor->idx];
}

/* An option that is no row of the table: help, version or an error; the program ends. */
static enum sl_opts_result take_unknown(struct sl_opts *out, struct sl_span name, bool has_value,
                                        int *exit_status)
{
    if (has_value || !answer_builtin(out->spec, name, exit_status)) {
        *exit_status =
            sl_opts_refuse(out->spec, "unknown option \"--%.*s\"", (int)name.len, name.ptr);
    }
    return SL_OPTS_EXIT;
}

/* One argument that opens with "--". SL_OPTS_RUN: stored. */
static enum sl_opts_result take_option(struct sl_opts *out, struct cursor *cursor, int *exit_status)
{
    const char *text = cursor->argv[cursor->idx] + strlen("--");
    struct sl_span name = sl_span_of(text, strcspn(text, "="));
    const char *inline_value = text[name.len] == '=' ? text + name.len + 1 : NULL;
    size_t row = find_row(out->spec, name);

    if (row == NOT_FOUND) {
        return take_unknown(out, name, inline_value != NULL, exit_status);
    }
    const struct sl_opt *opt = &out->spec->options[row];
    if (opt->arg == NULL && inline_value != NULL) {
        *exit_status = sl_opts_refuse(out->spec, "--%s takes no value", opt->name);
        return SL_OPTS_EXIT;
    }
    out->values[row] = opt->arg == NULL ? "" : take_value(cursor, inline_value);
    if (out->values[row] == NULL) {
        *exit_status = sl_opts_refuse(out->spec, "--%s needs a value: --%s %s", opt->name,
                                      opt->name, opt->arg);
        return SL_OPTS_EXIT;
    }
    return SL_OPTS_RUN;
}

static enum sl_opts_result take_positional(struct sl_opts *out, const char *text, int *exit_status)
{
    if (out->positional_count >= out->spec->positional_max) {
        *exit_status = sl_opts_refuse(out->spec, "unexpected argument \"%s\"", text);
        return SL_OPTS_EXIT;
    }
    out->positional[out->positional_count++] = text;
    return SL_OPTS_RUN;
}

static enum sl_opts_result take_argument(struct sl_opts *out, struct cursor *cursor,
                                         int *exit_status)
{
    const char *text = cursor->argv[cursor->idx];

    if (cursor->is_only_positional || text[0] != '-' || text[1] == '\0') {
        return take_positional(out, text, exit_status);
    }
    if (strcmp(text, "--") == 0) {
        cursor->is_only_positional = true;
        return SL_OPTS_RUN;
    }
    if (text[1] != '-') {
        *exit_status = sl_opts_refuse(out->spec, "unknown option \"%s\"", text);
        return SL_OPTS_EXIT;
    }
    return take_option(out, cursor, exit_status);
}

enum sl_opts_result sl_opts_parse(const struct sl_opts_spec *spec, int argc, char **argv,
                                  struct sl_opts *out, int *exit_status)
{
    struct cursor cursor = {.argc = argc, .argv = argv, .idx = 1};

    SL_ASSERT(spec->positional_max <= SL_OPTS_POSITIONAL_MAX);
    memset(out, 0, sizeof(*out));
    out->spec = spec;
    for (; cursor.idx < cursor.argc; cursor.idx++) {
        if (take_argument(out, &cursor, exit_status) == SL_OPTS_EXIT) {
            return SL_OPTS_EXIT;
        }
    }
    if (out->positional_count < spec->positional_min) {
        *exit_status =
            sl_opts_refuse(spec, "an argument is missing: %s %s", spec->program, spec->usage);
        return SL_OPTS_EXIT;
    }
    return SL_OPTS_RUN;
}

/* ---- look-ups -------------------------------------------------------------------------------- */

const char *sl_opts_get(const struct sl_opts *opts, const char *name)
{
    size_t row = find_row(opts->spec, sl_span_str(name));

    SL_ASSERT(row != NOT_FOUND);
    return opts->values[row];
}

bool sl_opts_has(const struct sl_opts *opts, const char *name)
{
    return sl_opts_get(opts, name) != NULL;
}

bool sl_opts_get_integer(const struct sl_opts *opts, const char *name, int64_t min, int64_t max,
                         int64_t *value)
{
    const char *text = sl_opts_get(opts, name);
    char *end = NULL;

    if (text == NULL) {
        return true;
    }
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || number < min || number > max) {
        sl_opts_refuse(opts->spec, "--%s \"%s\" is not a whole number from %lld to %lld", name,
                       text, (long long)min, (long long)max);
        return false;
    }
    *value = number;
    return true;
}

bool sl_opts_get_number(const struct sl_opts *opts, const char *name, double min, double max,
                        double *value)
{
    const char *text = sl_opts_get(opts, name);
    char *end = NULL;

    if (text == NULL) {
        return true;
    }
    double number = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(number) || number < min || number > max) {
        sl_opts_refuse(opts->spec, "--%s \"%s\" is not a number from %g to %g", name, text, min,
                       max);
        return false;
    }
    *value = number;
    return true;
}
