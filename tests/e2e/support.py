"""What the end-to-end tests share: the programs under test as processes with their logs, a temporary
home for each test, and reading what they say.

Nothing here sleeps: a test waits for a line of a log, for the end of a process, for a call to reach
the provider, or asks the status tool again, always with a deadline. All processes of a test run in
groups of their own and are killed at its end, by the numbers of the groups that it started."""

import ctypes
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("SLUICE_BIN", ROOT / "build" / "bin"))
DATA = pathlib.Path(os.environ.get("SLUICE_TEST_DATA", ROOT.parent / "shared" / "data"))
# Sanitized builds are slower; every deadline is multiplied by this.
SLOW = float(os.environ.get("SLUICE_E2E_SLOW", "1"))
DEADLINE_S = 20.0 * SLOW
KEY = "canary-key-5f0e8c41d2"  # the API key; must appear nowhere but in requests
MODEL = "stub-model"


def deadline(seconds=None):
    return time.monotonic() + (DEADLINE_S if seconds is None else seconds * SLOW)


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def free_port():
    """A port nobody uses now, for the one setting that wants a number."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def libconfig(value):
    """A value in libconfig's syntax."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + " ".join(f"{k} = {libconfig(v)};" for k, v in value.items()) + " }"
    if isinstance(value, tuple):
        return "( " + ", ".join(libconfig(item) for item in value) + " )"
    if isinstance(value, list):
        return "[ " + ", ".join(libconfig(item) for item in value) + " ]"
    return json.dumps(value)


def chat_body(content, model=MODEL, **more):
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


def batch_line(custom_id, content, model=MODEL, **sluice):
    """One line of OpenAI's batch format."""
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions",
            "body": chat_body(content, model)}
    if sluice:
        line["sluice"] = sluice
    return json.dumps(line)


