/*
 * See the header. In the process of the test; what it makes is below the test's own directory.
 */
#include "tests/support/store_case.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/lane.h"
#include "tests/support/tmp_dir.h"

struct sl_store *store;

static struct sl_armed armed_tasks[STORE_ARMED_MAX];
static char *armed_bytes;

/* ---- life ------------------------------------------------------------------------------------ */

void store_open(void)
{
    char message[256] = "";
    enum sl_err err = sl_store_open(tmp_dir_path(), &store, message, sizeof(message));

    ck_assert_msg(err == SL_OK, "open: %s: %s", sl_err_code(err), message);
}

void store_set_up(void)
{
    tmp_dir_make();
    store_open();
}

void store_tear_down(void)
{
    if (store != NULL) {
        sl_store_close(&store);
    }
    free(armed_bytes);
    armed_bytes = NULL;
    tmp_dir_remove();
}

#ifdef __SANITIZE_THREAD__
/* The signal is raised by our own abort(), inside of nobody's malloc: the handler may use it. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "signal:remove_and_abort\n";
}
#endif

static void remove_and_abort(int number)
{
    signal(SIGABRT, SIG_DFL);
    tmp_dir_remove();
    raise(number);
}

void store_expect_abort(void)
{
    signal(SIGABRT, remove_and_abort);
}

static void expect_ok(enum sl_err err, const char *what)
{
    ck_assert_msg(err == SL_OK, "%s: %s: %s", what, sl_err_code(err), sl_store_message(store));
}

void store_begin(void)
{
    expect_ok(sl_store_begin(store), "begin");
}

void store_commit(void)
{
    expect_ok(sl_store_commit(store), "commit");
}

void store_next(void)
{
    store_commit();
    store_begin();
}

void store_crash(void)
{
    sl_store_close(&store);
    store_open();
}

/* ---- jobs and tasks -------------------------------------------------------------------------- */

uint32_t store_job(const char *name)
{
    struct sl_job_info info;
    struct sl_job_request request = {
        .uid = STORE_UID, .name = sl_span_str(name), .may_create = true, .now_ms = STORE_NOW_MS};

    expect_ok(sl_store_open_job(store, &request, &info), "open job");
    return info.job;
}

struct sl_job_info store_job_info(uint32_t job)
{
    struct sl_job_info info = {0};

    expect_ok(sl_store_get_job(store, job, &info), "get job");
    return info;
}

struct sl_task_msg store_msg(const char *custom_id, const char *body)
{
    return (struct sl_task_msg){
        .custom_id = sl_span_str(custom_id),
        .model = sl_span_str("m"),
        .endpoint = SL_ENDPOINT_CHAT,
        .priority = SL_PRIORITY_DEFAULT,
        .body = sl_span_str(body),
    };
}

struct sl_accept_reply store_try_accept(uint32_t job, const struct sl_task_msg *msgs, size_t count)
{
    static const uint32_t supplies[SL_FRAME_TASKS_MAX];
    struct sl_accept_reply reply;
    struct sl_accept_request request = {
        .job = job, .tasks = msgs, .supplies = supplies, .count = count, .now_ms = STORE_NOW_MS};

    ck_assert_uint_le(count, SL_FRAME_TASKS_MAX);
    expect_ok(sl_store_accept(store, &request, &reply), "accept");
    return reply;
}

uint64_t store_accept(uint32_t job, const struct sl_task_msg *msg)
{
    uint32_t idx = (uint32_t)store_job_info(job).total;
    struct sl_accept_reply reply = store_try_accept(job, msg, 1);

    ck_assert_int_eq(reply.refused_err, SL_OK);
    ck_assert_uint_eq(reply.accepted, 1);
    return sl_task_number(job, idx);
}

uint64_t store_accept_many(uint32_t job, const char *prefix, uint32_t count)
{
    uint64_t first = sl_task_number(job, (uint32_t)store_job_info(job).total);

    for (uint32_t i = 0; i < count; i++) {
        char id[64];
        snprintf(id, sizeof(id), "%s-%u", prefix, i);
        struct sl_task_msg msg = store_msg(id, "{\"x\":1}");
        store_accept(job, &msg);
    }
    return first;
}

/* ---- calls ----------------------------------------------------------------------------------- */

struct sl_arm_reply store_arm_with(const struct sl_arm_request *request)
{
    struct sl_arm_reply reply = {.armed = armed_tasks};

