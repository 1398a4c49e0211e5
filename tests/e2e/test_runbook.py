#!/usr/bin/env python3
"""The shell blocks of docs/runbook.md, run in their order and as they stand, each under the heading
that says what it must show.

They run against a temporary installation (`cmake --install`): absolute paths, the metrics port and the
provider's address are put in place of those of the page, sudo is a word without effect, and systemctl
is a stand-in that starts the units' own command lines and waits for READY=1 as systemd does."""

import os
import re
import shutil
import subprocess
import sys
import unittest

import support

BUILD = support.BIN.parent.resolve()
PAGE = support.ROOT / "docs/runbook.md"
PLACES = ("/etc/", "/var/", "/run/", "/usr/share/")

# What the block of each heading must print, as patterns; one entry for each block below it.
SHOWN = {
    "Configure": [["configuration ok: .*/sluice.conf, 1 provider"], []],
    "Switch on by stages": [
        ["event=disabled", r"^exit status 4$"], ["configuration ok", "^ready$"],
        [r"first .*100%  20 of 20 ended", r"^20$"], ["in flight \\(of 8\\)", "openai +closed +0 +8"]],
    "What to watch": [["^ready$", "^llm_queue_lanes [1-9]", "^llm_queue_ready 0$",
                       "^llm_queue_tasks_refused_total 0$", "broker running"]],
    "Drain and stop": [["stopped sluice-worker: 0", "stopped sluice-broker: 0"]],
    "Back up": [["stopped sluice-broker: 0", "started sluice-broker"]],
    "Restore": [["20 completed", "^20$"]],
    "Roll back": [["event=disabled", "queue_disabled|llm_queue_enabled is false", "^exit status 4$"],
                  ["^first\t20\t20\t"]],
    "Full disk": [["^first\t20\t20\t", "^20 tasks forgotten$"]],
}

SYSTEMCTL = r'''#!/usr/bin/python3
"""Stands in for systemctl: start, stop, reload, enable --now, daemon-reload of the two services."""
import os, pathlib, re, select, signal, socket, subprocess, sys

root = pathlib.Path(os.environ["RUNBOOK_ROOT"])
units = root / "usr/lib/systemd/system"
DEADLINE_S = 60

def settings(name):
    """The lines of the unit and of its drop-ins."""
    files = [units / f"{name}.service",
             *sorted((root / f"etc/systemd/system/{name}.service.d").glob("*.conf"))]
    return [line for file in files for line in file.read_text().splitlines()]

def value(name, key):
    return [line.partition("=")[2] for line in settings(name) if line.startswith(key + "=")]

def pid_of(name):
    """The pid of the running service and a pidfd of it; (0, -1): it does not run."""
    try:
        pid = int((root / f"{name}.pid").read_text())
        fd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return 0, -1
    if select.select([fd], [], [], 0)[0]:
        return 0, -1
    return pid, fd

def start(name):
    if pid_of(name)[0]:
        return
    env = dict(os.environ, NOTIFY_SOCKET=str(root / "notify"))
    credentials = root / f"credentials-{name}"
    credentials.mkdir(exist_ok=True)
    for line in value(name, "LoadCredential"):
        wanted, _, path = line.partition(":")
        (credentials / wanted).write_text(pathlib.Path(path).read_text())
        env["CREDENTIALS_DIRECTORY"] = str(credentials)
    env.pop("OPENAI_API_KEY", None)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    (root / "notify").unlink(missing_ok=True)
    notify.bind(str(root / "notify"))
    log = open(root / f"{name}.log", "ab")
    begin = log.tell()
    process = subprocess.Popen(value(name, "ExecStart")[-1].split(), env=env, stdout=log, stderr=log,
                               stdin=subprocess.DEVNULL)
    (root / f"{name}.pid").write_text(str(process.pid))
    notify.settimeout(DEADLINE_S)
    fd = os.pidfd_open(process.pid)
    while True:
        ready, _, _ = select.select([notify, fd], [], [], DEADLINE_S)
        if notify in ready:
            if "READY=1" in notify.recv(4096).decode():
                break
        elif fd in ready:
            sys.exit(f"{name} ended with {process.wait()}: {read(name, begin)}")
        else:
            sys.exit(f"{name} is not ready in time")
    if "event=disabled" in read(name, begin):  # logged before READY=1
        process.wait(DEADLINE_S)
        print(read(name, begin))
    else:
        print(f"started {name}")

def read(name, begin):
    return (root / f"{name}.log").read_bytes()[begin:].decode()

def stop(name):
    pid, fd = pid_of(name)
    if not pid:
        return
    os.kill(pid, signal.SIGTERM)
    if not select.select([fd], [], [], DEADLINE_S)[0]:
        sys.exit(f"{name} does not end")
    status = re.findall(r"event=stop (?:exit_)?status=(\d+)", (root / f"{name}.log").read_text())[-1]
    print(f"stopped {name}: {status}")

def reload(name):
    """Waits, as the reader of the page would, until the log says that it was done."""
    pid, _ = pid_of(name)
    log = root / f"{name}.log"
    with log.open() as file:
        file.seek(0, 2)
        os.kill(pid, signal.SIGHUP)
        while "event=config_reloaded" not in file.read():
            select.select([], [], [], 0.02)

words = [word for word in sys.argv[1:] if not word.startswith("--")]
for name in words[1:]:
    {"start": start, "enable": start, "stop": stop, "reload": reload}[words[0]](name)
if not words[1:] and words[0] != "daemon-reload":
    sys.exit(f"not understood: {sys.argv[1:]}")
'''


