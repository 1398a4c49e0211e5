/*
 * Log records and last words, as a child process prints them.
 */
#include "common/log.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"

/* ---- log and last words ---------------------------------------------------------------------- */

/* What `write_records` prints on stderr, in a child of its own. */
static void capture(void (*write_records)(void), char *text, size_t size, int *status)
{
    int pipe_fds[2];
    size_t len = 0;
    ssize_t got;

    ck_assert_int_eq(pipe(pipe_fds), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        dup2(pipe_fds[1], STDERR_FILENO);
        write_records();
        _exit(0);
    }
    close(pipe_fds[1]);
    while (len < size - 1 && (got = read(pipe_fds[0], text + len, size - 1 - len)) > 0) {
        len += (size_t)got;
    }
    text[len] = '\0';
    close(pipe_fds[0]);
    ck_assert_int_eq(waitpid(child, status, 0), child);
}

static void write_some_records(void)
{
    char longest[4096];

    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    sl_log_init("sluice-test", SL_LOG_INFO);
    sl_log(SL_EVENT_CALL_DONE, "task=%d", 1); /* debug: off */
    errno = EDOM;
    sl_log(SL_EVENT_START, "name=%s", "a\nlevel=error\tb\x7f");
    if (errno != EDOM) {
        _exit(1);
    }
    sl_log(SL_EVENT_FAILED, "text=%s", longest);
    sl_log_set_level(SL_LOG_ERROR);
    sl_log(SL_EVENT_START, "after=1");
    sl_log_set_level(SL_LOG_DEBUG);
    sl_log(SL_EVENT_CALL_DONE, "task=%d", 2);
}

START_TEST(test_log)
{
    char text[8192];
    int status;

    capture(write_some_records, text, sizeof(text), &status);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    char *second = strchr(text, '\n');
    ck_assert_ptr_nonnull(second);
    *second++ = '\0';
    ck_assert_int_eq(strncmp(text, "ts=20", 5), 0);
    ck_assert_ptr_nonnull(strstr(text, "Z prog=sluice-test pid="));
    ck_assert_ptr_nonnull(strstr(text, " level=info event=start name=a?level=error?b?"));
    char *third = strchr(second, '\n');
    ck_assert_ptr_nonnull(third);
    ck_assert_int_eq(third + 1 - second, 1024); /* cut, and still one whole line */
    ck_assert_ptr_nonnull(strstr(second, " level=error event=failed text=xxx"));
    ck_assert_ptr_nonnull(strstr(third + 1, " level=debug event=call_done task=2\n"));
    ck_assert_ptr_null(strstr(third + 1, "after=1"));
}
END_TEST

START_TEST(test_log_levels)
{
    enum sl_log_level level = SL_LOG_DEBUG;

    for (int i = SL_LOG_ERROR; i <= SL_LOG_DEBUG; i++) {
        ck_assert(sl_log_level_parse(sl_log_level_name((enum sl_log_level)i), &level));
        ck_assert_int_eq(level, i);
    }
    ck_assert(!sl_log_level_parse("ERROR", &level));
    ck_assert(!sl_log_level_parse("", &level));
}
END_TEST

#define LAST_WORDS_BYTES 48

static char *last_words; /* shared with the child */

static void fail_an_assertion(void)
{
    sl_check_set_last_words(last_words, LAST_WORDS_BYTES);
    SL_ASSERT(last_words == NULL);
}

START_TEST(test_last_words)
{
    char text[1024];
    int status;

    last_words =
        mmap(NULL, LAST_WORDS_BYTES + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(last_words, MAP_FAILED);
    last_words[LAST_WORDS_BYTES] = '!';
    capture(fail_an_assertion, text, sizeof(text), &status);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    ck_assert_ptr_nonnull(strstr(text, "last_words == NULL"));
    ck_assert_ptr_nonnull(strstr(text, "test_log.c"));
    ck_assert_uint_eq(strlen(last_words), LAST_WORDS_BYTES - 1); /* cut to fit */
    ck_assert_int_eq(last_words[LAST_WORDS_BYTES], '!');
    munmap(last_words, LAST_WORDS_BYTES + 1);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("log");
    TCase *cases = tcase_create("log");

    tcase_add_test(cases, test_log);
    tcase_add_test(cases, test_log_levels);
    tcase_add_test(cases, test_last_words);
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
