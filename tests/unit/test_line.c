/*
 * Input lines: what is taken and what it becomes, what is refused and at which byte, and the lines
 * of published samples and naughty strings where they are there.
 */
#include "tools/line.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"
#include "tests/support/data.h"

#define SPAN(text) sl_span_str(text)
#define CHAT "\"method\":\"POST\",\"url\":\"/v1/chat/completions\""

static const struct sl_line_defaults no_defaults = {.priority = SL_PRIORITY_DEFAULT};
static struct sl_line_reader *reader;
static struct sl_task_msg task;
static struct sl_line_fault fault;
static bool is_empty;

static void open_reader(void)
{
    reader = sl_line_reader_open(&no_defaults);
    ck_assert_ptr_nonnull(reader);
}

static void close_reader(void)
{
    sl_line_reader_close(&reader);
    ck_assert_ptr_null(reader);
}

static enum sl_err read_line(struct sl_span line, uint64_t number)
{
    fault.reason[0] = '\0';
    fault.column = 0;
    return sl_line_read(reader, line, number, &task, &is_empty, &fault);
}

static void check_span(struct sl_span got, const char *expected, const char *line)
{
    ck_assert_msg(sl_span_equal(got, SPAN(expected)), "\"%.*s\" where \"%s\" was expected in %s",
                  (int)got.len, got.ptr, expected, line);
}

/* ---- what is taken --------------------------------------------------------------------------- */

static const struct {
    const char *line;
    const char *id;
    const char *model;
    const char *body;
} good[] = {
    {"{\"custom_id\":\"q\"," CHAT ",\"body\":{\"model\":\"m\",\"messages\":[]}}", "q", "m",
     "{\"model\":\"m\",\"messages\":[]}"},
    {"  {\"body\" : { \"x\":1.50 , \"model\":\"m\" } ," CHAT " } \r", "7", "m",
     "{ \"x\":1.50 , \"model\":\"m\" }"},
    {"{\"url\":\"/v1/chat/completions\",\"body\":{\"model\":\"\\u00e9\\n\"}}", "7", "\xc3\xa9\n",
     "{\"model\":\"\\u00e9\\n\"}"},
    {"{\"body\":{\"sluice\":1,\"prompt\":[{}],\"model\":\"m\"}," CHAT "}", "7", "m",
     "{\"sluice\":1,\"prompt\":[{}],\"model\":\"m\"}"},
    {"{\"prompt\":\"Hi\",\"model\":\"m\"}", "7", "m",
     "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}"},
    {"{\"id\":\"a\\\"b\",\"prompt\":\"\\u0041\\ud83d\\ude00\",\"system\":\"S\",\"model\":"
     "\"a\\\"\"}",
     "a\"b", "a\"",
     "{\"model\":\"a\\\"\",\"messages\":[{\"role\":\"system\",\"content\":\"S\"},"
     "{\"role\":\"user\",\"content\":\"\\u0041\\ud83d\\ude00\"}]}"},
    {"{\"custom_id\":\"c\",\"prompt\":\"\",\"model\":\"m\"}", "c", "m",
     "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}"},
    {"{\"prompt\":\"Hi\",\"sluice\":{\"provider\":\"p\"}}", "7", "",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}"},
};

START_TEST(test_good_lines)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(good); i++) {
        const char *line = good[i].line;
        enum sl_err err = read_line(SPAN(line), 7);
        ck_assert_msg(err == SL_OK, "%s: column %zu: %s", line, fault.column, fault.reason);
        ck_assert(!is_empty);
        check_span(task.custom_id, good[i].id, line);
        check_span(task.model, good[i].model, line);
        check_span(task.body, good[i].body, line);
        ck_assert_int_eq(task.endpoint, SL_ENDPOINT_CHAT);
        ck_assert_uint_eq(task.priority, SL_PRIORITY_DEFAULT);
    }
}
END_TEST

