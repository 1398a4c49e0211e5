/*
 * Decides the fate of a call: odds by seed, wishes by marker, and the shape of its delivery.
 *
 * Runs in sluice-stub only. Pure: no state, no clock, no I/O; the same arguments give the same fate
 * on every machine. It never looks at a header or a limit: that is the desk's part. Errors are
 * complaints as sentences, which the desk answers with 400 so that a misspelt marker fails its test
 * loudly. Nothing survives the process.
 */
#include "tests/stub/fate.h"

#define STATUS_MIN 400
#define STATUS_MAX 599
#define MARKER_OPEN "[[stub:"
#define MARKER_CLOSE "]]"
#define DRAW_HASH_FACTOR UINT64_C(0x9e3779b97f4a7c15)
#define DRAW_ATTEMPT_FACTOR UINT64_C(0xc2b2ae3d27d4eb4f)

static const struct {
    const char *word;
    int status;
    const char *help;
} kinds[] = {
#define X(name, word, status, help) {word, status, help},
#include "tests/stub/kinds.def"
#undef X
};

_Static_assert(SL_ARRAY_LEN(kinds) == SL_STUB_KIND_COUNT, "one row for each kind");

const char *sl_stub_kind_word(enum sl_stub_kind kind)
{
    return kinds[kind].word;
}

const char *sl_stub_kind_help(enum sl_stub_kind kind)
{
    return kinds[kind].help;
}

/* Up to ten digits; false when it is anything else. */
static bool parse_number(struct sl_span text, int64_t *out)
{
    int64_t number = 0;

    if (text.len == 0 || text.len > 10) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return false;
        }
        number = number * 10 + (text.ptr[i] - '0');
    }
    *out = number;
    return true;
}

bool sl_stub_fault_parse(struct sl_span text, struct sl_stub_fault *out)
{
    int64_t number;

    if (parse_number(text, &number)) {
        *out = (struct sl_stub_fault){.kind = SL_STUB_STATUS, .status = (int)number};
        return number >= STATUS_MIN && number <= STATUS_MAX;
    }
    for (size_t i = 0; i < SL_ARRAY_LEN(kinds); i++) {
        if (kinds[i].status >= 0 && sl_span_equal(text, sl_span_str(kinds[i].word))) {
            *out = (struct sl_stub_fault){.kind = (enum sl_stub_kind)i, .status = kinds[i].status};
            return true;
        }
    }
    return false;
}

/* ---- odds ------------------------------------------------------------------------------------ */

static uint64_t splitmix64(uint64_t word)
{
    word += DRAW_HASH_FACTOR;
    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31;
}

double sl_stub_draw(uint64_t seed, uint64_t body_hash, uint64_t attempt, uint64_t stream)
{
    uint64_t word =
        splitmix64(seed ^ body_hash * DRAW_HASH_FACTOR ^ attempt * DRAW_ATTEMPT_FACTOR ^ stream);

    return (double)(word >> 11) * 0x1p-53;
}

struct sl_stub_fault sl_stub_odds_pick(const struct sl_stub_odds *odds, size_t count, double draw)
{
    double edge = 0;

    for (size_t i = 0; i < count; i++) {
        edge += odds[i].probability;
        if (draw < edge) {
            return odds[i].fault;
        }
    }
    return (struct sl_stub_fault){.kind = SL_STUB_OK, .status = kinds[SL_STUB_OK].status};
}

/* ---- wishes ---------------------------------------------------------------------------------- */

static void wish_clear(struct sl_stub_wish *wish)
{
    *wish = (struct sl_stub_wish){
        .fault = {.kind = SL_STUB_STATUS, .status = 500},
        .fail_times = SL_STUB_UNSET,
        .latency_ms = SL_STUB_UNSET,
        .bytes = SL_STUB_UNSET,
        .tokens = SL_STUB_UNSET,
        .retry_after_ms = SL_STUB_UNSET,
        .cut_at = SL_STUB_UNSET,
        .slow_ms = SL_STUB_UNSET,
        .slow_bytes = SL_STUB_UNSET,
    };
}

/* WORD=NUMBER: where the number goes and what it means for the failure; the last column is the
 * kind that the word implies, SL_STUB_OK where it implies none. */
static const struct {
    const char *word;
    size_t offset;
    int64_t max;
    enum sl_stub_kind implied;
} numbers[] = {
    {"fail_times", offsetof(struct sl_stub_wish, fail_times), 1000000, SL_STUB_OK},
    {"latency_ms", offsetof(struct sl_stub_wish, latency_ms), 86400000, SL_STUB_OK},
    {"bytes", offsetof(struct sl_stub_wish, bytes), SL_STUB_ANSWER_BYTES_MAX, SL_STUB_OK},
    {"tokens", offsetof(struct sl_stub_wish, tokens), 1000000000, SL_STUB_OK},
    {"retry_after_ms", offsetof(struct sl_stub_wish, retry_after_ms), 9999999999, SL_STUB_OK},
    {"slow_ms", offsetof(struct sl_stub_wish, slow_ms), 86400000, SL_STUB_SLOW},
    {"slow_bytes", offsetof(struct sl_stub_wish, slow_bytes), 1073741824, SL_STUB_SLOW},
    {"cut_at", offsetof(struct sl_stub_wish, cut_at), 9999999999, SL_STUB_TRUNCATE},
    {"reset_at", offsetof(struct sl_stub_wish, cut_at), 9999999999, SL_STUB_CUTRESET},
    {"stall_at", offsetof(struct sl_stub_wish, cut_at), 9999999999, SL_STUB_STALL},
};

