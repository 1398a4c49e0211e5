/*
 * What the tests stand on: a started program ends with the test and its whole group with it, waits
 * end with their event and not before, and free ports can be used.
 */
#include "tests/support/process.h"
#include "tests/support/tmp_dir.h"
#include "tests/support/wait.h"

#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/os.h"

static struct process process;

static void set_up(void)
{
    tmp_dir_make();
    process = (struct process){0};
}

static void tear_down(void)
{
    process_end(&process);
    process_end(&process);
    tmp_dir_remove();
}

static void start_shell(const char *script, const char *out_path)
{
    const char *argv[] = {"sh", "-c", script, NULL};

    process_start(&process, argv, out_path);
}

static const struct {
    const char *script;
    int status;
} status_cases[] = {
    {"exit 0", 0},
    {"exit 3", 3},
    {"kill -9 $$", 128 + SIGKILL},
    {"exec /nowhere/at/all", 127},
};

START_TEST(test_status)
{
    start_shell(status_cases[_i].script, tmp_dir_file("log"));
    ck_assert(process_wait(&process, WAIT_MS));
    ck_assert_int_eq(process.status, status_cases[_i].status);
    ck_assert(process_wait(&process, 0));
    process_end(&process);
    ck_assert_int_eq(process.status, status_cases[_i].status);
}
END_TEST

START_TEST(test_program_that_is_not_there)
{
    const char *argv[] = {"/nowhere/at/all", NULL};

    process_start(&process, argv, NULL);
    ck_assert(process_wait(&process, WAIT_MS));
    ck_assert_int_eq(process.status, 127);
}
END_TEST

/* `read` on a pipe that nobody writes to waits for the signal. */
START_TEST(test_output_and_signal)
{
    const char *log = tmp_dir_file("log");
    char script[512];

    snprintf(script, sizeof(script),
             "trap 'echo caught; exit 5' TERM; mkfifo %s; echo out; echo err >&2; read line <>%s",
             tmp_dir_file("fifo"), tmp_dir_file("fifo"));
    start_shell(script, log);
    ck_assert(wait_text(log, "out\nerr\n", WAIT_MS));
    ck_assert(!process_wait(&process, 0));
    /* A signal between the shell's look at its traps and its read() waits for the next one. */
    bool has_ended = false;
    for (int i = 0; i < WAIT_MS / 1000 && !has_ended; i++) {
        process_signal(&process, SIGTERM);
        has_ended = process_wait(&process, 1000);
    }
    ck_assert(has_ended);
    ck_assert_int_eq(process.status, 5);
    ck_assert(wait_text(log, "caught\n", 0));
}
END_TEST

/* The grandchild holds the write end of a pipe: its end of file says that it is gone. */
START_TEST(test_group_is_killed)
{
    char script[512];
    const char *fifo = tmp_dir_file("fifo");

    snprintf(script, sizeof(script), "mkfifo %s; tail -f /dev/null >%s & echo started; exit 0",
             fifo, fifo);
    start_shell(script, tmp_dir_file("log"));
    ck_assert(wait_text(tmp_dir_file("log"), "started", WAIT_MS));
    int fd = open(fifo, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert(process_wait(&process, WAIT_MS)); /* the leader; what it left behind lives on */
    ck_assert(!wait_readable(fd, 0));
    process_end(&process);
    ck_assert(wait_readable(fd, WAIT_MS));
    char byte;
    ck_assert_int_eq(read(fd, &byte, 1), 0);
    close(fd);
}
END_TEST

START_TEST(test_wait_for_file)
{
    const char *late = tmp_dir_file("late");
    char script[512];

    ck_assert(!wait_file(late, 0));
    snprintf(script, sizeof(script), "echo content >%s", late);
    start_shell(script, NULL);
    ck_assert(wait_file(late, WAIT_MS));
    ck_assert(wait_text(late, "content\n", WAIT_MS));
    ck_assert(!wait_text(late, "other", 0));
    ck_assert(wait_file(late, 0));
}
END_TEST

START_TEST(test_wait_ends_in_time)
{
    int ends[2];
    int64_t start_ns = sl_clock_mono_ns();

    ck_assert_int_eq(pipe(ends), 0);
    ck_assert(!wait_readable(ends[0], 50));
    ck_assert_int_ge(sl_clock_mono_ns() - start_ns, 50 * SL_NS_PER_MS);
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    ck_assert(wait_readable(ends[0], 0));
    close(ends[0]);
    close(ends[1]);
}
END_TEST

START_TEST(test_free_port)
{
    uint16_t port = port_free();

    ck_assert_uint_ne(port, 0);
    ck_assert_int_eq(port_connect(port), -1);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("support");
    TCase *cases = tcase_create("support");

    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_loop_test(cases, test_status, 0, SL_ARRAY_LEN(status_cases));
    tcase_add_test(cases, test_program_that_is_not_there);
    tcase_add_test(cases, test_output_and_signal);
    tcase_add_test(cases, test_group_is_killed);
    tcase_add_test(cases, test_wait_for_file);
    tcase_add_test(cases, test_wait_ends_in_time);
    tcase_add_test(cases, test_free_port);
    tcase_set_timeout(cases, 60);
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
