#!/usr/bin/env python3
"""Hostile bytes on the broker's socket are refused; they never take it down, nor hold up others."""

import random
import socket
import struct
import sys

sys.dont_write_bytecode = True
from support import SluiceCase, main  # noqa: E402
from frames import FRAME_BYTES_MAX, TYPES, Connection, frame, header, pack  # noqa: E402
from provider import Provider  # noqa: E402

SEED = 20240817
BODY = b'{"model":"stub-model","messages":[{"role":"user","content":"x"}]}'


def task(**changes):
    """A task as the wire carries it, members in the order of sl_task_msg."""
    members = {"custom_id": "a", "model": "stub-model", "provider": "", "stage": "",
               "service_id": "", "endpoint": 1, "priority": 5, "timeout_ms": 0, "max_attempts": 0,
               "flags": 0, "not_before_ms": 0, "deadline_ms": 0, "body": BODY, **changes}
    return list(members.values())


BAD_BEFORE_HELLO = {
    "text": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": b"\0" * 64,
    "other version": header(0, "HELLO", version=9),
    "unknown type": header(1, 200) + b"\xc0",
    "reserved bits": header(1, "HELLO", reserved=1) + b"\xc0",
    "oversized": header(FRAME_BYTES_MAX + 1, "HELLO"),
    "largest number": header(0xFFFFFFFF, "HELLO"),
    "no hello first": frame("JOBS", []),
    "a broker's frame": frame("WELCOME", ["x", 1, 1, False]),
    "empty payload": header(0, "HELLO"),
    "array of four billion": frame("HELLO", b"\xdd\xff\xff\xff\xff"),
    "map of four billion": frame("HELLO", b"\xdf\xff\xff\xff\xff"),
    "string of four billion": frame("HELLO", b"\x91\xdb\xff\xff\xff\xff"),
    "nested arrays": frame("HELLO", b"\x91" * 10000 + b"\xc0"),
    "trailing bytes": frame("HELLO", pack(["x"]) + b"\xc0"),
    "a reserved tag": frame("HELLO", b"\x91\xc1"),
    "an extension": frame("HELLO", b"\x91\xd4\x01\x00"),
    "wrong type": frame("HELLO", [17]),
    "too few members": frame("HELLO", []),
    "too many members": frame("HELLO", ["x", "y"]),
    "a worker's hello with wrong members": frame("WORKER_HELLO", [1, 2, 3]),
}

BAD_AFTER_HELLO = {
    "second hello": frame("HELLO", ["test"]),
    "submit without a job": frame("SUBMIT", [1, [task()]]),
    "worker's frame": frame("LEAVING", []),
    "job name too long": frame("OPEN_JOB", ["x" * 300, True]),
    "job name of the wrong type": frame("OPEN_JOB", [{"a": 1}, True]),
    "results of nothing": frame("RESULTS", []),
    "status with a number": frame("STATUS", [5]),
    "name with NUL": frame("SHOW", ["task_\0"]),
}

BAD_TASKS = {
    "empty id": task(custom_id=""), "long id": task(custom_id="x" * 257),
    "empty body": task(body=b""), "priority 10": task(priority=10),
    "negative priority": task(priority=-1), "unknown endpoint": task(endpoint=99),
    "unknown flags": task(flags=0x80000000), "attempts": task(max_attempts=101),
    "timeout as text": task(timeout_ms="1"), "deadline as map": task(deadline_ms={}),
    "body as number": task(body=7), "too few members": task()[:-1], "too many": task() + [1],
    "not an array": {"custom_id": "a"}, "long model": task(model="m" * 129),
}