START_TEST(test_empty_lines)
{
    static const char *const lines[] = {"", "\r", "  \t \r"};

    for (size_t i = 0; i < SL_ARRAY_LEN(lines); i++) {
        ck_assert_int_eq(read_line(SPAN(lines[i]), 2), SL_OK);
        ck_assert(is_empty);
    }
    ck_assert_int_eq(read_line(SPAN("\xEF\xBB\xBF"), 1), SL_OK);
    ck_assert(is_empty);
}
END_TEST

START_TEST(test_byte_order_mark)
{
    const char *line = "\xEF\xBB\xBF{\"prompt\":\"x\",\"model\":\"m\"}";

    ck_assert_int_eq(read_line(SPAN(line), 1), SL_OK);
    ck_assert_int_eq(read_line(SPAN(line), 2), SL_ERR_INPUT);
    ck_assert_uint_eq(fault.column, 1);
    ck_assert_int_eq(read_line(SPAN("\xEF\xBB\xBF{\"x\":1}"), 1), SL_ERR_INPUT);
    ck_assert_uint_eq(fault.column, 5); /* bytes of the file, the mark included */
}
END_TEST

START_TEST(test_every_option)
{
    const char *line =
        "{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"stage\":\"features\","
        "\"service_id\":\"billing\",\"priority\":9,\"provider\":\"p\",\"timeout_s\":0.0015,"
        "\"not_before\":\"2026-01-01T00:00:00Z\",\"deadline\":\"2026-01-01T00:00:00.001Z\","
        "\"max_attempts\":100,\"cache\":\"refresh\",\"on_unknown\":\"fail\"}}";

    ck_assert_msg(read_line(SPAN(line), 1) == SL_OK, "%s", fault.reason);
    check_span(task.stage, "features", line);
    check_span(task.service_id, "billing", line);
    check_span(task.provider, "p", line);
    ck_assert_uint_eq(task.priority, 9);
    ck_assert_uint_eq(task.timeout_ms, 2);
    ck_assert_uint_eq(task.max_attempts, 100);
    ck_assert_int_eq(task.not_before_ms, INT64_C(1767225600000));
    ck_assert_int_eq(task.deadline_ms, INT64_C(1767225600001));
    ck_assert_uint_eq(task.flags, SL_TASK_FLAG_CACHE_REFRESH | SL_TASK_FLAG_FAIL_ON_UNKNOWN);
    ck_assert_int_eq(read_line(SPAN("{\"prompt\":\"x\",\"model\":\"m\"}"), 1), SL_OK);
    ck_assert_uint_eq(task.flags, 0); /* nothing is left of the line before */
    ck_assert_uint_eq(task.max_attempts, 0);
    ck_assert_uint_eq(task.stage.len, 0);
}
END_TEST

START_TEST(test_endpoints)
{
    static const struct {
        const char *line;
        enum sl_endpoint endpoint;
    } cases[] = {
        {"{\"url\":\"/v1/responses\",\"body\":{\"model\":\"m\"}}", SL_ENDPOINT_RESPONSES},
        {"{\"url\":\"/v1/embeddings\",\"body\":{\"model\":\"m\"}}", SL_ENDPOINT_EMBEDDINGS},
        {"{\"url\":\"\\/v1\\/embeddings\",\"body\":{\"model\":\"m\"}}", SL_ENDPOINT_EMBEDDINGS},
    };

    for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
        ck_assert_msg(read_line(SPAN(cases[i].line), 1) == SL_OK, "%s", fault.reason);
        ck_assert_int_eq(task.endpoint, cases[i].endpoint);
    }
}
END_TEST

