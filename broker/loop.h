#ifndef SL_BROKER_LOOP_H
#define SL_BROKER_LOOP_H

/*
 * The broker's loop: built from a configuration, run until it has drained.
 */

#include "broker/broker.h"

/* Opens everything (store, socket, metrics port), serves until SIGTERM or a failure, closes
 * everything. Returns the exit status. Main thread; blocks. */
int sl_broker_run(const struct sl_config *config, const struct sl_broker_options *options);

/* For broker/start.c: turns until the broker has drained or failed; handles the signalfd. */
void sl_loop_serve(struct sl_broker *broker);
void sl_loop_on_signal(struct sl_source *source, uint32_t events);

#endif
