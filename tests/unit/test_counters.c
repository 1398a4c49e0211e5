/*
 * The counters: the table is sound and agrees with docs/metrics.md and the status document; the
 * block counts, shows itself to readers and to nobody for writing; hostile memory is refused; and
 * numbers that must add up do so for a reader while the writer never rests.
 */
#include "common/counters.h"

#include <check.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/os.h"
#include "common/shm.h"

static struct sl_counters counters;

static void set_up(void)
{
    ck_assert_int_eq(sl_counters_create(7, &counters), SL_OK);
}

static void tear_down(void)
{
    sl_counters_close(&counters);
}

/* ---- the table --------------------------------------------------------------------------------
 */

/* The queue object of sluice-status --json, in its order, as the outside of Sluice promises it. */
static const char *const status_fields[] = {
    "concurrency", "blocked",   "ready",         "delayed",      "inflight",      "submitted",
    "completed",   "failed",    "cancelled",     "expired",      "retries",       "provider_calls",
    "cache_hits",  "coalesced", "stale_results", "input_tokens", "output_tokens",
};

START_TEST(test_status_fields_are_complete)
{
    size_t found = 0;

    for (size_t i = 0; i < SL_COUNTER_COUNT; i++) {
        const char *field = sl_counter_row((enum sl_counter)i)->field;
        if (field[0] == '\0') {
            continue;
        }
        ck_assert_uint_lt(found, SL_ARRAY_LEN(status_fields));
        ck_assert_str_eq(field, status_fields[found]);
        found++;
    }
    ck_assert_uint_eq(found, SL_ARRAY_LEN(status_fields));
}
END_TEST

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text);
    size_t end_len = strlen(end);

    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

START_TEST(test_names_follow_prometheus)
{
    for (size_t i = 0; i < SL_COUNTER_COUNT; i++) {
        const struct sl_counter_row *row = sl_counter_row((enum sl_counter)i);
        bool is_gauge = row->type == SL_COUNTER_TYPE_GAUGE;
        bool is_time = row->type == SL_COUNTER_TYPE_COUNTER_NS;
        ck_assert_msg(strncmp(row->metric, "llm_queue_", 10) == 0, "%s", row->metric);
        ck_assert_msg(row->metric[strspn(row->metric, "abcdefghijklmnopqrstuvwxyz_")] == '\0', "%s",
                      row->metric);
        ck_assert_msg(ends_with(row->metric, "_total") == !is_gauge, "%s", row->metric);
        ck_assert_msg(ends_with(row->metric, "_seconds_total") == is_time, "%s", row->metric);
        ck_assert_msg(ends_with(row->help, "."), "%s", row->metric);
        ck_assert_msg(strpbrk(row->help, "\\\n") == NULL, "%s", row->metric);
    }
}
END_TEST

static bool is_same_sample(const struct sl_counter_row *a, const struct sl_counter_row *b)
{
    return strcmp(a->metric, b->metric) == 0 && strcmp(a->labels, b->labels) == 0;
}

START_TEST(test_rows_of_a_metric_stand_together)
{
    for (size_t i = 1; i < SL_COUNTER_COUNT; i++) {
        const struct sl_counter_row *row = sl_counter_row((enum sl_counter)i);
        const struct sl_counter_row *above = sl_counter_row((enum sl_counter)(i - 1));
        bool is_same = strcmp(row->metric, above->metric) == 0;
        ck_assert_msg(!is_same || row->type == above->type, "%s", row->metric);
        ck_assert_msg(!is_same || strcmp(row->help, above->help) == 0, "%s", row->metric);
        for (size_t j = 0; j < i; j++) {
            const struct sl_counter_row *other = sl_counter_row((enum sl_counter)j);
            ck_assert_msg(!is_same_sample(row, other), "%s twice", row->metric);
            ck_assert_msg(is_same || strcmp(row->metric, other->metric) != 0, "%s is apart",
                          row->metric);
        }
    }
}
END_TEST

