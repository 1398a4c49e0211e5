/*
 * Conformance of the JSON door to published data: JSONTestSuite (every y_ text accepted, every n_
 * text refused), the UTF-8 cases of utf8tests, the big list of naughty strings there and back.
 *
 * The data is no part of the tree: SLUICE_TEST_DATA names its folder. Without it the tests say
 * "skipped" and pass.
 */
#include "common/json.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define FILE_BYTES_MAX (4 * 1024 * 1024)
#define LINE_BYTES_MAX 512

static struct sl_json_scanner *scanner;
static struct sl_json_fault fault;
static char *file_bytes;

static void open_scanner(void)
{
    scanner = sl_json_scanner_open();
    file_bytes = malloc(FILE_BYTES_MAX);
    ck_assert(scanner != NULL && file_bytes != NULL);
}

static void close_scanner(void)
{
    sl_json_scanner_close(&scanner);
    free(file_bytes);
}

/* The path of a piece of the data; false, after saying so, where it is not there. */
static bool find_data(const char *name, char *path, size_t size)
{
    const char *folder = getenv("SLUICE_TEST_DATA");
    FILE *probe;

    snprintf(path, size, "%s/%s", folder != NULL ? folder : SLUICE_SOURCE_DIR "/../shared/data",
             name);
    probe = fopen(path, "re");
    if (probe == NULL) {
        printf("skipped: %s is not there (SLUICE_TEST_DATA names the folder of the data)\n", path);
        return false;
    }
    fclose(probe);
    return true;
}

static struct sl_span read_file(const char *path)
{
    FILE *file = fopen(path, "re");

    ck_assert_msg(file != NULL, "%s", path);
    size_t len = fread(file_bytes, 1, FILE_BYTES_MAX, file);
    ck_assert(len < FILE_BYTES_MAX && !ferror(file));
    fclose(file);
    return sl_span_of(file_bytes, len);
}

/* ---- JSONTestSuite --------------------------------------------------------------------------- */

/* No exceptions on either side. The i_ texts are left to each parser: of them this test asks only
 * that they do no harm. */
static bool is_verdict_right(const char *name, enum sl_err err)
{
    if (name[0] == 'y') {
        return err == SL_OK;
    }
    return name[0] != 'n' || err == SL_ERR_INPUT;
}

START_TEST(test_json_test_suite)
{
    char folder[512];
    char path[1024];
    const struct dirent *entry;
    size_t files = 0;

    if (!find_data("json-test-suite/test_parsing", folder, sizeof(folder))) {
        return;
    }
    DIR *dir = opendir(folder);
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir)) != NULL) {
        if (strstr(entry->d_name, ".json") == NULL) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        struct sl_span text = read_file(path);
        enum sl_err err = sl_json_scan(scanner, text, NULL, 0, NULL, &fault);
        ck_assert_msg(is_verdict_right(entry->d_name, err), "%s: %s", entry->d_name,
                      err == SL_OK ? "accepted" : fault.reason);
        ck_assert(err == SL_OK || fault.offset <= text.len);
        files++;
    }
    closedir(dir);
    ck_assert_uint_gt(files, 300);
}
END_TEST

/* ---- utf8tests ------------------------------------------------------------------------------- */

static size_t read_hex(const char *hex, char *out)
{
    size_t len = 0;
    unsigned value;
    int used;

    while (sscanf(hex, " %2x%n", &value, &used) == 1) {
        out[len++] = (char)value;
        hex += used;
    }
    return len;
}

/* Accepted as the content of a string exactly when it is valid, and written as the case says. */
static void check_utf8(const char *line, struct sl_span bytes, bool is_valid,
                       struct sl_span replaced)
{
    struct sl_json_text text = {.buf = NULL};

    sl_json_put_raw(&text, sl_span_str("\""));
    sl_json_put_raw(&text, bytes);
    sl_json_put_raw(&text, sl_span_str("\""));
    enum sl_err err = sl_json_scan(scanner, sl_span_of(text.buf, text.len), NULL, 0, NULL, &fault);
    ck_assert_msg((err == SL_OK) == is_valid, "%s", line);
    text.len = 0;
    sl_json_put_string(&text, bytes);
    ck_assert_msg(text.len == replaced.len + 2 &&
                      memcmp(text.buf + 1, replaced.ptr, replaced.len) == 0,
                  "%s wrote %.*s", line, (int)text.len, text.buf);
    sl_json_text_fini(&text);
}

