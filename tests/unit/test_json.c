/*
 * The JSON door: what is picked, what is refused and where, what strings and numbers say, and that
 * what is written can be read again. Conformance to published test suites is in
 * test_json_suites.c. Texts stand in heap blocks of their exact size, so that a sanitizer sees a
 * read one byte past the end.
 */
#include "common/json.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ADDRESS_SANITIZER
#endif
#endif

static struct sl_json_scanner *scanner;
static struct sl_json_fault fault;
static char *copy;

static void open_scanner(void)
{
    scanner = sl_json_scanner_open();
    ck_assert_ptr_nonnull(scanner);
}

static void close_scanner(void)
{
    sl_json_scanner_close(&scanner);
    ck_assert_ptr_null(scanner);
    free(copy);
    copy = NULL;
}

/* The picks of a scan point into the copy, until the next one. */
static enum sl_err scan(struct sl_span text, struct sl_json_pick *picks, size_t count,
                        const char *const *strict)
{
    free(copy);
    copy = malloc(text.len > 0 ? text.len : 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, text.ptr, text.len);
    fault.offset = 999999;
    return sl_json_scan(scanner, sl_span_of(copy, text.len), picks, count, strict, &fault);
}

/* ---- picks ----------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    const char *path;
    enum sl_json_kind kind;
    const char *raw;
} pick_cases[] = {
    {"{\"a\":1}", "a", SL_JSON_NUMBER, "1"},
    {"{\"a\" : -1.5e+3 }", "a", SL_JSON_NUMBER, "-1.5e+3"},
    {"{\"a\":0}", "a", SL_JSON_NUMBER, "0"},
    {"{\"a\":\"x\"}", "a", SL_JSON_STRING, "\"x\""},
    {"{\"a\":\"\"}", "a", SL_JSON_STRING, "\"\""},
    {"{ \"a\" : \"x\\\"y\\\\\" , \"b\":1}", "a", SL_JSON_STRING, "\"x\\\"y\\\\\""},
    {"{\"a\":\"\\\\\\\\\"}", "a", SL_JSON_STRING, "\"\\\\\\\\\""},
    {"{\"a\":true}", "a", SL_JSON_BOOL, "true"},
    {"{\"a\":false\n}", "a", SL_JSON_BOOL, "false"},
    {"{\"a\":null,\"b\":2}", "a", SL_JSON_NULL, "null"},
    {"{\"a\":[1,{\"a\":2}] }", "a", SL_JSON_ARRAY, "[1,{\"a\":2}]"},
    {"{\"a\":[]}", "a", SL_JSON_ARRAY, "[]"},
    {"{\"a\": {\"b\":{}} }", "a", SL_JSON_OBJECT, "{\"b\":{}}"},
    {"{\"a\":{}}", "a", SL_JSON_OBJECT, "{}"},
    {"{\"a\":{\"b\":7}}", "a.b", SL_JSON_NUMBER, "7"},
    {"{\"x\":{\"b\":1},\"a\":{\"x\":2,\"b\":{\"c\":[3]}}}", "a.b.c", SL_JSON_ARRAY, "[3]"},
    {"{\"\\u0061\":1}", "a", SL_JSON_NUMBER, "1"},
    {"{\"b\":1}", "a", SL_JSON_ABSENT, ""},
    {"{\"A\":1,\"aa\":2,\"\":3}", "a", SL_JSON_ABSENT, ""},
    {"{\"a.b\":1}", "a.b", SL_JSON_ABSENT, ""},
    {"{\"a\":[{\"b\":1}]}", "a.b", SL_JSON_ABSENT, ""},
    {"{\"a\":\"b\"}", "a.b", SL_JSON_ABSENT, ""},
    {"[{\"a\":1}]", "a", SL_JSON_ABSENT, ""},
    {"{\"x\":{\"a\":1},\"y\":[{\"a\":2},{\"a\":3}]}", "a", SL_JSON_ABSENT, ""},
    {" [1, 2] \n", "", SL_JSON_ARRAY, "[1, 2]"},
    {"\t{\"a\":1}", "", SL_JSON_OBJECT, "{\"a\":1}"},
    {" 12 ", "", SL_JSON_NUMBER, "12"},
    {"12", "", SL_JSON_NUMBER, "12"},
    {"-0.5", "", SL_JSON_NUMBER, "-0.5"},
    {" \"x\" ", "", SL_JSON_STRING, "\"x\""},
    {"null", "", SL_JSON_NULL, "null"},
    {"\"\\ud800\"", "", SL_JSON_STRING, "\"\\ud800\""},
};

START_TEST(test_pick)
{
    struct sl_json_pick pick = {.path = pick_cases[_i].path};
    struct sl_span text = sl_span_str(pick_cases[_i].text);

    ck_assert_int_eq(scan(text, &pick, 1, NULL), SL_OK);
    ck_assert_int_eq(pick.kind, pick_cases[_i].kind);
    ck_assert_uint_eq(pick.raw.len, strlen(pick_cases[_i].raw));
    ck_assert_mem_eq(pick.raw.ptr, pick_cases[_i].raw, pick.raw.len);
    ck_assert(pick.raw.len == 0 ||
              (pick.raw.ptr >= copy && pick.raw.ptr + pick.raw.len <= copy + text.len));
}
END_TEST

START_TEST(test_many_picks)
{
    struct sl_json_pick picks[] = {{.path = "body"},         {.path = "body.model"},
                                   {.path = "sluice.stage"}, {.path = "custom_id"},
                                   {.path = "sluice"},       {.path = ""}};
    const char *text = "{\"sluice\":{\"stage\":\"s\"},\"custom_id\":\"q\",\"body\":{\"model\":"
                       "\"m\",\"messages\":[{\"model\":\"no\"}]}}";

    for (int round = 0; round < 3; round++) { /* a scanner is reused */
        ck_assert_int_eq(scan(sl_span_str(text), picks, SL_ARRAY_LEN(picks), NULL), SL_OK);
        ck_assert_uint_eq(picks[0].raw.len, strlen("{'model':'m','messages':[{'model':'no'}]}"));
        ck_assert(sl_span_equal(picks[1].raw, sl_span_str("\"m\"")));
        ck_assert(sl_span_equal(picks[2].raw, sl_span_str("\"s\"")));
        ck_assert(sl_span_equal(picks[3].raw, sl_span_str("\"q\"")));
        ck_assert(sl_span_equal(picks[4].raw, sl_span_str("{\"stage\":\"s\"}")));
        ck_assert(sl_span_equal(picks[5].raw, sl_span_str(text)));
    }
    ck_assert_int_eq(scan(sl_span_str("{}"), picks, SL_ARRAY_LEN(picks), NULL), SL_OK);
    ck_assert_int_eq(picks[3].kind, SL_JSON_ABSENT);
}
END_TEST

