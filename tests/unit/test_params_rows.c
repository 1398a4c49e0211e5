/*
 * The table of parameters, row by row: the value at each limit and one past, every wrong type, and
 * damaged files. Nothing here names a row but the few that need company, so that a new row is
 * tested at once.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/os.h"
#include "common/params_table.h"
#include "tests/support/params_case.h"
#include "tests/support/tmp_dir.h"

#define PROVIDER_PREFIX "providers."
#define SNIPPET_BYTES 16384

/* Settings that other rows need beside them to be taken at their limits. */
static const struct {
    const char *key;
    const char *beside;
} companies[] = {
    {"state_dir", "socket = \"/s\";"}, /* its default lies in state_dir and must be short */
    {"providers.retry.base_ms", "max_ms = 86400000;"},
    {"providers.retry.max_ms", "base_ms = 1;"},
};

static const char *company_of(const char *key)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(companies); i++) {
        if (strcmp(companies[i].key, key) == 0) {
            return companies[i].beside;
        }
    }
    return "";
}

/* "worker.processes" and 4: "worker = { processes = 4; };"; `key` without "providers.". */
static void write_setting(const struct sl_param *row, const char *key, const char *value,
                          char *text, size_t size)
{
    const char *dot = strchr(key, '.');
    int len;

    if (dot == NULL) {
        len = snprintf(text, size, "%s = %s; %s", key, value, company_of(row->key));
    } else {
        len = snprintf(text, size, "%.*s = { %s = %s; %s };", (int)(dot - key), key, dot + 1, value,
                       company_of(row->key));
    }
    ck_assert(len > 0 && (size_t)len < size);
}

/* Loads a file in which the row has this value, every other one its default. */
static enum sl_err load_row(const struct sl_param *row, const char *value)
{
    static char setting[SNIPPET_BYTES];
    static char text[SNIPPET_BYTES + 256];
    const char *key = row->key + strlen(PROVIDER_PREFIX);

    if (!row->is_of_provider) {
        write_setting(row, row->key, value, setting, sizeof(setting));
        return case_load(setting);
    }
    write_setting(row, key, value, setting, sizeof(setting));
    snprintf(text, sizeof(text),
             "providers = ( { %s%s%s }, { name = \"b\"; base_url = \"http://h\"; } );",
             strcmp(key, "name") == 0 ? "" : "name = \"a\"; ",
             strcmp(key, "base_url") == 0 ? "" : "base_url = \"http://h\"; ", setting);
    return case_load(text);
}

static void expect_taken(const struct sl_param *row, const char *value)
{
    enum sl_err err = load_row(row, value);

    ck_assert_msg(err == SL_OK, "%s = %.80s is refused: %s", row->key, value, case_fault->text);
}

static void expect_refused(const struct sl_param *row, const char *value)
{
    char place[128];
    enum sl_err err = load_row(row, value);

    ck_assert_msg(err == SL_ERR_CONFIG, "%s = %.80s is taken", row->key, value);
    snprintf(place, sizeof(place), "sluice.conf:1: %s: ", row->key);
    ck_assert_msg(strstr(case_fault->text, place) != NULL, "\"%s\" is not in \"%s\"", place,
                  case_fault->text);
}

static const struct sl_param *get_row(int idx)
{
    const struct sl_param *row = sl_params_row((size_t)idx);

    ck_assert_ptr_nonnull(row);
    return row;
}

/* ---- limits ---------------------------------------------------------------------------------- */

static const char *integer_text(double value, int64_t change)
{
    static char text[32];

    snprintf(text, sizeof(text), "%" PRId64 "L", (int64_t)value + change);
    return text;
}

static void check_integer_limits(const struct sl_param *row)
{
    expect_taken(row, integer_text(row->min, 0));
    expect_taken(row, integer_text(row->max, 0));
    expect_refused(row, integer_text(row->min, -1));
    expect_refused(row, integer_text(row->max, 1));
    if (row->type == SL_PARAM_COUNT) {
        expect_refused(row, "4294967297L"); /* 1, if somebody cut it to 32 bits */
        expect_refused(row, "-4294967295L");
    }
}

static const char *seconds_text(double value)
{
    static char text[32];

    snprintf(text, sizeof(text), "%.4f", value);
    return text;
}

static void check_seconds_limits(const struct sl_param *row)
{
    expect_taken(row, seconds_text(row->min));
    expect_taken(row, seconds_text(row->max));
    expect_taken(row, integer_text(row->max, 0));
    expect_refused(row, seconds_text(row->min - 0.001));
    expect_refused(row, seconds_text(row->max + 0.001));
    expect_refused(row, integer_text(row->max, 1));
}

