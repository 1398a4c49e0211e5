"""A client for sluice-stub that trusts nothing: raw sockets, and the hashes and odds that the stub's
--help promises, computed anew. Shared by tests; no test in itself."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

PATIENCE_S = 20  # for what must happen; never waited for in full when all is well
MASK = (1 << 64) - 1


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


def draw(seed, body_hash, attempt, stream):
    """The uniform number in [0, 1) that --help describes."""
    word = seed ^ body_hash * 0x9E3779B97F4A7C15 & MASK ^ attempt * 0xC2B2AE3D27D4EB4F & MASK
    word = (word ^ stream) + 0x9E3779B97F4A7C15 & MASK
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
    return ((word ^ word >> 31) >> 11) / (1 << 53)


def chat(text, **more):
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}
    return json.dumps(body).encode()


def request(body=None, path="/v1/chat/completions", method="POST", headers=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: stub", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def content(self):
        return self.json["choices"][0]["message"]["content"]


class Wire:
    """One connection, and a reader that trusts nothing."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kept = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def more(self):
        data = self.sock.recv(1 << 20)
        self.kept += data
        return data

    def rest(self):
        """All bytes to the end and how it ended: "close" or "reset"."""
        try:
            while self.more():
                pass
        except ConnectionResetError:
            return self.kept, "reset"
        return self.kept, "close"

    def take(self, count):
        while len(self.kept) < count:
            if not self.more():
                raise EOFError(self.kept)
        data, self.kept = self.kept[:count], self.kept[count:]
        return data

    def head(self):
        while b"\r\n\r\n" not in self.kept:
            if not self.more():
                raise EOFError(self.kept)
        head, self.kept = self.kept.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        return int(first.split()[1]), [tuple(line.split(": ", 1)) for line in lines]

    def chunks(self):
        body = b""
        while True:
            while b"\r\n" not in self.kept:
                self.more()
            size, self.kept = self.kept.split(b"\r\n", 1)
            chunk = self.take(int(size, 16) + 2)
            body += chunk[:-2]
            if chunk == b"\r\n":
                return body

    def answer(self):
        status, pairs = self.head()
        headers = dict(pairs)
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self.chunks())
        return Answer(status, headers, self.take(int(headers["content-length"])))

    def ask(self, *args, **named):
        self.send(request(*args, **named))
        return self.answer()


class Stub:
    """A running stub with a log, in a directory of its own; as a context it is ended, and a bad end
    is a failure."""

    program = None  # the path of sluice-stub; set before the first is started

    def __init__(self, *options):
        self.dir = tempfile.TemporaryDirectory(prefix="sluice-stub-test-")
        self.log = pathlib.Path(self.dir.name, "log")
        self.process = subprocess.Popen(
            [self.program, "--die-with-parent", "--log", self.log, *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        if not found:
            self.process.kill()
            complaint = self.process.communicate()[1]
            self.dir.cleanup()
            raise AssertionError(f"first line {line!r}, {complaint}")
        self.port = int(found.group(1))

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            _, complaint = self.process.communicate(timeout=PATIENCE_S)
        finally:
            self.process.kill()
            self.dir.cleanup()
        if error is None and (self.process.returncode != 0 or complaint):
            raise AssertionError(f"the stub ended with {self.process.returncode}: {complaint}")

    def ask(self, *args, **named):
        with Wire(self.port) as wire:
            return wire.ask(*args, **named)

    def stats(self):
        return self.ask(path="/stub/stats", method="GET").json

    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_for(self, what):
        """Polls until what() is true."""
        end = time.monotonic() + PATIENCE_S
        while not what():
            if time.monotonic() > end:
                raise AssertionError("it did not happen in time")
            time.sleep(0.005)

    def stop(self, number=signal.SIGTERM):
        """Ends it; status and the rest of stdout."""
        self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE_S)
        return self.process.returncode, self.process.stdout.read()
