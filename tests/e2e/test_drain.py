#!/usr/bin/env python3
"""SIGTERM drains: calls in flight finish, what waits stays on disk, exit 0."""

import signal
import sys

sys.dont_write_bytecode = True
from support import SluiceCase, main, read_results  # noqa: E402
from provider import Provider  # noqa: E402

AT_ONCE = 6


class Drain(SluiceCase):
    def start_held(self):
        """A pair with AT_ONCE calls held at the provider and as many tasks again behind them."""
        self.held = Provider(self)
        self.held.hold()
        self.start_pair(self.held.url, llm_queue_concurrency=AT_ONCE)
        self.submit(self.prompts(AT_ONCE * 2), "--job", "held")
        self.held.wait_running(AT_ONCE)

    def assert_nothing_lost(self):
        """After a restart everything completes, and no call was made twice."""
        self.held.release()
        self.start_broker()
        self.start_worker()
        self.wait_queue(completed=AT_ONCE * 2)
        self.assertEqual(len(read_results(self.ctl("results", "held").stdout)), AT_ONCE * 2)
        self.assertEqual(set(self.held.counts().values()), {1})

    def test_broker_first(self):
        self.start_held()
        self.broker.signal(signal.SIGTERM)
        self.broker.wait_line(r"event=drain")
        self.held.release()
        self.assertEqual(self.broker.wait(), 0)
        self.assertEqual(self.worker.terminate(), 0)
        self.assertGreaterEqual(len(self.held.calls), AT_ONCE)
        self.assert_nothing_lost()

    def test_worker_first(self):
        self.start_held()
        self.worker.signal(signal.SIGTERM)
        self.worker.wait_line(r"event=drain")
        self.held.release()
        self.assertEqual(self.worker.wait(), 0)
        self.assertEqual(self.broker.terminate(), 0)
        self.assert_nothing_lost()

    def test_both_at_once(self):
        self.start_held()
        self.worker.signal(signal.SIGTERM)
        self.broker.signal(signal.SIGTERM)
        self.worker.wait_line(r"event=drain")
        self.broker.wait_line(r"event=drain")
        self.held.release()
        self.assertEqual((self.worker.wait(), self.broker.wait()), (0, 0))
        self.assert_nothing_lost()

    def test_idle_pair(self):
        self.start_pair(Provider(self).url)
        self.assertEqual(self.broker.terminate(), 0)
        self.assertEqual(self.worker.terminate(), 0)
        self.assertFalse(self.socket.exists())

    def test_new_work_is_refused_with_a_reason(self):
        self.start_held()
        self.broker.signal(signal.SIGTERM)
        self.broker.wait_line(r"event=drain")
        done = self.submit(self.prompts(1, "late", "late.jsonl"), "--job", "late", status=4)
        self.assert_one_line_error(done, r"drain|shutting down")
        self.held.release()
        self.assertEqual(self.broker.wait(), 0)

    def test_ctl_drain(self):
        self.start_held()
        drain = self.start("sluice-ctl", "--config", self.config, "drain")
        self.broker.wait_line(r"event=drain")
        self.held.release()
        self.assertEqual(self.broker.wait(), 0)
        self.assertEqual(drain.wait(), 0)

    def test_second_sigterm_stops_at_once(self):
        self.start_held()
        self.broker.signal(signal.SIGTERM)
        self.broker.wait_line(r"event=drain")
        self.broker.signal(signal.SIGTERM)
        self.broker.wait(5)
        self.worker.signal(signal.SIGTERM)
        self.worker.wait_line(r"event=drain")
        self.worker.signal(signal.SIGTERM)
        self.worker.wait(5)
        self.held.release()
        self.start_broker()
        self.start_worker()
        self.wait_queue(completed=AT_ONCE * 2)

    def test_drain_timeout_puts_running_calls_back(self):
        self.held = Provider(self)
        self.held.hold()
        self.start_pair(self.held.url, llm_queue_concurrency=AT_ONCE, drain_timeout_s=0.3)
        self.submit(self.prompts(AT_ONCE), "--job", "held")
        self.held.wait_running(AT_ONCE)
        self.assertEqual(self.broker.terminate(10), 0)
        self.assertEqual(self.worker.terminate(10), 0)
        self.held.release()
        self.start_broker()
        self.start_worker()
        self.wait_queue(completed=AT_ONCE)


if __name__ == "__main__":
    main()
