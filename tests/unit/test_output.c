/*
 * Output lines, documents and the page: exact bytes for each kind of result, and files that cannot
 * be written.
 */
#include "tools/output.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/tmp_dir.h"
#include "tools/doc.h"
#include "tools/idset.h"
#include "tools/input.h"
#include "tools/jobfile.h"
#include "tools/line.h"
#include "tools/progress.h"
#include "tools/status_page.h"

#define SPAN(text) sl_span_str(text)

static const struct sl_result_msg completed = {
    .task = UINT64_C(0x300000005),
    .state = SL_TASK_COMPLETED,
    .http_status = 200,
    .attempts = 1,
    .queued_us = 3100,
    .call_us = 812400,
    .body_is_json = true,
};

static struct sl_result_msg make_completed(void)
{
    struct sl_result_msg result = completed;

    result.custom_id = SPAN("q-1");
    result.request_id = SPAN("req-9");
    result.provider = SPAN("openai");
    result.stage = SPAN("features");
    result.service_id = SPAN("billing");
    result.body = SPAN("{ \"a\" : [ 1.50, \"x y\\n\" ] }");
    return result;
}

static void check_line(const struct sl_result_msg *result, const char *expected)
{
    struct sl_json_text text = {0};

    sl_output_put_result(&text, result);
    ck_assert(!text.is_failed);
    ck_assert_msg(sl_span_equal(sl_span_of(text.buf, text.len), SPAN(expected)), "%.*s",
                  (int)text.len, text.buf);
    sl_json_text_fini(&text);
}

START_TEST(test_completed_line)
{
    struct sl_result_msg result = make_completed();

    check_line(&result,
               "{\"id\":\"task_0000000300000005\",\"custom_id\":\"q-1\",\"response\":{"
               "\"status_code\":200,\"request_id\":\"req-9\",\"body\":{\"a\":[1.50,\"x y\\n\"]}},"
               "\"error\":null,\"sluice\":{\"state\":\"completed\",\"provider\":\"openai\","
               "\"attempts\":1,\"cache\":\"miss\",\"queued_ms\":3.1,\"call_ms\":812.4,"
               "\"stage\":\"features\",\"service_id\":\"billing\"}}\n");
}
END_TEST

START_TEST(test_failed_line_without_an_answer)
{
    struct sl_result_msg result = {.task = 1,
                                   .state = SL_TASK_FAILED,
                                   .err = SL_ERR_CONNECT,
                                   .custom_id = SPAN("a\"\n\xc3\xa9"),
                                   .attempts = 6};

    check_line(
        &result,
        "{\"id\":\"task_0000000000000001\",\"custom_id\":\"a\\\"\\n\xc3\xa9\","
        "\"response\":null,\"error\":{\"code\":\"connect_failed\",\"message\":\"the provider "
        "cannot be reached\"},\"sluice\":{\"state\":\"failed\",\"provider\":null,"
        "\"attempts\":6,\"cache\":\"miss\",\"queued_ms\":0,\"call_ms\":0,\"stage\":null,"
        "\"service_id\":null}}\n");
}
END_TEST

START_TEST(test_failed_line_with_an_answer_that_is_no_json)
{
    struct sl_result_msg result = make_completed();

    result.state = SL_TASK_FAILED;
    result.err = SL_ERR_REJECTED;
    result.message = SPAN("HTTP 400: no");
    result.http_status = 400;
    result.request_id = SPAN("");
    result.body_is_json = false;
    result.body = SPAN("<html>\n\"no\"\xff</html>");
    check_line(&result,
               "{\"id\":\"task_0000000300000005\",\"custom_id\":\"q-1\",\"response\":{"
               "\"status_code\":400,\"request_id\":null,"
               "\"body\":\"<html>\\n\\\"no\\\"\xef\xbf\xbd</html>\"},"
               "\"error\":{\"code\":\"request_rejected\",\"message\":\"HTTP 400: no\"},"
               "\"sluice\":{\"state\":\"failed\",\"provider\":\"openai\",\"attempts\":1,"
               "\"cache\":\"miss\",\"queued_ms\":3.1,\"call_ms\":812.4,\"stage\":\"features\","
               "\"service_id\":\"billing\"}}\n");
}
END_TEST

static size_t file_bytes(const char *path)
{
    struct stat info;

    ck_assert_int_eq(stat(path, &info), 0);
    return (size_t)info.st_size;
}

