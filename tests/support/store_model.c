/*
 * See the header. In the process of the test.
 */
#include "tests/support/store_model.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>

#include "broker/policy/retry.h"
#include "common/hash.h"

struct model model_live;
struct model model_committed;

static uint64_t random_state;
static char pattern[MODEL_BYTES_MAX + 4096];

void model_seed(uint64_t seed)
{
    random_state = seed;
    for (size_t i = 0; i + 8 <= sizeof(pattern); i += 8) {
        sl_put_be64(pattern + i, sl_retry_random(&random_state));
    }
}

uint32_t model_draw(uint32_t below)
{
    return (uint32_t)(sl_retry_random(&random_state) % below);
}

bool model_has_ended(const struct model_task *task)
{
    return sl_task_state_is_terminal(task->state);
}

struct model_job *model_some_job(bool is_purging)
{
    for (uint32_t i = 0, at = model_draw(JOBS_MAX); i < JOBS_MAX; i++, at = (at + 1) % JOBS_MAX) {
        if (model_live.jobs[at].number != 0 && model_live.jobs[at].is_purging == is_purging) {
            return &model_live.jobs[at];
        }
    }
    return NULL;
}

struct model_task *model_task_of(uint64_t number)
{
    for (size_t i = 0; i < JOBS_MAX; i++) {
        struct model_job *job = &model_live.jobs[i];
        if (job->number == sl_task_job(number)) {
            ck_assert_uint_lt(sl_task_idx(number), job->task_count);
            return &job->tasks[sl_task_idx(number)];
        }
    }
    ck_abort_msg("task %016" PRIx64 " is none of the model's", number);
}

static struct model_job *job_of(uint64_t number)
{
    for (size_t i = 0; i < JOBS_MAX; i++) {
        if (model_live.jobs[i].number == sl_task_job(number)) {
            return &model_live.jobs[i];
        }
    }
    ck_abort_msg("no job %u", sl_task_job(number));
}

void model_end(uint64_t number, enum sl_task_state to, enum sl_err err, size_t answer_bytes)
{
    struct model_job *job = job_of(number);
    struct model_task *task = &job->tasks[sl_task_idx(number)];

    task->state = to;
    task->err = err;
    task->answer_bytes = answer_bytes;
    job->done[job->done_count++] = sl_task_idx(number);
    job->ends[to]++;
    model_live.counters.completed += to == SL_TASK_COMPLETED;
    model_live.counters.failed += to == SL_TASK_FAILED;
    model_live.counters.cancelled += to == SL_TASK_CANCELLED;
    model_live.counters.expired += to == SL_TASK_EXPIRED;
}

uint64_t model_some_leased(void)
{
    uint64_t found = 0;
    uint32_t seen = 0;

    for (size_t i = 0; i < JOBS_MAX; i++) {
        for (uint32_t idx = 0;
             model_live.jobs[i].number != 0 && idx < model_live.jobs[i].task_count; idx++) {
            if (model_live.jobs[i].tasks[idx].state == SL_TASK_LEASED && model_draw(++seen) == 0) {
                found = sl_task_number(model_live.jobs[i].number, idx);
            }
        }
    }
    return found;
}

uint64_t model_next_ready(uint32_t supply)
{
    uint64_t best = 0;
    uint32_t best_priority = 0;

    for (size_t i = 0; i < JOBS_MAX; i++) {
        for (uint32_t idx = 0; idx < model_live.jobs[i].task_count; idx++) {
            const struct model_task *task = &model_live.jobs[i].tasks[idx];
            uint64_t number = sl_task_number(model_live.jobs[i].number, idx);
            if (model_live.jobs[i].number == 0 || task->state != SL_TASK_READY ||
                task->supply != supply) {
                continue;
            }
            if (best == 0 || task->priority > best_priority ||
                (task->priority == best_priority && number < best)) {
                best = number;
                best_priority = task->priority;
            }
        }
    }
    return best;
}

/* ---- bytes that a task's number gives -------------------------------------------------------- */

struct sl_span model_bytes(uint64_t task, size_t len)
{
    return sl_span_of(pattern + sl_hash_word(task) % 4096, len);
}

size_t model_draw_bytes(void)
{
    switch (model_draw(8)) {
    case 0:
        return 1 + model_draw(MODEL_BYTES_MAX - 1);
    case 1:
        return SL_CHUNK_BYTES * (1 + model_draw(3));
    default:
        return 1 + model_draw(200);
    }
}

void model_id(uint32_t idx, char id[32])
{
    snprintf(id, 32, "id-%u", idx);
}

/* ---- agreement ------------------------------------------------------------------------------- */

static void check_task(const struct model_job *job, uint32_t idx)
{
    const struct model_task *task = &job->tasks[idx];
    struct sl_task_view view = store_view(sl_task_number(job->number, idx));

    ck_assert_msg(view.state == task->state, "job %u task %u: %s, not %s", job->number, idx,
                  sl_task_state_name(view.state), sl_task_state_name(task->state));
    ck_assert_uint_eq(view.supply, task->supply);
    ck_assert_uint_eq(view.priority, task->priority);
    ck_assert_uint_eq(view.body_bytes, task->body_bytes);
    if (task->state == SL_TASK_LEASED) {
        return;
    }
    ck_assert_uint_eq(view.attempts, task->attempts);
    if (model_has_ended(task)) {
        ck_assert_int_eq(view.err, task->err);
        return;
    }
    ck_assert_uint_eq(view.deaths, task->deaths);
    if (task->state == SL_TASK_DELAYED) {
        ck_assert_int_eq(view.due_ms, task->due_ms);
    }
}

