"""README.md as data: its fenced blocks and its table of names, so that both can be checked against the programs.

A block is marked by a comment on the line before it:
`<!-- help: PROGRAM [COMMAND] -->` holds what `PROGRAM [COMMAND] --help` prints, `<!-- run -->` a script that has
to run, and
`<!-- prints -->` what the script before it prints. As a program (`./dev readme`) it writes the help texts anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(
    r"<!-- (?P<mark>[a-z]+)(?:: (?P<argument>[^>]*?))? -->\n```(?P<language>\w+)\n(?P<content>.*?)```\n", re.DOTALL
)
NAME_ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| `(?P<reference>[^`]+)` \|", re.MULTILINE)
HELP_WIDTH_COLUMNS = 100
HELP_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Block:
    """A marked block of the README."""

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
    """The rows of the table of file names: name, reference."""
    return [(row["name"], row["reference"]) for row in NAME_ROW.finditer(text)]


def help_text(command: str) -> str:
    """What a program prints when asked for help, at a fixed width, whatever the terminal."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    environment |= {"COLUMNS": str(HELP_WIDTH_COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [*command.split(), "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=HELP_TIMEOUT_SECONDS,
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.strip("\n").splitlines())


def refreshed(text: str) -> str:
    """The README with its help texts as the programs print them now."""

    def fresh(match: re.Match[str]) -> str:
        if match["mark"] != "help":
            return match[0]
        argument, language = match["argument"], match["language"]
        return f"<!-- help: {argument} -->\n```{language}\n{help_text(argument)}```\n"

    return BLOCK.sub(fresh, text)


def main() -> int:
    """Refresh README.md."""
    text = README.read_text()
    try:
        now = refreshed(text)
    except subprocess.CalledProcessError as exc:
        print(f"README.md stays as it is: {' '.join(exc.cmd)} failed.\n{exc.stderr}")
        return 1
    if now == text:
        print("README.md is up to date.")
        return 0
    README.write_text(now)
    print("README.md has new help texts.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
