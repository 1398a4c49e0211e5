/*
 * Documents: collect, look up, print.
 *
 * Runs in sluice-status and sluice-ctl. The broker's document comes as a walk; it is kept as a flat
 * list in the order of the walk, each node knowing where its subtree ends, so that looking up and
 * printing need no recursion. Knows nothing of what the members mean. A document deeper than a
 * frame may be, or cut off, is marked as failed; nothing is asserted about its content.
 */
#include "tools/doc.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"

#define NODES_AT_START 256

void sl_doc_init(struct sl_doc *doc)
{
    memset(doc, 0, sizeof(*doc));
}

void sl_doc_fini(struct sl_doc *doc)
{
    free(doc->nodes);
    memset(doc, 0, sizeof(*doc));
}

void sl_doc_clear(struct sl_doc *doc)
{
    doc->count = 0;
    doc->depth = 0;
    doc->is_failed = false;
}

/* ---- collecting ------------------------------------------------------------------------------ */

static bool make_room(struct sl_doc *doc)
{
    size_t room = doc->room == 0 ? NODES_AT_START : doc->room * 2;

    if (doc->count < doc->room) {
        return true;
    }
    struct sl_doc_node *grown = realloc(doc->nodes, room * sizeof(*grown));
    if (grown == NULL) {
        return false;
    }
    doc->nodes = grown;
    doc->room = room;
    return true;
}

static void end_container(struct sl_doc *doc)
{
    doc->is_failed = doc->depth == 0;
    if (!doc->is_failed) {
        doc->nodes[doc->open[--doc->depth]].next = doc->count;
    }
}

static bool is_container(const struct sl_doc_value *value)
{
    return value->kind == SL_DOC_MAP || value->kind == SL_DOC_ARRAY;
}

void sl_doc_add(void *ctx, const struct sl_doc_value *value)
{
    struct sl_doc *doc = ctx;

    if (doc->is_failed) {
        return;
    }
    if (value->kind == SL_DOC_END) {
        end_container(doc);
        return;
    }
    if (!make_room(doc) || (is_container(value) && doc->depth == SL_DOC_DEPTH_MAX)) {
        doc->is_failed = true;
        return;
    }
    if (is_container(value)) {
        doc->open[doc->depth++] = doc->count;
    }
    doc->nodes[doc->count] = (struct sl_doc_node){.value = *value, .next = doc->count + 1};
    doc->count++;
}

bool sl_doc_is_whole(const struct sl_doc *doc)
{
    return !doc->is_failed && doc->depth == 0 && doc->count > 0 &&
           doc->nodes[0].value.kind == SL_DOC_MAP && doc->nodes[0].next == doc->count;
}

/* ---- looking up ------------------------------------------------------------------------------ */

size_t sl_doc_first(const struct sl_doc *doc, size_t parent)
{
    if (parent >= doc->count || doc->nodes[parent].next <= parent + 1) {
        return SL_DOC_NONE;
    }
    return parent + 1;
}

size_t sl_doc_next(const struct sl_doc *doc, size_t parent, size_t node)
{
    SL_ASSERT(parent < doc->count && node < doc->count);
    size_t next = doc->nodes[node].next;
    return next < doc->nodes[parent].next ? next : SL_DOC_NONE;
}

size_t sl_doc_find(const struct sl_doc *doc, size_t parent, const char *key)
{
    size_t node = sl_doc_first(doc, parent);

    while (node != SL_DOC_NONE && !sl_span_equal(doc->nodes[node].value.key, sl_span_str(key))) {
        node = sl_doc_next(doc, parent, node);
    }
    return node;
}

uint64_t sl_doc_uint(const struct sl_doc *doc, size_t parent, const char *key)
{
    size_t node = sl_doc_find(doc, parent, key);

    if (node == SL_DOC_NONE || doc->nodes[node].value.kind != SL_DOC_UINT) {
        return 0;
    }
    return doc->nodes[node].value.uint_value;
}

double sl_doc_double(const struct sl_doc *doc, size_t parent, const char *key)
{
    size_t node = sl_doc_find(doc, parent, key);

    if (node == SL_DOC_NONE || doc->nodes[node].value.kind != SL_DOC_DOUBLE) {
        return (double)sl_doc_uint(doc, parent, key);
    }
    return doc->nodes[node].value.double_value;
}

struct sl_span sl_doc_str(const struct sl_doc *doc, size_t parent, const char *key)
{
    size_t node = sl_doc_find(doc, parent, key);

    if (node == SL_DOC_NONE || doc->nodes[node].value.kind != SL_DOC_STR) {
        return (struct sl_span){0};
    }
    return doc->nodes[node].value.str_value;
}

/* ---- printing -------------------------------------------------------------------------------- */

