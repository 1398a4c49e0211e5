#!/usr/bin/env python3
"""sluice-ctl, --start, the metrics port, and what the programs say about a configuration."""

import json
import os
import sys
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
from support import (SluiceCase, free_port, main, read_results, wait_pid_gone,  # noqa: E402
                     write_lines)
from provider import Provider, error, ok  # noqa: E402


class Ctl(SluiceCase):
    def test_results_follow_ends_when_all_have_ended(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=2)
        self.submit(self.prompts(10), "--job", "follow")
        output = self.dir / "followed.jsonl"
        follower = self.start("sluice-ctl", "--config", self.config, "results", "follow",
                              "--follow", "--output", output)
        provider.wait_running(2)
        self.assertEqual(read_results(self.ctl("results", "follow").stdout), {})
        self.assertIsNone(follower.popen.poll())
        provider.release()
        self.assertEqual(follower.wait(), 0)
        self.assertEqual(len(read_results(output.read_text())), 10)

    def test_results_ordered(self):
        self.start_pair(self.start_stub("--jitter-ms=10"))
        self.submit_wait(self.prompts(50), "--job", "order")
        lines = self.ctl("results", "order", "--ordered").stdout.splitlines()
        self.assertEqual([json.loads(line)["custom_id"] for line in lines],
                         [f"q-{i}" for i in range(50)])

    def test_cancel_a_job(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=2)
        self.submit(self.prompts(10), "--job", "cancelled")
        provider.wait_running(2)
        self.ctl("cancel", "cancelled")
        provider.release()
        status = self.wait_status("all cancelled", lambda s: s["queue"]["inflight"] == 0 and
                                  s["queue"]["ready"] == 0)
        self.assertGreaterEqual(status["queue"]["cancelled"], 8)
        self.assert_adds_up(status)
        results = read_results(self.ctl("results", "cancelled").stdout)
        self.assertEqual(len(results), 10)
        codes = {r["error"]["code"] for r in results.values() if r["error"]}
        self.assertEqual(codes, {"cancelled"})
        self.assertLessEqual(len(provider.calls), 2)

    def test_cancel_a_task(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=1)
        self.submit(self.prompts(1, "first", "first.jsonl"), "--job", "one")
        provider.wait_running(1)
        self.submit(self.prompts(1, "second", "second.jsonl"), "--job", "two")
        provider.release()
        self.wait_queue(completed=2)
        task = read_results(self.ctl("results", "two").stdout)["second-0"]["id"]
        done = self.ctl("cancel", task)  # too late: its state does not change
        self.assertEqual(done.returncode, 0)
        self.assertEqual(self.status()["queue"]["cancelled"], 0)

    def test_show_jobs_and_purge(self):
        self.start_pair(Provider(self).url)
        task = self.submit_wait(self.prompts(3), "--job", "kept")["q-1"]["id"]
        shown = self.ctl("show", task).stdout
        for word in ("completed", "q-1", "kept"):
            self.assertIn(word, shown)
        self.assertIn("kept", self.ctl("jobs").stdout)
        self.ctl("purge", "kept")
        self.assertNotIn("kept", self.ctl("jobs").stdout)
        self.assertEqual(self.ctl("results", "kept", status=1).stdout, "")
        self.assert_adds_up(self.status())

    def test_unfinished_jobs_are_not_purged(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url)
        self.submit(self.prompts(3), "--job", "busy")
        provider.wait_running(3)
        done = self.tool("sluice-ctl", "purge", "busy")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("busy", self.ctl("jobs").stdout)
        provider.release()
        self.wait_queue(completed=3)

    def test_what_is_not_there(self):
        self.start_pair(Provider(self).url)
        for args in (["results", "nobody"], ["cancel", "nobody"], ["show", "task_0123456789abcdef"],
                     ["purge", "nobody"]):
            with self.subTest(args):
                done = self.ctl(*args, status=1)
                self.assert_one_line_error(done, r"no such|not found|nobody|task_0123456789abcdef")

    def test_bad_usage(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        for args in ([], ["fly"], ["results"], ["results", "a", "b"]):
            with self.subTest(args):
                self.ctl(*args, status=2)

    def test_failed_task_shows_why(self):
        self.start_pair(Provider(self, lambda call: error(400)).url)
        task = self.submit_wait(self.prompts(1), "--job", "f", status=1)["q-0"]["id"]
        self.assertIn("request_rejected", self.ctl("show", task).stdout)


class Start(SluiceCase):
    def test_private_pair_serves_and_leaves_when_idle(self):
        provider = Provider(self)
        self.configure(self.provider(provider.url), idle_exit_s=3.0)
        results = self.submit_wait(self.prompts(5), "--start", "--job", "private")
        self.assertEqual(len(results), 5)
        status = self.status()
        pids = [status["broker"]["pid"]] + [worker["pid"] for worker in status["workers"]]
        self.assertEqual(len(pids), 3)
        for pid in pids:
            wait_pid_gone(pid)
        self.assertFalse(self.socket.exists())
        again = self.submit_wait(self.prompts(5), "--start", "--job", "private")
        self.assertEqual(again, results)
        self.assertEqual(set(provider.counts().values()), {1})
        wait_pid_gone(self.status()["broker"]["pid"])

    def test_start_uses_the_broker_that_is_there(self):
        self.start_pair(Provider(self).url)
        self.submit_wait(self.prompts(2), "--start")
        self.assertEqual(self.status()["broker"]["pid"], self.broker.pid)

    def test_no_configuration_file_at_all(self):
        """With nothing but a key in the environment the tools have a working configuration."""
        self.env["OPENAI_API_KEY"] = "test-key-of-nobody"
        path = write_lines(self.dir / "p.jsonl", ['{"prompt":"x","model":"gpt-x"}'])
        done = self.tool("sluice-submit", path, "--dry-run", config=None)
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.tool("sluice-status", config=None)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn(str(self.dir / "run" / "sluice.sock"), done.stderr)


class Http(SluiceCase):
    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.held = Provider(self, lambda call: error(400) if call.content == "q-1" else ok)
        self.start_pair(self.held.url, http={"listen": f"127.0.0.1:{self.port}"})

    def metrics(self):
        status, text = self.get("/metrics")
        self.assertEqual(status, 200)
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
                for line in text.splitlines() if line and not line.startswith("#")}

    def test_metrics(self):
        self.submit(self.prompts(3), "--wait", status=1)
        values = self.metrics()
        self.assertEqual(values["llm_queue_submitted_total"], 3)
        self.assertEqual(values["llm_queue_inflight"], 0)
        self.assertEqual(values["llm_queue_ready"], 0)
        self.assertEqual(values['llm_queue_completed_total{outcome="completed"}'], 2)
        self.assertEqual(values['llm_queue_completed_total{outcome="failed"}'], 1)

    def test_health_and_readiness(self):
        self.assertEqual(self.get("/healthz")[0], 200)
        self.assertEqual(self.get("/readyz")[0], 200)
        self.assertEqual(self.get("/nothing")[0], 404)
        self.held.hold()
        self.submit(self.prompts(1))
        self.held.wait_running(1)
        self.broker.signal(15)
        self.broker.wait_line("event=drain")
        self.assertEqual(self.get("/readyz")[0], 503)
        self.assertEqual(self.get("/healthz")[0], 200)
        self.held.release()
        self.assertEqual(self.broker.wait(), 0)


