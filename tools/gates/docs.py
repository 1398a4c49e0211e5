#!/usr/bin/env python3
"""Checks the documentation: relative links lead to a file (and, with #, to a heading in it), and
docs/errors.md, when it is there, names every row of the error table.

Prints FILE:LINE: reason for each fault; exit status 1 if there is one."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = ("build", ".git", "node_modules")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)
ERROR_ROW = re.compile(r'^X\(\w+, \d+, "(\w+)",', re.MULTILINE)


def pages():
    for path in sorted(ROOT.rglob("*.md")):
        first = path.relative_to(ROOT).parts[0]
        if not first.startswith(SKIPPED):
            yield path


def anchors(path):
    """The anchors of a page's headings, as most viewers make them."""
    headings = HEADING.findall(path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def fault_of(page, link):
    if re.match(r"[a-z]+:", link):
        return None  # elsewhere: not looked at, the gate needs no network
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return f"{link} leads nowhere"
    if anchor and target.suffix == ".md" and anchor not in anchors(target):
        return f"{link}: no such heading"
    return None


def link_faults(page):
    is_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").split("\n"), 1):
        is_code ^= line.startswith("```")
        for link in [] if is_code else LINK.findall(line):
            fault = fault_of(page, link)
            if fault:
                yield f"{page.relative_to(ROOT)}:{number}: {fault}"


def error_faults():
    page = ROOT / "docs/errors.md"
    if not page.exists():
        return
    text = page.read_text(encoding="utf-8")
    for code in ERROR_ROW.findall((ROOT / "common/tbl/errors.def").read_text(encoding="utf-8")):
        if code != "ok" and f"`{code}`" not in text:
            yield f"docs/errors.md:1: `{code}` of common/tbl/errors.def is missing"


def main():
    faults = [fault for page in pages() for fault in link_faults(page)] + list(error_faults())
    for fault in faults:
        print(fault)
    print(f"docs: {sum(1 for _ in pages())} pages, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