static void format_doc_row(char *line, size_t size, const struct sl_counter_row *row)
{
    const char *label_tick = row->labels[0] != '\0' ? "`" : "";
    const char *field_tick = row->field[0] != '\0' ? "`" : "";

    snprintf(line, size, "| `%s` | %s | %s%s%s | %s%s%s | %s | %s |\n", row->metric,
             row->type == SL_COUNTER_TYPE_GAUGE ? "gauge" : "counter", label_tick, row->labels,
             label_tick, field_tick, row->field, field_tick, row->survives ? "yes" : "no",
             row->help);
}

START_TEST(test_docs_agree_with_table)
{
    FILE *docs = fopen(SLUICE_SOURCE_DIR "/docs/metrics.md", "r");
    char line[512];
    char expected[512];
    size_t found = 0;

    ck_assert_msg(docs != NULL, "docs/metrics.md: %s", strerror(errno));
    while (fgets(line, sizeof(line), docs) != NULL) {
        if (strncmp(line, "| `llm_queue_", 13) != 0) {
            continue;
        }
        ck_assert_msg(found < SL_COUNTER_COUNT, "not in counters.def: %s", line);
        format_doc_row(expected, sizeof(expected), sl_counter_row((enum sl_counter)found));
        ck_assert_str_eq(line, expected);
        found++;
    }
    fclose(docs);
    ck_assert_uint_eq(found, SL_COUNTER_COUNT);
}
END_TEST

/* ---- counting ---------------------------------------------------------------------------------
 */

START_TEST(test_counts)
{
    for (size_t i = 0; i < SL_COUNTER_COUNT; i++) {
        ck_assert_uint_eq(sl_counters_get(&counters, (enum sl_counter)i), 0);
    }
    sl_counters_add(&counters, SL_COUNTER_READY, 5);
    sl_counters_add(&counters, SL_COUNTER_READY, 0);
    sl_counters_sub(&counters, SL_COUNTER_READY, 2);
    sl_counters_set(&counters, SL_COUNTER_SUBMITTED, UINT64_MAX - 1);
    sl_counters_add(&counters, SL_COUNTER_SUBMITTED, 1);
    ck_assert_uint_eq(sl_counters_get(&counters, SL_COUNTER_READY), 3);
    ck_assert_uint_eq(sl_counters_get(&counters, SL_COUNTER_SUBMITTED), UINT64_MAX);
    ck_assert_uint_eq(sl_counters_get(&counters, SL_COUNTER_BLOCKED), 0);
    sl_counters_sub(&counters, SL_COUNTER_READY, 3);
    ck_assert_uint_eq(sl_counters_get(&counters, SL_COUNTER_READY), 0);
}
END_TEST

START_TEST(test_below_zero_aborts)
{
    sl_counters_add(&counters, SL_COUNTER_READY, 1);
    sl_counters_sub(&counters, SL_COUNTER_READY, 2);
}
END_TEST

START_TEST(test_nested_change_aborts)
{
    sl_counters_begin(&counters);
    sl_counters_begin(&counters);
}
END_TEST

/* ---- readers ----------------------------------------------------------------------------------
 */

START_TEST(test_reader_sees_the_writer)
{
    struct sl_counters reader;
    uint64_t values[SL_COUNTER_COUNT];

    ck_assert_int_eq(sl_counters_attach_readonly(sl_counters_fd(&counters), &reader), SL_OK);
    ck_assert_ptr_ne(reader.block, counters.block);
    ck_assert_ptr_null(reader.writable);
    ck_assert_uint_eq(reader.block->header.generation, 7);
    ck_assert_uint_eq(reader.block->header.pid, (uint32_t)getpid());
    ck_assert_uint_eq(strlen(reader.block->header.boot_id), 36);
    ck_assert_int_gt(reader.block->header.started_ns, 0);
    sl_counters_add(&counters, SL_COUNTER_RETRIES, 42);
    ck_assert_uint_eq(sl_counters_get(&reader, SL_COUNTER_RETRIES), 42);

    sl_counters_begin(&counters);
    ck_assert_int_eq(sl_counters_read(&reader, values), SL_ERR_AGAIN);
    ck_assert_uint_eq(values[SL_COUNTER_RETRIES], 42); /* each number is right all the same */
    sl_counters_add(&counters, SL_COUNTER_RETRIES, 1);
    sl_counters_end(&counters);
    ck_assert_int_eq(sl_counters_read(&reader, values), SL_OK);
    ck_assert_uint_eq(values[SL_COUNTER_RETRIES], 43);

    tear_down(); /* the reader's map outlives the writer */
    ck_assert_uint_eq(sl_counters_get(&reader, SL_COUNTER_RETRIES), 43);
    sl_counters_close(&reader);
    sl_counters_close(&reader); /* harmless */
}
END_TEST

