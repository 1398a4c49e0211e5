/*
 * Wake-ups; see common/bell.h. The one door to semaphores, and to eventfds as door bells.
 *
 * Runs in the broker and in each worker. Never blocks but in sl_bell_wait, and there at most
 * WAIT_NS_MAX. Keeps no state of its own; nothing here survives or has to survive a crash.
 *
 * Why no wake-up is lost while both sides live. The ringer publishes, fences, then reads what the
 * waiter says of itself; the waiter says it, fences, then reads the ring. Both fences are seq_cst,
 * so one of them comes first: if the ringer's does, the waiter sees the item and does not sleep; if
 * the waiter's does, the ringer sees the waiter and wakes it. "Says of itself" is, in epoll, the
 * word `sleeping` (arm); on the semaphore, having taken the token: the ringer posts only when it
 * sees none, and a token that it sees but that is already taken was taken before the waiter's
 * fence. tests/model/bell.pml checks both, and that they break without the fences.
 *
 * Why the semaphore is bounded. One side rings a bell, and only on seeing no token: at most one is
 * there, and sem_post's EOVERFLOW cannot happen.
 *
 * What a kill costs. A ringer killed after it cleared `sleeping`, or after its post and before the
 * futex wake; a waiter killed with a token, or while it is counted as waiting: one deadline, or one
 * needless system call a ring. No error is reported: a bell is a hint.
 *
 * Why not sem_post. glibc takes the flags of its futex call from the semaphore's own bytes, which
 * the other side can write. A hostile worker that sets them to 0x81 makes a broker's sem_post wait
 * for ever, 0xff makes it abort (seen with glibc 2.36). So the post is made here, with the same
 * effect on the same word, and with constant flags; sem_trywait makes no futex call. sem_clockwait
 * does, so only the worker, which trusts its broker, waits on a semaphore.
 */
#include "common/bell.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/os.h"
#include "common/shm_layout.h"

#if !defined(__GLIBC__) || !defined(__LP64__)
#error "post_semaphore knows the semaphore of a 64-bit glibc only"
#endif

#define WAIT_NS_MAX SL_NS_PER_S /* a lost token costs no more than this, whatever the deadline */
#define DRAIN_MAX 4             /* one token is normal; a hostile count must not keep us here */

#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
/* The thread sanitizer does not follow fences. None of ours orders plain data (the ring's release
 * and acquire do that), so it has nothing to miss. */
#pragma GCC diagnostic ignored "-Wtsan"
#endif

void sl_bell_init_shared(struct sl_bell_shared *shared)
{
    int rc = sem_init(&shared->semaphore.posix, 1, 0);

    SL_ASSERT(rc == 0);
    atomic_store_explicit(&shared->sleeping, 0, memory_order_relaxed);
}

/* What glibc's sem_post does: one more in the low half (the value), and a futex wake when the high
 * half (the waiters) is not zero. The low half, which the waiters' futex watches, comes first in
 * memory. */
static void post_semaphore(struct sl_bell_shared *shared)
{
    /* Release, as sem_post; pairs with the acquire in sem_clockwait. */
    uint64_t before = atomic_fetch_add_explicit(&shared->semaphore.word, 1, memory_order_release);

    if (before >> 32 != 0) {
        int saved_errno = errno;
        (void)syscall(SYS_futex, &shared->semaphore.word, FUTEX_WAKE, 1, NULL, NULL, 0);
        errno = saved_errno;
    }
}

void sl_bell_ring(struct sl_bell *bell)
{
    struct sl_bell_shared *shared = bell->shared;

    /* Between our publish and the two loads below; pairs with the fences in sl_bell_arm and
     * sl_bell_wait. */
    atomic_thread_fence(memory_order_seq_cst);
    if ((uint32_t)atomic_load_explicit(&shared->semaphore.word, memory_order_relaxed) == 0) {
        post_semaphore(shared);
    }
    /* One write for each time the waiter lies down: whoever takes the flag writes. */
    if (bell->event_fd >= 0 && atomic_load_explicit(&shared->sleeping, memory_order_relaxed) != 0 &&
        atomic_exchange_explicit(&shared->sleeping, 0, memory_order_acq_rel) != 0) {
        sl_os_event_signal(bell->event_fd);
    }
}

void sl_bell_arm(struct sl_bell *bell)
{
    (void)atomic_exchange_explicit(&bell->shared->sleeping, 1, memory_order_acq_rel);
    /* Between saying that we sleep and the caller's look at the ring; pairs with sl_bell_ring. */
    atomic_thread_fence(memory_order_seq_cst);
}

void sl_bell_disarm(struct sl_bell *bell)
{
    (void)atomic_exchange_explicit(&bell->shared->sleeping, 0, memory_order_acq_rel);
    if (bell->event_fd >= 0) {
        /* Always, even if nobody cleared our flag: a slow ringer of the sleep before may have
         * written only now, and an eventfd left readable would end every sleep at once. */
        sl_os_event_clear(bell->event_fd);
    }
    for (int i = 0; i < DRAIN_MAX && sem_trywait(&bell->shared->semaphore.posix) == 0; i++) {
    }
    /* Between taking the token and the caller's look at the ring; pairs with sl_bell_ring. */
    atomic_thread_fence(memory_order_seq_cst);
}

bool sl_bell_wait(struct sl_bell *bell, int64_t deadline_ns)
{
    int64_t latest_ns = sl_time_add(sl_clock_mono_ns(), WAIT_NS_MAX);
    int64_t until_ns = SL_MAX(SL_MIN(deadline_ns, latest_ns), 0);
    struct timespec until = {
        .tv_sec = (time_t)(until_ns / SL_NS_PER_S),
        .tv_nsec = (long)(until_ns % SL_NS_PER_S),
    };
    /* A signal ends the wait early: the caller looks at the ring and comes back. */
    int rc = sem_clockwait(&bell->shared->semaphore.posix, CLOCK_MONOTONIC, &until);

    /* Between taking the token and the caller's look at the ring; pairs with sl_bell_ring. */
    atomic_thread_fence(memory_order_seq_cst);
    return rc == 0;
}
