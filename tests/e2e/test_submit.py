#!/usr/bin/env python3
"""sluice-submit and its neighbours where something comes in between: side files, a broker that goes
away, duplicates in a pipe, a terminal."""

import json
import os
import pty
import resource
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
from support import (BIN, DEADLINE_S, SLOW, SluiceCase, batch_line, main,  # noqa: E402
                     read_results, write_lines)
from provider import Provider  # noqa: E402


class SideFile(SluiceCase):
    """Without --job the same command goes on with the same job."""

    def setUp(self):
        super().setUp()
        self.answers = Provider(self)
        self.start_pair(self.answers.url, llm_queue_concurrency=2)
        self.path = self.prompts(20)
        self.output = self.dir / "out.jsonl"
        self.side = self.dir / "out.jsonl.sluice-job"
        self.command = (self.path, "--wait", "--output", self.output)

    def interrupt(self, number):
        self.answers.hold()
        submit = self.start("sluice-submit", "--config", self.config, *self.command)
        job = submit.wait_line(r"^job (.+)$").group(1)
        self.answers.wait_running(2)
        submit.signal(number)
        status = submit.wait()
        self.answers.release()
        return job, status, submit.log()

    def test_after_an_interrupt(self):
        job, status, log = self.interrupt(signal.SIGINT)
        self.assertEqual(status, 130)
        self.assertIn(f"job {job} go on", log)
        self.assertIn(f"job {job}\n", self.side.read_text())
        done = self.submit(*self.command)
        self.assertIn(f"job {job}\n", done.stderr)
        self.assertEqual(len(read_results(self.output.read_text())), 20)
        self.assertEqual(set(self.answers.counts().values()), {1})
        self.assertFalse(self.side.exists())
        self.assertEqual(len(self.status()["jobs"]), 1)

    def test_after_a_kill(self):
        job, _, _ = self.interrupt(signal.SIGKILL)
        self.assertIn(f"job {job}\n", self.submit(*self.command).stderr)
        self.assertEqual(len(read_results(self.output.read_text())), 20)
        self.assertEqual(set(self.answers.counts().values()), {1})

    def test_another_input_is_another_job(self):
        job, _, _ = self.interrupt(signal.SIGKILL)
        other = self.prompts(3, "other", "other.jsonl")
        done = self.submit(other, "--wait", "--output", self.output)
        self.assertNotIn(f"job {job}\n", done.stderr)
        self.assertEqual(len(read_results(self.output.read_text())), 3)

    def test_complete_runs_are_jobs_of_their_own(self):
        jobs = {self.submit(*self.command).stderr for _ in range(2)}
        self.assertEqual(len(jobs), 2)


