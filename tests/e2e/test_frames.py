#!/usr/bin/env python3
"""Hostile bytes on the broker's socket are refused; they never take it down, nor hold up others."""

import os
import random
import signal
import socket
import struct
import sys

sys.dont_write_bytecode = True
from support import SluiceCase, main  # noqa: E402
from frames import FRAME_BYTES_MAX, TYPES, Connection, frame, header, pack, unpack  # noqa: E402
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


# A sound frame of each kind that a client may send once it has said hello.
CLIENT_FRAMES = {
    "OPEN_JOB": frame("OPEN_JOB", ["j", True]),
    "SUBMIT": frame("SUBMIT", [1, [task(), task(custom_id="b", stage="s", service_id="t")]]),
    "RESULTS": frame("RESULTS", ["j", 1, False, 0]),
    "STATUS": frame("STATUS", ["j"]),
    "JOBS": frame("JOBS", []),
    "SHOW": frame("SHOW", ["task_0000000100000000"]),
    "CANCEL": frame("CANCEL", ["j"]),
    "PURGE": frame("PURGE", ["j"]),
}
PROTOCOL_ERROR = 25
MUTATIONS = 2500


class EveryFrame(SluiceCase):
    """Each type of frame where it does not belong, cut off, and damaged."""

    def setUp(self):
        super().setUp()
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        self.start_broker()

    def assert_alive(self):
        self.assertIsNone(self.broker.popen.poll(), "the broker ended")
        self.assert_adds_up(self.status())

    def assert_told(self, connection, name):
        """The last frame before the end says that the frame is not understood."""
        last = None
        while (got := connection.read_frame()) is not None:
            last = got
        self.assertIsNotNone(last, f"{name}: hung up on without a word")
        self.assertEqual(last[0], TYPES["ERROR"], name)
        self.assertEqual(unpack(last[1])[0][0], PROTOCOL_ERROR, name)

    def test_before_hello(self):
        for number in range(256):
            if number in (TYPES["HELLO"], TYPES["WORKER_HELLO"]):
                continue
            with Connection(self.socket) as connection:
                connection.send(frame(number, b"\x90"))
                self.assert_told(connection, number)
        for name, data in CLIENT_FRAMES.items():
            with Connection(self.socket) as connection:
                connection.send(data)
                self.assert_told(connection, name)
        self.assert_alive()

    def test_out_of_role(self):
        allowed = {TYPES[name] for name in (*CLIENT_FRAMES, "DRAIN")}
        for number in set(range(256)) - allowed:
            for payload in (b"\x90", pack(["x"])):
                with Connection(self.socket) as connection:
                    connection.hello().send(frame(number, payload))
                    self.assert_told(connection, number)
        self.assert_alive()

    def test_a_worker_out_of_role(self):
        """As a worker, in a process of its own: the broker ends workers that break the rules."""
        names = ["HELLO", "WORKER_HELLO", *CLIENT_FRAMES, "DRAIN", "LANE", "DONE"]
        for name in names:
            child = os.fork()
            if child == 0:
                self.be_a_bad_worker(name)
            _, status = os.waitpid(child, 0)
            ended = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
            self.assertIn(ended, (0, -signal.SIGKILL), name)
        self.broker.wait_line("event=lane_lost", count=len(names))
        self.assert_alive()

    def be_a_bad_worker(self, name):
        status = 1
        try:
            with Connection(self.socket) as connection:
                connection.send(frame("WORKER_HELLO", ["test", b""]))
                got = connection.read_frame()
                connection.send(CLIENT_FRAMES.get(name, frame(name, ["x"])))
                told = [kind for kind in connection.read_types() if kind == TYPES["ERROR"]]
                status = 0 if got[0] == TYPES["LANE"] and told else 2
        finally:
            os._exit(status)

    def test_cut_off_at_every_byte(self):
        hello = frame("HELLO", ["test"])
        for name, data in CLIENT_FRAMES.items():
            before = b"" if name == "OPEN_JOB" else CLIENT_FRAMES["OPEN_JOB"]
            for length in range(len(data)):
                with Connection(self.socket) as connection:
                    connection.send(hello + before + data[:length])
        self.assert_alive()

    def test_damaged(self):
        seed = random.randrange(2 ** 32)
        print(f"seed {seed}")
        source = random.Random(seed)
        hello = frame("HELLO", ["test"])
        sound = [hello, *CLIENT_FRAMES.values()]
        for _ in range(MUTATIONS):
            data = bytearray(source.choice(sound))
            for _ in range(source.choice((1, 1, 2, 5))):
                at = source.randrange(len(data))
                change = source.randrange(3)
                if change == 0:
                    data[at] = source.randrange(256)
                elif change == 1:
                    data[at] ^= 1 << source.randrange(8)
                else:
                    del data[at:at + source.randrange(1, 4)]
                    data = data or bytearray(1)
            with Connection(self.socket) as connection:
                connection.send(hello + CLIENT_FRAMES["OPEN_JOB"] + data + source.choice(sound))
        self.assert_alive()


def connection_kinds(connection):
    try:
        connection.socket.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    return connection.read_types()


if __name__ == "__main__":
    main()
