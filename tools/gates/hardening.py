#!/usr/bin/env python3
"""Checks in the built programs what the hardening flags of CMakeLists.txt promise.

Headers and dynamic section say how a program was linked, its symbols whether stack canaries and
checked copies are in it, its debug information with which flags each file was compiled.

usage: hardening.py DIRECTORY [PROGRAM...]
Prints PROGRAM: reason for each fault; exit status 1 if there is one."""

import pathlib
import platform
import re
import subprocess
import sys

PROGRAMS = ("sluice-broker", "sluice-worker", "sluice-submit", "sluice-status", "sluice-ctl")
FLAGS = ["-fPIE", "-fstack-protector-strong", "-fstack-clash-protection"]
if platform.machine() == "x86_64":
    FLAGS.append("-fcf-protection=full")

# (what must be there, what readelf says then)
LINKED = (
    ("position independent (-pie)", r"^\s*Type:\s+DYN \(Position-Independent"),
    ("read-only relocations (-z relro)", r"^\s*GNU_RELRO\s"),
    ("all symbols bound at start (-z now)", r"\(FLAGS\).*BIND_NOW|\(FLAGS_1\).*\bNOW\b"),
    ("a stack that is not executable (-z noexecstack)", r"^\s*GNU_STACK\s.*\sRW\s+0x"),
    ("stack canaries (-fstack-protector-strong)", r"\b__stack_chk_fail\b"),
    ("checked copies (-D_FORTIFY_SOURCE)", r"\b__\w+_chk\b"),
)
NEVER = (
    ("a library path of its own", r"\((?:RPATH|RUNPATH)\)"),
    ("relocations in its code", r"\(TEXTREL\)"),
    ("a segment that is writable and executable", r"^\s*LOAD\s.*\sRWE\s"),
)


def said_by(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compile_faults(program):
    """Each unit's producer line in the debug information holds its flags."""
    text = said_by("objdump", "--dwarf=info", "--dwarf-depth=1", str(program))
    units = re.findall(r"DW_AT_producer\s*:(?: \(.*?\):)? (.*)", text)
    if not units:
        yield "no debug information to read the compiler's flags from"
    for flag in FLAGS:
        missing = sum(1 for unit in units if flag not in unit.split())
        if missing:
            yield f"{missing} of {len(units)} files are compiled without {flag}"


def faults_of(program):
    if not program.is_file():
        yield "not built"
        return
    text = said_by("readelf", "-hldW", "--dyn-syms", str(program))
    for promise, pattern in LINKED:
        if not re.search(pattern, text, re.MULTILINE):
            yield f"lacks {promise}"
    for sin, pattern in NEVER:
        if re.search(pattern, text, re.MULTILINE):
            yield f"has {sin}"
    yield from compile_faults(program)


def main():
    folder = pathlib.Path(sys.argv[1])
    names = sys.argv[2:] or PROGRAMS
    faults = [f"{name}: {fault}" for name in names for fault in faults_of(folder / name)]
    for fault in faults:
        print(fault)
    print(f"hardening: {len(names)} programs, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
