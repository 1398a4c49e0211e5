/*
 * Fixture of the tests of params; see the header. HOME is the test's own directory, so that no
 * file of the user who runs the tests is ever read.
 */
#include "tests/support/params_case.h"

#include <check.h>
#include <stdlib.h>

#include "tests/support/tmp_dir.h"

static struct sl_config config;
static struct sl_config_fault fault;

struct sl_config *const case_config = &config;
struct sl_config_fault *const case_fault = &fault;

static const char *const variables[] = {
    "SLUICE_CONFIG",
    "SLUICE_LLM_QUEUE_ENABLED",
    "SLUICE_LLM_QUEUE_CONCURRENCY",
    "SLUICE_STATE_DIR",
    "SLUICE_SOCKET",
    "SLUICE_LOG_LEVEL",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
};

void case_begin(void)
{
    tmp_dir_make();
    for (size_t i = 0; i < SL_ARRAY_LEN(variables); i++) {
        unsetenv(variables[i]);
    }
    setenv("HOME", tmp_dir_path(), 1);
    memset(&config, 0x5a, sizeof(config));
    fault.text[0] = '\0';
}

void case_end(void)
{
    tmp_dir_remove();
}

bool case_config_is_untouched(void)
{
    const unsigned char *bytes = (const unsigned char *)&config;

    return bytes[0] == 0x5a && memcmp(bytes, bytes + 1, sizeof(config) - 1) == 0;
}

enum sl_err case_load(const char *text)
{
    return sl_config_load(tmp_dir_write("sluice.conf", text), &config, &fault);
}

void case_expect_ok(enum sl_err err)
{
    ck_assert_msg(err == SL_OK, "refused: %s", fault.text);
}

void case_expect_refused(enum sl_err err, const char *fragment)
{
    ck_assert_msg(err == SL_ERR_CONFIG, "taken, but \"%s\" was expected", fragment);
    ck_assert_msg(strstr(fault.text, fragment) != NULL, "\"%s\" is not in \"%s\"", fragment,
                  fault.text);
}
