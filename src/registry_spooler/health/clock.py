"""Moments as every answer spells them."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: float) -> str:
    """Wall-clock seconds since the epoch, in UTC to the millisecond, https://www.rfc-editor.org/rfc/rfc3339."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_or_none(moment: float | None) -> str | None:
    """The same for a moment that may not have come yet."""
    return None if moment is None else rfc3339(moment)