def blocks():
    """(heading, text) of each shell block of the page."""
    heading, lines, found = "", None, []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line == "```sh":
            lines = []
        elif line.startswith("```") and lines is not None:
            found.append((heading, "\n".join(lines) + "\n"))
            lines = None
        elif lines is not None:
            lines.append(line)
    return found


class Runbook(support.SluiceCase):
    def install(self):
        """The programs, units and texts in a folder of this test."""
        self.root = self.dir / "root"
        done = subprocess.run(["cmake", "--install", BUILD, "--prefix", self.root / "usr"],
                              text=True, capture_output=True, check=False,
                              timeout=60 * support.SLOW)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        # With another prefix than /usr the configuration is in the prefix.
        shutil.move(self.root / "usr/etc", self.root / "etc")
        for unit in (self.root / "usr/lib/systemd/system").glob("*.service"):
            unit.write_text(unit.read_text().replace(f"{self.root}/usr/etc/", f"{self.root}/etc/"))
        for folder in ("etc/sluice/keys", "etc/systemd/system", "var/lib", "var/backups", "run/sluice"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def stand_in(self, name, text):
        path = self.root / "stand-in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def setUp(self):
        super().setUp()
        for program in ("cmake", "curl", "bash"):
            if shutil.which(program) is None:
                self.skipTest(f"skipped: no {program} here")
        self.install()
        self.stand_in("sudo", '#!/bin/sh\nexec "$@"\n')
        self.stand_in("systemctl", SYSTEMCTL)
        url = self.start_stub("--require-key", support.KEY, "--latency-ms", "20")
        self.changes = [(place, f"{self.root}{place}") for place in PLACES] + [
            ("127.0.0.1:8420", f"127.0.0.1:{support.free_port()}"),
            ("https://api.openai.com/v1", url)]
        self.env.update(
            RUNBOOK_ROOT=str(self.root), OPENAI_API_KEY=support.KEY,
            SLUICE_CONFIG=str(self.root / "etc/sluice/sluice.conf"),
            PATH=f"{self.root}/stand-in:{self.root}/usr/bin:{os.environ['PATH']}")

    def placed(self, text):
        """The block with this test's places; the shell's own /dev/ and the like stay."""
        for old, new in self.changes:
            text = re.sub(r"(?<![\w}])" + re.escape(old), new.replace("\\", "\\\\"), text)
        return text

    def run_block(self, text):
        process = support.Process("block", ["bash", "-euo", "pipefail", "-c", self.placed(text)],
                                  self.env, self.dir)
        self.processes.append(process)
        # The services that a block started live on in its group and hold no pipe of it.
        status = process.wait(60)
        return status, process.log()

    def test_every_block_does_what_the_page_says(self):
        seen = {}
        for heading, text in blocks():
            seen.setdefault(heading, []).append(text)
            with self.subTest(heading=heading, block=len(seen[heading])):
                self.assertIn(heading, SHOWN, "say in SHOWN what this block must show")
                patterns = SHOWN[heading][len(seen[heading]) - 1]
                status, shown = self.run_block(text)
                self.assertEqual(status, 0, text + shown)
                for pattern in patterns:
                    self.assertRegex(shown, re.compile(pattern, re.MULTILINE), text)
                self.assertNotIn(support.KEY, shown)
        self.assertEqual({heading: len(texts) for heading, texts in seen.items()},
                         {heading: len(texts) for heading, texts in SHOWN.items()})


if __name__ == "__main__":
    print(f"runbook of {PAGE}", file=sys.stderr)
    support.main()
