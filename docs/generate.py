#!/usr/bin/env python3
"""Man pages and shell completion from what the programs say of themselves: --help is printed from
each program's table of options, so there is no second list.

    generate.py man PROGRAM SECTION     man page of a program, on stdout
    generate.py conf                    sluice.conf(5), from docs/configuration.md
    generate.py completion PROGRAM      bash completion of a program

PROGRAM is the path of a built program. A help text that is not understood ends it with an error."""

import datetime
import os
import pathlib
import re
import subprocess
import sys

DOCS = pathlib.Path(__file__).resolve().parent
OPTION = re.compile(r"^  --([a-z-]+)(?: (\S+))?(?:  +(.*))?$")
COMMAND = re.compile(r"^  ([a-z]+)((?: [A-Z|]+)?)  +(.*)$")
CHOICES = re.compile(r"^(\w+(?: \| \w+)+):")


class Help:
    """What `PROGRAM --help` says: usage, opening paragraphs, options, sections in their order."""

    def __init__(self, path):
        self.program = pathlib.Path(path).name
        out = subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout
        self.version = subprocess.run([path, "--version"], capture_output=True, text=True,
                                      check=True).stdout.split()[-1]
        blocks = [block.split("\n") for block in out.rstrip("\n").split("\n\n")]
        head = blocks.pop(0)
        found = re.fullmatch(r"Usage: (\S+)(?: (.*))?", head[0])
        if len(head) != 1 or not found or found[1] != self.program:
            raise SystemExit(f"{path}: --help does not open with its usage")
        self.usage = found[2] or ""
        self.options = []
        self.commands = []
        self.parts = []  # (title or None, lines), without options and commands
        for block in blocks:
            self.add(block)

    def add(self, block):
        if block[0] == "Options:":
            self.options = list(read_items(block[1:], OPTION))
        elif block[0] == "Commands:":
            self.commands = list(read_items(block[1:], COMMAND))
        elif block[0].endswith(":") and len(block) > 1 and block[1].startswith("  "):
            self.parts.append((block[0][:-1], block[1:]))
        else:
            self.parts.append((None, block))


def read_items(lines, pattern):
    """(name, argument, lines of help) of each item; a line that begins none goes on with the last."""
    item = None
    for line in lines:
        found = pattern.match(line)
        if found:
            if item:
                yield item
            item = (found[1], (found[2] or "").strip(), [found[3]] if found[3] else [])
        elif item and line.startswith("    "):
            item[2].append(line.strip())
        else:
            raise SystemExit(f"not understood: {line!r}")
    yield item


# ---- man pages


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "\\&" + text if text.startswith(".") else text


def today():
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    day = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc) if seconds else \
        datetime.datetime.now(datetime.timezone.utc)
    return day.strftime("%Y-%m-%d")


def title_line(name, section, version):
    return f'.TH {name.upper()} {section} {today()} "Sluice {version}" "Sluice"'


def table(lines):
    """Rows of a name and its meaning, two spaces apart; a line further in goes on with the last."""
    for line in lines:
        cells = re.split(r"  +|: ", line.strip(), maxsplit=1)
        if len(cells) == 2 and line.startswith("  ") and not line.startswith("    "):
            yield from (".TP", rf"\fB{roff(cells[0])}\fR", roff(cells[1]))
        else:
            yield roff(line.strip())


def items(rows, prefix):
    for name, argument, lines in rows:
        shown = rf"\fB{roff(prefix + name)}\fR" + (rf" \fI{roff(argument)}\fR" if argument else "")
        yield from (".TP", shown)
        yield from (roff(line) for line in lines)


def man_page(text, section):
    opening = [lines for title, lines in text.parts if title is None]
    name_line = re.split(r"(?<=[.:]) |\.$", " ".join(opening[0]), maxsplit=1)[0].rstrip(".:")
    out = [title_line(text.program, section, text.version), ".SH NAME",
           roff(text.program) + r" \- " + roff(name_line[0].lower() + name_line[1:]),
           ".SH SYNOPSIS", rf"\fB{roff(text.program)}\fR {roff(text.usage)}".rstrip(),
           ".SH DESCRIPTION", *(roff(line) for line in opening[0])]
    for lines in opening[1:]:
        out += [".PP", *(roff(line) for line in lines)]
    if text.commands:
        out += [".SH COMMANDS", *items(text.commands, "")]
    out += [".SH OPTIONS", *items(text.options, "--")]
    for title, lines in text.parts:
        if title is not None:
            out += [f".SH {roff(title.upper())}", *table(lines)]
    out += [".SH FILES", ".TP", r"\fI/etc/sluice/sluice.conf\fR",
            r"The configuration, when there is none in \fB\-\-config\fR, \fB$SLUICE_CONFIG\fR or",
            r"\fI~/.config/sluice/sluice.conf\fR; see \fBsluice.conf\fR(5).",
            ".SH SEE ALSO", see_also(text.program)]
    return "\n".join(out) + "\n"


