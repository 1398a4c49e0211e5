/*
 * Reads input lines: OpenAI's batch line with its `sluice` object, and the short line.
 *
 * One pass of the JSON scanner per line picks every member that means something; what is not in
 * the table of picks is refused by name, except inside `body`, which is the provider's matter and
 * stays the bytes it is. Only where the model comes from the command line, or the line is a short
 * one, a body is written into the reader's own buffer, which is reused.
 *
 * Runs in the tools, on text from users: everything that is wrong is refused with the column (a
 * byte of the line, from 1) and a reason; nothing is asserted about it. Does no I/O and keeps
 * nothing between lines but buffers. Errors: SL_ERR_INPUT, SL_ERR_BODY_TOO_LARGE, SL_ERR_NO_MEMORY.
 */
#include "tools/line.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/json.h"

#define TIME_BYTES_MAX 64
#define BYTE_ORDER_MARK "\xEF\xBB\xBF"

/* Every member of a line that has a meaning. */
#define PICKS                                                                                      \
    X(WHOLE, "")                                                                                   \
    X(CUSTOM_ID, "custom_id")                                                                      \
    X(METHOD, "method")                                                                            \
    X(URL, "url")                                                                                  \
    X(BODY, "body")                                                                                \
    X(BODY_MODEL, "body.model")                                                                    \
    X(ID, "id")                                                                                    \
    X(PROMPT, "prompt")                                                                            \
    X(MODEL, "model")                                                                              \
    X(SYSTEM, "system")                                                                            \
    X(SLUICE, "sluice")                                                                            \
    X(STAGE, "sluice.stage")                                                                       \
    X(SERVICE_ID, "sluice.service_id")                                                             \
    X(PRIORITY, "sluice.priority")                                                                 \
    X(PROVIDER, "sluice.provider")                                                                 \
    X(TIMEOUT, "sluice.timeout_s")                                                                 \
    X(NOT_BEFORE, "sluice.not_before")                                                             \
    X(DEADLINE, "sluice.deadline")                                                                 \
    X(MAX_ATTEMPTS, "sluice.max_attempts")                                                         \
    X(CACHE, "sluice.cache")                                                                       \
    X(ON_UNKNOWN, "sluice.on_unknown")                                                             \
    X(AFTER, "sluice.after")                                                                       \
    X(SESSION, "sluice.session")                                                                   \
    X(ON_PARENT_FAILURE, "sluice.on_parent_failure")                                               \
    X(TOP_AFTER, "after")                                                                          \
    X(TOP_SESSION, "session")                                                                      \
    X(TOP_ON_PARENT_FAILURE, "on_parent_failure")

enum pick {
#define X(name, path) PICK_##name,
    PICKS
#undef X
        PICK_COUNT
};

static const char *const pick_paths[PICK_COUNT] = {
#define X(name, path) path,
    PICKS
#undef X
};

_Static_assert(PICK_COUNT <= SL_JSON_PICKS_MAX, "all members are picked in one pass");

static const char *const strict_objects[] = {"", "sluice", NULL};

struct sl_line_reader {
    const struct sl_line_defaults *defaults;
    struct sl_json_scanner *scanner;
    struct sl_json_pick picks[PICK_COUNT];
    struct sl_json_text body;
    struct sl_span line; /* of the read that is going on */
    struct sl_line_fault *fault;
    char custom_id[SL_ID_BYTES_MAX + 1];
    char model[SL_NAME_BYTES_MAX + 1];
    char provider[SL_NAME_BYTES_MAX + 1];
    char stage[SL_NAME_BYTES_MAX + 1];
    char service_id[SL_NAME_BYTES_MAX + 1];
    char number[24];
};

struct sl_line_reader *sl_line_reader_open(const struct sl_line_defaults *defaults)
{
    struct sl_line_reader *reader = calloc(1, sizeof(*reader));

    if (reader == NULL) {
        return NULL;
    }
    reader->defaults = defaults;
    reader->scanner = sl_json_scanner_open();
    if (reader->scanner == NULL) {
        free(reader);
        return NULL;
    }
    for (size_t i = 0; i < PICK_COUNT; i++) {
        reader->picks[i].path = pick_paths[i];
    }
    return reader;
}

