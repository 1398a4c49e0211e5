#!/usr/bin/env python3
"""What a task asks for is kept: its time, its deadline, its priority, its owner."""

import datetime
import os
import sys
import time
import unittest

sys.dont_write_bytecode = True
from support import SluiceCase, batch_line, main, write_lines  # noqa: E402
from provider import Provider  # noqa: E402

NOBODY = 65534


def in_seconds(seconds):
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Time(SluiceCase):
    def test_not_before(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        due = time.monotonic() + 1.0
        self.submit(self.prompts(1, not_before=in_seconds(1.0)), "--job", "later")
        self.assertEqual(self.status()["queue"]["delayed"], 1)
        provider.wait_calls(1)
        early_s = due - time.monotonic()
        self.assertLess(early_s, 0.05, "called before its time")
        self.wait_queue(completed=1)

    def test_not_before_survives_a_restart(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        self.submit(self.prompts(1, not_before=in_seconds(1.0)), "--job", "later")
        self.broker.terminate()
        self.start_broker()
        self.wait_queue(completed=1)
        self.assertEqual(len(provider.calls), 1)

    def test_deadline_that_has_passed(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        results = self.submit_wait(self.prompts(1, deadline=in_seconds(-5)), status=1)
        self.assertEqual(results["q-0"]["sluice"]["state"], "expired")
        self.assertEqual(results["q-0"]["error"]["code"], "expired")
        self.assertEqual(provider.calls, [])

    def test_deadline_while_it_waits(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=1)
        self.submit(self.prompts(1, "first", "first.jsonl"), "--job", "first")
        provider.wait_running(1)
        passed = time.time() + 0.3
        self.submit(self.prompts(1, "second", "second.jsonl", deadline=in_seconds(0.3)),
                    "--job", "second")
        self.wait_status("the deadline", lambda status: time.time() > passed)
        provider.release()
        self.assert_adds_up(self.wait_queue(ready=0, inflight=0))
        self.assertEqual(provider.counts(), {"first-0": 1})
        self.assertEqual(self.status()["queue"]["expired"], 1)


class Priority(SluiceCase):
    def test_higher_first_among_what_waits(self):
        provider = Provider(self)
        provider.hold()
        self.start_pair(provider.url, llm_queue_concurrency=1)
        lines = [batch_line(f"p{i % 10}-{i}", f"p{i % 10}", priority=i % 10) for i in range(6000)]
        self.submit(write_lines(self.dir / "mixed.jsonl", lines), "--job", "mixed")
        provider.wait_running(1)
        provider.release()
        provider.wait_calls(3000)
        # What is handed out ahead of its turn is bounded; behind it the order is by priority.
        late = [call.content for call in provider.calls[2500:3000]]
        self.assertGreater(sum(content >= "p5" for content in late), 450, late[:20])


@unittest.skipUnless(os.getuid() == 0, "skipped: needs root to become another user")
class Owner(SluiceCase):
    def test_a_job_belongs_to_the_user_who_submitted_it(self):
        self.start_pair(Provider(self).url)
        self.socket.chmod(0o666)
        path = self.prompts(2)
        self.submit_wait(path, "--job", "roots")
        own = self.tool("sluice-submit", path, "--job", "nobodys", "--wait", user=NOBODY)
        self.assertEqual(own.returncode, 0, own.stderr)
        for args in (["results", "roots"], ["cancel", "roots"], ["purge", "roots"]):
            with self.subTest(args):
                done = self.tool("sluice-ctl", *args, user=NOBODY)
                self.assertIn(done.returncode, (1, 4), done.stdout)
                self.assertEqual(done.stdout, "")
        self.assertNotIn("roots", self.tool("sluice-ctl", "jobs", user=NOBODY).stdout)
        self.assertIn("nobodys", self.ctl("jobs").stdout)  # root sees all
        drain = self.tool("sluice-ctl", "drain", user=NOBODY)
        self.assertEqual(drain.returncode, 4, drain.stderr)
        self.assertEqual(self.status()["broker"]["state"], "running")


if __name__ == "__main__":
    main()