PAGES = (("sluice-ctl", 1), ("sluice-status", 1), ("sluice-submit", 1), ("sluice.conf", 5),
         ("sluice-broker", 8), ("sluice-worker", 8))


def see_also(name):
    return ",\n".join(rf"\fB{roff(page)}\fR({section})" for page, section in PAGES if page != name)


def markdown(text):
    """A line of prose in Markdown as roff."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    text = re.sub(r"(?<!\S)\*([^*\s][^*]*)\*", r"\1", text)
    parts = re.split(r"`([^`]+)`", text)
    return "".join(rf"\fB{roff(part)}\fR" if odd % 2 else roff(part)
                   for odd, part in enumerate(parts))


def conf_page(version):
    out = [title_line("sluice.conf", 5, version), ".SH NAME",
           r"sluice.conf \- configuration of the Sluice queue"]
    header = []
    for line in (DOCS / "configuration.md").read_text(encoding="utf-8").split("\n"):
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if line.startswith("# "):
            out.append(".SH DESCRIPTION")
        elif line.startswith("## "):
            out.append(f".SH {roff(line[3:].upper())}")
        elif not cells:
            header = []
            out += conf_prose(line, out[-1])  # "" marks an empty line
        elif not header:
            header = cells
        elif not set("".join(cells)) <= set("-"):
            out += conf_row(header, cells)
    out += [".SH SEE ALSO", see_also("sluice.conf")]
    return "".join(line + "\n" for line in out if line)


def conf_prose(line, last):
    item = re.match(r"(?:\*|\d+\.) (.*)", line)
    if item:
        return [".IP \\(bu 2", markdown(item[1])]
    if not line:
        return [] if last.startswith(".SH") else [""]
    return [".PP", markdown(line.strip())] if last == "" else [markdown(line.strip())]


def conf_row(header, cells):
    facts = [f"{name}: {cell}" for name, cell in zip(header[1:-1], cells[1:-1])
             if cell not in ("-", "")]
    return [".TP", markdown(cells[0]), markdown(cells[-1]), ".br", markdown("; ".join(facts))]


# ---- completion


def completion_of(name, argument, lines):
    """The lines of the case for an option's value; None: a flag."""
    choices = CHOICES.match(lines[0]) if lines else None
    span = re.fullmatch(r"(\d)\.\.(\d)", argument)
    if not argument:
        return None
    if argument == "FILE":
        words = 'compgen -f -- "$cur"'
    elif choices:
        words = f'compgen -W "{choices[1].replace(" |", "")}" -- "$cur"'
    elif span:
        words = f'compgen -W "{{{span[1]}..{span[2]}}}" -- "$cur"'
    else:
        words = "true"
    return f"    --{name}) mapfile -t COMPREPLY < <({words}); return ;;"


def completion(text):
    function = "_" + text.program.replace("-", "_")
    cases = [case for option in text.options if (case := completion_of(*option))]
    options = " ".join("--" + name for name, _, _ in text.options)
    if text.commands:
        other = f'compgen -W "{" ".join(name for name, _, _ in text.commands)}" -- "$cur"'
    else:
        other = 'compgen -f -- "$cur"' if "FILE" in text.usage else "true"
    return "\n".join([
        f"# bash completion of {text.program}; made from its --help, not to be edited",
        "# shellcheck shell=bash", f"{function}() {{",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}",
        "    # --name=value comes as three words",
        "    if [[ $cur == = ]]; then",
        "        cur=",
        "    elif [[ $prev == = ]]; then",
        "        prev=${COMP_WORDS[COMP_CWORD - 2]}",
        "    fi",
        "    COMPREPLY=()",
        "    case $prev in", *cases, "    esac",
        "    if [[ $cur == -* ]]; then",
        f'        mapfile -t COMPREPLY < <(compgen -W "{options}" -- "$cur")',
        "    else",
        f"        mapfile -t COMPREPLY < <({other})",
        "    fi", "}",
        f"complete -o filenames -F {function} {text.program}", ""])


def main():
    words = sys.argv[1:]
    if len(words) == 3 and words[0] == "man":
        sys.stdout.write(man_page(Help(words[1]), words[2]))
    elif len(words) == 2 and words[0] == "conf":
        sys.stdout.write(conf_page(words[1]))
    elif len(words) == 2 and words[0] == "completion":
        sys.stdout.write(completion(Help(words[1])))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
