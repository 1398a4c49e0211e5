/*
 * memfds, seals and maps; also the large bodies and answers that go by a memfd of their own
 * (sl_shm_large_*, contract in common/lane.h).
 *
 * Runs in the broker and in each worker. Never uses a name in the file system: memory lives as long
 * as its descriptors and maps, so a killed process leaves nothing behind. Never maps memory that
 * its owner could still shrink, and never parses in place what its owner could still change.
 *
 * What a peer hands over is checked here and refused with SL_ERR_SHM: not a memfd, seals missing,
 * another size than promised, holes (they would take our memory at the first touch). Memory that
 * cannot be had is SL_ERR_NO_MEMORY; every other failed system call is SL_ERR_IO.
 */
#include "common/shm.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/lane.h"
#include "common/os.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3; Debian 12's headers are older than many kernels */
#endif

#define STAT_BLOCK_BYTES 512 /* unit of st_blocks, whatever the file system */

static enum sl_err classify_errno(void)
{
    return errno == ENOMEM || errno == ENOSPC || errno == EDQUOT ? SL_ERR_NO_MEMORY : SL_ERR_IO;
}

enum sl_err sl_shm_create(const char *name, int *out)
{
    /* From 6.3 on a kernel warns without a word on execution, or refuses; before, it does not know
     * the word. */
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    if (fd < 0) {
        return classify_errno();
    }
    *out = fd;
    return SL_OK;
}

enum sl_err sl_shm_allocate(int fd, size_t bytes)
{
    int rc;

    SL_ASSERT(bytes > 0 && bytes <= INT64_MAX);
    do {
        rc = fallocate(fd, 0, 0, (off_t)bytes);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? SL_OK : classify_errno();
}

enum sl_err sl_shm_seal(int fd, int seals)
{
    return fcntl(fd, F_ADD_SEALS, seals) == 0 ? SL_OK : classify_errno();
}

enum sl_err sl_shm_check(int fd, int seals, size_t bytes)
{
    struct stat info;
    int found = fcntl(fd, F_GET_SEALS);

    if (found < 0 || (found & seals) != seals || fstat(fd, &info) != 0) {
        return SL_ERR_SHM;
    }
    if (info.st_size < 0 || (uint64_t)info.st_size != bytes) {
        return SL_ERR_SHM;
    }
    return (uint64_t)info.st_blocks * STAT_BLOCK_BYTES >= bytes ? SL_OK : SL_ERR_SHM;
}

static enum sl_err map_memory(int fd, size_t bytes, int protection, int flags, void **out)
{
    void *memory = mmap(NULL, bytes, protection, flags, fd, 0);

    if (memory == MAP_FAILED) {
        return errno == EPERM || errno == EACCES ? SL_ERR_SHM : classify_errno();
    }
    /* Prompts and answers stay out of core dumps. A kernel without this flag does not exist here;
     * if the call fails all the same, so does the map. */
    if (madvise(memory, bytes, MADV_DONTDUMP) != 0) {
        enum sl_err err = classify_errno();
        sl_shm_unmap(memory, bytes);
        return err;
    }
    *out = memory;
    return SL_OK;
}

enum sl_err sl_shm_map(int fd, size_t bytes, void **memory)
{
    return map_memory(fd, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory);
}

enum sl_err sl_shm_map_frozen(int fd, size_t bytes, const void **memory)
{
    void *mapped;
    /* Private: until Linux 6.7 a shared map of a descriptor that is open for writing counts as
     * writable, and is refused under F_SEAL_WRITE. Nobody writes, so nothing is copied. */
    enum sl_err err = map_memory(fd, bytes, PROT_READ, MAP_PRIVATE, &mapped);

    if (err == SL_OK) {
        *memory = mapped;
    }
    return err;
}

enum sl_err sl_shm_map_readonly(int fd, size_t bytes, const void **memory)
{
    void *mapped;
    enum sl_err err = map_memory(fd, bytes, PROT_READ, MAP_SHARED, &mapped);

    if (err == SL_OK) {
        *memory = mapped;
    }
    return err;
}

void sl_shm_unmap(const void *memory, size_t bytes)
{
    int saved_errno = errno;
    int rc = munmap((void *)(uintptr_t)memory, bytes);

    SL_ASSERT(rc == 0);
    errno = saved_errno;
}

/* ---- large bodies and answers ---------------------------------------------------------------- */

static enum sl_err sum_parts(const struct sl_span *parts, size_t part_count, size_t *total)
{
    size_t sum = 0;

    for (size_t i = 0; i < part_count; i++) {
        if (!sl_add_size(sum, parts[i].len, &sum)) {
            return SL_ERR_NO_MEMORY;
        }
    }
    if (sum > SL_LARGE_BYTES_MAX) {
        errno = EFBIG;
        return SL_ERR_NO_MEMORY;
    }
    *total = sum;
    return SL_OK;
}

/* By write() and not through a map: a writable map would stand in the way of F_SEAL_WRITE. */
static enum sl_err write_part(int fd, struct sl_span part)
{
    size_t done = 0;

    while (done < part.len) {
        ssize_t written = write(fd, part.ptr + done, part.len - done);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return classify_errno();
        }
        done += (size_t)written;
    }
    return SL_OK;
}

static enum sl_err fill_large(int fd, const struct sl_span *parts, size_t part_count)
{
    for (size_t i = 0; i < part_count; i++) {
        enum sl_err err = write_part(fd, parts[i]);
        if (err != SL_OK) {
            return err;
        }
    }
    return sl_shm_seal(fd, SL_SHM_SEALS_FROZEN);
}

enum sl_err sl_shm_large_create(const struct sl_span *parts, size_t part_count, int *out)
{
    size_t total;
    int fd = -1;
    enum sl_err err = sum_parts(parts, part_count, &total);

    if (err == SL_OK) {
        err = sl_shm_create("sluice-large", &fd);
    }
    if (err == SL_OK && total > 0) {
        err = sl_shm_allocate(fd, total);
    }
    if (err == SL_OK) {
        err = fill_large(fd, parts, part_count);
    }
    if (err != SL_OK) {
        sl_os_close(&fd);
        return err;
    }
    *out = fd;
    return SL_OK;
}

enum sl_err sl_shm_large_map(int fd, size_t bytes, struct sl_span *out)
{
    const void *memory = "";

    if (bytes > SL_LARGE_BYTES_MAX || sl_shm_check(fd, SL_SHM_SEALS_FROZEN, bytes) != SL_OK) {
        return SL_ERR_SHM;
    }
    if (bytes > 0) {
        enum sl_err err = sl_shm_map_frozen(fd, bytes, &memory);
        if (err != SL_OK) {
            return err;
        }
    }
    *out = sl_span_of(memory, bytes);
    return SL_OK;
}

void sl_shm_large_unmap(struct sl_span *mapped)
{
    if (mapped->len > 0) {
        sl_shm_unmap(mapped->ptr, mapped->len);
    }
    *mapped = (struct sl_span){0};
}
