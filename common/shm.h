#ifndef SL_COMMON_SHM_H
#define SL_COMMON_SHM_H

/*
 * The door to memfds and maps: make, fill, seal, check, map. Under common/lane.c, and under what
 * else needs memory of its own that another process maps. Any process. Functions that fail leave
 * errno as the reason; every descriptor is close-on-exec, every map stays out of core dumps.
 */

#include <fcntl.h>

#include "common/err.h"

/* Seals of memory that both sides go on writing: it can never shrink under a reader (SIGBUS). */
#define SL_SHM_SEALS_SIZE (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
/* Seals of a finished document: nobody can change a byte of it, so it can be parsed in place. */
#define SL_SHM_SEALS_FROZEN (SL_SHM_SEALS_SIZE | F_SEAL_WRITE)

/* An empty memfd that can be sealed; never executable where the kernel knows how. The name shows
 * up in /proc/PID/fd. SL_ERR_IO | SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_shm_create(const char *name, int *fd);
/* Gives it a size, and the memory for it now: no SIGBUS later. SL_ERR_NO_MEMORY. May block. */
MUST_CHECK enum sl_err sl_shm_allocate(int fd, size_t bytes);
MUST_CHECK enum sl_err sl_shm_seal(int fd, int seals);
/* Is it a memfd with at least these seals, of exactly these bytes, all of them allocated?
 * SL_ERR_SHM when not. */
MUST_CHECK enum sl_err sl_shm_check(int fd, int seals, size_t bytes);
/* Maps it shared and writable. SL_ERR_NO_MEMORY | SL_ERR_SHM (sealed against writing). */
MUST_CHECK enum sl_err sl_shm_map(int fd, size_t bytes, void **memory);
/* Maps a frozen one read-only. SL_ERR_NO_MEMORY | SL_ERR_SHM. */
MUST_CHECK enum sl_err sl_shm_map_frozen(int fd, size_t bytes, const void **memory);
/* Maps memory that its maker goes on writing, for looking only (counters). SL_ERR_NO_MEMORY |
 * SL_ERR_SHM. */
MUST_CHECK enum sl_err sl_shm_map_readonly(int fd, size_t bytes, const void **memory);
void sl_shm_unmap(const void *memory, size_t bytes);

#endif
