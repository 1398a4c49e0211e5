#ifndef SL_WORKER_PROVIDER_H
#define SL_WORKER_PROVIDER_H

/*
 * A provider as a worker uses it: its settings, key, header lines, and what is known about its
 * name. All providers of one reading of the configuration are a set; a SIGHUP brings a new one, and
 * the old one lives until its last call has ended. Worker only.
 */

#include "common/params.h"
#include "worker/call.h"
#include "worker/dialect.h"
#include "worker/keys.h"

/* Is the provider's host name resolved? Until it is, one call goes first and the others wait, so
 * that a cold start does not cost a resolver thread per call. */
enum sl_name_state { SL_NAME_COLD, SL_NAME_RESOLVING, SL_NAME_KNOWN };

struct sl_provider_set;
struct sl_http_headers; /* worker/transfer */

struct sl_provider {
    struct sl_provider_set *set;
    const struct sl_provider_config *cfg; /* in the set */
    const struct sl_dialect *dialect;     /* NULL: this version does not speak its kind */
    enum sl_key_state key_state;
    struct sl_header_lines headers;
    struct sl_http_headers *http_headers; /* the same, as the transfer wants them */

    /* Kept by worker/transfer: */
    enum sl_name_state name_state;
    int64_t name_known_ns;          /* when it was last resolved */
    struct sl_call_list waiting;    /* SL_CALL_WAITING, in order of arrival */
    struct sl_call_list unanswered; /* SL_CALL_RUNNING without a byte of an answer, oldest first */
};

struct sl_providers;

/* No provider yet. NULL: out of memory. */
struct sl_providers *sl_providers_open(void);
/* No call may hold a provider any more. */
void sl_providers_close(struct sl_providers **providers);

/* Reads keys (may block on files) and makes this configuration the current one. On an error the
 * current one stays. SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_providers_load(struct sl_providers *providers,
                                         const struct sl_config *cfg);
/* In the current configuration; NULL: none of that name. */
struct sl_provider *sl_providers_find(struct sl_providers *providers, struct sl_span name);
/* Every provider that a call may still use, older configurations included; NULL starts and ends. */
struct sl_provider *sl_providers_next(struct sl_providers *providers, struct sl_provider *after);

/* A call takes the provider and gives it back: counts the holds of its set. */
void sl_provider_give_to(struct sl_provider *provider, struct sl_call *call);
void sl_provider_take_from(struct sl_call *call);

#endif
