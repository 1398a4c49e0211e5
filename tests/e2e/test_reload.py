#!/usr/bin/env python3
"""SIGHUP: what can change without a restart changes, at once and under load; the rest is named."""

import json
import os
import random
import signal
import sys
import urllib.request

sys.dont_write_bytecode = True
from support import SluiceCase, batch_line, deadline, main, write_lines  # noqa: E402
from provider import Provider  # noqa: E402


def named(name, url, **more):
    """A provider `name` that takes the models `name`-*."""
    return {"name": name, "kind": "openai", "base_url": url, "models": [name + "-*"],
            "retry": {"max_attempts": 4, "base_ms": 1, "max_ms": 20}, **more}


def stub_stats(url):
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stub/stats", timeout=20) as reply:
        return json.load(reply)


class ReloadCase(SluiceCase):
    def start_with(self, *providers, **settings):
        self.configure(*providers, **settings)
        self.start_broker()
        self.start_worker()

    def hup(self, process, pattern=r"event=config_reloaded", count=1):
        """Sends SIGHUP and waits for what it leads to; returns the line."""
        mark = process.mark()
        process.signal(signal.SIGHUP)
        return process.wait_line(pattern, count=count, after=mark).string

    def reload(self, *providers, workers=2, **settings):
        """Another configuration for both services; returns what the broker says of it."""
        self.configure(*providers, **settings)
        line = self.hup(self.broker)
        self.hup(self.worker, count=workers)
        return line

    def tasks(self, name, count, prefix=None):
        """A file of tasks for the provider `name`."""
        prefix = prefix or name
        return write_lines(self.dir / f"{prefix}.jsonl",
                           (batch_line(f"{prefix}-{i}", f"{prefix}-{i}", model=name + "-1")
                            for i in range(count)))

    def wait_shown(self, job, idx, **values):
        """Asks for a task by the numbers of its job and itself until the named members have these
        values."""
        task = f"task_{job:08x}{idx:08x}"
        until = deadline()
        while True:
            shown = json.loads(self.ctl("show", task, "--json").stdout)
            if all(shown.get(k) == v for k, v in values.items()):
                return shown
            self.assertLess(deadline(0), until, f"not in time: {values}; {shown}")

    def provider_status(self, name):
        return next(p for p in self.status()["providers"] if p["name"] == name)


class Concurrency(ReloadCase):
    def test_raised_under_load(self):
        url = self.start_stub("--latency-ms=20")
        self.start_with(named("a", url), llm_queue_concurrency=4)
        self.submit(self.tasks("a", 3000), "--job", "load")
        self.wait_status("the first limit is reached", lambda s: s["queue"]["completed"] > 40)
        self.assertEqual(stub_stats(url)["max_in_flight"], 4)
        line = self.reload(named("a", url), llm_queue_concurrency=12)
        self.assertIn('changed="llm_queue_concurrency"', line)
        self.wait_queue(inflight=12, concurrency=12)
        self.wait_queue(completed=3000, seconds=60)
        self.assertEqual(stub_stats(url)["max_in_flight"], 12)

    def test_lowered_under_load(self):
        before = self.start_stub("--latency-ms=20")
        after = self.start_stub("--latency-ms=20")
        self.start_with(named("a", before), llm_queue_concurrency=12)
        self.submit(self.tasks("a", 1500), "--job", "load")
        self.wait_queue(inflight=12)
        # The second stub sees only calls that were made under the second limit.
        line = self.reload(named("a", after), llm_queue_concurrency=3)
        self.assertIn('changed="llm_queue_concurrency, providers.base_url"', line)
        self.wait_status("the limit is kept", lambda s: s["queue"]["inflight"] <= 3)
        for _ in range(20):
            self.assertLessEqual(self.status()["queue"]["inflight"], 3)
            self.assertLessEqual(stub_stats(before)["in_flight"], 3)
        self.reload(named("a", after), llm_queue_concurrency=3)
        self.wait_status("the limit is used", lambda s: s["queue"]["inflight"] == 3)
        self.assertEqual(stub_stats(after)["max_in_flight"], 3)
        self.assertEqual(stub_stats(before)["max_in_flight"], 12)

    def test_of_one_provider(self):
        a, b = Provider(self), Provider(self)
        a.hold()
        b.hold()
        self.start_with(named("a", a.url, concurrency=2), named("b", b.url, concurrency=2))
        self.submit(self.tasks("a", 20), "--job", "a")
        self.submit(self.tasks("b", 20), "--job", "b")
        a.wait_running(2)
        b.wait_running(2)
        line = self.reload(named("a", a.url, concurrency=5), named("b", b.url, concurrency=2))
        self.assertIn('changed="providers.concurrency"', line)
        a.wait_running(5)
        self.wait_queue(inflight=7)
        self.assertEqual(self.provider_status("a")["concurrency"], 5)
        a.release()
        b.release()
        self.wait_queue(completed=40)
        self.assertEqual((len(a.calls), len(b.calls)), (20, 20))


