/*
 * Frames: headers and the writer that every encoder packs into.
 *
 * A frame is 8 bytes of header (u32 big-endian payload length, u8 protocol version, u8 frame type,
 * u16 zero) and one msgpack value. The writer hands msgpack-c's packer a callback that appends to
 * the caller's buffer and says no when it is full; the first no sticks until the frame is dropped,
 * so a sequence of puts needs one check, at its end.
 *
 * Never allocates, never does I/O, never blocks. Runs in every process; keeps no state of its own,
 * so a crash leaves nothing behind. Errors: SL_ERR_VERSION and SL_ERR_PROTOCOL for headers that are
 * not ours, SL_ERR_FULL when a frame does not fit.
 */
#include "common/wire.h"

#include "common/check.h"
#include "common/wire_private.h"

#define VERSION_AT 4
#define TYPE_AT 5
#define ZERO_AT 6

/* ---- the table of frames --------------------------------------------------------------------- */

struct frame_row {
    const char *name; /* NULL: no such frame */
    enum sl_frame_sender sender;
};

static const struct frame_row frame_rows[256] = {
#define X(name, number, text, sender, meaning) [number] = {text, SL_SENDER_##sender},
#include "common/tbl/frames.def"
#undef X
};

const char *sl_frame_name(enum sl_frame_type type)
{
    const char *name = (unsigned)type < SL_ARRAY_LEN(frame_rows) ? frame_rows[type].name : NULL;

    return name != NULL ? name : "unknown";
}

enum sl_frame_sender sl_frame_sender(enum sl_frame_type type)
{
    SL_ASSERT((unsigned)type < SL_ARRAY_LEN(frame_rows));
    SL_ASSERT(frame_rows[type].name != NULL);
    return frame_rows[type].sender;
}

enum sl_err sl_frame_header_get(const char bytes[SL_FRAME_HEADER_BYTES],
                                struct sl_frame_header *out)
{
    uint32_t payload_bytes = sl_get_be32(bytes);
    uint8_t type = (uint8_t)bytes[TYPE_AT];

    /* The version first: another version may have other frames and other limits. */
    if ((uint8_t)bytes[VERSION_AT] != SL_PROTOCOL_VERSION) {
        return SL_ERR_VERSION;
    }
    if (bytes[ZERO_AT] != 0 || bytes[ZERO_AT + 1] != 0 || frame_rows[type].name == NULL) {
        return SL_ERR_PROTOCOL;
    }
    if (payload_bytes == 0 || payload_bytes > SL_FRAME_BYTES_MAX) {
        return SL_ERR_PROTOCOL;
    }
    *out =
        (struct sl_frame_header){.payload_bytes = payload_bytes, .type = (enum sl_frame_type)type};
    return SL_OK;
}

/* ---- the writer ------------------------------------------------------------------------------ */

void sl_wire_writer_init(struct sl_wire_writer *writer, char *buf, size_t size_bytes)
{
    *writer = (struct sl_wire_writer){.buf = buf, .size_bytes = size_bytes};
}

/* msgpack-c's write callback; -1 makes the packer give up on the value. */
static int append(void *data, const char *bytes, size_t len)
{
    struct sl_wire_writer *writer = data;

    if (writer->is_full || len > writer->size_bytes - writer->len) {
        writer->is_full = true;
        return -1;
    }
    if (len > 0) {
        memcpy(writer->buf + writer->len, bytes, len);
        writer->len += len;
    }
    return 0;
}

static msgpack_packer packer_of(struct sl_wire_writer *writer)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, writer, append);
    return packer;
}

size_t sl_wire_begin(struct sl_wire_writer *writer, enum sl_frame_type type)
{
    size_t start = writer->len;
    char header[SL_FRAME_HEADER_BYTES] = {0};

    SL_ASSERT((unsigned)type < SL_ARRAY_LEN(frame_rows) && frame_rows[type].name != NULL);
    header[VERSION_AT] = SL_PROTOCOL_VERSION;
    header[TYPE_AT] = (char)type;
    append(writer, header, sizeof(header));
    return start;
}

/* Documents are the only frames whose size nobody knows beforehand: too many objects is "does not
 * fit" too. Anything else wrong with one is our own mistake in counting members. */
