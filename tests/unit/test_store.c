/*
 * The store's life: made, opened again, refused when it is newer or damaged, whole after a crash;
 * and jobs: found by name, by owner, by number, listed from the newest on.
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

/* ---- jobs ------------------------------------------------------------------------------------ */

static enum sl_err open_job(uint32_t uid, const char *name, bool may_create,
                            struct sl_job_info *out)
{
    struct sl_job_request request = {
        .uid = uid, .name = sl_span_str(name), .may_create = may_create, .now_ms = STORE_NOW_MS};

    return sl_store_open_job(store, &request, out);
}

START_TEST(test_a_job_is_found_by_name)
{
    struct sl_job_info info;
    struct sl_job_info again;

    store_begin();
    ck_assert_int_eq(open_job(7, "a", false, &info), SL_ERR_NOT_FOUND);
    ck_assert_int_eq(open_job(7, "a", true, &info), SL_OK);
    ck_assert_uint_eq(info.uid, 7);
    ck_assert_str_eq(info.name, "a");
    ck_assert_int_eq(info.created_ms, STORE_NOW_MS);
    ck_assert_uint_eq(info.total + sl_job_ended(&info), 0);
    ck_assert_int_eq(open_job(7, "a", true, &again), SL_OK);
    ck_assert_uint_eq(again.job, info.job);
    store_next();
    ck_assert_int_eq(open_job(7, "a", false, &again), SL_OK);
    ck_assert_uint_eq(again.job, info.job);
    store_commit();
}
END_TEST

START_TEST(test_a_name_belongs_to_its_user)
{
    struct sl_job_info mine;
    struct sl_job_info other;

    store_begin();
    ck_assert_int_eq(open_job(7, "a", true, &mine), SL_OK);
    ck_assert_int_eq(open_job(8, "a", false, &other), SL_ERR_NOT_FOUND);
    ck_assert_int_eq(open_job(8, "a", true, &other), SL_OK);
    ck_assert_uint_ne(mine.job, other.job);
    /* Nor does a user's number flow into the name of another's job. */
    ck_assert_int_eq(open_job(0x61626364, "a", true, &other), SL_OK);
    ck_assert_int_eq(open_job(0x61626364, "b", false, &other), SL_ERR_NOT_FOUND);
    store_commit();
}
END_TEST

START_TEST(test_names_at_their_limit)
{
    char name[SL_NAME_BYTES_MAX + 2];
    struct sl_job_info info;
    struct sl_job_info again;

    memset(name, 'n', sizeof(name));
    name[SL_NAME_BYTES_MAX + 1] = '\0';
    store_begin();
    ck_assert_int_eq(open_job(7, name, true, &info), SL_ERR_INPUT);
    name[SL_NAME_BYTES_MAX] = '\0';
    ck_assert_int_eq(open_job(7, name, true, &info), SL_OK);
    store_commit();
    store_crash();
    store_begin();
    ck_assert_int_eq(open_job(7, name, false, &again), SL_OK);
    ck_assert_uint_eq(again.job, info.job);
    ck_assert_str_eq(again.name, name);
    store_commit();
}
END_TEST

START_TEST(test_generated_names_never_collide)
{
    struct sl_job_info info;
    char name[32];

    store_begin();
    for (uint32_t i = 2; i < 6; i++) { /* what the next jobs would be called */
        snprintf(name, sizeof(name), "job-%" PRIu32, i);
        ck_assert_int_eq(open_job(7, name, true, &info), SL_OK);
    }
    ck_assert_uint_eq(info.job, 4);
    ck_assert_int_eq(open_job(7, "", true, &info), SL_OK);
    ck_assert_str_eq(info.name, "job-6"); /* job-5 is there */
    ck_assert_uint_eq(info.job, 6);
    ck_assert_int_eq(open_job(8, "", true, &info), SL_OK);
    ck_assert_str_eq(info.name, "job-7");
    ck_assert_uint_eq(store_count(SL_DB_JOBS), 6);
    ck_assert_uint_eq(store_count(SL_DB_NAMES), 6);
    store_commit();
}
END_TEST

START_TEST(test_numbers_of_jobs_end_as_an_answer)
{
    struct sl_job_info info;

    store_begin();
    store->counters.next_job = UINT32_MAX;
    ck_assert_int_eq(open_job(7, "last", true, &info), SL_OK);
    ck_assert_uint_eq(info.job, UINT32_MAX);
    ck_assert_int_eq(open_job(7, "more", true, &info), SL_ERR_OVERLOADED);
    ck_assert_int_eq(open_job(7, "", true, &info), SL_ERR_OVERLOADED);
    ck_assert_int_eq(open_job(7, "last", true, &info), SL_OK);
    store_commit();
}
END_TEST

START_TEST(test_a_tasks_index_ends_as_an_answer)
{
    struct sl_cached_job *entry;

    store_begin();
    uint32_t job = store_job("full");
    ck_assert_int_eq(sl_store_job(store, job, &entry), SL_OK);
    entry->rec.next_idx = UINT32_MAX;
    entry->is_dirty = true;
    struct sl_task_msg msg = store_msg("one too many", "{}");
    struct sl_accept_reply reply = store_try_accept(job, &msg, 1);
    ck_assert_int_eq(reply.refused_err, SL_ERR_OVERLOADED);
    ck_assert_int_eq(reply.refused_idx, 0);
    store_commit();
}
END_TEST

