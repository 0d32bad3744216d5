"""What the far side says on standard error: plain code, fed bytes as they come.

JSON, one object a line: signs of life and progress, which only show that it lives; `{"warning": "…"}` for what is odd,
but no error; why the work failed; and its last word, `{"done": true, "stdout_bytes": 4096, "code": 0}`. The cluster's
own word on how a command ended is worth little: it tells success when a kubelet dies. So a call without a last word was
cut, whatever the exit code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

LINE_LIMIT_BYTES: Final = 256 * 1024
_PLAIN_LINES_KEPT: Final = 5
_WARNINGS_KEPT: Final = 20
_WARNING_CHARACTERS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
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
        self.error: Complaint | None = None
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
            self.error = Complaint(
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
