#ifndef SL_COMMON_OS_H
#define SL_COMMON_OS_H

/*
 * Small doors to the operating system: Unix sockets with descriptors, signals as descriptors, lock
 * file, directories, full reads and writes. Functions that fail return an error and leave errno as
 * the reason. Any process. Every descriptor made here is close-on-exec.
 */

#include <sys/types.h>

#include "common/err.h"

/* ---- Unix sockets ---------------------------------------------------------------------------- */

/* Listens on `path` (non-blocking). A stale socket that nobody answers is replaced; one that
 * answers is SL_ERR_STORE_LOCKED. The directory is made when it is missing. `mode` is the socket
 * file's. */
MUST_CHECK enum sl_err sl_os_listen_unix(const char *path, mode_t mode, int *fd);
/* Takes over a listening Unix socket made by a supervisor: sets it non-blocking and close-on-exec.
 * SL_ERR_CONFIG, with errno 0, when it is no such socket or not at `path`; SL_ERR_IO. */
MUST_CHECK enum sl_err sl_os_adopt_listener(int fd, const char *path);
/* Connects (blocking connect, blocking socket). SL_ERR_UNREACHABLE | SL_ERR_PERMISSION | SL_ERR_IO.
 */
MUST_CHECK enum sl_err sl_os_connect_unix(const char *path, int *fd);

struct sl_os_peer {
    pid_t pid; /* at connect time */
    uid_t uid;
    gid_t gid;
};
MUST_CHECK enum sl_err sl_os_get_peer(int fd, struct sl_os_peer *out);

#define SL_OS_FDS_MAX 4
/* Sends bytes, and descriptors with the first of them. Like send(): may send less; -1 with errno.
 */
ssize_t sl_os_send_fds(int fd, const void *bytes, size_t len, const int *fds, size_t fd_count);
/* Receives bytes and up to SL_OS_FDS_MAX descriptors, appended to fds[*fd_count...]; what does not
 * fit is closed. Like recv(): 0 at the end, -1 with errno. */
ssize_t sl_os_recv_fds(int fd, void *bytes, size_t len, int fds[SL_OS_FDS_MAX], size_t *fd_count);

/* Blocking, restarted after EINTR, until all is done or `timeout_ms` passed (-1: none). SL_ERR_IO:
 * error or end of file (errno 0); SL_ERR_TIMEOUT. */
MUST_CHECK enum sl_err sl_os_write_all(int fd, const void *bytes, size_t len, int timeout_ms);
MUST_CHECK enum sl_err sl_os_read_all(int fd, void *bytes, size_t len, int timeout_ms);

MUST_CHECK enum sl_err sl_os_set_nonblocking(int fd, bool is_nonblocking);

/* ---- files ------------------------------------------------------------------------------------
 */

/* mkdir -p; the last directory gets `mode`. */
MUST_CHECK enum sl_err sl_os_make_dirs(const char *path, mode_t mode);
/* Locks `path` for the life of the process and writes our pid into it. SL_ERR_STORE_LOCKED, with
 * the holder's pid in *holder (0: unknown), when another process has it. */
MUST_CHECK enum sl_err sl_os_lock_file(const char *path, int *fd, pid_t *holder);
/* Free bytes for us on the file system of `path`. */
MUST_CHECK enum sl_err sl_os_free_bytes(const char *path, uint64_t *bytes);

/* ---- process ----------------------------------------------------------------------------------
 */

/* Blocks the signals (a zero-terminated list) and returns a non-blocking signalfd for them. SIGPIPE
 * is set to be ignored. Call before any thread is started. */
MUST_CHECK enum sl_err sl_os_signal_fd(const int *signals, int *fd);
/* Next signal from it; 0: none waits. */
int sl_os_next_signal(int fd);
/* Raises the soft limit of open files to the hard one; returns it. */
uint64_t sl_os_raise_file_limit(void);
/* A pidfd of a process; -1 with errno. */
int sl_os_pidfd_open(pid_t pid);
/* Sends a signal through a pidfd; false with errno. */
bool sl_os_pidfd_kill(int pidfd, int signal);
/* When a process started, in ticks since boot (/proc/PID/stat, field 22): with the boot id it tells
 * a process from a later one of the same number. 0: no such process, or no /proc. */
uint64_t sl_os_start_time(pid_t pid);
/* This boot's id, NUL-filled; empty when /proc cannot be read. */
#define SL_OS_BOOT_ID_BYTES 40
void sl_os_boot_id(char boot_id[SL_OS_BOOT_ID_BYTES]);
/* An eventfd, non-blocking. */
MUST_CHECK enum sl_err sl_os_event_fd(int *fd);
void sl_os_event_signal(int fd);
void sl_os_event_clear(int fd);
/* No core dump, no ptrace of this process by others (PR_SET_DUMPABLE). */
void sl_os_set_undumpable(void);
/* Closes and sets to -1; ignores -1. Keeps errno. */
void sl_os_close(int *fd);
/* Tells malloc to keep up to `keep_bytes` of freed memory instead of handing it back to the kernel
 * and faulting it in again with the next batch. Before any thread is started. */
void sl_os_keep_memory(size_t keep_bytes);
/* Random bytes from the kernel. */
void sl_os_random(void *bytes, size_t len);

#endif
