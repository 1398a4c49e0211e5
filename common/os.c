/*
 * System calls with their corners rounded: EINTR, partial transfers, close-on-exec, stale sockets.
 *
 * Runs in every process. Keeps no state but the descriptors it returns. Never logs: callers know
 * what the failure means.
 */
#include "common/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"

#define LISTEN_BACKLOG 1024

/* ---- Unix sockets ---------------------------------------------------------------------------- */

static bool make_address(const char *path, struct sockaddr_un *address)
{
    size_t len = strlen(path);

    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    if (len == 0 || len >= sizeof(address->sun_path)) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(address->sun_path, path, len);
    return true;
}

static enum sl_err connect_address(const struct sockaddr_un *address, int *out)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return SL_ERR_IO;
    }
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
        *out = fd;
        return SL_OK;
    }
    int reason = errno;
    close(fd);
    errno = reason;
    if (reason == ENOENT || reason == ECONNREFUSED || reason == ENOTDIR) {
        return SL_ERR_UNREACHABLE;
    }
    return reason == EACCES || reason == EPERM ? SL_ERR_PERMISSION : SL_ERR_IO;
}

enum sl_err sl_os_connect_unix(const char *path, int *fd)
{
    struct sockaddr_un address;

    if (!make_address(path, &address)) {
        return SL_ERR_UNREACHABLE;
    }
    return connect_address(&address, fd);
}

static enum sl_err make_parent_dir(const char *path)
{
    char dir[SL_PATH_BYTES_MAX];
    const char *slash = strrchr(path, '/');

    if (slash == NULL || slash == path) {
        return SL_OK;
    }
    if (!sl_span_copy_str(dir, sizeof(dir), sl_span_of(path, (size_t)(slash - path)))) {
        errno = ENAMETOOLONG;
        return SL_ERR_IO;
    }
    return sl_os_make_dirs(dir, 0755);
}

/* The socket file appears under its final mode: no moment in which anybody may connect. */
static enum sl_err bind_and_listen(int fd, const struct sockaddr_un *address, mode_t mode)
{
    mode_t old_mask = umask((mode_t)~mode & 0777);
    int rc = bind(fd, (const struct sockaddr *)address, sizeof(*address));
    int reason = errno;

    umask(old_mask);
    errno = reason;
    if (rc != 0) {
        return reason == EACCES || reason == EPERM ? SL_ERR_PERMISSION : SL_ERR_IO;
    }
    return listen(fd, LISTEN_BACKLOG) == 0 ? SL_OK : SL_ERR_IO;
}

static enum sl_err remove_stale_socket(const struct sockaddr_un *address)
{
    int probe = -1;
    struct stat info;
    enum sl_err err = connect_address(address, &probe);

    if (err == SL_OK) {
        close(probe);
        return SL_ERR_STORE_LOCKED;
    }
    if (err != SL_ERR_UNREACHABLE) {
        return err;
    }
    if (lstat(address->sun_path, &info) != 0) {
        return errno == ENOENT ? SL_OK : SL_ERR_IO;
    }
    if (!S_ISSOCK(info.st_mode)) {
        errno = ENOTSOCK;
        return SL_ERR_IO;
    }
    return unlink(address->sun_path) == 0 || errno == ENOENT ? SL_OK : SL_ERR_IO;
}

enum sl_err sl_os_listen_unix(const char *path, mode_t mode, int *out)
{
    struct sockaddr_un address;

    if (!make_address(path, &address)) {
        return SL_ERR_IO;
    }
    enum sl_err err = make_parent_dir(path);
    if (err == SL_OK) {
        err = remove_stale_socket(&address);
    }
    if (err != SL_OK) {
        return err;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return SL_ERR_IO;
    }
    err = bind_and_listen(fd, &address, mode);
    if (err != SL_OK) {
        sl_os_close(&fd);
        return err;
    }
    *out = fd;
    return SL_OK;
}

static int socket_option(int fd, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 ? value : -1;
}

enum sl_err sl_os_adopt_listener(int fd, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNSPEC};
    socklen_t len = sizeof(address) - 1; /* so that the path ends with a NUL whatever comes */

    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        return SL_ERR_IO;
    }
    if (address.sun_family != AF_UNIX || socket_option(fd, SO_TYPE) != SOCK_STREAM ||
        socket_option(fd, SO_ACCEPTCONN) != 1 || strcmp(address.sun_path, path) != 0) {
        errno = 0;
        return SL_ERR_CONFIG;
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        return SL_ERR_IO;
    }
    return sl_os_set_nonblocking(fd, true);
}

