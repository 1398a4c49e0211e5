#ifndef SL_BROKER_RELOAD_H
#define SL_BROKER_RELOAD_H

/*
 * SIGHUP: a new configuration for a running broker.
 */

#include "broker/broker.h"

/* Reads the configuration again and takes over what may change without a restart. A fault is logged
 * with file and line, and then nothing changes. What needs a restart is named in the log and stays.
 * Loop thread; blocks on the file. */
void sl_reload(struct sl_broker *broker);

/* Makes `loaded` (malloc'ed; taken over) the configuration, and brings everything that is counted
 * by provider in line with it. Providers are the same when they have the same name:
 *   kept     its calls, counters and turns go on, at whatever place it has in the list now
 *   removed  calls that no worker has go back to ready, uncounted; calls in flight end as usual;
 *            its other tasks wait
 *   added    tasks that wait for it are ready
 * Settings that need a restart must be the running ones already. Loop thread, outside of a walk
 * over providers, supplies or calls. */
void sl_reload_apply(struct sl_broker *broker, struct sl_config *loaded);

#endif
