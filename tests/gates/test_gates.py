#!/usr/bin/env python3
"""Each gate of tools/check finds what it is for: in a copy of the tree one violation is planted, and
that gate must fail and name it, while the other quick gates pass.

The copy holds what git tracks (as it lies in the tree) in a repository of its own. With
SLUICE_GATES=all the gates that build are tried too, which takes minutes."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICK = ("fmt", "complexity", "docs")
# A made-up key is put together here, so that it stands nowhere in the tree.
KEY = "sk-" + "Zk3vQ9" * 6

HEAD = "#include <stdlib.h>\n\n"
LINES = "int sl_planted(int n);\n\nint sl_planted(int n)\n{\n" + "    n++;\n" * 68 + "    return n;\n}\n"
BRANCHES = ("int sl_planted(int n);\n\nint sl_planted(int n)\n{\n" + "".join(
    f"    if (n == {i}) {{\n        return {i + 1};\n    }}\n" for i in range(8)) + "    return n;\n}\n")
NULL = HEAD + ("int sl_planted(void);\n\nint sl_planted(void)\n{\n    int *value = NULL;\n"
               "    return *value;\n}\n")
WIDE = ("long sl_planted(int n);\n\nlong sl_planted(int n)\n{\n    long area = (long)(n * n);\n"
        "    return area;\n}\n")
LEAK = ("\nSTART_TEST(test_planted)\n{\n    char *volatile lost = malloc(100);\n    lost = NULL;\n"
        "    ck_assert_ptr_null(lost);\n}\nEND_TEST\n")


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


class Copy:
    """The tree, copied once; each case puts it back as it was."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sl-gates-", dir="/tmp"))
        self.tree = self.folder / "sluice"
        names = run("git", "ls-files", "-z", cwd=ROOT, check=True).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.tree / name)
        self.git("init", "-q")
        self.commit("as it is")
        self.first = self.git("rev-parse", "HEAD").strip()

    def git(self, *words):
        who = ("-c", "user.name=gates", "-c", "user.email=gates@localhost", "-c", "gc.auto=0")
        return run("git", *who, *words, cwd=self.tree, check=True).stdout

    def commit(self, text):
        self.git("add", "-A")
        self.git("commit", "-q", "--no-verify", "-m", text)

    def restore(self):
        self.git("checkout", "-q", "-f", "-B", "main", self.first)
        self.git("clean", "-fdq")
        self.git("reflog", "expire", "--expire=now", "--all")

    def add(self, name, text):
        path = self.tree / name
        path.write_text((path.read_text("utf-8") if path.exists() else "") + text, encoding="utf-8")
        self.git("add", name)

    def replace(self, name, old, new):
        path = self.tree / name
        text = path.read_text("utf-8")
        assert old in text, f"{name} has no {old!r}: the case needs another place"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def check(self, *gates):
        env = {**os.environ, "CHECK_SINCE": "HEAD"}
        return run("tools/check", *gates, cwd=self.tree, env=env)


class GateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not (ROOT / ".git").exists():
            raise unittest.SkipTest("skipped: no git repository here to copy from")
        cls.copy = Copy()
        cls.addClassCleanup(shutil.rmtree, cls.copy.folder, True)

    def setUp(self):
        self.addCleanup(self.copy.restore)

    def assert_found(self, gate, pattern, others=QUICK):
        done = self.copy.check(gate)
        self.assertNotEqual(done.returncode, 0, f"{gate} passed:\n{done.stdout}")
        self.assertRegex(done.stdout, rf"(?m)^{gate} +FAILED")
        self.assertRegex(done.stdout, pattern)
        others = [other for other in others if other != gate]
        done = self.copy.check(*others) if others else done
        self.assertTrue(not others or done.returncode == 0, f"not {gate} alone:\n{done.stdout}")


