#ifndef SL_WORKER_KEYS_H
#define SL_WORKER_KEYS_H

/*
 * Where a provider's API key comes from: a file of the configuration, an environment variable of
 * the configuration, or a systemd credential of the provider's name. The only place that reads one.
 * Worker only, at start and on SIGHUP; may block on the file.
 */

#include "common/err.h"
#include "common/params.h"

enum sl_key_state {
    SL_KEY_NONE,    /* no key is configured: calls go without one (a local server) */
    SL_KEY_MISSING, /* one is configured, but it is not there or not usable */
    SL_KEY_PRESENT,
};

struct sl_key {
    enum sl_key_state state;
    char text[SL_KEY_BYTES_MAX + 1]; /* the secret; printable ASCII, never logged */
    char reason[256];                /* why it is missing, for a log: never holds the key */
};

/* Looks for the key of one provider. Warns on stderr's log about a file that others may read.
 * Whatever it finds, *out is filled in; wipe it with sl_key_wipe. */
void sl_key_load(const struct sl_provider_config *provider, struct sl_key *out);
void sl_key_wipe(struct sl_key *key);

#endif
