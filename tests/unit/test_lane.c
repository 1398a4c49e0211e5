/*
 * Tests of common/lane and common/shm: a lane's two ends, every field of the header damaged, memory
 * that is not what it claims to be, the worker's words, and large bodies in frozen memory.
 */
#include "common/lane.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/hash.h"
#include "common/os.h"
#include "common/shm.h"
#include "common/shm_layout.h"

#if defined(__has_feature)
#define HAS_SANITIZER (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#else
#define HAS_SANITIZER 0
#endif

static int worker_event_fd = -1;
static int broker_event_fd = -1;
static struct sl_lane *broker;
static struct sl_lane *worker;

static int copy_fd(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    ck_assert_int_ge(copy, 0);
    return copy;
}

static void set_up(void)
{
    ck_assert_int_eq(sl_os_event_fd(&worker_event_fd), SL_OK);
    ck_assert_int_eq(sl_os_event_fd(&broker_event_fd), SL_OK);
    ck_assert_int_eq(sl_lane_create(3, 42, worker_event_fd, broker_event_fd, &broker), SL_OK);
}

static void tear_down(void)
{
    sl_lane_close(&worker);
    sl_lane_close(&broker);
    sl_os_close(&worker_event_fd);
    sl_os_close(&broker_event_fd);
}

static enum sl_err attach_copy(void)
{
    int fd = copy_fd(broker->memfd);
    enum sl_err err = sl_lane_attach(fd, worker_event_fd, broker_event_fd, &worker);

    if (err != SL_OK) {
        sl_os_close(&fd);
    }
    return err;
}

static size_t count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count;
}

/* ---- two ends -------------------------------------------------------------------------------- */

START_TEST(ends_agree)
{
    ck_assert_int_eq(attach_copy(), SL_OK);
    ck_assert_uint_eq(worker->idx, 3);
    ck_assert_uint_eq(worker->generation, 42);
    ck_assert_uint_eq(broker->idx, 3);
    ck_assert_uint_eq(broker->generation, 42);
    ck_assert_ptr_ne(worker->segment, broker->segment);
    ck_assert_uint_eq(broker->segment->header.broker_pid, (uint32_t)getpid());
    ck_assert_uint_gt(broker->segment->header.broker_start, 0);
}
END_TEST

START_TEST(name_and_seals_are_as_promised)
{
    char link[64];
    char name[128] = {0};

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", broker->memfd);
    ck_assert_int_gt(readlink(link, name, sizeof(name) - 1), 0);
    ck_assert_ptr_nonnull(strstr(name, "memfd:sluice-lane-3-g42"));
    int seals = fcntl(broker->memfd, F_GET_SEALS);
    ck_assert_int_eq(seals & SL_SHM_SEALS_FROZEN, SL_SHM_SEALS_SIZE);
    ck_assert_int_ne(ftruncate(broker->memfd, 0), 0);
    ck_assert_int_eq(errno, EPERM);
    ck_assert_int_ne(ftruncate(broker->memfd, 1 << 30), 0);
    ck_assert_int_eq(fcntl(broker->memfd, F_GETFD), FD_CLOEXEC);
}
END_TEST

static void send_one(struct sl_lane *lane, const char *text)
{
    struct sl_ring_claim claim;

    ck_assert_int_eq(sl_ring_reserve(&lane->out, strlen(text), &claim), SL_OK);
    memcpy(claim.msg, "hello", 5);
    memcpy(claim.payload, text, strlen(text));
    sl_ring_publish(&lane->out);
    sl_bell_ring(&lane->out_bell);
}

