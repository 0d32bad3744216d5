"""The wire between `kubectl spool` and `registry-client --remote` in the pod: both ends use this module.

A call is one exec of `command(...)`. Standard output carries the answer. Standard error carries JSON, one object a
line:

- `{"alive": true}` and `{"progress": {…}}` only show that the remote end lives;
- `{"waiting": 2}`: so many others come first, whose end it waits for;
- `{"warning": "…"}` tells of something odd that is no error;
- `{"error": "…", "kind": "ChecksumMismatch", "code": 1, "temporary": false, "detail": "…"}` tells why the work failed;
- `{"done": true, "stdout_bytes": 4096, "code": 0}` is the last word.

What the cluster reports about a command's end is worth little: it reports success when a kubelet dies. So a call
without a last word was cut, whatever the exit code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from registry_spooler.errors import SpoolerError
from registry_spooler.kubernetes.cluster_errors import KubeError
from registry_spooler.oci.digest import Digest

if TYPE_CHECKING:
    from registry_spooler.progress import Progress

LINE_LIMIT_BYTES: Final = 256 * 1024
_PLAIN_LINES_KEPT: Final = 5
_WARNINGS_KEPT: Final = 20
_WARNING_CHARACTERS: Final = 2_000


PROGRAM: Final = "registry-client"
ALIVE: Final[dict[str, Any]] = {"alive": True}
_PROGRESS: Final = (
    "bytes_total",
    "bytes_done",
    "bytes_sent",
    "bytes_skipped",
    "blobs_uploaded",
    "blobs_existing",
    "blobs_mounted",
)


def command(*arguments: str, stdin_bytes: int) -> list[str]:
    """Return the command to run in the pod; standard input stays open, so its length has to be told."""
    return [PROGRAM, "--remote", "--stdin-bytes", str(stdin_bytes), *arguments]


REQUESTS: Final = "requests"
"""The command that reads commands from standard input: see `transfer/conversation.py`."""


def encode_request(arguments: Sequence[str], stdin_bytes: int) -> bytes:
    """Return one command of a conversation; its input follows."""
    document = orjson.dumps({"arguments": arguments, "stdin_bytes": stdin_bytes})
    return len(document).to_bytes(4) + document


def decode_request(document: bytes) -> tuple[list[str], int]:
    """Return the arguments and the input's length of what follows the four bytes; ValueError when it is none."""
    match orjson.loads(document):
        case {"arguments": [str(), *_] as arguments, "stdin_bytes": int() as stdin_bytes} if stdin_bytes >= 0:
            if arguments[0] != REQUESTS and all(isinstance(text, str) for text in arguments):
                return arguments, stdin_bytes
    raise ValueError("that is no request")


def encode_line(document: Mapping[str, Any]) -> bytes:
    """Return one line of standard error."""
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def progress_line(progress: Progress) -> dict[str, Any]:
    """Return how far the work is."""
    return {"progress": {name: getattr(progress, name) for name in _PROGRESS}}


class SpoolerStopping(SpoolerError):
    """The daemon that did the work is about to end."""

    temporary = True
    sentence = "the spooler is stopping"


class DepositError(SpoolerError):
    """A file cannot be written into the spool directory."""

    name: str
    reason: str
    _: KW_ONLY
    temporary: bool = False

    sentence = "{name!q} cannot be put into the spool directory: {reason}"


class ChecksumMismatch(DepositError):
    """What arrived is not what was sent."""


class ArrivedMeanwhile(DepositError):
    """Another call has changed `NAME~` since it was probed."""


