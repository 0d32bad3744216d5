"""Where the single file runs: the Pythons and machines whose compiled dependencies it holds.

The tags are those of https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_GLIBC_MINOR_OLDEST, _GLIBC_MINOR_NEWEST = 17, 28
_MACOS = ("11_0", "10_15", "10_13", "10_12", "10_9")
"""The oldest macOS that the file runs on, and what was built for older ones."""


@dataclass(frozen=True, slots=True)
class Target:
    """One Python on one kind of machine."""

    python: str
    """Such as `3.11`."""
    system: str
    """`linux` or `macos`."""
    machine: str
    """As the system calls it: `x86_64`, `aarch64`, `arm64`."""

    def __str__(self) -> str:
        """As `bootstrap.this_target` says it."""
        return f"{self.python}-{self.system}-{self.machine}"

    @property
    def sys_platform(self) -> str:
        """As Python calls the system."""
        return {"macos": "darwin"}.get(self.system, self.system)

    @property
    def tags(self) -> tuple[str, ...]:
        """The platform tags that fit, the newest first."""
        return tuple(self._linux() if self.system == "linux" else self._macos())

    def _linux(self) -> Iterator[str]:
        for minor in range(_GLIBC_MINOR_NEWEST, _GLIBC_MINOR_OLDEST - 1, -1):
            yield f"manylinux_2_{minor}_{self.machine}"
        yield f"manylinux2014_{self.machine}"  # an older name of 2.17

    def _macos(self) -> Iterator[str]:
        for version in _MACOS:
            for machine in (self.machine, "universal2"):
                yield f"macosx_{version}_{machine}"


TARGETS = tuple(
    Target(python, system, machine)
    for python in PYTHONS
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("macos", "x86_64"), ("macos", "arm64"))
)
