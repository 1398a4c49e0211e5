/*
 * Loading a configuration file: what is refused with which line and words, what is taken, and the
 * questions to a loaded configuration. test_params_place.c is about where it is searched and the
 * environment; test_params_rows.c goes through the table row by row.
 */
#include "common/params.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/params_case.h"
#include "tests/support/tmp_dir.h"

/* ---- what is refused ------------------------------------------------------------------------- */

#define GOOD "name=\"a\"; base_url=\"http://h\"; "
#define PROVIDER(text) "providers = (\n{ " text " } );\n"

static const struct {
    const char *text;
    int line; /* 0: the file as a whole */
    const char *fragment;
} bad_files[] = {
    /* keys */
    {"\nllm_queue_enable = true;\n", 2, "llm_queue_enable: unknown key"},
    {"worker = { threads = 1; };\n", 1, "worker.threads: unknown key"},
    {"cache = {\n enabled = true;\n ttl = 1; };\n", 3, "cache.ttl: unknown key"},
    {PROVIDER(GOOD "\nmodel = [ \"x\" ];"), 3, "providers.model: unknown key"},
    {PROVIDER(GOOD "retry = { base = 1; };"), 2, "providers.retry.base: unknown key"},
    {"retry = { base_ms = 1; };\n", 1, "retry: unknown key"},
    {"log_level = \"info\";\nlog_level = \"warn\";\n", 2, "duplicate"},
    {PROVIDER(GOOD "\napi_key = \"sk-hidden\";"), 3, "api_key: a key must not stand in this file"},
    /* shapes */
    {"worker = 4;\n", 1, "worker: is an integer; write a group"},
    {"http = ( { listen = \"\"; } );\n", 1, "http: is a list"},
    {"llm_queue_concurrency = { };\n", 1, "llm_queue_concurrency: is a group"},
    {"socket = [ \"/a\" ];\n", 1, "socket: is an array"},
    {"providers = { name = \"a\"; };\n", 1, "providers: is a group"},
    {"providers = [ \"a\" ];\n", 1, "providers: is an array"},
    {"providers = (\n{ " GOOD " },\n 3 );\n", 3, "providers: holds an integer"},
    {PROVIDER(GOOD "models = \"gpt-*\";"), 2, "providers.models: is a string; write a list"},
    {PROVIDER(GOOD "models = [ 1, 2 ];"), 2, "providers.models: holds an integer"},
    {PROVIDER(GOOD "models = ( \"a\",\n ( \"b\" ) );"), 3, "providers.models: holds a list"},
    {PROVIDER(GOOD "models = [ \"\" ];"), 2, "providers.models: a member has 0 bytes"},
    {PROVIDER(GOOD "retry = ( );"), 2, "providers.retry: is a list"},
    /* numbers that libconfig would change without a word */
    {"\nllm_queue_concurrency = 4294967297;\n", 2, "4294967297 is too large"},
    {"cache = { max_bytes = 9223372036854775808L; };\n", 1, "9223372036854775808 is too large"},
    {"cache = { max_bytes = -2147483649; };\n", 1, "-2147483649 is too large"},
    {"llm_queue_concurrency = 4294967297L;\n", 1, "4294967297 is out of range"},
    {"llm_queue_concurrency = 0x100000040;\n", 1, "is hexadecimal"},
    {"llm_queue_concurrency = 64.5;\n", 1, "is a number with a fraction"},
    {"drain_timeout_s = 1e999;\n", 1, "drain_timeout_s: inf is out of range"},
    /* texts that libconfig would cut, or read from elsewhere */
    {"# a\n@include \"other.conf\"\n", 2, "@include is not supported"},
    {"socket = \"/tmp/a\\x00b\";\n", 1, "a string holds \\x00"},
    {"socket = \"/tmp/a\\x01b\";\n", 1, "socket: holds a control character"},
    {"socket = \"/tmp/a\nb\";\n", 1, "socket: holds a control character"},
    /* syntax */
    {"a = 1;\n/* socket = 1;\n", 2, "the comment that opens here is not closed"},
    {"log_level = \"info\";\nsocket = \"/a;\n\n", 2, "the string that opens here is not closed"},
    {"llm_queue_concurrency = 64;\n}\n", 2, "syntax error"},
    {"log_level == \"info\";\n", 1, "syntax error"},
    /* strings with a form */
    {"state_dir = \"relative\";\n", 1, "\"relative\" is not an absolute path"},
    {"socket = \"~/s\";\n", 1, "\"~/s\" is not an absolute path"},
    {"http = { listen = \"8420\"; };\n", 1, "\"8420\" is not address:port"},
    {"http = { listen = \"localhost:8420\"; };\n", 1, "is not address:port"},
    {"http = { listen = \"127.0.0.1:65536\"; };\n", 1, "is not address:port"},
    {"http = { listen = \"127.0.0.1:\"; };\n", 1, "is not address:port"},
    {"http = { listen = \"127.0.0.1:-1\"; };\n", 1, "is not address:port"},
    {"http = { listen = \"127.0.0.1:99999999999\"; };\n", 1, "is not address:port"},
    {"http = { listen = \"::1:8420\"; };\n", 1, "is not address:port"},
    {"http = { listen = \"[::1]8420\"; };\n", 1, "is not address:port"},
    {"http = { listen = \"[127.0.0.1]:1\"; };\n", 1, "is not address:port"},
    {"http = { listen = \"[::1\"; };\n", 1, "is not address:port"},
    {PROVIDER("name=\"a b\";"), 2, "providers.name: \"a b\" is not a name"},
    {PROVIDER("name=\"../a\";"), 2, "is not a name"},
    {PROVIDER("name=\".\";"), 2, "is not a name"},
    {PROVIDER("name=\"\";"), 2, "providers.name: has 0 bytes"},
    {PROVIDER("base_url=\"ftp://host\";"), 2, "does not open with http:// or https://"},
    {PROVIDER("base_url=\"api.openai.com\";"), 2, "does not open with http:// or https://"},
    {PROVIDER("base_url=\"https:///v1\";"), 2, "has no usable host or port"},
    {PROVIDER("base_url=\"https://:80/v1\";"), 2, "has no usable host or port"},
    {PROVIDER("base_url=\"https://h:0/v1\";"), 2, "has no usable host or port"},
    {PROVIDER("base_url=\"https://h:x/v1\";"), 2, "has no usable host or port"},
    {PROVIDER("base_url=\"https://[zz]/v1\";"), 2, "has no usable host or port"},
    {PROVIDER("base_url=\"https://h!/v1\";"), 2, "has no usable host or port"},
    {PROVIDER("base_url=\"https://user@h/v1\";"), 2, "holds a user, a query"},
    {PROVIDER("base_url=\"https://h/v1?key=hidden\";"), 2, "holds a user, a query"},
    {PROVIDER("base_url=\"https://h/v 1\";"), 2, "or a space"},
    {PROVIDER("api_key_env=\"sk-hidden\";"), 2, "is not the name of an environment variable"},
    {PROVIDER("api_key_env=\"1A\";"), 2, "is not the name of an environment variable"},
    {PROVIDER("api_key_file=\"key\";"), 2, "\"key\" is not an absolute path"},
    /* between values */
    {PROVIDER("name=\"a\";"), 2, "providers.base_url: is missing"},
    {PROVIDER("base_url=\"http://h\";"), 2, "providers.name: is missing"},
    {PROVIDER(GOOD "}, {\n" GOOD), 3,
     "providers.name: \"a\" is the name of the provider at line 2"},
    {PROVIDER(GOOD "\nkind=\"anthropic\";"), 3, "kind \"anthropic\" is not supported by this"},
    {PROVIDER(GOOD "kind=\"gemini\";"), 2, "kind \"gemini\" is not supported by this version yet"},
    {PROVIDER(GOOD "kind=\"mistral\";"), 2, "\"mistral\" is not known; write one of openai"},
    {PROVIDER(GOOD "api_key_env=\"A\";\napi_key_file=\"/k\";"), 3, "api_key_env is set too"},
    {PROVIDER(GOOD "retry={base_ms=9;\nmax_ms=8;};"), 3, "8 is less than retry.base_ms (9)"},
    {PROVIDER(GOOD "retry={base_ms=60001;};"), 2, "60000 is less than retry.base_ms (60001)"},
    {PROVIDER(GOOD "fallback=[\"b\"];"), 2, "providers.fallback: \"b\" is no provider"},
    {PROVIDER(GOOD "fallback=[\"a\"];"), 2, "\"a\" is this provider itself"},
};

