#ifndef SL_COMMON_NOTIFY_H
#define SL_COMMON_NOTIFY_H

/*
 * Tells systemd about the life of a service over $NOTIFY_SOCKET (sd_notify(3) protocol: one
 * datagram of KEY=VALUE lines). Does nothing when nobody asked. Never blocks, errors are ignored.
 */

#include "common/base.h"

/* state: "READY=1", "STOPPING=1", "WATCHDOG=1", "RELOADING=1", "EXTEND_TIMEOUT_USEC=..." */
void sl_notify(const char *state);
/* Descriptors that a supervisor listens on for this process (sd_listen_fds(3): $LISTEN_PID is
 * ours), the first is SL_NOTIFY_LISTEN_FD; 0: none. They are the caller's from then on. */
#define SL_NOTIFY_LISTEN_FD 3
int sl_notify_listen_count(void);
/* Half of $WATCHDOG_USEC in nanoseconds, 0 when the supervisor wants no watchdog. */
int64_t sl_notify_watchdog_ns(void);

#endif
