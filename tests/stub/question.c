/*
 * Reads the few members of a request body that matter to the stub, in one pass and without a JSON
 * library (the stub links only the base).
 *
 * Runs in sluice-stub only. Keeps no state, allocates nothing, decodes nothing: all it returns are
 * spans of the body. Nested values are skipped by counting brackets outside strings, with memchr,
 * so that a 64 MiB prompt costs little more than its hash. It never recurses: the depth of what it
 * understands is fixed (messages, a message, its content, a part). A body that is no JSON object or
 * ends too early is reported as a sentence; the caller answers 400. Nothing survives the process.
 */
#include "tests/stub/question.h"

struct cursor {
    const char *at;
    const char *end;
};

static struct cursor cursor_of(struct sl_span span)
{
    return (struct cursor){.at = span.ptr, .end = span.ptr + span.len};
}

static void skip_space(struct cursor *cursor)
{
    while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\n' ||
                                        *cursor->at == '\r' || *cursor->at == '\t')) {
        cursor->at++;
    }
}

/* Consumes `byte` after white space. */
static bool take_byte(struct cursor *cursor, char byte)
{
    skip_space(cursor);
    if (cursor->at == cursor->end || *cursor->at != byte) {
        return false;
    }
    cursor->at++;
    return true;
}

/* A string whose opening quote is at the cursor. A quote ends it unless an odd number of
 * backslashes stands before it; runs of backslashes do not overlap, so that this stays linear. */
static bool skip_string(struct cursor *cursor)
{
    const char *first = cursor->at + 1;
    const char *from = first;

    while (from < cursor->end) {
        const char *quote = memchr(from, '"', (size_t)(cursor->end - from));
        if (quote == NULL) {
            return false;
        }
        const char *slash = quote;
        while (slash > first && slash[-1] == '\\') {
            slash--;
        }
        if ((quote - slash) % 2 == 0) {
            cursor->at = quote + 1;
            return true;
        }
        from = quote + 1;
    }
    return false;
}

/* An object or array whose opening bracket is at the cursor. */
static bool skip_nested(struct cursor *cursor)
{
    size_t depth = 0;

    while (cursor->at < cursor->end) {
        char byte = *cursor->at;
        if (byte == '"') {
            if (!skip_string(cursor)) {
                return false;
            }
            continue;
        }
        cursor->at++;
        depth += byte == '{' || byte == '[';
        depth -= byte == '}' || byte == ']';
        if (depth == 0) {
            return true;
        }
    }
    return false;
}

static bool is_scalar_byte(char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || byte == '-' ||
           byte == '+' || byte == '.' || byte == 'E';
}

static bool skip_scalar(struct cursor *cursor)
{
    const char *start = cursor->at;

    while (cursor->at < cursor->end && is_scalar_byte(*cursor->at)) {
        cursor->at++;
    }
    return cursor->at > start;
}

/* Any value; *value gets its bytes. */
static bool take_value(struct cursor *cursor, struct sl_span *value)
{
    bool is_taken;

    skip_space(cursor);
    if (cursor->at == cursor->end) {
        return false;
    }
    const char *start = cursor->at;
    if (*start == '"') {
        is_taken = skip_string(cursor);
    } else if (*start == '{' || *start == '[') {
        is_taken = skip_nested(cursor);
    } else {
        is_taken = skip_scalar(cursor);
    }
    *value = sl_span_of(start, (size_t)(cursor->at - start));
    return is_taken;
}

/* "key": value */
static bool take_member_pair(struct cursor *cursor, struct sl_span *key, struct sl_span *value)
{
    return *cursor->at == '"' && take_value(cursor, key) && take_byte(cursor, ':') &&
           take_value(cursor, value);
}

/* After a member: a comma with another behind it, or the closing brace (left where it is). */
static bool ends_well(struct cursor *cursor)
{
    if (!take_byte(cursor, ',')) {
        return cursor->at < cursor->end && *cursor->at == '}';
    }
    skip_space(cursor);
    return cursor->at < cursor->end && *cursor->at == '"';
}

/* After '{' or a member: the next member. False: none; *is_broken tells why. */
static bool next_member(struct cursor *cursor, struct sl_span *key, struct sl_span *value,
                        bool *is_broken)
{
    skip_space(cursor);
    if (cursor->at < cursor->end && *cursor->at == '}') {
        *is_broken = false;
        return false;
    }
    *is_broken = true;
    return cursor->at < cursor->end && take_member_pair(cursor, key, value) && ends_well(cursor);
}

static bool is_string(struct sl_span value)
{
    return value.len >= 2 && value.ptr[0] == '"';
}

/* The bytes between the quotes. */
static struct sl_span inside(struct sl_span string)
{
    return sl_span_of(string.ptr + 1, string.len - 2);
}

