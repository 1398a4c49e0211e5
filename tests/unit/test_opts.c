/*
 * The command-line parser: what it takes, what it refuses with which line and status, and what help
 * and version look like. stdout and stderr of each case go to files of the test's own directory.
 */
#include "common/opts.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/tmp_dir.h"

static const struct sl_opt options[] = {
    SL_OPT_CONFIG,
    {"wait", NULL, "wait until every task has ended"},
    {"output", "FILE", "write results to FILE"},
    {"priority", "N", "0 to 9, higher first"},
    {"ratio", "X", "a fraction"},
    {"a-rather-long-option-name", "PLACEHOLDER", "help that stands\non two lines"},
    {NULL, NULL, NULL},
};

static const struct sl_opts_spec spec = {
    .program = "sluice-test",
    .usage = "[OPTIONS] FILE [MORE]",
    .description = "Tests the parser.",
    .options = options,
    .positional_min = 1,
    .positional_max = 2,
    .footer = SL_OPTS_EXIT_STATUSES,
};

#define ARGUMENTS_MAX 8

/* What a case gave: the verdict, and what was printed. */
static struct {
    struct sl_opts opts;
    enum sl_opts_result result;
    int exit_status;
    char out[4096];
    char err[1024];
} ran;

static int redirect(int fd, const char *name)
{
    int saved = dup(fd);
    int file = open(tmp_dir_file(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert(saved >= 0 && file >= 0);
    ck_assert_int_eq(dup2(file, fd), fd);
    close(file);
    return saved;
}

static void restore(int fd, int saved, char *text, size_t size)
{
    ssize_t len = pread(fd, text, size - 1, 0);

    ck_assert(len >= 0);
    text[len] = '\0';
    ck_assert_int_eq(dup2(saved, fd), fd);
    close(saved);
}

static void run(const char *const *arguments)
{
    char *argv[ARGUMENTS_MAX + 2] = {(char *)(uintptr_t) "sluice-test"};
    int argc = 1;

    for (; arguments[argc - 1] != NULL; argc++) {
        ck_assert_int_lt(argc, ARGUMENTS_MAX + 1);
        argv[argc] = (char *)(uintptr_t)arguments[argc - 1];
    }
    fflush(stdout);
    int saved_out = redirect(STDOUT_FILENO, "out");
    int saved_err = redirect(STDERR_FILENO, "err");
    ran.exit_status = -1;
    ran.result = sl_opts_parse(&spec, argc, argv, &ran.opts, &ran.exit_status);
    fflush(stdout);
    restore(STDERR_FILENO, saved_err, ran.err, sizeof(ran.err));
    restore(STDOUT_FILENO, saved_out, ran.out, sizeof(ran.out));
}

/* ---- taken ----------------------------------------------------------------------------------- */

static const struct {
    const char *arguments[ARGUMENTS_MAX];
    const char *output; /* value of --output */
    bool has_wait;
    const char *positional[2];
} good[] = {
    {{"f"}, NULL, false, {"f"}},
    {{"--wait", "f"}, NULL, true, {"f"}},
    {{"f", "--wait"}, NULL, true, {"f"}},
    {{"--output=x", "f"}, "x", false, {"f"}},
    {{"--output", "x", "f", "g"}, "x", false, {"f", "g"}},
    {{"--output=", "f"}, "", false, {"f"}},
    {{"--output", "", "f"}, "", false, {"f"}},
    {{"--output=a=b", "f"}, "a=b", false, {"f"}},
    {{"--output=--wait", "f"}, "--wait", false, {"f"}},
    {{"--output", "-", "-"}, "-", false, {"-"}},
    {{"--output", "x", "--output=y", "f"}, "y", false, {"f"}},
    {{"--", "--wait", "-x"}, NULL, false, {"--wait", "-x"}},
    {{"--wait", "--", "--"}, NULL, true, {"--"}},
    {{"--", "--help"}, NULL, false, {"--help"}},
    {{""}, NULL, false, {""}},
};

START_TEST(test_good)
{
    run(good[_i].arguments);
    ck_assert_str_eq(ran.err, "");
    ck_assert_str_eq(ran.out, "");
    ck_assert_int_eq(ran.result, SL_OPTS_RUN);
    ck_assert_pstr_eq(sl_opts_get(&ran.opts, "output"), good[_i].output);
    ck_assert_int_eq(sl_opts_has(&ran.opts, "output"), good[_i].output != NULL);
    ck_assert_int_eq(sl_opts_has(&ran.opts, "wait"), good[_i].has_wait);
    ck_assert(!sl_opts_has(&ran.opts, "config"));
    for (size_t i = 0; i < SL_ARRAY_LEN(good[0].positional); i++) {
        ck_assert_pstr_eq(ran.opts.positional[i], good[_i].positional[i]);
        ck_assert_int_eq(ran.opts.positional_count > i, good[_i].positional[i] != NULL);
    }
}
END_TEST

/* ---- refused --------------------------------------------------------------------------------- */

static const struct {
    const char *arguments[ARGUMENTS_MAX];
    const char *line;
} bad[] = {
    {{NULL},
     "sluice-test: an argument is missing: sluice-test [OPTIONS] FILE [MORE]; see --help\n"},
    {{"f", "g", "h"}, "sluice-test: unexpected argument \"h\"; see --help\n"},
    {{"--nope"}, "sluice-test: unknown option \"--nope\"; see --help\n"},
    {{"--nope=secret"}, "sluice-test: unknown option \"--nope\"; see --help\n"},
    {{"--wai", "f"}, "sluice-test: unknown option \"--wai\"; see --help\n"},
    {{"--waits", "f"}, "sluice-test: unknown option \"--waits\"; see --help\n"},
    {{"--=x", "f"}, "sluice-test: unknown option \"--\"; see --help\n"},
    {{"-w", "f"}, "sluice-test: unknown option \"-w\"; see --help\n"},
    {{"-wait", "f"}, "sluice-test: unknown option \"-wait\"; see --help\n"},
    {{"---wait", "f"}, "sluice-test: unknown option \"---wait\"; see --help\n"},
    {{"--wait=yes", "f"}, "sluice-test: --wait takes no value; see --help\n"},
    {{"--help=x", "f"}, "sluice-test: unknown option \"--help\"; see --help\n"},
    {{"f", "--output"}, "sluice-test: --output needs a value: --output FILE; see --help\n"},
    {{"--output", "--wait"}, "sluice-test: --output needs a value: --output FILE; see --help\n"},
    {{"--nope", "--help"}, "sluice-test: unknown option \"--nope\"; see --help\n"},
};

START_TEST(test_bad)
{
    run(bad[_i].arguments);
    ck_assert_int_eq(ran.result, SL_OPTS_EXIT);
    ck_assert_int_eq(ran.exit_status, 2);
    ck_assert_str_eq(ran.err, bad[_i].line);
    ck_assert_str_eq(ran.out, "");
}
END_TEST

/* ---- numbers --------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    bool is_taken;
    int64_t value;
} integers[] = {
    {"--priority=0", true, 0},    {"--priority=9", true, 9},
    {"--priority=10", false, 0},  {"--priority=-1", false, 0},
    {"--priority=", false, 0},    {"--priority=5x", false, 0},
    {"--priority=1.5", false, 0}, {"--priority=0x1", false, 0},
    {"--wait", true, 7},          {"--priority=+3", true, 3},
    {"--priority=007", true, 7},  {"--priority=99999999999999999999", false, 0},
};

START_TEST(test_integer)
{
    const char *arguments[] = {integers[_i].text, "f", NULL};
    int64_t value = 7;

    run(arguments);
    ck_assert_int_eq(ran.result, SL_OPTS_RUN);
    int saved = redirect(STDERR_FILENO, "err");
    bool is_taken = sl_opts_get_integer(&ran.opts, "priority", 0, 9, &value);
    restore(STDERR_FILENO, saved, ran.err, sizeof(ran.err));
    ck_assert_int_eq(is_taken, integers[_i].is_taken);
    ck_assert_int_eq(value, is_taken ? integers[_i].value : 7);
    ck_assert_int_eq(strstr(ran.err, "is not a whole number from 0 to 9; see --help\n") == NULL,
                     is_taken);
}
END_TEST

static const struct {
    const char *text;
    bool is_taken;
    double value;
} numbers[] = {
    {"--ratio=0.25", true, 0.25}, {"--ratio=1", true, 1},      {"--ratio=1.01", false, 0},
    {"--ratio=nan", false, 0},    {"--ratio=inf", false, 0},   {"--ratio=-0.1", false, 0},
    {"--ratio=.5 ", false, 0},    {"--ratio=1e-1", true, 0.1}, {"--wait", true, 7},
};

START_TEST(test_number)
{
    const char *arguments[] = {numbers[_i].text, "f", NULL};
    double value = 7;

    run(arguments);
    ck_assert_int_eq(ran.result, SL_OPTS_RUN);
    int saved = redirect(STDERR_FILENO, "err");
    bool is_taken = sl_opts_get_number(&ran.opts, "ratio", 0, 1, &value);
    restore(STDERR_FILENO, saved, ran.err, sizeof(ran.err));
    ck_assert_int_eq(is_taken, numbers[_i].is_taken);
    ck_assert(value == (is_taken ? numbers[_i].value : 7));
    ck_assert_int_eq(strstr(ran.err, "is not a number from 0 to 1; see --help\n") == NULL,
                     is_taken);
}
END_TEST

/* ---- help and version ------------------------------------------------------------------------ */

START_TEST(test_version)
{
    const char *arguments[] = {"--version", NULL};

    run(arguments);
    ck_assert_int_eq(ran.result, SL_OPTS_EXIT);
    ck_assert_int_eq(ran.exit_status, 0);
    ck_assert_str_eq(ran.out, "sluice-test " SLUICE_VERSION "\n");
    ck_assert_str_eq(ran.err, "");
}
END_TEST

START_TEST(test_help)
{
    const char *arguments[] = {"--wait", "--help", NULL};

    run(arguments);
    ck_assert_int_eq(ran.result, SL_OPTS_EXIT);
    ck_assert_int_eq(ran.exit_status, 0);
    ck_assert_str_eq(ran.err, "");
    ck_assert_str_eq(ran.out, "Usage: sluice-test [OPTIONS] FILE [MORE]\n"
                              "\n"
                              "Tests the parser.\n"
                              "\n"
                              "Options:\n"
                              "  --config FILE  read this configuration file\n"
                              "  --wait         wait until every task has ended\n"
                              "  --output FILE  write results to FILE\n"
                              "  --priority N   0 to 9, higher first\n"
                              "  --ratio X      a fraction\n"
                              "  --a-rather-long-option-name PLACEHOLDER\n"
                              "                 help that stands\n"
                              "                 on two lines\n"
                              "  --help         print this help and exit\n"
                              "  --version      print the version and exit\n"
                              "\n" SL_OPTS_EXIT_STATUSES "\n");
}
END_TEST

START_TEST(test_help_that_cannot_be_written)
{
    char *argv[] = {(char *)(uintptr_t) "sluice-test", (char *)(uintptr_t) "--help", NULL};
    int exit_status = -1;

    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    ck_assert(saved >= 0 && full >= 0);
    ck_assert_int_eq(dup2(full, STDOUT_FILENO), STDOUT_FILENO);
    int saved_err = redirect(STDERR_FILENO, "err");
    enum sl_opts_result result = sl_opts_parse(&spec, 2, argv, &ran.opts, &exit_status);
    restore(STDERR_FILENO, saved_err, ran.err, sizeof(ran.err));
    clearerr(stdout);
    dup2(saved, STDOUT_FILENO);
    ck_assert_int_eq(result, SL_OPTS_EXIT);
    ck_assert_int_eq(exit_status, 5);
    ck_assert_str_eq(ran.err, "sluice-test: cannot write to stdout: No space left on device\n");
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("opts");
    TCase *cases = tcase_create("opts");

    tcase_add_checked_fixture(cases, tmp_dir_make, tmp_dir_remove);
    tcase_add_loop_test(cases, test_good, 0, SL_ARRAY_LEN(good));
    tcase_add_loop_test(cases, test_bad, 0, SL_ARRAY_LEN(bad));
    tcase_add_loop_test(cases, test_integer, 0, SL_ARRAY_LEN(integers));
    tcase_add_loop_test(cases, test_number, 0, SL_ARRAY_LEN(numbers));
    tcase_add_test(cases, test_version);
    tcase_add_test(cases, test_help);
    tcase_add_test(cases, test_help_that_cannot_be_written);
    suite_add_tcase(suite, cases);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(make_suite());

    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