class NothingArrived(DepositError):
    """There is no `NAME~`: nothing has been sent, or it has been renamed already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFailure:
    """Why the work failed. `kind` is the name of the error's class at the remote end."""

    sentence: str
    kind: str = ""
    code: int = 1
    temporary: bool = False
    detail: str = ""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote, or something like it."""
        return cls(
            sentence=str(document["error"]),
            kind=str(document.get("kind") or ""),
            code=_code(document.get("code")) or 1,
            temporary=bool(document.get("temporary")),
            detail=str(document.get("detail") or ""),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the line's document."""
        return {
            "error": self.sentence,
            "kind": self.kind,
            "code": self.code,
            "temporary": self.temporary,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWord:
    """How the command ended, and how many bytes it wrote to standard output."""

    code: int
    stdout_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the line's document."""
        return {"done": True, "stdout_bytes": self.stdout_bytes, "code": self.code}


class StderrReader:
    """Reads one command's standard error, holding no more than a line of it."""

    def __init__(self) -> None:
        self._rest = b""
        self.error: RemoteFailure | None = None
        self.last_word: LastWord | None = None
        self.plain: list[str] = []
        """The last lines that were not JSON: a traceback, or the output of another program."""
        self.warnings: list[str] = []
        """The first warnings."""
        self.ahead = 0
        """How many others came first when it was last told."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-LINE_LIMIT_BYTES:]
        for line in lines:
            self._read(line)

    def close(self) -> None:
        """Read the rest: nothing more comes."""
        self._read(self._rest)
        self._rest = b""

    def is_over(self, stdout_bytes: int) -> bool:
        """Return whether the command has failed, or has said its last word and all its output was received."""
        return self.error is not None or (self.last_word is not None and stdout_bytes >= self.last_word.stdout_bytes)

    def _read(self, line: bytes) -> None:
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            if text := line.decode("utf-8", "replace").strip():
                self.plain = [*self.plain, text[:500]][-_PLAIN_LINES_KEPT:]
        elif "error" in document:
            self.error = RemoteFailure.read(document)
        elif isinstance(ahead := document.get("waiting"), int):
            self.ahead = ahead
        elif "warning" in document:
            self.warnings = [*self.warnings, str(document["warning"])[:_WARNING_CHARACTERS]][:_WARNINGS_KEPT]
        elif document.get("done") is True and isinstance(size := document.get("stdout_bytes"), int):
            self.last_word = LastWord(code=_code(document.get("code")), stdout_bytes=size)


def _code(value: object) -> int:
    """Return an exit code; anything else counts as a failure."""
    return value if isinstance(value, int) and 0 <= value < 256 else 1


_SHOWN_MAX: Final = 2_000
"""Characters of one text: a sentence of ours has 200."""


class UnreadableAnswer(KubeError):
    """The pod answered with JSON that is not what was asked for."""

    where: str
    expected: str
    sentence = (
        "the pod's answer cannot be read: {where} is not {expected}; "
        "`kubectl spool doctor` compares the versions here and there"
    )


@dataclass(frozen=True, slots=True)
class Document:
    """A part of an answer; `where` says which part. All methods raise UnreadableAnswer for what is of another type."""

    value: Any
    where: str

    def __getitem__(self, key: str) -> Document:
        """Return a member of an object, which has to be there."""
        found = self.fields().get(key)
        return Document(found, f"{self.where}.{key}")

    def fields(self) -> dict[str, Any]:
        """Return the object itself."""
        if not isinstance(self.value, dict):
            raise UnreadableAnswer(self.where, "an object")
        return self.value

    def entries(self) -> Iterator[Document]:
        """Yield the items of a list."""
        if not isinstance(self.value, list):
            raise UnreadableAnswer(self.where, "a list")
        return (Document(item, f"{self.where}[{index}]") for index, item in enumerate(self.value))

    def text(self) -> str:
        """Return a string, cut where it is longer than anybody reads."""
        if not isinstance(self.value, str):
            raise UnreadableAnswer(self.where, "a text")
        return self.value if len(self.value) <= _SHOWN_MAX else f"{self.value[:_SHOWN_MAX]}…"

    def digest(self) -> Digest:
        """Return a digest."""
        with reading(self.where, "a digest"):
            return Digest.parse(self.text())

    def text_or_none(self) -> str:
        """Return a string; an empty one for null and for what is not there."""
        return "" if self.value is None else self.text()

    def number(self) -> float:
        """Return a number that is not negative."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not self.value >= 0:
            raise UnreadableAnswer(self.where, "a number")
        return self.value

    def count(self) -> int:
        """Return a number without a fraction."""
        return int(self.number())

    def strings(self) -> tuple[str, ...]:
        """Return a list of strings, whole."""
        if not isinstance(self.value, list) or not all(isinstance(item, str) for item in self.value):
            raise UnreadableAnswer(self.where, "a list of texts")
        return tuple(self.value)


@contextmanager
def reading(what: str, expected: str) -> Iterator[None]:
    """Turn what a parser raises over a pod's answer into UnreadableAnswer."""
    try:
        yield
    except KubeError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, SpoolerError) as exc:
        raise UnreadableAnswer(what, expected) from exc
