"""How an attempt came out, and what an error means for a job."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any, Final

from registry_spooler.errors import (
    AccessDenied,
    RegistryProtocolError,
    RegistryUnreachable,
    SettingUnusable,
    SourceChanged,
    SourceUnreadable,
    SpoolerError,
    UploadLost,
)
from registry_spooler.progress import ImageResult
from registry_spooler.spool.scheduling.job import Reason


@dataclass(frozen=True, slots=True)
class Done:
    """The file is dealt with and gone."""

    results: tuple[ImageResult, ...]
    receipt: dict[str, Any]
    retried: bool
    """Whether it has made an earlier failure good."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The file is in `.failed/`."""

    record: dict[str, Any]
    answered: bool
    """Whether the registry refused it, so that it can be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """The file is where it was, to be tried again."""

    reason: Reason
    error: str
    retry_after_seconds: float | None = None
    delay_seconds: float | None = None
    """When it is known how long to wait; else the back-off says."""
    keeps_place: bool = False
    """Whether later files of its repository wait for it, whatever the reason."""
    is_shared: bool = False
    """Whether every other job meets the same trouble."""

    @property
    def non_blocking(self) -> bool:
        """Return whether later files of its repository may go first."""
        return self.reason in LETS_PASS and not self.keeps_place


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such file any more."""


@dataclass(frozen=True, slots=True)
class NotAFile:
    """There is something else under that name now."""

    kind: str


@dataclass(frozen=True, slots=True)
class LockedElsewhere:
    """Another spooler works on it or on its repository, or has the spool to itself for a bundle."""


@dataclass(frozen=True, slots=True)
class GaveWay:
    """It took long in the place for quick jobs, and waits again."""


@dataclass(frozen=True, slots=True)
class Suspected:
    """Spoolers have died over it so often that it is worked on last, and alone."""


Ending = Done | Failed | Deferred | Missing | NotAFile | LockedElsewhere | GaveWay | Suspected

LETS_PASS: Final = frozenset({Reason.FILE, Reason.WRITING, Reason.SETTLING})
"""Reasons that lie in the file, as if it had not arrived yet: later files of its repository need not wait for it."""

_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE})
ANSWERED: Final = frozenset({Reason.STATUS, Reason.UPLOAD})
"""Reasons that come from a registry that can be reached."""
WITHOUT_ANSWER: Final = frozenset({Reason.UNREACHABLE, Reason.SETTING, Reason.LOGIN, Reason.PROTOCOL})
"""Reasons that keep every job from being answered by the registry, until one of them is."""

_REASONS: Final[tuple[tuple[type[SpoolerError], Reason], ...]] = (
    (RegistryUnreachable, Reason.UNREACHABLE),
    (RegistryProtocolError, Reason.PROTOCOL),
    (AccessDenied, Reason.LOGIN),
    (SettingUnusable, Reason.SETTING),
    (SourceChanged, Reason.SOURCE),
    (SourceUnreadable, Reason.FILE),
    (UploadLost, Reason.UPLOAD),
)


def deferral(error: SpoolerError) -> Deferred:
    """Return what a temporary error means for a job."""
    reason = _reason(error)
    return Deferred(
        reason=reason,
        error=str(error),
        retry_after_seconds=error.retry_after_seconds,
        # A registry that asks for patience asks everybody.
        is_shared=reason in WITHOUT_ANSWER or error.retry_after_seconds is not None,
    )


def _reason(error: SpoolerError) -> Reason:
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.STATUS)


def disk_trouble(action: str, error: OSError) -> Deferred:
    """Return what an error in the spool means: trouble for all jobs when it is the disk's, else for this file."""
    is_shared = error.errno in _DISK_ERRORS
    return Deferred(
        reason=Reason.SPOOL if is_shared else Reason.FILE, error=f"{action}: {os_reason(error)}", is_shared=is_shared
    )


def os_reason(error: OSError) -> str:
    """Return what the system says of an error, without the paths of our own that come with it."""
    return error.strerror or str(error) or type(error).__name__