START_TEST(test_bad_file)
{
    char place[64];

    snprintf(place, sizeof(place), "sluice.conf:%d: ", bad_files[_i].line);
    case_expect_refused(case_load(bad_files[_i].text), bad_files[_i].fragment);
    ck_assert_msg(strstr(case_fault->text, place) != NULL, "\"%s\" is not in \"%s\"", place,
                  case_fault->text);
    ck_assert_msg(strstr(case_fault->text, "hidden") == NULL, "a secret in \"%s\"",
                  case_fault->text);
    ck_assert_msg(strchr(case_fault->text, '\n') == NULL, "two lines: \"%s\"", case_fault->text);
    ck_assert(case_config_is_untouched()); /* nothing is written but on success */
}
END_TEST

START_TEST(test_nul_byte)
{
    static const char text[] = "log_level = \"info\";\n\0llm_queue_enabled = true;\n";
    const char *path = tmp_dir_write_bytes("sluice.conf", text, sizeof(text) - 1);

    case_expect_refused(sl_config_load(path, case_config, case_fault),
                        "sluice.conf:2: the file holds a NUL");
}
END_TEST

START_TEST(test_too_many_providers)
{
    char text[SL_PROVIDERS_MAX * 64 + 128] = "providers = (";
    size_t len = strlen(text);

    for (int i = 0; i < SL_PROVIDERS_MAX; i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len,
                                "%s{ name=\"p%d\"; base_url=\"http://h\"; }", i > 0 ? "," : "", i);
    }
    snprintf(text + len, sizeof(text) - len, ");\n");
    case_expect_ok(case_load(text));
    ck_assert_uint_eq(case_config->provider_count, SL_PROVIDERS_MAX);
    snprintf(text + len, sizeof(text) - len, ", { } );\n");
    case_expect_refused(case_load(text), "providers: has 33 members; write at most 32");
}
END_TEST