START_TEST(test_file_is_written_anew)
{
    const char *path = tmp_dir_write("out", "something of an earlier run\n");
    struct sl_result_msg result = make_completed();
    struct sl_output output;

    ck_assert_int_eq(sl_output_check(path), SL_OK);
    ck_assert_uint_gt(file_bytes(path), 0); /* the check leaves it as it is */
    ck_assert_int_eq(sl_output_open(&output, path), SL_OK);
    ck_assert_uint_eq(file_bytes(path), 0);
    for (int i = 0; i < 3000; i++) {
        ck_assert_int_eq(sl_output_add(&output, &result), SL_OK);
    }
    ck_assert_uint_gt(file_bytes(path), 0); /* pieces are written on the way */
    ck_assert_uint_eq(output.lines, 3000);
    ck_assert_int_eq(sl_output_close(&output), SL_OK);
    ck_assert_uint_eq(file_bytes(path) % 3000, 0);
    ck_assert_int_eq(sl_output_close(&output), SL_OK); /* closed already */
}
END_TEST

START_TEST(test_files_that_cannot_be_written)
{
    struct sl_result_msg result = make_completed();
    struct sl_output output;

    ck_assert_int_eq(sl_output_check(tmp_dir_file("missing/out")), SL_ERR_OUTPUT);
    ck_assert_int_eq(errno, ENOENT);
    ck_assert_int_eq(sl_output_check(tmp_dir_path()), SL_ERR_OUTPUT);
    ck_assert_int_eq(sl_output_open(&output, tmp_dir_path()), SL_ERR_OUTPUT);
    ck_assert_int_eq(sl_output_open(&output, "/dev/full"), SL_OK);
    ck_assert_int_eq(sl_output_add(&output, &result), SL_OK);
    ck_assert_int_eq(sl_output_flush(&output), SL_ERR_OUTPUT);
    ck_assert_int_eq(errno, ENOSPC);
    ck_assert_int_eq(sl_output_add(&output, &result), SL_OK);
    ck_assert_int_eq(sl_output_close(&output), SL_ERR_OUTPUT);
}
END_TEST

START_TEST(test_same_file)
{
    const char *path = tmp_dir_write("in", "x");
    int fd = open(path, O_RDONLY);

    ck_assert(sl_output_is_same_file(path, fd));
    ck_assert(!sl_output_is_same_file(tmp_dir_write("other", "x"), fd));
    ck_assert(!sl_output_is_same_file(NULL, fd));
    ck_assert(!sl_output_is_same_file("/dev/null", fd));
    close(fd);
}
END_TEST

/* ---- the side file --------------------------------------------------------------------------- */

START_TEST(test_jobfile)
{
    const char *out = tmp_dir_write("out", "");
    const char *in = tmp_dir_write("in", "");
    const char *other = tmp_dir_write("other", "");
    struct sl_jobfile file;
    struct sl_jobfile stranger;
    char job[SL_NAME_BYTES_MAX + 1];

    ck_assert(sl_jobfile_init(&file, out, in));
    ck_assert(!sl_jobfile_load(&file, job));
    ck_assert_int_eq(sl_jobfile_store(&file, "job 7 \xc3\xa9"), SL_OK);
    ck_assert(sl_jobfile_load(&file, job));
    ck_assert_str_eq(job, "job 7 \xc3\xa9");
    ck_assert(sl_jobfile_init(&stranger, out, other));
    ck_assert(!sl_jobfile_load(&stranger, job)); /* of another input */
    ck_assert(sl_jobfile_init(&stranger, out, "-"));
    ck_assert(!sl_jobfile_load(&stranger, job));
    ck_assert(!sl_jobfile_init(&stranger, "/dev/null", in));
    sl_jobfile_remove(&file);
    ck_assert(!sl_jobfile_load(&file, job));
    ck_assert_int_eq(access(tmp_dir_file("out.sluice-job"), F_OK), -1);
}
END_TEST

START_TEST(test_jobfile_damaged)
{
    static const char *const texts[] = {
        "", "job", "job x", "job \ninput -\n", "input -\njob x\n", "job x\ninput"};
    struct sl_jobfile file;
    char job[SL_NAME_BYTES_MAX + 1];

    ck_assert(sl_jobfile_init(&file, tmp_dir_write("out", ""), NULL));
    for (size_t i = 0; i < SL_ARRAY_LEN(texts); i++) {
        (void)tmp_dir_write("out.sluice-job", texts[i]);
        ck_assert_msg(!sl_jobfile_load(&file, job), "%s", texts[i]);
    }
}
END_TEST

/* ---- documents ------------------------------------------------------------------------------- */

static struct sl_doc_value map_value(const char *key)
{
    return (struct sl_doc_value){.kind = SL_DOC_MAP, .key = SPAN(key)};
}

static struct sl_doc_value array_value(const char *key)
{
    return (struct sl_doc_value){.kind = SL_DOC_ARRAY, .key = SPAN(key)};
}

static struct sl_doc_value uint_value(const char *key, uint64_t value)
{
    return (struct sl_doc_value){.kind = SL_DOC_UINT, .key = SPAN(key), .uint_value = value};
}

