/*
 * The store against a model of it: thousands of random operations, with commits and crashes at
 * random places. After each step every task stands in exactly one place, the place the model says,
 * and counters, counts of jobs and the sizes of all databases agree; after a crash the store is
 * what it was at the last commit, and the lease ledger names exactly the calls that may be running.
 *
 * The seed is printed; SLUICE_TEST_SEED repeats a run, SLUICE_TEST_STEPS sets its length.
 */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/os.h"
#include "tests/support/store_model.h"

#define SUPPLIES 3
#define STEPS 3000

static uint32_t names_given;

/* ---- operations ------------------------------------------------------------------------------ */

static void do_open_job(void)
{
    for (size_t i = 0; i < JOBS_MAX; i++) {
        struct model_job *job = &model_live.jobs[i];
        if (job->number == 0) {
            char name[32];
            snprintf(name, sizeof(name), "name-%u", names_given++);
            *job = (struct model_job){.number = store_job(name)};
            return;
        }
    }
}

static void accept_new(struct model_job *job)
{
    uint32_t idx = job->task_count;
    uint64_t number = sl_task_number(job->number, idx);
    uint32_t supply = model_draw(SUPPLIES);
    bool is_later = model_draw(4) == 0;
    char id[32];
    struct sl_accept_reply reply;
    struct sl_accept_request request = {
        .job = job->number, .supplies = &supply, .count = 1, .now_ms = model_live.now_ms};

    model_id(idx, id);
    struct sl_task_msg msg = store_msg(id, "");
    msg.body = model_bytes(number, model_draw_bytes());
    msg.priority = model_draw(SL_PRIORITY_MAX + 1);
    msg.not_before_ms = is_later ? model_live.now_ms + 1 + model_draw(50) : 0;
    msg.deadline_ms = model_draw(6) == 0 ? model_live.now_ms + 1 + model_draw(100) : 0;
    request.tasks = &msg;
    ck_assert_int_eq(sl_store_accept(store, &request, &reply), SL_OK);
    ck_assert_uint_eq(reply.accepted, 1);
    ck_assert_uint_eq(reply.delayed, is_later);
    job->tasks[idx] = (struct model_task){.state = is_later ? SL_TASK_DELAYED : SL_TASK_READY,
                                          .supply = supply,
                                          .priority = msg.priority,
                                          .due_ms = msg.not_before_ms,
                                          .deadline_ms = msg.deadline_ms,
                                          .body_bytes = msg.body.len};
    job->task_count++;
    model_live.counters.submitted++;
}

/* The same task again, or another under its id. */
static void accept_known(struct model_job *job)
{
    uint32_t idx = model_draw(job->task_count);
    uint64_t number = sl_task_number(job->number, idx);
    bool is_same = model_draw(2) == 0;
    char id[32];

    model_id(idx, id);
    struct sl_task_msg msg = store_msg(id, "");
    msg.body = model_bytes(is_same ? number : number + 1, job->tasks[idx].body_bytes);
    struct sl_accept_reply reply = store_try_accept(job->number, &msg, 1);
    ck_assert_uint_eq(reply.accepted, 0);
    if (is_same) {
        ck_assert_uint_eq(reply.known, 1);
    } else if (msg.body.len > 8) { /* shorter ones may be equal by chance */
        ck_assert_int_eq(reply.refused_err, SL_ERR_CONFLICT);
    }
}

static void do_accept(void)
{
    struct model_job *job = model_some_job(false);

    if (job == NULL) {
        return;
    }
    if (job->task_count < TASKS_MAX && model_draw(5) != 0) {
        accept_new(job);
    } else if (job->task_count > 0) {
        accept_known(job);
    }
}

static void check_armed(const struct sl_armed *armed, const struct sl_arm_reply *reply)
{
    struct model_task *task = model_task_of(armed->task);
    struct sl_span body = model_bytes(armed->task, task->body_bytes);

    ck_assert_uint_eq(armed->attempt, task->attempts + 1);
    ck_assert_uint_eq(armed->deaths, task->deaths);
    ck_assert_uint_eq(armed->body_bytes, task->body_bytes);
    ck_assert_int_eq(memcmp(reply->bytes + armed->body_at, body.ptr, body.len), 0);
    task->state = SL_TASK_LEASED;
    task->lease = armed->lease;
}