void sl_line_reader_close(struct sl_line_reader **reader)
{
    if (*reader == NULL) {
        return;
    }
    sl_json_scanner_close(&(*reader)->scanner);
    sl_json_text_fini(&(*reader)->body);
    free(*reader);
    *reader = NULL;
}

/* ---- faults and single members --------------------------------------------------------------- */

PRINTF_LIKE(3, 4)
static enum sl_err refuse_at(struct sl_line_reader *reader, const char *at, const char *format, ...)
{
    va_list args;

    SL_ASSERT(at >= reader->line.ptr && at <= reader->line.ptr + reader->line.len);
    reader->fault->column = (size_t)(at - reader->line.ptr) + 1;
    va_start(args, format);
    vsnprintf(reader->fault->reason, sizeof(reader->fault->reason), format, args);
    va_end(args);
    return SL_ERR_INPUT;
}

static bool has(const struct sl_line_reader *reader, enum pick pick)
{
    return reader->picks[pick].kind != SL_JSON_ABSENT;
}

static const char *at_pick(const struct sl_line_reader *reader, enum pick pick)
{
    return reader->picks[pick].raw.ptr;
}

/* The text of a string member of at most size - 1 bytes, in the line itself where it needs no
 * decoding. Leaves *out alone when the member is absent. */
static enum sl_err get_text(struct sl_line_reader *reader, enum pick pick, char *buf, size_t size,
                            struct sl_span *out)
{
    const struct sl_json_pick *found = &reader->picks[pick];
    size_t len;

    if (found->kind == SL_JSON_ABSENT) {
        return SL_OK;
    }
    if (found->kind != SL_JSON_STRING) {
        return refuse_at(reader, found->raw.ptr, "%s must be a string", found->path);
    }
    struct sl_span inside = sl_span_of(found->raw.ptr + 1, found->raw.len - 2);
    if (inside.len < size && memchr(inside.ptr, '\\', inside.len) == NULL) {
        *out = inside;
        return SL_OK;
    }
    enum sl_err err = sl_json_get_string(found, buf, size, &len);
    if (err == SL_ERR_FULL) {
        return refuse_at(reader, found->raw.ptr, "%s is longer than %zu bytes", found->path,
                         size - 1);
    }
    if (err != SL_OK || memchr(buf, '\0', len) != NULL) {
        return refuse_at(reader, found->raw.ptr, "%s holds a character that is not allowed there",
                         found->path);
    }
    *out = sl_span_of(buf, len);
    return SL_OK;
}

/* As get_text, and an empty string is refused. */
static enum sl_err get_name(struct sl_line_reader *reader, enum pick pick, char *buf, size_t size,
                            struct sl_span *out)
{
    enum sl_err err = get_text(reader, pick, buf, size, out);

    if (err == SL_OK && has(reader, pick) && out->len == 0) {
        return refuse_at(reader, at_pick(reader, pick), "%s is empty", pick_paths[pick]);
    }
    return err;
}

static enum sl_err get_integer(struct sl_line_reader *reader, enum pick pick, int64_t min,
                               int64_t max, uint32_t *out)
{
    int64_t value;

    if (!has(reader, pick)) {
        return SL_OK;
    }
    if (sl_json_get_int(&reader->picks[pick], min, max, &value) != SL_OK) {
        return refuse_at(reader, at_pick(reader, pick),
                         "%s must be a whole number from %lld to %lld", pick_paths[pick],
                         (long long)min, (long long)max);
    }
    *out = (uint32_t)value;
    return SL_OK;
}

static enum sl_err get_time(struct sl_line_reader *reader, enum pick pick, int64_t *out)
{
    char text[TIME_BYTES_MAX];
    size_t len;