class Providers(ReloadCase):
    def test_added(self):
        a, b = Provider(self), Provider(self)
        self.start_with(named("a", a.url))
        refused = self.submit(self.tasks("b", 3), "--job", "b", status=3)
        self.assertIn("model", refused.stderr)
        line = self.reload(named("b", b.url), named("a", a.url))
        self.assertIn('providers=2 added="b" removed=""', line)
        self.assertEqual(len(self.submit_wait(self.tasks("b", 3), "--job", "b2")), 3)
        self.assertEqual(len(self.submit_wait(self.tasks("a", 3), "--job", "a")), 3)
        self.assertEqual((len(a.calls), len(b.calls)), (3, 3))

    def test_removed_with_tasks_waiting_and_put_back(self):
        a, b = Provider(self), Provider(self)
        a.hold()
        self.start_with(named("a", a.url), named("b", b.url), llm_queue_concurrency=4)
        self.submit(self.tasks("a", 40), "--job", "a")
        a.wait_running(4)
        line = self.reload(named("b", b.url), llm_queue_concurrency=4)
        self.assertIn('added="" removed="a"', line)
        self.wait_queue(inflight=4, ready=36)  # what runs goes on
        a.release()
        self.wait_queue(completed=4, inflight=0, ready=36)
        shown = self.wait_shown(1, 39, state="ready")
        self.assertEqual(shown["reason"], "provider not configured")
        self.assertEqual((shown["custom_id"], shown["attempts"]), ("a-39", 0))
        self.submit(self.tasks("a", 1, "new"), "--job", "new", status=3)
        self.assertEqual(len(self.submit_wait(self.tasks("b", 5), "--job", "b")), 5)
        self.assertEqual(len(a.calls), 4)
        self.reload(named("b", b.url), named("a", a.url), llm_queue_concurrency=4)
        self.wait_queue(completed=45)
        self.assertEqual(set(a.counts().values()), {1})
        self.assertEqual(self.status()["queue"]["retries"], 0)

    def test_put_back_while_its_calls_still_run(self):
        a, b = Provider(self), Provider(self)
        a.hold()
        self.start_with(named("b", b.url), named("a", a.url, concurrency=4))
        self.submit(self.tasks("a", 30), "--job", "a")
        a.wait_running(4)
        self.reload(named("b", b.url))
        self.reload(named("a", a.url, concurrency=4), named("b", b.url))
        self.assertEqual(self.provider_status("a")["inflight"], 4)
        self.submit_wait(self.tasks("b", 10), "--job", "b")
        self.assertEqual(len(a.calls), 4)  # all places are still taken
        a.release()
        self.wait_queue(completed=40)
        self.assertEqual(self.provider_status("a")["inflight"], 0)
        self.assertEqual(set(a.counts().values()), {1})

    def test_removed_before_a_restart_of_the_broker(self):
        a, b = Provider(self), Provider(self)
        a.hold()
        self.start_with(named("a", a.url), named("b", b.url), llm_queue_concurrency=4)
        self.submit(self.tasks("a", 12), "--job", "a")
        a.wait_running(4)
        self.reload(named("b", b.url), llm_queue_concurrency=4)
        self.broker.kill()
        self.start_broker()
        self.worker.wait_line(r"event=broker_found", count=4)
        self.wait_queue(inflight=4)
        self.reload(named("a", a.url), named("b", b.url), llm_queue_concurrency=4)
        self.assertEqual(self.provider_status("a")["inflight"], 4)
        a.release()
        self.wait_queue(completed=12)
        self.assertEqual(set(a.counts().values()), {1})

    def test_base_url_changed(self):
        old, new = Provider(self), Provider(self)
        old.hold()
        self.start_with(named("a", old.url), llm_queue_concurrency=2)
        self.submit(self.tasks("a", 10), "--job", "a")
        old.wait_running(2)
        line = self.reload(named("a", new.url), llm_queue_concurrency=2)
        self.assertIn('changed="providers.base_url"', line)
        self.assertIn('added="" removed=""', line)
        old.release()
        self.wait_queue(completed=10)
        self.assertEqual((len(old.calls), len(new.calls)), (2, 8))

    def test_a_worker_that_starts_later_has_the_new_settings(self):
        old, new = Provider(self), Provider(self)
        self.start_with(named("a", old.url))
        self.submit_wait(self.tasks("a", 2, "first"), "--job", "first")
        self.reload(named("a", new.url), named("b", new.url))
        for worker in self.status()["workers"]:
            os.kill(worker["pid"], signal.SIGKILL)
        self.worker.wait_line(r"event=broker_found", count=4)
        self.submit_wait(self.tasks("a", 3, "second"), "--job", "second")
        self.submit_wait(self.tasks("b", 3), "--job", "b")
        self.assertEqual((len(old.calls), len(new.calls)), (2, 6))

    def test_order_decides_who_takes_a_model_from_now_on(self):
        a, b = Provider(self), Provider(self)
        one = named("one", a.url, models=["m-*"])
        two = named("two", b.url, models=["m-*"])
        self.start_with(one, two)
        self.submit_wait(self.tasks("m", 4, "x"), "--job", "x")
        a.hold()
        self.submit(self.tasks("m", 3, "y"), "--job", "y")
        a.wait_calls(7)
        line = self.reload(two, one)
        self.assertIn('changed="" providers=2 added="" removed="" order=changed', line)
        self.submit_wait(self.tasks("m", 5, "z"), "--job", "z")
        status = {p["name"]: p for p in self.status()["providers"]}
        self.assertEqual((status["one"]["calls"], status["one"]["inflight"]), (7, 3))
        self.assertEqual((status["two"]["calls"], status["two"]["inflight"]), (5, 0))
        a.release()
        self.wait_queue(completed=12)
        self.assertEqual((len(a.calls), len(b.calls)), (7, 5))

    def test_the_broker_knows_it_before_the_workers(self):
        a, b = Provider(self), Provider(self)
        self.start_with(named("a", a.url))
        self.configure(named("a", a.url), named("b", b.url))
        self.hup(self.broker)
        self.submit(self.tasks("b", 3), "--job", "b")
        shown = self.wait_shown(1, 0, state="delayed")
        self.assertEqual(shown["reason"], "unknown_provider")
        self.assertEqual((shown["custom_id"], shown["attempts"]), ("b-0", 0))
        self.hup(self.worker, count=2)
        self.wait_queue(completed=3)
        self.assertEqual(set(b.counts().values()), {1})
        queue = self.status()["queue"]
        self.assertEqual((queue["retries"], queue["provider_calls"], queue["failed"]), (0, 3, 0))

    def test_any_change_under_load(self):
        """Providers come, go and move while tasks of all of them run: each call is made once."""
        seed = int(os.environ.get("SLUICE_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
        print(f"seed {seed} (SLUICE_TEST_SEED)", file=sys.stderr)
        dice = random.Random(seed)
        servers = {name: Provider(self) for name in "abcd"}
        everybody = [named(name, server.url, concurrency=8) for name, server in servers.items()]
        self.start_with(*everybody, llm_queue_concurrency=16)
        for server in servers.values():
            server.hold()
        for name in servers:
            self.submit(self.tasks(name, 400), "--job", name)
        for i in range(30):
            if i == 10:  # calls in flight outlive the first configurations
                for server in servers.values():
                    server.release()
            some = dice.sample(everybody, dice.randrange(len(everybody) + 1))
            self.reload(*some, llm_queue_concurrency=dice.randrange(1, 33))
            self.assert_adds_up(self.status())
        self.reload(*everybody, llm_queue_concurrency=32)
        self.wait_queue(completed=1600, seconds=60)
        for server in servers.values():
            self.assertEqual(len(server.calls), 400)
            self.assertEqual(set(server.counts().values()), {1})
        queue = self.status()["queue"]
        self.assertEqual((queue["retries"], queue["provider_calls"]), (0, 1600))
        self.assertEqual(self.broker.terminate(), 0)


class Refusals(ReloadCase):
    def test_a_faulty_file_keeps_the_old_settings(self):
        a = Provider(self)
        self.start_with(named("a", a.url), llm_queue_concurrency=7)
        good = self.config.read_text()
        self.config.write_text(good.replace("llm_queue_concurrency = 7", "llm_queue_concurrency = 8")
                               + "nonsense = 1;\n")
        at = f"{self.config}:{len(good.splitlines()) + 1}: nonsense"
        for process in (self.broker, self.worker):
            line = self.hup(process, r"event=config_error")
            self.assertIn(at, line)
            self.assertIn("level=error", line)
        self.config.write_text(good)
        self.assertEqual(self.status()["queue"]["concurrency"], 7)
        self.assertEqual(len(self.submit_wait(self.tasks("a", 3), "--job", "a")), 3)
        self.assertEqual(self.worker.log().count("event=config_error"), 1)  # not once a worker
        self.config.unlink()
        self.hup(self.broker, r"event=config_error .*" + self.config.name)
        self.config.write_text(good)
        self.assertIn("order=same", self.hup(self.broker))
        self.assertEqual(self.status()["queue"]["concurrency"], 7)

    def test_what_needs_a_restart_is_named_and_stays(self):
        a = Provider(self)
        self.start_with(named("a", a.url))
        self.configure(named("a", a.url), llm_queue_concurrency=9, worker={"processes": 3},
                       state_dir=str(self.dir / "elsewhere"), socket=str(self.dir / "t.sock"),
                       llm_queue_enabled=False, http={"listen": "127.0.0.1:0"})
        names = "llm_queue_enabled, state_dir, socket, worker.processes, http.listen"
        line = self.hup(self.broker, r"event=config_restart_needed")
        self.assertIn(f'what="{names}"', line)
        self.assertIn("level=warn", line)
        line = self.hup(self.worker, r"event=config_restart_needed")
        self.assertIn(f'what="{names}"', line)
        self.worker.wait_line(r"event=config_reloaded", count=2)
        self.configure(named("a", a.url))  # for the tools: they look for the old socket
        status = self.status()
        self.assertEqual(status["queue"]["concurrency"], 9)
        self.assertEqual(len(status["workers"]), 2)
        self.assertEqual(len(self.submit_wait(self.tasks("a", 3), "--job", "a")), 3)
        self.assertFalse((self.dir / "elsewhere").exists())
        self.assertFalse((self.dir / "t.sock").exists())
        # It is named again as long as it differs, and a worker that dies finds the old socket.
        os.kill(status["workers"][0]["pid"], signal.SIGKILL)
        self.worker.wait_line(r"event=broker_found", count=3)
        self.assertEqual(self.broker.terminate(), 0)
        self.assertFalse(self.socket.exists())

    def test_log_level(self):
        a = Provider(self)
        self.start_with(named("a", a.url))
        self.assertIn('changed="log_level"', self.reload(named("a", a.url), log_level="error"))
        self.assertNotIn("event=call_done", self.worker.log())
        mark = self.broker.mark()
        self.reload(named("a", a.url), log_level="debug")
        self.assertEqual(self.broker.log().splitlines()[mark:],
                         [line for line in self.broker.log().splitlines()[mark:]
                          if "event=config_reloaded" in line])
        self.submit_wait(self.tasks("a", 1), "--job", "a")
        self.worker.wait_line(r"event=call_done")

    def test_no_key_is_ever_logged(self):
        a = Provider(self)
        secret = self.dir / "key"
        secret.write_text("canary-one-1\n")
        secret.chmod(0o600)
        self.start_with(named("a", a.url, api_key_file=str(secret)))
        self.submit_wait(self.tasks("a", 1, "x"), "--job", "x")
        secret.write_text("canary-two-2\n")
        self.reload(named("a", a.url, api_key_file=str(secret)), log_level="debug")
        self.submit_wait(self.tasks("a", 1, "y"), "--job", "y")
        self.assertEqual([call.headers["Authorization"] for call in a.calls],
                         ["Bearer canary-one-1", "Bearer canary-two-2"])
        self.assertNotIn("canary-", self.broker.log() + self.worker.log())


if __name__ == "__main__":
    main()
