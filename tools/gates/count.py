#!/usr/bin/env python3
"""Counts the single tests in a report of ctest (JUnit): the checks of libcheck and the tests of
unittest; a program that says neither counts as one test. Prints "PASSED FAILED SKIPPED", and
appends what the failed programs said to a file.

usage: count.py REPORT FILE"""

import re
import sys
import xml.etree.ElementTree

LINES_SHOWN = 120
CHECK = re.compile(r"Checks: (\d+), Failures: (\d+), Errors: (\d+)")
UNITTEST = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
UNITTEST_BAD = re.compile(r"^FAILED \((.*)\)$", re.MULTILINE)
SKIPPED = re.compile(r"\bskipped[=:]\s*(\d+)?")


def numbers(text):
    return sum(int(number) for number in re.findall(r"(?:failures|errors)=(\d+)", text))


def is_failed(case):
    return case.get("status") == "fail" or case.find("failure") is not None


def count(case):
    """(passed, failed, skipped) of one test program."""
    out = case.findtext("system-out") or ""
    has_failed = is_failed(case)
    totals = [(int(a), int(b) + int(c)) for a, b, c in CHECK.findall(out)]
    for total in UNITTEST.findall(out):
        bad = sum(numbers(text) for text in UNITTEST_BAD.findall(out))
        totals.append((int(total), bad))
    total = sum(item[0] for item in totals) or 1
    failed = sum(item[1] for item in totals)
    if has_failed and failed == 0:
        failed, total = 1, max(total, 1)  # it crashed, or ran out of time
    skipped = sum(int(number or 1) for number in SKIPPED.findall(out))
    skipped = min(skipped, total - failed)
    return total - failed - skipped, failed, skipped


def main():
    cases = list(xml.etree.ElementTree.parse(sys.argv[1]).getroot().iter("testcase"))
    sums = [sum(column) for column in zip(*(count(case) for case in cases))] or [0, 0, 0]
    print(*sums)
    with open(sys.argv[2], "a", encoding="utf-8") as said:
        for case in filter(is_failed, cases):
            lines = (case.findtext("system-out") or "").split("\n")
            print(f"---- {case.get('name')} failed; its last lines:", *lines[-LINES_SHOWN:],
                  sep="\n", file=said)


if __name__ == "__main__":
    main()
