"""JSON that is safe to show: of bounded text, always valid, and quiet on a terminal.

File names, and what a registry says, are anybody's words. A browser shows them as text whatever they hold; a terminal
that prints an answer as it came would obey some of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

_TEXT_MAX: Final = 1_000
"""Characters of one text: a sentence of ours has 200, a hostile registry's may have any number."""

_UNSAFE: Final = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
"""What orjson writes as it is and a terminal had better not see: C1 controls, and what reorders or hides text."""


def safe_json(document: Mapping[str, Any]) -> bytes:
    """One line of JSON."""
    content = orjson.dumps(_clean(document), default=str, option=orjson.OPT_APPEND_NEWLINE)
    return terminal_safe(content)


def terminal_safe(json: bytes) -> bytes:
    r"""The same JSON with what could move, hide or reorder text on a screen written as a number, like `\u202e`."""
    text = json.decode()
    if _UNSAFE.search(text) is None:
        return json
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _clean(value: Any) -> Any:
    """At most as much as anybody reads of a text, and nothing in it that UTF-8 cannot say."""
    if isinstance(value, str):
        cut = value if len(value) <= _TEXT_MAX else value[: _TEXT_MAX - 1] + "…"
        return cut if cut.isascii() else cut.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {str(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value
