/*
 * Where the configuration is searched, what the environment changes, and where state and socket go
 * when nobody says.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/params_table.h"
#include "tests/support/params_case.h"
#include "tests/support/tmp_dir.h"

/* ---- the search ------------------------------------------------------------------------------ */

#define NO_SYSTEM_FILE "/nonexistent/sluice.conf"

/* What the search finds, with `system_file` in the place of the one in /etc. */
static bool find(const char *path, const char *system_file)
{
    static struct sl_params_load load;

    load.config = case_config;
    load.fault = case_fault;
    case_config->source[0] = '\0';
    return sl_params_find_file(&load, path, system_file);
}

static void expect_found(const char *path, const char *system_file, const char *expected)
{
    ck_assert_msg(find(path, system_file), "refused: %s", case_fault->text);
    ck_assert_str_eq(case_config->source, expected);
}

START_TEST(test_search_order)
{
    const char *system_file = tmp_dir_write("etc/sluice.conf", "");
    const char *user_file = tmp_dir_write(".config/sluice/sluice.conf", "");
    const char *variable_file = tmp_dir_write("variable.conf", "");
    const char *named_file = tmp_dir_write("named.conf", "");

    setenv("SLUICE_CONFIG", variable_file, 1);
    expect_found(named_file, system_file, named_file);
    expect_found(NULL, system_file, variable_file);
    setenv("SLUICE_CONFIG", "", 1);
    expect_found(NULL, system_file, user_file);
    ck_assert_int_eq(unlink(user_file), 0);
    expect_found(NULL, system_file, system_file);
    expect_found(NULL, NO_SYSTEM_FILE, "");
}
END_TEST

START_TEST(test_named_file_must_exist)
{
    const char *user_file = tmp_dir_write(".config/sluice/sluice.conf", "");
    char path[SL_PATH_BYTES_MAX + 1];

    ck_assert(!find("/nonexistent/a.conf", user_file));
    ck_assert_str_eq(case_fault->text,
                     "/nonexistent/a.conf: cannot read the configuration: No such "
                     "file or directory; --config names it");
    setenv("SLUICE_CONFIG", "/nonexistent/b.conf", 1);
    ck_assert(!find(NULL, user_file));
    ck_assert_str_eq(case_fault->text,
                     "/nonexistent/b.conf: cannot read the configuration: No such "
                     "file or directory; SLUICE_CONFIG names it");
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    ck_assert(!find(path, user_file));
    ck_assert_str_eq(case_fault->text, "--config names a file of 512 bytes; at most 511");
}
END_TEST

START_TEST(test_directory_is_refused)
{
    case_expect_refused(sl_config_load(tmp_dir_path(), case_config, case_fault),
                        "cannot read the configuration: Is a directory");
}
END_TEST

START_TEST(test_unreadable_user_file_is_not_skipped)
{
    tmp_dir_write(".config/sluice", ""); /* a file where a directory should be: nothing is there */
    expect_found(NULL, NO_SYSTEM_FILE, "");
    ck_assert_int_eq(unlink(tmp_dir_file(".config/sluice")), 0);
    ck_assert_int_eq(symlink("sluice", tmp_dir_file(".config/sluice")), 0); /* a loop: unknowable */
    ck_assert(!find(NULL, NO_SYSTEM_FILE));
    ck_assert_ptr_nonnull(strstr(case_fault->text, "cannot read the configuration: Too many"));
}
END_TEST

/* ---- nobody says anything -------------------------------------------------------------------- */

static bool has_system_file(void)
{
    struct stat info;

    return stat(SL_PARAMS_SYSTEM_FILE, &info) == 0;
}

START_TEST(test_one_person_defaults)
{
    if (has_system_file()) {
        printf("skipped: test_one_person_defaults: %s is there\n", SL_PARAMS_SYSTEM_FILE);
        return;
    }
    setenv("OPENAI_API_KEY", "k", 1);
    setenv("XDG_STATE_HOME", "/state-home", 1);
    setenv("XDG_RUNTIME_DIR", "/runtime", 1);
    case_expect_ok(sl_config_load(NULL, case_config, case_fault));
    ck_assert_str_eq(case_config->source, "");
    ck_assert(!case_config->queue_enabled);
    ck_assert_str_eq(case_config->state_dir, "/state-home/sluice");
    ck_assert_str_eq(case_config->socket_path, "/runtime/sluice.sock");
    ck_assert_uint_eq(case_config->provider_count, 1);
    const struct sl_provider_config *provider = &case_config->providers[0];
    ck_assert_str_eq(provider->name, "openai");
    ck_assert_str_eq(provider->base_url, "https://api.openai.com/v1");
    ck_assert_str_eq(provider->api_key_env, "OPENAI_API_KEY");
    ck_assert_int_eq(provider->timeout_ms, 600000);
    ck_assert_ptr_eq(sl_config_find_model(case_config, sl_span_str("gpt-4o-mini")), provider);
    ck_assert_ptr_eq(sl_config_find_model(case_config, sl_span_str("o3")), provider);
    ck_assert_ptr_eq(sl_config_find_model(case_config, sl_span_str("text-embedding-3-small")),
                     provider);
    ck_assert_ptr_null(sl_config_find_model(case_config, sl_span_str("claude")));
}
END_TEST