    if (!has(reader, pick)) {
        return SL_OK;
    }
    if (sl_json_get_string(&reader->picks[pick], text, sizeof(text), &len) != SL_OK ||
        strlen(text) != len || !sl_line_parse_time(text, out)) {
        return refuse_at(reader, at_pick(reader, pick),
                         "%s must be a time such as \"2026-01-31T08:00:00Z\"", pick_paths[pick]);
    }
    return SL_OK;
}

/* One word of a list: its place in `words`; `expected` names the list in a refusal. */
static enum sl_err get_word(struct sl_line_reader *reader, enum pick pick, const char *const *words,
                            const char *expected, size_t *idx)
{
    char text[16] = "";
    size_t len = 0;

    if (!has(reader, pick)) {
        return SL_OK;
    }
    if (sl_json_get_string(&reader->picks[pick], text, sizeof(text), &len) == SL_OK) {
        for (size_t i = 0; words[i] != NULL; i++) {
            if (sl_span_equal(sl_span_str(words[i]), sl_span_of(text, len))) {
                *idx = i;
                return SL_OK;
            }
        }
    }
    return refuse_at(reader, at_pick(reader, pick), "%s must be %s", pick_paths[pick], expected);
}

/* ---- the sluice object ----------------------------------------------------------------------- */

static enum sl_err refuse_later(struct sl_line_reader *reader)
{
    static const enum pick later[] = {PICK_AFTER,     PICK_SESSION,     PICK_ON_PARENT_FAILURE,
                                      PICK_TOP_AFTER, PICK_TOP_SESSION, PICK_TOP_ON_PARENT_FAILURE};

    for (size_t i = 0; i < SL_ARRAY_LEN(later); i++) {
        if (has(reader, later[i])) {
            return refuse_at(reader, at_pick(reader, later[i]),
                             "%s is not supported by this version yet", pick_paths[later[i]]);
        }
    }
    return SL_OK;
}

static enum sl_err get_timeout(struct sl_line_reader *reader, uint32_t *timeout_ms)
{
    double seconds = 0;

    if (!has(reader, PICK_TIMEOUT)) {
        return SL_OK;
    }
    if (sl_json_get_double(&reader->picks[PICK_TIMEOUT], &seconds) != SL_OK ||
        !(seconds >= 0.001 && seconds <= SL_TASK_TIMEOUT_MS_MAX / 1000.0)) {
        return refuse_at(reader, at_pick(reader, PICK_TIMEOUT),
                         "sluice.timeout_s must be a number of seconds from 0.001 to %d",
                         SL_TASK_TIMEOUT_MS_MAX / 1000);
    }
    *timeout_ms = (uint32_t)(seconds * 1000.0 + 0.5);
    return SL_OK;
}

static enum sl_err get_flags(struct sl_line_reader *reader, uint32_t *flags)
{
    static const char *const cache_words[] = {"use", "refresh", "off", NULL};
    static const uint32_t cache_flags[] = {0, SL_TASK_FLAG_CACHE_REFRESH, SL_TASK_FLAG_CACHE_OFF};
    static const char *const unknown_words[] = {"retry", "fail", NULL};
    static const uint32_t unknown_flags[] = {0, SL_TASK_FLAG_FAIL_ON_UNKNOWN};
    size_t cache = 0;
    size_t unknown = 0;

    enum sl_err err =
        get_word(reader, PICK_CACHE, cache_words, "\"use\", \"refresh\" or \"off\"", &cache);
    if (err == SL_OK) {
        err = get_word(reader, PICK_ON_UNKNOWN, unknown_words, "\"retry\" or \"fail\"", &unknown);
    }
    if (err == SL_OK) {
        *flags = cache_flags[cache] | unknown_flags[unknown];
    }
    return err;
}

static enum sl_err get_times(struct sl_line_reader *reader, struct sl_task_msg *task)
{
    enum sl_err err = get_time(reader, PICK_NOT_BEFORE, &task->not_before_ms);

    if (err == SL_OK) {
        err = get_time(reader, PICK_DEADLINE, &task->deadline_ms);
    }
    if (err == SL_OK && task->deadline_ms != 0 && task->deadline_ms <= task->not_before_ms) {
        return refuse_at(reader, at_pick(reader, PICK_DEADLINE),
                         "sluice.deadline is not later than sluice.not_before");
    }
    return err;
}

