/*
 * What the baselines of the bench share: options, bodies from a file, a clock, percentiles.
 *
 * Runs in the baselines alone, never in the product. Everything is held in memory; a failure ends
 * the program, because a baseline that goes on after one would measure something else.
 */
#include "tests/bench/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void bench_die(const char *what, const char *reason)
{
    fprintf(stderr, "%s: %s\n", what, reason);
    exit(1);
}

int64_t bench_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;

    return (a > b) - (a < b);
}

double bench_percentile(double *values, size_t count, double part)
{
    if (count == 0) {
        return 0.0;
    }
    qsort(values, count, sizeof(*values), compare_doubles);
    size_t idx = (size_t)(part * (double)count);
    return values[idx < count ? idx : count - 1];
}

void bench_print_percentiles(const char *name, double *values, size_t count)
{
    printf("\"%s_p50_ms\":%.4f,\"%s_p99_ms\":%.4f,", name, bench_percentile(values, count, 0.5),
           name, bench_percentile(values, count, 0.99));
}

static size_t parse_number(const char *option, const char *text)
{
    char *end = NULL;

    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 1) {
        bench_die(option, "wants a whole number of at least 1");
    }
    return (size_t)value;
}

static const struct bench_option *find_option(const struct bench_option *options, const char *name)
{
    for (; options->name != NULL; options++) {
        if (strcmp(options->name, name) == 0) {
            return options;
        }
    }
    bench_die(name, "no such option");
}

void bench_parse(int argc, char **argv, const struct bench_option *options)
{
    for (int i = 1; i < argc; i += 2) {
        const struct bench_option *option = find_option(options, argv[i]);
        if (i + 1 == argc) {
            bench_die(argv[i], "wants a value");
        }
        if (option->text != NULL) {
            *option->text = argv[i + 1];
        } else {
            *option->number = parse_number(argv[i], argv[i + 1]);
        }
    }
    for (; options->name != NULL; options++) {
        if (options->text != NULL && *options->text == NULL) {
            bench_die(options->name, "is needed");
        }
    }
}

static char *read_file(const char *path, size_t *len)
{
    FILE *file = fopen(path, "re");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        bench_die(path, strerror(errno));
    }
    long size = ftell(file);
    rewind(file);
    char *text = malloc((size_t)size + 1);
    if (text == NULL || fread(text, 1, (size_t)size, file) != (size_t)size) {
        bench_die(path, "cannot be read");
    }
    fclose(file);
    text[size] = '\0';
    *len = (size_t)size;
    return text;
}

void bodies_load(struct bodies *bodies, const char *path)
{
    size_t len = 0;
    size_t lines = 0;

    bodies->text = read_file(path, &len);
    for (size_t i = 0; i < len; i++) {
        lines += bodies->text[i] == '\n';
    }
    bodies->starts = calloc(lines + 1, sizeof(*bodies->starts));
    bodies->lens = calloc(lines + 1, sizeof(*bodies->lens));
    if (bodies->starts == NULL || bodies->lens == NULL) {
        bench_die(path, "out of memory");
    }
    bodies->count = 0;
    for (size_t start = 0; start < len;) {
        const char *end = memchr(bodies->text + start, '\n', len - start);
        size_t stop = end == NULL ? len : (size_t)(end - bodies->text);
        if (stop > start) {
            bodies->starts[bodies->count] = start;
            bodies->lens[bodies->count++] = stop - start;
        }
        start = stop + 1;
    }
    if (bodies->count == 0) {
        bench_die(path, "holds no body");
    }
}

void bodies_free(struct bodies *bodies)
{
    free(bodies->text);
    free(bodies->starts);
    free(bodies->lens);
    *bodies = (struct bodies){.count = 0};
}
