#ifndef SL_TOOLS_START_H
#define SL_TOOLS_START_H

/*
 * A private service pair in the background, for `sluice-submit --start`. Tools only; blocks up to
 * ten seconds.
 */

#include "tools/tool.h"

/* Starts sluice-broker and sluice-worker (beside this program, or on PATH) in sessions of their
 * own, with the queue enabled and the same configuration, and connects to the broker. When somebody
 * else is starting them right now, waits for that pair instead. SL_ERR_UNREACHABLE, SL_ERR_IO,
 * SL_ERR_INTERRUPTED with tool->fault, which names the logs. */
MUST_CHECK enum sl_err sl_start_pair(struct sl_tool *tool);

#endif
