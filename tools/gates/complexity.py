#!/usr/bin/env python3
"""Checks the size of functions with pmccabe: McCabe complexity (a switch counts once) and lines.

Tests are held to the length alone. Prints FILE:LINE: reason; exit status 1 if there is a fault."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PRODUCT = ("common", "broker", "worker", "tools")
COMPLEXITY_MAX = 8
LINES_MAX = 70


def measure(files):
    """Yields (complexity, lines, place, function) for each function."""
    out = subprocess.run(["pmccabe", *files], cwd=ROOT, capture_output=True, text=True, check=True)
    for line in out.stdout.splitlines():
        complexity, _, _, _, lines, place, function = line.split(None, 6)
        yield int(complexity), int(lines), place, function


def faults_of(complexity, lines, place, function):
    if complexity > COMPLEXITY_MAX and not place.startswith("tests/"):
        yield f"{place}: {function}: complexity {complexity}, at most {COMPLEXITY_MAX}"
    if lines > LINES_MAX:
        yield f"{place}: {function}: {lines} lines, at most {LINES_MAX}"


def main():
    files = [str(path.relative_to(ROOT)) for folder in (*PRODUCT, "tests")
             for path in sorted((ROOT / folder).rglob("*.c"))]
    functions = list(measure(files)) if files else []
    faults = [fault for function in functions for fault in faults_of(*function)]
    for fault in faults:
        print(fault)
    print(f"complexity: {len(functions)} functions, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
