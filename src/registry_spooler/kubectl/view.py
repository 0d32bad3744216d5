"""The spooler's status for people: as lines, and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from registry_spooler.kubectl.output import duration_text, size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN: Final = 10
"""Files of each kind; the counts are always whole."""

Row = tuple[str, str, str]
"""State, file, and what there is to say of it."""


def status_lines(document: dict[str, Any]) -> Iterator[str]:
    """One line of numbers, one for each trouble, one a file."""
    yield headline(document)
    yield from (f"trouble: {text}" for text in troubles(document))
    yield from (f"{state:<8}  {name}  {said}".rstrip() for state, name, said in rows(document))


def status_view(document: dict[str, Any]) -> RenderableType:
    """The same for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    colours = {"running": "cyan", "waiting": "", "deferred": "yellow", "failed": "red", "done": "green"}
    table = Table(expand=True)
    for title in ("", "file", ""):
        table.add_column(title, overflow="fold")
    for state, name, said in rows(document):
        table.add_row(Text(state, colours[state]), Text(name), Text(said))
    lines = [Text(headline(document), "bold"), *(Text(text, "red") for text in troubles(document))]
    return Group(*lines, table)


def headline(document: dict[str, Any]) -> str:
    """The numbers."""
    queue, registry = document["queue"], document["registry"]
    state = "up" if registry["up"] else "down"
    counts = f"{queue['running']} running, {queue['waiting']} waiting, {queue['deferred']} put off"
    return f"registry {registry['address']} {state}; {counts}, {document['spool']['failed_files']} failed"


def troubles(document: dict[str, Any]) -> list[str]:
    """The checks that fail."""
    checks = document["checks"].items()
    return [f"{name}: {check.get('detail') or 'failing'}" for name, check in checks if check["state"] != "ok"]


def rows(document: dict[str, Any]) -> Iterator[Row]:
    """A row for each file: what runs first, what is done last."""
    for job in document["running"][:SHOWN]:
        yield "running", job["file"], _running(job)
    for file in document["waiting"][:SHOWN]:
        behind = f", behind {file['behind']}" if file.get("behind") else ""
        yield "waiting", file["file"], f"for {duration_text(file['seconds'])}{behind}"
    for file in document["deferred"][:SHOWN]:
        yield "deferred", file["file"], f"again in {duration_text(file['next_try_in_seconds'])}: {file['error']}"
    for record in document["failures"][:SHOWN]:
        yield "failed", record["file"], str(record["error"])
    for record in document["receipts"][:SHOWN]:
        yield "done", record["file"], str(record.get("digest") or "")


def _running(job: dict[str, Any]) -> str:
    total = job["bytes_total"]
    done = f"{100 * job['bytes_done'] // total} % of {size_text(total)}" if total else size_text(job["bytes_done"])
    return f"{job['action']}, {done}, {size_text(job['bytes_sent'])} sent, {duration_text(job['seconds'])}"