/* ---- faults ---------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    size_t offset;
    const char *reason; /* a part of it */
} fault_cases[] = {
    {"", 0, "empty"},
    {" \n\t ", 4, "empty"},
    {"\xef\xbb\xbf{}", 0, "byte order mark"},
    {"{\"a\":\"\xff\"}", 6, "invalid UTF-8"},
    {"{\"a\":\"\xc0\xaf\"}", 6, "invalid UTF-8"},
    {"{\"a\":\"\xed\xa0\x80\"}", 6, "invalid UTF-8"},
    {"{\"a\":\"\xf4\x90\x80\x80\"}", 6, "invalid UTF-8"},
    {"{\"a\":\"abc\xe2\x82", 9, "invalid UTF-8"},
    {"{\"a\":\x01}", 5, "control character 0x01"},
    {"\x0c[]", 0, "control character 0x0c"},
    {"[]\x0b", 2, "control character 0x0b"},
    {"{\"a\":\"x\ny\"}", 7, "invalid char"},
    {"{", 1, "ends too early"},
    {"[1,2", 4, "ends too early"},
    {"{\"a\"", 4, "ends too early"},
    {"{\"a\":", 5, "ends too early"},
    {"\"abc", 4, "ends too early"},
    {"\"abc\\", 5, "ends too early"},
    {"\"\\u12", 5, "ends too early"},
    {"tru", 3, "ends too early"},
    {"-", 1, "ends too early"},
    {"[1.", 3, "ends too early"},
    {"[1e", 3, "ends too early"},
    {"[1,]", 3, "unallowed token"},
    {"[,1]", 1, "unallowed token"},
    {"{\"a\":1,}", 7, ""},
    {"{\"a\" 1}", 5, ""},
    {"{\"a\" 1", 5, ""},
    {"{a:1}", 1, "invalid char"},
    {"{1:1}", 1, ""},
    {"{\"a\":01}", 6, ""},
    {"[-01]", 3, ""},
    {"[1 2]", 3, ""},
    {"[1 true]", 3, ""},
    {"[\"a\" \"bc\"]", 5, ""},
    {"[1] 2", 4, "trailing"},
    {"[1] x", 4, ""},
    {"{} {}", 3, "trailing"},
    {"1 2", 2, "trailing"},
    {"]", 0, ""},
    {"[}", 1, ""},
    {"[\"\\x\"]", 3, ""},
    {"[\"\\u12g4\"]", 6, ""},
    {"[trve]", 3, ""},
    {"[nul]", 4, ""},
    {"[+1]", 1, ""},
    {"[.5]", 1, ""},
    {"[-x]", 2, ""},
    {"[1.x]", 3, ""},
    {"[1e+x]", 4, ""},
    {"[NaN]", 1, ""},
    {"['a']", 1, ""},
    {"[1]/* no */", 3, ""},
    {"// no\n1", 0, ""},
};

