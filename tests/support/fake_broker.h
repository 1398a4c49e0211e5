#ifndef SL_TESTS_SUPPORT_FAKE_BROKER_H
#define SL_TESTS_SUPPORT_FAKE_BROKER_H

/*
 * A broker for tests of the worker service: listens, hands each worker that greets a lane, sends
 * calls, collects results. It stores nothing and decides nothing. One at a time; a test process.
 * What should not happen fails the test through libcheck.
 */

#include <sys/types.h>

#include "common/lane.h"
#include "common/wire.h"

#define FAKE_HELD_MAX 512
#define FAKE_RESULT_TEXT 600

struct fake_broker;

struct fake_result {
    struct sl_result_msg_shm msg;
    char request_id[SL_REQUEST_ID_BYTES_MAX + 1];
    char message[FAKE_RESULT_TEXT];
    char *body; /* NUL-terminated; free with fake_result_fini */
    bool is_large;
};
void fake_result_fini(struct fake_result *result);

struct fake_broker *fake_broker_open(const char *socket_path);
/* As a broker that is killed: every descriptor is closed, the socket file stays. */
void fake_broker_close(struct fake_broker *broker);

/* Waits for a worker's hello and gives it a lane of this generation. Returns its index; its hello's
 * calls are in fake_broker_held afterwards. */
size_t fake_broker_accept(struct fake_broker *broker, uint64_t generation);
const struct sl_held_call *fake_broker_held(const struct fake_broker *broker, size_t *count);
/* Waits for a worker's hello and refuses it with this error. */
void fake_broker_refuse(struct fake_broker *broker, enum sl_err err);
pid_t fake_broker_worker_pid(const struct fake_broker *broker, size_t worker);

/* A call without a provider's time-out of its own (timeout_ms 0: the provider's). Bodies over
 * SL_LANE_PAYLOAD_BYTES_MAX go over the socket. */
void fake_broker_call(struct fake_broker *broker, size_t worker, uint64_t task, const char *body);
struct fake_call {
    uint64_t task;
    uint32_t attempt;
    uint32_t timeout_ms;
    uint16_t kind;
    const char *provider;
    struct sl_span body;
};
void fake_broker_send(struct fake_broker *broker, size_t worker, const struct fake_call *call);
void fake_broker_ring(struct fake_broker *broker, size_t worker);
void fake_broker_drain(struct fake_broker *broker, size_t worker);

/* The next result; false when none came in time. It stays in the ring until released. */
MUST_CHECK bool fake_broker_result(struct fake_broker *broker, size_t worker,
                                   struct fake_result *out, int timeout_ms);
/* Releases every result taken so far and rings for space. */
void fake_broker_release(struct fake_broker *broker, size_t worker);
/* Waits until the worker hangs up. */
MUST_CHECK bool fake_broker_gone(struct fake_broker *broker, size_t worker, int timeout_ms);
bool fake_broker_has_left(const struct fake_broker *broker, size_t worker); /* LEAVING came */
struct sl_lane *fake_broker_lane(struct fake_broker *broker, size_t worker);

#endif