class Frames(SluiceCase):
    def setUp(self):
        super().setUp()
        self.start_pair(Provider(self).url)

    def assert_alive(self):
        """The same broker still serves, and says that everything adds up."""
        self.assertIsNone(self.broker.popen.poll(), "the broker ended")
        self.assert_adds_up(self.status())

    def assert_refused(self, connection):
        """An error frame, or just the end of the connection; never silence."""
        connection.socket.shutdown(socket.SHUT_WR)
        for kind in connection.read_types():
            self.assertIn(kind, (TYPES["ERROR"], TYPES["SUBMITTED"], TYPES["WELCOME"],
                                 TYPES["JOB"], TYPES["DOCUMENT"], TYPES["RESULTS_END"]))

    def test_before_hello(self):
        for name, data in BAD_BEFORE_HELLO.items():
            with self.subTest(name), Connection(self.socket) as connection:
                connection.send(data)
                self.assertNotIn(TYPES["WELCOME"], connection_kinds(connection))
                self.assert_alive()

    def test_after_hello(self):
        for name, data in BAD_AFTER_HELLO.items():
            with self.subTest(name), Connection(self.socket) as connection:
                connection.hello().send(data)
                self.assert_refused(connection)
                self.assert_alive()

    def test_bad_tasks(self):
        for name, bad in BAD_TASKS.items():
            with self.subTest(name), Connection(self.socket) as connection:
                connection.hello().send(frame("OPEN_JOB", ["bad-tasks", True]))
                self.assertEqual(connection.read_frame()[0], TYPES["JOB"])
                connection.send(frame("SUBMIT", [1, [bad]]))
                self.assert_refused(connection)
                self.assert_alive()
        self.assertEqual(self.status()["queue"]["submitted"], 0)

    def test_cut_off_at_every_byte(self):
        whole = frame("HELLO", ["test"]) + frame("OPEN_JOB", ["cut", True])
        for length in range(len(whole)):
            with Connection(self.socket) as connection:
                connection.send(whole[:length])
        self.assert_alive()

    def test_byte_by_byte(self):
        with Connection(self.socket) as connection:
            for byte in frame("HELLO", ["test"]):
                connection.send(bytes([byte]))
            self.assertEqual(connection.read_frame()[0], TYPES["WELCOME"])

    def test_random_bytes(self):
        print(f"seed {SEED}")
        source = random.Random(SEED)
        kinds = sorted(TYPES.values())
        for _ in range(200):
            payload = source.randbytes(source.randrange(64))
            with Connection(self.socket) as connection:
                if source.random() < 0.7:
                    connection.hello()
                connection.send(header(len(payload), source.choice(kinds)) + payload)
        self.assert_alive()

    def test_damaged_frames(self):
        print(f"seed {SEED}")
        source = random.Random(SEED)
        good = bytearray(frame("SUBMIT", [1, [task()]]))
        for _ in range(300):
            damaged = bytearray(good)
            damaged[source.randrange(8, len(good))] = source.randrange(256)
            with Connection(self.socket) as connection:
                connection.hello().send(frame("OPEN_JOB", ["damaged", True]) + damaged)
        self.assert_alive()

    def test_promised_and_never_sent(self):
        """Clients that promise the largest frame and send nothing hold no memory and nobody up."""
        silent = [Connection(self.socket).hello() for _ in range(50)]
        for connection in silent:
            connection.send(header(FRAME_BYTES_MAX, "SUBMIT"))
        self.assertEqual(len(self.submit_wait(self.prompts(10))), 10)
        for connection in silent:
            connection.socket.close()
        self.assert_alive()

    def test_a_client_that_never_reads(self):
        self.submit_wait(self.prompts(300, "long" * 40), "--job", "unread")
        with Connection(self.socket) as connection:
            connection.hello()
            for _ in range(50):
                connection.send(frame("RESULTS", ["unread", 0, False, 0]))
            self.assertEqual(len(self.submit_wait(self.prompts(10))), 10)
        self.assert_alive()

    def test_a_stranger_cannot_take_results_of_a_lane(self):
        """A worker's frame from somebody who is no worker, with descriptors attached."""
        with Connection(self.socket) as connection, open("/dev/null", "rb") as null:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", null.fileno()))]
            connection.socket.sendmsg([frame("LARGE_RESULT", [b"\0" * 128])], rights)
            self.assertNotIn(TYPES["WELCOME"], connection_kinds(connection))
        self.assert_alive()


def connection_kinds(connection):
    try:
        connection.socket.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    return connection.read_types()


if __name__ == "__main__":
    main()