class Configuration(SluiceCase):
    def check(self, text):
        self.config.write_text(text)
        return self.tool("sluice-broker", "--check-config")

    def test_check_config(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        done = self.tool("sluice-broker", "--check-config")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(self.state_dir.exists())

    def test_faults_name_file_and_line(self):
        faults = {"unknown key": "llm_queue_enabled = true;\nllm_queue_concurency = 3;\n",
                  "wrong type": 'llm_queue_enabled = true;\nllm_queue_concurrency = "3";\n',
                  "out of range": "llm_queue_enabled = true;\nllm_queue_concurrency = 0;\n",
                  "syntax": "llm_queue_enabled = true;\nllm_queue_concurrency = ;\n",
                  "key in the file": 'llm_queue_enabled = true;\nproviders = ( { name = "a"; '
                                     'base_url = "http://127.0.0.1:1/v1"; api_key = "k"; } );\n'}
        for name, text in faults.items():
            with self.subTest(name):
                done = self.check(text)
                self.assertEqual(done.returncode, 3, done.stderr)
                self.assertRegex(done.stderr, r"sluice\.conf:2: ")

    def test_example_configuration(self):
        example = os.path.join(os.path.dirname(__file__), "..", "..", "conf", "sluice.conf")
        done = self.tool("sluice-broker", "--config", os.path.abspath(example), "--check-config")
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    main()
