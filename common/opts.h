#ifndef SL_COMMON_OPTS_H
#define SL_COMMON_OPTS_H

/*
 * The command line of every program, from a table. `--name=value`, `--name value`, `--flag`, `--`
 * (what follows is positional), a lone `-` is positional. A value that opens with "--" needs the
 * `=` form. `--help` and `--version` need no row: they are added here. An option given twice: the
 * last one wins.
 *
 *     static const struct sl_opt options[] = {
 *         SL_OPT_CONFIG,
 *         {"wait", NULL, "wait until every task has ended"},
 *         {"output", "FILE", "write results to FILE (default: stdout)"},
 *         {NULL, NULL, NULL},
 *     };
 *     static const struct sl_opts_spec spec = {
 *         .program = "sluice-submit", .usage = "[OPTIONS] [FILE|-]",
 *         .description = "Hands LLM calls to the queue.", .options = options,
 *         .positional_max = 1, .footer = SL_OPTS_EXIT_STATUSES,
 *     };
 *     struct sl_opts opts;
 *     int exit_status;
 *     if (sl_opts_parse(&spec, argc, argv, &opts, &exit_status) == SL_OPTS_EXIT) {
 *         return exit_status;
 *     }
 *
 * Any process, start-up only, main thread. Prints help and version to stdout and errors to stderr
 * (one line each), so it may block where these do; allocates nothing.
 */

#include "common/base.h"

#define SL_OPTS_MAX 48            /* rows of one program's table */
#define SL_OPTS_POSITIONAL_MAX 16 /* positional arguments of one program */

struct sl_opt {
    const char *name; /* without the dashes; NULL ends the table */
    const char *arg;  /* NULL: a flag; else the placeholder of its value, e.g. "FILE" */
    const char *help; /* one sentence; '\n' starts a new, indented line */
};

/* clang-format off */
#define SL_OPT_CONFIG {"config", "FILE", "read this configuration file"}
/* clang-format on */

struct sl_opts_spec {
    const char *program;     /* "sluice-submit" */
    const char *usage;       /* what follows the program's name: "[OPTIONS] [FILE|-]" */
    const char *description; /* one or more lines, without a final newline */
    const struct sl_opt *options;
    size_t positional_min;
    size_t positional_max; /* at most SL_OPTS_POSITIONAL_MAX */
    const char *footer;    /* printed after the options, without a final newline; NULL: nothing */
};

/* The contract's exit statuses, as a footer or the end of one. */
#define SL_OPTS_EXIT_STATUSES                                                                      \
    "Exit status:\n"                                                                               \
    "  0    done; with --wait: every task completed\n"                                             \
    "  1    finished, but a task failed, was cancelled or expired\n"                               \
    "  2    bad usage\n"                                                                           \
    "  3    bad configuration or bad input\n"                                                      \
    "  4    broker not reachable, draining, or refusing\n"                                         \
    "  5    internal error, or the store is unusable\n"                                            \
    "  130  interrupted; accepted tasks go on"

/* What was given. Strings are borrowed from argv. */
struct sl_opts {
    const struct sl_opts_spec *spec;
    const char *values[SL_OPTS_MAX]; /* by row; NULL: not given; "" for a flag */
    const char *positional[SL_OPTS_POSITIONAL_MAX];
    size_t positional_count;
};

enum sl_opts_result {
    SL_OPTS_RUN, /* go on; *out is filled in */
    SL_OPTS_EXIT /* help, version or an error was printed: end with *exit_status (0 or 2) */
};

MUST_CHECK enum sl_opts_result sl_opts_parse(const struct sl_opts_spec *spec, int argc, char **argv,
                                             struct sl_opts *out, int *exit_status);

/* The value of an option, "" for a flag; NULL when it was not given. Asking for a name that is not
 * in the table is a bug of ours. */
const char *sl_opts_get(const struct sl_opts *opts, const char *name);
bool sl_opts_has(const struct sl_opts *opts, const char *name);

/* A whole number or a decimal fraction between min and max. Not given: true, *value stays as it is
 * (put the default there). Anything else: prints one line on stderr and is false; end with status
 * 2. */
MUST_CHECK bool sl_opts_get_integer(const struct sl_opts *opts, const char *name, int64_t min,
                                    int64_t max, int64_t *value);
MUST_CHECK bool sl_opts_get_number(const struct sl_opts *opts, const char *name, double min,
                                   double max, double *value);

/* Prints "PROGRAM: text; see --help" on stderr and returns 2, the exit status for bad usage. */
int sl_opts_refuse(const struct sl_opts_spec *spec, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
