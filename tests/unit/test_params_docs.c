/*
 * The table of parameters against the files that people read: conf/sluice.conf has every key and is
 * taken as it stands; docs/configuration.md has the rows of the table, in its order, and no others.
 *
 * `test_params_docs --docs` prints the rows of docs/configuration.md.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/params_table.h"
#include "tests/support/params_case.h"

#define EXAMPLE SLUICE_SOURCE_DIR "/conf/sluice.conf"
#define DOCS SLUICE_SOURCE_DIR "/docs/configuration.md"

static bool is_set_in_file(const struct sl_params_load *load, const struct sl_param *row)
{
    size_t idx = sl_params_row_idx(row);

    if (!row->is_of_provider) {
        return load->origins[idx].line > 0;
    }
    for (uint32_t i = 0; i < load->config->provider_count; i++) {
        if (load->provider_origins[i][idx].line > 0) {
            return true;
        }
    }
    return false;
}

START_TEST(test_example_has_every_key)
{
    static struct sl_params_load load;
    const struct sl_param *row;

    case_expect_ok(sl_config_load(EXAMPLE, case_config, case_fault));
    memset(case_config, 0, sizeof(*case_config));
    load.config = case_config;
    load.fault = case_fault;
    memcpy(case_config->source, EXAMPLE, sizeof(EXAMPLE));
    ck_assert_msg(sl_params_load_file(&load), "refused: %s", case_fault->text);
    for (size_t i = 0; (row = sl_params_row(i)) != NULL; i++) {
        ck_assert_msg(is_set_in_file(&load, row), "%s is not in " EXAMPLE, row->key);
    }
}
END_TEST

static const char *shown(const char *text)
{
    return text[0] == '\0' ? "-" : text;
}

/* The row of the docs; without "\n". */
static void write_docs_row(const struct sl_param_info *info, char *text, size_t size)
{
    int len = snprintf(text, size, "| `%s` | %s | %s | %s | %s | %s | %s | %s%s |", info->name,
                       info->type, shown(info->unit), info->range,
                       info->default_text[0] == '\0' ? "empty" : info->default_text, info->effect,
                       shown(info->env), info->help, info->is_obeyed ? "" : " Not obeyed yet.");
    SL_ASSERT(len > 0 && (size_t)len < size); /* not check's: --docs runs outside a test */
}

START_TEST(test_docs_have_every_row)
{
    char row[1024];
    char line[1024];
    struct sl_param_info info;
    size_t idx = 0;
    FILE *docs = fopen(DOCS, "re");

    ck_assert_msg(docs != NULL, "cannot open " DOCS);
    while (fgets(line, sizeof(line), docs) != NULL) {
        if (strncmp(line, "| `", 3) != 0) {
            continue;
        }
        line[strcspn(line, "\n")] = '\0';
        ck_assert_msg(sl_param_at(idx++, &info), "one row too many in " DOCS ": %s", line);
        write_docs_row(&info, row, sizeof(row));
        ck_assert_str_eq(line, row);
    }
    fclose(docs);
    ck_assert_msg(!sl_param_at(idx, &info), "not in " DOCS ": %s", info.name);
}
END_TEST

static int print_docs(void)
{
    char row[1024];
    struct sl_param_info info;

    for (size_t idx = 0; sl_param_at(idx, &info); idx++) {
        write_docs_row(&info, row, sizeof(row));
        printf("%s\n", row);
    }
    return EXIT_SUCCESS;
}

static Suite *make_suite(void)
{
    Suite *suite = suite_create("params_docs");
    TCase *cases = tcase_create("params_docs");

    tcase_add_checked_fixture(cases, case_begin, case_end);
    tcase_add_test(cases, test_example_has_every_key);
    tcase_add_test(cases, test_docs_have_every_row);
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
