#ifndef SL_TESTS_STUB_CALL_H
#define SL_TESTS_STUB_CALL_H

/*
 * One call while it is decided. Spans are borrowed from the request's buffer.
 * Stub only; never blocks; allocates nothing.
 */

#include "tests/stub/desk.h"
#include "tests/stub/stats.h"

struct sl_stub_call {
    const struct sl_stub_request *request;
    struct sl_span method;
    struct sl_span path;
    struct sl_span authorization;
    struct sl_span client_id;
    struct sl_span body;
    uint64_t body_hash;
    enum sl_stub_route route;
    struct sl_stub_question question;
    struct sl_stub_wish wish;
    enum sl_stub_refusal refusal;
    struct sl_stub_error error; /* of the refusal */
    struct sl_stub_verdict verdict;
    struct sl_stub_fault fault;
    uint64_t seq;
    uint32_t attempt;
    int64_t delay_ns;
    bool is_counted;
};

/* Fills a call from its request and checks it; call->refusal says what is wrong. */
void sl_stub_call_read(const struct sl_stub_options *options, const struct sl_stub_request *request,
                       struct sl_stub_call *call);
/* Marks it refused; `message` (borrowed for ever) takes the place of the refusal's own, or NULL. */
void sl_stub_call_refuse(struct sl_stub_call *call, enum sl_stub_refusal refusal,
                         const char *message);

#endif
