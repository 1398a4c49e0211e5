"""Holds the store's write lock, as its own thread does for a commit: until it is released, the
broker's store thread waits, and whatever is asked of it is under way."""

import contextlib
import ctypes
import ctypes.util


@contextlib.contextmanager
def hold_store(state_dir):
    lmdb = ctypes.CDLL(ctypes.util.find_library("lmdb") or "liblmdb.so.0")
    env, transaction = ctypes.c_void_p(), ctypes.c_void_p()
    assert lmdb.mdb_env_create(ctypes.byref(env)) == 0
    try:
        assert lmdb.mdb_env_open(env, str(state_dir).encode(), 0, 0o600) == 0
        assert lmdb.mdb_txn_begin(env, None, 0, ctypes.byref(transaction)) == 0
        try:
            yield
        finally:
            lmdb.mdb_txn_abort(transaction)
    finally:
        lmdb.mdb_env_close(env)