/* A string of `len` bytes that has the row's form, in quotes. */
static const char *string_text(const struct sl_param *row, size_t len)
{
    static char text[1024];
    const char *head = "";

    ck_assert(len + 3 < sizeof(text));
    if (len > 0 && row->type == SL_PARAM_PATH) {
        head = "/";
    } else if (len > 0 && row->type == SL_PARAM_URL) {
        head = "http://";
    }
    memset(text, 'A', sizeof(text));
    text[0] = '"';
    memcpy(text + 1, head, SL_MIN(strlen(head), len));
    text[len + 1] = '"';
    text[len + 2] = '\0';
    return text;
}

static void check_string_limits(const struct sl_param *row)
{
    expect_taken(row, string_text(row, (size_t)row->min));
    expect_taken(row, string_text(row, (size_t)row->max));
    if (row->min > 0) {
        expect_refused(row, string_text(row, (size_t)row->min - 1));
    }
    expect_refused(row, string_text(row, (size_t)row->max + 1));
}

static void check_address_limits(const struct sl_param *row)
{
    expect_taken(row, "\"\"");
    expect_taken(row, "\"[1111:2222:3333:4444:5555:6666:7777:8888]:65535\"");
    expect_taken(row, "\"0.0.0.0:0\"");
    expect_refused(row, string_text(row, (size_t)row->max));
    expect_refused(row, string_text(row, (size_t)row->max + 1));
}

static void check_choices(const struct sl_param *row)
{
    const char *at = row->range;
    char value[64];

    for (int idx = 0; *at != '\0'; idx++) {
        size_t len = strcspn(at, ",");
        snprintf(value, sizeof(value), "\"%.*s\"", (int)len, at);
        /* The later kinds of providers are known, but refused by name. */
        if (strcmp(row->key, "providers.kind") == 0 && idx > 0) {
            expect_refused(row, value);
        } else {
            expect_taken(row, value);
        }
        at += len + strspn(at + len, ", ");
    }
    expect_refused(row, "\"\"");
    expect_refused(row, "\"INFO\"");
    expect_refused(row, "\"e\"");
}

/* A list of `count` members, all naming the second provider. */
static const char *list_text(int count)
{
    static char text[4096];
    size_t len = (size_t)snprintf(text, sizeof(text), "[");

    for (int i = 0; i < count; i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s\"b\"", i > 0 ? "," : "");
        ck_assert(len < sizeof(text) - 1);
    }
    snprintf(text + len, sizeof(text) - len, "]");
    return text;
}

static void check_list_limits(const struct sl_param *row)
{
    char member[SL_NAME_BYTES_MAX + 8];

    expect_taken(row, list_text((int)row->min));
    expect_taken(row, list_text((int)row->max));
    expect_refused(row, list_text((int)row->max + 1));
    expect_refused(row, "[ \"\" ]");
    memset(member, 'A', sizeof(member));
    memcpy(member, "[\"", 2);
    memcpy(member + 2 + SL_NAME_BYTES_MAX + 1, "\"]", 3);
    expect_refused(row, member);
    ck_assert_ptr_nonnull(strstr(case_fault->text, "a member has 129 bytes; write 1..128"));
}

START_TEST(test_limits)
{
    const struct sl_param *row = get_row(_i);

    switch (row->type) {
    case SL_PARAM_BOOL:
        expect_taken(row, "true");
        expect_taken(row, "false");
        break;
    case SL_PARAM_COUNT:
    case SL_PARAM_AMOUNT:
        check_integer_limits(row);
        break;
    case SL_PARAM_SECONDS:
        check_seconds_limits(row);
        break;
    case SL_PARAM_CHOICE:
        check_choices(row);
        break;
    case SL_PARAM_NAMES:
        check_list_limits(row);
        break;
    case SL_PARAM_NAME:
    case SL_PARAM_URL:
    case SL_PARAM_PATH:
    case SL_PARAM_VARIABLE:
        check_string_limits(row);
        break;
    case SL_PARAM_ADDRESS:
        check_address_limits(row);
        break;
    }
}
END_TEST

/* ---- types ----------------------------------------------------------------------------------- */

enum literal { LITERAL_BOOL, LITERAL_INTEGER, LITERAL_FRACTION, LITERAL_STRING, LITERAL_LIST };

