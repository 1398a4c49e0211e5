#ifndef SL_COMMON_BELL_H
#define SL_COMMON_BELL_H

/*
 * Wake-ups between the two sides of a lane. A bell only says "look": the ring is the truth, and a
 * lost or an extra ring of the bell must be harmless.
 *
 * A bell is a process-shared semaphore and a `sleeping` word in shared memory, and an eventfd that
 * each side holds. A side that sits in epoll puts the eventfd there: before it sleeps it arms the
 * bell, looks at the ring once more, and only then waits; a side that has no descriptors to watch
 * waits on the semaphore, always with a deadline. Ringing makes no system call while the other side
 * is awake.
 *
 * Lost tokens and leaked waiters of a killed side (glibc's sem_t has no owner) cost at most one
 * deadline: every wait is bounded, and after each wake the ring is looked at until it is empty.
 */

#include "common/err.h"

struct sl_bell_shared; /* common/shm_layout.h */

struct sl_bell {
    struct sl_bell_shared *shared;
    int event_fd; /* borrowed; -1: nobody sits in epoll */
};

/* In a fresh segment only, by its creator: sem_init on a living semaphore is undefined. */
void sl_bell_init_shared(struct sl_bell_shared *shared);

/* Producer: something was published. Never blocks. */
void sl_bell_ring(struct sl_bell *bell);

/* Waiter in epoll: arm, look at the ring again, then epoll_wait; afterwards disarm (reads the
 * eventfd dry and drains the semaphore). */
void sl_bell_arm(struct sl_bell *bell);
void sl_bell_disarm(struct sl_bell *bell);

/* Waiter without epoll: blocks on the semaphore until rung or `deadline_ns` (monotonic). True:
 * rung. Look at the ring first, and again afterwards, whatever it says. */
bool sl_bell_wait(struct sl_bell *bell, int64_t deadline_ns);

#endif
