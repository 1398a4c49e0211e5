/*
 * systemd notification, by the documented datagram protocol, without libsystemd.
 *
 * Runs in the broker and in the worker's parent. Keeps no state; a supervisor that went away costs
 * a failed sendto and nothing else.
 */
#include "common/notify.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void sl_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof(address.sun_path)) {
        return;
    }
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@') {
        address.sun_path[0] = '\0'; /* abstract name */
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return;
    }
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    ssize_t ignored =
        sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address, len);
    (void)ignored;
    close(fd);
}

int sl_notify_listen_count(void)
{
    const char *count_text = getenv("LISTEN_FDS");
    const char *pid_text = getenv("LISTEN_PID");

    if (count_text == NULL || pid_text == NULL || strtol(pid_text, NULL, 10) != (long)getpid()) {
        return 0;
    }
    long count = strtol(count_text, NULL, 10);
    return count > 0 && count < INT32_MAX ? (int)count : 0;
}

int64_t sl_notify_watchdog_ns(void)
{
    const char *text = getenv("WATCHDOG_USEC");
    const char *pid_text = getenv("WATCHDOG_PID");

    if (text == NULL || (pid_text != NULL && strtol(pid_text, NULL, 10) != (long)getpid())) {
        return 0;
    }
    long long micros = strtoll(text, NULL, 10);
    return micros > 0 && micros < INT64_MAX / 1000 ? (int64_t)micros * 1000 / 2 : 0;
}