static void expect_one(struct sl_lane *lane, const char *text)
{
    struct sl_ring_item item;

    ck_assert_int_eq(sl_ring_peek(&lane->in, &item), SL_OK);
    ck_assert_mem_eq(item.msg, "hello\0", 6);
    ck_assert(sl_span_equal(item.payload, sl_span_str(text)));
    sl_ring_release(&lane->in, item.position);
    ck_assert(!sl_ring_has_items(&lane->in));
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

START_TEST(work_goes_down_and_results_up)
{
    ck_assert_int_eq(attach_copy(), SL_OK);
    sl_bell_arm(&worker->in_bell);
    ck_assert(!sl_ring_has_items(&worker->in));
    send_one(broker, "a question");
    ck_assert(is_readable(worker_event_fd));
    ck_assert(!is_readable(broker_event_fd));
    sl_bell_disarm(&worker->in_bell);
    expect_one(worker, "a question");
    sl_bell_arm(&broker->in_bell);
    send_one(worker, "an answer");
    ck_assert(is_readable(broker_event_fd));
    sl_bell_disarm(&broker->in_bell);
    expect_one(broker, "an answer");
    ck_assert(!is_readable(worker_event_fd));
}
END_TEST

START_TEST(space_bell_reaches_the_worker)
{
    ck_assert_int_eq(attach_copy(), SL_OK);
    sl_bell_ring(&broker->space_bell);
    ck_assert(sl_bell_wait(&worker->space_bell, 0));
    sl_bell_arm(&worker->space_bell);
    sl_bell_ring(&broker->space_bell);
    ck_assert(is_readable(worker_event_fd));
}
END_TEST

START_TEST(memory_outlives_the_broker)
{
    ck_assert_int_eq(attach_copy(), SL_OK);
    send_one(broker, "the last one");
    sl_lane_close(&broker);
    ck_assert_ptr_null(broker);
    sl_lane_close(&broker); /* of nothing: nothing */
    expect_one(worker, "the last one");
}
END_TEST

/* ---- what is not a lane ---------------------------------------------------------------------- */

#define FIELD(field, checked_beyond_sum)                                                           \
    {                                                                                              \
#field, offsetof(struct sl_lane_header, field),                                            \
            sizeof(((struct sl_lane_header *)0)->field), checked_beyond_sum                        \
    }

/* checked_beyond_sum: refused even when whoever damaged it has mended the checksum. Generation and
 * the broker's start time may hold any value. */
static const struct {
    const char *name;
    size_t offset;
    size_t bytes;
    bool is_checked_beyond_sum;
} fields[] = {
    FIELD(magic, true),
    FIELD(layout_version, true),
    FIELD(header_bytes, true),
    FIELD(total_bytes, true),
    FIELD(page_bytes, true),
    FIELD(endian_word, true),
    FIELD(semaphore_bytes, true),
    FIELD(ring_slots, true),
    FIELD(slot_bytes, true),
    FIELD(arena_bytes, true),
    FIELD(generation, false),
    FIELD(broker_start, false),
    FIELD(broker_pid, false),
    FIELD(lane_idx, true),
    FIELD(worker_offset, true),
    FIELD(bell_down_offset, true),
    FIELD(bell_up_offset, true),
    FIELD(bell_space_offset, true),
    FIELD(ring_down_offset, true),
    FIELD(ring_up_offset, true),
    FIELD(arena_down_offset, true),
    FIELD(arena_up_offset, true),
    FIELD(libc_tag, true),
    FIELD(boot_id, true),
    FIELD(checksum, false),
};

static void mend_checksum(struct sl_lane_header *header)
{
    size_t start = offsetof(struct sl_lane_header, layout_version);
    size_t end = offsetof(struct sl_lane_header, checksum);

    header->checksum = sl_hash64((const char *)header + start, end - start, 0);
}

START_TEST(every_byte_of_the_header_counts)
{
    char *header = (char *)&broker->segment->header;

    for (size_t i = 0; i < fields[_i].bytes; i++) {
        char *byte = header + fields[_i].offset + i;
        *byte = (char)(*byte ^ 0x41);
        ck_assert_msg(attach_copy() == SL_ERR_SHM, "byte %zu of %s", i, fields[_i].name);
        *byte = (char)(*byte ^ 0x41);
    }
    ck_assert_int_eq(attach_copy(), SL_OK);
}
END_TEST

START_TEST(header_with_a_mended_checksum_is_still_checked)
{
    struct sl_lane_header *header = &broker->segment->header;
    char *byte = (char *)header + fields[_i].offset + fields[_i].bytes - 1;

    *byte = (char)(*byte ^ 0x41);
    mend_checksum(header);
    enum sl_err expected = fields[_i].is_checked_beyond_sum ? SL_ERR_SHM : SL_OK;
    ck_assert_msg(attach_copy() == expected, "%s", fields[_i].name);
}
END_TEST

START_TEST(lane_idx_is_checked_at_its_limit)
{
    struct sl_lane_header *header = &broker->segment->header;

    header->lane_idx = SL_LANES_MAX - 1;
    mend_checksum(header);
    ck_assert_int_eq(attach_copy(), SL_OK);
    sl_lane_close(&worker);
    header->lane_idx = SL_LANES_MAX;
    mend_checksum(header);
    ck_assert_int_eq(attach_copy(), SL_ERR_SHM);
}
END_TEST

START_TEST(header_without_proc_is_accepted)
{
    struct sl_lane_header *header = &broker->segment->header;

    memset(header->boot_id, 0, sizeof(header->boot_id));
    mend_checksum(header);
    ck_assert_int_eq(attach_copy(), SL_OK);
}
END_TEST

#define LANE_BYTES sizeof(struct sl_lane_segment)

static const struct {
    const char *name;
    size_t bytes;
    int seals;
    bool is_sparse;
    enum sl_err expected;
} memory_cases[] = {
    {"as made by the broker", LANE_BYTES, SL_SHM_SEALS_SIZE, false, SL_OK},
    {"no seals", LANE_BYTES, 0, false, SL_ERR_SHM},
    {"may shrink", LANE_BYTES, F_SEAL_GROW | F_SEAL_SEAL, false, SL_ERR_SHM},
    {"may grow", LANE_BYTES, F_SEAL_SHRINK | F_SEAL_SEAL, false, SL_ERR_SHM},
    {"may be sealed further", LANE_BYTES, F_SEAL_SHRINK | F_SEAL_GROW, false, SL_ERR_SHM},
    {"sealed against writing", LANE_BYTES, SL_SHM_SEALS_FROZEN, false, SL_ERR_SHM},
    {"one byte short", LANE_BYTES - 1, SL_SHM_SEALS_SIZE, false, SL_ERR_SHM},
    {"one byte long", LANE_BYTES + 1, SL_SHM_SEALS_SIZE, false, SL_ERR_SHM},
    {"header only", sizeof(struct sl_lane_header), SL_SHM_SEALS_SIZE, false, SL_ERR_SHM},
    {"one byte", 1, SL_SHM_SEALS_SIZE, false, SL_ERR_SHM},
    {"with holes", LANE_BYTES, SL_SHM_SEALS_SIZE, true, SL_ERR_SHM},
};

/* A copy of the broker's header in memory of other properties. */
START_TEST(memory_is_checked_before_it_is_mapped)
{
    int fd = -1;
    size_t bytes = memory_cases[_i].bytes;
    size_t header_bytes = SL_MIN(bytes, sizeof(struct sl_lane_header));

    ck_assert_int_eq(sl_shm_create("test", &fd), SL_OK);
    if (memory_cases[_i].is_sparse) {
        ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
    } else {
        ck_assert_int_eq(sl_shm_allocate(fd, bytes), SL_OK);
    }
    ck_assert_int_eq(pwrite(fd, (const void *)&broker->segment->header, header_bytes, 0),
                     (ssize_t)header_bytes);
    ck_assert_int_eq(sl_shm_seal(fd, memory_cases[_i].seals), SL_OK);
    size_t fds_before = count_fds();
    enum sl_err err = sl_lane_attach(fd, worker_event_fd, broker_event_fd, &worker);
    ck_assert_msg(err == memory_cases[_i].expected, "%s: %s", memory_cases[_i].name,
                  sl_err_code(err));
    ck_assert_uint_eq(count_fds(), fds_before);
    ck_assert((worker != NULL) == (err == SL_OK));
    if (err != SL_OK) {
        ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC); /* still the caller's, still open */
        sl_os_close(&fd);
    }
}
END_TEST