static void do_arm(void)
{
    struct sl_arm_request request = {.supply = model_draw(SUPPLIES),
                                     .count_max = 1 + model_draw(8),
                                     .bytes_max = model_draw(2) == 0 ? model_draw(50000) : SIZE_MAX,
                                     .now_ms = model_live.now_ms};
    struct sl_arm_reply reply = store_arm_with(&request);
    size_t taken = 0;
    uint32_t expired = 0;

    while (taken < reply.count || expired < reply.expired) {
        uint64_t number = model_next_ready(request.supply);
        ck_assert_uint_ne(number, 0);
        struct model_task *task = model_task_of(number);
        if (task->deadline_ms != 0 && task->deadline_ms <= model_live.now_ms) {
            model_end(number, SL_TASK_EXPIRED, SL_ERR_EXPIRED, 0);
            expired++;
        } else {
            ck_assert_uint_lt(taken, reply.count);
            ck_assert_uint_eq(reply.armed[taken].task, number);
            check_armed(&reply.armed[taken++], &reply);
        }
    }
    ck_assert_uint_eq(expired, reply.expired);
    ck_assert_uint_eq(reply.damaged, 0);
    ck_assert_int_eq(reply.has_more, model_next_ready(request.supply) != 0);
}

static void do_settle(void)
{
    static const enum sl_task_state ends[] = {
        SL_TASK_COMPLETED, SL_TASK_COMPLETED, SL_TASK_COMPLETED, SL_TASK_FAILED, SL_TASK_CANCELLED,
        SL_TASK_EXPIRED,   SL_TASK_READY,     SL_TASK_DELAYED,   SL_TASK_DELAYED};
    uint64_t number = model_some_leased();

    if (number == 0) {
        return;
    }
    struct model_task *task = model_task_of(number);
    enum sl_task_state to = ends[model_draw(SL_ARRAY_LEN(ends))];
    struct sl_armed armed = {.task = number,
                             .lease = task->lease,
                             .supply = task->supply,
                             .attempt = (uint16_t)(task->attempts + 1),
                             .deaths = (uint16_t)(task->deaths + model_draw(2)),
                             .priority = (uint8_t)task->priority};
    struct sl_settle_item item = store_item(&armed, to);
    bool is_end = sl_task_state_is_terminal(to);
    item.was_called = model_draw(4) != 0;
    item.due_ms = model_live.now_ms + model_draw(50);
    item.body = model_bytes(~number, model_draw_bytes());
    ck_assert_int_eq(sl_store_settle(store, &item), SL_OK);
    task->attempts++;
    task->deaths = is_end ? task->deaths : item.deaths;
    task->lease = 0;
    task->state = to;
    task->due_ms = item.due_ms;
    model_live.counters.provider_calls += item.was_called;
    model_live.counters.retries += to == SL_TASK_DELAYED && item.was_called;
    if (is_end) {
        model_live.counters.input_tokens += 3;
        model_live.counters.output_tokens += 5;
        model_end(number, to, item.err, item.body.len);
    }
}

static void do_promote(void)
{
    struct sl_promote_reply reply;
    uint32_t due = 0;
    int64_t next_ms = INT64_MAX;

    model_live.now_ms += model_draw(20);
    ck_assert_int_eq(sl_store_promote(store, model_live.now_ms, &reply), SL_OK);
    for (size_t i = 0; i < JOBS_MAX; i++) {
        for (uint32_t idx = 0;
             model_live.jobs[i].number != 0 && idx < model_live.jobs[i].task_count; idx++) {
            struct model_task *task = &model_live.jobs[i].tasks[idx];
            if (task->state != SL_TASK_DELAYED) {
                continue;
            }
            if (task->due_ms <= model_live.now_ms) {
                task->state = SL_TASK_READY;
                due++;
            } else {
                next_ms = SL_MIN(next_ms, task->due_ms);
            }
        }
    }
    ck_assert_uint_eq(reply.count, due); /* all of them: fewer than one promote may move */
    ck_assert_int_eq(reply.next_due_ms, next_ms);
}

