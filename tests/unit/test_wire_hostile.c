/*
 * Hostile frames: every valid frame cut at every byte and with every byte changed, and the payloads
 * that break naive readers. Payloads stand in heap blocks of their exact size, so that a sanitizer
 * sees a read one byte past the end; what a decoder takes in spite of a change is checked again
 * against the bounds (tests/support/wire_samples.c aborts on a broken promise).
 */
#include "common/wire.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/wire_samples.h"

#define SAMPLE_BYTES_MAX 4096

static struct sl_wire_decoder *decoder;

static void open_decoder(void)
{
    decoder = sl_wire_decoder_open();
    ck_assert_ptr_nonnull(decoder);
}

static void close_decoder(void)
{
    sl_wire_decoder_close(&decoder);
    ck_assert_ptr_null(decoder);
}

/* Decodes a copy that ends where its memory ends. */
static enum sl_err decode_exact(enum sl_frame_type type, const char *bytes, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);

    ck_assert_ptr_nonnull(copy);
    if (len > 0) {
        memcpy(copy, bytes, len);
    }
    enum sl_err err = sample_decode(decoder, type, sl_span_of(copy + (len == 0), len));
    free(copy);
    return err;
}

static struct sl_span make_payload(enum sl_frame_type type, char buf[SAMPLE_BYTES_MAX])
{
    struct sl_wire_writer writer;

    sl_wire_writer_init(&writer, buf, SAMPLE_BYTES_MAX);
    ck_assert_int_eq(sample_frame(&writer, type), SL_OK);
    return sl_span_of(buf + SL_FRAME_HEADER_BYTES, writer.len - SL_FRAME_HEADER_BYTES);
}

static size_t count_types(void)
{
    enum sl_frame_type type;
    size_t count = 0;

    while (sample_type_at(count, &type)) {
        count++;
    }
    return count;
}

START_TEST(test_every_cut_is_refused)
{
    char buf[SAMPLE_BYTES_MAX];
    enum sl_frame_type type;

    ck_assert(sample_type_at((size_t)_i, &type));
    struct sl_span payload = make_payload(type, buf);
    ck_assert_int_eq(decode_exact(type, payload.ptr, payload.len), SL_OK);
    for (size_t len = 0; len < payload.len; len++) {
        ck_assert_msg(decode_exact(type, payload.ptr, len) == SL_ERR_PROTOCOL,
                      "%s cut to %zu of %zu bytes", sl_frame_name(type), len, payload.len);
    }
}
END_TEST

START_TEST(test_trailing_bytes_are_refused)
{
    char buf[SAMPLE_BYTES_MAX];
    char longer[SAMPLE_BYTES_MAX * 2];
    enum sl_frame_type type;

    ck_assert(sample_type_at((size_t)_i, &type));
    struct sl_span payload = make_payload(type, buf);
    memcpy(longer, payload.ptr, payload.len);
    for (unsigned byte = 0; byte < 256; byte++) {
        longer[payload.len] = (char)byte;
        ck_assert_int_eq(decode_exact(type, longer, payload.len + 1), SL_ERR_PROTOCOL);
    }
    memcpy(longer + payload.len, payload.ptr, payload.len);
    ck_assert_int_eq(decode_exact(type, longer, payload.len * 2), SL_ERR_PROTOCOL);
}
END_TEST

/* 255 other values for each byte: nothing crashes, and what is taken is within bounds. */
START_TEST(test_every_changed_byte_is_survived)
{
    char buf[SAMPLE_BYTES_MAX];
    enum sl_frame_type type;
    size_t refused = 0;

    ck_assert(sample_type_at((size_t)_i, &type));
    struct sl_span payload = make_payload(type, buf);
    char *bytes = buf + SL_FRAME_HEADER_BYTES;
    for (size_t at = 0; at < payload.len; at++) {
        char old = bytes[at];
        for (unsigned byte = 0; byte < 256; byte++) {
            bytes[at] = (char)byte;
            refused += decode_exact(type, bytes, payload.len) != SL_OK;
        }
        bytes[at] = old;
    }
    ck_assert_uint_gt(refused, 0);
}
END_TEST

/* Any payload under any type: only one decoder's message is its own. */
START_TEST(test_payloads_of_other_types)
{
    char buf[SAMPLE_BYTES_MAX];
    enum sl_frame_type type;
    enum sl_frame_type other;

    ck_assert(sample_type_at((size_t)_i, &type));
    struct sl_span payload = make_payload(type, buf);
    for (size_t i = 0; sample_type_at(i, &other); i++) {
        enum sl_err err = decode_exact(other, payload.ptr, payload.len);
        ck_assert(err == SL_OK || err == SL_ERR_PROTOCOL);
    }
}
END_TEST

#define BYTES(text) text, sizeof(text) - 1

