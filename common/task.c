/*
 * Names and rules of tasks, read from states.def, transitions.def and endpoints.def.
 *
 * Pure: constant tables, no allocation, no I/O.
 */
#include "common/task.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"

#define NAME_PREFIX "task_"
#define NAME_PREFIX_BYTES (sizeof(NAME_PREFIX) - 1)
#define NAME_DIGITS 16

static const struct {
    enum sl_task_state state;
    const char *name;
    bool is_terminal;
} states[] = {
#define X(name, number, text, is_terminal, index, restart) {SL_TASK_##name, text, is_terminal},
#include "common/tbl/states.def"
#undef X
};

static const struct {
    enum sl_task_state from;
    enum sl_task_state to;
} transitions[] = {
#define X(from, to, when) {SL_TASK_##from, SL_TASK_##to},
#include "common/tbl/transitions.def"
#undef X
};

static const struct {
    enum sl_endpoint endpoint;
    const char *url;
    const char *path;
} endpoints[] = {
#define X(name, number, url, path) {SL_ENDPOINT_##name, url, path},
#include "common/tbl/endpoints.def"
#undef X
};

_Static_assert(NAME_PREFIX_BYTES + NAME_DIGITS + 1 <= SL_TASK_NAME_BYTES, "a task name fits");

void sl_task_name_format(uint64_t task, char name[SL_TASK_NAME_BYTES])
{
    int len = snprintf(name, SL_TASK_NAME_BYTES, NAME_PREFIX "%016" PRIx64, task);

    SL_ASSERT(len == (int)(NAME_PREFIX_BYTES + NAME_DIGITS));
}

bool sl_task_name_parse(const char *name, uint64_t *task)
{
    if (strncmp(name, NAME_PREFIX, NAME_PREFIX_BYTES) != 0) {
        return false;
    }
    const char *digits = name + NAME_PREFIX_BYTES;
    if (strlen(digits) != NAME_DIGITS || strspn(digits, "0123456789abcdef") != NAME_DIGITS) {
        return false;
    }
    *task = strtoull(digits, NULL, 16);
    return true;
}

const char *sl_task_state_name(enum sl_task_state state)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(states); i++) {
        if (states[i].state == state) {
            return states[i].name;
        }
    }
    SL_UNREACHABLE();
}

bool sl_task_state_is_known(uint32_t number)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(states); i++) {
        if ((uint32_t)states[i].state == number) {
            return true;
        }
    }
    return false;
}

bool sl_task_state_is_terminal(enum sl_task_state state)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(states); i++) {
        if (states[i].state == state) {
            return states[i].is_terminal;
        }
    }
    SL_UNREACHABLE();
}

bool sl_task_change_is_legal(enum sl_task_state from, enum sl_task_state to)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(transitions); i++) {
        if (transitions[i].from == from && transitions[i].to == to) {
            return true;
        }
    }
    return false;
}

bool sl_endpoint_parse(struct sl_span url, enum sl_endpoint *out)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(endpoints); i++) {
        if (sl_span_equal(url, sl_span_str(endpoints[i].url))) {
            *out = endpoints[i].endpoint;
            return true;
        }
    }
    return false;
}

bool sl_endpoint_is_known(uint32_t number)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(endpoints); i++) {
        if ((uint32_t)endpoints[i].endpoint == number) {
            return true;
        }
    }
    return false;
}

const char *sl_endpoint_url(enum sl_endpoint endpoint)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(endpoints); i++) {
        if (endpoints[i].endpoint == endpoint) {
            return endpoints[i].url;
        }
    }
    SL_UNREACHABLE();
}

const char *sl_endpoint_path(enum sl_endpoint endpoint)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(endpoints); i++) {
        if (endpoints[i].endpoint == endpoint) {
            return endpoints[i].path;
        }
    }
    SL_UNREACHABLE();
}
