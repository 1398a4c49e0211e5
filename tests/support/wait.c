/*
 * Waiting for descriptors and files. Used by tests that start programs or drive a loop. Files are
 * watched with inotify: first the watch, then the look, then the wait, so nothing is missed
 * between. Never sleeps. Not for threads that share a file.
 */
#include "tests/support/wait.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/os.h"

#define PATH_BYTES 1024

static void give_up(const char *what)
{
    fprintf(stderr, "wait: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* ---- descriptors ------------------------------------------------------------------------------
 */

static bool wait_until(int fd, int64_t due_ns)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    int rc;

    do {
        rc = poll(&entry, 1, sl_time_left_ms(due_ns, sl_clock_mono_ns(), INT_MAX));
    } while (rc < 0 && errno == EINTR);
    return rc > 0;
}

bool wait_readable(int fd, int timeout_ms)
{
    return wait_until(fd, sl_clock_mono_ns() + timeout_ms * SL_NS_PER_MS);
}

/* ---- files ------------------------------------------------------------------------------------
 */

static int watch_directory_of(const char *path)
{
    char dir[PATH_BYTES];
    const char *slash = strrchr(path, '/');
    struct sl_span parent = slash == NULL   ? sl_span_str(".")
                            : slash == path ? sl_span_str("/")
                                            : sl_span_of(path, (size_t)(slash - path));
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    if (fd < 0 || !sl_span_copy_str(dir, sizeof(dir), parent) ||
        inotify_add_watch(fd, dir, IN_CREATE | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE) < 0) {
        give_up(path);
    }
    return fd;
}

static void read_dry(int fd)
{
    char events[4096];

    while (read(fd, events, sizeof(events)) > 0) {
    }
}

static bool file_holds(const char *path, const char *text)
{
    FILE *file = fopen(path, "re");
    bool is_found = false;
    char *content = NULL;
    size_t size = 0;

    if (file == NULL) {
        return false;
    }
    ssize_t len = getdelim(&content, &size, '\0', file);
    if (len > 0) {
        is_found = strstr(content, text) != NULL;
    }
    free(content);
    fclose(file);
    return is_found || text[0] == '\0';
}

bool wait_text(const char *path, const char *text, int timeout_ms)
{
    int64_t due_ns = sl_clock_mono_ns() + timeout_ms * SL_NS_PER_MS;
    int fd = watch_directory_of(path);
    bool is_found = file_holds(path, text);

    while (!is_found && wait_until(fd, due_ns)) {
        read_dry(fd);
        is_found = file_holds(path, text);
    }
    sl_os_close(&fd);
    return is_found;
}

bool wait_file(const char *path, int timeout_ms)
{
    int64_t due_ns = sl_clock_mono_ns() + timeout_ms * SL_NS_PER_MS;
    int fd = watch_directory_of(path);
    bool is_there = access(path, F_OK) == 0;

    while (!is_there && wait_until(fd, due_ns)) {
        read_dry(fd);
        is_there = access(path, F_OK) == 0;
    }
    sl_os_close(&fd);
    return is_there;
}

/* ---- ports ------------------------------------------------------------------------------------
 */

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

uint16_t port_free(void)
{
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)(void *)&address, len) != 0 ||
        getsockname(fd, (struct sockaddr *)(void *)&address, &len) != 0) {
        give_up("no free port");
    }
    sl_os_close(&fd);
    return ntohs(address.sin_port);
}

int port_connect(uint16_t port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)(void *)&address, sizeof(address)) != 0) {
        sl_os_close(&fd);
    }
    return fd;
}