START_TEST(test_fault)
{
    ck_assert_int_eq(scan(sl_span_str(fault_cases[_i].text), NULL, 0, NULL), SL_ERR_INPUT);
    ck_assert_msg(fault.offset == fault_cases[_i].offset, "%s: fault at %zu, not at %zu: %s",
                  fault_cases[_i].text, fault.offset, fault_cases[_i].offset, fault.reason);
    ck_assert_msg(strstr(fault.reason, fault_cases[_i].reason) != NULL, "%s: %s",
                  fault_cases[_i].text, fault.reason);
}
END_TEST

START_TEST(test_nul_bytes)
{
    ck_assert_int_eq(scan(sl_span_of("[1]\0", 4), NULL, 0, NULL), SL_ERR_INPUT);
    ck_assert_uint_eq(fault.offset, 3);
    ck_assert_str_eq(fault.reason, "NUL byte");
    ck_assert_int_eq(scan(sl_span_of("{\"aaaaaaaaaaaaaa\0\":1}", 20), NULL, 0, NULL), SL_ERR_INPUT);
    ck_assert_uint_eq(fault.offset, 16);
}
END_TEST

/* Every beginning of a valid text is refused at its end, whatever it was cut in. */
START_TEST(test_every_cut_is_refused)
{
    const char *text = "{\"a\":[1.5e-3,true,null,\"x\\u00e9\\n\",{\"b\":{}}],\"c\":-0}";

    ck_assert_int_eq(scan(sl_span_str(text), NULL, 0, NULL), SL_OK);
    for (size_t len = 0; len < strlen(text); len++) {
        ck_assert_int_eq(scan(sl_span_of(text, len), NULL, 0, NULL), SL_ERR_INPUT);
        ck_assert_uint_eq(fault.offset, len);
    }
}
END_TEST

/* ---- doubled and unknown members ------------------------------------------------------------- */

static const char *const strict_top[] = {"", NULL};
static const char *const strict_both[] = {"", "s", NULL};

static const struct {
    const char *text;
    const char *const *strict;
    size_t offset; /* SIZE_MAX: accepted */
    const char *reason;
} member_cases[] = {
    {"{\"a\":1,\"s\":{\"b\":1}}", strict_both, SIZE_MAX, ""},
    {"{\"a\":1,\"a\":2}", NULL, 7, "duplicate member \"a\""},
    {"{\"a\":1,\"\\u0061\":2}", NULL, 7, "duplicate member \"\\u0061\""},
    {"{\"s\":{\"b\":1,\"b\":2}}", NULL, 12, "duplicate member \"b\""},
    {"{\"s\":{\"b\":1},\"s\":{\"x\":2}}", NULL, 13, "duplicate member \"s\""},
    {"{\"x\":1,\"x\":2}", NULL, SIZE_MAX, ""},
    {"{\"x\":{\"a\":1,\"a\":2}}", NULL, SIZE_MAX, ""},
    {"{\"a\":1,\"x\":2}", strict_top, 7, "unknown member \"x\""},
    {"{\"a\":1,\"x\\\"\\\\\":2}", strict_top, 7, "unknown member \"x\\\"\\\\\""},
    {"{\"a\":1,\"\":2}", strict_top, 7, "unknown member \"\""},
    {"{\"s\":{\"x\":1}}", strict_top, SIZE_MAX, ""},
    {"{\"s\":{\"b\":1,\"x\":1}}", strict_both, 12, "unknown member \"x\""},
    {"{\"a\":{\"x\":1}}", strict_both, SIZE_MAX, ""},
};

