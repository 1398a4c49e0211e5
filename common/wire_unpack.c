/*
 * The decoder: a checked payload through msgpack-c, and documents value by value.
 *
 * Every payload is walked first (wire_check.c) and then given to msgpack-c, which builds its
 * objects in one zone that is reused from frame to frame; strings and blocks stay where they are,
 * in the payload. A document (status, jobs, task: a map of maps and arrays) is gone through twice:
 * the first round only checks, so that a visitor never sees half of a bad one. The stack of open
 * containers is an array, since the walk bounds the depth.
 *
 * Never recurses, never blocks, allocates only inside the zone (bounded by SL_FRAME_OBJECTS_MAX).
 * Runs in every process, one decoder per thread; a crash leaves nothing behind. Errors:
 * SL_ERR_PROTOCOL for anything that is not exactly the message, SL_ERR_NO_MEMORY.
 */
#include "common/wire.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/wire_private.h"

/* The zone keeps its first chunk when it is cleared: enough for any frame but a full submit. */
#define ZONE_CHUNK_BYTES (64 * SL_KIB)

struct sl_wire_decoder {
    msgpack_zone zone;
};

struct sl_wire_decoder *sl_wire_decoder_open(void)
{
    struct sl_wire_decoder *decoder = calloc(1, sizeof(*decoder));

    if (decoder != NULL && !msgpack_zone_init(&decoder->zone, ZONE_CHUNK_BYTES)) {
        free(decoder);
        decoder = NULL;
    }
    return decoder;
}

void sl_wire_decoder_close(struct sl_wire_decoder **decoder)
{
    if (*decoder != NULL) {
        msgpack_zone_destroy(&(*decoder)->zone);
        free(*decoder);
        *decoder = NULL;
    }
}

enum sl_err sl_wire_unpack(struct sl_wire_decoder *d, struct sl_span payload, msgpack_object *out)
{
    size_t end = 0;

    if (sl_wire_check_shape(payload) != SL_WIRE_SOUND) {
        return SL_ERR_PROTOCOL;
    }
    msgpack_zone_clear(&d->zone);
    msgpack_unpack_return rc = msgpack_unpack(payload.ptr, payload.len, &end, &d->zone, out);
    if (rc == MSGPACK_UNPACK_NOMEM_ERROR) {
        return SL_ERR_NO_MEMORY; /* not depth: the walk allows less than msgpack-c does */
    }
    /* The two must agree on every payload; where they do not, neither is believed. */
    return rc == MSGPACK_UNPACK_SUCCESS && end == payload.len ? SL_OK : SL_ERR_PROTOCOL;
}

/* ---- documents ------------------------------------------------------------------------------- */

struct level {
    const msgpack_object *container;
    uint32_t next; /* element to show next */
};

struct document_walk {
    void (*visit)(void *ctx, const struct sl_doc_value *value);
    void *ctx;
    uint32_t depth;
    struct level levels[SL_FRAME_DEPTH_MAX];
};

static void show(const struct document_walk *walk, const struct sl_doc_value *value)
{
    if (walk->visit != NULL) {
        walk->visit(walk->ctx, value);
    }
}

static bool read_number(const msgpack_object *object, struct sl_doc_value *value)
{
    if (object->type == MSGPACK_OBJECT_POSITIVE_INTEGER) {
        value->kind = SL_DOC_UINT;
        value->uint_value = object->via.u64;
        value->int_value = (int64_t)SL_MIN(object->via.u64, (uint64_t)INT64_MAX);
        value->double_value = (double)object->via.u64;
        return true;
    }
    if (object->type == MSGPACK_OBJECT_NEGATIVE_INTEGER) {
        value->kind = SL_DOC_INT;
        value->int_value = object->via.i64;
        value->double_value = (double)object->via.i64;
        return true;
    }
    if (object->type == MSGPACK_OBJECT_FLOAT32 || object->type == MSGPACK_OBJECT_FLOAT64) {
        value->kind = SL_DOC_DOUBLE;
        value->double_value = object->via.f64;
        return true;
    }
    return false;
}