START_TEST(test_defaults_of_the_command_line)
{
    const struct sl_line_defaults defaults = {.model = SPAN("d\"m"),
                                              .provider = SPAN("dp"),
                                              .stage = SPAN("ds"),
                                              .service_id = SPAN("dd"),
                                              .priority = 2};
    static const struct {
        const char *line;
        const char *model;
        const char *body;
    } cases[] = {
        {"{" CHAT ",\"body\":{}}", "d\"m", "{\"model\":\"d\\\"m\"}"},
        {"{" CHAT ",\"body\":{ \t}}", "d\"m", "{\"model\":\"d\\\"m\" \t}"},
        {"{" CHAT ",\"body\":{ \"a\":1}}", "d\"m", "{\"model\":\"d\\\"m\", \"a\":1}"},
        {"{" CHAT ",\"body\":{\"model\":\"own\"}}", "own", "{\"model\":\"own\"}"},
        {"{\"prompt\":\"x\"}", "d\"m",
         "{\"model\":\"d\\\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"},
        {"{\"prompt\":\"x\",\"model\":\"own\"}", "own",
         "{\"model\":\"own\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"},
    };

    close_reader();
    reader = sl_line_reader_open(&defaults);
    for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
        ck_assert_msg(read_line(SPAN(cases[i].line), 1) == SL_OK, "%s", fault.reason);
        check_span(task.model, cases[i].model, cases[i].line);
        check_span(task.body, cases[i].body, cases[i].line);
        check_span(task.provider, "dp", cases[i].line);
        check_span(task.stage, "ds", cases[i].line);
        check_span(task.service_id, "dd", cases[i].line);
        ck_assert_uint_eq(task.priority, 2);
    }
    const char *own = "{\"prompt\":\"x\",\"sluice\":{\"stage\":\"\",\"priority\":0,"
                      "\"provider\":\"p\"}}";
    ck_assert_int_eq(read_line(SPAN(own), 1), SL_OK);
    check_span(task.provider, "p", own);
    ck_assert_uint_eq(task.stage.len, 0);
    ck_assert_uint_eq(task.priority, 0);
}
END_TEST

/* ---- what is refused ------------------------------------------------------------------------- */

/* The column is where '@' stands; it is not part of the line. */
static const struct {
    const char *line;
    const char *reason; /* somewhere in the reason */
} bad[] = {
    {"@hello", ""},
    {"@[1]", "object"},
    {"@{}", "body"},
    {"{\"id\":\"a\",\"prompt\":@x}", ""},
    {"{} @{}", ""},
    {"{@\"custom\":1}", "custom"},
    {"{\"prompt\":\"x\",@\"temperature\":1}", "temperature"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{@\"priorty\":5}}", "priorty"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":@\"x\"}", "sluice"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":@null}", "sluice"},
    {"{\"custom_id\":@7,\"prompt\":\"x\",\"model\":\"m\"}", "custom_id must be a string"},
    {"{\"id\":@\"\",\"prompt\":\"x\",\"model\":\"m\"}", "id is empty"},
    {"{\"id\":@\"a\\u0000b\",\"prompt\":\"x\",\"model\":\"m\"}", "id holds"},
    {"{\"id\":@\"\\ud800\",\"prompt\":\"x\",\"model\":\"m\"}", "id holds"},
    {"{\"custom_id\":\"a\",\"id\":@\"a\",\"prompt\":\"x\",\"model\":\"m\"}", "give one"},
    {"@{\"prompt\":\"x\"}", "--model"},
    {"{\"prompt\":@5,\"model\":\"m\"}", "prompt must be a string"},
    {"{\"prompt\":\"x\",\"system\":@null,\"model\":\"m\"}", "system must be a string"},
    {"{\"prompt\":\"x\",\"model\":@\"\"}", "model is empty"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"url\":@\"/v1/embeddings\"}", "url does not go"},
    {"{" CHAT ",\"body\":@\"x\"}", "body must be an object"},
    {"{" CHAT ",\"body\":@{}}", "--model"},
    {"{" CHAT ",\"body\":{\"model\":@5}}", "body.model must be a string"},
    {"{" CHAT ",\"body\":{\"model\":\"m\"},\"model\":@\"m\"}", "model does not go with body"},
    {"{" CHAT ",\"body\":{\"model\":\"m\"},\"prompt\":@\"x\"}", "prompt does not go with body"},
    {"@{\"body\":{\"model\":\"m\"}}", "url is missing"},
    {"{\"method\":@\"GET\",\"url\":\"/v1/responses\",\"body\":{\"model\":\"m\"}}", "POST"},
    {"{\"url\":@\"/v1/nothing\",\"body\":{\"model\":\"m\"}}", "/v1/chat/completions"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"priority\":@10}}", "from 0 to 9"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"priority\":@5.0}}", "from 0 to 9"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"priority\":@\"5\"}}", "from 0 to 9"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"max_attempts\":@0}}", "from 1 to 100"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"timeout_s\":@0}}", "timeout_s"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"timeout_s\":@86401}}", "timeout_s"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"deadline\":@\"tomorrow\"}}", "deadline"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"not_before\":@5}}", "not_before"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"not_before\":\"2026-01-01T00:00:00Z\","
     "\"deadline\":@\"2026-01-01T00:00:00Z\"}}",
     "not later"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"cache\":@\"maybe\"}}", "\"refresh\""},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"cache\":@true}}", "\"refresh\""},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"on_unknown\":@\"\"}}", "\"retry\""},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"provider\":@\"\"}}", "provider is empty"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"after\":@[\"a\"]}}", "not supported"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"session\":@\"s\"}", "not supported"},
    {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"on_parent_failure\":@\"run\"}}",
     "not supported"},
    {"{\"prompt\":\"x\",@\"prompt\":\"y\",\"model\":\"m\"}", "duplicate"},
    {"{" CHAT ",\"body\":{\"model\":\"m\",@\"model\":\"n\"}}", "duplicate"},
    {"{\"prompt\":\"@\xff\",\"model\":\"m\"}", "UTF-8"},
    {"{\"prompt\":\"a@\xed\xa0\x80\",\"model\":\"m\"}", "UTF-8"},
    {"{\"prompt\":\"x\",\"model\":\"m\"@", ""},
};

