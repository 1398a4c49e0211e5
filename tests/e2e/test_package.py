#!/usr/bin/env python3
"""What gets installed: the Debian package, its units, man pages, completion, library and headers; and
that the pair starts and works from it.

Builds the package with cpack from the build directory of SLUICE_BIN. Where this machine lets us (root
and overlayfs) it is also installed by dpkg into a throw-away copy of this system, and removed again;
elsewhere that part says "skipped: ..."."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import support

BUILD = support.BIN.parent.resolve()
FILES = """
usr/bin/sluice-broker usr/bin/sluice-worker usr/bin/sluice-submit usr/bin/sluice-status
usr/bin/sluice-ctl usr/lib/libsluice.a usr/lib/pkgconfig/sluice.pc
usr/include/sluice/common/client.h usr/include/sluice/common/tbl/errors.def
usr/lib/systemd/system/sluice-broker.service usr/lib/systemd/system/sluice-broker.socket
usr/lib/systemd/system/sluice-worker.service usr/share/man/man1/sluice-submit.1
usr/share/man/man5/sluice.conf.5 usr/share/man/man8/sluice-broker.8
usr/share/bash-completion/completions/sluice-submit usr/share/doc/sluice/copyright
usr/share/doc/sluice/examples/sluice.conf usr/share/doc/sluice/runbook.md etc/sluice/sluice.conf
""".split()
NOT_IN_IT = ("sluice-stub", "bare_curl", "test_", "CMakeLists", "mkdocs")
EXPOSURE_MAX = 15  # tenths of systemd-analyze's figure


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                          timeout=120 * support.SLOW, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def need(*programs):
    for program in programs:
        if shutil.which(program) is None:
            raise unittest.SkipTest(f"skipped: no {program} here")


def setUpModule():
    need("dpkg-deb", "dpkg-shlibdeps", "cpack")
    made = pathlib.Path(tempfile.mkdtemp(prefix="sl-package-", dir="/tmp"))
    unittest.addModuleCleanup(shutil.rmtree, made, True)
    config = BUILD / "CPackConfig.cmake"
    # A careful administrator's umask must not close /etc or /usr to others.
    run("cpack", "-G", "DEB", "--config", config, "-B", made, cwd=made, umask=0o077)
    Package.deb, = made.glob("sluice_*.deb")
    Package.root = made / "root"
    run("dpkg-deb", "-x", Package.deb, Package.root)
    run("dpkg-deb", "-e", Package.deb, made / "control")
    Package.control = made / "control"


class Package(support.SluiceCase):
    deb = root = control = None

    def test_holds_what_it_must_and_nothing_else(self):
        for name in FILES:
            self.assertTrue((self.root / name).is_file(), name)
        for line in run("dpkg-deb", "-c", self.deb).splitlines():
            self.assertIn(" root/root ", line)
            self.assertRegex(line, r"^(drwxr-xr-x|-rwxr-xr-x|-rw-r--r--) ")
            for name in NOT_IN_IT:
                self.assertNotIn(name, line.split("/")[-1])

    def test_depends_on_the_libraries_it_is_linked_with(self):
        depends = run("dpkg-deb", "-f", self.deb, "Depends")
        for library in ("libc6", "libcurl4", "liblmdb0", "libmsgpackc2", "libconfig9", "libyajl2",
                        "libmicrohttpd12", "adduser"):
            self.assertRegex(depends, rf"(^|, ){library}( |,|$)")

    def test_configuration_is_a_conffile_and_switched_off(self):
        self.assertEqual((self.control / "conffiles").read_text(), "/etc/sluice/sluice.conf\n")
        text = (self.root / "etc/sluice/sluice.conf").read_text()
        self.assertIn("\nllm_queue_enabled = false;\n", text)
        for name in ("sluice-broker", "sluice-worker"):
            done = subprocess.run([self.root / "usr/bin" / name, "--config",
                                   self.root / "etc/sluice/sluice.conf"], text=True,
                                  capture_output=True, env=self.env, check=False,
                                  timeout=support.DEADLINE_S)
            self.assertEqual(done.returncode, 0)
            self.assertIn("event=disabled", done.stderr)

    def test_maintainer_scripts_start_nothing(self):
        for name in ("postinst", "prerm", "postrm"):
            script = self.control / name
            self.assertTrue(os.access(script, os.X_OK), name)
            self.assertNotRegex(script.read_text(), r"systemctl \S*(enable|start)|invoke start")
        need("shellcheck")
        run("shellcheck", *(self.control / name for name in ("postinst", "prerm", "postrm")))

    def test_pair_works_from_it(self):
        bin_dir, support.BIN = support.BIN, self.root / "usr/bin"
        self.addCleanup(setattr, support, "BIN", bin_dir)
        stub = support.Process("sluice-stub", [bin_dir / "sluice-stub", "--die-with-parent"],
                               self.env, self.dir)
        self.processes.append(stub)
        address = stub.wait_line("^listening on (.*)$").group(1)
        self.start_pair(f"http://{address}/v1")
        self.assertEqual(len(self.submit_wait(self.prompts(50))), 50)
        self.assertEqual(self.worker.terminate(), 0)
        self.assertEqual(self.broker.terminate(), 0)


class Units(support.SluiceCase):
    def units(self):
        """The units, with programs that are where they say."""
        folder = self.dir / "units"
        shutil.copytree(Package.root / "usr/lib/systemd/system", folder)
        for unit in folder.iterdir():
            text = unit.read_text().replace("/usr/bin/", f"{Package.root}/usr/bin/")
            unit.write_text(re.sub(r"(?m)^Documentation=.*\n", "", text))
        return sorted(folder.iterdir())

    def test_systemd_understands_them(self):
        need("systemd-analyze")
        done = subprocess.run(["systemd-analyze", "verify", *self.units()], text=True,
                              capture_output=True, timeout=support.DEADLINE_S, check=False)
        said = [line for line in done.stderr.splitlines() if "sluice" in line]
        self.assertEqual((done.returncode, said), (0, []), done.stderr)

    def test_they_are_hardened(self):
        need("systemd-analyze")
        for unit in self.units():
            if unit.suffix == ".service":
                done = subprocess.run(
                    ["systemd-analyze", "security", "--offline=true",
                     f"--threshold={EXPOSURE_MAX}", unit], text=True, capture_output=True,
                    timeout=support.DEADLINE_S, check=False)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_they_leave_time_to_drain(self):
        drain_s = float(re.search(r"(?m)^drain_timeout_s = ([\d.]+);", (
            Package.root / "etc/sluice/sluice.conf").read_text())[1])
        for name in ("sluice-broker", "sluice-worker"):
            text = (Package.root / f"usr/lib/systemd/system/{name}.service").read_text()
            self.assertGreater(int(re.search(r"(?m)^TimeoutStopSec=(\d+)$", text)[1]), drain_s + 5)


class Texts(support.SluiceCase):
    def test_man_pages_have_no_fault(self):
        pages = sorted((Package.root / "usr/share/man").rglob("*.[158]"))
        self.assertEqual(len(pages), 6)
        need("mandoc")
        for page in pages:
            done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], text=True,
                                  capture_output=True, timeout=support.DEADLINE_S, check=False)
            self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_man_pages_name_every_option(self):
        for page in (Package.root / "usr/share/man").rglob("sluice-*.[18]"):
            said = run(Package.root / "usr/bin" / page.stem, "--help", env=self.env)
            text = page.read_text().replace("\\-", "-")
            for option in re.findall(r"(?m)^  (--[a-z-]+)", said):
                self.assertIn(f"\\fB{option}\\fR", text)

    def complete(self, *words):
        """What bash offers for the last of the words."""
        folder = Package.root / "usr/share/bash-completion/completions"
        script = (f"source {folder / words[0]}; shift; COMP_WORDS=(\"$@\"); "
                  f"COMP_CWORD=$(($# - 1)); _{words[0].replace('-', '_')}; "
                  "printf '%s\\n' \"${COMPREPLY[@]}\"")
        out = run("bash", "-c", script, "bash", "-", *words, cwd=self.dir, env=self.env)
        return out.split()

    def test_completion(self):
        (self.dir / "prompts.jsonl").touch()
        for words, offered in (
                (("sluice-submit", "--prog"), ["--progress"]),
                (("sluice-submit", "--progress", ""), ["auto", "always", "never"]),
                (("sluice-submit", "--progress", "=", "n"), ["never"]),
                (("sluice-submit", "--priority", "7"), ["7"]),
                (("sluice-submit", "--wait", "pro"), ["prompts.jsonl"]),
                (("sluice-submit", "--output", "pro"), ["prompts.jsonl"]),
                (("sluice-submit", "--model", ""), []),
                (("sluice-ctl", "ca"), ["cancel"]),
                (("sluice-ctl", "--js"), ["--json"]),
                (("sluice-broker", "--check"), ["--check-config"])):
            self.assertEqual(self.complete(*words), offered, words)
        need("shellcheck")
        run("shellcheck", *sorted(
            (Package.root / "usr/share/bash-completion/completions").iterdir()))


class Library(support.SluiceCase):
    PROGRAM = """
