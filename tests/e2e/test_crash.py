#!/usr/bin/env python3
"""Who dies, and then: what was accepted completes, once."""

import os
import signal
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
from support import BIN, SluiceCase, main, read_results  # noqa: E402
from provider import Provider  # noqa: E402

NOBODY = 65534


class Crash(SluiceCase):
    def test_broker_killed_with_a_queue_on_disk(self):
        provider = Provider(self)
        self.start_pair(provider.url, llm_queue_concurrency=16)
        self.submit(self.prompts(400), "--job", "crash")
        provider.wait_calls(50)
        mark = self.worker.mark()
        self.broker.kill()
        self.start_broker()
        self.worker.wait_line(r"event=broker_found", count=2, after=mark)
        self.wait_queue(completed=400)
        results = read_results(self.ctl("results", "crash").stdout)
        self.assertEqual(set(results), {f"q-{i}" for i in range(400)})
        self.assertEqual(set(provider.counts().values()), {1}, "a broker's death costs no call")
        self.assert_adds_up(self.status())

    def test_running_calls_survive_the_broker(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=4)
        self.submit(self.prompts(4), "--job", "held")
        provider.wait_running(4)
        mark = self.worker.mark()
        self.broker.kill()
        self.start_broker()
        self.worker.wait_line(r"event=broker_found", count=2, after=mark)
        provider.release()
        self.wait_queue(completed=4)
        self.assertEqual(set(provider.counts().values()), {1})

    def test_broker_killed_again_and_again(self):
        provider = Provider(self)
        self.start_pair(provider.url, llm_queue_concurrency=16)
        self.submit(self.prompts(300), "--job", "crash")
        for calls in (20, 80, 140):
            provider.wait_calls(calls)
            mark = self.worker.mark()
            self.broker.kill()
            self.start_broker()
            self.worker.wait_line(r"event=broker_found", count=2, after=mark)
        self.wait_queue(completed=300)
        self.assertEqual(len(read_results(self.ctl("results", "crash").stdout)), 300)
        self.assertEqual(set(provider.counts().values()), {1})

    def test_broker_killed_while_its_workers_come_back(self):
        """The next broker must know of the worker that had not yet come back, too."""
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=16)
        self.submit(self.prompts(100), "--job", "crash")
        provider.wait_running(16)
        stopped = self.status()["workers"][0]["pid"]
        os.kill(stopped, signal.SIGSTOP)
        mark = self.worker.mark()
        self.broker.kill()
        self.start_broker()
        self.worker.wait_line(r"event=broker_found", count=1, after=mark)
        mark = self.worker.mark()
        self.broker.kill()
        self.start_broker()
        self.worker.wait_line(r"event=broker_found", count=1, after=mark)
        os.kill(stopped, signal.SIGCONT)
        provider.release()
        self.wait_queue(completed=100)
        self.assertEqual(set(provider.counts().values()), {1})

    def test_worker_killed_repeats_its_running_calls_alone(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=8)
        self.submit(self.prompts(20), "--job", "crash")
        provider.wait_running(8)
        status = self.wait_queue(inflight=8)
        victim = status["workers"][0]
        mark = self.worker.mark()
        os.kill(victim["pid"], signal.SIGKILL)
        self.broker.wait_line(r"event=lane_lost")
        self.worker.wait_line(r"event=broker_found", after=mark)
        provider.release()
        self.wait_queue(completed=20)
        counts = sorted(provider.counts().values())
        self.assertEqual(counts, [1] * (20 - victim["inflight"]) + [2] * victim["inflight"])
        results = read_results(self.ctl("results", "crash").stdout)
        self.assertEqual(len(results), 20)

    def test_worker_service_killed_then_started_again(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=4)
        self.submit(self.prompts(10), "--job", "crash")
        provider.wait_running(4)
        self.worker.kill()
        provider.release()  # the workers finish their calls and hand the answers over, then leave
        self.broker.wait_line(r"event=lane_(lost|closed)", count=2)
        self.start_worker()
        self.wait_queue(completed=10)
        self.assertEqual(set(provider.counts().values()), {1})

    def test_everything_killed(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=4)
        self.submit(self.prompts(10), "--job", "crash")
        provider.wait_running(4)
        self.broker.kill()
        self.worker.kill_group()
        provider.release()
        self.start_broker()
        self.assertEqual(self.status()["queue"]["submitted"], 10)
        self.start_worker()
        self.wait_queue(completed=10)
        self.assertEqual(sorted(provider.counts().values()), [1] * 6 + [2] * 4)

    def test_worker_before_broker(self):
        provider = Provider(self)
        self.configure(self.provider(provider.url))
        self.worker = self.start("sluice-worker", "--config", self.config)
        self.start_broker()
        self.worker.wait_line(r"event=broker_found", count=2)
        self.assertEqual(len(self.submit_wait(self.prompts(3))), 3)


class Refused(SluiceCase):
    def test_no_broker(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        for tool, *args in (("sluice-submit", self.prompts(1)), ("sluice-status",),
                            ("sluice-ctl", "jobs")):
            with self.subTest(tool):
                done = self.tool(tool, *args)
                self.assertEqual(done.returncode, 4, done.stderr)
                self.assert_one_line_error(done, str(self.socket), "start sluice-broker|--start")

    def test_stale_socket_is_replaced(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        self.start_broker()
        self.broker.kill()
        self.assertTrue(self.socket.exists())
        self.start_broker()
        self.assertEqual(self.status()["broker"]["pid"], self.broker.pid)

    def test_second_broker_is_refused_naming_the_first(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        first = self.start_broker()
        other = self.dir / "other.conf"
        other.write_text(self.config.read_text().replace(str(self.socket), str(self.dir / "o.sock")))
        for config in (self.config, other):
            with self.subTest(config.name):
                second = self.start("sluice-broker", "--config", config)
                self.assertEqual(second.wait(), 5)
                self.assertRegex(second.log(), rf"\b{first.pid}\b")
        self.assertEqual(self.status()["broker"]["pid"], first.pid)

    def test_socket_without_permission(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        self.start_broker()
        self.socket.chmod(0o600 if os.getuid() == 0 else 0)
        self.config.chmod(0o644)
        options = {"user": NOBODY} if os.getuid() == 0 else {}
        try:
            done = self.tool("sluice-status", "--json", **options)
        except (PermissionError, subprocess.SubprocessError) as reason:
            raise unittest.SkipTest(f"skipped: cannot run {BIN} as another user: {reason}")
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assert_one_line_error(done, "[Pp]ermission|not allowed")

    def test_queue_disabled(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"), llm_queue_enabled=False)
        for name in ("sluice-broker", "sluice-worker"):
            with self.subTest(name):
                program = self.start(name, "--config", self.config)
                self.assertEqual(program.wait(), 0)
                self.assertIn("event=disabled", program.log())


if __name__ == "__main__":
    main()