START_TEST(test_members)
{
    struct sl_json_pick picks[] = {{.path = "a"}, {.path = "s.b"}};
    bool is_taken = member_cases[_i].offset == SIZE_MAX;

    ck_assert_int_eq(scan(sl_span_str(member_cases[_i].text), picks, 2, member_cases[_i].strict),
                     is_taken ? SL_OK : SL_ERR_INPUT);
    if (!is_taken) {
        ck_assert_uint_eq(fault.offset, member_cases[_i].offset);
        ck_assert_str_eq(fault.reason, member_cases[_i].reason);
    }
}
END_TEST

START_TEST(test_long_unknown_member)
{
    static char text[40000];
    size_t len = 0;

    text[len++] = '{';
    text[len++] = '"';
    while (len < sizeof(text) - 8) { /* an escape makes yajl decode, and ask for memory */
        memcpy(text + len, "\\u00e9\xc3\xa9", 8);
        len += 8;
    }
    memcpy(text + len, "\":1}", 4);
    struct sl_span whole = sl_span_of(text, len + 4);
    ck_assert_int_eq(scan(whole, NULL, 0, NULL), SL_OK);
    ck_assert_int_eq(scan(whole, NULL, 0, strict_top), SL_ERR_INPUT);
    ck_assert_uint_eq(fault.offset, 1);
    ck_assert_uint_lt(strlen(fault.reason), 100);
    ck_assert_int_eq(scan(whole, NULL, 0, NULL), SL_OK);
}
END_TEST

/* ---- depth ----------------------------------------------------------------------------------- */

static enum sl_err scan_nested(size_t levels, const char *open, const char *close)
{
    size_t step = strlen(open);
    char *text = malloc(levels * (step + 1) + 1);
    size_t len = 0;

    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < levels; i++, len += step) {
        memcpy(text + len, open, step);
    }
    text[len++] = '1';
    for (size_t i = 0; i < levels; i++) {
        text[len++] = close[0];
    }
    enum sl_err err = scan(sl_span_of(text, len), NULL, 0, NULL);
    free(text);
    return err;
}

START_TEST(test_depth)
{
    ck_assert_int_eq(scan_nested(SL_JSON_DEPTH_MAX, "[", "]"), SL_OK);
    ck_assert_int_eq(scan_nested(SL_JSON_DEPTH_MAX, "{\"a\":", "}"), SL_OK);
    ck_assert_int_eq(scan_nested(SL_JSON_DEPTH_MAX + 1, "[", "]"), SL_ERR_INPUT);
    ck_assert_uint_eq(fault.offset, SL_JSON_DEPTH_MAX);
    ck_assert_str_eq(fault.reason, "nested deeper than 128 levels");
    ck_assert_int_eq(scan_nested(SL_JSON_DEPTH_MAX + 1, "{\"a\":", "}"), SL_ERR_INPUT);
    ck_assert_uint_eq(fault.offset, SL_JSON_DEPTH_MAX * 5);
    ck_assert_int_eq(scan_nested(1000000, "[", "]"), SL_ERR_INPUT);
    ck_assert_uint_eq(fault.offset, SL_JSON_DEPTH_MAX);
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------- */

/* A key that needs 32 MiB to be decoded, in a process that may have no more than it has. The
 * sanitizers need address space of their own. */
#ifndef HAS_ADDRESS_SANITIZER
START_TEST(test_out_of_memory)
{
    static const struct sl_span small = {"{\"a\":1}", 7};
    size_t bytes = (size_t)32 << 20;
    char *text = malloc(bytes);
    struct rlimit limit;

    ck_assert_ptr_nonnull(text);
    memset(text, 'x', bytes);
    memcpy(text, "{\"\\n", 4);
    memcpy(text + bytes - 4, "\":1}", 4);
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &limit), 0);
    rlim_t usual = limit.rlim_cur;
    limit.rlim_cur = 1; /* what is mapped stays; nothing large is added */
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    enum sl_err err = sl_json_scan(scanner, sl_span_of(text, bytes), NULL, 0, strict_top, &fault);
    limit.rlim_cur = usual;
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    ck_assert_int_eq(err, SL_ERR_NO_MEMORY);
    ck_assert_str_eq(fault.reason, "out of memory");
    free(text);
    ck_assert_int_eq(scan(small, NULL, 0, NULL), SL_OK);
}
END_TEST
#endif

