"""What the spool asks of the layer above it, and what became of it."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from registry_spooler.filename import Action, FileName
from registry_spooler.progress import Progress
from registry_spooler.reference import Reference
from registry_spooler.result import ImageResult
from registry_spooler.spool.names import display
from registry_spooler.spool.opened import OpenedFile


class NotYetItsTurn(Exception):
    """A bundle has been read, and has to wait for earlier files of its repositories."""


class Outcome(enum.Enum):
    """How one attempt ended; the words are labels of the metrics."""

    DONE = "done"
    DEFERRED = "deferred"
    FAILED = "failed"
    ABANDONED = "abandoned"
    """Cancelled because the spooler stops: the file is where it was."""


class Reason(enum.Enum):
    """Why a job waits for another try; the words are labels of the metrics."""

    UNREACHABLE = "unreachable"
    STATUS = "status"
    """The registry answered that it cannot now: 408, 429, 5xx."""
    UPLOAD = "upload"
    LOGIN = "login"
    """The registry, or its token server, refuses the login, or wants one and there is none."""
    PROTOCOL = "protocol"
    """What answers is no registry, or does not follow the protocol."""
    SETTING = "setting"
    """A file that the settings name, a certificate or a password, cannot be read."""
    SOURCE = "source"
    """The file changed during its push."""
    FILE = "file"
    """The file cannot be read."""
    WRITING = "writing"
    """Somebody has the file open for writing."""
    SETTLING = "settling"
    """It reads as incomplete, and may yet be appended to."""
    SPOOL = "spool"
    """The spool cannot be written to: read-only, full."""
    INTERNAL = "internal"
    """An error of our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt to do what a file asks for."""

    filename: FileName
    attempt: int
    """From 1."""
    claim: Callable[[Collection[str]], Awaitable[None]]
    """To be awaited for a bundle that has been read, before anything of it is pushed: it is about these repositories.
    Raises NotYetItsTurn, which is to go through to the spool, when earlier files of one of them are to come first."""

    @property
    def name(self) -> str:
        """The file's name, unescaped: not for people."""
        return self.filename.name

    @property
    def display(self) -> str:
        """The file's name for people."""
        return display(self.filename.name)

    @property
    def action(self) -> Action:
        """What the file asks for."""
        return self.filename.action

    @property
    def reference(self) -> Reference | None:
        """The image that is pushed or deleted; None for a bundle."""
        return self.filename.reference


Handler = Callable[[Job, OpenedFile, Progress], Awaitable[tuple[ImageResult, ...]]]
"""Does the job, and raises a SpoolerError where it cannot: `temporary` ones defer it, others fail it.

An ArchiveError that is `incomplete` leaves a file that was not renamed into place some time to settle. An OSError
means that the file cannot be read. Cancelled, it cancels its uploads, within a second or two.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """One attempt that has ended, for whoever observes them."""

    name: str
    """For people."""
    action: Action
    reference: Reference | None
    outcome: Outcome
    attempt: int
    seconds: float
    archive_bytes: int
    results: tuple[ImageResult, ...] = ()
    reason: Reason | None = None
    error: str = ""