static enum sl_err get_names(struct sl_line_reader *reader, struct sl_task_msg *task)
{
    task->provider = reader->defaults->provider;
    task->stage = reader->defaults->stage;
    task->service_id = reader->defaults->service_id;
    enum sl_err err = get_name(reader, PICK_PROVIDER, reader->provider, sizeof(reader->provider),
                               &task->provider);
    if (err == SL_OK) {
        err = get_text(reader, PICK_STAGE, reader->stage, sizeof(reader->stage), &task->stage);
    }
    if (err == SL_OK) {
        err = get_text(reader, PICK_SERVICE_ID, reader->service_id, sizeof(reader->service_id),
                       &task->service_id);
    }
    return err;
}

static enum sl_err get_numbers(struct sl_line_reader *reader, struct sl_task_msg *task)
{
    task->priority = reader->defaults->priority;
    enum sl_err err = get_integer(reader, PICK_PRIORITY, 0, SL_PRIORITY_MAX, &task->priority);

    if (err == SL_OK) {
        err = get_integer(reader, PICK_MAX_ATTEMPTS, 1, SL_ATTEMPTS_MAX, &task->max_attempts);
    }
    return err == SL_OK ? get_timeout(reader, &task->timeout_ms) : err;
}

static enum sl_err get_options(struct sl_line_reader *reader, struct sl_task_msg *task)
{
    if (has(reader, PICK_SLUICE) && reader->picks[PICK_SLUICE].kind != SL_JSON_OBJECT) {
        return refuse_at(reader, at_pick(reader, PICK_SLUICE), "sluice must be an object");
    }
    enum sl_err err = refuse_later(reader);
    if (err == SL_OK) {
        err = get_names(reader, task);
    }
    if (err == SL_OK) {
        err = get_numbers(reader, task);
    }
    if (err == SL_OK) {
        err = get_times(reader, task);
    }
    return err == SL_OK ? get_flags(reader, &task->flags) : err;
}

/* ---- id, model, body ------------------------------------------------------------------------- */

/* The id under either of its names, or the number of the line. */
static enum sl_err get_id(struct sl_line_reader *reader, uint64_t number, struct sl_span *id)
{
    enum pick pick = has(reader, PICK_ID) ? PICK_ID : PICK_CUSTOM_ID;

    if (has(reader, PICK_ID) && has(reader, PICK_CUSTOM_ID)) {
        return refuse_at(reader, at_pick(reader, PICK_ID),
                         "id and custom_id are the same: give one");
    }
    snprintf(reader->number, sizeof(reader->number), "%llu", (unsigned long long)number);
    *id = sl_span_str(reader->number);
    return get_name(reader, pick, reader->custom_id, sizeof(reader->custom_id), id);
}

/* The model the line names, or the command line's. */
static enum sl_err get_model(struct sl_line_reader *reader, enum pick pick, const char *at,
                             struct sl_task_msg *task)
{
    task->model = reader->defaults->model;
    enum sl_err err = get_name(reader, pick, reader->model, sizeof(reader->model), &task->model);

    if (err == SL_OK && task->model.len == 0 && task->provider.len == 0) {
        return refuse_at(reader, at, "no model: name one in the line or with --model");
    }
    return err;
}

static enum sl_err finish_body(struct sl_line_reader *reader, const char *at,
                               struct sl_task_msg *task)
{
    if (reader->body.is_failed) {
        return SL_ERR_NO_MEMORY;
    }
    if (reader->body.len > 0) {
        task->body = sl_span_of(reader->body.buf, reader->body.len);
    }
    if (task->body.len > SL_BODY_BYTES_MAX) {
        (void)refuse_at(reader, at, "%s", sl_err_meaning(SL_ERR_BODY_TOO_LARGE));
        return SL_ERR_BODY_TOO_LARGE;
    }
    return SL_OK;
}

static void put(struct sl_line_reader *reader, const char *text)
{
    sl_json_put_raw(&reader->body, sl_span_str(text));
}

