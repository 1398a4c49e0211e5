/*
 * The tables of errors and events against the pages that explain them: docs/errors.md and
 * docs/runbook.md have the rows of the tables, in their order, and no others.
 *
 * `test_docs --docs` prints the rows of both.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/policy/retry.h"
#include "common/check.h"
#include "common/err.h"
#include "common/log.h"

#define ROW_BYTES 1024

struct error_row {
    int number;
    const char *code;
    int exit_status;
    const char *meaning;
    const char *advice;
};

static const struct error_row error_rows[] = {
#define X(name, number, code, class, exit_status, meaning, advice)                                 \
    {number, code, exit_status, meaning, advice},
#include "common/tbl/errors.def"
#undef X
};

struct event_row {
    const char *name;
    const char *level;
    const char *meaning;
};

static const struct event_row event_rows[] = {
#define X(name, text, level, meaning) {text, #level, meaning},
#include "common/tbl/events.def"
#undef X
};

/* What a call that failed so means for its task, in the words of the page. */
static const char *then_text(enum sl_err err)
{
    switch (sl_err_class(err)) {
    case SL_CLASS_NONE:
        return "-";
    case SL_CLASS_RETRY:
        return "again";
    case SL_CLASS_UNKNOWN:
        return sl_retry_outcome_is_unknown(err) ? "again (u)" : "again";
    case SL_CLASS_FATAL:
        return "fails";
    case SL_CLASS_KEY:
        return "fails (key)";
    }
    SL_UNREACHABLE();
}

static const char *level_text(const char *name)
{
    static const char *const names[][2] = {
        {"ERROR", "error"}, {"WARN", "warn"}, {"INFO", "info"}, {"DEBUG", "debug"}};

    for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i][0]) == 0) {
            return names[i][1];
        }
    }
    return "?";
}

static bool write_error_row(size_t idx, char row[ROW_BYTES])
{
    if (idx >= SL_ARRAY_LEN(error_rows)) {
        return false;
    }
    const struct error_row *error = &error_rows[idx];
    int len = snprintf(row, ROW_BYTES, "| `%s` | %d | %s | %d | %s | %s |", error->code,
                       error->number, then_text((enum sl_err)error->number), error->exit_status,
                       error->meaning, error->advice[0] == '\0' ? "-" : error->advice);
    SL_ASSERT(len > 0 && len < ROW_BYTES); /* not check's: --docs runs outside a test */
    return true;
}

static bool write_event_row(size_t idx, char row[ROW_BYTES])
{
    if (idx >= SL_ARRAY_LEN(event_rows)) {
        return false;
    }
    const struct event_row *event = &event_rows[idx];
    int len = snprintf(row, ROW_BYTES, "| `%s` | %s | %s |", event->name, level_text(event->level),
                       event->meaning);
    SL_ASSERT(len > 0 && len < ROW_BYTES);
    return true;
}

struct page {
    const char *path;
    const char *opening; /* of the line that heads the table; its rows follow the line of dashes */
    bool (*write_row)(size_t idx, char row[ROW_BYTES]);
};

static const struct page pages[] = {
    {SLUICE_SOURCE_DIR "/docs/errors.md", "| code | number |", write_error_row},
    {SLUICE_SOURCE_DIR "/docs/runbook.md", "| event | level |", write_event_row},
};

/* Leaves the file behind the line of dashes under the table's head. */
static void find_table(FILE *file, const struct page *page)
{
    char line[ROW_BYTES] = "";

    while (strncmp(line, page->opening, strlen(page->opening)) != 0) {
        ck_assert_msg(fgets(line, sizeof(line), file) != NULL, "no line \"%s\" in %s",
                      page->opening, page->path);
    }
    ck_assert_ptr_nonnull(fgets(line, sizeof(line), file));
    ck_assert_msg(strncmp(line, "|---", 4) == 0, "no table below \"%s\" in %s", page->opening,
                  page->path);
}

START_TEST(test_page_has_the_rows_of_the_table)
{
    const struct page *page = &pages[_i];
    char expected[ROW_BYTES];
    char line[ROW_BYTES];
    size_t idx = 0;
    FILE *file = fopen(page->path, "re");

    ck_assert_msg(file != NULL, "cannot open %s", page->path);
    find_table(file, page);
    while (fgets(line, sizeof(line), file) != NULL && line[0] == '|') {
        line[strcspn(line, "\n")] = '\0';
        ck_assert_msg(page->write_row(idx++, expected), "one row too many in %s: %s", page->path,
                      line);
        ck_assert_str_eq(line, expected);
    }
    fclose(file);
    ck_assert_msg(!page->write_row(idx, expected), "not in %s: %s", page->path, expected);
}
END_TEST

/* A bar would end a cell of the page's table. */
START_TEST(test_tables_hold_no_bar)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(error_rows); i++) {
        ck_assert_ptr_null(strchr(error_rows[i].meaning, '|'));
        ck_assert_ptr_null(strchr(error_rows[i].advice, '|'));
    }
    for (size_t i = 0; i < SL_ARRAY_LEN(event_rows); i++) {
        ck_assert_ptr_null(strchr(event_rows[i].meaning, '|'));
        ck_assert_str_ne(level_text(event_rows[i].level), "?");
    }
}
END_TEST

static int print_docs(void)
{
    char row[ROW_BYTES];

    for (size_t i = 0; i < SL_ARRAY_LEN(pages); i++) {
        printf("%s\n", pages[i].path);
        for (size_t idx = 0; pages[i].write_row(idx, row); idx++) {
            printf("%s\n", row);
        }
    }
    return EXIT_SUCCESS;
}

static Suite *make_suite(void)
{
    Suite *suite = suite_create("docs");
    TCase *cases = tcase_create("docs");

    tcase_add_loop_test(cases, test_page_has_the_rows_of_the_table, 0, (int)SL_ARRAY_LEN(pages));
    tcase_add_test(cases, test_tables_hold_no_bar);
    suite_add_tcase(suite, cases);
    return suite;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--docs") == 0) {
        return print_docs();
    }
    SRunner *runner = srunner_create(make_suite());

    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
