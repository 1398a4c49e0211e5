/*
 * The store's life: made, opened again, refused when it is newer or damaged, whole after a crash;
 * and the supplies that a start reads.
 */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/store_case.h"
#include "tests/support/tmp_dir.h"

/* ---- open ------------------------------------------------------------------------------------ */

START_TEST(test_a_new_store_is_empty)
{
    const struct sl_counters_rec *counters = sl_store_counters(store);

    ck_assert_uint_eq(counters->generation, 1);
    ck_assert_uint_eq(counters->format, SL_STORE_FORMAT);
    ck_assert_uint_eq(counters->submitted, 0);
    store_begin();
    for (size_t db = SL_DB_NAMES; db < SL_DB_COUNT; db++) {
        ck_assert_uint_eq(store_count((enum sl_db)db), 0);
    }
    ck_assert(!sl_store_is_dirty(store));
    store_commit();
}
END_TEST

START_TEST(test_each_open_raises_the_generation)
{
    for (uint64_t generation = 2; generation < 6; generation++) {
        store_crash();
        ck_assert_uint_eq(sl_store_counters(store)->generation, generation);
    }
}
END_TEST

START_TEST(test_what_was_committed_is_there_again)
{
    store_begin();
    uint32_t job = store_job("kept");
    uint64_t first = store_accept_many(job, "t", 3);
    store_commit();
    store_crash();
    store_begin();
    ck_assert_uint_eq(store_job("kept"), job);
    ck_assert_uint_eq(store_job_info(job).total, 3);
    ck_assert_uint_eq(sl_store_counters(store)->submitted, 3);
    ck_assert_int_eq(store_state(first + 2), SL_TASK_READY);
    store_commit();
}
END_TEST

START_TEST(test_what_was_not_committed_never_was)
{
    store_begin();
    uint32_t job = store_job("kept");
    store_accept_many(job, "t", 3);
    store_next();
    store_accept_many(job, "u", 4);
    uint32_t lost = store_job("lost");
    ck_assert_uint_eq(store_arm(2).count, 2);
    store_crash();
    store_begin();
    struct sl_job_info info;
    ck_assert_int_eq(sl_store_get_job(store, lost, &info), SL_ERR_NOT_FOUND);
    ck_assert_uint_eq(store_job_info(job).total, 3);
    ck_assert_uint_eq(sl_store_counters(store)->submitted, 3);
    ck_assert_uint_eq(store_count(SL_DB_READY), 3);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), 0);
    store_commit();
}
END_TEST

START_TEST(test_reading_leaves_the_disk_alone)
{
    store_begin();
    uint32_t job = store_job("j");
    uint64_t task = store_accept_many(job, "t", 1);
    store_next();
    struct sl_read_request read = {.job = job, .count_max = 10};
    struct store_results results;
    (void)store_view(task);
    (void)store_job_info(job);
    (void)store_job("j");
    store_read(&read, 4096, NULL, NULL, &results);
    ck_assert(!sl_store_is_dirty(store));
    store_commit();
}
END_TEST

/* Writes the counters record past the store, which would put its own in place. */
static void put_counters(const void *bytes, size_t len)
{
    MDB_txn *txn;
    MDB_val key = {.mv_size = strlen("counters"), .mv_data = "counters"};
    MDB_val value = {.mv_size = len, .mv_data = (void *)(uintptr_t)bytes};

    ck_assert_int_eq(mdb_txn_begin(store->env, NULL, 0, &txn), 0);
    ck_assert_int_eq(mdb_put(txn, store->dbi[SL_DB_META], &key, &value, 0), 0);
    ck_assert_int_eq(mdb_txn_commit(txn), 0);
}

static const struct {
    const char *name;
    size_t byte; /* flipped */
    size_t len;  /* kept of the record */
    enum sl_err err;
    const char *message;
} counter_faults[] = {
    {"newer format", offsetof(struct sl_counters_rec, format), sizeof(struct sl_counters_rec),
     SL_ERR_STORE_FORMAT, ""},
    {"newer format and another size", offsetof(struct sl_counters_rec, format),
     sizeof(struct sl_counters_rec) / 2, SL_ERR_STORE_FORMAT, ""},
    {"a number damaged", offsetof(struct sl_counters_rec, submitted),
     sizeof(struct sl_counters_rec), SL_ERR_STORE, "counters"},
    {"hash damaged", offsetof(struct sl_counters_rec, hash), sizeof(struct sl_counters_rec),
     SL_ERR_STORE, "counters"},
    {"cut off", 0, sizeof(struct sl_counters_rec) - 1, SL_ERR_STORE, "counters"},
    {"nearly nothing", 0, 3, SL_ERR_STORE, "counters"},
    {"nothing", 0, 0, SL_ERR_STORE, "counters"},
};

START_TEST(test_a_store_of_wrong_counters_is_refused)
{
    struct sl_counters_rec rec = *sl_store_counters(store);
    char *bytes = (char *)&rec;
    char message[256] = "";
    struct sl_store *again = NULL;

    bytes[counter_faults[_i].byte] = (char)(bytes[counter_faults[_i].byte] + 6);
    put_counters(bytes, counter_faults[_i].len);
    sl_store_close(&store);
    enum sl_err err = sl_store_open(tmp_dir_path(), &again, message, sizeof(message));
    ck_assert_msg(err == counter_faults[_i].err, "%s: %s", counter_faults[_i].name,
                  sl_err_code(err));
    ck_assert_ptr_null(again);
    ck_assert_msg(strstr(message, tmp_dir_path()) != NULL, "no path in: %s", message);
    ck_assert_msg(strstr(message, counter_faults[_i].message) != NULL, "%s", message);
}
END_TEST

