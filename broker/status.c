/*
 * What the broker says of itself: the counter block and the status document.
 *
 * Loop thread. All numbers of one document are of one moment: counts that survive restarts come
 * from the last commit, the others from the loop, and `ready` is what is left, so that `submitted`
 * is always the sum of the states.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "broker/broker.h"
#include "common/check.h"

static uint64_t ready_count(const struct sl_broker *broker)
{
    const struct sl_counters_rec *stored = &broker->stored;
    uint64_t elsewhere = stored->completed + stored->failed + stored->cancelled + stored->expired +
                         broker->delayed + broker->in_flight;

    SL_ASSERT(elsewhere <= stored->submitted);
    return stored->submitted - elsewhere;
}

static uint64_t lane_count(const struct sl_broker *broker)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        count += broker->workers[i].state == SL_WORKER_OPEN;
    }
    return count;
}

static void refresh_tasks(struct sl_broker *broker)
{
    const struct sl_counters_rec *stored = &broker->stored;
    struct sl_counters *counters = &broker->counters;

    sl_counters_set(counters, SL_COUNTER_CONCURRENCY, broker->config->concurrency);
    sl_counters_set(counters, SL_COUNTER_READY, ready_count(broker));
    sl_counters_set(counters, SL_COUNTER_DELAYED, broker->delayed);
    sl_counters_set(counters, SL_COUNTER_INFLIGHT, broker->in_flight);
    sl_counters_set(counters, SL_COUNTER_SUBMITTED, stored->submitted);
    sl_counters_set(counters, SL_COUNTER_COMPLETED, stored->completed);
    sl_counters_set(counters, SL_COUNTER_FAILED, stored->failed);
    sl_counters_set(counters, SL_COUNTER_CANCELLED, stored->cancelled);
    sl_counters_set(counters, SL_COUNTER_EXPIRED, stored->expired);
    sl_counters_set(counters, SL_COUNTER_RETRIES, stored->retries);
    sl_counters_set(counters, SL_COUNTER_PROVIDER_CALLS, stored->provider_calls);
    sl_counters_set(counters, SL_COUNTER_INPUT_TOKENS, stored->input_tokens);
    sl_counters_set(counters, SL_COUNTER_OUTPUT_TOKENS, stored->output_tokens);
}

void sl_status_refresh(struct sl_broker *broker)
{
    struct sl_counters *counters = &broker->counters;
    struct sl_commit_stats commits = sl_commit_stats(broker->commit);

    sl_counters_begin(counters);
    refresh_tasks(broker);
    sl_counters_end(counters);
    sl_counters_set(counters, SL_COUNTER_STALE_RESULTS, broker->stale_results);
    sl_counters_set(counters, SL_COUNTER_CONNECTIONS, broker->conn_count);
    sl_counters_set(counters, SL_COUNTER_CLIENTS_REFUSED, broker->clients_refused);
    sl_counters_set(counters, SL_COUNTER_FRAMES_REFUSED, broker->frames_refused);
    sl_counters_set(counters, SL_COUNTER_TASKS_REFUSED, broker->tasks_refused);
    sl_counters_set(counters, SL_COUNTER_LANES, lane_count(broker));
    sl_counters_set(counters, SL_COUNTER_LANES_LOST, broker->lanes_lost);
    sl_counters_set(counters, SL_COUNTER_COMMITS, commits.commits);
    sl_counters_set(counters, SL_COUNTER_SYNC_NS, commits.sync_ns);
    sl_counters_set(counters, SL_COUNTER_LOOP_TURNS, broker->loop_turns);
    sl_counters_set(counters, SL_COUNTER_LOOP_BUSY_NS, broker->loop_busy_ns);
}

bool sl_status_is_ready(void *ctx, char reason[SL_HTTP_REASON_BYTES])
{
    struct sl_broker *broker = ctx;
    const char *why = NULL;

    if (broker->state != SL_BROKER_RUNNING) {
        why = "draining";
    } else if (!broker->has_space) {
        why = "no space";
    } else if (lane_count(broker) == 0) {
        why = "no workers";
    }
    snprintf(reason, SL_HTTP_REASON_BYTES, "%s", why == NULL ? "" : why);
    return why == NULL;
}

/* ---- the document
 * ---------------------------------------------------------------------------------- */