/* ---- values ---------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    const char *value; /* NULL: SL_ERR_INPUT */
    size_t len;
} string_cases[] = {
    {"\"\"", "", 0},
    {"\"abc\"", "abc", 3},
    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8},
    {"\"\\u0041\\u00e9\\u20AC\"", "A\xc3\xa9\xe2\x82\xac", 6},
    {"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80", 4},
    {"\"\\uDBFF\\uDFFF\"", "\xf4\x8f\xbf\xbf", 4},
    {"\"a\\u0000b\"", "a\0b", 3},
    {"\"x\xf0\x9f\x98\x80y\"", "x\xf0\x9f\x98\x80y", 6},
    {"\"\\ud83d\"", NULL, 0},
    {"\"\\ude00\"", NULL, 0},
    {"\"\\ud83dx\"", NULL, 0},
    {"\"\\ud83d\\n\"", NULL, 0},
    {"\"\\ud83d\\ud83d\"", NULL, 0},
    {"\"\\ud83d\\u0041\"", NULL, 0},
    {"\"\\ud83d\\ue000\"", NULL, 0},
    {"12", NULL, 0},
    {"null", NULL, 0},
};

START_TEST(test_string)
{
    struct sl_json_pick pick = {.path = ""};
    size_t len = 99;
    char buf[32];
    const char *value = string_cases[_i].value;

    ck_assert_int_eq(scan(sl_span_str(string_cases[_i].text), &pick, 1, NULL), SL_OK);
    ck_assert_int_eq(sl_json_get_string(&pick, buf, sizeof(buf), &len),
                     value != NULL ? SL_OK : SL_ERR_INPUT);
    if (value == NULL) {
        return;
    }
    ck_assert_uint_eq(len, string_cases[_i].len);
    ck_assert_mem_eq(buf, value, len + 1);
    ck_assert_int_eq(sl_json_get_string(&pick, buf, len + 1, &len), SL_OK);
    ck_assert_int_eq(sl_json_get_string(&pick, buf, len, &len), SL_ERR_FULL);
}
END_TEST

static const struct {
    const char *text;
    int64_t min;
    int64_t max;
    int64_t value;
    enum sl_err err;
} int_cases[] = {
    {"5", 0, 9, 5, SL_OK},
    {"0", 0, 9, 0, SL_OK},
    {"-0", 0, 9, 0, SL_OK},
    {"9", 0, 9, 9, SL_OK},
    {"10", 0, 9, 0, SL_ERR_INPUT},
    {"-1", 0, 9, 0, SL_ERR_INPUT},
    {"-7", -7, 9, -7, SL_OK},
    {"5.0", 0, 9, 0, SL_ERR_INPUT},
    {"5e0", 0, 9, 0, SL_ERR_INPUT},
    {"\"5\"", 0, 9, 0, SL_ERR_INPUT},
    {"true", 0, 9, 0, SL_ERR_INPUT},
    {"9223372036854775807", INT64_MIN, INT64_MAX, INT64_MAX, SL_OK},
    {"9223372036854775808", INT64_MIN, INT64_MAX, 0, SL_ERR_INPUT},
    {"-9223372036854775808", INT64_MIN, INT64_MAX, INT64_MIN, SL_OK},
    {"-9223372036854775809", INT64_MIN, INT64_MAX, 0, SL_ERR_INPUT},
    {"18446744073709551621", 0, 9, 0, SL_ERR_INPUT},
};

