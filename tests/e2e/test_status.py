#!/usr/bin/env python3
"""sluice-status says what is so, at every moment."""

import sys
import threading

sys.dont_write_bytecode = True
from support import SluiceCase, main, write_lines  # noqa: E402
from provider import Provider, error, ok  # noqa: E402

QUEUE = ("concurrency blocked ready delayed inflight submitted completed failed cancelled expired "
         "retries provider_calls cache_hits coalesced stale_results input_tokens output_tokens")


class Status(SluiceCase):
    def test_adds_up_at_every_moment_under_load(self):
        self.start_pair(self.start_stub("--latency-ms=2", "--jitter-ms=5"),
                        provider={"retry": {"max_attempts": 10, "base_ms": 5, "max_ms": 50}})
        path = self.prompts(6000)
        done = []
        thread = threading.Thread(target=lambda: done.append(
            self.tool("sluice-submit", path, "--job", "load", "--wait")))
        thread.start()
        looks = between = 0
        while thread.is_alive():
            status = self.status()
            self.assert_adds_up(status)
            queue = status["queue"]
            self.assertLessEqual(queue["inflight"], queue["concurrency"])
            between += 0 < queue["completed"] < 6000
            looks += 1
        thread.join()
        self.assertEqual(done[0].returncode, 0, done[0].stderr)
        self.assertGreater(between, 3, f"{looks} looks, none in the middle: give it more work")
        self.assert_adds_up(self.status())

    def test_members_and_jobs(self):
        provider = Provider(self, lambda call: error(400) if call.content == "q-1" else ok)
        self.start_pair(provider.url)
        self.submit(self.prompts(3), "--job", "three", "--wait", status=1)
        status = self.status()
        self.assertEqual(set(QUEUE.split()) - set(status["queue"]), set())
        self.assertEqual(status["broker"]["pid"], self.broker.pid)
        self.assertEqual(status["broker"]["state"], "running")
        self.assertGreaterEqual(status["broker"]["generation"], 1)
        self.assertEqual(len(status["workers"]), 2)
        self.assertEqual(sum(worker["calls"] for worker in status["workers"]), 3)
        job = {"name": "three", "total": 3, "completed": 2, "failed": 1, "cancelled": 0,
               "expired": 0}
        self.assertEqual({k: status["jobs"][0][k] for k in job}, job)
        provider_status = status["providers"][0]
        self.assertEqual((provider_status["name"], provider_status["breaker"]), ("stub", "closed"))
        self.assertEqual(provider_status["calls"], 3)

    def test_survives_a_restart(self):
        self.start_pair(Provider(self).url)
        self.submit_wait(self.prompts(5), "--job", "five")
        before = self.status()
        self.broker.terminate()
        self.start_broker()
        after = self.status()
        for member in ("submitted", "completed", "provider_calls", "retries", "input_tokens",
                       "output_tokens"):
            self.assertEqual(before["queue"][member], after["queue"][member], member)
        self.assertEqual(after["broker"]["generation"], before["broker"]["generation"] + 1)
        self.assert_adds_up(after)

    def test_page_for_a_person(self):
        self.start_pair(Provider(self).url)
        self.submit_wait(self.prompts(2), "--job", "visible")
        page = self.tool("sluice-status")
        self.assertEqual(page.returncode, 0)
        self.assertIn("visible", page.stdout)
        self.assertIn("stub", page.stdout)
        one = self.tool("sluice-status", "--job", "visible")
        self.assertEqual(one.returncode, 0, one.stderr)
        self.assertIn("visible", one.stdout)

    def test_unknown_job(self):
        self.start_pair(Provider(self).url)
        done = self.tool("sluice-status", "--job", "nobody-has-this")
        self.assertEqual(done.returncode, 1)
        self.assert_one_line_error(done, "nobody-has-this|no such job")

    def test_in_flight_never_exceeds_the_providers_concurrency(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, provider={"concurrency": 3}, llm_queue_concurrency=10)
        path = write_lines(self.dir / "p.jsonl", self.prompts(12).read_text().splitlines())
        self.submit(path, "--job", "limited")
        provider.wait_running(3)
        status = self.wait_queue(inflight=3)
        self.assertEqual(status["providers"][0]["inflight"], 3)
        provider.release()
        self.wait_queue(completed=12)


if __name__ == "__main__":
    main()
