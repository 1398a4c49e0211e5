/*
 * Bodies of the stub's answers.
 *
 * Runs in sluice-stub only. Keeps no state, decides nothing: what to write stands in the reply.
 * JSON comes from templates whose %letters are filled from the reply; texts of the request go in as
 * they stand there, still escaped. It never validates what it echoes: a client that sends bad JSON
 * gets it back. No errors; nothing survives the process.
 */
#include "tests/stub/answer.h"

#define ECHO_BYTES 200
#define DEEP_LEVELS 10000
#define TOKEN_BYTES 4 /* a token is about four bytes of English */
#define EMBEDDING_NUMBERS 8

/* ---- errors ---------------------------------------------------------------------------------- */

static const struct sl_stub_error status_errors[] = {
    {400, "invalid_request_error", "invalid_prompt", "Invalid request (injected by the stub)."},
    {401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."},
    {403, "invalid_request_error", "unsupported_country_region_territory", "Not allowed."},
    {404, "invalid_request_error", "model_not_found", "The model does not exist."},
    {429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."},
    {503, "service_unavailable_error", "server_is_overloaded", "The engine is overloaded."},
};

static const struct sl_stub_error quota_error = {
    429, "insufficient_quota", "insufficient_quota",
    "You exceeded your current quota, please check your plan and billing details."};
static const struct sl_stub_error slow_down_error = {429, "rate_limit_error", "slow_down",
                                                     "Slow down: the request rate rose too fast."};
static const struct sl_stub_error server_error = {
    500, "server_error", NULL, "The server had an error while processing your request."};

static const struct sl_stub_error *error_of_status(int status, struct sl_stub_error *room)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(status_errors); i++) {
        if (status_errors[i].status == status) {
            return &status_errors[i];
        }
    }
    *room = server_error;
    room->status = status;
    if (status < 500) {
        room->type = "invalid_request_error";
        room->message = "The request was refused (injected by the stub).";
    }
    return room;
}

const struct sl_stub_error *sl_stub_error_of(struct sl_stub_fault fault, struct sl_stub_error *room)
{
    switch ((int)fault.kind) {
    case SL_STUB_STATUS:
        return error_of_status(fault.status, room);
    case SL_STUB_QUOTA:
        return &quota_error;
    case SL_STUB_SLOWDOWN:
        return &slow_down_error;
    case SL_STUB_OVERLOADED:
        return error_of_status(503, room);
    case SL_STUB_HTTP200ERROR:
    case SL_STUB_FAILED:
        return &server_error;
    default:
        return NULL;
    }
}

/* ---- the text of an answer ------------------------------------------------------------------- */

/* Is the escape that starts `text` the first half of a surrogate pair? */
static bool is_high_surrogate(struct sl_span text)
{
    return text.len >= 6 && (text.ptr[2] | 0x20) == 'd' && text.ptr[3] != '\0' &&
           strchr("89abAB", text.ptr[3]) != NULL;
}

static size_t escape_bytes(struct sl_span text)
{
    if (text.len < 2 || text.ptr[1] != 'u') {
        return 2;
    }
    return is_high_surrogate(text) ? 12 : 6;
}

/* Bytes of the JSON character that starts `text`: an escape, a surrogate pair, a UTF-8 sequence. */
static size_t character_bytes(struct sl_span text)
{
    unsigned char first = (unsigned char)text.ptr[0];
    size_t len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

    return SL_MIN(first == '\\' ? escape_bytes(text) : len, text.len);
}

static struct sl_span cut_echo(struct sl_span text, bool is_full)
{
    size_t at = 0;

    if (is_full || text.len <= ECHO_BYTES) {
        return text;
    }
    for (;;) {
        size_t step = character_bytes(sl_span_of(text.ptr + at, text.len - at));
        if (at + step > ECHO_BYTES) {
            return sl_span_of(text.ptr, at);
        }
        at += step;
    }
}

static size_t echo_bytes(const struct sl_stub_reply *reply)
{
    return strlen("echo:") + 16 + 1 + cut_echo(reply->question->text, reply->is_echo_full).len;
}

static void put_text(struct sl_stub_text *out, const struct sl_stub_reply *reply)
{
    size_t len = echo_bytes(reply);

    sl_stub_put_str(out, "echo:");
    sl_stub_put_hex(out, reply->body_hash);
    sl_stub_put_str(out, ":");
    sl_stub_put(out, cut_echo(reply->question->text, reply->is_echo_full));
    if (reply->kind == SL_STUB_BADUTF8) {
        sl_stub_put(out, sl_span_of("\xff\xfe\xc0\x80\0\xed\xa0\x80", 8));
    }
    if (reply->text_bytes > len) {
        sl_stub_put_fill(out, '.', reply->text_bytes - len);
    }
}

