/*
 * Model of common/ring.c for spin: one producer, one consumer, N slots, an arena of A cells, K items
 * of 0 to 2 cells. tests/model/run.sh builds and runs it with every variant below.
 *
 * C11 release and acquire are spelled out, not taken from the host. An atomic location is the list
 * of all values ever stored to it; a load may return any of them that is not older than what this
 * side has already seen of that location. Each stored value carries the view of its writer when the
 * store is a release, and nothing when it is relaxed; a load joins that view when it is an acquire.
 *
 * Slots and cells are plain memory, so an access without happens-before is a data race, that is, an
 * unpublished or overwritten read on some machine. The views are therefore kept as counts: how many
 * items' writes happen before this point of the consumer (c_writes), how many items' reads happen
 * before this point of the producer (p_reads). Every access asserts them, in both directions, so
 * neither the order of steps chosen here nor the host's strength hides a race.
 *
 * A side killed at any instruction is one that takes no further step; the checker examines every
 * prefix of every run, hence every kill.
 *
 * Variants that must be found wrong:
 *   RELAXED_PUBLISH RELAXED_TAIL_LOAD RELAXED_RELEASE RELAXED_HEAD_LOAD   one order too weak
 *   EARLY_PUBLISH   tail is stored before the item is filled
 *   EARLY_RELEASE   the consumer reads an item once more after it released it
 *   ONE_TOO_MANY    the ring counts as full one item too late
 *   NO_PADDING_FREE what was skipped at the end of the arena is counted as free
 */
#ifndef N
#define N 2
#endif
#ifndef A
#define A 3
#endif
#ifndef K
#define K 5
#endif
#define NOBODY 255

#ifdef ONE_TOO_MANY
#define SLOTS_USED (N + 1)
#else
#define SLOTS_USED N
#endif

/* The atomic locations: values in the order stored, each with its writer's view. */
byte tail_value[K + 1];
byte tail_view[K + 1]; /* items whose writes happen before the store */
byte tail_newest;
byte head_value[K + 1];
byte head_view[K + 1]; /* items whose reads happen before the store */
byte head_newest;

/* Plain memory: which item each slot and each cell holds. */
byte slot_item[N] = NOBODY;
byte slot_start[N];
byte slot_cells[N];
byte cell_item[A] = NOBODY;

proctype producer()
{
    byte tail, published, head, seen, written, p_reads;
    byte arena_head, arena_tail, block_end[N];
    byte cells, start, padding, i;
    bool has_room, has_looked;

    do
    :: tail < K ->
        if
        :: cells = 0
        :: cells = 1
        :: cells = 2
        fi;
        has_looked = false;
place:  atomic {
            padding = 0;
            if
            :: arena_head % A + cells > A -> padding = A - arena_head % A
            :: else
            fi;
#ifdef NO_PADDING_FREE
            has_room = tail - head < SLOTS_USED && cells <= A - (arena_head - arena_tail);
#else
            has_room = tail - head < SLOTS_USED && padding + cells <= A - (arena_head - arena_tail);
#endif
            start = arena_head + padding
        }
        if
        :: has_room ->
#ifdef EARLY_PUBLISH
            d_step {
                tail_newest++;
                tail_value[tail_newest] = tail + 1;
                tail_view[tail_newest] = written;
                published = tail + 1
            }
#endif
            d_step { /* the slot */
                assert(slot_item[tail % N] == NOBODY || p_reads > slot_item[tail % N]);
                slot_item[tail % N] = tail;
                slot_start[tail % N] = start % A;
                slot_cells[tail % N] = cells;
                block_end[tail % N] = start + cells;
                arena_head = start + cells
            }
            d_step { /* the block */
                i = 0;
                do
                :: i < cells ->
                    assert(start % A + i < A);
                    assert(cell_item[start % A + i] == NOBODY ||
                           p_reads > cell_item[start % A + i]);
                    cell_item[start % A + i] = tail;
                    i++
                :: else -> break
                od;
                i = 0;
                start = 0;
                padding = 0;
                tail++;
                written = tail
            }
        :: !has_room && !has_looked ->
            atomic { /* acquire load of head: any value not older than what was seen */
                do
                :: seen < head_newest -> seen++
                :: break
                od;
#ifndef RELAXED_HEAD_LOAD
                if
                :: head_view[seen] > p_reads -> p_reads = head_view[seen]
                :: else
                fi;
#endif
                if
                :: head_value[seen] != head ->
                    head = head_value[seen];
                    arena_tail = block_end[(head + N - 1) % N]
                :: else
                fi;
                has_looked = true
            }
            goto place
        :: else
        fi
    :: published < tail ->
        d_step {
            tail_newest++;
            tail_value[tail_newest] = tail;
#ifdef RELAXED_PUBLISH
            tail_view[tail_newest] = 0;
#else
            tail_view[tail_newest] = written;
#endif
            published = tail
        }
    :: published == K -> break
    od
}

proctype consumer()
{
    byte next, released, tail, seen, c_writes;
    byte i, position;

    do
    :: next < K && next == tail ->
        atomic { /* acquire load of tail */
            do
            :: seen < tail_newest -> seen++
            :: break
            od;
#ifndef RELAXED_TAIL_LOAD
            if
            :: tail_view[seen] > c_writes -> c_writes = tail_view[seen]
            :: else
            fi;
#endif
            assert(tail_value[seen] >= tail && tail_value[seen] - released <= N);
            tail = tail_value[seen]
        }
    :: next < tail ->
        d_step { /* peek */
            assert(c_writes > next);
            assert(slot_item[next % N] == next);
            next++
        }
    :: released < next -> /* look at the block of any item still held */
        position = released;
        do
        :: position + 1 < next -> position++
        :: break
        od;
again:  atomic {
            assert(c_writes > position);
            assert(slot_item[position % N] == position);
            i = 0;
            do
            :: i < slot_cells[position % N] ->
                assert(cell_item[slot_start[position % N] + i] == position);
                i++
            :: else -> break
            od;
            i = 0;
            position = 0
        }
    :: released < next -> /* release some of them, in order */
        position = released;
        do
        :: position + 1 < next -> position++
        :: break
        od;
        atomic {
            released = position + 1;
            head_newest++;
            head_value[head_newest] = released;
#ifdef RELAXED_RELEASE
            head_view[head_newest] = 0;
#else
            head_view[head_newest] = released;
#endif
        }
#ifdef EARLY_RELEASE
        goto again
#else
        position = 0
#endif
    :: released == K -> break
    od
}

init
{
    atomic {
        run producer();
        run consumer()
    }
}
