#!/usr/bin/env python3
"""Clients that pipeline, disappear, promise and do not send, send descriptors, or come in too great
a number: the order of answers, what was accepted, and that nobody holds up another."""

import array
import contextlib
import fcntl
import os
import pathlib
import resource
import select
import socket
import struct
import sys
import termios
import threading

sys.dont_write_bytecode = True
from support import SLOW, SluiceCase, deadline, main  # noqa: E402
from frames import FRAME_BYTES_MAX, TYPES, Connection, frame, header, unpack  # noqa: E402
from provider import Provider, answer, send_json  # noqa: E402
from store_hold import hold_store  # noqa: E402

CLIENTS_MAX = 1024
UNACKED_MAX = 16
# Frames that together leave less than a common one of the memory there is for frames.
PROMISES = (FRAME_BYTES_MAX, FRAME_BYTES_MAX, 30 * 1024 * 1024 - 5000)
BODY = b'{"model":"stub-model","messages":[{"role":"user","content":"x"}]}'
ERR = {"not_found": 8, "input": 3, "conflict": 4, "unknown_model": 6, "overloaded": 24,
       "protocol": 25}


def task(custom_id, body=BODY, model="stub-model"):
    return [custom_id, model, "", "", "", 1, 5, 0, 0, 0, 0, 0, body]


def submit(batch, *tasks):
    return frame("SUBMIT", [batch, list(tasks)])


class Client(Connection):
    """A connection that says hello and reads answers as values."""

    def __init__(self, path):
        super().__init__(path)
        self.hello()

    def answer(self, kind):
        got = self.read_frame()
        assert got is not None, f"the connection ended instead of {kind}"
        assert got[0] == TYPES[kind], f"{got} instead of {kind}"
        return unpack(got[1])[0]

    def open_job(self, name, may_create=True):
        self.send(frame("OPEN_JOB", [name, may_create]))
        return self.answer("JOB")

    def submitted(self, batch):
        """(accepted, known, refused index, error) of the answer, which must be to this batch."""
        got = self.answer("SUBMITTED")
        assert got[0] == batch, f"answer to {got[0]} instead of {batch}"
        return tuple(got[1:5])


class ConnectionCase(SluiceCase):
    """A broker without workers: tasks stay where they are put."""

    def setUp(self):
        super().setUp()
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        self.start_broker()
        self.fds = self.broker_fds()

    def total(self, job):
        with Client(self.socket) as client:
            return client.open_job(job, False)[2]

    def broker_fds(self):
        return len(os.listdir(f"/proc/{self.broker.pid}/fd"))

    def wait_fds(self, clients):
        """A hang-up is noticed a turn later: asks until there are only those of so many clients."""
        until = deadline()
        with Client(self.socket) as client:
            while self.broker_fds() != self.fds + clients + 1:
                client.send(frame("JOBS", []))  # a turn of the broker's loop
                client.answer("DOCUMENT")
                self.assertLess(deadline(0), until, f"{self.broker_fds()} descriptors")

    def assert_alive(self):
        self.assertIsNone(self.broker.popen.poll(), "the broker ended")
        self.assert_adds_up(self.status())


