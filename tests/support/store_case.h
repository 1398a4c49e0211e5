#ifndef SL_TESTS_SUPPORT_STORE_CASE_H
#define SL_TESTS_SUPPORT_STORE_CASE_H

/*
 * A store in a directory of its own, and short words for what tests of it do again and again. Each
 * of them fails the test when the store answers an error. Everything but open, close and crash is
 * called between store_begin and store_commit. One store at a time.
 */

#include "broker/store_internal.h"

#define STORE_NOW_MS INT64_C(1700000000000) /* what tests mean by now */
#define STORE_UID 1000

extern struct sl_store *store; /* open between store_set_up and store_tear_down */

/* A fixture: an empty store, no transaction. */
void store_set_up(void);
void store_tear_down(void);
/* For a test that ends with SIGABRT, and so without the tear down: the directory is removed first.
 */
void store_expect_abort(void);

void store_open(void);
void store_begin(void);
void store_commit(void);
/* Commits, and begins the next transaction. */
void store_next(void);
/* As a crash does: what is not committed is gone. Opens again; no transaction. */
void store_crash(void);

uint32_t store_job(const char *name);
struct sl_job_info store_job_info(uint32_t job);

/* A chat task of priority 5 with this id and body. */
struct sl_task_msg store_msg(const char *custom_id, const char *body);
/* Accepts it into supply 0; it must be new. Its number. */
uint64_t store_accept(uint32_t job, const struct sl_task_msg *msg);
/* `count` tasks "PREFIX-0"... with small bodies; the number of the first. */
uint64_t store_accept_many(uint32_t job, const char *prefix, uint32_t count);
struct sl_accept_reply store_try_accept(uint32_t job, const struct sl_task_msg *msgs, size_t count);

#define STORE_ARMED_MAX 2048
/* The reply's `armed` is static; its bytes are freed by the next call and by the tear down. */
struct sl_arm_reply store_arm(uint32_t count_max);
struct sl_arm_reply store_arm_with(const struct sl_arm_request *request);
/* Arms the next one of supply 0, which must be there. */
struct sl_armed store_arm_one(void);
/* The end of a call with an answer `{"n":1}`, http_status 200 and 3 + 5 tokens; DELAYED: due a
 * second after now. */
struct sl_settle_item store_item(const struct sl_armed *armed, enum sl_task_state to);
void store_settle(const struct sl_armed *armed, enum sl_task_state to);

struct sl_task_view store_view(uint64_t task);
enum sl_task_state store_state(uint64_t task);
/* Records in a database. */
size_t store_count(enum sl_db db);

/* Overwrites one byte of a record (counted from its end when at < 0). */
void store_damage(enum sl_db db, const struct sl_key *key, long at);
void store_damage_task(uint64_t task, long at);

/* The results of a job from a cursor on, by a writer of `size` bytes, decoded one by one. */
struct store_results {
    struct sl_read_reply reply;
    size_t frames;
};
void store_read(const struct sl_read_request *request, size_t size,
                void (*visit)(void *ctx, const struct sl_result_msg *msg), void *ctx,
                struct store_results *out);

#endif
