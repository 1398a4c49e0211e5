/*
 * Supplies: provider x model x tenant. Their numbers are given out once and kept in the store,
 * because the ready index is ordered by them.
 *
 * Loop thread. A supply whose provider is not configured any more keeps its tasks; they wait until
 * it is configured again.
 */
#include <stdlib.h>

#include "broker/broker.h"
#include "common/check.h"

struct supply_op {
    struct sl_op op;
    struct sl_supply_info info;
    char provider[SL_NAME_BYTES_MAX + 1];
    char model[SL_NAME_BYTES_MAX + 1];
};

static enum sl_err run_supply(struct sl_op *op, struct sl_store *store)
{
    struct supply_op *own = SL_CONTAINER_OF(op, struct supply_op, op);

    return sl_store_put_supply(store, &own->info);
}

static void done_supply(struct sl_op *op)
{
    free(SL_CONTAINER_OF(op, struct supply_op, op));
}

static enum sl_err persist(struct sl_broker *broker, uint32_t idx)
{
    struct supply_op *op = calloc(1, sizeof(*op));
    const struct sl_supply *supply = &broker->supplies[idx];

    if (op == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    memcpy(op->provider, supply->provider, sizeof(op->provider));
    memcpy(op->model, supply->model, sizeof(op->model));
    op->info = (struct sl_supply_info){.supply = idx,
                                       .uid = supply->uid,
                                       .provider = sl_span_str(op->provider),
                                       .model = sl_span_str(op->model)};
    op->op = (struct sl_op){.run = run_supply, .done = done_supply, .cost_bytes = 256};
    sl_commit_add(broker->commit, &op->op);
    return SL_OK;
}

static uint32_t provider_idx_of(const struct sl_broker *broker, struct sl_span name)
{
    const struct sl_provider_config *provider = sl_config_find_provider(broker->config, name);

    return provider == NULL ? SL_SUPPLY_NO_PROVIDER
                            : (uint32_t)(provider - broker->config->providers);
}

static enum sl_err add_supply(struct sl_broker *broker, const struct sl_supply_info *info)
{
    uint32_t idx = broker->supply_count;
    struct sl_supply *supply = &broker->supplies[idx];

    if (idx == SL_SUPPLIES_MAX) {
        return SL_ERR_OVERLOADED;
    }
    *supply = (struct sl_supply){.uid = info->uid,
                                 .provider_idx = provider_idx_of(broker, info->provider),
                                 .route_idx = SL_ROUTE_NONE};
    if (!sl_span_copy_str(supply->provider, sizeof(supply->provider), info->provider) ||
        !sl_span_copy_str(supply->model, sizeof(supply->model), info->model)) {
        return SL_ERR_INPUT;
    }
    if (supply->provider_idx != SL_SUPPLY_NO_PROVIDER) {
        enum sl_err err = sl_route_add(broker->route, supply->provider_idx, &supply->route_idx);
        if (err != SL_OK) {
            return SL_ERR_OVERLOADED;
        }
        broker->route_supply[supply->route_idx] = idx;
    }
    broker->supply_count++;
    return SL_OK;
}

static bool is_same(const struct sl_supply *supply, uint32_t uid, const char *provider,
                    struct sl_span model)
{
    return supply->uid == uid && strcmp(supply->provider, provider) == 0 &&
           sl_span_equal(sl_span_str(supply->model), model);
}

enum sl_err sl_supply_for(struct sl_broker *broker, uint32_t uid, const struct sl_task_msg *task,
                          uint32_t *out)
{
    const struct sl_provider_config *provider =
        task->provider.len > 0 ? sl_config_find_provider(broker->config, task->provider)
                               : sl_config_find_model(broker->config, task->model);

    if (provider == NULL) {
        return task->provider.len > 0 ? SL_ERR_UNKNOWN_PROVIDER : SL_ERR_UNKNOWN_MODEL;
    }
    for (uint32_t i = broker->supply_count; i-- > 0;) { /* the newest is the likeliest */
        if (is_same(&broker->supplies[i], uid, provider->name, task->model)) {
            *out = i;
            return SL_OK;
        }
    }
    struct sl_supply_info info = {.supply = broker->supply_count,
                                  .uid = uid,
                                  .provider = sl_span_str(provider->name),
                                  .model = task->model};
    enum sl_err err = add_supply(broker, &info);
    if (err != SL_OK) {
        return err;
    }
    *out = info.supply;
    return persist(broker, info.supply);
}

struct load_ctx {
    struct sl_broker *broker;
    enum sl_err err;
};

static void load_one(void *ctx, const struct sl_supply_info *info)
{
    struct load_ctx *load = ctx;

    if (load->err != SL_OK) {
        return;
    }
    if (info->supply != load->broker->supply_count) { /* numbers are given out without gaps */
        load->err = SL_ERR_STORE;
        return;
    }
    load->err = add_supply(load->broker, info);
    if (load->err == SL_OK) {
        /* Whether it has ready tasks is not known without reading; the first arm finds out. */
        sl_supply_mark_ready(load->broker, info->supply);
    }
}

enum sl_err sl_supply_load_all(struct sl_broker *broker, struct sl_store *store)
{
    struct load_ctx load = {.broker = broker, .err = SL_OK};
    enum sl_err err = sl_store_each_supply(store, load_one, &load);

    return err != SL_OK ? err : load.err;
}

void sl_supply_mark_ready(struct sl_broker *broker, uint32_t idx)
{
    SL_ASSERT(idx < broker->supply_count);
    struct sl_supply *supply = &broker->supplies[idx];

    supply->was_filled = true;
    if (supply->route_idx != SL_ROUTE_NONE && supply->arming == 0) {
        sl_route_mark_ready(broker->route, supply->route_idx);
    }
}