static void put(struct sl_json_text *text, const char *literal)
{
    sl_json_put_raw(text, sl_span_str(literal));
}

void sl_doc_put_plain(struct sl_json_text *text, struct sl_span value)
{
    size_t from = 0;

    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if (c < 0x20 || c == 0x7f) {
            sl_json_put_raw(text, sl_span_of(value.ptr + from, i - from));
            put(text, "?");
            from = i + 1;
        }
    }
    if (from < value.len) {
        sl_json_put_raw(text, sl_span_of(value.ptr + from, value.len - from));
    }
}

/* A value that holds no others; texts as JSON strings or plain. */
static void put_scalar(struct sl_json_text *text, const struct sl_doc_value *value, bool is_plain)
{
    switch (value->kind) {
    case SL_DOC_UINT:
        sl_json_put_uint(text, value->uint_value);
        return;
    case SL_DOC_INT:
        sl_json_put_int(text, value->int_value);
        return;
    case SL_DOC_DOUBLE:
        sl_json_put_ms(text, value->double_value);
        return;
    case SL_DOC_BOOL:
        put(text, value->bool_value ? "true" : "false");
        return;
    case SL_DOC_STR:
        if (is_plain) {
            sl_doc_put_plain(text, value->str_value);
        } else {
            sl_json_put_string(text, value->str_value);
        }
        return;
    case SL_DOC_NIL:
        put(text, is_plain ? "-" : "null");
        return;
    case SL_DOC_MAP:
    case SL_DOC_ARRAY:
    case SL_DOC_END:
        break;
    }
    SL_UNREACHABLE();
}

/* Where the printing stands: the maps and arrays that are open. */
struct nesting {
    size_t nodes[SL_DOC_DEPTH_MAX];
    size_t depth;
};

/* Closes what ends before node `at`. */
static void put_ends(const struct sl_doc *doc, struct sl_json_text *text, struct nesting *nesting,
                     size_t at)
{
    while (nesting->depth > 0) {
        const struct sl_doc_node *open = &doc->nodes[nesting->nodes[nesting->depth - 1]];
        if (at < open->next) {
            return;
        }
        put(text, open->value.kind == SL_DOC_MAP ? "}" : "]");
        nesting->depth--;
    }
}

/* Comma and member name before node `at`. */
static void put_before(const struct sl_doc *doc, struct sl_json_text *text,
                       const struct nesting *nesting, size_t at)
{
    if (nesting->depth == 0) {
        return;
    }
    size_t parent = nesting->nodes[nesting->depth - 1];
    if (at != parent + 1) {
        put(text, ",");
    }
    if (doc->nodes[parent].value.kind == SL_DOC_MAP) {
        sl_json_put_string(text, doc->nodes[at].value.key);
        put(text, ":");
    }
}

void sl_doc_put_json(const struct sl_doc *doc, struct sl_json_text *text)
{
    struct nesting nesting = {.depth = 0};

    SL_ASSERT(sl_doc_is_whole(doc));
    for (size_t i = 0; i < doc->count; i++) {
        const struct sl_doc_value *value = &doc->nodes[i].value;
        put_ends(doc, text, &nesting, i);
        put_before(doc, text, &nesting, i);
        if (is_container(value)) {
            put(text, value->kind == SL_DOC_MAP ? "{" : "[");
            nesting.nodes[nesting.depth++] = i;
        } else {
            put_scalar(text, value, false);
        }
    }
    put_ends(doc, text, &nesting, doc->count);
}

/* The names of the open members, dotted, without the document itself. */
static void put_path(const struct sl_doc *doc, struct sl_json_text *text,
                     const struct nesting *nesting)
{
    for (size_t i = 1; i < nesting->depth; i++) {
        struct sl_span key = doc->nodes[nesting->nodes[i]].value.key;
        if (key.len > 0) {
            sl_doc_put_plain(text, key);
            put(text, ".");
        }
    }
}

void sl_doc_put_lines(const struct sl_doc *doc, struct sl_json_text *text)
{
    struct nesting nesting = {.depth = 0};

    SL_ASSERT(sl_doc_is_whole(doc));
    for (size_t i = 0; i < doc->count; i++) {
        const struct sl_doc_value *value = &doc->nodes[i].value;
        while (nesting.depth > 0 && i >= doc->nodes[nesting.nodes[nesting.depth - 1]].next) {
            nesting.depth--;
        }
        if (is_container(value)) {
            nesting.nodes[nesting.depth++] = i;
            continue;
        }
        put_path(doc, text, &nesting);
        sl_doc_put_plain(text, value->key.len > 0 ? value->key : sl_span_str("-"));
        put(text, ": ");
        put_scalar(text, value, true);
        put(text, "\n");
    }
}
