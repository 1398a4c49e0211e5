/*
 * libFuzzer: any bytes as JSON.
 *
 *   cmake -S . -B build-fuzz -DSLUICE_FUZZ=ON -DCMAKE_C_COMPILER=clang
 *   cmake --build build-fuzz --target fuzz_json
 *   build-fuzz/tests/fuzz_json -seed=20260101 -max_total_time=10 -max_len=4096
 *
 * What the scanner takes must give picks inside the text, decode, survive minifying unchanged in
 * meaning (the minified text is taken too, and minifying it again changes nothing); what it refuses
 * must name a byte of the text. Any bytes must survive put_string and get_string once they are
 * valid UTF-8. Fuzzing builds only.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sl_json_scanner *scanner;

static void check_pick(struct sl_span text, const struct sl_json_pick *pick)
{
    char *buf = malloc(pick->raw.len + 1);
    size_t len = 0;
    double number;
    int64_t whole;

    SL_ASSERT(buf != NULL);
    SL_ASSERT((pick->kind == SL_JSON_ABSENT) == (pick->raw.len == 0));
    SL_ASSERT(pick->raw.len == 0 || pick->raw.ptr >= text.ptr);
    SL_ASSERT(pick->raw.len == 0 || pick->raw.ptr + pick->raw.len <= text.ptr + text.len);
    enum sl_err err = sl_json_get_string(pick, buf, pick->raw.len + 1, &len);
    SL_ASSERT(err == SL_ERR_INPUT || len + 2 <= pick->raw.len);
    err = sl_json_get_int(pick, -5, 5, &whole);
    SL_ASSERT(err == SL_ERR_INPUT || (whole >= -5 && whole <= 5));
    err = sl_json_get_double(pick, &number);
    SL_ASSERT(err == SL_OK || err == SL_ERR_INPUT);
    free(buf);
}

static void check_minified(struct sl_span text)
{
    struct sl_json_text once = {.buf = NULL};
    struct sl_json_text twice = {.buf = NULL};
    struct sl_json_fault fault;

    sl_json_put_minified(&once, text);
    struct sl_span line = sl_span_of(once.buf, once.len);
    SL_ASSERT(sl_json_scan(scanner, line, NULL, 0, NULL, &fault) == SL_OK);
    sl_json_put_minified(&twice, line);
    SL_ASSERT(sl_span_equal(line, sl_span_of(twice.buf, twice.len)));
    sl_json_text_fini(&once);
    sl_json_text_fini(&twice);
}

/* Whatever the bytes, the written string is JSON, and written again it stays the same. */
static void check_string(struct sl_span bytes)
{
    struct sl_json_text once = {.buf = NULL};
    struct sl_json_text twice = {.buf = NULL};
    struct sl_json_pick pick = {.path = ""};
    struct sl_json_fault fault;
    size_t len = 0;

    sl_json_put_string(&once, bytes);
    char *back = malloc(once.len);
    SL_ASSERT(back != NULL);
    struct sl_span written = sl_span_of(once.buf, once.len);
    SL_ASSERT(sl_json_scan(scanner, written, &pick, 1, NULL, &fault) == SL_OK);
    SL_ASSERT(sl_json_get_string(&pick, back, once.len, &len) == SL_OK);
    sl_json_put_string(&twice, sl_span_of(back, len));
    SL_ASSERT(sl_span_equal(written, sl_span_of(twice.buf, twice.len)));
    free(back);
    sl_json_text_fini(&once);
    sl_json_text_fini(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const strict[] = {"s", NULL};
    struct sl_json_pick picks[] = {{.path = ""}, {.path = "a"}, {.path = "a.b"}, {.path = "s.c"}};
    struct sl_span text = sl_span_of(data, size);
    struct sl_json_fault fault;

    if (scanner == NULL) {
        scanner = sl_json_scanner_open();
        SL_ASSERT(scanner != NULL);
    }
    enum sl_err err = sl_json_scan(scanner, text, picks, SL_ARRAY_LEN(picks), strict, &fault);
    if (err == SL_OK) {
        for (size_t i = 0; i < SL_ARRAY_LEN(picks); i++) {
            check_pick(text, &picks[i]);
        }
        check_minified(text);
    } else {
        SL_ASSERT(err == SL_ERR_INPUT && fault.offset <= text.len);
        SL_ASSERT(strlen(fault.reason) > 0);
    }
    check_string(text);
    return 0;
}