static bool is_empty_object(struct sl_span object)
{
    size_t at = 1;

    while (at < object.len && strchr(" \t\r\n", object.ptr[at]) != NULL) {
        at++;
    }
    return at < object.len && object.ptr[at] == '}';
}

/* The body with the command line's model as its first member. */
static void splice_model(struct sl_line_reader *reader, struct sl_span model)
{
    struct sl_span body = reader->picks[PICK_BODY].raw;

    put(reader, "{\"model\":");
    sl_json_put_string(&reader->body, model);
    put(reader, is_empty_object(body) ? "" : ",");
    sl_json_put_raw(&reader->body, sl_span_of(body.ptr + 1, body.len - 1));
}

static enum sl_err get_call(struct sl_line_reader *reader, struct sl_task_msg *task)
{
    char buf[SL_NAME_BYTES_MAX];
    struct sl_span method = sl_span_str("POST");
    struct sl_span url = {0};
    enum sl_err err = get_text(reader, PICK_METHOD, buf, sizeof(buf), &method);

    if (err == SL_OK && !sl_span_equal(method, sl_span_str("POST"))) {
        return refuse_at(reader, at_pick(reader, PICK_METHOD), "method must be \"POST\"");
    }
    if (err == SL_OK && !has(reader, PICK_URL)) {
        return refuse_at(reader, at_pick(reader, PICK_WHOLE),
                         "url is missing (\"/v1/chat/completions\")");
    }
    if (err == SL_OK) {
        err = get_text(reader, PICK_URL, buf, sizeof(buf), &url);
    }
    if (err == SL_OK && !sl_endpoint_parse(url, &task->endpoint)) {
        return refuse_at(reader, at_pick(reader, PICK_URL),
                         "url must be /v1/chat/completions, /v1/responses or /v1/embeddings");
    }
    return err;
}

/* A member of the short line in a batch line, or the other way round. */
static enum sl_err refuse_mixture(struct sl_line_reader *reader, const enum pick *alien,
                                  const char *own)
{
    for (size_t i = 0; alien[i] != PICK_COUNT; i++) {
        if (has(reader, alien[i])) {
            return refuse_at(reader, at_pick(reader, alien[i]), "%s does not go with %s",
                             pick_paths[alien[i]], own);
        }
    }
    return SL_OK;
}

static enum sl_err read_batch_line(struct sl_line_reader *reader, struct sl_task_msg *task)
{
    static const enum pick alien[] = {PICK_PROMPT, PICK_SYSTEM, PICK_MODEL, PICK_COUNT};
    const char *at = at_pick(reader, PICK_BODY);
    enum sl_err err = refuse_mixture(reader, alien, "body");

    if (err == SL_OK && reader->picks[PICK_BODY].kind != SL_JSON_OBJECT) {
        return refuse_at(reader, at, "body must be an object");
    }
    if (err == SL_OK) {
        err = get_call(reader, task);
    }
    if (err == SL_OK) {
        err = get_model(reader, PICK_BODY_MODEL, at, task);
    }
    if (err != SL_OK) {
        return err;
    }
    task->body = reader->picks[PICK_BODY].raw;
    if (!has(reader, PICK_BODY_MODEL) && task->model.len > 0) {
        splice_model(reader, task->model);
    }
    return finish_body(reader, at, task);
}

static void put_message(struct sl_line_reader *reader, const char *role, enum pick pick)
{
    put(reader, "{\"role\":\"");
    put(reader, role);
    put(reader, "\",\"content\":");
    sl_json_put_raw(&reader->body, reader->picks[pick].raw);
    put(reader, "}");
}

static void build_chat(struct sl_line_reader *reader, struct sl_span model)
{
    put(reader, "{");
    if (model.len > 0) {
        put(reader, "\"model\":");
        sl_json_put_string(&reader->body, model);
        put(reader, ",");
    }
    put(reader, "\"messages\":[");
    if (has(reader, PICK_SYSTEM)) {
        put_message(reader, "system", PICK_SYSTEM);
        put(reader, ",");
    }
    put_message(reader, "user", PICK_PROMPT);
    put(reader, "]}");
}