START_TEST(test_int)
{
    struct sl_json_pick pick = {.path = ""};
    int64_t value = 4711;

    ck_assert_int_eq(scan(sl_span_str(int_cases[_i].text), &pick, 1, NULL), SL_OK);
    ck_assert_int_eq(sl_json_get_int(&pick, int_cases[_i].min, int_cases[_i].max, &value),
                     int_cases[_i].err);
    ck_assert_int_eq(value, int_cases[_i].err == SL_OK ? int_cases[_i].value : 4711);
}
END_TEST

START_TEST(test_double)
{
    struct sl_json_pick pick = {.path = ""};
    static char digits[1000];
    double value = 0;

    ck_assert_int_eq(scan(sl_span_str("-1.5e2"), &pick, 1, NULL), SL_OK);
    ck_assert_int_eq(sl_json_get_double(&pick, &value), SL_OK);
    ck_assert_double_eq(value, -150.0);
    ck_assert_int_eq(scan(sl_span_str("1e999"), &pick, 1, NULL), SL_OK);
    ck_assert_int_eq(sl_json_get_double(&pick, &value), SL_ERR_INPUT);
    ck_assert_int_eq(scan(sl_span_str("\"1\""), &pick, 1, NULL), SL_OK);
    ck_assert_int_eq(sl_json_get_double(&pick, &value), SL_ERR_INPUT);
    memset(digits, '9', sizeof(digits));
    ck_assert_int_eq(scan(sl_span_of(digits, sizeof(digits)), &pick, 1, NULL), SL_OK);
    ck_assert_int_eq(sl_json_get_double(&pick, &value), SL_ERR_INPUT);
    pick.kind = SL_JSON_ABSENT;
    ck_assert_int_eq(sl_json_get_double(&pick, &value), SL_ERR_INPUT);
    ck_assert_double_eq(value, -150.0);
}
END_TEST

/* ---- writing --------------------------------------------------------------------------------- */

static const struct {
    const char *value;
    size_t len;
    const char *text;
} written_cases[] = {
    {"", 0, "\"\""},
    {"abc", 3, "\"abc\""},
    {"\"\\/\b\f\n\r\t", 8, "\"\\\"\\\\/\\b\\f\\n\\r\\t\""},
    {"\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\x7f\""},
    {"\xc3\xa9\xf0\x9f\x98\x80", 6, "\"\xc3\xa9\xf0\x9f\x98\x80\""},
    {"a\xffz", 3, "\"a\xef\xbf\xbdz\""},
    {"\xe2\x82", 2, "\"\xef\xbf\xbd\""},
    {"\xe2\x82z", 3, "\"\xef\xbf\xbdz\""},
    {"\xc0\xaf", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\""},
};

START_TEST(test_put_string)
{
    struct sl_json_text text = {.buf = NULL};

    sl_json_put_string(&text, sl_span_of(written_cases[_i].value, written_cases[_i].len));
    ck_assert(!text.is_failed);
    ck_assert_uint_eq(text.len, strlen(written_cases[_i].text));
    ck_assert_mem_eq(text.buf, written_cases[_i].text, text.len);
    sl_json_text_fini(&text);
    ck_assert_ptr_null(text.buf);
}
END_TEST

static const struct {
    double value;
    const char *text;
} ms_cases[] = {
    {0, "0"},
    {-0.0, "0"},
    {3.1, "3.1"},
    {812.4, "812.4"},
    {0.001, "0.001"},
    {0.0004, "0"},
    {0.0006, "0.001"},
    {-0.0004, "0"},
    {-1.5, "-1.5"},
    {1234.5678, "1234.568"},
    {1e6, "1000000"},
    {100, "100"},
    {0.1 + 0.2, "0.3"},
    {9.9999, "10"},
    {1e300, "9000000000000000"},
    {(double)INFINITY, "0"},
    {(double)-INFINITY, "0"},
    {(double)NAN, "0"},
};

START_TEST(test_put_ms)
{
    struct sl_json_text text = {.buf = NULL};

    sl_json_put_ms(&text, ms_cases[_i].value);
    ck_assert_msg(sl_span_equal(sl_span_of(text.buf, text.len), sl_span_str(ms_cases[_i].text)),
                  "%.*s, not %s", (int)text.len, text.buf, ms_cases[_i].text);
    sl_json_text_fini(&text);
}
END_TEST