START_TEST(test_nobody_else_can_write_or_resize)
{
    int fd = sl_counters_fd(&counters);

    ck_assert_int_eq(ftruncate(fd, 0), -1);
    ck_assert_int_eq(ftruncate(fd, 1 << 20), -1);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    if ((fcntl(fd, F_GET_SEALS) & F_SEAL_FUTURE_WRITE) == 0) {
        printf("skipped: the kernel does not know F_SEAL_FUTURE_WRITE\n");
        return;
    }
    ck_assert_int_eq(pwrite(fd, "x", 1, 0), -1);
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_eq(memory, MAP_FAILED);
    memory = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    ck_assert_int_eq(mprotect(memory, 4096, PROT_READ | PROT_WRITE), -1);
    munmap(memory, 4096);
}
END_TEST

/* ---- hostile memory ---------------------------------------------------------------------------
 */

enum forgery {
    FORGED_NOTHING,
    FORGED_MAGIC,
    FORGED_VERSION,
    FORGED_COUNT,
    FORGED_TABLE,
    FORGED_SHORT,
    FORGED_LONG,
    FORGED_HEADER_ONLY,
    FORGED_UNSEALED,
    FORGED_EMPTY,
};

static const struct {
    enum forgery forgery;
    enum sl_err err;
} forgeries[] = {
    {FORGED_NOTHING, SL_OK},          {FORGED_MAGIC, SL_ERR_SHM},
    {FORGED_VERSION, SL_ERR_VERSION}, {FORGED_COUNT, SL_ERR_VERSION},
    {FORGED_TABLE, SL_ERR_VERSION},   {FORGED_SHORT, SL_ERR_SHM},
    {FORGED_LONG, SL_ERR_SHM},        {FORGED_HEADER_ONLY, SL_ERR_SHM},
    {FORGED_UNSEALED, SL_ERR_SHM},    {FORGED_EMPTY, SL_ERR_SHM},
};

static size_t forged_size(enum forgery forgery)
{
    switch (forgery) {
    case FORGED_SHORT:
        return sizeof(struct sl_counters_block) - 1;
    case FORGED_LONG:
        return sizeof(struct sl_counters_block) + 1;
    case FORGED_HEADER_ONLY:
        return sizeof(struct sl_counters_header);
    case FORGED_EMPTY:
        return 0;
    case FORGED_NOTHING:
    case FORGED_MAGIC:
    case FORGED_VERSION:
    case FORGED_COUNT:
    case FORGED_TABLE:
    case FORGED_UNSEALED:
        return sizeof(struct sl_counters_block);
    }
    return 0;
}