static const struct {
    const char *what;
    const char *bytes;
    size_t len;
} hostile_cases[] = {
    {"nothing", BYTES("")},
    {"array32 of 2^32-1", BYTES("\xdd\xff\xff\xff\xff")},
    {"map32 of 2^32-1", BYTES("\xdf\xff\xff\xff\xff")},
    {"array32 of 2^27", BYTES("\xdd\x08\x00\x00\x00")},
    {"array16 of 65535, one there", BYTES("\xdc\xff\xff\x01")},
    {"map16 of 65535, one there", BYTES("\xde\xff\xff\x01\x01")},
    {"map of one without its value", BYTES("\x81\xa1k")},
    {"str32 of 2^32-1", BYTES("\x91\xdb\xff\xff\xff\xff")},
    {"bin32 of 2^32-1", BYTES("\x91\xc6\xff\xff\xff\xff")},
    {"str8 one short", BYTES("\x91\xd9\x05four")},
    {"str header cut", BYTES("\x91\xda\x00")},
    {"uint64 one short", BYTES("\x91\xcf\x00\x00\x00\x00\x00\x00\x00")},
    {"the unused tag", BYTES("\x91\xc1")},
    {"ext8", BYTES("\x91\xc7\x01\x01x")},
    {"ext16", BYTES("\x91\xc8\x00\x01\x01x")},
    {"ext32", BYTES("\x91\xc9\x00\x00\x00\x01\x01x")},
    {"fixext1", BYTES("\x91\xd4\x01x")},
    {"fixext16", BYTES("\x91\xd8\x01xxxxxxxxxxxxxxxx")},
    {"nil", BYTES("\xc0")},
    {"two values", BYTES("\x91\x01\x91\x01")},
    {"a scalar", BYTES("\x01")},
    {"name with NUL", BYTES("\x91\xa3"
                            "a\x00"
                            "b")},
};

START_TEST(test_hostile_payloads)
{
    enum sl_frame_type type;

    for (size_t i = 0; sample_type_at(i, &type); i++) {
        ck_assert_msg(decode_exact(type, hostile_cases[_i].bytes, hostile_cases[_i].len) ==
                          SL_ERR_PROTOCOL,
                      "%s as %s", hostile_cases[_i].what, sl_frame_name(type));
    }
}
END_TEST

/* {"k": [[[...]]]}: containers within containers, `levels` of them, the document's map included. */
static enum sl_err decode_nested(size_t levels)
{
    char bytes[256] = "\x81\xa1k";
    size_t len = 3;

    for (size_t i = 0; i + 2 < levels; i++) {
        bytes[len++] = (char)0x91;
    }
    bytes[len++] = (char)0x90;
    return decode_exact(SL_FRAME_DOCUMENT, bytes, len);
}

START_TEST(test_depth)
{
    ck_assert_int_eq(decode_nested(2), SL_OK);
    ck_assert_int_eq(decode_nested(SL_FRAME_DEPTH_MAX), SL_OK);
    ck_assert_int_eq(decode_nested(SL_FRAME_DEPTH_MAX + 1), SL_ERR_PROTOCOL);
    ck_assert_int_eq(decode_nested(200), SL_ERR_PROTOCOL);
}
END_TEST

/* A document {"k": [nil, nil, ...]}: the map, the key, the array and the nils are objects. */
static enum sl_err decode_wide(size_t objects)
{
    size_t nils = objects - 3;
    char *bytes = malloc(8 + nils);

    ck_assert_ptr_nonnull(bytes);
    memcpy(bytes, "\x81\xa1k\xdd", 4);
    sl_put_be32(bytes + 4, (uint32_t)nils);
    memset(bytes + 8, 0xc0, nils);
    enum sl_err err = sample_decode(decoder, SL_FRAME_DOCUMENT, sl_span_of(bytes, 8 + nils));
    free(bytes);
    return err;
}

START_TEST(test_object_count)
{
    ck_assert_int_eq(decode_wide(SL_FRAME_OBJECTS_MAX), SL_OK);
    ck_assert_int_eq(decode_wide(SL_FRAME_OBJECTS_MAX + 1), SL_ERR_PROTOCOL);
}
END_TEST

START_TEST(test_random_bytes)
{
    uint64_t seed = 20260101;
    char bytes[64];
    enum sl_frame_type type;

    printf("test_random_bytes: seed %" PRIu64 "\n", seed);
    for (size_t round = 0; round < 20000; round++) {
        for (size_t i = 0; i < sizeof(bytes); i++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            bytes[i] = (char)(seed >> 56);
        }
        bytes[0] = (char)(0x90 | (bytes[0] & 0x03)); /* else nearly all end at the first byte */
        ck_assert(sample_type_at(round % count_types(), &type));
        decode_exact(type, bytes, (size_t)(uint8_t)bytes[1] % sizeof(bytes) + 1);
    }
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("wire_hostile");
    TCase *cases = tcase_create("wire_hostile");
    int types = (int)count_types();

    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, open_decoder, close_decoder);
    tcase_add_loop_test(cases, test_every_cut_is_refused, 0, types);
    tcase_add_loop_test(cases, test_trailing_bytes_are_refused, 0, types);
    tcase_add_loop_test(cases, test_every_changed_byte_is_survived, 0, types);
    tcase_add_loop_test(cases, test_payloads_of_other_types, 0, types);
    tcase_add_loop_test(cases, test_hostile_payloads, 0, SL_ARRAY_LEN(hostile_cases));
    tcase_add_test(cases, test_depth);
    tcase_add_test(cases, test_object_count);
    tcase_add_test(cases, test_random_bytes);
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
