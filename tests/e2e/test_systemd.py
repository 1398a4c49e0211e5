#!/usr/bin/env python3
"""What a supervisor is told (sd_notify) and what it may hand over (socket activation)."""

import os
import signal
import socket
import sys

import frames
import provider
import support

# Becomes the broker as systemd would start it: the listener as descriptor 3, its own pid in
# $LISTEN_PID.
LAUNCH = """
import os, sys
count, listener = sys.argv[1:3]
os.dup2(int(listener), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=count)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Supervisor:
    """Listens to the notifications of the programs that are started with its environment."""

    def __init__(self, test):
        self.path = test.dir / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(support.DEADLINE_S)
        test.addCleanup(self.socket.close)
        test.env["NOTIFY_SOCKET"] = str(self.path)

    def next(self):
        return self.socket.recv(4096).decode()

    def wait(self, message):
        """Everything said up to this message, itself included."""
        said = [self.next()]
        while said[-1] != message:
            said.append(self.next())
        return said


class Notify(support.SluiceCase):
    def setUp(self):
        super().setUp()
        self.provider = provider.Provider(self)
        self.configure(support.SluiceCase.provider(self, self.provider.url))

    def test_broker_says_ready_and_asks_for_time_while_it_drains(self):
        supervisor = Supervisor(self)
        self.start_broker()
        supervisor.wait("READY=1")
        del self.env["NOTIFY_SOCKET"]
        self.start_worker()
        self.provider.hold()
        self.submit(self.prompts(1), "--job", "held")
        self.provider.wait_running(1)
        self.broker.signal(signal.SIGTERM)
        supervisor.wait("STOPPING=1")
        self.assertEqual(supervisor.next(), "EXTEND_TIMEOUT_USEC=15000000")
        # Again before the time that was asked for is over.
        self.assertEqual(supervisor.next(), "EXTEND_TIMEOUT_USEC=15000000")
        self.provider.release()
        self.assertEqual(self.broker.wait(), 0)

    def test_worker_says_ready_and_asks_for_time_while_it_drains(self):
        self.start_broker()
        supervisor = Supervisor(self)
        self.start_worker()
        supervisor.wait("READY=1")
        self.provider.hold()
        self.submit(self.prompts(1), "--job", "held")
        self.provider.wait_running(1)
        self.worker.signal(signal.SIGTERM)
        supervisor.wait("STOPPING=1")
        self.assertEqual(supervisor.next(), "EXTEND_TIMEOUT_USEC=15000000")
        self.assertEqual(supervisor.next(), "EXTEND_TIMEOUT_USEC=15000000")
        self.provider.release()
        self.assertEqual(self.worker.wait(), 0)

    def test_watchdog_is_fed_without_any_work(self):
        supervisor = Supervisor(self)
        self.env["WATCHDOG_USEC"] = "200000"
        for start in (self.start_broker, lambda: self.start("sluice-worker", "--config",
                                                            self.config)):
            process = start()
            supervisor.wait("WATCHDOG=1")
            supervisor.wait("WATCHDOG=1")
            self.assertEqual(process.terminate(), 0)

    def test_disabled_services_say_so_and_exit_0(self):
        supervisor = Supervisor(self)
        self.configure(support.SluiceCase.provider(self, self.provider.url),
                       llm_queue_enabled=False)
        for name in ("sluice-broker", "sluice-worker"):
            process = self.start(name, "--config", self.config)
            process.wait_line("event=disabled")
            # To end without it would be a failure for Type=notify, and lead to a restart.
            supervisor.wait("READY=1")
            self.assertEqual(process.wait(), 0)


class SocketActivation(support.SluiceCase):
    def setUp(self):
        super().setUp()
        self.provider = provider.Provider(self)
        self.configure(support.SluiceCase.provider(self, self.provider.url))

    def listen(self, path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(16)
        self.addCleanup(listener.close)
        return listener

    def launch(self, listener, count=1):
        self.broker = support.Process(
            "sluice-broker", [sys.executable, "-c", LAUNCH, count, listener.fileno(),
                              support.BIN / "sluice-broker", "--config", self.config],
            self.env, self.dir, pass_fds=(listener.fileno(),))
        self.processes.append(self.broker)
        return self.broker

    def test_serves_on_the_socket_it_was_given_and_leaves_it_there(self):
        listener = self.listen(self.socket)
        self.launch(listener).wait_line("event=ready")
        self.start_worker()
        self.assertEqual(len(self.submit_wait(self.prompts(3))), 3)
        self.assertEqual(self.broker.terminate(), 0)
        self.assertTrue(self.socket.is_socket())

    def test_a_client_that_comes_between_two_brokers_waits_for_the_second(self):
        listener = self.listen(self.socket)
        self.launch(listener).wait_line("event=ready")
        self.assertEqual(self.broker.terminate(), 0)
        with frames.Connection(self.socket) as connection:
            self.launch(listener).wait_line("event=ready")
            connection.hello()
        self.assertEqual(self.broker.terminate(), 0)

    def assert_refused(self, listener, count=1):
        self.launch(listener, count).wait_line("event=failed.*must pass one stream socket")
        self.assertEqual(self.broker.wait(), 3)

    def test_another_path_than_the_configured_one_is_refused(self):
        self.assert_refused(self.listen(self.dir / "other.sock"))

    def test_more_than_one_socket_is_refused(self):
        self.assert_refused(self.listen(self.socket), count=2)

    def test_something_that_does_not_listen_is_refused(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(self.socket))
            self.assert_refused(other)

    def test_a_socket_for_somebody_else_is_ignored(self):
        self.env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        self.start_broker()
        self.assertEqual(self.broker.terminate(), 0)
        self.assertFalse(self.socket.exists())


if __name__ == "__main__":
    support.main()