START_TEST(test_listing_goes_from_the_newest_on)
{
    struct sl_job_info info;
    uint32_t below = UINT32_MAX;

    store_begin();
    ck_assert_int_eq(sl_store_previous_job(store, 7, true, &below, &info), SL_ERR_NOT_FOUND);
    for (uint32_t i = 0; i < 9; i++) {
        char name[8] = {(char)('a' + i)};
        ck_assert_int_eq(open_job(7 + i % 3, name, true, &info), SL_OK);
    }
    for (uint32_t i = 9; i-- > 0;) {
        ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_OK);
        ck_assert_int_eq(info.name[0], 'a' + (int)i);
    }
    ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_ERR_NOT_FOUND);
    below = UINT32_MAX;
    for (int i = 2; i >= 0; i--) {
        ck_assert_int_eq(sl_store_previous_job(store, 8, false, &below, &info), SL_OK);
        ck_assert_int_eq(info.name[0], 'b' + 3 * i);
        ck_assert_uint_eq(info.uid, 8);
    }
    ck_assert_int_eq(sl_store_previous_job(store, 8, false, &below, &info), SL_ERR_NOT_FOUND);
    store_commit();
}
END_TEST

/* What the same transaction changed is listed as it is now. */
START_TEST(test_listing_sees_its_own_transaction)
{
    struct sl_job_info info;
    uint32_t below = UINT32_MAX;
    bool done;

    store_begin();
    uint32_t job = store_job("j");
    store_accept_many(job, "t", 1);
    ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_OK);
    ck_assert_uint_eq(info.total, 1);
    struct sl_armed armed = store_arm_one();
    store_settle(&armed, SL_TASK_COMPLETED);
    below = UINT32_MAX;
    ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_OK);
    ck_assert_uint_eq(info.completed, 1);
    ck_assert_int_eq(sl_store_purge_slice(store, job, &done), SL_OK);
    below = UINT32_MAX;
    ck_assert_int_eq(sl_store_previous_job(store, 0, true, &below, &info), SL_ERR_NOT_FOUND);
    store_commit();
}
END_TEST

/* More jobs in one transaction than are kept at hand. */
START_TEST(test_a_transaction_over_many_jobs)
{
    uint32_t jobs[3 * SL_JOB_CACHE_MAX];

    store_begin();
    for (size_t i = 0; i < SL_ARRAY_LEN(jobs); i++) {
        char name[16];
        snprintf(name, sizeof(name), "j%zu", i);
        jobs[i] = store_job(name);
    }
    for (uint32_t round = 0; round < 4; round++) {
        for (size_t i = 0; i < SL_ARRAY_LEN(jobs); i++) {
            char prefix[16];
            snprintf(prefix, sizeof(prefix), "r%u", round);
            store_accept_many(jobs[i], prefix, 1);
        }
    }
    while (store_arm(100).count > 0) {
    }
    store_commit();
    store_crash();
    store_begin();
    for (size_t i = 0; i < SL_ARRAY_LEN(jobs); i++) {
        ck_assert_uint_eq(store_job_info(jobs[i]).total, 4);
    }
    ck_assert_uint_eq(sl_store_counters(store)->submitted, 4 * SL_ARRAY_LEN(jobs));
    store_commit();
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store");
    TCase *life = tcase_create("life");
    TCase *jobs = tcase_create("jobs");

    tcase_add_checked_fixture(life, store_set_up, store_tear_down);
    tcase_add_test(life, test_a_new_store_is_empty);
    tcase_add_test(life, test_each_open_raises_the_generation);
    tcase_add_test(life, test_what_was_committed_is_there_again);
    tcase_add_test(life, test_what_was_not_committed_never_was);
    tcase_add_test(life, test_reading_leaves_the_disk_alone);
    tcase_add_loop_test(life, test_a_store_of_wrong_counters_is_refused, 0,
                        SL_ARRAY_LEN(counter_faults));
    tcase_add_loop_test(life, test_what_is_no_store_is_refused, 0, SL_ARRAY_LEN(strange_files));
    tcase_add_test(life, test_no_directory_is_an_error);
    tcase_add_test(life, test_a_message_that_does_not_fit_is_cut);
    tcase_add_test_raise_signal(life, test_a_transaction_in_a_transaction_aborts, SIGABRT);
    tcase_add_test(life, test_supplies_come_back_in_order);
    tcase_add_test(life, test_a_damaged_supply_stops_the_start);
    suite_add_tcase(suite, life);
    tcase_add_checked_fixture(jobs, store_set_up, store_tear_down);
    tcase_add_test(jobs, test_a_job_is_found_by_name);
    tcase_add_test(jobs, test_a_name_belongs_to_its_user);
    tcase_add_test(jobs, test_names_at_their_limit);
    tcase_add_test(jobs, test_generated_names_never_collide);
    tcase_add_test(jobs, test_numbers_of_jobs_end_as_an_answer);
    tcase_add_test(jobs, test_a_tasks_index_ends_as_an_answer);
    tcase_add_test(jobs, test_listing_goes_from_the_newest_on);
    tcase_add_test(jobs, test_listing_sees_its_own_transaction);
    tcase_add_test(jobs, test_a_transaction_over_many_jobs);
    tcase_set_timeout(jobs, 60);
    suite_add_tcase(suite, jobs);
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
