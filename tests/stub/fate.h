#ifndef SL_TESTS_STUB_FATE_H
#define SL_TESTS_STUB_FATE_H

/*
 * Which call fails how, and when: a pure function of the seed, the body's hash and how often that
 * body was asked before, so that timing and order of other calls change nothing; plus the wishes a
 * prompt carries in [[stub:...]].
 *
 * The rule. Each draw is u = splitmix64(seed ^ hash * K1 ^ attempt * K2 ^ stream) / 2^64, in [0,
 * 1). Stream 0 picks the failure: the --fail probabilities lie end to end from 0 in the order
 * given, the interval u falls into wins, past the last one the call succeeds. Stream 1 is the share
 * of
 * --jitter-ms that is added. `attempt` counts earlier askings of the same body bytes that got past
 * key, concurrency and rate checks.
 *
 * Stub only; pure; never blocks.
 */

#include "common/base.h"

enum sl_stub_kind {
#define X(name, word, status, help) SL_STUB_##name,
#include "tests/stub/kinds.def"
#undef X
    SL_STUB_KIND_COUNT
};

struct sl_stub_fault {
    enum sl_stub_kind kind;
    int status; /* of the status line; 0: none is sent */
};

const char *sl_stub_kind_word(enum sl_stub_kind kind);
const char *sl_stub_kind_help(enum sl_stub_kind kind);
/* "reset", "503"; false when it is neither a word of kinds.def nor 400..599. */
MUST_CHECK bool sl_stub_fault_parse(struct sl_span text, struct sl_stub_fault *out);

/* ---- odds ------------------------------------------------------------------------------------ */

struct sl_stub_odds {
    struct sl_stub_fault fault;
    double probability;
};

/* Uniform in [0, 1); see the rule above. */
double sl_stub_draw(uint64_t seed, uint64_t body_hash, uint64_t attempt, uint64_t stream);
/* The failure whose interval `draw` falls into; SL_STUB_OK past the last. */
struct sl_stub_fault sl_stub_odds_pick(const struct sl_stub_odds *odds, size_t count, double draw);

/* ---- wishes in a prompt ---------------------------------------------------------------------- */

#define SL_STUB_UNSET (-1)
#define SL_STUB_ANSWER_BYTES_MAX INT64_C(134217728) /* of bytes=: twice what must be refused */

/* What [[stub:WORD WORD=VALUE ...]] in a prompt asks for; SL_STUB_UNSET where it says nothing. */
struct sl_stub_wish {
    bool has_fault;
    struct sl_stub_fault fault;
    int64_t fail_times; /* the failure is for the first so many attempts; unset: for all */
    int64_t latency_ms;
    int64_t bytes; /* pad the answer text to so many */
    int64_t tokens;
    int64_t retry_after_ms;
    int64_t cut_at; /* truncate, cutreset, stall: after so many bytes of the whole answer */
    int64_t slow_ms;
    int64_t slow_bytes;
};

/* Reads all markers of a text. NULL: read (also when there is none); else the complaint. */
const char *sl_stub_wish_read(struct sl_span text, struct sl_stub_wish *out);

/* ---- delivery -------------------------------------------------------------------------------- */

enum sl_stub_end {
    SL_STUB_END_KEEP,  /* the next request may come */
    SL_STUB_END_CLOSE, /* clean close after the last byte */
    SL_STUB_END_RESET, /* TCP reset after the last byte */
    SL_STUB_END_HOLD,  /* silence until the client goes */
};

/* How the bytes of an answer go out. */
struct sl_stub_delivery {
    int64_t delay_ns;   /* before the first byte */
    size_t send_bytes;  /* so many of the answer's bytes, then `end` */
    size_t first_bytes; /* sent at once; then piece_bytes every piece_ns; 0: all at once */
    size_t piece_bytes;
    int64_t piece_ns;
    enum sl_stub_end end;
    bool is_counted; /* in flight until finished: sl_stub_desk_finish is owed */
};

/* Fills send_bytes and end for a kind; an answer of `len` bytes whose head is `head_len`. */
void sl_stub_delivery_shape(struct sl_stub_delivery *out, enum sl_stub_kind kind, size_t head_len,
                            size_t len);

#endif