static void wish_fault(struct sl_stub_wish *wish, struct sl_stub_fault fault)
{
    wish->fault = fault;
    wish->has_fault = true;
}

static const char *wish_number(struct sl_stub_wish *wish, struct sl_span word, struct sl_span value)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(numbers); i++) {
        int64_t number;
        if (!sl_span_equal(word, sl_span_str(numbers[i].word))) {
            continue;
        }
        if (!parse_number(value, &number) || number > numbers[i].max) {
            return "A number in a [[stub:...]] marker is none or too large";
        }
        memcpy((char *)wish + numbers[i].offset, &number, sizeof(number));
        if (numbers[i].implied != SL_STUB_OK && !wish->has_fault) {
            wish_fault(
                wish, (struct sl_stub_fault){numbers[i].implied, kinds[numbers[i].implied].status});
        }
        return NULL;
    }
    return "Unknown word in a [[stub:...]] marker; sluice-stub --help lists them";
}

/* "hang", "status=503" or "latency_ms=200". */
static const char *wish_word(struct sl_stub_wish *wish, struct sl_span item)
{
    struct sl_stub_fault fault;
    const char *equals = memchr(item.ptr, '=', item.len);

    if (equals == NULL) {
        if (!sl_stub_fault_parse(item, &fault)) {
            return "Unknown kind in a [[stub:...]] marker; sluice-stub --help lists them";
        }
        wish_fault(wish, fault);
        return NULL;
    }
    struct sl_span word = sl_span_of(item.ptr, (size_t)(equals - item.ptr));
    struct sl_span value = sl_span_of(equals + 1, item.len - word.len - 1);
    if (!sl_span_equal(word, sl_span_str("status"))) {
        return wish_number(wish, word, value);
    }
    if (!sl_stub_fault_parse(value, &fault) || fault.kind != SL_STUB_STATUS) {
        return "status= in a [[stub:...]] marker is not 400..599";
    }
    wish_fault(wish, fault);
    return NULL;
}

/* The words of one marker, separated by spaces. */
static const char *wish_words(struct sl_stub_wish *wish, struct sl_span inner)
{
    size_t at = 0;

    while (at < inner.len) {
        const char *space = memchr(inner.ptr + at, ' ', inner.len - at);
        size_t end = space == NULL ? inner.len : (size_t)(space - inner.ptr);
        if (end > at) {
            const char *complaint = wish_word(wish, sl_span_of(inner.ptr + at, end - at));
            if (complaint != NULL) {
                return complaint;
            }
        }
        at = end + 1;
    }
    return NULL;
}

const char *sl_stub_wish_read(struct sl_span text, struct sl_stub_wish *out)
{
    const char *complaint = NULL;

    wish_clear(out);
    while (complaint == NULL && text.len > 0) {
        const char *open = memmem(text.ptr, text.len, MARKER_OPEN, strlen(MARKER_OPEN));
        if (open == NULL) {
            break;
        }
        const char *inner = open + strlen(MARKER_OPEN);
        size_t left = text.len - (size_t)(inner - text.ptr);
        const char *close = memmem(inner, left, MARKER_CLOSE, strlen(MARKER_CLOSE));
        if (close == NULL) {
            return "A [[stub:...]] marker does not end";
        }
        size_t len = (size_t)(close - inner);
        complaint = wish_words(out, sl_span_of(inner, len));
        text = sl_span_of(close, left - len);
    }
    out->has_fault = out->has_fault || out->fail_times != SL_STUB_UNSET;
    return complaint;
}

/* ---- delivery -------------------------------------------------------------------------------- */

void sl_stub_delivery_shape(struct sl_stub_delivery *out, enum sl_stub_kind kind, size_t head_len,
                            size_t len)
{
    static const struct {
        enum sl_stub_kind kind;
        enum sl_stub_end end;
        int halves; /* of the body that are sent; -1: not even the head */
    } shapes[] = {
        {SL_STUB_RESET, SL_STUB_END_RESET, -1},   {SL_STUB_CLOSEEARLY, SL_STUB_END_CLOSE, -1},
        {SL_STUB_HANG, SL_STUB_END_HOLD, -1},     {SL_STUB_TRUNCATE, SL_STUB_END_CLOSE, 1},
        {SL_STUB_CUTRESET, SL_STUB_END_RESET, 1}, {SL_STUB_STALL, SL_STUB_END_HOLD, 1},
        {SL_STUB_NOTHTTP, SL_STUB_END_CLOSE, 2},  {SL_STUB_BADCHUNK, SL_STUB_END_CLOSE, 2},
    };

    out->send_bytes = len;
    for (size_t i = 0; i < SL_ARRAY_LEN(shapes); i++) {
        if (shapes[i].kind == kind) {
            out->end = shapes[i].end;
            out->send_bytes = shapes[i].halves < 0    ? 0
                              : shapes[i].halves == 2 ? len
                                                      : head_len + (len - head_len) / 2;
        }
    }
}
