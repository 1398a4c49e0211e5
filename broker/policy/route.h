#ifndef SL_BROKER_POLICY_ROUTE_H
#define SL_BROKER_POLICY_ROUTE_H

/*
 * Which supply is served next. A supply is a provider x model x tenant that has tasks; it is served
 * when the dispatcher takes some of its ready tasks to call.
 *
 * Pure: no clock, no allocation, no I/O, never blocks. One thread (the broker's loop) or the
 * simulator. Nothing survives a crash: supplies are found again in the store's ready index.
 *
 * Rule: of all supplies that have ready tasks and whose provider has a place left, the one served
 * longest ago is next (a supply that just became ready counts as served just now). So
 *   - each is served within one round: before any of the others gets its second turn;
 *   - a full provider holds nobody back: its supplies keep their turn and wait aside;
 *   - a supply gains nothing by becoming empty and ready again.
 * How many it takes: an even share of what is left, at least 1, at most SL_ROUTE_TAKE_MAX.
 *
 * How: each provider has a list of its ready supplies in the order they were served; turns are
 * counted, each supply remembers its last, and a pick compares the heads of at most
 * SL_PROVIDERS_MAX lists. Every call is O(1) in the number of supplies.
 */

#include "common/err.h"
#include "common/limits.h"

/* One pick takes at most this many tasks, so that a supply alone at first does not take all places
 * in the turn in which others become ready; reading 1,024 from the store takes about 2 ms. */
#define SL_ROUTE_TAKE_MAX 1024

/* Ends of the index lists below. */
#define SL_ROUTE_NONE UINT32_MAX

struct sl_route_supply {
    uint64_t turn; /* when it was last served or became ready; larger is later */
    uint32_t provider_idx;
    uint32_t in_flight; /* taken and not ended */
    uint32_t next;      /* in its provider's list while has_ready, or in the free list */
    uint32_t previous;  /* in its provider's list while has_ready */
    bool is_used;
    bool has_ready;
};

struct sl_route_list {
    uint32_t first; /* served longest ago */
    uint32_t last;
    uint32_t count;
};

struct sl_route_state {
    struct sl_route_supply supplies[SL_SUPPLIES_MAX];
    struct sl_route_list ready[SL_PROVIDERS_MAX];
    uint32_t provider_in_flight[SL_PROVIDERS_MAX];
    uint32_t in_flight;     /* sum over all supplies */
    uint32_t ready_count;   /* supplies with ready tasks */
    uint32_t supply_count;  /* supplies in use */
    uint32_t free_first;    /* list of entries given back, through `next` */
    uint32_t touched_count; /* entries [0, touched_count) were ever used */
    uint64_t turn;
};

/* What may still be called now; the caller computes it from concurrency, rates and breakers. */
struct sl_route_limits {
    uint32_t places;                            /* over all providers */
    uint32_t provider_places[SL_PROVIDERS_MAX]; /* by provider index */
};

struct sl_route_pick {
    uint32_t supply;
    uint32_t provider_idx;
    uint32_t count; /* at least 1, within both limits */
};

/* The state is large (about 130 KiB): keep it static or on the heap. */
void sl_route_init(struct sl_route_state *state);

/* A new supply without ready tasks; its index in *supply, stable until removed. SL_ERR_FULL when
 * SL_SUPPLIES_MAX are in use. provider_idx is below SL_PROVIDERS_MAX (asserted). */
MUST_CHECK enum sl_err sl_route_add(struct sl_route_state *state, uint32_t provider_idx,
                                    uint32_t *supply);
/* Forgets a supply; it must have nothing in flight (asserted). */
void sl_route_remove(struct sl_route_state *state, uint32_t supply);

/* The supply has ready tasks, or none any more. Saying so again changes nothing. */
void sl_route_mark_ready(struct sl_route_state *state, uint32_t supply);
void sl_route_mark_empty(struct sl_route_state *state, uint32_t supply);

/* Chooses the next supply and gives it its turn; false when nothing can be served. The caller then
 * takes up to `count` tasks, reports what it took (sl_route_note_taken) and, when the supply had
 * fewer, sl_route_mark_empty. A caller that cannot use a pick just lets it pass. */
MUST_CHECK bool sl_route_pick(struct sl_route_state *state, const struct sl_route_limits *limits,
                              struct sl_route_pick *out);

/* Calls of the supply begin, or ended (whatever their outcome). */
void sl_route_note_taken(struct sl_route_state *state, uint32_t supply, uint32_t count);
void sl_route_note_ended(struct sl_route_state *state, uint32_t supply, uint32_t count);

#endif