/* False for what no document has: blocks of bytes, texts with NUL. */
static bool read_scalar(const msgpack_object *object, struct sl_doc_value *value)
{
    if (object->type == MSGPACK_OBJECT_STR) {
        value->kind = SL_DOC_STR;
        value->str_value = sl_span_of(object->via.str.ptr, object->via.str.size);
        return sl_wire_is_text(value->str_value, 0, SL_FRAME_BYTES_MAX);
    }
    if (object->type == MSGPACK_OBJECT_BOOLEAN) {
        value->kind = SL_DOC_BOOL;
        value->bool_value = object->via.boolean;
        return true;
    }
    if (object->type == MSGPACK_OBJECT_NIL) {
        value->kind = SL_DOC_NIL;
        return true;
    }
    return read_number(object, value);
}

static bool is_container(const msgpack_object *object)
{
    return object->type == MSGPACK_OBJECT_MAP || object->type == MSGPACK_OBJECT_ARRAY;
}

static bool walk_object(struct document_walk *walk, struct sl_span key,
                        const msgpack_object *object)
{
    struct sl_doc_value value = {.key = key, .str_value = sl_span_of("", 0)};

    if (!is_container(object)) {
        if (!read_scalar(object, &value)) {
            return false;
        }
        show(walk, &value);
        return true;
    }
    SL_ASSERT(walk->depth < SL_FRAME_DEPTH_MAX);
    value.kind = object->type == MSGPACK_OBJECT_MAP ? SL_DOC_MAP : SL_DOC_ARRAY;
    show(walk, &value);
    walk->levels[walk->depth++] = (struct level){.container = object};
    return true;
}

static bool walk_element(struct document_walk *walk, struct level *level)
{
    uint32_t idx = level->next++;

    if (level->container->type == MSGPACK_OBJECT_ARRAY) {
        return walk_object(walk, sl_span_of("", 0), &level->container->via.array.ptr[idx]);
    }
    const msgpack_object_kv *pair = &level->container->via.map.ptr[idx];
    struct sl_span key = sl_span_of(pair->key.via.str.ptr, pair->key.via.str.size);
    if (pair->key.type != MSGPACK_OBJECT_STR || !sl_wire_is_text(key, 1, SL_ID_BYTES_MAX)) {
        return false;
    }
    return walk_object(walk, key, &pair->val);
}

static uint32_t level_count(const struct level *level)
{
    return level->container->type == MSGPACK_OBJECT_ARRAY ? level->container->via.array.size
                                                          : level->container->via.map.size;
}

static bool walk_all(struct document_walk *walk, const msgpack_object *root)
{
    const struct sl_doc_value end = {
        .kind = SL_DOC_END, .key = sl_span_of("", 0), .str_value = sl_span_of("", 0)};
    bool is_sound = walk_object(walk, sl_span_of("", 0), root);

    while (is_sound && walk->depth > 0) {
        struct level *level = &walk->levels[walk->depth - 1];
        if (level->next < level_count(level)) {
            is_sound = walk_element(walk, level);
        } else {
            walk->depth--;
            show(walk, &end);
        }
    }
    return is_sound;
}

enum sl_err sl_wire_walk_document(struct sl_wire_decoder *d, struct sl_span payload,
                                  void (*visit)(void *ctx, const struct sl_doc_value *value),
                                  void *ctx)
{
    msgpack_object root;
    struct document_walk check = {.visit = NULL};
    struct document_walk walk = {.visit = visit, .ctx = ctx};
    enum sl_err err = sl_wire_unpack(d, payload, &root);

    if (err != SL_OK) {
        return err;
    }
    if (root.type != MSGPACK_OBJECT_MAP || !walk_all(&check, &root)) {
        return SL_ERR_PROTOCOL;
    }
    bool is_sound = walk_all(&walk, &root);
    SL_ASSERT(is_sound); /* the same objects as in the first round */
    return SL_OK;
}
