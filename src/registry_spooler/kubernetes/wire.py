"""What the far side answers: its last word, and JSON that is read with types.

JSON, one object a line: signs of life and progress, which only show that it lives; `{"warning": "…"}` for what is odd,
but no error; why the work failed; and its last word, `{"done": true, "stdout_bytes": 4096, "code": 0}`. The cluster's
own word on how a command ended is worth little: it tells success when a kubelet dies. So a call without a last word was
cut, whatever the exit code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson

from registry_spooler.errors import SpoolerError
from registry_spooler.kubernetes.cluster_errors import KubeError
from registry_spooler.oci.digest import Digest

LINE_LIMIT_BYTES: Final = 256 * 1024
_PLAIN_LINES_KEPT: Final = 5
_WARNINGS_KEPT: Final = 20
_WARNING_CHARACTERS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFailure:
    """Why the work failed. `kind` is the name of the far side's error class."""

    sentence: str
    kind: str = ""
    code: int = 1
    temporary: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWord:
    """How the command ended, and how much it wrote to standard output."""

    code: int
    stdout_bytes: int


class StderrReader:
    """Reads one command's standard error. It holds no more than a line."""

    def __init__(self) -> None:
        self._rest = b""
        self.error: RemoteFailure | None = None
        self.last_word: LastWord | None = None
        self.plain: list[str] = []
        """The last lines that were no JSON: a traceback, or the words of another program."""
        self.warnings: list[str] = []
        """The first sentences on what is odd, but no error."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-LINE_LIMIT_BYTES:]
        for line in lines:
            self._read(line)

    def close(self) -> None:
        """Take note that no more comes."""
        self._read(self._rest)
        self._rest = b""

    def is_over(self, stdout_bytes: int) -> bool:
        """Has the command failed, or said that it is through, with all that it wrote received?"""
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
            self.error = RemoteFailure(
                sentence=str(document["error"]),
                kind=str(document.get("kind") or ""),
                code=_code(document.get("code")) or 1,
                temporary=bool(document.get("temporary")),
                detail=str(document.get("detail") or ""),
            )
        elif "warning" in document:
            self.warnings = [*self.warnings, str(document["warning"])[:_WARNING_CHARACTERS]][:_WARNINGS_KEPT]
        elif document.get("done") is True and isinstance(size := document.get("stdout_bytes"), int):
            self.last_word = LastWord(code=_code(document.get("code")), stdout_bytes=size)


def _code(value: object) -> int:
    """An exit code; what is none counts as a failure."""
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

    def objects(self) -> tuple[dict[str, Any], ...]:
        """Return a list of objects."""
        return tuple(entry.fields() for entry in self.entries())


@contextmanager
def reading(what: str, expected: str) -> Iterator[None]:
    """Turn what a parser raises over a pod's answer into UnreadableAnswer."""
    try:
        yield
    except KubeError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, SpoolerError) as exc:
        raise UnreadableAnswer(what, expected) from exc