static bool is_key(struct sl_span key, const char *name)
{
    return sl_span_equal(inside(key), sl_span_str(name));
}

/* Picks up to two members of an object; those that are not there stay empty. */
static void pick(struct sl_span object, const char *const names[2], struct sl_span *const values[2])
{
    struct cursor cursor = cursor_of(object);
    struct sl_span key;
    struct sl_span value;
    bool is_broken;

    if (!take_byte(&cursor, '{')) {
        return;
    }
    while (next_member(&cursor, &key, &value, &is_broken)) {
        for (size_t i = 0; i < 2; i++) {
            if (is_key(key, names[i])) {
                *values[i] = value;
            }
        }
    }
}

bool sl_stub_question_next(struct sl_span *rest, struct sl_span *element)
{
    struct cursor cursor = cursor_of(*rest);

    skip_space(&cursor);
    if (cursor.at < cursor.end && (*cursor.at == '[' || *cursor.at == ',')) {
        cursor.at++;
    }
    if (!take_value(&cursor, element)) {
        return false;
    }
    *rest = sl_span_of(cursor.at, (size_t)(cursor.end - cursor.at));
    return true;
}

/* ---- the text of the last user message ------------------------------------------------------- */

/* "content": a string, or parts of which the last with a "text" counts. */
static struct sl_span text_of_content(struct sl_span content)
{
    struct sl_span text = {0};
    struct sl_span part;

    if (is_string(content)) {
        return inside(content);
    }
    while (content.len > 0 && sl_stub_question_next(&content, &part)) {
        struct sl_span part_text = {0};
        struct sl_span type = {0};
        pick(part, (const char *const[2]){"text", "type"},
             (struct sl_span *const[2]){&part_text, &type});
        if (is_string(part_text)) {
            text = inside(part_text);
        }
    }
    return text;
}

/* "messages", or the "input" items of a response. */
static struct sl_span text_of_messages(struct sl_span messages)
{
    struct sl_span text = {0};
    struct sl_span message;

    if (is_string(messages)) {
        return inside(messages);
    }
    while (messages.len > 0 && sl_stub_question_next(&messages, &message)) {
        struct sl_span role = {0};
        struct sl_span content = {0};
        if (is_string(message)) {
            text = inside(message);
            continue;
        }
        pick(message, (const char *const[2]){"role", "content"},
             (struct sl_span *const[2]){&role, &content});
        if (sl_span_equal(role, sl_span_str("\"user\""))) {
            text = text_of_content(content);
        }
    }
    return text;
}

/* ---- the members of the body ----------------------------------------------------------------- */

static void take_model(struct sl_stub_question *out, struct sl_span value)
{
    if (is_string(value)) {
        out->model = inside(value);
    }
}

static void take_stream(struct sl_stub_question *out, struct sl_span value)
{
    out->is_stream = sl_span_equal(value, sl_span_str("true"));
}

static void take_max_tokens(struct sl_stub_question *out, struct sl_span value)
{
    uint64_t number = 0;

    for (size_t i = 0; i < value.len && i < 12; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9') {
            return;
        }
        number = number * 10 + (uint64_t)(value.ptr[i] - '0');
    }
    out->max_tokens = number;
}

static void take_input(struct sl_stub_question *out, struct sl_span value)
{
    out->inputs = value;
    out->has_input = true;
    out->text = text_of_messages(value);
}

static const struct {
    const char *name;
    void (*take)(struct sl_stub_question *, struct sl_span);
} members[] = {
    {"model", take_model},
    {"messages", take_input},
    {"input", take_input},
    {"stream", take_stream},
    {"max_completion_tokens", take_max_tokens},
    {"max_output_tokens", take_max_tokens},
    {"max_tokens", take_max_tokens},
};

static void take_member(struct sl_stub_question *out, struct sl_span key, struct sl_span value)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(members); i++) {
        if (is_key(key, members[i].name)) {
            members[i].take(out, value);
            return;
        }
    }
}

const char *sl_stub_question_read(struct sl_span body, struct sl_stub_question *out)
{
    struct cursor cursor = cursor_of(body);
    struct sl_span key;
    struct sl_span value;
    bool is_broken = false;

    memset(out, 0, sizeof(*out));
    if (body.len == 0 || !take_byte(&cursor, '{')) {
        return "The body is not a JSON object";
    }
    while (next_member(&cursor, &key, &value, &is_broken)) {
        take_member(out, key, value);
    }
    if (is_broken || !take_byte(&cursor, '}')) {
        return "The body is not valid JSON";
    }
    skip_space(&cursor);
    return cursor.at == cursor.end ? NULL : "Something follows the JSON object of the body";
}
