"""What a program prints, line by line: read by a thread as it comes, so that the program never waits for a reader."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import IO


class LineLog:
    """The lines of a program's output, which it closes at its end."""

    def __init__(self, output: IO[str]) -> None:
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[str]:
        with self._news:
            return iter(list(self._lines))

    def __len__(self) -> int:
        return len(self._lines)

    def __str__(self) -> str:
        return "\n".join(self)

    def wait_for(self, pattern: str, timeout_seconds: float) -> re.Match[str]:
        """Wait for a line with the pattern, from the first one on. AssertionError when the output ends without."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(match for line in self._lines if (match := re.search(pattern, line)))
            return bool(found) or self._ended

        with self._news:
            self._news.wait_for(look, timeout_seconds)
        assert found, f"no line with {pattern!r} in:\n{self}"
        return found[0]

    def join(self) -> None:
        """Wait until the output has been read to its end: the program's own end is the caller's to bring about."""
        self._reader.join()

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                with self._news:
                    self._lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
