/*
 * Bounds of frames: the walk over a payload before msgpack-c sees it, and the limits of members.
 *
 * msgpack-c believes the counts of array and map headers: five bytes (dd ff ff ff ff) make it ask
 * for 96 GiB. So the payload is walked first, one header after the other, with a small stack of
 * open containers: depth, number of objects, every length against the bytes that are left, one
 * value, nothing behind it. What passes here costs msgpack-c at most SL_FRAME_OBJECTS_MAX objects.
 *
 * Never allocates, never recurses, never reads past the payload. Runs in every process; keeps no
 * state, so a crash leaves nothing behind. Reports a verdict, no errors.
 */
#include "common/utf8.h"
#include "common/wire_private.h"

enum tag_kind {
    TAG_REFUSED, /* never used (c1) and the ext types: no message of ours has them */
    TAG_SCALAR,  /* `width` bytes follow */
    TAG_BYTES,   /* a length of `width` bytes follows, then so many bytes */
    TAG_ARRAY,   /* a count of `width` bytes follows, then so many values */
    TAG_MAP,     /* a count of `width` bytes follows, then so many pairs */
};

struct tag_row {
    uint8_t kind;
    uint8_t width;
};

/* The tags c0..df of the msgpack specification, in order. */
static const struct tag_row tag_rows[32] = {
    {TAG_SCALAR, 0},  {TAG_REFUSED, 0}, {TAG_SCALAR, 0},  {TAG_SCALAR, 0},  /* nil - false true */
    {TAG_BYTES, 1},   {TAG_BYTES, 2},   {TAG_BYTES, 4},   {TAG_REFUSED, 0}, /* bin8 16 32, ext8 */
    {TAG_REFUSED, 0}, {TAG_REFUSED, 0}, {TAG_SCALAR, 4},  {TAG_SCALAR, 8},  /* ext, float32 64 */
    {TAG_SCALAR, 1},  {TAG_SCALAR, 2},  {TAG_SCALAR, 4},  {TAG_SCALAR, 8},  /* uint8 16 32 64 */
    {TAG_SCALAR, 1},  {TAG_SCALAR, 2},  {TAG_SCALAR, 4},  {TAG_SCALAR, 8},  /* int8 16 32 64 */
    {TAG_REFUSED, 0}, {TAG_REFUSED, 0}, {TAG_REFUSED, 0}, {TAG_REFUSED, 0}, /* fixext1 2 4 8 */
    {TAG_REFUSED, 0}, {TAG_BYTES, 1},   {TAG_BYTES, 2},   {TAG_BYTES, 4},   /* ext16, str8 16 32 */
    {TAG_ARRAY, 2},   {TAG_ARRAY, 4},   {TAG_MAP, 2},     {TAG_MAP, 4},
};

/* What one header says. */
struct head {
    enum tag_kind kind;
    uint64_t count; /* bytes that follow, or elements */
};

struct walk {
    const uint8_t *at;
    const uint8_t *end;
    uint32_t objects;                  /* seen or announced */
    uint32_t depth;                    /* containers open */
    uint32_t left[SL_FRAME_DEPTH_MAX]; /* values still to come in each */
};

