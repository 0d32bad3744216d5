"""JSON that a pod answered with, read with types: whoever answers there, a surprise is a sentence and no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from registry_spooler.digest import Digest
from registry_spooler.errors import SpoolerError
from registry_spooler.kube.errors import KubeError

_SHOWN_MAX: Final = 2_000
"""Characters of one text: a sentence of ours has 200."""


class UnreadableAnswer(KubeError):
    """The pod answered with JSON that is not what was asked for."""

    def __init__(self, where: str, expected: str) -> None:
        super().__init__(where, expected)
        self.where = where
        self.expected = expected

    def __str__(self) -> str:
        return (
            f"the pod's answer cannot be read: {self.where} is not {self.expected}; "
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