START_TEST(other_descriptors_are_refused)
{
    int pipe_fds[2];
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct sl_span mapped;

    ck_assert_int_eq(pipe(pipe_fds), 0);
    const int fds[] = {-1, 9999, null_fd, pipe_fds[0], broker_event_fd};
    for (size_t i = 0; i < SL_ARRAY_LEN(fds); i++) {
        ck_assert_int_eq(sl_lane_attach(fds[i], worker_event_fd, broker_event_fd, &worker),
                         SL_ERR_SHM);
        ck_assert_int_eq(sl_shm_large_map(fds[i], 0, &mapped), SL_ERR_SHM);
        ck_assert_int_eq(sl_shm_large_map(fds[i], 10, &mapped), SL_ERR_SHM);
    }
}
END_TEST

/* ---- no memory, no descriptors --------------------------------------------------------------- */

static void set_limit(__rlimit_resource_t resource, rlim_t soft)
{
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(resource, &limit), 0);
    limit.rlim_cur = soft;
    ck_assert_int_eq(setrlimit(resource, &limit), 0);
}

START_TEST(no_descriptors_is_an_error)
{
    struct sl_lane *lane = NULL;
    struct sl_span part = sl_span_str("text");
    int fd = -1;

    set_limit(RLIMIT_NOFILE, 0);
    enum sl_err lane_err = sl_lane_create(1, 1, -1, -1, &lane);
    int reason = errno;
    enum sl_err large_err = sl_shm_large_create(&part, 1, &fd);
    set_limit(RLIMIT_NOFILE, 64); /* the leak check at the end of a process needs some */
    ck_assert_int_eq(lane_err, SL_ERR_IO);
    ck_assert_int_eq(reason, EMFILE);
    ck_assert_int_eq(large_err, SL_ERR_IO);
    ck_assert_ptr_null(lane);
    ck_assert_int_eq(fd, -1);
}
END_TEST