static void check_job(const struct model_job *job)
{
    struct sl_job_info info = store_job_info(job->number);

    ck_assert_uint_eq(info.total, job->task_count);
    ck_assert_uint_eq(info.completed, job->ends[SL_TASK_COMPLETED]);
    ck_assert_uint_eq(info.failed, job->ends[SL_TASK_FAILED]);
    ck_assert_uint_eq(info.cancelled, job->ends[SL_TASK_CANCELLED]);
    ck_assert_uint_eq(info.expired, job->ends[SL_TASK_EXPIRED]);
    ck_assert_uint_eq(sl_job_ended(&info), job->done_count);
    ck_assert_int_eq(info.is_purging, job->is_purging);
    for (uint32_t idx = 0; !job->is_purging && idx < job->task_count; idx++) {
        check_task(job, idx);
    }
}

static size_t chunks_of(size_t fixed_bytes, size_t strings, size_t body)
{
    return fixed_bytes + strings + body <= SL_VALUE_BYTES_MAX
               ? 0
               : (body + SL_CHUNK_BYTES - 1) / SL_CHUNK_BYTES;
}

/* How many records each database should hold. */
struct sizes {
    size_t jobs, names, tasks, blobs, ready, delayed, ended, leases;
    uint64_t seen_leases[JOBS_MAX * TASKS_MAX];
    bool has_purge; /* the job's own records are being deleted: not counted */
};

static void count_lease(struct sizes *sizes, uint64_t lease)
{
    for (size_t i = 0; i < sizes->leases; i++) {
        if (sizes->seen_leases[i] == lease) {
            return;
        }
    }
    sizes->seen_leases[sizes->leases++] = lease;
}

static void count_task(struct sizes *sizes, const struct model_job *job, uint32_t idx)
{
    const struct model_task *task = &job->tasks[idx];
    char id[32];

    model_id(idx, id);
    sizes->tasks++;
    sizes->blobs += chunks_of(sizeof(struct sl_task_rec), strlen(id), task->body_bytes);
    sizes->ready += task->state == SL_TASK_READY;
    sizes->delayed += task->state == SL_TASK_DELAYED;
    sizes->ended += model_has_ended(task);
    if (task->answer_bytes > 0) {
        sizes->blobs +=
            chunks_of(sizeof(struct sl_result_rec), strlen("req-1"), task->answer_bytes);
    }
    if (task->state == SL_TASK_LEASED) {
        count_lease(sizes, task->lease);
    }
}

static void count_all(struct sizes *sizes)
{
    for (size_t i = 0; i < JOBS_MAX; i++) {
        const struct model_job *job = &model_live.jobs[i];
        if (job->number == 0) {
            continue;
        }
        sizes->jobs++;
        sizes->names += !job->is_purging;
        sizes->has_purge = sizes->has_purge || job->is_purging;
        for (uint32_t idx = 0; idx < job->task_count; idx++) {
            count_task(sizes, job, idx);
        }
    }
}

static void check_sizes(void)
{
    struct sizes sizes = {0};

    count_all(&sizes);
    ck_assert_uint_eq(store_count(SL_DB_JOBS), sizes.jobs);
    ck_assert_uint_eq(store_count(SL_DB_NAMES), sizes.names);
    ck_assert_uint_eq(store_count(SL_DB_READY), sizes.ready);
    ck_assert_uint_eq(store_count(SL_DB_DELAYED), sizes.delayed);
    ck_assert_uint_eq(store_count(SL_DB_WAITS), sizes.delayed);
    ck_assert_uint_eq(store_count(SL_DB_LEASES), sizes.leases);
    ck_assert_uint_eq(store->lease_count, sizes.leases);
    if (!sizes.has_purge) {
        ck_assert_uint_eq(store_count(SL_DB_TASKS), sizes.tasks);
        ck_assert_uint_eq(store_count(SL_DB_IDS), sizes.tasks);
        ck_assert_uint_eq(store_count(SL_DB_RESULTS), sizes.ended);
        ck_assert_uint_eq(store_count(SL_DB_DONE), sizes.ended);
        ck_assert_uint_eq(store_count(SL_DB_BLOBS), sizes.blobs);
    }
}

static void check_counters(void)
{
    const struct sl_counters_rec *is = sl_store_counters(store);
    const struct sl_counters_rec *ought = &model_live.counters;

    ck_assert_uint_eq(is->submitted, ought->submitted);
    ck_assert_uint_eq(is->completed, ought->completed);
    ck_assert_uint_eq(is->failed, ought->failed);
    ck_assert_uint_eq(is->cancelled, ought->cancelled);
    ck_assert_uint_eq(is->expired, ought->expired);
    ck_assert_uint_eq(is->retries, ought->retries);
    ck_assert_uint_eq(is->provider_calls, ought->provider_calls);
    ck_assert_uint_eq(is->input_tokens, ought->input_tokens);
    ck_assert_uint_eq(is->output_tokens, ought->output_tokens);
}

void model_check(void)
{
    check_counters();
    check_sizes();
    for (size_t i = 0; i < JOBS_MAX; i++) {
        if (model_live.jobs[i].number != 0) {
            check_job(&model_live.jobs[i]);
        }
    }
}