static uint64_t read_be(const uint8_t *at, size_t width)
{
    uint64_t value = 0;

    for (size_t i = 0; i < width; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

/* The tags that hold their value or length in themselves. */
static struct head read_small_head(uint8_t tag)
{
    if (tag < 0x80 || tag >= 0xe0) {
        return (struct head){TAG_SCALAR, 0};
    }
    if (tag < 0x90) {
        return (struct head){TAG_MAP, tag & 0x0f};
    }
    if (tag < 0xa0) {
        return (struct head){TAG_ARRAY, tag & 0x0f};
    }
    return (struct head){TAG_BYTES, tag & 0x1f};
}

static bool read_head(struct walk *walk, struct head *out)
{
    uint8_t tag = *walk->at++;

    if (tag < 0xc0 || tag >= 0xe0) {
        *out = read_small_head(tag);
        return true;
    }
    struct tag_row row = tag_rows[tag - 0xc0];
    if (row.kind == TAG_SCALAR) {
        *out = (struct head){TAG_SCALAR, row.width};
        return true;
    }
    if (row.kind == TAG_REFUSED || (size_t)(walk->end - walk->at) < row.width) {
        return false;
    }
    *out = (struct head){(enum tag_kind)row.kind, read_be(walk->at, row.width)};
    walk->at += row.width;
    return true;
}

/* Every value takes a byte at least: a count beyond the bytes left is a lie, told here. */
static enum sl_wire_shape enter_container(struct walk *walk, uint64_t values)
{
    if (values > (size_t)(walk->end - walk->at)) {
        return SL_WIRE_MALFORMED;
    }
    if (values > SL_FRAME_OBJECTS_MAX - walk->objects || walk->depth == SL_FRAME_DEPTH_MAX) {
        return SL_WIRE_TOO_LARGE;
    }
    walk->objects += (uint32_t)values;
    walk->left[walk->depth++] = (uint32_t)values;
    return SL_WIRE_SOUND;
}

static enum sl_wire_shape walk_value(struct walk *walk)
{
    struct head head;

    if (walk->at == walk->end || !read_head(walk, &head)) {
        return SL_WIRE_MALFORMED;
    }
    if (head.kind == TAG_ARRAY) {
        return enter_container(walk, head.count);
    }
    if (head.kind == TAG_MAP) {
        return enter_container(walk, head.count * 2);
    }
    if (head.count > (size_t)(walk->end - walk->at)) {
        return SL_WIRE_MALFORMED;
    }
    walk->at += head.count;
    return SL_WIRE_SOUND;
}

enum sl_wire_shape sl_wire_check_shape(struct sl_span payload)
{
    struct walk walk = {.at = (const uint8_t *)payload.ptr,
                        .end = (const uint8_t *)payload.ptr + payload.len,
                        .objects = 1};

    if (payload.len == 0) {
        return SL_WIRE_MALFORMED;
    }
    if (payload.len > SL_FRAME_BYTES_MAX) {
        return SL_WIRE_TOO_LARGE;
    }
    enum sl_wire_shape shape = walk_value(&walk);
    /* At most SL_FRAME_OBJECTS_MAX values and as many container ends. */
    while (shape == SL_WIRE_SOUND && walk.depth > 0) {
        if (walk.left[walk.depth - 1] == 0) {
            walk.depth--;
        } else {
            walk.left[walk.depth - 1]--;
            shape = walk_value(&walk);
        }
    }
    return shape == SL_WIRE_SOUND && walk.at != walk.end ? SL_WIRE_MALFORMED : shape;
}

bool sl_wire_is_text(struct sl_span text, size_t min, size_t max)
{
    if (text.len < min || text.len > max) {
        return false;
    }
    return text.len == 0 || memchr(text.ptr, '\0', text.len) == NULL;
}

static bool is_name(struct sl_span text, size_t min, size_t max)
{
    return sl_wire_is_text(text, min, max) && sl_utf8_is_valid(text);
}

static bool are_names_sound(const struct sl_task_msg *task)
{
    return is_name(task->custom_id, 1, SL_ID_BYTES_MAX) &&
           is_name(task->model, 0, SL_NAME_BYTES_MAX) &&
           is_name(task->provider, 0, SL_NAME_BYTES_MAX) &&
           is_name(task->stage, 0, SL_NAME_BYTES_MAX) &&
           is_name(task->service_id, 0, SL_NAME_BYTES_MAX) &&
           task->model.len + task->provider.len > 0;
}

static bool are_options_sound(const struct sl_task_msg *task)
{
    return sl_endpoint_is_known((uint32_t)task->endpoint) && task->priority <= SL_PRIORITY_MAX &&
           task->timeout_ms <= SL_TASK_TIMEOUT_MS_MAX && task->max_attempts <= SL_ATTEMPTS_MAX &&
           (task->flags & ~SL_TASK_FLAGS_ALL) == 0;
}

bool sl_wire_is_task(const struct sl_task_msg *task)
{
    return are_names_sound(task) && are_options_sound(task) && task->not_before_ms >= 0 &&
           task->deadline_ms >= 0 && task->body.len >= 1 && task->body.len <= SL_BODY_BYTES_MAX;
}