START_TEST(no_memory_is_an_error)
{
#if HAS_SANITIZER
    printf("skipped: a sanitizer needs more address space than this test leaves\n");
#else
    struct sl_lane *lane = NULL;
    size_t fds_before = count_fds();

    set_limit(RLIMIT_AS, 1);
    enum sl_err err = sl_lane_create(1, 1, -1, -1, &lane);
    set_limit(RLIMIT_AS, RLIM_INFINITY);
    ck_assert_int_eq(err, SL_ERR_NO_MEMORY);
    ck_assert_ptr_null(lane);
    ck_assert_uint_eq(count_fds(), fds_before);
#endif
}
END_TEST

/* ---- the worker's words ---------------------------------------------------------------------- */

START_TEST(stats_arrive)
{
    struct sl_worker_stats sent = {.calls = 7, .in_flight = UINT64_MAX, .heartbeat_ns = -5};
    struct sl_worker_stats got;

    ck_assert_int_eq(attach_copy(), SL_OK);
    sl_lane_set_stats(worker, &sent);
    sl_lane_get_stats(broker, &got);
    ck_assert_mem_eq(&got, &sent, sizeof(got));
}
END_TEST

static const struct {
    const char *written;
    const char *shown;
} words_cases[] = {
    {"", ""},
    {"level=error at=x.c:1\n", "level=error at=x.c:1"},
    {"\n\n", ""},
    {"a\nb\tc\033[2J\x7f\xc3\xa4", "a?b?c?[2J???"},
};

START_TEST(last_words_are_printable)
{
    char text[SL_LAST_WORDS_BYTES];

    ck_assert_int_eq(attach_copy(), SL_OK);
    memcpy(sl_lane_last_words_buffer(worker), words_cases[_i].written,
           strlen(words_cases[_i].written) + 1);
    sl_lane_last_words(broker, text);
    ck_assert_str_eq(text, words_cases[_i].shown);
}
END_TEST

START_TEST(last_words_without_end_are_cut)
{
    char text[SL_LAST_WORDS_BYTES];

    ck_assert_int_eq(attach_copy(), SL_OK);
    memset(sl_lane_last_words_buffer(worker), 'x', SL_LAST_WORDS_BYTES);
    sl_lane_last_words(broker, text);
    ck_assert_uint_eq(strlen(text), SL_LAST_WORDS_BYTES - 1);
}
END_TEST

/* ---- large bodies ---------------------------------------------------------------------------- */

static const size_t large_sizes[][3] = {
    {0, 0, 0},
    {1, 0, 0},
    {0, 0, 1},
    {4095, 1, 0},
    {4096, 1, 4096},
    {SL_MIB, SL_MIB, 1},
    {100, SL_BODY_BYTES_MAX - 100, 7},
};

START_TEST(large_body_travels_whole)
{
    struct sl_span parts[3];
    struct sl_span mapped = {0};
    size_t largest = SL_MAX(SL_MAX(large_sizes[_i][0], large_sizes[_i][1]), large_sizes[_i][2]);
    char *bytes = malloc(largest + 1);
    size_t total = 0;
    int fd = -1;

    ck_assert_ptr_nonnull(bytes);
    for (size_t i = 0; i < largest; i++) {
        bytes[i] = (char)(i * 31 + (i >> 12));
    }
    for (size_t i = 0; i < 3; i++) {
        parts[i] = sl_span_of(bytes, large_sizes[_i][i]);
        total += large_sizes[_i][i];
    }
    ck_assert_int_eq(sl_shm_large_create(parts, 3, &fd), SL_OK);
    ck_assert_int_eq(sl_shm_large_map(fd, total, &mapped), SL_OK);
    ck_assert_uint_eq(mapped.len, total);
    const char *cursor = mapped.ptr;
    for (size_t i = 0; i < 3; i++) {
        ck_assert(memcmp(cursor, bytes, large_sizes[_i][i]) == 0);
        cursor += large_sizes[_i][i];
    }
    struct sl_span other;
    ck_assert_int_eq(sl_shm_large_map(fd, total + 1, &other), SL_ERR_SHM);
    ck_assert(total == 0 || sl_shm_large_map(fd, total - 1, &other) == SL_ERR_SHM);
    ck_assert_int_eq(pwrite(fd, "x", 1, 0), -1); /* whoever holds it: the bytes stay */
    ck_assert_int_eq(errno, EPERM);
    sl_shm_large_unmap(&mapped);
    ck_assert_ptr_null(mapped.ptr);
    sl_os_close(&fd);
    free(bytes);
}
END_TEST

