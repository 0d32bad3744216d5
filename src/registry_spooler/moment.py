"""Moments as all that we write spells them: receipts, failures, the health port's answers, what the commands print."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: float | datetime) -> str:
    """A moment (seconds since the epoch, or with its zone), in UTC to the millisecond.

    https://www.rfc-editor.org/rfc/rfc3339
    """
    at = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_or_none(moment: float | None) -> str | None:
    """The same for a moment that may not have come yet."""
    return None if moment is None else rfc3339(moment)
