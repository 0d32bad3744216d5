"""What an `Accept` header asks for, https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1."""

from __future__ import annotations

from typing import Final

_OPENMETRICS: Final = "application/openmetrics-text"
_PROTOBUF: Final = "application/vnd.google.protobuf"
_TEXT: Final = "text/plain"
_RANGES_MAX: Final = 32
"""More than any client names."""


def wants_openmetrics(accept: str) -> bool:
    """Does a scraper prefer OpenMetrics to the older text?"""
    ranges = media_ranges(accept)
    quality = ranges.get(_OPENMETRICS, 0.0)
    return quality > 0 and quality >= ranges.get(_TEXT, 0.0)


def is_scraper(accept: str) -> bool:
    """Is it an `Accept` that only scrapers send? A browser and curl name neither of these types."""
    return not {_OPENMETRICS, _PROTOBUF, _TEXT}.isdisjoint(media_ranges(accept))


def media_ranges(accept: str) -> dict[str, float]:
    """Media types without their parameters, each with the best quality given for it (RFC 9110, 12.5.1)."""
    ranges: dict[str, float] = {}
    for entry in accept.lower().split(",")[:_RANGES_MAX]:
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        qualities = (_quality(parameter[2:]) for parameter in parameters if parameter.startswith("q="))
        ranges[media_type] = max(ranges.get(media_type, 0.0), next(qualities, 1.0))
    return ranges


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
