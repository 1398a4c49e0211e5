#!/usr/bin/env python3
"""Whatever a provider does has a clear answer: called again, or failed with a code."""

import socket
import sys

sys.dont_write_bytecode = True
from support import SluiceCase, batch_line, content_of, main, write_lines  # noqa: E402
from provider import (Provider, answer, cut, error, hang, ok, raw, reset, send_bytes)  # noqa: E402


def first(*replies):
    """A rule: the first attempts of a content get these replies, later ones succeed."""
    return lambda call: replies[call.attempt - 1] if call.attempt <= len(replies) else ok


class ProviderFaults(SluiceCase):
    def run_rule(self, rule, count=1, status=0, **provider):
        self.provider_under_test = Provider(self, rule)
        self.start_pair(self.provider_under_test.url, provider=provider)
        return self.submit_wait(self.prompts(count), "--job", "rule", status=status)

    def assert_failed(self, result, code):
        self.assertEqual(result["sluice"]["state"], "failed", result)
        self.assertEqual(result["error"]["code"], code, result)
        self.assertTrue(result["error"]["message"])

    def test_called_again_until_it_succeeds(self):
        faults = {"429": error(429), "500": error(500), "503": error(503), "reset": reset,
                  "cut off": cut, "no http": raw(b"\x00\x01\x02 nonsense \r\n\r\n"),
                  "not json": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>"),
                  "end of file": raw(b"")}
        names = list(faults)
        rule = lambda call: first(faults[names[int(call.content[2:])]])(call)  # noqa: E731
        results = self.run_rule(rule, count=len(names))
        for i, name in enumerate(names):
            with self.subTest(name):
                self.assertEqual(results[f"q-{i}"]["sluice"]["attempts"], 2)
        queue = self.status()["queue"]
        self.assertEqual(queue["retries"], len(names))
        self.assertEqual(queue["provider_calls"], 2 * len(names))

    def test_attempts_used_up(self):
        results = self.run_rule(lambda call: error(503, "busy"), status=1)
        self.assert_failed(results["q-0"], "provider_error")
        self.assertEqual(results["q-0"]["sluice"]["attempts"], 4)
        self.assertEqual(results["q-0"]["response"]["status_code"], 503)
        self.assertEqual(results["q-0"]["response"]["body"]["error"]["message"], "busy")
        self.assertEqual(len(self.provider_under_test.calls), 4)

    def test_max_attempts_of_a_task(self):
        provider = Provider(self, lambda call: error(429))
        self.start_pair(provider.url)
        results = self.submit_wait(self.prompts(1, max_attempts=2), status=1)
        self.assert_failed(results["q-0"], "rate_limited")
        self.assertEqual(len(provider.calls), 2)

    def test_a_rejected_request_is_not_called_again(self):
        results = self.run_rule(lambda call: error(400, "bad parameter"), status=1)
        self.assert_failed(results["q-0"], "request_rejected")
        self.assertEqual(len(self.provider_under_test.calls), 1)
        self.assertEqual(results["q-0"]["response"]["body"]["error"]["message"], "bad parameter")

    def test_a_refused_key(self):
        results = self.run_rule(lambda call: error(401), status=1)
        self.assert_failed(results["q-0"], "auth_failed")

    def test_redirects_are_not_followed(self):
        other = Provider(self)
        rule = lambda call: error(302, headers={"Location": other.url})  # noqa: E731
        results = self.run_rule(rule, status=1)
        self.assert_failed(results["q-0"], "redirect_refused")
        self.assertEqual(other.calls, [])

    def test_hanging(self):
        results = self.run_rule(lambda call: hang, status=1, timeout_s=0.2,
                                retry={"max_attempts": 2, "base_ms": 1, "max_ms": 5})
        self.assert_failed(results["q-0"], "timeout")
        self.assertEqual(results["q-0"]["sluice"]["attempts"], 2)

    def test_timeout_of_a_task(self):
        provider = Provider(self, lambda call: hang)
        self.start_pair(provider.url)
        results = self.submit_wait(self.prompts(1, timeout_s=0.2, max_attempts=1), status=1)
        self.assert_failed(results["q-0"], "timeout")

    def test_nobody_listens(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))  # bound, never listening: refused
            url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
            self.start_pair(url)
            results = self.submit_wait(self.prompts(1), status=1)
        self.assert_failed(results["q-0"], "connect_failed")

    def test_an_endless_answer_is_cut(self):
        def endless(handler, _):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
            for _ in range(66):
                handler.wfile.write(chunk)
            handler.close_connection = True
        results = self.run_rule(lambda call: endless, status=1)
        self.assert_failed(results["q-0"], "response_too_large")

    def test_one_bad_task_does_not_hold_back_others(self):
        rule = lambda call: hang if call.content == "q-0" else ok  # noqa: E731
        results = self.run_rule(rule, count=40, status=1, timeout_s=1.0,
                                retry={"max_attempts": 1, "base_ms": 1, "max_ms": 5})
        self.assertEqual(sum(r["sluice"]["state"] == "completed" for r in results.values()), 39)

    def test_unknown_model_and_provider(self):
        self.start_pair(Provider(self).url)
        for line, words in ((batch_line("a", "a", model="nobody-has-it"), "takes this model"),
                            (batch_line("a", "a", provider="nowhere"), "no provider of that name")):
            with self.subTest(words):
                done = self.submit(write_lines(self.dir / "bad.jsonl", [line]), status=3)
                self.assert_one_line_error(done, r"bad\.jsonl:1:\d+: ", words)

    def test_bodies_arrive_as_they_were_given(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        body = '{ "model" :"stub-model", "messages":[{"role":"user","content":"\\u00e4 \\u2603"}],' \
               '"x":1.50, "seed": 12345678901234567890 }'
        line = '{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":' + body + "}"
        self.submit_wait(write_lines(self.dir / "raw.jsonl", [line]))
        self.assertEqual(provider.calls[0].data.decode(), body)

    def test_answers_come_back_as_they_were_given(self):
        def odd(handler, call):
            value = str(answer("x")).replace("'", '"').replace("1", "1.250")
            send_bytes(handler, 200, ("\n " + value + " \n").encode())
        results = self.run_rule(lambda call: odd)
        self.assertEqual(content_of(results["q-0"]), "x")


class Neighbours(SluiceCase):
    def test_one_that_hangs_holds_nobody_back(self):
        slow, fast = Provider(self), Provider(self)
        slow.hold()
        self.configure(self.provider(slow.url, name="slow", models=["slow-*"], concurrency=2),
                       self.provider(fast.url, name="fast", models=["fast-*"]))
        self.start_broker()
        self.start_worker()
        for name, count in (("slow", 3000), ("fast", 1000)):
            write_lines(self.dir / f"{name}.jsonl",
                        (batch_line(f"{name}-{i}", f"{name}-{i}", model=f"{name}-1")
                         for i in range(count)))
        self.submit("slow.jsonl", "--job", "slow")
        slow.wait_running(2)
        self.submit("fast.jsonl", "--job", "fast", "--wait", "--output", "fast.out")
        status = self.status()
        self.assert_adds_up(status)
        self.assertEqual(status["queue"]["completed"], 1000)
        self.assertEqual(status["queue"]["inflight"], 2)
        slow.release()


if __name__ == "__main__":
    main()