static struct sl_doc_value str_value(const char *key, const char *value)
{
    return (struct sl_doc_value){.kind = SL_DOC_STR, .key = SPAN(key), .str_value = SPAN(value)};
}

#define END ((struct sl_doc_value){.kind = SL_DOC_END})

static void fill_doc(struct sl_doc *doc)
{
    const struct sl_doc_value values[] = {
        map_value(""),
        map_value("queue"),
        uint_value("ready", 7),
        {.kind = SL_DOC_DOUBLE, .key = SPAN("rate"), .double_value = 2.5},
        END,
        array_value("empty"),
        END,
        array_value("jobs"),
        map_value(""),
        str_value("name", "a\x1b[2J\""),
        uint_value("total", 4),
        uint_value("completed", 1),
        uint_value("failed", 1),
        END,
        map_value(""),
        str_value("name", "b"),
        END,
        END,
        {.kind = SL_DOC_NIL, .key = SPAN("nil")},
        {.kind = SL_DOC_BOOL, .key = SPAN("is"), .bool_value = true},
        {.kind = SL_DOC_INT, .key = SPAN("int"), .int_value = -3},
        END,
    };

    sl_doc_init(doc);
    for (size_t i = 0; i < SL_ARRAY_LEN(values); i++) {
        ck_assert(!sl_doc_is_whole(doc));
        sl_doc_add(doc, &values[i]);
    }
    ck_assert(sl_doc_is_whole(doc));
}

static void check_text(struct sl_json_text *text, const char *expected)
{
    ck_assert_msg(sl_span_equal(sl_span_of(text->buf, text->len), SPAN(expected)), "%.*s",
                  (int)text->len, text->buf);
    text->len = 0;
}

START_TEST(test_document)
{
    struct sl_doc doc;
    struct sl_json_text text = {0};

    fill_doc(&doc);
    ck_assert_uint_eq(sl_doc_uint(&doc, sl_doc_find(&doc, 0, "queue"), "ready"), 7);
    ck_assert_uint_eq(sl_doc_find(&doc, 0, "nothing"), SL_DOC_NONE);
    ck_assert_uint_eq(sl_doc_uint(&doc, SL_DOC_NONE, "ready"), 0);
    ck_assert_uint_eq(sl_doc_first(&doc, sl_doc_find(&doc, 0, "empty")), SL_DOC_NONE);
    sl_doc_put_json(&doc, &text);
    check_text(&text, "{\"queue\":{\"ready\":7,\"rate\":2.5},\"empty\":[],\"jobs\":[{\"name\":"
                      "\"a\\u001b[2J\\\"\",\"total\":4,\"completed\":1,\"failed\":1},"
                      "{\"name\":\"b\"}],\"nil\":null,\"is\":true,\"int\":-3}");
    sl_doc_put_lines(&doc, &text);
    check_text(&text,
               "queue.ready: 7\nqueue.rate: 2.5\njobs.name: a?[2J\"\njobs.total: 4\n"
               "jobs.completed: 1\njobs.failed: 1\njobs.name: b\nnil: -\nis: true\nint: -3\n");
    sl_status_put_page(&doc, true, &text);
    check_text(&text,
               "JOB                       progress\n"
               "a?[2J\"                    [##########..........]  50%  2 of 4 ended, 1 failed"
               "\nb                         [####################] 100%  0 of 0 ended\n");
    sl_status_put_page(&doc, false, &text);
    ck_assert(!text.is_failed);
    sl_json_text_fini(&text);
    sl_doc_fini(&doc);
}
END_TEST

START_TEST(test_documents_that_are_none)
{
    const struct sl_doc_value end = END;
    const struct sl_doc_value number = uint_value("", 1);
    const struct sl_doc_value map = map_value("");
    struct sl_doc doc;

    sl_doc_init(&doc);
    sl_doc_add(&doc, &end);
    ck_assert(!sl_doc_is_whole(&doc));
    sl_doc_clear(&doc);
    sl_doc_add(&doc, &number);
    ck_assert(!sl_doc_is_whole(&doc));
    sl_doc_clear(&doc);
    for (size_t i = 0; i <= SL_DOC_DEPTH_MAX; i++) {
        sl_doc_add(&doc, &map);
    }
    ck_assert(doc.is_failed);
    sl_doc_fini(&doc);
}
END_TEST

/* ---- input, ids, numbers --------------------------------------------------------------------- */

START_TEST(test_input_lines)
{
    static const char text[] = "one\n\n\r\nlast";
    static const char *const lines[] = {"one", "", "\r", "last"};
    struct sl_input input;
    struct sl_span line;
    bool has_line;

    ck_assert_int_eq(sl_input_open(&input, tmp_dir_write("in", text), -1), SL_OK);
    ck_assert_uint_eq(input.file_bytes, strlen(text));
    for (size_t i = 0; i < SL_ARRAY_LEN(lines); i++) {
        ck_assert_int_eq(sl_input_next(&input, &line, &has_line), SL_OK);
        ck_assert(has_line && sl_span_equal(line, SPAN(lines[i])));
        ck_assert_uint_eq(input.line_number, i + 1);
    }
    ck_assert_int_eq(sl_input_next(&input, &line, &has_line), SL_OK);
    ck_assert(!has_line);
    sl_input_close(&input);
}
END_TEST

