#ifndef SL_TESTS_BENCH_SUPPORT_H
#define SL_TESTS_BENCH_SUPPORT_H

/*
 * What the baselines of the bench share: options, request bodies from a file, percentiles.
 * Baselines only; a failure ends the program with a message.
 */

#include <stddef.h>
#include <stdint.h>

struct bodies {
    char *text; /* the whole file */
    size_t *starts;
    size_t *lens;
    size_t count;
};

/* Reads the file; ends the program when it cannot be read or holds no line. */
void bodies_load(struct bodies *bodies, const char *path);
void bodies_free(struct bodies *bodies);

/* Prints "what: reason" to stderr and exits with status 1. */
__attribute__((noreturn)) void bench_die(const char *what, const char *reason);

/* Monotonic nanoseconds. */
int64_t bench_now_ns(void);

/* The value at `part` (0..1) of `count` values; sorts them. */
double bench_percentile(double *values, size_t count, double part);

/* Prints two members of a JSON object, "NAME_p50_ms" and "NAME_p99_ms", each with a comma behind.
 */
void bench_print_percentiles(const char *name, double *values, size_t count);

/* An option of the command line, "--name VALUE": exactly one of text and number is set. */
struct bench_option {
    const char *name; /* with the dashes; NULL ends a table */
    const char **text;
    size_t *number; /* at least 1 */
};

/* Reads the command line by the table; ends the program when it is not understood, or when a text
 * that is NULL before it is still NULL afterwards. */
void bench_parse(int argc, char **argv, const struct bench_option *options);

#endif
