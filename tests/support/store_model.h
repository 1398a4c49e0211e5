#ifndef SL_TESTS_SUPPORT_STORE_MODEL_H
#define SL_TESTS_SUPPORT_STORE_MODEL_H

/*
 * What the store ought to hold, kept in plain arrays, and whether it does. For tests: a
 * disagreement fails the test. Works on the store of store_case.h, in its transaction.
 */

#include "tests/support/store_case.h"

#define JOBS_MAX 5
#define TASKS_MAX 24 /* of a job */

struct model_task {
    enum sl_task_state state;
    uint32_t supply;
    uint32_t priority;
    uint32_t attempts;
    uint32_t deaths;
    int64_t due_ms;
    int64_t deadline_ms;
    uint64_t lease;
    size_t body_bytes;
    size_t answer_bytes;
    enum sl_err err;
};

struct model_job {
    uint32_t number; /* 0: not there */
    bool is_purging;
    uint32_t task_count;
    uint32_t done[TASKS_MAX]; /* indexes in the order of their ends */
    uint32_t done_count;
    uint64_t ends[SL_TASK_EXPIRED + 1]; /* by state */
    struct model_task tasks[TASKS_MAX];
};

struct model {
    struct model_job jobs[JOBS_MAX];
    struct sl_counters_rec counters; /* those members that operations change */
    int64_t now_ms;
};

/* As of the last operation; as of the last commit. */
extern struct model model_live;
extern struct model model_committed;

/* Random numbers, repeatable from the seed; all tasks' bytes come from it too. */
void model_seed(uint64_t seed);
uint32_t model_draw(uint32_t below);

bool model_has_ended(const struct model_task *task);
/* A job by chance; NULL: none is so. */
struct model_job *model_some_job(bool is_purging);
/* A leased task by chance; 0: none. */
uint64_t model_some_leased(void);
struct model_task *model_task_of(uint64_t number);
/* The task of the supply that is to be called next; 0: none. */
uint64_t model_next_ready(uint32_t supply);
/* The task ends: where it stands, and all counts. */
void model_end(uint64_t number, enum sl_task_state to, enum sl_err err, size_t answer_bytes);

#define MODEL_BYTES_MAX (40 * SL_CHUNK_BYTES)
/* Bytes that differ from number to number, up to MODEL_BYTES_MAX. */
struct sl_span model_bytes(uint64_t number, size_t len);
/* A length by chance: mostly small, some long, some at the edge of a chunk. */
size_t model_draw_bytes(void);
void model_id(uint32_t idx, char id[32]);

/* Every task is where the model says, and nothing else is anywhere: so each is in one place.
 * Counters, counts of jobs and the sizes of all databases agree, too. */
void model_check(void);

#endif
