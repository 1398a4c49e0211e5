#!/usr/bin/env python3
"""Looks for secrets in the tree (tracked and new files) and in all of git's history.

A made-up key says so itself: its own text holds one of the words of MADE_UP. No file is exempt.

usage: secrets.py [--tree | --staged]
  --tree    the tree alone, without the history
  --staged  only what is about to be committed (the hook)
Prints PLACE: kind for each, never the secret; exit status 1 if there is one."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE_BYTES_MAX = 4 << 20
MADE_UP = re.compile(r"canary|example|made-?up|fake|dummy|stub|of-the-test|test-key", re.IGNORECASE)

# (kind, pattern); the first group is the secret.
PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in (
    ("API key", r"\b(sk-[A-Za-z0-9_-]{16,})"),
    ("AWS access key", r"\b((?:AKIA|ASIA)[A-Z0-9]{16})\b"),
    ("Google API key", r"\b(AIza[A-Za-z0-9_-]{30,})"),
    ("GitHub token", r"\b((?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{30,})"),
    ("Slack token", r"\b(xox[abprs]-[A-Za-z0-9-]{20,})"),
    ("bearer token", r"[Bb]earer\s+([A-Za-z0-9._~+/-]{20,})"),
    ("JSON web token", r"\b(eyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]+)"),
    ("private key", r"(-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----)"),
    ("password in a URL", r"://[^/\s:@'\"]+:([^/\s:@'\"{}$<>%]{6,})@"),
    ("assigned secret", r"(?i)\b(?:api_?key|secret_?key|auth_?token|passwo?rd)\b[\"']?\s*[=:]\s*"
                        r"[\"']([A-Za-z0-9+/_-]{24,}=*)[\"']"),
))


def git(*words):
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace")


def kinds_in(line):
    for kind, pattern in PATTERNS:
        for found in pattern.finditer(line):
            if not MADE_UP.search(found.group(1)):
                yield kind


def tree_lines():
    """(place, line) of every file that git has or would take; too large is a fault."""
    for name in git("ls-files", "-co", "--exclude-standard", "-z").split("\0"):
        path = ROOT / name
        if not name or path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_size > FILE_BYTES_MAX:
            sys.exit(f"{name}:1: over {FILE_BYTES_MAX} bytes, too large to look through")
        text = path.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.split("\n"), 1):
            yield f"{name}:{number}", line


def patch_lines(text):
    """(place, line) of every line that the patches add."""
    commit, name = "staged", "?"
    for line in text.split("\n"):
        if line.startswith("commit "):
            commit = line.split()[1][:12]
        elif line.startswith("+++ "):
            name = line[4:].removeprefix("b/")
        elif line.startswith("+"):
            yield f"{commit}:{name}", line[1:]


def lines_of(option):
    if option == "--staged":
        yield from patch_lines(git("diff", "--cached", "-U0", "--no-color", "--no-ext-diff"))
        return
    yield from tree_lines()
    if option != "--tree":
        yield from patch_lines(git("log", "--all", "-p", "-m", "-U0", "--no-color", "--no-ext-diff"))


def main():
    option = sys.argv[1] if len(sys.argv) > 1 else ""
    if not (ROOT / ".git").exists():
        print("skipped: no git repository here, so neither files nor history to look through")
        return 0
    count, faults = 0, []
    for place, line in lines_of(option):
        count += 1
        faults += [f"{place}: {kind}" for kind in kinds_in(line)]
    for fault in dict.fromkeys(faults):
        print(fault)
    print(f"secrets: {count} lines, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