static bool takes(enum sl_param_type type, enum literal literal)
{
    switch (type) {
    case SL_PARAM_BOOL:
        return literal == LITERAL_BOOL;
    case SL_PARAM_COUNT:
    case SL_PARAM_AMOUNT:
        return literal == LITERAL_INTEGER;
    case SL_PARAM_SECONDS:
        return literal == LITERAL_INTEGER || literal == LITERAL_FRACTION;
    case SL_PARAM_NAMES:
        return literal == LITERAL_LIST;
    case SL_PARAM_CHOICE:
    case SL_PARAM_NAME:
    case SL_PARAM_URL:
    case SL_PARAM_PATH:
    case SL_PARAM_ADDRESS:
    case SL_PARAM_VARIABLE:
        return literal == LITERAL_STRING;
    }
    return false;
}

START_TEST(test_wrong_types)
{
    static const struct {
        enum literal literal;
        const char *text;
    } values[] = {
        {LITERAL_BOOL, "true"},      {LITERAL_INTEGER, "5"},    {LITERAL_INTEGER, "5L"},
        {LITERAL_FRACTION, "5.0"},   {LITERAL_STRING, "\"5\""}, {LITERAL_LIST, "[ \"b\" ]"},
        {LITERAL_LIST, "( \"b\" )"},
    };
    const struct sl_param *row = get_row(_i);

    for (size_t i = 0; i < SL_ARRAY_LEN(values); i++) {
        if (!takes(row->type, values[i].literal)) {
            expect_refused(row, values[i].text);
        }
    }
    expect_refused(row, "{ a = 1; }");
}
END_TEST

START_TEST(test_row_is_whole)
{
    struct sl_param_info info;
    const struct sl_param *row = get_row(_i);

    ck_assert(sl_param_at((size_t)_i, &info));
    ck_assert_str_eq(info.name, row->key);
    ck_assert_ptr_eq(sl_params_find_row(info.name), row); /* so names are unique */
    ck_assert_uint_eq(sl_params_row_idx(row), (size_t)_i);
    ck_assert(info.type[0] != '\0' && info.range[0] != '\0');
    ck_assert(strlen(info.help) > 10 && info.help[strlen(info.help) - 1] == '.');
    ck_assert_ptr_null(strchr(info.help, '|')); /* they stand in a table of the docs */
    ck_assert(strcmp(info.effect, "restart") == 0 || strcmp(info.effect, "reload") == 0);
    ck_assert(info.env[0] == '\0' || strncmp(info.env, "SLUICE_", 7) == 0);
    ck_assert(!row->is_of_provider || row->effect == SL_PARAM_RELOAD);
}
END_TEST

/* ---- damaged files --------------------------------------------------------------------------- */

#define EXAMPLE SLUICE_SOURCE_DIR "/conf/sluice.conf"
#define DAMAGED_FILES 3000

/* libconfig forgets the string it has just read when the syntax is wrong after it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig";
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Whatever stands in a file, it is taken or refused with a text; nothing crashes or hangs. */
START_TEST(test_damaged_example)
{
    static const char bytes[] = "{}()[];=\",.#/*@\\0123456789xLeE+-\n tfan\x01\xff";
    static char whole[32768];
    static char text[32768];
    uint64_t seed;
    FILE *example = fopen(EXAMPLE, "re");

    ck_assert_ptr_nonnull(example);
    size_t len = fread(whole, 1, sizeof(whole), example);
    fclose(example);
    ck_assert(len > 1000 && len < sizeof(whole));
    sl_os_random(&seed, sizeof(seed));
    printf("test_damaged_example: seed %" PRIu64 "\n", seed);
    for (int i = 0; i < DAMAGED_FILES; i++) {
        memcpy(text, whole, len);
        for (uint64_t damage = next_random(&seed) % 4; damage < 4; damage++) {
            text[next_random(&seed) % len] = bytes[next_random(&seed) % (sizeof(bytes) - 1)];
        }
        size_t kept = next_random(&seed) % 4 == 0 ? next_random(&seed) % len : len;
        const char *path = tmp_dir_write_bytes("sluice.conf", text, kept);
        case_fault->text[0] = '\0';
        enum sl_err err = sl_config_load(path, case_config, case_fault);
        ck_assert(err == SL_OK || err == SL_ERR_CONFIG);
        ck_assert_int_eq(err == SL_OK, case_fault->text[0] == '\0');
    }
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("params_rows");
    TCase *cases = tcase_create("params_rows");
    int count = 0;

    while (sl_params_row((size_t)count) != NULL) {
        count++;
    }
    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, case_begin, case_end);
    tcase_add_loop_test(cases, test_limits, 0, count);
    tcase_add_loop_test(cases, test_wrong_types, 0, count);
    tcase_add_loop_test(cases, test_row_is_whole, 0, count);
    tcase_add_test(cases, test_damaged_example);
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
