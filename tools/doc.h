#ifndef SL_TOOLS_DOC_H
#define SL_TOOLS_DOC_H

/*
 * A document from the broker, kept as a flat list to look things up in, and printed as JSON. Tools
 * only; no I/O. Texts inside are borrowed from the client and live until its next call.
 */

#include "common/json.h"
#include "common/wire.h"

#define SL_DOC_DEPTH_MAX SL_FRAME_DEPTH_MAX
#define SL_DOC_NONE SIZE_MAX

struct sl_doc_node {
    struct sl_doc_value value;
    size_t next; /* first node that is not inside this one */
};

struct sl_doc {
    struct sl_doc_node *nodes; /* node 0 is the document */
    size_t count;
    size_t room;
    size_t open[SL_DOC_DEPTH_MAX]; /* maps and arrays that have not ended */
    size_t depth;
    bool is_failed; /* out of memory, or not a document */
};

void sl_doc_init(struct sl_doc *doc);
void sl_doc_fini(struct sl_doc *doc);
/* Forgets the values, keeps the memory. */
void sl_doc_clear(struct sl_doc *doc);
/* The visitor to hand to sl_client_status() and its like, with the document as ctx. */
void sl_doc_add(void *doc, const struct sl_doc_value *value);
/* Was a whole document added? */
bool sl_doc_is_whole(const struct sl_doc *doc);

/* A member of a map; SL_DOC_NONE when it is not there or `parent` is SL_DOC_NONE. */
size_t sl_doc_find(const struct sl_doc *doc, size_t parent, const char *key);
/* First element of an array, and the one after `node`; SL_DOC_NONE past the end. */
size_t sl_doc_first(const struct sl_doc *doc, size_t parent);
size_t sl_doc_next(const struct sl_doc *doc, size_t parent, size_t node);

/* A member as a number or text; 0 or empty when it is not there or something else. */
uint64_t sl_doc_uint(const struct sl_doc *doc, size_t parent, const char *key);
double sl_doc_double(const struct sl_doc *doc, size_t parent, const char *key);
struct sl_span sl_doc_str(const struct sl_doc *doc, size_t parent, const char *key);

void sl_doc_put_json(const struct sl_doc *doc, struct sl_json_text *text);
/* One line "a.b: value" per value, control characters in texts as '?'. */
void sl_doc_put_lines(const struct sl_doc *doc, struct sl_json_text *text);
/* Appends a text without its control characters, so it cannot steer a terminal. */
void sl_doc_put_plain(struct sl_json_text *text, struct sl_span value);

#endif