static const struct {
    const char *name;
    const char *contents; /* of data.mdb */
    size_t len;
} strange_files[] = {
    {"text", "this is no database\n", 20},
    {"one byte", "\0", 1},
    {"zeros", NULL, 8192},
};

START_TEST(test_what_is_no_store_is_refused)
{
    char message[256] = "";
    struct sl_store *again = NULL;
    char zeros[8192] = {0};
    const char *contents = strange_files[_i].contents;

    sl_store_close(&store);
    tmp_dir_write_bytes("other/data.mdb", contents == NULL ? zeros : contents,
                        strange_files[_i].len);
    enum sl_err err = sl_store_open(tmp_dir_file("other"), &again, message, sizeof(message));
    ck_assert_msg(err == SL_ERR_STORE, "%s: %s", strange_files[_i].name, sl_err_code(err));
    ck_assert(message[0] != '\0');
}
END_TEST

START_TEST(test_no_directory_is_an_error)
{
    char message[256] = "";
    struct sl_store *again = NULL;

    enum sl_err err = sl_store_open(tmp_dir_file("missing"), &again, message, sizeof(message));
    ck_assert_int_eq(err, SL_ERR_STORE);
    ck_assert_ptr_nonnull(strstr(message, "missing"));
}
END_TEST

START_TEST(test_a_message_that_does_not_fit_is_cut)
{
    char message[8] = "1234567";
    struct sl_store *again = NULL;

    ck_assert_int_eq(sl_store_open(tmp_dir_file("missing"), &again, message, sizeof(message)),
                     SL_ERR_STORE);
    ck_assert_uint_eq(strlen(message), 7);
}
END_TEST

START_TEST(test_a_transaction_in_a_transaction_aborts)
{
    store_expect_abort();
    store_begin();
    ck_assert_int_eq(sl_store_begin(store), SL_OK);
}
END_TEST

/* ---- supplies -------------------------------------------------------------------------------- */

struct seen_supplies {
    uint32_t count;
    char longest[SL_NAME_BYTES_MAX + 1];
};

static void see_supply(void *ctx, const struct sl_supply_info *info)
{
    struct seen_supplies *seen = ctx;

    ck_assert_uint_eq(info->supply, seen->count);
    ck_assert_uint_eq(info->uid, 7 + info->supply);
    ck_assert_uint_eq(info->model.len, info->supply % (SL_NAME_BYTES_MAX + 1));
    ck_assert(sl_span_equal(info->model, sl_span_of(seen->longest, info->model.len)));
    ck_assert(sl_span_equal(info->provider, sl_span_str("p")) || info->supply == 2);
    seen->count++;
}

START_TEST(test_supplies_come_back_in_order)
{
    struct seen_supplies seen = {0};

    memset(seen.longest, 'm', SL_NAME_BYTES_MAX);
    store_begin();
    for (uint32_t i = 0; i < 300; i++) {
        struct sl_supply_info info = {
            .supply = i,
            .uid = 7 + i,
            .provider = i == 2 ? sl_span_str(seen.longest) : sl_span_str("p"),
            .model = sl_span_of(seen.longest, i % (SL_NAME_BYTES_MAX + 1)),
        };
        ck_assert_int_eq(sl_store_put_supply(store, &info), SL_OK);
    }
    store_commit();
    store_crash();
    store_begin();
    ck_assert_int_eq(sl_store_each_supply(store, see_supply, &seen), SL_OK);
    ck_assert_uint_eq(seen.count, 300);
    store_commit();
}
END_TEST

START_TEST(test_a_damaged_supply_stops_the_start)
{
    struct sl_supply_info info = {
        .supply = 0, .uid = 7, .provider = sl_span_str("p"), .model = sl_span_str("m")};
    struct sl_key key;
    struct seen_supplies seen = {0};

    store_begin();
    ck_assert_int_eq(sl_store_put_supply(store, &info), SL_OK);
    sl_key_u32(&key, 0);
    store_damage(SL_DB_SUPPLIES, &key, offsetof(struct sl_supply_rec, model_bytes));
    ck_assert_int_eq(sl_store_each_supply(store, see_supply, &seen), SL_ERR_STORE);
    ck_assert_uint_eq(seen.count, 0);
    store_commit();
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store");
    TCase *tests = tcase_create("life");

    tcase_add_checked_fixture(tests, store_set_up, store_tear_down);
    tcase_add_test(tests, test_a_new_store_is_empty);
    tcase_add_test(tests, test_each_open_raises_the_generation);
    tcase_add_test(tests, test_what_was_committed_is_there_again);
    tcase_add_test(tests, test_what_was_not_committed_never_was);
    tcase_add_test(tests, test_reading_leaves_the_disk_alone);
    tcase_add_loop_test(tests, test_a_store_of_wrong_counters_is_refused, 0,
                        SL_ARRAY_LEN(counter_faults));
    tcase_add_loop_test(tests, test_what_is_no_store_is_refused, 0, SL_ARRAY_LEN(strange_files));
    tcase_add_test(tests, test_no_directory_is_an_error);
    tcase_add_test(tests, test_a_message_that_does_not_fit_is_cut);
    tcase_add_test_raise_signal(tests, test_a_transaction_in_a_transaction_aborts, SIGABRT);
    tcase_add_test(tests, test_supplies_come_back_in_order);
    tcase_add_test(tests, test_a_damaged_supply_stops_the_start);
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
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
