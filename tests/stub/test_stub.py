#!/usr/bin/env python3
"""Process test of sluice-stub: test_stub.py PATH_OF_SLUICE_STUB [unittest options].

Every stub listens on a free port, writes into a directory of its own and is ended by its pid."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from random import Random

sys.dont_write_bytecode = True
from stub_client import PATIENCE_S, Stub, Wire, chat, draw, fnv, request


class Routes(unittest.TestCase):
    def test_routes(self):
        chat_body = chat("x")
        response = json.dumps({"model": "m", "input": "x"}).encode()
        cases = (
            ("POST", "/v1/chat/completions", chat_body, 200, "chat.completion"),
            ("POST", "/chat/completions", chat_body, 200, "chat.completion"),
            ("POST", "/v1/chat/completions?x=1", chat_body, 200, "chat.completion"),
            ("POST", "/v1/responses", response, 200, "response"),
            ("POST", "/responses", response, 200, "response"),
            ("POST", "/v1/embeddings", response, 200, "list"),
            ("POST", "/embeddings", response, 200, "list"),
            ("GET", "/v1/models", None, 200, "list"),
            ("GET", "/v1/chat/completions", None, 405, None),
            ("POST", "/v1/models", b"{}", 405, None),
            ("POST", "/v1/other", chat_body, 404, None),
            ("GET", "/", None, 404, None),
            ("GET", "/v1/chat/completions/x", None, 404, None),
        )
        with Stub() as stub, Wire(stub.port) as wire:
            for method, path, body, status, kind in cases:
                with self.subTest(method=method, path=path):
                    answer = wire.ask(body, path=path, method=method)
                    self.assertEqual(answer.status, status)
                    if kind:
                        self.assertEqual(answer.json["object"], kind)
                    else:
                        self.assertEqual(set(answer.json["error"]),
                                         {"message", "type", "param", "code"})

    def test_bad_requests(self):
        ok = chat("x")
        long_id = "X-Client-Request-Id: " + "a" * 513
        cases = (
            ("no JSON", request(b"hello"), 400),
            ("empty body", request(b""), 400),
            ("cut JSON", request(ok[:-1]), 400),
            ("cut string", request(b'{"model":"m'), 400),
            ("something behind", request(ok + b"x"), 400),
            ("comma at the end", request(b'{"model":"m","messages":[],}'), 400),
            ("no model", request(b'{"messages":[]}'), 400),
            ("no messages", request(b'{"model":"m"}'), 400),
            ("stream", request(chat("x", stream=True)), 400),
            ("unknown marker", request(chat("[[stub:nonsense]]")), 400),
            ("marker without end", request(chat("[[stub:hang")), 400),
            ("bad number in marker", request(chat("[[stub:bytes=9999999999]]")), 400),
            ("client id too long", request(ok, headers=[long_id]), 400),
            ("client id not ASCII", request(ok, headers=["X-Client-Request-Id: \u00e4"]), 400),
            ("client id at the limit", request(ok, headers=[long_id[:-1]]), 200),
            ("no request line", b"hello\r\n\r\n", 400),
            ("old version", b"GET / HTTP/0.9\r\n\r\n", 400),
            ("header without name", b"GET / HTTP/1.1\r\n: x\r\n\r\n", 400),
            ("length no number", b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400),
            ("two lengths", b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
             400),
            ("length and chunks", b"POST / HTTP/1.1\r\nContent-Length: 1\r\n"
             b"Transfer-Encoding: chunked\r\n\r\n", 400),
            ("gzip", b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            ("bad chunk", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            ("long chunk", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
            ("huge chunk", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
             413),
            ("too large", b"POST / HTTP/1.1\r\nContent-Length: 68157441\r\n\r\n", 413),
            ("head too large", b"GET / HTTP/1.1\r\nX: " + b"x" * 70000, 431),
            ("unknown expectation", b"GET / HTTP/1.1\r\nExpect: tea\r\n\r\n", 417),
        )
        with Stub() as stub:
            for name, data, status in cases:
                with self.subTest(name), Wire(stub.port) as wire:
                    wire.send(data)
                    answer = wire.answer()
                    self.assertEqual(answer.status, status, answer.body)
                    if status >= 400:
                        self.assertGreater(len(answer.json["error"]["message"]), 5)

    def test_usage(self):
        cases = (["--fail", "nonsense=0.1"], ["--fail", "reset=2"], ["--fail", "reset"],
                 ["--fail=500=0.6,502=0.6"], ["--fail-first", "x=500"], ["--fail-first", "3"],
                 ["--listen", "127.0.0.1"], ["--listen", "127.0.0.1:70000"], ["--threads", "0"],
                 ["--unknown"], ["positional"], ["--latency-ms", "-1"])
        for options in cases:
            with self.subTest(options):
                done = subprocess.run([Stub.program, *options], capture_output=True, text=True,
                                      timeout=PATIENCE_S)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        done = subprocess.run([Stub.program, "--listen", "no.address:1"], capture_output=True,
                              timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 4)


class Answers(unittest.TestCase):
    def check_echo(self, stub, body, expected):
        answer = stub.ask(body)
        prefix = f"echo:{fnv(body):016x}:"
        self.assertEqual(answer.headers["x-stub-body-fnv"], f"{fnv(body):016x}")
        self.assertEqual(answer.content, prefix + expected)

    def test_echo(self):
        texts = ("plain", "", 'quote " and \\ and \n and \t', "\u00fcmlaut \u65e5\u672c \U0001f600")
        with Stub() as stub:
            for text in texts:
                for ascii_only in (True, False):
                    with self.subTest(text=text, ascii_only=ascii_only):
                        body = json.dumps(json.loads(chat(text)), ensure_ascii=ascii_only).encode()
                        self.check_echo(stub, body, text)

    def test_echo_is_of_the_last_user_message(self):
        def body(messages):
            return json.dumps({"messages": messages, "model": "m"}).encode()
        cases = (
            ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
            ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "b"),
            ([{"role": "system", "content": "a"}], ""),
            ([{"content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}},
                           {"type": "text", "text": "b"}], "role": "user"}], "b"),
            ([{"role": "user", "content": None}], ""),
        )
        with Stub() as stub:
            for messages, expected in cases:
                with self.subTest(messages):
                    self.check_echo(stub, body(messages), expected)

    def test_echo_is_cut_between_characters(self):
        with Stub() as stub, Stub("--echo-full") as full:
            for unit in ("x", "\u00fc", "\u65e5", "\U0001f600", "\n"):
                for ascii_only in (True, False):
                    for lead in range(13):
                        text = "y" * lead + unit * 300
                        body = json.dumps(json.loads(chat(text)), ensure_ascii=ascii_only).encode()
                        content = stub.ask(body).content.split(":", 2)[2]
                        size = len(json.dumps(unit, ensure_ascii=ascii_only).encode()) - 2
                        self.assertEqual(content, text[:lead + (200 - lead) // size])
            self.check_echo(full, chat("z" * 100000), "z" * 100000)

    def test_usage_and_headers(self):
        body = chat("x")
        with Stub() as stub:
            first, second = stub.ask(body), stub.ask(chat("[[stub:tokens=77 latency_ms=3]]"))
        usage = first.json["usage"]
        self.assertEqual(usage["prompt_tokens"], (len(body) + 3) // 4)
        self.assertEqual(usage["completion_tokens"], (len(first.content) + 3) // 4)
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])
        self.assertEqual(second.json["usage"]["completion_tokens"], 77)
        self.assertEqual(first.headers["x-request-id"], "req_0000000000000001")
        self.assertEqual(second.headers["x-request-id"], "req_0000000000000002")
        self.assertEqual(second.headers["openai-processing-ms"], "3")
        self.assertEqual(first.json["model"], "gpt-4o-mini")
        self.assertLess(abs(first.json["created"] - time.time()), 60)

    def test_responses(self):
        inputs = ("hello", [{"role": "user", "content": "hello"}],
                  [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}])
        with Stub() as stub:
            for value in inputs:
                body = json.dumps({"model": "m", "input": value}).encode()
                answer = stub.ask(body, path="/v1/responses").json
                self.assertEqual(answer["status"], "completed")
                self.assertEqual(answer["output"][0]["content"][0]["text"],
                                 f"echo:{fnv(body):016x}:hello")
                self.assertEqual(answer["usage"]["input_tokens"], (len(body) + 3) // 4)

    def test_embeddings(self):
        def vector(text):
            return [byte / 256 for byte in fnv(text.encode()).to_bytes(8, "big")]
        cases = ((b'"a"', ['"a"']), (b'["a", "b"]', ['"a"', '"b"']), (b"[1,2]", ["[1,2]"]),
                 (b"[[1,2],[3]]", ["[1,2]", "[3]"]), (b"[]", []))
        with Stub() as stub:
            for value, inputs in cases:
                body = b'{"model":"m","input":' + value + b"}"
                answer = stub.ask(body, path="/v1/embeddings").json
                self.assertEqual([row["embedding"] for row in answer["data"]],
                                 [vector(text) for text in inputs])
                self.assertEqual([row["index"] for row in answer["data"]],
                                 list(range(len(inputs))))

    def test_padding_and_chunks(self):
        with Stub("--response-bytes", "1000", "--chunked") as stub:
            answer = stub.ask(chat("x"))
            self.assertEqual(len(answer.content), 1000)
            self.assertIn("content-length", answer.headers)
            answer = stub.ask(chat("[[stub:bytes=2000000]]"))
            self.assertEqual(len(answer.content), 2000000)
            self.assertEqual(answer.headers["transfer-encoding"], "chunked")


class Requests(unittest.TestCase):
    def test_byte_by_byte(self):
        chunked = (b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        body = chat("byte by byte")
        for at in range(0, len(body), 7):
            piece = body[at:at + 7]
            chunked += b"%X;x=y\r\n%s\r\n" % (len(piece), piece)
        chunked += b"0\r\nTrailer: x\r\n\r\n"
        with Stub() as stub, Wire(stub.port) as wire:
            for data in (request(body), chunked, request(body)):
                for at in range(len(data)):
                    wire.send(data[at:at + 1])
                self.assertEqual(wire.answer().content, f"echo:{fnv(body):016x}:byte by byte")
            self.assertEqual(stub.stats()["connections"], 2)

    def test_pipelining_at_every_cut(self):
        one, two = chat("one"), chat("two")
        head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        data = request(one) + head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(two), two) + request(one)
        with Stub() as stub, Wire(stub.port) as wire:
            for cut in range(0, len(data), 3):
                wire.send(data[:cut])
                wire.send(data[cut:])
                contents = [wire.answer().content.split(":")[2] for _ in range(3)]
                self.assertEqual(contents, ["one", "two", "one"])

    def test_mutated_requests(self):
        seed = time.time_ns() & 0xFFFFFFFF
        random = Random(seed)
        chunked = (b"POST /responses HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                   b"%x\r\n%s\r\n0\r\n\r\n")
        body = b'{"model":"m","input":[{"role":"user","content":[{"text":"[[stub:bytes=9]]"}]}]}'
        samples = (request(chat("x \\ \" [[stub:latency_ms=1 status=500]]")),
                   chunked % (len(body), body), request(body, path="/v1/embeddings"))
        print(f"mutations from seed {seed}", file=sys.stderr)
        with Stub() as stub:
            for _ in range(400):
                data = bytearray(random.choice(samples))
                for _ in range(random.randint(1, 4)):
                    at = random.randrange(len(data))
                    data[at:at + random.randint(0, 3)] = random.choice(
                        (b"", b"\r\n", b'"', b"[", b"}", b"\\", b"\0", b"\xff", b"9", b","))
                with Wire(stub.port) as wire:
                    wire.send(data)
                    wire.sock.shutdown(socket.SHUT_WR)
                    wire.rest()
            self.assertEqual(stub.ask(chat("x")).status, 200)
            stub.wait_for(lambda: stub.stats()["connections_open"] == 1)

    def test_expect_continue(self):
        body = chat("x")
        with Stub() as stub, Wire(stub.port) as wire:
            data = request(body, headers=["Expect: 100-continue"])
            wire.send(data[:-len(body)])
            self.assertEqual(wire.take(25), b"HTTP/1.1 100 Continue\r\n\r\n")
            wire.send(body)
            self.assertEqual(wire.answer().status, 200)

    def test_close(self):
        body = chat("x")
        old = request(body).replace(b"HTTP/1.1", b"HTTP/1.0")
        cases = ((request(body, headers=["Connection: close"]), True), (old, True),
                 (old.replace(b"Host:", b"Connection: keep-alive\r\nHost:"), False))
        with Stub() as stub:
            for data, is_closed in cases:
                with Wire(stub.port) as wire:
                    wire.send(data)
                    answer = wire.answer()
                    self.assertEqual("connection" in answer.headers, is_closed)
                    if is_closed:
                        self.assertEqual(wire.rest(), (b"", "close"))
                    else:
                        self.assertEqual(wire.ask(body).status, 200)

    def test_largest_body(self):
        body = chat("x")
        body += b" " * (65 * 1024 * 1024 - len(body))
        with Stub() as stub:
            self.assertEqual(stub.ask(body).status, 200)
            stub.stop()
            self.assertEqual(stub.lines()[0]["body_bytes"], len(body))


class Kinds(unittest.TestCase):
    """What each kind looks like on the wire. Every kind that --help lists must be in the table."""

    def error(self, wire, status, code, retry_after=False):
        answer = wire.answer()
        self.assertEqual((answer.status, answer.json["error"]["code"]), (status, code))
        self.assertEqual("retry-after" in answer.headers, retry_after)

    def ended(self, wire, data, end):
        self.assertEqual(wire.rest(), (data, end))

    def half(self, wire, end):
        _, headers = wire.head()
        wire.sock.settimeout(0.2 if end == "silence" else PATIENCE_S)
        try:
            data, seen = wire.rest()
        except TimeoutError:
            data, seen = wire.kept, "silence"
        self.assertEqual((len(data), seen), (int(dict(headers)["content-length"]) // 2, end))

    def silent(self, wire):
        wire.sock.settimeout(0.2)
        self.assertRaises(TimeoutError, wire.more)

    def pieces(self, wire, with_head):
        started = time.monotonic()
        first = wire.more()
        self.assertTrue(with_head or b"\r\n\r\n" in first)
        answer = wire.answer()
        self.assertEqual(answer.status, 200)
        pauses = (len(answer.body) + (200 if with_head else 0)) // 16 - 1
        self.assertGreaterEqual(time.monotonic() - started, pauses * 0.005 - 0.01)

    def no_json(self, wire):
        self.assertRaises(ValueError, json.loads, wire.answer().body)

    def bad_length(self, wire):
        answer = wire.answer()
        self.assertRaises(ValueError, json.loads, answer.body)
        self.assertEqual(json.loads(answer.body + wire.take(10))["object"], "chat.completion")

    def two_lengths(self, wire):
        _, headers = wire.head()
        values = [value for name, value in headers if name == "content-length"]
        self.assertEqual((len(values), len(set(values))), (2, 2))

    def bad_chunk(self, wire):
        _, headers = wire.head()
        self.assertEqual(dict(headers)["transfer-encoding"], "chunked")
        data, end = wire.rest()
        self.assertIn(b"\r\nzz\r\n", data)
        self.assertEqual(end, "close")

    def no_http(self, wire):
        data, end = wire.rest()
        self.assertFalse(data.startswith(b"HTTP"))
        self.assertEqual(end, "close")

    def bad_utf8(self, wire):
        body = wire.answer().body
        self.assertIn(b"\0", body)
        self.assertRaises(UnicodeDecodeError, body.decode)

    def deep(self, wire):
        self.assertIn(b"[" * 10000 + b"]" * 10000, wire.answer().body)

    def flood(self, wire):
        _, headers = wire.head()
        self.assertGreater(sum(len(name) + len(value) + 4 for name, value in headers), 195000)

    def empty(self, wire):
        answer = wire.answer()
        self.assertEqual((answer.status, answer.body), (200, b""))

    def huge(self, wire):
        self.assertEqual(len(wire.answer().content), 65 << 20)

    def redirect(self, wire):
        answer = wire.answer()
        self.assertEqual((answer.status, answer.headers["location"]), (307, "/stub/redirected"))

    def finish(self, wire, reason):
        self.assertEqual(wire.answer().json["choices"][0]["finish_reason"], reason)

    def inner_error(self, wire):
        answer = wire.answer()
        self.assertEqual((answer.status, answer.json["error"]["type"]), (200, "server_error"))

    checks = {
        "ok": lambda self, wire: self.finish(wire, "stop"),
        "status": lambda self, wire: self.error(wire, 503, "server_is_overloaded", True),
        "quota": lambda self, wire: self.error(wire, 429, "insufficient_quota"),
        "slowdown": lambda self, wire: self.error(wire, 429, "slow_down", True),
        "overloaded": lambda self, wire: self.error(wire, 503, "server_is_overloaded", True),
        "http200error": inner_error,
        "failed": inner_error,
        "cutoff": lambda self, wire: self.finish(wire, "length"),
        "redirect": redirect,
        "reset": lambda self, wire: self.ended(wire, b"", "reset"),
        "closeearly": lambda self, wire: self.ended(wire, b"", "close"),
        "hang": silent,
        "truncate": lambda self, wire: self.half(wire, "close"),
        "cutreset": lambda self, wire: self.half(wire, "reset"),
        "stall": lambda self, wire: self.half(wire, "silence"),
        "slow": lambda self, wire: self.pieces(wire, False),
        "slowhead": lambda self, wire: self.pieces(wire, True),
        "garbage": no_json,
        "nothttp": no_http,
        "badlength": bad_length,
        "twolengths": two_lengths,
        "badchunk": bad_chunk,
        "badutf8": bad_utf8,
        "deep": deep,
        "headerflood": flood,
        "empty": empty,
        "huge": huge,
    }

    def test_table_is_complete(self):
        text = subprocess.run([Stub.program, "--help"], capture_output=True, text=True, check=True,
                              timeout=PATIENCE_S).stdout
        listed = re.findall(r"^  (\w+): ", text.split("\nKinds")[1].split("\n\n")[0], re.MULTILINE)
        self.assertEqual(listed, list(self.checks))

    def test_each_kind_by_marker(self):
        with Stub("--retry-after-ms", "1500", "--slow-ms", "5") as stub:
            for kind, check in self.checks.items():
                word = "status=503" if kind == "status" else kind
                with self.subTest(kind), Wire(stub.port) as wire:
                    wire.send(request(chat(f"please [[stub:{word}]]")))
                    check(self, wire)
            behaviours = stub.stats()["by_behaviour"]
            self.assertEqual({kind: behaviours.get(kind) for kind in self.checks},
                             {kind: 1 for kind in self.checks})

    def test_each_kind_by_option(self):
        for kind, check in self.checks.items():
            word = "503" if kind == "status" else kind
            with self.subTest(kind), Stub("--retry-after-ms", "1500", "--slow-ms", "5",
                                          "--fail", f"{word}=1") as stub, Wire(stub.port) as wire:
                wire.send(request(chat("x")))
                check(self, wire)

    def test_failed_response(self):
        with Stub() as stub:
            for kind, status in (("failed", "failed"), ("cutoff", "incomplete")):
                body = json.dumps({"model": "m", "input": f"[[stub:{kind}]]"}).encode()
                answer = stub.ask(body, path="/v1/responses")
                self.assertEqual((answer.status, answer.json["status"]), (200, status))

    def test_every_injected_status(self):
        with Stub() as stub, Wire(stub.port) as wire:
            for status in range(400, 600):
                answer = wire.ask(chat(f"[[stub:status={status}]]"))
                self.assertEqual(answer.status, status)
                self.assertEqual(set(answer.json["error"]), {"message", "type", "param", "code"})

    def test_cut_at_every_byte(self):
        def ask(stub, word, at):
            with Wire(stub.port) as wire:
                wire.send(request(chat(f"[[stub:{word}={at:05}]]")))
                data, end = wire.rest()
                return len(data), end

        with Stub() as stub:
            for word, end in (("cut_at", "close"), ("reset_at", "reset")):
                whole, _ = ask(stub, word, 99999)
                self.assertGreater(whole, 600)
                for at in range(0, whole + 1, 7):
                    self.assertEqual(ask(stub, word, at), (at, end))

    def test_retry_after_headers(self):
        with Stub("--retry-after-ms", "1500") as stub:
            answer = stub.ask(chat("[[stub:status=429]]"))
            self.assertEqual((answer.headers["retry-after"], answer.headers["retry-after-ms"]),
                             ("2", "1500"))
            answer = stub.ask(chat("[[stub:status=500 retry_after_ms=30]]"))
            self.assertEqual((answer.headers["retry-after"], answer.headers["retry-after-ms"]),
                             ("1", "30"))


class Fate(unittest.TestCase):
    def test_fail_times(self):
        body, other = (chat(f"{name} [[stub:fail_times=2 status=502]]") for name in "ab")
        with Stub() as stub, Wire(stub.port) as wire:
            seen = [wire.ask(data).status for data in (body, body, other, body, other, other, body)]
            self.assertEqual(seen, [502, 502, 502, 200, 502, 200, 200])

    def test_fail_first(self):
        with Stub("--fail-first", "2=500") as stub, Wire(stub.port) as wire:
            seen = [wire.ask(chat(str(i))).status for i in range(4)]
            self.assertEqual(seen, [500, 500, 200, 200])

    def fates(self, seed, order):
        """Status of each (body, attempt), asked in this order."""
        fates = {}
        options = ("--seed", str(seed), "--fail", "429=0.2", "--fail=500=0.1,404=0.1")
        with Stub(*options) as stub, Wire(stub.port) as wire:
            for number in order:
                attempt = sum(1 for key in fates if key[0] == number)
                fates[number, attempt] = wire.ask(chat(str(number))).status
        return fates

    def test_fate_depends_on_seed_body_and_attempt_alone(self):
        numbers = list(range(150))
        first = self.fates(7, numbers + numbers)
        second = self.fates(7, [number for number in reversed(numbers) for _ in range(2)])
        self.assertEqual(first, second)
        self.assertNotEqual(first, self.fates(8, numbers + numbers))
        for (number, attempt), status in first.items():
            share = draw(7, fnv(chat(str(number))), attempt, 0)
            expected = 429 if share < 0.2 else 500 if share < 0.3 else 404 if share < 0.4 else 200
            self.assertEqual(status, expected)

    def test_refused_calls_are_no_attempts(self):
        body = chat("[[stub:fail_times=1]]")
        with Stub("--rpm", "2") as stub, Wire(stub.port) as wire:
            self.assertEqual([wire.ask(body).status for _ in range(4)], [500, 200, 429, 429])

    def test_latency_and_jitter(self):
        with Stub("--latency-ms", "20", "--jitter-ms", "100", "--seed", "3") as stub:
            with Wire(stub.port) as wire:
                for number in range(5):
                    body = chat(str(number))
                    expected = 0.02 + 0.1 * draw(3, fnv(body), 0, 1)
                    started = time.monotonic()
                    wire.ask(body)
                    taken = time.monotonic() - started
                    self.assertGreaterEqual(taken, expected - 0.001)
                    self.assertLess(taken, expected + 5)
                started = time.monotonic()
                wire.ask(chat("[[stub:latency_ms=200]]"))
                self.assertGreaterEqual(time.monotonic() - started, 0.199)


class Limits(unittest.TestCase):
    def test_requests_a_minute(self):
        key, other = ["Authorization: Bearer a"], ["Authorization: Bearer b"]
        with Stub("--rpm", "6") as stub, Wire(stub.port) as wire:
            answers = [wire.ask(chat(str(i)), headers=key) for i in range(7)]
            self.assertEqual([a.status for a in answers], [200] * 6 + [429])
            self.assertEqual([a.headers["x-ratelimit-remaining-requests"] for a in answers],
                             ["5", "4", "3", "2", "1", "0", "0"])
            self.assertEqual(answers[0].headers["x-ratelimit-limit-requests"], "6")
            self.assertRegex(answers[0].headers["x-ratelimit-reset-requests"], r"^(10|9\.\d+)s$")
            self.assertRegex(answers[6].headers["x-ratelimit-reset-requests"], r"^(1m0|5\d.*)s$")
            self.assertIn(int(answers[6].headers["retry-after"]), range(1, 11))
            self.assertEqual(answers[6].json["error"]["code"], "rate_limit_exceeded")
            self.assertNotIn("x-ratelimit-limit-tokens", answers[0].headers)
            self.assertEqual(wire.ask(chat("x"), headers=other).status, 200)

    def test_bucket_refills(self):
        with Stub("--rpm", "120") as stub, Wire(stub.port) as wire:
            answer = wire.ask(chat("x"))
            while answer.status == 200:
                answer = wire.ask(chat("x"))
            wait_s = int(answer.headers["retry-after-ms"]) / 1000
            self.assertLessEqual(wait_s, 0.5)
            end = time.monotonic() + wait_s
            while time.monotonic() < end:
                pass
            self.assertEqual(wire.ask(chat("x")).status, 200)

    def test_tokens_a_minute(self):
        with Stub("--tpm", "1000") as stub, Wire(stub.port) as wire:
            answers = [wire.ask(chat("x", max_tokens=400)) for _ in range(3)]
            self.assertEqual([a.status for a in answers], [200, 200, 429])
            self.assertEqual(answers[0].headers["x-ratelimit-remaining-tokens"], "600")
            self.assertEqual(answers[0].headers["x-ratelimit-limit-tokens"], "1000")
            self.assertRegex(answers[2].headers["x-ratelimit-reset-tokens"], r"^4\d(\.\d+)?s$")

    def test_concurrency(self):
        with Stub("--max-concurrent", "2", "--rpm", "100") as stub:
            with Wire(stub.port) as one, Wire(stub.port) as two:
                for wire in (one, two):
                    wire.send(request(chat("[[stub:hang]]")))
                stub.wait_for(lambda: stub.stats()["in_flight"] == 2)
                answer = stub.ask(chat("x"))
                self.assertEqual(answer.status, 429)
                self.assertFalse([name for name in answer.headers
                                  if name.startswith(("retry", "x-ratelimit"))])
            stub.wait_for(lambda: stub.stats()["in_flight"] == 0)
            self.assertEqual(stub.ask(chat("x")).status, 200)
            self.assertEqual(stub.stats()["abandoned"], 2)

    def test_key(self):
        cases = (("Bearer secret", 200), ("Bearer wrong", 401), ("Bearer secret2", 401),
                 ("secret", 401), (None, 401))
        with Stub("--require-key", "secret") as stub:
            for value, status in cases:
                headers = [f"Authorization: {value}"] if value else []
                self.assertEqual(stub.ask(chat("x"), headers=headers).status, status)
            self.assertEqual(stub.stats()["by_behaviour"]["unauthorized"], 4)

    def test_many_calls_in_flight(self):
        count = 400
        with Stub("--latency-ms", "1000", "--threads", "2") as stub:
            started = time.monotonic()
            wires = [Wire(stub.port) for _ in range(count)]
            for number, wire in enumerate(wires):
                wire.send(request(chat(str(number))))
            for number, wire in enumerate(wires):
                self.assertEqual(wire.answer().content.split(":")[2], str(number))
                wire.sock.close()
            self.assertLess(time.monotonic() - started, PATIENCE_S)
            self.assertGreater(stub.stats()["max_in_flight"], count // 4)


class Log(unittest.TestCase):
    def test_lines(self):
        body, secret = chat("x"), ["X-Client-Request-Id: try-1", "Authorization: Bearer hush"]
        with Stub() as stub:
            before = time.monotonic_ns()
            stub.ask(body, headers=secret)
            stub.ask(b"{}", headers=['X-Client-Request-Id: a"b\\c'])
            stub.ask(path="/nope", method="GET")
            stub.ask(body)
            stub.stats()
            self.assertEqual(stub.stop(), (0, ""))
            lines = stub.lines()
            self.assertNotIn("hush", stub.log.read_text())
        times = [line.pop("t_ns") for line in lines]
        self.assertEqual(times, sorted(times))
        self.assertTrue(before <= times[0] <= time.monotonic_ns())
        common = {"method": "POST", "path": "/v1/chat/completions", "model": "gpt-4o-mini",
                  "body_fnv": f"{fnv(body):016x}", "body_bytes": len(body), "attempt": 0,
                  "status": 200, "behaviour": "ok"}
        self.assertEqual(lines[0], common | {"seq": 1, "client_request_id": "try-1"})
        self.assertEqual(lines[1], common | {
            "seq": 2, "model": "", "body_fnv": f"{fnv(b'{}'):016x}", "body_bytes": 2,
            "status": 400, "behaviour": "bad_request", "client_request_id": 'a"b\\c'})
        self.assertEqual((lines[2]["status"], lines[2]["behaviour"]), (404, "not_found"))
        self.assertEqual(lines[3], common | {"seq": 4, "client_request_id": "", "attempt": 1})
        self.assertEqual(len(lines), 4)

    def test_flush(self):
        with Stub() as stub:
            stub.ask(chat("x"))
            stub.wait_for(lambda: len(stub.lines()) == 1)
            stub.ask(chat("x"))
            stub.process.send_signal(signal.SIGUSR1)
            stub.wait_for(lambda: len(stub.lines()) == 2)
            with Wire(stub.port) as wire:
                wire.send(request(chat("[[stub:hang]]")))
                stub.wait_for(lambda: stub.stats()["in_flight"] == 1)
                self.assertEqual(stub.stop(signal.SIGINT)[0], 0)
            line = stub.lines()[2]
            self.assertEqual((line["status"], line["behaviour"]), (0, "hang"))

    def test_no_line_is_lost_with_threads(self):
        def run(port, first):
            with Wire(port) as wire:
                for number in range(first, first + 200):
                    wire.ask(chat(str(number)))
        with Stub("--threads", "3") as stub:
            threads = [threading.Thread(target=run, args=(stub.port, 200 * i)) for i in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(stub.stats()["requests"], 1600)
            self.assertEqual(stub.stop()[0], 0)
            lines = stub.lines()
        self.assertEqual(sorted(line["seq"] for line in lines), list(range(1, 1601)))
        self.assertEqual({line["body_fnv"] for line in lines},
                         {f"{fnv(chat(str(number))):016x}" for number in range(1600)})

    def test_port_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "port")
            with Stub("--port-file", path) as stub:
                self.assertEqual(int(path.read_text()), stub.port)
            self.assertEqual(list(pathlib.Path(folder).iterdir()), [path])

    def test_unwritable_files(self):
        for option in ("--log", "--port-file"):
            done = subprocess.run([Stub.program, option, "/nonexistent/x"], capture_output=True,
                                  text=True, timeout=PATIENCE_S)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (5, 1))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: test_stub.py PATH_OF_SLUICE_STUB [unittest options]")
    Stub.program = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