/* Lines longer than the buffer, with short ones around them; and one too long. */
START_TEST(test_input_long_lines)
{
    static const size_t lens[] = {
        1, 1000 * 1000, 5 * SL_MIB, 0, SL_MIB - 1, SL_LINE_BYTES_MAX, 3, SL_LINE_BYTES_MAX + 2048};
    size_t total = 0;
    struct sl_input input;
    struct sl_span line;
    bool has_line;

    for (size_t i = 0; i < SL_ARRAY_LEN(lens); i++) {
        total += lens[i] + 1;
    }
    char *text = malloc(total);
    ck_assert_ptr_nonnull(text);
    memset(text, 'x', total);
    for (size_t i = 0, at = 0; i < SL_ARRAY_LEN(lens); i++) {
        at += lens[i] + 1;
        text[at - 1] = '\n';
    }
    ck_assert_int_eq(sl_input_open(&input, tmp_dir_write_bytes("in", text, total), -1), SL_OK);
    for (size_t i = 0; i + 1 < SL_ARRAY_LEN(lens); i++) {
        ck_assert_int_eq(sl_input_next(&input, &line, &has_line), SL_OK);
        ck_assert_uint_eq(line.len, lens[i]);
    }
    ck_assert_int_eq(sl_input_next(&input, &line, &has_line), SL_ERR_INPUT);
    ck_assert_int_eq(errno, 0);
    ck_assert_uint_eq(input.line_number, SL_ARRAY_LEN(lens));
    sl_input_close(&input);
    free(text);
}
END_TEST

START_TEST(test_ids)
{
    const uint64_t full = 1572864; /* as the help of sluice-submit says */
    struct sl_idset set;
    char id[32];

    ck_assert(sl_idset_init(&set));
    for (uint64_t i = 0; i < full; i++) {
        ck_assert(!sl_idset_is_full(&set));
        int len = snprintf(id, sizeof(id), "q-%llu", (unsigned long long)i);
        ck_assert(!sl_idset_add(&set, sl_span_of(id, (size_t)len)));
    }
    ck_assert(sl_idset_is_full(&set));
    ck_assert(sl_idset_add(&set, SPAN("q-0")));
    ck_assert(sl_idset_add(&set, SPAN("q-1572863")));
    ck_assert(!sl_idset_add(&set, SPAN("another")));
    ck_assert(!sl_idset_add(&set, SPAN("another"))); /* not remembered any more */
    sl_idset_fini(&set);
}
END_TEST

START_TEST(test_counts)
{
    static const struct {
        uint64_t count;
        const char *text;
    } cases[] = {{0, "0"},
                 {9999, "9999"},
                 {10000, "10.0k"},
                 {123456, "123k"},
                 {999499, "999k"},
                 {999949, "1.0M"},
                 {1234567, "1.2M"},
                 {99949999, "99.9M"},
                 {100000000, "100M"},
                 {UINT64_C(5000000000), "5.0G"}};
    char text[16];
    char bar[11];

    for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
        sl_progress_format_count(cases[i].count, text);
        ck_assert_str_eq(text, cases[i].text);
    }
    sl_progress_format_bar(0.55, 10, bar);
    ck_assert_str_eq(bar, "#####.....");
    sl_progress_format_bar(7.0, 10, bar);
    ck_assert_str_eq(bar, "##########");
    sl_progress_format_bar(-1.0, 10, bar);
    ck_assert_str_eq(bar, "..........");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("output");
    TCase *tcase = tcase_create("output");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, tmp_dir_make, tmp_dir_remove);
    tcase_add_test(tcase, test_completed_line);
    tcase_add_test(tcase, test_failed_line_without_an_answer);
    tcase_add_test(tcase, test_failed_line_with_an_answer_that_is_no_json);
    tcase_add_test(tcase, test_file_is_written_anew);
    tcase_add_test(tcase, test_files_that_cannot_be_written);
    tcase_add_test(tcase, test_same_file);
    tcase_add_test(tcase, test_jobfile);
    tcase_add_test(tcase, test_jobfile_damaged);
    tcase_add_test(tcase, test_document);
    tcase_add_test(tcase, test_documents_that_are_none);
    tcase_add_test(tcase, test_input_lines);
    tcase_add_test(tcase, test_input_long_lines);
    tcase_add_test(tcase, test_ids);
    tcase_add_test(tcase, test_counts);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