def write_lines(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def read_results(text):
    """The results by id; twice the same id is an error."""
    results = {}
    for line in text.splitlines():
        result = json.loads(line)
        assert result["custom_id"] not in results, f"two results for {result['custom_id']}"
        results[result["custom_id"]] = result
    return results


def content_of(result):
    return result["response"]["body"]["choices"][0]["message"]["content"]


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """A program under test in a process group of its own; what it prints is read line by line."""

    def __init__(self, name, command, env, cwd, pass_fds=()):
        self.name = name
        self.lines = []
        self.changed = threading.Condition()
        self.popen = subprocess.Popen(
            [str(word) for word in command], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            pass_fds=pass_fds, preexec_fn=_die_with_parent)
        self.pid = self.popen.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.popen.stdout:
            with self.changed:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.lines.append("(end of log)")
            self.changed.notify_all()

    def log(self):
        with self.changed:
            return "\n".join(self.lines)

    def mark(self):
        """A place in the log, for wait_line."""
        with self.changed:
            return len(self.lines)

    def wait_line(self, pattern, count=1, after=0, seconds=None):
        """Waits until `count` lines behind `after` match; returns the match of the last."""
        found = []
        until = deadline(seconds)
        with self.changed:
            seen = after
            while True:
                for line in self.lines[seen:]:
                    match = re.search(pattern, line)
                    if match:
                        found.append(match)
                    if len(found) == count:
                        return found[-1]
                    if line == "(end of log)":
                        raise AssertionError(f"{self.name} ended without a line {pattern!r}")
                seen = len(self.lines)
                if not self.changed.wait(max(0.0, until - time.monotonic())):
                    if time.monotonic() >= until:
                        raise AssertionError(f"{self.name}: no line {pattern!r} in time")

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self, seconds=None):
        """Waits for the end; returns the exit status (negative: the signal)."""
        try:
            status = self.popen.wait(max(0.0, deadline(seconds) - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end in time") from None
        self.reader.join(DEADLINE_S)
        return status

    def terminate(self, seconds=None):
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self):
        """SIGKILL to the program alone: its children, and the log with them, go on."""
        self.signal(signal.SIGKILL)
        return self.popen.wait(DEADLINE_S)

    def kill_group(self):
        """SIGKILL to the program and all its children at once."""
        os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    def sweep(self):
        """Ends whatever is left of the group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()
        self.reader.join(5)
        self.popen.stdout.close()


class SluiceCase(unittest.TestCase):
    """A test with a directory, a configuration and processes of its own."""

    maxDiff = 2000

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
        self.dir.chmod(0o755)
        self.state_dir = self.dir / "state"
        self.socket = self.dir / "s.sock"
        self.config = self.dir / "sluice.conf"
        self.processes = []
        self.broker = None
        self.worker = None
        self.env = {
            **{k: v for k, v in os.environ.items()
               if not k.startswith("SLUICE_") and not k.endswith("_API_KEY")},
            "HOME": str(self.dir), "XDG_RUNTIME_DIR": str(self.dir / "run"),
            "XDG_STATE_HOME": str(self.dir / "xdg-state"), "SLUICE_TEST_KEY": KEY,
        }
        (self.dir / "run").mkdir(mode=0o700)

    def tearDown(self):
        logs = []
        for process in self.processes:
            process.sweep()
            logs.append((process.name, process.log()))
        faults = [f"{name}: {line}" for name, log in logs for line in log.splitlines()
                  if "Sanitizer" in line or "runtime error:" in line or "assertion" in line]
        outcome = self._outcome.result
        if any(test is self for test, _ in outcome.failures + outcome.errors) or faults:
            for name, log in logs:
                print(f"---- log of {name}\n{log[-20000:]}", file=sys.stderr)
        shutil.rmtree(self.dir, ignore_errors=True)
        self.assertEqual(faults, [])

    # ---- configuration and processes

    def provider(self, url, **more):
        return {"name": "stub", "kind": "openai", "base_url": url,
                "api_key_env": "SLUICE_TEST_KEY", "models": ["stub-*"], "concurrency": 64,
                "retry": {"max_attempts": 4, "base_ms": 1, "max_ms": 20}, **more}

    def configure(self, *providers, **settings):
        values = {"llm_queue_enabled": True, "llm_queue_concurrency": 64,
                  "state_dir": str(self.state_dir), "socket": str(self.socket),
                  "log_level": "info", "drain_timeout_s": 20.0, "worker": {"processes": 2},
                  "http": {"listen": ""}, **settings, "providers": providers}
        self.config.write_text("".join(f"{k} = {libconfig(v)};\n" for k, v in values.items()))

    def start(self, name, *args):
        process = Process(name, [BIN / name, *args], self.env, self.dir)
        self.processes.append(process)
        return process

    def start_stub(self, *args):
        """Starts sluice-stub; returns its base_url."""
        self.stub = self.start("sluice-stub", *args)
        return f"http://{self.stub.wait_line('^listening on (.*)$').group(1)}/v1"

    def start_broker(self):
        self.broker = self.start("sluice-broker", "--config", self.config)
        self.broker.wait_line(r"event=ready")
        return self.broker

    def start_worker(self, count=2):
        self.worker = self.start("sluice-worker", "--config", self.config)
        self.worker.wait_line(r"event=broker_found", count=count)
        return self.worker

    def start_pair(self, url, provider=None, **settings):
        """A broker and a worker service with one provider at `url`."""
        self.configure(self.provider(url, **(provider or {})), **settings)
        self.start_broker()
        self.start_worker(settings.get("worker", {"processes": 2})["processes"])

    # ---- tools

    def tool(self, name, *args, config=True, seconds=60, **options):
        """Runs a tool to its end; with this test's configuration unless `config` is None."""
        command = [BIN / name, *(["--config", self.config] if config else []), *args]
        return subprocess.run([str(word) for word in command], cwd=self.dir, env=self.env,
                              text=True, capture_output=True, timeout=seconds * SLOW, **options)

    def submit(self, *args, status=0, **options):
        """Runs sluice-submit and checks its exit status."""
        done = self.tool("sluice-submit", *args, **options)
        self.assertEqual(done.returncode, status, done.stderr + done.stdout[-2000:])
        return done

    def submit_wait(self, path, *args, status=0, **options):
        """Submits a file, waits, and returns the results by id."""
        done = self.submit(path, "--wait", *args, status=status, **options)
        return read_results(done.stdout)

    def ctl(self, *args, status=0, **options):
        done = self.tool("sluice-ctl", *args, **options)
        self.assertEqual(done.returncode, status, done.stderr)
        return done

    def status(self):
        done = self.tool("sluice-status", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def wait_status(self, what, is_so, seconds=None):
        """Asks the status tool until `is_so(status)`; returns that status."""
        until = deadline(seconds)
        while True:
            status = self.status()
            if is_so(status):
                return status
            if time.monotonic() > until:
                raise AssertionError(f"not in time: {what}; status is {json.dumps(status)}")

    def wait_queue(self, seconds=None, **values):
        """Waits until the named members of the queue's status have these values."""
        return self.wait_status(
            f"queue {values}",
            lambda status: all(status["queue"][k] == v for k, v in values.items()), seconds)

    def assert_adds_up(self, status):
        queue = status["queue"]
        parts = ("blocked", "ready", "delayed", "inflight", "completed", "failed", "cancelled",
                 "expired")
        self.assertEqual(queue["submitted"], sum(queue[part] for part in parts), queue)

    def prompts(self, count, prefix="q", path="prompts.jsonl", **sluice):
        """A file of `count` prompts; the content of each is its id."""
        return write_lines(self.dir / path,
                           (batch_line(f"{prefix}-{i}", f"{prefix}-{i}", **sluice)
                            for i in range(count)))

    def assert_one_line_error(self, done, *patterns):
        """The error is one line for a person that says all of `patterns`; "job NAME" may stand
        before it."""
        lines = [line for line in done.stderr.splitlines() if not re.fullmatch(r"job \S+", line)]
        self.assertEqual(len(lines), 1, done.stderr)
        for pattern in patterns:
            self.assertRegex(lines[0], pattern)


def wait_pid_gone(pid, seconds=None):
    """Waits for the end of a process that is not our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([fd], [], [], DEADLINE_S if seconds is None else seconds * SLOW)
        if not ready:
            raise AssertionError(f"process {pid} is still there")
    finally:
        os.close(fd)


def need_data(name):
    """The path of a data set, or the test is skipped."""
    path = DATA / name
    if not path.exists():
        raise unittest.SkipTest(f"skipped: no {path} (set SLUICE_TEST_DATA)")
    return path


def main():
    unittest.main(verbosity=2)