class Gates(GateTest):
    def test_as_it_is(self):
        done = self.copy.check(*QUICK)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_fmt(self):
        self.copy.add("common/err.c", "static   int planted;\n")
        self.assert_found("fmt", r"common/err\.c:\d+:\d+: .*clang-format")

    def test_lint_layer(self):
        self.copy.replace("broker/policy/route.c", "#include ", '#include "broker/store.h"\n#include ')
        self.assert_found("lint", r"broker/store\.h may not be included here", ("complexity", "docs"))

    def test_lint_door(self):
        self.copy.add("common/planted.c", "#include <curl/curl.h>\n")
        self.assert_found("lint", r"<curl/curl\.h> has its door")

    def test_lint_banned(self):
        self.copy.add("tools/planted.c", "void f(char *a)\n{\n    strcpy(a, a);\n}\n")
        self.assert_found("lint", r"strcpy\(\) is banned")

    def test_lint_header(self):
        self.copy.add("common/planted.h", "struct sl_unknown sl_planted(void);\n"
                                          "static size_t planted_bytes;\n")
        self.assert_found("lint", r"unknown type name .size_t")

    def test_lint_cppcheck(self):
        self.copy.add("common/planted.c", NULL)
        self.assert_found("lint", r"common/planted\.c:\d+: nullPointer")

    def test_lint_clang_tidy(self):
        self.copy.add("common/err.c", "\n" + WIDE)
        self.assert_found("lint", r"bugprone-misplaced-widening-cast")

    def test_complexity_lines(self):
        self.copy.add("common/planted.c", LINES)
        self.assert_found("complexity", r"sl_planted: 7\d lines, at most 70")

    def test_complexity_branches(self):
        self.copy.add("common/planted.c", BRANCHES)
        self.assert_found("complexity", r"sl_planted: complexity 9, at most 8")

    def test_docs_link(self):
        self.copy.add("docs/testing.md", "\n[planted](nowhere.md)\n")
        self.assert_found("docs", r"nowhere\.md leads nowhere")

    def test_docs_error_code(self):
        self.copy.replace("docs/errors.md", "`no_space`", "`no_room`")
        self.copy.replace("common/tbl/errors.def", '"no_space"', '"planted_code"')
        self.assert_found("docs", r"`planted_code` of common/tbl/errors\.def is missing")

    def test_sec_secret_in_tree(self):
        self.copy.add("conf/planted.conf", f'key = "{KEY}";\n')
        self.assert_found("sec", r"conf/planted\.conf:1: API key")

    def test_sec_secret_in_history(self):
        self.copy.add("conf/planted.conf", f'key = "{KEY}";\n')
        self.copy.commit("planted")
        (self.copy.tree / "conf/planted.conf").unlink()
        self.copy.commit("gone, but not from the history")
        self.assert_found("sec", r"[0-9a-f]{12}:conf/planted\.conf: API key")

    def test_hook(self):
        self.copy.add("conf/planted.conf", f'key = "{KEY}";\n')
        done = run("tools/check", "hooks", cwd=self.copy.tree)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(os.unlink, self.copy.tree / ".git/hooks/pre-commit")
        done = run("git", "-c", "user.name=gates", "-c", "user.email=gates@localhost", "commit",
                   "-m", "planted", cwd=self.copy.tree)
        self.assertNotEqual(done.returncode, 0, "the hook let a secret through")
        self.assertIn("conf/planted.conf: API key", done.stdout + done.stderr)


@unittest.skipUnless(os.environ.get("SLUICE_GATES") == "all", "SLUICE_GATES=all tries these")
class GatesThatBuild(GateTest):
    def test_type(self):
        self.copy.add("common/err.c", "\nstatic int planted(int n)\n{\n    return n;\n}\n")
        self.assert_found("type", r"planted.* defined but not used")

    def test_sec_hardening(self):
        self.copy.replace("CMakeLists.txt", "-z,relro,-z,now", "-z,relro,-z,lazy")
        self.assert_found("sec", r"sluice-broker: lacks all symbols bound at start")

    def test_audit(self):
        path = self.copy.tree / "docs/dependencies.md"
        kept = [line for line in path.read_text("utf-8").split("\n") if "libyajl-dev" not in line]
        path.write_text("\n".join(kept), encoding="utf-8")
        self.assert_found("audit", r"libyajl2, linked by .*, is not in dependencies\.md")

    def test_test(self):
        self.copy.replace("common/base.h", "return !__builtin_add_overflow", "return __builtin_add_overflow")
        self.assert_found("test", r"unit/base failed")

    def test_san(self):
        self.copy.replace("tests/unit/test_base.c", "\nstatic Suite *make_suite(",
                          LEAK + "\nstatic Suite *make_suite(")
        self.copy.replace("tests/unit/test_base.c", "tcase_add_test(",
                          "tcase_add_test(cases, test_planted);\n    tcase_add_test(")
        self.assert_found("san", r"LeakSanitizer: detected memory leaks", ())


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    unittest.main(verbosity=2, argv=sys.argv)