START_TEST(test_too_large_file)
{
    char *text = malloc(SL_MIB + 2);

    ck_assert_ptr_nonnull(text);
    memset(text, ' ', SL_MIB + 1);
    text[SL_MIB] = '\0';
    case_expect_ok(case_load(text));
    text[SL_MIB] = ' ';
    text[SL_MIB + 1] = '\0';
    case_expect_refused(case_load(text), "the file is over 1 MiB");
    free(text);
}
END_TEST

START_TEST(test_long_file_name_leaves_room)
{
    char name[402];

    for (size_t i = 0; i < 390; i++) {
        name[i] = i % 100 == 99 ? '/' : 'd';
    }
    memcpy(name + 390, "sluice.conf", sizeof("sluice.conf"));
    case_expect_refused(sl_config_load(tmp_dir_write(name, "x = 1;"), case_config, case_fault),
                        "sluice.conf:1: x: unknown key");
    ck_assert_int_eq(strncmp(case_fault->text, "...", 3), 0);
}
END_TEST

/* ---- what is taken --------------------------------------------------------------------------- */

START_TEST(test_values)
{
    case_expect_ok(
        case_load("llm_queue_enabled = true; llm_queue_concurrency = 65536L;\n"
                  "drain_timeout_s = 5; idle_exit_s = 0.25; log_level = \"debug\";\n"
                  "/* 99999999999 */ # 99999999999 @include\n // 99999999999\n"
                  "cache = { max_bytes = 4294967296L; ttl_s = 1.0E+3 };\n"
                  "http = { listen = \"[::1]:0\"; };\n"
                  "providers = ( { name = \"a\"; base_url = \"https://h:1/v1//\";\n"
                  "  models = ( \"x\", \"y*\" ); timeout_s = 0.5; retry = { base_ms = 7 };\n"
                  "  first_byte_timeout_s = 0.0001; fallback = [ \"b\" ]; tpm = 4000000000L;\n"
                  "}, { name = \"b\"; base_url = \"http://[::1]:8000\"; } );\n"));
    ck_assert(case_config->queue_enabled);
    ck_assert_uint_eq(case_config->concurrency, 65536);
    ck_assert_int_eq(case_config->drain_timeout_ms, 5000);
    ck_assert_int_eq(case_config->idle_exit_ms, 250);
    ck_assert_int_eq(case_config->log_level, SL_LOG_DEBUG);
    ck_assert_int_eq(case_config->cache_bytes_max, INT64_C(4294967296));
    ck_assert_int_eq(case_config->cache_ttl_ms, 1000000);
    ck_assert_str_eq(case_config->http_listen, "[::1]:0");
    ck_assert_uint_eq(case_config->provider_count, 2);
    const struct sl_provider_config *provider = &case_config->providers[0];
    ck_assert_str_eq(provider->base_url, "https://h:1/v1");
    ck_assert_uint_eq(provider->model_count, 2);
    ck_assert_str_eq(provider->models[1], "y*");
    ck_assert_int_eq(provider->timeout_ms, 500);
    ck_assert_int_eq(provider->first_byte_timeout_ms, 1); /* not off */
    ck_assert_int_eq(provider->retry_base_ms, 7);
    ck_assert_int_eq(provider->retry_max_ms, 60000);
    ck_assert_uint_eq(provider->tpm, 4000000000u);
    ck_assert_uint_eq(provider->fallback_count, 1);
    ck_assert_str_eq(case_config->source, tmp_dir_file("sluice.conf"));
}
END_TEST

