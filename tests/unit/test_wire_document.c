/*
 * Documents (maps of maps and arrays) and the page for people: what a visitor is shown and in which
 * order, what is no document, how large one may be; and that docs/protocol.md names every row of
 * frames.def and shows a frame as it is.
 */
#include "common/wire.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/wire_samples.h"

#define FRAME_BYTES (256 * SL_KIB)

static struct sl_wire_decoder *decoder;
static struct sl_wire_writer writer;
static char frame[FRAME_BYTES];

static void open_all(void)
{
    decoder = sl_wire_decoder_open();
    ck_assert_ptr_nonnull(decoder);
    sl_wire_writer_init(&writer, frame, sizeof(frame));
}

static void close_all(void)
{
    sl_wire_decoder_close(&decoder);
}

/* Checks the header of the only frame written and returns its payload. */
static struct sl_span payload_of(enum sl_frame_type type)
{
    struct sl_frame_header header;

    ck_assert_uint_ge(writer.len, SL_FRAME_HEADER_BYTES);
    ck_assert_int_eq(sl_frame_header_get(frame, &header), SL_OK);
    ck_assert_int_eq(header.type, type);
    ck_assert_uint_eq(header.payload_bytes, writer.len - SL_FRAME_HEADER_BYTES);
    return sl_span_of(frame + SL_FRAME_HEADER_BYTES, header.payload_bytes);
}

/* ---- documents ------------------------------------------------------------------------------- */

struct transcript {
    char text[512];
    size_t len;
};

static void write_down(void *ctx, const struct sl_doc_value *value)
{
    static const char *const kinds[] = {
        [SL_DOC_MAP] = "{",     [SL_DOC_ARRAY] = "[", [SL_DOC_END] = "end",
        [SL_DOC_UINT] = "uint", [SL_DOC_INT] = "int", [SL_DOC_DOUBLE] = "double",
        [SL_DOC_BOOL] = "bool", [SL_DOC_STR] = "str", [SL_DOC_NIL] = "nil"};
    struct transcript *seen = ctx;
    int len =
        snprintf(seen->text + seen->len, sizeof(seen->text) - seen->len, "%.*s:%s:%lld:%.*s ",
                 (int)value->key.len, value->key.ptr, kinds[value->kind],
                 (long long)value->int_value, (int)value->str_value.len, value->str_value.ptr);

    ck_assert_int_gt(len, 0);
    seen->len += (size_t)len;
}

START_TEST(test_document)
{
    struct transcript seen = {.len = 0};

    ck_assert_int_eq(sample_frame(&writer, SL_FRAME_DOCUMENT), SL_OK);
    struct sl_span payload = payload_of(SL_FRAME_DOCUMENT);
    ck_assert_int_eq(sl_wire_walk_document(decoder, payload, write_down, &seen), SL_OK);
    ck_assert_str_eq(seen.text, ":{:0: state:str:0:running uptime_s:double:0: pid:uint:4711: "
                                "jobs:[:0: :int:-5: :{:0: done:bool:0: :end:0: :end:0: :end:0: ");
    ck_assert_int_eq(sl_wire_walk_document(decoder, payload, NULL, NULL), SL_OK);
}
END_TEST

static const struct {
    const char *what;
    struct sl_span payload;
} document_cases[] = {
    {"an array", {"\x90", 1}},
    {"a number for a key", {"\x81\x01\x01", 3}},
    {"an empty key", {"\x81\xa0\x01", 3}},
    {"a block of bytes", {"\x81\xa1k\xc4\x01x", 6}},
    {"a key with NUL", {"\x81\xa1\x00\x01", 4}},
    {"a text with NUL", {"\x81\xa1k\xa1\x00", 5}},
    {"bad behind good", {"\x82\xa1k\x01\x01\x01", 6}},
};

START_TEST(test_bad_documents)
{
    struct transcript seen = {.len = 0};

    ck_assert_msg(sl_wire_walk_document(decoder, document_cases[_i].payload, write_down, &seen) ==
                      SL_ERR_PROTOCOL,
                  "%s", document_cases[_i].what);
    ck_assert_uint_eq(seen.len, 0);
}
END_TEST

/* A document with more objects than a reader takes does not fit, however large the buffer is. */
START_TEST(test_document_too_large)
{
    for (uint32_t extra = 0; extra < 2; extra++) {
        uint32_t nils = SL_FRAME_OBJECTS_MAX - 3 + extra;
        sl_wire_writer_init(&writer, frame, sizeof(frame));
        size_t start = sl_wire_begin(&writer, SL_FRAME_DOCUMENT);
        sl_wire_put_map(&writer, 1);
        sl_wire_put_key(&writer, "k");
        sl_wire_put_array(&writer, nils);
        for (uint32_t i = 0; i < nils; i++) {
            sl_wire_put_uint(&writer, 1);
        }
        ck_assert_int_eq(sl_wire_end(&writer, start), extra == 0 ? SL_OK : SL_ERR_FULL);
    }
}
END_TEST

/* ---- the page for people --------------------------------------------------------------------- */

static const char *read_page(void)
{
    static char page[64 * 1024];
    FILE *file = fopen(SLUICE_SOURCE_DIR "/docs/protocol.md", "re");

    ck_assert_ptr_nonnull(file);
    size_t len = fread(page, 1, sizeof(page) - 1, file);
    fclose(file);
    ck_assert(len > 0 && len < sizeof(page) - 1);
    page[len] = '\0';
    return page;
}

/* Every row of frames.def is a row of a table there, under its number. */
START_TEST(test_page_names_every_frame)
{
    const char *page = read_page();
    enum sl_frame_type type;
    char row[64];

    for (size_t i = 0; sample_type_at(i, &type); i++) {
        snprintf(row, sizeof(row), "\n| %d | `%s` |", (int)type, sl_frame_name(type));
        ck_assert_msg(strstr(page, row) != NULL, "docs/protocol.md has no row %s", row + 1);
    }
}
END_TEST

/* The frame that is written out there byte by byte is what the encoder makes. */
START_TEST(test_page_shows_a_real_frame)
{
    char hex[3 * 64] = "";
    size_t len = 0;

    ck_assert_int_eq(sl_wire_put_hello(&writer, &(struct sl_hello_msg){sl_span_str("0.1.0")}),
                     SL_OK);
    for (size_t i = 0; i < writer.len; i++) {
        len += (size_t)snprintf(hex + len, sizeof(hex) - len, i == 0 ? "%02x" : " %02x",
                                (unsigned)(uint8_t)frame[i]);
    }
    ck_assert_msg(strstr(read_page(), hex) != NULL, "docs/protocol.md does not show %s", hex);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("wire_document");
    TCase *cases = tcase_create("wire_document");

    tcase_add_checked_fixture(cases, open_all, close_all);
    tcase_add_test(cases, test_document);
    tcase_add_loop_test(cases, test_bad_documents, 0, SL_ARRAY_LEN(document_cases));
    tcase_add_test(cases, test_document_too_large);
    tcase_add_test(cases, test_page_names_every_frame);
    tcase_add_test(cases, test_page_shows_a_real_frame);
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
