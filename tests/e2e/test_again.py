#!/usr/bin/env python3
"""The same command again is the way on after anything that happens to the client's side."""

import signal
import socket
import sys

sys.dont_write_bytecode = True
from support import SluiceCase, batch_line, main, read_results, write_lines  # noqa: E402
from provider import Provider  # noqa: E402


class Again(SluiceCase):
    def test_same_job_twice_makes_no_second_call(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        path = self.prompts(20)
        first = self.submit_wait(path, "--job", "same")
        second = self.submit_wait(path, "--job", "same")
        self.assertEqual(len(first), 20)
        self.assertEqual(first, second)
        self.assertEqual(len(provider.calls), 20)
        self.assertEqual(self.status()["queue"]["submitted"], 20)

    def test_same_id_with_another_body_is_a_conflict(self):
        self.start_pair(Provider(self).url)
        self.submit_wait(self.prompts(3), "--job", "same")
        other = write_lines(self.dir / "other.jsonl", [batch_line("q-0", "q-0"),
                                                      batch_line("q-1", "something else")])
        done = self.submit(other, "--job", "same", status=3)
        self.assert_one_line_error(done, r"other\.jsonl:2:\d+: ", "another body")
        self.assertEqual(self.status()["queue"]["submitted"], 3)

    def test_same_id_in_another_job_is_another_task(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        self.submit_wait(self.prompts(1), "--job", "one")
        self.submit_wait(self.prompts(1), "--job", "two")
        self.assertEqual(self.status()["queue"]["submitted"], 2)

    def test_submit_killed_in_the_middle(self):
        provider = Provider(self)
        self.start_pair(provider.url, llm_queue_concurrency=8)
        path = self.prompts(200)
        provider.hold()
        output = self.dir / "answers.jsonl"
        submit = self.start("sluice-submit", "--config", self.config, path, "--job", "killed",
                            "--wait", "--output", output)
        provider.wait_running(8)
        submit.kill()
        provider.release()
        self.submit(path, "--job", "killed", "--wait", "--output", output)
        self.assertEqual(len(read_results(output.read_text())), 200)
        self.assertEqual(set(provider.counts().values()), {1})
        self.assertEqual(self.status()["queue"]["submitted"], 200)

    def test_interrupted_submit_says_so_and_tasks_go_on(self):
        provider = Provider(self)
        self.start_pair(provider.url, llm_queue_concurrency=4)
        provider.hold()
        submit = self.start("sluice-submit", "--config", self.config, self.prompts(8), "--job",
                            "interrupted", "--wait")
        provider.wait_running(4)
        submit.signal(signal.SIGINT)
        self.assertEqual(submit.wait(), 130)
        provider.release()
        self.wait_queue(completed=8)

    def test_client_gone_costs_nothing(self):
        provider = Provider(self)
        self.start_pair(provider.url, llm_queue_concurrency=2)
        provider.hold()
        self.submit(self.prompts(10), "--job", "gone")
        watcher = self.start("sluice-ctl", "--config", self.config, "results", "gone", "--follow")
        provider.wait_running(2)
        watcher.kill()
        with socket.socket(socket.AF_UNIX) as nobody:
            nobody.connect(str(self.socket))
        provider.release()
        self.wait_queue(completed=10)
        self.assertEqual(len(read_results(self.ctl("results", "gone").stdout)), 10)

    def test_output_that_cannot_be_written(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        path = self.prompts(5)
        nowhere = self.dir / "missing" / "answers.jsonl"
        done = self.submit(path, "--job", "out", "--wait", "--output", nowhere, status=5)
        self.assert_one_line_error(done, r"missing/answers\.jsonl")
        nowhere.parent.mkdir()
        self.submit(path, "--job", "out", "--wait", "--output", nowhere)
        self.assertEqual(len(read_results(nowhere.read_text())), 5)
        self.assertEqual(set(provider.counts().values()), {1})

    def test_output_to_a_full_device(self):
        provider = Provider(self)
        self.start_pair(provider.url)
        done = self.submit(self.prompts(50), "--job", "full", "--wait", "--output", "/dev/full",
                           status=5)
        self.assert_one_line_error(done, r"/dev/full")
        self.wait_queue(completed=50)
        self.assertEqual(len(read_results(self.ctl("results", "full").stdout)), 50)


if __name__ == "__main__":
    main()
