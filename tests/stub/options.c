/*
 * The stub's options: table, ranges, help.
 *
 * Runs in sluice-stub only, once, before any thread. Keeps no state; the result is const for the
 * life of the process. It reads no environment and no file. The one thing common/opts does not do
 * is an option that may stand several times: --fail is collected by a second walk over argv, after
 * the parser has accepted it. Bad usage: one line on stderr, status 2.
 */
#include "tests/stub/options.h"

#include <stdlib.h>

#include "common/err.h"

static const struct sl_opt rows[] = {
    {"listen", "HOST:PORT", "IPv4 address to listen on (default 127.0.0.1:0; port 0: a free one)"},
    {"port-file", "FILE", "write the port to FILE (complete: written aside, then renamed)"},
    {"threads", "N", "event loops, each with its own listener (default 1)"},
    {"log", "FILE", "append one JSON line per call asked; see below"},
    {"seed", "N", "seed of --fail and --jitter-ms (default 1)"},
    {"latency-ms", "N", "wait before each answer (default 0)"},
    {"jitter-ms", "N", "wait up to so much longer, drawn per body and attempt (default 0)"},
    {"response-bytes", "N", "pad the answer's text with dots to N bytes"},
    {"echo-full", NULL, "echo the whole last user message, not only 200 bytes"},
    {"chunked", NULL, "send answers over 64 KiB with Transfer-Encoding: chunked"},
    {"rpm", "N", "calls a minute for each Authorization value, else 429 with Retry-After"},
    {"tpm", "N", "tokens a minute for each Authorization value, likewise"},
    {"max-concurrent", "N", "refuse the N+1st call in flight with 429, without rate headers"},
    {"require-key", "KEY", "401 unless Authorization is \"Bearer KEY\""},
    {"fail", "KIND=P", "fail with probability P; may stand several times, or as a comma list"},
    {"fail-first", "N=KIND", "the first N calls fail so; then --fail counts"},
    {"retry-after-ms", "N", "send retry-after and retry-after-ms with injected 429 and 503"},
    {"slow-ms", "N", "pause between the pieces of kind slow (default 20)"},
    {"slow-bytes", "N", "bytes of a piece of kind slow (default 16)"},
    {"redirect-to", "URL", "target of kind redirect (default /stub/redirected, here)"},
    {"die-with-parent", NULL, "end when the process that started this one ends"},
    {NULL, NULL, NULL},
};

#define X(name, word, status, help) "  " word ": " help "\n"
static const char footer[] =
    "Kinds (for --fail, --fail-first and markers):\n"
#include "tests/stub/kinds.def"
#undef X
    "\n"
    "Endpoints: POST [/v1]/chat/completions, /responses, /embeddings; GET [/v1]/models;\n"
    "GET /stub/stats (counters as JSON). Anything else is 404, a wrong method 405.\n"
    "\n"
    "Answer: the text is echo:HASH:TEXT. HASH is FNV-1a-64 of the request body's bytes, 16\n"
    "hexadecimal digits; TEXT the last user message (of several text parts the last), cut at 200\n"
    "bytes of its JSON form, never inside an escape or a character. Embeddings: eight numbers per\n"
    "input, the bytes of FNV-1a-64 of the input's JSON form (quotes included) / 256. The header\n"
    "x-stub-body-fnv has the HASH too. Token numbers: bytes / 4.\n"
    "\n"
    "Markers: [[stub:WORD ...]] in the last user message, words separated by spaces: a kind,\n"
    "status=N, fail_times=N (only the first N askings of this body fail; default status=500),\n"
    "latency_ms=N, bytes=N, tokens=N (completion), retry_after_ms=N, slow_ms=N, slow_bytes=N,\n"
    "cut_at=N, reset_at=N, stall_at=N (clean close, reset, silence after N bytes of the whole\n"
    "answer, headers included). A marker wins over the options; one that is not understood is "
    "400.\n"
    "The echo repeats a marker: a prompt made of an answer carries it on.\n"
    "\n"
    "Order of checks: path, key, headers and body, --max-concurrent, --rpm and --tpm, then "
    "marker,\n"
    "--fail-first, --fail. Refused calls take nothing from the rate limits.\n"
    "\n"
    "Determinism: --fail and --jitter-ms depend on the seed, the body's bytes and how often this\n"
    "body was asked before (askings refused by a limit do not count), on nothing else:\n"
    "u = splitmix64(seed ^ hash * 0x9e3779b97f4a7c15 ^ attempt * 0xc2b2ae3d27d4eb4f ^ stream);\n"
    "the top 53 bits / 2^53 fall into the --fail intervals laid end to end (stream 0), or are the\n"
    "share of the jitter (stream 1).\n"
    "\n"
    "Log line: t_ns (monotonic), seq, method, path, model, body_fnv, body_bytes,\n"
    "client_request_id (X-Client-Request-Id), attempt (askings of this body before), status (0: "
    "no\n"
    "status line was to be sent), behaviour (a kind, or not_found, bad_method, unauthorized,\n"
    "bad_request, concurrency, rate_limited). Written when a call is asked, whatever becomes of "
    "its answer;\n"
    "flushed after 100 ms, on SIGUSR1 and at the end.\n"
    "\n"
    "The first line on stdout is \"listening on HOST:PORT\". SIGTERM and SIGINT end it, status 0.\n"
    "A client that shuts down its sending side while it waits counts as gone.";