START_TEST(test_one_person_base_url)
{
    if (has_system_file()) {
        printf("skipped: test_one_person_base_url: %s is there\n", SL_PARAMS_SYSTEM_FILE);
        return;
    }
    setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/", 1);
    case_expect_ok(sl_config_load(NULL, case_config, case_fault));
    ck_assert_uint_eq(case_config->provider_count, 0); /* no key, nobody to call */
    setenv("OPENAI_API_KEY", "k", 1);
    case_expect_ok(sl_config_load(NULL, case_config, case_fault));
    ck_assert_str_eq(case_config->providers[0].base_url, "http://127.0.0.1:9/v1");
    setenv("OPENAI_BASE_URL", "127.0.0.1:9/v1", 1);
    case_expect_refused(sl_config_load(NULL, case_config, case_fault),
                        "OPENAI_BASE_URL: does not open with http:// or https://");
}
END_TEST

/* ---- state and socket ------------------------------------------------------------------------ */

static void set_paths(const char *source)
{
    static struct sl_params_load load;

    memset(case_config, 0, sizeof(*case_config));
    load.config = case_config;
    load.fault = case_fault;
    memcpy(case_config->source, source, strlen(source));
    ck_assert_msg(sl_params_set_paths(&load), "refused: %s", case_fault->text);
}

START_TEST(test_service_paths)
{
    setenv("XDG_RUNTIME_DIR", "/runtime", 1);
    set_paths(SL_PARAMS_SYSTEM_FILE);
    ck_assert_str_eq(case_config->state_dir, "/var/lib/sluice");
    ck_assert_str_eq(case_config->socket_path, "/run/sluice/sluice.sock");
    set_paths("/home/a/sluice.conf");
    ck_assert_str_eq(case_config->state_dir, tmp_dir_file(".local/state/sluice"));
    ck_assert_str_eq(case_config->socket_path, "/runtime/sluice.sock");
}
END_TEST

START_TEST(test_relative_xdg_is_ignored)
{
    setenv("XDG_STATE_HOME", "relative", 1);
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    case_expect_ok(case_load(""));
    ck_assert_str_eq(case_config->state_dir, tmp_dir_file(".local/state/sluice"));
    ck_assert_str_eq(case_config->socket_path, tmp_dir_file(".local/state/sluice/sluice.sock"));
}
END_TEST

START_TEST(test_no_home)
{
    unsetenv("HOME"); /* the user database knows: a service of root starts like this */
    case_expect_ok(case_load(""));
    ck_assert_int_eq(case_config->state_dir[0], '/');
    ck_assert_ptr_nonnull(strstr(case_config->state_dir, "/.local/state/sluice"));
}
END_TEST

START_TEST(test_socket_too_long)
{
    char text[256];
    char path[109] = "/";

    memset(path + 1, 'a', 106);
    snprintf(text, sizeof(text), "socket = \"%s\";", path);
    case_expect_ok(case_load(text));
    path[107] = 'a';
    snprintf(text, sizeof(text), "socket = \"%s\";", path);
    case_expect_refused(case_load(text),
                        "sluice.conf:1: socket: has 108 bytes; write 1..107 bytes");
    setenv("SLUICE_SOCKET", path, 1);
    case_expect_refused(case_load(""), "SLUICE_SOCKET: has 108 bytes; write 1..107 bytes");
    unsetenv("SLUICE_SOCKET");
    setenv("XDG_RUNTIME_DIR", path, 1);
    case_expect_refused(case_load(""), "/sluice.sock is too long for a socket");
}
END_TEST

/* ---- the environment ------------------------------------------------------------------------- */