static uint64_t prompt_tokens(const struct sl_stub_reply *reply)
{
    return (reply->request_bytes + TOKEN_BYTES - 1) / TOKEN_BYTES;
}

static uint64_t completion_tokens(const struct sl_stub_reply *reply)
{
    size_t bytes = SL_MAX(echo_bytes(reply), reply->text_bytes);

    return reply->tokens != SL_STUB_UNSET ? (uint64_t)reply->tokens
                                          : (bytes + TOKEN_BYTES - 1) / TOKEN_BYTES;
}

/* ---- templates ------------------------------------------------------------------------------- */

static const char chat_template[] =
    "{\"id\":\"chatcmpl-%i\",\"object\":\"chat.completion\",\"created\":%d,\"model\":\"%m\","
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%t\","
    "\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"%f\"}],"
    "\"usage\":{\"prompt_tokens\":%p,\"completion_tokens\":%c,\"total_tokens\":%s,"
    "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
    "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,"
    "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}},"
    "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_sluicestub\"}";

static const char response_template[] =
    "{\"id\":\"resp_%i\",\"object\":\"response\",\"created_at\":%d,\"completed_at\":%d,"
    "\"status\":\"%S\",\"error\":%E,\"incomplete_details\":%N,\"model\":\"%m\","
    "\"output\":[{\"id\":\"msg_%i\",\"type\":\"message\",\"status\":\"%S\",\"role\":\"assistant\","
    "\"content\":[{\"type\":\"output_text\",\"text\":\"%t\",\"annotations\":[]}]}],"
    "\"usage\":{\"input_tokens\":%p,\"input_tokens_details\":{\"cached_tokens\":0},"
    "\"output_tokens\":%c,\"output_tokens_details\":{\"reasoning_tokens\":0},"
    "\"total_tokens\":%s}}";

static const char error_template[] =
    "{\"error\":{\"message\":\"%M\",\"type\":\"%T\",\"param\":null,\"code\":%C}}";

static const char models_body[] =
    "{\"object\":\"list\",\"data\":["
    "{\"id\":\"gpt-4o-mini\",\"object\":\"model\",\"created\":1721172741,\"owned_by\":\"stub\"},"
    "{\"id\":\"text-embedding-3-small\",\"object\":\"model\",\"created\":1705948997,"
    "\"owned_by\":\"stub\"}]}";

static const char *response_status(const struct sl_stub_reply *reply)
{
    if (reply->kind == SL_STUB_FAILED) {
        return "failed";
    }
    return reply->kind == SL_STUB_CUTOFF ? "incomplete" : "completed";
}

static void put_code(struct sl_stub_text *out, const char *code)
{
    sl_stub_put_str(out, code == NULL ? "null" : "\"");
    if (code != NULL) {
        sl_stub_put_str(out, code);
        sl_stub_put_str(out, "\"");
    }
}

static void put_error_field(struct sl_stub_text *out, const struct sl_stub_reply *reply, char field)
{
    switch (field) {
    case 'M':
        sl_stub_put_quoted(out, sl_span_str(reply->error->message));
        break;
    case 'T':
        sl_stub_put_str(out, reply->error->type);
        break;
    case 'C':
        put_code(out, reply->error->code);
        break;
    case 'S':
        sl_stub_put_str(out, response_status(reply));
        break;
    case 'E':
        sl_stub_put_str(out, reply->kind != SL_STUB_FAILED
                                 ? "null"
                                 : "{\"code\":\"server_error\",\"message\":\"The model failed.\"}");
        break;
    case 'N':
        sl_stub_put_str(out, reply->kind == SL_STUB_CUTOFF ? "{\"reason\":\"max_output_tokens\"}"
                                                           : "null");
        break;
    default:
        break;
    }
}

static void put_field(struct sl_stub_text *out, const struct sl_stub_reply *reply, char field)
{
    switch (field) {
    case 'i':
        sl_stub_put_hex(out, reply->seq);
        break;
    case 'd':
        sl_stub_put_uint(out, (uint64_t)reply->created_s);
        break;
    case 'm':
        sl_stub_put(out, reply->question->model);
        break;
    case 't':
        put_text(out, reply);
        break;
    case 'f':
        sl_stub_put_str(out, reply->kind == SL_STUB_CUTOFF ? "length" : "stop");
        break;
    case 'p':
        sl_stub_put_uint(out, prompt_tokens(reply));
        break;
    case 'c':
        sl_stub_put_uint(out, completion_tokens(reply));
        break;
    case 's':
        sl_stub_put_uint(out, prompt_tokens(reply) + completion_tokens(reply));
        break;
    default:
        put_error_field(out, reply, field);
        break;
    }
}

static void put_template(struct sl_stub_text *out, const struct sl_stub_reply *reply,
                         struct sl_span template)
{
    const char *at = template.ptr;
    const char *end = at + template.len;