static const struct sl_opts_spec spec = {
    .program = "sluice-stub",
    .usage = "[OPTIONS]",
    .description = "An LLM provider for tests: speaks like OpenAI, fails on demand.",
    .options = rows,
    .footer = footer,
};

static bool refuse(const char *name, const char *value, const char *wanted)
{
    sl_opts_refuse(&spec, "--%s \"%s\" is not %s", name, value, wanted);
    return false;
}

static bool read_listen(const struct sl_opts *opts, struct sl_stub_options *out)
{
    const char *text = sl_opts_get(opts, "listen");
    char *end = NULL;

    if (text == NULL) {
        text = "127.0.0.1:0";
    }
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon[1] < '0' || colon[1] > '9' ||
        !sl_span_copy_str(out->host, sizeof(out->host), sl_span_of(text, (size_t)(colon - text)))) {
        return refuse("listen", text, "HOST:PORT");
    }
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port > UINT16_MAX) {
        return refuse("listen", text, "HOST:PORT with a port from 0 to 65535");
    }
    out->port = (uint16_t)port;
    return true;
}

/* ---- --fail and --fail-first ----------------------------------------------------------------- */

/* "0.02" */
static bool read_probability(const char *text, double *out)
{
    char *end = NULL;

    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out >= 0 && *out <= 1;
}

/* "reset=0.02" */
static bool add_odds(struct sl_stub_options *out, struct sl_span item)
{
    char text[64];
    struct sl_stub_odds odds = {0};

    if (!sl_span_copy_str(text, sizeof(text), item) || out->odds_count == SL_STUB_ODDS_MAX) {
        return refuse("fail", text, "short enough, or there are more than 32 of them");
    }
    const char *equals = strchr(text, '=');
    if (equals == NULL ||
        !sl_stub_fault_parse(sl_span_of(text, (size_t)(equals - text)), &odds.fault) ||
        !read_probability(equals + 1, &odds.probability)) {
        return refuse("fail", text, "KIND=P with a kind of the list and P from 0 to 1");
    }
    out->odds[out->odds_count++] = odds;
    return true;
}

static bool add_odds_list(struct sl_stub_options *out, const char *list)
{
    while (*list != '\0') {
        size_t len = strcspn(list, ",");
        if (!add_odds(out, sl_span_of(list, len))) {
            return false;
        }
        list += len + (list[len] == ',');
    }
    return true;
}

/* The value of a --fail at argv[*idx], which is moved to it; NULL: another argument. */
static const char *fail_value(int argc, char **argv, int *idx)
{
    const char *text = argv[*idx];

    if (strncmp(text, "--fail=", strlen("--fail=")) == 0) {
        return text + strlen("--fail=");
    }
    if (strcmp(text, "--fail") == 0 && *idx + 1 < argc) {
        *idx += 1;
        return argv[*idx];
    }
    return NULL;
}

static bool read_odds(int argc, char **argv, struct sl_stub_options *out)
{
    double sum = 0;

    for (int i = 1; i < argc; i++) {
        const char *list = fail_value(argc, argv, &i);
        if (list != NULL && !add_odds_list(out, list)) {
            return false;
        }
    }
    for (size_t i = 0; i < out->odds_count; i++) {
        sum += out->odds[i].probability;
    }
    if (sum > 1 + 1e-9) {
        sl_opts_refuse(&spec, "the probabilities of --fail add up to %g, more than 1", sum);
        return false;
    }
    return true;
}

