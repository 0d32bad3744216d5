"""A file that the queue knows of, and the job that is made of it."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from registry_spooler.errors import InvalidFileName
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.spool.directory.deaths import NO_DEATHS, Deaths
from registry_spooler.spool.directory.files import Identity, OpenedFile
from registry_spooler.spool.directory.workdir import Aside
from registry_spooler.spool.filename import Action, FileName, display


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


class Arrival(enum.Enum):
    """How a file got its name. Only who renames a file into place says that it is complete."""

    RENAMED = "renamed"
    CLOSED = "closed"
    FOUND = "found"


class Phase(enum.Enum):
    """Where a file is on its way."""

    WAITING = "waiting"
    RUNNING = "running"
    DEFERRED = "deferred"
    ELSEWHERE = "elsewhere"
    """Another spooler works on its repository."""


@dataclass(frozen=True, slots=True)
class Settling:
    """A content that read as incomplete: it fails for `error` unless it changes until `until` (monotonic clock)."""

    identity: Identity
    until: float
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """A content that is done at the registry, while its receipt or its removal is not: it need not be done again."""

    identity: Identity
    results: tuple[ImageResult, ...]
    started: float
    """Seconds since the epoch."""
    opened_at: float
    """When the file was opened for it (monotonic clock); it has not changed since."""


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One file. `due` is on the monotonic clock; `since` and `next_try` are seconds since the epoch."""

    name: str
    parsed: FileName | InvalidFileName
    identity: Identity
    arrival: Arrival
    aside: Aside | None = None
    """Where it is, when it lost its name to a newer file."""
    given_back: bool = False
    """A run that died had set it aside, and it has its name again. It had its turn then."""
    phase: Phase = Phase.WAITING
    due: float = 0.0
    next_try: float = 0.0
    reason: Reason | None = None
    error: str = ""
    non_blocking: bool = False
    """Whether later files of the same repository may go first while this one is deferred."""
    arrived_again: Arrival | None = None
    """While it runs: there was an event for its name."""
    arrivals: int = 0
    """How many had arrived when it did: the file system's clock is coarse."""
    seen: float = 0.0
    """When its identity was read (monotonic clock)."""
    gave_way: bool = False
    """Whether it took long in the place that is for quick jobs."""
    still_since: float = 0.0
    """When its content was seen first (monotonic clock)."""
    arrived_ns: int = 0
    """When it arrived, as the queue sees it: nanoseconds since the epoch."""
    deaths: Deaths = NO_DEATHS
    """Of spoolers that have died violently over this content."""
    alone: bool = False
    """Whether it is worked on last, and alone, because too many have died."""
    attempts: int = 0
    failures: int = 0
    """Deferred so many times in a row."""
    settling: Settling | None = None
    pushed: Pushed | None = None
    repository: str = field(init=False)
    """Files of one repository run one after the other; a bad name or a bundle counts as a repository of its own."""

    def __post_init__(self) -> None:
        # No repository starts with "@".
        self.repository = f"@{self.name}" if self.reference is None else self.reference.repository

    @classmethod
    def found(cls, name: str, identity: Identity, *, aside: Aside | None = None, given_back: bool = False) -> Entry:
        """Return a file that no event has told of."""
        return cls(
            name=name,
            parsed=parse_name(name),
            identity=identity,
            arrival=Arrival.FOUND,
            aside=aside,
            given_back=given_back,
        )

    @property
    def is_bundle(self) -> bool:
        """Return whether its images go where its archive says; it has the spool to itself then."""
        return isinstance(self.parsed, FileName) and self.parsed.is_bundle

    def is_behind(self, other: Entry) -> bool:
        """Return whether it waits for the other one, should that be put off."""
        shares = self.is_bundle or other.is_bundle or other.repository == self.repository
        return shares and other.order < self.order and not other.non_blocking

    @property
    def is_aside(self) -> bool:
        """Return whether it lost its name to a newer file."""
        return self.aside is not None

    @property
    def key(self) -> str:
        """Return what tells it from all others in the queue."""
        return str(self.aside.folder.path / self.name) if self.aside is not None else self.name

    @property
    def order(self) -> tuple[int, int]:
        """Return its place: when it arrived; before all others when it was set aside."""
        return (0 if self.is_aside or self.given_back else self.arrived_ns, self.arrivals)

    @property
    def since(self) -> float:
        """Return when it arrived."""
        return self.arrived_ns / 1e9

    @property
    def action(self) -> Action:
        """Return what it asks for, also from a name that cannot be read."""
        if isinstance(self.parsed, FileName):
            return self.parsed.action
        return Action.DELETE if self.name.endswith("!") else Action.PUSH

    @property
    def reference(self) -> Reference | None:
        """Return what it names, when it names one image."""
        return self.parsed.reference if isinstance(self.parsed, FileName) else None


def parse_name(name: str) -> FileName | InvalidFileName:
    """Return what a file's name says, or the error when it cannot be read."""
    try:
        return FileName.parse(name)
    except InvalidFileName as exc:
        return exc
