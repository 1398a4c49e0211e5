#!/usr/bin/env python3
"""Checks the house rules that a compiler does not: who may include whom, one door for each outside
thing, banned functions, no sleeping, the length of files and lines.

Prints FILE:LINE: reason for each fault; exit status 1 if there is one."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("common", "broker", "worker", "tools", "tests")
FILE_LINES_MAX = 800
LINE_COLUMNS_MAX = 100

# Which project files a file may include: (files, what they may include). The first match counts.
# tools may use the worker's provider code: with the queue off, submit makes the calls itself.
LAYERS = (
    (r"common/", r"common/"),
    (r"broker/policy/", r"broker/policy/|common/(base|limits|err|check|task)\.h"),
    (r"broker/", r"broker/|common/"),
    (r"worker/", r"worker/|common/"),
    (r"tools/", r"tools/|common/|worker/"),
    (r"tests/", r".*"),
)

# One door for each outside header: (header, files that may include it).
HEADER_DOORS = (
    (r"lmdb\.h", r"broker/(store|commit)"),
    (r"curl/curl\.h", r"worker/transfer"),
    (r"msgpack.*\.h", r"common/wire"),
    (r"libconfig\.h", r"common/params"),
    (r"yajl/.*", r"common/json"),
    (r"microhttpd\.h", r"broker/http"),
    (r"semaphore\.h", r"common/(bell|shm_layout)"),
    (r"stdatomic\.h",
     r"common/(ring|counters|shm|shm_layout|lane|bell|arena|log|check)|broker/(lane|counters|http|store)"),
    (r"sys/wait\.h", r"worker/parent|tools/start"),
)

# One door for each outside call: (name, files that may call it).
CALL_DOORS = (
    (r"v?fork|waitpid|waitid|posix_spawn", r"worker/parent|tools/start"),
    (r"clock_gettime|gettimeofday|time", r"common/clock"),
    # tools/idset: one sparse anonymous table, shared with nobody.
    (r"mmap|memfd_create|munmap", r"common/(shm|lane)|tools/idset"),
    (r"eventfd", r"common/(os|bell)\.c"),
    # worker/transfer: whether a proxy is set, which changes how names are resolved.
    (r"getenv|secure_getenv", r"common/(params|notify)|worker/(keys|transfer)|tools/"),
)

# Nobody calls these: unbounded, or a wait without an event.
BANNED = r"strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|alloca|gets|sleep|usleep|nanosleep"

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
NOT_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def without_comments_and_strings(text):
    return NOT_CODE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def calls(names):
    """A call of one of the names: not a member, not part of a longer name, not a declaration of
    another function."""
    return re.compile(rf"(?<![\w.>])(?:{names})\s*\(")


def may_include(name, target):
    for files, allowed in LAYERS:
        if re.match(files, name):
            return re.match(allowed, target) is not None
    return False


def check_include(name, quote, target):
    if quote == '"':
        if not (ROOT / target).is_file():
            return f'"{target}" is not a path from the root of the tree'
        if not may_include(name, target):
            return f"{target} may not be included here (see LAYERS in tools/gates/layers.py)"
        return None
    for header, door in () if name.startswith("tests/") else HEADER_DOORS:
        if re.fullmatch(header, target) and not re.match(door, name):
            return f"<{target}> has its door in {door}"
    return None


def check_file(path):
    name = str(path.relative_to(ROOT))
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    if len(lines) - 1 > FILE_LINES_MAX:
        yield f"{name}:{len(lines) - 1}: over {FILE_LINES_MAX} lines"
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_COLUMNS_MAX and path.suffix != ".def":
            yield f"{name}:{number}: over {LINE_COLUMNS_MAX} columns"
        found = INCLUDE.match(line)
        fault = found and check_include(name, found.group(1), found.group(2))
        if fault:
            yield f"{name}:{number}: {fault}"
    yield from check_calls(name, without_comments_and_strings(text))


def check_calls(name, code):
    doors = [] if name.startswith("tests/") else list(CALL_DOORS)
    for number, line in enumerate(code.split("\n"), 1):
        found = calls(BANNED).search(line)
        if found:
            yield f"{name}:{number}: {found.group().rstrip('( ')}() is banned"
        for names, door in doors:
            found = calls(names).search(line)
            if found and not re.match(door, name):
                yield f"{name}:{number}: {found.group().rstrip('( ')}() has its door in {door}"


def sources():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".c", ".h", ".def"):
                yield path


def main():
    faults = [fault for path in sources() for fault in check_file(path)]
    for fault in faults:
        print(fault)
    print(f"layers: {sum(1 for _ in sources())} files, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
