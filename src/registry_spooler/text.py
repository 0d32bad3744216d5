"""Text for people: what may be shown as it is, sizes, durations, counts and times, in one form everywhere.

File names, and what registries, archives and pods say, are anybody's words. A terminal that prints them as they are
would obey some of them, and a line of a log could be made to look like two.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_HEX_DIGEST: Final = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{128})(?![0-9a-f])")
_NOT_ASCII: Final = re.compile("[^\x00-\x7e]")


def printable(text: str) -> str:
    r"""Return the text on one line, harmless to a terminal.

    Control, format and line-end characters, which could move, hide or reorder text, become `\x1b`, `\u202e` and so on;
    bytes of a file name that are no UTF-8 become `\xNN`. Everything else, a backslash too, stays as it is.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def quoted(text: str, limit: int = 300) -> str:
    """Return the text in quotation marks for use within a sentence; `limit` is in characters."""
    shown = printable(text[:limit])
    return f"'{shown}…'" if len(text) > limit else f"'{shown}'"


def shortened(text: str) -> str:
    """Return the text with the first twelve digits of each digest in it."""
    return _HEX_DIGEST.sub(lambda match: f"{match[0][:12]}…", text)


def encodable(text: str) -> str:
    r"""Return the text with what UTF-8 cannot express (bytes of a file name, lone surrogates) as `\xNN`, `\uNNNN`."""
    return text if text.isascii() else "".join(_shown(char) if _is_surrogate(char) else char for char in text)


def terminal_safe_json(json: bytes) -> bytes:
    r"""Return the same JSON with each character that a terminal should not see written as `\uNNNN`.

    JSON's own rules already escape the ASCII control characters.
    """
    if b"\x7f" not in json and json.isascii():
        return json
    return _NOT_ASCII.sub(
        lambda match: match[0] if match[0].isprintable() else _json_escape(match[0]), json.decode()
    ).encode()


def size_text(size_bytes: float) -> str:
    """Return a number of bytes for people: `12.3 MiB`."""
    unit = 0
    while size_bytes >= 1024 and unit < len(_UNITS) - 1:
        size_bytes /= 1024
        unit += 1
    return f"{size_bytes:.0f} {_UNITS[0]}" if unit == 0 else f"{size_bytes:.1f} {_UNITS[unit]}"


def duration_text(seconds: float) -> str:
    """Return a time span for people: `0.4 s`, `12 s`, `4 min 10 s`, `3 h 5 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: `1 blob`, `2 blobs`; `plural` for nouns that do more than take an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    if "\udc80" <= char <= "\udcff":  # what `os.fsdecode` makes of a byte that is no UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def _is_surrogate(char: str) -> bool:
    return "\ud800" <= char <= "\udfff"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def rfc3339(moment: float | datetime) -> str:
    """A moment (seconds since the epoch, or with its zone), in UTC to the millisecond.

    https://www.rfc-editor.org/rfc/rfc3339
    """
    at = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_or_none(moment: float | None) -> str | None:
    """The same for a moment that may not have come yet."""
    return None if moment is None else rfc3339(moment)