START_TEST(test_bad_lines)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
        char line[512];
        const char *mark = strchr(bad[i].line, '@');
        ck_assert_ptr_nonnull(mark);
        size_t before = (size_t)(mark - bad[i].line);
        snprintf(line, sizeof(line), "%.*s%s", (int)before, bad[i].line, mark + 1);
        ck_assert_msg(read_line(SPAN(line), 3) == SL_ERR_INPUT, "taken: %s", line);
        ck_assert_msg(fault.column == before + 1, "column %zu of %s: %s", fault.column, bad[i].line,
                      fault.reason);
        ck_assert_msg(strstr(fault.reason, bad[i].reason) != NULL, "%s: %s", bad[i].line,
                      fault.reason);
        ck_assert_msg(fault.reason[0] != '\0', "%s: no reason", bad[i].line);
    }
}
END_TEST

/* A line around a text of `len` bytes; free it. */
static struct sl_span make_line(const char *before, char fill, size_t len, const char *after)
{
    size_t before_len = strlen(before);
    size_t after_len = strlen(after);
    char *line = malloc(before_len + len + after_len);

    ck_assert_ptr_nonnull(line);
    memcpy(line, before, before_len);
    memset(line + before_len, fill, len);
    memcpy(line + before_len + len, after, after_len);
    return sl_span_of(line, before_len + len + after_len);
}

START_TEST(test_longest_texts)
{
    static const struct {
        const char *before;
        size_t len_max;
        const char *after;
    } cases[] = {
        {"{\"id\":\"", SL_ID_BYTES_MAX, "\",\"prompt\":\"x\",\"model\":\"m\"}"},
        {"{\"prompt\":\"x\",\"model\":\"", SL_NAME_BYTES_MAX, "\"}"},
        {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"stage\":\"", SL_NAME_BYTES_MAX, "\"}}"},
        {"{\"prompt\":\"x\",\"sluice\":{\"provider\":\"", SL_NAME_BYTES_MAX, "\"}}"},
        {"{\"prompt\":\"x\",\"model\":\"m\",\"sluice\":{\"service_id\":\"", SL_NAME_BYTES_MAX,
         "\"}}"},
    };

    for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
        for (size_t more = 0; more < 2; more++) {
            struct sl_span line =
                make_line(cases[i].before, 'x', cases[i].len_max + more, cases[i].after);
            enum sl_err err = read_line(line, 1);
            ck_assert_msg(err == (more == 0 ? SL_OK : SL_ERR_INPUT), "case %zu + %zu: %s", i, more,
                          fault.reason);
            free((void *)(uintptr_t)line.ptr);
        }
    }
}
END_TEST