static const struct {
    const char *variable;
    const char *value;
    const char *fragment; /* NULL: taken */
} environments[] = {
    {"SLUICE_LLM_QUEUE_ENABLED", "true", NULL},
    {"SLUICE_LLM_QUEUE_ENABLED", "YES", NULL},
    {"SLUICE_LLM_QUEUE_ENABLED", "On", NULL},
    {"SLUICE_LLM_QUEUE_ENABLED", "1", NULL},
    {"SLUICE_LLM_QUEUE_ENABLED", "2", "SLUICE_LLM_QUEUE_ENABLED: \"2\" is not a boolean"},
    {"SLUICE_LLM_QUEUE_ENABLED", "true ", "is not a boolean"},
    {"SLUICE_LLM_QUEUE_CONCURRENCY", "65536", NULL},
    {"SLUICE_LLM_QUEUE_CONCURRENCY", "65537",
     "SLUICE_LLM_QUEUE_CONCURRENCY: 65537 is out of range"},
    {"SLUICE_LLM_QUEUE_CONCURRENCY", "0", "0 is out of range; write 1..65536 calls"},
    {"SLUICE_LLM_QUEUE_CONCURRENCY", "4294967297", "4294967297 is out of range"},
    {"SLUICE_LLM_QUEUE_CONCURRENCY", "99999999999999999999", "is not a whole number"},
    {"SLUICE_LLM_QUEUE_CONCURRENCY", "64x", "\"64x\" is not a whole number"},
    {"SLUICE_LLM_QUEUE_CONCURRENCY", "6.4", "is not a whole number"},
    {"SLUICE_STATE_DIR", "/s", NULL},
    {"SLUICE_STATE_DIR", "s", "SLUICE_STATE_DIR: \"s\" is not an absolute path"},
    {"SLUICE_SOCKET", "/s", NULL},
    {"SLUICE_SOCKET", "./s", "SLUICE_SOCKET: \"./s\" is not an absolute path"},
    {"SLUICE_LOG_LEVEL", "debug", NULL},
    {"SLUICE_LOG_LEVEL", "DEBUG", "SLUICE_LOG_LEVEL: \"DEBUG\" is not known; write one of error"},
};

START_TEST(test_environment)
{
    setenv(environments[_i].variable, environments[_i].value, 1);
    enum sl_err err = case_load("");
    if (environments[_i].fragment == NULL) {
        case_expect_ok(err);
    } else {
        case_expect_refused(err, environments[_i].fragment);
        ck_assert_int_eq(strncmp(case_fault->text, "SLUICE_", strlen("SLUICE_")), 0);
    }
}
END_TEST

START_TEST(test_environment_is_over_the_file)
{
    setenv("SLUICE_LLM_QUEUE_ENABLED", "no", 1);
    setenv("SLUICE_LLM_QUEUE_CONCURRENCY", "9", 1);
    setenv("SLUICE_STATE_DIR", "/env-state", 1);
    setenv("SLUICE_SOCKET", "/env-socket", 1);
    setenv("SLUICE_LOG_LEVEL", "", 1); /* empty: as if it were not set */
    case_expect_ok(case_load("llm_queue_enabled = true; llm_queue_concurrency = 8;\n"
                             "state_dir = \"/s\"; socket = \"/t\"; log_level = \"warn\";\n"));
    ck_assert(!case_config->queue_enabled);
    ck_assert_uint_eq(case_config->concurrency, 9);
    ck_assert_str_eq(case_config->state_dir, "/env-state");
    ck_assert_str_eq(case_config->socket_path, "/env-socket");
    ck_assert_int_eq(case_config->log_level, SL_LOG_WARN);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("params_place");
    TCase *cases = tcase_create("params_place");

    tcase_add_checked_fixture(cases, case_begin, case_end);
    tcase_add_test(cases, test_search_order);
    tcase_add_test(cases, test_named_file_must_exist);
    tcase_add_test(cases, test_directory_is_refused);
    tcase_add_test(cases, test_unreadable_user_file_is_not_skipped);
    tcase_add_test(cases, test_one_person_defaults);
    tcase_add_test(cases, test_one_person_base_url);
    tcase_add_test(cases, test_service_paths);
    tcase_add_test(cases, test_relative_xdg_is_ignored);
    tcase_add_test(cases, test_no_home);
    tcase_add_test(cases, test_socket_too_long);
    tcase_add_loop_test(cases, test_environment, 0, SL_ARRAY_LEN(environments));
    tcase_add_test(cases, test_environment_is_over_the_file);
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