#include <stdio.h>
#include "common/client.h"
int main(int argc, char **argv)
{
    struct sl_client *client = NULL;
    struct sl_client_fault fault;
    enum sl_err err = sl_client_open(argv[1], &client, &fault);
    if (err != SL_OK) {
        printf("%s: %s\\n", sl_err_code(err), fault.text);
        return sl_err_exit_status(err);
    }
    printf("broker %s\\n", sl_client_get_server(client).version);
    sl_client_close(&client);
    return argc == 2 ? 0 : 1;
}
"""

    def test_a_program_outside_of_the_tree_links_it(self):
        need("cc", "pkg-config")
        env = {**self.env, "PKG_CONFIG_SYSROOT_DIR": str(Package.root),
               "PKG_CONFIG_PATH": str(Package.root / "usr/lib/pkgconfig")}
        flags = run("pkg-config", "--cflags", "--libs", "sluice", env=env).split()
        # The sysroot stands before the paths of all libraries, also of those of this system.
        self.assertTrue(any(str(Package.root) in flag for flag in flags), flags)
        (self.dir / "program.c").write_text(self.PROGRAM)
        run("cc", "-std=c11", "-Wall", "-Werror", "program.c", "-o", "program", *flags,
            cwd=self.dir, env=self.env)
        self.configure(self.provider("http://127.0.0.1:1/v1"))
        self.start_broker()
        self.assertRegex(run(self.dir / "program", self.socket), r"^broker \d+\.\d+")
        self.assertEqual(self.broker.terminate(), 0)
        done = subprocess.run([self.dir / "program", self.socket], text=True, capture_output=True,
                              timeout=support.DEADLINE_S, check=False)
        self.assertEqual(done.returncode, 4)
        self.assertIn("broker_unreachable", done.stdout)


# In a mount namespace of its own: this system, copied on write into memory. The package is installed
# and removed there as an administrator would.
INSTALL = r"""
set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cp "$2" "$1/root/sluice.deb"
mount -t proc proc "$1/root/proc"
exec chroot "$1/root" sh -eu -c "$3"
"""
IN_ROOT = r"""
dpkg --force-depends -i /sluice.deb
id -nG sluice
stat -c '%U:%G %a %n' /var/lib/sluice /etc/sluice/keys
sluice-broker --check-config
echo changed >> /etc/sluice/sluice.conf
touch /var/lib/sluice/data.mdb
dpkg -r sluice
ls /etc/sluice/sluice.conf
dpkg -P sluice 2>&1
ls /var/lib/sluice
! ls /etc/sluice
"""


class Install(support.SluiceCase):
    def need_root(self):
        """A mount namespace with an overlay of this system, or the test is skipped."""
        need("unshare", "chroot")
        if os.geteuid() != 0:
            raise unittest.SkipTest("skipped: dpkg needs root")
        place = self.dir / "probe"
        place.mkdir()
        done = self.in_root(place, "true")
        if done.returncode != 0:
            raise unittest.SkipTest("skipped: no overlay of this system: " + done.stderr[-200:])
        if subprocess.run(["getent", "passwd", "sluice"], check=False,
                          stdout=subprocess.DEVNULL).returncode == 0:
            raise unittest.SkipTest("skipped: sluice is installed here")

    def in_root(self, place, script):
        return subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", INSTALL, "sh", str(place),
             str(Package.deb), script], text=True, capture_output=True, check=False,
            timeout=120 * support.SLOW, env={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
                                             "DEBIAN_FRONTEND": "noninteractive"})

    def test_dpkg_installs_and_removes_it(self):
        self.need_root()
        place = self.dir / "install"
        place.mkdir()
        done = self.in_root(place, IN_ROOT)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for line in ("\nsluice\n", "\nsluice:sluice 700 /var/lib/sluice\n",
                     "\nroot:root 700 /etc/sluice/keys\n", "\nconfiguration ok: /etc/sluice/",
                     "kept: /var/lib/sluice", "\ndata.mdb\n"):
            self.assertIn(line, done.stdout)


if __name__ == "__main__":
    print(f"package of {BUILD}", file=sys.stderr)
    support.main()