START_TEST(test_longest_body)
{
    const char *before = "{" CHAT ",\"body\":{\"model\":\"m\",\"x\":\"";
    const size_t around = strlen("{\"model\":\"m\",\"x\":\"\"}");

    for (size_t more = 0; more < 2; more++) {
        struct sl_span line = make_line(before, 'x', SL_BODY_BYTES_MAX - around + more, "\"}}");
        enum sl_err err = read_line(line, 1);
        ck_assert_int_eq(err, more == 0 ? SL_OK : SL_ERR_BODY_TOO_LARGE);
        if (more == 0) {
            ck_assert_uint_eq(task.body.len, SL_BODY_BYTES_MAX);
        } else {
            ck_assert_uint_eq(fault.column, strlen("{" CHAT ",\"body\":") + 1);
        }
        free((void *)(uintptr_t)line.ptr);
    }
}
END_TEST

START_TEST(test_longest_line)
{
    struct sl_span line = make_line("{", ' ', SL_LINE_BYTES_MAX, "}");

    ck_assert_int_eq(read_line(line, 1), SL_ERR_INPUT);
    ck_assert_ptr_nonnull(strstr(fault.reason, "longer"));
    free((void *)(uintptr_t)line.ptr);
}
END_TEST

/* ---- times ----------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    int64_t wall_ms; /* -1: no time */
} times[] = {
    {"2026-01-01T00:00:00Z", INT64_C(1767225600000)},
    {"2026-01-01T00:00:00.5Z", INT64_C(1767225600500)},
    {"2026-01-01t00:00:00.1239z", INT64_C(1767225600123)},
    {"2026-01-01 02:00:00+02:00", INT64_C(1767225600000)},
    {"2025-12-31T14:30:00-09:30", INT64_C(1767225600000)},
    {"2024-02-29T00:00:00Z", INT64_C(1709164800000)},
    {"2000-02-29T23:59:60Z", INT64_C(951868800000)},
    {"1970-01-01T00:00:00.001Z", 1},
    {"9999-12-31T23:59:59Z", INT64_C(253402300799000)},
    {"1970-01-01T00:00:00Z", -1},
    {"1970-01-01T00:00:00+01:00", -1},
    {"2023-02-29T00:00:00Z", -1},
    {"2100-02-29T00:00:00Z", -1},
    {"2026-13-01T00:00:00Z", -1},
    {"2026-00-01T00:00:00Z", -1},
    {"2026-01-32T00:00:00Z", -1},
    {"2026-01-01T24:00:00Z", -1},
    {"2026-01-01T00:60:00Z", -1},
    {"2026-01-01T00:00:61Z", -1},
    {"2026-01-01T00:00:00", -1},
    {"2026-01-01T00:00:00.Z", -1},
    {"2026-01-01T00:00:00+0100", -1},
    {"2026-01-01T00:00:00Z ", -1},
    {" 2026-01-01T00:00:00Z", -1},
    {"2026-1-1T00:00:00Z", -1},
    {"2026-01-01", -1},
    {"+026-01-01T00:00:00Z", -1},
    {"", -1},
};

START_TEST(test_times)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(times); i++) {
        int64_t wall_ms = -1;
        bool is_time = sl_line_parse_time(times[i].text, &wall_ms);
        ck_assert_msg(is_time == (times[i].wall_ms >= 0) && wall_ms == times[i].wall_ms, "%s: %lld",
                      times[i].text, (long long)wall_ms);
    }
}
END_TEST

/* ---- published samples ----------------------------------------------------------------------- */