START_TEST(test_put_numbers)
{
    struct sl_json_text text = {.buf = NULL};

    sl_json_put_uint(&text, UINT64_MAX);
    sl_json_put_raw(&text, sl_span_str(","));
    sl_json_put_int(&text, INT64_MIN);
    sl_json_put_raw(&text, sl_span_str(",0"));
    ck_assert(sl_span_equal(sl_span_of(text.buf, text.len),
                            sl_span_str("18446744073709551615,-9223372036854775808,0")));
    sl_json_text_fini(&text);
}
END_TEST

static const char *const minified_cases[][2] = {
    {"{ \"a\" :\t[ 1 ,\r\n 2 ] }\n", "{\"a\":[1,2]}"},
    {" \" a \\\" b \\\\\" ", "\" a \\\" b \\\\\""},
    {"{\"a\":\"x y\"}", "{\"a\":\"x y\"}"},
    {"12", "12"},
    {"", ""},
    {"[\"\", \"\\\\\", \" \"]", "[\"\",\"\\\\\",\" \"]"},
};

START_TEST(test_put_minified)
{
    struct sl_json_text text = {.buf = NULL};

    sl_json_put_raw(&text, sl_span_str("="));
    sl_json_put_minified(&text, sl_span_str(minified_cases[_i][0]));
    ck_assert_uint_eq(text.len, strlen(minified_cases[_i][1]) + 1);
    ck_assert_mem_eq(text.buf + 1, minified_cases[_i][1], text.len - 1);
    sl_json_text_fini(&text);
}
END_TEST

/* Longer than any buffer that grows by chance. */
START_TEST(test_text_grows)
{
    struct sl_json_text text = {.buf = NULL};

    for (size_t i = 0; i < 100000; i++) {
        sl_json_put_raw(&text, sl_span_str("0123456789"));
    }
    ck_assert(!text.is_failed && text.len == 1000000 && text.size_bytes >= text.len);
    ck_assert_mem_eq(text.buf + 999990, "0123456789", 10);
    sl_json_text_fini(&text);
}
END_TEST

START_TEST(test_text_fails_for_good)
{
    struct sl_json_text text = {.buf = NULL};

    sl_json_put_raw(&text, sl_span_str("kept"));
    sl_json_put_raw(&text, sl_span_of("", SIZE_MAX - 16)); /* no machine has so much */
    ck_assert(text.is_failed && text.len == 4);
    sl_json_put_raw(&text, sl_span_str("more"));
    sl_json_put_string(&text, sl_span_str("more"));
    sl_json_put_minified(&text, sl_span_str("[1]"));
    ck_assert(text.is_failed && text.len == 4);
    sl_json_text_fini(&text);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("json");
    TCase *cases = tcase_create("json");

    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, open_scanner, close_scanner);
    tcase_add_loop_test(cases, test_pick, 0, SL_ARRAY_LEN(pick_cases));
    tcase_add_test(cases, test_many_picks);
    tcase_add_loop_test(cases, test_fault, 0, SL_ARRAY_LEN(fault_cases));
    tcase_add_test(cases, test_nul_bytes);
    tcase_add_test(cases, test_every_cut_is_refused);
    tcase_add_loop_test(cases, test_members, 0, SL_ARRAY_LEN(member_cases));
    tcase_add_test(cases, test_long_unknown_member);
    tcase_add_test(cases, test_depth);
#ifndef HAS_ADDRESS_SANITIZER
    tcase_add_test(cases, test_out_of_memory);
#endif
    tcase_add_loop_test(cases, test_string, 0, SL_ARRAY_LEN(string_cases));
    tcase_add_loop_test(cases, test_int, 0, SL_ARRAY_LEN(int_cases));
    tcase_add_test(cases, test_double);
    tcase_add_loop_test(cases, test_put_string, 0, SL_ARRAY_LEN(written_cases));
    tcase_add_loop_test(cases, test_put_ms, 0, SL_ARRAY_LEN(ms_cases));
    tcase_add_test(cases, test_put_numbers);
    tcase_add_loop_test(cases, test_put_minified, 0, SL_ARRAY_LEN(minified_cases));
    tcase_add_test(cases, test_text_grows);
    tcase_add_test(cases, test_text_fails_for_good);
    suite_add_tcase(suite, cases);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(make_suite());

    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
