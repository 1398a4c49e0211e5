/*
 * The stub's counters as JSON, for GET /stub/stats.
 *
 * Runs in sluice-stub only, under the desk's lock. It never counts by itself: the desk does, where
 * things happen. Behaviours that never occurred are left out, refusals are always there. No errors;
 * nothing survives the process.
 */
#include "tests/stub/stats.h"

static const char *const refusal_words[SL_STUB_REFUSAL_COUNT] = {
    [SL_STUB_REFUSED_NOT] = "",
    [SL_STUB_REFUSED_NOT_FOUND] = "not_found",
    [SL_STUB_REFUSED_METHOD] = "bad_method",
    [SL_STUB_REFUSED_KEY] = "unauthorized",
    [SL_STUB_REFUSED_BAD_REQUEST] = "bad_request",
    [SL_STUB_REFUSED_CONCURRENCY] = "concurrency",
    [SL_STUB_REFUSED_RATE] = "rate_limited",
};

const char *sl_stub_refusal_word(enum sl_stub_refusal refusal)
{
    return refusal_words[refusal];
}

static void put_stat(struct sl_stub_text *out, const char *name, uint64_t value)
{
    sl_stub_put_str(out, out->buf[out->len - 1] == '{' ? "\"" : ",\"");
    sl_stub_put_str(out, name);
    sl_stub_put_str(out, "\":");
    sl_stub_put_uint(out, value);
}

static void put_by_status(const struct sl_stub_stats *stats, struct sl_stub_text *out)
{
    sl_stub_put_str(out, ",\"by_status\":{");
    for (size_t i = 0; i < SL_STUB_STATUS_COUNT; i++) {
        char name[4] = {(char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10),
                        '\0'};
        if (stats->by_status[i] > 0) {
            put_stat(out, i == 0 ? "0" : name, stats->by_status[i]);
        }
    }
    sl_stub_put_str(out, "}");
}

static void put_by_behaviour(const struct sl_stub_stats *stats, struct sl_stub_text *out)
{
    sl_stub_put_str(out, ",\"by_behaviour\":{");
    for (size_t i = 0; i < SL_STUB_KIND_COUNT; i++) {
        if (stats->by_kind[i] > 0) {
            put_stat(out, sl_stub_kind_word((enum sl_stub_kind)i), stats->by_kind[i]);
        }
    }
    for (size_t i = SL_STUB_REFUSED_NOT_FOUND; i < SL_STUB_REFUSAL_COUNT; i++) {
        put_stat(out, refusal_words[i], stats->by_refusal[i]);
    }
    sl_stub_put_str(out, "}");
}

void sl_stub_stats_write(const struct sl_stub_stats *stats, struct sl_stub_text *out)
{
    sl_stub_put_str(out, "{");
    put_stat(out, "requests", stats->requests);
    put_stat(out, "in_flight", stats->in_flight);
    put_stat(out, "max_in_flight", stats->in_flight_max);
    put_stat(out, "abandoned", stats->abandoned);
    put_stat(out, "connections", stats->connections_total);
    put_stat(out, "connections_open", stats->connections_open);
    put_by_status(stats, out);
    put_by_behaviour(stats, out);
    sl_stub_put_str(out, "}");
}