/* NUM:valid hex:BYTES or NUM:invalid hex:BYTES:SKIPPED:REPLACED; false for any other line. */
static bool check_utf8_line(const char *line)
{
    char bytes[LINE_BYTES_MAX];
    char replaced[LINE_BYTES_MAX];
    const char *valid = strstr(line, ":valid hex:");
    const char *invalid = strstr(line, ":invalid hex:");

    if (line[0] == '#' || (valid == NULL && invalid == NULL)) {
        return false;
    }
    const char *hex = valid != NULL ? valid + strlen(":valid hex:") : invalid + 13;
    size_t len = read_hex(hex, bytes);
    if (memchr(bytes, '\0', len) != NULL) { /* valid UTF-8, but in JSON it must be escaped */
        return false;
    }
    if (valid != NULL) {
        check_utf8(line, sl_span_of(bytes, len), true, sl_span_of(bytes, len));
        return true;
    }
    const char *last = strrchr(line, ':');
    size_t replaced_len = read_hex(last + 1, replaced);
    check_utf8(line, sl_span_of(bytes, len), false, sl_span_of(replaced, replaced_len));
    return true;
}

START_TEST(test_utf8tests)
{
    char path[512];
    char line[LINE_BYTES_MAX];
    size_t cases = 0;

    if (!find_data("utf8tests/utf8tests.txt", path, sizeof(path))) {
        return;
    }
    FILE *file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        cases += check_utf8_line(line);
    }
    fclose(file);
    ck_assert_uint_gt(cases, 150);
}
END_TEST

/* ---- naughty strings ------------------------------------------------------------------------- */

/* Written as a string, read back, the same; and valid JSON on the way. */
static void check_round_trip(struct sl_span value)
{
    struct sl_json_text text = {.buf = NULL};
    struct sl_json_pick pick = {.path = ""};
    char *back = malloc(value.len + 1);
    size_t len = 0;

    ck_assert_ptr_nonnull(back);
    sl_json_put_string(&text, value);
    struct sl_span written = sl_span_of(text.buf, text.len);
    ck_assert_msg(sl_json_scan(scanner, written, &pick, 1, NULL, &fault) == SL_OK, "%.*s",
                  (int)text.len, text.buf);
    ck_assert_int_eq(sl_json_get_string(&pick, back, value.len + 1, &len), SL_OK);
    ck_assert(sl_span_equal(sl_span_of(back, len), value));
    free(back);
    sl_json_text_fini(&text);
}

START_TEST(test_naughty_strings)
{
    char path[512];
    size_t lines = 0;

    if (!find_data("naughty-strings/blns.txt", path, sizeof(path))) {
        return;
    }
    struct sl_span text = read_file(path);
    while (text.len > 0) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t len = end != NULL ? (size_t)(end - text.ptr) : text.len;
        check_round_trip(sl_span_of(text.ptr, len));
        len = SL_MIN(len + 1, text.len);
        text = sl_span_of(text.ptr + len, text.len - len);
        lines++;
    }
    ck_assert_uint_gt(lines, 500);
}
END_TEST

START_TEST(test_naughty_json)
{
    struct sl_json_text minified = {.buf = NULL};
    struct sl_json_text again = {.buf = NULL};
    char path[512];

    if (!find_data("naughty-strings/blns.json", path, sizeof(path))) {
        return;
    }
    struct sl_span text = read_file(path);
    ck_assert_int_eq(sl_json_scan(scanner, text, NULL, 0, NULL, &fault), SL_OK);
    sl_json_put_minified(&minified, text);
    struct sl_span line = sl_span_of(minified.buf, minified.len);
    ck_assert_int_eq(sl_json_scan(scanner, line, NULL, 0, NULL, &fault), SL_OK);
    ck_assert(line.len < text.len && memchr(line.ptr, '\n', line.len) == NULL);
    sl_json_put_minified(&again, line);
    ck_assert(sl_span_equal(sl_span_of(again.buf, again.len), line));
    sl_json_text_fini(&minified);
    sl_json_text_fini(&again);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("json_suites");
    TCase *cases = tcase_create("json_suites");

    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, open_scanner, close_scanner);
    tcase_add_test(cases, test_json_test_suite);
    tcase_add_test(cases, test_utf8tests);
    tcase_add_test(cases, test_naughty_strings);
    tcase_add_test(cases, test_naughty_json);
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