/* "3=503" */
static bool read_fail_first(const struct sl_opts *opts, struct sl_stub_options *out)
{
    const char *text = sl_opts_get(opts, "fail-first");
    char *end = NULL;

    if (text == NULL) {
        return true;
    }
    out->fail_first = strtoll(text, &end, 10);
    if (end == text || *end != '=' || out->fail_first < 0 ||
        !sl_stub_fault_parse(sl_span_str(end + 1), &out->first_fault)) {
        return refuse("fail-first", text, "N=KIND");
    }
    return true;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static bool read_timing(const struct sl_opts *opts, struct sl_stub_options *out)
{
    int64_t latency_ms = 0;
    int64_t jitter_ms = 0;
    int64_t day_ms = 86400000;

    if (!sl_opts_get_integer(opts, "latency-ms", 0, day_ms, &latency_ms) ||
        !sl_opts_get_integer(opts, "jitter-ms", 0, day_ms, &jitter_ms) ||
        !sl_opts_get_integer(opts, "slow-ms", 0, day_ms, &out->slow_ms) ||
        !sl_opts_get_integer(opts, "retry-after-ms", 0, day_ms, &out->retry_after_ms)) {
        return false;
    }
    out->latency_ns = latency_ms * SL_NS_PER_MS;
    out->jitter_ns = jitter_ms * SL_NS_PER_MS;
    return true;
}

static bool read_sizes(const struct sl_opts *opts, struct sl_stub_options *out)
{
    int64_t threads = 1;
    int64_t seed = 1;
    int64_t response_bytes = 0;
    int64_t slow_bytes = 16;

    if (!sl_opts_get_integer(opts, "threads", 1, SL_STUB_THREADS_MAX, &threads) ||
        !sl_opts_get_integer(opts, "seed", 0, INT64_MAX, &seed) ||
        !sl_opts_get_integer(opts, "response-bytes", 0, SL_STUB_ANSWER_BYTES_MAX,
                             &response_bytes) ||
        !sl_opts_get_integer(opts, "slow-bytes", 1, INT32_MAX, &slow_bytes)) {
        return false;
    }
    out->threads = (int)threads;
    out->seed = (uint64_t)seed;
    out->response_bytes = (size_t)response_bytes;
    out->slow_bytes = (size_t)slow_bytes;
    return true;
}

static bool read_limits(const struct sl_opts *opts, struct sl_stub_options *out)
{
    return sl_opts_get_number(opts, "rpm", 0, 1e9, &out->rpm) &&
           sl_opts_get_number(opts, "tpm", 0, 1e12, &out->tpm) &&
           sl_opts_get_integer(opts, "max-concurrent", 0, INT32_MAX, &out->concurrent_max);
}

static void read_texts(const struct sl_opts *opts, struct sl_stub_options *out)
{
    out->port_file = sl_opts_get(opts, "port-file");
    out->log_file = sl_opts_get(opts, "log");
    out->require_key = sl_opts_get(opts, "require-key");
    out->redirect_to = sl_opts_get(opts, "redirect-to");
    if (out->redirect_to == NULL) {
        out->redirect_to = "/stub/redirected";
    }
    out->is_echo_full = sl_opts_has(opts, "echo-full");
    out->is_chunked = sl_opts_has(opts, "chunked");
    out->dies_with_parent = sl_opts_has(opts, "die-with-parent");
}

enum sl_opts_result sl_stub_options_read(int argc, char **argv, struct sl_stub_options *out,
                                         int *exit_status)
{
    struct sl_opts opts;

    if (sl_opts_parse(&spec, argc, argv, &opts, exit_status) == SL_OPTS_EXIT) {
        return SL_OPTS_EXIT;
    }
    *out = (struct sl_stub_options){.retry_after_ms = SL_STUB_UNSET, .slow_ms = 20};
    read_texts(&opts, out);
    if (read_listen(&opts, out) && read_timing(&opts, out) && read_sizes(&opts, out) &&
        read_limits(&opts, out) && read_fail_first(&opts, out) && read_odds(argc, argv, out)) {
        return SL_OPTS_RUN;
    }
    *exit_status = sl_err_exit_status(SL_ERR_USAGE);
    return SL_OPTS_EXIT;
}
