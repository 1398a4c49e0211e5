/*
 * Bodies longer than a value: chunks of one page each, every chunk with its own hash.
 *
 * Runs on the broker's store thread. A value of more than one page would need a contiguous run of
 * free pages, whose search grows with the free list; single pages never do. A damaged or missing
 * chunk is answered as SL_ERR_STORE_CORRUPT and never handed out.
 */
#include <errno.h>
#include <stdlib.h>

#include "broker/store_internal.h"
#include "common/check.h"
#include "common/hash.h"

static size_t chunk_bytes(size_t total, size_t at)
{
    return SL_MIN(total - at, SL_CHUNK_BYTES);
}

enum sl_err sl_blob_write(struct sl_store *store, uint64_t task, enum sl_blob_kind kind,
                          struct sl_span body)
{
    uint32_t chunk = 0;

    for (size_t at = 0; at < body.len; chunk++) {
        struct sl_key key;
        char *place;
        size_t len = chunk_bytes(body.len, at);
        sl_key_blob(&key, task, kind, chunk);
        enum sl_err err = sl_db_reserve(store, SL_DB_BLOBS, &key, len + 8, &place);
        if (err != SL_OK) {
            return err;
        }
        memcpy(place, body.ptr + at, len);
        uint64_t hash =
            sl_hash64(place, len, task + chunk); /* of what was stored, not of shared bytes */
        memcpy(place + len, &hash, sizeof(hash));
        at += len;
    }
    return SL_OK;
}

static enum sl_err read_chunk(struct sl_store *store, const struct sl_key *key, uint64_t seed,
                              struct sl_span want)
{
    struct sl_span value;
    enum sl_err err = sl_db_get(store, SL_DB_BLOBS, key, &value);

    if (err == SL_ERR_NOT_FOUND || (err == SL_OK && value.len != want.len + 8)) {
        return SL_ERR_STORE_CORRUPT;
    }
    if (err != SL_OK) {
        return err;
    }
    uint64_t hash;
    memcpy(&hash, value.ptr + want.len, sizeof(hash));
    if (hash != sl_hash64(value.ptr, want.len, seed)) {
        return SL_ERR_STORE_CORRUPT;
    }
    memcpy((char *)(uintptr_t)want.ptr, value.ptr, want.len);
    return SL_OK;
}

static bool grow_scratch(struct sl_store *store, size_t bytes)
{
    if (bytes <= store->scratch_size) {
        return true;
    }
    free(store->scratch);
    store->scratch = malloc(bytes);
    store->scratch_size = store->scratch != NULL ? bytes : 0;
    return store->scratch != NULL;
}

enum sl_err sl_blob_read(struct sl_store *store, uint64_t task, enum sl_blob_kind kind,
                         size_t bytes, struct sl_span *out)
{
    uint32_t chunk = 0;

    if (!grow_scratch(store, bytes)) {
        return sl_db_fail(store, "memory for a body", ENOMEM);
    }
    for (size_t at = 0; at < bytes; chunk++) {
        struct sl_key key;
        size_t len = chunk_bytes(bytes, at);
        sl_key_blob(&key, task, kind, chunk);
        enum sl_err err =
            read_chunk(store, &key, task + chunk, sl_span_of(store->scratch + at, len));
        if (err != SL_OK) {
            return err;
        }
        at += len;
    }
    *out = sl_span_of(store->scratch, bytes);
    return SL_OK;
}

void sl_blob_release_scratch(struct sl_store *store)
{
    if (store->scratch_size > SL_MIB) {
        free(store->scratch);
        store->scratch = NULL;
        store->scratch_size = 0;
    }
}
