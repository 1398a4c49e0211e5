/*
 * Baseline: LMDB alone. Puts N records of a size in groups, each group one synced commit: the
 * record under a rising 8-byte key, and one small index entry (job number and id to a number),
 * which is the least that a queue needs to know a task again. No socket, no frame, no second
 * process.
 *
 * LMDB's default durability (fdatasync of the data, synced write of the meta page), the same as the
 * store's. Prints one line of JSON.
 *
 * Usage: bare_lmdb --dir DIR [--records N] [--group N] [--value-bytes N]
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "tests/bench/support.h"

#define MAP_BYTES ((size_t)1 << 36)

struct options {
    const char *dir;
    size_t records;
    size_t group;
    size_t value_bytes;
};

struct store {
    MDB_env *env;
    MDB_dbi tasks;
    MDB_dbi ids;
};

static void must(int code, const char *what)
{
    if (code != MDB_SUCCESS) {
        bench_die(what, mdb_strerror(code));
    }
}

static void open_store(struct store *store, const char *dir)
{
    MDB_txn *txn = NULL;

    must(mdb_env_create(&store->env), "mdb_env_create");
    must(mdb_env_set_mapsize(store->env, MAP_BYTES), "mdb_env_set_mapsize");
    must(mdb_env_set_maxdbs(store->env, 2), "mdb_env_set_maxdbs");
    must(mdb_env_open(store->env, dir, 0, 0600), dir);
    must(mdb_txn_begin(store->env, NULL, 0, &txn), "mdb_txn_begin");
    must(mdb_dbi_open(txn, "tasks", MDB_CREATE, &store->tasks), "tasks");
    must(mdb_dbi_open(txn, "ids", MDB_CREATE, &store->ids), "ids");
    must(mdb_txn_commit(txn), "mdb_txn_commit");
}

static void put_record(const struct store *store, MDB_txn *txn, uint64_t number, MDB_val *value)
{
    char key[8];
    char id[40];
    char idx[4];

    sl_put_be64(key, number);
    sl_put_be32(id, 1);
    int id_len = snprintf(id + 4, sizeof(id) - 4, "task-%010llu", (unsigned long long)number);
    sl_put_be32(idx, (uint32_t)number);
    MDB_val record_key = {sizeof(key), key};
    MDB_val id_key = {4 + (size_t)id_len, id};
    MDB_val id_value = {sizeof(idx), idx};
    must(mdb_put(txn, store->ids, &id_key, &id_value, MDB_NOOVERWRITE), "put id");
    must(mdb_put(txn, store->tasks, &record_key, value, MDB_APPEND), "put task");
}

static void put_groups(const struct store *store, const struct options *options)
{
    char *bytes = malloc(options->value_bytes);

    if (bytes == NULL) {
        bench_die("value", "out of memory");
    }
    memset(bytes, 'x', options->value_bytes);
    MDB_val value = {options->value_bytes, bytes};
    for (size_t done = 0; done < options->records;) {
        MDB_txn *txn = NULL;
        must(mdb_txn_begin(store->env, NULL, 0, &txn), "mdb_txn_begin");
        size_t stop = SL_MIN(done + options->group, options->records);
        for (; done < stop; done++) {
            put_record(store, txn, done + 1, &value);
        }
        must(mdb_txn_commit(txn), "mdb_txn_commit");
    }
    free(bytes);
}

int main(int argc, char **argv)
{
    struct options options = {.records = 100000, .group = 1024, .value_bytes = 1024};
    struct store store;
    const struct bench_option table[] = {
        {"--dir", &options.dir, NULL},
        {"--records", NULL, &options.records},
        {"--group", NULL, &options.group},
        {"--value-bytes", NULL, &options.value_bytes},
        {NULL, NULL, NULL},
    };

    bench_parse(argc, argv, table);
    open_store(&store, options.dir);
    int64_t started_ns = bench_now_ns();
    put_groups(&store, &options);
    double seconds = (double)(bench_now_ns() - started_ns) / 1e9;
    mdb_env_close(store.env);
    printf("{\"records\":%zu,\"group\":%zu,\"value_bytes\":%zu,\"seconds\":%.6f,"
           "\"records_per_s\":%.1f}\n",
           options.records, options.group, options.value_bytes, seconds,
           (double)options.records / seconds);
    return 0;
}