enum sl_err sl_os_get_peer(int fd, struct sl_os_peer *out)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0 || len != sizeof(cred)) {
        return SL_ERR_IO;
    }
    *out = (struct sl_os_peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
    return SL_OK;
}

union control_space {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int) * SL_OS_FDS_MAX)];
};

ssize_t sl_os_send_fds(int fd, const void *bytes, size_t len, const int *fds, size_t fd_count)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    union control_space control;

    SL_ASSERT(fd_count <= SL_OS_FDS_MAX);
    if (fd_count > 0) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
    }
    ssize_t sent;
    do {
        sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

static void take_fds(struct msghdr *msg, int fds[SL_OS_FDS_MAX], size_t *fd_count)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h != NULL; h = CMSG_NXTHDR(msg, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
            if (*fd_count < SL_OS_FDS_MAX) {
                fds[(*fd_count)++] = fd;
            } else {
                close(fd);
            }
        }
    }
}

ssize_t sl_os_recv_fds(int fd, void *bytes, size_t len, int fds[SL_OS_FDS_MAX], size_t *fd_count)
{
    struct iovec part = {.iov_base = bytes, .iov_len = len};
    union control_space control;
    struct msghdr msg = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    ssize_t got;

    do {
        got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got >= 0) {
        take_fds(&msg, fds, fd_count);
    }
    return got;
}

/* ---- full transfers ---------------------------------------------------------------------------
 */

static enum sl_err wait_ready(int fd, short events, int64_t due_ns)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        int64_t now_ns = sl_clock_mono_ns();
        int timeout_ms = due_ns == INT64_MAX ? -1 : sl_time_left_ms(due_ns, now_ns, INT_MAX);
        int rc = poll(&p, 1, timeout_ms);
        if (rc > 0) {
            return SL_OK;
        }
        if (rc == 0) {
            return SL_ERR_TIMEOUT;
        }
        if (errno != EINTR) {
            return SL_ERR_IO;
        }
    }
}

static int64_t due_after(int timeout_ms)
{
    return timeout_ms < 0 ? INT64_MAX : sl_clock_mono_ns() + timeout_ms * SL_NS_PER_MS;
}

enum sl_err sl_os_write_all(int fd, const void *bytes, size_t len, int timeout_ms)
{
    const char *at = bytes;
    int64_t due_ns = due_after(timeout_ms);

    while (len > 0) {
        enum sl_err err = wait_ready(fd, POLLOUT, due_ns);
        if (err != SL_OK) {
            return err;
        }
        ssize_t wrote = write(fd, at, len);
        if (wrote < 0 && errno != EINTR && errno != EAGAIN) {
            return SL_ERR_IO;
        }
        size_t done = wrote > 0 ? (size_t)wrote : 0;
        at += done;
        len -= done;
    }
    return SL_OK;
}

enum sl_err sl_os_read_all(int fd, void *bytes, size_t len, int timeout_ms)
{
    char *at = bytes;
    int64_t due_ns = due_after(timeout_ms);

    while (len > 0) {
        enum sl_err err = wait_ready(fd, POLLIN, due_ns);
        if (err != SL_OK) {
            return err;
        }
        ssize_t got = read(fd, at, len);
        if (got == 0) {
            errno = 0;
            return SL_ERR_IO;
        }
        if (got < 0 && errno != EINTR && errno != EAGAIN) {
            return SL_ERR_IO;
        }
        size_t done = got > 0 ? (size_t)got : 0;
        at += done;
        len -= done;
    }
    return SL_OK;
}

enum sl_err sl_os_set_nonblocking(int fd, bool is_nonblocking)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0) {
        return SL_ERR_IO;
    }
    flags = is_nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    return fcntl(fd, F_SETFL, flags) == 0 ? SL_OK : SL_ERR_IO;
}

/* ---- files ------------------------------------------------------------------------------------
 */

static enum sl_err make_dir(const char *path, mode_t mode)
{
    if (mkdir(path, mode) == 0 || errno == EEXIST) {
        return SL_OK;
    }
    return errno == EACCES ? SL_ERR_PERMISSION : SL_ERR_IO;
}

enum sl_err sl_os_make_dirs(const char *path, mode_t mode)
{
    char partial[SL_PATH_BYTES_MAX];
    enum sl_err err = SL_OK;