class Order(ConnectionCase):
    """What was accepted is a beginning of what was sent, however far the client is ahead."""

    def test_a_conflict_stops_the_frames_behind_it(self):
        with Client(self.socket) as client:
            client.open_job("j")
            client.send(submit(1, task("b", b'{"other":1}')))
            self.assertEqual(client.submitted(1), (1, 0, -1, 0))
            client.send(submit(2, task("a"), task("b"), task("c"))
                        + b"".join(submit(3 + i, task(f"behind-{i}")) for i in range(10)))
            self.assertEqual(client.submitted(2), (1, 0, 1, ERR["conflict"]))
            for i in range(10):
                self.assertEqual(client.submitted(3 + i), (0, 0, 0, ERR["input"]))
            self.assertEqual(self.total("j"), 2)
            client.open_job("j")  # mended: goes on
            client.send(submit(20, task("a"), task("c")))
            self.assertEqual(client.submitted(20), (1, 1, -1, 0))

    def test_an_unknown_model_stops_the_frames_behind_it(self):
        with Client(self.socket) as client:
            client.open_job("j")
            client.send(submit(1, task("a")) + submit(2, task("b"), task("c", model="nobody's"))
                        + submit(3, task("d")) + submit(4, task("e")))
            self.assertEqual(client.submitted(1), (1, 0, -1, 0))
            self.assertEqual(client.submitted(2), (1, 0, 1, ERR["unknown_model"]))
            self.assertEqual(client.submitted(3), (0, 0, 0, ERR["input"]))
            self.assertEqual(client.submitted(4), (0, 0, 0, ERR["input"]))
        self.assertEqual(self.total("j"), 2)

    def test_submits_go_to_the_job_opened_before_them(self):
        with Client(self.socket) as client:
            client.send(frame("OPEN_JOB", ["first", True]) + submit(1, task("a"))
                        + frame("OPEN_JOB", ["second", True]) + submit(2, task("b"), task("c"))
                        + frame("OPEN_JOB", ["missing", False]) + submit(3, task("d"))
                        + frame("OPEN_JOB", ["first", True]) + submit(4, task("e"), task("f")))
            self.assertEqual(client.answer("JOB")[1], "first")
            self.assertEqual(client.submitted(1), (1, 0, -1, 0))
            self.assertEqual(client.answer("JOB")[1], "second")
            self.assertEqual(client.submitted(2), (2, 0, -1, 0))
            self.assertEqual(client.answer("ERROR")[0], ERR["not_found"])
            self.assertEqual(client.submitted(3), (0, 0, 0, ERR["not_found"]))
            self.assertEqual(client.answer("JOB")[1], "first")
            self.assertEqual(client.submitted(4), (2, 0, -1, 0))
        self.assertEqual((self.total("first"), self.total("second")), (3, 2))

    def test_a_job_purged_meanwhile(self):
        with Client(self.socket) as client, Client(self.socket) as other:
            client.open_job("j")
            other.send(frame("PURGE", ["j"]))
            other.answer("DONE")
            client.send(submit(1, task("a")))
            self.assertEqual(client.submitted(1), (0, 0, 0, ERR["not_found"]))

    def test_nothing_is_answered_before_it_is_on_disk(self):
        with Client(self.socket) as client:
            client.open_job("j")
            with hold_store(self.state_dir):
                client.send(submit(1, task("a")))
                with Client(self.socket):  # the broker serves on
                    ready, _, _ = select.select([client.socket], [], [], 0.2)
                    self.assertEqual(ready, [])
            self.assertEqual(client.submitted(1), (1, 0, -1, 0))

    def test_no_more_than_so_many_unanswered(self):
        """Behind 16 unanswered submits nothing more is read, but what a small buffer holds."""
        frames = [submit(i, task(f"t-{i}")) for i in range(400)]
        with Client(self.socket) as client:
            client.open_job("j")
            with hold_store(self.state_dir):
                client.send(b"".join(frames))
                for _ in range(200):  # turns: it had time to read
                    with Client(self.socket):
                        pass
                unread = array.array("i", [0])
                fcntl.ioctl(client.socket, termios.TIOCOUTQ, unread)
                sent = sum(map(len, frames))
                taken = UNACKED_MAX * len(frames[0]) + 2 * 4096
                self.assertGreater(unread[0], sent - taken)
            for i in range(400):
                self.assertEqual(client.submitted(i), (1, 0, -1, 0))
        self.assertEqual(self.total("j"), 400)

    def test_a_whole_session_in_one_piece_and_byte_by_byte(self):
        for name, cut in (("whole", lambda data: [data]),
                          ("bytes", lambda data: [data[i:i + 1] for i in range(len(data))])):
            data = (frame("HELLO", ["test"]) + frame("OPEN_JOB", [name, True])
                    + submit(1, task("a"), task("b", b"x" * 5000)) + frame("STATUS", [name])
                    + frame("SHOW", ["task_0000000000000001"]))
            end = frame("CANCEL", [name]) + frame("RESULTS", [name, 1, True, 0])
            with self.subTest(name), Connection(self.socket) as connection:
                for part in cut(data):
                    connection.send(part)
                self.expect(connection, "WELCOME", "JOB", "SUBMITTED", "DOCUMENT", "ERROR")
                for part in cut(end):
                    connection.send(part)
                got = sorted(connection.read_frame()[0] for _ in range(4))
                self.assertEqual(got, sorted(TYPES[kind] for kind in
                                             ("DONE", "RESULT", "RESULT", "RESULTS_END")))
                # Told that they are cancelled, they are: nothing of the job is open any more.
                for part in cut(frame("PURGE", [name]) + frame("JOBS", [])):
                    connection.send(part)
                self.expect(connection, "DONE", "DOCUMENT")

    def expect(self, connection, *kinds):
        self.assertEqual([connection.read_frame()[0] for _ in kinds],
                         [TYPES[kind] for kind in kinds])