static bool is_document_readable(const struct sl_wire_writer *writer, size_t start)
{
    const char *payload = writer->buf + start + SL_FRAME_HEADER_BYTES;

    if (writer->buf[start + TYPE_AT] != SL_FRAME_DOCUMENT) {
        return true;
    }
    enum sl_wire_shape shape =
        sl_wire_check_shape(sl_span_of(payload, (size_t)(writer->buf + writer->len - payload)));
    SL_ASSERT(shape != SL_WIRE_MALFORMED);
    return shape == SL_WIRE_SOUND;
}

enum sl_err sl_wire_end(struct sl_wire_writer *writer, size_t start)
{
    SL_ASSERT(start <= writer->len);
    if (writer->is_full) {
        sl_wire_rewind(writer, start);
        return SL_ERR_FULL;
    }
    SL_ASSERT(writer->len - start > SL_FRAME_HEADER_BYTES);
    size_t payload_bytes = writer->len - start - SL_FRAME_HEADER_BYTES;
    if (payload_bytes > SL_FRAME_BYTES_MAX || !is_document_readable(writer, start)) {
        sl_wire_rewind(writer, start);
        return SL_ERR_FULL;
    }
    sl_put_be32(writer->buf + start, (uint32_t)payload_bytes);
    return SL_OK;
}

void sl_wire_rewind(struct sl_wire_writer *writer, size_t start)
{
    SL_ASSERT(start <= writer->len);
    writer->len = start;
    writer->is_full = false;
}

/* ---- values ---------------------------------------------------------------------------------- */

void sl_wire_put_array(struct sl_wire_writer *writer, uint32_t count)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_array(&packer, count);
}

void sl_wire_put_map(struct sl_wire_writer *writer, uint32_t count)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_map(&packer, count);
}

void sl_wire_put_uint(struct sl_wire_writer *writer, uint64_t value)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_uint64(&packer, value);
}

void sl_wire_put_int(struct sl_wire_writer *writer, int64_t value)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_int64(&packer, value);
}

void sl_wire_put_double(struct sl_wire_writer *writer, double value)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_double(&packer, value);
}

void sl_wire_put_bool(struct sl_wire_writer *writer, bool value)
{
    msgpack_packer packer = packer_of(writer);
    if (value) {
        msgpack_pack_true(&packer);
    } else {
        msgpack_pack_false(&packer);
    }
}

/* msgpack lengths have 32 bits; what has more cannot fit a frame either. */
static bool is_too_long(struct sl_wire_writer *writer, size_t len)
{
    if (len > SL_FRAME_BYTES_MAX) {
        writer->is_full = true;
    }
    return writer->is_full;
}

void sl_wire_put_str(struct sl_wire_writer *writer, struct sl_span text)
{
    msgpack_packer packer = packer_of(writer);

    if (!is_too_long(writer, text.len)) {
        msgpack_pack_str(&packer, text.len);
        append(writer, text.ptr, text.len);
    }
}

void sl_wire_put_bin_header(struct sl_wire_writer *writer, size_t len)
{
    msgpack_packer packer = packer_of(writer);

    if (!is_too_long(writer, len)) {
        msgpack_pack_bin(&packer, len);
    }
}

void sl_wire_append(struct sl_wire_writer *writer, const char *bytes, size_t len)
{
    append(writer, bytes, len);
}

void sl_wire_put_bin(struct sl_wire_writer *writer, struct sl_span bytes)
{
    sl_wire_put_bin_header(writer, bytes.len);
    append(writer, bytes.ptr, bytes.len);
}

void sl_wire_put_key(struct sl_wire_writer *writer, const char *key)
{
    sl_wire_put_str(writer, sl_span_str(key));
}

void sl_wire_put_kv_uint(struct sl_wire_writer *writer, const char *key, uint64_t value)
{
    sl_wire_put_key(writer, key);
    sl_wire_put_uint(writer, value);
}

void sl_wire_put_kv_str(struct sl_wire_writer *writer, const char *key, const char *value)
{
    sl_wire_put_key(writer, key);
    sl_wire_put_str(writer, sl_span_str(value));
}

void sl_wire_put_kv_double(struct sl_wire_writer *writer, const char *key, double value)
{
    sl_wire_put_key(writer, key);
    sl_wire_put_double(writer, value);
}
