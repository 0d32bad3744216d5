"""The project's pages as data: fenced blocks, the table of names, links and headings, to be checked by tests.

A block is marked by a comment on the line before it: `<!-- help: PROGRAM [COMMAND] -->` holds what
`PROGRAM [COMMAND] --help` prints, `<!-- run -->` a script that has to run, and `<!-- prints -->` what the script before
it prints. As a program (`./dev readme`) it writes the help texts anew.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
"""What tells users and developers of the project, and has marked blocks."""
LINKED_PAGES = (*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")))
BLOCK = re.compile(
    r"<!-- (?P<mark>[a-z]+)(?:: (?P<argument>[^>]*?))? -->\n```(?P<language>\w+)\n(?P<content>.*?)```\n", re.DOTALL
)
NAME_TABLE = re.compile(r"^\| file \| image \|\n(?P<rows>(?:\|.*\n)+)", re.MULTILINE)
NAME_ROW = re.compile(r"^\| `(?P<name>[^`]+)` +\| `(?P<reference>[^`]+)` +\|", re.MULTILINE)
FENCED = re.compile(r"^ *(?P<fence>```+)\w*\n.*?^ *(?P=fence)$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
LINK = re.compile(r"(?:\]\(|\b(?:src|srcset)=\")(?P<target>[^()\"\s]+)[)\"]")
HELP_WIDTH_COLUMNS = 100
HELP_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Block:
    """A marked block of a page."""

    mark: str
    argument: str
    language: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """A script and what it is said to print (None: nothing is said)."""

    script: str
    language: str
    prints: str | None


def all_text() -> str:
    """Return the pages, one after the other."""
    return "\n".join(page.read_text() for page in PAGES)


def blocks(text: str) -> list[Block]:
    """All marked blocks, in order."""
    return [
        Block(mark=m["mark"], argument=m["argument"] or "", language=m["language"], content=m["content"])
        for m in BLOCK.finditer(text)
    ]


def examples(text: str) -> list[Example]:
    """The scripts that have to run, each with what it prints."""
    found = blocks(text)
    following = [*found[1:], None]
    return [
        Example(
            script=block.content,
            language=block.language,
            prints=after.content if after is not None and after.mark == "prints" else None,
        )
        for block, after in zip(found, following, strict=True)
        if block.mark == "run"
    ]


def names(text: str) -> list[tuple[str, str]]:
    """The rows of the tables of file names: name, reference."""
    rows = "".join(table["rows"] for table in NAME_TABLE.finditer(text))
    return [(row["name"], row["reference"]) for row in NAME_ROW.finditer(rows)]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return FENCED.sub("", text)


def anchors(text: str) -> set[str]:
    """Return what links can name behind `#`: the headings as GitHub spells them."""
    titles = [match["title"].strip().lower() for match in HEADING.finditer(prose(text))]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the links and pictures of a page that are files of the project: the file, and the anchor or nothing."""
    for match in LINK.finditer(re.sub(r"`[^`\n]*`", "", prose(page.read_text()))):
        target, _, anchor = match["target"].partition("#")
        if "://" not in match["target"]:
            yield (page.parent / target).resolve() if target else page, anchor


def help_text(command: str) -> str:
    """What a program prints when asked for help, at a fixed width, whatever the terminal.

    A program itself is started; all its commands are asked within one process, since there are dozens.
    """
    program, _, subcommand = command.partition(" ")
    if subcommand:
        return command_help(program, subcommand)
    return _lines(_run(program, "--help"))


@cache
def command_help(program: str, subcommand: str) -> str:
    """What a program prints when one of its commands is asked for help."""
    return _lines(_commands_help(program)[subcommand])


@cache
def commands(program: str) -> tuple[str, ...]:
    """The commands that a program's help lists."""
    listed = help_text(program).partition("\nCommands:\n")[2]
    return tuple(re.findall(r"^  (\S+)", listed, re.MULTILINE))


@cache
def _commands_help(program: str) -> dict[str, str]:
    printed = _run(sys.executable, __file__, program, *commands(program))
    return dict(json.loads(printed))


def _run(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    environment |= {"COLUMNS": str(HELP_WIDTH_COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=HELP_TIMEOUT_SECONDS
    ).stdout


def _lines(printed: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in printed.strip("\n").splitlines())


def _ask(program: str, subcommands: list[str]) -> dict[str, str]:
    """Call a program's entry point in this process, once for the help of each command."""
    (entry,) = entry_points(group="console_scripts", name=program)
    start, answers = entry.load(), {}
    for subcommand in subcommands:
        sys.argv = [program, subcommand, "--help"]
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            start()
        answers[subcommand] = printed.getvalue()
    return answers


def refreshed(text: str) -> str:
    """A page with its help texts as the programs print them now."""

    def fresh(match: re.Match[str]) -> str:
        if match["mark"] != "help":
            return match[0]
        argument, language = match["argument"], match["language"]
        return f"<!-- help: {argument} -->\n```{language}\n{help_text(argument)}```\n"

    return BLOCK.sub(fresh, text)


def main() -> int:
    """Refresh the pages."""
    changed = False
    for page in PAGES:
        text, name = page.read_text(), page.relative_to(ROOT)
        try:
            now = refreshed(text)
        except subprocess.CalledProcessError as exc:
            print(f"{name} stays as it is: {' '.join(exc.cmd)} failed.\n{exc.stderr}")
            return 1
        if now != text:
            page.write_text(now)
            print(f"{name} has new help texts.")
            changed = True
    if not changed:
        print("All help texts are up to date.")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_ask(sys.argv[1], sys.argv[2:])))
    else:
        sys.exit(main())
