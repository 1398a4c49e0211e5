/*
 * libFuzzer: any bytes as any frame.
 *
 *   cmake -S . -B build-fuzz -DSLUICE_FUZZ=ON -DCMAKE_C_COMPILER=clang
 *   cmake --build build-fuzz --target fuzz_wire
 *   build-fuzz/tests/fuzz_wire -seed=20260101 -max_total_time=10 -max_len=4096
 *
 * The first byte chooses the frame; the rest is its payload, in a block of its exact size. A
 * decoder that takes it has its promises checked again (tests/support/wire_samples.c); what it
 * refuses must be refused as SL_ERR_PROTOCOL. Never allocates without bound; fuzzing builds only.
 */
#include <stdlib.h>

#include "common/check.h"
#include "tests/support/wire_samples.h"

#define SEED_BYTES_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static enum sl_frame_type choose_type(uint8_t choice)
{
    enum sl_frame_type type = SL_FRAME_HELLO;
    size_t count = 0;

    while (sample_type_at(count, &type)) {
        count++;
    }
    SL_ASSERT(sample_type_at(choice % count, &type));
    return type;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sl_wire_decoder *decoder;

    if (decoder == NULL) {
        decoder = sl_wire_decoder_open();
        SL_ASSERT(decoder != NULL);
    }
    if (size == 0) {
        return 0;
    }
    struct sl_span payload = sl_span_of(data + 1, size - 1);
    enum sl_err err = sample_decode(decoder, choose_type(data[0]), payload);
    SL_ASSERT(err == SL_OK || err == SL_ERR_PROTOCOL);
    return 0;
}

/* Without a corpus in the tree: now and then the input is replaced by a sample frame, which the
 * ordinary mutations then take apart. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
    char frame[SEED_BYTES_MAX];
    struct sl_wire_writer writer;

    if (seed % 64 == 0) {
        uint8_t choice = (uint8_t)(seed / 64);
        sl_wire_writer_init(&writer, frame, sizeof(frame));
        SL_ASSERT(sample_frame(&writer, choose_type(choice)) == SL_OK);
        size_t payload_bytes = writer.len - SL_FRAME_HEADER_BYTES;
        if (payload_bytes + 1 <= max_size) {
            data[0] = choice;
            memcpy(data + 1, frame + SL_FRAME_HEADER_BYTES, payload_bytes);
            size = payload_bytes + 1;
        }
    }
    return LLVMFuzzerMutate(data, size, max_size);
}
