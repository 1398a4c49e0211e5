/*
 * Group commit: operations run and come back in order, those that wait share a transaction within
 * its bounds, and none comes back before its sync. A commit that fails hands nothing back, is final
 * and says why; closing finishes what was given.
 *
 * fdatasync below takes the place of the C library's for LMDB: it can be held and made to fail.
 */
#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker/commit.h"
#include "broker/policy/retry.h"
#include "common/os.h"
#include "tests/support/store_case.h"
#include "tests/support/tmp_dir.h"
#include "tests/support/wait.h"

/* ---- a sync that can be held ----------------------------------------------------------------- */

int fdatasync(int fd);

static pthread_mutex_t sync_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t sync_changed = PTHREAD_COND_INITIALIZER;
static bool is_held;
static bool must_fail;
static size_t syncs_begun;
static size_t syncs_done;

int fdatasync(int fd)
{
    pthread_mutex_lock(&sync_mutex);
    syncs_begun++;
    pthread_cond_broadcast(&sync_changed);
    while (is_held) {
        pthread_cond_wait(&sync_changed, &sync_mutex);
    }
    syncs_done++;
    bool fails = must_fail;
    pthread_mutex_unlock(&sync_mutex);
    if (fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static void hold_syncs(bool hold)
{
    pthread_mutex_lock(&sync_mutex);
    is_held = hold;
    pthread_cond_broadcast(&sync_changed);
    pthread_mutex_unlock(&sync_mutex);
}

static void fail_syncs(void)
{
    pthread_mutex_lock(&sync_mutex);
    must_fail = true;
    pthread_mutex_unlock(&sync_mutex);
}

static size_t count_syncs(void)
{
    pthread_mutex_lock(&sync_mutex);
    size_t count = syncs_done;
    pthread_mutex_unlock(&sync_mutex);
    return count;
}

/* Until the store thread is in its next sync. */
static void wait_sync_begun(size_t before)
{
    pthread_mutex_lock(&sync_mutex);
    while (syncs_begun == before) {
        pthread_cond_wait(&sync_changed, &sync_mutex);
    }
    pthread_mutex_unlock(&sync_mutex);
}

/* ---- operations ------------------------------------------------------------------------------ */

#define OPS_MAX 20000

struct test_op {
    struct sl_op op;
    uint32_t number;
    uint32_t ran_as; /* from 1, by the store thread */
    bool is_read_only;
    bool is_lost; /* says that the transaction is lost */
    size_t write_bytes;
    bool is_done;
};

static struct test_op ops[OPS_MAX];
static struct sl_commit *commit;
static struct sl_counters_rec counters;
static int event_fd = -1;
static uint32_t ran;        /* store thread only */
static uint32_t done_count; /* loop thread only, as all below */
static uint32_t given;
static size_t syncs_at_start;

static enum sl_err run_op(struct sl_op *op, struct sl_store *run_store)
{
    struct test_op *own = SL_CONTAINER_OF(op, struct test_op, op);
    static char bytes[SL_VALUE_BYTES_MAX];
    struct sl_key key;

    own->ran_as = ++ran;
    if (own->is_lost) {
        return SL_ERR_STORE;
    }
    if (own->is_read_only) {
        return SL_OK;
    }
    run_store->counters.submitted++;
    for (size_t at = 0; at <= own->write_bytes; at += sizeof(bytes)) {
        sl_key_u64(&key, UINT64_C(1000000) * own->number + at);
        enum sl_err err = sl_db_put(run_store, SL_DB_BLOBS, &key,
                                    sl_span_of(bytes, own->write_bytes > 0 ? sizeof(bytes) : 1));
        if (err != SL_OK) {
            return err;
        }
    }
    return SL_OK;
}

static void done_op(struct sl_op *op)
{
    struct test_op *own = SL_CONTAINER_OF(op, struct test_op, op);

    ck_assert(!own->is_done);
    ck_assert_uint_gt(own->ran_as, 0);
    ck_assert_uint_eq(own->number, done_count); /* in the order given */
    own->is_done = true;
    done_count++;
}

static struct test_op *give_op(void)
{
    ck_assert_uint_lt(given, OPS_MAX);
    struct test_op *own = &ops[given];

    *own = (struct test_op){.op = {.run = run_op, .done = done_op}, .number = given};
    given++;
    sl_commit_add(commit, &own->op);
    return own;
}

static void give_ops(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        give_op();
    }
    sl_commit_flush(commit);
}

/* Until `count` operations have come back. */
static void wait_done(uint32_t count)
{
    while (done_count < count) {
        ck_assert(wait_readable(event_fd, WAIT_MS));
        sl_os_event_clear(event_fd);
        sl_commit_finish(commit, &counters);
    }
    ck_assert_uint_eq(done_count, count);
    ck_assert_uint_eq(sl_commit_pending(commit), given - count);
}

static void set_up(void)
{
    store_set_up();
    ck_assert_int_eq(sl_os_event_fd(&event_fd), SL_OK);
    ck_assert_int_eq(sl_commit_open(store, event_fd, &commit), SL_OK);
    syncs_at_start = count_syncs();
}

static void tear_down(void)
{
    hold_syncs(false);
    if (commit != NULL) {
        sl_commit_close(&commit);
    }
    sl_os_close(&event_fd);
    store_tear_down();
}

static uint64_t commits(void)
{
    return sl_commit_stats(commit).commits;
}

/* ---- order and bounds ------------------------------------------------------------------------ */

START_TEST(test_one_operation_at_once)
{
    give_ops(1);
    wait_done(1);
    ck_assert_uint_eq(commits(), 1);
    ck_assert_uint_eq(count_syncs() - syncs_at_start, 1);
    ck_assert_uint_eq(counters.submitted, 1);
    ck_assert_uint_gt(sl_commit_stats(commit).sync_ns, 0);
}
END_TEST

START_TEST(test_what_is_not_flushed_does_not_run)
{
    give_op();
    ck_assert_uint_eq(sl_commit_pending(commit), 1);
    sl_commit_finish(commit, &counters);
    ck_assert_uint_eq(done_count, 0);
    ck_assert_uint_eq(counters.submitted, 0);
    ck_assert_uint_eq(counters.generation, 1);
    sl_commit_flush(commit);
    wait_done(1);
    sl_commit_flush(commit); /* nothing: no commit */
    sl_commit_finish(commit, &counters);
    ck_assert_uint_eq(commits(), 1);
}
END_TEST

START_TEST(test_nothing_comes_back_before_its_sync)
{
    size_t before = syncs_at_start;

    hold_syncs(true);
    give_ops(3);
    wait_sync_begun(before);
    ck_assert(!wait_readable(event_fd, 0));
    sl_commit_finish(commit, &counters);
    ck_assert_uint_eq(done_count, 0);
    ck_assert_uint_eq(counters.submitted, 0); /* the counters are those on disk, too */
    ck_assert_uint_eq(sl_commit_pending(commit), 3);
    hold_syncs(false);
    wait_done(3);
    ck_assert_uint_eq(counters.submitted, 3);
}
END_TEST

START_TEST(test_what_waits_shares_a_commit)
{
    hold_syncs(true);
    give_ops(1);
    wait_sync_begun(syncs_at_start);
    for (int i = 0; i < 100; i++) {
        give_ops(10);
    }
    hold_syncs(false);
    wait_done(1001);
    ck_assert_uint_eq(commits(), 2);
    ck_assert_uint_eq(count_syncs() - syncs_at_start, 2);
    for (uint32_t i = 0; i < given; i++) {
        ck_assert_uint_eq(ops[i].ran_as, i + 1);
    }
}
END_TEST

static const struct {
    const char *name;
    uint32_t count;
    size_t cost_bytes;
    uint64_t commits;
} bounds[] = {
    {"one less than the most", SL_COMMIT_OPS_MAX - 1, 0, 1},
    {"the most", SL_COMMIT_OPS_MAX, 0, 1},
    {"one more", SL_COMMIT_OPS_MAX + 1, 0, 2},
    {"twice and one", 2 * SL_COMMIT_OPS_MAX + 1, 0, 3},
    {"64 MiB", 4, 16 * SL_MIB, 1},
    {"a byte more than 64 MiB begins another", 5, 16 * SL_MIB, 2},
    {"larger than a transaction", 3, 100 * SL_MIB, 3},
};

START_TEST(test_bounds_of_a_transaction)
{
    hold_syncs(true);
    give_ops(1);
    wait_sync_begun(syncs_at_start);
    for (uint32_t i = 0; i < bounds[_i].count; i++) {
        give_op()->op.cost_bytes = bounds[_i].cost_bytes;
    }
    sl_commit_flush(commit);
    hold_syncs(false);
    wait_done(1 + bounds[_i].count);
    ck_assert_msg(commits() == 1 + bounds[_i].commits, "%s: %" PRIu64 " commits", bounds[_i].name,
                  commits() - 1);
}
END_TEST

START_TEST(test_reading_costs_no_sync)
{
    for (int i = 0; i < 10; i++) {
        give_op()->is_read_only = true;
    }
    sl_commit_flush(commit);
    wait_done(10);
    ck_assert_uint_eq(commits(), 0);
    ck_assert_uint_eq(count_syncs(), syncs_at_start);
    give_op()->is_read_only = true;
    give_op();
    sl_commit_flush(commit);
    wait_done(12);
    ck_assert_uint_eq(commits(), 1);
}
END_TEST

/* An operation that comes back may be freed, and may ask for more. */
static void done_again(struct sl_op *op)
{
    struct test_op *own = SL_CONTAINER_OF(op, struct test_op, op);

    done_count++;
    if (own->number < 99) {
        struct test_op *next = malloc(sizeof(*next));
        ck_assert_ptr_nonnull(next);
        *next =
            (struct test_op){.op = {.run = run_op, .done = done_again}, .number = own->number + 1};
        given++;
        sl_commit_add(commit, &next->op);
    }
    free(own);
}

START_TEST(test_done_may_free_and_add)
{
    struct test_op *first = malloc(sizeof(*first));

    ck_assert_ptr_nonnull(first);
    *first = (struct test_op){.op = {.run = run_op, .done = done_again}};
    given = 1;
    sl_commit_add(commit, &first->op);
    while (done_count < 100) {
        sl_commit_flush(commit);
        wait_done(done_count + 1);
    }
    ck_assert_uint_eq(counters.submitted, 100);
    ck_assert_uint_eq(sl_commit_pending(commit), 0);
}
END_TEST

/* Many turns of random sizes against the store thread, for the thread sanitizer above all. */
START_TEST(test_many_turns)
{
    uint64_t seed;

    sl_os_random(&seed, sizeof(seed));
    printf("test_many_turns: seed=%" PRIu64 "\n", seed);
    while (given < OPS_MAX - 64) {
        uint32_t turn = (uint32_t)(sl_retry_random(&seed) % 64);
        for (uint32_t i = 0; i < turn; i++) {
            give_op()->is_read_only = sl_retry_random(&seed) % 4 == 0;
        }
        sl_commit_flush(commit);
        if (sl_retry_random(&seed) % 2 == 0) {
            sl_os_event_clear(event_fd);
            sl_commit_finish(commit, &counters);
        }
        const char *message;
        ck_assert(!sl_commit_failed(commit, &message));
    }
    wait_done(given);
    ck_assert_uint_le(commits(), given);
}
END_TEST

/* ---- failure --------------------------------------------------------------------------------- */

static void wait_failed(const char *reason)
{
    const char *message = NULL;

    while (!sl_commit_failed(commit, &message)) {
        ck_assert(wait_readable(event_fd, WAIT_MS));
        sl_os_event_clear(event_fd);
        sl_commit_finish(commit, &counters);
    }
    ck_assert_msg(strstr(message, reason) != NULL, "\"%s\" without \"%s\"", message, reason);
}

/* Nothing more runs or comes back, and nothing of it is on disk; what came before is. */
static void check_failure(uint32_t done)
{
    uint64_t submitted = counters.submitted;

    give_ops(5);
    sl_commit_finish(commit, &counters);
    ck_assert_uint_eq(done_count, done);
    ck_assert_uint_eq(sl_commit_pending(commit), given - done);
    ck_assert_uint_eq(counters.submitted, submitted);
    sl_commit_close(&commit);
    ck_assert_uint_eq(ops[given - 1].ran_as, 0);
    pthread_mutex_lock(&sync_mutex);
    must_fail = false;
    pthread_mutex_unlock(&sync_mutex);
    store_crash();
    store_begin();
    ck_assert_uint_eq(store_count(SL_DB_BLOBS), done);
    ck_assert_uint_eq(sl_store_counters(store)->submitted, done);
    store_commit();
}

START_TEST(test_a_failed_sync_hands_nothing_back)
{
    const char *message;

    give_ops(4);
    wait_done(4);
    ck_assert(!sl_commit_failed(commit, &message));
    ck_assert_str_eq(message, "");
    fail_syncs();
    give_ops(4);
    wait_failed("commit");
    ck_assert_uint_eq(done_count, 4);
    ck_assert_uint_eq(counters.submitted, 4);
    check_failure(4);
}
END_TEST

START_TEST(test_a_lost_transaction_hands_nothing_back)
{
    hold_syncs(true);
    give_ops(1);
    wait_sync_begun(syncs_at_start);
    give_op();
    give_op()->is_lost = true;
    give_op();
    sl_commit_flush(commit);
    hold_syncs(false);
    wait_failed("");
    ck_assert_uint_eq(ops[1].ran_as, 2);
    ck_assert_uint_eq(ops[3].ran_as, 0); /* behind the loss: not run */
    check_failure(1);
}
END_TEST

/* The file may not grow: what a full disk or a quota does to a write. */
START_TEST(test_a_write_that_fails)
{
    struct stat info;
    struct rlimit limit;

    give_ops(2);
    wait_done(2);
    ck_assert_int_eq(stat(tmp_dir_file("data.mdb"), &info), 0);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = (rlim_t)info.st_size;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    give_op()->write_bytes = SL_MIB;
    give_ops(3);
    wait_failed(strerror(EFBIG));
    ck_assert_uint_eq(done_count, 2);
    limit.rlim_cur = limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    check_failure(2);
}
END_TEST

/* ---- close ----------------------------------------------------------------------------------- */

START_TEST(test_close_finishes_what_it_was_given)
{
    hold_syncs(true);
    give_ops(1);
    wait_sync_begun(syncs_at_start);
    give_ops(2 * SL_COMMIT_OPS_MAX);
    give_op(); /* not even flushed */
    hold_syncs(false);
    sl_commit_close(&commit);
    ck_assert_ptr_null(commit);
    ck_assert_uint_eq(done_count, 0); /* there is nobody to tell any more */
    ck_assert_uint_eq(ran, given);
    store_crash();
    store_begin();
    ck_assert_uint_eq(store_count(SL_DB_BLOBS), given);
    store_commit();
}
END_TEST

START_TEST(test_close_of_an_idle_one)
{
    sl_commit_close(&commit);
    ck_assert_ptr_null(commit);
}
END_TEST

/* A signal to the process is the loop's: the store thread takes none. */
START_TEST(test_the_store_thread_takes_no_signals)
{
    sigset_t own;
    sigset_t pending;

    sigemptyset(&own);
    sigaddset(&own, SIGUSR1);
    ck_assert_int_eq(pthread_sigmask(SIG_BLOCK, &own, NULL), 0);
    give_ops(1);
    wait_done(1);
    ck_assert_int_eq(kill(getpid(), SIGUSR1), 0); /* would end us, were it taken */
    give_ops(1);
    wait_done(2);
    ck_assert_int_eq(sigpending(&pending), 0);
    ck_assert_int_eq(sigismember(&pending, SIGUSR1), 1);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("commit");
    TCase *tests = tcase_create("commit");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, test_one_operation_at_once);
    tcase_add_test(tests, test_what_is_not_flushed_does_not_run);
    tcase_add_test(tests, test_nothing_comes_back_before_its_sync);
    tcase_add_test(tests, test_what_waits_shares_a_commit);
    tcase_add_loop_test(tests, test_bounds_of_a_transaction, 0, SL_ARRAY_LEN(bounds));
    tcase_add_test(tests, test_reading_costs_no_sync);
    tcase_add_test(tests, test_done_may_free_and_add);
    tcase_add_test(tests, test_many_turns);
    tcase_add_test(tests, test_a_failed_sync_hands_nothing_back);
    tcase_add_test(tests, test_a_lost_transaction_hands_nothing_back);
    tcase_add_test(tests, test_a_write_that_fails);
    tcase_add_test(tests, test_close_finishes_what_it_was_given);
    tcase_add_test(tests, test_close_of_an_idle_one);
    tcase_add_test(tests, test_the_store_thread_takes_no_signals);
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