static void do_cancel(void)
{
    static struct sl_cancel_reply reply;
    struct model_job *job = model_some_job(false);

    if (job == NULL || job->task_count == 0) {
        return;
    }
    bool is_all = model_draw(8) == 0;
    uint32_t from = is_all ? 0 : model_draw(job->task_count);
    uint32_t to = is_all ? UINT32_MAX - 1 : from;
    struct sl_cancel_request request = {.from = sl_task_number(job->number, from),
                                        .to = sl_task_number(job->number, to),
                                        .now_ms = model_live.now_ms};
    uint32_t cancelled = 0;
    uint32_t leased = 0;
    uint32_t delayed = 0;
    ck_assert_int_eq(sl_store_cancel_slice(store, &request, &reply), SL_OK);
    for (uint32_t idx = from; idx < job->task_count && idx <= to; idx++) {
        struct model_task *task = &job->tasks[idx];
        leased += task->state == SL_TASK_LEASED;
        delayed += task->state == SL_TASK_DELAYED;
        if (task->state == SL_TASK_READY || task->state == SL_TASK_DELAYED) {
            model_end(sl_task_number(job->number, idx), SL_TASK_CANCELLED, SL_ERR_CANCELLED, 0);
            cancelled++;
        }
    }
    ck_assert_uint_eq(reply.cancelled, cancelled);
    ck_assert_uint_eq(reply.was_delayed, delayed);
    ck_assert_uint_eq(reply.leased_count, leased);
}

