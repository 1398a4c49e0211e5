#ifndef SL_COMMON_TASK_H
#define SL_COMMON_TASK_H

/*
 * What every process knows about a task: its number, its states, its endpoint.
 * Pure; any process.
 *
 * A task number is (job number << 32 | index in job, from 0): the tasks of a job stand together in
 * every index of the store, in the order accepted, so listing, ordering and purging a job need no
 * index of their own.
 */

#include "common/base.h"
#include "common/limits.h"

enum sl_task_state {
#define X(name, number, text, is_terminal, index, restart) SL_TASK_##name = (number),
#include "common/tbl/states.def"
#undef X
};

enum sl_endpoint {
#define X(name, number, url, path) SL_ENDPOINT_##name = (number),
#include "common/tbl/endpoints.def"
#undef X
};

/* Options of a task that fit a bit (wire, store and lane use the same bits). */
#define SL_TASK_FLAG_FAIL_ON_UNKNOWN UINT32_C(0x1) /* on_unknown = fail */
#define SL_TASK_FLAG_CACHE_REFRESH UINT32_C(0x2)
#define SL_TASK_FLAG_CACHE_OFF UINT32_C(0x4)
#define SL_TASK_FLAGS_ALL UINT32_C(0x7)

static inline uint64_t sl_task_number(uint32_t job, uint32_t idx)
{
    return (uint64_t)job << 32 | idx;
}

static inline uint32_t sl_task_job(uint64_t task)
{
    return (uint32_t)(task >> 32);
}

static inline uint32_t sl_task_idx(uint64_t task)
{
    return (uint32_t)task;
}

/* "task_" and 16 hexadecimal digits. */
void sl_task_name_format(uint64_t task, char name[SL_TASK_NAME_BYTES]);
MUST_CHECK bool sl_task_name_parse(const char *name, uint64_t *task);

const char *sl_task_state_name(enum sl_task_state state);
bool sl_task_state_is_known(uint32_t number);
bool sl_task_state_is_terminal(enum sl_task_state state);
bool sl_task_change_is_legal(enum sl_task_state from, enum sl_task_state to);

/* Endpoint of a line's url ("/v1/chat/completions"); false when it is none Sluice calls. */
MUST_CHECK bool sl_endpoint_parse(struct sl_span url, enum sl_endpoint *out);
bool sl_endpoint_is_known(uint32_t number);
const char *sl_endpoint_url(enum sl_endpoint endpoint);
/* What is appended to a provider's base_url ("/chat/completions"). */
const char *sl_endpoint_path(enum sl_endpoint endpoint);

#endif
