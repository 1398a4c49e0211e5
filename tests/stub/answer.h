#ifndef SL_TESTS_STUB_ANSWER_H
#define SL_TESTS_STUB_ANSWER_H

/*
 * Writes answers: OpenAI-shaped JSON and the HTTP head before it, whole or damaged as a kind asks.
 * Stub only; pure; the texts keep their room; never blocks.
 */

#include "tests/stub/fate.h"
#include "tests/stub/limiter.h"
#include "tests/stub/question.h"
#include "tests/stub/text.h"

enum sl_stub_route {
    SL_STUB_ROUTE_NONE,
    SL_STUB_ROUTE_CHAT,
    SL_STUB_ROUTE_RESPONSES,
    SL_STUB_ROUTE_EMBEDDINGS,
    SL_STUB_ROUTE_MODELS,
    SL_STUB_ROUTE_STATS,
};

struct sl_stub_error {
    int status;
    const char *type;
    const char *code; /* NULL: null */
    const char *message;
};

/* All that an answer is made of; borrowed for the call. */
struct sl_stub_reply {
    enum sl_stub_kind kind;
    int status;
    enum sl_stub_route route;
    const struct sl_stub_error *error; /* an error body; NULL: the normal one */
    const struct sl_stub_question *question;
    const struct sl_stub_verdict *verdict; /* NULL: no rate headers */
    size_t request_bytes;
    uint64_t body_hash;
    uint64_t seq;
    int64_t created_s; /* wall clock */
    int64_t processing_ms;
    int64_t retry_after_ms; /* SL_STUB_UNSET: no header */
    int64_t tokens;         /* of the completion; SL_STUB_UNSET: from its length */
    size_t text_bytes;      /* pad the text to so many */
    const char *redirect_to;
    bool is_echo_full;
    bool is_chunked; /* chunks when the body is over 64 KiB */
    bool is_closing;
};

/* (body.c) Writes the JSON body into `body` (emptied first), as reply->kind asks. */
void sl_stub_answer_body(const struct sl_stub_reply *reply, struct sl_stub_text *body);
/* Puts the whole answer, head and body, into `out` (emptied first). Returns the head's length. */
size_t sl_stub_answer_write(const struct sl_stub_reply *reply, struct sl_span body,
                            struct sl_stub_text *out);
/* The error body and status that belong to an injected fault; NULL: its body is no error. */
const struct sl_stub_error *sl_stub_error_of(struct sl_stub_fault fault,
                                             struct sl_stub_error *room);

#endif