    if (!sl_span_copy_str(partial, sizeof(partial), sl_span_str(path))) {
        errno = ENAMETOOLONG;
        return SL_ERR_IO;
    }
    for (char *slash = strchr(partial + 1, '/'); slash != NULL && err == SL_OK;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        err = make_dir(partial, 0755);
        *slash = '/';
    }
    return err == SL_OK ? make_dir(partial, mode) : err;
}

enum sl_err sl_os_lock_file(const char *path, int *out, pid_t *holder)
{
    char text[32] = "";
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    *holder = 0;
    if (fd < 0) {
        return errno == EACCES ? SL_ERR_PERMISSION : SL_ERR_IO;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        enum sl_err err = errno == EWOULDBLOCK ? SL_ERR_STORE_LOCKED : SL_ERR_IO;
        ssize_t got = pread(fd, text, sizeof(text) - 1, 0);
        *holder = got > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
        sl_os_close(&fd);
        return err;
    }
    int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)len, 0) != len) {
        sl_os_close(&fd); /* a full disk: the lock still holds its meaning, the pid does not fit */
        return SL_ERR_IO;
    }
    *out = fd;
    return SL_OK;
}

enum sl_err sl_os_free_bytes(const char *path, uint64_t *bytes)
{
    struct statvfs info;

    if (statvfs(path, &info) != 0) {
        return SL_ERR_IO;
    }
    *bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return SL_OK;
}

/* ---- process ----------------------------------------------------------------------------------
 */

enum sl_err sl_os_signal_fd(const int *signals, int *out)
{
    sigset_t set;
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigemptyset(&set);
    for (size_t i = 0; signals[i] != 0; i++) {
        sigaddset(&set, signals[i]);
    }
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 || sigaction(SIGPIPE, &ignore, NULL) != 0) {
        return SL_ERR_IO;
    }
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        return SL_ERR_IO;
    }
    *out = fd;
    return SL_OK;
}

int sl_os_next_signal(int fd)
{
    struct signalfd_siginfo info;
    ssize_t got = read(fd, &info, sizeof(info));

    return got == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

uint64_t sl_os_raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 1024;
    }
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            getrlimit(RLIMIT_NOFILE, &limit);
        }
    }
    return limit.rlim_cur;
}

int sl_os_pidfd_open(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

bool sl_os_pidfd_kill(int pidfd, int signal)
{
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) == 0;
}

/* Reads a small file of /proc as text; empty when that fails. */
static void read_proc(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);

    text[got > 0 ? got : 0] = '\0';
    sl_os_close(&fd);
}

uint64_t sl_os_start_time(pid_t pid)
{
    char path[64];
    char text[1024];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    read_proc(path, text, sizeof(text));
    const char *at = strrchr(text, ')'); /* field 2 may hold anything; the rest is numbers */
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

void sl_os_boot_id(char boot_id[SL_OS_BOOT_ID_BYTES])
{
    char text[SL_OS_BOOT_ID_BYTES];

    memset(boot_id, 0, SL_OS_BOOT_ID_BYTES);
    read_proc("/proc/sys/kernel/random/boot_id", text, sizeof(text));
    size_t len = strcspn(text, "\n");
    memcpy(boot_id, text, len);
}

enum sl_err sl_os_event_fd(int *out)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0) {
        return SL_ERR_IO;
    }
    *out = fd;
    return SL_OK;
}

void sl_os_event_signal(int fd)
{
    uint64_t one = 1;
    ssize_t ignored;

    do {
        ignored = write(fd, &one, sizeof(one)); /* EAGAIN: it is at its top and readable anyway */
    } while (ignored < 0 && errno == EINTR);
}

void sl_os_event_clear(int fd)
{
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof(count));

    (void)ignored;
}

void sl_os_set_undumpable(void)
{
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

void sl_os_close(int *fd)
{
    int reason = errno;

    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    errno = reason;
}

void sl_os_keep_memory(size_t keep_bytes)
{
    mallopt(M_TRIM_THRESHOLD, (int)keep_bytes);
    mallopt(M_MMAP_THRESHOLD, (int)keep_bytes);
    mallopt(M_TOP_PAD, (int)(keep_bytes / 8));
}

void sl_os_random(void *bytes, size_t len)
{
    char *at = bytes;

    while (len > 0) {
        ssize_t got = getrandom(at, len, 0);
        SL_ASSERT(got > 0 || errno == EINTR);
        size_t done = got > 0 ? (size_t)got : 0;
        at += done;
        len -= done;
    }
}
