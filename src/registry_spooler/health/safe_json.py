"""JSON that is safe to show: of bounded text, always valid, and quiet on a terminal.

File names, and what a registry says, are anybody's words. A browser shows them as text whatever they hold; a terminal
that prints an answer as it came would obey some of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from registry_spooler.text import encodable, terminal_safe_json

_TEXT_MAX: Final = 1_000
"""Characters of one text: a sentence of ours has 200, a hostile registry's may have any number."""


def safe_json(document: Mapping[str, Any]) -> bytes:
    """One line of JSON."""
    return terminal_safe_json(orjson.dumps(_clean(document), default=str, option=orjson.OPT_APPEND_NEWLINE))


def _clean(value: Any) -> Any:
    """At most as much as anybody reads of a text, and nothing in it that UTF-8 cannot say."""
    if isinstance(value, str):
        return encodable(value if len(value) <= _TEXT_MAX else value[: _TEXT_MAX - 1] + "…")
    if isinstance(value, Mapping):
        return {str(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value