START_TEST(large_body_has_a_limit)
{
    char byte = 'x';
    int fd = -1;
    size_t fds_before = count_fds();
    struct sl_span over = sl_span_of(&byte, SL_LARGE_BYTES_MAX + 1);
    struct sl_span wraps[2] = {sl_span_of(&byte, SIZE_MAX), sl_span_of(&byte, 2)};
    struct sl_span mapped;

    ck_assert_int_eq(sl_shm_large_create(&over, 1, &fd), SL_ERR_NO_MEMORY);
    ck_assert_int_eq(sl_shm_large_create(wraps, 2, &fd), SL_ERR_NO_MEMORY);
    ck_assert_int_eq(fd, -1);
    ck_assert_uint_eq(count_fds(), fds_before);
    ck_assert_int_eq(sl_shm_large_map(broker->memfd, SL_LARGE_BYTES_MAX + 1, &mapped), SL_ERR_SHM);
}
END_TEST

static const struct {
    const char *name;
    int seals;
    bool is_sparse;
    enum sl_err expected;
} large_cases[] = {
    {"frozen", SL_SHM_SEALS_FROZEN, false, SL_OK},
    {"unsealed", 0, false, SL_ERR_SHM},
    {"may be written", SL_SHM_SEALS_SIZE, false, SL_ERR_SHM},
    {"may shrink", SL_SHM_SEALS_FROZEN & ~F_SEAL_SHRINK, false, SL_ERR_SHM},
    {"may grow", SL_SHM_SEALS_FROZEN & ~F_SEAL_GROW, false, SL_ERR_SHM},
    {"may be sealed further", SL_SHM_SEALS_FROZEN & ~F_SEAL_SEAL, false, SL_ERR_SHM},
    {"with holes", SL_SHM_SEALS_FROZEN, true, SL_ERR_SHM},
};

START_TEST(large_memory_is_checked)
{
    int fd = -1;
    size_t bytes = 100000;
    struct sl_span mapped = {0};

    ck_assert_int_eq(sl_shm_create("test", &fd), SL_OK);
    if (large_cases[_i].is_sparse) {
        ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
    } else {
        ck_assert_int_eq(sl_shm_allocate(fd, bytes), SL_OK);
    }
    ck_assert_int_eq(sl_shm_seal(fd, large_cases[_i].seals), SL_OK);
    enum sl_err err = sl_shm_large_map(fd, bytes, &mapped);
    ck_assert_msg(err == large_cases[_i].expected, "%s: %s", large_cases[_i].name,
                  sl_err_code(err));
    ck_assert((mapped.ptr != NULL) == (err == SL_OK));
    sl_shm_large_unmap(&mapped);
    sl_os_close(&fd);
}
END_TEST

#define ADD_CASES(tcase, test, cases) tcase_add_loop_test(tcase, test, 0, SL_ARRAY_LEN(cases))

static TCase *make_large_cases(void)
{
    TCase *tcase = tcase_create("large");

    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_set_timeout(tcase, 60);
    ADD_CASES(tcase, large_body_travels_whole, large_sizes);
    tcase_add_test(tcase, large_body_has_a_limit);
    ADD_CASES(tcase, large_memory_is_checked, large_cases);
    return tcase;
}

static TCase *make_lane_cases(void)
{
    TCase *tcase = tcase_create("lane");

    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, ends_agree);
    tcase_add_test(tcase, name_and_seals_are_as_promised);
    tcase_add_test(tcase, work_goes_down_and_results_up);
    tcase_add_test(tcase, space_bell_reaches_the_worker);
    tcase_add_test(tcase, memory_outlives_the_broker);
    ADD_CASES(tcase, every_byte_of_the_header_counts, fields);
    ADD_CASES(tcase, header_with_a_mended_checksum_is_still_checked, fields);
    tcase_add_test(tcase, lane_idx_is_checked_at_its_limit);
    tcase_add_test(tcase, header_without_proc_is_accepted);
    ADD_CASES(tcase, memory_is_checked_before_it_is_mapped, memory_cases);
    tcase_add_test(tcase, other_descriptors_are_refused);
    tcase_add_test(tcase, no_descriptors_is_an_error);
    tcase_add_test(tcase, no_memory_is_an_error);
    tcase_add_test(tcase, stats_arrive);
    ADD_CASES(tcase, last_words_are_printable, words_cases);
    tcase_add_test(tcase, last_words_without_end_are_cut);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("lane");

    suite_add_tcase(suite, make_lane_cases());
    suite_add_tcase(suite, make_large_cases());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
