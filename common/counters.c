/*
 * Counters in shared memory: the table's rows, and the block's birth, hand-over and reading.
 *
 * The broker creates the block and writes it; readers (status tools, the metrics page) only read.
 * Never locks, never waits for a writer: a reader that finds a change going on tries again a few
 * times and then says so. Nothing survives the broker; its next run makes a new block.
 *
 * What a reader maps was made by another process and is not believed: a copy of the header is
 * checked, then seals (a block that can shrink would kill its reader) and size. The numbers
 * themselves may be any: they are printed, never used as sizes or indexes.
 *
 * Reports SL_ERR_SHM, SL_ERR_VERSION, SL_ERR_NO_MEMORY, SL_ERR_IO (errno says why), SL_ERR_AGAIN.
 */
#include "common/counters.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/os.h"
#include "common/shm.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define READ_TRIES_MAX 64 /* a change takes well under a microsecond; more means a dead writer */

/* ---- the table --------------------------------------------------------------------------------
 */

static const struct sl_counter_row rows[] = {
#define X(name, field, metric, type, labels, help, survives)                                       \
    {#name, field, metric, labels, help, SL_COUNTER_TYPE_##type, survives},
#include "common/tbl/counters.def"
#undef X
};

_Static_assert(SL_ARRAY_LEN(rows) == SL_COUNTER_COUNT, "one row for each counter");

const struct sl_counter_row *sl_counter_row(enum sl_counter counter)
{
    SL_ASSERT((size_t)counter < SL_COUNTER_COUNT);
    return &rows[counter];
}

/* FNV-1a, the terminating NUL included, so that "ab","c" differs from "a","bc". */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    size_t len = strlen(text) + 1;

    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint64_t hash_table(void)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
        hash = hash_text(hash, rows[i].name);
        hash = (hash ^ (uint64_t)rows[i].type) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* ---- the writer -------------------------------------------------------------------------------
 */

/* After our own writable map is made, nobody gets another one. A kernel before 5.1 does not know
 * that seal; the size seals are what a reader's safety rests on. */
static enum sl_err seal_memory(int fd)
{
    if (sl_shm_seal(fd, SL_SHM_SEALS_SIZE | F_SEAL_FUTURE_WRITE) == SL_OK) {
        return SL_OK;
    }
    return sl_shm_seal(fd, SL_SHM_SEALS_SIZE);
}

static void read_boot_id(char text[SL_COUNTERS_BOOT_ID_BYTES])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    memset(text, 0, SL_COUNTERS_BOOT_ID_BYTES);
    if (fd < 0) {
        return; /* no /proc: a reader then knows less, nothing depends on it */
    }
    ssize_t got = read(fd, text, SL_COUNTERS_BOOT_ID_BYTES - 1);
    text[got > 0 ? strcspn(text, "\n") : 0] = '\0';
    sl_os_close(&fd);
}

static void fill_header(struct sl_counters_block *block, uint64_t generation)
{
    block->header = (struct sl_counters_header){
        .magic = SL_COUNTERS_MAGIC,
        .version = SL_COUNTERS_VERSION,
        .count = SL_COUNTER_COUNT,
        .table_hash = hash_table(),
        .generation = generation,
        .started_ns = sl_clock_mono_ns(),
        .pid = (uint32_t)getpid(),
    };
    read_boot_id(block->header.boot_id);
}

/* Memory for the block, mapped writable here and sealed for everybody else. */
static enum sl_err make_memory(int fd, void **memory)
{
    enum sl_err err = sl_shm_allocate(fd, sizeof(struct sl_counters_block));

    if (err != SL_OK) {
        return err;
    }
    err = sl_shm_map(fd, sizeof(struct sl_counters_block), memory);
    if (err != SL_OK) {
        return err;
    }
    err = seal_memory(fd);
    if (err != SL_OK) {
        sl_shm_unmap(*memory, sizeof(struct sl_counters_block));
    }
    return err;
}

enum sl_err sl_counters_create(uint64_t generation, struct sl_counters *out)
{
    int fd = -1;
    void *memory = NULL;
    enum sl_err err = sl_shm_create("sluice-counters", &fd);

    if (err != SL_OK) {
        return err;
    }
    err = make_memory(fd, &memory);
    if (err != SL_OK) {
        sl_os_close(&fd);
        return err;
    }
    fill_header(memory, generation);
    *out = (struct sl_counters){.block = memory, .writable = memory, .memfd = fd};
    return SL_OK;
}

void sl_counters_close(struct sl_counters *counters)
{
    if (counters->block != NULL) {
        sl_shm_unmap(counters->block, sizeof(*counters->block));
        sl_os_close(&counters->memfd);
    }
    *counters = (struct sl_counters){.memfd = -1};
}

int sl_counters_fd(const struct sl_counters *counters)
{
    return counters->memfd;
}

/* ---- the reader -------------------------------------------------------------------------------
 */

/* Checks a copy of the header. It comes before the size: another version's block has another one,
 * and its user should hear about the version. */
static enum sl_err check_header(int fd)
{
    struct sl_counters_header header;

    if (fcntl(fd, F_GET_SEALS) < 0) {
        return SL_ERR_SHM; /* not a memfd: reading it might block */
    }
    if (pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header)) {
        return SL_ERR_SHM;
    }
    if (header.magic != SL_COUNTERS_MAGIC) {
        return SL_ERR_SHM;
    }
    bool is_ours = header.version == SL_COUNTERS_VERSION && header.count == SL_COUNTER_COUNT;
    return is_ours && header.table_hash == hash_table() ? SL_OK : SL_ERR_VERSION;
}

enum sl_err sl_counters_attach_readonly(int memfd, struct sl_counters *out)
{
    const void *memory = NULL;
    enum sl_err err = check_header(memfd);

    if (err != SL_OK) {
        return err;
    }
    err = sl_shm_check(memfd, SL_SHM_SEALS_SIZE, sizeof(struct sl_counters_block));
    if (err != SL_OK) {
        return err;
    }
    err = sl_shm_map_readonly(memfd, sizeof(struct sl_counters_block), &memory);
    if (err != SL_OK) {
        return err;
    }
    *out = (struct sl_counters){.block = memory, .memfd = -1};
    return SL_OK;
}

/* A sequence lock without fences. The writer's numbers are release stores behind its odd `change`,
 * ours are acquire loads before the second look at it: having seen a new number, we also see that
 * its change began. */
static bool try_read(const struct sl_counters *counters, uint64_t values[SL_COUNTER_COUNT])
{
    /* Acquire pairs with the release in sl_counters_end. */
    uint64_t before = atomic_load_explicit(&counters->block->change, memory_order_acquire);

    for (size_t i = 0; i < SL_COUNTER_COUNT; i++) {
        values[i] = sl_counters_get(counters, (enum sl_counter)i);
    }
    /* Relaxed: kept behind the numbers by their acquire loads. */
    uint64_t after = atomic_load_explicit(&counters->block->change, memory_order_relaxed);

    return before % 2 == 0 && before == after;
}

enum sl_err sl_counters_read(const struct sl_counters *counters, uint64_t values[SL_COUNTER_COUNT])
{
    for (size_t i = 0; i < READ_TRIES_MAX; i++) {
        if (try_read(counters, values)) {
            return SL_OK;
        }
    }
    return SL_ERR_AGAIN;
}