static void put_broker(struct sl_broker *broker, struct sl_wire_writer *writer)
{
    double uptime_s = (double)(broker->now.mono_ns - broker->started_ns) / (double)SL_NS_PER_S;

    sl_wire_put_key(writer, "broker");
    sl_wire_put_map(writer, 5);
    sl_wire_put_kv_str(writer, "version", SLUICE_VERSION);
    sl_wire_put_kv_uint(writer, "pid", (uint64_t)getpid());
    sl_wire_put_kv_double(writer, "uptime_s", uptime_s);
    sl_wire_put_kv_str(writer, "state",
                       broker->state == SL_BROKER_RUNNING ? "running" : "draining");
    sl_wire_put_kv_uint(writer, "generation", broker->stored.generation);
}

static void put_queue(struct sl_broker *broker, struct sl_wire_writer *writer)
{
    uint32_t shown = 0;

    for (int i = 0; i < SL_COUNTER_COUNT; i++) {
        shown += sl_counter_row((enum sl_counter)i)->field[0] != '\0';
    }
    sl_wire_put_key(writer, "queue");
    sl_wire_put_map(writer, shown);
    for (int i = 0; i < SL_COUNTER_COUNT; i++) {
        const struct sl_counter_row *row = sl_counter_row((enum sl_counter)i);
        if (row->field[0] != '\0') {
            sl_wire_put_kv_uint(writer, row->field,
                                sl_counters_get(&broker->counters, (enum sl_counter)i));
        }
    }
}

static void put_providers(struct sl_broker *broker, struct sl_wire_writer *writer)
{
    const struct sl_config *config = broker->config;

    sl_wire_put_key(writer, "providers");
    sl_wire_put_array(writer, config->provider_count);
    for (uint32_t i = 0; i < config->provider_count; i++) {
        const struct sl_provider_config *provider = &config->providers[i];
        const struct sl_provider_state *state = &broker->providers[i];
        uint32_t concurrency =
            provider->concurrency == 0 ? config->concurrency : provider->concurrency;
        sl_wire_put_map(writer, 8);
        sl_wire_put_kv_str(writer, "name", provider->name);
        sl_wire_put_kv_str(writer, "breaker", "closed");
        sl_wire_put_kv_uint(writer, "inflight", state->in_flight);
        sl_wire_put_kv_uint(writer, "concurrency", concurrency);
        sl_wire_put_kv_uint(writer, "rpm_limit", 0);
        sl_wire_put_kv_uint(writer, "tpm_limit", 0);
        sl_wire_put_kv_uint(writer, "calls", state->calls);
        sl_wire_put_kv_uint(writer, "errors", state->errors);
    }
}

static bool is_shown(const struct sl_worker *worker)
{
    return worker->state == SL_WORKER_OPEN || worker->state == SL_WORKER_LEAVING;
}

static void put_workers(struct sl_broker *broker, struct sl_wire_writer *writer)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        count += is_shown(&broker->workers[i]);
    }
    sl_wire_put_key(writer, "workers");
    sl_wire_put_array(writer, count);
    for (uint32_t i = 0; i < SL_LANES_MAX; i++) {
        const struct sl_worker *worker = &broker->workers[i];
        if (!is_shown(worker)) {
            continue;
        }
        sl_wire_put_map(writer, 4);
        sl_wire_put_kv_uint(writer, "pid", (uint64_t)worker->pid);
        sl_wire_put_kv_uint(writer, "generation", (uint32_t)worker->generation);
        sl_wire_put_kv_uint(writer, "inflight", worker->in_flight);
        sl_wire_put_kv_uint(writer, "calls", worker->calls);
    }
}

static void put_jobs(struct sl_wire_writer *writer, const struct sl_job_info *jobs, size_t count)
{
    sl_wire_put_key(writer, "jobs");
    sl_wire_put_array(writer, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        sl_wire_put_map(writer, 6);
        sl_wire_put_kv_str(writer, "name", jobs[i].name);
        sl_wire_put_kv_uint(writer, "total", jobs[i].total);
        sl_wire_put_kv_uint(writer, "completed", jobs[i].completed);
        sl_wire_put_kv_uint(writer, "failed", jobs[i].failed);
        sl_wire_put_kv_uint(writer, "cancelled", jobs[i].cancelled);
        sl_wire_put_kv_uint(writer, "expired", jobs[i].expired);
    }
}

enum sl_err sl_status_put(struct sl_broker *broker, struct sl_wire_writer *writer,
                          const struct sl_job_info *jobs, size_t count)
{
    sl_status_refresh(broker);
    sl_wire_put_map(writer, 5);
    put_broker(broker, writer);
    put_queue(broker, writer);
    put_providers(broker, writer);
    put_workers(broker, writer);
    put_jobs(writer, jobs, count);
    return writer->is_full ? SL_ERR_FULL : SL_OK;
}