static void do_purge(void)
{
    struct model_job *job = model_draw(2) == 0 ? model_some_job(true) : model_some_job(false);
    bool done = false;

    if (job == NULL) {
        return;
    }
    bool may_purge = job->done_count == job->task_count;
    enum sl_err err = sl_store_purge_slice(store, job->number, &done);
    ck_assert_int_eq(err, may_purge ? SL_OK : SL_ERR_CONFLICT);
    job->is_purging = may_purge;
    if (done) {
        ck_assert_int_eq(sl_store_get_job(store, job->number, &(struct sl_job_info){0}),
                         SL_ERR_NOT_FOUND);
        job->number = 0;
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

struct reading {
    const struct model_job *job;
    enum sl_results_order order;
    uint64_t cursor;
};

static void see(void *ctx, const struct sl_result_msg *msg)
{
    struct reading *reading = ctx;
    uint32_t idx = sl_task_idx(msg->task);
    const struct model_task *task = &reading->job->tasks[idx];

    if (reading->order == SL_RESULTS_AS_DONE) {
        ck_assert_uint_eq(idx, reading->job->done[reading->cursor]);
    } else {
        while (!model_has_ended(&reading->job->tasks[reading->cursor])) {
            reading->cursor++;
        }
        ck_assert_uint_eq(idx, reading->cursor);
    }
    reading->cursor++;
    ck_assert_uint_eq(msg->cursor, reading->cursor);
    ck_assert_int_eq(msg->state, task->state);
    ck_assert_int_eq(msg->err, task->err);
    ck_assert_uint_eq(msg->attempts, task->attempts);
    ck_assert(sl_span_equal(msg->body, model_bytes(~msg->task, task->answer_bytes)));
}

static void do_read(void)
{
    struct model_job *job = model_some_job(false);
    struct store_results results;
    struct sl_read_request request = {.count_max = 1 + model_draw(20), .may_skip = true};

    if (job == NULL) {
        return;
    }
    request.job = job->number;
    request.order = model_draw(2) == 0 ? SL_RESULTS_AS_DONE : SL_RESULTS_AS_SUBMITTED;
    request.cursor = model_draw(job->task_count + 2);
    struct reading reading = {.job = job, .order = request.order, .cursor = request.cursor};
    size_t size = 1 + model_draw(100000);
    store_read(&request, size, see, &reading, &results);
    if (results.reply.need_bytes > 0) {
        store_read(&request, results.reply.need_bytes, see, &reading, &results);
        ck_assert_uint_gt(results.reply.count, 0);
    }
    if (results.reply.at_end && request.order == SL_RESULTS_AS_DONE) {
        ck_assert_uint_ge(reading.cursor, job->done_count);
    }
}

/* ---- crashes --------------------------------------------------------------------------------- */

struct orphans {
    uint64_t tasks[JOBS_MAX * TASKS_MAX];
    size_t count;
};

static bool see_orphan(void *ctx, const struct sl_orphan *orphan)
{
    struct orphans *orphans = ctx;

    for (size_t i = 0; i < orphans->count; i++) {
        if (orphans->tasks[i] == orphan->task) {
            return false;
        }
    }
    const struct model_task *task = model_task_of(orphan->task);
    ck_assert_int_eq(task->state, SL_TASK_LEASED);
    ck_assert_uint_eq(orphan->lease, task->lease);
    ck_assert_uint_eq(orphan->attempt, task->attempts + 1);
    ck_assert_uint_eq(orphan->deaths, task->deaths);
    ck_assert_uint_eq(orphan->supply, task->supply);
    ck_assert_uint_eq(orphan->priority, task->priority);
    orphans->tasks[orphans->count++] = orphan->task;
    return true;
}

static void do_crash(void)
{
    static struct orphans orphans;
    size_t leased = 0;

    model_live = model_committed;
    store_crash();
    store_begin();
    orphans.count = 0;
    ck_assert_int_eq(sl_store_each_orphan(store, see_orphan, &orphans), SL_OK);
    for (size_t i = 0; i < JOBS_MAX; i++) {
        for (uint32_t idx = 0;
             model_live.jobs[i].number != 0 && idx < model_live.jobs[i].task_count; idx++) {
            leased += model_live.jobs[i].tasks[idx].state == SL_TASK_LEASED;
        }
    }
    ck_assert_uint_eq(orphans.count, leased);
    model_check();
    store_next();
}

static void do_commit(void)
{
    store_next();
    model_committed = model_live;
}

/* ---- the walk -------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint32_t weight;
    void (*run)(void);
} operations[] = {
    {"accept", 30, do_accept},  {"arm", 15, do_arm},          {"settle", 40, do_settle},
    {"promote", 6, do_promote}, {"cancel", 4, do_cancel},     {"purge", 6, do_purge},
    {"read", 8, do_read},       {"open job", 4, do_open_job}, {"commit", 20, do_commit},
    {"crash", 3, do_crash},
};

static size_t pick_operation(void)
{
    uint32_t total = 0;

    for (size_t i = 0; i < SL_ARRAY_LEN(operations); i++) {
        total += operations[i].weight;
    }
    uint32_t at = model_draw(total);
    size_t picked = 0;
    while (at >= operations[picked].weight) {
        at -= operations[picked].weight;
        picked++;
    }
    return picked;
}

static uint64_t number_from(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);

    return text == NULL ? otherwise : strtoull(text, NULL, 0);
}

START_TEST(test_store_agrees_with_the_model)
{
    uint64_t seed;
    uint64_t runs[SL_ARRAY_LEN(operations)] = {0};

    sl_os_random(&seed, sizeof(seed));
    seed = number_from("SLUICE_TEST_SEED", seed);
    uint64_t steps = number_from("SLUICE_TEST_STEPS", STEPS);
    printf("test_store_agrees_with_the_model: SLUICE_TEST_SEED=%" PRIu64
           " SLUICE_TEST_STEPS=%" PRIu64 "\n",
           seed, steps);
    fflush(stdout);
    model_seed(seed);
    model_live.now_ms = model_committed.now_ms = STORE_NOW_MS;
    store_begin();
    for (uint64_t step = 0; step < steps; step++) {
        size_t picked = pick_operation();
        operations[picked].run();
        runs[picked]++;
        model_check();
    }
    do_commit();
    store_commit();
    printf("runs:");
    for (size_t i = 0; i < SL_ARRAY_LEN(operations); i++) {
        printf(" %s=%" PRIu64, operations[i].name, runs[i]);
    }
    printf("; tasks=%" PRIu64 " ended=%" PRIu64 "\n", model_live.counters.submitted,
           model_live.counters.completed + model_live.counters.failed +
               model_live.counters.cancelled + model_live.counters.expired);
    ck_assert_uint_gt(model_live.counters.completed, 0);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("store_model");
    TCase *tests = tcase_create("model");

    tcase_add_checked_fixture(tests, store_set_up, store_tear_down);
    tcase_add_test(tests, test_store_agrees_with_the_model);
    tcase_set_timeout(tests, 110);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(make_suite());

    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