START_TEST(test_empty_file_means_defaults)
{
    setenv("OPENAI_API_KEY", "k", 1); /* a file is there: it says who the providers are */
    case_expect_ok(case_load(""));
    ck_assert(!case_config->queue_enabled);
    ck_assert_uint_eq(case_config->concurrency, 64);
    ck_assert_uint_eq(case_config->provider_count, 0);
    ck_assert_str_eq(case_config->http_listen, "");
    ck_assert_int_eq(case_config->log_level, SL_LOG_INFO);
    ck_assert(case_config->worker_processes >= 1 && case_config->worker_processes <= SL_LANES_MAX);
    ck_assert_str_eq(case_config->state_dir, tmp_dir_file(".local/state/sluice"));
    ck_assert_str_eq(case_config->socket_path, tmp_dir_file(".local/state/sluice/sluice.sock"));
}
END_TEST

START_TEST(test_unused)
{
    char text[256];
    char small[20];

    case_expect_ok(case_load("cache = { enabled = false; };\n" PROVIDER(GOOD "concurrency = 1;")));
    sl_config_unused(case_config, text, sizeof(text));
    ck_assert_str_eq(text, "");
    case_expect_ok(case_load("cache = { ttl_s = 5; };\n" PROVIDER(
        GOOD "rpm = 1; breaker = { open_s = 1; failures = 10; }; },"
             "{ name=\"b\"; base_url=\"http://h\"; fallback = [ \"a\" ]; rpm = 2;")));
    sl_config_unused(case_config, text, sizeof(text));
    ck_assert_str_eq(text, "cache.ttl_s, providers.rpm, providers.breaker.open_s, "
                           "providers.fallback");
    sl_config_unused(case_config, small, sizeof(small));
    ck_assert_str_eq(small, "cache.ttl_s");
}
END_TEST

START_TEST(test_restart_needed)
{
    static struct sl_config running;
    char text[256];

    case_expect_ok(case_load("socket = \"/a\"; log_level = \"info\";"));
    running = *case_config;
    sl_config_restart_needed(&running, case_config, text, sizeof(text));
    ck_assert_str_eq(text, "");
    case_expect_ok(case_load("socket = \"/b\"; http = { listen = \"127.0.0.1:1\"; };\n"
                             "log_level = \"warn\"; llm_queue_concurrency = 5;\n" PROVIDER(GOOD)));
    sl_config_restart_needed(&running, case_config, text, sizeof(text));
    ck_assert_str_eq(text, "socket, http.listen");
    sl_config_changed(&running, case_config, text, sizeof(text));
    ck_assert_str_eq(text, "llm_queue_concurrency, log_level");
    sl_config_keep_running(&running, case_config);
    sl_config_restart_needed(&running, case_config, text, sizeof(text));
    ck_assert_str_eq(text, "");
    ck_assert_str_eq(case_config->socket_path, "/a");
    ck_assert_str_eq(case_config->http_listen, "");
    ck_assert_uint_eq(case_config->concurrency, 5);
    ck_assert_uint_eq(case_config->provider_count, 1);
}
END_TEST

static const struct {
    const char *before; /* providers */
    const char *after;
    const char *changed;
} reloads[] = {
    {"{ name=\"a\"; base_url=\"http://h\"; }", "{ name=\"a\"; base_url=\"http://h\"; }", ""},
    {"{ name=\"a\"; base_url=\"http://h\"; }", "{ name=\"a\"; base_url=\"http://i\"; }",
     "providers.base_url"},
    {"{ name=\"a\"; base_url=\"http://h\"; models=[\"x\",\"y\"]; rpm=1; }",
     "{ name=\"a\"; base_url=\"http://h\"; models=[\"x\"]; rpm=2; }",
     "providers.models, providers.rpm"},
    {"{ name=\"a\"; base_url=\"http://h\"; }, { name=\"b\"; base_url=\"http://i\"; }",
     "{ name=\"b\"; base_url=\"http://i\"; }, { name=\"a\"; base_url=\"http://h\"; }", ""},
    {"{ name=\"a\"; base_url=\"http://h\"; }", "{ name=\"b\"; base_url=\"http://i\"; }", ""},
    {"{ name=\"a\"; base_url=\"http://h\"; api_key_file=\"/k\"; }",
     "{ name=\"b\"; base_url=\"http://h\"; },"
     "{ name=\"a\"; base_url=\"http://h\"; api_key_file=\"/l\"; }",
     "providers.api_key_file"},
};