    ck_assert_uint_le(request->count_max, STORE_ARMED_MAX);
    expect_ok(sl_store_arm(store, request, &reply), "arm");
    free(armed_bytes);
    armed_bytes = reply.bytes;
    return reply;
}

struct sl_arm_reply store_arm(uint32_t count_max)
{
    struct sl_arm_request request = {
        .count_max = count_max, .bytes_max = 256 * SL_MIB, .now_ms = STORE_NOW_MS};

    return store_arm_with(&request);
}

struct sl_armed store_arm_one(void)
{
    ck_assert_uint_eq(store_arm(1).count, 1);
    return armed_tasks[0];
}

struct sl_settle_item store_item(const struct sl_armed *armed, enum sl_task_state to)
{
    return (struct sl_settle_item){
        .task = armed->task,
        .lease = armed->lease,
        .supply = armed->supply,
        .attempts = armed->attempt,
        .deaths = armed->deaths,
        .priority = armed->priority,
        .was_called = true,
        .to = to,
        .due_ms = STORE_NOW_MS + 1000,
        .err = to == SL_TASK_COMPLETED ? SL_OK : SL_ERR_PROVIDER_ERROR,
        .http_status = 200,
        .flags = SL_RESULT_BODY_IS_JSON,
        .input_tokens = 3,
        .output_tokens = 5,
        .request_id = sl_span_str("req-1"),
        .body = sl_span_str("{\"n\":1}"),
        .now_ms = STORE_NOW_MS,
    };
}

void store_settle(const struct sl_armed *armed, enum sl_task_state to)
{
    struct sl_settle_item item = store_item(armed, to);

    expect_ok(sl_store_settle(store, &item), "settle");
}

/* ---- looking --------------------------------------------------------------------------------- */

struct sl_task_view store_view(uint64_t task)
{
    struct sl_task_view view;

    expect_ok(sl_store_view_task(store, task, &view), "view");
    return view;
}

enum sl_task_state store_state(uint64_t task)
{
    return store_view(task).state;
}

size_t store_count(enum sl_db db)
{
    MDB_stat stat;

    ck_assert_int_eq(mdb_stat(store->txn, store->dbi[db], &stat), 0);
    return stat.ms_entries;
}

void store_damage(enum sl_db db, const struct sl_key *key, long at)
{
    char copy[SL_VALUE_BYTES_MAX];
    struct sl_span value;

    expect_ok(sl_db_get(store, db, key, &value), "damage: get");
    memcpy(copy, value.ptr, value.len);
    size_t place = at < 0 ? value.len - (size_t)-at : (size_t)at;
    ck_assert_uint_lt(place, value.len);
    copy[place] = (char)(copy[place] ^ 1);
    expect_ok(sl_db_put(store, db, key, sl_span_of(copy, value.len)), "damage: put");
}

void store_damage_task(uint64_t task, long at)
{
    struct sl_key key;

    sl_key_u64(&key, task);
    store_damage(SL_DB_TASKS, &key, at);
}

/* ---- reading --------------------------------------------------------------------------------- */

void store_read(const struct sl_read_request *request, size_t size,
                void (*visit)(void *ctx, const struct sl_result_msg *msg), void *ctx,
                struct store_results *out)
{
    struct sl_wire_writer writer;
    char *buf = malloc(size);
    struct sl_wire_decoder *decoder = sl_wire_decoder_open();

    ck_assert(buf != NULL && decoder != NULL);
    sl_wire_writer_init(&writer, buf, size);
    expect_ok(sl_store_read_results(store, request, &writer, &out->reply), "read");
    out->frames = 0;
    for (size_t at = 0; at < writer.len;) {
        struct sl_frame_header header;
        struct sl_result_msg msg;
        ck_assert_int_eq(sl_frame_header_get(buf + at, &header), SL_OK);
        ck_assert_int_eq(header.type, SL_FRAME_RESULT);
        at += SL_FRAME_HEADER_BYTES;
        ck_assert_uint_le(at + header.payload_bytes, writer.len);
        ck_assert_int_eq(
            sl_wire_get_result(decoder, sl_span_of(buf + at, header.payload_bytes), &msg), SL_OK);
        out->frames++;
        if (visit != NULL) {
            visit(ctx, &msg);
        }
        at += header.payload_bytes;
    }
    ck_assert_uint_eq(out->frames, out->reply.count);
    sl_wire_decoder_close(&decoder);
    free(buf);
}
