"""The spooler's status for people: as lines, and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from registry_spooler.kube.document import Document
from registry_spooler.text import duration_text, printable, size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN: Final = 10
"""Files of each kind; the counts are always whole."""

Row = tuple[str, str, str]
"""State, file, and what there is to say of it; harmless to a terminal."""


def status_lines(document: dict[str, Any]) -> Iterator[str]:
    """One line of numbers, one for each trouble, one a file; UnreadableAnswer when it is no status."""
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
    status = Document(document, "status")
    queue, registry = status["queue"], status["registry"]
    state = "up" if registry["up"].value else "down"
    counts = ", ".join(f"{queue[name].count()} {name}" for name in ("running", "waiting", "deferred"))
    address = printable(registry["address"].text())
    return f"registry {address} {state}; {counts}, {status['spool']['failed_files'].count()} failed"


def troubles(document: dict[str, Any]) -> list[str]:
    """The checks that fail."""
    checks = Document(document, "status")["checks"]
    return [
        printable(f"{name}: {checks[name]['detail'].text_or_none() or 'failing'}")
        for name in checks.fields()
        if checks[name]["state"].text() != "ok"
    ]


def rows(document: dict[str, Any]) -> Iterator[Row]:
    """A row for each file: what runs first, what is done last."""
    status = Document(document, "status")
    for state, name, said in _rows(status):
        yield state, printable(name), printable(said)


def _rows(status: Document) -> Iterator[Row]:
    for job in _first(status["running"]):
        yield "running", job["file"].text(), _running(job)
    for file in _first(status["waiting"]):
        behind = f", behind {file['behind'].text()}" if file["behind"].value else ""
        yield "waiting", file["file"].text(), f"for {duration_text(file['seconds'].number())}{behind}"
    for file in _first(status["deferred"]):
        yield "deferred", file["file"].text(), f"{_next_try(file)}: {file['error'].text_or_none()}"
    for record in _first(status["failures"]):
        yield "failed", record["file"].text(), record["error"].text_or_none()
    for record in _first(status["receipts"]):
        yield "done", record["file"].text(), record["digest"].text_or_none()


def _first(files: Document) -> Iterator[Document]:
    return islice(files.entries(), SHOWN)


def _next_try(file: Document) -> str:
    seconds = file["next_try_in_seconds"].number()
    return f"next try in {duration_text(seconds)}" if seconds >= 1 else "next try now"


def _running(job: Document) -> str:
    total, bytes_done = job["bytes_total"].count(), job["bytes_done"].count()
    done = f"{min(100, 100 * bytes_done // total)} % of {size_text(total)}" if total else size_text(bytes_done)
    sent = size_text(job["bytes_sent"].number())
    return f"{job['action'].text()}, {done}, {sent} sent, {duration_text(job['seconds'].number())}"