START_TEST(test_changed)
{
    static struct sl_config running;
    char file[512];
    char text[256];

    snprintf(file, sizeof(file), "providers = ( %s );", reloads[_i].before);
    case_expect_ok(case_load(file));
    running = *case_config;
    snprintf(file, sizeof(file), "providers = ( %s );", reloads[_i].after);
    case_expect_ok(case_load(file));
    sl_config_changed(&running, case_config, text, sizeof(text));
    ck_assert_str_eq(text, reloads[_i].changed);
    sl_config_restart_needed(&running, case_config, text, sizeof(text));
    ck_assert_str_eq(text, "");
}
END_TEST

/* ---- who takes a model ----------------------------------------------------------------------- */

static const struct {
    const char *glob;
    const char *text;
    bool matches;
} globs[] = {
    {"gpt-*", "gpt-4o", true},
    {"gpt-*", "gpt-", true},
    {"gpt-*", "gpt", false},
    {"*", "", true},
    {"", "", true},
    {"", "a", false},
    {"?", "", false},
    {"?", "a", true},
    {"o?", "o1", true},
    {"o?", "o1-mini", false},
    {"*-mini", "o1-mini", true},
    {"*-mini", "o1-mini-x", false},
    {"a*b*c", "aXbXbXc", true},
    {"a*b*c", "aXbXbX", false},
    {"**", "x", true},
    {"*a", "aaab", false},
    {"GPT-*", "gpt-4o", false},
    {"a", "a", true},
    {"gpt-4o", "gpt-4o2", false},
    {"[a-z]", "b", false},
    {"a*a*a*a*b", "aaaaaaaaaaa", false},
};

START_TEST(test_glob)
{
    ck_assert_int_eq(sl_glob_matches(globs[_i].glob, sl_span_str(globs[_i].text)),
                     globs[_i].matches);
}
END_TEST

START_TEST(test_find)
{
    case_expect_ok(case_load("providers = (\n"
                             "{ name=\"a\"; base_url=\"http://h\"; models=[\"gpt-*\"]; },\n"
                             "{ name=\"none\"; base_url=\"http://h\"; },\n"
                             "{ name=\"b\"; base_url=\"http://h\"; models=[\"o?\", \"*\"]; } );"));
    ck_assert_str_eq(sl_config_find_model(case_config, sl_span_str("gpt-4o"))->name, "a");
    ck_assert_str_eq(sl_config_find_model(case_config, sl_span_str("o1"))->name, "b");
    ck_assert_str_eq(sl_config_find_model(case_config, sl_span_str("llama"))->name, "b");
    ck_assert_str_eq(sl_config_find_provider(case_config, sl_span_of("none-of", 4))->name, "none");
    ck_assert_ptr_null(sl_config_find_provider(case_config, sl_span_str("non")));
    case_config->provider_count = 2;
    ck_assert_ptr_null(sl_config_find_model(case_config, sl_span_str("o1")));
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("params");
    TCase *cases = tcase_create("params");

    tcase_add_checked_fixture(cases, case_begin, case_end);
    tcase_add_loop_test(cases, test_bad_file, 0, SL_ARRAY_LEN(bad_files));
    tcase_add_test(cases, test_nul_byte);
    tcase_add_test(cases, test_too_many_providers);
    tcase_add_test(cases, test_too_large_file);
    tcase_add_test(cases, test_long_file_name_leaves_room);
    tcase_add_test(cases, test_values);
    tcase_add_test(cases, test_empty_file_means_defaults);
    tcase_add_test(cases, test_unused);
    tcase_add_test(cases, test_restart_needed);
    tcase_add_loop_test(cases, test_changed, 0, SL_ARRAY_LEN(reloads));
    tcase_add_loop_test(cases, test_glob, 0, SL_ARRAY_LEN(globs));
    tcase_add_test(cases, test_find);
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