static enum sl_err check_string(struct sl_line_reader *reader, enum pick pick)
{
    enum sl_json_kind kind = reader->picks[pick].kind;

    if (kind == SL_JSON_STRING || (kind == SL_JSON_ABSENT && pick != PICK_PROMPT)) {
        return SL_OK;
    }
    return refuse_at(reader, at_pick(reader, pick), "%s must be a string", pick_paths[pick]);
}

static enum sl_err read_short_line(struct sl_line_reader *reader, struct sl_task_msg *task)
{
    static const enum pick alien[] = {PICK_METHOD, PICK_URL, PICK_COUNT};
    enum sl_err err = refuse_mixture(reader, alien, "prompt");

    if (err == SL_OK) {
        err = check_string(reader, PICK_PROMPT);
    }
    if (err == SL_OK) {
        err = check_string(reader, PICK_SYSTEM);
    }
    if (err == SL_OK) {
        err = get_model(reader, PICK_MODEL, at_pick(reader, PICK_WHOLE), task);
    }
    if (err != SL_OK) {
        return err;
    }
    task->endpoint = SL_ENDPOINT_CHAT;
    build_chat(reader, task->model);
    return finish_body(reader, at_pick(reader, PICK_PROMPT), task);
}

/* ---- a line ---------------------------------------------------------------------------------- */

static bool is_blank(struct sl_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != ' ' && text.ptr[i] != '\t' && text.ptr[i] != '\r') {
            return false;
        }
    }
    return true;
}

static struct sl_span skip_mark(struct sl_span line, uint64_t number)
{
    size_t mark_len = strlen(BYTE_ORDER_MARK);

    if (number == 1 && line.len >= mark_len && memcmp(line.ptr, BYTE_ORDER_MARK, mark_len) == 0) {
        return sl_span_of(line.ptr + mark_len, line.len - mark_len);
    }
    return line;
}

static enum sl_err scan(struct sl_line_reader *reader, struct sl_span text)
{
    struct sl_json_fault fault;
    enum sl_err err =
        sl_json_scan(reader->scanner, text, reader->picks, PICK_COUNT, strict_objects, &fault);

    if (err == SL_ERR_INPUT) {
        return refuse_at(reader, text.ptr + SL_MIN(fault.offset, text.len), "%s", fault.reason);
    }
    if (err == SL_OK && reader->picks[PICK_WHOLE].kind != SL_JSON_OBJECT) {
        return refuse_at(reader, at_pick(reader, PICK_WHOLE), "a line must be a JSON object");
    }
    return err;
}

static enum sl_err read_members(struct sl_line_reader *reader, uint64_t number,
                                struct sl_task_msg *task)
{
    enum sl_err err = get_options(reader, task);

    if (err == SL_OK) {
        err = get_id(reader, number, &task->custom_id);
    }
    if (err != SL_OK) {
        return err;
    }
    if (has(reader, PICK_BODY)) {
        return read_batch_line(reader, task);
    }
    if (has(reader, PICK_PROMPT)) {
        return read_short_line(reader, task);
    }
    return refuse_at(reader, at_pick(reader, PICK_WHOLE), "neither body nor prompt is there");
}

enum sl_err sl_line_read(struct sl_line_reader *reader, struct sl_span line, uint64_t number,
                         struct sl_task_msg *task, bool *is_empty, struct sl_line_fault *fault)
{
    struct sl_span text = skip_mark(line, number);

    *is_empty = is_blank(text);
    if (*is_empty) {
        return SL_OK;
    }
    reader->line = line;
    reader->fault = fault;
    reader->body.len = 0;
    memset(task, 0, sizeof(*task));
    if (line.len > SL_LINE_BYTES_MAX) {
        return refuse_at(reader, line.ptr, "the line is longer than %zu bytes", SL_LINE_BYTES_MAX);
    }
    enum sl_err err = scan(reader, text);
    return err != SL_OK ? err : read_members(reader, number, task);
}
