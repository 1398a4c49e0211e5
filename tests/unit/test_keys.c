/*
 * Where API keys come from, which are refused, and that they are wiped.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/support/tmp_dir.h"
#include "worker/keys.h"

static struct sl_provider_config *cfg;
static struct sl_key *key;

static void set_up(void)
{
    tmp_dir_make();
    cfg = calloc(1, sizeof(*cfg));
    key = calloc(1, sizeof(*key));
    ck_assert(cfg != NULL && key != NULL);
    snprintf(cfg->name, sizeof(cfg->name), "openai");
    unsetenv("CREDENTIALS_DIRECTORY");
}

static void tear_down(void)
{
    free(cfg);
    free(key);
    tmp_dir_remove();
}

static void use_file(const char *text)
{
    const char *path = tmp_dir_write("key", text);

    ck_assert_int_eq(chmod(path, 0600), 0);
    snprintf(cfg->api_key_file, sizeof(cfg->api_key_file), "%s", path);
}

static void use_env(const char *value)
{
    snprintf(cfg->api_key_env, sizeof(cfg->api_key_env), "SLUICE_TEST_KEY");
    if (value != NULL) {
        setenv("SLUICE_TEST_KEY", value, 1);
    } else {
        unsetenv("SLUICE_TEST_KEY");
    }
}

static const struct {
    const char *text;
    enum sl_key_state state;
    const char *want;
} texts[] = {
    {"sk-abc", SL_KEY_PRESENT, "sk-abc"},
    {"sk-abc\n", SL_KEY_PRESENT, "sk-abc"},
    {"sk-abc\r\n", SL_KEY_PRESENT, "sk-abc"},
    {"", SL_KEY_MISSING, ""},
    {"\n", SL_KEY_MISSING, ""},
    {"sk-abc\nX-Evil: 1", SL_KEY_MISSING, ""},
    {"sk-abc\rX-Evil: 1", SL_KEY_MISSING, ""},
    {"sk abc", SL_KEY_MISSING, ""},
    {" sk-abc", SL_KEY_MISSING, ""},
    {"sk-\x7f", SL_KEY_MISSING, ""},
    {"sk-\xc3\xa4", SL_KEY_MISSING, ""},
};

START_TEST(takes_a_key_from_a_file_or_refuses_it)
{
    use_file(texts[_i].text);
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, texts[_i].state);
    ck_assert_str_eq(key->text, texts[_i].want);
    ck_assert_int_eq(key->reason[0] != '\0', texts[_i].state == SL_KEY_MISSING);
    ck_assert_ptr_null(strstr(key->reason, "sk-"));
}
END_TEST

START_TEST(takes_a_key_from_the_environment_or_refuses_it)
{
    use_env(texts[_i].text);
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, texts[_i].state);
    ck_assert_str_eq(key->text, texts[_i].want);
}
END_TEST

START_TEST(goes_without_a_key_when_none_is_named)
{
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, SL_KEY_NONE);
    ck_assert_str_eq(key->text, "");
}
END_TEST

START_TEST(misses_what_is_named_and_not_there)
{
    use_env(NULL);
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, SL_KEY_MISSING);
    ck_assert_ptr_nonnull(strstr(key->reason, "SLUICE_TEST_KEY"));

    snprintf(cfg->api_key_file, sizeof(cfg->api_key_file), "%s", tmp_dir_file("nothing"));
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, SL_KEY_MISSING);
    ck_assert_ptr_nonnull(strstr(key->reason, "nothing"));
}
END_TEST

START_TEST(knows_the_longest_key)
{
    char text[SL_KEY_BYTES_MAX + 2];

    memset(text, 'k', sizeof(text));
    text[SL_KEY_BYTES_MAX] = '\0';
    use_env(text);
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, SL_KEY_PRESENT);
    ck_assert_uint_eq(strlen(key->text), SL_KEY_BYTES_MAX);

    text[SL_KEY_BYTES_MAX] = 'k';
    text[SL_KEY_BYTES_MAX + 1] = '\0';
    use_env(text);
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, SL_KEY_MISSING);
    use_file(text);
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, SL_KEY_MISSING);
}
END_TEST

START_TEST(finds_a_systemd_credential)
{
    tmp_dir_write("openai", "sk-credential\n");
    setenv("CREDENTIALS_DIRECTORY", tmp_dir_path(), 1);
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, SL_KEY_PRESENT);
    ck_assert_str_eq(key->text, "sk-credential");

    use_env(NULL); /* named but missing: the credential helps out */
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, SL_KEY_PRESENT);

    use_env("sk-environment"); /* named and there: it wins */
    sl_key_load(cfg, key);
    ck_assert_str_eq(key->text, "sk-environment");

    snprintf(cfg->name, sizeof(cfg->name), "../openai");
    cfg->api_key_env[0] = '\0';
    sl_key_load(cfg, key);
    ck_assert_int_eq(key->state, SL_KEY_NONE);
}
END_TEST

START_TEST(wipes_a_key)
{
    static const struct sl_key blank;

    use_env("sk-abc");
    sl_key_load(cfg, key);
    sl_key_wipe(key);
    ck_assert_mem_eq(key, &blank, sizeof(blank));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("keys");
    TCase *cases = tcase_create("keys");

    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_loop_test(cases, takes_a_key_from_a_file_or_refuses_it, 0, (int)SL_ARRAY_LEN(texts));
    tcase_add_loop_test(cases, takes_a_key_from_the_environment_or_refuses_it, 0,
                        (int)SL_ARRAY_LEN(texts));
    tcase_add_test(cases, goes_without_a_key_when_none_is_named);
    tcase_add_test(cases, misses_what_is_named_and_not_there);
    tcase_add_test(cases, knows_the_longest_key);
    tcase_add_test(cases, finds_a_systemd_credential);
    tcase_add_test(cases, wipes_a_key);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