class Crowd(ConnectionCase):
    """Many clients, and clients that take without giving."""

    def test_one_connection_too_many(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(self.socket)) for _ in range(CLIENTS_MAX)]
            for _ in range(3):
                with Connection(self.socket) as refused:
                    kind, payload = refused.read_frame()
                    self.assertEqual(kind, TYPES["ERROR"])
                    self.assertEqual(unpack(payload)[0][0], ERR["overloaded"])
                    self.assertIn("connections", unpack(payload)[0][1])
                    self.assertIsNone(refused.read_frame())
            clients[500].send(frame("JOBS", []))  # the others are served
            clients[500].answer("DOCUMENT")
            clients[7].socket.close()
            clients[500].send(frame("JOBS", []))
            clients[500].answer("DOCUMENT")
            stack.enter_context(Client(self.socket))  # its place is free
        self.assert_alive()

    def test_no_descriptors_left(self):
        """Who finds no descriptor free waits in the kernel's queue, at no cost meanwhile."""
        limit = self.broker_fds() + 5
        usual = resource.prlimit(self.broker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.broker.pid, resource.RLIMIT_NOFILE, (limit, usual[1]))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Connection(self.socket)) for _ in range(20)]
            for client in clients:
                client.send(frame("HELLO", ["x"]) + frame("JOBS", []))
            served = [client for client in clients
                      if select.select([client.socket], [], [], 0.05)[0]]
            self.assertEqual(len(served), 5)
            spent = self.processor_seconds()
            select.select([client.socket for client in clients[10:]], [], [], 1.0)
            self.assertLess(self.processor_seconds() - spent, 0.3)
            resource.prlimit(self.broker.pid, resource.RLIMIT_NOFILE, usual)
            for client in clients:
                self.assertEqual(client.read_frame()[0], TYPES["WELCOME"])
                self.assertEqual(client.read_frame()[0], TYPES["DOCUMENT"])
        self.assert_alive()

    def test_clients_that_never_stop_asking_do_not_stop_the_drain(self):
        asking = [threading.Thread(target=self.ask_on, daemon=True) for _ in range(8)]
        for thread in asking:
            thread.start()
        with Client(self.socket) as client:  # they are at it
            client.send(frame("JOBS", []))
            client.answer("DOCUMENT")
        self.assertEqual(self.broker.terminate(seconds=5), 0)
        for thread in asking:
            thread.join()

    def ask_on(self):
        with Connection(self.socket) as connection:
            connection.send(frame("HELLO", ["x"]) + frame("JOBS", []) * 300)
            while connection.read_frame() is not None:
                connection.send(frame("JOBS", []))

    def processor_seconds(self):
        fields = pathlib.Path(f"/proc/{self.broker.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def test_promises_that_are_not_kept_hold_nobody_up_for_long(self):
        """The memory for long frames is promised away; who holds it idly loses it to who waits."""
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(Client(self.socket)) for _ in PROMISES]
            for client, promise in zip(idle, PROMISES):
                client.open_job("idle")
                client.send(header(promise, "SUBMIT") + b"\x92\x01")
            with Client(self.socket) as client:
                client.open_job("busy")
                client.send(submit(1, task("large", b"x" * 1000000)))
                self.assertEqual(client.submitted(1), (1, 0, -1, 0))
        self.assert_alive()

    def test_a_broken_promise_lets_the_next_go_on(self):
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(Client(self.socket)) for _ in PROMISES]
            for client, promise in zip(idle, PROMISES):
                client.open_job("idle")
                client.send(header(promise, "SUBMIT") + b"\x92\x01")
            with Client(self.socket) as client:
                client.open_job("busy")
                client.send(submit(1, task("large", b"x" * 100000)))
                for gone in idle:
                    gone.socket.close()
                self.assertEqual(client.submitted(1), (1, 0, -1, 0))

    def test_descriptors_of_strangers_are_closed(self):
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open("/dev/null", "rb")) for _ in range(100)]
            for count in (1, 2, 4, 5, 100):
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                           array.array("i", [f.fileno() for f in files[:count]]))]
                with Connection(self.socket) as connection:
                    for part in (b"\0", frame("HELLO", ["x"])[1:], frame("JOBS", []),
                                 submit(1, task("a"))[:30]):
                        connection.socket.sendmsg([part], rights)
                with Client(self.socket) as client:
                    client.socket.sendmsg([frame("OPEN_JOB", ["fds", True])], rights)
                    client.answer("JOB")
                    client.socket.sendmsg([submit(1, task(f"{count}"))], rights)
                    self.assertEqual(client.submitted(1), (1, 0, -1, 0))
                    self.wait_fds(1)
                self.wait_fds(0)
        self.assert_alive()


