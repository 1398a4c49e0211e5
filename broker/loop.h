#ifndef SL_BROKER_LOOP_H
#define SL_BROKER_LOOP_H

/*
 * The broker's loop: built from a configuration, run until it has drained.
 */

#include "broker/broker.h"

/* Opens everything (store, socket, metrics port), serves until SIGTERM or a failure, closes
 * everything. Returns the exit status. Main thread; blocks. */
int sl_broker_run(const struct sl_config *config, const struct sl_broker_options *options);

#endif
