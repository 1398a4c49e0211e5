/*
 * Where exactly a refused text goes wrong.
 *
 * yajl says what is wrong but not always where: its offset is the end of what it had read, or the
 * beginning of it, as the case may be. So when it refuses a text, the text is walked again, token
 * by token, until one is broken or stands where it may not; the first such byte is the one to name.
 * Runs on refused texts only, so it need not be fast.
 *
 * Pure: allocates nothing, never recurses, never reads outside the text. Any process, any thread; a
 * crash leaves nothing behind. Reports a position, no errors.
 */
#include "common/check.h"
#include "common/json_private.h"

/* ---- tokens ---------------------------------------------------------------------------------- */

/* A token: its end, or the byte in it that makes it none. */
struct token {
    bool is_sound;
    size_t at; /* just behind it, or the bad byte; the text's length when it is cut off */
};

static char char_at(struct sl_span text, size_t at)
{
    char c = '\0'; /* NUL was refused before: it means "the end" */

    if (at < text.len) {
        c = text.ptr[at];
    }
    return c;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* What stands behind the backslash at `at`. */
static struct token read_escape(struct sl_span text, size_t at)
{
    char c = char_at(text, at + 1);

    if (c != 'u') {
        return (struct token){
            c != '\0' && strchr("\"\\/bfnrt", c) != NULL,
            SL_MIN(at + (c != '\0' && strchr("\"\\/bfnrt", c) ? 2 : 1), text.len)};
    }
    for (size_t i = 2; i < 6; i++) {
        if (!is_hex(char_at(text, at + i))) {
            return (struct token){false, SL_MIN(at + i, text.len)};
        }
    }
    return (struct token){true, at + 6};
}

static struct token read_string(struct sl_span text, size_t at)
{
    at++;
    while (at < text.len) {
        if (text.ptr[at] == '"') {
            return (struct token){true, at + 1};
        }
        if ((uint8_t)text.ptr[at] < 0x20) {
            return (struct token){false, at};
        }
        if (text.ptr[at] != '\\') {
            at++;
            continue;
        }
        struct token escape = read_escape(text, at);
        if (!escape.is_sound) {
            return escape;
        }
        at = escape.at;
    }
    return (struct token){false, text.len};
}

/* At least one digit, else the byte that should have been one. */
static struct token read_digits(struct sl_span text, size_t at)
{
    if (!is_digit(char_at(text, at))) {
        return (struct token){false, SL_MIN(at, text.len)};
    }
    while (is_digit(char_at(text, at))) {
        at++;
    }
    return (struct token){true, at};
}

static struct token read_number(struct sl_span text, size_t at)
{
    at += text.ptr[at] == '-';
    struct token token = {true, at + 1};
    if (char_at(text, at) != '0') { /* behind a leading zero no digit belongs to the number */
        token = read_digits(text, at);
    }
    if (token.is_sound && char_at(text, token.at) == '.') {
        token = read_digits(text, token.at + 1);
    }
    char exponent = char_at(text, token.at);
    if (token.is_sound && (exponent == 'e' || exponent == 'E')) {
        char sign = char_at(text, token.at + 1);
        token = read_digits(text, token.at + 1 + (sign == '+' || sign == '-'));
    }
    return token;
}

static struct token read_literal(struct sl_span text, size_t at)
{
    char first = text.ptr[at];
    const char *word = first == 't' ? "true" : first == 'f' ? "false" : "null";

    for (size_t i = 0; word[i] != '\0'; i++, at++) {
        if (char_at(text, at) != word[i]) {
            return (struct token){false, SL_MIN(at, text.len)};
        }
    }
    return (struct token){true, at};
}

static struct token read_token(struct sl_span text, size_t at)
{
    char c = text.ptr[at];

    if (c == '"') {
        return read_string(text, at);
    }
    if (c == '-' || is_digit(c)) {
        return read_number(text, at);
    }
    if (c == 't' || c == 'f' || c == 'n') {
        return read_literal(text, at);
    }
    bool is_mark = strchr("{}[]:,", c) != NULL;
    return (struct token){is_mark, is_mark ? at + 1 : at};
}

/* ---- grammar --------------------------------------------------------------------------------- */

enum expectation {
    EXPECT_VALUE,
    EXPECT_VALUE_OR_END, /* behind '[' */
    EXPECT_KEY,
    EXPECT_KEY_OR_END, /* behind '{' */
    EXPECT_COLON,
    EXPECT_COMMA_OR_END,
    EXPECT_NOTHING,
};

struct grammar {
    enum expectation expectation;
    size_t depth;
    bool is_object[SL_JSON_DEPTH_MAX + 1]; /* of each open container */
};

static void end_value(struct grammar *grammar)
{
    grammar->expectation = grammar->depth == 0 ? EXPECT_NOTHING : EXPECT_COMMA_OR_END;
}

static bool close_container(struct grammar *grammar)
{
    grammar->depth--;
    end_value(grammar);
    return true;
}

/* Deeper than the scanner allows is refused there, at the same byte. */
static bool open_container(struct grammar *grammar, bool is_object)
{
    if (grammar->depth == SL_JSON_DEPTH_MAX) {
        return false;
    }
    grammar->is_object[++grammar->depth] = is_object;
    grammar->expectation = is_object ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END;
    return true;
}

static bool accept_value(struct grammar *grammar, char first)
{
    if (first == '{' || first == '[') {
        return open_container(grammar, first == '{');
    }
    if (strchr("}]:,", first) != NULL) {
        return false;
    }
    end_value(grammar);
    return true;
}

static bool accept_key(struct grammar *grammar, char first)
{
    grammar->expectation = EXPECT_COLON;
    return first == '"';
}

static bool accept_separator(struct grammar *grammar, char first)
{
    bool is_object = grammar->is_object[grammar->depth];

    if (first == ',') {
        grammar->expectation = is_object ? EXPECT_KEY : EXPECT_VALUE;
        return true;
    }
    return first == (is_object ? '}' : ']') && close_container(grammar);
}

/* May a token that begins so stand here? */
static bool accept_token(struct grammar *grammar, char first)
{
    switch (grammar->expectation) {
    case EXPECT_VALUE:
        return accept_value(grammar, first);
    case EXPECT_VALUE_OR_END:
        return first == ']' ? close_container(grammar) : accept_value(grammar, first);
    case EXPECT_KEY:
        return accept_key(grammar, first);
    case EXPECT_KEY_OR_END:
        return first == '}' ? close_container(grammar) : accept_key(grammar, first);
    case EXPECT_COLON:
        grammar->expectation = EXPECT_VALUE;
        return first == ':';
    case EXPECT_COMMA_OR_END:
        return accept_separator(grammar, first);
    case EXPECT_NOTHING:
        return false;
    }
    SL_UNREACHABLE();
}

size_t sl_json_find_fault(struct sl_span text)
{
    struct grammar grammar = {.expectation = EXPECT_VALUE};
    size_t at = sl_json_skip_space(text, 0);

    while (at < text.len) {
        struct token token = read_token(text, at);
        if (!token.is_sound) {
            return token.at;
        }
        if (!accept_token(&grammar, text.ptr[at])) {
            return at;
        }
        at = sl_json_skip_space(text, token.at);
    }
    return text.len;
}
