#ifndef SL_TESTS_STUB_QUESTION_H
#define SL_TESTS_STUB_QUESTION_H

/*
 * What the stub needs to know of a request's JSON body: model, stream, token cap, and the text of
 * the last user message. Texts are the bytes between the quotes as they stand in the body, escapes
 * and all, so that they can be put into an answer's JSON as they are.
 *
 * Stub only; pure; allocates nothing; never blocks. Reads strictly the members it needs and skips
 * the others by brackets and quotes alone; the product's own JSON door judges validity.
 */

#include "common/base.h"

struct sl_stub_question {
    struct sl_span model;  /* inside of the string; len 0: none */
    struct sl_span text;   /* last user message, or last input text: inside of the string */
    struct sl_span inputs; /* embeddings: the whole "input" value */
    bool has_input;        /* "messages" or "input" is there */
    bool is_stream;
    uint64_t max_tokens; /* max_completion_tokens, max_output_tokens or max_tokens; 0: none */
};

/* Reads a body. NULL: read; else what is wrong with it, in a sentence. */
const char *sl_stub_question_read(struct sl_span body, struct sl_stub_question *out);

/* Iterates over a JSON array (or yields a lone value once): the next element's bytes from *rest,
 * which is moved on. False at the end. Start with *rest = the array's bytes. */
bool sl_stub_question_next(struct sl_span *rest, struct sl_span *element);

#endif