/* A memfd that looks like the block of `counters`, but for one thing. */
static int forge(enum forgery forgery)
{
    struct sl_counters_header header = counters.block->header;
    int fd = -1;
    size_t size = forged_size(forgery);

    header.magic += forgery == FORGED_MAGIC;
    header.version += forgery == FORGED_VERSION;
    header.count -= forgery == FORGED_COUNT;
    header.table_hash ^= forgery == FORGED_TABLE;
    ck_assert_int_eq(sl_shm_create("forged", &fd), SL_OK);
    if (size > 0) {
        ck_assert_int_eq(sl_shm_allocate(fd, size), SL_OK);
        ck_assert_int_eq(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
    }
    if (forgery != FORGED_UNSEALED) {
        ck_assert_int_eq(sl_shm_seal(fd, SL_SHM_SEALS_SIZE), SL_OK);
    }
    return fd;
}

START_TEST(test_forged_memory)
{
    struct sl_counters reader = {.memfd = -1};
    int fd = forge(forgeries[_i].forgery);

    ck_assert_int_eq(sl_counters_attach_readonly(fd, &reader), forgeries[_i].err);
    sl_counters_close(&reader);
    close(fd);
}
END_TEST

START_TEST(test_not_memory_at_all)
{
    struct sl_counters reader;
    int ends[2];
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(sl_counters_attach_readonly(ends[0], &reader), SL_ERR_SHM);
    ck_assert_int_eq(sl_counters_attach_readonly(file, &reader), SL_ERR_SHM);
    ck_assert_int_eq(sl_counters_attach_readonly(-1, &reader), SL_ERR_SHM);
    close(file);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

/* ---- adding up --------------------------------------------------------------------------------
 */

enum { TASKS = 1000, MOVES = 2000000 };

static _Atomic bool has_finished;

/* Moves tasks from ready to inflight and back, never resting. */
static void *move_tasks(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < MOVES; i++) {
        bool is_there = sl_counters_get(&counters, SL_COUNTER_READY) > 0 && i % 3 != 0;
        enum sl_counter from = is_there ? SL_COUNTER_READY : SL_COUNTER_INFLIGHT;
        enum sl_counter to = is_there ? SL_COUNTER_INFLIGHT : SL_COUNTER_READY;
        sl_counters_begin(&counters);
        if (sl_counters_get(&counters, from) > 0) {
            sl_counters_sub(&counters, from, 1);
            sl_counters_add(&counters, to, 1);
        }
        sl_counters_end(&counters);
    }
    atomic_store(&has_finished, true);
    return NULL;
}

START_TEST(test_numbers_add_up_while_they_change)
{
    struct sl_counters reader;
    uint64_t values[SL_COUNTER_COUNT];
    pthread_t thread;
    size_t whole = 0;
    size_t torn = 0;

    sl_counters_set(&counters, SL_COUNTER_READY, TASKS);
    ck_assert_int_eq(sl_counters_attach_readonly(sl_counters_fd(&counters), &reader), SL_OK);
    ck_assert_int_eq(pthread_create(&thread, NULL, move_tasks, NULL), 0);
    do {
        if (sl_counters_read(&reader, values) != SL_OK) {
            torn++;
            continue;
        }
        whole++;
        uint64_t sum = values[SL_COUNTER_READY] + values[SL_COUNTER_INFLIGHT];
        if (sum != TASKS) {
            ck_abort_msg("%" PRIu64 " tasks in a whole reading, not %d", sum, TASKS);
        }
    } while (!atomic_load(&has_finished));
    pthread_join(thread, NULL);
    printf("test_numbers_add_up_while_they_change: %zu whole readings, %zu given up\n", whole,
           torn);
    ck_assert_int_eq(sl_counters_read(&reader, values), SL_OK);
    ck_assert_uint_eq(values[SL_COUNTER_READY] + values[SL_COUNTER_INFLIGHT], TASKS);
    sl_counters_close(&reader);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("counters");
    TCase *table = tcase_create("table");
    TCase *block = tcase_create("block");

    tcase_add_test(table, test_status_fields_are_complete);
    tcase_add_test(table, test_names_follow_prometheus);
    tcase_add_test(table, test_rows_of_a_metric_stand_together);
    tcase_add_test(table, test_docs_agree_with_table);
    suite_add_tcase(suite, table);
    tcase_add_checked_fixture(block, set_up, tear_down);
    tcase_add_test(block, test_counts);
    tcase_add_test_raise_signal(block, test_below_zero_aborts, SIGABRT);
    tcase_add_test_raise_signal(block, test_nested_change_aborts, SIGABRT);
    tcase_add_test(block, test_reader_sees_the_writer);
    tcase_add_test(block, test_nobody_else_can_write_or_resize);
    tcase_add_loop_test(block, test_forged_memory, 0, SL_ARRAY_LEN(forgeries));
    tcase_add_test(block, test_not_memory_at_all);
    tcase_add_test(block, test_numbers_add_up_while_they_change);
    tcase_set_timeout(block, 60);
    suite_add_tcase(suite, block);
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
