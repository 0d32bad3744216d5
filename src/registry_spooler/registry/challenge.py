"""What a 401 asks for: `WWW-Authenticate`, read with all that is legal in it.

Several headers, several challenges in one header, quoted strings with commas and escapes, parameters left out.
https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')
_SCHEME: Final = re.compile(rf"({_WORD})(?:[ \t]+(?!,)|(?=[ \t]*(?:,|$)))")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?:,|$)")
"""What some schemes have in place of parameters; `name=value` is none, as something follows the sign there."""
_GAP: Final = re.compile(r"[\s,]*")
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge; scheme and parameter names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def scopes(self) -> tuple[str, ...]:
        """What a Bearer challenge says the request needs."""
        return tuple(self.parameters.get("scope", "").split())


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges in the order in which they were sent; what cannot be read ends its header."""
    return tuple(challenge for header in headers for challenge in _parse(header))


def _parse(header: str) -> Iterator[Challenge]:
    position = _skip(header, 0)
    while scheme := _SCHEME.match(header, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        if word := _TOKEN68.match(header, position):
            position = word.end()
        position = _skip(header, position)
        while found := _PARAMETER.match(header, position):
            quoted, plain = found[2], found[3]
            value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(found[1].lower(), value)
            position = _skip(header, found.end())
        yield Challenge(scheme[1].lower(), parameters)


def _skip(header: str, position: int) -> int:
    gap = _GAP.match(header, position)
    return gap.end() if gap else position