class Between(SluiceCase):
    def test_broker_restarted_while_waiting(self):
        provider = Provider(self)
        self.start_pair(provider.url, llm_queue_concurrency=4)
        provider.hold()
        submit = self.start("sluice-submit", "--config", self.config, self.prompts(12), "--job",
                            "r", "--wait", "--output", self.dir / "out.jsonl")
        provider.wait_running(4)
        self.broker.kill()
        submit.wait_line("the broker has gone away")
        provider.release()
        self.start_broker()
        self.assertEqual(submit.wait(), 0, submit.log())
        self.assertEqual(len(read_results((self.dir / "out.jsonl").read_text())), 12)
        self.assertEqual(submit.log().count("gone away"), 1)

    def test_duplicates_in_a_pipe(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        text = "\n".join(batch_line(name, name) for name in ("a", "b", "a"))
        done = self.tool("sluice-submit", "-", "--dry-run", input=text)
        self.assertEqual(done.returncode, 3)
        self.assert_one_line_error(done, r"^-:3:1: .*\ba\b.*twice")

    def test_duplicate_names_both_lines(self):
        self.start_pair(Provider(self).url)
        path = write_lines(self.dir / "in.jsonl", ["", '{"prompt":"x","model":"stub-model"}',
                                                   '{"prompt":"y","id":"2","model":"stub-model"}'])
        done = self.submit(path, "--job", "d", status=3)
        self.assert_one_line_error(done, r"in\.jsonl:3:1: .*first in line 2", r"\b1 tasks")

    def test_the_output_may_not_be_the_input(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        path = self.prompts(2)
        text = path.read_text()
        done = self.tool("sluice-submit", path, "--wait", "--output", path)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(path.read_text(), text)

    def test_output_needs_wait(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        for args in (["--output", "x"], ["--ordered"]):
            self.assertEqual(self.tool("sluice-submit", "x", *args).returncode, 2)

    def test_queue_disabled(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"), llm_queue_enabled=False)
        done = self.tool("sluice-submit", self.prompts(1))
        self.assertEqual(done.returncode, 4)
        self.assert_one_line_error(done, "llm_queue_enabled", "--start")

    def test_start_that_fails_points_to_the_log(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        self.state_dir.mkdir()
        (self.state_dir / "broker.log").mkdir()
        done = self.tool("sluice-submit", self.prompts(1), "--start")
        self.assertIn(done.returncode, (4, 5))
        self.assert_one_line_error(done, "broker.log")

    def test_results_of_a_wrong_job_empty_no_file(self):
        self.start_pair(Provider(self).url)
        output = self.dir / "kept"
        output.write_text("kept")
        self.ctl("results", "nobody", "--output", output, status=1)
        self.assertEqual(output.read_text(), "kept")

    def test_json_of_jobs_and_tasks(self):
        self.start_pair(Provider(self).url)
        task = self.submit_wait(self.prompts(2), "--job", "j")["q-0"]["id"]
        job = json.loads(self.ctl("jobs", "--json").stdout)["jobs"][0]
        self.assertEqual((job["name"], job["total"], job["completed"]), ("j", 2, 2))
        shown = json.loads(self.ctl("show", task, "--json").stdout)
        self.assertEqual((shown["id"], shown["state"]), (task, "completed"))

    def test_memory_does_not_depend_on_the_length_of_the_file(self):
        """100 MB of input in 32 MiB of memory, half of it the table of ids."""
        if SLOW != 1:
            self.skipTest("a sanitizer needs memory of its own")
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        path = self.dir / "long.jsonl"
        line = json.dumps({"prompt": "x" * 1000, "model": "stub-model"}) + "\n"
        with path.open("w") as file:
            for _ in range(100000):
                file.write(line)
        for limit, status in ((32 << 20, 0), (8 << 20, 5)):
            done = self.tool("sluice-submit", path, "--dry-run", preexec_fn=lambda: (
                resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))))
            self.assertEqual(done.returncode, status, done.stderr)


class Terminal(SluiceCase):
    def run_on_terminal(self, *command, keys=b"", until=None):
        """Runs a tool with a terminal for everything; returns (exit status, what it showed)."""
        master, slave = pty.openpty()
        with subprocess.Popen([str(word) for word in command], env=self.env, cwd=self.dir,
                              stdin=slave, stdout=slave, stderr=slave,
                              start_new_session=True) as process:
            os.close(slave)
            shown = b""
            try:
                while True:
                    part = os.read(master, 4096)
                    shown += part
                    if keys and until in shown:
                        os.write(master, keys)
                        keys = b""
            except OSError:  # the end of a terminal
                pass
            status = process.wait(DEADLINE_S)
        os.close(master)
        return status, shown.decode()

    def test_watch_leaves_with_q(self):
        self.start_pair(Provider(self).url)
        self.submit_wait(self.prompts(1), "--job", "seen")
        status, shown = self.run_on_terminal(BIN / "sluice-status", "--config", self.config,
                                             "--watch", keys=b"q", until=b"seen")
        self.assertEqual(status, 0)
        self.assertIn("running", shown)

    def test_watch_without_a_broker(self):
        self.configure(self.provider("http://127.0.0.1:9/v1"))
        status, _ = self.run_on_terminal(BIN / "sluice-status", "--config", self.config, "--watch",
                                         keys=b"q", until=b"no broker answers")
        self.assertEqual(status, 0)

    def test_progress(self):
        self.start_pair(Provider(self).url)
        status, shown = self.run_on_terminal(
            BIN / "sluice-submit", "--config", self.config, self.prompts(30), "--job", "p",
            "--wait", "--output", "out.jsonl")
        self.assertEqual(status, 0)
        self.assertRegex(shown, r"answers \[#+\] 30/30 .* 0 failed .* 240 tokens")

    def test_no_progress_without_a_terminal_unless_asked(self):
        self.start_pair(Provider(self).url)
        for when, has_bar in (("auto", False), ("never", False), ("always", True)):
            done = self.submit(self.prompts(3), "--job", "p", "--wait", "--progress", when)
            self.assertEqual("answers [" in done.stderr, has_bar, when)


if __name__ == "__main__":
    main()