static size_t read_sample(const char *name)
{
    const char *path = data_path(name);
    FILE *file = path != NULL ? fopen(path, "r") : NULL;
    char *line = NULL;
    size_t size = 0;
    size_t count = 0;
    ssize_t len;

    while (file != NULL && (len = getline(&line, &size, file)) > 0) {
        size_t bytes = (size_t)len - (line[len - 1] == '\n' ? 1 : 0);
        enum sl_err err = read_line(sl_span_of(line, bytes), count + 1);
        ck_assert_msg(err == SL_OK, "%s:%zu:%zu: %s", name, count + 1, fault.column, fault.reason);
        ck_assert(is_empty || task.model.len > 0);
        count++;
    }
    free(line);
    if (file != NULL) {
        ck_assert_uint_gt(count, 1);
        (void)fclose(file);
    }
    return count;
}

START_TEST(test_batch_samples)
{
    (void)read_sample("batch-samples/vllm/openai_example_batch.jsonl");
    (void)read_sample("batch-samples/aibrix/sample_job_input.jsonl");
}
END_TEST

/* Each naughty string as a prompt and as an id: what is taken comes out as it went in. */
static void check_naughty(struct sl_json_text *text, struct sl_span naughty)
{
    struct sl_json_pick pick = {.kind = SL_JSON_STRING};
    char decoded[8192];
    size_t len;

    text->len = 0;
    sl_json_put_raw(text, SPAN("{\"model\":\"m\",\"prompt\":"));
    sl_json_put_string(text, naughty);
    sl_json_put_raw(text, SPAN(",\"id\":"));
    sl_json_put_string(text, naughty);
    sl_json_put_raw(text, SPAN("}"));
    enum sl_err err = read_line(sl_span_of(text->buf, text->len), 1);
    if (naughty.len == 0 || naughty.len > SL_ID_BYTES_MAX) {
        ck_assert_int_eq(err, SL_ERR_INPUT);
        return;
    }
    ck_assert_msg(err == SL_OK, "%.*s: %s", (int)naughty.len, naughty.ptr, fault.reason);
    ck_assert(sl_span_equal(task.custom_id, naughty));
    const char *member =
        memmem(task.body.ptr, task.body.len, "\"content\":", strlen("\"content\":"));
    ck_assert_ptr_nonnull(member);
    const char *content = member + strlen("\"content\":");
    pick.raw = sl_span_of(content, task.body.len - (size_t)(content - task.body.ptr) - 3);
    ck_assert_int_eq(sl_json_get_string(&pick, decoded, sizeof(decoded), &len), SL_OK);
    ck_assert(sl_span_equal(sl_span_of(decoded, len), naughty));
}

START_TEST(test_naughty_strings)
{
    const char *path = data_path("naughty-strings/blns.txt");
    FILE *file = path != NULL ? fopen(path, "r") : NULL;
    struct sl_json_text text = {0};
    char *line = NULL;
    size_t size = 0;
    size_t count = 0;
    ssize_t len;

    while (file != NULL && (len = getline(&line, &size, file)) > 0) {
        size_t bytes = (size_t)len - (line[len - 1] == '\n' ? 1 : 0);
        check_naughty(&text, sl_span_of(line, bytes));
        count++;
    }
    if (file != NULL) {
        ck_assert_uint_gt(count, 500);
        (void)fclose(file);
    }
    free(line);
    sl_json_text_fini(&text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("line");
    TCase *tcase = tcase_create("line");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, open_reader, close_reader);
    tcase_add_test(tcase, test_good_lines);
    tcase_add_test(tcase, test_empty_lines);
    tcase_add_test(tcase, test_byte_order_mark);
    tcase_add_test(tcase, test_every_option);
    tcase_add_test(tcase, test_endpoints);
    tcase_add_test(tcase, test_defaults_of_the_command_line);
    tcase_add_test(tcase, test_bad_lines);
    tcase_add_test(tcase, test_longest_texts);
    tcase_add_test(tcase, test_longest_body);
    tcase_add_test(tcase, test_longest_line);
    tcase_add_test(tcase, test_times);
    tcase_add_test(tcase, test_batch_samples);
    tcase_add_test(tcase, test_naughty_strings);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
