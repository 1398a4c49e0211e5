/*
 * Looks at the text of a configuration before libconfig does, for what libconfig would take wrongly
 * without a word: integers that it cuts to 32 or 64 bits, NUL bytes (it stops there), \x00 in a
 * string (the string stops there), @include (from the working directory, outside our checks).
 *
 * Runs at start-up and SIGHUP of every program, main thread; pure but for the fault it writes.
 * Knows of the grammar only what it needs to tell strings, comments, names and numbers apart;
 * everything else is libconfig's to judge. One pass, linear. Each fault names file and line.
 */
#include "common/params_table.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

struct scan {
    const struct sl_params_load *load;
    const char *at;
    int line;
};

static void step(struct scan *scan)
{
    scan->line += *scan->at == '\n';
    scan->at++;
}

static bool opens_with(const struct scan *scan, const char *text)
{
    return strncmp(scan->at, text, strlen(text)) == 0;
}

static bool refuse_open(const struct scan *scan, int line, const char *what)
{
    return sl_params_refuse_line(scan->load, line, "the %s that opens here is not closed", what);
}

static void skip_line(struct scan *scan)
{
    while (*scan->at != '\0' && *scan->at != '\n') {
        scan->at++;
    }
}

static bool skip_block_comment(struct scan *scan)
{
    int line = scan->line;

    scan->at += strlen("/*");
    while (!opens_with(scan, "*/")) {
        if (*scan->at == '\0') {
            return refuse_open(scan, line, "comment");
        }
        step(scan);
    }
    scan->at += strlen("*/");
    return true;
}

static bool skip_string(struct scan *scan)
{
    int line = scan->line;

    step(scan);
    while (*scan->at != '"') {
        if (opens_with(scan, "\\x00")) {
            return sl_params_refuse_line(scan->load, scan->line,
                                         "a string holds \\x00; remove it, strings end there");
        }
        if (*scan->at == '\\' && scan->at[1] != '\0') {
            step(scan);
        }
        if (*scan->at == '\0') {
            return refuse_open(scan, line, "string");
        }
        step(scan);
    }
    step(scan);
    return true;
}

static bool is_word_byte(char byte)
{
    return isalnum((unsigned char)byte) || byte == '_' || byte == '-' || byte == '*';
}

static void skip_word(struct scan *scan)
{
    while (is_word_byte(*scan->at)) {
        scan->at++;
    }
}

/* Fractions and hexadecimal: their types are told apart, and refused where wrong, later. */
static bool is_integer(const struct scan *scan, const char *begin, const char *end)
{
    bool is_after_point = begin > scan->load->text && begin[-1] == '.';

    return !is_after_point && (*end == '\0' || strchr(".eExX", *end) == NULL);
}

/* An integer that has no L is kept in 32 bits, whatever it is. */
static bool fits(long long value, bool is_negative, bool has_suffix)
{
    long long max = is_negative ? -(long long)INT32_MIN : INT32_MAX;

    return errno == 0 && (has_suffix || value <= max);
}

/* A number and what hangs on it. */
static bool check_number(struct scan *scan)
{
    const char *begin = scan->at;
    bool is_negative = begin > scan->load->text && begin[-1] == '-';
    char *end = NULL;

    errno = 0;
    long long value = strtoll(begin, &end, 10);
    if (is_integer(scan, begin, end) && !fits(value, is_negative, *end == 'L')) {
        return sl_params_refuse_line(scan->load, scan->line,
                                     "%s%.*s is too large; write a smaller number or, over "
                                     "2147483647, an L after its last digit",
                                     is_negative ? "-" : "", (int)SL_MIN(end - begin, 40), begin);
    }
    while (is_word_byte(*scan->at) || *scan->at == '.' || *scan->at == '+') {
        scan->at++;
    }
    return true;
}

/* What begins here, other than a string or a number. */
static bool skip_other(struct scan *scan)
{
    if (opens_with(scan, "@include")) {
        return sl_params_refuse_line(scan->load, scan->line,
                                     "@include is not supported; write everything in one file");
    }
    if (opens_with(scan, "/*")) {
        return skip_block_comment(scan);
    }
    if (*scan->at == '#' || opens_with(scan, "//")) {
        skip_line(scan);
    } else if (isalpha((unsigned char)*scan->at) || *scan->at == '*') {
        skip_word(scan);
    } else {
        step(scan);
    }
    return true;
}

static bool skip_token(struct scan *scan)
{
    if (*scan->at == '"') {
        return skip_string(scan);
    }
    if (isdigit((unsigned char)*scan->at)) {
        return check_number(scan);
    }
    return skip_other(scan);
}

bool sl_params_check_text(const struct sl_params_load *load, size_t len)
{
    struct scan scan = {.load = load, .at = load->text, .line = 1};
    const char *end = load->text + strlen(load->text);

    if (end != load->text + len) {
        while (scan.at < end) {
            step(&scan);
        }
        return sl_params_refuse_line(load, scan.line,
                                     "the file holds a NUL byte; write plain text");
    }
    while (*scan.at != '\0') {
        if (!skip_token(&scan)) {
            return false;
        }
    }
    return true;
}
