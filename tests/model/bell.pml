/*
 * Model of common/bell.c for spin: no wake-up is lost. tests/model/run.sh runs it with every variant
 * below.
 *
 * The ringer publishes K items on one of B rings and rings the bell beside it after each; the waiter
 * takes them all. It never uses a deadline here: a lost wake-up is a waiter that blocks for ever,
 * which the checker reports as an invalid end state. (A killed ringer is what the deadline of the
 * real waiter is for.)
 *
 * Memory as in ring.pml: each atomic location is the list of its values, a load may return any that
 * is not older than what the side has seen. All writes to `sleeping` and to the semaphore are
 * read-modify-writes: they act on the newest value, and carry views by release and acquire as
 * annotated. A seq_cst fence joins the side's view with the one left by the fence before it, both
 * ways. The eventfd and the futex are the kernel's and take no part in any view.
 *
 * Variants that must hold:   EPOLL (arm, look, sleep on the eventfd, disarm), with B = 1 and 2 bells
 *                            on one eventfd; SEMAPHORE (look, wait).
 * Variants that must fail:   NO_FENCE in both; NO_LOOK (EPOLL: sleep without a second look at the
 *                            ring); LATE_FLAG (EPOLL: look, then arm).
 */
#ifndef K
#define K 3
#endif
#ifndef B
#define B 1
#endif
#define HISTORY 24

/* tail[b]: the value of a message is its place in the list, 0..K. */
byte tail_newest[B];

/* flag[b]: `sleeping`, or the semaphore's value. */
typedef flag_history {
    byte value[HISTORY];
    byte view[HISTORY]; /* the writer's view of tail[b], where the write was a release */
    byte newest;
};
flag_history flag[B];

byte fence_tail[B]; /* the view that seq_cst fences hand on */
byte fence_flag[B];

byte event_count;
byte consumed[B];
byte published;

#define MAX(a, b) ((a) > (b) -> (a) : (b))

/* Ringer's and waiter's view of each location. */
byte r_flag[B];
byte w_tail[B];
byte w_flag[B];

inline ringer_fence()
{
#ifndef NO_FENCE
    d_step {
        i = 0;
        do
        :: i < B ->
            fence_tail[i] = tail_newest[i]; /* the ringer has seen its own stores */
            r_flag[i] = MAX(r_flag[i], fence_flag[i]);
            fence_flag[i] = r_flag[i];
            i++
        :: else -> break
        od;
        i = 0
    }
#else
    skip
#endif
}

inline waiter_fence()
{
#ifndef NO_FENCE
    d_step {
        i = 0;
        do
        :: i < B ->
            w_tail[i] = MAX(w_tail[i], fence_tail[i]);
            fence_tail[i] = w_tail[i];
            w_flag[i] = MAX(w_flag[i], fence_flag[i]);
            fence_flag[i] = w_flag[i];
            i++
        :: else -> break
        od;
        i = 0
    }
#else
    skip
#endif
}

/* One read-modify-write of flag[b]. A release sequence goes on through it: the view of the message
 * read is kept, and joined with the writer's when the write is a release. */
inline exchange(b, new_value, writer_view, side_view)
{
    flag[b].newest++;
    assert(flag[b].newest < HISTORY);
    flag[b].value[flag[b].newest] = new_value;
    flag[b].view[flag[b].newest] = MAX(flag[b].view[flag[b].newest - 1], writer_view);
    side_view = flag[b].newest
}

proctype ringer()
{
    byte i, b, got;

    do
    :: published < K ->
        if
        :: b = 0
#if B > 1
        :: b = 1
#endif
        fi;
        d_step {
            tail_newest[b]++;
            published++
        }
        ringer_fence();
        atomic { /* relaxed load: any value not older than what was seen */
            got = r_flag[b];
            do
            :: got < flag[b].newest -> got++
            :: break
            od;
            r_flag[b] = got
        }
#ifdef SEMAPHORE
        if
        :: flag[b].value[got] == 0 ->
            d_step {
                got = flag[b].value[flag[b].newest] + 1;
                exchange(b, got, tail_newest[b], r_flag[b]);
                assert(got == 1)
            }
        :: else
        fi
#else
        if
        :: flag[b].value[got] != 0 ->
            d_step {
                got = flag[b].value[flag[b].newest];
                exchange(b, 0, tail_newest[b], r_flag[b])
            }
            if
            :: got != 0 -> event_count++ /* a step of its own: the ringer may be slow here */
            :: else
            fi
        :: else
        fi;
#endif
        got = 0;
        b = 0
    :: else -> break
    od
}

/* Acquire load of tail[b]; what it shows is taken at once. */
inline look(b)
{
    atomic {
        got = w_tail[b];
        do
        :: got < tail_newest[b] -> got++
        :: break
        od;
        w_tail[b] = got;
        if
        :: got > consumed[b] ->
            consumed[b] = got;
            has_found = true
        :: else
        fi;
        got = 0
    }
}

inline look_at_all()
{
    has_found = false;
    look(0);
#if B > 1
    look(1)
#endif
}

inline waiter_exchange(b, new_value)
{
    d_step {
        w_tail[b] = MAX(w_tail[b], flag[b].view[flag[b].newest]); /* acquire */
        exchange(b, new_value, w_tail[b], w_flag[b])
    }
}

inline arm()
{
    waiter_exchange(0, 1);
    waiter_fence();
#if B > 1
    waiter_exchange(1, 1);
    waiter_fence();
#endif
}

inline disarm()
{
    waiter_exchange(0, 0);
    event_count = 0;
    waiter_fence();
#if B > 1
    waiter_exchange(1, 0);
    event_count = 0;
    waiter_fence();
#endif
}

#if B > 1
#define ALL_TAKEN (consumed[0] + consumed[1] == K)
#else
#define ALL_TAKEN (consumed[0] == K)
#endif

proctype waiter()
{
    byte i, got;
    bool has_found;

    do
    :: ALL_TAKEN -> break
    :: else ->
        look_at_all();
        if
        :: has_found
        :: else ->
#ifdef SEMAPHORE
            d_step {
                flag[0].value[flag[0].newest] > 0 -> /* blocks: sem_wait, an acquire */
                w_tail[0] = MAX(w_tail[0], flag[0].view[flag[0].newest]);
                got = flag[0].value[flag[0].newest] - 1;
                exchange(0, got, 0, w_flag[0]);
                got = 0
            }
            waiter_fence()
#else
#ifdef LATE_FLAG
            look_at_all();
            arm();
#else
            arm();
#ifndef NO_LOOK
            look_at_all();
#endif
#endif
            if
            :: has_found
            :: !has_found -> event_count > 0 /* blocks: epoll_wait */
            fi;
            disarm()
#endif
        fi
    od
}

init
{
    atomic {
        run ringer();
        run waiter()
    }
}
