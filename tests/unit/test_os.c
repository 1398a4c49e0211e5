/*
 * The doors to the operating system: sockets in all their states, descriptors passed, full reads
 * and writes with time limits, lock files, signals and events as descriptors. Every socket and file
 * is in the test's own directory.
 */
#include "common/os.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/limits.h"
#include "tests/support/tmp_dir.h"

static int64_t count_open_fds(void)
{
    int64_t count = 0;

    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void expect_cloexec(int fd)
{
    ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

/* ---- sockets --------------------------------------------------------------------------------- */

START_TEST(test_listen_and_connect)
{
    const char *path = tmp_dir_file("a/b/sluice.sock"); /* directories are made */
    int listener = -1;
    int client = -1;
    struct stat info;
    struct sl_os_peer peer;

    ck_assert_int_eq(sl_os_connect_unix(path, &client), SL_ERR_UNREACHABLE);
    ck_assert_int_eq(sl_os_listen_unix(path, 0660, &listener), SL_OK);
    expect_cloexec(listener);
    ck_assert_int_ne(fcntl(listener, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_int_eq(info.st_mode & 0777, 0660);
    ck_assert_int_eq(accept(listener, NULL, NULL), -1);
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_int_eq(sl_os_connect_unix(path, &client), SL_OK);
    expect_cloexec(client);
    ck_assert_int_eq(fcntl(client, F_GETFL) & O_NONBLOCK, 0);
    int server = accept(listener, NULL, NULL);
    ck_assert_int_ge(server, 0);
    ck_assert_int_eq(sl_os_get_peer(server, &peer), SL_OK);
    ck_assert_int_eq(peer.pid, getpid());
    ck_assert_uint_eq(peer.uid, getuid());
    ck_assert_uint_eq(peer.gid, getgid());
}
END_TEST

START_TEST(test_live_socket_is_refused)
{
    const char *path = tmp_dir_file("sluice.sock");
    int64_t fds_before;
    int first = -1;
    int second = -1;

    ck_assert_int_eq(sl_os_listen_unix(path, 0600, &first), SL_OK);
    fds_before = count_open_fds();
    ck_assert_int_eq(sl_os_listen_unix(path, 0600, &second), SL_ERR_STORE_LOCKED);
    ck_assert_int_eq(second, -1);
    ck_assert_int_eq(count_open_fds(), fds_before);
    ck_assert_int_eq(sl_os_connect_unix(path, &second), SL_OK); /* the first still answers */
}
END_TEST

START_TEST(test_stale_socket_is_replaced)
{
    const char *path = tmp_dir_file("sluice.sock");
    int fd = -1;

    ck_assert_int_eq(sl_os_listen_unix(path, 0600, &fd), SL_OK);
    close(fd); /* the file stays, as after kill -9 */
    ck_assert_int_eq(sl_os_connect_unix(path, &fd), SL_ERR_UNREACHABLE);
    ck_assert_int_eq(sl_os_listen_unix(path, 0600, &fd), SL_OK);
    ck_assert_int_eq(sl_os_connect_unix(path, &fd), SL_OK);
}
END_TEST

START_TEST(test_other_file_is_not_removed)
{
    const char *path = tmp_dir_write("precious", "data");
    int fd = -1;

    ck_assert_int_eq(sl_os_listen_unix(path, 0600, &fd), SL_ERR_IO);
    ck_assert_int_eq(errno, ENOTSOCK);
    ck_assert_int_eq(access(path, F_OK), 0);
    ck_assert_int_eq(sl_os_listen_unix(tmp_dir_file("precious/s"), 0600, &fd), SL_ERR_IO);
}
END_TEST

START_TEST(test_socket_path_length)
{
    char path[SL_PATH_BYTES_MAX];
    int fd = -1;

    ck_assert_int_eq(chdir(tmp_dir_path()), 0);
    memset(path, 'a', sizeof(path));
    path[107] = '\0';
    ck_assert_int_eq(sl_os_listen_unix(path, 0600, &fd), SL_OK);
    ck_assert_int_eq(sl_os_connect_unix(path, &fd), SL_OK);
    path[107] = 'a';
    path[108] = '\0';
    ck_assert_int_eq(sl_os_listen_unix(path, 0600, &fd), SL_ERR_IO);
    ck_assert_int_eq(errno, ENAMETOOLONG);
    ck_assert_int_eq(sl_os_connect_unix(path, &fd), SL_ERR_UNREACHABLE);
    ck_assert_int_eq(sl_os_connect_unix("", &fd), SL_ERR_UNREACHABLE);
    ck_assert_int_eq(chdir("/"), 0);
}
END_TEST

START_TEST(test_permission)
{
    const char *path = tmp_dir_file("sluice.sock");
    int fd = -1;
    int status;

    if (getuid() != 0) {
        printf("skipped: test_permission: needs root to become another user\n");
        return;
    }
    ck_assert_int_eq(chmod(tmp_dir_path(), 0755), 0);
    ck_assert_int_eq(sl_os_listen_unix(path, 0600, &fd), SL_OK);
    pid_t child = fork();
    if (child == 0) {
        int client;
        _exit(setgid(65534) == 0 && setuid(65534) == 0 &&
                      sl_os_connect_unix(path, &client) == SL_ERR_PERMISSION
                  ? 0
                  : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

/* ---- descriptors over a socket --------------------------------------------------------------- */

static void make_pair(int pair[2])
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

START_TEST(test_fds_are_passed)
{
    int pair[2];
    int pipe_fds[2];
    int got[SL_OS_FDS_MAX];
    size_t got_count = 0;
    char bytes[8];

    make_pair(pair);
    ck_assert_int_eq(pipe(pipe_fds), 0);
    ck_assert_int_eq(sl_os_send_fds(pair[0], "hello", 5, pipe_fds, 2), 5);
    ck_assert_int_eq(sl_os_recv_fds(pair[1], bytes, sizeof(bytes), got, &got_count), 5);
    ck_assert_mem_eq(bytes, "hello", 5);
    ck_assert_uint_eq(got_count, 2);
    expect_cloexec(got[0]);
    expect_cloexec(got[1]);
    ck_assert_int_eq(write(got[1], "x", 1), 1);
    ck_assert_int_eq(read(pipe_fds[0], bytes, 1), 1);
    ck_assert_int_eq(bytes[0], 'x');
    ck_assert_int_eq(sl_os_send_fds(pair[0], "none", 4, NULL, 0), 4);
    ck_assert_int_eq(sl_os_recv_fds(pair[1], bytes, sizeof(bytes), got, &got_count), 4);
    ck_assert_uint_eq(got_count, 2);
    close(pair[0]);
    ck_assert_int_eq(sl_os_recv_fds(pair[1], bytes, sizeof(bytes), got, &got_count), 0);
}
END_TEST

START_TEST(test_too_many_fds_are_closed)
{
    int pair[2];
    int fds[SL_OS_FDS_MAX] = {0, 1, 2, 0};
    int got[SL_OS_FDS_MAX];
    size_t got_count = 0;
    char bytes[8];

    make_pair(pair);
    int64_t fds_before = count_open_fds();
    ck_assert_int_eq(sl_os_send_fds(pair[0], "a", 1, fds, 3), 1);
    ck_assert_int_eq(sl_os_send_fds(pair[0], "b", 1, fds, SL_OS_FDS_MAX), 1);
    ck_assert_int_eq(sl_os_recv_fds(pair[1], bytes, 1, got, &got_count), 1);
    ck_assert_uint_eq(got_count, 3);
    ck_assert_int_eq(sl_os_recv_fds(pair[1], bytes, 1, got, &got_count), 1);
    ck_assert_uint_eq(got_count, SL_OS_FDS_MAX);
    ck_assert_int_eq(count_open_fds(), fds_before + SL_OS_FDS_MAX);
}
END_TEST

/* ---- full transfers -------------------------------------------------------------------------- */

START_TEST(test_write_and_read_all)
{
    enum { BYTES = 1 << 20 }; /* more than a socket buffers: both sides must go on */
    static unsigned char sent[BYTES];
    static unsigned char got[BYTES];
    int pair[2];
    int status;

    make_pair(pair);
    sl_os_random(sent, sizeof(sent));
    ck_assert_int_eq(sl_os_set_nonblocking(pair[0], true), SL_OK);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        _exit(sl_os_write_all(pair[0], sent, sizeof(sent), -1) == SL_OK ? 0 : 1);
    }
    close(pair[0]);
    ck_assert_int_eq(sl_os_read_all(pair[1], got, sizeof(got), 10000), SL_OK);
    ck_assert_int_eq(memcmp(sent, got, sizeof(sent)), 0);
    ck_assert_int_eq(sl_os_read_all(pair[1], got, 1, 10000), SL_ERR_IO);
    ck_assert_int_eq(errno, 0); /* the end, not an error */
    ck_assert_int_eq(sl_os_read_all(pair[1], got, 0, 0), SL_OK);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(test_transfer_time_limits)
{
    static char bytes[1 << 20];
    int pair[2];

    make_pair(pair);
    ck_assert_int_eq(sl_os_read_all(pair[1], bytes, 1, 0), SL_ERR_TIMEOUT);
    ck_assert_int_eq(sl_os_read_all(pair[1], bytes, 1, 5), SL_ERR_TIMEOUT);
    ck_assert_int_eq(sl_os_set_nonblocking(pair[0], true), SL_OK);
    ck_assert_int_eq(sl_os_write_all(pair[0], bytes, sizeof(bytes), 5), SL_ERR_TIMEOUT);
    ck_assert_int_eq(sl_os_set_nonblocking(pair[0], false), SL_OK);
    ck_assert_int_eq(fcntl(pair[0], F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_eq(sl_os_read_all(-1, bytes, 1, 5), SL_ERR_TIMEOUT); /* poll ignores it */
    signal(SIGPIPE, SIG_IGN);
    close(pair[1]);
    ck_assert_int_eq(sl_os_write_all(pair[0], bytes, 1, 5), SL_ERR_IO);
    ck_assert_int_eq(errno, EPIPE);
}
END_TEST

/* ---- files ----------------------------------------------------------------------------------- */

START_TEST(test_make_dirs)
{
    struct stat info;
    const char *path = tmp_dir_file("x/y//z");
    char too_long[SL_PATH_BYTES_MAX + 1];

    umask(022);
    ck_assert_int_eq(sl_os_make_dirs(path, 0700), SL_OK);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_int_eq(info.st_mode & 0777, 0700);
    ck_assert_int_eq(stat(tmp_dir_file("x"), &info), 0);
    ck_assert_int_eq(info.st_mode & 0777, 0755);
    ck_assert_int_eq(sl_os_make_dirs(path, 0700), SL_OK); /* again is no error */
    tmp_dir_write("file", "");
    ck_assert_int_eq(sl_os_make_dirs(tmp_dir_file("file/z"), 0700), SL_ERR_IO);
    memset(too_long, 'a', sizeof(too_long));
    too_long[sizeof(too_long) - 1] = '\0';
    ck_assert_int_eq(sl_os_make_dirs(too_long, 0700), SL_ERR_IO);
    ck_assert_int_eq(errno, ENAMETOOLONG);
}
END_TEST

START_TEST(test_lock_file_names_its_holder)
{
    const char *path = tmp_dir_write("lock", "123456789 left by an earlier holder\n");
    int ready[2];
    int hold[2];
    int fd = -1;
    int status;
    pid_t holder = 7;
    char byte = 0;

    ck_assert_int_eq(pipe(ready), 0);
    ck_assert_int_eq(pipe(hold), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        close(hold[1]);
        bool is_locked = sl_os_lock_file(path, &fd, &holder) == SL_OK;
        bool is_told = write(ready[1], "r", 1) == 1;
        bool is_over = read(hold[0], &byte, 1) == 0; /* until the parent lets go */
        _exit(is_locked && is_told && is_over ? 0 : 1);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    ck_assert_int_eq(sl_os_lock_file(path, &fd, &holder), SL_ERR_STORE_LOCKED);
    ck_assert_int_eq(holder, child);
    ck_assert_int_eq(fd, -1);
    close(hold[1]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(sl_os_lock_file(path, &fd, &holder), SL_OK); /* freed with its holder */
    ck_assert_int_eq(holder, 0);
    expect_cloexec(fd);
    ck_assert_int_eq(sl_os_lock_file(tmp_dir_file("no/lock"), &ready[0], &holder), SL_ERR_IO);
    ck_assert_int_eq(symlink(path, tmp_dir_file("link")), 0);
    ck_assert_int_eq(sl_os_lock_file(tmp_dir_file("link"), &ready[0], &holder), SL_ERR_IO);
    ck_assert_int_eq(errno, ELOOP);
}
END_TEST

START_TEST(test_free_bytes)
{
    uint64_t bytes = 0;

    ck_assert_int_eq(sl_os_free_bytes(tmp_dir_path(), &bytes), SL_OK);
    ck_assert_uint_gt(bytes, 0);
    ck_assert_int_eq(sl_os_free_bytes(tmp_dir_file("nothing"), &bytes), SL_ERR_IO);
}
END_TEST

/* ---- process --------------------------------------------------------------------------------- */

static int wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 10000);
}

START_TEST(test_signal_fd)
{
    static const int signals[] = {SIGTERM, SIGHUP, 0};
    struct sigaction action;
    int fd = -1;

    ck_assert_int_eq(sl_os_signal_fd(signals, &fd), SL_OK);
    expect_cloexec(fd);
    ck_assert_int_eq(sl_os_next_signal(fd), 0);
    kill(getpid(), SIGHUP);
    ck_assert_int_eq(wait_readable(fd), 1);
    ck_assert_int_eq(sl_os_next_signal(fd), SIGHUP);
    kill(getpid(), SIGTERM);
    kill(getpid(), SIGTERM); /* the kernel folds equal ones */
    ck_assert_int_eq(sl_os_next_signal(fd), SIGTERM);
    ck_assert_int_eq(sl_os_next_signal(fd), 0);
    ck_assert_int_eq(sigaction(SIGPIPE, NULL, &action), 0);
    ck_assert(action.sa_handler == SIG_IGN);
}
END_TEST

START_TEST(test_event_fd)
{
    int fd = -1;

    ck_assert_int_eq(sl_os_event_fd(&fd), SL_OK);
    expect_cloexec(fd);
    sl_os_event_clear(fd); /* nothing waits: does not block */
    sl_os_event_signal(fd);
    sl_os_event_signal(fd);
    ck_assert_int_eq(wait_readable(fd), 1);
    sl_os_event_clear(fd);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ck_assert_int_eq(poll(&p, 1, 0), 0);
    uint64_t top = UINT64_MAX - 1;
    ck_assert_int_eq(write(fd, &top, sizeof(top)), (ssize_t)sizeof(top));
    sl_os_event_signal(fd); /* full: still readable, does not block */
    ck_assert_int_eq(wait_readable(fd), 1);
}
END_TEST

START_TEST(test_pidfd)
{
    int status;
    pid_t child = fork();

    ck_assert_int_ge(child, 0);
    if (child == 0) {
        for (;;) {
            pause();
        }
    }
    int fd = sl_os_pidfd_open(child);
    ck_assert_int_ge(fd, 0);
    ck_assert(sl_os_pidfd_kill(fd, SIGKILL));
    ck_assert_int_eq(wait_readable(fd), 1); /* a pidfd is readable when its process has ended */
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert(!sl_os_pidfd_kill(fd, SIGKILL));
    ck_assert_int_eq(errno, ESRCH);
}
END_TEST

START_TEST(test_small_ones)
{
    unsigned char random[2][32] = {{0}};
    int pair[2];
    int nothing = -1;

    sl_os_random(random[0], sizeof(random[0]));
    sl_os_random(random[1], sizeof(random[1]));
    ck_assert_mem_ne(random[0], random[1], sizeof(random[0]));
    make_pair(pair);
    int fd = pair[0];
    errno = EDOM;
    sl_os_close(&fd);
    sl_os_close(&nothing);
    ck_assert_int_eq(errno, EDOM);
    ck_assert_int_eq(fd, -1);
    ck_assert_int_eq(fcntl(pair[0], F_GETFD), -1);
    ck_assert_uint_ge(sl_os_raise_file_limit(), 256);
    ck_assert_int_eq(sl_os_set_nonblocking(-1, true), SL_ERR_IO);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("os");
    TCase *cases = tcase_create("os");

    tcase_set_timeout(cases, 30);
    tcase_add_checked_fixture(cases, tmp_dir_make, tmp_dir_remove);
    tcase_add_test(cases, test_listen_and_connect);
    tcase_add_test(cases, test_live_socket_is_refused);
    tcase_add_test(cases, test_stale_socket_is_replaced);
    tcase_add_test(cases, test_other_file_is_not_removed);
    tcase_add_test(cases, test_socket_path_length);
    tcase_add_test(cases, test_permission);
    tcase_add_test(cases, test_fds_are_passed);
    tcase_add_test(cases, test_too_many_fds_are_closed);
    tcase_add_test(cases, test_write_and_read_all);
    tcase_add_test(cases, test_transfer_time_limits);
    tcase_add_test(cases, test_make_dirs);
    tcase_add_test(cases, test_lock_file_names_its_holder);
    tcase_add_test(cases, test_free_bytes);
    tcase_add_test(cases, test_signal_fd);
    tcase_add_test(cases, test_event_fd);
    tcase_add_test(cases, test_pidfd);
    tcase_add_test(cases, test_small_ones);
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