class Slow(SluiceCase):
    """Clients that do not read what they asked for."""

    RESULTS = 40
    ANSWER_BYTES = 2 * 1024 * 1024
    CLIENTS = 30

    def anonymous_bytes(self):
        with open(f"/proc/{self.broker.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")

    def test_slow_readers_cost_a_piece_each(self):
        large = "x" * self.ANSWER_BYTES
        self.start_pair(Provider(self, lambda call: lambda handler, _: send_json(
            handler, 200, answer(large))).url)
        self.submit_wait(self.prompts(self.RESULTS), "--job", "large")
        before = self.anonymous_bytes()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(self.socket)) for _ in range(self.CLIENTS)]
            for client in clients:
                client.send(frame("RESULTS", ["large", 0, False, 0]))
            for client in clients:  # each has begun to be given its first
                select.select([client.socket], [], [])
            self.assertEqual(self.status()["queue"]["completed"], self.RESULTS)
            grown = self.anonymous_bytes() - before
            piece = self.ANSWER_BYTES + 512 * 1024
            # The sanitizer keeps freed memory for a while; all results of all would be 2.4 GB.
            slack = 256 * 1024 * 1024 if SLOW > 1 else 32 * 1024 * 1024
            self.assertLess(grown, self.CLIENTS * piece + slack)
            for client in clients[::10]:  # who reads on is given the rest
                sizes = []
                while (got := client.read_frame())[0] == TYPES["RESULT"]:
                    sizes.append(len(got[1]))
                self.assertEqual(got[0], TYPES["RESULTS_END"])
                self.assertEqual(len(sizes), self.RESULTS)
                self.assertGreater(min(sizes), self.ANSWER_BYTES)


class Gone(ConnectionCase):
    """A client that disappears changes nothing for its tasks, and its place is another's at once."""

    REQUESTS = {
        "open job": frame("OPEN_JOB", ["new", True]),
        "submit": submit(1, task("a"), task("b")),
        "large submit": submit(1, task("a", b"x" * 100000)),
        "submits": b"".join(submit(i, task(f"s-{i}")) for i in range(10)),
        "half a submit": submit(1, task("a", b"x" * 100000))[:50000],
        "status": frame("STATUS", [""]),
        "jobs": frame("JOBS", []),
        "show": frame("SHOW", ["task_0000000100000000"]),
        "results": frame("RESULTS", ["j", 0, False, 0]),
        "results, following": frame("RESULTS", ["j", 0, True, 0]),
        "cancel": frame("CANCEL", ["j"]),
        "cancel of a task": frame("CANCEL", ["task_0000000100000000"]),
        "purge": frame("PURGE", ["done"]),
        "results twice": frame("RESULTS", ["j", 0, False, 0]) * 2,
    }

    def test_gone_while_it_is_on_its_way(self):
        with Client(self.socket) as client:
            client.open_job("j")
            client.send(submit(1, *(task(f"t-{i}") for i in range(20))))
            client.submitted(1)
            client.open_job("done")
        for name, request in self.REQUESTS.items():
            with self.subTest(name):
                with contextlib.ExitStack() as stack:
                    with hold_store(self.state_dir):
                        with Connection(self.socket) as gone:
                            gone.send(frame("HELLO", ["x"]) + frame("OPEN_JOB", ["j", True])
                                      + request)
                            gone.read_frame()  # welcome: it has been read
                        heir = stack.enter_context(Client(self.socket))  # in the same place
                        heir.send(frame("JOBS", []))
                    heir.answer("DOCUMENT")  # and nothing that was meant for the other
                    heir.send(frame("JOBS", []))
                    heir.answer("DOCUMENT")
                self.wait_fds(0)
                self.assert_alive()

    def test_gone_at_every_byte(self):
        data = (frame("OPEN_JOB", ["cut", True]) + submit(1, task("a"), task("b"))
                + frame("RESULTS", ["cut", 0, True, 0]))
        for length in range(len(data)):
            with Client(self.socket) as client:
                client.send(data[:length])
        self.wait_fds(0)
        self.assertEqual(self.total("cut"), 2)
        self.assert_alive()


if __name__ == "__main__":
    main()
