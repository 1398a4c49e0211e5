#!/usr/bin/env python3
"""Audits what the built programs link: each library must stand in the table of docs/dependencies.md
with its version and licence, and nothing in the table may be linked by nobody. A security update of
Debian that waits for one of these libraries is a fault; one for a library that those load in turn is
reported: what is installed is up to the machine. Writes an SBOM (SPDX 2.3, JSON).

usage: audit.py DIRECTORY SBOM_FILE
Prints reasons; exit status 1 if there is one."""

import datetime
import functools
import hashlib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs/dependencies.md"
PROGRAMS = ("sluice-broker", "sluice-worker", "sluice-submit", "sluice-status", "sluice-ctl")
LIBC = "libc6"  # libc and libm: every program on Debian, not in the table
ROW = re.compile(
    r"^\| ([^|]+?) (\d[\d.]*)(?: \([^)|]*\))? \| `([\w.+-]+)` \| ([^|]+?) \| ([^|]+) \|", re.MULTILINE)
SPDX = {"OpenLDAP 2.8": "OLDAP-2.8", "curl (MIT-like)": "curl", "Boost 1.0": "BSL-1.0",
        "ISC": "ISC", "LGPL-2.1+": "LGPL-2.1-or-later"}


def said_by(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed(program):
    """{soname: path} of what the program itself names; what those need is Debian's."""
    named = set(re.findall(r"\(NEEDED\).*\[(.+?)\]", said_by("readelf", "-dW", str(program))))
    found = dict(re.findall(r"^\s*(\S+) => (/\S+)", said_by("ldd", str(program)), re.MULTILINE))
    return {name: found.get(name) for name in named}


@functools.cache
def package_of(path):
    """The package that a library came with; dpkg knows it by one of its names."""
    real = pathlib.Path(path).resolve()
    for name in (str(real), path, str(real).removeprefix("/usr"), "/usr" + str(real)):
        done = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.split(":")[0]
    return None


@functools.cache
def query(package, field):
    return said_by("dpkg-query", "-W", "-f", "${%s}\n" % field, package).splitlines()[0]


def linked_packages(folder):
    """({package: programs}, faults)"""
    packages, faults = {}, []
    for name in PROGRAMS:
        for soname, path in needed(folder / name).items():
            package = package_of(path) if path else None
            if package is None:
                faults.append(f"{name}: {soname} belongs to no Debian package")
            else:
                packages.setdefault(package, set()).add(name)
    return packages, faults


def read_table():
    """{development package: (library, version, licence, door)}"""
    return {row[2]: (row[0], row[1], row[3], row[4]) for row in ROW.findall(TABLE.read_text("utf-8"))}


def is_for(package, development):
    """Does the runtime package belong to the development package? By source and version."""
    fields = ("source:Package", "source:Version")
    return all(query(package, field) == query(development, field) for field in fields)


def table_faults(packages, table):
    """(faults, {package: row}): each linked package against its row, and each row against them."""
    faults, rows = [], {}
    for package, programs in sorted(packages.items()):
        row = next((key for key in table if package != LIBC and is_for(package, key)), None)
        if row is None:
            if package != LIBC:
                faults.append(f"{package}, linked by {', '.join(sorted(programs))}, is not in {TABLE.name}")
            continue
        rows[package] = table[row]
        version = re.sub(r"^\d+:", "", query(package, "Version"))
        if not version.startswith(table[row][1]):
            faults.append(f"{TABLE.name}: {table[row][0]} is {version} here, not {table[row][1]}")
    for development, (name, _, licence, door) in table.items():
        if licence not in SPDX:
            faults.append(f"{TABLE.name}: licence {licence} of {name} has no SPDX name in audit.py")
        if "tests/" not in door and not any(row[0] == name for row in rows.values()):
            faults.append(f"{TABLE.name}: no program links {name} ({development})")
    return faults, rows


def all_libraries(folder):
    """The packages of everything that gets loaded, the libraries' own libraries too."""
    paths = {path for name in PROGRAMS
             for path in re.findall(r"=> (/\S+)", said_by("ldd", str(folder / name)))}
    return sorted({package for package in map(package_of, paths) if package})


def security_faults(linked, loaded):
    """Updates that wait in Debian's security suite, by the package lists of this machine."""
    lists = list(pathlib.Path("/var/lib/apt/lists").glob("*-security*Packages*"))
    if not lists:
        print("skipped: no package lists of the security suite here (apt-get update); "
              "pending security updates are not known")
        return []
    age = max(entry.stat().st_mtime for entry in lists)
    print(f"security: package lists of {datetime.date.fromtimestamp(age)}")
    text = said_by("apt-get", "-s", "-o", "Debug::NoLocking=1", "--no-install-recommends",
                   "upgrade")
    faults = []
    for name, old, new in re.findall(r"^Inst (\S+) \[(\S+)\] \((\S+) [^)]*[Ss]ecurity", text, re.M):
        if name in linked:
            faults.append(f"{name} {old}: the security update {new} waits (apt-get upgrade)")
        elif name in loaded:
            print(f"note: {name} {old}, loaded by a library: {new} waits (apt-get upgrade)")
    return faults


def spdx_package(package, licence):
    version = query(package, "Version")
    return {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", package), "name": package,
        "versionInfo": version, "supplier": "Organization: Debian", "filesAnalyzed": False,
        "downloadLocation": "NOASSERTION", "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence, "copyrightText": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                          "referenceLocator": f"pkg:deb/debian/{package}@{version}"}],
    }


def write_sbom(path, folder, rows, libraries):
    version = re.search(r"project\(sluice VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    own = {"SPDXID": "SPDXRef-sluice", "name": "sluice", "versionInfo": version,
           "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
           "licenseConcluded": "MIT", "licenseDeclared": "MIT", "copyrightText": "NOASSERTION"}
    listed = [spdx_package(package, SPDX[rows[package][2]] if package in rows else "NOASSERTION")
              for package in libraries]
    sums = "".join(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in PROGRAMS)
    document = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"sluice-{version}",
        "documentNamespace": "https://sluice.invalid/spdx/" + hashlib.sha256(sums.encode()).hexdigest(),
        "creationInfo": {"creators": ["Tool: tools/check audit"], "created":
                         datetime.datetime.utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")},
        "packages": [own, *listed],
        "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                           "relatedSpdxElement": "SPDXRef-sluice"}] +
                         [{"spdxElementId": "SPDXRef-sluice", "relationshipType": "DYNAMIC_LINK"
                           if package["name"] in rows or package["name"] == LIBC else "DEPENDS_ON",
                           "relatedSpdxElement": package["SPDXID"]} for package in listed],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main():
    folder, sbom = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    packages, faults = linked_packages(folder)
    more, rows = table_faults(packages, read_table())
    libraries = all_libraries(folder)
    faults += more + security_faults(packages, libraries)
    for fault in faults:
        print(fault)
    if not faults:
        write_sbom(sbom, folder, rows, libraries)
    print(f"audit: {len(packages)} packages linked, {len(libraries)} loaded, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