    while (at < end) {
        const char *percent = memchr(at, '%', (size_t)(end - at));
        if (percent == NULL) {
            percent = end;
        }
        sl_stub_put(out, sl_span_of(at, (size_t)(percent - at)));
        if (percent == end) {
            return;
        }
        put_field(out, reply, percent[1]);
        at = percent + 2;
    }
}

/* ---- embeddings ------------------------------------------------------------------------------ */

/* One vector: the bytes of the input's hash as fractions. */
static void put_embedding(struct sl_stub_text *out, struct sl_span input, uint64_t idx)
{
    uint64_t hash = sl_stub_fnv(input);

    sl_stub_put_str(out, idx == 0 ? "" : ",");
    sl_stub_put_str(out, "{\"object\":\"embedding\",\"index\":");
    sl_stub_put_uint(out, idx);
    sl_stub_put_str(out, ",\"embedding\":[");
    for (int i = 0; i < EMBEDDING_NUMBERS; i++) {
        uint64_t byte = hash >> (56 - 8 * i) & 255;
        char digits[16];
        uint64_t fraction = byte * 100000000 / 256; /* exact: 1/256 has eight decimals */
        sl_stub_put_str(out, i == 0 ? "0." : ",0.");
        for (int k = 8; k > 0; k--, fraction /= 10) {
            digits[k - 1] = (char)('0' + fraction % 10);
        }
        sl_stub_put(out, sl_span_of(digits, 8));
    }
    sl_stub_put_str(out, "]}");
}

/* A string, an array of strings, an array of tokens, or an array of such arrays. */
static void put_embeddings(struct sl_stub_text *out, const struct sl_stub_reply *reply)
{
    struct sl_span rest = reply->question->inputs;
    struct sl_span input;
    uint64_t count = 0;

    sl_stub_put_str(out, "{\"object\":\"list\",\"data\":[");
    while (rest.len > 0 && sl_stub_question_next(&rest, &input)) {
        if (input.ptr[0] != '"' && input.ptr[0] != '[') {
            put_embedding(out, reply->question->inputs, 0); /* tokens: the array is one input */
            break;
        }
        put_embedding(out, input, count++);
    }
    sl_stub_put_str(out, "],\"model\":\"");
    sl_stub_put(out, reply->question->model);
    sl_stub_put_str(out, "\",\"usage\":{\"prompt_tokens\":");
    sl_stub_put_uint(out, prompt_tokens(reply));
    sl_stub_put_str(out, ",\"total_tokens\":");
    sl_stub_put_uint(out, prompt_tokens(reply));
    sl_stub_put_str(out, "}}");
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static void put_deep(struct sl_stub_text *out)
{
    sl_stub_put_str(out, "{\"choices\":");
    sl_stub_put_fill(out, '[', DEEP_LEVELS);
    sl_stub_put_fill(out, ']', DEEP_LEVELS);
    sl_stub_put_str(out, "}");
}

/* A body that takes the place of the normal one; false: this kind has none. */
static bool put_broken_body(struct sl_stub_text *out, enum sl_stub_kind kind)
{
    switch ((int)kind) {
    case SL_STUB_GARBAGE:
        sl_stub_put(out, sl_span_of("<html>\xff\xfe\0 this is no JSON {\"choices\":[", 38));
        return true;
    case SL_STUB_DEEP:
        put_deep(out);
        return true;
    case SL_STUB_EMPTY:
    case SL_STUB_REDIRECT:
        return true;
    default:
        return false;
    }
}

static void put_normal_body(struct sl_stub_text *out, const struct sl_stub_reply *reply)
{
    switch (reply->route) {
    case SL_STUB_ROUTE_CHAT:
        put_template(out, reply, sl_span_of(chat_template, sizeof(chat_template) - 1));
        break;
    case SL_STUB_ROUTE_RESPONSES:
        put_template(out, reply, sl_span_of(response_template, sizeof(response_template) - 1));
        break;
    case SL_STUB_ROUTE_EMBEDDINGS:
        put_embeddings(out, reply);
        break;
    case SL_STUB_ROUTE_MODELS:
        sl_stub_put_str(out, models_body);
        break;
    case SL_STUB_ROUTE_STATS:
    case SL_STUB_ROUTE_NONE:
        break;
    }
}

void sl_stub_answer_body(const struct sl_stub_reply *reply, struct sl_stub_text *body)
{
    bool is_failed_response =
        reply->kind == SL_STUB_FAILED && reply->route == SL_STUB_ROUTE_RESPONSES;

    body->len = 0;
    if (put_broken_body(body, reply->kind)) {
        return;
    }
    if (reply->error != NULL && !is_failed_response) {
        put_template(body, reply, sl_span_of(error_template, sizeof(error_template) - 1));
        return;
    }
    put_normal_body(body, reply);
}
